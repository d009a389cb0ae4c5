"""Hold what all figures share: one style per system, a Figure that shows itself, dots with intervals, heat map cells.

    figure = Figure(5, 3)
    axes = figure.subplots()
    interval_dots(axes, rows, labels=list(rows["system"]))    # one dot with its interval per row
    axes.set_xlabel(interval_basis(rows, confidence=0.95))    # what the intervals rest on

A system keeps its colour, marker and line style in every figure (`SYSTEM_STYLE`).
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as _Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from cuadft.core.errors import InputError
from cuadft.evaluation.metrics import METRICS

# Okabe & Ito (2008), "Color Universal Design": told apart with the common forms of colour blindness.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"
# Tol's muted scheme and ColorBrewer's brown, for further systems: they too differ in common forms of colour blindness.
WINE, OLIVE, INDIGO, ROSE = "#882255", "#999933", "#332288", "#CC6677"
FOREST, SAND, BROWN, SLATE = "#117733", "#DDCC77", "#A65628", "#5D6D7E"
SYSTEM_STYLE: dict[str, dict[str, str]] = {
    "always_refuses": {"color": GREY, "marker": "x", "linestyle": ":"},
    "top_passage": {"color": "#666666", "marker": "+", "linestyle": "--"},
    "rag": {"color": BLACK, "marker": "o", "linestyle": "-"},
    "rag_compiled": {"color": SKY, "marker": "s", "linestyle": "--"},
    "incumbent": {"color": ORANGE, "marker": "D", "linestyle": "-."},
    "retriever": {"color": SLATE, "marker": "H", "linestyle": ":"},
    "sft": {"color": BLUE, "marker": "^", "linestyle": "-"},
    "dpo": {"color": GREEN, "marker": "v", "linestyle": "--"},
    "orpo": {"color": VERMILION, "marker": "P", "linestyle": "-."},
    "orpo_base": {"color": BROWN, "marker": "p", "linestyle": ":"},
    "kto": {"color": PURPLE, "marker": "h", "linestyle": "-"},
    "rloo": {"color": INDIGO, "marker": "d", "linestyle": "--"},
    "grpo": {"color": OLIVE, "marker": "*", "linestyle": "-."},
    "ppo": {"color": WINE, "marker": "X", "linestyle": ":"},
}
SPARE_STYLES = [  # for systems with other names
    {"color": color, "marker": marker, "linestyle": line}
    for marker, line in (("X", "-"), ("<", "--"), (">", "-."), ("*", ":"))
    for color in (GREY, ROSE, FOREST, SAND)
]
RESAMPLED = {"contract": "contracts", "question": "questions, not contracts"}  # unit of the bootstrap -> its name
HEATMAP_COLOURS = "cividis"  # even steps in lightness: it prints in grey too; Nunez et al. (2018), PLoS ONE 13(7)
WEAK_CELL_WIDTH = 0.17  # share of a weak cell's width that is coloured
FEW = 5  # a cell of fewer questions is weak, and so is one of a single contract


class Figure(_Figure):
    """A matplotlib Figure that a notebook can show without pyplot."""

    def __init__(self, width: float = 5.0, height: float = 3.0):
        super().__init__(figsize=(width, height), facecolor="white")
        self.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)

    def draw(self, renderer: Any) -> None:
        """Draw; a dollar sign, as in a system's name, is never taken for mathematics."""
        for text in self.findobj(Text):
            text.set_parse_math(False)
        super().draw(renderer)

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()


def system_styles(systems: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return colour, marker and line style of each system; other names get a spare style by their name."""
    free, spare = list(range(len(SPARE_STYLES))), {}
    for name in sorted(set(systems) - set(SYSTEM_STYLE)):
        start = crc32(name.encode()) % 4
        slot = min(free, key=lambda i, start=start: (i - start) % len(SPARE_STYLES), default=start)
        free = [i for i in free if i != slot]
        spare[name] = SPARE_STYLES[slot]
    return {name: SYSTEM_STYLE.get(name) or spare[name] for name in systems}


def interval_dots(
    axes: Axes,
    rows: pd.DataFrame,
    labels: Sequence[str],
    *,
    signed: bool = False,
    filled: Sequence[bool] | None = None,
    notes: Sequence[str] | None = None,
) -> None:
    """Draw one dot with its interval per row (system, value, low, high), the first row on top.

    Columns drawn where the rows have them: failed (counted beside the value) and seeds with seed_low and seed_high (a
    thin bracket under the interval). signed: differences, shown with their sign. filled: which dots are solid (all
    unless given); notes: text after each value.
    """
    style = system_styles(list(rows["system"]))
    for y, row in enumerate(rows.itertuples()):
        _interval_dot(axes, y, row, style[row.system], solid=filled is None or filled[y])
        failed = f" ({row.failed:.0f} failed)" if getattr(row, "failed", 0) > 0 else ""
        note = notes[y] if notes else ""
        beside = {"xycoords": ("axes fraction", "data"), "xytext": (5, 0), "textcoords": "offset points"}
        axes.annotate(_value_text(row.value, signed) + failed + note, (1.0, y), va="center", fontsize=8, **beside)
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    plain_axes(axes)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    if not signed and len(rows):
        top = rows[[c for c in ("value", "high", "seed_high") if c in rows]].max().max()
        axes.set_xlim(0, 1.05 * top if top > 0 else 1)


def _interval_dot(axes: Axes, y: int, row: Any, style: Mapping[str, str], *, solid: bool) -> None:
    """Draw a row's interval, its dot and, with several seeds, the bracket from the lowest to the highest seed."""
    color = style["color"]
    axes.plot([row.low, row.high], [y, y], color=color, linewidth=1.6, solid_capstyle="butt")
    dot = {"marker": style["marker"], "markersize": 7, "markerfacecolor": color if solid else "white"}
    axes.plot([row.value], [y], color=color, linestyle="none", clip_on=False, zorder=3, **dot)
    if getattr(row, "seeds", 1) > 1:
        ends = [row.seed_low, row.seed_high]
        axes.plot(ends, [y + 0.27] * 2, color=color, linewidth=0.9, marker="|", markersize=6, clip_on=False)


def _value_text(value: float, signed: bool) -> str:
    return "–" if math.isnan(value) else f"{value:{'+.3f' if signed else '.2f'}}".replace("-", "−")


def plain_axes(*several: Axes) -> None:
    """Take the frame's top and right lines away and make the labels small."""
    for axes in several:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_size(8)
        axes.yaxis.label.set_size(8)


def legend_above(figure: Figure, axes: Axes, columns: int) -> None:
    """Put the legend of one panel above the whole figure."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=columns, frameon=False, fontsize=8)


def foot_note(figure: Figure, text: str) -> None:
    """Write a note under the whole figure, broken into lines that fit its width."""
    width = int(18 * figure.get_size_inches()[0])
    figure.supxlabel("\n".join(textwrap.wrap(text, width)), fontsize=7.5, color="0.25")


def empty_figure(figure: Figure) -> Figure:
    """Return the figure with the one message that there is nothing to show."""
    figure.clear()
    figure.text(0.5, 0.5, "Nothing to show: no rows", ha="center", va="center", color="0.4")
    return figure


def metric_label(metric: str) -> str:
    """Return a metric's name and direction for an axis."""
    label, higher = METRICS.get(metric, (metric, None))
    return label if higher is None else f"{label} ({'higher' if higher else 'lower'} is better)"


def interval_basis(rows: pd.DataFrame, confidence: float, unit: str = "contract") -> str:
    """Return what an axis must say about its intervals: level, what was resampled, number of questions and contracts.

    unit: "contract", or "question" if the contracts are not known and only questions were resampled.
    """
    if unit not in RESAMPLED:
        raise InputError(f"Invalid unit {unit!r} of resampling: choose {' or '.join(RESAMPLED)}.")
    unknown = rows["low"].isna().all()
    level = "no interval" if unknown else f"{100 * confidence:g}% interval over {RESAMPLED[unit]}"
    return f"{level}; {sample_size(rows, unit)}{_over_seeds(rows)}"


def sample_size(rows: pd.DataFrame, unit: str = "contract", joint: str = ", ") -> str:
    """Return the number of questions and, where contracts were resampled, of contracts; empty rows do not count."""
    rows = rows[rows["n"] > 0] if (rows["n"] > 0).any() else rows
    if unit == "question":
        return count_range(rows["n_contracts"], "question")
    return f"{count_range(rows['n'], 'question')}{joint}{count_range(rows['n_contracts'], 'contract')}"


def _over_seeds(rows: pd.DataFrame) -> str:
    several = rows["seeds"][rows["seeds"] > 1] if "seeds" in rows else ()
    return f"\nbracket: lowest to highest of {count_range(several, 'seed')}" if len(several) else ""


def rows_of_metric(table: pd.DataFrame, metric: str, split: str) -> pd.DataFrame:
    """Return a table's rows of one metric on one split; InputError if the table holds only other rows."""
    rows = table[(table["metric"] == metric) & (table["split"] == split)]
    if len(table) and not len(rows):
        known = sorted({f"{m} on {s}" for m, s in zip(table["metric"], table["split"], strict=True)})
        raise InputError(f"The table has no {metric!r} on split {split!r}: choose from {', '.join(known)}.")
    return rows


def needs_columns(table: pd.DataFrame, maker: str, *columns: str) -> pd.DataFrame:
    """Return the table; InputError if it lacks a column. maker: the function that makes such a table."""
    missing = [c for c in columns if c not in table]
    if missing:
        raise InputError(f"The table has no column {missing[0]!r}, only {', '.join(table)}: make it with {maker}.")
    return table


def count_range(counts: pd.Series, unit: str = "") -> str:
    """Return counts as one number, or as lowest to highest where they differ, with their unit."""
    low, high = int(counts.min()), int(counts.max())
    text = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{text} {unit}{'' if high == 1 else 's'}" if unit else text


def width_for(labels: Sequence[str]) -> float:
    """Return the inches to add to a figure's usual width for long labels on its vertical axis."""
    return 0.07 * max([0, *(len(label) - 14 for label in labels)])


def value_colours(low: float, high: float, *, higher_is_better: bool) -> ScalarMappable:
    """Return a heat map's map from a value between low and high to its colour, bright where it is better."""
    return ScalarMappable(Normalize(low, high), HEATMAP_COLOURS if higher_is_better else f"{HEATMAP_COLOURS}_r")


def weak_cells(cells: pd.DataFrame) -> pd.Series:
    """Return which cells of a heat map rest on too little: few questions, or a single contract."""
    return (cells["n"] < FEW) | (cells["n_contracts"] < 2)


def heat_cell(axes: Axes, x: int, y: int, cell: Any, colours: ScalarMappable, *, italic: bool = False) -> None:
    """Draw one cell (value, n, weak): its value and, small, its questions; a weak one has its edge coloured only."""
    colour, width = colours.to_rgba(cell.value), WEAK_CELL_WIDTH if cell.weak else 1.0
    axes.add_patch(Rectangle((x - 0.5, y - 0.5), width, 1, facecolor=colour, edgecolor="white", linewidth=0.8))
    look = {"color": "0.4" if cell.weak else text_colour(colour), "style": "italic" if italic else "normal"}
    beside = {"xy": (x, y), "textcoords": "offset points", "va": "center"} | look
    axes.annotate(f"{cell.value:.2f}", xytext=(0, 0), ha="right", fontsize=7.5, **beside)
    axes.annotate(str(int(cell.n)), xytext=(3, 0), ha="left", fontsize=6, **beside)


def finish_heatmap(figure: Figure, axes: Axes, colours: ScalarMappable, cells: pd.DataFrame, note: str) -> None:
    """Add the bar of colours and the note to a heat map whose ticks are set; cells: with the column `weak`."""
    columns, rows = len(axes.get_xticks()), len(axes.get_yticks())
    axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
    bar = figure.colorbar(colours, ax=axes, aspect=30, shrink=min(1.0, 10 / rows), pad=0.02)
    bar.ax.tick_params(labelsize=7)
    plain_axes(axes)
    axes.tick_params(length=0)
    few = f" Coloured edge and grey text: fewer than {FEW} questions, or one contract." if cells["weak"].any() else ""
    foot_note(figure, note + few)


def text_colour(background: tuple[float, ...]) -> str:
    """Return "black" or "white", whichever has more contrast on an RGB colour (WCAG 2.1, relative luminance)."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3]]
    luminance = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"
