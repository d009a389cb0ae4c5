"""Find the passages of a contract that answer a question: by words (BM25), embeddings (FAISS) and clause classes.

`Retriever` is what other rooms use. `index` scores all passages in one way at a time; the retriever adds up those
scores, orders the passages and returns the best that do not overlap. `saved` keeps the retrievers of a run, `measure`
compares them. For example, in mode "bm25", which needs no embedder:

    retriever = Retriever(passages, None, mode="bm25")
    hits = retriever.search("Which law governs?", contract=title, k=3)
    prompt = render_passages(hits)

A saved retriever is a folder of readable files. A save that was killed can't be loaded, and a saved part that no longer
fits (an index of other passages, vectors of another model) is computed again.
"""

from __future__ import annotations

import copy
import threading
from bisect import bisect
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cuadft.core.errors import InputError
from cuadft.core.files import file_hash, read_json, read_jsonl, value_hash, write_json, write_jsonl
from cuadft.core.text import quotable
from cuadft.data.passages import Passage
from cuadft.retrieval.index import INDEX_FILE, Index, search_words
from cuadft.retrieval.relevance import SPANS_FILE, VECTORS_FILE, RelevanceFeedback

if TYPE_CHECKING:
    from cuadft.retrieval.classifier import ClauseClassifier
    from cuadft.retrieval.embedder import Embedder


SEARCH_MODES = ("fusion", "dense", "bm25")
SETTINGS = ("mode", "feedback_weight", "dense_weight", "classifier_weight", "rerank", "contract_weight")
SCORE_DECIMALS = 5  # scores that differ by less are ties, which go to the earlier passage
SETTINGS_FILE, PASSAGES_FILE, CLASSIFIER_FOLDER = "settings.json", "passages.jsonl", "classifier"


@dataclass(frozen=True)
class Hit:
    """A passage that a search found; compare its score (before any reranking) within one search only."""

    passage: Passage
    score: float


@dataclass(frozen=True)
class ClauseValues:
    """How the clause classifier sees a contract: the question's category, and its class's value of each passage.

    category: None if the question is like no known one. values: empty if the category has no class, for want of
    examples. by_words: the question is a known one. best: the values of the best passages that share no character, the
    best one first. sentences, sentence_values: those of the contract and their class's values, where the classifier
    knows sentences.
    """

    category: str | None
    by_words: bool
    values: np.ndarray
    best: tuple[float, ...]
    sentences: Sequence[Passage] = ()
    sentence_values: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))


class Retriever:
    """Search over passages, in one contract or in all. Many threads may call it."""

    def __init__(
        self,
        passages: Sequence[Passage],
        embedder: Embedder | None,
        *,
        mode: str = "fusion",
        feedback: RelevanceFeedback | None = None,
        feedback_weight: float = 0.0,
        dense_weight: float = 0.5,
        classifier: ClauseClassifier | None = None,
        classifier_weight: float = 0.0,
        reranker: Any = None,
        rerank: int = 0,
        contract_weight: float = 0.0,
        cutting: tuple[int, float] | None = None,
    ):
        """Index passages for BM25 now, for embeddings and classes when they are first needed.

        A passage's score is (1 - c) z(s) + c z(its score for the class that the question asks for), with
        c = classifier_weight, 0 for a question of no known class. s is BM25 or the cosine, or in mode "fusion"
        (1 - d) z(BM25) + d z(cosine) with d = dense_weight; z standardises over the passages searched.
        feedback_weight: share of the relevance feedback in the query, for BM25 and for the cosine. These weights are
        from 0 to 1. reranker: has the `predict` of sentence-transformers' CrossEncoder; it orders the best `rerank`
        passages. contract_weight: weight of z(BM25 of the contract's title and opening) in a search over all contracts,
        where only the question can tell which contract is meant. cutting: the size and overlap with which passages were
        cut, kept for contracts that come later.

        Raises InputError without passages, on an unknown mode, and on a weight out of range or without what it weighs.
        """
        self.embedder, self.feedback, self.classifier, self.reranker = embedder, feedback, classifier, reranker
        self.cutting = tuple(cutting) if cutting else None
        self._lock, self._shared = threading.Lock(), {"index": Index(passages, embedder)}
        self._configure(
            mode=mode,
            feedback_weight=feedback_weight,
            dense_weight=dense_weight,
            classifier_weight=classifier_weight,
            rerank=rerank,
            contract_weight=contract_weight,
        )

    def __deepcopy__(self, memo: dict) -> Retriever:
        return self  # DSPy copies a program with all it holds

    @property
    def passages(self) -> list[Passage]:
        """All passages, contract after contract."""
        return self._shared["index"].passages

    @property
    def settings(self) -> dict[str, Any]:
        """The mode, the weights and the number of reranked passages, as `configured` takes them."""
        return {name: getattr(self, name) for name in SETTINGS}

    @property
    def key(self) -> str:
        """The SHA-256 of all that the results of a search depend on, except a reranker's weights."""
        parts = [self.settings, self._shared["index"].key, self.embedder and self.embedder.key]
        parts += [self.feedback and self.feedback.spans, self.classifier and self.classifier.key]
        return value_hash(parts)

    def configured(
        self,
        *,
        mode: str | None = None,
        feedback_weight: float | None = None,
        dense_weight: float | None = None,
        classifier_weight: float | None = None,
        rerank: int | None = None,
        contract_weight: float | None = None,
    ) -> Retriever:
        """Return a retriever over the same indexes with another mode, other weights or another reranking depth."""
        other = copy.copy(self)
        given = {
            "mode": mode,
            "feedback_weight": feedback_weight,
            "dense_weight": dense_weight,
            "classifier_weight": classifier_weight,
            "rerank": rerank,
            "contract_weight": contract_weight,
        }
        other._configure(**self.settings | {name: value for name, value in given.items() if value is not None})
        return other

    def _configure(
        self,
        *,
        mode: str,
        feedback_weight: float,
        dense_weight: float,
        classifier_weight: float,
        rerank: int,
        contract_weight: float,
    ) -> None:
        if mode not in SEARCH_MODES:
            raise InputError(f"Invalid retrieval mode {mode!r}: choose {', '.join(SEARCH_MODES)}")
        shares = {
            "feedback_weight": feedback_weight,
            "dense_weight": dense_weight,
            "classifier_weight": classifier_weight,
        }
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise InputError(f"Invalid {name} {share!r}: give a number from 0 to 1")
        if feedback_weight and self.feedback is None:
            given = f"feedback_weight {feedback_weight}"
            raise InputError(f"{given} without feedback: give RelevanceFeedback.from_rows(...), or 0")
        if classifier_weight and self.classifier is None:
            given = f"classifier_weight {classifier_weight}"
            raise InputError(f"{given} without classifier: give ClauseClassifier.fit(...), or 0")
        if rerank < 0 or rerank != int(rerank) or (rerank and self.reranker is None):
            raise InputError(f"Invalid rerank {rerank!r}: give a number of passages from 0, and a reranker unless 0")
        if self.embedder is None and (feedback_weight or mode != "bm25"):
            raise InputError(
                f"Mode {mode!r} with feedback_weight {feedback_weight} needs an embedder, got None: "
                "give one, or choose mode 'bm25' with feedback_weight 0"
            )
        if not 0 <= contract_weight < float("inf"):
            raise InputError(f"Invalid contract_weight {contract_weight!r}: give a number from 0")
        self.mode, self.rerank, self.contract_weight = mode, int(rerank), contract_weight
        self.feedback_weight, self.dense_weight = feedback_weight, dense_weight
        self.classifier_weight = classifier_weight

    def add(self, passages: Sequence[Passage]) -> None:
        """Take in new contracts, here and in all that `configured` made; only their passages are embedded.

        Raises InputError if a contract is held already.
        """
        with self._lock:
            self._shared["index"] = self._shared["index"].extended(passages)

    def search(self, query: str, *, contract: str | None = None, k: int = 3) -> list[Hit]:
        """Return the best k passages (fewer if there are fewer), best first; ties go to the earlier passage.

        No two share a character: where passages overlap, the better one stands for both. contract: search inside
        this one only. Raises InputError on an empty query, unknown contract or k < 1.
        """
        return self.search_many([(query, contract)], k=k)[0]

    def search_many(self, queries: Sequence[tuple[str, str | None]], k: int = 3) -> list[list[Hit]]:
        """Run `search` for (query, contract) pairs; work that equal questions share is done once."""
        if k < 1:
            raise InputError(f"Invalid k {k!r}: give 1 or more")
        index = self._shared["index"]  # `add` may put another one there meanwhile
        for query, contract in queries:
            if not query.strip():
                raise InputError(f"Empty query (contract {contract!r}): give the question's text")
            index.rows(contract)
        batch = _BatchSearch(self, index, queries)
        found = {(query, contract): hits for query, contract, hits in batch.best(k)}
        return [list(found[query, contract]) for query, contract in queries]

    def clause_values(self, queries: Sequence[tuple[str, str]], *, best: int = 3) -> list[ClauseValues]:
        """Return the raw values of the clause classifier for (question, contract) pairs; they compare over contracts.

        Without a classifier every question is of no class.
        """
        index = self._shared["index"]
        asked = list(dict.fromkeys(question for question, _ in queries))
        matcher = self.classifier.matcher if self.classifier and asked else None
        categories = dict(zip(asked, matcher.match(asked))) if matcher else {}
        known = dict(zip(asked, matcher.by_words(asked))) if matcher else {}
        columns = {category: n for n, category in enumerate(self.classifier.categories)} if matcher else {}
        finer = self.classifier.sentences if matcher else None
        sentences = index.sentence_scores(finer, [contract for _, contract in queries]) if finer else {}
        finer_columns = {category: n for n, category in enumerate(finer.categories)} if finer else {}
        found = []
        for question, contract in queries:
            rows, category = index.rows(contract), categories.get(question)
            if category not in columns:
                found.append(ClauseValues(category, known.get(question, False), np.zeros(0, np.float32), ()))
                continue
            values = index.class_scores(self.classifier)[rows, columns[category]]
            apart = _first_without_overlap(np.argsort(-values, kind="stable"), index.passages[rows], best)
            own = tuple(float(values[place]) for place in apart)
            pieces = ()
            if category in finer_columns:
                sentences_here, scores = sentences[contract]
                pieces = sentences_here, scores[:, finer_columns[category]]
            found.append(ClauseValues(category, known[question], values, own, *pieces))
        return found

    def save(self, folder: Path | str) -> None:
        """Write settings.json, passages.jsonl and, where used, index.faiss, feedback and classifier; no pickle."""
        _save_parts(self, self._shared["index"], Path(folder))

    @classmethod
    def load(cls, folder: Path | str, embedder: Embedder | None, *, reranker: Any = None) -> Retriever:
        """Return the retriever that `save` wrote, with equal results; embeds no passage that is embedded already.

        An index of other passages or of another embedding model is left aside with a warning, and the passages are
        embedded again. Raises InputError if the folder is incomplete, or needs a reranker and none is given.
        """
        parts, index = _load_parts(Path(folder), embedder)
        retriever = cls(index.passages[:1], embedder, reranker=reranker, **parts)
        retriever._shared["index"] = index
        return retriever


def render_passages(hits: Sequence[Hit]) -> str:
    """Return passages as one delimited block; contract text can close neither its delimiter nor a chat turn."""
    return "\n".join(f"<passage>{quotable(hit.passage.text)}</passage>" for hit in hits)


class _BatchSearch:
    """Search one index for a batch of (question, contract) pairs, with a retriever's settings."""

    def __init__(self, by: Retriever, index: Index, queries: Sequence[tuple[str, str | None]]):
        """Match each distinct question to its class and embed it once, as far as the settings need it."""
        self._by, self._index = by, index
        self._contracts: dict[str, dict[str | None, None]] = {}
        for query, contract in queries:
            self._contracts.setdefault(query, {})[contract] = None
        asked = list(self._contracts)
        found = by.classifier.match(asked) if by.classifier_weight and asked else [None] * len(asked)
        self._class = dict(zip(asked, found))
        needed = asked if by.mode != "bm25" or by.feedback_weight else []
        needed = [query for query in needed if self._class_weight(query) < 1]
        self._vectors = dict(zip(needed, by.embedder.encode(needed))) if needed else {}

    def best(self, k: int) -> Iterator[tuple[str, str | None, list[Hit]]]:
        """Yield each distinct pair with its k best passages, question after question."""
        for query, contracts in self._contracts.items():
            moved = _MovedQuery(self._by, query, self._vectors.get(query))  # serves all contracts of the question
            for contract in contracts:
                yield query, contract, self._search(query, moved, contract, k)

    def _class_weight(self, query: str) -> float:
        return self._by.classifier_weight if self._class[query] is not None else 0.0

    def _search(self, query: str, moved: _MovedQuery, contract: str | None, k: int) -> list[Hit]:
        rows, weight = self._index.rows(contract), self._class_weight(query)
        total = self._scores(moved, contract) if weight < 1 else np.zeros(rows.stop - rows.start)
        if weight:
            classes = self._index.class_scores(self._by.classifier)[rows, self._class[query]]
            total = (1 - weight) * standardised(total) + weight * standardised(classes)
        if contract is None and self._by.contract_weight:
            named = self._index.opening_scores(Counter(search_words(query)))
            total = standardised(total) + self._by.contract_weight * standardised(named)
        order = np.argsort(-np.round(total, SCORE_DECIMALS), kind="stable")
        passages = self._index.passages if contract is None else self._index.passages[rows]
        if depth := self._by.rerank:
            order = np.concatenate([self._reranked(query, order[:depth], passages), order[depth:]])
        return [Hit(passages[n], float(total[n])) for n in _first_without_overlap(order, passages, k)]

    def _scores(self, moved: _MovedQuery, contract: str | None) -> np.ndarray:
        """Return the scores by words and embeddings of the passages searched."""
        terms, vector = moved.without(contract)
        rows, mode, weight = self._index.rows(contract), self._by.mode, self._by.dense_weight
        if mode == "bm25":
            return self._index.word_scores(terms, rows)
        if mode == "dense":
            return self._index.cosines(vector, rows)
        by_words, by_meaning = self._index.word_scores(terms, rows), self._index.cosines(vector, rows)
        return (1 - weight) * standardised(by_words) + weight * standardised(by_meaning)

    def _reranked(self, query: str, order: np.ndarray, passages: Sequence[Passage]) -> np.ndarray:
        scores = np.asarray(self._by.reranker.predict([(query, passages[n].text) for n in order]), float)
        if scores.shape != order.shape:
            given = f"scores of shape {scores.shape} for {len(order)} passages"
            raise InputError(f"The reranker gave {given}: give a model with one score a pair, such as a CrossEncoder")
        return order[np.argsort(-scores, kind="stable")]


class _MovedQuery:
    """A question's words and vector after relevance feedback, which leaves out the searched contract's gold spans."""

    def __init__(self, by: Retriever, query: str, vector: np.ndarray | None):
        self._mode, self._feedback, self._vector = by.mode, by.feedback, vector
        self._weight = by.feedback_weight if vector is not None else 0.0
        self._words = Counter(search_words(query))
        self._known = self._feedback.contracts(self._feedback.relevant(vector)) if self._weight else set()
        self._made: dict[str | None, tuple[dict[str, float], np.ndarray | None]] = {}

    def without(self, contract: str | None) -> tuple[dict[str, float], np.ndarray | None]:
        """Return the words, with weights that add up to 1, and the vector; feedback without the contract's spans."""
        own = contract if contract in self._known else None
        if own not in self._made:
            self._made[own] = self._move(own)
        return self._made[own]

    def _move(self, own: str | None) -> tuple[dict[str, float], np.ndarray | None]:
        vector, weight, extra = self._vector, self._weight, {}
        if weight:
            relevant = self._feedback.relevant(vector, without=own)
            extra = self._feedback.terms(relevant) if self._mode != "dense" else {}
            vector = self._feedback.moved(vector, relevant, weight) if self._mode != "bm25" else vector
        weight = weight if extra else 0.0
        terms = {term: (1 - weight) * n / self._words.total() for term, n in self._words.items()}
        for term, share in extra.items():
            terms[term] = terms.get(term, 0.0) + weight * share
        return terms, vector


def standardised(scores: np.ndarray) -> np.ndarray:
    """Return scores less their mean, over their standard deviation; zeros if all are equal.

    Fusion adds two lists of scores, both standardised. Bruch, Gai and Ingber (2023), "An analysis of fusion functions
    for hybrid retrieval", find that adding normalised scores beats reciprocal rank fusion; on CUAD it did, too.
    """
    centred = scores - scores.mean()
    return centred / max(float(scores.std()), 1e-9)


def _first_without_overlap(order: Iterable[int], passages: Sequence[Passage], k: int) -> list[int]:
    """Return the first k of `order` whose passages share no character with a passage already taken."""
    taken: dict[str, list[tuple[int, int]]] = {}
    kept: list[int] = []
    for n in order:
        passage = passages[n]
        spans = taken.setdefault(passage.contract, [])
        at = bisect(spans, (passage.start, passage.end))
        near = spans[max(at - 1, 0) : at + 1]  # those taken are apart, so only the neighbours can be in the way
        if any(start < passage.end and passage.start < end for start, end in near) and passage.text:
            continue
        if passage.text:  # an empty passage shares no character
            spans.insert(at, (passage.start, passage.end))
        kept.append(n)
        if len(kept) == k:
            break
    return kept


def _save_parts(retriever: Retriever, index: Index, folder: Path) -> None:
    """Write the folder; settings.json comes last and says what the other files were made from."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / SETTINGS_FILE).unlink(missing_ok=True)
    made: dict[str, Any] = {"cutting": retriever.cutting, "classifier": retriever.classifier is not None}
    write_jsonl(folder / PASSAGES_FILE, [asdict(passage) for passage in index.passages])
    (folder / INDEX_FILE).unlink(missing_ok=True)
    if retriever.mode != "bm25" and retriever.classifier_weight < 1:
        made["index"] = index.save(folder)
    if retriever.feedback is not None:
        retriever.feedback.save(folder)
        made["feedback"] = _feedback_stamp(folder, retriever.feedback.spans, retriever.embedder)
    if retriever.classifier is not None:
        (folder / CLASSIFIER_FOLDER).mkdir(exist_ok=True)
        retriever.classifier.save(folder / CLASSIFIER_FOLDER)
    write_json(folder / SETTINGS_FILE, retriever.settings | made)


def _load_parts(folder: Path, embedder: Embedder | None) -> tuple[dict[str, Any], Index]:
    """Return the keyword arguments of the saved retriever, and its index."""
    settings = read_json(folder / SETTINGS_FILE)
    try:
        passages = [Passage(**record) for record in read_jsonl(folder / PASSAGES_FILE)]
        parts = {name: settings[name] for name in (*SETTINGS, "cutting")}
        index = Index(passages, embedder)
        if made := settings.get("index"):
            index.restore(folder, made)
        if settings.get("feedback"):
            parts["feedback"] = _saved_feedback(folder, settings["feedback"], embedder)
        holds_classifier = settings["classifier"]
    except (AttributeError, KeyError, TypeError) as error:
        message = f"'{folder}' holds no retriever that this version saved ({error!r}): build it again"
        raise InputError(message) from error
    if holds_classifier:
        from cuadft.retrieval.classifier import ClauseClassifier

        parts["classifier"] = ClauseClassifier.load(folder / CLASSIFIER_FOLDER, embedder)
    return parts, index


def _saved_feedback(folder: Path, made: dict[str, Any], embedder: Embedder | None) -> RelevanceFeedback:
    """Return the saved feedback, with its vectors only if they are of these spans and of this model."""
    if embedder is None:
        raise InputError(f"The retriever in '{folder}' holds relevance feedback: give an embedder, got None")
    fits = _feedback_stamp(folder, read_jsonl(folder / SPANS_FILE), embedder) == made
    return RelevanceFeedback.load(folder, embedder, vectors=fits)


def _feedback_stamp(folder: Path, spans: list[dict[str, str]], embedder: Embedder | None) -> dict[str, Any]:
    """Return hashes of the spans, of the model and of the vectors' file, by which saved vectors are known to fit."""
    vectors = folder / VECTORS_FILE
    found = file_hash(vectors) if vectors.is_file() else None
    return {"spans": value_hash(spans), "model": embedder and embedder.key, "sha256": found}
