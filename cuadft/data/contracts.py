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
import json
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

from pydantic import BaseModel, Field, ValidationError

from cuadft.core.errors import InputError
from cuadft.core.text import fold_letters
from cuadft.data import cuad, download

JSON_NAME, ZIP_NAME = cuad.JSON_NAME, "CUAD_v1.zip"
SHOWN_PROBLEMS = 5  # of a file, in one error

_LAYOUT = "expected the SQuAD 2.0 layout of CUAD_v1.json: {'data': [{'title', 'paragraphs': [{'context', 'qas'}]}]}"
_ADVICE = {  # by kind of fault, where pydantic's own words do not say what to do
    "string_pattern_mismatch": "must not be blank",
    "too_long": "must be one; join several, and shift each 'answer_start' by the length of the text before it",
}
# CUAD's own wording of a question, and the category that it quotes.
_OFFICIAL = re.compile(r'Highlight the parts \(if any\) of this contract related to "(.+?)".*?Details:(.*)', re.DOTALL)
_QUOTED = re.compile(r'related to "(.+?)"')
# A scanned PDF often carries a stamp or page numbers as text; a contract has more.
_LEAST_PDF_LETTERS = 20


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
        """Return the contract of a line of contracts.jsonl, without rows; raises InputError if the line lacks a key."""
        try:
            return cls(record["title"], record["text"], record["contract_type"], record["filer"])
        except (KeyError, TypeError) as error:
            raise InputError(f"A line of contracts.jsonl has no {error}; make the run's data again") from error


def locate_contracts(cuad: str, data_dir: Path) -> Path:
    """Return the file to read for `cuad`: "sample", "auto" (in data_dir, else downloaded to it) or a path.

    Raises InputError if the path does not exist, or if CUAD is not in data_dir and cannot be downloaded.
    """
    from cuadft.core import runs

    if cuad == "sample":
        return sample_path()
    if cuad == "auto":
        if found := cuad_in_folder(data_dir):
            return found
        return download.cuad_from_zenodo(data_dir)
    path = runs.resolve_path(Path(cuad).expanduser()) if cuad else Path()
    found = cuad_in_folder(path) if cuad and path.is_dir() else path
    if not cuad or found is None or not found.is_file():
        raise InputError(
            f"Invalid cuad {cuad!r}: no {JSON_NAME} or {ZIP_NAME} there; give 'sample', 'auto', a contract file in the "
            f"layout of {JSON_NAME}, a zip holding one, or a folder with one of them"
        )
    return found


def sample_path() -> Path:
    """Return the path of the packaged sample contracts."""
    return Path(str(importlib.resources.files("cuadft") / "sample" / "contracts.json"))


def cuad_in_folder(folder: Path) -> Path | None:
    """Return the file of CUAD in a folder, None if the folder holds no such file."""
    candidates = (folder / ZIP_NAME, folder / "CUAD_v1" / JSON_NAME, folder / JSON_NAME)
    return next((path for path in candidates if path.is_file()), None)


def read_contracts(path: str | Path) -> list[Contract]:
    """Read the contracts of a CUAD zip, of CUAD_v1.json, or of any file in its layout.

    Raises InputError that names the first five faults of the file: a broken archive or JSON, spans that do not stand at
    their offsets, repeated titles or ids, unknown categories, missing fields and fields of a wrong type.
    """
    path = Path(path)
    try:
        raw = download.read_zip_file(path)
    except OSError as error:
        raise InputError(f"Cannot read {path} ({error.strerror}); give a zip or JSON file of contracts") from error
    if raw.startswith(b"PK") or path.suffix.lower() == ".zip":
        return parse_squad(*cuad.open_cuad(raw, str(path)))
    beside = path.with_name(cuad.TYPES_NAME)
    types = cuad.type_table(beside.read_bytes(), str(beside)) if beside.is_file() else {}
    return parse_squad(raw, str(path), types)


def read_plain_folder(folder: str | Path) -> list[Contract]:
    """Read every PDF and TXT file of a folder as a contract without questions, titled by its file name.

    Files of other kinds are left out with a warning. Raises InputError that names the empty and unreadable files.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"No folder at {folder}; give a folder with .pdf or .txt contracts")
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    readable = [file for file in files if file.suffix.lower() in (".pdf", ".txt")]
    if not readable:
        raise InputError(f"{folder} holds no .pdf or .txt file; put the contracts there, not in a folder inside it")
    if others := [file.name for file in files if file not in readable]:
        told = f"{len(others)} files that are neither PDF nor TXT left out, such as {others[0]}"
        warnings.warn(f"{folder}: {told}", stacklevel=2)
    found, problems = [], []
    for file in readable:
        try:
            found.append(_plain_contract(file))
        except InputError as error:
            problems.append(str(error))
    stems = Counter(contract.title for contract in found)
    problems += [f"two files are named {stem}; rename one" for stem, count in stems.items() if count > 1]
    raise_problems(str(folder), problems)
    return found


_Text = Annotated[str, Field(pattern=r"\S")]


class _Span(BaseModel):
    text: _Text
    answer_start: int


class _Question(BaseModel):
    id: _Text
    question: _Text
    answers: list[_Span] | None = None
    is_impossible: bool | None = None


class _Paragraph(BaseModel):
    context: _Text
    qas: list[_Question]


class _Document(BaseModel):
    title: _Text
    paragraphs: Annotated[list[_Paragraph], Field(min_length=1, max_length=1)]


class _File(BaseModel):
    data: list[_Document]


def parse_squad(raw: bytes, name: str, types: Mapping[str, str]) -> list[Contract]:
    """Return the contracts in a file's JSON; raises InputError on whatever differs from the layout.

    `name` stands for the file in messages. types: contract types by folded title; others are read from the title.
    """
    found = _load_json(raw, name)
    if not isinstance(found, dict) or not isinstance(found.get("data"), list):
        raise InputError(f"{name}: found {_short(found)}; {_LAYOUT}")
    if not found["data"]:
        raise InputError(f"{name} holds no contracts ('data' is an empty list); {_LAYOUT}")
    try:
        documents = _File.model_validate(found, strict=True).data
    except ValidationError as error:
        raise_problems(name, [_layout_fault(each, found["data"]) for each in error.errors(include_url=False)])
    problems: list[str] = []
    made = [_checked_contract(document, types, problems) for document in documents]
    problems += _repeated([contract.title for contract in made], "title")
    problems += _repeated([row["id"] for contract in made for row in contract.rows], "id")
    raise_problems(name, problems)
    return made


def raise_problems(name: str, problems: list[str]) -> None:
    """Raise one InputError that lists the first five problems of a file and counts the rest; no problem, no error."""
    if problems:
        more = f"\n  and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        listed = "".join(f"\n  - {problem}" for problem in problems[:SHOWN_PROBLEMS])
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError(f"{name}: {count}; correct the file and run again:{listed}{more}")


def _load_json(raw: bytes, name: str) -> Any:
    if not raw.strip():
        raise InputError(f"{name} is empty; {_LAYOUT}")
    try:
        return json.loads(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        raise InputError(f"{name} is not UTF-8 (byte {error.start}); save it as UTF-8 JSON and run again") from error
    except RecursionError as error:
        raise InputError(f"{name} is nested too deeply for a contract file; {_LAYOUT}") from error
    except ValueError as error:
        advice = f"it may be cut short: fetch or save it again. {_LAYOUT}"
        raise InputError(f"{name} is not complete JSON ({error}); {advice}") from error


def _layout_fault(error: Any, documents: list[Any]) -> str:
    """Return where a file differs from the layout, what is wanted there and what was found."""
    number, *inner = error["loc"][1:]
    title = documents[number].get("title", "") if isinstance(documents[number], dict) else ""
    place = ".".join(map(str, ["data", number, *inner]))
    wanted = _ADVICE.get(error["type"], error["msg"])
    return f"contract {_short(title, 160)}, {place}: {wanted}; found {_short(error['input'])}"


def _checked_contract(document: _Document, types: Mapping[str, str], problems: list[str]) -> Contract:
    """Return one contract with its rows; add what is wrong with its categories and answers to `problems`."""
    title, (paragraph,) = document.title, document.paragraphs
    kind = types.get(fold_letters(title)) or cuad.type_in_title(title)
    rows = []
    for qa in paragraph.qas:
        place = f"contract {_short(title, 160)}, id {_short(qa.id, 160)}"
        category, advice = _category_of(qa)
        problems += [f"{place}: unknown category; {advice}"] if advice else []
        problems += [place + fault for fault in _answer_faults(qa, paragraph.context)]
        row = Row(id=qa.id, contract=title, category=category, question=_plain_question(qa.question, category))
        row["answers"] = [{"text": span.text, "start": span.answer_start} for span in qa.answers or []]
        rows.append(row | {"is_impossible": not qa.answers, "contract_type": kind, "source": "cuad"})
    return Contract(title, paragraph.context, kind, cuad.filer(title), tuple(rows))


def _plain_question(question: str, category: str) -> str:
    """Return CUAD's question as "Category: what it asks for"; questions in other words stay as they are."""
    official = _OFFICIAL.fullmatch(question.strip())
    return f"{category}: {' '.join(official[2].split())}" if official else question


def _category_of(qa: _Question) -> tuple[str, str]:
    """Return the category that a question's id ends with or its words quote, "" if unknown, and then what to do."""
    named = [qa.id.rsplit("__", 1)[1]] if "__" in qa.id else []
    named += _QUOTED.findall(qa.question)[:1]
    if found := next(filter(None, map(cuad.match_category, named)), None):
        return found, ""
    if not named:
        return "", "end the id with '__' and a category, such as '__Governing Law'"
    near = cuad.nearest_categories(named[0]) or list(cuad.CATEGORIES)
    return "", f"{_short(named[0])} is no CUAD category; nearest: {', '.join(near)}"


def _answer_faults(qa: _Question, text: str) -> Iterator[str]:
    """Yield what is wrong with the answers of a question on a contract's text."""
    if qa.answers is None and not qa.is_impossible:
        yield ": it has no 'answers'; give a list of {'text', 'answer_start'}, empty if the clause is absent"
    elif qa.is_impossible is not None and qa.is_impossible == bool(qa.answers):
        told = f"'is_impossible' is {str(qa.is_impossible).lower()} but there are {len(qa.answers or [])} answers"
        yield f": {told}; add the answers, or correct 'is_impossible'"
    for n, span in enumerate(qa.answers or [], start=1):
        if fault := _span_fault(span.text, span.answer_start, text):
            yield f", answer {n}: {fault}"


def _span_fault(words: str, start: int, text: str) -> str:
    """Return what is wrong with one answer span, "" if it stands at its offset."""
    if start >= 0 and text.startswith(words, start):
        return ""
    there = _short(text[start : start + len(words)]) if 0 <= start < len(text) else "outside the text"
    times, first = text.count(words), text.find(words)
    advice = f"it stands {times} times, first at {first}: choose one of them"
    if times == 1:
        advice = f"it stands once, at {first}: set 'answer_start' to {first}"
    elif not times:
        advice = "it stands nowhere in this contract: copy the words from 'context' exactly"
    return f"'text' is {_short(words)}, but at 'answer_start' {start} the contract reads {there}; {advice}"


def _repeated(names: list[str], field: str) -> list[str]:
    """Return a problem for each name that stands more than once."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    return [f"{field} {_short(name, 160)} stands more than once; every {field} must be unique" for name in repeated]


def _short(value: Any, length: int = 60) -> str:
    """Return a value as Python writes it, its middle cut out if it is longer than `length` characters."""
    shown = repr(value)
    return shown if len(shown) <= length else f"{shown[: length - 15]}...{shown[-12:]}"


def _plain_contract(file: Path) -> Contract:
    text = _pdf_text(file) if file.suffix.lower() == ".pdf" else _plain_text(file)
    return Contract(file.stem, text, cuad.type_in_title(file.stem), cuad.filer(file.stem))


def _plain_text(file: Path) -> str:
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file.name} is not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    except OSError as error:
        raise InputError(f"{file.name} cannot be read ({error.strerror})") from error
    if not text.strip():
        raise InputError(f"{file.name} is empty; put the contract's text in it or remove it")
    return text


def _pdf_text(file: Path) -> str:
    import pypdf

    try:
        pages = [page.extract_text() for page in pypdf.PdfReader(file).pages]
    except Exception as error:  # a damaged PDF can make pypdf raise nearly anything; all of it is told below
        raise InputError(f"{file.name} cannot be read as PDF ({type(error).__name__}: {error}); repair it") from error
    text = "\n\n".join(pages).encode("utf-8", "replace").decode("utf-8")
    if sum(char.isalnum() for char in text) < _LEAST_PDF_LETTERS:
        raise InputError(f"{file.name} has no text in it (a scan?); run text recognition on it and try again")
    return text
