"""Properties of single answers with a thumb: whose thumb counts, which answers get none, and weights that balance."""

import pytest
import small
from judged import CLOSE, GOLD, HALF, ROW, WRONG, Marks, candidates, vote

from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.feedback.candidates import gather_material
from cuadft.feedback.preferences import preference_pairs, preference_thumbs, preferred_answers
from cuadft.training.align import thumb_weights


def records(rows: list[dict], scores: dict | None = None, **settings) -> tuple[list[dict], dict]:
    """Return the records with a thumb, and the counts."""
    judge = None if scores is None else Marks(scores)
    material = gather_material(small.program(), rows, judge=judge, **settings)
    choices, _ = preferred_answers(material, length_tolerance=9)
    return preference_thumbs(small.program(), material, choices)


def thumbs(rows: list[dict], scores: dict | None = None, **settings) -> tuple[list[tuple], dict]:
    """Return (source, answer, label) of each record, and the counts."""
    found, counts = records(rows, scores, **settings)
    return [(r["source"], r["completion"][0]["content"], r["label"]) for r in found], counts


@pytest.mark.parametrize(
    "answers, expected",
    [
        ([CLOSE, WRONG], [("gold", CLOSE, True), ("gold", WRONG, False)]),
        ([CLOSE, HALF, NO_CLAUSE], [("gold", CLOSE, True), ("gold", HALF, False)]),
        ([CLOSE], []),
        ([CLOSE, NO_CLAUSE], []),
        ([None], []),
        ([], []),
    ],
)
def test_thumbs_are_those_of_the_pairs(answers, expected):
    found, counts = thumbs(candidates(ROW, *answers))
    assert found == expected and counts["up"] == counts["down"] == len(expected) / 2


def test_the_judge_decides_where_gold_does_not():
    lost = ROW | {"answers": [{"text": "elsewhere", "start": 10**6}]}
    assert thumbs(candidates(lost, HALF, WRONG), {HALF: 0.9})[0] == [("ai", HALF, True), ("ai", WRONG, False)]


def test_people_come_first():
    rows, scores = candidates(ROW, CLOSE, WRONG, HALF), {CLOSE: 1.0, HALF: 0.5}
    found, counts = thumbs(rows, scores, feedback=[vote("anna", "b", CLOSE, WRONG)])
    assert found == [("human", WRONG, True), ("human", CLOSE, False)] and counts["human"] == 2
    found, _ = thumbs(rows, scores, feedback=[vote("anna", "both_wrong", CLOSE, GOLD)])
    assert found == [
        ("human", CLOSE, False),
        ("human", GOLD, False),
        ("gold", HALF, True),
        ("gold", WRONG, False),
    ]
    found, _ = thumbs(rows, scores, feedback=[vote("anna", "both_wrong", CLOSE, WRONG, edited="Acme may audit")])
    assert set(found) == {("human", "Acme may audit", True), ("human", CLOSE, False), ("human", WRONG, False)}


def test_an_answer_with_both_thumbs_gets_none():
    chain = [vote("anna", "a", CLOSE, HALF), vote("anna", "a", HALF, WRONG)]
    found, counts = thumbs(candidates(ROW, CLOSE, HALF, WRONG), {}, feedback=chain)
    assert found == [("human", CLOSE, True), ("human", WRONG, False)] and counts["human: both up and down"] == 1


def test_records_hold_prompt_and_origin():
    found, _ = records(candidates(ROW, GOLD, WRONG))
    why = "F1 with the expert's words: 1.00 against 0.15"
    assert [(r["reason"], round(r["score"], 2)) for r in found] == [
        (why, 1.0),
        (f"another answer was chosen: {why}", 0.15),
    ]
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
    choices, _ = preferred_answers(material)
    found, _ = preference_thumbs(small.program(), material, choices)
    assert [(r["source"], r["completion"][0]["content"], r["label"]) for r in found] == [("human", WRONG, label)]
    assert preference_pairs(small.program(), choices) == []
