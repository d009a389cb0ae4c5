"""Commands that people copy: each one that is printed in a README, a notebook, a preset or a message can be run."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import typer
from commands import ROOT

from cuadft import cli
from cuadft.core import params
from cuadft.loop import stages

README = (ROOT / "README.md").read_text() + (ROOT / "notebooks" / "README.md").read_text()
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
# RUN, FILE, the value of an f-string, or a preset that `cuadft init` writes (tests/loop/test_start.py runs those)
PLACEHOLDER = re.compile(r"([A-Z]{2,}|x)(/preset\.yaml)?|(mine|library)/preset\.yaml")


def prose() -> list[str]:
    """Return all texts that may print a command in backticks."""
    cells = [cell for path in (ROOT / "notebooks").glob("0*.ipynb") for cell in json.loads(path.read_text())["cells"]]
    paths = [*(ROOT / "cuadft").rglob("*.py"), *(ROOT / "params").glob("*.yaml")]
    code = [re.sub(r"\{[^{}]*\}|\n *#", "x", path.read_text()) for path in paths]
    return [re.sub("```.*?```", "", README, flags=re.DOTALL), *("".join(cell["source"]) for cell in cells), *code]


def printed() -> list[str]:
    """Return every command of cuadft that is printed, with the options that stand alone put after a run."""
    quoted = [" ".join(found.split()) for text in prose() for found in re.findall(r"`([^`]+)`", text)]
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


def test_a_command_that_does_not_run_is_noticed() -> None:
    with pytest.raises(Exception, match="unexpected extra argument"):
        test_every_printed_command_is_one_that_runs("cuadft run params/smoke.yaml extra")


def test_other_printed_commands_name_files_and_targets_that_exist() -> None:
    lines = [line for block in BLOCKS for line in block.splitlines()] + re.findall(r"`([^`\n]+)`", README)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for words in (
        shlex.split(line, comments=True) for line in lines if line.startswith(("make ", "papermill ", "python "))
    ):
        if words[0] == "make":
            assert set(words[1:]) <= targets
        else:
            assert [word for word in words[1:] if re.match(r"(notebooks|params|tests)/", word)]
            assert all((ROOT / w).is_file() for w in words if re.match(r"(notebooks|params|tests)/", w))


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
