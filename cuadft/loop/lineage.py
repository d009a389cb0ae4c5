"""Where an artefact comes from: what is recorded when a stage runs, and the stages behind each file of a run.

    iteration = open_iteration("runs/quickstart", 1)  # a notebook's first step; writes run.json
    lineage = Lineage(stage_records(iteration))
    [record.label for record in lineage.ancestors(["iter-01/scoreboard.csv"])]  # "[iter 1] 05 evaluate", ...

The file has three parts: the iteration's folder and run.json; what is recorded of a stage (code, packages, machine,
seeds, weights, contracts); and the chain of stages behind an artefact.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from cuadft.core import params, runs
from cuadft.core.errors import InputError
from cuadft.core.files import file_hash, read_json, value_hash, write_json, write_text
from cuadft.core.runs import Iteration
from cuadft.loop.manifest import Manifest
from cuadft.loop.stages import STAGE_NAMES, STAGES, Pattern, Stage, code_cells

PACKAGE = Path(__file__).parent.parent
# Git pathspecs, from the top of the checkout, of what decides the results
CODE_PATHS = (":/cuadft", ":/notebooks", ":/params", ":/pyproject.toml", ":/requirements.lock")
MODEL_PARAMETERS = ("model", "embedder")  # they name weights; empty or missing ones are left out


# The iteration's folder and run.json.


def open_iteration(run_dir: str | Path, iteration: int) -> Iteration:
    """Create the iteration's folders (and run.json); raises InputError if they can't be written."""
    if not isinstance(iteration, int) or isinstance(iteration, bool) or iteration < 1:
        raise InputError(f"Invalid iteration {iteration!r}: give a whole number from 1.")
    if not str(run_dir).strip():
        raise InputError("Invalid run_dir '': give a folder, for example runs/quickstart.")
    opened = Iteration(runs.resolve_path(run_dir), iteration)
    if opened.previous and not opened.previous.dir.is_dir():
        missing = opened.previous.dir
        raise InputError(f"Iteration {iteration} needs {missing}: run iteration {iteration - 1} first.")
    try:
        for name in runs.ITERATION_FOLDERS:
            opened.path(name).mkdir(parents=True, exist_ok=True)
        if not (opened.run / "run.json").exists():
            describe_run(opened.run, preset=None)
        write_text(opened.path(".writable"), "")
        opened.path(".writable").unlink(missing_ok=True)
    except OSError as error:
        raise runs.unwritable(opened.run, error) from error
    return opened


def describe_run(run: Path, *, preset: str | None, overrides: Sequence[str] = ()) -> None:
    """Write run.json: the run's name and creation time, the latest call's preset and overrides, all environments.

    An environment names Python, all installed packages and the machine; stages' records hold its key.
    """
    before = read_json(run / "run.json") if (run / "run.json").exists() else {}
    record = {"name": run.name, "created": before.get("created", runs.history_time()), "preset": preset}
    record["overrides"] = list(overrides)
    environments = before.get("environments", {}) | {environment_key(): environment()}
    write_json(run / "run.json", record | {"environments": environments})


def environment_key() -> str:
    """Return the key of this process's environment in run.json."""
    return value_hash(environment())[:12]


@cache
def environment() -> dict[str, object]:
    """Return this process's {"python", "packages", "machine"}; read once a process.

    packages: name and version of every installed package. machine: {"system", "cores" (how many this process may use),
    "memory_gb" (2^30 bytes)}, without a name or address.
    """
    packages = {one.name.lower().replace("_", "-"): one.version for one in metadata.distributions() if one.name}
    machine = {"system": f"{platform.system()} {platform.machine()}", "cores": len(os.sched_getaffinity(0))}
    machine["memory_gb"] = round(psutil.virtual_memory().total / 2**30, 1)
    return {"python": platform.python_version(), "packages": dict(sorted(packages.items())), "machine": machine}


# What is recorded of a stage.


def made_by(notebook: Path, parameters: Mapping[str, object]) -> dict[str, object]:
    """Return what a stage's record says of its making: notebook, code, seeds, and the key of the environment.

    seeds: the parameters that start a random generator, such as seed and split_seed; those such as absent_seeds, which
    end in an s, count questions to start from.
    """
    seeds = {name: value for name, value in parameters.items() if name == "seed" or name.endswith("_seed")}
    return {
        "notebook": notebook.name,
        "code": code_state() | {"notebook": value_hash(code_cells(notebook))},
        "seeds": seeds,
        "environment": environment_key(),
    }


def code_state() -> dict[str, object]:
    """Return what code runs: {"commit", "dirty", "package"}.

    commit: of the Git checkout that holds the package, None if it is in no checkout. dirty: whether package, notebooks,
    presets or pins differ from that commit; a file that Git does not know counts as a difference; None without a
    commit. package: SHA-256 of the package's Python files, which tells the code apart also when it was dirty.
    """
    shown = None
    if _git("ls-files", "--error-unmatch", "__init__.py") is not None:  # not a repository that merely lies around it
        shown = _git("status", "--porcelain=v2", "--branch", "--", *CODE_PATHS, ":(top,exclude)notebooks/executed")
    lines = (shown or "").splitlines()
    heads = [line.split()[-1] for line in lines if line.startswith("# branch.oid ")]
    commit = heads[0] if heads and heads[0] != "(initial)" else None
    dirty = any(not line.startswith("#") for line in lines) if shown is not None else None
    package = {path.relative_to(PACKAGE).as_posix(): file_hash(path) for path in PACKAGE.rglob("*.py")}
    return {"commit": commit, "dirty": dirty, "package": value_hash(package)}


def _git(*arguments: str) -> str | None:
    """Return what a git command prints in the package's folder, None if it fails or Git is not there."""
    command = ["git", "--no-optional-locks", "-C", str(PACKAGE), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def made_from(parameters: Mapping[str, object], hasher: Callable[[Path], str], root: Path) -> dict[str, dict[str, str]]:
    """Return {"weights", "contracts"}: SHA-256 of the weights, and of what the keywords of the parameter cuad mean.

    `hasher` hashes a file and may remember it, so that a folder of large weights is read once.
    """
    from cuadft.data.contracts import cuad_in_folder, sample_path

    cuad, folder = parameters.get("cuad"), root / str(parameters.get("data_dir") or "data")
    path = sample_path() if cuad == "sample" else cuad_in_folder(folder) if cuad == "auto" else None
    return {"weights": _weights_used(parameters, hasher), "contracts": {path.name: hasher(path)} if path else {}}


def _weights_used(parameters: Mapping[str, object], hasher: Callable[[Path], str]) -> dict[str, str]:
    """Return the SHA-256 of the weights that the parameters name, by the model's id.

    Weights that are not on this disk are left out.
    """
    from cuadft.models import weights

    found = {}
    for name in sorted({str(parameters.get(key) or "") for key in MODEL_PARAMETERS} - {""}):
        local, kept = Path(os.path.expanduser(name)), weights.cache_dir() / "models" / name.replace("/", "--")
        folders = [folder for folder in (local, kept) if (folder / "config.json").is_file()]
        with suppress(InputError):  # a folder without weights: the notebook that needed them has said so
            folder = folders[0] if folders else weights.cached_model(name)
            if folder:
                found[name] = weights.weights_hash(folder, of_file=hasher)
    return found


# The chain of stages behind an artefact.


@dataclass(frozen=True)
class StageRecord:
    """One stage of one iteration with its entry in the manifest (see `Manifest`)."""

    iteration: Iteration
    stage: Stage
    entry: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Return iteration, notebook and stage, for example "[iter 2] 04 fine_tune"."""
        return f"[iter {self.iteration.number}] {self.stage.label}"

    @property
    def order(self) -> tuple[int, int]:
        """Return a sort key: the order in which stages run."""
        return self.iteration.number, STAGE_NAMES.index(self.stage.name)

    @property
    def inputs(self) -> Mapping[str, str]:
        """Return the hash of each file that the stage read, by path from the run folder or by name of a parameter."""
        return self.entry.get("inputs") or {}

    @property
    def outputs(self) -> Mapping[str, str]:
        """Return the hash of each file that the stage wrote, by path from the run folder."""
        return self.entry["outputs"]

    def files(self, patterns: tuple[Pattern, ...]) -> list[str]:
        """Return the files that patterns of the stage name now; [] if the champion before can't be read."""
        known = self.entry.get("parameters", {})
        named = known.get("align_methods", known.get(self.stage.pass_systems, []))
        methods = [name for name in named if name not in self.stage.systems]
        try:
            return self.stage.files(patterns, self.iteration, {"align_methods": methods})
        except InputError:  # the decision before is damaged: it is reported as a changed output of its own stage
            return []


class Lineage:
    """The recorded stages of a run, in the order in which they run, and what each of them made.

    writers: for every recorded output the stages that wrote it; the last of them made the file that lies there now.
    """

    def __init__(self, records: Iterable[StageRecord]):
        self.records = sorted(records, key=lambda record: record.order)
        self.writers: dict[str, list[StageRecord]] = {}
        for record in self.records:
            for name in record.outputs:
                self.writers.setdefault(name, []).append(record)

    def ancestors(self, names: Iterable[str]) -> list[StageRecord]:
        """Return the stages that files depend on, their makers included, the latest first."""
        found, to_visit = {}, [self.writers[name][-1] for name in names]
        while to_visit:
            record = to_visit.pop()
            if record.order not in found:
                found[record.order] = record
                to_visit += [self.writers[name][-1] for name in record.inputs if name in self.writers]
        return [found[order] for order in sorted(found, reverse=True)]


def stage_records(iteration: Iteration) -> list[StageRecord]:
    """Return an iteration's recorded stages; raises InputError if its manifest is damaged."""
    recorded = Manifest(iteration).stages
    return [StageRecord(iteration, stage, recorded[stage.name]) for stage in STAGES if stage.name in recorded]


def resolve_artefact(run: Path, artefact: str, names: Iterable[str]) -> list[str]:
    """Return the files of `names` that an artefact means: a file or a folder, by its path from the run folder or here.

    Raises InputError, with the nearest name, if it is unknown.
    """
    known, top = sorted(names), run.resolve()
    for path in ((run / artefact).resolve(), Path(artefact).resolve()):
        form = path.relative_to(top).as_posix() if path.is_relative_to(top) else ""
        if found := [name for name in known if name == form or name.startswith(f"{form}/")]:
            return found
    folders = {str(parent) for name in known for parent in Path(name).parents}
    hint = params.did_you_mean(artefact, [*known, *folders])
    raise InputError(f"No stage has recorded {artefact!r} in {run}{hint}: give a path such as iter-01/adapters/sft.")
