"""A retriever over more contracts, and a saved one, are as if built anew; each passage is embedded once."""

import json
import warnings

import numpy as np
import pytest
from bag_of_words import make_embedder
from small import passages_of

from cuadft.core.errors import InputError
from cuadft.retrieval.relevance import RelevanceFeedback
from cuadft.retrieval.retriever import SEARCH_MODES, Retriever

CONTRACTS = {
    "A": ["The fee is due monthly. ", "No party shall be liable. ", "The law of Ohio governs. "],
    "B": ["Royalty reports follow. ", "No audit of the fee. "],
    "C": ["The law of Texas and its audit. ", "Notice of a term. "],
}
QUERIES = [("law and fee", None), ("audit of the fee", "A"), ("liable", "C"), ("royalty law", "B")]
ROWS = [
    {"question": "Which law?", "contract": "T", "answers": [{"text": "the law of Maine governs", "start": 0}]},
    {"question": "Which law?", "contract": "U", "answers": [{"text": "law of Utah", "start": 0}]},
    {"question": "Any audit?", "contract": "T", "answers": [{"text": "audit of books", "start": 9}]},
]


class Classes:
    """Stand in for a classifier: a class for "law" and one for "fee"; keeps what it was asked."""

    key = "classes"

    def __init__(self):
        self.seen = []

    def match(self, questions):
        return [0 if "law" in q else 1 if "fee" in q else None for q in questions]

    def classify(self, passages):
        self.seen += [passage.text for passage in passages]
        return np.array([[passage.text.count("law"), passage.text.count("fee")] for passage in passages], np.float32)


def of(names, folder, **options):
    return Retriever(passages_of({name: CONTRACTS[name] for name in names}), make_embedder(folder), **options)


@pytest.mark.parametrize("mode", SEARCH_MODES)
def test_a_retriever_over_more_contracts_is_as_if_they_had_been_there(tmp_path, mode):
    some = of("A", tmp_path, mode=mode, classifier=Classes(), classifier_weight=0.3, cutting=(40, 0.5))
    some.search("law fee")
    grown = some.holding(passages_of(CONTRACTS))
    whole = of("ABC", tmp_path, mode=mode, classifier=Classes(), classifier_weight=0.3)
    assert grown.passages == whole.passages and grown.key == whole.key and grown.cutting == (40, 0.5)
    assert grown.search_many(QUERIES, k=9) == whole.search_many(QUERIES, k=9)
    assert {passage.contract for passage in some.passages} == {"A"}


def test_only_new_passages_are_embedded_and_each_is_classified_once(tmp_path):
    classes = Classes()
    some = of("AB", tmp_path, classifier=classes, classifier_weight=0.5)
    some.search("law")
    calls, classes.seen = some.embedder._model.calls, []
    del calls[:]
    grown = some.holding(passages_of(CONTRACTS))
    grown.search("law")
    grown.configured(classifier_weight=0.2).search("law")
    assert sorted(text for call in calls for text in call) == sorted(CONTRACTS["C"])
    assert classes.seen == [text for parts in CONTRACTS.values() for text in parts]


def test_passages_of_a_contract_may_come_apart_and_stay_in_order(tmp_path):
    made = passages_of({name: CONTRACTS[name] for name in "AB"})
    mixed = Retriever([made[0], made[3], made[1], made[4], made[2]], make_embedder(tmp_path))
    assert mixed.passages == made


@pytest.fixture
def saved(tmp_path):
    embedder = make_embedder(tmp_path)
    retriever = of(
        "ABC", tmp_path, feedback=RelevanceFeedback.from_rows(ROWS, embedder), feedback_weight=0.5, cutting=(1100, 0.5)
    )
    retriever.search("Which law?")
    retriever.save(tmp_path / "saved")
    return tmp_path / "saved", retriever.search_many(QUERIES)


def loaded(folder, embedder):
    """Load without a warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return Retriever.load(folder, embedder)


def test_a_saved_index_is_taken_as_it_is_with_all_settings(saved, tmp_path):
    folder, before = saved
    again = loaded(folder, make_embedder(tmp_path))
    assert again.search_many(QUERIES) == before
    assert again.cutting == (1100, 0.5) and again.settings == {
        "mode": "fusion",
        "feedback_weight": 0.5,
        "dense_weight": 0.5,
        "classifier_weight": 0.0,
    }


def test_another_model_embeds_the_passages_and_the_feedback_again(saved, tmp_path):
    folder, before = saved
    other = make_embedder(tmp_path, b"two")
    other._model.shift = 7
    again = loaded(folder, other)
    fresh = Retriever(again.passages, other, feedback=RelevanceFeedback.from_rows(ROWS, other), feedback_weight=0.5)
    assert again.search_many(QUERIES) == fresh.search_many(QUERIES) != before
    assert np.array_equal(again.feedback._span_vectors, fresh.feedback._span_vectors)


def test_a_loaded_retriever_embeds_nothing_that_the_cache_holds_and_changed_passages_again(saved, tmp_path):
    folder, before = saved
    again = loaded(folder, make_embedder(tmp_path))
    assert again.search_many(QUERIES) == before and again.embedder.embedded == 0
    lines = (folder / "passages.jsonl").read_text().replace("Texas", "Maine")
    (folder / "passages.jsonl").write_text(lines)
    again = loaded(folder, make_embedder(tmp_path)).configured(mode="dense", feedback_weight=0)
    texts = {name: [text.replace("Texas", "Maine") for text in parts] for name, parts in CONTRACTS.items()}
    fresh = Retriever(passages_of(texts), make_embedder(tmp_path), mode="dense")
    assert again.search("law of Maine") == fresh.search("law of Maine")


def test_spans_of_other_feedback_are_embedded_again(saved, tmp_path):
    folder, _ = saved
    path = folder / "feedback.jsonl"
    path.write_text(path.read_text().replace("Maine", "audit"))
    again = loaded(folder, make_embedder(tmp_path)).feedback
    spans = [span | {"text": span["text"].replace("Maine", "audit")} for span in again.spans]
    assert any("audit governs" in span["text"] for span in again.spans)
    assert np.array_equal(again._span_vectors, RelevanceFeedback(spans, again._embedder)._span_vectors)


@pytest.mark.parametrize("at", ["passages.jsonl", "feedback.jsonl", "settings.json"])
def test_a_killed_save_cannot_be_loaded(saved, tmp_path, monkeypatch, at):
    import os

    folder, _ = saved
    retriever, replace = loaded(folder, make_embedder(tmp_path)), os.replace

    def killed(source, target):
        if str(target).endswith(at):
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        retriever.save(folder)
    with pytest.raises(InputError, match="settings.json"):
        Retriever.load(folder, make_embedder(tmp_path))


@pytest.mark.parametrize(
    "settings", [[], {}, {"mode": "fusion", "feedback_weight": 0.5, "feedback": True, "embedder": "x"}]
)
def test_settings_of_another_kind_are_refused(saved, tmp_path, settings):
    folder, _ = saved
    (folder / "settings.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="no retriever that this version saved.*build it again"):
        Retriever.load(folder, make_embedder(tmp_path))


def test_a_search_by_classes_alone_embeds_no_passage_to_be_saved(tmp_path):
    class Saved(Classes):
        def save(self, folder):
            folder.mkdir()
            (folder / "classes").write_text("")

        @classmethod
        def load(cls, folder, embedder):
            return cls()

    retriever = of("ABC", tmp_path, classifier=Saved(), classifier_weight=1.0)
    before = retriever.search_many([("law", None), ("fee", "B")])
    retriever.save(tmp_path / "saved")
    assert retriever.embedder.embedded == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cuadft.retrieval.retriever.ClauseClassifier", Saved)
        again = loaded(tmp_path / "saved", make_embedder(tmp_path))
    assert again.search_many([("law", None), ("fee", "B")]) == before and again.settings["classifier_weight"] == 1
