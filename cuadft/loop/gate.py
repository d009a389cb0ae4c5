"""The gate: decide, on dev contracts and on earlier slices of the stream, whether a new system replaces the champion.

A decision of the gate in words and as a table: which clause decided, with its figures.

Promote or roll back by hand, with a reason: kept beside the gate's decision and in the run's history.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.params import did_you_mean
from cuadft.core.runs import (
    BY_HAND,
    DECISION,
    HISTORY,
    PROGRAMS,
    champion_history,
    champion_label,
    champion_line,
    decided_champion,
    decided_iterations,
    has_weights,
    history_time,
    same_champion,
    system_record,
)
from cuadft.evaluation.bootstrap import as_columns
from cuadft.evaluation.metrics import METRICS, metric_weights
from cuadft.loop import criteria
from cuadft.loop.criteria import CRITERIA, GateRule
from cuadft.loop.kernel import lock

SLICES = "slices"  # the split that holds the questions of the slices' held-out contracts


def decide_champion(
    frame: pd.DataFrame,
    iteration: runs.Iteration,
    rule: GateRule | None = None,
    *,
    tuned_program: str = "rag",
    confidence: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 7,
) -> dict[str, Any]:
    """Return the decision, for decision.json: the best candidate that meets every clause of the rule, or the champion.

    frame: from `metrics.score`; its test rows are dropped first, and neither they nor the order of the rows change
    anything. Keys: action (promoted or kept), incumbent (the champion's name in the frame), incumbent_score, candidate (the
    one promoted, else the one that came closest), promoted (a record of `champion`), delta (the candidate's difference on
    dev), decided_by (the clause that decided), reason, rule, confidence, tuned_program, and candidates, simple systems
    first: {"system", "score", "clauses"} (see `clauses`). Of equal means the simpler system wins. Raises InputError if the
    champion has no dev rows.
    """
    rule = rule or GateRule()
    rows = _prepared(frame, iteration.number, rule.metric)
    incumbent = "incumbent" if iteration.previous else "rag"
    parts = {name: part for name, part in rows.groupby("system", sort=False)}
    before = parts.pop(incumbent, rows[:0])
    if not (before["part"] == criteria.DEV).any():
        raise InputError(
            f"There are no dev predictions of '{incumbent}', which the others must beat: run 03_batch_inference "
            f"with systems including '{incumbent}' and splits including 'dev'."
        )
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    first = criteria.improvement_criteria(before, parts, rule, **settings)
    candidates = _tested(before, parts, first, rule, _earlier(rows, iteration), **settings)
    best, decided_by = _choice(candidates)
    delta = first[best["system"]][1] if best else None
    won = best is not None and decided_by is None
    winner = best["system"] if won else incumbent
    decision = {
        "action": "promoted" if won else "kept",
        "incumbent": incumbent,
        "incumbent_score": _mean(before, rule.metric),
        "candidate": best and best["system"],
        "promoted": runs.system_record(iteration, winner, tuned_program),
        "delta": as_columns(delta) if delta else None,
        "decided_by": decided_by or CRITERIA[0],
        "rule": asdict(rule),
        "confidence": confidence,
        "tuned_program": tuned_program,
        "candidates": candidates,
    }
    decision = _plain(decision)
    return decision | {"reason": decision_reason(decision)}


def _tested(
    before: pd.DataFrame,
    parts: Mapping[str, pd.DataFrame],
    first: Mapping[str, Any],
    rule: GateRule,
    wanted: list[int],
    **settings: Any,
) -> list[dict[str, Any]]:
    """Return each candidate with its mean and its clauses, simple systems first; first: those of the improvement."""
    candidates = []
    for name in sorted(parts, key=runs.simplicity):
        made = [
            first[name][0],
            criteria.slices_criterion(before, parts[name], rule, wanted, **settings),
            criteria.categories_criterion(before, parts[name], rule, **settings),
            *criteria.ceiling_criteria(parts[name], rule, **settings),
        ]
        candidates.append({"system": name, "score": _mean(parts[name], rule.metric), "clauses": made})
    return candidates


def _prepared(frame: pd.DataFrame, number: int, metric: str) -> pd.DataFrame:
    """Return the rows that may decide, in an order of their own: dev, and the slices before this iteration's.

    `part` is "dev" or the slice's number (0: unknown); ids are made different between parts.
    """
    rows = frame[frame["split"].isin([criteria.DEV, SLICES])]
    dev = rows["split"] == criteria.DEV
    slices = rows["slice"] if "slice" in rows else pd.Series(math.nan, rows.index)
    earlier = slices.astype(float).fillna(0).astype(int)
    rows = rows.assign(part=earlier.astype(object).where(~dev, criteria.DEV))[dev | (earlier < number)]
    values = rows[metric].astype(float) if metric in rows else math.nan
    rows = rows.assign(id=rows["part"].astype(str) + " " + rows["id"].astype(str), **{metric: values})
    keys = ["system", "id", *[name for name in ("seed", "contract") if name in rows]]
    return rows.sort_values(keys, kind="stable", ignore_index=True)


def _earlier(rows: pd.DataFrame, iteration: runs.Iteration) -> list[int]:
    """Return the slices before this iteration's that any system answered, or that the iteration asked."""
    path = iteration.path("data", f"{SLICES}.jsonl")
    asked = {int(row["slice"]) for row in files.read_jsonl(path)} if path.is_file() else set()
    answered = set(rows["part"]) - {criteria.DEV}
    return sorted({number for number in asked if number < iteration.number} | answered)


def _choice(candidates: list[dict[str, Any]]) -> tuple[dict[str, Any] | None, str | None]:
    """Return the candidate to promote and None, or the one that came closest and the clause that it failed.

    Closest is the best of those that improved, else the best.
    """
    measured = [one for one in candidates if not math.isnan(one["score"])]
    failed = {one["system"]: [c["clause"] for c in one["clauses"] if c["passed"] is False] for one in measured}
    for among in (
        [one for one in measured if not failed[one["system"]]],
        [one for one in measured if CRITERIA[0] not in failed[one["system"]]],
        measured,
    ):
        if among:
            best = max(among, key=lambda one: one["score"])
            return best, next(iter(failed[best["system"]]), None)
    return None, "candidates"


def _mean(rows: pd.DataFrame, metric: str) -> float:
    """Return a system's mean on dev, NaN where the metric applies to no row."""
    dev = rows[rows["part"] == criteria.DEV]
    weight = metric_weights(dev, metric) * dev[metric].notna().to_numpy()
    return float((dev[metric].fillna(0) * weight).sum() / weight.sum()) if weight.sum() else math.nan


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it: NaN becomes None, numpy's numbers plain ones."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value


COLUMNS = ["system", "score", "clause", "passed", "value", "limit", "low", "high", "n", "n_contracts", "p", "detail"]
NAMES = {
    "improvement": "improvement on dev",
    "slices": "earlier slices",
    "categories": "categories",
    "false_answers": "false answers",
    "failures": "failures",
    "prompt_tokens": "prompt tokens",
    "seconds": "seconds per answer",
    "candidates": "no candidate",
}


def decision_reason(decision: Mapping[str, Any]) -> str:
    """Return the decision in one line, as logs and the history show it."""
    metric, best = decision["rule"]["metric"], decision["candidate"]
    if best is None:
        return f"kept: there is no other system with {metric} on dev"
    won = decision["action"] == "promoted"
    delta, decided = decision["delta"], decision["decided_by"]
    said = f"{'promoted' if won else 'kept'}: {best} against {decision['incumbent']} on dev: "
    said += (
        f"{delta['value']:+.3f} {metric}, {_interval(delta, decision)}" if delta and delta["n"] else "not comparable"
    )
    if won:
        return said
    found = _clause(decision, best, decided)
    return f"{said}; decided by {NAMES[decided]}{': ' + found['detail'] if found['detail'] else ''}"


def decision_paragraph(decision: Mapping[str, Any]) -> str:
    """Return two to five sentences of Markdown: what was decided, by which clause, and what the others failed by."""
    best, decided = decision["candidate"], decision["decided_by"]
    if best is None:
        return (
            f"**Kept: {decision['incumbent']}.** No candidate has a {decision['rule']['metric']} on dev, so that there was "
            "nothing to test. The next iteration starts from the champion."
        )
    won = decision["action"] == "promoted"
    first = (
        f"**Promoted: {best}**; every clause of the rule is met, and the clause *{NAMES[decided]}* decided."
        if won
        else f"**Kept: {decision['incumbent']}.** The clause *{NAMES[decided]}* decided against {best}, "
        f"the candidate that came closest."
    )
    sentences = [first, _improved(decision, best)]
    if won:
        sentences.append(_untested(decision, best))
    elif decided != "improvement":
        sentences.append(_failed(_clause(decision, best, decided)))
    sentences += [_others(decision, best), "" if won else "The next iteration starts from the champion."]
    return " ".join(text for text in sentences if text)


def decision_table(decision: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per candidate and clause; p is Holm's for improvement and categories, one-sided for the slices."""
    rows = [
        {"system": one["system"], "score": one["score"]} | found
        for one in decision["candidates"]
        for found in one["clauses"]
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def _improved(decision: Mapping[str, Any], system: str) -> str:
    found, metric = _clause(decision, system, "improvement"), decision["rule"]["metric"]
    if found["value"] is None:
        return f"It could not be compared: {found['detail']}."
    scores = {one["system"]: one["score"] for one in decision["candidates"]}
    said = (
        f"On {found['n']} dev questions of {found['n_contracts']} contracts it scores {scores[system]:.3f} in "
        f"{METRICS.get(metric, (metric,))[0]} against {decision['incumbent_score']:.3f}: {found['value']:+.3f}, "
        f"{_interval(found, decision)}, where more than {found['limit']:+.3f} is asked for"
    )
    notes = [found["detail"]] if found["p"] is None else [_p(found["p"]), found["detail"]]
    return f"{said} ({'; '.join(note for note in notes if note)})."


def _failed(found: Mapping[str, Any]) -> str:
    if found["clause"] in ("slices", "categories"):
        asked = "a loss must be ruled out beyond" if found["clause"] == "slices" else "no loss may be shown beyond"
        return f"On {NAMES[found['clause']]} {asked} {-found['limit']:.3f}: {found['detail']}."
    if found["value"] is None:
        return f"Its {NAMES[found['clause']]} are limited to {found['limit']:g}, but were not measured."
    return f"Its {NAMES[found['clause']]} are {found['value']:.3g}, above the ceiling of {found['limit']:g}."


def _untested(decision: Mapping[str, Any], system: str) -> str:
    """Return what the promotion does not rest on."""
    found = [_clause(decision, system, name) for name in ("slices", "categories")]
    notes = [
        f"{NAMES[one['clause']]} ({one['detail']})" for one in found if one["passed"] is None and "too_few" not in one
    ]
    few, tested = (len(found[1].get(key, ())) for key in ("too_few", "parts"))
    if few:
        notes.append(f"{few} of {few + tested} categories (too few contracts)")
    return f"Not tested: {' and '.join(notes)}." if notes else ""


def _others(decision: Mapping[str, Any], best: str) -> str:
    failed = {
        one["system"]: [NAMES[c["clause"]] for c in one["clauses"] if c["passed"] is False]
        for one in decision["candidates"]
        if one["system"] != best
    }
    said = [f"{system} ({names[0] if names else 'lower mean'})" for system, names in failed.items()]
    return f"Not chosen, with the first clause that each failed: {', '.join(said)}." if said else ""


def _clause(decision: Mapping[str, Any], system: str, name: str) -> Mapping[str, Any]:
    found = next(one["clauses"] for one in decision["candidates"] if one["system"] == system)
    return next(clause for clause in found if clause["clause"] == name)


def _interval(found: Mapping[str, Any], decision: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return "no interval"
    return f"{decision['confidence']:.0%} interval [{found['low']:+.3f}, {found['high']:+.3f}]"


def _p(value: float) -> str:
    return f"p = {value:.3f}" if value >= 0.001 else "p < 0.001"


Record = dict[str, Any]


def promote(run_dir: str | Path, system: str, *, reason: str, iteration: int | None = None) -> Record:
    """Make a system the champion that the next iteration starts from; return the line noted in the history.

    iteration: whose system it is (default: the newest one that has decided, which is also where the choice is kept).
    Raises InputError on a system without program, retriever or whole weights, an empty reason, a run at work, and if
    nothing would change.
    """
    newest = _newest(run_dir)
    source = runs.Iteration(newest.run, iteration or newest.number)
    with lock(newest.run):
        _settle(newest)
        chosen = _existing(source, system)
        if same_champion(chosen, decided_champion(newest)):
            raise InputError(f"{champion_label(chosen)} is the champion already: choose another system, or roll back.")
        return _by_hand(newest, "promote", chosen, reason)


def rollback(run_dir: str | Path, *, reason: str) -> Record:
    """Go back to the champion before the present one (a second call two steps); return the line noted in the history.

    Raises InputError if there is none, or if it is gone, and as `promote`.
    """
    newest = _newest(run_dir)
    with lock(newest.run):
        _settle(newest)
        line = champion_line(newest.run)
        if len(line) < 2:
            raise InputError(
                f"{champion_label(line[-1])} is the first champion of {newest.run}: there is none to go back to."
            )
        _whole(newest.run, line[-2])
        return _by_hand(newest, "rollback", line[-2], reason)


def _newest(run_dir: str | Path) -> runs.Iteration:
    run = runs.resolve_path(run_dir)
    if not (run / "run.json").is_file():
        raise InputError(f"No run in {run}: give the folder of a run, see `cuadft run`.")
    numbers = decided_iterations(run)
    if not numbers:
        raise InputError(f"No iteration of {run} has decided: finish one with `cuadft run` first.")
    return runs.Iteration(run, numbers[-1])


def _existing(iteration: runs.Iteration, system: str) -> Record:
    used = _tuned_program(iteration)
    trained = [path.name for path in iteration.path("adapters").glob("*") if has_weights(path)]
    names = [*PROGRAMS, *["retriever"] * (iteration.number > 1), *sorted(trained)]
    if system not in names:
        weightless = "has no whole weights in" if iteration.path("adapters", system).is_dir() else "is no system of"
        raise InputError(
            f"'{system}' {weightless} {iteration.dir}{did_you_mean(system, names)}: choose one of {', '.join(names)}."
        )
    chosen = system_record(iteration, system, used)
    _whole(iteration.run, chosen)
    return chosen


def _whole(run: Path, chosen: Record) -> None:
    """Raise InputError unless all parts of a champion are there."""
    wanted = [chosen["program"], chosen["retriever"] and f"{chosen['retriever']}/settings.json"]
    missing = [name for name in wanted if name and not (run / name).is_file()]
    missing += [chosen["weights"]] if chosen["weights"] and not has_weights(run / chosen["weights"]) else []
    if missing:
        raise InputError(
            f"{champion_label(chosen)} is not whole: {run / missing[0]} is missing. Choose another system, or run that "
            "iteration again."
        )


def _tuned_program(iteration: runs.Iteration) -> str:
    """Return the program that the iteration's trained systems run: as its gate noted, else as its manifest says."""
    noted = files.read_json(iteration.path(DECISION)) if iteration.path(DECISION).is_file() else {}
    if "tuned_program" in noted or not iteration.path("manifest.json").is_file():
        return noted.get("tuned_program", "rag")
    stages = files.read_json(iteration.path("manifest.json")).get("stages", {})
    return next(
        (s["parameters"]["tuned_program"] for s in stages.values() if "tuned_program" in s.get("parameters", {})), "rag"
    )


def _by_hand(newest: runs.Iteration, action: str, chosen: Record, reason: str) -> Record:
    if not reason.strip():
        raise InputError("Invalid reason '': say in a few words why, it is kept in the history.")
    line = {
        "time": history_time(),
        "iteration": newest.number,
        "action": action,
        "from": decided_champion(newest),
        "to": chosen,
        "reason": " ".join(reason.split()),
    }
    files.write_json(newest.path(BY_HAND), {"promoted": chosen} | line)
    files.append_jsonl(newest.run / HISTORY, [line])
    return line


def _settle(newest: runs.Iteration) -> None:
    """Note a choice by hand that a kill kept out of the history."""
    content = files.read_json(newest.path(BY_HAND)) if newest.path(BY_HAND).is_file() else {}
    line = {key: content[key] for key in ("time", "iteration", "action", "from", "to", "reason") if key in content}
    if line and line not in champion_history(newest.run):
        files.append_jsonl(newest.run / HISTORY, [line])
