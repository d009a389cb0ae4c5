"""Settle a prediction: the probability of each quote and of the clause, and the answer that follows from them.

Stage A of the confidence (`rag.confidence`) knows the classifiers' values alone. `SystemConfidence`, stage B, adds what
a system's language model says of its own quotes; it is fitted on dev answers of that system, never on rows that it was
trained on. For example:

    system = SystemConfidence.fit(dev_predictions, right)
    settle(prediction, threshold(1.0), system)["answer"]
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cuadft.core import files
from cuadft.core.text import split_words
from cuadft.evaluation.confidence import is_right
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.rag.calibration import Calibration, enough, logit, parts_as_json, read_parts

HELD_OUT_FOLDS = 10  # of dev contracts, to see whether the reader's evidence helps
READER = ("first", "mean", "sum", "end", "votes")  # how sure the model was of a quote's words
QUOTE_FEATURES = {"passage": (), "reader": READER}  # evidence that a quote's probability uses
QUOTED_FROM = 0.125  # probability from which a further quote is shown: a lawyer would rather skip seven than miss one


@dataclass(frozen=True)
class SystemConfidence:
    """Stage B of one system: exists, for questions whose passages were read, and quote, for each quote.

    exists is None where dev contracts did not show that the reader's evidence helps; stage A then decides alone.
    """

    exists: Calibration | None
    quote: Calibration | None
    about: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def fit(cls, predictions: Sequence[Mapping[str, Any]], right: Sequence[Sequence[bool]]) -> SystemConfidence:
        """Fit on dev predictions of one system; right: for each quote of a prediction, whether it is right.

        What the reader says of its quotes is used where it lowers the log-loss on contracts left out (HELD_OUT_FOLDS):
        else the existence keeps to stage A, and a quote to its passage. A prediction counts by its "weight": a draw of
        dev questions holds most of those with a clause, and a probability from bare rows would find clauses everywhere.
        """
        read = [p for p in predictions if _of_reader(p) and p["p_search"] is not None]
        truth, titles = [bool(p["answers"]) for p in read], [p["contract"] for p in read]
        weights = _weights(read)
        exists, about = None, {"questions": len(read), "contracts": len(set(titles))}
        if enough(truth):
            features = [_reader_features(p) for p in read]
            losses = {
                "search": _log_loss([p["p_search"] for p in read], truth, weights),
                "reader": _log_loss(_left_out(features, truth, titles, weights), truth, weights),
            }
            about["log_loss_exists"] = losses
            if losses["reader"] < losses["search"]:
                exists = Calibration.fit(features, truth, weights=weights)
        pairs = [(p, q, good) for p, goods in zip(predictions, right) for q, good in _each(p, goods)]
        truth, titles = [good for _, _, good in pairs], [p["contract"] for p, _, _ in pairs]
        weights, quote = _weights([p for p, _, _ in pairs]), None
        if enough(truth):
            made = {how: [_quote_features(p, q, how) for p, q, _ in pairs] for how in QUOTE_FEATURES}
            losses = {
                how: _log_loss(_left_out(rows, truth, titles, weights), truth, weights) for how, rows in made.items()
            }
            about["log_loss_quote"] = losses
            quote = Calibration.fit(made[min(losses, key=losses.__getitem__)], truth, weights=weights)
        return cls(exists, quote, about | {"quotes": len(pairs)})

    def save(self, path: Path) -> None:
        """Write the calibrations as JSON."""
        files.write_json(path, parts_as_json(self))

    @classmethod
    def load(cls, path: Path) -> SystemConfidence | None:
        """Return what `save` wrote, None if the file is missing; raises InputError on any other file."""
        if not path.is_file():
            return None
        return read_parts(cls, path, "03_batch_inference", (), ("exists", "quote"))


def settle(
    prediction: Mapping[str, Any], threshold: float, system: SystemConfidence | None = None, refusal: str = NO_CLAUSE
) -> dict[str, Any]:
    """Return a prediction with its probabilities, and with the answer that follows from them.

    Of a prediction that was read, `p_search` (stage A, None where nothing is calibrated), `calibrated` and the evidence
    of the quotes are looked at. The answer is the likeliest quote, or the refusal; further quotes are shown from
    QUOTED_FROM on. A failed prediction stays as it is.
    """
    if prediction["error"] is not None:
        return dict(prediction)
    p = prediction["p_search"]
    if p is not None and system and system.exists and _of_reader(prediction):
        (p,) = map(float, system.exists.p([_reader_features(prediction)]))
    quotes = prediction["quotes"]
    own = [q["evidence"].get("sentence_p" if "found" in q["evidence"] else "passage_p", math.nan) for q in quotes]
    if system and system.quote:
        own = system.quote.p([_quote_features(prediction, quote) for quote in quotes])
    told = [q | {"p": 1.0 if math.isnan(value) else round(float(value), 5)} for q, value in zip(quotes, own)]
    ranked = sorted(told, key=lambda quote: (-quote["p"], *_reading_order(quote)))
    answered = bool(ranked) and (p >= threshold if prediction["calibrated"] else True)
    shown: list[dict[str, Any]] = []
    for quote in ranked:  # of sampled quotes that share words, only the likeliest is shown
        fits = not shown or (_is_likely(quote) and not _is_another_draw(quote, shown))
        shown.append(quote | {"quoted": answered and fits})
    best = shown[0] if answered else None
    return dict(prediction) | {
        "answer": best["text"] if best else refusal,
        "spans": [best["span"]] if best and best["span"] else [],
        "p_exists": None if p is None else round(p, 5),
        "quotes": shown,
    }


def _is_likely(quote: Mapping[str, Any]) -> bool:
    """Tell whether a further quote is shown: its words are likely right, or it is a sentence likely to hold the clause.

    A sentence that is longer than the experts' words has a low probability, and still holds what is looked for.
    """
    evidence = quote["evidence"]
    return max(quote["p"], evidence["sentence_p"] if "found" in evidence else 0.0) >= QUOTED_FROM


def _is_another_draw(quote: Mapping[str, Any], better: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether a sampled quote shares words with a likelier one, so that both answer the same clause."""
    start, end = quote["span"] or (0, 0)
    spans = [other["span"] for other in better if other["span"]] if "votes" in quote["evidence"] else []
    return any(start < other_end and other_start < end for other_start, other_end in spans)


def settle_left_out(
    predictions: Sequence[Mapping[str, Any]],
    right: Sequence[Sequence[bool]],
    threshold: float,
    refusal: str = NO_CLAUSE,
) -> list[dict[str, Any]]:
    """Return dev predictions settled by stage B fitted without the contract that they are about (HELD_OUT_FOLDS)."""
    settled = [settle(p, threshold, None, refusal) for p in predictions]
    for train, held in _folds([p["contract"] for p in predictions]):
        system = SystemConfidence.fit([predictions[n] for n in train], [right[n] for n in train])
        for n in held:
            settled[n] = settle(predictions[n], threshold, system, refusal)
    return settled


def _folds(contracts: Sequence[str]) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Return the rows to fit on and the rows left out, HELD_OUT_FOLDS times; () if there is one contract."""
    from sklearn.model_selection import GroupKFold

    folds = min(HELD_OUT_FOLDS, len(set(contracts)))
    return GroupKFold(folds).split(contracts, groups=contracts) if folds > 1 else ()


def quotes_right(prediction: Mapping[str, Any]) -> list[bool]:
    """Tell of each quote of a prediction whether its words match a gold span's as CUAD's own script asks."""
    return [is_right(quote["text"], prediction) for quote in prediction["quotes"]]


def _each(prediction: Mapping[str, Any], right: Sequence[bool]) -> list[tuple[Mapping[str, Any], bool]]:
    """Return the quotes with their truth, in one order whatever was settled before: a fit depends on it, if little."""
    pairs = zip(prediction.get("quotes") or [], right, strict=True)
    return sorted(pairs, key=lambda pair: _reading_order(pair[0]))


def _reading_order(quote: Mapping[str, Any]) -> tuple[float, float, str]:
    """Return a sort key: the best passage first, its lines as the model wrote them."""
    return quote["evidence"].get("rank", 0.0), quote["evidence"].get("line", 0.0), quote["text"]


def _reader_features(prediction: Mapping[str, Any]) -> dict[str, float]:
    """Return stage A's log-odds and the evidence of the quote that the model was surest of."""
    names = ("sum", "mean", "first", "end")  # sums have a floor, so that they are often equal: the next one decides
    given = [quote["evidence"] for quote in _of_reader(prediction)]
    best = max(given, key=lambda evidence: [evidence.get(name, 0.0) for name in names])
    own = {name: best[name] for name in names if name in best}
    return own | {"search": logit(prediction["p_search"])}


def _of_reader(prediction: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the quotes that the language model made, without the sentences that the classifiers found."""
    return [quote for quote in prediction.get("quotes") or [] if "found" not in quote["evidence"]]


def _quote_features(prediction: Mapping[str, Any], quote: Mapping[str, Any], how: str = "reader") -> dict[str, float]:
    """Return what speaks for one quote: its passage and stage A, and for "reader" the model's certainty as well."""
    evidence = quote["evidence"]
    found = {name: evidence[name] for name in ("line", "length", *QUOTE_FEATURES[how]) if name in evidence}
    found["log_words"] = math.log(1 + len(split_words(quote["text"])))
    if "sentence_p" in evidence:
        found |= {"sentence": logit(evidence["sentence_p"]), "found": evidence.get("found", 0.0)}
    if "passage_p" in evidence:
        found["passage"] = logit(evidence["passage_p"])
    if prediction["p_search"] is not None:
        found["search"] = logit(prediction["p_search"])
    return found


def _weights(predictions: Sequence[Mapping[str, Any]]) -> np.ndarray:
    """Return how many questions each prediction stands for, as a multiple of the mean."""
    weights = np.array([p.get("weight", 1.0) for p in predictions], float)
    return weights / weights.mean() if len(weights) else weights


def _left_out(
    features: Sequence[Mapping[str, float]], truth: Sequence[bool], contracts: Sequence[str], weights: np.ndarray
) -> list[float]:
    """Return the probability of each row by a calibration that has not seen its contract."""
    found = np.full(len(truth), math.nan)
    for train, held in _folds(contracts):
        kinds = [truth[n] for n in train]
        if len(set(kinds)) < 2:
            return [math.nan] * len(truth)
        fitted = Calibration.fit([features[n] for n in train], kinds, weights=weights[train])
        found[held] = fitted.p([features[n] for n in held])
    return found.tolist()


def _log_loss(p: Sequence[float], truth: Sequence[bool], weights: np.ndarray) -> float:
    """Return the mean negative log-likelihood; infinite where a probability is missing."""
    if any(math.isnan(value) for value in p):
        return math.inf
    losses = [-math.log(max(value if good else 1 - value, 1e-9)) for value, good in zip(p, truth)]
    return float(np.average(losses, weights=weights))
