"""Compare an answer with a reference by words, phrases, numbers, dates and negations: what the offline judge sees.

It reads no meaning. An answer first gets a stance (how it answers), then shares, each 0 to 1, of what it and the
reference have in common; `offline_judge` weighs them by stance. Words of the question say little about the answer, so
most shares of content words are counted without them. For example:

    stance_of("No, the contract does not mention it.")                    # "denied"
    compare_texts("Which notice?", "thirty days", "30 days' notice")      # {"phrase_recall": 0.67, ...}
    dates_in("signed on November 6, 2016")                                # {(2016, 11, 6)}
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from functools import lru_cache

from cuadft.core.text import fold_words, spaced
from cuadft.evaluation.text_scores import begins_with_denial, normalise_answer

BRIEF = 8  # most words of an answer that counts as brief
OPENING = 250  # characters in which an answer shows its stance
PHRASE = 4  # words in a row that count as a phrase
ON_POINT = 0.5  # an explanation with this share of its content words in the reference counts like one with all
SAME_WORDS = 0.8  # share of common words, numbers and negations aside, from which two texts are the same statement
ALIGNED = 500  # words at the start of two equal statements that are held against each other one by one
SWAP = 3  # most words of a difference in which another number or negation turns the statement round

SUBJECTS = r"contract|agreement|context|text|document|two parties|parties|clause|provision"
VERBS = (
    r"states?|contains?|requires?|limits?|does|do|allows?|provides?|includes?|indicates?|gives?|grants?|appears?"
    r"|is|are|was|who|that"
)
EXPLANATION = re.compile(  # case matters: a clause speaks of "this Agreement", an explanation of "the agreement"
    r"^\W*(?:[Aa]nswer:\s*)?(?:[Yy]es|[Nn]o)\b|\b[Bb]ased on (?:the|this)\b|\b[Aa]ccording to\b"
    rf"|\b[Tt]he (?:{SUBJECTS})\b (?:also |further )?(?:{VERBS})\b"
    r"|\b[Ss]pecifically\b|\b[Rr]easoning:|\b[Ss]ection [\d.()a-z]+ (?:states|contains|provides|of the)\b"
    r"|^[Tt]he (?:\w+ ){1,4}(?:is|are|will)\b"
)


def stance_of(answer: str) -> str:
    """Return how an answer answers: "denied", "brief", "explained" or "quoted".

    denied: is a refusal or begins as one (`text_scores.begins_with_denial`); brief: few words; explained: speaks
    about the contract; quoted: its own words.
    """
    answer = " ".join(answer.split(maxsplit=OPENING))
    opening = answer[:OPENING]
    if begins_with_denial(answer):
        return "denied"
    if len(compared_words(answer[: 20 * BRIEF])) <= BRIEF:
        return "brief"
    return "explained" if EXPLANATION.search(opening) else "quoted"


def compare_texts(question: str, answer: str, reference: str) -> dict[str, float]:
    """Return what an answer shares with one reference, each 0 to 1.

    phrase_recall, phrase_precision: words of the reference and of the answer inside common runs of `PHRASE` words
    (of all words where a text is shorter); phrase_root: the root of phrase_recall, since an explanation that has some
    of a long clause's phrases has its point. content_precision: content words of the answer that the reference holds,
    without the question's. on_point: content_precision against `ON_POINT`. some: 1 if there is such a word at all.
    word_precision, word_root: content words of the answer that the reference holds, and the root of the share of the
    reference's that the answer holds, the question's words counted with the others. conflict: 1 if each text holds a
    number or date that the other lacks. contradiction: 1 if the texts are otherwise the same statement, and in one
    place a number, a date or a negation differs, or if both hold dates and share none.
    """
    ours, theirs, asked = compared_words(answer), compared_words(reference), content_words(compared_words(question))
    all_mine, all_gold = content_words(ours), content_words(theirs)
    mine, common, shared = all_mine - asked, (all_mine & all_gold) - asked, len(all_mine & all_gold)
    precision, conflict = len(common) / max(1, len(mine)), _number_conflict(answer, reference)
    recall, dated = _phrases(theirs, ours), (dates_in(answer), dates_in(reference))
    turned = (all(dated) and dated[0].isdisjoint(dated[1])) or (
        _same_statement(ours, theirs) and _turned(answer, reference)
    )
    return {
        "phrase_recall": recall,
        "phrase_root": recall**0.5,
        "phrase_precision": _phrases(ours, theirs),
        "content_precision": precision,
        "on_point": min(1.0, precision / ON_POINT),
        "some": float(bool(common)),
        "word_precision": shared / max(1, len(all_mine)),
        "word_root": (shared / max(1, len(all_gold))) ** 0.5,
        "conflict": float(conflict),
        "contradiction": float(turned),
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


def _same_statement(ours: Sequence[str], theirs: Sequence[str]) -> bool:
    mine, gold = ({w for w in text if w not in NEGATIONS and not w.isdigit()} for text in (ours, theirs))
    return bool(mine & gold) and len(mine & gold) >= SAME_WORDS * len(mine | gold)


def _turned(answer: str, reference: str) -> bool:
    """Say whether, word held against word, the texts differ in a number, or one of them has a negation more."""
    ours, theirs = _plain_words(answer)[:ALIGNED], _plain_words(reference)[:ALIGNED]
    for _, i, j, k, m in SequenceMatcher(None, ours, theirs, autojunk=False).get_opcodes():
        one, other = set(ours[i:j]), set(theirs[k:m])
        ends = i == k == 0 or (j, m) == (len(ours), len(theirs))
        if max(j - i, m - k) > SWAP or (ends and not (one and other)):
            continue  # quoting more or less of a clause does not change its meaning
        numbers, others = ({word for word in part if word[0].isdigit()} for part in (one, other))
        if (numbers - others and others - numbers) or NEGATIONS.isdisjoint(one) != NEGATIONS.isdisjoint(other):
            return True
    return False


def same_words(answer: str, reference: str) -> bool:
    """Say whether answer and reference are the same words in order (SQuAD's normalisation), or the same date."""
    return normalise_answer(answer) == normalise_answer(reference) or same_date(answer, reference)


ONE_TO_TWENTY = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
TENS = {"thirty": "30", "forty": "40", "forty-five": "45", "fifty": "50", "sixty": "60", "ninety": "90"}
NUMBERS = {name: str(n) for n, name in enumerate(ONE_TO_TWENTY, start=1)} | TENS
NEGATIONS = frozenset("not no never neither nor without cannot none".split())
STOP_WORDS = frozenset(
    "a about after all also an and any are as at be been before being but by can could did do does each either for "
    "from had has have he her him his how i if in into is it its may me might more most must my of on or other our "
    "out over own shall she should so some such than that the their them then there these they this those through "
    "to too under until up upon us very was we were what when where whether which while who whom why will with "
    "within would you your not no nor cannot".split()
)


_NOT_ASCII = re.compile("[\x80-\u03ff]")


def compared_words(text: str) -> list[str]:
    """Return lower-case words and numbers, number words as digits; a redaction such as [***] is not a word."""
    # The weights in calibration.json were fitted on ASCII words, so that other Latin letters part words here.
    return [NUMBERS.get(word, word) for word in fold_words(spaced(_NOT_ASCII.sub("?", text)))]


def content_words(tokens: Sequence[str]) -> set[str]:
    """Return the distinct stems (Porter, 1980) of the words that carry content."""
    return {_stemmer()(token) for token in tokens if token not in STOP_WORDS}


@lru_cache(maxsize=1)
def _stemmer() -> Callable[[str], str]:
    from nltk.stem.porter import PorterStemmer

    return lru_cache(maxsize=100_000)(PorterStemmer().stem)


MONTH_NAMES = ("january february march april may june july august september october november december").split()
FULL_MONTHS = {name: str(n) for n, name in enumerate(MONTH_NAMES, start=1)}
SECTION_NUMBER = re.compile(r"(?:\b(?:sub)?sections?|\barticles?|\bexhibits?|§)\s*[\dA-Z][\w.()]*", re.IGNORECASE)
LIST_NUMBER = re.compile(r"^\s*\d{1,2}[.)](?:\d+\.?)*(?=\s)", re.MULTILINE)  # "1." or "2.4" at the start of a line
NUMBER_OR_WORD = re.compile(r"\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)*|\d+(?:\.\d+)*|[a-z]+(?:-[a-z]+)?")  # "6,2016" is two
CONTRACTED_NOT = re.compile(r"n['’]t\b", re.IGNORECASE)  # "doesn't"
ZEROS = re.compile(r"^0+(?=\d)|\.0+$")  # zeros that do not change a number
SCALES = {"thousand": 1_000, "million": 1_000_000, "billion": 1_000_000_000}
SCALED = re.compile(rf"(\d+(?:\.\d+)?)\s+({'|'.join(SCALES)})\b")
VERB_NOT_MONTH = re.compile(r"\b(?:may|march)\b(?!\s+\d)", re.IGNORECASE)  # "may" and "march" that are not months


def numbers_in(text: str) -> set[str]:
    """Return the numbers of a text, months and number words as digits; not those of sections and list items."""
    return {word for word in _plain_words(text) if word[0].isdigit()}


def _number_conflict(answer: str, reference: str) -> bool:
    ours, theirs = numbers_in(answer), numbers_in(reference)
    return bool(ours - theirs) and bool(theirs - ours)  # one more or one fewer alone is no contradiction


def _plain_words(text: str) -> list[str]:
    """Return the words and numbers of a text in order, each number written in one way ("1,500.00" is "1500")."""
    text = CONTRACTED_NOT.sub(" not", text)
    for left_out in (SECTION_NUMBER, LIST_NUMBER, VERB_NOT_MONTH):
        text = left_out.sub(" ", text)
    text = SCALED.sub(lambda found: f"{float(found[1]) * SCALES[found[2]]:.0f}", text.lower())
    words = NUMBER_OR_WORD.findall(text)
    digits = [FULL_MONTHS.get(word) or NUMBERS.get(word) or word.replace(",", "") for word in words]
    return [ZEROS.sub("", word) for word in digits]


MONTH_NUMBERS = FULL_MONTHS | {name[:3]: number for name, number in FULL_MONTHS.items()} | {"sept": "9"}
MONTH = "(?P<m>" + "|".join(sorted(MONTH_NUMBERS, key=len, reverse=True)) + r")\b\.?"
DAY, YEAR = r"(?P<d>\d{1,2})(?:st|nd|rd|th)?", r"(?P<y>\d{4})"
DATE_FORMS = [
    re.compile(rf"\b{form}\b", re.IGNORECASE)
    for form in (
        rf"{MONTH}\s+{DAY}\s*,?\s*{YEAR}",  # November 6, 2016
        rf"{DAY}\s+(?:day\s+of\s+)?{MONTH}\s*,?\s*{YEAR}",  # 6 November 2016
        rf"{YEAR},?\s+{MONTH}\s+{DAY}",  # 2016, November 6
        r"(?P<y>\d{4})-(?P<m>\d{1,2})-(?P<d>\d{1,2})",  # 2016-11-06
        r"(?P<m>\d{1,2})[/.-](?P<d>\d{1,2})[/.-](?P<y>\d{4})",  # 11/06/2016
    )
]


def dates_in(text: str) -> set[tuple[int, int, int]]:
    """Return the full dates in a text as (year, month, day); 11/06/2016 can be read in two ways and counts as both."""
    found = set()
    for form in DATE_FORMS:
        for match in form.finditer(text):
            year, month, day = (int(MONTH_NUMBERS.get(match[part].lower(), match[part])) for part in "ymd")
            found.add((year, month, day))
            if form is DATE_FORMS[-1]:
                found.add((year, day, month))
    return found


def same_date(text: str, other: str) -> bool:
    """Say whether both texts are a date and nothing else, and the same one."""
    return _bare(text) and _bare(other) and bool(dates_in(text) & dates_in(other))


def _bare(text: str) -> bool:
    rest = text
    for form in DATE_FORMS:
        rest = form.sub(" ", rest)
    return rest != text and not re.search(r"\w", re.sub(r"\bthe\b", " ", rest, flags=re.IGNORECASE))
