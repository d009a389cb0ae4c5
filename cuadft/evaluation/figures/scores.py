"""Draw scores: systems beside each other, their differences, categories, what a search finds, and a training's loss.

    benchmark_figure(board)     one metric of every system, with intervals     board = make_scoreboard(frame)
    panels_figure(board)        several metrics of every system
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
from matplotlib.cm import ScalarMappable

from cuadft.core.errors import InputError
from cuadft.evaluation.excerpts import shorten
from cuadft.evaluation.figures import style
from cuadft.evaluation.metrics import HEADLINE, METRICS

PANELS = (*HEADLINE, "false_answer", "false_refusal")  # what `panels_figure` shows unless told otherwise
UNKNOWN_SIZE = "an unknown size"  # of the smallest difference that can be told apart
GROUP_LABELS = {"category": "Category", "contract_type": "Contract type"}
RECALL_LABELS = {"char_recall": "Gold characters retrieved", "hit": "Questions with a gold passage"}
# what a search ranks by -> colour, marker
RANKED_BY = {"words": (style.GREY, "o"), "embeddings": (style.ORANGE, "^"), "classifier": (style.BLUE, "s")}


def benchmark_figure(
    scoreboard: pd.DataFrame, metric: str = "quote_f1", split: str = "test", **options: Any
) -> style.Figure:
    """Return one metric of every system on one split: a dot, its interval and its value.

    options and errors: as of `panels_figure`.
    """
    return panels_figure(scoreboard, (metric,), split, **options)


def panels_figure(
    scoreboard: pd.DataFrame,
    metrics: Sequence[str] = PANELS,
    split: str = "test",
    *,
    confidence: float = 0.95,
    unit: str = "contract",
    detectable: pd.DataFrame | None = None,
) -> style.Figure:
    """Return several metrics of every system on one split, two panels to a row: what a better mean is made of.

    scoreboard: from `make_scoreboard`; with several seeds a bracket under the interval is their spread. confidence:
    the level that it was made with, named on the axis. unit: what it resampled, "contract" or "question". detectable:
    the table of `paired_deltas`; the difference that it could detect is printed under the figure. Raises InputError if
    the scoreboard holds rows, but no row of a metric on this split.
    """
    parts = [style.rows_of_metric(scoreboard, metric, split) for metric in metrics]
    systems = list(dict.fromkeys(system for rows in parts for system in rows["system"]))
    n_rows, n_columns = math.ceil(len(metrics) / 2), min(2, len(metrics))
    height = 1.1 + 0.3 * max(3, len(systems))
    figure = style.Figure((5 if n_columns == 1 else 8) + style.width_for(systems), n_rows * height)
    if not len(scoreboard):
        return style.empty_figure(figure)
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
    least = [_least_difference(detectable, metric, split) for metric in metrics]
    for axes, metric, rows, size in zip(grid, metrics, parts, least, strict=False):
        style.interval_dots(axes, rows.set_index("system").reindex(systems).reset_index(), systems)
        below = f"\ncannot be told apart: below {size}" if size and len(metrics) > 1 else ""
        axes.set_xlabel(f"{style.metric_label(metric)}\n{style.interval_basis(rows, confidence, unit)}{below}")
    for axes in grid[len(metrics) :]:
        axes.remove()
    if any(least) and len(metrics) > 1:
        style.foot_note(figure, "Differences that cannot be told apart: at 80% power, paired by question.")
    elif any(least):
        basis = f"80% power, paired by question, {style.sample_size(parts[0], unit, ' on ')}"
        style.foot_note(figure, f"{_least_sentence(least[0])} ({basis}).")
    return figure


def _least_difference(deltas: pd.DataFrame | None, metric: str, split: str) -> str:
    """Return the smallest difference that the questions at hand can show, in words; "" without deltas of the metric."""
    if deltas is None:
        return ""
    table = style.needs_columns(deltas, "paired_deltas", "split", "metric", "detectable")
    table = table[(table["metric"] == metric) & (table["split"] == split)]
    values = table["detectable"][table["detectable"] > 0]  # NaN: one contract; 0: two systems that score alike
    if not len(values):
        return UNKNOWN_SIZE if len(table) else ""
    low, high = (f"{v:.{2 if v >= 0.01 else 3}f}" for v in (values.min(), values.max()))
    return low if low == high else f"{low} to {high} (by pair)"


def _least_sentence(least: str) -> str:
    if least == UNKNOWN_SIZE:
        return "How large a difference must be to be told apart here is unknown"
    return f"Differences below about {least} cannot be told apart here"


def deltas_figure(
    table: pd.DataFrame, metric: str = "quote_f1", *, confidence: float = 0.95, unit: str = "contract"
) -> style.Figure:
    """Return paired differences against zero: solid where they stand Holm's correction, hollow where they do not.

    table: from `paired_deltas`, one split; its rows of one metric are the family that was corrected. A grey band holds
    the differences that are too small to be found with these questions.
    """
    rows = style.needs_columns(table, "paired_deltas", "p_holm", "detectable")[table["metric"] == metric]
    labels = [f"{row.system} − {row.baseline}" for row in rows.itertuples()]
    figure = style.Figure(5.4 + style.width_for(labels), 1.5 + 0.34 * max(2, len(rows)))
    if not len(rows):
        return style.empty_figure(figure)
    axes = figure.subplots()
    solid, notes = list(rows["p_holm"] < 1 - confidence), [_p_value_text(p) for p in rows["p_holm"]]
    style.interval_dots(axes, rows, labels, signed=True, filled=solid, notes=notes)
    for y, least in enumerate(rows["detectable"]):
        if least > 0:
            axes.fill_betweenx([y - 0.38, y + 0.38], -least, least, color="0.92", linewidth=0, zorder=0)
    axes.axvline(0, color=style.GREY, linewidth=1, zorder=0.5)
    axes.set_xlabel(f"Difference: {style.metric_label(metric)}\n{style.interval_basis(rows, confidence, unit)}")
    style.foot_note(figure, _deltas_note(rows, confidence))
    return figure


def _deltas_note(rows: pd.DataFrame, confidence: float) -> str:
    """Return what solid and hollow dots and the grey band mean."""
    tested = int(rows["p_holm"].notna().sum())
    if not tested:
        return "Hollow: no test can be made of one contract."
    comparisons = "1 comparison" if tested == 1 else f"{tested} comparisons"
    note = f"Solid: p < {1 - confidence:.3g} after Holm's correction for {comparisons}; hollow: not."
    if any(rows["detectable"] > 0):
        note += " Grey: differences too small to be told apart here (80% power)."
    return note


def _p_value_text(p: float) -> str:
    if math.isnan(p):
        return ""
    return "  p < 0.001" if p < 0.001 else f"  p = {p:.3f}"


def heatmap_figure(table: pd.DataFrame, split: str = "test") -> style.Figure:
    """Return the heat map of one metric: value and number of questions (small) in each cell, bright is better.

    table: from `score_breakdown`, by "category" or "contract_type". A cell of fewer than `FEW` questions, or of one
    contract, is weak: only its edge is coloured and its text is grey, so that it does not catch the eye first. A dash
    marks cells to which the metric does not apply; groups of such cells alone are left out. Raises InputError on a
    table of several metrics or without a column to group by.
    """
    by = next((g for g in GROUP_LABELS if g in table), "category")
    style.needs_columns(table, "score_breakdown", by, "system", "metric", "value", "n", "n_contracts")
    if table["metric"].nunique() > 1:
        raise InputError(f"The table holds {', '.join(table['metric'].unique())}: pass the rows of one metric.")
    rows = style.rows_of_metric(table, table["metric"].iloc[0], split) if len(table) else table
    systems = list(rows["system"].unique())
    rows = rows[rows["n"] > 0].assign(weak=style.weak_cells)
    groups = sorted(rows[by].unique(), key=lambda name: (name == "", name))
    figure = style.Figure(4.1 + 0.82 * len(systems), 1.8 + 0.21 * max(5, len(groups)))
    if not groups:
        return style.empty_figure(figure)
    axes, metric = figure.subplots(), rows["metric"].iloc[0]
    colours = _score_colours(rows["value"], higher_is_better=METRICS.get(metric, ("", True))[1])
    cells = {(getattr(row, by), row.system): row for row in rows.itertuples() if not math.isnan(row.value)}
    for (y, group), (x, system) in itertools.product(enumerate(groups), enumerate(systems)):
        if (group, system) in cells:
            style.heat_cell(axes, x, y, cells[group, system], colours)
        else:
            axes.text(x, y, "–", ha="center", va="center", fontsize=7, color="0.35")
    axes.set_yticks(range(len(groups)), [_group_label(name, rows[rows[by] == name]) for name in groups])
    names = [shorten(name, 24) for name in systems]
    axes.set_xticks(range(len(systems)), names, rotation=30, ha="right", rotation_mode="anchor")
    figure.suptitle(style.metric_label(metric), fontsize=9)
    axes.set_ylabel(f"{GROUP_LABELS[by]}\n(questions / contracts)")
    style.finish_heatmap(figure, axes, colours, rows, "Small number: questions of the cell.")
    return figure


def _score_colours(values: pd.Series, *, higher_is_better: bool) -> ScalarMappable:
    """Return the map from value to colour, 0 to 1 (or the largest value beyond), bright where it is better."""
    return style.value_colours(0, max(1.0, values.max()), higher_is_better=higher_is_better)


def _group_label(name: str, rows: pd.DataFrame) -> str:
    questions, contracts = (style.count_range(rows[column]) for column in ("n", "n_contracts"))
    return f"{shorten(name, 38) or '(unknown)'}   {questions} / {contracts}"


def retrieval_figure(curve: pd.DataFrame) -> style.Figure:
    """Return hit rate and character recall of each retriever against k, the number of passages retrieved.

    curve: columns retriever, k, hit, char_recall (both shares, 0 to 1).
    """
    figure = style.Figure(7, 3)
    if not len(curve):
        return style.empty_figure(figure)
    both, names = figure.subplots(1, 2), list(curve["retriever"].unique())
    looks = style.SYSTEM_STYLE if len(names) <= len(style.SYSTEM_STYLE) else style.system_styles(names)
    for axes, column in zip(both, ("hit", "char_recall"), strict=True):
        for name, look in zip(names, looks.values()):
            part = curve[curve["retriever"] == name].sort_values("k")
            axes.plot(part["k"], part[column], label=name, markersize=5, **look)
        axes.set(xlabel="Passages retrieved, k", ylabel=f"{RECALL_LABELS[column]} (share)", ylim=(0, 1.03))
        axes.set_xticks(sorted(curve["k"].unique()))
    style.legend_above(figure, both[0], columns=5)
    style.plain_axes(*both)
    return figure


def search_figure(table: Sequence[Mapping[str, Any]], *, budget: int) -> style.Figure:
    """Return char_recall and hit of each setting of the search against the prompt tokens that its passages cost.

    table: one setting a row, from `retrieval.measure.search_table`, the chosen one first. budget: prompt tokens that
    the passages may cost, drawn as a dashed line. Colour and marker tell what a setting ranks by: words only,
    embeddings as well, or the clause classifier as well. The solid line joins the settings that are best for their
    tokens.
    """
    figure = style.Figure(7, 3.2)
    if not len(table):
        return style.empty_figure(figure)
    rows, both = pd.DataFrame(list(table)), figure.subplots(1, 2)
    by_words = np.where(rows["mode"] == "bm25", "words", "embeddings")
    rows["ranked_by"] = np.where(rows["classifier_weight"] > 0, "classifier", by_words)
    ring = {"markersize": 11, "markerfacecolor": "none", "color": style.VERMILION, "markeredgewidth": 1.6}
    for axes, (column, label) in zip(both, RECALL_LABELS.items(), strict=True):
        for name, (color, marker) in RANKED_BY.items():
            part = rows[rows["ranked_by"] == name]
            axes.plot(part["prompt_tokens"], part[column], marker, color=color, markersize=4, alpha=0.7, label=name)
        best = _best_for_tokens(rows, column)
        axes.plot(best["prompt_tokens"], best[column], color="0.4", linewidth=1, zorder=0)
        axes.plot(rows["prompt_tokens"].iloc[:1], rows[column].iloc[:1], "o", label="chosen", **ring)
        axes.axvline(budget, color="0.5", linestyle="--", linewidth=1)
        axes.set(xlabel="Prompt tokens of the passages, mean", ylabel=f"{label} (share)", ylim=(0, 1.03))
        axes.set_xlim(0, 1.05 * max(rows["prompt_tokens"].max(), budget))
    style.legend_above(figure, both[0], columns=4)
    style.plain_axes(*both)
    return figure


def _best_for_tokens(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the settings that no other one beats with as few tokens, by tokens."""
    ordered = rows.sort_values(["prompt_tokens", column], ascending=[True, False])
    return ordered[ordered[column] > ordered[column].cummax().shift(fill_value=-1.0)]


def loss_figure(log_history: Sequence[Mapping[str, Any]], *, unit: str = "nats per token") -> style.Figure:
    """Return the training loss and, if it was logged, the loss on the dev split against the optimiser step.

    log_history: a trainer's. unit: of the loss.
    """
    figure = style.Figure()
    axes, drawn = (
        figure.subplots(),
        {"loss": ("train", style.BLUE, "-", "."), "eval_loss": ("dev", style.VERMILION, "--", "o")},
    )
    for key, (label, color, line, marker) in drawn.items():
        points = [(entry["step"], entry[key]) for entry in log_history if key in entry and "step" in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, color=color, linestyle=line, marker=marker)
    if not axes.lines:
        return style.empty_figure(figure)
    axes.set(xlabel="Optimiser step", ylabel=f"Loss ({unit})")
    axes.legend(frameon=False, fontsize=8)
    style.plain_axes(axes)
    return figure
