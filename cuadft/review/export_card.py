"""The model card of an exported system, written from the figures of its own run.

    source = read_source(system, iteration)         # what the run has recorded about a system
    text = card(source, notes)                      # README.md of the exported folder

A figure that the run has not measured is not made up: the card says that it is missing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from cuadft.core import files, runs
from cuadft.core.recorded import recorded_parameters

if TYPE_CHECKING:
    from cuadft.rag.systems import System

TEMPLATE = Path(__file__).with_name("card.md")
APACHE = ("HuggingFaceTB/SmolLM2", "Qwen/Qwen3", "sentence-transformers/")  # how the ids of Apache-2.0 models begin
MEASURES = {
    "quote_f1": "quote F1: are the right words quoted",
    "detection_f1": "detection F1: is it known whether there is a clause",
    "false_answer": "false answers, of the questions without a clause",
    "false_refusal": "false refusals, of the questions with a clause",
    "f1_answerable": "token F1 of the questions with a clause",
    "f1": "token F1 over all questions (a constant refusal is hard to beat)",
}
CALIBRATED = {"exists": "whether there is a clause", "best_quote": "whether the answer's words are right"}
BESIDE = ("always_refuses", "top_passage")  # systems without a model
SPLITS = {"official": "CUAD's own, which has related contracts on both sides"}
BY_GROUP = "by group: contracts that share a filer or half of their wording are on one side"


@dataclass(frozen=True)
class Source:
    """A system in its run: its record, the iterations that were asked and that made it, and what the run holds.

    base, embedder: ids of models; of a folder the name alone, since its path means nothing elsewhere. data: the name of
    the contracts' source, "CUAD v1" or another. contracts: the records of all of them.
    """

    record: runs.ChampionRecord
    asked: runs.Iteration
    made_in: runs.Iteration
    base: str
    embedder: str
    data: str
    split: str
    max_tokens: int
    contracts: Sequence[Mapping[str, Any]] = field(repr=False)

    @property
    def system(self) -> str:
        """The system's name, such as "sft"."""
        return self.record["system"]

    @property
    def label(self) -> str:
        """The system's name with its iteration."""
        return runs.champion_label(self.record)


def read_source(made: System, iteration: runs.Iteration) -> Source:
    """Return what a run has recorded about a system of an iteration."""
    from cuadft.data.rows import contract_records

    known: dict[str, Any] = {}
    for number in range(1, iteration.number + 1):
        known |= recorded_parameters(runs.Iteration(iteration.run, number))
    folder = (runs.calibration_file(made.record) or iteration.dir.name).partition("/")[0]
    cuad = str(known.get("cuad", "sample"))
    data = {"sample": "cuadft's invented sample contracts", "auto": "CUAD v1"}.get(cuad, Path(cuad).name)
    return Source(
        record=made.record,
        asked=iteration,
        made_in=runs.Iteration(iteration.run, int(folder.removeprefix("iter-"))),
        base=_public(known["model"]),
        embedder=_public(known["embedder"]),
        data="CUAD v1" if data.lower().startswith("cuad_v1") else data,
        split=str(known.get("split", "")),
        max_tokens=made.lm.kwargs["max_tokens"],
        contracts=contract_records(iteration.run, iteration.number),
    )


def card(source: Source, notes: Sequence[str]) -> str:
    """Return the model card: the hub's settings, then the text of card.md with the run's figures."""
    values = {
        "title": f"{source.asked.run.name}: {source.label}",
        "notes": "\n".join(f"- {note}" for note in notes),
        "trained": _training(source),
        "rows": _data(source),
        "split_by": SPLITS.get(source.split, BY_GROUP),
        "figures": _figures(source),
        "licence": _licence(source),
    }
    values |= {name: getattr(source, name) for name in ("base", "embedder", "data", "system", "label", "max_tokens")}
    return f"---\n{_settings(source)}\n---\n\n{Template(TEMPLATE.read_text('utf-8')).substitute(values)}"


def _public(name: str) -> str:
    return Path(name).name if os.path.isdir(os.path.expanduser(name)) or name.startswith((".", "/", "~")) else name


def _settings(source: Source) -> str:
    """Return the hub's settings as YAML."""
    from huggingface_hub import ModelCardData

    return ModelCardData(
        language="en",
        license="apache-2.0" if source.base.startswith(APACHE) else "other",
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=source.base if "/" in source.base else None,
        tags=["legal", "contracts", "cuad", "dspy", "cuadft"],
    ).to_yaml()


def _data(source: Source) -> str:
    """Return the table of contracts and questions by split."""
    contracts, lines = Counter(record["split"] for record in source.contracts), []
    for name in ("train", "dev", "test", "synthetic"):
        path = source.made_in.path("data", f"{name}.jsonl")
        count = len(files.read_jsonl(path)) if path.is_file() else 0
        shown = contracts[name] if name != "synthetic" else "those of train"
        lines.append(f"| {'generated' if name == 'synthetic' else name} | {shown} | {count} |")
    return "\n".join(lines)


def _training(source: Source) -> str:
    if not source.record["weights"]:
        return "The weights are those of the base model as they are; prompt, search and confidence were fitted."
    paths = {name: source.made_in.path("adapters", name, "training.json") for name in ("sft", source.system)}
    counts = {name: len(files.read_json(path).get("rows", [])) for name, path in paths.items() if path.is_file()}
    return "\n".join(f"- `{name}`: {count} rows" for name, count in counts.items()) or "The run does not tell."


def _figures(source: Source) -> str:
    """Return the test scores, each with its interval and number of questions, beside systems without a model."""
    found = {(row["system"], row["metric"]): row for row in _rows(source, "scoreboard.csv") if row["split"] == "test"}
    shown = [name for name in (source.system, *BESIDE) if (name, "quote_f1") in found]
    if source.system not in shown:
        return "This system has not been evaluated: the run has no scoreboard of its test answers."
    lines = [f"| measure | {' | '.join(shown)} | questions | contracts |", f"| --- |{' --- |' * (len(shown) + 2)}"]
    for metric, meaning in MEASURES.items():
        cells = [_cell(found.get((name, metric), {})) for name in shown]
        own = found.get((source.system, metric), {})
        lines.append(f"| {meaning} | {' | '.join(cells)} | {own.get('n', 0)} | {own.get('n_contracts', 0)} |")
    failed = found[source.system, "quote_f1"]["failed"] or 0
    lines += ["", f"- Answers that failed: {failed}.", f"- {_chosen(source)}"]
    for row in _rows(source, "metrics/confidence.csv"):
        if row["system"] == source.system and row["of"] in CALIBRATED:
            error = _cell({"value": row["ece"], "low": row["ece_low"], "high": row["ece_high"]}, 3)
            lines.append(f"- Expected calibration error, {CALIBRATED[row['of']]}: {error}, n = {row['n']}.")
    return "\n".join(lines)


def _rows(source: Source, name: str) -> list[dict[str, str]]:
    path = source.made_in.path(name)
    return [row.values for row in files.read_table(path)] if path.is_file() else []


def _cell(row: Mapping[str, str], digits: int = 2) -> str:
    value, low, high = (float(row[key]) if row.get(key) else None for key in ("value", "low", "high"))
    if value is None:
        return "none"
    return f"{value:.{digits}f}" + (f" [{low:.{digits}f}, {high:.{digits}f}]" if low is not None else "")


def _chosen(source: Source) -> str:
    """Return why the system is the champion, or that it is none."""
    path = source.asked.path(runs.DECISION)
    if not path.is_file() or not runs.same_champion(runs.outgoing_champion(source.asked), source.record):
        return "It is not the champion of its run."
    decision = files.read_json(path)
    if not runs.same_champion(decision["promoted"], source.record):
        return "A person made it the champion of its run, over the gate's choice."
    return f"It is the champion of its run. The gate's reason: {decision['reason']}"


def _licence(source: Source) -> str:
    models = dict.fromkeys((source.base, source.embedder))
    lines = [f"- {name}: {'Apache-2.0' if name.startswith(APACHE) else 'see its own card'}." for name in models if name]
    if source.data == "CUAD v1":
        lines.append("- CUAD v1 by The Atticus Project: CC BY 4.0 (Hendrycks, Burns, Chen and Ball, 2021).")
    else:
        lines.append(f"- {source.data}: {'Apache-2.0' if 'sample' in source.data else 'for their owner to say'}.")
    return "\n".join(lines)
