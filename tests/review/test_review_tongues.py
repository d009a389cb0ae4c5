"""Contracts in German, Spanish and Chinese are read from every kind of file, and shown with each mark in its place."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace

import docx
import openpyxl
import pytest
import reviewing
import small
import tongues

from cuadft.data.documents import Document, documents_of
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.review.folder import review_files
from cuadft.review.page import language_of, review_page, text_pieces, two_page
from cuadft.review.reviewer import Finding, Quoted, Reviewer
from cuadft.review.tables import csv_bytes

LANGUAGES = [(tongues.LEASE, "de"), (tongues.NOTICE, "es"), (tongues.SERVICES, "zh")]


def reviewed(contract, *, pages=()):
    """Return a review that quotes every gold span of a document."""
    found = []
    for row in contract.rows:
        spans = [(span["start"], span["start"] + len(span["text"])) for span in row["answers"]]
        quotes = tuple(Quoted(contract.text[a:b], a, b, 1 if pages else None, 0.9, True) for a, b in spans)
        found.append(Finding(row["category"], row["question"], "sure" if quotes else "absent", 0.9, quotes))
    return reviewing.review(contract.text, tuple(found), name=contract.title, page_starts=pages)


@pytest.mark.parametrize("contract, language", LANGUAGES)
def test_marks_stand_around_the_gold_words_and_the_page_names_the_language(contract, language):
    review = reviewed(contract, pages=(0, contract.text.index("\n\n", 500) + 2))
    page, pieces = review_page(review), list(text_pieces(review))
    spans = {span["text"] for row in contract.rows for span in row["answers"]}
    assert {piece["text"] for piece in pieces if piece["state"]} == spans
    assert [piece["page"] for piece in pieces if piece["page"]] == [1, 2]
    assert f'<div class="text" lang="{language}"' in page and '<html lang="en">' in page
    marked = re.findall(r'<mark class="sure">(.*?)</mark>', page, re.DOTALL)
    assert {text.replace("&amp;", "&") for text in marked} == spans
    lacking = [Finding(found.category, found.question, "absent", 0.1, ()) for found in review.findings]
    assert f'<bdi lang="{language}">' in two_page(review, replace(review, findings=tuple(lacking)))


def test_the_language_of_a_text_is_known_by_its_letters_or_commonest_words():
    assert {language_of(contract.text) for contract in tongues.CONTRACTS} == {"de", "es", "zh"}
    assert language_of(next(iter(small.TEXTS.values()))) == "en" and language_of("12.5 x 3") == language_of("") == ""
    assert language_of("この契約は、日本法に準拠する。") == "ja" and language_of("계약은 대한민국 법에 따른다.") == "ko"


def test_a_chinese_word_file_keeps_its_paragraphs_and_table():
    made, document = io.BytesIO(), docx.Document()
    for line in tongues.SERVICES.text.split("\n"):
        document.add_paragraph(line)
    document.add_table(1, 1).cell(0, 0).text = "附件：《服务水平说明》"
    document.save(made)
    (found,) = documents_of("服务合同.docx", made.getvalue())
    assert found.name == "服务合同" and found.text.endswith("附件：《服务水平说明》")
    assert "".join(found.text.split()).startswith("".join(tongues.SERVICES.text.split()))


@pytest.mark.parametrize("encoding, codec", [("UniGB-UCS2-H", "utf-16-be"), ("GBK-EUC-H", "gbk")])
def test_a_chinese_pdf_keeps_its_words_and_pages(encoding, codec):
    law, term = tongues.gold(tongues.SERVICES, "Governing Law"), tongues.gold(tongues.SERVICES, "Expiration Date")
    (found,) = documents_of("合同.pdf", reviewing.chinese_pdf(law, term, encoding=encoding, codec=codec))
    assert found.text == f"{law}\n\n{term}" and found.page_of(found.text.index(term)) == 2 and not found.unread


def test_a_chinese_text_in_an_older_encoding_is_read_and_a_german_one_as_before():
    (found,) = documents_of("a.txt", tongues.SERVICES.text.encode("gb18030"))
    assert found.text == tongues.SERVICES.text and "GB 18030" in found.unread[0]
    (found,) = documents_of("a.txt", tongues.LEASE.text.encode("cp1252"))
    assert found.text == tongues.LEASE.text and "Windows-1252" in found.unread[0]


def test_files_with_names_of_any_script_are_reviewed_into_pages_and_tables(tmp_path, monkeypatch):
    law = tongues.gold(tongues.SERVICES, "Governing Law").rstrip("。")
    script = small.Script(lambda messages: law if law in messages[-1]["content"] else NO_CLAUSE)
    monkeypatch.setattr(Reviewer, "load", lambda run, **_: reviewing.reviewer(tmp_path / "run", script))
    names = ["技术服务合同（终稿）" * 8, "Vertrag_U\u0308bersicht", "अनुबंध"]
    for name in names:
        (tmp_path / f"{name}.txt").write_text(
            tongues.SERVICES.text if name == names[0] else f"{name}. {tongues.LEASE.text}"
        )
    (tmp_path / "问题.txt").write_text("本合同适用哪国法律？\n")
    done = review_files(
        tmp_path / "run",
        [tmp_path / f"{name}.txt" for name in names],
        questions=tmp_path / "问题.txt",
        out=tmp_path / "评审",
    )
    assert done.complete and [path.is_file() for path in done.pages] == [True] * 3
    assert [path.stem[:7] for path in done.pages] == ["技术服务合同_", "Vertrag", "अनुबंध"] and "Übersicht" in done.pages[
        1
    ].stem
    (quote,) = done.reviews[0].findings[0].quotes
    assert tongues.SERVICES.text[quote.start : quote.end] == quote.text == law
    table = list(csv.DictReader(io.StringIO((done.out / "review.csv").read_bytes().decode("utf-8-sig"), newline="")))
    assert (table[0]["contract"], table[0]["quote"], table[0]["category"]) == (names[0], law, "本合同适用哪国法律？")
    book = openpyxl.load_workbook(done.out / "review.xlsx")
    assert law in book["Comparison"]["B2"].value and book["Quotes"]["A2"].value == names[0]
    assert csv_bytes(done.reviews) == (done.out / "review.csv").read_bytes()


def test_a_document_of_a_script_from_right_to_left_is_shown_in_its_direction():
    text = "يخضع هذا العقد لقوانين جمهورية مصر العربية وتختص محاكم القاهرة بالفصل في أي نزاع."
    review = reviewing.review(text, (), name="عقد")
    assert 'lang="ar" dir="auto"' in review_page(review) and Document("عقد", text).page_of(3) is None
