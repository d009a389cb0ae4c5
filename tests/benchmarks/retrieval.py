"""Time embedding and search: `python tests/benchmarks/retrieval.py CUAD.zip [--passages N] [--model M]`.

Embedding: passages a second of `Embedder.encode` with an empty cache, and of sentence-transformers' `encode` on the
same passages sorted by length, both on all threads that torch takes; by the clock, and by the processor's time, which a
busy machine spoils less. Search: all questions of all contracts within their
own, with relevance feedback and clause classes. There the vectors are random, since embedding is no part of a search.
Prints, writes nothing.
"""

from __future__ import annotations

import argparse
import random
import resource
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cuadft.data import contracts
from cuadft.data.passages import Passage, cut_passages
from cuadft.models import weights
from cuadft.retrieval.classifier import ClauseClassifier, QuestionMatcher
from cuadft.retrieval.embedder import Embedder
from cuadft.retrieval.relevance import RelevanceFeedback
from cuadft.retrieval.retriever import Retriever

SIZE, OVERLAP, BATCH, ROUNDS = 1100, 0.5, 32, 3


class RandomVectors:
    """Stand in for an Embedder: the same text always gets the same random unit vector."""

    key, dim = "random", 384

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = [np.random.default_rng(abs(hash(text))).standard_normal(self.dim) for text in texts]
        return np.array([vector / np.linalg.norm(vector) for vector in vectors], np.float32)


def embedding(passages: Sequence[Passage], model: str, dtype: str) -> None:
    """Print passages a second of both, in turns, so that a busy machine slows both alike."""
    from sentence_transformers import SentenceTransformer

    folder = weights.find_weights(model)
    texts = sorted((passage.text for passage in passages), key=len)
    plain = SentenceTransformer(str(folder), model_kwargs={"dtype": dtype})
    plain.encode(texts[:BATCH])
    seconds = {"sentence-transformers": np.zeros(2), "Embedder": np.zeros(2)}
    for n in range(ROUNDS):  # each round a third of the passages, of all lengths
        part = texts[n::ROUNDS]
        started = clocks()
        plain.encode(part, batch_size=BATCH, normalize_embeddings=True, show_progress_bar=False)
        seconds["sentence-transformers"] += clocks() - started
        with tempfile.TemporaryDirectory() as cache:
            embedder = Embedder(folder, cache_dir=cache, batch_size=BATCH, dtype=dtype)
            embedder._model = plain
            shuffled = random.Random(n).sample(part, len(part))
            for _ in range(2):  # the second time from the cache
                started = clocks()
                embedder.encode(shuffled)
                again = clocks() - started
                seconds["Embedder"] += again if not embedder.cached else 0
    for n, clock in enumerate(("clock", "processor")):
        rates = {name: len(texts) / value[n] for name, value in seconds.items()}
        print(
            f"{len(texts)} passages, {dtype}, {clock}:",
            ", ".join(f"{k} {rate:.1f}/s" for k, rate in rates.items()),
            f"ratio {rates['Embedder'] / rates['sentence-transformers']:.3f}; "
            f"from the cache {len(part) / again[n]:.0f}/s",
            flush=True,
        )


def clocks() -> np.ndarray:
    """Return the seconds of the clock and of the processor."""
    return np.array([time.perf_counter(), time.process_time()])


def searching(found: Sequence[contracts.Contract], passages: Sequence[Passage], k: int) -> None:
    """Print the seconds of indexing and of all queries, and the peak memory of the process."""
    embedder, rows = RandomVectors(), [row for contract in found for row in contract.rows]
    started = time.perf_counter()
    matcher = QuestionMatcher({row["question"]: row["category"] for row in rows}, embedder, least=0.5)
    classifier = ClauseClassifier.fit(rows, passages, matcher)
    print(f"fit the classifier: {time.perf_counter() - started:.1f} s", flush=True)
    started = time.perf_counter()
    retriever = Retriever(
        passages,
        embedder,
        feedback=RelevanceFeedback.from_rows(rows, embedder),
        feedback_weight=0.5,
        classifier=classifier,
        classifier_weight=0.7,
    )
    retriever.search(rows[0]["question"], contract=rows[0]["contract"])
    print(f"index {len(passages):,} passages: {time.perf_counter() - started:.1f} s", flush=True)
    queries = [(row["question"], row["contract"]) for row in rows]
    for settings in ({}, {"classifier_weight": 1.0}, {"feedback_weight": 0.0, "classifier_weight": 0.0}):
        started = time.perf_counter()
        chosen = retriever.configured(**settings)
        chosen.search_many(queries, k=k)
        print(f"{len(queries):,} queries, {chosen.settings}: {time.perf_counter() - started:.1f} s", flush=True)
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cuad", type=Path)
    parser.add_argument("--passages", type=int, default=2000, help="passages to embed; 0 leaves embedding out")
    parser.add_argument("--model", default="sentence-transformers/all-MiniLM-L6-v2")
    parser.add_argument("--dtype", default="float32")
    given = parser.parse_args()
    found = contracts.read_contracts(given.cuad)
    passages = [p for c in found for p in cut_passages(c.text, contract=c.title, size=SIZE, overlap=OVERLAP)]
    if given.passages:
        embedding(random.Random(7).sample(passages, given.passages), given.model, given.dtype)
    searching(found, passages, k=3)


if __name__ == "__main__":
    main()
