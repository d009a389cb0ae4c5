"""Properties of the fault analysis: each row has one kind, kinds add up, and the evidence decides what is to blame."""

import math

import pandas as pd
import pytest

from cuadft.evaluation import metrics, scoreboard, text_scores

NO = text_scores.NO_CLAUSE
GOLD = [{"text": "laws of Ohio", "start": 100}]
SENT, MISSED = (
    [{"index": 0, "start": 90, "end": 200, "score": 1.0}],
    [{"index": 1, "start": 200, "end": 300, "score": 1.0}],
)
FAILED = {"answer": None, "error": "TimeoutError: no reply"}
CASES = {  # what the system answered, to a question with a clause unless `answers` is empty
    "fine": {"answer": "laws of Ohio"},
    "missed": {"answer": "laws of Iowa or any other state", "passages": MISSED},
    "refused": {"answer": NO},
    "wrong": {"answer": "five years from the date of signature"},
    "invented": {"answer": "laws of Ohio", "answers": []},
    "failed": FAILED,
}


def prediction(number=0, **changes):
    row = {
        "id": f"q{number}",
        "contract": f"Contract {number % 3}",
        "contract_type": "Supply",
        "category": "Governing Law",
        "question": "Which law governs?",
        "answers": GOLD,
        "source": "cuad",
        "system": "sft",
        "split": "test",
        "answer": "laws of Ohio",
        "spans": [],
        "passages": SENT,
        "error": None,
        "seconds": 0.1,
    } | changes
    return row | {"is_impossible": not row["answers"]}


def frame(*changes):
    return metrics.score_predictions([prediction(n, **change) for n, change in enumerate(changes)])


@pytest.mark.parametrize("kind", CASES)
def test_fault_is_told_from_answer_and_passages(kind):
    assert list(scoreboard.classify_faults(frame(CASES[kind]))) == [kind]


@pytest.mark.parametrize(
    "change",
    [
        {"answer": NO, "answers": []},  # refused rightly
        {"answer": "laws of Ohio", "passages": MISSED},  # right without the clause
    ],
)
def test_right_answer_is_no_fault(change):
    assert list(scoreboard.classify_faults(frame(change))) == ["fine"]


def test_refusal_without_the_clause_is_the_retrievers_fault():
    assert list(scoreboard.classify_faults(frame({"answer": NO, "passages": MISSED}))) == ["missed"]


def test_where_fine_begins_is_a_parameter():
    # "laws of Iowa" shares 2 of 3 tokens with the gold span: F1 is 2/3
    rows = frame({"answer": "laws of Iowa"})
    assert list(scoreboard.classify_faults(rows)) == ["fine"] and list(
        scoreboard.classify_faults(rows, fine_from=0.7)
    ) == ["wrong"]


def test_judges_score_can_tell_what_is_fine():
    rows = frame({"answer": "Ohio law"}, {"answer": "Ohio law"}, {"answer": "Ohio law"}).assign(
        judge_score=[1, 0, math.nan]
    )
    assert list(scoreboard.classify_faults(rows, "judge_score")) == ["fine", "wrong", "unscored"]


def test_counts_add_up_to_the_rows():
    rows = pd.concat(
        [frame(*CASES.values()), frame(*CASES.values(), {"answer": NO, "answers": []}).assign(system="dpo")]
    )
    table = scoreboard.fault_counts(rows)
    assert list(table["system"]) == ["sft", "dpo"] and list(table["n"]) == [6, 7]
    assert list(table[list(scoreboard.FAULT_KINDS)].sum(axis=1)) == [6, 7]
    # answerable: all but the one (sft) or two (dpo) rows without a clause; contracts: ids 0 to 5 and 0 to 6 modulo 3
    assert list(table["answerable"]) == [5, 5] and list(table["n_contracts"]) == [3, 3]
    assert table.loc[0, list(scoreboard.FAULTS)].tolist() == [1, 1, 1, 1, 1]


def test_counts_by_other_columns():
    rows = frame(*CASES.values()).assign(category=["A", "A", "B", "B", "B", "B"])
    assert list(scoreboard.fault_counts(rows, by=["category"])["n"]) == [2, 4]


def test_faults_of_the_retriever_are_unknown_without_passages():
    table = scoreboard.fault_counts(
        frame({"answer": NO, "passages": None}, {"answer": "something else", "passages": None})
    )
    assert table["missed"].isna().all() and list(table["refused"]) == [1] and list(table["wrong"]) == [1]


def test_words_do_not_claim_a_passage_that_is_not_recorded():
    assert "not recorded" in scoreboard.describe_fault("refused", recall=math.nan)[1]
    assert "(40% of the clause's characters were sent)" in scoreboard.describe_fault("wrong", recall=0.4)[1]
    assert scoreboard.describe_fault("wrong", recall=1.0) == scoreboard.FAULTS["wrong"]


def test_no_rows_give_an_empty_table():
    assert list(scoreboard.fault_counts(frame()).columns)[:3] == ["split", "system", "n"] and not len(
        scoreboard.fault_counts(frame())
    )
