"""What leaves a run answers as it does there, is whole or not there, and says what it is."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hub_stand_in
import pytest
import small
import tiny_run

from cuadft import cli
from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.models import weights
from cuadft.models.local import LocalEngine
from cuadft.rag import inference
from cuadft.rag.systems import System
from cuadft.review import export
from cuadft.review.reviewer import Reviewer

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory) -> Path:
    return tiny_run.make(tmp_path_factory.mktemp("runs") / "acme", tiny)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory) -> Path:
    return export.export_system(run, tmp_path_factory.mktemp("out") / "all", log=lambda line: None).folder


def quietly(*arguments, **options) -> export.Exported:
    return export.export_system(*arguments, **{"check": 0, "log": lambda line: None} | options)


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): files.file_hash(path) for path in folder.rglob("*") if path.is_file()}


def free_answers(engine: LocalEngine, adapter: str = "") -> list[list[int]]:
    """Return the greedy answers to the questions of `small`, each about its contract's text."""
    asked = [[{"role": "user", "content": f"{small.TEXTS[row['contract']]} {row['question']}"}] for row in small.ROWS]
    made = engine.generator.generate([engine.tokenize(each) for each in asked], adapter=adapter, max_tokens=24)
    return [each.tokens for each in made]


def test_merged_weights_answer_as_the_adapter_does(run, exported, tiny):
    engine = LocalEngine(tiny, adapters={"sft": run / "iter-01/adapters/sft"})
    merged = free_answers(LocalEngine(exported / "model"))
    assert merged == free_answers(engine, "sft")
    assert merged != free_answers(engine)  # else an export without the adapter would pass as well


def test_the_exported_parts_alone_give_the_answers_of_the_run(run, exported):
    system = Reviewer.load(run).system
    merged = System("sft", system.program, LocalEngine(exported / "model", batch_size=4).lm(max_tokens=16))
    kept = files.read_jsonl(run / "iter-01/predictions/sft.test.jsonl")
    made = inference.answer_batch(merged.program, merged.lm, small.ROWS[-4:], 4)
    assert [(p["answer"], p["quotes"]) for p in made] == [(p["answer"], p["quotes"]) for p in kept]


def test_the_adapter_alone_answers_as_in_the_run(run, exported, tiny):
    own = LocalEngine(tiny, adapters={"sft": run / "iter-01/adapters/sft"})
    assert free_answers(LocalEngine(tiny, adapters={"out": exported / "adapter"}), "out") == free_answers(own, "sft")


def test_the_example_of_the_card_runs_in_the_exported_folder(exported):
    code = re.search(r"```python\n(.*?)```", (exported / "README.md").read_text(), re.DOTALL)[1]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=exported, env=env, capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.strip(), done.stderr


def test_the_card_holds_the_figures_of_the_run_and_no_others(exported):
    card = (exported / "README.md").read_text()
    assert "| quote F1: are the right words quoted | 0.62 [0.50, 0.75] | 4 | 1 |" in card  # SCORES of the run
    assert "| token F1 of the questions with a clause | none | 0 | 0 |" in card
    assert "promoted: a gain of 0.125" in card and "`sft`: 3 rows" in card
    assert "| measure | sft | questions | contracts |\n| --- | --- | --- | --- |\n| quote F1" in card
    assert "| train | 2 | 8 |" in card and "| test | 1 | 4 |" in card  # 4 questions a contract
    assert "model/ gave the run's greedy answer to 6 of 6 test prompts." in card or "of 8 test prompts" in card


def test_a_system_without_scores_says_so_on_its_card(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/iter-01/scoreboard.csv").unlink()
    card = (quietly(tmp_path / "run", tmp_path / "out").folder / "README.md").read_text()
    assert "has not been evaluated" in card and "| measure |" not in card


def test_an_export_tells_nothing_of_the_machine_or_its_secrets(exported, run, monkeypatch):
    texts = [
        p.read_text()
        for p in exported.rglob("*")
        if p.suffix in (".json", ".md", ".jinja", ".jsonl", "") and p.is_file()
    ]
    assert len(texts) > 8
    for private in (str(run.parent), str(Path.home()), str(weights.cache_dir())):
        assert not any(private in text for text in texts)


def test_the_note_names_every_file_with_its_hash(exported):
    held = contents(exported)
    del held["export.json"]
    assert json.loads((exported / "export.json").read_text())["files"] == held


def test_the_same_export_again_writes_nothing(run, exported):
    before = {path: path.stat().st_mtime_ns for path in exported.rglob("*")}
    assert not quietly(run, exported, system="sft").new
    assert {path: path.stat().st_mtime_ns for path in exported.rglob("*")} == before


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_with_files_of_someone_else_is_left_alone(run, exported, tmp_path, replace):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("years of work")
    shutil.copytree(exported, tmp_path / "mixed")
    (tmp_path / "mixed/thesis.txt").write_text("years of work")
    for folder in (tmp_path / "mine", tmp_path / "mixed"):
        before = contents(folder)
        with pytest.raises(InputError, match="thesis.txt|no part of an export"):
            quietly(run, folder, replace=replace)
        assert contents(folder) == before


def test_another_export_is_replaced_only_on_demand(run, exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "out")
    with pytest.raises(InputError, match="--replace"):
        quietly(run, folder, system="rag")
    assert contents(folder) == contents(exported)
    assert quietly(run, folder, system="rag", replace=True).system == "rag of iteration 1"
    assert not (folder / "adapter").exists() and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_a_damaged_export_is_not_taken_for_whole(run, exported, tmp_path):
    folder = shutil.copytree(exported, tmp_path / "out")
    (folder / "program.json").write_text("{}")
    with pytest.raises(InputError, match="damaged"):
        quietly(run, folder)


def test_a_disk_without_room_is_told_before_anything_is_written(run, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(export.shutil, "disk_usage", lambda folder: usage._replace(free=1_000_000))
    with pytest.raises(InputError, match="has 1 MB free"):
        quietly(run, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_failure_leaves_nothing_behind_and_the_folder_as_it_was(run, exported, tmp_path, monkeypatch):
    folder = shutil.copytree(exported, tmp_path / "out")
    monkeypatch.setattr(export.export_card, "card", lambda *_: 1 / 0)
    for target in (folder, tmp_path / "new"):
        with pytest.raises(ZeroDivisionError):
            quietly(run, target, system="rag", replace=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"] and contents(folder) == contents(exported)


def test_what_a_killed_export_left_is_no_part_of_the_next(run, tmp_path):
    (tmp_path / ".out.exporting/model").mkdir(parents=True)
    (tmp_path / ".out.exporting/model/old.safetensors").write_text("half")
    assert "model/old.safetensors" not in contents(quietly(run, tmp_path / "out").folder)


def test_a_system_with_the_base_weights_is_exported_without_an_adapter(run, tiny, tmp_path):
    folder = quietly(run, tmp_path / "out", system="rag").folder
    assert weights.weights_hash(folder / "model") == weights.weights_hash(tiny)
    assert not (folder / "adapter").exists() and "as they are" in (folder / "README.md").read_text()


def test_a_model_that_gguf_cannot_hold_is_said_and_the_rest_written(run, tmp_path, monkeypatch):
    monkeypatch.setattr(export.export_gguf, "unsupported", lambda folder: "its layers have biases")
    done = quietly(run, tmp_path / "out")
    assert done.notes == ("No GGUF was written: its layers have biases.",)
    assert (done.folder / "model/model.safetensors").is_file() and not (done.folder / "gguf").exists()
    assert done.notes[0] in (done.folder / "README.md").read_text()


def test_the_weights_of_an_api_model_are_not_invented(tiny, tmp_path, monkeypatch):
    run = tiny_run.make(tmp_path / "run", tiny)
    manifest = run / "iter-01/manifest.json"
    content = json.loads(manifest.read_text())
    content["stages"]["all"]["parameters"]["rag_lm"] = "openai/some-model"
    manifest.write_text(json.dumps(content))
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-of-mine")
    done = quietly(run, tmp_path / "out", system="rag")
    assert "no weights to export" in done.notes[0] and (done.folder / "program.json").is_file()
    assert not (done.folder / "model").exists()


def test_the_command_names_the_folder_the_agreement_and_bad_input(run, tmp_path, capsys):
    assert cli.main(["export", str(run), "--to", str(tmp_path / "out"), "--check", "2"]) == 0
    told = capsys.readouterr().out
    assert (
        "model/ gave the run's greedy answer to 2 of 2 test prompts." in told and f"Written: {tmp_path / 'out'}" in told
    )
    for wrong in (["sftt", "--to", "x"], [], ["--to", "x", "--check", "-1"], ["--to", "x", "--push", "a b/c"]):
        assert cli.main(["export", str(run), *wrong]) == 2
    assert "did you mean 'sft'" in capsys.readouterr().err


# --- to the hub

HUB_TOKEN = "hf_not_a_real_token"


@pytest.fixture
def hub(monkeypatch):
    """Return a local hub that is asked in place of the real one, with a token in the environment."""
    from huggingface_hub import constants

    with hub_stand_in.serve() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(
            constants, "HF_HUB_DISABLE_XET", True
        )  # the stand-in speaks LFS, which the hub takes as well
        monkeypatch.setenv("HF_TOKEN", HUB_TOKEN)
        yield server


def test_a_push_brings_every_file_whole_and_private(exported, hub):
    assert export.push(exported, "acme/contracts") == f"{hub.url}/acme/contracts"
    assert hub.repositories == {"acme/contracts": {"visibility": "private", "files": contents(exported)}}
    assert hub.tokens == {f"Bearer {HUB_TOKEN}"}
    assert not any(HUB_TOKEN.encode() in path.read_bytes() for path in exported.rglob("*") if path.is_file())


@pytest.mark.parametrize(("where", "status"), [("/api/repos/create", 401), ("/lfs/", 400), ("/commit/", 403)])
def test_a_push_that_fails_says_so_without_the_token_and_goes_on(exported, hub, where, status):
    hub.fail = where, status
    with pytest.raises(InputError) as refused:
        export.push(exported, "acme/contracts")
    assert "acme/contracts did not take the export" in str(refused.value) and HUB_TOKEN not in str(refused.value)
    before, hub.fail = list(hub.uploads), None
    export.push(exported, "acme/contracts")
    assert hub.repositories["acme/contracts"]["files"] == contents(exported)
    assert len(hub.uploads) == len(set(hub.uploads)) >= len(before)  # what was there was not sent again


def test_a_hub_that_is_gone_is_named(exported, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match="did not take the export"):
        export.push(exported, "acme/contracts")


@pytest.mark.parametrize("name", ["HF_TOKEN", "HF_HUB_OFFLINE"])
def test_what_a_push_lacks_is_told_before_the_export(run, hub, tmp_path, monkeypatch, capsys, name):
    from huggingface_hub import constants

    monkeypatch.delenv("HF_TOKEN") if name == "HF_TOKEN" else monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert cli.main(["export", str(run), "--to", str(tmp_path / "out"), "--push", "acme/contracts"]) == 2
    assert name in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_the_command_pushes_what_it_has_written(run, hub, tmp_path, capsys):
    command = ["export", str(run), "--to", str(tmp_path / "out"), "--push", "acme/contracts", "--check", "0"]
    assert cli.main(command) == 0 and cli.main(command) == 0
    assert "Already there" in capsys.readouterr().out
    assert hub.repositories["acme/contracts"]["files"] == contents(tmp_path / "out")
