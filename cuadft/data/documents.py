"""Read the documents that a person brings: PDF, DOCX, text, or a file in CUAD's layout.

A file is told by its content, not by its name alone, and one that can't be read raises an InputError that says what to
do. What a readable file holds besides, such as a page without text, is said in `unread`. For example:

    (document,) = read_documents(Path("supply.pdf"))
    document.text, document.page_of(1200), document.unread
"""

from __future__ import annotations

import codecs
import io
import logging
import re
import warnings
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from pathlib import Path

from cuadft.core.errors import InputError, brief
from cuadft.core.files import value_hash
from cuadft.core.text import is_unspaced, without_surrogates
from cuadft.data import contracts, layouts, pdf
from cuadft.data.download import LARGEST_MEMBER, opened_zip, read_zip_file, zip_member
from cuadft.data.schema import FROM_ROWS, Schema, packaged_schema

PLAIN = (".pdf", ".docx", ".txt")  # files of one document
SUFFIXES = (*PLAIN, ".zip", *layouts.SUFFIXES)  # of the files that are taken from a folder
MOST_CHARACTERS = 2_000_000  # of a contract, six times CUAD's longest
BETWEEN = "\n\n"  # pages and paragraphs
PDF, ZIP, OLD_OFFICE, RTF = b"%PDF-", b"PK", b"\xd0\xcf\x11\xe0", b"{\\rtf"
WORD_PART = "word/document.xml"
_LINE_END = re.compile(r"\r\n?")
_NO_TEXT = "has no text in it (a scan, or pictures?): run text recognition (OCR) on it, then give the result"


@dataclass(frozen=True)
class Document:
    """One document without annotations.

    name: the file's name without its ending, or the title in CUAD's layout. page_starts: the offset of each page's
    first character, () where there are no pages. unread: sentences on what could not be read.
    """

    name: str
    text: str
    page_starts: tuple[int, ...] = ()
    unread: tuple[str, ...] = ()
    file: str = ""

    @cached_property
    def key(self) -> str:
        """A hash of the text, 16 hexadecimal digits: a renamed file has the same."""
        return value_hash(self.text)[:16]

    def page_of(self, offset: int) -> int | None:
        """Return the page, from 1, that holds a character of the text; None where there are no pages."""
        return max(1, bisect_right(self.page_starts, offset)) if self.page_starts else None


def files_of(paths: Sequence[str | Path]) -> tuple[list[Path], list[Path]]:
    """Return the files to read, and those of the folders' files that are of another kind.

    A folder stands for all files below it whose names end in `SUFFIXES`, in the order of their names. Raises InputError
    for a path that does not exist.
    """
    found, others = [], []
    for path in map(Path, paths):
        if not path.exists():
            raise InputError(f"There is no {path}: give files ({', '.join(SUFFIXES)}) or folders with such files.")
        below = (
            sorted(p for p in path.rglob("*") if p.is_file() and not p.name.startswith(".")) if path.is_dir() else []
        )
        found += [p for p in below if p.suffix.lower() in SUFFIXES] if path.is_dir() else [path]
        others += [p for p in below if p.suffix.lower() not in SUFFIXES]
    return list(dict.fromkeys(found)), others


def read_documents(path: str | Path) -> list[Document]:
    """Return the contracts in a file: one, or several in CUAD's layout; raises InputError as `documents_of`."""
    path = Path(path)
    try:
        content = read_zip_file(path)
    except OSError as error:
        raise InputError(f"{path} can't be read ({error.strerror}): check the path and the rights.") from error
    return documents_of(path.name, content)


def documents_of(name: str, content: bytes) -> list[Document]:
    """Return the contracts in a file's content; `name` is the file's.

    Raises InputError if the content is empty, encrypted, damaged, of no known kind, too long, or has no text.
    """
    suffix, stem = Path(name).suffix.lower(), Path(name).stem
    if not content.strip():
        raise InputError(f"{name} is empty ({len(content)} bytes): save it again, then give it once more.")
    if PDF in content[:1024]:
        return [_checked(stem, *_pdf_text(name, content), file=name)]
    if content.startswith(ZIP):
        return _of_archive(name, content)
    for start, told in ((OLD_OFFICE, "is an old or a password-protected Office file"), (RTF, "is an RTF file")):
        if content.startswith(start):
            raise InputError(f"{name} {told}: save it as .docx or PDF, without a password, and give that.")
    if suffix in layouts.SUFFIXES:
        return _of_cuad(name, content)
    if suffix not in ("", ".txt"):
        raise InputError(f"{name} is no {suffix[1:].upper()} file: give a PDF, DOCX or TXT file, or CUAD's layout.")
    text, unread = _decoded(name, content)
    return [_checked(stem, text, unread=unread, file=name)]


def read_plain_folder(folder: str | Path, schema: Schema | None = None) -> list[contracts.Contract]:
    """Return every PDF, DOCX and TXT file of a folder as a contract without questions, titled by its file name.

    Files of other kinds, and what of a file can't be read, are left out with a warning. Raises InputError that names
    all files that can't be read, with the reason, such as scans.
    """
    folder, schema = Path(folder), schema or packaged_schema()
    found = sorted(path for path in folder.glob("[!.]*") if path.is_file())
    readable = [file for file in found if file.suffix.lower() in PLAIN]
    if not readable:
        raise InputError(f"{folder} is no folder with .pdf, .docx or .txt files; put the contracts there and run again")
    if others := [file.name for file in found if file not in readable]:
        warnings.warn(f"{folder}: left out, no PDF, DOCX or TXT files: {', '.join(others)}", stacklevel=2)
    texts, problems = {}, []
    for file in readable:
        try:
            (document,) = read_documents(file)
        except InputError as error:
            problems.append(str(error))
            continue
        texts[document.name] = document.text
        for told in document.unread:
            warnings.warn(f"{file.name}: {told}", stacklevel=2)
    problems += contracts.repeated([file.stem for file in readable], "file name")
    contracts.raise_problems(str(folder), problems)
    return [contracts.titled(name, text, schema) for name, text in texts.items()]


def document_of_text(name: str, text: str) -> Document:
    """Return a pasted text as a document; raises InputError if it has no text or is too long."""
    return _checked(name, _LINE_END.sub("\n", text))


def _checked(
    name: str, text: str, page_starts: Sequence[int] = (), unread: Sequence[str] = (), file: str = ""
) -> Document:
    if pdf.count_letters(text[: MOST_CHARACTERS + 1]) < pdf.FEWEST_LETTERS:
        raise InputError(f"{file or name} {_NO_TEXT}.")
    if len(text) > MOST_CHARACTERS:
        told = f"{file or name} has {len(text):,} characters, more than the {MOST_CHARACTERS:,} that are read"
        raise InputError(f"{told}: cut it into parts.")
    return Document(name, without_surrogates(text), tuple(page_starts), tuple(unread), file)


def _decoded(name: str, content: bytes) -> tuple[str, list[str]]:
    """Return the text of a file and what to say about it: UTF-8 or UTF-16, else what it can be of older encodings."""
    wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    unread: list[str] = []
    try:
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError:
        text, told = content.decode("gb18030", "replace"), "GB 18030: a text in another language than Chinese is wrong"
        if not is_unspaced(text):
            text, told = content.decode("cp1252", "replace"), "Windows-1252: letters with accents may be wrong"
        unread = [f"It is not UTF-8 and was read as {told}."]
    if "\0" in text:
        raise InputError(f"{name} is binary, no text: give a PDF, DOCX or TXT file, or CUAD's layout.")
    return _LINE_END.sub("\n", text), unread


def _of_cuad(name: str, content: bytes) -> list[Document]:
    return [
        _checked(found.title, found.text, file=name)
        for found in contracts.parse_contracts(content, name, Schema(FROM_ROWS))
    ]


def _of_archive(name: str, content: bytes) -> list[Document]:
    """Return the contracts of a zip archive: a DOCX file, or one in CUAD's layout."""
    with opened_zip(content, name) as archive:
        names = archive.namelist()
        if WORD_PART in names:
            zip_member(archive, WORD_PART, name)  # refuses what unpacks to far too much
            if (size := sum(info.file_size for info in archive.infolist())) > LARGEST_MEMBER:
                raise InputError(f"{name} unpacks to {size:,} bytes: take out its pictures, or give it as PDF.")
            return [_checked(Path(name).stem, *_docx_text(name, content), file=name)]
        if not layouts.contract_files(names):
            raise InputError(f"{name} is a zip archive without CUAD_v1.json: unpack it, and give the contracts in it.")
    return _of_cuad(name, content)


def _plain(text: str) -> str:
    """Return a text with plain line ends and blanks: a layout's blanks that don't break are no part of the words."""
    return _LINE_END.sub("\n", text).replace("\xa0", " ")


def _pdf_text(name: str, content: bytes) -> tuple[str, list[int], list[str]]:
    """Return a PDF's text, where its pages start, and which pages could not be read."""
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it mends in silence is no concern of the reader
    try:
        found, bare, lost = pdf.pdf_pages(io.BytesIO(content))
    except InputError as error:
        raise InputError(f"{name} {error}.") from error
    except Exception as error:  # a damaged PDF can make pypdf raise nearly anything
        advice = "open it in a PDF reader, print it to a new PDF, and give that"
        raise InputError(f"{name} can't be read as a PDF ({brief(error)}): {advice}.") from error
    texts = list(map(_plain, found))
    unread = [f"Damaged, not read: page {pdf.page_ranges(lost)}."] if lost else []
    unread += [f"Without text (a scan, a picture or blank): page {pdf.page_ranges(bare)}."] if bare else []
    starts = [0, *accumulate(len(text) + len(BETWEEN) for text in texts[:-1])] if texts else []
    return BETWEEN.join(texts), starts, unread


def _docx_text(name: str, content: bytes) -> tuple[str, tuple[()], list[str]]:
    """Return a DOCX file's text as it reads with all tracked changes accepted, and what is not in it."""
    import docx
    from docx.oxml import parse_xml

    try:
        document = docx.Document(io.BytesIO(content))
        parts = {rel.reltype.rpartition("/")[2]: rel for rel in document.part.rels.values() if not rel.is_external}
        notes = [parse_xml(parts[kind].target_part.blob) for kind in ("footnotes", "endnotes") if kind in parts]
    except Exception as error:  # a damaged file can make lxml and zipfile raise nearly anything
        raise InputError(f"{name} can't be read as DOCX ({brief(error)}): open and save it again.") from error
    body = document.element.body
    text = BETWEEN.join(paragraph for part in (body, *notes) for paragraph in _paragraphs(part))
    pictures, deleted = len(body.xpath(".//a:blip")), len(body.xpath(".//w:del"))
    unread = [f"Pictures, whose text is not read: {pictures}."] if pictures else []
    unread += [f"Tracked changes are taken as accepted; deletions left out: {deleted}."] if deleted else []
    unread += ["Comments are not read."] if "comments" in parts else []
    return text, (), unread


def _paragraphs(part: object) -> Iterator[str]:
    """Yield the paragraphs of a part of a DOCX file, those of tables, text boxes and content controls too."""
    own = "*[not(ancestor::w:del or ancestor::w:moveFrom or ancestor::mc:Fallback)]"
    names = {"w": "http://schemas.openxmlformats.org/wordprocessingml/2006/main"}
    names["mc"] = "http://schemas.openxmlformats.org/markup-compatibility/2006"
    word = "{" + names["w"] + "}"
    spelt = {f"{word}tab": "\t", f"{word}br": "\n", f"{word}cr": "\n", f"{word}noBreakHyphen": "-"}
    from lxml import etree

    for paragraph in etree.ElementBase.xpath(part, ".//w:p[not(ancestor::mc:Fallback)]", namespaces=names):
        pieces = []
        for piece in etree.ElementBase.xpath(paragraph, f".//w:r/{own}", namespaces=names):
            if next(piece.iterancestors(f"{word}p")) is paragraph:  # not of a text box inside the paragraph
                pieces.append(piece.text or "" if piece.tag == f"{word}t" else spelt.get(piece.tag, ""))
        if text := _plain("".join(pieces)).strip():
            yield text
