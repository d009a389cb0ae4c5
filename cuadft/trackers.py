"""Views of a run in experiment trackers: MLflow, TensorBoard and Trackio, each in a local store.

The run folder is the truth and a tracker only shows it: what a tracker lacks, the next call sends.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from cuadft import runs, snapshot
from cuadft.errors import InputError, brief
from cuadft.params import nearest
from cuadft.snapshot import Snapshot, parameters

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["TRACKERS", "check", "follow", "parameters", "report"]

TRACKERS = ("mlflow", "tensorboard", "trackio")
FOLDER = "trackers"  # in the run folder
COLUMNS = ("tracker", "store", "iterations", "scores", "figures", "failed", "error")


def check(report_to: Sequence[str]) -> None:
    """Raise InputError on a tracker that is unknown or not installed, before anything is computed."""
    for name in report_to:
        if name not in TRACKERS:
            raise InputError(f"Invalid tracker {name!r} in report_to{nearest(name, TRACKERS)}: choose from "
                             f"{', '.join(TRACKERS)}.")
        if not _installed(name):
            raise InputError(f"report_to names {name!r}, which is not installed: run `pip install -e '.[{name}]'` in the "
                             f"project's folder, or take {name!r} out of report_to.")


def report(iteration: runs.Iteration, report_to: Sequence[str], *, parameters: Mapping[str, object], board: pd.DataFrame,
           figures: Iterable[str | Path], decision: Mapping[str, Any]) -> pd.DataFrame:
    """Show an iteration, and those before it that a tracker lacks, in each tracker; return one row a tracker.

    parameters: of all stages, see `parameters`; board: as scoreboard.csv; figures: PNG files; decision: as decision.json.
    A tracker that fails costs nothing but its view: its row says so, and the next call sends what is missing.
    """
    check(report_to)

    def snapshots() -> list[Snapshot]:
        earlier = [old for old in snapshot.finished(iteration.run) if old.iteration.number < iteration.number]
        return [*earlier, snapshot.take(iteration, parameters=parameters, board=board, figures=figures, decision=decision)]

    return _table([_send(name, iteration.run, snapshots) for name in dict.fromkeys(report_to)])


def follow(run_dir: str | Path) -> pd.DataFrame:
    """Bring the trackers that show this run up to date, as after a choice by hand; return rows as `report`.

    Trackers that have no view of the run, or are not installed here, get none.
    """
    run = runs.resolve(run_dir)
    sent = [_send(name, run, lambda: snapshot.finished(run), only_known=True) for name in TRACKERS if _installed(name)]
    return _table([row for row in sent if row])


def store(run: Path, name: str) -> Path:
    """Return the folder in which a tracker keeps its view of a run."""
    return run / FOLDER / name


def _installed(name: str) -> bool:
    found = importlib.util.find_spec(name)
    return found is not None and found.origin is not None  # a mere folder of that name has no origin


def _send(name: str, run: Path, snapshots: Callable[[], list[Snapshot]], *, only_known: bool = False) -> dict | None:
    """Return what was sent, or what failed; None if only views that are there already were asked for, and there is none."""
    row = dict.fromkeys(COLUMNS, 0) | {"tracker": name, "store": "", "error": ""}
    try:
        if only_known and not _view(name).exists(run):
            return None
        shown = snapshots()
        row["store"] = snapshot.clean(_view(name).send(run, shown))
    except Exception as error:  # whatever a tracker raises, the stage has its results; the row shows and counts it
        return row | {"failed": 1, "error": snapshot.clean(brief(error))}
    return row | {"iterations": len(shown), "scores": sum(len(one.board) for one in shown),
                  "figures": sum(len(one.figures) for one in shown)}


def _view(name: str) -> ModuleType:
    return importlib.import_module(f"cuadft.{name}_view")


def _table(rows: list[dict]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(rows, columns=list(COLUMNS))
