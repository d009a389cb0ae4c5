"""Find the passages of a contract that answer a question: words (BM25), embeddings (FAISS), or both.

Every search is exact: a contract has about a hundred passages, so nothing is gained by an approximate index.
"""

from __future__ import annotations

import copy
import os
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cuadft.errors import InputError
from cuadft.files import read_json, read_jsonl, write_json, write_jsonl
from cuadft.lexical import Lexical, words
from cuadft.passages import Passage
from cuadft.retrieval import evaluate, tune
from cuadft.rocchio import Feedback

if TYPE_CHECKING:
    import faiss

    from cuadft.embedder import Embedder

__all__ = ["Feedback", "Hit", "MODES", "Retriever", "evaluate", "tune"]

MODES = ("fusion", "dense", "bm25")
_DECIMALS = 5  # scores that differ by rounding only count as equal, so that ties go to the earlier passage


@dataclass(frozen=True)
class Hit:
    """A passage that a search found; compare its score (BM25, cosine or fused) within one search only."""

    passage: Passage
    score: float


class Retriever:
    """Search over passages, all or one contract's. Safe to call from many threads."""

    def __init__(
        self,
        passages: Sequence[Passage],
        embedder: Embedder | None,
        *,
        mode: str = "fusion",
        feedback: Feedback | None = None,
        feedback_weight: float = 0.0,
    ):
        """Index passages for BM25 now, for embeddings when a mode first needs them (bm25 embeds no passage).

        feedback_weight, 0 to 1: share of the relevance feedback in the query, in both indexes. Raises
        InputError on no passages, unknown mode, weight out of range or without feedback, missing embedder.
        """
        if not passages:
            raise InputError("A retriever needs passages, got none: check that the contracts have text")
        self.passages, self.embedder, self.feedback = list(passages), embedder, feedback
        self._contracts: dict[str, list[int]] = {}
        for n, passage in enumerate(self.passages):
            self._contracts.setdefault(passage.contract, []).append(n)
        self._lexical = Lexical([passage.text for passage in self.passages])
        self._lock, self._shared = threading.Lock(), {}
        self._configure(mode, feedback_weight)

    def __deepcopy__(self, memo: dict) -> Retriever:
        return self  # DSPy copies a program with all it holds

    def configured(self, *, mode: str | None = None, feedback_weight: float | None = None) -> Retriever:
        """Return a retriever over the same indexes with another mode or weight."""
        other = copy.copy(self)
        weight = self.feedback_weight if feedback_weight is None else feedback_weight
        other._configure(mode or self.mode, weight)
        return other

    def _configure(self, mode: str, weight: float) -> None:
        if mode not in MODES:
            raise InputError(f"Invalid retrieval mode {mode!r}: choose {', '.join(MODES)}")
        if not 0 <= weight <= 1:
            raise InputError(f"Invalid feedback_weight {weight!r}: give a number from 0 to 1")
        if weight and self.feedback is None:
            raise InputError(f"feedback_weight {weight} without feedback: give Feedback.from_rows(...), or 0")
        if self.embedder is None and (weight or mode != "bm25"):
            raise InputError(f"Mode {mode!r} with feedback_weight {weight} needs an embedder, got None: "
                             "give one, or choose mode 'bm25' with feedback_weight 0")  # fmt: skip
        self.mode, self.feedback_weight = mode, weight

    def search(self, query: str, *, contract: str | None = None, k: int = 3) -> list[Hit]:
        """Return the best k passages (fewer if there are fewer), best first; ties go to the earlier passage.

        contract: search inside this one only. Raises InputError on an empty query, unknown contract or k < 1.
        """
        return self.search_many([(query, contract)], k=k)[0]

    def search_many(self, queries: Sequence[tuple[str, str | None]], k: int = 3) -> list[list[Hit]]:
        """Run `search` for (query, contract) pairs; the queries are embedded together."""
        if k < 1:
            raise InputError(f"Invalid k {k!r}: give 1 or more")
        for query, contract in queries:
            self._check(query, contract)
        vectors = [None] * len(queries)
        if queries and (self.mode != "bm25" or self.feedback_weight):
            vectors = self.embedder.encode([query for query, _ in queries])
        return [self._search(q, vector, contract, k) for (q, contract), vector in zip(queries, vectors)]

    def _check(self, query: str, contract: str | None) -> None:
        if not query.strip():
            raise InputError(f"Empty query (contract {contract!r}): give the question's text")
        if contract is not None and contract not in self._contracts:
            known = f"{len(self._contracts)} contracts, such as {next(iter(self._contracts))!r}"
            raise InputError(f"Unknown contract {contract!r}: the retriever holds {known}")

    def _search(self, query: str, vector: np.ndarray | None, contract: str | None, k: int) -> list[Hit]:
        inside = np.arange(len(self.passages)) if contract is None else np.array(self._contracts[contract])
        relevant = self.feedback.relevant(vector, without=contract) if self.feedback_weight else None
        scores = []
        if self.mode != "dense":
            scores.append(self._lexical.scores(self._terms(query, relevant))[inside])
        if self.mode != "bm25":
            scores.append(self._dense(vector, relevant, inside))
        total = scores[0] if len(scores) == 1 else sum(map(standardised, scores))
        return [Hit(self.passages[inside[n]], float(total[n])) for n in _ranking(total)[:k]]

    def _terms(self, query: str, relevant: np.ndarray | None) -> dict[str, float]:
        """Return the query's words with weights that add up to 1, the feedback's share in them included."""
        own = Counter(words(query))
        extra = self.feedback.terms(relevant) if relevant is not None else {}
        weight = self.feedback_weight if extra else 0.0
        terms = {term: (1 - weight) * n / own.total() for term, n in own.items()}
        for term, share in extra.items():
            terms[term] = terms.get(term, 0.0) + weight * share
        return terms

    def _dense(self, vector: np.ndarray, relevant: np.ndarray | None, inside: np.ndarray) -> np.ndarray:
        """Return the cosine of every passage of `inside`, in its order, through an exact FAISS search."""
        import faiss

        if relevant is not None:
            vector = self.feedback.moved(vector, relevant, self.feedback_weight)
        only = faiss.SearchParameters(sel=faiss.IDSelectorBatch(inside))
        scores, found = self._index().search(vector[None], len(inside), params=only)
        return scores[0][np.argsort(found[0])]  # `inside` ascends

    def _index(self) -> faiss.IndexFlatIP:
        import faiss

        with self._lock:
            if "index" not in self._shared:
                vectors = self.embedder.encode([passage.text for passage in self.passages])
                index = faiss.IndexFlatIP(vectors.shape[1])
                index.add(vectors)
                self._shared["index"] = index
            return self._shared["index"]

    def save(self, folder: Path | str) -> None:
        """Write settings.json, passages.jsonl and, where used, index.faiss and the feedback; no pickle."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").unlink(missing_ok=True)  # written last: a killed save can't be loaded
        if self.mode != "bm25":
            import faiss

            faiss.write_index(self._index(), str(folder / ".index.faiss.tmp"))
            os.replace(folder / ".index.faiss.tmp", folder / "index.faiss")
        if self.feedback is not None:
            self.feedback.save(folder)
        write_jsonl(folder / "passages.jsonl", [asdict(passage) for passage in self.passages])
        settings = {"mode": self.mode, "feedback_weight": self.feedback_weight}
        settings |= {"feedback": self.feedback is not None, "embedder": self.embedder and self.embedder.key}
        write_json(folder / "settings.json", settings)

    @classmethod
    def load(cls, folder: Path | str, embedder: Embedder | None) -> Retriever:
        """Return the retriever that `save` wrote, with equal results; embeds no passage.

        Raises InputError if the folder is incomplete or was made with another embedding model.
        """
        folder = Path(folder)
        settings = read_json(folder / "settings.json")
        key = embedder.key if embedder else None
        if settings["embedder"] and key != settings["embedder"]:
            made = f"made with embedding model {settings['embedder']}, got {key}"
            raise InputError(f"The retriever in '{folder}' was {made}: give that model, or build it again")
        retriever = cls(
            [Passage(**record) for record in read_jsonl(folder / "passages.jsonl")],
            embedder,
            mode=settings["mode"],
            feedback=Feedback.load(folder, embedder) if settings["feedback"] else None,
            feedback_weight=settings["feedback_weight"],
        )
        if settings["mode"] != "bm25":
            retriever._shared["index"] = _read_index(folder / "index.faiss", len(retriever.passages))
        return retriever


def standardised(scores: np.ndarray) -> np.ndarray:
    """Return scores less their mean, over their standard deviation; zeros if all are equal.

    Fusion adds two such lists. Bruch, Gai and Ingber (2023), "An analysis of fusion functions for hybrid
    retrieval", find that adding normalised scores beats reciprocal rank fusion; on CUAD it did, too.
    """
    centred = scores - scores.mean()
    return centred / max(float(scores.std()), 1e-9)


def _ranking(scores: np.ndarray) -> np.ndarray:
    return np.argsort(-np.round(scores, _DECIMALS), kind="stable")


def _read_index(path: Path, expected: int) -> faiss.IndexFlatIP:
    import faiss

    index = faiss.read_index(str(path)) if path.is_file() else None
    if index is None or index.ntotal != expected:
        found = f"holds {index.ntotal} vectors" if index else "is missing"
        raise InputError(f"{path} {found}, expected {expected} vectors: build the retriever again")
    return index
