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
    # ranks of the judge 4, 2.5, 2.5, 1 and of the verdicts 3.5, 3.5, 1, 2: deviations (1.5, 0, 0, -1.5) and
    # (1, 1, -1.5, -.5): 2.25 / sqrt(4.5 * 4.5) = .5
    assert r["rows"]["spearman"]["value"] == pytest.approx(0.5)
    # at .5 the judge says yes, yes, yes, no and the verdicts yes, yes, no, no: agreement 3/4, by chance
    # 3/4 * 1/2 + 1/4 * 1/2 = 1/2, kappa (3/4 - 1/2) / (1 - 1/2) = 1/2
    assert r["rows"]["kappa"]["value"] == pytest.approx(0.5)
    assert r["sides"] == {"both": 2, "judge_only": 1, "verdict_only": 0, "neither": 1, "agreement": 0.75}
    a, b = r["systems"]
    assert (a["judge"], a["verdict"], a["error"], a["n"]) == (0.75, 1.0, -0.25, 2)
    assert (b["judge"], b["verdict"], b["error"], b["n"]) == (0.25, 0.125, 0.125, 2)
    assert r["system_error"] == {"mean": 0.1875, "largest": 0.25}
    assert r["error"]["value"] == pytest.approx(-0.0625) and r["error"]["absolute"] == pytest.approx(0.3125)
    assert r["turned"] == []
    # three scores, three bins: 0 -> .25 (1), .5 -> .5 (2), 1 -> 1 (1): distance (.25 + 2 * 0 + 0) / 4
    assert [(b["judge"], b["verdict"], b["n"]) for b in r["reliability"]] == [(0, 0.25, 1), (0.5, 0.5, 2), (1, 1, 1)]
    assert r["calibration_error"] == pytest.approx(0.0625)


PAIR = st.tuples(st.sampled_from([0, 0.2, 0.5, 1]), st.sampled_from([0, 0.5, 0.7, 1]))
NUMBERS = st.lists(PAIR, min_size=2, max_size=30)


@given(NUMBERS)
def test_correlations_and_kappa_are_those_of_scipy_and_scikit_learn(pairs):
    a, b = np.array(pairs, dtype=float).T
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, on constant columns
        theirs = [
            spearmanr(a, b).statistic,
            cohen_kappa_score(a >= 0.5, b >= 0.5, labels=[False, True]),
        ]
    ours = [calibration.spearman(a, b), calibration.kappa(a >= 0.5, b >= 0.5)]
    assert ours == pytest.approx(theirs, nan_ok=True)


@given(NUMBERS)
@settings(deadline=None, max_examples=40)
def test_report_never_fails_on_numbers_and_figures_stay_in_their_ranges(pairs):
    judge, human = map(list, zip(*pairs, strict=True))
    systems = [f"s{i % 3}" for i in range(len(pairs))]
    r = calibration.calibration_report(frame(judge, human, systems), n_resamples=20)
    assert sum(b["n"] for b in r["reliability"]) == len(pairs)
    assert sum(r["sides"][k] for k in ("both", "judge_only", "verdict_only", "neither")) == len(pairs)
    for name, found in r["rows"].items():
        assert math.isnan(found["value"]) == ("reason" in found), name
        assert math.isnan(found["value"]) or -1 <= found["value"] <= 1
    calibration.calibration_markdown(r)


def test_a_judge_that_equals_the_verdicts_agrees_in_everything():
    values = [0, 0.25, 0.5, 1] * 3
    r = calibration.calibration_report(frame(values, values, ["a", "b", "c"] * 4), **QUICK)
    assert [r["rows"][k]["value"] for k in ("spearman", "kappa")] == pytest.approx([1, 1])
    assert r["system_error"]["largest"] == r["calibration_error"] == r["error"]["absolute"] == 0
    assert "reason" in r["rows"]["length"]  # the error is 0 everywhere: no correlation


@pytest.mark.parametrize("constant", ["judge_score", "human_score"])
def test_constant_column_gives_nan_with_its_reason_and_no_warning(constant):
    r = calibration.calibration_report(small().assign(**{constant: 1.0}), **QUICK)
    found = r["rows"]["spearman"]
    assert math.isnan(found["value"]) and found["reason"].startswith(f"{constant} is the same")
    both = calibration.calibration_report(small().assign(judge_score=1.0, human_score=0.9), **QUICK)
    assert math.isnan(both["rows"]["kappa"]["value"]) and "same side" in both["rows"]["kappa"]["reason"]
    assert both["turned"] == []
    assert "is the same everywhere" in calibration.calibration_markdown(r)


@pytest.mark.parametrize(
    "form",
    [
        [1, 0, 1, 0],
        [True, False, True, False],
        ["true", "False", "TRUE", " false "],
        ["1", "0", "1.0", "0.0"],
        np.array([1, 0, 1, 0]),
        pd.array([True, False, True, False], dtype="boolean"),
    ],
)
def test_verdicts_may_be_numbers_truth_values_or_their_text(form):
    r = calibration.calibration_report(frame([0.9, 0.1, 0.8, 0.2], form), **QUICK)
    assert r["n"] == 4 and r["rows"]["kappa"]["value"] == 1


def test_rows_that_cannot_be_compared_are_left_out_and_counted_by_reason():
    judge = [1.0, math.nan, 0.5, 0.5, 0.0, 0.0, 1.0, 0.3]
    human = [1, 1, None, "maybe", 7, 1, 1, ""]
    answers = ["x", "x", "x", "x", "x", None, "broken off", "x"]
    other = {"judge_verdict": ["correct", None, "partly", "partly", "incorrect", "failed", "failed", "partly"]}
    r = calibration.calibration_report(frame(judge, human, answers=answers, **other), **QUICK)
    assert r["n"] == 1 and r["left_out"] == {
        "failed generation": 2,
        "human_score missing": 2,
        "human_score no number": 1,
        "human_score outside 0 to 1": 1,
        "judge_score missing": 1,
    }
    assert "1 human_score outside 0 to 1" in calibration.calibration_markdown(r)


@pytest.mark.parametrize("empty", [True, False], ids=["no rows", "no judgement succeeded"])
def test_no_rows_to_compare_give_a_report_that_says_so(empty):
    r = calibration.calibration_report(small().iloc[:0] if empty else small().assign(judge_score=math.nan), **QUICK)
    assert r["n"] == 0 and r["systems"] == [] and r["rows"]["spearman"]["reason"].startswith("0 rows")
    assert "0 answers" in calibration.calibration_markdown(r)


def test_order_that_the_judge_turns_is_named():
    data = frame([0.2, 0.2, 0.9, 0.9, 0.5, 0.5], [0.9, 0.9, 0.4, 0.4, 0.1, 0.1], list("aabbcc"))
    assert calibration.calibration_report(data, **QUICK)["turned"] == [["a", "b"], ["a", "c"]]
    assert "a above b, a above c" in calibration.calibration_markdown(calibration.calibration_report(data, **QUICK))


def test_a_judge_that_favours_long_answers_is_found_out():
    size, human = np.arange(1, 1801, 20), np.arange(90) % 2.0  # as many right answers among short as among long ones
    judge = 0.5 * human + 0.5 * (np.log(size) / np.log(2000))
    data = frame(list(judge), list(human), answers=["x" * n for n in size], contract=[f"c{i % 9}" for i in range(90)])
    r = calibration.calibration_report(data, n_resamples=200)
    assert r["rows"]["length"]["low"] > 0
    assert r["clusters"] == {"by": "contract", "n": 9}
    fair = calibration.calibration_report(data.assign(judge_score=human), n_resamples=200)
    assert math.isnan(fair["rows"]["length"]["value"]) and fair["error"]["absolute"] == 0


def test_report_is_repeatable_and_order_of_rows_changes_no_value(tmp_path):
    rng = np.random.default_rng(1)
    data = frame(list(rng.random(60)), list(rng.random(60)), [f"s{i % 3}" for i in range(60)])
    first, again = calibration.calibration_report(data, **QUICK), calibration.calibration_report(data, **QUICK)
    assert first == again
    turned = calibration.calibration_report(data.iloc[::-1], **QUICK)
    assert turned["rows"]["spearman"]["value"] == pytest.approx(first["rows"]["spearman"]["value"])
    write_json(tmp_path / "r.json", first)
    assert json.loads((tmp_path / "r.json").read_text())["n"] == 60


def test_interval_of_the_correlation_covers_it_at_the_nominal_rate():
    # 40 clusters of 3 independent rows of a bivariate normal with correlation r = .5: Spearman's true value is
    # 6/pi asin(r/2) = .483 (Pearson 1907). At 95 % coverage 57 of 60 intervals hold it, with standard deviation
    # sqrt(60 * .95 * .05) = 1.7; the percentile interval of 120 rows is a little narrow.
    rng, true, covered = np.random.default_rng(5), 6 / math.pi * math.asin(0.25), 0
    groups = pd.Series(np.repeat(np.arange(40), 3))
    for _ in range(60):
        a = rng.normal(size=120)
        b = 0.5 * a + math.sqrt(0.75) * rng.normal(size=120)
        found, _ = calibration.agreement_intervals(
            {"s": lambda rows, a=a, b=b: calibration.spearman(a[rows], b[rows])},
            groups,
            n_resamples=200,
            seed=0,
            confidence=0.95,
        )
        covered += found["s"][0] <= true <= found["s"][1]
    assert 52 <= covered <= 60


def test_many_rows_get_fewer_draws_and_say_so():
    groups = pd.Series(np.arange(20_000))
    found, draws = calibration.agreement_intervals(
        {"mean": lambda rows: float(rows.mean())}, groups, n_resamples=2000, seed=0, confidence=0.95
    )
    assert draws == calibration.FEWEST_DRAWS and found["mean"][0] < 9999.5 < found["mean"][1]


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
