"""What preferences are made of: a question's graded answers, and what people decided about them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cuadft import human_pairs
from cuadft.errors import InputError
from cuadft.grades import Question, grade
from cuadft.human_pairs import Choice
from cuadft.program import ContractQA
from cuadft.ratings import Judge
from cuadft.rulings import Ruling, rule

SOURCES = ("human", "gold", "ai")  # in the order of precedence


@dataclass(frozen=True)
class Material:
    """The questions by id, people's rulings and choices by question, and counts of what was left out."""

    questions: dict[str, Question]
    counts: Counter[str]
    rulings: dict[str, list[Ruling]] = field(default_factory=lambda: defaultdict(list))
    choices: dict[str, list[Choice]] = field(default_factory=lambda: defaultdict(list))


def gather(program: ContractQA, candidates: Sequence[Mapping[str, Any]], *, judge: Judge | None, sources: Sequence[str],
           feedback: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]]) -> Material:
    """Grade the candidates and decide what people said; each only if `sources` names what needs it.

    Raises InputError on unknown sources, on "ai" without a judge, and on records that are none.
    """
    unknown = [source for source in sources if source not in SOURCES]
    if unknown or not sources:
        raise InputError(f"Invalid preference sources {list(sources)!r}: choose among {', '.join(SOURCES)}.")
    if "ai" in sources and judge is None:
        raise InputError("The source 'ai' needs a judge, got None: give one, such as OfflineJudge(), or leave 'ai' out.")
    training = {row["id"]: row for row in [*rows, *candidates]}
    said, counts = rule(feedback) if "human" in sources else ([], Counter())
    said = human_pairs.known(said, training, counts)
    questions, failures = grade(program, candidates, judge=judge if "ai" in sources else None,
                                rows=[training[ruling.id] for ruling in said])  # fmt: skip
    material = Material(questions, counts + failures)
    for ruling in said:
        material.rulings[ruling.id].append(ruling)
        material.choices[ruling.id] += human_pairs.choices(program, ruling, questions[ruling.id], material.counts)
    return material
