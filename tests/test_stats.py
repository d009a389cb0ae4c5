"""Properties of the clustered bootstrap and of paired differences."""

import math
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuadft.errors import InputError
from cuadft.stats import cluster_bootstrap, paired_delta, paired_deltas


def frame(values, contracts=None, *, ids=None, system="a", split="test"):
    contracts = contracts or [f"c{i}" for i in range(len(values))]
    ids = ids or [str(i) for i in range(len(values))]
    return pd.DataFrame({"system": system, "split": split, "id": ids, "contract": contracts, "f1": values})


def test_interval_of_constant_values_is_the_value():
    found = cluster_bootstrap([0.4] * 6, list("aabbcc"), seed=0)
    assert (
        found.value == pytest.approx(0.4)
        and found.low == pytest.approx(0.4)
        and found.high == pytest.approx(0.4)
    )


def test_value_is_the_mean_over_rows_not_over_contracts():
    found = cluster_bootstrap([1, 1, 1, 0], list("aaab"), seed=0)  # 3/4, and not (1 + 0) / 2
    assert (found.value, found.n, found.n_clusters) == (0.75, 4, 2)


def test_two_clusters_give_the_three_possible_means():
    # draws of a and b: aa (1/4) -> 1, ab (1/2) -> 3/4, bb (1/4) -> 0; so the outer 2.5 % are 0 and 1
    found = cluster_bootstrap([1, 1, 1, 0], list("aaab"), n_resamples=4000, seed=0)
    assert (found.low, found.high) == (0, 1)
    inner = cluster_bootstrap([1, 1, 1, 0], list("aaab"), n_resamples=4000, seed=0, confidence=0.3)
    assert (inner.low, inner.high) == (0.75, 0.75)  # the middle 30 % of the draws are all ab


def test_one_cluster_gives_no_bounds():
    found = cluster_bootstrap([0.1, 0.9, 0.5], ["a"] * 3, seed=0)
    assert found.value == pytest.approx(0.5) and math.isnan(found.low) and math.isnan(found.high)


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_no_values_give_no_interval(values):
    found = cluster_bootstrap(values, ["a", "b"][: len(values)], seed=0)
    assert (found.n, found.n_clusters) == (0, 0) and all(
        math.isnan(v) for v in (found.value, found.low, found.high)
    )


def test_missing_values_are_left_out_with_their_contracts():
    found = cluster_bootstrap([1, math.nan, 0], list("abc"), seed=0)
    assert (found.value, found.n, found.n_clusters) == (0.5, 2, 2)


def test_clustered_rows_give_a_wider_interval_than_independent_ones():
    values = np.repeat([0.0, 1.0] * 10, 20)  # 20 contracts, all rows of a contract alike
    clustered = cluster_bootstrap(values, np.repeat(np.arange(20), 20).astype(str), seed=0)
    independent = cluster_bootstrap(values, np.arange(400).astype(str), seed=0)
    assert clustered.high - clustered.low > 3 * (independent.high - independent.low)  # theory: sqrt(20) = 4.5


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng, hits, names = np.random.default_rng(3), 0, np.repeat(np.arange(40), 5).astype(str)
    for _ in range(200):  # true mean 0; contract effects as large as the noise
        values = np.repeat(rng.normal(size=40), 5) + rng.normal(size=200)
        found = cluster_bootstrap(values, names, n_resamples=400, seed=1)
        hits += found.low <= 0 <= found.high
    assert 0.88 <= hits / 200 <= 0.99  # 0.95, less the bootstrap's shortfall, +- 3 binomial errors of 0.015


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abcd")), min_size=1, max_size=30))
def test_interval_stays_in_range_and_does_not_depend_on_row_order(pairs):
    values, clusters = zip(*pairs, strict=True)
    found = cluster_bootstrap(values, clusters, n_resamples=100, seed=5)
    again = cluster_bootstrap(values[::-1], clusters[::-1], n_resamples=100, seed=5)
    assert found.value == pytest.approx(again.value) and found.low == pytest.approx(again.low, nan_ok=True)
    if found.n_clusters > 1:
        assert -1e-9 <= found.low <= found.high <= 1 + 1e-9


def test_same_seed_same_interval_other_seed_another():
    rng = np.random.default_rng(0)
    values, names = rng.random(60), np.repeat(np.arange(12), 5).astype(str)
    assert cluster_bootstrap(values, names, seed=1) == cluster_bootstrap(values, names, seed=1)
    assert cluster_bootstrap(values, names, seed=1) != cluster_bootstrap(values, names, seed=2)


def test_ten_thousand_resamples_of_five_systems_take_under_two_seconds():
    values, names = np.random.default_rng(0).random(2000), np.repeat(np.arange(50), 40).astype(str)
    start = time.process_time()
    for seed in range(5):
        cluster_bootstrap(values, names, n_resamples=10_000, seed=seed)
    assert time.process_time() - start < 2


@pytest.mark.parametrize("bad", [{"n_resamples": 0}, {"confidence": 95}, {"confidence": 0}])
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(InputError, match=f"Invalid {next(iter(bad))}"):
        cluster_bootstrap([1, 2], ["a", "b"], seed=0, **bad)


def test_values_without_their_clusters_are_refused():
    with pytest.raises(InputError, match="2 values and 1 clusters"):
        cluster_bootstrap([1, 2], ["a"], seed=0)


def test_paired_difference_by_hand():
    a = frame([0.2, 0.4, 0.6], ["x", "x", "y"], ids=["1", "2", "3"])
    b = frame([0.9, 0.5, 0.4], ["y", "x", "x"], ids=["3", "2", "1"])  # another order
    found = paired_delta(a, b, seed=0)  # differences 0.2 and 0.1 in x, 0.3 in y: mean 0.2
    assert found.value == pytest.approx(0.2) and (found.n, found.n_clusters) == (3, 2)
    assert found.low == pytest.approx(0.15) and found.high == pytest.approx(
        0.3
    )  # x drawn twice, y drawn twice


def test_pairing_takes_the_shared_difficulty_out():
    hard = np.random.default_rng(0).random(100)
    found = paired_delta(frame(hard), frame(hard + 0.05), seed=0)
    assert found.low == pytest.approx(0.05) and found.high == pytest.approx(0.05)


def test_different_rows_are_refused_unless_allowed_and_then_counted():
    a, b = frame([0.0, 0.0, 0.0]), frame([1.0, 1.0], ids=["0", "7"], contracts=["c0", "c7"])
    with pytest.raises(InputError, match="2 ids only in a, 1 only in b, 1 in both"):
        paired_delta(a, b, seed=0)
    assert paired_delta(a, b, seed=0, allow_partial=True).n == 1


def test_pairs_where_the_metric_does_not_apply_are_left_out():
    found = paired_delta(frame([0.0, math.nan, 0.5]), frame([0.5, 1.0, math.nan]), seed=0)
    assert (found.value, found.n) == (0.5, 1)


def test_repeated_ids_and_moved_rows_are_refused():
    with pytest.raises(InputError, match="more than once"):
        paired_delta(frame([0, 1], ids=["1", "1"]), frame([0, 1], ids=["1", "1"]), seed=0)
    with pytest.raises(InputError, match="different contracts"):
        paired_delta(frame([0], ["x"]), frame([0], ["y"]), seed=0)
    with pytest.raises(InputError, match="no column 'em'"):
        paired_delta(frame([0]), frame([0]), metric="em", seed=0)


def test_table_of_deltas_has_a_row_per_pair_of_systems():
    both = pd.concat(
        [frame([0.1, 0.2]), frame([0.3, 0.4], system="b"), frame([1.0, 1.0], system="b", split="dev")]
    )
    table = paired_deltas(both, [("a", "b"), ("b", "a")], seed=0, n_resamples=50)
    assert list(table["value"]) == pytest.approx([0.2, -0.2]) and list(table["n_contracts"]) == [2, 2]
    with pytest.raises(InputError, match="'orpo'.*choose from a, b"):
        paired_deltas(both, [("a", "orpo")], seed=0)
