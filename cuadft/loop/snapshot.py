"""What trackers show of an iteration that has decided: read from its folder, without secrets and computers' paths."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuadft.core import files, runs
from cuadft.core.errors import redact
from cuadft.core.params import SET_BY_LOOP
from cuadft.loop.manifest import recorded_parameters

SCORE_PARTS = ["value", "low", "high", "n"]
NOT_SHOWN = (*SET_BY_LOOP, "run_dir")  # parameters that differ from stage to stage, or between computers
# an absolute path, but not the host and path of an address; its last name is shown
ABSOLUTE_PATH = re.compile(r"(?<![\w:.~])(?<!:/)/(?:[^\s/'\",;:]+/)+([^\s/'\",;:]+)")


@dataclass(frozen=True)
class Snapshot:
    """Hold what trackers show of one iteration, without secrets and without paths of this computer.

    identity: tells the run folder from others of the same name. scores: by names such as "test/quote_f1/sft" and
    "test/quote_f1/sft.low". figures: PNG files. decision: the gate's reason.
    """

    number: int
    identity: str
    parameters: Mapping[str, str]
    scores: Mapping[str, float]
    figures: Sequence[Path]
    decision: str
    champion: str

    @property
    def outcome(self) -> dict[str, str]:
        """Return the gate's decision, and the champion afterwards."""
        return {"decision": self.decision, "champion": self.champion}

    def digest(self) -> str:
        """Return the hash of all that is shown but for the champion, whom a later choice by hand can change."""
        figures = {path.name: files.file_hash(path) for path in self.figures}
        return files.value_hash([self.parameters, self.scores, figures, self.decision])


def finished_snapshots(run: Path) -> list[Snapshot]:
    """Return the snapshots of the iterations that have decided."""
    done = [runs.Iteration(run, number) for number in runs.decided_iterations(run)]
    return [read_snapshot(iteration) for iteration in done if iteration.path("scoreboard.csv").is_file()]


def read_snapshot(iteration: runs.Iteration) -> Snapshot:
    """Return the snapshot of an iteration that has decided, from its folder."""
    champion = runs.champion_label(runs.outgoing_champion(iteration))
    by_hand = " (chosen by hand)" if iteration.path(runs.BY_HAND).is_file() else ""
    reason = files.read_json(iteration.path(runs.DECISION)).get("reason", "")
    known = sorted(recorded_parameters(iteration).items())
    return Snapshot(
        number=iteration.number,
        identity=run_identity(iteration.run),
        parameters={name: _value_text(value) for name, value in known if name not in NOT_SHOWN},
        scores=_scores(iteration.path("scoreboard.csv")),
        figures=sorted(iteration.path("figures").glob("*.png")),
        decision=clean_value(reason),
        champion=champion + by_hand,
    )


def _scores(path: Path) -> dict[str, float]:
    import pandas as pd

    keys = ["split", "metric", "system"]
    known = pd.read_csv(path).melt(keys, SCORE_PARTS, "part", "figure").dropna(subset="figure")
    names = known[keys].agg("/".join, axis=1) + ("." + known["part"]).replace(".value", "")
    return dict(zip(names, known["figure"].astype(float)))


def run_identity(run: Path) -> str:
    """Return a hash of the run folder's name and time of creation, which tells it from others of its name."""
    path = run / "run.json"
    created = files.read_json(path).get("created") if path.is_file() else None
    return files.value_hash([run.name, created])[:16]


def clean_value(value: Any) -> Any:
    """Return a JSON-able value without secrets and without this computer's paths."""
    if isinstance(value, Mapping):
        return {str(name): clean_value(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean_value(item) for item in value]
    if not isinstance(value, (str, Path)):
        return value
    return ABSOLUTE_PATH.sub(r".../\1", redact(str(value)).replace(f"{runs.project_root()}/", ""))


def _value_text(value: object) -> str:
    shown = clean_value(value)
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)
