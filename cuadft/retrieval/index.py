"""Score the passages of an index by their words, their embeddings or their classes; ranking is the retriever's part.

An `Index` computes each kind of score for all passages once. What it has computed stays when contracts are added. Every
search is exact: at this size an approximate one would save no time. For example:

    index = Index(passages, None)
    scores = index.word_scores({"governing": 1.0, "law": 1.0}, index.rows(title))  # one for each of its passages

`BM25Index` computes the scores of the bm25s library for weighted query words, as a sparse matrix. A query costs one
product of the searched rows with its word weights: thousands of queries, each with a hundred words, take seconds.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cuadft.core.errors import InputError
from cuadft.core.files import file_hash
from cuadft.core.text import fold_words
from cuadft.data.passages import Passage, cut_sentences, join_passages
from cuadft.data.rows import passages_by_contract

if TYPE_CHECKING:
    import faiss

    from cuadft.retrieval.classifier import ClauseClassifier
    from cuadft.retrieval.embedder import Embedder


INDEX_FILE = "index.faiss"
OPENING_CHARS = 1500  # characters in which a contract names its parties, kind and date
ALL_ROWS = slice(None)


class Index:
    """Passages, contract after contract, with their BM25, embedding and class scores. Many threads may search it."""

    def __init__(self, passages: Sequence[Passage], embedder: Embedder | None):
        """Index the words now, the embeddings and classes when they are first needed.

        Raises InputError if there are no passages.
        """
        if not passages:
            raise InputError("A retriever needs passages, got none: check that the contracts have text")
        self.passages: list[Passage] = []
        self._rows: dict[str, slice] = {}
        self._embedder, self._lock = embedder, threading.Lock()
        self._vectors: faiss.IndexFlatIP | None = None
        self._classes: tuple[ClauseClassifier, np.ndarray] | None = None
        self.add(passages)

    def add(self, passages: Sequence[Passage]) -> None:
        """Take in new contracts, each with all its passages; only these are embedded and classified.

        Raises InputError if a contract is held already.
        """
        own = passages_by_contract(passages)
        if known := own.keys() & self._rows.keys():
            raise InputError(f"Contract {min(known)!r} is in the retriever already: add each contract once")
        new: list[Passage] = []
        for contract, some in own.items():
            start = len(self.passages) + len(new)
            self._rows[contract] = slice(start, start + len(some))
            new += some
        self.passages = self.passages + new
        self._bm25 = BM25Index([passage.text for passage in self.passages])
        self._openings: BM25Index | None = None
        self._sentences: tuple[ClauseClassifier, dict[str, tuple[list[Passage], np.ndarray]]] | None = None
        if self._vectors is not None and new:
            self._vectors.add(self._embedder.encode([passage.text for passage in new]))
        if self._classes is not None and new:
            classifier, scores = self._classes
            self._classes = classifier, np.concatenate([scores, classifier.classify(new)])

    @property
    def key(self) -> str:
        """The SHA-256 of the passages: contracts, offsets and texts."""
        digest = hashlib.sha256()
        for passage in self.passages:
            digest.update(json.dumps(astuple(passage)).encode() + b"\n")
        return digest.hexdigest()

    def rows(self, contract: str | None) -> slice:
        """Return where a contract's passages stand (None: all passages); raises InputError for an unknown contract."""
        if contract is None:
            return slice(0, len(self.passages))
        if contract not in self._rows:
            known = f"{len(self._rows)} contracts, such as {next(iter(self._rows))!r}"
            raise InputError(f"Unknown contract {contract!r}: the retriever holds {known}")
        return self._rows[contract]

    def word_scores(self, weights: dict[str, float], rows: slice) -> np.ndarray:
        """Return the weighted BM25 score of the passages in `rows`."""
        return self._bm25.scores(weights, rows)

    def cosines(self, query: np.ndarray, rows: slice) -> np.ndarray:
        """Return the cosine of a query (a unit vector) and each passage in `rows`, through an exact FAISS search."""
        import faiss

        only = faiss.SearchParameters(sel=faiss.IDSelectorRange(rows.start, rows.stop))
        scores, found = self.vectors().search(query[None], rows.stop - rows.start, params=only)
        ordered = np.empty_like(scores[0])
        ordered[found[0] - rows.start] = scores[0]
        return ordered

    def class_scores(self, classifier: ClauseClassifier) -> np.ndarray:
        """Return the classifier's scores of all passages, of shape (passages, classes), computed once."""
        with self._lock:
            if self._classes is None or self._classes[0] is not classifier:
                self._classes = classifier, classifier.classify(self.passages)
            return self._classes[1]

    def sentence_scores(
        self, classifier: ClauseClassifier, contracts: Iterable[str]
    ) -> dict[str, tuple[list[Passage], np.ndarray]]:
        """Return the sentences of each contract and the classifier's scores, (sentences, classes), computed once."""
        with self._lock:
            if self._sentences is None or self._sentences[0] is not classifier:
                self._sentences = classifier, {}
            held = self._sentences[1]
            if new := [title for title in dict.fromkeys(contracts) if title not in held]:
                made = {t: cut_sentences(join_passages(self.passages[self.rows(t)])[0], contract=t) for t in new}
                scores = classifier.classify([sentence for own in made.values() for sentence in own])
                ends = np.cumsum([len(own) for own in made.values()])
                held |= {t: (made[t], part) for t, part in zip(new, np.split(scores, ends[:-1]))}
            return {title: held[title] for title in contracts}

    def opening_scores(self, weights: dict[str, float]) -> np.ndarray:
        """Return for every passage the weighted BM25 score of its contract's title and opening, which name parties."""
        with self._lock:
            if self._openings is None:
                first = {name: self.passages[rows][:3] for name, rows in self._rows.items()}
                texts = {name: "".join(passage.text for passage in own)[:OPENING_CHARS] for name, own in first.items()}
                self._openings = BM25Index([f"{name} {text}" for name, text in texts.items()])
        sizes = [rows.stop - rows.start for rows in self._rows.values()]
        return np.repeat(self._openings.scores(weights), sizes)

    def vectors(self) -> faiss.IndexFlatIP:
        """Return the FAISS index of the passages' embeddings, computed once."""
        import faiss

        with self._lock:
            if self._vectors is None:
                vectors = self._embedder.encode([passage.text for passage in self.passages])
                self._vectors = faiss.IndexFlatIP(vectors.shape[1])
                self._vectors.add(vectors)
            return self._vectors

    def save(self, folder: Path) -> dict[str, str]:
        """Write index.faiss into an existing folder; return what its vectors were made from, and its hash."""
        import faiss

        faiss.write_index(self.vectors(), str(folder / f".{INDEX_FILE}.tmp"))
        os.replace(folder / f".{INDEX_FILE}.tmp", folder / INDEX_FILE)
        return self._stamp(folder / INDEX_FILE)

    def restore(self, folder: Path, made: dict[str, str]) -> None:
        """Take the vectors from index.faiss if `made` (from `save`) describes that file, these passages and this model.

        Otherwise warn, and embed the passages again when they are needed.
        """
        import faiss

        path = folder / INDEX_FILE
        if path.is_file() and self._stamp(path) == made:
            self._vectors = faiss.read_index(str(path))
        else:
            warnings.warn(
                f"{path} is not used, since it, the passages or the embedding model are not those that were saved: the "
                "passages are embedded again; save the retriever to keep that",
                stacklevel=3,
            )

    def _stamp(self, path: Path) -> dict[str, str | None]:
        model = self._embedder.key if self._embedder else None
        return {"passages": self.key, "model": model, "sha256": file_hash(path)}


def search_words(text: str) -> list[str]:
    """Return the lower-case words of a text, in order, without English stop words."""
    from bm25s.stopwords import STOPWORDS_EN

    return [word for word in fold_words(text) if word not in STOPWORDS_EN]


class BM25Index:
    """A BM25 index (k1 = 1.5, b = 0.75, Lucene's variant: bm25s' defaults). It never changes."""

    def __init__(self, texts: Sequence[str]):
        """Read and weigh the words of n texts: the matrix is of shape (n, words), 0 where a word does not occur."""
        import bm25s
        from scipy.sparse import csc_matrix, csr_matrix

        self._number: dict[str, int] = {}  # in the order of the texts, so that sums do not depend on a set's order
        found = [[self._number.setdefault(word, len(self._number)) for word in search_words(text)] for text in texts]
        if not self._number:
            self._matrix = csr_matrix((len(texts), 1), dtype=np.float32)
            return
        index = bm25s.BM25(auto_compile=False)
        index.index((found, dict(self._number)), show_progress=False)
        scores = index.scores
        shape = len(texts), len(scores["indptr"]) - 1
        self._matrix = csc_matrix((scores["data"], scores["indices"], scores["indptr"]), shape=shape).tocsr()

    def scores(self, weights: Mapping[str, float], rows: slice = ALL_ROWS) -> np.ndarray:
        """Return the sum of weight * BM25 over the query words for the texts in `rows`: float32 of shape (n,)."""
        query = np.zeros(self._matrix.shape[1], np.float32)
        for word, weight in weights.items():
            if word in self._number:
                query[self._number[word]] = weight
        return (self._matrix if rows == ALL_ROWS else self._matrix[rows]) @ query
