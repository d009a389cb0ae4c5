"""Compile the program: search for a better prompt with one of DSPy's optimisers. For example:

    compiled = compile_program(program, dspy_examples(train_rows, program), [], optimizer="bootstrap")

The compiled program differs in its instructions and demos alone. Prompt and weights can take turns (BetterTogether,
Soylu et al. 2024, "Fine-tuning and prompt optimization: two great steps that work better together"): with
`tuned_program: rag_compiled` an iteration tunes weights on its compiled prompt, and if they are promoted, the next
iteration compiles its prompt with these weights (`compiling_lm`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import dspy

from cuadft.core.errors import InputError
from cuadft.core.runs import Iteration, incoming_champion
from cuadft.core.text import quotable
from cuadft.evaluation.text_scores import is_refusal, token_f1
from cuadft.models.api import remote
from cuadft.models.local import LocalEngine
from cuadft.models.weights import find_weights
from cuadft.rag.program import ContractQA
from cuadft.rag.training_rows import taught_examples
from cuadft.retrieval.retriever import render_passages

CANDIDATES = 3  # prompts that random search or MIPROv2 tries
OPTIMIZERS = ("bootstrap", "bootstrap_random_search", "mipro", "gepa")
REFLECTION_TOKENS = 2000  # of a reply in which an LM proposes instructions


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


def answer_feedback(
    example: dspy.Example, prediction: dspy.Prediction, trace: Any = None, pred_name: str = "", pred_trace: Any = None
) -> dspy.Prediction:
    """Return the token F1 with words on what a prediction did wrong, from which GEPA's reflection learns."""
    score, given, golds = answer_f1(example, prediction), prediction.answer or "", example.golds
    wanted = " | ".join(golds) or "no quote: the passages hold no such clause"
    if not golds:
        said = "Right: there is no such clause." if score else f"It quotes {given!r}, but there is no such clause."
    elif is_refusal(given):
        said = "It refuses, but there is such a clause."
    else:
        nearest = max(golds, key=lambda gold: token_f1(given, [gold]))
        missing, extra = (
            " ".join(word for word in a.split() if word not in b.split())
            for a, b in ((nearest, given), (given, nearest))
        )
        said = f"Of the nearest right words it lacks: {missing or 'none'}. It has besides: {extra or 'none'}."
    return dspy.Prediction(score=score, feedback=f"{said} Token F1 {score:.2f}. Right would be: {wanted}")


def compiling_lm(
    iteration: Iteration, model: str, *, rag_lm: str = "", max_tokens: int = 64, batch_size: int = 16
) -> dspy.LM:
    """Return the LM that a prompt is compiled for: `rag_lm`, else the tuned model as the iteration finds it.

    That is the base model, or with the champion's weights if the champion is tuned and runs a compiled prompt: prompt,
    weights and prompt are then improved in turn.
    """
    if rag_lm:
        return remote(rag_lm, max_tokens=max_tokens)
    base, champion = find_weights(model), incoming_champion(iteration)
    tuned = champion["weights"] and str(champion["program"]).endswith("rag_compiled.json")
    weights = iteration.run / champion["weights"] if tuned else None
    if weights and not (weights / "adapter_config.json").is_file():
        return LocalEngine(weights, batch_size=batch_size).lm(max_tokens=max_tokens)
    engine = LocalEngine(base, adapters={"champion": weights} if weights else {}, batch_size=batch_size)
    return engine.lm("champion" if weights else "", max_tokens=max_tokens)


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

    A bootstrapped demo must reach `threshold` in answer_f1. Only "bootstrap" needs no `devset`. "gepa" (Agrawal et al.
    2025, arXiv:2507.19457) changes the instructions alone: the LM in dspy's context proposes them, and should be a
    strong one. Raises InputError for an unknown optimizer.
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
        made = dspy.BootstrapFewShot(**settings).compile(program, trainset=trainset)
    elif optimizer == "bootstrap_random_search":
        tool = dspy.BootstrapFewShotWithRandomSearch(num_threads=1, num_candidate_programs=CANDIDATES, **settings)
        made = tool.compile(program, trainset=trainset, valset=devset)
    elif optimizer == "mipro":
        tool = dspy.MIPROv2(auto=None, num_candidates=CANDIDATES, seed=seed, num_threads=1, **settings)
        made = tool.compile(program, trainset=trainset, valset=devset, num_trials=CANDIDATES, minibatch=False)
    elif optimizer == "gepa":
        made = _reflect(program, trainset, devset, seed)
    else:
        raise InputError(f"Unknown optimizer '{optimizer}': choose one of {', '.join(OPTIMIZERS)}.")
    for demo in [demo for demo in made.predict.demos if "logprobs" in demo]:
        del demo["logprobs"]  # DSPy keeps all of a bootstrapped answer, also how sure the model was of it
    return made


def _reflect(program: ContractQA, trainset: list[dspy.Example], devset: list[dspy.Example], seed: int) -> ContractQA:
    """Return the program with the instructions that GEPA found, and say what to expect of the LM that proposed them."""
    lm = dspy.settings.lm
    if isinstance(getattr(lm, "engine", None), LocalEngine):
        print(
            f"GEPA lets {lm.model} reflect on its own mistakes. A small model seldom proposes better instructions: "
            "name a strong one in rag_lm, a LiteLLM id."
        )
    tool = dspy.GEPA(
        answer_feedback,
        max_full_evals=CANDIDATES,
        reflection_lm=lm.copy(max_tokens=REFLECTION_TOKENS, temperature=1.0),
        num_threads=1,
        seed=seed,
    )
    made = tool.compile(program, trainset=trainset, valset=devset or trainset)
    if made.predict.signature.instructions == program.predict.signature.instructions:
        print("GEPA found no better instructions: the prompt stays as it is.")
    return made
