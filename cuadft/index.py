"""What a search scores passages by, once for all of them: their words, their embeddings, their classes.

An index never changes. With more contracts it becomes another one that takes over all that is computed, so that
searches may go on meanwhile. Every search is exact: at this size nothing is gained by an approximate one.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import warnings
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cuadft.errors import InputError
from cuadft.files import file_hash
from cuadft.lexical import Lexical
from cuadft.passages import Passage

if TYPE_CHECKING:
    import faiss

    from cuadft.classifier import ClauseClassifier
    from cuadft.embedder import Embedder

FILE = "index.faiss"
OPENING = 1500  # characters of a contract in which it names its parties, kind and date


class Index:
    """Passages, contract after contract, with their BM25, embedding and class scores. Many threads may call it."""

    def __init__(self, passages: Sequence[Passage], embedder: Embedder | None):
        """Index the words now, the embeddings and classes when they are first needed.

        Raises InputError if there are no passages.
        """
        if not passages:
            raise InputError("A retriever needs passages, got none: check that the contracts have text")
        self.passages, self._rows = _grouped(passages)
        self._embedder, self._lock = embedder, threading.Lock()
        self._lexical = Lexical([passage.text for passage in self.passages])
        self._vectors: faiss.IndexFlatIP | None = None
        self._classes: tuple[ClauseClassifier, np.ndarray] | None = None
        self._openings: Lexical | None = None
        self._key: str | None = None

    @property
    def key(self) -> str:
        """The SHA-256 of the passages: contracts, offsets and texts."""
        if self._key is None:
            digest = hashlib.sha256()
            for passage in self.passages:
                digest.update(json.dumps(astuple(passage)).encode() + b"\n")
            self._key = digest.hexdigest()
        return self._key

    def rows(self, contract: str | None) -> slice:
        """Return where a contract's passages stand, all passages for None; raises InputError if it isn't held."""
        if contract is None:
            return slice(0, len(self.passages))
        if contract not in self._rows:
            known = f"{len(self._rows)} contracts, such as {next(iter(self._rows))!r}"
            raise InputError(f"Unknown contract {contract!r}: the retriever holds {known}")
        return self._rows[contract]

    def extended(self, passages: Sequence[Passage]) -> Index:
        """Return an index that also holds new contracts; only their passages are read, embedded and classified.

        Raises InputError if a contract is held already.
        """
        import faiss

        if known := {passage.contract for passage in passages} & self._rows.keys():
            raise InputError(f"Contract {min(known)!r} is in the retriever already: add each contract once, "
                             "with all its passages")  # fmt: skip
        new, rows = _grouped(passages)
        other, size = Index.__new__(Index), len(self.passages)
        other.passages = self.passages + new
        other._rows = self._rows | {name: slice(r.start + size, r.stop + size) for name, r in rows.items()}
        other._embedder, other._lock, other._key = self._embedder, threading.Lock(), None
        other._lexical = self._lexical.extended([passage.text for passage in new])
        with self._lock:
            other._vectors = faiss.clone_index(self._vectors) if self._vectors is not None else None
            other._classes, other._openings = self._classes, None
        if other._vectors is not None and new:
            other._vectors.add(self._embedder.encode([passage.text for passage in new]))
        if other._classes is not None and new:
            classifier, scores = other._classes
            other._classes = classifier, np.concatenate([scores, classifier.classify(new)])
        return other

    def words(self, weights: dict[str, float], rows: slice) -> np.ndarray:
        """Return the weighted BM25 score of the passages in `rows`."""
        return self._lexical.scores(weights, rows)

    def cosines(self, query: np.ndarray, rows: slice) -> np.ndarray:
        """Return the cosine of a query (a unit vector) and each passage in `rows`, through an exact FAISS search."""
        import faiss

        only = faiss.SearchParameters(sel=faiss.IDSelectorRange(rows.start, rows.stop))
        scores, found = self.vectors().search(query[None], rows.stop - rows.start, params=only)
        ordered = np.empty_like(scores[0])
        ordered[found[0] - rows.start] = scores[0]
        return ordered

    def classes(self, classifier: ClauseClassifier) -> np.ndarray:
        """Return the classifier's scores of all passages, of shape (passages, classes), computed once."""
        with self._lock:
            if self._classes is None or self._classes[0] is not classifier:
                self._classes = classifier, classifier.classify(self.passages)
            return self._classes[1]

    def named(self, weights: dict[str, float]) -> np.ndarray:
        """Return for all passages the weighted BM25 score of their contract's title and opening, which names parties."""
        with self._lock:
            if self._openings is None:
                first = {name: self.passages[rows][:3] for name, rows in self._rows.items()}
                texts = {name: "".join(passage.text for passage in own)[:OPENING] for name, own in first.items()}
                self._openings = Lexical([f"{name} {text}" for name, text in texts.items()])
        sizes = [rows.stop - rows.start for rows in self._rows.values()]
        return np.repeat(self._openings.scores(weights), sizes)

    def vectors(self) -> faiss.IndexFlatIP:
        """Return the FAISS index of the passages' embeddings, computed once."""
        import faiss

        with self._lock:
            if self._vectors is None:
                vectors = self._embedder.encode([passage.text for passage in self.passages])
                self._vectors = faiss.IndexFlatIP(vectors.shape[1])
                self._vectors.add(vectors)
            return self._vectors

    def save(self, folder: Path) -> dict[str, str]:
        """Write index.faiss into an existing folder; return what its vectors were made from, and its hash."""
        import faiss

        faiss.write_index(self.vectors(), str(folder / f".{FILE}.tmp"))
        os.replace(folder / f".{FILE}.tmp", folder / FILE)
        return {"passages": self.key, "model": self._embedder.key, "sha256": file_hash(folder / FILE)}

    def restore(self, folder: Path, made: dict[str, str]) -> None:
        """Take the vectors from index.faiss if it is the file that `save` described and fits passages and model.

        Otherwise warn, and embed the passages again when they are needed.
        """
        import faiss

        path = folder / FILE
        stale = {
            "it is missing or not as it was saved": not path.is_file() or file_hash(path) != made.get("sha256"),
            "the embedding model is another one": self._embedder is None or self._embedder.key != made.get("model"),
            "the passages have changed": self.key != made.get("passages"),
        }
        if any(stale.values()):
            reasons = " and ".join(reason for reason, true in stale.items() if true)
            warnings.warn(f"{path} is not used ({reasons}): the passages are embedded again; save the retriever "
                          "to keep that", stacklevel=4)  # fmt: skip
        else:
            self._vectors = faiss.read_index(str(path))


def _grouped(passages: Sequence[Passage]) -> tuple[list[Passage], dict[str, slice]]:
    """Return the passages contract after contract, and where each contract's are, which keep their order."""
    own: dict[str, list[Passage]] = {}
    for passage in passages:
        own.setdefault(passage.contract, []).append(passage)
    ordered: list[Passage] = []
    rows = {}
    for contract, found in own.items():
        rows[contract] = slice(len(ordered), len(ordered) + len(found))
        ordered += found
    return ordered, rows
