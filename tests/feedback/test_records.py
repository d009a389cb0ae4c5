"""Properties of the record of a verdict: what is refused, what counts as the same pair, and what holds now."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.feedback.records import (
    FIELDS,
    checked_judgement,
    current_judgements,
    pair_key,
    swapped_judgement,
)

GOOD = {
    "annotator": "anna",
    "id": "q1",
    "contract": "C",
    "question": "Which law?",
    "answer_a": "Ohio",
    "answer_b": "Texas",
    "system_a": "sft",
    "system_b": "rag",
    "shown_first": "b",
    "verdict": "a",
}
text = st.text(st.characters(), max_size=20)  # lone surrogates included


def made(**fields) -> dict:
    return checked_judgement(GOOD | fields)


@pytest.mark.parametrize(
    "field",
    [
        {"verdict": "A"},
        {"verdict": "left"},
        {"verdict": ["a"]},
        {"shown_first": "left"},
        {"annotator": " \n"},
        {"annotator": "x" * 101},
        {"annotator": 7},
        {"id": " "},
        {"contract": ""},
        {"question": 1},
        {"answer_a": None},
        {"answer_a": "Texas"},
        {"edited": 3},
        {"span": [5, 5]},
        {"span": [-1, 4]},
        {"span": [1.0, 2.0]},
        {"span": [True, 2]},
        {"span": "12"},
        {"span": [1, 2, 3]},
        {"seconds": -1},
        {"seconds": float("nan")},
        {"seconds": "3"},
        {"seconds": True},
        {"prompt": "text"},
        {"prompt": []},
        {"prompt": [{"role": "user"}]},
        {"prompt": ["user"]},
        {"source": "guess"},
        {"uid": "1"},
        {"uid": 5},
        {"revokes": "last"},
        {"time": "yesterday"},
        {"time": "2026-05-04T09:30:00"},
        {"time": 12},
        {"time": "9999-12-31T00:00:00+00:00"},
        {"coment": "late"},
    ],
)
def test_a_wrong_field_is_named(field):
    with pytest.raises(InputError, match=next(iter(field)) if field != {"answer_a": "Texas"} else "Both answers"):
        made(**field)


@pytest.mark.parametrize("name", ["annotator", "id", "contract", "question", "answer_a", "answer_b", "verdict"])
def test_a_missing_field_is_named(name):
    with pytest.raises(InputError, match=f"no '{name}'"):
        checked_judgement({key: value for key, value in GOOD.items() if key != name})


def test_defaults_are_filled_and_time_is_utc():
    row = checked_judgement({key: GOOD[key] for key in GOOD if key not in ("system_a", "system_b", "shown_first")})
    assert list(row) == list(FIELDS)
    assert (row["system_a"], row["comment"], row["source"], row["shown_first"], row["edited"]) == (
        "",
        "",
        "widget",
        None,
        None,
    )
    assert len(row["uid"]) == 32 and row["time"].endswith("+00:00")
    assert made(time="2026-05-04T09:30:00+02:00")["time"] == "2026-05-04T07:30:00.000000+00:00"
    assert made(edited=" \n")["edited"] is None and made(annotator="  anna \t b ")["annotator"] == "anna b"


@given(st.fixed_dictionaries({"answer_a": text, "answer_b": text, "system_a": text, "system_b": text}))
def test_a_pair_is_the_same_with_its_answers_swapped(sides):
    row = GOOD | sides
    assert pair_key(row) == pair_key(swapped_judgement(row))
    assert swapped_judgement(swapped_judgement(row)) == row
    assert swapped_judgement(row)["verdict"] == "b" and swapped_judgement(row)["shown_first"] == "a"
    assert pair_key(row) != pair_key(row | {"id": "q2"})
    assert pair_key(row) != pair_key(row | {"answer_a": sides["answer_a"] + "x" * 21})


def test_a_key_survives_text_that_no_file_can_hold():
    odd = "half \ud83d and \0"
    row = made(answer_a=odd)
    row["answer_a"].encode()  # writable
    assert len(row["answer_a"]) == len(odd) and pair_key(row) == pair_key(GOOD | {"answer_a": odd})


@given(text, text)
def test_a_pair_is_the_same_whichever_systems_answered(system, other):
    assert pair_key(GOOD) == pair_key(GOOD | {"system_a": system, "system_b": other, "answer_a": " OHIO"})


def test_the_latest_verdict_of_each_annotator_holds():
    rows = [
        made(time=f"2026-01-0{day}T00:00:00Z", annotator=who, verdict=verdict)
        for day, who, verdict in ((2, "anna", "tie"), (3, "ben", "b"), (1, "anna", "a"))
    ]
    assert [(r["annotator"], r["verdict"]) for r in current_judgements(rows)] == [("anna", "tie"), ("ben", "b")]


def test_rows_of_one_pair_are_turned_the_same_way():
    rows = [
        made(verdict="a", edited="Ohio law"),
        swapped_judgement(made(annotator="ben", verdict="a")),
        swapped_judgement(made(annotator="eve", verdict="tie", shown_first="a")),
    ]
    assert [(r["verdict"], r["answer_a"], r["shown_first"]) for r in current_judgements(rows)] == [
        ("a", "Ohio", "b"),
        ("a", "Ohio", "b"),
        ("tie", "Ohio", "a"),
    ]


def test_an_undone_verdict_gives_way_to_the_one_before():
    first, second = made(time="2026-01-01T00:00:00Z"), made(time="2026-01-02T00:00:00Z", verdict="tie")
    undo = second | {"uid": "0" * 32, "time": "2026-01-03T00:00:00.000000+00:00", "revokes": second["uid"]}
    assert [r["uid"] for r in current_judgements([first, second, undo])] == [first["uid"]]
    assert current_judgements([second, undo]) == []


@given(
    st.lists(st.tuples(st.sampled_from("xyz"), st.booleans(), st.sampled_from(["a", "b", "tie", "skip"])), max_size=12)
)
def test_what_holds_holds_again_when_asked_twice(steps):
    rows = [made(annotator=who, verdict=verdict) for who, _, verdict in steps]
    rows = [swapped_judgement(row) if turn else row for row, (_, turn, _) in zip(rows, steps, strict=True)]
    once = current_judgements(rows)
    assert current_judgements(once) == once
    assert len(once) == len({who for who, _, _ in steps})
