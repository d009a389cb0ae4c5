"""The lineage of a run's artefacts: which stage made a file, from which files, back to the contracts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuadft.core import params
from cuadft.core.errors import InputError
from cuadft.core.runs import Iteration
from cuadft.loop.manifest import Manifest
from cuadft.loop.stages import STAGES, Stage

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
