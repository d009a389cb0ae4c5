"""Draw the stream: iteration by slice as a heat map, and the score on the frozen test set over iterations.

    history = collect_stream_scores(frame, it, decision, metric="quote_f1")    # in `forgetting`
    slices_figure(history, "champion")
    iterations_figure(history)

A cell's value is the mean score of an iteration's system on the held-out contracts of a slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from cuadft.core.runs import CONSTANTS
from cuadft.core.text import shorten
from cuadft.evaluation import forgetting
from cuadft.evaluation.figures import style
from cuadft.evaluation.forgetting import BASE, CHAMPION, INCUMBENT

DRAWN_SYSTEMS = (CHAMPION, "sft", BASE, *CONSTANTS)  # what `iterations_figure` shows unless told otherwise
NAME_LENGTH = 14  # most characters of a system's name in a label
FRAME_COLOUR = style.VERMILION  # of the slice just trained on: told apart from every colour of the map


def slices_figure(history: pd.DataFrame, who: str = CHAMPION) -> style.Figure:
    """Return the heat map of every iteration's mean score on every slice: value and number of questions in each cell.

    history: from `collect_stream_scores`. who: "champion" or a system, as in `slice_matrix`. The slice just trained on
    is framed; the cell above it, in italics, is what the incumbent scored there before. The first row is the base
    model. The colours reach from the lowest to the highest value. Raises InputError on a system that never answered.
    """
    cells = forgetting.slice_matrix(history, who)
    cells = cells[cells["n"] > 0]
    numbers, slices = sorted(cells["iteration"].unique()), sorted(cells["slice"].unique())
    figure = style.Figure(max(5.0, 2.5 + 0.66 * len(slices)), 1.7 + 0.32 * max(3, len(numbers)))
    if not len(cells):
        return style.empty_figure(figure)
    cells = cells.assign(x=cells["slice"].map(slices.index), y=cells["iteration"].map(numbers.index))
    after, contracts = cells[cells["when"] == "after"], cells.groupby("slice")["n_contracts"].max()
    axes = style.heatmap(
        figure,
        cells.assign(italic=cells["when"] == "before"),
        style.value_colours(cells["value"], history["metric"].iloc[0], whole=False),
        "Framed: the slice just trained on; italics: the incumbent before. Small: questions.",
        lines=[_iteration_label(n, after[after["iteration"] == n], who) for n in numbers],
        columns=[f"{n}\n({contracts[n]})" for n in slices],
    )
    for cell in after[after["iteration"] == after["slice"]].itertuples():
        place = (cell.x - 0.46, cell.y - 0.44)
        axes.add_patch(Rectangle(place, 0.92, 0.88, fill=False, edgecolor=FRAME_COLOUR, linewidth=1.8))
    axes.set(xlabel="Slice (held-out contracts)", ylabel="After iteration")
    figure.suptitle(f"{who}: {style.metric_label(history['metric'].iloc[0])}", fontsize=9)
    return figure


def iterations_figure(history: pd.DataFrame, systems: Sequence[str] = (), **resampling: Any) -> style.Figure:
    """Return the score on the frozen test set over iterations, with intervals over contracts.

    history: from `collect_stream_scores`. systems: names or "champion"; if empty, champion, sft, rag and the systems
    without a model, where they answered. Above the axes stands which system each iteration promoted, or "kept".
    resampling: as in `forgetting.scores_on_test_set`. Raises InputError on a system that never answered.
    """
    known = {*history["system"], *([CHAMPION] if history["champion"].any() else [])}
    names = list(systems) or [name for name in DRAWN_SYSTEMS if name in known]
    tables = {name: forgetting.scores_on_test_set(history, name, **resampling) for name in names}
    drawn = pd.concat([pd.DataFrame({"value": []}), *tables.values()]).dropna(subset="value")
    figure = style.Figure(max(5.0, 2.4 + 0.45 * history["iteration"].nunique()), 3.4)
    if not len(drawn):
        return style.empty_figure(figure)
    axes, looks = figure.subplots(), style.system_styles(names) | {CHAMPION: style.SYSTEM_STYLE[INCUMBENT]}
    above = {"xycoords": ("data", "axes fraction"), "xytext": (0, 4), "textcoords": "offset points", "fontsize": 7}
    for n, (name, table) in enumerate(tables.items()):
        x = table["iteration"] + 0.07 * (n - (len(names) - 1) / 2)
        axes.vlines(x, table["low"], table["high"], color=looks[name]["color"], linewidth=1.1)
        axes.plot(x, table["value"], label=shorten(name, 24), markersize=6, **looks[name])
        for row in table.itertuples() if name == CHAMPION else ():
            axes.annotate(_outcome(row.iteration, row.system), (row.iteration, 1), rotation=35, **above)
    basis = style.interval_basis(drawn, resampling.get("confidence", 0.95))
    axes.set(xlabel=f"Iteration\n{basis}, test set", ylabel=style.metric_label(history["metric"].iloc[0]))
    axes.xaxis.set_major_locator(MaxNLocator(20, integer=True))
    axes.grid(axis="y", color="0.9", linewidth=0.8)
    style.plain_axes(axes)
    style.legend_above(figure, axes)
    return figure


def _iteration_label(number: int, after: pd.DataFrame, who: str) -> str:
    if number == 0:
        return f"none ({BASE})"
    return f"{number} ({_outcome(number, after['system'].iloc[0])})" if who == CHAMPION and len(after) else str(number)


def _outcome(number: int, system: str) -> str:
    """Return the promoted system's name, or that the champion was kept."""
    return "kept" if system == (BASE if number == 1 else INCUMBENT) else shorten(system, NAME_LENGTH)
