"""Questions that systems are measured on: every clause, whole contracts, and weights that sum to all questions."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuadft.data.contracts import Contract, Row
from cuadft.data.rows import WHOLE_FROM, choose_questions, questions_table


def make_rows(counts: list[tuple[int, int]]) -> list[Row]:
    """Return rows of one contract for each (questions with a clause, questions without)."""
    return [
        {"id": f"c{c:02}-{i:02}", "contract": f"c{c:02}", "answers": [{"text": "x", "start": 0}] * (i < present)}
        for c, (present, absent) in enumerate(counts)
        for i in range(present + absent)
    ]


def split_rows(rows: list[Row]) -> tuple[list[Row], list[Row]]:
    return [row for row in rows if row["answers"]], [row for row in rows if not row["answers"]]


COUNTS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9)), min_size=1, max_size=14)


@settings(max_examples=200, deadline=None)
@given(COUNTS, st.integers(0, 120), st.integers(0, 5))
def test_chosen_questions_are_copies_in_order_whose_weights_sum_to_all_questions(counts, size, seed) -> None:
    rows = make_rows(counts)
    chosen = choose_questions(rows, size, seed=seed)
    assert chosen == choose_questions(rows, size, seed=seed) and not any("weight" in row for row in rows)
    assert not size or len(chosen) <= size
    assert [row["id"] for row in chosen] == sorted({row["id"] for row in chosen})
    plain = [{key: value for key, value in row.items() if key != "weight"} for row in chosen]
    assert all(row in rows for row in plain) and all(isinstance(row["weight"], float) for row in chosen)
    if size == 0 or size >= len(rows):
        assert plain == rows and all(row["weight"] == 1.0 for row in chosen)
    if size != 1:  # one question can't stand for both kinds
        for some, every in zip(split_rows(chosen), split_rows(rows), strict=True):
            assert len({row["weight"] for row in some}) <= 1
            assert sum(row["weight"] for row in some) == pytest.approx(len(every))


@settings(max_examples=200, deadline=None)
@given(COUNTS, st.integers(3, 120), st.integers(0, 5))
def test_every_clause_is_taken_when_a_sixth_of_the_size_is_left_for_other_questions(counts, size, seed) -> None:
    rows = make_rows(counts)
    clauses, absent = split_rows(rows)
    present, others = split_rows(choose_questions(rows, size, seed=seed))
    if 6 * len(clauses) <= 5 * size:
        assert [row["id"] for row in present] == [row["id"] for row in clauses]
        assert all(row["weight"] == 1.0 for row in present)
    else:
        assert len(present) == min(len(clauses), max(5 * size // 6, size - len(absent)))
        assert len(others) == min(len(absent), size - len(present)) or len(others) < size - len(present)


@settings(max_examples=200, deadline=None)
@given(COUNTS, st.integers(3, 120), st.integers(0, 5))
def test_questions_without_a_clause_are_of_whole_contracts_or_spread_evenly(counts, size, seed) -> None:
    rows = make_rows(counts)
    all_absent = Counter(row["contract"] for row in split_rows(rows)[1])
    present, others = split_rows(choose_questions(rows, size, seed=seed))
    absent = Counter(row["contract"] for row in others)
    if len(others) == all_absent.total():
        return
    left = size - len(present)
    whole = all(absent[title] == all_absent[title] for title in absent)
    if len(absent) >= WHOLE_FROM and whole:
        assert left - len(others) < max(all_absent.values())  # one contract more would not have fitted
    else:
        assert len(others) == left
        assert all(absent[title] >= min(n, max(absent.values()) - 1) for title, n in all_absent.items())


def test_whole_contracts_are_asked_from_the_least_number_on() -> None:
    rows = make_rows([(3, 9)] * 10)
    for count in range(1, 10):
        absent = Counter(row["contract"] for row in split_rows(choose_questions(rows, 30 + 9 * count + 5, seed=1))[1])
        if count >= WHOLE_FROM:
            assert len(absent) == count and set(absent.values()) == {9}
        elif 6 * 30 <= 5 * (30 + 9 * count + 5):  # all clauses fit
            assert len(absent) == 10 and absent.total() == 9 * count + 5


def test_another_seed_asks_other_whole_contracts_whatever_the_order_of_rows() -> None:
    rows = make_rows([(3, 9)] * 12)
    drawn = {
        tuple(sorted({r["contract"] for r in split_rows(choose_questions(rows, 90, seed=seed))[1]}))
        for seed in range(6)
    }
    assert len(drawn) > 1 and all(len(titles) == 6 for titles in drawn)
    assert choose_questions(rows[::-1], 90, seed=1) == choose_questions(rows, 90, seed=1)


def test_few_questions_are_five_sixths_with_a_clause_over_all_contracts() -> None:
    present, others = split_rows(choose_questions(make_rows([(10, 31)] * 4), 24, seed=7))
    assert Counter(row["contract"] for row in present) == {f"c{n:02}": 5 for n in range(4)}
    assert Counter(row["contract"] for row in others) == {f"c{n:02}": 1 for n in range(4)}
    assert {row["weight"] for row in present} == {2.0} and {row["weight"] for row in others} == {31.0}


def test_the_table_tells_of_how_many_contracts_the_questions_are_and_whether_these_are_whole() -> None:
    rows = make_rows([(2, 3), (1, 0)])
    contracts = [Contract(name, "x", rows=tuple(r for r in rows if r["contract"] == name)) for name in ("c00", "c01")]
    table = questions_table({"all": rows, "some": rows[:4], "clauses": split_rows(rows)[0], "none": []}, contracts)
    assert [list(line.values()) for line in table] == [
        ["all", 2, 6, 3, 3, 1, "yes"],
        ["some", 1, 4, 2, 2, 1, "no"],
        ["clauses", 2, 3, 3, 0, 0, ""],
        ["none", 0, 0, 0, 0, 0, ""],
    ]
    assert list(table[0]) == [
        "set",
        "contracts",
        "questions",
        "with a clause",
        "without a clause",
        "of contracts",
        "whole contracts",
    ]
