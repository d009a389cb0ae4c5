"""Properties of preference pairs: where they come from, what precedence holds, and that they are fit to be learned."""

import math
from collections import Counter

import numpy as np
import pytest
import small
from judged import CLOSE, GOLD, HALF, IMPOSSIBLE, ROW, WRONG, Marks, candidates, vote

from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.feedback import candidates as material
from cuadft.feedback import preferences
from cuadft.feedback.preferences import length_report

TAIL = "in each year"  # 3 of 12 words: F1 0.4
LOST = ROW | {"answers": [{"text": "elsewhere", "start": 10**6}]}  # no quote has an F1 above 0: gold is silent


def preference_pairs(
    program, given: list[dict], *, judge, feedback=(), rows=(), **settings
) -> tuple[list[dict], Counter]:
    """Return the pairs made of candidates and votes, and the counts."""
    gathered = material.gather_material(program, given, judge=judge, feedback=feedback, rows=rows)
    choices, counts = preferences.preferred_answers(gathered, **settings)
    return preferences.preference_pairs(program, choices), counts


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
        ([GOLD, WRONG], [("gold", GOLD, WRONG)]),
        ([CLOSE, HALF], [("gold", CLOSE, HALF)]),  # 0.86 against 0.67: the border of the quote
        ([CLOSE, HALF, WRONG], [("gold", CLOSE, WRONG)]),  # the clearest pair comes first
        ([GOLD.upper(), WRONG], [("gold", GOLD.upper(), WRONG)]),
        ([GOLD, CLOSE], []),  # 1 - 0.86 < 0.15
        ([WRONG, TAIL], []),  # of two wrong quotes neither is to be learned
        ([GOLD], []),  # the expert's words are no answer of the model
        ([WRONG], []),
        ([], []),
        ([CLOSE, NO_CLAUSE], []),  # nothing is taught about refusing
        ([NO_CLAUSE, WRONG], []),
        ([GOLD, "Acme may audit all the books"], []),  # words that do not stand there
        ([GOLD.replace("may", "shall"), WRONG], []),
    ],
)
def test_gold_sets_quotes_of_the_model_against_each_other(answers, expected):
    assert made(candidates(ROW, *answers))[0] == expected


def test_without_clause_there_are_no_quotes_to_choose_between():
    assert made(candidates(IMPOSSIBLE, NO_CLAUSE, "ACME", "the end of each calendar month"))[0] == []


def test_an_answer_of_all_gold_spans_is_not_worse_than_one_of_them():
    text = small.TEXTS[ROW["contract"]]
    both = [{"text": own, "start": text.index(own)} for own in ("Acme may audit", "once in each year")]
    row, whole = ROW | {"answers": both}, "Acme may audit\nonce in each year"
    assert made(candidates(row, whole, WRONG))[0] == [("gold", whole, WRONG)]
    assert made(candidates(row, whole, "Acme may audit"))[0] == []


def test_all_spans_of_the_passage_are_not_worse_than_one_of_them_whatever_lies_elsewhere():
    words, text = ("Acme may audit", "books and records", "once in each year"), small.TEXTS[ROW["contract"]]
    spans = [{"text": own, "start": text.index(own)} for own in words]
    row = ROW | {"answers": [*spans, {"text": "elsewhere " * 30, "start": 10**6}]}
    whole = "\n".join(words)  # F1 of 0.57 with the nearest span, and of 0.40 with all
    assert made(candidates(row, whole, words[-1]))[0] == []
    assert made(candidates(row, whole, "the Distributor"))[0] == [("gold", whole, "the Distributor")]


@pytest.mark.parametrize(
    "scores, expected",
    [
        ({CLOSE: 0.5, HALF: 0.9}, []),  # the judge sees it the other way round
        ({CLOSE: 0.9, HALF: 0.9}, [("gold", CLOSE, HALF)]),
        ({CLOSE: None, HALF: 0.9}, [("gold", CLOSE, HALF)]),  # gold needs no judge
    ],
)
def test_what_gold_and_judge_see_differently_makes_no_gold_pair(scores, expected):
    found, _ = made(candidates(ROW, *scores), scores)
    assert [pair for pair in found if pair[0] == "gold"] == expected


# --- ai


@pytest.mark.parametrize(
    "scores, expected",
    [
        ({HALF: 0.9, WRONG: 0.1}, [(HALF, WRONG)]),
        ({HALF: 0.9, TAIL: 0.5, WRONG: 0.1}, [(HALF, WRONG)]),
        ({HALF: 0.9, TAIL: 0.8}, []),
        ({WRONG: 0.4, TAIL: 0.0}, []),  # of two wrong answers neither is to be learned
        ({HALF: 0.9, NO_CLAUSE: 0.0}, []),
        ({HALF: 0.9, TAIL: None}, []),
        ({TAIL: None}, []),
        ({WRONG: 0.1}, []),
        ({}, []),
    ],
)
def test_ai_prefers_by_the_judge_where_gold_is_silent(scores, expected):
    found, counts = made(candidates(LOST, *scores), scores)
    assert [(chosen, rejected) for _, chosen, rejected in found] == expected
    assert counts["judgement failed"] == (None in scores.values()) and counts["ai"] == len(expected)


@pytest.mark.parametrize("poor, expected", [(0.0, 1), (0.65, 1), (0.66, 0), (0.8, 0)])
def test_scores_must_differ_by_the_margin(poor, expected):  # of 0.15
    assert len(made(candidates(LOST, HALF, WRONG), {HALF: 0.8, WRONG: poor})[0]) == expected


def test_ties_and_what_is_no_quote_make_no_pair_and_are_counted():
    found, counts = made(candidates(LOST, HALF, WRONG), {HALF: 0.9, WRONG: 0.9})
    assert not found and counts == {"no clear difference": 1}
    found, counts = made(candidates(LOST, HALF, f" {HALF.upper()}"), {HALF: 0.9})
    assert not found and counts == {"one quote only": 1}
    found, counts = made(candidates(LOST, HALF, NO_CLAUSE, "other words"), {HALF: 0.9})
    assert not found and counts == {"one quote only": 1, "no quote": 2}


def test_the_judge_is_asked_once_about_equal_answers():
    judge = Marks({})
    preference_pairs(
        small.program(), candidates(ROW, "one", "one", "two", None) + candidates(IMPOSSIBLE, "one"), judge=judge
    )
    assert judge.asked == [(ROW["id"], "one"), (ROW["id"], "two"), (IMPOSSIBLE["id"], "one")]


def test_failed_generations_make_no_pair_and_are_counted():
    found, counts = made(candidates(ROW, None, WRONG, GOLD, None))
    assert found == [("gold", GOLD, WRONG)] and counts == {"generation failed": 2, "gold": 1}
    assert made(candidates(ROW, None)) == ([], {"generation failed": 1}) and made([]) == ([], {})


def test_a_failed_judgement_is_unknown_whatever_its_score():
    class Down(Marks):
        def rate(self, rows):
            return (
                super().rate(rows).assign(judge_error=["OSError: down" if r["answer"] == WRONG else None for r in rows])
            )

    rows = candidates(LOST, HALF, WRONG)
    whole, broken = (
        preference_pairs(small.program(), rows, judge=judge({HALF: 0.9}), length_tolerance=9) for judge in (Marks, Down)
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
    assert said(vote("anna", "both_wrong", span=[start, start + len("Acme may")]))[0] == [
        ("human", "Acme may", answer) for answer in (WRONG, HALF)
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
    for chosen, expected in [(HALF, 1), ("of the other party", 0), (NO_CLAUSE, 0)]:
        found, counts = said(vote("anna", "a", chosen, "something else", prompt=now))
        assert len(found) == expected and counts["human: passages have changed"] == 1 - expected
    right = vote("anna", "a", NO_CLAUSE, "something else", row=IMPOSSIBLE, prompt=now)
    assert said(right, rows=small.ROWS)[0] == [("human", NO_CLAUSE, "something else")]
    rows = candidates(ROW, GOLD, WRONG)
    sent = preference_pairs(small.program(), rows, judge=None, length_tolerance=9)[0][0]["prompt"]
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


def test_a_corrected_border_is_a_pair_about_the_passage_that_holds_it():
    """The narrower the correction, the more it teaches: no margin, no matching of lengths, no other passage."""
    border = GOLD.removesuffix(" year.")
    found, counts = said(vote("anna", "b", GOLD, border, edited=border), length_tolerance=0.0)
    assert found == [("human", border, GOLD)] and counts["human"] == 1
    text, words = small.TEXTS[ROW["contract"]], "exceed 10,000 dollars"  # the second passage found holds these
    span = [text.index(words), text.index(words) + len(words)]
    for corrected in (vote("anna", "both_wrong", span=span), vote("anna", "both_wrong", edited=words)):
        pairs, _ = preference_pairs(small.program(), [], judge=None, feedback=[corrected], rows=[ROW])
        assert [p["chosen"][0]["content"] for p in pairs] == [words] * 2
        assert all(words in p["prompt"][-1]["content"] for p in pairs)


def test_people_alone_put_a_refusal_into_a_pair():
    refused = vote("anna", "a", NO_CLAUSE, WRONG, row=IMPOSSIBLE)
    assert said(refused, rows=small.ROWS)[0] == [("human", NO_CLAUSE, WRONG)]
    overlooked = vote("anna", "b", NO_CLAUSE, HALF)
    assert said(overlooked)[0] == [("human", HALF, NO_CLAUSE)]
    rows = candidates(ROW, NO_CLAUSE, GOLD, WRONG) + candidates(IMPOSSIBLE, NO_CLAUSE, "ACME")
    assert NO_CLAUSE not in {side for _, *sides in made(rows, {GOLD: 1.0})[0] for side in sides}


def test_people_come_before_gold_and_gold_before_the_judge():
    rows, scores = candidates(ROW, CLOSE, HALF, WRONG), {CLOSE: 0.9, HALF: 0.5, WRONG: 0.0}
    assert made(candidates(LOST, "Acme", WRONG), {"Acme": 0.9})[0] == [("ai", "Acme", WRONG)]  # gold is silent
    assert made(rows, scores) == ([("gold", CLOSE, WRONG)], {"gold": 1, "superseded": 1})
    found, counts = made(rows, scores, feedback=[vote("anna", "a", "one", "two"), vote("anna", "b", "three", "two")])
    assert found == [("human", "one", "two"), ("human", "two", "three")] and counts == {"human": 2, "superseded": 2}


def test_no_other_source_decides_a_pair_that_people_left_open_or_prefers_what_they_called_wrong():
    rows = candidates(ROW, CLOSE, WRONG)
    assert made(rows)[0] == [("gold", CLOSE, WRONG)]
    assert made(rows, feedback=[vote("anna", "tie", CLOSE, WRONG)])[0] == []
    assert made(rows, feedback=[vote("anna", "both_wrong", CLOSE, "some other words")])[0] == []
    assert made(rows, feedback=[vote("anna", "tie", HALF, WRONG)])[0] == [("gold", CLOSE, WRONG)]


# --- lengths


def test_lengths_are_matched_by_choosing_and_then_by_dropping():
    rows = [ROW | {"id": f"{n}"} for n in range(9)]
    given = [c for row in rows for c in candidates(row, CLOSE, WRONG, HALF)]
    free, _ = preference_pairs(small.program(), given, judge=None, length_tolerance=math.inf)
    matched, counts = preference_pairs(small.program(), given, judge=None, length_tolerance=0.6)
    assert len(free) == len(matched) == counts["gold"] == 9 and not counts["dropped for length"]
    assert length_report(free)["mean_log_ratio"] > 2  # 63 characters against 5
    assert abs(length_report(matched)["mean_log_ratio"]) <= 0.6  # 63 against 36
    left, counts = preference_pairs(small.program(), given, judge=None, length_tolerance=0.2)
    assert counts == {"dropped for length": 9} and not left  # nothing to weigh them against


# --- all pairs


def test_pairs_differ_by_the_margin_carry_their_origin_and_repeat():
    rng = np.random.default_rng(0)
    clauses = [(row, row["answers"][0]["text"]) for row in small.ROWS if row["answers"]]
    rows = [c for row, own in clauses for c in candidates(row, NO_CLAUSE, own, " ".join(own.split()[:3]), None)]
    scores = {c["answer"]: float(rng.random()) for c in rows}
    votes = [vote("anna", "a", "one", "two", row=small.ROWS[5])]
    runs = [
        preference_pairs(small.program(), rows, judge=Marks(scores), feedback=votes, length_tolerance=9)
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
            assert pair["margin"] == pair["chosen_score"] - pair["rejected_score"] >= 0.15
            assert NO_CLAUSE not in (pair["chosen"][0]["content"], pair["rejected"][0]["content"])
    assert len({p["id"] for p in runs[0][0]}) == len(
        runs[0][0]
    )  # none but people's choices makes two pairs of a question


def test_pairs_hold_the_prompt_that_the_program_sends(tmp_path):
    from cuadft.feedback.candidates import sample_candidates

    program, rows = small.program(), small.ROWS[1:4]
    program.predict.demos = [{"passage": "p", "question": "q", "answer": "a"}]
    script = small.Script(lambda m: WRONG)
    sent = sample_candidates(program, script.lm(), rows, tmp_path, n=0)
    rights = [row | {"answer": row["answers"][0]["text"], "error": None} for row in rows]
    wrongs = [made | {"answer": words} for made, words in zip(sent, ("books", "liability", "term"), strict=True)]
    found, _ = preference_pairs(program, [*wrongs, *rights], judge=None, length_tolerance=math.inf)
    assert sorted(map(str, script.calls)) == sorted(str(p["prompt"]) for p in found) and len(found) == 3


def test_trl_takes_the_pairs_as_they_are():
    from datasets import Dataset
    from trl.data_utils import is_conversational

    found, _ = preference_pairs(
        small.program(),
        candidates(ROW, WRONG, GOLD),
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
