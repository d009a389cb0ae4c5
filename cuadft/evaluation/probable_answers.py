"""Draw answers with the probabilities that a system gave them, and show them beside the gold spans.

    records = answers_with_probabilities(predictions, n=10, seed=7)
    show_probabilities(records)    # last line of a notebook cell, or print(...)

The draw goes in turn over the outcomes, so that a reader sees right answers and each kind of wrong one, with what the
system thought of them. It is no sample from which to estimate shares: those are in `confidence`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

from cuadft.core.errors import InputError
from cuadft.evaluation.confidence import Predictions, all_quotes, is_answered, is_right, rows_by_system, stated_p
from cuadft.evaluation.excerpts import ExcerptPage, Piece, gold_lines, mark_shared, shorten
from cuadft.evaluation.metrics import is_missing
from cuadft.evaluation.official import shown_quotes
from cuadft.evaluation.verdicts import gold_texts, has_failed

OUTCOMES = {  # outcome -> what happened
    "right": "there is a clause, and the quote is right",
    "wrong": "there is a clause, but the quote is another text or too long or too short",
    "overlooked": "there is a clause, but the answer is that there is none",
    "invented": "there is no clause, but one is quoted",
    "refused rightly": "there is no clause, and the answer says so",
}
LONGEST_TEXT = 300  # characters shown of an answer or a gold span


def answers_with_probabilities(predictions: Predictions, *, n: int = 10, seed: int = 7) -> list[dict[str, Any]]:
    """Return n answers with their probabilities, drawn in turn from each of `OUTCOMES`, so that wrong ones show too.

    Each record: system, outcome, category, contract, answer and gold (cut to `LONGEST_TEXT` characters; gold is "" if
    there is no clause), p_exists and p_quote (that of the best quote, shown or not; None if there is none), candidate
    (the best quote where it was found but not shown, else ""). Rows that failed or have neither probability are left
    out. The draw depends on the seed, not on the order of the rows. Raises InputError also on n below 1.
    """
    if n < 1:
        raise InputError(f"Invalid number {n!r} of answers: give a whole number from 1.")
    left: dict[str, list[tuple[int, str, dict[str, Any]]]] = {outcome: [] for outcome in OUTCOMES}
    for system, rows in rows_by_system(predictions).items():
        for p in rows:
            record = None if has_failed(p) else _record(p, system)
            if record and not (record["p_exists"] is None and record["p_quote"] is None):
                left[record["outcome"]].append((crc32(f"{seed} {system} {p['id']}".encode()), str(p["id"]), record))
    turns = [sorted(records, key=lambda one: one[:2]) for records in left.values()]
    drawn = [record for place in range(n) for records in turns for *_, record in records[place : place + 1]]
    return sorted(drawn[:n], key=lambda record: list(OUTCOMES).index(record["outcome"]))


def _record(p: Mapping[str, Any], system: str) -> dict[str, Any]:
    """Return what is shown of a prediction that did not fail."""
    answered, shown, golds = is_answered(p), shown_quotes(p), gold_texts(p)
    best = next(iter(shown if answered else all_quotes(p)), None)
    right = answered and is_right(shown[0]["text"] if shown else p["answer"], p)
    told = ("right" if right else "wrong" if answered else "overlooked") if golds else None
    return {
        "system": system,
        "outcome": told or ("invented" if answered else "refused rightly"),
        "category": p["category"],
        "contract": p["contract"],
        "answer": shorten(p["answer"], LONGEST_TEXT),
        "p_exists": None if is_missing(p.get("p_exists")) else p["p_exists"],
        "p_quote": None if best is None else stated_p(best, p),
        "gold": shorten("\n".join(golds), LONGEST_TEXT),
        "candidate": "" if answered or best is None else shorten(best["text"], LONGEST_TEXT),
    }


def show_probabilities(records: Sequence[Mapping[str, Any]]) -> ExcerptPage:
    """Return the records of `answers_with_probabilities` as cards to read, in the order of the outcomes.

    Words of an answer or a candidate that stand in the gold text are marked.
    """
    cards = []
    for record in records:
        gold = [record["gold"]] if record["gold"] else []
        stated = {"a clause exists": record["p_exists"], "the quote is right": record["p_quote"]}
        told = [f"{name}: {'–' if p is None else f'{p:.2f}'}" for name, p in stated.items()]
        lines = [
            ("Clause", [Piece(f"{record['category']}, {record['contract']} ({record['system']})")]),
            *gold_lines(gold, LONGEST_TEXT),
            ("Answer", mark_shared(record["answer"], gold)),
        ]
        if record["candidate"]:
            lines.append(("Not shown", mark_shared(record["candidate"], gold)))
        lines.append(("Probabilities", [Piece("; ".join(told))]))
        cards.append((f"{record['outcome'].capitalize()}. {OUTCOMES[record['outcome']].capitalize()}.", lines))
    return ExcerptPage(cards, [Piece("words of the gold span", gold=True)], "Nothing to compare.")
