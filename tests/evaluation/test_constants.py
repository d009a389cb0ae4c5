"""Properties of the systems that need no model: they answer every question, cost nothing and win no headline figure."""

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuadft.core.runs import CONSTANTS
from cuadft.evaluation.constants import constant_answers, settle
from cuadft.evaluation.metrics import HEADLINE, score_predictions
from cuadft.evaluation.scoreboard import make_scoreboard
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.evaluation.verdicts import judge_answers, verdict_row, verdict_table

TEXT = "The parties agree. This Agreement is governed by the laws of Ohio. Fees are due monthly."
CLAUSE = "governed by the laws of Ohio"


def prediction(n, *, clause, system="rag", answer=NO_CLAUSE, passages=((0, 18), (19, 66)), **other):
    spans = [{"text": CLAUSE, "start": TEXT.index(CLAUSE)}] if clause else []
    row = {
        "system": system,
        "split": "test",
        "id": f"c{n % 5}__{n}",
        "contract": f"c{n % 5}",
        "contract_type": "",
        "category": "Governing Law",
        "source": "cuad",
        "question": "Which law?",
        "answers": spans,
        "is_impossible": not clause,
        "answer": answer,
        "spans": [],
        "passages": [{"index": i, "start": a, "end": b, "score": 1.0} for i, (a, b) in enumerate(passages)],
        "error": None,
        "seconds": 0.5,
        "prompt_tokens": 200,
        "fingerprint": "x",
    }
    return row | other


TEXTS = {f"c{n}": TEXT for n in range(5)}


def by_system(predictions):
    return {name: [p for p in predictions if p["system"] == name] for name in CONSTANTS}


def test_every_question_gets_one_answer_of_each_constant_without_time_or_tokens():
    asked = [prediction(n, clause=n % 3 == 0, system=s) for s in ("rag", "sft") for n in range(9)]
    made = by_system(constant_answers(asked, TEXTS))
    assert [len(part) for part in made.values()] == [9, 9]
    for p in [p for part in made.values() for p in part]:
        assert (p["error"], p["seconds"]) == (None, 0.0)
        assert "prompt_tokens" not in p and "fingerprint" not in p
    assert {p["answer"] for p in made["always_refuses"]} == {NO_CLAUSE}
    assert {p["answer"] for p in made["top_passage"]} == {TEXT[:18]}


def test_the_passage_is_that_of_the_simplest_system_which_records_one():
    asked = [prediction(1, clause=True, passages=((19, 66),)), prediction(1, clause=True, system="sft")]
    (quoted,) = by_system(constant_answers(asked[::-1], TEXTS))["top_passage"]
    assert quoted["answer"] == TEXT[19:66]
    (quoted,) = by_system(constant_answers([asked[0] | {"passages": []}, asked[1]], TEXTS))["top_passage"]
    assert quoted["answer"] == TEXT[:18]


def test_answers_without_passages_give_no_top_passage():
    made = by_system(constant_answers([prediction(1, clause=True, passages=())], {}))
    assert [len(part) for part in made.values()] == [1, 0]


def test_constants_are_not_made_from_constants():
    asked = [prediction(n, clause=True) for n in range(3)]
    once = constant_answers(asked, TEXTS)
    assert constant_answers([*once, *asked], TEXTS) == once


def test_a_judge_with_a_language_model_is_not_asked_about_constants():
    class Paid:
        name, lm = "paid", object()

        def rate(self, rows):
            self.asked = [row["system"] for row in rows]
            return verdict_table([verdict_row(1.0, "correct") for _ in rows])

    rows = [prediction(n, clause=True) for n in range(3)]
    rows = constant_answers(rows, TEXTS) + rows
    judge, lines = Paid(), []
    frame = judge_answers(score_predictions(rows), rows, {"judge_score": judge}, log=lines.append)
    assert judge.asked == ["rag"] * 3 and lines == ["paid: 0 of 3 judgements failed"]
    assert list(frame[frame["judge_score"].notna()]["system"]) == ["rag"] * 3


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=30))
def test_always_refusing_scores_zero_however_many_questions_have_no_clause(clauses):
    asked = [prediction(n, clause=clause) for n, clause in enumerate(clauses)]
    frame = score_predictions(by_system(constant_answers(asked, TEXTS))["always_refuses"])
    board = make_scoreboard(frame, n_resamples=100, seed=1).set_index("metric")["value"]
    for name in (*HEADLINE, "detection_recall"):
        assert board[name] == 0 if any(clauses) else board[name] != board[name]
    whole = make_scoreboard(frame, n_resamples=100, seed=1).set_index("metric").loc["quote_f1"]
    assert not any(clauses) or whole["low"] == whole["high"] == 0  # no other contracts could change it
    share = 1 - sum(clauses) / len(clauses)
    assert board["f1"] == pytest.approx(share)  # the figure that a constant can win


@settings(deadline=None)
@given(st.integers(1, 20), st.integers(0, 60))
def test_to_answer_always_costs_quote_f1_where_there_is_no_clause(clauses, without):
    asked = [prediction(n, clause=n < clauses, passages=((19, 66),)) for n in range(clauses + without)]
    frame = score_predictions(by_system(constant_answers(asked, TEXTS))["top_passage"])
    board = make_scoreboard(frame, n_resamples=100, seed=1).set_index("metric")["value"]
    each = frame["f1_answerable"].dropna().iloc[0]
    assert board["quote_f1"] == pytest.approx(2 * clauses * each / (2 * clauses + without))
    assert board["detection_f1"] == pytest.approx(2 * clauses / (2 * clauses + without))


def test_what_a_constant_scores_on_any_contracts_has_no_width():
    cases = [  # system, metric, value, and the upper bound that is left of 0.4
        ("always_refuses", "quote_f1", 0.0, 0.0),
        ("always_refuses", "f1", 0.0, 0.4),
        ("sft", "quote_f1", 0.0, 0.4),
        ("top_passage", "false_answer", 0.2, 0.4),
    ]
    table = pd.DataFrame(cases, columns=["system", "metric", "value", "high"]).assign(low=0.0)
    pd.testing.assert_frame_equal(settle(table.assign(high=0.4)), table[["system", "metric", "value", "high", "low"]])
