"""Make annotated documents of a filled labels.csv: CUAD's layout, with exact offsets, for the stream of arrivals.

    done = label_documents("leases", ["scans"])
    done.file, done.text()

What the first run begins with is arrivals/labels.json. Once it has begun, its documents stay as they are, and documents
that are labelled later come in a file of their own, which the next iteration takes.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuadft.core import files, params, runs
from cuadft.core.errors import InputError
from cuadft.core.files import TableRow
from cuadft.core.text import fold, fold_name, of_cell, shorten
from cuadft.data.documents import Document
from cuadft.data.passages import locate_words
from cuadft.data.schema import Schema, read_schema
from cuadft.evaluation.answer_files import count_of
from cuadft.loop.start import ARRIVALS, FIRST_LABELS, LABELS, PRESET, read_all
from cuadft.rag.calibration import LEAST_QUESTIONS
from cuadft.retrieval.classifier import LEAST_CONTRACTS

NONE = "none"  # the answer where a document says nothing of the kind
SHOWN = 20  # rows of one error
_Span = tuple[int, int]
_Entry = dict[str, Any]  # a document in CUAD's layout


@dataclass(frozen=True)
class Labelled:
    """What was written: the file (None if nothing was new), its documents, and what to know about them.

    kept: titles of documents that were labelled before the run began or came with an earlier file.
    """

    file: Path | None
    documents: list[_Entry]
    kept: list[str]
    notes: list[str]

    def text(self) -> str:
        """Return what the command prints."""
        asked = [qa for each in self.documents for qa in each["paragraphs"][0]["qas"]]
        found = sum(bool(qa["answers"]) for qa in asked)
        counts = f"{count_of(len(self.documents), 'document')}, {count_of(len(asked), 'answer')}: {found} with quotes"
        lines = [f"Written: {self.file} ({counts}, {len(asked) - found} {NONE})"] if self.file else ["Nothing is new."]
        if self.kept:
            lines.append(f"Labelled before, kept as they are ({len(self.kept)}): {', '.join(self.kept[:SHOWN])}")
        return "\n".join([*lines, *self.notes])


def label_documents(folder: str | Path, paths: Sequence[str | Path]) -> Labelled:
    """Write the documents that labels.csv answers questions on, with their offsets, into the folder's arrivals.

    paths: the documents' files, or folders of them. Raises InputError that names every row that can't be placed, with
    the reason; nothing is written then.
    """
    folder = runs.resolve_path(folder)
    notebooks = runs.project_root() / "notebooks"
    chosen = params.load_preset(folder / PRESET, (), notebooks)
    values = {each.name: each.default for each in params.declared_parameters(notebooks).values()} | chosen
    schema, table = read_schema(values["schema"]), files.read_table(folder / LABELS)
    documents, broken = read_all(paths)
    made = annotate(table, documents, schema, broken)
    if not made:
        raise InputError(f"{folder / LABELS} holds no answer yet: fill in the column answer of some documents.")
    run, arrivals = runs.resolve_path(chosen.get("run_dir", f"runs/{Path(PRESET).stem}")), folder / ARRIVALS
    if not (run / "contracts.jsonl").is_file():
        files.write_json(arrivals / FIRST_LABELS, {"data": made})
        return Labelled(arrivals / FIRST_LABELS, made, [], _few(len(made), values))
    before = [entry["title"] for path in arrivals.glob("labels*.json") for entry in files.read_json(path)["data"]]
    new = [entry for entry in made if entry["title"] not in before]
    kept = [entry["title"] for entry in made if entry["title"] in before]
    path = next(path for n in itertools.count(2) if not (path := arrivals / f"labels-{n}.json").exists())
    if new:
        files.write_json(path, {"data": new})
    return Labelled(path if new else None, new, kept, ["The next iteration takes them."] if new else [])


def annotate(
    table: Sequence[TableRow], documents: Sequence[Document], schema: Schema, broken: Mapping[str, str] | None = None
) -> list[_Entry]:
    """Return the documents that rows answer questions on, each with these questions only, in CUAD's layout.

    A row has document, answer, and category or question. broken: files that could not be read, with the reason. Raises
    InputError that names the rows that can't be placed.
    """
    answers: dict[tuple[str, str], list[_Span]] = defaultdict(list)
    problems = []
    texts = {document.name: document.text for document in documents}
    for row in table:
        cells = {fold_name(name): of_cell(str(value or "")) for name, value in row.values.items()}
        if not cells.get("answer"):
            continue
        try:
            key = _asked(cells, documents, schema, broken or {})
            none = fold(cells["answer"]).rstrip(".") in (NONE, fold(schema.refusal).rstrip("."))
            found = [] if none else _placed(cells["answer"], key[0], texts[key[0]], answers.get(key, ()))
            if key in answers and none == bool(answers[key]):
                raise InputError(f"one row says {NONE}, another has a quote for the same question: keep one of both")
            answers[key] += found
        except InputError as error:
            problems.append(f"{row.where}: {error}")
    if table and not problems and "answer" not in map(fold_name, table[0].values):
        problems.append(f"there is no column answer but {', '.join(table[0].values)}")
    if problems:
        listed = "".join(f"\n  - {problem}" for problem in problems[:SHOWN])
        more = f"\n  and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise InputError(f"Correct these {count_of(len(problems), 'row')}, or empty their answers:{listed}{more}")
    return [entry for document in documents if (entry := _entry(document, answers, schema))["paragraphs"][0]["qas"]]


def _asked(
    cells: Mapping[str, str], documents: Sequence[Document], schema: Schema, broken: Mapping[str, str]
) -> tuple[str, str]:
    """Return the document and the category of a row."""
    name, category, question = (cells.get(key, "") for key in ("document", "category", "question"))
    named = [each for each in documents if fold(name) in (fold(each.name), fold(each.file))]
    if len(named) != 1:
        if told := next((why for file, why in broken.items() if fold(name) in (fold(file), fold(Path(file).stem))), ""):
            raise InputError(told)
        how = "several documents are" if named else "no document is"
        raise InputError(f"{how} called {name!r}: give the name of its file, without the ending")
    found = schema.match(category) if category else None
    by_question = [each.name for each in schema.categories.values() if fold(each.question) == fold(question)]
    if not found and (category or not by_question):
        near = schema.nearest(category or question)
        raise InputError(f"the schema has no category {category or question!r}{near}: correct it, or add it there")
    return named[0].name, found or by_question[0]


def _placed(answer: str, title: str, text: str, taken: Sequence[_Span]) -> list[_Span]:
    """Return where an answer stands: in one piece, else each of its lines; raises InputError if it does not."""
    for parts in ([answer], [line for line in answer.splitlines() if line.strip()]):
        places: list[_Span] = []
        for part in parts:
            places += _place(part, text, [*taken, *places])
        if len(places) == len(parts):
            return places
    hint = "copy them from the text, not from a picture of it; a spreadsheet may have changed a date or a number"
    raise InputError(f"the words {shorten(answer, 60)!r} do not stand in {title}: {hint}")


def _place(words: str, text: str, taken: Collection[_Span]) -> list[_Span]:
    """Return the first place of words that is not taken, the first of all if each is taken, [] if there is none."""
    first = found = tuple(locate_words(words, text))
    while found in taken:
        found = tuple(locate_words(words, text, found[0] + 1))
    return [found or first] if first else []


def _entry(document: Document, answers: Mapping[tuple[str, str], Sequence[_Span]], schema: Schema) -> _Entry:
    """Return a document in CUAD's layout, with the questions that were answered on it."""
    qas = []
    for each in schema.categories.values():
        if (spans := answers.get((document.name, each.name))) is None:
            continue
        quotes = [{"text": document.text[start:end], "answer_start": start} for start, end in sorted(set(spans))]
        about = {"id": f"{document.name}__{each.name}", "question": each.question}
        qas.append(about | {"answers": quotes, "is_impossible": not quotes})
    return {"title": document.name, "paragraphs": [{"context": document.text, "qas": qas}]}


def _few(n: int, values: Mapping[str, Any]) -> list[str]:
    """Return what so few documents can't give, in plain sentences."""
    dev, test = values["dev_contracts"], values["test_contracts"]
    held = f"{dev} to choose by (dev_contracts), {test} to measure (test_contracts)"
    if (rest := n - dev - test) < 1:
        return [f"Too few documents for a run: {held}, and none to learn from. Label {1 - rest} more."]
    notes = [f"Of the {n} documents a run holds out {held}; it learns from {rest}."]
    if min(dev, test) < 2:
        notes.append("Too few held-out documents for intervals: an interval needs two, a useful one ten.")
    if rest < LEAST_CONTRACTS:
        notes.append(
            f"Too few documents for probabilities: a question's answers are learned from {LEAST_CONTRACTS} documents "
            f"on that have one, and calibrated from {LEAST_QUESTIONS} answered questions on. Until then the language "
            "model decides alone."
        )
    return notes
