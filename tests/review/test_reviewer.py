"""A review quotes the contract's own words, says how sure it is, and knows by the text what the run has learned."""

from __future__ import annotations

import json

import pytest
import reviewing
import small
from hypothesis import given

from cuadft.core.errors import InputError
from cuadft.data.documents import document_of_text
from cuadft.data.schema import packaged_schema
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.review import reviewer as module
from cuadft.review.reviewer import Quoted, Review, read_questions, standard_questions

NEW = list(small.TEXTS)[3]


def law_only(messages) -> str:
    passage, question = messages[-1]["content"].split("</passage>")
    asked = question.split("Question: ")[1]
    if asked.startswith("Audit"):
        raise OSError("the line is down")
    return "the law of Maine" if asked.startswith("Governing") and "law of Maine" in passage else NO_CLAUSE


@pytest.fixture
def reviewer(tmp_path):
    return reviewing.reviewer(tmp_path, small.Script(law_only))


def test_quotes_stand_at_their_offsets_and_a_failed_question_keeps_its_error(reviewer):
    document = document_of_text("new", small.TEXTS[NEW])
    review = reviewer.review(document, reviewing.QUESTIONS)
    assert [found.question for found in review.findings] == [each.text for each in reviewing.QUESTIONS]
    law = review.findings[0]
    (quote,) = law.quotes
    assert document.text[quote.start : quote.end] == quote.text == "the law of Maine"
    assert law.state == "unsure" and law.p_clause is None, "nothing is calibrated here"
    failed = next(found for found in review.findings if found.category == "Audit Rights")
    assert failed.state == "failed" and "the line is down" in failed.error and not failed.quotes


def test_a_contract_is_known_by_its_text_and_not_by_its_name(reviewer):
    name, trained = next(iter(small.TEXTS.items()))

    def known(name: str, text: str) -> str:
        return reviewer.review(document_of_text(name, text), reviewing.QUESTIONS[:1]).known

    assert known("anything.pdf", trained) == f"is '{name}', trained on in this run"
    assert known("copy", trained + " And one more sentence.").startswith(f"shares half its wording with '{name}'")
    other = "An entirely different text about boats, harbours and the sea, in which nobody owes anything to anyone."
    assert known(name, other) == ""


def test_a_review_depends_on_text_questions_and_system_but_not_on_the_name(reviewer, tmp_path):
    document = document_of_text("a", small.TEXTS[NEW])
    key = reviewer.key(document)
    assert key == reviewer.key(document_of_text("b", small.TEXTS[NEW]))
    others = [reviewer.key(document_of_text("a", small.TEXTS[NEW] + ".")), reviewer.key(document, reviewing.QUESTIONS)]
    reviewer.system.program.k = 1
    assert key not in [*others, reviewer.key(document)]


def test_one_review_does_not_change_the_next(reviewer):
    documents = [document_of_text(title, text) for title, text in small.TEXTS.items()]
    alone = [reviewer.review(each, reviewing.QUESTIONS).findings for each in documents]
    assert [reviewer.review(each, reviewing.QUESTIONS).findings for each in documents[::-1]] == alone[::-1]


@pytest.mark.parametrize(
    ("p", "quote_p", "state"),
    [
        (0.21, 0.9, "absent"),
        (0.22, 0.9, "unsure"),
        (0.78, 0.9, "unsure"),
        (0.79, 0.9, "sure"),
        (0.99, 0.4, "unsure"),
        (0.99, None, "unsure"),
        (None, 0.9, "unsure"),
    ],
)
def test_states_follow_from_the_threshold(p, quote_p, state):
    quotes = [] if quote_p is None else [Quoted("words", 0, 5, None, quote_p, True)]
    assert module._state(p, quotes, 3 / 7) == state


@given(reviewing.reviews())
def test_a_review_survives_its_file(review):
    assert Review.from_record(json.loads(json.dumps(review.record()))) == review


def test_another_record_is_refused():
    with pytest.raises(InputError, match="is not one"):
        Review.from_record({"key": "x"})


def test_own_questions_are_read_one_a_line_or_from_a_table(tmp_path):
    (tmp_path / "q.txt").write_text("\ufeffIs there a  cap?\n\nWho pays?\nWho pays?\n")
    (tmp_path / "q.csv").write_text("question;category\nWho pays?;Fees\n")
    assert [each.text for each in read_questions(tmp_path / "q.txt")] == ["Is there a cap?", "Who pays?"]
    (one,) = read_questions(tmp_path / "q.csv")
    assert (one.category, one.text) == ("Fees", "Who pays?")
    (tmp_path / "long.txt").write_text("x" * 2000)
    for name in ("long.txt", "missing.txt"):
        with pytest.raises(InputError):
            read_questions(tmp_path / name)


def test_cuads_questions_are_the_41_in_the_words_that_the_run_was_trained_on():
    asked = standard_questions(packaged_schema())
    assert len(asked) == 41 and all(each.text.startswith(f"{each.category}: ") for each in asked)
