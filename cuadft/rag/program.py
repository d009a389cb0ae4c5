"""The one DSPy program that every language model runs, and the training rows that hold exactly the prompts it sends.

The program retrieves passages of one contract and has a language model answer with the contract's words or refuse.
Inference (`ContractQA`) and training (`prompt_completions`, `online_prompts`) render their prompts with the same
signature, demos and adapter, so that a model is trained on the very bytes that it is asked with later. For example:

    program = ContractQA(retriever, k=3)
    with dspy.context(lm=lm, adapter=PlainAdapter()):
        prediction = program(question="Which law governs the contract?", contract="Acme Supply Agreement")
    rows, counts = prompt_completions(program, train_rows, size=0, impossible_share=0.3, seed=7)
    compiled = compile_program(program, dspy_examples(train_rows, retriever, 3), [], optimizer="bootstrap")
    save_program(compiled, iteration.path("program", "rag_compiled.json"))

The file goes in this order: signature and adapter, program, training rows, compiling, saving.
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
from cuadft.evaluation.text_scores import NO_CLAUSE, is_refusal, token_f1
from cuadft.retrieval.retriever import Hit, Retriever, render_passages

# The mark before an item of a list: a bullet or a number, but not the number in "3 years" or in "2.5%".
LIST_MARK = re.compile(r"\A\s*(?:[-*•]|\(?\d{1,3}[.)])(?:\s+|$)")
REWARD_COLUMNS = ("id", "contract", "question", "answers", "is_impossible")  # of a row; TRL hands them to the reward
OPTIMIZERS = ("bootstrap", "bootstrap_random_search", "mipro")


# --- signature and adapter


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

    Small models cannot keep DSPy's field markers. With this adapter a reply fails to parse only if it is empty or has
    the wrong type, so a comparison of models does not become one of how well they keep a format. A list field holds
    one item a line.
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
        blocks = [
            f"{name.replace('_', ' ').capitalize()}: {inputs[name]}"
            for name in signature.input_fields
            if name in inputs
        ]
        return "\n\n".join(block for block in (prefix, *blocks, suffix) if block)

    def format_assistant_message_content(
        self, signature: type[dspy.Signature], outputs: dict[str, Any], missing_field_message: str | None = None
    ) -> str:
        """Return the value of the output field, with marks that would end the turn broken up."""
        value = outputs.get(_only_output_field(signature), missing_field_message)
        return break_marks("\n".join(map(str, value)) if isinstance(value, list) else str(value))

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """Return the whole completion as the output field; raises AdapterParseError if it is empty or ill-typed."""
        name, text = _only_output_field(signature), completion.strip()
        annotation = signature.output_fields[name].annotation
        if not text:
            raise AdapterParseError(
                adapter_name="PlainAdapter", signature=signature, lm_response=completion, message="The reply is empty."
            )
        if annotation == list[str]:
            lines = [LIST_MARK.sub("", line).strip() for line in text.splitlines()]
            return {name: [line for line in lines if line]}
        try:
            return {name: parse_value(text, annotation)}
        except ValueError as error:
            raise AdapterParseError(
                adapter_name="PlainAdapter", signature=signature, lm_response=completion, message=str(error)
            ) from error


def _only_output_field(signature: type[dspy.Signature]) -> str:
    (name,) = signature.output_fields
    return name


# --- the program


class ContractQA(dspy.Module):
    """Answer a question about one contract from its k best passages.

    The prediction carries `answer`, `hits` (passages with scores) and `spans`: [start, end) offsets in the contract at
    which the words of the answer stand. `spans` is empty for a refusal and for words that are not in the passages.
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
    """Return the [start, end) offsets in the contract at which the passages hold the words of the answer."""
    if is_refusal(answer):
        return []
    found = [(passage.start, locate_words(answer, passage.text)) for passage in passages]
    return [[shift + span[0], shift + span[1]] for shift, span in found if span]


# --- rows to train on


def target_answer(row: dict[str, Any], hits: Sequence[Hit]) -> str | None:
    """Return the answer to teach for a row: the refusal, or the gold span that the passages hold.

    If the passages hold several gold spans, the one in the best-ranked passage is taken. Returns None if the clause
    exists but lies outside the passages: to teach its words would be to teach inventing, to teach the refusal would be
    to teach overlooking.
    """
    if row["is_impossible"]:
        return NO_CLAUSE
    for hit in hits:
        for span in row["answers"]:
            end = span["start"] + len(span["text"])
            if hit.passage.start <= span["start"] and end <= hit.passage.end:
                return quotable(span["text"])
    return None


def prompt_completions(
    program: ContractQA, rows: Sequence[dict[str, Any]], *, size: int, impossible_share: float, seed: int
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Return up to `size` (0: all) rows {"id", "prompt", "completion"} of chat messages, and counts of all rows.

    `impossible_share` of the rows are questions whose clause does not exist (fewer if there are fewer). The counts say
    how many rows were taken of either kind, and how many were left out for which reason.
    """
    shuffled = random.Random(seed).sample(list(rows), len(rows))
    hits = program.retriever.search_many([(r["question"], r["contract"]) for r in shuffled], k=program.k)
    absent, present = [], []  # examples of questions whose clause does not exist, and of those whose clause does
    for row, found in zip(shuffled, hits, strict=True):
        answer = target_answer(row, found)
        if answer is not None:
            *prompt, completion = program.messages(row["question"], found, answer)
            examples = absent if row["is_impossible"] else present
            examples.append({"id": row["id"], "prompt": prompt, "completion": [completion]})
    n_absent, n_present = _sizes(len(absent), len(present), size, impossible_share)
    chosen = absent[:n_absent] + present[:n_present]
    random.Random(seed).shuffle(chosen)
    usable = len(absent) + len(present)
    counts = {
        "unanswerable": n_absent,
        "answerable": n_present,
        "not drawn": usable - len(chosen),
        "gold span not in the passages": len(rows) - usable,
    }
    return chosen, +Counter(counts)


def _sizes(absent: int, present: int, size: int, impossible_share: float) -> tuple[int, int]:
    """Return how many examples to take of the `absent` and of the `present` ones; size 0: as many as there are."""
    total = min(size or absent + present, absent + present)
    n_absent = min(absent, round(total * impossible_share))
    n_present = min(present, total - n_absent)
    if n_present < total - n_absent and impossible_share < 1:  # too few answerable rows must not raise the share
        n_absent = min(n_absent, round(n_present * impossible_share / (1 - impossible_share)))
    return n_absent, n_present


def online_prompts(program: ContractQA, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return {"prompt"} and REWARD_COLUMNS of the rows that have an answer to teach (see `target_answer`).

    A row whose clause lies outside the passages is left out: its reward would teach the model to invent the clause.
    """
    hits = program.retriever.search_many([(row["question"], row["contract"]) for row in rows], k=program.k)
    made = []
    for row, found in zip(rows, hits, strict=True):
        if target_answer(row, found) is not None:
            *prompt, _ = program.messages(row["question"], found, "")
            made.append({"prompt": prompt} | {name: row[name] for name in REWARD_COLUMNS})
    return made


def telling_rows(
    rows: Sequence[dict[str, Any]], scores: Mapping[str, Sequence[float]], *, others: float = 0.5
) -> list[dict[str, Any]]:
    """Return the rows whose sampled answers differ in score, and `others` times as many rows whose answers do not.

    scores: row id -> scores of its sampled answers. Where all answers score alike, no method learns anything (DAPO, Yu
    et al. 2025, section 3.2); some of these rows stay, so that training also keeps what the model does well. If no
    row's answers differ, all rows are returned. A failed judgement (NaN) does not count; a row that has only failed
    judgements is left out. Raises InputError if a row has no scores.
    """
    if unknown := [row["id"] for row in rows if row["id"] not in scores]:
        raise InputError(f"There are no candidates of question {unknown[0]!r}: sample answers of every row first.")
    distinct = {id_: {score for score in given if not math.isnan(score)} for id_, given in scores.items()}
    differ = [row for row in rows if len(distinct[row["id"]]) > 1]
    alike = [row for row in rows if len(distinct[row["id"]]) == 1]
    return differ + alike[: round(others * len(differ))] if differ else alike


# --- compiling


def dspy_examples(rows: Sequence[dict[str, Any]], retriever: Retriever, k: int) -> list[dspy.Example]:
    """Return DSPy examples of the rows that have an answer to teach (see `target_answer`).

    Each holds its k passages, so that it can serve as a demo.
    """
    found = retriever.search_many([(r["question"], r["contract"]) for r in rows], k=k)
    made = []
    for row, hits in zip(rows, found, strict=True):
        answer = target_answer(row, hits)
        if answer is not None:
            example = dspy.Example(
                passages=render_passages(hits),
                question=quotable(row["question"]),
                answer=answer,
                golds=[span["text"] for span in row["answers"]],
                contract=row["contract"],
            )
            made.append(example.with_inputs("question", "contract"))
    return made


def answer_f1(example: dspy.Example, prediction: dspy.Prediction, trace: Any = None) -> float:
    """Return the token F1 of a prediction (SQuAD 2.0 rules), the metric that prompt optimisation raises."""
    return token_f1(prediction.answer, example.golds)


def compile_program(
    program: ContractQA,
    trainset: list[dspy.Example],
    devset: list[dspy.Example],
    *,
    optimizer: str = "bootstrap",
    bootstrapped_demos: int = 2,
    labeled_demos: int = 2,
    candidates: int = 3,
    threshold: float = 0.5,
    seed: int = 7,
) -> ContractQA:
    """Optimise the program's prompt with one of OPTIMIZERS (all from DSPy) and return the compiled copy.

    A bootstrapped demo must reach `threshold` in answer_f1. Only "bootstrap" needs no `devset`. Raises InputError for
    an unknown optimizer.
    """
    random.Random(seed).shuffle(trainset := list(trainset))
    settings = {
        "metric": answer_f1,
        "metric_threshold": threshold,
        "max_bootstrapped_demos": bootstrapped_demos,
        "max_labeled_demos": labeled_demos,
        "max_errors": len(trainset) + len(devset) + 1,  # a reply that fails scores 0 and does not end the search
    }
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


# --- saving


def save_program(program: ContractQA, path: Path) -> None:
    """Write the program's prompt (instructions, demos, k) as JSON."""
    bare = ContractQA(k=program.k)  # without the LM, which the run chooses and which is no part of the prompt
    bare.predict.signature, bare.predict.demos = program.predict.signature, program.predict.demos
    files.write_json(path, {"k": bare.k, "state": bare.dump_state()})


def load_program(path: Path, retriever: Retriever) -> ContractQA:
    """Read a program back; it sends the same prompts as the saved one.

    Raises InputError if the file is missing or was not written by `save_program`.
    """
    if not Path(path).is_file():
        raise InputError(f"Program '{path}' is missing: run 02_rag_compile of this iteration first.")
    saved = files.read_json(path)
    try:
        program = ContractQA(retriever, int(saved["k"]))
        program.load_state(saved["state"])
        program.messages("", [], "")  # renders the demos once, which fails if the file holds something else as demos
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"Program '{path}' is not one that 02_rag_compile saved ({error!r}): delete it and compile again."
        ) from error
    return program
