"""CUAD's scoreboard against plain loops: the same rules, written again in the simplest way."""

import math
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import auc

from cuadft.core.errors import InputError
from cuadft.evaluation import official as scores
from cuadft.evaluation.text_scores import NO_CLAUSE, AnswerComparison, token_f1

FAST = {"n_resamples": 60, "seed": 1}
WORDS = ("Acme", "inc.", "acme/inc", "shall", "SHALL,", "the", "term:", "law;", "of", "Ohio")
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)
chances = st.one_of(
    st.sampled_from([0.0, 0.001, 0.01, 0.5, 0.505, 0.99, 1.0, *map(float, scores.THRESHOLDS[10:90:20])]),
    st.floats(0, 1),
)

places = st.none() | st.tuples(st.integers(0, 250), st.integers(1, 30)).map(lambda one: [one[0], sum(one)])
quoted = st.sampled_from([{}, {"quoted": True}, {"quoted": False}, {"quoted": None}])


def row(golds=(), answer=NO_CLAUSE, id="1", contract="a", category="Term", **more):
    spans = [{"text": gold, "start": 100 * n} for n, gold in enumerate(golds)]
    made = {"id": id, "contract": contract, "category": category, "is_impossible": not golds, "answers": spans}
    return made | {"answer": answer, "error": None, "spans": []} | more


@st.composite
def rows(draw, n_best=True):
    """Return predictions on several contracts: refusals, failures, answers, with and without an n-best list."""
    made = []
    for n in range(draw(st.integers(1, 8))):
        golds = draw(st.lists(texts, max_size=3))
        answer = draw(st.one_of(st.just(NO_CLAUSE), st.none(), texts, st.just("\n ".join(golds).upper() or "the")))
        more = {"contract": draw(st.sampled_from("abc")), "category": draw(st.sampled_from(["Term", "Parties"]))}
        if n_best and draw(st.booleans()):
            other = draw(st.lists(st.one_of(texts, st.just(""), st.sampled_from(golds or ["x"])), max_size=5))
            more["quotes"] = [{"text": text, "span": draw(places), "p": draw(chances)} | draw(quoted) for text in other]
        if draw(st.booleans()):
            more["spans"] = draw(st.none() | st.lists(places.filter(bool), max_size=2))
        made.append(row(golds, answer, id=str(n), **more))
    return made


def values(predictions, **more):
    return scores.cuad_scores(predictions, **(FAST | more)).set_index("measure")["value"]


def answered(p):
    return p["answer"] is not None and not AnswerComparison(p["answer"], ()).abstained


# --- the oracle: what CUAD's evaluate.py does, in loops


def words_of(text):
    for mark in ".,;:":
        text = text.replace(mark, "")
    return set(text.lower().replace("/", " ").split())


def matches(gold, quote, inside):
    together = words_of(gold) | words_of(quote)
    alike = len(words_of(gold) & words_of(quote)) / len(together) if together else 0
    return alike >= 0.5 or (inside and gold in quote)


def point(asked, threshold):
    found = wrong = lost = 0
    for golds, quotes, inside in asked:
        shown = [text for text, chance in quotes.items() if chance > threshold]
        for gold in golds:
            if any(matches(gold, text, inside) for text in shown):
                found += 1
            else:
                lost += 1
        for text in shown:
            wrong += not any(matches(gold, text, inside) for gold in golds)
    precision = found / (found + wrong) if found + wrong else math.nan
    return precision, found / (found + lost) if found + lost else math.nan


def oracle_curve(predictions):
    asked = []
    for p in predictions:
        quotes = {}
        if p["answer"] is not None and "quotes" in p:
            for quote in p["quotes"]:
                if quote["text"] != "":
                    quotes[quote["text"]] = quote["p"]
        elif p["answer"] is not None and answered(p):
            quotes[p["answer"]] = 1.0
        asked.append(([a["text"] for a in p["answers"]], quotes, p["category"] == "Parties"))
    thresholds = list(np.arange(0.99, 0, -0.01)) + [0.001, 0]
    points = [(1, 0), *(point(asked, threshold) for threshold in thresholds)]
    recalls, best = [recall for _, recall in points], []
    for precision, _ in reversed(points):
        best.append(max(best[-1], precision) if best else precision)
    best.reverse()
    area = 0.0 if np.isnan([*recalls, *best]).any() else auc(recalls, best)
    at = {
        percent: next((p for p, r, _ in zip(best, recalls, thresholds, strict=False) if r >= percent / 100), 0)
        for percent in (80, 90)
    }
    return area, at[80], at[90]


@given(rows())
@settings(max_examples=100, deadline=None)
def test_the_curve_is_that_of_cuads_own_script(predictions):
    found = values(predictions)
    expected = oracle_curve(predictions)
    assert [found[name] for name in scores.CURVE_MEASURES] == pytest.approx(expected, abs=1e-12)


def shown(p):
    """Return the quotes that a row shows."""
    found = []
    for quote in p.get("quotes", ()) if answered(p) else ():
        if quote["text"] and quote.get("quoted") is not False:
            found.append(quote)
    return found


@given(rows())
@settings(max_examples=120, deadline=None)
def test_ratios_are_those_of_plain_loops(predictions):
    quoted = present = both = f1 = tp = fp = fn = refused = 0
    for p in predictions:
        golds, out = [a["text"] for a in p["answers"]], answered(p)
        golds = golds if AnswerComparison(None, golds).has_clause else []  # "the" alone is no clause
        quoted, present, both = quoted + out, present + bool(golds), both + (out and bool(golds))
        f1 += token_f1(p["answer"], golds) if out and golds else 0
        refused += p["answer"] is not None and not out and bool(golds)
        lines = [p["answer"] or ""]
        for quote in shown(p):
            lines += [quote["text"]] if quote["text"] not in lines else []
        folded = " ".join("\n".join(lines).lower().split())
        inside = out and all(" ".join(gold.lower().split()) in folded for gold in golds)
        tp, fn, fp = tp + (inside and bool(golds)), fn + (bool(golds) and not inside), fp + (out and not golds)
    expected = {
        "detection_f1": (2 * both, quoted + present),
        "detection_precision": (both, quoted),
        "detection_recall": (both, present),
        "quote_f1": (2 * f1, quoted + present),
        "token_f1_both": (f1, both),
        "coverage_f1": (2 * tp, 2 * tp + fp + fn),
        "coverage_precision": (tp, tp + fp),
        "coverage_recall": (tp, tp + fn),
        "laziness": (refused, present),
    }
    found = values(predictions)
    for name, (top, bottom) in expected.items():
        assert found[name] == pytest.approx(top / bottom if bottom else math.nan, abs=1e-12, nan_ok=True), name


@given(rows())
@settings(max_examples=120, deadline=None)
def test_quote_precision_counts_every_shown_character_once(predictions):
    inside = outside = verbatim = known = 0
    for p in predictions:
        marked = {c for a in p["answers"] for c in range(a["start"], a["start"] + len(a["text"]))}
        quoted, lost, texts = set(), {}, [quote["text"] for quote in shown(p)]
        for quote in shown(p):
            if quote["span"]:
                quoted |= set(range(*quote["span"]))
            else:
                lost[quote["text"]] = len(quote["text"])
        if answered(p) and p["spans"] is not None and p["answer"] not in texts:
            best = None
            for place in p["spans"]:
                if best is None or len(marked & set(range(*place))) > len(marked & set(range(*best))):
                    best = place
            quoted |= set(range(*best)) if best else set()
            if not best:
                lost[p["answer"]] = len(p["answer"])
        inside, outside = inside + len(quoted & marked), outside + len(quoted - marked) + sum(lost.values())
        if answered(p) and (texts or p["spans"] is not None):
            known += 1
            verbatim += all(quote["span"] for quote in shown(p)) if texts else len(p["spans"]) > 0
    found = values(predictions)
    whole = inside + outside
    assert found["quote_precision"] == pytest.approx(inside / whole if whole else math.nan, nan_ok=True)
    assert found["verbatim"] == pytest.approx(verbatim / known if known else math.nan, nan_ok=True)


def test_coverage_takes_every_quote_that_is_shown_and_no_other():
    golds = ["the laws of Ohio", "the courts of Ohio"]

    def recall(**second):
        quotes = [{"text": golds[0], "span": [0, 16], "p": 0.9}, {"text": golds[1], "span": None, "p": 0.4} | second]
        return values([row(golds, golds[0], quotes=quotes)])["coverage_recall"]

    assert recall() == recall(quoted=True) == recall(quoted=None) == 1 and recall(quoted=False) == 0
    hidden = [{"text": golds[0], "span": [0, 16], "p": 0.9, "quoted": False}]
    assert values([row(golds[:1], "other words", quotes=hidden)])["coverage_recall"] == 0
    assert values([row(golds[:1], golds[0], quotes=hidden)])["coverage_recall"] == 1  # the answer counts in any case
    refused = values([row(golds[:1], quotes=[hidden[0] | {"quoted": True}])])
    assert refused["coverage_recall"] == 0 and refused["laziness"] == 1
    assert refused["precision_at_80_recall"] == 1  # the curve asks for probabilities, not for what is shown


def test_an_answer_that_is_a_shown_quote_is_counted_once():
    quotes = [{"text": "words", "span": [0, 5], "p": 0.5}]
    one = row(["x" * 10], "words", quotes=quotes, spans=[[50, 55]])  # the same words stand elsewhere, too
    assert values([one])["quote_precision"] == 1 and values([one | {"spans": []}])["quote_precision"] == 1
    assert values([one | {"answer": "other"}])["quote_precision"] == pytest.approx(5 / 10)


def test_quote_precision_merges_quotes_that_overlap():
    quotes = [{"text": f"q{n}", "span": span, "p": 0.5} for n, span in enumerate([[0, 10], [5, 15], [40, 45]])]
    quotes.append({"text": "nowhere", "span": None, "p": 0.5})
    one = row(["x" * 10], "q0", quotes=quotes, spans=None)
    assert values([one])["quote_precision"] == pytest.approx(10 / (15 + 5 + 7))
    assert values([one | {"quotes": [quote | {"quoted": False} for quote in quotes], "spans": [[8, 12]]}])[
        "quote_precision"
    ] == pytest.approx(2 / 4)


@given(rows(), st.lists(st.sampled_from([1, 2, 3]), min_size=8, max_size=8))
@settings(max_examples=30, deadline=None)
def test_a_row_of_weight_two_counts_as_two_rows(predictions, times):
    weighted = [p | {"weight": float(n)} for p, n in zip(predictions, times, strict=False)]
    copies = [p | {"id": f"{p['id']}.{k}"} for p, n in zip(predictions, times, strict=False) for k in range(n)]
    one, many = scores.cuad_scores(weighted, **FAST), scores.cuad_scores(copies, **FAST)
    pd.testing.assert_frame_equal(one, many, rtol=1e-9, atol=1e-12)


@given(rows())
@settings(max_examples=30, deadline=None)
def test_an_interval_holds_its_value_and_stays_a_share(predictions):
    board = scores.cuad_scores(predictions, **FAST)
    known = board.dropna()
    assert ((known["low"] <= known["value"] + 1e-9) & (known["value"] <= known["high"] + 1e-9)).all()
    assert known[["value", "low", "high"]].stack().between(0, 1).all()
    assert board[board["n_contracts"] < 2][["low", "high"]].isna().all(axis=None)
    assert list(board["measure"]) == list(scores.MEASURES)


def many(n_contracts, seed=0):
    draw, made = np.random.default_rng(seed), []
    for n in range(20 * n_contracts):
        golds = ["the laws of the State of Ohio"] if n % 2 else []
        answer = draw.choice(["the laws of the State of Ohio", NO_CLAUSE, "other words altogether"])
        quotes = [{"text": str(answer), "span": [0, 9], "p": float(draw.random())}]
        made.append(row(golds, str(answer), id=str(n), contract=f"c{n // 20}", quotes=quotes))
    return made


def test_more_contracts_make_narrower_intervals():
    few, more = (scores.cuad_scores(many(n), n_resamples=400).set_index("measure") for n in (6, 60))
    for name in ("detection_f1", "coverage_f1", "quote_f1", "aupr"):
        assert few["high"][name] - few["low"][name] > 1.5 * (more["high"][name] - more["low"][name]), name


def test_the_same_seed_gives_the_same_intervals_in_any_order_of_rows():
    predictions = many(5)
    board = scores.cuad_scores(predictions, **FAST)
    pd.testing.assert_frame_equal(board, scores.cuad_scores(predictions[::-1], **FAST), rtol=1e-9)
    assert not board.equals(scores.cuad_scores(predictions, n_resamples=60, seed=2))


def test_small_blocks_of_draws_change_nothing(monkeypatch):
    whole = scores.cuad_scores(many(5), **FAST)
    monkeypatch.setattr(scores, "BLOCK", 1)
    pd.testing.assert_frame_equal(whole, scores.cuad_scores(many(5), **FAST))


def test_quote_precision_takes_the_place_that_shares_most():
    gold = "x" * 10  # at 0 to 10
    two = row([gold], "some words here", spans=[[50, 65], [4, 16]])  # shares 6 of 12
    nowhere = row([gold], "y" * 8, id="2")
    without = row([], "z" * 5, id="3", spans=[[7, 12]])
    assert values([two, nowhere, without])["quote_precision"] == pytest.approx(6 / (12 + 8 + 5))
    assert math.isnan(values([row([gold], "words", spans=None)])["quote_precision"])
    assert math.isnan(values([row([gold])])["quote_precision"])


def test_verbatim_asks_every_quote_of_an_n_best_list():
    def quote(*spans):
        return [{"text": f"w{n}", "span": span, "p": 0.5} for n, span in enumerate(spans)]

    def share(**more):
        return values([row(["w"], "w0", **more)])["verbatim"]

    assert share(spans=[[0, 1]]) == 1 and share(spans=[]) == 0 and math.isnan(share(spans=None))
    assert share(quotes=quote([0, 1], [2, 3])) == 1 and share(quotes=quote([0, 1], None), spans=[[0, 1]]) == 0


def test_a_failed_row_is_no_output_and_no_refusal():
    failed = row(["the term"], None, error="timeout", quotes=[{"text": "the term", "span": None, "p": 0.9}])
    found = values([failed, row([], None, id="2")])
    assert found["failed"] == 1 and found["laziness"] == 0 and found["detection_recall"] == 0 and found["aupr"] == 0
    assert math.isnan(found["detection_precision"]) and found["coverage_recall"] == 0
    assert values([row(["the term"])])["laziness"] == 1


def test_a_system_that_always_refuses_scores_nothing():
    found = values([row(["a b"], id="1"), row([], id="2"), row([], id="3")])
    assert found[["detection_f1", "quote_f1", "coverage_f1", "aupr"]].eq(0).all()


def test_the_parties_rule_asks_the_category_or_the_id():
    long = "this agreement between Acme and many many other words"
    assert values([row(["Acme"], long)])["precision_at_80_recall"] == 0
    for named in ({"category": "Parties"}, {"id": "Contract__Parties"}):
        assert values([row(["Acme"], long, **named)])["precision_at_80_recall"] == 1


def test_the_point_of_threshold_zero_is_not_looked_at():
    def at(p):
        return values([row(["a b"], "a b", quotes=[{"text": "a b", "span": None, "p": p}])])["precision_at_80_recall"]

    assert at(0.0005) == 0 and at(0.002) == 1


@pytest.mark.parametrize(
    ("predictions", "said"),
    [
        ([], "no predictions"),
        ([row(), row()], "twice"),
        ([row(system="sft"), row(id="2", system="dpo")], "dpo, sft"),
        ([{"id": "1"}], "contract"),
        ([row(answer=3)], "give text"),
        ([row(["x"], is_impossible=True)], "gold spans"),
        ([row([""])], "gold spans"),
        ([row(contract=None)], "no contract"),
    ],
)
def test_bad_input_is_refused(predictions, said):
    with pytest.raises(InputError, match=said):
        scores.cuad_scores(predictions, **FAST)


def test_four_thousand_questions_with_twenty_quotes_take_seconds():
    quotes = [
        {"text": " ".join(WORDS[k % 10] * 4 for k in range(n, n + 30)) + f" {n}", "span": None} for n in range(20)
    ]
    predictions = [
        row(
            ["the laws of the State of Ohio"] if n % 3 == 0 else [],
            id=str(n),
            contract=str(n % 90),
            quotes=[quote | {"p": (7 * n + k) % 100 / 100} for k, quote in enumerate(quotes)],
        )
        for n in range(4000)
    ]
    start = time.perf_counter()
    scores.cuad_scores(predictions)
    assert time.perf_counter() - start < 30  # 2 s on an idle core


# --- beside published results


def test_published_systems_are_read_with_their_sources():
    table = scores.official_table({})
    assert list(table.columns) == scores.TABLE_COLUMNS and len(table) == 15
    assert table["source"].notna().all() and not table["ours"].any()
    best = table.set_index("system").loc["DeBERTa-xlarge"]
    assert (best["aupr"], best["precision_at_80_recall"]) == (0.478, 0.44)
    rates = table[["detection_f1", "coverage_f1", "token_f1_both", "verbatim", "aupr"]].stack().dropna()
    assert rates.between(0, 1).all()


def test_our_systems_stand_above_the_published_ones():
    board = scores.cuad_scores(many(3), **FAST)
    table = scores.official_table({"sft": board, "rag": board})
    assert list(table["system"][:2]) == ["sft", "rag"] and list(table["ours"]) == [True] * 2 + [False] * 15
    assert list(table["n_contracts"][:2]) == [3, 3]
    found = board.set_index("measure")
    for name in ("detection_f1", "coverage_f1", "aupr"):
        assert table.at[0, name] == found.at[name, "value"] and table.at[0, f"{name}_low"] == found.at[name, "low"]
    assert "on 3 of the 102 contracts" in scores.setup_differences(table)[0]
    assert "on none of" in scores.setup_differences(scores.official_table({}))[0]


def test_the_published_results_are_shipped():
    import tomllib
    from pathlib import Path

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert "*.csv" in project["tool"]["setuptools"]["package-data"]["cuadft.evaluation"]
