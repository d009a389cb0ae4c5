"""Draw scores: systems beside each other, their differences, categories, what a search finds, and a training's loss.

    panels_figure(board)        metrics of every system, with intervals        board = make_scoreboard(frame)
    deltas_figure(table)        paired differences against zero                table = paired_deltas(frame, pairs)
    heatmap_figure(table)       one metric by category and system              table = score_breakdown(frame)
    retrieval_figure(curve)     hits and recall of each retriever at k
    search_figure(table)        prompt tokens and recall of each setting of the search
    loss_figure(log_history)    a trainer's loss against the step

Each function returns a Figure and neither saves nor shows it. A system keeps its colour and marker in every figure.
Thin lines are intervals; a value without an interval has no line.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cuadft.core.text import shorten
from cuadft.evaluation.answer_files import count_of
from cuadft.evaluation.figures import style
from cuadft.evaluation.metrics import HEADLINE

PANELS = (*HEADLINE, "false_answer", "false_refusal")  # what `panels_figure` shows unless told otherwise
GROUP_LABELS = {"category": "Category", "contract_type": "Contract type"}
RECALL_LABELS = {"char_recall": "Gold characters retrieved", "hit": "Questions with a gold passage"}
LOSS_LINES = {"loss": ("train", style.BLUE, ".-"), "eval_loss": ("dev", style.VERMILION, "o--")}
# what a search ranks by -> colour, marker
RANKED_BY = {"words": (style.GREY, "o"), "embeddings": (style.ORANGE, "^"), "classifier": (style.BLUE, "s")}


def panels_figure(
    scoreboard: pd.DataFrame,
    metrics: Sequence[str] = PANELS,
    split: str = "test",
    *,
    confidence: float = 0.95,
    unit: str = "contract",
    detectable: pd.DataFrame | None = None,
) -> style.Figure:
    """Return one metric or several of every system on one split, two panels to a row: dot, interval and value.

    scoreboard: from `make_scoreboard`; with several seeds a bracket under the interval is their spread. confidence:
    the level that it was made with, named on the axis. unit: what it resampled, "contract" or "question". detectable:
    the table of `paired_deltas`; the difference that it could detect is printed under the figure. Raises InputError if
    the scoreboard holds rows, but no row of a metric on this split.
    """
    parts = [style.rows_of_metric(scoreboard, metric, split) for metric in metrics]
    systems = list(dict.fromkeys(system for rows in parts for system in rows["system"]))
    n_rows, n_columns = math.ceil(len(metrics) / 2), min(2, len(metrics))
    height = 1.45 + 0.3 * max(3, len(systems))
    figure = style.Figure((5 if n_columns == 1 else 8) + style.width_for(systems), n_rows * height)
    if not len(scoreboard):
        return style.empty_figure(figure)
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
    for axes, metric, rows in zip(grid, metrics, parts, strict=False):
        style.interval_dots(axes, rows.set_index("system").reindex(systems).reset_index(), systems)
        least = "" if detectable is None else _least_difference(detectable, metric, split)
        basis = style.interval_basis(rows, confidence, unit)
        basis = basis.replace("; ", ";\n") if n_columns > 1 else basis  # beside each other, long lines would meet
        axes.set_xlabel(f"{style.metric_label(metric)}\n{basis}{least}")
    for axes in grid[len(metrics) :]:
        axes.remove()
    if detectable is not None:
        style.foot_note(figure, "Differences that cannot be told apart: at 80% power, paired by question.")
    return figure


def _least_difference(deltas: pd.DataFrame, metric: str, split: str) -> str:
    """Return a line on the smallest difference that the questions at hand can show; "" without deltas of the metric."""
    table = deltas[(deltas["metric"] == metric) & (deltas["split"] == split)]
    values = table["detectable"][table["detectable"] > 0]  # NaN: one contract; 0: two systems that score alike
    size = " to ".join(dict.fromkeys(f"{value:.3f}" for value in (values.min(), values.max())))
    return f"\ncannot be told apart: below {size if len(values) else 'an unknown size'}" if len(table) else ""


def deltas_figure(
    table: pd.DataFrame, metric: str = "quote_f1", *, confidence: float = 0.95, unit: str = "contract"
) -> style.Figure:
    """Return paired differences against zero: solid where they stand Holm's correction, hollow where they do not.

    table: from `paired_deltas`, one split; its rows of one metric are the family that was corrected. A grey band holds
    the differences that are too small to be found with these questions.
    """
    rows = table[table["metric"] == metric]
    labels = [f"{row.system} − {row.baseline}" for row in rows.itertuples()]
    figure = style.Figure(5.4 + style.width_for(labels), 1.5 + 0.34 * max(2, len(rows)))
    if not len(rows):
        return style.empty_figure(figure)
    axes, tested = figure.subplots(), int(rows["p_holm"].notna().sum())
    solid = list(rows["p_holm"] < 1 - confidence)
    notes = ["" if math.isnan(p) else "  p < 0.001" if p < 0.001 else f"  p = {p:.3f}" for p in rows["p_holm"]]
    style.interval_dots(axes, rows, labels, signed=True, filled=solid, notes=notes)
    for y, least in enumerate(rows["detectable"].fillna(0)):
        axes.fill_betweenx([y - 0.38, y + 0.38], -least, least, color="0.92", linewidth=0, zorder=0)
    axes.axvline(0, color=style.GREY, linewidth=1, zorder=0.5)
    axes.set_xlabel(f"Difference: {style.metric_label(metric)}\n{style.interval_basis(rows, confidence, unit)}")
    style.foot_note(
        figure,
        f"Solid: p < {1 - confidence:.3g} after Holm's correction for {count_of(tested, 'comparison')}; hollow: not, "
        "or not tested. Grey: differences too small to be told apart here (80% power).",
    )
    return figure


def heatmap_figure(table: pd.DataFrame, split: str = "test") -> style.Figure:
    """Return the heat map of one metric: value and number of questions (small) in each cell, bright is better.

    table: from `score_breakdown`, by "category" or "contract_type". A cell of fewer than `FEW` questions, or of one
    contract, is pale and its text grey, so that it does not catch the eye first. A dash marks cells to which the metric
    does not apply; groups of such cells alone are left out.
    """
    by = next((g for g in GROUP_LABELS if g in table), "category")
    rows = style.rows_of_metric(table, table["metric"].iloc[0], split) if len(table) else table
    systems, cells = list(rows["system"].unique()), rows[rows["n"] > 0].dropna(subset="value")
    groups = sorted(cells[by].unique(), key=lambda name: (name == "", name))
    figure = style.Figure(4.1 + 0.82 * len(systems), 1.8 + 0.21 * max(5, len(groups)))
    if not groups:
        return style.empty_figure(figure)
    colours = style.value_colours(cells["value"], cells["metric"].iloc[0])
    cells = cells.assign(x=cells["system"].map(systems.index), y=cells[by].map(groups.index))
    sizes = {name: [style.count_range(part[n]) for n in ("n", "n_contracts")] for name, part in cells.groupby(by)}
    lines = [f"{shorten(name, 38) or '(unknown)'}   {' / '.join(sizes[name])}" for name in groups]
    columns, note = [shorten(name, 24) for name in systems], "Small number: questions of the cell."
    axes = style.heatmap(figure, cells, colours, note, lines=lines, columns=columns)
    axes.tick_params(axis="x", rotation=30)
    for label in axes.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")
    figure.suptitle(style.metric_label(cells["metric"].iloc[0]), fontsize=9)
    axes.set_ylabel(f"{GROUP_LABELS[by]}\n(questions / contracts)")
    return figure


def retrieval_figure(curve: pd.DataFrame) -> style.Figure:
    """Return hit rate and character recall of each retriever against k, the number of passages retrieved.

    curve: columns retriever, k, hit, char_recall (both shares, 0 to 1).
    """
    figure = style.Figure(7, 3)
    if not len(curve):
        return style.empty_figure(figure)
    both, looks = figure.subplots(1, 2), itertools.cycle([*style.SYSTEM_STYLE.values()][2:])  # without the greys
    for (name, part), look in zip(curve.sort_values("k", kind="stable").groupby("retriever", sort=False), looks):
        for axes, column in zip(both, ("hit", "char_recall"), strict=True):
            axes.plot(part["k"], part[column], label=name, markersize=5, **look)
            axes.set(xlabel="Passages retrieved, k", ylabel=f"{RECALL_LABELS[column]} (share)", ylim=(0, 1.03))
            axes.set_xticks(sorted(curve["k"].unique()))
    style.legend_above(figure, both[0], columns=5)
    style.plain_axes(*both)
    return figure


def search_figure(table: Sequence[Mapping[str, Any]], *, budget: int) -> style.Figure:
    """Return char_recall and hit of each setting of the search against the prompt tokens that its passages cost.

    table: one setting a row, from `retrieval.measure.search_table`, the chosen one first (ringed). budget: prompt
    tokens that the passages may cost, drawn as a dashed line. Colour and marker tell what a setting ranks by: words
    only, embeddings as well, or the clause classifier as well.
    """
    figure = style.Figure(7, 3.2)
    if not len(table):
        return style.empty_figure(figure)
    rows, both = pd.DataFrame(list(table)), figure.subplots(1, 2)
    by_words = np.where(rows["mode"] == "bm25", "words", "embeddings")
    ranked_by = np.where(rows["classifier_weight"] > 0, "classifier", by_words)
    ring = {"markersize": 11, "markerfacecolor": "none", "color": style.VERMILION, "markeredgewidth": 1.6}
    for axes, (column, label) in zip(both, RECALL_LABELS.items(), strict=True):
        for name, (color, marker) in RANKED_BY.items():
            part = rows[ranked_by == name]
            axes.plot(part["prompt_tokens"], part[column], marker, color=color, markersize=4, alpha=0.7, label=name)
        axes.plot(rows["prompt_tokens"].iloc[:1], rows[column].iloc[:1], "o", label="chosen", **ring)
        axes.axvline(budget, color="0.5", linestyle="--", linewidth=1)
        axes.set(xlabel="Prompt tokens of the passages, mean", ylabel=f"{label} (share)", ylim=(0, 1.03))
        axes.set_xlim(0, 1.05 * max(rows["prompt_tokens"].max(), budget))
    style.legend_above(figure, both[0])
    style.plain_axes(*both)
    return figure


def loss_figure(log_history: Sequence[Mapping[str, Any]], *, unit: str = "nats per token") -> style.Figure:
    """Return the training loss and, if it was logged, the loss on the dev split against the optimiser step.

    log_history: a trainer's. unit: of the loss.
    """
    figure = style.Figure()
    axes, log = figure.subplots(), pd.DataFrame(list(log_history)).reindex(columns=["step", "loss", "eval_loss"])
    for key, (label, color, look) in LOSS_LINES.items():
        points = log.dropna(subset=["step", key])
        if len(points):
            axes.plot(points["step"], points[key], look, label=label, color=color)
    if not axes.lines:
        return style.empty_figure(figure)
    axes.set(xlabel="Optimiser step", ylabel=f"Loss ({unit})")
    axes.legend(frameon=False, fontsize=8)
    style.plain_axes(axes)
    return figure
