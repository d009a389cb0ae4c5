"""Single answers with a thumb up or down, for methods that need no pairs (KTO, Ethayarajh et al. 2024)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from cuadft.errors import InputError
from cuadft.grades import Answer, Question, plain, same
from cuadft.material import SOURCES, Material, gather

if TYPE_CHECKING:
    from cuadft.program import ContractQA
    from cuadft.ratings import Judge


class Thumb(NamedTuple):
    """An answer, whether it is good (None: not said clearly), and who says so."""

    text: str
    good: bool | None
    source: str
    reason: str
    score: float | None = None


def unpaired(program: ContractQA, candidates: Sequence[Mapping[str, Any]], *, judge: Judge | None,
             sources: Sequence[str] = SOURCES, feedback: Sequence[Mapping[str, Any]] = (),
             rows: Sequence[Mapping[str, Any]] = (), good: float = 0.75,
             bad: float = 0.25) -> tuple[list[dict[str, Any]], Counter[str]]:  # fmt: skip
    """Return answers with a thumb up (label True) or down, and counts; see `preferences.pairs` for the arguments.

    A record has the keys id, contract, prompt, completion, label, source, reason and score (None for people's thumbs).
    human: up for what the majority chose or corrected, down for what it was preferred to or called wrong; an answer
    with both is left out. gold, else ai: up from `good`, down to `bad`; what gold and judge see differently is left
    out. The expert's words are an answer only where none of the model's is good. Raises InputError as `pairs` does.
    """
    if not 0 <= bad < good <= 1:
        raise InputError(f"Invalid thresholds bad {bad} and good {good}: give 0 <= bad < good <= 1.")
    material = gather(program, candidates, judge=judge, sources=sources, feedback=feedback, rows=rows)
    made = []
    for id_, question in material.questions.items():
        thumbs = _human(material, id_)
        for answer in question.usable:
            if not any(same(answer.text, thumb.text) for thumb in thumbs):
                thumbs.append(_graded(answer, question, judge, sources, good, bad))
        expert = question.expert
        told = any(thumb.good or same(thumb.text, expert.text) for thumb in thumbs) if expert else True
        if "gold" in sources and question.answers and not told and expert.gold >= good:
            thumbs.append(Thumb(expert.text, True, "gold", "the expert's words", expert.gold))
        material.counts.update(thumb.reason for thumb in thumbs if thumb.good is None)
        made += [_record(program, question, thumb) for thumb in thumbs if thumb.good is not None]
    material.counts.update(record["source"] for record in made)
    material.counts.update("up" if record["label"] else "down" for record in made)
    return made, +material.counts


def weights(records: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return KTO's desirable and undesirable weight with which thumbs up and down count alike (1.0 for the more frequent).

    Equal totals are the lower end of the range 1 to 4/3 that Ethayarajh et al. (2024), section 4.1, advise. Without any
    thumb up, or any down, both are 1.
    """
    up = sum(bool(record["label"]) for record in records)
    down = len(records) - up
    return (max(1.0, down / up), max(1.0, up / down)) if up and down else (1.0, 1.0)


def _human(material: Material, id_: str) -> list[Thumb]:
    """Return people's thumbs for a question, each answer once; one that is both up and down is left undecided."""
    found: list[Thumb] = []
    for choice in material.choices[id_]:
        found.append(Thumb(choice.chosen, True, "human", choice.reason))
        found.append(Thumb(choice.rejected, False, "human", f"another answer was chosen: {choice.reason}"))
    for ruling in material.rulings[id_]:
        if ruling.verdict == "both_wrong":
            who = f"annotator{'s' * (len(ruling.names) > 1)} {', '.join(ruling.names)} called it wrong"
            found += [Thumb(plain(answer), False, "human", who) for answer in ruling.answers if answer.strip()]
        alone = [answer for answer in ruling.answers if answer.strip()]
        if ruling.verdict in ("a", "b") and len(alone) == 1 and alone[0] == ruling.answers["ab".index(ruling.verdict)]:
            found.append(Thumb(plain(alone[0]), True, "human", f"annotator {', '.join(ruling.names)} found it good"))
    merged: list[Thumb] = []
    for thumb in found:
        place = next((i for i, known in enumerate(merged) if same(known.text, thumb.text)), None)
        if place is None:
            merged.append(thumb)
        elif merged[place].good is not thumb.good:
            merged[place] = Thumb(thumb.text, None, "human", "human: both up and down")
    return merged


def _graded(answer: Answer, question: Question, judge: Judge | None, sources: Sequence[str], good: float,
            bad: float) -> Thumb:
    """Return gold's thumb, or the judge's where gold is undecided or not asked."""
    gold = _decide(answer.gold, good, bad) if "gold" in sources else None
    ai = _decide(answer.judged, good, bad) if "ai" in sources else None
    if gold is not None and ai is not None and gold is not ai and not question.row["is_impossible"]:
        return Thumb(answer.text, None, "gold", "gold and judge disagree")
    if gold is not None:
        reason = ("there is such a clause" if answer.refuses else f"F1 {answer.gold:.2f} with the expert's words")
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
    return {"id": row["id"], "contract": row["contract"], "prompt": prompt, "completion": [completion],
            "label": thumb.good, "source": thumb.source, "reason": thumb.reason, "score": thumb.score}
