"""Label Studio's pairwise comparisons as votes, and judgements as its tasks.

Read are the JSON export (tasks with annotations; format: https://labelstud.io/guide/task_format) and the flat JSON_MIN
and CSV exports (a row per annotation). The control tag is Pairwise (https://labelstud.io/tags/pairwise); Choices beside
it may say tie, both_wrong or skip, a TextArea "comment" or "edited" holds text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from cuadft.core.files import TableRow
from cuadft.feedback.records import Refused, cell_column, cell_moment, cell_seconds, pair_key
from cuadft.feedback.training_questions import question_of_prompt

SIDES = {"left": "a", "right": "b"}
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
NO_ANSWERS = ("system", "model", "name", "score", "id", "rating", "time", "span", "spans")
LIKELY = ("answer", "response", "text", "output", "completion")  # names of answers, before others that come in twos
LATER = {"a": "b", "1": "2", "left": "right"}
TEXTS = ("comment", "edited")
ABOUT = ("id", "question_id", "contract", "contract_title", "question", "annotator", "time")
SKIPPED, UNDECIDED = "skipped by the annotator", "nothing is selected in it"
_FIRST = re.compile(r"(.*?)_?(a|1|left)")
CONFIG = """<View>
  <Header value="$question"/> <Text name="contract" value="$contract"/>
  <Pairwise name="verdict" toName="answer_a,answer_b"/>
  <Text name="answer_a" value="$answer_a"/> <Text name="answer_b" value="$answer_b"/>
  <Choices name="other" toName="answer_a"><Choice value="tie"/><Choice value="both_wrong"/></Choices>
  <TextArea name="edited" toName="answer_a"/> <TextArea name="comment" toName="answer_a"/>
</View>"""  # the labelling interface for exported tasks


def is_labelstudio(records: Sequence[TableRow], columns: Collection[str]) -> bool:
    """Tell whether records are Label Studio's: tasks with data and annotations, or rows of one annotation each."""
    if "data" in columns and ("annotations" in columns or "completions" in columns):
        return True
    return (
        "annotator" in columns
        and bool({"annotation_id", "lead_time"} & set(columns))
        and any(_selected(value) for record in records for value in record.values.values())
    )


def labelstudio_votes(record: TableRow) -> Iterator[dict[str, Any]]:
    """Yield a task's votes, one per annotation, or {"left_out": reason}; Refused if no two answers are found."""
    values = record.values
    annotations = values.get("annotations", values.get("completions"))
    if not isinstance(values.get("data"), dict) or not isinstance(annotations, list):
        yield _flat(values)
        return
    meta = values["meta"] if isinstance(values.get("meta"), dict) else {}
    shared = {name: str(meta.get(name) or values["data"].get(name) or "") for name in ("system_a", "system_b")}
    shared |= _asked(values["data"])
    if not annotations:
        yield {"left_out": "nobody has annotated the task"}
    for number, annotation in enumerate(annotations, 1):
        part = {"part": f"annotation {number}"}
        if not isinstance(annotation, dict):
            yield part | {"left_out": "its annotation is no object"}
        else:
            found = _annotated(annotation)
            yield part | ({} if "left_out" in found else _answers(values["data"], found.pop("shown"))) | shared | found


def _annotated(annotation: Mapping[str, Any]) -> dict[str, Any]:
    """Return what one annotation says: verdict, annotator, time spent, comment and correction."""
    if annotation.get("was_cancelled"):
        return {"left_out": SKIPPED}
    result = annotation.get("result")
    said = [one for one in (result if isinstance(result, list) else []) if isinstance(one, dict)]
    of_value = [(one, one["value"]) for one in said if isinstance(one.get("value"), dict)]
    verdicts = [v for _, value in of_value for v in (_selected(value), _other(value.get("choices"))) if v]
    if not verdicts:
        return {"left_out": UNDECIDED}
    if len(set(verdicts)) > 1:
        return {"left_out": f"it selects {' and '.join(sorted(set(verdicts)))} at once"}
    shown = next((str(one.get("to_name") or "") for one, value in of_value if _selected(value)), "")
    texts = {
        str(one.get("from_name")): "\n".join(map(str, value["text"]))
        for one, value in of_value
        if isinstance(value.get("text"), list)
    }
    return {
        "verdict": verdicts[0],
        "shown": shown,
        "annotator": _who(annotation.get("completed_by")),
        "seconds": cell_seconds(annotation.get("lead_time")),
        "time": cell_moment(annotation.get("created_at")),
        "comment": texts.get("comment", ""),
        "edited": texts.get("edited"),
    }


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row of JSON_MIN or CSV says: its verdict stands in the column that is named after the tag."""
    answers = _sides(values, "")
    told = [value for name, value in values.items() if name not in (*answers, *TEXTS, *ABOUT)]
    found = {verdict for value in told if (verdict := _selected(value) or _other(value))}
    if str(values.get("was_cancelled")).casefold() in ("true", "1"):
        return {"left_out": SKIPPED}
    if len(found) != 1:
        return {"left_out": f"it selects {' and '.join(sorted(found))} at once" if found else UNDECIDED}
    texts = _asked(values) | {name: _lines(values[name]) for name in TEXTS if values.get(name)}
    texts |= {name: str(values.get(name) or "") for name in ("system_a", "system_b")}
    return {
        "answer_a": values[answers[0]],
        "answer_b": values[answers[1]],
        "verdict": found.pop(),
        "annotator": _who(values.get("annotator")),
    } | texts


def _selected(value: Any) -> str:
    """Return "a" for the left answer, "b" for the right one, "" for anything else; a cell may hold JSON."""
    value = _loaded(value)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, dict):
        value = value.get("selected")
    return SIDES.get(value.strip().casefold(), "") if isinstance(value, str) else ""


def _lines(value: Any) -> str:
    """Return what was written into a TextArea: text, or where there are several lines {"text": [...]} or a list."""
    given = _loaded(value)
    parts = given if isinstance(given, list) else [given]
    parts = [part.get("text") if isinstance(part, dict) else part for part in parts]
    lines = [line for part in parts for line in (part if isinstance(part, list) else [part])]
    return "\n".join(lines) if all(isinstance(line, str) for line in lines) else str(value)


def _loaded(cell: Any) -> Any:
    """Return the JSON list or object that a text may hold, else the value itself."""
    try:
        return json.loads(cell) if isinstance(cell, str) and cell.lstrip()[:1] in ("{", "[") else cell
    except (ValueError, RecursionError):
        return cell


def _asked(values: Mapping[str, Any]) -> dict[str, str]:
    """Return the question of a task that shows a prompt, as Label Studio's templates for language models do."""
    prompt = values.get("prompt")
    return {"prompt_question": question_of_prompt(prompt), "prompt_text": prompt} if isinstance(prompt, str) else {}


def _other(value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    return OTHER_VERDICTS.get(re.sub(r"[\W_]+", "", value.casefold()), "") if isinstance(value, str) else ""


def _who(given: Any) -> str:
    """Return an annotator's e-mail, name or number."""
    if isinstance(given, dict):
        given = next((given[name] for name in ("email", "username", "id") if given.get(name) not in (None, "")), "")
    return "" if given is None or isinstance(given, (bool, list)) else str(given)


def _answers(data: Mapping[str, Any], shown: str) -> dict[str, str]:
    left, right = _sides(data, shown)
    return {"answer_a": data[left], "answer_b": data[right]}


def _sides(data: Mapping[str, Any], shown: str) -> tuple[str, str]:
    """Return the names of the left and the right text: the two that the tag names, else two such as text1 and text2."""
    named, pairs = [cell_column(name) for name in shown.split(",")], []
    for name in data:
        found = _FIRST.fullmatch(name)
        if found and not set(found[1].split("_")) & set(NO_ANSWERS):
            pairs.append((name, f"{name[: len(name) - len(found[2])]}{LATER[found[2]]}"))
    pairs.sort(key=lambda pair: not pair[0].startswith(LIKELY))
    for left, right in [(named[0], named[1]), *pairs] if len(named) == 2 else pairs:
        texts = [data.get(left), data.get(right)]
        if all(isinstance(text, str) and text.strip() for text in texts):
            return left, right
    raise Refused("no two answers are found in it: fill them in and name their columns answer_a and answer_b")


def labelstudio_tasks(judgements: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return judgements as annotated tasks for Label Studio's import, one task per pair; systems stand in its meta.

    Annotators are given as e-mails, as Label Studio wants them; it refuses those that it does not know.
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
                "result": _result(judgement),
            }
        )
    return list(made.values())


def _result(judgement: Mapping[str, Any]) -> list[dict[str, Any]]:
    sides, verdict = {side: name for name, side in SIDES.items()}, judgement["verdict"]
    found = []
    if verdict in sides:
        found.append(
            {
                "from_name": "verdict",
                "to_name": "answer_a,answer_b",
                "type": "pairwise",
                "value": {"selected": sides[verdict]},
            }
        )
    elif verdict != "skip":
        found.append({"from_name": "other", "to_name": "answer_a", "type": "choices", "value": {"choices": [verdict]}})
    return found + [
        {"from_name": name, "to_name": "answer_a", "type": "textarea", "value": {"text": [judgement[name]]}}
        for name in TEXTS
        if judgement[name]
    ]
