"""Answers of the current model to training questions, among which preferences are found: greedy and sampled ones."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.errors import InputError

if TYPE_CHECKING:
    import dspy

    from cuadft.program import ContractQA


def draw(rows: Sequence[dict[str, Any]], *, size: int, impossible_share: float, seed: int,
         seen: Collection[str] = ()) -> list[dict[str, Any]]:
    """Draw the training rows to sample answers for, `impossible_share` of them unanswerable.

    seen: ids of the rows that the model was fine-tuned on; they come last, for the model knows their answers by heart.
    Too few unanswerable rows are made up for by others, never the other way round. Of rows with the same id one is
    taken. Raises InputError on a size below 1 or a share outside 0 to 1.
    """
    if size < 1 or not 0 <= impossible_share <= 1:
        raise InputError(f"Cannot draw {size} rows with a share of {impossible_share} unanswerable: give a size from 1 "
                         "and a share from 0 to 1.")
    known = set(seen)
    unique = list({row["id"]: row for row in rows}.values())
    mixed = sorted(random.Random(seed).sample(unique, len(unique)), key=lambda row: row["id"] in known)
    impossible = [row for row in mixed if row["is_impossible"]]
    answerable = [row for row in mixed if not row["is_impossible"]]
    take = min(len(impossible), round(size * impossible_share))
    return impossible[:take] + answerable[:size - take]


def sample(program: ContractQA, lm: dspy.LM, rows: Sequence[dict[str, Any]], folder: Path, *, n: int, temperature: float,
           batch_size: int = 16) -> list[dict[str, Any]]:
    """Return n + 1 predictions a row: the greedy answer and n sampled ones, in the order of their numbers.

    Each number has a file of its own in `folder`, written batch by batch; a killed call goes on where it stopped.
    Raises InputError on n below 0 and on a temperature of 0, with which all answers would be the greedy one.
    """
    if n < 0 or (n and not temperature > 0):
        raise InputError(f"Cannot sample {n} answers at temperature {temperature}: give a number from 0 and a temperature "
                         "above 0, such as 1.0.")
    from cuadft.inference import predict

    settings = [(0.0, 0)] + [(temperature, seed) for seed in range(1, n + 1)]
    return [made for heat, seed in settings
            for made in predict(program, lm.copy(temperature=heat, seed=seed), rows, folder / f"candidates.{seed}.jsonl",
                                system=f"candidate {seed}", split="train", batch_size=batch_size)]


def with_prompts(program: ContractQA, answers: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the answers with `prompt`, the chat messages to which they were given."""
    questions = {a["id"]: (a["question"], a["contract"]) for a in answers}
    found = program.retriever.search_many(list(questions.values()), k=program.k)
    prompts = {id_: program.messages(question, hits, "")[:-1]
               for (id_, (question, _)), hits in zip(questions.items(), found, strict=True)}
    return [a | {"prompt": prompts[a["id"]]} for a in answers]
