"""Resample contracts: the symmetric bootstrap-t of ratios of sums, for many columns with one set of draws.

A column is a mean (sum of values over number of rows), a micro average (sum of hits over sum of counts) or the
difference of two of them. Contracts are drawn with replacement, all columns that rest on the same contracts share
the draws, and each draw's difference from the estimate is divided by that draw's own standard error.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

BLOCK = 500_000  # resampling counts held in memory at once (4 MB)
NO_SPREAD = 1e-10  # variances below this share of their own terms are rounding errors


@dataclass(frozen=True)
class Studentised:
    """Hold the estimates of K columns and the resampled |t| that their intervals and p-values are read from.

    value, std_error, n_clusters: (K,). t: (n_resamples, K), sorted; NaN, at the end, where a draw's contracts have
    no spread, and so no standard error. shares: (K,), True where t is on the logit scale.
    """

    value: np.ndarray
    std_error: np.ndarray
    n_clusters: np.ndarray
    shares: np.ndarray
    t: np.ndarray

    def critical(self, confidence: float) -> np.ndarray:
        """Return the quantile of |t| (K,), never below Student's t with n_clusters - 1 degrees of freedom.

        NaN with fewer than two clusters, or fewer finite draws than the confidence needs.
        """
        from scipy.special import stdtrit

        finite = np.isfinite(self.t).sum(0)
        rank = np.ceil(confidence * (finite + 1) - 1e-9).astype(int)
        found = self.t[np.minimum(rank, len(self.t)) - 1, np.arange(len(finite))]
        student = stdtrit(np.maximum(self.n_clusters - 1, 1), (1 + confidence) / 2)
        return np.where((rank > finite) | (self.n_clusters < 2), np.nan, np.maximum(found, student))

    def p_values(self) -> np.ndarray:
        """Return two-sided p-values (K,) of value = 0: at most 1 - confidence just if the interval leaves 0 out.

        A draw as far out as the estimate counts against it: p is at least 1 / (draws + 1). NaN without a standard
        error. Source: Davison & Hinkley (1997), "Bootstrap Methods and their Application", section 4.4.
        """
        from scipy.special import stdtr

        with np.errstate(divide="ignore", invalid="ignore"):
            observed = np.abs(self.value) / self.std_error
            as_far = (self.t >= observed).sum(0)
            share = (1 + as_far) / (1 + np.isfinite(self.t).sum(0))
            student = 2 * stdtr(np.maximum(self.n_clusters - 1, 1), -observed)
        return np.where(self.std_error > 0, np.maximum(share, student), np.nan)


def studentise(
    numerators: np.ndarray, denominators: np.ndarray, *, shares: np.ndarray | None = None, n_resamples: int, seed: int
) -> Studentised:
    """Return the estimates of K columns over C contracts and their resampled t.

    numerators, denominators: (P, C, K), sums per contract; with P = 1 the estimate is numerator over denominator,
    with P = 2 the first such ratio less the second. shares (K,): columns of one part whose rows lie between 0 and 1;
    their t is taken on the logit scale. A contract without weight in a column is no draw of it.

    The standard error is the linearised one of a ratio under cluster sampling with n / (n - 1), in the data and in
    each draw alike. Source: Field & Welsh (2007), "Bootstrapping clustered data", J. R. Stat. Soc. B 69(3), section
    2 (whole clusters); Cameron, Gelbach & Miller (2008), Rev. Econ. Stat. 90(3) (t from few clusters).
    """
    k = numerators.shape[2]
    shares = np.zeros(k, bool) if shares is None else np.asarray(shares, bool)
    value, error, clusters = np.full(k, math.nan), np.full(k, math.nan), np.zeros(k, int)
    t = np.full((n_resamples, k), math.nan)
    for columns, used in _same_contracts((denominators != 0).any(0)):
        top, bottom = numerators[:, used][:, :, columns], denominators[:, used][:, :, columns]
        clusters[columns] = n = int(used.sum())
        with np.errstate(divide="ignore", invalid="ignore"):
            ratios = top.sum(1) / bottom.sum(1)
            value[columns] = ratios[0] if len(ratios) == 1 else ratios[0] - ratios[1]
            expected = ratios[:, None] * bottom
            rest = np.where(np.isclose(top, expected, rtol=1e-12, atol=0), 0, top - expected)
            if n > 1:
                whole = _spread(np.ones((1, n)), rest, bottom)[1][0]
                error[columns] = np.where(np.isfinite(value[columns]), whole, math.nan)
                step = max(1, BLOCK // max(n, len(columns)))
                for start, counts in _draws(n, n_resamples, step, np.random.default_rng(seed)):
                    drawn = _t(counts, rest, bottom, ratios, shares[columns], whole)
                    t[start : start + len(counts), columns] = drawn
    t.sort(axis=0)
    return Studentised(value, error, clusters, shares, t)


def _same_contracts(applies: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    patterns, group = np.unique(applies, axis=1, return_inverse=True)
    for number, used in enumerate(patterns.T):
        if used.any():
            yield np.flatnonzero(group.ravel() == number), used


def _draws(n: int, n_resamples: int, step: int, rng: np.random.Generator) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, n_resamples, step):
        rows = min(step, n_resamples - start)
        drawn = rng.integers(0, n, size=(rows, n)) + n * np.arange(rows)[:, None]
        yield start, np.bincount(drawn.ravel(), minlength=rows * n).reshape(rows, n).astype(float)


def _spread(counts: np.ndarray, rest: np.ndarray, bottom: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    n, sign = counts.shape[1], (1, -1)
    totals = [counts @ part for part in bottom]
    shift = [counts @ part / total for part, total in zip(rest, totals)]
    variance = terms = 0.0
    for p, (e, d) in enumerate(zip(rest, bottom)):
        for q, (f, g) in enumerate(zip(rest, bottom)):
            squares = counts @ (e * f)
            cross = squares - shift[q] * (counts @ (e * g)) - shift[p] * (counts @ (d * f))
            cross += shift[p] * shift[q] * (counts @ (d * g))
            variance = variance + sign[p] * sign[q] * cross / (totals[p] * totals[q])
            terms = terms + np.abs(squares) / (totals[p] * totals[q])
    error = np.sqrt(np.where(variance > NO_SPREAD * terms, variance * n / (n - 1), 0))
    return sum(s * part for s, part in zip(sign, shift)), error


def _t(
    counts: np.ndarray,
    rest: np.ndarray,
    bottom: np.ndarray,
    ratios: np.ndarray,
    shares: np.ndarray,
    whole: np.ndarray,
) -> np.ndarray:
    shift, error = _spread(counts, rest, bottom)
    t = shift / error
    if shares.any():
        drawn = ratios[0] + shift  # d logit(x) / dx = 1 / (x (1 - x)): the error on the logit scale
        t = np.where(shares, (_logit(drawn) - _logit(ratios[0])) * drawn * (1 - drawn) / error, t)
    return np.where((error > 0) & (whole > 0) & np.isfinite(t), np.abs(t), math.nan)


def _logit(share: np.ndarray) -> np.ndarray:
    return np.log(share / (1 - share))
