"""The rows and tables that every judge takes and gives; light, so that a judge without an LM loads none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from cuadft.answer_scores import NO_CLAUSE

if TYPE_CHECKING:
    import pandas as pd

Rows = Sequence[Mapping[str, Any]]
COLUMNS = ["judge_score", "judge_verdict", "judge_reason", "judge_error"]


class Judge(Protocol):
    """What every judge offers."""

    name: str

    def rate(self, rows: Rows) -> pd.DataFrame:
        """Return judge_score (0 to 1), judge_verdict, judge_reason and judge_error, one row per input row."""
        ...


def table(ratings: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return ratings as a frame with the four judge columns, in their order."""
    import pandas as pd

    return pd.DataFrame(ratings, columns=COLUMNS, dtype=object).astype({"judge_score": float})


def rating(score: float, verdict: str | None, reason: str = "", error: str | None = None) -> dict[str, Any]:
    """Return one row of `table`."""
    return dict(zip(COLUMNS, (score, verdict, reason, error), strict=True))


def failed(row: Mapping[str, Any]) -> bool:
    """Say whether a row's generation failed: it carries an error, or no answer."""
    return isinstance(row.get("error"), str) or not isinstance(row.get("answer"), str)


def golds(row: Mapping[str, Any]) -> list[str]:
    """Return the gold spans' texts in the order in which they stand in the contract."""
    return [a["text"] for a in sorted(row["answers"], key=lambda a: a.get("start", 0))]


def reference(row: Mapping[str, Any]) -> str:
    """Return the gold spans' texts, a line each, or the refusal sentence if there is none."""
    return "\n".join(golds(row)) or NO_CLAUSE
