"""Properties of the tasks for annotators: what is asked first, how it is spread, no hint at an answer."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.feedback.records import pair_key
from cuadft.feedback.tasks import choose_tasks

TEXT = "This Agreement is governed by the law of Ohio. Invoices are paid within thirty days. " * 20
LAW, PAY = TEXT.index("governed"), TEXT.index("Invoices")


def candidate(
    number: int, system: str, answer: str | None, contract: str = "C", category: str = "Law", **fields
) -> dict:
    return {
        "id": f"{contract} {number}",
        "contract": contract,
        "category": category,
        "question": "Which law?",
        "answers": [],
        "is_impossible": False,
        "answer": answer,
        "spans": [],
        "split": "train",
        "error": None,
        "passages": [{"index": 0, "start": 0, "end": 84, "score": 1.0}],
        "system": system,
    } | fields


def ask(candidates, scores=None, **settings) -> list[dict]:
    texts = {row["contract"]: TEXT for row in candidates}
    return choose_tasks(candidates, scores=scores or {}, **{"texts": texts, "size": 10, "seed": 0} | settings)


def two(number: int, one="the law of Ohio", other="thirty days", **fields) -> list[dict]:
    return [candidate(number, "sft", one, **fields), candidate(number, "rag", other, **fields)]


def test_scores_that_contradict_each_other_come_first():
    rows = [*two(0), *two(1), *two(2)]
    found = ask(rows, {"judge": [0.9, 0.1, 0.9, 0.2, 0.5, 0.5], "f1": [0.8, 0.0, 0.1, 0.6, 0.4, 0.4]})
    assert [task["id"] for task in found] == ["C 1", "C 2", "C 0"]
    # opposed min(0.7, 0.5); the answers share no word; mean gap 0.6: 0.5 + 0.5 * (1 - 0.6) * (1 - 0) = 0.7
    assert found[0]["priority"] == pytest.approx(0.7)


def test_a_pair_on_which_scores_agree_fully_is_not_called_disputed():
    (found,) = ask(two(0), {"judge": [1.0, 0.0]})
    assert found["priority"] == 0  # 0.5 * (1 - 1) * (1 - 0)


def test_a_disputed_pair_comes_before_all_others():
    rows = [*two(0), *two(1, other="Ohio law")]
    scores = {"judge": [1.0, 0.0, 0.5, 0.4], "f1": [0.1, 0.9, 0.5, 0.4]}
    disputed = {task["id"]: pair_key(task) for task in ask(rows, scores)}["C 1"]
    assert ask(rows, scores, disputed={disputed})[0]["id"] == "C 1"


@pytest.mark.parametrize(
    "one, other",
    [
        ("Law of Ohio", "the law of  OHIO."),
        (NO_CLAUSE, "there is no such clause"),
        ("", NO_CLAUSE),
        (None, "Ohio"),
        ("Ohio", None),
    ],
)
def test_equal_and_failed_answers_are_no_pair(one, other):
    assert ask(two(0, one, other)) == []
    failed = [candidate(0, "sft", "Ohio"), candidate(0, "rag", "Texas", error="TimeoutError")]
    assert ask(failed) == []


def test_a_pair_is_disputed_whichever_system_gave_the_answer():
    rows = [candidate(0, "sft", "Ohio"), candidate(0, "rag", "Texas"), candidate(0, "dpo", "TEXAS")]
    by_dpo = {"id": "C 0", "answer_a": "TEXAS", "system_a": "dpo", "answer_b": "Ohio", "system_b": "sft"}
    (task,) = ask(rows, disputed={pair_key(by_dpo)})
    assert task["priority"] == ask(rows, disputed={"another"})[0]["priority"] + 1


def test_tasks_are_spread_over_contracts():
    chance, rows, scores = random.Random(0), [], {"judge": [], "f1": []}
    for contract in "ABCDEFGH":
        for number in range(8):
            rows += two(number, contract=contract)
            gap = 0.9 if contract == "A" else chance.uniform(0.2, 0.4)  # contract A is the most instructive throughout
            scores["judge"] += [gap, 0.0]
            scores["f1"] += [0.0, gap]
    contracts = [task["contract"] for task in ask(rows, scores, size=16)]
    assert contracts[0] == "A" and all(contracts.count(contract) == 2 for contract in "ABCDEFGH")


@given(st.integers(0, 10**6), st.integers(0, 30))
def test_equal_seeds_give_equal_tasks_of_different_pairs(seed, size):
    rows = [
        row
        for contract in "ABC"
        for n in range(4)
        for row in (*two(n, contract=contract), candidate(n, "dpo", NO_CLAUSE, contract=contract))
    ]
    found = ask(rows, size=size, seed=seed)
    assert found == ask(rows, size=size, seed=seed)
    assert len({pair_key(task) for task in found}) == len(found) == min(size, 36)


def test_ties_are_broken_by_the_seed():
    rows = [row for n in range(12) for row in two(n)]
    assert len({tuple(task["id"] for task in ask(rows, size=3, seed=seed)) for seed in range(5)}) > 1


def test_a_task_shows_what_both_systems_read_and_cite():
    one = candidate(
        0, "sft", "governed", spans=[[LAW, LAW + 8]], passages=[{"start": 200, "end": 250}, {"start": 0, "end": 40}]
    )
    other = candidate(0, "rag", "Invoices", spans=[[PAY + 1000, PAY + 1008]], passages=[{"start": 30, "end": 84}])
    (task,) = ask([one, other])
    assert [(p["start"], p["end"]) for p in task["passages"]] == [(0, 84), (200, 250), (PAY + 700, PAY + 1308)]
    assert all(p["text"] == TEXT[p["start"] : p["end"]] for p in task["passages"])
    assert task["spans_a"] == [[LAW, LAW + 8]] and task["spans_b"] == [[PAY + 1000, PAY + 1008]]
    assert (task["system_a"], task["answer_a"], task["prompt"]) == ("sft", "governed", None)
    assert "answers" not in task and "is_impossible" not in task  # the gold words would give the verdict away


def test_alike_answers_are_less_in_doubt():
    # one token of two against one of one: F1 2 * (1/2 * 1) / (3/2) = 2/3
    assert ask(two(0, "Ohio law", "Ohio"))[0]["priority"] == pytest.approx(0.5 / 3, abs=1e-6)
    assert ask(two(0, one=NO_CLAUSE))[0]["priority"] == 0.5


def test_missing_scores_do_not_count():
    both = ask(two(0), {"judge": [0.9, 0.1], "f1": [math.nan, 0.5]})[0]
    assert both["priority"] == ask(two(0), {"judge": [0.9, 0.1]})[0]["priority"] == pytest.approx(0.1)
    unscored = ask(two(0), {"judge": [None, None]})[0]  # 0.5 * (1 - 0) * (1 - 0)
    assert unscored["priority"] == 0.5


@pytest.mark.parametrize("split", ["test", "dev"])
def test_predictions_of_held_out_contracts_are_refused(split):
    with pytest.raises(InputError, match=f"{split} split"):
        ask(two(0, split=split))
