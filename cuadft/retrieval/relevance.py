"""Relevance feedback from the train split: how other contracts word the clause that a question asks for.

A question names a clause ("Cap On Liability: ..."), a contract words it ("in no event shall ..."). The gold spans of
train contracts bridge the two without training a model: Rocchio (1971) moves the query towards the relevant texts and
away from the others, in the space of the embeddings and in that of the words. The retriever does so when it gets

    feedback = RelevanceFeedback.from_rows(train_rows, embedder)
    retriever = Retriever(passages, embedder, feedback=feedback, feedback_weight=0.5)

What people say of answers is not meant here: that is the room `feedback`.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property

import numpy as np
import pandas as pd

from cuadft.core.errors import InputError
from cuadft.data.contracts import Row
from cuadft.data.rows import take_turns
from cuadft.retrieval.embedder import Embedder
from cuadft.retrieval.words import search_words, texts_in_words

SAME_QUESTION = 0.9  # cosine; no two of CUAD's 41 questions reach it under MiniLM
PER_QUESTION = 100  # spans
SEED = 7  # of their draw
EMBEDDED_SPANS = 25  # spans of a question that are embedded; the words of all of them are counted
AWAY_WEIGHT = 0.5  # weight of the other questions' centroid against that of the relevant spans
MOST_TERMS = 100  # words that feedback adds to a question
LONGEST_SPAN = 1500  # characters of a span; a sentence encoder reads about as many


class RelevanceFeedback:
    """Gold spans of train questions, {"question", "contract", "text"} each. Many threads may call it."""

    def __init__(self, spans: Sequence[dict[str, str]], embedder: Embedder):
        """Embed the distinct questions now, and the first 25 spans of each when `moved` needs them."""
        from sklearn.feature_extraction.text import CountVectorizer

        self.spans, self._embedder = list(spans), embedder
        frame = pd.DataFrame(self.spans)
        self._question_of, questions = pd.factorize(frame["question"])
        self._question_vectors = embedder.encode(list(questions))
        self._contracts = frame["contract"].to_numpy(object)
        counter = CountVectorizer(analyzer=search_words, binary=True, dtype=np.float64)
        texts = texts_in_words(zip(frame["contract"], frame["text"], strict=True))
        self._holds = counter.fit_transform(texts)  # which span holds which word, 1.0 or 0
        self._words = counter.get_feature_names_out().tolist()
        self._idf = math.log(len(self.spans)) - np.log(np.asarray(self._holds.sum(axis=0)).ravel())
        place = frame.groupby("question").cumcount()  # of a span among its question's
        self._has_vector = place.to_numpy() < EMBEDDED_SPANS

    @classmethod
    def from_rows(cls, rows: Iterable[Row], embedder: Embedder) -> RelevanceFeedback:
        """Take at most PER_QUESTION gold spans of each question of train rows.

        The first span of every row comes before any row's second span, so that many contracts have their part. Raises
        InputError if no row has a gold span.
        """
        spans: defaultdict[str, list[list[dict[str, str]]]] = defaultdict(list)
        for row in rows:
            about = {"question": row["question"], "contract": row["contract"]}
            if own := [about | {"text": answer["text"][:LONGEST_SPAN]} for answer in row["answers"]]:
                spans[row["question"]].append(own)
        if not spans:
            raise InputError("No gold span for relevance feedback: give rows with answers, or feedback=None")
        rng = random.Random(SEED)
        return cls([span for own in spans.values() for span in take_turns(own, PER_QUESTION, rng=rng)], embedder)

    def relevant(self, query: np.ndarray, *, without: str | None = None) -> np.ndarray:
        """Return a mask of the spans whose question is nearly the query's: cosine >= 0.9.

        query: unit vector of shape (d,). Spans of the contract `without` are left out, so that a
        train contract can't retrieve its own gold.
        """
        near = self._question_vectors @ query >= SAME_QUESTION
        return near[self._question_of] & (self._contracts != without)

    def contracts(self, relevant: np.ndarray) -> set[str]:
        """Return the contracts that the mask's spans come from: leaving out any other contract changes nothing."""
        return set(self._contracts[relevant])

    def moved(self, query: np.ndarray, relevant: np.ndarray, weight: float) -> np.ndarray:
        """Return the unit vector of (1 - w) q + w (r - 0.5 n), or the query itself if no span is relevant.

        r and n are the centroids, at unit length, of the relevant spans and of the other questions' spans:
        Rocchio (1971), as in Manning, Raghavan and Schuetze (2008), section 9.1.1, equation 9.3.
        """
        has = self._has_vector
        if not weight or not (relevant & has).any():
            return query
        others = np.ones(len(self._question_vectors))
        others[self._question_of[relevant]] = 0
        centroid = self._span_vectors[relevant[has]].mean(axis=0)
        target = _unit(centroid) - AWAY_WEIGHT * _unit(others @ self._question_sums)
        return _unit((1 - weight) * query + weight * target)

    @cached_property
    def _span_vectors(self) -> np.ndarray:
        return self._embedder.encode([span["text"] for span, has in zip(self.spans, self._has_vector) if has])

    @cached_property
    def _question_sums(self) -> np.ndarray:
        """The sum of each question's span vectors, which every call of `moved` needs."""
        sums = np.zeros((len(self._question_vectors), self._span_vectors.shape[1]))
        np.add.at(sums, self._question_of[self._has_vector], self._span_vectors)
        return sums

    def terms(self, relevant: np.ndarray) -> dict[str, float]:
        """Return the words that mark the relevant spans off from all spans, with weights that add up to 1.

        A word weighs (share of relevant spans that hold it) * log(spans / spans that hold it), which is its mean TF-IDF
        with binary counts. Only words in at least two relevant spans count, and of these the 100 heaviest.
        """
        found = np.asarray(self._holds[np.flatnonzero(relevant)].sum(axis=0)).ravel()
        common = np.flatnonzero(found > 1)
        weights = found[common] * self._idf[common]
        best = np.argsort(-weights, kind="stable")[:MOST_TERMS]  # the words are sorted
        best = best[weights[best] > 1e-12]
        return dict(zip((self._words[n] for n in common[best]), (weights[best] / weights[best].sum()).tolist()))


def _unit(vector: np.ndarray) -> np.ndarray:
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
