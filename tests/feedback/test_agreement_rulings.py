"""Properties of the rulings: whose judgement counts, what the majority is, and which correction goes with it."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from judged import judgement

from cuadft.core.errors import InputError
from cuadft.feedback.agreement import pair_rulings
from cuadft.feedback.records import VERDICTS, swapped_judgement


def verdict_of(*verdicts: str) -> tuple:
    """Return the verdict, votes and voters of one pair, each verdict by another annotator."""
    (ruling,), _ = pair_rulings([judgement(f"annotator {n}", v) for n, v in enumerate(verdicts)])
    return ruling.verdict, len(ruling.agreed), len(ruling.judged)


@pytest.mark.parametrize(
    "verdicts, expected",
    [
        (["a"], ("a", 1, 1)),
        (["a", "a", "b"], ("a", 2, 3)),
        (["b", "tie", "b", "skip"], ("b", 2, 3)),  # who skips has no vote
        (["a", "b"], (None, 0, 2)),
        (["a", "a", "b", "tie"], (None, 0, 4)),  # half is no majority
        (["tie"], ("tie", 1, 1)),
        (["both_wrong", "both_wrong", "a"], ("both_wrong", 2, 3)),
    ],
)
def test_more_than_half_of_those_who_did_not_skip_decide(verdicts, expected):
    assert all(verdict_of(*order) == expected for order in permutations(verdicts))


@given(st.lists(st.tuples(st.sampled_from(VERDICTS), st.booleans()), min_size=1, max_size=7))
def test_left_and_right_do_not_matter(votes):
    rows = [judgement(f"annotator {n}", verdict, system_a=f"system {n}") for n, (verdict, _) in enumerate(votes)]
    turned = [swapped_judgement(row | {"shown_first": None}) if turn else row for row, (_, turn) in zip(rows, votes)]

    def said(ruling):
        return {"a": ruling.answers[0], "b": ruling.answers[1]}.get(ruling.verdict, ruling.verdict)

    (plain, counts), (mixed, others) = pair_rulings(rows), pair_rulings(turned)
    assert [said(r) for r in plain] == [said(r) for r in mixed] and counts == others
    assert [(len(r.judged), r.who) for r in plain] == [(len(r.judged), r.who) for r in mixed]


def test_contradictions_and_skips_are_counted():
    rulings, counts = pair_rulings(
        [
            judgement("anna", "a"),
            judgement("ben", "b"),
            judgement("cleo", "skip"),
            judgement("anna", "skip", "one", "two"),
        ]
    )
    assert len(rulings) == 1 and counts == {
        "human: annotators contradict each other": 1,
        "human: skipped": 2,
    }


def test_the_latest_judgement_of_an_annotator_counts_whichever_systems_answered():
    rows = [
        judgement("anna", "a", second=5),
        judgement("anna", "b", second=3),
        judgement("anna", "a", "right", "left", second=9, system_a="dpo", system_b="orpo"),
    ]
    for order in permutations(rows):
        (ruling,), _ = pair_rulings(order)
        winner = ruling.answers[0 if ruling.verdict == "a" else 1]
        assert (winner, len(ruling.agreed), len(ruling.judged)) == ("right", 1, 1)


def test_a_revoked_judgement_has_no_vote():
    first = judgement("anna", "b", second=1, uid="1" * 32)
    rows = [first, judgement("anna", "a", second=2, uid="2" * 32), judgement("anna", "a", second=3, revokes="2" * 32)]
    (ruling,), _ = pair_rulings(rows)
    assert ruling.verdict == "b"
    assert pair_rulings([rows[1], rows[2]])[0] == []


def test_a_correction_goes_with_the_majority():
    rows = [
        judgement("anna", "b", edited="loser's edit"),
        judgement("ben", "a", span=[3, 9], second=1),
        judgement("cleo", "a", edited="fixed", second=2),
        judgement("dora", "a", second=3),
    ]
    (ruling,), _ = pair_rulings(rows)
    assert (ruling.latest("edited")["edited"], ruling.latest("edited")["annotator"]) == ("fixed", "cleo")
    (ruling,), _ = pair_rulings(rows[:2] + rows[3:])
    assert ruling.latest("edited") is None and ruling.who == "annotators ben, dora"
    assert (ruling.latest("span")["span"], ruling.latest("span")["annotator"]) == ([3, 9], "ben")
    (ruling,), _ = pair_rulings([rows[0], rows[1]])
    assert (ruling.verdict, ruling.latest("edited"), ruling.latest("span")) == (None, None, None)


@pytest.mark.parametrize(
    "given, message", [({"verdict": "c"}, "verdict 'c'"), ({"id": None}, "'id'"), ({"span": [4, 2]}, "span")]
)
def test_what_is_no_judgement_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        pair_rulings([judgement("anna", "a"), judgement("ben", "b") | given])
