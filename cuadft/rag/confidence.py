"""How likely a contract holds the clause that a question asks for, and how likely a quote is right.

Two kinds of parts know different things. The clause classifiers of the retriever have seen every passage of the
contract, so that they know whether there is a clause and which sentences are like it; the language model reads one
passage, so that it knows which words to quote. `Confidence` calibrates what the classifiers say (stage A); `rag.settle`
adds what a system's language model says of its own quotes (stage B). For example:

    confidence = Confidence.fit(retriever, train_rows, k=3, false_answer_cost=0.75)
    (look,) = confidence.look(retriever, [("Which law governs?", title)], k=3)
    look.p_exists, [hit.p for hit in look.read]

Both are ridge logistic regressions, written as JSON. A probability is calibrated on contracts that the classifiers did
not see: each training contract by the fold that left it out. The threshold follows from stated costs: to answer pays
where p > c / (1 + c), with c the cost of a false answer over that of a false refusal (Elkan 2001, "The foundations of
cost-sensitive learning", section 1).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cuadft.core import files
from cuadft.core.files import value_hash
from cuadft.core.text import split_words
from cuadft.data.passages import gold_shares
from cuadft.data.rows import is_original
from cuadft.evaluation.confidence import is_right
from cuadft.rag.calibration import Calibration, enough, logit, parts_as_json, read_parts, threshold
from cuadft.rag.quotes import Quote, quote_of_sentence

if TYPE_CHECKING:
    from cuadft.data.passages import Passage
    from cuadft.retrieval.retriever import ClauseValues, Hit, Retriever


CONFIDENCE_FILE = "confidence.json"  # in a retriever's folder
ABSENT_SHARE = 0.5  # of the threshold: below it a clause counts as surely absent, and no language model is asked
READ_FROM = 0.25  # probability from which a further passage is read
PARTS, OPTIONAL = ("exists", "passage", "unknown", "unknown_passage"), ("sentence", "reworded")
SENTENCES = 8  # sentences of a question that are looked at
LENGTH_SPANS = 3  # spans of all categories that the usual length of a category's spans is drawn towards
LEAST_SENTENCE_P = 0.02  # below it a sentence is no candidate
UNKNOWN_ROWS = 1500  # rows that the search without classes is calibrated on
HELD_FROM = 0.4  # share of a span in a passage, or of a passage in a span, from which the passage holds the clause


# --- stage A: from the retriever alone


@dataclass(frozen=True)
class Look:
    """What the retriever sees of a question: the passages found, how likely each holds the clause, and the clause is.

    p_exists and passage_p are None where nothing is calibrated. sentences: those that are most like a clause of the
    question's category, the likeliest first. usual: how long its quotes usually are, see `usual_lengths`.
    """

    hits: list[Hit]
    p_exists: float | None = None
    passage_p: tuple[float, ...] | None = None
    threshold: float = 0.5
    calibrated: bool = False  # False for a question that is like no known one: it is answered as the reply says
    sentences: tuple[Quote, ...] = ()
    usual: Sequence[float] | None = None

    @property
    def absent(self) -> bool:
        """Tell whether the clause is surely absent, so that no language model is asked."""
        return self.calibrated and self.p_exists < ABSENT_SHARE * self.threshold

    @property
    def may_refuse(self) -> bool:
        """Tell whether the model may refuse: the clause has not been decided to be there."""
        return not self.calibrated or self.p_exists < self.threshold

    @property
    def read(self) -> list[int]:
        """Return which of `hits` the model reads: the best one, and more where they are likely to hold the clause."""
        if self.absent or not self.calibrated:
            return [] if self.absent else list(range(len(self.hits)))
        likely = [not self.may_refuse and p >= READ_FROM for p in self.passage_p]
        return [n for n in range(len(self.hits)) if not n or likely[n]]


@dataclass(frozen=True)
class Confidence:
    """Stage A: calibrations of the classifiers' values, for questions that are known and for those that are not.

    exists, passage, sentence: for questions of a class; sentence is None where the classifier knows no sentences, or
    too few of them are right. reworded: shifts the log-odds of questions in other words, None where no
    such question was given. unknown, unknown_passage: for questions of no class, from search scores alone; a category
    without a class, for want of examples, has at least its own intercept, by which it is decided. lengths: see
    `usual_lengths`.
    """

    exists: Calibration
    passage: Calibration
    sentence: Calibration | None
    reworded: Calibration | None
    unknown: Calibration
    unknown_passage: Calibration
    false_answer_cost: float
    about: Mapping[str, Any] = field(default_factory=dict)
    lengths: Mapping[str, Sequence[float]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A hash of all that a probability and a decision depend on."""
        return value_hash([parts_as_json(self), ABSENT_SHARE, READ_FROM])

    @property
    def threshold(self) -> float:
        """The probability from which an answer pays."""
        return threshold(self.false_answer_cost)

    @classmethod
    def fit(
        cls,
        retriever: Retriever,
        rows: Sequence[Mapping[str, Any]],
        *,
        k: int,
        false_answer_cost: float,
        reworded: Sequence[Mapping[str, Any]] = (),
    ) -> Confidence | None:
        """Calibrate on train rows of the contracts that the retriever's classifier was cross-fitted on.

        Returns None where there is no classifier, or too few questions (LEAST_QUESTIONS, LEAST_OF_KIND of each kind).
        reworded: train rows asked in other words, for the shift of questions in other words. Raises InputError on a
        false_answer_cost that is not above 0.
        """
        threshold(false_answer_cost)
        classifier = retriever.classifier
        known = [r for r in rows if classifier and is_original(r) and r["contract"] in classifier.fold_of]
        pairs = classed(retriever, known)
        truth = [bool(row["answers"]) for row, _ in pairs]
        if not enough(truth):
            return None
        exists = _fit([(exists_features(seen), bool(row["answers"]), seen.category) for row, seen in pairs], "best")
        lengths = usual_lengths([row for row, _ in pairs])
        passage, sentence = _fit_passages(retriever, pairs, k), _fit_sentences(pairs)
        unknown, unknown_passage = _fit_unknown(retriever, known, {seen.category for _, seen in pairs}, k)
        shift = _fit_reworded(retriever, exists, [r for r in reworded if r["contract"] in classifier.fold_of])
        about = {"contracts": len({r["contract"] for r, _ in pairs}), "base_rate": round(sum(truth) / len(truth), 4)}
        return cls(exists, passage, sentence, shift, unknown, unknown_passage, false_answer_cost, about, lengths)

    def look(self, retriever: Retriever, queries: Sequence[tuple[str, str]], *, k: int) -> list[Look]:
        """Return what the retriever sees of each (question, contract)."""
        found = zip(retriever.clause_values(queries), retriever.search_many(queries, k=k), strict=True)
        return [self._look(seen, hits) for seen, hits in found]

    def _look(self, seen: ClauseValues, hits: list[Hit]) -> Look:
        if not seen.best:
            decided = seen.category is not None
            (p,) = self.unknown.p([_search_features(hits)], [seen.category] if decided else None)
            own = self.unknown_passage.p([_hit_features(hits, n) for n in range(len(hits))])
            return Look(hits, float(p), tuple(map(float, own)), self.threshold, calibrated=decided)
        (p,) = self.exists.p([exists_features(seen)], [seen.category])
        if not seen.by_words and self.reworded:
            (p,) = self.reworded.p([{"logit": logit(float(p))}])
        features = [_passage_features(seen, hits, n) for n in range(len(hits))]
        own = tuple(map(float, self.passage.p(features, [seen.category] * len(hits))))
        sentences = tuple(_with_passage(quote, hits, own) for quote in self._sentences(seen))
        return Look(hits, float(p), own, self.threshold, True, sentences, self._usual(seen))

    def _usual(self, seen: ClauseValues) -> Sequence[float] | None:
        """Return how long quotes on the category usually are; None of a calibration that does not know lengths."""
        return self.lengths.get(seen.category) or self.lengths.get("")

    def _sentences(self, seen: ClauseValues) -> tuple[Quote, ...]:
        """Return the sentences that may be quoted, the likeliest first, each with its probability of being right."""
        found = _best_sentences(seen)
        if self.sentence is None or not found:
            return ()
        p = self.sentence.p([features for _, features in found], [seen.category] * len(found))
        made = [quote_of_sentence(sentence, float(own)) for (sentence, _), own in zip(found, p, strict=True)]
        return tuple(sorted((q for q in made if q.p >= LEAST_SENTENCE_P), key=lambda q: -q.p))


def save_confidence(confidence: Confidence | None, folder: Path) -> None:
    """Write confidence.json into a retriever's folder; None removes an older one."""
    if confidence is None:
        (folder / CONFIDENCE_FILE).unlink(missing_ok=True)
    else:
        files.write_json(folder / CONFIDENCE_FILE, parts_as_json(confidence))


def load_confidence(folder: Path) -> Confidence | None:
    """Return the confidence that was saved in a retriever's folder, None if there is none.

    Raises InputError if the file is not one that `save_confidence` wrote.
    """
    path = folder / CONFIDENCE_FILE
    if not path.is_file():
        return None
    confidence = read_parts(Confidence, path, "02_rag_compile", PARTS, OPTIONAL, later=("lengths",))
    threshold(confidence.false_answer_cost)
    return confidence


def exists_features(seen: ClauseValues) -> dict[str, float]:
    """Return what the classifier's values in the contract say about the clause."""
    found = _of_values(seen.values, seen.best) | {"log_passages": math.log(len(seen.values))}
    if len(seen.sentence_values):
        best = sorted(map(float, seen.sentence_values), reverse=True)[:3]
        found |= {f"sentence_{name}": value for name, value in _of_values(seen.sentence_values, best).items()}
    return found


def _of_values(values: np.ndarray, best: Sequence[float]) -> dict[str, float]:
    """Return the best values, how far the best one is above all, and its lead."""
    first, second, third = (*best, math.nan, math.nan)[:3]
    standardised = (first - float(values.mean())) / max(float(values.std()), 1e-6)
    return {"best": first, "second": second, "third": third, "standardised": standardised, "gap": first - second}


def _with_passage(quote: Quote, hits: Sequence[Hit], passage_p: Sequence[float]) -> Quote:
    """Return the quote with the probability of the likeliest passage that holds it, if one was found."""
    spans = [(hit.passage.start, hit.passage.end) for hit in hits]
    holding = [p for (start, end), p in zip(spans, passage_p) if start <= quote.span[0] and quote.span[1] <= end]
    return replace(quote, evidence={**quote.evidence, "passage_p": max(holding)}) if holding else quote


def usual_lengths(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Return by category the mean and the standard deviation of log(1 + words) of its gold spans; "" is of all spans.

    A category's own values are drawn towards those of all spans, as if LENGTH_SPANS of its spans were like these.
    """
    logs: dict[str, list[float]] = {}
    for row in rows:
        logs.setdefault(row["category"], []).extend(_log_words(gold["text"]) for gold in row["answers"])
    pooled = np.array([value for own in logs.values() for value in own])
    if not pooled.size:
        return {}
    mean, variance = float(pooled.mean()), max(float(pooled.var()), 0.01)  # a floor: all spans may be of one length
    found = {"": [mean, math.sqrt(variance)]}
    for category, own in logs.items():
        n, spread = len(own), float(np.var(own)) if own else 0.0
        centre = (sum(own) + LENGTH_SPANS * mean) / (n + LENGTH_SPANS)
        found[category] = [centre, math.sqrt((n * spread + LENGTH_SPANS * variance) / (n + LENGTH_SPANS))]
    return found


def length_off(text: str, usual: Sequence[float]) -> float:
    """Return by how many standard deviations a quote is longer or shorter than quotes on its category usually are."""
    mean, deviation = usual
    return abs(_log_words(text) - mean) / deviation


def _log_words(text: str) -> float:
    return math.log(1 + len(split_words(text)))


def _best_sentences(seen: ClauseValues) -> list[tuple[Passage, dict[str, float]]]:
    """Return the sentences with the highest values, each with what its value and its place among them say."""
    order = np.argsort(-seen.sentence_values, kind="stable")[: SENTENCES + 1]
    values = [*map(float, seen.sentence_values[order]), math.nan]
    found = []
    for rank, n in enumerate(order[:SENTENCES]):
        features = {"value": values[rank], "behind": values[0] - values[rank], "rank": math.log(1 + rank)}
        features["lead"] = values[rank] - values[rank + 1]
        features["log_words"] = _log_words(seen.sentences[n].text)
        found.append((seen.sentences[n], features))
    return found


def classed(retriever: Retriever, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Mapping[str, Any], ClauseValues]]:
    """Return the rows whose question is of a class, each with what the classifier sees."""
    seen = retriever.clause_values([(row["question"], row["contract"]) for row in rows])
    return [(row, values) for row, values in zip(rows, seen, strict=True) if values.best]


def _fit(cases: Sequence[tuple[dict[str, float], bool, str]], slope: str) -> Calibration:
    """Calibrate on cases of (features, truth, category)."""
    features, truth, groups = zip(*cases)
    return Calibration.fit(features, truth, groups=groups, slope=slope)


def _fit_sentences(pairs: Sequence[tuple[Mapping[str, Any], ClauseValues]]) -> Calibration | None:
    """Calibrate how likely a sentence is a right quote; None where the classifier knows too few sentences."""
    cases = [
        (features, is_right(sentence.text, row), seen.category)
        for row, seen in pairs
        for sentence, features in _best_sentences(seen)
    ]
    return _fit(cases, "value") if enough([right for _, right, _ in cases]) else None


def _passage_features(seen: ClauseValues, hits: Sequence[Hit], n: int) -> dict[str, float]:
    """Return what the classifier's values say about the n-th passage that was found."""
    value = float(seen.values[hits[n].passage.index])
    others = max((float(seen.values[hit.passage.index]) for m, hit in enumerate(hits) if m != n), default=math.nan)
    return {"best": value, "rank": math.log(1 + n), "behind": seen.best[0] - value, "other": others}


def _search_features(hits: Sequence[Hit]) -> dict[str, float]:
    """Return what the scores of a search say about a question of no class."""
    scores = [hit.score for hit in hits]
    return {"score": scores[0], "gap": scores[0] - scores[1] if len(scores) > 1 else math.nan}


def _hit_features(hits: Sequence[Hit], n: int) -> dict[str, float]:
    return {"score": hits[n].score, "rank": math.log(1 + n)}


def _holds(hit: Hit, row: Mapping[str, Any]) -> bool:
    """Tell whether a passage holds a gold span of the row, or enough of one."""
    return gold_shares([hit.passage], row["answers"]).get(hit.passage.index, 0.0) >= HELD_FROM


def _fit_reworded(retriever: Retriever, exists: Calibration, rows: Sequence[Mapping[str, Any]]) -> Calibration | None:
    """Calibrate the log-odds of questions that are known by their likeness alone; None with too few of them."""
    pairs = [(row, seen) for row, seen in classed(retriever, rows) if not seen.by_words]
    truth = [bool(row["answers"]) for row, _ in pairs]
    if not enough(truth):
        return None
    found = exists.p([exists_features(seen) for _, seen in pairs], [seen.category for _, seen in pairs])
    return Calibration.fit([{"logit": logit(p)} for p in found], truth)


def _fit_passages(retriever: Retriever, pairs: Sequence[tuple[Mapping[str, Any], ClauseValues]], k: int) -> Calibration:
    """Calibrate how likely a passage that was found holds the clause."""
    found = retriever.search_many([(row["question"], row["contract"]) for row, _ in pairs], k=k)
    cases = [
        (_passage_features(seen, hits, n), _holds(hit, row), seen.category)
        for (row, seen), hits in zip(pairs, found, strict=True)
        for n, hit in enumerate(hits)
    ]
    return _fit(cases, "best")


def _fit_unknown(
    retriever: Retriever, rows: Sequence[Mapping[str, Any]], classes: Collection[str], k: int
) -> tuple[Calibration, Calibration]:
    """Calibrate the scores of the search without classes: on all rows of no class, and some UNKNOWN_ROWS others."""
    rare = [row for row in rows if row["category"] not in classes]
    others = [row for row in rows if row["category"] in classes]
    drawn = rare + others[:: max(1, len(others) // UNKNOWN_ROWS)]
    plain = retriever.configured(classifier_weight=0.0)
    found = plain.search_many([(r["question"], r["contract"]) for r in drawn], k=k)
    pairs = [(row, hits) for row, hits in zip(drawn, found, strict=True) if hits]
    exists = _fit([(_search_features(hits), bool(row["answers"]), row["category"]) for row, hits in pairs], "")
    single = [(_hit_features(hits, n), _holds(hits[n], row)) for row, hits in pairs for n in range(len(hits))]
    return exists, Calibration.fit([f for f, _ in single], [t for _, t in single])
