"""Intervals that respect contracts: symmetric bootstrap-t from resampling whole contracts.

Questions on one contract share its wording, its length and its parse errors, so they are no independent draws.
Every interval in the project therefore resamples whole contracts, never single questions.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from cuadft.errors import InputError
from cuadft.resampling import Studentised, studentise


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
    weights: Iterable[float] | None = None,
    share: bool | None = None,
    n_resamples: int = 2000,
    seed: int,
    confidence: float = 0.95,
) -> Interval:
    """Return the mean of `values`, weighted if `weights` are given, with its interval over clusters.

    The mean is a ratio of sums, so a contract with more questions (or weight) weighs more. Rows of NaN value or no
    weight are dropped first; `n` counts the others. share: whether the values are scores that cannot leave 0 to 1
    (None: whether these do not). No rows: all NaN. One cluster: NaN bounds, because nothing is known about other
    contracts. The order of the rows does not matter. How far to trust the bounds: see `intervals`. Raises
    InputError on inputs of unequal length, negative weights, infinite values, or settings out of range.
    """
    values, names = np.asarray(list(values), dtype=float), np.asarray(list(clusters), dtype=object)
    weights = np.ones(len(values)) if weights is None else np.asarray(list(weights), dtype=float)
    if not len(values) == len(names) == len(weights):
        raise InputError(
            f"Got {len(values)} values, {len(weights)} weights and {len(names)} clusters: pass one of each per row."
        )
    codes, n_clusters = cluster_codes(names)
    top, bottom, applies = cluster_sums(values, weights, codes, n_clusters)
    if share is None:
        share = bool(np.all((values[applies] >= 0) & (values[applies] <= 1)))
    return intervals(
        top[:, None],
        bottom[:, None],
        [int(applies.sum())],
        [share],
        n_resamples=n_resamples,
        seed=seed,
        confidence=confidence,
    )[0]


def cluster_codes(clusters: Iterable[str]) -> tuple[np.ndarray, int]:
    """Return each row's cluster as a number from 0, in the order of their names, and how many clusters there are.

    Raises InputError on a row without a name.
    """
    names = pd.Series(clusters, dtype=object)
    if names.isna().any():
        raise InputError(f"Row {int(np.flatnonzero(names.isna())[0]) + 1} has no contract: name one in every row.")
    codes, found = pd.factorize(names.astype(str), sort=True)
    return codes, len(found)


def cluster_sums(
    values: np.ndarray, weights: np.ndarray, codes: np.ndarray, n_clusters: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return each cluster's sum of weight times value and sum of weights, and which rows count (value and weight).

    codes: the rows' cluster numbers from 0. Raises InputError on infinite values and on negative or infinite weights.
    """
    applies = ~np.isnan(values) & ~np.isnan(weights) & (weights != 0)
    good = np.isfinite(values[applies]) & np.isfinite(weights[applies]) & (weights[applies] > 0)
    if not good.all():
        at = np.flatnonzero(applies)[~good][0]
        raise InputError(
            f"Invalid value {values[at]} with weight {weights[at]}: values must be finite and weights finite "
            "and not negative; correct the scores, or leave the row out as NaN."
        )
    codes, weights, values = codes[applies], weights[applies], values[applies]
    top = np.bincount(codes, weights=weights * values, minlength=n_clusters)
    return top, np.bincount(codes, weights=weights, minlength=n_clusters), applies


def intervals(
    numerators: np.ndarray,
    denominators: np.ndarray,
    counts: Iterable[int],
    shares: Iterable[bool],
    *,
    n_resamples: int,
    seed: int,
    confidence: float,
) -> list[Interval]:
    """Return the ratio of each of K columns with its symmetric bootstrap-t interval over contracts.

    numerators, denominators: (C, K), sums per contract from `cluster_sums`; counts: the rows behind each column;
    shares: the columns whose rows all lie between 0 and 1. Their interval is made on the logit scale and stays
    there. The critical value is never below Student's t with contracts - 1 degrees of freedom.

    Measured coverage at 95 % (tests/test_stats.py: contracts of unequal size, intra-contract correlation 0.1 to
    0.3): 93 to 97 % with 10 or more contracts for shares from 0.1 to 0.9, F1, micro averages, times and paired
    differences; the plain percentile interval covers 86 to 90 % with 10 and 90 to 93 % with 20. Too seldom (91 to
    93 %) it covers means beyond 0.9 or below 0.1 if a few contracts hold most of the errors and there are no more
    than 20; too often (95 to 99 %), being wide, with fewer than 10 contracts and with one yes or no per contract.

    If all rows are 0, or all 1, no resample differs: the far bound is then the exact one for no event in
    `n_clusters` independent draws, 1 - (1 - confidence)^(1 / n_clusters), about 3 / n_clusters. It is cautious, as
    if a contract were one question, and so can be wider than the interval of a share just off 0 or 1. Other values
    that are equal throughout give a width of zero.

    Source: Hall (1988), "On symmetric bootstrap confidence intervals", J. R. Stat. Soc. B 50(1); the logit scale for
    shares from clusters as in `svyciprop(method = "xlogit")` of the R package survey; Hanley & Lippman-Hand (1983),
    JAMA 249(13) (no event). Raises InputError on settings out of range.
    """
    check(n_resamples, confidence)
    shares = np.asarray(list(shares), dtype=bool)
    found = studentise(numerators[None], denominators[None], shares=shares, n_resamples=n_resamples, seed=seed)
    low, high = _bounds(found, shares, confidence)
    rows = zip(found.value, low, high, counts, found.n_clusters, strict=True)
    return [Interval(float(v), float(lo), float(hi), int(n), int(c)) for v, lo, hi, n, c in rows]


def _bounds(found: Studentised, shares: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    value, clusters = found.value, found.n_clusters
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        reach = found.critical(confidence) * found.std_error
        odds, step = value / (1 - value), np.exp(reach / (value * (1 - value)))
        low = np.where(shares, odds / (odds + step), value - reach)
        high = np.where(shares, odds / (odds + 1 / step), value + reach)
        no_event = 1 - (1 - confidence) ** (1 / clusters)
    same, known = found.std_error == 0, clusters > 1
    low, high = np.where(same, value, low), np.where(same, value, high)
    high = np.where(shares & same & (value <= 0) & known, no_event, high)
    low = np.where(shares & same & (value >= 1) & known, 1 - no_event, low)
    return low, high


VALUES = ("value", "low", "high", "n", "n_contracts")  # the columns of `as_columns`


def as_columns(interval: Interval) -> dict[str, float | int]:
    """Return an interval as table columns: value, low, high, n, n_contracts, then any fields that it has beside."""
    columns = asdict(interval)
    return {"n_contracts" if name == "n_clusters" else name: value for name, value in columns.items()}


def check(n_resamples: int, confidence: float) -> None:
    """Raise InputError unless the confidence is a level and the resamples suffice to find its quantile."""
    if not 0 < confidence < 1:
        raise InputError(f"Invalid confidence {confidence!r}: give a number between 0 and 1, such as 0.95.")
    least = math.ceil(confidence / (1 - confidence) - 1e-9)
    if n_resamples < least:
        raise InputError(
            f"Invalid n_resamples {n_resamples!r}: confidence {confidence} needs {least} or more (2000 is usual)."
        )
