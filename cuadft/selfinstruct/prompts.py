"""What the language model is asked: to write questions (self-instruct), and to answer them as a check (round trip).

Each task is a DSPy signature in the words of a schema. `call_generator` sends it together with worked examples from
`worked_examples.json`, because a small model writes questions only after it has seen some. For example:

    with dspy.context(lm=lm, adapter=rag.PlainAdapter()):
        replies = call_generator(ASK, [{"clause": "The Carrier shall unload the goods."}], schema, threads=1)
    questions, error = replies[0]  # (["Who unloads the goods?", ...], None), or (None, "AdapterParseError: ...")
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from importlib import resources
from typing import Any

import dspy
from dspy.utils.exceptions import DSPyError

from cuadft.core.errors import InputError, brief
from cuadft.core.text import quote_safely
from cuadft.data.schema import CONTRACT, Schema

Reply = tuple[Any, str | None]  # value of the output field and error: one of the two is None


# --- the tasks


# what is asked of each task, with places for the words of a schema
REPHRASE, ASK, ROUND_TRIP = "RephraseQuestion", "AskAboutClause", "RoundTrip"
INSTRUCTIONS = {
    REPHRASE: "Ask for the same {clause} in three other ways, without having read the {document} and in the given "
    "style. Write\none a line. Do not quote the {clause}.",
    ASK: "Write two questions that this {clause} of {a_document} answers, each by other words of it, as {an_expert} "
    "who has\nnot read the {document} would. Write one a line, each ending with a question mark. Do not quote the "
    "{clause}.",
    ROUND_TRIP: "Quote the words of the passage that answer the question. If the passage holds no answer, reply: "
    "{refusal}",
}
OUTPUTS = {
    REPHRASE: ("questions", list[str], "three questions"),
    ASK: ("questions", list[str], "two questions"),
    ROUND_TRIP: ("answer", str, "the passage's words"),
}


def task_signature(task: str, schema: Schema) -> type[dspy.Signature]:
    """Return what a task asks, in the schema's words."""
    words = schema.naming
    clause = {_clause_field(schema): "the words of the {document}"}
    question = {"question": "${{question}}"}  # DSPy's mark of a field that its name describes
    inputs = {
        REPHRASE: {"category": "what the {clause} is about", **clause, **question, "style": "${{style}}"},
        ASK: clause,
        ROUND_TRIP: {"passage": "a passage of {a_document}", **question},
    }[task]
    fields = {name: (str, dspy.InputField(desc=desc.format(**words))) for name, desc in inputs.items()}
    output, kind, desc = OUTPUTS[task]
    fields[output] = (kind, dspy.OutputField(desc=desc))
    return dspy.Signature(fields, INSTRUCTIONS[task].format(**words), task)


def task_inputs(values: Mapping[str, str], schema: Schema) -> dict[str, str]:
    """Return input fields under the names that the schema's prompts show: a "clause" stands under CUAD's name alone."""
    return {_clause_field(schema) if name == "clause" else name: value for name, value in values.items()}


def _clause_field(schema: Schema) -> str:
    return "clause" if schema.clause == "clause" else "words"


def styles(schema: Schema) -> dict[str, str]:
    """Return what a prompt calls each style of a question, by the style's name."""
    return _shown(schema)["styles"]


def worked_examples(task: str, schema: Schema) -> list[dict[str, Any]]:
    """Return the solved examples that the prompts of a task show: from contracts, or for other documents neutral ones.

    An answer of the round trip that `worked_examples.json` leaves empty is the schema's refusal.
    """
    found = _shown(schema)["examples"][task]
    refusal = {"answer": schema.refusal}
    return [task_inputs(demo | (refusal if demo.get("answer") == "" else {}), schema) for demo in found]


def _shown(schema: Schema) -> dict[str, Any]:
    return _read_examples()["contracts" if schema.document == CONTRACT else "others"]


@functools.cache
def _read_examples() -> dict[str, dict[str, Any]]:
    return json.loads(resources.files("cuadft.selfinstruct").joinpath("worked_examples.json").read_text("utf-8"))


# --- asking


def call_generator(task: str, inputs: Sequence[dict[str, str]], schema: Schema, threads: int) -> list[Reply]:
    """Ask the configured LM once per input; return (value of the output field, error) for each, one of them None.

    task: of INSTRUCTIONS. inputs: its fields; words of a document stand under "clause". Raises InputError if there is
    something to ask and no LM is configured.
    """
    lm = dspy.settings.lm
    if inputs and lm is None:
        raise InputError("No language model to generate with: call this inside dspy.context(lm=..., adapter=...)")
    output, predict = OUTPUTS[task][0], dspy.Predict(task_signature(task, schema))
    predict.demos = [dspy.Example(**demo) for demo in worked_examples(task, schema)]

    def attempt(values: dict[str, str]) -> Reply:
        try:
            safe = {name: quote_safely(text) for name, text in task_inputs(values, schema).items()}
            return predict(**safe)[output], None
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
