"""What gold spans say of a passage: which categories it answers, and whether that is known at all."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cuadft.passages import Passage

if TYPE_CHECKING:
    from cuadft.contracts import Row

WORDING = 40  # characters from which a gold span that stands word for word in another passage answers there too


def category_of(row: Mapping[str, Any]) -> str:
    """Return a row's category; a row without one (a user's own question) is a category of its own."""
    return row["category"] or row["id"]


class Labels:
    """The gold spans of rows, by contract and category.

    Only rows of the corpus itself (`source` "cuad") label a contract for their category: a generated question or a
    user's own names one answer, which says nothing about the rest of its contract.
    """

    def __init__(self, rows: Iterable[Row]):
        """Take rows, answerable or not."""
        self._spans: defaultdict[str, list[tuple[int, int, str]]] = defaultdict(list)
        self._labelled: set[tuple[str, str]] = set()
        self._wording: defaultdict[str, set[str]] = defaultdict(set)
        self._touched: dict[tuple[str, int, int], frozenset[str]] = {}
        for row in rows:
            category = category_of(row)
            if row.get("source", "cuad") == "cuad":
                self._labelled.add((row["contract"], category))
            for span in row["answers"]:
                self._spans[row["contract"]].append((span["start"], span["start"] + len(span["text"]), category))
                if len(wording := _plain(span["text"])) >= WORDING:
                    self._wording[category].add(wording)

    def touched(self, passage: Passage) -> frozenset[str]:
        """Return the categories that have a gold span which shares a character with the passage."""
        place = passage.contract, passage.start, passage.end
        if place not in self._touched:
            spans = self._spans.get(passage.contract, ())
            near = (category for start, end, category in spans if start < passage.end and passage.start < end)
            self._touched[place] = frozenset(near)
        return self._touched[place]

    def may_answer(self, passage: Passage, row: Row) -> bool:
        """Tell whether a passage answers the row's category, or might because its contract isn't labelled for it.

        In the row's own contract only what its category's spans touch counts as an answer.
        """
        category = category_of(row)
        if passage.contract != row["contract"] and (passage.contract, category) not in self._labelled:
            return True
        return category in self.touched(passage)

    def repeats(self, passage: Passage, category: str) -> bool:
        """Tell whether a long gold span of the category, of any contract, stands in the passage word for word."""
        text = _plain(passage.text)
        return any(wording in text for wording in self._wording.get(category, ()))


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
