"""Have a language model write new training questions from train contracts (Self-Instruct, Wang et al., 2023).

Any LM that DSPy can call writes them. A *seed* is what a question is made from, a row or a passage (see `sources`; the
parameter `seed` of a function is a random seed). Each kind of seed gets a question of its own kind:

- "rephrase": the question of an answered row in other words and in a given style; its gold spans stay the answer.
- "ask": a question about a passage that no gold span touches; its answer is what the LM quotes later, as a check.

Questions for clauses that a contract lacks come from `templates`, whose labels are certain.

What this returns are *candidates*, not yet training data: `filters.filter_questions` keeps those that pass every step
and gives each of the others a reason. Candidates from elsewhere ("template", see `templates`; "own", see `own`) join
them there. For example:

    with dspy.context(lm=lm, adapter=rag.PlainAdapter()):
        candidates = write_questions(train_rows, passages_by_contract, rephrase=40, ask=20, seed=7)
        accepted, rejected = filter_questions(candidates, train_rows, embedder=embedder)
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from cuadft.core.errors import InputError
from cuadft.core.text import quotable
from cuadft.data.contracts import Row
from cuadft.data.passages import Passage
from cuadft.data.schema import Schema, packaged_schema
from cuadft.selfinstruct import prompts, sources
from cuadft.selfinstruct.sources import Candidate

TASKS = {"rephrase": prompts.REPHRASE, "ask": prompts.ASK}  # by kind of candidate


def write_questions(
    train_rows: Sequence[Row],
    passages_by_contract: Mapping[str, Sequence[Passage]],
    *,
    rephrase: int,
    ask: int,
    seed: int,
    held_out: Collection[str] = (),
    threads: int = 1,
    schema: Schema | None = None,
) -> list[Candidate]:
    """Return candidates from `rephrase` answered rows and `ask` passages, a few each.

    Call it inside dspy.context(lm=..., adapter=...). `train_rows` must hold all rows of a contract, because a passage
    counts as unlabelled if no row has a gold span in it. The rows take turns over the styles. A call that fails gives
    one candidate with `error` set, which the filter counts. held_out: titles of held-out contracts. schema: whose words
    the prompts take; None is CUAD's. Raises InputError if a row comes from a held-out contract, if passages are
    missing, or if no LM is configured.
    """
    schema = schema or packaged_schema()
    sources.refuse_held_out([*passages_by_contract, *(row["contract"] for row in train_rows)], held_out)
    if missing := sorted({row["contract"] for row in train_rows} - set(passages_by_contract)):
        raise InputError(f"No passages of contract {missing[0]!r} and {len(missing) - 1} more: cut them first")
    rng = random.Random(seed)
    drawn = {
        "rephrase": _with_styles(
            sources.row_seeds(train_rows, passages_by_contract, rephrase, rng), list(prompts.styles(schema))
        ),
        "ask": sources.unlabelled_seeds(train_rows, passages_by_contract, ask, rng),
    }
    made: list[Candidate] = []
    for kind, task in TASKS.items():
        seeds = drawn[kind]
        replies = prompts.call_generator(task, [_inputs(s, schema) for s in seeds], schema, threads)
        made += [candidate for s, (reply, error) in zip(seeds, replies) for candidate in _candidates(s, reply, error)]
    return made


def _with_styles(seeds: Sequence[Candidate], styles: Sequence[str]) -> list[Candidate]:
    """Give each seed a style. The styles take turns within a category, so that several seeds of it get all styles."""
    turns: dict[str, Iterator[str]] = {}  # by category, each beginning one style later than the one before
    for seed in seeds:
        turns.setdefault(seed["category"], itertools.islice(itertools.cycle(styles), len(turns), None))
    return [seed | {"style": next(turns[seed["category"]])} for seed in seeds]


def _inputs(seed: Candidate, schema: Schema) -> dict[str, str]:
    """Return the input fields of the task that a seed's kind stands for."""
    clause = {"clause": quotable(seed["clause"])}
    if seed["kind"] == "ask":
        return clause
    style = prompts.styles(schema)[seed["style"]]
    return clause | {"category": seed["category"], "question": quotable(seed["seed_question"]), "style": style}


def _candidates(seed: Candidate, reply: Sequence[str] | None, error: str | None) -> list[Candidate]:
    """Return one candidate per different question of a reply, or one that carries the error."""
    items = list(dict.fromkeys(item for item in reply or [] if item.strip()))  # small models repeat themselves
    if not items and error is None:
        error = "The reply holds no question"
    return [
        seed | {"id": f"{seed['seed']}~s{n}", "raw": item, "question": tidy_question(item), "error": error}
        for n, item in enumerate(items or [""], 1)
    ]


def tidy_question(text: str) -> str:
    """Fold blanks, drop a list mark ("1.", "(1)", "Q1:", "-") and quotation or emphasis marks around the whole."""
    text = " ".join(text.split()).strip("*` ")
    text = re.sub(r"^((\(?\d+[.):]|Q(uestion)?\s*\d+[.):]|[-•])(\s+|$)|\d+[、．]\s*)", "", text, flags=re.IGNORECASE)
    return text.strip("\"'“”„‘’«»「」『』*` ")
