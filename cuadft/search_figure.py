"""Draw what the passages of a prompt cost and what gold text they bring: one dot per setting of the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cuadft.drawing import BLUE, GREY, ORANGE, VERMILION, Figure, empty, plain

LABELS = {"char_recall": "Gold characters retrieved", "hit": "Questions with a gold passage"}
KINDS = {"words": GREY, "embeddings": ORANGE, "classifier": BLUE}


def search(table: Sequence[Mapping[str, Any]], *, budget: int) -> Figure:
    """Return char_recall and hit against prompt tokens; table: from `retrieval.search_table`, the chosen setting first.

    Colour and marker tell what a setting ranks by: words only, embeddings as well, or the clause classifier as well.
    The line joins the best settings for their tokens, the dashed one is the budget.
    """
    figure = Figure(7, 3.2)
    if not len(table):
        return empty(figure)
    rows = pd.DataFrame(list(table))
    rows["kind"] = [_kind(row) for row in table]
    both = figure.subplots(1, 2)
    for axes, (column, label) in zip(both, LABELS.items(), strict=True):
        for (kind, color), marker in zip(KINDS.items(), "o^s"):
            part = rows[rows["kind"] == kind]
            axes.plot(part["prompt_tokens"], part[column], marker, color=color, markersize=4, alpha=0.7, label=kind)
        front = _front(rows, column)
        axes.plot(front["prompt_tokens"], front[column], color="0.4", linewidth=1, zorder=0)
        axes.plot(rows["prompt_tokens"].iloc[:1], rows[column].iloc[:1], "o", markersize=11, markerfacecolor="none",
                  color=VERMILION, markeredgewidth=1.6, label="chosen")  # fmt: skip
        axes.axvline(budget, color="0.5", linestyle="--", linewidth=1)
        axes.set(xlabel="Prompt tokens of the passages, mean", ylabel=f"{label} (share)", ylim=(0, 1.03))
        axes.set_xlim(0, 1.05 * max(rows["prompt_tokens"].max(), budget))
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    plain(*both)
    return figure


def _kind(row: Mapping[str, Any]) -> str:
    return "classifier" if row["classifier_weight"] else "words" if row["mode"] == "bm25" else "embeddings"


def _front(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the settings that no other one beats with as few tokens, by tokens."""
    ordered = rows.sort_values(["prompt_tokens", column], ascending=[True, False])
    return ordered[ordered[column] > ordered[column].cummax().shift(fill_value=-1.0)]
