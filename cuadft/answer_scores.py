"""Compare an answer with the gold spans: exact match and F1 by the rules of SQuAD 2.0, and ROUGE-L.

The refusal sentence stands for the empty prediction with which SQuAD 2.0 abstains; gold spans of which normalisation
leaves nothing do not count, and where none is left only abstaining is right. Source: Rajpurkar et al. (2018), "Know
What You Don't Know", and the official `evaluate-v2.0.py`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property

from cuadft import rouge
from cuadft.matching import bag_overlap, normalise

NO_CLAUSE = "There is no such clause."
_GAP = r"[\W_]"
_REFUSAL = re.compile(f"{_GAP}*" + f"{_GAP}+".join(re.findall(r"\w+", NO_CLAUSE.casefold())) + f"{_GAP}*")


def is_refusal(answer: str | None) -> bool:
    """Say whether the answer is the refusal sentence alone; case, punctuation and spaces are ignored."""
    return answer is not None and _REFUSAL.fullmatch(answer.casefold()) is not None


class Text:
    """A text in the forms that the measures compare, each made once, when it is first asked for."""

    def __init__(self, text: str):
        """Take any text."""
        self.text = text

    @cached_property
    def plain(self) -> str:
        """Return the text as SQuAD normalises it."""
        return normalise(self.text)

    @cached_property
    def bag(self) -> Counter[str]:
        """Return how often each normalised token occurs."""
        return Counter(self.plain.split())

    @cached_property
    def tokens(self) -> list[str]:
        """Return the tokens that ROUGE counts."""
        return rouge.tokens(self.text)


class Comparison:
    """An answer beside the gold spans that count; every score is from 0 to 1, and 0 for a failed answer (None)."""

    def __init__(self, answer: str | None, golds: Sequence[str], prepare: Callable[[str], Text] = Text):
        """Take the answer and the gold spans, none if there is no such clause.

        prepare: makes a gold span's `Text`; give one with a cache to prepare spans that many answers share only once.
        """
        self.failed = answer is None
        self._answer = Text("" if answer is None or is_refusal(answer) else answer)
        self._golds = [gold for gold in map(prepare, golds) if gold.plain] or [Text("")]

    @property
    def abstained(self) -> bool:
        """Say whether it is the refusal sentence or has no word that counts, which SQuAD 2.0 reads as no answer."""
        return not self.failed and not self._answer.plain

    def exact_match(self) -> float:
        """Return 1 if the normalised answer equals a gold span, else 0."""
        return float(not self.failed and any(self._answer.plain == gold.plain for gold in self._golds))

    def f1(self) -> float:
        """Return the token F1 with the nearest gold span."""
        return 0.0 if self.failed else max(bag_overlap(self._answer.bag, gold.bag)[2] for gold in self._golds)

    def f1_all(self) -> float:
        """Return the token F1 with all gold spans together, as one bag of tokens."""
        together = sum((gold.bag for gold in self._golds), Counter())
        return 0.0 if self.failed else bag_overlap(self._answer.bag, together)[2]

    def rouge_l(self) -> float:
        """Return the ROUGE-L F with the nearest gold span; a refusal, or no gold span, scores as in `f1`."""
        if self.failed or not self._answer.plain or not self._golds[0].plain:
            return self.exact_match()
        return max(rouge.rouge_l(gold.tokens, self._answer.tokens) for gold in self._golds)


def exact_match(answer: str | None, golds: Sequence[str]) -> float:
    """Return SQuAD 2.0's exact match, 0 or 1: best over the gold spans (none: only a refusal is right)."""
    return Comparison(answer, golds).exact_match()


def token_f1(answer: str | None, golds: Sequence[str]) -> float:
    """Return SQuAD 2.0's token F1, 0 to 1: best over the gold spans (none: only a refusal is right)."""
    return Comparison(answer, golds).f1()
