"""Properties of the embedder and of its cache, with a bag of words as encoder."""

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from bag_of_words import make_embedder

from cuadft.core.errors import InputError
from cuadft.data.passages import cut_passages
from cuadft.models import weights
from cuadft.retrieval.embedder import Embedder
from cuadft.retrieval.retriever import Retriever

WORDS = ["fee", "liable", "aggregate", "exceed", "law", "state", "term", "notice", "audit", "royalty"]


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


def test_batches_hold_texts_of_as_many_tokens_where_the_model_shows_its_tokenizer(tmp_path):
    embedder = make_embedder(tmp_path, batch_size=2)
    embedder._model.max_seq_length = 3

    def tokenizer(texts, *, truncation, max_length):
        return {"input_ids": [text.split()[:max_length] for text in texts]}

    embedder._model.tokenizer = tokenizer
    texts = ["a b c d e", "one_very_long_word", "f g", "h i j", "k       l"]  # 3 (of 5), 1, 2, 3 and 2 tokens
    embedder.encode(texts)
    assert embedder._model.calls == [["one_very_long_word", "f g"], ["k       l", "a b c d e"], ["h i j"]]


def test_other_weights_use_another_cache(tmp_path):
    make_embedder(tmp_path).encode(["law"])
    other = make_embedder(tmp_path, b"two")
    other.encode(["law"])
    assert (other.embedded, other.cached) == (1, 0)


def test_other_settings_of_a_model_and_another_precision_use_another_cache(tmp_path):
    def key(**options):
        return make_embedder(tmp_path, **options).key

    first = key()
    assert key() == first != key(dtype="bfloat16")
    model = tmp_path / "model-one"
    (model / "README.md").write_text("a card")
    assert key() == first
    (model / "sentence_bert_config.json").write_text('{"max_seq_length": 8}')
    shorter = key()
    (model / "1_Pooling").mkdir()
    (model / "1_Pooling" / "config.json").write_text('{"pooling_mode": "cls"}')
    assert len({first, shorter, key()}) == 3


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
    with pytest.raises(InputError, match="Invalid dtype 'int8'.*float32, bfloat16"):
        make_embedder(tmp_path, dtype="int8")
    embedder = make_embedder(tmp_path)
    with pytest.raises(InputError, match="wrap it in a list"):
        embedder.encode("law")
    embedder._cache.parent.mkdir(parents=True, exist_ok=True)
    embedder._cache.write_bytes(b"no database" * 100)
    with pytest.raises(InputError, match="delete that file"):
        embedder.encode(["law"])


# The real encoder, where its weights are already here


def real_model() -> str | None:
    kept = weights.cache_dir() / "models" / "sentence-transformers--all-MiniLM-L6-v2"
    return os.environ.get("CUADFT_TEST_EMBEDDER") or (str(kept) if kept.is_dir() else None)


@pytest.mark.skipif(real_model() is None, reason="no MiniLM weights")
def test_vectors_are_those_of_sentence_transformers(tmp_path):
    from sentence_transformers import SentenceTransformer

    texts = [f"{word} " * n + f"clause {n}." for n in (1, 5, 40) for word in ("notice", "of", "indemnification")]
    expected = SentenceTransformer(real_model()).encode(texts, normalize_embeddings=True)
    found = Embedder(real_model(), cache_dir=tmp_path, batch_size=2).encode(texts)
    assert np.allclose(found, expected, atol=1e-5)


@pytest.mark.skipif(real_model() is None, reason="no MiniLM weights")
def test_half_precision_gives_nearly_the_same_unit_vectors(tmp_path):
    texts = ["Either side may walk away upon thirty days' notice.", "Invoices are payable in euros."]
    full, half = (Embedder(real_model(), cache_dir=tmp_path, dtype=d).encode(texts) for d in ("float32", "bfloat16"))
    assert half.dtype == np.float32 and np.allclose(np.linalg.norm(half, axis=1), 1, atol=1e-5)
    assert (full * half).sum(axis=1).min() > 0.99 and not np.array_equal(full, half)


@pytest.mark.skipif(real_model() is None, reason="no MiniLM weights: set CUADFT_TEST_EMBEDDER or run `cuadft fetch`")
def test_minilm_finds_a_clause_that_shares_no_word_with_the_question(tmp_path):
    text = "Either side may walk away upon thirty days' notice. Invoices are payable in euros every quarter. "
    found = Retriever(
        cut_passages(text, contract="A", size=50), Embedder(real_model(), cache_dir=tmp_path), mode="dense"
    )
    assert "walk away" in found.search("How can the contract be terminated?", contract="A", k=1)[0].passage.text
