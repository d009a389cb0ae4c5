"""Recognise clauses: which passages answer a category, and which category a question asks for.

`ClauseClassifier` has for each category a linear model over a passage's words and its place in the contract. CUAD asks
the same questions of every contract, so that the train split holds hundreds of passages that answer each: enough to
learn the answers' own wording, which no question shows. Fitting takes seconds. It holds a second one over single
sentences, which tells where in a passage the answer stands. `QuestionMatcher` finds a question's
category: by its words if they are known, else by the nearest known questions. For example:

    matcher = QuestionMatcher({"Which law governs?": "Governing Law"}, embedder, least=0.5)
    classifier = ClauseClassifier.fit(train_rows, train_passages, matcher)
    retriever = Retriever(passages, embedder, classifier=classifier, classifier_weight=0.5)
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cuadft.core.errors import InputError
from cuadft.core.files import read_json, value_hash, write_bytes, write_json
from cuadft.core.text import MARKS, fold
from cuadft.data.passages import Passage, cut_sentences, gold_shares, join_passages
from cuadft.data.rows import is_annotated, passages_by_contract
from cuadft.data.schema import NO_CATEGORY
from cuadft.retrieval.words import texts_in_words

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer

    from cuadft.data.contracts import Row
    from cuadft.retrieval.embedder import Embedder


FOLDS = 4
LEAST_CONTRACTS = 5  # a category with a clause in fewer contracts gets no model
POSITIVE_SHARE = 0.4  # share of a span in the passage, or of the passage in a span, that makes the passage an example
MOST_NEGATIVES = 6000  # passages without the clause that a model is fitted on
MOST_WORDS = 120_000
STRENGTH = 100.0  # scikit-learn's C; 20 to 100 make no difference on dev contracts
EDGE_FADE = 1500  # characters over which the nearness to the contract's start or end fades
PLACE_FEATURES = 4  # first passage, share of the contract before it, nearness to its start and to its end
SETTINGS_FILE, WEIGHTS_FILE = "classifier.json", "classifier.safetensors"
SENTENCES_FOLDER = "sentences"  # in a classifier's folder: the classifier of single sentences
# a longer question that holds a known one of so many characters asks for the same ("Consider the ...; ...")
WHOLE_QUESTION = 40
MATCHED_FROM = 0.6  # least cosine at which a question in other words counts as a known one
NEIGHBOURS = 5  # known questions that vote


class ClauseClassifier:
    """One model per category and fold; a contract's passages are scored by the fold that has not seen the contract.

    So the ranking of train contracts, which fine-tuning learns from, is as imperfect as the ranking of new contracts,
    and their values are on one scale with those of new contracts: a fold weighs words by its own contracts alone, and
    relatives of a contract are in the contract's fold.
    """

    def __init__(
        self,
        categories: Sequence[str],
        vocabulary: Mapping[str, int],
        idf: np.ndarray,
        weights: np.ndarray,
        fold_of: Mapping[str, int],
        matcher: QuestionMatcher,
        sentences: ClauseClassifier | None = None,
    ):
        """Take idf (folds, words) and weights (folds, words + 5, categories): of words, places and the bias.

        An idf of 0 stands for a word that the fold has never seen. sentences: the classifier of single sentences.
        """
        self.categories, self.matcher, self.fold_of = list(categories), matcher, dict(fold_of)
        self.sentences = sentences
        self._vocabulary, self._idf = dict(vocabulary), idf
        self._weights = weights.astype(np.float16).astype(np.float32)  # as saved, so that loading changes no ranking
        weighed = hashlib.sha256(self._weights.tobytes()).hexdigest()
        own = sentences.key if sentences else None
        self.key = value_hash([self.categories, self.fold_of, weighed, self.matcher.known, self.matcher.least, own])

    @classmethod
    def fit(
        cls,
        rows: Sequence[Row],
        passages: Sequence[Passage],
        matcher: QuestionMatcher,
        *,
        groups: Mapping[str, int] | None = None,
        folds: int = FOLDS,
        least: int = LEAST_CONTRACTS,
        seed: int = 7,
        sentences: bool = True,
    ) -> ClauseClassifier | None:
        """Fit on train rows and all passages of their contracts; rows that no person annotated are left out.

        A contract is an example only for the categories that it has a row of: nobody knows what it lacks of the others.
        groups: title -> group; contracts of one group, such as near-duplicates, are in one fold. folds: as many as
        there are groups, if there are fewer. A category with a clause in fewer than `least` contracts gets no model.
        sentences: fit the classifier of single sentences as well, if the contracts have text enough. Returns None if no
        category gets a model, or there are no two contracts, or their passages share no words.
        """
        # a generated question or a user's own names one answer, not every answer in its contract
        rows = [row for row in rows if is_annotated(row)]
        fold_of = _draw_folds(sorted({row["contract"] for row in rows}), groups or {}, folds, seed)
        passages = [passage for passage in passages if passage.contract in fold_of]
        labels, categories = _labels(rows, passages, least)
        if len(fold_of) < 2 or not categories:
            return None
        words = _word_counter()
        try:
            counts = words.fit_transform(_texts(passages))
        except ValueError:  # scikit-learn found no word that enough passages hold
            return None
        places, fold = _places(passages), np.array([fold_of[passage.contract] for passage in passages])
        others = [fold != n for n in range(fold.max() + 1)]  # what each fold is fitted on
        idf = np.stack([_idf(counts[own]) for own in others])
        fits = [_fit_fold(_features(counts, places, idf[n])[own], labels[own], seed) for n, own in enumerate(others)]
        vocabulary = {word: int(n) for word, n in words.vocabulary_.items()}
        settings = {"groups": groups, "folds": folds, "least": least, "seed": seed, "sentences": False}
        finer = cls.fit(rows, sentences_of(passages), matcher, **settings) if sentences else None
        return cls(categories, vocabulary, idf, np.stack(fits), fold_of, matcher, finer)

    def match(self, questions: Sequence[str]) -> list[int | None]:
        """Return the class that each question asks for, None for a question that is like no known one."""
        number = {category: n for n, category in enumerate(self.categories)}
        return [number.get(category) for category in self.matcher.match(questions)]

    def classify(self, passages: Sequence[Passage]) -> np.ndarray:
        """Return decision values, float32 of shape (n, number of classes); give all passages of a contract.

        Places are measured by the contract's last passage. An unseen contract gets the mean over the folds.
        """
        if not len(passages):
            return np.zeros((0, len(self.categories)), np.float32)
        counts = _word_counter(self._vocabulary).transform(_texts(passages))
        places = _places(passages)
        fold = np.array([self.fold_of.get(passage.contract, -1) for passage in passages])
        scores = np.zeros((len(passages), len(self.categories)), np.float32)
        for n, (idf, weights) in enumerate(zip(self._idf, self._weights, strict=True)):
            for own, share in ((fold == n, 1.0), (fold == -1, 1 / len(self._weights))):
                if own.any():
                    scores[own] += share * (_features(counts[own], places[own], idf) @ weights)
        return scores

    def save(self, folder: Path) -> None:
        """Write classifier.json and classifier.safetensors (half precision) into a folder of their own.

        The classifier of sentences goes into a folder in it.
        """
        from safetensors.numpy import save

        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_bytes(folder / WEIGHTS_FILE, save({"weights": self._weights.astype(np.float16), "idf": self._idf}))
        if self.sentences:
            self.sentences.save(folder / SENTENCES_FOLDER)
        settings = {
            "categories": self.categories,
            "fold_of": self.fold_of,
            "vocabulary": sorted(self._vocabulary, key=self._vocabulary.__getitem__),
            "questions": self.matcher.known,
            "least": self.matcher.least,
            "sentences": self.sentences is not None,
        }
        write_json(folder / SETTINGS_FILE, settings)  # last: a killed save can't be loaded

    @classmethod
    def load(cls, folder: Path, embedder: Embedder | None) -> ClauseClassifier:
        """Return what `save` wrote; raises InputError if the files are incomplete or don't belong together."""
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        saved = read_json(folder / SETTINGS_FILE)
        try:
            arrays = load_file(folder / WEIGHTS_FILE)
            weights, idf = arrays["weights"].astype(np.float32), arrays["idf"]
            vocabulary = {word: n for n, word in enumerate(saved["vocabulary"])}
            matcher = QuestionMatcher(saved["questions"], embedder, least=saved["least"])
            categories, fold_of, finer = saved["categories"], saved["fold_of"], saved["sentences"]
        except (OSError, AttributeError, KeyError, TypeError, SafetensorError) as error:
            raise InputError(f"{folder} holds no whole classifier ({error!r}): build the retriever again") from error
        if weights.shape != (len(idf), len(vocabulary) + PLACE_FEATURES + 1, len(categories)):
            raise InputError(f"{folder}'s files don't belong together: build the retriever again")
        sentences = cls.load(folder / SENTENCES_FOLDER, embedder) if finer else None
        return cls(categories, vocabulary, idf, weights, fold_of, matcher, sentences)


def sentences_of(passages: Sequence[Passage]) -> list[Passage]:
    """Return the sentences of the contracts that the passages are all of, contract after contract."""
    own = passages_by_contract(passages)
    return [piece for title, some in own.items() for piece in cut_sentences(join_passages(some)[0], contract=title)]


class QuestionMatcher:
    """Known questions and the category that each asks for. Many threads may call it."""

    def __init__(self, known: Mapping[str, str], embedder: Embedder | None, *, least: float):
        """Take the known questions, each with its category; the embedder serves for questions in other words.

        least: cosine below which a question counts as unknown.
        """
        self.known = {fold(question): category for question, category in known.items()}
        self._embedder, self.least = embedder, least
        self._categories, self._vectors = list(self.known.values()), None
        self._long = [question for question in self.known if len(question) >= WHOLE_QUESTION]

    def match(self, questions: Sequence[str]) -> list[str | None]:
        """Return each question's category, None for one that is like no known question."""
        found = {question: self.by_words(question) for question in questions}
        other = [question for question, category in found.items() if category is None]
        if other and self._embedder is not None:
            if self._vectors is None:
                self._vectors = self._embedder.encode(list(self.known))
            found |= zip(other, map(self._vote, self._embedder.encode(other) @ self._vectors.T))
        return [found[question] for question in questions]

    def by_words(self, question: str) -> str | None:
        """Return the category of a known question, or of a longer one that holds known questions of one category."""
        question = fold(question)
        if question in self.known:
            return self.known[question]
        inside = {self.known[q] for q in self._long if q in question}
        return inside.pop() if len(inside) == 1 else None

    def _vote(self, similarity: np.ndarray) -> str | None:
        """Return the category with the largest sum of cosines among the nearest known questions."""
        best = np.argsort(-similarity, kind="stable")[:NEIGHBOURS]
        if similarity[best[0]] < self.least:
            return None
        votes = Counter()
        for n in best:
            votes[self._categories[n]] += float(similarity[n])
        return max(votes, key=votes.__getitem__)


def _draw_folds(names: Sequence[str], groups: Mapping[str, int], folds: int, seed: int) -> dict[str, int]:
    """Return the fold of each contract: whole groups, the largest first, each to the fold that is smallest so far."""
    own: dict[Any, list[str]] = {}
    for name in names:
        own.setdefault(groups.get(name, name), []).append(name)
    members = list(own.values()) if len(own) > 1 else [[name] for name in names]
    order = sorted(np.random.default_rng(seed).permutation(len(members)), key=lambda n: -len(members[n]))
    size = [0] * min(folds, len(members))
    fold_of = {}
    for n in order:
        fold = size.index(min(size))
        size[fold] += len(members[n])
        fold_of |= dict.fromkeys(members[n], fold)
    return fold_of


def _texts(passages: Sequence[Passage]) -> list[str]:
    return texts_in_words((passage.contract, passage.text) for passage in passages)


def _word_counter(vocabulary: Mapping[str, int] | None = None) -> CountVectorizer:
    from sklearn.feature_extraction.text import CountVectorizer

    return CountVectorizer(
        token_pattern=rf"\b\w[\w{MARKS}]+",
        ngram_range=(1, 2),
        min_df=1 if vocabulary else 3,
        max_features=MOST_WORDS,
        strip_accents="unicode",
        dtype=np.float32,
        vocabulary=vocabulary,
    )


def _idf(counts: csr_matrix) -> np.ndarray:
    """Return the inverse document frequency of each word (scikit-learn's smooth one), 0 for a word without a text."""
    texts = np.bincount(counts.indices, minlength=counts.shape[1])
    return np.where(texts > 0, np.log((1 + counts.shape[0]) / (1 + texts)) + 1, 0).astype(np.float32)


def _places(passages: Sequence[Passage]) -> np.ndarray:
    """Return the PLACE_FEATURES of each passage (0 to 0.5 each) and a constant 1 for the bias."""
    contracts = [passage.contract for passage in passages]
    start, end = (np.array([getattr(passage, edge) for passage in passages]) for edge in ("start", "end"))
    whole = pd.Series(end).groupby(contracts).transform("max").clip(lower=1).to_numpy(np.float32)
    start, rest = start.astype(np.float32), np.maximum(whole - end, 0)
    place = np.c_[start == 0, start / whole, np.exp(-start / EDGE_FADE), np.exp(-rest / EDGE_FADE)] / 2
    return np.c_[place, np.ones(len(passages))].astype(np.float32)


def _features(counts: csr_matrix, places: np.ndarray, idf: np.ndarray) -> csr_matrix:
    """Return the words' weights (sublinear tf-idf, of length 1) and the places side by side."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.preprocessing import normalize

    words = counts.copy()
    words.data = (1 + np.log(words.data)) * idf[words.indices]
    return hstack([normalize(words, copy=False), csr_matrix(places)]).tocsr()


def _labels(rows: Sequence[Row], passages: Sequence[Passage], least: int) -> tuple[np.ndarray, list[str]]:
    """Return int8 labels of shape (passages, categories), and the categories that have a clause in `least` contracts.

    1: the passage is an example. 0: it has nothing of the category. -1: it holds only a bit of a span, or its contract
    has no row of the category; it is not fitted on.
    """
    contracts = Counter(category for category, _ in {(r["category"], r["contract"]) for r in rows if r["answers"]})
    categories = sorted(category for category, n in contracts.items() if n >= least)
    column = {category: n for n, category in enumerate(categories)}
    own: dict[str, dict[int, int]] = {}  # by contract, where the passage of an index stands
    for n, passage in enumerate(passages):
        own.setdefault(passage.contract, {})[passage.index] = n
    labels = np.full((len(passages), len(categories)), -1, np.int8)
    asked = [(column[r["category"]], own.get(r["contract"], {}), r) for r in rows if r["category"] in column]
    for number, place, _ in asked:
        labels[list(place.values()), number] = 0
    for number, place, row in asked:
        for index, share in gold_shares([passages[n] for n in place.values()], row["answers"]).items():
            cell = place[index], number
            labels[cell] = 1 if share >= POSITIVE_SHARE else labels[cell] or -1
    return labels, categories


def _fit_fold(features: csr_matrix, labels: np.ndarray, seed: int) -> np.ndarray:
    """Return the weights of one fold, (features, categories); zeros for a category that the fold never sees."""
    from sklearn.linear_model import LogisticRegression

    draw, weights = np.random.default_rng(seed), np.zeros((features.shape[1], labels.shape[1]), np.float32)
    for n in range(labels.shape[1]):
        positive, negative = np.flatnonzero(labels[:, n] == 1), np.flatnonzero(labels[:, n] == 0)
        if len(positive) and len(negative):
            kept = np.r_[positive, draw.permutation(negative)[:MOST_NEGATIVES]]
            model = LogisticRegression(
                C=STRENGTH, class_weight="balanced", solver="liblinear", fit_intercept=False, random_state=seed
            )
            weights[:, n] = model.fit(features[kept], labels[kept, n]).coef_[0]
    return weights


def fit_classifier(
    rows: Sequence[Row], passages: Sequence[Passage], embed: Embedder, *, groups: Mapping[str, int], seed: int
) -> ClauseClassifier | None:
    """Return clause classifiers fitted to rows and the passages of their contracts; None with too few contracts.

    The known questions of each category are those of the rows. groups: title -> group of relatives, which stay in one
    fold.
    """
    questions = {row["question"]: row["category"] for row in rows if row["category"] != NO_CATEGORY}
    matcher = QuestionMatcher(questions, embed, least=MATCHED_FROM)
    return ClauseClassifier.fit(rows, passages, matcher, groups=groups, seed=seed)
