"""Find the passages of a contract that answer a question: by words (BM25), embeddings (FAISS) and clause classes."""

from __future__ import annotations

import copy
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft import saved_retriever
from cuadft.errors import InputError
from cuadft.files import value_hash
from cuadft.index import Index
from cuadft.passages import Passage
from cuadft.ranking import Hit, Ranking, standardised
from cuadft.retrieval import evaluate, search_table
from cuadft.rocchio import Feedback

if TYPE_CHECKING:
    from cuadft.classifier import ClauseClassifier
    from cuadft.embedder import Embedder

__all__ = ["Feedback", "Hit", "MODES", "Retriever", "evaluate", "search_table", "standardised"]

MODES = ("fusion", "dense", "bm25")
WEIGHTS = {"feedback_weight": 0.0, "dense_weight": 0.5, "classifier_weight": 0.0}


class Retriever:
    """Search over passages, all or one contract's. Safe to call from many threads."""

    def __init__(
        self, passages: Sequence[Passage], embedder: Embedder | None, *, mode: str = "fusion",
        feedback: Feedback | None = None, feedback_weight: float = 0.0, dense_weight: float = 0.5,
        classifier: ClauseClassifier | None = None, classifier_weight: float = 0.0,
        reranker: Any = None, rerank: int = 0, contract_weight: float = 0.0, cutting: tuple[int, float] | None = None,
    ):  # fmt: skip
        """Index passages for BM25 now, for embeddings and classes when they are first needed.

        A passage's score is (1 - c) z(s) + c z(its score for the class that the question asks for), with
        c = classifier_weight, 0 for a question of no known class. s is BM25 or the cosine, or in mode "fusion"
        (1 - d) z(BM25) + d z(cosine) with d = dense_weight; z standardises over the passages searched.
        feedback_weight: share of the relevance feedback in the query, for BM25 and for the cosine. All weights are
        from 0 to 1. reranker: has the `predict` of sentence-transformers' CrossEncoder; it orders the best `rerank`
        passages. contract_weight: what z(BM25 of the contract's title and opening) adds in a search over all contracts,
        where only the question can tell which is meant. cutting: the size and overlap with which passages were cut,
        kept for contracts that come later.

        Raises InputError on no passages, an unknown mode, a weight out of range or without what it weighs.
        """
        self.embedder, self.feedback, self.classifier, self.reranker = embedder, feedback, classifier, reranker
        self.cutting = tuple(cutting) if cutting else None
        self._lock, self._shared = threading.Lock(), {"index": Index(passages, embedder)}
        weights = (feedback_weight, dense_weight, classifier_weight)
        self._configure(mode=mode, rerank=rerank, contract_weight=contract_weight, **dict(zip(WEIGHTS, weights)))

    def __deepcopy__(self, memo: dict) -> Retriever:
        return self  # DSPy copies a program with all it holds

    @property
    def passages(self) -> list[Passage]:
        """All passages, contract after contract."""
        return self._shared["index"].passages

    @property
    def settings(self) -> dict[str, Any]:
        """The mode, the weights and the number of reranked passages, as `configured` takes them."""
        return {name: getattr(self, name) for name in ("mode", *WEIGHTS, "rerank", "contract_weight")}

    @property
    def key(self) -> str:
        """The SHA-256 of all that the results of a search depend on, but for a reranker's weights."""
        parts = [self.settings, self._shared["index"].key, self.embedder and self.embedder.key]
        parts += [self.feedback and self.feedback.spans, self.classifier and self.classifier.key]
        return value_hash(parts)

    def configured(
        self, *, mode: str | None = None, feedback_weight: float | None = None, dense_weight: float | None = None,
        classifier_weight: float | None = None, rerank: int | None = None, contract_weight: float | None = None,
    ) -> Retriever:  # fmt: skip
        """Return a retriever over the same indexes with another mode, other weights or another reranking depth."""
        other = copy.copy(self)
        weights = dict(zip(WEIGHTS, (feedback_weight, dense_weight, classifier_weight)))
        given = {"mode": mode, **weights, "rerank": rerank, "contract_weight": contract_weight}
        other._configure(**self.settings | {name: value for name, value in given.items() if value is not None})
        return other

    def _configure(self, *, mode: str, rerank: int, contract_weight: float, **weights: float) -> None:
        if mode not in MODES:
            raise InputError(f"Invalid retrieval mode {mode!r}: choose {', '.join(MODES)}")
        for name, weight in weights.items():
            if not 0 <= weight <= 1:
                raise InputError(f"Invalid {name} {weight!r}: give a number from 0 to 1")
        feedback_weight = weights["feedback_weight"]
        if feedback_weight and self.feedback is None:
            given = f"feedback_weight {feedback_weight}"
            raise InputError(f"{given} without feedback: give Feedback.from_rows(...), or 0")
        if weights["classifier_weight"] and self.classifier is None:
            given = f"classifier_weight {weights['classifier_weight']}"
            raise InputError(f"{given} without classifier: give ClauseClassifier.fit(...), or 0")
        if rerank < 0 or rerank != int(rerank) or (rerank and self.reranker is None):
            raise InputError(f"Invalid rerank {rerank!r}: give a number of passages from 0, and a reranker unless 0")
        if self.embedder is None and (feedback_weight or mode != "bm25"):
            raise InputError(f"Mode {mode!r} with feedback_weight {feedback_weight} needs an embedder, got None: "
                             "give one, or choose mode 'bm25' with feedback_weight 0")  # fmt: skip
        if not 0 <= contract_weight < float("inf"):
            raise InputError(f"Invalid contract_weight {contract_weight!r}: give a number from 0")
        self.mode, self.rerank, self.contract_weight = mode, int(rerank), contract_weight
        self.feedback_weight, self.dense_weight, self.classifier_weight = (weights[name] for name in WEIGHTS)

    def add(self, passages: Sequence[Passage]) -> None:
        """Take in new contracts, here and in all that `configured` made; only their passages are embedded.

        Raises InputError if a contract is held already.
        """
        with self._lock:
            self._shared["index"] = self._shared["index"].extended(passages)

    def search(self, query: str, *, contract: str | None = None, k: int = 3) -> list[Hit]:
        """Return the best k passages (fewer if there are fewer), best first; ties go to the earlier passage.

        No two share a character: where passages overlap, the better one stands for both. contract: search inside
        this one only. Raises InputError on an empty query, unknown contract or k < 1.
        """
        return self.search_many([(query, contract)], k=k)[0]

    def search_many(self, queries: Sequence[tuple[str, str | None]], k: int = 3) -> list[list[Hit]]:
        """Run `search` for (query, contract) pairs; what equal questions have in common is computed once."""
        if k < 1:
            raise InputError(f"Invalid k {k!r}: give 1 or more")
        index = self._shared["index"]  # this one to the end, whatever `add` does meanwhile
        for query, contract in queries:
            if not query.strip():
                raise InputError(f"Empty query (contract {contract!r}): give the question's text")
            index.rows(contract)
        ranking = Ranking(self, index, queries)
        found = {(query, contract): hits for query, contract, hits in ranking.best(k)}
        return [list(found[query, contract]) for query, contract in queries]

    def save(self, folder: Path | str) -> None:
        """Write settings.json, passages.jsonl and, where used, index.faiss, feedback and classifier; no pickle."""
        saved_retriever.save(self, self._shared["index"], Path(folder))

    @classmethod
    def load(cls, folder: Path | str, embedder: Embedder | None, *, reranker: Any = None) -> Retriever:
        """Return the retriever that `save` wrote, with equal results; embeds no passage that is embedded already.

        An index of other passages or of another embedding model is left aside with a warning, and the passages are
        embedded again. Raises InputError if the folder is incomplete, or needs a reranker and none is given.
        """
        parts, index = saved_retriever.load(Path(folder), embedder)
        retriever = cls(index.passages[:1], embedder, reranker=reranker, **parts)
        retriever._shared["index"] = index
        return retriever
