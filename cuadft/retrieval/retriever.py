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
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cuadft.core.errors import InputError
from cuadft.core.files import read_json, read_jsonl, value_hash, write_json, write_jsonl
from cuadft.core.text import quotable
from cuadft.data.passages import Passage
from cuadft.retrieval.index import INDEX_FILE, Index, search_words
from cuadft.retrieval.relevance import RelevanceFeedback

if TYPE_CHECKING:
    from cuadft.retrieval.classifier import ClauseClassifier
    from cuadft.retrieval.embedder import Embedder


SEARCH_MODES = ("fusion", "dense", "bm25")
SCORE_DECIMALS = 5  # scores that differ by less are ties, which go to the earlier passage
SETTINGS_FILE, PASSAGES_FILE, CLASSIFIER_FOLDER = "settings.json", "passages.jsonl", "classifier"


@dataclass(frozen=True)
class Hit:
    """A passage that a search found; compare its score within one search only."""

    passage: Passage
    score: float


@dataclass(frozen=True)
class SearchSettings:
    """How a search adds up its scores; z standardises scores over the passages searched.

    A passage's score is (1 - c) z(s) + c z(its score for the class that the question asks for), with
    c = classifier_weight, 0 for a question of no known class. s is BM25 or the cosine, or in mode "fusion"
    (1 - d) z(BM25) + d z(cosine) with d = dense_weight. feedback_weight: share of the relevance feedback in the query,
    for BM25 and for the cosine. These weights are from 0 to 1. contract_weight: weight of z(BM25 of the contract's
    title and opening) in a search over all contracts, where only the question can tell which contract is meant.
    """

    mode: str = "fusion"
    feedback_weight: float = 0.0
    dense_weight: float = 0.5
    classifier_weight: float = 0.0
    contract_weight: float = 0.0


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
        feedback: RelevanceFeedback | None = None,
        classifier: ClauseClassifier | None = None,
        cutting: tuple[int, float] | None = None,
        **settings: Any,
    ):
        """Index passages for BM25 now, for embeddings and classes when they are first needed.

        cutting: the size and overlap with which passages were cut, kept for contracts that come later. settings: those
        of `SearchSettings`. Raises InputError without passages, on an unknown mode, and on a weight out of range or
        without what it weighs.
        """
        self.embedder, self.feedback, self.classifier = embedder, feedback, classifier
        self.cutting = tuple(cutting) if cutting else None
        self._lock, self._shared = threading.Lock(), {"index": Index(passages, embedder)}
        self._configure(SearchSettings(**settings))

    def __deepcopy__(self, memo: dict) -> Retriever:
        return self  # DSPy copies a program with all it holds

    @property
    def passages(self) -> list[Passage]:
        """All passages, contract after contract."""
        return self._shared["index"].passages

    @property
    def settings(self) -> dict[str, Any]:
        """The mode and the weights, as `configured` takes them."""
        return asdict(self._by)

    @property
    def key(self) -> str:
        """The SHA-256 of all that the results of a search depend on."""
        parts = [self.settings, self._shared["index"].key, self.embedder and self.embedder.key]
        parts += [self.feedback and self.feedback.spans, self.classifier and self.classifier.key]
        return value_hash(parts)

    def configured(self, **settings: Any) -> Retriever:
        """Return a retriever over the same indexes with other `SearchSettings`."""
        other = copy.copy(self)
        other._configure(replace(self._by, **settings))
        return other

    def _configure(self, by: SearchSettings) -> None:
        if by.mode not in SEARCH_MODES:
            raise InputError(f"Invalid retrieval mode {by.mode!r}: choose {', '.join(SEARCH_MODES)}")
        for name in ("feedback_weight", "dense_weight", "classifier_weight"):
            if not 0 <= getattr(by, name) <= 1:
                raise InputError(f"Invalid {name} {getattr(by, name)!r}: give a number from 0 to 1")
        if by.feedback_weight and self.feedback is None:
            given = f"feedback_weight {by.feedback_weight}"
            raise InputError(f"{given} without feedback: give RelevanceFeedback.from_rows(...), or 0")
        if by.classifier_weight and self.classifier is None:
            given = f"classifier_weight {by.classifier_weight}"
            raise InputError(f"{given} without classifier: give ClauseClassifier.fit(...), or 0")
        if self.embedder is None and (by.feedback_weight or by.mode != "bm25"):
            raise InputError(
                f"Mode {by.mode!r} with feedback_weight {by.feedback_weight} needs an embedder, got None: "
                "give one, or choose mode 'bm25' with feedback_weight 0"
            )
        self._by = by

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
        contracts: dict[str, dict[str | None, None]] = {}
        for query, contract in queries:
            if not query.strip():
                raise InputError(f"Empty query (contract {contract!r}): give the question's text")
            index.rows(contract)
            contracts.setdefault(query, {})[contract] = None
        found = {
            (question.text, contract): self._best(index, question, contract, k)
            for question in self._questions(list(contracts))
            for contract in contracts[question.text]
        }
        return [list(found[pair]) for pair in queries]

    def _questions(self, asked: Sequence[str]) -> Iterator[_Question]:
        """Yield questions with their classes and vectors, as far as the settings need them."""
        by = self._by
        classes = self.classifier.match(asked) if by.classifier_weight and asked else [None] * len(asked)
        by_meaning = by.mode != "bm25" or by.feedback_weight
        needed = [q for q, n in zip(asked, classes) if by_meaning and (n is None or by.classifier_weight < 1)]
        vectors = dict(zip(needed, self.embedder.encode(needed))) if needed else {}
        for text, number in zip(asked, classes):
            yield _Question(text, number, vectors.get(text), by, self.feedback)

    def _best(self, index: Index, question: _Question, contract: str | None, k: int) -> list[Hit]:
        rows, by = index.rows(contract), self._by
        weight = by.classifier_weight if question.number is not None else 0.0
        total = _scores(index, question, contract, by) if weight < 1 else np.zeros(rows.stop - rows.start)
        if weight:
            classes = index.class_scores(self.classifier)[rows, question.number]
            total = (1 - weight) * standardised(total) + weight * standardised(classes)
        if contract is None and by.contract_weight:
            named = index.opening_scores(Counter(search_words(question.text)))
            total = standardised(total) + by.contract_weight * standardised(named)
        order = np.argsort(-np.round(total, SCORE_DECIMALS), kind="stable")
        passages = index.passages[rows]
        return [Hit(passages[n], float(total[n])) for n in _first_without_overlap(order, passages, k)]

    def clause_values(self, queries: Sequence[tuple[str, str]], *, best: int = 3) -> list[ClauseValues]:
        """Return the raw values of the clause classifier for (question, contract) pairs; they compare over contracts.

        Without a classifier every question is of no class.
        """
        index, matcher = self._shared["index"], self.classifier and self.classifier.matcher
        asked = list(dict.fromkeys(question for question, _ in queries)) if matcher else []
        matches = dict(zip(asked, zip(matcher.match(asked), matcher.by_words(asked)))) if asked else {}
        columns = {category: n for n, category in enumerate(self.classifier.categories)} if matcher else {}
        finer = self.classifier.sentences if matcher else None
        sentences = index.sentence_scores(finer, [contract for _, contract in queries]) if finer else {}
        finer_columns = {category: n for n, category in enumerate(finer.categories)} if finer else {}
        found = []
        for question, contract in queries:
            rows, (category, by_words) = index.rows(contract), matches.get(question, (None, False))
            values, own, pieces = np.zeros(0, np.float32), (), ()
            if category in columns:
                values = index.class_scores(self.classifier)[rows, columns[category]]
                apart = _first_without_overlap(np.argsort(-values, kind="stable"), index.passages[rows], best)
                own = tuple(float(values[place]) for place in apart)
            if category in finer_columns:
                sentences_here, scores = sentences[contract]
                pieces = sentences_here, scores[:, finer_columns[category]]
            found.append(ClauseValues(category, by_words, values, own, *pieces))
        return found

    def save(self, folder: Path | str) -> None:
        """Write settings.json, passages.jsonl and, where used, index.faiss, feedback and classifier; no pickle.

        settings.json comes last and says what the other files were made from.
        """
        folder, index = Path(folder), self._shared["index"]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SETTINGS_FILE).unlink(missing_ok=True)
        made: dict[str, Any] = {"cutting": self.cutting, "classifier": self.classifier is not None}
        write_jsonl(folder / PASSAGES_FILE, [asdict(passage) for passage in index.passages])
        (folder / INDEX_FILE).unlink(missing_ok=True)
        if self._by.mode != "bm25" and self._by.classifier_weight < 1:
            made["index"] = index.save(folder)
        if self.feedback is not None:
            made["feedback"] = self.feedback.save(folder)
        if self.classifier is not None:
            (folder / CLASSIFIER_FOLDER).mkdir(exist_ok=True)
            self.classifier.save(folder / CLASSIFIER_FOLDER)
        write_json(folder / SETTINGS_FILE, self.settings | made)

    @classmethod
    def load(cls, folder: Path | str, embedder: Embedder | None) -> Retriever:
        """Return the retriever that `save` wrote, with equal results; embeds no passage that is embedded already.

        An index of other passages or of another embedding model is left aside with a warning, and the passages are
        embedded again. Raises InputError if the folder is incomplete, or if it needs what this version doesn't have.
        """
        folder = Path(folder)
        saved = read_json(folder / SETTINGS_FILE)
        try:
            parts = {name: saved[name] for name in (*(field.name for field in fields(SearchSettings)), "cutting")}
            if saved.get("rerank"):
                raise KeyError("a cross-encoder orders its passages, which this version does not do")
            index = Index([Passage(**record) for record in read_jsonl(folder / PASSAGES_FILE)], embedder)
            if made := saved.get("index"):
                index.restore(folder, made)
            if made := saved.get("feedback"):
                parts["feedback"] = RelevanceFeedback.load(folder, embedder, made)
            holds_classifier = saved["classifier"]
        except (AttributeError, KeyError, TypeError) as error:
            message = f"'{folder}' holds no retriever that this version saved ({error!r}): build it again"
            raise InputError(message) from error
        if holds_classifier:
            from cuadft.retrieval.classifier import ClauseClassifier

            parts["classifier"] = ClauseClassifier.load(folder / CLASSIFIER_FOLDER, embedder)
        retriever = cls(index.passages[:1], embedder, **parts)
        retriever._shared["index"] = index
        return retriever


def render_passages(hits: Sequence[Hit]) -> str:
    """Return passages as one delimited block; contract text can close neither its delimiter nor a chat turn."""
    return "\n".join(f"<passage>{quotable(hit.passage.text)}</passage>" for hit in hits)


def _scores(index: Index, question: _Question, contract: str | None, by: SearchSettings) -> np.ndarray:
    """Return the scores by words and embeddings of the passages searched."""
    terms, vector = question.without(contract)
    rows = index.rows(contract)
    if by.mode == "bm25":
        return index.word_scores(terms, rows)
    if by.mode == "dense":
        return index.cosines(vector, rows)
    by_words, by_meaning = standardised(index.word_scores(terms, rows)), standardised(index.cosines(vector, rows))
    return (1 - by.dense_weight) * by_words + by.dense_weight * by_meaning


class _Question:
    """A question's class, and its words and vector after relevance feedback without the searched contract's spans."""

    def __init__(
        self,
        text: str,
        number: int | None,
        vector: np.ndarray | None,
        by: SearchSettings,
        feedback: RelevanceFeedback | None,
    ):
        """Take the number of the question's class, and its vector, as far as the search needs them."""
        self.text, self.number, self._vector = text, number, vector
        self._mode, self._feedback = by.mode, feedback
        self._weight = by.feedback_weight if vector is not None else 0.0
        self._known = feedback.contracts(feedback.relevant(vector)) if self._weight else set()
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
        weight, words = weight if extra else 0.0, Counter(search_words(self.text))
        terms = {term: (1 - weight) * n / words.total() for term, n in words.items()}
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
