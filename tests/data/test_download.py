"""Downloads: whole or not at all, tried again, checked; against a server on this machine."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cuadft.core.errors import InputError
from cuadft.data import download

BODY = bytes(range(256)) * 4000  # 1,024,000 bytes
MD5 = "md5:" + hashlib.md5(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves BODY; tests set `drop` (bytes before it hangs up, per request) and `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.drop, self.status, self.asked = [], [], []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Keep the test output free of the server's log."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        status, body = (self.server.status.pop(0), b"") if self.server.status else (200, BODY)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body and self.server.drop:
            body = body[: self.server.drop.pop(0)]
            self.close_connection = True
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Stand in for Zenodo, with a file of a known hash; failures are tried again at once."""
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    monkeypatch.setenv("CUADFT_ZENODO", server.url + "/")
    monkeypatch.setattr(download, "CUAD_HASH", MD5)
    monkeypatch.setattr("pooch.core.time.sleep", lambda seconds: None)
    yield server
    server.shutdown()
    server.server_close()


def test_a_file_arrives_whole_from_its_address_and_leaves_no_part(server: Server, tmp_path: Path) -> None:
    path = download.cuad_from_zenodo(tmp_path / "new")
    assert path == tmp_path / "new" / "CUAD_v1.zip" and path.read_bytes() == BODY
    assert list(path.parent.iterdir()) == [path] and server.asked == ["/records/4595826/files/CUAD_v1.zip"]


def test_passing_faults_and_dead_connections_are_tried_again(server: Server, tmp_path: Path) -> None:
    server.status, server.drop = [503, 429], [50_000, 300_000]
    assert download.cuad_from_zenodo(tmp_path).read_bytes() == BODY
    assert len(server.asked) == 1 + download.RETRIES and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("fault", ["status", "drop"])
def test_a_lasting_fault_is_told_with_the_way_out_and_leaves_nothing(server: Server, tmp_path: Path, fault) -> None:
    setattr(server, fault, [404 if fault == "status" else 50_000] * 9)
    with pytest.raises(InputError, match=rf"Cannot download {server.url}/records.*put CUAD_v1.zip into .* or set cuad"):
        download.cuad_from_zenodo(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_hash_is_told_and_the_file_removed(server: Server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(download, "CUAD_HASH", "md5:" + hashlib.md5(b"").hexdigest())
    with pytest.raises(InputError, match="does not match the known hash.*run again, or put"):
        download.cuad_from_zenodo(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_good_file_is_kept_and_a_bad_one_replaced(server: Server, tmp_path: Path) -> None:
    path = download.cuad_from_zenodo(tmp_path)
    asked = len(server.asked)
    assert download.cuad_from_zenodo(tmp_path) == path and len(server.asked) == asked
    path.write_bytes(b"old")
    assert download.cuad_from_zenodo(tmp_path).read_bytes() == BODY


def test_a_folder_that_cannot_be_written_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match="Cannot download"):
        download.cuad_from_zenodo(tmp_path / "taken" / "folder")


def test_without_a_network_the_error_says_where_to_put_the_file(server: Server, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("CUADFT_ZENODO", "http://127.0.0.1:9")  # the discard port: nothing listens
    with pytest.raises(InputError, match=r"check the network.*put CUAD_v1.zip into .* or set cuad to a file you have"):
        download.cuad_from_zenodo(tmp_path)
    assert list(tmp_path.iterdir()) == []
