"""Measure how far a judge's scores agree with verdicts, for any judge and any column of verdicts.

    report = calibration_report(frame, score="judge_score", verdict="human_score")
    print(calibration_markdown(report))

In this file a *score* is the number of the judge under test, and a *verdict* is what it is held against, for example a
human's; both run from 0 to 1. Nothing is fitted or tuned here: the scores are taken as they are. Intervals resample
whole contracts.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cuadft.core.errors import InputError
from cuadft.evaluation.bootstrap import check_resampling, cluster_bootstrap

REQUIRED = ("system", "question", "answer")  # columns of the frame
RIGHT_FROM = 0.5  # the lowest score and verdict of a right answer
BINS = 5  # of the reliability curve, of equal width; a judge with at most 5 different scores gets one bin for each
ONE_SIDE = "Both put every row on the same side of the threshold."
MOST_ROWS_DRAWN = 1_000_000  # for all intervals together: a bound on their time (a few seconds)
FEWEST_DRAWS = 200  # however many rows there are
TRUE_FALSE = {"true": 1.0, "false": 0.0}


def calibration_report(
    frame: pd.DataFrame,
    *,
    score: str = "judge_score",
    verdict: str = "human_score",
    n_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Return how far the column `score` agrees with the column `verdict`, as a dict that JSON can hold.

    frame: system, question, answer and the two columns; contract, failed and judge_verdict are used if they are there.
    The two columns may hold 0/1, true/false or numbers from 0 to 1; rows with other values, and failed generations, are
    left out and counted. A row counts as right from `RIGHT_FROM` on. Intervals resample whole contracts, or questions
    if there is one contract. A figure that the data do not give is NaN (null in a JSON file), in rows with its
    `reason`. Keys: n, left_out, clusters, resamples, rows (spearman, kappa, length), sides, error (judge minus
    verdict), systems, system_error, turned, reliability, calibration_error. Raises InputError on missing columns and
    settings out of range.
    """
    if missing := [c for c in (*REQUIRED, score, verdict) if c not in frame]:
        raise InputError(f"The frame lacks the columns {', '.join(missing)}; it has {', '.join(map(str, frame))}.")
    check_resampling(n_resamples, confidence)
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    used, left_out = _usable(frame, score, verdict)
    by, groups = cluster_column(used)
    used = used.assign(_group=groups, _error=used["_judge"] - used["_human"])
    rows, draws = _row_agreement(used, (score, verdict), settings)
    systems, reliability = _system_means(used, settings), _reliability_bins(used, settings)
    errors = [abs(s["error"]) for s in systems]
    gaps = [b["n"] * abs(b["judge"] - b["verdict"]) for b in reliability]
    return {
        "score": score,
        "verdict": verdict,
        "confidence": confidence,
        "n": len(used),
        "left_out": left_out,
        "clusters": {"by": by, "n": int(groups.nunique())},
        "resamples": draws,
        "rows": rows,
        "sides": _sides(used["_judge"] >= RIGHT_FROM, used["_human"] >= RIGHT_FROM),
        "error": _mean_interval(used, "_error", settings) | {"absolute": _mean(used["_error"].abs())},
        "systems": systems,
        "system_error": {"mean": _mean(errors), "largest": max(errors, default=math.nan)},
        "turned": _turned_pairs(systems),
        "reliability": reliability,
        "calibration_error": sum(gaps) / len(used) if len(used) else math.nan,
    }


def _usable(frame: pd.DataFrame, score: str, verdict: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the comparable rows (score as `_judge`, verdict as `_human`), and how many others are left out and why."""
    failed = ~frame["answer"].map(lambda answer: isinstance(answer, str)).to_numpy(dtype=bool)
    for column, mark in (("failed", "True"), ("judge_verdict", "failed")):
        if column in frame:
            failed |= (frame[column].astype(object).map(str) == mark).to_numpy()
    columns = {name: [_as_number(value) for value in frame[name]] for name in (score, verdict)}
    reasons = [
        "failed generation" if broken else next((f"{name} {why}" for name, (_, why) in zip(columns, row) if why), "")
        for broken, *row in zip(failed, *columns.values(), strict=True)
    ]
    judge, human = ([value for value, _ in column] for column in columns.values())
    kept = np.array([not why for why in reasons], dtype=bool)
    used = frame.assign(_judge=judge, _human=human)[kept].reset_index(drop=True)
    return used.astype({"_judge": float, "_human": float}), dict(sorted(Counter(filter(None, reasons)).items()))


def _as_number(value: Any) -> tuple[float, str]:
    """Return a verdict as a number from 0 to 1, or NaN and why it is not one; takes 0/1, true/false, 0..1, and text."""
    text = str(value).strip().lower()
    if text in ("", "nan", "none", "<na>"):
        return math.nan, "missing"
    try:
        found = TRUE_FALSE[text] if text in TRUE_FALSE else float(text)
    except ValueError:
        return math.nan, "no number"
    return (found, "") if 0 <= found <= 1 else (math.nan, "outside 0 to 1")


def cluster_column(frame: pd.DataFrame) -> tuple[str, pd.Series]:
    """Return what intervals resample and each row's value of it: contracts if there are several, questions, or rows."""
    for column in ("contract", "question"):
        if column in frame and frame[column].nunique() > 1 and frame[column].notna().all():
            return column, frame[column].astype(str).reset_index(drop=True)
    return "row", pd.Series(range(len(frame)), dtype=object)


def _row_agreement(
    used: pd.DataFrame, names: tuple[str, str], settings: dict[str, Any]
) -> tuple[dict[str, dict[str, Any]], int]:
    judge, human = used["_judge"].to_numpy(dtype=float), used["_human"].to_numpy(dtype=float)
    length = np.log(used["answer"].str.len().to_numpy(dtype=float) + 1)
    pairs = {
        "spearman": (spearman, judge, human),
        "kappa": (kappa, judge >= RIGHT_FROM, human >= RIGHT_FROM),
        "length": (pearson, length, judge - human),
    }
    statistics = {name: lambda rows, p=p: p[0](p[1][rows], p[2][rows]) for name, p in pairs.items()}
    bounds, draws = agreement_intervals(statistics, used["_group"], **settings)
    found = {}
    for name, (function, a, b) in pairs.items():
        found[name] = dict(zip(("value", "low", "high"), (function(a, b), *bounds[name]), strict=True))
        if math.isnan(found[name]["value"]):
            why = ("The length", "The error") if name == "length" else names
            found[name]["reason"] = ONE_SIDE if name == "kappa" and len(a) else why_undefined(a, b, why)
    return found, draws


def _sides(judge: pd.Series, human: pd.Series) -> dict[str, Any]:
    counts = np.bincount(2 * human.astype(int) + judge, minlength=4).tolist()
    names = ("neither", "judge_only", "verdict_only", "both")
    return dict(zip(names, counts, strict=True)) | {"agreement": _mean(judge == human)}


def _mean_interval(
    rows: pd.DataFrame, column: str, settings: dict[str, Any], name: str = "value", *, share: bool = False
) -> dict[str, Any]:
    found = cluster_bootstrap(rows[column], rows["_group"], share=share, **settings)
    return {name: found.value, "low": found.low, "high": found.high, "n": found.n}


def _mean(values: Any) -> float:
    return float(np.mean(np.asarray(values))) if len(values) else math.nan


def _system_means(used: pd.DataFrame, settings: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"system": str(system), "judge": _mean(part["_judge"]), "verdict": _mean(part["_human"])}
        | _mean_interval(part, "_error", settings, "error")
        for system, part in used.groupby("system", sort=False)
    ]


def _turned_pairs(systems: list[dict[str, Any]]) -> list[list[str]]:
    """Return each two systems, better and worse by the verdicts, whose order the judge does not confirm."""
    means = [(s["system"], round(s["judge"], 9), round(s["verdict"], 9)) for s in systems]
    pairs = itertools.permutations(means, 2)
    return [[better[0], worse[0]] for better, worse in pairs if better[2] > worse[2] and better[1] <= worse[1]]


def _reliability_bins(used: pd.DataFrame, settings: dict[str, Any]) -> list[dict[str, Any]]:
    judge = used["_judge"].to_numpy()
    few = len(np.unique(judge)) <= BINS
    bins = judge if few else np.minimum((judge * BINS).astype(int), BINS - 1)
    return [
        {"from": float(code if few else code / BINS), "to": float(code if few else (code + 1) / BINS)}
        | {"judge": _mean(part["_judge"])}
        | _mean_interval(part, "_human", settings, "verdict", share=True)
        for code, part in used.groupby(bins)
    ]


AGREEMENT_MEASURES = {
    "spearman": "Spearman's rank correlation over rows",
    "kappa": "Cohen's kappa: agreement on right and wrong beyond chance",
    "length": "Correlation of error and log length: above 0, long answers are favoured",
}


def calibration_markdown(report: Mapping[str, Any]) -> str:
    """Return a report of `calibration_report` as Markdown: what was compared, the figures, and how to read them."""
    left = ", ".join(f"{n} {why}" for why, n in report["left_out"].items())
    parts = [
        f"## How far `{report['score']}` agrees with `{report['verdict']}`",
        f"Compared: {report['n']} answers of {len(report['systems'])} systems. "
        f"Left out: {sum(report['left_out'].values())}{f' ({left})' if left else ''}. In brackets: "
        f"{report['confidence']:.0%} intervals over {report['clusters']['n']} {report['clusters']['by']}s. "
        f"A row counts as right from a score of {RIGHT_FROM:g}. Nothing was fitted for this report; a "
        "judge that was fitted to these very verdicts looks better here than it is.",
    ]
    if report["n"]:
        parts += [_rows_table(report), _systems_text(report["systems"], report["turned"])]
        bins = [
            (_range(b["from"], b["to"]), b["n"], _number(b["judge"]), _figure(b | {"value": b["verdict"]}))
            for b in report["reliability"]
        ]
        parts += ["### Reliability", markdown_table(("Judge score", "n", "Mean score", "Mean verdict"), bins)]
    return "\n\n".join(parts) + "\n"


def _rows_table(report: Mapping[str, Any]) -> str:
    sides, error, of_systems = report["sides"], report["error"], report["system_error"]
    lines = [(label, _figure(report["rows"][name])) for name, label in AGREEMENT_MEASURES.items()]
    split = (
        f"{sides['both']} both right, {sides['neither']} both wrong, {sides['judge_only']} right for the judge only, "
        f"{sides['verdict_only']} for the verdict only"
    )
    lines += [
        ("Rows on the same side of the threshold", f"{sides['agreement']:.0%} ({split})"),
        ("Mean error, judge minus verdict", _figure(error, signed=True)),
        ("Mean absolute error of a row", _number(error["absolute"])),
        (
            "Mean absolute error of a system's mean",
            f"{_number(of_systems['mean'])}, largest {_number(of_systems['largest'])}",
        ),
        ("Distance of mean score and mean verdict over the bins below", _number(report["calibration_error"])),
    ]
    return markdown_table(("Measure", "Value"), lines)


def _systems_text(systems: Sequence[Mapping[str, Any]], turned: Sequence[Sequence[str]]) -> str:
    lines = [
        (s["system"], s["n"], _number(s["judge"]), _number(s["verdict"]), _figure(s | {"value": s["error"]}, True))
        for s in systems
    ]
    pairs = ", ".join(f"{better} above {worse}" for better, worse in turned) or "none"
    table = markdown_table(("System", "n", "Judge", "Verdict", "Error"), lines)
    return f"### Systems\n\n{table}\n\nOrders of the verdicts that the judge turns: {escaped(pairs)}."


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    cells = [[escaped(str(cell)) for cell in line] for line in (head, ["---"] * len(head), *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def escaped(text: str) -> str:
    """Return a text as one line in which Markdown finds no table, link, emphasis, formula or HTML."""
    return re.sub(r"[\\`*<|$]|\](?=\()", r"\\\g<0>", " ".join(text.split()))


def _figure(found: Mapping[str, Any], signed: bool = False) -> str:
    if math.isnan(found["value"]):
        return f"– ({found.get('reason') or 'not defined'})"
    low, high = found.get("low", math.nan), found.get("high", math.nan)
    bounds = "" if math.isnan(low) else f" [{_number(low, signed)}, {_number(high, signed)}]"
    return _number(found["value"], signed) + bounds


def _number(value: float, signed: bool = False) -> str:
    return "–" if math.isnan(value) else f"{value:{'+' if signed else ''}.3f}".replace("-", "−")


def _range(low: float, high: float) -> str:
    return " to ".join(dict.fromkeys(f"{end:.2g}" for end in (low, high)))


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
    order = np.argsort(codes, kind="stable")
    members = np.split(order, np.flatnonzero(np.diff(codes[order])) + 1)
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


def _bounds(values: np.ndarray, tail: float) -> tuple[float, float]:
    low, high = np.quantile(values, [tail, 1 - tail]) if len(values) else (math.nan, math.nan)
    return float(low), float(high)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation, -1 to 1; NaN if either column is constant."""
    from scipy.stats import rankdata

    return pearson(rankdata(a), rankdata(b))


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
