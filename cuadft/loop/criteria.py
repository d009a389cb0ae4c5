"""The clauses of the gate: each tests one candidate against the champion on the same questions.

A clause is {"clause", "passed", "value", "limit", "low", "high", "n", "n_contracts", "p", "detail"}; `passed` is None where
there is nothing to test, which the detail says. A limit that cannot be shown to hold because data are missing has failed.

The rule of the gate: what a candidate must show before it replaces the champion, fixed before the run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from cuadft.core.errors import InputError
from cuadft.core.params import did_you_mean
from cuadft.evaluation.bootstrap import cluster_bootstrap
from cuadft.evaluation.compare import Delta, holm, paired_delta
from cuadft.evaluation.metrics import JUDGED, METRICS

ENOUGH = 5  # contracts with which a category is tested; fewer say too little
DEV = "dev"
Criterion = dict[str, Any]


def margin_of(a: pd.DataFrame, b: pd.DataFrame, limit: float, *, metric: str, **settings: Any) -> Delta:
    """Return `compare.paired_delta`, tested against a difference of `limit` instead of 0.

    The p-value is two-sided: at most 1 - confidence just if the bounds leave `limit` out. Raises InputError as it does.
    """
    both = pd.concat([a[metric], b[metric]]).dropna()
    most = 1 if both.between(0, 1).all() else math.inf
    found = paired_delta(a, b.assign(**{metric: b[metric] - limit}), metric=metric, **settings)
    back = [found.value + limit, found.low + limit, found.high + limit]
    value, low, high = np.clip(np.round(back, 12), -most, most) + 0.0  # not -0.000, which moving to and fro can leave
    return replace(found, value=float(value), low=float(low), high=float(high))


def improvement_criteria(
    champion: pd.DataFrame,
    candidates: Mapping[str, pd.DataFrame],
    rule: GateRule,
    *,
    confidence: float,
    **settings: Any,
) -> dict[str, tuple[Criterion, Delta | None]]:
    """Return each candidate's clause "improvement" with its difference to the champion on dev.

    It passes if the difference is above the gain and its p-value, corrected by Holm over the candidates, is at most
    1 - confidence: so that any candidate that is no better is promoted with that chance at most (and about half of it,
    the test being two-sided).
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
        detail = problems.get(name) or _why(delta, passed, rule.metric, len(found))
        made[name] = criterion("improvement", passed, delta, rule.gain, p, detail), delta
    return made


def _why(delta: Delta, passed: bool, metric: str, family: int) -> str:
    if delta.n == 0:
        return f"no dev question has a {metric} of both systems"
    if math.isnan(delta.p):
        return f"{_contracts(delta.n_clusters)} gives no interval"
    holm_over = f"p corrected by Holm over {family} candidates" if family > 1 else "one candidate, no correction"
    unproven = (
        " (the interval alone leaves the gain out, the corrected p does not)" if not passed and delta.low > 0 else ""
    )
    return holm_over + unproven


def slices_criterion(
    champion: pd.DataFrame, candidate: pd.DataFrame, rule: GateRule, wanted: Sequence[int], **settings: Any
) -> Criterion:
    """Return the clause "slices": on every earlier slice a loss of slice_margin or more must be ruled out.

    All must hold, each at the full level, which needs no correction. Source: Berger (1982), "Multiparameter hypothesis
    testing and acceptance sampling", Technometrics 24(4) (intersection-union test).
    """
    if not wanted:
        return criterion("slices", None, None, -rule.slice_margin, math.nan, "no earlier slice with held-out contracts")
    parts = [_slice(champion, candidate, rule, number, **settings) for number in wanted]
    worst = min(parts, key=lambda part: -math.inf if _unknown(part["low"]) else part["low"])
    failed = [part["name"] for part in parts if not part["passed"]]
    said = "; ".join(f"{part['name']}: {part['detail']}" for part in parts)
    return worst | {"clause": "slices", "passed": not failed, "detail": said, "parts": parts}


def _slice(champion: pd.DataFrame, candidate: pd.DataFrame, rule: GateRule, number: int, **settings: Any) -> Criterion:
    name, limit = f"slice {number}", -rule.slice_margin
    a, b = (rows[rows["part"] == number] for rows in (champion, candidate))
    if a.empty or b.empty:
        lacking = "the champion" if a.empty else "the candidate"
        return criterion(name, False, None, limit, math.nan, f"{lacking} has no answers on it") | {"name": name}
    try:
        delta = margin_of(a, b, limit, metric=rule.metric, **settings)
    except InputError as error:
        return criterion(name, False, None, limit, math.nan, str(error)) | {"name": name}
    detail = f"{delta.value:+.3f} [{delta.low:+.3f}, {delta.high:+.3f}], {_contracts(delta.n_clusters)}"
    if math.isnan(delta.low):
        detail = f"{delta.value:+.3f}, {_contracts(delta.n_clusters)}: too few for an interval"
    return criterion(name, delta.low > limit, delta, limit, _above(delta, limit), detail) | {"name": name}


def categories_criterion(
    champion: pd.DataFrame, candidate: pd.DataFrame, rule: GateRule, *, confidence: float, **settings: Any
) -> Criterion:
    """Return the clause "categories": none may be shown to lose more than category_margin, on dev and earlier slices.

    The p-values are one-sided and corrected by Holm over the categories with `ENOUGH` contracts or more; the others are
    named as too few to say.
    """
    limit = -rule.category_margin
    if "category" not in champion or "category" not in candidate:
        return criterion("categories", None, None, limit, math.nan, "the rows name no category")
    found, few = {}, []
    names = sorted({*champion["category"], *candidate["category"]})
    try:
        for name in names:
            a, b = (rows[rows["category"] == name] for rows in (champion, candidate))
            if len({*a["contract"], *b["contract"]}) >= ENOUGH:
                found[name] = margin_of(a, b, limit, metric=rule.metric, confidence=confidence, **settings)
            if name not in found or found[name].n_clusters < ENOUGH:
                few.append(name)
    except InputError as error:
        return criterion("categories", False, None, limit, math.nan, str(error))
    return _categories({name: delta for name, delta in found.items() if name not in few}, few, limit, 1 - confidence)


def _categories(found: Mapping[str, Delta], few: Sequence[str], limit: float, alpha: float) -> Criterion:
    said = f"too few to say, with fewer than {ENOUGH} contracts: {', '.join(few)}" if few else ""
    if not found:
        return criterion("categories", None, None, limit, math.nan, said or "no categories") | {
            "parts": [],
            "too_few": list(few),
        }
    p = dict(zip(found, holm([1 - _above(delta, limit) for delta in found.values()]), strict=True))
    parts = [
        criterion(name, not p[name] <= alpha, delta, limit, p[name], "") | {"name": name}
        for name, delta in found.items()
    ]
    worst = min(parts, key=lambda part: (part["p"], part["value"]))
    bad = [part["name"] for part in parts if not part["passed"]]
    tested = f"{len(parts)} tested, lowest p of a loss: {worst['name']}"
    shown = f"shown to lose more than {-limit:g}: {', '.join(bad)}" if bad else tested
    detail = "; ".join(text for text in (shown, said) if text)
    return worst | {"clause": "categories", "passed": not bad, "detail": detail, "parts": parts, "too_few": list(few)}


def ceiling_criteria(candidate: pd.DataFrame, rule: GateRule, **settings: Any) -> list[Criterion]:
    """Return the clauses on false answers, failures, prompt tokens and seconds, on dev and earlier slices.

    Failures are failed generations and, where the metric is a judge's, answers without a verdict. Seconds are measured
    only against a limit: times differ from run to run, and a decision should not.
    """

    def make(name: str, limit: float, values: Callable[[], pd.Series | None], off: bool) -> Criterion:
        column = values()
        if column is None or column.notna().sum() == 0:
            return criterion(
                name, off or False, None, None if off else limit, math.nan, "no ceiling" if off else "not measured"
            )
        found = cluster_bootstrap(column, candidate["contract"], **settings)
        detail = (
            "no ceiling" if off else "" if found.n == len(column) else f"known of {found.n} of {len(column)} answers"
        )
        return criterion(name, off or found.value <= limit, found, None if off else limit, math.nan, detail)

    return [
        make("false_answers", rule.false_answers, lambda: candidate.get("false_answer"), rule.false_answers >= 1),
        make("failures", rule.failures, lambda: _failed(candidate, rule.metric), rule.failures >= 1),
        make("prompt_tokens", rule.prompt_tokens, lambda: candidate.get("prompt_tokens"), not rule.prompt_tokens),
        make("seconds", rule.seconds, lambda: candidate.get("seconds") if rule.seconds else None, not rule.seconds),
    ]


def _failed(rows: pd.DataFrame, metric: str) -> pd.Series | None:
    if "failed" not in rows:
        return None
    failed = rows["failed"].astype(bool)
    return (failed | rows[metric].isna() if metric in JUDGED else failed).astype(float)


def criterion(name: str, passed: bool | None, found: Any, limit: float | None, p: float, detail: str) -> Criterion:
    """Return a clause's record; found: an interval or a difference, None if nothing could be measured."""
    figures = dict.fromkeys(("value", "low", "high")) | {"n": 0, "n_contracts": 0}
    if found is not None:
        figures = {
            "value": found.value,
            "low": found.low,
            "high": found.high,
            "n": found.n,
            "n_contracts": found.n_clusters,
        }
    return {
        "clause": name,
        "passed": None if passed is None else bool(passed),
        "limit": limit,
        **figures,
        "p": float(p),
        "detail": detail,
    }


def _above(delta: Delta, limit: float) -> float:
    """Return the one-sided p-value of "not above the limit": small if the difference lies clearly above it."""
    return delta.p / 2 if delta.value > limit else 1 - delta.p / 2


def _dev(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["part"] == DEV]


def _contracts(count: int) -> str:
    return f"{count} contract{'s' * (count != 1)}"


def _unknown(value: float | None) -> bool:
    return value is None or bool(np.isnan(value))


LIMITS = {
    "gain": 1.0,
    "slice_margin": 1.0,
    "category_margin": 1.0,
    "false_answers": 1.0,
    "failures": 1.0,
}  # greatest values
CRITERIA = ("improvement", "slices", "categories", "false_answers", "failures", "prompt_tokens", "seconds")


@dataclass(frozen=True)
class GateRule:
    """Hold the clauses' limits; raises InputError on an unknown metric, one where less is better, or a limit out of range.

    metric: what must improve, and may not get worse; gain: by how much, on dev; slice_margin: a loss on an earlier slice
    that would still be tolerated, and which must be ruled out; category_margin: the same per category, where a greater loss
    must not be shown; false_answers, failures: greatest shares; prompt_tokens, seconds: greatest means per question (0: any).
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
            raise InputError(
                f"Invalid gate_metric {self.metric!r}{did_you_mean(self.metric, good)}: choose one of "
                f"{', '.join(good)}."
            )
        for field in fields(self)[1:]:
            value, most = getattr(self, field.name), LIMITS.get(field.name, float("inf"))
            if not 0 <= value <= most:
                allowed = f"a number from 0 to {most:g}" if most < float("inf") else "a number from 0"
                raise InputError(f"Invalid gate_{field.name} {value!r}: give {allowed}.")

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> GateRule:
        """Return the rule of a notebook's parameters: those whose names start with gate_.

        Raises InputError also if it is to go by an LLM judge and `judge_lm` names none.
        """
        if parameters.get("gate_metric") == "judge_score" and parameters.get("judge_lm") == "":
            raise InputError(
                "gate_metric judge_score needs a judge: set judge_lm, or take reference_score, the offline one."
            )
        names = {f"gate_{field.name}": field.name for field in fields(cls)}
        return cls(**{names[key]: value for key, value in parameters.items() if key in names})
