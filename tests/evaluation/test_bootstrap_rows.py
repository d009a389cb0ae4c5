"""Properties of the intervals over contracts, above all that they cover the truth as often as they say."""

import math

import clustered
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.evaluation.bootstrap import Interval, as_columns, cluster_bootstrap, ratio_intervals

SHARES = {
    "half right": lambda n: clustered.share(n, 0.5, 0.1),
    "half right, contracts differ much": lambda n: clustered.share(n, 0.5, 0.3),
    "four in five right": lambda n: clustered.share(n, 0.8, 0.1),
    "nine in ten right": lambda n: clustered.share(n, 0.9, 0.1),
    "one in ten right": lambda n: clustered.share(n, 0.1, 0.1),
    "F1, many 0 and 1": lambda n: clustered.f1(n, 0.4, 0.3, 0.2),
    "F1, mostly 0": lambda n: clustered.f1(n, 0.6, 0.1, 0.1),
    "micro average": lambda n: clustered.micro(n, 0.5, 0.2),
    "micro average, high": lambda n: clustered.micro(n, 0.8, 0.2),
}
SETTINGS = {"n_resamples": 1000, "seed": 1, "confidence": 0.95}


def coverage(simulated, share=True):
    top, bottom, truth = simulated
    found = ratio_intervals(top, bottom, bottom.sum(0), [share] * top.shape[1], **SETTINGS)
    return clustered.covered(found["low"].to_numpy(), found["high"].to_numpy(), truth)


@pytest.mark.parametrize("contracts", [10, 20, 40, 100])
@pytest.mark.parametrize("case", SHARES)
def test_interval_covers_the_truth_as_often_as_it_says(case, contracts):
    assert 0.93 <= coverage(SHARES[case](contracts)) <= 0.97


@pytest.mark.parametrize("contracts", [10, 20, 40])
def test_interval_of_times_covers_too(contracts):
    assert 0.93 <= coverage(clustered.seconds(contracts), share=False) <= 0.97


@pytest.mark.parametrize(
    ("simulated", "least", "most"),
    [
        (lambda: clustered.share(5, 0.8, 0.1), 0.94, 0.99),  # few contracts: wider than need be
        (lambda: clustered.f1(5, 0.4, 0.3, 0.2), 0.94, 0.99),
        (lambda: clustered.share(10, 0.9, 0.3), 0.90, 0.97),  # most errors in a few contracts
        (lambda: clustered.share(20, 0.97, 0.1), 0.91, 0.97),
        (lambda: clustered.share(10, 0.97, 0.1), 0.93, 0.99),  # with the contracts that hold no error at all
        (lambda: clustered.f1(10, 0.7, 0.1, 0.2), 0.92, 0.97),
    ],
)
def test_where_the_interval_is_less_exact_it_is_so_as_documented(simulated, least, most):
    assert least <= coverage(simulated()) <= most


@pytest.mark.parametrize(("contracts", "most"), [(10, 0.91), (20, 0.93)])
def test_plain_percentile_interval_would_cover_too_seldom(contracts, most):
    top, bottom, truth = clustered.share(contracts, 0.8, 0.1)
    counts = np.random.default_rng(1).multinomial(contracts, np.full(contracts, 1 / contracts), 1000)
    low, high = np.quantile((counts @ top) / (counts @ bottom), [0.025, 0.975], axis=0)
    assert clustered.covered(low, high, truth) < most


def test_resampling_single_rows_would_cover_far_too_seldom():
    rng = np.random.default_rng(0)
    rate = np.repeat(clustered.rates(rng, 20, 0.5, 0.2, sets=300), 20, axis=0)  # 20 contracts of 20 rows, 300 data sets
    rows = (rng.random((400, 300)) < rate).astype(float)
    assert coverage((rows, np.ones_like(rows), 0.5)) < 0.75  # theory: sd too small by sqrt(1 + 19 * 0.2) = 2.2
    whole = rows.reshape(20, 20, 300).sum(1)
    assert coverage((whole, np.full_like(whole, 20), 0.5)) > 0.92


def test_value_is_the_mean_over_rows_not_over_contracts():
    found = cluster_bootstrap([1, 1, 1, 0], list("aaab"), seed=0)  # 3/4, and not (1 + 0) / 2
    assert (found.value, found.n, found.n_clusters) == (0.75, 4, 2)


def test_weights_give_the_ratio_of_the_sums():
    found = cluster_bootstrap([1, 0.5, 0, 0.2], list("aabb"), weights=[2, 4, 2, 0], seed=0)
    assert found.value == (2 + 2) / 8 and (found.n, found.n_clusters) == (3, 2)  # a row without weight is no row


def test_two_contracts_tell_next_to_nothing():
    found = cluster_bootstrap([0.5, 0.7, 0.2], list("aab"), seed=0)
    assert found.low < 0.05 and found.high > 0.95  # t(0.975; 1 degree of freedom) = 12.7


def test_interval_by_hand():
    # contract means 1, 2, 3, 4, 5 of one row each: mean 3, standard error sqrt(2.5 / 5) = 0.7071, and the
    # critical value of five contracts is at least t(0.975; 4) = 2.776
    found = cluster_bootstrap([1, 2, 3, 4, 5], list("abcde"), seed=0)
    assert found.value == 3 and found.high - 3 == pytest.approx(3 - found.low) and found.high - 3 > 2.776 * 0.7071
    # the same as shares 0.1 to 0.5: on the logit scale symmetric, on the plain one longer towards 1/2
    found = cluster_bootstrap([0.1, 0.2, 0.3, 0.4, 0.5], list("abcde"), seed=0)
    up, down = (math.log(x / (1 - x)) - math.log(0.3 / 0.7) for x in (found.high, found.low))
    assert up == pytest.approx(-down) and found.high - 0.3 > 0.3 - found.low > 0


def test_interval_of_constant_values_is_the_value():
    assert (found := cluster_bootstrap([0.4] * 6, list("aabbcc"), seed=0)).low == found.high == pytest.approx(0.4)


@pytest.mark.parametrize("contracts", [3, 20])
def test_a_share_without_a_single_error_still_has_an_uncertain_side(contracts):
    names = np.repeat(np.arange(contracts), 4)
    most = 1 - 0.05 ** (1 / contracts)  # a rate at which `contracts` draws show no event 1 time in 20: 0.139 with 20
    none, every = (cluster_bootstrap([x] * len(names), names, seed=0) for x in (0, 1))
    assert (none.low, none.high) == (0, pytest.approx(most)) and (every.low, every.high) == (
        pytest.approx(1 - most),
        1,
    )


def test_one_cluster_gives_no_bounds():
    found = cluster_bootstrap([0.1, 0.9, 0.5], ["a"] * 3, seed=0)
    assert found.value == pytest.approx(0.5) and math.isnan(found.low) and math.isnan(found.high)
    assert math.isnan(cluster_bootstrap([1.0, 1.0], ["a"] * 2, seed=0).low)


@pytest.mark.parametrize("values", [[], [math.nan, math.nan]])
def test_no_values_give_no_interval(values):
    found = cluster_bootstrap(values, ["a", "b"][: len(values)], seed=0)
    assert (found.n, found.n_clusters) == (0, 0)
    assert all(math.isnan(v) for v in (found.value, found.low, found.high))


def test_missing_values_are_left_out_with_their_contracts():
    found = cluster_bootstrap([1, math.nan, 0], list("abc"), seed=0)
    assert (found.value, found.n, found.n_clusters) == (0.5, 2, 2)


def test_clustered_rows_give_a_wider_interval_than_independent_ones():
    values = np.repeat([0.0, 1.0] * 10, 20)  # 20 contracts, all rows of a contract alike
    clustered_rows = cluster_bootstrap(values, np.repeat(np.arange(20), 20), seed=0)
    independent = cluster_bootstrap(values, np.arange(400), seed=0)
    assert clustered_rows.high - clustered_rows.low > 3 * (independent.high - independent.low)  # theory: sqrt(20) = 4.5


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("abcd"), st.floats(0, 9)), min_size=1, max_size=30))
def test_interval_of_shares_stays_in_range_and_does_not_depend_on_row_order(rows):
    values, clusters, weights = zip(*rows, strict=True)
    found = cluster_bootstrap(values, clusters, weights=weights, n_resamples=99, seed=5)
    again = cluster_bootstrap(values[::-1], clusters[::-1], weights=weights[::-1], n_resamples=99, seed=5)
    assert found.value == pytest.approx(again.value, nan_ok=True)
    assert found.low == pytest.approx(again.low, nan_ok=True, abs=1e-6)
    if found.n_clusters > 1 and not math.isnan(found.low):
        assert -1e-9 <= found.low <= found.value + 1e-9 and found.value - 1e-9 <= found.high <= 1 + 1e-9


def test_same_seed_same_interval_other_seed_another():
    rng = np.random.default_rng(0)
    values, names = rng.random(60) ** 4, np.repeat(np.arange(12), 5)
    assert cluster_bootstrap(values, names, seed=1) == cluster_bootstrap(values, names, seed=1)
    assert cluster_bootstrap(values, names, seed=1) != cluster_bootstrap(values, names, seed=2)


def test_higher_confidence_is_wider():
    values, names = np.random.default_rng(0).random(60), np.repeat(np.arange(12), 5)
    widths = [
        (i := cluster_bootstrap(values, names, seed=1, confidence=c)).high - i.low for c in (0.5, 0.8, 0.95, 0.99)
    ]
    assert widths == sorted(widths) and widths[0] < widths[-1] / 2


@pytest.mark.parametrize(
    "bad", [{"n_resamples": 0}, {"n_resamples": 18}, {"confidence": 95}, {"confidence": 0}, {"confidence": math.nan}]
)
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(InputError, match=f"Invalid {next(iter(bad))}"):
        cluster_bootstrap([1, 2], ["a", "b"], seed=0, **bad)


def test_too_few_resamples_for_the_confidence_are_refused_with_the_number_needed():
    with pytest.raises(InputError, match="needs 999 or more"):
        cluster_bootstrap([1, 2], ["a", "b"], seed=0, n_resamples=100, confidence=0.999)


def test_a_row_without_a_contract_is_refused():
    with pytest.raises(InputError, match="Row 2 has no contract"):
        cluster_bootstrap([1, 2], ["a", None], seed=0)


def test_an_interval_reads_as_columns():
    interval = Interval(0.5, 0.25, 0.75, 8, 4)
    assert as_columns(interval) == {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8, "n_contracts": 4}
