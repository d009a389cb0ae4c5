"""How signals are weighed, and how overlapping passages give way to the best."""

import numpy as np
import pytest
from bag_of_words import make_embedder
from hypothesis import given, settings
from hypothesis import strategies as st
from small import passages_of

from cuadft.data.passages import Passage, cut_passages
from cuadft.retrieval.retriever import Retriever, standardised

TEXTS = {"A": ["fee fee. ", "law of fees. ", "audit. "], "B": ["law law. ", "fee audit law. ", "term. ", "fee. "]}


class Classes:
    """Stand in for a classifier: knows questions that start with "?", scores passages by length."""

    key = "classes"

    def __init__(self):
        self.calls = []

    def match(self, questions):
        self.calls.append(list(questions))
        return [0 if q.startswith("?") else None for q in questions]

    def classify(self, passages):
        self.calls.append(len(passages))
        return np.array([[len(passage.text)] for passage in passages], np.float32)


@pytest.fixture
def found(tmp_path):
    return Retriever(passages_of(TEXTS), make_embedder(tmp_path), classifier=Classes())


def scores(retriever, query, contract="B"):
    hits = retriever.search(query, contract=contract, k=9)
    return np.array([hit.score for hit in sorted(hits, key=lambda hit: (hit.passage.contract, hit.passage.index))])


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("contract", ["B", None])
def test_fusion_weighs_standardised_words_and_embeddings(found, weight, contract):
    words, meaning = (standardised(scores(found.configured(mode=m), "fee law", contract)) for m in ("bm25", "dense"))
    fused = scores(found.configured(dense_weight=weight), "fee law", contract)
    assert fused == pytest.approx((1 - weight) * words + weight * meaning, abs=1e-5)


@pytest.mark.parametrize("weight", [0.4, 1.0])
@pytest.mark.parametrize("mode", ["fusion", "bm25", "dense"])
def test_the_class_of_a_known_question_is_weighed_in(found, mode, weight):
    plain = found.configured(mode=mode)
    classed = scores(plain.configured(classifier_weight=weight), "? fee law")
    lengths = standardised(np.array([len(text) for text in TEXTS["B"]], float))
    expected = (1 - weight) * standardised(scores(plain, "? fee law")) + weight * lengths
    assert classed == pytest.approx(expected, abs=1e-5)
    unknown = plain.configured(classifier_weight=weight)
    assert unknown.search("fee law", contract="B") == plain.search("fee law", contract="B")


def test_passages_are_classified_once_and_questions_matched_once_a_call(found):
    classed = found.configured(classifier_weight=1.0)
    classed.search_many([("? fee", "A"), ("? fee", "B"), ("? law", None), ("? fee", "A")])
    found.configured(classifier_weight=0.5).search("? law")
    assert found.classifier.calls == [["? fee", "? law"], len(found.passages), ["? law"]]


def test_classes_alone_embed_nothing_for_a_known_question(found):
    found.configured(classifier_weight=1.0).search_many([("? fee", "A"), ("? fee", None)])
    assert found.embedder.embedded == found.embedder.cached == 0
    assert found.configured(classifier_weight=1.0).search("fee", contract="A")[0].passage.text == "fee fee. "


# Overlapping passages


WINDOWS = st.lists(st.tuples(st.sampled_from("AB"), st.integers(0, 30), st.integers(0, 12)), min_size=1, max_size=14)


@settings(max_examples=80, deadline=None)
@given(WINDOWS, st.integers(1, 8), st.sampled_from(["A", None]))
def test_no_two_passages_found_share_a_character_and_none_is_left_out_for_another_reason(windows, k, contract):
    made = [
        Passage(c, n, start, start + size, "fee " * (size // 4) + "x" * (size % 4))
        for n, (c, start, size) in enumerate([*windows, ("A", 0, 3)])
    ]
    retriever = Retriever(made, None, mode="bm25")
    inside = [p for p in retriever.passages if contract in (None, p.contract)]
    hits = retriever.search("fee", contract=contract, k=k)

    def clash(one, two):
        return one.contract == two.contract and bool(set(range(one.start, one.end)) & set(range(two.start, two.end)))

    # the rule by hand: best first, skip what shares a character with one that is kept
    raw = retriever._index.words.scores({"fee": 1.0})
    order = sorted(inside, key=lambda p: -round(float(raw[retriever.passages.index(p)]), 5))
    kept = []
    for passage in order:
        if not any(clash(passage, other) for other in kept):
            kept.append(passage)
    assert [hit.passage for hit in hits] == kept[:k]


def test_the_better_of_two_overlapping_passages_stands_for_both():
    text = "aaaa law. bbbb fee. fee term. cccc dd. law eeee. "
    passages = cut_passages(text, contract="A", size=20, overlap=0.5)
    hits = Retriever(passages, None, mode="bm25").search("fee", contract="A", k=3)
    assert hits[0].passage.text == "bbbb fee. fee term. "
    assert [hit.passage.start for hit in hits[1:]] == [30]  # what starts at 0 and at 20 shares text with the best


def test_the_key_tells_all_settings_apart(found):
    others = [{"mode": "dense"}, {"dense_weight": 0.4}, {"classifier_weight": 0.1}]
    keys = [found.configured(**other).key for other in [{}, *others]]
    assert len(set(keys)) == 4 and found.configured().key == keys[0]
