"""What is recorded of code, packages, machine, seeds, weights and contracts behind a stage."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from tiny_project import write_notebook

from cuadft.core import files
from cuadft.data.contracts import sample_path
from cuadft.loop import lineage
from cuadft.models import weights

GIT = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder: Path, *arguments: str) -> str:
    names = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    return subprocess.run(
        ["git", "-C", folder, *names, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the top of a repository with a package of one module in it, which lineage takes for its own."""
    package = tmp_path / "cuadft"
    package.mkdir()
    for name in ("__init__.py", "loop.py"):
        (package / name).write_text("x = 1\n")
    monkeypatch.setattr(lineage, "PACKAGE", package)
    return tmp_path


@GIT
def test_uncommitted_code_is_dirty_and_named_by_its_hash(checkout: Path) -> None:
    git(checkout, "init", "-q")
    git(checkout, "add", ".")
    git(checkout, "commit", "-qm", "one")
    clean = lineage.code_state()
    assert clean["commit"] == git(checkout, "rev-parse", "HEAD") and clean["dirty"] is False
    (checkout / "README.md").write_text("no code")
    assert lineage.code_state() == clean
    (checkout / "cuadft/loop.py").write_text("x = 22\n")
    changed = lineage.code_state()
    assert changed["commit"] == clean["commit"] and changed["dirty"] is True and changed["package"] != clean["package"]
    (checkout / "cuadft/loop.py").write_text("x = 1\n")
    assert lineage.code_state() == clean
    (checkout / "cuadft/new.py").write_text("")  # not known to Git, but imported all the same
    assert lineage.code_state()["dirty"] is True


@GIT
def test_a_package_inside_another_projects_repository_has_no_commit(checkout: Path) -> None:
    (checkout / "mine.txt").write_text("a project of the user's")
    git(checkout, "init", "-q")
    git(checkout, "add", "mine.txt")
    git(checkout, "commit", "-qm", "one")
    record = lineage.code_state()
    assert record["commit"] is None and record["dirty"] is None and len(record["package"]) == 64


def test_code_is_named_without_git(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert lineage.code_state()["commit"] is None and len(lineage.code_state()["package"]) == 64


def noted(notebook: Path, **parameters: object) -> dict:
    return lineage.made_by(notebook, parameters)


def test_a_notebooks_outputs_and_prose_do_not_change_its_hash(tmp_path: Path) -> None:
    one = write_notebook(tmp_path / "a.ipynb", "x: int = 1", "print(x)")
    before = noted(one)["code"]["notebook"]
    text = one.read_text()
    one.write_text(text.replace("# Title", "# Better title"))
    assert noted(one)["code"]["notebook"] == before
    one.write_text(text.replace("print(x)", "print(x + 1)"))
    assert noted(one)["code"]["notebook"] != before


def test_seeds_are_told_from_numbers_of_seed_questions(tmp_path: Path) -> None:
    parameters = {"seed": 7, "split_seed": 3, "absent_seeds": 1, "rephrase_seeds": 3, "seed_runs": [], "model": "tiny"}
    one = write_notebook(tmp_path / "a.ipynb", "x: int = 1", "print(x)")
    assert noted(one, **parameters)["seeds"] == {"seed": 7, "split_seed": 3}


def test_weights_are_named_by_the_hash_that_adapters_record(tmp_path: Path, monkeypatch, tiny: Path) -> None:
    parameters = {"model": "tiny", "embedder": "nobody/nothing", "reranker": ""}
    found = lineage.made_from(parameters, files.file_hash, tmp_path)["weights"]
    assert found == {"tiny": weights.weights_hash(tiny)}
    copied = shutil.copytree(tiny, tmp_path / "own")
    read = []
    found = lineage.made_from(
        {"model": str(copied)}, lambda path: read.append(path) or files.file_hash(path), tmp_path
    )["weights"]
    assert found == {str(copied): weights.weights_hash(tiny)} and [path.name for path in read] == ["model.safetensors"]


def test_the_contracts_behind_a_keyword_are_named(tmp_path: Path) -> None:
    def named(**parameters: str) -> dict[str, str]:
        return lineage.made_from(parameters, files.file_hash, tmp_path)["contracts"]

    assert named(cuad="sample") == {"contracts.json": files.file_hash(sample_path())}
    assert named(cuad="auto", data_dir="data") == {}  # nothing there: a look must not download
    (tmp_path / "data").mkdir()
    (tmp_path / "data/notes.txt").write_text("not CUAD")
    assert named(cuad="auto", data_dir="data") == {}
    (tmp_path / "data/CUAD_v1.json").write_text("{}")
    assert named(cuad="auto", data_dir="data") == {"CUAD_v1.json": files.file_hash(tmp_path / "data/CUAD_v1.json")}
    assert named(cuad=str(tmp_path / "data/CUAD_v1.json")) == {} == named()


def test_run_json_keeps_its_creation_time_and_every_environment(tmp_path: Path, monkeypatch) -> None:
    run = tmp_path / "run"
    lineage.describe_run(run, preset="smoke")
    record = files.read_json(run / "run.json")
    assert record["preset"] == "smoke"
    ((first, found),) = record["environments"].items()
    assert first == lineage.environment_key() and found["machine"]["cores"] >= 1 and found["packages"]["papermill"]
    monkeypatch.setattr(lineage, "environment", lambda: {"packages": {"torch": "99.0"}})
    lineage.describe_run(run, preset="quickstart")
    after = files.read_json(run / "run.json")
    assert after["created"] == record["created"] and after["preset"] == "quickstart"
    second = lineage.environment_key()
    assert after["environments"] == {first: found, second: {"packages": {"torch": "99.0"}}}
