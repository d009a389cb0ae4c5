"""Decide, on dev contracts, whether the best new system replaces the one that the iteration started from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from cuadft import runs
from cuadft.compare import paired_delta
from cuadft.errors import InputError
from cuadft.metrics import weights
from cuadft.stats import as_columns
from cuadft.systems import PROGRAMS, promoted


def decide(frame: pd.DataFrame, iteration: runs.Iteration, *, metric: str = "f1", tuned_program: str = "rag",
           confidence: float = 0.95, n_resamples: int = 2000, seed: int = 7) -> dict[str, Any]:
    """Return the decision {"incumbent", "candidate", "promoted", "delta", "reason"} on the dev split.

    The candidate is the system with the best mean; it is promoted if the paired interval of its difference to the
    incumbent lies above zero. `promoted` holds the system's name and its program and weights relative to the run.
    """
    dev = frame[frame["split"] == "dev"]
    means = _means(dev, metric)
    incumbent = "incumbent" if iteration.previous else "rag"
    if incumbent not in means:
        raise InputError(f"There are no dev predictions of '{incumbent}', which the others must beat: run 03_batch_inference "
                         f"with systems including '{incumbent}' and splits including 'dev'.")
    rivals = means.drop(incumbent).dropna()  # a metric may apply to no row of a system
    if rivals.empty:
        return {"incumbent": incumbent, "candidate": None, "promoted": _place(iteration, incumbent, tuned_program),
                "delta": None, "reason": f"kept: there is no other system with {metric} on dev"}
    best = str(rivals.idxmax())
    delta = paired_delta(dev[dev["system"] == incumbent], dev[dev["system"] == best], metric=metric, seed=seed,
                         n_resamples=n_resamples, confidence=confidence)
    better = bool(delta.low > 0)
    reason = (f"{'promoted' if better else 'kept'}: {best} against {incumbent} on dev: {delta.value:+.3f} {metric}, "
              f"{confidence:.0%} interval [{delta.low:+.3f}, {delta.high:+.3f}]")
    place = _place(iteration, best if better else incumbent, tuned_program)
    return {"incumbent": incumbent, "candidate": best, "promoted": place, "delta": as_columns(delta), "reason": reason}


def comparisons(systems: Sequence[str]) -> list[tuple[str, str]]:
    """Return the (baseline, system) pairs worth a paired test: each against rag, and each aligned one against sft."""
    base = "rag" if "rag" in systems else next(iter(systems), None)
    pairs = [(base, s) for s in systems if s != base]
    more = [("sft", s) for s in systems if "sft" in systems and s not in (*PROGRAMS, "incumbent", "sft", base)]
    return list(dict.fromkeys(pairs + more))  # without rag, sft is the base already


def _means(frame: pd.DataFrame, metric: str) -> pd.Series:
    weight = pd.Series(weights(frame, metric), frame.index).where(frame[metric].notna(), 0)
    sums = pd.DataFrame({"top": frame[metric].fillna(0) * weight, "bottom": weight}).groupby(frame["system"]).sum()
    return sums["top"] / sums["bottom"].where(sums["bottom"] > 0)


def _place(iteration: runs.Iteration, system: str, tuned_program: str) -> dict[str, str | None]:
    if system == "incumbent":
        return promoted(iteration)
    here = iteration.dir.name
    used = system if system in PROGRAMS else tuned_program
    weights = None if system in PROGRAMS else f"{here}/adapters/{system}"
    return {"system": system, "program": f"{here}/program/{used}.json", "weights": weights}
