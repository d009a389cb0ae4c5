"""The gate: decide on dev contracts and earlier slices of the stream whether a new system replaces the champion.

    decision = decide_champion(frame, iteration, GateRule(metric="quote_f1"))
    decision["promoted"]["system"]  # the champion from now on
    decision_paragraph(decision), decision_table(decision)  # which criterion decided, with its figures

A decision holds: action ("promoted" or "kept"), incumbent (the champion's name in the frame), incumbent_score,
candidate (the system that was promoted or came closest), promoted (a champion's record, see `core.runs`), decided_by
(the criterion that decided, or "candidates" if there are none), reason, rule, confidence, tuned_program, and
candidates: {"system", "score", "clauses"} ("clauses" holds the records of the criteria, see `criteria`).

A person can overrule the gate, with a reason that is kept beside the gate's decision and in the run's history:

    promote("runs/quickstart", "sft", reason="better on our own contracts")
    promote("runs/quickstart", "sft", reason="worse in use", iteration=1)  # back to an earlier one
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.recorded import check_system, recorded_parameters
from cuadft.core.runs import BY_HAND, CONSTANTS, DECISION, HISTORY, ChampionRecord, champion_label
from cuadft.loop import criteria
from cuadft.loop.criteria import CRITERIA, GateRule
from cuadft.loop.kernel import lock

SLICES = "slices"  # the split that holds the questions of the slices' held-out contracts
LINE_KEYS = ("time", "iteration", "action", "from", "to", "reason")  # of the history
TABLE_COLUMNS = "system score criterion passed value limit low high n n_contracts p detail".split()


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
    champions: a candidate must beat them as well. The module's docstring names the keys of the decision.
    Raises InputError if the champion has no dev rows, or is one of the constant systems.
    """
    rule, incumbent = rule or GateRule(), _incumbent(iteration)
    _check_judge(rule, recorded_parameters(iteration))
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    score, candidates = _test_candidates(frame, iteration, incumbent, rule, settings)
    best, decided_by = _choice(candidates)
    won = best is not None and decided_by is None
    decision = {
        "action": "promoted" if won else "kept",
        "incumbent": incumbent,
        "incumbent_score": score,
        "candidate": best and best["system"],
        "promoted": runs.system_record(iteration, best["system"] if won else incumbent, tuned_program),
        "decided_by": decided_by or CRITERIA[0],
        "rule": asdict(rule),
        "confidence": confidence,
        "tuned_program": tuned_program,
        "candidates": candidates,
    }
    return files.plain_value(decision | {"reason": _reason(decision)})


def _check_judge(rule: GateRule, parameters: Mapping[str, object]) -> None:
    """Raise InputError if the judge whose score decides has also rewarded the training."""
    rewarded = "judge_score" if parameters.get("judge_lm") else "reference_score"
    if parameters.get("reward_source") == "judge" and parameters.get("align_methods") and rule.metric == rewarded:
        raise InputError(
            f"The judge behind gate_metric {rule.metric} also gave the reward of 06_align (reward_source), so that "
            "its score shows what was trained for: choose gate_metric quote_f1, or reward_source gold."
        )


def _incumbent(iteration: runs.Iteration) -> str:
    """Return the champion's name in the rows; raises InputError if it is one of the constant systems."""
    if not iteration.previous:
        return "rag"
    if (before := runs.incoming_champion(iteration)["system"]) in CONSTANTS:
        raise InputError(
            f"The champion of iteration {iteration.number} is {before}, which only shows what others have to beat: "
            "choose another with `cuadft promote`."
        )
    return "incumbent"


def _test_candidates(
    frame: pd.DataFrame, iteration: runs.Iteration, incumbent: str, rule: GateRule, settings: dict[str, Any]
) -> tuple[float, list[dict[str, Any]]]:
    """Return the champion's mean on dev, and each candidate with its own and its criteria, simple systems first."""
    rows = _deciding_rows(frame, iteration.number, rule.metric)
    parts = {name: part for name, part in rows.groupby("system", sort=False)}
    constants = {name: parts.pop(name) for name in CONSTANTS if name in parts}
    before = parts.pop(incumbent, rows[:0])
    if not (before["part"] == criteria.DEV).any():
        raise InputError(
            f"There are no dev predictions of '{incumbent}', which the others must beat: run 03_batch_inference "
            f"with systems including '{incumbent}' and splits including 'dev'."
        )
    improvements = criteria.improvement_criteria(before, parts, rule, **settings)
    slices, candidates = _earlier_slices(rows, iteration), []
    for name in sorted(parts, key=runs.simplicity):
        made = [
            improvements[name],
            criteria.constants_criterion(parts[name], constants, rule, **settings),
            criteria.slices_criterion(before, parts[name], rule, slices, **settings),
            criteria.categories_criterion(before, parts[name], rule, **settings),
            *criteria.ceiling_criteria(parts[name], rule, **settings),
        ]
        candidates.append({"system": name, "score": _dev_mean(parts[name], rule.metric), "clauses": made})
    return _dev_mean(before, rule.metric), candidates


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


def _dev_mean(rows: pd.DataFrame, metric: str) -> float:
    return criteria.mean_of(rows[rows["part"] == criteria.DEV], metric)


# The decision in words and as a table.


def _reason(decision: Mapping[str, Any]) -> str:
    """Return the decision in one line, as logs and the history show it."""
    metric, best, decided_by = decision["rule"]["metric"], decision["candidate"], decision["decided_by"]
    if best is None:
        return f"kept: there is no other system with {metric} on dev"
    found = {one["clause"]: one for one in _criteria_of(decision, best)}
    gain, decided = found[CRITERIA[0]], found[decided_by]
    figures = "not comparable"
    if gain["n"]:
        bounds = f", {decision['confidence']:.0%} interval [{gain['low']:+.3f}, {gain['high']:+.3f}]"
        figures = f"{gain['value']:+.3f} {metric}" + ("" if math.isnan(gain["low"]) else bounds)
    said = f"{decision['action']}: {best} against {decision['incumbent']} on dev: {figures}"
    limit = "" if decided["limit"] is None else f", limit {decided['limit']:g}"
    return f"{said}; decided by {decided_by.replace('_', ' ')}{limit}: {decided['detail']}"


def decision_paragraph(decision: Mapping[str, Any]) -> str:
    """Return the decision in Markdown: its reason, and the criteria that were not tested, with why."""
    head, _, reason = decision["reason"].partition(": ")
    own = _criteria_of(decision, decision["candidate"])
    untested = [f"{one['clause']} ({one['detail']})" for one in own if one["passed"] is None]
    return f"**{head.capitalize()}**: {reason}." + (f" Not tested: {', '.join(untested)}." if untested else "")


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


def _criteria_of(decision: Mapping[str, Any], system: str | None) -> list[criteria.Criterion]:
    return next((one["clauses"] for one in decision["candidates"] if one["system"] == system), [])


# The champion chosen by hand.


def promote(run_dir: str | Path, system: str, *, reason: str, iteration: int | None = None) -> ChampionRecord:
    """Make a system the champion that the next iteration starts from; return the line noted in the history.

    iteration: the iteration whose system it is (default: the newest that has decided). The choice is kept beside the
    newest decision. Raises InputError on a system without program, retriever or whole weights, an empty reason, a run
    at work, and if nothing would change.
    """
    with _newest_decided(run_dir) as newest:
        source = runs.Iteration(newest.run, iteration or newest.number)
        check_system(source, system)
        chosen = runs.system_record(source, system, _tuned_program(source))
        if runs.same_champion(chosen, runs.outgoing_champion(newest)):
            raise InputError(f"{champion_label(chosen)} is the champion already: choose another one.")
        return _note_choice(newest, chosen, reason)


@contextmanager
def _newest_decided(run_dir: str | Path) -> Iterator[runs.Iteration]:
    """Lend the newest iteration that has decided, in a locked run folder.

    A choice by hand whose line a kill kept out of the history is added to it first.
    """
    run = runs.resolve_path(run_dir)
    numbers = runs.decided_iterations(run)
    if not numbers:
        raise InputError(f"No iteration of {run} has decided: finish one with `cuadft run` first.")
    newest = runs.Iteration(run, numbers[-1])
    with lock(run):
        content = files.read_json(newest.path(BY_HAND)) if newest.path(BY_HAND).is_file() else {}
        line = {key: content[key] for key in LINE_KEYS if key in content}
        if line and line not in runs.champion_history(run):
            files.append_jsonl(run / HISTORY, [line])
        yield newest


def _tuned_program(iteration: runs.Iteration) -> str:
    """Return the program that the iteration's trained systems run: as its gate noted it, else as its manifest says."""
    path = iteration.path(DECISION)
    known = recorded_parameters(iteration) | (files.read_json(path) if path.is_file() else {})
    return str(known.get("tuned_program", "rag"))


def _note_choice(newest: runs.Iteration, chosen: ChampionRecord, reason: str) -> ChampionRecord:
    """Write by_hand.json and the line of the history, if all parts of the champion are there; return the line."""
    run = newest.run
    wanted = [chosen["program"], chosen["retriever"] and f"{chosen['retriever']}/settings.json"]
    missing = [name for name in wanted if name and not (run / name).is_file()]
    missing += [chosen["weights"]] if chosen["weights"] and not runs.has_weights(run / chosen["weights"]) else []
    if missing:
        raise InputError(
            f"{champion_label(chosen)} is not whole: {run / missing[0]} is missing. Choose another system."
        )
    if not reason.strip():
        raise InputError("Invalid reason '': say in a few words why, it is kept in the history.")
    said, before = " ".join(reason.split()), runs.outgoing_champion(newest)
    line = dict(zip(LINE_KEYS, (runs.history_time(), newest.number, "promote", before, chosen, said), strict=True))
    files.write_json(newest.path(BY_HAND), {"promoted": chosen} | line)
    files.append_jsonl(run / HISTORY, [line])
    return line
