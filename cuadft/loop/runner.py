"""The loop: run each iteration's notebooks with papermill, skip what is unchanged, resume after a kill.

    done = run("params/smoke.yaml", iterations=2)
    [step["stage"] for step in done["steps"] if step["state"] == "done"]  # what this call ran

After a kill, or after the repair of a stage that failed, the same call goes on where the run stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cuadft.core import params, runs
from cuadft.core.errors import InputError, StageFailed, redact
from cuadft.core.params import Parameter, declared_parameters, notebook_parameters
from cuadft.core.runs import Iteration
from cuadft.loop import kernel, lineage, stages, trackers
from cuadft.loop.kernel import execute_notebook, lock, stopped_early
from cuadft.loop.manifest import Hashes, Manifest
from cuadft.loop.stages import STAGE_NAMES, STAGES, Stage
from cuadft.loop.status import duration_text
from cuadft.models import usage

# how the system, SQLite and compiled libraries say that a disk is full
DISK_FULL = ("No space left on device", "Disk quota exceeded", "database or disk is full", "os error 28")
DISK_FULL += ("inline_container.cc", "PytorchStreamWriter failed")  # torch.save's own words


@dataclass(frozen=True)
class _Job:
    """What all stages of one call share.

    run_dir: the run folder as the notebooks see it. declared: each notebook's parameters. values: the values of all
    notebooks' parameters. hold: the descriptor of the run folder's lock.
    """

    root: Path
    run: Path
    run_dir: str
    notebooks: Path
    declared: Mapping[str, Mapping[str, Parameter]]
    values: Mapping[str, object]
    hashes: Hashes
    hold: int
    log: Callable[[str], object]


def run(
    preset: str | Path,
    *,
    iterations: int = 1,
    run_dir: str | Path | None = None,
    until: str | None = None,
    skip: Sequence[str] = (),
    overrides: Sequence[str] = (),
    log: Callable[[str], object] = print,
) -> dict[str, object]:
    """Run iterations 1 to `iterations` of a preset; return {"run_dir", "steps"}.

    until: the last stage of the last iteration. skip: stages to leave out, whose outputs no later stage of this call
    needs; a later call runs them. overrides: parameters as NAME=VALUE, which come before the preset's.
    A stage that is done with the same notebook code, parameters and inputs is skipped. A stage that lacks answers of an
    endpoint is incomplete: the loop goes on, and the next call asks for the missing answers. A step is {"iteration",
    "stage", "state": "done" | "skipped" | "incomplete", "reason"}. Raises InputError for bad input (before
    anything runs, where that can be known), StageFailed if a notebook fails.
    """
    if not isinstance(iterations, int) or isinstance(iterations, bool) or iterations < 1:
        raise InputError(f"Invalid number of iterations {iterations!r}: give a whole number from 1.")
    check_stages(*skip, *[until] * (until is not None))
    root = runs.project_root()
    notebooks = root / "notebooks"
    chosen = params.absolute_paths(params.load_preset(preset, overrides, notebooks))
    trackers.check_trackers(chosen.get("report_to", []))
    defaults = {name: parameter.default for name, parameter in declared_parameters(notebooks).items()}
    by_notebook = {s.notebook: {p.name: p for p in notebook_parameters(notebooks / s.notebook)} for s in STAGES}
    named = chosen.pop("run_dir", root / "runs" / params.preset_file(preset).stem)
    folder = runs.resolve_path(run_dir or named)
    with lock(folder) as held:
        lineage.describe_run(folder, preset=str(preset))
        seen = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)
        job = _Job(root, folder, seen, notebooks, by_notebook, defaults | chosen, Hashes(folder), held, log)
        steps = []
        for number in range(1, iterations + 1):
            steps += _run_iteration(job, number, until if number == iterations else None, skip)
    return {"run_dir": str(folder), "steps": steps}


def check_stages(*named: str) -> None:
    """Raise InputError on a name that is no stage's."""
    for stage in named:
        if stage not in STAGE_NAMES:
            hint = params.did_you_mean(stage, STAGE_NAMES)
            raise InputError(f"Invalid stage {stage!r}{hint}: choose one of {', '.join(STAGE_NAMES)}.")


def _run_iteration(job: _Job, number: int, until: str | None, skip: Sequence[str]) -> list[dict]:
    iteration = lineage.open_iteration(job.run, number)
    manifest, steps = Manifest(iteration), []
    for stage in STAGES:
        if stage.name not in skip:
            state = _run_stage(job, iteration, manifest, stage)
            job.hashes.save()
            reason = manifest.stages[stage.name]["error"] if state == "incomplete" else None
            steps.append({"iteration": number, "stage": stage.name, "state": state, "reason": reason})
        if stage.name == until:
            break
    return steps


def _run_stage(job: _Job, iteration: Iteration, manifest: Manifest, stage: Stage) -> str:
    """Run a stage unless it is unchanged; return its state."""
    title = f"[iter {iteration.number}] {stage.label} ..."
    if stage.systems and not stage.systems_of(iteration, job.values):
        manifest.clear(stage, job.values)
        job.log(f"{title} skipped (align_methods is empty)")
        return "skipped"
    set_here = stage.set_by_loop(iteration, job.values, job.run_dir)
    known = job.declared[stage.notebook]
    parameters = {name: value for name, value in (job.values | set_here).items() if name in known}
    inputs = stages.input_hashes(stage, iteration, job.values, hasher=job.hashes, root=job.root)
    fingerprint = stages.stage_fingerprint(job.notebooks / stage.notebook, parameters, inputs)
    if manifest.unchanged(stage, fingerprint, job.hashes):
        job.log(f"{title} skipped (unchanged)")
        return "skipped"
    # answers appended, or checkpoints written, under other settings must not be resumed
    if not manifest.resumable(stage, fingerprint) and (removed := manifest.clear(stage, job.values)):
        job.log(f"{title} removed {removed} files of an earlier run with other code, parameters or inputs")
    job.log(title)
    source = job.notebooks / stage.notebook
    made_by = lineage.made_by(source, parameters)
    manifest.start(stage, parameters, fingerprint, inputs, job.hashes, made_by)
    given = {name: value for name, value in parameters.items() if name in set_here or value != known[name].default}
    _run_recorded(job, iteration, manifest, stage, given)
    entry = manifest.stages[stage.name]
    why = f": {entry['error']}" if entry["error"] else ""
    job.log(f"{title} {entry['status']} in {duration_text(entry['seconds'])}{why}")
    return entry["status"]


def _run_recorded(job: _Job, iteration: Iteration, manifest: Manifest, stage: Stage, given: dict[str, object]) -> None:
    """Run a stage's notebook and record how it ended."""
    usage.take_note(iteration)  # removes an old note, which a kill or a person's own run of a notebook left
    with kernel.watch_memory() as peak:
        try:
            _run_notebook(job, iteration, stage, given)
        except BaseException as error:
            text = "interrupted" if isinstance(error, KeyboardInterrupt) else redact(str(error))
            with suppress(OSError):  # on a full disk the record stays "running", which counts as interrupted
                manifest.fail(stage, text, peak_memory_mb=peak.mb)
            raise
    parameters = manifest.stages[stage.name]["parameters"]
    note = usage.take_note(iteration)
    made_from = {
        "weights": lineage.weights_used(parameters, job.hashes),
        "contracts": lineage.contracts_used(parameters, job.hashes, job.root),
    }
    noted = {"endpoints": note.get("endpoints", {}), "error": note.get("incomplete") or None}
    manifest.finish(stage, job.values, job.hashes, peak_memory_mb=peak.mb, **made_from, **noted)


def _run_notebook(job: _Job, iteration: Iteration, stage: Stage, parameters: dict[str, object]) -> None:
    """Run a stage's notebook; raises InputError or StageFailed that names the executed copy."""
    from jupyter_client.kernelspec import NoSuchKernel
    from papermill.exceptions import PapermillExecutionError

    source, target = job.notebooks / stage.notebook, iteration.path("executed", f"{stage.name}.ipynb")
    where = f"stage {stage.name} of iteration {iteration.number}, executed notebook: {target}"
    try:
        execute_notebook(source, target, parameters, job.root, job.log, hold=job.hold)
        problem = stopped_early(target)
    except PapermillExecutionError as error:
        if error.ename == "InputError":
            raise InputError(f"{error.evalue}\n  ({where})") from error
        problem = f"{error.ename}: {error.evalue}"
    except NoSuchKernel as error:
        raise InputError(f"No Jupyter kernel python3: pip install ipykernel\n  ({where})") from error
    except RuntimeError as error:  # nbclient's DeadKernelError, or a kernel that never answered
        problem = f"{type(error).__name__}: {error} (a killed kernel often means: out of memory)"
    if problem and any(sign in problem for sign in DISK_FULL):
        raise InputError(
            f"{problem}\n  ({where})\n  Make room on the disk; the same command then goes on from this stage."
        )
    if problem:
        raise StageFailed(
            f"{problem}\n  ({where})\n"
            f"  The executed copy holds the traceback. To debug, open {source.name} in Jupyter with the\n"
            f"  parameters injected there; after the repair, the same command goes on from this stage."
        )
