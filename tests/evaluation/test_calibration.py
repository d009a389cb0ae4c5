"""Properties of the calibration report and of its statistics (against scipy and scikit-learn)."""

import json
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
from cuadft.core.files import write_json
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


def test_hand_computed_report():
    r = calibration.calibration_report(small(), **QUICK)
    assert r["n"] == 4 and r["left_out"] == {} and r["clusters"] == {"by": "question", "n": 4}
    value = {name: found["value"] for name, found in r["measures"].items()}
    # ranks of the judge 4, 2.5, 2.5, 1 and of the verdicts 3.5, 3.5, 1, 2: deviations (1.5, 0, 0, -1.5) and
    # (1, 1, -1.5, -.5): 2.25 / sqrt(4.5 * 4.5) = .5
    assert value["spearman"] == pytest.approx(0.5)
    # at .5 the judge says yes, yes, yes, no and the verdicts yes, yes, no, no: agreement 3/4, by chance
    # 3/4 * 1/2 + 1/4 * 1/2 = 1/2, kappa (3/4 - 1/2) / (1 - 1/2) = 1/2
    assert value["kappa"] == pytest.approx(0.5) and value["agreement"] == 0.75
    a, b = r["systems"]
    assert (a["score"], a["verdict"], a["value"], a["n"]) == (0.75, 1.0, -0.25, 2)
    assert (b["score"], b["verdict"], b["value"], b["n"]) == (0.25, 0.125, 0.125, 2)
    assert value["error"] == pytest.approx(-0.0625) and value["absolute_error"] == pytest.approx(0.3125)


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
    r = calibration.calibration_report(frame(list(a), list(b), [f"s{i % 3}" for i in range(len(a))]), n_resamples=20)
    for name, value in theirs.items():
        assert r["measures"][name]["value"] == pytest.approx(value, nan_ok=True)
    assert all(math.isnan(found["value"]) or -1 <= found["value"] <= 1 for found in r["measures"].values())
    calibration.calibration_markdown(r)


def test_a_judge_that_equals_the_verdicts_agrees_in_everything():
    values = [0, 0.25, 0.5, 1] * 3
    r = calibration.calibration_report(frame(values, values, ["a", "b", "c"] * 4), **QUICK)["measures"]
    assert [r[name]["value"] for name in ("spearman", "kappa", "agreement")] == pytest.approx([1, 1, 1])
    assert r["error"]["value"] == r["absolute_error"]["value"] == 0
    assert math.isnan(r["length"]["value"])  # the error is 0 everywhere: no correlation


@pytest.mark.parametrize("constant", ["judge_score", "human_score"])
def test_constant_column_gives_nan_and_no_warning(constant):
    r = calibration.calibration_report(small().assign(**{constant: 1.0}), **QUICK)
    assert math.isnan(r["measures"]["spearman"]["value"])
    both = calibration.calibration_report(small().assign(judge_score=1.0, human_score=0.9), **QUICK)
    assert math.isnan(both["measures"]["kappa"]["value"])
    assert "rank correlation over rows | – |" in calibration.calibration_markdown(r)


@pytest.mark.parametrize(
    "form", [[1, 0, 1, 0], [True, False, True, False], np.array([1, 0, 1, 0]), pd.array([True, False] * 2, "boolean")]
)
def test_verdicts_may_be_numbers_or_truth_values(form):
    r = calibration.calibration_report(frame([0.9, 0.1, 0.8, 0.2], form), **QUICK)
    assert r["n"] == 4 and r["measures"]["kappa"]["value"] == 1


def test_rows_that_cannot_be_compared_are_left_out_and_counted_by_reason():
    judge = [1.0, math.nan, 0.5, 0.0, 1.0, 0.3]
    human = [1, 1, None, 1, 1, math.nan]
    answers = ["x", "x", "x", None, "broken off", "x"]
    other = {"judge_verdict": ["correct", None, "partly", "failed", "failed", "partly"]}
    r = calibration.calibration_report(frame(judge, human, answers=answers, **other), **QUICK)
    assert r["n"] == 1 and r["left_out"] == {"failed generation": 2, "human_score missing": 2, "judge_score missing": 1}
    assert "2 human_score missing" in calibration.calibration_markdown(r)


@pytest.mark.parametrize("empty", [True, False], ids=["no rows", "no judgement succeeded"])
def test_no_rows_to_compare_give_a_report_that_says_so(empty):
    r = calibration.calibration_report(small().iloc[:0] if empty else small().assign(judge_score=math.nan), **QUICK)
    assert r["n"] == 0 and r["systems"] == [] and math.isnan(r["measures"]["spearman"]["value"])
    assert "0 answers" in calibration.calibration_markdown(r)


def test_a_judge_that_favours_long_answers_is_found_out():
    size, human = np.arange(1, 1801, 20), np.arange(90) % 2.0  # as many right answers among short as among long ones
    judge = 0.5 * human + 0.5 * (np.log(size) / np.log(2000))
    data = frame(list(judge), list(human), answers=["x" * n for n in size], contract=[f"c{i % 9}" for i in range(90)])
    r = calibration.calibration_report(data, n_resamples=200)
    assert r["measures"]["length"]["low"] > 0
    assert r["clusters"] == {"by": "contract", "n": 9}
    fair = calibration.calibration_report(data.assign(judge_score=human), n_resamples=200)
    assert math.isnan(fair["measures"]["length"]["value"]) and fair["measures"]["absolute_error"]["value"] == 0


def test_report_is_repeatable_and_order_of_rows_changes_no_value(tmp_path):
    rng = np.random.default_rng(1)
    data = frame(list(rng.random(60)), list(rng.random(60)), [f"s{i % 3}" for i in range(60)])
    first, again = calibration.calibration_report(data, **QUICK), calibration.calibration_report(data, **QUICK)
    assert first == again
    turned = calibration.calibration_report(data.iloc[::-1], **QUICK)
    assert turned["measures"]["spearman"]["value"] == pytest.approx(first["measures"]["spearman"]["value"])
    write_json(tmp_path / "r.json", first)
    assert json.loads((tmp_path / "r.json").read_text())["n"] == 60


def test_interval_of_the_correlation_covers_it_at_the_nominal_rate():
    # 40 clusters of 3 independent rows of a bivariate normal with correlation r = .5: Spearman's true value is
    # 6/pi asin(r/2) = .483 (Pearson 1907). At 95 % coverage 57 of 60 intervals hold it, with standard deviation
    # sqrt(60 * .95 * .05) = 1.7; the percentile interval of 120 rows is a little narrow.
    rng, true, covered = np.random.default_rng(5), 6 / math.pi * math.asin(0.25), 0
    for _ in range(60):
        a = rng.normal(size=120)
        b = 0.5 * a + math.sqrt(0.75) * rng.normal(size=120)
        rows = pd.DataFrame({"score": a, "verdict": b, "error": a - b, "length": 1.0, "group": np.repeat(range(40), 3)})
        found, _ = calibration.agreement_intervals(rows, n_resamples=200, seed=0, confidence=0.95)
        covered += found["spearman"].iloc[0] <= true <= found["spearman"].iloc[1]
    assert 52 <= covered <= 60


def test_many_rows_get_fewer_draws_and_say_so():
    n = np.arange(20_000)
    rows = pd.DataFrame({"score": n, "verdict": n, "error": n % 7, "length": n % 5, "group": n})
    found, draws = calibration.agreement_intervals(rows, n_resamples=2000, seed=0, confidence=0.95)
    low, high = found["length"]  # 1 / sqrt(20000) = .007 is the standard error of a correlation of 0
    assert draws == calibration.FEWEST_DRAWS and -0.03 < low < 0 < high < 0.03


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"verdict": "nowhere"}, "nowhere"),
        ({"confidence": 1.5}, "confidence"),
        ({"n_resamples": 0}, "n_resamples"),
    ],
)
def test_wrong_columns_and_settings_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        calibration.calibration_report(small(), **change)
