"""Contracts and the questions asked of them: read CUAD, the sample, or a folder of PDF and text files.

For example:

    contracts = read_contracts(locate_contracts("sample", Path("data")))
    contracts[0].title, contracts[0].rows[0]["question"], contracts[0].rows[0]["answers"]

A file of contracts has the SQuAD 2.0 layout of CUAD_v1.json: contracts, questions, and answers with their character
offsets. Everything is checked while it is read. One error shows the first five faults of a file and counts the rest, so
that a user corrects a file in few rounds.
"""

from __future__ import annotations

import importlib.resources
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, TypedDict

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from cuadft.core import runs
from cuadft.core.errors import InputError
from cuadft.core.text import fold, fold_letters
from cuadft.data import cuad, download, layouts
from cuadft.data.category_names import SPAN_NUMBER, categories_of
from cuadft.data.cuad import JSON_NAME
from cuadft.data.layouts import short
from cuadft.data.schema import Schema, packaged_schema

SHOWN_PROBLEMS = 5  # of a file, in one error

_ADVICE = {  # by kind of fault, where pydantic's own words do not say what to do
    "string_pattern_mismatch": "must not be blank",
    "too_long": "must be one; join several, and shift each 'answer_start' by the length of the text before it",
}
# CUAD's own wording of a question.
_OFFICIAL = re.compile(r'Highlight the parts \(if any\) of this contract related to ".+?".*?Details:(.*)', re.DOTALL)


class Row(TypedDict):
    """One question on one contract; `answers` are its gold spans, {"text", "start"}, exact in the contract's text."""

    id: str
    contract: str
    contract_type: str
    category: str
    question: str
    answers: list[dict[str, Any]]
    is_impossible: bool
    source: str


@dataclass(frozen=True)
class Contract:
    """One contract: its text, its type ("" if unknown), who filed it, and the questions asked about it."""

    title: str
    text: str
    contract_type: str = ""
    filer: str = ""
    rows: tuple[Row, ...] = ()

    def record(self, *, group: int, split: str) -> dict[str, Any]:
        """Return the line of this contract, without its rows, for a run's contracts.jsonl."""
        own = {"title": self.title, "contract_type": self.contract_type, "filer": self.filer}
        return own | {"group": group, "split": split, "text": self.text}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Contract:
        """Return the contract of a line of contracts.jsonl or arrived.jsonl; raises InputError if it lacks a key."""
        try:
            own = record["title"], record["text"], record["contract_type"], record["filer"]
        except KeyError as error:
            raise InputError(f"A line of the run's contracts has no {error}; make the run's data again") from error
        return cls(*own, tuple(record.get("rows", ())))


def locate_contracts(cuad: str, data_dir: Path) -> Path:
    """Return the file to read for `cuad`: "sample", "auto" (in data_dir, else downloaded to it) or a path.

    Raises InputError if the path does not exist, or if CUAD is not in data_dir and cannot be downloaded.
    """
    if cuad == "sample":
        return sample_path()
    if cuad == "auto":
        return cuad_in_folder(data_dir) or download.cuad_from_zenodo(data_dir)
    path = runs.resolve_path(cuad) if cuad else Path()
    found = cuad_in_folder(path) or path
    if not cuad or not (found.is_file() or _files_in(found)):
        raise InputError(
            f"Invalid cuad {cuad!r}: no contracts there; give 'sample', 'auto', a file in the layout of {JSON_NAME}, a "
            f"file of rows ({', '.join(layouts.SUFFIXES)}), or a zip or folder with one of them in it"
        )
    return found


def sample_path() -> Path:
    """Return the path of the packaged sample contracts."""
    return Path(str(importlib.resources.files("cuadft") / "sample" / "contracts.json"))


def cuad_in_folder(folder: Path) -> Path | None:
    """Return the file of CUAD in a folder, None if the folder holds no such file."""
    names = (download.CUAD_FILE, f"CUAD_v1/{JSON_NAME}", JSON_NAME, "CUADv1.json", "data/CUADv1.json", "data.zip")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _files_in(folder: Path) -> list[Path]:
    """Return the files of contracts in a folder and the folders in it; none if that is no folder."""
    found = [path for glob in ("*", "*/*") for path in folder.glob(glob) if path.is_file()]
    return [folder / name for name in layouts.contract_files(p.relative_to(folder).as_posix() for p in found)]


def read_contracts(path: str | Path, schema: Schema | None = None, unknown: str = "keep") -> list[Contract]:
    """Read the contracts of a CUAD zip, of CUAD_v1.json, or of any file, zip or folder in one of CUAD's layouts.

    schema: whose categories the questions are of (None: CUAD's). unknown: "keep" other categories or "leave out" their
    questions, each with a warning, or "refuse" them.

    A contract that stands in several files counts once; questions in the same words on one category of a contract are
    one question with the spans of all. Raises InputError that names the first five faults: a broken archive or JSON,
    spans that do not stand at their offsets, repeated ids, one title for two texts, missing fields
    and fields of a wrong type.
    """
    path = Path(path)
    files = _files_in(path) or [path]
    try:
        texts = {str(file): download.read_zip_file(file) for file in files}
    except OSError as error:
        raise InputError(f"Cannot read {path} ({error.strerror}); give a zip or JSON file of contracts") from error
    raw = texts.get(str(path), b"")
    if raw.startswith(b"PK") or path.suffix.lower() == ".zip":
        texts, types = cuad.open_cuad(raw, str(path))
    else:
        beside = files[0].with_name(cuad.TYPES_NAME)
        types = cuad.type_table(beside.read_bytes(), str(beside)) if beside.is_file() else {}
    name = next(iter(texts)) if len(texts) == 1 else str(path)
    return _in_files(texts, name, types, schema or packaged_schema(), unknown)


def titled(title: str, text: str, schema: Schema, kind: str = "", rows: Sequence[Row] = ()) -> Contract:
    """Return a contract with what its title tells by the rules of a schema: who filed it, and its type if unknown."""
    if schema.titles == "edgar":
        kind = kind or cuad.type_in_title(title)
    filer = cuad.filer(title) if schema.titles == "edgar" else title
    return Contract(title, text, kind, filer, tuple(rows))


_Text = Annotated[str, Field(pattern=r"\S")]


class _Span(BaseModel):
    text: _Text
    answer_start: int


class _Question(BaseModel):
    id: _Text
    question: _Text
    answers: Annotated[list[_Span], BeforeValidator(layouts.spans_of)]
    is_impossible: bool | None = None


class _Paragraph(BaseModel):
    context: _Text
    qas: list[_Question]


class _Document(BaseModel):
    title: _Text
    paragraphs: Annotated[list[_Paragraph], Field(min_length=1, max_length=1)]


class _File(BaseModel):
    data: list[_Document]


def parse_contracts(raw: bytes, name: str, schema: Schema | None = None) -> list[Contract]:
    """Return the contracts in the content of a zip, or of a file in one of CUAD's layouts; see `read_contracts`.

    `name` stands for the file in messages.
    """
    texts, types = cuad.open_cuad(raw, name) if raw.startswith(b"PK") else ({name: raw}, {})
    return _in_files(texts, name, types, schema or packaged_schema(), "keep")


def _in_files(
    texts: Mapping[str, bytes], name: str, types: Mapping[str, str], schema: Schema, unknown: str
) -> list[Contract]:
    """Return the contracts of several files; types: contract types by folded title, others are read from the title."""
    documents = [one for own, raw in texts.items() for one in _checked_documents(raw, own)]
    asked = [(qa.id, qa.question) for one in documents for qa in one.paragraphs[0].qas]
    categories, problems = categories_of(asked, name, schema, unknown)
    return _made_contracts(documents, name, types, schema, categories, problems)


def _checked_documents(raw: bytes, name: str) -> list[_Document]:
    """Return the documents of a file; raises InputError that names the first five faults of its layout."""
    found, places = layouts.documents_in(raw, name)
    try:
        return _File.model_validate({"data": found}, strict=True).data
    except ValidationError as error:
        raise_problems(name, [_layout_fault(each, found, places) for each in error.errors(include_url=False)])
        raise


def _made_contracts(
    documents: Sequence[_Document],
    name: str,
    types: Mapping[str, str],
    schema: Schema,
    categories: Mapping[str, str],
    problems: list[str],
) -> list[Contract]:
    """Return one contract for all documents of a title; categories: of each question, by its id."""
    by_title: dict[str, list[_Document]] = defaultdict(list)
    for document in documents:
        by_title[document.title.strip()].append(document)
    for title, same in by_title.items():
        if len({document.paragraphs[0].context for document in same}) > 1:
            problems.append(f"title {short(title, 160)} stands more than once, with different texts: rename one")
    made = [_checked_contract(same, types, schema, categories, problems) for same in by_title.values()]
    problems += repeated([row["id"] for contract in made for row in contract.rows], "id")
    raise_problems(name, problems)
    return made


def raise_problems(name: str, problems: list[str]) -> None:
    """Raise one InputError that lists the first five problems of a file and counts the rest; no problem, no error."""
    if problems:
        more = f"\n  and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        listed = "".join(f"\n  - {problem}" for problem in problems[:SHOWN_PROBLEMS])
        raise InputError(f"{name}: correct these {len(problems)} problems and run again:{listed}{more}")


def _layout_fault(error: Any, documents: list[Any], places: Mapping[tuple[int, int], str]) -> str:
    """Return where a file differs from the layout, what is wanted there and what was found."""
    number, *inner = error["loc"][1:]
    row = places.get((number, inner[3] if len(inner) > 3 else 0))
    title = documents[number].get("title", "") if isinstance(documents[number], dict) else ""
    place = ".".join(map(str, [row, *(inner[4:] or inner[-1:])] if row else ["data", number, *inner]))
    wanted = _ADVICE.get(error["type"], error["msg"])
    return f"contract {short(title, 160)}, {place}: {wanted}; found {short(error['input'])}"


def _checked_contract(
    same: Sequence[_Document],
    types: Mapping[str, str],
    schema: Schema,
    categories: Mapping[str, str],
    problems: list[str],
) -> Contract:
    """Return the contract of documents of one title; add what is wrong with its answers to `problems`.

    Questions in the same words on one category, such as one for each span, are one row with the spans of all.
    """
    title, text = same[0].title, same[0].paragraphs[0].context
    contract = titled(title, text, schema, types.get(fold_letters(title), ""))
    rows: dict[tuple[str, str], Row] = {}
    for qa in (qa for document in same for qa in document.paragraphs[0].qas):
        if (category := categories.get(qa.id)) is None:
            continue
        problems += [
            f"contract {short(title, 160)}, id {short(qa.id, 160)}{fault}" for fault in _answer_faults(qa, text)
        ]
        official = _OFFICIAL.fullmatch(qa.question.strip())
        question = f"{category}: {' '.join(official[1].split())}" if official else qa.question
        known = {"id": _question_id(qa.id, title), "contract": title, "contract_type": contract.contract_type}
        known |= {"category": category, "question": question}
        new = Row(**known, answers=[], is_impossible=True, source=schema.source)
        row = rows.setdefault((category, fold(question)), new)
        spans = [{"text": span.text, "start": span.answer_start} for span in qa.answers]
        row["answers"] += [span for n, span in enumerate(spans) if span not in row["answers"] + spans[:n]]
        row["is_impossible"] = not row["answers"]
    return replace(contract, rows=tuple(rows.values()))


def _question_id(name: str, title: str) -> str:
    """Return a question's id without the number of the span that CUAD puts behind it: "<title>__Parties_0"."""
    base = SPAN_NUMBER.sub("", name)
    return base if base.startswith(f"{title}__") else name


def _answer_faults(qa: _Question, text: str) -> Iterator[str]:
    """Yield what is wrong with the answers of a question on a contract's text."""
    if qa.is_impossible is not None and qa.is_impossible == bool(qa.answers):
        yield f": 'is_impossible' is {qa.is_impossible} but there are {len(qa.answers)} answers; correct either"
    for n, span in enumerate(qa.answers, start=1):
        words, start = span.text, span.answer_start
        if start < 0 or not text.startswith(words, start):
            there = short(text[start : start + len(words)]) if 0 <= start < len(text) else "outside the text"
            advice = f"its words stand first at {text.find(words)} in 'context': correct 'answer_start'"
            advice = advice if words in text else "its words stand nowhere in 'context': copy them exactly"
            yield f", answer {n}: 'text' is {short(words)}, but at 'answer_start' {start} is {there}; {advice}"


def repeated(names: list[str], field: str) -> list[str]:
    """Return a problem for each name that stands more than once."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    return [f"{field} {short(name, 160)} stands more than once; every {field} must be unique" for name in repeated]
