"""What the language model is asked: to write questions (self-instruct), and to answer them as a check (round trip).

Each task is a DSPy signature. `call_generator` sends it together with worked examples from `worked_examples.json`,
because a small model writes questions only after it has seen some. For example:

    with dspy.context(lm=lm, adapter=rag.PlainAdapter()):
        replies = call_generator(AskAboutClause, [{"clause": "The Carrier shall unload the goods."}], threads=1)
    questions, error = replies[0]  # (["Who unloads the goods?", ...], None), or (None, "AdapterParseError: ...")
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from importlib import resources
from typing import Any

import dspy
from dspy.utils.exceptions import DSPyError

from cuadft.core.errors import InputError, brief
from cuadft.core.text import quote_safely
from cuadft.evaluation.text_scores import NO_CLAUSE

Reply = tuple[Any, str | None]  # value of the output field and error: one of the two is None


# --- the tasks


class RephraseQuestion(dspy.Signature):
    """Ask for the same clause in three other ways, without having read the contract and in the given style. Write
    one a line. Do not quote the clause."""

    category: str = dspy.InputField(desc="what the clause is about")
    clause: str = dspy.InputField(desc="the words of the contract")
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
        f"Quote the words of the passage that answer the question. If the passage holds no answer, reply: {NO_CLAUSE}"
    )

    passage: str = dspy.InputField(desc="a passage of a contract")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="the passage's words")


@functools.cache
def worked_examples() -> dict[str, dict[str, Any]]:
    """Return the worked examples of `worked_examples.json`, as the prompts show them. Do not change what it returns.

    It is {"styles": {name of a style: what a prompt calls it}, "examples": {name of a signature: [fields]}}.
    """
    return json.loads(resources.files("cuadft.selfinstruct").joinpath("worked_examples.json").read_text("utf-8"))


# --- asking


def call_generator(signature: type[dspy.Signature], inputs: Sequence[dict[str, str]], threads: int) -> list[Reply]:
    """Ask the configured LM once per input; return (value of the output field, error) for each, one of them None.

    Raises InputError if there is something to ask and no LM is configured.
    """
    lm = dspy.settings.lm
    if inputs and lm is None:
        raise InputError("No language model to generate with: call this inside dspy.context(lm=..., adapter=...)")
    (output,) = signature.output_fields
    predict = dspy.Predict(signature)
    predict.demos = [dspy.Example(**demo) for demo in worked_examples()["examples"][signature.__name__]]

    def attempt(values: dict[str, str]) -> Reply:
        try:
            return predict(**{name: quote_safely(text) for name, text in values.items()})[output], None
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
