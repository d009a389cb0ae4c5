"""What every judge takes and gives, so that a judge without a language model needs nothing of one that has one.

A judge takes predictions and gives one verdict a row: a score from 0 to 1, a word, a reason, or the error that kept it
from judging. For example, two judges side by side in the scored rows:

    frame = judge_answers(frame, predictions, {"reference_score": OfflineJudge(), "judge_score": LMJudge(lm)})

A judgement that failed is NaN and counted; it never stands for a "no".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import pandas as pd

from cuadft.core.runs import CONSTANTS

Rows = Sequence[Mapping[str, Any]]  # predictions: question, answers, answer, error
VERDICT_SCORES = {"correct": 1.0, "partly": 0.5, "incorrect": 0.0}
VERDICT_COLUMNS = ["judge_score", "judge_verdict", "judge_reason", "judge_error"]


class Judge(Protocol):
    """What every judge offers."""

    name: str

    def rate(self, rows: Rows) -> pd.DataFrame:
        """Return one verdict per row: judge_score (0 to 1), judge_verdict, judge_reason and judge_error."""
        ...


def judge_answers(
    frame: pd.DataFrame, rows: Rows, judges: Mapping[str, Judge], *, log: Callable[[str], object] = print
) -> pd.DataFrame:
    """Return scored rows with one column of scores for each judge, and whatever else the last judge says of a row.

    frame: one scored row for each of `rows`, in their order. judges: metric -> judge, such as {"reference_score":
    OfflineJudge()}. A failed judgement is NaN. A judge with a language model (`lm`) is not asked about the systems
    that have none (`core.runs.CONSTANTS`), so that these cost nothing: they get no verdict. log: gets one line for each
    judge with the number of its failed judgements and the first error.
    """
    constant = np.array([row.get("system") in CONSTANTS for row in rows], dtype=bool)
    for metric, judge in judges.items():
        judged = ~constant if hasattr(judge, "lm") else np.ones(len(constant), dtype=bool)
        rated = judge.rate([row for row, wanted in zip(rows, judged, strict=True) if wanted])
        verdicts = rated.set_axis(frame.index[judged]).reindex(frame.index).rename(columns={"judge_score": metric})
        frame = frame.drop(columns=verdicts.columns, errors="ignore").join(verdicts)
        errors = [" ".join(error.split()) for error in rated["judge_error"].dropna()]
        first = f" (first error: {errors[0]})" if errors else ""
        log(f"{judge.name}: {len(errors)} of {len(rated)} judgements failed{first}")
    return frame


def verdict_table(verdicts: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return verdicts, made by `verdict_row`, as a frame with the four `VERDICT_COLUMNS`."""
    return pd.DataFrame(verdicts, columns=VERDICT_COLUMNS, dtype=object).astype({"judge_score": float})


def verdict_row(score: float, verdict: str | None, reason: str = "", error: str | None = None) -> dict[str, Any]:
    """Return one verdict as a row of `verdict_table`; verdict None and score NaN stand for a failed judgement."""
    return dict(zip(VERDICT_COLUMNS, (score, verdict, reason, error), strict=True))


def has_failed(row: Mapping[str, Any]) -> bool:
    """Say whether a row's generation failed: it carries an error, or no answer."""
    return isinstance(row.get("error"), str) or not isinstance(row.get("answer"), str)


def gold_texts(row: Mapping[str, Any]) -> list[str]:
    """Return the gold spans' texts in the order in which they stand in the contract, equal ones once."""
    return list(dict.fromkeys(a["text"] for a in sorted(row["answers"], key=lambda a: a.get("start", 0))))


def reference_text(row: Mapping[str, Any], refusal: str) -> str:
    """Return the gold spans' texts, a line each; the refusal sentence if the row has no gold span."""
    return "\n".join(gold_texts(row)) or refusal
