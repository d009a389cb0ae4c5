"""Verdicts on pairs of answers in others' files: which format a file has, and its rows as votes, still without a question.

Formats: "trl" (preference pairs, or unpaired thumbs up and down), "labelstudio" (pairwise comparisons), "aws" (the AWS
sample's answers beside the experts' references) and "raw" (our own judgements).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuadft import cells, labelstudio, spreadsheet, tables, trl_rows
from cuadft.cells import Refused
from cuadft.errors import InputError
from cuadft.judgements import FIELDS, VERDICTS

FORMATS = ("auto", "trl", "labelstudio", "aws", "raw")
REFERENCE, RESPONSE = ("ref_answer", "gt_answer", "reference_answer"), ("response", "pred_answer")
JUDGED = "judge_bool"  # the column of the AWS sample's files with a judge's true or false
EXPERT = "expert"  # the annotator and the system of a reference answer
COLUMNS = {  # what a vote keeps -> names that its column has in others' files, best first
    "id": ("question_id", "row_id", "id"),
    "contract": ("contract_title", "contract_name", "contract"),
    "question": ("question", "query"),
    "annotator": ("annotator", "annotator_id", "completed_by", "labeler", "labeller"),
    "comment": ("comment", "comments", "note", "notes"),
    "seconds": ("seconds", "lead_time"),
    "time": ("time", "created_at"),
}
RAW = ("uid", "answer_a", "answer_b", "system_a", "system_b", "shown_first", "verdict", "edited", "span", "prompt")
LISTED = 20  # columns named in an error
_Reader = Callable[[tables.Record], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class Vote:
    """Hold what a row says, as keys of a judgement and `prompt_question`, and where it stands ("row 3")."""

    where: str
    values: dict[str, Any]


@dataclass(frozen=True)
class LeftOut:
    """Say which row of a file makes no judgement, and why; `held_out` marks those of held-out contracts."""

    where: str
    reason: str
    held_out: bool = False


def read(path: str | Path, file_format: str = "auto") -> tuple[str, list[Vote | LeftOut]]:
    """Return a file's format and its rows as votes, or as left out with the reason.

    Raises InputError for an unknown format, a file that can't be read (see `tables.read`) and missing columns.
    """
    if file_format not in FORMATS:
        raise InputError(f"Invalid format {file_format!r}: choose {', '.join(FORMATS)}.")
    path = Path(path)
    records = [_plain(record, path) for record in tables.read(path)]
    columns = list(dict.fromkeys(name for record in records for name in record.values))
    found = detect(records, columns) if file_format == "auto" else file_format
    if not found:
        raise InputError(f"{path} has none of the known layouts: TRL's chosen and rejected (or completion and label), Label "
                         "Studio's annotations, the AWS sample's question, ref_answer and response, or our raw export. "
                         f"{_listed(columns)}")  # fmt: skip
    reader = _READERS[found](columns, path)
    votes = [vote for record in records for vote in _votes(reader, record)]
    return found, _joined(votes) if found == "trl" else votes


def detect(records: Sequence[tables.Record], columns: Sequence[str]) -> str:
    """Return the format that the columns belong to, "" if to none."""
    names = set(columns)
    if {"verdict", "answer_a", "answer_b", "shown_first"} <= names:
        return "raw"
    if labelstudio.fits(records, names):
        return "labelstudio"
    if trl_rows.fits(names):
        return "trl"
    return "aws" if "question" in names and names & set(REFERENCE) and names & set(RESPONSE) else ""


def _plain(record: tables.Record, path: Path) -> tables.Record:
    """Return a record with a short `where`, folded names (also of a task's data), and CSV cells without our apostrophes."""
    values = {cells.column(name): value for name, value in record.values.items()}
    if isinstance(values.get("data"), dict):
        values["data"] = {cells.column(name): value for name, value in values["data"].items()}
    if path.suffix.lower() not in tables.JSON_SUFFIXES:
        values = {name: spreadsheet.unquote(value) if isinstance(value, str) else value for name, value in values.items()}
    return tables.Record(record.where.removeprefix(f"{path}, "), values)


def _votes(reader: _Reader, record: tables.Record) -> Iterator[Vote | LeftOut]:
    """Yield what one record holds; a reader yields either the values of a vote or {"left_out": reason}."""
    try:
        for values in reader(record):
            where = record.where + (f", {values.pop('part')}" if "part" in values else "")
            reason = values.get("left_out")
            yield LeftOut(where, reason) if reason else Vote(where, _shared(record.values) | values)
    except Refused as error:
        yield LeftOut(record.where, str(error))


def _shared(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what any layout may say of a row besides its answers."""
    data = values["data"] if isinstance(values.get("data"), dict) else {}
    found = {field: next((source[name] for name in names for source in (data, values) if source.get(name) not in (None, "")),
                         None) for field, names in COLUMNS.items()}  # fmt: skip
    made = {name: cells.text(value, name) for name, value in found.items() if name not in ("seconds", "time")}
    return made | {"seconds": cells.seconds(found["seconds"]), "time": cells.moment(found["time"])}


def _joined(votes: Sequence[Vote | LeftOut]) -> list[Vote | LeftOut]:
    """Make an annotator's thumbs on one question, or of one `pair`, votes on pairs of answers; leave all others."""
    groups: dict[Any, list[Any]] = {}
    for number, vote in enumerate(votes):
        thumb = isinstance(vote, Vote) and not vote.values["answer_b"]
        groups.setdefault(_asked(vote.values) if thumb else number, []).append(vote)
    return [vote for group in groups.values() for vote in (_pairs(group) if len(group) > 1 else group)]


def _asked(thumb: dict[str, Any]) -> tuple[Any, ...]:
    pair = thumb.pop("pair", None)  # says more than the prompt, but joins no answers to different questions
    return (thumb["annotator"], thumb["id"], thumb["contract"], thumb["question"], pair or ("", thumb["prompt_question"]))


def _pairs(thumbs: Sequence[Vote]) -> list[Vote]:
    """Return each answer thumbed up against each thumbed down; without one up, two down at a time as both wrong."""
    up, down = ([t for t in thumbs if (t.values["verdict"] == "a") is liked] for liked in (True, False))
    pairs = [(u, d, "a") for u in up for d in down] if up else [(a, b, "both_wrong") for a, b in zip(down[::2], down[1::2])]
    alone = up if not down else down[2 * len(pairs):] if not up else []
    return alone + [Vote(f"{a.where} and {b.where}", a.values | {"answer_b": b.values["answer_a"],
                                                                 "system_b": b.values["system_a"], "verdict": verdict})
                    for a, b, verdict in pairs]  # fmt: skip


def _trl(columns: Sequence[str], path: Path) -> _Reader:
    if not trl_rows.fits(columns):
        raise InputError(f"{path} lacks TRL's columns: chosen and rejected, or completion and label (and prompt, unless both "
                         f"answers begin with it). {_listed(columns)}")  # fmt: skip
    return trl_rows.votes


def _labelstudio(columns: Sequence[str], path: Path) -> _Reader:
    return labelstudio.votes


def _aws(columns: Sequence[str], path: Path) -> _Reader:
    reference, response = (next((n for n in names if n in columns), None) for names in (REFERENCE, RESPONSE))
    if "question" not in columns or reference is None or response is None:
        raise InputError(f"{path} lacks a column of the AWS sample's files: question, {' or '.join(REFERENCE)}, "
                         f"{' or '.join(RESPONSE)}. {_listed(columns)}")  # fmt: skip

    def votes(record: tables.Record) -> Iterator[dict[str, Any]]:
        if str(record.values.get(JUDGED)).strip().casefold() in ("1", "1.0", "true"):
            yield {"left_out": "the file's judge calls the response right: no preference"}
            return
        given = [cells.text(record.values.get(name), name) for name in (reference, response)]
        if not all(answer.strip() for answer in given):
            raise Refused("its reference or its response is empty")
        yield {"answer_a": given[0], "answer_b": given[1], "system_a": EXPERT, "system_b": path.stem, "verdict": "a",
               "named": EXPERT}  # fmt: skip

    return votes


def _raw(columns: Sequence[str], path: Path) -> _Reader:
    missing = [name for name in ("annotator", "id", "answer_a", "answer_b", "verdict") if name not in columns]
    if missing:
        raise InputError(f"{path} is no raw export: it has no column {missing[0]!r}. {_listed(columns)}")

    def votes(record: tables.Record) -> Iterator[dict[str, Any]]:
        given = {name: record.values.get(name) for name in FIELDS}
        if given["revokes"]:
            raise Refused("it is an undo, which is not taken over")
        if given["verdict"] not in VERDICTS:
            raise Refused(f"its verdict {str(given['verdict'])[:20]!r} is none of {', '.join(VERDICTS)}")
        given |= {name: given[name] or None for name in ("uid", "shown_first", "edited")}
        given |= {name: _json(given[name], name) for name in ("span", "prompt")}
        yield {name: given[name] for name in RAW}

    return votes


def _json(value: Any, name: str) -> Any:
    """Return the JSON value of a CSV cell, None if it is empty; other values as they are."""
    try:
        return (json.loads(value) if value else None) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise Refused(f"its {name} is no JSON") from None


def _listed(columns: Sequence[str]) -> str:
    return f"Its columns: {', '.join(map(repr, columns[:LISTED]))}{' …' if len(columns) > LISTED else ''}."


_READERS = {"trl": _trl, "labelstudio": _labelstudio, "aws": _aws, "raw": _raw}
