"""Draw the stream: iteration by slice as a heat map, and the score on the frozen test set over iterations.

    history = collect_stream_scores(frame, it, decision, metric="quote_f1")    # in `forgetting`
    slices_figure(history, "champion")
    iterations_figure(history)

A cell's value is the mean score of an iteration's system on the held-out contracts of a slice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.patches import Rectangle

from cuadft.core.runs import CONSTANTS
from cuadft.evaluation import forgetting
from cuadft.evaluation.excerpts import shorten
from cuadft.evaluation.figures import style
from cuadft.evaluation.forgetting import BASE, CHAMPION, INCUMBENT
from cuadft.evaluation.metrics import METRICS

DRAWN_SYSTEMS = (CHAMPION, "sft", BASE, *CONSTANTS)  # what `iterations_figure` shows unless told otherwise
NAME_LENGTH = 14  # most characters of a system's name in a label
KEPT = "kept"
FRAME_COLOUR = style.VERMILION  # of the slice just trained on: told apart from every colour of the map


def slices_figure(history: pd.DataFrame, who: str = CHAMPION) -> style.Figure:
    """Return the heat map of every iteration's mean score on every slice: value and number of questions in each cell.

    history: from `collect_stream_scores`. who: "champion" or a system, as in `slice_matrix`. The slice just trained on
    is framed; the cell above it, in italics, is what the incumbent scored there before. The first row is the base
    model. A cell of fewer than `FEW` questions, or of one contract, is weak, with only its edge coloured. The colours
    reach from the lowest to the highest tenth that occurs. Raises InputError on a system that never answered.
    """
    cells = forgetting.slice_matrix(history, who)
    cells = cells[cells["n"] > 0].assign(weak=style.weak_cells)
    numbers, slices = sorted(cells["iteration"].unique()), sorted(cells["slice"].unique())
    figure = style.Figure(max(5.0, 2.5 + 0.66 * len(slices)), 1.7 + 0.32 * max(3, len(numbers)))
    if not len(cells):
        return style.empty_figure(figure)
    axes, metric = figure.subplots(), history["metric"].iloc[0]
    colours = _tenths_colours(cells["value"], higher_is_better=METRICS[metric][1])
    frame = {"fill": False, "edgecolor": FRAME_COLOUR, "linewidth": 1.8}
    for cell in cells.itertuples():
        x, y, before = slices.index(cell.slice), numbers.index(cell.iteration), cell.when == "before"
        style.heat_cell(axes, x, y, cell, colours, italic=before)
        if not before and cell.iteration == cell.slice:
            axes.add_patch(Rectangle((x - 0.46, y - 0.44), 0.92, 0.88, **frame))
    contracts = cells.groupby("slice")["n_contracts"].max()
    axes.set_xticks(range(len(slices)), [f"{n}\n({contracts[n]})" for n in slices])
    axes.set_yticks(range(len(numbers)), [_iteration_label(n, cells[cells["iteration"] == n], who) for n in numbers])
    axes.set(xlabel="Slice (held-out contracts)", ylabel="After iteration")
    figure.suptitle(f"{who}: {style.metric_label(metric)}", fontsize=9)
    note = "Framed: the slice just trained on; italics: the incumbent before. Small: questions."
    style.finish_heatmap(figure, axes, colours, cells, note)
    return figure


def iterations_figure(history: pd.DataFrame, systems: Sequence[str] = (), **resampling: Any) -> style.Figure:
    """Return the score on the frozen test set over iterations, with intervals over contracts.

    history: from `collect_stream_scores`. systems: names or "champion"; if empty, champion, sft, rag and the systems
    without a model, where they answered. A solid mark of the champion, with the name of its system above, is a
    promotion; a hollow mark means that the champion was kept. resampling: as in `forgetting.scores_on_test_set`.
    Raises InputError on a system that never answered.
    """
    known = {*history["system"], *([CHAMPION] if history["champion"].any() else [])}
    names = list(systems) or [name for name in DRAWN_SYSTEMS if name in known]
    tables = {name: forgetting.scores_on_test_set(history, name, **resampling) for name in names}
    drawn = pd.concat(tables.values()).dropna(subset="value") if tables else pd.DataFrame()
    figure = style.Figure(max(5.0, 2.4 + 0.45 * history["iteration"].nunique()), 3.4)
    if not len(drawn):
        return style.empty_figure(figure)
    axes, look = figure.subplots(), style.system_styles(names) | {CHAMPION: style.SYSTEM_STYLE[INCUMBENT]}
    for n, name in enumerate(names):
        _draw_course(axes, tables[name], name, 0.07 * (n - (len(names) - 1) / 2), look[name])
    if CHAMPION in tables:
        _mark_promotions(axes, tables[CHAMPION])
    axes.set(
        xlabel=f"Iteration\n{style.interval_basis(drawn, resampling.get('confidence', 0.95))}, test set",
        ylabel=style.metric_label(history["metric"].iloc[0]),
    )
    first, last = drawn["iteration"].min(), drawn["iteration"].max()
    axes.set_xlim(first - 0.4, last + 0.4)
    axes.set_xticks(range(first, last + 1, math.ceil((last - first + 1) / 20)))
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    style.plain_axes(axes)
    style.legend_above(figure, axes, columns=4)
    if CHAMPION in tables:
        style.foot_note(figure, "Solid mark of the champion: promoted in this iteration (name above); hollow: kept.")
    return figure


def _tenths_colours(values: pd.Series, *, higher_is_better: bool) -> ScalarMappable:
    """Return the map from value to colour over the tenths that occur, bright where it is better."""
    low, high = math.floor(values.min() * 10 + 1e-9) / 10, math.ceil(values.max() * 10 - 1e-9) / 10
    return style.value_colours(low, max(high, low + 0.1), higher_is_better=higher_is_better)


def _iteration_label(number: int, rows: pd.DataFrame, who: str) -> str:
    if number == 0:
        return f"none ({BASE})"
    after = rows[rows["when"] == "after"]["system"]
    if who != CHAMPION or not len(after):
        return str(number)
    return f"{number} ({_outcome(number, after.iloc[0])})"


def _outcome(number: int, system: str) -> str:
    """Return the promoted system's name, or that the champion was kept."""
    return KEPT if system == (BASE if number == 1 else INCUMBENT) else shorten(system, NAME_LENGTH)


def _draw_course(axes: Axes, table: pd.DataFrame, name: str, shift: float, look: dict[str, str]) -> None:
    x, label = table["iteration"] + shift, shorten(name, 24)
    axes.vlines(x, table["low"], table["high"], color=look["color"], linewidth=1.1)
    if name != CHAMPION:
        axes.plot(x, table["value"], label=label, markersize=5, **look)
        return
    axes.plot(x, table["value"], label=label, markersize=7, markerfacecolor="white", zorder=3, **look)
    promoted = [_outcome(row.iteration, row.system) != KEPT for row in table.itertuples()]
    axes.plot(x[promoted], table["value"][promoted], markersize=7, zorder=4, **look | {"linestyle": "none"})


def _mark_promotions(axes: Axes, table: pd.DataFrame) -> None:
    turned = {"rotation": 35, "ha": "left", "rotation_mode": "anchor"} if len(table) > 4 else {"ha": "center"}
    for row in table.itertuples():
        outcome = _outcome(row.iteration, row.system)
        if outcome != KEPT:
            axes.axvline(row.iteration, color=style.GREY, linewidth=0.8, linestyle=":", zorder=0)
        above = {"xycoords": ("data", "axes fraction"), "xytext": (0, 4), "textcoords": "offset points"} | turned
        color = "0.45" if outcome == KEPT else "black"
        axes.annotate(outcome, (row.iteration, 1.0), fontsize=7, color=color, **above)
