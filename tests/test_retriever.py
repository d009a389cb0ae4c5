"""Properties of the embedder's cache, of search and of relevance feedback, with a bag of words as encoder."""

import copy
import os
import sqlite3
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small import passages_of

from cuadft import models
from cuadft.embedder import Embedder
from cuadft.errors import InputError
from cuadft.lexical import words
from cuadft.passages import cut
from cuadft.retriever import MODES, Feedback, Retriever, standardised, tune

QUESTION = "Cap On Liability: Is there a limit on damages?"
LAW = "Governing Law: Which state's law governs the contract?"
WORDS = ["fee", "liable", "aggregate", "exceed", "law", "state", "term", "notice", "audit", "royalty"]


class BagOfWords:
    """Stand in for a SentenceTransformer: one of 64 dimensions per word."""

    def __init__(self):
        self.calls = []

    def encode(self, texts, **_):
        self.calls.append(list(texts))
        vectors = np.zeros((len(texts), 64), np.float32)
        for row, text in zip(vectors, texts):
            row[0] = 0.01
            for word in words(text):
                row[1 + zlib.crc32(word.encode()) % 63] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def get_embedding_dimension(self):
        return 64


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("embedder")


def make_embedder(folder: Path, weights: bytes = b"one", **options) -> Embedder:
    model = folder / f"model-{weights.decode()}"
    model.mkdir(parents=True, exist_ok=True)
    (model / "modules.json").write_text("[]")
    (model / "model.safetensors").write_bytes(weights)
    embedder = Embedder(model, cache_dir=folder / "cache", **options)
    embedder._model = BagOfWords()
    return embedder


CONTRACTS = {
    "A": ["The fee is due monthly. ", "In no event shall either party be liable above the aggregate sum. ",
          "The law of Ohio governs. "],
    "B": ["Aggregate royalty reports follow. ", "No party shall be liable in aggregate for more than fees. "],
}  # fmt: skip


def row(contract, question, answers, category="Cap On Liability"):
    return {
        "id": f"{contract}__{category}", "contract": contract, "contract_type": "", "category": category,
        "question": question, "answers": answers, "is_impossible": not answers, "source": "cuad",
    }  # fmt: skip


def train_rows():
    cap = "in no event shall either party be liable; aggregate liability shall not exceed the fees"
    law = "this agreement is governed by the law of the State of Ohio"
    return [row(f"T{n}", QUESTION, [{"text": cap, "start": 0}]) for n in range(3)] + [
        row(f"T{n}", LAW, [{"text": law, "start": 0}], "Governing Law") for n in range(3)
    ]


@pytest.fixture
def retriever(folder):
    embedder = make_embedder(folder)
    return Retriever(passages_of(CONTRACTS), embedder, feedback=Feedback.from_rows(train_rows(), embedder))


# Embedder


def test_a_second_encode_embeds_nothing(tmp_path):
    first = make_embedder(tmp_path)
    vectors = first.encode(["law", "fee", "law"])
    assert (first.embedded, first.cached) == (2, 0)  # "law" counts once
    second = make_embedder(tmp_path)
    assert np.array_equal(second.encode(["law", "fee", "law"]), vectors)
    assert (second.embedded, second.cached, second._model.calls) == (0, 2, [])


def test_vectors_are_float32_of_unit_length_in_the_order_of_the_texts(tmp_path):
    embedder = make_embedder(tmp_path, batch_size=2)
    texts = ["a long text about the law of Ohio", "fee", "notice of audit", "\udc80 broken", ""]
    vectors = embedder.encode(texts)
    assert vectors.dtype == np.float32 and vectors.shape == (5, 64)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    assert all(np.array_equal(embedder.encode([text])[0], vector) for text, vector in zip(texts, vectors))
    assert embedder.encode([]).shape == (0, 64)


def test_batches_hold_texts_of_like_length(tmp_path):
    embedder = make_embedder(tmp_path, batch_size=2)
    embedder.encode(["xxxx", "x", "xxx", "xx"])
    assert embedder._model.calls == [["x", "xx"], ["xxx", "xxxx"]]


def test_other_weights_use_another_cache(tmp_path):
    make_embedder(tmp_path).encode(["law"])
    other = make_embedder(tmp_path, b"two")
    other.encode(["law"])
    assert (other.embedded, other.cached) == (1, 0)


def test_a_killed_run_keeps_the_batches_it_finished(tmp_path):
    embedder = make_embedder(tmp_path, batch_size=1)
    encode = embedder._model.encode

    def die_at_third(texts, **options):
        if len(embedder._model.calls) == 2:
            raise KeyboardInterrupt
        return encode(texts, **options)

    embedder._model.encode = die_at_third
    with pytest.raises(KeyboardInterrupt):
        embedder.encode(["a", "bb", "ccc"])
    again = make_embedder(tmp_path)
    again.encode(["a", "bb", "ccc"])
    assert (again.embedded, again.cached) == (1, 2)


def test_two_embedders_may_write_the_same_cache_together(tmp_path):
    texts = [f"{word} {n}" for word in WORDS for n in range(10)]
    pair = [make_embedder(tmp_path, batch_size=3) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        one, two = pool.map(lambda embedder: embedder.encode(texts), pair)
    assert np.array_equal(one, two)
    with sqlite3.connect(pair[0]._cache) as database:
        assert database.execute("SELECT count(*) FROM vectors").fetchone() == (100,)


def test_embedder_errors_say_what_to_do(tmp_path):
    with pytest.raises(InputError, match="No embedding model in .* modules.json"):
        Embedder(tmp_path, cache_dir=tmp_path)
    embedder = make_embedder(tmp_path)
    with pytest.raises(InputError, match="wrap it in a list"):
        embedder.encode("law")
    embedder._cache.parent.mkdir(parents=True, exist_ok=True)
    embedder._cache.write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="delete that file"):
        embedder.encode(["law"])


# Search


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from("ABC"),
        st.lists(st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join), min_size=1, max_size=6),
        min_size=1,
    ),
    st.lists(st.sampled_from([*WORDS, "unheard"]), min_size=1, max_size=3).map(" ".join),
    st.sampled_from(MODES),
    st.integers(1, 8),
)
def test_search_inside_a_contract_is_exact_and_returns_no_other_contracts_passage(
    folder, texts, query, mode, k
):
    passages = passages_of(texts)
    found = Retriever(passages, make_embedder(folder), mode=mode)
    everything = found.search(query, k=len(passages))
    assert len({hit.passage for hit in everything}) == len(passages)
    for contract, parts in texts.items():
        hits = found.search(query, contract=contract, k=k)
        assert len(hits) == min(k, len(parts)) and {hit.passage.contract for hit in hits} == {contract}
        if mode != "fusion":  # fused scores are relative to what is searched
            assert hits == [hit for hit in everything if hit.passage.contract == contract][:k]


def test_dense_scores_are_cosines(folder):
    embedder = make_embedder(folder)
    found = Retriever(passages_of(CONTRACTS), embedder, mode="dense")
    query = embedder.encode(["aggregate fee"])[0]
    for hit in found.search("aggregate fee", contract="B", k=2):
        assert hit.score == pytest.approx(float(embedder.encode([hit.passage.text])[0] @ query), abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_ties_go_to_the_earlier_passage(folder, mode):
    found = Retriever(passages_of({"A": ["fee notice"] * 9}), make_embedder(folder), mode=mode)
    assert [hit.passage.index for hit in found.search("fee", contract="A", k=9)] == list(range(9))


def test_standardised_scores_have_mean_0_and_deviation_1():
    # mean 2, deviation sqrt((1 + 0 + 1) / 3) = 0.8165: (1 - 2) / 0.8165 = -1.2247
    assert standardised(np.array([1.0, 2.0, 3.0])) == pytest.approx([-1.2247, 0, 1.2247], abs=1e-4)
    assert standardised(np.array([2.0, 2.0])).tolist() == [0, 0]


def test_bm25_works_without_an_embedder_and_on_passages_without_words():
    assert Retriever(passages_of(CONTRACTS), None, mode="bm25").search("Ohio", k=1)[0].passage.index == 2
    assert [h.score for h in Retriever(passages_of({"A": ["--", ""]}), None, mode="bm25").search("law")] == [
        0,
        0,
    ]


def test_bm25_mode_embeds_no_passage(tmp_path):
    embedder = make_embedder(tmp_path)
    Retriever(passages_of(CONTRACTS), embedder, mode="bm25").search("law")
    assert embedder.embedded == 0


def test_bad_input_is_refused(retriever):
    with pytest.raises(InputError, match="Unknown contract 'Z'.*'A'"):
        retriever.search("fee", contract="Z")
    with pytest.raises(InputError, match="Empty query"):
        retriever.search("  ")
    with pytest.raises(InputError, match="Invalid k 0"):
        retriever.search("fee", k=0)
    with pytest.raises(InputError, match="choose fusion, dense, bm25"):
        retriever.configured(mode="faiss")
    with pytest.raises(InputError, match="from 0 to 1"):
        retriever.configured(feedback_weight=1.5)
    with pytest.raises(InputError, match="without feedback"):
        Retriever(retriever.passages, retriever.embedder, feedback_weight=0.5)
    with pytest.raises(InputError, match="needs an embedder"):
        Retriever(retriever.passages, None)
    with pytest.raises(InputError, match="needs passages"):
        Retriever([], None, mode="bm25")
    assert retriever.search_many([]) == []


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_a_loaded_retriever_gives_equal_results_and_embeds_no_passage(retriever, tmp_path, mode, weight):
    saved = retriever.configured(mode=mode, feedback_weight=weight)
    queries = [(QUESTION, None), (QUESTION, "A"), ("royalty fee", "B"), ("nothing known", None)]
    before = saved.search_many(queries, k=4)
    saved.save(tmp_path / "retriever")
    fresh = make_embedder(tmp_path)  # empty cache
    loaded = Retriever.load(tmp_path / "retriever", fresh)
    assert loaded.search_many(queries, k=4) == before
    texts = {text for call in fresh._model.calls for text in call}
    assert not texts & {passage.text for passage in retriever.passages}
    assert not list((tmp_path / "retriever").glob("*.pkl"))


def test_a_retriever_of_another_model_or_a_torn_one_is_refused(retriever, tmp_path):
    retriever.save(tmp_path)
    with pytest.raises(InputError, match="made with embedding model"):
        Retriever.load(tmp_path, make_embedder(tmp_path, b"two"))
    (tmp_path / "index.faiss").unlink()
    with pytest.raises(InputError, match="index.faiss is missing"):
        Retriever.load(tmp_path, retriever.embedder)
    with pytest.raises(InputError, match="settings.json"):
        Retriever.load(tmp_path / "nothing", retriever.embedder)


def test_threads_get_the_results_of_one_thread(folder, retriever):
    queries = [(f"{a} {b}", contract) for a in WORDS for b in WORDS for contract in (None, "A")]
    fused = retriever.configured(feedback_weight=0.5)
    alone = [fused.search(query, contract=contract) for query, contract in queries]
    fresh = Retriever(
        retriever.passages, make_embedder(folder), feedback=retriever.feedback, feedback_weight=0.5
    )
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda q: fresh.search(q[0], contract=q[1]), queries)) == alone
    assert copy.deepcopy(fused).search("fee") == fused.search("fee")


# Relevance feedback


@pytest.mark.parametrize("mode", MODES)
def test_feedback_finds_the_clause_whose_words_the_question_lacks(retriever, mode):
    plain = retriever.configured(mode=mode).search(QUESTION, contract="A", k=1)[0]
    helped = retriever.configured(mode=mode, feedback_weight=0.85).search(QUESTION, contract="A", k=1)[0]
    assert helped.passage.index == 1
    assert mode != "bm25" or plain.passage.index != 1


@pytest.mark.parametrize("mode", MODES)
def test_a_question_unlike_the_train_questions_is_left_unchanged(retriever, mode):
    query = "royalty audit notice"
    assert retriever.configured(mode=mode, feedback_weight=0.85).search(query) == retriever.configured(
        mode=mode
    ).search(query)


def test_a_train_contract_does_not_retrieve_with_its_own_gold(folder):
    embedder = make_embedder(folder)
    spans = train_rows() + [row("A", QUESTION, [{"text": "the fee is due monthly", "start": 0}])]
    feedback = Feedback.from_rows(spans, embedder)
    query = embedder.encode([QUESTION])[0]
    assert feedback.relevant(query).sum() == 4
    assert {feedback.spans[n]["contract"] for n in np.flatnonzero(feedback.relevant(query, without="A"))} == {
        "T0", "T1", "T2"}  # fmt: skip


def test_rocchio_moves_towards_relevant_spans_and_away_from_the_others(folder):
    feedback = Feedback.from_rows(train_rows(), make_embedder(folder))
    query = np.zeros(64, np.float32)
    query[60] = 1
    moved = feedback.moved(query, feedback._owner == 0, 0.5)
    mine, other = feedback._span_vectors()[0], feedback._span_vectors()[3]
    # spans of a question are equal here, so (1 - 0.5) q + 0.5 (mine - 0.5 other), at unit length
    expected = 0.5 * query + 0.5 * (mine - 0.5 * other)
    assert moved == pytest.approx(expected / np.linalg.norm(expected), abs=1e-6)
    assert np.array_equal(feedback.moved(query, feedback._owner == 9, 0.5), query)


def test_terms_weigh_share_times_inverse_frequency(folder):
    spans = [{"question": "q1", "contract": str(n), "text": "liable fee"} for n in range(2)]
    spans += [{"question": "q2", "contract": str(n), "text": "law fee"} for n in range(2)]
    feedback = Feedback(spans, make_embedder(folder))
    # "fee" is in 4 of 4 spans: log 1 = 0, so "liable" (2 of 4) takes all the weight
    assert feedback.terms(feedback._owner == 0) == {"liable": 1.0}


def test_feedback_takes_every_contract_before_a_second_span_of_one(folder):
    many = [{"text": f"liable {n}", "start": n} for n in range(50)]
    rows = [row("long", QUESTION, many)] + [row(f"T{n}", QUESTION, many[:1]) for n in range(4)]
    feedback = Feedback.from_rows(rows, make_embedder(folder), per_question=5)
    assert sorted(span["contract"] for span in feedback.spans) == ["T0", "T1", "T2", "T3", "long"]
    with pytest.raises(InputError, match="No gold span"):
        Feedback.from_rows([row("A", QUESTION, [])], make_embedder(folder))


# Measuring


def test_tune_puts_the_best_setting_first_and_measures_all(retriever):
    gold = CONTRACTS["A"][1]
    table = tune(retriever, [row("A", QUESTION, [{"text": gold, "start": len(CONTRACTS["A"][0])}])])
    assert len(table) == 15 and {r["mode"] for r in table} == set(MODES)
    assert table[0]["hit"] == 1 and [r["hit"] for r in table] == sorted(
        (r["hit"] for r in table), reverse=True
    )
    assert (
        len(
            tune(
                Retriever(retriever.passages, retriever.embedder),
                [row("A", LAW, [{"text": "f", "start": 4}])],
            )
        )
        == 3
    )


# The real encoder, where its weights are already here


def real_model() -> str | None:
    kept = models.cache_dir() / "models" / "sentence-transformers--all-MiniLM-L6-v2"
    return os.environ.get("CUADFT_TEST_EMBEDDER") or (str(kept) if kept.is_dir() else None)


@pytest.mark.skipif(
    real_model() is None, reason="no MiniLM weights: set CUADFT_TEST_EMBEDDER or run `cuadft fetch`"
)
def test_minilm_finds_a_clause_that_shares_no_word_with_the_question(tmp_path):
    text = "Either side may walk away upon thirty days' notice. Invoices are payable in euros every quarter. "
    found = Retriever(
        cut(text, contract="A", size=50), Embedder(real_model(), cache_dir=tmp_path), mode="dense"
    )
    assert (
        "walk away" in found.search("How can the contract be terminated?", contract="A", k=1)[0].passage.text
    )
