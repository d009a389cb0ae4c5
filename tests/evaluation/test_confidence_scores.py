"""Probabilities against plain loops: calibration, reliability, risk and coverage, thresholds, and answers to read."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from sklearn.metrics import brier_score_loss, roc_auc_score

from cuadft.core.errors import InputError
from cuadft.evaluation import confidence as sure
from cuadft.evaluation.confidence import calibration_table, operating_points, reliability, risk_coverage
from cuadft.evaluation.examples import OUTCOMES, answers_with_probabilities, show_answers
from cuadft.evaluation.figures.confidence import confidence_figure
from cuadft.evaluation.metrics import metric_weights, score_predictions
from cuadft.evaluation.text_scores import NO_CLAUSE, token_f1

FAST = {"n_resamples": 60, "seed": 1}
GOLD = "governed by the laws of Ohio"
TEXTS = (GOLD, "the laws of Ohio", "Acme shall indemnify", "by the laws of the State of New York", "laws Ohio shall")
chances = st.one_of(st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]), st.floats(0, 1))
few_weights = st.sampled_from([1, 2, 3])


def quote(text, p, **more):
    return {"text": text, "span": [0, len(text)], "p": p} | more


def row(golds=(), answer=NO_CLAUSE, id="1", contract="a", system="sft", **more):
    spans = [{"text": gold, "start": 100 * n} for n, gold in enumerate(golds)]
    made = {"id": id, "contract": contract, "category": "Governing Law", "is_impossible": not golds, "answers": spans}
    return made | {"answer": answer, "error": None, "spans": [], "system": system, "split": "test"} | more


@st.composite
def rows(draw, least=1, failures=True):
    """Return one system's predictions: answered, refused and failed, with and without probabilities."""
    made = []
    for n in range(draw(st.integers(least, 12))):
        golds = [GOLD] if draw(st.booleans()) else []
        found = draw(st.lists(st.tuples(st.sampled_from(TEXTS), chances), max_size=3, unique_by=lambda one: one[0]))
        quotes = [quote(text, p) for text, p in sorted(found, key=lambda one: -one[1])]
        for rank, one in enumerate(quotes):
            one["quoted"] = not rank or draw(st.booleans())
        answered = draw(st.booleans())
        answer = (quotes[0]["text"] if quotes else TEXTS[2]) if answered else NO_CLAUSE
        more = {"contract": draw(st.sampled_from("abcd")), "weight": float(draw(few_weights)), "quotes": quotes}
        more |= {"p_exists": draw(st.one_of(st.none(), chances))} if draw(st.booleans()) else {}
        if failures and not draw(st.integers(0, 7)):
            answer, more["error"] = None, "timeout"
        made.append(row(golds, answer, id=str(n), **more))
    return made


def repeated(predictions):
    """Return every row of weight w as w rows of weight 1."""
    return [p | {"id": f"{p['id']}.{k}", "weight": 1.0} for p in predictions for k in range(int(p.get("weight", 1)))]


def answered(p):
    return p["answer"] not in (None, NO_CLAUSE)


def right(text, p):
    return any(
        2 * len(set(text.lower().split()) & set(a["text"].lower().split()))
        >= len(set(text.lower().split()) | set(a["text"].lower().split()))
        for a in p["answers"]
    )


def said(quote, p):
    return None if quote["p"] == 1 and p.get("p_exists") is None else quote["p"]


def stated(predictions, of):
    """Return (probability, truth, weight) of each statement, and the weight of the questions without one."""
    found, without = [], 0
    for p in predictions:
        if of == "exists":
            pairs = [(p.get("p_exists"), bool(p["answers"]))]
        else:
            shown = [q for q in p["quotes"] if q["quoted"]] if answered(p) else []
            pairs = [(said(q, p), right(q["text"], p)) for q in shown[: 1 if of == "best_quote" else None]]
            pairs = pairs or ([(None, False)] if answered(p) else [])
        without += sum(p["weight"] for given, _ in pairs if given is None)
        found += [(given, float(true), p["weight"]) for given, true in pairs if given is not None]
    return found, without


def oracle_bins(found):
    """Return {bin: its statements}; a statement's bin is that of the middle of the weight of its probability."""
    total, bins = sum(w for _, _, w in found), {}
    for one in found:
        below = sum(w for p, _, w in found if p < one[0])
        same = sum(w for p, _, w in found if p == one[0])
        bins.setdefault(min(9, int(10 * (2 * below + same) / (2 * total) + 1e-9)), []).append(one)
    return dict(sorted(bins.items()))


# --- calibration


@given(rows())
@settings(max_examples=80, deadline=None)
def test_calibration_is_that_of_plain_loops(predictions):
    table = calibration_table(predictions, **FAST).set_index("of")
    for of in sure.STATEMENTS:
        found, without = stated(predictions, of)
        assert (of in table.index) == bool(found)
        if not found:
            continue
        line, (p, true, weight) = table.loc[of], map(np.array, zip(*found, strict=True))
        total = sum(w for *_, w in found)
        base = sum(t * w for _, t, w in found) / total
        brier = sum(w * (p - t) ** 2 for p, t, w in found) / total
        gaps = [abs(sum(w * (p - t) for p, t, w in part)) for part in oracle_bins(found).values()]
        assert (line["n"], line["without"]) == (total, without)
        assert line["brier"] == pytest.approx(brier, abs=1e-12)
        assert line["brier"] == pytest.approx(brier_score_loss(true, p, sample_weight=weight), abs=1e-12)
        assert line["brier_constant"] == pytest.approx(base * (1 - base), abs=1e-12)
        assert line["ece"] == pytest.approx(sum(gaps) / total, abs=1e-9)
        if 0 < base < 1:
            assert line["auc"] == pytest.approx(roc_auc_score(true, p, sample_weight=weight), abs=1e-9)
        else:
            assert math.isnan(line["auc"])


@given(rows())
@settings(max_examples=60, deadline=None)
def test_reliability_bins_are_those_of_plain_loops(predictions):
    table = reliability(predictions, **FAST)
    for of in sure.STATEMENTS:
        bins, lines = oracle_bins(stated(predictions, of)[0]), table[table["of"] == of]
        assert list(lines["bin"]) == list(range(1, len(bins) + 1))
        for part, line in zip(bins.values(), lines.to_dict("records"), strict=True):
            total = sum(w for *_, w in part)
            assert line["probability"] == pytest.approx(sum(p * w for p, _, w in part) / total)
            assert line["share"] == pytest.approx(sum(t * w for _, t, w in part) / total) and line["n"] == total
            known = not math.isnan(line["low"])
            assert known == (line["n_contracts"] > 1)
            assert not known or 0 <= line["low"] <= line["share"] + 1e-9 and line["share"] <= line["high"] + 1e-9 <= 1.1


@given(rows())
@settings(max_examples=40, deadline=None)
def test_a_row_of_weight_two_counts_as_two_rows(predictions):
    copies = repeated(predictions)
    chance = ["ece_by_chance"]  # it simulates the rows that were asked
    for table in (calibration_table, reliability, risk_coverage, operating_points):
        one, many = table(predictions, **FAST), table(copies, **FAST)
        drop = chance if table is calibration_table else []
        pd.testing.assert_frame_equal(one.drop(columns=drop), many.drop(columns=drop), rtol=1e-6, atol=1e-9)


@given(rows(), st.randoms())
@settings(max_examples=25, deadline=None)
def test_the_order_of_the_rows_makes_no_difference(predictions, random):
    mixed = random.sample(predictions, len(predictions))
    for table in (calibration_table, reliability, risk_coverage, operating_points):
        pd.testing.assert_frame_equal(table(predictions, **FAST), table(mixed, **FAST), rtol=1e-6, atol=1e-9)
    pd.testing.assert_frame_equal(*(answers_with_probabilities(some, seed=3) for some in (predictions, mixed)))


def many(n_contracts=60, per=40, *, bias=1.0, seed=0, system="sft"):
    """Return predictions whose p_exists is exactly right (bias 1) or too certain (bias above 1)."""
    rng, made = np.random.default_rng(seed), []
    for n in range(n_contracts * per):
        logit = rng.normal(-1, 2)
        p, told = 1 / (1 + math.exp(-logit)), 1 / (1 + math.exp(-bias * logit))
        golds, found = (
            [GOLD] if rng.random() < p else [],
            [quote(TEXTS[n % 4], float(rng.random()), quoted=told >= 0.5)],
        )
        answer = found[0]["text"] if told >= 0.5 else NO_CLAUSE
        more = {"contract": f"c{n % n_contracts}", "weight": 1.0 if golds else 2.5}
        made.append(row(golds, answer, id=str(n), p_exists=told, quotes=found, system=system, **more))
    return made


def test_a_calibrated_system_has_a_calibration_error_near_that_of_chance():
    unweighted = [p | {"weight": 1.0} for p in many()]
    line = calibration_table(unweighted, **FAST).set_index("of").loc["exists"]
    assert line["ece"] < 0.03 and 0.5 < line["ece"] / line["ece_by_chance"] < 1.6
    assert line["brier_high"] < 0.8 * line["brier_constant"] and line["auc_low"] > 0.8
    bins = reliability(unweighted, n_resamples=200).query("of == 'exists'")
    inside = (bins["low"] <= bins["probability"]) & (bins["probability"] <= bins["high"])
    assert len(bins) == 10 and inside.sum() >= 8 and bins["probability"].is_monotonic_increasing
    assert bins["n"].max() - bins["n"].min() <= 2


def test_the_bins_of_many_weighted_rows_are_those_of_plain_loops():
    told = many(10, 30)
    bins = oracle_bins([(p["p_exists"], float(bool(p["answers"])), p["weight"]) for p in told])
    gaps = [abs(sum(w * (p - t) for p, t, w in part)) for part in bins.values()]
    line = calibration_table(told, **FAST).set_index("of").loc["exists"]
    assert len(bins) == 10 and line["ece"] == pytest.approx(sum(gaps) / sum(p["weight"] for p in told))
    found = reliability(told, **FAST).query("of == 'exists'")["n"]
    assert list(found) == [round(sum(w for *_, w in part)) for part in bins.values()]


def test_a_system_that_is_too_certain_is_found_out():
    line = calibration_table([p | {"weight": 1.0} for p in many(bias=3)], **FAST).set_index("of").loc["exists"]
    assert line["ece_low"] > 2 * line["ece_by_chance"] and line["auc_low"] > 0.8


def test_the_constant_has_no_error_of_calibration_and_no_skill():
    share = 0.25
    told = [row([GOLD] if n % 4 == 0 else [], id=str(n), contract=f"c{n % 8}", p_exists=share) for n in range(160)]
    line = calibration_table(told, **FAST).iloc[0]
    assert line["of"] == "exists" and line["brier"] == pytest.approx(line["brier_constant"]) == share * (1 - share)
    assert line["ece"] == pytest.approx(0, abs=1e-12)
    assert (line["auc"], line["auc_low"], line["auc_high"]) == (0.5, 0.5, 0.5)
    curve = risk_coverage(told, **FAST)
    assert len(curve) == 1 and curve["risk"].iloc[0] == curve["constant"].iloc[0] == share
    assert len(reliability(told, **FAST)) == 1


def test_perfect_probabilities_still_have_the_width_of_few_contracts():
    told = [row([GOLD] if n % 2 else [], id=str(n), contract=f"c{n % 5}", p_exists=n % 2) for n in range(20)]
    line = calibration_table(told, **FAST).iloc[0]
    assert line["brier"] == 0 and 0 < line["brier_high"] < 1
    assert line["auc"] == 1 and line["auc_low"] < 1 and line["ece"] == 0


def test_rows_without_a_probability_are_left_out_and_counted():
    old = [row([GOLD], id="old", weight=3.0), row([], id="none", p_exists=None), row([], id="nan", p_exists=math.nan)]
    line = calibration_table([*many(4, 5), *old], **FAST).set_index("of").loc["exists"]
    assert line["without"] == 5 and line["n"] == round(sum(p["weight"] for p in many(4, 5)))
    points = operating_points([*many(4, 5), *old], **FAST)
    assert set(points["without"]) == {5}
    for table in (calibration_table, reliability, risk_coverage, operating_points):
        assert not len(table(old, **FAST)) and not len(table([], **FAST))
    assert not len(answers_with_probabilities(old))


def test_a_quote_of_probability_one_without_p_exists_is_a_filler():
    filled = [p | {"p_exists": None, "quotes": [q | {"p": 1.0} for q in p["quotes"]]} for p in many(4, 5)]
    for table in (calibration_table, reliability, risk_coverage, operating_points):
        assert not len(table(filled, **FAST))
    assert not len(answers_with_probabilities(filled))
    certain = [p | {"quotes": [q | {"p": 1.0} for q in p["quotes"]]} for p in many(4, 5)]
    assert set(calibration_table(certain, **FAST)["of"]) == set(sure.STATEMENTS)


def test_one_contract_gives_values_without_intervals():
    told = [p | {"contract": "only"} for p in many(2, 20)]
    line = calibration_table(told, **FAST).iloc[0]
    assert line["n_contracts"] == 1 and 0 <= line["brier"] <= 1 and math.isnan(line["brier_low"] + line["auc_high"])
    for table in (reliability, risk_coverage, operating_points):
        assert table(told, **FAST)[["low", "high"]].isna().all(axis=None)


def test_each_system_has_its_own_row_and_more_contracts_make_narrower_intervals():
    table = calibration_table(many(8, system="rag") + many(80), n_resamples=300).query("of == 'exists'")
    few, more = table.to_dict("records")
    assert (few["system"], more["system"], few["n_contracts"], more["n_contracts"]) == ("rag", "sft", 8, 80)
    for name in sure.MEASURES:
        assert few[f"{name}_low"] <= few[name] <= few[f"{name}_high"]
        widths = [line[f"{name}_high"] - line[f"{name}_low"] for line in (few, more)]
        assert widths[0] > 1.5 * widths[1], name


def test_the_interval_of_the_auc_is_as_wide_as_its_spread_over_drawn_contracts():
    told, rng, drawn = many(40, 20), np.random.default_rng(5), []
    columns = (np.array([p["p_exists"], bool(p["answers"]), p["weight"]], float) for p in told)
    values = np.stack(list(columns)).reshape(20, 40, 3)  # question, contract, column
    for _ in range(300):
        p, true, weight = values[:, rng.integers(0, 40, 40)].reshape(-1, 3).T
        drawn.append(roc_auc_score(true, p, sample_weight=weight))
    line = calibration_table(told, n_resamples=300).set_index("of").loc["exists"]
    assert (line["auc_high"] - line["auc_low"]) / (2 * 1.96 * np.std(drawn)) == pytest.approx(1, abs=0.25)


# --- risk and coverage


def decisions(predictions, of):
    """Return (certainty, error, weight) of each decision."""
    found = []
    for p in predictions:
        shown = [q for q in p["quotes"] if q["quoted"]] if answered(p) else []
        if p["answer"] is None:
            continue
        if of == "exists" and p.get("p_exists") is not None:
            certainty = p["p_exists"] if answered(p) else 1 - p["p_exists"]
            found.append((certainty, answered(p) != bool(p["answers"]), p["weight"]))
        if of == "best_quote" and shown and said(shown[0], p) is not None:
            found.append((shown[0]["p"], not right(shown[0]["text"], p), p["weight"]))
    return found


@given(rows())
@settings(max_examples=80, deadline=None)
def test_risk_and_coverage_are_those_of_plain_loops(predictions):
    curve = risk_coverage(predictions, points=1000, **FAST)
    total = sum(p["weight"] for p in predictions if p["answer"] is not None)
    for of in ("exists", "best_quote"):
        found, lines = decisions(predictions, of), curve[curve["of"] == of]
        expected = []
        for level in sorted({certainty for certainty, *_ in found}, reverse=True):
            kept = [(error, w) for certainty, error, w in found if certainty >= level]
            weight = sum(w for _, w in kept)
            expected.append((level, weight / total, sum(e * w for e, w in kept) / weight, weight))
        shown = lines[["certainty", "coverage", "risk", "n"]].to_numpy()
        assert shown == pytest.approx(np.array(expected, float).reshape(-1, 4))
        if found:
            own = [p for p in predictions if p["answer"] is not None and p.get("p_exists") is not None]
            sums = [sum(p["weight"] for p in own if bool(p["answers"]) == clause) for clause in (True, False)]
            constant = min(sums) / sum(sums) if of == "exists" else expected[-1][2]
            assert lines["constant"].iloc[0] == pytest.approx(constant)


@given(st.lists(st.tuples(chances, few_weights), min_size=1, max_size=40), st.integers(1, 12))
@settings(max_examples=50, deadline=None)
def test_a_thinned_curve_keeps_its_end_and_no_more_points_than_asked(given_rows, points):
    told = [row([], id=str(n), p_exists=p, weight=float(w)) for n, (p, w) in enumerate(given_rows)]
    curve = risk_coverage(told, points=points, **FAST)
    assert 1 <= len(curve) <= points and curve["coverage"].iloc[-1] == pytest.approx(1)
    assert curve["coverage"].is_monotonic_increasing and curve["certainty"].is_monotonic_decreasing
    assert (curve["risk"] == 0).all() and (curve["constant"] == 0).all()


def test_a_useful_order_makes_fewer_errors_among_the_most_certain():
    curve = risk_coverage(many(), **FAST).query("of == 'exists'")
    assert len(curve) == 50 and curve["risk"].iloc[9] < curve["risk"].iloc[-1] / 3
    assert (curve["low"] <= curve["risk"]).all() and (curve["risk"] <= curve["high"]).all()


# --- thresholds


def ruled(predictions, threshold):
    """Return the predictions of a system that answers from a threshold on p_exists on, with its best quote."""
    made = []
    for p in predictions:
        answers = p["p_exists"] >= threshold and p["quotes"]
        quotes = [q | {"quoted": bool(answers) and not rank} for rank, q in enumerate(p["quotes"])]
        made.append(p | {"answer": quotes[0]["text"] if answers else NO_CLAUSE, "quotes": quotes})
    return made


@given(rows(failures=False), st.sampled_from([0.0, 0.25, 0.6]), st.sampled_from([0.0, 0.5, 0.75, 1.0]))
@settings(max_examples=80, deadline=None)
def test_a_threshold_gives_what_a_system_with_that_threshold_scores(predictions, in_use, other):
    asked = [p | {"p_exists": p.get("p_exists") or 0.0} for p in predictions]
    expected = score_predictions(ruled(asked, other))
    points = operating_points(ruled(asked, in_use), thresholds=[other], **FAST).set_index("measure")
    for name in ("false_answer", "false_refusal", "quote_f1"):
        values, weight = expected[name].fillna(0).to_numpy(), metric_weights(expected, name)
        mean = values @ weight / weight.sum() if weight.sum() else math.nan
        assert points.at[name, "value"] == pytest.approx(mean, nan_ok=True), name


@given(rows(), st.lists(st.floats(0, 1), min_size=1, max_size=3))
@settings(max_examples=60, deadline=None)
def test_operating_points_are_those_of_plain_loops(predictions, thresholds):
    table = operating_points(predictions, thresholds=thresholds, **FAST)
    asked = [p for p in predictions if p.get("p_exists") is not None]
    assert len(table) == (3 * len(thresholds) if asked else 0)
    for place, threshold in enumerate(thresholds if asked else ()):
        sums = {"false_answer": [0, 0], "false_refusal": [0, 0], "quote_f1": [0, 0]}
        for p in asked:
            text = p["answer"] if answered(p) else p["quotes"][0]["text"] if p["quotes"] else None
            out = p["answer"] is not None and text is not None and p["p_exists"] >= threshold
            clause, weight = bool(p["answers"]), p["weight"]
            if p["answer"] is not None:
                name, wrong = ("false_refusal", not out) if clause else ("false_answer", out)
                sums[name] = [sums[name][0] + wrong * weight, sums[name][1] + weight]
            sums["quote_f1"][0] += 2 * weight * token_f1(text, [GOLD]) if out and clause else 0
            sums["quote_f1"][1] += weight * (out + clause)
        found = table.iloc[3 * place : 3 * place + 3].set_index("measure")["value"]
        for name, (top, bottom) in sums.items():
            assert found[name] == pytest.approx(top / bottom if bottom else math.nan, nan_ok=True), name


# --- what is refused


@pytest.mark.parametrize(
    ("predictions", "said"),
    [
        ([row(p_exists=0.5), row(p_exists=0.5)], "twice"),
        ([{"id": "1"}], "contract"),
    ],
)
@pytest.mark.parametrize("table", [calibration_table, reliability, risk_coverage, operating_points])
def test_bad_rows_are_refused(table, predictions, said):
    with pytest.raises(InputError, match=said):
        table(predictions, **FAST)


def test_bad_settings_are_refused():
    for table in (calibration_table, reliability, risk_coverage, operating_points):
        with pytest.raises(InputError, match="confidence"):
            table([], confidence=1.0)


# --- answers to read


def test_the_draw_shows_every_outcome_and_depends_on_the_seed_alone():
    told = many()
    tables = [answers_with_probabilities(told, n=10, seed=seed) for seed in (3, 3, 4)]
    drawn = tables[0].to_dict("records")
    assert [record["outcome"] for record in drawn] == [outcome for outcome in OUTCOMES for _ in range(2)]
    assert tables[0].equals(tables[1]) and not tables[0].equals(tables[2])
    refusals = [record for record in drawn if record["outcome"] in ("overlooked", "refused rightly")]
    assert all(record["answer"] == NO_CLAUSE and record["candidate"] in TEXTS for record in refusals)
    assert all(record["candidate"] == "" for record in drawn if record not in refusals)
    assert all((record["gold"] == GOLD) == (record["outcome"] in list(OUTCOMES)[:3]) for record in drawn)


def test_where_an_outcome_is_rare_others_fill_its_place():
    told = [row([], id=str(n), p_exists=0.1) for n in range(9)] + [row([GOLD], GOLD, id="x", p_exists=0.9)]
    assert list(answers_with_probabilities(told, n=6)["outcome"]) == ["right", *["refused rightly"] * 5]
    assert len(answers_with_probabilities(told, n=50)) == 10


def test_a_record_is_cut_and_shown_with_its_probabilities():
    long = " ".join(f"w{n}" for n in range(300))
    told = [row([long], long, p_exists=0.91, quotes=[quote(long, 0.42)]), row([GOLD], GOLD, id="2", p_exists=None)]
    (record,) = answers_with_probabilities(told).to_dict("records")
    assert (record["outcome"], record["p_exists"], record["p_quote"]) == ("right", 0.91, 0.42)
    assert len(record["answer"]) == len(record["gold"]) == 300 and "…" in record["answer"]
    html = show_answers(pd.DataFrame([record | {"category": "<b>"}])).to_html()
    assert "0.91" in html and "0.42" in html and "right" in html and "&lt;b&gt;" in html and "<b>" not in html
    assert "–" in show_answers(pd.DataFrame([record | {"p_quote": None}])).to_html()
    assert "<td" not in show_answers(answers_with_probabilities([])).to_html()


# --- the figure


def drawn(predictions, **more):
    tables = (table(predictions, **FAST) for table in (reliability, risk_coverage, operating_points))
    figure = confidence_figure(*tables, **more)
    FigureCanvasAgg(figure).draw()
    return figure


def test_a_system_has_three_panels_whose_texts_do_not_overlap():
    figure = drawn(many(10))
    assert len(figure.axes) == 3
    for axes in figure.axes:
        boxes = [text.get_window_extent() for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
        boxes += [text.get_window_extent() for text in (*axes.get_legend().get_texts(), *axes.texts)]
        assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[n + 1 :])
        assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 for box in boxes)
    note = figure.get_supxlabel().replace("\n", " ")
    assert "95% interval over contracts" in note and "10 contracts" in note


def test_the_dashed_lines_are_the_diagonal_and_the_constants():
    told = many(10)
    first, second, _ = drawn(told).axes
    assert list(first.lines[0].get_xdata()) == list(first.lines[0].get_ydata()) == [0, 1]
    constants = risk_coverage(told, **FAST).groupby("of")["constant"].first()
    dashed = [line.get_ydata()[0] for line in second.lines if line.get_linestyle() == "--"]
    assert dashed == [constants["exists"], constants["best_quote"]]


def test_missing_probabilities_one_contract_and_nothing_are_drawn():
    only_quotes = [{name: value for name, value in p.items() if name != "p_exists"} for p in many(1, 40)]
    figure = drawn(only_quotes)
    assert not figure.axes[2].lines
    assert "no interval" in figure.get_supxlabel()
    assert not drawn([]).axes
