"""The filter's last step: ask a language model the new question and compare its answer with what it should be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cuadft.metrics import is_refusal, token_f1
from cuadft.passages import locate_words
from cuadft.program import clean
from cuadft.question_prompts import RoundTrip, call
from cuadft.screening import QUOTE, Verdict
from cuadft.seeds import Candidate

_AROUND = " .\"'“”‘’"  # what a language model puts around a quotation
Outcome = tuple[Verdict | None, list[dict[str, Any]]]  # verdict, answers of the row if it is None


def check(candidates: Sequence[Candidate], *, min_f1: float, threads: int) -> list[Outcome]:
    """Return each candidate's verdict, None if it passes, and the answers that its row then has.

    By the candidate's `expect`: "gold", token F1 of at least `min_f1` with the gold spans (which stay the answers);
    "quotation", three words of the passage in a row (they become the answer); "refusal", no answer; "", not asked.
    Call it inside dspy.context(lm=..., adapter=...) unless no candidate needs to be asked.
    """
    asked = [c for c in candidates if c["expect"]]
    inputs = [{"passage": clean(c["passage"]), "question": clean(c["question"])} for c in asked]
    replies = iter(call(RoundTrip, inputs, threads))
    return [_outcome(c, *next(replies), min_f1) if c["expect"] else (None, c["answers"]) for c in candidates]


def _outcome(candidate: Candidate, answer: str, error: str | None, min_f1: float) -> Outcome:
    if error is not None:
        return ("generation_failed", f"round trip: {error}"), []
    if candidate["expect"] == "refusal":
        found = ("answerable", f"the contract has no such clause, but the LM answered: {answer[:200]}")
        return (None if is_refusal(answer) else found), []
    if is_refusal(answer):
        return ("unanswerable", "the LM found no answer in the passage"), []
    return (_against_gold if candidate["expect"] == "gold" else _quotation)(candidate, answer, min_f1)


def _against_gold(candidate: Candidate, answer: str, min_f1: float) -> Outcome:
    f1 = token_f1(answer, [span["text"] for span in candidate["answers"]])
    if f1 < min_f1:
        return ("unanswerable", f"token F1 {f1:.2f} with the gold: {answer[:200]}"), []
    return None, candidate["answers"]


def _quotation(candidate: Candidate, answer: str, min_f1: float) -> Outcome:
    passage = candidate["passage"]
    span = locate_words(answer, passage) or locate_words(answer.strip(_AROUND), passage)
    if not span or len(passage[slice(*span)].split()) < QUOTE:
        return ("unanswerable", f"not a quotation of {QUOTE} words or more: {answer[:200]}"), []
    start, end = span
    return None, [{"text": passage[start:end], "start": candidate["start"] + start}]
