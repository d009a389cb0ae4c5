"""Views of a run in experiment trackers: MLflow, TensorBoard and Trackio, each in a local store.

    check_trackers(["tensorboard"])  # before anything is computed
    report_to_trackers(iteration, ["tensorboard"])  # a table with one row per tracker

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.core import runs
from cuadft.core.errors import InputError, brief, redact
from cuadft.core.params import did_you_mean
from cuadft.loop.snapshot import Snapshot, clean_value, finished_snapshots, tracker_store

if TYPE_CHECKING:
    import pandas as pd

TRACKERS = ("mlflow", "tensorboard", "trackio")
REPORT_COLUMNS = ("tracker", "store", "iterations", "scores", "figures", "failed", "error")
NO_SYSTEM = "loop"  # TensorBoard's folder for what belongs to no system: figures, parameters and decisions
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


def report_to_trackers(iteration: runs.Iteration, report_to: Sequence[str]) -> pd.DataFrame:
    """Show an iteration that has decided, and what a tracker lacks of others, in each tracker; return a row of each.

    Columns of the result: `REPORT_COLUMNS`. A tracker that fails costs nothing but its view: its row says so, and the
    next call sends what is missing.
    """
    check_trackers(report_to)
    return _report([_send(name, iteration.run) for name in dict.fromkeys(report_to)])


def follow_run(run_dir: str | Path) -> pd.DataFrame:
    """Bring the trackers that show this run up to date, as after a choice by hand; return `report_to_trackers`'s rows.

    A tracker that has no view of the run, or is not installed here, is left out.
    """
    run = runs.resolve_path(run_dir)
    return _report([_send(name, run, only_known=True) for name in TRACKERS if _installed(name)])


def _installed(name: str) -> bool:
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None  # a mere folder of that name has no origin


def _send(name: str, run: Path, *, only_known: bool = False) -> dict[str, Any] | None:
    """Send a view; return the tracker's row: what was sent, or what failed.

    With `only_known`, a view that is not there yet is not made; then the result is None.
    """
    row = dict.fromkeys(REPORT_COLUMNS, 0) | {"tracker": name, "store": "", "error": ""}
    try:
        send, exists = _view(name)
        if only_known and not exists(run):
            return None
        shown = finished_snapshots(run)
        row["store"] = clean_value(send(run, shown))
    except Exception as error:  # whatever a tracker raises, the stage has its results; the row shows and counts it
        return row | {"failed": 1, "error": clean_value(brief(error))}
    row |= {"iterations": len(shown), "scores": sum(len(one.board) for one in shown)}
    return row | {"figures": sum(len(one.figures) for one in shown)}


def _view(name: str) -> tuple[Callable[[Path, Sequence[Snapshot]], str], Callable[[Path], bool]]:
    """Return the function that sends a tracker's view of a run, and the one that tells whether the view exists."""
    if name == "mlflow":
        from cuadft.loop import mlflow_view

        return mlflow_view.send_mlflow, mlflow_view.mlflow_exists
    send = send_tensorboard if name == "tensorboard" else send_trackio
    return send, lambda run: tracker_store(run, name).is_dir()


def _report(rows: list[dict[str, Any] | None]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([row for row in rows if row], columns=list(REPORT_COLUMNS))


@contextmanager
def _anew(folder: Path) -> Iterator[Path]:
    """Lend an empty folder that replaces `folder` once it is filled."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)


# TensorBoard.


def send_tensorboard(run: Path, snapshots: Sequence[Snapshot]) -> str:
    """Write the view anew, since event files are only ever appended to; return its folder."""
    folder = tracker_store(run, "tensorboard")
    with _anew(folder) as part:
        _write_events(part, snapshots)
    return str(folder)


def _write_events(folder: Path, snapshots: Sequence[Snapshot]) -> None:
    import numpy as np
    from PIL import Image
    from torch.utils.tensorboard import SummaryWriter

    with ExitStack() as stack:
        writer_of = cache(lambda system: stack.enter_context(SummaryWriter(str(folder / system))))
        for one in snapshots:
            step, shared = one.iteration.number, writer_of(NO_SYSTEM)
            for (split, metric, system), known in one.scores().items():
                for part, value in known.items():
                    tag = f"{split}/{metric}" + ("" if part == "value" else f".{part}")
                    writer_of(system).add_scalar(tag, value, step)
            for path in one.figures:
                with Image.open(path) as image:
                    shared.add_image(f"figures/{path.stem}", np.asarray(image.convert("RGB")), step, dataformats="HWC")
            rows = "\n".join(f"| {name} | {value.replace('|', '/')} |" for name, value in one.parameters.items())
            shared.add_text("parameters", f"| parameter | value |\n| --- | --- |\n{rows}", step)
            shared.add_text("decision", "Champion: **{champion}**\n\n{decision}".format(**one.outcome), step)


# Trackio.


def send_trackio(run: Path, snapshots: Sequence[Snapshot]) -> str:
    """Write the view anew, since Trackio only appends; return its folder. Raises RuntimeError if Trackio fails."""
    folder = tracker_store(run, "trackio")
    contents = [
        {
            "name": one.iteration.dir.name,
            "step": one.iteration.number,
            "config": dict(one.parameters) | one.outcome,
            "scores": one.flat_scores("/"),
            "figures": {path.stem: str(path) for path in one.figures},
        }
        for one in snapshots
    ]
    with _anew(folder) as part:
        own = {"TRACKIO_DIR": str(part), "TRACKIO_STORAGE_MODE": "sqlite", "HF_HUB_OFFLINE": "1"}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRACKIO_")} | own
        command = [sys.executable, "-m", "cuadft.loop.trackers", run.name]
        told = {"input": json.dumps(contents), "text": True, "capture_output": True, "timeout": TRACKIO_TIMEOUT}
        done = subprocess.run(command, env=environment, **told)
        if done.returncode:
            raise RuntimeError(f"trackio: {redact(done.stderr.strip())[-300:]}")
    return str(folder)


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
