"""Promote or roll back by hand, with a reason: kept beside the gate's decision and in the run's history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cuadft import runs
from cuadft.champion import (
    BY_HAND,
    DECISION,
    HISTORY,
    PROGRAMS,
    champions,
    decided,
    decided_iterations,
    has_weights,
    history,
    label,
    now,
    place,
    same,
)
from cuadft.errors import InputError
from cuadft.holder import lock
from cuadft.params import nearest

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
        if same(chosen, decided(newest)):
            raise InputError(f"{label(chosen)} is the champion already: choose another system, or roll back.")
        return _by_hand(newest, "promote", chosen, reason)


def rollback(run_dir: str | Path, *, reason: str) -> Record:
    """Go back to the champion before the present one (a second call two steps); return the line noted in the history.

    Raises InputError if there is none, or if it is gone, and as `promote`.
    """
    newest = _newest(run_dir)
    with lock(newest.run):
        _settle(newest)
        line = champions(newest.run)
        if len(line) < 2:
            raise InputError(f"{label(line[-1])} is the first champion of {newest.run}: there is none to go back to.")
        _whole(newest.run, line[-2])
        return _by_hand(newest, "rollback", line[-2], reason)


def _newest(run_dir: str | Path) -> runs.Iteration:
    run = runs.resolve(run_dir)
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
        raise InputError(f"'{system}' {weightless} {iteration.dir}{nearest(system, names)}: choose one of {', '.join(names)}.")
    chosen = place(iteration, system, used)
    _whole(iteration.run, chosen)
    return chosen


def _whole(run: Path, chosen: Record) -> None:
    """Raise InputError unless all parts of a champion are there."""
    wanted = [chosen["program"], chosen["retriever"] and f"{chosen['retriever']}/settings.json"]
    missing = [name for name in wanted if name and not (run / name).is_file()]
    missing += [chosen["weights"]] if chosen["weights"] and not has_weights(run / chosen["weights"]) else []
    if missing:
        raise InputError(f"{label(chosen)} is not whole: {run / missing[0]} is missing. Choose another system, or run that "
                         "iteration again.")


def _tuned_program(iteration: runs.Iteration) -> str:
    """Return the program that the iteration's trained systems run: as its gate noted, else as its manifest says."""
    noted = runs.read_json(iteration.path(DECISION)) if iteration.path(DECISION).is_file() else {}
    if "tuned_program" in noted or not iteration.path("manifest.json").is_file():
        return noted.get("tuned_program", "rag")
    stages = runs.read_json(iteration.path("manifest.json")).get("stages", {})
    return next((s["parameters"]["tuned_program"] for s in stages.values() if "tuned_program" in s.get("parameters", {})),
                "rag")


def _by_hand(newest: runs.Iteration, action: str, chosen: Record, reason: str) -> Record:
    if not reason.strip():
        raise InputError("Invalid reason '': say in a few words why, it is kept in the history.")
    line = {"time": now(), "iteration": newest.number, "action": action, "from": decided(newest), "to": chosen,
            "reason": " ".join(reason.split())}
    runs.write_json(newest.path(BY_HAND), {"promoted": chosen} | line)
    runs.append_jsonl(newest.run / HISTORY, [line])
    return line


def _settle(newest: runs.Iteration) -> None:
    """Note a choice by hand that a kill kept out of the history."""
    content = runs.read_json(newest.path(BY_HAND)) if newest.path(BY_HAND).is_file() else {}
    line = {key: content[key] for key in ("time", "iteration", "action", "from", "to", "reason") if key in content}
    if line and line not in history(newest.run):
        runs.append_jsonl(newest.run / HISTORY, [line])
