"""Judge answers without a language model: `OfflineJudge`, calibrated once on the verdicts of one that saw the reference.

It compares words, phrases, numbers, dates and negations (`evidence`) and weighs them as `calibration.json` says. It is
a model of those verdicts, reported under its own name, and no language model's opinion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cuadft import calibration
from cuadft.evidence import REDACTED, compare, same_words, stance
from cuadft.matching import normalise, references
from cuadft.metrics import NO_CLAUSE, is_refusal
from cuadft.ratings import failed, golds, rating, table

if TYPE_CHECKING:
    import pandas as pd

CORRECT_FROM, PARTLY_FROM = 0.75, 0.4  # lowest score for each verdict
CONTRADICTED = 0.2  # highest score of the reference's statement with another number, date or negation (no verdict shows one)
BURIED = 0.05  # share of a quoted answer that stands in the reference, below which it quotes the contract, not the clause
DENIED_RIGHTLY = 0.9  # an answer that says in its own words that there is no clause, where there is none
MOST_REFERENCES = 12  # of more gold spans, those that share most words with the answer are compared
EMBEDDED_CHARS = 300  # characters of each text that are embedded: enough to tell what it is about, and cheap
Evidence = tuple[str, dict[str, float]]  # stance, what `evidence.compare` found


class OfflineJudge:
    """Judge by features of answer and reference: deterministic, some thousand rows a second, no LM."""

    def __init__(self, embedder: Any = None, *, weights: calibration.Weights | None = None) -> None:
        """Take an optional embedder (encode(list[str]) gives unit vectors) and weights other than the shipped ones.

        With an embedder the cosine of answer and reference is one more feature, with weights of its own.
        """
        self.embedder = embedder
        self.name = "offline+embedding" if embedder is not None else "offline"
        shipped = "weights_with_embedding" if embedder is not None else "weights"
        self.weights = weights if weights is not None else calibration.shipped()[shipped]

    def rate(self, rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
        """Return the four judge columns, one row per input row (keys question, answer, answers, error)."""
        return table([self._rate_one(row, seen) for row, seen in zip(rows, read(rows, self.embedder), strict=True)])

    def _rate_one(self, row: Mapping[str, Any], seen: list[Evidence] | None) -> dict[str, Any]:
        if failed(row):
            return rating(0.0, "failed")
        if seen is None:
            score, reason = _by_rule(row["answer"], _spans(row))
            return rating(score, verdict(score), reason)
        score, how, found = max(((self._score(how, found), how, found) for how, found in seen), key=lambda one: one[0])
        shares = ", ".join(f"{name} {value:.2f}" for name, value in found.items() if value)
        return rating(score, verdict(score), f"{how}: {shares or 'nothing in common with the reference'}")

    def _score(self, how: str, found: Mapping[str, float]) -> float:
        score = calibration.predict(self.weights, how, found)
        buried = how == "quoted" and found["phrase_precision"] < BURIED
        return min(score, CONTRADICTED) if found["contradiction"] or buried else score


def verdict(score: float) -> str:
    """Return the verdict that stands for a score."""
    return "correct" if score >= CORRECT_FROM else "partly" if score >= PARTLY_FROM else "incorrect"


def read(rows: Sequence[Mapping[str, Any]], embedder: Any = None) -> list[list[Evidence] | None]:
    """Return what each row shows against each of its references; None where a rule decides (see `_by_rule`)."""
    seen: dict[tuple, list[Evidence] | None] = {}  # systems often give the same answer
    keys = [_key(row) for row in rows]
    for key in dict.fromkeys(key for key in keys if key is not None):
        question, answer, spans = key
        how = stance(answer)
        seen[key] = [(how, compare(question, answer, text)) for text in _compared(answer, spans)]
    if embedder is not None:
        _add_similarity(seen, embedder)
    return [None if key is None else seen[key] for key in keys]


def _key(row: Mapping[str, Any]) -> tuple[str, str, tuple[str, ...]] | None:
    if failed(row):
        return None
    answer, spans = row["answer"], _spans(row)
    if not spans or _abstains(answer) or any(same_words(answer, text) for text in references(spans)):
        return None
    return str(row.get("question") or ""), answer, spans


def _spans(row: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(text for text in golds(row) if not _blank(text))


def _compared(answer: str, spans: Sequence[str]) -> list[str]:
    texts = references(spans)
    if len(texts) <= MOST_REFERENCES:
        return texts
    ours = set(answer.lower().split())
    return sorted(texts, key=lambda text: -len(ours.intersection(text.lower().split())))[:MOST_REFERENCES]


def _abstains(answer: str) -> bool:
    return is_refusal(answer) or _blank(answer)


def _blank(text: str) -> bool:
    return not normalise(text) and not REDACTED.search(text)  # [***] can be what the clause says


def _by_rule(answer: str, spans: Sequence[str]) -> tuple[float, str]:
    if spans and _abstains(answer):
        return 0.0, f"refused: the reference is not {NO_CLAUSE!r}"
    if spans:
        return 1.0, "the reference's own words"
    if _abstains(answer):
        return 1.0, "refused, and there is no such clause"
    if stance(answer) == "denied":
        return DENIED_RIGHTLY, "denied: says that nothing is there, and there is no such clause"
    return 0.0, "answered, though there is no such clause"


def _add_similarity(seen: Mapping[tuple, list[Evidence] | None], embedder: Any) -> None:
    pairs = {key: [text[:EMBEDDED_CHARS] for text in _compared(key[1], key[2])] for key in seen}
    texts = sorted({text for key, own in pairs.items() for text in (key[1][:EMBEDDED_CHARS], *own)})
    vectors = dict(zip(texts, embedder.encode(texts), strict=True)) if texts else {}
    for key, own in pairs.items():
        for (_, found), text in zip(seen[key], own, strict=True):
            found["similarity"] = min(1.0, max(0.0, float(vectors[key[1][:EMBEDDED_CHARS]] @ vectors[text])))
