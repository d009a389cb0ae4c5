"""An encoder for tests that counts words, and an Embedder around it."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np

from cuadft.retrieval.embedder import Embedder
from cuadft.retrieval.words import search_words


class BagOfWords:
    """Stand in for a SentenceTransformer: one of 64 dimensions per word; another `shift` stands for another model."""

    def __init__(self):
        self.calls, self.shift = [], 0

    def encode(self, texts, **_):
        self.calls.append(list(texts))
        vectors = np.zeros((len(texts), 64), np.float32)
        for row, text in zip(vectors, texts):
            row[0] = 0.01
            for word in search_words(text):
                row[1 + (zlib.crc32(word.encode()) >> self.shift) % 63] += 1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def get_embedding_dimension(self):
        return 64


def make_embedder(folder: Path, weights: bytes = b"one", **options) -> Embedder:
    model = folder / f"model-{weights.decode()}"
    model.mkdir(parents=True, exist_ok=True)
    (model / "modules.json").write_text("[]")
    (model / "model.safetensors").write_bytes(weights)
    embedder = Embedder(model, cache_dir=folder / "cache", **options)
    embedder._model = BagOfWords()
    return embedder
