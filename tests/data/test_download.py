"""Downloads: whole or not at all, resumed where they stopped, checked; against a server on this machine."""

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
PIECE = 6 * download._BLOCK  # 98,304 bytes
MD5 = "md5:" + hashlib.md5(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves BODY at /file; tests set `ranges`, `drop` (bytes before it hangs up, per request), `status`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ranges, self.drop, self.status, self.asked = True, [], [], []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Keep the test output free of the server's log."""

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append(asked)
        if self.server.status:
            return self.reply(self.server.status.pop(0), b"")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and self.server.ranges else 0
        if start >= len(BODY):
            return self.reply(416, b"")
        self.reply(206 if start else 200, BODY[start:], start)

    def reply(self, status: int, body: bytes, start: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        self.end_headers()
        if len(body) > 10_000 and self.server.drop:
            body = body[: self.server.drop.pop(0)]
            self.close_connection = True
        self.wfile.write(body)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def get(server: Server, path: Path, **settings: object) -> Path:
    return download.download_file(
        f"{server.url}/file", path, **{"checksum": MD5, "advice": "ask", "pause": 0, **settings}
    )


def test_a_file_arrives_whole_and_leaves_no_part(server: Server, tmp_path: Path) -> None:
    path = get(server, tmp_path / "new" / "file.zip")
    assert path.read_bytes() == BODY and list(path.parent.iterdir()) == [path]


def test_a_connection_that_dies_is_resumed_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.drop = [3 * PIECE, 2 * PIECE]
    assert get(server, tmp_path / "file").read_bytes() == BODY
    assert server.asked == [None, f"bytes={3 * PIECE}-", f"bytes={5 * PIECE}-"]


def test_a_later_run_resumes_the_part_an_earlier_one_left(server: Server, tmp_path: Path) -> None:
    server.drop = [PIECE]
    with pytest.raises(InputError, match=r"stopped after 98304 bytes .*run again to resume"):
        get(server, tmp_path / "file", attempts=0)
    assert (tmp_path / "file.part").stat().st_size == PIECE and not (tmp_path / "file").exists()
    assert get(server, tmp_path / "file").read_bytes() == BODY
    assert server.asked == [None, f"bytes={PIECE}-"]


def test_a_server_without_ranges_makes_it_start_over(server: Server, tmp_path: Path) -> None:
    server.ranges = False
    (tmp_path / "file.part").write_bytes(b"x" * 5000)
    assert get(server, tmp_path / "file").read_bytes() == BODY


def test_a_server_without_ranges_that_keeps_dying_ends_in_a_clear_error(server: Server, tmp_path: Path) -> None:
    server.ranges, server.drop = False, [PIECE] * 50
    with pytest.raises(InputError, match="stopped after 98304 bytes"):
        get(server, tmp_path / "file", attempts=3)
    assert len(server.asked) == 4  # one that got somewhere, three that got no further


@pytest.mark.parametrize("length", [len(BODY) + 1, len(BODY) * 2])
def test_a_part_longer_than_the_file_starts_over(server: Server, tmp_path: Path, length: int) -> None:
    (tmp_path / "file.part").write_bytes(b"x" * length)
    assert get(server, tmp_path / "file").read_bytes() == BODY


def test_a_complete_part_is_checked_and_not_fetched_again(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(BODY)
    assert get(server, tmp_path / "file").read_bytes() == BODY and server.asked == []


def test_a_wrong_hash_or_size_is_told_and_removed(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file.part").write_bytes(b"x" * 1000)
    with pytest.raises(InputError, match=rf"damaged and was removed .*expected {MD5} but got \w+.*Run again, or ask"):
        get(server, tmp_path / "file")
    monkeypatch.setattr(download, "LARGEST_DOWNLOAD", 10)
    with pytest.raises(InputError, match="more than the 10 bytes expected"):
        get(server, tmp_path / "file")
    assert list(tmp_path.iterdir()) == []


def test_sha256_is_checked_too(server: Server, tmp_path: Path) -> None:
    get(server, tmp_path / "file", checksum="sha256:" + hashlib.sha256(BODY).hexdigest())
    with pytest.raises(InputError, match="damaged"):
        get(server, tmp_path / "other", checksum="sha256:" + hashlib.sha256(b"").hexdigest())


def test_a_good_file_is_kept_and_a_bad_one_replaced(server: Server, tmp_path: Path) -> None:
    path = get(server, tmp_path / "file")
    asked = len(server.asked)
    get(server, path)
    assert len(server.asked) == asked
    path.write_bytes(b"old")
    assert get(server, path).read_bytes() == BODY


def test_passing_faults_are_retried_and_lasting_ones_told(server: Server, tmp_path: Path) -> None:
    server.status = [503, 429]
    assert get(server, tmp_path / "file").read_bytes() == BODY
    server.status = [404]
    with pytest.raises(InputError, match="status 404"):
        get(server, tmp_path / "other")


def test_a_folder_that_cannot_be_written_is_told(server: Server, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputError, match="Cannot write"):
        get(server, tmp_path / "taken" / "file")


def test_cuad_comes_from_its_address_and_has_the_published_hash(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUADFT_ZENODO", server.url + "/")
    with pytest.raises(InputError, match=f"{server.url}/records/4595826/files/CUAD_v1.zip arrived damaged"):
        download.cuad_from_zenodo(tmp_path, pause=0)
    monkeypatch.setattr(download, "CUAD_HASH", MD5)
    path = download.cuad_from_zenodo(tmp_path, pause=0)
    assert path == tmp_path / "CUAD_v1.zip" and path.read_bytes() == BODY


def test_without_a_network_the_error_says_where_to_put_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUADFT_ZENODO", "http://127.0.0.1:9")  # the discard port: nothing listens
    with pytest.raises(InputError, match=r"check the network.*put CUAD_v1.zip at .* or set cuad to a file you have"):
        download.cuad_from_zenodo(tmp_path, pause=0)
    with pytest.raises(InputError, match="stopped after 0 bytes"):
        download.cuad_from_zenodo(tmp_path, pause=0)
