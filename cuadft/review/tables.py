"""Reviews as tables: review.csv, one row a quote, to be corrected in a spreadsheet; review.xlsx, contracts compared.

Who corrects review.csv writes into three columns, or changes `quote` itself (`feedback.corrections` reads them back):

    verdict      right or wrong
    correction   the contract's words that answer, or "no such clause"
    comment      for readers
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cuadft.core.files import write_bytes
from cuadft.core.text import as_cell, shorten
from cuadft.review.reviewer import Finding, Quoted, Review

COLUMNS = (
    *("contract", "category", "state", "quote", "answer", "page", "p_quote", "p_clause", "p_no_clause"),
    *("verdict", "correction", "comment", "start", "end", "system", "question", "id"),
)
MOST_OF_TITLE = 31  # characters of a sheet's title
LONGEST_CELL = 32_000  # characters; a spreadsheet holds 32,767
FILLS = {"sure": "B7E4C7", "unsure": "FFE8A3", "failed": "F5B7B1"}  # as the page has them
_SHEET = re.compile(r"[][*?:/\\]")  # what no title of a sheet may hold
_WIDTHS = {"contract": 30, "category": 26, "quote": 80, "correction": 40, "comment": 24}


def csv_bytes(reviews: Sequence[Review]) -> bytes:
    """Return review.csv: UTF-8 with a byte order mark, without which Excel takes it for another encoding."""
    made = io.StringIO(newline="")
    writer = csv.DictWriter(made, COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(row for review in reviews for row in review_rows(review))
    return made.getvalue().encode("utf-8-sig")


def review_rows(review: Review) -> Iterator[dict[str, Any]]:
    """Yield the rows of review.csv, one for each quote, and one for each question without a quote."""
    for n, found in enumerate(review.findings):
        about = {"contract": review.document.name, "category": found.category, "state": found.state}
        about |= {"system": review.system, "question": found.question}
        about |= {"p_clause": found.p_clause, "p_no_clause": _other(found.p_clause), "comment": found.error}
        for m, quote in enumerate(found.quotes or (None,)):
            row = about | {"id": f"{review.key}:{n}:{m}"} | _of_quote(found, quote, review.naming["refusal"])
            yield {name: as_cell(value) if isinstance(value, str) else value for name, value in row.items()}


def _of_quote(found: Finding, quote: Quoted | None, refusal: str) -> dict[str, Any]:
    if quote is None:
        return {"quote": refusal if found.state != "failed" else "", "answer": "none"}
    place = {"start": quote.start, "end": quote.end, "page": quote.page, "p_quote": quote.p}
    return place | {"quote": quote.text, "answer": "quote" if quote.answer else "possible"}


def _other(p: float | None) -> float | None:
    return None if p is None else round(1 - p, 5)


def write_workbook(path: Path, reviews: Sequence[Review]) -> None:
    """Write review.xlsx: contracts by clauses, the rows of review.csv, and what is known of each contract."""
    import openpyxl

    book = openpyxl.Workbook()
    _fill_sheet(book.active, "Comparison", [_compared(review) for review in reviews])
    _fill_sheet(book.create_sheet(), "Quotes", [row for review in reviews for row in review_rows(review)])
    named = reviews[0].naming["Documents"] if reviews else "Contracts"
    _fill_sheet(book.create_sheet(), _SHEET.sub(" ", named)[:MOST_OF_TITLE], [_described(review) for review in reviews])
    for cells in book["Comparison"].iter_rows(min_row=2, min_col=2):
        for cell in cells:
            _colour(cell)
    made = io.BytesIO()
    book.save(made)
    write_bytes(path, made.getvalue())


def _compared(review: Review) -> dict[str, Any]:
    """Return a row of the comparison: the contract, and of each clause the state, probability and best words."""
    row: dict[str, Any] = {"contract": review.document.name}
    for found in review.findings:
        p = found.p_clause if found.state != "absent" else _other(found.p_clause)
        said = f"{found.state}{'' if p is None else f' {p:.2f}'}"
        quotes = [f"{q.text}{f' (page {q.page})' if q.page else ''}" for q in found.quotes if q.answer]
        row[found.category] = ": ".join([said, *quotes[:1]])
    return row


def _described(review: Review) -> dict[str, Any]:
    document = review.document
    row = {"contract": document.name, "file": document.file, "pages": len(document.page_starts) or None}
    row |= {"characters": len(document.text)} | review.counts()
    return row | {"not new to the run": review.known, "not readable": " ".join(document.unread), "key": review.key}


def _fill_sheet(sheet: Any, title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows into a sheet, with their names as the header; every text is kept as text, never as a formula."""
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
    from openpyxl.styles import Alignment, Font
    from openpyxl.utils import get_column_letter

    sheet.title, sheet.freeze_panes = title, "B2"
    names = list(dict.fromkeys(name for row in rows for name in row))
    if title == "Quotes":
        names = list(COLUMNS)
    for number, row in enumerate([dict(zip(names, names)), *rows], 1):
        for column, name in enumerate(names, 1):
            cell, value = sheet.cell(number, column), row.get(name)
            cell.alignment = Alignment(vertical="top", wrap_text=True)
            if isinstance(value, str):
                cell.value = shorten(ILLEGAL_CHARACTERS_RE.sub("\ufffd", value), LONGEST_CELL)
                cell.data_type = "s"
            else:
                cell.value = value
            if number == 1:
                cell.font = Font(bold=True)
    for column, name in enumerate(names, 1):
        sheet.column_dimensions[get_column_letter(column)].width = _WIDTHS.get(
            name, 26 if title == "Comparison" else 14
        )


def _colour(cell: Any) -> None:
    """Colour a cell of the comparison by the state that it begins with."""
    from openpyxl.styles import PatternFill

    state = str(cell.value or "").partition(" ")[0].rstrip(":")
    if state in FILLS:
        cell.fill = PatternFill("solid", start_color=FILLS[state])
