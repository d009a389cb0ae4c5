"""Peak memory of the processes that this one starts, for the record of a stage."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROC = Path("/proc")
INTERVAL = 1.0  # seconds between two looks


class Peak:
    """The most memory seen so far; `mb` is None where nothing could be seen."""

    def __init__(self) -> None:
        self._bytes = 0

    @property
    def mb(self) -> float | None:
        """Megabytes (10^6 bytes)."""
        return round(self._bytes / 1e6, 1) if self._bytes else None

    def look(self, pid: int) -> None:
        """Take in what the descendants of a process hold now and what each of them has held at most."""
        now, most = 0, 0
        for descendant in _descendants(pid):
            rss, highest = _memory(descendant)
            now, most = now + rss, max(most, highest)
        self._bytes = max(self._bytes, now, most)


@contextmanager
def watch(pid: int | None = None, interval: float = INTERVAL) -> Iterator[Peak]:
    """Watch the descendants of a process (this one), a notebook's kernel with its own children, from a thread.

    Read from /proc every `interval` seconds: the kernel's high-water mark of a process (VmHWM), which forgets no peak
    between two looks, or the sum of what all of them hold at one time (VmRSS; shared pages count for each), whichever is
    more. Only a rise in the last `interval` of a process can be missed. Memory of a GPU is not in it.
    """
    peak, done, pid = Peak(), threading.Event(), pid or os.getpid()

    def keep_looking() -> None:
        while not done.wait(interval):
            peak.look(pid)

    thread = threading.Thread(target=keep_looking, name="memory", daemon=True)
    if PROC.is_dir():
        thread.start()
    try:
        yield peak
    finally:
        done.set()
        if thread.ident:
            thread.join()
        peak.look(pid)


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in PROC.glob("[0-9]*"):
        try:
            stat = (entry / "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # it has just ended
            continue
        # pid (name) state parent ...; the name may hold spaces and brackets
        children.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, open_ = [], [pid]
    while open_:
        here = children.get(open_.pop(), [])
        found += here
        open_ += here
    return found


def _memory(pid: int) -> tuple[int, int]:
    """Return bytes held now and at most; zeros for a process that has just ended."""
    try:
        lines = (PROC / str(pid) / "status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith(("VmRSS", "VmHWM"))}
    return sizes.get("VmRSS", 0), sizes.get("VmHWM", 0)
