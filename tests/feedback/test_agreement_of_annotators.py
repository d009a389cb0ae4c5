"""Properties of annotator agreement: hand-computed coefficients, reasons where there is none, and who differs where."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuadft.feedback.agreement import annotator_agreement, annotator_disagreements
from cuadft.feedback.records import checked_judgement, pair_key, swapped_judgement


def row(annotator: str, number: int, verdict: str, contract: str = "C", **fields) -> dict:
    return checked_judgement(
        {
            "annotator": annotator,
            "id": f"q{number}",
            "contract": contract,
            "question": "Which law?",
            "answer_a": "Ohio",
            "answer_b": "Texas",
            "verdict": verdict,
        }
        | fields
    )


def rows(**verdicts: str) -> list[dict]:
    """Return judgements from one letter per pair: a, b, t(ie), w(rong), s(kip), - for none."""
    names = {"a": "a", "b": "b", "t": "tie", "w": "both_wrong", "s": "skip"}
    return [
        row(who, n, names[letter], contract=f"C{n % 4}")
        for who, letters in verdicts.items()
        for n, letter in enumerate(letters)
        if letter != "-"
    ]


def test_two_annotators_get_cohens_kappa():
    # 20 pairs: both a 8, both b 6, anna a and ben b 4, anna b and ben a 2. Observed (8 + 6) / 20 = 0.70; by chance
    # 12/20 * 10/20 + 8/20 * 10/20 = 0.50; kappa (0.70 - 0.50) / (1 - 0.50) = 0.40.
    found = annotator_agreement(
        rows(anna="a" * 8 + "b" * 6 + "a" * 4 + "b" * 2, ben="a" * 8 + "b" * 6 + "b" * 4 + "a" * 2)
    )
    assert (found.measure, found.n, found.n_contracts, found.annotators) == ("Cohen's kappa", 20, 4, ("anna", "ben"))
    assert found.value == pytest.approx(0.40) and found.same == pytest.approx(0.70)
    assert found.reason == ""
    bounds = f"[{found.low:.2f}, {found.high:.2f}]"
    assert str(found) == f"The same verdict in 70% of 20 pairs (anna, ben); Cohen's kappa 0.40 {bounds}."


def test_the_interval_resamples_contracts():
    made = rows(anna="abab" * 12, ben="abaa" * 8 + "bbab" * 4)
    found = annotator_agreement(made, n_resamples=200, seed=1)
    assert found.low < found.value < found.high
    assert found == annotator_agreement(made, n_resamples=200, seed=1)
    one = annotator_agreement([r | {"contract": "C"} for r in made], n_resamples=200, seed=1)
    assert math.isnan(one.low) and math.isnan(one.high)  # one contract says nothing about others
    assert str(one) == f"The same verdict in {one.same:.0%} of 48 pairs (anna, ben); Cohen's kappa {one.value:.2f}."


def test_the_interval_of_three_annotators_covers_their_alpha():
    found = annotator_agreement(rows(anna="aabbaabb", ben="aabbabab", eve="abbbaaba"), n_resamples=50)
    assert found.measure == "Krippendorff's alpha" and found.low < found.value < found.high


def test_three_annotators_get_krippendorffs_alpha():
    # Coincidences (each ordered two of a pair's m verdicts counts 1 / (m - 1)):
    # pair 0 aaa: aa 3. pair 1 aab: aa 1, ab 1, ba 1. pair 2 bb: bb 2. pair 3 bbb: bb 3. pair 4 has one verdict: none.
    # n = 11, n_a = 5, n_b = 6; observed disagreement 2 / 11, expected 2 * 5 * 6 / (11 * 10) = 6 / 11.
    # alpha = 1 - 2 / 6 = 2/3; of 3 + 3 + 1 + 3 twos, 3 + 1 + 1 + 3 agree.
    found = annotator_agreement(rows(anna="aabba", ben="aabb-", eve="ab-b-"))
    assert found.measure == "Krippendorff's alpha" and found.n == 4
    assert found.value == pytest.approx(2 / 3) and found.same == pytest.approx(8 / 10)


def test_alpha_with_missing_verdicts_is_the_published_one():
    # Krippendorff's example of 3 coders, 15 units and 26 values that can be paired, nominal: alpha 0.691.
    table = {"A": "-----34121133-3", "B": "1-213343-------", "C": "--21344-2113 3-4".replace(" ", "")}
    found = annotator_agreement(
        rows(**{who: line.translate(str.maketrans("1234", "abtw")) for who, line in table.items()})
    )
    assert found.value == pytest.approx(0.691358, abs=1e-6) and found.n == 12


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.sampled_from("abtws-")] * 3), min_size=1, max_size=12), st.randoms(use_true_random=False)
)
def test_order_names_and_sides_do_not_matter(table, chance):
    made = rows(
        **dict(zip(("anna", "ben", "eve"), ("".join(column) for column in zip(*table, strict=True)), strict=True))
    )
    found = annotator_agreement(made, n_resamples=0)
    renamed = [r | {"annotator": {"anna": "x", "ben": "y", "eve": "z"}[r["annotator"]]} for r in made]
    mixed = annotator_agreement(
        chance.sample([swapped_judgement(r) if chance.random() < 0.5 else r for r in renamed], len(made)),
        n_resamples=0,
    )
    assert (mixed.n, mixed.measure) == (found.n, found.measure)
    assert (mixed.same, mixed.value) == pytest.approx((found.same, found.value), nan_ok=True)
    assert math.isnan(found.value) == (found.reason != "")
    assert str(found) and "nan" not in str(found)


@pytest.mark.parametrize(
    "made, words",
    [
        ({}, "No pair has verdicts of two annotators yet."),
        ({"anna": "abt"}, "No pair has verdicts of two annotators yet."),
        ({"anna": "sss"}, "No pair has verdicts of two annotators yet."),
        ({"anna": "ab--", "ben": "--ab"}, "No pair has verdicts of two annotators yet."),
        ({"anna": "aa", "ben": "aa"}, "All verdicts are the same, so that agreement beyond chance is undefined."),
        (
            {"anna": "tt", "ben": "tt", "eve": "tt"},
            "All verdicts are the same, so that agreement beyond chance is undefined.",
        ),
    ],
)
def test_where_there_is_no_coefficient_the_reason_is_given(made, words):
    found = annotator_agreement(rows(**made))
    assert math.isnan(found.value) and math.isnan(found.low) and found.reason == words
    assert words in str(found)


def test_a_skip_and_an_undo_are_no_verdict():
    made = rows(anna="aabs", ben="aaba")
    undone = made[0] | {"uid": "0" * 32, "revokes": made[0]["uid"]}
    assert annotator_agreement([*made, undone]).n == 2


def test_an_annotator_without_common_pairs_is_left_aside():
    found = annotator_agreement(rows(anna="ab-", ben="ab-", eve="--a"))
    assert found.measure == "Cohen's kappa" and found.annotators == ("anna", "ben") and found.value == pytest.approx(1)


def test_where_annotators_disagree_is_listed():
    made = rows(anna="aabs", ben="abbb", eve="-tb-")
    made[1] = swapped_judgement(made[1])  # said with the answers the other way round
    table = annotator_disagreements(made)
    assert list(table["id"]) == ["q1"] and table["pair"][0] == pair_key(made[1])
    assert sorted(table.filter(like="verdict: ").iloc[0]) in (["a", "b", "tie"],)
    assert list(annotator_disagreements([])["pair"]) == []
    assert annotator_disagreements(rows(anna="a", ben="b", eve="-")).columns[-1] == "verdict: ben"


def test_a_judgement_without_systems_is_on_the_same_pair():
    named = row("anna", 0, "a", system_a="sft", system_b="rag")  # "a" is then the answer of rag
    (found,) = annotator_disagreements([named, row("ben", 0, "b")]).to_dict("records")
    assert (found["system_a"], found["answer_a"]) == ("rag", "Texas")
    assert (found["verdict: anna"], found["verdict: ben"]) == ("b", "a")


def test_an_annotator_may_bear_a_columns_name():
    table = annotator_disagreements(rows(id="a", question="b"))
    assert (table["id"][0], table["verdict: id"][0], table["verdict: question"][0]) == ("q0", "a", "b")
