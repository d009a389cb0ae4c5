"""Agreement of two columns of numbers: rank correlations and kappa, with intervals that resample whole clusters."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd

WORK = 1_000_000  # rows drawn for the intervals in all: a bound on their time (a few seconds)
FEWEST = 200  # draws, however many rows there are
TRUE_FALSE = {"true": 1.0, "false": 0.0}


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation, -1 to 1; NaN if either column is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(a), rankdata(b))


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Return Kendall's tau-b, which allows for ties, -1 to 1; NaN if either column is constant (Kendall 1945)."""
    from scipy.stats import kendalltau

    return math.nan if undefined(a, b) else float(kendalltau(a, b).statistic)


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation, -1 to 1; NaN if either column is constant."""
    if undefined(a, b):
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    return float(np.clip((a @ b) / math.sqrt((a @ a) * (b @ b)), -1, 1))


def kappa(a: np.ndarray, b: np.ndarray) -> float:
    """Return Cohen's kappa of two boolean columns, at most 1; NaN if both are the same constant (Cohen 1960)."""
    a, b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if not len(a):
        return math.nan
    chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float(((a == b).mean() - chance) / (1 - chance)) if chance < 1 else math.nan


def undefined(a: np.ndarray, b: np.ndarray, names: tuple[str, str] = ("a", "b")) -> str | None:
    """Say why two columns have no correlation (no rows, one row, a constant column); None if they have one."""
    if len(a) < 2:
        return f"{len(a)} row{'' if len(a) == 1 else 's'}: a correlation needs two or more."
    for name, column in zip(names, (a, b), strict=True):
        if np.ptp(column) == 0:
            return f"{name} is the same everywhere ({column[0]:.3g})."
    return None


def intervals(statistics: Mapping[str, Callable[[np.ndarray], float]], groups: pd.Series, *, n_resamples: int,
              seed: int, confidence: float) -> tuple[dict[str, tuple[float, float]], int]:  # fmt: skip
    """Return each statistic's percentile bounds from one set of draws of whole groups, and the number of draws.

    statistics: name -> function of the row numbers drawn; a draw on which it is NaN is left out of its bounds. Fewer
    draws than n_resamples are made where there are very many rows (see WORK). Fewer than two groups: NaN bounds.
    """
    codes, names = pd.factorize(groups)
    members = _members(codes)
    draws = max(1, min(n_resamples, max(FEWEST, WORK // max(1, len(codes)))))
    if len(names) < 2:
        return {name: (math.nan, math.nan) for name in statistics}, draws
    rng, found = np.random.default_rng(seed), {name: np.full(draws, math.nan) for name in statistics}
    for i in range(draws):
        rows = np.concatenate([members[g] for g in rng.integers(len(names), size=len(names))])
        for name, statistic in statistics.items():
            found[name][i] = statistic(rows)
    tail = (1 - confidence) / 2
    return {name: _bounds(values[~np.isnan(values)], tail) for name, values in found.items()}, draws


def _members(codes: np.ndarray) -> list[np.ndarray]:
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)


def _bounds(values: np.ndarray, tail: float) -> tuple[float, float]:
    low, high = np.quantile(values, [tail, 1 - tail]) if len(values) else (math.nan, math.nan)
    return float(low), float(high)


def number(value: Any) -> tuple[float, str | None]:
    """Return a verdict as a number from 0 to 1, or NaN and why it is none; takes 0/1, true/false, 0..1, and text."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return math.nan, "missing"
    text = str(value).strip().lower()
    if not text or text in ("nan", "none"):
        return math.nan, "missing"
    try:
        found = TRUE_FALSE[text] if text in TRUE_FALSE else float(text)
    except ValueError:
        return math.nan, "no number"
    return (found, None) if 0 <= found <= 1 else (math.nan, "outside 0 to 1")
