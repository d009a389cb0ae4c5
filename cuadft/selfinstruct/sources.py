"""Draw what new questions are made from: answered rows, and passages without a gold span.

A *seed* is the row or the passage that a question is made from; a random seed is something else, and is never kept in
a seed. A seed that has got a question is a *candidate*: a dict with the fields of a row and with what the filters need.
Its `expect` says what a language model must answer in the round trip: the "gold" words, a "quotation" of the passage,
or "" if the label is certain and no language model is asked. For example:

    seeds = row_seeds(train_rows, passages_by_contract, 20, random.Random(7))
    seeds[0]["seed"], seeds[0]["clause"]  # "X__Governing Law", "This Agreement is governed by the laws of Ohio."
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from cuadft.core.errors import InputError
from cuadft.data.contracts import Row
from cuadft.data.passages import Passage, join_passages, overlapping
from cuadft.data.rows import draw_evenly
from cuadft.data.schema import NO_CATEGORY

Candidate = dict[str, Any]
TEMPLATE_SOURCE = "template"  # source of a row whose question comes from `templates`
MADE_SOURCES = ("synthetic", TEMPLATE_SOURCE, "own")  # sources of rows made in this room; no row of them is a seed
MIN_PASSAGE_LENGTH = 200  # characters; shorter passages are headings, page numbers and signature lines


def row_seeds(
    rows: Sequence[Row], passages: Mapping[str, Sequence[Passage]], wanted: int, rng: random.Random
) -> list[Candidate]:
    """Draw the seeds of "rephrase": rows with gold spans, one of each category before a second one of any."""
    usable = [row for row in rows if row["answers"] and row["source"] not in MADE_SOURCES]
    drawn = draw_evenly(usable, wanted, group=itemgetter("category"), rng=rng)
    return [seed_from_row(row, passages[row["contract"]]) for row in drawn]


def unlabelled_seeds(
    rows: Sequence[Row], passages: Mapping[str, Sequence[Passage]], wanted: int, rng: random.Random
) -> list[Candidate]:
    """Draw the seeds of "ask": passages without any gold span, evenly over contracts.

    `rows` must hold all rows of a contract, because a passage counts as unlabelled if no row has a gold span in it. A
    contract without any row counts as one without annotations.
    """
    types = {row["contract"]: row["contract_type"] for row in rows}
    spans: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        spans[row["contract"]] += row["answers"]
    usable = []
    for contract, own in passages.items():
        gold = set(overlapping(own, spans[contract]))
        free = [p for p in own if p.index not in gold and len(p.text.strip()) >= MIN_PASSAGE_LENGTH]
        usable += [seed_from_passage(passage, types.get(contract, "")) for passage in free]
    return draw_evenly(usable, wanted, group=itemgetter("contract"), rng=rng)


def seed_from_row(row: Row, passages: Sequence[Passage]) -> Candidate:
    """Return a row as a seed, with the passages that hold its first gold span."""
    span = row["answers"][0] if row["answers"] else None
    holding = set(overlapping(passages, [span])) if span else set()
    text, start = join_passages([passage for passage in passages if passage.index in holding])
    kept = {name: row[name] for name in ("contract", "contract_type", "category", "answers")}
    return kept | {
        "seed": row["id"],
        "kind": "rephrase",
        "seed_question": row["question"],
        "clause": span["text"] if span else "",
        "passage": text,
        "start": start,
        "expect": "gold",
    }


def seed_from_passage(passage: Passage, contract_type: str) -> Candidate:
    """Return a passage as a seed."""
    own = {"contract": passage.contract, "contract_type": contract_type, "category": NO_CATEGORY, "answers": []}
    seed = own | {"seed": f"{passage.contract}__passage {passage.index}", "kind": "ask", "seed_question": ""}
    return seed | {"clause": passage.text, "passage": passage.text, "start": passage.start, "expect": "quotation"}


def refuse_held_out(titles: Iterable[str], held_out: Collection[str]) -> None:
    """Raise InputError if a held-out contract is among the titles of what is meant for training."""
    if leaks := sorted(set(titles) & set(held_out)):
        told = f"{len(leaks)} held-out contracts among the training data, such as {leaks[0]!r}"
        raise InputError(f"{told}: pass rows and passages of the train split only")
