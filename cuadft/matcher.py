"""Tell which category a question asks for: by its words if they are known, else by the nearest known question."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cuadft.errors import InputError
from cuadft.files import read_json, write_json

if TYPE_CHECKING:
    from cuadft.embedder import Embedder

WHOLE = 40  # characters from which a known question inside a longer one ("Consider the ...; ...") is that question
NEIGHBOURS = 5  # known questions that vote
_FILE = "questions.json"


class Matcher:
    """Known questions and the category that each asks for. Many threads may call it."""

    def __init__(self, known: Mapping[str, str], embedder: Embedder | None, *, least: float):
        """Take known (question -> category); the embedder is used for a question in other words than any known one.

        least: cosine below which a question counts as unknown.
        """
        if not known:
            raise InputError("A matcher needs known questions, got none: give questions with their categories")
        self.known, self._embedder, self.least = {_folded(q): category for q, category in known.items()}, embedder, least
        self._categories, self._vectors = list(self.known.values()), None
        self._long: list[str] | None = None

    def match(self, questions: Sequence[str]) -> list[str | None]:
        """Return each question's category, None for one that is like no known question."""
        found = [self._by_words(_folded(question)) for question in questions]
        other = list(dict.fromkeys(q for q, category in zip(questions, found) if category is None))
        if not other or self._embedder is None:
            return found
        if self._vectors is None:
            self._vectors = self._embedder.encode(list(self.known))
        nearest = dict(zip(other, map(self._vote, self._embedder.encode(other) @ self._vectors.T)))
        return [category or nearest[question] for question, category in zip(questions, found)]

    def _by_words(self, question: str) -> str | None:
        """Return the category of a question that is known, or that holds the words of one known question only."""
        if question in self.known:
            return self.known[question]
        if self._long is None:
            self._long = [q for q in self.known if len(q) >= WHOLE]
        inside = {self.known[q] for q in self._long if q in question}
        return inside.pop() if len(inside) == 1 else None

    def _vote(self, similarity: np.ndarray) -> str | None:
        """Return the category with the largest sum of cosines among the nearest known questions."""
        best = np.argsort(-similarity, kind="stable")[:NEIGHBOURS]
        if similarity[best[0]] < self.least:
            return None
        votes: dict[str, float] = {}
        for n in best:
            votes[self._categories[n]] = votes.get(self._categories[n], 0.0) + float(similarity[n])
        return max(votes, key=votes.__getitem__)

    def save(self, folder: Path) -> None:
        """Write questions.json into an existing folder."""
        write_json(folder / _FILE, {"least": self.least, "known": self.known})

    @classmethod
    def load(cls, folder: Path, embedder: Embedder | None) -> Matcher:
        """Return what `save` wrote; raises InputError on anything else."""
        saved = read_json(folder / _FILE)
        try:
            return cls(saved["known"], embedder, least=saved["least"])
        except (AttributeError, KeyError, TypeError) as error:
            message = f"{folder / _FILE} holds no known questions ({error!r}): build the retriever again"
            raise InputError(message) from error


def _folded(question: str) -> str:
    return " ".join(question.casefold().split())
