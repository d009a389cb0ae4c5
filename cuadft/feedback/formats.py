"""Votes on pairs of answers in other programs' files: which format a file has, and what its rows say.

    found_format, votes = read_votes("pairs.jsonl")
    votes[0].values["answer_a"], votes[0].values["verdict"]

A vote holds the keys of a judgement as far as the file gives them; `exchange` looks up its training question.
The formats are:

- "trl": TRL's preference rows (prompt, chosen, rejected) or unpaired rows (prompt, completion, label), as text or as
  messages, see https://huggingface.co/docs/trl/dataset_formats. The prompt may be implicit: the part with which chosen
  and rejected both begin.
- "labelstudio": pairwise comparisons, see `labelstudio`.
- "aws": the AWS sample's answers beside the experts' references; the expert's answer is preferred.
- "raw": our own judgements.
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
from cuadft.core.text import fold_name
from cuadft.feedback import labelstudio, records
from cuadft.feedback.records import FIELDS, VERDICTS, RowRefused, cell_text
from cuadft.feedback.training_questions import question_of_prompt

IMPORT_FORMATS = ("auto", "trl", "labelstudio", "aws", "raw")
COLUMN_NAMES = {  # field of a judgement -> names that its column has in others' files, best first
    "id": ("question_id", "row_id", "id"),
    "contract": ("contract_title", "contract_name", "contract"),
    "question": ("question", "query"),
    "annotator": ("annotator", "annotator_id", "completed_by", "labeler", "labeller"),
    "comment": ("comment", "comments", "note", "notes"),
    "seconds": ("seconds", "lead_time"),
    "time": ("time", "created_at"),
}
RAW_FIELDS = (
    "uid",
    "answer_a",
    "answer_b",
    "system_a",
    "system_b",
    "shown_first",
    "verdict",
    "edited",
    "span",
    "prompt",
)
AWS_REFERENCES = ("ref_answer", "gt_answer", "reference_answer")  # names of the column with the expert's answer
AWS_RESPONSES = ("response", "pred_answer")  # names of the column with the system's answer
AWS_JUDGE = "judge_bool"  # the column that says whether a judge calls the response right
EXPERT = "expert"  # annotator and system of a reference answer
THUMBS_UP = ("true", "1", "1.0", "yes", "up", "good")  # labels of TRL's unpaired rows
THUMBS_DOWN = ("false", "0", "0.0", "no", "down", "bad")
MACHINE_SOURCES = ("gold", "ai", "judge", "synthetic")  # sources of pairs that no person preferred
COLUMNS_SHOWN = 20  # columns named in an error
_ANSWER_MARK = re.compile(r".*(?:\A|\n)\s*(?:answer|assistant)\s*:", re.DOTALL | re.IGNORECASE)
Messages = list[dict[str, str]]
_Reader = Callable[[TableRow], Iterator[dict[str, Any]]]


@dataclass(frozen=True)
class ForeignVote:
    """Hold what a row of a file says on two answers, before its training question is known."""

    where: str  # "row 3"
    values: dict[
        str, Any
    ]  # the keys of a judgement; "prompt_question", "prompt_text": the question and text of a prompt


@dataclass(frozen=True)
class LeftOut:
    """Say which row of a file makes no judgement, and why."""

    where: str
    reason: str
    held_out: bool = False  # whether its contract is held out from training


def read_votes(path: str | Path, file_format: str = "auto") -> tuple[str, list[ForeignVote | LeftOut]]:
    """Return a file's format and, for each row, a vote or the reason why it is left out.

    Raises InputError for an unknown format, for a file that `core.files.read_table` can't read and for missing columns.
    """
    if file_format not in IMPORT_FORMATS:
        raise InputError(f"Invalid format {file_format!r}: choose {', '.join(IMPORT_FORMATS)}.")
    path = Path(path)
    rows = [_plain_row(row, path) for row in files.read_table(path)]
    columns = list(dict.fromkeys(name for row in rows for name in row.values))
    found = detect_format(rows, columns) if file_format == "auto" else file_format
    if not found:
        raise InputError(
            f"{path} has none of the known layouts: TRL's chosen and rejected (or completion and label), Label "
            "Studio's annotations, the AWS sample's question, ref_answer and response, or our raw export. "
            f"{_listed_columns(columns)}"
        )
    reader = _READERS[found](columns, path)
    votes = [vote for row in rows for vote in _votes_of_row(reader, row)]
    return found, _joined_thumbs(votes) if found == "trl" else votes


def detect_format(rows: Sequence[TableRow], columns: Sequence[str]) -> str:
    """Return the format to which rows with these columns belong, "" if no format fits."""
    names = set(columns)
    if {"verdict", "answer_a", "answer_b", "shown_first"} <= names:
        return "raw"
    if labelstudio.is_labelstudio(rows, names):
        return "labelstudio"
    if is_trl(names):
        return "trl"
    return "aws" if "question" in names and names & set(AWS_REFERENCES) and names & set(AWS_RESPONSES) else ""


def is_trl(columns: Collection[str]) -> bool:
    """Tell whether a file has TRL's columns."""
    return {"chosen", "rejected"} <= set(columns) or {"completion", "label"} <= set(columns)


def _plain_row(row: TableRow, path: Path) -> TableRow:
    """Return a row with a short `where`, folded column names, and CSV cells without the apostrophes of our export."""
    values = {fold_name(name): value for name, value in row.values.items()}
    if isinstance(values.get("data"), dict):
        values["data"] = {fold_name(name): value for name, value in values["data"].items()}
    if path.suffix.lower() not in files.JSON_SUFFIXES:
        values = {
            name: records.unquote_formula(value) if isinstance(value, str) else value for name, value in values.items()
        }
    return TableRow(row.where.removeprefix(f"{path}, "), values)


def _votes_of_row(reader: _Reader, row: TableRow) -> Iterator[ForeignVote | LeftOut]:
    """Yield the votes of one row; a reader yields the values of a vote or {"left_out": reason}."""
    try:
        for values in reader(row):
            where = row.where + (f", {values.pop('part')}" if "part" in values else "")
            reason = values.get("left_out")
            yield LeftOut(where, reason) if reason else ForeignVote(where, _about_row(row.values) | values)
    except RowRefused as error:
        yield LeftOut(row.where, str(error))


def _about_row(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `COLUMN_NAMES`, which a row of any format may have; a task's `data` goes before columns."""
    data = values["data"] if isinstance(values.get("data"), dict) else {}
    found: dict[str, Any] = dict.fromkeys(COLUMN_NAMES)
    for field, names in COLUMN_NAMES.items():
        given = (source.get(name) for name in names for source in (data, values))
        found[field] = next((value for value in given if value not in (None, "")), None)
    texts = {name: cell_text(value, name) for name, value in found.items() if name not in ("seconds", "time")}
    return texts | {"seconds": records.cell_seconds(found["seconds"]), "time": records.cell_time(found["time"])}


def _joined_thumbs(votes: Sequence[ForeignVote | LeftOut]) -> list[ForeignVote | LeftOut]:
    """Join the thumbs of one annotator on one question to votes on two answers; leave all other votes as they are."""
    groups: dict[Any, list[Any]] = {}
    for number, vote in enumerate(votes):
        is_thumb = isinstance(vote, ForeignVote) and not vote.values["answer_b"]
        groups.setdefault(_thumb_group(vote.values) if is_thumb else number, []).append(vote)
    return [vote for group in groups.values() for vote in (_paired_thumbs(group) if len(group) > 1 else group)]


def _thumb_group(thumb: dict[str, Any]) -> tuple[Any, ...]:
    """Return what the thumbs that are joined have in common; takes `pair` out of the thumb."""
    pair = thumb.pop("pair", None)  # names the two answers of one vote, which the prompt does not
    about = tuple(thumb[name] for name in ("annotator", "id", "contract", "question"))
    return (*about, pair or ("", thumb["prompt_question"]))


def _paired_thumbs(thumbs: Sequence[ForeignVote]) -> list[ForeignVote]:
    """Return a vote for each answer with a thumb up against each with a thumb down.

    If all thumbs are down, two answers at a time are both wrong; an odd last one, and thumbs up alone, stay single.
    """
    up = [thumb for thumb in thumbs if thumb.values["verdict"] == "a"]
    down = [thumb for thumb in thumbs if thumb.values["verdict"] != "a"]
    if up:
        pairs = [(liked, disliked, "a") for liked in up for disliked in down]
        alone = [] if down else up
    else:
        pairs = [(one, other, "both_wrong") for one, other in zip(down[::2], down[1::2])]
        alone = down[2 * len(pairs) :]
    return alone + [
        ForeignVote(
            f"{a.where} and {b.where}",
            a.values | {"answer_b": b.values["answer_a"], "system_b": b.values["system_a"], "verdict": verdict},
        )
        for a, b, verdict in pairs
    ]


def _trl_reader(columns: Sequence[str], path: Path) -> _Reader:
    if not is_trl(columns):
        raise InputError(
            f"{path} lacks TRL's columns: chosen and rejected, or completion and label (and prompt, unless both "
            f"answers begin with it). {_listed_columns(columns)}"
        )
    return trl_votes


def _aws_reader(columns: Sequence[str], path: Path) -> _Reader:
    reference = next((name for name in AWS_REFERENCES if name in columns), None)
    response = next((name for name in AWS_RESPONSES if name in columns), None)
    if "question" not in columns or reference is None or response is None:
        raise InputError(
            f"{path} lacks a column of the AWS sample's files: question, {' or '.join(AWS_REFERENCES)}, "
            f"{' or '.join(AWS_RESPONSES)}. {_listed_columns(columns)}"
        )

    def votes(row: TableRow) -> Iterator[dict[str, Any]]:
        if str(row.values.get(AWS_JUDGE)).strip().casefold() in ("1", "1.0", "true"):
            yield {"left_out": "the file's judge calls the response right: no preference"}
            return
        given = [cell_text(row.values.get(name), name) for name in (reference, response)]
        if not all(answer.strip() for answer in given):
            raise RowRefused("its reference or its response is empty")
        yield {
            "answer_a": given[0],
            "answer_b": given[1],
            "system_a": EXPERT,
            "system_b": path.stem,
            "verdict": "a",
            "named": EXPERT,
        }

    return votes


def _raw_reader(columns: Sequence[str], path: Path) -> _Reader:
    missing = [name for name in ("annotator", "id", "answer_a", "answer_b", "verdict") if name not in columns]
    if missing:
        raise InputError(f"{path} is no raw export: it has no column {missing[0]!r}. {_listed_columns(columns)}")

    def votes(row: TableRow) -> Iterator[dict[str, Any]]:
        given = {name: row.values.get(name) for name in FIELDS}
        if given["revokes"]:
            raise RowRefused("it is an undo, which is not taken over")
        if given["verdict"] not in VERDICTS:
            raise RowRefused(f"its verdict {str(given['verdict'])[:20]!r} is none of {', '.join(VERDICTS)}")
        given |= {name: given[name] or None for name in ("uid", "shown_first", "edited")}
        given |= {name: _json_cell(given[name], name) for name in ("span", "prompt")}
        yield {name: given[name] for name in RAW_FIELDS}

    return votes


def _json_cell(value: Any, name: str) -> Any:
    """Return the JSON value that a text holds, None for an empty text; return any other value as it is."""
    try:
        return (json.loads(value) if value else None) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise RowRefused(f"its {name} is no JSON") from None


def _listed_columns(columns: Sequence[str]) -> str:
    more = " …" if len(columns) > COLUMNS_SHOWN else ""
    return f"Its columns: {', '.join(map(repr, columns[:COLUMNS_SHOWN]))}{more}."


_READERS: dict[str, Callable[[Sequence[str], Path], _Reader]] = {
    "trl": _trl_reader,
    "labelstudio": lambda columns, path: labelstudio.labelstudio_votes,
    "aws": _aws_reader,
    "raw": _raw_reader,
}


def trl_votes(row: TableRow) -> Iterator[dict[str, Any]]:
    """Yield the vote of one of TRL's rows; raises RowRefused where an answer is missing or of another type."""
    values = row.values
    source = str(values.get("source") or "").casefold()
    if source in MACHINE_SOURCES:
        raise RowRefused(f"it is no person's preference (source {source})")
    is_pair = values.get("chosen") not in (None, "") or "completion" not in values
    yield _vote_of_pair(values) if is_pair else _vote_of_thumb(values)


def _vote_of_pair(values: Mapping[str, Any]) -> dict[str, Any]:
    prompt, chosen, rejected = (_text_or_messages(values.get(name), name) for name in ("prompt", "chosen", "rejected"))
    if prompt in ("", []):
        asked = any(values.get(name) for name in ("question", "question_id", "row_id", "id"))
        prompt, chosen, rejected = _implicit_prompt(chosen, rejected, asked=asked)
    answers = {"answer_a": _answer_text(chosen, "chosen"), "answer_b": _answer_text(rejected, "rejected")}
    systems = {"system_a": cell_text(values.get("system_chosen")), "system_b": cell_text(values.get("system_rejected"))}
    return answers | systems | _about_prompt(prompt, values) | {"verdict": "a"}


def _vote_of_thumb(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a thumb as a vote with an empty second answer: thumbs up is verdict "a", thumbs down "both_wrong"."""
    label = str(values.get("label")).strip().casefold()
    if label not in (*THUMBS_UP, *THUMBS_DOWN):
        raise RowRefused(f"its label {label[:20]!r} is neither true nor false")
    completion = _text_or_messages(values.get("completion"), "completion")
    vote = {
        "answer_a": _answer_text(completion, "completion"),
        "answer_b": "",
        "system_a": cell_text(values.get("system")),
        "system_b": "",
        "verdict": "a" if label in THUMBS_UP else "both_wrong",
    }
    if values.get("pair") not in (None, ""):
        vote["pair"] = cell_text(values["pair"])
    return vote | _about_prompt(_text_or_messages(values.get("prompt"), "prompt"), values)


def _about_prompt(prompt: str | Messages, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return prompt_question, with which the prompt ends, prompt_text, and prompt: its messages if they say more."""
    kept = _text_or_messages(values.get("messages"), "messages") or prompt
    texts = [m["content"] for m in kept] if isinstance(kept, list) else [kept]
    users = [m["content"] for m in kept if m["role"] == "user"] if isinstance(kept, list) else texts
    question = question_of_prompt(users[-1]) if users else ""
    only_asks = isinstance(kept, str) or kept == [] or texts in ([cell_text(values.get("question"))], [question])
    return {"prompt_question": question, "prompt": None if only_asks else kept, "prompt_text": "\n".join(texts)}


def _implicit_prompt(chosen: str | Messages, rejected: str | Messages, *, asked: bool) -> tuple[Any, Any, Any]:
    """Split both answers into (prompt, chosen, rejected): the prompt is what both begin with.

    Of messages the prompt is the shared ones. Of text it is the shared beginning up to its last "Answer:" or
    "Assistant:". Without such a mark it goes up to the last blank, as in TRL. But if another column says what was
    `asked`, the texts are answers that happen to begin alike: the prompt is then empty.
    """
    if isinstance(chosen, list) and isinstance(rejected, list):
        end = 0
        while end < min(len(chosen), len(rejected)) and chosen[end] == rejected[end]:
            end += 1
        return chosen[:end], chosen[end:], rejected[end:]
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise RowRefused("one of its answers is text, the other messages")
    shared = os.path.commonprefix([chosen, rejected])
    if mark := _ANSWER_MARK.match(shared):
        end = mark.end()
    else:
        end = 0 if asked else shared.rfind(" ") + 1
    return chosen[:end], chosen[end:].strip(), rejected[end:].strip()


def _text_or_messages(value: Any, name: str) -> str | Messages:
    """Return a cell's text or messages; messages may be JSON or, as pandas writes them, a Python literal."""
    if isinstance(value, str) and re.match(r"\s*\[\s*\{", value):
        value = _parsed_messages(value)
    if isinstance(value, dict) and "content" in value:
        value = [value]
    if isinstance(value, list):
        if not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in value):
            raise RowRefused(f"its {name} is a list of something else than messages with role and content")
        return [{"role": m["role"], "content": _message_text(m.get("content"), name)} for m in value]
    return cell_text(value, name)


def _parsed_messages(cell: str) -> Any:
    """Return the messages that a text holds, or the text itself if it holds no messages."""
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list) and all(isinstance(m, dict) and "role" in m for m in found):
            return found
    return cell


def _message_text(value: Any, name: str) -> str:
    if isinstance(value, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in value):
        return "".join(cell_text(part.get("text"), name) for part in value)
    return cell_text(value, name)


def _answer_text(value: str | Messages, name: str) -> str:
    """Return an answer's text, of messages the last one's.

    Raises RowRefused if the text is blank or the last message is not the assistant's.
    """
    if isinstance(value, list):
        if value and value[-1]["role"] != "assistant":
            raise RowRefused(f"the last message of its {name} is not the assistant's")
        value = value[-1]["content"] if value else ""
    if not value.strip():
        raise RowRefused(f"its {name} is empty")
    return value
