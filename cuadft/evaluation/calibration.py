"""Measure how far a judge's scores agree with verdicts, for any judge and any column of verdicts.

    report = calibration_report(frame, score="judge_score", verdict="human_score")
    print(calibration_markdown(report))

In this file a *score* is the number of the judge under test, and a *verdict* is what it is held against, for example a
human's; both run from 0 to 1. Nothing is fitted or tuned here: the threshold is the caller's, and the scores are taken
as they are. Intervals resample whole contracts.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cuadft.core.errors import InputError
from cuadft.evaluation.bootstrap import cluster_bootstrap

REQUIRED = ("system", "question", "answer")  # columns of the frame
BINS = 5  # of the reliability curve, of equal width; a judge with at most 5 different scores gets one bin for each
ONE_SIDE = "Both put every row on the same side of the threshold."
TERCILES = ("short", "middle", "long")  # answers by their length


MOST_ROWS_DRAWN = 1_000_000  # for all intervals together: a bound on their time (a few seconds)
FEWEST_DRAWS = 200  # however many rows there are
TRUE_FALSE = {"true": 1.0, "false": 0.0}


def calibration_report(
    frame: pd.DataFrame,
    *,
    score: str = "judge_score",
    verdict: str = "human_score",
    threshold: float = 0.5,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Return how far the column `score` agrees with the column `verdict`, as a dict that JSON can hold.

    frame: system, question, answer and the two columns; contract, failed and judge_verdict are used if they are there.
    The two columns may hold 0/1, true/false or numbers from 0 to 1; rows with other values, and failed generations, are
    left out and counted. A row counts as right from `threshold` on. Intervals resample whole contracts, or questions if
    there is one contract. A figure that the data do not give is NaN (null in a JSON file) with its `reason`. Keys: n,
    left_out, clusters, resamples, rows (spearman, kendall, kappa), sides, error (judge minus verdict), systems,
    system_error, ranking, reliability, calibration_error, length. Raises InputError on missing columns and settings
    out of range.
    """
    _check(frame, score, verdict, threshold)
    used, left_out = _usable(frame, score, verdict)
    by, groups = cluster_column(used)
    judge, human = used["_judge"].to_numpy(dtype=float), used["_human"].to_numpy(dtype=float)
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    error = _interval_of_mean(judge - human, groups, settings) | {"absolute": _mean(np.abs(judge - human))}
    rows, draws = _row_agreement(used, groups, threshold, (score, verdict), settings)
    systems = _system_means(used, groups, settings, (score, verdict))
    errors = [abs(s["error"]) for s in systems]
    reliability = _reliability_bins(used, groups, settings)
    gaps = [b["n"] * abs(b["judge"] - b["verdict"]) for b in reliability]
    return {
        "score": score,
        "verdict": verdict,
        "threshold": threshold,
        "confidence": confidence,
        "n": len(used),
        "left_out": left_out,
        "clusters": {"by": by, "n": int(groups.nunique())},
        "resamples": draws,
        "length": {"correlation": rows.pop("length"), "terciles": _terciles(used, groups, settings)},
        "rows": rows,
        "sides": _sides(judge >= threshold, human >= threshold),
        "error": error,
        "systems": systems,
        "system_error": {"mean": _mean(errors), "largest": max(errors, default=math.nan)},
        "ranking": _ranking(systems),
        "reliability": reliability,
        "calibration_error": sum(gaps) / len(used) if len(used) else math.nan,
    }


def _check(frame: pd.DataFrame, score: str, verdict: str, threshold: float) -> None:
    if missing := [c for c in (*REQUIRED, score, verdict) if c not in frame]:
        raise InputError(f"The frame lacks the columns {', '.join(missing)}; it has {', '.join(map(str, frame))}.")
    if not 0 < threshold <= 1:
        raise InputError(f"Invalid threshold {threshold!r}: give a number above 0, at most 1, such as 0.5.")


def _usable(frame: pd.DataFrame, score: str, verdict: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the comparable rows (score as `_judge`, verdict as `_human`), and how many others are left out and why."""
    failed = np.array([not isinstance(answer, str) for answer in frame["answer"]], dtype=bool)
    for column, mark in (("failed", "True"), ("judge_verdict", "failed")):
        if column in frame:
            failed |= np.array([str(value) == mark for value in frame[column]], dtype=bool)
    judge, human = list(map(as_number, frame[score])), list(map(as_number, frame[verdict]))
    reasons: list[str] = []
    for broken, (_, no_score), (_, no_verdict) in zip(failed, judge, human, strict=True):
        why = f"{score} {no_score}" if no_score else f"{verdict} {no_verdict}" if no_verdict else ""
        reasons.append("failed generation" if broken else why)
    numbers = {"_judge": [value for value, _ in judge], "_human": [value for value, _ in human]}
    kept = np.array([not why for why in reasons], dtype=bool)
    used = frame.reset_index(drop=True).assign(**numbers)[kept].reset_index(drop=True)
    return used, dict(sorted(Counter(filter(None, reasons)).items()))


def as_number(value: Any) -> tuple[float, str | None]:
    """Return a verdict as a number from 0 to 1, or NaN and why it is not one; takes 0/1, true/false, 0..1, and text."""
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


def cluster_column(frame: pd.DataFrame) -> tuple[str, pd.Series]:
    """Return what intervals resample and each row's value of it: contracts if there are several, questions, or rows."""
    for column in ("contract", "question"):
        if column in frame and frame[column].nunique() > 1 and frame[column].notna().all():
            return column, frame[column].astype(str).reset_index(drop=True)
    return "row", pd.Series(range(len(frame)), dtype=object)


def _row_agreement(
    used: pd.DataFrame, groups: pd.Series, threshold: float, names: tuple[str, str], settings: dict[str, Any]
) -> tuple[dict[str, dict[str, Any]], int]:
    judge, human = used["_judge"].to_numpy(dtype=float), used["_human"].to_numpy(dtype=float)
    length = np.log(used["answer"].str.len().to_numpy(dtype=float) + 1)
    pairs = {
        "spearman": (spearman, judge, human),
        "kendall": (kendall, judge, human),
        "kappa": (kappa, judge >= threshold, human >= threshold),
        "length": (pearson, length, judge - human),
    }
    bounds, draws = agreement_intervals(
        {name: lambda rows, p=p: p[0](p[1][rows], p[2][rows]) for name, p in pairs.items()}, groups, **settings
    )
    found = {}
    for name, (function, a, b) in pairs.items():
        found[name] = {"value": function(a, b), "low": bounds[name][0], "high": bounds[name][1]}
        if math.isnan(found[name]["value"]):
            why = ("The length", "The error") if name == "length" else names
            found[name]["reason"] = ONE_SIDE if name == "kappa" and len(a) else why_undefined(a, b, why)
    return found, draws


def _sides(judge: np.ndarray, human: np.ndarray) -> dict[str, Any]:
    return {
        "both": int((judge & human).sum()),
        "judge_only": int((judge & ~human).sum()),
        "verdict_only": int((~judge & human).sum()),
        "neither": int((~judge & ~human).sum()),
        "agreement": _mean(judge == human),
    }


def _interval_of_mean(
    values: Any, groups: pd.Series, settings: dict[str, Any], *, share: bool = False
) -> dict[str, Any]:
    found = cluster_bootstrap(values, groups, share=share, **settings)
    return {"value": found.value, "low": found.low, "high": found.high, "n": found.n}


def _mean(values: Any) -> float:
    return float(np.mean(values)) if len(values) else math.nan


def _system_means(
    used: pd.DataFrame, groups: pd.Series, settings: dict[str, Any], names: tuple[str, str]
) -> list[dict[str, Any]]:
    lines = []
    for system, part in used.groupby("system", sort=False):
        judge, human = part["_judge"].to_numpy(), part["_human"].to_numpy()
        error = _interval_of_mean(judge - human, groups[part.index], settings)
        lines.append(
            {
                "system": str(system),
                "n": len(part),
                "judge": _mean(judge),
                "verdict": _mean(human),
                "error": error["value"],
                "low": error["low"],
                "high": error["high"],
                "spearman": spearman(judge, human),
                "reason": why_undefined(judge, human, names),
            }
        )
    return lines


def _ranking(systems: list[dict[str, Any]]) -> dict[str, Any]:
    judge, human = (np.round([s[key] for s in systems], 9) for key in ("judge", "verdict"))
    names = [s["system"] for s in systems]
    pairs = [(i, k) for i in range(len(names)) for k in range(len(names)) if human[i] > human[k]]
    turned = [[names[i], names[k]] for i, k in pairs if judge[i] <= judge[k]]
    reason = why_undefined(judge, human, ("The judge's mean", "The verdicts' mean"))
    return {
        "judge": [names[i] for i in np.argsort(-judge, kind="stable")],
        "verdict": [names[i] for i in np.argsort(-human, kind="stable")],
        "same_order": not turned if pairs else None,
        "turned": turned,
        "kendall": kendall(judge, human),
        "reason": reason and reason.replace("row", "system"),
    }


def _reliability_bins(used: pd.DataFrame, groups: pd.Series, settings: dict[str, Any]) -> list[dict[str, Any]]:
    judge = used["_judge"].to_numpy(dtype=float)
    few = len(np.unique(judge)) <= BINS
    bins = np.unique(judge, return_inverse=True)[1] if few else np.minimum((judge * BINS).astype(int), BINS - 1)
    lines = []
    for code in np.unique(bins):
        inside = np.flatnonzero(bins == code)
        mean = _interval_of_mean(used["_human"].to_numpy()[inside], groups[inside], settings, share=True)
        edges = (judge[inside[0]],) * 2 if few else (code / BINS, (code + 1) / BINS)
        lines.append(
            {"from": float(edges[0]), "to": float(edges[1]), "n": len(inside), "judge": _mean(judge[inside])}
            | {"verdict": mean["value"], "low": mean["low"], "high": mean["high"]}
        )
    return lines


def _terciles(used: pd.DataFrame, groups: pd.Series, settings: dict[str, Any]) -> list[dict[str, Any]]:
    size = used["answer"].str.len().to_numpy(dtype=int)
    if not len(size):
        return []
    part, lines = np.searchsorted(np.quantile(size, [1 / 3, 2 / 3]), size, side="left"), []
    for code in np.unique(part):
        inside = np.flatnonzero(part == code)
        error = (used["_judge"] - used["_human"]).to_numpy()[inside]
        lines.append(
            {"length": TERCILES[code], "from": int(size[inside].min()), "to": int(size[inside].max())}
            | _interval_of_mean(error, groups[inside], settings)
        )
    return lines


AGREEMENT_MEASURES = {
    "spearman": "Spearman's rank correlation over rows",
    "kendall": "Kendall's tau-b over rows",
    "kappa": "Cohen's kappa: agreement on right and wrong beyond chance",
}


def calibration_markdown(report: Mapping[str, Any]) -> str:
    """Return a report of `calibration_report` as Markdown: what was compared, the figures, and how to read them."""
    parts = [_opening_text(report)]
    if report["n"]:
        parts += [_rows_text(report), _systems_text(report), _reliability_text(report), _length_text(report)]
    return "\n\n".join(parts) + "\n"


def _opening_text(report: Mapping[str, Any]) -> str:
    groups = report["clusters"]
    left = ", ".join(f"{n} {why}" for why, n in report["left_out"].items())
    return (
        f"## How far `{report['score']}` agrees with `{report['verdict']}`\n\n"
        f"Compared: {report['n']} answers of {len(report['systems'])} systems. "
        f"Left out: {sum(report['left_out'].values())}{f' ({left})' if left else ''}. "
        f"In brackets: {report['confidence']:.0%} intervals from resampling the {groups['n']} {groups['by']}s. "
        f"A row counts as right from a score of {report['threshold']:g}. Nothing was fitted for this report; a "
        "judge that was fitted to these very verdicts looks better here than it is."
    )


def _rows_text(report: Mapping[str, Any]) -> str:
    sides, error = report["sides"], report["error"]
    lines = [(label, _figure(report["rows"][name])) for name, label in AGREEMENT_MEASURES.items()]
    split = (
        f"{sides['both']} both right, {sides['neither']} both wrong, {sides['judge_only']} right for the judge only, "
        f"{sides['verdict_only']} for the verdict only"
    )
    mean, largest = (_number(report["system_error"][name]) for name in ("mean", "largest"))
    lines += [
        ("Rows on the same side of the threshold", f"{_share(sides['agreement'])} ({split})"),
        ("Mean error, judge minus verdict", _figure(error, signed=True)),
        ("Mean absolute error of a row", _number(error["absolute"])),
        ("Mean absolute error of a system's mean", f"{mean}, largest {largest}"),
    ]
    return markdown_table(("Measure", "Value"), lines)


def _systems_text(report: Mapping[str, Any]) -> str:
    lines = []
    for s in report["systems"]:
        error = _figure({"value": s["error"], "low": s["low"], "high": s["high"]}, signed=True)
        rank = _figure({"value": s["spearman"], "reason": s["reason"]})
        lines.append((s["system"], s["n"], _number(s["judge"]), _number(s["verdict"]), error, rank))
    found = report["ranking"]
    order = f"Best first by the judge: {', '.join(found['judge'])}; by the verdicts: {', '.join(found['verdict'])}. "
    if found["same_order"] is None:
        order += f"No order to compare: {found['reason'] or 'the verdicts rank no system.'}"
    elif found["same_order"]:
        order += "The judge keeps the order of the verdicts."
    else:
        pairs = ", ".join(f"{better} above {worse}" for better, worse in found["turned"])
        order += (
            f"The judge does not confirm this order of the verdicts: {pairs} (Kendall {_number(found['kendall'])})."
        )
    head = ("System", "n", "Judge", "Verdict", "Error", "Spearman")
    return "### Systems\n\n" + markdown_table(head, lines) + "\n\n" + escaped(order)


def _reliability_text(report: Mapping[str, Any]) -> str:
    lines = [
        (_range(b["from"], b["to"], "{:.2g}"), b["n"], _number(b["judge"]), _figure(b | {"value": b["verdict"]}))
        for b in report["reliability"]
    ]
    table = markdown_table(("Judge score", "n", "Mean score", "Mean verdict"), lines)
    return (
        f"### Reliability\n\n{table}\n\nA calibrated judge has the same mean in both columns. Mean distance, "
        f"weighted by n: {_number(report['calibration_error'])}."
    )


def _length_text(report: Mapping[str, Any]) -> str:
    found = report["length"]
    lines = [
        (f"{t['length']} ({_range(t['from'], t['to'], '{:,}')} characters)", t["n"], _figure(t, signed=True))
        for t in found["terciles"]
    ]
    table = markdown_table(("Answers", "n", "Mean error"), lines)
    return (
        f"### Length of the answer\n\n{table}\n\nCorrelation of the error with the logarithm of the length: "
        f"{_figure(found['correlation'], signed=True)}. Above zero, the judge favours long answers more than the "
        "verdicts do."
    )


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    cells = [[escaped(str(cell)) for cell in line] for line in (head, ["---"] * len(head), *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def escaped(text: str) -> str:
    """Return a text as one line in which Markdown finds no table, link, emphasis, formula or HTML."""
    return re.sub(r"[\\`*<|$]|\](?=\()", r"\\\g<0>", " ".join(text.split()))


def _figure(found: Mapping[str, Any], *, signed: bool = False) -> str:
    if math.isnan(found["value"]):
        return f"– ({found.get('reason') or 'not defined'})"
    low, high = found.get("low", math.nan), found.get("high", math.nan)
    bounds = "" if math.isnan(low) else f" [{_number(low, signed)}, {_number(high, signed)}]"
    return _number(found["value"], signed) + bounds


def _number(value: float, signed: bool = False) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:{'+' if signed else ''}.3f}".replace("-", "−")


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0%}"


def _range(low: float, high: float, form: str) -> str:
    return form.format(low) if low == high else f"{form.format(low)} to {form.format(high)}"


def agreement_intervals(
    statistics: Mapping[str, Callable[[np.ndarray], float]],
    groups: pd.Series,
    *,
    n_resamples: int,
    seed: int,
    confidence: float,
) -> tuple[dict[str, tuple[float, float]], int]:
    """Return each statistic's percentile bounds from one set of draws of whole groups, and the number of draws.

    statistics: name -> function of the row numbers drawn; a draw on which it is NaN is left out of its bounds. Very
    many rows get fewer draws than n_resamples (see `MOST_ROWS_DRAWN`). Fewer than two groups: NaN bounds.
    """
    codes, names = pd.factorize(groups)
    members = _members(codes)
    draws = max(1, min(n_resamples, max(FEWEST_DRAWS, MOST_ROWS_DRAWN // max(1, len(codes)))))
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


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation, -1 to 1; NaN if either column is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(a), rankdata(b))


def kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Return Kendall's tau-b, which allows for ties, -1 to 1; NaN if either column is constant (Kendall 1945)."""
    from scipy.stats import kendalltau

    return math.nan if why_undefined(a, b) else float(kendalltau(a, b).statistic)


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation, -1 to 1; NaN if either column is constant."""
    if why_undefined(a, b):
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


def why_undefined(a: np.ndarray, b: np.ndarray, names: tuple[str, str] = ("a", "b")) -> str | None:
    """Say why two columns have no correlation (no rows, one row, a constant column); None if they have one."""
    if len(a) < 2:
        return f"{len(a)} row{'' if len(a) == 1 else 's'}: a correlation needs two or more."
    for name, column in zip(names, (a, b), strict=True):
        if np.ptp(column) == 0:
            return f"{name} is the same everywhere ({column[0]:.3g})."
    return None
