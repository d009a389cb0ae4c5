"""Where an artefact comes from: code, packages, machine, seeds, weights and contracts behind a stage's record."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path

from cuadft.core.errors import InputError
from cuadft.core.files import read_json, value_hash, write_json, write_text
from cuadft.core.params import notebook_cells
from cuadft.core.runs import FOLDERS, Iteration, resolve_path, unwritable

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
