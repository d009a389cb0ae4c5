"""How far annotators agree on which answer is better, and where they do not.

Only pairs that two or more annotators judged count; a skipped pair is not judged. Rows as stored will do: they are
brought to their latest state (`judgements.current`), and "a" always means the answer of the alphabetically first system,
since agreement by chance depends on what the verdicts are called.

What the annotators decided about each pair of answers: the majority's verdict, and how they corrected it.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from cuadft.core.errors import InputError
from cuadft.core.text import fold
from cuadft.feedback.records import OPINIONS, checked_judgement, current_judgements, oriented, pair_key, swapped_verdict

if TYPE_CHECKING:
    import pandas as pd


KAPPA, ALPHA = "Cohen's kappa", "Krippendorff's alpha"
WHERE = ("id", "contract", "question", "answer_a", "answer_b", "system_a", "system_b")
VERDICT = "verdict: "  # before an annotator's name, in the columns of `disagreements`

Pair = dict[str, dict[str, Any]]  # annotator -> judgement of one pair


@dataclass(frozen=True)
class Agreement:
    """Hold a coefficient (None where `reason` says why there is none) and the share of equal verdicts.

    low, high: bounds of the coefficient, None unless asked for. same: share of agreeing verdicts among all twos of
    annotators of a pair, 0 to 1, None without such a pair. n: pairs judged by two or more annotators.
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
        found = f"The same verdict in {self.same:.0%} of {_count(self.n, 'pair')} that {_names(self.annotators)} judged"
        if self.value is None:
            return f"{found}. {self.reason}"
        bounds = "" if self.low is None else f" [{self.low:.2f}, {self.high:.2f}]"
        return f"{found}; {self.measure} {self.value:.2f}{bounds}."


def annotator_agreement(
    judgements: Iterable[Mapping[str, Any]], *, n_resamples: int = 0, seed: int = 0, confidence: float = 0.95
) -> Agreement:
    """Return how far the annotators agree: Cohen's kappa of two, Krippendorff's alpha of more, both nominal.

    Annotators who share no pair with another one are left aside. n_resamples above 0 adds the percentile interval over
    whole contracts (about 3 s for 1000 draws of 400 pairs). Undefined with fewer than two annotators, without a common
    pair, and where all verdicts are the same. Sources: Cohen (1960), Educ. Psychol. Meas. 20(1), by scikit-learn;
    Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", by NLTK.
    """
    if n_resamples < 0 or not 0 < confidence < 1:
        raise InputError(
            f"Invalid n_resamples {n_resamples!r} with confidence {confidence!r}: give a number of draws from 0 "
            "and a share between 0 and 1, such as 1000 and 0.95."
        )
    judged = [by for by in _by_pair(judgements).values()]
    pairs = [by for by in judged if len(by) > 1]
    names = tuple(sorted({name for by in pairs for name in by}))
    contracts = [next(iter(by.values()))["contract"] for by in pairs]
    votes = [{name: row["verdict"] for name, row in by.items()} for by in pairs]
    measure, coefficient = (ALPHA, _alpha) if len(names) > 2 else (KAPPA, _kappa)
    value, low, high = coefficient(votes), None, None
    if value is not None and n_resamples:
        low, high = _interval(votes, contracts, coefficient, n_resamples, seed, confidence)
    reason = _reason({name for by in judged for name in by}, votes) if value is None else None
    return Agreement(measure, value, low, high, _same(votes), len(pairs), len(set(contracts)), names, reason)


def agreement_in_words(judgements: Iterable[Mapping[str, Any]]) -> str:
    """Return the agreement in one or two sentences."""
    return str(annotator_agreement(judgements))


def by_two(judgements: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return who agrees with whom: first, second, pairs (that both judged), same (share), kappa, reason; worst first.

    kappa is NaN where `reason` says why; twos without a common pair are there with pairs 0.
    """
    import pandas as pd

    judged, rows = [row for by in _by_pair(judgements).values() for row in by.values()], []
    for first, second in combinations(sorted({row["annotator"] for row in judged}), 2):
        found = annotator_agreement(row for row in judged if row["annotator"] in (first, second))
        rows.append(
            {
                "first": first,
                "second": second,
                "pairs": found.n,
                "same": _number(found.same),
                "kappa": _number(found.value),
                "reason": found.reason,
            }
        )
    table = pd.DataFrame(rows, columns=["first", "second", "pairs", "same", "kappa", "reason"])
    return table.sort_values(["same", "pairs"], ascending=[True, False], kind="stable", ignore_index=True)


def annotator_disagreements(judgements: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the pairs on which annotators differ, most different verdicts first.

    Columns: pair (its key), those of `WHERE`, and "verdict: <name>" for each annotator, "" where there is none.
    """
    import pandas as pd

    found = {key: by for key, by in _by_pair(judgements).items() if len({row["verdict"] for row in by.values()}) > 1}
    names = sorted({name for by in found.values() for name in by})
    rows = []
    for key, by in sorted(found.items(), key=lambda item: -len({row["verdict"] for row in item[1].values()})):
        any_row = next(iter(by.values()))
        verdicts = {VERDICT + name: by[name]["verdict"] if name in by else "" for name in names}
        rows.append({"pair": key} | {column: any_row[column] for column in WHERE} | verdicts)
    return pd.DataFrame(rows, columns=["pair", *WHERE, *(VERDICT + name for name in names)])


def _by_pair(judgements: Iterable[Mapping[str, Any]]) -> dict[str, Pair]:
    found: dict[str, Pair] = defaultdict(dict)
    for row in current_judgements(judgements):
        if row["verdict"] in OPINIONS:
            found[pair_key(row)][row["annotator"]] = oriented(row)
    return dict(found)


def _kappa(votes: Sequence[Mapping[str, str]]) -> float | None:
    from sklearn.metrics import cohen_kappa_score

    if not _differ(votes):
        return None
    first, second = zip(*([by[name] for name in sorted(by)] for by in votes), strict=True)
    return float(cohen_kappa_score(first, second, labels=list(OPINIONS)))


def _alpha(votes: Sequence[Mapping[str, str]]) -> float | None:
    from nltk.metrics.agreement import AnnotationTask

    if not _differ(votes):
        return None
    rows = [(name, unit, verdict) for unit, by in enumerate(votes) for name, verdict in by.items()]
    return float(AnnotationTask(rows).alpha())


def _differ(votes: Sequence[Mapping[str, str]]) -> bool:
    """Tell whether there are two different verdicts: without, agreement by chance is certain and nothing is left over."""
    return len({verdict for by in votes for verdict in by.values()}) > 1


def _interval(
    votes: Sequence[Mapping[str, str]],
    contracts: Sequence[str],
    coefficient: Any,
    n_resamples: int,
    seed: int,
    confidence: float,
) -> tuple[float | None, float | None]:
    import pandas as pd

    from cuadft.evaluation.agreement import agreement_intervals

    def statistic(rows: Iterable[int]) -> float:
        return _number(coefficient([votes[row] for row in rows]))

    bounds, _ = agreement_intervals(
        {"it": statistic}, pd.Series(contracts), n_resamples=n_resamples, seed=seed, confidence=confidence
    )
    low, high = bounds["it"]
    return (None, None) if math.isnan(low) else (low, high)


def _same(votes: Sequence[Mapping[str, str]]) -> float | None:
    equal = [one == other for by in votes for one, other in combinations(by.values(), 2)]
    return sum(equal) / len(equal) if equal else None


def _reason(names: set[str], votes: Sequence[Mapping[str, str]]) -> str:
    if not names:
        return "There are no verdicts yet."
    if len(names) == 1:
        return f"Only {min(names)} has judged: agreement needs a second annotator."
    if not votes:
        return f"{_names(sorted(names))} have judged no pair in common."
    only = next(iter(votes[0].values()))
    return f"All verdicts are '{only}', so that agreement beyond chance is undefined."


def _names(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}{'' if n == 1 else 's'}"


def _number(value: float | None) -> float:
    return math.nan if value is None else value


@dataclass(frozen=True)
class Ruling:
    """One pair of answers to one question, and what most annotators say of it.

    verdict: a, b, tie, both_wrong, or None without a majority. votes, of: the annotators for the verdict, and all who
    did not skip. names: those for the verdict. edited, span: a correction by one of them, and who made it. prompt: the
    messages behind the answers, where known.
    """

    id: str
    contract: str
    question: str
    answers: tuple[str, str]
    verdict: str | None
    votes: int
    of: int
    names: tuple[str, ...]
    edited: str | None = None
    span: tuple[int, int] | None = None
    corrector: str = ""
    prompt: Sequence[Mapping[str, str]] | None = None


def pair_rulings(feedback: Sequence[Mapping[str, Any]]) -> tuple[list[Ruling], Counter[str]]:
    """Return one ruling per pair of answers that someone judged, and counts of what gave none or no clear one.

    feedback: judgements (see `judgements`); of one annotator the latest on a pair counts, whichever systems gave the
    two answers. The verdict needs more than half of those who did not skip. Raises InputError on an invalid judgement.
    """
    counts: Counter[str] = Counter()
    by_pair: dict[tuple[str, frozenset[str]], dict[str, dict[str, Any]]] = defaultdict(dict)
    for judgement in current_judgements([checked_judgement(judgement) for judgement in feedback]):
        answers = frozenset(fold(judgement[side]) for side in ("answer_a", "answer_b"))
        if len(answers) < 2:
            counts["human: equal answers"] += 1
        else:
            by_pair[judgement["id"], answers].pop(judgement["annotator"], None)  # the latest stands last
            by_pair[judgement["id"], answers][judgement["annotator"]] = judgement
    found = []
    for judged in by_pair.values():
        votes = [vote for vote in _aligned(list(judged.values())) if vote["verdict"] != "skip"]
        counts["human: skipped"] += len(judged) - len(votes)
        if votes:
            found.append(_ruling(votes))
            counts["human: annotators contradict each other"] += {"a", "b"} <= {vote["verdict"] for vote in votes}
            counts["human: no majority"] += found[-1].verdict is None
    return found, +counts


def _aligned(judged: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the judgements of one pair with a and b as in the first one."""
    first = fold(judged[0]["answer_a"])
    return [judgement if fold(judgement["answer_a"]) == first else swapped_verdict(judgement) for judgement in judged]


def _ruling(votes: Sequence[Mapping[str, Any]]) -> Ruling:
    (verdict, count), *_ = Counter(vote["verdict"] for vote in votes).most_common()
    clear = 2 * count > len(votes)
    side = [vote for vote in votes if vote["verdict"] == verdict] if clear else []
    first = (side or votes)[0]
    edit = next((vote for vote in reversed(side) if vote["edited"]), None)
    mark = next((vote for vote in reversed(side) if vote["span"]), None) if edit is None else None
    return Ruling(
        first["id"],
        first["contract"],
        first["question"],
        (first["answer_a"], first["answer_b"]),
        verdict if clear else None,
        count if clear else 0,
        len(votes),
        tuple(vote["annotator"] for vote in side),
        edited=edit["edited"] if edit else None,
        span=tuple(mark["span"]) if mark else None,
        corrector=(edit or mark or {}).get("annotator", ""),
        prompt=next((vote["prompt"] for vote in reversed(side) if vote["prompt"]), None),
    )
