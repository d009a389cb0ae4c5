"""The loop: run each iteration's notebooks with papermill, skip what is unchanged, resume after a kill.

    done = run("params/smoke.yaml", iterations=2)
    [step["stage"] for step in done["steps"] if step["state"] == "done"]  # what this call ran
    run_stage("runs/smoke", 2, "align")                                   # one stage, for an orchestrator

After a kill, or after the repair of a stage that failed, the same call goes on where the run stopped.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cuadft.core import files, params, progress, runs
from cuadft.core.errors import InputError, StageFailed, redact
from cuadft.core.params import Parameter, declared_parameters, notebook_parameters
from cuadft.core.runs import Iteration
from cuadft.loop import kernel, lineage, stages, trackers
from cuadft.loop.kernel import execute_notebook, lock, stopped_early
from cuadft.loop.manifest import Hashes, Manifest
from cuadft.loop.stages import STAGE_NAMES, STAGES, Stage
from cuadft.loop.status import duration_text
from cuadft.loop.warm import WarmKernels
from cuadft.models import usage

# how the system, SQLite and compiled libraries say that a disk is full
DISK_FULL = ("No space left on device", "Disk quota exceeded", "database or disk is full", "os error 28")
DISK_FULL += ("inline_container.cc", "PytorchStreamWriter failed")  # torch.save's own words


@dataclass(frozen=True)
class _Job:
    """What all stages of one call share.

    run_dir: the run folder as the notebooks see it. declared: each notebook's parameters. values: the values of all
    notebooks' parameters. kernels: where they come from, with the run folder's lock.
    """

    root: Path
    run: Path
    run_dir: str
    notebooks: Path
    declared: Mapping[str, Mapping[str, Parameter]]
    values: Mapping[str, object]
    hashes: Hashes
    kernels: WarmKernels
    log: Callable[[str], object]


def run(
    preset: str | Path,
    *,
    iterations: int = 1,
    run_dir: str | Path | None = None,
    until: str | None = None,
    overrides: Sequence[str] = (),
    log: Callable[[str], object] = print,
) -> dict[str, object]:
    """Run iterations 1 to `iterations` of a preset; return {"run_dir", "steps"}.

    until: the last stage of the last iteration (see `stages.stage_named`). overrides: parameters as NAME=VALUE, which
    come before the preset's. A stage that is done with the same notebook code, parameters and inputs is skipped. A
    stage that lacks answers of an endpoint is incomplete: the loop goes on, and the next call asks for the missing
    answers. A step is {"iteration", "stage", "state": "done" | "skipped" | "incomplete", "reason"}. Raises InputError
    for bad input (before anything runs, where that can be known), StageFailed if a notebook fails.
    """
    if not isinstance(iterations, int) or isinstance(iterations, bool) or iterations < 1:
        raise InputError(f"Invalid number of iterations {iterations!r}: give a whole number from 1.")
    until = until if until is None else stages.stage_named(until)
    with _opened_run(preset, run_dir, overrides, log) as job:
        steps = []
        for number in range(1, iterations + 1):
            steps += _run_iteration(job, number, (until or STAGE_NAMES[-1]) if number == iterations else None)
    return {"run_dir": str(job.run), "steps": steps}


def run_stage(
    run_dir: str | Path,
    iteration: int,
    name: str,
    *,
    preset: str | Path | None = None,
    overrides: Sequence[str] | None = None,
    log: Callable[[str], object] = print,
) -> dict[str, object]:
    """Run one stage of a run as `run` does; return {"run_dir", "steps"}, with the one step.

    preset, overrides: by default those of the last call for this run, which run.json holds. Raises InputError if a
    stage before this one is not done with the same settings, and as `run`.
    """
    name, folder = stages.stage_named(name), runs.resolve_path(run_dir)
    before = files.read_json(folder / "run.json") if (folder / "run.json").is_file() else {}
    if not (chosen := preset or before.get("preset")):
        raise InputError(f"{folder} does not say of which preset it is a run: name one with --preset.")
    given = before.get("overrides", []) if overrides is None else overrides
    with _opened_run(chosen, folder, given, log) as job:
        for number in range(1, iteration):
            _check_done(job, lineage.open_iteration(job.run, number), STAGES)
        opened = lineage.open_iteration(job.run, iteration)
        place, job.kernels.last = STAGE_NAMES.index(name), True
        _check_done(job, opened, STAGES[:place])
        return {"run_dir": str(folder), "steps": [_step(job, opened, Manifest(opened, job.hashes), STAGES[place])]}


@contextmanager
def _opened_run(
    preset: str | Path, run_dir: str | Path | None, overrides: Sequence[str], log: Callable[[str], object]
) -> Iterator[_Job]:
    """Check a preset and its overrides, and hold the lock of the run folder."""
    progress.escape_unprintable()
    root = runs.project_root()
    notebooks = root / "notebooks"
    chosen = params.absolute_paths(params.load_preset(preset, overrides, notebooks))
    trackers.check_trackers(chosen.get("report_to", []))
    defaults = {name: parameter.default for name, parameter in declared_parameters(notebooks).items()}
    by_notebook = {s.notebook: {p.name: p for p in notebook_parameters(notebooks / s.notebook)} for s in STAGES}
    named = chosen.pop("run_dir", root / "runs" / params.preset_file(preset).stem)
    folder = runs.resolve_path(run_dir or named)
    with lock(folder) as held, WarmKernels(held) as warm:
        lineage.describe_run(folder, preset=str(preset), overrides=overrides)
        seen = folder.relative_to(root).as_posix() if folder.is_relative_to(root) else str(folder)
        yield _Job(root, folder, seen, notebooks, by_notebook, defaults | chosen, Hashes(), warm, log)


def _run_iteration(job: _Job, number: int, until: str | None) -> list[dict]:
    iteration = lineage.open_iteration(job.run, number)
    manifest, steps = Manifest(iteration, job.hashes), []
    for stage in STAGES:
        job.kernels.last = stage.name == until
        steps.append(_step(job, iteration, manifest, stage))
        if stage.name == until:
            break
    return steps


def _step(job: _Job, iteration: Iteration, manifest: Manifest, stage: Stage) -> dict:
    state = _run_stage(job, iteration, manifest, stage)
    reason = manifest.stages[stage.name]["error"] if state == "incomplete" else None
    return {"iteration": iteration.number, "stage": stage.name, "state": state, "reason": reason}


def _check_done(job: _Job, iteration: Iteration, needed: Sequence[Stage]) -> None:
    """Raise InputError that names the first stage which is not done, or was done with other settings or inputs."""
    manifest = Manifest(iteration, job.hashes)
    for stage in needed:
        entry, plan = manifest.stages.get(stage.name, {}), _planned(job, iteration, stage)
        # a stage that lacks an endpoint's answers does not hold the loop up, either
        lacks = entry.get("status") == "incomplete" and manifest.resumable(stage, plan.fingerprint)
        if _works(job, iteration, stage) and not (lacks or manifest.unchanged(stage, plan.fingerprint)):
            how = "with this code, these parameters and inputs" if entry.get("status") == "done" else "yet"
            command = f"cuadft stage {shlex.quote(str(job.run))} {iteration.number} {stage.name}"
            raise InputError(
                f"Stage {stage.label} of iteration {iteration.number} is not done {how}: `{command}` first."
            )


def _works(job: _Job, iteration: Iteration, stage: Stage) -> bool:
    """Tell whether a stage has something to do: that of a list of systems has not if the list is empty."""
    return not stage.systems or bool(stage.systems_of(iteration, job.values))


@dataclass(frozen=True)
class _Plan:
    """What a stage is about to run with: all its parameters, those that its notebook is given, and its inputs."""

    parameters: dict[str, object]
    given: dict[str, object]
    inputs: dict[str, str]
    fingerprint: str


def _planned(job: _Job, iteration: Iteration, stage: Stage) -> _Plan:
    set_here = stage.set_by_loop(iteration, job.values, job.run_dir)
    known = job.declared[stage.notebook]
    parameters = {name: value for name, value in (job.values | set_here).items() if name in known}
    inputs = stages.input_hashes(stage, iteration, job.values, hasher=job.hashes, root=job.root)
    fingerprint = stages.stage_fingerprint(job.notebooks / stage.notebook, parameters, inputs)
    given = {name: value for name, value in parameters.items() if name in set_here or value != known[name].default}
    return _Plan(parameters, given, inputs, fingerprint)


def _run_stage(job: _Job, iteration: Iteration, manifest: Manifest, stage: Stage) -> str:
    """Run a stage unless it is unchanged; return its state."""
    title = f"[iter {iteration.number}] {stage.label} ..."
    if not _works(job, iteration, stage):
        manifest.clear(stage, job.values)
        job.log(f"{title} skipped (align_methods is empty)")
        return "skipped"
    plan = _planned(job, iteration, stage)
    if manifest.unchanged(stage, plan.fingerprint):
        job.log(f"{title} skipped (unchanged)")
        return "skipped"
    # answers appended, or checkpoints written, under other settings must not be resumed
    if not manifest.resumable(stage, plan.fingerprint) and (removed := manifest.clear(stage, job.values)):
        job.log(f"{title} removed {removed} files of an earlier run with other code, parameters or inputs")
    job.log(title)
    # JSON has no infinity
    shown = {name: "inf" if value == math.inf else value for name, value in plan.parameters.items()}
    made_by = lineage.made_by(job.notebooks / stage.notebook, plan.parameters)
    manifest.start(stage, plan.fingerprint, {"parameters": shown, "inputs": plan.inputs} | made_by)
    _run_recorded(job, iteration, manifest, stage, plan.given)
    entry = manifest.stages[stage.name]
    why = f": {entry['error']}" if entry["error"] else ""
    job.log(f"{title} {entry['status']} in {duration_text(entry['seconds'])}{why}")
    return entry["status"]


def _run_recorded(job: _Job, iteration: Iteration, manifest: Manifest, stage: Stage, given: dict[str, object]) -> None:
    """Run a stage's notebook and record how it ended."""
    usage.take_note(iteration)  # removes an old note, which a kill or a person's own run of a notebook left
    with kernel.watch_memory(job.kernels) as peak:
        try:
            _run_notebook(job, iteration, stage, given)
        except BaseException as error:
            text = "interrupted" if isinstance(error, KeyboardInterrupt) else redact(str(error))
            with suppress(OSError):  # on a full disk the record stays "running", which counts as interrupted
                manifest.fail(stage, text, peak_memory_mb=peak.mb)
            raise
    note = usage.take_note(iteration)
    noted = {"endpoints": note.get("endpoints", {}), "error": note.get("incomplete") or None}
    made_from = lineage.made_from(manifest.stages[stage.name]["parameters"], job.hashes, job.root)
    manifest.finish(stage, job.values, peak_memory_mb=peak.mb, **made_from, **noted)


def _run_notebook(job: _Job, iteration: Iteration, stage: Stage, parameters: dict[str, object]) -> None:
    """Run a stage's notebook; raises InputError or StageFailed that names the executed copy."""
    from papermill.exceptions import PapermillExecutionError

    source, target = job.notebooks / stage.notebook, iteration.path("executed", f"{stage.name}.ipynb")
    where = f"stage {stage.name} of iteration {iteration.number}, executed notebook: {target}"
    try:
        execute_notebook(source, target, parameters, job.root, job.log, kernels=job.kernels)
        problem = stopped_early(target)
    except PapermillExecutionError as error:
        if error.ename == "InputError":
            raise InputError(f"{error.evalue}\n  ({where})") from error
        problem = f"{error.ename}: {error.evalue}"
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
