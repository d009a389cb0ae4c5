"""Turn texts into unit vectors, each text once: a sentence-transformers model behind a cache on disk.

    folder = models.find_weights("sentence-transformers/all-MiniLM-L6-v2")
    embedder = Embedder(folder, cache_dir=models.cache_dir())
    vectors = embedder.encode(["Which law governs?", "This Agreement is governed by the laws of Delaware."])
    vectors[0] @ vectors[1]  # their cosine

On two CPU cores MiniLM embeds some tens of passages a second, and a contract holds a hundred of them. So every vector
is kept in a SQLite file named after the model's weights. Another model, or the same model fine-tuned, gets another
file: vectors of two models never mix.
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

from cuadft.core.errors import InputError
from cuadft.core.files import file_hash, value_hash
from cuadft.models import weights
from cuadft.models.weights import weights_hash

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


PROGRESS_FROM = 200  # with fewer new texts no progress bar is shown
TOKENIZED_AT_ONCE = 1000  # texts whose tokens are held in memory together
DTYPES = ("float32", "bfloat16")
LOOKUP = "SELECT value FROM vectors WHERE key = ?"
MODEL_FILES = (  # these change the vectors; a model's card and the records of its training do not
    "modules.json config.json sentence_bert_config.json config_sentence_transformers.json tokenizer.json "
    "tokenizer_config.json special_tokens_map.json vocab.txt vocab.json merges.txt sentencepiece.bpe.model"
).split()


class Embedder:
    """Embed texts with a sentence-transformers folder; `embedded` and `cached` count computed and found."""

    def __init__(self, path: Path | str, *, cache_dir: Path | str, batch_size: int = 32, dtype: str = "float32"):
        """Check the folder and name the cache file; the model is loaded when a text is not in the cache.

        dtype: "float32", or "bfloat16", faster where the processor or GPU computes in it; its vectors have a cache
        of their own. `key` is the SHA-256 of all that the vectors depend on: weights, tokenizer and settings of the
        model, and the dtype. Raises InputError if `path` is no sentence-transformers folder, or on another dtype.
        """
        self.path = Path(path)
        if not (self.path / "modules.json").is_file():
            raise InputError(
                f"No embedding model in '{path}': give the folder of a sentence-transformers model "
                "(it holds modules.json), for example from cuadft.models.find_weights"
            )
        if dtype not in DTYPES:
            raise InputError(f"Invalid dtype {dtype!r} of an embedder: choose {', '.join(DTYPES)}")
        self.key = _model_key(self.path, dtype)
        self.batch_size, self.dtype = batch_size, dtype
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
            return np.zeros((0, self._loaded_model().get_embedding_dimension()), np.float32)
        texts = [text.encode("utf-8", "replace").decode() for text in texts]  # some PDFs yield lone surrogates
        keys = [hashlib.sha256(text.encode()).digest() for text in texts]
        with self._lock, self._database() as database:
            found = ((key, database.execute(LOOKUP, (key,)).fetchone()) for key in dict.fromkeys(keys))
            vectors = {key: np.frombuffer(row[0], np.float32) for key, row in found if row}
            self.cached += len(vectors)
            missing = {key: text for key, text in zip(keys, texts) if key not in vectors}
            vectors.update(self._embed(database, missing))
        return np.stack([vectors[key] for key in keys])

    def _embed(self, database: sqlite3.Connection, missing: dict[bytes, str]) -> dict[bytes, np.ndarray]:
        """Embed and store batch by batch, so that a killed run loses one batch."""
        from tqdm.auto import tqdm

        lengths = self._lengths(list(missing.values()))
        order = [key for _, key in sorted(zip(lengths, missing), key=lambda pair: pair[0])]
        vectors: dict[bytes, np.ndarray] = {}
        with tqdm(total=len(order), desc="embedding", unit="text", disable=len(order) <= PROGRESS_FROM) as bar:
            for i in range(0, len(order), self.batch_size):
                keys = order[i : i + self.batch_size]
                settings = {"batch_size": self.batch_size, "normalize_embeddings": True, "show_progress_bar": False}
                rows = self._loaded_model().encode([missing[key] for key in keys], **settings)
                rows = np.asarray(rows, np.float32)
                if self.dtype != "float32":  # a norm in half precision is off by a thousandth
                    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
                vectors.update(zip(keys, rows))
                with database:
                    stored = [(key, vectors[key].tobytes()) for key in keys]
                    database.executemany("INSERT OR IGNORE INTO vectors VALUES (?, ?)", stored)
                self.embedded += len(keys)
                bar.update(len(keys))
        return vectors

    def _lengths(self, texts: list[str]) -> list[int]:
        """Return the tokens that the model reads of each text, or characters if it shows no tokenizer.

        Batches of equal numbers of tokens need no padding; by characters, a sixth to a third of a batch of contract
        passages is padding, since blanks and underscores weigh so differently.
        """
        tokenizer = getattr(self._loaded_model(), "tokenizer", None)
        if len(texts) <= self.batch_size or not callable(tokenizer):
            return [len(text) for text in texts]
        longest = self._loaded_model().max_seq_length
        found: list[int] = []
        for i in range(0, len(texts), TOKENIZED_AT_ONCE):
            part = tokenizer(texts[i : i + TOKENIZED_AT_ONCE], truncation=longest is not None, max_length=longest)
            found += map(len, part["input_ids"])
        return found

    def _loaded_model(self) -> SentenceTransformer:
        if self._model is None:
            from sentence_transformers import SentenceTransformer

            dtype = {"dtype": self.dtype}
            self._model = SentenceTransformer(str(self.path), model_kwargs=dtype, trust_remote_code=False)
        return self._model

    @contextmanager
    def _database(self) -> Iterator[sqlite3.Connection]:
        self._cache.parent.mkdir(parents=True, exist_ok=True)
        try:  # the long time-out lets two processes share the file: each commit lasts milliseconds
            with closing(sqlite3.connect(self._cache, timeout=60)) as database:
                database.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID")
                yield database
        except sqlite3.Error as error:
            raise InputError(
                f"Cannot use the embedding cache '{self._cache}' ({error}): "
                "delete that file, or free disk space, and run again"
            ) from error


def _model_key(folder: Path, dtype: str) -> str:
    """Return the SHA-256 of the dtype and of a model folder's weights, tokenizer and settings, with its modules'."""
    weights.checked_folder(folder)
    files = [path for path in sorted(folder.rglob("*")) if path.name in MODEL_FILES]
    files += sorted(folder.glob("*/*.safetensors"))
    hashes = {path.relative_to(folder).as_posix(): file_hash(path) for path in files}
    return value_hash([weights_hash(folder), hashes, dtype])
