"""Start a folder of one's own: the questions, the documents and the preset of a first run.

    start_folder("library")                                                 # an invented example, to run as it is
    start_folder("leases", documents="scans", questions="questions.txt")    # documents and questions of one's own

The example holds three annotated documents. One's own documents need answers first: `labels.csv` is a table to fill in,
and `cuadft.loop.labels` makes annotated documents of it.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Callable, Iterable, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import yaml

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.text import as_cell, fold_name
from cuadft.data.documents import PLAIN, Document, files_of, read_documents
from cuadft.data.schema import Schema, parse_schema, read_schema
from cuadft.evaluation.answer_files import count_of

SCHEMA, PRESET, DOCUMENTS, LABELS, ARRIVALS = "schema.yaml", "preset.yaml", "documents.json", "labels.csv", "arrivals"
FIRST_LABELS = "labels.json"  # in the folder of arrivals: what the first run begins with
COLUMNS = ("document", "category", "question", "answer")
LONGEST_NAME = 60  # characters of a category that is named after its question
_HEADER = """\
# The questions that are asked of every document. A category may also have a description, and phrasings: other ways to
# ask it, from which training questions are made, such as [When {is|falls} the rent due?].
document_name: document # what a document is called, in prompts and on pages: lease, policy, thesis ...
clause_name: statement # what a question asks for: the answer where there is none is "There is no such statement."
"""


def start_folder(
    folder: str | Path,
    *,
    documents: str | Path = "",
    questions: str | Path = "",
    log: Callable[[str], object] = print,
) -> list[Path]:
    """Write the files of a first run into a folder, and return their paths.

    documents, questions: a folder of PDF, DOCX or TXT files, and a text (a question a line), table or schema; without
    both an invented example is written. Files that can't be read are logged. Raises InputError, before anything is
    written, if a file or run of that name exists, if only one of both is given, or if either can't be read.
    """
    folder = Path(folder).expanduser().absolute()
    if bool(documents) != bool(questions):
        raise InputError("Give --documents and --questions together, or neither for an invented example.")
    made = _own(folder, Path(documents), Path(questions), log) if documents else _example(folder)
    if there := [path for path in (folder, *map(folder.joinpath, made)) if path.exists() and path != folder]:
        raise InputError(f"{there[0]} exists already, and nothing was written: choose another folder, or move it away.")
    run = runs.project_root() / "runs" / folder.name
    if run.exists():
        raise InputError(f"There is a run {run} already, and nothing was written: choose another name than {folder}.")
    for name, content in made.items():
        files.write_bytes(folder / name, content)
    (folder / ARRIVALS).mkdir(exist_ok=True)
    return [folder / name for name in made]


def _example(folder: Path) -> dict[str, bytes]:
    """Return the invented example's files by name."""
    made = {name: _packaged(name).encode() for name in (SCHEMA, DOCUMENTS)}
    return made | {PRESET: _preset(folder, f"./{DOCUMENTS}", "# contracts_folder: ./more")}


def _own(folder: Path, documents: Path, questions: Path, log: Callable[[str], object]) -> dict[str, bytes]:
    """Return the files for a user's own documents and questions by name."""
    text = schema_text(questions)
    found, broken = read_all([documents], log)
    if twice := sorted({a.name for n, a in enumerate(found) if a.name in {b.name for b in found[:n]}}):
        raise InputError(f"Several files are called {twice[0]}: give each document a name of its own.")
    readable = any(path.suffix.lower() in PLAIN for path in documents.glob("*")) and not broken
    plain = (
        f"{'' if readable else '# '}contracts_folder: {json.dumps(_seen_from(documents, folder), ensure_ascii=False)}"
    )
    return {
        SCHEMA: text.encode(),
        LABELS: labels_table(found, parse_schema(text, str(questions), folder.name)),
        PRESET: _preset(folder, f"./{ARRIVALS}/{FIRST_LABELS}", plain),
    }


def _packaged(name: str) -> str:
    return resources.files("cuadft.loop").joinpath("example", name).read_text("utf-8")


def _preset(folder: Path, cuad: str, plain: str) -> bytes:
    run_dir = json.dumps(f"runs/{folder.name}", ensure_ascii=False)
    return Template(_packaged(PRESET)).substitute(run_dir=run_dir, cuad=cuad, plain=plain).encode()


def _seen_from(path: Path, folder: Path) -> str:
    """Return a path as a preset in `folder` spells it."""
    seen = Path(os.path.relpath(path.expanduser().absolute(), folder)).as_posix()
    return seen if seen.startswith("../") else f"./{seen}"


def read_all(
    paths: Sequence[str | Path], log: Callable[[str], object] = print
) -> tuple[list[Document], dict[str, str]]:
    """Return the documents of files and folders, and what is wrong with each file that can't be read, which is logged.

    Raises InputError for a path that does not exist, and if nothing can be read.
    """
    found, broken = [], {}
    for path in files_of(paths)[0]:
        try:
            found += read_documents(path)
        except InputError as error:
            broken[path.name] = str(error)
            log(f"Not read, the others go on: {error}")
    if not found:
        raise InputError(f"No document could be read in {', '.join(map(str, paths))}: give PDF, DOCX or TXT files.")
    return found, broken


def labels_table(documents: Iterable[Document], schema: Schema) -> bytes:
    """Return labels.csv: a row for each document and question, its answer empty; with the mark that Excel needs."""
    made = io.StringIO(newline="")
    writer = csv.writer(made, lineterminator="\r\n")
    writer.writerow(COLUMNS)
    for document in documents:
        for each in schema.categories.values():
            writer.writerow([as_cell(document.name), as_cell(each.name), as_cell(each.question), ""])
    return made.getvalue().encode("utf-8-sig")


def schema_text(questions: Path) -> str:
    """Return the schema of a file of questions as YAML: a schema as it stands, else a table or a question a line.

    A question that has no category is named after its own words; a line may name it, as "Rent: What is the rent?".
    Raises InputError for a file that can't be read or makes no schema.
    """
    path = runs.resolve_path(questions)
    suffix = path.suffix.lower()
    if suffix in (".yaml", ".yml", ".json"):
        read_schema(path)
        return path.read_text("utf-8-sig")
    if suffix == ".txt" and path.is_file():
        entries = [_named(" ".join(line.split())) for line in path.read_text("utf-8-sig", "replace").splitlines()]
    else:
        entries = _of_table(path)
    body = yaml.safe_dump({"categories": list(filter(None, entries))}, sort_keys=False, allow_unicode=True, width=120)
    parse_schema(_HEADER + body, str(path), path.stem)
    return _HEADER + body


def _of_table(path: Path) -> list[dict[str, Any]]:
    table = [{fold_name(key): value for key, value in row.values.items()} for row in files.read_table(path)]
    if "category" not in table[0]:
        return [_named(" ".join(str(row.get("question") or "").split())) for row in table]
    kept = ("question", "description", "phrasings")
    found = read_schema(path).categories.values()
    return [{"category": c.name} | {key: getattr(c, key) for key in kept if getattr(c, key)} for c in found]


def _named(line: str) -> dict[str, Any]:
    """Return the category of a line: the name before a colon, else the question's first words."""
    name, colon, question = line.partition(": ")
    if not (colon and len(name) <= LONGEST_NAME and question.strip()):
        name, question = line.rstrip(" ?.!:"), line
    while len(name) > LONGEST_NAME and " " in name:
        name = name.rpartition(" ")[0]
    return {"category": name.replace("__", "_"), "question": question} if line else {}


def started_text(written: Sequence[Path]) -> str:
    """Return what the command prints: what was written, and what to do next."""
    folder, names = written[0].parent, [path.name for path in written]
    lines = [f"Written to {folder}: {', '.join(names)}"]
    if LABELS in names:
        rows = files.read_table(folder / LABELS)
        count = count_of(len({row.values["document"] for row in rows}), "document")
        lines.append(
            f"{count}. Fill in the answers of some of them in {LABELS}: the document's own words, or none where it "
            "says nothing of the kind. More quotes stand on lines or rows of their own; an empty answer is not asked.\n"
            f"Next: cuadft label {folder} DOCUMENTS"
        )
    else:
        lines.append(f"Next: cuadft run {folder / PRESET}")
    return "\n".join(lines)
