"""Broken inputs given to the command line: one clear message, exit code 2, no traceback, nothing lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cuadft.contracts import sample_path

ROOT = Path(__file__).parents[1]


def run(*arguments: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "cuadft.cli", "run", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})


def refused(done: subprocess.CompletedProcess, *words: str) -> None:
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr and done.stderr.count("error:") == 1
    assert all(word in done.stderr for word in words), done.stderr


def broken(tmp_path: Path, change) -> Path:
    data = json.loads(sample_path().read_text())
    change(data["data"][3]["paragraphs"][0])
    (tmp_path / "broken.json").write_text(json.dumps(data))
    return tmp_path / "broken.json"


def shift(paragraph: dict) -> None:
    next(q for q in paragraph["qas"] if q["answers"])["answers"][0]["answer_start"] += 3


def test_a_truncated_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "CUAD_v1.zip").write_bytes(b"PK\x03\x04" + b"\0" * 5000)
    done = run("params/smoke.yaml", "--run-dir", tmp_path / "run", "--set", f"cuad={tmp_path / 'CUAD_v1.zip'}")
    refused(done, "CUAD_v1.zip", "zip")


def test_a_shifted_offset_is_shown_with_both_texts(tmp_path: Path) -> None:
    path = broken(tmp_path, shift)
    refused(run("params/smoke.yaml", "--run-dir", tmp_path / "run", "--set", f"cuad={path}"), "answer_start", "contract", "set")


def test_an_empty_contract_is_named(tmp_path: Path) -> None:
    path = broken(tmp_path, lambda paragraph: paragraph.update(context=""))
    refused(run("params/smoke.yaml", "--run-dir", tmp_path / "run", "--set", f"cuad={path}"), "context", "found ''")


def test_every_wrong_key_of_a_preset_is_listed_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text("model: tiny\ntrain_contract: 3\nk: many\noptimizer: mip\n")
    done = run(tmp_path / "wrong.yaml", "--run-dir", tmp_path / "run")
    refused(done, "did you mean 'train_contracts'?", "k: got 'many'", "bootstrap|bootstrap_random_search|mipro")
    assert not (tmp_path / "run").exists()


def test_an_unwritable_run_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    refused(run("params/smoke.yaml", "--run-dir", tmp_path / "file" / "run"), "Can't write", "file")


@pytest.mark.parametrize("flag", [[], ["--debug"]], ids=["plain", "debug"])
def test_a_traceback_is_shown_only_on_request(tmp_path: Path, flag: list[str]) -> None:
    done = run(tmp_path / "none.yaml", *flag)
    assert done.returncode == 2 and ("Traceback" in done.stderr) == bool(flag)
