"""Show texts side by side, as an HTML table in a notebook and as labelled lines in a terminal, shared words marked."""

from __future__ import annotations

import difflib
import re
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from cuadft.excerpts import CARD, CELL, Piece, to_html, to_plain

WIDTH = 110  # characters of a line in a terminal
GROUND = "background:#fff;color:#111"  # notebooks stripe tables in the colours of their own theme


class Cell(NamedTuple):
    """The paragraphs of a cell, and the small print under them."""

    paragraphs: Sequence[Sequence[Piece]]
    note: str = ""


class Block(NamedTuple):
    """A heading, what is to be said first, the columns' names, and the rows with one cell per column."""

    heading: str
    text: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]


class Sides:
    """What a notebook shows as tables and a terminal as text."""

    def __init__(self, blocks: Sequence[Block], legend: str) -> None:
        """Take the blocks, and what a mark in their texts means."""
        self.blocks, self.legend = blocks, [Piece(legend, gold=True)]

    def _repr_html_(self) -> str:
        parts = [f"<p>{to_html(self.legend)}</p>" if self.blocks else "<p>Nothing to compare.</p>"]
        return "\n".join([*parts, *(_block_html(block) for block in self.blocks)])

    def __str__(self) -> str:
        parts = [to_plain(self.legend)] if self.blocks else ["Nothing to compare."]
        for block in self.blocks:
            parts.append(textwrap.fill(to_plain([Piece(f"{block.heading}. {block.text}")]), WIDTH))
            parts += ["\n".join(map(_cell_plain, block.columns, row)) for row in block.rows]
        return "\n\n".join(parts)

    __repr__ = __str__


def marked(text: str, others: Sequence[str], longest: int) -> list[Piece]:
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
        head = piece.text[:max(0, low - place)]
        tail = piece.text[max(0, high - place):] if size > longest else ""
        gap = "…" if size > longest and place <= low < place + len(piece.text) else ""
        place += len(piece.text)
        text = head + gap + tail
        if joined and joined[-1].gold == piece.gold:
            joined[-1] = joined[-1]._replace(text=joined[-1].text + text)
        elif text:
            joined.append(piece._replace(text=text))
    return joined


def _block_html(block: Block) -> str:
    style = f"{CELL};{GROUND};border-top:1px solid #ddd"
    head = "".join(f'<th style="{style}">{to_html([Piece(name)])}</th>' for name in block.columns)
    rows = "".join("<tr>" + "".join(f'<td style="{style}">{_cell_html(cell)}</td>' for cell in row) + "</tr>"
                   for row in block.rows)
    table = f'<table style="table-layout:fixed;width:100%"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    said = f"<b>{to_html([Piece(block.heading)])}.</b> {to_html([Piece(block.text)])}"
    return f'<div style="{CARD}"><p>{said}</p>{table if block.rows else ""}</div>'


def _cell_html(cell: Cell) -> str:
    note = [f"<small>{to_html([Piece(cell.note)])}</small>"] if cell.note else []
    return "<br>".join([*map(to_html, cell.paragraphs), *note])


def _cell_plain(name: str, cell: Cell) -> str:
    text = "; ".join(map(to_plain, cell.paragraphs)) + f" ({to_plain([Piece(cell.note)])})" * bool(cell.note)
    return textwrap.fill(f"  {to_plain([Piece(name)])}: {text}", width=WIDTH, subsequent_indent=" " * 6,
                         break_on_hyphens=False)
