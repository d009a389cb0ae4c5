"""What the language model is asked to write questions (self-instruct), and to answer them as a check."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError, DSPyError

from cuadft.errors import InputError, brief
from cuadft.marks import quoted
from cuadft.metrics import NO_CLAUSE
from cuadft.worked import DEMOS

__all__ = ["AskAboutClause", "RephraseAbsent", "RephraseQuestion", "Reply", "RoundTrip", "call", "listed"]

Reply = tuple[Any, str | None]
_FENCE = re.compile(r"\A```\w*\s*|\s*```\Z")
_FIELD = re.compile(r"\[\[ ## \w+ ## \]\]")  # DSPy's mark of a field
_NUMBERED = re.compile(r"\s*(?:\(?\d{1,2}[.)]|[-*•])\s+\S")


class RephraseQuestion(dspy.Signature):
    """Ask for the same clause in three other ways, without having read the contract and in the given style. Write
    one a line. Do not quote the clause."""

    category: str = dspy.InputField(desc="what the clause is about")
    clause: str = dspy.InputField(desc="the words of the contract")
    question: str = dspy.InputField()
    style: str = dspy.InputField()
    questions: list[str] = dspy.OutputField(desc="three questions")


class RephraseAbsent(dspy.Signature):
    """Ask the same in three other ways, in the given style. Write one a line. Keep to what the question is about:
    the contract holds no answer to it, and must hold none to yours."""

    category: str = dspy.InputField(desc="what the question is about")
    question: str = dspy.InputField()
    style: str = dspy.InputField()
    questions: list[str] = dspy.OutputField(desc="three questions")


class AskAboutClause(dspy.Signature):
    """Write two questions that this clause of a contract answers, each by other words of it, as a lawyer who has
    not read the contract would. Write one a line, each ending with a question mark. Do not quote the clause."""

    clause: str = dspy.InputField(desc="the words of the contract")
    questions: list[str] = dspy.OutputField(desc="two questions")


class RoundTrip(dspy.Signature):
    __doc__ = (
        "Quote the words of the passage that answer the question. If the passage holds no answer, "
        f"reply: {NO_CLAUSE}"
    )

    passage: str = dspy.InputField(desc="a passage of a contract")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="the passage's words")


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

    def attempt(values: dict[str, str]) -> Reply:
        try:
            return predict(**{name: quoted(text) for name, text in values.items()})[output], None
        except DSPyError as error:  # the candidate carries it: one bad reply must not end the batch
            found = _rescued(error) if signature.output_fields[output].annotation == list[str] else []
            return (found, None) if found else (None, brief(error))

    hold: Callable = getattr(getattr(lm, "engine", None), "expect", lambda calls: nullcontext())
    # timeout=0: DSPy would otherwise send a slow batch's last calls a second time
    pool = dspy.Parallel(num_threads=threads, max_errors=1, disable_progress_bar=True, timeout=0)
    replies: list[Reply] = []
    for start in range(0, len(inputs), threads):
        batch = [(attempt, (values,)) for values in inputs[start : start + threads]]
        with hold(len(batch)):
            replies += pool(batch)
    return replies


def listed(reply: str | Sequence[str]) -> list[str]:
    """Return a reply's questions: the texts of a JSON or Python list (fenced or in an object), else its lines."""
    text = reply if isinstance(reply, str) else "\n".join(map(str, reply))
    loaded = _loaded(text)
    found = text.splitlines() if loaded is None else _texts(loaded)
    return [question for question in found if question.strip()]


def _rescued(error: DSPyError) -> list[str]:
    """Return the questions of a reply that the adapter can't read, if it holds a list of them."""
    reply = _FIELD.sub("", str(error.lm_response or "")) if isinstance(error, AdapterParseError) else ""
    numbered = [line for line in reply.splitlines() if _NUMBERED.match(line)]
    return listed(reply) if isinstance(_loaded(reply), list | dict) else numbered


def _loaded(text: str) -> Any:
    """Return the JSON or Python value that a text is, None if it is neither."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(_FENCE.sub("", text.strip()))
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue  # not of this form
    return None


def _texts(value: Any) -> Iterator[str]:
    """Yield the texts in lists and objects, in order."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif value is not None:
        yield str(value)
