"""What a judgement is: its fields and their checks, and how the same pair of answers is recognised.

A person sees two answers to one question and says which one is better. What is said goes through the files of this room
under five names:

- A *judgement* is one person's record on two answers: a dict with the keys of `FIELDS`. Its `verdict` is one of
  `VERDICTS`; "a" means that answer_a is better, wherever it stood on the screen (`shown_first` says where).
- A *vote* is the same in another program's file, before its training question is known (`formats.ForeignVote`).
- A *ruling* is what the majority of the annotators decided on a pair (`agreement.Ruling`).
- A *grade* is a score of one answer from 0 to 1, given by the gold spans or by a judge (`candidates.GradedAnswer`).
- A *choice* is a text to prefer and a text to reject, made of a ruling or of two grades (`candidates.Choice`).

For example:

    said = {"annotator": "anna", "id": "q1", "contract": "Acme", "question": "Which law?", "answer_a": "Ohio",
            "answer_b": "Texas", "verdict": "a"}
    checked_judgement(said)   # with all FIELDS, a new uid and the time

A stored judgement is never changed. An undo is a judgement of its own whose `revokes` holds the uid of the judgement
that it takes back; `current_judgements` leaves both out.

Helpers for files stand at the end. `cell_text`, `cell_seconds` and `cell_time` read one cell of a CSV or JSON file.
`write_csv` writes a table in which no cell runs as a formula when a spreadsheet opens it; `unquote_formula` gives each
cell's own text back.
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
NOT_SKIPPED = VERDICTS[:-1]  # who skips a pair says nothing about its answers
OTHER_SIDE = {"a": "b", "b": "a"}
REQUIRED = ("annotator", "id", "contract", "question", "answer_a", "answer_b", "verdict")
FIELDS = (
    "uid",
    "time",
    "annotator",
    "id",  # of the training question
    "contract",
    "question",
    "answer_a",
    "answer_b",
    "system_a",
    "system_b",
    "shown_first",  # "a" or "b"; None where that is not known
    "verdict",
    "edited",  # the better answer as the annotator corrected it
    "span",  # [start, end] of the true evidence in the contract, as the annotator marked it
    "comment",
    "seconds",  # time spent on the pair
    "prompt",  # the messages to which the answers were given
    "source",  # "widget" or "import:<file name>"
    "revokes",  # the uid of the judgement that this one takes back
)
MAX_NAME_LENGTH = 100  # characters of an annotator's name
MAX_VALUE_SHOWN = 60  # characters of a bad value in an error message
CLOCK_TOLERANCE = timedelta(days=1)  # the latest judgement counts: one dated in the far future could not be corrected
_UID = re.compile(r"[0-9a-f]{32}")


def checked_judgement(judgement: Mapping[str, Any]) -> dict[str, Any]:
    """Return a judgement with all `FIELDS`, in their order; uid and time are filled in where they are missing.

    An optional field that is left out becomes "" (system_a, system_b, comment), "widget" (source) or None (all others).
    NUL and lone surrogates, which no text file can hold, become "?". Raises InputError on a missing, unknown or invalid
    field, and on two equal answers.
    """
    if unknown := [str(key) for key in judgement if key not in FIELDS]:
        raise InputError(f"Unknown field {unknown[0]!r} of a judgement: give only {', '.join(FIELDS)}.")
    if missing := [key for key in REQUIRED if judgement.get(key) is None]:
        raise InputError(f"The judgement has no {missing[0]!r}: give {', '.join(REQUIRED)}.")
    found = {key: _CHECKS[key](key, judgement.get(key)) for key in FIELDS}
    if found["answer_a"] == found["answer_b"]:
        raise InputError(
            f"Both answers are {_shortened(found['answer_a'])}: there is nothing to choose, leave the pair out."
        )
    return found


def pair_key(record: Mapping[str, Any]) -> str:
    """Return the key of a judgement's or task's pair, 24 hexadecimal digits.

    It depends on the question's id and on the two (system, answer), not on which of them is a and which is b.
    """
    sides = sorted(
        [without_surrogates(record[f"system_{side}"] or ""), without_surrogates(record[f"answer_{side}"])]
        for side in "ab"
    )
    return value_hash([without_surrogates(record["id"]), sides])[:24]


def swapped_judgement(judgement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same judgement with answer_a and answer_b in each other's place."""
    swapped = {f"{key}_{side}": judgement[f"{key}_{OTHER_SIDE[side]}"] for key in ("answer", "system") for side in "ab"}
    swapped |= {key: OTHER_SIDE.get(judgement[key], judgement[key]) for key in ("verdict", "shown_first")}
    return dict(judgement) | swapped


def canonical_judgement(judgement: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same judgement with the answers in alphabetical order of their systems, then of their texts."""
    first, second = ((judgement[f"system_{side}"], judgement[f"answer_{side}"]) for side in "ab")
    return dict(judgement) if first <= second else swapped_judgement(judgement)


def current_judgements(judgements: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the judgements that count now, of judgements in stored order.

    Undone judgements and undos are left out, and of each annotator the latest judgement on a pair counts. In all
    judgements on one pair answer_a is the same answer, so that their verdicts can be compared as they are.
    """
    rows = list(judgements)
    revoked = {row.get("revokes") for row in rows} - {None}
    side_a: dict[str, tuple[str, str]] = {}  # pair -> (system, answer) of side a in the pair's first judgement
    latest: dict[tuple[str, str], dict[str, Any]] = {}
    for row in sorted(rows, key=lambda row: row.get("time") or ""):  # stable: rows of one instant keep the stored order
        if row.get("revokes") or row.get("uid") in revoked:
            continue
        pair, side = pair_key(row), (row["system_a"], row["answer_a"])
        same_side = side_a.setdefault(pair, side) == side
        latest.pop((row["annotator"], pair), None)  # so that the later judgement stands at the end of the dict
        latest[row["annotator"], pair] = dict(row) if same_side else swapped_judgement(row)
    return list(latest.values())


def without_surrogates(text: str) -> str:
    """Return a text without NUL and lone surrogates, of the same length."""
    return text.replace("\0", "?").encode("utf-8", "replace").decode()


def one_line(name: str) -> str:
    """Return an annotator's name as it is stored: without NUL and lone surrogates, with single blanks."""
    return " ".join(without_surrogates(name).split())


def _valid_uid(key: str, value: Any) -> str:
    if value is not None and not (isinstance(value, str) and _UID.fullmatch(value)):
        raise _invalid_field(key, value, "32 hexadecimal digits, or nothing for a new one")
    return value or uuid.uuid4().hex


def _valid_revokes(key: str, value: Any) -> str | None:
    return None if value is None else _valid_uid(key, value)


def _valid_time(key: str, value: Any) -> str:
    now = datetime.now(UTC)
    try:
        given = now if value is None else datetime.fromisoformat(value)
        utc = given.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise _invalid_field(key, value, "an ISO 8601 time such as 2026-05-04T09:30:00+00:00") from None
    if given.tzinfo is None or utc > now + CLOCK_TOLERANCE:
        raise _invalid_field(key, value, "a time with its zone (+00:00) that is not in the future")
    return utc.isoformat(timespec="microseconds")


def _valid_annotator(key: str, value: Any) -> str:
    name = one_line(_valid_text(key, value))
    if not 0 < len(name) <= MAX_NAME_LENGTH:
        raise _invalid_field(key, value, f"a name of 1 to {MAX_NAME_LENGTH} characters")
    return name


def _valid_not_blank(key: str, value: Any) -> str:
    text = _valid_text(key, value)
    if not text.strip():
        raise _invalid_field(key, value, "a text that is not blank")
    return text


def _valid_text(key: str, value: Any) -> str:
    if not isinstance(value, str | None):
        raise _invalid_field(key, value, "a text")
    return without_surrogates(value or "")


def _valid_edited(key: str, value: Any) -> str | None:
    return _valid_text(key, value) if _valid_text(key, value).strip() else None


def _valid_verdict(key: str, value: Any) -> str:
    return _valid_option(key, value, VERDICTS)


def _valid_shown_first(key: str, value: Any) -> str | None:
    return None if value is None else _valid_option(key, value, ("a", "b"))


def _valid_option(key: str, value: Any, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise _invalid_field(key, value, " or ".join(allowed))
    return value


def _valid_span(key: str, value: Any) -> list[int] | None:
    if value is None:
        return None
    ends = list(value) if isinstance(value, list | tuple) else []
    if len(ends) != 2 or any(type(end) is not int for end in ends) or not 0 <= ends[0] < ends[1]:
        raise _invalid_field(key, value, "[start, end] in characters of the contract, 0 <= start < end")
    return ends


def _valid_seconds(key: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise _invalid_field(key, value, "a number of seconds from 0")
    return float(value)


def _valid_prompt(key: str, value: Any) -> list[dict[str, str]] | None:
    if value is None:
        return None
    allowed = 'a list of messages {"role": ..., "content": ...}'
    if not isinstance(value, list | tuple) or not value or not all(isinstance(m, Mapping) for m in value):
        raise _invalid_field(key, value, allowed)
    if any(not isinstance(m.get(part), str) for m in value for part in ("role", "content")):
        raise _invalid_field(key, value, allowed)
    return [{"role": without_surrogates(m["role"]), "content": without_surrogates(m["content"])} for m in value]


def _valid_source(key: str, value: Any) -> str:
    source = _valid_text(key, value) or "widget"
    if source != "widget" and not source.startswith("import:"):
        raise _invalid_field(key, value, '"widget" or "import:<file name>"')
    return source


def _invalid_field(key: str, value: Any, allowed: str) -> InputError:
    return InputError(f"Invalid {key} {_shortened(value)} of a judgement: give {allowed}.")


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_VALUE_SHOWN else text[:MAX_VALUE_SHOWN] + "..."


_CHECKS: dict[str, Callable[[str, Any], Any]] = dict.fromkeys(FIELDS, _valid_text) | {
    "uid": _valid_uid,
    "time": _valid_time,
    "annotator": _valid_annotator,
    "id": _valid_not_blank,
    "contract": _valid_not_blank,
    "question": _valid_not_blank,
    "shown_first": _valid_shown_first,
    "verdict": _valid_verdict,
    "edited": _valid_edited,
    "span": _valid_span,
    "seconds": _valid_seconds,
    "prompt": _valid_prompt,
    "source": _valid_source,
    "revokes": _valid_revokes,
}


class RowRefused(Exception):
    """Say why a row of a file can't be imported; `held_out` is True where its contract is held out from training."""

    def __init__(self, reason: str, *, held_out: bool = False) -> None:
        super().__init__(reason)
        self.held_out = held_out


def cell_text(value: Any, name: str = "value") -> str:
    """Return a value as text, "" for None; raises RowRefused for lists, dicts and truth values."""
    if isinstance(value, (list, dict, bool)):
        raise RowRefused(f"its {name} is no text: {str(value)[:40]}")
    return "" if value is None else str(value)


def cell_seconds(value: Any) -> float | None:
    """Return a time spent in seconds; None for a value that is not a number from 0."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if 0 <= found < math.inf else None


def cell_time(value: Any) -> str | None:
    """Return an ISO 8601 time, UTC where it names no zone; None for another value and for a time in the future."""
    try:
        found = datetime.fromisoformat(value)
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
    return found.isoformat() if found <= datetime.now(UTC) + CLOCK_TOLERANCE else None


# Spreadsheets take a cell with this start for a formula (OWASP, "CSV Injection"); full-width signs count too
_FORMULA = r"(?:\s*[=+\-@＝＋－＠]|[\t\r\n])"
_RISKY = re.compile(rf"'*{_FORMULA}")
_QUOTED = re.compile(rf"''*{_FORMULA}")


def quote_formula(text: str) -> str:
    """Return a cell's text, with an apostrophe before it if a spreadsheet would run it; see `unquote_formula`."""
    return f"'{text}" if _RISKY.match(text) else text


def unquote_formula(text: str) -> str:
    """Return the text that `quote_formula` was given; a text that it can't have made is returned as it is."""
    return text[1:] if _QUOTED.match(text) else text


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Write rows as CSV (RFC 4180) in one step; None is an empty cell, a list, dict or truth value is JSON."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    writer.writerows([[_csv_cell(row.get(name)) for name in columns] for row in rows])
    write_text(path, out.getvalue())


def _csv_cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return quote_formula(value)
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (bool, list, dict)) else f"{value}"
