"""Votes on pairs of answers in other programs' files: which format a file has, and what its rows say.

    found_format, votes = read_votes("pairs.jsonl")
    votes[0].values["answer_a"], votes[0].values["verdict"]

A vote holds the keys of a judgement as far as the file gives them; `exchange` looks up its training question.
The formats are:

- "trl": TRL's preference rows (prompt, chosen, rejected) or unpaired rows (prompt, completion, label), as text or as
  messages, see https://huggingface.co/docs/trl/dataset_formats. Of texts without a prompt TRL takes the common
  beginning for the prompt; here they are read only if the row names its question.
- "labelstudio": pairwise comparisons, see `labelstudio`.
- "aws": the AWS sample's answers beside the experts' references; the expert's answer is preferred.
- "raw": our own judgements.

The columns that each needs stand in `COLUMNS`; names are compared without case and signs ("Answer A" is answer_a).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.text import fold_name
from cuadft.feedback.labelstudio import labelstudio_votes
from cuadft.feedback.records import FIELDS, Message, time_in_utc
from cuadft.feedback.training_questions import RowRefused, question_of_prompt

COLUMNS: dict[str, list[set[str]]] = {  # format -> sets of columns; a file of the format has one of them
    "trl": [{"chosen", "rejected"}, {"completion", "label"}],
    "labelstudio": [{"data", "annotations"}],
    "aws": [{"question", a, b} for a in ("ref_answer", "gt_answer") for b in ("response", "pred_answer")],
    "raw": [{"annotator", "id", "answer_a", "answer_b", "verdict", "shown_first"}],
}
TEXT_COLUMNS = (
    "id",
    "contract",
    "question",
    "annotator",
    "comment",
)  # of a file of any format, as are seconds and time
EXPERT = "expert"  # annotator and system of a reference answer
TRUE, FALSE = ("true", "1", "1.0"), ("false", "0", "0.0")  # labels of thumbs, and what the AWS sample's judge says
MACHINE_SOURCES = ("gold", "ai")  # sources of pairs that no person preferred
_MESSAGES = TypeAdapter(list[Message])
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Vote:
    """Hold what a row of a file says on two answers, or the reason why the row makes no judgement.

    where: the place, "row 3". values: the keys of a judgement; "prompt_question" and "prompt_text" are the question and
    the text of a prompt. held_out: whether its contract is held out from training.
    """

    where: str
    values: dict[str, Any]
    reason: str = ""
    held_out: bool = False


def read_votes(path: str | Path) -> tuple[str, list[Vote]]:
    """Return a file's format and its votes, with those that a row does not make for a reason.

    Raises InputError for a file that `core.files.read_table` can't read and for columns of no known format.
    """
    path = Path(path)
    from_csv = path.suffix.lower() not in files.JSON_SUFFIXES
    rows = [
        (row.where.removeprefix(f"{path}, "), _plain_values(row.values, from_csv)) for row in files.read_table(path)
    ]
    columns = list(dict.fromkeys(name for _, values in rows for name in values))
    found = detect_format(columns)
    if not found:
        known = "; ".join(f"{name} {' or '.join(str(sorted(s)) for s in sets)}" for name, sets in COLUMNS.items())
        raise InputError(
            f"{path} has the columns {columns}, not those of a known format ({known}): rename them, or export again; "
            "Label Studio's exports JSON_MIN and CSV are not read, its JSON export is."
        )
    votes = [vote for where, values in rows for vote in _votes_of_row(_READERS[found], where, values, path.stem)]
    return found, votes


def detect_format(columns: Collection[str]) -> str:
    """Return the first format to which a file with these columns belongs, "" if no format fits."""
    return next((name for name, sets in COLUMNS.items() if any(needed <= set(columns) for needed in sets)), "")


def _plain_values(given: Mapping[str, Any], from_csv: bool) -> dict[str, Any]:
    """Return a row with folded column names, a task's `data` among them, and CSV cells as they were exported."""
    data = given["data"] if isinstance(given.get("data"), dict) else {}
    values = {fold_name(name): value for name, value in (*given.items(), *data.items())}
    values["id"] = values.get("question_id") or values.get("id")
    texts = {name: unquote_formula(value) for name, value in values.items() if from_csv and isinstance(value, str)}
    return values | texts


def _votes_of_row(
    reader: Callable[[Mapping[str, Any], str], Iterator[dict[str, Any]]], where: str, row: Mapping[str, Any], stem: str
) -> Iterator[Vote]:
    """Yield the votes of one row; a reader yields the values of a vote or {"left_out": reason}."""
    try:
        about = {name: cell_text(row.get(name), name) for name in TEXT_COLUMNS}
        about |= {"seconds": row.get("seconds"), "time": row.get("time")}
        for values in reader(row, stem):
            place = where + (f", {values.pop('part')}" if "part" in values else "")
            values = about | values
            values |= {"seconds": _or_none(float, values["seconds"]), "time": _or_none(time_in_utc, values["time"])}
            yield Vote(place, values, values.get("left_out", ""))
    except RowRefused as error:
        yield Vote(where, {}, str(error))


def cell_text(value: Any, name: str = "value") -> str:
    """Return a value as text, "" for None; raises RowRefused for lists, dicts and truth values."""
    if isinstance(value, (list, dict, bool)):
        raise RowRefused(f"its {name} is no text: {str(value)[:40]}")
    return "" if value is None else str(value)


def _or_none(read: Callable[[Any], Any], value: Any) -> Any:
    with suppress(TypeError, ValueError, OverflowError):
        return read(value)
    return None


# Spreadsheets take a cell with this start for a formula (OWASP, "CSV Injection"); full-width signs count too
_FORMULA = r"(?:\s*[=+\-@＝＋－＠]|[\t\r\n])"


def quote_formula(text: str) -> str:
    """Return a cell's text, with an apostrophe before it if a spreadsheet would run it; see `unquote_formula`."""
    return f"'{text}" if re.match(rf"'*{_FORMULA}", text) else text


def unquote_formula(text: str) -> str:
    """Return the text that `quote_formula` was given; a text that it can't have made is returned as it is."""
    return text[1:] if re.match(rf"''*{_FORMULA}", text) else text


def _aws_votes(row: Mapping[str, Any], stem: str) -> Iterator[dict[str, Any]]:
    if str(row.get("judge_bool")).strip().casefold() in TRUE:
        raise RowRefused("the file's judge calls the response right: no preference")
    reference = cell_text(row.get("ref_answer") or row.get("gt_answer"), "reference")
    response = cell_text(row.get("response") or row.get("pred_answer"), "response")
    if not reference.strip() or not response.strip():
        raise RowRefused("its reference or its response is empty")
    about = {"system_a": EXPERT, "system_b": stem, "named": EXPERT}
    yield about | {"answer_a": reference, "answer_b": response, "verdict": "a"}


def _raw_votes(row: Mapping[str, Any], stem: str) -> Iterator[dict[str, Any]]:
    if row.get("revokes"):
        raise RowRefused("it is an undo, which is not taken over")
    given = {name: row.get(name) or None for name in FIELDS if name not in (*TEXT_COLUMNS, "seconds", "time", "source")}
    given |= {f"answer_{side}": cell_text(row.get(f"answer_{side}"), "answer") for side in "ab"}
    yield given | {name: _parsed(given[name]) for name in ("span", "prompt")}


def trl_votes(row: Mapping[str, Any], stem: str = "") -> Iterator[dict[str, Any]]:
    """Yield the vote of one of TRL's rows; raises RowRefused where an answer is missing or of another type.

    A thumb (completion and label) is a vote with an empty second answer: up is verdict "a", down is "both_wrong".
    """
    if (source := str(row.get("source")).casefold()) in MACHINE_SOURCES:
        raise RowRefused(f"it is no person's preference (source {source})")
    if row.get("chosen") in (None, "") and "completion" in row:
        if row.get("pair"):
            raise RowRefused("our export made it of a verdict on two answers: import an export of pairs (trl) or raw")
        label = str(row.get("label")).strip().casefold()
        if label not in (*TRUE, *FALSE):
            raise RowRefused(f"its label {label[:20]!r} is neither true nor false")
        before, answer = _prompt_and_answer(row, "completion")
        vote = {"answer_a": answer, "answer_b": "", "system_a": cell_text(row.get("system")), "system_b": ""}
        vote |= {"verdict": "a" if label in TRUE else "both_wrong"}
    else:
        before, chosen = _prompt_and_answer(row, "chosen")
        vote = {"answer_a": chosen, "answer_b": _prompt_and_answer(row, "rejected")[1], "verdict": "a"}
        vote |= {"system_a": cell_text(row.get("system_chosen")), "system_b": cell_text(row.get("system_rejected"))}
    yield vote | _about_prompt(before, row)


def _about_prompt(before: Messages, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return prompt_question, with which the prompt ends, prompt_text, and prompt: its messages if they say more.

    before: the messages before the answer. In our CSV files the column "messages" holds a prompt's messages.
    """
    prompt = _text_or_messages(row.get("messages"), "messages") or _text_or_messages(row.get("prompt"), "prompt")
    kept = prompt + before if isinstance(prompt, list) else before
    users = [message["content"] for message in kept if message["role"] == "user"]
    question = question_of_prompt(users[-1] if users else prompt if isinstance(prompt, str) else "")
    texts = [message["content"] for message in kept]
    only_asks = texts in ([], [cell_text(row.get("question"))], [question])
    text = "\n".join([prompt, *texts] if isinstance(prompt, str) else texts)
    return {"prompt_question": question, "prompt": None if only_asks else kept, "prompt_text": text}


def _prompt_and_answer(row: Mapping[str, Any], name: str) -> tuple[Messages, str]:
    """Return the messages of a column before the assistant's last one, and the text of that; of text, the text."""
    before, answer = [], _text_or_messages(row.get(name), name)
    if isinstance(answer, list):
        *before, last = answer or [{"role": "assistant", "content": ""}]
        if last["role"] != "assistant":
            raise RowRefused(f"the last message of its {name} is not the assistant's")
        answer = last["content"]
    if not answer.strip():
        raise RowRefused(f"its {name} is empty")
    return before, answer


def _text_or_messages(value: Any, name: str) -> str | Messages:
    """Return a cell's text or messages; messages may be JSON or, as pandas writes them, a Python literal."""
    if isinstance(value, str) and re.match(r"\s*\[\s*\{", value):
        value = _parsed(value)
    if not isinstance(value, list):
        return cell_text(value, name)
    try:
        return [message.model_dump() for message in _MESSAGES.validate_python(value)]
    except ValidationError:
        raise RowRefused(f"its {name} is a list of something else than messages with role and content") from None


def _parsed(cell: Any) -> Any:
    """Return the value that a text of JSON or of a Python literal holds; return any other value as it is."""
    for parse in (json.loads, ast.literal_eval) if isinstance(cell, str) else ():
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return parse(cell)
    return cell


_READERS = {"raw": _raw_votes, "labelstudio": labelstudio_votes, "trl": trl_votes, "aws": _aws_votes}
