"""Preference pairs from annotators, the expert's words and a judge.

A question's pairs come from one source: from people where they decided, else from the gold words, else from the judge.
Every pair says where it comes from and why. See `rulings` and `human_pairs` for what people say, `grades` for gold and
judge, `lengths` for how a preference is kept from being one for length, and `thumbs` for single answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cuadft.errors import InputError
from cuadft.grades import Answer, Question, same
from cuadft.human_pairs import Choice
from cuadft.lengths import length_report, log_ratio, match
from cuadft.material import SOURCES, gather
from cuadft.rulings import Ruling
from cuadft.thumbs import unpaired, weights

if TYPE_CHECKING:
    from collections import Counter

    from cuadft.program import ContractQA
    from cuadft.ratings import Judge

__all__ = ["SOURCES", "length_report", "pairs", "unpaired", "weights"]

NEAR = 0.1  # distance from the best score within which an answer is as good as the best
FAIR = 0.5  # lowest score of an answer of the model to prefer: of two wrong answers neither should be learned
HELD_CORRECT = 0.75  # judge's score from which an answer counts as correct
ROUNDING = 1e-9


def pairs(program: ContractQA, candidates: Sequence[Mapping[str, Any]], *, judge: Judge | None,
          sources: Sequence[str] = SOURCES, feedback: Sequence[Mapping[str, Any]] = (),
          rows: Sequence[Mapping[str, Any]] = (), margin: float = 0.3,
          length_tolerance: float = 0.2) -> tuple[list[dict[str, Any]], Counter[str]]:  # fmt: skip
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
        raise InputError(f"Invalid margin {margin} or length_tolerance {length_tolerance}: give a margin from 0 to 1 and a "
                         "tolerance from 0 (inf: any length).")
    material = gather(program, candidates, judge=judge, sources=sources, feedback=feedback, rows=rows)
    groups: list[list[Choice]] = []
    people: list[Choice] = []
    for id_, question in material.questions.items():
        human, rulings = material.choices[id_], material.rulings[id_]
        ranked = [_allowed(_gold(question, margin), rulings) if "gold" in sources else [],
                  _allowed(_ai(question, margin, judge), rulings) if "ai" in sources else []]  # fmt: skip
        found = [options for options in ([human] if human else []) + ranked if options]
        material.counts["superseded"] += max(0, len(found) - 1)
        if not found and question.answers:
            material.counts["one answer only" if len(question.answers) == 1 else "no clear difference"] += 1
        people += human
        groups += [] if human else found[:1]
    kept, dropped = match(groups, lambda choice: log_ratio(choice.chosen, choice.rejected), length_tolerance)
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
    good = [a for a in answers if a.gold >= max(FAIR, best - NEAR - ROUNDING) and not a.judged < HELD_CORRECT]
    if not good and expert:
        good = [expert]
    wrong = [a for a in answers if question.row["is_impossible"] or not a.judged >= HELD_CORRECT]
    return _ordered(Choice(question, c.text, r.text, "gold", _against_gold(c, r, question), (c.gold, r.gold))
                    for c in good for r in wrong if _clear(c.gold, r.gold, margin))  # fmt: skip


def _ai(question: Question, margin: float, judge: Judge) -> list[Choice]:
    """Return what the judge says to prefer among the model's answers, the clearest first."""
    answers = [a for a in question.usable if a.judged == a.judged]
    best = max((a.judged for a in answers), default=0.0)
    good = [a for a in answers if a.judged >= max(FAIR, best - NEAR - ROUNDING)]
    return _ordered(Choice(question, c.text, r.text, "ai", f"judge {judge.name}: {c.judged:.2f} against {r.judged:.2f}",
                           (c.judged, r.judged))
                    for c in good for r in answers if _clear(c.judged, r.judged, margin))  # fmt: skip


def _clear(chosen: float, rejected: float, margin: float) -> bool:
    return chosen > rejected and chosen - rejected >= margin - ROUNDING


def _ordered(choices: Any) -> list[Choice]:
    made = [choice for choice in choices if not same(choice.chosen, choice.rejected)]
    return sorted(made, key=lambda choice: choice.scores[1] - choice.scores[0])


def _against_gold(chosen: Answer, rejected: Answer, question: Question) -> str:
    if question.row["is_impossible"]:
        return "there is no such clause: the refusal against an invented one"
    ours = "the expert's words" if chosen is question.expert else f"F1 {chosen.gold:.2f} with the expert's words"
    return f"{ours} against {'a refusal' if rejected.refuses else f'F1 {rejected.gold:.2f}'}"


def _allowed(choices: Sequence[Choice], rulings: Sequence[Ruling]) -> list[Choice]:
    """Leave out pairs that people have judged, and pairs that prefer what they called wrong."""
    def settled(choice: Choice, ruling: Ruling) -> bool:
        chosen, rejected = (any(same(text, answer) for answer in ruling.answers) for text in (choice.chosen, choice.rejected))
        return chosen and (rejected or ruling.verdict == "both_wrong")

    return [choice for choice in choices if not any(settled(choice, ruling) for ruling in rulings)]


def _pair(program: ContractQA, choice: Choice) -> dict[str, Any]:
    row, hits = choice.question.row, choice.question.hits
    *prompt, better = program.messages(row["question"], hits, choice.chosen)
    *_, worse = program.messages(row["question"], hits, choice.rejected)
    high, low = choice.scores or (None, None)
    return {"id": row["id"], "contract": row["contract"], "prompt": prompt, "chosen": [better], "rejected": [worse],
            "source": choice.source, "reason": choice.reason, "chosen_score": high, "rejected_score": low,
            "margin": None if choice.scores is None else high - low}
