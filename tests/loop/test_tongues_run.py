"""One iteration of all notebooks on documents in three languages: every quote is the document's own words."""

from __future__ import annotations

from pathlib import Path

import pytest
import tongues
from commands import cuadft

from cuadft.core import files

SETTINGS = {
    "cuad": tongues.PATH,
    "stream": "random",
    "train_contracts": 0,
    "slice_contracts": 0,
    "dev_contracts": 2,
    "test_contracts": 2,
    "passage_chars": 300,
    "passage_sizes": "[300]",
    "align_methods": "[dpo]",
}


@pytest.mark.slow
def test_the_whole_loop_runs_on_documents_in_three_languages(tmp_path: Path) -> None:
    given = [part for name, value in SETTINGS.items() for part in ("--set", f"{name}={value}")]
    done = cuadft("run", "params/smoke.yaml", "--run-dir", tmp_path / "run", *given)
    assert done.returncode == 0, done.stdout + done.stderr
    texts = {record["title"]: record["text"] for record in files.read_jsonl(tmp_path / "run/contracts.jsonl")}
    answered = set()
    for path in (tmp_path / "run").glob("iter-01/predictions/*.jsonl"):
        for row in files.read_jsonl(path):
            assert row["error"] is None
            answered.add(row["contract"])
            for quote in row["quotes"]:
                assert quote["text"] == " ".join(texts[row["contract"]][slice(*quote["span"])].split())
    assert len(answered) == 4 and (tmp_path / "run/iter-01/decision.json").is_file()
    assert any("租" in title for title in answered) and any("vertrag" in title for title in answered)
    assert cuadft("verify", tmp_path / "run").returncode == 0
