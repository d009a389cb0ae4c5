"""Phrasings: every category and style has enough of them, they ask for it alone, and rows keep their answers."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.data import contracts
from cuadft.data.cuad import CATEGORIES
from cuadft.evaluation.text_scores import rouge_tokens
from cuadft.selfinstruct.sources import STYLES
from cuadft.selfinstruct.templates import (
    PARTS,
    draw_phrasings,
    expand_template,
    paraphrases,
    possible_phrasings,
)
from tests.small import ROWS

EVERY = [(category, style, part) for category in CATEGORIES for style in STYLES for part in PARTS]
LEAST = 12


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
    for category in CATEGORIES:
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


@given(st.sampled_from(EVERY), st.integers(1, LEAST), st.integers())
def test_a_draw_is_distinct_repeatable_and_from_its_part(chosen, n, seed):
    category, style, part = chosen
    drawn = draw_phrasings(category, style, n=n, seed=seed, part=part)
    assert len(set(drawn)) == n and drawn == draw_phrasings(category, style, n=n, seed=seed, part=part)
    assert set(drawn) <= set(possible_phrasings(category, style, part=part))


def test_a_draw_takes_each_template_before_a_second_phrasing_of_any():
    kinds = ({"a", "b"}, {"c", "d"})
    assert [set(expand_template(t, {"x": ["c", "d"]})) for t in ("{a|b}", "{x}")] == list(kinds)
    for seed in range(20):  # "Termination For Convenience" has three templates of keywords in its train part
        starts = {
            text.split()[0]
            for text in draw_phrasings("Termination For Convenience", "keyword", n=3, seed=seed, part="train")
        }
        assert starts in ({"termination", "terminate", "right"}, {"termination", "terminate", "may"})


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
    assert len({tuple(draw_phrasings("Insurance", "user", n=3, seed=seed)) for seed in range(10)}) > 5


@pytest.mark.parametrize(
    "change, said",
    [
        ({"category": "Insurence"}, "'Insurance'"),
        ({"style": "pirate"}, "user, keyword, lawyer"),
        ({"part": "dev"}, "train, held_out"),
        ({"n": 0}, "give 1 to"),
        ({"n": 10_000}, "give 1 to"),
    ],
)
def test_a_wrong_argument_is_named_with_what_is_allowed(change, said):
    given = {"category": "Insurance", "style": "user", "n": 3, "seed": 1, "part": None} | change
    with pytest.raises(InputError, match=said):
        draw_phrasings(given.pop("category"), given.pop("style"), **given)


def test_paraphrased_rows_keep_contract_and_answers_and_say_where_they_come_from():
    made = paraphrases(ROWS, per_row=3, seed=7)
    assert len(made) == 3 * len(ROWS) and len({row["id"] for row in made}) == len(made)
    by_id = {row["id"]: row for row in ROWS}
    for row in made:
        own = by_id[row["id"].rpartition("~t")[0]]
        kept = ("contract", "contract_type", "category", "answers", "is_impossible")
        assert [row[name] for name in kept] == [own[name] for name in kept]
        assert row["source"] == "template" and row["question"] != own["question"]
        assert any(row["question"] in possible_phrasings(row["category"], style, part="train") for style in STYLES)
    assert sum(row["is_impossible"] for row in made) == 3 * 4


def test_each_row_gets_every_style_in_turn():
    for row in ROWS:
        texts = [made["question"] for made in paraphrases([row], per_row=3, seed=1)]
        assert all(any(text in possible_phrasings(row["category"], style) for text in texts) for style in STYLES)


def test_changing_a_paraphrase_leaves_the_row_as_it_was():
    row = next(row for row in ROWS if row["answers"])
    paraphrases([row], per_row=1, seed=0)[0]["answers"][0]["text"] = "changed"
    assert row["answers"][0]["text"] != "changed"


def test_questions_other_than_the_official_ones_are_not_rephrased():
    others = [
        ROWS[0] | {"source": "synthetic"},
        ROWS[0] | {"source": "template"},
        ROWS[0] | {"category": "Other"},
        ROWS[0] | {"question": "Does the law of Ohio govern the warranty?"},
    ]
    assert paraphrases(others, per_row=2, seed=0) == []


def test_the_sample_contracts_can_be_paraphrased():
    rows = [row for contract in contracts.read_contracts(contracts.sample_path()) for row in contract.rows]
    assert len(paraphrases(rows, per_row=2, seed=0, part="held_out")) == 2 * len(rows)


def test_paraphrasing_refuses_what_it_cannot_do():
    with pytest.raises(InputError, match="Invalid per_row 0: give 1 or more"):
        paraphrases(ROWS, per_row=0, seed=0)
    with pytest.raises(InputError, match="train, held_out"):
        paraphrases(ROWS, per_row=1, seed=0, part="dev")
