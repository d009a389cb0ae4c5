"""BM25 over passages for weighted query words, through the bm25s library."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np


def words(text: str) -> list[str]:
    """Return the lower-case words of a text, in order, without English stop words."""
    from bm25s.stopwords import STOPWORDS_EN

    return [word for word in re.findall(r"[^\W_]+", text.lower()) if word not in STOPWORDS_EN]


class Lexical:
    """A BM25 index (k1 = 1.5, b = 0.75, Lucene's variant: bm25s' defaults)."""

    def __init__(self, texts: Sequence[str]):
        """Index the words of n texts."""
        import bm25s

        corpus = [words(text) for text in texts]
        self._size = len(corpus)
        self._index = bm25s.BM25(auto_compile=False)
        # bm25s divides by the mean length: a corpus without any word gets one that no query holds
        self._index.index(corpus if any(corpus) else [[" "], *corpus[1:]], show_progress=False)

    def scores(self, weights: Mapping[str, float]) -> np.ndarray:
        """Return the sum of weight * BM25 over the query words for each text: float32 of shape (n,)."""
        scores = np.zeros(self._size, np.float32)
        for word, weight in weights.items():
            if word in self._index.vocab_dict:
                scores += weight * self._index.get_scores([word])
        return scores
