"""Preference data for training: pairs of a chosen and a rejected answer, and single answers with a thumb up or down.

    material = gather_material(program, answers, judge=judge, feedback=store.judgements(), rows=train)
    pairs, counts = preference_pairs(program, material)
    thumbs, counts = preference_thumbs(program, material)
    length_report(pairs)   # how long the chosen answers are, and how long the rejected ones

All pairs of a question come from one source: from people where they decided ("human"), else from the gold words
("gold"), else from the judge ("ai"). Every pair and every thumb says where it comes from and why. Both are made of the
grades and of people's choices in `candidates`. Thumbs are for methods that need no pairs (KTO, Ethayarajh et al. 2024,
arXiv:2402.01306).

If chosen answers are mostly the longer ones, a model learns to write more instead of better. `match_lengths` therefore
takes other pairs of the same questions, and drops pairs if that is not enough, until chosen and rejected answers are
about equally long.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from cuadft.data.rows import assert_no_leak
from cuadft.feedback.candidates import Choice, compared, gather_material, in_words, taught_answer
from cuadft.feedback.records import Rows
from cuadft.rag.training_rows import online_prompts, telling_rows

if TYPE_CHECKING:
    from cuadft.evaluation.verdicts import Judge
    from cuadft.feedback.candidates import GradedAnswer, GradedQuestion, Material
    from cuadft.rag.program import ContractQA


MARGIN = 0.3  # least difference between the scores of a pair
NEAR_BEST = 0.1  # an answer whose score is at most this far below the best one counts as good as the best
LOWEST_CHOSEN = 0.5  # least score of a chosen answer of the model: of two wrong answers neither should be learned
JUDGED_CORRECT = 0.75  # judge's score from which an answer counts as correct
THUMB_UP, THUMB_DOWN = 0.75, 0.25  # an answer with at least or at most this score gets a thumb
SWEEPS = 10  # passes over all questions that bring the lengths nearer to each other
ROUNDING = 1e-9  # two numbers that differ by less count as equal
T = TypeVar("T")


def preference_pairs(
    program: ContractQA, material: Material, *, length_tolerance: float = 0.2
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Return preference pairs in TRL's conversational format, and counts of what was made and what was left out.

    A pair has the keys id, contract, prompt, chosen, rejected, source, reason, chosen_score, rejected_score and margin
    (the last three are None for human pairs).

    People make a pair of each choice or correction of their majority. Gold makes one pair a question by the token F1;
    it prefers an answer of the model within NEAR_BEST of the best score to the expert's words, and makes no pair of
    what the judge sees the other way round. The judge, if there is one, makes one pair a question by its score. Gold
    and ai scores of a pair differ by MARGIN or more, and neither source sets two answers against each other that people
    have compared. length_tolerance: largest distance from 0 of the mean log(chosen / rejected characters) of gold and
    ai pairs, inf for any distance; human pairs are never dropped for their length.
    """
    counts = material.counts.copy()
    by_people: list[Choice] = []
    by_score: list[list[Choice]] = []  # the possible choices of each question, the clearest first
    for question in material.questions:
        by_source = (question.choices, _gold_choices(question), _judge_choices(question, material.judge))
        found = [choices for choices in by_source if choices]
        counts["superseded"] += max(0, len(found) - 1)
        if not found and question.answers:
            counts["one answer only" if len(question.answers) == 1 else "no clear difference"] += 1
        by_people += question.choices
        by_score += [] if question.choices else found[:1]
    kept, dropped = match_lengths(by_score, lambda c: length_log_ratio(c.chosen, c.rejected), length_tolerance)
    kept = by_people + kept
    counts["dropped for length"] = len(dropped)
    counts.update(choice.source for choice in kept)
    return [_pair_row(program, choice) for choice in kept], +counts


def _gold_choices(question: GradedQuestion) -> list[Choice]:
    """Return the choices by the gold score, the clearest first.

    An answer that the judge finds wrong is not chosen, and an answer that the judge finds correct is not rejected.
    """
    expert = [question.expert] if question.expert else []
    best = max([a.gold for a in [*question.usable, *expert]], default=0.0)
    good = [a for a in question.usable if _is_near(a.gold, best) and not a.judged < JUDGED_CORRECT] or expert
    wrong = [a for a in question.usable if question.row["is_impossible"] or not a.judged >= JUDGED_CORRECT]
    scored = [(a, a.gold, b, b.gold) for a, b in product(good, wrong)]
    return _clearest_first(question, scored, "gold", "F1 with the expert's words")


def _judge_choices(question: GradedQuestion, judge: str) -> list[Choice]:
    """Return the choices among the model's answers by the judge's score, the clearest first."""
    answers = [a for a in question.usable if not math.isnan(a.judged)]
    best = max([a.judged for a in answers], default=0.0)
    scored = [(a, a.judged, b, b.judged) for a, b in product(answers, answers) if _is_near(a.judged, best)]
    return _clearest_first(question, scored, "ai", f"judge {judge}")


def _is_near(score: float, best: float) -> bool:
    return score >= max(LOWEST_CHOSEN, best - NEAR_BEST - ROUNDING)


def _clearest_first(
    question: GradedQuestion, scored: Iterable[tuple[GradedAnswer, float, GradedAnswer, float]], source: str, what: str
) -> list[Choice]:
    """Return the two answers whose scores differ clearly as choices, without those on which people have spoken."""
    made = [
        Choice(question, chosen.text, rejected.text, source, f"{what}: {high:.2f} against {low:.2f}", (high, low))
        for chosen, high, rejected, low in scored
        if high - low >= MARGIN - ROUNDING
        and compared(chosen.text) != compared(rejected.text)
        and not _is_settled(question, chosen.text, rejected.text)
    ]
    return sorted(made, key=lambda choice: choice.scores[1] - choice.scores[0])


def _is_settled(question: GradedQuestion, chosen: str, rejected: str) -> bool:
    """Tell whether people compared these two answers, or called the chosen one wrong."""
    for ruling in question.rulings:
        judged = set(map(compared, ruling.answers))
        if compared(chosen) in judged and (compared(rejected) in judged or ruling.verdict == "both_wrong"):
            return True
    return False


def _pair_row(program: ContractQA, choice: Choice) -> dict[str, Any]:
    high, low = choice.scores or (None, None)
    return _row(program, choice.question, {"chosen": choice.chosen, "rejected": choice.rejected}) | {
        "source": choice.source,
        "reason": choice.reason,
        "chosen_score": high,
        "rejected_score": low,
        "margin": None if choice.scores is None else high - low,
    }


def _row(program: ContractQA, question: GradedQuestion, answers: Mapping[str, str]) -> dict[str, Any]:
    """Return a row with its prompt, and each answer as the message that the program would be sent back."""
    asked = question.row["question"]
    *prompt, _ = program.messages(asked, question.hit, "")
    taught = {name: in_words(program, text) for name, text in answers.items()}
    messages = {name: program.messages(asked, question.hit, text)[-1:] for name, text in taught.items()}
    return {"id": question.row["id"], "contract": question.row["contract"], "prompt": prompt} | messages


class Thumb(NamedTuple):
    """Hold an answer, whether it is good, and who says so."""

    text: str
    label: bool | None  # whether it is good, None: undecided
    source: str  # human, gold or ai
    reason: str
    score: float | None = None  # the grade; None if people said so


def preference_thumbs(program: ContractQA, material: Material) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Return answers with a thumb up (label True) or down (False), and counts.

    A row has the keys id, contract, prompt, completion, label, source, reason and score (None for people's thumbs).
    People's thumb is up for an answer that the majority chose or wrote as a correction, and down for an answer that was
    rejected or called wrong; an answer with both is left out. Other answers get a thumb from gold, or from the judge
    where gold is undecided: up for a score from THUMB_UP, down for a score up to THUMB_DOWN. An answer on which gold
    and judge contradict each other is left out. The expert's words get a thumb up if no answer of the model does.
    """
    counts, made = material.counts.copy(), []
    for question in material.questions:
        thumbs = _human_thumbs(question)
        for answer in question.usable:
            thumbs.setdefault(compared(answer.text), _graded_thumb(answer, question, material.judge))
        expert = question.expert if question.answers else None
        if expert and expert.gold >= THUMB_UP and not any(thumb.label for thumb in thumbs.values()):
            words = Thumb(expert.text, True, "gold", "the expert's words", expert.gold)
            thumbs.setdefault(compared(expert.text), words)
        for thumb in thumbs.values():
            if thumb.label is None:
                counts[thumb.reason] += 1
            else:
                counts.update([thumb.source, "up" if thumb.label else "down"])
                said = thumb._asdict()
                made.append(_row(program, question, {"completion": said.pop("text")}) | said)
    return made, +counts


def _human_thumbs(question: GradedQuestion) -> dict[str, Thumb]:
    """Return people's thumb for each answer, by its `compared` form; an answer that is up and down stays undecided."""
    found: list[Thumb] = []
    for choice in question.choices:
        found.append(Thumb(choice.chosen, True, "human", choice.reason))
        found.append(Thumb(choice.rejected, False, "human", f"another answer was chosen: {choice.reason}"))
    for ruling in question.rulings:
        shown = [answer for answer in ruling.answers if answer.strip()]  # an imported thumb has a blank second answer
        if ruling.verdict == "both_wrong":
            found += [Thumb(taught_answer(answer), False, "human", f"{ruling.who} called it wrong") for answer in shown]
        if ruling.verdict in ("a", "b") and shown == [ruling.answers["ab".index(ruling.verdict)]]:
            found.append(Thumb(taught_answer(shown[0]), True, "human", f"{ruling.who} found it good"))
    thumbs: dict[str, Thumb] = {}
    for thumb in found:
        known = thumbs.setdefault(compared(thumb.text), thumb)
        if known.label is not thumb.label:
            thumbs[compared(thumb.text)] = Thumb(thumb.text, None, "human", "human: both up and down")
    return thumbs


def _graded_thumb(answer: GradedAnswer, question: GradedQuestion, judge: str) -> Thumb:
    """Return gold's thumb, or the judge's where gold is undecided."""
    gold, ai = _up_or_down(answer.gold), _up_or_down(answer.judged)
    if gold is not None and ai is not None and gold is not ai and not question.row["is_impossible"]:
        return Thumb(answer.text, None, "gold", "gold and judge disagree")
    if gold is not None:
        return Thumb(answer.text, gold, "gold", f"F1 {answer.gold:.2f} with the expert's words", answer.gold)
    if ai is not None:
        return Thumb(answer.text, ai, "ai", f"judge {judge}: {answer.judged:.2f}", answer.judged)
    return Thumb(answer.text, None, "ai", "neither good nor bad")


def _up_or_down(score: float) -> bool | None:
    return True if score >= THUMB_UP else False if score <= THUMB_DOWN else None


def length_log_ratio(chosen: str, rejected: str) -> float:
    """Return log(length of chosen / length of rejected), in characters; an empty text counts as one."""
    return math.log(max(len(chosen), 1) / max(len(rejected), 1))


def length_report(pairs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return how the lengths of the chosen and of the rejected answers of preference pairs compare.

    pairs: number of pairs; chosen_longer: share of pairs whose chosen answer is the longer one; mean_log_ratio: mean of
    log(chosen / rejected characters). Without pairs these two are NaN.
    """
    chosen, rejected = (
        pd.Series([len(pair[side][0]["content"]) for pair in pairs], dtype=float) for side in ("chosen", "rejected")
    )
    ratio = np.log(chosen.clip(lower=1) / rejected.clip(lower=1)).mean()
    return {"pairs": len(pairs), "chosen_longer": (chosen > rejected).mean(), "mean_log_ratio": ratio}


def match_lengths(
    groups: Sequence[Sequence[T]], ratio: Callable[[T], float], tolerance: float
) -> tuple[list[T], list[T]]:
    """Choose one item of each group so that the mean ratio is at most `tolerance` away from 0; return kept and dropped.

    groups: for each question its possible choices, the best first. ratio: returns an item's log ratio of lengths. The
    first item of each group is taken if the mean ratio allows it. Else the groups exchange their item, one group after
    the other, where that brings the mean nearer to 0. If that is not enough, items are dropped one by one: each time
    the one without which the sum is nearest to 0, which is the most extreme one as long as the sum is large.
    """
    kept = [group[0] for group in groups]
    total = sum(map(ratio, kept))
    for _ in range(SWEEPS):
        before = total
        for place, group in enumerate(groups):
            if abs(total) <= tolerance * len(kept) + ROUNDING:
                return kept, []
            rest = total - ratio(kept[place])
            best = min(group, key=lambda item: abs(rest + ratio(item)))
            if abs(rest + ratio(best)) < abs(total):
                kept[place], total = best, rest + ratio(best)
        if total == before:
            break
    dropped: list[T] = []
    while kept and abs(total := math.fsum(map(ratio, kept))) > tolerance * len(kept) + ROUNDING:
        rests = [round(abs(total - ratio(item)), 9) for item in kept]
        dropped.append(kept.pop(min(range(len(kept)), key=lambda i: (rests[i], -abs(ratio(kept[i]))))))
    return kept, dropped


def training_data(
    program: ContractQA,
    candidates: Rows,
    rewards: Mapping[str, Sequence[float]],
    *,
    judge: Judge | None,
    rows: Rows,
    asked: Rows,
    contracts: Rows,
    feedback: Rows = (),
    length_tolerance: float = 0.2,
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Counter[str]]]:
    """Return the rows that each kind of preference method learns from, and counts of pairs and of single answers.

    The rows stand under "pairs" (for DPO and ORPO, see `preference_pairs`), "answers" (single answers with a thumb, for
    KTO, see `preference_thumbs`) and "prompts" (of the `asked` rows, for online methods). rewards: row id -> rewards of
    its candidates, by which `rag.training_rows.telling_rows` picks prompts from which an online method can learn.
    rows: all training rows. contracts: the run's records. Raises InputError if a row comes from a held-out contract or
    an asked row has no rewards.
    """
    material = gather_material(program, candidates, judge=judge, feedback=feedback, rows=rows)
    pairs, counts = preference_pairs(program, material, length_tolerance=length_tolerance)
    thumbs, thumb_counts = preference_thumbs(program, material)
    data = {"pairs": pairs, "answers": thumbs, "prompts": online_prompts(program, telling_rows(asked, rewards))}
    for made in data.values():
        assert_no_leak(made, contracts)
    return data, {"pairs": counts, "single answers": thumb_counts}
