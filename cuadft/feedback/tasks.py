"""Which pairs of answers to put before a person next: those on which annotators, scores or systems disagree most.

A task is a dict: id, contract, question, passages ({"start", "end", "text"}, merged where they overlap), answer_a,
answer_b, system_a, system_b, spans_a, spans_b (contract offsets cited), prompt (messages or None), priority, and why (one
sentence that names neither a system nor the answer that a score prefers). Which answer is shown first is left to who asks.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any

from cuadft.core.errors import InputError
from cuadft.core.files import value_hash
from cuadft.evaluation.text_scores import is_refusal, normalise_answer, token_f1
from cuadft.feedback.records import pair_key

HELD_OUT = ("dev", "test", "slice", "slices")  # splits of predictions
DOUBT = 0.5  # weight of answers that no score tells apart, against 1 for scores that contradict each other
FLOOR = 0.01  # priority of a pair on which all agree, so that it still takes its turn
AROUND = 300  # characters shown on each side of a cited span that no passage holds

Scores = tuple[Mapping[str, Any], dict[str, float]]


@dataclass(frozen=True)
class _Pair:
    """Two different answers to one question with their scores, and how much there is to learn from a verdict."""

    first: Scores
    second: Scores
    priority: float
    why: str
    tie: str  # orders pairs of equal priority


def feedback_tasks(
    candidates: Sequence[Mapping[str, Any]],
    *,
    scores: Mapping[str, Sequence[float]],
    texts: Mapping[str, str],
    size: int,
    judged: Collection[str] = (),
    disputed: Collection[str] = (),
    seed: int,
) -> list[dict[str, Any]]:
    """Return up to `size` tasks, the most instructive first, spread over contracts and categories.

    candidates: prediction rows of training questions, of several systems or draws; failed ones make no pair, answers
    that SQuAD's normalisation makes equal are one. scores: name (of a judge or metric) -> a score from 0 to 1 for each
    candidate, NaN where there is none. texts: contract title -> text. judged: keys of pairs to leave out (`Store.done`);
    disputed: keys of pairs on which annotators differ (`annotators.disagreements(...)["pair"]`).

    A pair's priority is 1 if it is disputed, plus the smaller of the two gaps where two scores rank the answers
    oppositely, plus DOUBT * (1 - mean gap) * (1 - likeness of the answers, see `likeness`). Each pair taken of a contract
    or category lowers the rest of it: priority / ((1 + of the contract) * (1 + of the category)). Equal input and seed
    give equal tasks. Raises InputError on candidates of a held-out split, scores that do not fit, and unknown contracts.
    """
    _check(candidates, scores, texts, size)
    rows = [(row, {name: _number(values[n]) for name, values in scores.items()}) for n, row in enumerate(candidates)]
    pairs = list(_pairs(rows, frozenset(judged), frozenset(disputed), seed))
    return [_task(pair, texts[pair.first[0]["contract"]]) for pair in _spread(pairs, size)]


def answer_likeness(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return how alike two predictions are, 0 to 1.

    Where both cite spans: the characters that both cite over those that either cites; else the token F1 of the answers;
    0 if one refuses and the other does not.
    """
    if is_refusal(one["answer"]) != is_refusal(other["answer"]):
        return 0.0
    ours, theirs = (_characters(row.get("spans") or []) for row in (one, other))
    if ours and theirs:
        return len(ours & theirs) / len(ours | theirs)
    return token_f1(one["answer"], [other["answer"]])


def _check(
    candidates: Sequence[Mapping[str, Any]], scores: Mapping[str, Sequence[float]], texts: Mapping[str, str], size: int
) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise InputError(f"Invalid size {size!r} of the backlog: give a whole number of pairs from 0.")
    for row in candidates:
        if row.get("split") in HELD_OUT:
            raise InputError(
                f"{row['id']!r} is of the {row['split']} split, from which nothing may be learned: pass "
                "predictions of training questions only."
            )
        if row["contract"] not in texts:
            raise InputError(
                f"No text of contract {row['contract']!r}: pass the texts of the run that made the candidates."
            )
    for name, values in scores.items():
        if len(values) != len(candidates):
            raise InputError(
                f"Score {name!r} has {len(values)} values for {len(candidates)} candidates: give one of each."
            )
        if bad := [value for value in map(_number, values) if not (math.isnan(value) or 0 <= value <= 1)]:
            raise InputError(f"Score {name!r} holds {bad[0]}: give numbers from 0 to 1, NaN where there is none.")


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _pairs(rows: Sequence[Scores], judged: Collection[str], disputed: Collection[str], seed: int) -> Iterator[_Pair]:
    by_question: dict[str, dict[str, list[Scores]]] = defaultdict(lambda: defaultdict(list))
    for row, found in rows:
        if row.get("error") is None and isinstance(row.get("answer"), str):
            plain = "" if is_refusal(row["answer"]) else normalise_answer(row["answer"])
            by_question[row["id"]][plain].append((row, found))
    for answers in by_question.values():
        for ours, theirs in combinations(answers.values(), 2):
            keys = {pair_key(_sides(one[0], other[0])) for one, other in product(ours, theirs)}
            if not keys & judged:
                first, second = ours[0], theirs[0]
                priority, why = _interest(first, second, bool(keys & disputed))
                yield _Pair(first, second, priority, why, value_hash([seed, pair_key(_sides(first[0], second[0]))]))


def _interest(first: Scores, second: Scores, disputed: bool) -> tuple[float, str]:
    """Return a pair's priority and, in a sentence, the largest part of it."""
    gaps = {name: first[1][name] - second[1][name] for name in first[1]}
    gaps = {name: gap for name, gap in gaps.items() if not math.isnan(gap)}
    against = [
        (min(abs(gaps[one]), abs(gaps[other])), one, other)
        for one, other in combinations(gaps, 2)
        if gaps[one] * gaps[other] < 0
    ]
    opposed = max(against, default=(0.0, "", ""), key=lambda found: found[0])
    alike = answer_likeness(first[0], second[0])
    clear = sum(map(abs, gaps.values())) / len(gaps) if gaps else 0.0
    doubt = DOUBT * (1 - clear) * (1 - alike)
    reasons = {
        "disputed": (float(disputed), "Annotators gave different verdicts on this pair."),
        "opposed": (
            opposed[0],
            f"{opposed[1]} and {opposed[2]} rank the two answers oppositely, by "
            f"{abs(gaps.get(opposed[1], 0)):.2f} and {abs(gaps.get(opposed[2], 0)):.2f}.",
        ),
        "doubt": (doubt, _doubtful(first[0], second[0], alike, clear, scored=bool(gaps))),
    }
    return sum(part for part, _ in reasons.values()), max(reasons.values(), key=lambda reason: reason[0])[1]


def _doubtful(one: Mapping[str, Any], other: Mapping[str, Any], alike: float, clear: float, *, scored: bool) -> str:
    if is_refusal(one["answer"]) != is_refusal(other["answer"]):
        what = "One answer quotes the contract, the other says that there is no such clause"
    elif one.get("spans") and other.get("spans"):
        what = f"The answers cite places that share {alike:.0%} of their characters"
    else:
        what = f"The answers share {alike:.0%} of their words"
    return f"{what}; " + (f"the scores differ by {clear:.2f} on average." if scored else "no score compares them.")


def _spread(pairs: Sequence[_Pair], size: int) -> list[_Pair]:
    """Take the pair of highest lowered priority `size` times; priorities only fall, so one look at the top is enough."""
    taken: Counter[tuple[str, str]] = Counter()

    def worth(pair: _Pair) -> float:
        row = pair.first[0]
        of = (("contract", row["contract"]), ("category", row.get("category", "")))
        return max(pair.priority, FLOOR) / math.prod(1 + taken[group] for group in of)

    heap = [(-worth(pair), pair.tie, n) for n, pair in enumerate(pairs)]
    heapq.heapify(heap)
    found: list[_Pair] = []
    while heap and len(found) < size:
        _, tie, n = heapq.heappop(heap)
        now = (-worth(pairs[n]), tie, n)
        if heap and now > heap[0]:
            heapq.heappush(heap, now)
            continue
        found.append(pairs[n])
        row = pairs[n].first[0]
        taken.update([("contract", row["contract"]), ("category", row.get("category", ""))])
    return found


def _task(pair: _Pair, text: str) -> dict[str, Any]:
    one, other = pair.first[0], pair.second[0]
    spans = {
        f"spans_{side}": [list(span) for span in row.get("spans") or []] for side, row in (("a", one), ("b", other))
    }
    return {
        "id": one["id"],
        "contract": one["contract"],
        "question": one["question"],
        "passages": _passages(one, other, text),
        **_sides(one, other),
        **spans,
        "prompt": one.get("prompt"),
        "priority": round(pair.priority, 6),
        "why": pair.why,
    }


def _sides(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": one["id"],
        "answer_a": one["answer"],
        "answer_b": other["answer"],
        "system_a": one.get("system", ""),
        "system_b": other.get("system", ""),
    }


def _passages(one: Mapping[str, Any], other: Mapping[str, Any], text: str) -> list[dict[str, Any]]:
    """Return what either system was sent, in the contract's order, and the surroundings of spans outside of it."""
    found = _merged([(p["start"], p["end"]) for row in (one, other) for p in row.get("passages") or []])
    spans = [tuple(span) for row in (one, other) for span in row.get("spans") or []]
    outside = [
        (max(0, s - AROUND), min(len(text), e + AROUND))
        for s, e in spans
        if not any(start <= s and e <= end for start, end in found)
    ]
    found = _merged([*found, *outside])
    if any(not 0 <= start < end <= len(text) for start, end in found):
        raise InputError(
            f"A passage of {one['id']!r} lies outside its contract of {len(text):,} characters: pass the texts "
            "of the run that made the candidates."
        )
    return [{"start": start, "end": end, "text": text[start:end]} for start, end in found]


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans in order, those that touch or overlap as one."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def _characters(spans: Sequence[Sequence[int]]) -> set[int]:
    return {place for start, end in spans for place in range(start, end)}
