"""Properties of paired differences: pairing, p-values, Holm's correction and the detectable difference."""

import math
from dataclasses import astuple
from functools import partial

import clustered
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.evaluation import compare
from cuadft.evaluation.bootstrap import studentise
from cuadft.evaluation.compare import DELTA_COLUMNS, comparisons, detectable_difference, holm

paired_delta = partial(compare.paired_delta, metric="f1")  # the frames here hold plain scores, without counts
paired_deltas = partial(compare.paired_deltas, metrics=("f1",))


def frame(values, contracts=None, *, ids=None, system="a", split="test", seed=0, **columns):
    contracts = contracts or [f"c{i}" for i in range(len(values))]
    ids = ids or [str(i) for i in range(len(values))]
    columns = {
        "system": system,
        "split": split,
        "seed": seed,
        "id": ids,
        "contract": contracts,
        "f1": values,
    } | columns
    return pd.DataFrame(columns)


def noisy(gain=0.0, system="b", seed=0, contracts=20):
    rng = np.random.default_rng(seed)
    names = [f"c{i:02d}" for i in np.repeat(np.arange(contracts), 5)]
    return frame(0.5 + gain + 0.1 * rng.standard_normal(len(names)), names, system=system)


PAIRS = {
    "no difference": lambda n: clustered.pair(n, 0, 0.1),
    "a difference": lambda n: clustered.pair(n, 0.1, 0.2),
    "a difference, contracts differ much": lambda n: clustered.pair(n, 0.2, 0.3),
    "micro averages of unequal counts": lambda n: clustered.micro_pair(n, 0.6, 0.2),
}


@pytest.mark.parametrize("contracts", [10, 20, 40, 100])
@pytest.mark.parametrize("case", PAIRS)
def test_interval_of_the_difference_covers_the_truth_as_often_as_it_says(case, contracts):
    tops, bottoms, truth = PAIRS[case](contracts)
    found = studentise(tops, bottoms, n_resamples=1000, seed=1)
    reach = found.critical(0.95) * found.std_error
    assert 0.93 <= clustered.covered(found.value - reach, found.value + reach, truth) <= 0.97
    if truth == 0:  # and so the test has its size
        assert 0.03 <= (found.p_values() <= 0.05).mean() <= 0.07


@pytest.mark.parametrize("contracts", [10, 20, 40])
def test_detectable_difference_is_found_about_four_times_in_five(contracts):
    tops, bottoms, _ = clustered.pair(contracts, 0, 0.2)
    null = studentise(tops, bottoms, n_resamples=1000, seed=1)
    true_error, critical = null.value.std(), float(np.median(null.critical(0.95)))
    effect = detectable_difference(true_error, contracts, critical) * bottoms[0]
    found = studentise(np.stack([tops[0] + effect, tops[1]]), bottoms, n_resamples=1000, seed=1)
    assert 0.74 <= (found.p_values() <= 0.05).mean() <= 0.84


def test_paired_difference_by_hand():
    a = frame([0.2, 0.4, 0.6], ["x", "x", "y"], ids=["1", "2", "3"])
    b = frame([0.9, 0.5, 0.4], ["y", "x", "x"], ids=["3", "2", "1"])  # another order
    found = paired_delta(a, b, seed=0)  # differences 0.2 and 0.1 in x, 0.3 in y: mean 0.2
    assert found.value == pytest.approx(0.2) and (found.n, found.n_clusters) == (3, 2)
    # residual sums -0.1 in x, 0.1 in y: standard error sqrt(2 / 1 * 0.02) / 3 = 0.0667, times t(0.975; 1) = 12.706
    assert found.std_error == pytest.approx(0.2 / 3) and found.critical == pytest.approx(12.706, abs=0.001)
    assert found.high == pytest.approx(1) and found.low == pytest.approx(0.2 - 12.706 * 0.2 / 3, abs=1e-3)
    assert found.p == pytest.approx(0.2048, abs=1e-3)  # 2 * P(t > 3) with 1 degree of freedom = 1 - 2 atan(3) / pi


def test_p_is_below_alpha_exactly_when_the_interval_leaves_zero_out():
    base, both = noisy(system="a", seed=1), set()
    for gain in np.linspace(0, 0.08, 15):
        found = paired_delta(base, noisy(gain), seed=2, n_resamples=199)
        assert (found.p <= 0.05) == (found.low > 0)
        both.add(found.low > 0)
    assert both == {True, False}


def test_swapping_the_systems_turns_the_sign_only():
    a, b = noisy(system="a", seed=1), noisy(0.03)
    one, other = paired_delta(a, b, seed=0), paired_delta(b, a, seed=0)
    assert (one.value, one.low, one.high) == pytest.approx((-other.value, -other.high, -other.low))
    assert one.p == other.p


def test_row_order_does_not_matter_and_a_seed_repeats():
    a, b = noisy(system="a", seed=1), noisy(0.03)
    mixed = paired_delta(a, b.sample(frac=1, random_state=3), seed=0)
    again = paired_delta(a.sample(frac=1, random_state=4), b, seed=0)
    assert astuple(again) == pytest.approx(astuple(mixed), rel=1e-9)
    assert paired_delta(a, b, seed=0) == paired_delta(a, b, seed=0)


def test_pairing_takes_the_shared_difficulty_out():
    hard = np.random.default_rng(0).random(100)
    found = paired_delta(frame(hard), frame(hard + 0.05), seed=0)
    assert found.low == pytest.approx(0.05) and found.high == pytest.approx(0.05) and found.p < 1e-9


@pytest.mark.parametrize(("contracts", "p"), [(2, 0.5), (5, 0.0625), (6, 0.03125)])
def test_the_same_gain_in_every_contract_counts_as_a_sign_test(contracts, p):
    found = paired_delta(frame([0.25] * contracts), frame([0.5] * contracts), seed=0)
    assert found.p == p and found.value == 0.25  # 2 * (1/2)^n
    assert (found.low, found.high) == (0.25, 0.25) if p <= 0.05 else math.isnan(found.low) and math.isnan(found.high)


def test_equal_answers_differ_by_nothing_and_show_nothing():
    found = paired_delta(frame([0.0, 0.5, 1.0]), frame([0.0, 0.5, 1.0]), seed=0)
    assert (found.value, found.low, found.high, found.p) == (0, 0, 0, 1)
    assert math.isnan(detectable_difference(found.std_error, found.n_clusters, found.critical))


def test_one_contract_gives_no_bounds_and_no_p():
    found = paired_delta(frame([0.0, 0.2], ["c", "c"]), frame([1.0, 0.3], ["c", "c"]), seed=0)
    assert found.value == pytest.approx(0.55)
    assert all(math.isnan(x) for x in (found.low, found.high, found.p, found.std_error))
    table = paired_deltas(pd.concat([frame([0.0], ["c"]), frame([1.0], ["c"], system="b")]), [("a", "b")], seed=0)
    assert table[["low", "high", "p", "p_holm", "detectable"]].isna().all(axis=None)


def test_bounds_of_scores_between_0_and_1_stay_between_their_extremes():
    a, b = frame([0.0, 1.0, 0.0]), frame([1.0, 0.0, 0.0])
    assert (paired_delta(a, b, seed=0).low, paired_delta(a, b, seed=0).high) == (-1, 1)
    times = [part.assign(seconds=part["f1"] * 9) for part in (a, b)]
    assert paired_delta(*times, metric="seconds", seed=0).high > 9


def test_different_rows_are_refused_unless_allowed_and_then_counted():
    a, b = frame([0.0, 0.0, 0.0]), frame([1.0, 1.0], ids=["0", "7"], contracts=["c0", "c7"])
    with pytest.raises(InputError, match="2 ids only in a, 1 only in b, 1 in both"):
        paired_delta(a, b, seed=0)
    assert paired_delta(a, b, seed=0, allow_partial=True).n == 1


def test_pairs_where_the_metric_does_not_apply_are_left_out():
    found = paired_delta(frame([0.0, math.nan, 0.5]), frame([0.5, 1.0, math.nan]), seed=0)
    assert (found.value, found.n) == (0.5, 1)


def test_no_pair_at_all_gives_no_difference():
    found = paired_delta(frame([math.nan]), frame([1.0]), seed=0)
    assert found.n == found.n_clusters == 0 and math.isnan(found.value) and math.isnan(found.p)


def test_repeated_ids_are_refused():
    with pytest.raises(InputError, match="more than once"):
        paired_delta(frame([0, 1], ids=["1", "1"]), frame([0, 1], ids=["1", "1"]), seed=0)


def test_seeds_are_averaged_before_pairing():
    base = frame([0.2, 0.4, 0.1], ["x", "y", "z"])
    seeds = [
        frame(v, ["x", "y", "z"], system="b", seed=i) for i, v in enumerate(([0.3, 0.5, 0.3], [0.5, 0.9, math.nan]))
    ]
    averaged = frame([0.4, 0.7, 0.3], ["x", "y", "z"], system="b")  # a seed without a value does not pull towards 0
    found, expected = (paired_delta(base, b, seed=0) for b in (pd.concat(seeds), averaged))
    assert astuple(found) == pytest.approx(astuple(expected)) and found.n == 3


def spans(tp, fp, **other):
    tp, fp = np.array(tp), np.array(fp)
    with np.errstate(invalid="ignore"):
        return frame(tp * 0.0, ["x", "y", "z"], answered=tp + fp, detection_precision=tp / (tp + fp), **other)


def test_metrics_of_counts_compare_the_ratios_of_the_sums():
    a, b = spans([1, 0, 0], [1, 0, 1]), spans([4, 1, 0], [0, 0, 3], system="b")
    found = paired_delta(
        a, b, metric="detection_precision", seed=0
    )  # 5 of 8 against 1 of 3, not the mean of the rows' shares
    assert found.value == pytest.approx(5 / 8 - 1 / 3) and found.n == 3  # y counts for b, though a gave no span
    # influences, (tp - ratio * count) / total of b less that of a: x (4 - 2.5) / 8 - (1 - 2/3) / 3, y 3/8 / 8 - 0,
    # z (0 - 15/8) / 8 - (0 - 1/3) / 3; the squares' sum times 3 / 2 is the variance
    x, y, z = 1.5 / 8 - 1 / 9, 3 / 64, -15 / 64 + 1 / 9
    assert found.std_error == pytest.approx(math.sqrt(1.5 * (x**2 + y**2 + z**2)))


def test_seeds_of_counts_are_averaged_as_counts():
    two = pd.concat([spans([4, 0, 0], [0, 0, 0], system="b"), spans([0, 0, 0], [0, 0, 2], system="b", seed=1)])
    found = paired_delta(spans([0, 1, 0], [0, 0, 0]), two, metric="detection_precision", seed=0)
    assert found.value == pytest.approx(4 / 6 - 1)  # over both seeds 4 of 6 spans


def test_detection_precision_compares_the_answers_of_each_system():
    a = frame([0] * 4, detection_precision=[1, 1, 0, math.nan], answered=[1, 1, 1, 0])
    b = frame([0] * 4, detection_precision=[1, math.nan, math.nan, 1], answered=[1, 0, 0, 1], system="b")
    found = paired_delta(a, b, metric="detection_precision", seed=0)  # 2 of 2 right, against 2 of 3
    assert found.value == pytest.approx(1 - 2 / 3) and found.n == 4


def three():
    test = [noisy(system="a", seed=1), noisy(0.03, "b", 2), noisy(0.08, "c", 3)]
    dev = noisy(0.5, "a", 4).assign(split="dev")
    return pd.concat([*test, dev]).assign(em=lambda f: f["f1"].round())


def test_table_has_a_row_per_pair_and_metric_like_the_single_differences():
    table = paired_deltas(three(), [("a", "b"), ("b", "c")], metrics=["f1", "em"], seed=5, n_resamples=99)
    assert list(table) == DELTA_COLUMNS and list(table["metric"]) == ["f1", "em"] * 2 and len(table) == 4
    parts = {name: part for name, part in three().query("split == 'test'").groupby("system")}
    one = paired_delta(parts["b"], parts["c"], seed=5, n_resamples=99)
    row = table.query("system == 'c' and metric == 'f1'").iloc[0]
    assert tuple(row[["value", "low", "high", "p"]]) == pytest.approx((one.value, one.low, one.high, one.p))
    assert row["detectable"] == pytest.approx(one.std_error * (one.critical + 0.861), rel=1e-3)  # t(0.8; 19) = 0.861
    with pytest.raises(InputError, match="'orpo'.*choose from a, b, c"):
        paired_deltas(three(), [("a", "orpo")], seed=0)
    assert list(paired_deltas(three(), [], seed=0)) == DELTA_COLUMNS


def test_family_is_all_pairs_of_one_metric_in_one_call():
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    table = paired_deltas(three(), pairs, metrics=["f1", "em"], seed=5)
    for _, rows in table.groupby("metric"):
        assert list(rows["p_holm"]) == pytest.approx(list(holm(rows["p"])))
    alone = paired_deltas(three(), pairs[:1], seed=5)
    assert (alone["p_holm"] == alone["p"]).all()


def test_holm_by_hand():
    # 0.01 * 4, then 0.02 * 3, then 0.03 * 2 = 0.06 (not below the one before), then 0.9 * 1
    assert list(holm([0.02, 0.9, 0.01, 0.03])) == pytest.approx([0.06, 0.9, 0.04, 0.06])
    assert holm([0.6, math.nan, 0.7]) == pytest.approx([1, math.nan, 1], nan_ok=True) and len(holm([])) == 0


@given(st.lists(st.floats(0, 1) | st.just(math.nan), max_size=9))
def test_holm_keeps_the_order_and_lies_between_p_and_bonferroni(p):
    p, adjusted = np.array(p, dtype=float), holm(p)
    assert (np.isnan(p) == np.isnan(adjusted)).all()
    p, adjusted = p[~np.isnan(p)], adjusted[~np.isnan(p)]
    assert (adjusted >= p - 1e-12).all() and (adjusted <= np.minimum(1, len(p) * p) + 1e-12).all()
    assert (np.diff(adjusted[np.argsort(p, kind="stable")]) >= 0).all()


def test_detectable_difference_by_hand():
    assert detectable_difference(0.1, 20, 2.093) == pytest.approx(0.1 * (2.093 + 0.861), abs=1e-3)  # t(0.8; 19)
    assert detectable_difference(0.1, 10**6, 1.96) == pytest.approx(0.28, abs=1e-3)  # 0.84, as the normal distribution
    assert detectable_difference(0.1, 20, 2.093, power=0.9) > detectable_difference(0.1, 20, 2.093)
    assert all(math.isnan(detectable_difference(*bad, 2.0)) for bad in ((0.0, 20), (math.nan, 20), (0.1, 1)))


def test_comparisons_pair_each_with_rag_and_aligned_ones_with_sft():
    assert comparisons(["rag", "rag_compiled", "sft", "dpo"]) == [
        ("rag", "rag_compiled"),
        ("rag", "sft"),
        ("rag", "dpo"),
        ("sft", "dpo"),
    ]
    assert comparisons(["rag", "incumbent", "retriever", "sft"]) == [
        ("rag", "incumbent"),
        ("rag", "retriever"),
        ("rag", "sft"),
    ]
    assert comparisons(["rag"]) == [] == comparisons([])


def test_comparisons_hold_trained_systems_against_the_best_passage_and_never_compare_constants():
    assert comparisons(["always_refuses", "top_passage", "rag", "sft"]) == [("rag", "sft"), ("top_passage", "sft")]
    assert comparisons(["always_refuses", "top_passage"]) == []
    assert comparisons(["top_passage", "sft", "dpo"]) == [
        ("sft", "dpo"),
        ("top_passage", "sft"),
        ("top_passage", "dpo"),
    ]


def test_rows_of_different_weight_are_paired_by_weight():
    same = {"ids": ["1", "2", "3"], "weight": [1.0, 1.0, 4.0]}
    a, b = frame([0.0, 0.0, 0.0], list("xyz"), **same), frame([1.0, 1.0, 0.5], list("xyz"), **same)
    assert paired_delta(a, b, seed=1).value == pytest.approx((1 + 1 + 4 * 0.5) / 6)
    assert comparisons(["sft", "dpo", "kto"]) == [("sft", "dpo"), ("sft", "kto")]  # each once: Holm counts them


def beyond(*systems):
    table, told = compare.beyond_controls(pd.concat(systems), ["dpo", "ppo", "best_of_5"], metric="f1")
    return table.set_index(["baseline", "system"]), told


def test_a_method_counts_only_if_it_is_better_than_sft_and_than_both_controls():
    sft, more = noisy(0, "sft"), noisy(0.01, "sft_more", 1)
    systems = [sft, more, noisy(0.02, "best_of_5", 2), noisy(0.3, "dpo", 3)]
    table, told = beyond(*systems, noisy(0.0, "ppo", 4))
    assert set(table.index) == {(base, s) for base in ("sft", "sft_more", "best_of_5") for s in ("dpo", "ppo")}
    assert told == "On unseen contracts dpo is better than SFT and the controls sft_more and best_of_5."
    for control in ("sft_more", "best_of_5"):  # as good as the method: more data, or more tries, do as much
        others = [s for s in systems if s["system"].iloc[0] != control]
        _, told = beyond(*others, noisy(0.3, control, 5), noisy(0.0, "ppo", 4))
        assert "no method" in told and "preferences add nothing" in told


def test_without_a_control_the_summary_says_that_a_gain_may_need_no_preferences():
    _, told = beyond(noisy(0, "sft"), noisy(0.3, "dpo", 3), noisy(0, "best_of_5", 1))
    assert told.startswith("On unseen contracts dpo is better") and "Without sft_more" in told
    assert beyond(noisy(0, "sft"), noisy(0, "best_of_5", 1))[1] == ""  # no method, nothing to say


def test_holms_correction_is_over_the_methods_for_each_baseline():
    parts = [noisy(0, "sft"), noisy(0, "sft_more", 1), noisy(0.02, "dpo", 3), noisy(0.01, "ppo", 4)]
    table, _ = beyond(*parts)
    for _, rows in table.groupby("baseline"):
        assert rows["p_holm"].tolist() == holm(rows["p"]).tolist()
