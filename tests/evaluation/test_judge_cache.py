"""Properties of the judge's kept replies: nothing is paid for twice, what failed is asked again, no key lands there."""

import pytest
from chat_server import KEY
from test_judge import Engine, lm_of, reply, row

from cuadft.evaluation.judge import LMJudge, flip_rate
from cuadft.models.api import remote


@pytest.fixture(autouse=True)
def no_look_up_of_prices(monkeypatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # LiteLLM would try to fetch them


def judge(path, *, votes=1, model="openai/judge", **settings):
    return LMJudge(remote(model, replies=path, **settings), votes=votes)


def test_a_server_gets_no_request_the_second_time_and_its_key_is_stored_nowhere(chat, tmp_path):  # noqa: F811
    chat.replies = [reply("partly", "half of it")]
    path, rows = tmp_path / "r.jsonl", [row("a"), row("b"), row(None, error="x")]
    first, again = (judge(path, api_key=key).rate(rows) for key in (KEY, "sk-another"))
    assert len(chat.seen) == 2 and again.equals(first) and list(first.judge_verdict) == ["partly", "partly", "failed"]
    text = path.read_text()
    assert KEY not in text and "127.0.0.1" not in text and len(text.splitlines()) == 2


def test_more_votes_and_the_flip_rate_ask_only_for_the_votes_that_are_missing(chat, tmp_path):  # noqa: F811
    chat.replies = [reply("correct")]
    for votes, calls in ((1, 1), (3, 3), (5, 5)):
        judge(tmp_path / "r.jsonl", votes=votes).rate([row("a")])
        assert len(chat.seen) == calls
    asked = [row("a", contract="c")]
    found = [flip_rate(judge(tmp_path / "r.jsonl"), asked, n_resamples=40) for _ in range(2)]
    assert found[0].equals(found[1]) and len(chat.seen) == 5 + 3  # of its five prompts two are among the votes


@pytest.mark.parametrize("other", [{"model": "openai/other"}, {"max_tokens": 99}])
def test_another_model_setting_or_prompt_is_another_vote(chat, tmp_path, other):  # noqa: F811
    chat.replies = [reply("correct")]
    judge(tmp_path / "r.jsonl").rate([row("a")])
    judge(tmp_path / "r.jsonl", **other).rate([row("a")])
    judge(tmp_path / "r.jsonl").rate([row("b"), row("a", golds=("else",))])
    assert len(chat.seen) == 4


def test_a_reasoning_model_is_asked_without_a_temperature(chat):  # noqa: F811
    chat.replies = [reply("correct")]
    found = LMJudge(remote("openai/gpt-5-mini")).rate([row("a")])
    assert found.judge_score[0] == 1 and "temperature" not in chat.seen[0][2]


def test_failures_are_asked_again_past_dspys_own_cache():
    engine = Engine(lambda prompt: "I would rather not say.")
    lm = lm_of(engine)
    assert lm.cache  # DSPy would keep the bad reply and never ask again
    assert LMJudge(lm).rate([row("kept out")]).judge_error.notna().all()
    engine.reply = lambda prompt: reply("correct")
    assert LMJudge(lm).rate([row("kept out")]).judge_score[0] == 1 and engine.calls == 2
