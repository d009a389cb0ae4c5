"""Answers to a question, votes on them and a judge that follows a script, for tests of what preferences are made of."""

from __future__ import annotations

import math

import pandas as pd
import small

TIME = "2026-03-01T10:00:{:02d}+00:00"


def judgement(annotator: str, verdict: str, a: str = "left", b: str = "right", second: int = 0, **given) -> dict:
    return {
        "annotator": annotator,
        "verdict": verdict,
        "id": "q1",
        "contract": "Acme",
        "question": "Which law?",
        "answer_a": a,
        "answer_b": b,
        "system_a": "sft",
        "system_b": "rag",
        "time": TIME.format(second),
        **given,
    }


IMPOSSIBLE, ROW, *_ = small.ROWS  # Acme: Governing Law, which it lacks, and Audit Rights
GOLD = ROW["answers"][0]["text"]  # "Acme may audit the books and records of the Distributor once in each year."
# Verbatim quotes of its passage, which is GOLD; of its 13 words "the" does not count, which leaves 12
CLOSE = GOLD.removesuffix(" in each year.")  # 9 words of the 12: F1 18/21 = 0.86
HALF = "Acme may audit the books and records"  # 6 words: F1 12/18 = 0.67
WRONG = "books"  # 1 word: F1 2/13 = 0.15


class Marks:
    """A judge that gives each answer the score it is told; None is a failed judgement."""

    name = "marks"

    def __init__(self, scores: dict[str, float | None]) -> None:
        self.scores, self.asked = scores, []

    def rate(self, rows):
        self.asked += [(row["id"], row["answer"]) for row in rows]
        found = [self.scores.get(row["answer"], 0.0) for row in rows]
        return pd.DataFrame(
            {
                "judge_score": [math.nan if f is None else f for f in found],
                "judge_error": ["no verdict" if f is None else None for f in found],
            }
        )


def candidates(row: dict, *answers: str | None) -> list[dict]:
    return [row | {"answer": a, "error": "OSError: down" if a is None else None} for a in answers]


def vote(annotator: str, verdict: str, a: str = WRONG, b: str = HALF, row: dict = ROW, **given) -> dict:
    return judgement(annotator, verdict, a, b, **{key: row[key] for key in ("id", "contract", "question")} | given)
