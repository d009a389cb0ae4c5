"""`cuadft verify` names all that is changed, lost, stale, unfinished or put beside a finished run, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from tiny_project import make_project, run_in_process

import cuadft
from cuadft import cli
from cuadft.core import files, recorded
from cuadft.core.errors import InputError
from cuadft.data.contracts import sample_path
from cuadft.loop import lineage, runner, verify
from cuadft.loop.stages import STAGES

NAMES = [stage.name for stage in STAGES]
SFT = "iter-02/adapters/sft/w.txt"


def enter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PYTHONPATH", str(Path(cuadft.__file__).parents[1]))
    monkeypatch.setattr(runner, "execute_notebook", run_in_process)
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with a finished run of two iterations; tests work on copies."""
    folder = make_project(tmp_path_factory.mktemp("project"))
    with pytest.MonkeyPatch.context() as patch:
        enter(folder, patch)
        runner.run("tiny", iterations=2, log=lambda line: None)
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    return enter(shutil.copytree(finished, tmp_path / "project"), monkeypatch)


@pytest.fixture
def run(project: Path) -> Path:
    return project / "runs/tiny"


def again(*overrides: str, **options: object) -> None:
    runner.run("tiny", overrides=overrides, log=lambda line: None, **options)


def found(run: Path, artefact: str = "") -> dict[str, str]:
    """Return the name and kind of every finding."""
    return {finding.name: finding.kind for finding in verify.verify_run(run, artefact).findings}


def detail(run: Path, name: str) -> str:
    return next(finding.detail for finding in verify.verify_run(run).findings if finding.name == name)


def edit(run: Path, number: int, change) -> None:
    path = run / f"iter-{number:02d}/manifest.json"
    content = json.loads(path.read_text())
    change(content["stages"])
    path.write_text(json.dumps(content))


def outputs(run: Path) -> list[str]:
    return sorted(verify.verify_run(run).lineage.writers)


def test_a_finished_run_is_well_before_and_after_it_is_moved(run: Path) -> None:
    verdict = verify.verify_run(run)
    assert not verdict.findings and verdict.n_files == len(outputs(run)) > 40
    assert found(run.rename(run.parent / "moved")) == {}


@pytest.mark.parametrize("turn", range(4))
def test_every_output_that_is_harmed_is_named_and_no_other(run: Path, turn: int) -> None:
    expected = {}
    for place, name in enumerate(name for name in outputs(run) if name != "iter-01/decision.json"):
        path, before, stat = run / name, (run / name).read_bytes(), (run / name).stat()
        harm = ("append", "same size", "delete", "touch")[(place + turn) % 4]
        if harm == "append":
            path.write_bytes(before + b"x")
        elif harm == "same size":  # with its old times, which fool a cache
            path.write_bytes(bytes([before[0] ^ 1]) + before[1:])
            os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        elif harm == "delete":
            path.unlink()
        else:
            os.utime(path)
        expected |= {} if harm == "touch" else {name: "missing" if harm == "delete" else "changed"}
    assert found(run) == expected


@pytest.mark.parametrize("name", ["retriever/confidence.json", "predictions/sft.confidence.json"])
def test_a_champions_confidence_is_of_the_chain_and_its_change_is_found_and_repaired(run: Path, name: str) -> None:
    path = f"iter-01/{name}"
    compiled = lineage.stage_records(recorded.run_iterations(run)[1])[1]
    assert compiled.stage.name == "rag_compile" and compiled.inputs[path] == files.file_hash(run / path)
    (run / path).write_text('{"about": "changed"}')
    assert found(run) == found(run, SFT) == {path: "changed"}
    steps = runner.run("tiny", iterations=2, log=lambda line: None)["steps"]
    made_by = "rag_compile" if "retriever" in name else "inference_sft"
    assert [(step["iteration"], step["stage"]) for step in steps if step["state"] == "done"] == [(1, made_by)]
    assert found(run) == {}
    (run / path).unlink()
    assert found(run) == {path: "missing"}


def test_a_decision_that_cannot_be_read_is_a_finding_not_an_error(run: Path) -> None:
    (run / "iter-01/decision.json").write_text("{")
    assert found(run) == {"iter-01/decision.json": "changed"}
    (run / "iter-01/decision.json").unlink()
    assert found(run) == {"iter-01/decision.json": "missing"}


def test_a_repaired_run_is_well_again(run: Path) -> None:
    for name in ("iter-01/adapters/sft/w.txt", "iter-02/metrics/scores.json", "iter-02/data/train.jsonl"):
        (run / name).write_text("damaged")
        assert found(run) == {name: "changed"}
        again(iterations=2)
        assert found(run) == {}


def test_files_that_no_stage_recorded_are_told_from_those_that_are_known(run: Path) -> None:
    for name in (
        "feedback.sqlite",
        "history.jsonl",
        "trackers/mlflow.db",
        "iter-02/by_hand.json",
        "iter-02/.hidden",
        "iter-01/preferences/candidates.0.jsonl",
        "iter-02/adapters/.dpo-work/checkpoint-4/optimizer.pt",
        "iter-02/notes.txt",
        "iter-02/adapters/sft/extra.bin",
        "iter-02/executed/other.ipynb",
        "copy of run.json",
        "iter-07/data/train.jsonl",
    ):
        files.write_text(run / name, "{}")
    kinds = found(run)
    assert "not run yet: data_prep" in detail(run, "iteration 7") and kinds.pop("iteration 7") == "unfinished"
    assert kinds == dict.fromkeys(
        [
            "iter-02/.hidden",
            "iter-02/notes.txt",
            "iter-02/adapters/sft/extra.bin",
            "copy of run.json",
            "iter-02/executed/other.ipynb",
            "iter-07/data/train.jsonl",
        ],
        "unaccounted",
    )


def test_a_choice_by_hand_that_the_next_iteration_has_not_seen_makes_it_stale(run: Path) -> None:
    shutil.copy(run / "iter-01/decision.json", run / "iter-01/by_hand.json")
    kinds = found(run)
    assert kinds and set(kinds.values()) == {"stale"} and "[iter 2] 02 rag_compile" in kinds
    assert "iter-01/by_hand.json has come since" in detail(run, "[iter 2] 02 rag_compile")


def test_a_stage_made_from_what_has_been_made_again_is_stale_until_it_runs(run: Path) -> None:
    again("learning_rate=0.01", until="fine_tune")
    kinds = found(run)
    assert kinds["[iter 1] 03 inference_sft"] == "stale" == kinds["[iter 1] 06 align"]
    assert "has made iter-01/adapters/sft/w.txt again" in detail(run, "[iter 1] 03 inference_sft")
    assert not [name for name, kind in kinds.items() if kind != "stale"]
    again("learning_rate=0.01", iterations=2)
    assert found(run) == {}


def test_contracts_outside_the_run_folder_are_no_concern_of_it(project: Path) -> None:
    (project / "my.json").write_text("[1]")
    again("cuad=my.json")
    run = project / "runs/tiny"
    shutil.rmtree(run / "iter-02")
    assert found(run) == {}
    (project / "my.json").unlink()  # run folders travel alone
    assert found(run) == {}


@pytest.mark.parametrize(
    "status, words",
    [("running", "interrupted"), ("failed", "failed: ValueError"), ("incomplete", "incomplete: ValueError")],
)
def test_a_stage_that_did_not_finish_is_named_with_its_reason(run: Path, status: str, words: str) -> None:
    before = {"iter-02/metrics/scores.json": "", "iter-02/figures/f1.svg": ""}
    change = {"status": status, "outputs": {}, "error": "ValueError: no\nmore", "shared_before": before}
    edit(run, 2, lambda stages: stages["evaluate"].update(change))
    assert found(run) == {"[iter 2] 05 evaluate": "unfinished"}
    assert detail(run, "[iter 2] 05 evaluate").startswith(words)


def test_a_stage_killed_while_it_wrote_leaves_no_false_alarm(project: Path) -> None:
    run = project / "runs/tiny"
    (run / "iter-02/scoreboard.csv").unlink()  # so that evaluate runs again
    (project / "trap_05.py").write_text("files.write_text(it.path('figures', 'f1.svg'), '<svg>2</svg>')\n1 / 0")
    with pytest.raises(runner.StageFailed):
        again(iterations=2)
    assert found(run) == {"[iter 2] 05 evaluate": "unfinished"}
    (project / "trap_05.py").unlink()
    again(iterations=2)
    assert found(run) == {}


def test_stages_to_come_are_unfinished_and_those_left_out_are_no_fault(project: Path) -> None:
    again(run_dir="runs/half", until="inference_sft")
    assert found(project / "runs/half") == {"iteration 1": "unfinished"}
    assert "evaluate_sft, align, inference_aligned, evaluate" in detail(project / "runs/half", "iteration 1")
    again("align_methods=[]", run_dir="runs/plain")
    assert found(project / "runs/plain") == {}


@pytest.mark.parametrize("content", ["{", '{"stages": []}', "", "\x00"])
def test_a_damaged_manifest_is_a_finding_with_advice(run: Path, content: str) -> None:
    (run / "iter-02/manifest.json").write_text(content)
    assert found(run)["iter-02/manifest.json"] == "damaged"
    assert "restore it, or delete it" in verify.verification_text(verify.verify_run(run))


def test_manifests_of_older_versions_are_read(run: Path) -> None:
    def age(stages: dict) -> None:
        for entry in stages.values():
            for key in (
                "notebook",
                "code",
                "versions",
                "environment",
                "seeds",
                "weights",
                "contracts",
                "peak_memory_mb",
            ):
                entry.pop(key, None)

    for number in (1, 2):
        edit(run, number, age)
    assert found(run) == {}
    text = verify.verification_text(verify.verify_run(run, SFT))
    assert text.endswith("All is well.") and "[iter 2] 04 fine_tune: done" in text


def test_the_chain_names_every_ancestor_once_and_ends_at_the_contracts(run: Path) -> None:
    lines = verify.verification_text(verify.verify_run(run, SFT)).splitlines()
    assert lines[0].startswith(f"{SFT}  sha256 {files.file_hash(run / SFT)[:12]}")
    heads = [line.split(":")[0] for line in lines if line.startswith("[iter")]
    # iteration 2 starts from the champion of iteration 1, which all stages of iteration 1 decided; the answers of
    # iteration 2 are no part of the chain
    assert heads[:3] == ["[iter 2] 04 fine_tune", "[iter 2] 02 rag_compile", "[iter 2] 01 data_prep"]
    first = [f"[iter 1] {stage.label}" for stage in reversed(STAGES) if stage.name != "evaluate_sft"]
    assert heads[3:] == first and len(set(heads)) == len(heads)
    assert len(lines) < 110
    text = "\n".join(lines)
    assert ", seed 7" in text and ", package " in text and ", environment " in text
    assert f"    contracts.json  sha256 {files.file_hash(sample_path())[:12]}" in text
    assert str(run.parents[1]) not in text.replace(f"{run}: ", "")


def test_the_chain_of_an_artefact_is_not_held_against_it_for_what_it_does_not_use(run: Path) -> None:
    (run / "iter-02/predictions/sft.dev.jsonl").write_text("")
    (run / "stray.txt").write_text("")
    assert found(run, SFT) == {}
    (run / "iter-01/data/train.jsonl").write_text("")
    assert found(run, SFT) == {"iter-01/data/train.jsonl": "changed"}
    assert "iter-01/data/train.jsonl (changed)" in verify.verification_text(verify.verify_run(run, SFT))


@pytest.mark.parametrize(
    "form",
    [
        "iter-02/adapters/sft/w.txt",
        "iter-02/adapters/sft",
        "./iter-02/adapters/sft/",
        "{run}/iter-02/adapters",
        "runs/tiny/iter-02/adapters/sft/w.txt",
    ],
)
def test_an_artefact_is_found_however_it_is_given(run: Path, form: str) -> None:
    names = verify.verify_run(run, form.format(run=run)).names
    assert names and all("sft" in name or "adapters" in name or "fine_tune" in name for name in names)


@pytest.mark.parametrize(
    "wrong, right",
    [
        ("iter-01/adapters/stf", "iter-01/adapters/sft"),
        ("iter-02/scorebord.csv", "iter-02/scoreboard.csv"),
        ("contract.jsonl", "contracts.jsonl"),
    ],
)
def test_a_misspelt_artefact_is_corrected(run: Path, wrong: str, right: str) -> None:
    with pytest.raises(InputError, match=f"did you mean '{right}'"):
        verify.verify_run(run, wrong)
    with pytest.raises(InputError, match="No stage has recorded"):
        verify.verify_run(run, "../../../etc/passwd")


def test_the_exit_code_says_whether_all_is_well(run: Path, capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["verify", str(run)]) == 0 and capsys.readouterr().out.endswith("All is well.\n")
    (run / SFT).write_text("other weights")
    assert cli.main(["verify", "runs/tiny"]) == 1
    shown = capsys.readouterr().out
    assert f"changed     {SFT}: [iter 2] 04 fine_tune wrote it" in shown and "Not well: 1 changed." in shown
    assert cli.main(["verify", "runs/tiny", "iter-01/adapters/sft"]) == 0
    assert cli.main(["verify", "runs/tiny", SFT]) == 1
    assert cli.main(["verify", "runs/none"]) == 2 and cli.main(["verify", "runs/tiny", "nothing"]) == 2
    assert "No run in" in capsys.readouterr().err


def test_many_findings_are_counted_not_all_listed(run: Path) -> None:
    for number in range(100):
        (run / f"stray{number}.txt").write_text("")
    text = verify.verification_text(verify.verify_run(run))
    assert "and 80 more" in text and "Not well: 100 unaccounted." in text and len(text.splitlines()) < 40


def test_a_run_is_verified_at_a_gigabyte_in_ten_seconds(run: Path) -> None:
    with open(run / SFT, "wb") as file:
        file.truncate(100 * 10**6)
    edit(run, 2, lambda stages: stages["fine_tune"]["outputs"].update({SFT: files.file_hash(run / SFT)}))
    started = time.process_time()  # not the clock, which other work on the machine drives on
    verdict = verify.verify_run(run)
    assert verdict.n_bytes > 100e6 and time.process_time() - started < 1


def test_nothing_is_written_into_a_run_that_is_verified(run: Path) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in run.rglob("*")}
    verify.verify_run(run)
    verify.verification_text(verify.verify_run(run, SFT))
    assert {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in run.rglob("*")} == before
