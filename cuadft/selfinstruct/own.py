"""Read a user's own questions from a file and place them in the training contracts, as candidates for the filters.

The file (CSV, JSON lines or JSON) has the columns question, contract, category and answer. A question needs an answer
or a category:

- The words of an answer are looked for in the named contract, or in all, where exactly one must hold them.
- Without an answer, the annotated clauses of the category are the answers, or that there is none: in the named
  contract, or in a few drawn ones.

A question that can't be placed becomes a candidate whose `fault` says why, and the filter rejects it with this reason.
For example:

    records = read_own_questions("own_questions.csv")
    candidates = place_own_questions(records, train_rows, passages_by_contract, schema, held_out=dev_titles, seed=7)
    accepted, rejected = filter_questions(candidates, train_rows, embedder=embedder)
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.files import TableRow
from cuadft.core.params import did_you_mean
from cuadft.core.text import fold_letters
from cuadft.data.contracts import Row
from cuadft.data.passages import Passage, join_passages, locate_words
from cuadft.data.schema import NO_CATEGORY, Schema
from cuadft.selfinstruct import sources
from cuadft.selfinstruct.sources import Candidate

QUESTION_COLUMNS = ("question", "contract", "category", "answer")
PER_QUESTION = 3  # contracts of which a question is asked that names a category and no contract


class _NotPlaced(Exception):
    """The question can't be placed in a training contract; the text says why."""


def read_own_questions(path: str | Path) -> list[TableRow]:
    """Return the rows of a CSV, JSON-lines or JSON file, each with the text of all QUESTION_COLUMNS ("" if missing).

    Case and punctuation of the columns' names don't matter. Other columns are left out with a warning. Raises
    InputError if the file can't be read or has no column 'question'.
    """
    records, others, wanted = [], set(), ", ".join(QUESTION_COLUMNS)
    for record in files.read_table(path):
        values = {fold_letters(name): " ".join(str(value or "").split()) for name, value in record.values.items()}
        records.append(TableRow(record.where, {column: values.get(column, "") for column in QUESTION_COLUMNS}))
        others |= values.keys() - set(QUESTION_COLUMNS)
    if not any(record.values["question"] for record in records):
        raise InputError(f"{path} has no column 'question' with text in it: name its columns {wanted}.")
    if others:
        warnings.warn(f"{path}: columns left out: {', '.join(sorted(others))} (those read: {wanted})", stacklevel=2)
    return records


def place_own_questions(
    records: Sequence[TableRow],
    train_rows: Sequence[Row],
    passages: Mapping[str, Sequence[Passage]],
    schema: Schema,
    *,
    held_out: Collection[str] = (),
    seed: int = 7,
) -> list[Candidate]:
    """Return one candidate a question, several for a question that is asked of several contracts.

    records: of `read_own_questions`; rows and passages: of train contracts; held_out: titles of held-out contracts;
    seed: of the draw of contracts. Raises InputError if a row or passage comes from a held-out contract.
    """
    sources.refuse_held_out([*passages, *(row["contract"] for row in train_rows)], held_out)
    made = []
    for number, record in enumerate(records, 1):
        question, contract, category, answer = (record.values[name] for name in QUESTION_COLUMNS)
        fault = {}
        try:
            contract = _find_contract(contract, passages, held_out)
            if category and not (found := schema.match(category)):
                raise _NotPlaced(f"{category!r} is no category of the schema{schema.nearest(category)}")
            category = found if category else ""
            if answer:
                rows = [_row_with_answer(answer, contract, category, train_rows, passages, schema)]
            else:
                rows = _annotated_rows(contract, category, train_rows, random.Random(f"{seed} {question}"))
        except _NotPlaced as error:
            rows, fault = [_row(contract, category, schema)], {"fault": str(error)}
        asked = {"question": question, "raw": question, "kind": "own", "style": "any", "error": None, "expect": ""}
        for n, row in enumerate(rows, 1):
            own = sources.seed_from_row(row, passages.get(row["contract"], ()))
            name = f"{row['contract']}__own {number}"
            made.append(own | asked | fault | {"id": f"{name}~o{n}", "seed": name, "where": record.where})
    return made


def _annotated_rows(contract: str, category: str, rows: Sequence[Row], rng: random.Random) -> list[Row]:
    """Draw annotated rows of a category: answerable ones and one without the clause, more of either if it must be."""
    if not category:
        raise _NotPlaced("it has neither a category nor an answer: give one of them")
    annotated = [row for row in rows if row["source"] not in sources.MADE_SOURCES and row["category"] == category]
    about = [row for row in annotated if contract in ("", row["contract"])]
    if not about:
        raise _NotPlaced(f"no training contract is annotated for {category}: give the answer")
    shuffled = rng.sample(about, len(about))
    answered, lacking = ([row for row in shuffled if bool(row["answers"]) == has] for has in (True, False))
    lacking = lacking[: max(1, PER_QUESTION - len(answered))]
    return [*answered[: PER_QUESTION - len(lacking)], *lacking]


def _find_contract(title: str, passages: Collection[str], held_out: Collection[str]) -> str:
    """Return the title of the training contract that a row names ("" stays ""); raises _NotPlaced for another."""
    titles = {"": ""} | {fold_letters(known): known for known in passages}
    if fold_letters(title) in titles:
        return titles[fold_letters(title)]
    if fold_letters(title) in map(fold_letters, held_out):
        raise _NotPlaced(f"contract {title!r} is held out (dev, test or slice), not to be trained on")
    raise _NotPlaced(f"none of the {len(passages)} training contracts is {title!r}{did_you_mean(title, passages)}")


def _row_with_answer(
    answer: str,
    contract: str,
    category: str,
    rows: Sequence[Row],
    passages: Mapping[str, Sequence[Passage]],
    schema: Schema,
) -> Row:
    """Return a row whose gold span is the user's answer; one contract must hold its words."""
    found = []
    for title in [contract] if contract else passages:
        text, start = join_passages(passages[title])
        if place := locate_words(answer, text):
            found.append((title, {"text": text[slice(*place)], "start": start + place[0]}))
    if len(found) != 1:
        where = contract or f"the {len(passages)} training contracts"
        told = f"stands in {len(found)} training contracts: name one" if found else f"does not stand in {where}"
        raise _NotPlaced(f"the answer {answer[:100]!r} {told}")
    title, span = found[0]
    kind = next((row["contract_type"] for row in rows if row["contract"] == title), "")
    return _row(title, category, schema) | {"contract_type": kind, "answers": [span]}


def _row(contract: str, category: str, schema: Schema) -> Row:
    asked = schema.categories[category].question if category in schema.categories else ""
    category = category or NO_CATEGORY
    return Row(id="", contract=contract, contract_type="", category=category, question=asked, answers=[])
