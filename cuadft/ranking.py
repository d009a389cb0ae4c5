"""Rank the passages of an index for a batch of questions, and pick the best that do not overlap."""

from __future__ import annotations

from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cuadft.errors import InputError
from cuadft.lexical import words
from cuadft.passages import Passage

if TYPE_CHECKING:
    from cuadft.index import Index
    from cuadft.retriever import Retriever

_DECIMALS = 5  # scores that differ by rounding only count as equal, so that ties go to the earlier passage


@dataclass(frozen=True)
class Hit:
    """A passage that a search found; compare its score (before any reranking) within one search only."""

    passage: Passage
    score: float


class Ranking:
    """One batch of (question, contract) pairs against one index, with a retriever's settings."""

    def __init__(self, by: Retriever, index: Index, queries: Sequence[tuple[str, str | None]]):
        """Match the questions to classes and embed them, each distinct one once, as far as the settings need it."""
        self._by, self._index = by, index
        self._contracts: dict[str, dict[str | None, None]] = {}
        for query, contract in queries:
            self._contracts.setdefault(query, {})[contract] = None
        asked = list(self._contracts)
        found = by.classifier.match(asked) if by.classifier_weight and asked else [None] * len(asked)
        self._class = dict(zip(asked, found))
        needed = asked if by.mode != "bm25" or by.feedback_weight else []
        needed = [query for query in needed if self._weight(query) < 1]
        self._vectors = dict(zip(needed, by.embedder.encode(needed))) if needed else {}

    def best(self, k: int) -> Iterator[tuple[str, str | None, list[Hit]]]:
        """Yield each distinct pair with its k best passages, question after question."""
        for query, contracts in self._contracts.items():
            moved = _Moved(self._by, query, self._vectors.get(query))  # serves all contracts, and is then forgotten
            for contract in contracts:
                yield query, contract, self._search(query, moved, contract, k)

    def _weight(self, query: str) -> float:
        return self._by.classifier_weight if self._class[query] is not None else 0.0

    def _search(self, query: str, moved: _Moved, contract: str | None, k: int) -> list[Hit]:
        rows, weight = self._index.rows(contract), self._weight(query)
        total = self._scores(moved, contract) if weight < 1 else np.zeros(rows.stop - rows.start)
        if weight:
            classes = self._index.classes(self._by.classifier)[rows, self._class[query]]
            total = (1 - weight) * standardised(total) + weight * standardised(classes)
        if contract is None and self._by.contract_weight:
            named = self._index.named(Counter(words(query)))
            total = standardised(total) + self._by.contract_weight * standardised(named)
        order = np.argsort(-np.round(total, _DECIMALS), kind="stable")
        passages = self._index.passages if contract is None else self._index.passages[rows]
        if depth := self._by.rerank:
            order = np.concatenate([self._reranked(query, order[:depth], passages), order[depth:]])
        return [Hit(passages[n], float(total[n])) for n in _apart(order, passages, k)]

    def _scores(self, moved: _Moved, contract: str | None) -> np.ndarray:
        """Return the scores by words and embeddings of the passages searched."""
        terms, vector = moved.without(contract)
        rows, mode, weight = self._index.rows(contract), self._by.mode, self._by.dense_weight
        if mode == "bm25":
            return self._index.words(terms, rows)
        if mode == "dense":
            return self._index.cosines(vector, rows)
        by_words, by_meaning = self._index.words(terms, rows), self._index.cosines(vector, rows)
        return (1 - weight) * standardised(by_words) + weight * standardised(by_meaning)

    def _reranked(self, query: str, order: np.ndarray, passages: Sequence[Passage]) -> np.ndarray:
        scores = np.asarray(self._by.reranker.predict([(query, passages[n].text) for n in order]), float)
        if scores.shape != order.shape:
            given = f"scores of shape {scores.shape} for {len(order)} passages"
            raise InputError(f"The reranker gave {given}: give a model with one score a pair, such as a CrossEncoder")
        return order[np.argsort(-scores, kind="stable")]


class _Moved:
    """A question's words and vector after relevance feedback, without the clauses of the contract searched."""

    def __init__(self, by: Retriever, query: str, vector: np.ndarray | None):
        self._mode, self._feedback, self._vector = by.mode, by.feedback, vector
        self._weight = by.feedback_weight if vector is not None else 0.0
        self._words = Counter(words(query))
        self._known = self._feedback.contracts(self._feedback.relevant(vector)) if self._weight else set()
        self._made: dict[str | None, tuple[dict[str, float], np.ndarray | None]] = {}

    def without(self, contract: str | None) -> tuple[dict[str, float], np.ndarray | None]:
        """Return the words with weights that add up to 1, and the vector."""
        own = contract if contract in self._known else None
        if own not in self._made:
            self._made[own] = self._move(own)
        return self._made[own]

    def _move(self, own: str | None) -> tuple[dict[str, float], np.ndarray | None]:
        vector, weight, extra = self._vector, self._weight, {}
        if weight:
            relevant = self._feedback.relevant(vector, without=own)
            extra = self._feedback.terms(relevant) if self._mode != "dense" else {}
            vector = self._feedback.moved(vector, relevant, weight) if self._mode != "bm25" else vector
        weight = weight if extra else 0.0
        terms = {term: (1 - weight) * n / self._words.total() for term, n in self._words.items()}
        for term, share in extra.items():
            terms[term] = terms.get(term, 0.0) + weight * share
        return terms, vector


def standardised(scores: np.ndarray) -> np.ndarray:
    """Return scores less their mean, over their standard deviation; zeros if all are equal.

    Fusion adds two such lists. Bruch, Gai and Ingber (2023), "An analysis of fusion functions for hybrid
    retrieval", find that adding normalised scores beats reciprocal rank fusion; on CUAD it did, too.
    """
    centred = scores - scores.mean()
    return centred / max(float(scores.std()), 1e-9)


def _apart(order: Iterable[int], passages: Sequence[Passage], k: int) -> list[int]:
    """Return the first k of `order` whose passages share no character with one before."""
    taken: dict[str, list[tuple[int, int]]] = {}
    kept: list[int] = []
    for n in order:
        passage = passages[n]
        spans = taken.setdefault(passage.contract, [])
        at = bisect(spans, (passage.start, passage.end))
        near = spans[max(at - 1, 0) : at + 1]  # those taken are apart, so only the neighbours can be in the way
        if any(start < passage.end and passage.start < end for start, end in near) and passage.text:
            continue
        if passage.text:  # an empty one shares nothing
            spans.insert(at, (passage.start, passage.end))
        kept.append(n)
        if len(kept) == k:
            break
    return kept
