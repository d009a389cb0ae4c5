"""Votes on pairs of answers in other programs' files: which format a file has, and what its rows say.

    found_format, votes = read_votes("pairs.jsonl")
    votes[0].values["answer_a"], votes[0].values["verdict"]

A vote holds the keys of a judgement as far as the file gives them; `exchange` looks up its training question.
The formats are:

- "trl": TRL's preference rows (prompt, chosen, rejected) or unpaired rows (prompt, completion, label), as text or as
  messages, see https://huggingface.co/docs/trl/dataset_formats, in CSV, JSON lines or JSON. Of texts without a prompt
  TRL takes the common beginning for the prompt; here they are read only if the row names its question. Further columns
  are those of TEXT_COLUMNS and time. Verdicts from other programs fit in as contract, question, chosen, rejected and
  annotator.
- "labelstudio": pairwise comparisons, see `labelstudio`.
- "aws": the AWS sample's answers beside the experts' references; the expert's answer is preferred.
- "store": another run's feedback.sqlite.

The columns that each needs stand in `COLUMNS`; names are compared without case and signs ("Chosen" is chosen).
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.text import fold_name
from cuadft.feedback.labelstudio import annotation_rows, labelstudio_vote
from cuadft.feedback.records import Message, time_in_utc
from cuadft.feedback.store import Store
from cuadft.feedback.training_questions import RowRefused, question_of_prompt

COLUMNS = {  # format -> sets of columns; a file belongs to the first format of which it has one set
    "labelstudio": [{"data", "annotations"}],
    "trl": [{"chosen", "rejected"}, {"completion", "label"}],
    "aws": [{"question", a, b} for a in ("ref_answer", "gt_answer") for b in ("response", "pred_answer")],
}
EXPERT = "expert"  # annotator and system of a reference answer
TEXT_COLUMNS = ("id", "contract", "question", "annotator", "comment")
OF_ONE_STORE = ("uid", "revokes", "source")  # fields of a judgement that another store does not take over
TRUE, FALSE = ("true", "1", "1.0"), ("false", "0", "0.0")  # labels of thumbs, and what the AWS sample's judge says
MACHINE_SOURCES = ("gold", "ai")  # sources of pairs that no person preferred
_MESSAGES = TypeAdapter(list[Message])
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class Vote:
    """Hold what a row of a file says on two answers, or the reason why the row makes no judgement.

    where: the place, "row 3". values: the keys of a judgement; "prompt_question" is the question of its prompt.
    held_out: whether its contract is held out from training.
    """

    where: str
    values: dict[str, Any]
    reason: str = ""
    held_out: bool = False


def read_votes(path: str | Path) -> tuple[str, list[Vote]]:
    """Return a file's format and its votes, with those that a row does not make for a reason.

    Raises InputError for a file that `core.files.read_table` or `Store` can't read and for columns of no known format.
    """
    path = Path(path)
    if path.suffix == ".sqlite" and path.is_file():
        said = Store(path).judgements()
        kept = [{name: one[name] for name in one if name not in OF_ONE_STORE} for one in said]
        return "store", [Vote(f"judgement {number}", values) for number, values in enumerate(kept, 1)]
    rows = [(row.where.removeprefix(f"{path}, "), _folded(row.values)) for row in files.read_table(path)]
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    found = next((name for name, sets in COLUMNS.items() if any(needed <= set(columns) for needed in sets)), "")
    if not found:
        known = "; ".join(f"{name} {' or '.join(str(sorted(s)) for s in sets)}" for name, sets in COLUMNS.items())
        advice = "rename them; of Label Studio's exports JSON is read, JSON_MIN and CSV are not"
        raise InputError(f"{path} has the columns {columns}, not those of a known format ({known}): {advice}.")
    read = {"trl": trl_vote, "labelstudio": labelstudio_vote, "aws": partial(_aws_vote, system=path.stem)}[found]
    if found == "labelstudio":
        rows = [part for where, row in rows for part in annotation_rows(where, row)]
    return found, [_vote_of_row(where, row, read) for where, row in rows]


def _folded(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with folded column names, the `data` of a Label Studio task among them."""
    data = given["data"] if isinstance(given.get("data"), dict) else {}
    return {fold_name(name): value for name, value in (*given.items(), *data.items())}


def _vote_of_row(where: str, row: Mapping[str, Any], read: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Vote:
    try:
        values = {name: _text(row.get(name), name) for name in TEXT_COLUMNS} | {"time": row.get("time")} | read(row)
    except RowRefused as error:
        return Vote(where, {}, str(error))
    time, values["time"] = values["time"], None
    with suppress(TypeError, ValueError, OverflowError):
        values["time"] = time_in_utc(time)
    return Vote(where, values)


def _text(value: Any, name: str) -> str:
    """Return a value as text, "" for None; raises RowRefused for lists, dicts and truth values."""
    if isinstance(value, (list, dict, bool)):
        raise RowRefused(f"its {name} is no text: {str(value)[:40]}")
    return "" if value is None else str(value)


def _aws_vote(row: Mapping[str, Any], *, system: str) -> dict[str, Any]:
    if str(row.get("judge_bool")).strip().casefold() in TRUE:
        raise RowRefused("the file's judge calls the response right: no preference")
    reference = _text(row.get("ref_answer") or row.get("gt_answer"), "reference")
    response = _text(row.get("response") or row.get("pred_answer"), "response")
    if not reference.strip() or not response.strip():
        raise RowRefused("its reference or its response is empty")
    about = {"annotator": EXPERT, "system_a": EXPERT, "system_b": system, "verdict": "a"}
    return about | {"answer_a": reference, "answer_b": response}


def trl_vote(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the vote of one of TRL's rows; raises RowRefused where an answer is missing or of another type.

    A thumb (completion and label) is a vote with an empty second answer: up is verdict "a", down is "both_wrong".
    """
    if (source := str(row.get("source")).casefold()) in MACHINE_SOURCES:
        raise RowRefused(f"it is no person's preference (source {source})")
    if row.get("chosen") in (None, "") and "completion" in row:
        label = str(row.get("label")).strip().casefold()
        if label not in (*TRUE, *FALSE):
            raise RowRefused(f"its label {label[:20]!r} is neither true nor false")
        before, answer = _prompt_and_answer(row, "completion")
        vote = {"answer_a": answer, "answer_b": "", "system_a": _text(row.get("system"), "system")}
        vote |= {"verdict": "a" if label in TRUE else "both_wrong"}
    else:
        before, chosen = _prompt_and_answer(row, "chosen")
        vote = {"answer_a": chosen, "answer_b": _prompt_and_answer(row, "rejected")[1], "verdict": "a"}
        vote |= {"system_a": _text(row.get("system_chosen"), "system")}
        vote |= {"system_b": _text(row.get("system_rejected"), "system")}
    messages = _messages(row.get("prompt"), "prompt", "user") + before
    users = [message["content"] for message in messages if message["role"] == "user"]
    question = question_of_prompt(users[-1] if users else "")
    only_asks = [message["content"] for message in messages] in ([], [row.get("question")], [question])
    return vote | {"prompt_question": question, "prompt": None if only_asks else messages}


def _prompt_and_answer(row: Mapping[str, Any], name: str) -> tuple[Messages, str]:
    """Return the messages of a column before the assistant's last one, and the text of that; of text, the text."""
    *before, last = _messages(row.get(name), name, "assistant") or [{"role": "assistant", "content": ""}]
    if last["role"] != "assistant":
        raise RowRefused(f"the last message of its {name} is not the assistant's")
    if not last["content"].strip():
        raise RowRefused(f"its {name} is empty")
    return before, last["content"]


def _messages(value: Any, name: str, role: str) -> Messages:
    """Return a cell's messages (a list, JSON or, as pandas writes them, a Python literal); a text is one by `role`."""
    if isinstance(value, str) and re.match(r"\s*\[\s*\{", value):
        value = _parsed(value)
    if not isinstance(value, list):
        text = _text(value, name)
        return [{"role": role, "content": text}] if text else []
    try:
        return [message.model_dump() for message in _MESSAGES.validate_python(value)]
    except ValidationError:
        raise RowRefused(f"its {name} is a list of something else than messages with role and content") from None


def _parsed(text: str) -> Any:
    """Return the value that a text of JSON or of a Python literal holds; return another text as it is."""
    for parse in (json.loads, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return parse(text)
    return text
