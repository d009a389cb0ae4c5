"""Views of a run in experiment trackers: MLflow, TensorBoard and Trackio, each in a local store.

    check_trackers(["tensorboard"])  # before anything is computed
    shown = {"parameters": parameters, "board": board, "figures": figures, "decision": decision}
    report_to_trackers(iteration, ["tensorboard"], **shown)  # a table with one row per tracker

The run folder is the truth, and a tracker only shows it. What a tracker lacks, the next call sends.
TensorBoard draws each system as a line over the iterations. Trackio gets a project named after the run, and a Trackio
run for each iteration. MLflow's view stands in `mlflow_view`.
Trackio reads its settings from the environment when it is imported, and they can make it send data to a server. So a
separate process writes its view, with a folder of its own and without these settings. That process is `python -m
cuadft.loop.trackers PROJECT`, which reads from stdin what to write.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.core import runs
from cuadft.core.errors import InputError, brief, redact
from cuadft.core.params import did_you_mean
from cuadft.loop import snapshot
from cuadft.loop.snapshot import Snapshot, tracker_store

if TYPE_CHECKING:
    import pandas as pd
    from torch.utils.tensorboard import SummaryWriter

TRACKERS = ("mlflow", "tensorboard", "trackio")
REPORT_COLUMNS = ("tracker", "store", "iterations", "scores", "figures", "failed", "error")
NO_SYSTEM = "loop"  # TensorBoard's folder for what belongs to no system: figures, parameters and decisions
TENSORBOARD_PART = {"prefix": ".tensorboard.", "suffix": ".tmp"}  # the name of a view that is being written
TRACKIO_PART = ".trackio.tmp"
TRACKIO_TIMEOUT = 120  # seconds


def check_trackers(report_to: Sequence[str]) -> None:
    """Raise InputError on a tracker that is unknown or not installed, before anything is computed."""
    for name in report_to:
        if name not in TRACKERS:
            hint = did_you_mean(name, TRACKERS)
            raise InputError(f"Invalid tracker {name!r} in report_to{hint}: choose from {', '.join(TRACKERS)}.")
        if not _installed(name):
            raise InputError(
                f"report_to names {name!r}, which is not installed: run `pip install -e '.[{name}]'` in the "
                f"project's folder, or take {name!r} out of report_to."
            )


def report_to_trackers(
    iteration: runs.Iteration,
    report_to: Sequence[str],
    *,
    parameters: Mapping[str, object],
    board: pd.DataFrame,
    figures: Iterable[str | Path],
    decision: Mapping[str, Any],
) -> pd.DataFrame:
    """Show an iteration, and earlier ones that a tracker lacks, in each tracker; return one row per tracker.

    parameters: of all stages, see `snapshot.shown_parameters`. board: as scoreboard.csv. figures: PNG files. decision:
    as decision.json. Columns of the result: `REPORT_COLUMNS`. A tracker that fails costs nothing but its view: its row
    says so, and the next call sends what is missing.
    """
    check_trackers(report_to)
    shown = {"parameters": parameters, "board": board, "figures": figures, "decision": decision}

    def snapshots() -> list[Snapshot]:
        known = snapshot.finished_snapshots(iteration.run)
        earlier = [old for old in known if old.iteration.number < iteration.number]
        return [*earlier, snapshot.take_snapshot(iteration, **shown)]

    return _report([_send(name, iteration.run, snapshots) for name in dict.fromkeys(report_to)])


def follow_run(run_dir: str | Path) -> pd.DataFrame:
    """Bring the trackers that show this run up to date, as after a choice by hand; return `report_to_trackers`'s rows.

    A tracker that has no view of the run, or is not installed here, is left out.
    """
    run = runs.resolve_path(run_dir)

    def snapshots() -> list[Snapshot]:
        return snapshot.finished_snapshots(run)

    sent = [_send(name, run, snapshots, only_known=True) for name in TRACKERS if _installed(name)]
    return _report([row for row in sent if row])


def _installed(name: str) -> bool:
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None  # a mere folder of that name has no origin


def _send(name: str, run: Path, snapshots: Callable[[], list[Snapshot]], *, only_known: bool = False) -> dict | None:
    """Send a view; return the tracker's row: what was sent, or what failed.

    With `only_known`, a view that is not there yet is not made; then the result is None.
    """
    row = dict.fromkeys(REPORT_COLUMNS, 0) | {"tracker": name, "store": "", "error": ""}
    try:
        send, exists = _sender(name)
        if only_known and not exists(run):
            return None
        shown = snapshots()
        row["store"] = snapshot.clean_value(send(run, shown))
    except Exception as error:  # whatever a tracker raises, the stage has its results; the row shows and counts it
        return row | {"failed": 1, "error": snapshot.clean_value(brief(error))}
    row |= {"iterations": len(shown), "scores": sum(len(one.board) for one in shown)}
    return row | {"figures": sum(len(one.figures) for one in shown)}


def _sender(name: str) -> tuple[Callable[[Path, Sequence[Snapshot]], str], Callable[[Path], bool]]:
    """Return the function that sends a tracker's view of a run, and the one that tells whether the view exists."""
    if name == "mlflow":
        from cuadft.loop import mlflow_view

        return mlflow_view.send_mlflow, mlflow_view.mlflow_exists
    return {"tensorboard": (send_tensorboard, tensorboard_exists), "trackio": (send_trackio, trackio_exists)}[name]


def _report(rows: list[dict]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(REPORT_COLUMNS))


# TensorBoard.


def send_tensorboard(run: Path, snapshots: Sequence[Snapshot]) -> str:
    """Write the view anew, since event files are only ever appended to; return its folder."""
    folder = tracker_store(run, "tensorboard")
    folder.parent.mkdir(parents=True, exist_ok=True)
    part_names = f"{TENSORBOARD_PART['prefix']}*{TENSORBOARD_PART['suffix']}"
    for left_by_a_kill in folder.parent.glob(part_names):
        shutil.rmtree(left_by_a_kill)
    with tempfile.TemporaryDirectory(dir=folder.parent, **TENSORBOARD_PART) as part:
        _write_events(Path(part, "new"), snapshots)
        if folder.exists():
            os.replace(folder, Path(part, "old"))
        os.replace(Path(part, "new"), folder)
    return str(folder)


def tensorboard_exists(run: Path) -> bool:
    """Tell whether the run has TensorBoard's view."""
    return tracker_store(run, "tensorboard").is_dir()


def _write_events(folder: Path, snapshots: Sequence[Snapshot]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writers: dict[str, SummaryWriter] = {}
    try:
        writers[NO_SYSTEM] = SummaryWriter(str(folder / NO_SYSTEM))
        for one in snapshots:
            step = one.iteration.number
            for (split, metric, system), known in one.scores().items():
                if system not in writers:
                    writers[system] = SummaryWriter(str(folder / system))
                for part, value in known.items():
                    tag = f"{split}/{metric}" + ("" if part == "value" else f".{part}")
                    writers[system].add_scalar(tag, value, step)
            _write_texts_and_figures(writers[NO_SYSTEM], one)
    finally:
        for writer in writers.values():
            writer.close()


def _write_texts_and_figures(writer: SummaryWriter, one: Snapshot) -> None:
    import numpy as np
    from PIL import Image

    step, chosen = one.iteration.number, runs.champion_label(one.champion) if one.champion else "none"
    for path in one.figures:
        with Image.open(path) as image:
            writer.add_image(f"figures/{path.stem}", np.asarray(image.convert("RGB")), step, dataformats="HWC")
    rows = "\n".join(f"| {name} | {value.replace('|', '/')} |" for name, value in one.parameters.items())
    writer.add_text("parameters", f"| parameter | value |\n| --- | --- |\n{rows}", step)
    writer.add_text("decision", f"Champion: **{chosen}**\n\n{one.decision.get('reason', '')}", step)


# Trackio.


def send_trackio(run: Path, snapshots: Sequence[Snapshot]) -> str:
    """Write the view anew, since Trackio only appends; return its folder. Raises RuntimeError if Trackio fails."""
    folder = tracker_store(run, "trackio")
    part = folder.with_name(TRACKIO_PART)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    own = {"TRACKIO_DIR": str(part), "TRACKIO_STORAGE_MODE": "sqlite", "HF_HUB_OFFLINE": "1"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRACKIO_")} | own
    done = subprocess.run(
        [sys.executable, "-m", "cuadft.loop.trackers", run.name],
        env=environment,
        text=True,
        input=json.dumps([_as_json(one) for one in snapshots]),
        capture_output=True,
        timeout=TRACKIO_TIMEOUT,
    )
    if done.returncode:
        raise RuntimeError(f"trackio: {redact(done.stderr.strip())[-300:]}")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
    return str(folder)


def trackio_exists(run: Path) -> bool:
    """Tell whether the run has Trackio's view."""
    return tracker_store(run, "trackio").is_dir()


def _as_json(one: Snapshot) -> dict[str, Any]:
    """Return an iteration as JSON-able values: parameters, figures, the decision, and scores ("test/quote_f1/sft")."""
    scores = {
        f"{split}/{metric}/{system}" + ("" if part == "value" else f".{part}"): value
        for (split, metric, system), known in one.scores().items()
        for part, value in known.items()
    }
    chosen = runs.champion_label(one.champion) if one.champion else "none"
    config = dict(one.parameters) | {"champion": chosen, "decision": str(one.decision.get("reason", ""))}
    return {
        "name": one.iteration.dir.name,
        "step": one.iteration.number,
        "config": config,
        "scores": scores,
        "figures": {path.stem: str(path) for path in one.figures},
    }


def write_trackio(project: str, contents: Sequence[dict[str, Any]]) -> None:
    """Write iterations into Trackio's folder, which the environment variable TRACKIO_DIR names."""
    import trackio

    quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    for one in contents:
        trackio.init(project=project, name=one["name"], config=one["config"], **quiet)
        figures = {f"figures/{name}": trackio.Image(path) for name, path in one["figures"].items()}
        trackio.log(one["scores"] | figures, step=one["step"])
        trackio.finish()


if __name__ == "__main__":
    write_trackio(sys.argv[1], json.load(sys.stdin))
