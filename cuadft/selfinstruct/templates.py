"""Candidates from the grammar of phrasings: the generator of last resort, which needs no language model.

Ways to ask for each of CUAD's 41 categories, expanded from a small grammar: no language model needed.

`phrasings.json` holds templates by category, style and part. `{a|b}` stands for one of its alternatives, `{deal}` for
one of the words listed under "words"; groups may hold groups. A question never says which party is meant, since an
answer may bind either, and a category that joins several things (first refusal, offer or negotiation) is asked for as
a whole. Templates marked "held_out" are worded apart from those marked "train", to measure robustness to wording.
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
from cuadft.data.cuad import match_category, nearest_categories
from cuadft.selfinstruct import naming
from cuadft.selfinstruct.sources import SOURCE, Candidate, from_row, seed_row_id


def phrased_questions(
    train_rows: Sequence[Row], contracts: Iterable[Contract], *, per_row: int, named_share: float = 0.0, seed: int
) -> list[Candidate]:
    """Return `per_row` paraphrases of each train row; a share of them names its contract, for search over all.

    contracts: all of the run, with their texts: a name must not fit two of them; where few contracts have a name, the
    share is smaller. Rows of wording.TOLD name none. per_row 0 gives none. Answers stay, and unanswerable rows
    stay unanswerable.
    """
    made = paraphrases(train_rows, per_row=per_row, seed=seed) if per_row else []
    rng = random.Random(seed)
    names = naming.contract_names(contracts) if named_share else {}
    untold = [n for n, row in enumerate(made) if row["category"] not in naming.TOLD]
    nameable = [n for n in untold if made[n]["contract"] in names]
    drawn = set(rng.sample(nameable, min(round(named_share * len(made)), len(nameable))))
    rows = []
    for n, row in enumerate(made):
        rows += (
            naming.name_in_question([row], {row["contract"]: [rng.choice(names[row["contract"]])]})
            if n in drawn
            else [row]
        )
    return phrased_from_rows(rows, train_rows)


def phrased_from_rows(rows: Sequence[Row], train_rows: Sequence[Row]) -> list[Candidate]:
    """Return rows with source "template" (ids "<id of a train row>~...") as candidates, to pass the same filters.

    Raises InputError if one is made from a row that is not among `train_rows`.
    """
    seeds = {row["id"]: row for row in train_rows}
    made = []
    for row in rows:
        seed = seeds.get(seed_row_id(row["id"]))
        if seed is None:
            raise InputError(f"Template row {row['id']!r} belongs to no train row: make it from train rows only.")
        made.append(
            from_row(seed, ())
            | {
                "id": row["id"],
                "kind": "template",
                "raw": row["question"],
                "question": row["question"],
                "error": None,
                "answers": row["answers"],
                "style": "any",
                "expect": "",
            }
        )
    return made


STYLES = ("user", "keyword", "lawyer")
PARTS = ("train", "held_out")
_GROUP = re.compile(r"\{([^{}]*)\}")


def phrase_question(category: str, style: str, *, n: int, seed: int, part: str | None = None) -> list[str]:
    """Draw `n` distinct ways to ask for a category, one of each template before a second one of any.

    `style`: "user" (plain words), "keyword" (search terms, no question mark) or "lawyer". `part`: "train" or
    "held_out" for the templates of that part only, None for both. Each part has 12 or more of each category and
    style. Raises InputError for an unknown name, or if the grammar has fewer than `n`.
    """
    return _draw(_official(category), style, n, f"{seed}", part)


def possible_phrasings(category: str, style: str, *, part: str | None = None) -> list[str]:
    """Return every phrasing of a category that the grammar has, in a fixed order; InputError as `phrase`."""
    return [text for texts in _templates(_official(category), style, part) for text in texts]


def paraphrases(
    rows: Sequence[Row], *, per_row: int, styles: Sequence[str] = STYLES, seed: int, part: str | None = "train"
) -> list[Row]:
    """Return `per_row` rows for each official question: same contract and answers, asked in other words.

    Their id is "<row id>~t<n>" (n from 1), their source "template"; unanswerable rows stay unanswerable. The styles
    take turns, so rows get them evenly. Only rows of source "cuad" with the question of one of the 41 categories
    ("Insurance: Is there ...") are rephrased: any other may ask for less than its category. Raises InputError for
    an unknown style or part, or if a style has too few phrasings.
    """
    if per_row < 1 or not styles:
        given = f"Invalid per_row {per_row!r} with styles {list(styles)!r}"
        raise InputError(f"{given}: give 1 or more, and some of {', '.join(STYLES)}")
    made = []
    for row in rows:
        category = match_category(row["category"])
        if row["source"] == "cuad" and category is not None and row["question"].startswith(f"{category}: "):
            texts = _mixed(category, styles, per_row, f"{seed}|{row['id']}", part)
            made += [_asked(row, text, f"{row['id']}~t{n}") for n, text in enumerate(texts, start=1)]
    return made


def _mixed(category: str, styles: Sequence[str], wanted: int, key: str, part: str | None) -> list[str]:
    turns = random.Random(key).sample(list(styles), len(styles))
    each = {style: iter(_draw(category, style, -(-wanted // len(turns)), key, part)) for style in turns}
    return [next(each[turns[n % len(turns)]]) for n in range(wanted)]


def _asked(row: Row, question: str, name: str) -> Row:
    answers = [dict(answer) for answer in row["answers"]]
    return Row(**{**row, "id": name, "question": question, "answers": answers, "source": SOURCE})


def _draw(category: str, style: str, n: int, key: str, part: str | None) -> list[str]:
    templates = _templates(category, style, part)
    total = sum(map(len, templates))
    if not 1 <= n <= total:
        raise InputError(f"Invalid n {n!r}: the {style} phrasings of {category!r} are {total}; give 1 to {total}")
    rng = random.Random(f"{key}|{category}|{style}|{part}")
    columns = [rng.sample(texts, min(n, len(texts))) for texts in rng.sample(templates, len(templates))]
    return [column[turn] for turn in range(n) for column in columns if turn < len(column)][:n]


def _official(category: str) -> str:
    if found := match_category(category):
        return found
    near = ", ".join(map(repr, nearest_categories(category))) or "a name in cuadft.data.CATEGORIES"
    raise InputError(f"Invalid category {category!r}: choose one of CUAD's 41, such as {near}")


@functools.cache
def _templates(category: str, style: str, part: str | None) -> list[tuple[str, ...]]:
    """Return the expansions of each template."""
    if style not in STYLES:
        raise InputError(f"Invalid style {style!r}: choose {', '.join(STYLES)}")
    if part not in (None, *PARTS):
        raise InputError(f"Invalid part {part!r}: choose {', '.join(PARTS)}, or None for both")
    grammar = _grammar()
    parts = grammar["categories"][category][style]
    chosen = [template for name in PARTS if part in (None, name) for template in parts[name]]
    return [tuple(expand_template(template, grammar["words"])) for template in chosen]


def expand_template(template: str, words: dict[str, list[str]]) -> list[str]:
    """Return the texts that a template stands for, innermost groups first; `words` says what `{name}` stands for."""
    if not (group := _GROUP.search(template)):
        return [template]
    before, inside, after = template[: group.start()], group[1], template[group.end() :]
    choices = inside.split("|") if "|" in inside else words[inside]
    found = [text for choice in choices for text in expand_template(before + choice + after, words)]
    return list(dict.fromkeys(found))


@functools.cache
def _grammar() -> dict[str, Any]:
    return json.loads(resources.files("cuadft.selfinstruct").joinpath("phrasings.json").read_text(encoding="utf-8"))
