"""Scores of answers in other languages: the letters of Chinese count one by one, and no foreign sentence refuses."""

from __future__ import annotations

import warnings

import pandas as pd
import pytest
import tongues

from cuadft.data.passages import cut_sentences
from cuadft.evaluation.evidence import compare_texts
from cuadft.evaluation.figures import style
from cuadft.evaluation.metrics import span_jaccard
from cuadft.evaluation.text_scores import (
    AnswerComparison,
    KnownTexts,
    begins_with_denial,
    is_refusal,
    normalise_answer,
    rouge_tokens,
    token_f1,
)

LAW = "适用中华人民共和国法律。"


def test_a_chinese_answer_has_a_token_a_letter_and_no_punctuation():
    assert normalise_answer("「ABC公司」，\u30002026年！") == "abc 公 司 2026 年"
    assert token_f1("中华人民共和国法律", [LAW]) == pytest.approx(2 * 9 / (9 + 11))  # 9 of the gold's 11 letters
    assert AnswerComparison("《" + LAW, [LAW]).exact_match() == 1 and token_f1("双方", [LAW]) == 0
    assert AnswerComparison("中华人民共和国法律", [LAW]).rouge_l() == pytest.approx(2 * 9 / (9 + 11))
    assert span_jaccard("中华人民共和国法律", LAW) == pytest.approx(9 / 11) and span_jaccard("甲方：", "甲方。") == 1


def test_scores_of_latin_letters_are_those_of_squad_and_rouge():
    assert normalise_answer("„Kündigung“, 1.000,50 €") == "„kündigung“ 100050 €"
    assert rouge_tokens("Kündigung § 5") == ["k", "ndigung", "5"] and rouge_tokens("TGF-β1") == ["tgf", "1"]


def test_other_alphabets_have_the_tokens_that_rouge_takes_away():
    assert rouge_tokens("Договор и срок") == ["договор", "срок"] and rouge_tokens("العقد في مكة") == [
        "العقد",
        "في",
        "مكة",
    ]
    assert rouge_tokens("नियम और शर्तें") == ["नियम", "और", "शर्तें"] and rouge_tokens("한국어 계약") == ["한국어", "계약"]
    known = KnownTexts(["本合同适用哪国法律？", "¿Qué ley se aplica al contrato?"])
    assert known.find("本合同适用哪一国法律？", 0.7) and known.find("¿Qué ley se aplica al convenio?", 0.7)
    assert known.find("租金何时支付？", 0.7) is None


@pytest.mark.parametrize("contract", tongues.CONTRACTS, ids=lambda contract: contract.title)
def test_no_sentence_of_another_language_is_taken_for_a_refusal(contract):
    said = [sentence.text.strip() for sentence in cut_sentences(contract.text)]
    said += [span["text"] for row in contract.rows for span in row["answers"]]
    assert not [text for text in said if is_refusal(text) or begins_with_denial(text)]


@pytest.mark.parametrize(
    "text",
    [
        "No se permite la cesión del contrato.",
        "No hay límite alguno de responsabilidad.",
        "No, la responsabilidad es ilimitada.",
        "Nada de lo dispuesto limita los derechos.",
        "Die Haftung ist nicht begrenzt.",
        "Null Euro",
        "三年",
        "无",
        "不得转让。",
    ],
)
def test_a_clause_that_denies_in_another_language_is_an_answer(text):
    assert not is_refusal(text)


def test_the_offline_judge_compares_the_letters_of_a_chinese_answer():
    shares = compare_texts("适用哪国法律？", "中华人民共和国法律", LAW)
    assert shares["phrase_recall"] == pytest.approx(9 / 11) and shares["some"] == 1
    assert compare_texts("适用哪国法律？", "租金每月支付", LAW)["phrase_recall"] == 0


def test_a_figure_with_chinese_names_is_drawn_and_at_most_warns():
    figure = style.Figure(5, 3)
    rows = pd.DataFrame([{"system": "rag", "value": 0.5, "low": 0.4, "high": 0.6}] * 2)
    style.interval_dots(figure.subplots(), rows, labels=["适用法律", "Kündigungsfrist"])
    style.foot_note(figure, "合同" * 90)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert figure._repr_png_().startswith(b"\x89PNG")
    missing = [warning for warning in caught if "missing from" in str(warning.message)]
    assert bool(missing) != bool(style.fallback_fonts())
