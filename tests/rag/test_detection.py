"""How well the retriever alone tells whether there is a clause, by features and by training contracts."""

from __future__ import annotations

import numpy as np
import pytest
import small

from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.rag.confidence import Confidence
from cuadft.rag.detection import FEATURE_GROUPS, decided, feature_worth, learning_curve

TRAIN, NEW = range(40), range(100, 120)
ROWS, NEW_ROWS = small.clause_corpus(TRAIN)[0], small.clause_corpus(NEW)[0]
FEW = {"n_resamples": 100}


@pytest.fixture(scope="module")
def retriever():
    return small.clause_retriever(TRAIN, NEW)


def detection_f1(p: np.ndarray, least: float) -> float:
    """Return the F1 of the answers from `least` on, counted one by one."""
    both = sum(q >= least and bool(row["answers"]) for q, row in zip(p, NEW_ROWS, strict=True))
    return 2 * both / (sum(q >= least for q in p) + sum(bool(row["answers"]) for row in NEW_ROWS))


def test_the_rows_decided_answer_from_the_threshold_on_and_keep_their_probability():
    made = decided(NEW_ROWS[:3], [0.2, 0.5, 0.9], 0.5)
    assert [row["answer"] == NO_CLAUSE for row in made] == [True, False, False]
    assert [row["p_exists"] for row in made] == [0.2, 0.5, 0.9] and made[0]["id"] == NEW_ROWS[0]["id"]


def test_with_all_features_the_measures_are_those_of_the_confidence_itself(retriever):
    table = feature_worth(retriever, ROWS, NEW_ROWS, false_answer_cost=1.0, **FEW).set_index("left out")
    assert list(table.index) == list(FEATURE_GROUPS)
    confidence = Confidence.fit(retriever, ROWS, k=2, false_answer_cost=1.0)
    found = confidence.look(retriever, [(row["question"], row["contract"]) for row in NEW_ROWS], k=2)
    p, truth = np.array([look.p_exists for look in found]), np.array([bool(row["answers"]) for row in NEW_ROWS])
    assert table.at["nothing", "brier"] == pytest.approx(np.mean((p - truth) ** 2))
    assert table.at["nothing", "detection_f1"] == pytest.approx(detection_f1(p, 0.5))
    assert table.at["category", "brier"] != table.at["nothing", "brier"]


def test_rows_of_other_contracts_and_sources_change_no_worth(retriever):
    alike = feature_worth(retriever, ROWS, NEW_ROWS, false_answer_cost=1.0, **FEW)
    turned = [row | {"answers": [] if row["answers"] else [{"text": "x", "start": 0}]} for row in NEW_ROWS]
    generated = [row | {"source": "template"} for row in ROWS]
    assert feature_worth(retriever, ROWS + turned + generated, NEW_ROWS, false_answer_cost=1.0, **FEW).equals(alike)


def test_more_training_contracts_detect_better_and_the_last_row_is_the_retrievers_own(retriever):
    settings = {"groups": {}, "k": 2, "false_answer_cost": 1.0, **FEW}
    table = learning_curve(retriever, ROWS, NEW_ROWS, [15, 20, 40, 99], **settings)
    assert list(table["training contracts"]) == [15, 20, 40]  # sizes from the number of contracts on are one row
    assert table["auc"].is_monotonic_increasing
    held = {row["contract"] for row in NEW_ROWS if row["answers"]}
    assert table["n_contracts"].between(len(held), len(NEW)).all()
    looks = Confidence.fit(retriever, ROWS, k=2, false_answer_cost=1.0).look(
        retriever, [(row["question"], row["contract"]) for row in NEW_ROWS], k=1
    )
    p, truth = np.array([look.p_exists for look in looks]), np.array([bool(row["answers"]) for row in NEW_ROWS])
    answered = {row["contract"] for row, q in zip(NEW_ROWS, p) if q >= 0.5}
    last = table.iloc[-1]
    assert last["n_contracts"] == len(held | answered)  # a contract without either says nothing
    assert last["brier"] == pytest.approx(np.mean((p - truth) ** 2))
    assert last["detection_f1"] == pytest.approx(detection_f1(p, 0.5))


def test_rows_of_other_contracts_and_sources_change_no_measure(retriever):
    settings = {"groups": {}, "k": 2, "false_answer_cost": 1.0, **FEW}
    alike = learning_curve(retriever, ROWS, NEW_ROWS, [20], **settings)
    generated = [row | {"source": "template", "answers": []} for row in ROWS]
    assert learning_curve(retriever, ROWS + generated, NEW_ROWS, [20], **settings).equals(alike)


def test_a_size_with_too_few_questions_to_calibrate_on_has_no_row(retriever):
    settings = {"groups": {}, "k": 2, "false_answer_cost": 1.0, **FEW}
    assert list(learning_curve(retriever, ROWS, NEW_ROWS, [2], **settings)["training contracts"]) == [len(TRAIN)]
