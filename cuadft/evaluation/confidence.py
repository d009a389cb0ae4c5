"""Ask whether a system knows what it knows: are its probabilities true, and do they tell right answers from wrong ones?

    calibration_table(predictions)     # Brier score, calibration error and AUC, beside what a constant reaches
    reliability(predictions)           # of what it gave 0.8, how much is true?
    risk_coverage(predictions)         # errors, if only the most certain questions are decided
    operating_points(predictions)      # errors and quote F1 at other thresholds than the one in use

Two probabilities of a prediction are judged: `p_exists`, that the contract holds such a clause, and the `p` of its best
quote, that the quote is right. A quote is right if it shares at least half of all different words with a gold span
(CUAD's rule, `metrics.span_jaccard`). A prediction without a probability is left out and counted; it never stands for
0.5. Of a prediction without p_exists, a quote's p of exactly 1 is a filler and no probability (`stated_p`).

Every function takes the rows of one split and one seed, of one or several systems, as in `predictions/*.jsonl`, and
counts a row of weight w as w rows. n is the number of questions (or quotes) that the rows stand for, rounded. Intervals
resample contracts; n_resamples (2000 unless given), seed (7) and confidence (0.95) are those of
`bootstrap.interval_table`. All raise InputError on a malformed row, a system that answers a question twice, a p_exists
outside 0 to 1, and as `bootstrap.check_resampling`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cuadft.evaluation.bootstrap import check_resampling, interval_table, side_by_side
from cuadft.evaluation.metrics import SPAN_MATCH_FROM, is_missing, span_jaccard, stands_for
from cuadft.evaluation.official import Predictions, checked_rows, shown_quotes
from cuadft.evaluation.text_scores import AnswerComparison, is_refusal
from cuadft.evaluation.verdicts import gold_texts, has_failed

STATEMENTS = {  # what a probability is about -> in words
    "exists": "a clause exists",
    "best_quote": "the best quote is right",
}
MEASURES = ("brier", "ece", "auc")
CALIBRATION_COLUMNS = [
    *("system", "of", "n", "n_contracts", "without"),
    *(f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")),
    *("brier_constant", "ece_by_chance"),
]
BIN_COLUMNS = ["system", "of", "bin", "probability", "share", "low", "high", "n", "n_contracts"]
CURVE_COLUMNS = ["system", "of", "coverage", "risk", "low", "high", "certainty", "constant", "n", "n_contracts"]
POINT_COLUMNS = ["system", "threshold", "measure", "value", "low", "high", "n", "n_contracts", "without"]
BINS = 10
CHANCE_DRAWS = 200  # draws of truths for `ece_by_chance`
THRESHOLDS = tuple(round(n / 20, 2) for n in range(21))


# --- are the probabilities true?


def calibration_table(predictions: Predictions, **resampling: Any) -> pd.DataFrame:
    """Return one row per system and kind of probability, with the columns `CALIBRATION_COLUMNS`.

    of: a key of `STATEMENTS`: p_exists of every question, p of the best shown quote of every answered question.
    without: questions left out because they state none, rounded. A system that gives none of a kind has no row of it.
    Each of `MEASURES` stands with its bounds _low and _high.

    brier: mean squared difference of probability and truth (Brier, 1950), 0 is best. brier_constant: that of the
    constant that always says the base rate b, b (1 - b): below it a system is better than the constant. auc: how often
    what is true has a higher probability than what is false, ties half; a constant has 0.5; NaN without both
    kinds. Its interval rests on each row's share of pairs won (Obuchowski, 1997, "Nonparametric analysis of clustered
    ROC curve data", Biometrics 53).
    ece: expected calibration error, the mean over `BINS` bins, weighted by their rows, of the absolute difference of
    mean probability and share true (Naeini et al., 2015, "Obtaining well calibrated probabilities using Bayesian
    binning"; Guo et al., 2017, "On calibration of modern neural networks"). The bins hold equal weight, not equal
    width: most probabilities are near 0 or 1, where bins of equal width would leave the others all but empty, and equal
    weight is less biased (Roelofs et al., 2022, "Mitigating bias in calibration error estimation"). Equal probabilities
    are never parted, so there can be fewer bins. A constant that says the base rate has 0: a small ece alone shows no
    skill. ece is biased upward on few rows, and so is its interval, which takes the sign of each bin's difference as
    found and is cut at 0. ece_by_chance is the mean ece, on as many rows, if every probability were exactly right; it
    treats rows as independent. An ece near it shows no error. Measured coverage of the intervals of auc and ece
    at 95 %, with 10 to 60 contracts of 40 questions and a system that is too certain: 94 to 98 %.
    """
    check_resampling(**resampling)
    rows = []
    for named, part in _groups(_stated(predictions)):
        known = part.dropna(subset="p")
        without = part["weight"].sum() - known["weight"].sum()
        if len(known):
            rows.append(named | {"without": round(without)} | _calibration_row(known, resampling))
    return pd.DataFrame(rows, columns=CALIBRATION_COLUMNS)


def reliability(predictions: Predictions, **resampling: Any) -> pd.DataFrame:
    """Return the bins of the reliability diagram: one row per system, kind of probability and bin (`BIN_COLUMNS`).

    bin: from 1; the bins are those of ece, see `calibration_table`. probability: the mean in the bin; share: how much
    of it is true, with its interval low to high; n: the weight in the bin, rounded. A calibrated system has share =
    probability in every bin.
    """
    check_resampling(**resampling)
    tables = []
    for named, part in _groups(_stated(predictions).dropna(subset="p")):
        bins = equal_bins(part["p"].to_numpy(), part["weight"].to_numpy())
        inside = [part["weight"] * (bins == number) for number in range(bins.max() + 1)]
        table = _intervals(part, [(part["true"], weight, True) for weight in inside], resampling)
        probability = [np.average(part["p"], weights=weight) for weight in inside]
        tables.append(table.assign(**named, bin=table.index + 1, share=table["value"], probability=probability))
    return _joined(tables, BIN_COLUMNS)


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


def _stated(predictions: Predictions) -> pd.DataFrame:
    """Return one row per probability that a row should state, p (NaN if it does not), true, and what was decided."""
    made = []
    for p in checked_rows(predictions):
        answered, clause = is_answered(p), bool(p["answers"])
        stated = [("exists", p.get("p_exists"), clause)]
        if answered:
            best = next(iter(shown_quotes(p)), None)
            stated.append(("best_quote", best and stated_p(best, p), best is not None and is_right(best["text"], p)))
        shared = (str(p.get("system", "")), p["contract"], stands_for(p), has_failed(p), answered, clause)
        made += [(*shared, *one) for one in stated]
    columns = ["system", "contract", "weight", "failed", "answered", "clause", "of", "p", "true"]
    table = pd.DataFrame(made, columns=columns)
    return table.astype({"p": float, "true": float} | dict.fromkeys(("failed", "answered", "clause"), bool))


def _groups(table: pd.DataFrame) -> Iterator[tuple[dict[str, str], pd.DataFrame]]:
    """Yield the rows of each system and kind of probability, with their names; systems in the order of their rows."""
    groups = table.groupby(["system", "of"]).groups
    for system, of in itertools.product(table["system"].unique(), STATEMENTS):
        if (system, of) in groups:
            yield {"system": system, "of": of}, table.loc[groups[system, of]].reset_index(drop=True)


def _calibration_row(part: pd.DataFrame, resampling: Mapping[str, Any]) -> dict[str, Any]:
    p, y, weight = (part[name].to_numpy() for name in ("p", "true", "weight"))
    bins, base = equal_bins(p, weight), np.average(y, weights=weight)
    gaps = np.bincount(bins, weight * (p - y))
    columns = [  # in the order of `MEASURES`
        ((p - y) ** 2, weight, True),
        (np.where(gaps < 0, -1, 1)[bins] * (p - y), weight, False),
        (_auc_values(p, y == 1, weight), weight, True),
    ]
    found = _intervals(part, columns, resampling).set_axis(list(MEASURES))
    ends = ["value", "low", "high"]
    found.loc["ece", ends] = found.loc["ece", ends].clip(0, 1)
    sizes = found.loc["brier", ["n", "n_contracts"]].astype(int).to_dict()
    chance = _error_by_chance(p, weight, bins, resampling.get("seed", 7))
    return sizes | side_by_side(found) | {"brier_constant": base * (1 - base), "ece_by_chance": chance}


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
    networks".
    """
    check_resampling(**resampling)
    table = _stated(predictions)
    table = table[~table["failed"]]
    exists = table["of"] == "exists"
    sure = table["p"].where(table["answered"] | ~exists, 1 - table["p"])
    wrong = (table["answered"] != table["clause"]).where(exists, 1 - table["true"]).astype(float)
    table = table.assign(p=sure, wrong=wrong)
    asked = table[exists].groupby("system")["weight"].sum()
    tables = []
    for named, part in _groups(table.dropna(subset="p")):
        base = np.average(part["clause" if named["of"] == "exists" else "wrong"], weights=part["weight"])
        constant = min(base, 1 - base) if named["of"] == "exists" else base
        curve = _curve(part, asked[named["system"]], points, resampling)
        tables.append(curve.assign(**named, constant=constant))
    return _joined(tables, CURVE_COLUMNS)


def _curve(part: pd.DataFrame, total: float, points: int, resampling: Mapping[str, Any]) -> pd.DataFrame:
    """Return the kept points of a curve, from the most certain on: coverage, risk with its interval, certainty."""
    levels, group = np.unique(-part["p"], return_inverse=True)
    decided = np.bincount(group, part["weight"]).cumsum()
    reached = np.floor(np.round(points * decided / decided[-1], 9))  # rounded as in `equal_bins`
    kept = [number for step, number in zip(*np.unique(reached, return_index=True), strict=True) if step > 0]
    table = _intervals(part, [(part["wrong"], part["weight"] * (group <= number), True) for number in kept], resampling)
    return table.assign(coverage=decided[kept] / total, risk=table["value"], certainty=-levels[kept])


def operating_points(
    predictions: Predictions, *, thresholds: Sequence[float] = THRESHOLDS, **resampling: Any
) -> pd.DataFrame:
    """Return false answers, false refusals and quote F1 at thresholds on p_exists (`POINT_COLUMNS`).

    No system is run: at a threshold t a question is answered if p_exists >= t and the kept prediction holds a text to
    answer with, which is the answer or, where it was refused, the first of its `quotes`. Without either, or if the row
    failed, the question stays unanswered at every threshold. The measures are those of `metrics.METRICS`. Rows without
    p_exists are left out and counted as `without`. A threshold that is chosen by this table must be chosen on dev
    questions.
    """
    check_resampling(**resampling)
    tables, made = [], []
    for p in checked_rows(predictions):
        shared = (str(p.get("system", "")), p["contract"], stands_for(p), p.get("p_exists"))
        made.append((*shared, bool(p["answers"]), has_failed(p), *_candidate_score(p)))
    columns = ["system", "contract", "weight", "p", "clause", "failed", "can_answer", "f1"]
    table = pd.DataFrame(made, columns=columns).astype({"p": float, "can_answer": float, "failed": bool})
    for system, every in table.groupby("system", sort=False):
        part = every.dropna(subset="p")
        if len(part):
            measured = [(threshold, *measure) for threshold in thresholds for measure in _measures(part, threshold)]
            found = _intervals(part, [(values, weights, True) for *_, values, weights in measured], resampling)
            named = pd.DataFrame([names for *names, _, _ in measured], columns=["threshold", "measure"])
            without = round(every["weight"].sum() - part["weight"].sum())
            tables.append(named.join(found).assign(system=system, without=without))
    return _joined(tables, POINT_COLUMNS)


def _candidate_score(p: Mapping[str, Any]) -> tuple[bool, float]:
    """Return whether a row holds a text to answer with, and its token F1 with the nearest gold span."""
    if has_failed(p):
        return False, 0.0
    texts = [p["answer"]] if is_answered(p) else [quote["text"] for quote in all_quotes(p)]
    compared = AnswerComparison(texts[0] if texts else None, gold_texts(p))
    return not compared.failed and not compared.abstained, compared.f1()


def _measures(part: pd.DataFrame, threshold: float) -> list[tuple[str, pd.Series, pd.Series]]:
    """Return each measure with the rows' values and weights, if they are answered from the threshold on."""
    answered, clause = part["can_answer"] * (part["p"] >= threshold), part["clause"].astype(float)
    ran, either = part["weight"] * ~part["failed"], answered + clause
    quoted = 2 * part["f1"] * answered * clause / either.where(either > 0)
    return [
        ("false_answer", answered, ran * (1 - clause)),
        ("false_refusal", 1 - answered, ran * clause),
        ("quote_f1", quoted, part["weight"] * either),
    ]


# --- what all of them share


def _intervals(
    part: pd.DataFrame, columns: Sequence[tuple[Any, Any, bool]], resampling: Mapping[str, Any]
) -> pd.DataFrame:
    """Return the weighted mean of each column with its interval over the contracts of a part."""
    return interval_table(columns, part["contract"], sizes=part["weight"], **resampling)


def _joined(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


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
