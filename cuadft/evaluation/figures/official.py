"""Draw our systems beside published ones on CUAD's official test split.

    official_figure(table, confidence=0.95)    # table = official_table({"sft": board})

Grey dots are what others report, the others are ours. Thin lines are intervals; a value without one has no line.
"""

from __future__ import annotations

import textwrap
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from cuadft.evaluation.figures import style
from cuadft.evaluation.official import MEASURES, OFFICIAL_CONTRACTS

PANELS = ("detection_f1", "coverage_f1", "aupr")
PLACES = [["detection_f1", "coverage_f1"], ["aupr", "coverage_f1"]]  # coverage is what most systems report
LABEL_WIDTH = 31  # characters of a system's name in one line; the rest goes to a second one
OURS = {"color": style.BLUE, "marker": "o"}  # systems of ours without a style of their own
PUBLISHED = {"color": style.GREY, "marker": "o"}


def official_figure(table: pd.DataFrame, *, confidence: float = 0.95) -> style.Figure:
    """Return detection F1, coverage F1 and AUPR of our systems and the published ones, the best on top.

    table: from `official_table`. confidence: the level that our boards were made with. Each panel holds the systems
    that report its measure.
    """
    parts = {name: table[table[name].notna()].sort_values(name, ascending=False, kind="stable") for name in PANELS}
    lines = {name: max(2, len(rows)) for name, rows in parts.items()}
    figure = style.Figure(9.5, 1.2 + 0.31 * max(lines["detection_f1"] + lines["aupr"] + 2, lines["coverage_f1"]))
    if not any(map(len, parts.values())):
        return style.empty_figure(figure)
    grid = figure.subplot_mosaic(PLACES, height_ratios=[lines["detection_f1"], lines["aupr"]])
    for name, rows in parts.items():
        _draw_panel(grid[name], name, rows)
    style.foot_note(figure, _note(table[table["ours"]], confidence))
    return figure


def _draw_panel(axes: Axes, name: str, rows: pd.DataFrame) -> None:
    """Draw one measure, a system a line."""
    looks = [style.SYSTEM_STYLE.get(row.system, OURS) if row.ours else PUBLISHED for row in rows.itertuples()]
    columns = {"system": "system", name: "value", f"{name}_low": "low", f"{name}_high": "high"}
    shown = rows[[*columns]].rename(columns=columns)
    style.interval_dots(axes, shown, [_label(system) for system in rows["system"]], looks=looks)
    axes.set(xlim=(0, 1), ylim=(max(2, len(rows)) - 0.4, -0.6))
    axes.set_title(MEASURES[name][0], fontsize=9)
    axes.tick_params(axis="y", length=0)
    for text, ours in zip(axes.get_yticklabels(), rows["ours"], strict=True):
        text.set(fontsize=7.5, fontweight="bold" if ours else "normal", color="black" if ours else "0.35")


def _label(system: Any) -> str:
    """Return a system's name in at most two lines, broken before a bracket where both parts fit."""
    parts = str(system).split(" (", 1)
    if len(parts) == 2 and max(len(parts[0]), len(parts[1]) + 1) <= LABEL_WIDTH:
        return "\n(".join(parts)
    return "\n".join(textwrap.wrap(str(system), LABEL_WIDTH, max_lines=2, placeholder=" …"))


def _note(ours: pd.DataFrame, confidence: float) -> str:
    """Return what the dots stand for and what the intervals rest on."""
    published = "Grey: results that others report on CUAD's official test split, each with its own set-up."
    if not len(ours):
        return published
    level = style.interval_level(ours.rename(columns={"detection_f1_low": "low"}), confidence)
    contracts = style.count_range(ours["n_contracts"])
    return f"Bold: ours, on {contracts} of the {OFFICIAL_CONTRACTS} contracts, with {level}. {published}"
