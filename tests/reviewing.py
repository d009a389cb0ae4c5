"""Made-up files and reviews for the tests of reviewing: PDFs, a run with a scripted language model, findings."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import small
from hypothesis import strategies as st

from cuadft.core import files, runs
from cuadft.data.documents import Document
from cuadft.rag.systems import System
from cuadft.retrieval.retriever import Retriever
from cuadft.review.reviewer import Finding, Question, Quoted, Review, Reviewer

RECORD = {"system": "sft", "program": "iter-01/program/rag.json", "weights": "iter-01/adapters/sft", "retriever": None}
QUESTIONS = [Question(category, text) for category, text in small.QUESTIONS.items()]
ODD = "".join(map(chr, (0, 8, 0x1F, 0x85, 0x9F, 0x2028, 0xFFFE, 0xFDD0, 0x1F600)))


def pdf(*pages: str, password: str = "") -> bytes:
    """Return a PDF that shows each text on a page of its own; "" is a page without text, like a scan."""
    import pypdf
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = pypdf.PdfWriter()
    font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    font = DictionaryObject({NameObject(key): NameObject(value) for key, value in font.items()})
    for text in pages:
        page = writer.add_blank_page(600, 800)
        shown = " T* ".join(f"({line}) Tj" for line in text.splitlines())
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 10 Tf 14 TL 20 780 Td {shown} ET".encode() if text else b"")
        fonts = DictionaryObject({NameObject("/F1"): writer._add_object(font)})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        page[NameObject("/Contents")] = writer._add_object(stream)
    if password:
        writer.encrypt(password)
    made = io.BytesIO()
    writer.write(made)
    return made.getvalue()


def chinese_pdf(*pages: str, encoding: str, codec: str) -> bytes:
    """Return a PDF of one line a page in a Chinese font that is named and not embedded, as many programs write it."""
    import pypdf
    from pypdf.generic import ArrayObject, DecodedStreamObject, DictionaryObject, NameObject

    def named(**given: object) -> DictionaryObject:
        return DictionaryObject(
            {NameObject(f"/{key}"): NameObject(f"/{v}") if isinstance(v, str) else v for key, v in given.items()}
        )

    writer = pypdf.PdfWriter()
    inner = named(Type="Font", Subtype="CIDFontType0", BaseFont="STSong-Light")
    kinds = {"Type": "Font", "Subtype": "Type0", "BaseFont": "STSong-Light", "Encoding": encoding}
    font = named(**kinds, DescendantFonts=ArrayObject([writer._add_object(inner)]))
    for text in pages:
        page, stream = writer.add_blank_page(600, 800), DecodedStreamObject()
        stream.set_data(f"BT /F1 10 Tf 20 780 Td <{text.encode(codec).hex()}> Tj ET".encode())
        page[NameObject("/Resources")] = named(Font=named(F1=writer._add_object(font)))
        page[NameObject("/Contents")] = writer._add_object(stream)
    made = io.BytesIO()
    writer.write(made)
    return made.getvalue()


def reviewer(run: Path, script: small.Script) -> Reviewer:
    """Return a reviewer of a run that has trained on the first two of `small`'s contracts, and held out the third."""
    splits = {title: split for title, split in zip(small.TEXTS, ("train", "train", "test"))}
    about = {"contract_type": "", "filer": "", "group": 0}
    records = [{"title": t, "split": split, "text": small.TEXTS[t]} | about for t, split in splits.items()]
    files.write_jsonl(run / "contracts.jsonl", records)
    passages = [p for p in small.retriever().passages if p.contract in splits]
    program = small.program()
    program.retriever = Retriever(passages, None, mode="bm25", cutting=(120, 0.0))
    return Reviewer(runs.Iteration(run, 1), "champion", System("sft", program, script.lm(), record=RECORD))


def review(text: str = "", findings: tuple[Finding, ...] = (), name: str = "Acme", **more: Any) -> Review:
    """Return a review as a reviewer would make it."""
    document = Document(name, text or small.TEXTS["Acme Distribution Agreement"], **more)
    return Review("0123456789abcdef", document, "quickstart", "sft of iteration 1", "", 0.43, 1.0, findings)


@st.composite
def reviews(draw: st.DrawFn) -> Review:
    """Draw reviews of any text, with quotes that overlap, touch, or stand nowhere."""
    text = draw(st.text(st.characters(codec="utf-8") | st.sampled_from(ODD + "<&\"'="), min_size=1, max_size=80))
    found = []
    for n in range(draw(st.integers(0, 4))):
        state = draw(st.sampled_from(["sure", "unsure", "absent", "failed"]))
        p = draw(st.none() | st.floats(0, 1)) if state != "absent" else draw(st.floats(0, 1))
        quotes = []
        for _ in range(draw(st.integers(0, 3)) if state in ("sure", "unsure") else 0):
            start, end = sorted((draw(st.integers(0, len(text) - 1)), draw(st.integers(1, len(text)))))
            place = (start, end) if start < end and draw(st.booleans()) else (None, None)
            words = text[start:end] or "nowhere"
            quotes.append(Quoted(words, *place, 1 if place[0] is not None else None, 0.5, draw(st.booleans())))
        found.append(Finding(f"Category {n}", f"Category {n}: is there?", state, p, tuple(quotes), "" * n))
    return review(text, tuple(found), page_starts=(0, len(text) // 2) if len(text) > 1 else ())


def replace_known(review: Review, known: str) -> Review:
    """Return a review of a contract that the run knows."""
    return replace(review, known=known)


def settled(review: Review) -> Review:
    """Return a review with a finding of each state, and without what differs from run to run."""
    states = ("sure", "unsure", "absent", "failed")
    found = [
        replace(each, state=states[n % 4], p_clause=0.3 if n % 4 == 2 else 0.9, error="it broke" * (n % 4 == 3))
        for n, each in enumerate(review.findings)
    ]
    return replace(review, run="run", key="0" * 16, seconds=0.0, findings=tuple(found))
