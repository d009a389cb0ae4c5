"""An iteration's results on disk: predictions read, also those of runs with other seeds; tables and figures saved.

predictions, left_out = read_with_seeds(it, seed=7)
save(it, "benchmark", benchmark_figure(board, confidence=0.95))
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.runs import simplicity

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Result = TypeVar("Result", bound="pd.DataFrame | Figure")


def read_with_seeds(
    iteration: runs.Iteration, *, seed: int, others: Sequence[str] = (), systems: Sequence[str] = ()
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return an iteration's predictions, with those of the same iteration in other runs, and what was left out and why.

    others: run folders; each prediction carries its run's `seed`. systems: all if empty. Left out are predictions that
    answer rows which the iteration no longer asks, and a system's split that lacks rows. Raises InputError if another
    run was not made by `cuadft run`, repeats a seed, or asked other questions, which a scoreboard over seeds would hide.
    """
    rows, left_out = _current(iteration, systems)
    rows = [row | {"seed": seed} for row in rows]
    asked, taken = _asked(rows), {seed: str(iteration.run)}
    for name in others:
        other = runs.Iteration(runs.resolve_path(name), iteration.number)
        number = run_seed(other)
        if number in taken:
            raise InputError(
                f"Seed {number} is that of {taken[number]} and of {name}: compare runs with different seeds."
            )
        taken[number] = name
        more, also_left_out = _current(other, systems)
        if _asked(more) != asked:
            raise InputError(
                f"{name} asked other questions than {iteration.run}: give both the same split_seed, "
                "contracts, dev_rows and test_rows."
            )
        rows += [row | {"seed": number} for row in more]
        left_out += [f"{name}: {line}" for line in also_left_out]
    return rows, left_out


def _current(iteration: runs.Iteration, systems: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the predictions of complete systems for the rows asked now; without data files there is nothing to check."""
    found, left_out = read_all_predictions(iteration.path("predictions"), systems), []
    kept: list[dict[str, Any]] = []
    for (system, split), own in _grouped(found).items():
        path = iteration.path("data", f"{split}.jsonl")
        asked = {row["id"]: row for row in files.read_jsonl(path)} if path.is_file() else None
        current = own if asked is None else [p for p in own if p["id"] in asked and same_row(p, asked[p["id"]])]
        if asked is None or len(current) == len(asked):
            kept += current
            continue
        left_out.append(
            f"{system} on {split} is left out: it answers {len(current)} of the {len(asked)} rows asked now. Run "
            f"03_batch_inference with systems including '{system}'."
        )
    return kept, left_out


def _grouped(rows: Sequence[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["system"], row["split"]), []).append(row)
    return groups


def run_seed(iteration: runs.Iteration) -> int:
    """Return the seed that an iteration's manifest holds; raises InputError if there is none."""
    path = iteration.path("manifest.json")
    if not path.is_file():
        raise InputError(f"{path} is missing, so that its seed is not known: make that run with `cuadft run`.")
    for stage in files.read_json(path).get("stages", {}).values():
        if "seed" in stage.get("parameters", {}):
            return int(stage["parameters"]["seed"])
    raise InputError(f"{path} names no seed: make that run with `cuadft run`.")


def _asked(rows: Sequence[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {(row["split"], row["contract"], row["id"]) for row in rows}


ASKED = ("contract", "question", "answers", "is_impossible")


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """Return the predictions in a file, the last one of each row; a line torn by a kill is left out."""
    if not Path(path).is_file():
        return []
    return list({p["id"]: p for p in files.read_jsonl(path, torn_ok=True)}.values())


def read_all_predictions(folder: Path, systems: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the predictions of all systems in a folder of `<system>.<split>.jsonl` files, simple systems first."""

    def place(path: Path) -> tuple[tuple[int, str], str]:
        return simplicity(path.name.split(".")[0]), path.name

    wanted = [p for p in Path(folder).glob("*.jsonl") if not systems or p.name.split(".")[0] in systems]
    return [row for path in sorted(wanted, key=place) for row in read_predictions(path)]


def stands(prediction: dict[str, Any], row: dict[str, Any]) -> bool:
    """Tell whether a prediction succeeded and its row has not changed under the same id."""
    return prediction["error"] is None and same_row(prediction, row)


def same_row(prediction: dict[str, Any], row: dict[str, Any]) -> bool:
    """Say whether a prediction answers this very row, which may have changed under its id."""
    return prediction.get("slice") == row.get("slice") and all(prediction[key] == row[key] for key in ASKED)


def save(iteration: runs.Iteration, name: str, result: Result) -> Result:
    """Write a table to metrics/NAME.csv or a figure to figures/NAME.png of the iteration, in one step, and return it."""
    if hasattr(result, "savefig"):
        save_figure(result, iteration.path("figures", f"{name}.png"))
    else:
        files.write_text(iteration.path("metrics", f"{name}.csv"), as_csv(result))
    return result


def as_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV with every text quoted: pandas leaves a lone carriage return bare, which ends a row."""
    return table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG in one step."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    files.write_bytes(path, buffer.getvalue())
