"""Properties of the bootstrap engine: its t against one written out row by row, its draws, its p-values."""

import clustered
import numpy as np
import pytest

from cuadft.evaluation import bootstrap
from cuadft.evaluation.bootstrap import studentise


def columns(seed=0, contracts=12, k=3):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 30, (1, contracts, k)).astype(float)
    return sizes * rng.random((1, contracts, k)), sizes


def test_standard_error_of_equal_contracts_is_that_of_the_mean_of_their_means():
    means = np.array([0.2, 0.4, 0.9, 0.5])
    found = studentise(5 * means[None, :, None], np.full((1, 4, 1), 5.0), n_resamples=50, seed=0)
    assert found.value[0] == pytest.approx(0.5)
    assert found.std_error[0] == pytest.approx(np.std(means, ddof=1) / 2)  # sd / sqrt(4)


@pytest.mark.parametrize("share", [False, True])
def test_t_is_the_one_that_a_plain_loop_over_drawn_rows_finds(share):
    rng = np.random.default_rng(1)
    rows = [(rng.random(n) < 0.7).astype(float) for n in (3, 9, 14, 5, 20, 8, 11)]
    top, bottom = np.array([r.sum() for r in rows]), np.array([float(len(r)) for r in rows])
    mean, draws = top.sum() / bottom.sum(), []
    for _ in range(20_000):
        drawn = [rows[i] for i in rng.integers(0, 7, 7)]
        value = np.concatenate(drawn).mean()
        rest = np.array([(r - value).sum() for r in drawn])
        error = np.sqrt(7 / 6 * (rest**2).sum()) / sum(map(len, drawn))
        scale = value * (1 - value) if share else 1  # d logit(x) / dx = 1 / (x (1 - x))
        apart = np.log(value / (1 - value)) - np.log(mean / (1 - mean)) if share else value - mean
        draws.append(abs(apart) * scale / error)
    found = studentise(top[None, :, None], bottom[None, :, None], shares=[share], n_resamples=20_000, seed=2)
    for level in (0.5, 0.8, 0.95):  # agreement within the Monte Carlo error of 20,000 draws
        assert np.nanquantile(found.t, level) == pytest.approx(np.quantile(draws, level), rel=0.05)


def test_difference_of_two_ratios_over_the_same_rows_is_the_ratio_of_the_differences():
    top, bottom = columns()
    other, _ = columns(seed=1)
    two = studentise(np.concatenate([top, other]), np.concatenate([bottom, bottom]), n_resamples=300, seed=3)
    one = studentise(top - other, bottom, n_resamples=300, seed=3)
    assert two.value == pytest.approx(one.value) and two.std_error == pytest.approx(one.std_error)
    assert two.t == pytest.approx(one.t)


def test_a_column_does_not_depend_on_its_neighbours_or_on_the_size_of_a_block(monkeypatch):
    top, bottom = columns()
    together = studentise(top, bottom, n_resamples=500, seed=3)
    monkeypatch.setattr(bootstrap, "BLOCK", 40)  # three resamples of twelve contracts
    alone = studentise(top[:, :, 1:2], bottom[:, :, 1:2], n_resamples=500, seed=3)
    assert alone.t[:, 0] == pytest.approx(together.t[:, 1])
    assert not np.allclose(studentise(top, bottom, n_resamples=500, seed=4).t, together.t)


def test_contracts_in_which_a_column_has_no_weight_are_no_draws_of_it():
    top, bottom = columns(k=1)
    wider = [np.concatenate([part, np.zeros((1, 5, 1))], axis=1) for part in (top, bottom)]
    with_others = [np.concatenate([part, np.ones((1, 17, 1))], axis=2) for part in wider]
    alone, beside = (studentise(*parts, n_resamples=200, seed=0) for parts in ((top, bottom), with_others))
    assert list(beside.n_clusters) == [12, 17]
    assert beside.t[:, 0] == pytest.approx(alone.t[:, 0])


def test_critical_value_is_never_below_students_t():
    top, bottom = columns(k=50, contracts=5)
    found = studentise(top, bottom, n_resamples=400, seed=0)
    assert (found.critical(0.95) >= 2.776).all()  # t(0.975; 4 degrees of freedom) = 2.7764
    assert (found.critical(0.95) > 2.777).any()


def test_p_is_at_most_alpha_exactly_where_the_interval_leaves_zero_out():
    rng = np.random.default_rng(5)
    top = rng.normal(rng.normal(0, 0.8, 3000), 1, (1, 9, 3000))  # 3,000 columns, some with an effect
    found = studentise(top, np.ones_like(top), n_resamples=199, seed=0)
    p = found.p_values()
    for confidence in (0.5, 0.8, 0.95, 0.99):
        outside = np.abs(found.value) > found.critical(confidence) * found.std_error
        assert (outside == (p <= 1 - confidence + 1e-12)).all() and outside.any() and not outside.all()
    assert p.min() >= 1 / 200


@pytest.mark.parametrize("contracts", [0, 1])
def test_without_two_contracts_there_is_no_standard_error(contracts):
    top, bottom = np.zeros((1, 3, 1)), np.zeros((1, 3, 1))
    bottom[0, :contracts] = top[0, :contracts] = 1
    found = studentise(top, bottom, n_resamples=50, seed=0)
    assert np.isnan([found.std_error[0], found.critical(0.95)[0], found.p_values()[0]]).all()
    assert found.n_clusters[0] == contracts and np.isnan(found.value[0]) == (contracts == 0)


def test_rounding_errors_are_no_spread():
    sizes = np.arange(1.0, 13)[None, :, None]
    found = studentise(np.concatenate([sizes * 0.7, sizes * 0.6]), np.concatenate([sizes] * 2), n_resamples=99, seed=0)
    assert found.std_error[0] == 0 and np.isnan(found.t).all()
    rough = np.random.default_rng(0).random((1, 12, 1)) * sizes  # b is 0.1 better than a in every contract
    found = studentise(
        np.concatenate([rough + 0.1 * sizes, rough]), np.concatenate([sizes] * 2), n_resamples=99, seed=0
    )
    assert found.value[0] == pytest.approx(0.1) and found.std_error[0] == 0


@pytest.mark.parametrize(("difference", "least", "most"), [(0, 0.97, 1), (0.5, 0.88, 0.94)])
def test_where_few_rows_differ_the_interval_is_less_exact_as_documented(difference, least, most):
    rng = np.random.default_rng(3)
    apart = rng.binomial(8, clustered.rates(rng, 20, 0.04, 0.1))  # 6 of 160 rows
    better = rng.binomial(apart, clustered.rates(rng, 20, 0.5 + difference / 2, 0.1))
    tops, bottoms = np.stack([better, apart - better]), np.full((2, 20, clustered.SETS), 8)
    found = studentise(tops, bottoms, n_resamples=1000, seed=1)
    reach = found.critical(0.95) * found.std_error
    assert least <= clustered.covered(found.value - reach, found.value + reach, difference * 0.04) <= most
