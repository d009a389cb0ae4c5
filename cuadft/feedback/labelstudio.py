"""Label Studio's pairwise comparisons as votes, and judgements as its tasks.

    votes = list(labelstudio_votes(row))          # of one task of an export
    tasks = labelstudio_tasks(store.judgements()) # for an import into Label Studio

The JSON export is read: tasks with annotations, see https://labelstud.io/guide/task_format. A labelling interface holds
the tag Pairwise (https://labelstud.io/tags/pairwise). A tag Choices beside it may say tie, both_wrong or skip, and a
TextArea named "comment" or "edited" holds text. `LABELLING_INTERFACE` has all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cuadft.core.text import fold_letters
from cuadft.feedback.records import pair_key
from cuadft.feedback.training_questions import RowRefused, question_of_prompt

SIDE_OF_PLACE = {"left": "a", "right": "b"}
PLACE_OF_SIDE = {side: place for place, side in SIDE_OF_PLACE.items()}
OTHER_VERDICTS = {"tie": "tie", "equal": "tie", "bothwrong": "both_wrong", "neither": "both_wrong", "skip": "skip"}
# Where the tag does not name the columns of the answers, these names are tried, without case and signs
ANSWER_NAMES = [
    (name + first, name + second)
    for name in ("answer", "response", "text")
    for first, second in (("a", "b"), ("1", "2"), ("left", "right"))
]
TEXT_AREAS = ("comment", "edited")
# for a project into which exported tasks are loaded
LABELLING_INTERFACE = """<View>
  <Header value="$question"/> <Text name="contract" value="$contract"/>
  <Pairwise name="verdict" toName="answer_a,answer_b"/>
  <Text name="answer_a" value="$answer_a"/> <Text name="answer_b" value="$answer_b"/>
  <Choices name="other" toName="answer_a"><Choice value="tie"/><Choice value="both_wrong"/></Choices>
  <TextArea name="edited" toName="answer_a"/> <TextArea name="comment" toName="answer_a"/>
</View>"""


def labelstudio_votes(task: Mapping[str, Any], stem: str = "") -> Iterator[dict[str, Any]]:
    """Yield a vote, or {"left_out": reason}, for each annotation of a task; raises RowRefused without two answers."""
    data, annotations = task.get("data"), task.get("annotations")
    if not isinstance(data, dict) or not isinstance(annotations, list):
        raise RowRefused("it is no task with data and annotations: choose JSON in Label Studio's export")
    meta = task["meta"] if isinstance(task.get("meta"), dict) else {}
    shared = {name: str(meta.get(name) or data.get(name) or "") for name in ("system_a", "system_b")}
    if isinstance(prompt := data.get("prompt"), str):  # Label Studio's templates for language models show prompts
        shared |= {"prompt_question": question_of_prompt(prompt), "prompt_text": prompt}
    if not annotations:
        yield {"left_out": "nobody has annotated the task"}
    for number, annotation in enumerate(annotations, 1):
        given = annotation if isinstance(annotation, dict) else {}
        yield {"part": f"annotation {number}"} | shared | _vote_of_annotation(given, data)


def _vote_of_annotation(annotation: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one annotation says: answers, verdict, annotator, time spent, comment and correction."""
    if annotation.get("was_cancelled"):
        return {"left_out": "skipped by the annotator"}
    result = annotation.get("result") if isinstance(annotation.get("result"), list) else []
    parts = [part for part in result if isinstance(part, dict) and isinstance(part.get("value"), dict)]
    verdicts = {verdict: part for part in parts if (verdict := _verdict(part["value"]))}
    if len(verdicts) != 1:
        chosen = f"it selects {' and '.join(sorted(verdicts))} at once"
        return {"left_out": chosen if verdicts else "nothing is selected in it"}
    ((verdict, said),) = verdicts.items()
    texts = {
        str(part.get("from_name")): "\n".join(map(str, part["value"]["text"]))
        for part in parts
        if isinstance(part["value"].get("text"), list)
    }
    return _answers(data, str(said.get("to_name") or "")) | {
        "verdict": verdict,
        "annotator": _annotator_name(annotation.get("completed_by")),
        "seconds": annotation.get("lead_time"),
        "time": annotation.get("created_at"),
        "comment": texts.get("comment", ""),
        "edited": texts.get("edited"),
    }


def _verdict(value: Mapping[str, Any]) -> str:
    """Return what a Pairwise tag (a, b) or a Choices tag (tie, both_wrong, skip) says, "" for other values."""
    selected, choices = value.get("selected"), value.get("choices")
    if isinstance(selected, str):
        return SIDE_OF_PLACE.get(selected.strip().casefold(), "")
    choice = choices[0] if isinstance(choices, list) and len(choices) == 1 else choices
    return OTHER_VERDICTS.get(fold_letters(choice), "") if isinstance(choice, str) else ""


def _annotator_name(given: Any) -> str:
    """Return an annotator's e-mail, name or number."""
    if isinstance(given, dict):
        given = next((given[name] for name in ("email", "username", "id") if given.get(name) not in (None, "")), "")
    return "" if given is None or isinstance(given, (bool, list)) else str(given)


def _answers(data: Mapping[str, Any], shown: str) -> dict[str, str]:
    """Return the left and the right answer: those that the tag shows, else those with usual names."""
    texts = {fold_letters(name): text for name, text in data.items() if isinstance(text, str) and text.strip()}
    named = tuple(map(fold_letters, shown.split(",")))
    for left, right in [named, *ANSWER_NAMES] if len(named) == 2 else ANSWER_NAMES:
        if left in texts and right in texts:
            return {"answer_a": texts[left], "answer_b": texts[right]}
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
