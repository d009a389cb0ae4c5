"""Which pairs of answers to put before a person next: pairs from whose judgement there is most to learn.

    tasks = choose_tasks(with_prompts(program, answers), scores={"judge": ..., "F1": ...}, texts=texts, seed=7)
    Annotate(tasks, store)

A pair comes early if annotators disagree on it, if two scores rank its answers oppositely, or if no score tells two
different answers apart. A task is a dict with the keys id, contract, question, passages ({"start", "end", "text"},
merged where they overlap), answer_a, answer_b, system_a, system_b, spans_a, spans_b (the contract offsets that each
answer cites), prompt (messages or None), priority, and why (the largest part of the priority). A task does not say
which answer is shown first; the widget draws that.
"""

from __future__ import annotations

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

FEEDBACK_TASKS = 20  # pairs of answers to ask people about
HELD_OUT_SPLITS = ("dev", "test", "slice", "slices")  # splits of predictions
DOUBT_WEIGHT = 0.5  # of answers that no score tells apart; scores that contradict each other weigh 1
LOWEST_PRIORITY = 0.01  # of a pair on which all scores agree: above 0, so that it is asked after all others
CONTEXT_CHARACTERS = 300  # shown on each side of a cited span that lies outside the passages
# why a pair is asked
ANNOTATORS_DIFFER, SCORES_OPPOSED, NO_SCORE_DECIDES = "annotators differ", "scores opposed", "no score decides"

ScoredAnswer = tuple[Mapping[str, Any], dict[str, float]]  # a prediction, and its score by name


@dataclass(frozen=True)
class _Pair:
    """Hold two different answers to one question, and how much there is to learn from a judgement."""

    first: Mapping[str, Any]
    second: Mapping[str, Any]
    priority: float
    why: str
    tie: str  # orders pairs of equal priority


def choose_tasks(
    candidates: Sequence[Mapping[str, Any]],
    *,
    scores: Mapping[str, Sequence[float]],
    texts: Mapping[str, str],
    disputed: Collection[str] = (),
    size: int = FEEDBACK_TASKS,
    seed: int,
) -> list[dict[str, Any]]:
    """Return up to `size` tasks, the most instructive first, spread over contracts and categories.

    candidates: prediction rows of training questions, of several systems or samples. Failed predictions make no pair;
    answers that SQuAD's normalisation makes equal count as one answer. scores: name of a judge or metric -> a score
    from 0 to 1 for each candidate, NaN where there is no score. texts: contract title -> text. disputed: keys of pairs
    on which annotators differ (column "pair" of `annotator_disagreements`).

    The priority of a pair is the sum of three parts: 1 if it is disputed; the smaller gap of two scores that rank the
    answers oppositely; and DOUBT_WEIGHT * (1 - mean gap) * (1 - `answer_likeness`). Pairs are taken by
    priority / ((1 + pairs taken of its contract) * (1 + pairs taken of its category)). Equal input and seed give equal
    tasks. Raises InputError on candidates of a held-out split, on scores that do not fit and on unknown contracts.
    """
    scores = {name: [math.nan if value is None else float(value) for value in scores[name]] for name in scores}
    _check_candidates(candidates, scores, texts)
    rows = [(row, {name: values[n] for name, values in scores.items()}) for n, row in enumerate(candidates)]
    pairs = sorted(_pairs(rows, frozenset(disputed), seed), key=lambda pair: pair.tie)
    return [_task(pair, texts[pair.first["contract"]]) for pair in _spread_over_groups(pairs, size)]


def answer_likeness(one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return how alike two predictions are, 0 to 1.

    If one refuses and the other does not, they are not alike: 0. If both cite spans, it is the number of characters
    that both cite, divided by the number that at least one cites. Else it is the token F1 of the two answers.
    """
    if is_refusal(one["answer"]) != is_refusal(other["answer"]):
        return 0.0
    ours, theirs = ({n for span in row.get("spans") or [] for n in range(*span)} for row in (one, other))
    if ours and theirs:
        return len(ours & theirs) / len(ours | theirs)
    return token_f1(one["answer"], [other["answer"]])


def _check_candidates(
    candidates: Sequence[Mapping[str, Any]], scores: Mapping[str, Sequence[float]], texts: Mapping[str, str]
) -> None:
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
        bad = [value for value in values if not (math.isnan(value) or 0 <= value <= 1)]
        if bad or len(values) != len(candidates):
            what = f"holds {bad[0]}" if bad else f"has {len(values)} values for {len(candidates)} candidates"
            raise InputError(f"Score {name!r} {what}: give one for each, from 0 to 1, or NaN where there is none.")


def _pairs(rows: Sequence[ScoredAnswer], disputed: Collection[str], seed: int) -> Iterator[_Pair]:
    by_question: dict[str, dict[str, list[ScoredAnswer]]] = defaultdict(lambda: defaultdict(list))
    for row, found in rows:
        if row.get("error") is None and isinstance(row.get("answer"), str):
            plain = "" if is_refusal(row["answer"]) else normalise_answer(row["answer"])
            by_question[row["id"]][plain].append((row, found))
    for answers in by_question.values():
        for ours, theirs in combinations(answers.values(), 2):
            keys = [pair_key(_pair_fields(one, other)) for (one, _), (other, _) in product(ours, theirs)]
            priority, why = _priority_and_reason(ours[0], theirs[0], not disputed.isdisjoint(keys))
            yield _Pair(ours[0][0], theirs[0][0], priority, why, value_hash([seed, keys[0]]))


def _priority_and_reason(first: ScoredAnswer, second: ScoredAnswer, disputed: bool) -> tuple[float, str]:
    """Return a pair's priority, and which part of it is the largest."""
    gaps = [first[1][name] - second[1][name] for name in first[1]]
    gaps = [gap for gap in gaps if not math.isnan(gap)]
    opposed = [min(abs(one), abs(other)) for one, other in combinations(gaps, 2) if one * other < 0]
    mean_gap = sum(map(abs, gaps)) / len(gaps) if gaps else 0.0
    doubt = DOUBT_WEIGHT * (1 - mean_gap) * (1 - answer_likeness(first[0], second[0]))
    parts = {ANNOTATORS_DIFFER: float(disputed), SCORES_OPPOSED: max(opposed, default=0.0), NO_SCORE_DECIDES: doubt}
    return sum(parts.values()), max(parts, key=parts.get) if any(parts.values()) else NO_SCORE_DECIDES


def _spread_over_groups(pairs: Sequence[_Pair], size: int) -> list[_Pair]:
    """Return `size` pairs: each time the pair with the highest priority after what was taken of its groups."""
    taken: Counter[tuple[str, str]] = Counter()

    def groups(pair: _Pair) -> list[tuple[str, str]]:
        return [("contract", pair.first["contract"]), ("category", pair.first.get("category", ""))]

    def worth(pair: _Pair) -> float:
        return max(pair.priority, LOWEST_PRIORITY) / math.prod(1 + taken[group] for group in groups(pair))

    left, found = list(pairs), []
    while left and len(found) < size:
        found.append(max(left, key=worth))
        left.remove(found[-1])
        taken.update(groups(found[-1]))
    return found


def _task(pair: _Pair, text: str) -> dict[str, Any]:
    one, other = pair.first, pair.second
    spans_a, spans_b = ([list(span) for span in row.get("spans") or []] for row in (one, other))
    return {
        **_pair_fields(one, other),
        "contract": one["contract"],
        "question": one["question"],
        "passages": _passages(one, other, text),
        "spans_a": spans_a,
        "spans_b": spans_b,
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
    outside = [
        (max(0, s - CONTEXT_CHARACTERS), min(len(text), e + CONTEXT_CHARACTERS))
        for row in (one, other)
        for s, e in row.get("spans") or []
        if not any(start <= s and e <= end for start, end in found)
    ]
    found = merge_spans([*found, *outside])
    if any(not 0 <= start < end <= len(text) for start, end in found):
        raise InputError(
            f"A passage of {one['id']!r} lies outside its contract of {len(text):,} characters: pass the texts "
            "of the run that made the candidates."
        )
    return [{"start": start, "end": end, "text": text[start:end]} for start, end in found]
