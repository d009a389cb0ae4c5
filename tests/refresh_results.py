"""Keep a finished run's small results in notebooks/results/, and draw the pages' figures from them: `make results`.

    python tests/refresh_results.py runs/quickstart     # keeps results/quickstart/, then draws results/quickstart.png

Scores, differences, the gate's decision, times and the processor are kept; no text of a contract and no answer is.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from benchmarks.parts import parts_table

from cuadft.core.runs import Iteration
from cuadft.evaluation import official_figure, panels_figure
from cuadft.evaluation.figures.style import as_png

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "notebooks" / "results"
TABLES = (
    "scoreboard.csv",
    "metrics/cuad.csv",
    "metrics/deltas.csv",
    "metrics/confidence.csv",
    "metrics/official.csv",
    "metrics/learning_curve.csv",
)
SHOWN = ["quote_f1", "detection_f1"]


def keep(run: Path, results: Path = RESULTS) -> Path:
    """Copy the results of a run's newest evaluated iteration to a folder of the run's name, and return that folder."""
    iteration = max(path.parent for path in run.glob("iter-*/decision.json"))
    folder = results / run.name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in TABLES:
        if (iteration / name).exists():
            shutil.copyfile(iteration / name, folder / Path(name).name)
    decision = json.loads((iteration / "decision.json").read_text())
    if (folder / "official.csv").exists():  # others' figures ask what the language model adds to the classifiers
        number = int(iteration.name.removeprefix("iter-"))
        parts_table(Iteration(run, number), decision["promoted"]["system"]).to_csv(folder / "parts.csv", index=False)
    _write(folder / "decision.json", decision_of(decision))
    _write(folder / "run.json", run_of(run, iteration))
    return folder


def decision_of(decision: dict[str, Any]) -> dict[str, Any]:
    """Return what the gate decided, with each candidate's clauses; their details name contracts and are left out."""
    said = ("clause", "passed", "limit", "value", "low", "high", "n", "n_contracts", "p")
    candidates = [
        {"system": each["system"], "score": each["score"]}
        | {"clauses": [{name: clause[name] for name in said if name in clause} for clause in each["clauses"]]}
        for each in decision["candidates"]
    ]
    kept = {name: decision[name] for name in ("action", "incumbent", "incumbent_score")}
    return kept | {"promoted": decision["promoted"]["system"], "candidates": candidates}


def run_of(run: Path, iteration: Path) -> dict[str, Any]:
    """Return preset, iteration, commit, and seconds and memory of each stage, on which processor."""
    stages = json.loads((iteration / "manifest.json").read_text())["stages"]
    said = json.loads((run / "run.json").read_text())
    last = max(stages.values(), key=lambda stage: stage["started"])
    processor = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "preset": said["preset"],
        "iteration": int(iteration.name.removeprefix("iter-")),
        "commit": last["code"]["commit"],
        "finished": last["started"][:10],
        "processor": processor[1].strip() if processor else "unknown",
        "seconds": {name: stage["seconds"] for name, stage in stages.items()},
        "peak_memory_mb": {name: stage["peak_memory_mb"] for name, stage in stages.items()},
    }


def draw(folder: Path) -> list[Path]:
    """Draw the headline figures of a run's test systems beside the folder of its results, and return their paths.

    A run on CUAD's own test split has a second figure, which sets it beside published results.
    """
    figures = {folder.with_suffix(".png"): panels_figure(pd.read_csv(folder / "scoreboard.csv"), SHOWN)}
    if (folder / "official.csv").exists():
        table = pd.read_csv(folder / "official.csv")
        figures[folder.with_name(f"{folder.name}_published.png")] = official_figure(table)
    for path, figure in figures.items():
        path.write_bytes(as_png(figure, dpi=150))
    return [*figures]


def _write(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        keep(ROOT / name)
    for table in sorted(RESULTS.glob("*/scoreboard.csv")):
        print(*(path.relative_to(ROOT) for path in draw(table.parent)), sep="\n")
