"""CUAD's own measure: which gold spans were found, and which predicted spans are none.

A predicted span counts as found if it shares at least half of all their different words with a gold span. A rule
that only asks whether the gold words are contained rewards quoting half the contract; here every further word
lowers the overlap, so that a quotation of more than twice the clause's different words is a false positive *and*
leaves the clause unfound. Source: Hendrycks et al. (2021), "CUAD: An Expert-Annotated NLP Dataset for Legal
Contract Review", and `evaluate.py` of its repository.
"""

from __future__ import annotations

from collections.abc import Sequence

THRESHOLD = 0.5  # lowest Jaccard overlap of a match
_MARKS = str.maketrans({".": None, ",": None, ";": None, ":": None, "/": " "})


def words(text: str) -> frozenset[str]:
    """Return the different words of a text in lower case, without full stops, commas, colons and semicolons."""
    return frozenset(text.translate(_MARKS).lower().split())


def jaccard(a: str, b: str) -> float:
    """Return the share of the two texts' different words that both have, 0 to 1; 0 if neither has a word."""
    ours, theirs = words(a), words(b)
    return len(ours & theirs) / len(ours | theirs) if ours or theirs else 0.0


def counts(predicted: Sequence[str], golds: Sequence[str], *, substring: bool = False) -> tuple[int, int, int]:
    """Return true positives (gold spans found), false positives (predicted spans that match none), false negatives.

    Several predicted spans that match one gold span count once, as do predicted spans of equal text; each gold span
    counts, equal ones too. An empty prediction is none. substring: a prediction that contains a gold span's text also
    matches it; the official script allows that for the category Parties only.
    """
    texts = [text for text in dict.fromkeys(predicted) if text]
    ours, theirs = [words(text) for text in texts], [words(gold) for gold in golds]
    matched: set[int] = set()
    found = 0
    for gold, wanted in zip(golds, theirs, strict=True):
        hits = [n for n, given in enumerate(ours) if _overlap(given, wanted) or (substring and gold in texts[n])]
        matched.update(hits)
        found += bool(hits)
    return found, len(texts) - len(matched), len(golds) - found


def _overlap(ours: frozenset[str], theirs: frozenset[str]) -> bool:
    if 2 * min(len(ours), len(theirs)) < max(len(ours), len(theirs)) or not ours:
        return False  # even if one held the other they would share less than half
    shared = len(ours & theirs)
    return shared >= THRESHOLD * (len(ours) + len(theirs) - shared)
