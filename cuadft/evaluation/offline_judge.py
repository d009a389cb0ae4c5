"""Judge answers without a language model: `OfflineJudge` weighs what an answer and its reference have in common.

It compares words, phrases, numbers, dates and negations (`evidence.compare_texts`). The score is a logistic function
of these shares, with a bias and weights of its own for each stance (how an answer answers, `evidence.stance_of`):

    verdicts = OfflineJudge().rate(predictions)      # the same columns as every judge, see `judge`

The weights were fitted once, to the 0-to-1 verdicts of a language model that saw the reference. So the score is a model
of those verdicts, it is reported under its own name, and it is no language model's opinion. The fit that comes with the
package is `calibration.json`; `tests/refit_offline_judge.py FOLDER` makes it again from a folder of published answers
with verdicts. No weight lets a larger overlap lower the score, or a contradiction raise it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np

from cuadft.evaluation.evidence import compare_texts, same_words, stance_of
from cuadft.evaluation.text_scores import NO_CLAUSE, READINGS, WHOLE, gold_references, is_plain_refusal, plain_text
from cuadft.evaluation.verdicts import gold_texts, has_failed, verdict_row, verdict_table

if TYPE_CHECKING:
    import pandas as pd

    from cuadft.data.schema import Schema

Encode = Callable[[list[str]], np.ndarray]  # texts to unit vectors, one a row
Evidence = tuple[str, dict[str, float]]  # an answer's stance, and what `compare_texts` found
Weights = dict[str, dict[str, float]]  # stance, or "everywhere" -> "bias" or a feature -> weight

CORRECT_FROM, PARTLY_FROM = 0.75, 0.4  # lowest score for each verdict
# The highest score of an answer that is the reference with another number, date or negation. It is set by hand: no
# verdict of the fit is about an answer of this kind.
CONTRADICTED = 0.2
BURIED = 0.05  # a quoted answer with less than this share in the reference quotes the contract, not the clause
MOST_REFERENCES = 12  # of more gold spans, those that share most words with the answer are compared
EMBEDDED_CHARS = 300  # characters of each text that are embedded: enough to tell what it is about, and cheap

FEATURES = {  # stance -> the shares that count for it
    "denied": (),
    "brief": ("word_precision", "phrase_recall"),
    "explained": ("on_point", "phrase_root"),
    "quoted": ("phrase_recall", "phrase_precision", "content_precision", "word_root"),
}
EVERYWHERE = ("some", "conflict")  # the same weights in all stances; a conflict's is zero or less


class OfflineJudge:
    """Judge by features of answer and reference: deterministic, some thousand rows a second, no LM."""

    def __init__(
        self,
        encode: Encode | None = None,
        *,
        weights: Weights | None = None,
        reading: str = WHOLE,
        schema: Schema | None = None,
    ) -> None:
        """Take an optional `encode` (texts to unit vectors, one a row) and weights other than the shipped ones.

        reading: what is right where there is no such clause, one of `text_scores.READINGS`. With `encode` the cosine of
        answer and reference is one more feature, and the weights are others. schema: whose word the reasons take for a
        clause; None is CUAD's.
        """
        self.encode, self.reading, self.refusal = encode, reading, schema.refusal if schema else NO_CLAUSE
        self.name = "offline+embedding" if encode is not None else "offline"
        shipped = "weights_with_embedding" if encode is not None else "weights"
        self.weights = weights if weights is not None else shipped_fit()[shipped]

    def rate(self, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        """Return one verdict per row in the four `VERDICT_COLUMNS`; rows have question, answers, answer and error."""
        evidence = compare_references(rows, self.encode)
        ruled = [None if found else _by_rule(row, self.reading, self.refusal) for row, found in zip(rows, evidence)]
        return verdict_table([rule or self._weigh(found) for rule, found in zip(ruled, evidence)])

    def _weigh(self, evidence: Sequence[Evidence]) -> dict[str, Any]:
        scored = [(self._score(stance, found), stance, found) for stance, found in evidence]
        score, stance, found = max(scored, key=lambda one: one[0])  # the best of several references counts
        shares = ", ".join(f"{name} {value:.2f}" for name, value in found.items() if value)
        return _verdict(score, f"{stance}: {shares or 'nothing in common with the reference'}")

    def _score(self, stance: str, found: Mapping[str, float]) -> float:
        score = predict_score(self.weights, stance, found)
        buried = stance == "quoted" and found["phrase_precision"] < BURIED
        return min(score, CONTRADICTED) if found["contradiction"] or buried else score


def shipped_fit() -> dict[str, Any]:
    """Return the fit that comes with the package: weights, where they come from and how well they do."""
    import json

    return json.loads(resources.files("cuadft.evaluation").joinpath("calibration.json").read_text(encoding="utf-8"))


def predict_score(weights: Weights, stance: str, found: Mapping[str, float]) -> float:
    """Return the score, 0 to 1, of an answer of this stance."""
    own = weights[stance]
    total = own["bias"] + sum(weight * found[name] for name, weight in own.items() if name != "bias")
    total += sum(weight * found[name] for name, weight in weights["everywhere"].items())
    return float(1 / (1 + np.exp(-total)))


def compare_references(rows: Sequence[Mapping[str, Any]], encode: Encode | None = None) -> list[list[Evidence] | None]:
    """Return each row's evidence against each of its references; None where a rule decides (see `_by_rule`)."""
    keys = [None if _by_rule(row) else (str(row.get("question") or ""), row["answer"], _spans(row)) for row in rows]
    seen: dict[tuple, list[Evidence]] = {}  # each answer once: systems often give the same one
    for question, answer, spans in dict.fromkeys(filter(None, keys)):
        stance = stance_of(answer)
        found = [(stance, compare_texts(question, answer, text)) for text in _compared(answer, spans)]
        seen[question, answer, spans] = found
    if encode is not None:
        _add_similarity(seen, encode)
    return [seen.get(key) for key in keys]


def _by_rule(row: Mapping[str, Any], reading: str = WHOLE, refusal: str = NO_CLAUSE) -> dict[str, Any] | None:
    """Return the verdict on an answer that is not weighed: it failed, refuses, or is the reference; else None."""
    if has_failed(row):
        return verdict_row(0.0, "failed")
    answer, spans, none = row["answer"], _spans(row), refusal[0].lower() + refusal[1:-1]
    if not spans and READINGS[reading](answer):
        return _verdict(1.0, f"refused, and {none}")
    if not spans:
        return _verdict(0.0, f"answered, though {none}")
    # a denial in other words is weighed as such (stance "denied"), as the verdicts of the fit do
    if is_plain_refusal(answer):
        return _verdict(0.0, f"refused: the reference is not {refusal!r}")
    same = any(same_words(answer, text) for text in gold_references(spans))
    return _verdict(1.0, "the reference's own words") if same else None


def _verdict(score: float, reason: str) -> dict[str, Any]:
    verdict = "correct" if score >= CORRECT_FROM else "partly" if score >= PARTLY_FROM else "incorrect"
    return verdict_row(score, verdict, reason)


def _spans(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(text for text in gold_texts(row) if plain_text(text))


def _compared(answer: str, spans: Sequence[str]) -> list[str]:
    """Return the references to compare an answer with; of many, those that share most words with it."""
    ours = set(answer.lower().split())  # words between blanks, as when the weights were fitted
    texts = gold_references(spans)
    if len(texts) > MOST_REFERENCES:
        texts = sorted(texts, key=lambda text: -len(ours.intersection(text.lower().split())))[:MOST_REFERENCES]
    return texts


def _add_similarity(seen: Mapping[tuple, list[Evidence]], encode: Encode) -> None:
    """Add the cosine of answer and reference, from 0 to 1, to each piece of evidence."""
    pairs = {key: [text[:EMBEDDED_CHARS] for text in _compared(key[1], key[2])] for key in seen}
    texts = sorted({text for key, own in pairs.items() for text in (key[1][:EMBEDDED_CHARS], *own)})
    vectors = dict(zip(texts, encode(texts), strict=True)) if texts else {}
    for key, own in pairs.items():
        for (_, found), text in zip(seen[key], own, strict=True):
            found["similarity"] = min(1.0, max(0.0, float(vectors[key[1][:EMBEDDED_CHARS]] @ vectors[text])))
