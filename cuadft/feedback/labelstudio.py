"""What people said with Label Studio and Argilla, as comparisons of two answers.

    list(annotation_comparisons("row 1", task))   # [Comparison("row 1, annotation 1", ...), ...]

Of Label Studio the exports JSON (tasks with annotations, see https://labelstud.io/guide/task_format), JSON_MIN and CSV
(a task and one annotation a row) are read. A control is a tag Pairwise (https://labelstud.io/tags/pairwise), Choices,
Rating or Ranker (https://labelstud.io/tags/ranker), whose toName names the columns of the answers; else these are
answer_a and answer_b. A TextArea named "comment" or "edited" holds text. Of Argilla the records as JSON and its data
sets on the hub are read, one comparison for each user. A ranking is a comparison of every two of its answers.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel, ValidationError

from cuadft.core.text import fold_letters, fold_name
from cuadft.feedback.comparisons import ANSWERS, RATINGS, Comparison, is_of_a_side
from cuadft.feedback.conversations import cell_value

EMPTY: Mapping[str, str] = MappingProxyType({})
TEXT_AREAS = ("comment", "edited")
ITEM_TEXTS = ("body", "text", "html", "title")  # of an item of a List
STRUCTURES = ("selected", "choices", "rating", "number", "value", "text")  # of a tag's value
VERDICT_COLUMNS = frozenset(
    "verdict winner preference preferred preferred_answer choice vote better better_answer selected judgement "
    "label".split()
)
# columns of a task and an annotation that nobody says anything with, and those of the person's name
WHO = ("annotator", "judge", "user", "user_id", "rater", "labeler")
NO_CONTROLS = frozenset(
    "id inner_id annotation_id created_at updated_at lead_time time seconds contract question prompt comment edited "
    "agreement status external_id metadata source passages context".split()
).union(WHO)


class _Value(BaseModel, extra="allow"):
    selected: str = ""  # of a Pairwise tag
    choices: list[str] = []


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


def annotation_comparisons(where: str, task: Mapping[str, Any]) -> Iterator[Comparison]:
    """Yield a comparison for each annotation of a task, or the task itself with the reason why it has none.

    task: its own keys and those of its `data`.
    """
    given = task["annotations"] if isinstance(task.get("annotations"), list) else [None]
    if not given:
        yield Comparison(where, task, refused="nobody has annotated the task")
    for number, one in enumerate(given, 1):
        place = f"{where}, annotation {number}"
        try:
            annotation = _Annotation.model_validate(one)
        except ValidationError:
            yield Comparison(place, task, refused="it is no annotation of Label Studio: choose JSON in its export")
            continue
        said = {part.from_name: [] for part in annotation.result}
        for part in annotation.result:
            said[part.from_name].append(part.value.model_dump(exclude_unset=True))
        shown = {part.from_name: part.to_name for part in annotation.result}
        about = {"time": annotation.created_at, "seconds": annotation.lead_time, "by": annotation.completed_by}
        refused = "skipped by the annotator" if annotation.was_cancelled else ""
        yield from _comparisons(place, {**task, **about}, said, shown, refused)


def flat_comparisons(where: str, row: Mapping[str, Any]) -> Iterator[Comparison]:
    """Yield the comparison of a row that holds a pair and what one person said, such as Label Studio's CSV.

    Controls are the columns of `VERDICT_COLUMNS`, else ratings of both answers; in Label Studio's files, and where a
    file has neither, all columns that say nothing about the pair, the person or the time.
    """
    about = {"time": row.get("time") or row.get("created_at"), "seconds": row.get("seconds") or row.get("lead_time")}
    said = {
        c: value for c, value in row.items() if c in TEXT_AREAS or not (c in NO_CONTROLS or is_of_a_side(c, ANSWERS))
    }
    named = {control: value for control, value in said.items() if control in VERDICT_COLUMNS}
    rated = {control: value for control, value in said.items() if is_of_a_side(control, RATINGS)}
    kept = said if "annotation_id" in row else named or rated or said
    by = cell_value(next((row[name] for name in WHO if row.get(name)), None))
    yield from _comparisons(where, {**row, **about, "by": by}, kept)


def argilla_comparisons(where: str, record: Mapping[str, Any]) -> Iterator[Comparison]:
    """Yield a comparison for each user who answered the questions of an Argilla record."""
    fields = record["fields"] if isinstance(record.get("fields"), dict) else {}
    row = {**record, **{fold_name(name): value for name, value in fields.items()}}
    by_user: dict[str, dict[str, Any]] = defaultdict(dict)
    for question, user, value in _responses(row):
        by_user[user][fold_name(question)] = value
    if not by_user:
        yield Comparison(where, row, refused="nobody has answered the record")
    for user, said in by_user.items():
        yield from _comparisons(f"{where}, user {user}", {**row, "by": user}, said)


def _responses(row: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield question, user and value of each response, from a record or from the columns of a data set."""
    given = row["responses"] if isinstance(row.get("responses"), dict) else {}
    for question, responses in given.items():
        for one in responses if isinstance(responses, list) else []:
            if isinstance(one, dict) and one.get("status") in ("submitted", None):
                yield question, str(one.get("user_id") or ""), one.get("value")
    for name, value in row.items():
        values, users, status = (cell_value(row.get(f"{name}{part}")) for part in ("", "_users", "_status"))
        if name.endswith("_responses") and isinstance(values, list) and isinstance(users, list):
            for number, (value, user) in enumerate(zip(values, users, strict=False)):
                if not isinstance(status, list) or status[number : number + 1] == ["submitted"]:
                    yield name.removesuffix("_responses"), str(user), value


def _comparisons(
    where: str, row: Mapping[str, Any], given: Mapping[str, Any], shown: Mapping[str, str] = EMPTY, refused: str = ""
) -> Iterator[Comparison]:
    """Yield what a person says with controls: one comparison, or one of every two answers that a control ranks."""
    by, said = row["by"], {control: _words(value, is_of_a_side(control, RATINGS)) for control, value in given.items()}
    about = {name: "\n".join(map(str, said.pop(name))) for name in TEXT_AREAS if name in said}
    about["annotator"] = str((by.get("email") or by.get("id") if isinstance(by, dict) else by) or "")
    one = Comparison(where, {**row, **about}, said, shown, refused)
    ranked = {control: ranks for control, value in given.items() if (ranks := _ranks(value))}
    yield from _ranked(one, ranked) if ranked and not refused else [one]


def _words(value: Any, rates: bool) -> list[str | float]:
    """Return what a control's value says, taken out of Label Studio's forms: its words, and as floats its ratings."""
    value, found = cell_value(value), []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            name = next((name for name in STRUCTURES if name in item), "")
            rates, item = rates or name in ("rating", "number"), item.get(name, str(item))
        found += item if isinstance(item, list) else [item]
    plain = [str(one) for one in found if isinstance(one, (str, int, float)) and str(one).strip()]
    return [float(one) if rates and re.fullmatch(r"-?\d+(\.\d+)?", one) else one for one in plain]


def _ranked(one: Comparison, ranked: Mapping[str, Sequence[tuple[int, str]]]) -> Iterator[Comparison]:
    """Yield a comparison of every two answers of a ranking, the better one as answer_a."""
    texts = _texts(one.row)
    for control, ranks in ranked.items():
        if lacking := [name for _, name in ranks if fold_letters(name) not in texts]:
            yield replace(one, refused=f"its {control} ranks {lacking[0][:40]!r}, which is the name of no answer in it")
            continue
        for (m, better), (n, worse) in combinations(ranks, 2):
            pair = {"answer_a": texts[fold_letters(better)], "answer_b": texts[fold_letters(worse)]}
            place = one.where if len(ranks) == 2 else f"{one.where}, {better} and {worse}"
            said = {control: ["tie" if m == n else "a"]}
            yield replace(one, where=place, row={**one.row, **pair}, said=said, shown={control: ",".join(pair)})


def _ranks(value: Any) -> list[tuple[int, str]]:
    """Return rank and name of the answers that a Ranker without buckets or a question of Argilla ranks, best first."""
    value = cell_value(value)
    items = value if isinstance(value, list) else [value]
    if len(items) == 1 and isinstance(items[0], dict) and isinstance(items[0].get("ranker"), dict):
        columns = list(items[0]["ranker"].values())
        items = columns[0] if len(columns) == 1 and isinstance(columns[0], list) else []
        return [(place, str(name)) for place, name in enumerate(items, 1)] if len(items) > 1 else []
    ranked = [one for one in items if isinstance(one, dict) and isinstance(one.get("rank"), int) and "value" in one]
    found = [(one["rank"], str(one["value"])) for one in ranked]
    return sorted(found) if len(found) == len(items) > 1 else []


def _texts(row: Mapping[str, Any]) -> dict[str, str]:
    """Return the texts that a ranking may name: those of columns, and of the items of a List by their id."""
    found = {fold_letters(name): value for name, value in row.items() if isinstance(value, str)}
    for value in map(cell_value, row.values()):
        for item in value if isinstance(value, list) else []:
            text = next((item[n] for n in ITEM_TEXTS if item.get(n)), None) if isinstance(item, dict) else None
            if isinstance(text, str) and "id" in item:
                found[fold_letters(str(item["id"]))] = text
    return found
