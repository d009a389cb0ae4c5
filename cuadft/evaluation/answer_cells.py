"""Read one cell of a table of answers as text, gold spans or a verdict, and write it so that it is read the same.

The value may come from CSV, where a list is spelled as text (see `core.cells`), or from JSON and parquet. For example,
these references are the same two gold spans:

    ["Ohio", "Texas"]      "['Ohio' 'Texas']"      {"text": ["Ohio", "Texas"], "answer_start": [3, 90]}

A *blank* reference says nothing: an empty or missing cell, "nan", or signs alone such as a dash. It is read as no such
clause, as an empty list is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from cuadft.core.cells import spelled_value
from cuadft.core.errors import InputError
from cuadft.evaluation.text_scores import NO_CLAUSE, is_blank, is_refusal, normalise_answer

MISSING = ("nan", "null", "<na>")  # how tables write a missing value
VERDICT_NUMBERS = {"true": 1.0, "yes": 1.0, "correct": 1.0, "partly": 0.5, "false": 0.0, "no": 0.0, "incorrect": 0.0}


def text_of(value: object, where: str, role: str) -> str | None:
    """Return a value as text, None for a missing one and "" for an empty one; a list of texts becomes lines.

    An answer that spells a list of texts is that list. Raises InputError for another list or mapping.
    """
    if role == "answer" and _is_texts(spelled := spelled_value(value)):
        value = spelled
    if _is_texts(value):
        value = "\n".join(value)
    if isinstance(value, list | dict):
        raise InputError(f"{where}: the {role} is {str(value)[:60]!r}: give a text (or a list of texts).")
    if value is None or str(value).strip().casefold() in MISSING:
        return None
    # CSV files hold no NUL and no half of a surrogate pair
    return str(value).replace("\0", " ").encode("utf-8", "replace").decode() if str(value).strip() else ""


def gold_spans(value: object, where: str) -> list[dict[str, Any]]:
    """Return the gold spans of a reference: texts, with "start" where the file tells it; equal spans count once.

    Blank items are left out. Without any text, or with refusals alone, there is no such clause and no span. Raises
    InputError for a cell that begins as a list and can't be read, for items that are no text, and for a reference that
    names a clause and also says that there is none.
    """
    spans = {}
    for text, start in _items(spelled_value(value, strict=f"{where}: the reference"), where):
        text = text_of(text, where, "reference")
        if text and not is_blank(text):
            place = {"start": start} if isinstance(start, int) and not isinstance(start, bool) else {}
            spans.setdefault((" ".join(text.split()), *place.values()), {"text": text} | place)
    refusals = [bool(normalise_answer(span["text"])) and is_refusal(span["text"]) for span in spans.values()]
    if any(refusals) and not all(refusals):
        raise InputError(f"{where}: the reference both names a clause and says that there is none: correct it.")
    return [] if any(refusals) else list(spans.values())


def says_nothing(value: object) -> bool:
    """Say whether a reference is blank; an empty list says that there is no clause."""
    told = spelled_value(value)
    return isinstance(told, str | float | None) and (text_of(told, "", "") is None or is_blank(str(told)))


def verdict_number(value: object, where: str, column: str) -> float:
    """Return a verdict as a number from 0 to 1, NaN for a blank one; raises InputError for anything else."""
    text = (text_of(value, where, column) or "").strip().casefold()
    number = VERDICT_NUMBERS.get(text, pd.to_numeric(text, errors="coerce"))
    if text and not 0 <= number <= 1:
        advice = "give a number from 0 to 1, true/false or correct/partly/incorrect."
        raise InputError(f"{where}: verdict {str(value)[:40]!r} in column {column!r}: {advice}")
    return float(number)


def answer_cell(answer: str | None) -> str | None:
    """Return the cell from which `text_of` reads this answer again."""
    return answer if answer is None or text_of(answer, "", "answer") == answer else json.dumps([answer])


def reference_cell(row: Mapping[str, Any]) -> str:
    """Return the cell from which `gold_spans` reads a row's gold spans again, with their places if passages need them.

    One span is its text, several are a JSON list, and none is the refusal sentence.
    """
    spans, texts = row["answers"], [span["text"] for span in row["answers"]]
    if spans and "passages" in row:
        return json.dumps(spans, ensure_ascii=False)
    if len(texts) == 1 and not texts[0].lstrip().startswith(("[", "{", "(", "array")):
        return texts[0]
    return json.dumps(texts, ensure_ascii=False) if texts else NO_CLAUSE


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _items(value: object, where: str) -> Iterator[tuple[object, object]]:
    """Yield the text and the start (None if not told) of each span, as SQuAD, Hugging Face and others hold them."""
    if isinstance(value, list):
        for item in value:
            yield from _items(item, where)
    elif isinstance(value, dict) and value:
        if "text" not in value:
            raise InputError(f"{where}: the reference {str(value)[:60]!r} holds no 'text': give the span as its text.")
        texts, starts = value["text"], value.get("start", value.get("answer_start"))
        texts = texts if isinstance(texts, list) else [texts]
        whole = isinstance(starts, list) and len(starts) == len(texts)
        yield from zip(texts, starts if whole else [starts] * len(texts))
    elif value != {}:
        yield value, None
