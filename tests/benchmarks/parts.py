"""What each part of a system gives: the classifiers' sentences alone, the model's own quotes alone, both together.

    python tests/benchmarks/parts.py runs/cuad_official sft     # a table of CUAD's measures on test

No language model is asked again. Sentences are looked up anew, since those that a quote repeats are not recorded; the
recorded answers are settled once more. Each part has a calibration of its own, fitted on dev.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core.runs import Iteration
from cuadft.evaluation import cuad_scores
from cuadft.evaluation.results import read_predictions
from cuadft.rag import ContractQA
from cuadft.rag.settle import SystemConfidence, quotes_right, settle
from cuadft.rag.systems import recorded_system

PARTS = ("sentences", "own_quotes", "both")


def parts_table(iteration: Iteration, system: str, **resampling: Any) -> pd.DataFrame:
    """Return the measures of each part on test, as `cuad_scores` does, with the part's name as the system."""
    program = recorded_system(iteration, system).program
    dev, test = (
        read_predictions(iteration.path("predictions", f"{system}.{split}.jsonl")) for split in ("dev", "test")
    )
    boards = []
    for name in PARTS:
        known, asked = (_part(name, rows, program) for rows in (dev, test))
        fitted = SystemConfidence.fit(known, [quotes_right(prediction) for prediction in known])
        told = [settle(prediction, program.threshold, fitted, program.refusal) for prediction in asked]
        boards.append(cuad_scores(told, **resampling).assign(system=name))
    return pd.concat(boards, ignore_index=True)


def _part(name: str, rows: Sequence[Mapping[str, Any]], program: ContractQA) -> list[dict[str, Any]]:
    """Return the predictions with the quotes of one part, before they are settled."""
    if name == "both":
        return [dict(row) for row in rows]
    if name == "own_quotes":
        own = [[quote for quote in row.get("quotes") or [] if "found" not in quote["evidence"]] for row in rows]
        return [dict(row) | {"quotes": quotes} for row, quotes in zip(rows, own, strict=True)]
    looks = program.look([(row["question"], row["contract"]) for row in rows])
    found = [program.conclude(look, [])["quotes"] for look in looks]
    return [dict(row) | {"quotes": quotes} for row, quotes in zip(rows, found, strict=True)]


if __name__ == "__main__":
    run, system = sys.argv[1:3]
    newest = max(int(path.parent.name.removeprefix("iter-")) for path in Path(run).glob("iter-*/decision.json"))
    table = parts_table(Iteration(Path(run), newest), system)
    table["shown"] = [f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in table.itertuples()]
    side_by_side = table.pivot(index="measure", columns="system", values="shown")
    print(side_by_side.loc[table["measure"].unique(), [*PARTS]].to_string())
