"""Roles filled by an API model, against a local server that speaks OpenAI's chat protocol."""

from __future__ import annotations

import pytest
import small
from chat_server import KEY

from cuadft.evaluation.judge import LMJudge
from cuadft.models.api import Patience, remote
from cuadft.rag import inference

ROW = {"question": "Q?", "answers": [{"text": "ten days", "start": 0}], "answer": "ten", "error": None}


def test_a_rag_system_answers_through_an_api_and_leaves_no_key_behind(chat, tmp_path):
    chat.replies = ["There is no such clause."]
    program, rows = small.program(1), small.ROWS[:3]
    made = inference.answer_rows(
        program,
        remote("openai/some-model", max_tokens=20, cache=False),
        rows,
        tmp_path / "rag.jsonl",
        system="rag",
        split="test",
        batch_size=3,
    )
    assert [p["answer"] for p in made] == ["There is no such clause."] * 3 and len(chat.seen) == 3
    path, authorization, body = chat.seen[0]
    assert path.endswith("/chat/completions") and authorization == f"Bearer {KEY}" and body["model"] == "some-model"
    assert KEY not in (tmp_path / "rag.jsonl").read_text()


def test_an_api_that_fails_leaves_counted_errors_without_the_key(chat, tmp_path):
    chat.replies = [400]
    made = inference.answer_rows(
        small.program(),
        remote("openai/some-model", cache=False, num_retries=0),
        small.ROWS[:2],
        tmp_path / "rag.jsonl",
        system="rag",
        split="test",
        batch_size=2,
    )
    assert all(p["answer"] is None and p["error"] for p in made)
    assert KEY not in (tmp_path / "rag.jsonl").read_text()


def test_an_api_that_never_answers_is_not_waited_for_forever():
    assert remote("openai/some-model").engine.patience == Patience()
    assert remote("openai/some-model", timeout=5, num_retries=1).engine.patience == Patience(timeout=5, retries=1)


def test_a_judge_reads_typed_verdicts_and_counts_the_unreadable(chat):
    good = "[[ ## verdict ## ]]\npartly\n\n[[ ## reason ## ]]\nhalf of it\n\n[[ ## completed ## ]]"
    chat.replies = [good, "I would rather not say."]
    ratings = LMJudge(remote("openai/judge", cache=False), num_threads=1).rate([ROW, ROW | {"answer": "two"}])
    assert list(ratings["judge_verdict"]) == ["partly", None] and ratings["judge_score"].iloc[0] == 0.5
    assert ratings["judge_error"].notna().tolist() == [False, True]


def test_a_response_without_a_reply_is_a_counted_failure_of_its_row_alone(chat):
    chat.replies = [None, "Verdict: correct"]
    ratings = LMJudge(remote("openai/judge"), num_threads=1).rate([ROW, ROW | {"answer": "two"}])
    assert list(ratings["judge_verdict"]) == [None, "correct"] and "without any reply" in ratings["judge_error"][0]


@pytest.mark.parametrize("settings", [{}, {"api_key": "a-key-given-in-code"}])
def test_a_server_that_repeats_the_key_does_not_put_it_into_the_ratings(chat, settings):
    chat.replies = [403]
    found = LMJudge(remote("openai/judge", **settings)).rate([ROW])
    assert "no Bearer ***" in found["judge_error"][0]
