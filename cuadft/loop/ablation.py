"""An ablation: run a preset with two values of one parameter, all else equal, to see what the parameter is worth.

    done = ablate("params/ablation.yaml", "use_synthetic", ("false", "true"))
    print(done.text)  # the report: paired differences on the test split, in Markdown

Each value has a run folder of its own, which `cuadft status` shows. A killed ablation goes on where it stopped. In the
report, A is the first value and B the second; every difference is B minus A.
"""

from __future__ import annotations

import math
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
from cuadft.evaluation.calibration import escaped, markdown_table
from cuadft.evaluation.compare import holm, noise_phrase, paired_deltas
from cuadft.evaluation.metrics import metric_weights, score_predictions
from cuadft.evaluation.results import as_csv, read_with_seeds
from cuadft.loop import runner
from cuadft.loop.manifest import Manifest
from cuadft.loop.stages import STAGE_NAMES, STAGES
from cuadft.loop.status import duration_text

LAST_STAGE = "inference_sft"  # what follows, alignment and promotion, only adds noise to the comparison
SKIPPED = ("inference_rag",)  # the answers of the untuned model aren't compared
FIRST_MEASURED = "rag_compile"  # the earliest stage that leaves something to compare
REPORT_FILES = ("ablation.csv", "ablation.md")
RETRIEVAL_FILE = "metrics/retrieval.csv"  # notebook 02's records on the test split
KS = (1, 3)  # values of k, besides the k of the program
ANSWER_METRICS = ("quote_f1", "detection_f1", "f1_answerable", "f1_no_clause")
SEED = 7  # of the bootstrap
READING = (
    "In brackets: {:.0%} intervals that resample whole contracts. Holm: p corrected over all differences that are not "
    "zero throughout. Detectable: the true difference that would be found four times in five. Each value was run once: "
    "the intervals say what other contracts could change, not what another seed of the training could. Repeat with "
    "`--set seed=8` and another `--run-dir` before a small difference is believed."
)


@dataclass(frozen=True)
class Ablation:
    """The result of `ablate`: its folder, the two run folders, the paired differences and the report (Markdown)."""

    folder: Path
    runs: tuple[Path, Path]
    deltas: pd.DataFrame = field(repr=False)
    text: str = field(repr=False)


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
    """Run iteration 1 of a preset with either value of a parameter, and report second minus first.

    values: as in --set, such as ("false", "true"). run_dir: the folder of both runs and of the report (default: the
    preset's). until: the last stage; from `rag_compile` on there is retrieval to compare, from `inference_sft` on
    answers. Stages before the first notebook that declares the parameter are run once and copied. Writes
    ablation.csv and ablation.md. Raises InputError for bad input (before anything runs, where that can be known) and
    if the parameter changes the test questions; StageFailed as `runner.run`.
    """
    check_resampling(n_resamples, confidence)
    chosen = _checked_values(preset, name, values, overrides, until)
    default = runs.project_root() / "runs" / params.preset_file(preset).stem
    folder = runs.resolve_path(run_dir or chosen.get("run_dir", default))
    pair = [Iteration(folder / own, 1) for own in _folder_names(name, values)]
    for stale in REPORT_FILES:
        (folder / stale).unlink(missing_ok=True)

    def go(arm: int, last: str) -> None:
        given = f"{name}={values[arm]}"
        settings = {"until": last, "skip": SKIPPED, "overrides": [*overrides, given]}
        runner.run(preset, run_dir=pair[arm].run, log=lambda line: log(f"{given} {line}"), **settings)

    _run_both(go, pair, name, until)
    deltas, notes = ablation_deltas(*pair, n_resamples=n_resamples, confidence=confidence)
    given = f", with {', '.join(f'`{o}`' for o in overrides)}" if overrides else ""
    opening = f"Preset `{preset}`{given}; all other parameters, seeds and test questions are the same."
    text = _report(name, values, pair, deltas, [opening, READING.format(confidence), *notes])
    table = deltas.assign(parameter=name, value_a=values[0], value_b=values[1])
    files.write_text(folder / "ablation.csv", as_csv(table))
    files.write_text(folder / "ablation.md", text)
    return Ablation(folder, (pair[0].run, pair[1].run), deltas, text)


def _checked_values(
    preset: str | Path, name: str, values: tuple[str, str], overrides: Sequence[str], until: str
) -> dict[str, object]:
    """Return the preset's values with the overrides; raises InputError for what would fail or compare nothing."""
    if twice := [o for o in overrides if o.partition("=")[0].strip() == name]:
        raise InputError(f"--set {twice[0]}: {name} is what this ablation varies. Give its two values only.")
    if name == "run_dir":
        raise InputError("run_dir is no parameter to vary: it changes nothing but where the files lie.")
    notebooks = runs.project_root() / "notebooks"
    one, other = (params.load_preset(preset, [*overrides, f"{name}={value}"], notebooks) for value in values)
    if one == other:
        raise InputError(f"{values[0]} and {values[1]} are the same value of {name}: give two different ones.")
    runner.check_stages(until)
    if STAGE_NAMES.index(until) < STAGE_NAMES.index(FIRST_MEASURED):
        raise InputError(f"Nothing is measured until {until}: choose {FIRST_MEASURED} or a later stage.")
    return one


def _folder_names(name: str, values: tuple[str, str]) -> list[str]:
    """Return the names of the two run folders; values that differ only in odd characters get a hash as well."""
    found = [f"{name}={re.sub(r'[^0-9A-Za-z.+-]+', '_', value).strip('_.')[:60]}" for value in values]
    if found[0].lower() != found[1].lower():
        return found
    return [f"{each}-{files.value_hash(value)[:8]}" for each, value in zip(found, values)]


def _run_both(go: Callable[[int, str], None], pair: Sequence[Iteration], name: str, until: str) -> None:
    """Run both values up to a stage; the second starts from a copy of what the parameter can't change."""
    notebooks = runs.project_root() / "notebooks"

    def declares(stage: Any) -> bool:
        return any(known.name == name for known in params.notebook_parameters(notebooks / stage.notebook))

    wanted = STAGES[: STAGE_NAMES.index(until) + 1]
    shared = [stage.name for stage in takewhile(lambda stage: not declares(stage), wanted)]
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
        raise InputError(
            f"{name} changes the test questions ({asked[0]} and {asked[1]} differ), so that nothing can be "
            "compared in pairs: vary a parameter that leaves the test split as it is."
        )
    go(0, until)
    go(1, until)


# What is compared.


def ablation_deltas(
    a: Iteration, b: Iteration, *, n_resamples: int = 2000, confidence: float = 0.95
) -> tuple[pd.DataFrame, list[str]]:
    """Return one row per part, system and metric, b minus a on the test split, and what could not be compared.

    Columns: part ("retrieval" or "answers"), system (a retriever of metrics/retrieval.csv, or a system that answered),
    metric (hit@k, char_recall@k, or one of `ANSWER_METRICS`), a, b (means), value, low, high, n, n_contracts, p and
    detectable (as `compare.paired_deltas`), identical (no contract differs), p_holm (corrected over all rows that are
    not identical), verdict (see `compare.noise_phrase`). Raises InputError if neither part can be compared, and as
    `compare.paired_delta`.
    """
    settings = {"n_resamples": n_resamples, "seed": SEED, "confidence": confidence}
    found, notes = [], []
    for part, scores_of in (("retrieval", _retrieval_scores), ("answers", _answer_scores)):
        (one, missing_a), (two, missing_b) = scores_of(a), scores_of(b)
        notes += dict.fromkeys([*missing_a, *missing_b])
        if one is not None and two is not None:
            found.append(_part_deltas(one, two, **settings).assign(part=part))
    table = pd.concat(found, ignore_index=True) if found else pd.DataFrame()
    if table.empty:
        raise InputError(f"Nothing to compare in {a.dir} and {b.dir}: {' '.join(notes) or 'no system is in both.'}")
    table["identical"] = (table["low"] == 0) & (table["high"] == 0)
    table["p_holm"] = table["p"].where(table["identical"], holm(table["p"].mask(table["identical"])))
    verdicts = [noise_phrase(row, confidence) for row in table.to_dict("records")]
    return table.assign(verdict=verdicts), notes


def _part_deltas(one: pd.DataFrame, two: pd.DataFrame, **settings: Any) -> pd.DataFrame:
    """Return the paired differences of every system and metric that both frames have."""
    both = [system for system in one["system"].unique() if system in set(two["system"])]
    known = ("hit", "char_recall", *ANSWER_METRICS)
    metrics = [name for name in one if name in two and name.partition("@")[0] in known]
    frame = pd.concat([one.assign(system="A " + one["system"]), two.assign(system="B " + two["system"])])
    pairs = [(f"A {system}", f"B {system}") for system in both]
    table = paired_deltas(frame, pairs, metrics=metrics, split="test", **settings)
    for side, name in (("a", "baseline"), ("b", "system")):
        parts = {key: frame[frame["system"] == key] for key in table[name].unique()}
        table[side] = [_mean(parts[key], metric) for key, metric in zip(table[name], table["metric"])]
    return table.assign(system=table["system"].str[2:]).query("n > 0").drop(columns=["split", "baseline"])


def _mean(frame: pd.DataFrame, metric: str) -> float:
    weight = metric_weights(frame, metric) * frame[metric].notna()
    return float((frame[metric].fillna(0) * weight).sum() / weight.sum()) if weight.sum() else math.nan


def _retrieval_scores(iteration: Iteration) -> tuple[pd.DataFrame | None, list[str]]:
    """Return one row per retriever and test question with its hit@k and char_recall@k, or what is missing."""
    path, program = iteration.path(RETRIEVAL_FILE), iteration.path("program", "rag.json")
    if not path.is_file():
        return None, ["Retrieval is not compared: a run has no metrics/retrieval.csv (notebook 02 writes it)."]
    sent = [int(files.read_json(program).get("k", 1))] if program.is_file() else []  # passages that the program sends
    try:
        records = pd.read_csv(path, dtype={"id": str, "contract": str, "retriever": str}, keep_default_na=False)
        records = records.astype({"k": int, "hit": float, "char_recall": float})
        records = records[records["k"].isin([*KS, *sent])]
        if "split" in records:
            records = records[records["split"] == "test"]
        held_out = rows.split_titles(rows.contract_records(iteration.run, iteration.number), "test")
        records = records[records["contract"].isin(held_out)]
        wide = records.pivot(index=["retriever", "id", "contract"], columns="k", values=["hit", "char_recall"])
    except (KeyError, ValueError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"{path} can't be read ({told}): run 02_rag_compile again.") from None
    if wide.empty:
        return None, [f"Retrieval is not compared: {path} holds no record on a test contract."]
    wide.columns = [f"{metric}@{k}" for metric, k in wide.columns]
    return wide.reset_index().rename(columns={"retriever": "system"}).assign(split="test"), []


def _answer_scores(iteration: Iteration) -> tuple[pd.DataFrame | None, list[str]]:
    """Return the scored rows of the test predictions, or what is missing."""
    predictions, left_out = read_with_seeds(iteration, seed=0)
    test = [row for row in predictions if row["split"] == "test"]
    if not test:
        return None, [*left_out, "Answers are not compared: a run has no complete test predictions."]
    return score_predictions(test), left_out


# The report.


def _report(
    name: str, values: tuple[str, str], pair: Sequence[Iteration], deltas: pd.DataFrame, notes: Sequence[str]
) -> str:
    """Return the report: what ran, every paired difference, and what to know of them."""
    steps = [_training_steps(iteration) for iteration in pair]
    folders = list(dict.fromkeys([*steps[0], *steps[1]]))
    unequal = [folder for folder in folders if steps[0].get(folder) != steps[1].get(folder)]
    warning = f"Not at equal steps ({', '.join(unequal)}): the differences are not those of {name} alone."
    taken = [math.fsum(e["seconds"] or 0 for e in Manifest(iteration).stages.values()) for iteration in pair]
    lines = [
        ["run folder", *(iteration.run.name for iteration in pair)],
        *([f"training steps, {folder}", *(each.get(folder, "none") for each in steps)] for folder in folders),
        ["generated rows on offer", *map(_generated_rows, pair)],
        ["time of all stages", *map(duration_text, taken)],
    ]
    parts = [
        f"# Ablation of {escaped(name)}: {escaped(values[0])} against {escaped(values[1])}",
        markdown_table(["", *(f"{side}: {name}={value}" for side, value in zip("AB", values))], lines),
        _deltas_table(deltas),
        "\n".join(f"- {escaped(line)}" for line in [*[warning] * bool(unequal), *notes]),
    ]
    return "\n\n".join(parts) + "\n"


def _deltas_table(deltas: pd.DataFrame) -> str:
    lines = []
    for row in deltas.itertuples():
        bounds = "" if math.isnan(row.low) else f" [{row.low:+.3f}, {row.high:+.3f}]"
        difference = "same" if row.identical else f"{row.value:+.3f}{bounds}"
        figures = ("–" if math.isnan(p) else f"{p:.2g}" for p in (row.p, row.p_holm, row.detectable))
        means = (f"{row.a:.3f}", f"{row.b:.3f}", difference, f"{row.n:,}", row.n_contracts)
        lines.append((row.system, row.metric, *means, *figures, row.verdict))
    head = ("System", "Metric", "A", "B", "B − A", "n", "contracts", "p", "Holm", "Detectable", "B − A is")
    return markdown_table(head, lines)


def _training_steps(iteration: Iteration) -> dict[str, int]:
    """Return the training steps that each training.json of an iteration records, by its folder."""
    found = {}
    for path in sorted(p for name in ("retriever", "adapters") for p in iteration.path(name).rglob("training.json")):
        record = files.read_json(path)
        logged = [int(entry["step"]) for entry in record.get("log_history", []) if "step" in entry]
        if "steps" in record or logged:
            found[path.parent.relative_to(iteration.dir).as_posix()] = int(record.get("steps") or max(logged))
    return found


def _generated_rows(iteration: Iteration) -> int:
    path = iteration.path("data", "synthetic.jsonl")
    return len(files.read_jsonl(path)) if path.is_file() else 0
