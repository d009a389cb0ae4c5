"""Draw the project's figures: data frame or log in, matplotlib Figure out; nothing is saved or shown.

A Figure from here shows itself as the last line of a notebook cell; `figure.savefig(path)` writes it. A
system keeps its colour and marker in every figure. Thin lines are intervals; a value without one has no line.
The heat map of categories and contract types is in `heatmap`, the worst answers are in `worst`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cuadft.drawing import (
    BLUE,
    GREY,
    SYSTEM_STYLE,
    VERMILION,
    Figure,
    basis,
    dots,
    empty,
    foot,
    line,
    metric_label,
    needs,
    plain,
    select,
    size,
    styles,
    width_for,
)

__all__ = [
    "SYSTEM_STYLE", "Figure", "benchmark", "deltas", "loss_curve", "panels", "retrieval", "styles",
]  # fmt: skip
UNKNOWN, UNTOLD = "an unknown size", "How large a difference must be to be told apart here is unknown"
PANELS = ("f1", "f1_answerable", "false_answer", "false_refusal")


def benchmark(scoreboard: pd.DataFrame, metric: str = "f1", split: str = "test", *, confidence: float = 0.95,
              unit: str = "contract", detectable: pd.DataFrame | None = None) -> Figure:
    """Return one metric of every system on one split: a dot, its interval and its value.

    scoreboard: from `scoreboard.scoreboard`; with several seeds a bracket under the interval is their spread.
    confidence: the level that it was made with (named on the axis); unit: what it resampled, "contract" or
    "question".
    detectable: the table of `compare.paired_deltas`, whose minimum detectable difference is printed under the figure.
    """
    return panels(scoreboard, (metric,), split, confidence=confidence, unit=unit, detectable=detectable)


def panels(scoreboard: pd.DataFrame, metrics: Sequence[str] = PANELS, split: str = "test", *,
           confidence: float = 0.95, unit: str = "contract", detectable: pd.DataFrame | None = None) -> Figure:
    """Return several metrics of every system on one split, two to a row: what a better mean is made of.

    Arguments as in `benchmark`. Raises InputError if the scoreboard holds rows, but none of a metric on this split.
    """
    parts = [select(scoreboard, metric, split) for metric in metrics]
    systems = list(dict.fromkeys(system for rows in parts for system in rows["system"]))
    n_rows, n_columns = math.ceil(len(metrics) / 2), min(2, len(metrics))
    height = 1.1 + 0.3 * max(3, len(systems))
    figure = Figure((5 if n_columns == 1 else 8) + width_for(systems), n_rows * height)
    if not len(scoreboard):
        return empty(figure)
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
    for axes, metric, rows in zip(grid, metrics, parts, strict=False):
        dots(axes, rows.set_index("system").reindex(systems).reset_index(), systems)
        least = _least(detectable, metric, split)
        if least and len(metrics) == 1:
            told = f"Differences below about {least} cannot be told apart here" if least != UNKNOWN else UNTOLD
            foot(figure, f"{told} (80% power, paired by question, {size(rows, unit, ' on ')}).")
        elif least:
            foot(figure, "Differences that cannot be told apart: at 80% power, paired by question.")
        below = f"\ncannot be told apart: below {least}" if least and len(metrics) > 1 else ""
        axes.set_xlabel(f"{metric_label(metric)}\n{basis(rows, confidence, unit)}{below}")
    for axes in grid[len(metrics):]:
        axes.remove()
    return figure


def _least(deltas: pd.DataFrame | None, metric: str, split: str) -> str:
    """Return the smallest difference that the questions at hand can show, in words; "" where none is given."""
    if deltas is None:
        return ""
    table = needs(deltas, "paired_deltas", "split", "metric", "detectable")
    values = table[(table["metric"] == metric) & (table["split"] == split)]["detectable"]
    if not len(values):
        return ""
    values = values[values > 0]  # NaN: one contract; 0: two systems that score alike on every question
    if not len(values):
        return UNKNOWN
    low, high = (f"{v:.{2 if v >= 0.01 else 3}f}" for v in (values.min(), values.max()))
    return low if low == high else f"{low} to {high} (by pair)"


def deltas(table: pd.DataFrame, metric: str = "f1", *, confidence: float = 0.95, unit: str = "contract") -> Figure:
    """Return paired differences against zero: solid where they stand Holm's correction, hollow where they do not.

    table: from `compare.paired_deltas`, one split; its rows of one metric are the family that was corrected. A grey
    band holds the differences that are too small to be found with these questions.
    """
    rows = needs(table, "paired_deltas", "p_holm", "detectable")[table["metric"] == metric]
    labels = [f"{row.system} − {row.baseline}" for row in rows.itertuples()]
    figure = Figure(5.4 + width_for(labels), 1.5 + 0.34 * max(2, len(rows)))
    if not len(rows):
        return empty(figure)
    axes = figure.subplots()
    dots(axes, rows, labels, signed=True, filled=list(rows["p_holm"] < 1 - confidence),
         notes=[_p_value(p) for p in rows["p_holm"]])
    for y, least in enumerate(rows["detectable"]):
        if least > 0:
            axes.fill_betweenx([y - 0.38, y + 0.38], -least, least, color="0.92", linewidth=0, zorder=0)
    axes.axvline(0, color=GREY, linewidth=1, zorder=0.5)
    axes.set_xlabel(f"Difference: {metric_label(metric)}\n{basis(rows, confidence, unit)}")
    tested = int(rows["p_holm"].notna().sum())
    family = f"p < {1 - confidence:.3g} after Holm's correction for {tested} comparison{'s' * (tested != 1)}"
    band = " Grey: differences too small to be told apart here (80% power)." * any(rows["detectable"] > 0)
    foot(figure, f"Solid: {family}; hollow: not.{band}" if tested else "Hollow: no test can be made of one contract.")
    return figure


def _p_value(p: float) -> str:
    return "" if math.isnan(p) else "  p < 0.001" if p < 0.001 else f"  p = {p:.3f}"


def loss_curve(log_history: Sequence[Mapping[str, Any]], *, unit: str = "nats per token") -> Figure:
    """Return training (and, if logged, evaluation) loss against the step; log_history: a trainer's, unit: of the loss."""
    figure = Figure()
    axes = figure.subplots()
    drawn = line(axes, log_history, "loss", label="train", color=BLUE, linestyle="-", marker=".")
    drawn += line(axes, log_history, "eval_loss", label="dev", color=VERMILION, linestyle="--", marker="o")
    if not drawn:
        return empty(figure)
    axes.set(xlabel="Optimiser step", ylabel=f"Loss ({unit})")
    axes.legend(frameon=False, fontsize=8)
    plain(axes)
    return figure


def retrieval(curve: pd.DataFrame) -> Figure:
    """Return hit rate and character recall at k (curve: columns retriever, k, hit, char_recall)."""
    figure = Figure(7, 3)
    if not len(curve):
        return empty(figure)
    both = figure.subplots(1, 2)
    names = list(curve["retriever"].unique())
    looks = list(SYSTEM_STYLE.values()) if len(names) <= len(SYSTEM_STYLE) else list(styles(names).values())
    for name, style in zip(names, looks):
        part = curve[curve["retriever"] == name].sort_values("k")
        for axes, column in zip(both, ("hit", "char_recall"), strict=True):
            axes.plot(part["k"], part[column], label=name, markersize=5, **style)
    for axes, label in zip(both, ("Questions with a gold passage", "Gold characters retrieved"), strict=True):
        axes.set(xlabel="Passages retrieved, k", ylabel=f"{label} (share)", ylim=(0, 1.03))
        axes.set_xticks(sorted(curve["k"].unique()))
    figure.legend(
        *both[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False, fontsize=8
    )
    plain(*both)
    return figure
