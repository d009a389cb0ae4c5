"""Measure how well retrievers find gold spans, and choose a search on dev rows.

`evaluate_retriever` gives a row per question and k; the other functions build on it. For example:

    records = measure_retrievers({"old": old, "new": new}, rows, [1, 3], split="dev")
    retrieval_intervals(records)  # hit and char_recall at each k, with intervals

`search_table` measures all settings of a search under a budget of prompt tokens, `choose_search` takes the best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import pandas as pd

from cuadft.core.errors import InputError
from cuadft.data.contracts import Row
from cuadft.data.passages import Passage
from cuadft.evaluation import bootstrap
from cuadft.evaluation.text_scores import retrieved_share
from cuadft.retrieval.classifier import ClauseClassifier
from cuadft.retrieval.embedder import Embedder
from cuadft.retrieval.relevance import RelevanceFeedback
from cuadft.retrieval.retriever import Hit, Retriever, render_passages

RETRIEVAL_MEASURES = ("hit", "char_recall", "char_precision")
RECORD_COLUMNS = ("id", "contract", "category", "k", *RETRIEVAL_MEASURES)
VARIED = ("mode", "feedback_weight", "dense_weight", "classifier_weight")  # settings that `search_table` varies
FEEDBACK_WEIGHTS = (0.0, 0.85)
DENSE_WEIGHTS = {"bm25": (0.0,), "dense": (1.0,), "fusion": (0.5, 0.8)}


def evaluate_retriever(
    retriever: Retriever,
    rows: Sequence[Row],
    ks: Sequence[int],
    *,
    cost: Callable[[Passage], int] = lambda passage: 0,
) -> pd.DataFrame:
    """Search each answerable row's question in its contract; return one row per question and k.

    Columns: id, contract, category, k, and for the best k passages: hit (1.0 if one shares a character with a gold
    span), char_recall and char_precision (shares of the gold characters that were retrieved, and of the retrieved
    ones that are gold), and prompt_tokens, the sum of each passage's cost. Source: Pipitone & Alami (2024),
    "LegalBench-RAG" (precision@k, recall@k). Raises InputError if no row is answerable, or a contract isn't in the
    retriever.
    """
    rows = [row for row in rows if row["answers"]]
    if not rows:
        raise InputError("No answerable row to measure retrieval on: give rows that have gold spans")
    if unknown := {row["contract"] for row in rows} - {passage.contract for passage in retriever.passages}:
        raise InputError(f"Unknown contract {min(unknown)!r}: the retriever holds no passage of it, build it again")
    records = []
    searched = retriever.search_many([(row["question"], row["contract"]) for row in rows], k=max(ks))
    for row, hits in zip(rows, searched, strict=True):
        gold = [(span["start"], span["start"] + len(span["text"])) for span in row["answers"]]
        about = {name: row[name] for name in ("id", "contract", "category")}
        for k in ks:
            recall, precision = retrieved_share(gold, [(hit.passage.start, hit.passage.end) for hit in hits[:k]])
            found = {"hit": float(recall > 0), "char_recall": recall, "char_precision": precision}
            tokens = sum(cost(hit.passage) for hit in hits[:k])
            records.append(about | {"k": k} | found | {"prompt_tokens": tokens})
    return pd.DataFrame(records)


def search_table(
    retrievers: Mapping[tuple[int, float], Retriever],
    rows: Sequence[Row],
    *,
    ks: Sequence[int],
    token_count: Callable[[str], int],
    budget: int,
    modes: Sequence[str],
    classifier_weights: Sequence[float] = (0.0,),
    feedback_weights: Sequence[float] = FEEDBACK_WEIGHTS,
) -> list[dict[str, Any]]:
    """Measure every combination of settings on (dev) rows; return one record each, the best first.

    retrievers: one for each (passage size in characters, overlap). `Retriever.configured` varies their settings, which
    stand in the record under its names. A record also holds passage_chars, overlap and k; prompt_tokens, the mean over
    the rows of the tokens (by `token_count`) that the k passages take as `render_passages` writes them; hit@1; hit,
    char_recall and char_precision at k; n (rows); within_budget (prompt_tokens <= budget).

    The best setting finds the most gold text that the budget buys: settings within the budget come first, then the
    larger sum of hit and char_recall at k, then the larger hit@1, then fewer prompt tokens. Raises InputError as
    `evaluate_retriever`.
    """
    settings = dict.fromkeys(  # distinct ones, in this order
        combined
        for mode in modes
        for combined in product([mode], feedback_weights, DENSE_WEIGHTS[mode], classifier_weights)
    )

    cost, table = passage_cost(token_count), []
    for ((size, overlap), retriever), values in product(retrievers.items(), settings):
        chosen = dict(zip(VARIED, values))
        configured = retriever.configured(**chosen)
        by_k = evaluate_retriever(configured, rows, sorted({1, *ks}), cost=cost).groupby("k")
        means, n = by_k[["prompt_tokens", *RETRIEVAL_MEASURES]].mean(), int(by_k.size()[1])
        for k in ks:
            record = {"passage_chars": size, "overlap": overlap, "k": k, **chosen, "hit@1": means.at[1, "hit"]}
            record |= means.loc[k].to_dict() | {"n": n}
            table.append(record | {"within_budget": record["prompt_tokens"] <= budget})
    return sorted(table, key=_rank_key)


def passage_cost(token_count: Callable[[str], int]) -> Callable[[Passage], int]:
    """Return a function that counts, once each, the tokens that a passage takes in a prompt."""
    return cache(lambda passage: token_count(render_passages([Hit(passage, 0.0)]) + "\n"))


def _rank_key(record: dict[str, Any]) -> tuple:
    gained = round(record["hit"] + record["char_recall"], 9)
    return not record["within_budget"], -gained, -record["hit@1"], record["prompt_tokens"]


def measure_retrievers(
    retrievers: Mapping[str, Retriever], rows: Sequence[Row], ks: Sequence[int], *, split: str
) -> pd.DataFrame:
    """Return the rows of `evaluate_retriever` for each named retriever, with columns retriever and split.

    Each question is searched in its own contract. The table is empty if no question is answerable.
    """
    if not any(row["answers"] for row in rows):
        return pd.DataFrame(columns=[*RECORD_COLUMNS, "retriever", "split"])
    ks = sorted(set(ks))
    made = [evaluate_retriever(own, rows, ks).assign(retriever=name, split=split) for name, own in retrievers.items()]
    return pd.concat(made).drop(columns="prompt_tokens")


def retrieval_intervals(
    records: pd.DataFrame, *, measures: Sequence[str] = ("hit", "char_recall"), **settings: Any
) -> pd.DataFrame:
    """Return one row per retriever and k: each measure with its interval, n and n_contracts.

    Intervals resample contracts. settings: n_resamples, seed and confidence of
    `evaluation.bootstrap.cluster_bootstrap`.
    """
    table = []
    for (retriever, k), own in records.groupby(["retriever", "k"], sort=False):
        row: dict[str, Any] = {"retriever": retriever, "k": k}
        for name in measures:
            share = name in RETRIEVAL_MEASURES
            found = bootstrap.cluster_bootstrap(own[name], own["contract"], share=share, **settings)
            row |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        table.append(row | {"n": found.n, "n_contracts": found.n_clusters})
    return pd.DataFrame(table)


class ChosenSearch(NamedTuple):
    """The search that was chosen on dev rows: over all passages of the best cut, k of them in a prompt."""

    retriever: Retriever
    k: int
    table: list[dict[str, Any]]  # every setting with its measures, the chosen one first


def choose_search(
    cuts: Mapping[tuple[int, float], Sequence[Passage]],
    embed: Embedder,
    rows: Sequence[Row],
    *,
    feedback: RelevanceFeedback,
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
    table = search_table(built, rows, **settings)
    cut = table[0]["passage_chars"], table[0]["overlap"]
    weights = {name: table[0][name] for name in built[cut].settings if name in table[0]}
    whole = Retriever(cuts[cut], embed, cutting=cut, **parts, **weights)
    return ChosenSearch(whole, table[0]["k"], table)
