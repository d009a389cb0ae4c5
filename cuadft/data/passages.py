"""Cut a contract into passages with exact character offsets, and find where words stand in its text."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cuadft.core.errors import InputError

_LONGEST, _SHORTEST, _TAIL = 1.25, 0.6, 0.2
_OVERLAPS = [Fraction(0), *(Fraction(n, of) for of in (2, 3, 4) for n in range(1, of))]
# Where a passage may end, best first, always with the blanks that follow: a paragraph that closes (a heading
# doesn't), any paragraph, a sentence, a line, a word.
_ENDS = (
    re.compile(r"(?<=[.!?:;)\]\"”])[^\S\n]*\n[^\S\n]*\n\s*"),
    re.compile(r"\n[^\S\n]*\n\s*"),
    re.compile(
        r"(?<!\bInc)(?<!\bCorp)(?<!\bLtd)(?<!\bCo)(?<!\bNo)(?<!\bArt)(?<!\bSec)(?<!\bMr)(?<!\bDr)(?<!\bSt)"
        r"(?<=\w[\w)\"”’])[.!?;][\"”’)]*\s+(?=[A-Z(\"“\[])"
    ),
    re.compile(r"\n\s*"),
    re.compile(r"\s+"),
)


@dataclass(frozen=True)
class Passage:
    """A stretch of one contract: its text[start:end] == `text`; `index` counts from 0 within the contract."""

    contract: str
    index: int
    start: int
    end: int
    text: str


def cut_passages(text: str, *, contract: str = "", size: int = 800, overlap: float = 0.0) -> list[Passage]:
    """Cut `text` into passages of about `size` characters that together are the whole text.

    Each ends at the paragraph end nearest to `size`, else a sentence, line or word end; inside a word only
    where no blank is within reach. None is longer than 1.25 * size. With `overlap`, the share of a passage that
    the next one repeats, they are runs of smaller pieces that are cut so: with 0.5 of two pieces, the second and
    the fourth passage lie side by side. Raises InputError if size is below the number of pieces, or on an overlap
    other than 0, 1/4, 1/3, 1/2, 2/3 and 3/4 (0.33 and 0.67 will do).
    """
    share = min(_OVERLAPS, key=lambda known: abs(known - overlap))
    if not abs(share - overlap) < 0.01:
        raise InputError(f"Invalid passage overlap {overlap}: choose 0, 0.25, 0.33, 0.5, 0.67 or 0.75")
    pieces = share.denominator
    if size < pieces:
        raise InputError(
            f"Invalid passage size {size} with overlap {overlap}: give a number of characters from "
            f"{pieces}, such as 800"
        )
    bounds = _bounds(text, size // pieces)
    last = max(len(bounds) - 1 - pieces, 0)  # the piece with which the last passage starts: it is a full one, too
    firsts = [*range(0, last, pieces - share.numerator), last] if text else []
    spans = [(bounds[n], bounds[min(n + pieces, len(bounds) - 1)]) for n in firsts]
    return [Passage(contract, n, start, end, text[start:end]) for n, (start, end) in enumerate(spans)]


def _bounds(text: str, size: int) -> list[int]:
    """Return the offsets, 0 and the length included, that part `text` into pieces of about `size` characters."""
    bounds = [0]
    while bounds[-1] < len(text):
        bounds.append(bounds[-1] + _next_length(text[bounds[-1] : bounds[-1] + int(_LONGEST * size) + 1], size))
    tiny = len(bounds) > 2 and bounds[-1] - bounds[-2] < _TAIL * size
    if tiny and bounds[-1] - bounds[-3] <= _LONGEST * size:
        del bounds[-2]
    return bounds


def _next_length(window: str, size: int) -> int:
    """Return the next passage's length; `window` reaches one character past the longest allowed."""
    if len(window) <= size:
        return len(window)
    longest = int(_LONGEST * size)
    ends: list[int] = []
    for pattern in _ENDS:
        ends = [min(match.end(), longest) for match in pattern.finditer(window)]
        if near := [end for end in ends if end >= _SHORTEST * size]:
            return min(near, key=lambda end: (abs(end - size), end))
    return ends[-1] if ends else size


def overlapping(passages: Sequence[Passage], spans: Iterable[dict[str, Any]]) -> list[int]:
    """Return the indexes of one contract's passages that share a character with a span {"text", "start"}."""
    return sorted(gold_shares(passages, spans))


def gold_shares(passages: Sequence[Passage], spans: Iterable[dict[str, Any]]) -> dict[int, float]:
    """Return how far each of one contract's passages is about the spans {"text", "start"}, by passage index.

    That is, for the span that gives most, the characters that it shares with the passage over those of the
    shorter of the two: 1.0 if the passage holds a whole span, or nothing else. Passages that share none are left out.
    """
    ordered = sorted(passages, key=lambda passage: passage.end)
    ends = [passage.end for passage in ordered]
    found: dict[int, float] = {}
    for span in spans:
        start, end = span["start"], span["start"] + len(span["text"])
        for passage in ordered[bisect_right(ends, start) :]:
            common = min(end, passage.end) - max(start, passage.start)
            if common > 0:
                share = common / min(end - start, passage.end - passage.start)
                found[passage.index] = max(found.get(passage.index, 0.0), share)
    return found


def locate_words(answer: str, text: str, start: int = 0, end: int | None = None) -> list[int]:
    """Return the offsets [start, end] in `text` where `answer` first stands in text[start:end], or [].

    Case and the kind and length of blanks may differ. Whole words come first; a single word must be whole.
    """
    words = answer.split()
    if not words:
        return []
    literal = r"\s+".join(map(re.escape, words))
    before = r"(?<!\w)" if re.match(r"\w", words[0]) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", words[-1]) else ""
    # Annotated spans do end inside a word now and then, so words in a row are also taken literally.
    for pattern in [before + literal + after] + [literal] * (len(words) > 1):
        if found := re.compile(pattern, re.IGNORECASE).search(text, start, len(text) if end is None else end):
            return list(found.span())
    return []
