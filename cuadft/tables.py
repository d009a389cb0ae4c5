"""Rows of a CSV, JSON-lines or JSON file, each with the place in the file that an error message can name."""

from __future__ import annotations

import csv
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from cuadft.errors import InputError

JSON_SUFFIXES = (".json", ".jsonl", ".ndjson")
DELIMITERS = ",;\t"
SNIFFED = 65_536  # bytes looked at to tell text from binary, and JSON from CSV


@dataclass(frozen=True)
class Record:
    """Hold one row of a file and where it stands ("answers.csv, row 3"; CSV rows count without the header)."""

    where: str
    values: dict[str, Any]


def read(path: str | Path) -> list[Record]:
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


def _csv(path: Path) -> Iterator[Record]:
    with open(path, encoding="utf-8-sig", newline="") as file, _long_fields():
        try:
            reader = csv.reader(file, delimiter=_delimiter(file, path), strict=True)
            header, number = [name.strip() for name in _first(reader)], 0
            _check_header(header, path)
            for fields in reader:
                if fields:
                    number += 1
                    yield Record(f"{path}, row {number}", _as_dict(header, fields, f"{path}, row {number}"))
        except csv.Error as error:
            raise InputError(f"{path}, line {reader.line_num}: not valid CSV ({error}): a field with quotes, commas "
                             'or line breaks stands between ", a " in it is doubled; or the file is torn.') from None


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
    if len(fields) < len(header) or any(fields[len(header):]):
        raise InputError(f"{where}: {len(fields)} fields under a header of {len(header)}: put fields that hold "
                         "commas or line breaks between quotation marks; or the file is cut short.")
    return {name: field for name, field in zip(header, fields) if name}


def _json(path: Path) -> Iterator[Record]:
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
        raise InputError(f"{where}: not valid JSON ({error}): write one object a line, or one array of objects; "
                         "or the file is cut short.") from None


def _object(value: Any, where: str) -> Record:
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected an object with named columns, got {str(value)[:40]!r}.")
    return Record(where, value)
