"""Tell which part of the system is to blame for a wrong answer: the retriever, the model, or a failed generation.

    frame = metrics.score(predictions)
    diagnosis.faults(frame)             # one row per split and system
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from cuadft.errors import InputError
from cuadft.metrics import METRICS

FAULTS = {  # kind -> (name, what happened and what to repair)
    "missed": ("Retrieval missed the clause", "no character of it was sent to the model: repair the retriever"),
    "refused": ("Retrieved but refused", "the clause was sent, the answer says that there is none: repair the model"),
    "wrong": ("Retrieved but wrong words", "the clause was sent, the answer says something else: repair the model"),
    "invented": ("Answered where there is no clause", "the right answer is that there is none: repair the model"),
    "failed": ("Failed generation", "there is no answer to score: see the error"),
}
UNSENT = {  # the same where the passages sent are not recorded
    "refused": ("Refused although there is a clause", "which passages were sent is not recorded"),
    "wrong": ("Wrong words", "which passages were sent is not recorded"),
}
COUNTED = ("fine", *FAULTS, "unscored")


def classify(frame: pd.DataFrame, metric: str = "f1", *, fine_from: float = 0.5) -> pd.Series:
    """Return the kind of each row: "fine", a key of FAULTS, or "unscored" where the metric is NaN.

    frame: from `metrics.score`, with a judge's column if `metric` is one. A row is fine from `fine_from` on, and
    where it refuses rightly. "missed" is decided by the passages (`hit`); where they are not recorded, a wrong answer
    to an answerable question is "refused" or "wrong". Raises InputError on a metric that is not there or of which
    less is better.
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


def faults(frame: pd.DataFrame, metric: str = "f1", *, fine_from: float = 0.5,
           by: Sequence[str] = ("split", "system")) -> pd.DataFrame:
    """Return the number of rows of each kind, per split and system or other columns `by`.

    Columns: those of `by`, n (rows), n_contracts, answerable, then one count per kind; they add up to n. missed is
    <NA> where passages of answerable rows are not recorded: those faults are among refused and wrong.
    Raises InputError as `classify`.
    """
    work = frame.assign(kind=classify(frame, metric, fine_from=fine_from))
    rows = []
    for key, part in work.groupby(list(by), sort=False):
        kinds, answerable = part["kind"].value_counts(), part[~part["is_impossible"].astype(bool)]
        sizes = {"n": len(part), "n_contracts": part["contract"].nunique(), "answerable": len(answerable)}
        counts = {kind: int(kinds.get(kind, 0)) for kind in COUNTED}
        if (answerable["hit"].isna() & ~answerable["failed"].astype(bool)).any():
            counts["missed"] = pd.NA if not counts["missed"] else counts["missed"]
        rows.append(dict(zip(by, key, strict=True)) | sizes | counts)
    return pd.DataFrame(rows, columns=[*by, "n", "n_contracts", "answerable", *COUNTED]).astype({"missed": "Int64"})


def describe(kind: str, *, recall: float) -> tuple[str, str]:
    """Return a fault's name and what happened; recall: share of the clause's characters sent, NaN if not recorded."""
    if kind in UNSENT and math.isnan(recall):
        return UNSENT[kind]
    name, cause = FAULTS[kind]
    part = f" ({recall:.0%} of its characters)" if kind in UNSENT and recall < 1 else ""
    return name, cause.replace("the clause was sent", f"the clause was sent{part}")
