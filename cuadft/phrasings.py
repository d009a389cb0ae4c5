"""Ways to ask for each of CUAD's 41 categories, expanded from a small grammar: no language model needed.

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
from collections.abc import Sequence
from importlib import resources
from typing import Any

from cuadft.categories import match, nearest
from cuadft.contracts import Row
from cuadft.errors import InputError

STYLES = ("user", "keyword", "lawyer")
PARTS = ("train", "held_out")
SOURCE = "template"
_GROUP = re.compile(r"\{([^{}]*)\}")


def phrase(category: str, style: str, *, n: int, seed: int, part: str | None = None) -> list[str]:
    """Draw `n` distinct ways to ask for a category, one of each template before a second one of any.

    `style`: "user" (plain words), "keyword" (search terms, no question mark) or "lawyer". `part`: "train" or
    "held_out" for the templates of that part only, None for both. Each part has 12 or more of each category and
    style. Raises InputError for an unknown name, or if the grammar has fewer than `n`.
    """
    return _draw(_official(category), style, n, f"{seed}", part)


def possible(category: str, style: str, *, part: str | None = None) -> list[str]:
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
        category = match(row["category"])
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
    if found := match(category):
        return found
    near = ", ".join(map(repr, nearest(category))) or "a name in cuadft.categories.CATEGORIES"
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
    return [tuple(expand(template, grammar["words"])) for template in chosen]


def expand(template: str, words: dict[str, list[str]]) -> list[str]:
    """Return the texts that a template stands for, innermost groups first; `words` says what `{name}` stands for."""
    if not (group := _GROUP.search(template)):
        return [template]
    before, inside, after = template[: group.start()], group[1], template[group.end() :]
    choices = inside.split("|") if "|" in inside else words[inside]
    found = [text for choice in choices for text in expand(before + choice + after, words)]
    return list(dict.fromkeys(found))


@functools.cache
def _grammar() -> dict[str, Any]:
    return json.loads(resources.files("cuadft").joinpath("phrasings.json").read_text(encoding="utf-8"))
