"""Run a preset once per value of one parameter, all else equal, to see what that parameter is worth.

    done = ablation.run("params/ablation.yaml", "use_synthetic", ("false", "true"))
    print(done.text)

Each value has a run folder of its own: `cuadft status` shows it, and a killed ablation goes on where it stopped.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

from cuadft import ablation_report, declarations, files, loop, params, runs
from cuadft.errors import InputError
from cuadft.holder import lock
from cuadft.manifest import Manifest
from cuadft.runs import Iteration
from cuadft.stages import STAGES, Stage

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


def run(
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
    from cuadft import stats

    stats.check(n_resamples, confidence)
    notebooks = runs.root() / "notebooks"
    chosen = _checked(preset, name, values, overrides, until, notebooks)
    folder = runs.resolve(run_dir or chosen.get("run_dir", runs.root() / "runs" / params.preset_file(preset).stem))
    first, second = (Iteration(folder / each, 1) for each in _names(name, values))
    for stale in ablation_report.FILES:
        (folder / stale).unlink(missing_ok=True)

    def go(which: int, last: str) -> None:
        own, given = (first, second)[which], f"{name}={values[which]}"
        loop.run(preset, run_dir=own.run, until=last, skip=SKIPPED, overrides=[*overrides, given],
                 log=lambda line: log(f"{given} {line}"))  # fmt: skip

    _run_both(go, first, second, name, values, until, log)
    arms = [ablation_report.Arm(value, each) for value, each in zip(values, (first, second))]
    settings = {"n_resamples": n_resamples, "confidence": confidence}
    deltas, text = ablation_report.write(folder, name, *arms, preset=str(preset), overrides=overrides, **settings)
    return Ablation(folder, (first.run, second.run), deltas, text)


def _run_both(
    go: Callable[[int, str], None], first: Iteration, second: Iteration, name: str, values: tuple[str, str], until: str,
    log: Callable[[str], object],
) -> None:  # fmt: skip
    shared = _before(name, runs.root() / "notebooks")
    if not shared:  # the questions may differ: find that out before the long stages
        go(0, STAGES[0].name)
        go(1, STAGES[0].name)
        _same_questions(first, second, name)
    go(0, until)
    if copied := _copy(first, second, shared):
        log(f"{name}={values[1]} shares {', '.join(copied)} with {name}={values[0]}")
    go(1, until)
    _same_questions(first, second, name)


def _checked(preset: str | Path, name: str, values: tuple[str, str], overrides: Sequence[str], until: str,
             notebooks: Path) -> dict[str, object]:  # fmt: skip
    """Return the preset's values with the overrides; raises InputError for what would fail or compare nothing."""
    if twice := [o for o in overrides if o.partition("=")[0].strip() == name]:
        raise InputError(f"--set {twice[0]}: {name} is what this ablation varies. Give its two values only.")
    if name == "run_dir":
        raise InputError("run_dir is no parameter to vary: it changes nothing but where the files lie.")
    one, other = (params.load(preset, [*overrides, f"{name}={value}"], notebooks) for value in values)
    if one == other:
        raise InputError(f"{values[0]} and {values[1]} are the same value of {name}: give two different ones.")
    stages = [stage.name for stage in STAGES]
    if until not in stages:
        raise InputError(f"Invalid stage {until!r}{params.nearest(until, stages)}: choose one of {', '.join(stages)}.")
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
    return list(takewhile(
        lambda stage: all(p.name != name for p in declarations.in_notebook(notebooks / stage.notebook)), STAGES
    ))  # fmt: skip


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
        raise InputError(f"{name} changes the test questions ({first} and {second} differ), so that nothing can be "
                         "compared in pairs: vary a parameter that leaves the test split as it is.")  # fmt: skip
