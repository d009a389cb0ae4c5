"""What endpoints were asked and what that used: calls, retries, failures, tokens and cost; unfinished work is noted."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from cuadft.core import files, runs

if TYPE_CHECKING:
    import dspy
    import pandas as pd


COUNTS = ("calls", "answered", "retries", "failed", "not_asked", "bad_replies", "prompt_tokens", "completion_tokens")
NOTE = ".note.json"  # in an iteration's folder, from a notebook to the loop that runs it


class Usage:
    """Counters of one endpoint, for many threads: a call is answered, failed, not asked or got a bad reply.

    A cached answer is no call. cost: US dollars by LiteLLM's prices, None if it knows no price of some reply.
    """

    def __init__(self, model: str) -> None:
        self.model, self.counts, self.cost = model, dict.fromkeys(COUNTS, 0), 0.0
        self.others: Counter[str] = Counter()  # models that replies name instead of the one asked for
        self.unpriced = 0
        self._lock = threading.Lock()

    def add(self, **counts: int) -> None:
        """Add to the counters of these names."""
        with self._lock:
            for name, count in counts.items():
                self.counts[name] += count

    def reply(self, raw: Any) -> None:
        """Count what a response of LiteLLM used, and who gave it."""
        used, cost = getattr(raw, "usage", None), getattr(raw, "_hidden_params", {}).get("response_cost")
        self.add(
            prompt_tokens=getattr(used, "prompt_tokens", None) or 0,
            completion_tokens=getattr(used, "completion_tokens", None) or 0,
        )
        with self._lock:
            self.cost, self.unpriced = self.cost + (cost or 0.0), self.unpriced + (cost is None)
            if raw.model and not _same(self.model, raw.model):
                self.others[raw.model] += 1

    def row(self) -> dict[str, Any]:
        """Return the counters as one row of a table."""
        with self._lock:
            cost = None if self.unpriced else round(self.cost, 8)
            others = ", ".join(f"{name} ({n})" for name, n in sorted(self.others.items()))
            return {"model": self.model, **self.counts, "cost_usd": cost, "other_models": others}


def usage_table(lms: Mapping[str, dspy.LM]) -> pd.DataFrame:
    """Return one row for each LM that is an endpoint, by its role; local models have none."""
    import pandas as pd

    rows = [{"role": role, **usage.row()} for role, usage in _usages(lms).items()]
    return pd.DataFrame(rows, columns=["role", "model", *COUNTS, "cost_usd", "other_models"])


def usage_line(row: Mapping[str, Any]) -> str:
    """Return one row of `table` as a sentence."""
    lost = [f"{row[name]} {name.replace('_', ' ')}" for name in ("failed", "not_asked", "bad_replies") if row[name]]
    cost = "cost unknown" if row["cost_usd"] is None else f"${row['cost_usd']:.4f}"
    others = f"; other models answered: {row['other_models']}" if row["other_models"] else ""
    calls = ", ".join([f"{row['calls']} calls", f"{row['answered']} answered", *lost, f"{row['retries']} retries"])
    tokens = f"{row['prompt_tokens']:,} tokens sent, {row['completion_tokens']:,} received"
    return f"{row['model']}: {calls}; {tokens}, {cost}{others}"


def usage_total(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each model: the sums of its rows; a cost is unknown if one of its parts is."""
    sums: dict[str, dict[str, Any]] = {}
    for row in rows:
        known = sums.setdefault(row["model"], dict.fromkeys(COUNTS, 0) | {"cost_usd": 0.0, "other_models": ""})
        known |= {name: known[name] + row[name] for name in COUNTS}
        costs = known["cost_usd"], row["cost_usd"]
        known["cost_usd"] = None if None in costs else sum(costs)
        known["other_models"] = ", ".join(filter(None, (known["other_models"], row["other_models"])))
    return [{"model": model, **row} for model, row in sums.items()]


def usage_report(iteration: runs.Iteration, lms: Mapping[str, dspy.LM]) -> pd.DataFrame:
    """Return `table` and leave a note for the loop: what was used, and whether calls are left that must be made again.

    A stage with such calls is recorded as incomplete; it keeps its outputs, and the same command makes up for them.
    Call it once in a notebook, after the last call.
    """
    usages = _usages(lms)
    lacking = [text for role, usage in usages.items() if (text := _lacking(role, usage))]
    if usages:
        note = {"endpoints": {role: usage.row() for role, usage in usages.items()}, "incomplete": "; ".join(lacking)}
        files.write_json(iteration.path(NOTE), note)
    return usage_table(lms)


def take_note(iteration: runs.Iteration) -> dict[str, Any]:
    """Return what a notebook noted with `report` ({} if nothing), and remove it."""
    path = iteration.path(NOTE)
    note = files.read_json(path) if path.is_file() else {}
    path.unlink(missing_ok=True)
    return note if isinstance(note, dict) else {}


def _usages(lms: Mapping[str, dspy.LM]) -> dict[str, Usage]:
    found = {role: getattr(getattr(lm, "engine", None), "usage", None) for role, lm in lms.items()}
    return {role: usage for role, usage in found.items() if isinstance(usage, Usage)}


def _lacking(role: str, usage: Usage) -> str:
    counts = usage.row()
    if not (lost := counts["failed"] + counts["not_asked"]):
        return ""
    return f"{role} ({usage.model}): the endpoint failed {lost} of {counts['calls']} calls"


def _same(asked: str, named: str) -> bool:
    """Say whether a reply's model is the one asked for, perhaps with a date or a provider before it."""
    asked, named = (name.rpartition("/")[2].lower() for name in (asked, named))
    return named.startswith(asked) or asked.endswith(named)
