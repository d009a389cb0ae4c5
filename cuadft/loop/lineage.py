"""Where an artefact comes from: what is recorded of a stage's making, and the stages behind a file of a run.

The record of a stage holds its code, packages, machine, seeds, weights and contracts. From the records of all stages
follows an artefact's chain, for example sft's adapter <- train rows and program <- contracts.
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

from cuadft.core import params
from cuadft.core.errors import InputError
from cuadft.core.files import read_json, value_hash, write_json, write_text
from cuadft.core.params import notebook_cells
from cuadft.core.runs import FOLDERS, Iteration, resolve_path, unwritable
from cuadft.loop.manifest import Manifest
from cuadft.loop.stages import STAGES, Stage

PACKAGE = Path(__file__).parent.parent
CODE = ("cuadft", "notebooks", "params", "pyproject.toml", "requirements.lock", ":!notebooks/executed")  # Git pathspecs
MAIN = (
    "cuadft",
    "torch",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "dspy",
    "sentence-transformers",
    "faiss-cpu",
    "numpy",
    "papermill",
)
MODELS = ("model", "embedder", "reranker")  # parameters that name weights; empty or missing ones are left out


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
        for name in FOLDERS:
            opened.path(name).mkdir(parents=True, exist_ok=True)
        if not (opened.run / "run.json").exists():
            describe_run(opened.run, preset=None)
        write_text(opened.path(".writable"), "")
        opened.path(".writable").unlink(missing_ok=True)
    except OSError as error:
        raise unwritable(opened.run, error) from error
    return opened


def describe_run(run: Path, *, preset: str | None) -> None:
    """Write run.json: name, creation time, preset, versions, commit and machine of the latest call, environments of all.

    A call on an existing run keeps its creation time and its environments.
    """
    before = read_json(run / "run.json") if (run / "run.json").exists() else {}
    created = before.get("created", datetime.now(UTC).isoformat(timespec="seconds"))
    versions, code = main_versions(), code_state()
    record = {
        "name": run.name,
        "created": created,
        "preset": preset,
        "python": versions.pop("python"),
        "versions": versions,
    }
    record |= {"git_commit": code["commit"], "git_dirty": code["dirty"], "machine": this_machine()}
    write_json(run / "run.json", record | {"environments": before.get("environments", {})})


def run_environment(run: Path) -> str:
    """Return the key of this process's environment in run.json, where it is added if it is new.

    An environment is all installed packages, Python and machine: too long for the record of every stage.
    """
    found = this_environment()
    key, record = value_hash(found)[:12], read_json(run / "run.json")
    if key not in record.setdefault("environments", {}):
        record["environments"][key] = found
        write_json(run / "run.json", record)
    return key


def made_by(notebook: Path, parameters: Mapping[str, object]) -> dict[str, object]:
    """Return what is known of a stage before it runs: its notebook, code, main versions and seeds."""
    return {
        "notebook": notebook.name,
        "code": code_state(notebook),
        "versions": main_versions(),
        "seeds": seeds_used(parameters),
    }


def made_from(parameters: Mapping[str, object], hasher: Callable[[Path], str], root: Path) -> dict[str, object]:
    """Return what a stage used from outside the run folder besides the files that its parameters name."""
    return {"weights": weights_used(parameters, hasher), "contracts": contracts_used(parameters, hasher, root)}


def code_state(notebook: Path | None = None) -> dict[str, object]:
    """Return what code runs: {"commit", "dirty", "package", "notebook"}.

    commit: of the Git checkout that holds the package, None if none does; dirty: whether package, notebooks, presets or
    pins differ from that commit (None without one), files that Git does not know included. package, notebook: SHA-256
    of the package's Python files and of the notebook's code cells, which name the code also when it was dirty.
    """
    commit, dirty = _git()
    record = {"commit": commit, "dirty": dirty, "package": _package_hash(_package_state())}
    return record if notebook is None else record | {"notebook": notebook_hash(notebook)}


def notebook_hash(notebook: Path) -> str:
    """Return the SHA-256 of a notebook's code cells."""
    sources = ["".join(cell["source"]) for cell in notebook_cells(notebook) if cell.get("cell_type") == "code"]
    return hashlib.sha256("\0".join(sources).encode()).hexdigest()


def main_versions() -> dict[str, str | None]:
    """Return the versions of Python and of the main packages, None for one that is not installed."""
    installed = installed_packages()
    return {"python": platform.python_version()} | {name: installed.get(name) for name in MAIN}


@cache
def installed_packages() -> dict[str, str]:
    """Return name and version of every installed package, sorted; read once a process."""
    found = {one.name.lower().replace("_", "-"): one.version for one in metadata.distributions() if one.name}
    return dict(sorted(found.items()))


def this_environment() -> dict[str, object]:
    """Return all that the results may depend on besides code and data: Python, packages, machine."""
    return {"python": platform.python_version(), "packages": installed_packages(), "machine": this_machine()}


@cache
def this_machine() -> dict[str, object]:
    """Return the machine's {"system", "cpu", "cores", "threads", "memory_gb"}; `cores` are those this process may use.

    threads: OMP_NUM_THREADS, None if it is not set and each library decides for itself. No name or address is kept.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    threads = os.environ.get("OMP_NUM_THREADS", "")
    memory = _field(Path("/proc/meminfo"), "MemTotal")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _field(Path("/proc/cpuinfo"), "model name") or platform.processor() or None,
        "cores": cores,
        "threads": int(threads) if threads.isdecimal() else None,
        "memory_gb": round(int(memory.split()[0]) / 2**20, 1) if memory else None,
    }


def seeds_used(parameters: Mapping[str, object]) -> dict[str, object]:
    """Return the parameters that start a random generator: seed, split_seed, ... (not absent_seeds: these are questions)."""
    return {name: value for name, value in parameters.items() if name == "seed" or name.endswith("_seed")}


def weights_used(parameters: Mapping[str, object], hasher: Callable[[Path], str]) -> dict[str, str]:
    """Return the SHA-256 of the weights that the parameters name, by the model's id; those not on this disk are left out.

    `hasher` hashes a file, and may remember it: a folder of large weights is read once.
    """
    from cuadft.models import weights

    found = {}
    for name in sorted({str(parameters.get(key) or "") for key in MODELS} - {""}):
        local, kept = Path(os.path.expanduser(name)), weights.cache_dir() / "models" / name.replace("/", "--")
        folders = [folder for folder in (local, kept) if (folder / "config.json").is_file()]
        with suppress(InputError):  # without weights; the notebook that needed them has said so
            if folder := folders[0] if folders else weights.cached_model(name, check=False):
                found[name] = weights.weights_hash(folder, of_file=hasher)
    return found


def contracts_used(parameters: Mapping[str, object], hasher: Callable[[Path], str], root: Path) -> dict[str, str]:
    """Return file name and SHA-256 of the contracts behind the keywords "sample" and "auto" of the parameter cuad."""
    from cuadft.data.contracts import in_folder, sample_path

    cuad, folder = parameters.get("cuad"), root / str(parameters.get("data_dir") or "data")
    path = sample_path() if cuad == "sample" else in_folder(folder) if cuad == "auto" else None
    return {path.name: hasher(path)} if path else {}


def _git() -> tuple[str | None, bool | None]:
    top = _checkout()
    shown = _call("-C", top, "status", "--porcelain=v2", "--branch", "--", *CODE) if top else None
    if shown is None:
        return None, None
    heads = [line.split()[-1] for line in shown.splitlines() if line.startswith("# branch.oid ")]
    commit = heads[0] if heads and heads[0] != "(initial)" else None
    return commit, any(not line.startswith("#") for line in shown.splitlines())


@cache
def _checkout() -> str | None:
    """Return the top folder of the checkout that the package belongs to, not of one that merely lies around it."""
    if _call("-C", str(PACKAGE), "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    top = _call("-C", str(PACKAGE), "rev-parse", "--show-toplevel")
    return top.strip() if top else None


def _call(*arguments: str) -> str | None:
    command = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _package_state() -> tuple[tuple[str, int, int], ...]:
    found = [(path.relative_to(PACKAGE).as_posix(), path.stat()) for path in PACKAGE.rglob("*.py")]
    return tuple(sorted((name, stat.st_size, stat.st_mtime_ns) for name, stat in found))


@cache
def _package_hash(state: tuple[tuple[str, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for name, _, _ in state:
        digest.update(name.encode() + b"\0" + hashlib.sha256((PACKAGE / name).read_bytes()).digest())
    return digest.hexdigest()


def _field(path: Path, name: str) -> str | None:
    """Return the value of the first line `name : value` of a file of /proc."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    found = (line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == name)
    return next(found, None)


NAMES = [stage.name for stage in STAGES]


@dataclass(frozen=True)
class Made:
    """One stage of one iteration with its record in the manifest."""

    iteration: Iteration
    stage: Stage
    entry: Mapping[str, Any]

    @property
    def label(self) -> str:
        return f"[iter {self.iteration.number}] {self.stage.label}"

    @property
    def order(self) -> tuple[int, int]:
        return self.iteration.number, NAMES.index(self.stage.name) if self.stage.name in NAMES else len(NAMES)

    @property
    def inputs(self) -> Mapping[str, str]:
        """Return the hash of what the stage read, by path from the run folder or by name of a parameter."""
        return self.entry.get("inputs") or {}

    @property
    def outputs(self) -> Mapping[str, str]:
        """Return the hash of what the stage wrote, by path from the run folder."""
        return self.entry.get("outputs") or {}

    @property
    def done(self) -> bool:
        return self.entry.get("status") == "done"

    def from_outside(self, name: str) -> bool:
        """Tell whether an input lies outside the run folder: "cuad", or "seed_runs FOLDER"."""
        return name.partition(" ")[0] in self.entry.get("parameters", {})

    def files(self, patterns: tuple[str, ...]) -> list[str]:
        """Return the files that patterns of the stage name now; none if the champion before can't be read."""
        known = self.entry.get("parameters", {})
        named = known.get("align_methods", known.get(self.stage.pass_systems, []))
        methods = [name for name in named if name not in self.stage.systems]
        try:
            return self.stage.files(patterns, self.iteration, {"align_methods": methods})
        except InputError:  # a damaged decision, which is a changed output of its stage
            return []


def run_iterations(run: Path) -> list[Iteration]:
    """Return the iterations of a run folder; raises InputError if it holds none."""
    numbers = sorted(int(path.name[5:]) for path in run.glob("iter-*") if path.name[5:].isdigit() and path.is_dir())
    if not numbers:
        raise InputError(f"No run in {run}: start one with `cuadft run PRESET`, or give another folder.")
    return [Iteration(run, number) for number in numbers]


def stage_records(iteration: Iteration) -> list[Made]:
    """Return an iteration's recorded stages in their order; raises InputError if its manifest is damaged."""
    found = Manifest(iteration).stages
    known = {stage.name: stage for stage in STAGES}
    made = [
        Made(iteration, known.get(name, Stage(name, entry.get("notebook", "??"))), entry)
        for name, entry in found.items()
    ]
    return sorted(made, key=lambda one: one.order)


def makers(made: Iterable[Made]) -> dict[str, list[Made]]:
    """Return, for every recorded output, the stages that recorded it; the last one made what lies there."""
    found: dict[str, list[Made]] = {}
    for one in sorted(made, key=lambda one: one.order):
        for name in one.outputs:
            found.setdefault(name, []).append(one)
    return found


def artefacts(made: Iterable[Made]) -> dict[str, Made]:
    """Return the stage behind every file that has a lineage: recorded outputs and executed notebooks."""
    found = {f"{one.iteration.dir.name}/executed/{one.stage.name}.ipynb": one for one in made}
    found = {name: one for name, one in found.items() if (one.iteration.run / name).is_file()}
    return found | {name: makers_[-1] for name, makers_ in makers(made).items()}


def artefact_ancestors(start: Iterable[Made], made: Sequence[Made]) -> list[Made]:
    """Return the stages that start depends on, itself included, the latest first."""
    owner, found, open_ = makers(made), {}, list(start)
    while open_:
        one = open_.pop()
        if one.order not in found:
            found[one.order] = one
            open_ += [owner[name][-1] for name in one.inputs if name in owner]
    return [found[order] for order in sorted(found, reverse=True)]


def resolve_artefact(run: Path, artefact: str, names: Iterable[str]) -> list[str]:
    """Return the files that an artefact means: a file or a folder, from RUN, absolute, or without its iteration.

    Raises InputError, with the nearest name, if there is none, or if several iterations hold it.
    """
    known = sorted(names)
    for form in _forms(run, artefact):
        if found := [name for name in known if name == form or name.startswith(f"{form}/")]:
            return found
    short = artefact.strip("/").removeprefix("./")
    inside = [name for name in known if short and f"{name}/".startswith(f"{name.partition('/')[0]}/{short}/")]
    holders = sorted({name.partition("/")[0] for name in inside})
    if len(holders) == 1:
        return inside
    if holders:
        raise InputError(
            f"{artefact!r} is in several iterations: choose {' or '.join(f'{h}/{short}' for h in holders)}."
        )
    folders = {str(parent) for name in known for parent in Path(name).parents} - {"."}
    bare = {name.partition("/")[2] for name in (*known, *folders)} - {""}
    hint = params.did_you_mean(artefact, [*known, *folders, *bare])
    example = f", for example {known[0]}" if known else ""
    raise InputError(f"No stage has recorded {artefact!r} in {run}{hint}: give a path from that folder{example}.")


def _forms(run: Path, artefact: str) -> list[str]:
    """Return the artefact's path from the run folder, as it may have been given: from there, absolute, or from here."""
    paths, top = [run / artefact, Path.cwd() / artefact], run.resolve()
    return [
        path.resolve().relative_to(top).as_posix()
        for path in paths
        if path.resolve().is_relative_to(top) and path.resolve() != top
    ]
