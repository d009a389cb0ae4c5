"""Fit the offline judge to verdicts, and say how well it predicts verdicts that it was not fitted to.

The score is a logistic function of what `evidence.compare` finds, with its own bias and weights for each stance. No
weight lets a larger overlap lower the score, or a contradiction raise it. The shipped fit is `calibration.json`;
`python -m cuadft.calibration FOLDER` makes it again from a folder of published answers with verdicts.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from cuadft.errors import InputError

FEATURES = {
    "denied": ("some", "found"),
    "brief": ("some", "phrase_recall"),
    "explained": ("on_point", "phrase_root"),
    "quoted": ("phrase_recall", "phrase_precision", "content_precision"),
}
EVERYWHERE = ("conflict",)  # one weight over all stances, zero or less
PENALTY = 0.003  # ridge on the weights; a tenth of it on the biases
SOURCE = (
    "0-to-1 verdicts of Claude 3 Sonnet, printed row by row by the AWS sample "
    "amlc-2024-tutorial-continuous-fine-tuning-compound-ai (MIT-0); answers on one contract of CUAD (CC BY 4.0)"
)
Weights = dict[str, dict[str, float]]


def shipped() -> dict[str, Any]:
    """Return the calibration that comes with the package: weights, where they come from and how well they do."""
    import json

    return json.loads(resources.files("cuadft").joinpath("calibration.json").read_text(encoding="utf-8"))


def features(embedded: bool) -> dict[str, tuple[str, ...]]:
    """Return the features of each stance; with an embedder the similarity of the two texts is one more."""
    return {stance: names + (("similarity",) if embedded else ()) for stance, names in FEATURES.items()}


def predict(weights: Weights, stance: str, found: Mapping[str, float]) -> float:
    """Return the score, 0 to 1, of an answer of this stance."""
    own = weights[stance]
    total = own["bias"] + sum(weight * found[name] for name, weight in own.items() if name != "bias")
    total += sum(weight * found[name] for name, weight in weights["everywhere"].items())
    return float(1 / (1 + np.exp(-total)))


def fit(stances: Sequence[str], found: Sequence[Mapping[str, float]], verdicts: Sequence[float]) -> Weights:
    """Return the weights with the least squared error on verdicts (0 to 1), ridge-penalised, signs constrained.

    Raises InputError on no rows, rows of unequal number, or verdicts outside 0 to 1.
    """
    from scipy.optimize import minimize

    y = np.asarray(verdicts, dtype=float)
    if not len(y) or not len(y) == len(stances) == len(found) or not ((y >= 0) & (y <= 1)).all():
        raise InputError(f"Got {len(stances)} answers and {len(y)} verdicts: give one verdict from 0 to 1 for each answer.")
    names = _columns("similarity" in found[0])
    x = np.array([[_value(column, stance, row) for column in names] for stance, row in zip(stances, found, strict=True)])
    penalty = PENALTY * np.array([0.1 if name == "bias" else 1.0 for _, name in names])
    bounds = [(None, None) if n == "bias" else (None, 0) if s == "everywhere" else (0, None) for s, n in names]

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        p = 1 / (1 + np.exp(-(x @ w)))
        rest = p - y
        return rest @ rest + (penalty * w) @ w, 2 * x.T @ (rest * p * (1 - p)) + 2 * penalty * w

    found_weights = minimize(loss, np.zeros(len(names)), jac=True, bounds=bounds, method="L-BFGS-B").x
    weights: Weights = {}
    for (stance, name), value in zip(names, found_weights, strict=True):
        weights.setdefault(stance, {})[name] = round(float(value), 4)
    return weights


def _columns(embedded: bool) -> list[tuple[str, str]]:
    own = [(stance, name) for stance, names in features(embedded).items() for name in ("bias", *names)]
    return own + [("everywhere", name) for name in EVERYWHERE]


def _value(column: tuple[str, str], stance: str, row: Mapping[str, float]) -> float:
    where, name = column
    if where not in ("everywhere", stance):
        return 0.0
    return 1.0 if name == "bias" else row[name]


def fit_rows(evidence: Sequence[Sequence[tuple[str, Mapping[str, float]]] | None], verdicts: Sequence[float]) -> Weights:
    """Return the weights for what `offline.read` gave; rows that a rule decides (None) are left out.

    Of several references, the one with most in common counts.
    """
    def common(one: tuple[str, Mapping[str, float]]) -> float:
        return sum(value for name, value in one[1].items() if name not in ("conflict", "contradiction"))

    kept = [(max(e, key=common), v) for e, v in zip(evidence, verdicts, strict=True) if e]
    return fit([e[0] for e, _ in kept], [e[1] for e, _ in kept], [v for _, v in kept])


def held_out(rows: Sequence[Mapping[str, Any]], verdicts: Sequence[float], groups: Sequence[str],
             *, embedder: Any = None) -> np.ndarray:  # fmt: skip
    """Return each answer's score by a judge that was fitted without its group (a system, or a question).

    rows: as `OfflineJudge.rate` takes them. Raises InputError on fewer than two groups.
    """
    from cuadft.offline import OfflineJudge, read

    groups, y, scores = np.asarray(groups), np.asarray(verdicts, dtype=float), np.full(len(rows), np.nan)
    if len(set(groups)) < 2:
        raise InputError(f"Got {len(set(groups))} group to leave out: give at least two, such as two systems.")
    evidence = read(rows, embedder)
    for group in dict.fromkeys(groups):
        inside, outside = np.flatnonzero(groups == group), np.flatnonzero(groups != group)
        judge = OfflineJudge(embedder, weights=fit_rows([evidence[i] for i in outside], y[outside]))
        scores[inside] = judge.rate([rows[i] for i in inside])["judge_score"]
    return scores


def record(rows: Sequence[Mapping[str, Any]], verdicts: Sequence[float], *, fitted_to: str, embedder: Any) -> dict[str, Any]:
    """Return what `calibration.json` holds: both sets of weights, and their agreement with verdicts left out of the fit."""
    from cuadft.offline import read

    made: dict[str, Any] = {"fitted_to": fitted_to, "systems": list(dict.fromkeys(r["system"] for r in rows)), "n": len(rows)}
    for suffix, with_embedder in (("", None), ("_with_embedding", embedder)):
        made["weights" + suffix] = fit_rows(read(rows, with_embedder), verdicts)
        for group in ("system", "question"):
            scores = held_out(rows, verdicts, [row[group] for row in rows], embedder=with_embedder)
            made[f"without_the_{group}{suffix}"] = _agreement(scores, np.asarray(verdicts), [row["system"] for row in rows])
    return made


def _agreement(scores: np.ndarray, verdicts: np.ndarray, systems: Sequence[str]) -> dict[str, Any]:
    """Return the agreement over all rows and within each system; kappa is Cohen's, both cut at 0.5."""
    parts = {"all": np.full(len(scores), True)} | {s: np.asarray(systems) == s for s in dict.fromkeys(systems)}
    return {name: _one_agreement(scores[part], verdicts[part]) for name, part in parts.items()}


def _one_agreement(scores: np.ndarray, verdicts: np.ndarray) -> dict[str, Any]:
    from scipy.stats import spearmanr
    from sklearn.metrics import cohen_kappa_score

    error = scores - verdicts
    found = {"spearman": spearmanr(scores, verdicts).statistic, "kappa": cohen_kappa_score(scores >= 0.5, verdicts >= 0.5),
             "error_of_the_mean": error.mean(), "mean_absolute_error": abs(error).mean()}  # fmt: skip
    return {"n": len(error)} | {name: round(float(value), 3) for name, value in found.items()}


def main(folder: str) -> None:
    """Fit the judge to a folder of published answers and verdicts, and write `calibration.json` into the package."""
    from cuadft import files, models, pooled, published
    from cuadft.embedder import Embedder

    rows = [r for r in pooled.join(published.read(folder).files).predictions if "judge_score" in r["verdicts"]]
    embedder = Embedder(models.find("sentence-transformers/all-MiniLM-L6-v2"), cache_dir=models.cache_dir())
    verdicts = [r["verdicts"]["judge_score"] for r in rows]
    files.write_json(Path(__file__).with_name("calibration.json"), record(rows, verdicts, fitted_to=SOURCE, embedder=embedder))


if __name__ == "__main__":
    main(sys.argv[1])
