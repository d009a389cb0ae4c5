"""The snapshot of an iteration, which trackers show: parameters, scores, figures and the decision.

    snapshot = read_snapshot(iteration)  # from the run folder
    snapshot.scores()["test", "quote_f1", "sft"]  # {"value": 0.52, "low": 0.45, "high": 0.58, "n": 120.0}

Secrets, the passwords of addresses and absolute paths are taken out, so that nothing shown leads back to a person's
computer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.core import files, runs
from cuadft.core.errors import redact
from cuadft.core.params import SET_BY_LOOP
from cuadft.loop.manifest import Manifest

if TYPE_CHECKING:
    import pandas as pd

SCORE_FIELDS = ("value", "low", "high", "n")
# an absolute path, but not the host and path of an address; its last name is shown
ABSOLUTE_PATH = re.compile(r"(?<![\w:.~])(?<!:/)/(?:[^\s/'\",;:]+/)+([^\s/'\",;:]+)")
NOT_SHOWN = (*SET_BY_LOOP, "run_dir")  # parameters that differ from stage to stage, or between computers


@dataclass(frozen=True)
class Snapshot:
    """One iteration's parameters, scoreboard, figures (PNG files) and decision (as decision.json holds it).

    by_hand: the champion that somebody chose after this iteration.
    """

    iteration: runs.Iteration
    parameters: Mapping[str, str]
    board: pd.DataFrame
    figures: tuple[Path, ...]
    decision: Mapping[str, Any]
    by_hand: runs.ChampionRecord | None = None

    @property
    def name(self) -> str:
        """Return the name that trackers show, for example "quickstart iter-01"."""
        return f"{self.iteration.run.name} {self.iteration.dir.name}"

    @property
    def key(self) -> str:
        """Return a key that no other iteration has, not even in another run folder of the same name."""
        return f"{run_identity(self.iteration.run)}-{self.iteration.number}"

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

    @property
    def outcome(self) -> dict[str, str]:
        """Return the champion's name and the gate's reason, as trackers show them."""
        champion = runs.champion_label(self.champion) if self.champion else "none"
        return {"champion": champion, "decision": str(self.decision.get("reason", ""))}

    def scores(self) -> dict[tuple[str, str, str], dict[str, float]]:
        """Return the known figures (of value, low, high, n) for each split, metric and system.

        The system "champion" repeats the figures of the system that the gate promoted or kept, so that trackers can
        draw the champions of all iterations as one line.
        """
        best = self.decision["promoted"]["system"] if self.gate_promoted else self.decision.get("incumbent")
        found = {}
        for row in self.board.to_dict("records"):
            known = {name: float(row[name]) for name in SCORE_FIELDS if not math.isnan(row.get(name, math.nan))}
            for system in (row["system"], *["champion"] * (row["system"] == best)):
                found[row["split"], row["metric"], system] = known
        return found

    def flat_scores(self, sign: str) -> dict[str, float]:
        """Return the figures by one name each, such as "test/f1/sft" and "test/f1/sft.low" with the sign "/"."""
        return {
            sign.join(key) + ("" if part == "value" else f".{part}"): value
            for key, known in self.scores().items()
            for part, value in known.items()
        }

    def digest(self) -> str:
        """Return the hash of all that is shown: a tracker that holds it needs nothing new."""
        figures = {path.name: files.file_hash(path) for path in self.figures}
        shown = [dict(self.parameters), self.flat_scores("/"), figures, dict(self.decision), self.champion]
        return files.value_hash(shown)


def read_snapshot(iteration: runs.Iteration) -> Snapshot:
    """Return the snapshot of an iteration that has decided, from its folder."""
    import pandas as pd

    by_hand = iteration.path(runs.BY_HAND)
    return Snapshot(
        iteration,
        parameters={name: _value_text(value) for name, value in shown_parameters(iteration).items()},
        board=pd.read_csv(iteration.path("scoreboard.csv")),
        figures=tuple(sorted(iteration.path("figures").glob("*.png"))),
        decision=clean_value(files.read_json(iteration.path(runs.DECISION))),
        by_hand=files.read_json(by_hand)["promoted"] if by_hand.is_file() else None,
    )


def finished_snapshots(run: Path) -> list[Snapshot]:
    """Return the snapshots of the iterations that have decided."""
    done = [runs.Iteration(run, number) for number in runs.decided_iterations(run)]
    return [read_snapshot(iteration) for iteration in done if iteration.path("scoreboard.csv").is_file()]


def run_identity(run: Path) -> str:
    """Return a hash of the run folder's name and time of creation, which tells it from others of its name."""
    path = run / "run.json"
    created = files.read_json(path).get("created") if path.is_file() else None
    return files.value_hash([run.name, created])[:16]


def shown_parameters(iteration: runs.Iteration) -> dict[str, object]:
    """Return the parameters of all stages of an iteration from its manifest, without those that the loop sets."""
    found: dict[str, object] = {}
    for entry in Manifest(iteration).stages.values():
        found |= entry.get("parameters") or {}
    return {name: value for name, value in sorted(found.items()) if name not in NOT_SHOWN}


def code_origin(iteration: runs.Iteration) -> dict[str, str]:
    """Return what the last stage notes of the code that ran: its commit, and whether it had been changed ("dirty")."""
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
    return ABSOLUTE_PATH.sub(r".../\1", redact(str(value)).replace(f"{runs.project_root()}/", ""))


def _value_text(value: object) -> str:
    shown = clean_value(value)
    return shown if isinstance(shown, str) else json.dumps(shown, ensure_ascii=False)


def tracker_store(run: Path, name: str) -> Path:
    """Return the folder in which a tracker keeps its view of a run."""
    return run / "trackers" / name
