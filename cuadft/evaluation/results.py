"""Read an iteration's predictions, also those of runs with other seeds, and save its tables and figures.

    predictions, left_out = read_with_seeds(it, seed=7)
    save(it, "benchmark", panels_figure(board, ["quote_f1"]))        # figures/benchmark.png

Predictions lie in `predictions/<system>.<split>.jsonl`, one row of the split with its answer a line.
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.runs import simplicity

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

Result = TypeVar("Result", bound="pd.DataFrame | Figure")
DPI = 150  # of a saved figure
QUESTION_KEYS = ("contract", "question", "answers", "is_impossible")  # what a row asks and expects, besides its id


def read_with_seeds(
    iteration: runs.Iteration, *, seed: int, others: Sequence[str] = (), systems: Sequence[str] = ()
) -> tuple[list[dict[str, Any]], list[str]]:
    """Return an iteration's predictions, with those of the same iteration in other runs, and what was left out and why.

    others: run folders; each prediction carries its run's `seed`. systems: all if empty. Predictions for rows that the
    iteration no longer asks are left out, and so is a system's whole split if it lacks rows. Raises InputError if
    another run was not made by `cuadft run`, repeats a seed, or asked other questions: a scoreboard over seeds would
    hide that.
    """
    rows, left_out = _complete_predictions(iteration, systems)
    rows = [row | {"seed": seed} for row in rows]
    asked, taken = _questions_asked(rows), {seed: str(iteration.run)}
    for name in others:
        other = runs.Iteration(runs.resolve_path(name), iteration.number)
        number = run_seed(other)
        if number in taken:
            raise InputError(f"Seed {number} is that of {taken[number]} and of {name}: give runs with different seeds.")
        taken[number] = name
        more, also_left_out = _complete_predictions(other, systems)
        if _questions_asked(more) != asked:
            raise InputError(f"{name} asked other questions than {iteration.run}: give both the same contracts.")
        rows += [row | {"seed": number} for row in more]
        left_out += [f"{name}: {line}" for line in also_left_out]
    return rows, left_out


def _complete_predictions(iteration: runs.Iteration, systems: Sequence[str]) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the predictions of each system that answered all rows asked now, and a sentence on every other system.

    A split without a data file cannot be checked: all its predictions are returned.
    """
    kept, left_out = [], []
    found = read_all_predictions(iteration.path("predictions"), systems)  # file by file, one system and split in each
    for (system, split), rows in itertools.groupby(found, key=itemgetter("system", "split")):
        own, path = list(rows), iteration.path("data", f"{split}.jsonl")
        if path.is_file():
            asked = {row["id"]: row for row in files.read_jsonl(path)}
            own = [p for p in own if p["id"] in asked and is_answer_to(p, asked[p["id"]])]
            own = [p | {"weight": asked[p["id"]].get("weight", 1.0)} for p in own]  # the weight that the row has now
            if len(own) < len(asked):
                left_out.append(
                    f"{system} on {split} is left out: it answers {len(own)} of the {len(asked)} rows asked now. Run "
                    f"03_batch_inference with systems including '{system}'."
                )
                own = []
        kept += own
    return kept, left_out


def run_seed(iteration: runs.Iteration) -> int:
    """Return the seed that an iteration's manifest holds; raises InputError if there is none."""
    path = iteration.path("manifest.json")
    stages = files.read_json(path).get("stages", {}) if path.is_file() else {}
    for stage in stages.values():
        if "seed" in stage.get("parameters", {}):
            return int(stage["parameters"]["seed"])
    raise InputError(f"{path} names no seed, so that its seed is not known: make that run with `cuadft run`.")


def _questions_asked(rows: Sequence[dict[str, Any]]) -> set[tuple[str, str, str]]:
    return {(row["split"], row["contract"], row["id"]) for row in rows}


def read_predictions(path: Path) -> list[dict[str, Any]]:
    """Return the predictions in a file, the last one of each row; a line torn by a kill is left out."""
    if not Path(path).is_file():
        return []
    return list({p["id"]: p for p in files.read_jsonl(path, torn_ok=True)}.values())


def read_all_predictions(folder: Path, systems: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return the predictions of all systems in a folder of `<system>.<split>.jsonl` files, simple systems first."""
    wanted = [path for path in Path(folder).glob("*.jsonl") if not systems or path.name.split(".")[0] in systems]
    wanted.sort(key=lambda path: (simplicity(path.name.split(".")[0]), path.name))
    return [row for path in wanted for row in read_predictions(path)]


def is_reusable(prediction: dict[str, Any], row: dict[str, Any]) -> bool:
    """Tell whether a prediction succeeded and its row has not changed under the same id."""
    return prediction["error"] is None and is_answer_to(prediction, row)


def is_answer_to(prediction: dict[str, Any], row: dict[str, Any]) -> bool:
    """Tell whether a prediction answers this very row, which may have changed under its id."""
    return prediction.get("slice") == row.get("slice") and all(prediction[key] == row[key] for key in QUESTION_KEYS)


def save(iteration: runs.Iteration, name: str, result: Result) -> Result:
    """Write a table to metrics/NAME.csv or a figure to figures/NAME.png of the iteration, atomically, and return it."""
    if hasattr(result, "savefig"):
        save_figure(iteration.path("figures", f"{name}.png"), result)
    else:
        files.write_text(iteration.path("metrics", f"{name}.csv"), as_csv(result))
    return result


def with_intervals(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table for readers: each measure NAME with its columns NAME_low and NAME_high as one text."""
    shown = table[[name for name in table if not name.endswith(("_low", "_high"))]].copy()
    for name in shown:
        if f"{name}_low" in table:
            ends = table[[name, f"{name}_low", f"{name}_high"]].to_numpy()
            shown[name] = [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, low, high in ends]
    return shown


def as_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV with every text quoted.

    Unquoted, a lone carriage return in a text would end the row: pandas does not quote it by itself.
    """
    return table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)


def save_figure(path: Path, figure: Figure) -> None:
    """Write a figure as PNG, atomically."""
    from cuadft.evaluation.figures.style import as_png

    files.write_bytes(path, as_png(figure, DPI))
