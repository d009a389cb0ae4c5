"""Answers in any table, as predictions that `metrics.score` and every judge can read.

One file holds one row per answer: a question, its reference and what a system answered. `read` finds the columns and
turns each file into prediction rows, which `cuadft.pooled` puts together.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cuadft import tables
from cuadft.errors import InputError
from cuadft.excerpts import clean, shorten
from cuadft.metrics import is_refusal

ALIASES: dict[str, tuple[str, ...]] = {  # what a column is -> names it is known by, best first
    "question": ("question", "query", "question_text"),
    "reference": ("reference", "ref_answer", "reference_answer", "answers", "gold", "gold_answer", "ground_truth",
                  "groundtruth", "expected", "expected_answer", "expected_output", "target"),
    "answer": ("answer", "response", "prediction", "predicted_answer", "model_answer", "generated_answer", "output",
               "completion"),
    "system": ("system", "system_name"),
    "contract": ("contract", "contract_name", "contract_id", "contract_title"),
    "contract_type": ("contract_type",),
    "category": ("category",),
    "split": ("split",),
    "seed": ("seed",),
    "error": ("error",),
    "seconds": ("seconds",),
    "is_impossible": ("is_impossible",),
}  # fmt: skip
REQUIRED = ("question", "reference", "answer")
NO_TEXT = ("reference", "seconds")  # columns that may hold other values
NO_ANSWER = "no answer"
LISTED = 20  # columns named in an error
LONGEST_NAME = 100  # characters of a system's name, which stands in tables and figures
MOST_SEED = 2**32 - 1
BLANKS = ("", "nan", "null", "<na>")  # how tables write a missing value
WORDS = {"true": 1.0, "yes": 1.0, "correct": 1.0, "partly": 0.5, "false": 0.0, "no": 0.0, "incorrect": 0.0}


@dataclass(frozen=True)
class AnswerFile:
    """Hold a file's prediction rows, still without ids, and which column plays which role."""

    path: Path
    columns: dict[str, str]
    rows: list[dict[str, Any]] = field(repr=False)


def read(paths: Sequence[str | Path], *, verdicts: Sequence[str] = (), **columns: str) -> list[AnswerFile]:
    """Return each file's rows; `columns` names them (question=..., answer=...), others are found by `ALIASES`.

    verdicts: columns with others' verdicts (0 to 1, true/false or correct/partly/incorrect), kept as numbers in
    row["verdicts"] where a file has them. A reference may be a list of gold spans in JSON; the refusal sentence means
    that there is no such clause, and so does an empty list. A row without an answer is a failed generation: answer
    None, error "no answer".
    Raises InputError for an unreadable file, columns not found, and a row without question or reference.
    """
    unknown = set(columns) - set(ALIASES)
    if unknown:
        raise InputError(f"Invalid column {min(unknown)!r}: choose from {', '.join(ALIASES)}.")
    return [_read_one(Path(path), verdicts, columns) for path in paths]


def _read_one(path: Path, verdicts: Sequence[str], asked: Mapping[str, str]) -> AnswerFile:
    records = tables.read(path)
    present = list(dict.fromkeys(name for record in records for name in record.values))
    columns = {role: name for role in ALIASES if (name := _column(role, asked.get(role, ""), present, path))}
    for role in REQUIRED:
        same = [other for other in columns if columns[other] == columns[role] and other != role]
        if same:
            raise InputError(f"{path}: column {columns[role]!r} can't be both {role} and {same[0]}: name two.")
    kept = [name for name in verdicts if name in present]
    return AnswerFile(path, columns, [_row(record, columns, kept, path) for record in records])


def _column(role: str, asked: str, present: Sequence[str], path: Path) -> str | None:
    """Return the column that plays a role, None if an optional one is not there."""
    folded = {re.sub(r"[\W_]+", "_", name.casefold()).strip("_"): name for name in reversed(present)}
    listed = ", ".join(repr(shorten(name, 40)) for name in present[:LISTED]) + " …" * (len(present) > LISTED)
    if asked:
        found = asked if asked in present else folded.get(asked.casefold())
        if found is None:
            near = get_close_matches(asked, present, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            raise InputError(f"{path} has no column {asked!r} ({role}): {hint}Its columns: {listed}.")
        return found
    found = next((folded[name] for name in ALIASES[role] if name in folded), None)
    if found is None and role in REQUIRED:
        raise InputError(f"{path} has no column for the {role} (looked for {', '.join(ALIASES[role])}). Its columns: "
                         f"{listed}. Name one with --{role} COLUMN.")
    return found


def _row(record: tables.Record, columns: Mapping[str, str], verdicts: Sequence[str], path: Path) -> dict[str, Any]:
    given = {role: record.values.get(name) for role, name in columns.items()}
    text = {role: _text(value, record.where, role) for role, value in given.items() if role not in NO_TEXT}
    for role in ("question", "system", "contract"):
        if role in columns and text[role] is None:
            raise InputError(f"{record.where}: the {role} ({columns[role]!r}) is empty: fill it in, or drop the row.")
    golds = _golds(given["reference"], text.get("is_impossible"), record.where, columns["reference"])
    answer, seconds = text["answer"], given.get("seconds")
    row = {
        "question": text["question"], "answers": golds, "is_impossible": not golds, "answer": answer,
        "error": (text.get("error") or NO_ANSWER) if answer is None else None,
        "system": _system(text.get("system") or path.stem, record.where), "split": text.get("split") or "",
        "seed": _seed(text.get("seed"), record.where), "contract": text.get("contract") or "",
        "contract_type": text.get("contract_type") or "", "category": text.get("category") or "",
        "source": "file", "seconds": seconds if isinstance(seconds, float | int) else math.nan, "where": record.where,
        "verdicts": {name: _verdict(record.values.get(name), record.where, name) for name in verdicts},
    }  # fmt: skip
    return row | _places(record, given["reference"])


def _system(text: str, where: str) -> str:
    name = clean(text)
    if not 0 < len(name) <= LONGEST_NAME:
        raise InputError(f"{where}: {name[:40]!r} is no system's name, it has {len(name):,} characters: give 1 to "
                         f"{LONGEST_NAME}, or name the column that tells systems apart with --system COLUMN.")
    return name


def _places(record: tables.Record, reference: object) -> dict[str, Any]:
    """Return what only the project's own predictions hold: passages sent and spans found, as contract offsets."""
    if not (isinstance(reference, list) and all(isinstance(gold, dict) for gold in reference)):
        return {}
    passages, spans = (record.values.get(key) for key in ("passages", "spans"))
    places = {"passages": passages} if _offsets(passages, "start", "end") else {}
    return places | ({"spans": spans} if _offsets(spans, 0, 1) else {})


def _offsets(places: object, start: object, end: object) -> bool:
    try:
        return isinstance(places, list) and all(isinstance(place[k], int) for place in places for k in (start, end))
    except (TypeError, LookupError):
        return False


def _text(value: object, where: str, role: str) -> str | None:
    """Return a value as text, None for a missing one; a list of texts becomes lines."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = "\n".join(value)
    if isinstance(value, list | dict):
        raise InputError(f"{where}: the {role} is {str(value)[:60]!r}: give a text (or a list of texts).")
    if value is None or str(value).strip().casefold() in BLANKS:
        return None
    return str(value).replace("\0", " ").encode("utf-8", "replace").decode()  # no text file holds NUL or half a pair


def _golds(value: object, impossible: str | None, where: str, column: str) -> list[dict[str, Any]]:
    """Return the gold spans: texts with offsets (their places in the list where the file gives none)."""
    if isinstance(value, dict):  # {"text": [...], "answer_start": [...]}, as Hugging Face's SQuAD has it
        value = value.get("text")
    items = value if isinstance(value, list) else [value]
    found = [item if isinstance(item, dict) else {"text": item} for item in items]
    texts = [_text(item.get("text"), where, "reference") for item in found]
    if (_is_true(impossible) and not any(texts)) or (isinstance(value, list) and not value):
        return []
    if None in texts:
        raise InputError(f"{where}: the reference ({column!r}) is empty: give the right answer, the sentence 'There "
                         "is no such clause.' where there is none, or drop the row.")
    refusals = sum(map(is_refusal, texts))
    if refusals not in (0, len(texts)) or _is_true(impossible) and not refusals:
        raise InputError(f"{where}: the reference both names a clause and says that there is none: correct it.")
    starts = [item["start"] if isinstance(item.get("start"), int) else n for n, item in enumerate(found)]
    return [] if refusals else [{"text": t, "start": s} for t, s in zip(texts, starts, strict=True)]


def _is_true(text: str | None) -> bool:
    return text is not None and text.strip().casefold() in ("true", "1", "1.0", "yes")


def _seed(text: str | None, where: str) -> int:
    try:
        number = float(text or 0)
    except ValueError:
        number = math.nan
    if not number.is_integer() or abs(number) > MOST_SEED:
        raise InputError(f"{where}: seed {text[:40]!r} is no whole number of at most 32 bits: correct it.")
    return int(number)


def _verdict(value: object, where: str, column: str) -> float:
    text = (_text(value, where, column) or "nan").strip().casefold()
    try:
        number = WORDS[text] if text in WORDS else float(text)
    except ValueError:
        number = -1.0
    if not (0 <= number <= 1 or math.isnan(number)):
        raise InputError(f"{where}: verdict {str(value)[:40]!r} in column {column!r}: give a number from 0 to 1, "
                         "true/false or correct/partly/incorrect.")
    return number
