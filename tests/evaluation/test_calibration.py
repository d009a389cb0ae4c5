"""Properties of the table of a judge's agreement and of its statistics (against scipy and scikit-learn)."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from cuadft.core.errors import InputError
from cuadft.evaluation import calibration

QUICK = {"n_resamples": 50}


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def frame(judge, human, systems=None, answers=None, **other):
    n = len(judge)
    columns = {
        "system": systems or ["a"] * n,
        "question": [f"q{i % 4}" for i in range(n)],
        "reference": ["r"] * n,
        "answer": answers or ["x" * (i + 1) for i in range(n)],
        "judge_score": judge,
        "human_score": human,
    }
    return pd.DataFrame(columns | other)


def small():
    # a: judge 1, .5, verdicts 1, 1; b: judge .5, 0, verdicts 0, .25
    return frame([1.0, 0.5, 0.5, 0.0], [1, 1, 0, 0.25], ["a", "a", "b", "b"])


def agreement(data, **settings):
    """Return the table by system."""
    return calibration.judge_agreement(data, **(QUICK | settings)).set_index("system")


def overall(data, **settings):
    return agreement(data, **settings).loc[calibration.ALL]


def test_hand_computed_table():
    table = agreement(small())
    assert list(table["n"]) == [4, 2, 2] and list(table["left_out"]) == [0, 0, 0]
    found = table.loc[calibration.ALL]
    # ranks of the judge 4, 2.5, 2.5, 1 and of the verdicts 3.5, 3.5, 1, 2: deviations (1.5, 0, 0, -1.5) and
    # (1, 1, -1.5, -.5): 2.25 / sqrt(4.5 * 4.5) = .5
    assert found["spearman"] == pytest.approx(0.5)
    # at .5 the judge says yes, yes, yes, no and the verdicts yes, yes, no, no: agreement 3/4, by chance
    # 3/4 * 1/2 + 1/4 * 1/2 = 1/2, kappa (3/4 - 1/2) / (1 - 1/2) = 1/2
    assert found["kappa"] == pytest.approx(0.5) and found["agreement"] == 0.75
    assert (table.loc["a", "error"], table.loc["b", "error"]) == (-0.25, 0.125)
    assert found["error"] == pytest.approx(-0.0625) and found["absolute_error"] == pytest.approx(0.3125)


PAIR = st.tuples(st.sampled_from([0, 0.2, 0.5, 1]), st.sampled_from([0, 0.5, 0.7, 1]))
NUMBERS = st.lists(PAIR, min_size=2, max_size=30)


@given(NUMBERS)
@settings(deadline=None, max_examples=40)
def test_correlations_and_kappa_are_those_of_scipy_and_scikit_learn_and_stay_in_their_ranges(pairs):
    a, b = np.array(pairs, dtype=float).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, on constant columns
        theirs = {
            "spearman": spearmanr(a, b).statistic,
            "kappa": cohen_kappa_score(a >= 0.5, b >= 0.5, labels=[False, True]),
        }
    found = overall(frame(list(a), list(b), [f"s{i % 3}" for i in range(len(a))]), n_resamples=20)
    for name, value in theirs.items():
        assert found[name] == pytest.approx(value, nan_ok=True)
    assert all(math.isnan(found[name]) or -1 <= found[name] <= 1 for name in calibration.MEASURES)


def test_a_judge_that_equals_the_verdicts_agrees_in_everything():
    values = [0, 0.25, 0.5, 1] * 3
    found = overall(frame(values, values, ["a", "b", "c"] * 4))
    assert list(found[["spearman", "kappa", "agreement"]]) == pytest.approx([1, 1, 1])
    assert found["error"] == found["absolute_error"] == 0


@pytest.mark.parametrize("constant", ["judge_score", "human_score"])
def test_constant_column_gives_nan_and_no_warning(constant):
    assert math.isnan(overall(small().assign(**{constant: 1.0}))["spearman"])
    assert math.isnan(overall(small().assign(judge_score=1.0, human_score=0.9))["kappa"])


@pytest.mark.parametrize(
    "form", [[1, 0, 1, 0], [True, False, True, False], np.array([1, 0, 1, 0]), pd.array([True, False] * 2, "boolean")]
)
def test_verdicts_may_be_numbers_or_truth_values(form):
    found = overall(frame([0.9, 0.1, 0.8, 0.2], form))
    assert found["n"] == 4 and found["kappa"] == 1


def test_rows_that_cannot_be_compared_are_left_out_and_counted():
    judge = [1.0, math.nan, 0.5, 0.0, 1.0, 0.3]
    human = [1, 1, None, 1, 1, math.nan]
    answers = ["x", "x", "x", None, "broken off", "x"]
    other = {"judge_verdict": ["correct", None, "partly", "failed", "failed", "partly"]}
    found = overall(frame(judge, human, answers=answers, **other))
    assert found["n"] == 1 and found["left_out"] == 5


@pytest.mark.parametrize("empty", [True, False], ids=["no rows", "no judgement succeeded"])
def test_no_rows_to_compare_give_a_table_that_says_so(empty):
    found = overall(small().iloc[:0] if empty else small().assign(judge_score=math.nan))
    assert found["n"] == 0 and found[list(calibration.MEASURES)].isna().all()


def test_intervals_come_from_contracts_where_there_are_several():
    rng = np.random.default_rng(3)
    alike = np.repeat(rng.random(9), 10)  # the answers of a contract are alike
    judge = np.clip(alike + 0.05 * rng.random(90), 0, 1)
    single = frame(list(judge), [0.5] * 90).assign(question=[f"q{n}" for n in range(90)])
    wide, narrow = overall(single.assign(contract=np.repeat(np.arange(9), 10))), overall(single)
    assert wide["error_high"] - wide["error_low"] > 2 * (narrow["error_high"] - narrow["error_low"])


def test_table_is_repeatable_and_order_of_rows_changes_no_value():
    rng = np.random.default_rng(1)
    data = frame(list(rng.random(60)), list(rng.random(60)), [f"s{i % 3}" for i in range(60)])
    first = agreement(data)
    pd.testing.assert_frame_equal(first, agreement(data))
    assert overall(data.iloc[::-1])["spearman"] == pytest.approx(first.loc[calibration.ALL, "spearman"])


def test_interval_of_the_correlation_covers_it_at_the_nominal_rate():
    # 40 clusters of 3 independent rows of a bivariate normal with correlation r = .5: Spearman's true value is
    # 6/pi asin(r/2) = .483 (Pearson 1907). At 95 % coverage 57 of 60 intervals hold it, with standard deviation
    # sqrt(60 * .95 * .05) = 1.7; the percentile interval of 120 rows is a little narrow.
    rng, true, covered = np.random.default_rng(5), 6 / math.pi * math.asin(0.25), 0
    for _ in range(60):
        a = rng.normal(size=120)
        b = 0.5 * a + math.sqrt(0.75) * rng.normal(size=120)
        rows = pd.DataFrame({"score": a, "verdict": b, "group": np.repeat(range(40), 3)})
        found = calibration.correlation_intervals(rows, n_resamples=200, seed=0, confidence=0.95).loc["spearman"]
        covered += found["low"] <= true <= found["high"]
    assert 52 <= covered <= 60


@pytest.mark.parametrize(
    ("change", "words"), [({"confidence": 1.5}, "confidence"), ({"n_resamples": 0}, "n_resamples")]
)
def test_wrong_settings_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        calibration.judge_agreement(small(), **change)
