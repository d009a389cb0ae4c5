"""What API models were asked and what that used: calls, retries, failures, tokens and cost.

A notebook calls `usage_report` once, after its last call. It returns the table and leaves a note for the loop, which
marks the stage as incomplete if calls failed. For example:

    usage_report(iteration, {"judge": judge_lm, "generator": generator_lm})
"""

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
NOTE = ".note.json"  # in an iteration's folder: a message from a notebook to the loop that runs it


class Usage:
    """Counters of one endpoint, shared by threads: each call was answered, failed, not asked, or got a bad reply.

    An answer from a cache does not count as a call. cost: US dollars by LiteLLM's prices; `row` gives None if LiteLLM
    knows no price for one of the replies.
    """

    def __init__(self, model: str) -> None:
        self.model, self.counts, self.cost = model, Counter(), 0.0
        self.unpriced = 0  # replies without a known price
        self._lock = threading.Lock()

    def add(self, **counts: int) -> None:
        """Add to the counters of these names."""
        with self._lock:
            self.counts.update(counts)

    def reply(self, raw: Any) -> None:
        """Count the tokens and the cost of a LiteLLM response."""
        used, cost = getattr(raw, "usage", None), getattr(raw, "_hidden_params", {}).get("response_cost")
        self.add(**{name: getattr(used, name, None) or 0 for name in ("prompt_tokens", "completion_tokens")})
        with self._lock:
            self.cost, self.unpriced = self.cost + (cost or 0.0), self.unpriced + (cost is None)

    def row(self) -> dict[str, Any]:
        """Return the counters as one row of a table."""
        with self._lock:
            cost = None if self.unpriced else round(self.cost, 8)
            return {"model": self.model, **{name: self.counts[name] for name in COUNTS}, "cost_usd": cost}


def usage_table(lms: Mapping[str, dspy.LM]) -> pd.DataFrame:
    """Return one row for each LM behind an API, by its role; local models are left out."""
    import pandas as pd

    rows = [{"role": role, **row} for role, row in _rows(lms).items()]
    return pd.DataFrame(rows, columns=["role", "model", *COUNTS, "cost_usd"])


def usage_line(row: Mapping[str, Any]) -> str:
    """Return one row of `usage_table` as a sentence."""
    lost = [f"{row[name]} {name.replace('_', ' ')}" for name in ("failed", "not_asked", "bad_replies") if row[name]]
    calls = ", ".join([f"{row['calls']} calls", f"{row['answered']} answered", *lost, f"{row['retries']} retries"])
    cost = "cost unknown" if row["cost_usd"] is None else f"${row['cost_usd']:.4f}"
    tokens = f"{row['prompt_tokens']:,} tokens sent, {row['completion_tokens']:,} received"
    return f"{row['model']}: {calls}; {tokens}, {cost}"


def usage_total(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one row for each model with the sums of its rows; a sum is None if the cost of one row is unknown."""
    none = dict.fromkeys(COUNTS, 0) | {"cost_usd": 0.0}
    totals: dict[str, dict[str, Any]] = {}
    for row in rows:
        total = totals.setdefault(row["model"], {"model": row["model"], **none})
        total |= {name: total[name] + row[name] for name in COUNTS}
        costs = total["cost_usd"], row["cost_usd"]
        total["cost_usd"] = None if None in costs else sum(costs)
    return list(totals.values())


def usage_report(iteration: runs.Iteration, lms: Mapping[str, dspy.LM]) -> pd.DataFrame:
    """Return `usage_table` and leave a note for the loop: what was used, and which calls failed for good.

    The loop records a stage with failed calls as incomplete. The stage keeps its outputs, and the same command asks
    again for what is missing. Call this once in a notebook, after the last call.
    """
    if rows := _rows(lms):
        lacking = [
            f"{role} ({row['model']}): the endpoint failed {lost} of {row['calls']} calls"
            for role, row in rows.items()
            if (lost := row["failed"] + row["not_asked"])
        ]
        files.write_json(iteration.path(NOTE), {"endpoints": rows, "incomplete": "; ".join(lacking)})
    return usage_table(lms)


def take_note(iteration: runs.Iteration) -> dict[str, Any]:
    """Return what a notebook noted with `usage_report`, {} if it noted nothing, and remove the note."""
    path = iteration.path(NOTE)
    note = files.read_json(path) if path.is_file() else {}
    path.unlink(missing_ok=True)
    return note if isinstance(note, dict) else {}


def _rows(lms: Mapping[str, dspy.LM]) -> dict[str, dict[str, Any]]:
    """Return the counters of those LMs that have some (models behind an API), by role."""
    found = {role: getattr(getattr(lm, "engine", None), "usage", None) for role, lm in lms.items()}
    return {role: usage.row() for role, usage in found.items() if isinstance(usage, Usage)}
