"""Check published verdicts against themselves: a parser that failed, two kinds that disagree, passes that differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

KINDS = {"judge_bool": "true/false", "judge_score": "0 to 1"}
HIGH = 0.8  # 0-to-1 score from which a row should have been judged true
CHANCE = 0.05
ROUNDED = 0.0006  # farthest that a mean printed to three digits lies from the rows' mean


def sentences(frame: pd.DataFrame, means: pd.DataFrame) -> list[str]:
    """Return what the checks find, as plain sentences; frame and means as in `published.compare`."""
    means = means[means["system"].isin(frame["system"])]
    return [*_faults(frame), *_contradictions(frame), *_passes(frame, means), *_run_of_rows(frame, means)]


def faulty_systems(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the systems judged false on all rows although the 0-to-1 verdicts call some right, with counts.

    With h rows at `HIGH` or more in the system, and k of m such rows judged true in the others, h zeros in a row
    have probability (1 - (k + 1) / (m + 2)) ** h; a system counts as faulty if that is below `CHANCE`.
    """
    high, found = _high(frame), {}
    for system, part in frame[frame["published_bool"].notna()].groupby("system", sort=False):
        mine, others = high[high["system"] == system], high[high["system"] != system]
        true, of = int(others["published_bool"].sum()), len(others)
        chance = (1 - (true + 1) / (of + 2)) ** len(mine)
        if not part["published_bool"].any() and chance < CHANCE:
            found[str(system)] = {"n": len(part), "high": len(mine), "true": true, "of": of, "chance": chance}
    return found


def _high(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["published_bool"].notna() & (frame["published_score"] >= HIGH)]


def _faults(frame: pd.DataFrame) -> list[str]:
    return [
        f"{system}: true/false is 0 on all {f['n']} rows, although the 0-to-1 verdict of {f['high']} of them is "
        f"{HIGH} or more; in the other systems, {f['true']} of {f['of']} such rows were judged true. This points to "
        "a fault of the true/false parser: the 0 is no measurement, and is left out of the true/false comparisons."
        for system, f in faulty_systems(frame).items()
    ]


def _contradictions(frame: pd.DataFrame) -> list[str]:
    """Return how many rows of the other systems were called nearly right on one scale and false on the other."""
    high = _high(frame)
    high = high[~high["system"].isin(list(faulty_systems(frame)))]
    parts = {system: part["published_bool"] < 0.5 for system, part in high.groupby("system", sort=False)}
    if not any(false.any() for false in parts.values()):
        return []
    most_first = sorted(parts.items(), key=lambda item: -item[1].mean())
    listed = ", ".join(f"{false.sum()} of {len(false)} of {system}" for system, false in most_first)
    return [f"Of the rows with a 0-to-1 verdict of {HIGH} or more, true/false calls false: {listed}. So the two "
            "kinds of verdict need not order systems alike."]


def _passes(frame: pd.DataFrame, means: pd.DataFrame) -> list[str]:
    """Return how far the printed passes of the same judge over the same answers differ."""
    lines = []
    for verdict, part in means.groupby("verdict", sort=False):
        runs = part.pivot_table(index="system", columns="run", values="value", sort=False)
        gaps = (runs.max(axis=1) - runs.min(axis=1)).round(6)
        if runs.shape[1] < 2 or not gaps.max() > 0:
            continue
        worst, differing = gaps.idxmax(), int((gaps > 0).sum())
        n = frame.loc[frame["system"] == worst, "id"].nunique()
        unit = f" ({round(gaps.max() * n)} of {n} questions)" if verdict == "judge_bool" and n else ""
        printed = " and ".join(f"{value:.3f}" for value in runs.loc[worst].dropna())
        lines.append(f"The judge's printed passes ({KINDS[verdict]}) over the same answers differ for {differing} "
                     f"of {len(gaps)} systems, most for {worst}: {printed}{unit}. So much can come from the "
                     "judge alone.")  # fmt: skip
    return lines


def _run_of_rows(frame: pd.DataFrame, means: pd.DataFrame) -> list[str]:
    """Return which printed pass the row-by-row verdicts belong to, or that they match none."""
    rows = frame.dropna(subset=["published_score"]).groupby("system")["published_score"].mean()
    score = means[means["verdict"] == "judge_score"]
    printed = score.pivot_table(index="system", columns="run", values="value")
    both = [system for system in rows.index if system in printed.index]
    if not both:
        return []
    gaps = printed.loc[both].sub(rows[both], axis=0).abs()  # NaN: not printed
    runs = [run for run in gaps if gaps[run].max() <= ROUNDED]
    if not runs:
        off = gaps.min(axis=1).max()
        return [f"The row-by-row verdicts have other means than those printed (by up to {off:.3f})."]
    return [f"The row-by-row verdicts are those of pass {runs[0]}."] if len(printed.columns) > len(runs) else []
