"""Write new training questions from train contracts with any LM that DSPy can call, and filter them.

Three kinds of candidates are written: "rephrase" asks a seed row's question in other words and a given style (its
gold spans stay the answer); "ask" asks about a passage that no gold span touches (the answer is what the LM then
quotes from it); "absent" rephrases the question for a clause that the contract lacks. Questions from elsewhere
("template", `templates`; "own", `own_questions`) join them at the filter. Nothing is training data yet:
`filter` keeps what passes every step and gives each of the rest a reason.

After Self-Instruct (Wang et al., 2023).
"""

from __future__ import annotations

import itertools
import random
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cuadft import round_trip, screening, seeds
from cuadft.contracts import Row
from cuadft.errors import InputError
from cuadft.passages import Passage
from cuadft.program import clean
from cuadft.question_prompts import AskAboutClause, RephraseAbsent, RephraseQuestion, call, listed
from cuadft.seeds import NEAREST, Candidate, Finder, check_train
from cuadft.worked import STYLES
from cuadft.yields import by_source, counts, remark, side_by_side, table

if TYPE_CHECKING:
    from cuadft.embedder import Embedder

__all__ = ["by_source", "counts", "filter", "generate", "remark", "side_by_side", "table"]

WRITERS = {"rephrase": RephraseQuestion, "absent": RephraseAbsent, "ask": AskAboutClause}


def generate(
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
    drawn = {"rephrase": seeds.labelled(train_rows, passages_by_contract, rephrase, rng),
             "ask": seeds.unlabelled(train_rows, passages_by_contract, ask, rng),
             "absent": seeds.absent(train_rows, absent, rng)}  # fmt: skip
    made: list[Candidate] = []
    for kind, signature in WRITERS.items():
        own = drawn[kind] if kind == "ask" else _styled(drawn[kind], styles)
        replies = call(signature, [_inputs(s) for s in own], threads)
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
    clause = {"clause": clean(seed["clause"])}
    if seed["kind"] == "ask":
        return clause
    asked = {"category": seed["category"], "question": clean(seed["seed_question"]), "style": STYLES[seed["style"]]}
    return asked if seed["kind"] == "absent" else asked | clause


def _candidates(seed: Candidate, reply: Any, error: str | None) -> list[Candidate]:
    """Return one candidate per different question of a reply, or one that carries the error."""
    items = list(dict.fromkeys(listed(reply or "")))  # small models run in circles
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


def filter(  # noqa: A001
    candidates: Sequence[Candidate],
    train_rows: Sequence[Row],
    *,
    embedder: Embedder,
    held_out_rows: Sequence[Row] = (),
    held_out_texts: Mapping[str, str] | None = None,
    earlier: Sequence[Row] = (),
    min_similarity: float = 0.3,
    min_f1: float = 0.5,
    threads: int = 1,
) -> tuple[list[Row], list[Candidate]]:
    """Return (rows to train on, rejected candidates with `step`, `reason`, `detail`): every candidate is in one.

    The steps are screening.STEPS, in order; of two near-duplicates the first candidate is kept. held_out_texts:
    title -> text of held-out contracts. earlier: rows accepted in earlier iterations; where one has a candidate's
    id, the accepted row takes the next free number. Call it inside
    dspy.context(lm=..., adapter=...); without candidates that an LM must confirm, none is needed.
    Raises InputError if a row or candidate comes from a held-out contract.
    """
    texts = dict(held_out_texts or {})
    held_out = {row["contract"] for row in held_out_rows} | set(texts)
    check_train([*train_rows, *earlier, *(c for c in candidates if not c.get("fault"))], held_out)
    judges = screening.judges(
        train_rows, embedder=embedder, foreign_questions=[row["question"] for row in held_out_rows],
        foreign_texts=texts.values(), earlier=earlier, min_similarity=min_similarity,
    )  # fmt: skip
    left, rejected = list(enumerate(candidates)), []
    for step, judge in judges.items():
        verdicts = judge([candidate for _, candidate in left])
        rejected += [(n, _rejected(c, step, *v)) for (n, c), v in zip(left, verdicts) if v is not None]
        left = [pair for pair, verdict in zip(left, verdicts) if verdict is None]
    outcomes = round_trip.check([candidate for _, candidate in left], min_f1=min_f1, threads=threads)
    rejected += [(n, _rejected(c, "round trip", *v)) for (n, c), (v, _) in zip(left, outcomes) if v is not None]
    accepted = [_row(c, answers) for (_, c), (verdict, answers) in zip(left, outcomes) if verdict is None]
    accepted = _numbered_on(accepted, {row["id"] for row in [*train_rows, *earlier]})
    return accepted, [candidate for _, candidate in sorted(rejected, key=lambda pair: pair[0])]


def _rejected(candidate: Candidate, step: str, reason: str, detail: str) -> Candidate:
    return candidate | {"step": step, "reason": reason, "detail": detail}


def _row(candidate: Candidate, answers: list[dict[str, Any]]) -> Row:
    own = {name: candidate[name] for name in ("id", "contract", "contract_type", "category", "question")}
    source = candidate["kind"] if candidate["kind"] in ("template", "own") else "synthetic"
    return Row(**own, answers=answers, is_impossible=not answers, source=source)


def _numbered_on(rows: Sequence[Row], taken: Collection[str]) -> list[Row]:
    """Give each row whose id is taken the next free number: another iteration may have drawn the same seed."""
    used, named = set(taken), []
    for row in rows:
        name = row["id"]
        if name in used:
            stem, number = re.fullmatch(r"(.*?)(\d*)", name, re.DOTALL).groups()
            name = next(n for n in (f"{stem}{k}" for k in itertools.count(int(number or 1))) if n not in used)
        used.add(name)
        named.append(Row(**{**row, "id": name}))
    return named
