"""Compare two texts by their words, and two sets of spans by their characters."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(text: str) -> str:
    """Return the text in lower case without ASCII punctuation, English articles and extra white space.

    Source: Rajpurkar et al. (2016), section 6.1, in the order of the official SQuAD 2.0 evaluation script.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def references(golds: Sequence[str]) -> list[str]:
    """Return the texts an answer may match: each gold span and, if there are several, all of them joined."""
    return [*golds, "\n".join(golds)] if len(golds) > 1 else list(golds)


def overlap(answer: str, gold: str) -> tuple[float, float, float]:
    """Return precision, recall and F1 of the answer's normalised tokens as a bag; two empty texts agree."""
    return bag_overlap(Counter(normalise(answer).split()), Counter(normalise(gold).split()))


def bag_overlap(ours: Counter[str], theirs: Counter[str]) -> tuple[float, float, float]:
    """Return precision, recall and F1 of our tokens against theirs, all 1 if both bags are empty."""
    if not ours or not theirs:
        return (float(ours == theirs),) * 3
    shared = sum(min(count, ours[token]) for token, count in theirs.items())
    if not shared:
        return 0.0, 0.0, 0.0
    precision, recall = shared / ours.total(), shared / theirs.total()
    return precision, recall, 2 * precision * recall / (precision + recall)


def retrieved_share(
    gold: Sequence[tuple[int, int]], retrieved: Sequence[tuple[int, int]], *, elsewhere: int = 0
) -> tuple[float, float]:
    """Return recall and precision of the retrieved characters: shares of gold and of retrieved ones in both.

    gold, retrieved: (start, end) offsets in one text; characters inside several spans count once. elsewhere: number
    of characters retrieved from other texts, which lower the precision. Nothing retrieved: both 0; no gold character:
    both NaN. Source: Pipitone & Alami (2024), "LegalBench-RAG" (precision@k and recall@k over characters).
    """
    gold, retrieved = _union(gold), _union(retrieved)
    if not gold:
        return math.nan, math.nan
    shared = sum(max(0, min(e, f) - max(s, t)) for s, e in gold for t, f in retrieved)
    total_gold, total = (sum(e - s for s, e in spans) for spans in (gold, retrieved))
    return shared / total_gold, shared / (total + elsewhere) if shared else 0.0


def _union(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, end in sorted(s for s in spans if s[1] > s[0]):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
