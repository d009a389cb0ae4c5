"""CSV files of people's text that a spreadsheet shows as text: no cell runs as a formula, none is changed by a round trip."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cuadft.files import write_text

# What spreadsheets take for the start of a formula (OWASP, "CSV Injection"), full-width forms included
_FORMULA = r"(?:\s*[=+\-@＝＋－＠]|[\t\r\n])"
_RISKY = re.compile(rf"'*{_FORMULA}")
_QUOTED = re.compile(rf"''*{_FORMULA}")


def quote(text: str) -> str:
    """Return a cell's text with an apostrophe before what would run as a formula; `unquote` takes it off again."""
    return f"'{text}" if _RISKY.match(text) else text


def unquote(text: str) -> str:
    """Return the text that `quote` was given; any text that it would not have made is returned as it is."""
    return text[1:] if _QUOTED.match(text) else text


def write(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write rows as CSV (RFC 4180) in one step: None is an empty cell, lists, mappings and truth values are JSON."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    writer.writerows([[_cell(row.get(name)) for name in columns] for row in rows])
    write_text(path, out.getvalue())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return quote(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (bool, list, dict)) else f"{value}"
