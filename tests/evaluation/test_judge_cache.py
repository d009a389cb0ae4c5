"""Properties of the store of verdicts: nothing is paid for twice, nothing that failed is kept, no key lands in it."""

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import dspy
import pytest
from chat_server import KEY
from test_judge import Engine, lm_of, reply, row

from cuadft.core.errors import InputError
from cuadft.evaluation.judge import LMJudge, VerdictCache, verdict_key
from cuadft.models.api import remote


@pytest.fixture(autouse=True)
def no_look_up_of_prices(monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # LiteLLM would try to fetch them


def test_second_run_asks_nothing_and_returns_the_same_ratings(tmp_path):
    engine = Engine(lambda prompt: reply("partly", "half"))
    rows = [row(f"answer {i}") for i in range(10)] + [row(None, error="x")]
    first = LMJudge(lm_of(engine), votes=3, cache=tmp_path / "v.jsonl").rate(rows)
    assert engine.calls == 30
    again = LMJudge(lm_of(engine), votes=3, cache=tmp_path / "v.jsonl").rate(rows)
    assert engine.calls == 30 and again.equals(first)


def test_more_votes_ask_only_for_the_votes_that_are_missing(tmp_path):
    engine = Engine(lambda prompt: reply("correct"))
    for votes, calls in ((1, 1), (3, 3), (5, 5)):
        LMJudge(lm_of(engine), votes=votes, cache=tmp_path / "v.jsonl").rate([row("a")])
        assert engine.calls == calls


def test_a_server_gets_no_request_the_second_time_and_its_key_is_stored_nowhere(chat, tmp_path):  # noqa: F811
    chat.replies = [reply("partly", "half of it")]
    path, rows = tmp_path / "v.jsonl", [row("a"), row("b")]
    first, again = (LMJudge(remote("openai/judge", api_key=k), cache=path).rate(rows) for k in (KEY, "sk-another"))
    assert len(chat.seen) == 2 and again.equals(first) and set(first.judge_verdict) == {"partly"}
    text = path.read_text()
    assert KEY not in text and "127.0.0.1" not in text and len(text.splitlines()) == 2


def test_a_reasoning_model_is_asked_without_a_temperature(chat):  # noqa: F811
    chat.replies = [reply("correct")]
    found = LMJudge(remote("openai/gpt-5-mini")).rate([row("a")])
    assert found.judge_score[0] == 1 and "temperature" not in chat.seen[0][2]


def test_failures_are_not_stored_and_asked_again_past_dspys_own_cache(tmp_path):
    engine = Engine(lambda prompt: "I would rather not say.")
    lm = lm_of(engine)
    assert lm.cache  # DSPy would keep the bad reply and never ask again
    assert LMJudge(lm, cache=tmp_path / "v.jsonl").rate([row("kept out")]).judge_error.notna().all()
    engine.reply = lambda prompt: reply("correct")
    assert LMJudge(lm, cache=tmp_path / "v.jsonl").rate([row("kept out")]).judge_score[0] == 1
    assert engine.calls == 2 and len(VerdictCache(tmp_path / "v.jsonl").lines) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"model": "local/other"},
        {"max_tokens": 99},
        {"seed": 3},
    ],
)
def test_another_judge_model_setting_or_prompt_is_another_verdict(tmp_path, other):
    engine = Engine(lambda prompt: reply("correct"))
    lm = dspy.LM(**({"model": "local/judge", "engine": engine} | other))
    LMJudge(lm_of(engine), cache=tmp_path / "v.jsonl").rate([row("a")])
    LMJudge(lm, cache=tmp_path / "v.jsonl").rate([row("a")])
    assert engine.calls == 2
    LMJudge(lm_of(engine), cache=tmp_path / "v.jsonl").rate([row("b"), row("a", golds=("else",))])
    assert engine.calls == 4


def test_credentials_headers_and_timeouts_change_no_key():
    def key(**settings):
        return verdict_key("j", dspy.LM("openai/m", **settings), [], {})

    secret = {"api_key": "a", "aws_session_token": "b", "extra_headers": {"x": "c"}, "timeout": 9}
    assert key() == key(**secret)
    assert key() != key(api_base="http://elsewhere/v1") and key() != key(max_tokens=9)


def test_verdicts_are_on_disk_as_they_arrive_and_a_torn_line_is_asked_again(tmp_path):
    path = tmp_path / "v.jsonl"
    code = f"""
import os, signal, sys
sys.path[:0] = {[*sys.path, os.path.dirname(__file__)]!r}
from test_judge import Engine, lm_of, reply, row
from cuadft.evaluation.judge import LMJudge
def dies(prompt):
    if "answer 5" in prompt:
        os.kill(os.getpid(), signal.SIGKILL)
    return reply("correct")
LMJudge(lm_of(Engine(dies)), cache={str(path)!r}, num_threads=1).rate([row(f"answer {{i}}") for i in range(9)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    path.write_bytes(path.read_bytes()[:-20])  # as if the kill had come inside the last write
    assert len(VerdictCache(path).lines) == 4
    engine = Engine(lambda prompt: reply("correct"))
    ratings = LMJudge(lm_of(engine), cache=path).rate([row(f"answer {i}") for i in range(9)])
    assert engine.calls == 5 and ratings.judge_score.eq(1).all()
    assert all(json.loads(line)["verdict"] == "correct" for line in path.read_text().splitlines())


def test_many_threads_and_two_stores_write_whole_lines(tmp_path):
    path = tmp_path / "v.jsonl"
    stores = [VerdictCache(path), VerdictCache(path)]
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda i: stores[i % 2].add(f"k{i}", "j", "grade, reference first", "correct", "x" * 5000), range(100)
            )
        )
    assert len(VerdictCache(path).lines) == 100


def test_what_cannot_hold_verdicts_is_refused_before_the_first_call(tmp_path):
    (tmp_path / "other.jsonl").write_text('{"id": "r1", "answer": "a"}\n')
    (tmp_path / "parts.jsonl").write_text('{"key": "k", "verdict": "correct"}\n')
    (tmp_path / "broken.jsonl").write_text('{"key": \n{"key": 1}\n')
    for bad, words in (
        (tmp_path, "is a folder"),
        (tmp_path / "other.jsonl", "'key'"),
        (tmp_path / "parts.jsonl", "'key'"),
        (tmp_path / "broken.jsonl", "line 1"),
    ):
        with pytest.raises(InputError, match=words):
            VerdictCache(bad)
