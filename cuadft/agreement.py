"""Calibration report: how far a judge's scores agree with verdicts, for any judge and any column of verdicts.

    report = agreement.report(frame, score="judge_score", verdict="human_score")
    print(agreement.markdown(report))

Nothing is fitted or tuned here: the threshold is the caller's, and the judge's scores are taken as they are.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd

from cuadft.agreement_text import markdown
from cuadft.concordance import intervals, kappa, kendall, number, pearson, spearman, undefined
from cuadft.errors import InputError
from cuadft.stats import cluster_bootstrap

__all__ = ["clusters", "markdown", "report"]

REQUIRED = ("system", "question", "answer")
BINS = 5  # of the reliability curve, of equal width; a judge with no more different scores gets one bin for each
ONE_SIDE = "Both put every row on the same side of the threshold."
TERCILES = ("short", "middle", "long")


def report(frame: pd.DataFrame, *, score: str = "judge_score", verdict: str = "human_score", threshold: float = 0.5,
           n_resamples: int = 2000, seed: int = 0, confidence: float = 0.95) -> dict[str, Any]:  # fmt: skip
    """Return how far the column `score` agrees with the column `verdict`, as a dict that JSON can hold.

    frame: system, question, answer and the two columns; contract, failed and judge_verdict are used if there. Both
    columns may hold 0/1, true/false or numbers from 0 to 1; other rows, and failed generations, are left out and
    counted. At `threshold` and above, a row counts as right. Intervals resample whole contracts, or questions if
    there is one contract. A figure that the data do not give is NaN (null in a JSON file) with its `reason`. Keys: n,
    left_out, clusters, resamples, rows (spearman, kendall, kappa), sides, error (judge minus verdict), systems,
    system_error, ranking, reliability, calibration_error, length. Raises InputError on missing columns and settings
    out of range.
    """
    _check(frame, score, verdict, threshold)
    used, left_out = _usable(frame, score, verdict)
    by, groups = clusters(used)
    judge, human = used["_judge"].to_numpy(dtype=float), used["_human"].to_numpy(dtype=float)
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    error = _mean(judge - human, groups, settings) | {"absolute": _average(np.abs(judge - human))}
    rows, draws = _over_rows(used, groups, threshold, (score, verdict), settings)
    systems = _systems(used, groups, settings, (score, verdict))
    errors = [abs(s["error"]) for s in systems]
    reliability = _reliability(used, groups, settings)
    gaps = [b["n"] * abs(b["judge"] - b["verdict"]) for b in reliability]
    return {
        "score": score, "verdict": verdict, "threshold": threshold, "confidence": confidence,
        "n": len(used), "left_out": left_out, "clusters": {"by": by, "n": int(groups.nunique())}, "resamples": draws,
        "length": {"correlation": rows.pop("length"), "terciles": _terciles(used, groups, settings)}, "rows": rows,
        "sides": _sides(judge >= threshold, human >= threshold), "error": error, "systems": systems,
        "system_error": {"mean": _average(errors), "largest": max(errors, default=math.nan)},
        "ranking": _ranking(systems), "reliability": reliability,
        "calibration_error": sum(gaps) / len(used) if len(used) else math.nan,
    }  # fmt: skip


def clusters(frame: pd.DataFrame) -> tuple[str, pd.Series]:
    """Return what to resample and its name: contracts if there are several, else questions, else rows."""
    for column in ("contract", "question"):
        if column in frame and frame[column].nunique() > 1 and frame[column].notna().all():
            return column, frame[column].astype(str).reset_index(drop=True)
    return "row", pd.Series(range(len(frame)), dtype=object)


def _check(frame: pd.DataFrame, score: str, verdict: str, threshold: float) -> None:
    if missing := [c for c in (*REQUIRED, score, verdict) if c not in frame]:
        raise InputError(f"The frame lacks the columns {', '.join(missing)}; it has {', '.join(map(str, frame))}.")
    if not 0 < threshold <= 1:
        raise InputError(f"Invalid threshold {threshold!r}: give a number above 0, at most 1, such as 0.5.")


def _usable(frame: pd.DataFrame, score: str, verdict: str) -> tuple[pd.DataFrame, dict[str, int]]:
    failed = np.array([not isinstance(answer, str) for answer in frame["answer"]], dtype=bool)
    for column, mark in (("failed", "True"), ("judge_verdict", "failed")):
        if column in frame:
            failed |= np.array([str(value) == mark for value in frame[column]], dtype=bool)
    found = {"_judge": list(map(number, frame[score])), "_human": list(map(number, frame[verdict]))}
    why: list[str | None] = []
    for broken, (_, no_score), (_, no_verdict) in zip(failed, found["_judge"], found["_human"], strict=True):
        why.append("failed generation" if broken else f"{score} {no_score}" if no_score
                   else f"{verdict} {no_verdict}" if no_verdict else None)  # fmt: skip
    numbers = {name: [value for value, _ in pairs] for name, pairs in found.items()}
    kept = np.array([w is None for w in why], dtype=bool)
    used = frame.reset_index(drop=True).assign(**numbers)[kept].reset_index(drop=True)
    return used, dict(sorted(Counter(w for w in why if w).items()))


def _over_rows(used: pd.DataFrame, groups: pd.Series, threshold: float, names: tuple[str, str],
               settings: dict[str, Any]) -> tuple[dict[str, dict[str, Any]], int]:  # fmt: skip
    judge, human = used["_judge"].to_numpy(dtype=float), used["_human"].to_numpy(dtype=float)
    length = np.log(used["answer"].str.len().to_numpy(dtype=float) + 1)
    pairs = {"spearman": (spearman, judge, human), "kendall": (kendall, judge, human),
             "kappa": (kappa, judge >= threshold, human >= threshold),
             "length": (pearson, length, judge - human)}  # fmt: skip
    bounds, draws = intervals({name: lambda rows, p=p: p[0](p[1][rows], p[2][rows]) for name, p in pairs.items()},
                              groups, **settings)  # fmt: skip
    found = {}
    for name, (function, a, b) in pairs.items():
        found[name] = {"value": function(a, b), "low": bounds[name][0], "high": bounds[name][1]}
        if math.isnan(found[name]["value"]):
            why = ("The length", "The error") if name == "length" else names
            found[name]["reason"] = ONE_SIDE if name == "kappa" and len(a) else undefined(a, b, why)
    return found, draws


def _sides(judge: np.ndarray, human: np.ndarray) -> dict[str, Any]:
    return {"both": int((judge & human).sum()), "judge_only": int((judge & ~human).sum()),
            "verdict_only": int((~judge & human).sum()), "neither": int((~judge & ~human).sum()),
            "agreement": _average(judge == human)}  # fmt: skip


def _mean(values: Any, groups: pd.Series, settings: dict[str, Any], *, share: bool = False) -> dict[str, Any]:
    found = cluster_bootstrap(values, groups, share=share, **settings)
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def _average(values: Any) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _systems(used: pd.DataFrame, groups: pd.Series, settings: dict[str, Any],
             names: tuple[str, str]) -> list[dict[str, Any]]:  # fmt: skip
    lines = []
    for system, part in used.groupby("system", sort=False):
        judge, human = part["_judge"].to_numpy(), part["_human"].to_numpy()
        error = _mean(judge - human, groups[part.index], settings)
        lines.append({"system": str(system), "n": len(part), "judge": _average(judge), "verdict": _average(human),
                      "error": error["value"], "low": error["low"], "high": error["high"],
                      "spearman": spearman(judge, human), "reason": undefined(judge, human, names)})  # fmt: skip
    return lines


def _ranking(systems: list[dict[str, Any]]) -> dict[str, Any]:
    judge, human = (np.round([s[key] for s in systems], 9) for key in ("judge", "verdict"))
    names = [s["system"] for s in systems]
    pairs = [(i, k) for i in range(len(names)) for k in range(len(names)) if human[i] > human[k]]
    turned = [[names[i], names[k]] for i, k in pairs if judge[i] <= judge[k]]
    reason = undefined(judge, human, ("The judge's mean", "The verdicts' mean"))
    return {"judge": [names[i] for i in np.argsort(-judge, kind="stable")],
            "verdict": [names[i] for i in np.argsort(-human, kind="stable")],
            "same_order": not turned if pairs else None, "turned": turned, "kendall": kendall(judge, human),
            "reason": reason and reason.replace("row", "system")}  # fmt: skip


def _reliability(used: pd.DataFrame, groups: pd.Series, settings: dict[str, Any]) -> list[dict[str, Any]]:
    judge = used["_judge"].to_numpy(dtype=float)
    few = len(np.unique(judge)) <= BINS
    bins = np.unique(judge, return_inverse=True)[1] if few else np.minimum((judge * BINS).astype(int), BINS - 1)
    lines = []
    for code in np.unique(bins):
        inside = np.flatnonzero(bins == code)
        mean = _mean(used["_human"].to_numpy()[inside], groups[inside], settings, share=True)
        edges = (judge[inside[0]],) * 2 if few else (code / BINS, (code + 1) / BINS)
        lines.append({"from": float(edges[0]), "to": float(edges[1]), "n": len(inside),
                      "judge": _average(judge[inside]), "verdict": mean["value"], "low": mean["low"],
                      "high": mean["high"]})  # fmt: skip
    return lines


def _terciles(used: pd.DataFrame, groups: pd.Series, settings: dict[str, Any]) -> list[dict[str, Any]]:
    size = used["answer"].str.len().to_numpy(dtype=int)
    if not len(size):
        return []
    part, lines = np.searchsorted(np.quantile(size, [1 / 3, 2 / 3]), size, side="left"), []
    for code in np.unique(part):
        inside = np.flatnonzero(part == code)
        error = (used["_judge"] - used["_human"]).to_numpy()[inside]
        lines.append({"length": TERCILES[code], "from": int(size[inside].min()), "to": int(size[inside].max())}
                     | _mean(error, groups[inside], settings))  # fmt: skip
    return lines
