"""How far annotators agree on which answer is better, where they differ, and what their majority decides.

    print(annotator_agreement(store.judgements()))   # The same verdict in 70% of 20 pairs ...; Cohen's kappa 0.40.
    annotator_disagreements(store.judgements())      # a table of the pairs on which annotators differ
    rulings, counts = pair_rulings(store.judgements())

Agreement counts the pairs that two or more annotators judged; who skips a pair has not judged it. Judgements can be
given as they are stored: `records.current_judgements` picks those that count. Agreement by chance depends on what "a"
means, so here "a" is always the answer of the alphabetically first system. A ruling is the majority's verdict on a
pair, with a correction of the winner where one of the majority made one.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from cuadft.core.text import fold
from cuadft.feedback.records import (
    NOT_SKIPPED,
    canonical_judgement,
    checked_judgement,
    current_judgements,
    pair_key,
    swapped_judgement,
)

if TYPE_CHECKING:
    import pandas as pd

PAIR_COLUMNS = ("id", "contract", "question", "answer_a", "answer_b", "system_a", "system_b")
VERDICT_PREFIX = "verdict: "  # before an annotator's name, in the columns of `annotator_disagreements`


@dataclass(frozen=True)
class AnnotatorAgreement:
    """Hold a coefficient of agreement, or the reason why there is no coefficient, and the share of equal verdicts.

    measure: the coefficient's name. value: the coefficient; where it is None `reason` says why. same: share of equal
    verdicts among all twos of annotators of a pair, 0 to 1; None if no pair has two annotators. n, n_contracts: pairs
    that two or more annotators judged, and their contracts.
    """

    measure: str
    value: float | None
    same: float | None
    n: int
    n_contracts: int
    annotators: tuple[str, ...]
    reason: str | None

    def __str__(self) -> str:
        if self.same is None:
            return str(self.reason)
        pairs = f"{self.n} pair{'' if self.n == 1 else 's'}"
        found = f"The same verdict in {self.same:.0%} of {pairs} that {_listed(self.annotators)} judged"
        return f"{found}. {self.reason}" if self.value is None else f"{found}; {self.measure} {self.value:.2f}."


def annotator_agreement(judgements: Iterable[Mapping[str, Any]]) -> AnnotatorAgreement:
    """Return how far the annotators agree: Cohen's kappa of two, Krippendorff's alpha of more, both nominal.

    Annotators who share no pair with another annotator are left aside. The coefficient is undefined with fewer than two
    annotators, without a common pair, and where all verdicts are the same. Sources: Cohen (1960), Educ. Psychol. Meas.
    20(1), by scikit-learn; Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", by NLTK.
    """
    judged = list(_by_pair(judgements).values())
    shared = [pair for pair in judged if len(pair) > 1]
    names = tuple(sorted({name for pair in shared for name in pair}))
    verdicts = [{name: pair[name]["verdict"] for name in sorted(pair)} for pair in shared]
    equal = [one == other for by_name in verdicts for one, other in combinations(by_name.values(), 2)]
    reason = _why_undefined(sorted({name for pair in judged for name in pair}), verdicts)
    measure, coefficient = ("Krippendorff's alpha", _alpha) if len(names) > 2 else ("Cohen's kappa", _kappa)
    return AnnotatorAgreement(
        measure,
        None if reason else coefficient(verdicts),
        sum(equal) / len(equal) if equal else None,
        len(shared),
        len({row["contract"] for pair in shared for row in pair.values()}),
        names,
        reason,
    )


def annotator_disagreements(judgements: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the pairs on which annotators differ; pairs with more different verdicts come first.

    Columns: pair (its key), `PAIR_COLUMNS`, and "verdict: <name>" for each annotator, "" without a verdict.
    """
    import pandas as pd

    pairs = {key: list(pair.values()) for key, pair in _by_pair(judgements).items()}
    different = {key: len({row["verdict"] for row in pair}) for key, pair in pairs.items()}
    disputed = sorted((key for key in pairs if different[key] > 1), key=lambda key: -different[key])
    names = sorted({row["annotator"] for key in disputed for row in pairs[key]})
    rows = [
        {"pair": key}
        | {column: pairs[key][0][column] for column in PAIR_COLUMNS}
        | {VERDICT_PREFIX + row["annotator"]: row["verdict"] for row in pairs[key]}
        for key in disputed
    ]
    return pd.DataFrame(rows, columns=["pair", *PAIR_COLUMNS, *(VERDICT_PREFIX + name for name in names)]).fillna("")


@dataclass(frozen=True)
class Ruling:
    """Hold one pair of answers to one question and what most annotators decided on it.

    verdict: a, b, tie, both_wrong, or None without a majority. supporters: the annotators who gave this verdict.
    n_annotators: how many judged the pair and did not skip it. edited, span, corrector: the correction by one of the
    supporters, as text or as a span of the contract, and that supporter's name. prompt: the messages to which the
    answers were given, None where they are not known.
    """

    id: str
    contract: str
    question: str
    answers: tuple[str, str]
    verdict: str | None
    n_annotators: int
    supporters: tuple[str, ...]
    edited: str | None = None
    span: tuple[int, int] | None = None
    corrector: str = ""
    prompt: Sequence[Mapping[str, str]] | None = None

    @property
    def who(self) -> str:
        """Return who gave the verdict: "annotator anna" or "annotators anna, ben"."""
        return f"annotator{'' if len(self.supporters) == 1 else 's'} {', '.join(self.supporters)}"


def pair_rulings(feedback: Sequence[Mapping[str, Any]]) -> tuple[list[Ruling], Counter[str]]:
    """Return one ruling for each pair of answers that someone judged, and counts of judgements that decided nothing.

    feedback: judgements (see `records`). An annotator's latest judgement on two answers counts, whichever systems gave
    these answers. A verdict needs more than half of the annotators who did not skip the pair. Raises InputError on an
    invalid judgement.
    """
    counts: Counter[str] = Counter()
    by_pair: dict[tuple[str, frozenset[str]], dict[str, dict[str, Any]]] = defaultdict(dict)
    for judgement in current_judgements([checked_judgement(judgement) for judgement in feedback]):
        answers = frozenset(fold(judgement[side]) for side in ("answer_a", "answer_b"))
        if len(answers) < 2:
            counts["human: equal answers"] += 1
        else:
            by_pair[judgement["id"], answers].pop(judgement["annotator"], None)  # so that the latest comes last
            by_pair[judgement["id"], answers][judgement["annotator"]] = judgement
    found = []
    for by_annotator in by_pair.values():
        rows = list(by_annotator.values())
        side_a = fold(rows[0]["answer_a"])
        rows = [row if fold(row["answer_a"]) == side_a else swapped_judgement(row) for row in rows]
        judged = [row for row in rows if row["verdict"] != "skip"]
        counts["human: skipped"] += len(by_annotator) - len(judged)
        if judged:
            found.append(_ruling(judged))
            counts["human: annotators contradict each other"] += {"a", "b"} <= {row["verdict"] for row in judged}
            counts["human: no majority"] += found[-1].verdict is None
    return found, +counts


def _by_pair(judgements: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return pair -> annotator -> judgement, without skipped pairs; "a" is the alphabetically first system's answer."""
    found: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
    for row in current_judgements(judgements):
        if row["verdict"] in NOT_SKIPPED:
            found[pair_key(row)][row["annotator"]] = canonical_judgement(row)
    return dict(found)


def _kappa(verdicts: Sequence[Mapping[str, str]]) -> float:
    from sklearn.metrics import cohen_kappa_score

    first, second = zip(*(by_name.values() for by_name in verdicts), strict=True)
    return float(cohen_kappa_score(first, second))


def _alpha(verdicts: Sequence[Mapping[str, str]]) -> float:
    from nltk.metrics.agreement import AnnotationTask

    rows = [(name, unit, verdict) for unit, by_name in enumerate(verdicts) for name, verdict in by_name.items()]
    return float(AnnotationTask(rows).alpha())


def _why_undefined(names: Sequence[str], verdicts: Sequence[Mapping[str, str]]) -> str | None:
    if not names:
        return "There are no verdicts yet."
    if len(names) == 1:
        return f"Only {names[0]} has judged: agreement needs a second annotator."
    if not verdicts:
        return f"{_listed(names)} have judged no pair in common."
    found = {verdict for by_name in verdicts for verdict in by_name.values()}
    if len(found) == 1:  # chance alone then gives full agreement
        return f"All verdicts are '{found.pop()}', so that agreement beyond chance is undefined."
    return None


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _ruling(judged: Sequence[Mapping[str, Any]]) -> Ruling:
    (verdict, count), *_ = Counter(row["verdict"] for row in judged).most_common()
    majority = 2 * count > len(judged)
    agreed = [row for row in judged if row["verdict"] == verdict] if majority else []
    first = (agreed or judged)[0]
    edit = next((row for row in reversed(agreed) if row["edited"]), None)
    mark = next((row for row in reversed(agreed) if row["span"]), None) if edit is None else None
    return Ruling(
        first["id"],
        first["contract"],
        first["question"],
        (first["answer_a"], first["answer_b"]),
        verdict if majority else None,
        n_annotators=len(judged),
        supporters=tuple(row["annotator"] for row in agreed),
        edited=edit["edited"] if edit else None,
        span=tuple(mark["span"]) if mark else None,
        corrector=(edit or mark or {}).get("annotator", ""),
        prompt=next((row["prompt"] for row in reversed(agreed) if row["prompt"]), None),
    )
