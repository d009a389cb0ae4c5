"""Cut excerpts out of a contract around marked spans, and show them as HTML or as plain text.

Show texts side by side, as an HTML table in a notebook and as labelled lines in a terminal, shared words marked.
"""

from __future__ import annotations

import difflib
import html
import re
import textwrap
from collections.abc import Iterable, Sequence
from typing import NamedTuple

Span = tuple[int, int]
Line = tuple[str, list["Piece"]]  # a label and what stands beside it
GOLD, CITED = ("⟦", "⟧"), ("«", "»")
GOLD_STYLE = "background:#ffe69c;color:#111;padding:0 1px"
CITED_STYLE = "text-decoration:underline 2px #0072B2;text-underline-offset:3px"
LEGEND = "gold span", "words of the answer found in the contract"
CARD = "border-left:3px solid #999;margin:0.8em 0;padding:0 0.8em;color:#111;background:#fff"
CELL = "text-align:left;vertical-align:top;white-space:normal;overflow-wrap:anywhere"
LONGEST = 600  # characters shown of one marked span
REACH = 15  # characters by which an excerpt grows to end between words


class Piece(NamedTuple):
    """A stretch of text, and whether it belongs to a gold span or is cited by the answer."""

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
    gold, cited = _inside(gold, start, end), _inside(cited, start, end)
    edges = {edge for span in gold + cited for edge in span}
    pieces, last = [], start
    for low, high in _windows(text, gold + cited or [(start, start)], start, end, around):
        pieces += [Piece(" … ")] * (low > last)
        points = sorted({low, high} | {e for e in edges if low < e < high})
        for a, b in zip(points, points[1:], strict=False):
            marks = _covers(gold, a), _covers(cited, a)
            pieces.append(Piece(shorten(text[a:b], LONGEST) if any(marks) else text[a:b], *marks))
        last = high
    return pieces + [Piece(" … ")] * (last < end)


def _inside(spans: Iterable[Span], start: int, end: int) -> list[Span]:
    cut = [(max(a, start), min(b, end)) for a, b in spans]
    return [span for span in cut if span[0] < span[1]]


def _covers(spans: Sequence[Span], place: int) -> bool:
    return any(a <= place < b for a, b in spans)


def _windows(text: str, marks: Sequence[Span], start: int, end: int, around: int) -> list[Span]:
    """Return the stretches to keep, in order and apart, each grown to the next blank if one is near."""
    only = all(a == b for a, b in marks)
    found: list[Span] = []
    for a, b in sorted(marks):
        low, high = max(start, a - around), min(end, b + around * (2 if only else 1))
        before, after = text[max(start, low - REACH) : low], text[high : min(end, high + REACH)]
        low -= len(re.search(r"\S*\Z", before)[0]) if re.search(r"\s", before) or low - REACH <= start else 0
        high += len(re.match(r"\S*", after)[0]) if re.search(r"\s", after) or high + REACH >= end else 0
        if found and low <= found[-1][1]:
            found[-1] = (found[-1][0], max(high, found[-1][1]))
        else:
            found.append((low, high))
    return found


def shorten(text: str, longest: int) -> str:
    """Return a text with its middle left out where it has more than `longest` characters."""
    head = (longest - 1) // 2
    return text if len(text) <= longest else f"{text[:head]}…{text[len(text) - (longest - 1 - head) :]}"


def clean_text(text: str) -> str:
    """Return a text with single blanks and without control, zero-width and direction characters."""
    return "".join(c for c in re.sub(r"\s+", " ", text) if c.isprintable())


def piece_html(pieces: Iterable[Piece]) -> str:
    """Return pieces as HTML, every character of theirs escaped: gold spans in <mark>, cited ones in <ins>."""
    return "".join(_tagged(piece) for piece in pieces)


def _tagged(piece: Piece) -> str:
    # A dollar sign of its own: notebooks take two in one text for mathematics.
    inner = html.escape(clean_text(piece.text)).replace("$", "<span>$</span>")
    if piece.cited:
        inner = f'<ins style="{CITED_STYLE}">{inner}</ins>'
    return f'<mark style="{GOLD_STYLE}">{inner}</mark>' if piece.gold else inner


def piece_plain(pieces: Iterable[Piece]) -> str:
    """Return pieces as one line of text: gold spans in double square brackets, cited ones in guillemets."""
    line, gold, cited = "", False, False
    for piece in [*pieces, Piece("")]:
        line += CITED[1] * (cited and not piece.cited) + GOLD[1] * (gold and not piece.gold)
        line += GOLD[0] * (piece.gold and not gold) + CITED[0] * (piece.cited and not cited)
        line += clean_text(piece.text)
        gold, cited = piece.gold, piece.cited
    return line.strip()


def marks_legend() -> list[Piece]:
    """Return the pieces that explain the marks."""
    return [Piece(LEGEND[0], gold=True), Piece("   "), Piece(LEGEND[1], cited=True)]


class ExcerptPage:
    """What a notebook shows as HTML and a terminal as text: the same lines under the same headings."""

    def __init__(self, cards: Sequence[tuple[str, list[Line]]]) -> None:
        """Take the cards: a heading and its labelled lines each."""
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
    return textwrap.fill(head + piece_plain(pieces), width=110, subsequent_indent=" " * 6, break_on_hyphens=False)


WIDTH = 110  # characters of a line in a terminal
GROUND = "background:#fff;color:#111"  # notebooks stripe tables in the colours of their own theme


class SideCell(NamedTuple):
    """The paragraphs of a cell, and the small print under them."""

    paragraphs: Sequence[Sequence[Piece]]
    note: str = ""


class SideBlock(NamedTuple):
    """A heading, what is to be said first, the columns' names, and the rows with one cell per column."""

    heading: str
    text: str
    columns: Sequence[str]
    rows: Sequence[Sequence[SideCell]]


class Sides:
    """What a notebook shows as tables and a terminal as text."""

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


def mark_shared(text: str, others: Sequence[str], longest: int) -> list[Piece]:
    """Return a text with the words marked that it shares with one of `others`, its middle left out beyond `longest` characters.

    Words are compared without case and punctuation; two in a row at least count, unless a text has one word alone.
    """
    parts = re.findall(r"\s+|\S+", text)
    places = [i for i, part in enumerate(parts) if _plain(part)]
    words, shared = [_plain(parts[i]) for i in places], set()
    for other in others:
        theirs = [word for word in map(_plain, other.split()) if word]
        least = min(2, len(words), len(theirs))
        for block in difflib.SequenceMatcher(None, words, theirs, autojunk=False).get_matching_blocks():
            if block.size >= max(1, least):
                shared.update(range(places[block.a], places[block.a + block.size - 1] + 1))
    return _cut([Piece(part, gold=i in shared) for i, part in enumerate(parts)], longest)


def _plain(word: str) -> str:
    return re.sub(r"[\W_]+", "", word.casefold())


def _cut(pieces: Sequence[Piece], longest: int) -> list[Piece]:
    """Return pieces of one kind joined, and the middle left out of more than `longest` characters."""
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


def _block_html(block: SideBlock) -> str:
    style = f"{CELL};{GROUND};border-top:1px solid #ddd"
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
    text = "; ".join(map(piece_plain, cell.paragraphs)) + f" ({piece_plain([Piece(cell.note)])})" * bool(cell.note)
    return textwrap.fill(
        f"  {piece_plain([Piece(name)])}: {text}", width=WIDTH, subsequent_indent=" " * 6, break_on_hyphens=False
    )
