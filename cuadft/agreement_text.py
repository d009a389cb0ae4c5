"""The calibration report of `agreement` in plain words (Markdown)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

MEASURES = {
    "spearman": "Spearman's rank correlation over rows",
    "kendall": "Kendall's tau-b over rows",
    "kappa": "Cohen's kappa: agreement on right and wrong beyond chance",
}


def markdown(report: Mapping[str, Any]) -> str:
    """Return a report of `agreement.report` as Markdown: what was compared, the figures, and how to read them."""
    parts = [_opening(report)]
    if report["n"]:
        parts += [_rows(report), _systems(report), _reliability(report), _length(report)]
    return "\n\n".join(parts) + "\n"


def _opening(report: Mapping[str, Any]) -> str:
    groups = report["clusters"]
    left = ", ".join(f"{n} {why}" for why, n in report["left_out"].items())
    return (f"## How far `{report['score']}` agrees with `{report['verdict']}`\n\n"
            f"Compared: {report['n']} answers of {len(report['systems'])} systems. "
            f"Left out: {sum(report['left_out'].values())}{f' ({left})' if left else ''}. "
            f"In brackets: {report['confidence']:.0%} intervals from resampling the {groups['n']} {groups['by']}s. "
            f"A row counts as right from a score of {report['threshold']:g}. Nothing was fitted for this report; a "
            "judge that was fitted to these very verdicts looks better here than it is.")  # fmt: skip


def _rows(report: Mapping[str, Any]) -> str:
    sides, error = report["sides"], report["error"]
    lines = [(label, _figure(report["rows"][name])) for name, label in MEASURES.items()]
    lines += [
        ("Rows on the same side of the threshold", f"{_share(sides['agreement'])} ({sides['both']} both right, "
         f"{sides['neither']} both wrong, {sides['judge_only']} right for the judge only, "
         f"{sides['verdict_only']} for the verdict only)"),
        ("Mean error, judge minus verdict", _figure(error, signed=True)),
        ("Mean absolute error of a row", _number(error["absolute"])),
        ("Mean absolute error of a system's mean", f"{_number(report['system_error']['mean'])}, largest "
         f"{_number(report['system_error']['largest'])}"),
    ]  # fmt: skip
    return table(("Measure", "Value"), lines)


def _systems(report: Mapping[str, Any]) -> str:
    lines = [(s["system"], s["n"], _number(s["judge"]), _number(s["verdict"]),
              _figure({"value": s["error"], "low": s["low"], "high": s["high"]}, signed=True),
              _figure({"value": s["spearman"], "reason": s["reason"]}))
             for s in report["systems"]]  # fmt: skip
    found = report["ranking"]
    order = f"Best first by the judge: {', '.join(found['judge'])}; by the verdicts: {', '.join(found['verdict'])}. "
    if found["same_order"] is None:
        order += f"No order to compare: {found['reason'] or 'the verdicts rank no system.'}"
    elif found["same_order"]:
        order += "The judge keeps the order of the verdicts."
    else:
        pairs = ", ".join(f"{better} above {worse}" for better, worse in found["turned"])
        order += f"The judge does not confirm what the verdicts say: {pairs} (Kendall {_number(found['kendall'])})."
    head = ("System", "n", "Judge", "Verdict", "Error", "Spearman")
    return "### Systems\n\n" + table(head, lines) + "\n\n" + escaped(order)


def _reliability(report: Mapping[str, Any]) -> str:
    lines = [(_span(b["from"], b["to"], "{:.2g}"), b["n"], _number(b["judge"]), _figure(b | {"value": b["verdict"]}))
             for b in report["reliability"]]  # fmt: skip
    return ("### Reliability\n\n" + table(("Judge score", "n", "Mean score", "Mean verdict"), lines) +
            "\n\nA calibrated judge has the same mean in both columns. Mean distance, weighted by n: "
            f"{_number(report['calibration_error'])}.")  # fmt: skip


def _length(report: Mapping[str, Any]) -> str:
    found = report["length"]
    lines = [(f"{t['length']} ({_span(t['from'], t['to'], '{:,}')} characters)", t["n"], _figure(t, signed=True))
             for t in found["terciles"]]  # fmt: skip
    return ("### Length of the answer\n\n" + table(("Answers", "n", "Mean error"), lines) +
            "\n\nCorrelation of the error with the logarithm of the length: "
            f"{_figure(found['correlation'], signed=True)}. Above zero, the judge favours long answers more than the "
            "verdicts do.")  # fmt: skip


def table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    cells = [[escaped(str(cell)) for cell in line] for line in (head, ["---"] * len(head), *lines)]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)


def escaped(text: str) -> str:
    """Return a text as one line in which Markdown finds no table, link, emphasis, formula or HTML."""
    return re.sub(r"[\\`*<|$]|\](?=\()", r"\\\g<0>", " ".join(text.split()))


def _figure(found: Mapping[str, Any], *, signed: bool = False) -> str:
    if math.isnan(found["value"]):
        return f"– ({found.get('reason') or 'not defined'})"
    low, high = found.get("low", math.nan), found.get("high", math.nan)
    bounds = "" if math.isnan(low) else f" [{_number(low, signed)}, {_number(high, signed)}]"
    return _number(found["value"], signed) + bounds


def _number(value: float, signed: bool = False) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:{'+' if signed else ''}.3f}".replace("-", "−")


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.0%}"


def _span(low: float, high: float, form: str) -> str:
    return form.format(low) if low == high else f"{form.format(low)} to {form.format(high)}"
