"""Commands that people copy: each one that is printed in a README, a notebook, a preset or a message can be run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from commands import ROOT
from documents import PAGES, read_page

from cuadft import cli
from cuadft.core import params
from cuadft.loop import stages

READ = [read_page(path.read_text()) for path in PAGES]
BLOCKS = [code for page in READ for language, code in page.blocks if language == "bash"]
WORDS = [word for page in READ for word in page.words]
# RUN, FILE, the value of an f-string, or a preset that `cuadft init` writes (tests/loop/test_start.py runs those)
PLACEHOLDER = re.compile(r"([A-Z]{2,}|x)(/preset\.yaml)?|(mine|library)/preset\.yaml")


def prose() -> list[str]:
    """Return all texts but the pages that may print a command in backticks."""
    cells = [cell for path in (ROOT / "notebooks").glob("0*.ipynb") for cell in json.loads(path.read_text())["cells"]]
    paths = [*(ROOT / "cuadft").rglob("*.py"), *(ROOT / "params").glob("*.yaml")]
    code = [re.sub(r"\{[^{}]*\}|\n *#", "x", path.read_text()) for path in paths]
    return [*("".join(cell["source"]) for cell in cells), *code]


def printed() -> list[str]:
    """Return every command of cuadft that is printed, with the options that stand alone put after a run."""
    quoted = [" ".join(found.split()) for text in prose() for found in re.findall(r"`([^`]+)`", text)] + WORDS
    lines = [line for block in BLOCKS for line in block.splitlines()]
    alone = [f"cuadft run params/smoke.yaml {each}" for each in quoted if each.startswith("--set ")]
    return sorted({each for each in [*lines, *quoted, *alone] if each.startswith("cuadft ")})


@pytest.mark.parametrize("line", printed())
def test_every_printed_command_is_one_that_runs(line: str) -> None:
    name, *words = cli._one_set_each(shlex.split(line, comments=True)[1:])
    command = typer.main.get_command(cli.app).commands.get(name)
    if line == "cuadft --help":
        return
    assert command, f"no command {name}"
    if not words:  # the command's name in a sentence
        return
    given = command.make_context(name, words).params
    if name == "run" and not PLACEHOLDER.fullmatch(given["preset"]):
        params.load_preset(given["preset"], given["overrides"], ROOT / "notebooks")
        assert given["until"] is None or stages.stage_named(given["until"]) in stages.STAGE_NAMES


def test_commands_are_found_where_they_are_printed() -> None:
    found = printed()
    assert len(found) > 30 and any("train_contracts=40 slice_contracts=5" in line for line in found)


@pytest.mark.parametrize(
    "line, told",
    [
        ("cuadft run params/smoke.yaml extra", "unexpected extra argument"),
        ("cuadft reviews runs/smoke a.pdf", "no command reviews"),
        ("cuadft status runs/smoke --colour", "No such option"),
        ("cuadft run params/smoke.yaml --set sft_row=3", "did you mean 'sft_rows'"),
        ("cuadft run params/gone.yaml", "No preset params/gone.yaml"),
    ],
)
def test_a_command_that_does_not_run_is_noticed(line: str, told: str) -> None:
    with pytest.raises(Exception, match=told):
        test_every_printed_command_is_one_that_runs(line)


def untrue_commands(lines: list[str]) -> list[str]:
    """Return the lines of make, papermill and Python that name a target or a file that does not exist."""
    targets, untrue = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)), []
    for line in lines:
        words = shlex.split(
            re.sub(r"^([A-Z_]+=\S+ )+|^\.venv/bin/", "", line.replace(" .venv/bin/", " ")), comments=True
        )
        name, *given = words or [""]
        files = [ROOT / word for word in given if re.match(r"(notebooks|params|tests)/", word)]
        if name == "make" and not {word for word in given if not re.match("[A-Z]+=", word)} <= targets:
            untrue.append(line)
        if name in ("papermill", "python") and not (files and all(file.is_file() for file in files)):
            untrue.append(line)
    return untrue


def test_other_printed_commands_name_files_and_targets_that_exist() -> None:
    lines = [line for block in BLOCKS for line in block.splitlines()] + WORDS
    assert untrue_commands(lines) == []
    assert {"make quickstart", "make check", "make test", "make test-faults"} <= set(lines)


@pytest.mark.parametrize(
    "line",
    [
        "make quick  # no such target",
        "CUADFT_CUAD=CUAD_v1.zip make tests",
        "papermill notebooks/07_none.ipynb out.ipynb",
        "HF_HUB_OFFLINE=1 .venv/bin/python -m pytest tests/test_none.py",
        "python benchmarks/evaluation.py",
    ],
)
def test_another_command_that_does_not_run_is_noticed(line: str) -> None:
    assert untrue_commands([line, "make check", "cuadft status runs/quickstart"]) == [line]


@pytest.mark.parametrize(
    "words, expected",
    [
        ("run p --set a=1 b=2", "run p --set a=1 --set b=2"),
        ("run p --set=a=1 b=2 --until x", "run p --set=a=1 --set b=2 --until x"),
        ("run --set a=1 p", "run --set a=1 p"),
        ("run p --set a=1 --run-dir b=2", "run p --set a=1 --run-dir b=2"),
        ("score a=b.csv", "score a=b.csv"),
    ],
)
def test_one_set_takes_several_values(words: str, expected: str) -> None:
    assert cli._one_set_each(words.split()) == expected.split()


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("0*.ipynb")), ids=lambda path: path.stem)
def test_values_that_a_help_text_offers_are_accepted(path: Path) -> None:
    for parameter in params.notebook_parameters(path):
        for word in re.findall(
            r"\b(\d+|inf|none|sample|auto|tiny)\b (?:for|takes|fits|leaves|keeps|tunes|, |or)", parameter.help
        ):
            value = [float(word)] if parameter.type == "list" and word.isdigit() else params.yaml.safe_load(word)
            assert parameter.problem(parameter.accept(value)) is None, (parameter.name, word)
