"""Sum scored rows up: means with intervals by system, category or contract type, and which part caused the faults.

    frame = score_predictions(predictions)
    make_scoreboard(frame)                         # every metric: one row per system, split and metric
    score_breakdown(frame, by="category")          # one metric: one row per split, category and system
    fault_counts(frame)                            # one row per split and system, one count per kind of fault

A fault is a wrong answer, filed under the part of the system to repair: the retriever, the model, or a failed
generation (`FAULTS`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cuadft.core.errors import InputError
from cuadft.evaluation import bootstrap
from cuadft.evaluation.bootstrap import INTERVAL_COLUMNS, as_columns
from cuadft.evaluation.constants import settled
from cuadft.evaluation.metrics import METRICS, metric_weights

BOARD_COLUMNS = ["system", "split", "metric", *INTERVAL_COLUMNS, "failed", "seeds", "seed_low", "seed_high"]
BREAKDOWNS = ("category", "contract_type")  # columns by which `score_breakdown` can group
FAULTS = {  # kind -> (name, what happened and what to repair)
    "missed": ("Retrieval missed the clause", "no character of it was sent to the model: repair the retriever"),
    "refused": ("Retrieved but refused", "the clause was sent, the answer says that there is none: repair the model"),
    "wrong": ("Retrieved but wrong words", "the clause was sent, the answer says something else: repair the model"),
    "invented": ("Answered where there is no clause", "the right answer is that there is none: repair the model"),
    "failed": ("Failed generation", "there is no answer to score: see the error"),
}
FAULTS_WITHOUT_PASSAGES = {  # the same kinds where the predictions do not record which passages were sent
    "refused": ("Refused although there is a clause", "which passages were sent is not recorded"),
    "wrong": ("Wrong words", "which passages were sent is not recorded"),
}
FAULT_KINDS = ("fine", *FAULTS, "unscored")  # every kind that a row can have


def make_scoreboard(
    frame: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> pd.DataFrame:
    """Return the mean of every metric per system and split, with its contract-clustered interval.

    frame: from `score_predictions`, with or without the judges' scores. Columns: system, split, metric; value, low,
    high (the mean and what other contracts could change, by `bootstrap.ratio_intervals`); n (questions to which the
    metric applies); n_contracts (the contracts of these questions); failed (all failed generations of that system and
    split); seeds (how many); seed_low, seed_high (lowest and highest mean of one seed: what another seed could change;
    NaN with one seed). A question answered with several seeds counts once, by their average. Raises InputError on a
    question scored twice with one seed, and on settings that `bootstrap.check_resampling` refuses.
    """
    parts = frame.groupby(["system", "split"], sort=False).indices
    metrics = [m for m in METRICS if m in frame]
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    found = iter(_part_intervals(frame, list(parts.values()), metrics, **settings))
    rows = []
    for (system, split), at in parts.items():
        part = frame.iloc[at]
        for metric in metrics:
            row = {"system": system, "split": split, "metric": metric} | settled(
                as_columns(next(found)), system, metric
            )
            rows.append(row | {"failed": int(part["failed"].sum())} | _seed_range(part, metric))
    return pd.DataFrame(rows, columns=BOARD_COLUMNS)


def score_breakdown(
    frame: pd.DataFrame,
    by: str = "category",
    metric: str = "quote_f1",
    *,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return the mean of one metric per split, group and system, with its contract-clustered interval.

    by: category or contract_type. Columns: split, category or contract_type, system, metric, value, low, high, n,
    n_contracts. Most groups rest on few questions, and their intervals say so. Raises InputError on another `by`, a
    metric that the frame lacks, and as `make_scoreboard`.
    """
    if by not in BREAKDOWNS or by not in frame:
        raise InputError(f"Invalid by {by!r}: choose from {', '.join(name for name in BREAKDOWNS if name in frame)}.")
    if metric not in METRICS or metric not in frame:
        raise InputError(f"Invalid metric {metric!r}: choose from {', '.join(m for m in METRICS if m in frame)}.")
    parts = frame.groupby(["split", by, "system"], sort=False).indices
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    found = _part_intervals(frame, list(parts.values()), [metric], **settings)
    table = pd.DataFrame([as_columns(interval) for interval in found], columns=INTERVAL_COLUMNS)
    keys = pd.DataFrame(list(parts), columns=["split", by, "system"])
    return pd.concat([keys.assign(metric=metric), table], axis=1)


def _part_intervals(
    frame: pd.DataFrame, parts: Sequence[np.ndarray], metrics: Sequence[str], **settings: Any
) -> list[bootstrap.Interval]:
    """Return the interval of each metric on each part (the row numbers of one), part by part, with the same draws."""
    bootstrap.check_resampling(settings["n_resamples"], settings["confidence"])
    questions = ["system", "split", "id"]
    repeated = frame.duplicated([*questions, "seed"] if "seed" in frame else questions)
    if repeated.any():
        raise InputError(
            f"Row {frame['id'][repeated].iloc[0]!r} is there twice: score each system, split, seed and row once."
        )
    codes, n_contracts = bootstrap.cluster_codes(frame["contract"].to_numpy())
    ids, once = pd.factorize(frame["id"])[0], 1 / frame.groupby(questions)["id"].transform("size").to_numpy(float)
    tops, bottoms = np.zeros((2, n_contracts, len(parts) * len(metrics)))
    counts, shares = np.zeros(tops.shape[1], int), np.zeros(tops.shape[1], bool)
    for m, metric in enumerate(metrics):
        values, weight = frame[metric].to_numpy(float), metric_weights(frame, metric) * once
        share = bool(frame[metric].dropna().between(0, 1).all())
        for p, at in enumerate(parts):
            k = p * len(metrics) + m
            tops[:, k], bottoms[:, k], applies = bootstrap.cluster_sums(values[at], weight[at], codes[at], n_contracts)
            counts[k], shares[k] = len(np.unique(ids[at][applies])), share
    return bootstrap.ratio_intervals(tops, bottoms, counts, shares, **settings)


def _seed_range(part: pd.DataFrame, metric: str) -> dict[str, float]:
    """Return the number of seeds and the lowest and highest mean that one of them has."""
    seeds = part["seed"].nunique() if "seed" in part else 1
    if seeds < 2:
        return {"seeds": 1, "seed_low": math.nan, "seed_high": math.nan}
    weight = pd.Series(metric_weights(part, metric), part.index).where(part[metric].notna(), 0)
    sums = pd.DataFrame({"top": part[metric].fillna(0) * weight, "bottom": weight}).groupby(part["seed"]).sum()
    means = sums["top"] / sums["bottom"].where(sums["bottom"] > 0)
    return {"seeds": seeds, "seed_low": means.min(), "seed_high": means.max()}


def classify_faults(frame: pd.DataFrame, metric: str = "f1", *, fine_from: float = 0.5) -> pd.Series:
    """Return the kind of each row: "fine", a key of FAULTS, or "unscored" where the metric is NaN.

    frame: from `score_predictions`, with the judge's column if `metric` is a judge's score. A row is fine from
    `fine_from` on, and where it refuses rightly. "missed" is decided by the passages (`hit`); where they are not
    recorded, a wrong answer to an answerable question is "refused" or "wrong". Raises InputError on a metric that is
    not there or of which less is better.
    """
    usable = [name for name, (_, higher) in METRICS.items() if higher and name in frame]
    if metric not in usable:
        raise InputError(f"Invalid metric {metric!r} to find faults by: choose from {', '.join(usable)}.")
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
    work = frame.assign(kind=classify_faults(frame, metric, fine_from=fine_from))
    rows = []
    for key, part in work.groupby(list(by), sort=False):
        kinds, answerable = part["kind"].value_counts(), part[~part["is_impossible"].astype(bool)]
        sizes = {"n": len(part), "n_contracts": part["contract"].nunique(), "answerable": len(answerable)}
        counts = {kind: int(kinds.get(kind, 0)) for kind in FAULT_KINDS}
        if (answerable["hit"].isna() & ~answerable["failed"].astype(bool)).any():
            counts["missed"] = pd.NA if not counts["missed"] else counts["missed"]
        rows.append(dict(zip(by, key, strict=True)) | sizes | counts)
    return pd.DataFrame(rows, columns=[*by, "n", "n_contracts", "answerable", *FAULT_KINDS]).astype({"missed": "Int64"})


def describe_fault(kind: str, *, recall: float) -> tuple[str, str]:
    """Return a fault's name and what happened; recall: share of the clause's characters sent, NaN if not recorded."""
    if kind in FAULTS_WITHOUT_PASSAGES and math.isnan(recall):
        return FAULTS_WITHOUT_PASSAGES[kind]
    name, cause = FAULTS[kind]
    part = f" ({recall:.0%} of its characters)" if kind in FAULTS_WITHOUT_PASSAGES and recall < 1 else ""
    return name, cause.replace("the clause was sent", f"the clause was sent{part}")
