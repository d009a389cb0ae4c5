"""Draw published means beside recomputed ones.

    published_figure(table)     # what was printed, what the published rows give, what our judges say

The table comes from `published.compare_published`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
from matplotlib.axes import Axes

from cuadft.evaluation.figures import style

SERIES = {  # measure -> (label, colour, marker, panel)
    "printed_bool": ("printed mean, one mark per pass", style.GREY, "|", 0),
    "published_bool": ("mean of the published rows", style.BLACK, "o", 0),
    "printed_score": ("printed mean, one mark per pass", style.GREY, "|", 1),
    "published_score": ("mean of the published rows", style.BLACK, "o", 1),
    "reference_score": ("our offline judge", style.BLUE, "s", 1),
    "judge_score": ("our LLM judge", style.VERMILION, "^", 1),
}
PANEL_TITLES = ("Judged true (share of questions)", "Judge's score (0 to 1)")


def published_figure(
    table: pd.DataFrame, *, faulty: Iterable[str] = (), confidence: float = 0.95, unit: str = "question"
) -> style.Figure:
    """Return the published means (true/false left, 0 to 1 right) and the recomputed ones, with their intervals.

    table: from `compare_published`; a system without row verdicts has its printed means only. faulty: systems whose
    true/false verdicts are no measurement (`faulty_systems`); they are marked.
    """
    rows = table[table["measure"].isin(list(SERIES))].copy()
    broken = (rows["measure"] == "published_bool") & rows["system"].isin(list(faulty))
    rows.loc[broken, ["low", "high"]] = float("nan")
    systems = list(rows["system"].unique())
    figure = style.Figure(8 + style.width_for(systems), 1.5 + 0.5 * max(2, len(systems)))
    if not len(rows):
        return style.empty_figure(figure)
    both = figure.subplots(1, 2, sharey=True)
    for panel, axes in enumerate(both):
        _draw_panel(axes, rows, systems, panel)
    for name in set(faulty).intersection(systems):
        both[0].annotate("parser fault", (0.03, systems.index(name)), va="center", fontsize=7.5, color="0.35")
    both[0].set_yticks(range(len(systems)), systems)
    both[0].set_ylim(len(systems) - 0.45, -0.55)
    style.plain_axes(*both)
    counts = style.count_range(rows["n"].dropna(), "question") if rows["n"].notna().any() else "printed means only"
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
