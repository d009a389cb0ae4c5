"""A full disk and a folder that can't be written: one message, and the same command goes on once there is room."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from smoke_run import ROOT, Attempt, differences, finish

from cuadft.core.errors import InputError
from cuadft.feedback.store import Store
from cuadft.loop.stages import STAGES

ROOM = 1 << 30  # bytes of the small disk when it is not meant to be full
SLACK = (0, 8, 64, 512)  # KiB left, in turn
JUDGEMENT = {
    "annotator": "anna",
    "contract": "C",
    "question": "Who pays?",
    "answer_a": "A",
    "answer_b": "B",
    "verdict": "a",
}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Return the folder of a disk that `fill` can make full."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if _mount("-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", folder).returncode:
        pytest.skip("mounting is forbidden here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_up_in_any_stage_costs_no_work(
    reference: Path, disk: Path, capsys: pytest.CaptureFixture
) -> None:
    run, full = disk / "run", []
    for n, stage in enumerate(STAGES):
        attempt = Attempt(run)
        assert attempt.reaches(stage.name), attempt.text
        fill(disk, SLACK[n % len(SLACK)])
        if (code := attempt.ends()) != 0:
            said = [line for line in attempt.lines if line.startswith("error:")]
            assert code == 2 and len(said) == 1 and "Traceback" not in attempt.text, attempt.text
            assert "room" in attempt.text and "same command" in attempt.text, attempt.text
            full.append(attempt.stage)
        fill(disk, None)
    done = finish(run)
    assert done.returncode == 0, done.stdout + done.stderr
    with capsys.disabled():
        print(f"\nfull disk: {len(full)} times, in {', '.join(map(str, full))}")
    assert differences(reference, run) == [] and len(full) >= 6


def test_a_run_cannot_begin_on_a_full_disk(disk: Path) -> None:
    fill(disk, 0)
    done = finish(disk / "run")
    assert done.returncode == 2 and "room" in done.stderr and "Traceback" not in done.stderr, done.stderr


def test_a_full_feedback_store_keeps_what_it_has(disk: Path) -> None:
    store, stored = Store(disk / "feedback.sqlite"), []
    for n in range(20):
        stored.append(store.add(JUDGEMENT | {"id": f"row-{n}"}))
    fill(disk, 0)
    with pytest.raises(InputError, match="disk has room.*What was stored is kept"):
        for n in range(20, 2000):
            stored.append(store.add(JUDGEMENT | {"id": f"row-{n}", "comment": "x" * 2000}))
    with pytest.raises(InputError, match="disk has room.*What was stored is kept"):
        store.judgements()  # SQLite needs 32 KiB beside a store to read it
    fill(disk, None)
    assert [row["uid"] for row in Store(disk / "feedback.sqlite").judgements()] == stored
    stored.append(store.add(JUDGEMENT | {"id": "last"}))
    assert [row["uid"] for row in store.judgements()] == stored


def test_a_read_only_folder_is_named_and_left_as_it_is(reference: Path, tmp_path: Path) -> None:
    source, run = tmp_path / "source", tmp_path / "run"
    shutil.copytree(reference, source)
    (source / "iter-01" / "scoreboard.csv").unlink()  # something is left to do
    run.mkdir()
    if _mount("--bind", source, run).returncode or _mount("-o", "remount,ro,bind", run).returncode:
        pytest.skip("mounting is forbidden here")
    try:
        before = sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*"))
        done = finish(run)
        assert done.returncode == 2 and "Can't write to run folder" in done.stderr, done.stderr
        assert "Traceback" not in done.stderr
        assert sorted((p, p.stat().st_mtime_ns) for p in run.rglob("*")) == before
        shown = subprocess.run([sys.executable, "-m", "cuadft.cli", "status", str(run)], cwd=ROOT, capture_output=True)
        assert shown.returncode == 0, shown.stderr
        _mount("-o", "remount,rw,bind", run)
        assert finish(run).returncode == 0 and differences(reference, run) == []
    finally:
        subprocess.run(["umount", "-l", str(run)], check=True)


def fill(disk: Path, slack: int | None) -> None:
    """Leave `slack` KiB of room, or all again."""
    for _ in range(50):  # the run may write between the two: a size below what is used is refused
        used = shutil.disk_usage(disk).used
        size = ROOM if slack is None else max(used + slack * 1024, 4096)
        if _mount("-o", f"remount,size={size}", disk).returncode == 0:
            return
    raise AssertionError("the disk can't be made small")


def _mount(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(["mount", *map(str, arguments)], capture_output=True, text=True)
