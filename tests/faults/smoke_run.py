"""A smoke run as the subject of faults: start it, watch it, strike it, and compare it with an undisturbed one."""

from __future__ import annotations

import csv
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

from cuadft.core.files import file_hash, is_leftover
from cuadft.loop.stages import STAGES

ROOT = Path(__file__).parents[2]
OPTIONS = ("--set", "align_methods=[dpo,ppo]")
LABELS = {stage.label: stage.name for stage in STAGES}
TIMES = {"seconds", "time", "started"}  # measured anew by every run
PATIENCE = 600  # seconds without a line from the loop that count as hanging


def command(run: Path) -> list[str]:
    """Return the one command that every attempt repeats."""
    return [sys.executable, "-m", "cuadft.cli", "run", "params/smoke.yaml", "--run-dir", str(run), *OPTIONS]


def finish(run: Path) -> subprocess.CompletedProcess:
    """Run the command to its end."""
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    return subprocess.run(command(run), cwd=ROOT, env=env, capture_output=True, text=True, timeout=1800)


def seconds_of(run: Path) -> dict[str, float]:
    """Return what each stage took, by the manifest."""
    recorded = json.loads((run / "iter-01" / "manifest.json").read_text())["stages"]
    return {name: entry["seconds"] for name, entry in recorded.items()}


def alive(process: psutil.Process) -> bool:
    """Tell whether a process still works (a zombie does not)."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _heed_interruptions() -> None:
    """Take back what tests in the background (nohup, &) pass on: that an interruption is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Attempt:
    """One run of the command in a process of its own, whose lines say which stage it works on."""

    def __init__(self, run: Path) -> None:
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        pipe["preexec_fn"] = _heed_interruptions
        self.process = subprocess.Popen(command(run), cwd=ROOT, env=os.environ | {"HF_HUB_OFFLINE": "1"}, **pipe)
        self.lines: list[str] = []
        self.stage: str | None = None  # at work now
        self._queue: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def reaches(self, stage: str) -> bool:
        """Wait until the stage begins; False if it was done before, or the command ended."""
        while (line := self._queue.get(timeout=PATIENCE)) is not None:
            if line == f"{_title(stage)} ...":
                return True
            if line.startswith(f"{_title(stage)} ... skipped"):
                return False
        return False

    def _is_kernel(self, process: psutil.Process) -> bool:
        """Tell a kernel, warm or not, from the server that warm kernels are forked from."""
        command = process.cmdline()
        warm = "cuadft.loop.warm" in command and process.ppid() != self.process.pid
        return warm or "ipykernel_launcher" in command

    def kernels(self) -> list[psutil.Process]:
        """Return the kernels at work."""
        try:
            below = psutil.Process(self.process.pid).children(recursive=True)
            return [p for p in below if self._is_kernel(p)]
        except psutil.NoSuchProcess:
            return []

    def strike(self, way: str) -> list[psutil.Process]:
        """Kill the loop, its kernel or both, or interrupt the loop; return the kernels that were at work."""
        kernels = self.kernels()
        if way != "kernel":
            os.kill(self.process.pid, signal.SIGINT if way == "interrupt" else signal.SIGKILL)
        if way == "both":
            _kill(kernels)
        while way == "kernel" and self.process.poll() is None:  # one that has done its work is no loss: take the next
            _kill(self.kernels())
            time.sleep(0.1)
        return kernels

    def ends(self) -> int:
        """Wait for the command's end and return its exit code."""
        code = self.process.wait(timeout=PATIENCE)
        time.sleep(0.05)
        return code

    @property
    def text(self) -> str:
        """All lines so far."""
        return "\n".join(self.lines)

    def _read(self) -> None:
        for line in self.process.stdout:
            self.lines.append(line := line.rstrip("\n"))
            label, begun, rest = line.removeprefix("[iter 1] ").partition(" ...")
            if begun and label in LABELS and not rest.startswith(" removed"):
                self.stage = LABELS[label] if not rest else None
            self._queue.put(line)
        self._queue.put(None)


def differences(reference: Path, run: Path) -> list[str]:
    """Return how a finished run differs from an undisturbed one, but for measured times; [] if it does not."""
    ours, theirs = run / "iter-01", reference / "iter-01"
    found = [name for name in ("scoreboard.csv", "decision.json") if _content(ours / name) != _content(theirs / name)]
    for kind in ("data/*.json*", "predictions/*.json*", "program/*.json*"):
        names = {path.relative_to(side) for side in (ours, theirs) for path in side.glob(kind)}
        found += [str(name) for name in sorted(names) if _content(ours / name) != _content(theirs / name)]
    weights = {path.relative_to(side) for side in (ours, theirs) for path in side.rglob("*.safetensors")}
    found += [str(name) for name in sorted(weights) if _hash(ours / name) != _hash(theirs / name)]
    found += [f"{file.name}: a row twice" for file in (ours / "predictions").glob("*.jsonl") if _twice(file)]
    return found + leftovers(run)


def leftovers(run: Path) -> list[str]:
    """Return the temporary files and folders that a finished run must not leave."""
    marks = ("-work", "-new")
    return sorted(
        str(path.relative_to(run))
        for path in run.rglob(".*")
        if is_leftover(path) or (path.is_dir() and path.name.endswith(marks))
    )


def answers(run: Path) -> dict[tuple[str, str], dict]:
    """Return every whole prediction on disk, by file and row."""
    kept = {}
    for path in (run / "iter-01" / "predictions").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue  # torn by the kill
            kept[path.name, row["id"]] = row
    return kept


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _content(path: Path) -> object:
    if not path.is_file():
        return None
    if path.suffix == ".csv":
        return [row for row in csv.DictReader(path.open(newline="")) if row.get("metric") not in TIMES]
    rows = [json.loads(path.read_text())] if path.suffix == ".json" else map(json.loads, path.read_text().splitlines())
    return [_timeless(row) for row in rows]


def _timeless(value: object) -> object:
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [_timeless(item) for item in value if not (isinstance(item, dict) and item.get("clause") in TIMES)]
    return value


def _hash(path: Path) -> str | None:
    return file_hash(path) if path.is_file() else None


def _twice(path: Path) -> bool:
    counts = Counter(json.loads(line)["id"] for line in path.read_text().splitlines())
    return max(counts.values(), default=0) > 1


def _title(stage: str) -> str:
    label = next(label for label, name in LABELS.items() if name == stage)
    return f"[iter 1] {label}"
