"""Ask for the 41 CUAD categories in other words, from a grammar of templates: questions without a language model.

Two words of this file are easily taken for each other. A *template* is a pattern of the grammar, such as "{title|name}
of {the|this} {agreement|contract}". A *phrasing* is one text that a template stands for, such as "name of this
contract". `phrasings.json` holds the templates by category, style and part:

- `{a|b}` stands for one of its alternatives, `{deal}` for one of the texts under "words"; groups may hold groups.
- A question never says which party is meant, because an answer may bind either one. A category that joins several
  things (first refusal, offer or negotiation) is asked for as a whole.
- The templates of the part "held_out" are worded apart from those of "train": they measure how a model copes with
  phrasings that it did not train on.

For example:

    draw_phrasings("Insurance", "keyword", n=2, seed=7)  # two ways to search for it
    rows = paraphrases(train_rows, per_row=2, seed=7)  # train rows with other questions and the same answers
    candidates = phrased_questions(train_rows, contracts, per_row=2, seed=7)  # ready for the filter
"""

from __future__ import annotations

import functools
import json
import random
import re
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from cuadft.core.errors import InputError
from cuadft.data.contracts import Contract, Row
from cuadft.data.cuad import nearest_categories
from cuadft.data.rows import take_turns
from cuadft.selfinstruct import naming
from cuadft.selfinstruct.sources import STYLES, TEMPLATE_SOURCE, Candidate, seed_from_row, seed_row_id

PARTS = ("train", "held_out")  # of the grammar: templates to train on, and templates kept to measure with
NAMED_SHARE = 0.1  # of the paraphrases that name their contract
_GROUP = re.compile(r"\{([^{}]*)\}")  # innermost: it holds no other group


def phrased_questions(
    train_rows: Sequence[Row],
    contracts: Iterable[Contract],
    *,
    per_row: int,
    named_share: float = NAMED_SHARE,
    seed: int,
) -> list[Candidate]:
    """Return `per_row` (0: no) paraphrases of each train row as candidates; `named_share` of them name their contract.

    A question that names its contract can be asked of all contracts at once. contracts: all of the run, because a name
    must not fit two of them. Rows of the categories naming.TOLD_BY_NAME never get a name, since it would answer the
    question. Answers stay, and unanswerable rows stay unanswerable. seed: of the random draw.
    """
    made = paraphrases(train_rows, per_row=per_row, seed=seed) if per_row else []
    names = naming.contract_names(contracts)
    nameable = [n for n, row in enumerate(made) if row["category"] not in naming.TOLD_BY_NAME]
    wanted = min(round(named_share * len(made)), len(nameable))
    for n in random.Random(seed).sample(nameable, wanted):
        question = naming.insert_name(made[n]["question"], names[made[n]["contract"]])
        made[n] = Row(**{**made[n], "id": f"{made[n]['id']}~c1", "question": question})
    return candidates_from_rows(made, train_rows)


def candidates_from_rows(rows: Sequence[Row], train_rows: Sequence[Row]) -> list[Candidate]:
    """Return rows of source "template" as candidates, so that they pass the same filters as other questions.

    The id of such a row is "<id of its train row>~...". Raises InputError if that train row is not in `train_rows`.
    """
    seeds = {row["id"]: row for row in train_rows}
    made = []
    for row in rows:
        seed = seeds.get(seed_row_id(row["id"]))
        if seed is None:
            raise InputError(f"Template row {row['id']!r} belongs to no train row: make it from train rows only.")
        asked = {"id": row["id"], "raw": row["question"], "question": row["question"], "answers": row["answers"]}
        marks = {"kind": "template", "error": None, "style": "any", "expect": ""}
        made.append(seed_from_row(seed, ()) | asked | marks)
    return made


def paraphrases(rows: Sequence[Row], *, per_row: int, seed: int, part: str | None = "train") -> list[Row]:
    """Return `per_row` rows for each official question: same contract and answers, asked in other words.

    Their id is "<row id>~t<n>" (n from 1), their source "template"; unanswerable rows stay unanswerable. The styles
    take turns, so that a row gets all of them evenly. Only rows of source "cuad" with the official question of a
    category ("Insurance: Is there ...") are rephrased, because any other question may ask for less than its category.
    Raises InputError for an unknown part, or if a style has too few phrasings.
    """
    if per_row < 1:
        raise InputError(f"Invalid per_row {per_row!r}: give 1 or more")
    made = []
    for row in rows:
        category, key = row["category"], f"{seed}|{row['id']}"
        if row["source"] != "cuad" or category not in _grammar()["categories"]:
            continue
        if not row["question"].startswith(f"{category}: "):
            continue
        turns = random.Random(key).sample(STYLES, len(STYLES))
        each = -(-per_row // len(turns))
        texts = take_turns([draw_phrasings(category, style, n=each, seed=key, part=part) for style in turns], per_row)
        for n, text in enumerate(texts, start=1):
            changed = {"id": f"{row['id']}~t{n}", "question": text, "source": TEMPLATE_SOURCE}
            made.append(Row(**{**row, **changed, "answers": [dict(answer) for answer in row["answers"]]}))
    return made


# --- the grammar


def draw_phrasings(category: str, style: str, *, n: int, seed: int | str, part: str | None = None) -> list[str]:
    """Draw `n` distinct ways to ask for a category, one of each template before a second one of any.

    style: "user" (plain words), "keyword" (search terms, no question mark) or "lawyer". part: "train" or "held_out"
    for the templates of that part only, None for both. Each part has 12 or more phrasings of each category and style.
    Raises InputError for an unknown name, or if the grammar has fewer than `n` phrasings.
    """
    templates = _expansions(category, style, part)
    total = sum(map(len, templates))
    if not 1 <= n <= total:
        raise InputError(f"Invalid n {n!r}: the {style} phrasings of {category!r} are {total}; give 1 to {total}")
    rng = random.Random(f"{seed}|{category}|{style}|{part}")
    columns = [rng.sample(texts, min(n, len(texts))) for texts in rng.sample(templates, len(templates))]
    return take_turns(columns, n)


def possible_phrasings(category: str, style: str, *, part: str | None = None) -> list[str]:
    """Return every phrasing of a category in a fixed order; raises InputError for an unknown name."""
    return [text for texts in _expansions(category, style, part) for text in texts]


def expand_template(template: str, words: dict[str, list[str]]) -> list[str]:
    """Return the phrasings of a template; `words` says what a group without alternatives, `{name}`, stands for."""
    if not (group := _GROUP.search(template)):
        return [template]
    before, inside, after = template[: group.start()], group[1], template[group.end() :]
    choices = inside.split("|") if "|" in inside else words[inside]
    found = [text for choice in choices for text in expand_template(before + choice + after, words)]
    return list(dict.fromkeys(found))


@functools.cache
def _expansions(category: str, style: str, part: str | None) -> list[tuple[str, ...]]:
    """Return the phrasings of each template."""
    grammar = _grammar()
    if category not in grammar["categories"]:
        near = ", ".join(map(repr, nearest_categories(category))) or "a name in cuadft.data.CATEGORIES"
        raise InputError(f"Invalid category {category!r}: choose one of CUAD's 41, such as {near}")
    if style not in STYLES:
        raise InputError(f"Invalid style {style!r}: choose {', '.join(STYLES)}")
    if part not in (None, *PARTS):
        raise InputError(f"Invalid part {part!r}: choose {', '.join(PARTS)}, or None for both")
    parts = grammar["categories"][category][style]
    chosen = [template for name in PARTS if part in (None, name) for template in parts[name]]
    return [tuple(expand_template(template, grammar["words"])) for template in chosen]


@functools.cache
def _grammar() -> dict[str, Any]:
    return json.loads(resources.files("cuadft.selfinstruct").joinpath("phrasings.json").read_text(encoding="utf-8"))
