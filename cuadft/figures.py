"""Draw the project's figures: data frame or log in, matplotlib Figure out; nothing is saved or shown.

A Figure from here shows itself as the last line of a notebook cell; `figure.savefig(path)` writes it. A
system keeps its colour and marker in every figure. Thin lines are intervals over contracts; a value without
one has no line.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cuadft.drawing import (
    BLUE,
    GREEN,
    GREY,
    SYSTEM_STYLE,
    VERMILION,
    Figure,
    basis,
    dots,
    empty,
    line,
    metric_label,
    plain,
    span,
    styles,
    width_for,
)
from cuadft.errors import InputError

__all__ = [
    "SYSTEM_STYLE", "Figure", "benchmark", "category_table", "deltas", "loss_curve", "panels", "retrieval",
    "reward_margins", "styles",
]  # fmt: skip
PANELS = ("f1", "f1_answerable", "false_answer", "false_refusal")


def benchmark(
    scoreboard: pd.DataFrame, metric: str = "f1", split: str = "test", *, confidence: float = 0.95
) -> Figure:
    """Return one metric of every system on one split: a dot, its interval and its value.

    scoreboard: from `metrics.scoreboard`; confidence: the level that it was made with (named on the axis).
    """
    return panels(scoreboard, (metric,), split, confidence=confidence)


def panels(
    scoreboard: pd.DataFrame,
    metrics: Sequence[str] = PANELS,
    split: str = "test",
    *,
    confidence: float = 0.95,
) -> Figure:
    """Return several metrics of every system on one split, two to a row: what a better mean is made of.

    Raises InputError if the scoreboard holds rows, but none of a metric on this split.
    """
    parts = [_select(scoreboard, metric, split) for metric in metrics]
    n_rows, n_columns = math.ceil(len(metrics) / 2), min(2, len(metrics))
    height = 0.9 + 0.3 * max(3, *(len(rows) for rows in parts))
    systems = list(parts[0]["system"])
    figure = Figure((5 if n_columns == 1 else 8) + width_for(systems), n_rows * height)
    if not len(scoreboard):
        return empty(figure)
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
    for axes, metric, rows in zip(grid, metrics, parts, strict=False):
        dots(axes, rows.set_index("system").reindex(systems).reset_index(), systems)
        axes.set_xlabel(f"{metric_label(metric)}\n{basis(rows, confidence)}")
    for axes in grid[len(metrics) :]:
        axes.remove()
    return figure


def _select(scoreboard: pd.DataFrame, metric: str, split: str) -> pd.DataFrame:
    rows = scoreboard[(scoreboard["metric"] == metric) & (scoreboard["split"] == split)]
    if len(scoreboard) and not len(rows):
        known = sorted(
            {f"{m} on {s}" for m, s in zip(scoreboard["metric"], scoreboard["split"], strict=True)}
        )
        raise InputError(
            f"The scoreboard has no {metric!r} on split {split!r}: choose from {', '.join(known)}."
        )
    return rows


def deltas(table: pd.DataFrame, metric: str = "f1", *, confidence: float = 0.95) -> Figure:
    """Return paired differences against zero: an interval that holds zero leaves the sign open.

    table: from `stats.paired_deltas`, one split.
    """
    rows = table[table["metric"] == metric]
    labels = [f"{row.system} − {row.baseline}" for row in rows.itertuples()]
    figure = Figure(5 + width_for(labels), 1.0 + 0.34 * max(2, len(rows)))
    if not len(rows):
        return empty(figure)
    axes = figure.subplots()
    dots(axes, rows, labels, signed=True)
    axes.axvline(0, color=GREY, linewidth=1, zorder=0)
    axes.set_xlabel(f"Difference: {metric_label(metric)}\n{basis(rows, confidence)}")
    return figure


def category_table(table: pd.DataFrame, split: str = "test") -> Figure:
    """Return one metric by category (with its number of questions) and system as a heat map.

    table: from `metrics.by_category`; a dash marks cells to which the metric does not apply.
    """
    rows = table[(table["split"] == split) & (table["n"] > 0)]
    systems, categories = list(rows["system"].unique()), sorted(rows["category"].unique())
    figure = Figure(3.4 + 0.65 * max(2, len(systems)), 1.3 + 0.2 * max(8, len(categories)))
    if not categories:
        return empty(figure)
    axes = figure.subplots()
    cells = rows.pivot(index="category", columns="system", values="value").reindex(
        categories, columns=systems
    )
    image = axes.imshow(cells, vmin=0, vmax=max(1.0, rows["value"].max()), cmap="cividis", aspect="auto")
    for y, values in enumerate(cells.to_numpy()):
        for x, value in enumerate(values):
            text, dark = ("–", False) if math.isnan(value) else (f"{value:.2f}", image.norm(value) < 0.5)
            axes.text(x, y, text, ha="center", va="center", fontsize=7, color="white" if dark else "black")
    counts = [span(rows[rows["category"] == category]["n"]) for category in categories]
    axes.set_yticks(range(len(categories)), [f"{c} ({n})" for c, n in zip(categories, counts, strict=True)])
    axes.set_xticks(range(len(systems)), systems, rotation=30, ha="right", rotation_mode="anchor")
    axes.set_ylabel("Category (number of questions)")
    axes.set_xlabel(metric_label(rows["metric"].iloc[0]))
    figure.colorbar(image, ax=axes, shrink=0.6, aspect=30).ax.tick_params(labelsize=7)
    plain(axes)
    return figure


def loss_curve(log_history: Sequence[Mapping[str, Any]]) -> Figure:
    """Return training (and, if logged, evaluation) loss against the step; log_history: a TRL trainer's."""
    figure = Figure()
    axes = figure.subplots()
    drawn = line(axes, log_history, "loss", label="train", color=BLUE, linestyle="-", marker=".")
    drawn += line(axes, log_history, "eval_loss", label="dev", color=VERMILION, linestyle="--", marker="o")
    if not drawn:
        return empty(figure)
    axes.set(xlabel="Optimiser step", ylabel="Loss (nats per token)")
    axes.legend(frameon=False, fontsize=8)
    plain(axes)
    return figure


def reward_margins(log_history: Sequence[Mapping[str, Any]]) -> Figure:
    """Return the reward margin and accuracy of chosen over rejected answers against the step (DPO, ORPO)."""
    figure = Figure(5, 4)
    top, bottom = figure.subplots(2, 1, sharex=True)
    style = {"color": GREEN, "marker": "o", "markersize": 3}
    drawn = line(top, log_history, "rewards/margins", **style)
    drawn += line(bottom, log_history, "rewards/accuracies", **style)
    if not drawn:
        return empty(figure)
    top.axhline(0, color=GREY, linewidth=1, zorder=0)
    bottom.axhline(0.5, color=GREY, linewidth=1, zorder=0)
    top.set_ylabel("Reward margin\n(chosen − rejected)")
    bottom.set(xlabel="Optimiser step", ylabel="Share of pairs\nranked right", ylim=(-0.05, 1.05))
    plain(top, bottom)
    return figure


def retrieval(curve: pd.DataFrame) -> Figure:
    """Return hit rate and character recall at k (curve: columns retriever, k, hit, char_recall)."""
    figure = Figure(7, 3)
    if not len(curve):
        return empty(figure)
    both = figure.subplots(1, 2)
    for name, style in styles(list(curve["retriever"].unique())).items():
        part = curve[curve["retriever"] == name].sort_values("k")
        for axes, column in zip(both, ("hit", "char_recall"), strict=True):
            axes.plot(part["k"], part[column], label=name, markersize=5, **style)
    for axes, label in zip(both, ("Questions with a gold passage", "Gold characters retrieved"), strict=True):
        axes.set(xlabel="Passages retrieved, k", ylabel=f"{label} (share)", ylim=(0, 1.03))
        axes.set_xticks(sorted(curve["k"].unique()))
    figure.legend(
        *both[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=8
    )
    plain(*both)
    return figure
