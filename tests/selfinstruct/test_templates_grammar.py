"""Phrasings: every category and style has enough of them, they ask for it alone, and rows keep their answers."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.data import contracts
from cuadft.data.schema import expand_template, packaged_schema
from cuadft.evaluation.text_scores import rouge_tokens
from cuadft.selfinstruct.templates import (
    draw_phrasing,
    paraphrases,
    phrasings,
)
from tests.small import ROWS

SCHEMA = packaged_schema()
PARTS = ("train", "held_out")
STYLES = ("user", "keyword", "lawyer")
EVERY = [(category, style, part) for category in SCHEMA.categories for style in STYLES for part in PARTS]
LEAST = 12


def possible_phrasings(category, style, part=None):
    """Return every phrasing of a part, of both by default."""
    return [
        text for p in PARTS if part in (None, p) for texts in phrasings(SCHEMA, category, style, p) for text in texts
    ]


def plain(text):
    return " ".join(rouge_tokens(text))


def test_every_category_and_style_has_enough_distinct_phrasings_in_each_part():
    few = {(c, s, p): len(set(map(str.lower, possible_phrasings(c, s, part=p)))) for c, s, p in EVERY}
    assert {name: count for name, count in few.items() if count < LEAST} == {}


def test_no_phrasing_asks_for_two_categories():
    owner = {}
    for category, style, part in EVERY:
        for text in possible_phrasings(category, style, part=part):
            assert owner.setdefault(plain(text), category) == category, text


def test_no_held_out_phrasing_can_be_trained_on_whatever_its_style():
    for category in SCHEMA.categories:
        trained = {plain(text) for style in STYLES for text in possible_phrasings(category, style, part="train")}
        assert not trained & {
            plain(text) for style in STYLES for text in possible_phrasings(category, style, part="held_out")
        }


def test_phrasings_are_well_formed_and_as_long_as_a_person_writes():
    for category, style, part in EVERY:
        for text in possible_phrasings(category, style, part=part):
            assert not re.search(r"[{}|]|\s{2}|\s[?,.]|^\s|\s$|\b(\w+) \1\b", text), text
            assert text.isascii() or "“" in text, text
            if style == "keyword":
                assert text == text.lower() and "?" not in text and len(text.split()) <= 15, text
            else:
                assert text[0].isupper() and text.endswith("?") and 4 <= len(text.split()) <= 35, text


def test_no_phrasing_takes_the_side_of_one_party():
    """An answer may bind either party, so "Can we audit them?" could have the wrong one."""
    for category, style, part in EVERY:
        for text in possible_phrasings(category, style, part=part):
            assert not re.search(r"\b(we|us|our|ours|my|mine|me)\b", text, re.IGNORECASE), text
            assert not re.search(r"\b(Can|May|Must|Do|Does|Are) (they|he|she|it)\b(?! cost)", text), text


@pytest.mark.parametrize(
    "category, word",
    [
        (
            "Uncapped Liability",
            r"uncapped|unlimited|not |without|any amount|exempt|left out|except|exclu|carve|outside|no ",
        ),
        ("No-Solicit Of Employees", r"employee|staff|people|worker|personnel|workforce"),
        ("No-Solicit Of Customers", r"customer|client"),
        (
            "Competitive Restriction Exception",
            r"except|carve|still|loophole|not |permit|allow|exclu|left out|leaves|ways|exempt"
            r"|ceases|qualified|limited|excused|remain|may a party|does not",
        ),
        ("Joint Ip Ownership", r"joint|share|both|co-own|together|common|equal|half"),
        ("Notice Period To Terminate Renewal", r"notice|ahead|advance|deadline|before|early|by when|last chance|limit"),
        ("Affiliate License-Licensor", r"licensor|company granting|grantor"),
        ("Affiliate License-Licensee", r"licensee"),
        ("Expiration Date", r"expir|end|run|lapse|force|until|last|good for|before any renewal|prior to"),
    ],
)
def test_a_phrasing_says_what_sets_its_category_apart_from_its_neighbours(category, word):
    for style in STYLES:
        assert [text for text in possible_phrasings(category, style) if not re.search(word, text, re.IGNORECASE)] == []


@given(st.sampled_from(EVERY), st.integers())
def test_a_draw_is_repeatable_and_from_its_part(chosen, seed):
    category, style, part = chosen
    drawn = draw_phrasing(category, style, SCHEMA, seed=seed, part=part)
    assert drawn == draw_phrasing(category, style, SCHEMA, seed=seed, part=part)
    assert drawn in possible_phrasings(category, style, part=part)


def test_any_template_is_as_likely_as_another_however_many_phrasings_it_has():
    kinds = ({"a", "b"}, {"c", "d"})
    assert [set(expand_template(t, {"x": ["c", "d"]})) for t in ("{a|b}", "{x}")] == list(kinds)
    templates = phrasings(SCHEMA, "Termination For Convenience", "keyword", "train")
    drawn = [
        draw_phrasing("Termination For Convenience", "keyword", SCHEMA, seed=seed, part="train") for seed in range(300)
    ]
    counts = [sum(text in own for text in drawn) for own in templates]
    assert len({len(own) for own in templates}) > 1 and all(60 < count < 140 for count in counts), (
        "three templates, 100 each, standard deviation 8.2"
    )


def test_groups_within_groups_expand_to_every_combination():
    assert expand_template("{a|b {c|d}}, {x}", {"x": ["e", "f"]}) == [
        "a, e",
        "a, f",
        "b c, e",
        "b c, f",
        "b d, e",
        "b d, f",
    ]


def test_another_seed_draws_other_phrasings():
    assert len({draw_phrasing("Insurance", "user", SCHEMA, seed=seed, part="train") for seed in range(10)}) > 5


def test_paraphrased_rows_keep_contract_and_answers_and_say_where_they_come_from():
    made = paraphrases(ROWS, SCHEMA, seed=7)
    assert len(made) == len(ROWS) and len({row["id"] for row in made}) == len(made)
    by_id = {row["id"]: row for row in ROWS}
    for row in made:
        own = by_id[row["id"].rpartition("~t")[0]]
        kept = ("contract", "contract_type", "category", "answers", "is_impossible")
        assert [row[name] for name in kept] == [own[name] for name in kept]
        assert row["source"] == "template" and row["question"] != own["question"]
        assert any(row["question"] in possible_phrasings(row["category"], style, part="train") for style in STYLES)
    assert sum(row["is_impossible"] for row in made) == 4


def test_every_style_is_drawn():
    for row in ROWS[:3]:
        texts = [paraphrases([row], SCHEMA, seed=seed)[0]["question"] for seed in range(20)]
        assert all(any(text in possible_phrasings(row["category"], style) for text in texts) for style in STYLES)


def test_changing_a_paraphrase_leaves_the_row_as_it_was():
    row = next(row for row in ROWS if row["answers"])
    paraphrases([row], SCHEMA, seed=0)[0]["answers"][0]["text"] = "changed"
    assert row["answers"][0]["text"] != "changed"


def test_questions_other_than_the_official_ones_are_not_rephrased():
    others = [
        ROWS[0] | {"source": "synthetic"},
        ROWS[0] | {"source": "template"},
        ROWS[0] | {"category": "Other"},
        ROWS[0] | {"question": "Does the law of Ohio govern the warranty?"},
    ]
    assert paraphrases(others, SCHEMA, seed=0) == []


def test_the_sample_contracts_can_be_paraphrased():
    rows = [row for contract in contracts.read_contracts(contracts.sample_path()) for row in contract.rows]
    assert len(paraphrases(rows, SCHEMA, seed=0, part="held_out")) == len(rows)
