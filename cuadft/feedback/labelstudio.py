"""Label Studio's pairwise comparisons as votes, one for each annotation.

    for where, row in annotation_rows("row 1", task):   # "row 1, annotation 1", ...
        labelstudio_vote(row)

The JSON export is read: tasks with annotations, see https://labelstud.io/guide/task_format. A labelling interface holds
the tag Pairwise (https://labelstud.io/tags/pairwise), whose toName names the columns of the two answers; else they are
answer_a and answer_b. A tag Choices beside it may say tie, both_wrong or skip, and a TextArea named "comment" or
"edited" holds text.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ValidationError

from cuadft.core.text import fold_letters, fold_name
from cuadft.feedback.training_questions import RowRefused, question_of_prompt

VERDICT_OF_WORD = {"left": "a", "right": "b", "tie": "tie", "both_wrong": "both_wrong", "skip": "skip"}
TEXT_AREAS = ("comment", "edited")


class _Value(BaseModel):
    selected: str = ""  # of a Pairwise tag
    choices: list[str] = []
    text: list[str] | str = []  # of a TextArea tag


class _Part(BaseModel):
    """What one tag of the interface says."""

    from_name: str = ""
    to_name: str = ""
    value: _Value = _Value()


class _Annotation(BaseModel):
    result: list[_Part]
    was_cancelled: bool = False
    completed_by: dict[str, Any] | int | str | None = None  # with an email, or a number
    lead_time: float | None = None
    created_at: str | None = None


def annotation_rows(where: str, task: Mapping[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return the place and a row for each annotation of a task, `annotation`; the task itself where it has none.

    task: its own keys and those of its `data`.
    """
    given = task["annotations"] if isinstance(task.get("annotations"), list) else []
    rows = [(f"{where}, annotation {n}", {**task, "annotation": annotation}) for n, annotation in enumerate(given, 1)]
    return rows or [(where, {**task, "annotation": None})]


def labelstudio_vote(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one annotation says: answers, verdict, annotator, time spent, comment and correction.

    row: of `annotation_rows`. Raises RowRefused for a skipped annotation, without one choice, and without two answers.
    """
    if row["annotations"] == []:
        raise RowRefused("nobody has annotated the task")
    try:
        annotation = _Annotation.model_validate(row["annotation"])
    except ValidationError:
        raise RowRefused("it is no annotation of Label Studio: choose JSON in its export") from None
    if annotation.was_cancelled:
        raise RowRefused("skipped by the annotator")
    said = {VERDICT_OF_WORD[word]: part.to_name for part in annotation.result for word in _words(part.value)}
    if len(said) != 1:
        raise RowRefused(f"it selects {' and '.join(sorted(said))} at once" if said else "nothing is selected in it")
    ((verdict, shown),) = said.items()
    by, areas = annotation.completed_by, [part for part in annotation.result if part.from_name in TEXT_AREAS]
    vote = {part.from_name: "\n".join(part.value.text) for part in areas if isinstance(part.value.text, list)}
    vote |= {"verdict": verdict, "seconds": annotation.lead_time, "time": annotation.created_at}
    vote["annotator"] = str((by.get("email") or by.get("id") if isinstance(by, dict) else by) or "")
    if isinstance(prompt := row.get("prompt"), str):  # Label Studio's templates for language models show prompts
        vote["prompt_question"] = question_of_prompt(prompt)
        says_more = vote["prompt_question"] != prompt.strip()
        vote["prompt"] = [{"role": "user", "content": prompt}] if says_more else None
    return vote | _answers(row, shown)


def _words(value: _Value) -> list[str]:
    """Return what a Pairwise tag (left, right) or a Choices tag (tie, both_wrong, skip) says, nothing of other tags."""
    return [word for word in (value.selected, *map(fold_name, value.choices)) if word in VERDICT_OF_WORD]


def _answers(row: Mapping[str, Any], shown: str) -> dict[str, str]:
    """Return the left and the right answer: those of the columns that the tag shows, else answer_a and answer_b."""
    texts = {fold_letters(name): text for name, text in row.items() if isinstance(text, str) and text.strip()}
    for names in (shown.split(","), ("answer_a", "answer_b")):
        found = [texts.get(fold_letters(name)) for name in names]
        if len(found) == 2 and all(found):
            return {"answer_a": found[0], "answer_b": found[1]}
    raise RowRefused("no two answers are found in it: fill them in and name their columns answer_a and answer_b")
