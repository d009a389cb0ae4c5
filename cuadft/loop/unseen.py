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

from cuadft.core import files, params, runs
from cuadft.core.errors import InputError
from cuadft.data import contracts, rows
from cuadft.data.contracts import Contract, Row
from cuadft.evaluation import bootstrap, constants, official, results
from cuadft.evaluation.answer_files import count_of
from cuadft.loop import lineage, snapshot
from cuadft.retrieval import report, saved

CHAMPION = "champion"  # as `rag.systems` names the system that an iteration leaves
FOLDER = "evaluations"  # in the run folder
LEARNED_SPLITS = {"dev": saved.TUNED, "train": saved.TRAINED, "all": saved.TRAINED, rows.PLAIN: saved.TRAINED}
BESIDE = ("quote_f1", "detection_f1", "coverage_f1")  # measures of the systems without a model that are printed
TITLES_SHOWN = 20  # left-out contracts that are named on the screen
SEED = 7  # of the bootstrap
NAMED_FILES = ("sample", "auto")  # what stands for a file; else the file's own name is in the name of the folder
TABLE_COLUMNS = ["system", "measure", *bootstrap.INTERVAL_COLUMNS]


@dataclass(frozen=True)
class _Asked:
    """The system that is asked: the iteration that it belongs to, its name there and its record."""

    iteration: runs.Iteration
    name: str
    record: Mapping[str, Any]
    parameters: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Return the name with the iteration that made the system, such as "sft of iteration 2"."""
        return runs.champion_label(self.record)


@dataclass(frozen=True)
class EvaluatedFile:
    """Hold what was measured: the table (system, measure, value, low, high, n, n_contracts) of three systems.

    The first is the one that was asked (`system`), the others need no model. predictions: of the system that was asked.
    """

    out: Path
    system: str
    table: pd.DataFrame = field(repr=False)
    predictions: list[dict[str, Any]] = field(repr=False)
    left_out: dict[str, str] = field(repr=False)  # title -> why
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
    iteration that has decided, else a system of the newest iteration, or one of `core.runs.CONSTANTS`, which need no
    model. iteration: another one. out: folder of predictions.jsonl, measures.csv and measures.json, by default
    evaluations/<file>-<system> in the run folder.
    Contracts that the run learned from, and contracts that share half their wording with one of them, are left out and
    named; the run's own test contracts stay. Raises InputError for unreadable input, an unknown system, a run that has
    not decided where none is named, and if nothing is left.
    """
    bootstrap.check_resampling(n_resamples, confidence)
    asked = _asked_system(runs.resolve_path(run_dir), system, iteration)
    path = contracts.locate_contracts(file, runs.project_root() / "data")
    wanted = contracts.read_contracts(path)
    left_out, related = _learned_from(asked.iteration, wanted)
    for line in [*report.left_out_lines(wanted, left_out, shown=TITLES_SHOWN), *_related_lines(related)]:
        log(line)
    kept = _with_questions(wanted, left_out, path)
    split = file if file in NAMED_FILES else path.stem
    folder = Path(out).expanduser() if out else asked.iteration.run / FOLDER / f"{split}-{asked.name}"
    folder.mkdir(parents=True, exist_ok=True)
    predictions, others = _answers(asked, kept, folder / "predictions.jsonl", split)
    settings = {"n_resamples": n_resamples, "seed": SEED, "confidence": confidence}
    answered = {asked.label: predictions} | others
    boards = [official.cuad_scores(own, **settings).assign(system=name) for name, own in answered.items()]
    table = pd.concat(boards, ignore_index=True)[TABLE_COLUMNS]
    noted = {"file": path.name, "sha256": files.file_hash(path), "related": related, **settings, "left_out": left_out}
    noted |= {"contracts": len(kept), "questions": len(predictions)}
    noted |= {"seconds": round(sum(p["seconds"] for p in predictions), 1), "measures": table.to_dict("records")}
    files.write_text(folder / "measures.csv", results.as_csv(table))
    files.write_json(folder / "measures.json", _origin_of(asked) | noted)
    return EvaluatedFile(folder, asked.label, table, predictions, left_out, confidence)


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


# Which system is asked.


def _asked_system(run: Path, system: str, number: int | None) -> _Asked:
    """Return the system; raises InputError if the run, its iteration or its system is unknown."""
    from cuadft.rag.systems import find_record

    found = {iteration.number: iteration for iteration in lineage.run_iterations(run)}
    decided, name = runs.decided_iterations(run), system or CHAMPION
    if name == CHAMPION and not decided:
        names = ", ".join(_systems_of(found[max(found)]))
        raise InputError(f"{run} has not decided on a champion yet: name a system with --system, one of {names}.")
    iteration = found.get((decided[-1] if name == CHAMPION else max(found)) if number is None else number)
    if iteration is None:
        numbers = ", ".join(map(str, found))
        raise InputError(f"No iteration {number} in {run}: choose one of {numbers}.")
    names = [*[CHAMPION] * (iteration.number in decided), *_systems_of(iteration)]
    if name not in names:
        hint = params.did_you_mean(name, names)
        raise InputError(f"'{name}' is no system of {iteration.dir}{hint}: choose one of {', '.join(names)}.")
    parameters: dict[str, Any] = {}  # an iteration that has not come as far has those of the earlier ones
    for earlier in range(1, iteration.number + 1):
        parameters |= snapshot.shown_parameters(runs.Iteration(run, earlier))
    record = dict.fromkeys(runs.CHAMPION_PARTS) | {"system": name}
    if name not in runs.CONSTANTS:
        record = find_record(iteration, name, parameters.get("tuned_program", "rag"))
    return _Asked(iteration, name, record, parameters)


def _systems_of(iteration: runs.Iteration) -> list[str]:
    """Return the names of the systems of an iteration whose files are there, simple ones first."""
    folders = [path for path in iteration.path("adapters").glob("*") if not path.name.startswith(".")]
    trained = [path.name for path in folders if runs.has_weights(path) and path.name not in runs.NOT_TRAINED]
    programs = [name for name in runs.PROGRAMS if iteration.path("program", f"{name}.json").is_file()]
    later = ["incumbent", "retriever"] if iteration.previous and programs else []
    return sorted([*runs.CONSTANTS, *programs, *later, *trained], key=runs.simplicity)


def _parameter(asked: _Asked, name: str) -> Any:
    if name not in asked.parameters:
        raise InputError(
            f"{asked.iteration.path('manifest.json')} records no {name}, so that {asked.label} can't be built as it "
            "was: finish that iteration with `cuadft run`."
        )
    return asked.parameters[name]


# Which contracts are left out.


def _learned_from(iteration: runs.Iteration, wanted: Sequence[Contract]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the contracts to leave out, and held-out ones of the run that only resemble a training contract.

    Both are titles with the reason. Of CUAD's own split some test contracts resemble training contracts; they stay.
    """
    records = {record["title"]: record for record in rows.contract_records(iteration.run, iteration.number)}
    learned = saved.learned_in_data(iteration.dir)
    learned |= {title: LEARNED_SPLITS[one["split"]] for title, one in records.items() if one["split"] in LEARNED_SPLITS}
    texts = {title: records[title]["text"] for title in learned if title in records}
    known = saved.known_contracts(wanted, learned, texts)
    own = {c.title for c in wanted if c.title not in learned and records.get(c.title, {}).get("text") == c.text}
    left_out = {title: why for title, why in known.items() if title not in own}
    return left_out, {title: why for title, why in known.items() if title in own}


def _related_lines(related: Mapping[str, str]) -> list[str]:
    """Return lines on the test contracts of the run that stay, although they resemble a training contract."""
    if not related:
        return []
    head = f"Kept, since the run itself held them out, though this flatters it ({count_of(len(related), 'contract')}):"
    return [head, *report.named_lines(related, TITLES_SHOWN)]


def _with_questions(wanted: Sequence[Contract], left_out: Mapping[str, str], path: Path) -> list[Contract]:
    """Return the contracts that are not left out and have questions; raises InputError if there are none."""
    kept = [contract for contract in wanted if contract.title not in left_out]
    if not kept:
        raise InputError(
            f"All {len(wanted)} contracts of {path.name} are left out, because the run has learned from them: give a "
            "file with other contracts."
        )
    if asked := [contract for contract in kept if contract.rows]:
        return asked
    raise InputError(f"{path.name} has no question on the {len(kept)} contracts that are not left out: add some.")


# The answers and their measures.


def _answers(
    asked: _Asked, kept: Sequence[Contract], path: Path, split: str
) -> tuple[list[dict[str, Any]], dict[str, list[dict[str, Any]]]]:
    """Return the predictions of the system that is asked, and those of the systems without a model, by name."""
    questions, constant = [row for contract in kept for row in contract.rows], asked.name in runs.CONSTANTS
    made = _found_only(asked, kept, questions, split) if constant else _ask(asked, kept, questions, path, split)
    beside: dict[str, list[dict[str, Any]]] = {}
    for prediction in constants.constant_answers(made, {c.title: c.text for c in kept}):
        beside.setdefault(prediction["system"], []).append(prediction)
    if constant:
        made = beside.pop(asked.name)
        files.write_jsonl(path, made)
    return made, beside


def _ask(
    asked: _Asked, kept: Sequence[Contract], questions: Sequence[Row], path: Path, split: str
) -> list[dict[str, Any]]:
    """Return the answers of a system with a model; those that `path` holds already are not asked again."""
    from cuadft.rag import inference, systems

    needed = {name: _parameter(asked, name) for name in ("model", "embedder", "tuned_program", "batch_size")}
    (system,) = systems.build_systems(
        asked.iteration,
        [asked.name],
        rag_lm=asked.parameters.get("rag_lm", ""),
        max_tokens=_parameter(asked, "max_new_tokens"),
        asked=(),
        **needed,
    )
    system.program.retriever = saved.with_texts(system.program.retriever, kept)
    settings = {"system": asked.name, "split": split, "batch_size": needed["batch_size"]}
    return inference.answer_rows(system.program, system.lm, questions, path, **settings)


def _found_only(asked: _Asked, kept: Sequence[Contract], questions: Sequence[Row], split: str) -> list[dict[str, Any]]:
    """Return the questions as predictions that hold the best passage, if a system without a model needs it."""
    named = {"system": "", "split": split}
    if asked.name != constants.TOP_PASSAGE:
        return [{**row, **named} for row in questions]
    from cuadft.rag.inference import passage_record

    retriever = saved.with_texts(saved.load_retriever(asked.iteration, _parameter(asked, "embedder")), kept)
    found = retriever.search_many([(row["question"], row["contract"]) for row in questions], k=1)
    return [
        {**row, **named, "passages": [passage_record(hit) for hit in hits]}
        for row, hits in zip(questions, found, strict=True)
    ]


def _origin_of(asked: _Asked) -> dict[str, Any]:
    """Return what is noted of the system; its paths count from the run folder."""
    places = {name: asked.record.get(name) for name in runs.CHAMPION_PARTS[1:]}
    calibration = runs.calibration_file(asked.record)
    known = calibration is not None and (asked.iteration.run / calibration).is_file()
    noted = {"run": asked.iteration.run.name, "iteration": asked.iteration.number, "system": asked.label}
    return noted | places | {"calibration": calibration if known else None}
