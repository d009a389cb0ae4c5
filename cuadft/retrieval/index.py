"""Score the passages of an index by their words, their embeddings or their classes; ranking is the retriever's part.

An `Index` computes each kind of score for all passages once, when it is first needed. Every search is exact: at this
size an approximate one would save no time. For example:

    index = Index(passages, None, None)
    scores = index.words.scores({"governing": 1.0, "law": 1.0}, index.rows(title))  # one for each of its passages

`BM25Index` computes the scores of the bm25s library for weighted query words, as a sparse matrix. A query costs one
product of the searched rows with its word weights: thousands of queries, each with a hundred words, take seconds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from cuadft.core.errors import InputError
from cuadft.data.passages import Passage, cut_sentences, join_passages
from cuadft.data.rows import passages_by_contract
from cuadft.retrieval.words import search_words, texts_in_words

if TYPE_CHECKING:
    import faiss

    from cuadft.retrieval.classifier import ClauseClassifier
    from cuadft.retrieval.embedder import Embedder


class Index:
    """Passages, contract after contract, with their BM25, embedding and class scores. Many threads may search it."""

    def __init__(self, passages: Sequence[Passage], embedder: Embedder | None, classifier: ClauseClassifier | None):
        """Index the words now, the embeddings and classes when they are first needed.

        Raises InputError if there are no passages.
        """
        if not passages:
            raise InputError("A retriever needs passages, got none: check that the contracts have text")
        self._embedder, self._classifier = embedder, classifier
        self.passages: list[Passage] = []
        self._rows: dict[str, slice] = {}
        for contract, own in passages_by_contract(passages).items():
            self._rows[contract] = slice(len(self.passages), len(self.passages) + len(own))
            self.passages += own
        self.words = BM25Index(texts_in_words((passage.contract, passage.text) for passage in self.passages))
        self._sentences: dict[str, tuple[list[Passage], np.ndarray]] = {}

    @cached_property
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

    def cosines(self, query: np.ndarray, rows: slice) -> np.ndarray:
        """Return the cosine of a query (a unit vector) and each passage in `rows`, through an exact FAISS search."""
        import faiss

        only = faiss.SearchParameters(sel=faiss.IDSelectorRange(rows.start, rows.stop))
        scores, found = self._vectors.search(query[None], rows.stop - rows.start, params=only)
        ordered = np.empty_like(scores[0])
        ordered[found[0] - rows.start] = scores[0]
        return ordered

    @cached_property
    def _vectors(self) -> faiss.IndexFlatIP:
        import faiss

        vectors = self._embedder.encode([passage.text for passage in self.passages])
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        return index

    @cached_property
    def class_scores(self) -> np.ndarray:
        """The classifier's scores of all passages, of shape (passages, classes)."""
        return self._classifier.classify(self.passages)

    def sentence_scores(self, contracts: Iterable[str]) -> dict[str, tuple[list[Passage], np.ndarray]]:
        """Return the sentences of each contract and the classifier's scores, (sentences, classes), computed once."""
        if new := [title for title in dict.fromkeys(contracts) if title not in self._sentences]:
            made = {t: cut_sentences(join_passages(self.passages[self.rows(t)])[0], contract=t) for t in new}
            scores = self._classifier.sentences.classify([sentence for own in made.values() for sentence in own])
            ends = np.cumsum([len(own) for own in made.values()])
            self._sentences |= {t: (made[t], part) for t, part in zip(new, np.split(scores, ends[:-1]))}
        return self._sentences


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

    def scores(self, weights: Mapping[str, float], rows: slice = slice(None)) -> np.ndarray:
        """Return the sum of weight * BM25 over the query words for the texts in `rows`: float32 of shape (n,)."""
        query = np.zeros(self._matrix.shape[1], np.float32)
        for word, weight in weights.items():
            if word in self._number:
                query[self._number[word]] = weight
        return self._matrix[rows] @ query
