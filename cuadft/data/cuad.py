"""CUAD itself: its 41 clause categories, its zip archive, and the contract types and filers that titles tell."""

from __future__ import annotations

import csv
import difflib
import io
import json
import re
from importlib import resources
from pathlib import PurePosixPath

from cuadft.core.errors import InputError
from cuadft.data.download import opened_zip, zip_member


def category_key(name: str) -> str:
    """Return the letters and digits of a name, lower case: what two spellings of one name share."""
    return re.sub(r"[\W_]+", "", name.casefold())


# Names and wording as in CUAD_v1.json (The Atticus Project, CC BY 4.0); blanks are made single here.
CATEGORIES: dict[str, str] = json.loads(resources.files("cuadft.data").joinpath("categories.json").read_text("utf-8"))
_BY_KEY = {category_key(name): name for name in CATEGORIES}


def match_category(name: str) -> str | None:
    """Return the official category that `name` spells, whatever its case and punctuation, or None."""
    return _BY_KEY.get(category_key(name))


def nearest_categories(name: str, *, count: int = 3) -> list[str]:
    """Return up to `count` official categories most like `name`, best first (difflib ratio from 0.4)."""
    return [_BY_KEY[found] for found in difflib.get_close_matches(category_key(name), _BY_KEY, count, 0.4)]


_TYPES = {
    "Affiliate": r"affiliates?",
    "Agency": r"agency",
    "Co-Branding": r"co[ -]?brand(?:ing|ed)?",
    "Collaboration/Cooperation": r"collaborat(?:ion|ive)|cooperation",
    "Consulting": r"consulting|consultancy",
    "Development": r"development",
    "Distributor": r"distributors?|distributorship|distribution",
    "Endorsement": r"endorsement",
    "Franchise": r"franchise",
    "Hosting": r"hosting",
    "IP": r"intellectual property|ip",
    "Joint Venture": r"joint venture|joint filing",
    "License": r"licen[sc](?:e|ing)",
    "Maintenance": r"maintenance",
    "Manufacturing": r"manufactur(?:ing|e)",
    "Marketing": r"(?:re)?marketing",
    "Non-Compete/No-Solicit/Non-Disparagement": r"non ?compet(?:e|ition)|non? ?solicit(?:ation)?"
    r"|non ?disparagement",
    "Outsourcing": r"outsourcing",
    "Promotion": r"promotion(?:al)?",
    "Reseller": r"resellers?",
    "Service": r"services?|servicing",
    "Sponsorship": r"sponsorship",
    "Strategic Alliance": r"(?:strategic )?alliance",
    "Supply": r"supply",
    "Transportation": r"transport(?:ation)?",
}
CONTRACT_TYPES: tuple[str, ...] = tuple(_TYPES)
_TYPE_BY_KEY = {category_key(name): name for name in CONTRACT_TYPES}
_PATTERNS = {name: re.compile(rf"\b(?:{words})\b") for name, words in _TYPES.items()}
_DATED = re.compile(r"(.+?)(?:_\d{1,2}_\d{1,2}_\d{4}|_\d{8}_)")
_DASHED = re.compile(r"(.+?) - (.+)")
_EXHIBIT = re.compile(r".*(?:_\d\d_\d\d_\d{4}|[_-]EX[^_-]*[_-])", re.DOTALL)
_AGREEMENT = re.compile(r"agreement|contract", re.IGNORECASE)
_ENDINGS = ["incorporated", "inc", "corporation", "corp", "limited", "ltd", "llc", "llp", "plc", "company"]
_ENDING_WORDS = frozenset((*_ENDINGS, "co", "lp", "sa", "ag", "nv", "bv", "the"))
_GLUED_ENDING = re.compile(rf"(.{{3,}}?)(?:{'|'.join(_ENDINGS)})")


def named_type(name: str) -> str:
    """Return the contract type that a type column or folder name means: "License_Agreements" means "License".

    A name outside CUAD's 25 types is kept, less a final "Agreement"; an empty name gives "".
    """
    words = " ".join(name.replace("_", " ").split())
    words = re.sub(r"\s*\b(?:agreements?|contracts?)$", "", words, flags=re.IGNORECASE)
    return _TYPE_BY_KEY.get(category_key(words)) or _announced(words) or words


def titled_type(title: str) -> str:
    """Return the contract type that the words at a title's end announce, or "" when they announce none."""
    return _announced(_EXHIBIT.sub("", title))


def _announced(words: str) -> str:
    """Return the type announced last; Service only where nothing narrower stands beside it."""
    plain = re.sub(r"[\W_\d]+", " ", words.casefold())
    ends = {name: max((m.end() for m in pattern.finditer(plain)), default=0) for name, pattern in _PATTERNS.items()}
    narrower = {name: end for name, end in ends.items() if end and name != "Service"}
    if narrower:
        return max(narrower, key=lambda name: narrower[name])
    return "Service" if ends["Service"] else ""


def filer(title: str) -> str:
    """Return who filed the contract, comparable across titles: lower case, no punctuation, no Inc or Corp.

    It is what stands before a filing date, or before " - SOME AGREEMENT"; otherwise the whole title.
    """
    name = title
    if dated := _DATED.match(title):
        name = dated[1]
    elif (dashed := _DASHED.match(title)) and _AGREEMENT.search(dashed[2]) and not _AGREEMENT.search(dashed[1]):
        name = dashed[1]
    return _company(name) or category_key(title) or title


def _company(name: str) -> str:
    words = re.findall(r"[^\W_]+", name.casefold())
    while len(words) > 1 and words[-1] in _ENDING_WORDS:
        words.pop()
    joined = "".join(words)
    # "co" is no glued ending: it would turn "cisco" into "cis".
    while glued := _GLUED_ENDING.fullmatch(joined):
        joined = glued[1]
    return joined


JSON_NAME, TYPES_NAME, PDF_FOLDER = "CUAD_v1.json", "contract_types.csv", "full_contract_pdf"


def open_cuad(raw: bytes, name: str) -> tuple[bytes, str, dict[str, str]]:
    """Return the JSON in a CUAD zip, its name for messages, and the contract types told by lenient title.

    Types come from contract_types.csv beside the JSON, else from the folders of the PDFs. Raises InputError.
    """
    with opened_zip(raw, name) as archive:
        names = archive.namelist()
        inside = sorted((n for n in names if PurePosixPath(n).name == JSON_NAME), key=lambda n: (n.count("/"), n))
        if not inside:
            found = ", ".join(names[:5]) or "nothing"
            raise InputError(f"{name} holds no {JSON_NAME} (found: {found}); give CUAD's own zip")
        text = zip_member(archive, inside[0], name)
        table = str(PurePosixPath(inside[0]).with_name(TYPES_NAME))
        types = _folder_types(names)
        if table in names:
            types |= type_table(zip_member(archive, table, name), f"{name}: {table}")
    return text, f"{name}: {inside[0]}", types


def _folder_types(names: list[str]) -> dict[str, str]:
    """Return the contract types told by .../full_contract_pdf/Part_x/<Type>/<title>.pdf, by lenient title."""
    types = {}
    for path in map(PurePosixPath, names):
        parts = path.parts
        if PDF_FOLDER in parts[:-3] and path.suffix.lower() == ".pdf":
            types[category_key(path.stem)] = named_type(parts[parts.index(PDF_FOLDER) + 2])
    return types


def type_table(raw: bytes, name: str) -> dict[str, str]:
    """Return the types in a CSV of title,contract_type, by lenient title, or raise InputError."""
    try:
        rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name} is not a UTF-8 CSV file ({error}); correct or remove it") from error
    if any(row.get("title") is None or row.get("contract_type") is None for row in rows):
        raise InputError(f"{name} needs the columns title,contract_type in every row; correct or remove it")
    return {category_key(row["title"]): named_type(row["contract_type"]) for row in rows}
