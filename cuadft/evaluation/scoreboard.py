"""Sum scored rows up: means with intervals by system, category or contract type, and which part caused the faults.

    frame = score_predictions(predictions)
    make_scoreboard(frame)                         # every metric: one row per system, split and metric
    score_breakdown(frame, by="category")          # one metric: one row per split, category and system
    fault_counts(frame)                            # one row per split and system, one count per kind of fault

A fault is a wrong answer, filed under the part of the system to repair: the retriever, the model, or a failed
generation (`FAULTS`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cuadft.evaluation.bootstrap import INTERVAL_COLUMNS, interval_table
from cuadft.evaluation.constants import settle
from cuadft.evaluation.metrics import METRICS, metric_weights

BOARD_COLUMNS = ["system", "split", "metric", *INTERVAL_COLUMNS, "failed", "seeds", "seed_low", "seed_high"]
FAULTS = {  # kind -> (name, what happened and what to repair)
    "missed": ("Retrieval missed the clause", "no character of it was sent to the model: repair the retriever"),
    "refused": ("Retrieved but refused", "the clause was sent, the answer says that there is none: repair the model"),
    "wrong": ("Retrieved but wrong words", "the clause was sent, the answer says something else: repair the model"),
    "invented": ("Answered where there is no clause", "the right answer is that there is none: repair the model"),
    "failed": ("Failed generation", "there is no answer to score: see the error"),
}
NOT_RECORDED = {  # the same of answers whose passages are not recorded
    "refused": ("Refused although there is a clause", "which passages were sent is not recorded"),
    "wrong": ("Wrong words", "which passages were sent is not recorded"),
}
FAULT_KINDS = ("fine", *FAULTS, "unscored")  # every kind that a row can have


def make_scoreboard(frame: pd.DataFrame, **resampling: Any) -> pd.DataFrame:
    """Return the mean of every metric per system and split, with its contract-clustered interval.

    frame: from `score_predictions`, with or without the judges' scores. Columns: system, split, metric; value, low,
    high (the mean and what other contracts could change, by `bootstrap.ratio_intervals`); n (questions to which the
    metric applies); n_contracts (the contracts of these questions); failed (all failed generations of that system and
    split); seeds (how many); seed_low, seed_high (lowest and highest mean of one seed: what another seed could change;
    NaN with one seed). A question answered with several seeds counts once, by their average. resampling: n_resamples,
    seed and confidence. Raises InputError as `bootstrap.check_resampling`.
    """
    keys, metrics = ["system", "split"], [m for m in METRICS if m in frame]
    table = settle(_group_means(frame, keys, metrics, **resampling))
    counts = frame.groupby(keys, as_index=False).agg(failed=("failed", "sum"), seeds=("seed", "nunique"))
    table = table.merge(counts, on=keys).merge(_seed_means(frame, keys, metrics), on=[*keys, "metric"])
    several = table["seeds"] > 1
    return table.assign(**{end: table[end].where(several) for end in ("seed_low", "seed_high")})[BOARD_COLUMNS]


def score_breakdown(
    frame: pd.DataFrame, by: str = "category", metric: str = "quote_f1", **resampling: Any
) -> pd.DataFrame:
    """Return the mean of one metric per split, group and system, with its contract-clustered interval.

    by: category or contract_type. Columns: split, category or contract_type, system, metric, value, low, high, n,
    n_contracts. Most groups rest on few questions, and their intervals say so. Raises InputError as `make_scoreboard`.
    """
    return _group_means(frame, ["split", by, "system"], [metric], **resampling)


def _group_means(frame: pd.DataFrame, keys: Sequence[str], metrics: Sequence[str], **resampling: Any) -> pd.DataFrame:
    """Return the mean of each metric in each group of rows, all with the same draws: keys, metric, interval."""
    once = 1 / frame.groupby(["system", "split", "id"])["id"].transform("size").to_numpy(float)
    weights = {metric: metric_weights(frame, metric) * once for metric in metrics}
    shares = {metric: bool(frame[metric].dropna().between(0, 1).all()) for metric in metrics}
    groups, ids = frame.groupby(list(keys), sort=False).ngroup().to_numpy(), frame["id"].to_numpy()
    table = frame[[*keys]].drop_duplicates(ignore_index=True)
    columns, asked = [], []
    for group, metric in itertools.product(table.index, metrics):
        values, inside = frame[metric].to_numpy(float), np.where(groups == group, weights[metric], 0)
        columns.append((values, inside, shares[metric]))
        asked.append(len(set(ids[(inside > 0) & ~np.isnan(values)])))
    table = table.merge(pd.Series(metrics, name="metric"), how="cross")
    return table.join(interval_table(columns, frame["contract"], **resampling)).assign(n=asked)


def _seed_means(frame: pd.DataFrame, keys: Sequence[str], metrics: Sequence[str]) -> pd.DataFrame:
    """Return the lowest and the highest mean that one seed has, by group and metric."""
    values = frame[[*metrics]].reset_index(drop=True)
    weights = pd.DataFrame({metric: metric_weights(frame, metric) for metric in metrics}).where(values.notna(), 0)
    by = [frame[name].reset_index(drop=True) for name in (*keys, "seed")]
    means = (values.fillna(0) * weights).groupby(by).sum() / weights.groupby(by).sum()
    means = means.rename_axis(columns="metric").stack(future_stack=True)
    return means.groupby([*keys, "metric"]).agg(seed_low="min", seed_high="max").reset_index()


def classify_faults(frame: pd.DataFrame, metric: str = "f1", *, fine_from: float = 0.5) -> pd.Series:
    """Return the kind of each row: "fine", a key of FAULTS, or "unscored" where the metric is NaN.

    frame: from `score_predictions`, with the judge's column if `metric` is a judge's score. A row is fine from
    `fine_from` on, and where it refuses rightly. "missed" is decided by the passages (`hit`); where they are not
    recorded, a wrong answer to an answerable question is "refused" or "wrong". Raises InputError on a metric that is
    not there or of which less is better.
    """
    absent, refused = frame["is_impossible"].astype(bool), frame["refused"].astype(bool)
    cases = {
        "failed": frame["failed"].astype(bool),
        "unscored": frame[metric].isna(),
        "fine": (frame[metric] >= fine_from) | (absent & refused),
        "invented": absent,
        "missed": frame["hit"] == 0,
        "refused": refused,
    }
    kinds = np.select(list(cases.values()), list(cases), default="wrong")
    return pd.Series(kinds, index=frame.index, name="fault", dtype=object)


def fault_counts(
    frame: pd.DataFrame, metric: str = "f1", *, fine_from: float = 0.5, by: Sequence[str] = ("split", "system")
) -> pd.DataFrame:
    """Return the number of rows of each kind, per split and system or other columns `by`.

    Columns: those of `by`, n (rows), n_contracts, answerable, then one count per kind; the counts add up to n. missed
    is <NA> where passages of answerable rows are not recorded: the rows that retrieval missed are then among refused
    and wrong. Raises InputError as `classify_faults`.
    """
    frame = frame.reset_index(drop=True)
    answerable = ~frame["is_impossible"].astype(bool)
    unknown = answerable & frame["hit"].isna() & ~frame["failed"].astype(bool)
    kinds = pd.get_dummies(classify_faults(frame, metric, fine_from=fine_from)).reindex(columns=FAULT_KINDS)
    rows = frame[[*by, "id", "contract"]].assign(answerable=answerable, unknown=unknown).join(kinds.fillna(False))
    counts = {kind: (kind, "sum") for kind in ("answerable", *FAULT_KINDS, "unknown")}
    sizes = {"n": ("id", "size"), "n_contracts": ("contract", "nunique")}
    table = rows.groupby(list(by), sort=False, as_index=False).agg(**sizes, **counts)
    missed = table["missed"].astype("Int64").mask((table["unknown"] > 0) & (table["missed"] == 0))
    return table.assign(missed=missed).drop(columns="unknown")


def describe_fault(kind: str, *, recall: float) -> tuple[str, str]:
    """Return a fault's name and what happened; recall: share of the clause's characters sent, NaN if not recorded."""
    if kind in NOT_RECORDED and math.isnan(recall):
        return NOT_RECORDED[kind]
    name, cause = FAULTS[kind]
    return name, f"{cause} ({recall:.0%} of the clause's characters were sent)" if 0 < recall < 1 else cause
