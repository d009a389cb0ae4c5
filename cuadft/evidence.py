"""Compare an answer with a reference by words, phrases, numbers, dates and negations: what the offline judge sees.

It reads no meaning. An answer first gets a stance (how it answers), then shares, each 0 to 1, of what it and the
reference have in common; `offline` weighs them by stance. Words of the question say nothing about the answer, so
that content is counted without them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from cuadft.matching import normalise
from cuadft.metrics import is_refusal

STANCES = ("denied", "brief", "explained", "quoted")
BRIEF = 8  # most words of an answer that counts as brief
OPENING = 250  # characters in which an answer shows its stance
PHRASE = 4  # words in a row that count as a phrase
ENOUGH = 8  # content words of a reference after which more of them add nothing to an explanation
ON_POINT = 0.6  # share of the content words of an explanation, found in the reference, that is as good as all
SAME_WORDS = 0.8  # share of common words, numbers and negations aside, from which two texts are the same statement

MONTHS = {
    name: str(n) for n, name in enumerate(
        ["january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
         "december"], start=1)
}  # fmt: skip
UNITS = ("one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
         "eighteen nineteen twenty").split()  # fmt: skip
NUMBERS = {name: str(n) for n, name in enumerate(UNITS, start=1)} | {
    "thirty": "30", "forty": "40", "forty-five": "45", "fifty": "50", "sixty": "60", "ninety": "90"
}  # fmt: skip
NEGATIONS = frozenset("not no never neither nor without cannot none".split())
STOP_WORDS = frozenset(
    "a about after all also an and any are as at be been before being but by can could did do does each either for from "
    "had has have he her him his how i if in into is it its may me might more most must my of on or other our out over "
    "own shall she should so some such than that the their them then there these they this those through to too under "
    "until up upon us very was we were what when where whether which while who whom why will with within would you your "
    "not no nor cannot".split()
)
REDACTED = re.compile(r"\[\s*\*+\s*\]")
SECTION = re.compile(r"(?:\b(?:sub)?sections?|\barticles?|\bexhibits?|§)\s*[\dA-Z][\w.()]*", re.IGNORECASE)
ITEM = re.compile(r"^\s*\d{1,2}[.)](?:\d+\.?)*(?=\s)", re.MULTILINE)  # "1." or "2.4" at the start of a line
VERB = re.compile(r"\b(?:may|march)\b(?!\s+\d)", re.IGNORECASE)  # not the months

AFFIRMATION = re.compile(r"^\W*(?:answer:\s*)?yes\b", re.IGNORECASE)
DENIAL = re.compile(  # "does not include" is also how clauses speak: there it takes the contract as its subject
    r"^\W*(?:answer:\s*)?no\b(?!\s+(?:later|less|more|earlier)\b)|^unfortunately\b"
    r"|\b(?:does|do|did|is|are|was|were|could|can|seems?|appears?)\s*(?:not|n't)\s+(?:\w+\s+){0,2}?"
    r"(?:appear|seem|contain|specif\w*|mention\w*|state[ds]?|indicat\w*|find|found|determine|clear|explicit\w*|there"
    r"|discuss\w*|address\w*|provided|included)\b"
    r"|\b(?:contract|(?-i:agreement)|context|text|document|excerpts?|passages?)\s+(?:does|do|did)\s*(?:not|n't)\s+(?:\w+\s+)?"
    r"(?:include|provide|have|grant|impose|require)\b"
    r"|\b(?:cannot|unable to|could not)\s+(?:\w+\s+)?(?:find|determine|locate)\b"
    r"|\bno (?:explicit|specific|such|clause|mention|information|restriction|provision|indication|minimum)\b",
    re.IGNORECASE,
)
PARTS = r"contract|agreement|context|text|document|two parties|parties|clause|provision"
VERBS = (r"states?|contains?|requires?|limits?|does|do|allows?|provides?|includes?|indicates?|gives?|grants?|appears?"
         r"|is|are|was|who|that")  # fmt: skip
EXPLANATION = re.compile(  # case matters: a clause speaks of "this Agreement", an explanation of "the agreement"
    r"^\W*(?:[Aa]nswer:\s*)?(?:[Yy]es|[Nn]o)\b|\b[Bb]ased on (?:the|this)\b|\b[Aa]ccording to\b"
    rf"|\b[Tt]he (?:{PARTS})\b (?:also |further )?(?:{VERBS})\b"
    r"|\b[Ss]pecifically\b|\b[Rr]easoning:|\b[Ss]ection [\d.()a-z]+ (?:states|contains|provides|of the)\b"
    r"|^[Tt]he (?:\w+ ){1,4}(?:is|are|will)\b"
)


def stance(answer: str) -> str:
    """Return how an answer answers: denied (says that nothing is there), brief, explained (about the contract) or quoted."""
    opening = answer[:OPENING]
    if is_refusal(answer) or (DENIAL.search(opening) and not AFFIRMATION.search(opening)):
        return "denied"
    if len(words(answer[: 20 * BRIEF])) <= BRIEF:
        return "brief"
    return "explained" if EXPLANATION.search(opening) else "quoted"


def words(text: str) -> list[str]:
    """Return lower-case words and numbers, number words as digits; a redaction such as [***] is no word."""
    found = re.findall(r"[a-z0-9]+", REDACTED.sub(" ", text).lower())
    return [NUMBERS.get(word, word) for word in found]


def content(tokens: Sequence[str]) -> set[str]:
    """Return the distinct stems (Porter, 1980) of the words that carry content."""
    return {_stem(token) for token in tokens if token not in STOP_WORDS}


def compare(question: str, answer: str, reference: str) -> dict[str, float]:
    """Return what an answer shares with one reference, each 0 to 1.

    phrase_recall, phrase_precision: words of the reference and of the answer inside common runs of `PHRASE` words
    (of all words where a text is shorter); phrase_root: the root of phrase_recall, since an explanation that has some
    of a long clause's phrases has its point. content_precision: content words of the answer that the reference holds,
    without the question's. on_point: content_precision against `ON_POINT`. found: content words of the reference
    that the answer holds, against `ENOUGH` at most; pithy: the geometric mean of content_precision and found.
    conflict: 1 if each text holds a number or date that the other lacks. contradiction: 1 if the texts are otherwise
    the same statement, and a number, a date or a negation differs.
    """
    ours, theirs, asked = words(answer), words(reference), content(words(question))
    mine, gold = content(ours) - asked, content(theirs) - asked
    common, conflict = len(mine & gold), _number_conflict(answer, reference)
    precision, found = common / max(1, len(mine)), min(1.0, common / max(1, min(len(gold), ENOUGH)))
    recall = _phrases(theirs, ours)
    return {
        "phrase_recall": recall,
        "phrase_root": recall**0.5,
        "phrase_precision": _phrases(ours, theirs),
        "content_precision": precision,
        "on_point": min(1.0, precision / ON_POINT),
        "found": found,
        "pithy": (precision * found) ** 0.5,
        "conflict": float(conflict),
        "contradiction": float(_same_statement(ours, theirs) and (conflict or _negated(ours) != _negated(theirs))),
    }


def _phrases(text: Sequence[str], other: Sequence[str]) -> float:
    size = min(PHRASE, len(text), len(other))
    if not size:
        return 0.0
    known = {tuple(other[n : n + size]) for n in range(len(other) - size + 1)}
    inside, end = 0, 0  # `end`: words before it are counted already
    for n in range(len(text) - size + 1):
        if tuple(text[n : n + size]) in known:
            inside += n + size - max(n, end)
            end = n + size
    return inside / len(text)


def _number_conflict(answer: str, reference: str) -> bool:
    ours, theirs = figures(answer), figures(reference)
    return bool(ours - theirs) and bool(theirs - ours)  # one more or one fewer alone is no contradiction


def figures(text: str) -> set[str]:
    """Return the numbers of a text, months and number words among them; numbers of sections and list items are none."""
    text = VERB.sub(" ", ITEM.sub(" ", SECTION.sub(" ", text)))
    found = re.findall(r"\d+(?:[.,]\d+)*|[a-z]+(?:-[a-z]+)?", text.lower())
    found = [MONTHS.get(word) or NUMBERS.get(word) or word.replace(",", "") for word in found]
    return {word.lstrip("0") for word in found if word[0].isdigit()}


def _same_statement(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    mine, gold = ({w for w in text if w not in NEGATIONS and not w.isdigit()} for text in (ours, theirs))
    return bool(mine & gold) and len(mine & gold) >= SAME_WORDS * len(mine | gold)


def _negated(text: Sequence[str]) -> bool:
    return not NEGATIONS.isdisjoint(text)


def same_words(answer: str, reference: str) -> bool:
    """Say whether answer and reference are the same words in the same order (SQuAD's normalisation)."""
    return normalise(answer) == normalise(reference)


@lru_cache(maxsize=100_000)
def _stem(word: str) -> str:
    return _stemmer().stem(word)


@lru_cache(maxsize=1)
def _stemmer():
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()
