"""The criteria of the gate: what a candidate must show before it replaces the champion, and the tests of it.

    rule = GateRule(metric="quote_f1", gain=0.01)  # fixed before the run
    improvement = improvement_criteria(champion, {"sft": candidate}, rule, confidence=0.95, n_resamples=2000, seed=7)
    improvement["sft"]["passed"]  # True: the candidate is shown to be better by more than 0.01

Each criterion tests one candidate on the same questions, most of them against the champion, one ("constants") against
the systems that need no model, and the ceilings alone. Its record, as decision.json holds it, is
{"clause", "passed", "limit", "value", "low", "high", "n", "n_contracts", "p", "detail"}. The key "clause", kept for
files of older versions, holds the criterion's name. `passed` is None where there is nothing to test; the detail says
why. A limit that cannot be shown to hold because data are missing counts as failed.
The frames hold one row per question and system: id, contract, part ("dev" or the number of an earlier slice), the
metric, and what the ceilings need. A row's weight, the number of questions that it stands for, counts throughout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from cuadft.core.errors import InputError
from cuadft.core.params import did_you_mean
from cuadft.core.runs import CONSTANTS
from cuadft.evaluation.answer_files import count_of
from cuadft.evaluation.bootstrap import Interval, cluster_bootstrap
from cuadft.evaluation.compare import Delta, holm, paired_delta
from cuadft.evaluation.metrics import JUDGED, METRICS, WEIGHT_COLUMNS, metric_weights

DEV = "dev"
BY_INTERVAL = {  # ceilings that the upper end of the interval must keep -> the column, and whether a clause exists
    "false_answers": ("false_answer", False),
    "false_refusals": ("false_refusal", True),
}
CRITERIA = ("improvement", "constants", "slices", "categories", *BY_INTERVAL, "failures", "prompt_tokens", "seconds")
ENOUGH_CONTRACTS = 5  # contracts with which a category is tested; fewer say too little
SHARES = (*BY_INTERVAL, "failures")  # limits of which 1 is no limit; of the others 0 is none
COUNTS_CLAUSES = {"has_clause"}  # columns by which a system without any answer scores 0, if a clause exists
Criterion = dict[str, Any]


@dataclass(frozen=True)
class GateRule:
    """Hold the limits of the criteria.

    metric: what must improve. gain: by how much, on dev. slice_margin: a loss of this size must be ruled out on every
    earlier slice. category_margin: a loss greater than this may be shown in no category. false_answers: a greater share
    of answers where there is no clause must be ruled out. false_refusals: the same of refusals where there is one.
    failures: the greatest share; 1 sets no ceiling on these three. prompt_tokens, seconds: the greatest means per
    question; 0 sets no ceiling. Raises InputError on an unknown metric, a metric where less is better, or a limit out
    of range.
    """

    metric: str = "quote_f1"
    gain: float = 0.0
    slice_margin: float = 0.1
    category_margin: float = 0.1
    false_answers: float = 0.5
    false_refusals: float = 0.75
    failures: float = 0.05
    prompt_tokens: float = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        good = [name for name, (_, more_is_better) in METRICS.items() if more_is_better]
        if self.metric not in good:
            hint = did_you_mean(self.metric, good)
            raise InputError(f"Invalid gate_metric {self.metric!r}{hint}: choose one of {', '.join(good)}.")
        for name, value in list(asdict(self).items())[1:]:
            most = math.inf if name in ("prompt_tokens", "seconds") else 1
            if not 0 <= value <= most:
                raise InputError(f"Invalid gate_{name} {value!r}: give a number from 0 to {most:g}.")

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> GateRule:
        """Return the rule that a notebook's parameters set: gate_metric, gate_gain and so on.

        Raises InputError as the class does, and if the metric is an LLM judge's but `judge_lm` names no judge.
        """
        if parameters.get("gate_metric") == "judge_score" and parameters.get("judge_lm") == "":
            raise InputError(
                "gate_metric judge_score needs a judge: set judge_lm, or take reference_score, the offline one."
            )
        names = {f"gate_{field.name}": field.name for field in fields(cls)}
        return cls(**{names[key]: value for key, value in parameters.items() if key in names})


def improvement_criteria(
    champion: pd.DataFrame,
    candidates: Mapping[str, pd.DataFrame],
    rule: GateRule,
    *,
    confidence: float,
    **settings: Any,
) -> dict[str, Criterion]:
    """Return each candidate's criterion "improvement", the difference to the champion on dev.

    It passes if the difference is above the gain and its p-value, corrected by Holm over the candidates, is at most
    1 - confidence. If no candidate is truly better, the chance that one of them passes is at most 1 - confidence, and
    about half of that because the test is two-sided.
    """
    settings |= {"metric": rule.metric, "confidence": confidence}
    tested = {name: _tested(_dev(champion), _dev(rows), rule.gain, **settings) for name, rows in candidates.items()}
    adjusted = holm([delta.p if delta else math.nan for delta, _ in tested.values()])
    family, made = sum(delta is not None for delta, _ in tested.values()), {}
    for (name, (delta, problem)), p in zip(tested.items(), adjusted, strict=True):
        passed = delta is not None and delta.value > rule.gain and p <= 1 - confidence
        detail = problem or f"p corrected by Holm over {count_of(family, 'candidate')}"
        made[name] = _criterion("improvement", passed, rule.gain, delta, p, detail)
    return made


def constants_criterion(
    candidate: pd.DataFrame, constants: Mapping[str, pd.DataFrame], rule: GateRule, **settings: Any
) -> Criterion:
    """Return the criterion "constants": on dev the candidate must be shown to beat each system that needs no model.

    constants: the rows of `core.runs.CONSTANTS`, as far as there are any. Every one of them must be beaten at the full
    level, which needs no correction (the intersection-union test of Berger, 1982, as in `slices_criterion`). One that
    the metric does not apply to at all, such as the precision of a system without answers, is left untested. A
    difference that is equal in all contracts, as a flawless system has to always_refuses, needs six (a sign test).
    """
    metric, own, parts = rule.metric, _dev(candidate), []
    for name in CONSTANTS:
        rows = _dev(constants[name]) if name in constants else own[:0]
        same = rows[rows["id"].isin(own["id"])]
        if rows.empty:
            parts.append(_criterion(name, None, 0.0, detail="its rows are missing", name=name))
        elif (same[metric].notna().to_numpy() & (metric_weights(same, metric) > 0)).any():
            parts.append(_margin(name, same, own, 0.0, metric=metric, **settings))
        else:  # a judge is not paid for the answers of constants; a question without clause tests no quotes
            counts_clauses = metric not in JUDGED and bool(COUNTS_CLAUSES & set(WEIGHT_COLUMNS.get(metric, ())))
            passed = False if same.empty or counts_clauses else None
            detail = f"it has no {metric} on these questions"
            parts.append(_criterion(name, passed, 0.0, detail=detail, name=name))
    return _all_of("constants", parts)


def slices_criterion(
    champion: pd.DataFrame, candidate: pd.DataFrame, rule: GateRule, wanted: Sequence[int], **settings: Any
) -> Criterion:
    """Return the criterion "slices": on every earlier slice a loss of slice_margin or more must be ruled out.

    wanted: the numbers of the slices. Every slice must pass at the full level, which needs no correction. Source:
    Berger (1982), "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24(4) (the
    intersection-union test).
    """
    limit, parts = -rule.slice_margin, []
    for number in wanted:
        a, b = (rows[rows["part"] == number] for rows in (champion, candidate))
        parts.append(_margin(f"slice {number}", a, b, limit, metric=rule.metric, **settings))
    if not parts:
        return _criterion("slices", None, limit, detail="no earlier slice with held-out contracts")
    return _all_of("slices", parts)


def categories_criterion(
    champion: pd.DataFrame, candidate: pd.DataFrame, rule: GateRule, *, confidence: float, **settings: Any
) -> Criterion:
    """Return the criterion "categories": no category may be shown to lose more than category_margin.

    The rows are those of dev and of earlier slices. The p-values are one-sided and corrected by Holm over the
    categories with `ENOUGH_CONTRACTS` contracts or more; `too_few` names the others. The figures are those of the
    category that most likely lost.
    """
    limit, found, few = -rule.category_margin, {}, []
    if "category" not in champion or "category" not in candidate:
        return _criterion("categories", None, limit, detail="the rows name no category")
    settings |= {"metric": rule.metric, "confidence": confidence}
    for name in sorted({*champion["category"], *candidate["category"]}):
        a, b = (rows[rows["category"] == name] for rows in (champion, candidate))
        enough = len({*a["contract"], *b["contract"]}) >= ENOUGH_CONTRACTS
        delta, problem = _tested(a, b, limit, **settings) if enough else (None, "")
        if problem and delta is None:
            return _criterion("categories", False, limit, detail=problem)
        if delta and delta.n_clusters >= ENOUGH_CONTRACTS:
            found[name] = delta
        else:
            few.append(name)
    too_few = f"too few to say, with fewer than {ENOUGH_CONTRACTS} contracts: {', '.join(few)}" if few else ""
    if not found:
        return _criterion("categories", None, limit, detail=too_few, parts=[], too_few=few)
    lost = holm([1 - _p_above(delta, limit) for delta in found.values()])
    parts = [
        _criterion(name, p > 1 - confidence, limit, delta, p, name=name)
        for (name, delta), p in zip(found.items(), lost, strict=True)
    ]
    worst = min(parts, key=lambda part: (part["p"], part["value"]))
    bad = [part["name"] for part in parts if not part["passed"]]
    detail = f"shown to lose: {', '.join(bad)}" if bad else f"{len(parts)} tested, lowest p of a loss: {worst['name']}"
    detail += f"; {too_few}" if few else ""
    return worst | {"clause": "categories", "passed": not bad, "detail": detail, "parts": parts, "too_few": few}


def ceiling_criteria(candidate: pd.DataFrame, rule: GateRule, **settings: Any) -> list[Criterion]:
    """Return the criteria on false answers, false refusals and so on, in the order of `CRITERIA`, on dev and slices.

    False answers and false refusals are judged by the upper end of their interval: the ceiling must hold for other
    contracts than these few. Failures are judged by their mean. They are failed generations and, where the metric is a
    judge's, answers without a verdict: counted faults of this run, which are no rate to be generalised. Their interval
    would say little as well: without any failure it ends at 1 - (1 - confidence)^(1 / contracts), 0.26 with ten. Prompt
    tokens and seconds are judged by their means. Seconds are measured only against a limit: times differ from run to
    run, and a decision should not.
    """
    seconds = candidate.get("seconds") if rule.seconds else None
    measured = {name: (candidate.get(column), kind) for name, (column, kind) in BY_INTERVAL.items()}
    measured["failures"] = _failed(candidate, rule.metric), None
    measured |= {"prompt_tokens": (candidate.get("prompt_tokens"), None), "seconds": (seconds, None)}
    made = []
    for name, (column, has_clause) in measured.items():
        limit, by = getattr(rule, name), "high" if name in BY_INTERVAL else "value"
        off = limit >= 1 if name in SHARES else not limit
        asked = _of_kind(candidate, has_clause)
        made.append(_ceiling(name, candidate, math.inf if off else limit, column, asked, by, **settings))
    return made


def _ceiling(
    name: str, rows: pd.DataFrame, limit: float, column: pd.Series | None, asked: int, by: str, **settings: Any
) -> Criterion:
    """Return the criterion that a column's figure `by` (its mean "value", or "high") keeps a limit; inf is no limit.

    asked: how many rows the column is about. The interval is the one that tables show. Where the share is 0 it ends at
    `ratio_intervals`' exact bound for no event: 0.63 with 3 contracts, 0.53 with 4, 0.45 with 5 and 0.26 with 10. So a
    limit of 0.5 asks for 5 contracts or more that have such a question, also of a system without any fault. In
    simulations (4 to 10 such questions a contract, correlated by 0.15) a system whose true share is 0.1 kept a limit of
    0.5 in 53 to 63 % of the cases with 5 contracts, in 85 to 98 % with 8 and in 95 to 98 % with 10.
    """
    found, off, shown = None, math.isinf(limit), None if math.isinf(limit) else limit
    if column is not None and not asked:
        passed, detail = None, "no such question on dev or an earlier slice"
    elif column is None or column.isna().all():
        passed, detail = False, "not measured"
    else:
        weights = metric_weights(rows.assign(**{name: column}), name)
        found = cluster_bootstrap(column, rows["contract"], weights=weights, **settings)
        figure, what = getattr(found, by), "upper end of the interval" if by == "high" else "mean"
        passed, told = figure <= limit, "no interval" if math.isnan(figure) else f"{what} {figure:.3f}"
        detail = f"{told}, {count_of(found.n_clusters, 'contract')}"
        detail += f"; known of {found.n} of {asked} answers" if found.n != asked else ""
    return _criterion(name, off or passed, shown, found, detail="no ceiling" if off else detail, by=by)


def _of_kind(rows: pd.DataFrame, has_clause: bool | None) -> int:
    """Return how many questions have a clause, or have none; all of them for None or where the rows do not say."""
    told = has_clause is not None and "is_impossible" in rows
    return int((rows["is_impossible"].astype(bool) != has_clause).sum()) if told else len(rows)


def _failed(rows: pd.DataFrame, metric: str) -> pd.Series | None:
    """Return 1.0 for each answer that failed, else 0.0; None if the rows do not say."""
    if "failed" not in rows:
        return None
    failed = rows["failed"].astype(bool)
    return (failed | rows[metric].isna() if metric in JUDGED else failed).astype(float)


# The tests that the criteria share.


def margin_of(a: pd.DataFrame, b: pd.DataFrame, limit: float, *, metric: str, **settings: Any) -> Delta:
    """Return the difference b - a of `compare.paired_delta`, tested against a difference of `limit` instead of 0.

    The p-value is two-sided; it is at most 1 - confidence exactly if the bounds exclude `limit`. Raises InputError as
    `compare.paired_delta`.
    """
    both = pd.concat([a[metric], b[metric]]).dropna()
    most = 1 if both.between(0, 1).all() else math.inf
    shifted = paired_delta(a, b.assign(**{metric: b[metric] - limit}), metric=metric, **settings)
    bounds = np.round([shifted.value + limit, shifted.low + limit, shifted.high + limit], 12)
    value, low, high = np.clip(bounds, -most, most) + 0.0  # adding 0.0 turns -0.0, which rounding can leave, into 0.0
    return replace(shifted, value=float(value), low=float(low), high=float(high))


def _tested(a: pd.DataFrame, b: pd.DataFrame, limit: float, **settings: Any) -> tuple[Delta | None, str]:
    """Return the difference of `margin_of`, None if there can be none, and what stands in the way of a test."""
    if a.empty or b.empty:
        return None, f"{'the champion' if a.empty else 'the candidate'} has no answers on it"
    try:
        delta = margin_of(a, b, limit, **settings)
    except InputError as error:
        return None, str(error)
    few = f"{count_of(delta.n_clusters, 'contract')}: too few for an interval" if math.isnan(delta.low) else ""
    return delta, few if delta.n else f"no question has a {settings['metric']} of both systems"


def _margin(name: str, a: pd.DataFrame, b: pd.DataFrame, limit: float, **settings: Any) -> Criterion:
    """Return the test that b - a lies above the limit, as one part of a criterion of which every part must hold."""
    delta, problem = _tested(a, b, limit, **settings)
    if delta is None:
        return _criterion(name, False, limit, detail=problem, name=name)
    detail = problem or f"{delta.value:+.3f} [{delta.low:+.3f}, {delta.high:+.3f}]"
    return _criterion(name, delta.low > limit, limit, delta, _p_above(delta, limit), detail, name=name)


def _all_of(name: str, parts: list[Criterion]) -> Criterion:
    """Return the criterion that every tested part holds, with the figures of the part whose lower bound is worst."""
    tested = [part for part in parts if part["passed"] is not None]
    lows = pd.Series([part["low"] for part in tested or parts], dtype=float)
    worst = (tested or parts)[int(lows.fillna(-math.inf).argmin())]
    detail = "; ".join(f"{part['name']}: {part['detail']}" for part in parts)
    passed = all(part["passed"] for part in tested) if tested else None
    return worst | {"clause": name, "passed": passed, "detail": detail, "parts": parts}


def _criterion(
    clause: str,
    passed: bool | None,
    limit: float | None,
    found: Interval | Delta | None = None,
    p: float = math.nan,
    detail: str = "",
    **more: Any,
) -> Criterion:
    """Return a criterion's record; found: an interval or a difference, None if nothing could be measured."""
    figures = {name: getattr(found, name, None) for name in ("value", "low", "high")}
    figures |= {"n": getattr(found, "n", 0), "n_contracts": getattr(found, "n_clusters", 0), "p": float(p)}
    known = None if passed is None else bool(passed)
    return {"clause": clause, "passed": known, "limit": limit} | figures | {"detail": detail} | more


def mean_of(rows: pd.DataFrame, metric: str) -> float:
    """Return the weighted mean of a metric, NaN where it applies to no row."""
    weight = metric_weights(rows, metric) * rows[metric].notna().to_numpy()
    return float((rows[metric].fillna(0) * weight).sum() / weight.sum()) if weight.sum() else math.nan


def _p_above(delta: Delta, limit: float) -> float:
    """Return the one-sided p-value of "not above the limit": small if the difference lies clearly above it."""
    return delta.p / 2 if delta.value > limit else 1 - delta.p / 2


def _dev(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["part"] == DEV]
