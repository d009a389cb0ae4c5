"""Draw a calibration report of `agreement`: means of systems, reliability curve, error by length of the answer.

Draw published means beside recomputed ones: the verdicts' own uncertainty, and what another judge says.
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
    empty_figure,
    plain_axes,
    span,
    system_styles,
    width_for,
)


def agreement_figure(report: Mapping[str, Any]) -> Figure:
    """Return three panels: each system's mean by judge and verdict, the reliability curve, the error by length.

    report: from `agreement.report`. On the dashed lines judge and verdicts agree; thin lines are intervals.
    """
    if not report["n"]:
        return empty_figure(Figure())
    figure = Figure(9.6, 3.5 + 0.2 * -(-len(report["systems"]) // 4))
    systems, curve, length = figure.subplots(1, 3)
    _systems(systems, report)
    _curve(curve, report)
    _length(length, report)
    plain_axes(systems, curve, length)
    figure.legend(loc="outside lower center", ncols=4, fontsize=7.5, frameon=False, handletextpad=0.1)
    return figure


def _diagonal(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", zorder=0)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])


def _systems(axes: Axes, report: Mapping[str, Any]) -> None:
    names = [s["system"] for s in report["systems"]]
    for name, style in system_styles(names).items():
        line = report["systems"][names.index(name)]
        # the interval is that of the error, drawn about the verdicts' mean
        axes.plot(
            [line["verdict"]] * 2,
            [line["verdict"] + line["low"], line["verdict"] + line["high"]],
            color=style["color"],
            linewidth=1.2,
        )
        axes.plot(
            [line["verdict"]],
            [line["judge"]],
            linestyle="none",
            markersize=7,
            label=f"{name} ({line['n']})",
            color=style["color"],
            marker=style["marker"],
        )
    _diagonal(axes)
    axes.set(xlabel=f"Mean {report['verdict']}", ylabel=f"Mean {report['score']}")
    axes.set_title("Systems (answers)", fontsize=9)


def _curve(axes: Axes, report: Mapping[str, Any]) -> None:
    bins = report["reliability"]
    axes.plot([b["judge"] for b in bins], [b["verdict"] for b in bins], color=BLUE, marker="o", markersize=5)
    for b in bins:
        axes.plot([b["judge"]] * 2, [b["low"], b["high"]], color=BLUE, linewidth=1.2)
        above = b["verdict"] >= b["judge"]  # the side of the point on which the diagonal does not run
        axes.annotate(
            f"{b['n']}",
            (b["judge"], b["verdict"]),
            xytext=(-4, 5) if above else (5, -9),
            ha="right" if above else "left",
            textcoords="offset points",
            fontsize=7,
        )
    _diagonal(axes)
    basis = f"{report['confidence']:.0%} intervals; {report['clusters']['n']} {report['clusters']['by']}s resampled"
    axes.set(xlabel=f"{report['score']}\n{basis}", ylabel=f"Mean {report['verdict']}")
    axes.set_title("Reliability (with n)", fontsize=9)


def _length(axes: Axes, report: Mapping[str, Any]) -> None:
    parts = report["length"]["terciles"]
    for x, part in enumerate(parts):
        axes.plot([x, x], [part["low"], part["high"]], color=BLUE, linewidth=1.2)
        axes.plot([x], [part["value"]], color=BLUE, marker="o", markersize=6)
    axes.axhline(0, color=GREY, linewidth=1, linestyle="--", zorder=0)
    axes.set_xticks(range(len(parts)), [f"{p['length']}\n{p['from']:,} to {p['to']:,}\nn = {p['n']}" for p in parts])
    axes.set(
        xlim=(-0.5, len(parts) - 0.5),
        xlabel="Length of the answer (characters)",
        ylabel=f"Mean error\n{report['score']} − {report['verdict']}",
    )
    axes.set_title("Error by length", fontsize=9)


SERIES = {  # measure -> (label, colour, marker, panel)
    "printed_bool": ("printed mean, one mark per pass", GREY, "|", 0),
    "published_bool": ("mean of the published rows", BLACK, "o", 0),
    "printed_score": ("printed mean, one mark per pass", GREY, "|", 1),
    "published_score": ("mean of the published rows", BLACK, "o", 1),
    "reference_score": ("our offline judge", BLUE, "s", 1),
    "judge_score": ("our LLM judge", VERMILION, "^", 1),
}
PANELS = ("Judged true (share of questions)", "Judge's score (0 to 1)")


def published_figure(
    table: pd.DataFrame, *, faulty: Iterable[str] = (), confidence: float = 0.95, unit: str = "question"
) -> Figure:
    """Return the published means (true/false left, 0 to 1 right) and the recomputed ones, with their intervals.

    table: from `published.compare`; a system without row verdicts has its printed means only. faulty: systems whose
    true/false verdicts are no measurement (`verdict_checks.faulty_systems`); they are marked.
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
        _panel(axes, rows, systems, panel)
    for name in set(faulty).intersection(systems):
        both[0].annotate("parser fault", (0.03, systems.index(name)), va="center", fontsize=7.5, color="0.35")
    both[0].set_yticks(range(len(systems)), systems)
    both[0].set_ylim(len(systems) - 0.45, -0.55)
    plain_axes(*both)
    counts = span(rows["n"].dropna(), "question") if rows["n"].notna().any() else "printed means only"
    figure.supxlabel(f"Bars: {confidence:.0%} intervals from resampling {unit}s; {counts}", fontsize=8)
    handles = {label: handle for axes in both for handle, label in zip(*axes.get_legend_handles_labels())}
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    return figure


def _panel(axes: Axes, rows: pd.DataFrame, systems: list[str], panel: int) -> None:
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
    axes.set(xlim=(0, 1), xlabel=PANELS[panel])
    axes.grid(axis="x", color="0.92", linewidth=0.8)
    for y in range(len(systems) - 1):
        axes.axhline(y + 0.5, color="0.93", linewidth=0.8, zorder=0)
