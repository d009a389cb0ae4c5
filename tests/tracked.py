"""A small run folder of decided iterations, as trackers find it."""

import pandas as pd

from cuadft.core import files, runs
from cuadft.loop import trackers

BASE = {"system": "rag", "program": "iter-01/program/rag.json", "weights": None, "retriever": "iter-01/retriever"}


def place(number, system="sft"):
    here = f"iter-{number:02d}"
    return {
        "system": system,
        "program": f"{here}/program/rag.json",
        "weights": f"{here}/adapters/{system}",
        "retriever": f"{here}/retriever",
    }


def board(**scores):
    """Return a scoreboard of one metric on test, given each system's mean."""
    rows = [
        {
            "system": system,
            "split": "test",
            "metric": "f1",
            "value": value,
            "low": value - 0.1,
            "high": value + 0.1,
            "n": 50,
        }
        for system, value in scores.items()
    ]
    return pd.DataFrame(rows)


def decide(run, number, scores, *, promoted=None, kept=BASE, parameters=None):
    """Write an iteration that has decided: `promoted` by its gate, else `kept`; return it."""
    from PIL import Image

    one = runs.Iteration(run, number)
    if not (run / "run.json").is_file():
        files.write_json(run / "run.json", {"name": run.name, "created": "2026-01-01T00:00:00+00:00"})
    settings = {"seed": 7, "align_methods": ["dpo"], "run_dir": "runs/x", "iteration": number} | (parameters or {})
    stages = {
        "fine_tune": {
            "status": "done",
            "outputs": {},
            "parameters": settings,
            "code": {"commit": "abc", "dirty": False},
        }
    }
    files.write_json(one.path("manifest.json"), {"iteration": number, "stages": stages})
    files.write_text(one.path("scoreboard.csv"), board(**scores).to_csv(index=False))
    decision = {
        "incumbent": "incumbent" if number > 1 else "rag",
        "promoted": promoted or kept,
        "reason": "promoted: a clear gain" if promoted else "kept: no gain",
    }
    files.write_json(one.path("decision.json"), decision)
    one.path("figures").mkdir(exist_ok=True)
    Image.new("RGB", (4, 3), (200, 30, number)).save(one.path("figures", "benchmark.png"))
    for part in ("program", "weights", "retriever"):
        if promoted and promoted.get(part):
            target = run / decision["promoted"][part]
            files.write_text(target if target.suffix else target / "weights.txt", f"{part} of {number}")
    return one


def report(one, *names):
    """Report an iteration from its folder, as notebook 05 does."""
    return trackers.report_to_trackers(one, names)
