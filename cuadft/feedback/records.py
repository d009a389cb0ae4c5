"""The record of one verdict on two answers: its fields and their checks, and which answers are the same pair.

A judgement is a dict with the keys of `FIELDS`; `verdict` and `shown_first` speak of answer_a and answer_b, not of
the places on the screen. An undo is a judgement whose `revokes` names the uid of the row that it takes back.

Values of others' files: text, durations and times as they stand in a CSV cell or a JSON field.

CSV files of people's text that a spreadsheet shows as text: no cell runs as a formula, none is changed by a round trip.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cuadft.core.errors import InputError
from cuadft.core.files import value_hash, write_text

VERDICTS = ("a", "b", "tie", "both_wrong", "skip")
OPINIONS = VERDICTS[:-1]  # a skipped pair has no verdict
REQUIRED = ("annotator", "id", "contract", "question", "answer_a", "answer_b", "verdict")
FIELDS = (
    "uid",
    "time",
    "annotator",
    "id",
    "contract",
    "question",
    "answer_a",
    "answer_b",
    "system_a",
    "system_b",
    "shown_first",
    "verdict",
    "edited",
    "span",
    "comment",
    "seconds",
    "prompt",
    "source",
    "revokes",
)
LONGEST_NAME = 100  # characters of an annotator's name
LONGEST_SHOWN = 60  # characters of a bad value in an error message
AHEAD = timedelta(days=1)  # a verdict dated later than this would outlast all corrections
_UID = re.compile(r"[0-9a-f]{32}")
_OTHER = {"a": "b", "b": "a"}


def checked_judgement(judgement: Mapping[str, Any]) -> dict[str, Any]:
    """Return a judgement with all `FIELDS`, in their order; uid and time are filled in where they are missing.

    Left out, system_a, system_b and comment are "", source is "widget" and all others None. NUL and lone surrogates,
    which no text file holds, become "?". Raises InputError on a missing, unknown or invalid field, and on two equal
    answers.
    """
    if unknown := [str(key) for key in judgement if key not in FIELDS]:
        raise InputError(f"Unknown field {unknown[0]!r} of a judgement: give only {', '.join(FIELDS)}.")
    if missing := [key for key in REQUIRED if judgement.get(key) is None]:
        raise InputError(f"The judgement has no {missing[0]!r}: give {', '.join(REQUIRED)}.")
    found = {key: _CHECKS[key](key, judgement.get(key)) for key in FIELDS}
    if found["answer_a"] == found["answer_b"]:
        raise InputError(
            f"Both answers are {_shown(found['answer_a'])}: there is nothing to choose, leave the pair out."
        )
    return found


def pair_key(record: Mapping[str, Any]) -> str:
    """Return the name of a judgement's or task's pair: its question's id and the two (system, answer), in any order."""
    sides = sorted(
        [without_surrogates(record[f"system_{side}"] or ""), without_surrogates(record[f"answer_{side}"])]
        for side in "ab"
    )
    return value_hash([without_surrogates(record["id"]), sides])[:24]


def swapped_verdict(judgement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same judgement with answer_a and answer_b in each other's place."""
    turned = {f"{key}_{side}": judgement[f"{key}_{_OTHER[side]}"] for key in ("answer", "system") for side in "ab"}
    turned |= {key: _OTHER.get(judgement[key], judgement[key]) for key in ("verdict", "shown_first")}
    return dict(judgement) | turned


def oriented(judgement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same judgement with the answer of the alphabetically first system (then answer) as answer_a."""
    first, second = ((judgement[f"system_{side}"], judgement[f"answer_{side}"]) for side in "ab")
    return dict(judgement) if first <= second else swapped_verdict(judgement)


def current_judgements(judgements: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return what holds now of judgements in stored order: no undone rows, the latest of each (annotator, pair).

    All rows of one pair get the orientation of its first row, so that their verdicts can be compared as they are.
    """
    rows = list(judgements)
    revoked = {row.get("revokes") for row in rows} - {None}
    first: dict[str, Any] = {}
    latest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row.get("time") or ""):  # stable: rows of one instant keep the stored order
        if not row.get("revokes") and row.get("uid") not in revoked:
            pair = pair_key(row)
            side = first.setdefault(pair, (row["system_a"], row["answer_a"]))
            latest.pop((row["annotator"], pair), None)
            latest[row["annotator"], pair] = (
                dict(row) if (row["system_a"], row["answer_a"]) == side else swapped_verdict(row)
            )
    return list(latest.values())


def without_surrogates(text: str) -> str:
    """Return a text without NUL and lone surrogates, of the same length."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode()


def one_line(name: str) -> str:
    """Return an annotator's name as it is stored: plain, with single blanks."""
    return " ".join(without_surrogates(name).split())


def _uid(key: str, value: Any) -> str:
    if value is not None and not (isinstance(value, str) and _UID.fullmatch(value)):
        raise _invalid(key, value, "32 hexadecimal digits, or nothing for a new one")
    return value or uuid.uuid4().hex


def _revokes(key: str, value: Any) -> str | None:
    return None if value is None else _uid(key, value)


def _time(key: str, value: Any) -> str:
    now = datetime.now(UTC)
    try:
        given = now if value is None else datetime.fromisoformat(value)
        utc = given.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise _invalid(key, value, "an ISO 8601 time such as 2026-05-04T09:30:00+00:00") from None
    if given.tzinfo is None or utc > now + AHEAD:
        raise _invalid(key, value, "a time with its zone (+00:00) that is not in the future")
    return utc.isoformat(timespec="microseconds")


def _name(key: str, value: Any) -> str:
    name = one_line(_text(key, value))
    if not 0 < len(name) <= LONGEST_NAME:
        raise _invalid(key, value, f"a name of 1 to {LONGEST_NAME} characters")
    return name


def _filled(key: str, value: Any) -> str:
    text = _text(key, value)
    if not text.strip():
        raise _invalid(key, value, "a text that is not blank")
    return text


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str | None):
        raise _invalid(key, value, "a text")
    return without_surrogates(value or "")


def _edited(key: str, value: Any) -> str | None:
    return _text(key, value) if _text(key, value).strip() else None


def _verdict(key: str, value: Any) -> str:
    return _one_of(key, value, VERDICTS)


def _shown_first(key: str, value: Any) -> str | None:
    return None if value is None else _one_of(key, value, ("a", "b"))


def _one_of(key: str, value: Any, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise _invalid(key, value, " or ".join(allowed))
    return value


def _span(key: str, value: Any) -> list[int] | None:
    if value is None:
        return None
    ends = list(value) if isinstance(value, list | tuple) else []
    if len(ends) != 2 or any(type(end) is not int for end in ends) or not 0 <= ends[0] < ends[1]:
        raise _invalid(key, value, "[start, end] in characters of the contract, 0 <= start < end")
    return ends


def _seconds(key: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise _invalid(key, value, "a number of seconds from 0")
    return float(value)


def _prompt(key: str, value: Any) -> list[dict[str, str]] | None:
    if value is None:
        return None
    allowed = 'a list of messages {"role": ..., "content": ...}'
    if not isinstance(value, list | tuple) or not value or not all(isinstance(m, Mapping) for m in value):
        raise _invalid(key, value, allowed)
    if any(not isinstance(m.get(part), str) for m in value for part in ("role", "content")):
        raise _invalid(key, value, allowed)
    return [{"role": without_surrogates(m["role"]), "content": without_surrogates(m["content"])} for m in value]


def _source(key: str, value: Any) -> str:
    source = _text(key, value) or "widget"
    if source != "widget" and not source.startswith("import:"):
        raise _invalid(key, value, '"widget" or "import:<file name>"')
    return source


def _invalid(key: str, value: Any, allowed: str) -> InputError:
    return InputError(f"Invalid {key} {_shown(value)} of a judgement: give {allowed}.")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST_SHOWN else text[:LONGEST_SHOWN] + "..."


_CHECKS: dict[str, Callable[[str, Any], Any]] = dict.fromkeys(FIELDS, _text) | {
    "uid": _uid,
    "time": _time,
    "annotator": _name,
    "id": _filled,
    "contract": _filled,
    "question": _filled,
    "shown_first": _shown_first,
    "verdict": _verdict,
    "edited": _edited,
    "span": _span,
    "seconds": _seconds,
    "prompt": _prompt,
    "source": _source,
    "revokes": _revokes,
}


class Refused(Exception):
    """Say why a row of a file can't be taken; `held_out` marks those of held-out contracts."""

    def __init__(self, reason: str, *, held_out: bool = False) -> None:
        super().__init__(reason)
        self.held_out = held_out


def cell_column(name: str) -> str:
    """Return a column's name as it is looked up, whatever its case and punctuation: "Answer A" is "answer_a"."""
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")


def cell_text(value: Any, name: str = "value") -> str:
    """Return a value as text, "" for None; raises Refused for lists, mappings and truth values."""
    if isinstance(value, (list, dict, bool)):
        raise Refused(f"its {name} is no text: {str(value)[:40]}")
    return "" if value is None else str(value)


def cell_seconds(value: Any) -> float | None:
    """Return a time spent, None for what is no number from 0."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if 0 <= found < math.inf else None


def cell_moment(value: Any) -> str | None:
    """Return an ISO 8601 time (UTC where it names no zone), None for what is none or lies in the future."""
    try:
        found = datetime.fromisoformat(value)
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
    return found.isoformat() if found <= datetime.now(UTC) + AHEAD else None


# What spreadsheets take for the start of a formula (OWASP, "CSV Injection"), full-width forms included
_FORMULA = r"(?:\s*[=+\-@＝＋－＠]|[\t\r\n])"
_RISKY = re.compile(rf"'*{_FORMULA}")
_QUOTED = re.compile(rf"''*{_FORMULA}")


def quote_formula(text: str) -> str:
    """Return a cell's text with an apostrophe before what would run as a formula; `unquote` takes it off again."""
    return f"'{text}" if _RISKY.match(text) else text


def unquote_formula(text: str) -> str:
    """Return the text that `quote` was given; any text that it would not have made is returned as it is."""
    return text[1:] if _QUOTED.match(text) else text


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
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
        return quote_formula(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (bool, list, dict)) else f"{value}"
