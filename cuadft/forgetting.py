"""Tell what training on new contracts did to the answers on earlier ones.

    history = forgetting.collect(frame, it, decision, metric="f1")      # write it to metrics/stream.csv
    forgetting.matrix(history, "champion")
    forgetting.transfer(history, "champion", seed=7)

R[i, j] is the score of iteration i's system on the held-out contracts of slice j. R[i - 1, i], before training on slice
i, is what iteration i's incumbent scored on it ("rag", the base model, in iteration 1): the same rows, the same program.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from cuadft.compare import paired_delta
from cuadft.errors import InputError
from cuadft.metrics import METRICS, WEIGHTS
from cuadft.stats import VALUES, Interval, as_columns, cluster_bootstrap
from cuadft.stream_scores import BASE, START, collect, read

__all__ = ["MEASURES", "before_after", "collect", "matrix", "on_test", "read", "transfer"]
CHAMPION = "champion"
MEASURES = {
    "average": "mean over slices of the last iteration's score, R[T, j]",
    "backward transfer": "mean over earlier slices of R[T, j] - R[j, j]: worse is forgetting",
    "forward transfer": "mean over slices from 2 of R[j-1, j] less the base model's score: what earlier slices taught",
    "forgetting": "mean over earlier slices of the best R[i, j] with i < T less R[T, j]; the best of several leans upwards",
}
NOT_YET = "not defined yet: needs scores on the slices of two iterations (the average: of one)"
_Cells = dict[tuple[int, int, str], pd.DataFrame]  # iteration, slice (0: test set), system -> rows by id


def matrix(history: pd.DataFrame, who: str = CHAMPION) -> pd.DataFrame:
    """Return the mean score of every iteration on every slice that it has met: R, one cell a row.

    who: "champion" (of each iteration), or a system such as "sft". Columns: iteration, slice, when ("after" training on the
    iteration's slice; "before": R[i - 1, i], so iteration is slice - 1, 0 being the base model), system, value, n,
    n_contracts. Raises InputError on a system that never answered.
    """
    cells, systems = _cells(history), _systems(history, who)
    found = [(i, j, "after", name) for (i, j, name) in cells if j and systems.get(i) == name]
    found += [(i - 1, j, "before", name) for (i, j, name) in cells if i == j and name == _start(i)]
    rows = []
    for i, j, when, name in sorted(found):
        part = cells[i + (when == "before"), j, name]
        part = part[part["value"].notna()]
        rows.append({"iteration": i, "slice": j, "when": when, "system": name, "value": part["value"].mean(),
                     "n": int(part["applies"].sum()), "n_contracts": part["contract"].nunique()})  # fmt: skip
    return pd.DataFrame(rows, columns=["iteration", "slice", "when", "system", "value", "n", "n_contracts"])


def transfer(history: pd.DataFrame, who: str = CHAMPION, *, n_resamples: int = 2000, seed: int = 7,
             confidence: float = 0.95) -> pd.DataFrame:
    """Return average score, backward transfer, forward transfer and forgetting (see `MEASURES`), one a row.

    Columns: measure, value, low, high, n (questions), n_contracts, slices (averaged over, each with the same weight), means
    (what it means, or why it is not defined). Differences are paired by question, contracts are resampled whole, and a
    contract that is drawn is drawn for all iterations. The interval of forgetting takes the best iteration as given.
    Source: Lopez-Paz & Ranzato (2017), "Gradient Episodic Memory", section 2; forgetting: Chaudhry et al. (2018),
    "Riemannian Walk for Incremental Learning", section 3.
    """
    cells, systems = _cells(history), _systems(history, who)
    own = {(i, j): part for (i, j, name), part in cells.items() if j and systems.get(i) == name}
    last = max((i for i, _ in own), default=0)
    ended = {j: own[last, j] for i, j in own if i == last}
    past = {j: [own[i, j] for i in range(j, last) if (i, j) in own] for j in ended}
    pairs = {
        "average": [(part, None) for part in ended.values()],
        "backward transfer": [(ended[j], own[j, j]) for j in ended if j < last and (j, j) in own],
        "forward transfer": [(cells[i, j, START], cells[i, j, BASE]) for (i, j, name) in cells
                             if 1 < i == j and name == START and (i, j, BASE) in cells],
        "forgetting": [_lost(past[j], ended[j], history["metric"].iloc[0]) for j in ended if past[j]],
    }  # fmt: skip
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    rows = [{"measure": name} | _mean(pairs[name], signed=name != "average", **settings) for name in MEASURES]
    table = pd.DataFrame(rows, columns=["measure", *VALUES, "slices"])
    return table.assign(means=[MEASURES[m] if n else NOT_YET for m, n in zip(table["measure"], table["slices"])])


def before_after(history: pd.DataFrame, who: str = "sft", *, n_resamples: int = 2000, seed: int = 7,
                 confidence: float = 0.95) -> pd.DataFrame:
    """Return per iteration the score on its new slice before and after training on it, and the paired difference.

    Columns: iteration (= slice), system, before, after, value (after - before over the same questions), low, high, n,
    n_contracts, p. Raises InputError on a system that never answered.
    """
    cells, systems = _cells(history), _systems(history, who)
    rows = []
    for i in sorted(systems):
        old, new = cells.get((i, i, _start(i))), cells.get((i, i, systems[i]))
        if old is None or new is None:
            continue
        old, new = (part.dropna(subset="value").reset_index() for part in (old, new))
        delta = paired_delta(old, new, metric="value", n_resamples=n_resamples, seed=seed, confidence=confidence,
                             allow_partial=True)  # fmt: skip
        means = {"before": old["value"].mean(), "after": new["value"].mean()}
        rows.append({"iteration": i, "system": systems[i]} | means | as_columns(delta))
    return pd.DataFrame(rows, columns=["iteration", "system", "before", "after", *VALUES, "p"])


def on_test(history: pd.DataFrame, who: str = CHAMPION, *, n_resamples: int = 2000, seed: int = 7,
            confidence: float = 0.95) -> pd.DataFrame:
    """Return the score on the frozen test set over iterations: iteration, system, value, low, high, n, n_contracts."""
    cells, systems = _cells(history), _systems(history, who)
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    rows = [{"iteration": i, "system": systems[i]} | _mean([(cells[i, 0, systems[i]], None)], signed=False, **settings)
            for i in sorted(systems) if (i, 0, systems[i]) in cells]  # fmt: skip
    return pd.DataFrame(rows, columns=["iteration", "system", *VALUES])


def _lost(past: Sequence[pd.DataFrame], last: pd.DataFrame, metric: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the two tables whose difference is what was lost since the best of the past."""
    scored = [part for part in past if part["value"].notna().any()] or past[:1]
    if METRICS[metric][1]:
        return max(scored, key=lambda part: part["value"].mean()), last
    return last, min(scored, key=lambda part: part["value"].mean())


def _mean(pairs: Sequence[tuple[pd.DataFrame, pd.DataFrame | None]], *, signed: bool, confidence: float, **settings: Any
          ) -> dict[str, Any]:  # fmt: skip
    """Return the mean over pairs of tables of (first - second), each pair with the same weight, with its interval."""
    parts = []
    for first, second in pairs:
        part = first if second is None else first.assign(value=first["value"] - second["value"].reindex(first.index))
        part = part.dropna(subset="value")
        parts.append(part.assign(each=1 / max(len(part), 1)))
    parts = [part for part in parts if len(part)]
    if not parts:
        return as_columns(Interval(math.nan, math.nan, math.nan, 0, 0)) | {"slices": 0}
    rows = pd.concat(parts)
    share = not signed and bool(rows["value"].between(0, 1).all())
    found = cluster_bootstrap(rows["value"], rows["contract"], weights=rows["each"], share=share, confidence=confidence,
                              **settings)  # fmt: skip
    columns = as_columns(found)
    if signed and found.value and found.low == found.high and 2.0 ** (1 - found.n_clusters) > 1 - confidence:
        columns |= {"low": math.nan, "high": math.nan}  # a few contracts that agree by chance know no spread
    return columns | {"slices": len(parts)}


def _cells(history: pd.DataFrame) -> _Cells:
    keys = ["iteration", "slice", "system"]
    return {key: _linear(part.set_index("id")) for key, part in history.groupby(keys, sort=True)}


def _linear(part: pd.DataFrame) -> pd.DataFrame:
    """Return rows whose plain mean is the metric's: of a metric of counts, the ratio with each row's influence on it.

    So a mean of ratios can be resampled like any mean (linearisation; see `resampling.studentise`).
    """
    weight, value, applies = part["weight"], part["value"], part["value"].notna() & (part["weight"] > 0)
    if len(part) and part["metric"].iloc[0] in WEIGHTS:
        total = weight.where(applies, 0).sum()
        ratio = (weight * value).where(applies, 0).sum() / total if total else math.nan
        value = ratio + (len(part) * weight * (value - ratio) / total if total else 0.0)
        value = value.where(applies, ratio)
    return pd.DataFrame({"contract": part["contract"], "value": value, "applies": applies})


def _systems(history: pd.DataFrame, who: str) -> dict[int, str]:
    """Return the system that `who` is in each iteration."""
    own = history[history["champion"]] if who == CHAMPION else history[history["system"] == who]
    names = sorted({CHAMPION, *history["system"]})
    if who not in names:
        near = difflib.get_close_matches(who, names, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"choose from {', '.join(names)}."
        raise InputError(f"No scores of {who!r} in the stream: {hint}")
    return {int(i): str(name) for i, name in own.groupby("iteration")["system"].first().items()}


def _start(iteration: int) -> str:
    return BASE if iteration == 1 else START
