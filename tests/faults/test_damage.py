"""Files of a finished run are cut short, emptied or flipped by a bit: it is seen, and the same command repairs them."""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from smoke_run import OPTIONS, ROOT, differences, finish

from cuadft.core.errors import InputError
from cuadft.loop import runner, stages
from cuadft.loop.manifest import Manifest

RERUNS = int(os.environ.get("CUADFT_FAULTS_RERUNS", 10))  # of the whole loop, each after damage to FILES files
FILES = 4
WAYS = ("cut", "empty", "flip")
UNREAD = {".lock", ".hashes.json", "run.json", "history.jsonl"}  # renewed by every call; a log that no stage reads
LEDGER = "manifest.json"  # holds times and other things that no stage depends on


class Begins(BaseException):
    """Raised instead of running a stage."""


@pytest.fixture(scope="module")
def run(reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the undisturbed run to damage."""
    folder = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(reference, folder)
    return folder


@pytest.mark.parametrize("way", WAYS)
def test_every_damaged_file_is_seen(
    run: Path, way: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.chdir(ROOT)
    assert _begins(run, monkeypatch) == "nothing"
    draw, outcomes, passed = random.Random(9), Counter(), []
    for path in _files(run):
        with _damaged(path, way, draw):
            outcomes[outcome := _begins(run, monkeypatch)] += 1
        if outcome == "nothing" and path.name not in UNREAD | {LEDGER}:
            passed.append(path.name)
    with capsys.disabled():
        print(f"\n{way}: {sum(outcomes.values())} files, one at a time; the loop begins with: {dict(outcomes)}")
    assert passed == [] and _begins(run, monkeypatch) == "nothing"


def test_damage_is_made_good_or_named(reference: Path, run: Path, capsys: pytest.CaptureFixture) -> None:
    draw, damaged, messages = random.Random(10), [], 0
    for _ in range(RERUNS):
        chosen = draw.sample(_files(run), FILES)
        for path in chosen:
            path.write_bytes(_spoilt(path.read_bytes(), draw.choice(WAYS), draw))
        damaged += [str(path.relative_to(run)) for path in chosen]
        while (done := finish(run)).returncode:
            assert done.returncode == 2 and done.stderr.count("error:") == 1 and "Traceback" not in done.stderr, (
                done.stderr
            )
            named = [path for path in chosen if str(path) in done.stderr and path.is_file()]
            assert named and "delete" in done.stderr, done.stderr
            named[0].unlink()  # what the message says
            messages += 1
        assert differences(reference, run) == [], damaged[-FILES:]
    with capsys.disabled():
        print(
            f"\n{len(damaged)} files damaged, {FILES} at a time: all made good, "
            f"{messages} after a message with the remedy"
        )


def _files(run: Path) -> list[Path]:
    """Return the files of a run with any content, but for the executed copies, which no stage reads."""
    return sorted(p for p in run.rglob("*") if p.is_file() and p.stat().st_size and p.parent.name != "executed")


def _begins(run: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the stage that the loop would run first, "nothing", or "a message"; nothing is run or deleted."""

    def stop(self: Manifest, stage: stages.Stage, *_: object) -> None:
        raise Begins(stage.name)

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "clear", stop)
        patch.setattr(Manifest, "start", stop)
        try:
            runner.run("params/smoke.yaml", run_dir=run, overrides=OPTIONS[1::2], log=lambda line: None)
        except Begins as stage:
            return str(stage)
        except InputError:
            return "a message"
    return "nothing"


@contextmanager
def _damaged(path: Path, way: str, draw: random.Random) -> Iterator[None]:
    content = path.read_bytes()
    path.write_bytes(_spoilt(content, way, draw))
    try:
        yield
    finally:
        path.write_bytes(content)


def _spoilt(content: bytes, way: str, draw: random.Random) -> bytes:
    if way == "flip":
        place = draw.randrange(len(content))
        return content[:place] + bytes([content[place] ^ 1 << draw.randrange(8)]) + content[place + 1 :]
    return b"" if way == "empty" else content[: draw.randrange(len(content))]
