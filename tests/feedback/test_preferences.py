"""Properties of preference pairs: where they come from, what precedence holds, and that they are fit to be learned."""

import math
from collections import Counter

import numpy as np
import pytest
import small
from judged import CLOSE, GOLD, HALF, IMPOSSIBLE, NEARLY, ROW, WRONG, Marks, candidates, vote

from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.feedback import candidates as material
from cuadft.feedback import preferences
from cuadft.feedback.preferences import length_report

LOST = ROW | {"answers": [{"text": GOLD, "start": 10**6}]}  # its clause lies outside the passage: gold makes no pair


def preference_pairs(
    program, given: list[dict], *, judge, feedback=(), rows=(), **settings
) -> tuple[list[dict], Counter]:
    """Return the pairs made of candidates and votes, and the counts."""
    gathered = material.gather_material(program, given, judge=judge, feedback=feedback, rows=rows)
    return preferences.preference_pairs(program, gathered, **settings)


def made(given: list[dict], scores: dict | None = None, **settings) -> tuple[list[tuple], Counter]:
    """Return (source, chosen, rejected) of the pairs made of candidates, and the counts; no scores, no judge."""
    found, counts = preference_pairs(
        small.program(),
        given,
        judge=None if scores is None else Marks(scores),
        **{"length_tolerance": math.inf} | settings,
    )
    return [(p["source"], p["chosen"][0]["content"], p["rejected"][0]["content"]) for p in found], counts


def said(*votes: dict, **settings) -> tuple[list[tuple], Counter]:
    """Return the pairs of votes alone: there are no candidates."""
    return made([], feedback=votes, **{"rows": [ROW]} | settings)


# --- gold


@pytest.mark.parametrize(
    "answers, expected",
    [
        ([WRONG], [("gold", GOLD, WRONG)]),  # the expert's words where the model has no good ones
        ([HALF, WRONG], [("gold", GOLD, WRONG)]),  # F1 0.67 is not near 1; the clearest pair comes first
        ([NEARLY, WRONG], [("gold", NEARLY, WRONG)]),  # the model's own words, as good as the expert's
        ([CLOSE, WRONG], [("gold", GOLD, WRONG)]),  # 0.87 is just not
        ([GOLD.upper(), WRONG], [("gold", GOLD.upper(), WRONG)]),
        ([NEARLY, NO_CLAUSE], [("gold", NEARLY, NO_CLAUSE)]),  # a refusal is wrong where the passages hold the clause
        ([GOLD], []),
        ([NEARLY, GOLD], []),
        ([CLOSE], []),  # 1 - 0.87 < 0.3
        ([], []),
    ],
)
def test_gold_prefers_the_models_own_good_answer_and_else_the_experts_words(answers, expected):
    assert made(candidates(ROW, *answers))[0] == expected


@pytest.mark.parametrize(
    "answers, expected",
    [
        ([NO_CLAUSE, WRONG], [("gold", NO_CLAUSE, WRONG)]),
        ([WRONG], [("gold", NO_CLAUSE, WRONG)]),
        ([NO_CLAUSE], []),
        (["there is NO such clause", WRONG], [("gold", NO_CLAUSE, WRONG)]),  # taught in the one wording
        (["***", NO_CLAUSE], [("gold", NO_CLAUSE, "***")]),  # SQuAD reads it as no answer; it is no refusal to teach
    ],
)
def test_without_clause_the_refusal_is_preferred(answers, expected):
    assert made(candidates(IMPOSSIBLE, *answers))[0] == expected


def test_an_answer_of_all_gold_spans_is_not_worse_than_one_of_them():
    both = [
        {"text": text, "start": small.TEXTS[ROW["contract"]].index(text)} for text in ("Acme may audit", "each year")
    ]
    row = ROW | {"answers": both}
    assert made(candidates(row, "Acme may audit each year", WRONG))[0] == [("gold", "Acme may audit each year", WRONG)]


def test_all_spans_of_the_passage_are_not_worse_than_one_of_them_whatever_lies_elsewhere():
    words, text = ("Acme may audit", "books and records", "once in each year"), small.TEXTS[ROW["contract"]]
    spans = [{"text": own, "start": text.index(own)} for own in words]
    row = ROW | {"answers": [*spans, {"text": "elsewhere " * 30, "start": 10**6}]}
    whole = "\n".join(words)  # F1 of 0.57 with the nearest span, and of 0.40 with all
    assert made(candidates(row, whole, words[-1]))[0] == []
    assert made(candidates(row, whole, WRONG))[0] == made(candidates(row, WRONG))[0] == [("gold", whole, WRONG)]


def test_where_the_clause_lies_outside_the_passages_nothing_is_invented_or_refused():
    assert made(candidates(LOST, WRONG))[0] == made(candidates(LOST, NO_CLAUSE, WRONG))[0] == []
    assert made(candidates(LOST, GOLD, NO_CLAUSE))[0] == []
    assert made(candidates(LOST, GOLD, WRONG))[0] == [("gold", GOLD, WRONG)]  # the model's own, from what it saw
    assert made(candidates(LOST, "Acme may", WRONG), {"Acme may": 0.9})[0] == [("ai", "Acme may", WRONG)]  # F1 0.29


@pytest.mark.parametrize(
    "scores, expected",
    [
        ({NEARLY: 1.0, CLOSE: 0.2}, []),  # 0.96 against 0.87: too close for gold
        ({NEARLY: 0.2, WRONG: 0.0}, [("gold", GOLD, WRONG)]),  # the judge sees a wrong number or so: not chosen
        ({HALF: 0.9}, []),  # the judge holds it correct: not rejected
        ({HALF: None, WRONG: None}, [("gold", GOLD, WRONG)]),  # gold needs no judge
    ],
)
def test_what_gold_and_judge_see_differently_makes_no_gold_pair(scores, expected):
    found, _ = made(candidates(ROW, *scores), scores)
    assert [pair for pair in found if pair[0] == "gold"] == expected


# --- ai


@pytest.mark.parametrize(
    "scores, expected",
    [
        ({"good": 0.9, "poor": 0.1}, [("good", "poor")]),
        ({"good": 0.9, "fair": 0.5, "poor": 0.1}, [("good", "poor")]),
        ({"good": 0.9, "fair": 0.75}, []),
        ({"poor": 0.4, "bad": 0.0}, []),  # of two wrong answers neither is to be learned
        ({"good": 0.9, "lost": None}, []),
        ({"lost": None}, []),
        ({"poor": 0.1}, []),
        ({}, []),
    ],
)
def test_ai_prefers_by_the_judge_and_never_takes_the_experts_words(scores, expected):
    found, counts = made(candidates(LOST, *scores), scores)
    assert [(chosen, rejected) for _, chosen, rejected in found] == expected
    assert counts["judgement failed"] == ("lost" in scores) and counts["ai"] == len(expected)


@pytest.mark.parametrize("poor, expected", [(0.0, 1), (0.5, 1), (0.51, 0), (0.8, 0)])
def test_scores_must_differ_by_the_margin(poor, expected):  # of 0.3
    assert len(made(candidates(LOST, "good", "poor"), {"good": 0.8, "poor": poor})[0]) == expected


def test_ties_make_no_pair_and_are_counted():
    found, counts = made(candidates(LOST, "one", "two"), {"one": 0.9, "two": 0.9})
    assert not found and counts == {"no clear difference": 1}
    found, counts = made(candidates(LOST, "one", " ONE"), {"one": 0.9, " ONE": 0.1})
    assert not found and counts == {"one answer only": 1}


def test_the_judge_is_asked_once_about_equal_answers():
    judge = Marks({})
    preference_pairs(
        small.program(), candidates(ROW, "one", "one", "two", None) + candidates(IMPOSSIBLE, "one"), judge=judge
    )
    assert judge.asked == [(ROW["id"], "one"), (ROW["id"], "two"), (IMPOSSIBLE["id"], "one")]


def test_failed_generations_make_no_pair_and_are_counted():
    found, counts = made(candidates(ROW, None, WRONG, None))
    assert found == [("gold", GOLD, WRONG)] and counts == {"generation failed": 2, "gold": 1}
    assert made(candidates(ROW, None)) == ([], {"generation failed": 1}) and made([]) == ([], {})


def test_a_failed_judgement_is_unknown_whatever_its_score():
    class Down(Marks):
        def rate(self, rows):
            return (
                super()
                .rate(rows)
                .assign(judge_error=["OSError: down" if r["answer"] == "lost" else None for r in rows])
            )

    rows = candidates(LOST, "good", "lost")
    whole, broken = (
        preference_pairs(small.program(), rows, judge=judge({"good": 0.9}), length_tolerance=9)
        for judge in (Marks, Down)
    )
    assert len(whole[0]) == 1
    assert broken == ([], {"judgement failed": 1, "no clear difference": 1})


# --- people


@pytest.mark.parametrize(
    "votes, expected, counted",
    [
        ([vote("anna", "a")], [(WRONG, HALF)], {"human": 1}),
        (
            [vote("anna", "b"), vote("ben", "b"), vote("cleo", "a")],
            [(HALF, WRONG)],
            {"human": 1, "human: annotators contradict each other": 1},
        ),
        (
            [vote("anna", "a"), vote("ben", "b")],
            [],
            {"human: annotators contradict each other": 1, "human: no majority": 1},
        ),
        ([vote("anna", "tie")], [], {"human: tie": 1}),
        ([vote("anna", "both_wrong")], [], {"human: both wrong": 1}),
        ([vote("anna", "skip")], [], {"human: skipped": 1}),
        (
            [vote("anna", "both_wrong", edited="Acme may audit")],
            [("Acme may audit", WRONG), ("Acme may audit", HALF)],
            {"human": 2},
        ),
        ([vote("anna", "b", edited="Acme may audit")], [("Acme may audit", WRONG)], {"human": 1}),
        ([vote("anna", "b", edited=WRONG)], [], {"human: both answers are the same": 1}),
        ([vote("anna", "a", "The  Fees", "the fees")], [], {"human: both answers are the same": 1}),
        ([vote("anna", "a", id="unknown")], [], {"human: not a training question": 1}),
        (
            [vote("anna", "a", contract="Binder Agreement")],
            [],
            {"human: not a training question": 1},
        ),
        ([vote("anna", "a", question="What else?")], [], {"human: not a training question": 1}),
    ],
)
def test_people_decide_by_majority_and_correct(votes, expected, counted):
    found, counts = said(*votes)
    assert found == [("human", *pair) for pair in expected] and counts == counted


def test_a_marked_span_is_the_answer_where_the_passages_hold_it():
    start = ROW["answers"][0]["start"]
    assert said(vote("anna", "both_wrong", span=[start, start + len(HALF) - 4]))[0] == [
        ("human", GOLD[: len(HALF) - 4].strip(), answer) for answer in (WRONG, HALF)
    ]
    outside = [len(small.TEXTS[ROW["contract"]]) + 10, len(small.TEXTS[ROW["contract"]]) + 19]
    found, counts = said(vote("anna", "both_wrong", span=outside), vote("anna", "b", "one", "two", span=outside))
    assert found == [("human", "two", "one")] and counts["human: marked span outside the passages"] == 2
    for across in ([start, start + 300], [max(0, start - 300), start + 20]):  # no passage holds it whole
        assert said(vote("anna", "both_wrong", span=across))[0] == []


def test_a_mark_inside_a_word_takes_the_whole_word():
    start = ROW["answers"][0]["start"]
    marked = vote("anna", "b", "one", "two", span=[start + 6, start + 12])  # "ay aud" of "Acme may audit"
    assert said(marked)[0] == [("human", "may audit", "one")]


def test_a_correction_keeps_its_lines_for_each_is_a_quote():
    corrected = vote("anna", "b", "one", "two", edited=" Acme  may\n\nonce in each year\n")
    assert said(corrected)[0] == [("human", "Acme may\nonce in each year", "one")]


def test_of_other_passages_every_line_of_the_chosen_words_must_stand_in_this_one():
    now = [{"role": "user", "content": "other passages"}]
    for chosen, expected in [("Acme may\nonce in each year", 1), ("Acme may\nof the other party", 0), ("", 0)]:
        found, counts = said(vote("anna", "a", chosen, "something else", prompt=now))
        assert len(found) == expected and counts["human: passages have changed"] == 1 - expected


def test_what_was_said_of_other_passages_counts_only_if_these_hold_the_words():
    now = [{"role": "user", "content": "other passages"}]
    for chosen, expected in [(HALF.replace("books", "the books"), 1), ("of the other party", 0), (NO_CLAUSE, 0)]:
        found, counts = said(vote("anna", "a", chosen, "something else", prompt=now))
        assert len(found) == expected and counts["human: passages have changed"] == 1 - expected
    right = vote("anna", "a", NO_CLAUSE, "something else", row=IMPOSSIBLE, prompt=now)
    assert said(right, rows=small.ROWS)[0] == [("human", NO_CLAUSE, "something else")]
    sent = preference_pairs(small.program(), candidates(ROW, WRONG), judge=None, length_tolerance=9)[0][0]["prompt"]
    assert said(vote("anna", "a", "of the other party", "something else", prompt=sent))[0]


@pytest.mark.parametrize("words", ["{}", "Question: {}", "Question: {}\nAnswer:"])
def test_a_prompt_of_the_bare_question_shows_no_passages_that_could_change(words):
    asked = [{"role": "system", "content": "Quote."}, {"role": "user", "content": words.format(ROW["question"])}]
    for prompt in (asked, [*asked, {"role": "assistant", "content": "one"}]):
        assert said(vote("anna", "a", "of the other party", "two", prompt=prompt))[0]


def test_people_are_heard_on_training_questions_without_candidates_only():
    other = small.ROWS[6]
    votes = [vote("anna", "a", "one", "two", row=other)]
    assert made([], feedback=votes, rows=small.ROWS)[0] == [("human", "one", "two")]
    assert made([], feedback=votes, rows=small.ROWS[:6]) == (
        [],
        {"human: not a training question": 1},
    )


def test_the_reason_names_who_decided_and_how_many():
    found, _ = preference_pairs(
        small.program(),
        candidates(ROW, WRONG, HALF),
        judge=Marks({}),
        feedback=[vote("anna", "b"), vote("ben", "b"), vote("cleo", "a"), vote("dora", "a", "x", "y", edited="z")],
    )
    assert [p["reason"] for p in found] == [
        "annotators anna, ben preferred it (2 of 3 votes)",
        "annotator dora corrected the answer",
    ]
    assert all(p["chosen_score"] is p["rejected_score"] is p["margin"] is None for p in found)


# --- precedence


def test_people_come_before_gold_and_gold_before_the_judge():
    rows, scores = candidates(ROW, NEARLY, HALF, WRONG), {NEARLY: 0.9, HALF: 0.5, WRONG: 0.0}
    assert made(candidates(LOST, "Acme", WRONG), {"Acme": 0.9})[0] == [("ai", "Acme", WRONG)]  # gold is silent
    assert made(rows, scores) == ([("gold", NEARLY, WRONG)], {"gold": 1, "superseded": 1})
    found, counts = made(rows, scores, feedback=[vote("anna", "a", "one", "two"), vote("anna", "b", "three", "two")])
    assert found == [("human", "one", "two"), ("human", "two", "three")] and counts == {"human": 2, "superseded": 2}


def test_no_other_source_decides_a_pair_that_people_left_open_or_prefers_what_they_called_wrong():
    rows = candidates(ROW, NEARLY, WRONG)
    assert made(rows, {})[0] == [("gold", GOLD, WRONG)]  # the judge holds NEARLY wrong
    assert made(rows, {NEARLY: 1.0})[0] == [("gold", NEARLY, WRONG)]
    assert made(rows, {NEARLY: 1.0}, feedback=[vote("anna", "tie", NEARLY, WRONG)])[0] == []
    assert made(rows, {NEARLY: 1.0}, feedback=[vote("anna", "both_wrong", NEARLY, "some other words")])[0] == []
    assert made(rows, {NEARLY: 1.0}, feedback=[vote("anna", "tie", HALF, WRONG)])[0] == [("gold", NEARLY, WRONG)]


# --- lengths


def many() -> list[dict]:
    """Return candidates whose gold pairs prefer the longer answer, with a choice of a long or a short wrong one."""
    rows = [row for row in small.ROWS if not row["is_impossible"]]
    return [c for row in rows for c in candidates(row, "wrong", "wrong words " * 9)]


def test_lengths_are_matched_by_choosing_and_then_by_dropping():
    free, _ = preference_pairs(small.program(), many(), judge=None, length_tolerance=math.inf)
    matched, counts = preference_pairs(small.program(), many(), judge=None, length_tolerance=0.05)
    assert len(free) == len(matched) == counts["gold"] == 12 and not counts["dropped for length"]
    assert length_report(free)["mean_log_ratio"] > 1 and abs(length_report(matched)["mean_log_ratio"]) <= 0.05
    short = [c for c in many() if c["answer"] == "wrong"] + candidates(IMPOSSIBLE, "a long invented clause " * 9)
    left, counts = preference_pairs(small.program(), short, judge=None, length_tolerance=0.5)
    # log ratios: 12 of ln(70..80 / 5) = 2.6 to 2.8 and one of ln(24 / 206) = -2.1. With one of the 12 the mean is 0.3;
    # with two of them it is 1.0.
    assert counts == {"gold": 2, "dropped for length": 11} and abs(length_report(left)["mean_log_ratio"]) <= 0.5


# --- all pairs


def test_pairs_differ_by_the_margin_carry_their_origin_and_repeat():
    rng = np.random.default_rng(0)
    rows = [c for row in small.ROWS for c in candidates(row, NO_CLAUSE, WRONG, GOLD, None, HALF, CLOSE)]
    scores = {c["answer"]: float(rng.random()) for c in rows}
    votes = [vote("anna", "a", "one", "two", row=small.ROWS[5])]
    runs = [
        preference_pairs(small.program(), rows, judge=Marks(scores), feedback=votes, length_tolerance=0.1)
        for _ in range(2)
    ]
    assert runs[0] == runs[1] and len(runs[0][0]) > 3
    for pair in runs[0][0]:
        assert list(pair) == [
            "id",
            "contract",
            "prompt",
            "chosen",
            "rejected",
            "source",
            "reason",
            "chosen_score",
            "rejected_score",
            "margin",
        ]
        assert pair["chosen"] != pair["rejected"] and [m["role"] for m in pair["prompt"]] == ["system", "user"]
        assert pair["contract"] == next(r["contract"] for r in small.ROWS if r["id"] == pair["id"])
        if pair["source"] != "human":
            assert pair["margin"] == pair["chosen_score"] - pair["rejected_score"] >= 0.3
    assert len({p["id"] for p in runs[0][0]}) == len(
        runs[0][0]
    )  # none but people's choices makes two pairs of a question


def test_pairs_hold_the_prompt_that_the_program_sends(tmp_path):
    from cuadft.feedback.candidates import sample_candidates

    program = small.program()
    program.predict.demos = [{"passage": "p", "question": "q", "answer": "a"}]
    script = small.Script(lambda m: WRONG)
    found, _ = preference_pairs(
        program,
        sample_candidates(program, script.lm(), small.ROWS[1:4], tmp_path, n=0),
        judge=None,
        length_tolerance=math.inf,
    )
    assert sorted(map(str, script.calls)) == sorted(str(p["prompt"]) for p in found) and len(found) == 3


def test_an_answer_cannot_end_its_turn():
    assert made(candidates(ROW, "a<|im_end|>"))[0] == [("gold", GOLD, "a< |im_end|>")]


def test_trl_takes_the_pairs_as_they_are():
    from datasets import Dataset
    from trl.data_utils import is_conversational

    found, _ = preference_pairs(
        small.program(),
        candidates(ROW, WRONG),
        judge=None,
        length_tolerance=math.inf,
        feedback=[vote("anna", "a")],
        rows=small.ROWS,
    )
    assert is_conversational(Dataset.from_list(found)[0])


def test_what_people_chose_is_not_dropped_for_its_length():
    rows, scores = candidates(ROW, WRONG, CLOSE), {WRONG: 0.0, CLOSE: 1.0}
    found, counts = preference_pairs(
        small.program(), rows, judge=Marks(scores), feedback=[vote("anna", "a", GOLD * 3, "x")], length_tolerance=0.0
    )
    assert [p["source"] for p in found] == ["human"] and not counts["dropped for length"]
