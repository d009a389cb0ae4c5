"""Cut excerpts out of a contract around marked spans, and show texts as HTML in a notebook and as text in a terminal.

A text to show is a list of `Piece`s, each with its marks. Two kinds of pages are made of pieces: `ExcerptPage` (cards
of labelled lines) and `SideBySide` (tables whose columns are compared).

    pieces = excerpt(contract_text, 1200, 3000, gold=[(1340, 1420)], around=100)
    print(piece_plain(pieces))                        #  … either party may ⟦terminate on 30 days' notice⟧ if …
    ExcerptPage([("Notice", [("Passage", pieces)])])  # last line of a notebook cell, or print(...)
"""

from __future__ import annotations

import difflib
import html
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cuadft.core.text import fold_letters
from cuadft.data.passages import merge_spans

Span = tuple[int, int]
LabelledLine = tuple[str, list["Piece"]]  # a label and what stands beside it
GOLD_MARKS, CITED_MARKS = ("⟦", "⟧"), ("«", "»")
GOLD_STYLE = "background:#ffe69c;color:#111;padding:0 1px"
CITED_STYLE = "text-decoration:underline 2px #0072B2;text-underline-offset:3px"
LEGEND = "gold span", "words of the answer found in the contract"
CARD = "border-left:3px solid #999;margin:0.8em 0;padding:0 0.8em;color:#111;background:#fff"
CELL = "text-align:left;vertical-align:top;white-space:normal;overflow-wrap:anywhere"
OWN_COLOURS = "background:#fff;color:#111"  # notebooks stripe tables in the colours of their own theme
WIDTH = 110  # characters of a line in a terminal
LONGEST_SPAN = 600  # characters shown of one marked span
REACH = 15  # characters by which an excerpt may grow to end between words


class Piece(NamedTuple):
    """Hold a stretch of text, and whether it belongs to a gold span or is cited by the answer."""

    text: str
    gold: bool = False
    cited: bool = False


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
    cut = [(max(a, start), min(b, end)) for a, b in spans]
    return [span for span in cut if span[0] < span[1]]


def _is_covered(spans: Sequence[Span], place: int) -> bool:
    return any(a <= place < b for a, b in spans)


def _windows(text: str, marks: Sequence[Span], start: int, end: int, around: int) -> list[Span]:
    """Return the stretches to keep, in order and without overlap, each grown to the next blank if one is near."""
    no_mark = all(a == b for a, b in marks)  # one empty span at the start stands for it
    found: list[Span] = []
    for a, b in marks:
        low, high = max(start, a - around), min(end, b + around * (2 if no_mark else 1))
        before, after = text[max(start, low - REACH) : low], text[high : min(end, high + REACH)]
        low -= len(re.search(r"\S*\Z", before)[0]) if re.search(r"\s", before) or low - REACH <= start else 0
        high += len(re.match(r"\S*", after)[0]) if re.search(r"\s", after) or high + REACH >= end else 0
        found.append((low, high))
    return merge_spans(found)


def mark_shared(text: str, others: Sequence[str], longest: int) -> list[Piece]:
    """Return a text in which the words that it shares with one of `others` are marked.

    Words are compared without case and punctuation. At least two words in a row count, or one if a text has no more.
    The middle of a text of more than `longest` characters is left out.
    """
    parts = re.findall(r"\s+|\S+", text)
    places = [i for i, part in enumerate(parts) if fold_letters(part)]
    words, shared = [fold_letters(parts[i]) for i in places], set()
    for other in others:
        theirs = [word for word in map(fold_letters, other.split()) if word]
        least = min(2, len(words), len(theirs))
        for block in difflib.SequenceMatcher(None, words, theirs, autojunk=False).get_matching_blocks():
            if block.size >= max(1, least):
                shared.update(range(places[block.a], places[block.a + block.size - 1] + 1))
    return _middle_left_out([Piece(part, gold=i in shared) for i, part in enumerate(parts)], longest)


def _middle_left_out(pieces: Sequence[Piece], longest: int) -> list[Piece]:
    """Return neighbours of the same kind joined, and the middle left out of more than `longest` characters."""
    size = sum(len(piece.text) for piece in pieces)
    low, high = (longest // 2, size - longest // 2) if size > longest else (size, size)
    joined, place = [], 0
    for piece in pieces:
        head = piece.text[: max(0, low - place)]
        tail = piece.text[max(0, high - place) :] if size > longest else ""
        gap = "…" if size > longest and place <= low < place + len(piece.text) else ""
        place += len(piece.text)
        text = head + gap + tail
        if joined and joined[-1].gold == piece.gold:
            joined[-1] = joined[-1]._replace(text=joined[-1].text + text)
        elif text:
            joined.append(piece._replace(text=text))
    return joined


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


def piece_plain(pieces: Iterable[Piece]) -> str:
    """Return pieces as one line of text: gold spans in double square brackets, cited ones in guillemets."""
    line, gold, cited = "", False, False
    for piece in [*pieces, Piece("")]:  # the last one closes open marks
        if cited and not piece.cited:
            line += CITED_MARKS[1]
        if gold and not piece.gold:
            line += GOLD_MARKS[1]
        if piece.gold and not gold:
            line += GOLD_MARKS[0]
        if piece.cited and not cited:
            line += CITED_MARKS[0]
        line += clean_text(piece.text)
        gold, cited = piece.gold, piece.cited
    return line.strip()


def marks_legend() -> list[Piece]:
    """Return the pieces that explain the marks."""
    return [Piece(LEGEND[0], gold=True), Piece("   "), Piece(LEGEND[1], cited=True)]


class ExcerptPage:
    """Show cards of labelled lines: HTML in a notebook, text in a terminal, with the same content."""

    def __init__(self, cards: Sequence[tuple[str, list[LabelledLine]]]) -> None:
        """Take the cards, each a heading and its labelled lines."""
        self.cards = cards

    def _repr_html_(self) -> str:
        parts = [f"<p>{piece_html(marks_legend())}</p>" if self.cards else "<p>No such answers.</p>"]
        for heading, lines in self.cards:
            rows = "".join(
                f'<tr><th style="{CELL};width:9em;min-width:9em">{piece_html([Piece(label)])}</th>'
                f'<td style="{CELL}">{piece_html(pieces)}</td></tr>'
                for label, pieces in lines
            )
            parts.append(f'<div style="{CARD}"><p><b>{piece_html([Piece(heading)])}</b></p><table>{rows}</table></div>')
        return "\n".join(parts)

    def __str__(self) -> str:
        parts = [piece_plain(marks_legend()) if self.cards else "No such answers."]
        for heading, lines in self.cards:
            parts.append("\n".join([piece_plain([Piece(heading)]), *(_wrapped(*line) for line in lines)]))
        return "\n\n".join(parts)

    __repr__ = __str__


def _wrapped(label: str, pieces: Sequence[Piece]) -> str:
    head = f"  {piece_plain([Piece(label)])}: "
    return textwrap.fill(head + piece_plain(pieces), width=WIDTH, subsequent_indent=" " * 6, break_on_hyphens=False)


class SideCell(NamedTuple):
    """Hold the paragraphs of a cell, and the small print under them."""

    paragraphs: Sequence[Sequence[Piece]]
    note: str = ""


class SideBlock(NamedTuple):
    """Hold a heading, the text under it, the names of the columns, and rows with one cell per column."""

    heading: str
    text: str
    columns: Sequence[str]
    rows: Sequence[Sequence[SideCell]]


class SideBySide:
    """Show tables whose columns are compared: HTML in a notebook, text in a terminal."""

    def __init__(self, blocks: Sequence[SideBlock], legend: str) -> None:
        """Take the blocks, and what a mark in their texts means."""
        self.blocks, self.legend = blocks, [Piece(legend, gold=True)]

    def _repr_html_(self) -> str:
        parts = [f"<p>{piece_html(self.legend)}</p>" if self.blocks else "<p>Nothing to compare.</p>"]
        return "\n".join([*parts, *(_block_html(block) for block in self.blocks)])

    def __str__(self) -> str:
        parts = [piece_plain(self.legend)] if self.blocks else ["Nothing to compare."]
        for block in self.blocks:
            parts.append(textwrap.fill(piece_plain([Piece(f"{block.heading}. {block.text}")]), WIDTH))
            parts += ["\n".join(map(_cell_plain, block.columns, row)) for row in block.rows]
        return "\n\n".join(parts)

    __repr__ = __str__


def _block_html(block: SideBlock) -> str:
    style = f"{CELL};{OWN_COLOURS};border-top:1px solid #ddd"
    head = "".join(f'<th style="{style}">{piece_html([Piece(name)])}</th>' for name in block.columns)
    rows = "".join(
        "<tr>" + "".join(f'<td style="{style}">{_cell_html(cell)}</td>' for cell in row) + "</tr>" for row in block.rows
    )
    table = f'<table style="table-layout:fixed;width:100%"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    said = f"<b>{piece_html([Piece(block.heading)])}.</b> {piece_html([Piece(block.text)])}"
    return f'<div style="{CARD}"><p>{said}</p>{table if block.rows else ""}</div>'


def _cell_html(cell: SideCell) -> str:
    note = [f"<small>{piece_html([Piece(cell.note)])}</small>"] if cell.note else []
    return "<br>".join([*map(piece_html, cell.paragraphs), *note])


def _cell_plain(name: str, cell: SideCell) -> str:
    text = "; ".join(map(piece_plain, cell.paragraphs))
    if cell.note:
        text += f" ({piece_plain([Piece(cell.note)])})"
    line = f"  {piece_plain([Piece(name)])}: {text}"
    return textwrap.fill(line, width=WIDTH, subsequent_indent=" " * 6, break_on_hyphens=False)
