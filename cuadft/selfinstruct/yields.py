"""Tables of what the filters let through: by step, and by source and reason.

All functions take what `filters.filter_questions` returns. For example:

    accepted, rejected = filter_questions(candidates, train_rows, embedder=embedder)
    steps_table(accepted, rejected)  # a row a step: how many came in, how many went out
    print(yield_remark(accepted, rejected))  # "31 of the 40 questions that the language model wrote passed (78%)."
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cuadft.data.contracts import Row
from cuadft.selfinstruct.filters import REASONS, STEPS
from cuadft.selfinstruct.sources import ASK_CATEGORY, Candidate

WRITTEN = "synthetic"  # written by the language model
KIND_LABELS = {  # kind of candidate -> its name in a table
    "rephrase": f"{WRITTEN}, rephrased",
    "ask": f"{WRITTEN}, new question",
    "absent": f"{WRITTEN}, absent clause",
    "template": "template",
    "own": "own",
}
POOR_YIELD = 0.2  # share of accepted among the written questions below which a yield is called poor


def steps_table(accepted: Sequence[Row], rejected: Sequence[Candidate]) -> pd.DataFrame:
    """Return a row for each step, in order: step, threshold, in, rejected, out, share.

    share: the rejected ones among the candidates that came in (0 if no candidate came in). A round trip whose call
    failed counts as rejected by that step.
    """
    lost = pd.Series([c["step"] for c in rejected], dtype=object).value_counts().reindex(list(STEPS), fill_value=0)
    left = len(accepted) + len(rejected) - lost.cumsum()
    table = pd.DataFrame({"threshold": STEPS, "in": left + lost, "rejected": lost, "out": left})
    return table.assign(share=lost / (left + lost).clip(lower=1)).rename_axis("step").reset_index()


def outcomes(accepted: Sequence[Row], rejected: Sequence[Candidate]) -> pd.DataFrame:
    """Return how many candidates of each source (rows) were accepted, or rejected for each reason (columns)."""
    found = [(_kind_of(row), "accepted") for row in accepted] + [(c["kind"], c["reason"]) for c in rejected]
    frame = pd.DataFrame(found, columns=["source", "outcome"])
    counts = pd.crosstab(frame["source"], frame["outcome"])
    counts = counts.reindex(index=list(KIND_LABELS), columns=["accepted", *REASONS], fill_value=0)
    return counts.astype(int).rename(KIND_LABELS)


def yield_remark(accepted: Sequence[Row], rejected: Sequence[Candidate]) -> str:
    """Return how many of the language model's questions passed, and advice if they are few."""
    written = outcomes(accepted, rejected).filter(like=WRITTEN, axis="index")
    kept, total = written["accepted"].sum(), written.to_numpy().sum()
    if not total:
        return "The language model was asked for no question."
    said = f"{kept} of the {total} questions that the language model wrote passed ({kept / total:.0%})."
    advice = " That is a poor yield: set generator_lm to a stronger model, or rely on the templates."
    return said if kept >= POOR_YIELD * total else said + advice


def _kind_of(row: Row) -> str:
    """Return the kind of candidate that an accepted row was."""
    if row["source"] != "synthetic":
        return row["source"]
    if row["is_impossible"]:
        return "absent"
    return "ask" if row["category"] == ASK_CATEGORY else "rephrase"
