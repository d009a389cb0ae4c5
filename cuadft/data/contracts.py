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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from cuadft.core.errors import InputError
from cuadft.core.text import fold_letters
from cuadft.data import cuad, download

JSON_NAME, ZIP_NAME = cuad.JSON_NAME, "CUAD_v1.zip"
SHOWN_PROBLEMS = 5  # of a file, in one error

_LAYOUT = "expected the SQuAD 2.0 layout of CUAD_v1.json: {'data': [{'title', 'paragraphs': [{'context', 'qas'}]}]}"
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
        return {**own, "group": group, "split": split, "text": self.text}

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
        text, inside, types = cuad.open_cuad(raw, str(path))
        documents = parse_squad(text, inside)
    else:
        documents = parse_squad(raw, str(path))
        beside = path.with_name(cuad.TYPES_NAME)
        types = cuad.type_table(beside.read_bytes(), str(beside)) if beside.is_file() else {}
    return [_contract_of(document, types) for document in documents]


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
        warnings.warn(
            f"{folder}: {len(others)} files that are neither PDF nor TXT left out, such as {others[0]}",
            stacklevel=2,
        )
    found, problems = [], []
    for file in readable:
        try:
            found.append(_plain_contract(file))
        except InputError as error:
            problems.append(str(error))
    stems = [contract.title for contract in found]
    problems += [f"two files are named {stem}; rename one" for stem in sorted({s for s in stems if stems.count(s) > 1})]
    raise_problems(str(folder), problems)
    return found


def parse_squad(raw: bytes, name: str) -> list[dict[str, Any]]:
    """Return a JSON file's contracts as {"title", "text", "rows"}; the rows have no contract_type and no source yet.

    `name` stands for the file in messages. Raises InputError on whatever differs from the layout.
    """
    document = _load_json(raw, name)
    data = document.get("data") if isinstance(document, dict) else None
    if not isinstance(data, list):
        raise InputError(f"{name}: found {_short(document)}; {_LAYOUT}")
    if not data:
        raise InputError(f"{name} holds no contracts ('data' is an empty list); {_LAYOUT}")
    problems: list[str] = []
    contracts = [_checked_contract(entry, f"contract {n}", problems) for n, entry in enumerate(data, start=1)]
    found = [contract for contract in contracts if contract]
    problems += _repeated([contract["title"] for contract in found], "title")
    problems += _repeated([row["id"] for contract in found for row in contract["rows"]], "id")
    raise_problems(name, problems)
    return found


def raise_problems(name: str, problems: list[str]) -> None:
    """Raise one InputError that lists the first five problems of a file and counts the rest; no problem, no error."""
    if problems:
        more = f"\n  and {len(problems) - SHOWN_PROBLEMS} more" if len(problems) > SHOWN_PROBLEMS else ""
        listed = "".join(f"\n  - {problem}" for problem in problems[:SHOWN_PROBLEMS])
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        raise InputError(f"{name}: {count}; correct the file and run again:{listed}{more}")


def _contract_of(document: dict[str, Any], types: dict[str, str]) -> Contract:
    title = document["title"]
    kind = types.get(fold_letters(title)) or cuad.type_in_title(title)
    rows = tuple(Row(**row, contract_type=kind, source="cuad") for row in document["rows"])
    return Contract(title, document["text"], kind, cuad.filer(title), rows)


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


def _checked_contract(entry: Any, place: str, problems: list[str]) -> dict[str, Any] | None:
    """Return one contract, or None if its text or its questions are unusable; add what is wrong to `problems`."""
    title = entry.get("title") if isinstance(entry, dict) else None
    if not _is_text(title):
        problems.append(f"{place}: 'title' must be non-empty text, found {_short(title if title else entry)}")
        return None
    place = f"contract {_short(title, 160)}"
    paragraphs = entry.get("paragraphs")
    if not isinstance(paragraphs, list) or len(paragraphs) != 1 or not isinstance(paragraphs[0], dict):
        found = f"{len(paragraphs)} entries" if isinstance(paragraphs, list) else _short(paragraphs)
        problems.append(
            f"{place}: 'paragraphs' must hold exactly one object with the whole text, found {found};"
            " join several into one and shift each 'answer_start' by the length of the text before it"
        )
        return None
    text, questions = paragraphs[0].get("context"), paragraphs[0].get("qas")
    if not _is_text(text):
        problems.append(f"{place}: 'context' must be the contract's text, found {_short(text)}")
        return None
    if not isinstance(questions, list):
        problems.append(f"{place}: 'qas' must be a list of questions (it may be empty), found {_short(questions)}")
        return None
    rows = [
        _checked_row(qa, title, text, f"{place}, question {n}", problems) for n, qa in enumerate(questions, start=1)
    ]
    return {"title": title, "text": text, "rows": [row for row in rows if row]}


def _checked_row(qa: Any, title: str, text: str, place: str, problems: list[str]) -> dict[str, Any] | None:
    """Return one question as a row, or None if it is unusable; add what is wrong to `problems`."""
    if not isinstance(qa, dict):
        problems.append(f"{place}: must be an object with id, question and answers, found {_short(qa)}")
        return None
    for field in ("id", "question"):
        if not _is_text(qa.get(field)):
            problems.append(f"{place}: '{field}' must be non-empty text, found {_short(qa.get(field))}")
            return None
    place = f"contract {_short(title, 160)}, id {_short(qa['id'], 160)}"
    category = _category_of(qa["id"], qa["question"], place, problems)
    answers = _checked_answers(qa, text, place, problems)
    if category is None or answers is None:
        return None
    return {
        "id": qa["id"],
        "contract": title,
        "category": category,
        "question": _plain_question(qa["question"], category),
        "answers": answers,
        "is_impossible": not answers,
    }


def _plain_question(question: str, category: str) -> str:
    """Return CUAD's question as "Category: what it asks for"; questions in other words stay as they are."""
    official = _OFFICIAL.fullmatch(question.strip())
    return f"{category}: {' '.join(official[2].split())}" if official else question


def _category_of(row_id: str, question: str, place: str, problems: list[str]) -> str | None:
    """Return the category that the id ends with or the question quotes, or None; add what is wrong to `problems`."""
    named = [row_id.rsplit("__", 1)[1]] if "__" in row_id else []
    named += _QUOTED.findall(question)[:1]
    for name in named:
        if category := cuad.match_category(name):
            return category
    if not named:
        hint = "end the id with '__' and a category, such as '__Governing Law'"
    else:
        near = cuad.nearest_categories(named[0]) or list(cuad.CATEGORIES)
        hint = f"{_short(named[0])} is no CUAD category; nearest: {', '.join(near)}"
    problems.append(f"{place}: unknown category; {hint}")
    return None


def _checked_answers(qa: dict[str, Any], text: str, place: str, problems: list[str]) -> list[dict[str, Any]] | None:
    """Return the spans as {"text", "start"}, or None if one is wrong; add what is wrong to `problems`."""
    impossible, answers = qa.get("is_impossible"), qa.get("answers")
    if impossible is not None and not isinstance(impossible, bool):
        problems.append(f"{place}: 'is_impossible' must be true or false, found {_short(impossible)}")
        return None
    if answers is None and impossible:
        answers = []
    if not isinstance(answers, list):
        problems.append(f"{place}: 'answers' must be a list of {{'text', 'answer_start'}}, found {_short(answers)}")
        return None
    if impossible is not None and impossible == bool(answers):
        problems.append(
            f"{place}: 'is_impossible' is {str(impossible).lower()} but there are {len(answers)} answers;"
            " add the answers, or correct 'is_impossible'"
        )
        return None
    wrong = [f"{place}, answer {n}: {fault}" for n, a in enumerate(answers, start=1) if (fault := _span_fault(a, text))]
    problems += wrong
    return None if wrong else [{"text": a["text"], "start": a["answer_start"]} for a in answers]


def _span_fault(answer: Any, text: str) -> str:
    """Return what is wrong with one answer span, "" if it stands at its offset."""
    if not isinstance(answer, dict):
        return f"must be an object with 'text' and 'answer_start', found {_short(answer)}"
    words, start = answer.get("text"), answer.get("answer_start")
    if not _is_text(words):
        return f"'text' must be non-empty text, found {_short(words)}"
    if not isinstance(start, int) or isinstance(start, bool):
        return f"'answer_start' must be a whole number of characters from 0, found {_short(start)}"
    if start >= 0 and text.startswith(words, start):
        return ""
    there = _short(text[start : start + len(words)]) if 0 <= start < len(text) else "outside the text"
    times = text.count(words)
    if times == 1:
        advice = f"it stands once, at {text.index(words)}: set 'answer_start' to {text.index(words)}"
    elif times:
        advice = f"it stands {times} times, first at {text.index(words)}: choose one of them"
    else:
        advice = "it stands nowhere in this contract: copy the words from 'context' exactly"
    return f"'text' is {_short(words)}, but at 'answer_start' {start} the contract reads {there}; {advice}"


def _repeated(names: list[str], field: str) -> list[str]:
    """Return a problem for each name that stands more than once."""
    repeated = [name for name, count in Counter(names).items() if count > 1]
    return [f"{field} {_short(name, 160)} stands more than once; every {field} must be unique" for name in repeated]


def _is_text(value: Any) -> bool:
    """Tell whether a value is text that isn't blank and can be written as UTF-8 (no lone surrogate)."""
    return isinstance(value, str) and bool(value.strip()) and not re.search("[\ud800-\udfff]", value)


def _short(value: Any, length: int = 60) -> str:
    """Return a value as Python writes it, its middle cut out if it is longer than `length` characters."""
    shown = repr(value)
    return shown if len(shown) <= length else f"{shown[: length - 15]}...{shown[-12:]}"


def _plain_contract(file: Path) -> Contract:
    text = _pdf_text(file) if file.suffix.lower() == ".pdf" else _plain_text(file)
    title = file.stem
    return Contract(title, text, cuad.type_in_title(title), cuad.filer(title))


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
