"""Draw judges: how a judge agrees with others' verdicts, and published means beside recomputed ones.

    agreement_figure(report)    # means of systems, reliability curve, error by answer length
    published_figure(table)     # what was printed, what the published rows give, what our judges say

The report comes from `calibration.calibration_report`, the table from `published.compare_published`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes

from cuadft.evaluation.figures.style import (
    BLACK,
    BLUE,
    GREY,
    VERMILION,
    Figure,
    count_range,
    empty_figure,
    plain_axes,
    system_styles,
    width_for,
)

SERIES = {  # measure -> (label, colour, marker, panel)
    "printed_bool": ("printed mean, one mark per pass", GREY, "|", 0),
    "published_bool": ("mean of the published rows", BLACK, "o", 0),
    "printed_score": ("printed mean, one mark per pass", GREY, "|", 1),
    "published_score": ("mean of the published rows", BLACK, "o", 1),
    "reference_score": ("our offline judge", BLUE, "s", 1),
    "judge_score": ("our LLM judge", VERMILION, "^", 1),
}
PANEL_TITLES = ("Judged true (share of questions)", "Judge's score (0 to 1)")


def agreement_figure(report: Mapping[str, Any]) -> Figure:
    """Return three panels: each system's mean by judge and verdict, the reliability curve, the error by length.

    report: from `calibration_report`. On the dashed lines judge and verdicts agree; thin lines are intervals.
    """
    if not report["n"]:
        return empty_figure(Figure())
    figure = Figure(9.6, 3.5 + 0.2 * -(-len(report["systems"]) // 4))
    systems, curve, length = figure.subplots(1, 3)
    _draw_system_means(systems, report)
    _draw_reliability(curve, report)
    _draw_error_by_length(length, report)
    plain_axes(systems, curve, length)
    figure.legend(loc="outside lower center", ncols=4, fontsize=7.5, frameon=False, handletextpad=0.1)
    return figure


def _draw_diagonal(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", zorder=0)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    quarters = (0, 0.25, 0.5, 0.75, 1)
    axes.set_xticks(quarters, [f"{tick:g}" for tick in quarters])
    axes.set_yticks(quarters, [f"{tick:g}" for tick in quarters])


def _draw_system_means(axes: Axes, report: Mapping[str, Any]) -> None:
    names = [s["system"] for s in report["systems"]]
    for name, style in system_styles(names).items():
        means, color = report["systems"][names.index(name)], style["color"]
        verdict = means["verdict"]  # the interval is that of the error, drawn about the verdicts' mean
        axes.plot([verdict] * 2, [verdict + means["low"], verdict + means["high"]], color=color, linewidth=1.2)
        dot = {"linestyle": "none", "marker": style["marker"], "markersize": 7, "color": color}
        axes.plot([verdict], [means["judge"]], label=f"{name} ({means['n']})", **dot)
    _draw_diagonal(axes)
    axes.set(xlabel=f"Mean {report['verdict']}", ylabel=f"Mean {report['score']}")
    axes.set_title("Systems (answers)", fontsize=9)


def _draw_reliability(axes: Axes, report: Mapping[str, Any]) -> None:
    bins = report["reliability"]
    axes.plot(
        [each["judge"] for each in bins], [each["verdict"] for each in bins], color=BLUE, marker="o", markersize=5
    )
    for each in bins:
        judge, verdict = each["judge"], each["verdict"]
        axes.plot([judge] * 2, [each["low"], each["high"]], color=BLUE, linewidth=1.2)
        # on the side of the point on which the diagonal does not run
        beside = {"xytext": (-4, 5), "ha": "right"} if verdict >= judge else {"xytext": (5, -9), "ha": "left"}
        axes.annotate(f"{each['n']}", (judge, verdict), textcoords="offset points", fontsize=7, **beside)
    _draw_diagonal(axes)
    basis = f"{report['confidence']:.0%} intervals; {report['clusters']['n']} {report['clusters']['by']}s resampled"
    axes.set(xlabel=f"{report['score']}\n{basis}", ylabel=f"Mean {report['verdict']}")
    axes.set_title("Reliability (with n)", fontsize=9)


def _draw_error_by_length(axes: Axes, report: Mapping[str, Any]) -> None:
    parts = report["length"]["terciles"]
    for x, part in enumerate(parts):
        axes.plot([x, x], [part["low"], part["high"]], color=BLUE, linewidth=1.2)
        axes.plot([x], [part["value"]], color=BLUE, marker="o", markersize=6)
    axes.axhline(0, color=GREY, linewidth=1, linestyle="--", zorder=0)
    axes.set_xticks(range(len(parts)), [f"{p['length']}\n{p['from']:,} to {p['to']:,}\nn = {p['n']}" for p in parts])
    error = f"Mean error\n{report['score']} − {report['verdict']}"
    axes.set(xlim=(-0.5, len(parts) - 0.5), xlabel="Length of the answer (characters)", ylabel=error)
    axes.set_title("Error by length", fontsize=9)


def published_figure(
    table: pd.DataFrame, *, faulty: Iterable[str] = (), confidence: float = 0.95, unit: str = "question"
) -> Figure:
    """Return the published means (true/false left, 0 to 1 right) and the recomputed ones, with their intervals.

    table: from `compare_published`; a system without row verdicts has its printed means only. faulty: systems whose
    true/false verdicts are no measurement (`faulty_systems`); they are marked.
    """
    rows = table[table["measure"].isin(list(SERIES))].copy()
    broken = (rows["measure"] == "published_bool") & rows["system"].isin(list(faulty))
    rows.loc[broken, ["low", "high"]] = float("nan")
    systems = list(rows["system"].unique())
    figure = Figure(8 + width_for(systems), 1.5 + 0.5 * max(2, len(systems)))
    if not len(rows):
        return empty_figure(figure)
    both = figure.subplots(1, 2, sharey=True)
    for panel, axes in enumerate(both):
        _draw_panel(axes, rows, systems, panel)
    for name in set(faulty).intersection(systems):
        both[0].annotate("parser fault", (0.03, systems.index(name)), va="center", fontsize=7.5, color="0.35")
    both[0].set_yticks(range(len(systems)), systems)
    both[0].set_ylim(len(systems) - 0.45, -0.55)
    plain_axes(*both)
    counts = count_range(rows["n"].dropna(), "question") if rows["n"].notna().any() else "printed means only"
    figure.supxlabel(f"Bars: {confidence:.0%} intervals from resampling {unit}s; {counts}", fontsize=8)
    handles = {label: handle for axes in both for handle, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure


def _draw_panel(axes: Axes, rows: pd.DataFrame, systems: list[str], panel: int) -> None:
    """Draw one panel; each series has its own line within a system's band."""
    present = [m for m in SERIES if SERIES[m][3] == panel and (rows["measure"] == m).any()]
    drawn = [m for m in present if not m.startswith("printed")]
    for measure in present:
        label, color, marker, _ = SERIES[measure]
        step = 0.2 * (drawn.index(measure) - (len(drawn) - 1) / 2) if measure in drawn else 0.0
        part = rows[rows["measure"] == measure]
        y = [systems.index(name) + step for name in part["system"]]
        axes.hlines(y, part["low"], part["high"], color=color, linewidth=1.6)
        big = {"markersize": 15, "markeredgewidth": 1.6} if measure.startswith("printed") else {"markersize": 6}
        axes.plot(part["value"], y, color=color, marker=marker, linestyle="none", label=label, clip_on=False, **big)
    axes.set(xlim=(0, 1), xlabel=PANEL_TITLES[panel])
    axes.grid(axis="x", color="0.92", linewidth=0.8)
    for y in range(len(systems) - 1):
        axes.axhline(y + 0.5, color="0.93", linewidth=0.8, zorder=0)
