"""Ask whether a system knows what it knows: are its probabilities true, and do they tell right answers from wrong ones?

    calibration_table(predictions)     # Brier score, calibration error and AUC, beside what a constant reaches
    reliability(predictions)           # of what it gave 0.8, how much is true?
    risk_coverage(predictions)         # errors, if only the most certain questions are decided
    operating_points(predictions)      # errors and quote F1 at other thresholds than the one in use

Two probabilities of a prediction are judged: `p_exists`, that the contract holds such a clause, and the `p` of a quote,
that the quote is right. A quote is right if it shares at least half of all different words with a gold span (CUAD's
rule, `metrics.span_jaccard`). A prediction without a probability is left out and counted; it never stands for 0.5. Of
a prediction without p_exists, a quote's p of exactly 1 is a filler and no probability (`stated_p`).

Every function takes the rows of one split and one seed, of one or several systems, as in `predictions/*.jsonl`, and
counts a row of weight w as w rows. n is the number of questions (or quotes) that the rows stand for, rounded. Intervals
resample contracts; n_resamples (2000 unless given), seed (7) and confidence (0.95) are those of
`bootstrap.ratio_intervals`. All raise InputError on a malformed row, a system that answers a question twice, a p_exists
outside 0 to 1, and as `bootstrap.check_resampling`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from cuadft.core.errors import InputError
from cuadft.evaluation.bootstrap import (
    Interval,
    as_columns,
    check_resampling,
    cluster_codes,
    cluster_sums,
    ratio_intervals,
)
from cuadft.evaluation.metrics import CACHED_SPANS, SPAN_MATCH_FROM, is_missing, span_jaccard
from cuadft.evaluation.official import check_row, shown_quotes
from cuadft.evaluation.text_scores import AnswerComparison, PreparedText, is_refusal
from cuadft.evaluation.verdicts import gold_texts, has_failed

Predictions = Sequence[Mapping[str, Any]]

STATEMENTS = {  # what a probability is about -> in words
    "exists": "a clause exists",
    "best_quote": "the best quote is right",
    "quotes": "a shown quote is right",
}
MEASURES: dict[str, tuple[str, bool]] = {  # name -> (label, its rows are shares)
    "brier": ("Brier score", True),
    "brier_skill": ("Brier skill", False),
    "ece": ("Calibration error", False),
    "auc": ("AUC", True),
    "mean_probability": ("Mean probability", True),
    "base_rate": ("Base rate", True),
}
CALIBRATION_COLUMNS = [
    *("system", "of", "n", "n_contracts", "without"),
    *(f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")),
    *("brier_constant", "ece_by_chance"),
]
BIN_COLUMNS = ["system", "of", "bin", "probability", "share", "low", "high", "n", "n_contracts"]
CURVE_COLUMNS = ["system", "of", "coverage", "risk", "low", "high", "certainty", "constant", "n", "n_contracts"]
POINT_COLUMNS = ["system", "threshold", "measure", "value", "low", "high", "n", "n_contracts", "in_use", "without"]
BINS = 10
CHANCE_DRAWS = 200  # draws of truths for `ece_by_chance`
THRESHOLDS = tuple(round(n / 20, 2) for n in range(21))


# --- are the probabilities true?


def calibration_table(predictions: Predictions, **resampling: Any) -> pd.DataFrame:
    """Return one row per system and kind of probability, with the columns `CALIBRATION_COLUMNS`.

    of: a key of `STATEMENTS`: p_exists of every question, p of the best shown quote of every answered question, p of
    all shown quotes of answered questions. without: questions (or quotes) left out because they state none, rounded.
    A system that gives none of a kind has no row of it. Each of `MEASURES` stands with its bounds _low and _high.

    brier: mean squared difference of probability and truth (Brier, 1950), 0 is best. brier_constant: that of the
    constant that always says the base rate b, b (1 - b). brier_skill: 1 - brier / brier_constant, above 0 if better
    than the constant, NaN if all is true or all is false. auc: how often what is true has a higher probability than
    what is false, ties half; a constant has 0.5; NaN without both kinds. Its interval rests on each row's share of
    pairs won (Obuchowski, 1997, "Nonparametric analysis of clustered ROC curve data", Biometrics 53).
    ece: expected calibration error, the mean over `BINS` bins, weighted by their rows, of the absolute difference of
    mean probability and share true (Naeini et al., 2015, "Obtaining well calibrated probabilities using Bayesian
    binning"; Guo et al., 2017, "On calibration of modern neural networks"). The bins hold equal weight, not equal
    width: most probabilities are near 0 or 1, where bins of equal width would leave the others all but empty, and equal
    weight is less biased (Roelofs et al., 2022, "Mitigating bias in calibration error estimation"). Equal probabilities
    are never parted, so there can be fewer bins. A constant that says the base rate has 0: a small ece alone shows no
    skill. ece is biased upward on few rows, and so is its interval, which takes the sign of each bin's difference as
    found and is cut at 0. ece_by_chance is the mean ece, on as many rows, if every probability were exactly right; it
    treats rows as independent. An ece near it shows no error. Measured coverage of the intervals of auc, ece and
    brier_skill at 95 %, with 10 to 60 contracts of 40 questions and a system that is too certain: 94 to 98 %.
    """
    settings = _checked(**resampling)
    rows = [_calibration_row(part, settings) for part in _stated_parts(predictions)]
    return pd.DataFrame(rows, columns=CALIBRATION_COLUMNS)


def reliability(predictions: Predictions, **resampling: Any) -> pd.DataFrame:
    """Return the bins of the reliability diagram: one row per system, kind of probability and bin (`BIN_COLUMNS`).

    bin: from 1; the bins are those of ece, see `calibration_table`. probability: the mean in the bin; share: how much
    of it is true, with its interval low to high; n: the weight in the bin, rounded. A calibrated system has share =
    probability in every bin.
    """
    settings, rows = _checked(**resampling), []
    for part in _stated_parts(predictions):
        bins = equal_bins(part.p, part.weight)
        inside = [part.weight * (bins == number) for number in range(bins.max() + 1)]
        found = _intervals(part, [(part.true, weight, True) for weight in inside], settings)
        for number, (weight, interval) in enumerate(zip(inside, found, strict=True), 1):
            row = {"system": part.system, "of": part.of, "bin": number, "share": interval.value}
            rows.append(row | {"probability": np.average(part.p, weights=weight)} | as_columns(interval))
    return pd.DataFrame(rows, columns=BIN_COLUMNS)


def equal_bins(p: np.ndarray, weight: np.ndarray, bins: int = BINS) -> np.ndarray:
    """Return each row's bin from 0, in the order of the probabilities; the bins hold about equal weight.

    p, weight: (n,). Rows of equal probability are in one bin: that in which the middle of their weight lies, counted
    from the lowest probability. Bins that stay empty are left out.
    """
    _, group = np.unique(p, return_inverse=True)
    sums = np.bincount(group, weight)
    middle = (sums.cumsum() - sums / 2) / sums.sum()
    # Rounded, so that sums of weights in another order do not move a row across an edge.
    numbers = np.minimum(np.floor(np.round(bins * middle, 9)), bins - 1)
    return np.unique(numbers, return_inverse=True)[1][group]


@dataclass(frozen=True)
class _Part:
    """Hold what one system states of one kind: probability, truth, weight and contract number, each (n,)."""

    system: str
    of: str
    p: np.ndarray
    true: np.ndarray
    weight: np.ndarray
    codes: np.ndarray
    n_contracts: int
    without: float


def _stated_parts(predictions: Predictions) -> Iterator[_Part]:
    """Yield every kind of probability that a system states at all."""
    for system, rows in rows_by_system(predictions).items():
        for of in STATEMENTS:
            stated = [(p, *pair) for p in rows for pair in _statements(p, of)]
            known = [(p, said, true) for p, said, true in stated if said is not None]
            if known:
                without = sum(_weight(p) for p, said, _ in stated if said is None)
                yield _part(system, of, known, without)


def _part(system: str, of: str, stated: Sequence[tuple[Mapping[str, Any], float, bool]], without: float = 0) -> _Part:
    """Return rows with their probabilities and truths as one part."""
    rows, p, true = zip(*stated, strict=True)
    weight, codes = np.array([_weight(row) for row in rows]), cluster_codes([row["contract"] for row in rows])
    return _Part(system, of, np.array(p, float), np.array(true, float), weight, *codes, without)


def _statements(p: Mapping[str, Any], of: str) -> list[tuple[float | None, bool]]:
    """Return the probabilities that a row states, each with whether it came true; None where it should and does not."""
    if of == "exists":
        return [(None if is_missing(p.get("p_exists")) else p["p_exists"], bool(p["answers"]))]
    if not is_answered(p):
        return []
    shown = shown_quotes(p)[: 1 if of == "best_quote" else None]
    return [(stated_p(quote, p), is_right(quote["text"], p)) for quote in shown] or [(None, False)]


def _calibration_row(part: _Part, settings: Mapping[str, Any]) -> dict[str, Any]:
    p, y, weight, bins = part.p, part.true, part.weight, equal_bins(part.p, part.weight)
    base, squares = np.average(y, weights=weight), (p - y) ** 2
    by_constant = (y - base) ** 2  # its weighted mean does not change to first order as the base rate is drawn anew
    gaps = np.bincount(bins, weight * (p - y))
    values = {
        "brier": (squares, weight),
        "brier_skill": (squares / np.where(by_constant > 0, by_constant, math.nan), weight * by_constant),
        "ece": (np.where(gaps < 0, -1, 1)[bins] * (p - y), weight),
        "auc": (_auc_values(p, y == 1, weight), weight),
        "mean_probability": (p, weight),
        "base_rate": (y, weight),
    }
    columns = [(*values[name], share) for name, (_, share) in MEASURES.items()]
    found = dict(zip(MEASURES, _intervals(part, columns, settings), strict=True))
    row: dict[str, Any] = {"system": part.system, "of": part.of, "without": round(part.without)}
    row |= {"n": found["brier"].n, "n_contracts": found["brier"].n_clusters}
    for name, interval in found.items():
        ends = [interval.value, interval.low, interval.high]
        if name == "brier_skill":
            ends = [1 - ends[0], 1 - ends[2], min(1 - ends[1], 1.0)]
        if name == "ece":
            ends = [*np.clip(ends, 0, 1)]
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), ends, strict=True))
    chance = _error_by_chance(p, weight, bins, settings["seed"])
    return row | {"brier_constant": base * (1 - base), "ece_by_chance": chance}


def _auc_values(p: np.ndarray, true: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return one value per row whose weighted mean is the AUC, and whose spread over contracts is that of the AUC.

    A row's share of won pairs counts for its own kind alone, so its difference from the AUC is scaled by all weight
    over the weight of its kind.
    """
    if true.all() or not true.any():
        return np.full(len(p), math.nan)
    won = np.where(true, _share_below(p, p[~true], weight[~true]), 1 - _share_below(p, p[true], weight[true]))
    auc, shares = np.average(won[true], weights=weight[true]), weight[true].sum() / weight.sum()
    return auc + (won - auc) / np.where(true, shares, 1 - shares)


def _share_below(p: np.ndarray, others: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return the share of the others' weight that lies below each p, ties counted half."""
    order = np.argsort(others, kind="stable")
    sums, others = np.append(0, weight[order].cumsum()), others[order]
    return sum(sums[np.searchsorted(others, p, side)] for side in ("left", "right")) / 2 / sums[-1]


def _error_by_chance(p: np.ndarray, weight: np.ndarray, bins: np.ndarray, seed: int) -> float:
    """Return the mean calibration error over draws of truths that have exactly the probabilities stated."""
    order, rng = np.lexsort((weight, p)), np.random.default_rng(seed)  # so that the order of rows does not matter
    p, weight, bins = p[order], weight[order], bins[order]
    inside = (bins[:, None] == np.arange(bins.max() + 1)) * weight[:, None]
    errors = [np.abs((p - (rng.random(len(p)) < p)) @ inside).sum() for _ in range(CHANCE_DRAWS)]
    return float(np.mean(errors) / weight.sum())


# --- do they tell right from wrong?


def risk_coverage(predictions: Predictions, *, points: int = 50, **resampling: Any) -> pd.DataFrame:
    """Return the errors made if only the most certain questions are decided, most certain first (`CURVE_COLUMNS`).

    of "exists": the decision of a question is whether the system answered it; its certainty is p_exists if answered and
    1 - p_exists if refused; an error is a false answer or a false refusal. of "best_quote": only answers are decided,
    the certainty is p of the best shown quote, and an error is a best quote that is not right, whether or not there is
    a clause. coverage: the share of all questions whose certainty is `certainty` or more, of those that did not fail;
    questions without that probability are never decided. risk: the share of errors among them, with its interval for
    that certainty. constant: the risk, at any coverage, if the probability were the same for all questions: min(b, 1 -
    b) of deciding alike everywhere, b the base rate; for best_quote the share of wrong answers. A useful curve lies
    below it and rises to the right. Questions of equal certainty come together. points: most rows of a curve; those
    that first reach each 1 / points of its end are kept. Source: El-Yaniv & Wiener (2010), "On the foundations of
    noise-free selective classification", JMLR 11; Geifman & El-Yaniv (2017), "Selective classification for deep neural
    networks". Raises InputError also if points is below 1.
    """
    if points < 1:
        raise InputError(f"Invalid number {points!r} of points of a curve: give a whole number from 1, such as 50.")
    settings, rows = _checked(**resampling), []
    for system, asked in rows_by_system(predictions).items():
        own = [p for p in asked if not has_failed(p)]
        total = sum(map(_weight, own))
        for of in ("exists", "best_quote"):
            decided = [(p, *decision) for p in own if (decision := _decision(p, of)) is not None]
            if decided:
                part = _part(system, of, decided)
                rows += _curve_rows(part, _constant_risk(part, decided), total, points, settings)
    return pd.DataFrame(rows, columns=CURVE_COLUMNS)


def _decision(p: Mapping[str, Any], of: str) -> tuple[float, bool] | None:
    """Return the certainty of what the system decided, and whether that was an error; None if nothing was decided."""
    answered = is_answered(p)
    if of == "exists":
        given = p.get("p_exists")
        return None if is_missing(given) else (given if answered else 1 - given, answered != bool(p["answers"]))
    shown = shown_quotes(p) if answered else []
    given = stated_p(shown[0], p) if shown else None
    return None if given is None else (given, not is_right(shown[0]["text"], p))


def _constant_risk(part: _Part, decided: Sequence[tuple[Mapping[str, Any], float, bool]]) -> float:
    """Return the risk if all questions had the same probability."""
    if part.of == "best_quote":
        return float(np.average(part.true, weights=part.weight))
    base = np.average([bool(p["answers"]) for p, *_ in decided], weights=part.weight)
    return float(min(base, 1 - base))


def _curve_rows(
    part: _Part, constant: float, total: float, points: int, settings: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the kept points of a curve, from the most certain on; part: certainties, with errors as their truth."""
    levels, group = np.unique(-part.p, return_inverse=True)
    decided = np.bincount(group, part.weight).cumsum()
    reached = np.floor(np.round(points * decided / decided[-1], 9))  # rounded as in `equal_bins`
    kept = [number for step, number in zip(*np.unique(reached, return_index=True), strict=True) if step > 0]
    inside = [part.weight * (group <= number) for number in kept]
    found = _intervals(part, [(part.true, weight, True) for weight in inside], settings)
    shared = {"system": part.system, "of": part.of, "constant": constant}
    return [
        shared
        | {"coverage": decided[number] / total, "risk": interval.value, "certainty": -levels[number]}
        | as_columns(interval)
        for number, interval in zip(kept, found, strict=True)
    ]


def operating_points(
    predictions: Predictions, *, thresholds: Sequence[float] = THRESHOLDS, **resampling: Any
) -> pd.DataFrame:
    """Return false answers, false refusals and quote F1 at thresholds on p_exists (`POINT_COLUMNS`).

    No system is run: at a threshold t a question is answered if p_exists >= t and the kept prediction holds a text to
    answer with, which is the answer or, where it was refused, the first of its `quotes`. Without either, or if the row
    failed, the question stays unanswered at every threshold. The measures are those of `metrics.METRICS`. Rows without
    p_exists are left out and counted as `without`. in_use: the lowest p_exists of an answered question, if all refused
    questions with a candidate lie below it; NaN where no single threshold gives the system's own decisions. A threshold
    that is chosen by this table must be chosen on dev questions.
    """
    settings, rows = _checked(**resampling), []
    prepare = lru_cache(CACHED_SPANS)(PreparedText)
    for system, asked in rows_by_system(predictions).items():
        own = [p for p in asked if not is_missing(p.get("p_exists"))]
        if not own:
            continue
        without = round(sum(map(_weight, asked)) - sum(map(_weight, own)))
        part = _part(system, "exists", [(p, p["p_exists"], bool(p["answers"])) for p in own])
        can_answer, f1 = np.array([_candidate_score(p, prepare) for p in own], float).T
        failed, shared = np.array([has_failed(p) for p in own]), {"in_use": _threshold_in_use(own, can_answer)}
        columns, named = [], []
        for threshold in thresholds:
            measured = _measures_at(part, can_answer * (part.p >= threshold), f1, failed)
            columns += [(*pair, True) for pair in measured.values()]
            named += [{"threshold": threshold, "measure": name} for name in measured]
        shared |= {"system": system, "without": without}
        found = _intervals(part, columns, settings)
        rows += [shared | name | as_columns(i) for name, i in zip(named, found, strict=True)]
    return pd.DataFrame(rows, columns=POINT_COLUMNS)


def _candidate_score(p: Mapping[str, Any], prepare: Any) -> tuple[bool, float]:
    """Return whether a row holds a text to answer with, and its token F1 with the nearest gold span."""
    if has_failed(p):
        return False, 0.0
    texts = [p["answer"]] if is_answered(p) else [quote["text"] for quote in all_quotes(p)]
    compared = AnswerComparison(texts[0] if texts else None, gold_texts(p), prepare)
    return not compared.failed and not compared.abstained, compared.f1()


def _measures_at(
    part: _Part, answered: np.ndarray, f1: np.ndarray, failed: np.ndarray
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return value and weight of each row in each measure; part: its truth is whether there is a clause."""
    clause, ran = part.true, part.weight * ~failed
    either = answered + clause
    return {
        "false_answer": (answered, ran * (1 - clause)),
        "false_refusal": (1 - answered, ran * clause),
        "quote_f1": (2 * f1 * answered * clause / np.where(either > 0, either, math.nan), part.weight * either),
    }


def _threshold_in_use(rows: Predictions, can_answer: np.ndarray) -> float:
    """Return the lowest p_exists of an answered row, NaN if a refused row that could be answered has as much."""
    answered = [p["p_exists"] for p in rows if is_answered(p)]
    refused = [p["p_exists"] for p, can in zip(rows, can_answer, strict=True) if can and not is_answered(p)]
    return min(answered) if answered and max(refused, default=-1) < min(answered) else math.nan


# --- what all of them share


def rows_by_system(predictions: Predictions) -> dict[str, list[Mapping[str, Any]]]:
    """Return the rows of each system, in the order of their first rows; InputError on rows that cannot be judged."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    seen = set()
    for p in predictions:
        check_row(p)
        system, given = str(p.get("system", "")), p.get("p_exists")
        if not is_missing(given) and not (isinstance(given, int | float | np.number) and 0 <= given <= 1):
            raise InputError(f"Row {p['id']!r} has p_exists={given!r}: give a number from 0 to 1, or None if unknown.")
        if (system, p["id"]) in seen:
            raise InputError(f"Row {p['id']!r} of {system!r} is there twice: give the rows of one split and one seed.")
        seen.add((system, p["id"]))
        found.setdefault(system, []).append(p)
    return found


def _checked(n_resamples: int = 2000, seed: int = 7, confidence: float = 0.95) -> dict[str, Any]:
    check_resampling(n_resamples, confidence)
    return {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}


def _intervals(
    part: _Part, columns: Sequence[tuple[np.ndarray, np.ndarray, bool]], settings: Mapping[str, Any]
) -> list[Interval]:
    """Return the weighted mean of each column with its interval; a column: values, weights, whether they are shares."""
    tops, bottoms = np.zeros((2, part.n_contracts, len(columns)))
    counts = []
    for k, (values, weights, _) in enumerate(columns):
        tops[:, k], bottoms[:, k], applies = cluster_sums(values, weights, part.codes, part.n_contracts)
        counts.append(round(part.weight[applies].sum()))
    return ratio_intervals(tops, bottoms, counts, [share for *_, share in columns], **settings)


def _weight(p: Mapping[str, Any]) -> float:
    return 1.0 if is_missing(p.get("weight")) else float(p["weight"])


def is_answered(p: Mapping[str, Any]) -> bool:
    """Tell whether a row neither failed nor refused."""
    return not has_failed(p) and not is_refusal(p["answer"])


def is_right(text: str, p: Mapping[str, Any]) -> bool:
    """Tell whether a quote shares at least half of all different words with a gold span of the row."""
    return any(span_jaccard(text, gold["text"]) >= SPAN_MATCH_FROM for gold in p["answers"])


def stated_p(quote: Mapping[str, Any], p: Mapping[str, Any]) -> float | None:
    """Return the probability that a row states of one of its quotes, None if it states none.

    In a row without p_exists a probability of exactly 1 is a filler: CUAD's curve needs a number, and a system without
    probabilities has 1 there.
    """
    return None if quote["p"] == 1 and is_missing(p.get("p_exists")) else quote["p"]


def all_quotes(p: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return all quotes of a row, also those not shown, best first."""
    return [] if is_missing(p.get("quotes")) else [quote for quote in p["quotes"] if quote["text"]]
