"""Draw the project's figures: data frame or log in, matplotlib Figure out; nothing is saved or shown.

A Figure from here shows itself as the last line of a notebook cell; `figure.savefig(path)` writes it. A
system keeps its colour and marker in every figure. Thin lines are intervals; a value without one has no line.
The heat map of categories and contract types is in `heatmap`, the worst answers are in `worst`.

Draw one metric by category or contract type and system as a heat map with its numbers of questions.

    table = scoreboard.breakdown(frame, by="category", metric="f1")
    heatmap.draw(table)

Most cells of such a table rest on few questions: these are drawn weak, so that they do not catch the eye first.

Draw what the passages of a prompt cost and what gold text they bring: one dot per setting of the search.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from cuadft.core.errors import InputError
from cuadft.evaluation.excerpts import shorten
from cuadft.evaluation.figures.style import (
    BLUE,
    GREY,
    ORANGE,
    SYSTEM_STYLE,
    VERMILION,
    Figure,
    empty_figure,
    figure_size,
    foot_note,
    interval_basis,
    interval_dots,
    log_line,
    metric_label,
    needs_columns,
    plain_axes,
    rows_of_metric,
    span,
    system_styles,
    width_for,
)
from cuadft.evaluation.metrics import METRICS

UNKNOWN, UNTOLD = "an unknown size", "How large a difference must be to be told apart here is unknown"
PANELS = ("f1", "f1_answerable", "false_answer", "false_refusal")


def benchmark_figure(
    scoreboard: pd.DataFrame,
    metric: str = "f1",
    split: str = "test",
    *,
    confidence: float = 0.95,
    unit: str = "contract",
    detectable: pd.DataFrame | None = None,
) -> Figure:
    """Return one metric of every system on one split: a dot, its interval and its value.

    scoreboard: from `scoreboard.scoreboard`; with several seeds a bracket under the interval is their spread.
    confidence: the level that it was made with (named on the axis); unit: what it resampled, "contract" or
    "question".
    detectable: the table of `compare.paired_deltas`, whose minimum detectable difference is printed under the figure.
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
    """Return several metrics of every system on one split, two to a row: what a better mean is made of.

    Arguments as in `benchmark`. Raises InputError if the scoreboard holds rows, but none of a metric on this split.
    """
    parts = [rows_of_metric(scoreboard, metric, split) for metric in metrics]
    systems = list(dict.fromkeys(system for rows in parts for system in rows["system"]))
    n_rows, n_columns = math.ceil(len(metrics) / 2), min(2, len(metrics))
    height = 1.1 + 0.3 * max(3, len(systems))
    figure = Figure((5 if n_columns == 1 else 8) + width_for(systems), n_rows * height)
    if not len(scoreboard):
        return empty_figure(figure)
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharey=True).ravel()
    for axes, metric, rows in zip(grid, metrics, parts, strict=False):
        interval_dots(axes, rows.set_index("system").reindex(systems).reset_index(), systems)
        least = _least(detectable, metric, split)
        if least and len(metrics) == 1:
            told = f"Differences below about {least} cannot be told apart here" if least != UNKNOWN else UNTOLD
            foot_note(figure, f"{told} (80% power, paired by question, {figure_size(rows, unit, ' on ')}).")
        elif least:
            foot_note(figure, "Differences that cannot be told apart: at 80% power, paired by question.")
        below = f"\ncannot be told apart: below {least}" if least and len(metrics) > 1 else ""
        axes.set_xlabel(f"{metric_label(metric)}\n{interval_basis(rows, confidence, unit)}{below}")
    for axes in grid[len(metrics) :]:
        axes.remove()
    return figure


def _least(deltas: pd.DataFrame | None, metric: str, split: str) -> str:
    """Return the smallest difference that the questions at hand can show, in words; "" where none is given."""
    if deltas is None:
        return ""
    table = needs_columns(deltas, "paired_deltas", "split", "metric", "detectable")
    values = table[(table["metric"] == metric) & (table["split"] == split)]["detectable"]
    if not len(values):
        return ""
    values = values[values > 0]  # NaN: one contract; 0: two systems that score alike on every question
    if not len(values):
        return UNKNOWN
    low, high = (f"{v:.{2 if v >= 0.01 else 3}f}" for v in (values.min(), values.max()))
    return low if low == high else f"{low} to {high} (by pair)"


def deltas_figure(
    table: pd.DataFrame, metric: str = "f1", *, confidence: float = 0.95, unit: str = "contract"
) -> Figure:
    """Return paired differences against zero: solid where they stand Holm's correction, hollow where they do not.

    table: from `compare.paired_deltas`, one split; its rows of one metric are the family that was corrected. A grey
    band holds the differences that are too small to be found with these questions.
    """
    rows = needs_columns(table, "paired_deltas", "p_holm", "detectable")[table["metric"] == metric]
    labels = [f"{row.system} − {row.baseline}" for row in rows.itertuples()]
    figure = Figure(5.4 + width_for(labels), 1.5 + 0.34 * max(2, len(rows)))
    if not len(rows):
        return empty_figure(figure)
    axes = figure.subplots()
    interval_dots(
        axes,
        rows,
        labels,
        signed=True,
        filled=list(rows["p_holm"] < 1 - confidence),
        notes=[_p_value(p) for p in rows["p_holm"]],
    )
    for y, least in enumerate(rows["detectable"]):
        if least > 0:
            axes.fill_betweenx([y - 0.38, y + 0.38], -least, least, color="0.92", linewidth=0, zorder=0)
    axes.axvline(0, color=GREY, linewidth=1, zorder=0.5)
    axes.set_xlabel(f"Difference: {metric_label(metric)}\n{interval_basis(rows, confidence, unit)}")
    tested = int(rows["p_holm"].notna().sum())
    family = f"p < {1 - confidence:.3g} after Holm's correction for {tested} comparison{'s' * (tested != 1)}"
    band = " Grey: differences too small to be told apart here (80% power)." * any(rows["detectable"] > 0)
    foot_note(
        figure, f"Solid: {family}; hollow: not.{band}" if tested else "Hollow: no test can be made of one contract."
    )
    return figure


def _p_value(p: float) -> str:
    return "" if math.isnan(p) else "  p < 0.001" if p < 0.001 else f"  p = {p:.3f}"


def loss_figure(log_history: Sequence[Mapping[str, Any]], *, unit: str = "nats per token") -> Figure:
    """Return training (and, if logged, evaluation) loss against the step; log_history: a trainer's, unit: of the loss."""
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


def retrieval_figure(curve: pd.DataFrame) -> Figure:
    """Return hit rate and character recall at k (curve: columns retriever, k, hit, char_recall)."""
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
    for axes, label in zip(both, ("Questions with a gold passage", "Gold characters retrieved"), strict=True):
        axes.set(xlabel="Passages retrieved, k", ylabel=f"{label} (share)", ylim=(0, 1.03))
        axes.set_xticks(sorted(curve["k"].unique()))
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside upper center", ncols=5, frameon=False, fontsize=8)
    plain_axes(*both)
    return figure


GROUPS = {"category": "Category", "contract_type": "Contract type"}
COLOURS = "cividis"  # even steps in lightness, so that it prints in grey too; Nunez et al. (2018), PLoS ONE 13(7)
WEAK = 0.17  # share of a weak cell's width that is coloured


def heatmap_figure(table: pd.DataFrame, split: str = "test", *, few: int = 5) -> Figure:
    """Return the heat map of one metric: value and number of questions (small) in each cell, bright is better.

    table: from `scoreboard.breakdown`, by "category" or "contract_type"; few: a cell of fewer questions, or of one
    contract, is weak, with only its edge coloured and grey text. A dash marks cells to which the metric does not
    apply; groups without any other cell are left out. Raises InputError on a table of several metrics or without
    a column to group by.
    """
    by = next((g for g in GROUPS if g in table), "category")
    needs_columns(table, "scoreboard.breakdown", by, "system", "metric", "value", "n", "n_contracts")
    if table["metric"].nunique() > 1:
        raise InputError(f"The table holds {', '.join(table['metric'].unique())}: pass the rows of one metric.")
    rows = rows_of_metric(table, table["metric"].iloc[0], split) if len(table) else table
    systems = list(rows["system"].unique())
    rows = rows[rows["n"] > 0]
    groups = sorted(rows[by].unique(), key=lambda name: (name == "", name))
    figure = Figure(4.1 + 0.82 * len(systems), 1.8 + 0.21 * max(5, len(groups)))
    if not groups:
        return empty_figure(figure)
    axes = figure.subplots()
    metric = rows["metric"].iloc[0]
    colours = _colours(rows["value"], higher_is_better=METRICS.get(metric, ("", True))[1])
    _grid(axes, rows.assign(group=rows[by], weak=_weak(rows, few)), groups, systems, colours)
    axes.set_yticks(range(len(groups)), [_row_label(name, rows[rows[by] == name]) for name in groups])
    names = [shorten(name, 24) for name in systems]
    axes.set_xticks(range(len(systems)), names, rotation=30, ha="right", rotation_mode="anchor")
    figure.suptitle(metric_label(metric), fontsize=9)
    axes.set_ylabel(f"{GROUPS[by]}\n(questions / contracts)")
    bar = figure.colorbar(colours, ax=axes, aspect=30, shrink=min(1.0, 10 / len(groups)), pad=0.02)
    bar.ax.tick_params(labelsize=7)
    plain_axes(axes)
    axes.tick_params(length=0)
    weak = f" Coloured edge and grey text: fewer than {few} questions, or one contract."
    foot_note(figure, f"Small number: questions of the cell.{weak * any(_weak(rows, few))}")
    return figure


def _weak(rows: pd.DataFrame, few: int) -> pd.Series:
    return (rows["n"] < few) | (rows["n_contracts"] < 2)


def _colours(values: pd.Series, *, higher_is_better: bool) -> ScalarMappable:
    """Return the map from value to colour, 0 to 1 (or the largest value beyond), bright where it is better."""
    top = max(1.0, values.max())
    return ScalarMappable(Normalize(0, top), COLOURS if higher_is_better else f"{COLOURS}_r")


def _grid(axes: Axes, cells: pd.DataFrame, groups: list[str], systems: list[str], colours: ScalarMappable) -> None:
    """Draw the cells (columns group, system, value, n, weak), a dash where there is none."""
    cells = {(row.group, row.system): row for row in cells.itertuples()}
    for y, group in enumerate(groups):
        for x, system in enumerate(systems):
            cell = cells.get((group, system))
            if cell is None or math.isnan(cell.value):
                axes.text(x, y, "–", ha="center", va="center", fontsize=7, color="0.35")
            else:
                _cell(axes, x, y, cell.value, int(cell.n), colours.to_rgba(cell.value), weak=cell.weak)
    axes.set(xlim=(-0.5, len(systems) - 0.5), ylim=(len(groups) - 0.5, -0.5))


def _cell(axes: Axes, x: int, y: int, value: float, n: int, colour: tuple[float, ...], *, weak: bool) -> None:
    width = WEAK if weak else 1.0
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), width, 1, facecolor=colour, edgecolor="white", linewidth=0.8))
    ink = "0.4" if weak else text_colour(colour)
    axes.text(x + 0.08, y, f"{value:.2f}", ha="right", va="center", fontsize=7.5, color=ink)
    axes.text(x + 0.46, y, str(n), ha="right", va="center", fontsize=6, color=ink)


def text_colour(background: tuple[float, ...]) -> str:
    """Return "black" or "white", whichever has more contrast on an RGB colour (WCAG 2.1, relative luminance)."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3]]
    luminance = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"


def _row_label(name: str, rows: pd.DataFrame) -> str:
    return f"{shorten(name, 38) or '(unknown)'}   {span(rows['n'])} / {span(rows['n_contracts'])}"


LABELS = {"char_recall": "Gold characters retrieved", "hit": "Questions with a gold passage"}
KINDS = {"words": GREY, "embeddings": ORANGE, "classifier": BLUE}


def search_figure(table: Sequence[Mapping[str, Any]], *, budget: int) -> Figure:
    """Return char_recall and hit against prompt tokens; table: from `retrieval.search_table`, the chosen setting first.

    Colour and marker tell what a setting ranks by: words only, embeddings as well, or the clause classifier as well.
    The line joins the best settings for their tokens, the dashed one is the budget.
    """
    figure = Figure(7, 3.2)
    if not len(table):
        return empty_figure(figure)
    rows = pd.DataFrame(list(table))
    rows["kind"] = [_kind(row) for row in table]
    both = figure.subplots(1, 2)
    for axes, (column, label) in zip(both, LABELS.items(), strict=True):
        for (kind, color), marker in zip(KINDS.items(), "o^s"):
            part = rows[rows["kind"] == kind]
            axes.plot(part["prompt_tokens"], part[column], marker, color=color, markersize=4, alpha=0.7, label=kind)
        front = _front(rows, column)
        axes.plot(front["prompt_tokens"], front[column], color="0.4", linewidth=1, zorder=0)
        axes.plot(
            rows["prompt_tokens"].iloc[:1],
            rows[column].iloc[:1],
            "o",
            markersize=11,
            markerfacecolor="none",
            color=VERMILION,
            markeredgewidth=1.6,
            label="chosen",
        )
        axes.axvline(budget, color="0.5", linestyle="--", linewidth=1)
        axes.set(xlabel="Prompt tokens of the passages, mean", ylabel=f"{label} (share)", ylim=(0, 1.03))
        axes.set_xlim(0, 1.05 * max(rows["prompt_tokens"].max(), budget))
    figure.legend(*both[0].get_legend_handles_labels(), loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    plain_axes(*both)
    return figure


def _kind(row: Mapping[str, Any]) -> str:
    return "classifier" if row["classifier_weight"] else "words" if row["mode"] == "bm25" else "embeddings"


def _front(rows: pd.DataFrame, column: str) -> pd.DataFrame:
    """Return the settings that no other one beats with as few tokens, by tokens."""
    ordered = rows.sort_values(["prompt_tokens", column], ascending=[True, False])
    return ordered[ordered[column] > ordered[column].cummax().shift(fill_value=-1.0)]
