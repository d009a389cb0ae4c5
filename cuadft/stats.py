"""Uncertainty that respects contracts: the cluster bootstrap and paired differences between two systems.

Questions on one contract share its wording, its length and its parse errors, so they are no independent
draws. Every interval in the project therefore resamples whole contracts, never single questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from cuadft.errors import InputError

BLOCK = 2_000_000  # resample counts held in memory at once (about 16 MB)


@dataclass(frozen=True)
class Interval:
    """Hold a mean with its confidence bounds; NaN bounds mean that the data cannot give any."""

    value: float
    low: float
    high: float
    n: int
    n_clusters: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n}, {self.n_clusters} contracts)"


def cluster_bootstrap(
    values: Iterable[float],
    clusters: Iterable[str],
    *,
    n_resamples: int = 2000,
    seed: int,
    confidence: float = 0.95,
) -> Interval:
    """Return the mean of `values` with a percentile interval from resampling whole clusters with replacement.

    The statistic is the ratio estimator: the sum of the drawn clusters' values over the number of their rows,
    so a contract with more questions weighs more, as in the mean itself. NaN values are dropped first. No
    rows: all NaN. One cluster: NaN bounds, because nothing is known about other contracts. With fewer than
    about 30 clusters the interval tends to be too narrow, and equal values everywhere give a width of zero,
    whatever their number.

    Source: Field & Welsh (2007), "Bootstrapping clustered data", J. R. Stat. Soc. B 69(3), section 2 (the
    randomised cluster bootstrap); on few clusters, Cameron, Gelbach & Miller (2008), Rev. Econ. Stat. 90(3).
    Raises InputError on values and clusters of unequal length, or settings out of range.
    """
    _check(n_resamples, confidence)
    values, clusters = np.asarray(list(values), dtype=float), np.asarray(list(clusters), dtype=object)
    if len(values) != len(clusters):
        raise InputError(
            f"Got {len(values)} values and {len(clusters)} clusters: pass one cluster per value."
        )
    keep = ~np.isnan(values)
    values, (codes, names) = values[keep], pd.factorize(clusters[keep], sort=True)
    value = float(values.mean()) if len(values) else math.nan
    if len(names) < 2:
        return Interval(value, math.nan, math.nan, len(values), len(names))
    sums, sizes = np.bincount(codes, weights=values), np.bincount(codes)
    means = _resampled_means(sums, sizes, n_resamples, np.random.default_rng(seed))
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(value, float(low), float(high), len(values), len(names))


def _resampled_means(
    sums: np.ndarray, sizes: np.ndarray, n_resamples: int, rng: np.random.Generator
) -> np.ndarray:
    n = len(sums)
    step, blocks = max(1, BLOCK // n), []
    for start in range(0, n_resamples, step):
        drawn = rng.multinomial(n, np.full(n, 1 / n), size=min(step, n_resamples - start))
        blocks.append((drawn @ sums) / (drawn @ sizes))
    return np.concatenate(blocks)


def paired_delta(
    a: pd.DataFrame,
    b: pd.DataFrame,
    *,
    metric: str = "f1",
    n_resamples: int = 2000,
    seed: int,
    confidence: float = 0.95,
    allow_partial: bool = False,
) -> Interval:
    """Return the mean of b - a over the rows of two systems, paired by `id` and resampled by `contract`.

    a, b: frames from `metrics.score`, one system and one split each. Pairs in which the metric does not apply
    to either row (NaN) are left out, so `n` counts the pairs compared. With `allow_partial` rows without a
    partner are left out too. Raises InputError on repeated ids, on ids without a partner, and on an id under
    two contracts.
    """
    a, b = _one_row_per_id(a, metric, "a"), _one_row_per_id(b, metric, "b")
    only_a, only_b = len(a.index.difference(b.index)), len(b.index.difference(a.index))
    if (only_a or only_b) and not allow_partial:
        raise InputError(
            f"The two systems answered different rows: {only_a} ids only in a, {only_b} only in b, "
            f"{len(a) - only_a} in both. "
            "Predict the missing rows, or pass allow_partial=True to compare the rest."
        )
    both = a.join(b, how="inner", suffixes=("_a", "_b"))
    moved = both.index[both["contract_a"] != both["contract_b"]]
    if len(moved):
        raise InputError(
            f"Row {moved[0]!r} belongs to different contracts in a and b: score both on the same data."
        )
    difference = both[f"{metric}_b"].astype(float) - both[f"{metric}_a"].astype(float)
    return cluster_bootstrap(
        difference, both["contract_a"], n_resamples=n_resamples, seed=seed, confidence=confidence
    )


def paired_deltas(
    frame: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    *,
    metrics: Sequence[str] = ("f1",),
    split: str = "test",
    **settings,
) -> pd.DataFrame:
    """Return one row per (baseline, system) pair and metric: the mean of system - baseline with its interval.

    frame: from `metrics.score`, any number of systems; settings: those of `paired_delta` (seed is required).
    Columns: split, baseline, system, metric, value, low, high, n, n_contracts. Raises InputError as
    `paired_delta`.
    """
    frame = frame[frame["split"] == split]
    known = list(frame["system"].unique())
    rows = []
    for baseline, system in pairs:
        for name in (baseline, system):
            if name not in known:
                raise InputError(
                    f"No system {name!r} on split {split!r}: choose from {', '.join(known) or 'none'}."
                )
        a, b = frame[frame["system"] == baseline], frame[frame["system"] == system]
        for metric in metrics:
            names = {"split": split, "baseline": baseline, "system": system, "metric": metric}
            rows.append(names | as_columns(paired_delta(a, b, metric=metric, **settings)))
    columns = ["split", "baseline", "system", "metric", "value", "low", "high", "n", "n_contracts"]
    return pd.DataFrame(rows, columns=columns)


def as_columns(interval: Interval) -> dict[str, float | int]:
    """Return an interval as table columns: value, low, high, n, n_contracts."""
    columns = asdict(interval)
    columns["n_contracts"] = columns.pop("n_clusters")
    return columns


def _one_row_per_id(frame: pd.DataFrame, metric: str, name: str) -> pd.DataFrame:
    missing = [c for c in ("id", "contract", metric) if c not in frame]
    if missing:
        raise InputError(f"Frame {name} has no column {missing[0]!r}: pass frames made by metrics.score.")
    repeated = frame["id"][frame["id"].duplicated()]
    if len(repeated):
        raise InputError(
            f"Frame {name} holds id {repeated.iloc[0]!r} more than once: pass one system and one split."
        )
    return frame.set_index("id")[["contract", metric]]


def _check(n_resamples: int, confidence: float) -> None:
    if n_resamples < 1:
        raise InputError(f"Invalid n_resamples {n_resamples!r}: give 1 or more (2000 is usual).")
    if not 0 < confidence < 1:
        raise InputError(f"Invalid confidence {confidence!r}: give a number between 0 and 1, such as 0.95.")
