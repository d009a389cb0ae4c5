"""Cut a contract into passages with exact character offsets, and find where words stand in its text.

For example:

    passages = cut_passages(contract.text, contract=contract.title, size=800)
    overlapping(passages, row["answers"])             # indexes of the passages that hold a gold span
    locate_words("State of Delaware", contract.text)  # [start, end], or [] if the words are not there
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from cuadft.core.errors import InputError
from cuadft.core.text import MARKS, UNSPACED, is_unspaced

# Lengths in shares of the wanted size: the longest passage, the shortest, and a rest that joins the passage before it.
_LONGEST, _SHORTEST, _REST = 1.25, 0.6, 0.2
_OVERLAPS = [Fraction(0), *(Fraction(n, of) for of in (2, 3, 4) for n in range(1, of))]
# Where a passage may end, best first, always with the blanks that follow: after a paragraph with a closing mark (a
# heading has no such mark), after any paragraph, a sentence, a line, a clause in Chinese or Japanese, a word. After a
# full stop a capital begins the next sentence, or a letter of a script without capitals.
_CLOSING = ')"”’“‘»」』）】》〉'
_STOPS = "。！？；｡।॥"  # they end a sentence without a blank
_CAPITALS = "A-ZÀ-ÖØ-ÞΑ-ΩЀ-Я\u0531-\u0556\u05d0-\u0dff\u0e00-\u0fff\u3040-\ud7ff"
_ABBREVIATIONS = "Inc Corp Ltd Co No Art Sec Mr Dr St Prof Nr Abs Ziff ff bzw ggf gem vgl inkl zzgl evtl Sres Sra Avda"
_NO_ABBREVIATION = "".join(rf"(?<!\b{word}.)" for word in _ABBREVIATIONS.split())
_MONTHS = "Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember"
_NO_DATE = rf"(?:(?<!\d\.)|(?!\s+(?:{_MONTHS})(?:\s+\d{{4}}|\s+[a-zäöü]|[,.;)])))"  # "zum 31. Mai eines Jahres"
_ENDS = (
    re.compile(rf"(?<=[.!?:;{_CLOSING}\]{_STOPS}：؟])[^\S\n]*\n[^\S\n]*\n\s*"),
    re.compile(r"\n[^\S\n]*\n\s*"),
    re.compile(
        rf"[.!?;؟۔{_STOPS}](?:(?<=[^A-Za-z][{_STOPS}])[{_CLOSING}]*\s*|(?<=[{UNSPACED}].)(?=[{UNSPACED}\d])"
        rf"|(?:(?<=\w[\w{_CLOSING}].)|(?<=\d\s[€%].)){_NO_ABBREVIATION}{_NO_DATE}"
        rf"[{_CLOSING}]*\s+(?=[{_CAPITALS}(\"“„«¿¡\[]))"
    ),
    re.compile(r"\n\s*"),
    re.compile(rf"(?:[，、：]|(?<=[{UNSPACED}])[,:])\s*(?=[{UNSPACED}])"),
    re.compile(rf"\s+|(?<=[{UNSPACED}{MARKS}])(?=[{UNSPACED}])"),
)
_SENTENCE_ENDS = _ENDS[:3]
JOINER = "\u200d"
_OF_WORD = re.compile(rf"[^\W{UNSPACED}]|(?P<mark>[{MARKS}])")  # but for letters that are words of their own
# A heading joins what follows; a long sentence is cut at a semicolon. A Chinese sentence has a third of the characters.
_SHORTEST_SENTENCE, _SHORTEST_UNSPACED, _LONGEST_SENTENCE = 40, 13, 700


@dataclass(frozen=True)
class Passage:
    """A stretch of one contract's text, text[start:end] of the contract; `index` counts from 0 within the contract."""

    contract: str
    index: int
    start: int
    end: int
    text: str


def cut_passages(text: str, *, contract: str = "", size: int = 800, overlap: float = 0.0) -> list[Passage]:
    """Cut `text` into passages of about `size` characters that together are the whole text.

    A passage ends at the end of a paragraph near `size`, else of a sentence, a line or a word; it ends inside a word
    only if no blank is near. No passage is longer than 1.25 * size.

    overlap: the share of a passage that the next one repeats: 0, 1/4, 1/3, 1/2, 2/3 or 3/4 (0.33 and 0.67 are
    understood). The text is then cut into smaller pieces, and a passage is a run of them. With 1/2 a passage is two
    pieces, so that the second passage begins in the middle of the first one, and the third passage where the first one
    ends.

    Raises InputError on another overlap, or if `size` is below the number of pieces of a passage.
    """
    share = min(_OVERLAPS, key=lambda known: abs(known - overlap))
    pieces = share.denominator
    if not abs(share - overlap) < 0.01 or size < pieces:
        allowed = "give 100 characters or more, and 0, 0.25, 0.33, 0.5, 0.67 or 0.75"
        raise InputError(f"Invalid passage size {size} or overlap {overlap}: {allowed}")
    bounds = _bounds(text, size // pieces)
    last = max(len(bounds) - 1 - pieces, 0)  # the piece that the last passage starts with, so that it is a full one
    firsts = [*range(0, last, pieces - share.numerator), last] if text else []
    spans = [(bounds[n], bounds[min(n + pieces, len(bounds) - 1)]) for n in firsts]
    return [Passage(contract, n, start, end, text[start:end]) for n, (start, end) in enumerate(spans)]


def cut_sentences(text: str, *, contract: str = "") -> list[Passage]:
    """Cut `text` into its sentences, which together are the whole text but for white space; each is a Passage.

    A paragraph's end is a sentence's end. A piece below _SHORTEST_SENTENCE characters (_SHORTEST_UNSPACED in a text
    without blanks), such as a heading, joins the sentence after it; a sentence above _LONGEST_SENTENCE is cut at a
    semicolon, else at a comma or a blank.
    """
    least = _SHORTEST_UNSPACED if is_unspaced(text) else _SHORTEST_SENTENCE
    ends = sorted({len(text), *(match.end() for pattern in _SENTENCE_ENDS for match in pattern.finditer(text))})
    bounds = [0]
    for end in ends:
        if end - bounds[-1] < least and end != len(text):
            continue
        while end - bounds[-1] > _LONGEST_SENTENCE:
            length = _clause_length(text[bounds[-1] : bounds[-1] + _LONGEST_SENTENCE])
            bounds.append(_before_marks(text, bounds[-1] + length, bounds[-1]))
        bounds.append(end)
    # behind a long sentence that was cut, or at the text's end, a piece may hold white space alone: it is no sentence
    spans = [(start, end) for start, end in zip(bounds, bounds[1:]) if text[start:end].strip()]
    return [Passage(contract, n, start, end, text[start:end]) for n, (start, end) in enumerate(spans)]


def _clause_length(window: str) -> int:
    """Return where a long sentence is cut: after its last semicolon, comma or blank that is not near its start."""
    for mark in (r";\s|；", r"[,،]\s|[，、]", r"\s"):
        if ends := [match.end() for match in re.finditer(mark, window) if match.end() >= 2 * _SHORTEST_SENTENCE]:
            return ends[-1]
    return len(window)


def _bounds(text: str, size: int) -> list[int]:
    """Return the offsets that cut `text` into pieces of about `size` characters, from 0 to the text's length."""
    bounds = [0]
    while bounds[-1] < len(text):
        length = _next_length(text[bounds[-1] : bounds[-1] + int(_LONGEST * size) + 1], size)
        bounds.append(_before_marks(text, bounds[-1] + length, bounds[-1]))
    tiny = len(bounds) > 2 and bounds[-1] - bounds[-2] < _REST * size
    if tiny and bounds[-1] - bounds[-3] <= _LONGEST * size:
        del bounds[-2]
    return bounds


def _next_length(window: str, size: int) -> int:
    """Return the next piece's length; `window` is the text from its start to one character past the longest piece."""
    if len(window) <= size:
        return len(window)
    longest = int(_LONGEST * size)
    ends: list[int] = []
    for pattern in _ENDS:
        ends = [min(match.end(), longest) for match in pattern.finditer(window)]
        if near := [end for end in ends if end >= _SHORTEST * size]:
            return min(near, key=lambda end: (abs(end - size), end))
    return ends[-1] if ends else size


def _before_marks(text: str, place: int, start: int) -> int:
    """Return the last place up to `place` that parts no letter from its marks, `place` if there is none behind `start`.

    A joiner is such a mark too, with which several signs are one.
    """
    near = place
    while start < near < len(text) and (
        unicodedata.category(text[near])[0] == "M" or JOINER in text[near - 1 : near + 1]
    ):
        near -= 1
    return near if near > start else place


def overlapping(passages: Sequence[Passage], spans: Iterable[dict[str, Any]]) -> list[int]:
    """Return the indexes of one contract's passages that share a character with a span {"text", "start"}."""
    return sorted(gold_shares(passages, spans))


def gold_shares(passages: Sequence[Passage], spans: Iterable[dict[str, Any]]) -> dict[int, float]:
    """Return how much each passage of one contract is about the spans {"text", "start"}, by passage index.

    For one span, this is the number of characters that it shares with the passage over the length of the shorter of
    both: 1.0 if the passage holds the whole span, or lies in it. Of several spans the largest share counts. A passage
    that shares no character with a span is left out.
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


def merge_spans(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return (start, end) spans of one text in order, spans that touch or overlap as one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def join_pieces(pieces: Iterable[tuple[int, str]]) -> list[tuple[int, str]]:
    """Return pieces (start, text) of one text in order, pieces that touch or overlap joined, each character once."""
    joined: list[tuple[int, str]] = []
    for start, text in sorted(pieces, key=lambda piece: (piece[0], len(piece[1]))):
        first, known = joined[-1] if joined else (start, "")
        if joined and start <= first + len(known):
            joined[-1] = (first, known + text[first + len(known) - start :])
        else:
            joined.append((start, text))
    return joined


def join_passages(passages: Iterable[Passage]) -> tuple[str, int]:
    """Return the text of neighbouring passages of one contract, each character once, and the offset of its start."""
    joined = join_pieces((passage.start, passage.text) for passage in passages)
    return "".join(text for _, text in joined), joined[0][0] if joined else 0


def locate_words(answer: str, text: str, start: int = 0, end: int | None = None) -> list[int]:
    """Return the offsets [start, end] in `text` of the first place of `answer` in text[start:end], or [].

    Case and the kind and length of blanks may differ; between letters of a script without blanks there may be some or
    none. Whole words are looked for first; a single word must be whole.
    """
    words = answer.split()
    if not words:
        return []
    pattern, end = re.compile(words_pattern(words), re.IGNORECASE), len(text) if end is None else end
    # Some annotated spans end inside a word, so several words in a row are also looked for literally.
    found = find_words(pattern, text, start, end) or (pattern.search(text, start, end) if len(words) > 1 else None)
    return list(found.span()) if found else []


def words_pattern(words: Sequence[str]) -> str:
    """Return a pattern of words in a row with any blanks between them, which a script without blanks may lack."""
    literal = r"\s+".join(map(re.escape, words))
    return re.sub(rf"(?<=[{UNSPACED}{MARKS}])(?:\\s\+)?(?=[{UNSPACED}])", r"\\s*", literal)


def find_words(pattern: re.Pattern[str], text: str, start: int, end: int) -> re.Match[str] | None:
    """Return the first match in text[start:end] that neither begins nor ends inside a word."""
    found = pattern.search(text, start, end)
    while found and any(_is_in_word(text, place) for place in (found.start(), found.end()) if place != end):
        found = pattern.search(text, found.start() + 1, end)
    return found


def _is_in_word(text: str, place: int) -> bool:
    """Tell whether a place is inside a word, or before a mark; a letter of a script without blanks is a word."""
    if place in (0, len(text)):
        return False
    before, after = (_OF_WORD.match(text, near) for near in (place - 1, place))
    return bool(after and (before or after["mark"]))
