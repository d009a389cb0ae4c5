"""Tables hold every quote as it is, never a formula, and survive the spreadsheet programs that people have."""

from __future__ import annotations

import csv
import io

import openpyxl
import reviewing
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core import files
from cuadft.core.text import as_cell, of_cell
from cuadft.review.reviewer import Finding, Quoted
from cuadft.review.tables import COLUMNS, csv_bytes, review_rows, write_workbook

FORMULA = "=HYPERLINK(1)"


def formulas():
    quotes = tuple(Quoted(text, 0, 4, None, 0.9, True) for text in (FORMULA, "+1 day", "-5 %", "@home", "plain"))
    return reviewing.review("=HYPERLINK(1) is a text", (Finding("-Fees", "=Fees?", "sure", 0.9, quotes),), name="=name")


@given(st.text())
def test_a_cell_is_no_formula_and_gives_its_text_back(text):
    assert not text.strip() or not as_cell(text).startswith(("=", "+", "-", "@", "\t", "\r"))
    assert of_cell(as_cell(text)) in (text.strip(), text.strip().removeprefix("'").strip())


@given(st.lists(reviewing.reviews(), max_size=2))
def test_every_quote_has_its_row_in_the_file(reviews):
    table = list(csv.DictReader(io.StringIO(csv_bytes(reviews).decode("utf-8-sig"), newline="")))
    wanted = [row for review in reviews for row in review_rows(review)]
    assert [row["quote"] for row in table] == [str(row["quote"]) for row in wanted]
    assert sum(len(found.quotes) or 1 for review in reviews for found in review.findings) == len(table)


def test_the_file_opens_in_a_spreadsheet_as_unicode_and_runs_nothing(tmp_path):
    content = csv_bytes([formulas()])
    assert content.startswith(b"\xef\xbb\xbf") and content.count(b"\r\n") == 6
    (tmp_path / "review.csv").write_bytes(content)
    cells = [value for row in files.read_table(tmp_path / "review.csv") for value in row.values.values()]
    assert not any(value.startswith(("=", "+", "@")) for value in cells)


def test_a_workbook_keeps_texts_as_texts_and_compares_contracts_by_clauses(tmp_path):
    absent = reviewing.review("another text", (Finding("-Fees", "=Fees?", "absent", 0.02, ()),), name="other \x01")
    write_workbook(tmp_path / "review.xlsx", [formulas(), absent])
    book = openpyxl.load_workbook(tmp_path / "review.xlsx")
    assert book.sheetnames == ["Comparison", "Quotes", "Contracts"]
    assert not any(c.data_type == "f" for sheet in book for row in sheet for c in row)
    head, one, other = ([cell.value for cell in row] for row in book["Comparison"])
    assert head == ["contract", "-Fees"] and one == ["=name", f"sure 0.90: {FORMULA}"] and other[1] == "absent 0.98"
    assert [cell.value for cell in book["Quotes"][1]] == list(COLUMNS)
