"""Where an artefact comes from: what is recorded when a stage runs, and the stages behind each file of a run.

    iteration = open_iteration("runs/quickstart", 1)  # a notebook's first step; writes run.json
    records = stage_records(iteration)
    start = artefacts(records)["iter-01/adapters/sft/adapter_model.safetensors"]
    [record.label for record in artefact_ancestors([start], records)]  # "[iter 1] 04 fine_tune", ...

The file has three parts: the iteration's folder and run.json; what is recorded of a stage (code, packages, machine,
seeds, weights, contracts); and the chain of stages behind an artefact.
"""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from cuadft.core import params
from cuadft.core.errors import InputError
from cuadft.core.files import read_json, value_hash, write_json, write_text
from cuadft.core.runs import ITERATION_FOLDERS, Iteration, resolve_path, unwritable
from cuadft.loop.manifest import Manifest
from cuadft.loop.stages import STAGE_NAMES, STAGES, Pattern, Stage, code_cells

PACKAGE = Path(__file__).parent.parent
# Git pathspecs of what decides the results
CODE_PATHS = ("cuadft", "notebooks", "params", "pyproject.toml", "requirements.lock", ":!notebooks/executed")
MAIN_PACKAGES = (
    *("cuadft", "torch", "transformers", "trl", "peft", "accelerate", "dspy", "sentence-transformers", "faiss-cpu"),
    *("numpy", "papermill"),
)
MODEL_PARAMETERS = ("model", "embedder")  # they name weights; empty or missing ones are left out


# The iteration's folder and run.json.


def open_iteration(run_dir: str | Path, iteration: int) -> Iteration:
    """Create the iteration's folders (and run.json); raises InputError if they can't be written."""
    if not isinstance(iteration, int) or isinstance(iteration, bool) or iteration < 1:
        raise InputError(f"Invalid iteration {iteration!r}: give a whole number from 1.")
    if not str(run_dir).strip():
        raise InputError("Invalid run_dir '': give a folder, for example runs/quickstart.")
    opened = Iteration(resolve_path(run_dir), iteration)
    if opened.previous and not opened.previous.dir.is_dir():
        missing = opened.previous.dir
        raise InputError(f"Iteration {iteration} needs {missing}: run iteration {iteration - 1} first.")
    try:
        for name in ITERATION_FOLDERS:
            opened.path(name).mkdir(parents=True, exist_ok=True)
        if not (opened.run / "run.json").exists():
            describe_run(opened.run, preset=None)
        write_text(opened.path(".writable"), "")
        opened.path(".writable").unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(opened.run, error) from error
    return opened


def describe_run(run: Path, *, preset: str | None) -> None:
    """Write run.json: the run's name and creation time, and the latest call's preset, versions, commit and machine.

    A call on an existing run keeps its creation time, and the environments of all calls.
    """
    before = read_json(run / "run.json") if (run / "run.json").exists() else {}
    created = before.get("created", datetime.now(UTC).isoformat(timespec="seconds"))
    versions, code = main_versions(), code_state()
    record = {"name": run.name, "created": created, "preset": preset}
    record |= {"python": versions.pop("python"), "versions": versions}
    record |= {"git_commit": code["commit"], "git_dirty": code["dirty"], "machine": this_machine()}
    write_json(run / "run.json", record | {"environments": before.get("environments", {})})


def run_environment(run: Path) -> str:
    """Return the key of this process's environment in run.json; a new environment is added there.

    An environment names all installed packages, Python and the machine. It is too long for the record of every stage.
    """
    found = {"python": platform.python_version(), "packages": installed_packages(), "machine": this_machine()}
    key, record = value_hash(found)[:12], read_json(run / "run.json")
    if key not in record.setdefault("environments", {}):
        record["environments"][key] = found
        write_json(run / "run.json", record)
    return key


# What is recorded of a stage.


def code_state(notebook: Path | None = None) -> dict[str, object]:
    """Return what code runs: {"commit", "dirty", "package", "notebook"}.

    commit: of the Git checkout that holds the package, None if it is in no checkout. dirty: whether package, notebooks,
    presets or pins differ from that commit; a file that Git does not know counts as a difference; None without a
    commit. package, notebook: SHA-256 of the package's Python files and of the notebook's code cells, which tell the
    code apart also when it was dirty. Without a notebook, that key is left out.
    """
    commit, dirty = _git_state()
    record = {"commit": commit, "dirty": dirty, "package": _package_hash(_package_files())}
    return record if notebook is None else record | {"notebook": notebook_hash(notebook)}


def notebook_hash(notebook: Path) -> str:
    """Return the SHA-256 of a notebook's code cells."""
    return hashlib.sha256("\0".join(code_cells(notebook)).encode()).hexdigest()


def main_versions() -> dict[str, str | None]:
    """Return the versions of Python and of the main packages, None for one that is not installed."""
    installed = installed_packages()
    return {"python": platform.python_version()} | {name: installed.get(name) for name in MAIN_PACKAGES}


@cache
def installed_packages() -> dict[str, str]:
    """Return name and version of every installed package, sorted; read once a process."""
    found = {one.name.lower().replace("_", "-"): one.version for one in metadata.distributions() if one.name}
    return dict(sorted(found.items()))


@cache
def this_machine() -> dict[str, object]:
    """Return the machine's {"system", "cpu", "cores", "threads", "memory_gb"}.

    cores: how many this process may use. threads: OMP_NUM_THREADS, None if it is not set and each library decides for
    itself. memory_gb: in units of 2^30 bytes. No name or address of the machine is kept.
    """
    threads, cpuinfo = os.environ.get("OMP_NUM_THREADS", ""), Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": next(names, "") or platform.processor() or None,
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": int(threads) if threads.isdecimal() else None,
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
    }


def seeds_used(parameters: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters that start a random generator, such as seed and split_seed.

    Parameters such as absent_seeds, which end in an s, count questions to start from and are left out.
    """
    return {name: value for name, value in parameters.items() if name == "seed" or name.endswith("_seed")}


def weights_used(parameters: Mapping[str, object], hasher: Callable[[Path], str]) -> dict[str, str]:
    """Return the SHA-256 of the weights that the parameters name, by the model's id.

    Weights that are not on this disk are left out. `hasher` hashes a file and may remember it, so that a folder of
    large weights is read once.
    """
    from cuadft.models import weights

    found = {}
    for name in sorted({str(parameters.get(key) or "") for key in MODEL_PARAMETERS} - {""}):
        local, kept = Path(os.path.expanduser(name)), weights.cache_dir() / "models" / name.replace("/", "--")
        folders = [folder for folder in (local, kept) if (folder / "config.json").is_file()]
        with suppress(InputError):  # a folder without weights: the notebook that needed them has said so
            folder = folders[0] if folders else weights.cached_model(name, check=False)
            if folder:
                found[name] = weights.weights_hash(folder, of_file=hasher)
    return found


def contracts_used(parameters: Mapping[str, object], hasher: Callable[[Path], str], root: Path) -> dict[str, str]:
    """Return file name and SHA-256 of the contracts behind the keywords "sample" and "auto" of the parameter cuad."""
    from cuadft.data.contracts import cuad_in_folder, sample_path

    cuad, folder = parameters.get("cuad"), root / str(parameters.get("data_dir") or "data")
    path = sample_path() if cuad == "sample" else cuad_in_folder(folder) if cuad == "auto" else None
    return {path.name: hasher(path)} if path else {}


def _git_state() -> tuple[str | None, bool | None]:
    """Return the checkout's commit, and whether the code differs from it."""
    top = _checkout()
    shown = _git("-C", top, "status", "--porcelain=v2", "--branch", "--", *CODE_PATHS) if top else None
    if shown is None:
        return None, None
    heads = [line.split()[-1] for line in shown.splitlines() if line.startswith("# branch.oid ")]
    commit = heads[0] if heads and heads[0] != "(initial)" else None
    return commit, any(not line.startswith("#") for line in shown.splitlines())


@cache
def _checkout() -> str | None:
    """Return the top folder of the Git checkout that the package belongs to.

    A repository that merely lies around an installed package, and does not hold its files, is not meant.
    """
    if _git("-C", str(PACKAGE), "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    top = _git("-C", str(PACKAGE), "rev-parse", "--show-toplevel")
    return top.strip() if top else None


def _git(*arguments: str) -> str | None:
    """Return what a git command prints, None if it fails or Git is not there."""
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _package_files() -> tuple[tuple[str, int, int], ...]:
    """Return path, size and time of each Python file of the package; a change of any file changes the result."""
    found = [(path.relative_to(PACKAGE).as_posix(), path.stat()) for path in PACKAGE.rglob("*.py")]
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in found))


@cache
def _package_hash(listed: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _, _ in listed:
        digest.update(name.encode() + b"\0" + hashlib.sha256((PACKAGE / name).read_bytes()).digest())
    return digest.hexdigest()


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
        """Return a sort key: the order in which stages run; a stage of another version comes last."""
        known = self.stage.name in STAGE_NAMES
        return self.iteration.number, STAGE_NAMES.index(self.stage.name) if known else len(STAGE_NAMES)

    @property
    def inputs(self) -> Mapping[str, str]:
        """Return the hash of each file that the stage read, by path from the run folder or by name of a parameter."""
        return self.entry.get("inputs") or {}

    @property
    def outputs(self) -> Mapping[str, str]:
        """Return the hash of each file that the stage wrote, by path from the run folder."""
        return self.entry.get("outputs") or {}

    @property
    def done(self) -> bool:
        """Tell whether the stage has finished."""
        return self.entry.get("status") == "done"

    def from_outside(self, name: str) -> bool:
        """Tell whether an input lies outside the run folder: "cuad", or "seed_runs FOLDER"."""
        return name.partition(" ")[0] in self.entry.get("parameters", {})

    def files(self, patterns: tuple[Pattern, ...]) -> list[str]:
        """Return the files that patterns of the stage name now; [] if the champion before can't be read."""
        known = self.entry.get("parameters", {})
        named = known.get("align_methods", known.get(self.stage.pass_systems, []))
        methods = [name for name in named if name not in self.stage.systems]
        try:
            return self.stage.files(patterns, self.iteration, {"align_methods": methods})
        except InputError:  # the decision before is damaged: it is reported as a changed output of its own stage
            return []


def run_iterations(run: Path) -> list[Iteration]:
    """Return the iterations of a run folder; raises InputError if it holds none."""
    numbers = sorted(int(path.name[5:]) for path in run.glob("iter-*") if path.name[5:].isdigit() and path.is_dir())
    if not numbers:
        raise InputError(f"No run in {run}: start one with `cuadft run PRESET`, or give another folder.")
    return [Iteration(run, number) for number in numbers]


def stage_records(iteration: Iteration) -> list[StageRecord]:
    """Return an iteration's recorded stages in their order; raises InputError if its manifest is damaged."""
    known = {stage.name: stage for stage in STAGES}
    records = []
    for name, entry in Manifest(iteration).stages.items():
        stage = known.get(name, Stage(name, entry.get("notebook", "??")))
        records.append(StageRecord(iteration, stage, entry))
    return sorted(records, key=lambda record: record.order)


def writers(records: Iterable[StageRecord]) -> dict[str, list[StageRecord]]:
    """Return, for every recorded output, the stages that wrote it, in their order.

    The last of them made the file that lies there now.
    """
    found: dict[str, list[StageRecord]] = {}
    for record in sorted(records, key=lambda record: record.order):
        for name in record.outputs:
            found.setdefault(name, []).append(record)
    return found


def artefacts(records: Iterable[StageRecord]) -> dict[str, StageRecord]:
    """Return the stage behind every file that has a lineage: recorded outputs and executed notebooks."""
    records = list(records)
    executed = {f"{one.iteration.dir.name}/executed/{one.stage.name}.ipynb": one for one in records}
    present = {name: one for name, one in executed.items() if (one.iteration.run / name).is_file()}
    return present | {name: wrote[-1] for name, wrote in writers(records).items()}


def artefact_ancestors(start: Iterable[StageRecord], records: Sequence[StageRecord]) -> list[StageRecord]:
    """Return the stages that `start` depends on, itself included, the latest first."""
    written_by, found, to_visit = writers(records), {}, list(start)
    while to_visit:
        record = to_visit.pop()
        if record.order not in found:
            found[record.order] = record
            to_visit += [written_by[name][-1] for name in record.inputs if name in written_by]
    return [found[order] for order in sorted(found, reverse=True)]


def resolve_artefact(run: Path, artefact: str, names: Iterable[str]) -> list[str]:
    """Return the files of `names` that an artefact means.

    artefact: a file or a folder; its path from the run folder, an absolute path, or a path without its iteration, such
    as "scoreboard.csv". Raises InputError, with the nearest name, if it is unknown, or if several iterations hold it.
    """
    known = sorted(names)
    for form in _paths_from_run(run, artefact):
        if found := [name for name in known if name == form or name.startswith(f"{form}/")]:
            return found
    short = artefact.strip("/").removeprefix("./")
    inside = [name for name in known if short and f"{name}/".startswith(f"{name.partition('/')[0]}/{short}/")]
    iterations = sorted({name.partition("/")[0] for name in inside})
    if len(iterations) == 1:
        return inside
    if iterations:
        choices = " or ".join(f"{iteration}/{short}" for iteration in iterations)
        raise InputError(f"{artefact!r} is in several iterations: choose {choices}.")
    folders = {str(parent) for name in known for parent in Path(name).parents} - {"."}
    bare = {name.partition("/")[2] for name in (*known, *folders)} - {""}
    hint = params.did_you_mean(artefact, [*known, *folders, *bare])
    example = f", for example {known[0]}" if known else ""
    raise InputError(f"No stage has recorded {artefact!r} in {run}{hint}: give a path from that folder{example}.")


def _paths_from_run(run: Path, artefact: str) -> list[str]:
    """Return the paths from the run folder that an artefact can mean: it may be given from there or from here."""
    top = run.resolve()
    paths = [path.resolve() for path in (run / artefact, Path.cwd() / artefact)]
    return [path.relative_to(top).as_posix() for path in paths if path.is_relative_to(top) and path != top]
