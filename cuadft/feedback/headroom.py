"""What there is to gain on dev questions, before anything trains, and which learning rate gains most of it.

    table = measure_headroom(program, lm, headroom_rows(dev, size=300, seed=7), folder)
    headroom_sentence(table)    # "There is .04 [.02, .06] to gain by choosing the best of 5 sampled answers, ..."

Dev contracts are only measured here: nothing is learned from them. The answers are kept in the folder, so that a stage
that goes on after a kill does not repeat them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from cuadft.core import runs
from cuadft.data.rows import spread_rows
from cuadft.evaluation.bootstrap import cluster_bootstrap
from cuadft.feedback.candidates import draw_answers, gold_score, whole_reply
from cuadft.rag.inference import answer_rows
from cuadft.rag.systems import System, build_systems
from cuadft.training.align import copy_weights

if TYPE_CHECKING:
    import dspy

    from cuadft.rag.program import ContractQA

MOST_ROWS = 300  # dev questions that are asked
WORTH_IT = 0.06  # F1 to gain; a method realises a part of it, and less than a third of this could not be shown
SAMPLES, PASSAGES = f"best of {runs.DRAWS} sampled answers", "best of the passages"


def headroom_rows(rows: Sequence[dict[str, Any]], *, size: int, seed: int) -> list[dict[str, Any]]:
    """Draw up to `size` rows whose clause exists, MOST_ROWS at most, spread over the contracts."""
    return spread_rows([row for row in rows if not row["is_impossible"]], min(size, MOST_ROWS), seed=seed)


def measure_headroom(
    program: ContractQA, lm: dspy.LM, rows: Sequence[dict[str, Any]], folder: Path, *, batch_size: int = 16
) -> pd.DataFrame:
    """Return what perfect choices would gain in F1 over the greedy quotes from the best passage.

    One row chooses among DRAWS answers that are sampled about the best passage, the other among the greedy answers
    about each of the program's k passages; no answer refuses. F1 is the grade by which pairs are made (`gold_score`).
    Columns: chooser, greedy and chosen (mean F1), value (the gain) with its interval low to high over contracts, n and
    n_contracts.
    """
    settings = {"split": "dev", "batch_size": batch_size}
    greedy = answer_rows(
        program.reader(program.k),
        lm.copy(temperature=0.0, seed=0),
        rows,
        folder / "greedy.jsonl",
        system="sft",
        **settings,
    )
    drawn = draw_answers(program.reader(), lm, rows, folder / "samples.jsonl", n=runs.DRAWS, **settings)
    by_passage = [passage_grades(made) for made in greedy]
    first = [grades[0] for grades in by_passage]
    sampled = [_grade(made) for made in drawn]
    best = [max(sampled[n :: len(rows)]) for n in range(len(rows))]
    contracts = [row["contract"] for row in rows]
    chosen = {SAMPLES: best, PASSAGES: [max(grades) for grades in by_passage]}
    return pd.DataFrame([_gain(name, first, grades, contracts) for name, grades in chosen.items()])


def _gain(name: str, before: Sequence[float], after: Sequence[float], contracts: Sequence[str]) -> dict[str, Any]:
    found = cluster_bootstrap([b - a for a, b in zip(before, after, strict=True)], contracts, share=False)
    means = (sum(grades) / max(1, len(grades)) for grades in (before, after))
    interval = {"value": found.value, "low": found.low, "high": found.high}
    counts = {"n": found.n, "n_contracts": found.n_clusters}
    return {"chooser": name} | dict(zip(("greedy", "chosen"), means)) | interval | counts


def headroom_sentence(table: pd.DataFrame) -> str:
    """Return in words what there is to gain, and whether that is worth training for."""
    if not table["n"].any():
        return "No dev question has a clause, so that it is not known what there is to gain: take more dev contracts."
    rows = table.set_index("chooser")
    gains = [f"{_short(r.value)} [{_short(r.low)}, {_short(r.high)}]" for r in rows.itertuples()]
    told = (
        f"There is {gains[0]} of F1 to gain by choosing the best of {runs.DRAWS} sampled answers, and {gains[1]} by "
        f"choosing the right passage ({rows['n'].iloc[0]} dev questions with a clause, {rows['n_contracts'].iloc[0]} "
        "contracts)."
    )
    if rows.loc[SAMPLES, "value"] < WORTH_IT:
        told += f" That is below {_short(WORTH_IT)}: no method can be expected to gain what these questions would show."
    return told


def _short(value: float) -> str:
    return f"{value:.2f}".replace("0.", ".")


def passage_grades(prediction: Mapping[str, Any]) -> list[float]:
    """Return the grade of the quotes from each passage that was read, 0 where there is none."""
    ranked = sorted(prediction["quotes"], key=lambda quote: quote["evidence"].get("rank", 0.0))
    of_rank = {n: list(own) for n, own in groupby(ranked, key=lambda quote: int(quote["evidence"].get("rank", 0.0)))}
    number = max(1, len(prediction["passages"]))
    return [_grade(prediction | {"quotes": of_rank[n]}) if n in of_rank else 0.0 for n in range(number)]


def _grade(prediction: Mapping[str, Any]) -> float:
    """Return the F1 of a whole reply, 0 without a quote."""
    return gold_score(whole_reply(dict(prediction))["answer"], prediction) if prediction["quotes"] else 0.0


# --- rates


def choose_rates(
    iteration: runs.Iteration,
    methods: Sequence[str],
    rates: Sequence[float],
    rows: Sequence[dict[str, Any]],
    *,
    batch_size: int = 16,
    **settings: Any,
) -> pd.DataFrame:
    """Keep of each method the adapter of the learning rate that is best on dev; return all rates with their gains.

    With one rate nothing is to be chosen, and no question is asked.

    The adapters of a rate lie in adapters/rates/RATE/METHOD; the best one is copied to adapters/METHOD. A gain is the
    mean F1 of the greedy quotes from the best passage less that of the SFT model; of equal gains the lowest rate wins.
    Columns: method, rate, value with its interval, n, n_contracts and chosen. settings: those of `build_systems`.
    """
    if len(rates) == 1:
        return pd.DataFrame([{"method": method, "rate": rates[0], "chosen": True} for method in methods])
    names = {(method, rate): f"rates/{rate:g}/{method}" for method in methods for rate in sorted(rates)}
    grades = {}
    for system in build_systems(iteration, ["sft", *names.values()], batch_size=batch_size, **settings):
        path = iteration.path("headroom", "rates", f"{system.name.replace('/', '.')}.jsonl")
        grades[system.name] = _greedy_grades(system, rows, path)
    contracts = [row["contract"] for row in rows]
    made = [
        {"method": method, "rate": rate} | _gain(name, grades["sft"], grades[name], contracts)
        for (method, rate), name in names.items()
    ]
    table = pd.DataFrame(made).drop(columns=["chooser", "greedy"]).rename(columns={"chosen": "f1"})
    best = table.groupby("method", sort=False)["value"].idxmax()
    for place in best:
        name = names[table["method"][place], table["rate"][place]]
        copy_weights(iteration.path("adapters", name), iteration.path("adapters", table["method"][place]))
    return table.assign(chosen=table.index.isin(best))


def _greedy_grades(system: System, rows: Sequence[dict[str, Any]], path: Path) -> list[float]:
    settings = {"system": system.name, "split": "dev", "batch_size": system.batch_size}
    return [_grade(made) for made in answer_rows(system.program.reader(), system.lm, rows, path, **settings)]
