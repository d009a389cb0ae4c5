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
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cuadft.core.errors import InputError
from cuadft.core.files import file_hash, read_jsonl, value_hash, write_jsonl
from cuadft.data.rows import take_turns
from cuadft.retrieval.index import search_words

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from cuadft.data.contracts import Row
    from cuadft.retrieval.embedder import Embedder


SAME_QUESTION = 0.9  # cosine; no two of CUAD's 41 questions reach it under MiniLM
PER_QUESTION = 100  # spans
EMBEDDED_SPANS = 25  # spans of a question that are embedded; the words of all of them are counted
AWAY_WEIGHT = 0.5  # weight of the other questions' centroid against that of the relevant spans
MOST_TERMS = 100  # words that feedback adds to a question
LONGEST_SPAN = 1500  # characters of a span; a sentence encoder reads about as many
SPANS_FILE, VECTORS_FILE = "feedback.jsonl", "feedback.npy"


class RelevanceFeedback:
    """Gold spans of train questions, {"question", "contract", "text"} each. Many threads may call it."""

    def __init__(self, spans: Sequence[dict[str, str]], embedder: Embedder, *, span_vectors: np.ndarray | None = None):
        """Embed the distinct questions now, and the first 25 spans of each when `moved` needs them."""
        self.spans, self._embedder, self._vectors = list(spans), embedder, span_vectors
        self._question_of, questions = pd.factorize(np.array([span["question"] for span in self.spans], object))
        self._question_vectors = embedder.encode(list(questions))
        self._contract_of, names = pd.factorize(np.array([span["contract"] for span in self.spans], object))
        self._contract_numbers = {name: n for n, name in enumerate(names)}
        self._words, self._holds = _incidence([span["text"] for span in self.spans])
        self._idf = math.log(len(self.spans)) - np.log(np.asarray(self._holds.sum(axis=0)).ravel())
        place = pd.Series(self._question_of).groupby(self._question_of).cumcount()  # of a span among its question's
        self._has_vector = place.to_numpy() < EMBEDDED_SPANS
        self._question_sums: np.ndarray | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_rows(
        cls, rows: Iterable[Row], embedder: Embedder, *, per_question: int = PER_QUESTION, seed: int = 7
    ) -> RelevanceFeedback:
        """Take at most `per_question` gold spans of each question of train rows.

        The first span of every row comes before any row's second span, so that many contracts have their part. Raises
        InputError if no row has a gold span.
        """
        spans: dict[str, list[list[dict[str, str]]]] = {}
        for row in rows:
            about = {"question": row["question"], "contract": row["contract"]}
            if own := [about | {"text": answer["text"][:LONGEST_SPAN]} for answer in row["answers"]]:
                spans.setdefault(row["question"], []).append(own)
        if not spans:
            raise InputError("No gold span for relevance feedback: give rows with answers, or feedback=None")
        rng = random.Random(seed)
        drawn = [take_turns(of_rows, per_question, rng=rng) for of_rows in spans.values()]
        return cls([span for found in drawn for span in found], embedder)

    def relevant(self, query: np.ndarray, *, without: str | None = None) -> np.ndarray:
        """Return a mask of the spans whose question is nearly the query's: cosine >= 0.9.

        query: unit vector of shape (d,). Spans of the contract `without` are left out, so that a
        train contract can't retrieve its own gold.
        """
        near = self._question_vectors @ query >= SAME_QUESTION
        return near[self._question_of] & (self._contract_of != self._contract_numbers.get(without, -1))

    def contracts(self, relevant: np.ndarray) -> set[str]:
        """Return the contracts that the mask's spans come from: leaving out any other contract changes nothing."""
        held = set(self._contract_of[relevant].tolist())
        return {name for name, n in self._contract_numbers.items() if n in held}

    def moved(self, query: np.ndarray, relevant: np.ndarray, weight: float) -> np.ndarray:
        """Return the unit vector of (1 - w) q + w (r - 0.5 n), or the query itself if no span is relevant.

        r and n are the centroids, at unit length, of the relevant spans and of the other questions' spans:
        Rocchio (1971), as in Manning, Raghavan and Schuetze (2008), section 9.1.1, equation 9.3.
        """
        has = self._has_vector
        if not weight or not (relevant & has).any():
            return query
        vectors, others = self._span_vectors(), np.ones(len(self._question_vectors))
        others[self._question_of[relevant]] = 0
        target = _unit(vectors[relevant[has]].mean(axis=0)) - AWAY_WEIGHT * _unit(others @ self._question_sums)
        return _unit((1 - weight) * query + weight * target)

    def _span_vectors(self) -> np.ndarray:
        """Return the spans' vectors; also sum them up for each question, which every call of `moved` needs."""
        with self._lock:
            if self._vectors is None:
                texts = [span["text"] for span, has in zip(self.spans, self._has_vector) if has]
                self._vectors = self._embedder.encode(texts)
            if self._question_sums is None:
                sums = np.zeros((len(self._question_vectors), self._vectors.shape[1]))
                np.add.at(sums, self._question_of[self._has_vector], self._vectors)
                self._question_sums = sums
            return self._vectors

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

    def save(self, folder: Path) -> dict[str, Any]:
        """Write feedback.jsonl and, once the spans are embedded, feedback.npy; return what `load` knows them by."""
        (folder / VECTORS_FILE).unlink(missing_ok=True)
        if self._vectors is not None:
            np.save(folder / VECTORS_FILE, self._vectors, allow_pickle=False)
        write_jsonl(folder / SPANS_FILE, self.spans)
        return _stamp(folder, self.spans, self._embedder)

    @classmethod
    def load(cls, folder: Path, embedder: Embedder | None, made: dict[str, Any]) -> RelevanceFeedback:
        """Return the saved feedback, with its vectors only if `made` (from `save`) is of these spans and this model.

        Otherwise the spans are embedded anew when `moved` needs them. Raises InputError without spans or an embedder.
        """
        if embedder is None:
            raise InputError(f"The retriever in '{folder}' holds relevance feedback: give an embedder, got None")
        path, spans = folder / VECTORS_FILE, read_jsonl(folder / SPANS_FILE)
        fits = path.is_file() and _stamp(folder, spans, embedder) == made
        try:
            return cls(spans, embedder, span_vectors=np.load(path, allow_pickle=False) if fits else None)
        except (KeyError, ValueError) as error:
            message = f"{folder / SPANS_FILE} holds no gold spans ({error!r}): build the retriever again"
            raise InputError(message) from error


def _stamp(folder: Path, spans: list[dict[str, str]], embedder: Embedder) -> dict[str, Any]:
    """Return hashes of the spans, of the model and of the vectors' file, by which saved vectors are known to fit."""
    path = folder / VECTORS_FILE
    return {
        "spans": value_hash(spans),
        "model": embedder.key,
        "sha256": file_hash(path) if path.is_file() else None,
    }


def _incidence(texts: Sequence[str]) -> tuple[list[str], csr_matrix]:
    """Return the words of n texts, sorted, and which text holds which: 1.0 or 0, of shape (n, words)."""
    from scipy.sparse import csr_matrix

    found = [set(search_words(text)) for text in texts]
    vocabulary = sorted(set().union(*found))
    number = {word: n for n, word in enumerate(vocabulary)}
    columns = [number[word] for held in found for word in held]
    ends = np.cumsum([0, *map(len, found)])
    return vocabulary, csr_matrix((np.ones(len(columns)), columns, ends), shape=(len(texts), len(vocabulary)))


def _unit(vector: np.ndarray) -> np.ndarray:
    return (vector / max(float(np.linalg.norm(vector)), 1e-12)).astype(np.float32)
