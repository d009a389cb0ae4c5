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
from typing import TYPE_CHECKING, Any

from cuadft.core import files, runs
from cuadft.core.recorded import recorded_parameters
from cuadft.data.schema import CONTRACT, PACKAGED, Schema, run_schema

if TYPE_CHECKING:
    from cuadft.rag.systems import System

TEMPLATE = Path(__file__).with_name("card.md")
APACHE = ("HuggingFaceTB/SmolLM2", "Qwen/Qwen3", "sentence-transformers/")  # how the ids of Apache-2.0 models begin
BESIDE = ("always_refuses", "top_passage")  # systems without a model


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
    def schema(self) -> Schema:
        """The questions of the run."""
        return run_schema(self.asked)

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
    import jinja2

    found = {(row["system"], row["metric"]): row for row in _rows(source, "scoreboard.csv") if row["split"] == "test"}
    values = {
        "settings": _settings(source),
        "run": source.asked.run.name,
        "notes": notes,
        "counts": _counts(source),
        "trained": _trained(source),
        "scores": found,
        "shown": [name for name in (source.system, *BESIDE) if (name, "quote_f1") in found],
        "calibration": {
            row["of"]: row for row in _rows(source, "metrics/confidence.csv") if row["system"] == source.system
        },
        "chosen": _chosen(source),
        "apache": APACHE,
        "cell": _cell,
        "source": source,
        "words": source.schema.naming,
        "example": _example(source.schema),
    }
    options = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    template = jinja2.Template(TEMPLATE.read_text("utf-8"), **options, undefined=jinja2.StrictUndefined)
    return template.render(values)


def _example(schema: Schema) -> dict[str, str]:
    """Return a text and a question for the card's example, which it shows as Python strings."""
    if schema.document == CONTRACT:
        text = "This Agreement is governed by the law of Ohio."
        return {"text": text, "question": "Governing Law: Which state's law governs the contract?"}
    asked = [each.question for each in schema.categories.values()] or ["What does it say?"]
    return {"text": f"The text of the {schema.document}.", "question": asked[0].replace('"', "'").replace("\\", "/")}


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
        tags=[*(["legal", "contracts", "cuad"] if source.schema.name == PACKAGED else []), "dspy", "cuadft"],
    ).to_yaml()


def _counts(source: Source) -> dict[str, tuple[int, int]]:
    """Return the numbers of contracts and of questions by split; generated questions are about train's contracts."""
    contracts = Counter(record["split"] for record in source.contracts)
    paths = {name: source.made_in.path("data", f"{name}.jsonl") for name in ("train", "dev", "test", "synthetic")}
    asked = {name: len(files.read_jsonl(path)) if path.is_file() else 0 for name, path in paths.items()}
    return {name: (contracts["train" if name == "synthetic" else name], count) for name, count in asked.items()}


def _trained(source: Source) -> dict[str, int]:
    """Return how many rows each training behind the system's weights has seen, as far as it is noted."""
    names = ("sft", source.system) if source.record["weights"] else ()
    paths = {name: source.made_in.path("adapters", name, "training.json") for name in names}
    return {name: len(files.read_json(path).get("rows", [])) for name, path in paths.items() if path.is_file()}


def _rows(source: Source, name: str) -> list[dict[str, str]]:
    path = source.made_in.path(name)
    return [row.values for row in files.read_table(path)] if path.is_file() else []


def _cell(row: Mapping[str, str], names: Sequence[str] = ("value", "low", "high"), digits: int = 2) -> str:
    """Return a figure with its interval, such as "0.66 [0.54, 0.76]"; "none" for what was not measured."""
    value, low, high = (float(row[name]) if row.get(name) else None for name in names)
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
