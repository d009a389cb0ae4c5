"""Draw answers with the probabilities that a system gave them, and show them beside the gold spans.

    records = answers_with_probabilities(predictions, n=10, seed=7)
    show_probabilities(records)    # last line of a notebook cell

The draw goes in turn over the outcomes, so that a reader sees right answers and each kind of wrong one, with what the
system thought of them. It is no sample from which to estimate shares: those are in `confidence`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import pandas as pd
from pandas.io.formats.style import Styler

from cuadft.evaluation.confidence import all_quotes, is_answered, is_right, stated_p
from cuadft.evaluation.excerpts import shorten
from cuadft.evaluation.metrics import is_missing
from cuadft.evaluation.official import Predictions, checked_rows, shown_quotes
from cuadft.evaluation.verdicts import gold_texts, has_failed

OUTCOMES = (
    "right",  # there is a clause, and the quote is right
    "wrong",  # there is a clause, but the quote is another text or too long or too short
    "overlooked",  # there is a clause, but the answer is that there is none
    "invented",  # there is no clause, but one is quoted
    "refused rightly",  # there is no clause, and the answer says so
)
LONGEST_TEXT = 300  # characters shown of an answer or a gold span


def answers_with_probabilities(predictions: Predictions, *, n: int = 10, seed: int = 7) -> list[dict[str, Any]]:
    """Return n answers with their probabilities, drawn in turn from each of `OUTCOMES`, so that wrong ones show too.

    Each record: system, outcome, category, contract, answer and gold (cut to `LONGEST_TEXT` characters; gold is "" if
    there is no clause), p_exists and p_quote (that of the best quote, shown or not; None if there is none), candidate
    (the best quote where it was found but not shown, else ""). Rows that failed or have neither probability are left
    out. The draw depends on the seed, not on the order of the rows. Raises InputError on a malformed row.
    """
    found = []
    for p in checked_rows(predictions):
        record = None if has_failed(p) else _record(p)
        if record and not (record["p_exists"] is None and record["p_quote"] is None):
            found.append((crc32(f"{seed} {record['system']} {p['id']}".encode()), str(p["id"]), record))
    found.sort(key=lambda one: one[:2])
    turns = [[record for *_, record in found if record["outcome"] == outcome] for outcome in OUTCOMES]
    drawn = [record for turn in itertools.zip_longest(*turns) for record in turn if record]
    return sorted(drawn[:n], key=lambda record: OUTCOMES.index(record["outcome"]))


def _record(p: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is shown of a prediction that did not fail."""
    answered, shown, golds = is_answered(p), shown_quotes(p), gold_texts(p)
    best = next(iter(shown if answered else all_quotes(p)), None)
    if golds:
        right = answered and is_right(shown[0]["text"] if shown else p["answer"], p)
        outcome = "right" if right else "wrong" if answered else "overlooked"
    else:
        outcome = "invented" if answered else "refused rightly"
    return {
        "system": str(p.get("system", "")),
        "outcome": outcome,
        "category": p["category"],
        "contract": p["contract"],
        "gold": shorten("\n".join(golds), LONGEST_TEXT),
        "answer": shorten(p["answer"], LONGEST_TEXT),
        "candidate": "" if answered or best is None else shorten(best["text"], LONGEST_TEXT),
        "p_exists": None if is_missing(p.get("p_exists")) else p["p_exists"],
        "p_quote": None if best is None else stated_p(best, p),
    }


def show_probabilities(records: Sequence[Mapping[str, Any]]) -> Styler:
    """Return the records of `answers_with_probabilities` as a table to read in a notebook."""
    table = pd.DataFrame(list(records)).style.hide().format(precision=2, na_rep="–", escape="html")
    return table.set_properties(**{"text-align": "left", "vertical-align": "top", "white-space": "pre-wrap"})
