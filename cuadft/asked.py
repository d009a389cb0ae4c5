"""What a data set asks already: near-duplicate questions, found by wording together with contract or clause.

The 41 official questions recur over all contracts by design, so wording alone makes no duplicate.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from cuadft.rouge import Known, shingles, tokens

MAX_ROUGE = 0.7  # Self-Instruct's limit (Wang et al., 2023, section 2.2)
SAME_CLAUSE = 0.8  # Jaccard similarity of word sequences from which two clauses count as one
CLAUSE_SHINGLE = 3  # words in a row; a single changed name in a sentence of twenty words leaves two clauses


def clause_of(row: Mapping[str, Any]) -> str:
    """Return what a row or candidate asks about: its gold spans, else its clause, "" for an absent one."""
    return " ".join(span["text"] for span in row["answers"]) or row.get("clause", "")


class Asked:
    """Questions with their contracts and clauses; `find` tells whether a new one adds nothing."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()):
        """Take the rows of the data set so far; `add` takes more."""
        self._known, self._clauses = Known(), Clauses()
        self._near: dict[str, list[tuple[str, float]]] = {}  # a text -> all texts seen that are near it
        self._asked_of: dict[str, dict[str, str]] = defaultdict(dict)  # a text -> contract -> category
        self._about: dict[str, dict[int, tuple[str, str]]] = defaultdict(dict)  # text -> clause -> the same two
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Remember the question of a row or candidate."""
        text = row["question"]
        self._see(text)
        self._asked_of[text].setdefault(row["contract"], row["category"])
        if clause := clause_of(row):
            self._about[text].setdefault(self._clauses.number(clause), (row["contract"], row["category"]))

    def find(self, row: Mapping[str, Any]) -> str | None:
        """Return the evidence that a row repeats an earlier one, or None.

        A repetition has ROUGE-L F >= 0.7 with a question on the same contract, or on another one whose clause is
        near-identical (Jaccard similarity >= 0.8 of three-word sequences). Where the candidate's label is certain (an
        empty `expect`), that question must be of the same category or in the same words: "Is there a cap on
        liability?" and "Is there no cap on liability?" are two.
        """
        clause = clause_of(row)
        number = self._clauses.number(clause) if clause else None
        for text, score in self._see(row["question"]):
            any_category = score == 1 or row.get("expect", "") != ""
            category = self._asked_of.get(text, {}).get(row["contract"])
            if category is not None and (any_category or category == row["category"]):
                return f"ROUGE-L {score:.2f} with: {text}"
            other, category = self._about.get(text, {}).get(number, ("", None))
            if category is not None and (any_category or category == row["category"]):
                return f"ROUGE-L {score:.2f} with a question on the same clause of {other}: {text}"
        return None

    def _see(self, text: str) -> list[tuple[str, float]]:
        """Return the near texts, itself among them; each distinct text is compared once."""
        if text not in self._near:
            near = list(self._known.near(text, MAX_ROUGE))
            for other, score in near:
                self._near[other].append((text, score))
            self._near[text] = [(text, 1.0), *near]
            self._known.add(text)
        return self._near[text]


class Clauses:
    """Number clauses so that near-identical ones share a number."""

    def __init__(self) -> None:
        """Start without a clause."""
        self._numbers: dict[tuple[str, ...], int] = {}
        self._sets: list[set[tuple[str, ...]]] = []
        self._holders: dict[tuple[str, ...], list[int]] = defaultdict(list)

    def number(self, clause: str) -> int:
        """Return the number of the first clause seen that this one nearly equals, a new one if there is none."""
        found = tuple(tokens(clause)) or (clause,)
        if found not in self._numbers:
            self._numbers[found] = self._place(found)
        return self._numbers[found]

    def _place(self, found: tuple[str, ...]) -> int:
        own = shingles(found, min(CLAUSE_SHINGLE, len(found)))
        # Sets with Jaccard similarity s leave at most 1 - s of either's members unshared: one more finds the other.
        unshared = int((1 - SAME_CLAUSE) * len(own) + 1e-9)
        rarest = sorted(own, key=lambda run: (len(self._holders.get(run, ())), run))[: unshared + 1]
        for n in sorted({n for run in rarest for n in self._holders.get(run, ())}):
            if len(own & self._sets[n]) >= SAME_CLAUSE * len(own | self._sets[n]):
                return n
        self._sets.append(own)
        for run in own:
            self._holders[run].append(len(self._sets) - 1)
        return len(self._sets) - 1
