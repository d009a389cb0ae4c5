"""The logistic regression behind all probabilities: calibrated on data of known truth, and the same after reading."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.rag.calibration import LEAST_OF_KIND, LEAST_QUESTIONS, Calibration, enough, logit, threshold

OFFSETS = {"Audit": -1.5, "Cap": 0.0, "Law": 1.5}  # log-odds that a group adds


def drawn(n: int, seed: int) -> tuple[list[dict[str, float]], np.ndarray, list[str], np.ndarray]:
    """Return features, truth and groups of n questions whose probabilities are known, and these probabilities."""
    draw = np.random.default_rng(seed)
    x, noise, groups = draw.normal(3, 2, n), draw.normal(0, 9, n), draw.choice(sorted(OFFSETS), n)
    p = 1 / (1 + np.exp(-(1.2 * (x - 3) - 0.5 + np.array([OFFSETS[group] for group in groups]))))
    features = [{"x": float(value), "noise": float(other)} for value, other in zip(x, noise)]
    return features, draw.random(n) < p, list(map(str, groups)), p


@pytest.fixture(scope="module")
def fitted() -> Calibration:
    features, truth, groups, _ = drawn(3000, seed=1)
    return Calibration.fit(features, truth, groups=groups, slope="x")


def test_probabilities_are_those_of_the_data_on_questions_that_were_not_fitted(fitted):
    features, truth, groups, p = drawn(6000, seed=2)
    found = fitted.p(features, groups)
    assert found.mean() == pytest.approx(truth.mean(), abs=0.015)
    assert np.mean((found - truth) ** 2) == pytest.approx(np.mean((p - truth) ** 2), abs=0.003)
    for low in np.arange(0, 1, 0.2):
        own = (found >= low) & (found < low + 0.2)
        assert own.sum() > 100 and truth[own].mean() == pytest.approx(found[own].mean(), abs=0.06)


def test_on_the_fitted_questions_the_mean_probability_is_the_base_rate(fitted):
    features, truth, groups, _ = drawn(3000, seed=1)
    assert fitted.n == 3000 and fitted.p(features, groups).mean() == pytest.approx(truth.mean(), abs=1e-3)


def test_each_group_has_its_own_intercept_and_an_unknown_group_none(fitted):
    found = {group: fitted.p([{"x": 3.0, "noise": 0.0}], [group])[0] for group in (*OFFSETS, "Parties")}
    assert found["Audit"] + 0.2 < found["Cap"] < found["Law"] - 0.2
    assert found["Audit"] < found["Parties"] == fitted.p([{"x": 3.0, "noise": 0.0}])[0] < found["Law"]
    for group, offset in OFFSETS.items():
        assert logit(found[group]) == pytest.approx(offset - 0.5, abs=0.3)


def test_a_group_has_its_own_slope_of_one_feature():
    features, _, groups, _ = drawn(2000, seed=3)
    draw = np.random.default_rng(3)
    steep = {"Audit": 3.0, "Cap": 1.0, "Law": 0.0}
    truth = [draw.random() < 1 / (1 + math.exp(-steep[g] * (f["x"] - 3))) for f, g in zip(features, groups)]
    made = Calibration.fit(features, truth, groups=groups, slope="x")
    ends = {group: logit(made.p([{"x": 4.0}], [group])[0]) - logit(made.p([{"x": 2.0}], [group])[0]) for group in steep}
    assert ends["Audit"] > ends["Cap"] + 1 > ends["Law"] + 2


@given(st.floats(-50, 50))
def test_a_missing_feature_counts_as_its_mean(value):
    made = _incomplete()
    mean = dict(zip(made.names, made.mean))
    filled = [{"x": value, "noise": mean["noise"]}]
    for row in ({"x": value}, {"x": value, "noise": math.nan}, {"x": value, "noise": mean["noise"], "unknown": 9.0}):
        assert made.p([row]) == pytest.approx(made.p(filled), abs=1e-12)


def _incomplete(made: list[Calibration] = []) -> Calibration:  # noqa: B006
    """Return a calibration of rows of which every third lacks a feature, fitted once."""
    if not made:
        features, truth, _, _ = drawn(600, seed=4)
        features = [row if n % 3 else {"x": row["x"]} for n, row in enumerate(features)]
        made.append(Calibration.fit(features, truth))
        assert dict(zip(made[0].names, made[0].mean))["noise"] == pytest.approx(
            np.mean([row["noise"] for row in features if "noise" in row])
        )
    return made[0]


def test_a_calibration_read_from_json_gives_equal_probabilities(fitted):
    features, _, groups, _ = drawn(200, seed=5)
    features[0], groups[0] = {}, "Parties"
    back = Calibration.from_json(json.loads(json.dumps(fitted.as_json())))
    assert np.array_equal(back.p(features, groups), fitted.p(features, groups)) and back == fitted
    assert len(back.p([])) == 0


@pytest.mark.parametrize("kind, low, high", [(True, 0.95, 1.0), (False, 0.0, 0.05)])
def test_questions_of_one_kind_give_a_base_rate_short_of_certainty(kind, low, high):
    features, _, groups, _ = drawn(50, seed=6)
    found = Calibration.fit(features, [kind] * 50, groups=groups, slope="x").p(features, groups)
    assert low < found.min() == found.max() < high


@given(st.floats(0.01, 100), st.floats(0, 1))
def test_from_the_threshold_on_an_answer_costs_no_more_than_a_refusal(cost, p):
    answered, refused = cost * (1 - p), p  # expected costs, in those of a false refusal
    if abs(answered - refused) > 1e-9:
        assert (p >= threshold(cost)) == (answered < refused)


@pytest.mark.parametrize("cost", [0, -1.0, math.nan])
def test_a_cost_that_is_not_above_zero_is_refused(cost):
    with pytest.raises(InputError, match="false_answer_cost.*above 0"):
        threshold(cost)


@given(st.floats(0, 1))
def test_log_odds_are_finite_and_give_the_probability_back(p):
    assert 1 / (1 + math.exp(-logit(p))) == pytest.approx(min(max(p, 1e-4), 1 - 1e-4), rel=1e-9)


def test_few_questions_or_few_of_a_kind_calibrate_nothing():
    rest = LEAST_QUESTIONS - LEAST_OF_KIND
    assert enough([True] * LEAST_OF_KIND + [False] * rest) and enough([False] * LEAST_OF_KIND + [True] * rest)
    assert not enough([True] * LEAST_OF_KIND + [False] * (rest - 1))
    assert not enough([True] * (LEAST_OF_KIND - 1) + [False] * 99)
    assert not enough([False] * (LEAST_OF_KIND - 1) + [True] * 99) and not enough([])
