"""Keep the score of every answer in the stream: an iteration's own after those of all iterations before it.

    history = forgetting.collect(frame, it, decision, metric="f1")
    runs.write_text(it.path("metrics", "stream.csv"), history.to_csv(index=False))
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft import runs
from cuadft.champion import BY_HAND, decided, promoted, same
from cuadft.errors import InputError
from cuadft.metrics import METRICS, weights

COLUMNS = ["iteration", "split", "slice", "system", "champion", "contract", "id", "is_impossible", "value", "weight",
           "metric"]  # fmt: skip
SPLITS = ("slices", "test")
BASE, START = "rag", "incumbent"  # what an iteration's new systems are to beat: in iteration 1, and from then on


def collect(frame: pd.DataFrame, iteration: runs.Iteration, decision: Mapping[str, Any] | None, *, metric: str) -> pd.DataFrame:
    """Return this iteration's scores on slices and test set after those of the iteration before (its stream.csv).

    frame: from `metrics.score`, one seed, with a column "slice" for the rows of the split "slices". Columns: iteration,
    split, slice (0: test), system, champion (whether `decision`, if any, leaves this system as champion), contract, id,
    is_impossible, value, weight (`metrics.weights`), metric. A metric that the frame lacks, as of a judge that was
    not asked, is NaN in every row; earlier scores of another metric are left out with a warning. Raises InputError on an
    unknown metric, a row without slice and a row that is there twice.
    """
    if metric not in METRICS:
        raise InputError(f"Invalid metric {metric!r}: choose from {', '.join(METRICS)}.")
    own = frame[frame["split"].isin(SPLITS)]
    own = own if metric in own else own.assign(**{metric: math.nan})
    number = own["slice"] if "slice" in own else pd.Series(math.nan, own.index)
    number = number.where(own["split"] == "slices", 0)
    if number.isna().any():
        raise InputError(f"Row {own['id'][number.isna()].iloc[0]!r} of the split 'slices' has no slice: predict it again "
                         "with the rows of data/slices.jsonl, each of which names its slice.")  # fmt: skip
    if (twice := own.duplicated(["split", "system", "id"])).any():
        raise InputError(f"Row {own['id'][twice].iloc[0]!r} is there twice: pass the rows of one seed.")
    left = champion(iteration, decision)
    rows = pd.DataFrame({"iteration": iteration.number, "slice": number.astype(int), "champion": own["system"] == left,
                         "value": own[metric], "weight": weights(own, metric), "metric": metric}
                        | {name: own[name] for name in ("split", "system", "contract", "id", "is_impossible")})  # fmt: skip
    before = iteration.previous.path("metrics", "stream.csv") if iteration.previous else None
    parts = [_as_chosen(read(before), iteration.previous), rows] if before and before.is_file() else [rows]
    if others := sorted(set(parts[0]["metric"]) - {metric}):
        warnings.warn(f"Earlier scores are {', '.join(others)}, not {metric}: they are left out", stacklevel=2)
        parts[0] = parts[0][parts[0]["metric"] == metric]
    return pd.concat([p[COLUMNS] for p in parts if len(p)] or [rows[COLUMNS]], ignore_index=True)


def read(path: Path) -> pd.DataFrame:
    """Return a stream.csv as it was collected; raises InputError if the file is none."""
    text = {name: str for name in ("split", "system", "contract", "id", "metric")}
    try:
        found = pd.read_csv(path, dtype=text, keep_default_na=False, na_values={"value": [""], "weight": [""]},
                            float_precision="round_trip")  # fmt: skip
        return found.astype({"iteration": int, "slice": int, "champion": bool, "value": float})[COLUMNS]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} is no history of scores ({error}): run that iteration's 05_evaluate again.") from error


def _as_chosen(history: pd.DataFrame, iteration: runs.Iteration) -> pd.DataFrame:
    """Return the history with the iteration's champion marked that was chosen by hand, if one was; none if it is older."""
    if not iteration.path(BY_HAND).is_file():
        return history
    chosen = decided(iteration)
    name = champion(iteration, {"promoted": chosen})
    if name == START and not same(chosen, promoted(iteration)):
        name = None
    own = history["iteration"] == iteration.number
    return history.assign(champion=history["champion"].where(~own, history["system"] == name))


def champion(iteration: runs.Iteration, decision: Mapping[str, Any] | None) -> str | None:
    """Return the name under which this iteration's rows hold the system that its decision leaves as champion."""
    if not decision:
        return None
    place = decision["promoted"]
    made_here = any(str(place.get(part) or "").startswith(f"{iteration.dir.name}/")
                    for part in ("program", "weights", "retriever"))  # fmt: skip
    return place["system"] if made_here or iteration.number == 1 else START
