"""How far annotators agree on which answer is better, where they differ, and what their majority decides.

    print(annotator_agreement(store.judgements()))   # The same verdict in 70% of 20 pairs (anna, ben); Cohen's ...
    annotator_disagreements(store.judgements())      # a table of the pairs on which annotators differ
    rulings, counts = pair_rulings(store.judgements())

Agreement counts the pairs that two or more annotators judged; who skips a pair has not judged it. Judgements can be
given as they are stored: `records.current_judgements` picks those that count. Agreement by chance depends on what "a"
means, so here "a" is always the answer of the alphabetically first system. A ruling is the majority's verdict on a
pair, with a correction of the winner where one of the majority made one.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from cuadft.feedback.records import Rows, checked_judgement, current_judgements, pair_key, swapped_judgement

if TYPE_CHECKING:
    import pandas as pd

PAIR_COLUMNS = ("id", "contract", "question", "answer_a", "answer_b", "system_a", "system_b")
VERDICT_PREFIX = "verdict: "  # before an annotator's name, in the columns of `annotator_disagreements`


@dataclass(frozen=True)
class AnnotatorAgreement:
    """Hold a coefficient of agreement with its 95 % interval, and the share of equal verdicts.

    measure: the coefficient's name. value: the coefficient; where it is NaN `reason` says why. low, high: its bounds,
    NaN if they were not asked for or all pairs are of one contract. same: share of equal verdicts among all twos of
    annotators of a pair, 0 to 1. n, n_contracts: pairs that two or more annotators judged, and their contracts.
    """

    measure: str
    value: float
    low: float
    high: float
    same: float
    n: int
    n_contracts: int
    annotators: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        if not self.n:
            return self.reason
        found = f"The same verdict in {self.same:.0%} of {self.n} pairs ({', '.join(self.annotators)})"
        bounds = "" if math.isnan(self.low) else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{found}. {self.reason}" if self.reason else f"{found}; {self.measure} {self.value:.2f}{bounds}."


def annotator_agreement(
    judgements: Iterable[Mapping[str, Any]], *, n_resamples: int = 1000, seed: int = 0
) -> AnnotatorAgreement:
    """Return how far the annotators agree: Cohen's kappa of two, Krippendorff's alpha of more, both nominal.

    Annotators who share no pair with another annotator are left aside. The 95 % interval is the percentile interval
    over whole contracts (some 3 s for 1000 draws of 400 pairs; none with n_resamples 0). The coefficient is undefined
    without a pair of two annotators and where all verdicts are the same. Sources: Cohen (1960), Educ. Psychol. Meas.
    20(1), by scikit-learn; Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", by NLTK.
    """
    shared = [pair for pair in _oriented_pairs(judgements) if len(pair) > 1]
    names = tuple(sorted({row["annotator"] for pair in shared for row in pair}))
    by_contract: dict[str, list[dict[str, str]]] = defaultdict(list)  # of each pair: annotator -> verdict
    for pair in shared:
        by_contract[pair[0]["contract"]].append({row["annotator"]: row["verdict"] for row in pair})
    contracts = list(by_contract.values())
    twos = [two for pairs in contracts for pair in pairs for two in combinations(pair.values(), 2)]
    value, low, high, reason = _coefficient(contracts, len(names)), math.nan, math.nan, ""
    if math.isnan(value):
        alike = "All verdicts are the same, so that agreement beyond chance is undefined."
        reason = alike if shared else "No pair has verdicts of two annotators yet."
    elif n_resamples and len(contracts) > 1:
        draws = np.random.default_rng(seed).integers(len(contracts), size=(n_resamples, len(contracts)))
        found = [_coefficient([contracts[place] for place in drawn], len(names)) for drawn in draws]
        low, high = map(float, np.nanquantile(found, [0.025, 0.975]))
    same = sum(one == other for one, other in twos) / len(twos) if twos else math.nan
    measure = "Krippendorff's alpha" if len(names) > 2 else "Cohen's kappa"
    return AnnotatorAgreement(measure, value, low, high, same, len(shared), len(contracts), names, reason)


def _coefficient(contracts: Sequence[Sequence[Mapping[str, str]]], n_annotators: int) -> float:
    """Return Cohen's kappa of two annotators, Krippendorff's alpha of more; NaN if all verdicts are the same.

    contracts: contracts -> their pairs -> annotator -> verdict.
    """
    pairs = list(chain.from_iterable(contracts))
    if len({verdict for pair in pairs for verdict in pair.values()}) < 2:  # chance alone gives full agreement
        return math.nan
    if n_annotators > 2:
        from nltk.metrics.agreement import AnnotationTask

        rows = [(name, unit, verdict) for unit, pair in enumerate(pairs) for name, verdict in pair.items()]
        return float(AnnotationTask(rows).alpha())
    from sklearn.metrics import cohen_kappa_score

    return float(cohen_kappa_score(*zip(*([pair[name] for name in sorted(pair)] for pair in pairs))))


def annotator_disagreements(judgements: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the pairs on which annotators differ; pairs with more different verdicts come first.

    Columns: pair (its key), `PAIR_COLUMNS`, and "verdict: <name>" for each annotator, "" without a verdict.
    """
    import pandas as pd

    rows = [
        {"pair": pair_key(pair[0])}
        | {column: pair[0][column] for column in PAIR_COLUMNS}
        | {VERDICT_PREFIX + row["annotator"]: row["verdict"] for row in pair}
        for pair in sorted(_oriented_pairs(judgements), key=lambda pair: -_n_verdicts(pair))
        if _n_verdicts(pair) > 1
    ]
    return pd.DataFrame(rows, columns=None if rows else ["pair", *PAIR_COLUMNS]).fillna("")


@dataclass(frozen=True)
class Ruling:
    """Hold one pair of answers to one question and what most annotators decided on it.

    verdict: a, b, tie, both_wrong, or None without a majority. judged: the judgements of all who did not skip the pair;
    agreed: those of them that gave the verdict. In all of them answer_a is the same answer.
    """

    verdict: str | None
    judged: list[dict[str, Any]]
    agreed: list[dict[str, Any]]

    @property
    def pair(self) -> dict[str, Any]:
        """Return the first judgement of the majority, with the question and the answers."""
        return (self.agreed or self.judged)[0]

    @property
    def answers(self) -> tuple[str, str]:
        """Return answer_a and answer_b."""
        return self.pair["answer_a"], self.pair["answer_b"]

    @property
    def who(self) -> str:
        """Return who gave the verdict: "annotator anna" or "annotators anna, ben"."""
        return f"annotator{'s' * (len(self.agreed) > 1)} {', '.join(row['annotator'] for row in self.agreed)}"

    def latest(self, field: str) -> dict[str, Any] | None:
        """Return the majority's latest judgement in which a field is given, None if there is none."""
        return next((row for row in reversed(self.agreed) if row[field]), None)


def pair_rulings(feedback: Rows) -> tuple[list[Ruling], Counter[str]]:
    """Return one ruling for each pair of answers that someone judged, and counts of judgements that decided nothing.

    feedback: judgements (see `records`). An annotator's latest judgement on two answers counts, whichever systems gave
    these answers. A verdict needs more than half of the annotators who did not skip the pair. Raises InputError on an
    invalid judgement.
    """
    current = current_judgements(map(checked_judgement, feedback))
    pairs = _by_pair(current)
    counts = Counter({"human: skipped": sum(judgement["verdict"] == "skip" for judgement in current)})
    opposed = sum({"a", "b"} <= {row["verdict"] for row in judged} for judged in pairs)
    counts["human: annotators contradict each other"] = opposed
    return list(map(_ruling, pairs)), +counts


def _ruling(judged: list[dict[str, Any]]) -> Ruling:
    (verdict, count), *_ = Counter(row["verdict"] for row in judged).most_common()
    if 2 * count <= len(judged):
        return Ruling(None, judged, [])
    return Ruling(verdict, judged, [row for row in judged if row["verdict"] == verdict])


def _by_pair(current: Rows) -> list[list[dict[str, Any]]]:
    """Return the judgements that are not skipped, by pair; `current_judgements` returns them."""
    found: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in current:
        if row["verdict"] != "skip":
            found[pair_key(row)].append(row)
    return list(found.values())


def _oriented_pairs(judgements: Iterable[Mapping[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield each pair's judgements; "a" is the answer of the alphabetically first system."""
    for rows in _by_pair(current_judgements(judgements)):
        named = max(rows, key=lambda row: (row["system_a"], row["system_b"]))  # imported judgements may name no systems
        turn = (named["system_a"], named["answer_a"]) > (named["system_b"], named["answer_b"])
        yield list(map(swapped_judgement, rows)) if turn else rows


def _n_verdicts(pair: Rows) -> int:
    return len({row["verdict"] for row in pair})
