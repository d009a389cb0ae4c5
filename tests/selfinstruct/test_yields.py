"""Properties of the tables on the filter: they add up."""

import pytest

from cuadft.selfinstruct.filters import MIN_F1, MIN_SIMILARITY, REASONS, STEPS, outcomes, steps_table


def kept(name, **other):
    return {
        "id": f"{name}~s1",
        "contract": "T",
        "contract_type": "",
        "category": "Parties",
        "question": f"Q {name}?",
        "answers": [{"text": "x", "start": 0}],
        "is_impossible": False,
        "source": "synthetic",
    } | other


def lost(name, step, reason, **other):
    return {
        "seed": name,
        "kind": "rephrase",
        "category": "Parties",
        "question": f"R {name}?",
        "raw": "",
        "step": step,
        "reason": reason,
        "detail": f"why {name}",
    } | other


ACCEPTED = [kept("a"), kept("b", category="Audit Rights"), kept("t", source="template")]
REJECTED = [
    lost("a", "format", "format"),
    lost("b", "round trip", "unanswerable"),
    lost("c", "duplicate", "duplicate"),
    lost("d", "format", "format"),
    lost("e", "round trip", "generation_failed", kind="ask"),
]


def test_what_leaves_a_step_enters_the_next():
    records = steps_table(ACCEPTED, REJECTED).to_dict("records")
    assert [r["step"] for r in records] == list(STEPS)
    assert records[0]["in"] == 8 and records[-1]["out"] == len(ACCEPTED)
    assert all(r["in"] - r["rejected"] == r["out"] for r in records)
    assert all(one["out"] == other["in"] for one, other in zip(records, records[1:]))
    by_step = {r["step"]: r for r in records}
    assert by_step["format"]["share"] == pytest.approx(2 / 8) and by_step["round trip"]["rejected"] == 2
    assert str(MIN_SIMILARITY) in by_step["drift"]["threshold"] and str(MIN_F1) in by_step["round trip"]["threshold"]
    assert not any("{" in r["threshold"] for r in records)


def test_an_empty_filter_has_an_empty_table_and_no_division_by_zero():
    assert all(r["in"] == r["share"] == 0 for r in steps_table([], []).to_dict("records"))
    assert (outcomes([], []) == 0).all(axis=None) and list(outcomes([], []).columns) == ["accepted", *REASONS]


def test_every_candidate_is_counted_by_its_source_and_outcome():
    table = outcomes(ACCEPTED, REJECTED)
    assert list(table.index)[-2:] == ["template", "own"] and table.to_numpy().sum() == 8
    assert table.loc["synthetic, rephrased", ["accepted", "format", "unanswerable", "duplicate"]].tolist() == [
        2,
        2,
        1,
        1,
    ]
    assert table.loc["synthetic, new question", "generation_failed"] == table.loc["template", "accepted"] == 1
