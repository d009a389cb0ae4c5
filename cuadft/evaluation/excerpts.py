"""Cut excerpts out of a contract around marked spans, and show texts as HTML in a notebook and as text in a terminal.

A text to show is a list of `Piece`s, each with its marks. `ExcerptPage` shows cards of labelled lines of pieces; its
text for a terminal is its HTML without the tags.

    pieces = excerpt(contract_text, 1200, 3000, gold=[(1340, 1420)], around=100)
    html_text(piece_html(pieces))                     #  … either party may ⟦terminate on 30 days' notice⟧ if …
    ExcerptPage([("Notice", [("Passage", pieces)])])  # last line of a notebook cell, or print(...)
"""

from __future__ import annotations

import difflib
import html
import re
import textwrap
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from cuadft.core.text import fold_letters
from cuadft.data.passages import merge_spans

Span = tuple[int, int]
LabelledLine = tuple[str, list["Piece"]]  # a label and what stands beside it
GOLD_STYLE = "background:#ffe69c;color:#111;padding:0 1px"
CITED_STYLE = "text-decoration:underline 2px #0072B2;text-underline-offset:3px"
CARD = "border-left:3px solid #999;margin:0.8em 0;padding:0 0.8em;color:#111;background:#fff"
CELL = "text-align:left;vertical-align:top;white-space:normal;overflow-wrap:anywhere;background:#fff;color:#111"
TAG_SIGNS = {"<mark": "⟦", "</mark": "⟧", "<ins": "«", "</ins": "»", "<tr": "  ", "</th": ": "}  # tag -> in a terminal
WIDTH = 110  # characters of a line in a terminal
LONGEST_SPAN = 600  # characters shown of one marked span
GOLDS_SHOWN = 3
REACH = 15  # characters by which an excerpt may grow to end between words


class Piece(NamedTuple):
    """Hold a stretch of text, and whether it belongs to a gold span or is cited by the answer."""

    text: str
    gold: bool = False
    cited: bool = False


EVIDENCE_LEGEND = [Piece("gold span", gold=True), Piece(" "), Piece("words of the answer in the contract", cited=True)]


def excerpt(
    text: str, start: int, end: int, *, gold: Iterable[Span] = (), cited: Iterable[Span] = (), around: int = 160
) -> list[Piece]:
    """Return text[start:end] as pieces, with only `around` characters kept on each side of a marked span.

    gold, cited: (start, end) offsets in `text`; what lies outside start to end is left out. Without a mark the first
    2 * around characters are kept. An ellipsis stands where text is left out.
    """
    gold, cited = _cut_to(gold, start, end), _cut_to(cited, start, end)
    edges = {edge for span in gold + cited for edge in span}
    pieces, last = [], start
    for low, high in _windows(text, gold + cited or [(start, start)], start, end, around):
        if low > last:
            pieces.append(Piece(" … "))
        points = sorted({low, high} | {e for e in edges if low < e < high})
        for a, b in zip(points, points[1:], strict=False):
            marks = _is_covered(gold, a), _is_covered(cited, a)
            pieces.append(Piece(shorten(text[a:b], LONGEST_SPAN) if any(marks) else text[a:b], *marks))
        last = high
    return [*pieces, Piece(" … ")] if last < end else pieces


def _cut_to(spans: Iterable[Span], start: int, end: int) -> list[Span]:
    return [(max(a, start), min(b, end)) for a, b in spans if max(a, start) < min(b, end)]


def _is_covered(spans: Sequence[Span], place: int) -> bool:
    return any(a <= place < b for a, b in spans)


def _windows(text: str, marks: Sequence[Span], start: int, end: int, around: int) -> list[Span]:
    """Return the stretches to keep, in order and without overlap, each grown to the next blank if one is near."""
    found = []
    for a, b in marks:
        low, high = max(start, a - around), min(end, b + around * (2 if a == b else 1))  # without a mark: the beginning
        low -= len(re.search(r"\S*\Z", text[max(start, low - REACH) : low])[0])
        high += len(re.match(r"\S*", text[high : min(end, high + REACH)])[0])
        found.append((low, high))
    return merge_spans(found)


def mark_shared(text: str, others: Sequence[str]) -> list[Piece]:
    """Return a text in which the words that it shares with one of `others` are marked.

    Words are compared without case and punctuation. At least two words in a row count, or one if a text has no more.
    """
    parts = re.findall(r"\s+|\S+", text)
    places = [i for i, part in enumerate(parts) if fold_letters(part)]
    words, shared = [fold_letters(parts[i]) for i in places], set()
    for other in others:
        theirs = [word for word in map(fold_letters, other.split()) if word]
        least = max(1, min(2, len(words), len(theirs)))
        for block in difflib.SequenceMatcher(None, words, theirs, autojunk=False).get_matching_blocks():
            if block.size >= least:
                shared.update(range(places[block.a], places[block.a + block.size - 1] + 1))
    runs = groupby(range(len(parts)), key=lambda i: i in shared)
    return [Piece("".join(parts[i] for i in run), gold=marked) for marked, run in runs]


def gold_lines(golds: Sequence[str], longest: int) -> list[LabelledLine]:
    """Return a line for each of the first gold spans, cut to `longest` characters, and one that counts the others."""
    labels = ["Gold"] if len(golds) == 1 else [f"Gold {n}" for n in range(1, GOLDS_SHOWN + 1)]
    lines = [(label, [Piece(shorten(gold, longest), gold=True)]) for label, gold in zip(labels, golds)]
    if len(golds) > GOLDS_SHOWN:
        lines.append(("Gold", [Piece(f"{len(golds) - GOLDS_SHOWN} more spans")]))
    return lines or [("Gold", [Piece("none: the contract has no such clause")])]


def shorten(text: str, longest: int) -> str:
    """Return a text of at most `longest` characters, with an ellipsis for its middle where it was longer."""
    head = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def clean_text(text: str) -> str:
    """Return a text with single blanks and without control, zero-width and direction characters."""
    return "".join(c for c in re.sub(r"\s+", " ", text) if c.isprintable())


def piece_html(pieces: Iterable[Piece]) -> str:
    """Return pieces as HTML, with all their text escaped: gold spans in <mark>, cited ones in <ins>."""
    return "".join(_tagged(piece) for piece in pieces)


def _tagged(piece: Piece) -> str:
    # Each dollar sign gets an element of its own: a notebook takes two in one text for mathematics.
    inner = html.escape(clean_text(piece.text)).replace("$", "<span>$</span>")
    if piece.cited:
        inner = f'<ins style="{CITED_STYLE}">{inner}</ins>'
    return f'<mark style="{GOLD_STYLE}">{inner}</mark>' if piece.gold else inner


def html_text(page: str) -> str:
    """Return HTML made here as text: gold spans in double square brackets, cited ones in guillemets."""
    signed = re.sub(r"(</?\w+)[^>]*>", lambda tag: TAG_SIGNS.get(tag[1], ""), page)
    return html.unescape(signed.replace("⟧⟦", "").replace("»«", ""))


class ExcerptPage:
    """Show cards of labelled lines: HTML in a notebook, text in a terminal, with the same content."""

    def __init__(
        self,
        cards: Sequence[tuple[str, Sequence[LabelledLine]]],
        legend: Sequence[Piece] = EVIDENCE_LEGEND,
        empty: str = "No such answers.",
    ) -> None:
        """Take the cards, each a heading and its labelled lines, what the marks mean, and what is said of no cards."""
        self.cards, self.opening = cards, legend if cards else [Piece(empty)]

    def _repr_html_(self) -> str:
        parts = [f"<p>{piece_html(self.opening)}</p>\n"]
        for heading, lines in self.cards:
            rows = "".join(
                f'<tr><th style="{CELL};width:9em;min-width:9em">{piece_html([Piece(label)])}</th>'
                f'<td style="{CELL}">{piece_html(pieces)}</td></tr>\n'
                for label, pieces in lines
            )
            title = f"<p><b>{piece_html([Piece(heading)])}</b></p>"
            parts.append(f'<div style="{CARD}">{title}\n<table>{rows}</table></div>')
        return "\n".join(parts)

    def __str__(self) -> str:
        lines = html_text(self._repr_html_()).splitlines()
        return "\n".join(
            textwrap.fill(line, WIDTH, subsequent_indent=" " * 6, break_on_hyphens=False) for line in lines
        )

    __repr__ = __str__
