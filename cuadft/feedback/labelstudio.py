"""Label Studio's pairwise comparisons as votes, and judgements as its tasks.

    votes = list(labelstudio_votes(row))          # of one task of an export
    tasks = labelstudio_tasks(store.judgements()) # for an import into Label Studio

Two kinds of export are read: JSON (tasks with annotations, see https://labelstud.io/guide/task_format) and the flat
JSON_MIN and CSV (a row for each annotation). A labelling interface holds the tag Pairwise
(https://labelstud.io/tags/pairwise). A tag Choices beside it may say tie, both_wrong or skip, and a TextArea named
"comment" or "edited" holds text. `LABELLING_INTERFACE` has all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from cuadft.core.files import TableRow
from cuadft.core.text import fold_letters, fold_name
from cuadft.feedback.records import RowRefused, cell_seconds, cell_time, pair_key
from cuadft.feedback.training_questions import question_of_prompt

SIDE_OF_PLACE = {"left": "a", "right": "b"}
OTHER_VERDICTS = {
    "tie": "tie",
    "equal": "tie",
    "same": "tie",
    "both": "tie",
    "neither": "both_wrong",
    "bothwrong": "both_wrong",
    "bothbad": "both_wrong",
    "skip": "skip",
}
# The two answers stand in columns such as answer_a and answer_b, text1 and text2, left and right
SECOND_OF = {"a": "b", "1": "2", "left": "right"}
LIKELY_ANSWERS = ("answer", "response", "text", "output", "completion")  # columns that begin so are looked at first
NOT_ANSWERS = ("system", "model", "name", "score", "id", "rating", "time", "span", "spans")  # words of other columns
TEXT_AREAS = ("comment", "edited")
ABOUT_COLUMNS = ("id", "question_id", "contract", "contract_title", "question", "annotator", "time")
SKIPPED, UNDECIDED = "skipped by the annotator", "nothing is selected in it"  # reasons to leave an annotation out
_FIRST_NAME = re.compile(r"(.*?)_?(a|1|left)")
# for a project into which exported tasks are loaded
LABELLING_INTERFACE = """<View>
  <Header value="$question"/> <Text name="contract" value="$contract"/>
  <Pairwise name="verdict" toName="answer_a,answer_b"/>
  <Text name="answer_a" value="$answer_a"/> <Text name="answer_b" value="$answer_b"/>
  <Choices name="other" toName="answer_a"><Choice value="tie"/><Choice value="both_wrong"/></Choices>
  <TextArea name="edited" toName="answer_a"/> <TextArea name="comment" toName="answer_a"/>
</View>"""


def is_labelstudio(rows: Sequence[TableRow], columns: Collection[str]) -> bool:
    """Tell whether rows are Label Studio's: tasks with data and annotations, or one annotation in each row."""
    if "data" in columns and ("annotations" in columns or "completions" in columns):
        return True
    return (
        "annotator" in columns
        and bool({"annotation_id", "lead_time"} & set(columns))
        and any(_selected_side(value) for row in rows for value in row.values.values())
    )


def labelstudio_votes(row: TableRow) -> Iterator[dict[str, Any]]:
    """Yield a vote, or {"left_out": reason}, for each annotation of a task; raises RowRefused without two answers."""
    values = row.values
    annotations = values.get("annotations", values.get("completions"))
    if not isinstance(values.get("data"), dict) or not isinstance(annotations, list):
        yield _vote_of_flat_row(values)
        return
    meta = values["meta"] if isinstance(values.get("meta"), dict) else {}
    shared = {name: str(meta.get(name) or values["data"].get(name) or "") for name in ("system_a", "system_b")}
    shared |= _prompt_question(values["data"])
    if not annotations:
        yield {"left_out": "nobody has annotated the task"}
    for number, annotation in enumerate(annotations, 1):
        part = {"part": f"annotation {number}"}
        if not isinstance(annotation, dict):
            yield part | {"left_out": "its annotation is no object"}
        else:
            vote = _vote_of_annotation(annotation)
            answers = {} if "left_out" in vote else _answers(values["data"], vote.pop("shown"))
            yield part | answers | shared | vote


def _vote_of_annotation(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one annotation says: verdict, annotator, time spent, comment, correction and the answers shown."""
    if annotation.get("was_cancelled"):
        return {"left_out": SKIPPED}
    result = annotation.get("result")
    parts = [part for part in (result if isinstance(result, list) else []) if isinstance(part, dict)]
    parts = [part for part in parts if isinstance(part.get("value"), dict)]
    verdicts = {_selected_side(part["value"]) for part in parts}
    verdicts |= {_verdict_without_winner(part["value"].get("choices")) for part in parts}
    verdicts.discard("")
    if not verdicts:
        return {"left_out": UNDECIDED}
    if len(verdicts) > 1:
        return {"left_out": f"it selects {' and '.join(sorted(verdicts))} at once"}
    shown = next((str(part.get("to_name") or "") for part in parts if _selected_side(part["value"])), "")
    texts = {
        str(part.get("from_name")): "\n".join(map(str, part["value"]["text"]))
        for part in parts
        if isinstance(part["value"].get("text"), list)
    }
    return {
        "verdict": verdicts.pop(),
        "shown": shown,
        "annotator": _annotator_name(annotation.get("completed_by")),
        "seconds": cell_seconds(annotation.get("lead_time")),
        "time": cell_time(annotation.get("created_at")),
        "comment": texts.get("comment", ""),
        "edited": texts.get("edited"),
    }


def _vote_of_flat_row(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row of JSON_MIN or CSV says; the verdict stands in the column that is named after the tag."""
    answers = _answer_columns(values, "")
    told = [value for name, value in values.items() if name not in (*answers, *TEXT_AREAS, *ABOUT_COLUMNS)]
    found = {verdict for value in told if (verdict := _selected_side(value) or _verdict_without_winner(value))}
    if str(values.get("was_cancelled")).casefold() in ("true", "1"):
        return {"left_out": SKIPPED}
    if len(found) != 1:
        return {"left_out": f"it selects {' and '.join(sorted(found))} at once" if found else UNDECIDED}
    texts = _prompt_question(values) | {name: _text_area(values[name]) for name in TEXT_AREAS if values.get(name)}
    texts |= {name: str(values.get(name) or "") for name in ("system_a", "system_b")}
    return {
        "answer_a": values[answers[0]],
        "answer_b": values[answers[1]],
        "verdict": found.pop(),
        "annotator": _annotator_name(values.get("annotator")),
    } | texts


def _selected_side(value: Any) -> str:
    """Return "a" if the left answer is selected, "b" if the right one is, else ""; a cell may hold JSON."""
    value = _json_or_value(value)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("selected")
    return SIDE_OF_PLACE.get(value.strip().casefold(), "") if isinstance(value, str) else ""


def _text_area(value: Any) -> str:
    """Return what was written into a TextArea; several lines stand in it as {"text": [...]} or as a list."""
    given = _json_or_value(value)
    parts = given if isinstance(given, list) else [given]
    parts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    lines = [line for part in parts for line in (part if isinstance(part, list) else [part])]
    return "\n".join(lines) if all(isinstance(line, str) for line in lines) else str(value)


def _json_or_value(cell: Any) -> Any:
    """Return the JSON list or object that a cell's text holds, else the cell's value itself."""
    try:
        return json.loads(cell) if isinstance(cell, str) and cell.lstrip()[:1] in ("{", "[") else cell
    except (ValueError, RecursionError):
        return cell


def _prompt_question(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the question at the end of a task's prompt; Label Studio's templates for language models show prompts."""
    prompt = values.get("prompt")
    return {"prompt_question": question_of_prompt(prompt), "prompt_text": prompt} if isinstance(prompt, str) else {}


def _verdict_without_winner(value: Any) -> str:
    """Return tie, both_wrong or skip for what a Choices tag says, "" for other values."""
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return OTHER_VERDICTS.get(fold_letters(value), "") if isinstance(value, str) else ""


def _annotator_name(given: Any) -> str:
    """Return an annotator's e-mail, name or number."""
    if isinstance(given, dict):
        given = next((given[name] for name in ("email", "username", "id") if given.get(name) not in (None, "")), "")
    return "" if given is None or isinstance(given, (bool, list)) else str(given)


def _answers(data: Mapping[str, Any], shown: str) -> dict[str, str]:
    left, right = _answer_columns(data, shown)
    return {"answer_a": data[left], "answer_b": data[right]}


def _answer_columns(data: Mapping[str, Any], shown: str) -> tuple[str, str]:
    """Return the columns of the left and the right answer: those that the tag shows, else such as text1 and text2."""
    named, pairs = [fold_name(name) for name in shown.split(",")], []
    for name in data:
        found = _FIRST_NAME.fullmatch(name)
        if found and not set(found[1].split("_")) & set(NOT_ANSWERS):
            pairs.append((name, f"{name[: len(name) - len(found[2])]}{SECOND_OF[found[2]]}"))
    pairs.sort(key=lambda pair: not pair[0].startswith(LIKELY_ANSWERS))
    for left, right in [(named[0], named[1]), *pairs] if len(named) == 2 else pairs:
        texts = [data.get(left), data.get(right)]
        if all(isinstance(text, str) and text.strip() for text in texts):
            return left, right
    raise RowRefused("no two answers are found in it: fill them in and name their columns answer_a and answer_b")


def labelstudio_tasks(judgements: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return judgements as annotated tasks for Label Studio's import; a task is a pair, its meta names the systems.

    Annotators stand in the place of e-mail addresses; Label Studio refuses annotators whom it does not know.
    """
    made: dict[str, dict[str, Any]] = {}
    for judgement in judgements:
        data = {"question_id": judgement["id"]} | {
            k: judgement[k] for k in ("contract", "question", "answer_a", "answer_b")
        }
        meta = {name: judgement[name] for name in ("system_a", "system_b")}
        task = made.setdefault(pair_key(judgement), {"data": data, "meta": meta, "annotations": []})
        task["annotations"].append(
            {
                "completed_by": {"email": judgement["annotator"]},
                "was_cancelled": judgement["verdict"] == "skip",
                "lead_time": judgement["seconds"],
                "created_at": judgement["time"],
                "result": _annotation_result(judgement),
            }
        )
    return list(made.values())


def _annotation_result(judgement: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return an annotation's result: the choice of the Pairwise or Choices tag, and the texts of the text areas."""
    places, verdict = {side: place for place, side in SIDE_OF_PLACE.items()}, judgement["verdict"]
    found = []
    if verdict in places:
        found.append(
            {
                "from_name": "verdict",
                "to_name": "answer_a,answer_b",
                "type": "pairwise",
                "value": {"selected": places[verdict]},
            }
        )
    elif verdict != "skip":
        found.append({"from_name": "other", "to_name": "answer_a", "type": "choices", "value": {"choices": [verdict]}})
    return found + [
        {"from_name": name, "to_name": "answer_a", "type": "textarea", "value": {"text": [judgement[name]]}}
        for name in TEXT_AREAS
        if judgement[name]
    ]
