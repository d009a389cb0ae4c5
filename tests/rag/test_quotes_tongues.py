"""Documents in German, Spanish and Chinese through the program: quotes are their very words, at their very places."""

from __future__ import annotations

import pytest
import tongues

from cuadft.core.text import is_unspaced, quotable
from cuadft.data.passages import Passage, cut_passages
from cuadft.evaluation.metrics import score_predictions
from cuadft.models.local import LocalEngine
from cuadft.models.verbatim import QuoteSource, cut_to_words
from cuadft.rag import inference
from cuadft.rag.program import ContractQA
from cuadft.rag.quotes import quotes_of_reply
from cuadft.rag.training_rows import target_answer
from cuadft.retrieval.retriever import Hit, Retriever

ROWS = [row for contract in tongues.CONTRACTS for row in contract.rows]
PASSAGES = [p for c in tongues.CONTRACTS for p in cut_passages(c.text, contract=c.title, size=300)]


@pytest.mark.parametrize("row", [row for row in ROWS if row["answers"]], ids=lambda row: row["id"])
def test_what_is_taught_of_a_passage_is_its_gold_span_and_can_be_quoted_back(row):
    for passage in (p for p in PASSAGES if p.contract == row["contract"]):
        spans = [span for span in row["answers"] if passage.start <= span["start"] < passage.end]
        spans = [span for span in spans if span["start"] + len(span["text"]) <= passage.end]
        if spans:
            taught = target_answer(row, Hit(passage, 1.0))
            assert set(taught.split("\n")) >= {quotable(span["text"]) for span in spans}
            assert cut_to_words(taught, QuoteSource(quotable(passage.text))) == taught
            placed = {quote.span for quote in quotes_of_reply(taught, passage)}
            assert placed >= {(span["start"], span["start"] + len(span["text"])) for span in spans}


def test_a_changed_chinese_quote_is_snapped_to_the_words_that_it_repeats():
    text = "第三条　租赁期限为三年，自2026年3月1日起\n至2029年2月28日止。租金每月人民币１０，０００元。"
    passage = Passage("A", 0, 50, 50 + len(text), text)
    for reply, said in {
        "租赁期限是三年": "租赁期限为三年",
        "租金每个月人民币１０，０００元": "租金每月人民币１０，０００元",
        "自2026年3月1日起 至2029年2月28日止": "自2026年3月1日起\n至2029年2月28日止",
        "2029": "2029",
        "年": "年",
    }.items():
        (quote,) = quotes_of_reply(reply, passage)
        assert text[quote.span[0] - 50 : quote.span[1] - 50] == said
    (quote,) = quotes_of_reply("乙方不得转租", passage)
    assert quote.span is None


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_model_quotes_the_very_words_of_every_language(tiny, temperature):
    program, lm = ContractQA(Retriever(PASSAGES, None, mode="bm25"), k=2), LocalEngine(tiny, dtype="float32")
    made = inference.answer_batch(program, lm.lm(max_tokens=48, temperature=temperature), ROWS, 8)
    texts, short = {contract.title: contract.text for contract in tongues.CONTRACTS}, 0
    for prediction in made:
        assert prediction["error"] is None
        for quote in prediction["quotes"]:
            said = texts[prediction["contract"]][slice(*quote["span"])]
            assert " ".join(said.split()) == quote["text"]
            short += is_unspaced(said) and len(said) < 4
    assert short, "a quote of a few letters of a text without blanks"
    scores = score_predictions([p | {"system": "rag", "split": "test"} for p in made])
    assert scores[["f1", "rouge_l", "char_recall"]].notna().any().all() and scores["f1"].between(0, 1).all()
