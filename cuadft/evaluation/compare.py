"""Compare two systems on the same questions: paired differences, p-values, and what n questions could have shown.

    frame = score_predictions(predictions)
    paired_delta(frame[frame.system == "rag"], frame[frame.system == "sft"], seed=7)    # one difference, as a `Delta`
    paired_deltas(frame, comparisons(["rag", "sft", "dpo"]), metrics=["quote_f1"], seed=7)    # a table, one row each

The intervals come from resampling whole contracts (see `bootstrap`). `holm` corrects the p-values of a table, and
`detectable_difference` tells how large a true difference must be for the test to find it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cuadft.core.errors import InputError
from cuadft.core.runs import CONSTANTS, CONTROLS, NOT_TRAINED
from cuadft.evaluation import bootstrap
from cuadft.evaluation.bootstrap import INTERVAL_COLUMNS, Interval, Studentised
from cuadft.evaluation.metrics import WEIGHT_COLUMNS, metric_weights

DELTA_COLUMNS = ["split", "baseline", "system", "metric", *INTERVAL_COLUMNS, "p", "p_holm", "detectable"]


@dataclass(frozen=True)
class Delta(Interval):
    """Hold a paired difference with its bounds, two-sided p-value and standard error.

    critical: how many standard errors from zero a difference must be for the test to find it.
    """

    p: float
    std_error: float
    critical: float


def paired_delta(
    a: pd.DataFrame, b: pd.DataFrame, *, metric: str = "quote_f1", allow_partial: bool = False, **resampling: Any
) -> Delta:
    """Return the mean of b less that of a over the same rows, paired by `id` and resampled by `contract`.

    a, b: frames from `score_predictions`, one system and one split each. The seeds of an id are averaged first, so
    systems run with one seed and with several can be compared. Pairs in which the metric does not apply to both
    rows (NaN) are left out, so `n` counts the pairs compared. Metrics of counts (`metrics.WEIGHT_COLUMNS`) compare the
    two ratios, over the rows that count for either. With `allow_partial` rows without a partner are left out too.
    resampling: n_resamples, seed and confidence, see `bootstrap.check_resampling`.

    The interval is the symmetric bootstrap-t of `bootstrap.studentise`, cut at -1 and 1 for scores between 0 and 1.
    The p-value inverts it: p <= 1 - confidence exactly where the bounds leave 0 out. Measured coverage at 95 %: 93
    to 97 % with 10 or more contracts (tests/evaluation/test_compare.py). Where fewer than ten rows differ, it is 88 to
    94 % if there is a true difference and 97 to 99 % if there is none.

    With one contract, bounds and p are NaN. If the difference is the same in all n contracts, they show no spread: p
    is then that of a sign test, 2^(1 - n) (1 if there is no difference), and the width is zero, or the bounds are NaN
    while that p is too large.

    Raises InputError on repeated ids, on ids without a partner, and on settings that `bootstrap.check_resampling`
    refuses.
    """
    pairs = _pairs(_per_id(a, metric, "a"), _per_id(b, metric, "b"), metric, allow_partial)
    return Delta(*next(_deltas([pairs], **resampling).itertuples(index=False, name=None)))


def paired_deltas(
    frame: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    *,
    metrics: Sequence[str] = ("quote_f1",),
    split: str = "test",
    allow_partial: bool = False,
    **resampling: Any,
) -> pd.DataFrame:
    """Return one row per (baseline, system) pair and metric: the mean of system - baseline with its interval.

    frame: from `score_predictions`, any number of systems; settings: those of `paired_delta`. Columns: split,
    baseline, system, metric, value, low, high, n, n_contracts, p, p_holm (corrected over this call's rows of the same
    metric: the family), detectable (the true difference that these contracts would show with 80 % power at this
    confidence, before the correction). Raises InputError on unknown systems and as `paired_delta`.
    """
    frame = frame[frame["split"] == split]
    known = list(frame["system"].unique())
    unknown = [name for pair in pairs for name in pair if name not in known]
    if unknown:
        raise InputError(f"No system {unknown[0]!r} on split {split!r}: choose from {', '.join(known) or 'none'}.")
    parts = {name: frame[frame["system"] == name] for pair in pairs for name in pair}
    tables = {(name, metric): _per_id(part, metric, name) for name, part in parts.items() for metric in metrics}
    keys = [(split, a, b, metric) for a, b in pairs for metric in metrics]
    joined = [_pairs(tables[a, metric], tables[b, metric], metric, allow_partial) for _, a, b, metric in keys]
    if not keys:
        return pd.DataFrame(columns=DELTA_COLUMNS)
    table = pd.DataFrame(keys, columns=DELTA_COLUMNS[:4]).join(_deltas(joined, **resampling))
    table["p_holm"] = table.groupby("metric", sort=False)["p"].transform(holm)
    tests = table[["std_error", "n_contracts", "critical"]]
    return table.assign(detectable=[detectable_difference(*test) for test in tests.to_numpy()])[DELTA_COLUMNS]


def comparisons(systems: Sequence[str]) -> list[tuple[str, str]]:
    """Return the (baseline, system) pairs worth a paired test: every system against rag, aligned ones also against sft.

    Without rag the first system is the baseline. Trained systems are also held against top_passage, which needs no
    model. What always_refuses scores is 0 in every measure of quotes, so that a system's own interval is that test.
    """
    made = [s for s in systems if s not in CONSTANTS]
    base = "rag" if "rag" in made else next(iter(made), None)
    pairs = [(base, s) for s in made if s != base]
    trained = [s for s in made if s not in NOT_TRAINED]
    more = [("sft", s) for s in trained if "sft" in made and s not in ("sft", base)]
    more += [("top_passage", s) for s in trained if "top_passage" in systems]
    return list(dict.fromkeys(pairs + more))  # without rag, sft may be the baseline already


def beyond_controls(
    frame: pd.DataFrame, methods: Sequence[str], *, metric: str = "quote_f1", split: str = "test", **resampling: Any
) -> tuple[pd.DataFrame, str]:
    """Return each method's paired differences from SFT and from the controls, and in words which methods count.

    A method counts if it is better than SFT and than every control, SFT for longer on the chosen answers and the best
    of several samples: its intervals lie above 0, and Holm's correction over the methods, made for each of these
    baselines by itself, leaves p below 0.05. frame, metric, split, resampling and the table: those of `paired_deltas`.
    """
    present = set(frame.loc[frame["split"] == split, "system"])
    baselines = [name for name in ("sft", *CONTROLS) if name in present]
    methods = [name for name in methods if name in present and name not in CONTROLS]
    settings = {"metrics": [metric], "split": split, **resampling}
    tables = [paired_deltas(frame, [(name, method) for method in methods], **settings) for name in baselines]
    table = pd.concat(tables) if tables else pd.DataFrame(columns=DELTA_COLUMNS)
    better = table[(table["low"] > 0) & (table["p_holm"] < 0.05)].groupby("system").size()
    counts = [method for method in methods if better.get(method, 0) == len(baselines)]
    beaten = "SFT" + (f" and the controls {' and '.join(baselines[1:])}" if baselines[1:] else "")
    told = (
        f"On unseen contracts {' and '.join(counts)} {'is' if len(counts) == 1 else 'are'} better than {beaten}."
        if counts
        else f"On unseen contracts no method is shown to be better than {beaten}: preferences add nothing here."
    )
    if missing := [name for name in CONTROLS if name not in present]:
        told += f" Without {' and '.join(missing)} (align_methods), a gain may be one that needs no preferences."
    return table, told if methods else ""


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Return one family's p-values, adjusted so that at level alpha a false positive has a chance of alpha at most.

    NaN (not tested) stays NaN and does not count. Source: Holm (1979), "A simple sequentially rejective multiple test
    procedure", Scand. J. Stat. 6(2).
    """
    p = np.asarray(p_values, dtype=float)
    adjusted, order = np.full(len(p), math.nan), np.argsort(p)[: int(np.isfinite(p).sum())]
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def detectable_difference(std_error: float, n_clusters: int, critical: float, *, power: float = 0.8) -> float:
    """Return the true difference that a two-sided test would find with this power: the minimum detectable difference.

    It is (critical + t(power)) standard errors, with n_clusters - 1 degrees of freedom. critical: the test's own value
    (`Delta.critical`). Measured power (tests/evaluation/test_compare.py): 75 to 81 % with 10 or more contracts. The
    result is NaN where the standard error is missing or zero.

    Source: Bloom (1995), "Minimum Detectable Effects", Evaluation Review 19(5); Student's t for clusters:
    Dong & Maynard (2013), "PowerUp!", J. Research on Educational Effectiveness 6(1).
    """
    from scipy.special import stdtrit

    if not std_error > 0 or n_clusters < 2:
        return math.nan
    return float((critical + stdtrit(n_clusters - 1, power)) * std_error)


def _per_id(frame: pd.DataFrame, metric: str, name: str) -> pd.DataFrame:
    """Return one row per id (contract, weight, value), its seeds averaged; name: the frame's, for error messages."""
    repeated = frame["id"][frame.duplicated(["id", "seed"] if "seed" in frame else ["id"])]
    if len(repeated):
        raise InputError(f"Frame {name} holds id {repeated.iloc[0]!r} more than once: pass one system and one split.")
    value, weight = frame[metric].to_numpy(float), metric_weights(frame, metric)
    weight = np.where(np.isnan(value), 0, weight)
    columns = {"contract": frame["contract"].to_numpy(), "weight": weight, "value": value}
    table = pd.DataFrame(columns, index=frame["id"].to_numpy())
    if table.index.is_unique:
        return table
    seeds = table.assign(value=(table["value"] * table["weight"]).fillna(0)).groupby(level=0, sort=False)
    mean = seeds.agg({"contract": "first", "weight": "mean", "value": "mean"})
    mean["value"] /= mean["weight"].where(mean["weight"] > 0)
    if metric not in WEIGHT_COLUMNS:  # a plain score of one seed of two still stands for the whole question
        mean["weight"] = seeds["weight"].max()
    return mean


def _pairs(a: pd.DataFrame, b: pd.DataFrame, metric: str, allow_partial: bool) -> pd.DataFrame:
    """Return the ids that both tables hold, columns ending in _a and _b, without rows that the metric does not use."""
    only_a, only_b = len(a.index.difference(b.index)), len(b.index.difference(a.index))
    if (only_a or only_b) and not allow_partial:
        raise InputError(
            f"The two systems answered different rows: {only_a} ids only in a, {only_b} only in b, "
            f"{len(a) - only_a} in both. Predict the missing rows, or pass allow_partial=True to compare the rest."
        )
    both = a.add_suffix("_a").join(b.add_suffix("_b"), how="inner")
    counts = both[["weight_a", "weight_b"]] > 0
    return both[counts.any(axis=1) if metric in WEIGHT_COLUMNS else counts.all(axis=1)]


def _deltas(tables: Sequence[pd.DataFrame], **resampling: Any) -> pd.DataFrame:
    """Return b less a for each table of pairs, the values of a `Delta` a row, all with the same draws of contracts."""
    n_resamples, seed, confidence = bootstrap.check_resampling(**resampling)
    codes, n_contracts = bootstrap.cluster_codes(pd.concat([table["contract_a"] for table in tables]))
    tops, bottoms = np.zeros((2, 2, n_contracts, len(tables)))
    shares = []
    for k, table in enumerate(tables):
        here, codes = codes[: len(table)], codes[len(table) :]
        for part, side in enumerate("ba"):
            rows = table[f"value_{side}"].to_numpy(), table[f"weight_{side}"].to_numpy()
            tops[part, :, k], bottoms[part, :, k], _ = bootstrap.cluster_sums(*rows, here, n_contracts)
        both = table[["value_a", "value_b"]]
        shares.append(not ((both < 0) | (both > 1)).any(axis=None))
    found = bootstrap.studentise(tops, bottoms, n_resamples=n_resamples, seed=seed)
    low, high, p = _bounds_and_p(found, np.array(shares), confidence)
    test = {"p": p, "std_error": found.std_error, "critical": found.critical(confidence)}
    counts = list(map(len, tables)), found.n_clusters
    return pd.DataFrame(dict(zip(INTERVAL_COLUMNS, (found.value, low, high, *counts), strict=True)) | test)


def _bounds_and_p(
    found: Studentised, shares: np.ndarray, confidence: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return lower bounds, upper bounds and p-values (K,); equal differences throughout get those of a sign test."""
    value, same = found.value, found.std_error == 0
    reach = np.where(same, 0, found.critical(confidence) * found.std_error)
    sign_test = np.where(np.abs(value) < 1e-12, 1, 2.0 ** (1 - found.n_clusters))
    p = np.where(same, sign_test, found.p_values())
    reach = np.where(same & (sign_test < 1) & (p > 1 - confidence), math.nan, reach)
    most = np.where(shares, 1, math.inf)
    return np.maximum(value - reach, -most), np.minimum(value + reach, most), p
