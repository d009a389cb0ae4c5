"""How well the retriever alone tells whether there is a clause: by features left out, and by training contracts.

    feature_worth(retriever, train_rows, test_rows, false_answer_cost=0.75, seed=7)
    learning_curve(retriever, train_rows, test_rows, [50, 150], groups=groups, k=3, false_answer_cost=0.75, seed=7)

Detection asks whether a question is answered and whether a gold span exists (see `evaluation.official`). No language
model takes part, so that both need minutes only.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cuadft.data.rows import is_original
from cuadft.evaluation.confidence import calibration_table
from cuadft.evaluation.official import cuad_scores
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.rag.calibration import Calibration, threshold
from cuadft.rag.confidence import Confidence, classed, exists_features
from cuadft.retrieval.classifier import ClauseClassifier
from cuadft.retrieval.retriever import ClauseValues, Retriever

MEASURES = ("brier", "ece", "auc")
FEATURE_GROUPS = {
    "nothing": (),
    "further passages": ("second", "third", "gap"),
    "value against the contract's others": ("standardised",),
    "length of the contract": ("log_passages",),
    "sentences": tuple(f"sentence_{name}" for name in ("best", "second", "third", "standardised", "gap")),
    "category": ("group",),
}


def feature_worth(
    retriever: Retriever,
    train: Sequence[Mapping[str, Any]],
    asked: Sequence[Mapping[str, Any]],
    *,
    false_answer_cost: float,
    **settings: Any,
) -> pd.DataFrame:
    """Return, for each group of features left out, detection F1, Brier score, ECE and AUC on the rows asked.

    train: rows of the contracts that the classifier was cross-fitted on. Questions of no class are left out. Every
    measure has its interval over contracts. settings: n_resamples, seed and confidence of the intervals.
    """
    train = [row for row in train if is_original(row) and row["contract"] in retriever.classifier.fold_of]
    learned, shown = classed(retriever, train), classed(retriever, asked)
    truth = [bool(row["answers"]) for row, _ in learned]
    table = []
    for left_out, names in FEATURE_GROUPS.items():
        features, groups = _features_without(names, [seen for _, seen in learned])
        fitted = Calibration.fit(features, truth, groups=groups, slope="best")
        p = fitted.p(*_features_without(names, [seen for _, seen in shown]))
        answered = decided([row for row, _ in shown], p, threshold(false_answer_cost))
        table.append({"left out": left_out} | _measures(answered, settings))
    return pd.DataFrame(table)


def _features_without(names: Sequence[str], found: Sequence[ClauseValues]) -> tuple[list[dict[str, float]], list[str]]:
    """Return the features but for the named ones, and the categories, none if "group" is named."""
    features = [{k: v for k, v in exists_features(seen).items() if k not in names} for seen in found]
    return features, [seen.category for seen in found if "group" not in names]


def learning_curve(
    retriever: Retriever,
    train: Sequence[Mapping[str, Any]],
    asked: Sequence[Mapping[str, Any]],
    sizes: Sequence[int],
    *,
    groups: Mapping[str, int],
    k: int,
    false_answer_cost: float,
    seed: int = 7,
    **settings: Any,
) -> pd.DataFrame:
    """Return detection F1, Brier score, ECE and AUC on the rows asked, by the number of training contracts.

    The classifiers and their calibration are fitted anew on each number of contracts; a smaller draw is part of a
    larger one. The last row is the retriever's own, on all its training contracts. A size with too few questions to
    calibrate on has no row. settings: n_resamples and confidence of the intervals.
    """
    train = [row for row in train if is_original(row)]
    titles = sorted({row["contract"] for row in train})
    random.Random(seed).shuffle(titles)
    tested = {row["contract"] for row in asked}
    table = []
    for size in [*(n for n in sizes if n < len(titles)), len(titles)]:
        kept, small = set(titles[:size]), retriever
        rows = [row for row in train if row["contract"] in kept]
        if size < len(titles):
            shown = [p for p in retriever.passages if p.contract in kept | tested]
            own = [p for p in shown if p.contract in kept]
            made = ClauseClassifier.fit(rows, own, retriever.classifier.matcher, groups=groups, seed=seed)
            if made is None:
                continue
            small = Retriever(shown, None, mode="bm25", classifier=made, classifier_weight=1.0)
        if fitted := Confidence.fit(small, rows, k=k, false_answer_cost=false_answer_cost):
            looks = fitted.look(small, [(row["question"], row["contract"]) for row in asked], k=1)
            answered = decided(asked, [look.p_exists for look in looks], fitted.threshold)
            table.append({"training contracts": size} | _measures(answered, settings | {"seed": seed}))
    return pd.DataFrame(table)


def decided(rows: Sequence[Mapping[str, Any]], p: Sequence[float], least: float) -> list[dict[str, Any]]:
    """Return the rows as predictions of the retriever alone, which answers from the probability `least` on."""
    said = [{"p_exists": float(q), "answer": "There is one." if q >= least else NO_CLAUSE} for q in p]
    return [{**row, "system": "retriever", "error": None, **own} for row, own in zip(rows, said, strict=True)]


def _measures(answered: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return detection F1, Brier score, ECE and AUC of such predictions, each with its interval, and n."""
    f1 = cuad_scores(answered, **settings).set_index("measure").loc["detection_f1"]
    rest = calibration_table(answered, **settings).set_index("of").loc["exists"]
    made = {"detection_f1": f1["value"], "detection_f1_low": f1["low"], "detection_f1_high": f1["high"]}
    made |= {f"{name}{end}": rest[f"{name}{end}"] for name in MEASURES for end in ("", "_low", "_high")}
    return made | {"n": f1["n"], "n_contracts": f1["n_contracts"]}
