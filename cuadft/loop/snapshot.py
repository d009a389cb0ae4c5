"""What trackers show of one iteration: parameters, scores, figures and the decision, taken from the run folder.

Nothing of it leads back to a person's computer: secrets, addresses' passwords and absolute paths are taken out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.core import files, runs
from cuadft.core.errors import InputError, redact
from cuadft.core.params import SET_BY_LOOP
from cuadft.loop.manifest import Manifest

if TYPE_CHECKING:
    import pandas as pd


VALUES = ("value", "low", "high", "n")
# an absolute path, but not the host and path of an address; its last name is shown
ABSOLUTE = re.compile(r"(?<![\w:.~])(?<!:/)/(?:[^\s/'\",;:]+/)+([^\s/'\",;:]+)")
PER_STAGE = (*SET_BY_LOOP, "run_dir")


@dataclass(frozen=True)
class Snapshot:
    """One iteration's parameters, scoreboard, figures (PNG files) and decision (as decision.json holds it)."""

    iteration: runs.Iteration
    parameters: Mapping[str, str]
    board: pd.DataFrame
    figures: tuple[Path, ...]
    decision: Mapping[str, Any]
    by_hand: runs.ChampionRecord | None = None  # the champion that somebody chose after this iteration

    @property
    def name(self) -> str:
        return f"{self.iteration.run.name} {self.iteration.dir.name}"

    @property
    def key(self) -> str:
        """Return what tells this iteration from all others, also from those of a run folder of the same name."""
        return f"{identity(self.iteration.run)}-{self.iteration.number}"

    @property
    def gate_promoted(self) -> bool:
        """Tell whether the gate replaced the champion, rather than keeping it."""
        chosen, here = self.decision.get("promoted") or {}, f"{self.iteration.dir.name}/"
        made_here = any(str(chosen.get(part)).startswith(here) for part in runs.CHAMPION_PARTS[1:])
        return made_here and chosen["system"] != self.decision.get("incumbent")

    @property
    def champion(self) -> runs.ChampionRecord | None:
        """Return the champion that this iteration leaves."""
        return self.by_hand or self.decision.get("promoted") or None

    def scores(self) -> dict[tuple[str, str, str], dict[str, float]]:
        """Return what is known (of value, low, high, n) for each split, metric and system.

        The system "champion" repeats the one that the gate promoted or kept: a line that iterations share.
        """
        best = self.decision["promoted"]["system"] if self.gate_promoted else self.decision.get("incumbent")
        found = {}
        for row in self.board.to_dict("records"):
            known = {name: float(row[name]) for name in VALUES if not math.isnan(row.get(name, math.nan))}
            for system in (row["system"], *["champion"] * (row["system"] == best)):
                found[row["split"], row["metric"], system] = known
        return found

    def digest(self) -> str:
        """Return the hash of all that is shown: a tracker that holds it needs nothing new."""
        scores = sorted([*key, list(values.items())] for key, values in self.scores().items())
        figures = {path.name: files.file_hash(path) for path in self.figures}
        return files.value_hash([dict(self.parameters), scores, figures, dict(self.decision), self.champion])


def take_snapshot(
    iteration: runs.Iteration,
    *,
    parameters: Mapping[str, object],
    board: pd.DataFrame,
    figures: Iterable[str | Path],
    decision: Mapping[str, Any],
) -> Snapshot:
    """Return an iteration's snapshot; figures that are no PNG files, or not there, are left out."""
    shown = {name: _text(value) for name, value in sorted(parameters.items()) if name not in PER_STAGE}
    drawn = sorted(path for path in map(Path, figures) if path.suffix == ".png" and path.is_file())
    path = iteration.path(runs.BY_HAND)
    by_hand = files.read_json(path)["promoted"] if path.is_file() else None
    return Snapshot(iteration, shown, board, tuple(drawn), clean_value(decision), by_hand)


def read_snapshot(iteration: runs.Iteration) -> Snapshot:
    """Return the snapshot of a finished iteration from its folder; raises InputError if it has no scoreboard."""
    import pandas as pd

    path = iteration.path("scoreboard.csv")
    if not path.is_file():
        raise InputError(f"No file {path}: finish iteration {iteration.number} (05_evaluate) first.")
    return take_snapshot(
        iteration,
        parameters=shown_parameters(iteration),
        board=pd.read_csv(path),
        figures=iteration.path("figures").glob("*.png"),
        decision=files.read_json(iteration.path(runs.DECISION)),
    )


def finished_snapshots(run: Path) -> list[Snapshot]:
    """Return the snapshots of the iterations that have decided."""
    done = [runs.Iteration(run, number) for number in runs.decided_iterations(run)]
    return [read_snapshot(iteration) for iteration in done if iteration.path("scoreboard.csv").is_file()]


def identity(run: Path) -> str:
    """Return what tells a run folder from others of its name: a hash of name and time of creation."""
    path = run / "run.json"
    created = files.read_json(path).get("created") if path.is_file() else None
    return files.value_hash([run.name, created])[:16]


def shown_parameters(iteration: runs.Iteration) -> dict[str, object]:
    """Return the parameters of all stages of an iteration, as its manifest has them, without those that the loop sets."""
    found: dict[str, object] = {}
    for entry in Manifest(iteration).stages.values():
        found |= entry.get("parameters") or {}
    return {name: value for name, value in sorted(found.items()) if name not in PER_STAGE}


def origin(iteration: runs.Iteration) -> dict[str, str]:
    """Return what the last stage notes of the code that ran: commit, and whether it was changed since ("dirty")."""
    known = [entry["code"] for entry in Manifest(iteration).stages.values() if isinstance(entry.get("code"), dict)]
    return {name: str(known[-1][name]) for name in ("commit", "dirty") if name in known[-1]} if known else {}


def clean_value(value: Any) -> Any:
    """Return a JSON-able value without secrets and without this computer's paths."""
    if isinstance(value, Mapping):
        return {str(name): clean_value(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean_value(item) for item in value]
    if not isinstance(value, (str, Path)):
        return value
    return ABSOLUTE.sub(r".../\1", redact(str(value)).replace(f"{runs.project_root()}/", ""))


def _text(value: object) -> str:
    shown = clean_value(value)
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


FOLDER = "trackers"  # in the run folder


def tracker_store(run: Path, name: str) -> Path:
    """Return the folder in which a tracker keeps its view of a run."""
    return run / FOLDER / name
