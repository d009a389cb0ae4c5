"""The one DSPy program that every language model runs: retrieve, then answer with the contract's words or refuse.

The same adapter, signature and demos render the prompts of inference (ContractQA) and of training (messages()).
"""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dspy
from dspy.adapters.utils import parse_value
from dspy.utils.exceptions import AdapterParseError

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.text import break_marks, quotable
from cuadft.data.passages import Passage, locate_words
from cuadft.evaluation.text_scores import NO_CLAUSE, token_f1
from cuadft.retrieval.retriever import Hit, Retriever, render_passages


def prompt_completions(
    program: ContractQA, rows: Sequence[dict[str, Any]], *, size: int, impossible_share: float, seed: int
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Return up to `size` (0: all) rows {"id", "prompt", "completion"} of chat messages, and counts of what was left out.

    `impossible_share` of the rows are questions whose clause does not exist (fewer if there are fewer).
    """
    shuffled = random.Random(seed).sample(list(rows), len(rows))
    hits = program.retriever.search_many([(r["question"], r["contract"]) for r in shuffled], k=program.k)
    ready: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for row, found in zip(shuffled, hits, strict=True):
        answer = target_answer(row, found)
        if answer is not None:
            *prompt, completion = program.messages(row["question"], found, answer)
            ready[row["is_impossible"]].append({"id": row["id"], "prompt": prompt, "completion": [completion]})
    usable = len(ready[True]) + len(ready[False])
    total = min(size or usable, usable)
    impossible = min(len(ready[True]), round(total * impossible_share))
    answerable = min(len(ready[False]), total - impossible)
    if answerable < total - impossible and impossible_share < 1:  # too few answerable rows must not raise the share
        impossible = min(impossible, round(answerable * impossible_share / (1 - impossible_share)))
    chosen = ready[True][:impossible] + ready[False][:answerable]
    random.Random(seed).shuffle(chosen)
    return chosen, +Counter(
        {
            "unanswerable": impossible,
            "answerable": answerable,
            "not drawn": usable - len(chosen),
            "gold span not in the passages": len(rows) - usable,
        }
    )


COLUMNS = ("id", "contract", "question", "answers", "is_impossible")  # of the rows, which TRL passes on to the reward


def online_prompts(program: ContractQA, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return {"prompt"} and COLUMNS of the rows that can be answered from their passages, or that have no clause.

    A row whose clause lies outside the passages is left out: the reward would teach to invent it.
    """
    hits = program.retriever.search_many([(row["question"], row["contract"]) for row in rows], k=program.k)
    made = []
    for row, found in zip(rows, hits, strict=True):
        if target_answer(row, found) is not None:
            *prompt, _ = program.messages(row["question"], found, "")
            made.append({"prompt": prompt} | {name: row[name] for name in COLUMNS})
    return made


def telling_rows(
    rows: Sequence[dict[str, Any]], scores: Mapping[str, Sequence[float]], *, others: float = 0.5
) -> list[dict[str, Any]]:
    """Return the rows whose sampled answers differ in score, with `others` times as many of the rest; all if none differ.

    scores: row id -> scores of its candidates. Where all answers are alike no method learns anything (DAPO, Yu et al.
    2025, section 3.2); some such rows stay, so that what is right already has a say. A failed judgement (NaN) tells
    nothing; a row without any other is left out.
    """
    if unknown := [row["id"] for row in rows if row["id"] not in scores]:
        raise InputError(f"There are no candidates of question {unknown[0]!r}: sample answers of every row first.")
    distinct = {id_: {score for score in given if not math.isnan(score)} for id_, given in scores.items()}
    differ = [row for row in rows if len(distinct[row["id"]]) > 1]
    alike = [row for row in rows if len(distinct[row["id"]]) == 1]
    return differ + alike[: round(others * len(differ))] if differ else alike


OPTIMIZERS = ("bootstrap", "bootstrap_random_search", "mipro")
BULLET = re.compile(
    r"\A\s*(?:[-*•]|\(?\d{1,3}[.)])(?:\s+|$)"
)  # a bullet or a number of a list, not "3 years" or "2.5%"


class AnswerFromContract(dspy.Signature):
    __doc__ = (
        f"Quote the words of the contract that answer the question. If the passages hold no such clause, "
        f"reply: {NO_CLAUSE}"
    )

    passages: str = dspy.InputField(desc="passages of one contract")
    question: str = dspy.InputField()
    answer: str = dspy.OutputField(desc="the contract's words")


class PlainAdapter(dspy.ChatAdapter):
    """Send the fields as plain text and take the whole reply as the one output field.

    Small models cannot keep DSPy's field markers; with this adapter a reply fails to parse only when it is empty or
    its type is wrong, so that comparing models does not compare how they keep a format. A list field is one item a line.
    """

    def __init__(self) -> None:
        super().__init__(use_json_adapter_fallback=False)

    def format_field_description(self, signature: type[dspy.Signature]) -> str:
        """Return nothing: the fields are named where they stand."""
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
        blocks = [
            f"{name.replace('_', ' ').capitalize()}: {inputs[name]}"
            for name in signature.input_fields
            if name in inputs
        ]
        return "\n\n".join(x for x in (prefix, *blocks, suffix) if x)

    def format_assistant_message_content(
        self, signature: type[dspy.Signature], outputs: dict[str, Any], missing_field_message: str | None = None
    ) -> str:
        """Return the output field's value as it is, but for marks that would end the turn."""
        value = outputs.get(_only_field(signature), missing_field_message)
        return break_marks("\n".join(map(str, value)) if isinstance(value, list) else str(value))

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """Take the whole completion as the output field; raises AdapterParseError if it is empty or ill-typed."""
        name, text = _only_field(signature), completion.strip()
        annotation = signature.output_fields[name].annotation
        if not text:
            raise AdapterParseError(
                adapter_name="PlainAdapter", signature=signature, lm_response=completion, message="The reply is empty."
            )
        if annotation == list[str]:
            lines = [BULLET.sub("", line).strip() for line in text.splitlines()]
            return {name: [line for line in lines if line]}
        try:
            return {name: parse_value(text, annotation)}
        except ValueError as error:
            raise AdapterParseError(
                adapter_name="PlainAdapter", signature=signature, lm_response=completion, message=str(error)
            ) from error


def _only_field(signature: type[dspy.Signature]) -> str:
    (name,) = signature.output_fields
    return name


class ContractQA(dspy.Module):
    """Answer a question about one contract from its k best passages.

    The prediction carries `answer`, `hits` (passages with scores) and `spans` ([start, end) offsets in the contract
    where the answer's words stand; empty for refusals and for words that are not in the passages).
    """

    def __init__(self, retriever: Retriever | None = None, k: int = 2) -> None:
        super().__init__()
        self.retriever, self.k = retriever, k
        self.predict = dspy.Predict(AnswerFromContract)

    def forward(self, question: str, contract: str) -> dspy.Prediction:
        """Retrieve inside `contract`, ask the configured LM, and locate the answer."""
        hits = self.retriever.search(question, contract=contract, k=self.k)
        answer = self.predict(passages=render_passages(hits), question=quotable(question)).answer.strip()
        return dspy.Prediction(answer=answer, hits=hits, spans=cite_passages(answer, [h.passage for h in hits]))

    def messages(self, question: str, hits: Sequence[Hit], answer: str) -> list[dict[str, str]]:
        """Return the chat messages that forward() would send, with `answer` as the assistant's turn."""
        inputs = {"passages": render_passages(hits), "question": quotable(question)}
        return PlainAdapter().format_finetune_data(
            self.predict.signature, self.predict.demos, inputs, {"answer": answer}
        )["messages"]


def cite_passages(answer: str, passages: Sequence[Passage]) -> list[list[int]]:
    """Return the contract offsets at which the answer's words stand in the passages."""
    if not answer or answer == NO_CLAUSE:
        return []
    found = [(p.start, locate_words(answer, p.text)) for p in passages]
    return [[shift + span[0], shift + span[1]] for shift, span in found if span]


def target_answer(row: dict[str, Any], hits: Sequence[Hit]) -> str | None:
    """Return the answer to teach for a row: the refusal, or the gold span that the passages hold.

    Of several gold spans inside the passages, the one in the best-ranked passage is taken. Returns None when the
    clause exists but lies outside the passages: teaching its words would teach to invent, a refusal to overlook.
    """
    if row["is_impossible"]:
        return NO_CLAUSE
    for hit in hits:
        for span in row["answers"]:
            end = span["start"] + len(span["text"])
            if hit.passage.start <= span["start"] and end <= hit.passage.end:
                return quotable(span["text"])
    return None


def dspy_examples(rows: Sequence[dict[str, Any]], retriever: Retriever, k: int) -> list[dspy.Example]:
    """Return DSPy examples (with their passages, so that they can serve as demos) of the rows with a target."""
    found = retriever.search_many([(r["question"], r["contract"]) for r in rows], k=k)
    made = []
    for row, hits in zip(rows, found, strict=True):
        answer = target_answer(row, hits)
        if answer is not None:
            golds = [span["text"] for span in row["answers"]]
            made.append(
                dspy.Example(
                    passages=render_passages(hits),
                    question=quotable(row["question"]),
                    answer=answer,
                    golds=golds,
                    contract=row["contract"],
                ).with_inputs("question", "contract")
            )
    return made


def answer_f1(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> float:
    """Return the token F1 of a prediction (SQuAD 2.0 rules), the metric that prompt optimisation raises."""
    return token_f1(prediction.answer, example.golds)


def compile_program(
    program: ContractQA,
    trainset: list[dspy.Example],
    devset: list[dspy.Example],
    *,  # noqa: A001
    optimizer: str = "bootstrap",
    bootstrapped_demos: int = 2,
    labeled_demos: int = 2,
    candidates: int = 3,
    threshold: float = 0.5,
    seed: int = 7,
) -> ContractQA:
    """Optimise the program's prompt with one of DSPy's optimisers and return the compiled copy.

    A bootstrapped demo must reach `threshold` in answer_f1. Only "bootstrap" needs no `devset`.
    """
    random.Random(seed).shuffle(trainset := list(trainset))
    settings = {
        "metric": answer_f1,
        "metric_threshold": threshold,
        "max_bootstrapped_demos": bootstrapped_demos,
        "max_labeled_demos": labeled_demos,
        "max_errors": len(trainset) + len(devset) + 1,
    }  # a reply that fails scores 0 and does not end the search
    if optimizer == "bootstrap":
        tool = dspy.BootstrapFewShot(**settings)
        return tool.compile(program, trainset=trainset)
    if optimizer == "bootstrap_random_search":
        tool = dspy.BootstrapFewShotWithRandomSearch(num_threads=1, num_candidate_programs=candidates, **settings)
        return tool.compile(program, trainset=trainset, valset=devset)
    if optimizer == "mipro":
        tool = dspy.MIPROv2(auto=None, num_candidates=candidates, seed=seed, num_threads=1, **settings)
        return tool.compile(program, trainset=trainset, valset=devset, num_trials=candidates, minibatch=False)
    raise InputError(f"Unknown optimizer '{optimizer}': choose one of {', '.join(OPTIMIZERS)}.")


def save_program(program: ContractQA, path: Path) -> None:
    """Write the program's prompt (instructions, demos, k) as JSON."""
    bare = ContractQA(k=program.k)  # without the LM: that is a role which the run fills, no part of the prompt
    bare.predict.signature, bare.predict.demos = program.predict.signature, program.predict.demos
    files.write_json(path, {"k": bare.k, "state": bare.dump_state()})


def load_program(path: Path, retriever: Retriever) -> ContractQA:
    """Read a program back; it sends the same prompts as the saved one."""
    if not Path(path).is_file():
        raise InputError(f"Program '{path}' is missing: run 02_rag_compile of this iteration first.")
    saved = files.read_json(path)
    try:
        program = ContractQA(retriever, int(saved["k"]))
        program.load_state(saved["state"])
        program.messages("", [], "")  # fails on demos that are none
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"Program '{path}' is not one that 02_rag_compile saved ({error!r}): delete it and compile again."
        ) from error
    return program
