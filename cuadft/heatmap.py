"""Draw one metric by category or contract type and system as a heat map with its numbers of questions.

    table = scoreboard.breakdown(frame, by="category", metric="f1")
    heatmap.draw(table)

Most cells of such a table rest on few questions: these are drawn weak, so that they do not catch the eye first.
"""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.patches import Rectangle

from cuadft.drawing import Figure, empty, foot, metric_label, needs, plain, select, span
from cuadft.errors import InputError
from cuadft.excerpts import shorten
from cuadft.metrics import METRICS

GROUPS = {"category": "Category", "contract_type": "Contract type"}
COLOURS = "cividis"  # even steps in lightness, so that it prints in grey too; Nunez et al. (2018), PLoS ONE 13(7)
WEAK = 0.17  # share of a weak cell's width that is coloured


def draw(table: pd.DataFrame, split: str = "test", *, few: int = 5) -> Figure:
    """Return the heat map of one metric: value and number of questions (small) in each cell, bright is better.

    table: from `scoreboard.breakdown`, by "category" or "contract_type"; few: a cell of fewer questions, or of one
    contract, is weak, with only its edge coloured and grey text. A dash marks cells to which the metric does not
    apply; groups without any other cell are left out. Raises InputError on a table of several metrics or without
    a column to group by.
    """
    by = next((g for g in GROUPS if g in table), "category")
    needs(table, "scoreboard.breakdown", by, "system", "metric", "value", "n", "n_contracts")
    if table["metric"].nunique() > 1:
        raise InputError(f"The table holds {', '.join(table['metric'].unique())}: pass the rows of one metric.")
    rows = select(table, table["metric"].iloc[0], split) if len(table) else table
    systems = list(rows["system"].unique())
    rows = rows[rows["n"] > 0]
    groups = sorted(rows[by].unique(), key=lambda name: (name == "", name))
    figure = Figure(4.1 + 0.82 * len(systems), 1.8 + 0.21 * max(5, len(groups)))
    if not groups:
        return empty(figure)
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
    plain(axes)
    axes.tick_params(length=0)
    weak = f" Coloured edge and grey text: fewer than {few} questions, or one contract."
    foot(figure, f"Small number: questions of the cell.{weak * any(_weak(rows, few))}")
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
