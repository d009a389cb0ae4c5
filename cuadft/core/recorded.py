"""What a run folder has recorded: its iterations, their systems and the parameters that they ran with.

iteration = run_iterations(Path("runs/quickstart"))[-1]
recorded_parameters(iteration)["model"]      # "HuggingFaceTB/SmolLM2-135M-Instruct"
check_system(iteration, "sft")               # raises InputError, with the nearest name, if there is no such system
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.params import did_you_mean
from cuadft.core.runs import Iteration


def run_iterations(run: Path) -> list[Iteration]:
    """Return the iterations of a run folder; raises InputError if it holds none."""
    numbers = sorted(int(path.name[5:]) for path in run.glob("iter-*") if path.name[5:].isdigit() and path.is_dir())
    if not numbers:
        raise InputError(f"No run in {run}: start one with `cuadft run PRESET`, or give another folder.")
    return [Iteration(run, number) for number in numbers]


def check_system(iteration: Iteration, name: str, more: Iterable[str] = ()) -> None:
    """Raise InputError unless an iteration has a system: a program, trained weights, a new retriever or one of more."""
    trained = [path.name for path in iteration.path("adapters").glob("[!.]*") if runs.has_weights(path)]
    names = [known for known in runs.PROGRAMS if iteration.path("program", f"{known}.json").is_file()]
    names += ["retriever"] if iteration.previous and names else []
    names += [*sorted(set(trained) - set(runs.NOT_TRAINED)), *more]
    if name not in names:
        hint = did_you_mean(name, names)
        raise InputError(f"'{name}' is no system of {iteration.dir}{hint}: choose one of {', '.join(names)}.")


def manifest_entries(path: Path) -> dict[str, dict]:
    """Return the entries of the stages in a manifest.json, none if there is no such file.

    An entry that is damaged counts as missing, so that its stage runs again. Raises InputError on another file.
    """
    if not path.exists():
        return {}
    try:
        content = files.read_json(path)
    except InputError as error:
        raise InputError(f"{error}\n  Without {path} the iteration's stages run again: you may delete it.") from error
    if not isinstance(content, dict) or not isinstance(content.get("stages"), dict):
        raise InputError(f"{path} is no manifest: delete it to run the iteration again.")
    entries = {name: entry for name, entry in content["stages"].items() if isinstance(entry, dict)}
    return {name: entry for name, entry in entries.items() if isinstance(entry.get("outputs"), dict)}


def recorded_parameters(iteration: Iteration) -> dict[str, object]:
    """Return the parameters of all stages of an iteration that its manifest records."""
    found: dict[str, object] = {}
    for entry in manifest_entries(iteration.path("manifest.json")).values():
        found |= entry.get("parameters") or {}
    return found
