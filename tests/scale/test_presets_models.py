"""The architectures of the presets for GPUs, as small random models, through all six notebooks."""

from __future__ import annotations

from pathlib import Path

import pytest
from architectures import make_llama3, make_qwen3
from commands import ROOT, cuadft

from cuadft.core import files

pytestmark = pytest.mark.slow
SMALL = "rephrase_seeds=1 embedder_steps=0 retrieval_modes=[bm25] n_resamples=100 align_methods=[sft_more,dpo,rloo]"


@pytest.mark.parametrize("make", [make_qwen3, make_llama3])
def test_a_model_of_the_family_goes_through_the_loop_and_the_export(make, tmp_path: Path) -> None:
    for name in ("notebooks", "params"):
        (tmp_path / name).symlink_to(ROOT / name)
    settings = [f"model={make(tmp_path / 'model')}", *SMALL.split()]
    done = cuadft("run", "params/smoke.yaml", "--run-dir", "runs/family", "--set", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    iteration = tmp_path / "runs" / "family" / "iter-01"
    assert files.read_json(iteration / "decision.json")["candidates"]
    for system in ("rag", "sft", "dpo", "rloo"):
        rows = files.read_jsonl(iteration / "predictions" / f"{system}.test.jsonl")
        assert rows and not any(row["error"] for row in rows)
    done = cuadft("export", "runs/family", "sft", "--to", "export", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "export" / "model" / "config.json").is_file()
