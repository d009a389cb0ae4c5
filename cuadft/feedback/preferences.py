"""Preference pairs from annotators, the expert's words and a judge.

A question's pairs come from one source: from people where they decided, else from the gold words, else from the judge.
Every pair says where it comes from and why. See `rulings` and `human_pairs` for what people say, `grades` for gold and
judge, `lengths` for how a preference is kept from being one for length, and `thumbs` for single answers.

Single answers with a thumb up or down, for methods that need no pairs (KTO, Ethayarajh et al. 2024).

Keep preferences from being preferences for length: choose and drop pairs until chosen and rejected are as long.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cuadft.core.errors import InputError
from cuadft.feedback.agreement import Ruling
from cuadft.feedback.candidates import (
    SOURCES,
    Answer,
    Choice,
    Material,
    Question,
    gather_material,
    same_answer,
    taught_answer,
)

if TYPE_CHECKING:
    from cuadft.evaluation.judge import Judge
    from cuadft.rag.program import ContractQA


NEAR = 0.1  # distance from the best score within which an answer is as good as the best
FAIR = 0.5  # lowest score of an answer of the model to prefer: of two wrong answers neither should be learned
HELD_CORRECT = 0.75  # judge's score from which an answer counts as correct
SCORE_ROUNDING = 1e-9


def preference_pairs(
    program: ContractQA,
    candidates: Sequence[Mapping[str, Any]],
    *,
    judge: Judge | None,
    sources: Sequence[str] = SOURCES,
    feedback: Sequence[Mapping[str, Any]] = (),
    rows: Sequence[Mapping[str, Any]] = (),
    margin: float = 0.3,
    length_tolerance: float = 0.2,
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Return preference pairs in TRL's conversational format, and counts of what was made and what was left out.

    candidates: predictions for training questions, several a question. feedback: judgements, see `judgements`. rows: the
    training rows, for judgements on questions that are not among the candidates. A pair has the keys id, contract,
    prompt, chosen, rejected, source, reason, chosen_score, rejected_score and margin (None for people's choices).

    human: the majority's choice or correction; all of a question's pairs. gold: by token F1, one pair a question; an
    answer of the model within NEAR of the best is chosen rather than the expert's words. ai: by the judge's score, one
    pair a question. Scores of a pair differ by `margin` or more; the answers of a pair that people judged, with
    whatever result, are not set against each other by another source. What gold and judge see differently makes no gold
    pair. length_tolerance: largest distance from 0 of the mean log(chosen / rejected characters) of gold and ai
    pairs, inf for any; what people chose is never dropped for its length.
    Raises InputError on settings out of range, "ai" without judge, and records that are none.
    """
    if not 0 <= margin <= 1 or not length_tolerance >= 0:
        raise InputError(
            f"Invalid margin {margin} or length_tolerance {length_tolerance}: give a margin from 0 to 1 and a "
            "tolerance from 0 (inf: any length)."
        )
    material = gather_material(program, candidates, judge=judge, sources=sources, feedback=feedback, rows=rows)
    groups: list[list[Choice]] = []
    people: list[Choice] = []
    for id_, question in material.questions.items():
        human, rulings = material.choices[id_], material.rulings[id_]
        ranked = [
            _allowed(_gold(question, margin), rulings) if "gold" in sources else [],
            _allowed(_ai(question, margin, judge), rulings) if "ai" in sources else [],
        ]
        found = [options for options in ([human] if human else []) + ranked if options]
        material.counts["superseded"] += max(0, len(found) - 1)
        if not found and question.answers:
            material.counts["one answer only" if len(question.answers) == 1 else "no clear difference"] += 1
        people += human
        groups += [] if human else found[:1]
    kept, dropped = match_lengths(groups, lambda choice: log_ratio(choice.chosen, choice.rejected), length_tolerance)
    kept = people + kept
    material.counts["dropped for length"] = len(dropped)
    material.counts.update(choice.source for choice in kept)
    return [_pair(program, choice) for choice in kept], +material.counts


def _gold(question: Question, margin: float) -> list[Choice]:
    """Return what the expert's words say to prefer, the clearest first.

    An answer that the judge finds wrong is not chosen, and one that it finds correct is not rejected.
    """
    answers, expert = question.usable, question.expert
    best = max([a.gold for a in answers] + ([expert.gold] if expert else []), default=0.0)
    good = [a for a in answers if a.gold >= max(FAIR, best - NEAR - SCORE_ROUNDING) and not a.judged < HELD_CORRECT]
    if not good and expert:
        good = [expert]
    wrong = [a for a in answers if question.row["is_impossible"] or not a.judged >= HELD_CORRECT]
    return _ordered(
        Choice(question, c.text, r.text, "gold", _against_gold(c, r, question), (c.gold, r.gold))
        for c in good
        for r in wrong
        if _clear(c.gold, r.gold, margin)
    )


def _ai(question: Question, margin: float, judge: Judge) -> list[Choice]:
    """Return what the judge says to prefer among the model's answers, the clearest first."""
    answers = [a for a in question.usable if a.judged == a.judged]
    best = max((a.judged for a in answers), default=0.0)
    good = [a for a in answers if a.judged >= max(FAIR, best - NEAR - SCORE_ROUNDING)]
    return _ordered(
        Choice(
            question,
            c.text,
            r.text,
            "ai",
            f"judge {judge.name}: {c.judged:.2f} against {r.judged:.2f}",
            (c.judged, r.judged),
        )
        for c in good
        for r in answers
        if _clear(c.judged, r.judged, margin)
    )


def _clear(chosen: float, rejected: float, margin: float) -> bool:
    return chosen > rejected and chosen - rejected >= margin - SCORE_ROUNDING


def _ordered(choices: Any) -> list[Choice]:
    made = [choice for choice in choices if not same_answer(choice.chosen, choice.rejected)]
    return sorted(made, key=lambda choice: choice.scores[1] - choice.scores[0])


def _against_gold(chosen: Answer, rejected: Answer, question: Question) -> str:
    if question.row["is_impossible"]:
        return "there is no such clause: the refusal against an invented one"
    ours = "the expert's words" if chosen is question.expert else f"F1 {chosen.gold:.2f} with the expert's words"
    return f"{ours} against {'a refusal' if rejected.refuses else f'F1 {rejected.gold:.2f}'}"


def _allowed(choices: Sequence[Choice], rulings: Sequence[Ruling]) -> list[Choice]:
    """Leave out pairs that people have judged, and pairs that prefer what they called wrong."""

    def settled(choice: Choice, ruling: Ruling) -> bool:
        chosen, rejected = (
            any(same_answer(text, answer) for answer in ruling.answers) for text in (choice.chosen, choice.rejected)
        )
        return chosen and (rejected or ruling.verdict == "both_wrong")

    return [choice for choice in choices if not any(settled(choice, ruling) for ruling in rulings)]


def _pair(program: ContractQA, choice: Choice) -> dict[str, Any]:
    row, hits = choice.question.row, choice.question.hits
    *prompt, better = program.messages(row["question"], hits, choice.chosen)
    *_, worse = program.messages(row["question"], hits, choice.rejected)
    high, low = choice.scores or (None, None)
    return {
        "id": row["id"],
        "contract": row["contract"],
        "prompt": prompt,
        "chosen": [better],
        "rejected": [worse],
        "source": choice.source,
        "reason": choice.reason,
        "chosen_score": high,
        "rejected_score": low,
        "margin": None if choice.scores is None else high - low,
    }


class Thumb(NamedTuple):
    """An answer, whether it is good (None: not said clearly), and who says so."""

    text: str
    good: bool | None
    source: str
    reason: str
    score: float | None = None


def preference_thumbs(
    program: ContractQA,
    candidates: Sequence[Mapping[str, Any]],
    *,
    judge: Judge | None,
    sources: Sequence[str] = SOURCES,
    feedback: Sequence[Mapping[str, Any]] = (),
    rows: Sequence[Mapping[str, Any]] = (),
    good: float = 0.75,
    bad: float = 0.25,
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Return answers with a thumb up (label True) or down, and counts; see `preferences.pairs` for the arguments.

    A record has the keys id, contract, prompt, completion, label, source, reason and score (None for people's thumbs).
    human: up for what the majority chose or corrected, down for what it was preferred to or called wrong; an answer
    with both is left out. gold, else ai: up from `good`, down to `bad`; what gold and judge see differently is left
    out. The expert's words are an answer only where none of the model's is good. Raises InputError as `pairs` does.
    """
    if not 0 <= bad < good <= 1:
        raise InputError(f"Invalid thresholds bad {bad} and good {good}: give 0 <= bad < good <= 1.")
    material = gather_material(program, candidates, judge=judge, sources=sources, feedback=feedback, rows=rows)
    made = []
    for id_, question in material.questions.items():
        thumbs = _human(material, id_)
        for answer in question.usable:
            if not any(same_answer(answer.text, thumb.text) for thumb in thumbs):
                thumbs.append(_graded(answer, question, judge, sources, good, bad))
        expert = question.expert
        told = any(thumb.good or same_answer(thumb.text, expert.text) for thumb in thumbs) if expert else True
        if "gold" in sources and question.answers and not told and expert.gold >= good:
            thumbs.append(Thumb(expert.text, True, "gold", "the expert's words", expert.gold))
        material.counts.update(thumb.reason for thumb in thumbs if thumb.good is None)
        made += [_record(program, question, thumb) for thumb in thumbs if thumb.good is not None]
    material.counts.update(record["source"] for record in made)
    material.counts.update("up" if record["label"] else "down" for record in made)
    return made, +material.counts


def _human(material: Material, id_: str) -> list[Thumb]:
    """Return people's thumbs for a question, each answer once; one that is both up and down is left undecided."""
    found: list[Thumb] = []
    for choice in material.choices[id_]:
        found.append(Thumb(choice.chosen, True, "human", choice.reason))
        found.append(Thumb(choice.rejected, False, "human", f"another answer was chosen: {choice.reason}"))
    for ruling in material.rulings[id_]:
        if ruling.verdict == "both_wrong":
            who = f"annotator{'s' * (len(ruling.names) > 1)} {', '.join(ruling.names)} called it wrong"
            found += [Thumb(taught_answer(answer), False, "human", who) for answer in ruling.answers if answer.strip()]
        alone = [answer for answer in ruling.answers if answer.strip()]
        if ruling.verdict in ("a", "b") and len(alone) == 1 and alone[0] == ruling.answers["ab".index(ruling.verdict)]:
            found.append(
                Thumb(taught_answer(alone[0]), True, "human", f"annotator {', '.join(ruling.names)} found it good")
            )
    merged: list[Thumb] = []
    for thumb in found:
        place = next((i for i, known in enumerate(merged) if same_answer(known.text, thumb.text)), None)
        if place is None:
            merged.append(thumb)
        elif merged[place].good is not thumb.good:
            merged[place] = Thumb(thumb.text, None, "human", "human: both up and down")
    return merged


def _graded(
    answer: Answer, question: Question, judge: Judge | None, sources: Sequence[str], good: float, bad: float
) -> Thumb:
    """Return gold's thumb, or the judge's where gold is undecided or not asked."""
    gold = _decide(answer.gold, good, bad) if "gold" in sources else None
    ai = _decide(answer.judged, good, bad) if "ai" in sources else None
    if gold is not None and ai is not None and gold is not ai and not question.row["is_impossible"]:
        return Thumb(answer.text, None, "gold", "gold and judge disagree")
    if gold is not None:
        reason = "there is such a clause" if answer.refuses else f"F1 {answer.gold:.2f} with the expert's words"
        if question.row["is_impossible"]:
            reason = "there is no such clause"
        return Thumb(answer.text, gold, "gold", reason, answer.gold)
    if ai is not None:
        return Thumb(answer.text, ai, "ai", f"judge {judge.name}: {answer.judged:.2f}", answer.judged)
    return Thumb(answer.text, None, "ai", "neither good nor bad")


def _decide(score: float, good: float, bad: float) -> bool | None:
    return True if score >= good else False if score <= bad else None


def _record(program: ContractQA, question: Question, thumb: Thumb) -> dict[str, Any]:
    row = question.row
    *prompt, completion = program.messages(row["question"], question.hits, thumb.text)
    return {
        "id": row["id"],
        "contract": row["contract"],
        "prompt": prompt,
        "completion": [completion],
        "label": thumb.good,
        "source": thumb.source,
        "reason": thumb.reason,
        "score": thumb.score,
    }


T = TypeVar("T")
SWEEPS = 10  # passes over all questions; each can only bring the lengths nearer
LENGTH_ROUNDING = 1e-9


def log_ratio(chosen: str, rejected: str) -> float:
    """Return log(length of chosen / length of rejected), in characters; an empty text counts as one."""
    return math.log(max(len(chosen), 1) / max(len(rejected), 1))


def length_report(pairs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return how the lengths of a pair's sides compare: NaN where there are no pairs.

    pairs: their number; chosen_longer: share of pairs whose chosen answer is the longer one; mean_log_ratio: mean of
    log(chosen / rejected); chosen_characters, rejected_characters: medians.
    """
    sides = [(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in pairs]
    if not sides:
        keys = ("chosen_longer", "mean_log_ratio", "chosen_characters", "rejected_characters")
        return {"pairs": 0} | dict.fromkeys(keys, math.nan)
    return {
        "pairs": len(sides),
        "chosen_longer": fmean(len(chosen) > len(rejected) for chosen, rejected in sides),
        "mean_log_ratio": fmean(log_ratio(*both) for both in sides),
        "chosen_characters": median(len(chosen) for chosen, _ in sides),
        "rejected_characters": median(len(rejected) for _, rejected in sides),
    }


def match_lengths(
    groups: Sequence[Sequence[T]], ratio: Callable[[T], float], tolerance: float
) -> tuple[list[T], list[T]]:
    """Choose one of each group's items so that the mean ratio of all is within +-`tolerance`; return kept and dropped.

    The first item of a group is the one to choose but for its length. If choosing cannot bring the mean into
    tolerance, few extreme items are dropped until it is there. An infinite tolerance takes all first items.
    """
    taken = [group[0] for group in groups]
    total = sum(map(ratio, taken))
    for _ in range(SWEEPS):
        before = total
        for place, group in enumerate(groups):
            if abs(total) <= tolerance * len(taken) + LENGTH_ROUNDING:
                return taken, []
            rest = total - ratio(taken[place])
            best = min(group, key=lambda item: abs(rest + ratio(item)))
            if abs(rest + ratio(best)) < abs(total):
                taken[place], total = best, rest + ratio(best)
        if total == before:
            break
    return _drop(taken, ratio, tolerance)


def _drop(items: Sequence[T], ratio: Callable[[T], float], tolerance: float) -> tuple[list[T], list[T]]:
    """Drop few extreme items so that the mean of the others is within tolerance; return what is left and what is dropped."""
    ratios = [ratio(item) for item in items]
    sign = math.copysign(1, math.fsum(ratios))
    order = sorted(range(len(items)), key=lambda i: sign * ratios[i])
    values = [sign * ratios[i] for i in order]
    trims = (_trim(values, count, tolerance) for count in range(len(items) + 1))
    gone = {order[place] for place in next(trim for trim in trims if trim is not None)}
    return [item for i, item in enumerate(items) if i not in gone], [items[i] for i in sorted(gone)]


def _trim(values: Sequence[float], count: int, tolerance: float) -> set[int] | None:
    """Return the places of `count` values without which the mean is within tolerance, or None if none are found.

    values: in ascending order, with a sum from 0. All but one of the places are at the two ends, at the upper one first;
    the one is where it is needed to meet the tolerance.
    """
    size, sums = len(values), [0.0, *accumulate(values)]
    if count == size or (not count and sums[-1] <= tolerance * size + LENGTH_ROUNDING):
        return set(range(count))
    room = tolerance * (size - count) + LENGTH_ROUNDING
    for low in range(count):
        end = size - (count - 1 - low)
        need = sums[end] - sums[low]  # the one value that would leave a sum of 0
        place = bisect_right(values, need + room, low, end) - 1
        if place >= low and values[place] >= need - room:
            return {*range(low), place, *range(end, size)}
    return None
