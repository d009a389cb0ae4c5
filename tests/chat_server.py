"""A local server that speaks OpenAI's chat protocol, and the key that reaches it."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

KEY = "sk-not-a-real-key"


class Chat(BaseHTTPRequestHandler):
    """Answer every chat with the next of `replies`: a number is an error that repeats the key, None an empty list."""

    replies: list = []
    seen: list = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        type(self).seen.append((self.path, self.headers["Authorization"], body))
        reply = self.replies[min(len(self.seen), len(self.replies)) - 1]
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": str(reply)}}
        made = {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": body["model"],
            "choices": [] if reply is None else [choice],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }
        error = {"error": {"message": f"no {self.headers['Authorization']}"}}
        data = json.dumps(error if isinstance(reply, int) else made).encode()
        self.send_response(reply if isinstance(reply, int) else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def chat(monkeypatch):
    class Server(Chat):
        replies, seen = [], []

    server = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}/v1"
    for name in ("OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, address)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    yield Server
    server.shutdown()
