"""Text, JSON and JSON-lines files that survive a kill: written in one step, appended whole, read strictly."""

from __future__ import annotations

import fcntl
import hashlib
import json
import math
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cuadft.errors import InputError


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file in one step: readers see the old content or the new, never a part."""
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file in one step, as `write_text`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(part, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # tells a write that goes on from what a kill left: see remove_leftovers
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_json(path: str | Path, value: object) -> None:
    """Write one JSON value; NaN and infinities become null, numpy scalars numbers, paths text."""
    write_text(path, _dumps(value, indent=2) + "\n")


def write_jsonl(path: str | Path, rows: Iterable[Mapping]) -> None:
    """Write one JSON object a line, replacing the file in one step."""
    write_text(path, "".join(_dumps(row) + "\n" for row in rows))


def append_jsonl(path: str | Path, rows: Iterable[Mapping]) -> None:
    """Append rows in one flushed write, after cutting off a last line that a kill left incomplete."""
    text = "".join(_dumps(row) + "\n" for row in rows).encode()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        tail, size = _unfinished_line(file), file.seek(0, os.SEEK_END)
        if tail and _is_object(tail):
            text = b"\n" + text
        elif tail:
            file.truncate(size - len(tail))
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _unfinished_line(file: BinaryIO) -> bytes:
    """Return what follows the last newline; looks at the whole file only if there is such a rest."""
    if not file.seek(0, os.SEEK_END):
        return b""
    file.seek(-1, os.SEEK_END)
    if file.read(1) == b"\n":
        return b""
    file.seek(0)
    return file.read().rsplit(b"\n", 1)[-1]


def read_json(path: str | Path) -> object:
    """Return a JSON file's value; raises InputError that names file and line."""
    return _loads(_decode(_read(path), path), f"{path}")


def read_jsonl(path: str | Path, *, torn_ok: bool = False) -> list[dict]:
    """Return a JSON-lines file's objects; `torn_ok` leaves out a last line that a kill cut short."""
    content = _read(path)
    if torn_ok and not _is_object(content.rsplit(b"\n", 1)[-1]):
        content = content[: content.rfind(b"\n") + 1]
    rows = []
    # not splitlines(): JSON text may hold U+2028, which is no line end here
    for number, line in enumerate(_decode(content, path).split("\n"), 1):
        if line.strip():
            rows.append(_loads(line, f"{path}, line {number}"))
            if not isinstance(rows[-1], dict):
                raise InputError(f"{path}, line {number}: expected a JSON object, got {line[:40]!r}.")
    return rows


def file_hash(path: str | Path, *, of_file: Callable[[Path], str] | None = None) -> str:
    """Return the SHA-256 of a file, or of a folder's names and file hashes (`of_file` may cache those)."""
    path, of_file = Path(path), of_file or _sha256
    if not path.is_dir():
        return of_file(path)
    files = [p for p in sorted(path.rglob("*")) if p.is_file() and not is_leftover(p)]
    lines = [f"{p.relative_to(path).as_posix()}\0{of_file(p)}\n" for p in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def value_hash(value: object) -> str:
    """Return the SHA-256 (hex) of a JSON-able value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(_plain(value), sort_keys=True).encode()).hexdigest()


def is_leftover(path: Path) -> bool:
    """Tell whether a file is the temporary part of a write that was killed."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def remove_leftovers(folder: str | Path) -> int:
    """Delete the temporary parts of killed writes below a folder, but none that is being written; return how many."""
    removed = 0
    for path in Path(folder).rglob(".*.tmp*"):  # SQLite's carry an ending of its own after .tmp
        # FileNotFoundError: finished meanwhile; BlockingIOError: at work (see `write_bytes`, and `ledger` for its files)
        with suppress(FileNotFoundError, BlockingIOError), _opened(path.parent if ".sqlite." in path.name else path) as held:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            removed += 1
    return removed


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _dumps(value: object, indent: int | None = None) -> str:
    plain = _plain(value)
    text = json.dumps(plain, ensure_ascii=False, indent=indent, allow_nan=False)
    # a lone surrogate (some PDFs yield them) has no UTF-8 form; its JSON escape has
    return text if text.isascii() or _encodable(text) else json.dumps(plain, indent=indent, allow_nan=False)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _plain(value: object) -> object:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return _plain(value.item()) if hasattr(value, "item") else value


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except FileNotFoundError:
        raise InputError(f"No file {path}: run the stage that writes it (see `cuadft status`).") from None


def _decode(content: bytes, path: str | Path) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        message = f"{path} is not UTF-8 text (byte {error.start}): repair or delete it, then run the stage again."
        raise InputError(message) from None


def _loads(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except ValueError as error:
        message = f"{where}: not valid JSON ({error}): repair or delete it, then run the stage again."
        raise InputError(message) from None
