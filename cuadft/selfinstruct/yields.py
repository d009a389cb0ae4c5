"""What the filter of new questions let through: tables of its steps, pairs of kept and rejected, a plain verdict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from cuadft.data.contracts import Row
from cuadft.selfinstruct.filters import REASONS, STEPS
from cuadft.selfinstruct.sources import ASK_CATEGORY, Candidate, seed_row_id

KINDS = {
    "rephrase": "synthetic, rephrased",
    "ask": "synthetic, new question",
    "absent": "synthetic, absent clause",
    "template": "template",
    "own": "own",
}
WRITTEN = ("rephrase", "ask", "absent")  # by the language model
POOR = 0.2  # share of written questions below which a generator is called weak


def steps_table(
    accepted: Sequence[Row], rejected: Sequence[Candidate], *, min_similarity: float = 0.3, min_f1: float = 0.5
) -> list[dict[str, Any]]:
    """Return one record a step, in order: {"step", "threshold", "in", "rejected", "out", "share"}.

    share: rejected of those that came in (0 if none did). Give the limits that `filter` was given. A round trip
    whose call failed counts at that step.
    """
    found, left, records = Counter(c["step"] for c in rejected), len(accepted) + len(rejected), []
    for step, threshold in STEPS.items():
        limit = threshold.format(min_similarity=min_similarity, min_f1=min_f1)
        records.append(
            {
                "step": step,
                "threshold": limit,
                "in": left,
                "rejected": found[step],
                "out": left - found[step],
                "share": found[step] / max(left, 1),
            }
        )
        left -= found[step]
    return records


def reason_counts(accepted: Sequence[Row], rejected: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return a table {"outcome", "n", "share"}: accepted, then every reason in the order of the steps."""
    found = Counter(candidate["reason"] for candidate in rejected) | Counter({"accepted": len(accepted)})
    total = max(found.total(), 1)
    return [{"outcome": name, "n": found[name], "share": found[name] / total} for name in ("accepted", *REASONS)]


def yield_by_source(accepted: Sequence[Row], rejected: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return one record a kind of candidate: {"source", "candidates", "accepted", "share", "most_rejected_for"}."""
    kept = Counter(yield_kind(row) for row in accepted)
    records = []
    for kind, name in KINDS.items():
        reasons = Counter(c["reason"] for c in rejected if c["kind"] == kind)
        n = kept[kind] + reasons.total()
        most = f"{reasons.most_common(1)[0][0]} ({reasons.most_common(1)[0][1]})" if reasons else ""
        records.append(
            {
                "source": name,
                "candidates": n,
                "accepted": kept[kind],
                "share": kept[kind] / max(n, 1),
                "most_rejected_for": most,
            }
        )
    return records


def yield_kind(row: Row) -> str:
    """Return the kind of candidate that an accepted row was."""
    if row["source"] != "synthetic":
        return row["source"]
    if row["is_impossible"]:
        return "absent"
    return "ask" if row["category"] == ASK_CATEGORY else "rephrase"


def kept_and_rejected(accepted: Sequence[Row], rejected: Sequence[Candidate], *, n: int = 8) -> list[dict[str, str]]:
    """Return up to n records {"category", "kept", "rejected", "reason", "evidence"}: rejected ones of every reason in
    turn, each beside a kept one of the same seed, else of the same category, none of them twice.

    What has no counterpart stands alone, kept ones last; at least one kept is shown if there is any.
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
    records = [
        {
            "category": c["category"],
            "kept": beside.get(i, ""),
            "rejected": c["question"] or c["raw"],
            "reason": c["reason"],
            "evidence": c["detail"],
        }
        for i, c in enumerate(shown)
    ]
    blank = {"rejected": "", "reason": "", "evidence": ""}
    return records + [{"category": r["category"], "kept": r["question"]} | blank for r in free[: n - len(records)]]


def _same_seed(row: Row, candidate: Candidate) -> bool:
    return seed_row_id(row["id"]) == candidate["seed"]


def _same_category(row: Row, candidate: Candidate) -> bool:
    return row["category"] == candidate["category"]


def _in_turn(rejected: Sequence[Candidate], accepted: Sequence[Row], n: int) -> list[Candidate]:
    """Return n candidates with different texts, one of every reason before a second; first those like a kept one."""
    seeds, named = {seed_row_id(row["id"]) for row in accepted}, {row["category"] for row in accepted}
    order = sorted(rejected, key=lambda c: (c["seed"] not in seeds, c["category"] not in named))
    turn: Counter[str] = Counter()
    placed, seen = [], set()
    for candidate in order:
        if (candidate["reason"], candidate["question"]) not in seen:
            seen.add((candidate["reason"], candidate["question"]))
            turn[candidate["reason"]] += 1
            placed.append((turn[candidate["reason"]], REASONS.index(candidate["reason"]), candidate))
    return [candidate for _, _, candidate in sorted(placed, key=lambda item: item[:2])[:n]]


def yield_remark(accepted: Sequence[Row], rejected: Sequence[Candidate]) -> str:
    """Return a sentence or two on the language model's yield, which say so where it is poor."""
    failed = [c for c in rejected if c["kind"] in WRITTEN]
    kept = sum(yield_kind(row) in WRITTEN for row in accepted)
    others = len(accepted) - kept
    total = kept + len(failed)
    rest = f" {others} of the {len(accepted)} accepted rows come from templates or own questions." if others else ""
    if not total:
        return f"The language model was asked for no question.{rest}"
    said = f"{kept} of the {total} questions that the language model wrote passed ({kept / total:.0%})."
    if kept >= POOR * total:
        return said + rest
    most = ", ".join(f"{reason} {n}" for reason, n in Counter(c["reason"] for c in failed).most_common(2))
    return (
        f"{said} That is a poor yield (rejected most often: {most}): this generator adds little. Set "
        f"generator_lm to a stronger model, or rely on the templates.{rest}"
    )
