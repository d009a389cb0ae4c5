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
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core import files, params, runs
from cuadft.core.errors import InputError
from cuadft.core.runs import Iteration
from cuadft.data import rows
from cuadft.evaluation.answer_files import count_of
from cuadft.evaluation.bootstrap import as_columns, check_resampling
from cuadft.evaluation.calibration import escaped, markdown_table
from cuadft.evaluation.compare import (
    LARGER,
    LARGER_ALONE,
    detectable_difference,
    holm,
    noise_phrase,
    paired_delta,
)
from cuadft.evaluation.metrics import metric_weights, score_predictions
from cuadft.evaluation.results import as_csv, read_with_seeds
from cuadft.loop import runner
from cuadft.loop.kernel import lock
from cuadft.loop.manifest import Manifest
from cuadft.loop.stages import STAGE_NAMES, STAGES, Stage
from cuadft.loop.status import duration_text

LAST_STAGE = "inference_sft"  # what follows, alignment and promotion, only adds noise to the comparison
SKIPPED = ("inference_rag",)  # the answers of the untuned model aren't compared
FIRST_MEASURED = "rag_compile"  # the earliest stage that leaves something to compare
REPORT_FILES = ("ablation.csv", "ablation.md")
RETRIEVAL_FILE = "metrics/retrieval.csv"  # notebook 02's records on the test split
RETRIEVAL_COLUMNS = ("id", "contract", "k", "retriever", "hit", "char_recall")
KS = (1, 3)  # values of k, besides the k of the program
ANSWER_METRICS = {
    "quote_f1": "quote F1",
    "detection_f1": "detection F1",
    "f1_answerable": "answer F1 where the clause exists",
    "f1_no_clause": "answer F1 where there is no clause",
}
NO_METRICS = ("id", "contract", "answered", "has_clause", "weight")  # columns by which scores are paired and weighed
FINAL_SYSTEM = {"retrieval": "chosen", "answers": "sft"}  # the systems that a run ends with
TRAINED_FOLDERS = ("retriever", "adapters")
SEED = 7  # of the bootstrap
ONE_TRAINING = (
    "Each value was run once: the intervals say what other contracts could change, not what another seed of the "
    "training could. Repeat with `--set seed=8` and another `--run-dir` before a small difference is believed."
)


@dataclass(frozen=True)
class Arm:
    """One value of the parameter, as given, and the iteration that ran with it."""

    value: str
    iteration: Iteration


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
    arms = [Arm(value, Iteration(folder / own, 1)) for value, own in zip(values, _folder_names(name, values))]
    for stale in REPORT_FILES:
        (folder / stale).unlink(missing_ok=True)

    def go(arm: Arm, last: str) -> None:
        given = f"{name}={arm.value}"
        settings = {"until": last, "skip": SKIPPED, "overrides": [*overrides, given]}
        runner.run(preset, run_dir=arm.iteration.run, log=lambda line: log(f"{given} {line}"), **settings)

    _run_both(go, *arms, name, until, log)
    settings = {"n_resamples": n_resamples, "confidence": confidence}
    deltas, text = write_ablation(folder, name, *arms, preset=str(preset), overrides=overrides, **settings)
    return Ablation(folder, (arms[0].iteration.run, arms[1].iteration.run), deltas, text)


def write_ablation(
    folder: Path,
    name: str,
    a: Arm,
    b: Arm,
    *,
    preset: str,
    overrides: Sequence[str] = (),
    n_resamples: int = 2000,
    confidence: float = 0.95,
) -> tuple[pd.DataFrame, str]:
    """Write ablation.csv and ablation.md into a folder; return the differences and the report.

    Raises InputError as `ablation_deltas`.
    """
    deltas, notes = ablation_deltas(a.iteration, b.iteration, n_resamples=n_resamples, confidence=confidence)
    given = f", with {', '.join(f'`{o}`' for o in overrides)}" if overrides else ""
    opening = (
        f"Preset `{preset}`{given}, run with `{name}={a.value}` (A) and `{name}={b.value}` (B); all other "
        "parameters and seeds are the same, and so are the test questions."
    )
    text = _report(name, a, b, deltas, notes, opening, confidence)
    files.write_text(folder / "ablation.csv", as_csv(deltas.assign(parameter=name, value_a=a.value, value_b=b.value)))
    files.write_text(folder / "ablation.md", text)
    return deltas, text


def ablation_deltas(
    a: Iteration, b: Iteration, *, n_resamples: int = 2000, confidence: float = 0.95
) -> tuple[pd.DataFrame, list[str]]:
    """Return one row per part, system and metric, b minus a on the test split, and what could not be compared.

    Columns: part ("retrieval" or "answers"), system (a retriever of metrics/retrieval.csv, or a system that answered),
    metric (hit@k, char_recall@k, or one of `ANSWER_METRICS`), a, b (means), value, low, high, n, n_contracts, p (as
    `compare.paired_delta`), detectable (`compare.detectable_difference`), identical (each question has the same score
    in both), p_holm (corrected over all rows that are not identical). Raises InputError if neither part can be
    compared, and as `compare.paired_delta`.
    """
    found, notes = [], []
    for part, scores_of in (("retrieval", _retrieval_scores), ("answers", _answer_scores)):
        (one, missing_a), (two, missing_b) = scores_of(a), scores_of(b)
        notes += dict.fromkeys([*missing_a, *missing_b])
        for system in [name for name in one if name in two]:
            deltas = _paired_deltas(one[system], two[system], n_resamples=n_resamples, confidence=confidence)
            found += [{"part": part, "system": system} | delta for delta in deltas]
    if not found:
        raise InputError(f"Nothing to compare in {a.dir} and {b.dir}: {' '.join(notes) or 'no system is in both.'}")
    table = pd.DataFrame(found)
    table["p_holm"] = table["p"]
    table.loc[~table["identical"], "p_holm"] = holm(table.loc[~table["identical"], "p"])
    return table, notes


# The two runs.


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
    if until not in STAGE_NAMES:
        hint = params.did_you_mean(until, STAGE_NAMES)
        raise InputError(f"Invalid stage {until!r}{hint}: choose one of {', '.join(STAGE_NAMES)}.")
    if STAGE_NAMES.index(until) < STAGE_NAMES.index(FIRST_MEASURED):
        raise InputError(f"Nothing is measured until {until}: choose {FIRST_MEASURED} or a later stage.")
    return one


def _folder_names(name: str, values: tuple[str, str]) -> list[str]:
    """Return the names of the two run folders; values that differ only in odd characters get a hash as well."""
    found = [f"{name}={re.sub(r'[^0-9A-Za-z.+-]+', '_', value).strip('_.')[:60]}" for value in values]
    if found[0].lower() != found[1].lower():
        return found
    return [f"{each}-{files.value_hash(value)[:8]}" for each, value in zip(found, values)]


def _run_both(
    go: Callable[[Arm, str], None], a: Arm, b: Arm, name: str, until: str, log: Callable[[str], object]
) -> None:
    """Run both values up to a stage; the second takes over the stages that the parameter can't change."""
    notebooks = runs.project_root() / "notebooks"

    def independent(stage: Stage) -> bool:
        return all(known.name != name for known in params.notebook_parameters(notebooks / stage.notebook))

    shared = list(takewhile(independent, STAGES))
    if not shared:  # the questions may differ: find that out before the long stages
        go(a, STAGES[0].name)
        go(b, STAGES[0].name)
        _require_same_questions(a.iteration, b.iteration, name)
    go(a, until)
    if copied := _copy_stages(a.iteration, b.iteration, shared):
        log(f"{name}={b.value} shares {', '.join(copied)} with {name}={a.value}")
    go(b, until)
    _require_same_questions(a.iteration, b.iteration, name)


def _copy_stages(source: Iteration, target: Iteration, stages: Sequence[Stage]) -> list[str]:
    """Copy what finished stages wrote, with their records: the loop finds them unchanged. Return their names."""
    done, copied = Manifest(source).stages, []
    with lock(target.run):
        for stage in (stage for stage in stages if stage.name not in SKIPPED):
            record, manifest = done.get(stage.name, {}), Manifest(target)
            known = manifest.stages.get(stage.name, {})
            if record.get("status") != "done":
                break
            if all(known.get(key) == record[key] for key in ("status", "fingerprint", "outputs")):
                continue
            manifest.clear(stage, {})
            for path in [*record["outputs"], f"{source.dir.name}/executed/{stage.name}.ipynb"]:
                if (source.run / path).is_file():
                    (target.run / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(source.run / path, target.run / path)
            # the record comes last: after a kill, the loop takes the stage for one that has not run
            entries = Manifest(target).stages | {stage.name: record}
            files.write_json(target.path("manifest.json"), {"iteration": target.number, "stages": entries})
            copied.append(stage.name)
    return copied


def _require_same_questions(one: Iteration, other: Iteration, name: str) -> None:
    first, second = (each.path("data", "test.jsonl") for each in (one, other))
    if files.file_hash(first) != files.file_hash(second):
        raise InputError(
            f"{name} changes the test questions ({first} and {second} differ), so that nothing can be "
            "compared in pairs: vary a parameter that leaves the test split as it is."
        )


# What is compared: per system, a frame with id, contract and one column per metric.


def _paired_deltas(a: pd.DataFrame, b: pd.DataFrame, **settings: Any) -> Iterator[dict[str, Any]]:
    """Yield the paired difference of each metric that both frames have."""
    for metric in [name for name in a if name not in NO_METRICS and name in b and a[name].notna().any()]:
        delta = paired_delta(a, b, metric=metric, seed=SEED, **settings)
        one, other = (frame.set_index("id")[metric].dropna() for frame in (a, b))
        means = {"metric": metric, "a": _mean(a, metric), "b": _mean(b, metric)}
        figures = {key: value for key, value in as_columns(delta).items() if key not in ("std_error", "critical")}
        least = detectable_difference(delta.std_error, delta.n_clusters, critical=delta.critical)
        yield means | figures | {"detectable": least, "identical": one.equals(other.reindex(one.index))}


def _mean(frame: pd.DataFrame, metric: str) -> float:
    weight = metric_weights(frame, metric) * frame[metric].notna()
    return float((frame[metric].fillna(0) * weight).sum() / weight.sum())


def _retrieval_scores(iteration: Iteration) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return per retriever one row per test question with its hit@k and char_recall@k, and what is missing."""
    path = iteration.path(RETRIEVAL_FILE)
    if not path.is_file():
        return {}, ["Retrieval is not compared: a run has no metrics/retrieval.csv (notebook 02 writes it)."]
    records = _read_retrieval(path)
    if "split" in records:
        records = records[records["split"] == "test"]
    held_out = rows.split_titles(rows.contract_records(iteration.run, iteration.number), "test")
    records = records[records["contract"].isin(held_out)]
    if records.empty:
        return {}, [f"Retrieval is not compared: {path} holds no record on a test contract."]
    program = iteration.path("program", "rag.json")
    sent = [int(files.read_json(program).get("k", 1))] if program.is_file() else []  # passages that the program sends
    ks = [k for k in sorted({*KS, *sent}) if (records["k"] == k).any()]
    found = {}
    for retriever, own in records.groupby("retriever", sort=False):
        if own.duplicated(["id", "k"]).any():
            twice = own["id"][own.duplicated(["id", "k"])].iloc[0]
            raise InputError(f"{path} measures {retriever} twice on row {twice!r}: run 02_rag_compile again.")
        by_k = {k: own[own["k"] == k].set_index(["id", "contract"])[["hit", "char_recall"]] for k in ks}
        found[retriever] = pd.concat([part.add_suffix(f"@{k}") for k, part in by_k.items()], axis=1).reset_index()
    return found, []


def _read_retrieval(path: Path) -> pd.DataFrame:
    try:
        records = pd.read_csv(path, dtype={"id": str, "contract": str, "retriever": str}, keep_default_na=False)
        missing = [name for name in RETRIEVAL_COLUMNS if name not in records]
        numbers = records.astype({"k": int, "hit": float, "char_recall": float}) if not missing else records
    except (ValueError, pd.errors.ParserError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"{path} can't be read ({told}): run 02_rag_compile again.") from None
    if missing:
        needed = ", ".join(RETRIEVAL_COLUMNS)
        raise InputError(f"{path} has no column {missing[0]!r} ({needed}): run 02_rag_compile again.")
    return numbers


def _answer_scores(iteration: Iteration) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return per system the scored rows of its test predictions, and which systems are incomplete."""
    predictions, left_out = read_with_seeds(iteration, seed=0)
    test = [row for row in predictions if row["split"] == "test"]
    if not test:
        return {}, [*left_out, "Answers are not compared: a run has no complete test predictions."]
    frame = score_predictions(test)
    by_system = frame[["system", *NO_METRICS, *ANSWER_METRICS]].groupby("system", sort=False)
    return {system: own.drop(columns="system") for system, own in by_system}, left_out


# The report.


def _report(
    name: str, a: Arm, b: Arm, deltas: pd.DataFrame, notes: Sequence[str], opening: str, confidence: float
) -> str:
    """Return the report: what ran, what exceeds the noise, and every paired difference."""
    reading = (
        f"In brackets: {confidence:.0%} intervals that resample whole contracts. Holm: p corrected over all "
        "differences in these tables. Detectable: the true difference that would be found four times in five."
    )
    steps = [_training_steps(arm.iteration) for arm in (a, b)]
    parts = [
        f"# Ablation of {escaped(name)}: {escaped(a.value)} against {escaped(b.value)}",
        opening,
        _arms_table(name, a, b, steps),
        "## Findings",
        _bullets([*_warnings(name, b, steps), *_findings(name, a, b, deltas, confidence)]),
        "## Paired differences, B minus A",
        *(f"### {part.capitalize()}\n\n{_deltas_table(own)}" for part, own in deltas.groupby("part", sort=False)),
        reading,
        ONE_TRAINING,
        _bullets(notes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _arms_table(name: str, a: Arm, b: Arm, steps: Sequence[dict[str, int]]) -> str:
    lines = [["run folder", *(arm.iteration.run.name for arm in (a, b))]]
    for folder in dict.fromkeys([*steps[0], *steps[1]]):
        lines.append([f"training steps, {folder}", *(each.get(folder, "none") for each in steps)])
    lines.append(["generated rows on offer", *(_counted(_row_sources(arm.iteration)) for arm in (a, b))])
    entries = [Manifest(arm.iteration).stages.values() for arm in (a, b)]
    seconds = [math.fsum(entry["seconds"] or 0 for entry in stages) for stages in entries]
    lines.append(["time of all stages", *map(duration_text, seconds)])
    return markdown_table(["", f"A: {name}={a.value}", f"B: {name}={b.value}"], lines)


def _training_steps(iteration: Iteration) -> dict[str, int]:
    """Return the training steps that each training.json of an iteration records, by its folder."""
    found = {}
    for path in sorted(p for name in TRAINED_FOLDERS for p in iteration.path(name).rglob("training.json")):
        record = files.read_json(path)
        logged = [int(entry["step"]) for entry in record.get("log_history", []) if "step" in entry]
        if "steps" in record or logged:
            found[path.parent.relative_to(iteration.dir).as_posix()] = int(record.get("steps") or max(logged))
    return found


def _row_sources(iteration: Iteration) -> Counter[str]:
    """Return how many rows of each source data/synthetic.jsonl holds."""
    path = iteration.path("data", "synthetic.jsonl")
    return Counter(row.get("source", "unknown") for row in files.read_jsonl(path)) if path.is_file() else Counter()


def _counted(sources: Counter[str]) -> str:
    listed = ", ".join(f"{source} {n:,}" for source, n in sorted(sources.items()))
    return f"{sources.total():,}" + (f" ({listed})" if listed else "")


def _warnings(name: str, b: Arm, steps: Sequence[dict[str, int]]) -> Iterator[str]:
    """Yield what speaks against the comparison."""
    for folder in dict.fromkeys([*steps[0], *steps[1]]):
        in_a, in_b = (each.get(folder, 0) for each in steps)
        if in_a != in_b:
            yield (
                f"Not at equal steps: {folder} was trained for {in_a} steps in A and {in_b} in B, so "
                f"that the differences are not those of {name} alone."
            )
    if name == "use_synthetic" and not _row_sources(b.iteration).total():
        yield "data/synthetic.jsonl is empty: there was nothing more to train on, so that this shows nothing."


def _findings(name: str, a: Arm, b: Arm, deltas: pd.DataFrame, confidence: float) -> list[str]:
    """Return one sentence per metric of the systems that a run ends with; the tables hold the figures of all."""
    if deltas["identical"].all():
        return [f"Every score is the same with either value: {name} changed nothing that is measured here."]
    found = deltas.to_dict("records")
    final = [row for row in found if row["system"] == FINAL_SYSTEM[row["part"]]]
    return [_finding(name, a, b, row, confidence) for row in final or found]


def _finding(name: str, a: Arm, b: Arm, row: dict[str, Any], confidence: float) -> str:
    kind, _, k = row["metric"].partition("@")
    label = f"{kind.replace('char_recall', 'character recall')}@{k}" if k else ANSWER_METRICS[kind]
    what = f"{label} of {row['system']}"
    if row["identical"]:
        return f"{what}: no difference, every question has the same score."
    if math.isnan(row["p"]):
        n = f"{count_of(row['n'], 'question')} of {count_of(row['n_contracts'], 'contract')}"
        return f"{what}: {row['value']:+.3f} on {n}, too few to test."
    verdict = noise_phrase(row, confidence)
    if verdict in (LARGER, LARGER_ALONE):
        better = b if row["value"] > 0 else a
        return f"{what}: better with {name}={better.value}, {row['value']:+.3f} ({verdict})."
    return f"{what}: no difference shown ({verdict}), {row['value']:+.3f}."


def _deltas_table(deltas: pd.DataFrame) -> str:
    head = ("System", "Metric", "A", "B", "B − A", "n", "contracts", "p", "Holm", "Detectable")
    lines = []
    for row in deltas.itertuples():
        bounds = "" if math.isnan(row.low) else f" [{row.low:+.3f}, {row.high:+.3f}]"
        difference = "same" if row.identical else f"{row.value:+.3f}{bounds}"
        means = (f"{row.a:.3f}", f"{row.b:.3f}", difference, f"{row.n:,}", row.n_contracts)
        least = f"{row.detectable:.3f}" if row.detectable > 0 else "–"
        p_values = ("–" if math.isnan(p) else f"{p:.2g}" for p in (row.p, row.p_holm))
        lines.append((row.system, row.metric, *means, *p_values, least))
    return markdown_table(head, lines)


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(line)}" for line in lines)
