"""The gate: decide on dev contracts and earlier slices of the stream whether a new system replaces the champion.

    decision = decide_champion(frame, iteration, GateRule(metric="quote_f1"))
    decision["promoted"]["system"]  # the champion from now on
    decision_paragraph(decision), decision_table(decision)  # which criterion decided, with its figures

A person can overrule the gate, with a reason that is kept beside the gate's decision and in the run's history:

    promote("runs/quickstart", "sft", reason="better on our own contracts")
    rollback("runs/quickstart", reason="worse in use")
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
from cuadft.core.runs import BY_HAND, CONSTANTS, DECISION, HISTORY, PROGRAMS, ChampionRecord, champion_label
from cuadft.evaluation.bootstrap import as_columns
from cuadft.evaluation.metrics import metric_weights
from cuadft.loop import criteria
from cuadft.loop.criteria import CRITERIA, GateRule
from cuadft.loop.kernel import lock

SLICES = "slices"  # the split that holds the questions of the slices' held-out contracts
TABLE_COLUMNS = "system score criterion passed value limit low high n n_contracts p detail".split()
LABELS = {  # of the criteria whose names say too little
    "improvement": "improvement on dev",
    "constants": "systems without a model",
    "slices": "earlier slices",
    "seconds": "seconds per answer",
    "candidates": "no candidate",
}


# The decision of the gate.


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
    """Return the decision, for decision.json: the best candidate that meets every criterion, or else the champion.

    frame: the rows of `metrics.score_predictions`, of which only dev and earlier slices count; their order changes
    nothing. Of equal means the simpler system wins. The systems `core.runs.CONSTANTS` are neither candidates nor
    champions: a candidate must beat them as well. The keys of the decision:
    action ("promoted" or "kept"), incumbent (the champion's name in the frame), incumbent_score, candidate (the system
    that was promoted or came closest), promoted (a champion's record, see `core.runs`), delta (the candidate's
    difference on dev), decided_by (the criterion that decided), reason, rule, confidence, tuned_program, and
    candidates: {"system", "score", "clauses"}, simple systems first ("clauses" holds the records of the criteria).
    Raises InputError if the champion has no dev rows, or is one of the constant systems.
    """
    rule = rule or GateRule()
    if iteration.previous and (before := runs.incoming_champion(iteration)["system"]) in CONSTANTS:
        raise InputError(
            f"The champion of iteration {iteration.number} is {before}, which only shows what others have to beat: "
            "choose another with `cuadft promote`."
        )
    rows = _deciding_rows(frame, iteration.number, rule.metric)
    incumbent = "incumbent" if iteration.previous else "rag"
    parts = {name: part for name, part in rows.groupby("system", sort=False)}
    constants = {name: parts.pop(name) for name in CONSTANTS if name in parts}
    before = parts.pop(incumbent, rows[:0])
    if not (before["part"] == criteria.DEV).any():
        raise InputError(
            f"There are no dev predictions of '{incumbent}', which the others must beat: run 03_batch_inference "
            f"with systems including '{incumbent}' and splits including 'dev'."
        )
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    improvements = criteria.improvement_criteria(before, parts, rule, **settings)
    slices = _earlier_slices(rows, iteration)
    candidates = []
    for name in sorted(parts, key=runs.simplicity):
        made = [
            improvements[name][0],
            criteria.constants_criterion(parts[name], constants, rule, **settings),
            criteria.slices_criterion(before, parts[name], rule, slices, **settings),
            criteria.categories_criterion(before, parts[name], rule, **settings),
            *criteria.ceiling_criteria(parts[name], rule, **settings),
        ]
        candidates.append({"system": name, "score": _mean(parts[name], rule.metric), "clauses": made})
    best, decided_by = _choice(candidates)
    delta = improvements[best["system"]][1] if best else None
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


def _deciding_rows(frame: pd.DataFrame, number: int, metric: str) -> pd.DataFrame:
    """Return the rows that may decide, in a fixed order: dev, and the slices before this iteration's own.

    The column `part` is "dev" or the slice's number (0: unknown). Ids are made different between parts.
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


def _earlier_slices(rows: pd.DataFrame, iteration: runs.Iteration) -> list[int]:
    """Return the numbers of earlier slices whose questions any system answered, or the iteration asked."""
    path = iteration.path("data", f"{SLICES}.jsonl")
    asked = {int(row["slice"]) for row in files.read_jsonl(path)} if path.is_file() else set()
    answered = set(rows["part"]) - {criteria.DEV}
    return sorted({number for number in asked if number < iteration.number} | answered)


def _choice(candidates: list[dict[str, Any]]) -> tuple[dict[str, Any] | None, str | None]:
    """Return the candidate to promote and None, or the one that came closest and the criterion that it failed.

    Closest is the candidate with the best mean among those that improved; if no candidate improved, among all.
    """
    measured = [one for one in candidates if not math.isnan(one["score"])]
    if not measured:
        return None, "candidates"
    failed = {one["system"]: _failed_criteria(one) for one in measured}
    passed = [one for one in measured if not failed[one["system"]]]
    improved = [one for one in measured if CRITERIA[0] not in failed[one["system"]]]
    best = max(passed or improved or measured, key=lambda one: one["score"])
    return best, next(iter(failed[best["system"]]), None)


def _failed_criteria(candidate: Mapping[str, Any]) -> list[str]:
    return [found["clause"] for found in candidate["clauses"] if found["passed"] is False]


def _mean(rows: pd.DataFrame, metric: str) -> float:
    """Return a system's mean on dev, NaN where the metric applies to no row."""
    dev = rows[rows["part"] == criteria.DEV]
    weight = metric_weights(dev, metric) * dev[metric].notna().to_numpy()
    return float((dev[metric].fillna(0) * weight).sum() / weight.sum()) if weight.sum() else math.nan


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it: NaN becomes None, and numpy's numbers become plain ones."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value


# The decision in words and as a table.


def decision_reason(decision: Mapping[str, Any]) -> str:
    """Return the decision in one line, as logs and the history show it."""
    metric, best = decision["rule"]["metric"], decision["candidate"]
    if best is None:
        return f"kept: there is no other system with {metric} on dev"
    won = decision["action"] == "promoted"
    delta, decided = decision["delta"], decision["decided_by"]
    measured = delta and delta["n"]
    figures = f"{delta['value']:+.3f} {metric}, {_interval(delta, decision)}" if measured else "not comparable"
    said = f"{'promoted' if won else 'kept'}: {best} against {decision['incumbent']} on dev: {figures}"
    if won:
        return said
    detail = _find_criterion(decision, best, decided)["detail"]
    return f"{said}; decided by {_label(decided)}" + (f": {detail}" if detail else "")


def decision_paragraph(decision: Mapping[str, Any]) -> str:
    """Return the decision in Markdown: the figures, the criterion that decided, and what was not tested or chosen."""
    best, won = decision["candidate"], decision["action"] == "promoted"
    head = f"**Promoted: {best}**" if won else f"**Kept: {decision['incumbent']}**"
    if best is None:
        metric = decision["rule"]["metric"]
        return f"{head}. No candidate has a {metric} on dev. The next iteration starts from the champion."
    own = next(one for one in decision["candidates"] if one["system"] == best)
    decided = _find_criterion(decision, best, decision["decided_by"])
    parts = [f"{head}, decided by {_label(decided['clause'])}. {_improved(decision, own)}"]
    if decided["clause"] != "improvement":
        value = "not measured" if decided["value"] is None else f"{decided['value']:.3g}"
        because = f" ({decided['detail']})" if decided["detail"] not in ("", value) else ""
        parts.append(f"Its figure for {_label(decided['clause'])}: {value}, limit {decided['limit']:g}{because}.")
    untested = [f"{_label(one['clause'])} ({one['detail']})" for one in own["clauses"] if one["passed"] is None]
    if few := _find_criterion(decision, best, "categories").get("too_few"):
        untested.append(f"{len(few)} categories (too few contracts)")
    others = [one for one in decision["candidates"] if one["system"] != best]
    why = [f"{one['system']} ({next(map(_label, _failed_criteria(one)), 'lower mean')})" for one in others]
    for title, listed in (("Not tested", untested), ("Not chosen", why)):
        parts += [f"{title}: {', '.join(listed)}."] if listed else []
    return " ".join(parts)


def _improved(decision: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Return the sentence on how much better or worse a candidate is on dev."""
    found, metric = _find_criterion(decision, own["system"], "improvement"), decision["rule"]["metric"]
    if found["value"] is None:
        return f"{own['system']} could not be compared: {found['detail']}."
    p = "" if found["p"] is None else ", p < 0.001" if found["p"] < 0.001 else f", p = {found['p']:.3f}"
    return (
        f"On {found['n']} dev questions of {found['n_contracts']} contracts {own['system']} has a {metric} of "
        f"{own['score']:.3f} against {decision['incumbent_score']:.3f}: {found['value']:+.3f}, "
        f"{_interval(found, decision)}{p}, limit {found['limit']:+.3f} ({found['detail']})."
    )


def decision_table(decision: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per candidate and criterion.

    p is corrected by Holm for improvement and categories, and one-sided for the constant systems and the slices.
    """
    rows = [
        {"system": one["system"], "score": one["score"]} | found
        for one in decision["candidates"]
        for found in one["clauses"]
    ]
    return pd.DataFrame(rows).rename(columns={"clause": "criterion"}).reindex(columns=TABLE_COLUMNS)


def _label(name: str) -> str:
    return LABELS.get(name, name.replace("_", " "))


def _find_criterion(decision: Mapping[str, Any], system: str, name: str) -> Mapping[str, Any]:
    found = next(one["clauses"] for one in decision["candidates"] if one["system"] == system)
    return next(one for one in found if one["clause"] == name)


def _interval(found: Mapping[str, Any], decision: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return "no interval"
    return f"{decision['confidence']:.0%} interval [{found['low']:+.3f}, {found['high']:+.3f}]"


# The champion chosen by hand.


def promote(run_dir: str | Path, system: str, *, reason: str, iteration: int | None = None) -> ChampionRecord:
    """Make a system the champion that the next iteration starts from; return the line noted in the history.

    iteration: the iteration whose system it is (default: the newest that has decided). The choice is kept beside the
    newest decision. Raises InputError on a system without program, retriever or whole weights, an empty reason, a run
    at work, and if nothing would change.
    """
    newest = _newest_decided(run_dir)
    source = runs.Iteration(newest.run, iteration or newest.number)
    with lock(newest.run):
        _complete_history(newest)
        chosen = _whole_system(source, system)
        if runs.same_champion(chosen, runs.outgoing_champion(newest)):
            raise InputError(f"{champion_label(chosen)} is the champion already: choose another system, or roll back.")
        return _note_choice(newest, "promote", chosen, reason)


def rollback(run_dir: str | Path, *, reason: str) -> ChampionRecord:
    """Go back to the champion before the present one; return the line noted in the history.

    A second call goes back two steps. Raises InputError if the present champion is the first, if the one before is
    gone, and as `promote`.
    """
    newest = _newest_decided(run_dir)
    with lock(newest.run):
        _complete_history(newest)
        line = runs.champion_line(newest.run)
        if len(line) < 2:
            first = champion_label(line[-1])
            raise InputError(f"{first} is the first champion of {newest.run}: there is none to go back to.")
        _require_whole(newest.run, line[-2])
        return _note_choice(newest, "rollback", line[-2], reason)


def _newest_decided(run_dir: str | Path) -> runs.Iteration:
    run = runs.resolve_path(run_dir)
    if not (run / "run.json").is_file():
        raise InputError(f"No run in {run}: give the folder of a run, see `cuadft run`.")
    numbers = runs.decided_iterations(run)
    if not numbers:
        raise InputError(f"No iteration of {run} has decided: finish one with `cuadft run` first.")
    return runs.Iteration(run, numbers[-1])


def _whole_system(iteration: runs.Iteration, system: str) -> ChampionRecord:
    """Return the record of a system of an iteration; raises InputError unless all its parts are there."""
    folders = [path for path in iteration.path("adapters").glob("*") if runs.has_weights(path)]
    trained = [path.name for path in folders if path.name not in CONSTANTS]
    names = [*PROGRAMS, *["retriever"] * (iteration.number > 1), *sorted(trained)]
    if system not in names:
        problem = "has no whole weights in" if iteration.path("adapters", system).is_dir() else "is no system of"
        hint = did_you_mean(system, names)
        raise InputError(f"'{system}' {problem} {iteration.dir}{hint}: choose one of {', '.join(names)}.")
    chosen = runs.system_record(iteration, system, _tuned_program(iteration))
    _require_whole(iteration.run, chosen)
    return chosen


def _require_whole(run: Path, chosen: ChampionRecord) -> None:
    """Raise InputError unless all parts of a champion are there."""
    wanted = [chosen["program"], chosen["retriever"] and f"{chosen['retriever']}/settings.json"]
    missing = [name for name in wanted if name and not (run / name).is_file()]
    missing += [chosen["weights"]] if chosen["weights"] and not runs.has_weights(run / chosen["weights"]) else []
    if missing:
        raise InputError(
            f"{champion_label(chosen)} is not whole: {run / missing[0]} is missing. Choose another system, or run that "
            "iteration again."
        )


def _tuned_program(iteration: runs.Iteration) -> str:
    """Return the program that the iteration's trained systems run: as its gate noted it, else as its manifest says."""
    decision, manifest = iteration.path(DECISION), iteration.path("manifest.json")
    known = [files.read_json(decision)] if decision.is_file() else []
    stages = files.read_json(manifest).get("stages", {}) if manifest.is_file() else {}
    known += [stage.get("parameters", {}) for stage in stages.values()]
    return next((one["tuned_program"] for one in known if "tuned_program" in one), "rag")


def _note_choice(newest: runs.Iteration, action: str, chosen: ChampionRecord, reason: str) -> ChampionRecord:
    """Write by_hand.json and the line of the history; return the line."""
    if not reason.strip():
        raise InputError("Invalid reason '': say in a few words why, it is kept in the history.")
    line = {
        "time": runs.history_time(),
        "iteration": newest.number,
        "action": action,
        "from": runs.outgoing_champion(newest),
        "to": chosen,
        "reason": " ".join(reason.split()),
    }
    files.write_json(newest.path(BY_HAND), {"promoted": chosen} | line)
    files.append_jsonl(newest.run / HISTORY, [line])
    return line


def _complete_history(newest: runs.Iteration) -> None:
    """Add to the history a choice by hand whose line a kill left unwritten."""
    content = files.read_json(newest.path(BY_HAND)) if newest.path(BY_HAND).is_file() else {}
    line = {key: content[key] for key in ("time", "iteration", "action", "from", "to", "reason") if key in content}
    if line and line not in runs.champion_history(newest.run):
        files.append_jsonl(newest.run / HISTORY, [line])
