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
- "labelstudio": comparisons of two answers, see `labelstudio`.
- "comparison": a table of two answers (response_a, response_b) and a winner, or a rating of each, see `comparisons`.
- "aws": the AWS sample's answers beside the experts' references; the expert's answer is preferred.
- "store": another run's feedback.sqlite.

The columns that each needs stand in `COLUMNS`; names are compared without case and signs ("Chosen" is chosen).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.text import fold_name
from cuadft.feedback.comparisons import RATINGS, Comparison, Reading, is_of_a_side
from cuadft.feedback.conversations import messages_of, plain_text, prompt_and_answer, prompt_of
from cuadft.feedback.labelstudio import VERDICT_COLUMNS, annotation_comparisons, flat_comparisons
from cuadft.feedback.records import time_in_utc
from cuadft.feedback.store import Store
from cuadft.feedback.training_questions import RowRefused

COLUMNS = {  # format -> sets of columns; a file belongs to the first format of which it has one set
    "labelstudio": [{"data", "annotations"}, {"annotation_id", "annotator"}],
    "trl": [{"chosen", "rejected"}, {"completion", "label"}],
    "aws": [{"question", a, b} for a in ("ref_answer", "gt_answer") for b in ("response", "pred_answer")],
}
EXPERT = "expert"  # annotator and system of a reference answer
TEXT_COLUMNS = ("id", "contract", "question", "annotator", "comment")
OF_ONE_STORE = ("uid", "revokes", "source")  # fields of a judgement that another store does not take over
TRUE, FALSE = ("true", "1", "1.0"), ("false", "0", "0.0")  # labels of thumbs, and what the AWS sample's judge says
UP, DOWN = (*TRUE, "yes", "up", "good", "👍"), (*FALSE, "no", "down", "bad", "👎")  # as other tools write labels
MACHINE_SOURCES = ("gold", "ai")  # sources of pairs that no person preferred


@dataclass(frozen=True)
class Vote:
    """Hold what a row of a file says on two answers, or the reason why the row makes no judgement.

    where: the place, "row 3". values: the keys of a judgement; "prompt_question" is the question of its prompt.
    held_out: whether its contract is held out from training. guesses: how words and columns were taken.
    """

    where: str
    values: dict[str, Any]
    reason: str = ""
    held_out: bool = False
    guesses: tuple[str, ...] = ()


def read_votes(path: str | Path, *, verdict: str = "", means: Sequence[str] = ()) -> tuple[str, list[Vote]]:
    """Return a file's format and its votes, with those that a row does not make for a reason.

    verdict, means: see `exchange.import_file`. Raises InputError for a file that `core.files.read_table` or `Store`
    can't read, for columns of no known format, and for options that do not fit.
    """
    path = Path(path)
    if path.suffix == ".sqlite" and path.is_file():
        said = Store(path).judgements()
        kept = [{name: one[name] for name in one if name not in OF_ONE_STORE} for one in said]
        return "store", [Vote(f"judgement {number}", values) for number, values in enumerate(kept, 1)]
    rows = [(row.where.removeprefix(f"{path}, "), _folded(row.values)) for row in files.read_table(path)]
    columns = list(dict.fromkeys(name for _, row in rows for name in row))
    found = next((name for name, sets in COLUMNS.items() if any(needed <= set(columns) for needed in sets)), "")
    compares = any(name in VERDICT_COLUMNS or is_of_a_side(name, RATINGS) for name in columns)
    if found == "labelstudio" or verdict or means or (compares and not found):
        compare = annotation_comparisons if "annotations" in columns else flat_comparisons
        said = [part for where, row in rows for part in compare(where, row)]
        return found or "comparison", _compared(said, verdict, means)
    if not found:
        known = "; ".join(f"{name} {' or '.join(str(sorted(s)) for s in sets)}" for name, sets in COLUMNS.items())
        advice = "rename them, such as answer_a, answer_b and verdict, or name the verdict's with --verdict"
        raise InputError(f"{path} has the columns {columns}, not those of a known format ({known}): {advice}.")
    read = {"trl": trl_vote, "aws": partial(_aws_vote, system=path.stem)}[found]
    return found, [_vote_of_row(where, row, read) for where, row in rows]


def _compared(said: list[Comparison], verdict: str, means: Sequence[str]) -> list[Vote]:
    """Return the votes of comparisons, by one control alone if the user names it."""
    if verdict:
        known = sorted({control for one in said for control in one.said})
        if fold_name(verdict) not in map(fold_name, known):
            raise InputError(f"No column or control {verdict!r} says anything: choose one of {', '.join(known)}.")
        said = [replace(o, said={c: v for c, v in o.said.items() if fold_name(c) == fold_name(verdict)}) for o in said]
    reading = Reading(said, means=means)
    return [_vote_of_row(one.where, one.row, lambda _, one=one: reading.vote(one)) for one in said]


def _folded(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row with folded column names, the `data` of a Label Studio task among them."""
    data = given["data"] if isinstance(given.get("data"), dict) else {}
    return {fold_name(name): value for name, value in (*given.items(), *data.items())}


def _vote_of_row(where: str, row: Mapping[str, Any], read: Callable[[Mapping[str, Any]], dict[str, Any]]) -> Vote:
    try:
        values = {name: plain_text(row.get(name), name) for name in TEXT_COLUMNS} | read(row)
    except RowRefused as error:
        return Vote(where, {}, str(error))
    for name, convert in (("time", time_in_utc), ("seconds", _seconds)):
        values[name] = None
        with suppress(TypeError, ValueError, OverflowError):
            values[name] = convert(row.get(name))
    return Vote(where, values, guesses=values.pop("guesses", ()))


def _seconds(given: Any) -> float:
    """Return a number of seconds, also one that a CSV file holds as text; raises ValueError for another value."""
    if isinstance(given, bool) or not 0 <= float(given) < math.inf:
        raise ValueError(f"no number of seconds: {given}")
    return float(given)


def _aws_vote(row: Mapping[str, Any], *, system: str) -> dict[str, Any]:
    if str(row.get("judge_bool")).strip().casefold() in TRUE:
        raise RowRefused("the file's judge calls the response right: no preference")
    reference, response = (
        "\n".join(one["content"] for one in messages_of(row.get(names[0]) or row.get(names[1]), name, "assistant"))
        for name, names in (("reference", ("ref_answer", "gt_answer")), ("response", ("response", "pred_answer")))
    )
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
        if label not in (*UP, *DOWN):
            raise RowRefused(f"its label {label[:20]!r} is neither true nor false")
        before, answer = prompt_and_answer(row, "completion")
        vote = {"answer_a": answer, "answer_b": "", "system_a": plain_text(row.get("system"), "system")}
        vote |= {"verdict": "a" if label in UP else "both_wrong"}
    else:
        before, chosen = prompt_and_answer(row, "chosen")
        vote = {"answer_a": chosen, "answer_b": prompt_and_answer(row, "rejected")[1], "verdict": "a"}
        vote |= {"system_a": plain_text(row.get("system_chosen"), "system")}
        vote |= {"system_b": plain_text(row.get("system_rejected"), "system")}
    return vote | prompt_of(row, before, [vote["answer_a"], vote["answer_b"]])
