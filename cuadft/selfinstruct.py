"""Write new training questions from train contracts with any LM that DSPy can call.

Two kinds of candidates: "rephrase" asks a seed row's question in other words (its gold spans stay the
answer); "ask" asks about a passage that no gold span touches (the answer is what the LM then quotes from it).
Nothing is training data yet: `filter` keeps what passes every test and gives each of the rest a reason.

After Self-Instruct (Wang et al., 2023).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import dspy
from dspy.utils.exceptions import DSPyError

from cuadft.contracts import Row
from cuadft.errors import InputError, brief
from cuadft.metrics import NO_CLAUSE, is_refusal, token_f1
from cuadft.passages import Passage, locate_words
from cuadft.program import clean
from cuadft.screening import REASONS, Verdict, screen
from cuadft.seeds import Candidate, check_train, labelled, unlabelled
from cuadft.worked import DEMOS

if TYPE_CHECKING:
    from cuadft.embedder import Embedder

__all__ = ["AskAboutClause", "REASONS", "RephraseQuestion", "RoundTrip", "counts", "filter", "generate"]


QUOTE = 3  # words from which a quotation is an answer
Reply = tuple[Any, str | None]


class RephraseQuestion(dspy.Signature):
    """Ask for the same clause in three other ways, as a lawyer who has not read the contract would. Write one
    question a line, each ending with a question mark. Do not quote the clause."""

    category: str = dspy.InputField(desc="what the clause is about")
    clause: str = dspy.InputField(desc="the words of the contract")
    question: str = dspy.InputField()
    questions: list[str] = dspy.OutputField(desc="three questions")


class AskAboutClause(dspy.Signature):
    """Write one question that this clause of a contract answers, as a lawyer who has not read the contract
    would. End it with a question mark. Do not quote the clause."""

    clause: str = dspy.InputField(desc="the words of the contract")
    question: str = dspy.OutputField()


class RoundTrip(dspy.Signature):
    __doc__ = (
        "Quote the words of the passage that answer the question. If the passage holds no answer, "
        f"reply: {NO_CLAUSE}"
    )

    passage: str = dspy.InputField(desc="a passage of a contract")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="the passage's words")


def generate(
    train_rows: Sequence[Row],
    passages_by_contract: Mapping[str, Sequence[Passage]],
    *,
    rephrase: int,
    ask: int,
    seed: int,
    held_out: Collection[str] = (),
    threads: int = 1,
) -> list[Candidate]:
    """Return candidates from `rephrase` seed rows (a few questions each) and `ask` passages (one each).

    Call it inside dspy.context(lm=..., adapter=...). `train_rows` must hold all rows of a contract, or
    labelled passages pass for unlabelled ones. A call that fails gives one candidate with `error` set, which
    `filter` counts. held_out: titles of dev and test contracts. Raises InputError if a row comes from one of
    them, if passages are missing, or if no LM is configured.
    """
    check_train(train_rows, held_out)
    if missing := sorted({row["contract"] for row in train_rows} - set(passages_by_contract)):
        raise InputError(
            f"No passages of contract {missing[0]!r} and {len(missing) - 1} more: cut them first"
        )
    rng = random.Random(seed)
    seeds = labelled(train_rows, passages_by_contract, rephrase, rng)
    seeds += unlabelled(train_rows, passages_by_contract, ask, rng)
    replies = call(RephraseQuestion, [_asked(s) for s in seeds if s["kind"] == "rephrase"], threads)
    clauses = [{"clause": clean(s["clause"])} for s in seeds if s["kind"] == "ask"]
    replies += call(AskAboutClause, clauses, threads)
    return [made for s, (reply, error) in zip(seeds, replies) for made in _candidates(s, reply, error)]


def _asked(seed: Candidate) -> dict[str, str]:
    question = clean(seed["seed_question"])
    return {"category": seed["category"], "clause": clean(seed["clause"]), "question": question}


def call(signature: type[dspy.Signature], inputs: Sequence[dict[str, str]], threads: int) -> list[Reply]:
    """Ask the configured LM once per input; return (value of the output field, error) for each, one None."""
    lm = dspy.settings.lm
    if inputs and lm is None:
        raise InputError(
            "No language model to generate with: call this inside dspy.context(lm=..., adapter=...)"
        )
    (output,) = signature.output_fields
    predict = dspy.Predict(signature)
    predict.demos = [dspy.Example(**demo) for demo in DEMOS[signature.__name__]]

    def attempt(values: dict[str, str]) -> tuple[Any, str | None]:
        try:
            return predict(**values)[output], None
        except DSPyError as error:  # the candidate carries it: one bad reply must not end the batch
            return None, brief(error)

    hold: Callable = getattr(getattr(lm, "engine", None), "expect", lambda calls: nullcontext())
    # timeout=0: DSPy would otherwise send a slow batch's last calls a second time
    pool = dspy.Parallel(num_threads=threads, max_errors=1, disable_progress_bar=True, timeout=0)
    replies: list[Reply] = []
    for start in range(0, len(inputs), threads):
        batch = [(attempt, (values,)) for values in inputs[start : start + threads]]
        with hold(len(batch)):
            replies += pool(batch)
    return replies


def _candidates(seed: Candidate, reply: Any, error: str | None) -> list[Candidate]:
    """Return one candidate per question of a reply, or one that carries the error."""
    items = [reply] if isinstance(reply, str) else list(reply or [])
    if not items and error is None:
        error = "The reply holds no question"
    return [
        seed | {"id": f"{seed['seed']}~s{n}", "raw": str(item), "question": _tidy(str(item)), "error": error}
        for n, item in enumerate(items or [""], 1)
    ]


def _tidy(text: str) -> str:
    """Fold blanks, drop a list mark ("1.", "-") and quotation marks around the whole."""
    text = " ".join(text.split())
    text = re.sub(r"^(\d+[.):]|[-*•])(\s+|$)", "", text)
    return text.strip("\"'“” ")


def filter(  # noqa: A001
    candidates: Sequence[Candidate],
    train_rows: Sequence[Row],
    *,
    embedder: Embedder,
    held_out_rows: Sequence[Row] = (),
    held_out_texts: Mapping[str, str] | None = None,
    min_similarity: float = 0.4,
    min_f1: float = 0.5,
    threads: int = 1,
) -> tuple[list[Row], list[Candidate]]:
    """Return (rows to train on, rejected candidates with `reason` and `detail`): every candidate is in one.

    First the tests of `screening`, then the round trip: "unanswerable" if the LM's answer to the new question
    has token F1 under `min_f1` with the seed's gold spans (kind "ask": is no quotation of the passage).
    held_out_texts: title -> text of dev and test contracts. Call it inside dspy.context(lm=..., adapter=...).
    Raises InputError if a train row or candidate comes from a held-out contract.
    """
    texts = dict(held_out_texts or {})
    check_train([*train_rows, *candidates], {row["contract"] for row in held_out_rows} | set(texts))
    questions = [row["question"] for row in held_out_rows]
    verdicts = screen(candidates, train_rows, embedder, questions, texts.values(), min_similarity)
    left = [n for n, verdict in enumerate(verdicts) if verdict is None]
    asked = [
        {"passage": clean(candidates[n]["passage"]), "question": candidates[n]["question"]} for n in left
    ]
    accepted: list[Row] = []
    for n, (answer, error) in zip(left, call(RoundTrip, asked, threads)):
        if error is not None:
            verdicts[n] = ("generation_failed", f"round trip: {error}")
            continue
        verdicts[n], answers = _round_trip(candidates[n], answer, min_f1)
        if verdicts[n] is None:
            accepted.append(_row(candidates[n], answers))
    rejected = [c | {"reason": v[0], "detail": v[1]} for c, v in zip(candidates, verdicts) if v is not None]
    return accepted, rejected


def counts(accepted: Sequence[Row], rejected: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return a table {"outcome", "n", "share"}: accepted, then every reason in the order of the tests."""
    found = Counter(candidate["reason"] for candidate in rejected) | Counter({"accepted": len(accepted)})
    total = max(found.total(), 1)
    return [
        {"outcome": name, "n": found[name], "share": found[name] / total} for name in ("accepted", *REASONS)
    ]


def _round_trip(
    candidate: Candidate, answer: str, min_f1: float
) -> tuple[Verdict | None, list[dict[str, Any]]]:
    """Return the verdict on the LM's answer, and the answers of the row if there is none."""
    if is_refusal(answer):
        return ("unanswerable", "the LM found no answer in the passage"), []
    if candidate["kind"] == "rephrase":
        f1 = token_f1(answer, [span["text"] for span in candidate["answers"]])
        verdict = (
            None if f1 >= min_f1 else ("unanswerable", f"token F1 {f1:.2f} with the gold: {answer[:200]}")
        )
        return verdict, candidate["answers"]
    span = locate_words(answer, candidate["passage"])
    if not span or len(answer.split()) < QUOTE:
        return ("unanswerable", f"not a quotation of {QUOTE} words or more: {answer[:200]}"), []
    start, end = span
    return None, [{"text": candidate["passage"][start:end], "start": candidate["start"] + start}]


def _row(candidate: Candidate, answers: list[dict[str, Any]]) -> Row:
    own = {name: candidate[name] for name in ("id", "contract", "contract_type", "category", "question")}
    return Row(**own, answers=answers, is_impossible=False, source="synthetic")
