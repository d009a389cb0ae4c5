"""The state of a run as text: stages, times, headline scores and decisions, from the files in its folder.

    print(run_status("runs/quickstart"))  # what `cuadft status` prints

Reading the state changes nothing, so that it is safe while the run is at work.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cuadft.core import runs
from cuadft.core.recorded import run_iterations
from cuadft.core.runs import GATE_ACTIONS, Iteration, champion_label, outgoing_champion
from cuadft.loop.kernel import is_locked
from cuadft.loop.manifest import Manifest
from cuadft.loop.stages import STAGES
from cuadft.models import usage

MISSING = "not measured"
REPORT = "report.html"  # in the run folder, from `cuadft report`


def run_status(run_dir: str | Path) -> str:
    """Return the stages of each iteration with states and times, its headline scores, and the champion's history.

    Raises InputError if there is no run in the folder, or if a file of it can't be read.
    """
    run = runs.resolve_path(run_dir)
    lines, running = [f"Run {run}"], is_locked(run)
    for iteration in run_iterations(run):
        lines += ["", f"iteration {iteration.number}", *_stage_lines(iteration, running), *_score_lines(iteration)]
    page = ["", f"report  {run / REPORT}"] if (run / REPORT).is_file() else []
    return "\n".join([*lines, *_history_lines(run), *page])


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
    return [*lines, *(f"  {line}" for line in api_use(recorded.values()))]


def api_use(entries: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a line for each API model that stages asked, in all their attempts: calls, tokens and cost."""
    attempts = [attempt for entry in entries for attempt in (entry, *entry.get("earlier", []))]
    used = usage.usage_total(row for attempt in attempts for row in (attempt.get("endpoints") or {}).values())
    return list(map(usage.usage_line, used))


def _score_lines(iteration: Iteration) -> list[str]:
    """Return a table of the systems' headline scores on test."""
    import pandas as pd

    from cuadft.evaluation.metrics import HEADLINE

    path = iteration.path("scoreboard.csv")
    if not path.is_file():
        return []
    board = pd.read_csv(path).query("split == 'test' and metric in @HEADLINE")
    if board.empty:
        return []
    board = board.assign(text=[score_text(row) for row in board.to_dict("records")])
    table = board.pivot(index="system", columns="metric", values="text").reindex(board["system"].unique())
    shown = table.reindex(columns=list(HEADLINE)).fillna(MISSING).rename_axis(index=None, columns="on test")
    return [f"  {line}" for line in shown.to_string().splitlines()]


def score_text(row: Mapping[str, Any]) -> str:
    """Return a score with its interval and number of questions."""
    if row["value"] != row["value"]:  # NaN
        return MISSING
    bounds = "" if row["low"] != row["low"] else f" [{row['low']:.3f}, {row['high']:.3f}]"
    return f"{row['value']:.3f}{bounds} n={row['n']}"


def _history_lines(run: Path) -> list[str]:
    """Return the champion's history, and who is champion now."""
    lines = []
    for line in runs.champion_history(run):
        who = "gate" if line["action"] in GATE_ACTIONS else "hand"
        before = "" if line["action"] == "kept" else f"{champion_label(line['from'])} -> "
        what = f"iteration {line['iteration']}  by {who}  {line['action']:<9} {before}{champion_label(line['to'])}"
        lines.append(f"  {line['time']}  {what}: {line['reason']}")
    if numbers := runs.decided_iterations(run):
        lines.append(f"  champion now: {champion_label(outgoing_champion(Iteration(run, numbers[-1])))}")
    return ["", "champion", *lines] if lines else []
