"""BM25 over passages for weighted query words: the scores that the bm25s library computes, as a sparse matrix.

A query costs one product of the rows searched with its word weights, so that thousands of queries, each with a
hundred words, take seconds.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_ALL = slice(None)


def words(text: str) -> list[str]:
    """Return the lower-case words of a text, in order, without English stop words."""
    from bm25s.stopwords import STOPWORDS_EN

    return [word for word in re.findall(r"[^\W_]+", text.lower()) if word not in STOPWORDS_EN]


class Lexical:
    """A BM25 index (k1 = 1.5, b = 0.75, Lucene's variant: bm25s' defaults). Many threads may call it."""

    def __init__(self, texts: Sequence[str]):
        """Take the words of n texts; they are weighed at the first search."""
        self._number: dict[str, int] = {}
        self._texts: list[np.ndarray] = []
        self._take(texts)

    def _take(self, texts: Sequence[str]) -> None:
        for text in texts:
            numbers = [self._number.setdefault(word, len(self._number)) for word in words(text)]
            self._texts.append(np.array(numbers, np.int32))
        self._matrix: csr_matrix | None = None
        self._lock = threading.Lock()

    def extended(self, texts: Sequence[str]) -> Lexical:
        """Return an index of these texts after the present ones; only the new ones are read, all are weighed anew."""
        other = Lexical([])
        other._number, other._texts = dict(self._number), list(self._texts)
        other._take(texts)
        return other

    def scores(self, weights: Mapping[str, float], rows: slice = _ALL) -> np.ndarray:
        """Return the sum of weight * BM25 over the query words for the texts in `rows`: float32 of shape (n,)."""
        matrix = self._weighed()
        query = np.zeros(matrix.shape[1], np.float32)
        for word, weight in weights.items():
            if word in self._number:
                query[self._number[word]] = weight
        return (matrix if rows == _ALL else matrix[rows]) @ query

    def _weighed(self) -> csr_matrix:
        with self._lock:
            if self._matrix is None:
                self._matrix = _bm25(self._texts, len(self._number))
            return self._matrix


def _bm25(texts: Sequence[np.ndarray], n_words: int) -> csr_matrix:
    """Return the score of each word in each text, float32 of shape (texts, words), zero where it doesn't occur."""
    import bm25s
    from scipy.sparse import csc_matrix, csr_matrix

    if not n_words:
        return csr_matrix((len(texts), 1), dtype=np.float32)
    index = bm25s.BM25(auto_compile=False)
    numbers = {str(n): n for n in range(n_words)}
    index.index(([text.tolist() for text in texts], numbers), show_progress=False)
    found = index.scores
    shape = (len(texts), len(found["indptr"]) - 1)
    return csc_matrix((found["data"], found["indices"], found["indptr"]), shape=shape).tocsr()
