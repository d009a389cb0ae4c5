"""Draw our results beside published ones.

    published_figure(table)                    # table = compare_published(...): verdicts printed, published and ours
    official_figure(table, confidence=0.95)    # table = official_table({"sft": board}): CUAD's official test split

Grey is what others report. Thin lines are intervals; a value without one has no line.
"""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from cuadft.core.text import shorten
from cuadft.evaluation.figures import style
from cuadft.evaluation.official import MEASURES, OFFICIAL_CONTRACTS

SERIES = {  # measure -> (label, colour and marker)
    "printed_bool": ("printed", {"color": style.GREY, "marker": "|"}),
    "published_bool": ("published rows", {"color": style.BLACK, "marker": "o"}),
    "printed_score": ("printed", {"color": style.GREY, "marker": "|"}),
    "published_score": ("published rows", {"color": style.BLACK, "marker": "o"}),
    "reference_score": ("our offline judge", {"color": style.BLUE, "marker": "s"}),
    "judge_score": ("our LLM judge", {"color": style.VERMILION, "marker": "^"}),
}
VERDICT_PANELS = {  # title -> its measures
    "Judged true (share of questions)": ("printed_bool", "published_bool"),
    "Judge's score (0 to 1)": ("printed_score", "published_score", "reference_score", "judge_score"),
}
OFFICIAL_PANELS = ("detection_f1", "coverage_f1", "aupr")
LONGEST_NAME = 48  # characters shown of a published system's name


def published_figure(
    table: pd.DataFrame, *, faulty: Iterable[str] = (), confidence: float = 0.95, unit: str = "question"
) -> style.Figure:
    """Return the published means (true/false left, 0 to 1 right) and the recomputed ones, with their intervals.

    table: from `compare_published`; a system without row verdicts has its printed means only, one line for each pass.
    faulty: systems whose true/false verdicts are no measurement (`faulty_systems`); they are marked.
    """
    parts = {title: table[table["measure"].isin(measures)] for title, measures in VERDICT_PANELS.items()}
    longest = max(map(len, parts.values()))
    figure = style.Figure(11, 1.5 + 0.24 * max(6, longest))
    if not longest:
        return style.empty_figure(figure)
    for axes, (title, rows) in zip(figure.subplots(1, 2), parts.items(), strict=True):
        faults = (rows["measure"] == "published_bool") & rows["system"].isin(list(faulty))
        rows = rows.assign(low=rows["low"].mask(faults), high=rows["high"].mask(faults))
        labels = [f"{row.system}: {SERIES[row.measure][0]}" for row in rows.itertuples()]
        notes = ["  parser fault" if fault else "" for fault in faults]
        style.interval_dots(axes, rows, labels, looks=[SERIES[name][1] for name in rows["measure"]], notes=notes)
        axes.set(xlim=(0, 1), xlabel=title)
    counts = style.count_range(table["n"].dropna(), "question") if table["n"].notna().any() else "printed means only"
    style.foot_note(figure, f"Bars: {confidence:.0%} intervals from resampling {unit}s; {counts}")
    return figure


def official_figure(table: pd.DataFrame, *, confidence: float = 0.95) -> style.Figure:
    """Return detection F1, coverage F1 and AUPR of our systems and the published ones, the best on top.

    table: from `official_table`. confidence: the level that our boards were made with. Each panel holds the systems
    that report its measure.
    """
    figure = style.Figure(15, 1.2 + 0.3 * table[[*OFFICIAL_PANELS]].notna().sum().max())
    if not len(table):
        return style.empty_figure(figure)
    for axes, name in zip(figure.subplots(1, 3), OFFICIAL_PANELS, strict=True):
        ends = {name: "value", f"{name}_low": "low", f"{name}_high": "high"}
        rows = table.rename(columns=ends).dropna(subset="value").sort_values("value", ascending=False, kind="stable")
        looks = [_official_look(row.system, ours=row.ours) for row in rows.itertuples()]
        style.interval_dots(axes, rows, [shorten(label, LONGEST_NAME) for label in rows["system"]], looks=looks)
        axes.set(xlim=(0, 1), xlabel=MEASURES[name][0])
    ours = table[table["ours"]]
    contracts = style.count_range(ours["n_contracts"]) if len(ours) else "none"
    basis = f"Ours: on {contracts} of the {OFFICIAL_CONTRACTS} contracts, {confidence:.0%} intervals over contracts."
    style.foot_note(figure, f"{basis} Grey: what others report, each with its own set-up.")
    return figure


def _official_look(system: str, *, ours: bool) -> dict[str, str]:
    return style.system_styles([system])[system] if ours else {"color": style.GREY, "marker": "o"}
