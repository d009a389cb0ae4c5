"""CUAD's zip archive and the contract types it tells, in a table or by its folders of PDFs."""

from __future__ import annotations

import csv
import io
from pathlib import PurePosixPath

from cuadft import titles, zips
from cuadft.categories import key
from cuadft.errors import InputError

JSON_NAME, TYPES_NAME, PDF_FOLDER = "CUAD_v1.json", "contract_types.csv", "full_contract_pdf"


def open_cuad(raw: bytes, name: str) -> tuple[bytes, str, dict[str, str]]:
    """Return the JSON in a CUAD zip, its name for messages, and the contract types told by lenient title.

    Types come from contract_types.csv beside the JSON, else from the folders of the PDFs. Raises InputError.
    """
    with zips.opened(raw, name) as archive:
        names = archive.namelist()
        inside = sorted((n for n in names if PurePosixPath(n).name == JSON_NAME), key=lambda n: (n.count("/"), n))
        if not inside:
            found = ", ".join(names[:5]) or "nothing"
            raise InputError(f"{name} holds no {JSON_NAME} (found: {found}); give CUAD's own zip")
        text = zips.member(archive, inside[0], name)
        table = str(PurePosixPath(inside[0]).with_name(TYPES_NAME))
        types = _folder_types(names)
        if table in names:
            types |= type_table(zips.member(archive, table, name), f"{name}: {table}")
    return text, f"{name}: {inside[0]}", types


def _folder_types(names: list[str]) -> dict[str, str]:
    """Return the contract types told by .../full_contract_pdf/Part_x/<Type>/<title>.pdf, by lenient title."""
    types = {}
    for path in map(PurePosixPath, names):
        parts = path.parts
        if PDF_FOLDER in parts[:-3] and path.suffix.lower() == ".pdf":
            types[key(path.stem)] = titles.named_type(parts[parts.index(PDF_FOLDER) + 2])
    return types


def type_table(raw: bytes, name: str) -> dict[str, str]:
    """Return the types in a CSV of title,contract_type, by lenient title, or raise InputError."""
    try:
        rows = list(csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{name} is not a UTF-8 CSV file ({error}); correct or remove it") from error
    if any(row.get("title") is None or row.get("contract_type") is None for row in rows):
        raise InputError(f"{name} needs the columns title,contract_type in every row; correct or remove it")
    return {key(row["title"]): titles.named_type(row["contract_type"]) for row in rows}
