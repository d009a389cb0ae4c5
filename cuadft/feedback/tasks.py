"""Which pairs of answers to put before a person next: pairs from whose judgement there is most to learn.

    tasks = choose_tasks(with_prompts(program, answers), scores={"judge": ..., "F1": ...}, texts=texts, seed=7)
    Annotate(tasks, store)

A pair comes early if annotators disagree on it, if two scores rank its answers oppositely, or if no score tells two
different answers apart. A task is a dict with the keys id, contract, question, passages ({"start", "end", "text"},
merged where they overlap), answer_a, answer_b, system_a, system_b, spans_a, spans_b (the contract offsets that each
answer cites), prompt (messages or None) and priority. A task does not say which answer is shown first; the widget
draws that.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from cuadft.core.errors import InputError
from cuadft.core.files import value_hash
from cuadft.data.passages import merge_spans
from cuadft.data.rows import take_turns
from cuadft.evaluation.text_scores import is_refusal, normalise_answer, token_f1
from cuadft.feedback.records import Rows, pair_key

FEEDBACK_TASKS = 20  # pairs of answers to ask people about
HELD_OUT_SPLITS = ("dev", "test", "slice", "slices")  # splits of predictions
DOUBT_WEIGHT = 0.5  # of answers that no score tells apart; scores that contradict each other weigh 1
CONTEXT_CHARACTERS = 300  # shown on each side of a cited span that lies outside the passages


def choose_tasks(
    candidates: Rows,
    *,
    scores: Mapping[str, Sequence[float]],
    texts: Mapping[str, str],
    disputed: Collection[str] = (),
    size: int = FEEDBACK_TASKS,
    seed: int,
) -> list[dict[str, Any]]:
    """Return up to `size` tasks: the most instructive one of each contract, then the second one of each, and so on.

    candidates: prediction rows of training questions, of several systems or samples. Failed predictions make no pair;
    answers that SQuAD's normalisation makes equal count as one answer. scores: name of a judge or metric -> a score
    from 0 to 1 for each candidate, NaN where there is no score. texts: contract title -> text. disputed: keys of pairs
    on which annotators differ (column "pair" of `annotator_disagreements`).

    The priority of a pair is the sum of three parts: 1 if it is disputed; the smaller gap of two scores that rank the
    answers oppositely; and DOUBT_WEIGHT * (1 - mean gap) * (1 - token F1 of the two answers). Equal input and seed give
    equal tasks. Raises InputError on candidates of a held-out split.
    """
    if held_out := {row.get("split") for row in candidates} & set(HELD_OUT_SPLITS):
        raise InputError(f"Candidates of the {min(held_out)} split: pass predictions of training questions only.")
    values = np.array([list(given) for given in scores.values()], dtype=float).reshape(len(scores), len(candidates))
    tasks = [
        _task(candidates[i], candidates[j], values[:, i] - values[:, j], texts, frozenset(disputed))
        for i, j in _pairs(candidates)
    ]
    by_contract: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for task in sorted(tasks, key=lambda task: (-task["priority"], value_hash([seed, pair_key(task)]))):
        by_contract[task["contract"]].append(task)
    return take_turns(by_contract.values(), size)


def _pairs(candidates: Rows) -> Iterator[tuple[int, int]]:
    """Yield the places of two different answers to a question; of equal answers the first one stands for all."""
    by_question: dict[str, dict[str, int]] = defaultdict(dict)
    for place, row in enumerate(candidates):
        if row.get("error") is None and isinstance(row.get("answer"), str):
            plain = "" if is_refusal(row["answer"]) else normalise_answer(row["answer"])
            by_question[row["id"]].setdefault(plain, place)
    for answers in by_question.values():
        yield from combinations(answers.values(), 2)


def _task(
    one: Mapping[str, Any], other: Mapping[str, Any], gaps: np.ndarray, texts: Mapping[str, str], disputed: frozenset
) -> dict[str, Any]:
    task = {name: one[name] for name in ("id", "contract", "question")}
    for side, row in zip("ab", (one, other)):
        task |= {f"answer_{side}": row["answer"], f"system_{side}": row.get("system", "")}
        task[f"spans_{side}"] = [list(span) for span in row.get("spans") or []]
    passages = _passages([*(one.get("passages") or []), *(other.get("passages") or [])], task, texts[one["contract"]])
    gaps = gaps[~np.isnan(gaps)]  # first less second answer, by score
    opposed = min(gaps.max(initial=0.0), -gaps.min(initial=0.0))  # the best gap in favour of either answer
    doubt = (1 - (np.abs(gaps).mean() if len(gaps) else 0.0)) * (1 - token_f1(one["answer"], [other["answer"]]))
    priority = float((pair_key(task) in disputed) + opposed + DOUBT_WEIGHT * doubt)
    return task | {"passages": passages, "prompt": one.get("prompt"), "priority": round(priority, 6)}


def _passages(sent: Rows, task: Mapping[str, Any], text: str) -> list[dict[str, Any]]:
    """Return the passages that either system was sent, and the text around cited spans outside of them, in order."""
    found = merge_spans([(passage["start"], passage["end"]) for passage in sent])
    outside = [
        (max(0, s - CONTEXT_CHARACTERS), min(len(text), e + CONTEXT_CHARACTERS))
        for s, e in (*task["spans_a"], *task["spans_b"])
        if not any(start <= s and e <= end for start, end in found)
    ]
    return [{"start": s, "end": e, "text": text[s:e]} for s, e in merge_spans([*found, *outside])]
