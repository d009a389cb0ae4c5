"""Contracts and their questions: read CUAD (zip or JSON), the sample, or a folder of PDF and text files."""

from __future__ import annotations

import importlib.resources
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from cuadft import archive, squad, titles, zips
from cuadft.categories import CATEGORIES, key
from cuadft.errors import InputError

__all__ = ["CATEGORIES", "Contract", "Row", "locate", "read", "read_folder", "sample_path"]

JSON_NAME, ZIP_NAME = archive.JSON_NAME, "CUAD_v1.zip"
# A scanned PDF often carries a stamp or page numbers as text; a contract has more.
_LEAST_PDF_LETTERS = 20


class Row(TypedDict):
    """One question on one contract; `answers` are gold spans {"text", "start"}, exact in its text."""

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
    """One contract: its text, its type ("" unknown), who filed it, and the questions asked about it."""

    title: str
    text: str
    contract_type: str = ""
    filer: str = ""
    rows: tuple[Row, ...] = ()

    def record(self, *, group: int, split: str) -> dict[str, Any]:
        """Return the line that stands for this contract in a run's contracts.jsonl (no rows)."""
        own = {"title": self.title, "contract_type": self.contract_type, "filer": self.filer}
        return {**own, "group": group, "split": split, "text": self.text}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Contract:
        """Return the contract, without rows, in a line of contracts.jsonl; InputError if it lacks a key."""
        try:
            return cls(record["title"], record["text"], record["contract_type"], record["filer"])
        except (KeyError, TypeError) as error:
            raise InputError(
                f"A line of contracts.jsonl has no {error}; make the run's data again"
            ) from error


def sample_path() -> Path:
    """Return the path of the packaged sample contracts."""
    return Path(str(importlib.resources.files("cuadft") / "sample" / "contracts.json"))


def locate(cuad: str, data_dir: Path) -> Path:
    """Return the file to read for `cuad`: "sample", "auto" (data_dir, else downloaded), or a path.

    Raises InputError if the path doesn't exist, or if CUAD is neither in data_dir nor to be had.
    """
    from cuadft import fetch, runs

    if cuad == "sample":
        return sample_path()
    if cuad == "auto":
        if found := in_folder(data_dir):
            return found
        return fetch.cuad_from_zenodo(data_dir)
    path = runs.resolve(Path(cuad).expanduser()) if cuad else Path()
    found = in_folder(path) if cuad and path.is_dir() else path
    if not cuad or found is None or not found.is_file():
        raise InputError(
            f"Invalid cuad {cuad!r}: no {JSON_NAME} or {ZIP_NAME} there; give 'sample', 'auto', a"
            f" contract file in the layout of {JSON_NAME}, a zip holding one, or a folder"
            " with one of them"
        )
    return found


def in_folder(folder: Path) -> Path | None:
    """Return the file of CUAD in a folder, None if there is none."""
    candidates = (folder / ZIP_NAME, folder / "CUAD_v1" / JSON_NAME, folder / JSON_NAME)
    return next((path for path in candidates if path.is_file()), None)


def read(path: str | Path) -> list[Contract]:
    """Read the contracts of a CUAD zip, of CUAD_v1.json, or of any file in its layout.

    Raises InputError that names the first five faults of the file: broken archive or JSON, spans that don't
    stand at their offsets, repeated titles or ids, unknown categories, missing or mistyped fields.
    """
    path = Path(path)
    try:
        raw = zips.read_file(path)
    except OSError as error:
        raise InputError(
            f"Cannot read {path} ({error.strerror}); give a zip or JSON file of contracts"
        ) from error
    if raw.startswith(b"PK") or path.suffix.lower() == ".zip":
        text, inside, types = archive.open_cuad(raw, str(path))
        documents = squad.parse(text, inside)
    else:
        documents = squad.parse(raw, str(path))
        beside = path.with_name(archive.TYPES_NAME)
        types = archive.type_table(beside.read_bytes(), str(beside)) if beside.is_file() else {}
    return [_contract(document, types) for document in documents]


def _contract(document: dict[str, Any], types: dict[str, str]) -> Contract:
    title = document["title"]
    kind = types.get(key(title)) or titles.titled_type(title)
    rows = tuple(Row(**row, contract_type=kind, source="cuad") for row in document["rows"])
    return Contract(title, document["text"], kind, titles.filer(title), rows)


def read_folder(folder: str | Path) -> list[Contract]:
    """Read every PDF and TXT file of a folder as a contract without questions, titled by its file name.

    Files of other kinds are left out with a warning. Raises InputError naming each empty or unreadable file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"No folder at {folder}; give a folder with .pdf or .txt contracts")
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    readable = [file for file in files if file.suffix.lower() in (".pdf", ".txt")]
    if not readable:
        raise InputError(
            f"{folder} holds no .pdf or .txt file; put the contracts there, not in a folder inside it"
        )
    if others := [file.name for file in files if file not in readable]:
        warnings.warn(
            f"{folder}: {len(others)} files that are neither PDF nor TXT left out, such as {others[0]}",
            stacklevel=2,
        )
    found, problems = [], []
    for file in readable:
        try:
            found.append(_from_file(file))
        except InputError as error:
            problems.append(str(error))
    stems = [contract.title for contract in found]
    problems += [
        f"two files are named {stem}; rename one" for stem in sorted({s for s in stems if stems.count(s) > 1})
    ]
    squad.raise_problems(str(folder), problems)
    return found


def _from_file(file: Path) -> Contract:
    text = _pdf_text(file) if file.suffix.lower() == ".pdf" else _plain_text(file)
    title = file.stem
    return Contract(title, text, titles.titled_type(title), titles.filer(title))


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
        raise InputError(
            f"{file.name} cannot be read as PDF ({type(error).__name__}: {error}); repair it"
        ) from error
    text = "\n\n".join(pages).encode("utf-8", "replace").decode("utf-8")
    if sum(char.isalnum() for char in text) < _LEAST_PDF_LETTERS:
        raise InputError(f"{file.name} has no text in it (a scan?); run text recognition on it and try again")
    return text
