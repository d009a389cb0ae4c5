"""Measure how well retrievers find gold spans, choose a search on dev rows, and decide which of two is better.

`evaluate_retriever` gives a record per question and k; the other functions build on it. `report` measures a saved
retriever for the command line. For example:

    records = measure_retrievers({"old": old, "new": new}, rows, [1, 3], split="dev")
    retrieval_intervals(records)  # hit and char_recall at each k, with intervals
    decide_retriever(old, 3, new, 3, rows)["reason"]

`search_table` measures all settings of a search under a budget of prompt tokens, `choose_search` takes the best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from cuadft.core.errors import InputError
from cuadft.evaluation import bootstrap, compare
from cuadft.evaluation.text_scores import retrieved_share
from cuadft.retrieval.retriever import Hit, Retriever, render_passages

if TYPE_CHECKING:
    from cuadft.data.contracts import Row
    from cuadft.data.passages import Passage
    from cuadft.retrieval.classifier import ClauseClassifier
    from cuadft.retrieval.embedder import Embedder
    from cuadft.retrieval.relevance import RelevanceFeedback


RETRIEVAL_MEASURES = ("hit", "char_recall", "char_precision")
INTERVAL_MEASURES = ("hit", "char_recall")  # measures with intervals
VARIED = ("mode", "feedback_weight", "dense_weight", "classifier_weight")  # settings that `search_table` varies
FEEDBACK_WEIGHTS, DENSE_WEIGHTS = (0.0, 0.85), (0.5, 0.8)  # that `choose_search` tries
CONTRACT_WEIGHT = 2.0  # of a contract's title and opening in a search over all contracts


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
    pairs = _searched(retriever, rows, ks, within=within, titled=titled)
    return [_record_of(row, hits, k) for row, hits in pairs for k in ks]


def _searched(
    retriever: Retriever, rows: Iterable[Row], ks: Sequence[int], *, within: bool = True, titled: bool = False
) -> list[tuple[Row, list[Hit]]]:
    """Return the answerable rows, each with the best passages for the largest k."""
    rows = [row for row in rows if row["answers"]]
    if not rows:
        raise InputError("No answerable row to measure retrieval on: give rows that have gold spans")
    if not ks or min(ks) < 1:
        raise InputError(f"Invalid ks {tuple(ks)}: give numbers of passages from 1, such as 1, 2, 3, 5")
    if unknown := {row["contract"] for row in rows} - {passage.contract for passage in retriever.passages}:
        raise InputError(f"Unknown contract {min(unknown)!r}: the retriever holds no passage of it, build it again")
    queries = [
        (
            f"Consider the {row['contract']}; {row['question']}" if titled else row["question"],
            row["contract"] if within else None,
        )
        for row in rows
    ]
    return list(zip(rows, retriever.search_many(queries, k=max(ks)), strict=True))


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
    settings = {
        (mode, feedback_weight, dense_weight, classifier_weight): None  # distinct ones, in this order
        for mode in modes
        for feedback_weight in feedback_weights
        for dense_weight in {"bm25": [0.0], "dense": [1.0]}.get(mode, dense_weights)
        for classifier_weight in classifier_weights
    }
    cost = lru_cache(maxsize=None)(lambda passage: token_count(render_passages([Hit(passage, 0.0)]) + "\n"))
    for (size, overlap), retriever in retrievers.items():
        for values in settings:
            chosen = dict(zip(VARIED, values))
            pairs = _searched(retriever.configured(**chosen), rows, ks)
            records = pd.DataFrame(
                _record_of(row, hits, k) | {"prompt_tokens": sum(cost(hit.passage) for hit in hits[:k])}
                for row, hits in pairs
                for k in sorted({1, *ks})
            )
            means = records.groupby("k")[["prompt_tokens", *RETRIEVAL_MEASURES]].mean()
            for k in ks:
                record = {"passage_chars": size, "overlap": overlap, "k": k} | chosen
                record |= {"hit@1": means.at[1, "hit"]} | means.loc[k].to_dict()
                table.append(record | {"n": len(pairs), "within_budget": record["prompt_tokens"] <= budget})
    return sorted(table, key=_rank_key)


def _rank_key(record: dict[str, Any]) -> tuple:
    gained = round(record["hit"] + record["char_recall"], 9)
    return not record["within_budget"], -gained, -record["hit@1"], record["prompt_tokens"]


def measure_retrievers(
    retrievers: Mapping[str, Retriever], rows: Sequence[Row], ks: Sequence[int], *, split: str
) -> pd.DataFrame:
    """Return the records of `evaluate_retriever` for each named retriever, with columns retriever and split.

    Each question is searched in its own contract. The table is empty if no question is answerable.
    """
    asked, columns = [row for row in rows if row["answers"]], ["id", "contract", "category", "k", *RETRIEVAL_MEASURES]
    made = [
        pd.DataFrame(evaluate_retriever(retriever, asked, sorted(set(ks))))[columns].assign(retriever=name, split=split)
        for name, retriever in retrievers.items()
        if asked
    ]
    return pd.concat(made) if made else pd.DataFrame(columns=[*columns, "retriever", "split"])


def retrieval_intervals(
    records: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 7, confidence: float = 0.95
) -> pd.DataFrame:
    """Return one row per retriever and k: hit and char_recall, each with its interval, n and n_contracts.

    Intervals resample contracts: see `evaluation.bootstrap.cluster_bootstrap`.
    """
    settings = {"share": True, "seed": seed, "n_resamples": n_resamples, "confidence": confidence}
    table = []
    for (retriever, k), own in records.groupby(["retriever", "k"], sort=False):
        row: dict[str, Any] = {"retriever": retriever, "k": k}
        for name in INTERVAL_MEASURES:
            found = bootstrap.cluster_bootstrap(own[name], own["contract"], **settings)
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        table.append(row | {"n": found.n, "n_contracts": found.n_clusters})
    return pd.DataFrame(table)


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
    **settings: Any,
) -> ChosenSearch:
    """Build a search for each cut (passage size, overlap), measure all settings on dev rows and return the best.

    settings: ks, budget, token_count, modes and classifier_weights, as `search_table` takes them; only the contracts of
    the rows are searched for that. Raises InputError as `search_table`.
    """
    asked = {row["contract"] for row in rows}
    parts = {"feedback": feedback, "classifier": classifier}
    built = {
        cut: Retriever([passage for passage in passages if passage.contract in asked], embed, cutting=cut, **parts)
        for cut, passages in cuts.items()
    }
    table = search_table(built, rows, feedback_weights=FEEDBACK_WEIGHTS, dense_weights=DENSE_WEIGHTS, **settings)
    cut = table[0]["passage_chars"], table[0]["overlap"]
    weights = {name: table[0][name] for name in built[cut].settings if name in table[0]}
    whole = Retriever(cuts[cut], embed, cutting=cut, **parts, **weights, contract_weight=CONTRACT_WEIGHT)
    return ChosenSearch(whole, table[0]["k"], table)


def search_everywhere(retriever: Retriever, rows: Sequence[Row], k: int) -> pd.DataFrame:
    """Return means of a search over all contracts at once, for bare questions and for those that name their contract.

    Columns: hit, char_recall, char_precision and wrong_contract at k, as `evaluate_retriever` defines them.
    """
    measures = [*RETRIEVAL_MEASURES, "wrong_contract"]
    asked = {"bare question": False, "with the contract's title": True}
    found = {
        query: pd.DataFrame(evaluate_retriever(retriever, rows, (k,), within=False, titled=titled))[measures].mean()
        for query, titled in asked.items()
    }
    return pd.DataFrame(found).T.rename_axis("query")
