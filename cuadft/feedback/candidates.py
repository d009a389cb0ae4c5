"""The model's answers to training questions, graded, and what people decided about them: preferences are made of it.

    rows = draw_candidate_rows(train, size=24, seed=7)
    answers = sample_candidates(program, lm, rows, folder, n=2)
    material = gather_material(program, answers, judge=judge, feedback=judgements, rows=train)

A candidate is a prediction of the current model for a training question: its greedy answer or a sampled one.
`gather_material` grades each distinct answer of a question by the expert's words (gold) and by a judge, and turns the
annotators' rulings into texts to prefer and to reject. `preferences` makes pairs and thumbs of these.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cuadft.core.text import fold, quotable
from cuadft.data.passages import locate_words
from cuadft.evaluation.text_scores import NO_CLAUSE, AnswerComparison, is_refusal, token_f1
from cuadft.evaluation.verdicts import Judge, gold_texts, has_failed
from cuadft.feedback.agreement import Ruling, pair_rulings
from cuadft.feedback.records import Rows
from cuadft.feedback.training_questions import shows_passages
from cuadft.rag.program import ContractQA
from cuadft.rag.training_rows import target_answer, whole_words

if TYPE_CHECKING:
    import dspy

    from cuadft.retrieval.retriever import Hit


TEMPERATURE = 1.0  # of the sampled answers


def draw_candidate_rows(
    rows: Sequence[dict[str, Any]], *, size: int, seed: int, seen: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Draw the training rows to sample answers for, up to `size`, among those whose clause exists.

    seen: ids of the rows that the model was fine-tuned on; they are drawn last, for the model knows their answers by
    heart. Of rows with the same id one is taken.
    """
    known = set(seen)
    unique = list({row["id"]: row for row in rows}.values())
    mixed = sorted(random.Random(seed).sample(unique, len(unique)), key=lambda row: row["id"] in known)
    return [row for row in mixed if not row["is_impossible"]][:size]


def sample_candidates(
    program: ContractQA, lm: dspy.LM, rows: Sequence[dict[str, Any]], folder: Path, *, n: int, batch_size: int = 16
) -> list[dict[str, Any]]:
    """Return n + 1 predictions of each row: first all greedy answers, then the n samples one after the other.

    The program's reader answers: about the best passage alone, with all its quotes, one a line, or the refusal.
    Sample number i is written to `folder`/candidates.i.jsonl batch by batch, the greedy answers to candidates.0.jsonl;
    after a kill the call goes on where it stopped.
    """
    from cuadft.rag.inference import answer_rows

    return [
        whole_reply(made)
        for seed in range(n + 1)
        for made in answer_rows(
            program.reader(),
            lm.copy(temperature=TEMPERATURE if seed else 0.0, seed=seed),
            rows,
            folder / f"candidates.{seed}.jsonl",
            system=f"candidate {seed}",
            split="train",
            batch_size=batch_size,
        )
    ]


def whole_reply(prediction: dict[str, Any]) -> dict[str, Any]:
    """Return a prediction whose answer is all its quotes, if it has any, one a line in the order of the contract."""
    quotes = sorted(prediction["quotes"], key=lambda quote: quote["span"] or [math.inf])
    answer = "\n".join(quote["text"] for quote in quotes)
    spans = [quote["span"] for quote in quotes if quote["span"]]
    return prediction | {"answer": answer, "spans": spans} if quotes else prediction


def with_prompts(program: ContractQA, answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the answers, each with its `prompt`: the chat messages that the program sent to get it."""
    questions = {a["id"]: (a["question"], a["contract"]) for a in answers}
    found = program.retriever.search_many(list(questions.values()), k=1)
    prompts = {
        id_: program.messages(question, hits[0], "")[:-1]
        for (id_, (question, _)), hits in zip(questions.items(), found, strict=True)
    }
    return [a | {"prompt": prompts[a["id"]]} for a in answers]


@dataclass(frozen=True)
class GradedAnswer:
    """Hold an answer with its grades, each from 0 to 1."""

    text: str
    gold: float  # see `gold_score`
    judged: float = math.nan  # by the judge; NaN where no judge was asked or the judge failed


class Choice(NamedTuple):
    """Hold the text to prefer and the text to reject as answers to a question, and who says so."""

    question: GradedQuestion
    chosen: str
    rejected: str
    source: str  # human, gold or ai
    reason: str
    scores: tuple[float, float] | None = None  # the grades of chosen and rejected; None if people chose


@dataclass(frozen=True)
class GradedQuestion:
    """Hold a training question, the best passage found for it, and what is known about answers to it.

    expert: the answer that is taught, None where the clause lies outside the passage. The model then could not see
    whether a refusal is right, so that `usable` leaves refusals out. answers: the model's distinct answers. rulings,
    choices: what people decided.
    """

    row: Mapping[str, Any]
    hit: Hit
    expert: GradedAnswer | None
    answers: list[GradedAnswer] = field(default_factory=list)
    rulings: list[Ruling] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)

    @property
    def usable(self) -> list[GradedAnswer]:
        """Return the answers that can be called right or wrong by the passage that the model saw."""
        return [a for a in self.answers if self.expert is not None or a.text != NO_CLAUSE]


class Material(NamedTuple):
    """Hold the questions in the order of the candidates, and counts of what failed or decided nothing.

    judge: the name of the judge that graded the answers, "" without one.
    """

    questions: list[GradedQuestion]
    counts: Counter[str]
    judge: str


def gather_material(
    program: ContractQA, candidates: Rows, *, judge: Judge | None, feedback: Rows = (), rows: Rows = ()
) -> Material:
    """Return what is known about the answers to each question; equal answers to a question are graded once.

    candidates: predictions for training questions, several of each question. feedback: judgements (see `records`).
    rows: training rows on which there may be judgements but no candidates. Raises InputError on an invalid judgement.
    """
    training = {row["id"]: row for row in [*rows, *candidates]}
    rulings, counts = pair_rulings(feedback)
    known = [ruling for ruling in rulings if _is_about(ruling, training.get(ruling.pair["id"]))]
    counts["human: not a training question"] = len(rulings) - len(known)
    ids = dict.fromkeys([row["id"] for row in candidates] + [ruling.pair["id"] for ruling in known])
    questions = _questions(program, [training[id_] for id_ in ids])
    counts["generation failed"] = sum(map(has_failed, candidates))
    distinct: dict[tuple[str, str], Mapping[str, Any]] = {}
    for row in candidates:
        if not has_failed(row):
            distinct.setdefault((row["id"], compared(row["answer"])), row | {"answer": taught_answer(row["answer"])})
    shown = [row | {"answer": in_words(program, row["answer"])} for row in distinct.values()]
    for row, score in zip(distinct.values(), _judge_scores(judge, shown), strict=True):
        question = questions[row["id"]]
        grade = gold_score(row["answer"], row, question.expert and question.expert.text)
        question.answers.append(GradedAnswer(row["answer"], grade, score))
        counts["judgement failed"] += judge is not None and math.isnan(score)
    for ruling in known:
        question = questions[ruling.pair["id"]]
        question.rulings.append(ruling)
        question.choices.extend(human_choices(program, ruling, question, counts))
    return Material(list(questions.values()), counts, judge.name if judge else "")


def gold_score(answer: str, row: Mapping[str, Any], taught: str | None = None) -> float:
    """Return the gold grade: the token F1 with the nearest gold span or with all spans together, whichever is higher.

    taught: what of the spans stands in the passage that was read; the answer is compared with it as well, for there is
    no more to quote. Where the contract has no such clause, a refusal scores 1 and any other answer 0; elsewhere a
    refusal scores 0.
    """
    if row["is_impossible"] or is_refusal(answer):
        return float(bool(row["is_impossible"]) and is_refusal(answer))
    comparison = AnswerComparison(answer, gold_texts(row))
    seen = [] if taught is None else [token_f1(answer, [taught])]
    return max(comparison.f1(), comparison.f1_all(), *seen)


def taught_answer(answer: str) -> str:
    """Return an answer as it is graded: every wording of a refusal becomes `NO_CLAUSE`, other answers stay."""
    return NO_CLAUSE if is_refusal(answer) else answer


def in_words(program: ContractQA, answer: str) -> str:
    """Return an answer as the program teaches it: `NO_CLAUSE` becomes the refusal that its prompt asks for."""
    return program.refusal if answer == NO_CLAUSE else answer


def compared(answer: str) -> str:
    """Return the form by which answers are compared: without case, white space and the wording of a refusal."""
    return fold(quotable(taught_answer(answer)))


def _questions(program: ContractQA, rows: Rows) -> dict[str, GradedQuestion]:
    found = program.retriever.search_many([(r["question"], r["contract"]) for r in rows], k=1) if rows else []
    made = {}
    for row, (hit,) in zip(rows, found, strict=True):
        words = target_answer(row, hit)
        expert = None if words is None else GradedAnswer(words, gold_score(words, row, words))
        made[row["id"]] = GradedQuestion(row, hit, expert)
    return made


def _judge_scores(judge: Judge | None, rows: Rows) -> list[float]:
    if judge is None or not rows:
        return [math.nan] * len(rows)
    rated = judge.rate(rows)
    failed = rated["judge_error"].fillna("").astype(bool)
    return rated["judge_score"].astype(float).mask(failed).tolist()


def _is_about(ruling: Ruling, row: Mapping[str, Any] | None) -> bool:
    return row is not None and all(fold(row[key]) == fold(ruling.pair[key]) for key in ("contract", "question"))


def human_choices(program: ContractQA, ruling: Ruling, question: GradedQuestion, counts: Counter[str]) -> list[Choice]:
    """Return the choices that a ruling makes: none, one, or a correction against each of two wrong answers.

    A correction also takes the winner's place. The annotators may have seen another passage than the one found now;
    their choice then counts only if the chosen words stand in the present passage, for a model can't learn words that
    it does not see. counts: what gives no choice is counted here, by its reason.
    """
    better, reason = _preferred(ruling, question, counts)
    if better is None:
        counts[reason] += 1
        return []
    *_, now, _ = program.messages(question.row["question"], question.hit, "")
    seen = ruling.latest("prompt")
    asked = [one["content"] for one in seen["prompt"] if one["role"] == "user"] if seen else []
    sent = asked[-1] if asked else now["content"]
    changed = sent != now["content"] and shows_passages(sent, question.row)
    if changed and not _stands_in_passage(better, question):
        counts["human: passages have changed"] += 1
        return []
    wrong = {"a": ruling.answers[1:], "b": ruling.answers[:1]}.get(ruling.verdict, ruling.answers)
    wrong = [answer for answer in wrong if answer.strip()]  # a single answer with a thumb has a blank second answer
    made = [
        Choice(question, taught_answer(better), taught_answer(worse), "human", reason)
        for worse in wrong
        if compared(better) != compared(worse)
    ]
    counts["human: both answers are the same"] += bool(wrong) and not made
    return made


def _preferred(ruling: Ruling, question: GradedQuestion, counts: Counter[str]) -> tuple[str | None, str]:
    """Return the text that a ruling prefers, None if it prefers no text, and in either case the reason."""
    if corrected := ruling.latest("edited"):
        lines = [line for line in map(quotable, corrected["edited"].splitlines()) if line]
        return "\n".join(lines), f"annotator {corrected['annotator']} corrected the answer"
    if marked := ruling.latest("span"):
        passage = question.hit.passage
        start, end = (place - passage.start for place in marked["span"])
        inside = 0 <= start < end <= len(passage.text)
        if inside and (words := quotable(whole_words(passage.text, start, end))):
            return words, f"annotator {marked['annotator']} marked these words"
        counts["human: marked span outside the passages"] += 1
    if ruling.verdict not in ("a", "b"):
        return None, f"human: {(ruling.verdict or 'no majority').replace('_', ' ')}"
    support = f"{len(ruling.agreed)} of {len(ruling.judged)} votes"
    return ruling.answers["ab".index(ruling.verdict)], f"{ruling.who} preferred it ({support})"


def _stands_in_passage(answer: str, question: GradedQuestion) -> bool:
    if is_refusal(answer):
        return bool(question.row["is_impossible"])
    return all(locate_words(line, question.hit.passage.text) for line in answer.splitlines() if line.strip())
