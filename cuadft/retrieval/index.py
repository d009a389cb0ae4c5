"""Score the passages of an index by their words, their embeddings or their classes; ranking is the retriever's part.

An `Index` computes each kind of score for all passages once, and never changes. With more contracts it becomes another
index that takes over all that is computed, so that searches may go on meanwhile. Every search is exact: at this size an
approximate one would save no time. For example:

    index = Index(passages, None)
    scores = index.word_scores({"governing": 1.0, "law": 1.0}, index.rows(title))  # one for each of its passages

`BM25Index` computes the scores of the bm25s library for weighted query words, as a sparse matrix. A query costs one
product of the searched rows with its word weights: thousands of queries, each with a hundred words, take seconds.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cuadft.core.errors import InputError
from cuadft.core.files import file_hash
from cuadft.core.text import fold_words
from cuadft.data.passages import Passage, cut_sentences, join_passages

if TYPE_CHECKING:
    import faiss
    from scipy.sparse import csr_matrix

    from cuadft.retrieval.classifier import ClauseClassifier
    from cuadft.retrieval.embedder import Embedder


INDEX_FILE = "index.faiss"
OPENING_CHARS = 1500  # characters in which a contract names its parties, kind and date
ALL_ROWS = slice(None)


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
        self._bm25 = BM25Index([passage.text for passage in self.passages])
        self._vectors: faiss.IndexFlatIP | None = None
        self._classes: tuple[ClauseClassifier, np.ndarray] | None = None
        self._sentences: tuple[ClauseClassifier, dict[str, tuple[list[Passage], np.ndarray]]] | None = None
        self._openings: BM25Index | None = None
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
        """Return where a contract's passages stand (None: all passages); raises InputError for an unknown contract."""
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
            raise InputError(
                f"Contract {min(known)!r} is in the retriever already: add each contract once, with all its passages"
            )
        new, rows = _grouped(passages)
        other, size, texts = copy.copy(self), len(self.passages), [passage.text for passage in new]
        other.passages = self.passages + new
        other._rows = self._rows | {name: slice(r.start + size, r.stop + size) for name, r in rows.items()}
        other._lock, other._key, other._openings = threading.Lock(), None, None
        other._bm25 = BM25Index(texts, self._bm25)
        with self._lock:
            other._vectors, other._classes, other._sentences = self._vectors, self._classes, None
        if other._vectors is not None and new:
            other._vectors = faiss.clone_index(other._vectors)
            other._vectors.add(self._embedder.encode(texts))
        if other._classes is not None and new:
            classifier, scores = other._classes
            other._classes = classifier, np.concatenate([scores, classifier.classify(new)])
        return other

    def word_scores(self, weights: dict[str, float], rows: slice) -> np.ndarray:
        """Return the weighted BM25 score of the passages in `rows`."""
        return self._bm25.scores(weights, rows)

    def cosines(self, query: np.ndarray, rows: slice) -> np.ndarray:
        """Return the cosine of a query (a unit vector) and each passage in `rows`, through an exact FAISS search."""
        import faiss

        only = faiss.SearchParameters(sel=faiss.IDSelectorRange(rows.start, rows.stop))
        scores, found = self.vectors().search(query[None], rows.stop - rows.start, params=only)
        ordered = np.empty_like(scores[0])
        ordered[found[0] - rows.start] = scores[0]
        return ordered

    def class_scores(self, classifier: ClauseClassifier) -> np.ndarray:
        """Return the classifier's scores of all passages, of shape (passages, classes), computed once."""
        with self._lock:
            if self._classes is None or self._classes[0] is not classifier:
                self._classes = classifier, classifier.classify(self.passages)
            return self._classes[1]

    def sentence_scores(
        self, classifier: ClauseClassifier, contracts: Iterable[str]
    ) -> dict[str, tuple[list[Passage], np.ndarray]]:
        """Return the sentences of each contract and the classifier's scores, (sentences, classes), computed once."""
        with self._lock:
            if self._sentences is None or self._sentences[0] is not classifier:
                self._sentences = classifier, {}
            held = self._sentences[1]
            if new := [title for title in dict.fromkeys(contracts) if title not in held]:
                made = {t: cut_sentences(join_passages(self.passages[self.rows(t)])[0], contract=t) for t in new}
                scores = classifier.classify([sentence for own in made.values() for sentence in own])
                ends = np.cumsum([len(own) for own in made.values()])
                held |= {t: (made[t], part) for t, part in zip(new, np.split(scores, ends[:-1]))}
            return {title: held[title] for title in contracts}

    def opening_scores(self, weights: dict[str, float]) -> np.ndarray:
        """Return for every passage the weighted BM25 score of its contract's title and opening, which name parties."""
        with self._lock:
            if self._openings is None:
                first = {name: self.passages[rows][:3] for name, rows in self._rows.items()}
                texts = {name: "".join(passage.text for passage in own)[:OPENING_CHARS] for name, own in first.items()}
                self._openings = BM25Index([f"{name} {text}" for name, text in texts.items()])
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

        faiss.write_index(self.vectors(), str(folder / f".{INDEX_FILE}.tmp"))
        os.replace(folder / f".{INDEX_FILE}.tmp", folder / INDEX_FILE)
        return {"passages": self.key, "model": self._embedder.key, "sha256": file_hash(folder / INDEX_FILE)}

    def restore(self, folder: Path, made: dict[str, str]) -> None:
        """Take the vectors from index.faiss if `made` (from `save`) describes that file, these passages and this model.

        Otherwise warn, and embed the passages again when they are needed.
        """
        import faiss

        path = folder / INDEX_FILE
        stale = {
            "it is missing or not as it was saved": not path.is_file() or file_hash(path) != made.get("sha256"),
            "the embedding model is another one": self._embedder is None or self._embedder.key != made.get("model"),
            "the passages have changed": self.key != made.get("passages"),
        }
        if any(stale.values()):
            reasons = " and ".join(reason for reason, true in stale.items() if true)
            warnings.warn(
                f"{path} is not used ({reasons}): the passages are embedded again; save the retriever to keep that",
                stacklevel=4,
            )
        else:
            self._vectors = faiss.read_index(str(path))


def _grouped(passages: Sequence[Passage]) -> tuple[list[Passage], dict[str, slice]]:
    """Return the passages contract after contract, in their order within it, and where each contract's stand."""
    own: dict[str, list[Passage]] = {}
    for passage in passages:
        own.setdefault(passage.contract, []).append(passage)
    ends = np.cumsum([len(found) for found in own.values()]).tolist()
    rows = {contract: slice(end - len(found), end) for (contract, found), end in zip(own.items(), ends)}
    return [passage for found in own.values() for passage in found], rows


def search_words(text: str) -> list[str]:
    """Return the lower-case words of a text, in order, without English stop words."""
    from bm25s.stopwords import STOPWORDS_EN

    return [word for word in fold_words(text) if word not in STOPWORDS_EN]


class BM25Index:
    """A BM25 index (k1 = 1.5, b = 0.75, Lucene's variant: bm25s' defaults). It never changes."""

    def __init__(self, texts: Sequence[str], before: BM25Index | None = None):
        """Read the words of n texts, which come after those of another index, and weigh all."""
        self._number: dict[str, int] = dict(before._number) if before else {}
        self._texts: list[np.ndarray] = list(before._texts) if before else []
        for text in texts:
            numbers = [self._number.setdefault(word, len(self._number)) for word in search_words(text)]
            self._texts.append(np.array(numbers, np.int32))
        self._matrix = _bm25_matrix(self._texts, len(self._number))

    def scores(self, weights: Mapping[str, float], rows: slice = ALL_ROWS) -> np.ndarray:
        """Return the sum of weight * BM25 over the query words for the texts in `rows`: float32 of shape (n,)."""
        query = np.zeros(self._matrix.shape[1], np.float32)
        for word, weight in weights.items():
            if word in self._number:
                query[self._number[word]] = weight
        return (self._matrix if rows == ALL_ROWS else self._matrix[rows]) @ query


def _bm25_matrix(texts: Sequence[np.ndarray], n_words: int) -> csr_matrix:
    """Return the score of each word in each text, float32 of shape (texts, words), 0 where the word does not occur."""
    import bm25s
    from scipy.sparse import csc_matrix, csr_matrix

    if not n_words:
        return csr_matrix((len(texts), 1), dtype=np.float32)
    index = bm25s.BM25(auto_compile=False)
    numbers = {str(n): n for n in range(n_words)}
    index.index(([text.tolist() for text in texts], numbers), show_progress=False)
    found = index.scores
    shape = (len(texts), len(found["indptr"]) - 1)
    return csc_matrix((found["data"], found["indices"], found["indptr"]), shape=shape).tocsr()
