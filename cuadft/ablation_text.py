"""The report of an ablation in plain words (Markdown)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cuadft import ablation_report
from cuadft.agreement_text import escaped, table
from cuadft.findings import ALONE, LARGER, noise
from cuadft.overview import duration
from cuadft.pooled import counted

if TYPE_CHECKING:
    import pandas as pd

    from cuadft.ablation_report import Arm

LABELS = {"f1": "answer F1", "f1_answerable": "answer F1 where the clause exists",
          "f1_no_clause": "answer F1 where there is no clause"}  # fmt: skip
ONE_TRAINING = (
    "Each value was run once: the intervals say what other contracts could change, not what another seed of the "
    "training could. Repeat with `--set seed=8` and another `--run-dir` before a small difference is believed."
)


def markdown(name: str, a: Arm, b: Arm, deltas: pd.DataFrame, notes: Sequence[str], *, preset: str,
             overrides: Sequence[str] = (), confidence: float = 0.95) -> str:  # fmt: skip
    """Return the report: what ran, every paired difference, and what exceeds the noise."""
    given = f", with {', '.join(f'`{o}`' for o in overrides)}" if overrides else ""
    opening = (f"Preset `{preset}`{given}, run with `{name}={a.value}` (A) and `{name}={b.value}` (B); all other "
               "parameters and seeds are the same, and so are the test questions.")  # fmt: skip
    reading = (f"In brackets: {confidence:.0%} intervals that resample whole contracts. Holm: p corrected over all "
               "differences in these tables. Detectable: the true difference that would be found four times in five.")
    parts = [
        f"# Ablation of {escaped(name)}: {escaped(a.value)} against {escaped(b.value)}", opening, _arms(name, a, b),
        "## Findings", _bullets(findings(name, a, b, deltas, confidence)), "## Paired differences, B minus A",
        *(f"### {part.capitalize()}\n\n{_table(own)}" for part, own in deltas.groupby("part", sort=False)),
        reading, ONE_TRAINING, _bullets(notes),
    ]  # fmt: skip
    return "\n\n".join(part for part in parts if part) + "\n"


def _arms(name: str, a: Arm, b: Arm) -> str:
    trained = [ablation_report.steps(arm.iteration) for arm in (a, b)]
    lines = [["run folder", *(arm.iteration.run.name for arm in (a, b))]]
    lines += [[f"training steps, {folder}", *(each.get(folder, "none") for each in trained)]
              for folder in dict.fromkeys([*trained[0], *trained[1]])]  # fmt: skip
    lines += [
        ["generated rows on offer", *(_offered(arm) for arm in (a, b))],
        ["time of all stages", *(duration(ablation_report.seconds(arm.iteration)) for arm in (a, b))],
    ]
    return table(["", f"A: {name}={a.value}", f"B: {name}={b.value}"], lines)


def _offered(arm: Arm) -> str:
    found = ablation_report.sources(arm.iteration)
    listed = ", ".join(f"{source} {n:,}" for source, n in sorted(found.items()))
    return f"{found.total():,}" + (f" ({listed})" if listed else "")


def findings(name: str, a: Arm, b: Arm, deltas: pd.DataFrame, confidence: float) -> list[str]:
    """Return what can be said of the difference, "no difference" included, and what speaks against the comparison."""
    told = []
    trained = [ablation_report.steps(arm.iteration) for arm in (a, b)]
    for folder in dict.fromkeys([*trained[0], *trained[1]]):
        steps = [each.get(folder, 0) for each in trained]
        if steps[0] != steps[1]:
            told.append(f"Not at equal steps: {folder} was trained for {steps[0]} steps in A and {steps[1]} in B, so "
                        f"that the differences are not those of {name} alone.")
    if name == "use_synthetic" and not ablation_report.sources(b.iteration).total():
        told.append("data/synthetic.jsonl is empty: there was nothing more to train on, so that this shows nothing.")
    if deltas["identical"].all():
        return [*told, f"Every score is the same with either value: {name} changed nothing that is measured here."]
    shown = [row for row in deltas.to_dict("records") if row["system"] == ablation_report.HEADLINE[row["part"]]]
    return [*told, *(_sentence(name, a, b, row, confidence) for row in shown or deltas.to_dict("records"))]


def _sentence(name: str, a: Arm, b: Arm, row: dict[str, Any], confidence: float) -> str:
    what = f"{_label(row['metric'])} of {row['system']}"
    if row["identical"]:
        return f"{what}: no difference, every question has the same score ({row['a']:.3f})."
    n = f"{counted(row['n'], 'question')} of {counted(row['n_contracts'], 'contract')}"
    if math.isnan(row["p"]):
        return f"{what}: {row['value']:+.3f} on {n}, too few to test."
    bounds = f"[{row['low']:+.3f}, {row['high']:+.3f}]"
    test = f"{row['value']:+.3f} {bounds}, p {row['p']:.2g}, Holm {row['p_holm']:.2g}, on {n}"
    verdict = noise(row, confidence)
    if verdict in (LARGER, ALONE):
        better = b if row["value"] > 0 else a
        return f"{what}: better with {name}={better.value}, {test}; {verdict}."
    missed = f" A true difference below {row['detectable']:.3f} would be missed more than one time in five." if \
        row["detectable"] > 0 else ""  # fmt: skip
    return f"{what}: no difference shown ({verdict}), {test}.{missed}"


def _table(rows: pd.DataFrame) -> str:
    head = ("System", "Metric", "A", "B", "B − A", "n", "contracts", "p", "Holm", "Detectable")
    lines = [(row.system, row.metric, f"{row.a:.3f}", f"{row.b:.3f}", _delta(row), f"{row.n:,}", row.n_contracts,
              _p(row.p), _p(row.p_holm), f"{row.detectable:.3f}" if row.detectable > 0 else "–")
             for row in rows.itertuples()]  # fmt: skip
    return table(head, lines)


def _delta(row: Any) -> str:
    bounds = f" [{row.low:+.3f}, {row.high:+.3f}]" if row.low == row.low else ""
    return "same" if row.identical else f"{row.value:+.3f}{bounds}"


def _p(value: float) -> str:
    return f"{value:.2g}" if value == value else "–"


def _label(metric: str) -> str:
    kind, _, k = metric.partition("@")
    return {"hit": "hit", "char_recall": "character recall"}[kind] + f"@{k}" if k else LABELS[metric]


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(line)}" for line in lines)
