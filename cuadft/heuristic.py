"""Compare an answer with gold spans by words, numbers, dates and negations: the offline judge's evidence.

A heuristic: it reads no meaning. The weights are round numbers, set after a look at the verdicts that an LM
judge gave to four systems on one contract; they put answers in a useful order and are no measure of legal
correctness.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from cuadft.matching import normalise, overlap, references
from cuadft.metrics import is_refusal

RECALL_WEIGHT, PRECISION_WEIGHT = 0.5, 0.5
SIMILARITY_WEIGHT = 0.3  # share of the embedding similarity, where there is an embedder
CONTRADICTION = 0.5  # share of its score that an answer with another number, date or negation keeps
DECLINED = 0.5  # likewise for "the contract does not mention ..."; its score where that is so (no gold span)
SAME_WORDS_FROM = (
    0.8  # F1 from which two texts count as the same statement, so that a negation contradicts it
)

MONTHS = frozenset(
    ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
     "november", "december"]
)  # fmt: skip
NUMBERS = {
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
    "twelve": "12",
    "fifteen": "15",
    "twenty": "20",
    "thirty": "30",
    "sixty": "60",
    "ninety": "90",
}
NEGATIONS = frozenset(["not", "no", "never", "neither", "nor", "without", "cannot", "none"])
DECLINES = re.compile(
    r"\b(?:no|not|cannot|unable to)\b[^.]{0,60}"
    r"\b(?:stated?|provided?|mention(?:ed)?|specif(?:y|ied)|contain|include|restriction|clause|provision|determine)\b"
    r"|\bno information\b",
    re.IGNORECASE,
)
VERBS = re.compile(r"\b(?:may|march)\b(?!\s+\d)", re.IGNORECASE)  # not the months
SECTION = re.compile(r"(?:\bsections?|\barticles?|§)\s*\d[\w.()]*", re.IGNORECASE)


def features(answer: str, golds: Sequence[str], *, similarity: float | None = None) -> dict[str, float]:
    """Return what the offline judge looks at, each 0 to 1, against the gold span nearest in words.

    Keys: precision, recall, f1 (tokens); number_conflict, negation_conflict; refused (the refusal sentence),
    declined (says in prose that nothing is there), impossible (no gold span); similarity if it is given.
    """
    nearest = max(references(golds), key=lambda gold: overlap(answer, gold)[2], default="")
    precision, recall, f1 = overlap(answer, nearest) if golds else (0.0, 0.0, 0.0)
    found = {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "number_conflict": float(bool(golds) and _number_conflict(answer, " ".join(golds))),
        "negation_conflict": float(f1 >= SAME_WORDS_FROM and _negated(answer) != _negated(nearest)),
        "refused": float(is_refusal(answer)),
        "declined": float(DECLINES.search(answer) is not None),
        "impossible": float(not golds),
    }
    return found if similarity is None else found | {"similarity": min(1.0, max(0.0, similarity))}


def reference_score(found: Mapping[str, float]) -> float:
    """Return the offline judge's score, 0 (incorrect) to 1 (correct), from `features`."""
    if found["impossible"]:
        return 1.0 if found["refused"] else DECLINED * found["declined"]
    if found["refused"]:
        return 0.0
    score = RECALL_WEIGHT * found["recall"] + PRECISION_WEIGHT * found["precision"]
    if "similarity" in found:
        score = (1 - SIMILARITY_WEIGHT) * score + SIMILARITY_WEIGHT * found["similarity"]
    score *= CONTRADICTION if found["number_conflict"] or found["negation_conflict"] else 1.0
    return score * (DECLINED if found["declined"] and found["f1"] < SAME_WORDS_FROM else 1.0)


def _number_conflict(answer: str, reference: str) -> bool:
    ours, theirs = _figures(answer), _figures(reference)
    return bool(ours - theirs) and bool(theirs - ours)  # one more or one fewer alone is no contradiction


def _figures(text: str) -> set[str]:
    words = re.findall(r"\d+(?:[.,]\d+)*|[a-z]+", VERBS.sub(" ", SECTION.sub(" ", text)).lower())
    words = [NUMBERS.get(word, word).replace(",", "") for word in words]
    return {word for word in words if word[0].isdigit() or word in MONTHS}


def _negated(text: str) -> bool:
    return not NEGATIONS.isdisjoint(normalise(text).split())
