"""Measure a retriever on rows with gold spans, and choose its mode and feedback weight on dev."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

from cuadft.errors import InputError
from cuadft.matching import retrieved_share

if TYPE_CHECKING:
    from cuadft.contracts import Row
    from cuadft.retriever import Hit, Retriever

WEIGHTS = (0.0, 0.3, 0.5, 0.7, 0.85)


def evaluate(
    retriever: Retriever,
    rows: Iterable[Row],
    ks: Sequence[int] = (1, 2, 3, 5),
    *,
    within: bool = True,
    titled: bool = False,
) -> list[dict[str, Any]]:
    """Search each answerable row's question, in its contract or over all contracts; one record per row and k.

    Record: id, contract, category, k, and for the best k passages: hit (1.0 if one shares a character with a gold
    span), char_recall and char_precision (shares of the gold characters that were retrieved, and of the retrieved
    ones that are gold), wrong_contract (share of the passages from other contracts, 0 within one). Sources: Pipitone
    & Alami (2024), "LegalBench-RAG" (precision@k, recall@k); Reuter et al. (2025), "Towards Reliable Retrieval in RAG
    Systems for Large Legal Datasets" (wrong_contract, there "document-level retrieval mismatch").

    within: search the row's contract only. Otherwise the query alone must tell the contract. CUAD asks the same 41
    questions of every contract, so that the bare question cannot, and a wrong contract is what to expect: the rate
    says what naming the contract is worth. titled: put the contract's title before the question, as LegalBench-RAG
    does ("Consider the ...; ..."); no other query holds it. Search over all contracts with rows whose gold spans the
    retriever's feedback does not hold (dev, test): it leaves only a named contract's own out. Raises InputError if no
    row is answerable, a contract isn't in the retriever, or a k is below 1.
    """
    rows = [row for row in rows if row["answers"]]
    if not rows:
        raise InputError("No answerable row to measure retrieval on: give rows that have gold spans")
    if not ks or min(ks) < 1:
        raise InputError(f"Invalid ks {tuple(ks)}: give numbers of passages from 1, such as 1, 2, 3, 5")
    if unknown := {row["contract"] for row in rows} - {passage.contract for passage in retriever.passages}:
        raise InputError(f"Unknown contract {min(unknown)!r}: the retriever holds no passage of it, build it again")
    queries = [_query(row, within, titled) for row in rows]
    distinct = list(dict.fromkeys(queries))
    found = dict(zip(distinct, retriever.search_many(distinct, k=max(ks)), strict=True))
    return [_record(row, found[query], k) for row, query in zip(rows, queries, strict=True) for k in ks]


def _query(row: Row, within: bool, titled: bool) -> tuple[str, str | None]:
    question = f"Consider the {row['contract']}; {row['question']}" if titled else row["question"]
    return question, row["contract"] if within else None


def _record(row: Row, hits: Sequence[Hit], k: int) -> dict[str, Any]:
    gold = [(span["start"], span["start"] + len(span["text"])) for span in row["answers"]]
    best = [hit.passage for hit in hits[:k]]
    own = [(passage.start, passage.end) for passage in best if passage.contract == row["contract"]]
    elsewhere = sum(passage.end - passage.start for passage in best if passage.contract != row["contract"])
    recall, precision = retrieved_share(gold, own, elsewhere=elsewhere)
    measured = {"hit": float(recall > 0), "char_recall": recall, "char_precision": precision}
    names = {name: row[name] for name in ("id", "contract", "category")}
    return names | {"k": k} | measured | {"wrong_contract": 1 - len(own) / len(best)}


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
