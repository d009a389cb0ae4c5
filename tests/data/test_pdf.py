"""Contracts in PDF files: a page counts by its own text, and what is not read is named."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from cuadft.core.errors import InputError
from cuadft.data.documents import read_plain_folder
from cuadft.data.pdf import page_ranges, pdf_pages

STAMP = "RECEIVED 12 March 2020 by the Clerk of the Court"


def body(number: int) -> str:
    return (
        f"Clause {number}. "
        + "The Supplier shall deliver the Goods to the Buyer. " * 3
        + "abcdefghij"[number % 10] * 20
    )


def write_pdf(path: Path, *pages: str, image: bool = False, **encryption: str) -> Path:
    """Write a PDF with a line of text on each page ("": none), over an image if wanted."""
    from PIL import Image
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    scan = io.BytesIO()
    Image.new("L", (30, 20), 200).save(scan, "PDF")
    writer = PdfWriter()
    for words in pages:
        if image:
            writer.append(io.BytesIO(scan.getvalue()))
            page = writer.pages[-1]
        else:
            page = writer.add_blank_page(600, 800)
        font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
        font = DictionaryObject({NameObject(key): NameObject(value) for key, value in font.items()})
        resources = page.get("/Resources", DictionaryObject()).get_object()
        resources[NameObject("/Font")] = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = resources
        stream = DecodedStreamObject()
        before = page.get_contents()
        drawn = b"q " + before.get_data() + b" Q " if before else b""
        stream.set_data(drawn + f"BT /F1 9 Tf 20 700 Td ({words}) Tj ET".encode())
        page[NameObject("/Contents")] = writer._add_object(stream)
    if encryption:
        writer.encrypt(**encryption)
    writer.write(path)
    return path


def fault(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        pdf_pages(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("pages", "image", "told"),
    [
        ([STAMP], True, "has no text on 1 of 1 pages (1)"),
        ([STAMP, *[""] * 5], True, "has no text on 6 of 6 pages (1-6)"),
        ([STAMP, *[""] * 5], False, "has no text on 5 of 6 pages (2-6)"),
        ([f"Acme Corp. - Supply Agreement - page {n} of 6" for n in range(6)], False, "has no text on 6 of 6"),
        ([body(1), *[""] * 39], False, "has no text on 39 of 40 pages (2-40)"),
        ([""], False, "has no text on 1 of 1 pages"),
    ],
)
def test_a_file_of_few_pages_with_text_is_no_contract(tmp_path: Path, pages: list[str], image: bool, told: str) -> None:
    message = fault(write_pdf(tmp_path / "a.pdf", *pages, image=image))
    assert told in message and "OCR" in message and "which cuadft does not do" in message


def test_pages_without_text_are_named_and_the_others_read(tmp_path: Path) -> None:
    path = write_pdf(tmp_path / "deal.pdf", body(1), body(2), "", body(4), "Signature page", image=False)
    texts, bare, damaged = pdf_pages(path)
    assert bare == [3, 5] and damaged == [] and body(4) in texts[3]
    with pytest.warns(UserWarning, match=r"deal\.pdf: Without text \(a scan, a picture or blank\): page 3, 5"):
        (contract,) = read_plain_folder(tmp_path)
    assert all(text in contract.text for text in texts)


def test_a_header_on_each_page_and_a_logo_do_not_count_against_a_page_with_text(tmp_path: Path) -> None:
    pages = [f"Acme Corp. - page {n}" + body(n) for n in range(4)]
    assert pdf_pages(write_pdf(tmp_path / "a.pdf", *pages, image=True))[1:] == ([], [])


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-128", "AES-256"])
def test_encrypted_files_are_read_unless_a_password_protects_them(tmp_path: Path, algorithm: str) -> None:
    path = write_pdf(tmp_path / "open.pdf", body(1), user_password="", owner_password="o", algorithm=algorithm)
    assert body(1) in pdf_pages(path)[0][0]
    path = write_pdf(tmp_path / "locked.pdf", body(1), user_password="secret", algorithm=algorithm)
    assert fault(path).startswith("is protected by a password: save a copy without one")
    with pytest.raises(InputError, match=r"locked\.pdf is protected by a password"):
        read_plain_folder(tmp_path)


def test_a_missing_package_for_aes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import pypdf

    def lacking(*_: object) -> None:
        raise pypdf.errors.DependencyError("cryptography>=3.1 is required for AES algorithm")

    monkeypatch.setattr(pypdf, "PdfReader", lacking)
    assert "pip install cryptography" in fault(tmp_path / "a.pdf")


@pytest.mark.parametrize(("numbers", "shown"), [([], ""), ([3], "3"), ([1, 2, 3, 5, 7, 8], "1-3, 5, 7-8")])
def test_pages_are_written_as_people_write_them(numbers: list[int], shown: str) -> None:
    assert page_ranges(numbers) == shown
