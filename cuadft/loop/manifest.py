"""The manifest of an iteration: the record of its stages, by which a later call skips or resumes them.

manifest = Manifest(iteration, Hashes())
manifest.unchanged(stage, fingerprint)  # True: the stage is done and need not run again
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from cuadft.core import files
from cuadft.core.recorded import manifest_entries
from cuadft.core.runs import Iteration
from cuadft.loop.stages import SHARED, SHARED_FOLDERS, STAGE_NAMES, STAGES, Stage

# what is kept of an attempt that ended early
ATTEMPT_KEYS = ("started", "seconds", "status", "peak_memory_mb", "code", "endpoints")
SETTLED = 1.0  # seconds after which a further change of a file surely shows in its times


class Manifest:
    """The record of an iteration's stages: what made each, from what, when, how long, and what it wrote.

    The entry of a stage has these keys; an entry of an older version lacks some of them:
    status ("running", "done", "failed" or "incomplete"), started (UTC), seconds, peak_memory_mb (see
    `kernel.watch_memory`), notebook, code, environment (its key in run.json), seeds, parameters, fingerprint,
    inputs and outputs (path or parameter name -> SHA-256), weights (model -> SHA-256), contracts (file -> SHA-256),
    endpoints, error, and earlier (the attempts that ended early and that this one went on from).
    """

    def __init__(self, iteration: Iteration, hashes: Hashes | None = None):
        self.iteration = iteration
        self.hashes = hashes or Hashes()
        self.path = iteration.path("manifest.json")
        self.stages: dict[str, dict] = manifest_entries(self.path)
        self._began = time.monotonic()

    def unchanged(self, stage: Stage, fingerprint: str) -> bool:
        """Tell whether the stage is done with this fingerprint and its outputs are as it left them."""
        entry = self.stages.get(stage.name, {})
        if entry.get("status") != "done" or entry.get("fingerprint") != fingerprint:
            return False
        return all(
            self._hash(name) == known or self._shared_with_later(stage, name)
            for name, known in entry["outputs"].items()
        )

    def resumable(self, stage: Stage, fingerprint: str) -> bool:
        """Tell whether the stage's files come from an unfinished attempt with this very fingerprint."""
        entry = self.stages.get(stage.name, {})
        return entry.get("fingerprint") == fingerprint and entry.get("status") != "done"

    def start(self, stage: Stage, fingerprint: str, made_by: Mapping[str, object]) -> None:
        """Record that the stage starts now; `made_by`: its parameters, inputs, and what code runs (see `lineage`)."""
        before = self.stages.get(stage.name, {})
        started = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"status": "running", "started": started, "seconds": None, "peak_memory_mb": None, **made_by}
        entry |= {"fingerprint": fingerprint, "outputs": {}, "error": None, "shared_before": self._shared_files()}
        if self.resumable(stage, fingerprint):
            entry["earlier"] = [*before.get("earlier", []), {key: before.get(key) for key in ATTEMPT_KEYS}]
            entry["shared_before"] = before.get("shared_before", entry["shared_before"])
        self.stages[stage.name] = entry
        self._began = time.monotonic()
        self._save()

    def finish(self, stage: Stage, values: Mapping, **more: object) -> None:
        """Record a success with the hashes of the stage's outputs, and `more`: peak memory, weights, contracts.

        With an `error` in `more` the stage is incomplete: it keeps its outputs, and a later call runs it again.
        A file of a shared folder counts as written by this stage if it changed while the stage ran, or if no other
        stage has recorded it as it is.
        """
        written = stage.files((*stage.writes, *stage.keeps), self.iteration, values)
        outputs = {name: self._hash(name) for name in written}
        before = self.stages[stage.name].pop("shared_before", {})
        others = [entry["outputs"] for name, entry in self.stages.items() if name != stage.name]
        for name, found in self._shared_files().items():
            if before.get(name) != found or all(other.get(name) != found for other in others):
                outputs[name] = found
        self._end(stage, "incomplete" if more.get("error") else "done", {"outputs": outputs, **more})

    def fail(self, stage: Stage, error: str, **more: object) -> None:
        """Record a failure, and `more`, such as its peak memory."""
        self._end(stage, "failed", {"error": error, **more})

    def clear(self, stage: Stage, values: Mapping) -> int:
        """Delete the stage's record and its outputs, except what it keeps; return the number of files deleted."""
        names = set(self.stages.pop(stage.name, {}).get("outputs", {}))
        names |= set(stage.files(stage.writes, self.iteration, values))
        names -= set(stage.files(stage.keeps, self.iteration, values))
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
        """Tell whether a later stage may have written this file again, so that its change is no damage."""
        later = [other for other in STAGES[STAGE_NAMES.index(stage.name) + 1 :] if other.name in self.stages]
        return any(may_rewrite(other, self.stages[other.name], stage, name) for other in later)

    def _shared_files(self) -> dict[str, str]:
        """Return the hashes of the files in the folders that no stage owns."""
        return {name: self._hash(name) for name in STAGES[0].files(SHARED, self.iteration, {})}

    def _hash(self, name: str) -> str:
        """Return the hash of a file of the run folder, "" if it is gone."""
        path = self.iteration.run / name
        return self.hashes(path) if path.is_file() else ""

    def _save(self) -> None:
        files.write_json(self.path, {"iteration": self.iteration.number, "stages": self.stages})


def may_rewrite(later: Stage, entry: Mapping, stage: Stage, name: str) -> bool:
    """Tell whether a later stage with this entry has written a shared file of `stage` again, or may have begun to.

    Examples: evaluate's tables, which the second evaluation replaces, and the verdicts of a judge. `name` is a path
    from the run folder, such as "iter-01/metrics/scores.json".
    """
    shared = name.split("/")[1:2] in [[folder] for folder in SHARED_FOLDERS]
    may_have_begun = later.notebook == stage.notebook or name in entry.get("shared_before", {})
    begun = entry.get("status") != "done" and may_have_begun
    return shared and (begun or name in entry["outputs"])


class Hashes:
    """Hashes of files, each read once as long as it keeps its size, identity and times.

    Among the times is that of the last change (ctime), which nobody can set back. A file that changed less than a
    second ago is read again each time: a further change within one tick of the clock might leave the same times.

        hashes = Hashes()
        hashes(run / "contracts.jsonl")  # the SHA-256
    """

    def __init__(self):
        self.known: dict[Path, tuple[list[int], str]] = {}

    def __call__(self, path: Path) -> str:
        stat = os.stat(path)
        state = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]
        known, found = self.known.get(path, (None, ""))
        if known != state:
            found = files.file_hash(path)
            if time.time() - stat.st_ctime > SETTLED:
                self.known[path] = state, found
        return found
