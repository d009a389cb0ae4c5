"""What the annotators decided about each pair of answers: the majority's verdict, and how they corrected it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cuadft.judgements import checked, current, swapped


@dataclass(frozen=True)
class Ruling:
    """One pair of answers to one question, and what most annotators say of it.

    verdict: a, b, tie, both_wrong, or None without a majority. votes, of: the annotators for the verdict, and all who
    did not skip. names: those for the verdict. edited, span: a correction by one of them, and who made it. prompt: the
    messages behind the answers, where known.
    """

    id: str
    contract: str
    question: str
    answers: tuple[str, str]
    verdict: str | None
    votes: int
    of: int
    names: tuple[str, ...]
    edited: str | None = None
    span: tuple[int, int] | None = None
    corrector: str = ""
    prompt: Sequence[Mapping[str, str]] | None = None


def fold(text: str) -> str:
    """Return the text as answers are told apart: by their characters, whatever the case and the white space."""
    return " ".join(text.split()).casefold()


def rule(feedback: Sequence[Mapping[str, Any]]) -> tuple[list[Ruling], Counter[str]]:
    """Return one ruling per pair of answers that someone judged, and counts of what gave none or no clear one.

    feedback: judgements (see `judgements`); of one annotator the latest on a pair counts, whichever systems gave the
    two answers. The verdict needs more than half of those who did not skip. Raises InputError on an invalid judgement.
    """
    counts: Counter[str] = Counter()
    by_pair: dict[tuple[str, frozenset[str]], dict[str, dict[str, Any]]] = defaultdict(dict)
    for judgement in current([checked(judgement) for judgement in feedback]):
        answers = frozenset(fold(judgement[side]) for side in ("answer_a", "answer_b"))
        if len(answers) < 2:
            counts["human: equal answers"] += 1
        else:
            by_pair[judgement["id"], answers].pop(judgement["annotator"], None)  # the latest stands last
            by_pair[judgement["id"], answers][judgement["annotator"]] = judgement
    found = []
    for judged in by_pair.values():
        votes = [vote for vote in _aligned(list(judged.values())) if vote["verdict"] != "skip"]
        counts["human: skipped"] += len(judged) - len(votes)
        if votes:
            found.append(_ruling(votes))
            counts["human: annotators contradict each other"] += {"a", "b"} <= {vote["verdict"] for vote in votes}
            counts["human: no majority"] += found[-1].verdict is None
    return found, +counts


def _aligned(judged: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the judgements of one pair with a and b as in the first one."""
    first = fold(judged[0]["answer_a"])
    return [judgement if fold(judgement["answer_a"]) == first else swapped(judgement) for judgement in judged]


def _ruling(votes: Sequence[Mapping[str, Any]]) -> Ruling:
    (verdict, count), *_ = Counter(vote["verdict"] for vote in votes).most_common()
    clear = 2 * count > len(votes)
    side = [vote for vote in votes if vote["verdict"] == verdict] if clear else []
    first = (side or votes)[0]
    edit = next((vote for vote in reversed(side) if vote["edited"]), None)
    mark = next((vote for vote in reversed(side) if vote["span"]), None) if edit is None else None
    return Ruling(first["id"], first["contract"], first["question"], (first["answer_a"], first["answer_b"]),
                  verdict if clear else None, count if clear else 0, len(votes), tuple(vote["annotator"] for vote in side),
                  edited=edit["edited"] if edit else None, span=tuple(mark["span"]) if mark else None,
                  corrector=(edit or mark or {}).get("annotator", ""),
                  prompt=next((vote["prompt"] for vote in reversed(side) if vote["prompt"]), None))
