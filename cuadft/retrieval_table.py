"""Compare retrievers on one split: a record per question, means with intervals, and whether a new one is better."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from cuadft import compare, stats
from cuadft.errors import InputError
from cuadft.retrieval import evaluate

if TYPE_CHECKING:
    from cuadft.contracts import Row
    from cuadft.retriever import Retriever

SHARES = ("hit", "char_recall")


def measure(retrievers: Mapping[str, Retriever], rows: Sequence[Row], ks: Sequence[int], *, split: str) -> pd.DataFrame:
    """Return the records of `retrieval.evaluate` for each named retriever, with columns retriever and split.

    Each question is searched in its own contract. No row where no question is answerable.
    """
    asked = [row for row in rows if row["answers"]]
    made = [
        pd.DataFrame(evaluate(retriever, asked, sorted(set(ks)))).assign(retriever=name, split=split)
        for name, retriever in retrievers.items() if asked
    ]  # fmt: skip
    columns = ["id", "contract", "category", "k", "hit", "char_recall", "char_precision", "retriever", "split"]
    return pd.concat(made)[columns] if made else pd.DataFrame(columns=columns)


def intervals(records: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 7, confidence: float = 0.95) -> pd.DataFrame:
    """Return one row per retriever and k: n, n_contracts and, as text, hit and char_recall with their intervals.

    Intervals resample contracts, as `stats.cluster_bootstrap`.
    """
    table = []
    for (retriever, k), own in records.groupby(["retriever", "k"], sort=False):
        row: dict[str, Any] = {"retriever": retriever, "k": k}
        for name in SHARES:
            found = stats.cluster_bootstrap(own[name], own["contract"], share=True, seed=seed, n_resamples=n_resamples,
                                            confidence=confidence)  # fmt: skip
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        table.append(row | {"n": found.n, "n_contracts": found.n_clusters})
    return pd.DataFrame(table)


def as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Return the intervals as one cell per measure, retrievers as rows and k beside: what a reader compares."""
    shown = table[["retriever", "k"]].copy()
    for name in SHARES:
        low, high = f"{name}_low", f"{name}_high"
        shown[name] = [f"{row[name]:.3f} [{row[low]:.3f}, {row[high]:.3f}]" for row in table.to_dict("records")]
    wide = shown.pivot(index="retriever", columns="k", values=list(SHARES))
    wide.columns = [f"{name}@{k}" for name, k in wide.columns]
    return wide.reindex(table["retriever"].drop_duplicates())


def decide(old: Retriever, old_k: int, new: Retriever, new_k: int, rows: Sequence[Row], *, n_resamples: int = 2000,
           seed: int = 7, confidence: float = 0.95) -> dict[str, Any]:  # fmt: skip
    """Decide on dev rows whether a new retriever replaces the promoted one: {"promoted", "delta", "reason"}.

    Both send their own number of passages. The rule is that of the gate's clause of improvement: the paired interval of
    the difference in char_recall must lie above zero. Raises InputError if no row is answerable.
    """
    if not any(row["answers"] for row in rows):
        raise InputError("No answerable dev row to decide on: raise dev_rows or dev_contracts")
    frames = [measure({"it": it}, rows, [k], split="dev") for it, k in ((old, old_k), (new, new_k))]
    delta = compare.paired_delta(*frames, metric="char_recall", n_resamples=n_resamples, seed=seed, confidence=confidence)
    better = bool(delta.low > 0)
    bounds = (f"{confidence:.0%} interval [{delta.low:+.3f}, {delta.high:+.3f}]" if delta.low == delta.low else
              f"too few contracts to test ({delta.n_clusters}): raise dev_contracts")  # fmt: skip
    reason = (f"{'promoted' if better else 'kept'}: the new retriever against the promoted one on dev: "
              f"{delta.value:+.3f} char_recall, {bounds}")  # fmt: skip
    return {"promoted": better, "delta": stats.as_columns(delta), "reason": reason}
