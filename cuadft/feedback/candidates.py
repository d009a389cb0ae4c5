"""Answers of the current model to training questions, among which preferences are found: greedy and sampled ones.

The distinct answers to each training question, graded by the expert's words (gold) and by a judge.

Preferences that annotators stated: what they chose, corrected or marked, against what they found worse or wrong.

What preferences are made of: a question's graded answers, and what people decided about them.
"""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cuadft.core.errors import InputError
from cuadft.core.text import fold, quotable
from cuadft.evaluation.judge import Judge, gold_texts, has_failed
from cuadft.evaluation.text_scores import NO_CLAUSE, Comparison, is_refusal
from cuadft.feedback.agreement import Ruling, pair_rulings
from cuadft.rag.program import ContractQA, cite_passages, target_answer

if TYPE_CHECKING:
    import dspy

    from cuadft.retrieval.retriever import Hit


def draw_candidate_rows(
    rows: Sequence[dict[str, Any]], *, size: int, impossible_share: float, seed: int, seen: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Draw the training rows to sample answers for, `impossible_share` of them unanswerable.

    seen: ids of the rows that the model was fine-tuned on; they come last, for the model knows their answers by heart.
    Too few unanswerable rows are made up for by others, never the other way round. Of rows with the same id one is
    taken. Raises InputError on a size below 1 or a share outside 0 to 1.
    """
    if size < 1 or not 0 <= impossible_share <= 1:
        raise InputError(
            f"Cannot draw {size} rows with a share of {impossible_share} unanswerable: give a size from 1 "
            "and a share from 0 to 1."
        )
    known = set(seen)
    unique = list({row["id"]: row for row in rows}.values())
    mixed = sorted(random.Random(seed).sample(unique, len(unique)), key=lambda row: row["id"] in known)
    impossible = [row for row in mixed if row["is_impossible"]]
    answerable = [row for row in mixed if not row["is_impossible"]]
    take = min(len(impossible), round(size * impossible_share))
    return impossible[:take] + answerable[: size - take]


def sample_candidates(
    program: ContractQA,
    lm: dspy.LM,
    rows: Sequence[dict[str, Any]],
    folder: Path,
    *,
    n: int,
    temperature: float,
    batch_size: int = 16,
) -> list[dict[str, Any]]:
    """Return n + 1 predictions a row: the greedy answer and n sampled ones, in the order of their numbers.

    Each number has a file of its own in `folder`, written batch by batch; a killed call goes on where it stopped.
    Raises InputError on n below 0 and on a temperature of 0, with which all answers would be the greedy one.
    """
    if n < 0 or (n and not temperature > 0):
        raise InputError(
            f"Cannot sample {n} answers at temperature {temperature}: give a number from 0 and a temperature "
            "above 0, such as 1.0."
        )
    from cuadft.rag.inference import answer_rows

    settings = [(0.0, 0)] + [(temperature, seed) for seed in range(1, n + 1)]
    return [
        made
        for heat, seed in settings
        for made in answer_rows(
            program,
            lm.copy(temperature=heat, seed=seed),
            rows,
            folder / f"candidates.{seed}.jsonl",
            system=f"candidate {seed}",
            split="train",
            batch_size=batch_size,
        )
    ]


def with_prompts(program: ContractQA, answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the answers with `prompt`, the chat messages to which they were given."""
    questions = {a["id"]: (a["question"], a["contract"]) for a in answers}
    found = program.retriever.search_many(list(questions.values()), k=program.k)
    prompts = {
        id_: program.messages(question, hits, "")[:-1]
        for (id_, (question, _)), hits in zip(questions.items(), found, strict=True)
    }
    return [a | {"prompt": prompts[a["id"]]} for a in answers]


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
    compared = Comparison(answer, gold_texts(row))
    return max(compared.f1(), compared.f1_all())


def taught_answer(answer: str) -> str:
    """Return an answer as it is taught: the refusal in its one wording."""
    return NO_CLAUSE if is_refusal(answer) else answer


def same_answer(answer: str, other: str) -> bool:
    """Say whether two answers are the same but for case, white space and the wording of a refusal."""
    return _key(answer) == _key(other)


def grade_answers(
    program: ContractQA,
    candidates: Sequence[Mapping[str, Any]],
    *,
    judge: Judge | None,
    rows: Iterable[Mapping[str, Any]] = (),
) -> tuple[dict[str, Question], Counter[str]]:
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
        if has_failed(row):
            counts["generation failed"] += 1
        else:
            distinct.setdefault((row["id"], _key(row["answer"])), row | {"answer": taught_answer(row["answer"])})
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
        words = target_answer(row, hits)
        made[row["id"]] = Question(row, hits, None if words is None else Answer(words, gold_score(words, row)))
    return made


def _judged(judge: Judge | None, rows: Sequence[Mapping[str, Any]]) -> list[float]:
    if judge is None or not rows:
        return [math.nan] * len(rows)
    rated = judge.rate(rows)
    return [
        math.nan if isinstance(error, str) and error else float(score)
        for score, error in zip(rated["judge_score"], rated["judge_error"], strict=True)
    ]


def _key(answer: str) -> str:
    return fold(quotable(taught_answer(answer)))


def _check(row: Mapping[str, Any]) -> None:
    absent = [key for key in REQUIRED if key not in row]
    if absent:
        raise InputError(
            f"The candidate for question {row.get('id')!r} has no {absent[0]!r}: give predictions with "
            f"{', '.join(REQUIRED)}, as candidates.sample returns them."
        )


class Choice(NamedTuple):
    """An answer to prefer to another one, why, and the scores of both where the source has any."""

    question: Question
    chosen: str
    rejected: str
    source: str
    reason: str
    scores: tuple[float, float] | None = None


def known_choices(
    rulings: Sequence[Ruling], rows: Mapping[str, Mapping[str, Any]], counts: Counter[str]
) -> list[Ruling]:
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


def human_choices(program: ContractQA, ruling: Ruling, question: Question, counts: Counter[str]) -> list[Choice]:
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
    made = [
        Choice(question, taught_answer(better), taught_answer(worse), "human", reason)
        for worse in wrong
        if not same_answer(better, worse)
    ]
    counts["human: correction changes nothing"] += bool(wrong) and not made
    return made


def corrected_answer(ruling: Ruling, question: Question) -> str | None:
    """Return the corrected answer, or the words at the marked span where the passages hold it, or None."""
    if ruling.edited is not None:
        return quotable(ruling.edited)
    for hit in question.hits if ruling.span else ():
        start, end = (place - hit.passage.start for place in ruling.span)
        if 0 <= start < end <= len(hit.passage.text):
            return quotable(hit.passage.text[start:end]) or None
    return None


def _better(ruling: Ruling, question: Question, counts: Counter[str]) -> tuple[str | None, str]:
    corrected = corrected_answer(ruling, question)
    if corrected is not None:
        return (
            corrected,
            f"annotator {ruling.corrector} {'corrected the answer' if ruling.edited else 'marked these words'}",
        )
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
    return bool(cite_passages(answer, [hit.passage for hit in question.hits]))


SOURCES = ("human", "gold", "ai")  # in the order of precedence


@dataclass(frozen=True)
class Material:
    """The questions by id, people's rulings and choices by question, and counts of what was left out."""

    questions: dict[str, Question]
    counts: Counter[str]
    rulings: dict[str, list[Ruling]] = field(default_factory=lambda: defaultdict(list))
    choices: dict[str, list[Choice]] = field(default_factory=lambda: defaultdict(list))


def gather_material(
    program: ContractQA,
    candidates: Sequence[Mapping[str, Any]],
    *,
    judge: Judge | None,
    sources: Sequence[str],
    feedback: Sequence[Mapping[str, Any]],
    rows: Sequence[Mapping[str, Any]],
) -> Material:
    """Grade the candidates and decide what people said; each only if `sources` names what needs it.

    Raises InputError on unknown sources, on "ai" without a judge, and on records that are none.
    """
    unknown = [source for source in sources if source not in SOURCES]
    if unknown or not sources:
        raise InputError(f"Invalid preference sources {list(sources)!r}: choose among {', '.join(SOURCES)}.")
    if "ai" in sources and judge is None:
        raise InputError(
            "The source 'ai' needs a judge, got None: give one, such as OfflineJudge(), or leave 'ai' out."
        )
    training = {row["id"]: row for row in [*rows, *candidates]}
    said, counts = pair_rulings(feedback) if "human" in sources else ([], Counter())
    said = known_choices(said, training, counts)
    questions, failures = grade_answers(
        program, candidates, judge=judge if "ai" in sources else None, rows=[training[ruling.id] for ruling in said]
    )
    material = Material(questions, counts + failures)
    for ruling in said:
        material.rulings[ruling.id].append(ruling)
        material.choices[ruling.id] += human_choices(program, ruling, questions[ruling.id], material.counts)
    return material
