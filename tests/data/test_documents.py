"""Files of all kinds are read as they are, or refused with one clear message; offsets and pages fit the text."""

from __future__ import annotations

import io
import json
import zipfile

import docx
import pytest
import reviewing
from docx.oxml import parse_xml
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.data import documents
from cuadft.data.documents import document_of_text, documents_of, files_of, read_documents

LAW = "This Agreement is governed by the law of Ohio."
W = 'xmlns:w="http://schemas.openxmlformats.org/wordprocessingml/2006/main"'


def word(*, table: str = "", raw: str = "") -> bytes:
    document = docx.Document()
    document.add_paragraph(LAW)
    if table:
        document.add_table(1, 1).cell(0, 0).text = table
    if raw:
        document.element.body.insert(1, parse_xml(raw))
    made = io.BytesIO()
    document.save(made)
    return made.getvalue()


def archive(**inside: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, text in inside.items():
            file.writestr(name.replace("__", "."), text)
    return made.getvalue()


def cuad(*titles: str) -> bytes:
    data = [{"title": title, "paragraphs": [{"context": f"{title}. {LAW}", "qas": []}]} for title in titles]
    return json.dumps({"data": data}).encode()


def test_a_pdf_keeps_its_pages_and_says_which_ones_hold_no_text():
    (found,) = documents_of("supply.pdf", reviewing.pdf(LAW, "", f"{LAW}\nAnd no other law of any state."))
    assert found.name == "supply" and found.page_of(0) == 1 and found.text.count(LAW) == 2
    assert found.page_of(found.text.rindex(LAW)) == 3 and found.page_of(found.page_starts[1]) == 2
    (told,) = found.unread
    assert "page 2" in told


def test_a_word_file_is_read_with_tables_tracked_insertions_and_without_deletions():
    run = "<w:r><w:t>{}</w:t></w:r>"
    raw = f"<w:p {W}>{run.format('Fees are ')}<w:ins w:id='1' w:author='a'>{run.format('ten dollars')}</w:ins>"
    raw += "<w:del w:id='2' w:author='a'><w:r><w:delText>nine</w:delText></w:r></w:del></w:p>"
    (found,) = documents_of("a.docx", word(table="In a cell.", raw=raw))
    assert found.text == f"{LAW}\n\nFees are ten dollars\n\nIn a cell." and found.page_of(3) is None
    assert any("deletions" in told for told in found.unread)


def test_a_text_box_in_a_word_file_is_read_once():
    box = "<w:txbxContent><w:p><w:r><w:t>In a box of its own.</w:t></w:r></w:p></w:txbxContent>"
    raw = f"<w:p {W}><w:r><w:t>Around it.</w:t><w:pict>{box}</w:pict></w:r></w:p>"
    (found,) = documents_of("a.docx", word(raw=raw))
    assert found.text.count("In a box of its own.") == 1 and "Around it.In a box" not in found.text


def test_cuads_layout_gives_each_contract_under_its_title_with_its_very_text():
    for name, content in (
        ("new.json", cuad("One", "Two")),
        ("new.zip", archive(CUAD_v1__json=cuad("One", "Two").decode())),
    ):
        assert [(d.name, d.text) for d in documents_of(name, content)] == [(t, f"{t}. {LAW}") for t in ("One", "Two")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_a_text_is_read_in_the_encodings_that_people_have(encoding):
    text = f"§ 1 Übergabe.\r\n{LAW}"
    (found,) = documents_of("a.txt", text.encode(encoding))
    assert found.text == text.replace("\r\n", "\n")
    assert bool(found.unread) == (encoding == "cp1252")


FAULTS = {
    "empty.pdf": (b"", "is empty"),
    "blank.txt": (b" \n ", "is empty"),
    "locked.pdf": (reviewing.pdf(LAW, password="secret"), "protected by a password"),
    "scan.pdf": (reviewing.pdf("", ""), "text recognition"),
    "cut.pdf": (b"%PDF-1.7\n1 0 obj << /Type", "can't be read as a PDF"),
    "archive.pdf": (archive(a__txt="x"), "zip archive"),
    "old.doc": (b"\xd0\xcf\x11\xe0" + bytes(500), "Office file"),
    "page.html": (b"<p>" + LAW.encode(), "no HTML file"),
    "noise.txt": (bytes(range(256)) * 9, "binary"),
    "cut.docx": (word()[:2000], "zip archive"),
    "other.docx": (archive(**{"word/document__xml": "<a/>"}), "can't be read as DOCX"),
    "layout.json": (b'{"data": [{"title": "x"}]}', "paragraphs"),
    "short.txt": (b"Page 1", "text recognition"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_cant_be_read_is_refused_with_its_name_and_what_to_do(name):
    content, told = FAULTS[name]
    with pytest.raises(InputError, match=told) as error:
        documents_of(name, content)
    assert name in str(error.value) and len(str(error.value)) < 900


def test_a_longer_text_than_any_contract_is_refused(monkeypatch):
    monkeypatch.setattr(documents, "MOST_CHARACTERS", 100)
    with pytest.raises(InputError, match="cut it into parts"):
        document_of_text("long", LAW * 3)


def test_a_page_that_cant_be_read_is_named_and_the_others_stand(monkeypatch):
    import pypdf

    read = pypdf.PageObject.extract_text
    broken = lambda page: 1 / 0 if page.page_number == 0 else read(page)  # noqa: E731
    monkeypatch.setattr(pypdf.PageObject, "extract_text", broken)
    (found,) = documents_of("a.pdf", reviewing.pdf("First page of all.", LAW))
    assert LAW in found.text and "Damaged, not read: page 1." in found.unread


def test_a_folder_gives_its_files_and_names_the_others(tmp_path):
    for name in ("b/two.txt", "one.PDF", "notes.xlsx", ".hidden.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(LAW)
    found, others = files_of([tmp_path, tmp_path / "one.PDF"])
    assert [p.name for p in found] == ["two.txt", "one.PDF"] and [p.name for p in others] == ["notes.xlsx"]
    with pytest.raises(InputError, match="There is no"):
        files_of([tmp_path / "missing.pdf"])
    with pytest.raises(InputError, match="can't be read"):
        read_documents(tmp_path)


@given(st.text(st.characters(exclude_characters="\r\0"), min_size=30))
def test_any_text_with_letters_is_read_as_it_is(text):
    text += "twenty letters and some more"
    (found,) = documents_of("a.txt", text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode())
    assert len(found.text) == len(found.text.encode().decode()) and found.text.endswith("some more")


def test_a_renamed_file_has_the_same_key():
    one, other = document_of_text("one", LAW), document_of_text("other", LAW)
    assert one.key == other.key != document_of_text("one", LAW + " ").key
