"""Measure how far a judge's scores agree with verdicts, for any judge and any column of verdicts.

    table = judge_agreement(frame, score="judge_score", verdict="human_score")
    with_intervals(table)    # to read: one row for all systems, one for each

In this file a *score* is the number of the judge under test, and a *verdict* is what it is held against, for example a
human's; both run from 0 to 1. Nothing is fitted or tuned here: the scores are taken as they are. A judge that was
fitted to these very verdicts looks better here than it is. Intervals resample whole contracts.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from cuadft.evaluation.bootstrap import check_resampling, interval_table, side_by_side

RIGHT_FROM = 0.5  # the lowest score and verdict of a right answer
MEASURES = ("spearman", "kappa", "agreement", "error", "absolute_error")
COLUMNS = ["system", "n", "left_out", *(f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high"))]
ALL = "all systems"


def judge_agreement(
    frame: pd.DataFrame, *, score: str = "judge_score", verdict: str = "human_score", **resampling: Any
) -> pd.DataFrame:
    """Return how far the column `score` agrees with the column `verdict`: a row for all systems, then one for each.

    frame: system, question, answer and the two columns of numbers from 0 to 1; contract, failed and judge_verdict are
    used if they are there. Rows without one of the numbers, and failed generations, are no part of n; left_out counts
    them. A row counts as right from `RIGHT_FROM` on. Each measure stands with its bounds _low and _high:
    spearman (rank correlation over rows), kappa (Cohen's, of right and wrong), agreement (share of rows that both call
    right, or both wrong), error (mean of score minus verdict), absolute_error. Intervals resample whole contracts, or
    questions if there is one contract; those of the correlations are percentiles. A figure that the data do not give
    (too few rows, a constant column) is NaN. Raises InputError on settings out of range.
    """
    settings = dict(zip(("n_resamples", "seed", "confidence"), check_resampling(**resampling), strict=True))
    rows = frame.assign(score=frame[score].astype(float), verdict=frame[verdict].astype(float))
    usable = rows[["score", "verdict"]].notna().all(axis=1) & rows["answer"].notna()
    for column, value in (("failed", True), ("judge_verdict", "failed")):
        usable &= rows[column] != value if column in rows else True
    rows = rows.assign(usable=usable.astype(bool), group=cluster_column(rows).to_numpy())
    parts = {ALL: rows} | dict(list(rows.groupby("system", sort=False)))
    return pd.DataFrame([{"system": name} | _agreement(part, settings) for name, part in parts.items()])[COLUMNS]


def _agreement(part: pd.DataFrame, settings: dict[str, Any]) -> dict[str, Any]:
    used = part[part["usable"]]
    right, error = used[["score", "verdict"]] >= RIGHT_FROM, used["score"] - used["verdict"]
    values = {
        "agreement": (right["score"] == right["verdict"], True),
        "error": (error, False),
        "absolute_error": (error.abs(), True),
    }
    columns = [(column, np.ones(len(used)), share) for column, share in values.values()]
    means = interval_table(columns, used["group"], **settings).set_axis(list(values))
    found = pd.concat([correlation_intervals(used, **settings), means])
    return {"n": len(used), "left_out": len(part) - len(used)} | side_by_side(found)


def cluster_column(frame: pd.DataFrame) -> pd.Series:
    """Return what intervals resample: each row's contract if there are several, its question, or the row itself."""
    for column in ("contract", "question"):
        if column in frame and frame[column].nunique() > 1 and frame[column].notna().all():
            return frame[column].astype(str).reset_index(drop=True)
    return pd.Series(range(len(frame)), dtype=object)


def correlation_intervals(rows: pd.DataFrame, *, n_resamples: int, seed: int, confidence: float) -> pd.DataFrame:
    """Return spearman and kappa with percentile bounds from draws of whole groups: value, low, high.

    rows: columns score, verdict and group. A draw on which a correlation is NaN is left out of its bounds. Fewer than
    two groups: NaN bounds.
    """
    members = list(rows.reset_index(drop=True).groupby("group", sort=False).indices.values())
    columns, rng, draws = rows[["score", "verdict"]].to_numpy(float), np.random.default_rng(seed), []
    for _ in range(n_resamples if len(members) > 1 else 0):
        drawn = np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])
        draws.append(_correlations(*columns[drawn].T))
    table = pd.DataFrame(draws, columns=["spearman", "kappa"], dtype=float)
    low, high = (table.quantile(end) for end in ((1 - confidence) / 2, (1 + confidence) / 2))
    return pd.DataFrame({"value": _correlations(*columns.T), "low": low, "high": high})


def _correlations(score: np.ndarray, verdict: np.ndarray) -> dict[str, float]:
    """Return Spearman's correlation and Cohen's kappa; NaN where a column is constant."""
    from scipy.stats import rankdata

    constant = len(score) < 2 or np.ptp(score) == 0 or np.ptp(verdict) == 0
    spearman = math.nan if constant else float(np.corrcoef(rankdata(score), rankdata(verdict))[0, 1])
    return {"spearman": spearman, "kappa": kappa(score >= RIGHT_FROM, verdict >= RIGHT_FROM)}


def kappa(a: np.ndarray, b: np.ndarray) -> float:
    """Return Cohen's kappa of two boolean columns, at most 1; NaN if both are the same constant (Cohen 1960)."""
    if not len(a):
        return math.nan
    chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float(((a == b).mean() - chance) / (1 - chance)) if chance < 1 else math.nan
