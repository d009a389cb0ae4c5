"""Preference data for training: pairs of a chosen and a rejected answer, and single answers with a thumb up or down.

    pairs, counts = preference_pairs(program, answers, judge=judge, feedback=store.judgements(), rows=train)
    thumbs, counts = preference_thumbs(program, answers, judge=judge, feedback=store.judgements(), rows=train)
    length_report(pairs)   # how long the chosen answers are, and how long the rejected ones

All pairs of a question come from one source: from people where they decided, else from the gold words, else from the
judge. Every pair and every thumb says where it comes from and why. Both are made of the grades and of people's choices
in `candidates`. Thumbs are for methods that need no pairs (KTO, Ethayarajh et al. 2024, arXiv:2402.01306).

If chosen answers are mostly the longer ones, a model learns to write more instead of better. `match_lengths` therefore
takes other pairs of the same questions, and drops pairs if that is not enough, until chosen and rejected answers are
about equally long.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import accumulate, product
from statistics import fmean, median
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from cuadft.core.errors import InputError
from cuadft.data.rows import assert_no_leak
from cuadft.feedback.agreement import Ruling
from cuadft.feedback.candidates import (
    SOURCES,
    Choice,
    GradedAnswer,
    GradedQuestion,
    Material,
    gather_material,
    same_answer,
    taught_answer,
)
from cuadft.rag.training_rows import online_prompts, telling_rows

if TYPE_CHECKING:
    from cuadft.evaluation.verdicts import Judge
    from cuadft.rag.program import ContractQA


NEAR_BEST = 0.1  # an answer whose score is at most this far below the best one counts as good as the best
LOWEST_CHOSEN = 0.5  # least score of a chosen answer of the model: of two wrong answers neither should be learned
JUDGED_CORRECT = 0.75  # judge's score from which an answer counts as correct
SWEEPS = 10  # passes over all questions that bring the lengths nearer to each other
ROUNDING = 1e-9  # two numbers that differ by less count as equal
T = TypeVar("T")


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

    candidates: predictions for training questions, several of each question. feedback: judgements (see `records`).
    rows: the training rows, for judgements on questions without candidates. A pair has the keys id, contract, prompt,
    chosen, rejected, source, reason, chosen_score, rejected_score and margin (the last three are None for human pairs).

    sources: "human" makes a pair of each choice or correction of the majority. "gold" makes one pair a question by the
    token F1; it prefers an answer of the model within NEAR_BEST of the best score to the expert's words, and makes no
    pair of what the judge sees the other way round. "ai" makes one pair a question by the judge's score. Gold and ai
    scores of a pair differ by `margin` or more, and neither source sets two answers against each other that people
    have compared. length_tolerance: largest distance from 0 of the mean log(chosen / rejected characters) of gold and
    ai pairs, inf for any distance; human pairs are never dropped for their length. Raises InputError on settings out of
    range, on "ai" without judge, on an invalid judgement and on a candidate that is no prediction.
    """
    if not 0 <= margin <= 1 or not length_tolerance >= 0:
        raise InputError(
            f"Invalid margin {margin} or length_tolerance {length_tolerance}: give a margin from 0 to 1 and a "
            "tolerance from 0 (inf: any length)."
        )
    material = gather_material(program, candidates, judge=judge, sources=sources, feedback=feedback, rows=rows)
    by_people: list[Choice] = []
    by_score: list[list[Choice]] = []  # the possible choices of each question, the clearest first
    for id_, question in material.questions.items():
        human, rulings = material.choices[id_], material.rulings[id_]
        gold = _not_settled(_gold_choices(question, margin), rulings) if "gold" in sources else []
        ai = _not_settled(_judge_choices(question, margin, judge), rulings) if "ai" in sources else []
        found = [choices for choices in (human, gold, ai) if choices]
        material.counts["superseded"] += max(0, len(found) - 1)
        if not found and question.answers:
            material.counts["one answer only" if len(question.answers) == 1 else "no clear difference"] += 1
        by_people += human
        by_score += [] if human else found[:1]
    kept, dropped = match_lengths(by_score, lambda c: length_log_ratio(c.chosen, c.rejected), length_tolerance)
    kept = by_people + kept
    material.counts["dropped for length"] = len(dropped)
    material.counts.update(choice.source for choice in kept)
    return [_pair_row(program, choice) for choice in kept], +material.counts


def _gold_choices(question: GradedQuestion, margin: float) -> list[Choice]:
    """Return the choices by the gold score, the clearest first.

    An answer that the judge finds wrong is not chosen, and an answer that the judge finds correct is not rejected.
    """
    answers, expert = question.usable, question.expert
    best = max([a.gold for a in answers] + ([expert.gold] if expert else []), default=0.0)
    good = [
        a
        for a in answers
        if a.gold >= max(LOWEST_CHOSEN, best - NEAR_BEST - ROUNDING) and not a.judged < JUDGED_CORRECT
    ]
    if not good and expert:
        good = [expert]
    wrong = [a for a in answers if question.row["is_impossible"] or not a.judged >= JUDGED_CORRECT]
    return _clearest_first(
        Choice(
            question,
            chosen.text,
            rejected.text,
            "gold",
            _gold_reason(chosen, rejected, question),
            (chosen.gold, rejected.gold),
        )
        for chosen, rejected in product(good, wrong)
        if _clearly_better(chosen.gold, rejected.gold, margin)
    )


def _judge_choices(question: GradedQuestion, margin: float, judge: Judge) -> list[Choice]:
    """Return the choices among the model's answers by the judge's score, the clearest first."""
    answers = [a for a in question.usable if not math.isnan(a.judged)]
    best = max((a.judged for a in answers), default=0.0)
    good = [a for a in answers if a.judged >= max(LOWEST_CHOSEN, best - NEAR_BEST - ROUNDING)]
    return _clearest_first(
        Choice(
            question,
            chosen.text,
            rejected.text,
            "ai",
            f"judge {judge.name}: {chosen.judged:.2f} against {rejected.judged:.2f}",
            (chosen.judged, rejected.judged),
        )
        for chosen, rejected in product(good, answers)
        if _clearly_better(chosen.judged, rejected.judged, margin)
    )


def _clearly_better(chosen: float, rejected: float, margin: float) -> bool:
    return chosen > rejected and chosen - rejected >= margin - ROUNDING


def _clearest_first(choices: Iterable[Choice]) -> list[Choice]:
    made = [choice for choice in choices if not same_answer(choice.chosen, choice.rejected)]
    return sorted(made, key=lambda choice: choice.scores[1] - choice.scores[0])


def _gold_reason(chosen: GradedAnswer, rejected: GradedAnswer, question: GradedQuestion) -> str:
    if question.row["is_impossible"]:
        return "there is no such clause: the refusal against an invented one"
    ours = "the expert's words" if chosen is question.expert else f"F1 {chosen.gold:.2f} with the expert's words"
    return f"{ours} against {'a refusal' if rejected.refuses else f'F1 {rejected.gold:.2f}'}"


def _not_settled(choices: Sequence[Choice], rulings: Sequence[Ruling]) -> list[Choice]:
    """Leave out choices between two answers that people compared, and choices of an answer that people called wrong."""

    def settled(choice: Choice, ruling: Ruling) -> bool:
        chosen_judged = any(same_answer(choice.chosen, answer) for answer in ruling.answers)
        rejected_judged = any(same_answer(choice.rejected, answer) for answer in ruling.answers)
        return chosen_judged and (rejected_judged or ruling.verdict == "both_wrong")

    return [choice for choice in choices if not any(settled(choice, ruling) for ruling in rulings)]


def _pair_row(program: ContractQA, choice: Choice) -> dict[str, Any]:
    row, hit = choice.question.row, choice.question.hit
    *prompt, better = program.messages(row["question"], hit, choice.chosen)
    *_, worse = program.messages(row["question"], hit, choice.rejected)
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
    """Hold an answer, whether it is good, and who says so."""

    text: str
    good: bool | None  # None: undecided
    source: str  # one of SOURCES
    reason: str
    score: float | None = None  # the grade; None if people said so


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
    """Return answers with a thumb up (label True) or down (False), and counts; `preference_pairs` tells the arguments.

    A row has the keys id, contract, prompt, completion, label, source, reason and score (None for people's thumbs).
    People's thumb is up for an answer that the majority chose or wrote as a correction, and down for an answer that was
    rejected or called wrong; an answer with both is left out. Other answers get a thumb from gold, or from the judge
    where gold is undecided: up for a score from `good`, down for a score up to `bad`. An answer on which gold and judge
    contradict each other is left out. The expert's words get a thumb up if no answer of the model does. Raises
    InputError as `preference_pairs` does.
    """
    if not 0 <= bad < good <= 1:
        raise InputError(f"Invalid thresholds bad {bad} and good {good}: give 0 <= bad < good <= 1.")
    material = gather_material(program, candidates, judge=judge, sources=sources, feedback=feedback, rows=rows)
    made = []
    for id_, question in material.questions.items():
        thumbs = _human_thumbs(material, id_)
        for answer in question.usable:
            if not any(same_answer(answer.text, thumb.text) for thumb in thumbs):
                thumbs.append(_graded_thumb(answer, question, judge, sources, good, bad))
        expert = question.expert
        told = any(thumb.good or same_answer(thumb.text, expert.text) for thumb in thumbs) if expert else True
        if "gold" in sources and question.answers and not told and expert.gold >= good:
            thumbs.append(Thumb(expert.text, True, "gold", "the expert's words", expert.gold))
        material.counts.update(thumb.reason for thumb in thumbs if thumb.good is None)
        made += [_thumb_row(program, question, thumb) for thumb in thumbs if thumb.good is not None]
    material.counts.update(record["source"] for record in made)
    material.counts.update("up" if record["label"] else "down" for record in made)
    return made, +material.counts


def _human_thumbs(material: Material, id_: str) -> list[Thumb]:
    """Return people's thumbs for a question, each answer once; an answer that is both up and down stays undecided."""
    found: list[Thumb] = []
    for choice in material.choices[id_]:
        found.append(Thumb(choice.chosen, True, "human", choice.reason))
        found.append(Thumb(choice.rejected, False, "human", f"another answer was chosen: {choice.reason}"))
    for ruling in material.rulings[id_]:
        if ruling.verdict == "both_wrong":
            why = f"{ruling.who} called it wrong"
            found += [Thumb(taught_answer(answer), False, "human", why) for answer in ruling.answers if answer.strip()]
        shown = [answer for answer in ruling.answers if answer.strip()]  # an imported thumb has a blank second answer
        if ruling.verdict in ("a", "b") and shown == [ruling.answers["ab".index(ruling.verdict)]]:
            found.append(Thumb(taught_answer(shown[0]), True, "human", f"{ruling.who} found it good"))
    return _merged_thumbs(found)


def _merged_thumbs(found: Sequence[Thumb]) -> list[Thumb]:
    merged: list[Thumb] = []
    for thumb in found:
        place = next((i for i, known in enumerate(merged) if same_answer(known.text, thumb.text)), None)
        if place is None:
            merged.append(thumb)
        elif merged[place].good is not thumb.good:
            merged[place] = Thumb(thumb.text, None, "human", "human: both up and down")
    return merged


def _graded_thumb(
    answer: GradedAnswer, question: GradedQuestion, judge: Judge | None, sources: Sequence[str], good: float, bad: float
) -> Thumb:
    """Return gold's thumb, or the judge's where gold is undecided or not asked."""
    gold = _up_or_down(answer.gold, good, bad) if "gold" in sources else None
    ai = _up_or_down(answer.judged, good, bad) if "ai" in sources else None
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


def _up_or_down(score: float, good: float, bad: float) -> bool | None:
    return True if score >= good else False if score <= bad else None


def _thumb_row(program: ContractQA, question: GradedQuestion, thumb: Thumb) -> dict[str, Any]:
    row = question.row
    *prompt, completion = program.messages(row["question"], question.hit, thumb.text)
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


def length_log_ratio(chosen: str, rejected: str) -> float:
    """Return log(length of chosen / length of rejected), in characters; an empty text counts as one."""
    return math.log(max(len(chosen), 1) / max(len(rejected), 1))


def length_report(pairs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return how long the chosen answers of preference pairs are, and how long the rejected ones.

    pairs: number of pairs; chosen_longer: share of pairs whose chosen answer is the longer one; mean_log_ratio: mean of
    log(chosen / rejected characters); chosen_characters, rejected_characters: medians. Without pairs all but the first
    are NaN.
    """
    sides = [(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in pairs]
    if not sides:
        keys = ("chosen_longer", "mean_log_ratio", "chosen_characters", "rejected_characters")
        return {"pairs": 0} | dict.fromkeys(keys, math.nan)
    return {
        "pairs": len(sides),
        "chosen_longer": fmean(len(chosen) > len(rejected) for chosen, rejected in sides),
        "mean_log_ratio": fmean(length_log_ratio(*both) for both in sides),
        "chosen_characters": median(len(chosen) for chosen, _ in sides),
        "rejected_characters": median(len(rejected) for _, rejected in sides),
    }


def match_lengths(
    groups: Sequence[Sequence[T]], ratio: Callable[[T], float], tolerance: float
) -> tuple[list[T], list[T]]:
    """Choose one item of each group so that the mean ratio is at most `tolerance` away from 0; return kept and dropped.

    groups: for each question its possible choices, the best first. ratio: returns an item's log ratio of lengths. The
    first item of each group is taken if the mean ratio allows it. Else the groups exchange their item, one group after
    the other, where that brings the mean nearer to 0. If that is not enough, few extreme items are dropped.
    """
    taken = [group[0] for group in groups]
    total = sum(map(ratio, taken))
    for _ in range(SWEEPS):
        before = total
        for place, group in enumerate(groups):
            if abs(total) <= tolerance * len(taken) + ROUNDING:
                return taken, []
            rest = total - ratio(taken[place])
            best = min(group, key=lambda item: abs(rest + ratio(item)))
            if abs(rest + ratio(best)) < abs(total):
                taken[place], total = best, rest + ratio(best)
        if total == before:
            break
    return _drop_extremes(taken, ratio, tolerance)


def _drop_extremes(items: Sequence[T], ratio: Callable[[T], float], tolerance: float) -> tuple[list[T], list[T]]:
    """Drop as few items as bring the mean ratio of the others within tolerance; return kept and dropped."""
    ratios = [ratio(item) for item in items]
    sign = math.copysign(1, math.fsum(ratios))
    order = sorted(range(len(items)), key=lambda i: sign * ratios[i])
    values = [sign * ratios[i] for i in order]  # ascending, and turned so that their sum is not negative
    tried = (_places_to_drop(values, count, tolerance) for count in range(len(items) + 1))
    gone = {order[place] for place in next(places for places in tried if places is not None)}
    return [item for i, item in enumerate(items) if i not in gone], [items[i] for i in sorted(gone)]


def _places_to_drop(values: Sequence[float], count: int, tolerance: float) -> set[int] | None:
    """Return the places of `count` values without which the mean is within tolerance, None if there are none.

    values: in ascending order, their sum not negative. The places tried are the `low` smallest values, the
    `count - 1 - low` largest and one value between them that leaves a sum near enough to 0; low is 0 to count - 1.
    """
    size, sums = len(values), [0.0, *accumulate(values)]
    if count == size or (not count and sums[-1] <= tolerance * size + ROUNDING):
        return set(range(count))
    room = tolerance * (size - count) + ROUNDING
    for low in range(count):
        end = size - (count - 1 - low)
        need = sums[end] - sums[low]  # dropping a value of this size would leave a sum of 0
        place = bisect_right(values, need + room, low, end) - 1
        if place >= low and values[place] >= need - room:
            return {*range(low), place, *range(end, size)}
    return None


def training_data(
    program: ContractQA,
    candidates: Sequence[Mapping[str, Any]],
    rewards: Mapping[str, Sequence[float]],
    *,
    judge: Judge | None,
    rows: Sequence[dict[str, Any]],
    asked: Sequence[dict[str, Any]],
    contracts: Sequence[Mapping[str, Any]],
    sources: Sequence[str] = SOURCES,
    feedback: Sequence[Mapping[str, Any]] = (),
    margin: float = 0.3,
    length_tolerance: float = 0.2,
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Counter[str]]]:
    """Return the rows that each kind of preference method learns from, and counts of pairs and of single answers.

    The rows stand under "pairs" (for DPO and ORPO, see `preference_pairs`), "answers" (single answers with a thumb, for
    KTO, see `preference_thumbs`) and "prompts" (of the `asked` rows, for online methods). rewards: row id -> rewards of
    its candidates, by which `rag.training_rows.telling_rows` picks prompts from which an online method can learn.
    rows: all training rows. contracts: the run's records. Raises InputError if a row comes from a held-out contract or
    an asked row has no rewards.
    """
    given = {"judge": judge, "sources": sources, "feedback": feedback, "rows": rows}
    pairs, counts = preference_pairs(program, candidates, margin=margin, length_tolerance=length_tolerance, **given)
    thumbs, thumb_counts = preference_thumbs(program, candidates, **given)
    data = {"pairs": pairs, "answers": thumbs, "prompts": online_prompts(program, telling_rows(asked, rewards))}
    for made in data.values():
        assert_no_leak(made, contracts)
    return data, {"pairs": counts, "single answers": thumb_counts}
