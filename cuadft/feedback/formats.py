"""Verdicts on pairs of answers in others' files: which format a file has, and its rows as votes, still without a question.

Formats: "trl" (preference pairs, or unpaired thumbs up and down), "labelstudio" (pairwise comparisons), "aws" (the AWS
sample's answers beside the experts' references) and "raw" (our own judgements).

TRL's preference rows as votes: prompt, chosen and rejected, or prompt, completion and label; as text or as messages.

Formats: https://huggingface.co/docs/trl/dataset_formats ("preference", "unpaired preference", standard or conversational;
the prompt may be implicit, as the part that chosen and rejected share).
"""

from __future__ import annotations

import ast
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.files import TableRow
from cuadft.feedback import labelstudio, records
from cuadft.feedback.records import FIELDS, VERDICTS, Refused, cell_text
from cuadft.feedback.training_questions import question_of_prompt

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
_Reader = Callable[[files.TableRow], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class ForeignVote:
    """Hold what a row says, as keys of a judgement and `prompt_question`, and where it stands ("row 3")."""

    where: str
    values: dict[str, Any]


@dataclass(frozen=True)
class LeftOut:
    """Say which row of a file makes no judgement, and why; `held_out` marks those of held-out contracts."""

    where: str
    reason: str
    held_out: bool = False


def read_votes(path: str | Path, file_format: str = "auto") -> tuple[str, list[ForeignVote | LeftOut]]:
    """Return a file's format and its rows as votes, or as left out with the reason.

    Raises InputError for an unknown format, a file that can't be read (see `tables.read`) and missing columns.
    """
    if file_format not in FORMATS:
        raise InputError(f"Invalid format {file_format!r}: choose {', '.join(FORMATS)}.")
    path = Path(path)
    records = [_plain(record, path) for record in files.read_table(path)]
    columns = list(dict.fromkeys(name for record in records for name in record.values))
    found = detect_format(records, columns) if file_format == "auto" else file_format
    if not found:
        raise InputError(
            f"{path} has none of the known layouts: TRL's chosen and rejected (or completion and label), Label "
            "Studio's annotations, the AWS sample's question, ref_answer and response, or our raw export. "
            f"{_listed(columns)}"
        )
    reader = _READERS[found](columns, path)
    votes = [vote for record in records for vote in _votes(reader, record)]
    return found, _joined(votes) if found == "trl" else votes


def detect_format(records: Sequence[files.TableRow], columns: Sequence[str]) -> str:
    """Return the format that the columns belong to, "" if to none."""
    names = set(columns)
    if {"verdict", "answer_a", "answer_b", "shown_first"} <= names:
        return "raw"
    if labelstudio.is_labelstudio(records, names):
        return "labelstudio"
    if is_trl(names):
        return "trl"
    return "aws" if "question" in names and names & set(REFERENCE) and names & set(RESPONSE) else ""


def _plain(record: files.TableRow, path: Path) -> files.TableRow:
    """Return a record with a short `where`, folded names (also of a task's data), and CSV cells without our apostrophes."""
    values = {records.cell_column(name): value for name, value in record.values.items()}
    if isinstance(values.get("data"), dict):
        values["data"] = {records.cell_column(name): value for name, value in values["data"].items()}
    if path.suffix.lower() not in files.JSON_SUFFIXES:
        values = {
            name: records.unquote_formula(value) if isinstance(value, str) else value for name, value in values.items()
        }
    return files.TableRow(record.where.removeprefix(f"{path}, "), values)


def _votes(reader: _Reader, record: files.TableRow) -> Iterator[ForeignVote | LeftOut]:
    """Yield what one record holds; a reader yields either the values of a vote or {"left_out": reason}."""
    try:
        for values in reader(record):
            where = record.where + (f", {values.pop('part')}" if "part" in values else "")
            reason = values.get("left_out")
            yield LeftOut(where, reason) if reason else ForeignVote(where, _shared(record.values) | values)
    except Refused as error:
        yield LeftOut(record.where, str(error))


def _shared(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what any layout may say of a row besides its answers."""
    data = values["data"] if isinstance(values.get("data"), dict) else {}
    found = {
        field: next(
            (source[name] for name in names for source in (data, values) if source.get(name) not in (None, "")), None
        )
        for field, names in COLUMNS.items()
    }
    made = {name: records.cell_text(value, name) for name, value in found.items() if name not in ("seconds", "time")}
    return made | {"seconds": records.cell_seconds(found["seconds"]), "time": records.cell_moment(found["time"])}


def _joined(votes: Sequence[ForeignVote | LeftOut]) -> list[ForeignVote | LeftOut]:
    """Make an annotator's thumbs on one question, or of one `pair`, votes on pairs of answers; leave all others."""
    groups: dict[Any, list[Any]] = {}
    for number, vote in enumerate(votes):
        thumb = isinstance(vote, ForeignVote) and not vote.values["answer_b"]
        groups.setdefault(_question_asked(vote.values) if thumb else number, []).append(vote)
    return [vote for group in groups.values() for vote in (_pairs(group) if len(group) > 1 else group)]


def _question_asked(thumb: dict[str, Any]) -> tuple[Any, ...]:
    pair = thumb.pop("pair", None)  # says more than the prompt, but joins no answers to different questions
    return (
        thumb["annotator"],
        thumb["id"],
        thumb["contract"],
        thumb["question"],
        pair or ("", thumb["prompt_question"]),
    )


def _pairs(thumbs: Sequence[ForeignVote]) -> list[ForeignVote]:
    """Return each answer thumbed up against each thumbed down; without one up, two down at a time as both wrong."""
    up, down = ([t for t in thumbs if (t.values["verdict"] == "a") is liked] for liked in (True, False))
    pairs = (
        [(u, d, "a") for u in up for d in down] if up else [(a, b, "both_wrong") for a, b in zip(down[::2], down[1::2])]
    )
    alone = up if not down else down[2 * len(pairs) :] if not up else []
    return alone + [
        ForeignVote(
            f"{a.where} and {b.where}",
            a.values | {"answer_b": b.values["answer_a"], "system_b": b.values["system_a"], "verdict": verdict},
        )
        for a, b, verdict in pairs
    ]


def _trl(columns: Sequence[str], path: Path) -> _Reader:
    if not is_trl(columns):
        raise InputError(
            f"{path} lacks TRL's columns: chosen and rejected, or completion and label (and prompt, unless both "
            f"answers begin with it). {_listed(columns)}"
        )
    return trl_votes


def _labelstudio(columns: Sequence[str], path: Path) -> _Reader:
    return labelstudio.labelstudio_votes


def _aws(columns: Sequence[str], path: Path) -> _Reader:
    reference, response = (next((n for n in names if n in columns), None) for names in (REFERENCE, RESPONSE))
    if "question" not in columns or reference is None or response is None:
        raise InputError(
            f"{path} lacks a column of the AWS sample's files: question, {' or '.join(REFERENCE)}, "
            f"{' or '.join(RESPONSE)}. {_listed(columns)}"
        )

    def votes(record: files.TableRow) -> Iterator[dict[str, Any]]:
        if str(record.values.get(JUDGED)).strip().casefold() in ("1", "1.0", "true"):
            yield {"left_out": "the file's judge calls the response right: no preference"}
            return
        given = [records.cell_text(record.values.get(name), name) for name in (reference, response)]
        if not all(answer.strip() for answer in given):
            raise Refused("its reference or its response is empty")
        yield {
            "answer_a": given[0],
            "answer_b": given[1],
            "system_a": EXPERT,
            "system_b": path.stem,
            "verdict": "a",
            "named": EXPERT,
        }

    return votes


def _raw(columns: Sequence[str], path: Path) -> _Reader:
    missing = [name for name in ("annotator", "id", "answer_a", "answer_b", "verdict") if name not in columns]
    if missing:
        raise InputError(f"{path} is no raw export: it has no column {missing[0]!r}. {_listed(columns)}")

    def votes(record: files.TableRow) -> Iterator[dict[str, Any]]:
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

TRUE, FALSE = ("true", "1", "1.0", "yes", "up", "good"), ("false", "0", "0.0", "no", "down", "bad")
MACHINE = ("gold", "ai", "judge", "synthetic")  # sources of pairs that no person preferred
_ANSWER = re.compile(r".*(?:\A|\n)\s*(?:answer|assistant)\s*:", re.DOTALL | re.IGNORECASE)
Messages = list[dict[str, str]]


def is_trl(columns: Collection[str]) -> bool:
    """Tell whether a file has TRL's columns."""
    return {"chosen", "rejected"} <= set(columns) or {"completion", "label"} <= set(columns)


def trl_votes(record: TableRow) -> Iterator[dict[str, Any]]:
    """Yield a row's vote; raises `Refused` where an answer is missing or of another type."""
    values = record.values
    source = str(values.get("source") or "").casefold()
    if source in MACHINE:
        raise Refused(f"it is no person's preference (source {source})")
    yield _pair(values) if values.get("chosen") not in (None, "") or "completion" not in values else _thumb(values)


def _pair(values: Mapping[str, Any]) -> dict[str, Any]:
    prompt, chosen, rejected = (_parsed(values.get(name), name) for name in ("prompt", "chosen", "rejected"))
    if prompt in ("", []):
        asked = any(values.get(name) for name in ("question", "question_id", "row_id", "id"))
        prompt, chosen, rejected = _implicit(chosen, rejected, asked=asked)
    answers = {"answer_a": _answer(chosen, "chosen"), "answer_b": _answer(rejected, "rejected")}
    systems = {"system_a": cell_text(values.get("system_chosen")), "system_b": cell_text(values.get("system_rejected"))}
    return answers | systems | _prompt_asked(prompt, values) | {"verdict": "a"}


def _thumb(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a thumb as a vote with an empty second answer: "a" is thumbs up, "both_wrong" thumbs down."""
    label = str(values.get("label")).strip().casefold()
    if label not in (*TRUE, *FALSE):
        raise Refused(f"its label {label[:20]!r} is neither true nor false")
    answer = {"answer_a": _answer(_parsed(values.get("completion"), "completion"), "completion"), "answer_b": ""}
    systems = {"system_a": cell_text(values.get("system")), "system_b": ""}
    pair = {"pair": cell_text(values["pair"])} if values.get("pair") not in (None, "") else {}
    return (
        answer
        | systems
        | pair
        | _prompt_asked(_parsed(values.get("prompt"), "prompt"), values)
        | {"verdict": "a" if label in TRUE else "both_wrong"}
    )


def _prompt_asked(prompt: str | Messages, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the question that a prompt ends with and, of one in messages, the messages too if they hold more than that."""
    kept = _parsed(values.get("messages"), "messages") or prompt
    texts = [m["content"] for m in kept] if isinstance(kept, list) else [kept]
    users = [m["content"] for m in kept if m["role"] == "user"] if isinstance(kept, list) else texts
    question = question_of_prompt(users[-1]) if users else ""
    bare = isinstance(kept, str) or kept == [] or texts in ([cell_text(values.get("question"))], [question])
    return {"prompt_question": question, "prompt": None if bare else kept, "prompt_text": "\n".join(texts)}


def _implicit(chosen: str | Messages, rejected: str | Messages, *, asked: bool) -> tuple[Any, Any, Any]:
    """Split off the prompt that both answers begin with.

    Shared messages are the prompt. Shared text is, up to its last "Answer:" or "Assistant:"; without such a mark, as in
    TRL, up to its last blank, unless the row says itself what was `asked`: then the texts are answers that begin alike.
    """
    if isinstance(chosen, list) and isinstance(rejected, list):
        n = next((i for i, (a, b) in enumerate(zip(chosen, rejected)) if a != b), min(len(chosen), len(rejected)))
        return chosen[:n], chosen[n:], rejected[n:]
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise Refused("one of its answers is text, the other messages")
    shared = os.path.commonprefix([chosen, rejected])
    marked = _ANSWER.match(shared)
    n = marked.end() if marked else 0 if asked else shared.rfind(" ") + 1
    return chosen[:n], chosen[n:].strip(), rejected[n:].strip()


def _parsed(value: Any, name: str) -> str | Messages:
    """Return text or messages; a cell may hold messages as JSON or, as pandas writes them, as a Python literal."""
    if isinstance(value, str) and re.match(r"\s*\[\s*\{", value):
        value = _literal(value)
    if isinstance(value, dict) and "content" in value:
        value = [value]
    if isinstance(value, list):
        if not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in value):
            raise Refused(f"its {name} is a list of something else than messages with role and content")
        return [{"role": m["role"], "content": _content(m.get("content"), name)} for m in value]
    return cell_text(value, name)


def _literal(cell: str) -> Any:
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(isinstance(m, dict) and "role" in m for m in found):
            return found
    return cell


def _content(value: Any, name: str) -> str:
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        return "".join(cell_text(part.get("text"), name) for part in value)
    return cell_text(value, name)


def _answer(value: str | Messages, name: str) -> str:
    """Return an answer's text: that of the last message, which must be the assistant's; Refused if it is blank."""
    if isinstance(value, list):
        if value and value[-1]["role"] != "assistant":
            raise Refused(f"the last message of its {name} is not the assistant's")
        value = value[-1]["content"] if value else ""
    if not value.strip():
        raise Refused(f"its {name} is empty")
    return value
