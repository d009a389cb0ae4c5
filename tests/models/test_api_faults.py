"""Language models behind an API that fails in every way, against a local server that does so by script."""

from __future__ import annotations

import copy
import math
import time
import traceback

import dspy
import faulty_server as faulty
import pytest
import small
from dspy import lm15
from hypothesis import given
from hypothesis import strategies as st
from tiny_project import make_project, run_in_process

from cuadft import cli
from cuadft.core import files
from cuadft.evaluation import results
from cuadft.evaluation.judge import LMJudge
from cuadft.loop import lineage, runner, status
from cuadft.models import usage
from cuadft.models.api import Breaker, Endpoint, Patience, remote, retry_after, within_deadline
from cuadft.rag import inference

KEY = "sk-planted-0123456789"
QUICK = Patience(timeout=5, retries=3, wait=0.01, give_up=4, pause=60)
ROWS = small.ROWS[:6]


@pytest.fixture(autouse=True)
def key(monkeypatch):
    for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


@pytest.fixture(scope="module", autouse=True)
def loaded():
    """Make a first call: LiteLLM loads for seconds, which must not count against the short limits of these tests."""
    with faulty.serve(["yes"]) as server:
        remote("openai/some-model", api_base=server.url, api_key=KEY, cache=False)("hello?")


def ask(server, patience=QUICK, **settings):
    """Return an LM of the server, its first reply or error, and its counts."""
    lm = remote("openai/some-model", patience=patience, api_base=server.url, cache=False, **settings)
    try:
        reply = lm("hello?")[0]
    except Exception as error:
        reply = error
    return lm, reply, lm.engine.usage.row()


PASSING = {
    "rate limit": faulty.status(429, retry_after=0),
    "server error": faulty.status(500),
    "overload": faulty.status(503),
    "dropped connection": faulty.DROP,
    "cut reply": faulty.CUT,
    "half a JSON document": faulty.GARBLED,
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_fault_that_passes_is_retried_and_the_call_is_answered_once(fault):
    with faulty.serve([fault, fault, "yes"]) as server:
        _, reply, counts = ask(server)
    assert reply == "yes" and len(server.seen) == 3
    assert (counts["calls"], counts["answered"], counts["retries"], counts["failed"]) == (1, 1, 2, 0)


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_retries_are_bounded_and_the_reason_is_short_and_without_the_key(fault):
    with faulty.serve([fault]) as server:
        _, error, counts = ask(server)
    assert len(server.seen) == 1 + QUICK.retries and counts["failed"] == 1 and counts["answered"] == 0
    assert (
        "after 3 retries" in str(error) and KEY not in str(error) and "\n" not in str(error) and len(str(error)) < 400
    )


@pytest.mark.parametrize("fault", [faulty.HANG, faulty.slow(6)], ids=["silence", "trickle"])
def test_a_reply_that_does_not_come_in_time_is_not_waited_for(fault):
    with faulty.serve([fault, "yes"]) as server:
        started = time.monotonic()
        _, reply, counts = ask(server, Patience(timeout=0.6, retries=1, wait=0.01))
        assert reply == "yes" and time.monotonic() - started < 3 and counts["retries"] == 1


HOPELESS = {
    "wrong key": faulty.status(401),
    "no access": faulty.status(403),
    "unpaid": faulty.status(402),
    "used up": faulty.status(429, error_code="insufficient_quota"),
    "no such model": faulty.status(404),
}


@pytest.mark.parametrize("fault", HOPELESS.values(), ids=HOPELESS)
def test_what_every_call_would_meet_is_not_retried(fault):
    with faulty.serve([fault]) as server:
        _, error, counts = ask(server)
    assert len(server.seen) == 1 and counts["failed"] == 1
    assert KEY not in "".join(traceback.format_exception(error))


BAD = {"no choice": faulty.EMPTY, "null": faulty.NULL, "filtered": faulty.FILTERED, "bad request": faulty.status(400)}


@pytest.mark.parametrize("fault", BAD.values(), ids=BAD)
def test_a_bad_reply_of_a_reachable_model_is_a_counted_failure_and_no_fault_of_the_endpoint(fault):
    with faulty.serve([fault] * 9 + ["yes"]) as server:
        lm, error, counts = ask(server)
        assert isinstance(error, Exception) and counts["bad_replies"] == 1 and counts["failed"] == 0
        for _ in range(8):  # never opens the breaker
            with pytest.raises(dspy.utils.exceptions.LMError):
                lm("again?")
        assert lm("again?") == ["yes"] and len(server.seen) == 10


def test_retry_after_is_waited_for():
    slept = []
    engine = Endpoint("openai/some-model", Patience(retries=1), sleep=slept.append)
    with faulty.serve([faulty.status(429, retry_after=7), "yes"]) as server:
        engine.client = {"api_base": server.url}
        assert dspy.LM("openai/some-model", engine=engine, num_retries=0, cache=False)("one?") == ["yes"]
    (waited,) = slept
    assert 7 <= waited <= 8


def test_a_server_that_asks_for_a_day_of_rest_is_not_waited_for():
    with faulty.serve([faulty.status(429, retry_after=86_400)]) as server:
        lm, error, counts = ask(server)
        assert isinstance(error, Exception) and len(server.seen) == 1
        assert (counts["retries"], counts["failed"]) == (0, 1)


@pytest.mark.parametrize("value", ["soon", "-5", "nan", "inf", ""])
def test_a_retry_after_that_makes_no_sense_is_taken_for_none(value):
    with faulty.serve([faulty.status(503, retry_after=value), "yes"]) as server:
        assert ask(server)[1] == "yes"


def test_a_retry_after_may_be_a_date():
    error = lm15.RateLimitError("x")
    error.headers = {"retry-after": time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))}
    assert 25 < retry_after(error) <= 30 and retry_after(ValueError("x")) is None


def test_waits_double_up_to_a_bound_and_are_jittered():
    slept = []
    engine = Endpoint("openai/some-model", Patience(retries=6, wait=1, longest_wait=8), sleep=slept.append)
    with faulty.serve([faulty.status(500)]) as server:
        engine.client = {"api_base": server.url}
        with pytest.raises(dspy.utils.exceptions.LMServerError):
            dspy.LM("openai/some-model", engine=engine, num_retries=0, cache=False)("hello?")
    assert all(most / 2 <= wait <= most for wait, most in zip(slept, [1, 2, 4, 8, 8, 8], strict=True))
    assert len(set(slept)) == 6


def test_after_failures_in_a_row_calls_fail_at_once_with_one_message_that_names_the_model_and_no_key():
    patience = Patience(retries=0, give_up=3, pause=60)
    with faulty.serve([faulty.status(500)]) as server:
        address = server.url.replace("http://", f"http://user:{KEY}@") + f"?key={KEY}"
        lm = remote("openai/judge", patience=patience, api_base=address, api_key=KEY, cache=False)
        errors = []
        for n in range(20):
            with pytest.raises(Exception) as caught:  # noqa: B017, PT011
                lm(f"{n}?")
            errors.append(str(caught.value))
        assert len(server.seen) == 3
    assert all("Not asked: openai/judge failed 3 times" in text for text in errors[3:])
    assert KEY not in "".join(errors)
    counts = lm.engine.usage.row()
    assert (counts["calls"], counts["failed"], counts["not_asked"]) == (20, 3, 17)


def test_calls_under_way_stop_retrying_when_the_breaker_opens():
    slept = []
    engine = Endpoint("openai/some-model", Patience(retries=9, give_up=1))
    engine.sleep = lambda seconds: slept.append(seconds) or (len(slept) == 2 and engine.breaker.failed("x"))
    with faulty.serve([faulty.status(500)]) as server:
        engine.client = {"api_base": server.url}
        with pytest.raises(dspy.utils.exceptions.LMServerError):
            dspy.LM("openai/some-model", engine=engine, num_retries=0, cache=False)("hello?")
        assert len(server.seen) == 3  # two sleeps lie between them


def test_after_the_pause_one_call_is_tried_and_a_good_one_closes_the_breaker():
    now = [0.0]
    breaker = Breaker(2, 30, clock=lambda: now[0])
    breaker.failed("a")
    assert breaker.refused() is None
    breaker.failed("b")
    assert breaker.refused() == 30
    now[0] = 30
    assert [breaker.refused() is None for _ in range(3)] == [True, False, False]  # one trial
    breaker.failed("c")
    assert breaker.refused() == 30
    now[0] = 61
    assert breaker.refused() is None
    breaker.succeeded()
    assert [breaker.refused() for _ in range(3)] == [None] * 3


@given(st.lists(st.sampled_from(["ok", "bad", "wait"]), max_size=60))
def test_a_breaker_is_open_only_after_as_many_failures_in_a_row(events):
    now, row = [0.0], 0
    breaker = Breaker(3, 10, clock=lambda: now[0])
    for event in events:
        if event == "wait":
            now[0] += 11
            continue
        admitted = breaker.refused() is None
        assert admitted or row >= 3
        if admitted:
            row = 0 if event == "ok" else row + 1
            breaker.succeeded() if event == "ok" else breaker.failed("x")


def test_replies_that_are_kept_are_not_asked_for_again_and_failures_are_not_kept(tmp_path):
    def asked(server):
        lm = remote(
            "openai/some-model",
            patience=Patience(timeout=5, retries=0, give_up=9),
            api_base=server.url,
            replies=tmp_path / "replies.jsonl",
        )
        found = []
        for words in ("one?", "two?", "three?"):
            try:
                found.append(lm(words)[0])
            except Exception as error:
                found.append(type(error).__name__)
        return found, lm.engine.usage.row()

    with faulty.serve(["first", faulty.status(500), "third"]) as server:
        found, used = asked(server)
        assert (found[0], found[2], used["failed"], len(server.seen)) == ("first", "third", 1, 3)
    with faulty.serve(["second"]) as server:
        found, used = asked(server)
        assert found == ["first", "second", "third"] and len(server.seen) == used["calls"] == 1
    assert KEY not in (tmp_path / "replies.jsonl").read_text()


def test_copies_of_an_lm_share_counts_and_breaker():
    lm = remote("openai/some-model", temperature=0.5)
    for made in (lm.copy(temperature=1.0, rollout_id=1), copy.deepcopy(lm), copy.copy(lm)):
        assert made.engine is lm.engine


def test_a_late_call_is_given_up_and_an_error_comes_through():
    with pytest.raises(lm15.TimeoutError, match="No whole reply within 0.05 s"):
        within_deadline(0.05, lambda: time.sleep(5))
    with pytest.raises(ZeroDivisionError):
        within_deadline(5, lambda: 1 / 0)
    assert within_deadline(5, lambda: 7) == 7


def test_tokens_and_cost_are_counted():
    with faulty.serve(["yes"]) as server:
        lm = remote("openai/gpt-4o-mini", api_base=server.url, cache=False)
        for n in range(3):
            lm(f"{n}?")
    row = usage.usage_table({"judge": lm, "sft": small.Script(str).lm()}).to_dict("records")
    assert [r["role"] for r in row] == ["judge"]
    assert (row[0]["prompt_tokens"], row[0]["completion_tokens"]) == (33, 9)  # 3 replies of 11 and 3
    assert math.isclose(row[0]["cost_usd"], 3 * (11 * 0.15e-6 + 3 * 0.60e-6))  # gpt-4o-mini's prices, $ a token


def test_the_cost_of_a_model_without_a_price_is_unknown_and_not_zero():
    with faulty.serve(["yes"]) as server:
        assert ask(server)[2]["cost_usd"] is None


def test_every_row_is_answered_once_or_fails_with_its_reason_and_the_next_call_asks_only_what_is_missing(tmp_path):
    def now_and_then(body):  # by the question, so that threads make no difference
        return faulty.status(500) if "Audit" in body["messages"][-1]["content"] else "There is no such clause."

    patience = Patience(retries=1, wait=0.01, give_up=100)
    with faulty.serve([now_and_then]) as server:
        lm = remote("openai/some-model", patience=patience, api_base=server.url, cache=False)
        made = inference.answer_rows(
            small.program(1), lm, ROWS, tmp_path / "rag.jsonl", system="rag", split="dev", batch_size=4
        )
    failed = [p["id"] for p in made if p["error"]]
    assert failed == [r["id"] for r in ROWS if r["category"] == "Audit Rights"] and len(failed) == 2
    assert [p["id"] for p in made] == [r["id"] for r in ROWS] and KEY not in (tmp_path / "rag.jsonl").read_text()
    assert lm.engine.usage.row()["failed"] == 2
    with faulty.serve(["Yes."]) as server:
        lm = remote("openai/some-model", api_base=server.url, cache=False)
        again = inference.answer_rows(
            small.program(1), lm, ROWS, tmp_path / "rag.jsonl", system="rag", split="dev", batch_size=4
        )
        assert len(server.seen) == 2
    assert [p["answer"] == "Yes." for p in again] == [p["id"] in failed for p in again] and not any(
        p["error"] for p in again
    )
    assert len(results.read_predictions(tmp_path / "rag.jsonl")) == len(ROWS)


def test_a_judge_that_is_down_leaves_unknown_scores_and_later_judges_only_what_is_missing(tmp_path):
    row = {"question": "Q?", "answers": [{"text": "ten days", "start": 0}], "error": None}
    rows = [row | {"answer": str(n)} for n in range(9)]
    kept = tmp_path / "replies.jsonl"
    with faulty.serve(["Verdict: correct", "Verdict: partly", faulty.DROP]) as server:
        lm = remote("openai/judge", patience=Patience(retries=0, give_up=3), api_base=server.url, replies=kept)
        found = LMJudge(lm, num_threads=1).rate(rows)
        assert len(server.seen) == 5
    assert found["judge_score"].notna().sum() == 2 and found["judge_error"].notna().sum() == 7
    with faulty.serve(["Verdict: incorrect"]) as server:
        found = LMJudge(remote("openai/judge", api_base=server.url, replies=kept)).rate(rows)
        assert len(server.seen) == 7
    assert list(found["judge_score"]) == [1, 0.5] + [0] * 7


def test_lost_calls_are_noted_for_the_loop_and_bad_replies_are_not(tmp_path):
    it = lineage.open_iteration(tmp_path / "run", 1)
    with faulty.serve([faulty.EMPTY]) as server:
        usage.usage_report(it, {"judge": ask(server)[0]})
    assert usage.take_note(it)["incomplete"] == "" and usage.take_note(it) == {}
    with faulty.serve([faulty.DROP]) as server:
        table = usage.usage_report(it, {"judge": ask(server)[0]})
    assert table["failed"].tolist() == [1]
    note = usage.take_note(it)
    assert note["incomplete"] == "judge (openai/some-model): the endpoint failed 1 of 1 calls"
    assert note["endpoints"]["judge"]["retries"] == 3
    usage.usage_report(it, {"sft": small.Script(str).lm()})
    assert usage.take_note(it) == {}


USED = usage.Usage("openai/m").row() | {"calls": 9, "answered": 6, "failed": 3, "prompt_tokens": 1500, "cost_usd": 0.25}
LACKING = f"""
from cuadft.models import usage
note = {{"incomplete": "judge (openai/m): the endpoint failed 3 of 9 calls", "endpoints": {{"judge": {USED!r}}}}}
files.write_json(it.path(usage.NOTE), note)
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "execute_notebook", run_in_process)
    return tmp_path


def states(**options):
    steps = runner.run("tiny", log=lambda line: None, **options)["steps"]
    return {step["stage"]: step["state"] for step in steps}


def test_a_stage_that_lacks_answers_is_incomplete_and_the_next_call_finishes_it_and_what_depends_on_it(project, capsys):
    (project / "trap_03.py").write_text(LACKING)
    first = states(until="evaluate_sft")
    assert first["inference_rag"] == first["inference_sft"] == "incomplete" and first["evaluate_sft"] == "done"
    entry = files.read_json(project / "runs/tiny/iter-01/manifest.json")["stages"]["inference_rag"]
    assert entry["endpoints"] == {"judge": USED} and entry["outputs"]
    assert "incomplete" in status.run_status("runs/tiny") and "failed 3 of 9 calls" in status.run_status("runs/tiny")
    line = "openai/m: 18 calls, 12 answered, 6 failed, 0 retries; 3,000 tokens sent, 0 received, $0.5000"  # two stages
    assert line in status.run_status("runs/tiny")
    answers = project / "runs/tiny/iter-01/predictions/rag.dev.jsonl"
    files.append_jsonl(answers, [{"id": "kept"}])  # what a stage wrote before is not deleted when it is run again
    (project / "trap_03.py").unlink()
    again = states(until="evaluate_sft")
    assert again == {
        "data_prep": "skipped",
        "rag_compile": "skipped",
        "inference_rag": "done",
        "fine_tune": "skipped",
        "inference_sft": "done",
        "evaluate_sft": "done",
    }
    assert files.read_jsonl(answers)[-1] == {"id": "kept"} and line in status.run_status(
        "runs/tiny"
    )  # what was paid stays counted
    assert set(states(until="evaluate_sft").values()) == {"skipped"}


def test_the_command_says_what_is_incomplete_and_ends_with_a_code_of_its_own(project, capsys):
    (project / "trap_05.py").write_text(LACKING)
    assert cli.main(["run", "tiny", "--until", "evaluate_sft"]) == 3
    said = capsys.readouterr().out
    assert "Incomplete: evaluate_sft of iteration 1: judge (openai/m): the endpoint failed 3 of 9 calls" in said
    assert "the same command makes up for the rest" in said
    (project / "trap_05.py").unlink()
    assert cli.main(["run", "tiny", "--until", "evaluate_sft"]) == 0


def test_a_note_left_by_a_kill_is_not_taken_for_that_of_the_next_stage(project):
    it = lineage.open_iteration("runs/tiny", 1)
    files.write_json(it.path(usage.NOTE), {"incomplete": "an old one"})
    assert set(states().values()) == {"done"} and not it.path(usage.NOTE).exists()


def test_a_total_adds_up_by_model_and_its_cost_is_unknown_if_a_part_is():
    one, two = USED, USED | {"cost_usd": None}
    (sum_,) = usage.usage_total([one, one])
    assert (sum_["calls"], sum_["cost_usd"]) == (18, 0.5)
    assert usage.usage_total([one, two, one])[0]["cost_usd"] is None and usage.usage_total([]) == []
    assert "cost unknown" in usage.usage_line(two)
