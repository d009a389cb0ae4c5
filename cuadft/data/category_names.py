"""Find the category of each question of a file: by its id, by the words that it quotes, or by its own words.

For example:

    asked = [("Lease 7__rent", "How much is the rent?")]
    categories, problems = categories_of(asked, "leases.json", schema)    # {"Lease 7__rent": "Rent"}, []
"""

from __future__ import annotations

import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

from cuadft.core.text import fold, fold_letters
from cuadft.data.layouts import short
from cuadft.data.schema import FROM_ROWS, Schema

SPAN_NUMBER = re.compile(r"_\d+$")  # in train_separate_questions.json and the hub's rows each span is a question
SHOWN = 5  # categories of a warning
_QUOTED = re.compile(r'related to "(.+?)"')  # of CUAD's own wording


def categories_of(
    asked: Sequence[tuple[str, str]], where: str, schema: Schema, unknown: str = "keep"
) -> tuple[dict[str, str], list[str]]:
    """Return the category of each question by its id, and what is wrong with ids; asked: (id, question).

    A category is what an id ends with, or what the question quotes. Categories that are not of the schema are as the
    ids spell them most often; unknown: "keep" them or "leave out" their questions, with a warning that names the file
    (`where`), or "refuse" them among the problems.
    """
    by_question = {fold(each.question): each.name for each in schema.categories.values()}
    known, own, bare = {}, {}, []
    for number, question in asked:
        named = _named(number, question)
        if found := next(filter(None, map(schema.match, named)), None) or by_question.get(fold(question)):
            known[number] = found
        elif named:
            own[number] = named[0]
        else:
            bare.append(number)
    example = next(iter(schema.categories), "Category")
    told = f"no category in its id; end it with '__' and its category, as in '...__{example}'"
    problems = [f"id {short(number, 160)}: {told}" for number in bare]
    spelled = _one_spelling(own)
    if not own or schema.name == FROM_ROWS:
        return known | spelled, problems
    counts = Counter(spelled.values())
    told = [f"{count} x {short(name, 80)}{schema.nearest(name)}" for name, count in counts.items()]
    if unknown == "refuse":
        problems += [f"{each}: correct this category, or add it to the schema" for each in told]
        return known, problems
    more = f"; and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    done = "They are kept as categories of their own (schema_strict refuses them)."
    warnings.warn(
        f"{where}: {len(told)} not among the {len(schema.categories)} categories of schema {schema.name!r}: "
        f"{'; '.join(told[:SHOWN])}{more}. {done if unknown == 'keep' else 'Their questions are left out.'}",
        stacklevel=2,
    )
    return (known | spelled if unknown == "keep" else known), problems


def _named(number: str, question: str) -> list[str]:
    """Return what may be a question's category: the end of its id, the same without a span's number, what it quotes."""
    named = [" ".join(number.rsplit("__", 1)[1].split())] if "__" in number else []
    named += [SPAN_NUMBER.sub("", name) for name in named]
    return [name for name in named + _QUOTED.findall(question)[:1] if name]


def _one_spelling(own: Mapping[str, str]) -> dict[str, str]:
    """Return categories by id, each as it is spelled most often, and without the numbers of spans."""
    names = set(own.values())
    plain = {name: SPAN_NUMBER.sub("", name) for name in names}
    plain = {name: bare if f"{bare}_0" in names else name for name, bare in plain.items()}
    spelled: dict[str, Counter[str]] = defaultdict(Counter)
    for name in map(plain.__getitem__, own.values()):
        spelled[fold_letters(name) or name][name] += 1
    best = {key: counts.most_common(1)[0][0] for key, counts in spelled.items()}
    return {number: best[fold_letters(plain[name]) or plain[name]] for number, name in own.items()}
