"""What the offline judge sees: stances, numbers, and what turns a statement into its contradiction."""

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.evaluation.evidence import compare_texts, numbers_in, stance_of

CLAUSE = "Either party may terminate this Agreement upon thirty (30) days prior written notice to the other party."
REST = " Fees paid before that day for a later period are returned to the paying party at once."
TEXT = st.lists(st.sampled_from(["fee", "not", "30", "June", "may", "(60)", "can’t"]), max_size=9).map(" ".join)


def contradicts(answer, reference=CLAUSE):
    return bool(compare_texts("", answer, reference)["contradiction"])


@pytest.mark.parametrize(
    "text",
    [
        "No.",
        "None.",
        "N/A",
        "Not found",
        "Answer: Not specified.",
        "The passages don’t mention it.",
        "No such thing.",
        "There is no non-compete clause in the text.",
        "The excerpt is silent on this.",
        "I can't find that.",
    ],
)
def test_a_text_that_says_that_nothing_is_there_denies(text):
    assert stance_of(text) == stance_of(f"{text.rstrip('.')}. {CLAUSE}") == "denied"


@pytest.mark.parametrize(
    "text",
    [
        "No Party shall assign this Agreement without the prior written consent of the other Party hereto.",
        "None of the parties may assign its rights under this Agreement without consent.",
        "No later than June 1, 2008",
        "Not less than thirty (30) days' notice is required for termination.",
        CLAUSE,
    ],
)
def test_a_clause_that_begins_with_a_negation_does_not_deny(text):
    assert stance_of(text) != "denied"


@given(st.text(alphabet=" \n\t", max_size=400))
def test_blanks_change_no_stance(blanks):
    for text in (CLAUSE, "Based on the context, the contract does not specify it.", "June 1, 2008"):
        assert stance_of(blanks + text) == stance_of(re.sub(" ", f" {blanks}", text)) == stance_of(text)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("thirty (30)", "sixty (60)"),
        ("(30)", "(60)"),
        ("Either", "Neither"),
        ("may", "may not"),
        ("may", "can’t"),
        ("may", "cannot"),
    ],
)
def test_another_number_or_a_negation_in_one_place_contradicts(old, new):
    for clause in (CLAUSE, CLAUSE + REST, f"{CLAUSE}{REST} This does not hold for 30 days."):
        changed = clause.replace(old, new, 1)
        assert contradicts(changed, clause) and contradicts(clause, changed)


def test_a_date_of_another_day_contradicts_though_its_month_is_the_same_number():
    assert contradicts("August 07, 2018", "August 08, 2018") and not contradicts("August 8, 2018", "August 08, 2018")


@pytest.mark.parametrize("end", [" Notice by e-mail is not valid.", " It ends in ten (10) years at any rate."])
def test_quoting_less_or_more_of_a_clause_contradicts_nothing(end):
    assert not contradicts(CLAUSE + REST, CLAUSE + REST + end) and not contradicts(end + CLAUSE + REST, CLAUSE + REST)


@pytest.mark.parametrize("same", ["30", "thirty", "30 (thirty)"])
def test_the_same_number_written_otherwise_contradicts_nothing(same):
    assert not contradicts(CLAUSE.replace("thirty (30)", same))


@given(TEXT)
def test_no_text_contradicts_itself(text):
    assert not contradicts(text, text) and not contradicts(text.upper(), text)


def test_long_texts_are_held_against_each_other_in_no_time():
    started = time.perf_counter()
    for a, b in (("a b " * 300, "b a " * 300), ("x " * 900_000, "x " * 899_999 + "y"), ("a b c " * 99, "c b a " * 9)):
        compare_texts("", a, b)
    assert time.perf_counter() - started < 20  # 2 s on one core


def test_a_number_word_and_its_digits_are_the_same_number():
    assert numbers_in("within Thirty days") == numbers_in("within 30 days") == {"30"}
    assert numbers_in("November 6, 2016") == numbers_in("11/06/2016") == {"11", "6", "2016"}
    assert numbers_in("Section 12.3 may apply\n1. first") == set()
    assert numbers_in("June 1,1999") == {"6", "1", "1999"} and numbers_in("$1,500.00") == numbers_in("$1500") == {
        "1500"
    }
