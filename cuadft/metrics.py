"""Score predictions: answers (SQuAD 2.0 rules), refusals, citations and retrieved passages; then sum them up.

`score` gives one row per prediction, `scoreboard` and `by_category` give means with contract-clustered
intervals. A failed generation scores 0 and is counted. A metric that does not apply to a row is NaN there,
never 0.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cuadft.errors import InputError
from cuadft.matching import normalise, overlap, references, retrieved_share
from cuadft.stats import as_columns, cluster_bootstrap

NO_CLAUSE = "There is no such clause."

METRICS: dict[
    str, tuple[str, bool]
] = {  # name -> (label, higher is better), in the order in which tables show them
    "f1": ("Answer F1", True),
    "em": ("Exact match", True),
    "f1_answerable": ("F1 where the clause exists", True),
    "false_answer": ("False answers", False),
    "false_refusal": ("False refusals", False),
    "hit": ("Retrieval hit", True),
    "char_recall": ("Retrieval recall (characters)", True),
    "char_precision": ("Retrieval precision (characters)", True),
    "cited": ("Answers found in the contract", True),
    "reference_score": ("Reference judge score", True),
    "judge_score": ("LLM judge score", True),
    "seconds": ("Seconds per question", False),
}
JUDGED = ("reference_score", "judge_score")  # added by the judges, not by `score`
KEYS = ("system", "split", "id", "contract", "contract_type", "category", "source", "is_impossible", "answer")
SCORED = [*KEYS, "failed", "refused", *(m for m in METRICS if m not in JUDGED)]
REQUIRED = ("system", "split", "id", "contract", "category", "is_impossible", "answers", "answer", "error")


def is_refusal(answer: str | None) -> bool:
    """Say whether the answer is the refusal sentence alone; case, punctuation and spaces are ignored."""
    return answer is not None and _words(answer) == _words(NO_CLAUSE)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def exact_match(answer: str | None, golds: Sequence[str]) -> float:
    """Return 1.0 if the normalised answer equals a gold span or all of them in order, else 0.0.

    golds: the gold spans, empty if there is no such clause; then only a refusal scores. None (failed) scores
    0.
    """
    if answer is None or is_refusal(answer) or not golds:
        return float(is_refusal(answer) and not golds)
    return float(any(normalise(answer) == normalise(gold) for gold in references(golds)))


def token_f1(answer: str | None, golds: Sequence[str]) -> float:
    """Return the token F1 with the nearest gold span or with all of them together, 0 to 1.

    golds: as in `exact_match`. A refusal scores 1 if there is no gold span, else 0. Source: Rajpurkar et al.
    (2018), "Know What You Don't Know", section 4; all spans together count as one more reference, because a
    CUAD question can have several spans in one contract and an answer may list them.
    """
    if answer is None or is_refusal(answer) or not golds:
        return float(is_refusal(answer) and not golds)
    return max(overlap(answer, gold)[2] for gold in references(golds))


def score(predictions: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return one scored row per prediction (see `METRICS`); metrics that do not apply to a row are NaN.

    Columns: the prediction's own system, split, id, contract, contract_type, category, source, is_impossible
    and answer; failed and refused (bool); then every metric. false_answer: answered although there is no such
    clause. false_refusal: refused although there is one. A failed row is neither, so both are NaN; its f1 and
    em are 0. Raises InputError on a missing key, on gold spans that contradict is_impossible, and on a row
    counted twice.
    """
    rows, seen = [], set()
    for prediction in predictions:
        _check(prediction)
        key = tuple(prediction[k] for k in ("system", "split", "id"))
        if key in seen:
            raise InputError(f"Prediction {key} is there twice: score each system, split and row once.")
        seen.add(key)
        rows.append(_score_one(prediction))
    frame = pd.DataFrame(rows, columns=SCORED)
    bools = {name: bool for name in ("is_impossible", "failed", "refused")}
    return frame.astype({name: float for name in METRICS if name in frame} | bools)


def _score_one(p: Mapping[str, Any]) -> dict[str, Any]:
    spans = sorted(p["answers"], key=lambda a: a["start"])
    golds, answerable = [a["text"] for a in spans], not p["is_impossible"]
    failed = not _missing(p["error"]) or _missing(p["answer"])
    answer = None if failed else p["answer"]
    refused = is_refusal(answer)
    f1, answered = token_f1(answer, golds), not (failed or refused)
    return {
        **{key: p.get(key, "") for key in KEYS},
        "answer": answer,
        "failed": failed,
        "refused": refused,
        "f1": f1,
        "em": exact_match(answer, golds),
        "f1_answerable": f1 if answerable else math.nan,
        "false_answer": math.nan if answerable or failed else float(answered),
        "false_refusal": float(refused) if answerable and not failed else math.nan,
        "cited": float(bool(p.get("spans"))) if answered else math.nan,
        "seconds": math.nan if _missing(p.get("seconds")) else p["seconds"],
        **_retrieval(p.get("passages"), spans),
    }


def _retrieval(passages: Sequence[Mapping] | None, gold: Sequence[Mapping]) -> dict[str, float]:
    recall = precision = math.nan
    if passages is not None:
        spans = [(a["start"], a["start"] + len(a["text"])) for a in gold]
        recall, precision = retrieved_share(spans, [(p["start"], p["end"]) for p in passages])
    hit = math.nan if math.isnan(recall) else float(recall > 0)
    return {"hit": hit, "char_recall": recall, "char_precision": precision}


def scoreboard(
    frame: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> pd.DataFrame:
    """Return the mean of every metric per system and split, with its contract-clustered interval.

    Columns: system, split, metric, value, low, high, n (rows to which the metric applies), n_contracts
    (theirs), failed (all failed generations of that system and split).
    """
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    rows = []
    for (system, split), part in frame.groupby(["system", "split"], sort=False):
        for metric in (m for m in METRICS if m in part):
            interval = cluster_bootstrap(part[metric], part["contract"], **settings)
            names = {"system": system, "split": split, "metric": metric}
            rows.append(names | as_columns(interval) | {"failed": int(part["failed"].sum())})
    columns = ["system", "split", "metric", "value", "low", "high", "n", "n_contracts", "failed"]
    return pd.DataFrame(rows, columns=columns)


def by_category(
    frame: pd.DataFrame,
    metric: str = "f1",
    *,
    n_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Return the mean of one metric per split, category and system, with its contract-clustered interval.

    Columns: split, category, system, metric, value, low, high, n, n_contracts. Raises InputError on other
    metrics.
    """
    if metric not in METRICS or metric not in frame:
        raise InputError(
            f"Invalid metric {metric!r}: choose from {', '.join(m for m in METRICS if m in frame)}."
        )
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    rows = []
    for (split, category, system), part in frame.groupby(["split", "category", "system"], sort=False):
        names = {"split": split, "category": category, "system": system, "metric": metric}
        rows.append(names | as_columns(cluster_bootstrap(part[metric], part["contract"], **settings)))
    columns = ["split", "category", "system", "metric", "value", "low", "high", "n", "n_contracts"]
    return pd.DataFrame(rows, columns=columns)


def _missing(value: Any) -> bool:
    return value is None or (
        isinstance(value, float) and math.isnan(value)
    )  # a data frame turns None into NaN


def _check(p: Mapping[str, Any]) -> None:
    absent = [key for key in REQUIRED if key not in p]
    if absent:
        raise InputError(
            f"Prediction {p.get('id', '?')!r} has no {absent[0]!r}: it needs {', '.join(REQUIRED)}."
        )
    if bool(p["is_impossible"]) == bool(p["answers"]):
        raise InputError(
            f"Row {p['id']!r} has is_impossible={p['is_impossible']} and {len(p['answers'])} gold spans: "
            "a row has gold spans exactly if it is answerable; correct the data."
        )
