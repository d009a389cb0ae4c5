"""The distinct answers to each training question, graded by the expert's words (gold) and by a judge."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cuadft.answer_scores import NO_CLAUSE, Comparison, is_refusal
from cuadft.errors import InputError
from cuadft.program import ContractQA, clean, target
from cuadft.ratings import Judge, failed, golds
from cuadft.rulings import fold

if TYPE_CHECKING:
    from cuadft.retriever import Hit

REQUIRED = ("id", "contract", "question", "answers", "is_impossible", "answer", "error")


@dataclass(frozen=True)
class Answer:
    """An answer with its grades, 0 to 1; judged is NaN where no judge was asked or the judgement failed."""

    text: str
    gold: float
    judged: float = math.nan

    @property
    def refuses(self) -> bool:
        """Say whether it is the refusal."""
        return self.text == NO_CLAUSE


@dataclass(frozen=True)
class Question:
    """A training question, the passages found for it, the model's distinct answers and the expert's words.

    expert: None where the clause lies outside the passages. What the model saw then makes a refusal neither right nor
    wrong, so that refusals are not among `usable`.
    """

    row: Mapping[str, Any]
    hits: Sequence[Hit]
    expert: Answer | None
    answers: list[Answer] = field(default_factory=list)

    @property
    def usable(self) -> list[Answer]:
        """Return the model's answers that can be told right from wrong by what it saw."""
        return [a for a in self.answers if self.expert is not None or not a.refuses]


def gold_score(answer: str, row: Mapping[str, Any]) -> float:
    """Return the token F1 with the nearest gold span or with all of them together, whichever is higher.

    A refusal is 1 where there is no clause and 0 elsewhere, any other answer 0 where there is none.
    """
    if row["is_impossible"] or is_refusal(answer):
        return float(bool(row["is_impossible"]) and is_refusal(answer))
    compared = Comparison(answer, golds(row))
    return max(compared.f1(), compared.f1_all())


def plain(answer: str) -> str:
    """Return an answer as it is taught: the refusal in its one wording."""
    return NO_CLAUSE if is_refusal(answer) else answer


def same(answer: str, other: str) -> bool:
    """Say whether two answers are the same but for case, white space and the wording of a refusal."""
    return _key(answer) == _key(other)


def grade(program: ContractQA, candidates: Sequence[Mapping[str, Any]], *, judge: Judge | None,
          rows: Iterable[Mapping[str, Any]] = ()) -> tuple[dict[str, Question], Counter[str]]:
    """Return the questions by id, in the order of the candidates, and counts of failed generations and judgements.

    Equal answers to a question are one, and the judge is asked once for it. rows: more questions to find the passages
    of, without answers. Raises InputError on a candidate that is no prediction.
    """
    counts: Counter[str] = Counter()
    distinct: dict[tuple[str, str], Mapping[str, Any]] = {}
    asked: dict[str, Mapping[str, Any]] = {}
    for row in candidates:
        _check(row)
        asked.setdefault(row["id"], row)
        if failed(row):
            counts["generation failed"] += 1
        else:
            distinct.setdefault((row["id"], _key(row["answer"])), row | {"answer": plain(row["answer"])})
    for row in rows:
        asked.setdefault(row["id"], row)
    questions = _questions(program, list(asked.values()))
    scores = _judged(judge, list(distinct.values()))
    for row, score in zip(distinct.values(), scores, strict=True):
        questions[row["id"]].answers.append(Answer(row["answer"], gold_score(row["answer"], row), score))
        counts["judgement failed"] += judge is not None and math.isnan(score)
    return questions, +counts


def _questions(program: ContractQA, rows: Sequence[Mapping[str, Any]]) -> dict[str, Question]:
    found = program.retriever.search_many([(r["question"], r["contract"]) for r in rows], k=program.k) if rows else []
    made = {}
    for row, hits in zip(rows, found, strict=True):
        words = target(row, hits)
        made[row["id"]] = Question(row, hits, None if words is None else Answer(words, gold_score(words, row)))
    return made


def _judged(judge: Judge | None, rows: Sequence[Mapping[str, Any]]) -> list[float]:
    if judge is None or not rows:
        return [math.nan] * len(rows)
    rated = judge.rate(rows)
    return [math.nan if isinstance(error, str) and error else float(score)
            for score, error in zip(rated["judge_score"], rated["judge_error"], strict=True)]


def _key(answer: str) -> str:
    return fold(clean(plain(answer)))


def _check(row: Mapping[str, Any]) -> None:
    absent = [key for key in REQUIRED if key not in row]
    if absent:
        raise InputError(f"The candidate for question {row.get('id')!r} has no {absent[0]!r}: give predictions with "
                         f"{', '.join(REQUIRED)}, as candidates.sample returns them.")
