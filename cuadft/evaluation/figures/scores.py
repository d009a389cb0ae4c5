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

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.patches import Rectangle

from cuadft.core.errors import InputError
from cuadft.evaluation.excerpts import shorten
from cuadft.evaluation.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    SYSTEM_STYLE,
    VERMILION,
    WEAK_CELL_WIDTH,
    Figure,
    count_range,
    empty_figure,
    foot_note,
    interval_basis,
    interval_dots,
    legend_above,
    log_line,
    metric_label,
    needs_columns,
    plain_axes,
    rows_of_metric,
    sample_size,
    system_styles,
    text_colour,
    value_colours,
    weak_cells,
    width_for,
)
from cuadft.evaluation.metrics import HEADLINE, METRICS

PANELS = (*HEADLINE, "false_answer", "false_refusal")  # what `panels_figure` shows unless told otherwise
UNKNOWN_SIZE = "an unknown size"  # of the smallest difference that can be told apart
GROUP_LABELS = {"category": "Category", "contract_type": "Contract type"}
RECALL_LABELS = {"char_recall": "Gold characters retrieved", "hit": "Questions with a gold passage"}
RANKED_BY = {"words": (GREY, "o"), "embeddings": (ORANGE, "^"), "classifier": (BLUE, "s")}  # -> colour, marker


def benchmark_figure(
    scoreboard: pd.DataFrame,
    metric: str = "quote_f1",
    split: str = "test",
    *,
    confidence: float = 0.95,
    unit: str = "contract",
    detectable: pd.DataFrame | None = None,
) -> Figure:
    """Return one metric of every system on one split: a dot, its interval and its value.

    scoreboard: from `make_scoreboard`; with several seeds a bracket under the interval is their spread. confidence:
    the level that it was made with, named on the axis. unit: what it resampled, "contract" or "question". detectable:
    the table of `paired_deltas`; the difference that it could detect is printed under the figure. Raises InputError if
    the scoreboard holds rows, but no row of the metric on this split.
    """
    return panels_figure(scoreboard, (metric,), split, confidence=confidence, unit=unit, detectable=detectable)


def panels_figure(
    scoreboard: pd.DataFrame,
    metrics: Sequence[str] = PANELS,
    split: str = "test",
    *,
    confidence: float = 0.95,
    unit: str = "contract",
    detectable: pd.DataFrame | None = None,
) -> Figure:
    """Return several metrics of every system on one split, two panels to a row: what a better mean is made of.

    Arguments and errors as in `benchmark_figure`.
    """
    parts = [rows_of_metric(scoreboard, metric, split) for metric in metrics]
    systems = list(dict.fromkeys(system for rows in parts for system in rows["system"]))
    n_rows, n_columns = math.ceil(len(metrics) / 2), min(2, len(metrics))
    height = 1.1 + 0.3 * max(3, len(systems))
    figure = Figure((5 if n_columns == 1 else 8) + width_for(systems), n_rows * height)
    if not len(scoreboard):
        return empty_figure(figure)
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
    least = [_least_difference(detectable, metric, split) for metric in metrics]
    for axes, metric, rows, size in zip(grid, metrics, parts, least, strict=False):
        interval_dots(axes, rows.set_index("system").reindex(systems).reset_index(), systems)
        below = f"\ncannot be told apart: below {size}" if size and len(metrics) > 1 else ""
        axes.set_xlabel(f"{metric_label(metric)}\n{interval_basis(rows, confidence, unit)}{below}")
    for axes in grid[len(metrics) :]:
        axes.remove()
    if any(least) and len(metrics) > 1:
        foot_note(figure, "Differences that cannot be told apart: at 80% power, paired by question.")
    elif any(least):
        basis = f"80% power, paired by question, {sample_size(parts[0], unit, ' on ')}"
        foot_note(figure, f"{_least_sentence(least[0])} ({basis}).")
    return figure


def _least_difference(deltas: pd.DataFrame | None, metric: str, split: str) -> str:
    """Return the smallest difference that the questions at hand can show, in words; "" without deltas of the metric."""
    if deltas is None:
        return ""
    table = needs_columns(deltas, "paired_deltas", "split", "metric", "detectable")
    values = table[(table["metric"] == metric) & (table["split"] == split)]["detectable"]
    if not len(values):
        return ""
    values = values[values > 0]  # NaN: one contract; 0: two systems that score alike on every question
    if not len(values):
        return UNKNOWN_SIZE
    low, high = (f"{v:.{2 if v >= 0.01 else 3}f}" for v in (values.min(), values.max()))
    return low if low == high else f"{low} to {high} (by pair)"


def _least_sentence(least: str) -> str:
    if least == UNKNOWN_SIZE:
        return "How large a difference must be to be told apart here is unknown"
    return f"Differences below about {least} cannot be told apart here"


def deltas_figure(
    table: pd.DataFrame, metric: str = "quote_f1", *, confidence: float = 0.95, unit: str = "contract"
) -> Figure:
    """Return paired differences against zero: solid where they stand Holm's correction, hollow where they do not.

    table: from `paired_deltas`, one split; its rows of one metric are the family that was corrected. A grey band holds
    the differences that are too small to be found with these questions.
    """
    rows = needs_columns(table, "paired_deltas", "p_holm", "detectable")[table["metric"] == metric]
    labels = [f"{row.system} − {row.baseline}" for row in rows.itertuples()]
    figure = Figure(5.4 + width_for(labels), 1.5 + 0.34 * max(2, len(rows)))
    if not len(rows):
        return empty_figure(figure)
    axes = figure.subplots()
    solid, notes = list(rows["p_holm"] < 1 - confidence), [_p_value_text(p) for p in rows["p_holm"]]
    interval_dots(axes, rows, labels, signed=True, filled=solid, notes=notes)
    for y, least in enumerate(rows["detectable"]):
        if least > 0:
            axes.fill_betweenx([y - 0.38, y + 0.38], -least, least, color="0.92", linewidth=0, zorder=0)
    axes.axvline(0, color=GREY, linewidth=1, zorder=0.5)
    axes.set_xlabel(f"Difference: {metric_label(metric)}\n{interval_basis(rows, confidence, unit)}")
    foot_note(figure, _deltas_note(rows, confidence))
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


def heatmap_figure(table: pd.DataFrame, split: str = "test", *, few: int = 5) -> Figure:
    """Return the heat map of one metric: value and number of questions (small) in each cell, bright is better.

    table: from `score_breakdown`, by "category" or "contract_type". few: a cell of fewer questions, or of one contract,
    is weak: only its edge is coloured and its text is grey, so that it does not catch the eye first. A dash marks cells
    to which the metric does not apply; groups of such cells alone are left out. Raises InputError on a table of several
    metrics or without a column to group by.
    """
    by = next((g for g in GROUP_LABELS if g in table), "category")
    needs_columns(table, "score_breakdown", by, "system", "metric", "value", "n", "n_contracts")
    if table["metric"].nunique() > 1:
        raise InputError(f"The table holds {', '.join(table['metric'].unique())}: pass the rows of one metric.")
    rows = rows_of_metric(table, table["metric"].iloc[0], split) if len(table) else table
    systems = list(rows["system"].unique())
    rows = rows[rows["n"] > 0]
    groups = sorted(rows[by].unique(), key=lambda name: (name == "", name))
    figure = Figure(4.1 + 0.82 * len(systems), 1.8 + 0.21 * max(5, len(groups)))
    if not groups:
        return empty_figure(figure)
    axes, metric, weak = figure.subplots(), rows["metric"].iloc[0], weak_cells(rows, few)
    colours = _score_colours(rows["value"], higher_is_better=METRICS.get(metric, ("", True))[1])
    _draw_grid(axes, rows.assign(group=rows[by], weak=weak), groups, systems, colours)
    axes.set_yticks(range(len(groups)), [_group_label(name, rows[rows[by] == name]) for name in groups])
    names = [shorten(name, 24) for name in systems]
    axes.set_xticks(range(len(systems)), names, rotation=30, ha="right", rotation_mode="anchor")
    figure.suptitle(metric_label(metric), fontsize=9)
    axes.set_ylabel(f"{GROUP_LABELS[by]}\n(questions / contracts)")
    bar = figure.colorbar(colours, ax=axes, aspect=30, shrink=min(1.0, 10 / len(groups)), pad=0.02)
    bar.ax.tick_params(labelsize=7)
    plain_axes(axes)
    axes.tick_params(length=0)
    explained = f" Coloured edge and grey text: fewer than {few} questions, or one contract." if any(weak) else ""
    foot_note(figure, f"Small number: questions of the cell.{explained}")
    return figure


def _score_colours(values: pd.Series, *, higher_is_better: bool) -> ScalarMappable:
    """Return the map from value to colour, 0 to 1 (or the largest value beyond), bright where it is better."""
    return value_colours(0, max(1.0, values.max()), higher_is_better=higher_is_better)


def _draw_grid(axes: Axes, cells: pd.DataFrame, groups: list[str], systems: list[str], colours: ScalarMappable) -> None:
    """Draw the cells (columns group, system, value, n, weak), and a dash where a cell is missing or has no value."""
    cells = {(row.group, row.system): row for row in cells.itertuples()}
    for y, group in enumerate(groups):
        for x, system in enumerate(systems):
            cell = cells.get((group, system))
            if cell is None or math.isnan(cell.value):
                axes.text(x, y, "–", ha="center", va="center", fontsize=7, color="0.35")
            else:
                _draw_cell(axes, x, y, cell, colours.to_rgba(cell.value))
    axes.set(xlim=(-0.5, len(systems) - 0.5), ylim=(len(groups) - 0.5, -0.5))


def _draw_cell(axes: Axes, x: int, y: int, cell: Any, colour: tuple[float, ...]) -> None:
    width = WEAK_CELL_WIDTH if cell.weak else 1.0
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), width, 1, facecolor=colour, edgecolor="white", linewidth=0.8))
    ink = "0.4" if cell.weak else text_colour(colour)
    axes.text(x + 0.08, y, f"{cell.value:.2f}", ha="right", va="center", fontsize=7.5, color=ink)
    axes.text(x + 0.46, y, str(int(cell.n)), ha="right", va="center", fontsize=6, color=ink)


def _group_label(name: str, rows: pd.DataFrame) -> str:
    return f"{shorten(name, 38) or '(unknown)'}   {count_range(rows['n'])} / {count_range(rows['n_contracts'])}"


def retrieval_figure(curve: pd.DataFrame) -> Figure:
    """Return hit rate and character recall of each retriever against k, the number of passages retrieved.

    curve: columns retriever, k, hit, char_recall (both shares, 0 to 1).
    """
    figure = Figure(7, 3)
    if not len(curve):
        return empty_figure(figure)
    both = figure.subplots(1, 2)
    names = list(curve["retriever"].unique())
    looks = list(SYSTEM_STYLE.values()) if len(names) <= len(SYSTEM_STYLE) else list(system_styles(names).values())
    for name, style in zip(names, looks):
        part = curve[curve["retriever"] == name].sort_values("k")
        for axes, column in zip(both, ("hit", "char_recall"), strict=True):
            axes.plot(part["k"], part[column], label=name, markersize=5, **style)
    for axes, column in zip(both, ("hit", "char_recall"), strict=True):
        axes.set(xlabel="Passages retrieved, k", ylabel=f"{RECALL_LABELS[column]} (share)", ylim=(0, 1.03))
        axes.set_xticks(sorted(curve["k"].unique()))
    legend_above(figure, both[0], columns=5)
    plain_axes(*both)
    return figure


def search_figure(table: Sequence[Mapping[str, Any]], *, budget: int) -> Figure:
    """Return char_recall and hit of each setting of the search against the prompt tokens that its passages cost.

    table: one setting a row, from `retrieval.measure.search_table`, the chosen one first. budget: prompt tokens that
    the passages may cost, drawn as a dashed line. Colour and marker tell what a setting ranks by: words only,
    embeddings as well, or the clause classifier as well. The solid line joins the settings that are best for their
    tokens.
    """
    figure = Figure(7, 3.2)
    if not len(table):
        return empty_figure(figure)
    rows = pd.DataFrame(list(table))
    rows["ranked_by"] = [_ranked_by(row) for row in table]
    both = figure.subplots(1, 2)
    ring = {"markersize": 11, "markerfacecolor": "none", "color": VERMILION, "markeredgewidth": 1.6}
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
    legend_above(figure, both[0], columns=4)
    plain_axes(*both)
    return figure


def _ranked_by(row: Mapping[str, Any]) -> str:
    if row["classifier_weight"]:
        return "classifier"
    return "words" if row["mode"] == "bm25" else "embeddings"


def _best_for_tokens(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the settings that no other one beats with as few tokens, by tokens."""
    ordered = rows.sort_values(["prompt_tokens", column], ascending=[True, False])
    return ordered[ordered[column] > ordered[column].cummax().shift(fill_value=-1.0)]


def loss_figure(log_history: Sequence[Mapping[str, Any]], *, unit: str = "nats per token") -> Figure:
    """Return the training loss and, if it was logged, the loss on the dev split against the optimiser step.

    log_history: a trainer's. unit: of the loss.
    """
    figure = Figure()
    axes = figure.subplots()
    drawn = log_line(axes, log_history, "loss", label="train", color=BLUE, linestyle="-", marker=".")
    drawn += log_line(axes, log_history, "eval_loss", label="dev", color=VERMILION, linestyle="--", marker="o")
    if not drawn:
        return empty_figure(figure)
    axes.set(xlabel="Optimiser step", ylabel=f"Loss ({unit})")
    axes.legend(frameon=False, fontsize=8)
    plain_axes(axes)
    return figure
