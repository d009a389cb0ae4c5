"""Splits: nothing leaks between them, and they are the same whatever the order of contracts."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.data.contracts import Contract, read_contracts
from cuadft.data.cuad import is_official_test, official_test_titles
from cuadft.data.splits import (
    contract_groups,
    largest_overlap,
    relatives_in_training,
    split_groups,
    split_official,
)

CUAD = Path(os.environ.get("CUADFT_CUAD") or Path(__file__).parents[3] / "shared" / "cuad" / "CUAD_v1.zip")


def words(count: int, seed: int) -> str:
    dice = random.Random(seed)
    return " ".join(f"w{dice.randrange(10**6)}" for _ in range(count))


def corpus(sizes: list[int], types: int = 3) -> list[Contract]:
    """Return one filer a size, with that many contracts of unlike text, types in turn."""
    return [
        Contract(f"{filer}-{n}", words(30, filer * 1000 + n), f"type {filer % types}", f"filer {filer}")
        for filer, size in enumerate(sizes)
        for n in range(size)
    ]


def test_one_text_under_two_titles_is_one_group() -> None:
    text = words(500, 1)
    two = [
        Contract("CONSULTING AGREEMENT", text, "", "a"),
        Contract("CONSULTING AGREEMENT(1)", text, "", "b"),
    ]
    numbers = contract_groups([*two, Contract("OTHER", words(500, 2), "", "c")])
    assert numbers["CONSULTING AGREEMENT"] == numbers["CONSULTING AGREEMENT(1)"] != numbers["OTHER"]


def test_a_short_contract_inside_a_long_one_is_found() -> None:
    short = words(40, 1)
    pair = [
        Contract("long", f"{words(4000, 2)} {short} {words(4000, 3)}", "", "a"),
        Contract("short", short, "", "b"),
    ]
    assert len(set(contract_groups(pair).values())) == 1


def test_containment_is_counted_exactly_at_the_threshold() -> None:
    # 27 words have 20 sequences of 8 words; a common start of 17 words has 10 (0.5), one of 16 has 9 (0.45).
    text = words(27, 1)
    start = text.split()
    half = " ".join(start[:17]) + " " + words(10, 2)
    less = " ".join(start[:16]) + " " + words(11, 3)
    assert len(set(contract_groups([Contract("a", text, "", "a"), Contract("b", half, "", "b")]).values())) == 1
    assert len(set(contract_groups([Contract("a", text, "", "a"), Contract("b", less, "", "b")]).values())) == 2


def test_case_and_spacing_hide_no_copy() -> None:
    text = words(100, 1)
    assert (
        len(set(contract_groups([Contract("a", text), Contract("b", text.upper().replace(" ", "\n "))]).values())) == 1
    )


def test_groups_join_through_a_third_contract_and_by_filer() -> None:
    one, two = words(60, 1), words(60, 2)
    chain = [Contract("a", one, "", "x"), Contract("b", f"{one} {two}", "", "y"), Contract("c", two, "", "z")]
    filed = [
        Contract("d", words(60, 3), "", "z"),
        Contract("e", words(60, 4), "", ""),
        Contract("f", words(60, 5), "", ""),
    ]
    # No filer known ("") is no common filer.
    assert contract_groups(chain + filed) == {"a": 0, "b": 0, "c": 0, "d": 0, "e": 1, "f": 2}


def test_groups_take_texts_without_words_and_no_contracts() -> None:
    assert contract_groups([]) == {}
    assert contract_groups([Contract("a", "***"), Contract("b", "---"), Contract("c", "two words")]) == {
        "a": 0,
        "b": 1,
        "c": 2,
    }


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=4, max_size=14), st.integers(0, 6), st.integers(0, 6), st.randoms())
def test_no_group_stands_in_two_splits_and_order_changes_nothing(
    sizes: list[int], dev: int, test: int, dice: random.Random
) -> None:
    contracts = corpus(sizes)
    numbers = contract_groups(contracts)
    shuffled = dice.sample(contracts, len(contracts))
    assert contract_groups(shuffled) == numbers
    if dev + test >= len(contracts):
        return
    result = split_groups(contracts, numbers, dev=dev, test=test, seed=3)
    assert split_groups(shuffled, numbers, dev=dev, test=test, seed=3) == result
    assert len({(numbers[title], name) for title, name in result.items()}) == len(sizes)
    counts = Counter(result.values())
    assert counts["train"] and bool(counts["dev"]) == bool(dev) and bool(counts["test"]) == bool(test)
    if set(sizes) == {1}:
        assert (counts["dev"], counts["test"]) == (dev, test)


@pytest.mark.parametrize(
    ("sizes", "dev", "test", "expected"),
    [
        ([1] * 10, 2, 3, (2, 3)),
        ([4, 3, 2, 2, 2], 4, 3, (4, 3)),  # dev must leave the 3 to test: 4 = 4 or 2 + 2
        ([5, 5, 5], 1, 1, (5, 5)),  # nothing nearer than one whole group each
        ([3, 3, 3, 3], 4, 2, (3, 3)),  # |3-4| + |3-2| = 2 is the least
    ],
)
def test_wanted_numbers_are_met_exactly_or_as_nearly_as_groups_permit(
    sizes: list[int], dev: int, test: int, expected: tuple[int, int]
) -> None:
    contracts = corpus(sizes)
    counts = Counter(split_groups(contracts, contract_groups(contracts), dev=dev, test=test, seed=1).values())
    assert (counts["dev"], counts["test"]) == expected


def test_types_are_spread_over_the_splits() -> None:
    # 60 contracts of 3 types, 20 each: a test of 12 holds 4 of each, a dev of 6 holds 2 of each.
    contracts = corpus([1] * 60)
    kinds = {contract.title: contract.contract_type for contract in contracts}
    result = split_groups(contracts, contract_groups(contracts), dev=6, test=12, seed=5)
    for name, each in (("test", 4), ("dev", 2), ("train", 14)):
        assert set(Counter(kinds[title] for title, at in result.items() if at == name).values()) == {each}
    assert result != split_groups(contracts, contract_groups(contracts), dev=6, test=12, seed=6)


def test_splits_that_cannot_be_are_refused() -> None:
    two = corpus([3, 3])
    for dev, test in ((1, 1), (3, 3), (6, 0)):  # two groups are too few for three splits
        with pytest.raises(InputError, match="Cannot split 6 contracts in 2 groups"):
            split_groups(two, contract_groups(two), dev=dev, test=test, seed=0)


@pytest.mark.skipif(not CUAD.is_file(), reason="CUAD_v1.zip not here; set CUADFT_CUAD")
def test_the_real_contract_under_two_titles_is_one_group() -> None:
    contracts = [contract for contract in read_contracts(CUAD) if contract.title.startswith("A")]
    numbers = contract_groups([Contract(c.title, c.text) for c in contracts])
    twins = [title for title in numbers if title.startswith("ADUROBIOTECH")]
    assert len(twins) == 2 and numbers[twins[0]] == numbers[twins[1]]


def test_the_largest_overlap_is_counted_exactly_and_only_between_held_out_and_training_contracts() -> None:
    # 27 words have 20 sequences of 8 words; a common start of 16 words has 9 of them: 9 / 20 = 0.45.
    start = words(27, 1)
    less = " ".join(start.split()[:16]) + " " + words(11, 3)
    records = [
        {"title": "taught", "text": start, "split": "train"},
        {"title": "taught twice", "text": start, "split": "train"},
        {"title": "kept", "text": less, "split": "test"},
        {"title": "kept too", "text": less, "split": "dev"},
        {"title": "unlike", "text": words(90, 4), "split": "slice"},
    ]
    share, held_out, training = largest_overlap(records)
    assert (round(share, 9), training) == (0.45, "taught") and held_out in ("kept", "kept too")
    assert largest_overlap(records[2:]) == (0.0, "", "") == largest_overlap(records[:2])
    assert largest_overlap(records[1::3]) == (0.0, "unlike", "taught twice")


def test_blanks_to_fill_in_are_no_words_so_that_two_forms_of_one_text_are_one_group() -> None:
    text = words(60, 1)
    form = " ____ ".join(text.split())
    assert len(set(contract_groups([Contract("a", text, "", "a"), Contract("b", form, "", "b")]).values())) == 1


def official_corpus(sizes: list[int], official: int) -> tuple[list[Contract], list[str]]:
    """Return the contracts of `corpus`, the first one of each of the first `official` filers being an official test."""
    titles = dict(zip([f"{filer}-0" for filer in range(official)], sorted(official_test_titles()), strict=False))
    contracts = [replace(each, title=titles.get(each.title, each.title)) for each in corpus(sizes)]
    return contracts, list(titles.values())


def records_of(contracts: list[Contract], groups: dict[str, int], split: dict[str, str]) -> list[dict]:
    return [each.record(group=groups[each.title], split=split[each.title]) for each in contracts]


def test_the_official_titles_are_those_of_cuads_test_file() -> None:
    stored = json.loads(resources.files("cuadft.data").joinpath("official_test.json").read_text("utf-8"))
    assert len(stored["titles"]) == len(official_test_titles()) == 102
    assert any(title != title.strip() for title in stored["titles"])  # as in the file
    assert "TheAtticusProject/cuad" in stored["source"] and "CC BY 4.0" in stored["source"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 4), min_size=5, max_size=12), st.integers(1, 3), st.integers(1, 3), st.randoms())
def test_the_official_split_tests_on_cuads_contracts_and_cuts_no_group_between_train_and_dev(
    sizes: list[int], official: int, dev: int, dice: random.Random
) -> None:
    contracts, titles = official_corpus([*sizes, 1, 1], official)
    groups = contract_groups(contracts)
    result = split_official(contracts, groups, dev=dev, seed=3)
    assert sorted(title for title, name in result.items() if name == "test") == sorted(titles)
    others = {(groups[title], name) for title, name in result.items() if name != "test"}
    assert len({number for number, _ in others}) == len(others) and set(result.values()) == {"train", "dev", "test"}
    shuffled = dice.sample(contracts, len(contracts))
    assert split_official(shuffled, groups, dev=dev, seed=3) == result
    records = records_of(contracts, groups, result)
    found = relatives_in_training(records).to_dict("records")
    for each in found:
        own = {title for title in result if groups[title] == groups[each["title"]] and result[title] == "train"}
        assert each["split"] == "test" and each["relatives"] == sorted(own) and own
    related = {each["title"] for each in found}
    assert all(
        title in related or all(result[other] != "train" for other in result if groups[other] == groups[title])
        for title in titles
    )


def test_official_titles_are_compared_without_blanks_at_their_ends() -> None:
    title = sorted(official_test_titles())[0]
    contracts = [Contract(f"{title} ", words(30, 1)), *corpus([1, 1, 1])]
    assert split_official(contracts, contract_groups(contracts), dev=1, seed=0)[f"{title} "] == "test"


def test_an_official_split_without_official_contracts_is_refused() -> None:
    contracts = corpus([1] * 5)
    with pytest.raises(InputError, match="none of the 102 test contracts .* among the 5 contracts.*split group"):
        split_official(contracts, contract_groups(contracts), dev=1, seed=0)


def test_relatives_of_the_official_test_contracts_in_training_are_named() -> None:
    contracts, titles = official_corpus([2, 2, 1, 1, 1, 1, 1], 3)
    groups = contract_groups(contracts)
    split = split_official(contracts, groups, dev=1, seed=3) | {"0-1": "train", "1-1": "dev"}
    related = relatives_in_training(records_of(contracts, groups, split))
    assert related.to_dict("records") == [{"title": titles[0], "split": "test", "relatives": ["0-1"]}]


@pytest.mark.skipif(not CUAD.is_file(), reason="CUAD_v1.zip not here; set CUADFT_CUAD")
def test_88_contracts_of_the_real_copy_are_in_the_official_test_and_some_have_relatives_in_training() -> None:
    contracts = read_contracts(CUAD)
    groups = contract_groups(contracts)
    records = records_of(contracts, groups, split_official(contracts, groups, dev=20, seed=7))
    assert Counter(r["split"] for r in records) == {"train": 342, "dev": 20, "test": 88}
    related = relatives_in_training(records)["title"].str.lower()
    assert all(any(title.startswith(name) for title in related) for name in ("soupman", "cardlytics", "womensgolf"))


def test_only_contracts_of_the_official_test_split_make_an_official_test():
    titles = sorted(official_test_titles())[:3]
    assert is_official_test([titles[0] + "  ", titles[1]])  # some of CUAD's own titles end in blanks
    assert not is_official_test([*titles, "Another agreement"]) and not is_official_test([])
