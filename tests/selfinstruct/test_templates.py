"""Properties of candidates from the grammar: labels kept, only train rows, names only of their own contract."""

import dspy
import numpy as np
from small import ROWS, TEXTS

from cuadft.data.contracts import Contract
from cuadft.data.schema import packaged_schema
from cuadft.selfinstruct.filters import filter_questions
from cuadft.selfinstruct.templates import phrased_questions

SCHEMA = packaged_schema()
PARTIES = [("Acme", "Bolt"), ("Cedar", "Dune"), ("Elm", "Fjord"), ("Gale", "Haven")]
OPENING = (
    "SUPPLY AGREEMENT\n\nThis Supply Agreement is made as of March {day}, 2016 by and between {one} Corp., a "
    'Delaware corporation ("Supplier"), and {two} Inc., a Nevada corporation ("Buyer").\n\n'
)
CONTRACTS = [
    Contract(
        f"{one.upper()}CORP_03_{n + 10}_2016-EX-10.1-SUPPLY AGREEMENT",
        OPENING.format(day=n + 1, one=one, two=two) + text,
        "Supply",
        one.lower(),
        (
            {
                "category": "Parties",
                "answers": [{"text": f"{one} Corp."}, {"text": "Supplier"}, {"text": f"{two} Inc."}],
            },
        ),
    )
    for n, ((one, two), text) in enumerate(zip(PARTIES, TEXTS.values()))
]
TITLE = dict(zip(TEXTS, (c.title for c in CONTRACTS)))
TRAIN = [
    row | {"contract": TITLE[row["contract"]], "id": f"{TITLE[row['contract']]}__{row['category']}"}
    for row in ROWS
    if row["contract"] != list(TEXTS)[3]
]


class Alike:
    def encode(self, texts):
        return np.ones((len(texts), 1), np.float32)


def test_every_row_is_paraphrased_with_its_own_label():
    made = phrased_questions(TRAIN, CONTRACTS, SCHEMA, seed=7)
    seeds = {row["id"]: row for row in TRAIN}
    assert [c["seed"] for c in made] == list(seeds)
    assert all(c["answers"] == seeds[c["seed"]]["answers"] and c["expect"] == "" for c in made)
    assert all(c["question"] != seeds[c["seed"]]["question"] for c in made)


def test_a_share_names_the_contract_and_never_another():
    made = phrased_questions(TRAIN, CONTRACTS, SCHEMA, named_share=0.5, seed=7)
    named = [c for c in made if "~c" in c["id"]]
    assert len(named) == len(made) // 2
    for c in named:
        own = PARTIES[[x.title for x in CONTRACTS].index(c["contract"])]
        assert any(name in c["question"] for name in own), c["question"]
        assert not any(name in c["question"] for pair in PARTIES if pair != own for name in pair)


def test_the_same_seed_gives_the_same_and_no_rows_give_none():
    one, two, three = (phrased_questions(TRAIN, CONTRACTS, SCHEMA, named_share=0.5, seed=seed) for seed in (7, 7, 8))
    assert one == two != three and phrased_questions([], CONTRACTS, SCHEMA, seed=7) == []


def test_they_pass_the_filter_as_template_rows_without_a_language_model():
    made = phrased_questions(TRAIN, CONTRACTS, SCHEMA, named_share=0.5, seed=7)
    with dspy.context(lm=None):
        accepted, rejected = filter_questions(made, TRAIN, embedder=Alike())
    assert len(accepted) + len(rejected) == len(made) and len(accepted) > len(made) / 2
    assert {row["source"] for row in accepted} == {"template"}
    assert {row["is_impossible"] for row in accepted} == {True, False}


def test_rows_whose_category_the_name_tells_are_paraphrased_without_it():
    dated = [
        TRAIN[0]
        | {
            "id": f"{TITLE[ROWS[0]['contract']]}__{n}",
            "category": "Agreement Date",
            "question": "Agreement Date: The date of the contract",
        }
        for n in range(9)
    ]
    made = phrased_questions([*TRAIN, *dated], CONTRACTS, SCHEMA, named_share=1.0, seed=7)
    assert [c["seed"] for c in made] == [row["id"] for row in [*TRAIN, *dated]]
    assert not [c for c in made if "~c" in c["id"] and c["category"] == "Agreement Date"]


def test_ids_of_a_users_file_may_end_like_made_ones():
    (made,) = phrased_questions([TRAIN[0] | {"id": "clause~t1"}], CONTRACTS, SCHEMA, seed=7)
    assert made["seed"] == "clause~t1"
