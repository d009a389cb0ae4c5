"""Text, JSON and JSON-lines files that survive a kill: written in one step, appended whole, read strictly.

Rows of a CSV, JSON-lines or JSON file, each with the place in the file that an error message can name.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import json
import math
import os
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from cuadft.core.errors import InputError


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
        with (
            suppress(FileNotFoundError, BlockingIOError),
            _opened(path.parent if ".sqlite." in path.name else path) as held,
        ):
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


JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
DELIMITERS = ",;\t"
SNIFFED = 65_536  # bytes looked at to tell text from binary, and JSON from CSV


@dataclass(frozen=True)
class TableRow:
    """Hold one row of a file and where it stands ("answers.csv, row 3"; CSV rows count without the header)."""

    where: str
    values: dict[str, Any]


def read_table(path: str | Path) -> list[TableRow]:
    """Return a file's rows: CSV (comma, semicolon or tab; RFC 4180 quotes), JSON lines, or a JSON array of objects.

    The text is UTF-8, with or without a byte order mark; a field may hold millions of characters. CSV values are
    text, JSON values what they are. Raises InputError for a missing, empty, binary or torn file and for a row
    that does not fit its header.
    """
    path = Path(path)
    start = _start(path)
    is_json = path.suffix.lower() in JSON_SUFFIXES or start.lstrip()[:1] in (b"{", b"[")
    try:
        records = list(_json(path) if is_json else _csv(path))
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: save it as UTF-8 (in Excel: 'CSV UTF-8').") from None
    if not records:
        raise InputError(f"{path} has no rows: give a file with one row per answer.")
    return records


def _start(path: Path) -> bytes:
    """Return the first bytes, without the byte order mark, of what must be a text file."""
    if path.is_dir():
        raise InputError(f"{path} is a folder: name the files in it, for example {path / '*.csv'}.")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a pipe or a device, which can't be read twice: save it as a file first.")
    try:
        with open(path, "rb") as file:
            start = file.read(SNIFFED)
    except FileNotFoundError:
        raise InputError(f"No file {path}: check the path.") from None
    if b"\0" in start:
        raise InputError(f"{path} is not UTF-8 text but binary (or UTF-16): save it as UTF-8 CSV or JSON lines.")
    start = start.removeprefix(b"\xef\xbb\xbf")
    if not start.strip():
        raise InputError(f"{path} is empty: give a file with one row per answer.")
    return start


def _csv(path: Path) -> Iterator[TableRow]:
    with open(path, encoding="utf-8-sig", newline="") as file, _long_fields():
        try:
            reader = csv.reader(file, delimiter=_delimiter(file, path), strict=True)
            header, number = [name.strip() for name in _first(reader)], 0
            _check_header(header, path)
            for fields in reader:
                if fields:
                    number += 1
                    yield TableRow(f"{path}, row {number}", _as_dict(header, fields, f"{path}, row {number}"))
        except csv.Error as error:
            raise InputError(
                f"{path}, line {reader.line_num}: not valid CSV ({error}): a field with quotes, commas "
                'or line breaks stands between ", a " in it is doubled; or the file is torn.'
            ) from None


def _delimiter(file: TextIO, path: Path) -> str:
    """Return the delimiter that cuts the header into most names, a comma where they tie."""
    counts = {}
    for delimiter in DELIMITERS:
        file.seek(0)
        try:
            counts[delimiter] = len(_first(csv.reader(file, delimiter=delimiter)))
        except csv.Error as error:
            raise InputError(f"{path}, line 1: not a CSV header ({error}): write the columns' names there.") from None
    file.seek(0)
    return max(counts, key=lambda delimiter: counts[delimiter])


def _first(rows: Iterable[list[str]]) -> list[str]:
    return next((fields for fields in rows if fields), [])


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters a field, which holds for the whole process."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _check_header(header: list[str], path: Path) -> None:
    twice = [name for name, count in Counter(header).items() if name and count > 1]
    if twice:
        raise InputError(f"{path}: column {twice[0][:40]!r} is there twice: give each column its own name.")


def _as_dict(header: list[str], fields: list[str], where: str) -> dict[str, str]:
    if len(fields) < len(header) or any(fields[len(header) :]):
        raise InputError(
            f"{where}: {len(fields)} fields under a header of {len(header)}: put fields that hold "
            "commas or line breaks between quotation marks; or the file is cut short."
        )
    return {name: field for name, field in zip(header, fields) if name}


def _json(path: Path) -> Iterator[TableRow]:
    if _start(path).lstrip().startswith(b"["):
        values = _parsed(path.read_text(encoding="utf-8-sig"), f"{path}")
        yield from (_object(value, f"{path}, row {n}") for n, value in enumerate(values, 1))
        return
    with open(path, encoding="utf-8-sig", newline="\n") as file:
        for n, line in enumerate(file, 1):
            if line.strip():
                yield _object(_parsed(line, f"{path}, line {n}"), f"{path}, line {n}")


def _parsed(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{where}: not valid JSON ({error}): write one object a line, or one array of objects; "
            "or the file is cut short."
        ) from None


def _object(value: Any, where: str) -> TableRow:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object with named columns, got {str(value)[:40]!r}.")
    return TableRow(where, value)
