"""Answers that need no model: always refusing, and quoting the best passage whole.

Every score stands beside theirs, so that a reader sees what a system has to beat. For example, with the predictions of
any real system at hand:

    texts = {record["title"]: record["text"] for record in data.contract_records(run)}
    predictions += constant_answers(predictions, texts)  # systems always_refuses and top_passage
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cuadft.core.runs import CONSTANTS, simplicity
from cuadft.evaluation.text_scores import NO_CLAUSE

ALWAYS_REFUSES, TOP_PASSAGE = CONSTANTS
_WHETHER = ("detection_recall", "false_answer", "false_refusal", "laziness")
_WHAT = ("quote_f1", "detection_f1", "f1_answerable", "em_answerable", "f1_no_clause")
_COVERS = ("coverage_f1", "coverage_recall")
# Metrics that are 0 or 1 on any contracts.
SETTLED = {ALWAYS_REFUSES: (*_WHETHER, *_WHAT, *_COVERS), TOP_PASSAGE: (*_WHETHER, "verbatim")}
OF_AN_ANSWER = ("quotes", "passages", "prompt_tokens", "fingerprint", "p_exists", "p_search", "calibrated")


def settle(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of means without width where no other contracts could change the value (see `SETTLED`).

    table: with the columns system, metric, value, low and high.
    """
    sure = [metric in SETTLED.get(system, ()) for system, metric in zip(table["system"], table["metric"], strict=True)]
    sure = pd.Series(sure, table.index, bool) & table["value"].isin([0, 1])
    return table.assign(**{end: table[end].mask(sure, table["value"]) for end in ("low", "high")})


def constant_answers(
    predictions: Sequence[Mapping[str, Any]], texts: Mapping[str, str], refusal: str = NO_CLAUSE
) -> list[dict[str, Any]]:
    """Return the predictions of always_refuses and top_passage for every question that the given predictions answer.

    texts: the contracts' texts by title. The best passage is the first one that the simplest system with passages was
    sent. Where no system records its passages, or no text is given, there are no answers of top_passage. They take no
    time. refusal: the sentence that refuses.
    """
    asked: dict[tuple[Any, ...], Mapping[str, Any]] = {}
    for p in sorted(predictions, key=lambda p: simplicity(p["system"])):
        key = (p["split"], p.get("seed"), p["id"])
        if p["system"] not in CONSTANTS and (key not in asked or not asked[key].get("passages")):
            asked[key] = p
    sent = {key[:2] for key, p in asked.items() if p.get("passages") and p["contract"] in texts}
    refusals, quoted = [], []
    for key, p in asked.items():
        refusals.append(_answer(p, ALWAYS_REFUSES, refusal, []))
        if key[:2] in sent:  # a question for which nothing was found is refused
            first = list(p.get("passages") or [])[:1]
            answer = texts[p["contract"]][first[0]["start"] : first[0]["end"]] if first else refusal
            quoted.append(_answer(p, TOP_PASSAGE, answer, first))
    return refusals + quoted


def _answer(p: Mapping[str, Any], system: str, answer: str, passages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    row = {name: value for name, value in p.items() if name not in OF_AN_ANSWER}
    spans = [[passage["start"], passage["end"]] for passage in passages]
    made = {"answer": answer, "spans": spans, "error": None, "seconds": 0.0, "system": system}
    return row | made | ({"passages": list(passages)} if passages else {})
