"""Properties of CUAD's span measure, held against its script's loops."""

import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cuadft.evaluation.metrics import span_counts, span_jaccard

PIECES = ["Fee", "fee", "fee;", "net/30", "net", "30", "days", "a", "the", "“Agent”", "U.S.", "US", "İ", "-", "."]
SPAN = st.lists(st.sampled_from(PIECES), min_size=1, max_size=6).map(" ".join)
SPANS = st.lists(SPAN, max_size=5)


def script_jaccard(gold, answer):
    sets = []
    for text in (gold, answer):
        for mark in (".", ",", ";", ":"):
            text = text.replace(mark, "")
        sets.append(set(text.lower().replace("/", " ").split()))
    together = sets[0].union(sets[1])
    return len(sets[0].intersection(sets[1])) / len(together) if together else 0.0  # the script divides by zero


def script_counts(predicted, golds, parties):
    # evaluate.py of TheAtticusProject/cuad, as loops: predictions come from a dict by text, without empty ones
    predicted = [text for text in {text: 1.0 for text in predicted} if not text == ""]

    def matches(gold, answer):
        return script_jaccard(gold, answer) >= 0.5 or (parties and gold in answer)

    tp = fp = fn = 0
    if len(golds) == 0:
        fp += len(predicted)
    else:
        for gold in golds:
            if sum(matches(gold, answer) for answer in predicted) > 0:
                tp += 1
            else:
                fn += 1
        for answer in predicted:
            if sum(matches(gold, answer) for gold in golds) == 0:
                fp += 1
    return tp, fp, fn


@given(SPANS, SPANS, st.booleans())
@example(["a b", "a b", ""], ["a b", "a b"], False)
@example(["the Agent shall pay"], ["Agent"], True)
@example([";"], ["."], False)
def test_counts_equal_the_loops_of_cuads_script(predicted, golds, parties):
    assert span_counts(predicted, golds, substring=parties) == script_counts(predicted, golds, parties)


@given(SPAN, SPAN)
def test_jaccard_is_symmetric_and_1_for_equal_words(a, b):
    assert span_jaccard(a, b) == span_jaccard(b, a) == pytest.approx(script_jaccard(a, b))
    assert span_jaccard(a, f"{a} {a.upper()}") == 1 or not span_jaccard(a, a)


@given(SPANS, SPANS)
def test_every_gold_span_is_found_or_missed_and_no_more_predictions_are_wrong_than_there_are(predicted, golds):
    tp, fp, fn = span_counts(predicted, golds)
    assert tp + fn == len(golds) and 0 <= fp <= len(set(predicted))


@given(SPANS.map(lambda spans: [span for span in spans if span_jaccard(span, span)]))
def test_quoting_every_gold_span_finds_them_all(golds):
    assert span_counts(golds, golds) == (len(golds), 0, 0)


def test_counts_by_hand():
    # {fee, due, in, may} and {fee, due, in, june}: 3 of 5 shared, 0.6: found. {law, of, ohio} matches nothing
    assert span_jaccard("Fee, due in May.", "fee due in June") == pytest.approx(0.6)
    golds = ["fee due in june", "law of ohio"]
    assert span_counts(["Fee, due in May.", "notice"], golds) == (1, 1, 1)


def test_two_predictions_of_one_span_are_one_true_positive():
    assert span_counts(["fee due in may", "fee due in june"], ["fee due in june"]) == (1, 0, 0)


def test_one_prediction_can_find_two_overlapping_spans():
    # {fee, due, in, june}: 3 of 4 words shared with each
    assert span_counts(["fee due in june"], ["fee due in", "due in june"]) == (2, 0, 0)


def test_quoting_far_more_than_the_clause_is_punished_though_it_holds_the_clause():
    clause = " ".join(f"w{n}" for n in range(10))
    # 10 of 20 different words: still found; 10 of 21: neither found nor a correct prediction
    assert span_counts([clause + " " + " ".join(f"x{n}" for n in range(10))], [clause]) == (1, 0, 0)
    assert span_counts([clause + " " + " ".join(f"x{n}" for n in range(11))], [clause]) == (0, 1, 1)


def test_only_with_substring_does_a_name_count_inside_a_longer_span():
    answer = ["by and between Acme Inc. and Beta LLC, a company of Ohio"]
    assert span_counts(answer, ["Acme Inc."]) == (0, 1, 1)
    assert span_counts(answer, ["Acme Inc."], substring=True) == (1, 0, 0)


def test_a_hundred_thousand_lines_against_thirty_spans_take_seconds():
    golds = [" ".join(f"w{n}" for n in range(k, k + 60)) for k in range(30)]
    start = time.perf_counter()
    assert span_counts([str(n) for n in range(150_000)], golds) == (0, 150_000, 30)
    assert time.perf_counter() - start < 15  # 1.5 s on one core
