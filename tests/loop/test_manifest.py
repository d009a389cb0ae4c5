"""What a stage's record says: by what, of what, when and how long it was made, and which shared files are its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_project import make_project, run_in_process

import cuadft
from cuadft.core import files
from cuadft.data.contracts import sample_path
from cuadft.loop import lineage, runner

SCORES = "iter-01/metrics/scores.json"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(make_project(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(Path(cuadft.__file__).parents[1]))
    monkeypatch.setattr(runner, "execute_notebook", run_in_process)
    return tmp_path


def go(*overrides: str, **options: object) -> list[str]:
    done = runner.run("tiny", overrides=overrides, log=lambda line: None, **options)
    return [step["stage"] for step in done["steps"] if step["state"] == "done"]


def stages(project: Path) -> dict[str, dict]:
    return json.loads((project / "runs/tiny/iter-01/manifest.json").read_text())["stages"]


def owners(project: Path, name: str) -> list[str]:
    return [stage for stage, entry in stages(project).items() if name in entry["outputs"]]


def test_a_record_says_what_made_it_and_of_what(project: Path) -> None:
    go(until="data_prep")
    entry = stages(project)["data_prep"]
    assert entry["notebook"] == "01_data_prep.ipynb" and entry["seeds"] == {"seed": 7} and entry["status"] == "done"
    assert entry["code"] == lineage.made_by(project / "notebooks/01_data_prep.ipynb", {})["code"]
    assert entry["weights"] == {}
    assert entry["contracts"] == {"contracts.json": files.file_hash(sample_path())}
    assert "contracts.jsonl" in entry["outputs"] and "shared_before" not in entry and "earlier" not in entry
    environments = files.read_json(project / "runs/tiny/run.json")["environments"]
    packages = environments[entry["environment"]]["packages"]
    assert packages == lineage.environment()["packages"] and packages["torch"]


def test_a_notebook_in_a_kernel_has_a_peak_memory(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.chdir(project)
    monkeypatch.setenv("PYTHONPATH", str(Path(cuadft.__file__).parents[1]))
    (project / "trap_01.py").write_text("import time\nheld = bytearray(300_000_000)\ntime.sleep(1.5)\ndel held")
    go(until="data_prep")
    peak = stages(project)["data_prep"]["peak_memory_mb"]
    assert peak is None if not Path("/proc/self/status").is_file() else 300 < peak < 700


def test_attempts_that_ended_early_are_kept_with_their_time(project: Path) -> None:
    (project / "trap_04.py").write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(runner.StageFailed):
            go(until="fine_tune")
    (project / "trap_04.py").unlink()
    go(until="fine_tune")
    earlier = stages(project)["fine_tune"]["earlier"]
    assert [attempt["status"] for attempt in earlier] == ["failed", "failed"]
    assert all(attempt["started"] and attempt["seconds"] >= 0 and attempt["code"] for attempt in earlier)
    go("learning_rate=0.5", until="fine_tune")  # other parameters: another work, not a further attempt
    assert "earlier" not in stages(project)["fine_tune"]


def test_a_shared_file_belongs_to_the_stages_that_wrote_it(project: Path) -> None:
    go()
    # the aligned answers came between: evaluate wrote other scores, but the same figure
    assert owners(project, SCORES) == ["evaluate_sft", "evaluate"]
    assert owners(project, "iter-01/figures/f1.svg") == ["evaluate_sft"]
    before = stages(project)
    go("align_methods=[dpo]")
    after = stages(project)
    assert owners(project, SCORES) == ["evaluate_sft", "evaluate"]
    assert before["evaluate"]["outputs"][SCORES] != after["evaluate"]["outputs"][SCORES]
    assert go("align_methods=[dpo]") == []


def test_a_stage_that_only_lies_between_does_not_own_what_an_older_one_left(project: Path) -> None:
    go()
    go("learning_rate=0.5", "top_k=5")  # everything from the answers on runs again, beside evaluate's old tables
    assert owners(project, SCORES) == ["evaluate_sft", "evaluate"]
    assert not [name for name in stages(project)["inference_aligned"]["outputs"] if "/predictions/" not in name]


def test_verdicts_that_several_stages_add_to_make_none_of_them_run_again(project: Path) -> None:
    add = "files.append_jsonl(it.path('metrics', 'judge_replies.jsonl'), [{'verdict': 1}])"
    for number in ("05", "06"):
        (project / f"trap_{number}.py").write_text(add)
    go()
    name = "iter-01/metrics/judge_replies.jsonl"
    assert owners(project, name) == ["evaluate_sft", "align", "evaluate"]
    assert len(files.read_jsonl(project / "runs/tiny" / name)) == 3
    assert go() == []


def test_what_a_killed_attempt_wrote_belongs_to_the_one_that_finished(project: Path) -> None:
    go(until="evaluate_sft")
    (project / "trap_06.py").write_text("files.write_text(it.path('figures', 'alignment.png'), 'x')\n1 / 0")
    with pytest.raises(runner.StageFailed):
        go(until="align")
    (project / "trap_06.py").unlink()
    go(until="align")
    assert owners(project, "iter-01/figures/alignment.png") == ["align"]


def test_an_unreadable_record_costs_its_stage_alone(project: Path) -> None:
    go(until="fine_tune")
    path = project / "runs/tiny/iter-01/manifest.json"
    content = json.loads(path.read_text())
    content["stages"]["rag_compile"] = 3
    path.write_text(json.dumps(content))
    assert go(until="fine_tune") == ["rag_compile"]
