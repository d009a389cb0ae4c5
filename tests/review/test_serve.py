"""The service gives each request its own answer, keeps to its limits, and lets nobody in who may not."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import html
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
import small
import tiny_run

from cuadft import cli
from cuadft.data.documents import document_of_text
from cuadft.review import serve as serve_
from cuadft.review.reviewer import Question, Reviewer
from cuadft.review.serve import Limits, make_app

TOKEN = "a-token-for-tests"
LAW = small.QUESTIONS["Governing Law"]
HOSTILE = "<script>document.title='hacked'</script><img src=x onerror=alert(1)> governed by the law of Ohio, it says."


@pytest.fixture(scope="module")
def reviewer(tiny, tmp_path_factory) -> Reviewer:
    return Reviewer.load(tiny_run.make(tmp_path_factory.mktemp("runs") / "acme", tiny))


@contextmanager
def running(reviewer, token="", **limits):
    """Run the application in a server of its own on a free port; yield a client that knows its address."""
    import uvicorn

    app = make_app(reviewer, Limits(**limits), token=token)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    try:
        with httpx.Client(base_url=address, timeout=60, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


class Slow:
    """Stand in for a reviewer whose model takes its time, and counts what it was asked."""

    def __init__(self, reviewer: Reviewer, seconds: float) -> None:
        self.reviewer, self.seconds, self.asked, self.at_once = reviewer, seconds, [], 0
        self.label, self.run, self.schema = reviewer.label, reviewer.run, reviewer.schema

    def review(self, document, questions=()):
        self.at_once += 1
        assert self.at_once == 1, "two threads use the one model"
        self.asked.append(document.text)
        time.sleep(self.seconds)
        made = self.reviewer.review(document, questions or [Question("Law", LAW)])
        self.at_once -= 1
        return made


def without_time(record: dict) -> dict:
    return {name: value for name, value in record.items() if name not in ("seconds", "page")}


def contract(number: int) -> str:
    return (
        f"Contract {number} of Firm{number}.\n\nThis Agreement is governed by the law of State{number}, and no other.\n"
    )


def test_a_reply_holds_what_the_reviewer_finds(reviewer):
    text = next(iter(small.TEXTS.values()))
    expected = reviewer.review(document_of_text("mine", text))
    with running(reviewer) as client:
        made = client.post("/review", data={"text": text, "name": "mine"})
        asked = client.post("/ask", json={"contract": text, "question": LAW})
        page = client.get(made.json()["page"])
        direct = client.post("/review", data={"text": text, "name": "mine"}, headers={"Accept": "text/html"})
    assert made.status_code == asked.status_code == page.status_code == 200
    assert without_time(made.json()) == without_time(json.loads(json.dumps(expected.record())))
    alone = reviewer.review(document_of_text("contract", text), [Question(LAW, LAW)])
    assert asked.json()["quotes"] == [dataclasses.asdict(quote) for quote in alone.findings[0].quotes]
    assert page.text.count("<li id=") == len(expected.findings) and direct.text == page.text


def test_a_file_gives_what_its_text_gives(reviewer):
    text = contract(1)
    with running(reviewer) as client:
        as_text = client.post("/review", data={"text": text, "name": "one", "question": [LAW]}).json()
        as_file = client.post("/review", files={"file": ("one.txt", text.encode())}, data={"question": [LAW]}).json()
    assert as_file["findings"] == as_text["findings"] and as_file["document"]["file"] == "one.txt"


def test_two_hundred_requests_at_once_each_get_their_own_answer(reviewer):
    def ask(number: int) -> tuple[int, str]:
        with httpx.Client(base_url=address, timeout=120, trust_env=False) as own:
            if number % 2:
                reply = own.post("/ask", json={"contract": contract(number), "question": LAW, "name": f"c{number}"})
                return reply.status_code, f"{reply.json()['name']} {reply.json()['quotes']}"
            data = {"question": [LAW], "name": f"c{number}"}
            reply = own.post("/review", files={"file": (f"{number}.txt", contract(number).encode())}, data=data)
            made = reply.json()
            assert made["document"]["text"] == contract(number)
            return reply.status_code, f"{made['document']['name']} {made['findings'][0]['quotes']}"

    alone = {n: reviewer.review(document_of_text("", contract(n)), [Question(LAW, LAW)]) for n in range(200)}
    with running(reviewer) as client, ThreadPoolExecutor(200) as pool:
        address = str(client.base_url)
        made = list(pool.map(ask, range(200)))
        assert client.get("/health").json()["waiting"] == 0
    expected = [f"c{n} {[dataclasses.asdict(q) for q in alone[n].findings[0].quotes]}" for n in range(200)]
    assert made == [(200, each) for each in expected]
    assert len(set(expected)) == 200


@pytest.mark.parametrize(
    ("sent", "status", "told"),
    [
        ({"files": {"file": ("a.pdf", b"")}}, 422, "empty"),
        ({"files": {"file": ("a.pdf", b"%PDF-1.7 and no more")}}, 422, "can't be read as a PDF"),
        ({"files": {"file": ("a.pdf", b"PK\x03\x04 no zip either")}}, 422, "a.pdf"),
        ({"files": {"file": ("../../a.exe", b"MZ\x90" * 99)}}, 422, "a.exe"),
        ({"data": {"text": "   "}}, 422, "no text"),
        ({"data": {}}, 422, "Send a form"),
        ({"data": {"text": "a"}, "files": {"file": ("a.txt", b"b")}}, 422, "Send a form"),
        ({"data": {"text": contract(1), "question": [""]}}, 422, "question"),
        ({"json": {"text": "x"}}, 422, "Send a form"),
        ({"content": b"\xff\xfe", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, ""),
    ],
)
def test_what_cannot_be_reviewed_is_refused_with_the_reason(reviewer, sent, status, told):
    with running(reviewer) as client:
        reply = client.post("/review", **sent)
        assert (reply.status_code, told in reply.text) == (status, True), reply.text
        assert client.post("/ask", json={"contract": contract(2), "question": LAW}).status_code == 200


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"contract": "A whole contract."}, "question: Field required"),
        ({"contract": "A whole contract.", "question": ""}, "question: "),
        ({"contract": "A whole contract.", "question": "x" * 1001}, "question: "),
        ({"contract": contract(1), "question": " "}, "Empty query"),
        ({"contract": contract(1), "question": "Is \ud800 there?"}, "question: "),
        ({"contract": 5, "question": LAW}, "contract: "),
        ([], ""),
    ],
)
def test_a_question_that_cannot_be_asked_is_refused_without_an_echo(reviewer, asked, told):
    with running(reviewer) as client:
        reply = client.post("/ask", content=json.dumps(asked), headers={"Content-Type": "application/json"})
        odd = client.post("/ask", json={"contract": "\0" + contract(1), "question": LAW, "name": "\u202e<b>"})
    assert reply.status_code == 422 and told in reply.json()["detail"] and "whole" not in reply.text
    assert odd.status_code == 200


def test_a_fault_of_the_service_tells_no_secret_and_it_goes_on(reviewer, monkeypatch, caplog, capfd):
    monkeypatch.setenv("SOME_API_KEY", "sk-secret-of-mine")
    broken, real = "sk-secret-of-mine in /home/someone", reviewer.review
    monkeypatch.setattr(reviewer, "review", lambda *given: (_ for _ in ()).throw(RuntimeError(broken)))
    with running(reviewer) as client:
        reply = client.post("/ask", json={"contract": contract(1), "question": LAW})
        assert reply.status_code == 500 and "secret" not in reply.text and "/home" not in reply.text
        assert "in /home/someone" in caplog.text and "sk-secret" not in caplog.text + capfd.readouterr().err
        monkeypatch.setattr(reviewer, "review", real)
        assert client.post("/ask", json={"contract": contract(1), "question": LAW}).status_code == 200


def test_html_in_a_contract_is_shown_as_text(reviewer):
    with running(reviewer) as client:
        reply = client.post(
            "/review", files={"file": ("<b>x</b>.txt", HOSTILE.encode())}, headers={"Accept": "text/html"}
        )
    assert reply.status_code == 200 and "<script" not in reply.text and "<img" not in reply.text
    shown = re.sub(r"<[^>]*>", "", re.sub(r'<a class="tag".*?</a>', "", reply.text))
    assert HOSTILE in html.unescape(shown) and "default-src 'none'" in reply.headers["Content-Security-Policy"]


# --- limits


@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_that_is_too_large_is_refused(reviewer, chunked):
    body = b'{"contract": "' + b"a" * 200_000 + b'"}'
    with running(reviewer, megabytes=0.1) as client:
        content = iter([body[:100_000], body[100_000:]]) if chunked else body
        reply = client.post("/ask", content=content, headers={"Content-Type": "application/json"})
        assert reply.status_code == 413 and (chunked or "0.1 MB" in reply.json()["detail"])
        assert client.get("/health").status_code == 200


def test_a_request_that_takes_too_long_is_ended_and_the_next_one_answered(reviewer):
    slow = Slow(reviewer, 0.6)
    with running(slow, seconds=0.3) as client:
        reply = client.post("/ask", json={"contract": contract(1), "question": LAW})
        assert reply.status_code == 504 and "0.3 s" in reply.json()["detail"]
        time.sleep(0.7)  # the model finishes what nobody waits for any more
        slow.seconds = 0
        assert client.post("/ask", json={"contract": contract(2), "question": LAW}).status_code == 200
        assert client.get("/health").json()["waiting"] == 0


def test_an_upload_that_does_not_end_is_ended(reviewer):
    def trickle():
        yield b'{"contract": "'
        time.sleep(1.5)
        yield b'"}'

    with running(reviewer, seconds=0.3) as client:
        reply = client.post("/ask", content=trickle(), headers={"Content-Type": "application/json"})
    assert reply.status_code == 504


def test_when_too_many_wait_the_next_is_told_to_come_back(reviewer):
    slow = Slow(reviewer, 0.3)
    with running(slow, waiting=2) as client, ThreadPoolExecutor(3) as pool:
        asked = [pool.submit(client.post, "/ask", json={"contract": contract(n), "question": LAW}) for n in range(3)]
        replies = [each.result() for each in asked]
    assert sorted(reply.status_code for reply in replies) == [200, 200, 503]
    assert next(reply for reply in replies if reply.status_code == 503).headers["Retry-After"]


def test_what_a_client_left_before_its_turn_is_not_worked_on(reviewer):
    slow = Slow(reviewer, 0.5)
    with running(slow) as client, ThreadPoolExecutor(1) as pool:
        first = pool.submit(client.post, "/ask", json={"contract": contract(1), "question": LAW})
        time.sleep(0.2)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/ask", json={"contract": contract(2), "question": LAW}, timeout=0.1)
        assert first.result().status_code == 200
        assert client.post("/ask", json={"contract": contract(3), "question": LAW}).status_code == 200
    assert slow.asked == [contract(1), contract(3)]


def test_only_the_last_pages_are_held(reviewer, monkeypatch):
    monkeypatch.setattr(serve_, "PAGES_HELD", 2)
    with running(reviewer) as client:
        data = {"text": contract(1), "question": [LAW]}
        pages = [client.post("/review", data=data).json()["page"] for _ in range(3)]
        assert [client.get(page).status_code for page in pages] == [404, 200, 200]


# --- who may come in


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"anyone:{password}".encode()).decode()


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (None, 401),
        ("Bearer wrong", 401),
        ("Bearer", 401),
        (f"Bearer {TOKEN[:-1]}", 401),
        ("Basic !!!", 401),
        (basic("wrong"), 401),
        (f"Bearer {TOKEN}", 200),
        (basic(TOKEN), 200),
    ],
)
def test_with_a_token_only_those_who_have_it_come_in(reviewer, sent, status):
    headers = {"Authorization": sent} if sent else {}
    asked = {"contract": contract(1), "question": LAW}
    with running(reviewer, token=TOKEN) as client:
        replies = [client.get(path, headers=headers) for path in ("/", "/docs", "/openapi.json")]
        replies.append(client.post("/ask", json=asked, headers=headers))
        assert client.get("/health").status_code == 200
    assert [reply.status_code for reply in replies] == [status] * 4
    assert status == 200 or all(
        TOKEN not in reply.text and "Basic" in reply.headers["WWW-Authenticate"] for reply in replies
    )


@pytest.mark.parametrize(
    ("name", "status"), [("evil.example", 400), ("localhost:1", 200), ("127.0.0.1", 200), ("[", 400)]
)
def test_a_name_of_the_web_that_points_here_reaches_nothing(reviewer, name, status):
    with running(reviewer) as client:
        assert client.get("/health", headers={"Host": name}).status_code == status


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1:1"])
def test_a_page_of_another_site_may_not_ask(reviewer, origin):
    with running(reviewer) as client:
        sent = {"data": {"text": contract(1)}, "headers": {"Origin": origin}}
        assert client.post("/review", **sent).status_code == 403


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "", "example.org"])
def test_no_address_but_this_machines_own_without_a_token(host, monkeypatch, capsys):
    monkeypatch.delenv("CUADFT_TOKEN", raising=False)
    assert cli.main(["serve", "nowhere", "--host", host]) == 2
    assert "CUADFT_TOKEN" in capsys.readouterr().err


def test_bad_options_are_told_before_a_model_is_loaded(monkeypatch, capsys):
    monkeypatch.setenv("CUADFT_TOKEN", "short")
    assert cli.main(["serve", "nowhere"]) == 2
    assert "characters" in capsys.readouterr().err
    monkeypatch.delenv("CUADFT_TOKEN")
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert cli.main(["serve", "nowhere", "--port", str(taken.getsockname()[1])]) == 2
        assert "choose another --port" in capsys.readouterr().err
    assert cli.main(["serve", "nowhere", "--port", "99999"]) == 2
    assert cli.main(["serve", "nowhere", "--port", "0"]) == 2
    assert "No run in" in capsys.readouterr().err


def test_no_page_of_the_service_names_another_address(reviewer):
    with running(reviewer) as client:
        for path in ("/", "/docs"):
            reply = client.get(path)
            assert reply.status_code == 200
            assert set(re.findall(r"https?://([\w.-]+)", reply.text)) <= {"127.0.0.1", "HOST"}
        described = client.get("/openapi.json").json()["paths"]
    assert set(described) == {"/review", "/ask", "/health", "/pages/{key}"}


def test_requests_that_wait_do_not_hold_up_the_health_check(reviewer):
    async def both(address: str) -> float:
        async with httpx.AsyncClient(base_url=address, timeout=60, trust_env=False) as client:
            asked = asyncio.create_task(client.post("/ask", json={"contract": contract(1), "question": LAW}))
            await asyncio.sleep(0.1)
            started = time.perf_counter()
            await client.get("/health")
            waited = time.perf_counter() - started
            await asked
            return waited

    with running(Slow(reviewer, 1.0)) as client:
        assert asyncio.run(both(str(client.base_url))) < 0.8
