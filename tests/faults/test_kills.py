"""Kills and interruptions at random moments of every stage: the same command goes on, nothing is lost or done twice."""

from __future__ import annotations

import os
import random
import time
from collections import Counter
from pathlib import Path

import pytest
from smoke_run import Attempt, alive, answers, differences, finish, seconds_of

from cuadft.loop.stages import STAGES

A_STAGE = int(os.environ.get("CUADFT_FAULTS_KILLS", 7))  # kills aimed at each stage
WAYS = ("loop", "both", "kernel")
NAMES = [stage.name for stage in STAGES]


def test_kills_at_random_moments_lose_nothing(reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    draw, seconds, run = random.Random(7), seconds_of(reference), tmp_path / "run"
    struck, lost, orphans = Counter(), 0, []
    for name in NAMES:
        for n in range(A_STAGE):
            attempt, way = Attempt(run), WAYS[n % 3]
            reached = attempt.reaches(name)
            assert not any(alive(orphan) for orphan in orphans), "a killed loop's kernel works beside the next one"
            time.sleep(draw.uniform(0, 0.7 * seconds[name]) if reached else 0)
            stage, orphans = attempt.stage, attempt.strike(way)
            if attempt.ends() == 0:
                continue  # it was quicker than the undisturbed run
            assert way != "kernel" or "killed kernel" in attempt.text and "Traceback" not in attempt.text, attempt.text
            struck[stage, way] += 1
            before = answers(run)
            time.sleep(draw.choice((0, 2)))  # a kernel without its loop ends by itself within a second or so
            lost += sum(answers(run).get(key) != row for key, row in before.items())
    before, done = answers(run), finish(run)
    assert done.returncode == 0, done.stdout + done.stderr
    lost += sum(answers(run).get(key) != row for key, row in before.items() if row["error"] is None)
    with capsys.disabled():
        print(
            f"\n{sum(struck.values())} kills: {_by(struck, 0)}; {_by(struck, 1)}; rows lost or answered again: {lost}"
        )
    assert differences(reference, run) == [] and lost == 0
    assert sum(struck.values()) >= 8 * A_STAGE and {stage for stage, _ in struck if stage} == set(NAMES)


def _by(counts: Counter, place: int) -> str:
    totals = Counter()
    for key, n in counts.items():
        totals[key[place] or "between stages"] += n
    return ", ".join(f"{name} {n}" for name, n in totals.items())


def test_an_interruption_of_every_stage_is_resumed(
    reference: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    draw, seconds, run, stopped = random.Random(8), seconds_of(reference), tmp_path / "run", []
    for name in NAMES:
        attempt = Attempt(run)
        assert attempt.reaches(name), attempt.text
        time.sleep(draw.uniform(0, 0.75 * seconds[name]))
        attempt.strike("interrupt")
        if (code := attempt.ends()) != 0:
            assert code == 130 and "same command" in attempt.text and "Traceback" not in attempt.text, attempt.text
            stopped.append(attempt.stage)
    done = finish(run)
    assert done.returncode == 0, done.stdout + done.stderr
    with capsys.disabled():
        print(f"\ninterruptions: {len(stopped)}, of {', '.join(map(str, stopped))}")
    assert differences(reference, run) == [] and len(stopped) >= len(NAMES) - 1
