"""An ablation: run a preset with two values of one parameter, all else equal, to see what the parameter is worth.

    done = ablate("params/ablation.yaml", "use_synthetic", ("false", "true"))
    print(done.deltas)  # paired differences on the test split, the second value less the first

Each value has a run folder of its own, which `cuadft status` shows. A killed ablation goes on where it stopped. Each
value is run once: the intervals say what other contracts could change, not what another seed of the training could.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core import files, params, runs
from cuadft.core.errors import InputError
from cuadft.core.runs import Iteration
from cuadft.data import rows
from cuadft.evaluation.bootstrap import check_resampling
from cuadft.evaluation.compare import holm, paired_deltas
from cuadft.evaluation.metrics import score_predictions
from cuadft.evaluation.results import as_csv, read_with_seeds
from cuadft.loop import runner
from cuadft.loop.criteria import mean_of
from cuadft.loop.stages import STAGE_NAMES, STAGES

LAST_STAGE = "inference_sft"  # what follows, alignment and promotion, only adds noise to the comparison
SKIPPED = ("inference_rag",)  # the answers of the untuned model aren't compared
FIRST_MEASURED = "rag_compile"  # the earliest stage that leaves something to compare
REPORT_FILE = "ablation.csv"
KS = (1, 3)  # passages found
RETRIEVAL_METRICS = tuple(f"{metric}@{k}" for metric in ("hit", "char_recall") for k in KS)
ANSWER_METRICS = ("quote_f1", "detection_f1", "f1_answerable", "f1_no_clause")
SEED = 7  # of the bootstrap


@dataclass(frozen=True)
class Ablation:
    """The result of `ablate`: its folder, the two run folders, the paired differences, and what to know of them."""

    folder: Path
    runs: tuple[Path, Path]
    deltas: pd.DataFrame = field(repr=False)
    notes: tuple[str, ...]


def ablate(
    preset: str | Path,
    name: str,
    values: tuple[str, str],
    *,
    run_dir: str | Path | None = None,
    until: str = LAST_STAGE,
    overrides: Sequence[str] = (),
    n_resamples: int = 2000,
    confidence: float = 0.95,
    log: Callable[[str], object] = print,
) -> Ablation:
    """Run iteration 1 of a preset with either value of a parameter; return second minus first, as in ablation.csv.

    values: as in --set, such as ("false", "true"). run_dir: the folder of both runs and of the result (default: the
    preset's). until: the last stage; from `rag_compile` on there is retrieval to compare, from `inference_sft` on
    answers. Stages before the first notebook that declares the parameter are run once and copied. Raises InputError
    for bad input (before anything runs, where that can be known) and if the parameter changes the test questions;
    StageFailed as `runner.run`.
    """
    check_resampling(n_resamples, confidence)
    chosen = _checked_values(preset, name, values, overrides, until)
    default = runs.project_root() / "runs" / params.preset_file(preset).stem
    folder = runs.resolve_path(run_dir or chosen.get("run_dir", default))
    pair = [Iteration(folder / own, 1) for own in _folder_names(name, values)]
    (folder / REPORT_FILE).unlink(missing_ok=True)

    def go(arm: int, last: str) -> None:
        given = f"{name}={values[arm]}"
        settings = {"until": last, "skip": SKIPPED, "overrides": [*overrides, given]}
        runner.run(preset, run_dir=pair[arm].run, log=lambda line: log(f"{given} {line}"), **settings)

    _run_both(go, pair, name, until)
    deltas = ablation_deltas(*pair, n_resamples=n_resamples, confidence=confidence)
    files.write_text(folder / REPORT_FILE, as_csv(deltas.assign(parameter=name, value_a=values[0], value_b=values[1])))
    return Ablation(folder, (pair[0].run, pair[1].run), deltas, _unequal_steps(*pair))


def _checked_values(
    preset: str | Path, name: str, values: tuple[str, str], overrides: Sequence[str], until: str
) -> dict[str, object]:
    """Return the preset's values with the overrides; raises InputError for what would fail or compare nothing."""
    if name == "run_dir" or any(given.partition("=")[0].strip() == name for given in overrides):
        raise InputError(f"{name} can't be varied: choose another parameter than run_dir and those of --set.")
    notebooks = runs.project_root() / "notebooks"
    one, other = (params.load_preset(preset, [*overrides, f"{name}={value}"], notebooks) for value in values)
    if one == other:
        raise InputError(f"{values[0]} and {values[1]} are the same value of {name}: give two different ones.")
    runner.check_stages(until)
    if STAGE_NAMES.index(until) < STAGE_NAMES.index(FIRST_MEASURED):
        raise InputError(f"Nothing is measured until {until}: choose {FIRST_MEASURED} or a later stage.")
    return one


def _folder_names(name: str, values: tuple[str, str]) -> list[str]:
    """Return the names of the two run folders; values that differ only in odd characters get a number as well."""
    found = [f"{name}={re.sub(r'[^0-9A-Za-z.+-]+', '_', value).strip('_.')[:60]}" for value in values]
    return found if found[0].lower() != found[1].lower() else [f"{each}-{n}" for n, each in enumerate(found)]


def _run_both(go: Callable[[int, str], None], pair: Sequence[Iteration], name: str, until: str) -> None:
    """Run both values up to a stage; the second starts from a copy of what the parameter can't change."""
    declared = params.declared_parameters(runs.project_root() / "notebooks")[name].notebooks
    wanted = STAGES[: STAGE_NAMES.index(until) + 1]
    shared = [stage.name for stage in takewhile(lambda stage: stage.notebook not in declared, wanted)]
    go(0, shared[-1] if shared else STAGES[0].name)
    first, second = (iteration.run for iteration in pair)
    if shared and not second.exists():  # the loop finds the copied stages unchanged
        part = second.with_name(f".{second.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(first, part, ignore=shutil.ignore_patterns(".hashes.json"))
        part.rename(second)
    go(1, STAGES[0].name)
    asked = [iteration.path("data", "test.jsonl") for iteration in pair]
    if files.file_hash(asked[0]) != files.file_hash(asked[1]):
        raise InputError(f"{name} changes the test questions ({asked[0]} and {asked[1]} differ): vary another one.")
    go(0, until)
    go(1, until)


def ablation_deltas(a: Iteration, b: Iteration, *, n_resamples: int = 2000, confidence: float = 0.95) -> pd.DataFrame:
    """Return one row per system and metric, b minus a on the test split.

    Columns: system (a retriever of metrics/retrieval.csv, or a system that answered), metric, a, b (means), value, low,
    high, n, n_contracts, p, p_holm (corrected over all rows that are not zero throughout) and detectable (as
    `compare.paired_deltas`). Raises InputError if nothing can be compared, and as `compare.paired_delta`.
    """
    settings = {"n_resamples": n_resamples, "seed": SEED, "confidence": confidence}
    parts = [
        _part_deltas(scores_of(a), scores_of(b), metrics, **settings)
        for scores_of, metrics in ((_retrieval_scores, RETRIEVAL_METRICS), (_answer_scores, ANSWER_METRICS))
    ]
    table = pd.concat(parts, ignore_index=True)
    if table.empty:
        raise InputError(f"Nothing to compare in {a.dir} and {b.dir}: neither retrieval nor answers are in both.")
    same = (table["low"] == 0) & (table["high"] == 0)
    return table.assign(p_holm=table["p"].where(same, holm(table["p"].mask(same))))


def _part_deltas(one: pd.DataFrame, two: pd.DataFrame, metrics: Sequence[str], **settings: Any) -> pd.DataFrame:
    """Return the paired differences of every system that both frames have."""
    frame = pd.concat([one.assign(system="A " + one["system"]), two.assign(system="B " + two["system"])])
    parts = dict(list(frame.groupby("system", sort=False)))
    pairs = [(f"A {system}", f"B {system}") for system in one["system"].unique() if f"B {system}" in parts]
    table = paired_deltas(frame, pairs, metrics=metrics, **settings).query("n > 0")
    for place, (side, name) in enumerate((("a", "baseline"), ("b", "system"))):
        means = [mean_of(parts[key], metric) for key, metric in zip(table[name], table["metric"])]
        table.insert(4 + place, side, means)
    return table.assign(system=table["system"].str[2:]).drop(columns=["split", "baseline"])


def _retrieval_scores(iteration: Iteration) -> pd.DataFrame:
    """Return one row per retriever and test question with its hit@k and char_recall@k, from notebook 02's records."""
    path = iteration.path("metrics", "retrieval.csv")
    records = pd.read_csv(path, dtype={"id": str, "contract": str, "retriever": str}, keep_default_na=False)
    held_out = rows.split_titles(rows.contract_records(iteration.run, iteration.number), "test")
    records = records[records["contract"].isin(held_out) & records["k"].isin(KS)]
    wide = records.pivot(index=["retriever", "id", "contract"], columns="k", values=["hit", "char_recall"])
    wide.columns = [f"{metric}@{k}" for metric, k in wide.columns]
    return wide.astype(float).reset_index().rename(columns={"retriever": "system"}).assign(split="test")


def _answer_scores(iteration: Iteration) -> pd.DataFrame:
    """Return the scored rows of the test predictions that are complete."""
    predictions, _ = read_with_seeds(iteration, seed=0)
    test = [row for row in predictions if row["split"] == "test"]
    return score_predictions(test) if test else pd.DataFrame(columns=["system", "split"])


def _unequal_steps(a: Iteration, b: Iteration) -> tuple[str, ...]:
    """Return a warning if a training of the two runs did not take the same number of steps."""
    found = []
    for iteration in (a, b):
        paths = [path for name in ("retriever", "adapters") for path in iteration.path(name).rglob("training.json")]
        records = {path.parent.relative_to(iteration.dir).as_posix(): files.read_json(path) for path in paths}
        logged = {name: [entry.get("step", 0) for entry in one.get("log_history", [])] for name, one in records.items()}
        found.append({name: one.get("steps") or max(logged[name], default=0) for name, one in records.items()})
    return () if found[0] == found[1] else (f"Not at equal training steps: {found[0]} against {found[1]}.",)
