"""Measure a retriever on rows with gold spans, and choose its mode and feedback weight on dev."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from cuadft.errors import InputError
from cuadft.matching import retrieved_share

if TYPE_CHECKING:
    from cuadft.contracts import Row
    from cuadft.retriever import Retriever

WEIGHTS = (0.0, 0.3, 0.5, 0.7, 0.85)


def evaluate(
    retriever: Retriever, rows: Iterable[Row], ks: Sequence[int] = (1, 2, 3, 5)
) -> list[dict[str, Any]]:
    """Search each answerable row's question in its contract; one record per row and k.

    Record: id, contract, category, k, hit (1.0 if one of the best k passages shares a character with a gold
    span), char_recall (share of gold characters inside the best k passages). Raises InputError if no row is
    answerable or a contract isn't in the retriever.
    """
    rows = [row for row in rows if row["answers"]]
    if not rows:
        raise InputError("No answerable row to measure retrieval on: give rows that have gold spans")
    found = retriever.search_many([(row["question"], row["contract"]) for row in rows], k=max(ks))
    records = []
    for row, hits in zip(rows, found):
        gold = [(span["start"], span["start"] + len(span["text"])) for span in row["answers"]]
        own = {name: row[name] for name in ("id", "contract", "category")}
        for k in ks:
            share, _ = retrieved_share(gold, [(hit.passage.start, hit.passage.end) for hit in hits[:k]])
            records.append({**own, "k": k, "hit": float(share > 0), "char_recall": share})
    return records


def tune(
    retriever: Retriever,
    rows: Iterable[Row],
    candidates: Sequence[tuple[str, float]] | None = None,
    *,
    k: int = 1,
) -> list[dict[str, Any]]:
    """Measure each (mode, feedback weight) on rows, dev rows in earnest; return one record each, best first.

    Record: mode, feedback_weight, hit, char_recall (both at k, means over rows), n. Best by hit, then
    char_recall, then the smaller weight; apply it with `retriever.configured`.
    candidates: every mode with the weights 0, 0.3, 0.5, 0.7 and 0.85 unless given; only 0 without feedback.
    """
    from cuadft.retriever import MODES

    rows = list(rows)
    if candidates is None:
        candidates = list(product(MODES, WEIGHTS if retriever.feedback is not None else WEIGHTS[:1]))
    table = []
    for mode, weight in candidates:
        records = evaluate(retriever.configured(mode=mode, feedback_weight=weight), rows, (k,))
        mean = {name: sum(r[name] for r in records) / len(records) for name in ("hit", "char_recall")}
        table.append({"mode": mode, "feedback_weight": weight, **mean, "n": len(records)})
    return sorted(table, key=lambda t: (-t["hit"], -t["char_recall"], t["feedback_weight"]))
