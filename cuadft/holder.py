"""Who works in a run folder: one loop at a time, and the kernels that it started, which can outlive it for a moment.

The folder's `.lock` is locked by the loop and handed down to its kernels, so that the system holds it until the last of
them has ended, however they end. What a killed loop leaves running is ended before another loop begins.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from cuadft import files
from cuadft.errors import InputError
from cuadft.runs import unwritable

FILE = ".lock"
PATIENCE = 20.0  # seconds that what a killed loop left running has to end
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
PROC = Path("/proc")


@dataclass(frozen=True)
class Hold:
    """A run folder that this process holds; a process that inherits `descriptor` holds it too."""

    run: Path
    descriptor: int


@contextmanager
def lock(run: Path) -> Iterator[Hold]:
    """Hold a run folder for one process and its kernels; the system lets go of it when they have ended, however they end.

    Ends the kernels of a loop that was killed, and deletes the parts of files that it left half-written. Raises
    InputError if another loop works there, with its process id, and if the folder can't be written, now or later.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = open(run / FILE, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise unwritable(run, error) from error
    with file:
        _take(run, file)
        try:
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n")
            file.flush()
            files.remove_leftovers(run)
            yield Hold(run, file.fileno())
        except OSError as error:
            elsewhere = error.filename and not Path(os.fsdecode(error.filename)).absolute().is_relative_to(run.absolute())
            if error.errno not in UNWRITABLE or (elsewhere and error.errno in (errno.EACCES, errno.EPERM)):
                raise
            raise unwritable(run, error) from error


def is_locked(run: Path) -> bool:
    """Tell whether a loop works in the run folder now; what a killed one left running for a moment is none."""
    if not (run / FILE).is_file():
        return False
    with open(run / FILE, encoding="utf-8") as file:
        return not _free(file, fcntl.LOCK_SH) and not _dead(run, _named(run))


def _take(run: Path, file: TextIO) -> None:
    """Lock the file, or raise InputError that says who has it."""
    patience = time.monotonic() + PATIENCE
    while not _free(file, fcntl.LOCK_EX):
        holder = _named(run)
        who = f"process {holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown computer')}"
        if not _dead(run, holder):
            raise InputError(f"Another `cuadft run` ({who}) works in {run}: wait for it, or choose another --run-dir.")
        if time.monotonic() > patience:
            raise InputError(f"A run in {run} was killed ({who}), but what it started still works there and can't be ended "
                             "from here: end its kernel (ipykernel_launcher), then repeat the command.")  # fmt: skip
        for pid in _heirs(run, holder["pid"]):
            with suppress(ProcessLookupError):  # it has just ended by itself
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _free(file: TextIO, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _named(run: Path) -> Mapping:
    """Return who locked the folder last, {} if that is not written there (yet)."""
    try:
        found = files.read_json(run / FILE)
    except InputError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("pid"), int) else {}


def _dead(run: Path, holder: Mapping) -> bool:
    """Tell whether the process that locked the folder is surely gone; one of another computer can't be seen."""
    if holder.get("host") != socket.gethostname():
        return False
    if (PROC / "self" / "fdinfo").is_dir():
        return holder["pid"] not in _locking(run) and not _hidden(holder["pid"])
    try:
        os.kill(holder["pid"], 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _heirs(run: Path, loop: int) -> list[int]:
    """Return the processes that hold the lock of a loop that is gone; none where /proc can't tell."""
    found = _locking(run)
    # whoever locked the file himself is a loop: one that has not written its name yet must not be taken for a kernel
    return [] if loop in found or any(owner in found for owner in found.values()) else list(found)


def _locking(run: Path) -> dict[int, int]:
    """Return, by /proc, the processes that share in the lock, each with the one that took it (0 if that is gone)."""
    wanted, found = (run / FILE).stat(), {}
    for process in PROC.iterdir() if PROC.is_dir() else ():
        for link in _links(process) if process.name.isdigit() else ():
            with suppress(OSError):  # closed, or ended meanwhile
                if os.path.samestat(link.stat(), wanted) and (owner := _owner(process / "fdinfo" / link.name)) is not None:
                    found[int(process.name)] = owner
    return found


def _links(process: Path) -> list[Path]:
    try:
        return list((process / "fd").iterdir())
    except OSError:
        return []  # ended meanwhile, or another user's


def _hidden(pid: int) -> bool:
    """Tell whether a process is there, but another user's, whose open files can't be seen."""
    try:
        os.scandir(PROC / str(pid) / "fd").close()
    except OSError as error:
        return isinstance(error, PermissionError)
    return False


def _owner(info: Path) -> int | None:
    """Return who took the lock that a descriptor shares in; "lock: 1: FLOCK ADVISORY WRITE PID ..." says it (proc(5))."""
    for line in info.read_text().splitlines():
        words = line.split()
        if words[0] == "lock:" and "FLOCK" in words and "WRITE" in words:
            return int(words[words.index("WRITE") + 1])
    return None
