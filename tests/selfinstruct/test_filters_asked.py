"""Properties of near-duplicate detection over a data set: symmetric, exact, fast, and never by wording alone."""

import time

from hypothesis import given
from hypothesis import strategies as st

from cuadft.evaluation.text_scores import rouge_tokens, shingles
from cuadft.selfinstruct.filters import SAME_CLAUSE, AskedQuestions, ClauseNumbers

LAW = "This Agreement shall be governed by the laws of the State of Ohio, and disputes go to its courts in Columbus."
TEXAS = "The parties agree that the law of Texas applies to whatever they may fall out about in years to come."
OFFICIAL = "Governing Law: Which state/country's law governs the interpretation of the contract?"


def row(question, contract, clause, category="Governing Law"):
    answers = [{"text": clause, "start": 0}] if clause else []
    return {"question": question, "contract": contract, "category": category, "answers": answers}


def test_the_official_questions_recur_over_contracts_without_being_duplicates():
    asked = AskedQuestions([row(OFFICIAL, "A", LAW), row(OFFICIAL, "B", "")])
    assert asked.find(row(OFFICIAL, "C", TEXAS)) is None
    assert asked.find(row(OFFICIAL, "D", "")) is None  # absent in both, but in different contracts


def test_the_same_wording_on_the_same_contract_is_a_duplicate_whatever_the_clause():
    asked = AskedQuestions([row(OFFICIAL, "A", LAW)])
    assert "ROUGE-L 1.00" in asked.find(row(OFFICIAL, "A", TEXAS))
    assert (
        asked.find(row("Whose courts decide?", "A", LAW)) is None
    )  # another wording on the same clause is what we want


def test_a_clause_copied_into_another_contract_makes_the_same_question_a_duplicate():
    asked = AskedQuestions([row(OFFICIAL, "A", LAW)])
    copy = f"{LAW} Ohio."  # 21 words, so 19 sequences of three; one more makes 19/20
    assert asked.find(row(OFFICIAL, "B", copy)).startswith("ROUGE-L 1.00 with a question on the same clause of A")
    near = OFFICIAL.replace("state/country's law", "law of which country")
    assert "on the same clause of A" in asked.find(row(near, "B", LAW))


def test_near_wording_of_another_category_is_a_duplicate_unless_the_label_is_certain():
    asked = AskedQuestions([row("Is there a cap on liability?", "A", TEXAS, "Cap On Liability")])
    near = row("Is there no cap on liability?", "A", LAW, "Uncapped Liability")
    assert asked.find(near | {"expect": "gold"})  # by a language model: it may have lost the point
    assert asked.find(near | {"expect": ""}) is None
    assert asked.find(near | {"expect": "", "question": "is there a cap on liability"})


def test_a_candidate_without_gold_is_compared_by_its_passage():
    clauses = ClauseNumbers()
    assert clauses.number(row("q", "A", "")) is None
    assert clauses.number(row("q", "A", "") | {"clause": LAW}) == clauses.number(row("q", "A", LAW)) == 0
    asked = AskedQuestions([row("How often do they meet?", "A", "") | {"clause": LAW}])
    assert asked.find(row("How often do they meet?", "B", "") | {"clause": LAW})


def test_only_what_was_added_is_known():
    asked = AskedQuestions()
    assert asked.find(row(OFFICIAL, "A", LAW)) is None
    assert asked.find(row(OFFICIAL, "A", LAW)) is None  # having looked is not having asked
    asked.add(row(OFFICIAL, "A", LAW))
    assert asked.find(row(OFFICIAL, "A", LAW))


CLAUSES = st.lists(st.sampled_from("a b c".split()), min_size=1, max_size=9).map(" ".join)


@given(st.lists(CLAUSES, max_size=9), CLAUSES)
def test_a_clause_gets_the_number_of_the_first_kept_one_with_jaccard_from_the_limit(texts, new):
    clauses, firsts = ClauseNumbers(), []

    def sets(text):
        words = rouge_tokens(text)
        return shingles(words, min(3, len(words)))

    for text in [*texts, new]:
        number = clauses.number(row("q", "A", text))
        match = [
            n for n, first in enumerate(firsts) if len(sets(text) & first) >= SAME_CLAUSE * len(sets(text) | first)
        ]
        assert number == (match[0] if match else len(firsts))
        if not match:
            firsts.append(sets(text))


def test_twenty_thousand_rows_over_recurring_questions_take_seconds():
    phrasings = [
        f"Which {a} {b} holds for {c} in this deal?"
        for a in "law rule norm court act".split()
        for b in "state land town county place".split()
        for c in "fees terms names goods claims dates".split()
    ]
    clauses = [
        f"{LAW} In year {n} of contract {n * 7919 % 1009} sum {n * 31} falls due to party {n}." for n in range(500)
    ]
    started, asked, kept = time.perf_counter(), AskedQuestions(), 0
    for n in range(20_000):
        new = row(phrasings[n * 7919 % len(phrasings)], f"contract {n % 450}", clauses[n % 500])
        if asked.find(new) is None:
            asked.add(new)
            kept += 1
    assert 0 < kept < 20_000
    assert time.perf_counter() - started < 10
