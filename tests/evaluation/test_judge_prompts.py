"""Properties of the LM judge's prompts and of the verdicts read from replies."""

import time

import dspy
import pytest
from dspy.utils.exceptions import AdapterParseError
from hypothesis import example, given
from hypothesis import strategies as st

from cuadft.data.schema import naming
from cuadft.evaluation.judge import (
    ORDERS,
    VARIANTS,
    WORDINGS,
    VerdictAdapter,
    fenced,
    judge_signature,
    read_reply,
)

NAMING = naming("contract", "clause")
REPLY = "[[ ## verdict ## ]]\n{}\n\n[[ ## reason ## ]]\nIt misses the notice.\n\n[[ ## completed ## ]]"


@pytest.mark.parametrize(
    ("written", "verdict"),
    [
        ("correct", "correct"),
        ("**Correct**", "correct"),
        ("Partly.", "partly"),
        ("Verdict: incorrect", "incorrect"),
        ('"PARTLY"', "partly"),
        ("`incorrect`", "incorrect"),
        ("Literal[correct]", "correct"),
        ("- **Verdict:** _partly_", "partly"),
        ("The answer names the term only.\n\nPartly", "partly"),
    ],
)
def test_verdict_is_read_whatever_its_case_quotes_and_markdown(written, verdict):
    assert read_reply(REPLY.format(written)) == (verdict, "It misses the notice.")


@pytest.mark.parametrize(
    "written",
    [
        "The answer is correct.",
        "not correct",
        "partly correct",
        "correct or partly",
        "in-correct",
        "correct?",
        "8/10",
        "True",
        "",
        "correct\nincorrect",
    ],
)
def test_prose_and_contradictions_are_never_guessed_at(written):
    assert read_reply(REPLY.format(written))[0] is None


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ("Verdict: Partly\nReason: one of two dates", ("partly", "one of two dates")),
        ('{\n  "verdict": "incorrect",\n  "reason": "denies it"\n}', ("incorrect", '"denies it"')),
        ('```json\n{"verdict": "partly", "reason": "one of two"}\n```', ("partly", '"one of two"}')),
        ("It lacks the date.\n\n**Verdict:** partly", ("partly", "")),
        ("The answer orders:\n\nverdict: correct\n\nThat is no answer.", (None, "")),  # quoted from what is graded
        ("Verdict: correct. So says the answer.", (None, "")),
        ("Verdict: ıncorrect", (None, "")),  # a Turkish letter, which folds to "i" but is none of the three words
        ("**Incorrect.**", ("incorrect", "")),
        ("partly\n\n[[ ## reason ## ]]\nhalf", ("partly", "half")),
        ("Verdict: correct\nVerdict: incorrect", (None, "")),
        ("correct\nThe rest is prose.", (None, "")),  # a bare word needs the header, the label, or the whole reply
        ("Verdict: correct\n[[ ## verdict ## ]]\nincorrect", ("incorrect", "")),  # the header outranks what is before
    ],
)
def test_without_the_header_a_verdict_needs_its_label_or_the_whole_reply(reply, found):
    assert read_reply(reply) == found


WORDS = st.sampled_from(["correct", "partly", "incorrect", "not", "verdict", ":", "\n", "[[ ## verdict ## ]]", "the"])


@given(st.one_of(st.text(), st.lists(WORDS, max_size=12).map(" ".join)))
@example("[[ ## verdict ## ]]")
def test_any_reply_is_read_or_refused_and_a_verdict_read_stands_in_it(reply):
    verdict, reason = read_reply(reply)
    assert verdict is None or verdict in reply.lower()
    assert verdict in (None, "correct", "partly", "incorrect") and len(reason) <= 500


def test_a_long_reply_is_read_at_once():
    for filler in ("\n", "* ", "verdict: ", '"', "reason"):
        started = time.monotonic()
        read_reply("Verdict: correct" + 200_000 * filler + "x")
        assert time.monotonic() - started < 5  # 0.1 s; a pattern that looks back at each line takes minutes


def test_an_unreadable_reply_raises_what_dspy_raises():
    with pytest.raises(AdapterParseError, match="no verdict"):
        VerdictAdapter().parse(judge_signature(VARIANTS[0], NAMING), "no idea")


def test_any_three_first_votes_differ_in_wording_and_order_and_all_nine_are_every_combination():
    assert len(set(VARIANTS)) == 9 == len(WORDINGS) * len(ORDERS)
    for start in (0, 3, 6):  # a Latin square: no wording and no order twice in a block of three
        block = VARIANTS[start : start + 3]
        assert {v.wording for v in block} == set(WORDINGS) and {v.order for v in block} == set(ORDERS)


def test_every_variant_shows_the_same_fields():
    for variant in VARIANTS:
        signature = judge_signature(variant, NAMING)
        assert set(signature.input_fields) == {"question", "reference", "answer"}
        assert list(signature.output_fields) == ["verdict", "reason"]
        assert "<<<" in signature.instructions  # each wording says what the fences mean


@given(st.text(alphabet="<>[]# \nax\ud800", max_size=30))
def test_no_text_can_close_its_fence_forge_a_header_or_fail_to_encode(text):
    made = fenced({"answer": text})["answer"]
    inside = made.removeprefix("<<<\n").removesuffix("\n>>>")
    assert not any(mark in inside for mark in ("<<", ">>", "[[", "]]"))
    made.encode()
    messages = dspy.ChatAdapter().format(
        judge_signature(VARIANTS[0], NAMING), [], {"question": "q", "reference": "r", "answer": made}
    )
    assert messages[-1]["content"].count("[[ ## verdict ## ]]") == 1  # DSPy's own, in the closing request
