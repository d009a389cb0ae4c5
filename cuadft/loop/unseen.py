"""Evaluate a system of a run on the contracts of any file in CUAD's layout: what `cuadft evaluate` does and prints.

    done = evaluate_file("runs/cuad_cpu", "new_contracts.json")  # the champion; or system="sft"
    print(evaluation_text(done))

Every question of the file is asked, except on contracts that the run has learned from. The answers are kept batch by
batch, so that the same call goes on after a kill. Nothing of the run itself changes, and `cuadft run` may work there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.data import contracts, rows
from cuadft.data.contracts import Contract
from cuadft.data.schema import run_schema
from cuadft.evaluation import bootstrap, constants, official, results
from cuadft.evaluation.answer_files import count_of
from cuadft.retrieval import saved

FOLDER = "evaluations"  # in the run folder
BESIDE = ("quote_f1", "detection_f1", "coverage_f1")  # measures of the systems without a model that are printed
SEED = 7  # of the bootstrap
TABLE_COLUMNS = ["system", "measure", *bootstrap.INTERVAL_COLUMNS]


@dataclass(frozen=True)
class EvaluatedFile:
    """Hold what was measured: the table (system, measure, value, low, high, n, n_contracts) of three systems.

    The first is the one that was asked (`system`, named with its iteration), the others need no model. predictions: of
    the system that was asked. left_out: titles, each with why.
    """

    out: Path
    system: str
    table: pd.DataFrame = field(repr=False)
    predictions: list[dict[str, Any]] = field(repr=False)
    left_out: dict[str, str] = field(repr=False)
    confidence: float


def evaluate_file(
    run_dir: str | Path,
    file: str,
    *,
    system: str = "",
    iteration: int | None = None,
    out: str | Path = "",
    n_resamples: int = 2000,
    confidence: float = 0.95,
    log: Callable[[str], object] = print,
) -> EvaluatedFile:
    """Ask a system of a run every question of a file, and measure its answers as CUAD does.

    file: a file or folder, as `data.contracts.locate_contracts` takes it. system: "" for the champion of the newest
    iteration that has decided, else a system of the newest iteration. iteration: another one. out: folder of
    predictions.jsonl, measures.csv and measures.json, by default evaluations/<file>-<system> in the run folder.
    Contracts that the run learned from, and contracts that share half their wording with one of them, are left out and
    named; the run's own test contracts stay. Raises InputError for unreadable input, an unknown system, a run that has
    not decided where none is named, and if nothing is left.
    """
    from cuadft.rag import systems

    bootstrap.check_resampling(n_resamples, confidence)
    iteration, name = systems.asked_system(runs.resolve_path(run_dir), system, iteration)
    path = contracts.locate_contracts(file, runs.project_root() / "data")
    kept, left_out, related = _kept(iteration, path, log)
    split = path.stem
    folder = Path(out).expanduser() if out else iteration.run / FOLDER / f"{split}-{name}"
    record, predictions = _answers(iteration, name, kept, folder / "predictions.jsonl", split)
    label, calibration = runs.champion_label(record), runs.calibration_file(record)
    settings = {"n_resamples": n_resamples, "seed": SEED, "confidence": confidence}
    table = _measures(label, predictions, kept, settings)
    known = calibration is not None and (iteration.run / calibration).is_file()
    noted = {"run": iteration.run.name, "iteration": iteration.number, "file": path.name, **settings}
    noted |= record | {"system": label, "calibration": calibration if known else None}  # paths from the run folder
    noted |= {"sha256": files.file_hash(path), "related": related, "left_out": left_out, "contracts": len(kept)}
    noted |= {"questions": len(predictions), "measures": table.to_dict("records")}
    files.write_text(folder / "measures.csv", results.as_csv(table))
    files.write_json(folder / "measures.json", noted)
    return EvaluatedFile(folder, label, table, predictions, left_out, confidence)


def _measures(
    label: str, predictions: list[dict[str, Any]], kept: Sequence[contracts.Contract], settings: Mapping[str, Any]
) -> pd.DataFrame:
    """Return CUAD's measures of the answers, and of what constant systems would have answered."""
    answered = {label: predictions}
    for prediction in constants.constant_answers(predictions, {c.title: c.text for c in kept}):
        answered.setdefault(prediction["system"], []).append(prediction)
    boards = [official.cuad_scores(own, **settings).assign(system=system) for system, own in answered.items()]
    return pd.concat(boards, ignore_index=True)[TABLE_COLUMNS]


def _kept(
    iteration: runs.Iteration, path: Path, log: Callable[[str], object]
) -> tuple[list[contracts.Contract], list[str], list[str]]:
    """Return the contracts of a file to ask about, the titles that are left out, and those of held-out relatives."""
    wanted = contracts.read_contracts(path, run_schema(iteration), "leave out")
    left_out, related = _learned_from(iteration, wanted)
    log(saved.listed(f"{len(wanted)} contracts, {len(left_out)} of them left out", left_out))
    if related:
        log(saved.listed("Kept, since the run held them out, though this flatters it", related))
    kept = [contract for contract in wanted if contract.title not in left_out and contract.rows]
    if not kept:
        raise InputError(f"{path.name} has no question on contracts that the run has not learned from: add some.")
    return kept, left_out, related


def evaluation_text(done: EvaluatedFile) -> str:
    """Return the measures as lines `name value [low, high] n`: those of the system, then few of those without model."""
    failed = sum(p["error"] is not None for p in done.predictions)
    contracts_asked = count_of(len({p["contract"] for p in done.predictions}), "contract")
    lines = [
        f"{done.system}: {count_of(len(done.predictions), 'question')} of {contracts_asked}, {failed} failed; "
        f"{done.confidence:.0%} intervals over contracts."
    ]
    lines += ["The same command asks the failed ones again."] if failed else []
    for row in done.table.itertuples():
        if row.system == done.system or row.measure in BESIDE:
            name = row.measure if row.system == done.system else f"{row.system}.{row.measure}"
            lines.append(f"{name} {row.value:.3f} [{row.low:.3f}, {row.high:.3f}] {row.n}")
    return "\n".join(lines)


def _learned_from(iteration: runs.Iteration, wanted: Sequence[Contract]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the contracts to leave out, and held-out ones of the run that only resemble a training contract.

    Both are titles with the reason. Of CUAD's own split some test contracts resemble training contracts; they stay.
    """
    records = {record["title"]: record for record in rows.contract_records(iteration.run, iteration.number)}
    learned = saved.learned_by_run(iteration, records.values())
    texts = {title: records[title]["text"] for title in learned if title in records}
    known = saved.known_contracts(wanted, learned, texts)
    own = {c.title for c in wanted if c.title not in learned and records.get(c.title, {}).get("text") == c.text}
    left_out = {title: why for title, why in known.items() if title not in own}
    return left_out, {title: why for title, why in known.items() if title in own}


def _answers(
    iteration: runs.Iteration, name: str, kept: Sequence[Contract], path: Path, split: str
) -> tuple[runs.ChampionRecord, list[dict[str, Any]]]:
    """Return the record of the system and its predictions; questions that `path` holds already are not asked again."""
    from cuadft.rag import inference, systems

    system = systems.recorded_system(iteration, name)
    system.program.retriever = saved.with_texts(system.program.retriever, kept)
    questions = [row for contract in kept for row in contract.rows]
    named = {"system": name, "split": split, "batch_size": system.batch_size}
    predictions = inference.answer_rows(system.program, system.lm, questions, path, **named)
    return system.record, predictions
