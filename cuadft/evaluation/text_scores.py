"""Compare texts: an answer with gold spans (SQuAD 2.0, ROUGE-L), retrieved with gold characters, one text with many.

    token_f1("the laws of Ohio", ["laws of the State of Ohio"])    # 0.75
    is_refusal("There is no such clause")    # True
    KnownTexts(["Who may sublicense?"]).find("Who can sublicense?", 0.6)    # ("Who may sublicense?", 0.66...)

A refusal (`is_refusal`: the sentence `NO_CLAUSE`, in these or other words) stands for the empty prediction with which
SQuAD 2.0 abstains. A gold span of which normalisation leaves nothing does not count; if no gold span is left, only
abstaining is right. A text that is redacted throughout ("[***]") counts as one token. Source: Rajpurkar et
al. (2018), "Know What You Don't Know", and the official `evaluate-v2.0.py`.
"""

from __future__ import annotations

import math
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

from rapidfuzz import process
from rapidfuzz.distance import Indel, LCSseq

from cuadft.core.text import LETTER, MARKS, UNSPACED, spaced
from cuadft.data.passages import merge_spans

NO_CLAUSE = "There is no such clause."
REDACTED = re.compile(r"\*\s?\*\s?\*|\[\s*\*+\s*\]")  # words that a contract withholds: [***]
REDACTION = "***"  # the one token of a text that is redacted throughout
CACHED_TEXTS = 4096  # systems answer the same questions in the same order
_GAP = r"[\W_]"
# the refusal of any schema: "There is no such clause.", or one to three words in the clause's place
_REFUSAL = re.compile(rf"{_GAP}*there{_GAP}+is{_GAP}+no{_GAP}+such{_GAP}+([^\W_]+(?:[\s'’-]+[^\W_]+){{0,2}}){_GAP}*")
_SIGNS = string.punctuation + "−…·"
_SIGN_KINDS = (
    "Pd",
    "Pi",
    "Pf",
    "Cc",
    "Cf",
    "Zs",
    "Zl",
    "Zp",
)  # dashes, quotes, what has no form; "[•]" stands for words
_LONG_WORD = re.compile(r"[^\W_]{4}")  # whatever normalisation takes away, such a word is left


def is_blank(text: str) -> bool:
    """Say whether a text has no letter, digit or symbol, such as "", "-" or "—"; a redaction such as [***] has one."""
    signs = all(c in _SIGNS or unicodedata.category(c) in _SIGN_KINDS for c in text)
    return signs and not REDACTED.search(text)


def is_plain_refusal(answer: str | None) -> bool:
    """Say whether the answer is the refusal sentence alone, or has no word that counts: SQuAD 2.0's empty prediction.

    In place of "clause" the sentence may have the word of any schema ("There is no such statement."). Case, punctuation
    and spaces are ignored. A redaction such as [***] is an answer: it can be what the clause says.
    """
    if answer is None:
        return False
    if not _LONG_WORD.search(answer):
        return not REDACTED.search(answer) and (is_blank(answer) or not normalise_answer(answer))
    found = _REFUSAL.fullmatch(answer.casefold())
    return found is not None and not _PARTS.search(found[1])  # "no such cap unless agreed" says more


def is_refusal(answer: str | None) -> bool:
    """Say whether the answer says that there is no such clause, and no more: the one rule of all metrics and judges.

    That is the refusal sentence, nothing at all (see `is_plain_refusal`), or a refusal in other words. Each statement
    of such an answer denies ("The contract does not contain a cap.", "N/A") or talks around it ("The context discusses
    other matters."). An answer that denies and then quotes or reports a clause is no refusal; a clause that says what
    is not the case ("No license is granted hereunder") is none either.
    """
    if answer is None or is_plain_refusal(answer):
        return answer is not None
    words = answer.split(maxsplit=MOST_WORDS) if _CUE.search(answer) or _LACKS.search(answer[:LACKED]) else []
    if not words or len(words) > MOST_WORDS or REDACTED.search(answer):
        return False
    text = _unwrapped(" ".join(words))
    first, *rest = _statements(text)
    if not _denies(first) or _QUOTES_A_CLAUSE.search(text):
        return False
    return all(_denies(one) or _DENIES_LATER.search(one) or _AROUND.match(one) for one in rest)


def begins_with_denial(answer: str) -> bool:
    """Say whether the answer is a refusal or begins as one, whatever it goes on to say ("No, liability is capped.")."""
    if is_refusal(answer):
        return True
    opening = _unwrapped(" ".join(answer.split(maxsplit=MOST_WORDS)[:MOST_WORDS]))
    first = _statements(opening)[0]
    return _denies(first) and not _QUOTES_A_CLAUSE.search(first)


# Ways to tell whether an answer refuses. All metrics of a call share one of them; the other two are counted beside it.
WHOLE, SENTENCE, JUDGE = "whole", "sentence", "judge"
READINGS = {WHOLE: is_refusal, SENTENCE: is_plain_refusal, JUDGE: begins_with_denial}

MOST_WORDS = 90  # of a refusal in other words
LACKED = 200  # characters in which rarer words of a denial are looked for
_CUE = re.compile(  # what nearly every denial has; each begins with "n", so that the search is fast
    r"n(?:ot?|one|either|il|[/.]?a|ull|othing|['’]t|able|known|clear|answerable|sufficient|o_answer|(?<=silen)t)\b",
    re.IGNORECASE,
)
_LACKS = re.compile(r"\b(?:lacks?|absent|missing|impossible|cannotanswer)\b", re.IGNORECASE)
_QUOTES_A_CLAUSE = re.compile(  # a clause's own words, or a long quotation
    r"\b(?:shall|here(?:by|in|of|to|under|after|inafter)|there(?:of|under)|whereas)\b|[\"“”][^\"“”]{40}"
)
_WRAPPING = " \t\n\"'“”‘’«»`*_()[]{}<>.!?,;:…-–—#"
_LABEL = re.compile(
    r"^(?:(?:final )?answer|response)(?: is)?\W+(?!not\b|n't)|^i(?:'m| am) (?:sorry|afraid),? (?:but |that )?"
)
_PARTS = re.compile(  # where a statement ends: a sentence, a colon, a dash, "No," at the start, and a turn
    r"(?<=[.!?;:])[\"'”’)*]*\s+|\s+[-–—]+\s+|—|(?<=^no),\s*|,?\s+(?:but|however|although|though|while|except|only|unless"
    r"|other than|apart from|aside from|instead)\b,?\s*"
)
# A contract calls itself an agreement, and its parts sections: of those, fewer verbs and no "this" are taken.
_PAPER = r"(?:contract|context|text|document|passage|excerpt|information|material|content)s?"
_SOURCE = rf"(?:{_PAPER}|agreements?|sections?)"
_THE = r"(?:the|this|these|those|any of the|my) (?:\w+ ){0,2}"
_IN_PAPER = rf"(?:\s(?:anywhere )?(?:in|within|by|from|of) (?:{_THE}{_PAPER}|(?:the|my) agreement)\b.*)"
_HEDGE = r"(?:(?:appear|seem)s? to |(?:explicit|specific|direct|clear|express|actual)ly |(?:yet|also|currently|even) )*"
_NOT = r"\s*(?:not|n't)"
_CLEARLY_STATED = r"(?:mentioned|specified|stated|found|identified|indicated|discussed|given|provided|clear)"
_STATED = (
    rf"(?:{_CLEARLY_STATED}|addressed|defined|included|present|available|described|listed|set out|covered|outlined"
    r"|detailed|named|disclosed)"
)
_MENTION = (
    r"(?:clauses?|mention|provisions?|information|indication|reference|statement|language|evidence|details?|answer)"
)
_MENTIONS = (
    r"(?:contain|include|mention|specify|specifie|state|address|discuss|indicate|cover|define|answer|say)(?:e?s)?"
)
_TELL = (
    rf"(?:{_MENTIONS}|provide|give|identify|list|describe|reference|refer|disclose|outline|detail|name|set|have|make"
    r"|show|tell|clarify|reveal|explain|grant|impose|require)"
)
_FIND = r"(?:find|found|locate|determine|identify|answer|see|tell|know)"
_LEADS = (
    r"(?:(?:no|unfortunately|sorry|i(?:'m| am) (?:sorry|afraid)|therefore|thus|so|hence|also|and|it (?:seems|appears))"
    rf"(?: that)?[,.]?\s+|(?:based on|according to|from|in|within|given|after reviewing) {_THE}{_SOURCE}\b"
    r"[^,.]{0,60}, )*"
)
_DENIALS = (
    r"no|none|nothing|nil|n[/.]?a\.?|null|unknown|unanswerable|not applicable|no[ _]answer|no such thing|absent|missing"
    r"|can ?not ?answer|impossible to answer|(?:does not|doesn't) exist",
    r"i (?:do not|don't) know",
    rf"(?:none|nothing|not)(?: (?:was|is|were|are))?(?: \w+ly)? {_STATED}{_IN_PAPER}?",
    rf"(?:none|nothing|not) (?:in|of|from) (?:the|these|those|your|any of the) (?:\w+ )?{_PAPER}\b[^,]*",
    rf"neither (?:of {_THE})?(?:\w+ )?{_PAPER} {_MENTIONS}\b.*",
    rf"there\s*(?:'s|is|are|was|were|exists?)(?:\s+no|{_NOT})\s+(?:an?\b |any\b )?(?:(?:[\w'-]+,? ){{0,5}}?{_MENTION}\b"
    r"|(?:explicit|specific|express|such)\b|(?:enough|sufficient) information\b).*",
    rf"there\s*(?:is|are|was|were)(?:\s+no|{_NOT})\b[^,]*{_IN_PAPER}",
    rf"there (?:does|do|did){_NOT} (?:appear|seem) to be\b.*|there (?:appears?|seems?) to be no\b.*",
    rf"{_THE}{_PAPER}(?: \w+)?? (?:does|do|did){_NOT} {_HEDGE}{_TELL}\b.*",
    rf"{_THE}{_SOURCE}(?: \w+)?? (?:does|do|did){_NOT} {_HEDGE}{_MENTIONS}\b.*",
    rf"(?:it|they|this|that) (?:is|are|was|were){_NOT} {_HEDGE}{_STATED}{_IN_PAPER}",
    rf"(?:the )?(?:clause|provision|answer|information) (?:(?:is|was) )?not (?:{_STATED})?(?:{_IN_PAPER}| in context)?",
    rf"{_THE}{_SOURCE}(?: \w+)?? (?:has no|lacks?) (?:[\w'-]+ ){{0,6}}?{_MENTION}\b.*",
    rf"{_THE}{_SOURCE} neither {_MENTIONS}\b.*|(?:i|we) (?:have )?(?:found|find|see) no\b.*",
    rf"{_THE}{_PAPER} (?:between|by|of|with|dated) [^.]{{1,90}}? (?:does|do|did){_NOT} {_HEDGE}{_MENTIONS}\b.*",
    rf"(?:can ?not|could not|can't) be (?:found|determined|answered)(?:{_IN_PAPER}|$)",
    rf"(?:it|they) (?:does|do|did){_NOT} {_HEDGE}(?:mention|specify|state|say|address|discuss|indicate)\b.*",
    rf"{_THE}{_SOURCE}(?: \w+)?? {_MENTIONS} no\b.*",
    rf"{_THE}{_SOURCE}(?: \w+)?? (?:is|are|remains?) (?:silent|unclear)\b.*",
    rf"(?:the|an?|any|its|this|that|such) [^.]{{1,160}}? (?:is|are|was|were){_NOT} {_HEDGE}"
    rf"(?:{_STATED}{_IN_PAPER}|{_CLEARLY_STATED})",
    rf"(?:i|we) (?:(?:could|was|were|am|are|did|do|have){_NOT}|can't|can ?not|(?:am|was) unable to) {_HEDGE}"
    rf"(?:able to |have )?{_FIND}\b.*",
    rf"(?:i|we) (?:do|did){_NOT} have\b.*|insufficient information\b.*",
    rf"(?:(?:it is|i am|i'm) )?(?:not possible|impossible|unable) to {_FIND}\b.*",
    r"(?:this|it|the (?:question|answer)) (?:can ?not|can't|could ?n[o']t) be (?:found|determined|answered)\b.*",
    rf"no (?:such |relevant |related |applicable |explicit |specific |clear )*{_MENTION}(?: (?:exists?\b|(?:is|was|are"
    r"|were|about|on|regarding|concerning|address\w*|relat\w+ to|that|in (?:the|this|these|those|any|your)|for|found"
    r"|provided|given|specified|present)\b).*)?",
    r"no (?:explicit |specific )?(?:mention|indication|evidence|sign) of .*",
    rf"no [^.]{{1,120}}? (?:(?:is|are|was|were) )?(?:\w+ly )?"
    rf"(?:{_CLEARLY_STATED}{_IN_PAPER}|(?:mentioned|specified|found))",
)
_DENIES = re.compile(rf"{_LEADS}(?:{'|'.join(_DENIALS)})\s*$")
_DENIES_LATER = re.compile(
    rf"\b(?:does|do|did|is|are|was|were|could|can|has|have){_NOT} {_HEDGE}(?:be )?(?:{_STATED}|{_TELL}|{_FIND})\b"
    rf"|^(?:it|there) (?:is|does|did){_NOT}$|\bthere (?:is|are) no\b"
    r"|\bcannot (?:be )?(?:find|found|determine|determined)\b"
)
_AROUND = re.compile(  # what an answer says around a denial, and reports nothing of the contract
    rf"{_LEADS}(?:(?:{_THE}|all )?(?:{_SOURCE}|provisions|clauses)(?: (?:provided|given))? (?:(?:only|primarily"
    r"|mainly|mostly|instead|rather) )*(?:discuss|focus|deal|relate|concern|(?:appear|seem)s? to be)(?:e?s)?\b"
    r"|.*\b(?:typically|usually|generally)\b|(?:more|further|additional)\b|without (?:more|further|additional)\b"
    r"|please\b|(?:i|you) (?:would|may|should|might) (?:need|want|consult|review|check)\b)"
)


def _unwrapped(text: str) -> str:
    """Return a text folded, without what may stand around it: quotes, marks and the label "Answer:"."""
    return _LABEL.sub("", text.casefold().replace("’", "'").strip(_WRAPPING)).strip(_WRAPPING)


def _statements(text: str) -> list[str]:
    return [found for part in _PARTS.split(text) if part and (found := part.strip(_WRAPPING))] or [""]


def _denies(statement: str) -> bool:
    return _DENIES.match(statement) is not None


@lru_cache(CACHED_TEXTS)
def plain_text(text: str) -> str:
    """Return the text as SQuAD normalises it; if that leaves nothing of a redaction, `REDACTION`."""
    return normalise_answer(text) or (REDACTION if REDACTED.search(text) else "")


@lru_cache(CACHED_TEXTS)
def _bag(text: str) -> Counter[str]:
    """Return how often each normalised token occurs."""
    return Counter(plain_text(text).split())


class AnswerComparison:
    """An answer beside the gold spans that count; every score is from 0 to 1, and 0 for a failed answer (None)."""

    def __init__(self, answer: str | None, golds: Sequence[str], reading: str = WHOLE):
        """Take the answer and the gold spans; without gold spans there is no such clause. reading: of `READINGS`."""
        self.failed = answer is None
        self._answer = "" if answer is None or READINGS[reading](answer) else answer
        self._golds = [gold for gold in golds if plain_text(gold)] or [""]

    @property
    def has_clause(self) -> bool:
        """Say whether a gold span counts, so that a refusal is wrong."""
        return self._golds != [""]

    @property
    def abstained(self) -> bool:
        """Say whether it is a refusal, see `READINGS`: its scores are those of SQuAD 2.0's empty prediction."""
        return not self.failed and not plain_text(self._answer)

    def exact_match(self) -> float:
        """Return 1 if the normalised answer equals a gold span, else 0."""
        return float(not self.failed and any(plain_text(self._answer) == plain_text(gold) for gold in self._golds))

    def f1(self) -> float:
        """Return the token F1 with the nearest gold span."""
        return 0.0 if self.failed else max(bag_f1(_bag(self._answer), _bag(gold)) for gold in self._golds)

    def f1_all(self) -> float:
        """Return the token F1 with all gold spans together, as one bag of tokens; equal spans count once."""
        together = sum((_bag(gold) for gold in {plain_text(gold): gold for gold in self._golds}.values()), Counter())
        return 0.0 if self.failed else bag_f1(_bag(self._answer), together)

    def rouge_l(self) -> float:
        """Return the ROUGE-L F with the nearest gold span; a refusal, or no gold span, scores as in `f1`."""
        if self.failed or not plain_text(self._answer) or not self._golds[0]:
            return self.exact_match()
        return max(rouge_l(rouge_tokens(gold), rouge_tokens(self._answer)) for gold in self._golds)


def token_f1(answer: str | None, golds: Sequence[str]) -> float:
    """Return SQuAD 2.0's token F1, 0 to 1: best over the gold spans; without gold spans only a refusal is right."""
    return AnswerComparison(answer, golds).f1()


_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise_answer(text: str) -> str:
    """Return the text in lower case without ASCII punctuation, English articles and extra white space.

    Source: Rajpurkar et al. (2016), section 6.1, in the order of the official SQuAD 2.0 evaluation script. In a text
    with letters of a script without blanks, each of these is a token, and no punctuation is left, as in the evaluation
    script of Lewis et al. (2020), "MLQA: Evaluating Cross-lingual Extractive Question Answering".
    """
    if not text.isascii() and LETTER.search(text):
        text = spaced("".join(c for c in text if unicodedata.category(c)[0] != "P"))
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def gold_references(golds: Sequence[str]) -> list[str]:
    """Return the texts an answer may match: each gold span and, if there are several, all of them joined."""
    return [*golds, "\n".join(golds)] if len(golds) > 1 else list(golds)


def bag_f1(ours: Counter[str], theirs: Counter[str]) -> float:
    """Return the F1 of our tokens against theirs, 1 if both bags are empty."""
    if not ours or not theirs:
        return float(ours == theirs)
    shared = sum(min(count, ours[token]) for token, count in theirs.items())
    precision, recall = shared / ours.total(), shared / theirs.total()
    return 2 * precision * recall / (precision + recall) if shared else 0.0


def retrieved_share(gold: Sequence[tuple[int, int]], retrieved: Sequence[tuple[int, int]]) -> tuple[float, float]:
    """Return recall and precision of the retrieved characters: shares of gold and of retrieved ones in both.

    gold, retrieved: (start, end) offsets in one text; characters inside several spans count once. If nothing was
    retrieved, both are 0. If there is no gold character, both are NaN. Source: Pipitone & Alami (2024),
    "LegalBench-RAG" (precision@k and recall@k over characters).
    """
    gold, retrieved = (merge_spans(span for span in spans if span[1] > span[0]) for spans in (gold, retrieved))
    if not gold:
        return math.nan, math.nan
    shared = shared_characters(gold, retrieved)
    total_gold, total = (sum(end - start for start, end in spans) for spans in (gold, retrieved))
    return shared / total_gold, shared / total if shared else 0.0


def shared_characters(a: Sequence[tuple[int, int]], b: Sequence[tuple[int, int]]) -> int:
    """Return how many characters two lists of spans share; the spans of each do not overlap."""
    return sum(max(0, min(end, e) - max(start, s)) for start, end in a for s, e in b)


_NO_LATIN = rf"[^\W_\u0000-\u036f\u1e00-\u1eff\ufb00-\ufb06{UNSPACED}]"
_ROUGE_TOKEN = re.compile(rf"[a-z0-9]+|{LETTER.pattern}|{_NO_LATIN}(?:{_NO_LATIN}|[{MARKS}])+")


@lru_cache(CACHED_TEXTS)
def rouge_tokens(text: str) -> list[str]:
    """Return the tokens that ROUGE counts: lower-case runs of ASCII letters and digits, not stemmed.

    Other alphabets than the Latin one, of which the original leaves nothing, have runs of two letters or more, and in
    scripts without blanks each letter is a token.
    """
    return re.findall(r"[a-z0-9]+", text.lower()) if text.isascii() else _ROUGE_TOKEN.findall(text.lower())


def shingles(sequence: Sequence[str], size: int) -> set[tuple[str, ...]]:
    """Return every run of `size` tokens."""
    return {tuple(sequence[n : n + size]) for n in range(len(sequence) - size + 1)}


def rouge_l(a: Sequence[str], b: Sequence[str]) -> float:
    """Return the ROUGE-L F-measure of two token lists (Lin, 2004, section 3.1, beta 1), 0 if one is empty."""
    return 2 * LCSseq.similarity(a, b) / (len(a) + len(b)) if a and b else 0.0


class KnownTexts:
    """Texts to which `near` and `find` compare a new one, by ROUGE-L: thousands of comparisons take milliseconds."""

    def __init__(self, texts: Iterable[str] = ()):
        """Take the first texts; `add` takes more."""
        self._texts = list(dict.fromkeys(texts))
        self._tokens = list(map(rouge_tokens, self._texts))

    def add(self, text: str) -> None:
        """Remember one more text."""
        self._texts.append(text)
        self._tokens.append(rouge_tokens(text))

    def find(self, text: str, limit: float) -> tuple[str, float] | None:
        """Return the nearest known text with ROUGE-L F >= limit and that value, or None if there is none."""
        return next(self.near(text, limit), None)

    def near(self, text: str, limit: float) -> Iterator[tuple[str, float]]:
        """Yield every known text with ROUGE-L F >= limit and that value, the nearest first.

        ROUGE-L F is the normalised Indel similarity of the tokens, but for rounding: the exact value decides.
        """
        tokens = rouge_tokens(text)
        scorer = Indel.normalized_similarity
        for known, _, n in process.extract(tokens, self._tokens, scorer=scorer, score_cutoff=limit - 1e-9, limit=None):
            if (score := rouge_l(known, tokens)) >= limit:
                yield self._texts[n], score
