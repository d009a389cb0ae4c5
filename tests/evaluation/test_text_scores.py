"""Properties of exact match, F1 and ROUGE-L, held against the public implementations of their definitions."""

import importlib.util
import os
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from torchmetrics.functional.text import squad

from cuadft.evaluation.text_scores import (
    NO_CLAUSE,
    AnswerComparison,
    exact_match,
    is_refusal,
    normalise_answer,
    token_f1,
)

REFUSALS = [
    NO_CLAUSE,
    "there is no such clause",
    "THERE IS NO SUCH CLAUSE!",
    "  There is\nno such clause. ",
    f'"{NO_CLAUSE}"',
    "There_is no—such “clause”...",
    "… there is no such clause \u00a0",
]
NEARLY = [
    "",
    " ",
    "...",
    "the",
    "There is no such clause about caps, but fees are limited.",
    "No such clause.",
    "Thereisno suchclause",
    f"{NO_CLAUSE} {NO_CLAUSE}",
    "There is no such clause 1",
    "There is a such clause",
]
PIECES = [
    "the",
    "The",
    "a",
    "AN",
    "an.",
    "net",
    "net",
    "30",
    "days",
    "U.S.",
    "don't",
    "“agent”",
    "the“agent”",
    "a-b",
    "ß",
    "SS",
    "İ",
    "ſuch",
    "ﬁve",
    "x_y",
    "§",
    "—",
    ".",
    ",",
    "\u00a0",
    "\u2003",
    "\n",
    "\r\n",
    "\t",
    "\x00",
    "",
]
TEXT = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.text(alphabet="abthe ANT.,'-\n\t é“1", max_size=30),
    st.text(max_size=20),
)
ANSWER = st.one_of(TEXT, st.sampled_from(REFUSALS + NEARLY))
GOLDS = st.lists(TEXT, max_size=4).flatmap(lambda g: st.sampled_from([g, g + g[:1]]))  # the latter repeats a span


def torch_squad(answer, golds):
    """Return torchmetrics' F1 and exact match (SQuAD's rules; the maximum over the spans)."""
    found = squad([{"prediction_text": answer, "id": "1"}], [{"answers": {"text": golds}, "id": "1"}])
    return found["f1"].item() / 100, found["exact_match"].item() / 100


def squad_v2(answer, golds):
    # What version 2.0 of the script adds: spans without any word are left out, and if none is left "" is the answer.
    kept = [gold for gold in golds if torch_squad("", [gold])[1] == 0] or [""]
    return torch_squad("" if is_refusal(answer) else answer, kept)


@settings(deadline=None, max_examples=300)
@given(ANSWER, GOLDS)
@example("", [])
@example(NO_CLAUSE, ["the"])
@example("the", [""])
@example("a b\nc", ["c", "a b", "a b\nc d"])
def test_f1_and_exact_match_equal_squad_2(answer, golds):
    f1, em = squad_v2(answer, golds)
    assert token_f1(answer, golds) == pytest.approx(f1, abs=1e-6)  # torchmetrics counts in float32
    assert exact_match(answer, golds) == em


@pytest.mark.skipif("CUADFT_TEST_SQUAD" not in os.environ, reason="set CUADFT_TEST_SQUAD to SQuAD's evaluate-v2.0.py")
@settings(deadline=None, max_examples=3000)
@given(ANSWER, GOLDS)
def test_f1_and_exact_match_equal_the_official_script(answer, golds):
    spec = importlib.util.spec_from_file_location("squad_script", os.environ["CUADFT_TEST_SQUAD"])
    spec.loader.exec_module(script := importlib.util.module_from_spec(spec))
    data = [{"paragraphs": [{"qas": [{"id": "1", "answers": [{"text": gold} for gold in golds]}]}]}]
    em, f1 = script.get_raw_scores(data, {"1": "" if is_refusal(answer) else answer})
    assert (token_f1(answer, golds), exact_match(answer, golds)) == (f1["1"], em["1"])


@settings(deadline=None, max_examples=300)
@given(ANSWER, GOLDS)
def test_rouge_l_equals_the_rouge_score_package(answer, golds):
    kept = [gold for gold in golds if normalise_answer(gold)]
    found = AnswerComparison(answer, golds).rouge_l()
    if is_refusal(answer) or not normalise_answer(answer) or not kept:
        assert found == exact_match(answer, golds)  # abstaining is right or wrong, whatever words the sentence has
    else:
        oracle = RougeScorer(["rougeL"], use_stemmer=False).score_multi(kept, answer)["rougeL"].fmeasure
        assert found == pytest.approx(oracle)


@settings(deadline=None)
@given(ANSWER, GOLDS)
def test_scores_stay_between_0_and_1_and_an_exact_match_has_f1_of_1(answer, golds):
    compared = AnswerComparison(answer, golds)
    scores = [compared.f1(), compared.f1_all(), compared.exact_match(), compared.rouge_l()]
    assert all(0 <= value <= 1 for value in scores)
    assert compared.f1() == 1 or not compared.exact_match()


@given(ANSWER, TEXT)
def test_one_span_or_none_is_all_spans_together(answer, gold):
    for golds in ([], [gold]):
        assert AnswerComparison(answer, golds).f1_all() == token_f1(answer, golds)


def test_f1_of_several_spans_by_hand():
    # spans: "net 30 days", "late fee"; the answer lists both: 5 tokens. Nearest span: p 3/5, r 3/3, F1 = 6/8
    golds, both = ["net 30 days", "the late fee"], "net 30 days\nlate fee"
    assert token_f1(both, golds) == pytest.approx(0.75) and exact_match(both, golds) == 0
    assert AnswerComparison(both, golds).f1_all() == 1
    # the first span alone: nearest 1; together p 3/3, r 3/5, F1 = 6/8
    assert token_f1(golds[0], golds) == 1 and AnswerComparison(golds[0], golds).f1_all() == pytest.approx(0.75)
    # the nearest span by tokens need not be so by order: ROUGE-L with "c b a" is 1/3, with "a c" (2 * 2) / (3 + 2)
    assert AnswerComparison("a b c", ["c b a", "a c"]).rouge_l() == pytest.approx(0.8)


def test_repeated_tokens_count_as_often_as_both_have_them():
    # answer fee x4, gold fee x2: shared 2, p 2/4, r 2/2, F1 = 4/6
    assert token_f1("fee fee fee fee", ["fee fee"]) == pytest.approx(2 / 3)


@pytest.mark.parametrize("answer", REFUSALS)
def test_refusal_ignores_case_punctuation_and_spaces(answer):
    assert is_refusal(answer) and AnswerComparison(answer, []).abstained
    assert (token_f1(answer, []), exact_match(answer, [])) == (1, 1)
    assert token_f1(answer, ["There is no limit to liability in such a clause"]) == 0


@pytest.mark.parametrize("answer", [*NEARLY, None])
def test_only_the_sentence_itself_is_a_refusal(answer):
    assert not is_refusal(answer)


def test_an_answer_without_words_abstains_as_in_squad_and_a_failed_one_does_not():
    for answer in ("", "...", "the"):
        assert AnswerComparison(answer, []).abstained and token_f1(answer, []) == 1 and token_f1(answer, ["fee"]) == 0
    failed = AnswerComparison(None, [])
    assert not failed.abstained
    assert (failed.f1(), failed.f1_all(), failed.exact_match(), failed.rouge_l()) == (0, 0, 0, 0)


BIG = {
    "words": " ".join(f"w{n % 5000}" for n in range(170_000)),
    "one letter": "b " * 500_000,
    "no space": "x" * 1_000_000,
    "punctuation": ".,“" * 333_333,
    "refusals": f"{NO_CLAUSE} " * 43_000,
}


@pytest.mark.parametrize("name", BIG)
def test_an_answer_of_a_million_characters_is_scored_in_seconds(name):
    golds = [" ".join(f"w{n} b" for n in range(k, k + 40)) for k in range(0, 400, 40)]  # 10 spans of 80 words
    compared, start = AnswerComparison(BIG[name], golds), time.perf_counter()
    values = (compared.f1(), compared.f1_all(), compared.exact_match(), compared.rouge_l())
    assert time.perf_counter() - start < 10 and all(0 <= value < 0.01 for value in values)  # 0.3 s on one core
