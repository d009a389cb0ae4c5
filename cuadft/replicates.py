"""Predictions of several runs of one preset that differ in their seed alone, to be shown in one scoreboard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cuadft import inference, runs
from cuadft.errors import InputError


def read(iteration: runs.Iteration, *, seed: int, others: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the iteration's predictions and those of the same iteration in other runs, each with its `seed`.

    others: run folders. Raises InputError if one has no predictions, was not made by `cuadft run`, repeats a seed, or
    asked other questions, which a scoreboard over seeds would hide.
    """
    rows = [p | {"seed": seed} for p in inference.read_all(iteration.path("predictions"))]
    asked, taken = _asked(rows), {seed: str(iteration.run)}
    for name in others:
        other = runs.Iteration(runs.resolve(name), iteration.number)
        number = seed_of(other)
        if number in taken:
            raise InputError(f"Seed {number} is that of {taken[number]} and of {name}: compare runs with different seeds.")
        taken[number] = name
        more = [p | {"seed": number} for p in inference.read_all(other.path("predictions"))]
        if _asked(more) != asked:
            raise InputError(f"{name} asked other questions than {iteration.run}: give both the same split_seed, contracts, "
                             "dev_rows and test_rows.")
        rows += more
    return rows


def seed_of(iteration: runs.Iteration) -> int:
    """Return the seed that an iteration's manifest holds; raises InputError if there is none."""
    path = iteration.path("manifest.json")
    if not path.is_file():
        raise InputError(f"{path} is missing, so that its seed is not known: make that run with `cuadft run`.")
    for stage in runs.read_json(path).get("stages", {}).values():
        if "seed" in stage.get("parameters", {}):
            return int(stage["parameters"]["seed"])
    raise InputError(f"{path} names no seed: make that run with `cuadft run`.")


def _asked(rows: Sequence[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {(row["split"], row["contract"], row["id"]) for row in rows}
