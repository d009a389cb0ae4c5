"""Candidates from the grammar of phrasings: the generator of last resort, which needs no language model."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

from cuadft import phrasings, wording
from cuadft.contracts import Contract, Row
from cuadft.errors import InputError
from cuadft.seeds import Candidate, from_row, seed_of


def candidates(
    train_rows: Sequence[Row], contracts: Iterable[Contract], *, per_row: int, named_share: float = 0.0, seed: int
) -> list[Candidate]:
    """Return `per_row` paraphrases of each train row; a share of them names its contract, for search over all.

    contracts: all of the run, with their texts: a name must not fit two of them; where few contracts have a name, the
    share is smaller. Rows of wording.TOLD name none. per_row 0 gives none. Answers stay, and unanswerable rows
    stay unanswerable.
    """
    made = phrasings.paraphrases(train_rows, per_row=per_row, seed=seed) if per_row else []
    rng = random.Random(seed)
    names = wording.names(contracts) if named_share else {}
    untold = [n for n, row in enumerate(made) if row["category"] not in wording.TOLD]
    nameable = [n for n in untold if made[n]["contract"] in names]
    drawn = set(rng.sample(nameable, min(round(named_share * len(made)), len(nameable))))
    rows = []
    for n, row in enumerate(made):
        rows += wording.named([row], {row["contract"]: [rng.choice(names[row["contract"]])]}) if n in drawn else [row]
    return from_rows(rows, train_rows)


def from_rows(rows: Sequence[Row], train_rows: Sequence[Row]) -> list[Candidate]:
    """Return rows with source "template" (ids "<id of a train row>~...") as candidates, to pass the same filters.

    Raises InputError if one is made from a row that is not among `train_rows`.
    """
    seeds = {row["id"]: row for row in train_rows}
    made = []
    for row in rows:
        seed = seeds.get(seed_of(row["id"]))
        if seed is None:
            raise InputError(f"Template row {row['id']!r} belongs to no train row: make it from train rows only.")
        made.append(from_row(seed, ()) | {
            "id": row["id"], "kind": "template", "raw": row["question"], "question": row["question"], "error": None,
            "answers": row["answers"], "style": "any", "expect": "",
        })  # fmt: skip
    return made
