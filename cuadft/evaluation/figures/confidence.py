"""Draw whether a system knows what it knows: reliability, errors by certainty, and errors by threshold.

    bins, curve, points = reliability(predictions), risk_coverage(predictions), operating_points(predictions)
    confidence_figure(bins, curve, points, confidence=0.95)

Blue is "a clause exists", red "the best quote is right", as in `STATEMENTS`.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from cuadft.evaluation.confidence import STATEMENTS
from cuadft.evaluation.figures import style
from cuadft.evaluation.metrics import METRICS

KINDS = {"exists": (style.BLUE, "o-"), "best_quote": (style.VERMILION, "s-")}  # colour and marks
ERRORS = {"exists": "whether a clause exists", "best_quote": "the quote"}  # what a curve's errors are in
MEASURES = {"false_answer": (style.PURPLE, "--"), "false_refusal": (style.BLACK, ":"), "quote_f1": (style.GREEN, "-")}


def confidence_figure(
    bins: pd.DataFrame, curve: pd.DataFrame, points: pd.DataFrame, *, confidence: float = 0.95
) -> style.Figure:
    """Return three panels for one system: reliability diagram, risk-coverage curves, and errors over the threshold.

    bins, curve, points: its rows from `reliability`, `risk_coverage` and `operating_points`. confidence: the level that
    they were made with.
    """
    figure = style.Figure(9.5, 3.6)
    if not len(curve):
        return style.empty_figure(figure)
    left, middle, right = figure.subplots(1, 3)
    _draw_reliability(left, bins)
    _draw_risk(middle, curve)
    _draw_points(right, points)
    for axes in (left, middle, right):
        axes.title.set_size(9)
        axes.grid(color="0.92", linewidth=0.8)
        style.plain_axes(axes)
        if axes.get_legend_handles_labels()[0]:  # under the panel, where no curve can run through it
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False, fontsize=7.5)
    basis = style.interval_basis(curve.groupby("of").max(numeric_only=True), confidence)
    style.foot_note(
        figure,
        f"Bars and bands: {basis}. Left: a dot is a tenth of the questions or answers; on the dashed line it is "
        "calibrated. Middle: the dashed lines are the errors if every probability were the same.",
    )
    return figure


def _draw_reliability(axes: Axes, bins: pd.DataFrame) -> None:
    """Draw each bin's mean probability against the share that is true, with its interval."""
    axes.plot([0, 1], [0, 1], color=style.GREY, linewidth=1, linestyle="--")
    for of, rows in bins.groupby("of", sort=False):
        color, marks = KINDS[of]
        axes.vlines(rows["probability"], rows["low"], rows["high"], color=color, linewidth=1.4)
        axes.plot(rows["probability"], rows["share"], marks, color=color, linewidth=0.8, label=STATEMENTS[of])
    axes.set(title="Are the probabilities true?", xlabel="Probability that the system states")
    axes.set(ylabel="Share that is true", xlim=(0, 1), ylim=(0, 1))


def _draw_risk(axes: Axes, curve: pd.DataFrame) -> None:
    """Draw the share of errors among the most certain questions, and the constant's as a dashed line."""
    for of, rows in curve.groupby("of", sort=False):
        _draw_band(axes, rows, "coverage", "risk", color=KINDS[of][0], label=f"in {ERRORS[of]}")
        axes.axhline(rows["constant"].iloc[0], color=KINDS[of][0], linewidth=1, linestyle="--")
    highest = curve[["risk", "constant"]].max().max()  # the axis has no room for every wide interval
    axes.set(title="Errors, most certain first", xlabel="Share of questions decided", ylabel="Share of errors")
    axes.set(xlim=(0, 1), ylim=(0, min(1.0, 1.35 * highest) if highest > 0 else 1))


def _draw_points(axes: Axes, points: pd.DataFrame) -> None:
    """Draw false answers, false refusals and quote F1 over the threshold."""
    for name, rows in points.sort_values("threshold").groupby("measure"):
        color, line = MEASURES[name]
        _draw_band(axes, rows, "threshold", "value", color=color, linestyle=line, label=METRICS[name][0])
    axes.set(title="Answering from a threshold on", xlabel="Least probability at which it answers")
    axes.set(ylabel="Share, or F1", xlim=(0, 1), ylim=(0, 1))


def _draw_band(axes: Axes, rows: pd.DataFrame, x: str, y: str, **look: str) -> None:
    axes.fill_between(rows[x], rows["low"], rows["high"], color=look["color"], alpha=0.15, linewidth=0)
    axes.plot(rows[x], rows[y], **look)
