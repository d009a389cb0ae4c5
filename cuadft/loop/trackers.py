"""Views of a run in experiment trackers: MLflow, TensorBoard and Trackio, each in a local store.

    check_trackers(["tensorboard"])  # before anything is computed
    report_to_trackers(iteration, ["tensorboard"])  # a table with one row per tracker

The run folder is the truth, and a tracker only shows it: parameters, scores, figures and decisions of all iterations
that have decided. Secrets and absolute paths are taken out. TensorBoard draws each system as a line over iterations.
MLflow's view stands in `mlflow_view`.
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

from cuadft.core import files, runs
from cuadft.core.errors import InputError, brief, redact
from cuadft.core.params import did_you_mean
from cuadft.loop import mlflow_view
from cuadft.loop.snapshot import Snapshot, clean_value, finished_snapshots

if TYPE_CHECKING:
    import pandas as pd

TRACKERS = ("mlflow", "tensorboard", "trackio")
NOTE = "trackers/report_to.json"  # in the run folder: the trackers that show the run
NO_SYSTEM = "loop"  # TensorBoard's folder for what belongs to no system: figures, parameters and decisions
TRACKIO_TIMEOUT = 120  # seconds


def check_trackers(report_to: Sequence[str]) -> None:
    """Raise InputError on a tracker that is unknown or not installed, before anything is computed."""
    for name in report_to:
        if name not in TRACKERS:
            hint = did_you_mean(name, TRACKERS)
            raise InputError(f"Invalid tracker {name!r} in report_to{hint}: choose from {', '.join(TRACKERS)}.")
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a mere folder of that name has no origin
            raise InputError(f"Tracker {name!r} in report_to is not installed: run `pip install -e '.[{name}]'`.")


def report_to_trackers(iteration: runs.Iteration, report_to: Sequence[str]) -> pd.DataFrame:
    """Show all iterations that have decided in each tracker; return a row of each: tracker, store, iterations, error.

    A tracker that fails costs nothing but its view: its row says so, and the next call sends what is missing.
    """
    import pandas as pd

    check_trackers(report_to)
    files.write_json(iteration.run / NOTE, sorted({*_reported_to(iteration.run), *report_to}))
    return pd.DataFrame([_send(name, iteration.run) for name in dict.fromkeys(report_to)])


def follow_run(run_dir: str | Path) -> list[dict[str, Any]]:
    """Bring the trackers that show a run up to date after a choice by hand; return a row of each."""
    run = runs.resolve_path(run_dir)
    return [_send(name, run) for name in _reported_to(run)]


def _reported_to(run: Path) -> list[str]:
    return files.read_json(run / NOTE) if (run / NOTE).is_file() else []


def _send(name: str, run: Path) -> dict[str, Any]:
    """Send a view; return the tracker's row: what was sent, or what failed."""
    send: Callable[[Path, Sequence[Snapshot]], str]
    send = {"mlflow": mlflow_view.send_mlflow, "tensorboard": send_tensorboard, "trackio": send_trackio}[name]
    try:
        check_trackers([name])
        shown = finished_snapshots(run)
        return {"tracker": name, "store": clean_value(send(run, shown)), "iterations": len(shown), "error": ""}
    except Exception as error:  # whatever a tracker raises, the stage has its results; the row shows it
        return {"tracker": name, "store": "", "iterations": 0, "error": clean_value(brief(error))}


# TensorBoard and Trackio, whose views are written anew each time, since they only append.


@contextmanager
def _anew(folder: Path) -> Iterator[Path]:
    """Lend an empty folder that replaces `folder` once it is filled."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)


def send_tensorboard(run: Path, snapshots: Sequence[Snapshot]) -> str:
    """Write the view; return its folder."""
    folder = run / "trackers" / "tensorboard"
    with _anew(folder) as part:
        _write_events(part, snapshots)
    return str(folder)


def _write_events(folder: Path, snapshots: Sequence[Snapshot]) -> None:
    from matplotlib.image import imread
    from torch.utils.tensorboard import SummaryWriter

    with ExitStack() as stack:
        writer_of = cache(lambda system: stack.enter_context(SummaryWriter(str(folder / system))))
        for one in snapshots:
            for name, value in one.scores.items():
                metric, _, last = name.rpartition("/")
                system, *part = last.split(".")
                writer_of(system).add_scalar(".".join([metric, *part]), value, one.number)
            for path in one.figures:
                writer_of(NO_SYSTEM).add_image(f"figures/{path.stem}", imread(path), one.number, dataformats="HWC")
            for name, text in (one.outcome | one.parameters).items():
                writer_of(NO_SYSTEM).add_text(name, text, one.number)


def send_trackio(run: Path, snapshots: Sequence[Snapshot]) -> str:
    """Write the view, a Trackio run for each iteration; return its folder. Raises RuntimeError if Trackio fails."""
    folder = run / "trackers" / "trackio"
    contents = [
        {
            "name": f"iter-{one.number:02d}",
            "step": one.number,
            "config": one.parameters | one.outcome,
            "scores": one.scores,
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
