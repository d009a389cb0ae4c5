"""Measure an embedding model while it is trained: whether dev questions find their passages."""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from cuadft.errors import InputError
from cuadft.files import value_hash
from cuadft.generator import best_dtype
from cuadft.passages import Passage
from cuadft.retrieval import evaluate

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from cuadft.contracts import Row

MOST = 800  # passages embedded at each evaluation: more take more of the training time than they add certainty


class DevHits:
    """Call it with a model: dense search for dev questions, each in its contract (`cuadft.retrieval.evaluate`).

    Returns dev_hit@k and dev_char_recall@k for each k, means over the answerable rows. `key` names rows and passages.
    """

    def __init__(
        self, rows: Iterable[Row], passages_by_contract: Mapping[str, Sequence[Passage]], *,
        ks: Sequence[int] = (1, 3), most: int = MOST, seed: int = 7,
    ):  # fmt: skip
        """Draw contracts by the seed until they have `most` passages, first those not longer than the median.

        Long contracts cost many passages a question. Raises InputError if no row is answerable.
        """
        rows = [row for row in rows if row["answers"]]
        titles = sorted({row["contract"] for row in rows})
        if not titles:
            raise InputError("No answerable dev row to measure the embedder on: give dev rows that have gold spans")
        if missing := [title for title in titles if not passages_by_contract.get(title)]:
            raise InputError(f"Dev contract {missing[0]!r} has no passages: cut it first")
        self.passages: list[Passage] = []
        sizes = {title: len(passages_by_contract[title]) for title in titles}
        middle = median(sizes.values())
        drawn = random.Random(seed).sample(titles, len(titles))
        for title in sorted(drawn, key=lambda title: sizes[title] > middle):  # stable: drawn order within each half
            if not self.passages or len(self.passages) + sizes[title] <= most:
                self.passages += passages_by_contract[title]
        used = {passage.contract for passage in self.passages}
        self.rows, self.ks = [row for row in rows if row["contract"] in used], tuple(ks)
        self.key = value_hash([self.rows, [astuple(passage) for passage in self.passages], self.ks])

    def __call__(self, model: SentenceTransformer) -> dict[str, float]:
        from cuadft.retriever import Retriever

        records = evaluate(Retriever(self.passages, _Live(model), mode="dense"), self.rows, self.ks)
        return {
            f"dev_{name}@{k}": float(np.mean([record[name] for record in records if record["k"] == k]))
            for name in ("hit", "char_recall") for k in self.ks
        }  # fmt: skip


class _Live:
    """Stand in for `cuadft.embedder.Embedder`: its cache is by weights, which here change with every step."""

    key = ""

    def __init__(self, model: SentenceTransformer) -> None:
        self._model = model

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, float32 of shape (len(texts), d), computed as in training."""
        import torch

        reduced = best_dtype() != torch.float32
        with torch.autocast(self._model.device.type, dtype=torch.bfloat16, enabled=reduced):
            vectors = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, np.float32)
