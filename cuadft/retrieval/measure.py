"""Measure a retriever on rows with gold spans, and choose its settings on dev under a budget of prompt tokens.

Compare retrievers on one split: a record per question, means with intervals, and whether a new one is better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from itertools import product
from typing import TYPE_CHECKING, Any

import pandas as pd

from cuadft.core.errors import InputError
from cuadft.evaluation import bootstrap, compare
from cuadft.evaluation.text_scores import retrieved_share

if TYPE_CHECKING:
    from cuadft.data.contracts import Row
    from cuadft.data.passages import Passage
    from cuadft.retrieval.retriever import Hit, Retriever


MEASURES = ("hit", "char_recall", "char_precision")


def evaluate_retriever(
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
    rows = _answerable(retriever, rows, ks)
    found = _found(retriever, rows, max(ks), within=within, titled=titled)
    return [_record(row, hits, k) for row, hits in zip(rows, found, strict=True) for k in ks]


def _answerable(retriever: Retriever, rows: Iterable[Row], ks: Sequence[int]) -> list[Row]:
    rows = [row for row in rows if row["answers"]]
    if not rows:
        raise InputError("No answerable row to measure retrieval on: give rows that have gold spans")
    if not ks or min(ks) < 1:
        raise InputError(f"Invalid ks {tuple(ks)}: give numbers of passages from 1, such as 1, 2, 3, 5")
    if unknown := {row["contract"] for row in rows} - {passage.contract for passage in retriever.passages}:
        raise InputError(f"Unknown contract {min(unknown)!r}: the retriever holds no passage of it, build it again")
    return rows


def _found(retriever: Retriever, rows: Sequence[Row], k: int, *, within: bool, titled: bool) -> list[list[Hit]]:
    return retriever.search_many([_query(row, within, titled) for row in rows], k=k)


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


def search_table(
    retrievers: Mapping[tuple[int, float], Retriever],
    rows: Iterable[Row],
    *,
    ks: Sequence[int],
    token_count: Callable[[str], int],
    budget: int,
    modes: Sequence[str] = ("fusion",),
    feedback_weights: Sequence[float] = (0.0,),
    dense_weights: Sequence[float] = (0.5,),
    classifier_weights: Sequence[float] = (0.0,),
    reranks: Sequence[int] = (0,),
) -> list[dict[str, Any]]:
    """Measure every combination of settings on rows, dev rows in earnest; return one record each, best first.

    retrievers: one for each (passage size in characters, overlap); their weights are varied by `configured`, and the
    resulting settings stand in the record under the names that it takes. A weight that a mode doesn't use isn't
    varied. Further in a record: passage_chars, overlap, k; prompt_tokens, the mean over the rows of what the k
    passages cost as `render_passages` writes them, by `token_count` of each; hit@1; hit, char_recall and
    char_precision at k; n (rows); within_budget (prompt_tokens <= budget).

    Best is what is within the budget, then the larger sum of hit and char_recall at k, then of hit@1, then the fewer
    prompt tokens: the most gold text that the budget buys. Raises InputError as `evaluate`, and on no retrievers.
    """
    if not retrievers:
        raise InputError("No retriever to choose from: give one for each passage size and overlap")
    rows, table = list(rows), []
    for (size, overlap), retriever in retrievers.items():
        asked = _answerable(retriever, rows, ks)
        cost = lru_cache(maxsize=None)(partial(_cost, token_count))
        for settings in _combinations(modes, feedback_weights, dense_weights, classifier_weights, reranks):
            found = _found(retriever.configured(**settings), asked, max(ks), within=True, titled=False)
            first = _means([_record(row, hits, 1) for row, hits in zip(asked, found, strict=True)], ("hit",))["hit"]
            for k in ks:
                means = _means([_record(row, hits, k) for row, hits in zip(asked, found, strict=True)], MEASURES)
                tokens = sum(cost(hit.passage) for hits in found for hit in hits[:k]) / len(found)
                place = {"passage_chars": size, "overlap": overlap, "k": k}
                table.append(
                    place
                    | settings
                    | {
                        "prompt_tokens": tokens,
                        "hit@1": first,
                        **means,
                        "n": len(asked),
                        "within_budget": tokens <= budget,
                    }
                )
    return sorted(table, key=_preference)


def _combinations(
    modes: Sequence[str],
    feedback: Sequence[float],
    dense: Sequence[float],
    classifier: Sequence[float],
    reranks: Sequence[int],
) -> list[dict[str, Any]]:
    """Return the distinct settings: BM25 alone is a dense weight of 0, embeddings alone of 1."""
    made = {}
    for mode, f, d, c, depth in product(modes, feedback, dense, classifier, reranks):
        d = {"bm25": 0.0, "dense": 1.0}.get(mode, d)
        made[mode, f, d, c, depth] = {
            "mode": mode,
            "feedback_weight": f,
            "dense_weight": d,
            "classifier_weight": c,
            "rerank": depth,
        }
    return list(made.values())


def _cost(token_count: Callable[[str], int], passage: Passage) -> int:
    from cuadft.retrieval.retriever import Hit, render_passages

    return token_count(render_passages([Hit(passage, 0.0)]) + "\n")


def _means(records: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, float]:
    return {name: sum(record[name] for record in records) / len(records) for name in names}


def _preference(record: dict[str, Any]) -> tuple:
    gained = round(record["hit"] + record["char_recall"], 9)
    return not record["within_budget"], -gained, -record["hit@1"], record["prompt_tokens"]


SHARES = ("hit", "char_recall")


def measure_retrievers(
    retrievers: Mapping[str, Retriever], rows: Sequence[Row], ks: Sequence[int], *, split: str
) -> pd.DataFrame:
    """Return the records of `retrieval.evaluate` for each named retriever, with columns retriever and split.

    Each question is searched in its own contract. No row where no question is answerable.
    """
    asked = [row for row in rows if row["answers"]]
    made = [
        pd.DataFrame(evaluate_retriever(retriever, asked, sorted(set(ks)))).assign(retriever=name, split=split)
        for name, retriever in retrievers.items()
        if asked
    ]
    columns = ["id", "contract", "category", "k", "hit", "char_recall", "char_precision", "retriever", "split"]
    return pd.concat(made)[columns] if made else pd.DataFrame(columns=columns)


def retrieval_intervals(
    records: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 7, confidence: float = 0.95
) -> pd.DataFrame:
    """Return one row per retriever and k: n, n_contracts and, as text, hit and char_recall with their intervals.

    Intervals resample contracts, as `stats.cluster_bootstrap`.
    """
    table = []
    for (retriever, k), own in records.groupby(["retriever", "k"], sort=False):
        row: dict[str, Any] = {"retriever": retriever, "k": k}
        for name in SHARES:
            found = bootstrap.cluster_bootstrap(
                own[name], own["contract"], share=True, seed=seed, n_resamples=n_resamples, confidence=confidence
            )
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        table.append(row | {"n": found.n, "n_contracts": found.n_clusters})
    return pd.DataFrame(table)


def intervals_as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Return the intervals as one cell per measure, retrievers as rows and k beside: what a reader compares."""
    shown = table[["retriever", "k"]].copy()
    for name in SHARES:
        low, high = f"{name}_low", f"{name}_high"
        shown[name] = [f"{row[name]:.3f} [{row[low]:.3f}, {row[high]:.3f}]" for row in table.to_dict("records")]
    wide = shown.pivot(index="retriever", columns="k", values=list(SHARES))
    wide.columns = [f"{name}@{k}" for name, k in wide.columns]
    return wide.reindex(table["retriever"].drop_duplicates())


def decide_retriever(
    old: Retriever,
    old_k: int,
    new: Retriever,
    new_k: int,
    rows: Sequence[Row],
    *,
    n_resamples: int = 2000,
    seed: int = 7,
    confidence: float = 0.95,
) -> dict[str, Any]:
    """Decide on dev rows whether a new retriever replaces the promoted one: {"promoted", "delta", "reason"}.

    Both send their own number of passages. The rule is that of the gate's clause of improvement: the paired interval of
    the difference in char_recall must lie above zero. Raises InputError if no row is answerable.
    """
    if not any(row["answers"] for row in rows):
        raise InputError("No answerable dev row to decide on: raise dev_rows or dev_contracts")
    frames = [measure_retrievers({"it": it}, rows, [k], split="dev") for it, k in ((old, old_k), (new, new_k))]
    delta = compare.paired_delta(
        *frames, metric="char_recall", n_resamples=n_resamples, seed=seed, confidence=confidence
    )
    better = bool(delta.low > 0)
    bounds = (
        f"{confidence:.0%} interval [{delta.low:+.3f}, {delta.high:+.3f}]"
        if delta.low == delta.low
        else f"too few contracts to test ({delta.n_clusters}): raise dev_contracts"
    )
    reason = (
        f"{'promoted' if better else 'kept'}: the new retriever against the promoted one on dev: "
        f"{delta.value:+.3f} char_recall, {bounds}"
    )
    return {"promoted": better, "delta": bootstrap.as_columns(delta), "reason": reason}
