"""The state of a run as text: stages, times, headline scores and decisions, from the files in its folder.

    print(run_status("runs/quickstart"))  # what `cuadft status` prints

Reading the state changes nothing, so that it is safe while the run is at work.
"""

from __future__ import annotations

import csv
from pathlib import Path

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.runs import BY_HAND, GATE_ACTIONS, Iteration, champion_label, outgoing_champion
from cuadft.loop.kernel import is_locked
from cuadft.loop.lineage import run_iterations
from cuadft.loop.manifest import Manifest
from cuadft.loop.stages import STAGES
from cuadft.models import usage

HEADLINE, BESIDE = "quote_f1", "detection_f1"  # `evaluation.metrics.HEADLINE`, which is not imported: it needs pandas
MISSING = "not measured"


def run_status(run_dir: str | Path) -> str:
    """Return a table of iterations, stages, states and times, with each iteration's scores and decision.

    Raises InputError if there is no run in the folder, or if a file of it can't be read.
    """
    run = runs.resolve_path(run_dir)
    lines, iterations = [f"Run {run}"], run_iterations(run)
    running = is_locked(run)
    for iteration in iterations:
        lines += ["", f"iteration {iteration.number}", *_stage_lines(iteration, running)]
        lines += [*_score_lines(iteration), *_decision_lines(iteration)]
    return "\n".join([*lines, *_history_lines(run)])


def duration_text(seconds: float) -> str:
    """Return seconds as people say them: 4.2s, 3m12s, 1h02m."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest:02d}s" if minutes < 60 else f"{minutes // 60}h{minutes % 60:02d}m"


def _stage_lines(iteration: Iteration, running: bool) -> list[str]:
    lines, recorded = [], Manifest(iteration).stages
    for stage in STAGES:
        entry = recorded.get(stage.name, {})
        state = entry.get("status", "not run")
        state = "interrupted" if state == "running" and not running else state
        took = "" if entry.get("seconds") is None else duration_text(entry["seconds"])
        error = (entry.get("error") or "").split("\n")[0]
        lines.append(f"  {stage.label:<22}{state:<13}{took:>8}  {error}".rstrip())
    attempts = [attempt for entry in recorded.values() for attempt in (entry, *entry.get("earlier", []))]
    used = usage.usage_total(row for attempt in attempts for row in (attempt.get("endpoints") or {}).values())
    return [*lines, *(f"  {usage.usage_line(row)}" for row in used)]


def _score_lines(iteration: Iteration) -> list[str]:
    """Return one line per system with its headline scores on test."""
    path = iteration.path("scoreboard.csv")
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row.get("split") == "test"]
    first, second = (
        {row["system"]: _score_text(row) for row in rows if row["metric"] == metric} for metric in (HEADLINE, BESIDE)
    )
    width = max(map(len, first.values()), default=0)
    lines = [f"    {name:<20}{text:<{width}}  {BESIDE} {second.get(name, MISSING)}" for name, text in first.items()]
    return [f"  {HEADLINE} on test (interval), with {BESIDE} beside it", *lines] if lines else []


def _score_text(row: dict[str, str]) -> str:
    """Return a score with its interval and number of questions."""
    value, low, high = (_rounded(row.get(key)) for key in ("value", "low", "high"))
    if not value:
        return MISSING
    return value + (f" [{low}, {high}]" if low and high else "") + (f"  n={row['n']}" if row.get("n") else "")


def _rounded(text: str | None) -> str:
    try:
        return f"{float(text):.3f}" if text else ""
    except ValueError:
        return "unreadable"


def _decision_lines(iteration: Iteration) -> list[str]:
    path, by_hand = iteration.path(runs.DECISION), iteration.path(BY_HAND)
    if not path.is_file():
        return []
    decision = files.read_json(path)
    if not isinstance(decision, dict):
        raise InputError(f"{path} is no decision: run the stage evaluate again.")
    incumbent, promoted, reason = (decision.get(key) for key in ("incumbent", "promoted", "reason"))
    name = champion_label(promoted) if isinstance(promoted, dict) and "system" in promoted else promoted
    lines = [f"  incumbent {incumbent}, promoted {name}: {reason}"]
    if by_hand.is_file():
        choice, chosen = files.read_json(by_hand), champion_label(outgoing_champion(iteration))
        lines.append(f"  by hand ({choice.get('action')}): {chosen}: {choice.get('reason')}")
    return lines


def _history_lines(run: Path) -> list[str]:
    """Return the champion's history, and who is champion now."""
    lines = ["", "champion"]
    for line in runs.champion_history(run):
        who = "gate" if line["action"] in GATE_ACTIONS else "hand"
        before = "" if line["action"] == "kept" else f"{champion_label(line['from'])} -> "
        what = f"iteration {line['iteration']}  by {who}  {line['action']:<9} {before}{champion_label(line['to'])}"
        lines.append(f"  {line['time']}  {what}: {line['reason']}")
    if len(lines) == 2:
        return []
    numbers = runs.decided_iterations(run)
    now = [f"  champion now: {champion_label(outgoing_champion(Iteration(run, numbers[-1])))}"] if numbers else []
    return [*lines, *now]
