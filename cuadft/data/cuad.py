"""CUAD itself: its 25 contract types, test contracts and zip, and what titles of contracts tell.

Its 41 categories are a schema (see `data.schema`). For example:

    type_in_title("ACME CORP_03_04_2010-EX-10.1-SUPPLY AGREEMENT")       # "Supply"
    filer("ACME CORP_03_04_2010-EX-10.1-SUPPLY AGREEMENT")               # "acme"
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from cuadft.core.errors import InputError
from cuadft.core.text import fold_letters, fold_words
from cuadft.data.download import opened_zip, zip_member
from cuadft.data.layouts import contract_files

# Names in the archive; a table of types may also lie beside a JSON file of contracts.
JSON_NAME, TYPES_NAME, PDF_FOLDER = "CUAD_v1.json", "contract_types.csv", "full_contract_pdf"


def _packaged(name: str) -> Any:
    return json.loads(resources.files("cuadft.data").joinpath(name).read_text("utf-8"))


# CUAD's contract types and the words (patterns) by which a title announces each of them.
_TYPE_WORDS: dict[str, str] = _packaged("contract_types.json")
CONTRACT_TYPES: tuple[str, ...] = tuple(_TYPE_WORDS)
_TYPE_BY_KEY = {fold_letters(name): name for name in CONTRACT_TYPES}
_TYPE_PATTERNS = {name: re.compile(rf"\b(?:{words})\b") for name, words in _TYPE_WORDS.items()}

# Parts of a title: "ACME CORP_03_04_2010-EX-10.1-SUPPLY AGREEMENT" or "Acme Corp. - Supply Agreement".
_DATED = re.compile(r"(.+?)(?:_\d{1,2}_\d{1,2}_\d{4}|_\d{8}_)")
_DASHED = re.compile(r"(.+?) - (.+)")
_EXHIBIT = re.compile(r".*(?:_\d\d_\d\d_\d{4}|[_-]EX[^_-]*[_-])", re.DOTALL)
_AGREEMENT = re.compile(r"agreement|contract", re.IGNORECASE)
_ENDINGS = ["incorporated", "inc", "corporation", "corp", "limited", "ltd", "llc", "llp", "plc", "company"]
_ENDING_WORDS = frozenset((*_ENDINGS, "co", "lp", "sa", "ag", "nv", "bv", "the"))
_GLUED_ENDING = re.compile(rf"(.{{3,}}?)(?:{'|'.join(_ENDINGS)})")


def official_test_titles() -> frozenset[str]:
    """Return the titles of the 102 contracts of CUAD's own test split, without blanks at their ends."""
    return frozenset(title.strip() for title in _packaged("official_test.json")["titles"])


def is_official_test(titles: Iterable[str]) -> bool:
    """Tell whether all these contracts, one at least, are test contracts of CUAD's own split."""
    folded = {title.strip() for title in titles}
    return bool(folded) and folded <= official_test_titles()


def type_of_name(name: str) -> str:
    """Return the contract type that a type column or folder name means: "License_Agreements" means "License".

    A name outside CUAD's 25 types is returned without a final "Agreement"; an empty name gives "".
    """
    words = " ".join(name.replace("_", " ").split())
    words = re.sub(r"\s*\b(?:agreements?|contracts?)$", "", words, flags=re.IGNORECASE)
    return _TYPE_BY_KEY.get(fold_letters(words)) or _announced(words) or words


def type_in_title(title: str) -> str:
    """Return the contract type that the end of a title announces, or "" if it announces no type."""
    return _announced(_EXHIBIT.sub("", title))


def filer(title: str) -> str:
    """Return who filed the contract, spelled alike in all titles: lower case, without punctuation, Inc or Corp.

    The filer stands before the filing date or before " - SOME AGREEMENT"; otherwise the whole title is taken.
    """
    name = title
    if dated := _DATED.match(title):
        name = dated[1]
    elif (dashed := _DASHED.match(title)) and _AGREEMENT.search(dashed[2]) and not _AGREEMENT.search(dashed[1]):
        name = dashed[1]
    return _company(name) or fold_letters(title) or title


def open_cuad(raw: bytes, name: str) -> tuple[dict[str, bytes], dict[str, str]]:
    """Return the files of contracts in a zip by name for messages, and the contract types by folded title.

    The files are those of `contract_files`. Types come from contract_types.csv beside the first of them, else from the
    folders of the PDFs. Raises InputError.
    """
    with opened_zip(raw, name) as archive:
        names = archive.namelist()
        inside = contract_files(names)
        if not inside:
            found = ", ".join(names[:5]) or "nothing"
            advice = "unpack a zip in it and give that, or give a zip with CUAD_v1.json or CUADv1.json in it"
            raise InputError(f"{name} holds no file of contracts (found: {found}); {advice}")
        texts = {f"{name}: {each}": zip_member(archive, each, name) for each in inside}
        table = str(PurePosixPath(inside[0]).with_name(TYPES_NAME))
        types = _folder_types(names)
        if table in names:
            types |= type_table(zip_member(archive, table, name), f"{name}: {table}")
    return texts, types


def type_table(raw: bytes, name: str) -> dict[str, str]:
    """Return the types in a CSV of title,contract_type, by folded title (see `fold_letters`); raises InputError."""
    try:
        table = pd.read_csv(io.BytesIO(raw), dtype=str, keep_default_na=False, encoding="utf-8-sig")
        kinds = zip(table["title"], table["contract_type"])
        return {fold_letters(title): type_of_name(kind) for title, kind in kinds}
    except (ValueError, KeyError, AttributeError) as error:
        told = f"is not a UTF-8 CSV file of title,contract_type in every row ({error})"
        raise InputError(f"{name} {told}; correct or remove it") from error


def _announced(words: str) -> str:
    """Return the type that stands last in the words; "Service" counts only if no narrower type stands there."""
    plain = " ".join(fold_words(re.sub(r"\d", " ", words)))
    last_end = {name: found.end() for name, pattern in _TYPE_PATTERNS.items() for found in pattern.finditer(plain)}
    narrower = [name for name in last_end if name != "Service"]
    return max(narrower or last_end, key=lambda name: last_end[name], default="")


def _company(name: str) -> str:
    """Return a company's name as one word of lower case without Inc or the like: "Acme Foods, Inc." is "acmefoods"."""
    words = fold_words(name)
    while len(words) > 1 and words[-1] in _ENDING_WORDS:
        words.pop()
    joined = "".join(words)
    # "co" is not among the endings that may be glued to a name: it would turn "cisco" into "cis".
    while glued := _GLUED_ENDING.fullmatch(joined):
        joined = glued[1]
    return joined


def _folder_types(names: list[str]) -> dict[str, str]:
    """Return the contract types that paths .../full_contract_pdf/Part_x/<Type>/<title>.pdf tell, by folded title."""
    types = {}
    for path in map(PurePosixPath, names):
        parts = path.parts
        if PDF_FOLDER in parts[:-3] and path.suffix.lower() == ".pdf":
            types[fold_letters(path.stem)] = type_of_name(parts[parts.index(PDF_FOLDER) + 2])
    return types
