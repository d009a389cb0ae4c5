"""What an iteration has done: the manifest, hash cache and lock that make an interrupted run resumable."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from cuadft import files
from cuadft.errors import InputError
from cuadft.runs import Iteration, unwritable
from cuadft.stages import SHARED, SHARED_FOLDERS, STAGES, Stage


class Hashes:
    """File hashes of one run folder, remembered by size and modification time in .hashes.json."""

    def __init__(self, run: Path):
        self.path = run / ".hashes.json"
        self.changed = False
        try:
            known = files.read_json(self.path)
        except InputError:
            known = {}  # only a cache: worth nothing if damaged
        self.known = known if isinstance(known, dict) else {}

    def __call__(self, path: Path) -> str:
        stat = path.stat()
        state = [stat.st_size, stat.st_mtime_ns]
        entry = self.known.get(str(path))
        if not entry or entry[:2] != state:
            entry = self.known[str(path)] = [*state, files.file_hash(path)]
            self.changed = True
        return entry[2]

    def save(self) -> None:
        """Write the cache if it has grown; forget files that are gone."""
        if self.changed:
            kept = {path: entry for path, entry in self.known.items() if Path(path).exists()}
            files.write_json(self.path, kept)
            self.changed = False


class Manifest:
    """The record of an iteration's stages: status, time, parameters, fingerprint, input and output hashes."""

    def __init__(self, iteration: Iteration):
        self.iteration = iteration
        self.path = iteration.path("manifest.json")
        self.stages: dict[str, dict] = {}
        self._began = time.monotonic()
        if self.path.exists():
            content = files.read_json(self.path)
            if not isinstance(content, dict) or not isinstance(content.get("stages"), dict):
                raise InputError(f"{self.path} is no manifest: delete it to run the iteration again.")
            self.stages = content["stages"]

    def unchanged(self, stage: Stage, fingerprint: str, hashes: Hashes) -> bool:
        """Tell whether the stage is done with this fingerprint and its outputs are as it left them."""
        entry = self.stages.get(stage.name, {})
        if entry.get("status") != "done" or entry.get("fingerprint") != fingerprint:
            return False
        for name, known in entry["outputs"].items():
            path = self.iteration.run / name
            intact = path.is_file() and hashes(path) == known
            if not intact and not self._shared_with_later(stage, name):
                return False
        return True

    def resumable(self, stage: Stage, fingerprint: str) -> bool:
        """Tell whether what lies there comes from an unfinished attempt with this very fingerprint."""
        entry = self.stages.get(stage.name, {})
        return entry.get("fingerprint") == fingerprint and entry.get("status") != "done"

    def start(self, stage: Stage, parameters: Mapping, fingerprint: str, inputs: Mapping[str, str]) -> None:
        """Record that the stage starts now."""
        started = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"status": "running", "started": started, "seconds": None, "parameters": dict(parameters)}
        entry |= {"fingerprint": fingerprint, "inputs": dict(inputs), "outputs": {}, "error": None}
        self.stages[stage.name] = entry
        self._began = time.monotonic()
        self._save()

    def finish(self, stage: Stage, values: Mapping, hashes: Hashes) -> None:
        """Record a success with the hashes of the stage's outputs."""
        run = self.iteration.run
        outputs = {name: hashes(run / name) for name in stage.files(stage.writes, self.iteration, values)}
        others = self._kept_by_others(stage)
        for name in stage.files(SHARED, self.iteration, values):
            if others.get(name) != hashes(run / name):
                outputs[name] = hashes(run / name)
        self._end(stage, "done", {"outputs": outputs})

    def fail(self, stage: Stage, error: str) -> None:
        """Record a failure."""
        self._end(stage, "failed", {"error": error})

    def clear(self, stage: Stage, values: Mapping) -> int:
        """Delete the stage's outputs and its record; return the number of files deleted."""
        names = set(self.stages.pop(stage.name, {}).get("outputs", {}))
        names |= set(stage.files(stage.writes, self.iteration, values))
        present = [self.iteration.run / name for name in names if (self.iteration.run / name).is_file()]
        for path in present:
            path.unlink()
        if names:
            self._save()
        return len(present)

    def _end(self, stage: Stage, status: str, more: dict) -> None:
        seconds = round(time.monotonic() - self._began, 1)
        self.stages[stage.name] |= {"status": status, "seconds": seconds, **more}
        self._save()

    def _shared_with_later(self, stage: Stage, name: str) -> bool:
        """Tell whether the same notebook, run again later, may have rewritten it (evaluate's tables)."""
        twins = [other.name for other in _after(stage) if other.notebook == stage.notebook]
        return name.split("/")[1] in SHARED_FOLDERS and any(twin in self.stages for twin in twins)

    def _kept_by_others(self, stage: Stage) -> dict[str, str]:
        """Return the outputs of other notebooks and of later stages: shared ones stay theirs if unchanged."""
        kept: dict[str, str] = {}
        for other in STAGES:
            if other.notebook != stage.notebook or other in _after(stage):
                kept |= self.stages.get(other.name, {}).get("outputs", {})
        return kept

    def _save(self) -> None:
        files.write_json(self.path, {"iteration": self.iteration.number, "stages": self.stages})


def _after(stage: Stage) -> tuple[Stage, ...]:
    names = [known.name for known in STAGES]
    return STAGES[names.index(stage.name) + 1 :]


@contextmanager
def lock(run: Path) -> Iterator[None]:
    """Hold a run folder for one process; the system lets go of it when the process ends, however it ends."""
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = open(run / ".lock", "a", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise unwritable(run, error) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            message = f"Another `cuadft run` works in {run}: wait for it, or choose another --run-dir."
            raise InputError(message) from None
        yield


def is_locked(run: Path) -> bool:
    """Tell whether a process holds the run folder now."""
    if not (run / ".lock").is_file():
        return False
    with open(run / ".lock", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
