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

The columns that each needs stand in `COLUMNS`; names are compared without case and signs ("Answer A" is answer_a).
"""

from __future__ import annotations

import ast
import json
import math
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.text import fold_name
from cuadft.feedback.labelstudio import labelstudio_votes
from cuadft.feedback.records import FIELDS, VERDICTS, time_in_utc
from cuadft.feedback.training_questions import RowRefused, question_of_prompt

LAYOUTS = {  # format -> the columns by which it is told, in words; the first that fits is taken
    "trl": "TRL's preferences (chosen and rejected, or completion and label)",
    "labelstudio": "Label Studio's JSON export (data, annotations; its JSON_MIN and CSV exports are not read)",
    "aws": "the AWS sample's files (question, ref_answer or gt_answer, response or pred_answer)",
    "raw": "our raw export (annotator, id, answer_a, answer_b, verdict, shown_first)",
}
IMPORT_FORMATS = ("auto", *LAYOUTS)
AWS_REFERENCES, AWS_RESPONSES = ("ref_answer", "gt_answer"), ("response", "pred_answer")  # the expert's, the system's
AWS_JUDGE = "judge_bool"  # the column that says whether a judge calls the response right
COLUMNS: dict[str, list[set[str]]] = {  # format -> sets of columns; a file of the format has one of them
    "trl": [{"chosen", "rejected"}, {"completion", "label"}],
    "labelstudio": [{"data", "annotations"}],
    "aws": [{"question", reference, response} for reference in AWS_REFERENCES for response in AWS_RESPONSES],
    "raw": [{"annotator", "id", "answer_a", "answer_b", "verdict", "shown_first"}],
}
COLUMN_NAMES = {  # field of a judgement -> names that its column may have in a file of any format, best first
    "id": ("question_id", "id"),
    "contract": ("contract",),
    "question": ("question",),
    "annotator": ("annotator", "completed_by"),
    "comment": ("comment",),
    "seconds": ("seconds", "lead_time"),
    "time": ("time", "created_at"),
}
EXPERT = "expert"  # annotator and system of a reference answer
THUMBS_UP = ("true", "1", "1.0")  # labels of TRL's unpaired rows
THUMBS_DOWN = ("false", "0", "0.0")
MACHINE_SOURCES = ("gold", "ai")  # sources of pairs that no person preferred
COLUMNS_SHOWN = 20  # columns named in an error
_ANSWER_MARK = re.compile(r".*(?:\A|\n)\s*(?:answer|assistant)\s*:", re.DOTALL | re.IGNORECASE)
Messages = list[dict[str, str]]


@dataclass(frozen=True)
class ForeignVote:
    """Hold what a row of a file says on two answers, or the reason why the row makes no judgement.

    where: the place, "row 3". values: the keys of a judgement; "prompt_question" and "prompt_text" are the question and
    the text of a prompt. held_out: whether its contract is held out from training.
    """

    where: str
    values: dict[str, Any]
    reason: str = ""
    held_out: bool = False


def read_votes(path: str | Path, file_format: str = "auto") -> tuple[str, list[ForeignVote]]:
    """Return a file's format and its votes, with those that a row does not make for a reason.

    Raises InputError for an unknown format, for a file that `core.files.read_table` can't read and for missing columns.
    """
    if file_format not in IMPORT_FORMATS:
        raise InputError(f"Invalid format {file_format!r}: choose {', '.join(IMPORT_FORMATS)}.")
    path = Path(path)
    from_csv = path.suffix.lower() not in files.JSON_SUFFIXES
    rows = [
        (row.where.removeprefix(f"{path}, "), _plain_values(row.values, from_csv)) for row in files.read_table(path)
    ]
    columns = list(dict.fromkeys(name for _, values in rows for name in values))
    found = detect_format(columns, [file_format] if file_format != "auto" else LAYOUTS)
    if not found:
        wanted = "has none of the known layouts: " + "; ".join(LAYOUTS.values())
        wanted = wanted if file_format == "auto" else f"lacks a column of {LAYOUTS[file_format]}"
        more = " …" if len(columns) > COLUMNS_SHOWN else ""
        raise InputError(f"{path} {wanted}. Its columns: {', '.join(map(repr, columns[:COLUMNS_SHOWN]))}{more}.")
    votes = [vote for where, values in rows for vote in _votes_of_row(_READERS[found], where, values, path.stem)]
    return found, _joined_thumbs(votes)


def detect_format(columns: Collection[str], formats: Collection[str] = tuple(LAYOUTS)) -> str:
    """Return the first of the formats to which a file with these columns belongs, "" if no format fits."""
    return next((name for name in formats if any(needed <= set(columns) for needed in COLUMNS[name])), "")


def _plain_values(given: Mapping[str, Any], from_csv: bool) -> dict[str, Any]:
    """Return a row with folded column names, and CSV cells without the apostrophes of our export."""
    values = {fold_name(name): value for name, value in given.items()}
    if isinstance(values.get("data"), dict):
        values["data"] = {fold_name(name): value for name, value in values["data"].items()}
    texts = {name: unquote_formula(value) for name, value in values.items() if from_csv and isinstance(value, str)}
    return values | texts


def _votes_of_row(
    reader: Callable[[Mapping[str, Any], str], Iterator[dict[str, Any]]], where: str, row: Mapping[str, Any], stem: str
) -> Iterator[ForeignVote]:
    """Yield the votes of one row; a reader yields the values of a vote or {"left_out": reason}."""
    try:
        for values in reader(row, stem):
            place = where + (f", {values.pop('part')}" if "part" in values else "")
            values = _about_row(row) | values
            values |= {"seconds": _seconds(values["seconds"]), "time": _time(values["time"])}
            yield ForeignVote(place, values, values.get("left_out", ""))
    except RowRefused as error:
        yield ForeignVote(where, {}, str(error))


def _about_row(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of `COLUMN_NAMES`, which a row of any format may have; a task's `data` goes before columns."""
    data = values["data"] if isinstance(values.get("data"), dict) else {}
    found: dict[str, Any] = {}
    for field, names in COLUMN_NAMES.items():
        given = (source.get(name) for name in names for source in (data, values))
        found[field] = next((value for value in given if value not in (None, "")), None)
    return {name: value if name in ("seconds", "time") else cell_text(value, name) for name, value in found.items()}


def cell_text(value: Any, name: str = "value") -> str:
    """Return a value as text, "" for None; raises RowRefused for lists, dicts and truth values."""
    if isinstance(value, (list, dict, bool)):
        raise RowRefused(f"its {name} is no text: {str(value)[:40]}")
    return "" if value is None else str(value)


def _seconds(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if 0 <= found < math.inf else None


def _time(value: Any) -> str | None:
    """Return an ISO 8601 time, UTC where it names no zone; None for another value and for a time in the future."""
    try:
        found = datetime.fromisoformat(value)
        return time_in_utc((found if found.tzinfo else found.replace(tzinfo=UTC)).isoformat())
    except (TypeError, ValueError):
        return None


# Spreadsheets take a cell with this start for a formula (OWASP, "CSV Injection"); full-width signs count too
_FORMULA = r"(?:\s*[=+\-@＝＋－＠]|[\t\r\n])"


def quote_formula(text: str) -> str:
    """Return a cell's text, with an apostrophe before it if a spreadsheet would run it; see `unquote_formula`."""
    return f"'{text}" if re.match(rf"'*{_FORMULA}", text) else text


def unquote_formula(text: str) -> str:
    """Return the text that `quote_formula` was given; a text that it can't have made is returned as it is."""
    return text[1:] if re.match(rf"''*{_FORMULA}", text) else text


def _joined_thumbs(votes: Sequence[ForeignVote]) -> list[ForeignVote]:
    """Join the thumbs of one annotator on one question to votes on two answers; leave all other votes as they are.

    An answer with a thumb up is preferred to each with a thumb down. If all thumbs are down, two answers at a time are
    both wrong; an odd last one, and thumbs up alone, stay single. A `pair` names the two answers of one vote.
    """
    groups: dict[Any, list[ForeignVote]] = defaultdict(list)
    for number, vote in enumerate(votes):
        pair = vote.values.pop("pair", None)
        if pair is None:  # no thumb
            groups[number].append(vote)
        else:
            about = tuple(vote.values[name] for name in ("annotator", "id", "contract", "question"))
            groups[*about, pair or ("", vote.values["prompt_question"])].append(vote)
    return [vote for group in groups.values() for vote in (_paired_thumbs(group) if len(group) > 1 else group)]


def _paired_thumbs(thumbs: Sequence[ForeignVote]) -> list[ForeignVote]:
    up = [thumb for thumb in thumbs if thumb.values["verdict"] == "a"]
    down = [thumb for thumb in thumbs if thumb.values["verdict"] != "a"]
    if up:
        pairs, alone = list(product(up, down)), [] if down else up
    else:
        pairs, alone = list(zip(down[::2], down[1::2])), down[len(down) // 2 * 2 :]
    return alone + [
        ForeignVote(
            f"{a.where} and {b.where}", a.values | {"answer_b": b.values["answer_a"], "system_b": b.values["system_a"]}
        )
        for a, b in pairs
    ]


def _aws_votes(row: Mapping[str, Any], stem: str) -> Iterator[dict[str, Any]]:
    if str(row.get(AWS_JUDGE)).strip().casefold() in ("1", "1.0", "true"):
        yield {"left_out": "the file's judge calls the response right: no preference"}
        return
    answer_a, answer_b = (
        next((text for name in names if (text := cell_text(row.get(name), name)).strip()), "")
        for names in (AWS_REFERENCES, AWS_RESPONSES)
    )
    if not answer_a or not answer_b:
        raise RowRefused("its reference or its response is empty")
    about = {"system_a": EXPERT, "system_b": stem, "named": EXPERT}
    yield about | {"answer_a": answer_a, "answer_b": answer_b, "verdict": "a"}


def _raw_votes(row: Mapping[str, Any], stem: str) -> Iterator[dict[str, Any]]:
    given = {name: row.get(name) for name in FIELDS if name not in (*COLUMN_NAMES, "source")}
    if given.pop("revokes"):
        raise RowRefused("it is an undo, which is not taken over")
    if given["verdict"] not in VERDICTS:
        raise RowRefused(f"its verdict {str(given['verdict'])[:20]!r} is none of {', '.join(VERDICTS)}")
    given |= {name: given[name] or None for name in ("uid", "shown_first", "edited")}
    yield given | {name: _json_cell(given[name], name) for name in ("span", "prompt")}


def _json_cell(value: Any, name: str) -> Any:
    """Return the JSON value that a text holds, None for an empty text; return any other value as it is."""
    try:
        return (json.loads(value) if value else None) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        raise RowRefused(f"its {name} is no JSON") from None


def trl_votes(row: Mapping[str, Any], stem: str = "") -> Iterator[dict[str, Any]]:
    """Yield the vote of one of TRL's rows; raises RowRefused where an answer is missing or of another type.

    A thumb (completion and label) is a vote with an empty second answer: up is verdict "a", down is "both_wrong".
    """
    source = str(row.get("source") or "").casefold()
    if source in MACHINE_SOURCES:
        raise RowRefused(f"it is no person's preference (source {source})")
    is_thumb = row.get("chosen") in (None, "") and "completion" in row
    prompt, vote = _vote_of_thumb(row) if is_thumb else _vote_of_pair(row)
    yield vote | _about_prompt(prompt, row)


def _vote_of_pair(row: Mapping[str, Any]) -> tuple[str | Messages, dict[str, Any]]:
    prompt, chosen, rejected = (_text_or_messages(row.get(name), name) for name in ("prompt", "chosen", "rejected"))
    if prompt in ("", []):
        asked = any(row.get(name) for name in ("question", "question_id", "id"))
        prompt, chosen, rejected = _implicit_prompt(chosen, rejected, asked=asked)
    answers = {"answer_a": _answer_text(chosen, "chosen"), "answer_b": _answer_text(rejected, "rejected")}
    systems = {"system_a": cell_text(row.get("system_chosen")), "system_b": cell_text(row.get("system_rejected"))}
    return prompt, answers | systems | {"verdict": "a"}


def _vote_of_thumb(row: Mapping[str, Any]) -> tuple[str | Messages, dict[str, Any]]:
    label = str(row.get("label")).strip().casefold()
    if label not in (*THUMBS_UP, *THUMBS_DOWN):
        raise RowRefused(f"its label {label[:20]!r} is neither true nor false")
    completion = _text_or_messages(row["completion"], "completion")
    answers = {"answer_a": _answer_text(completion, "completion"), "answer_b": ""}
    systems = {"system_a": cell_text(row.get("system")), "system_b": ""}
    said = {"verdict": "a" if label in THUMBS_UP else "both_wrong", "pair": cell_text(row.get("pair"))}
    return _text_or_messages(row.get("prompt"), "prompt"), answers | systems | said


def _about_prompt(prompt: str | Messages, row: Mapping[str, Any]) -> dict[str, Any]:
    """Return prompt_question, with which the prompt ends, prompt_text, and prompt: its messages if they say more."""
    kept = _text_or_messages(row.get("messages"), "messages") or prompt
    messages = kept if isinstance(kept, list) else [{"role": "user", "content": kept}]
    texts = [message["content"] for message in messages]
    users = [message["content"] for message in messages if message["role"] == "user"]
    question = question_of_prompt(users[-1]) if users else ""
    only_asks = isinstance(kept, str) or not texts or texts in ([cell_text(row.get("question"))], [question])
    return {"prompt_question": question, "prompt": None if only_asks else kept, "prompt_text": "\n".join(texts)}


def _implicit_prompt(chosen: str | Messages, rejected: str | Messages, *, asked: bool) -> tuple[Any, Any, Any]:
    """Split both answers into (prompt, chosen, rejected): the prompt is what both begin with.

    Of messages the prompt is the shared ones. Of text it is the shared beginning up to its last "Answer:" or
    "Assistant:". Without such a mark it goes up to the last blank, as in TRL. But if another column says what was
    `asked`, the texts are answers that happen to begin alike: the prompt is then empty.
    """
    if type(chosen) is not type(rejected):
        raise RowRefused("one of its answers is text, the other messages")
    if isinstance(chosen, list):
        differ = (n for n, (one, other) in enumerate(zip(chosen, rejected)) if one != other)
        end = next(differ, min(len(chosen), len(rejected)))
        return chosen[:end], chosen[end:], rejected[end:]
    shared = os.path.commonprefix([chosen, rejected])
    mark = _ANSWER_MARK.match(shared)
    end = mark.end() if mark else 0 if asked else shared.rfind(" ") + 1
    return chosen[:end], chosen[end:].strip(), rejected[end:].strip()


def _text_or_messages(value: Any, name: str) -> str | Messages:
    """Return a cell's text or messages; messages may be JSON or, as pandas writes them, a Python literal."""
    if isinstance(value, str) and re.match(r"\s*\[\s*\{", value):
        value = _parsed_messages(value)
    if isinstance(value, dict) and "content" in value:
        value = [value]
    if not isinstance(value, list):
        return cell_text(value, name)
    if not all(isinstance(m, dict) and isinstance(m.get("role"), str) for m in value):
        raise RowRefused(f"its {name} is a list of something else than messages with role and content")
    return [{"role": m["role"], "content": _message_text(m.get("content"), name)} for m in value]


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


_READERS = {"raw": _raw_votes, "labelstudio": labelstudio_votes, "trl": trl_votes, "aws": _aws_votes}
