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

from cuadft.core import runs
from cuadft.core.errors import InputError
from cuadft.core.text import fold_letters
from cuadft.data import cuad, download
from cuadft.data.cuad import JSON_NAME

SHOWN_PROBLEMS = 5  # of a file, in one error

_LAYOUT = "expected the SQuAD 2.0 layout of CUAD_v1.json: {'data': [{'title', 'paragraphs': [{'context', 'qas'}]}]}"
_ADVICE = {  # by kind of fault, where pydantic's own words do not say what to do
    "string_pattern_mismatch": "must not be blank",
    "too_long": "must be one; join several, and shift each 'answer_start' by the length of the text before it",
}
# CUAD's own wording of a question, and the category that it quotes.
_OFFICIAL = re.compile(r'Highlight the parts \(if any\) of this contract related to ".+?".*?Details:(.*)', re.DOTALL)
_QUOTED = re.compile(r'related to "(.+?)"')
_FEWEST_LETTERS = 20  # of a contract; a scanned PDF often carries a stamp or page numbers as text


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
    found = cuad_in_folder(path) if cuad and path.is_dir() else path
    if not cuad or found is None or not found.is_file():
        raise InputError(
            f"Invalid cuad {cuad!r}: no contracts there; give 'sample', 'auto', a file in the layout of {JSON_NAME}, a "
            f"zip that holds one, or a folder with {JSON_NAME} or {download.CUAD_FILE} in it"
        )
    return found


def sample_path() -> Path:
    """Return the path of the packaged sample contracts."""
    return Path(str(importlib.resources.files("cuadft") / "sample" / "contracts.json"))


def cuad_in_folder(folder: Path) -> Path | None:
    """Return the file of CUAD in a folder, None if the folder holds no such file."""
    candidates = (folder / download.CUAD_FILE, folder / "CUAD_v1" / JSON_NAME, folder / JSON_NAME)
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
    files = sorted(path for path in folder.glob("[!.]*") if path.is_file())
    readable = [file for file in files if file.suffix.lower() in (".pdf", ".txt")]
    if not readable:
        raise InputError(f"{folder} is no folder with .pdf or .txt files; put the contracts there and run again")
    if others := [file.name for file in files if file not in readable]:
        warnings.warn(f"{folder}: files that are neither PDF nor TXT left out: {', '.join(others)}", stacklevel=2)
    texts, problems = {}, []
    for file in readable:
        try:
            texts[file.stem] = _pdf_text(file) if file.suffix.lower() == ".pdf" else file.read_text("utf-8-sig")
        except Exception as error:  # a damaged PDF can make pypdf raise nearly anything
            problems.append(f"{file.name} cannot be read ({type(error).__name__}: {error}); repair it or remove it")
        else:
            if sum(char.isalnum() for char in texts[file.stem]) < _FEWEST_LETTERS:
                problems.append(f"{file.name} has no text in it (a scan?); run text recognition on it, or remove it")
    problems += _repeated([file.stem for file in readable], "file name")
    raise_problems(str(folder), problems)
    return [Contract(name, text, cuad.type_in_title(name), cuad.filer(name)) for name, text in texts.items()]


def _pdf_text(file: Path) -> str:
    import pypdf

    pages = [page.extract_text() for page in pypdf.PdfReader(file).pages]
    return "\n\n".join(pages).encode("utf-8", "replace").decode("utf-8")


_Text = Annotated[str, Field(pattern=r"\S")]


class _Span(BaseModel):
    text: _Text
    answer_start: int


class _Question(BaseModel):
    id: _Text
    question: _Text
    answers: list[_Span]
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
    try:
        found = json.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # of the encoding or of JSON; nested too deeply
        raise InputError(f"{name} is not whole UTF-8 JSON ({error}); fetch or save it again. {_LAYOUT}") from error
    if not isinstance(found, dict) or not isinstance(found.get("data"), list) or not found["data"]:
        raise InputError(f"{name} holds no contracts but {_short(found)}; {_LAYOUT}")
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
        raise InputError(f"{name}: correct these {len(problems)} problems and run again:{listed}{more}")


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
        category, faults = _category_of(qa)
        faults += _answer_faults(qa, paragraph.context)
        problems += [f"contract {_short(title, 160)}, id {_short(qa.id, 160)}{fault}" for fault in faults]
        official = _OFFICIAL.fullmatch(qa.question.strip())
        question = f"{category}: {' '.join(official[1].split())}" if official else qa.question
        row = Row(id=qa.id, contract=title, category=category, question=question)
        row["answers"] = [{"text": span.text, "start": span.answer_start} for span in qa.answers]
        rows.append(row | {"is_impossible": not qa.answers, "contract_type": kind, "source": "cuad"})
    return Contract(title, paragraph.context, kind, cuad.filer(title), tuple(rows))


def _category_of(qa: _Question) -> tuple[str, list[str]]:
    """Return the category that a question's id ends with or its words quote, "" if unknown, and what is wrong then."""
    named = [qa.id.rsplit("__", 1)[1]] if "__" in qa.id else []
    named += _QUOTED.findall(qa.question)[:1]
    if found := next(filter(None, map(cuad.match_category, named)), None):
        return found, []
    near = ", ".join(cuad.nearest_categories(named[0] if named else "")) or "Governing Law"
    return "", [f": no CUAD category in its id; end it with '__' and one of the 41 categories (nearest: {near})"]


def _answer_faults(qa: _Question, text: str) -> Iterator[str]:
    """Yield what is wrong with the answers of a question on a contract's text."""
    if qa.is_impossible is not None and qa.is_impossible == bool(qa.answers):
        yield f": 'is_impossible' is {qa.is_impossible} but there are {len(qa.answers)} answers; correct either"
    for n, span in enumerate(qa.answers, start=1):
        words, start = span.text, span.answer_start
        if start < 0 or not text.startswith(words, start):
            there = _short(text[start : start + len(words)]) if 0 <= start < len(text) else "outside the text"
            advice = f"its words stand first at {text.find(words)} in 'context': correct 'answer_start'"
            advice = advice if words in text else "its words stand nowhere in 'context': copy them exactly"
            yield f", answer {n}: 'text' is {_short(words)}, but at 'answer_start' {start} is {there}; {advice}"


def _repeated(names: list[str], field: str) -> list[str]:
    """Return a problem for each name that stands more than once."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    return [f"{field} {_short(name, 160)} stands more than once; every {field} must be unique" for name in repeated]


def _short(value: Any, length: int = 60) -> str:
    """Return a value as Python writes it, its middle cut out if it is longer than `length` characters."""
    shown = repr(value)
    return shown if len(shown) <= length else f"{shown[: length - 15]}...{shown[-12:]}"
