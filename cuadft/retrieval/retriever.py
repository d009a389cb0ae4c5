"""Find the passages of a contract that answer a question: by words (BM25), embeddings (FAISS) and clause classes.

`Retriever` is what other rooms use. `index` scores all passages in one way at a time; the retriever adds up those
scores, orders the passages and returns the best that do not overlap. `saved` keeps the retrievers of a run, `measure`
compares them. For example, in mode "bm25", which needs no embedder:

    retriever = Retriever(passages, None, mode="bm25")
    hits = retriever.search("Which law governs?", contract=title, k=3)
    prompt = render_passages(hits)

A saved retriever is a folder of readable files. A save that was killed can't be loaded. Vectors are not among them:
the embedder's cache holds each one.
"""

from __future__ import annotations

import copy
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from cuadft.core.errors import InputError
from cuadft.core.files import read_json, read_jsonl, value_hash, write_json, write_jsonl
from cuadft.core.text import quotable
from cuadft.data.passages import Passage
from cuadft.retrieval.classifier import ClauseClassifier
from cuadft.retrieval.embedder import Embedder
from cuadft.retrieval.index import Index
from cuadft.retrieval.relevance import RelevanceFeedback
from cuadft.retrieval.words import search_words, with_pairs

Query = tuple[dict[str, float], np.ndarray | None]  # words with weights that add up to 1, and the vector

SEARCH_MODES = ("fusion", "dense", "bm25")
SCORE_DECIMALS = 5  # scores that differ by less are ties, which go to the earlier passage
SETTINGS_FILE, PASSAGES_FILE = "settings.json", "passages.jsonl"
FEEDBACK_FILE, CLASSIFIER_FOLDER = "feedback.jsonl", "classifier"


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
    for BM25 and for the cosine. All weights are from 0 to 1.
    """

    mode: str = "fusion"
    feedback_weight: float = 0.0
    dense_weight: float = 0.5
    classifier_weight: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in SEARCH_MODES:
            raise InputError(f"Invalid retrieval mode {self.mode!r}: choose {', '.join(SEARCH_MODES)}")
        for name in ("feedback_weight", "dense_weight", "classifier_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"Invalid {name} {getattr(self, name)!r}: give a number from 0 to 1")


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
    values: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    best: tuple[float, ...] = ()
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
        self._index = Index(passages, embedder, classifier)
        self._configure(SearchSettings(**settings))

    def __deepcopy__(self, memo: dict) -> Retriever:
        return self  # DSPy copies a program with all it holds

    @property
    def passages(self) -> list[Passage]:
        """All passages, contract after contract."""
        return self._index.passages

    @property
    def settings(self) -> dict[str, Any]:
        """The mode and the weights, as `configured` takes them."""
        return asdict(self._by)

    @property
    def key(self) -> str:
        """The SHA-256 of all that the results of a search depend on."""
        parts = [self.settings, self._index.key, self.embedder and self.embedder.key]
        parts += [self.feedback and self.feedback.spans, self.classifier and self.classifier.key]
        return value_hash(parts)

    def configured(self, **settings: Any) -> Retriever:
        """Return a retriever over the same indexes with other `SearchSettings`."""
        other = copy.copy(self)
        other._configure(replace(self._by, **settings))
        return other

    def _configure(self, by: SearchSettings) -> None:
        by_meaning = by.feedback_weight or by.mode != "bm25"
        needs = {"feedback": by.feedback_weight, "classifier": by.classifier_weight, "embedder": by_meaning}
        for part, needed in needs.items():
            if needed and getattr(self, part) is None:
                raise InputError(f"{by} without {part}: give one, or weights of 0 and mode 'bm25' to do without")
        self._by = by

    def holding(self, passages: Sequence[Passage]) -> Retriever:
        """Return a retriever over other passages with the same parts and settings."""
        parts = {"feedback": self.feedback, "classifier": self.classifier, "cutting": self.cutting}
        return Retriever(passages, self.embedder, **parts, **self.settings)

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
        contracts: defaultdict[str, list[str | None]] = defaultdict(list)
        for query, contract in dict.fromkeys(queries):
            if not query.strip():
                raise InputError(f"Empty query (contract {contract!r}): give the question's text")
            contracts[query].append(contract)
        found = {}
        for question, number, vector in self._questions(list(contracts)):
            learned: set[str] = set()  # contracts whose spans the feedback would move the question by
            if vector is not None and self._by.feedback_weight:
                learned = self.feedback.contracts(self.feedback.relevant(vector))
            moved: dict[str | None, Query] = {}  # by the contract whose own spans are left out
            for contract in contracts[question]:
                own = contract if contract in learned else None
                if own not in moved:
                    moved[own] = self._query(question, vector, own)
                found[question, contract] = self._best(moved[own], number, contract, k)
        return [list(found[pair]) for pair in queries]

    def _questions(self, asked: Sequence[str]) -> Iterator[tuple[str, int | None, np.ndarray | None]]:
        """Yield questions with their classes and vectors, as far as the settings need them."""
        by = self._by
        classes = self.classifier.match(asked) if by.classifier_weight and asked else [None] * len(asked)
        by_meaning = by.mode != "bm25" or by.feedback_weight
        needed = [q for q, n in zip(asked, classes) if by_meaning and (n is None or by.classifier_weight < 1)]
        vectors = dict(zip(needed, self.embedder.encode(needed))) if needed else {}
        for text, number in zip(asked, classes):
            yield text, number, vectors.get(text)

    def _query(self, text: str, vector: np.ndarray | None, own: str | None) -> Query:
        """Return a question's words and vector after relevance feedback without the spans of the contract `own`."""
        by, extra, words = self._by, {}, Counter(search_words(with_pairs(text)))
        if by.feedback_weight and vector is not None:
            relevant = self.feedback.relevant(vector, without=own)
            extra = self.feedback.terms(relevant) if by.mode != "dense" else {}
            vector = self.feedback.moved(vector, relevant, by.feedback_weight) if by.mode != "bm25" else vector
        weight = by.feedback_weight if extra else 0.0
        terms = {term: (1 - weight) * n / words.total() for term, n in words.items()}
        for term, share in extra.items():
            terms[term] = terms.get(term, 0.0) + weight * share
        return terms, vector

    def _best(self, query: Query, number: int | None, contract: str | None, k: int) -> list[Hit]:
        """Return the best k passages for a question of a class (a number, or None)."""
        index, by = self._index, self._by
        rows = index.rows(contract)
        weight = by.classifier_weight if number is not None else 0.0
        total = self._scores(*query, rows) if weight < 1 else np.zeros(rows.stop - rows.start)
        if weight:
            classes = index.class_scores[rows, number]
            total = (1 - weight) * standardised(total) + weight * standardised(classes)
        order = np.argsort(-np.round(total, SCORE_DECIMALS), kind="stable")
        passages = index.passages[rows]
        return [Hit(passages[n], float(total[n])) for n in _first_without_overlap(order, passages, k)]

    def _scores(self, terms: dict[str, float], vector: np.ndarray | None, rows: slice) -> np.ndarray:
        """Return the scores by words and embeddings of the passages in `rows`."""
        index, by = self._index, self._by
        if by.mode == "bm25":
            return index.words.scores(terms, rows)
        if by.mode == "dense":
            return index.cosines(vector, rows)
        by_words, by_meaning = standardised(index.words.scores(terms, rows)), standardised(index.cosines(vector, rows))
        return (1 - by.dense_weight) * by_words + by.dense_weight * by_meaning

    def clause_values(self, queries: Sequence[tuple[str, str]], *, best: int = 3) -> list[ClauseValues]:
        """Return the raw values of the clause classifier for (question, contract) pairs; they compare over contracts.

        Without a classifier every question is of no class.
        """
        if self.classifier is None:
            return [ClauseValues(None, False)] * len(queries)
        index, matcher, finer = self._index, self.classifier.matcher, self.classifier.sentences
        asked = list(dict.fromkeys(question for question, _ in queries))
        matches = {q: (found, matcher.by_words(q) is not None) for q, found in zip(asked, matcher.match(asked))}
        sentences = index.sentence_scores([contract for _, contract in queries]) if finer else {}
        found = []
        for question, contract in queries:
            rows, (category, by_words) = index.rows(contract), matches[question]
            made = ClauseValues(category, by_words)
            if category in self.classifier.categories:
                values = index.class_scores[rows, self.classifier.categories.index(category)]
                apart = _first_without_overlap(np.argsort(-values, kind="stable"), index.passages[rows], best)
                made = replace(made, values=values, best=tuple(float(values[place]) for place in apart))
            if finer and category in finer.categories:
                pieces, scores = sentences[contract]
                own = scores[:, finer.categories.index(category)]
                made = replace(made, sentences=pieces, sentence_values=own)
            found.append(made)
        return found

    def save(self, folder: Path | str) -> None:
        """Write passages.jsonl, settings.json and, where used, feedback.jsonl and classifier/; no pickle.

        settings.json comes last and says which other files belong to it.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SETTINGS_FILE).unlink(missing_ok=True)
        write_jsonl(folder / PASSAGES_FILE, [asdict(passage) for passage in self.passages])
        if self.feedback is not None:
            write_jsonl(folder / FEEDBACK_FILE, self.feedback.spans)
        if self.classifier is not None:
            self.classifier.save(folder / CLASSIFIER_FOLDER)
        parts = {"feedback": self.feedback is not None, "classifier": self.classifier is not None}
        write_json(folder / SETTINGS_FILE, self.settings | {"cutting": self.cutting} | parts)

    @classmethod
    def load(cls, folder: Path | str, embedder: Embedder | None) -> Retriever:
        """Return the retriever that `save` wrote, with equal results.

        Raises InputError if the folder is incomplete, or if another version wrote it.
        """
        folder = Path(folder)
        saved = read_json(folder / SETTINGS_FILE)
        try:
            parts = {name: saved[name] for name in (*(field.name for field in fields(SearchSettings)), "cutting")}
            passages = [Passage(**record) for record in read_jsonl(folder / PASSAGES_FILE)]
            if saved["feedback"]:
                parts["feedback"] = RelevanceFeedback(read_jsonl(folder / FEEDBACK_FILE), embedder)
            if saved["classifier"]:
                parts["classifier"] = ClauseClassifier.load(folder / CLASSIFIER_FOLDER, embedder)
        except (AttributeError, KeyError, TypeError) as error:
            message = f"'{folder}' holds no retriever that this version saved ({error!r}): build it again"
            raise InputError(message) from error
        return cls(passages, embedder, **parts)


def render_passages(hits: Sequence[Hit]) -> str:
    """Return passages as one delimited block; contract text can close neither its delimiter nor a chat turn."""
    return "\n".join(f"<passage>{quotable(hit.passage.text)}</passage>" for hit in hits)


def standardised(scores: np.ndarray) -> np.ndarray:
    """Return scores less their mean, over their standard deviation; zeros if all are equal.

    Fusion adds two lists of scores, both standardised. Bruch, Gai and Ingber (2023), "An analysis of fusion functions
    for hybrid retrieval", find that adding normalised scores beats reciprocal rank fusion; on CUAD it did, too.
    """
    centred = scores - scores.mean()
    return centred / max(float(scores.std()), 1e-9)


def _first_without_overlap(order: Iterable[int], passages: Sequence[Passage], k: int) -> list[int]:
    """Return the first k of `order` whose passages share no character with a passage already taken."""
    taken: defaultdict[str, list[Passage]] = defaultdict(list)
    kept: list[int] = []
    for n in order:
        passage = passages[n]
        near = taken[passage.contract]
        if not any(max(passage.start, other.start) < min(passage.end, other.end) for other in near):
            near.append(passage)
            kept.append(n)
        if len(kept) == k:
            break
    return kept
