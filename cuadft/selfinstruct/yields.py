"""Tables of what the filters let through: each step, each reason, each source, and kept beside rejected questions.

All functions take what `filters.filter_questions` returns. For example:

    accepted, rejected = filter_questions(candidates, train_rows, embedder=embedder)
    steps_table(accepted, rejected)  # a row a step: how many came in, how many went out
    print(yield_remark(accepted, rejected))  # "31 of the 40 questions that the language model wrote passed (78%)."
"""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cuadft.data.contracts import Row
from cuadft.data.rows import take_turns
from cuadft.selfinstruct.filters import REASONS, STEPS
from cuadft.selfinstruct.sources import ASK_CATEGORY, Candidate, seed_row_id

KIND_LABELS = {  # kind of candidate -> its name in a table
    "rephrase": "synthetic, rephrased",
    "ask": "synthetic, new question",
    "absent": "synthetic, absent clause",
    "template": "template",
    "own": "own",
}
WRITTEN_KINDS = ("rephrase", "ask", "absent")  # kinds that the language model writes
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


def reason_counts(accepted: Sequence[Row], rejected: Sequence[Candidate]) -> pd.DataFrame:
    """Return rows of outcome, n and share: "accepted", then every reason in the order of the steps."""
    n = _outcomes(accepted, rejected).sum()
    return pd.DataFrame({"n": n, "share": n / max(n.sum(), 1)}).rename_axis("outcome").reset_index()


def yield_by_source(accepted: Sequence[Row], rejected: Sequence[Candidate]) -> pd.DataFrame:
    """Return a row for each kind of candidate: source, candidates, accepted, share, most rejected for."""
    counts = _outcomes(accepted, rejected)
    lost, total = counts.drop(columns="accepted"), counts.sum(axis=1)
    most = (lost.idxmax(axis=1) + " (" + lost.max(axis=1).astype(str) + ")").where(lost.any(axis=1), "")
    shares = {"candidates": total, "accepted": counts["accepted"], "share": counts["accepted"] / total.clip(lower=1)}
    return pd.DataFrame(shares | {"most rejected for": most}).rename(KIND_LABELS).rename_axis("source").reset_index()


def yield_remark(accepted: Sequence[Row], rejected: Sequence[Candidate]) -> str:
    """Return how many of the language model's questions passed, and advice if they are few."""
    written = _outcomes(accepted, rejected).loc[list(WRITTEN_KINDS)]
    kept, total = written["accepted"].sum(), written.to_numpy().sum()
    if not total:
        return "The language model was asked for no question."
    said = f"{kept} of the {total} questions that the language model wrote passed ({kept / total:.0%})."
    advice = " That is a poor yield: set generator_lm to a stronger model, or rely on the templates."
    return said if kept >= POOR_YIELD * total else said + advice


def kept_and_rejected(accepted: Sequence[Row], rejected: Sequence[Candidate], *, n: int = 8) -> pd.DataFrame:
    """Return up to n rows of category, kept, rejected, reason and evidence that show what the filters did.

    The reasons take turns. A rejected question stands beside a kept one from the same seed, or else of the same
    category; no kept question is shown twice. A question without a counterpart stands alone, the kept ones last. At
    least one kept question is shown if there is any.
    """
    shown, free, beside = _in_turn(rejected, accepted, n), list(accepted), {}
    for related in (_same_seed, _same_category):
        for i, candidate in enumerate(shown):
            kept = next((row for row in free if related(row, candidate)), None)
            if i not in beside and kept is not None:
                beside[i] = kept["question"]
                free.remove(kept)
    if free and not beside:
        shown = shown[: n - 1]
    lines = [
        (c["category"], beside.get(i, ""), c["question"] or c["raw"], c["reason"], c["detail"])
        for i, c in enumerate(shown)
    ]
    lines += [(row["category"], row["question"], "", "", "") for row in free[: n - len(lines)]]
    return pd.DataFrame(lines, columns=["category", "kept", "rejected", "reason", "evidence"])


def _outcomes(accepted: Sequence[Row], rejected: Sequence[Candidate]) -> pd.DataFrame:
    """Return how many candidates of each kind (rows) were accepted or rejected for each reason (columns)."""
    found = [(_kind_of(row), "accepted") for row in accepted] + [(c["kind"], c["reason"]) for c in rejected]
    frame = pd.DataFrame(found, columns=["kind", "outcome"])
    counts = pd.crosstab(frame["kind"], frame["outcome"])
    return counts.reindex(index=list(KIND_LABELS), columns=["accepted", *REASONS], fill_value=0).astype(int)


def _kind_of(row: Row) -> str:
    """Return the kind of candidate that an accepted row was."""
    if row["source"] != "synthetic":
        return row["source"]
    if row["is_impossible"]:
        return "absent"
    return "ask" if row["category"] == ASK_CATEGORY else "rephrase"


def _in_turn(rejected: Sequence[Candidate], accepted: Sequence[Row], n: int) -> list[Candidate]:
    """Return n candidates with different texts, one of every reason before a second of any.

    Within a reason, candidates with the seed of a kept row come first, then those with the category of a kept row.
    """
    seeds, named = {seed_row_id(row["id"]) for row in accepted}, {row["category"] for row in accepted}
    order = sorted(rejected, key=lambda c: (c["seed"] not in seeds, c["category"] not in named))
    of_reason: dict[str, dict[str, Candidate]] = {reason: {} for reason in REASONS}
    for candidate in order:
        of_reason[candidate["reason"]].setdefault(candidate["question"], candidate)
    return take_turns([found.values() for found in of_reason.values()], n)


def _same_seed(row: Row, candidate: Candidate) -> bool:
    return seed_row_id(row["id"]) == candidate["seed"]


def _same_category(row: Row, candidate: Candidate) -> bool:
    return row["category"] == candidate["category"]
