"""A local server that takes an upload as the Hugging Face hub does: repository, pre-upload, LFS, commit."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

COMMIT = "c" * 40


class Hub(ThreadingHTTPServer):
    """Repositories by name: {"visibility", "files": path -> SHA-256}; `tokens` are the Authorization headers seen.

    fail: a path (a part of it) that is answered with this status until it is cleared.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories: dict[str, dict[str, Any]] = {}
        self.stored: set[str] = set()
        self.tokens: set[str | None] = set()
        self.uploads: list[str] = []
        self.fail: tuple[str, int] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextmanager
def serve() -> Iterator[Hub]:
    """Run the server; the pages that it serves are gone when the block ends."""
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_POST(self) -> None:
        body = self._body()
        self.server.tokens.add(self.headers["Authorization"])
        path = self.path.partition("?")[0]
        if self.server.fail and self.server.fail[0] in path:
            return self._reply({"error": f"no, {self.headers['Authorization']}"}, self.server.fail[1])
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}" if asked.get("organization") else asked["name"]
            known = name in self.server.repositories
            self.server.repositories.setdefault(name, {"visibility": asked.get("visibility"), "files": {}})
            return self._reply({"url": f"{self.server.url}/{name}"}, 409 if known else 200)
        if path == "/api/validate-yaml":
            return self._reply({"errors": [], "warnings": []})
        if path.endswith("/preupload/main"):
            files = [
                {"path": file["path"], "uploadMode": "lfs" if file["size"] > 2_000 else "regular"}
                | {"shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return self._reply({"files": files})
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                one
                | ({} if one["oid"] in self.server.stored else {"actions": {"upload": {"href": self._lfs(one["oid"])}}})
                for one in json.loads(body)["objects"]
            ]
            return self._reply({"transfer": "basic", "objects": objects}, kind="application/vnd.git-lfs+json")
        if path.endswith("/commit/main"):
            name = path.removeprefix("/api/models/").removesuffix("/commit/main")
            self._commit(name, body)
            address = f"{self.server.url}/{name}/commit/{COMMIT}"
            return self._reply({"success": True, "commitOid": COMMIT, "commitUrl": address})
        self._reply({"error": f"unknown {path}"}, 404)

    def do_PUT(self) -> None:
        if self.server.fail and self.server.fail[0] in self.path:
            self._body()
            return self._reply({}, self.server.fail[1])
        found = hashlib.sha256(self._body()).hexdigest()
        assert self.path == f"/lfs/{found}"
        self.server.stored.add(found)
        self.server.uploads.append(found)
        self._reply({})

    def do_GET(self) -> None:
        self._reply({"error": "unknown"}, 404)

    do_HEAD = do_GET

    def _commit(self, name: str, body: bytes) -> None:
        held = self.server.repositories[name]["files"]
        for line in body.decode().splitlines():
            each = json.loads(line)
            value = each["value"]
            if each["key"] == "file":
                held[value["path"]] = hashlib.sha256(base64.b64decode(value["content"])).hexdigest()
            elif each["key"] == "lfsFile":
                assert value["oid"] in self.server.stored
                held[value["path"]] = value["oid"]

    def _lfs(self, oid: str) -> str:
        return f"{self.server.url}/lfs/{oid}"

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _reply(self, content: dict, status: int = 200, kind: str = "application/json") -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Stay silent."""
