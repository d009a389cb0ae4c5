"""Compare two runs, such as with and without generated questions: paired differences on the same test questions.

    compare_runs("runs/without", "runs/with")  # the second run (b) less the first (a)

Each run is one training: the intervals say what other contracts could change, not what another seed could.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core import runs
from cuadft.core.errors import InputError
from cuadft.core.runs import Iteration
from cuadft.data import rows
from cuadft.evaluation.bootstrap import check_resampling
from cuadft.evaluation.compare import holm, paired_deltas
from cuadft.evaluation.metrics import score_predictions
from cuadft.evaluation.results import read_with_seeds
from cuadft.loop.criteria import mean_of

KS = (1, 3)  # passages found
RETRIEVAL_METRICS = tuple(f"{metric}@{k}" for metric in ("hit", "char_recall") for k in KS)
ANSWER_METRICS = ("quote_f1", "detection_f1", "f1_answerable", "f1_no_clause")
SEED = 7  # of the bootstrap


def compare_runs(
    run_a: str | Path, run_b: str | Path, *, iteration: int = 1, n_resamples: int = 2000, confidence: float = 0.95
) -> pd.DataFrame:
    """Return one row per system and metric that both runs have, b minus a on the test split of an iteration.

    Columns: system (a retriever of metrics/retrieval.csv, or a system that answered), metric, a, b (means), value, low,
    high, n, n_contracts, p, p_holm (corrected over all rows that are not zero throughout) and detectable (as
    `compare.paired_deltas`). Raises InputError if nothing can be compared, and as `compare.paired_delta`.
    """
    check_resampling(n_resamples, confidence)
    a, b = (Iteration(runs.resolve_path(run), iteration) for run in (run_a, run_b))
    settings = {"n_resamples": n_resamples, "seed": SEED, "confidence": confidence}
    parts = [
        _part_deltas(scores_of(a), scores_of(b), metrics, **settings)
        for scores_of, metrics in ((_retrieval_scores, RETRIEVAL_METRICS), (_answer_scores, ANSWER_METRICS))
    ]
    table = pd.concat(parts, ignore_index=True)
    if table.empty:
        raise InputError(f"Nothing to compare in {a.dir} and {b.dir}: neither retrieval nor answers are in both.")
    same = (table["low"] == 0) & (table["high"] == 0)
    return table.assign(p_holm=table["p"].where(same, holm(table["p"].mask(same))))


def _part_deltas(one: pd.DataFrame, two: pd.DataFrame, metrics: Sequence[str], **settings: Any) -> pd.DataFrame:
    """Return the paired differences of every system that both frames have."""
    frame = pd.concat([one.assign(system="A " + one["system"]), two.assign(system="B " + two["system"])])
    parts = dict(list(frame.groupby("system", sort=False)))
    pairs = [(f"A {system}", f"B {system}") for system in one["system"].unique() if f"B {system}" in parts]
    table = paired_deltas(frame, pairs, metrics=metrics, **settings).query("n > 0")
    for place, (side, name) in enumerate((("a", "baseline"), ("b", "system"))):
        means = [mean_of(parts[key], metric) for key, metric in zip(table[name], table["metric"])]
        table.insert(4 + place, side, means)
    return table.assign(system=table["system"].str[2:]).drop(columns=["split", "baseline"])


def _retrieval_scores(iteration: Iteration) -> pd.DataFrame:
    """Return one row per retriever and test question with its hit@k and char_recall@k, from notebook 02's records."""
    path = iteration.path("metrics", "retrieval.csv")
    if not path.is_file():
        raise InputError(f"{path} is missing: run that iteration until rag_compile at least.")
    records = pd.read_csv(path, dtype={"id": str, "contract": str, "retriever": str}, keep_default_na=False)
    held_out = rows.split_titles(rows.contract_records(iteration.run, iteration.number), "test")
    records = records[records["contract"].isin(held_out) & records["k"].isin(KS)]
    wide = records.pivot(index=["retriever", "id", "contract"], columns="k", values=["hit", "char_recall"])
    wide.columns = [f"{metric}@{k}" for metric, k in wide.columns]
    return wide.astype(float).reset_index().rename(columns={"retriever": "system"}).assign(split="test")


def _answer_scores(iteration: Iteration) -> pd.DataFrame:
    """Return the scored rows of the test predictions that are complete."""
    predictions, _ = read_with_seeds(iteration, seed=0)
    test = [row for row in predictions if row["split"] == "test"]
    return score_predictions(test) if test else pd.DataFrame(columns=["system", "split"])
