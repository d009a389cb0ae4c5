"""Cut passages of a contract around marked spans, and show them as HTML in a table.

    pieces = excerpt(contract_text, 1200, 3000, gold=[(1340, 1420)], cited=[(1340, 1360)])
    marked_html([pieces])   # " … either party may <mark ...>terminate on 30 days' notice</mark> if … "

A text to show is a list of `Piece`s; what a contract or an answer says becomes HTML in `marked_html` alone, escaped.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from cuadft.core.text import clean_text, shorten
from cuadft.data.passages import merge_spans

Span = tuple[int, int]
AROUND = 160  # characters kept on each side of a marked span
REACH = 15  # characters by which an excerpt may grow to begin and end between words
LONGEST_PIECE = 400  # characters shown of a piece
GOLD_STYLE = "background:#ffe69c;color:#111"
CITED_STYLE = "text-decoration:underline 2px #0072B2;text-underline-offset:3px"


class Piece(NamedTuple):
    """Hold a stretch of text, and whether it belongs to a gold span or is cited by the answer."""

    text: str
    gold: bool = False
    cited: bool = False


GAP = Piece(" … ")
LEGEND = [Piece("gold span", gold=True), Piece(" "), Piece("words of the answer", cited=True)]


def excerpt(text: str, start: int, end: int, *, gold: Iterable[Span], cited: Iterable[Span] = ()) -> list[Piece]:
    """Return text[start:end] as pieces, with `AROUND` characters kept on each side of a marked span.

    gold, cited: (start, end) offsets in `text`; what lies outside start to end is left out. Without a mark the
    beginning is kept. An ellipsis stands where text is left out.
    """
    gold, cited = ([(max(a, start), min(b, end)) for a, b in spans if a < end and start < b] for spans in (gold, cited))
    marks = gold + cited or [(start, min(end, start + AROUND))]
    pieces, last = [], start
    for low, high in merge_spans(_window(text, mark, start, end) for mark in marks):
        pieces += [GAP] * (low > last)
        edges = sorted({low, high, *(edge for mark in marks for edge in mark)})
        for a, b in pairwise(edge for edge in edges if low <= edge <= high):
            covered = [any(first <= a < after for first, after in spans) for spans in (gold, cited)]
            pieces.append(Piece(shorten(text[a:b], LONGEST_PIECE), *covered))
        last = high
    return pieces + [GAP] * (last < end)


def _window(text: str, mark: Span, start: int, end: int) -> Span:
    """Return a span with what is kept around it, grown to the next blank if one is near."""
    low, high = max(start, mark[0] - AROUND), min(end, mark[1] + AROUND)
    low -= len(re.search(r"\S*\Z", text[max(start, low - REACH) : low])[0])
    high += len(re.match(r"\S*", text[high : min(end, high + REACH)])[0])
    return low, high


def marked_html(lines: Sequence[Iterable[Piece]]) -> str:
    """Return lines of pieces as HTML, with all their text escaped: gold spans in <mark>, cited ones in <u>."""
    return "<br>".join("".join(map(_tagged, line)) for line in lines)


def _tagged(piece: Piece) -> str:
    inner = html.escape(clean_text(piece.text))
    if piece.cited:
        inner = f'<u style="{CITED_STYLE}">{inner}</u>'
    return f'<mark style="{GOLD_STYLE}">{inner}</mark>' if piece.gold else inner
