"""The one DSPy program that every language model runs, and the training rows that hold exactly the prompts it sends.

The program retrieves passages of one contract, and a language model reads the likely ones, one a prompt: it quotes the
words that answer, one quote a line, or refuses. Whether there is a clause at all, the confidence decides (see
`rag.confidence`). Inference (`ContractQA`) and training (`rag.training_rows`) render their prompts
with the same signature, demos and adapter, so that a model is trained on the very bytes that it is asked with later.
For example:

    program = ContractQA(retriever, k=3)
    with dspy.context(lm=lm, adapter=PlainAdapter()):
        prediction = program(question="Which law governs the contract?", contract="Acme Supply Agreement")
    save_program(program, iteration.path("program", "rag.json"))

The file goes in this order: signature and adapter, program, saving.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
from dspy.utils.exceptions import AdapterParseError

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.text import break_marks, quotable
from cuadft.data.passages import Passage
from cuadft.data.schema import Schema, packaged_schema
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.models.local import LocalEngine
from cuadft.models.verbatim import QuoteSource, quote_format
from cuadft.rag.confidence import Confidence, Look, length_off
from cuadft.rag.quotes import Quote, join_quotes, quotes_of_reply, with_sentences, with_votes
from cuadft.rag.settle import SystemConfidence, settle
from cuadft.retrieval.retriever import Hit, Retriever, render_passages

# The mark before an item of a list: a bullet or a number, but not the number in "3 years" or in "2.5%".
LIST_MARK = re.compile(r"\A\s*(?:[-*•]|\(?\d{1,3}[.)])(?:\s+|$)")


# --- signature and adapter


def answer_signature(schema: Schema) -> type[dspy.Signature]:
    """Return what a language model is asked, in the schema's words."""
    told = (
        f"Quote the words of the {schema.document} that answer the question, one quote a line. If the passage holds no "
        f"such {schema.clause}, reply: {schema.refusal}"
    )
    fields = {
        "passage": (str, dspy.InputField(desc=f"a passage of one {schema.document}")),
        "question": (str, dspy.InputField()),
        "answer": (str, dspy.OutputField(desc=f"the {schema.document}'s words")),
    }
    return dspy.Signature(fields, told, "AnswerFromContract")


class PlainAdapter(dspy.ChatAdapter):
    """Send the fields as plain text and take the whole reply as the one output field.

    Small models cannot keep DSPy's field markers. With this adapter a reply fails to parse only if it is empty, so a
    comparison of models does not become one of how well they keep a format. A list field holds one item a line; all
    other fields are text.
    """

    def __init__(self) -> None:
        super().__init__(use_json_adapter_fallback=False)

    def format_field_description(self, signature: type[dspy.Signature]) -> str:
        """Return nothing: each field is named where it stands."""
        return ""

    def format_field_structure(self, signature: type[dspy.Signature]) -> str:
        """Return nothing: there are no markers to explain."""
        return ""

    def format_system_message(self, signature: type[dspy.Signature]) -> str:
        """Return the signature's instructions."""
        return signature.instructions

    def format_user_message_content(
        self,
        signature: type[dspy.Signature],
        inputs: dict[str, Any],
        prefix: str = "",
        suffix: str = "",
        main_request: bool = False,
    ) -> str:
        """Return one "Name: value" block for each input field."""
        given = [name for name in signature.input_fields if name in inputs]
        blocks = [f"{name.replace('_', ' ').capitalize()}: {inputs[name]}" for name in given]
        return "\n\n".join(block for block in (prefix, *blocks, suffix) if block)

    def format_assistant_message_content(
        self, signature: type[dspy.Signature], outputs: dict[str, Any], missing_field_message: str | None = None
    ) -> str:
        """Return the value of the output field, with marks that would end the turn broken up."""
        value = outputs.get(_only_output_field(signature), missing_field_message)
        return break_marks("\n".join(map(str, value)) if isinstance(value, list) else str(value))

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """Return the whole completion as the output field; raises AdapterParseError if it is empty."""
        name, text = _only_output_field(signature), completion.strip()
        if not text:
            raise AdapterParseError("PlainAdapter", signature, completion, message="The reply is empty.")
        if signature.output_fields[name].annotation == list[str]:
            lines = [LIST_MARK.sub("", line).strip() for line in text.splitlines()]
            return {name: [line for line in lines if line]}
        return {name: text}


def _only_output_field(signature: type[dspy.Signature]) -> str:
    (name,) = signature.output_fields
    return name


# --- the program


class ContractQA(dspy.Module):
    """Answer a question about one contract with quotes from up to k of its passages, each read by itself.

    The prediction carries `answer` (the likeliest quote, or the refusal), `spans` (the answer's [start, end) in the
    contract, [] for a refusal and for words that stand nowhere), `hits` (passages with scores), and what `settle` needs
    and gives: `quotes`, `p_exists`, `p_search`, `calibrated`. Without a confidence every passage is read and may be
    refused, and the first quote of the best passage is the answer. schema: whose words it asks in; None is CUAD's.
    draws: answers about each passage that are sampled in place of the likeliest one, 0 for none; the confidence then
    chooses among their quotes. insists: every passage is read, and none may be refused.
    """

    def __init__(
        self,
        retriever: Retriever | None = None,
        k: int = 2,
        confidence: Confidence | None = None,
        system: SystemConfidence | None = None,
        schema: Schema | None = None,
    ) -> None:
        super().__init__()
        schema = schema or packaged_schema()
        self.retriever, self.k, self.confidence, self.system = retriever, k, confidence, system
        self.draws, self.insists = 0, False
        self.refusal, self.predict = schema.refusal, dspy.Predict(answer_signature(schema))

    @property
    def threshold(self) -> float:
        """The probability of the clause from which an answer pays."""
        return self.confidence.threshold if self.confidence else 0.5

    def forward(self, question: str, contract: str) -> dspy.Prediction:
        """Look at `contract`, ask the configured LM about each passage that is to be read, and settle the answer."""
        (look,) = self.look([(question, contract)])
        return self.conclude(look, [self.read(question, look, n) for n in look.read for _ in range(self.draws or 1)])

    def look(self, queries: Sequence[tuple[str, str]]) -> list[Look]:
        """Return what the retriever sees of each (question, contract), before any language model."""
        if self.confidence is not None:
            return self.confidence.look(self.retriever, queries, k=self.k)
        found = self.retriever.search_many(queries, k=self.k)
        if self.insists:
            return [Look(hits, 1.0, (1.0,) * len(hits), calibrated=True) for hits in found]
        return [Look(hits) for hits in found]

    def read(self, question: str, look: Look, n: int) -> list[Quote]:
        """Ask the configured LM about the n-th passage of a look, and return its quotes, [] if it refuses.

        The local engine is held to words of the passage; quotes of other engines are snapped to it.
        """
        hit, config = look.hits[n], {}
        text = render_passages([hit])
        if isinstance(getattr(dspy.settings.lm, "engine", None), LocalEngine):
            source = QuoteSource(quotable(hit.passage.text), self.refusal if look.may_refuse else None)
            config = {"response_format": quote_format(source), "logprobs": True}
        if self.draws:
            config |= {"temperature": 1.0}
        made = self.predict(passage=text, question=quotable(question), config=config)
        sure = {"passage_p": look.passage_p[n]} if look.passage_p else {}
        logprobs = (made.get("logprobs") or {}).get("content")  # None if the engine gave none
        quotes = quotes_of_reply(made.answer.strip(), hit.passage, logprobs)
        return [replace(quote, evidence={**quote.evidence, **sure, "rank": float(n)}) for quote in quotes]

    def conclude(self, look: Look, replies: Sequence[list[Quote]]) -> dspy.Prediction:
        """Return the prediction that follows from the quotes of the passages that were read."""
        read = [look.hits[n].passage for n in look.read]
        quotes = [quote for reply in replies for quote in reply]
        quotes = join_quotes(with_votes(quotes, self.draws) if self.draws else quotes, read)
        quotes = with_sentences(quotes, look.sentences)
        if look.usual:
            quotes = [replace(q, evidence={**q.evidence, "length": length_off(q.text, look.usual)}) for q in quotes]
        raw = {"error": None, "p_search": look.p_exists, "calibrated": look.calibrated}
        reading = raw | {"quotes": [quote.record() for quote in quotes]}
        settled = settle(reading, self.threshold, self.system, self.refusal)
        return dspy.Prediction(hits=look.hits, passage_p=look.passage_p, **settled)

    def messages(self, question: str, hit: Hit, answer: str) -> list[dict[str, str]]:
        """Return the chat messages that read() would send about a passage, with `answer` as the assistant's turn."""
        inputs = {"passage": render_passages([hit]), "question": quotable(question)}
        signature, demos = self.predict.signature, self.predict.demos
        return PlainAdapter().format_finetune_data(signature, demos, inputs, {"answer": answer})["messages"]

    def reader(self, k: int = 1) -> ContractQA:
        """Return the program that quotes from each of the k best passages: what alignment samples and teaches.

        It never refuses. Whether there is a clause is the confidence's decision, and no language model's.
        """
        alone = ContractQA(self.retriever, k)
        alone.predict, alone.refusal, alone.insists = self.predict, self.refusal, True
        return alone


# --- saving


def save_program(program: ContractQA, path: Path) -> None:
    """Write the program's prompt (instructions, demos, k) as JSON, and its refusal where that is not CUAD's."""
    bare = ContractQA(k=program.k)  # without the LM, which the run chooses and which is no part of the prompt
    bare.predict.signature, bare.predict.demos = program.predict.signature, program.predict.demos
    own = {"refusal": program.refusal} if program.refusal != NO_CLAUSE else {}
    files.write_json(path, {"k": bare.k, "state": bare.dump_state()} | own)


def load_program(
    path: Path, retriever: Retriever, confidence: Confidence | None = None, system: SystemConfidence | None = None
) -> ContractQA:
    """Read a program back; it sends the same prompts as the saved one.

    Raises InputError if the file is missing or was not written by `save_program`.
    """
    if not Path(path).is_file():
        raise InputError(f"Program '{path}' is missing: run 02_rag_compile of this iteration first.")
    saved = files.read_json(path)
    try:
        program = ContractQA(retriever, int(saved["k"]), confidence, system)
        program.load_state(saved["state"])
        program.refusal = str(saved.get("refusal", NO_CLAUSE))
        program.messages("", Hit(Passage("", 0, 0, 0, ""), 0.0), "")  # renders the demos, which fails on anything else
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"Program '{path}' is not one that 02_rag_compile saved ({error!r}): delete it and compile again."
        ) from error
    return program
