"""Write new training questions from train contracts with any LM that DSPy can call, and filter them.

Three kinds of candidates are written: "rephrase" asks a seed row's question in other words and a given style (its
gold spans stay the answer); "ask" asks about a passage that no gold span touches (the answer is what the LM then
quotes from it); "absent" rephrases the question for a clause that the contract lacks. Questions from elsewhere
("template", `templates`; "own", `own_questions`) join them at the filter. Nothing is training data yet:
`filter` keeps what passes every step and gives each of the rest a reason.

After Self-Instruct (Wang et al., 2023).
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from cuadft.core.errors import InputError
from cuadft.core.text import quotable
from cuadft.data.contracts import Row
from cuadft.data.passages import Passage
from cuadft.selfinstruct import sources
from cuadft.selfinstruct.prompts import (
    STYLES,
    AskAboutClause,
    RephraseAbsent,
    RephraseQuestion,
    call_generator,
    listed_questions,
)
from cuadft.selfinstruct.sources import NEAREST, Candidate, Finder, check_train

WRITERS = {"rephrase": RephraseQuestion, "absent": RephraseAbsent, "ask": AskAboutClause}


def write_questions(
    train_rows: Sequence[Row],
    passages_by_contract: Mapping[str, Sequence[Passage]],
    *,
    rephrase: int,
    ask: int,
    seed: int,
    absent: int = 0,
    styles: Sequence[str] = tuple(STYLES),
    held_out: Collection[str] = (),
    threads: int = 1,
) -> list[Candidate]:
    """Return candidates from `rephrase` answered rows, `absent` unanswerable ones and `ask` passages, a few each.

    Call it inside dspy.context(lm=..., adapter=...). `train_rows` must hold all rows of a contract, or
    labelled passages pass for unlabelled ones. The rows take turns over `styles`. A call that fails gives one
    candidate with `error` set, which `filter` counts. held_out: titles of held-out contracts. Raises InputError
    if a row comes from one of them, if passages are missing, if a style is unknown, or if no LM is configured.
    """
    check_train(train_rows, held_out)
    if leaked := sorted(set(passages_by_contract) & set(held_out)):
        raise InputError(f"Passages of the held-out contract {leaked[0]!r}: give those of train contracts only.")
    if missing := sorted({row["contract"] for row in train_rows} - set(passages_by_contract)):
        raise InputError(f"No passages of contract {missing[0]!r} and {len(missing) - 1} more: cut them first")
    if not styles or (unknown := sorted(set(styles) - set(STYLES))):
        raise InputError(f"Invalid style {unknown[0] if styles else ''!r}: choose from {', '.join(STYLES)}.")
    rng = random.Random(seed)
    drawn = {
        "rephrase": sources.labelled_seeds(train_rows, passages_by_contract, rephrase, rng),
        "ask": sources.unlabelled_seeds(train_rows, passages_by_contract, ask, rng),
        "absent": sources.absent_seeds(train_rows, absent, rng),
    }
    made: list[Candidate] = []
    for kind, signature in WRITERS.items():
        own = drawn[kind] if kind == "ask" else _styled(drawn[kind], styles)
        replies = call_generator(signature, [_inputs(s) for s in own], threads)
        made += [candidate for s, (reply, error) in zip(own, replies) for candidate in _candidates(s, reply, error)]
    finder = Finder(passages_by_contract)
    return [_looked_up(c, finder) if c["kind"] == "absent" and c["question"] else c for c in made]


def _styled(drawn: Sequence[Candidate], styles: Sequence[str]) -> list[Candidate]:
    """Give each seed a style, in turn within its category, so that over the seeds a category is asked for in all."""
    first = {category: n for n, category in enumerate(dict.fromkeys(seed["category"] for seed in drawn))}
    turn: Counter[str] = Counter()
    styled = []
    for seed in drawn:
        category = seed["category"]
        styled.append(seed | {"style": styles[(first[category] + turn[category]) % len(styles)]})
        turn[category] += 1
    return styled


def _inputs(seed: Candidate) -> dict[str, str]:
    clause = {"clause": quotable(seed["clause"])}
    if seed["kind"] == "ask":
        return clause
    asked = {"category": seed["category"], "question": quotable(seed["seed_question"]), "style": STYLES[seed["style"]]}
    return asked if seed["kind"] == "absent" else asked | clause


def _candidates(seed: Candidate, reply: Any, error: str | None) -> list[Candidate]:
    """Return one candidate per different question of a reply, or one that carries the error."""
    items = list(dict.fromkeys(listed_questions(reply or "")))  # small models run in circles
    if not items and error is None:
        error = "The reply holds no question"
    return [
        seed | {"id": f"{seed['seed']}~s{n}", "raw": item, "question": tidy(item), "error": error}
        for n, item in enumerate(items or [""], 1)
    ]


def _looked_up(candidate: Candidate, finder: Finder) -> Candidate:
    """Add the passages most like the new question: if it drifted, what it now asks for may well stand there."""
    best = finder.best(candidate["question"], candidate["contract"], NEAREST)
    return candidate | {"passage": "\n".join(passage.text for passage in best)}


def tidy(text: str) -> str:
    """Fold blanks, drop a list mark ("1.", "(1)", "Q1:", "-") and quotation or emphasis marks around the whole."""
    text = " ".join(text.split()).strip("*` ")
    text = re.sub(r"^(\(?\d+[.):]|Q(uestion)?\s*\d+[.):]|[-•])(\s+|$)", "", text, flags=re.IGNORECASE)
    return text.strip("\"'“”‘’*` ")
