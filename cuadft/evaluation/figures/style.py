"""Hold what all figures share: one style per system, a Figure that shows itself, and dots with intervals."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as _Figure
from matplotlib.text import Text

from cuadft.core.errors import InputError
from cuadft.evaluation.metrics import METRICS

# Okabe & Ito (2008), "Color Universal Design": told apart with the common forms of colour blindness.
BLACK, ORANGE, SKY, GREEN = "#000000", "#E69F00", "#56B4E9", "#009E73"
BLUE, VERMILION, PURPLE, GREY = "#0072B2", "#D55E00", "#CC79A7", "#999999"
# Tol's muted scheme and ColorBrewer's brown, for the systems beyond: still apart for common forms of colour blindness.
WINE, OLIVE, INDIGO, ROSE = "#882255", "#999933", "#332288", "#CC6677"
FOREST, SAND, BROWN, SLATE = "#117733", "#DDCC77", "#A65628", "#5D6D7E"
SYSTEM_STYLE: dict[str, dict[str, str]] = {
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
SPARE = [
    {"color": color, "marker": marker, "linestyle": line}
    for marker, line in (("X", "-"), ("<", "--"), (">", "-."), ("*", ":"))
    for color in (GREY, ROSE, FOREST, SAND)
]
UNITS = {"contract": "contracts", "question": "questions, not contracts"}  # what a bootstrap resampled


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
    free, spare = list(range(len(SPARE))), {}
    for name in sorted(set(systems) - set(SYSTEM_STYLE)):
        start = crc32(name.encode()) % 4
        slot = min(free, key=lambda i, start=start: (i - start) % len(SPARE), default=start)
        free = [i for i in free if i != slot]
        spare[name] = SPARE[slot]
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
        color, marker = style[row.system]["color"], style[row.system]["marker"]
        face = color if filled is None or filled[y] else "white"
        axes.plot([row.low, row.high], [y, y], color=color, linewidth=1.6, solid_capstyle="butt")
        axes.plot(
            [row.value],
            [y],
            color=color,
            marker=marker,
            markersize=7,
            markerfacecolor=face,
            linestyle="none",
            clip_on=False,
            zorder=3,
        )
        if getattr(row, "seeds", 1) > 1:
            ends = [row.seed_low, row.seed_high]
            axes.plot(ends, [y + 0.27] * 2, color=color, linewidth=0.9, marker="|", markersize=6, clip_on=False)
        text = _value(row.value, signed) + (f" ({row.failed:.0f} failed)" if getattr(row, "failed", 0) > 0 else "")
        axes.annotate(
            text + (notes[y] if notes else ""),
            (1.0, y),
            xycoords=("axes fraction", "data"),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(rows)), labels)
    axes.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    plain_axes(axes)
    axes.locator_params(axis="x", nbins=5)
    axes.grid(axis="x", color="0.9", linewidth=0.8)
    if not signed and len(rows):
        top = rows[[c for c in ("value", "high", "seed_high") if c in rows]].max().max()
        axes.set_xlim(0, 1.05 * top if top > 0 else 1)


def _value(value: float, signed: bool) -> str:
    return "–" if math.isnan(value) else f"{value:{'+.3f' if signed else '.2f'}}".replace("-", "−")


def log_line(axes: Axes, log_history: Sequence[Mapping[str, Any]], key: str, **style: Any) -> bool:
    """Draw one logged quantity against the step; say whether the log holds any of it."""
    points = [(entry["step"], entry[key]) for entry in log_history if key in entry and "step" in entry]
    if points:
        axes.plot(*zip(*points, strict=True), **style)
    return bool(points)


def plain_axes(*several: Axes) -> None:
    """Take the frame's top and right lines away and make the labels small."""
    for axes in several:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_size(8)
        axes.yaxis.label.set_size(8)


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

    unit: "contract", or "question" where no contracts are known apart, so that only questions were resampled.
    """
    if unit not in UNITS:
        raise InputError(f"Invalid unit {unit!r} of resampling: choose {' or '.join(UNITS)}.")
    none = rows["low"].isna().all()
    level = "no interval" if none else f"{100 * confidence:g}% interval over {UNITS[unit]}"
    return f"{level}; {figure_size(rows, unit)}{_over_seeds(rows)}"


def figure_size(rows: pd.DataFrame, unit: str = "contract", joint: str = ", ") -> str:
    """Return the number of questions and, where they were resampled, of contracts; rows without any are left out."""
    rows = rows[rows["n"] > 0] if (rows["n"] > 0).any() else rows
    if unit == "question":
        return span(rows["n_contracts"], "question")
    return f"{span(rows['n'], 'question')}{joint}{span(rows['n_contracts'], 'contract')}"


def _over_seeds(rows: pd.DataFrame) -> str:
    several = rows["seeds"][rows["seeds"] > 1] if "seeds" in rows else ()
    return f"\nbracket: lowest to highest of {span(several, 'seed')}" if len(several) else ""


def rows_of_metric(table: pd.DataFrame, metric: str, split: str) -> pd.DataFrame:
    """Return a table's rows of one metric on one split; InputError if it holds rows, but none of these."""
    rows = table[(table["metric"] == metric) & (table["split"] == split)]
    if len(table) and not len(rows):
        known = sorted({f"{m} on {s}" for m, s in zip(table["metric"], table["split"], strict=True)})
        raise InputError(f"The table has no {metric!r} on split {split!r}: choose from {', '.join(known)}.")
    return rows


def needs_columns(table: pd.DataFrame, maker: str, *columns: str) -> pd.DataFrame:
    """Return the table; InputError if it lacks one of the columns that its maker gives."""
    missing = [c for c in columns if c not in table]
    if missing:
        raise InputError(f"The table has no column {missing[0]!r}, only {', '.join(table)}: make it with {maker}.")
    return table


def span(counts: pd.Series, unit: str = "") -> str:
    """Return counts as one number, or as lowest to highest where they differ, with their unit."""
    low, high = int(counts.min()), int(counts.max())
    text = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    return f"{text} {unit}{'' if high == 1 else 's'}" if unit else text


def width_for(labels: Sequence[str]) -> float:
    """Return the inches to add to a figure's usual width for long labels on its vertical axis."""
    return 0.07 * max([0, *(len(label) - 14 for label in labels)])
