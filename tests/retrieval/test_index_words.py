"""BM25 scores: those of the bm25s library, in any slice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuadft.retrieval.index import BM25Index
from cuadft.retrieval.words import search_words

TEXT = st.lists(st.sampled_from(["fee", "law", "audit", "the", "--"]), max_size=6).map(" ".join)
TEXTS = st.lists(TEXT, min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.dictionaries(st.sampled_from(["fee", "law", "audit", "unheard"]), st.floats(0.125, 2, width=16)))
def test_scores_are_those_of_bm25s(texts, weights):
    import bm25s

    found, expected = BM25Index(texts).scores(weights), np.zeros(len(texts))
    corpus = [search_words(text) for text in texts]
    if any(corpus):
        reference = bm25s.BM25(auto_compile=False)
        reference.index(corpus, show_progress=False)
        for word in weights.keys() & {word for text in corpus for word in text}:
            expected += weights[word] * reference.get_scores([word])
    assert found.dtype == np.float32 and found == pytest.approx(expected, abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(TEXTS, TEXTS)
def test_a_slice_has_the_scores_of_its_texts(before, after):
    whole, weights = BM25Index(before + after), {"fee": 1.0, "law": 0.5}
    rows = slice(len(before), len(before) + len(after))
    assert np.array_equal(whole.scores(weights, rows), whole.scores(weights)[rows])


def test_a_text_by_hand():
    # 2 texts, mean length 2; "law" in one: idf = log(1 + (2 - 1 + 0.5) / (1 + 0.5)) = log 2 = 0.6931; it occurs twice
    # in 3 words: 2 / (2 + 1.5 * (1 - 0.75 + 0.75 * 3 / 2)) = 2 / 4.0625 = 0.4923; 0.6931 * 0.4923 = 0.3412
    assert BM25Index(["law law fee", "fee"]).scores({"law": 1.0}) == pytest.approx([0.3412, 0], abs=1e-4)
