"""Measure how well retrievers find gold spans, choose a search on dev rows, and decide which of two is better.

`evaluate_retriever` gives a record per question and k; the other functions build on it. `report` measures a saved
retriever for the command line. For example:

    records = measure_retrievers({"old": old, "new": new}, rows, [1, 3], split="dev")
    intervals_as_text(retrieval_intervals(records))  # hit@1, hit@3 ... with intervals
    decide_retriever(old, 3, new, 3, rows)["reason"]

`search_table` measures all settings of a search under a budget of prompt tokens, `choose_search` takes the best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import product
from typing import TYPE_CHECKING, Any

import pandas as pd

from cuadft.core.errors import InputError
from cuadft.evaluation import bootstrap, compare
from cuadft.evaluation.text_scores import retrieved_share
from cuadft.retrieval.retriever import Hit, Retriever

if TYPE_CHECKING:
    from cuadft.data.contracts import Row
    from cuadft.data.passages import Passage
    from cuadft.retrieval.classifier import ClauseClassifier
    from cuadft.retrieval.embedder import Embedder
    from cuadft.retrieval.relevance import RelevanceFeedback


RETRIEVAL_MEASURES = ("hit", "char_recall", "char_precision")
INTERVAL_MEASURES = ("hit", "char_recall")  # measures with intervals


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

    within: search the row's contract only. Otherwise the query alone must tell which contract is meant. CUAD asks the
    same 41 questions of every contract, so that a bare question can't, and most passages come from a wrong contract;
    the rate shows what naming the contract is worth. titled: put the contract's title before the question, as
    LegalBench-RAG does ("Consider the ...; ..."). A search over all contracts needs rows whose gold spans are not in
    the retriever's feedback (dev, test), which leaves gold spans out only if one contract is searched. Raises
    InputError if no row is answerable, a contract isn't in the retriever, or a k is below 1.
    """
    rows = _answerable_rows(retriever, rows, ks)
    found = _search_rows(retriever, rows, max(ks), within=within, titled=titled)
    return [_record_of(row, hits, k) for row, hits in zip(rows, found, strict=True) for k in ks]


def _answerable_rows(retriever: Retriever, rows: Iterable[Row], ks: Sequence[int]) -> list[Row]:
    rows = [row for row in rows if row["answers"]]
    if not rows:
        raise InputError("No answerable row to measure retrieval on: give rows that have gold spans")
    if not ks or min(ks) < 1:
        raise InputError(f"Invalid ks {tuple(ks)}: give numbers of passages from 1, such as 1, 2, 3, 5")
    if unknown := {row["contract"] for row in rows} - {passage.contract for passage in retriever.passages}:
        raise InputError(f"Unknown contract {min(unknown)!r}: the retriever holds no passage of it, build it again")
    return rows


def _search_rows(retriever: Retriever, rows: Sequence[Row], k: int, *, within: bool, titled: bool) -> list[list[Hit]]:
    return retriever.search_many([_query_of(row, within, titled) for row in rows], k=k)


def _query_of(row: Row, within: bool, titled: bool) -> tuple[str, str | None]:
    question = f"Consider the {row['contract']}; {row['question']}" if titled else row["question"]
    return question, row["contract"] if within else None


def _record_of(row: Row, hits: Sequence[Hit], k: int) -> dict[str, Any]:
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
    """Measure every combination of settings on (dev) rows; return one record each, the best first.

    retrievers: one for each (passage size in characters, overlap). `Retriever.configured` varies their settings, which
    stand in the record under its names. A weight that a mode does not use is not varied. A record also holds
    passage_chars, overlap and k; prompt_tokens, the mean over the rows of the tokens (by `token_count`) that the k
    passages take as `render_passages` writes them; hit@1; hit, char_recall and char_precision at k; n (rows);
    within_budget (prompt_tokens <= budget).

    The best setting finds the most gold text that the budget buys: settings within the budget come first, then the
    larger sum of hit and char_recall at k, then the larger hit@1, then fewer prompt tokens. Raises InputError as
    `evaluate_retriever`, and without retrievers.
    """
    if not retrievers:
        raise InputError("No retriever to choose from: give one for each passage size and overlap")
    rows, table = list(rows), []
    for (size, overlap), retriever in retrievers.items():
        asked = _answerable_rows(retriever, rows, ks)
        cost = lru_cache(maxsize=None)(partial(_prompt_tokens, token_count))
        for settings in _combinations(modes, feedback_weights, dense_weights, classifier_weights, reranks):
            found = _search_rows(retriever.configured(**settings), asked, max(ks), within=True, titled=False)
            first = _means([_record_of(row, hits, 1) for row, hits in zip(asked, found, strict=True)], ("hit",))["hit"]
            for k in ks:
                means = _means(
                    [_record_of(row, hits, k) for row, hits in zip(asked, found, strict=True)], RETRIEVAL_MEASURES
                )
                tokens = sum(cost(hit.passage) for hits in found for hit in hits[:k]) / len(found)
                record = {"passage_chars": size, "overlap": overlap, "k": k} | settings
                record |= {"prompt_tokens": tokens, "hit@1": first} | means
                table.append(record | {"n": len(asked), "within_budget": tokens <= budget})
    return sorted(table, key=_rank_key)


def _combinations(
    modes: Sequence[str],
    feedback: Sequence[float],
    dense: Sequence[float],
    classifier: Sequence[float],
    reranks: Sequence[int],
) -> list[dict[str, Any]]:
    """Return the distinct settings: BM25 alone is a dense weight of 0, embeddings alone of 1."""
    names = ("mode", "feedback_weight", "dense_weight", "classifier_weight", "rerank")
    fixed_dense = {"bm25": 0.0, "dense": 1.0}
    combinations = [
        (mode, feedback_weight, fixed_dense.get(mode, dense_weight), classifier_weight, rerank)
        for mode, feedback_weight, dense_weight, classifier_weight, rerank in product(
            modes, feedback, dense, classifier, reranks
        )
    ]
    return [dict(zip(names, values, strict=True)) for values in dict.fromkeys(combinations)]


def _prompt_tokens(token_count: Callable[[str], int], passage: Passage) -> int:
    from cuadft.retrieval.retriever import Hit, render_passages

    return token_count(render_passages([Hit(passage, 0.0)]) + "\n")


def _means(records: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, float]:
    return {name: sum(record[name] for record in records) / len(records) for name in names}


def _rank_key(record: dict[str, Any]) -> tuple:
    gained = round(record["hit"] + record["char_recall"], 9)
    return not record["within_budget"], -gained, -record["hit@1"], record["prompt_tokens"]


def measure_retrievers(
    retrievers: Mapping[str, Retriever], rows: Sequence[Row], ks: Sequence[int], *, split: str
) -> pd.DataFrame:
    """Return the records of `evaluate_retriever` for each named retriever, with columns retriever and split.

    Each question is searched in its own contract. The table is empty if no question is answerable.
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
    """Return one row per retriever and k: hit and char_recall, each with its interval, n and n_contracts.

    Intervals resample contracts: see `evaluation.bootstrap.cluster_bootstrap`.
    """
    table = []
    for (retriever, k), own in records.groupby(["retriever", "k"], sort=False):
        row: dict[str, Any] = {"retriever": retriever, "k": k}
        for name in INTERVAL_MEASURES:
            found = bootstrap.cluster_bootstrap(
                own[name], own["contract"], share=True, seed=seed, n_resamples=n_resamples, confidence=confidence
            )
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        table.append(row | {"n": found.n, "n_contracts": found.n_clusters})
    return pd.DataFrame(table)


def intervals_as_text(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of `retrieval_intervals` for readers: a row per retriever, a column per measure and k."""
    shown = table[["retriever", "k"]].copy()
    for name in INTERVAL_MEASURES:
        low, high = f"{name}_low", f"{name}_high"
        shown[name] = [f"{row[name]:.3f} [{row[low]:.3f}, {row[high]:.3f}]" for row in table.to_dict("records")]
    wide = shown.pivot(index="retriever", columns="k", values=list(INTERVAL_MEASURES))
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

    Each sends its own number of passages. The rule is that of the gate's criterion of improvement: the paired interval
    of the difference in char_recall must lie above zero. Raises InputError if no row is answerable.
    """
    if not any(row["answers"] for row in rows):
        raise InputError("No answerable dev row to decide on: raise dev_rows or dev_contracts")
    frames = [measure_retrievers({"it": it}, rows, [k], split="dev") for it, k in ((old, old_k), (new, new_k))]
    delta = compare.paired_delta(
        *frames, metric="char_recall", n_resamples=n_resamples, seed=seed, confidence=confidence
    )
    better = bool(delta.low > 0)
    if math.isnan(delta.low):
        bounds = f"too few contracts to test ({delta.n_clusters}): raise dev_contracts"
    else:
        bounds = f"{confidence:.0%} interval [{delta.low:+.3f}, {delta.high:+.3f}]"
    outcome = "promoted" if better else "kept"
    reason = f"{outcome}: the new retriever against the promoted one on dev: {delta.value:+.3f} char_recall, {bounds}"
    return {"promoted": better, "delta": bootstrap.as_columns(delta), "reason": reason}


@dataclass(frozen=True)
class ChosenSearch:
    """The search that was chosen on dev rows: over all passages of the best cut, k of them in a prompt."""

    retriever: Retriever
    k: int
    table: list[dict[str, Any]]  # every setting with its measures, the chosen one first


def choose_search(
    cuts: Mapping[tuple[int, float], Sequence[Passage]],
    embed: Embedder,
    rows: Sequence[Row],
    *,
    feedback: RelevanceFeedback | None,
    classifier: ClauseClassifier | None,
    reranker: Any,
    contract_weight: float,
    **settings: Any,
) -> ChosenSearch:
    """Build a search for each cut (passage size, overlap), measure all settings on dev rows and return the best.

    settings: ks, budget, token_count and what to vary, as `search_table` takes them; only the contracts of the rows are
    searched for that. contract_weight: of the chosen retriever. Raises InputError as `search_table`.
    """
    asked = {row["contract"] for row in rows}
    parts = {"feedback": feedback, "classifier": classifier, "reranker": reranker}
    built = {
        cut: Retriever([passage for passage in passages if passage.contract in asked], embed, cutting=cut, **parts)
        for cut, passages in cuts.items()
    }
    table = search_table(built, rows, **settings)
    best = table[0]
    cut = (best["passage_chars"], best["overlap"])
    weights = {name: best[name] for name in built[cut].settings if name in best}
    whole = Retriever(cuts[cut], embed, cutting=cut, **parts)
    return ChosenSearch(whole.configured(**weights, contract_weight=contract_weight), best["k"], table)


def search_everywhere(retriever: Retriever, rows: Sequence[Row], k: int) -> pd.DataFrame:
    """Return means of a search over all contracts at once, for bare questions and for those that name their contract.

    Columns: hit, char_recall, char_precision and wrong_contract at k, as `evaluate_retriever` defines them.
    """
    means = {}
    for query, titled in (("bare question", False), ("with the contract's title", True)):
        found = pd.DataFrame(evaluate_retriever(retriever, rows, (k,), within=False, titled=titled))
        means[query] = found[["hit", "char_recall", "char_precision", "wrong_contract"]].mean()
    return pd.DataFrame(means).T.rename_axis("query")
