"""Measure how far a judge's scores agree with verdicts, for any judge and any column of verdicts.

    report = calibration_report(frame, score="judge_score", verdict="human_score")
    print(calibration_markdown(report))

In this file a *score* is the number of the judge under test, and a *verdict* is what it is held against, for example a
human's; both run from 0 to 1. Nothing is fitted or tuned here: the scores are taken as they are. Intervals resample
whole contracts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cuadft.core.errors import InputError
from cuadft.evaluation.bootstrap import check_resampling, cluster_bootstrap

Array = np.ndarray
CORRELATED = ["score", "verdict", "error", "length"]  # columns of the comparable rows
RIGHT_FROM = 0.5  # the lowest score and verdict of a right answer
MOST_ROWS_DRAWN = 1_000_000  # for all intervals together: a bound on their time (a few seconds)
FEWEST_DRAWS = 200  # however many rows there are
AGREEMENT_MEASURES = {  # key of the report -> what a reader is told
    "spearman": "Spearman's rank correlation over rows",
    "kappa": "Cohen's kappa: agreement on right and wrong beyond chance",
    "agreement": "Share of rows that both call right, or both wrong",
    "error": "Mean error, score minus verdict",
    "absolute_error": "Mean absolute error of a row",
    "length": "Correlation of error and log length: above 0, long answers are favoured",
}


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

    frame: system, question, answer and the two columns of numbers from 0 to 1; contract, failed and judge_verdict are
    used if they are there. Rows without one of the numbers, and failed generations, are left out and counted. A row
    counts as right from `RIGHT_FROM` on. Intervals resample whole contracts, or questions if there is one contract. A
    figure that the data do not give (too few rows, a constant column) is NaN, null in a JSON file. Keys: score,
    verdict, confidence, n, left_out, clusters, resamples, measures (value, low and high of each of
    `AGREEMENT_MEASURES`) and systems (mean score, mean verdict and error of each). Raises InputError on missing columns
    and settings out of range.
    """
    if missing := [c for c in ("system", "question", "answer", score, verdict) if c not in frame]:
        raise InputError(f"The frame lacks the columns {', '.join(missing)}; it has {', '.join(map(str, frame))}.")
    check_resampling(n_resamples, confidence)
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    used, left_out = _usable(frame, score, verdict)
    by, groups = cluster_column(used)
    used = used.assign(group=groups, error=used["score"] - used["verdict"], length=np.log(used["answer"].str.len() + 1))
    measures, draws = _measures(used, settings)
    systems = [
        {"system": str(name), "n": len(part), "score": part["score"].mean(), "verdict": part["verdict"].mean()}
        | _mean_interval(part["error"], part["group"], settings)
        for name, part in used.groupby("system", sort=False)
    ]
    return {
        "score": score,
        "verdict": verdict,
        "confidence": confidence,
        "n": len(used),
        "left_out": left_out,
        "clusters": {"by": by, "n": int(groups.nunique())},
        "resamples": draws,
        "measures": measures,
        "systems": systems,
    }


def _usable(frame: pd.DataFrame, score: str, verdict: str) -> tuple[pd.DataFrame, dict[str, int]]:
    """Return the comparable rows with their columns score and verdict, and how many others are left out and why."""
    failed = frame["answer"].map(lambda answer: not isinstance(answer, str)).astype(bool)
    failed |= frame.get("failed", pd.Series(False, frame.index)).astype(bool)
    failed |= frame.get("judge_verdict", pd.Series("", frame.index)).eq("failed")
    used = frame.assign(score=frame[score].astype(float), verdict=frame[verdict].astype(float))
    cases = {"failed generation": failed, f"{score} missing": used["score"].isna()}
    cases[f"{verdict} missing"] = used["verdict"].isna()
    why = pd.Series(np.select(list(cases.values()), list(cases), ""), frame.index, dtype=object)
    return used[why == ""].reset_index(drop=True), why[why != ""].value_counts().sort_index().to_dict()


def cluster_column(frame: pd.DataFrame) -> tuple[str, pd.Series]:
    """Return what intervals resample and each row's value of it: contracts if there are several, questions, or rows."""
    for column in ("contract", "question"):
        if column in frame and frame[column].nunique() > 1 and frame[column].notna().all():
            return column, frame[column].astype(str).reset_index(drop=True)
    return "row", pd.Series(range(len(frame)), dtype=object)


def _measures(used: pd.DataFrame, settings: dict[str, Any]) -> tuple[dict[str, dict[str, float]], int]:
    """Return value, low and high of each of `AGREEMENT_MEASURES`, and from how many draws the correlations' come."""
    right = used[["score", "verdict"]] >= RIGHT_FROM
    means = {
        "agreement": right["score"] == right["verdict"],
        "error": used["error"],
        "absolute_error": used["error"].abs(),
    }
    found = {name: _mean_interval(values, used["group"], settings) for name, values in means.items()}
    bounds, draws = agreement_intervals(used, **settings)
    for name, value in _correlations(*used[CORRELATED].to_numpy(float).T).items():
        found[name] = {"value": value, "low": bounds[name].iloc[0], "high": bounds[name].iloc[1]}
    return {name: found[name] for name in AGREEMENT_MEASURES}, draws


def _correlations(score: Array, verdict: Array, error: Array, length: Array) -> dict[str, float]:
    """Return Spearman's correlation, Cohen's kappa and that of error and length; NaN where a column is constant."""
    from scipy.stats import rankdata

    return {
        "spearman": pearson(rankdata(score), rankdata(verdict)),
        "kappa": kappa(score >= RIGHT_FROM, verdict >= RIGHT_FROM),
        "length": pearson(length, error),
    }


def _mean_interval(values: Sequence[float], groups: Sequence[str], settings: dict[str, Any]) -> dict[str, float]:
    found = cluster_bootstrap(values, groups, **settings)
    return {"value": found.value, "low": found.low, "high": found.high}


def calibration_markdown(report: Mapping[str, Any]) -> str:
    """Return a report of `calibration_report` as Markdown: what was compared, the figures, and how to read them."""
    left = ", ".join(f"{n} {why}" for why, n in report["left_out"].items()) or "none"
    measures = [(label, _figure(report["measures"][name])) for name, label in AGREEMENT_MEASURES.items()]
    systems = [(s["system"], s["n"], f"{s['score']:.3f}", f"{s['verdict']:.3f}", _figure(s)) for s in report["systems"]]
    parts = [
        f"## How far `{report['score']}` agrees with `{report['verdict']}`",
        f"Compared: {report['n']} answers of {len(systems)} systems. Left out: {left}. In brackets: "
        f"{report['confidence']:.0%} intervals over {report['clusters']['n']} {report['clusters']['by']}s. "
        f"A row counts as right from a score of {RIGHT_FROM:g}. Nothing was fitted for this report; a "
        "judge that was fitted to these very verdicts looks better here than it is.",
        markdown_table(("Measure", "Value"), measures),
        "The value is – where the rows are too few, or all scores or all verdicts the same.",
        "### Systems",
        markdown_table(("System", "n", "Score", "Verdict", "Error"), systems),
    ]
    return "\n\n".join(parts) + "\n"


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    cells = [[escaped(str(cell)) for cell in line] for line in (head, ["---"] * len(head), *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def escaped(text: str) -> str:
    """Return a text as one line in which Markdown finds no table, link, emphasis, formula or HTML."""
    return re.sub(r"[\\`*<|$]|\](?=\()", r"\\\g<0>", " ".join(text.split()))


def _figure(found: Mapping[str, float]) -> str:
    """Return a value with its bounds, such as "0.012 [-0.030, 0.054]"; an unknown one is "–"."""
    if math.isnan(found["value"]):
        return "–"
    bounds = "" if math.isnan(found["low"]) else f" [{found['low']:.3f}, {found['high']:.3f}]"
    return f"{found['value']:.3f}{bounds}"


def agreement_intervals(
    rows: pd.DataFrame, *, n_resamples: int, seed: int, confidence: float
) -> tuple[pd.DataFrame, int]:
    """Return percentile bounds of the correlations from draws of whole groups, and the number of draws.

    rows: columns score, verdict, error, length and group. A draw on which a correlation is NaN is left out of its
    bounds. Very many rows get fewer draws than n_resamples (see `MOST_ROWS_DRAWN`). Fewer than two groups: NaN bounds.
    """
    members = list(rows.reset_index(drop=True).groupby("group", sort=False).indices.values())
    draws = max(1, min(n_resamples, max(FEWEST_DRAWS, MOST_ROWS_DRAWN // max(1, len(rows)))))
    rng, found, columns = np.random.default_rng(seed), [], rows[CORRELATED].to_numpy(float).T
    for _ in range(draws if len(members) > 1 else 0):
        drawn = np.concatenate([members[g] for g in rng.integers(len(members), size=len(members))])
        found.append(_correlations(*columns[:, drawn]))
    table = pd.DataFrame(found, columns=list(AGREEMENT_MEASURES), dtype=float)
    return table.quantile([(1 - confidence) / 2, (1 + confidence) / 2]), draws


def pearson(a: Array, b: Array) -> float:
    """Return Pearson's correlation, -1 to 1; NaN if there are fewer than two rows, or either column is constant."""
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])


def kappa(a: Array, b: Array) -> float:
    """Return Cohen's kappa of two boolean columns, at most 1; NaN if both are the same constant (Cohen 1960)."""
    if not len(a):
        return math.nan
    chance = a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean())
    return float(((a == b).mean() - chance) / (1 - chance)) if chance < 1 else math.nan
