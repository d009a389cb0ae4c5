"""Run a preset once per value of one parameter, all else equal, to see what that parameter is worth.

    done = ablation.run("params/ablation.yaml", "use_synthetic", ("false", "true"))
    print(done.text)

Each value has a run folder of its own: `cuadft status` shows it, and a killed ablation goes on where it stopped.

What one parameter changed in two runs that differ in nothing else: paired differences, in a table and in words.

The report of an ablation in plain words (Markdown).
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
from typing import TYPE_CHECKING, Any

from cuadft.core import files, params, runs
from cuadft.core.errors import InputError
from cuadft.core.runs import Iteration
from cuadft.data import rows
from cuadft.evaluation.agreement import escaped, markdown_table
from cuadft.evaluation.answer_files import count_of
from cuadft.evaluation.published import ALONE, LARGER, noise
from cuadft.evaluation.results import read_with_seeds
from cuadft.loop import runner
from cuadft.loop.kernel import lock
from cuadft.loop.manifest import Manifest
from cuadft.loop.stages import STAGES, Stage
from cuadft.loop.status import duration_text

if TYPE_CHECKING:
    import pandas as pd


UNTIL = "inference_sft"  # what follows, alignment and promotion, only adds noise to the comparison
SKIPPED = ("inference_rag",)  # what it answers with the untuned model isn't compared
FIRST_MEASURED = "rag_compile"  # the earliest stage that leaves something to compare


@dataclass(frozen=True)
class Ablation:
    """Hold what `run` found: its folder, the two run folders, the paired differences and the report (Markdown)."""

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
    until: str = UNTIL,
    overrides: Sequence[str] = (),
    n_resamples: int = 2000,
    confidence: float = 0.95,
    log: Callable[[str], object] = print,
) -> Ablation:
    """Run iteration 1 of a preset with either value of a parameter, and report second minus first.

    values: as in --set, such as ("false", "true"). run_dir: the folder of both runs and of the report (default: the
    preset's). until: the last stage; from `rag_compile` on there is retrieval to compare, from `inference_sft` on
    answers. Stages before the first notebook that declares the parameter are run once and copied. Writes
    ablation.csv and ablation.md. Raises InputError for bad input, before anything runs where that can be known, and
    if the parameter changes the test questions; StageFailed as `loop.run`.
    """
    from cuadft.evaluation import bootstrap

    bootstrap.check_resampling(n_resamples, confidence)
    notebooks = runs.project_root() / "notebooks"
    chosen = _checked(preset, name, values, overrides, until, notebooks)
    folder = runs.resolve_path(
        run_dir or chosen.get("run_dir", runs.project_root() / "runs" / params.preset_file(preset).stem)
    )
    first, second = (Iteration(folder / each, 1) for each in _names(name, values))
    for stale in FILES:
        (folder / stale).unlink(missing_ok=True)

    def go(which: int, last: str) -> None:
        own, given = (first, second)[which], f"{name}={values[which]}"
        runner.run(
            preset,
            run_dir=own.run,
            until=last,
            skip=SKIPPED,
            overrides=[*overrides, given],
            log=lambda line: log(f"{given} {line}"),
        )

    _run_both(go, first, second, name, values, until, log)
    arms = [Arm(value, each) for value, each in zip(values, (first, second))]
    settings = {"n_resamples": n_resamples, "confidence": confidence}
    deltas, text = write_ablation(folder, name, *arms, preset=str(preset), overrides=overrides, **settings)
    return Ablation(folder, (first.run, second.run), deltas, text)


def _run_both(
    go: Callable[[int, str], None],
    first: Iteration,
    second: Iteration,
    name: str,
    values: tuple[str, str],
    until: str,
    log: Callable[[str], object],
) -> None:
    shared = _before(name, runs.project_root() / "notebooks")
    if not shared:  # the questions may differ: find that out before the long stages
        go(0, STAGES[0].name)
        go(1, STAGES[0].name)
        _same_questions(first, second, name)
    go(0, until)
    if copied := _copy(first, second, shared):
        log(f"{name}={values[1]} shares {', '.join(copied)} with {name}={values[0]}")
    go(1, until)
    _same_questions(first, second, name)


def _checked(
    preset: str | Path, name: str, values: tuple[str, str], overrides: Sequence[str], until: str, notebooks: Path
) -> dict[str, object]:
    """Return the preset's values with the overrides; raises InputError for what would fail or compare nothing."""
    if twice := [o for o in overrides if o.partition("=")[0].strip() == name]:
        raise InputError(f"--set {twice[0]}: {name} is what this ablation varies. Give its two values only.")
    if name == "run_dir":
        raise InputError("run_dir is no parameter to vary: it changes nothing but where the files lie.")
    one, other = (params.load_preset(preset, [*overrides, f"{name}={value}"], notebooks) for value in values)
    if one == other:
        raise InputError(f"{values[0]} and {values[1]} are the same value of {name}: give two different ones.")
    stages = [stage.name for stage in STAGES]
    if until not in stages:
        raise InputError(
            f"Invalid stage {until!r}{params.did_you_mean(until, stages)}: choose one of {', '.join(stages)}."
        )
    if stages.index(until) < stages.index(FIRST_MEASURED):
        raise InputError(f"Nothing is measured until {until}: choose {FIRST_MEASURED} or a later stage.")
    return one


def _names(name: str, values: tuple[str, str]) -> list[str]:
    """Return the names of the two run folders; values that differ only in odd characters get a hash as well."""
    found = [f"{name}={re.sub(r'[^0-9A-Za-z.+-]+', '_', value).strip('_.')[:60]}" for value in values]
    if found[0].lower() != found[1].lower():
        return found
    return [f"{each}-{files.value_hash(value)[:8]}" for each, value in zip(found, values)]


def _before(name: str, notebooks: Path) -> list[Stage]:
    """Return the stages that come before the first notebook that declares the parameter: equal for both values."""
    return list(
        takewhile(
            lambda stage: all(p.name != name for p in params.notebook_parameters(notebooks / stage.notebook)), STAGES
        )
    )


def _copy(source: Iteration, target: Iteration, stages: Sequence[Stage]) -> list[str]:
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


def _same_questions(one: Iteration, other: Iteration, name: str) -> None:
    first, second = (each.path("data", "test.jsonl") for each in (one, other))
    if files.file_hash(first) != files.file_hash(second):
        raise InputError(
            f"{name} changes the test questions ({first} and {second} differ), so that nothing can be "
            "compared in pairs: vary a parameter that leaves the test split as it is."
        )


FILES = ("ablation.csv", "ablation.md")
RETRIEVAL = "metrics/retrieval.csv"  # notebook 02's records on the test split
RECORD = ("id", "contract", "k", "retriever", "hit", "char_recall")
KS = (1, 3)  # besides the k of the program
ANSWERS = ("f1", "f1_answerable", "f1_no_clause")
HEADLINE = {"retrieval": "chosen", "answers": "sft"}  # the systems that a run ends with
TRAINED = ("retriever", "adapters")  # folders of what a run trains
SEED = 7  # of the bootstrap


@dataclass(frozen=True)
class Arm:
    """One value of the parameter, as given, and the iteration that ran with it."""

    value: str
    iteration: Iteration


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

    Raises InputError as `deltas`.
    """
    from cuadft.evaluation.results import as_csv

    table, notes = ablation_deltas(a.iteration, b.iteration, n_resamples=n_resamples, confidence=confidence)
    text = ablation_markdown(name, a, b, table, notes, preset=preset, overrides=overrides, confidence=confidence)
    files.write_text(folder / "ablation.csv", as_csv(table.assign(parameter=name, value_a=a.value, value_b=b.value)))
    files.write_text(folder / "ablation.md", text)
    return table, text


def ablation_deltas(
    a: Iteration, b: Iteration, *, n_resamples: int = 2000, confidence: float = 0.95
) -> tuple[pd.DataFrame, list[str]]:
    """Return one row per part, system and metric, b minus a on the test split, and what could not be compared.

    Columns: part (retrieval or answers), system (a retriever of metrics/retrieval.csv, or what predicted), metric
    (hit@k, char_recall@k; `ANSWERS`), a, b (means), value, low, high, n, n_contracts, p, detectable (as
    `compare.paired_deltas`), identical (each question has the same score in both), p_holm (corrected over all rows
    that are not identical). Raises InputError if neither part can be compared, and as `compare.paired_delta`.
    """
    import pandas as pd

    from cuadft.evaluation.compare import holm

    rows, notes = [], []
    for part, frames in (("retrieval", _retrieval), ("answers", _answers)):
        (one, left_a), (two, left_b) = frames(a), frames(b)
        notes += dict.fromkeys([*left_a, *left_b])
        for system in [s for s in one if s in two]:
            metrics = [m for m in one[system].columns[2:] if m in two[system] and one[system][m].notna().any()]
            rows += _paired(part, system, one[system], two[system], metrics, n_resamples, confidence)
    if not rows:
        raise InputError(f"Nothing to compare in {a.dir} and {b.dir}: {' '.join(notes) or 'no system is in both.'}")
    table = pd.DataFrame(rows)
    table["p_holm"] = table["p"]
    table.loc[~table["identical"], "p_holm"] = holm(table.loc[~table["identical"], "p"])
    return table, notes


def _paired(
    part: str,
    system: str,
    a: pd.DataFrame,
    b: pd.DataFrame,
    metrics: Sequence[str],
    n_resamples: int,
    confidence: float,
) -> Iterator[dict[str, Any]]:
    from cuadft.evaluation.bootstrap import as_columns
    from cuadft.evaluation.compare import detectable, paired_delta

    for metric in metrics:
        delta = paired_delta(a, b, metric=metric, n_resamples=n_resamples, seed=SEED, confidence=confidence)
        one, other = (frame.set_index("id")[metric].dropna() for frame in (a, b))
        columns = {key: value for key, value in as_columns(delta).items() if key not in ("std_error", "critical")}
        least = detectable(delta.std_error, delta.n_clusters, critical=delta.critical)
        yield {
            "part": part,
            "system": system,
            "metric": metric,
            "a": one.mean(),
            "b": other.mean(),
            **columns,
            "detectable": least,
            "identical": one.equals(other.reindex(one.index)),
        }


def _retrieval(iteration: Iteration) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return per retriever one row per test question with its hit@k and char_recall@k, and what is missing."""
    import pandas as pd

    path = iteration.path(RETRIEVAL)
    if not path.is_file():
        return {}, ["Retrieval is not compared: a run has no metrics/retrieval.csv (notebook 02 writes it)."]
    records = _read_records(path)
    if "split" in records:
        records = records[records["split"] == "test"]
    held_out = rows.split_titles(rows.contract_records(iteration.run, iteration.number), "test")
    records = records[records["contract"].isin(held_out)]
    if records.empty:
        return {}, [f"Retrieval is not compared: {path} holds no record on a test contract."]
    ks = [k for k in sorted({*KS, *_sent(iteration)}) if (records["k"] == k).any()]
    found = {}
    for retriever, own in records.groupby("retriever", sort=False):
        if own.duplicated(["id", "k"]).any():
            twice = own["id"][own.duplicated(["id", "k"])].iloc[0]
            raise InputError(f"{path} measures {retriever} twice on row {twice!r}: run 02_rag_compile again.")
        by_k = {k: own[own["k"] == k].set_index(["id", "contract"])[["hit", "char_recall"]] for k in ks}
        found[retriever] = pd.concat([part.add_suffix(f"@{k}") for k, part in by_k.items()], axis=1).reset_index()
    return found, []


def _read_records(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        records = pd.read_csv(path, dtype={"id": str, "contract": str, "retriever": str}, keep_default_na=False)
        missing = [name for name in RECORD if name not in records]
        numbers = records.astype({"k": int, "hit": float, "char_recall": float}) if not missing else records
    except (ValueError, pd.errors.ParserError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"{path} can't be read ({told}): run 02_rag_compile again.") from None
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r} ({', '.join(RECORD)}): run 02_rag_compile again.")
    return numbers


def _sent(iteration: Iteration) -> list[int]:
    """Return how many passages the program sends, or nothing if there is no program."""
    path = iteration.path("program", "rag.json")
    return [int(files.read_json(path).get("k", 1))] if path.is_file() else []


def _answers(iteration: Iteration) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return per system the scored rows of its test predictions, and which systems are incomplete."""
    from cuadft.evaluation.metrics import score_predictions

    predictions, left_out = read_with_seeds(iteration, seed=0)
    test = [row for row in predictions if row["split"] == "test"]
    if not test:
        return {}, [*left_out, "Answers are not compared: a run has no complete test predictions."]
    frame = score_predictions(test)
    by_system = frame[["system", "id", "contract", *ANSWERS]].groupby("system", sort=False)
    return {system: own.drop(columns="system") for system, own in by_system}, left_out


def training_steps(iteration: Iteration) -> dict[str, int]:
    """Return the training steps that each training.json of an iteration records, by its folder."""
    found = {}
    for path in sorted(p for name in TRAINED for p in iteration.path(name).rglob("training.json")):
        record = files.read_json(path)
        logged = [int(entry["step"]) for entry in record.get("log_history", []) if "step" in entry]
        if "steps" in record or logged:
            found[path.parent.relative_to(iteration.dir).as_posix()] = int(record.get("steps") or max(logged))
    return found


def stage_seconds(iteration: Iteration) -> float:
    """Return how long the iteration's finished stages took."""
    stages = files.read_json(iteration.path("manifest.json"))["stages"]
    return math.fsum(stage["seconds"] or 0 for stage in stages.values())


def row_sources(iteration: Iteration) -> Counter[str]:
    """Return how many rows of each source data/synthetic.jsonl holds."""
    path = iteration.path("data", "synthetic.jsonl")
    return Counter(row.get("source", "unknown") for row in files.read_jsonl(path)) if path.is_file() else Counter()


LABELS = {
    "f1": "answer F1",
    "f1_answerable": "answer F1 where the clause exists",
    "f1_no_clause": "answer F1 where there is no clause",
}
ONE_TRAINING = (
    "Each value was run once: the intervals say what other contracts could change, not what another seed of the "
    "training could. Repeat with `--set seed=8` and another `--run-dir` before a small difference is believed."
)


def ablation_markdown(
    name: str,
    a: Arm,
    b: Arm,
    deltas: pd.DataFrame,
    notes: Sequence[str],
    *,
    preset: str,
    overrides: Sequence[str] = (),
    confidence: float = 0.95,
) -> str:
    """Return the report: what ran, every paired difference, and what exceeds the noise."""
    given = f", with {', '.join(f'`{o}`' for o in overrides)}" if overrides else ""
    opening = (
        f"Preset `{preset}`{given}, run with `{name}={a.value}` (A) and `{name}={b.value}` (B); all other "
        "parameters and seeds are the same, and so are the test questions."
    )
    reading = (
        f"In brackets: {confidence:.0%} intervals that resample whole contracts. Holm: p corrected over all "
        "differences in these tables. Detectable: the true difference that would be found four times in five."
    )
    parts = [
        f"# Ablation of {escaped(name)}: {escaped(a.value)} against {escaped(b.value)}",
        opening,
        _arms(name, a, b),
        "## Findings",
        _bullets(ablation_findings(name, a, b, deltas, confidence)),
        "## Paired differences, B minus A",
        *(f"### {part.capitalize()}\n\n{_table(own)}" for part, own in deltas.groupby("part", sort=False)),
        reading,
        ONE_TRAINING,
        _bullets(notes),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _arms(name: str, a: Arm, b: Arm) -> str:
    trained = [training_steps(arm.iteration) for arm in (a, b)]
    lines = [["run folder", *(arm.iteration.run.name for arm in (a, b))]]
    lines += [
        [f"training steps, {folder}", *(each.get(folder, "none") for each in trained)]
        for folder in dict.fromkeys([*trained[0], *trained[1]])
    ]
    lines += [
        ["generated rows on offer", *(_offered(arm) for arm in (a, b))],
        ["time of all stages", *(duration_text(stage_seconds(arm.iteration)) for arm in (a, b))],
    ]
    return markdown_table(["", f"A: {name}={a.value}", f"B: {name}={b.value}"], lines)


def _offered(arm: Arm) -> str:
    found = row_sources(arm.iteration)
    listed = ", ".join(f"{source} {n:,}" for source, n in sorted(found.items()))
    return f"{found.total():,}" + (f" ({listed})" if listed else "")


def ablation_findings(name: str, a: Arm, b: Arm, deltas: pd.DataFrame, confidence: float) -> list[str]:
    """Return what can be said of the difference, "no difference" included, and what speaks against the comparison."""
    told = []
    trained = [training_steps(arm.iteration) for arm in (a, b)]
    for folder in dict.fromkeys([*trained[0], *trained[1]]):
        steps = [each.get(folder, 0) for each in trained]
        if steps[0] != steps[1]:
            told.append(
                f"Not at equal steps: {folder} was trained for {steps[0]} steps in A and {steps[1]} in B, so "
                f"that the differences are not those of {name} alone."
            )
    if name == "use_synthetic" and not row_sources(b.iteration).total():
        told.append("data/synthetic.jsonl is empty: there was nothing more to train on, so that this shows nothing.")
    if deltas["identical"].all():
        return [*told, f"Every score is the same with either value: {name} changed nothing that is measured here."]
    shown = [row for row in deltas.to_dict("records") if row["system"] == HEADLINE[row["part"]]]
    return [*told, *(_sentence(name, a, b, row, confidence) for row in shown or deltas.to_dict("records"))]


def _sentence(name: str, a: Arm, b: Arm, row: dict[str, Any], confidence: float) -> str:
    what = f"{_label(row['metric'])} of {row['system']}"
    if row["identical"]:
        return f"{what}: no difference, every question has the same score ({row['a']:.3f})."
    n = f"{count_of(row['n'], 'question')} of {count_of(row['n_contracts'], 'contract')}"
    if math.isnan(row["p"]):
        return f"{what}: {row['value']:+.3f} on {n}, too few to test."
    bounds = f"[{row['low']:+.3f}, {row['high']:+.3f}]"
    test = f"{row['value']:+.3f} {bounds}, p {row['p']:.2g}, Holm {row['p_holm']:.2g}, on {n}"
    verdict = noise(row, confidence)
    if verdict in (LARGER, ALONE):
        better = b if row["value"] > 0 else a
        return f"{what}: better with {name}={better.value}, {test}; {verdict}."
    missed = (
        f" A true difference below {row['detectable']:.3f} would be missed more than one time in five."
        if row["detectable"] > 0
        else ""
    )
    return f"{what}: no difference shown ({verdict}), {test}.{missed}"


def _table(rows: pd.DataFrame) -> str:
    head = ("System", "Metric", "A", "B", "B − A", "n", "contracts", "p", "Holm", "Detectable")
    lines = [
        (
            row.system,
            row.metric,
            f"{row.a:.3f}",
            f"{row.b:.3f}",
            _delta(row),
            f"{row.n:,}",
            row.n_contracts,
            _p(row.p),
            _p(row.p_holm),
            f"{row.detectable:.3f}" if row.detectable > 0 else "–",
        )
        for row in rows.itertuples()
    ]
    return markdown_table(head, lines)


def _delta(row: Any) -> str:
    bounds = f" [{row.low:+.3f}, {row.high:+.3f}]" if row.low == row.low else ""
    return "same" if row.identical else f"{row.value:+.3f}{bounds}"


def _p(value: float) -> str:
    return f"{value:.2g}" if value == value else "–"


def _label(metric: str) -> str:
    kind, _, k = metric.partition("@")
    return {"hit": "hit", "char_recall": "character recall"}[kind] + f"@{k}" if k else LABELS[metric]


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {escaped(line)}" for line in lines)
