"""What people said with Label Studio, or in a table of two answers and a winner, as comparisons.

    list(annotation_comparisons("row 1", task))   # [Comparison("row 1, annotation 1", ...), ...]

Of Label Studio the exports JSON (tasks with annotations, see https://labelstud.io/guide/task_format), JSON_MIN and CSV
(a task and one annotation a row) are read. A control is a tag Pairwise (https://labelstud.io/tags/pairwise), Choices,
Rating or Ranker (https://labelstud.io/tags/ranker), whose toName names the columns of the answers; else these are
answer_a and answer_b. A TextArea named "comment" or "edited" holds text. A ranking is a comparison of every two of its
answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from pydantic import BaseModel, ValidationError

from cuadft.core.text import fold_letters
from cuadft.feedback.comparisons import ANSWERS, RATINGS, Comparison, is_of_a_side
from cuadft.feedback.conversations import cell_value

TEXT_AREAS = ("comment", "edited")
ITEM_TEXTS = ("body", "text", "html", "title")  # of an item of a List
STRUCTURES = ("selected", "choices", "rating", "number", "value", "text")  # of a tag's value
VERDICT_COLUMNS = frozenset("verdict winner preference preferred choice vote better selected judgement label".split())
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
        about = {"time": annotation.created_at, "seconds": annotation.lead_time, "annotator": annotation.completed_by}
        refused = "skipped by the annotator" if annotation.was_cancelled else ""
        yield from _read(Comparison(place, {**task, **about}, said, shown, refused))


def flat_comparisons(where: str, row: Mapping[str, Any]) -> Iterator[Comparison]:
    """Yield the comparison of a row that holds a pair and what one person said, such as Label Studio's CSV.

    Controls are the columns of `VERDICT_COLUMNS`, else ratings of both answers; in Label Studio's files, and where a
    file has neither, all columns that say nothing about the pair, the person or the time.
    """
    about = {"time": row.get("time") or row.get("created_at"), "seconds": row.get("seconds") or row.get("lead_time")}
    about["annotator"] = next((cell_value(row[name]) for name in WHO if row.get(name)), None)
    said = {name: value for name, value in row.items() if not (name in NO_CONTROLS or is_of_a_side(name, ANSWERS))}
    if "annotation_id" not in row:
        named = {name: value for name, value in said.items() if name in VERDICT_COLUMNS}
        said = named or {name: value for name, value in said.items() if is_of_a_side(name, RATINGS)} or said
    texts = {name: row[name] for name in TEXT_AREAS if name in row}
    yield from _read(Comparison(where, {**row, **about}, said | texts))


def _read(one: Comparison) -> Iterator[Comparison]:
    """Yield a comparison whose controls hold values of the tool, with their words; of a ranking one for every two."""
    by, said = one.row.get("annotator"), {name: _words(value, name) for name, value in one.said.items()}
    about = {name: "\n".join(map(str, said.pop(name))) for name in TEXT_AREAS if name in said}
    about["annotator"] = str((by.get("email") or by.get("id") if isinstance(by, dict) else by) or "")
    plain = replace(one, row={**one.row, **about}, said=said)
    ranked = {control: ranks for control, value in one.said.items() if (ranks := _ranks(value))}
    yield from _ranked(plain, ranked) if ranked and not one.refused else [plain]


def _words(value: Any, control: str) -> list[str | float]:
    """Return what a control's value says, taken out of Label Studio's forms: its words, and as floats its ratings."""
    value, rates, found = cell_value(value), is_of_a_side(control, RATINGS), []
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict):
            name = next((name for name in STRUCTURES if name in item), "")
            rates, item = rates or name in ("rating", "number"), item.get(name, str(item))
        found += item if isinstance(item, list) else [item]
    plain = [str(one) for one in found if isinstance(one, (str, int, float)) and str(one).strip()]
    return [float(one) if rates and re.fullmatch(r"-?\d+(\.\d+)?", one) else one for one in plain]


def _ranks(value: Any) -> list[str]:
    """Return the names of the answers that a Ranker without buckets puts in order, [] for another value."""
    value = cell_value(value)
    item = value[0] if isinstance(value, list) and len(value) == 1 else value
    columns = list(item["ranker"].values()) if isinstance(item, dict) and isinstance(item.get("ranker"), dict) else []
    names = columns[0] if len(columns) == 1 and isinstance(columns[0], list) else []
    return list(map(str, names)) if len(names) > 1 else []


def _ranked(one: Comparison, ranked: Mapping[str, Sequence[str]]) -> Iterator[Comparison]:
    """Yield a comparison of every two answers of a ranking, the better one as answer_a.

    A ranking names columns, or the items of a List by their id.
    """
    texts = {fold_letters(name): value for name, value in one.row.items() if isinstance(value, str)}
    lists = [value for value in map(cell_value, one.row.values()) if isinstance(value, list)]
    for item in [item for items in lists for item in items if isinstance(item, dict) and "id" in item]:
        texts[fold_letters(str(item["id"]))] = next((str(item[name]) for name in ITEM_TEXTS if item.get(name)), "")
    for control, ranks in ranked.items():
        if lacking := [name for name in ranks if not texts.get(fold_letters(name))]:
            yield replace(one, refused=f"its {control} ranks {lacking[0][:40]!r}, which is the name of no answer in it")
            continue
        for better, worse in combinations(ranks, 2):
            pair = {"answer_a": texts[fold_letters(better)], "answer_b": texts[fold_letters(worse)]}
            where = one.where if len(ranks) == 2 else f"{one.where}, {better} and {worse}"
            yield replace(one, where=where, row={**one.row, **pair}, said={control: ["a"]}, shown={})
