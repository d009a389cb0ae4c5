"""A run folder has one loop at a time; what a killed loop left running never works beside the next one."""

import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.loop import kernel
from cuadft.loop.kernel import is_locked, lock

# a loop with a kernel that inherits the lock; prints the kernel's process id when both are at work
LOOP = """
import subprocess, sys, time
from pathlib import Path
from cuadft.loop.kernel import lock
with lock(Path(sys.argv[1])) as held:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[held],
                             start_new_session=True, stdout=subprocess.DEVNULL)
    print(child.pid, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def killed(tmp_path):
    """Return a run folder whose loop was killed, and the process id of the kernel that it left."""
    loop = subprocess.Popen([sys.executable, "-c", LOOP, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    kernel = int(loop.stdout.readline())
    loop.kill()
    loop.wait()
    yield tmp_path, kernel
    try:
        os.kill(kernel, signal.SIGKILL)
    except ProcessLookupError:
        pass


def works(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rsplit(")")[-1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_the_second_loop_names_the_first(tmp_path):
    with lock(tmp_path):
        assert is_locked(tmp_path)
        with pytest.raises(InputError, match=f"Another `cuadft run` .process {os.getpid()} on {socket.gethostname()}"):
            with lock(tmp_path):
                pass
    assert not is_locked(tmp_path)
    with lock(tmp_path):  # the name of the last one does not keep anybody out
        pass


def test_a_kernel_that_outlives_its_loop_is_ended_before_the_next_one_begins(killed):
    folder, kernel = killed
    assert works(kernel) and not is_locked(folder)  # what is left over is no loop
    with lock(folder):
        assert not works(kernel) and is_locked(folder)


def test_a_stranger_who_reads_the_lock_is_left_alone(killed):
    folder, _ = killed
    script = "import sys, time; f = open(sys.argv[1]); print('open', flush=True); time.sleep(60)"
    stranger = subprocess.Popen(
        [sys.executable, "-c", script, str(folder / ".lock")], stdout=subprocess.PIPE, text=True
    )
    stranger.stdout.readline()
    with lock(folder):
        assert works(stranger.pid)
    stranger.kill()
    stranger.wait()


def test_what_cannot_be_seen_from_here_is_never_taken_for_dead(tmp_path, monkeypatch):
    with lock(tmp_path):
        (tmp_path / ".lock").write_text(json.dumps({"pid": 1, "host": "elsewhere"}))
        assert is_locked(tmp_path)
        with pytest.raises(InputError, match="process 1 on elsewhere"), lock(tmp_path):
            pass
        monkeypatch.setattr(kernel, "PATIENCE", 0.2)  # a process of another container with this host name
        (tmp_path / ".lock").write_text(json.dumps({"pid": 10**8, "host": socket.gethostname()}))
        with pytest.raises(InputError, match="can't be ended from here"), lock(tmp_path):
            pass


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', "\0\0"])
def test_a_damaged_lock_file_locks_as_well(tmp_path, content):
    (tmp_path / ".lock").write_text(content)
    with lock(tmp_path):
        (tmp_path / ".lock").write_text(content)
        with pytest.raises(InputError, match="process unknown"), lock(tmp_path):
            pass


def test_parts_of_killed_writes_go_and_those_at_work_stay(tmp_path):
    for name in (
        ".a.json.12345678.tmp",
        "iter-01/.b.tmp",
        ".feedback.sqlite.1234.tmp",
        ".feedback.sqlite.1234.tmp-wal",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("part")
    (tmp_path / "a.tmp").write_text("not ours")
    with open(tmp_path / ".busy.json.tmp", "w") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)
        assert files.remove_leftovers(tmp_path) == 4
        assert sorted(p.name for p in tmp_path.rglob("*") if p.is_file()) == [".busy.json.tmp", "a.tmp"]
    with lock(tmp_path):
        assert not list(tmp_path.glob(".*.tmp"))


def test_a_killed_write_leaves_the_old_file_whole(tmp_path):
    script = (
        "import sys, os, signal; from cuadft.core import files\n"
        "os.fsync = lambda fd: os.kill(os.getpid(), signal.SIGKILL)\nfiles.write_text(sys.argv[1], 'new')"
    )
    (tmp_path / "a").write_text("old")
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "a")], check=False)
    assert (tmp_path / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 2
    assert files.remove_leftovers(tmp_path) == 1


def test_a_disk_that_fills_up_is_said_with_what_to_do(tmp_path):
    with pytest.raises(InputError, match="make room on its disk; the same command then goes on"), lock(tmp_path):
        raise OSError(28, "No space left on device", "x")
    began = time.monotonic()
    with pytest.raises(OSError, match="no such library"), lock(tmp_path):  # other errors stay what they are
        raise OSError("no such library")
    assert time.monotonic() - began < 5
