"""The reward of online methods: the judge's score or the gold metric of each sampled answer, as TRL calls it.

    reward = rewards.function(OfflineJudge())
    reward(prompts=..., completions=[[{"role": "assistant", "content": "..."}]], question=[...], answers=[...])
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cuadft.answer_scores import token_f1
from cuadft.errors import InputError
from cuadft.program import ContractQA, target
from cuadft.ratings import Judge, golds

Reward = Callable[..., list[float | None]]
COLUMNS = ("id", "contract", "question", "answers", "is_impossible")  # of the rows, which TRL passes on to the reward


def function(judge: Judge | None = None) -> Reward:
    """Return the reward function: the judge's score of an answer or, without a judge, its token F1 (0 to 1).

    An empty answer scores 0, as it does in inference. An answer whose judgement failed gets None: it is unknown, and
    left out of the update.
    """
    def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        rows = [{"question": question, "answers": spans, "answer": text(completion), "error": None}
                for completion, question, spans in zip(completions, columns["question"], columns["answers"], strict=True)]
        if judge is None:
            return [token_f1(row["answer"], golds(row)) for row in rows]
        rated = judge.rate(rows)
        scores = [None if math.isnan(score) else float(score) for score in rated["judge_score"]]
        reward.unknown += scores.count(None)
        if rows and all(score is None for score in scores):
            raise InputError(f"The judge failed on all {len(rows)} answers of a step ({rated['judge_error'].iloc[0]}): nothing "
                             "can be learned without it. Run again when it is back: training goes on from its checkpoint.")
        return scores

    reward.unknown = 0  # answers without a reward so far
    # under which TRL logs it, and by which align.train tells rewards apart; the offline judge is "judge" alone
    reward.__name__ = "gold" if judge is None else f"judge {judge.name}".removesuffix(" offline")
    return reward


def text(completion: Any) -> str | None:
    """Return a completion's text as the program takes it; None if it is empty."""
    content = completion if isinstance(completion, str) else completion[-1]["content"]
    return content.strip() or None


def prompts(program: ContractQA, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return {"prompt"} and COLUMNS of the rows that can be answered from their passages, or that have no clause.

    A row whose clause lies outside the passages is left out: the reward would teach to invent it.
    """
    hits = program.retriever.search_many([(row["question"], row["contract"]) for row in rows], k=program.k)
    made = []
    for row, found in zip(rows, hits, strict=True):
        if target(row, found) is not None:
            *prompt, _ = program.messages(row["question"], found, "")
            made.append({"prompt": prompt} | {name: row[name] for name in COLUMNS})
    return made


def telling(rows: Sequence[dict[str, Any]], scores: Mapping[str, Sequence[float]], *,
            others: float = 0.5) -> list[dict[str, Any]]:
    """Return the rows whose sampled answers differ in score, with `others` times as many of the rest; all if none differ.

    scores: row id -> scores of its candidates. Where all answers are alike no method learns anything (DAPO, Yu et al.
    2025, section 3.2); some such rows stay, so that what is right already has a say. A failed judgement (NaN) tells
    nothing; a row without any other is left out.
    """
    if unknown := [row["id"] for row in rows if row["id"] not in scores]:
        raise InputError(f"There are no candidates of question {unknown[0]!r}: sample answers of every row first.")
    distinct = {id_: {score for score in given if not math.isnan(score)} for id_, given in scores.items()}
    differ = [row for row in rows if len(distinct[row["id"]]) > 1]
    alike = [row for row in rows if len(distinct[row["id"]]) == 1]
    return differ + alike[:round(others * len(differ))] if differ else alike
