"""Draw a calibration report of `agreement`: means of systems, reliability curve, error by length of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.axes import Axes

from cuadft.drawing import BLUE, GREY, Figure, empty, plain, styles


def agreement(report: Mapping[str, Any]) -> Figure:
    """Return three panels: each system's mean by judge and verdict, the reliability curve, the error by length.

    report: from `agreement.report`. On the dashed lines judge and verdicts agree; thin lines are intervals.
    """
    if not report["n"]:
        return empty(Figure())
    figure = Figure(9.6, 3.5 + 0.2 * -(-len(report["systems"]) // 4))
    systems, curve, length = figure.subplots(1, 3)
    _systems(systems, report)
    _curve(curve, report)
    _length(length, report)
    plain(systems, curve, length)
    figure.legend(loc="outside lower center", ncols=4, fontsize=7.5, frameon=False, handletextpad=0.1)
    return figure


def _diagonal(axes: Axes) -> None:
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--", zorder=0)
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    axes.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])


def _systems(axes: Axes, report: Mapping[str, Any]) -> None:
    names = [s["system"] for s in report["systems"]]
    for name, style in styles(names).items():
        line = report["systems"][names.index(name)]
        # the interval is that of the error, drawn about the verdicts' mean
        axes.plot([line["verdict"]] * 2, [line["verdict"] + line["low"], line["verdict"] + line["high"]],
                  color=style["color"], linewidth=1.2)  # fmt: skip
        axes.plot([line["verdict"]], [line["judge"]], linestyle="none", markersize=7, label=f"{name} ({line['n']})",
                  color=style["color"], marker=style["marker"])  # fmt: skip
    _diagonal(axes)
    axes.set(xlabel=f"Mean {report['verdict']}", ylabel=f"Mean {report['score']}")
    axes.set_title("Systems (answers)", fontsize=9)


def _curve(axes: Axes, report: Mapping[str, Any]) -> None:
    bins = report["reliability"]
    axes.plot([b["judge"] for b in bins], [b["verdict"] for b in bins], color=BLUE, marker="o", markersize=5)
    for b in bins:
        axes.plot([b["judge"]] * 2, [b["low"], b["high"]], color=BLUE, linewidth=1.2)
        above = b["verdict"] >= b["judge"]  # the side of the point on which the diagonal does not run
        axes.annotate(f"{b['n']}", (b["judge"], b["verdict"]), xytext=(-4, 5) if above else (5, -9),
                      ha="right" if above else "left", textcoords="offset points", fontsize=7)  # fmt: skip
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
    axes.set(xlim=(-0.5, len(parts) - 0.5), xlabel="Length of the answer (characters)",
             ylabel=f"Mean error\n{report['score']} − {report['verdict']}")  # fmt: skip
    axes.set_title("Error by length", fontsize=9)
