"""Choose the questions that systems are measured on, and tell how many questions of the split each one stands for.

Measures of quotes rest on every question that has a clause. Measures of detection, whether there is a clause, also need
the questions without one, of which there are twice as many: these are taken from as many whole contracts as fit. For
example:

    asked = choose_questions(rows_of_contracts(contracts, test_titles), 130, seed=7)
    sum(row["weight"] for row in asked)    # the number of all questions on these contracts
    questions_table({"test": asked}, contracts)
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from cuadft.core.errors import InputError
from cuadft.data.contracts import Contract, Row
from cuadft.data.rows import draw_evenly
from cuadft.data.splits import seeded_order

WHOLE_FROM = 5  # whole contracts are asked from this number on: an interval over fewer says nothing


def choose_questions(rows: Sequence[Row], size: int, *, seed: int) -> list[Row]:
    """Return up to `size` (0: all) questions of a split, copies with their "weight", in the order of their ids.

    Every question that has a clause is taken, then questions without a clause as by `_absent_questions`. If that leaves
    less than a sixth of `size` to those, five sixths of `size` go to questions with a clause, drawn evenly over the
    contracts; that serves tests of the plumbing. All questions, if they fit, stay in the order of `rows`.

    The weight is the number of questions of the split that a row stands for: of those with (or without) a clause, all
    by those taken. Raises InputError on a negative size.
    """
    if size < 0:
        raise InputError(f"Invalid number of questions {size}: give 0 (all) or more, see dev_rows and test_rows.")
    if size == 0 or size >= len(rows):
        return _weighted(rows, len(rows))
    clauses = [row for row in rows if row["answers"]]
    absent = [row for row in rows if not row["answers"]]
    most = max(1, 5 * size // 6, size - len(absent))
    present = draw_evenly(clauses, min(len(clauses), most), group=itemgetter("contract"), rng=random.Random(seed))
    others = _absent_questions(absent, size - len(present), seed)
    chosen = _weighted(present, len(clauses)) + _weighted(others, len(absent))
    return sorted(chosen, key=itemgetter("id"))


def questions_table(sets: Mapping[str, Sequence[Row]], contracts: Iterable[Contract]) -> list[dict[str, Any]]:
    """Return a row for each set: numbers of questions with and without a clause, and of how many contracts.

    "whole contracts" tells whether the set has all questions without a clause of these contracts ("" if it has none).
    """
    all_absent = Counter(row["contract"] for contract in contracts for row in contract.rows if not row["answers"])
    table = []
    for name, asked in sets.items():
        absent = Counter(row["contract"] for row in asked if not row["answers"])
        whole = "yes" if all(absent[title] == all_absent[title] for title in absent) else "no"
        counts = {"contracts": len({row["contract"] for row in asked}), "questions": len(asked)}
        counts |= {"with a clause": len(asked) - absent.total(), "without a clause": absent.total()}
        counts |= {"of contracts": len(absent), "whole contracts": whole if absent else ""}
        table.append({"set": name} | counts)
    return table


def _absent_questions(rows: Sequence[Row], size: int, seed: int) -> list[Row]:
    """Return up to `size` questions without a clause: all of as many contracts, in seeded order, as fit whole.

    If fewer than WHOLE_FROM contracts fit, `size` questions are spread evenly over all contracts instead. The draw ends
    at the first contract that does not fit. Passing over it would prefer contracts with few absent clauses.
    """
    own: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        own[row["contract"]].append(row)
    whole: list[Row] = []
    for count, title in enumerate(sorted(own, key=lambda title: seeded_order(f"{seed}:whole", title))):
        if len(whole) + len(own[title]) > size:
            if count >= WHOLE_FROM:
                return whole
            return draw_evenly(rows, size, group=itemgetter("contract"), rng=random.Random(seed))
        whole += own[title]
    return whole


def _weighted(rows: Sequence[Row], total: int) -> list[Row]:
    """Return copies of the rows, each standing for an equal part of `total` questions."""
    return [row | {"weight": total / len(rows)} for row in rows]
