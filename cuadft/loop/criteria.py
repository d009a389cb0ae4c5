"""The criteria of the gate: what a candidate must show before it replaces the champion, and the tests of it.

    rule = GateRule(metric="f1", gain=0.01)  # fixed before the run
    improvement = improvement_criteria(champion, {"sft": candidate}, rule, confidence=0.95, n_resamples=2000, seed=7)
    improvement["sft"][0]["passed"]  # True: the candidate is shown to be better by more than 0.01

Each criterion tests one candidate against the champion on the same questions. Its record, as decision.json holds it,
is {"clause", "passed", "limit", "value", "low", "high", "n", "n_contracts", "p", "detail"}. The key "clause", kept for
files of older versions, holds the criterion's name. `passed` is None where there is nothing to test; the detail says
why. A limit that cannot be shown to hold because data are missing counts as failed.
The frames hold one row per question and system: id, contract, part ("dev" or the number of an earlier slice), the
metric, and what the ceilings need.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from cuadft.core.errors import InputError
from cuadft.core.params import did_you_mean
from cuadft.evaluation.bootstrap import Interval, cluster_bootstrap
from cuadft.evaluation.compare import Delta, holm, paired_delta
from cuadft.evaluation.metrics import JUDGED, METRICS

DEV = "dev"
CRITERIA = ("improvement", "slices", "categories", "false_answers", "failures", "prompt_tokens", "seconds")
ENOUGH_CONTRACTS = 5  # contracts with which a category is tested; fewer say too little
GREATEST = dict.fromkeys(("gain", "slice_margin", "category_margin", "false_answers", "failures"), 1.0)
Criterion = dict[str, Any]


@dataclass(frozen=True)
class GateRule:
    """Hold the limits of the criteria.

    metric: what must improve. gain: by how much, on dev. slice_margin: a loss of this size must be ruled out on every
    earlier slice. category_margin: a loss greater than this may be shown in no category. false_answers, failures: the
    greatest shares. prompt_tokens, seconds: the greatest means per question; 0 sets no ceiling. Raises InputError on an
    unknown metric, a metric where less is better, or a limit out of range.
    """

    metric: str = "f1"
    gain: float = 0.0
    slice_margin: float = 0.1
    category_margin: float = 0.1
    false_answers: float = 1.0
    failures: float = 0.05
    prompt_tokens: float = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        good = [name for name, (_, more_is_better) in METRICS.items() if more_is_better]
        if self.metric not in good:
            hint = did_you_mean(self.metric, good)
            raise InputError(f"Invalid gate_metric {self.metric!r}{hint}: choose one of {', '.join(good)}.")
        for field in fields(self)[1:]:
            value, most = getattr(self, field.name), GREATEST.get(field.name, math.inf)
            if not 0 <= value <= most:
                allowed = f"a number from 0 to {most:g}" if most < math.inf else "a number from 0"
                raise InputError(f"Invalid gate_{field.name} {value!r}: give {allowed}.")

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
) -> dict[str, tuple[Criterion, Delta | None]]:
    """Return each candidate's criterion "improvement" with its difference to the champion on dev.

    It passes if the difference is above the gain and its p-value, corrected by Holm over the candidates, is at most
    1 - confidence. If no candidate is truly better, the chance that one of them passes is at most 1 - confidence, and
    about half of that because the test is two-sided.
    """
    found, problems = {}, {}
    for name, rows in candidates.items():
        try:
            found[name] = margin_of(
                _dev(champion), _dev(rows), rule.gain, metric=rule.metric, confidence=confidence, **settings
            )
        except InputError as error:
            problems[name] = str(error)
    adjusted = dict(zip(found, holm([delta.p for delta in found.values()]), strict=True))
    made = {}
    for name in candidates:
        delta, p = found.get(name), adjusted.get(name, math.nan)
        passed = delta is not None and delta.value > rule.gain and p <= 1 - confidence
        detail = problems.get(name) or _improvement_detail(delta, passed, rule.metric, len(found))
        made[name] = _criterion("improvement", passed, delta, rule.gain, p, detail), delta
    return made


def _improvement_detail(delta: Delta, passed: bool, metric: str, family: int) -> str:
    if delta.n == 0:
        return f"no dev question has a {metric} of both systems"
    if math.isnan(delta.p):
        return f"{_contracts(delta.n_clusters)} gives no interval"
    said = f"p corrected by Holm over {family} candidates" if family > 1 else "one candidate, no correction"
    if not passed and delta.low > 0:
        said += " (the interval alone leaves the gain out, the corrected p does not)"
    return said


def slices_criterion(
    champion: pd.DataFrame, candidate: pd.DataFrame, rule: GateRule, wanted: Sequence[int], **settings: Any
) -> Criterion:
    """Return the criterion "slices": on every earlier slice a loss of slice_margin or more must be ruled out.

    wanted: the numbers of the slices. Every slice must pass at the full level, which needs no correction. Source:
    Berger (1982), "Multiparameter hypothesis testing and acceptance sampling", Technometrics 24(4) (the
    intersection-union test).
    """
    if not wanted:
        detail = "no earlier slice with held-out contracts"
        return _criterion("slices", None, None, -rule.slice_margin, math.nan, detail)
    parts = [_slice_part(champion, candidate, rule, number, **settings) for number in wanted]
    worst = min(parts, key=lambda part: -math.inf if _unknown(part["low"]) else part["low"])
    failed = [part["name"] for part in parts if not part["passed"]]
    said = "; ".join(f"{part['name']}: {part['detail']}" for part in parts)
    return worst | {"clause": "slices", "passed": not failed, "detail": said, "parts": parts}


def _slice_part(
    champion: pd.DataFrame, candidate: pd.DataFrame, rule: GateRule, number: int, **settings: Any
) -> Criterion:
    name, limit = f"slice {number}", -rule.slice_margin
    a, b = (rows[rows["part"] == number] for rows in (champion, candidate))
    if a.empty or b.empty:
        lacking = "the champion" if a.empty else "the candidate"
        return _criterion(name, False, None, limit, math.nan, f"{lacking} has no answers on it") | {"name": name}
    try:
        delta = margin_of(a, b, limit, metric=rule.metric, **settings)
    except InputError as error:
        return _criterion(name, False, None, limit, math.nan, str(error)) | {"name": name}
    detail = f"{delta.value:+.3f} [{delta.low:+.3f}, {delta.high:+.3f}], {_contracts(delta.n_clusters)}"
    if math.isnan(delta.low):
        detail = f"{delta.value:+.3f}, {_contracts(delta.n_clusters)}: too few for an interval"
    return _criterion(name, delta.low > limit, delta, limit, _p_above(delta, limit), detail) | {"name": name}


def categories_criterion(
    champion: pd.DataFrame, candidate: pd.DataFrame, rule: GateRule, *, confidence: float, **settings: Any
) -> Criterion:
    """Return the criterion "categories": no category may be shown to lose more than category_margin.

    The rows are those of dev and of earlier slices. The p-values are one-sided and corrected by Holm over the
    categories with `ENOUGH_CONTRACTS` contracts or more. The detail names the other categories as too few to say.
    """
    limit = -rule.category_margin
    if "category" not in champion or "category" not in candidate:
        return _criterion("categories", None, None, limit, math.nan, "the rows name no category")
    found, few = {}, []
    names = sorted({*champion["category"], *candidate["category"]})
    try:
        for name in names:
            a, b = (rows[rows["category"] == name] for rows in (champion, candidate))
            if len({*a["contract"], *b["contract"]}) >= ENOUGH_CONTRACTS:
                found[name] = margin_of(a, b, limit, metric=rule.metric, confidence=confidence, **settings)
            if name not in found or found[name].n_clusters < ENOUGH_CONTRACTS:
                few.append(name)
    except InputError as error:
        return _criterion("categories", False, None, limit, math.nan, str(error))
    tested = {name: delta for name, delta in found.items() if name not in few}
    return _worst_category(tested, few, limit, 1 - confidence)


def _worst_category(found: Mapping[str, Delta], few: Sequence[str], limit: float, alpha: float) -> Criterion:
    """Return the criterion from the tested categories, with the figures of the one that most likely lost."""
    said = f"too few to say, with fewer than {ENOUGH_CONTRACTS} contracts: {', '.join(few)}" if few else ""
    if not found:
        untested = _criterion("categories", None, None, limit, math.nan, said or "no categories")
        return untested | {"parts": [], "too_few": list(few)}
    p = dict(zip(found, holm([1 - _p_above(delta, limit) for delta in found.values()]), strict=True))
    parts = []
    for name, delta in found.items():
        lost = p[name] <= alpha
        parts.append(_criterion(name, not lost, delta, limit, p[name], "") | {"name": name})
    worst = min(parts, key=lambda part: (part["p"], part["value"]))
    bad = [part["name"] for part in parts if not part["passed"]]
    tested = f"{len(parts)} tested, lowest p of a loss: {worst['name']}"
    shown = f"shown to lose more than {-limit:g}: {', '.join(bad)}" if bad else tested
    detail = "; ".join(text for text in (shown, said) if text)
    return worst | {"clause": "categories", "passed": not bad, "detail": detail, "parts": parts, "too_few": list(few)}


def ceiling_criteria(candidate: pd.DataFrame, rule: GateRule, **settings: Any) -> list[Criterion]:
    """Return the criteria on false answers, failures, prompt tokens and seconds, on dev and earlier slices.

    Failures are failed generations and, where the metric is a judge's, answers without a verdict. Seconds are measured
    only against a limit: times differ from run to run, and a decision should not.
    """

    def make(name: str, limit: float, off: bool, column: pd.Series | None) -> Criterion:
        return _ceiling(name, limit, off, column, candidate["contract"], **settings)

    seconds = candidate.get("seconds") if rule.seconds else None
    return [
        make("false_answers", rule.false_answers, rule.false_answers >= 1, candidate.get("false_answer")),
        make("failures", rule.failures, rule.failures >= 1, _failed(candidate, rule.metric)),
        make("prompt_tokens", rule.prompt_tokens, not rule.prompt_tokens, candidate.get("prompt_tokens")),
        make("seconds", rule.seconds, not rule.seconds, seconds),
    ]


def _ceiling(
    name: str, limit: float, off: bool, column: pd.Series | None, contracts: pd.Series, **settings: Any
) -> Criterion:
    """Return the criterion that a column's mean may not exceed the limit; `off`: there is no ceiling."""
    shown_limit = None if off else limit
    if column is None or column.notna().sum() == 0:
        detail = "no ceiling" if off else "not measured"
        return _criterion(name, off, None, shown_limit, math.nan, detail)
    found = cluster_bootstrap(column, contracts, **settings)
    partly = "" if found.n == len(column) else f"known of {found.n} of {len(column)} answers"
    detail = "no ceiling" if off else partly
    return _criterion(name, off or found.value <= limit, found, shown_limit, math.nan, detail)


def _failed(rows: pd.DataFrame, metric: str) -> pd.Series | None:
    """Return 1.0 for each answer that failed, else 0.0; None if the rows do not say."""
    if "failed" not in rows:
        return None
    failed = rows["failed"].astype(bool)
    return (failed | rows[metric].isna() if metric in JUDGED else failed).astype(float)


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


def _criterion(
    name: str, passed: bool | None, found: Interval | Delta | None, limit: float | None, p: float, detail: str
) -> Criterion:
    """Return a criterion's record; found: an interval or a difference, None if nothing could be measured."""
    figures = dict.fromkeys(("value", "low", "high")) | {"n": 0, "n_contracts": 0}
    if found is not None:
        figures = {"value": found.value, "low": found.low, "high": found.high}
        figures |= {"n": found.n, "n_contracts": found.n_clusters}
    known = None if passed is None else bool(passed)
    return {"clause": name, "passed": known, "limit": limit} | figures | {"p": float(p), "detail": detail}


def _p_above(delta: Delta, limit: float) -> float:
    """Return the one-sided p-value of "not above the limit": small if the difference lies clearly above it."""
    return delta.p / 2 if delta.value > limit else 1 - delta.p / 2


def _dev(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["part"] == DEV]


def _contracts(count: int) -> str:
    return f"{count} contract{'s' * (count != 1)}"


def _unknown(value: float | None) -> bool:
    return value is None or bool(np.isnan(value))
