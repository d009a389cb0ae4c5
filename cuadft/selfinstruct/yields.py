"""Tables of what the filters let through: each step, each reason, each source, and kept beside rejected questions.

All functions take what `filters.filter_questions` returns. For example:

    accepted, rejected = filter_questions(candidates, train_rows, embedder=embedder)
    pd.DataFrame(steps_table(accepted, rejected))  # a row a step: how many came in, how many went out
    print(yield_remark(accepted, rejected))  # "31 of the 40 questions that the language model wrote passed (78%)."
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

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


def steps_table(
    accepted: Sequence[Row], rejected: Sequence[Candidate], *, min_similarity: float = 0.3, min_f1: float = 0.5
) -> list[dict[str, Any]]:
    """Return one record a step, in order: {"step", "threshold", "in", "rejected", "out", "share"}.

    share: the rejected ones among the candidates that came in (0 if no candidate came in). min_similarity and min_f1
    are the limits that `filter_questions` was given. A round trip whose call failed counts as rejected by that step.
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
    """Return records {"outcome", "n", "share"}: "accepted", then every reason in the order of the steps."""
    found = Counter(candidate["reason"] for candidate in rejected) | Counter({"accepted": len(accepted)})
    total = max(found.total(), 1)
    return [{"outcome": name, "n": found[name], "share": found[name] / total} for name in ("accepted", *REASONS)]


def yield_by_source(accepted: Sequence[Row], rejected: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return one record a kind of candidate: {"source", "candidates", "accepted", "share", "most_rejected_for"}."""
    kept = Counter(_kind_of(row) for row in accepted)
    records = []
    for kind, name in KIND_LABELS.items():
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


def kept_and_rejected(accepted: Sequence[Row], rejected: Sequence[Candidate], *, n: int = 8) -> list[dict[str, str]]:
    """Return up to n records {"category", "kept", "rejected", "reason", "evidence"} that show what the filters did.

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


def yield_remark(accepted: Sequence[Row], rejected: Sequence[Candidate]) -> str:
    """Return a sentence on how many of the language model's questions passed, and advice if they are few."""
    failed = [c for c in rejected if c["kind"] in WRITTEN_KINDS]
    kept = sum(_kind_of(row) in WRITTEN_KINDS for row in accepted)
    others = len(accepted) - kept
    total = kept + len(failed)
    rest = f" {others} of the {len(accepted)} accepted rows come from templates or own questions." if others else ""
    if not total:
        return f"The language model was asked for no question.{rest}"
    said = f"{kept} of the {total} questions that the language model wrote passed ({kept / total:.0%})."
    if kept >= POOR_YIELD * total:
        return said + rest
    most = ", ".join(f"{reason} {n}" for reason, n in Counter(c["reason"] for c in failed).most_common(2))
    return (
        f"{said} That is a poor yield (rejected most often: {most}): this generator adds little. Set "
        f"generator_lm to a stronger model, or rely on the templates.{rest}"
    )


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
