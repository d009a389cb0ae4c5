"""A local server that speaks OpenAI's chat protocol and fails in the ways that real endpoints do, by script.

    with faulty_server.serve([status(429, retry_after=1), "hello"]) as server:
        remote("openai/some-model", api_base=server.url)

Each request takes the next item of the script; when it runs out, the last one is repeated. An item is a reply (str), a
function of the request's body that returns one, or one of the faults below. Errors repeat the key that was sent, as
some servers do.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USAGE = {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}


@dataclass(frozen=True)
class Fault:
    """What to send instead of a good reply."""

    kind: str  # status, drop, hang, cut, garbled, slow, body
    code: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)  # of the reply's body
    text: str = "late"
    seconds: float = 0.0


DROP = Fault("drop")  # the connection closes without an answer
HANG = Fault("hang")  # no answer until the server closes
CUT = Fault("cut")  # the body ends before its announced length
GARBLED = Fault("garbled")  # a whole body that is half a JSON document
EMPTY = Fault("body", changes={"choices": []})
NULL = Fault(
    "body",
    changes={"choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": None}}]},
)
FILTERED = Fault(
    "body",
    changes={
        "choices": [
            {"index": 0, "finish_reason": "content_filter", "message": {"role": "assistant", "content": "The par"}}
        ]
    },
)


def status(code: int, retry_after: object = None, error_code: str | None = None) -> Fault:
    """Return an error with an HTTP status."""
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return Fault("status", code, headers, {"code": error_code} if error_code else {})


def slow(seconds: float) -> Fault:
    """Return a good reply that trickles in, byte after byte, over so many seconds."""
    return Fault("slow", seconds=seconds)


class Server(ThreadingHTTPServer):
    """The server; `seen` holds (time, path, Authorization header, body) of every request."""

    daemon_threads = True

    def __init__(self, script: Sequence[str | Fault | Callable]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script, self.seen, self.closing, self._lock = list(script), [], threading.Event(), threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def next(self, request: tuple) -> str | Fault | Callable:
        with self._lock:
            self.seen.append(request)
            return self.script[min(len(self.seen), len(self.script)) - 1]

    def handle_error(self, *_: object) -> None:
        """Stay silent: clients that give up close their end."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        item = self.server.next((time.monotonic(), self.path, self.headers["Authorization"], body))
        item = item(body) if callable(item) else item
        fault = item if isinstance(item, Fault) else Fault("body", text=item)
        getattr(self, f"_{fault.kind}")(fault, body)

    def _status(self, fault: Fault, body: dict) -> None:
        error = {"message": f"no {self.headers['Authorization']}", "type": "scripted", **fault.changes}
        self._send(json.dumps({"error": error}).encode(), fault.code, fault.headers)

    def _drop(self, fault: Fault, body: dict) -> None:
        self.close_connection = True
        self.connection.close()

    def _hang(self, fault: Fault, body: dict) -> None:
        self.server.closing.wait(30)
        self.close_connection = True

    def _cut(self, fault: Fault, body: dict) -> None:
        whole = self._reply(fault, body)
        self._send(whole[: len(whole) // 2], length=len(whole))
        self.close_connection = True

    def _garbled(self, fault: Fault, body: dict) -> None:
        whole = self._reply(fault, body)
        self._send(whole[: len(whole) // 2])

    def _slow(self, fault: Fault, body: dict) -> None:
        whole = self._reply(fault, body)
        self._send(b"", length=len(whole))
        for byte in whole:
            if self.server.closing.wait(fault.seconds / len(whole)):
                return
            self.wfile.write(bytes([byte]))

    def _body(self, fault: Fault, body: dict) -> None:
        self._send(self._reply(fault, body))

    def _reply(self, fault: Fault, body: dict) -> bytes:
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": fault.text}}
        made = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "usage": USAGE}
        return json.dumps(made | {"choices": [choice]} | dict(fault.changes)).encode()

    def _send(
        self, data: bytes, code: int = 200, headers: Mapping[str, str] | None = None, length: int | None = None
    ) -> None:
        self.send_response(code)
        sent = {"Content-Type": "application/json", "Content-Length": str(len(data) if length is None else length)}
        for name, value in (sent | dict(headers or {})).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@contextmanager
def serve(script: Sequence[str | Fault | Callable]) -> Iterator[Server]:
    """Run a server in a thread until the block ends."""
    server = Server(script)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
