"""Preferences that annotators stated: what they chose, corrected or marked, against what they found worse or wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cuadft.answer_scores import is_refusal
from cuadft.grades import Question, plain, same
from cuadft.program import ContractQA, cite, clean
from cuadft.rulings import Ruling, fold


class Choice(NamedTuple):
    """An answer to prefer to another one, why, and the scores of both where the source has any."""

    question: Question
    chosen: str
    rejected: str
    source: str
    reason: str
    scores: tuple[float, float] | None = None


def known(rulings: Sequence[Ruling], rows: Mapping[str, Mapping[str, Any]], counts: Counter[str]) -> list[Ruling]:
    """Return the rulings on questions among the training rows (by id); others, or on other words, are counted."""
    kept = []
    for ruling in rulings:
        row = rows.get(ruling.id)
        if row is None or fold(row["contract"]) != fold(ruling.contract):
            counts["human: not a training question"] += 1
        elif fold(ruling.question) != fold(row["question"]):
            counts["human: question has changed"] += 1
        else:
            kept.append(ruling)
    return kept


def choices(program: ContractQA, ruling: Ruling, question: Question, counts: Counter[str]) -> list[Choice]:
    """Return what a ruling says to prefer: none, one, or a correction against each of two wrong answers.

    A correction stands in for the winner, too. What was said of other passages than those found today counts only if
    the chosen words stand in these, so that no one teaches words that the model cannot see.
    """
    wrong = {"a": ruling.answers[1:], "b": ruling.answers[:1]}.get(ruling.verdict or "", ruling.answers)
    wrong = [answer for answer in wrong if answer.strip()]  # a single answer with a thumb has nothing beside it
    better, reason = _better(ruling, question, counts)
    if better is None:
        if ruling.verdict in ("tie", "both_wrong"):
            counts[f"human: {ruling.verdict.replace('_', ' ')}"] += 1
        return []
    if _changed(program, ruling, question) and not _supported(better, question):
        counts["human: passages have changed"] += 1
        return []
    made = [Choice(question, plain(better), plain(worse), "human", reason) for worse in wrong if not same(better, worse)]
    counts["human: correction changes nothing"] += bool(wrong) and not made
    return made


def correction(ruling: Ruling, question: Question) -> str | None:
    """Return the corrected answer, or the words at the marked span where the passages hold it, or None."""
    if ruling.edited is not None:
        return clean(ruling.edited)
    for hit in question.hits if ruling.span else ():
        start, end = (place - hit.passage.start for place in ruling.span)
        if 0 <= start < end <= len(hit.passage.text):
            return clean(hit.passage.text[start:end]) or None
    return None


def _better(ruling: Ruling, question: Question, counts: Counter[str]) -> tuple[str | None, str]:
    corrected = correction(ruling, question)
    if corrected is not None:
        return corrected, f"annotator {ruling.corrector} {'corrected the answer' if ruling.edited else 'marked these words'}"
    counts["human: marked span outside the passages"] += ruling.span is not None
    who = f"annotator{'s' * (len(ruling.names) > 1)} {', '.join(ruling.names)} preferred it"
    place = {"a": 0, "b": 1}.get(ruling.verdict or "")
    return None if place is None else ruling.answers[place], f"{who} ({ruling.votes} of {ruling.of} votes)"


def _changed(program: ContractQA, ruling: Ruling, question: Question) -> bool:
    """Say whether the answers are known to have been given for other passages than those found now."""
    if not ruling.prompt:
        return False
    *_, now, _ = program.messages(question.row["question"], question.hits, "")
    return ruling.prompt[-1].get("content") != now["content"]


def _supported(answer: str, question: Question) -> bool:
    if is_refusal(answer):
        return bool(question.row["is_impossible"])
    return bool(cite(answer, [hit.passage for hit in question.hits]))
