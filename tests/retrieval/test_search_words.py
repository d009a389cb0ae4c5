"""Search and clause classifiers in languages other than English, and in English as if there were none."""

from __future__ import annotations

import random

import pytest
import tongues
from hypothesis import example, given
from hypothesis import strategies as st

from cuadft.core.text import is_unspaced
from cuadft.data.passages import Passage, cut_passages, overlapping
from cuadft.retrieval.classifier import ClauseClassifier, QuestionMatcher
from cuadft.retrieval.retriever import Retriever
from cuadft.retrieval.words import search_words, texts_in_words, with_pairs


@pytest.mark.parametrize("contract", tongues.CONTRACTS, ids=lambda contract: contract.title)
def test_a_question_in_the_language_of_its_document_finds_the_clause_by_words(contract):
    passages = cut_passages(contract.text, contract=contract.title, size=120 if is_unspaced(contract.text) else 300)
    found = Retriever(passages, None, mode="bm25")
    asked = [row for row in contract.rows if row["answers"] and row["category"] != "Parties"]  # names share no word
    hits = [{hit.passage.index for hit in found.search(row["question"], k=3)} for row in asked]
    right = sum(bool(own & set(overlapping(passages, row["answers"]))) for own, row in zip(hits, asked))
    assert right >= 0.6 * len(asked)


def test_letters_and_pairs_are_words_and_wide_forms_are_plain():
    assert search_words(with_pairs("争议解决，２０２６年")) == [
        "争",
        "争议",
        "议",
        "议解",
        "解",
        "解决",
        "决",
        "2026",
        "年",
    ]
    assert search_words(with_pairs("東京ﾄﾞｰﾑ")) == search_words(with_pairs("東京ドーム"))
    assert search_words("Mu\u0308ller") == search_words("Müller") and len(search_words("नियम और शर्तें")) == 3


@given(st.lists(st.text("ab 中国Äé.“", max_size=20), max_size=5))
@example(["Name (中国)", "and more of the contract in English"])
def test_only_contracts_without_blanks_are_changed(texts):
    made = texts_in_words(("A", text) for text in texts)
    assert made == (list(map(with_pairs, texts)) if is_unspaced("".join(texts)) else texts)


def chinese_corpus():
    """Return rows and passages of twelve contracts, half of them with a clause on the law in one of two wordings."""
    rows, passages = [], []
    for number in range(12):
        law = random.Random(number).choice(["本合同适用中华人民共和国法律。", "合同争议受香港特别行政区法律管辖。"])
        parts = [f"甲方应当按月支付费用{number}元。", law if number % 2 else "双方友好协商。", "通知以书面形式送达。"]
        title, start = f"合同{number}", 0
        for index, text in enumerate(parts):
            passages.append(Passage(title, index, start, start + len(text), text))
            start += len(text)
        answers = [{"text": law, "start": len(parts[0])}] if number % 2 else []
        row = {
            "id": title,
            "contract": title,
            "category": "Governing Law",
            "question": "适用哪国法律？",
            "source": "cuad",
        }
        rows.append(row | {"answers": answers})
    return rows, passages


def test_a_classifier_learns_a_clause_of_contracts_without_blanks():
    rows, passages = chinese_corpus()
    matcher = QuestionMatcher({"适用哪国法律？": "Governing Law"}, None, least=0.5)
    classifier = ClauseClassifier.fit(rows, passages, matcher, folds=3, least=3, sentences=False)
    values = classifier.classify(passages)[:, 0]
    with_clause = [n for n, p in enumerate(passages) if p.index == 1 and int(p.contract[2:]) % 2]
    others = [n for n in range(len(passages)) if n not in with_clause]
    assert min(values[with_clause]) > max(values[others])
