"""Properties of single answers with a thumb: whose thumb counts, which answers get none, and weights that balance."""

import pytest
import small
from judged import CLOSE, GOLD, HALF, IMPOSSIBLE, ROW, WRONG, Marks, candidates, vote

from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.feedback.candidates import gather_material
from cuadft.feedback.preferences import preference_pairs, preference_thumbs
from cuadft.training.align import thumb_weights


def thumbs(rows: list[dict], scores: dict | None = None, **settings) -> tuple[list[tuple], dict]:
    """Return (source, answer, label) of each record, and the counts."""
    judge = None if scores is None else Marks(scores)
    found, counts = preference_thumbs(small.program(), gather_material(small.program(), rows, judge=judge, **settings))
    return [(r["source"], r["completion"][0]["content"], r["label"]) for r in found], counts


@pytest.mark.parametrize(
    "answers, expected",
    [
        ([CLOSE, WRONG], [("gold", CLOSE, True), ("gold", WRONG, False)]),  # F1 0.87 and 0
        ([CLOSE, CLOSE.upper()], [("gold", CLOSE, True)]),
        ([HALF], [("gold", GOLD, True)]),  # F1 0.67 is neither; the expert's words stand in
        ([NO_CLAUSE], [("gold", NO_CLAUSE, False), ("gold", GOLD, True)]),
        ([None], []),
        ([], []),
    ],
)
def test_gold_says_up_or_down(answers, expected):
    assert thumbs(candidates(ROW, *answers))[0] == expected


def test_without_clause_only_the_refusal_is_good():
    found, counts = thumbs(candidates(IMPOSSIBLE, NO_CLAUSE, WRONG, GOLD))
    assert found == [("gold", NO_CLAUSE, True), ("gold", WRONG, False), ("gold", GOLD, False)]
    assert counts == {"gold": 3, "up": 1, "down": 2}


def test_where_the_clause_lies_outside_the_passages_a_refusal_is_neither():
    lost = ROW | {"answers": [{"text": GOLD, "start": 10**6}]}
    assert thumbs(candidates(lost, NO_CLAUSE, WRONG))[0] == [("gold", WRONG, False)]


@pytest.mark.parametrize(
    "answer, score, expected",
    [
        (HALF, 0.9, ("ai", HALF, True)),
        (HALF, 0.1, ("ai", HALF, False)),
        (HALF, 0.5, None),
        (HALF, None, None),
        (WRONG, 0.9, None),
        (CLOSE, 0.1, None),  # gold and judge disagree
        (CLOSE, 0.5, ("gold", CLOSE, True)),
        (WRONG, None, ("gold", WRONG, False)),
    ],
)
def test_the_judge_decides_where_gold_does_not_and_never_against_it(answer, score, expected):
    found, _ = thumbs(candidates(ROW, answer), {answer: score})
    assert [thumb for thumb in found if thumb[1] != GOLD] == ([expected] if expected else [])


def test_people_come_first():
    rows, scores = candidates(ROW, CLOSE, WRONG, HALF), {CLOSE: 1.0, HALF: 0.5}
    found, counts = thumbs(rows, scores, feedback=[vote("anna", "b", CLOSE, WRONG)])
    assert found == [("human", WRONG, True), ("human", CLOSE, False)] and counts["human"] == 2
    found, _ = thumbs(rows, scores, feedback=[vote("anna", "both_wrong", CLOSE, GOLD)])
    assert found == [
        ("human", CLOSE, False),
        ("human", GOLD, False),
        ("gold", WRONG, False),
    ]  # nor are gold's words good
    found, _ = thumbs(rows, scores, feedback=[vote("anna", "both_wrong", CLOSE, WRONG, edited="Acme may audit")])
    assert found == [("human", "Acme may audit", True), ("human", CLOSE, False), ("human", WRONG, False)]


def test_an_answer_with_both_thumbs_gets_none():
    chain = [vote("anna", "a", CLOSE, HALF), vote("anna", "a", HALF, WRONG)]
    found, counts = thumbs(candidates(ROW, CLOSE, HALF, WRONG), {}, feedback=chain)
    assert found == [("human", CLOSE, True), ("human", WRONG, False)] and counts["human: both up and down"] == 1


def test_records_hold_prompt_and_origin():
    material = gather_material(small.program(), candidates(ROW, WRONG), judge=None)
    found, _ = preference_thumbs(small.program(), material)
    assert [r["reason"] for r in found] == ["F1 0.00 with the expert's words", "the expert's words"]
    for record in found:
        assert list(record) == ["id", "contract", "prompt", "completion", "label", "source", "reason", "score"]
        assert (record["id"], record["contract"]) == (ROW["id"], ROW["contract"])
        assert record["prompt"][-1]["role"] == "user" and record["completion"][0]["role"] == "assistant"


@pytest.mark.parametrize(
    "up, down, expected", [(4, 2, (1, 2)), (2, 5, (2.5, 1)), (3, 3, (1, 1)), (0, 4, (1, 1)), (0, 0, (1, 1))]
)
def test_weights_make_both_kinds_count_alike(up, down, expected):
    assert thumb_weights([{"label": True}] * up + [{"label": False}] * down) == expected
    assert not (up and down) or up * expected[0] == down * expected[1]


@pytest.mark.parametrize("verdict, label", [("a", True), ("both_wrong", False)])
def test_a_single_answer_with_a_thumb_is_one_answer_and_no_pair(verdict, label):
    votes = [vote("anna", verdict, WRONG, "")]
    material = gather_material(small.program(), [], judge=None, feedback=votes, rows=[ROW])
    found, _ = preference_thumbs(small.program(), material)
    assert [(r["source"], r["completion"][0]["content"], r["label"]) for r in found] == [("human", WRONG, label)]
    assert preference_pairs(small.program(), material)[0] == []
