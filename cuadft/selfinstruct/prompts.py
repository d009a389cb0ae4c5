"""What the language model is asked to write questions (self-instruct), and to answer them as a check.

Worked examples (demos) for the generator of self-instruct: a small model writes questions only after some.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError, DSPyError

from cuadft.core.errors import InputError, brief
from cuadft.core.text import quote_safely
from cuadft.evaluation.text_scores import NO_CLAUSE

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
        f"Quote the words of the passage that answer the question. If the passage holds no answer, reply: {NO_CLAUSE}"
    )

    passage: str = dspy.InputField(desc="a passage of a contract")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="the passage's words")


def call_generator(signature: type[dspy.Signature], inputs: Sequence[dict[str, str]], threads: int) -> list[Reply]:
    """Ask the configured LM once per input; return (value of the output field, error) for each, one None."""
    lm = dspy.settings.lm
    if inputs and lm is None:
        raise InputError("No language model to generate with: call this inside dspy.context(lm=..., adapter=...)")
    (output,) = signature.output_fields
    predict = dspy.Predict(signature)
    predict.demos = [dspy.Example(**demo) for demo in DEMOS[signature.__name__]]

    def attempt(values: dict[str, str]) -> Reply:
        try:
            return predict(**{name: quote_safely(text) for name, text in values.items()})[output], None
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


def listed_questions(reply: str | Sequence[str]) -> list[str]:
    """Return a reply's questions: the texts of a JSON or Python list (fenced or in an object), else its lines."""
    text = reply if isinstance(reply, str) else "\n".join(map(str, reply))
    loaded = _loaded(text)
    found = text.splitlines() if loaded is None else _texts(loaded)
    return [question for question in found if question.strip()]


def _rescued(error: DSPyError) -> list[str]:
    """Return the questions of a reply that the adapter can't read, if it holds a list of them."""
    reply = _FIELD.sub("", str(error.lm_response or "")) if isinstance(error, AdapterParseError) else ""
    numbered = [line for line in reply.splitlines() if _NUMBERED.match(line)]
    return listed_questions(reply) if isinstance(_loaded(reply), list | dict) else numbered


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


STYLES = {
    "user": "a plain question of a business person",
    "keyword": "keywords typed into a search box",
    "lawyer": "a precise question of a lawyer",
}
_LAW = (
    "This Agreement is governed by the laws of the State of Oregon, without regard to its rules on conflicts of laws."
)
_AUDIT = (
    "Once in each calendar year, and on ten days' notice, Licensor may inspect the books of Licensee that "
    "concern royalties."
)
_NOTICE = (
    "Either party may end this Agreement for any reason or for none by sixty (60) days' written notice to the "
    "other party."
)
_DELIVERY = (
    "The Carrier shall hand over the goods at the Buyer's warehouse on working days between eight and noon "
    "and shall unload them at its own cost."
)
_WHICH_LAW = "Governing Law: Which state/country's law governs the interpretation of the contract?"
_AUDITS = "Audit Rights: Does a party have the right to audit the books of the counterparty?"

DEMOS: dict[str, list[dict[str, Any]]] = {
    "RephraseQuestion": [
        {
            "category": "Termination For Convenience",
            "clause": _NOTICE,
            "question": "Termination For Convenience: Can a party terminate this contract without cause?",
            "style": STYLES["keyword"],
            "questions": [
                "termination without cause notice",
                "right to end agreement at will",
                "early exit for any reason",
            ],
        },
        {
            "category": "Governing Law",
            "clause": _LAW,
            "question": _WHICH_LAW,
            "style": STYLES["user"],
            "questions": [
                "If we disagree on what the deal means, whose law decides?",
                "What state's rules do we have to follow here?",
                "Where was it agreed that legal questions get settled?",
            ],
        },
        {
            "category": "Audit Rights",
            "clause": _AUDIT,
            "question": _AUDITS,
            "style": STYLES["lawyer"],
            "questions": [
                "May either party inspect the accounts of the other, and how often?",
                "Who is entitled to examine royalty records?",
                "What prior notice must be given of an inspection of the books?",
            ],
        },
    ],
    "RephraseAbsent": [
        {
            "category": "Governing Law",
            "question": _WHICH_LAW,
            "style": STYLES["keyword"],
            "questions": ["governing law state", "applicable law clause", "choice of law jurisdiction"],
        },
        {
            "category": "Audit Rights",
            "question": _AUDITS,
            "style": STYLES["user"],
            "questions": [
                "Can one side look into the other's accounts?",
                "Are we allowed to check their records?",
                "May somebody come and inspect our bookkeeping?",
            ],
        },
    ],
    "AskAboutClause": [
        {
            "clause": _DELIVERY,
            "questions": ["At what times must goods be delivered?", "Who pays for unloading the goods?"],
        },
        {
            "clause": _NOTICE,
            "questions": [
                "How many days of notice does a party need to end the agreement?",
                "Is a reason needed to end the agreement early?",
            ],
        },
    ],
    "RoundTrip": [
        {
            "passage": f"{_LAW} {_NOTICE}",
            "question": "How can a party get out of the contract early?",
            "answer": _NOTICE,
        },
        {"passage": _DELIVERY, "question": "Is there a limit on liability?", "answer": NO_CLAUSE},
        {
            "passage": f"{_DELIVERY} {_AUDIT}",
            "question": "Who is allowed to inspect royalty records?",
            "answer": _AUDIT,
        },
    ],
}
