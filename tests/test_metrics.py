"""Properties of the answer, refusal, citation and retrieval metrics."""

import collections
import math
import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft import metrics
from cuadft.errors import InputError
from cuadft.matching import normalise, overlap
from cuadft.metrics import NO_CLAUSE, exact_match, is_refusal, score, token_f1

WORDS = st.text(alphabet="abth eTAN.,'-\n\t é“1", max_size=30)
GOLDS = st.lists(WORDS.filter(lambda t: normalise(t)), min_size=1, max_size=3)


# The rules of the official SQuAD 2.0 script, written down a second time from their definition.
def squad_tokens(text):
    text = re.sub(rf"[{re.escape(string.punctuation)}]", "", text.lower())
    return [t for t in re.sub(r"\b(?:the|an|a)\b", " ", text).split() if t]


def squad_f1(gold, answer):
    gold, answer = squad_tokens(gold), squad_tokens(answer)
    if not gold or not answer:
        return float(gold == answer)
    same = sum(min(n, collections.Counter(gold)[t]) for t, n in collections.Counter(answer).items())
    return 2 * same / (len(gold) + len(answer))  # = 2pr/(p+r) with p = same/len(answer), r = same/len(gold)


def row(answer="Paris", golds=("Paris",), **other):
    spans = [{"text": text, "start": 100 * i} for i, text in enumerate(golds)]
    base = {
        "system": "sft", "split": "test", "id": "c1__X", "contract": "c1", "contract_type": "License",
        "category": "X", "source": "cuad", "question": "X: which?", "answers": spans,
        "is_impossible": not spans, "answer": answer, "spans": [], "passages": [], "error": None, "seconds": 0.5,
    }  # fmt: skip
    return base | other


def one(**kwargs):
    return score([row(**kwargs)]).iloc[0]


@given(WORDS, GOLDS)
def test_f1_and_exact_match_equal_the_squad_rules(answer, golds):
    if is_refusal(answer):
        return
    texts = [*golds, " ".join(golds)] if len(golds) > 1 else golds
    assert token_f1(answer, golds) == pytest.approx(max(squad_f1(gold, answer) for gold in texts))
    assert exact_match(answer, golds) == max(float(squad_tokens(g) == squad_tokens(answer)) for g in texts)


@given(WORDS)
def test_normalised_text_is_what_squad_keeps(text):
    assert normalise(text).split() == squad_tokens(text)


def test_normalise_drops_case_punctuation_and_articles_in_the_official_order():
    assert (
        normalise(" The  U.S.-based, \nAn  “agent” ") == "usbased “agent”"
    )  # only ASCII punctuation, as in SQuAD


@given(WORDS, GOLDS)
def test_scores_stay_between_0_and_1_and_an_exact_match_has_f1_of_1(answer, golds):
    f1, em = token_f1(answer, golds), exact_match(answer, golds)
    assert 0 <= em <= f1 + 1e-12 and f1 <= 1 + 1e-12


@given(WORDS.filter(normalise), WORDS.filter(normalise))
def test_f1_of_two_texts_is_symmetric(a, b):
    assert overlap(a, b)[2] == pytest.approx(overlap(b, a)[2])


@given(GOLDS)
def test_each_gold_span_and_all_of_them_together_score_1(golds):
    for answer in [*golds, "\n".join(golds)]:
        assert token_f1(answer, golds) == pytest.approx(1) and exact_match(answer, golds) == 1


def test_token_f1_by_hand():
    # answer: net 30 days (3 tokens), gold: within 30 days of invoice (5); 2 shared: p 2/3, r 2/5, F1 = 4/8
    assert token_f1("net 30 days", ["within 30 days of the invoice"]) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "answer",
    [
        NO_CLAUSE,
        "there is no such clause",
        "THERE IS NO SUCH CLAUSE!",
        "  There is\nno such clause. ",
        f'"{NO_CLAUSE}"',
    ],
)
def test_refusal_ignores_case_punctuation_and_spaces(answer):
    assert is_refusal(answer)


@pytest.mark.parametrize(
    "answer",
    ["", None, "There is no such clause about caps, but fees are limited.", "No such clause.", "Thereisno"],
)
def test_only_the_sentence_itself_is_a_refusal(answer):
    assert not is_refusal(answer)


def test_refusal_scores_only_where_there_is_no_clause():
    right, wrong = one(answer=NO_CLAUSE, golds=()), one(answer=NO_CLAUSE)
    assert (right.f1, right.em, right.false_answer) == (1, 1, 0) and math.isnan(right.false_refusal)
    assert (wrong.f1, wrong.em, wrong.false_refusal) == (0, 0, 1) and math.isnan(wrong.false_answer)


def test_refusing_is_wrong_even_if_the_gold_span_shares_its_words():
    assert token_f1(NO_CLAUSE, ["There is no limit to liability in such a clause"]) == 0


def test_answer_where_there_is_no_clause_is_a_false_answer():
    made_up = one(answer="Ten years", golds=())
    assert (made_up.f1, made_up.em, made_up.false_answer) == (0, 0, 1)
    assert math.isnan(made_up.f1_answerable) and math.isnan(made_up.hit)


@pytest.mark.parametrize("golds", [(), ("Paris",)])
def test_failed_row_scores_0_and_is_neither_answer_nor_refusal(golds):
    failed = one(answer=None, golds=golds, error="timeout")
    assert failed.failed and not failed.refused and (failed.f1, failed.em) == (0, 0)
    assert all(math.isnan(failed[m]) for m in ("false_answer", "false_refusal", "cited"))


def test_answer_next_to_an_error_is_not_scored():
    assert one(answer="Paris", error="broken off").f1 == 0


def test_answer_missing_without_an_error_counts_as_failed():
    assert one(answer=None).failed and one(answer=math.nan, error=math.nan).failed


def test_error_that_a_data_frame_turned_into_nan_is_no_error():
    assert one(error=math.nan).f1 == 1


def test_retrieval_by_hand():
    # gold characters 0-10 and 100-110 (20); retrieved 5-25 and 20-30 (together 5-30 = 25); shared 5-10 = 5
    found = one(golds=("abcdefghij",) * 2, passages=[{"start": 5, "end": 25}, {"start": 20, "end": 30}])
    assert (found.hit, found.char_recall, found.char_precision) == (1, 5 / 20, 5 / 25)


def test_passages_that_only_touch_a_gold_span_are_no_hit():
    missed = one(golds=("abcdefghij",), passages=[{"start": 10, "end": 20}])
    assert (missed.hit, missed.char_recall, missed.char_precision) == (0, 0, 0)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 80)), max_size=5))
def test_retrieval_counts_characters_as_sets_do(passages):
    golds, spans = ("x" * 30, "y" * 50), [{"start": s, "end": s + n} for s, n in passages]
    gold = set(range(30)) | set(range(100, 150))
    got = set().union(*(range(s["start"], s["end"]) for s in spans))
    found = one(golds=golds, passages=spans)
    assert found.char_recall == pytest.approx(len(gold & got) / len(gold))
    assert found.char_precision == pytest.approx(len(gold & got) / len(got) if got else 0)
    assert found.hit == bool(gold & got)


def test_citation_applies_to_answers_only():
    assert one(spans=[[0, 5]]).cited == 1 and one(spans=[]).cited == 0
    assert math.isnan(one(answer=NO_CLAUSE).cited)


def test_row_counted_twice_is_refused():
    with pytest.raises(InputError, match="twice"):
        score([row(), row()])


def test_missing_key_and_contradictory_gold_are_named():
    broken = row()
    del broken["error"]
    with pytest.raises(InputError, match="'error'"):
        score([broken])
    with pytest.raises(InputError, match="is_impossible=True"):
        score([row(is_impossible=True)])


def rows():
    # contract c1: F1 1 and 0; contract c2: F1 1 (refusal) and one failure (0)
    return [
        row(id="1"),
        row(id="2", answer="Rome"),
        row(id="3", contract="c2", answer=NO_CLAUSE, golds=(), category="Y"),
        row(id="4", contract="c2", answer=None, error="timeout", category="Y"),
    ]


def test_scoreboard_by_hand():
    board = metrics.scoreboard(score(rows()), n_resamples=200, seed=1).set_index("metric")
    assert (board.loc["f1", "value"], board.loc["f1", "n"], board.loc["f1", "n_contracts"]) == (0.5, 4, 2)
    assert (board["failed"] == 1).all()
    assert board.loc["f1_answerable", "value"] == pytest.approx(1 / 3)  # rows 1, 2 and the failed row 4
    assert (board.loc["false_answer", "value"], board.loc["false_answer", "n"]) == (0, 1)
    assert math.isnan(board.loc["false_answer", "low"])  # one contract only
    assert (board.loc["false_refusal", "n"], board.loc["cited", "n"]) == (2, 2)


def test_scoreboard_takes_up_judge_scores_that_are_joined_to_the_frame():
    frame = score(rows()).assign(judge_score=[1.0, 0.5, math.nan, 0.0])
    board = metrics.scoreboard(frame, n_resamples=50).set_index("metric")
    assert (board.loc["judge_score", "value"], board.loc["judge_score", "n"]) == (0.5, 3)


def test_categories_are_summed_up_separately():
    table = metrics.by_category(score(rows()), n_resamples=50).set_index("category")
    assert (table.loc["X", "value"], table.loc["Y", "value"]) == (0.5, 0.5)
    assert (table.loc["X", "n"], table.loc["X", "n_contracts"]) == (2, 1)
    with pytest.raises(InputError, match="'bleu'"):
        metrics.by_category(score(rows()), "bleu")


def test_no_predictions_give_empty_tables():
    frame = score([])
    assert (
        list(frame) == metrics.SCORED
        and len(metrics.scoreboard(frame)) == len(metrics.by_category(frame)) == 0
    )
