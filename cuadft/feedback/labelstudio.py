"""Label Studio's pairwise comparisons as votes, and judgements as its tasks.

    votes = list(labelstudio_votes(row))          # of one task of an export
    tasks = labelstudio_tasks(store.judgements()) # for an import into Label Studio

The JSON export is read: tasks with annotations, see https://labelstud.io/guide/task_format. A labelling interface holds
the tag Pairwise (https://labelstud.io/tags/pairwise), whose toName names the columns of the two answers; else they are
answer_a and answer_b. A tag Choices beside it may say tie, both_wrong or skip, and a TextArea named "comment" or
"edited" holds text. `LABELLING_INTERFACE` has all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from cuadft.core.text import fold_letters, fold_name
from cuadft.feedback.records import pair_key
from cuadft.feedback.training_questions import RowRefused, question_of_prompt

SIDE_OF_PLACE = {"left": "a", "right": "b"}
PLACE_OF_SIDE = {side: place for place, side in SIDE_OF_PLACE.items()}
CHOICES = ("tie", "both_wrong", "skip")
TEXT_AREAS = ("comment", "edited")
# for a project into which exported tasks are loaded
LABELLING_INTERFACE = """<View>
  <Header value="$question"/> <Text name="contract" value="$contract"/>
  <Pairwise name="verdict" toName="answer_a,answer_b"/>
  <Text name="answer_a" value="$answer_a"/> <Text name="answer_b" value="$answer_b"/>
  <Choices name="other" toName="answer_a"><Choice value="tie"/><Choice value="both_wrong"/></Choices>
  <TextArea name="edited" toName="answer_a"/> <TextArea name="comment" toName="answer_a"/>
</View>"""


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
    lead_time: Any = None
    created_at: Any = None


_ANNOTATIONS = TypeAdapter(list[_Annotation])


def labelstudio_votes(task: Mapping[str, Any], stem: str = "") -> Iterator[dict[str, Any]]:
    """Yield a vote, or {"left_out": reason}, for each annotation of a task; raises RowRefused without two answers.

    task: its own keys and those of its `data`.
    """
    try:
        annotations = _ANNOTATIONS.validate_python(task["annotations"])
    except (ValidationError, KeyError):
        raise RowRefused("it is no task with data and annotations: choose JSON in Label Studio's export") from None
    meta = task["meta"] if isinstance(task.get("meta"), dict) else {}
    shared = {name: str(meta.get(name) or task.get(name) or "") for name in ("system_a", "system_b")}
    if isinstance(prompt := task.get("prompt"), str):  # Label Studio's templates for language models show prompts
        shared |= {"prompt_question": question_of_prompt(prompt), "prompt_text": prompt}
    if not annotations:
        raise RowRefused("nobody has annotated the task")
    for number, annotation in enumerate(annotations, 1):
        yield {"part": f"annotation {number}"} | shared | _vote_of_annotation(annotation, task)


def _vote_of_annotation(annotation: _Annotation, task: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one annotation says: answers, verdict, annotator, time spent, comment and correction."""
    if annotation.was_cancelled:
        return {"left_out": "skipped by the annotator"}
    said = {verdict: part.to_name for part in annotation.result if (verdict := _verdict(part.value))}
    if len(said) != 1:
        return {"left_out": f"it selects {' and '.join(sorted(said))} at once" if said else "nothing is selected in it"}
    ((verdict, shown),) = said.items()
    by = annotation.completed_by
    areas = [part for part in annotation.result if part.from_name in TEXT_AREAS and isinstance(part.value.text, list)]
    written = {part.from_name: "\n".join(part.value.text) for part in areas}
    return (
        _answers(task, shown)
        | written
        | {
            "verdict": verdict,
            "annotator": str((by.get("email") or by.get("id") if isinstance(by, dict) else by) or ""),
            "seconds": annotation.lead_time,
            "time": annotation.created_at,
        }
    )


def _verdict(value: _Value) -> str:
    """Return what a Pairwise tag (a, b) or a Choices tag (tie, both_wrong, skip) says, "" for other tags."""
    choices = [choice for choice in map(fold_name, value.choices) if choice in CHOICES]
    return SIDE_OF_PLACE.get(value.selected) or (choices[0] if len(choices) == 1 else "")


def _answers(task: Mapping[str, Any], shown: str) -> dict[str, str]:
    """Return the left and the right answer: those of the columns that the tag shows, else answer_a and answer_b."""
    texts = {fold_letters(name): text for name, text in task.items() if isinstance(text, str) and text.strip()}
    for names in (shown.split(","), ("answer_a", "answer_b")):
        found = [texts.get(fold_letters(name)) for name in names]
        if len(found) == 2 and all(found):
            return {"answer_a": found[0], "answer_b": found[1]}
    raise RowRefused("no two answers are found in it: fill them in and name their columns answer_a and answer_b")


def labelstudio_tasks(judgements: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return judgements as annotated tasks for Label Studio's import; a task is a pair, its meta names the systems.

    Annotators stand in the place of e-mail addresses; Label Studio refuses annotators whom it does not know.
    """
    made: dict[str, dict[str, Any]] = {}
    for judgement in judgements:
        data = {name: judgement[name] for name in ("contract", "question", "answer_a", "answer_b")}
        meta = {name: judgement[name] for name in ("system_a", "system_b")}
        task = {"data": {"question_id": judgement["id"]} | data, "meta": meta, "annotations": []}
        made.setdefault(pair_key(judgement), task)["annotations"].append(
            {
                "completed_by": {"email": judgement["annotator"]},
                "was_cancelled": judgement["verdict"] == "skip",
                "lead_time": judgement["seconds"],
                "created_at": judgement["time"],
                "result": list(_annotation_result(judgement)),
            }
        )
    return list(made.values())


def _annotation_result(judgement: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the choice of the Pairwise or Choices tag, and the texts of the text areas."""
    verdict = judgement["verdict"]
    if verdict in PLACE_OF_SIDE:
        selected = {"selected": PLACE_OF_SIDE[verdict]}
        yield {"from_name": "verdict", "to_name": "answer_a,answer_b", "type": "pairwise", "value": selected}
    elif verdict != "skip":
        yield {"from_name": "other", "to_name": "answer_a", "type": "choices", "value": {"choices": [verdict]}}
    for name in TEXT_AREAS:
        if judgement[name]:
            value = {"text": [judgement[name]]}
            yield {"from_name": name, "to_name": "answer_a", "type": "textarea", "value": value}
