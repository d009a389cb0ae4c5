"""Hold what all figures share: one style per system, a Figure that shows itself, dots with intervals, heat map cells.

    figure = Figure(5, 3)
    axes = figure.subplots()
    interval_dots(axes, rows, labels=list(rows["system"]))    # one dot with its interval per row
    axes.set_xlabel(interval_basis(rows, confidence=0.95))    # what the intervals rest on

A system keeps its colour, marker and line style in every figure (`SYSTEM_STYLE`).
"""

from __future__ import annotations

import io
import itertools
import math
import textwrap
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure as _Figure
from matplotlib.text import Text
from PIL import Image

from cuadft.core.errors import InputError
from cuadft.core.runs import SYSTEM_ORDER
from cuadft.core.text import LETTER
from cuadft.evaluation.metrics import METRICS

# Okabe & Ito (2008), "Color Universal Design": told apart with the common forms of colour blindness.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"
# Tol's muted scheme and ColorBrewer's brown, for further systems: they too differ in common forms of colour blindness.
WINE, OLIVE, INDIGO, ROSE = "#882255", "#999933", "#332288", "#CC6677"
FOREST, SAND, BROWN, SLATE = "#117733", "#DDCC77", "#A65628", "#5D6D7E"
TEAL, PLUM = "#44AA99", "#AA4499"
SYSTEM_COLOURS = [GREY, "#666666", BLACK, SKY, ORANGE, SLATE, BLUE]
SYSTEM_COLOURS += [GREEN, VERMILION, BROWN, PURPLE, INDIGO, OLIVE, WINE, TEAL, PLUM]
LINES = itertools.cycle([":", "--", "-", "-."])
SYSTEM_STYLE = {  # a system keeps its look in every figure
    name: {"color": color, "marker": marker, "linestyle": line}
    for name, color, marker, line in zip(SYSTEM_ORDER, SYSTEM_COLOURS, "x+osDH^vPphd*X12", LINES, strict=False)
}
SPARE_STYLES = [  # for systems with other names
    {"color": color, "marker": marker, "linestyle": "-"} for marker in "<>8." for color in (GREY, ROSE, FOREST, SAND)
]
RESAMPLED = {"contract": "contracts", "question": "questions, not contracts"}  # unit of the bootstrap -> its name
HEATMAP_COLOURS = "cividis"  # even steps in lightness: it prints in grey too; Nunez et al. (2018), PLoS ONE 13(7)
FALLBACK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
)
FALLBACK_FONTS += ("Droid Sans Fallback", "PingFang SC", "Hiragino Sans GB", "Microsoft YaHei", "SimHei")
FEW = 5  # a cell of fewer questions is weak, and so is one of a single contract
WEAK_OPACITY = 0.2  # of a weak cell's colour


class Figure(_Figure):
    """A matplotlib Figure that a notebook can show without pyplot."""

    def __init__(self, width: float = 5.0, height: float = 3.0):
        super().__init__(figsize=(width, height), facecolor="white")
        self.set_layout_engine("constrained", w_pad=0.06, h_pad=0.06)

    def draw(self, renderer: Any) -> None:
        """Draw; a dollar sign, as in a system's name, is never taken for mathematics.

        Names in Chinese or Japanese have the first of `FALLBACK_FONTS` that is installed. Without one, matplotlib warns
        and draws boxes.
        """
        for text in self.findobj(Text):
            text.set_parse_math(False)
            if LETTER.search(text.get_text()) and (fallback := fallback_fonts()):
                text.set_fontfamily(["sans-serif", *fallback])
        super().draw(renderer)

    def _repr_png_(self) -> bytes:
        return as_png(self)


def as_png(figure: _Figure, dpi: int = 100) -> bytes:
    """Return any figure of matplotlib's as a PNG of up to 256 colours, a third of the size that its own has."""
    with io.BytesIO() as drawn, io.BytesIO() as packed:
        figure.savefig(drawn, format="png", dpi=dpi)
        image = Image.open(drawn).convert("RGB").quantize(256, dither=Image.Dither.NONE)
        image.save(packed, format="png", optimize=True, dpi=(dpi, dpi))
        return packed.getvalue()


@cache
def fallback_fonts() -> list[str]:
    """Return the first installed one of `FALLBACK_FONTS`, in a list; [] if there is none."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return [name for name in FALLBACK_FONTS if name in installed][:1]


def system_styles(systems: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return colour, marker and line style of each system; another name has a spare style, always the same one."""
    spare = {name: SPARE_STYLES[crc32(name.encode()) % len(SPARE_STYLES)] for name in systems}
    return {name: SYSTEM_STYLE.get(name, spare[name]) for name in systems}


def interval_dots(
    axes: Axes,
    rows: pd.DataFrame,
    labels: Sequence[str],
    *,
    looks: Sequence[Mapping[str, str]] = (),
    signed: bool = False,
    filled: Sequence[bool] = (),
    notes: Sequence[str] = (),
) -> None:
    """Draw one dot with its interval per row (system, value, low, high), the first row on top, its value beside it.

    Columns drawn where the rows have them: failed (counted beside the value) and seeds with seed_low and seed_high (a
    thin bracket under the interval). looks: colour and marker of each row, those of its system unless given. signed:
    differences, shown with their sign. filled: which dots are solid, all unless given; notes: text after each value.
    """
    looks = looks or [system_styles(list(rows["system"]))[name] for name in rows["system"]]
    for y, (row, look) in enumerate(zip(rows.itertuples(), looks, strict=True)):
        color = look["color"]
        axes.plot([row.low, row.high], [y, y], color=color, linewidth=1.6, solid_capstyle="butt")
        face = color if not filled or filled[y] else "white"
        dot = {"marker": look["marker"], "markersize": 7, "markerfacecolor": face, "linestyle": "none"}
        axes.plot([row.value], [y], color=color, clip_on=False, zorder=3, **dot)
        if getattr(row, "seeds", 1) > 1:
            ends = [row.seed_low, row.seed_high]
            axes.plot(ends, [y + 0.27] * 2, color=color, linewidth=0.9, marker="|", markersize=6, clip_on=False)
        value = "–" if math.isnan(row.value) else f"{row.value:{'+' if signed else ''}.3f}".replace("-", "−")
        failed = f" ({row.failed:.0f} failed)" if getattr(row, "failed", 0) > 0 else ""
        beside = {"xycoords": ("axes fraction", "data"), "xytext": (5, 0), "textcoords": "offset points"}
        text = value + failed + (notes[y] if notes else "")
        axes.annotate(text, (1.0, y), va="center", fontsize=8, **beside)
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    plain_axes(axes)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    if not signed and len(rows):
        top = rows[[c for c in ("value", "high", "seed_high") if c in rows]].max().max()
        axes.set_xlim(0, 1.05 * top if top > 0 else 1)


def plain_axes(*several: Axes) -> None:
    """Take the frame's top and right lines away and make the labels small."""
    for axes in several:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_size(8)
        axes.yaxis.label.set_size(8)


def legend_above(figure: Figure, *several: Axes, columns: int = 4) -> None:
    """Put one legend of all panels above the whole figure."""
    shown = {label: handle for axes in several for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    place = {"loc": "outside upper center", "ncols": columns, "frameon": False}
    figure.legend(list(shown.values()), list(shown), fontsize=8, **place)


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
    rows = rows[rows["n"] > 0] if (rows["n"] > 0).any() else rows
    several = rows["seeds"][rows["seeds"] > 1] if "seeds" in rows else ()
    bracket = f"\nbracket: lowest to highest of {count_range(several, 'seed')}" if len(several) else ""
    size = count_range(rows["n_contracts"], unit)
    if unit == "contract":
        size = f"{count_range(rows['n'], 'question')}, {size}"
    return f"{interval_level(rows, confidence, RESAMPLED[unit])}; {size}{bracket}"


def interval_level(rows: pd.DataFrame, confidence: float, resampled: str = "contracts") -> str:
    """Return the level of the intervals and what was resampled, or that there is no interval."""
    return f"{100 * confidence:g}% interval over {resampled}" if rows["low"].notna().any() else "no interval"


def rows_of_metric(table: pd.DataFrame, metric: str, split: str) -> pd.DataFrame:
    """Return a table's rows of one metric on one split; InputError if the table holds only other rows."""
    rows = table[(table["metric"] == metric) & (table["split"] == split)]
    if len(table) and not len(rows):
        known = sorted({f"{m} on {s}" for m, s in zip(table["metric"], table["split"], strict=True)})
        raise InputError(f"The table has no {metric!r} on split {split!r}: choose from {', '.join(known)}.")
    return rows


def count_range(counts: pd.Series, unit: str = "") -> str:
    """Return counts as one number, or as lowest to highest where they differ, with their unit."""
    low, high = int(counts.min()), int(counts.max())
    text = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{text} {unit}{'' if high == 1 else 's'}" if unit else text


def width_for(labels: Sequence[str]) -> float:
    """Return the inches to add to a figure's usual width for long labels on its vertical axis."""
    return 0.07 * max([0, *(len(label) - 14 for label in labels)])


def value_colours(values: pd.Series, metric: str, *, whole: bool = True) -> ScalarMappable:
    """Return a heat map's map from value to colour, bright where it is better: from 0 to 1, or over what occurs."""
    name = HEATMAP_COLOURS if METRICS.get(metric, ("", True))[1] else f"{HEATMAP_COLOURS}_r"
    ends = (0, max(1.0, values.max())) if whole else (values.min(), values.max())
    return ScalarMappable(Normalize(*ends), name)


def heatmap(
    figure: Figure, cells: pd.DataFrame, colours: ScalarMappable, note: str, *, lines: list[str], columns: list[str]
) -> Axes:
    """Draw a heat map and return its axes: each cell has its value and, small, its number of questions.

    cells: x, y (places in `columns` and `lines`, from 0), value, n, n_contracts, and italic if there is such a column.
    A weak cell is pale and its text grey. A place without a cell has a dash. note: the text under the figure.
    """
    axes, shape = figure.subplots(), (len(lines), len(columns))
    values, opacity = np.full(shape, math.nan), np.ones(shape)
    for cell in cells.itertuples():
        weak = cell.n < FEW or cell.n_contracts < 2
        values[cell.y, cell.x], opacity[cell.y, cell.x] = cell.value, WEAK_OPACITY if weak else 1.0
        look = {"color": "0.3" if weak else text_colour(colours.to_rgba(cell.value)), "va": "center"}
        look |= {"textcoords": "offset points", "style": "italic" if getattr(cell, "italic", False) else "normal"}
        axes.annotate(f"{cell.value:.2f}", (cell.x, cell.y), xytext=(0, 0), ha="right", fontsize=7.5, **look)
        axes.annotate(f"{cell.n:.0f}", (cell.x, cell.y), xytext=(3, 0), ha="left", fontsize=6, **look)
    for y, x in np.argwhere(np.isnan(values)):
        axes.annotate("–", (x, y), ha="center", va="center", fontsize=7, color="0.35")
    axes.imshow(values, cmap=colours.get_cmap(), norm=colours.norm, alpha=opacity, aspect="auto")
    axes.set_yticks(range(len(lines)), lines)
    axes.set_xticks(range(len(columns)), columns)
    bar = figure.colorbar(colours, ax=axes, aspect=30, shrink=min(1.0, 10 / len(lines)), pad=0.02)
    bar.ax.tick_params(labelsize=7)
    plain_axes(axes)
    axes.tick_params(length=0)
    few = f" Pale, with grey text: fewer than {FEW} questions, or one contract." if opacity.min() < 1 else ""
    foot_note(figure, note + few)
    return axes


def text_colour(background: tuple[float, ...]) -> str:
    """Return "black" or "white", whichever has more contrast on an RGB colour (WCAG 2.1, relative luminance)."""
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in background[:3]]
    luminance = 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
    return "black" if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else "white"
