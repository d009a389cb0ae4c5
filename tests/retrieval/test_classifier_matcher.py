"""A question's category: by known words, by the nearest known questions, or none."""

import numpy as np

from cuadft.retrieval.classifier import QuestionMatcher


class Axes:
    """Embeds a text as the unit vector of its first letter's place among a to d; counts the texts."""

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked += texts
        return np.array([[float(text[0] == letter) for letter in "abcd"] for text in texts], np.float32)


KNOWN = {"audit the books?": "Audit", "audit rights": "Audit", "buy-back price?": "Price"}


def test_known_words_need_no_embedding_whatever_their_case_and_blanks():
    embedder = Axes()
    assert QuestionMatcher(KNOWN, embedder, least=0.5).match(["Audit  THE\nbooks?", "buy-back price?"]) == [
        "Audit",
        "Price",
    ]
    assert not embedder.asked


def test_other_words_take_the_category_of_the_nearest_questions_and_unlike_ones_none():
    assert QuestionMatcher(KNOWN, Axes(), least=0.5).match(["any audit?", "bargain?", "close?"]) == [
        "Audit",
        "Price",
        None,
    ]


def test_a_known_question_inside_a_longer_one_is_recognised_unless_two_are():
    audit, price = "does a party have the right to audit the books?", "is there a price restriction in the contract?"
    matcher = QuestionMatcher({audit: "Audit", price: "Price", "rights": "Other"}, None, least=0.5)
    asked = [f"Consider the Acme rights; {audit.title()}", f"{audit} {price}", "my rights"]
    assert matcher.match(asked) == ["Audit", None, None]


def test_without_an_embedder_other_words_are_unknown():
    assert QuestionMatcher(KNOWN, None, least=0.5).match(["any audit?", "audit rights"]) == [None, "Audit"]
