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

    draw_phrasing("Insurance", "keyword", seed=7, part="train")  # one way to search for it
    insert_name("Which law governs the contract?", "the Supply agreement between Acme Inc and Bolt Ltd")
    # "Which law governs the Supply agreement between Acme Inc and Bolt Ltd?"
    rows = paraphrases(train_rows, seed=7)  # train rows with other questions and the same answers
    candidates = phrased_questions(train_rows, contracts, seed=7)  # ready for the filter
"""

from __future__ import annotations

import functools
import json
import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

from cuadft.core.text import fold_letters
from cuadft.data.contracts import Contract, Row
from cuadft.selfinstruct.sources import STYLES, TEMPLATE_SOURCE, Candidate, seed_from_row

NAMED_SHARE = 0.1  # of the paraphrases that name their contract
TOLD_BY_NAME = ("Document Name", "Parties", "Agreement Date", "Effective Date")  # categories that a name gives away
_PARTY = re.compile(
    r"[^\W_a-z][\w.,&'’/-]*(?: [\w.,&'’()/-]+){1,7}"
)  # words of a name; one alone may be a role ("Buyer")
_CONTRACT_ITSELF = re.compile(  # the words for the contract, but not in "the contract's term" or "the contract term"
    r"\b(?:the|this) (?:contract|agreement|deal)\b(?!['’-]| (?:terms?|dates?|periods?|prices?|years?)\b)", re.IGNORECASE
)
_GROUP = re.compile(r"\{([^{}]*)\}")  # innermost: it holds no other group


def phrased_questions(
    train_rows: Sequence[Row], contracts: Iterable[Contract], *, named_share: float = NAMED_SHARE, seed: int
) -> list[Candidate]:
    """Return a paraphrase of each train row as a candidate; `named_share` of them name their contract.

    A question that names its contract can be asked of all contracts at once. contracts: all of the run, because a name
    must not fit two of them. Rows of the categories TOLD_BY_NAME never get a name, since it would answer the
    question. Answers stay, and unanswerable rows stay unanswerable. seed: of the random draw.
    """
    made = paraphrases(train_rows, seed=seed)
    names = contract_names(contracts)
    nameable = [n for n, row in enumerate(made) if row["category"] not in TOLD_BY_NAME]
    wanted = min(round(named_share * len(made)), len(nameable))
    for n in random.Random(seed).sample(nameable, wanted):
        question = insert_name(made[n]["question"], names[made[n]["contract"]])
        made[n] |= {"id": f"{made[n]['id']}~c1", "question": question}
    seeds = {row["id"]: row for row in train_rows}
    marks = {"kind": "template", "error": None, "style": "any", "expect": ""}
    return [
        seed_from_row(seeds[row["id"].removesuffix("~c1").removesuffix("~t1")], ())
        | {"id": row["id"], "raw": row["question"], "question": row["question"]}
        | marks
        for row in made
    ]


def paraphrases(rows: Iterable[Row], *, seed: int, part: str = "train") -> list[Row]:
    """Return a row for each official question: same contract and answers, asked in other words.

    Their id is "<row id>~t1", their source "template"; unanswerable rows stay unanswerable. The style of a question is
    drawn. Only rows of source "cuad" with the official question of a category ("Insurance: Is there ...") are
    rephrased, because any other question may ask for less than its category. part: "train" or "held_out".
    """
    made = []
    for row in rows:
        category, key = row["category"], f"{seed}|{row['id']}"
        official = row["source"] == "cuad" and row["question"].startswith(f"{category}: ")
        if official and category in _grammar()["categories"]:
            style = random.Random(key).sample(STYLES, len(STYLES))[0]
            text = draw_phrasing(category, style, seed=key, part=part)
            changed = {"id": f"{row['id']}~t1", "question": text, "source": TEMPLATE_SOURCE}
            made.append(Row(**{**row, **changed, "answers": [dict(answer) for answer in row["answers"]]}))
    return made


# --- the grammar


def draw_phrasing(category: str, style: str, *, seed: int | str, part: str) -> str:
    """Draw a way to ask for a category, any template as likely as another.

    style: "user" (plain words), "keyword" (search terms, no question mark) or "lawyer". part: "train" or "held_out".
    Each part has 12 or more phrasings of each category and style.
    """
    templates = phrasings(category, style, part)
    rng = random.Random(f"{seed}|{category}|{style}|{part}")
    return rng.sample(rng.sample(templates, len(templates))[0], 1)[0]


@functools.cache
def phrasings(category: str, style: str, part: str) -> list[tuple[str, ...]]:
    """Return the phrasings of each template, in a fixed order."""
    grammar = _grammar()
    return [tuple(expand_template(each, grammar["words"])) for each in grammar["categories"][category][style][part]]


def expand_template(template: str, words: dict[str, list[str]]) -> list[str]:
    """Return the phrasings of a template; `words` says what a group without alternatives, `{name}`, stands for."""
    if not (group := _GROUP.search(template)):
        return [template]
    before, inside, after = template[: group.start()], group[1], template[group.end() :]
    choices = inside.split("|") if "|" in inside else words[inside]
    found = [text for choice in choices for text in expand_template(before + choice + after, words)]
    return list(dict.fromkeys(found))


@functools.cache
def _grammar() -> dict[str, Any]:
    return json.loads(resources.files("cuadft.selfinstruct").joinpath("phrasings.json").read_text(encoding="utf-8"))


# --- the name of a contract in a question, so that it can be asked of all contracts at once


def contract_names(contracts: Iterable[Contract]) -> dict[str, str]:
    """Return a name for each contract, by title; each name fits one contract only.

    A name is made of the contract's type and its first two parties, as annotated; without them it is the title.
    """
    named = {contract.title: _name(contract) for contract in contracts}
    times = Counter(named.values())
    return {title: name if times[name] == 1 else f"the contract “{title}”" for title, name in named.items()}


def insert_name(question: str, name: str) -> str:
    """Return a question, or search words, with the contract's name in it."""
    if _CONTRACT_ITSELF.search(question):
        return _CONTRACT_ITSELF.sub(lambda _: name, question, count=1)
    return f"Regarding {name}: {question}" if "?" in question else f"{question}, {name}"


def _name(contract: Contract) -> str:
    parties: list[str] = []
    for span in (span for row in contract.rows if row["category"] == "Parties" for span in row["answers"]):
        text = " ".join(span["text"].split()).strip(" ,.")  # a final point would end search words
        if _PARTY.fullmatch(text) and not any(fold_letters(text) in fold_letters(known) for known in parties):
            parties.append(text)
    kind = f"{contract.contract_type} agreement".strip()
    return f"the {kind} between {' and '.join(parties[:2])}" if len(parties) > 1 else f"the contract “{contract.title}”"
