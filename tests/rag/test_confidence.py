"""Stage A of the confidence: what the clause classifiers say becomes a probability, from train contracts alone."""

import copy
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import small
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.data.passages import Passage, join_passages, overlapping
from cuadft.data.rows import passages_by_contract
from cuadft.evaluation.confidence import is_right
from cuadft.rag.calibration import LEAST_QUESTIONS
from cuadft.rag.confidence import (
    ABSENT_SHARE,
    CONFIDENCE_FILE,
    LENGTH_SPANS,
    READ_FROM,
    Confidence,
    Look,
    length_off,
    load_confidence,
    save_confidence,
    usual_lengths,
)
from cuadft.retrieval.retriever import Hit, Retriever

TRAIN, NEW = range(60), range(100, 150)
ROWS, NEW_ROWS = small.clause_corpus(TRAIN)[0], small.clause_corpus(NEW)[0]
OTHER_WORDS = "Tell me: does it say anything about the {}?"


def fit(retriever: Retriever, rows: Sequence[dict[str, Any]] = ROWS, cost: float = 1.0, **settings) -> Confidence:
    return Confidence.fit(retriever, rows, k=3, false_answer_cost=cost, **settings)


def looks(
    confidence: Confidence, retriever: Retriever, rows: Sequence[dict[str, Any]], question: str = ""
) -> list[Look]:
    """Return the looks at rows, asked as they are or as `question` with their category in it."""
    asked = [(question.format(row["category"]) or row["question"], row["contract"]) for row in rows]
    return confidence.look(retriever, asked, k=3)


def reworded(rows: Sequence[dict[str, Any]], **changed) -> list[dict[str, Any]]:
    return [row | {"question": OTHER_WORDS.format(row["category"]), "source": "template"} | changed for row in rows]


@pytest.fixture(scope="module")
def retriever() -> Retriever:
    """A retriever that has learned from TRAIN and holds NEW, too."""
    return small.clause_retriever(TRAIN, NEW)


@pytest.fixture(scope="module")
def confidence(retriever) -> Confidence:
    return fit(retriever)


# --- what a probability says


def test_of_new_contracts_those_with_the_clause_are_likelier_to_hold_it(confidence, retriever):
    found = looks(confidence, retriever, NEW_ROWS)
    p, truth = np.array([look.p_exists for look in found]), np.array([bool(row["answers"]) for row in NEW_ROWS])
    assert np.mean(p[truth][:, None] > p[~truth]) > 0.9 and p.mean() == pytest.approx(truth.mean(), abs=0.1)
    base = truth.mean()
    assert np.mean((p - truth) ** 2) < 0.5 * base * (1 - base)
    assert all(look.calibrated and look.threshold == 0.5 for look in found)


def test_the_passages_with_the_clause_are_likelier_than_the_others_that_were_found(confidence, retriever):
    held, others = [], []
    for row, look in zip(NEW_ROWS, looks(confidence, retriever, NEW_ROWS)):
        own = overlapping([hit.passage for hit in look.hits], row["answers"])
        assert len(look.passage_p) == len(look.hits)
        for hit, p in zip(look.hits, look.passage_p):
            (held if hit.passage.index in own else others).append(p)
    assert np.mean(np.array(held)[:, None] > others) > 0.9
    assert np.mean([*held, *others]) == pytest.approx(len(held) / len([*held, *others]), abs=0.06)


def test_train_contracts_are_judged_by_classifiers_that_have_not_seen_them(confidence, retriever):
    found = looks(confidence, retriever, ROWS)
    assert np.mean([look.p_exists for look in found]) == pytest.approx(confidence.about["base_rate"], abs=1e-3)
    single = [(row, look.p_exists) for row, look in zip(ROWS, found) if len(row["answers"]) == 1]
    odd = [
        p for row, p in single if f"{row['category'].lower()}{row['contract'].split()[1]}a" in row["answers"][0]["text"]
    ]
    assert len(odd) >= 8, "clauses in words that no other contract has: only who saw them knows them"
    assert np.mean(odd) < 0.6 < 0.9 < np.mean([p for _, p in single if p not in odd])


def test_the_same_train_rows_give_the_same_confidence_and_its_key_changes_with_the_costs(confidence, retriever):
    assert fit(retriever) == confidence and fit(retriever).key == confidence.key
    dearer = fit(retriever, cost=3.0)
    assert dearer.key != confidence.key and dearer.threshold == 0.75
    assert dearer.key == replace(confidence, false_answer_cost=3.0).key, "nothing else depends on the costs"
    (one,), (other,) = (looks(each, retriever, NEW_ROWS[:1]) for each in (confidence, dearer))
    assert other == replace(one, threshold=0.75)


# --- questions in other words, and questions of no class


def test_questions_in_other_words_have_the_shifted_probability(confidence, retriever):
    denied = [row if n % 2 else row | {"answers": []} for n, row in enumerate(reworded(ROWS))]  # a likeness may mislead
    shifted = fit(retriever, reworded=denied)
    assert shifted.exists == confidence.exists and shifted.reworded is not None is confidence.reworded
    known, plain, other = (
        looks(made, retriever, NEW_ROWS, question)
        for made, question in ((shifted, ""), (confidence, OTHER_WORDS), (shifted, OTHER_WORDS))
    )
    for one, two, three, four in zip(looks(confidence, retriever, NEW_ROWS), known, plain, other):
        assert one.p_exists == two.p_exists == three.p_exists and four.calibrated
        assert one.p_exists < 0.3 or four.p_exists < one.p_exists
    sure = [(one.p_exists, two.p_exists) for one, two in zip(known, other) if one.p_exists > 0.9]
    assert len(sure) > 20 and np.mean([p for _, p in sure]) == pytest.approx(0.5, abs=0.15)


def test_few_questions_in_other_words_shift_nothing(retriever):
    assert fit(retriever, reworded=reworded(ROWS[:LEAST_QUESTIONS])).reworded is not None
    assert fit(retriever, reworded=reworded(ROWS[: LEAST_QUESTIONS - 1])).reworded is None
    known = [row | {"source": "template"} for row in ROWS]  # in the very words that are known
    assert fit(retriever, reworded=known).reworded is None


@pytest.mark.parametrize("cost", [0.01, 1.0, 99.0])
def test_a_question_that_is_like_no_known_one_is_never_decided(retriever, cost):
    for look in looks(fit(retriever, cost=cost), retriever, NEW_ROWS[::3], "What is for lunch?"):
        assert 0 < look.p_exists < 1 and not look.calibrated
        assert look.may_refuse and not look.absent and look.read == [0, 1, 2]


# --- what nothing is fitted on


def test_rows_of_dev_and_test_contracts_and_generated_rows_change_nothing(confidence, retriever):
    twisted = [row | {"answers": [] if row["answers"] else [{"text": "Each", "start": 0}]} for row in NEW_ROWS]
    generated = [row | {"source": "synthetic", "answers": []} for row in ROWS]
    assert fit(retriever, [*twisted, *ROWS, *generated]) == confidence
    own = fit(retriever, reworded=reworded(ROWS))
    assert fit(retriever, reworded=[*reworded(ROWS), *reworded(twisted)]) == own
    assert fit(retriever, reworded=reworded(twisted)) == confidence


def test_the_answers_of_the_train_rows_do_matter(confidence, retriever):
    twisted = [row | {"answers": []} if row["category"] == "Law" else row for row in ROWS]
    p = [look.p_exists for look in looks(fit(retriever, twisted), retriever, NEW_ROWS)]
    before = [look.p_exists for look in looks(confidence, retriever, NEW_ROWS)]
    lowered = {row["category"] for row, one, two in zip(NEW_ROWS, p, before) if one < two - 0.3}
    assert lowered == {"Law"}


def test_without_a_classifier_or_with_too_few_questions_there_is_no_confidence(retriever):
    assert fit(Retriever(retriever.passages, None, mode="bm25")) is None
    one_of_a_kind = [row | {"answers": row["answers"] if n < 4 else []} for n, row in enumerate(ROWS)]
    unlearned = [row | {"question": "What is for lunch?"} for row in ROWS]
    for rows in (ROWS[: LEAST_QUESTIONS - 1], NEW_ROWS, one_of_a_kind, unlearned, []):
        assert fit(retriever, rows) is None


@pytest.mark.parametrize("rows", [ROWS, []])
def test_costs_that_are_no_costs_are_refused(retriever, rows):
    with pytest.raises(InputError, match="false_answer_cost"):
        fit(retriever, rows, cost=0.0)


# --- which passages are read

shares = st.floats(0, 1)


def look_of(p_exists: float, passage_p: Sequence[float], threshold: float, calibrated: bool = True) -> Look:
    hits = [Hit(Passage("C", n, n, n + 1, "x"), 1.0) for n in range(len(passage_p))]
    return Look(hits, p_exists, tuple(passage_p), threshold, calibrated)


@given(shares, st.lists(shares, max_size=4), shares)
def test_the_best_passage_is_read_unless_the_clause_is_surely_absent_and_more_where_it_is_surely_there(
    p, own, threshold
):
    look = look_of(p, own, threshold)
    assert look.absent == (p < ABSENT_SHARE * threshold) and look.may_refuse == (p < threshold)
    if look.absent or not own:
        assert look.read == []
    else:
        likely = [n for n in range(1, len(own)) if own[n] >= READ_FROM]
        assert look.read == [0] + (likely if p >= threshold else [])


@given(shares, st.lists(shares, max_size=4), shares)
def test_where_nothing_is_calibrated_every_passage_is_read_and_may_be_refused(p, own, threshold):
    for look in (look_of(p, own, threshold, calibrated=False), Look(look_of(p, own, threshold).hits)):
        assert look.read == list(range(len(own))) and look.may_refuse and not look.absent


# --- files


def test_a_saved_confidence_is_the_same_after_loading(confidence, retriever, tmp_path):
    for made in (confidence, fit(retriever, cost=2.0, reworded=reworded(ROWS))):
        save_confidence(made, tmp_path)
        back = load_confidence(tmp_path)
        assert back.key == made.key and (back.reworded is None) == (made.reworded is None)
        for question in ("", OTHER_WORDS, "lunch?"):
            rows = NEW_ROWS[:9]
            assert looks(back, retriever, rows, question) == looks(made, retriever, rows, question)
    save_confidence(None, tmp_path)
    save_confidence(None, tmp_path)  # as often as one likes
    assert load_confidence(tmp_path) is None and not (tmp_path / CONFIDENCE_FILE).exists()


def damaged(saved: dict[str, Any]) -> list[Any]:
    """Return contents of a file that no version saved: torn, foreign, with parts missing or of another kind."""
    feature = saved["exists"]["features"][0]
    return [
        [],
        {},
        3,
        saved | {"exists": None},
        saved | {"passage": {}},
        saved | {"unknown": 5},
        saved | {"exists": saved["exists"] | {"features": [feature | {"weight": "heavy"}]}},
        saved | {"exists": saved["exists"] | {"features": [{"feature": "best"}]}},
        {name: part for name, part in saved.items() if name != "about"},
    ]


def test_a_damaged_file_is_named(confidence, tmp_path):
    save_confidence(confidence, tmp_path)
    path = tmp_path / CONFIDENCE_FILE
    whole = path.read_text()
    for text in [*map(json.dumps, damaged(json.loads(whole))), whole[:-50], ""]:
        files.write_text(path, text)
        with pytest.raises(InputError, match=CONFIDENCE_FILE):
            load_confidence(tmp_path)
    for cost in (-1.0, "much"):
        files.write_json(path, json.loads(whole) | {"false_answer_cost": cost})
        with pytest.raises(InputError, match="Invalid false_answer_cost"):
            load_confidence(tmp_path)


# --- sentences


def test_the_likeliest_sentence_of_a_new_contract_is_a_right_quote_as_often_as_it_says(confidence, retriever):
    first = [
        (row, look.sentences[0])
        for row, look in zip(NEW_ROWS, looks(confidence, retriever, NEW_ROWS))
        if look.sentences
    ]
    right = [is_right(quote.text, row) for row, quote in first]
    assert len(first) > 50 and np.mean([quote.p for _, quote in first]) == pytest.approx(np.mean(right), abs=0.1)
    sure = [good for good, (_, quote) in zip(right, first) if quote.p > 0.8]
    assert len(sure) > 20 and np.mean(sure) > 0.8


def test_sentences_stand_where_they_say_and_come_likeliest_first(confidence, retriever):
    texts = {t: join_passages(own)[0] for t, own in passages_by_contract(retriever.passages).items()}
    for row, look in zip(NEW_ROWS, looks(confidence, retriever, NEW_ROWS)):
        assert [quote.p for quote in look.sentences] == sorted((quote.p for quote in look.sentences), reverse=True)
        for quote in look.sentences:
            assert quote.text == " ".join(texts[row["contract"]][slice(*quote.span)].split())
            held = quote.evidence.get("passage_p")
            assert held is None or held in look.passage_p


def test_a_question_of_no_class_has_no_sentences_and_a_classifier_without_them_gives_none(confidence, retriever):
    (strange,) = confidence.look(retriever, [("Who is the seller?", NEW_ROWS[0]["contract"])], k=3)
    assert strange.sentences == ()
    bare = copy.copy(retriever)
    bare.classifier = copy.copy(retriever.classifier)
    bare.classifier.sentences = None
    alone = fit(bare)
    assert alone.sentence is None and all(look.sentences == () for look in looks(alone, bare, NEW_ROWS))


# --- how long a quote usually is


def of_lengths(category: str, *words: int) -> dict[str, Any]:
    return {"category": category, "answers": [{"text": "word " * n} for n in words]}


def test_a_quote_of_its_categorys_length_is_off_by_nothing_and_a_longer_or_shorter_one_by_more():
    usual = usual_lengths([of_lengths("Name", *[3] * 200), of_lengths("Licence", *[60, 80] * 100)])
    name, licence = (lambda n: length_off("w " * n, usual["Name"])), (lambda n: length_off("w " * n, usual["Licence"]))
    assert name(3) < 0.2 and licence(70) < 0.2
    assert name(3) < name(6) < name(12) < name(70) and name(3) < name(1)
    assert licence(70) < licence(20) < licence(3) and licence(70) < licence(300)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=30), st.lists(st.integers(1, 200), max_size=5))
def test_a_category_with_few_spans_is_drawn_towards_all(many, few):
    rows = [of_lengths("many", *many), of_lengths("few", *few)]
    usual = usual_lengths(rows)
    logs = {name: [np.log1p(n) for n in own] for name, own in (("many", many), ("few", few), ("", [*many, *few]))}
    everywhere = np.mean(logs[""])
    assert usual[""][0] == pytest.approx(everywhere) and all(deviation > 0 for _, deviation in usual.values())
    drawn = (sum(logs["few"]) + LENGTH_SPANS * everywhere) / (len(few) + LENGTH_SPANS)
    assert usual["few"][0] == pytest.approx(drawn)
    assert usual_lengths([of_lengths("none")]) == {}


def test_usual_lengths_are_those_of_the_train_rows_own_spans(confidence, retriever):
    assert confidence.lengths == usual_lengths([row for row in ROWS if row["category"] in confidence.lengths])
    known = looks(confidence, retriever, NEW_ROWS[:9])
    assert [look.usual for look in known] == [confidence.lengths[row["category"]] for row in NEW_ROWS[:9]]


def test_a_calibration_of_before_lengths_were_known_still_answers(confidence, tmp_path, retriever):
    save_confidence(confidence, tmp_path)
    path = tmp_path / CONFIDENCE_FILE
    files.write_json(path, {name: part for name, part in json.loads(path.read_text()).items() if name != "lengths"})
    earlier = load_confidence(tmp_path)
    assert earlier.lengths == {} and earlier.exists == confidence.exists
    assert all(look.usual is None for look in looks(earlier, retriever, NEW_ROWS[:4]))
