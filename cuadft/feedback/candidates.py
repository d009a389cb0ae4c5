"""The model's answers to training questions, graded, and what people decided about them: preferences are made of it.

    rows = draw_candidate_rows(program, train, size=24, seed=7)
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
from cuadft.data.rows import seed_question
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
DRAW = "#"  # between a row's id and the number of a sampled answer, while the answers lie in a file


def draw_candidate_rows(
    program: ContractQA, rows: Sequence[dict[str, Any]], *, size: int, seed: int, seen: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Draw the training rows to sample answers for, up to `size`, among those whose best passage holds the clause.

    seen: ids of the rows that the model was fine-tuned on. A row is drawn last if its question was among them, in
    whatever words, for the model knows its answer by heart. Of rows with the same id one is taken.
    """
    known = set(map(seed_question, seen))
    unique = [row for row in {row["id"]: row for row in rows}.values() if not row["is_impossible"]]
    mixed = random.Random(seed).sample(unique, len(unique))
    mixed.sort(key=lambda row: seed_question(row["id"]) in known)
    drawn: list[dict[str, Any]] = []
    for start in range(0, len(mixed), max(1, size)):  # most rows are never searched for
        part = mixed[start : start + size]
        found = program.retriever.search_many([(row["question"], row["contract"]) for row in part], k=1)
        drawn += [row for row, hits in zip(part, found, strict=True) if hits and target_answer(row, hits[0])]
        if len(drawn) >= size:
            break
    return drawn[:size]


def sample_candidates(
    program: ContractQA, lm: dspy.LM, rows: Sequence[dict[str, Any]], folder: Path, *, n: int, batch_size: int = 16
) -> list[dict[str, Any]]:
    """Return n + 1 predictions of each row: first all greedy answers, then the n samples one after the other.

    The program's reader answers: about the best passage alone, with all its quotes, one a line, and without refusing.
    The greedy answers are written to `folder`/greedy.jsonl batch by batch, the samples to samples.jsonl; after a kill
    the call goes on where it stopped.
    """
    from cuadft.rag.inference import answer_rows

    reader, settings = program.reader(), {"split": "train", "batch_size": batch_size}
    likeliest, path = lm.copy(temperature=0.0, seed=0), folder / "greedy.jsonl"
    greedy = answer_rows(reader, likeliest, rows, path, system="candidate 0", **settings)
    samples = draw_answers(reader, lm, rows, folder / "samples.jsonl", n=n, **settings)
    return [whole_reply(made) for made in [*greedy, *samples]]


def draw_answers(
    program: ContractQA, lm: dspy.LM, rows: Sequence[dict[str, Any]], path: Path, *, n: int, **settings: Any
) -> list[dict[str, Any]]:
    """Return n sampled predictions of each row, first one of every row, then the next; kept in `path`.

    The samples of a row share a batch, so that its prompt runs through the model once. They are sorted, for which of
    them answers which of the equal calls is chance. settings: those of `rag.inference.answer_rows`.
    """
    from cuadft.rag.inference import answer_rows

    asked = [row | {"id": f"{row['id']}{DRAW}{number}"} for row in rows for number in range(1, n + 1)]
    sampling = lm.copy(temperature=TEMPERATURE, seed=1)
    made = answer_rows(program, sampling, asked, path, system="candidate", **settings)
    by_row = [sorted(made[place : place + n], key=lambda p: repr(p["quotes"])) for place in range(0, len(made), n or 1)]
    return [
        by_row[place][number] | {"id": row["id"], "system": f"candidate {number + 1}"}
        for number in range(n)
        for place, row in enumerate(rows)
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
    hit: Hit | None = None  # the passage that was read, None for the question's best one


@dataclass(frozen=True)
class GradedQuestion:
    """Hold a training question, the best passage found for it, and what is known about answers to it.

    hits: the passages found, the best first. answers: the model's distinct answers about the best one. rulings,
    choices: what people decided.
    """

    row: Mapping[str, Any]
    hits: Sequence[Hit]
    answers: list[GradedAnswer] = field(default_factory=list)
    rulings: list[Ruling] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)

    @property
    def hit(self) -> Hit:
        """The best passage."""
        return self.hits[0]

    @property
    def quotes(self) -> list[GradedAnswer]:
        """The answers of which every line stands in the passage, without refusals."""
        return [a for a in self.answers if not is_refusal(a.text) and _stands_in(a.text, self.hit)]


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
        grade = gold_score(row["answer"], row, target_answer(row, question.hit))
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
    found = program.retriever.search_many([(r["question"], r["contract"]) for r in rows], k=program.k) if rows else []
    return {row["id"]: GradedQuestion(row, hits) for row, hits in zip(rows, found, strict=True)}


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

    A correction also takes the winner's place, and is taught about the best passage that holds its words. The
    annotators may have seen another passage than the one found now; their choice then counts only if the chosen words
    stand in the present passage, for a model can't learn words that it does not see. counts: what gives no choice is
    counted here, by its reason.
    """
    better, reason = _preferred(ruling, question, counts)
    if better is None:
        counts[reason] += 1
        return []
    hit = next((hit for hit in question.hits if not is_refusal(better) and _stands_in(better, hit)), question.hit)
    *_, now, _ = program.messages(question.row["question"], hit, "")
    seen = ruling.latest("prompt")
    asked = [one["content"] for one in seen["prompt"] if one["role"] == "user"] if seen else []
    sent = asked[-1] if asked else now["content"]
    changed = sent != now["content"] and shows_passages(sent, question.row)
    if changed and not (question.row["is_impossible"] if is_refusal(better) else _stands_in(better, hit)):
        counts["human: passages have changed"] += 1
        return []
    wrong = {"a": ruling.answers[1:], "b": ruling.answers[:1]}.get(ruling.verdict, ruling.answers)
    wrong = [answer for answer in wrong if answer.strip()]  # a single answer with a thumb has a blank second answer
    made = [
        Choice(question, taught_answer(better), taught_answer(worse), "human", reason, hit=hit)
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
        for passage in (hit.passage for hit in question.hits):
            start, end = (place - passage.start for place in marked["span"])
            inside = 0 <= start < end <= len(passage.text)
            if inside and (words := quotable(whole_words(passage.text, start, end))):
                return words, f"annotator {marked['annotator']} marked these words"
        counts["human: marked span outside the passages"] += 1
    if ruling.verdict not in ("a", "b"):
        return None, f"human: {(ruling.verdict or 'no majority').replace('_', ' ')}"
    support = f"{len(ruling.agreed)} of {len(ruling.judged)} votes"
    return ruling.answers["ab".index(ruling.verdict)], f"{ruling.who} preferred it ({support})"


def _stands_in(answer: str, hit: Hit) -> bool:
    """Tell whether each line of an answer stands in a passage."""
    return all(locate_words(line, hit.passage.text) for line in answer.splitlines() if line.strip())
