"""Preference data for training: pairs of a chosen and a rejected answer, and single answers with a thumb up or down.

    material = gather_material(program, answers, judge=judge, feedback=store.judgements(), rows=train)
    choices, counts = preferred_answers(material)
    pairs = preference_pairs(program, choices)
    thumbs, counts = preference_thumbs(program, material, choices)
    length_report(pairs)   # how long the chosen answers are, and how long the rejected ones

A pair is about words: both sides are quotes that the model made of one passage, and only people may put a refusal into
one. All pairs of a question come from one source: from people where they decided ("human"), else from the gold words
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
    from cuadft.retrieval.retriever import Hit


MARGIN = 0.15  # least difference between the scores of a pair
LOWEST_CHOSEN = 0.5  # least score of a chosen answer: of two wrong answers neither should be learned
SWEEPS = 10  # passes over all questions that bring the lengths nearer to each other
ROUNDING = 1e-9  # two numbers that differ by less count as equal
T = TypeVar("T")


def preferred_answers(material: Material, *, length_tolerance: float = 0.2) -> tuple[list[Choice], Counter[str]]:
    """Return what to prefer to what, and counts of what was made and what was left out.

    People choose by their majority, or correct an answer. Where they did not, two of the model's own quotes are set
    against each other, one pair a question: by their F1 with the gold words, or where that differs by less than MARGIN
    by the judge's score, if there is one. Neither side is a refusal, and each line of both stands in the passage, so
    that a pair teaches which words to quote and never whether to. A pair by F1 is left out where the judge sees it the
    other way round, and no two answers are compared that people have compared.
    length_tolerance: largest distance from 0 of the mean log(chosen / rejected characters) of these pairs, inf for any
    distance; people's choices are never dropped for their length.
    """
    counts = material.counts.copy()
    by_people: list[Choice] = []
    by_score: list[list[Choice]] = []  # the possible choices of each question, the clearest first
    for question in material.questions:
        by_source = (question.choices, _gold_choices(question), _judge_choices(question, material.judge))
        found = [choices for choices in by_source if choices]
        counts["superseded"] += max(0, len(found) - 1)
        counts["no quote"] += len(question.answers) - len(question.quotes)
        if not found and question.quotes:
            counts["one quote only" if len(question.quotes) == 1 else "no clear difference"] += 1
        by_people += question.choices
        by_score += [] if question.choices else found[:1]
    kept, dropped = match_lengths(by_score, lambda c: length_log_ratio(c.chosen, c.rejected), length_tolerance)
    kept = by_people + kept
    counts["dropped for length"] = len(dropped)
    counts.update(choice.source for choice in kept)
    return kept, +counts


def _gold_choices(question: GradedQuestion) -> list[Choice]:
    """Return the choices by F1, the clearest first; none where the judge would choose the other answer."""
    scored = [(a, a.gold, b, b.gold) for a, b in product(question.quotes, question.quotes) if not a.judged < b.judged]
    return _clearest_first(question, scored, "gold", "F1 with the expert's words")


def _judge_choices(question: GradedQuestion, judge: str) -> list[Choice]:
    """Return the choices by the judge's score, the clearest first."""
    scored = [(a, a.judged, b, b.judged) for a, b in product(question.quotes, question.quotes)]
    return _clearest_first(question, scored, "ai", f"judge {judge}")


def _clearest_first(
    question: GradedQuestion, scored: Iterable[tuple[GradedAnswer, float, GradedAnswer, float]], source: str, what: str
) -> list[Choice]:
    """Return the two answers whose scores differ clearly as choices, without those on which people have spoken."""
    made = [
        Choice(question, chosen.text, rejected.text, source, f"{what}: {high:.2f} against {low:.2f}", (high, low))
        for chosen, high, rejected, low in scored
        if high >= LOWEST_CHOSEN - ROUNDING
        and high - low >= MARGIN - ROUNDING  # never of NaN, which a judge that failed gives
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


def preference_pairs(program: ContractQA, choices: Sequence[Choice]) -> list[dict[str, Any]]:
    """Return the choices as preference pairs in TRL's conversational format.

    A pair has the keys id, contract, prompt, chosen, rejected, source, reason, chosen_score, rejected_score and margin
    (the last three are None for human pairs).
    """
    return [_pair_row(program, choice) for choice in choices]


def _pair_row(program: ContractQA, choice: Choice) -> dict[str, Any]:
    high, low = choice.scores or (None, None)
    sides = {"chosen": choice.chosen, "rejected": choice.rejected}
    return _row(program, choice.question, sides, choice.hit) | {
        "source": choice.source,
        "reason": choice.reason,
        "chosen_score": high,
        "rejected_score": low,
        "margin": None if choice.scores is None else high - low,
    }


def _row(
    program: ContractQA, question: GradedQuestion, answers: Mapping[str, str], hit: Hit | None = None
) -> dict[str, Any]:
    """Return a row with its prompt, and each answer as the message that the program would be sent back."""
    asked, hit = question.row["question"], hit or question.hit
    *prompt, _ = program.messages(asked, hit, "")
    taught = {name: in_words(program, text) for name, text in answers.items()}
    messages = {name: program.messages(asked, hit, text)[-1:] for name, text in taught.items()}
    return {"id": question.row["id"], "contract": question.row["contract"], "prompt": prompt} | messages


class Thumb(NamedTuple):
    """Hold an answer, whether it is good, and who says so."""

    text: str
    label: bool | None  # whether it is good, None: undecided
    source: str  # human, gold or ai
    reason: str
    score: float | None = None  # the grade; None if people said so
    hit: Hit | None = None  # the passage that was read, None for the question's best one


def preference_thumbs(
    program: ContractQA, material: Material, choices: Sequence[Choice]
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Return single answers with a thumb up (label True) or down (False), and counts.

    The thumbs are those of the pairs: up for a chosen answer, down for a rejected one. People's thumbs on single
    answers, and answers that they called wrong, are added; an answer with both thumbs is left out. A row has the keys
    id, contract, prompt, completion, label, source, reason and score (None for people's thumbs).
    """
    counts, made = Counter(), []
    found: dict[int, list[Thumb]] = {id(question): _human_thumbs(question) for question in material.questions}
    for choice in choices:
        for text, up, score in zip((choice.chosen, choice.rejected), (True, False), choice.scores or (None, None)):
            reason = choice.reason if up else f"another answer was chosen: {choice.reason}"
            found[id(choice.question)].append(Thumb(text, up, choice.source, reason, score, choice.hit))
    for question in material.questions:
        for thumb in _one_each(found[id(question)]):
            if thumb.label is None:
                counts[thumb.reason] += 1
                continue
            counts.update([thumb.source, "up" if thumb.label else "down"])
            said = thumb._asdict()
            made.append(_row(program, question, {"completion": said.pop("text")}, said.pop("hit")) | said)
    return made, +counts


def _human_thumbs(question: GradedQuestion) -> list[Thumb]:
    """Return people's thumbs on single answers and on those that they called wrong."""
    found: list[Thumb] = []
    for ruling in question.rulings:
        shown = [answer for answer in ruling.answers if answer.strip()]  # an imported thumb has a blank second answer
        if ruling.verdict == "both_wrong":
            found += [Thumb(taught_answer(answer), False, "human", f"{ruling.who} called it wrong") for answer in shown]
        if ruling.verdict in ("a", "b") and shown == [ruling.answers["ab".index(ruling.verdict)]]:
            found.append(Thumb(taught_answer(shown[0]), True, "human", f"{ruling.who} found it good"))
    return found


def _one_each(found: Sequence[Thumb]) -> list[Thumb]:
    """Return one thumb of each answer, by its `compared` form; an answer that is up and down stays undecided."""
    thumbs: dict[str, Thumb] = {}
    for thumb in found:
        known = thumbs.setdefault(compared(thumb.text), thumb)
        if known.label is not thumb.label:
            thumbs[compared(thumb.text)] = Thumb(thumb.text, None, "human", "human: both up and down")
    return list(thumbs.values())


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
    choices, counts = preferred_answers(material, length_tolerance=length_tolerance)
    thumbs, thumb_counts = preference_thumbs(program, material, choices)
    data = {
        "pairs": preference_pairs(program, choices),
        "answers": thumbs,
        "prompts": online_prompts(program, telling_rows(asked, rewards)),
    }
    for made in data.values():
        assert_no_leak(made, contracts)
    return data, {"pairs": counts, "single answers": thumb_counts}
