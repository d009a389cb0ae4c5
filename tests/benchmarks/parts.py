"""What each part of a system gives: the classifiers' sentences alone, the model's own quotes alone, both together.

    python tests/benchmarks/parts.py runs/cuad_official sft     # a table of CUAD's measures on test

No model is asked again. The recorded answers are settled once more, by a calibration that is fitted on what each part
has left of the system's dev answers.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core.runs import Iteration
from cuadft.evaluation import cuad_scores
from cuadft.evaluation.results import read_predictions
from cuadft.rag.confidence import load_confidence
from cuadft.rag.settle import SystemConfidence, quotes_right, settle

PARTS = {"sentences": (True,), "own_quotes": (False,), "both": (True, False)}  # whether the classifiers found a quote


def parts_table(iteration: Iteration, system: str, **resampling: Any) -> pd.DataFrame:
    """Return the measures of each part on test, as `cuad_scores` does, with the part's name as the system."""
    dev, test = (
        read_predictions(iteration.path("predictions", f"{system}.{split}.jsonl")) for split in ("dev", "test")
    )
    confidence = load_confidence(iteration.path("retriever"))
    threshold = confidence.threshold if confidence else 0.5  # as the program takes it
    boards = []
    for name, kinds in PARTS.items():
        left = [_with_quotes(prediction, kinds) for prediction in dev]
        fitted = SystemConfidence.fit(left, [quotes_right(prediction) for prediction in left])
        told = [settle(_with_quotes(prediction, kinds), threshold, fitted) for prediction in test]
        boards.append(cuad_scores(told, **resampling).assign(system=name))
    return pd.concat(boards, ignore_index=True)


def _with_quotes(prediction: Mapping[str, Any], kinds: tuple[bool, ...]) -> dict[str, Any]:
    quotes = prediction.get("quotes") or []
    return dict(prediction) | {"quotes": [quote for quote in quotes if ("found" in quote["evidence"]) in kinds]}


if __name__ == "__main__":
    run, system = sys.argv[1:3]
    newest = max(int(path.parent.name.removeprefix("iter-")) for path in Path(run).glob("iter-*/decision.json"))
    table = parts_table(Iteration(Path(run), newest), system)
    table["shown"] = [f"{r.value:.3f} [{r.low:.3f}, {r.high:.3f}]" for r in table.itertuples()]
    side_by_side = table.pivot(index="measure", columns="system", values="shown")
    print(side_by_side.loc[table["measure"].unique(), [*PARTS]].to_string())
