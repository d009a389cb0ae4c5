"""A whole smoke run whose writer and judge are a faulty endpoint that repeats the key: no file of it holds the key."""

from __future__ import annotations

import base64
import itertools
import os
import subprocess
import sys
from pathlib import Path

import faulty_server
import pytest
from faulty_server import CUT, DROP, EMPTY, GARBLED, NULL, status
from smoke_run import ROOT

KEY, PASSWORD, PART = "sk-planted-7e57cafe0123456789", "hunter2hunter2", "planted-in-query-42"
FAULTS = [
    status(400),
    "Verdict: correct",
    GARBLED,
    status(403),
    "Verdict: partly",
    status(429, retry_after=0),
    NULL,
    CUT,
    status(500),
    EMPTY,
    DROP,
    "1. Who pays?\n2. Who is paid?",
]


@pytest.mark.parametrize("in_address", [False, True], ids=["key", "password in the address"])
def test_no_file_of_a_smoke_run_with_a_faulty_endpoint_holds_a_key(tmp_path: Path, in_address: bool) -> None:
    run = tmp_path / "run"
    chosen = [f"{name}=openai/some-model" for name in ("judge_lm", "generator_lm", "rag_lm")] + ["align_methods=[dpo]"]
    options = ["--run-dir", str(run), "--debug", *(word for setting in chosen for word in ("--set", setting))]
    command = [sys.executable, "-m", "cuadft.cli", "run", "params/smoke.yaml", *options]
    turns = itertools.cycle(FAULTS)
    with faulty_server.serve([lambda body: next(turns)]) as server:
        address = server.url.replace("//", f"//someone:{PASSWORD}@") + f"/?api-key={PART}" if in_address else server.url
        env = {"OPENAI_API_KEY": KEY, "OPENAI_API_BASE": address, "HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
        env |= {"CUADFT_CACHE": os.environ.get("CUADFT_CACHE", str(Path.home() / ".cache" / "cuadft"))}
        done = subprocess.run(command, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, timeout=1800)
    basic = base64.b64encode(f"someone:{PASSWORD}".encode()).decode()  # what is sent instead of the key
    assert done.returncode in (0, 3) and len(server.seen) >= 10, done.stdout + done.stderr
    assert any((basic if in_address else KEY) in (seen[2] or "") for seen in server.seen), done.stdout + done.stderr
    files = [path for path in tmp_path.rglob("*") if path.is_file()]  # the run, and what libraries leave at home
    assert len(files) > 30
    for secret in (KEY, PASSWORD, PART, basic):
        assert secret not in done.stdout + done.stderr
        assert [str(path.relative_to(tmp_path)) for path in files if secret.encode() in path.read_bytes()] == []
