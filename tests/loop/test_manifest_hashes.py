"""The cache of file hashes reads every file again that could have changed, whatever its times or the clock say."""

import os
import time

import pytest

from cuadft.core.files import file_hash
from cuadft.loop.manifest import Hashes


def age(monkeypatch, seconds=3600):
    """Let the clock show a later time, so that a file written just now has long been settled."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + seconds)


def test_a_settled_file_is_read_once(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr("cuadft.loop.manifest.files.file_hash", lambda path: read.append(path) or file_hash(path))
    (tmp_path / "a").write_text("one")
    cache = Hashes()
    assert cache(tmp_path / "a") == cache(tmp_path / "a") == file_hash(tmp_path / "a") and len(read) == 2
    age(monkeypatch)
    assert cache(tmp_path / "a") == cache(tmp_path / "a") == file_hash(tmp_path / "a") and len(read) == 3


def test_a_change_with_equal_size_and_a_restored_time_is_seen(tmp_path, monkeypatch):
    age(monkeypatch)
    path = tmp_path / "a"
    path.write_text("one")
    cache, before = Hashes(), path.stat()
    old = cache(path)
    path.write_text("two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cache(path) == file_hash(path) != old


def test_a_change_right_after_hashing_is_seen(tmp_path):
    # within one tick of the system's clock the two contents would bear the same times
    path, cache = tmp_path / "a", Hashes()
    for n in range(20):
        path.write_text(f"{n:04d}")
        cache(path)
        path.write_text(f"{n + 1:04d}")
        assert cache(path) == file_hash(path)


def test_a_file_swapped_for_one_of_equal_size_and_time_is_seen(tmp_path, monkeypatch):
    age(monkeypatch)
    (tmp_path / "a").write_text("one")
    (tmp_path / "b").write_text("two")
    for name in "ab":
        os.utime(tmp_path / name, (1, 1))
    cache = Hashes()
    old = cache(tmp_path / "a")
    os.replace(tmp_path / "b", tmp_path / "a")
    assert cache(tmp_path / "a") == file_hash(tmp_path / "a") != old


@pytest.mark.parametrize("jump", [-3600, 3600])
def test_a_clock_that_jumped_costs_reading_but_no_truth(tmp_path, monkeypatch, jump):
    path, cache = tmp_path / "a", Hashes()
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + jump)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + jump * 10**9)
    for text in ("one", "two"):
        path.write_text(text)
        assert cache(path) == file_hash(path)
    os.utime(path, (now() + 10**8, now() + 10**8))  # dated in the future
    assert cache(path) == file_hash(path)
