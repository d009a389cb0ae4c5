"""The quotes of a language model's reply: one a line, each with its place in the contract and how sure the model was.

A reply of the local engine consists of words of the passage by construction (`models.verbatim`). Other engines may
change words: a changed line is snapped to the stretch of the passage that it repeats, or kept without a place. For
example:

    (quote,) = quotes_of_reply("the law of Ohio", hit.passage)
    quote.span          # [start, end) in the contract, None if the passage does not hold these words
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import SequenceMatcher
from typing import Any

from cuadft.core.text import UNSPACED, fold, quotable_places
from cuadft.data.passages import Passage, find_words
from cuadft.evaluation.text_scores import is_refusal

SNAP_FROM = 0.7  # share of a line's words that the passage must hold in this order for the line to be snapped to it
SAME_FROM = 0.9  # likeness from which a sentence is the same quote as the language model's
LEAST_SENTENCE = 0.001  # the probability of a quote that shares words with none of the likely sentences
_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]+")
LEAST_LOGPROB = -30.0  # a floor, so that one impossible token does not outweigh all other evidence


@dataclass(frozen=True)
class Quote:
    """Words that answer a question: `span` is [start, end) in the contract, None if they do not stand there.

    evidence: what speaks for the quote, by name; `p` is the probability that it is right, NaN until it was estimated.
    """

    text: str
    span: tuple[int, int] | None
    p: float = math.nan
    quoted: bool = True
    evidence: Mapping[str, float] = field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return what a prediction keeps of the quote."""
        kept = {name: round(value, 5) for name, value in self.evidence.items()}
        span = list(self.span) if self.span else None
        return {"text": self.text, "span": span, "p": round(self.p, 5), "quoted": self.quoted, "evidence": kept}


def quotes_of_reply(reply: str, passage: Passage, logprobs: Sequence[Mapping[str, Any]] | None = None) -> list[Quote]:
    """Return the quotes of a reply about one passage, [] if it refuses.

    logprobs: {"token", "logprob"} of each token and of the end mark, if the engine gave them. A line that is no piece
    of the passage is put onto the words that it repeats, where these are SNAP_FROM of its words.
    """
    if is_refusal(reply):
        return []
    clean, places = quotable_places(passage.text)
    clean = clean.encode("utf-8", "replace").decode()  # half a character is "?" to a model, as long as before
    sure = _line_evidence(reply, logprobs)
    found, after = [], 0
    for number, line in enumerate(reply.splitlines()):
        words = " ".join(line.split())
        if not words:
            continue
        inside = _place_of(words, clean, after)
        evidence = {"line": float(number), **(sure[number] if sure else {})}
        if inside is None:
            found.append(Quote(words, None, evidence=evidence))
            continue
        start, end = inside
        after = end
        span = passage.start + places[start], passage.start + places[end - 1] + 1
        text = " ".join(passage.text[span[0] - passage.start : span[1] - passage.start].split())
        if all(quote.span != span for quote in found):  # a line that is repeated is one quote
            found.append(Quote(text, span, evidence=evidence))
    return found


def quote_of_sentence(sentence: Passage, p: float) -> Quote:
    """Return a sentence of the contract as a quote that no language model made; p: how likely it is right."""
    lead = len(sentence.text) - len(sentence.text.lstrip())
    span = sentence.start + lead, sentence.start + len(sentence.text.rstrip())
    evidence = {"found": 1.0, "sentence_p": p}
    return Quote(" ".join(sentence.text.split()), span, p, quoted=False, evidence=evidence)


def with_sentences(quotes: Sequence[Quote], sentences: Sequence[Quote]) -> list[Quote]:
    """Return the quotes with what the sentences say of them, and behind them the sentences that no quote equals.

    A quote's `sentence_p` is that of the likeliest sentence that it shares words with, LEAST_SENTENCE where there is
    none. Without sentences the quotes stay as they are.
    """
    if not sentences:
        return list(quotes)
    told = []
    for quote in quotes:
        inside = [s.p for s in sentences if quote.span and _shared(quote.span, s.span)]
        told.append(replace(quote, evidence={**quote.evidence, "sentence_p": max(inside, default=LEAST_SENTENCE)}))
    placed = [quote.span for quote in quotes if quote.span]
    return told + [s for s in sentences if all(_likeness(span, s.span) <= SAME_FROM for span in placed)]


def with_votes(quotes: Sequence[Quote], draws: int) -> list[Quote]:
    """Return each different quote of several sampled replies once; `votes` is the share of the draws that made it.

    Source: Wang et al. (2023), "Self-consistency improves chain of thought reasoning in language models".
    """
    made: dict[Any, list[Quote]] = {}
    for quote in quotes:
        made.setdefault(quote.span or quote.text, []).append(quote)
    surest = [max(same, key=lambda quote: sorted(quote.evidence.items())) for same in made.values()]
    votes = [len(same) / draws for same in made.values()]
    return [replace(quote, evidence={**quote.evidence, "votes": own}) for quote, own in zip(surest, votes, strict=True)]


def _shared(a: tuple[int, int], b: tuple[int, int]) -> int:
    """Return the number of characters that two spans share."""
    return max(0, min(a[1], b[1]) - max(a[0], b[0]))


def _likeness(a: tuple[int, int], b: tuple[int, int]) -> float:
    """Return the number of characters that two spans share over that from the first to the last of both."""
    return _shared(a, b) / (max(a[1], b[1]) - min(a[0], b[0]))


def join_quotes(quotes: Sequence[Quote], passages: Sequence[Passage]) -> list[Quote]:
    """Return the quotes in the contract's order with those joined that the edge between two passages cut in two.

    passages: those that were read; they share no character. A joined quote keeps the evidence of its surer part.
    """
    placed = sorted((quote for quote in quotes if quote.span), key=lambda quote: quote.span)
    joined: list[Quote] = []
    for quote in placed:
        before = joined[-1] if joined else None
        if before and _cut_in_two(before.span[1], quote.span[0], passages):
            surer = max(before, quote, key=_sureness)
            gap = " " * (before.span[1] < quote.span[0])  # none where the edge cuts a word in two
            whole = replace(surer, text=before.text + gap + quote.text, span=(before.span[0], quote.span[1]))
            joined[-1] = replace(whole, quoted=before.quoted or quote.quoted)
        else:
            joined.append(quote)
    return joined + [quote for quote in quotes if not quote.span]


def _sureness(quote: Quote) -> tuple[float, float]:
    """Return what says which of two quotes is the surer one: its probability, else its passage's, then its words'."""
    p = quote.evidence.get("passage_p", 0.0) if math.isnan(quote.p) else quote.p
    return p, quote.evidence.get("mean", 0.0)


def _cut_in_two(end: int, start: int, passages: Sequence[Passage]) -> bool:
    """Tell whether an edge between two of the passages, and but white space, lies between two places."""
    for first in passages:
        for second in passages:
            if first.start < end <= first.end == second.start <= start < second.end:
                between = first.text[end - first.start :] + second.text[: start - second.start]
                return not between.strip()
    return False


def _place_of(words: str, clean: str, after: int) -> tuple[int, int] | None:
    """Return where a line stands in the cleaned passage, from `after` on if it can, else anywhere, else snapped."""
    end, patterns = len(clean), [re.compile(re.escape(words), flags) for flags in (0, re.IGNORECASE)]
    for pattern in patterns:
        if place := find_words(pattern, clean, after, end) or find_words(pattern, clean, 0, end):
            return place.span()
    for pattern in patterns if " " in words else ():  # a single word must be whole
        if place := pattern.search(clean, after) or pattern.search(clean):
            return place.span()
    return _snapped(words, clean)


def _snapped(words: str, clean: str) -> tuple[int, int] | None:
    """Return the stretch of the passage whose words a line repeats with few changes, None if there is no such."""
    own = [fold(word) for word in _WORD.findall(words)]
    held = list(_WORD.finditer(clean))
    longest = SequenceMatcher(None, own, [fold(word[0]) for word in held], autojunk=False).find_longest_match()
    begin, slack = longest.b - longest.a, len(own) // 2  # common words also stand far away: only those near count
    held = held[max(0, begin - slack) : begin + len(own) + slack]
    blocks = SequenceMatcher(None, own, [fold(word[0]) for word in held], autojunk=False).get_matching_blocks()
    blocks = [block for block in blocks if block.size]
    most, place = 0, None
    for n, first in enumerate(blocks):
        same = 0
        for last in blocks[n:]:
            same, length = same + last.size, last.b + last.size - first.b
            if same > most and same >= SNAP_FROM * max(len(own), length):
                most, place = same, (held[first.b].start(), held[last.b + last.size - 1].end())
    return place


def _line_evidence(reply: str, logprobs: Sequence[Mapping[str, Any]] | None) -> list[dict[str, float]]:
    """Return for each line how sure the model was of its first token, of its tokens together, and of its end.

    The log-probability of a line's end is that of the newline or of the end mark; 0 where the reply was cut.
    """
    if not logprobs:
        return []
    lines: list[list[float]] = [[]]
    ends: list[float] = []
    for token in logprobs:
        value = max(float(token["logprob"]), LEAST_LOGPROB)
        breaks = token["token"].count("\n")
        if breaks or token["token"] == "":
            ends += [value] * max(1, breaks)
            lines += [[] for _ in range(breaks)]
        else:
            lines[-1].append(value)
    lines += [[] for _ in range(len(reply.splitlines()) - len(lines))]
    ends += [0.0] * (len(lines) - len(ends))
    return [
        {
            "first": line[0] if line else 0.0,
            "mean": sum(line) / max(1, len(line)),
            "sum": max(sum(line), LEAST_LOGPROB),
            "end": end,
        }
        for line, end in zip(lines, ends)
    ]
