"""Which pairs of answers to put before a person next: pairs from whose judgement there is most to learn.

    tasks = choose_tasks(with_prompts(program, answers), scores={"judge": ..., "F1": ...}, texts=texts, size=20, seed=7)
    Annotate(tasks, store, "anna")

A pair comes early if annotators disagree on it, if two scores rank its answers oppositely, or if no score tells two
different answers apart. A task is a dict with the keys id, contract, question, passages ({"start", "end", "text"},
merged where they overlap), answer_a, answer_b, system_a, system_b, spans_a, spans_b (the contract offsets that each
answer cites), prompt (messages or None), priority, and why: one sentence that names neither a system nor the answer
that a score prefers. A task does not say which answer is shown first; the widget draws that.
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
from cuadft.data.passages import merge_spans
from cuadft.evaluation.text_scores import is_refusal, normalise_answer, token_f1
from cuadft.feedback.records import pair_key

HELD_OUT_SPLITS = ("dev", "test", "slice", "slices")  # splits of predictions
DOUBT_WEIGHT = 0.5  # of answers that no score tells apart; scores that contradict each other weigh 1
LOWEST_PRIORITY = 0.01  # of a pair on which all scores agree: above 0, so that it is asked after all others
CONTEXT_CHARACTERS = 300  # shown on each side of a cited span that lies outside the passages

ScoredAnswer = tuple[Mapping[str, Any], dict[str, float]]  # a prediction, and its score by name


@dataclass(frozen=True)
class _Pair:
    """Hold two different answers to one question with their scores, and how much there is to learn from a judgement."""

    first: ScoredAnswer
    second: ScoredAnswer
    priority: float
    why: str
    tie: str  # orders pairs of equal priority


def choose_tasks(
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

    candidates: prediction rows of training questions, of several systems or samples. Failed predictions make no pair;
    answers that SQuAD's normalisation makes equal count as one answer. scores: name of a judge or metric -> a score
    from 0 to 1 for each candidate, NaN where there is no score. texts: contract title -> text. judged: keys of pairs to
    leave out (`Store.done`). disputed: keys of pairs on which annotators differ (column "pair" of
    `annotator_disagreements`).

    The priority of a pair is the sum of three parts: 1 if it is disputed; the smaller gap of two scores that rank the
    answers oppositely; and DOUBT_WEIGHT * (1 - mean gap) * (1 - `answer_likeness`). Pairs are taken by
    priority / ((1 + pairs taken of its contract) * (1 + pairs taken of its category)). Equal input and seed give equal
    tasks. Raises InputError on candidates of a held-out split, on scores that do not fit and on unknown contracts.
    """
    _check_candidates(candidates, scores, texts, size)
    rows = [
        (row, {name: _nan_for_none(values[n]) for name, values in scores.items()}) for n, row in enumerate(candidates)
    ]
    pairs = list(_pairs(rows, frozenset(judged), frozenset(disputed), seed))
    return [_task(pair, texts[pair.first[0]["contract"]]) for pair in _spread_over_groups(pairs, size)]


def answer_likeness(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return how alike two predictions are, 0 to 1.

    If one refuses and the other does not, they are not alike: 0. If both cite spans, it is the number of characters
    that both cite, divided by the number that at least one cites. Else it is the token F1 of the two answers.
    """
    if is_refusal(one["answer"]) != is_refusal(other["answer"]):
        return 0.0
    ours, theirs = (_cited_characters(row.get("spans") or []) for row in (one, other))
    if ours and theirs:
        return len(ours & theirs) / len(ours | theirs)
    return token_f1(one["answer"], [other["answer"]])


def _check_candidates(
    candidates: Sequence[Mapping[str, Any]], scores: Mapping[str, Sequence[float]], texts: Mapping[str, str], size: int
) -> None:
    if isinstance(size, bool) or not isinstance(size, int) or size < 0:
        raise InputError(f"Invalid size {size!r} of the backlog: give a whole number of pairs from 0.")
    for row in candidates:
        if row.get("split") in HELD_OUT_SPLITS:
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
        if bad := [value for value in map(_nan_for_none, values) if not (math.isnan(value) or 0 <= value <= 1)]:
            raise InputError(f"Score {name!r} holds {bad[0]}: give numbers from 0 to 1, NaN where there is none.")


def _nan_for_none(value: Any) -> float:
    return math.nan if value is None else float(value)


def _pairs(
    rows: Sequence[ScoredAnswer], judged: Collection[str], disputed: Collection[str], seed: int
) -> Iterator[_Pair]:
    by_question: dict[str, dict[str, list[ScoredAnswer]]] = defaultdict(lambda: defaultdict(list))
    for row, found in rows:
        if row.get("error") is None and isinstance(row.get("answer"), str):
            plain = "" if is_refusal(row["answer"]) else normalise_answer(row["answer"])
            by_question[row["id"]][plain].append((row, found))
    for answers in by_question.values():
        for ours, theirs in combinations(answers.values(), 2):
            keys = {pair_key(_pair_fields(one[0], other[0])) for one, other in product(ours, theirs)}
            if not keys & judged:
                first, second = ours[0], theirs[0]
                priority, why = _priority_and_reason(first, second, bool(keys & disputed))
                tie = value_hash([seed, pair_key(_pair_fields(first[0], second[0]))])
                yield _Pair(first, second, priority, why, tie)


def _priority_and_reason(first: ScoredAnswer, second: ScoredAnswer, disputed: bool) -> tuple[float, str]:
    """Return a pair's priority, and a sentence on the largest part of it."""
    gaps = {name: first[1][name] - second[1][name] for name in first[1]}
    gaps = {name: gap for name, gap in gaps.items() if not math.isnan(gap)}
    likeness = answer_likeness(first[0], second[0])
    mean_gap = sum(map(abs, gaps.values())) / len(gaps) if gaps else 0.0
    parts = [(1.0, "Annotators gave different verdicts on this pair.")] if disputed else []
    parts += _opposed_scores(gaps)
    doubt = DOUBT_WEIGHT * (1 - mean_gap) * (1 - likeness)
    parts.append((doubt, _doubt_reason(first[0], second[0], likeness, mean_gap if gaps else None)))
    return sum(part for part, _ in parts), max(parts, key=lambda part: part[0])[1]


def _opposed_scores(gaps: Mapping[str, float]) -> list[tuple[float, str]]:
    """Return [(gap, reason)] for the two scores that rank the answers oppositely by the largest gap, or []."""
    found: list[tuple[float, str]] = []
    for (one, gap), (other, opposite) in combinations(gaps.items(), 2):
        if gap * opposite < 0:
            sizes = f"{abs(gap):.2f} and {abs(opposite):.2f}"
            reason = f"{one} and {other} rank the two answers oppositely, by {sizes}."
            found.append((min(abs(gap), abs(opposite)), reason))
    return [max(found, key=lambda part: part[0])] if found else []


def _doubt_reason(one: Mapping[str, Any], other: Mapping[str, Any], likeness: float, mean_gap: float | None) -> str:
    if is_refusal(one["answer"]) != is_refusal(other["answer"]):
        what = "One answer quotes the contract, the other says that there is no such clause"
    elif one.get("spans") and other.get("spans"):
        what = f"The answers cite places that share {likeness:.0%} of their characters"
    else:
        what = f"The answers share {likeness:.0%} of their words"
    scores = "no score compares them" if mean_gap is None else f"the scores differ by {mean_gap:.2f} on average"
    return f"{what}; {scores}."


def _spread_over_groups(pairs: Sequence[_Pair], size: int) -> list[_Pair]:
    """Return `size` pairs: each time the pair with the highest priority after what was taken of its groups.

    Priorities only fall. So if the pair from the top of the heap is still first with its present priority, it is the
    best of all pairs; the others need not be looked at.
    """
    taken: Counter[tuple[str, str]] = Counter()

    def groups(pair: _Pair) -> list[tuple[str, str]]:
        row = pair.first[0]
        return [("contract", row["contract"]), ("category", row.get("category", ""))]

    def worth(pair: _Pair) -> float:
        return max(pair.priority, LOWEST_PRIORITY) / math.prod(1 + taken[group] for group in groups(pair))

    heap = [(-worth(pair), pair.tie, n) for n, pair in enumerate(pairs)]
    heapq.heapify(heap)
    found: list[_Pair] = []
    while heap and len(found) < size:
        _, tie, n = heapq.heappop(heap)
        now = (-worth(pairs[n]), tie, n)
        if heap and now > heap[0]:
            heapq.heappush(heap, now)
        else:
            found.append(pairs[n])
            taken.update(groups(pairs[n]))
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
        **_pair_fields(one, other),
        **spans,
        "prompt": one.get("prompt"),
        "priority": round(pair.priority, 6),
        "why": pair.why,
    }


def _pair_fields(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "id": one["id"],
        "answer_a": one["answer"],
        "answer_b": other["answer"],
        "system_a": one.get("system", ""),
        "system_b": other.get("system", ""),
    }


def _passages(one: Mapping[str, Any], other: Mapping[str, Any], text: str) -> list[dict[str, Any]]:
    """Return the passages that either system was sent, and the text around cited spans outside of them, in order."""
    found = merge_spans([(p["start"], p["end"]) for row in (one, other) for p in row.get("passages") or []])
    spans = [tuple(span) for row in (one, other) for span in row.get("spans") or []]
    outside = [
        (max(0, s - CONTEXT_CHARACTERS), min(len(text), e + CONTEXT_CHARACTERS))
        for s, e in spans
        if not any(start <= s and e <= end for start, end in found)
    ]
    found = merge_spans([*found, *outside])
    if any(not 0 <= start < end <= len(text) for start, end in found):
        raise InputError(
            f"A passage of {one['id']!r} lies outside its contract of {len(text):,} characters: pass the texts "
            "of the run that made the candidates."
        )
    return [{"start": start, "end": end, "text": text[start:end]} for start, end in found]


def _cited_characters(spans: Sequence[Sequence[int]]) -> set[int]:
    return {place for start, end in spans for place in range(start, end)}
