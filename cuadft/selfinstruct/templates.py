"""Ask for the categories of a schema in other words, from its templates: questions without a language model.

Two words of this file are easily taken for each other. A *template* is a pattern of the grammar, such as "{title|name}
of {the|this} {agreement|contract}". A *phrasing* is one text that a template stands for, such as "name of this
contract". A schema holds the templates of each category by style and part; CUAD's keeps to these rules:

- `{a|b}` stands for one of its alternatives, `{deal}` for one of the texts under "words"; groups may hold groups.
- A question never says which party is meant, because an answer may bind either one. A category that joins several
  things (first refusal, offer or negotiation) is asked for as a whole.
- The templates of the part "held_out" are worded apart from those of "train": they measure how a model copes with
  phrasings that it did not train on.

For example:

    draw_phrasing("Insurance", "keyword", schema, seed=7, part="train")  # one way to search for it
    insert_name("Which law governs the contract?", "the Supply agreement between Acme Inc and Bolt Ltd", schema)
    # "Which law governs the Supply agreement between Acme Inc and Bolt Ltd?"
    rows = paraphrases(train_rows, schema, seed=7)  # train rows with other questions and the same answers
    candidates = phrased_questions(train_rows, contracts, schema, seed=7)  # ready for the filter
"""

from __future__ import annotations

import functools
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from cuadft.core.text import fold_letters
from cuadft.data.contracts import Contract, Row
from cuadft.data.rows import is_original
from cuadft.data.schema import Schema, expand_template
from cuadft.selfinstruct.sources import TEMPLATE_SOURCE, Candidate, seed_from_row

NAMED_SHARE = 0.1  # of the paraphrases that name their contract
# what makes "the contract" part of other words: "the contract's term", "the contract term"
_NOT_ITS_PART = r"(?!['’-]| (?:terms?|dates?|periods?|prices?|years?)\b)"
_PARTY = re.compile(
    r"[^\W_a-z][\w.,&'’/-]*(?: [\w.,&'’()/-]+){1,7}"
)  # words of a name; one alone may be a role ("Buyer")


def phrased_questions(
    train_rows: Sequence[Row],
    contracts: Iterable[Contract],
    schema: Schema,
    *,
    named_share: float = NAMED_SHARE,
    seed: int,
) -> list[Candidate]:
    """Return a paraphrase of each train row as a candidate; `named_share` of them name their contract.

    A question that names its contract can be asked of all contracts at once. contracts: all of the run, because a name
    must not fit two of them. Rows of categories that a title tells never get a name, since it would answer
    the question. Answers stay, and unanswerable rows stay unanswerable. seed: of the random draw.
    """
    made = paraphrases(train_rows, schema, seed=seed)
    names = contract_names(contracts, schema)
    nameable = [n for n, row in enumerate(made) if not schema.categories[row["category"]].told_by_title]
    wanted = min(round(named_share * len(made)), len(nameable))
    for n in random.Random(seed).sample(nameable, wanted):
        question = insert_name(made[n]["question"], names[made[n]["contract"]], schema)
        made[n] |= {"id": f"{made[n]['id']}~c1", "question": question}
    seeds = {row["id"]: row for row in train_rows}
    marks = {"kind": "template", "error": None, "style": "any", "expect": ""}
    return [
        seed_from_row(seeds[row["id"].removesuffix("~c1").removesuffix("~t1")], ())
        | {"id": row["id"], "raw": row["question"], "question": row["question"]}
        | marks
        for row in made
    ]


def paraphrases(rows: Iterable[Row], schema: Schema, *, seed: int, part: str = "train") -> list[Row]:
    """Return a row for each official question: same contract and answers, asked in other words.

    Their id is "<row id>~t1", their source "template"; unanswerable rows stay unanswerable. The style of a question is
    drawn. Only annotated rows with the schema's question of a category ("Insurance: Is there ...") are rephrased,
    because any other question may ask for less than its category; a category without phrasings gives no row. part:
    "train" or "held_out".
    """
    made = []
    for row in rows:
        category, key = row["category"], f"{seed}|{row['id']}"
        known = schema.categories.get(category)
        official = known and (row["question"] == known.question or row["question"].startswith(f"{category}: "))
        styles = [style for style, parts in known.phrasings.items() if part in parts] if official else []
        if is_original(row) and styles:
            style = random.Random(key).sample(styles, len(styles))[0]
            text = draw_phrasing(category, style, schema, seed=key, part=part)
            changed = {"id": f"{row['id']}~t1", "question": text, "source": TEMPLATE_SOURCE}
            made.append(Row(**{**row, **changed, "answers": [dict(answer) for answer in row["answers"]]}))
    return made


# --- the grammar


def draw_phrasing(category: str, style: str, schema: Schema, *, seed: int | str, part: str) -> str:
    """Draw a way to ask for a category, any template as likely as another.

    style: in CUAD's schema "user" (plain words), "keyword" (search terms, no question mark) or "lawyer", each with 12
    or more phrasings in each part. part: "train" or "held_out".
    """
    templates = phrasings(schema, category, style, part)
    rng = random.Random(f"{seed}|{category}|{style}|{part}")
    return rng.sample(rng.sample(templates, len(templates))[0], 1)[0]


def phrasings(schema: Schema, category: str, style: str, part: str) -> list[tuple[str, ...]]:
    """Return the phrasings of each template, in a fixed order."""
    templates = schema.categories[category].phrasings[style][part]
    return [_expanded(each, json.dumps(schema.words)) for each in templates]


@functools.cache
def _expanded(template: str, words: str) -> tuple[str, ...]:
    return tuple(expand_template(template, json.loads(words)))


# --- the name of a contract in a question, so that it can be asked of all contracts at once


def contract_names(contracts: Iterable[Contract], schema: Schema) -> dict[str, str]:
    """Return a name for each contract, by title; each name fits one contract only.

    A name is made of the contract's type and its first two parties, as annotated; without them it is the title.
    """
    named = {contract.title: _name(contract, schema) for contract in contracts}
    times = Counter(named.values())
    return {title: name if times[name] == 1 else f"the {schema.document} “{title}”" for title, name in named.items()}


def insert_name(question: str, name: str, schema: Schema) -> str:
    """Return a question, or search words, with the contract's name in it."""
    words = "|".join(map(re.escape, [schema.document, *schema.also_called]))
    itself = re.compile(rf"\b(?:the|this) (?:{words})\b{_NOT_ITS_PART}", re.IGNORECASE)
    if itself.search(question):
        return itself.sub(lambda _: name, question, count=1)
    return f"Regarding {name}: {question}" if "?" in question else f"{question}, {name}"


def _name(contract: Contract, schema: Schema) -> str:
    parties: list[str] = []
    telling = {each.name for each in schema.categories.values() if each.names_parties}
    for span in (span for row in contract.rows if row["category"] in telling for span in row["answers"]):
        text = " ".join(span["text"].split()).strip(" ,.")  # a final point would end search words
        if _PARTY.fullmatch(text) and not any(fold_letters(text) in fold_letters(known) for known in parties):
            parties.append(text)
    kind = f"{contract.contract_type} {next(iter(schema.also_called), schema.document)}".strip()
    between = f"the {kind} between {' and '.join(parties[:2])}"
    return between if len(parties) > 1 else f"the {schema.document} “{contract.title}”"
