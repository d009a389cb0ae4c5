"""Tell what training on new contracts did to the answers on earlier ones: forgetting and transfer in the stream.

    history = collect_stream_scores(frame, it, decision, metric="quote_f1")      # write it to metrics/stream.csv
    slice_matrix(history, "champion")
    slice_transfer(history, "champion", seed=7)

The history holds the score of every answer in the stream: those of all earlier iterations, then this iteration's own.

R[i, j] is the score of iteration i's system on the held-out contracts of slice j. R[i - 1, i], before training on slice
i, is what iteration i's incumbent scored on it, with the same rows and the same program. In iteration 1 it is the score
of "rag", the base model. Every function with intervals takes n_resamples, seed and confidence, as in `bootstrap`.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core import runs
from cuadft.core.errors import InputError
from cuadft.core.runs import BY_HAND, incoming_champion, outgoing_champion, same_champion
from cuadft.evaluation.bootstrap import INTERVAL_COLUMNS, Interval, as_columns, cluster_bootstrap
from cuadft.evaluation.compare import paired_delta
from cuadft.evaluation.constants import settle
from cuadft.evaluation.metrics import WEIGHT_COLUMNS, metric_weights

CHAMPION = "champion"  # stands for the system that is champion after each iteration
BASE, INCUMBENT = "rag", "incumbent"  # what an iteration's new systems are to beat: in iteration 1, and from then on
STREAM_SPLITS = ("slices", "test")
HISTORY_COLUMNS = "iteration split slice system champion contract id is_impossible value weight metric".split()
MATRIX_COLUMNS = "iteration slice when system value n n_contracts".split()
_Cells = dict[tuple[int, int, str], pd.DataFrame]  # iteration, slice (0: test set), system -> rows by id


def collect_stream_scores(
    frame: pd.DataFrame, iteration: runs.Iteration, decision: Mapping[str, Any] | None, *, metric: str
) -> pd.DataFrame:
    """Return this iteration's scores on slices and test set after those of the iteration before (its stream.csv).

    frame: from `score_predictions`, one seed, with a column "slice" for the rows of the split "slices". Columns:
    iteration, split, slice (0: test), system, champion (whether `decision`, if any, leaves this system as champion),
    contract, id, is_impossible, value, weight (`metric_weights`), metric. A metric that the frame lacks, for example
    that of a judge who was not asked, is NaN in every row. Earlier scores of another metric are left out with a
    warning.
    """
    own = frame[frame["split"].isin(STREAM_SPLITS)]
    own = own if metric in own else own.assign(**{metric: math.nan})
    rows = own.assign(
        iteration=iteration.number,
        slice=own["slice"].where(own["split"] == "slices", 0).astype(int),
        champion=own["system"] == champion_system(iteration, decision),
        metric=metric,
        value=own[metric],
        weight=metric_weights(own, metric),
    )
    return pd.concat([*_earlier_scores(iteration, metric), rows[HISTORY_COLUMNS]], ignore_index=True)


def _earlier_scores(iteration: runs.Iteration, metric: str) -> list[pd.DataFrame]:
    """Return the history of the iteration before, rows of this metric only; nothing if there is none."""
    path = iteration.previous.path("metrics", "stream.csv") if iteration.previous else None
    if path is None or not path.is_file():
        return []
    history = _with_choice_by_hand(read_stream_scores(path), iteration.previous)
    if others := sorted(set(history["metric"]) - {metric}):
        warnings.warn(f"Earlier scores are {', '.join(others)}, not {metric}: they are left out", stacklevel=3)
    history = history[history["metric"] == metric]
    return [history] if len(history) else []


def read_stream_scores(path: Path) -> pd.DataFrame:
    """Return a stream.csv as it was collected; raises InputError if the file does not hold a history of scores."""
    text = {name: str for name in ("split", "system", "contract", "id", "metric")}
    blank = {"value": [""], "weight": [""]}
    try:
        found = pd.read_csv(path, dtype=text, keep_default_na=False, na_values=blank, float_precision="round_trip")
        return found.astype({"iteration": int, "slice": int, "champion": bool, "value": float})[HISTORY_COLUMNS]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} does not hold a history of scores ({error}): run that iteration's 05_evaluate again."
        ) from error


def _with_choice_by_hand(history: pd.DataFrame, iteration: runs.Iteration) -> pd.DataFrame:
    """Return the history with the champion marked that was chosen by hand in this iteration, if one was.

    If an older champion was chosen, no system of this iteration is marked.
    """
    if not iteration.path(BY_HAND).is_file():
        return history
    chosen = outgoing_champion(iteration)
    name = champion_system(iteration, {"promoted": chosen})
    if name == INCUMBENT and not same_champion(chosen, incoming_champion(iteration)):
        name = None
    own = history["iteration"] == iteration.number
    return history.assign(champion=history["champion"].where(~own, history["system"] == name))


def champion_system(iteration: runs.Iteration, decision: Mapping[str, Any] | None) -> str | None:
    """Return the name under which this iteration's rows hold the champion that its decision leaves.

    It is the system's own name if the iteration made it, else "incumbent"; None without a decision.
    """
    if not decision:
        return None
    place = decision["promoted"]
    parts = [str(place.get(part) or "") for part in ("program", "weights", "retriever")]
    made_here = any(part.startswith(f"{iteration.dir.name}/") for part in parts)
    return place["system"] if made_here or iteration.number == 1 else INCUMBENT


def slice_matrix(history: pd.DataFrame, who: str = CHAMPION) -> pd.DataFrame:
    """Return the mean score of every iteration on every slice that it has met: R, one cell a row.

    who: "champion" (of each iteration), or a system such as "sft". Columns: iteration, slice, when, system, value, n,
    n_contracts. when is "after" training on the iteration's slice, or "before", for R[i - 1, i]: there iteration is
    slice - 1, and 0 is the base model. Raises InputError on a system that never answered.
    """
    cells, systems = _score_cells(history), _system_by_iteration(history, who)
    rows = []
    for (i, j, name), part in cells.items():
        places = [(i, j, "after")] if j and systems.get(i) == name else []
        places += [(i - 1, j, "before")] if i == j and name == _before(i) else []
        part = part[part["value"].notna()]
        found = name, part["value"].mean(), int(part["applies"].sum()), part["contract"].nunique()
        rows += [(*place, *found) for place in places]
    return pd.DataFrame(sorted(rows), columns=MATRIX_COLUMNS)


def slice_transfer(history: pd.DataFrame, who: str = CHAMPION, **resampling: Any) -> pd.DataFrame:
    """Return average score, backward transfer and forward transfer, one a row.

    With T the last iteration: the average is the mean over slices of R[T, j]; backward transfer the mean over earlier
    slices of R[T, j] - R[j, j], worse is forgetting; forward transfer the mean over slices from 2 of R[j - 1, j] less
    the base model's score, what earlier slices taught. Columns: measure, value, low, high, n (questions), n_contracts,
    slices (averaged over, each with the same weight; 0: not defined yet). Differences are paired by question. Contracts
    are resampled whole, and a contract that is drawn is drawn for all iterations. Source: Lopez-Paz & Ranzato (2017),
    "Gradient Episodic Memory", section 2.
    """
    cells, systems = _score_cells(history), _system_by_iteration(history, who)
    own = {(i, j): part for (i, j, name), part in cells.items() if j and systems.get(i) == name}
    last = max((i for i, _ in own), default=0)
    ended = {j: own[last, j] for i, j in own if i == last}
    new = [i for i, j, name in cells if 1 < i == j and name == INCUMBENT and (i, j, BASE) in cells]
    pairs = {
        "average": [(part, None) for part in ended.values()],
        "backward transfer": [(ended[j], own[j, j]) for j in ended if j < last and (j, j) in own],
        "forward transfer": [(cells[i, i, INCUMBENT], cells[i, i, BASE]) for i in new],
    }
    rows = [
        {"measure": name} | _slice_mean(own_pairs, signed=name != "average", **resampling)
        for name, own_pairs in pairs.items()
    ]
    return pd.DataFrame(rows, columns=["measure", *INTERVAL_COLUMNS, "slices"])


def slice_before_after(history: pd.DataFrame, who: str = "sft", **resampling: Any) -> pd.DataFrame:
    """Return per iteration the score on its new slice before and after training on it, and the paired difference.

    Columns: iteration (= slice), system, before, after, value (after - before over the same questions), low, high, n,
    n_contracts, p. Raises InputError on a system that never answered.
    """
    cells, systems = _score_cells(history), _system_by_iteration(history, who)
    rows = []
    for i in sorted(systems):
        old, new = cells.get((i, i, _before(i))), cells.get((i, i, systems[i]))
        if old is None or new is None:
            continue
        old, new = (part.dropna(subset="value").reset_index() for part in (old, new))
        delta = paired_delta(old, new, metric="value", allow_partial=True, **resampling)
        means = {"before": old["value"].mean(), "after": new["value"].mean()}
        rows.append({"iteration": i, "system": systems[i]} | means | as_columns(delta))
    return pd.DataFrame(rows, columns=["iteration", "system", "before", "after", *INTERVAL_COLUMNS, "p"])


def scores_on_test_set(history: pd.DataFrame, who: str = CHAMPION, **resampling: Any) -> pd.DataFrame:
    """Return the score on the frozen test set over iterations: iteration, system, value, low, high, n, n_contracts."""
    cells, systems = _score_cells(history), _system_by_iteration(history, who)
    rows = []
    for i, system in sorted(systems.items()):
        if (i, 0, system) in cells:
            mean = _slice_mean([(cells[i, 0, system], None)], signed=False, **resampling)
            rows.append({"iteration": i, "system": system, "metric": history["metric"].iloc[0]} | mean)
    table = pd.DataFrame(rows, columns=["iteration", "system", "metric", *INTERVAL_COLUMNS])
    return settle(table).drop(columns="metric")


def _slice_mean(
    pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame | None]], *, signed: bool, **resampling: Any
) -> dict[str, Any]:
    """Return the mean over pairs of tables of (first - second), each pair with the same weight, with its interval.

    A pair is a slice's scores and what they are compared with; without a second table the scores themselves count.
    """
    parts = []
    for first, second in pairs:
        part = first if second is None else first.assign(value=first["value"] - second["value"].reindex(first.index))
        part = part.dropna(subset="value")
        parts.append(part.assign(each=1 / max(len(part), 1)))
    parts = [part for part in parts if len(part)]
    if not parts:
        return as_columns(Interval(math.nan, math.nan, math.nan, 0, 0)) | {"slices": 0}
    rows = pd.concat(parts)
    share = not signed and bool(rows["share"].all())
    found = cluster_bootstrap(rows["value"], rows["contract"], weights=rows["each"], share=share, **resampling)
    columns, alpha = as_columns(found), 1 - resampling.get("confidence", 0.95)
    if signed and found.value and found.low == found.high and 2.0 ** (1 - found.n_clusters) > alpha:
        columns |= {"low": math.nan, "high": math.nan}  # a few contracts may agree by chance: their spread is unknown
    return columns | {"slices": len(parts)}


def _score_cells(history: pd.DataFrame) -> _Cells:
    keys = ["iteration", "slice", "system"]
    return {key: _linearised(part.set_index("id")) for key, part in history.groupby(keys, sort=True)}


def _linearised(part: pd.DataFrame) -> pd.DataFrame:
    """Return rows whose plain mean is the metric's: of a weighted one, the ratio with each row's influence on it.

    So a mean of ratios can be resampled like any mean (linearisation, as in `bootstrap`).
    """
    weight, value, applies = part["weight"], part["value"], part["value"].notna() & (part["weight"] > 0)
    share = bool(value[applies].between(0, 1).all())  # a row's influence on a ratio can lie outside
    if len(part) and (part["metric"].iloc[0] in WEIGHT_COLUMNS or weight[applies].nunique() > 1):
        total = weight.where(applies, 0).sum()
        ratio = (weight * value).where(applies, 0).sum() / total if total else math.nan
        value = ratio + (len(part) * weight * (value - ratio) / total if total else 0.0)
        value = value.where(applies, ratio)
    return pd.DataFrame({"contract": part["contract"], "value": value, "applies": applies, "share": share})


def _system_by_iteration(history: pd.DataFrame, who: str) -> dict[int, str]:
    """Return the system that `who` is in each iteration."""
    own = history[history["champion"]] if who == CHAMPION else history[history["system"] == who]
    if who not in (names := sorted({CHAMPION, *history["system"]})):
        raise InputError(f"No scores of {who!r} in the stream: choose from {', '.join(names)}.")
    return {int(i): str(name) for i, name in own.groupby("iteration")["system"].first().items()}


def _before(iteration: int) -> str:
    """Return the system that answered before the iteration trained: the base model, later the incumbent."""
    return BASE if iteration == 1 else INCUMBENT
