"""Text, JSON and JSON-lines files that survive a kill: written in one step, appended whole, read strictly.

A reader never sees half a file, because each write fills a temporary file beside it and then renames that. A file that
cannot be read raises `InputError` with its name and line. For example:

    write_jsonl("rows.jsonl", [{"id": 1}])
    append_jsonl("rows.jsonl", [{"id": 2}])
    read_jsonl("rows.jsonl")                # [{"id": 1}, {"id": 2}]

`read_table` reads a file that a user gives (CSV, JSON lines, JSON or parquet) and keeps the place of each row for
messages. `file_hash` and `value_hash` tell whether a file or a value has changed.
"""

from __future__ import annotations

import csv
import fcntl
import hashlib
import io
import json
import math
import os
import re
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuadft.core.errors import InputError

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
ROWS_IN = ("data", "rows", "results", "predictions", "examples")  # names under which a JSON object may hold its rows
DELIMITERS = ",;\t"
# What to do about a file of a run, and about a table of the user's
AGAIN = "repair or delete it, then run the stage again"
SAVE_AS_TEXT = "save it as UTF-8 (in Excel: 'CSV UTF-8')"
REPAIR = "write one object a line, or one array of objects; or the file is cut short"
LONE_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, as some PDFs yield them; it has no UTF-8 form


def write_json(path: str | Path, value: object) -> None:
    """Write one JSON value: NaN and infinities become null, numpy scalars become numbers, and paths become text."""
    write_text(path, _dumps(value, indent=2) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write a UTF-8 file in one step: a reader sees the old content or the new content, never a part of it."""
    write_bytes(path, text.encode("utf-8", "backslashreplace"))  # half a character, of a file's name, has no UTF-8 form


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file of bytes in one step, as `write_text` does."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(part, "wb") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # `remove_leftovers` spares a temporary file that is locked
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_jsonl(path: str | Path, rows: Iterable[Mapping]) -> None:
    """Write one JSON object a line, replacing the file in one step."""
    write_text(path, "".join(_dumps(row) + "\n" for row in rows))


def append_jsonl(path: str | Path, rows: Iterable[Mapping]) -> None:
    """Append rows in one flushed write; a last line that a kill left incomplete is cut off first."""
    text = "".join(_dumps(row) + "\n" for row in rows).encode()
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - 1, 0))
        if file.read(1) not in (b"", b"\n"):
            file.seek(0)
            rest = file.read().rsplit(b"\n", 1)[-1]
            if _is_object(rest):  # a whole row, of which only the newline is missing
                text = b"\n" + text
            else:
                file.truncate(size - len(rest))
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def read_json(path: str | Path) -> object:
    """Return a JSON file's value; raises InputError that names the file and the line of the fault."""
    return _loads(_read_text(path), f"{path}")


def read_jsonl(path: str | Path, *, torn_ok: bool = False) -> list[dict]:
    """Return a JSON-lines file's objects; with `torn_ok` a last line that a kill cut short is left out.

    Raises InputError that names the file, and the line that is not a JSON object.
    """
    return [row.values for row in _json_lines(_read_text(path, torn_ok=torn_ok), path, AGAIN)]


@dataclass(frozen=True)
class TableRow:
    """One row of a file and its place for messages, "answers.csv, row 3" (the header of a CSV file is not counted)."""

    where: str
    values: dict[str, Any]


def read_table(path: str | Path) -> list[TableRow]:
    """Return the rows of a CSV, JSON-lines, JSON or parquet file.

    A CSV file has commas, semicolons or tabs and quotes as in RFC 4180; its values are text. A JSON file holds an array
    of objects, or one object: a row, a list for each column, or a list of rows as "data". A text file is UTF-8, with or
    without a byte order mark, and a field may hold millions of characters. Raises InputError if the file is missing,
    empty, binary or cut short, and if a row does not fit its header.
    """
    if _is_parquet(path):
        records = _parquet_rows(path)
    elif (text := _read_text(path, missing="check the path", advice=SAVE_AS_TEXT)).lstrip().startswith("["):
        records = _numbered(_loads(text, f"{path}", REPAIR), path)
    elif Path(path).suffix.lower() in JSON_SUFFIXES or text.lstrip().startswith("{"):
        records = _json_rows(text, path)
    else:
        records = _csv_rows(text, path)
    if not records:
        raise InputError(f"{path} is empty or has no rows: give a file with one row per answer.")
    return records


def file_hash(path: str | Path, *, of_file: Callable[[Path], str] | None = None) -> str:
    """Return the SHA-256 (hex) of a file, or of the names and hashes of all files in a folder.

    of_file: computes the hash of one file; a caller gives one that remembers hashes.
    """
    path, of_file = Path(path), of_file or _sha256
    if not path.is_dir():
        return of_file(path)
    files = [p for p in sorted(path.rglob("*")) if p.is_file() and not is_leftover(p)]
    lines = [f"{p.relative_to(path).as_posix()}\0{of_file(p)}\n" for p in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def value_hash(value: object) -> str:
    """Return the SHA-256 (hex) of a value as JSON; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(plain_value(value), sort_keys=True).encode()).hexdigest()


def plain_value(value: object) -> object:
    """Return a value made of what JSON knows: finite numbers, text, lists, objects with text keys."""
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return plain_value(value.item()) if hasattr(value, "item") else value


def is_leftover(path: Path) -> bool:
    """Tell whether a file, by its name, is the temporary file of a write that was killed."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def remove_leftovers(folder: str | Path) -> int:
    """Delete the temporary files of killed writes below a folder; return how many were deleted.

    A file that is being written is locked by its writer (see `write_bytes`) and is spared. The lock of a new feedback
    store is that of its folder (see `cuadft.feedback.store`).
    """
    removed = 0
    for path in Path(folder).rglob(".*.tmp*"):  # SQLite adds an ending of its own, such as "-wal", after ".tmp"
        locked = path.parent if ".sqlite." in path.name else path
        # FileNotFoundError: the write has ended meanwhile; BlockingIOError: the write still goes on.
        with suppress(FileNotFoundError, BlockingIOError), ExitStack() as at_end:
            descriptor = os.open(locked, os.O_RDONLY)
            at_end.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            removed += 1
    return removed


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _dumps(value: object, indent: int | None = None) -> str:
    plain = plain_value(value)
    text = json.dumps(plain, ensure_ascii=False, indent=indent, allow_nan=False)
    return json.dumps(plain, indent=indent, allow_nan=False) if LONE_SURROGATE.search(text) else text


def _read_text(
    path: str | Path, *, torn_ok: bool = False, missing: str = "run the stage that writes it", advice: str = AGAIN
) -> str:
    try:
        content = Path(path).read_bytes()
        if torn_ok and not _is_object(content.rsplit(b"\n", 1)[-1]):
            content = content[: content.rfind(b"\n") + 1]
        return content.decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"No file {path}: {missing}.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder: name a file in it.") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is binary or not UTF-8 text (byte {error.start}): {advice}.") from None


def _loads(text: str, where: str, advice: str = AGAIN) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: not valid JSON ({error}): {advice}.") from None


def _json_lines(text: str, path: str | Path, advice: str) -> list[TableRow]:
    # Not splitlines(): it also cuts at U+2028, which may stand inside a JSON text.
    lines = [(f"{path}, line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()]
    return [_as_row(_loads(line, where, advice), where) for where, line in lines]


def _is_parquet(path: str | Path) -> bool:
    with suppress(OSError), open(path, "rb") as file:
        return file.read(4) == b"PAR1"
    return False


def _parquet_rows(path: str | Path) -> list[TableRow]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return _numbered(parquet.ParquetFile(path).read().to_pylist(), path)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{path} can't be read as parquet ({str(error)[:200]}): write it again.") from None


def _json_rows(text: str, path: str | Path) -> list[TableRow]:
    """Return the rows of JSON lines, or of one JSON object: its columns, the list of rows in it, or itself as a row."""
    one_line = "\n" not in text.strip() and Path(path).suffix.lower() != ".json"
    try:
        found = None if one_line else json.loads(text)
    except (ValueError, RecursionError):
        found = None
    return _numbered(_object_rows(found), path) if isinstance(found, dict) else _json_lines(text, path, REPAIR)


def _object_rows(found: dict[str, Any]) -> list[Any]:
    listed = [found[name] for name in ROWS_IN if isinstance(found.get(name), list)]
    if len(listed) == 1:
        return listed[0]
    if all(isinstance(column, dict) for column in found.values()):  # pandas' `to_json`: {"column": {"0": value}}
        if all(name.isdigit() for name in found):
            return list(found.values())
        if all(name.isdigit() for column in found.values() for name in column):
            found = {name: list(column.values()) for name, column in found.items()}
    lists = [column for column in found.values() if isinstance(column, list)]
    plain = any(not isinstance(value, list | dict) for column in lists for value in column)  # no list of messages
    if plain and len(lists) == len(found) and len(set(map(len, lists))) == 1:
        return [dict(zip(found, row)) for row in zip(*lists)]
    return [found]


def _numbered(values: Iterable[Any], path: str | Path) -> list[TableRow]:
    return [_as_row(value, f"{path}, row {number}") for number, value in enumerate(values, 1)]


def _as_row(value: Any, where: str) -> TableRow:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected a JSON object (names and values), got {str(value)[:40]!r}.")
    return TableRow(where, value)


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _csv_rows(text: str, path: str | Path) -> list[TableRow]:
    first_line = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(DELIMITERS, key=first_line.count)  # with equal numbers a comma wins
    limit = csv.field_size_limit(sys.maxsize)  # 131,072 characters a field, for the whole process
    reader = csv.DictReader(io.StringIO(text.lstrip("\r\n"), newline=""), delimiter=delimiter, strict=True)
    try:
        reader.fieldnames = [name.strip() for name in reader.fieldnames or ()]
        rows = list(reader)
    except csv.Error as error:
        raise InputError(
            f'{path}, line {reader.line_num}: not valid CSV ({error}): put " around a field that holds quotes, '
            'commas or line breaks, and write each " inside it twice; or the file is cut short.'
        ) from None
    finally:
        csv.field_size_limit(limit)
    header = list(filter(None, reader.fieldnames))
    if repeated := [name for name in header if header.count(name) > 1]:
        raise InputError(f"{path}: column {repeated[0][:40]!r} is there twice: give each column its own name.")
    for number, row in enumerate(rows, 1):
        if None in row.values() or any(row.pop(None, ())):  # fields that lack, or that stand beyond the header
            raise InputError(
                f"{path}, row {number}: not as many fields as the header has ({len(reader.fieldnames)}): put fields "
                "that hold commas or line breaks between quotation marks; or the file is cut short."
            )
        row.pop("", None)
    return [TableRow(f"{path}, row {number}", row) for number, row in enumerate(rows, 1)]
