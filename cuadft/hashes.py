"""The hashes of a run folder's files, each file read once: a cache that a changed, restored or re-dated file can't fool."""

from __future__ import annotations

import os
import time
from pathlib import Path

from cuadft import files
from cuadft.errors import InputError

FILE = ".hashes.json"
TICK = 0.02  # seconds; two changes of a file within less may leave the same times


class Hashes:
    """File hashes of one run folder, remembered in .hashes.json for as long as a file's identity and times stand.

    The time of the last change (ctime) is the system's own: unlike the modification time it can't be set back.
    """

    def __init__(self, run: Path):
        self.path = run / FILE
        self.changed = False
        self.known = self._read()

    def __call__(self, path: Path) -> str:
        state = _state(path)
        entry = self.known.get(str(path))
        if entry and entry[:-1] == state:
            return entry[-1]
        # a file of this very moment could change again and keep its times
        if 0 <= time.time() - path.stat().st_ctime < TICK:
            time.sleep(TICK)
        state, found = _state(path), files.file_hash(path)
        if state == _state(path) and _settled(path):
            self.known[str(path)] = [*state, found]
            self.changed = True
        return found

    def save(self) -> None:
        """Write the cache if it has grown; forget files that are gone."""
        if self.changed:
            kept = {path: entry for path, entry in self.known.items() if Path(path).exists()}
            files.write_json(self.path, {"files": kept, "sha256": files.value_hash(kept)})
            self.changed = False

    def _read(self) -> dict[str, list]:
        """Return what is remembered, nothing if the file is missing or not as it was written."""
        try:
            content = files.read_json(self.path)
        except InputError:
            return {}  # only a cache: worth nothing if damaged
        whole = isinstance(content, dict) and isinstance(content.get("files"), dict)
        return content["files"] if whole and content.get("sha256") == files.value_hash(content["files"]) else {}


def _state(path: Path) -> list[int]:
    stat = os.stat(path)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _settled(path: Path) -> bool:
    """Tell whether a later change must show in the times: not with whole-second times, nor with one that lies ahead."""
    changed = os.stat(path).st_ctime_ns
    return changed % 10**9 > 0 and time.time_ns() - changed > 0
