"""The gate: decide, on dev contracts and on earlier slices of the stream, whether a new system replaces the champion."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pandas as pd

from cuadft import champion, clauses, runs
from cuadft.errors import InputError
from cuadft.gate_text import paragraph, reason, table
from cuadft.metrics import weights
from cuadft.rule import CLAUSES, Rule
from cuadft.stats import as_columns

__all__ = ["CLAUSES", "Rule", "decide", "paragraph", "table"]

SLICES = "slices"  # the split that holds the questions of the slices' held-out contracts


def decide(
    frame: pd.DataFrame, iteration: runs.Iteration, rule: Rule | None = None, *, tuned_program: str = "rag",
    confidence: float = 0.95, n_resamples: int = 2000, seed: int = 7,
) -> dict[str, Any]:  # fmt: skip
    """Return the decision, for decision.json: the best candidate that meets every clause of the rule, or the champion.

    frame: from `metrics.score`; its test rows are dropped first, and neither they nor the order of the rows change
    anything. Keys: action (promoted or kept), incumbent (the champion's name in the frame), incumbent_score, candidate (the
    one promoted, else the one that came closest), promoted (a record of `champion`), delta (the candidate's difference on
    dev), decided_by (the clause that decided), reason, rule, confidence, tuned_program, and candidates, simple systems
    first: {"system", "score", "clauses"} (see `clauses`). Of equal means the simpler system wins. Raises InputError if the
    champion has no dev rows.
    """
    rule = rule or Rule()
    rows = _prepared(frame, iteration.number, rule.metric)
    incumbent = "incumbent" if iteration.previous else "rag"
    parts = {name: part for name, part in rows.groupby("system", sort=False)}
    before = parts.pop(incumbent, rows[:0])
    if not (before["part"] == clauses.DEV).any():
        raise InputError(f"There are no dev predictions of '{incumbent}', which the others must beat: run 03_batch_inference "
                         f"with systems including '{incumbent}' and splits including 'dev'.")
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    first = clauses.improvements(before, parts, rule, **settings)
    candidates = _tested(before, parts, first, rule, _earlier(rows, iteration), **settings)
    best, decided_by = _choice(candidates)
    delta = first[best["system"]][1] if best else None
    won = best is not None and decided_by is None
    winner = best["system"] if won else incumbent
    decision = {
        "action": "promoted" if won else "kept",
        "incumbent": incumbent, "incumbent_score": _mean(before, rule.metric), "candidate": best and best["system"],
        "promoted": champion.place(iteration, winner, tuned_program), "delta": as_columns(delta) if delta else None,
        "decided_by": decided_by or CLAUSES[0], "rule": asdict(rule), "confidence": confidence,
        "tuned_program": tuned_program, "candidates": candidates,
    }  # fmt: skip
    decision = _plain(decision)
    return decision | {"reason": reason(decision)}


def _tested(before: pd.DataFrame, parts: Mapping[str, pd.DataFrame], first: Mapping[str, Any], rule: Rule, wanted: list[int],
            **settings: Any) -> list[dict[str, Any]]:  # fmt: skip
    """Return each candidate with its mean and its clauses, simple systems first; first: those of the improvement."""
    candidates = []
    for name in sorted(parts, key=champion.simplicity):
        made = [first[name][0], clauses.slices(before, parts[name], rule, wanted, **settings),
                clauses.categories(before, parts[name], rule, **settings), *clauses.ceilings(parts[name], rule, **settings)]
        candidates.append({"system": name, "score": _mean(parts[name], rule.metric), "clauses": made})
    return candidates


def _prepared(frame: pd.DataFrame, number: int, metric: str) -> pd.DataFrame:
    """Return the rows that may decide, in an order of their own: dev, and the slices before this iteration's.

    `part` is "dev" or the slice's number (0: unknown); ids are made different between parts.
    """
    rows = frame[frame["split"].isin([clauses.DEV, SLICES])]
    dev = rows["split"] == clauses.DEV
    slices = rows["slice"] if "slice" in rows else pd.Series(math.nan, rows.index)
    earlier = slices.astype(float).fillna(0).astype(int)
    rows = rows.assign(part=earlier.astype(object).where(~dev, clauses.DEV))[dev | (earlier < number)]
    values = rows[metric].astype(float) if metric in rows else math.nan
    rows = rows.assign(id=rows["part"].astype(str) + " " + rows["id"].astype(str), **{metric: values})
    keys = ["system", "id", *[name for name in ("seed", "contract") if name in rows]]
    return rows.sort_values(keys, kind="stable", ignore_index=True)


def _earlier(rows: pd.DataFrame, iteration: runs.Iteration) -> list[int]:
    """Return the slices before this iteration's that any system answered, or that the iteration asked."""
    path = iteration.path("data", f"{SLICES}.jsonl")
    asked = {int(row["slice"]) for row in runs.read_jsonl(path)} if path.is_file() else set()
    answered = set(rows["part"]) - {clauses.DEV}
    return sorted({number for number in asked if number < iteration.number} | answered)


def _choice(candidates: list[dict[str, Any]]) -> tuple[dict[str, Any] | None, str | None]:
    """Return the candidate to promote and None, or the one that came closest and the clause that it failed.

    Closest is the best of those that improved, else the best.
    """
    measured = [one for one in candidates if not math.isnan(one["score"])]
    failed = {one["system"]: [c["clause"] for c in one["clauses"] if c["passed"] is False] for one in measured}
    for among in ([one for one in measured if not failed[one["system"]]],
                  [one for one in measured if CLAUSES[0] not in failed[one["system"]]], measured):  # fmt: skip
        if among:
            best = max(among, key=lambda one: one["score"])
            return best, next(iter(failed[best["system"]]), None)
    return None, "candidates"


def _mean(rows: pd.DataFrame, metric: str) -> float:
    """Return a system's mean on dev, NaN where the metric applies to no row."""
    dev = rows[rows["part"] == clauses.DEV]
    weight = weights(dev, metric) * dev[metric].notna().to_numpy()
    return float((dev[metric].fillna(0) * weight).sum() / weight.sum()) if weight.sum() else math.nan


def _plain(value: Any) -> Any:
    """Return a value as JSON holds it: NaN becomes None, numpy's numbers plain ones."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    value = value.item() if hasattr(value, "item") else value
    return None if isinstance(value, float) and math.isnan(value) else value
