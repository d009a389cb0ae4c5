"""Views of a run in experiment trackers: MLflow, TensorBoard and Trackio, each in a local store.

The run folder is the truth and a tracker only shows it: what a tracker lacks, the next call sends.

TensorBoard's view of a run: each system a line over the iterations, the figures, parameters and decisions beside them.

Trackio's view of a run: a project of its name, a Trackio run for each iteration, in a folder of the run folder.

Trackio reads its settings when it is imported and can send to a server: a process of its own writes the view, with a folder
of its own and without any such setting. Run as `python -m cuadft.loop.trackers FOLDER`, it reads what to write from stdin.
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


TRACKERS = ("mlflow", "tensorboard", "trackio")
COLUMNS = ("tracker", "store", "iterations", "scores", "figures", "failed", "error")


def check_trackers(report_to: Sequence[str]) -> None:
    """Raise InputError on a tracker that is unknown or not installed, before anything is computed."""
    for name in report_to:
        if name not in TRACKERS:
            raise InputError(
                f"Invalid tracker {name!r} in report_to{did_you_mean(name, TRACKERS)}: choose from "
                f"{', '.join(TRACKERS)}."
            )
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
    """Show an iteration, and those before it that a tracker lacks, in each tracker; return one row a tracker.

    parameters: of all stages, see `parameters`; board: as scoreboard.csv; figures: PNG files; decision: as decision.json.
    A tracker that fails costs nothing but its view: its row says so, and the next call sends what is missing.
    """
    check_trackers(report_to)

    def snapshots() -> list[Snapshot]:
        earlier = [old for old in snapshot.finished_snapshots(iteration.run) if old.iteration.number < iteration.number]
        return [
            *earlier,
            snapshot.take_snapshot(iteration, parameters=parameters, board=board, figures=figures, decision=decision),
        ]

    return _table([_send(name, iteration.run, snapshots) for name in dict.fromkeys(report_to)])


def follow_run(run_dir: str | Path) -> pd.DataFrame:
    """Bring the trackers that show this run up to date, as after a choice by hand; return rows as `report`.

    Trackers that have no view of the run, or are not installed here, get none.
    """
    run = runs.resolve_path(run_dir)
    sent = [
        _send(name, run, lambda: snapshot.finished_snapshots(run), only_known=True)
        for name in TRACKERS
        if _installed(name)
    ]
    return _table([row for row in sent if row])


def _installed(name: str) -> bool:
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None  # a mere folder of that name has no origin


def _send(name: str, run: Path, snapshots: Callable[[], list[Snapshot]], *, only_known: bool = False) -> dict | None:
    """Return what was sent, or what failed; None if only views that are there already were asked for, and there is none."""
    row = dict.fromkeys(COLUMNS, 0) | {"tracker": name, "store": "", "error": ""}
    try:
        send, exists = _view(name)
        if only_known and not exists(run):
            return None
        shown = snapshots()
        row["store"] = snapshot.clean_value(send(run, shown))
    except Exception as error:  # whatever a tracker raises, the stage has its results; the row shows and counts it
        return row | {"failed": 1, "error": snapshot.clean_value(brief(error))}
    return row | {
        "iterations": len(shown),
        "scores": sum(len(one.board) for one in shown),
        "figures": sum(len(one.figures) for one in shown),
    }


def _view(name: str) -> tuple[Callable[[Path, Sequence[Snapshot]], str], Callable[[Path], bool]]:
    """Return how a tracker's view of a run is sent, and how to tell whether it is there."""
    if name == "mlflow":
        from cuadft.loop import mlflow_view

        return mlflow_view.send_mlflow, mlflow_view.mlflow_exists
    return {"tensorboard": (send_tensorboard, tensorboard_exists), "trackio": (send_trackio, trackio_exists)}[name]


def _table(rows: list[dict]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(COLUMNS))


LOOP = "loop"  # the folder of what belongs to no system
TENSORBOARD_PART = {"prefix": ".tensorboard.", "suffix": ".tmp"}


def send_tensorboard(run: Path, snapshots: Sequence[Snapshot]) -> str:
    """Write the view anew, since event files are only ever appended to; return its folder."""
    folder = tracker_store(run, "tensorboard")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(
        f"{TENSORBOARD_PART['prefix']}*{TENSORBOARD_PART['suffix']}"
    ):  # of a write that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=folder.parent, **TENSORBOARD_PART) as part:
        _write(Path(part, "new"), snapshots)
        if folder.exists():
            os.replace(folder, Path(part, "old"))
        os.replace(Path(part, "new"), folder)
    return str(folder)


def tensorboard_exists(run: Path) -> bool:
    """Tell whether the run has this view."""
    return tracker_store(run, "tensorboard").is_dir()


def _write(folder: Path, snapshots: Sequence[Snapshot]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writers: dict[str, SummaryWriter] = {}
    try:
        writers[LOOP] = SummaryWriter(str(folder / LOOP))
        for one in snapshots:
            step = one.iteration.number
            for (split, metric, system), known in one.scores().items():
                if system not in writers:
                    writers[system] = SummaryWriter(str(folder / system))
                for part, value in known.items():
                    tag = f"{split}/{metric}" + ("" if part == "value" else f".{part}")
                    writers[system].add_scalar(tag, value, step)
            _write_loop(writers[LOOP], one)
    finally:
        for writer in writers.values():
            writer.close()


def _write_loop(writer, one: Snapshot) -> None:
    import numpy as np
    from PIL import Image

    step, chosen = one.iteration.number, runs.champion_label(one.champion) if one.champion else "none"
    for path in one.figures:
        with Image.open(path) as image:
            writer.add_image(f"figures/{path.stem}", np.asarray(image.convert("RGB")), step, dataformats="HWC")
    rows = "\n".join(f"| {name} | {value.replace('|', '/')} |" for name, value in one.parameters.items())
    writer.add_text("parameters", f"| parameter | value |\n| --- | --- |\n{rows}", step)
    writer.add_text("decision", f"Champion: **{chosen}**\n\n{one.decision.get('reason', '')}", step)


TRACKIO_PART = ".trackio.tmp"
PATIENCE = 120  # seconds


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
        input=json.dumps([_content(one) for one in snapshots]),
        capture_output=True,
        timeout=PATIENCE,
    )
    if done.returncode:
        raise RuntimeError(f"trackio: {redact(done.stderr.strip())[-300:]}")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
    return str(folder)


def trackio_exists(run: Path) -> bool:
    """Tell whether the run has this view."""
    return tracker_store(run, "trackio").is_dir()


def _content(one: Snapshot) -> dict[str, Any]:
    """Return an iteration as JSON-able values: parameters, scores such as "test/f1/sft", figures and the decision."""
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


def main(project: str, contents: Sequence[dict[str, Any]]) -> None:
    """Write iterations into Trackio's folder, TRACKIO_DIR."""
    import trackio

    for one in contents:
        trackio.init(
            project=project, name=one["name"], config=one["config"], embed=False, auto_log_gpu=False, auto_log_cpu=False
        )
        trackio.log(
            one["scores"] | {f"figures/{name}": trackio.Image(path) for name, path in one["figures"].items()},
            step=one["step"],
        )
        trackio.finish()


if __name__ == "__main__":
    main(sys.argv[1], json.load(sys.stdin))
