"""Draw what new questions are made from: labelled rows, absent clauses, passages that no gold span touches.

A seed becomes a candidate once it has a question. A candidate's `expect` says what the round trip must give: the
"gold" words, a "quotation" of the passage, a "refusal", or "" where no language model needs to confirm the label.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from cuadft.core.errors import InputError
from cuadft.data.contracts import Row
from cuadft.data.passages import Passage, overlapping
from cuadft.retrieval.index import Lexical, search_words

Candidate = dict[str, Any]
MADE = ("synthetic", "template", "own")  # sources of rows that were made here, which seed nothing further
ASK_FROM = 200  # characters; shorter passages are headings, page numbers and signature lines
ASK_CATEGORY = "Other"  # no CUAD category stands behind a question about an unlabelled passage
_MADE_MARK = re.compile(r"(~t\d+(~c\d+)?|~[cos]\d+)\Z")  # of one making: a made row seeds no other
NEAREST = 2  # passages in which an absent clause is looked for


def check_train(rows: Iterable[Mapping[str, Any]], held_out: Collection[str]) -> None:
    """Raise InputError if a row or candidate comes from a held-out contract (titles `held_out`)."""
    held_out = set(held_out)
    leaks = sorted({row["contract"] for row in rows} & held_out)
    if leaks:
        raise InputError(
            f"{len(leaks)} held-out contracts among the train rows, such as {leaks[0]!r}: "
            "pass rows of the train split only"
        )


def labelled_seeds(
    rows: Sequence[Row], passages: Mapping[str, Sequence[Passage]], wanted: int, rng: random.Random
) -> list[Candidate]:
    """Draw answerable rows, one of each category before a second one of any; the seeds of "rephrase"."""
    usable = [row for row in rows if row["answers"] and row["source"] not in MADE]
    drawn = draw_evenly(usable, [row["category"] for row in usable], wanted, rng)
    return [from_row(row, passages[row["contract"]]) for row in drawn]


def absent_seeds(rows: Sequence[Row], wanted: int, rng: random.Random) -> list[Candidate]:
    """Draw rows whose clause the contract lacks, evenly over categories; the seeds of "absent"."""
    usable = [row for row in rows if row["is_impossible"] and row["source"] not in MADE]
    drawn = draw_evenly(usable, [row["category"] for row in usable], wanted, rng)
    return [from_row(row, ()) for row in drawn]


def unlabelled_seeds(
    rows: Sequence[Row], passages: Mapping[str, Sequence[Passage]], wanted: int, rng: random.Random
) -> list[Candidate]:
    """Draw passages without any gold span, evenly over contracts; the seeds of "ask".

    `rows` must hold all rows of a contract, or labelled passages pass for unlabelled ones. A contract without any
    row is one without annotations.
    """
    by_contract: dict[str, list[Row]] = {}
    for row in rows:
        by_contract.setdefault(row["contract"], []).append(row)
    usable = []
    for contract in passages:
        own = by_contract.get(contract, [])
        gold = set(overlapping(passages[contract], [span for row in own for span in row["answers"]]))
        free = [p for p in passages[contract] if p.index not in gold and len(p.text.strip()) >= ASK_FROM]
        usable += [from_passage(passage, own[0]["contract_type"] if own else "") for passage in free]
    return draw_evenly(usable, [seed["contract"] for seed in usable], wanted, rng)


def seed_row_id(name: str) -> str:
    """Return the id of what a made row or candidate comes from: "X__Parties~t2~c1" comes from "X__Parties"."""
    return _MADE_MARK.sub("", name)


def draw_evenly(items: Sequence[Any], groups: Sequence[str], wanted: int, rng: random.Random) -> list[Any]:
    """Draw `wanted` items, one of each group before a second one of any."""
    order, turn, keys = list(range(len(items))), Counter(), {}
    rng.shuffle(order)
    for n in order:
        turn[groups[n]] += 1
        keys[n] = (turn[groups[n]], len(keys))
    return [items[n] for n in sorted(order, key=keys.__getitem__)[:wanted]]


def from_row(row: Row, passages: Sequence[Passage]) -> Candidate:
    """Return the seed that a row makes, with the passages that hold its first gold span."""
    span = row["answers"][0] if row["answers"] else None
    holding = set(overlapping(passages, [span])) if span else set()
    text, start = seed_stretch([passage for passage in passages if passage.index in holding])
    return {
        "seed": row["id"],
        "kind": "rephrase" if span else "absent",
        "contract": row["contract"],
        "contract_type": row["contract_type"],
        "category": row["category"],
        "seed_question": row["question"],
        "clause": span["text"] if span else "",
        "answers": row["answers"],
        "passage": text,
        "start": start,
        "expect": "gold" if span else "refusal",
    }


def from_passage(passage: Passage, contract_type: str) -> Candidate:
    """Return the seed that a passage makes."""
    return {
        "seed": f"{passage.contract}__passage {passage.index}",
        "kind": "ask",
        "contract": passage.contract,
        "contract_type": contract_type,
        "category": ASK_CATEGORY,
        "seed_question": "",
        "clause": passage.text,
        "answers": [],
        "passage": passage.text,
        "start": passage.start,
        "expect": "quotation",
    }


def seed_stretch(passages: Sequence[Passage]) -> tuple[str, int]:
    """Return the text from the first to the last of one contract's neighbouring passages, and where it starts."""
    if not passages:
        return "", 0
    text, end = "", min(passage.start for passage in passages)
    for passage in sorted(passages, key=lambda p: (p.start, p.end)):
        text += passage.text[end - passage.start :] if passage.end > end else ""
        end = max(end, passage.end)
    return text, min(passage.start for passage in passages)


class Finder:
    """Find the passages that share the rarest words with a question (BM25), in one contract or in all."""

    def __init__(self, passages: Mapping[str, Sequence[Passage]]):
        """Take the passages of each contract; they are indexed at the first search."""
        self._passages = [passage for own in passages.values() for passage in own]
        self._rows: dict[str, slice] = {}
        for contract, own in passages.items():
            start = max((rows.stop for rows in self._rows.values()), default=0)
            self._rows[contract] = slice(start, start + len(own))
        self._index: Lexical | None = None

    def best(self, question: str, contract: str | None, k: int) -> list[Passage]:
        """Return the k best passages of one contract (None: of all), best first."""
        self._index = self._index or Lexical([passage.text for passage in self._passages])
        rows = self._rows[contract] if contract is not None else slice(0, len(self._passages))
        scores = self._index.scores(Counter(search_words(question)), rows)
        order = sorted(range(len(scores)), key=lambda n: (-scores[n], n))
        return [self._passages[rows.start + n] for n in order[:k]]


SOURCE = "template"
