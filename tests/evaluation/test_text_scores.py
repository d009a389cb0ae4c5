"""Properties of exact match, F1 and ROUGE-L, held against the public implementations of their definitions."""

import importlib.util
import os
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torchmetrics.functional.text import rouge_score, squad

from cuadft.evaluation.text_scores import (
    NO_CLAUSE,
    AnswerComparison,
    begins_with_denial,
    is_plain_refusal,
    is_refusal,
    normalise_answer,
    rouge_l,
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
BLANK = ["", " \n", "...", "___", "the", "A.", "-", "—", "–", "…", "“”"]
REWORDED = [
    "No.",
    "None.",
    "N/A",
    "n.a.",
    "Not applicable",
    "Not found.",
    "No such clause.",
    "No such clause exists.",
    "There's no such clause.",
    "No related clause.",
    "NO_ANSWER",
    "CANNOTANSWER",
    "Clause not found",
    "Answer not found in the contract.",
    "It is not specified in the contract.",
    "No clause related to audit rights is present.",
    "No evidence of a non-compete in the contract.",
    "The contract lacks a non-compete clause.",
    "The agreement has no non-compete clause.",
    "Cannot be determined from the contract.",
    "I'm sorry, but the contract does not specify the renewal term.",
    "After reviewing the contract, I found no clause on exclusivity.",
    "The contract between Acme and Beta does not specify a governing law.",
    "No restriction mentioned.",
    "No, it does not.",
    "I don't know.",
    "Answer: Not specified.",
    "Not specified in the passages.",
    "Nothing in the passages answers this question.",
    "The contract does not contain a non-compete clause.",
    "This agreement does not contain a cap on liability.",
    "The passages don’t mention it.",
    "Neither passage mentions a cap.",
    "The excerpt is silent on this.",
    "I can't find that.",
    "Sorry, I could not find any clause about that in the passages.",
    "No, there is no mention of a cap on liability.",
    "There is no non-compete clause in the text.",
    "There is no cap on liability in the contract.",
    "There isn't any such clause.",
    "Unfortunately, the passages do not say who may terminate.",
    "No minimum order size or amount is specified in the given context.",
    "The date of the contract is not explicitly stated in the given context.",
    "The governing law is not specified.",
    f"{NO_CLAUSE} {NO_CLAUSE}",
    "Based on the context provided, there does not appear to be any restriction on either party. The sections discuss "
    "publicity and non-solicitation of employees, but do not mention customers.",
    "Unfortunately, the date is not provided in the context given. Contract dates are typically stated at the end of "
    "the agreement, but that portion does not seem to be included.",
]
NO_REFUSALS = [
    "[•]",
    "The contract lacks nothing that the parties agreed.",
    "This Agreement has no effect on the rights of the Licensor.",
    "It is not the intention of the parties to form a partnership.",
    "There is no such clause about caps, but fees are limited.",
    "Thereisno suchclause",
    "There is a such clause",
    "There is no limitation on the number of copies.",
    "Neither party shall assign this Agreement.",
    "This Agreement does not grant any license to the Marks.",
    "This Agreement does not provide any policyholder with recourse to the assets of the Guarantor.",
    "No license is granted hereunder",
    "No warranty is given by the Supplier.",
    "No provision of this Agreement may be waived except in writing.",
    "None of the parties may assign",
    "Nothing contained in this Agreement will constitute the Parties as partners.",
    "There are no actions or proceedings pending which would prevent the transactions contemplated by this Agreement.",
    "Not applicable to sales of Products in Japan.",
    "Not less than thirty (30) days' notice is required for termination.",
    "No later than June 1, 2008",
    "It does not include information that the recipient already knew.",
    "They are not [***].",
    "No, the party's liability is capped in certain cases.",
    "The contract does not allow either party to assign it.",
    "The date is not provided in the given context. However, it refers to the day when the agreement came into force.",
    "The contract does not state the start of the term. However, Section 15.1 states that the term is 7 years.",
    "The contract does not contain a cap: either party is liable for $5.",
    'The contract does not say so "Either party may terminate this Agreement upon thirty days notice."',
]
REDACTIONS = ["[***]", "[ * ]", "[* * *].", "***"]
LONG_CLAUSE = " Either party may terminate this Agreement upon thirty (30) days' prior notice."
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
LATIN = st.characters(max_codepoint=0x36F) | st.characters(min_codepoint=0x2000, max_codepoint=0x206F)
TEXT = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map(" ".join),
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.text(alphabet="abthe ANT.,'-\n\t é“1", max_size=30),
    st.text(LATIN, max_size=20),
)
TEXT = TEXT.filter(lambda text: "*" not in text)  # SQuAD takes a redaction for no answer, see `REDACTIONS`
ANSWER = st.one_of(TEXT, st.sampled_from(REFUSALS + BLANK + REWORDED + NO_REFUSALS[:-7]))
GOLDS = st.lists(TEXT, max_size=4).flatmap(lambda g: st.sampled_from([g, g + g[:1]]))  # the latter repeats a span


def exact_match(answer, golds):
    return AnswerComparison(answer, golds).exact_match()


def torch_squad(answer, golds):
    """Return torchmetrics' F1 and exact match (SQuAD's rules; the maximum over the spans)."""
    found = squad([{"prediction_text": answer, "id": "1"}], [{"answers": {"text": golds}, "id": "1"}])
    return found["f1"].item() / 100, found["exact_match"].item() / 100


def squad_v2(answer, golds):
    # What version 2.0 of the script adds: spans without any word are left out, and if none is left "" is the answer.
    # Every refusal, in whatever words, is mapped to the script's empty prediction; other answers stay as they are.
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
def test_rouge_l_equals_torchmetrics(answer, golds):
    kept = [gold for gold in golds if normalise_answer(gold)]
    found = AnswerComparison(answer, golds).rouge_l()
    if is_refusal(answer) or not normalise_answer(answer) or not kept:
        assert found == exact_match(answer, golds)  # abstaining is right or wrong, whatever words the sentence has
    else:
        oracle = rouge_score(answer, [kept], rouge_keys="rougeL", accumulate="best")["rougeL_fmeasure"].item()
        assert found == pytest.approx(oracle, abs=1e-6)  # torchmetrics counts in float32


@pytest.mark.parametrize(
    "a, b, score",
    [
        ("a b c d", "a b c d", 1),
        ("a b c", "x y", 0),
        ("a b c", "c b a", 2 / 6),  # one token in common order: 2 * 1 / (3 + 3)
        ("the fee is due in may", "in may the fee is due", 8 / 12),  # "the fee is due": 2 * 4 / (6 + 6)
        ("a a b", "a b a a", 4 / 7),  # "a a", or "a b": 2 * 2 / (3 + 4)
        ("", "a", 0),
        ("", "", 0),
    ],
)
def test_rouge_l_by_hand(a, b, score):
    assert rouge_l(a.split(), b.split()) == rouge_l(b.split(), a.split()) == pytest.approx(score)


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


@pytest.mark.parametrize("answer", REFUSALS + BLANK)
def test_the_sentence_in_any_case_and_an_answer_without_words_are_plain_refusals(answer):
    assert is_plain_refusal(answer) and is_refusal(answer) and AnswerComparison(answer, []).abstained
    assert (token_f1(answer, []), exact_match(answer, [])) == (1, 1)
    assert token_f1(answer, ["There is no limit to liability in such a clause"]) == 0


@pytest.mark.parametrize("answer", REWORDED)
def test_a_refusal_in_other_words_is_one_for_every_measure_but_not_a_plain_one(answer):
    assert is_refusal(answer) and not is_plain_refusal(answer) and begins_with_denial(answer)
    right, wrong = AnswerComparison(answer, []), AnswerComparison(answer, [answer])
    assert right.abstained and wrong.abstained
    assert [right.f1(), right.f1_all(), right.exact_match(), right.rouge_l()] == [1] * 4
    assert [wrong.f1(), wrong.f1_all(), wrong.exact_match(), wrong.rouge_l()] == [0] * 4


@pytest.mark.parametrize("answer", [*NO_REFUSALS, None])
def test_contract_words_and_answers_that_say_more_are_no_refusals(answer):
    assert not is_refusal(answer) and not is_plain_refusal(answer) and not AnswerComparison(answer, []).abstained


@given(
    st.sampled_from(REFUSALS + REWORDED),
    st.sampled_from([str, str.upper, str.title]),
    st.sampled_from(["{}", '"{}"', "“{}”", "**{}**", "`{}`", "({})", "  {}\n", "{} .", "{}!", "'{}'"]),
)
def test_case_wrapping_and_final_punctuation_change_no_refusal(answer, cased, wrapping):
    for text in (answer, answer.rstrip(".")):
        assert is_refusal(wrapping.format(cased(text)))
        assert is_refusal(wrapping.format(cased(text).replace(" ", " \n ")))


@given(st.sampled_from(REFUSALS + REWORDED), st.sampled_from(["{}.{}", '{}. "{}"', "{}:{}", "{} -{}", "{}, but{}"]))
def test_a_refusal_that_goes_on_with_a_clause_is_none(answer, joined):
    assert not is_refusal(joined.format(answer.strip(" ."), LONG_CLAUSE))


def test_what_an_answer_begins_with_is_told_whatever_follows():
    assert begins_with_denial("No, the party's liability is capped.") and begins_with_denial(REWORDED[14] + LONG_CLAUSE)
    assert not any(map(begins_with_denial, NO_REFUSALS[:4] + NO_REFUSALS[5:22]))


@pytest.mark.parametrize("answer", REDACTIONS)
def test_a_redaction_is_an_answer_not_a_refusal(answer):
    compared = AnswerComparison(answer, [])
    assert not is_refusal(answer) and not compared.abstained and compared.f1() == compared.exact_match() == 0
    assert exact_match(answer, REDACTIONS) == token_f1(answer, ["[***]"]) == 1 and exact_match("", ["[***]"]) == 0


def test_a_failed_answer_does_not_abstain():
    failed = AnswerComparison(None, [])
    assert not failed.abstained
    assert (failed.f1(), failed.f1_all(), failed.exact_match(), failed.rouge_l()) == (0, 0, 0, 0)


def test_ten_thousand_answers_are_read_in_no_time():
    answers = [f"{n} {LONG_CLAUSE * 3} Notice {n} is not due." for n in range(8000)] + REWORDED * 62
    started = time.process_time()
    assert sum(map(is_refusal, answers)) == 62 * len(REWORDED)
    assert time.process_time() - started < 1.5  # 0.15 s on an idle core


@pytest.mark.skipif("CUADFT_CUAD" not in os.environ, reason="set CUADFT_CUAD to CUAD_v1.zip")
def test_no_gold_span_with_a_word_in_it_is_taken_for_a_refusal():
    from cuadft.data import read_contracts

    rows = [row for contract in read_contracts(os.environ["CUADFT_CUAD"]) for row in contract.rows]
    golds = {gold["text"] for row in rows for gold in row["answers"]}
    assert len(golds) > 10_000 and not [gold for gold in golds if normalise_answer(gold) and begins_with_denial(gold)]


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
