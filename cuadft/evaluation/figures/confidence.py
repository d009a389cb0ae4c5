"""Draw whether a system knows what it knows: reliability, errors by certainty, and errors by threshold.

    bins, curve, points = reliability(predictions), risk_coverage(predictions), operating_points(predictions)
    confidence_figure(bins, curve, points, confidence=0.95)

A row of three panels per system. Blue is "a clause exists", orange "the best quote is right", as in `STATEMENTS`.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes

from cuadft.evaluation.confidence import STATEMENTS
from cuadft.evaluation.figures import style
from cuadft.evaluation.metrics import METRICS

KIND_STYLE = {"exists": (style.BLUE, "o"), "best_quote": (style.VERMILION, "s")}  # kind -> colour, marker
MEASURE_STYLE = {
    "false_answer": (style.PURPLE, "--"),
    "false_refusal": (style.BLACK, ":"),
    "quote_f1": (style.GREEN, "-"),
}
ERRORS = {"exists": "whether a clause exists", "best_quote": "the quote"}  # what a curve's errors are in
BAND = 0.15  # opacity of an interval


def confidence_figure(
    bins: pd.DataFrame, curve: pd.DataFrame, points: pd.DataFrame, *, confidence: float = 0.95
) -> style.Figure:
    """Return three panels for each system: reliability diagram, risk-coverage curves, and errors over the threshold.

    bins, curve, points: from `reliability`, `risk_coverage` and `operating_points`. confidence: the level that they
    were made with. A panel without rows says so.
    """
    systems = list(dict.fromkeys([*bins["system"], *curve["system"], *points["system"]]))
    figure = style.Figure(9.5, 0.5 + 3.1 * max(1, len(systems)))
    if not systems:
        return style.empty_figure(figure)
    for system, row in zip(systems, figure.subplots(len(systems), 3, squeeze=False), strict=True):
        own = [table[table["system"] == system] for table in (bins, curve, points)]
        for axes, draw, table in zip(row, (_draw_reliability, _draw_risk, _draw_points), own, strict=True):
            draw(axes, table)
            _finish(axes, empty=not len(table))
        beside = {"xycoords": "axes fraction", "xytext": (-46, 0), "textcoords": "offset points", "rotation": 90}
        row[0].annotate(system, (0, 0.5), ha="center", va="center", fontsize=9, fontweight="bold", **beside)
    style.foot_note(figure, _note(bins, curve, confidence))
    return figure


def _draw_reliability(axes: Axes, bins: pd.DataFrame) -> None:
    """Draw each bin's mean probability against the share that is true, with its interval."""
    axes.plot([0, 1], [0, 1], color=style.GREY, linewidth=1, linestyle="--")
    for of, (color, marker) in KIND_STYLE.items():
        rows = bins[bins["of"] == of]
        if len(rows):
            axes.vlines(rows["probability"], rows["low"], rows["high"], color=color, linewidth=1.4)
            line = {"color": color, "marker": marker, "markersize": 4.5, "linewidth": 0.8}
            axes.plot(rows["probability"], rows["share"], label=STATEMENTS[of], clip_on=False, **line)
    axes.set(title="Are the probabilities true?", xlabel="Probability that the system states")
    axes.set(ylabel="Share that is true", xlim=(0, 1), ylim=(0, 1))


def _draw_risk(axes: Axes, curve: pd.DataFrame) -> None:
    """Draw the share of errors among the most certain questions, and the constant's as a dashed line."""
    for of, (color, _) in KIND_STYLE.items():
        rows = curve[curve["of"] == of]
        if len(rows):
            _draw_band(axes, rows, "coverage", "risk", color=color, label=f"in {ERRORS[of]}")
            ends = [0, rows["coverage"].iloc[-1]]
            axes.plot(ends, [rows["constant"].iloc[0]] * 2, color=color, linewidth=1, linestyle="--")
    highest = curve[["risk", "constant"]].max().max()  # the axis has no room for every wide interval
    axes.set(title="Errors, most certain first", xlabel="Share of questions decided", ylabel="Share of errors")
    axes.set(xlim=(0, 1), ylim=(0, min(1.0, 1.35 * highest) if highest > 0 else 1))


def _draw_points(axes: Axes, points: pd.DataFrame) -> None:
    """Draw false answers, false refusals and quote F1 over the threshold, and where the system answered in fact."""
    for name, (color, line) in MEASURE_STYLE.items():
        rows = points[points["measure"] == name].sort_values("threshold")
        if len(rows):
            _draw_band(axes, rows, "threshold", "value", color=color, linestyle=line, label=METRICS[name][0])
    if points["in_use"].notna().any():
        axes.axvline(points["in_use"].iloc[0], color=style.GREY, linewidth=1.2, label="in use", zorder=0)
    axes.set(title="Answering from a threshold on", xlabel="Least probability at which it answers")
    axes.set(ylabel="Share, or F1", xlim=(0, 1), ylim=(0, 1))


def _draw_band(axes: Axes, rows: pd.DataFrame, x: str, y: str, **look: str) -> None:
    axes.fill_between(rows[x], rows["low"], rows["high"], color=look["color"], alpha=BAND, linewidth=0)
    axes.plot(rows[x], rows[y], **look)


def _finish(axes: Axes, *, empty: bool) -> None:
    axes.title.set_size(9)
    axes.grid(color="0.92", linewidth=0.8)
    axes.set_axisbelow(True)
    style.plain_axes(axes)
    if empty:
        axes.text(0.5, 0.5, "no such probability", color="0.4", fontsize=8, ha="center", transform=axes.transAxes)
    else:  # the legend stands under the panel, where no curve can run through it
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2, frameon=False, fontsize=7.5)


def _note(bins: pd.DataFrame, curve: pd.DataFrame, confidence: float) -> str:
    """Return what dots, bands and dashed lines stand for, and what the intervals rest on."""
    both = pd.concat([bins, curve])
    asked = curve[curve["of"] == "exists"].groupby("system")["n"].max()
    size = f"{style.count_range(asked, 'question')}, " if len(asked) else ""
    contracts = style.count_range(both.groupby("system")["n_contracts"].max(), "contract")
    return (
        f"Bars and bands: {style.interval_level(both, confidence)}; {size}{contracts}. Left: a dot is a tenth of the "
        "questions or answers; on the dashed line it is calibrated. Middle: the dashed lines are the errors if every "
        "probability were the same."
    )
