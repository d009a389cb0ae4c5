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

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from cuadft.core.errors import InputError
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


KAPPA, ALPHA = "Cohen's kappa", "Krippendorff's alpha"
PAIR_COLUMNS = ("id", "contract", "question", "answer_a", "answer_b", "system_a", "system_b")
VERDICT_PREFIX = "verdict: "  # before an annotator's name, in the columns of `annotator_disagreements`


@dataclass(frozen=True)
class AnnotatorAgreement:
    """Hold a coefficient of agreement, or the reason why there is no coefficient, and the share of equal verdicts.

    measure: the coefficient's name. value: the coefficient; where it is None `reason` says why. low, high: its bounds,
    None unless they were asked for. same: share of equal verdicts among all twos of annotators of a pair, 0 to 1; None
    if no pair has two annotators. n, n_contracts: pairs that two or more annotators judged, and their contracts.
    """

    measure: str
    value: float | None
    low: float | None
    high: float | None
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
        if self.value is None:
            return f"{found}. {self.reason}"
        bounds = "" if self.low is None else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{found}; {self.measure} {self.value:.2f}{bounds}."


def annotator_agreement(
    judgements: Iterable[Mapping[str, Any]], *, n_resamples: int = 0, seed: int = 0, confidence: float = 0.95
) -> AnnotatorAgreement:
    """Return how far the annotators agree: Cohen's kappa of two, Krippendorff's alpha of more, both nominal.

    Annotators who share no pair with another annotator are left aside. With n_resamples above 0 the percentile interval
    over whole contracts is added (about 3 s for 1000 draws of 400 pairs). The coefficient is undefined with fewer than
    two annotators, without a common pair, and where all verdicts are the same. Sources: Cohen (1960), Educ. Psychol.
    Meas. 20(1), computed by scikit-learn; Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", computed
    by NLTK. Raises InputError on n_resamples below 0 and on a confidence outside 0 to 1.
    """
    if n_resamples < 0 or not 0 < confidence < 1:
        raise InputError(
            f"Invalid n_resamples {n_resamples!r} with confidence {confidence!r}: give a number of draws from 0 "
            "and a share between 0 and 1, such as 1000 and 0.95."
        )
    judged = list(_by_pair(judgements).values())
    shared = [pair for pair in judged if len(pair) > 1]
    names = tuple(sorted({name for pair in shared for name in pair}))
    contracts = [next(iter(pair.values()))["contract"] for pair in shared]
    verdicts = [{name: row["verdict"] for name, row in pair.items()} for pair in shared]
    measure, coefficient = (ALPHA, _alpha) if len(names) > 2 else (KAPPA, _kappa)
    value, low, high = coefficient(verdicts), None, None
    if value is not None and n_resamples:
        low, high = _interval(verdicts, contracts, coefficient, n_resamples, seed, confidence)
    reason = _why_undefined({name for pair in judged for name in pair}, verdicts) if value is None else None
    return AnnotatorAgreement(
        measure, value, low, high, _share_of_same(verdicts), len(shared), len(set(contracts)), names, reason
    )


def agreement_in_words(judgements: Iterable[Mapping[str, Any]]) -> str:
    """Return the agreement in one or two sentences."""
    return str(annotator_agreement(judgements))


def agreement_by_two(judgements: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return a row for each two annotators: first, second, pairs, same, kappa, reason; the least agreeing come first.

    pairs: number of pairs that both judged, 0 included. same: share of these pairs with equal verdicts. kappa: Cohen's
    kappa, NaN where `reason` says why it is undefined.
    """
    import pandas as pd

    judged, rows = [row for pair in _by_pair(judgements).values() for row in pair.values()], []
    for first, second in combinations(sorted({row["annotator"] for row in judged}), 2):
        found = annotator_agreement(row for row in judged if row["annotator"] in (first, second))
        rows.append(
            {
                "first": first,
                "second": second,
                "pairs": found.n,
                "same": _nan_for_none(found.same),
                "kappa": _nan_for_none(found.value),
                "reason": found.reason,
            }
        )
    table = pd.DataFrame(rows, columns=["first", "second", "pairs", "same", "kappa", "reason"])
    return table.sort_values(["same", "pairs"], ascending=[True, False], kind="stable", ignore_index=True)


def annotator_disagreements(judgements: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the pairs on which annotators differ; pairs with more different verdicts come first.

    Columns: pair (its key), `PAIR_COLUMNS`, and "verdict: <name>" for each annotator, "" without a verdict.
    """
    import pandas as pd

    pairs = _by_pair(judgements)
    different = {key: len({row["verdict"] for row in pair.values()}) for key, pair in pairs.items()}
    disputed = sorted((key for key in pairs if different[key] > 1), key=lambda key: -different[key])
    names = sorted({name for key in disputed for name in pairs[key]})
    rows = []
    for key in disputed:
        pair = pairs[key]
        any_row = next(iter(pair.values()))
        verdicts = {VERDICT_PREFIX + name: pair[name]["verdict"] if name in pair else "" for name in names}
        rows.append({"pair": key} | {column: any_row[column] for column in PAIR_COLUMNS} | verdicts)
    return pd.DataFrame(rows, columns=["pair", *PAIR_COLUMNS, *(VERDICT_PREFIX + name for name in names)])


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
        judged = [row for row in _same_sides(list(by_annotator.values())) if row["verdict"] != "skip"]
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


def _kappa(verdicts: Sequence[Mapping[str, str]]) -> float | None:
    from sklearn.metrics import cohen_kappa_score

    if not _differ(verdicts):
        return None
    first, second = zip(*([by_name[name] for name in sorted(by_name)] for by_name in verdicts), strict=True)
    return float(cohen_kappa_score(first, second, labels=list(NOT_SKIPPED)))


def _alpha(verdicts: Sequence[Mapping[str, str]]) -> float | None:
    from nltk.metrics.agreement import AnnotationTask

    if not _differ(verdicts):
        return None
    rows = [(name, unit, verdict) for unit, by_name in enumerate(verdicts) for name, verdict in by_name.items()]
    return float(AnnotationTask(rows).alpha())


def _differ(verdicts: Sequence[Mapping[str, str]]) -> bool:
    """Tell whether two different verdicts occur; with only one, chance alone gives full agreement."""
    return len({verdict for by_name in verdicts for verdict in by_name.values()}) > 1


def _interval(
    verdicts: Sequence[Mapping[str, str]],
    contracts: Sequence[str],
    coefficient: Callable[[Sequence[Mapping[str, str]]], float | None],
    n_resamples: int,
    seed: int,
    confidence: float,
) -> tuple[float | None, float | None]:
    import pandas as pd

    from cuadft.evaluation.calibration import agreement_intervals

    def statistic(rows: Iterable[int]) -> float:
        return _nan_for_none(coefficient([verdicts[row] for row in rows]))

    bounds, _ = agreement_intervals(
        {"coefficient": statistic}, pd.Series(contracts), n_resamples=n_resamples, seed=seed, confidence=confidence
    )
    low, high = bounds["coefficient"]
    return (None, None) if math.isnan(low) else (low, high)


def _share_of_same(verdicts: Sequence[Mapping[str, str]]) -> float | None:
    equal = [one == other for by_name in verdicts for one, other in combinations(by_name.values(), 2)]
    return sum(equal) / len(equal) if equal else None


def _why_undefined(names: set[str], verdicts: Sequence[Mapping[str, str]]) -> str:
    if not names:
        return "There are no verdicts yet."
    if len(names) == 1:
        return f"Only {min(names)} has judged: agreement needs a second annotator."
    if not verdicts:
        return f"{_listed(sorted(names))} have judged no pair in common."
    only = next(iter(verdicts[0].values()))
    return f"All verdicts are '{only}', so that agreement beyond chance is undefined."


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _nan_for_none(value: float | None) -> float:
    return math.nan if value is None else value


def _same_sides(judged: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the judgements on one pair with answer_a and answer_b as in the first judgement."""
    first = fold(judged[0]["answer_a"])
    return [row if fold(row["answer_a"]) == first else swapped_judgement(row) for row in judged]


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
