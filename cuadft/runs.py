"""Run folders: where a run and its iterations keep their files, and what made them (run.json).

The safe ways to read and write those files come from `cuadft.files` and are offered here under one name.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cuadft import provenance
from cuadft.errors import InputError
from cuadft.files import (
    append_jsonl,
    file_hash,
    read_json,
    read_jsonl,
    value_hash,
    write_json,
    write_jsonl,
    write_text,
)

__all__ = [
    "Iteration", "append_jsonl", "describe", "environment", "file_hash", "open_iteration", "read_json", "read_jsonl",
    "resolve", "root", "unwritable", "write_json", "write_jsonl", "write_text",
]  # fmt: skip

FOLDERS = ("data", "retriever", "program", "predictions", "adapters", "metrics", "figures", "executed")


def root() -> Path:
    """Return the project root: the nearest folder upwards with notebooks/ and params/, else this one."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    return here


def resolve(path: str | Path) -> Path:
    """Return an absolute path: a relative one from here if it exists here, else from the project root."""
    path = Path(path).expanduser()
    here = Path.cwd() / path
    return here if path.is_absolute() or here.exists() else root() / path


@dataclass(frozen=True)
class Iteration:
    """One round of the loop in a run folder; `number` counts from 1."""

    run: Path
    number: int

    @property
    def dir(self) -> Path:
        return self.run / f"iter-{self.number:02d}"

    @property
    def previous(self) -> Iteration | None:
        return Iteration(self.run, self.number - 1) if self.number > 1 else None

    def path(self, *parts: str) -> Path:
        """Return a path inside the iteration's folder."""
        return self.dir.joinpath(*parts)


def open_iteration(run_dir: str | Path, iteration: int) -> Iteration:
    """Create the iteration's folders (and run.json); raises InputError if they can't be written."""
    if not isinstance(iteration, int) or isinstance(iteration, bool) or iteration < 1:
        raise InputError(f"Invalid iteration {iteration!r}: give a whole number from 1.")
    if not str(run_dir).strip():
        raise InputError("Invalid run_dir '': give a folder, for example runs/quickstart.")
    opened = Iteration(resolve(run_dir), iteration)
    if opened.previous and not opened.previous.dir.is_dir():
        missing = opened.previous.dir
        raise InputError(f"Iteration {iteration} needs {missing}: run iteration {iteration - 1} first.")
    try:
        for name in FOLDERS:
            opened.path(name).mkdir(parents=True, exist_ok=True)
        if not (opened.run / "run.json").exists():
            describe(opened.run, preset=None)
        write_text(opened.path(".writable"), "")
        opened.path(".writable").unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(opened.run, error) from error
    return opened


def unwritable(folder: Path, error: OSError) -> InputError:
    """Return the error that says why a run folder can't be used."""
    reason = f"{error.filename or folder}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "make room on its disk; the same command then goes on where this one stopped"
    else:
        advice = "choose another run folder, or make this one writable; the same command then goes on"
    return InputError(f"Can't write to run folder {folder} ({reason}): {advice}.")


def describe(run: Path, *, preset: str | None) -> None:
    """Write run.json: name, creation time, preset, versions, commit and machine of the latest call, environments of all.

    A call on an existing run keeps its creation time and its environments.
    """
    before = read_json(run / "run.json") if (run / "run.json").exists() else {}
    created = before.get("created", datetime.now(UTC).isoformat(timespec="seconds"))
    versions, code = provenance.versions(), provenance.code()
    record = {"name": run.name, "created": created, "preset": preset, "python": versions.pop("python"), "versions": versions}
    record |= {"git_commit": code["commit"], "git_dirty": code["dirty"], "machine": provenance.machine()}
    write_json(run / "run.json", record | {"environments": before.get("environments", {})})


def environment(run: Path) -> str:
    """Return the key of this process's environment in run.json, where it is added if it is new.

    An environment is all installed packages, Python and machine: too long for the record of every stage.
    """
    found = provenance.environment()
    key, record = value_hash(found)[:12], read_json(run / "run.json")
    if key not in record.setdefault("environments", {}):
        record["environments"][key] = found
        write_json(run / "run.json", record)
    return key
