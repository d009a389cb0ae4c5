"""Compile the program: search for a better prompt with one of DSPy's optimisers. For example:

    compiled = compile_program(program, dspy_examples(train_rows, program), [], optimizer="bootstrap")

The compiled program differs in its instructions and demos alone.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import dspy

from cuadft.core.errors import InputError
from cuadft.core.text import quotable
from cuadft.evaluation.text_scores import token_f1
from cuadft.rag.program import ContractQA
from cuadft.rag.training_rows import taught_examples
from cuadft.retrieval.retriever import render_passages

CANDIDATES = 3  # prompts that random search or MIPROv2 tries
OPTIMIZERS = ("bootstrap", "bootstrap_random_search", "mipro")


def dspy_examples(rows: Sequence[dict[str, Any]], program: ContractQA) -> list[dspy.Example]:
    """Return DSPy examples of the rows that have an answer to teach (see `target_answer`).

    Each holds the best of the program's k passages that has an answer, so that it can serve as a demo.
    """
    found = program.retriever.search_many([(r["question"], r["contract"]) for r in rows], k=program.k)
    taught = [
        (row, next(iter(taught_examples(row, hits, program.refusal)), None))
        for row, hits in zip(rows, found, strict=True)
    ]
    return [
        dspy.Example(
            passage=render_passages([example[0]]),
            question=quotable(row["question"]),
            answer=example[1],
            golds=[span["text"] for span in row["answers"]],
            contract=row["contract"],
        ).with_inputs("question", "contract")
        for row, example in taught
        if example
    ]


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
        made = tool.compile(program, trainset=trainset)
    elif optimizer == "bootstrap_random_search":
        tool = dspy.BootstrapFewShotWithRandomSearch(num_threads=1, num_candidate_programs=CANDIDATES, **settings)
        made = tool.compile(program, trainset=trainset, valset=devset)
    elif optimizer == "mipro":
        tool = dspy.MIPROv2(auto=None, num_candidates=CANDIDATES, seed=seed, num_threads=1, **settings)
        made = tool.compile(program, trainset=trainset, valset=devset, num_trials=CANDIDATES, minibatch=False)
    else:
        raise InputError(f"Unknown optimizer '{optimizer}': choose one of {', '.join(OPTIMIZERS)}.")
    for demo in made.predict.demos:  # DSPy keeps all of a bootstrapped answer, also how sure the model was of it
        if "logprobs" in demo:
            del demo["logprobs"]
    return made
