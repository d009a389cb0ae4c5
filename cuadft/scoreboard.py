"""Sum scored rows up: every metric's mean by system, or one metric's by category or contract type, with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cuadft.errors import InputError
from cuadft.metrics import METRICS, weights
from cuadft.stats import VALUES, Interval, as_columns, check, cluster_codes, cluster_sums, intervals

BOARD = ["system", "split", "metric", *VALUES, "failed", "seeds", "seed_low", "seed_high"]
GROUPS = ("category", "contract_type")


def scoreboard(
    frame: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> pd.DataFrame:
    """Return the mean of every metric per system and split, with its contract-clustered interval.

    frame: from `metrics.score`, with or without the judges' scores. Columns: system, split, metric, value, low, high
    (`stats.intervals`: what other contracts could change), n (questions to which the metric applies), n_contracts
    (theirs), failed (all failed generations of that system and split), seeds (their number), seed_low, seed_high
    (lowest and highest mean of one seed: what another seed could change; NaN with one seed). A question answered
    with several seeds counts once, by their average. Raises InputError on a question scored twice with one seed,
    and as `stats.intervals`.
    """
    parts = list(frame.groupby(["system", "split"], sort=False).indices.items())
    metrics = [m for m in METRICS if m in frame]
    found = iter(_intervals(frame, [at for _, at in parts], metrics, n_resamples, seed, confidence))
    rows = []
    for (system, split), at in parts:
        part = frame.iloc[at]
        for metric in metrics:
            row = {"system": system, "split": split, "metric": metric} | as_columns(next(found))
            rows.append(row | {"failed": int(part["failed"].sum())} | _spread(part, metric))
    return pd.DataFrame(rows, columns=BOARD)


def breakdown(
    frame: pd.DataFrame,
    by: str = "category",
    metric: str = "f1",
    *,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return the mean of one metric per split, group and system, with its contract-clustered interval.

    by: category or contract_type. Columns: split, category or contract_type, system, metric, value, low, high, n,
    n_contracts. Most groups rest on few questions, and their intervals say so. Raises InputError on another `by`, a
    metric that the frame lacks, and as `scoreboard`.
    """
    if by not in GROUPS or by not in frame:
        raise InputError(f"Invalid by {by!r}: choose from {', '.join(g for g in GROUPS if g in frame)}.")
    if metric not in METRICS or metric not in frame:
        raise InputError(f"Invalid metric {metric!r}: choose from {', '.join(m for m in METRICS if m in frame)}.")
    parts = list(frame.groupby(["split", by, "system"], sort=False).indices.items())
    found = _intervals(frame, [at for _, at in parts], [metric], n_resamples, seed, confidence)
    rows = [
        {"split": split, by: group, "system": system, "metric": metric} | as_columns(interval)
        for ((split, group, system), _), interval in zip(parts, found, strict=True)
    ]
    columns = ["split", by, "system", "metric", "value", "low", "high", "n", "n_contracts"]
    return pd.DataFrame(rows, columns=columns)


def _intervals(
    frame: pd.DataFrame,
    parts: Sequence[np.ndarray],
    metrics: Sequence[str],
    n_resamples: int,
    seed: int,
    confidence: float,
) -> list[Interval]:
    check(n_resamples, confidence)
    questions = ["system", "split", "id"]
    repeated = frame.duplicated([*questions, "seed"] if "seed" in frame else questions)
    if repeated.any():
        raise InputError(
            f"Row {frame['id'][repeated].iloc[0]!r} is there twice: score each system, split, seed and row once."
        )
    codes, n_contracts = cluster_codes(frame["contract"].to_numpy())
    ids, once = pd.factorize(frame["id"])[0], 1 / frame.groupby(questions)["id"].transform("size").to_numpy(float)
    tops, bottoms = np.zeros((2, n_contracts, len(parts) * len(metrics)))
    counts, shares = np.zeros(tops.shape[1], int), np.zeros(tops.shape[1], bool)
    for m, metric in enumerate(metrics):
        values, weight = frame[metric].to_numpy(float), weights(frame, metric) * once
        share = bool(frame[metric].dropna().between(0, 1).all())
        for p, at in enumerate(parts):
            k = p * len(metrics) + m
            tops[:, k], bottoms[:, k], applies = cluster_sums(values[at], weight[at], codes[at], n_contracts)
            counts[k], shares[k] = len(np.unique(ids[at][applies])), share
    return intervals(tops, bottoms, counts, shares, n_resamples=n_resamples, seed=seed, confidence=confidence)


def _spread(part: pd.DataFrame, metric: str) -> dict[str, float]:
    seeds = part["seed"].nunique() if "seed" in part else 1
    if seeds < 2:
        return {"seeds": 1, "seed_low": math.nan, "seed_high": math.nan}
    weight = pd.Series(weights(part, metric), part.index).where(part[metric].notna(), 0)
    sums = pd.DataFrame({"top": part[metric].fillna(0) * weight, "bottom": weight}).groupby(part["seed"]).sum()
    means = sums["top"] / sums["bottom"].where(sums["bottom"] > 0)
    return {"seeds": seeds, "seed_low": means.min(), "seed_high": means.max()}
