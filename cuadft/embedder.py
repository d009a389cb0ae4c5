"""Texts to unit vectors, each text embedded once: a sentence-transformers model behind a cache on disk.

On two CPU cores MiniLM embeds some tens of passages a second and a contract holds a hundred of them, so every
vector is kept in a SQLite file named after the model's weights. Another model, or the same one fine-tuned,
gets another file: vectors of two models never mix.
"""

from __future__ import annotations

import hashlib
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cuadft.errors import InputError
from cuadft.models import weights_hash

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PROGRESS_FROM = 200  # new texts from which a progress bar is worth its line
LOOKUP = 500  # keys per SELECT; SQLite allows 999 variables in its older builds


class Embedder:
    """Embed texts with a sentence-transformers folder; `embedded` and `cached` count computed and found."""

    def __init__(
        self, path: Path | str, *, cache_dir: Path | str, batch_size: int = 32, device: str | None = None
    ):
        """Check the folder and name the cache file; the model is loaded when a text is not in the cache.

        Raises InputError if `path` is no sentence-transformers folder or `batch_size` is not positive.
        """
        self.path = Path(path)
        if not (self.path / "modules.json").is_file():
            raise InputError(
                f"No embedding model in '{path}': give the folder of a sentence-transformers model "
                "(it holds modules.json), for example from cuadft.models.find"
            )
        if batch_size < 1:
            raise InputError(f"Invalid batch_size {batch_size!r}: give 1 or more")
        self.key = weights_hash(self.path)
        self.batch_size, self.device = batch_size, device
        self.embedded = self.cached = 0
        self._cache = Path(cache_dir) / "embeddings" / f"{self.key[:16]}.sqlite"
        self._model: SentenceTransformer | None = None
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Embed texts, in order.

        Returns float32 of shape (len(texts), d), rows of unit length. Threads may call it together; each
        distinct text of a call counts once, in `embedded` or `cached`. Raises InputError on a broken cache.
        """
        if isinstance(texts, str):
            raise InputError("Embedder.encode takes a list of texts, got one string: wrap it in a list")
        if not len(texts):
            return np.zeros((0, self._load().get_embedding_dimension()), np.float32)
        texts = [
            text.encode("utf-8", "replace").decode() for text in texts
        ]  # some PDFs yield lone surrogates
        keys = [hashlib.sha256(text.encode()).digest() for text in texts]
        with self._lock, self._database() as database:
            vectors = _lookup(database, list(dict.fromkeys(keys)))
            self.cached += len(vectors)
            missing = {key: text for key, text in zip(keys, texts) if key not in vectors}
            vectors.update(self._embed(database, missing))
        return np.stack([vectors[key] for key in keys])

    def _embed(self, database: sqlite3.Connection, missing: dict[bytes, str]) -> dict[bytes, np.ndarray]:
        """Embed and store batch by batch, so that a killed run loses one batch."""
        from tqdm.auto import tqdm

        order = sorted(missing, key=lambda key: len(missing[key]))  # like lengths together: little padding
        vectors: dict[bytes, np.ndarray] = {}
        with tqdm(
            total=len(order), desc="embedding", unit="text", disable=len(order) <= PROGRESS_FROM
        ) as bar:
            for i in range(0, len(order), self.batch_size):
                keys = order[i : i + self.batch_size]
                rows = self._load().encode(
                    [missing[key] for key in keys],
                    batch_size=self.batch_size,
                    normalize_embeddings=True,
                    show_progress_bar=False,
                )
                vectors.update(zip(keys, np.asarray(rows, np.float32)))
                with database:
                    database.executemany(
                        "INSERT OR IGNORE INTO vectors VALUES (?, ?)",
                        [(key, vectors[key].tobytes()) for key in keys],
                    )
                self.embedded += len(keys)
                bar.update(len(keys))
        return vectors

    def _load(self) -> SentenceTransformer:
        if self._model is None:
            from sentence_transformers import SentenceTransformer

            self._model = SentenceTransformer(str(self.path), device=self.device)
        return self._model

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        try:  # the long time-out lets two processes share the file: each commit lasts milliseconds
            with closing(sqlite3.connect(self._cache, timeout=60)) as database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"
                )
                yield database
        except sqlite3.Error as error:
            raise InputError(
                f"Cannot use the embedding cache '{self._cache}' ({error}): "
                "delete that file, or free disk space, and run again"
            ) from error


def _lookup(database: sqlite3.Connection, keys: list[bytes]) -> dict[bytes, np.ndarray]:
    found: dict[bytes, np.ndarray] = {}
    for i in range(0, len(keys), LOOKUP):
        part = keys[i : i + LOOKUP]
        marks = ",".join("?" * len(part))
        rows = database.execute(f"SELECT key, value FROM vectors WHERE key IN ({marks})", part)
        found.update((key, np.frombuffer(value, np.float32)) for key, value in rows)
    return found
