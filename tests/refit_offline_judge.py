"""Fit the offline judge anew: python tests/refit_offline_judge.py FOLDER.

FOLDER holds published answers with verdicts, see `cuadft.evaluation.published`.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.evaluation import answer_files, offline_judge, published
from cuadft.evaluation.offline_judge import (
    EVERYWHERE,
    FEATURES,
    Encode,
    Evidence,
    OfflineJudge,
    Weights,
    compare_references,
)
from cuadft.models import weights

PENALTY = 0.01  # ridge on the weights; a tenth of it on the biases
SOURCE = (
    "0-to-1 verdicts of Claude 3 Sonnet, printed row by row by the AWS sample "
    "amlc-2024-tutorial-continuous-fine-tuning-compound-ai (MIT-0); answers on one contract of CUAD (CC BY 4.0)"
)


def fit_to_evidence(evidence: Sequence[Sequence[Evidence] | None], verdicts: Sequence[float]) -> Weights:
    """Return the weights that fit what `compare_references` gave; rows that a rule decides (None) are left out.

    Of several references, the one with most in common counts.
    """

    def common(one: Evidence) -> float:
        return sum(value for name, value in one[1].items() if name not in ("conflict", "contradiction"))

    kept = [(max(e, key=common), v) for e, v in zip(evidence, verdicts, strict=True) if e]
    return fit_weights([e[0] for e, _ in kept], [e[1] for e, _ in kept], [v for _, v in kept])


def fit_weights(stances: Sequence[str], found: Sequence[Mapping[str, float]], verdicts: Sequence[float]) -> Weights:
    """Return the weights with the least squared error on verdicts (0 to 1), ridge-penalised, signs constrained.

    stances, found, verdicts: one each per answer; found as `compare_texts` returns it. Raises InputError on no answers,
    unequal numbers of the three, or verdicts outside 0 to 1.
    """
    y = np.asarray(verdicts, dtype=float)
    if not len(y) or not len(y) == len(stances) == len(found) or not ((y >= 0) & (y <= 1)).all():
        raise InputError(
            f"Got {len(stances)} answers and {len(y)} verdicts: give one verdict from 0 to 1 for each answer."
        )
    names = _columns("similarity" in found[0])
    x = np.array(
        [[_value(column, stance, row) for column in names] for stance, row in zip(stances, found, strict=True)]
    )
    penalty = PENALTY * np.array([0.1 if name == "bias" else 1.0 for _, name in names])
    bounds = [(None, None) if n == "bias" else (None, 0) if n == "conflict" else (0, None) for _, n in names]

    def loss_and_gradient(w: np.ndarray) -> tuple[float, np.ndarray]:
        p = 1 / (1 + np.exp(-(x @ w)))
        error = p - y
        return error @ error + (penalty * w) @ w, 2 * x.T @ (error * p * (1 - p)) + 2 * penalty * w

    found_weights = minimize(loss_and_gradient, np.zeros(len(names)), jac=True, bounds=bounds, method="L-BFGS-B").x
    weights: Weights = {}
    for (stance, name), value in zip(names, found_weights, strict=True):
        weights.setdefault(stance, {})[name] = round(float(value), 4)
    return weights


def _columns(embedded: bool) -> list[tuple[str, str]]:
    similarity = ("similarity",) if embedded else ()
    own = [(stance, name) for stance, names in FEATURES.items() for name in ("bias", *names, *similarity)]
    return own + [("everywhere", name) for name in EVERYWHERE]


def _value(column: tuple[str, str], stance: str, row: Mapping[str, float]) -> float:
    where, name = column
    if where not in ("everywhere", stance):
        return 0.0
    return 1.0 if name == "bias" else row[name]


def held_out_scores(
    rows: Sequence[Mapping[str, Any]], verdicts: Sequence[float], groups: Sequence[str], *, encode: Encode | None = None
) -> np.ndarray:
    """Return each answer's score by a judge that was fitted without its group (a system, or a question).

    rows: as `OfflineJudge.rate` takes them. Raises InputError on fewer than two groups.
    """
    groups, y, scores = np.asarray(groups), np.asarray(verdicts, dtype=float), np.full(len(rows), np.nan)
    if len(set(groups)) < 2:
        raise InputError(f"Got {len(set(groups))} group to leave out: give at least two, such as two systems.")
    evidence = compare_references(rows, encode)
    for group in dict.fromkeys(groups):
        inside, outside = np.flatnonzero(groups == group), np.flatnonzero(groups != group)
        judge = OfflineJudge(encode, weights=fit_to_evidence([evidence[i] for i in outside], y[outside]))
        scores[inside] = judge.rate([rows[i] for i in inside])["judge_score"]
    return scores


def fit_record(
    rows: Sequence[Mapping[str, Any]], verdicts: Sequence[float], *, fitted_to: str, encode: Encode
) -> dict[str, Any]:
    """Return what `calibration.json` holds: both sets of weights, and how well they predict verdicts left out of a fit.

    rows: with `system` and `question`; verdicts: one per row, 0 to 1; fitted_to: where the verdicts come from.
    """
    systems = [row["system"] for row in rows]
    made: dict[str, Any] = {"fitted_to": fitted_to, "systems": list(dict.fromkeys(systems)), "n": len(rows)}
    for suffix, with_encode in (("", None), ("_with_embedding", encode)):
        made["weights" + suffix] = fit_to_evidence(compare_references(rows, with_encode), verdicts)
        for group in ("system", "question"):
            scores = held_out_scores(rows, verdicts, [row[group] for row in rows], encode=with_encode)
            made[f"without_the_{group}{suffix}"] = _agreement(scores, np.asarray(verdicts), systems)
    return made


def _agreement(scores: np.ndarray, verdicts: np.ndarray, systems: Sequence[str]) -> dict[str, Any]:
    """Return the agreement over all rows and within each system; kappa is Cohen's, both cut at 0.5."""
    parts = {"all": np.full(len(scores), True)} | {s: np.asarray(systems) == s for s in dict.fromkeys(systems)}
    return {name: _one_agreement(scores[part], verdicts[part]) for name, part in parts.items()}


def _one_agreement(scores: np.ndarray, verdicts: np.ndarray) -> dict[str, Any]:
    error = scores - verdicts
    found = {
        "spearman": spearmanr(scores, verdicts).statistic,
        "kappa": cohen_kappa_score(scores >= 0.5, verdicts >= 0.5),
        "error_of_the_mean": error.mean(),
        "mean_absolute_error": abs(error).mean(),
    }
    return {"n": len(error)} | {name: round(float(value), 3) for name, value in found.items()}


def main(folder: str) -> None:
    """Write the fit, and how well it predicts verdicts left out of it, to calibration.json in the package."""
    from cuadft.retrieval.embedder import Embedder

    rows = answer_files.join_files(published.read_published(folder)[0]).predictions
    rows = [row for row in rows if "judge_score" in row["verdicts"]]
    embedder = Embedder(weights.find_weights("sentence-transformers/all-MiniLM-L6-v2"), cache_dir=weights.cache_dir())
    verdicts = [row["verdicts"]["judge_score"] for row in rows]
    made = fit_record(rows, verdicts, fitted_to=SOURCE, encode=embedder.encode)
    files.write_json(Path(offline_judge.__file__).with_name("calibration.json"), made)


if __name__ == "__main__":
    main(sys.argv[1])
