"""Draw what new questions are made from: answerable rows, and passages that no gold span touches."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from cuadft.contracts import Row
from cuadft.errors import InputError
from cuadft.passages import Passage, overlapping

Candidate = dict[str, Any]
ASK_FROM = 200  # characters; shorter passages are headings, page numbers and signature lines
ASK_CATEGORY = "Other"  # no CUAD category stands behind a question about an unlabelled passage


def check_train(rows: Iterable[Mapping[str, Any]], held_out: Collection[str]) -> None:
    """Raise InputError if a row or candidate comes from a dev or test contract (titles `held_out`)."""
    held_out = set(held_out)
    leaks = sorted({row["contract"] for row in rows} & held_out)
    if leaks:
        raise InputError(f"{len(leaks)} contracts of dev or test among the train rows, such as {leaks[0]!r}: "
                         "pass rows of the train split only")  # fmt: skip


def labelled(
    rows: Sequence[Row], passages: Mapping[str, Sequence[Passage]], wanted: int, rng: random.Random
) -> list[Candidate]:
    """Draw answerable rows, one of each category before a second one of any; the seeds of "rephrase"."""
    usable = [row for row in rows if row["answers"] and row["source"] != "synthetic"]
    drawn = _evenly(usable, [row["category"] for row in usable], wanted, rng)
    return [_from_row(row, passages[row["contract"]]) for row in drawn]


def unlabelled(
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
        usable += [_from_passage(passage, own[0]["contract_type"] if own else "") for passage in free]
    return _evenly(usable, [seed["contract"] for seed in usable], wanted, rng)


def _evenly(items: Sequence[Any], groups: Sequence[str], wanted: int, rng: random.Random) -> list[Any]:
    order, turn, keys = list(range(len(items))), Counter(), {}
    rng.shuffle(order)
    for n in order:
        turn[groups[n]] += 1
        keys[n] = (turn[groups[n]], len(keys))
    return [items[n] for n in sorted(order, key=keys.__getitem__)[:wanted]]


def _from_row(row: Row, passages: Sequence[Passage]) -> Candidate:
    span = row["answers"][0]
    holding = set(overlapping(passages, [span]))
    touched = [passage for passage in passages if passage.index in holding]
    return {
        "seed": row["id"], "kind": "rephrase", "contract": row["contract"],
        "contract_type": row["contract_type"], "category": row["category"], "seed_question": row["question"],
        "clause": span["text"], "answers": row["answers"],
        "passage": "".join(p.text for p in touched), "start": touched[0].start,
    }  # fmt: skip


def _from_passage(passage: Passage, contract_type: str) -> Candidate:
    return {
        "seed": f"{passage.contract}__passage {passage.index}", "kind": "ask", "contract": passage.contract,
        "contract_type": contract_type, "category": ASK_CATEGORY, "seed_question": "",
        "clause": passage.text, "answers": [], "passage": passage.text, "start": passage.start,
    }  # fmt: skip
