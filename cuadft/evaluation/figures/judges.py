"""Draw published means beside recomputed ones.

    published_figure(table)     # what was printed, what the published rows give, what our judges say

The table comes from `published.compare_published`.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from cuadft.evaluation.figures import style

SERIES = {  # measure -> (label, colour and marker)
    "printed_bool": ("printed", {"color": style.GREY, "marker": "|"}),
    "published_bool": ("published rows", {"color": style.BLACK, "marker": "o"}),
    "printed_score": ("printed", {"color": style.GREY, "marker": "|"}),
    "published_score": ("published rows", {"color": style.BLACK, "marker": "o"}),
    "reference_score": ("our offline judge", {"color": style.BLUE, "marker": "s"}),
    "judge_score": ("our LLM judge", {"color": style.VERMILION, "marker": "^"}),
}
PANELS = {  # title -> its measures
    "Judged true (share of questions)": ("printed_bool", "published_bool"),
    "Judge's score (0 to 1)": ("printed_score", "published_score", "reference_score", "judge_score"),
}


def published_figure(
    table: pd.DataFrame, *, faulty: Iterable[str] = (), confidence: float = 0.95, unit: str = "question"
) -> style.Figure:
    """Return the published means (true/false left, 0 to 1 right) and the recomputed ones, with their intervals.

    table: from `compare_published`; a system without row verdicts has its printed means only, one line for each pass.
    faulty: systems whose true/false verdicts are no measurement (`faulty_systems`); they are marked.
    """
    parts = {title: table[table["measure"].isin(measures)] for title, measures in PANELS.items()}
    longest = max(map(len, parts.values()))
    figure = style.Figure(11, 1.5 + 0.24 * max(6, longest))
    if not longest:
        return style.empty_figure(figure)
    for axes, (title, rows) in zip(figure.subplots(1, 2), parts.items(), strict=True):
        faults = (rows["measure"] == "published_bool") & rows["system"].isin(list(faulty))
        rows = rows.assign(low=rows["low"].mask(faults), high=rows["high"].mask(faults))
        labels = [f"{row.system}: {SERIES[row.measure][0]}" for row in rows.itertuples()]
        notes = ["  parser fault" if fault else "" for fault in faults]
        looks = [SERIES[measure][1] for measure in rows["measure"]]
        style.interval_dots(axes, rows, labels, looks=looks, notes=notes)
        axes.set(xlim=(0, 1), xlabel=title)
    counts = style.count_range(table["n"].dropna(), "question") if table["n"].notna().any() else "printed means only"
    style.foot_note(figure, f"Bars: {confidence:.0%} intervals from resampling {unit}s; {counts}")
    return figure
