"""The model card of an exported system, written from the figures of its own run.

    source = read_source(system, iteration)         # what the run has recorded about a system
    text = card(source, folder, notes)              # README.md of the exported folder

A figure that the run has not measured is not made up: the card says that it is missing.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING, Any

from cuadft.core import files, runs
from cuadft.core.recorded import recorded_parameters

if TYPE_CHECKING:
    from cuadft.rag.systems import System

TEMPLATE = Path(__file__).with_name("card.md")
LICENCES = {"HuggingFaceTB/SmolLM2": "apache-2.0", "Qwen/Qwen3": "apache-2.0", "sentence-transformers/": "apache-2.0"}
MEASURES = {
    "quote_f1": "quote F1: are the right words quoted",
    "detection_f1": "detection F1: is it known whether there is a clause",
    "false_answer": "false answers, of the questions without a clause",
    "false_refusal": "false refusals, of the questions with a clause",
    "f1_answerable": "token F1 of the questions with a clause",
    "f1": "token F1 over all questions (a constant refusal is hard to beat)",
}
BESIDE = ("always_refuses", "top_passage")  # systems without a model
FILES = {
    "model/": "merged weights (safetensors), tokenizer, chat template; any program that reads transformers' models",
    "adapter/": "the LoRA adapter alone, for PEFT; its base is {base}",
    "gguf/": "the merged weights for llama.cpp and Ollama, in 16 bits (f16) and in 8 (q8_0), and Ollama's Modelfile",
    "program.json": "the DSPy program: instructions, examples and the number of passages",
    "confidence.json": "how this system's probabilities were calibrated on the dev contracts",
    "retriever/": "the search, its clause classifiers and the calibrated confidence (confidence.json in it)",
    "export.json": "what was exported, and the SHA-256 of each file",
}


@dataclass(frozen=True)
class Source:
    """A system in its run: record, base model, and the places and figures that an export takes from there."""

    run: str
    record: runs.ChampionRecord
    made_in: runs.Iteration
    asked: runs.Iteration
    parameters: Mapping[str, Any] = field(repr=False)
    settings: Mapping[str, Any] = field(repr=False)

    @property
    def system(self) -> str:
        """The system's name, such as "sft"."""
        return self.record["system"]

    @property
    def label(self) -> str:
        """The system's name with its iteration."""
        return runs.champion_label(self.record)

    @property
    def title(self) -> str:
        """What the exported model is called."""
        return f"{self.run}: {self.label}"

    @property
    def base(self) -> str:
        """The base model's id; of a folder its name alone, since its path means nothing elsewhere."""
        return self.settings["model"]

    @property
    def retriever(self) -> Path:
        """The folder of the system's search."""
        kept = self.record.get("retriever")
        return self.asked.run / kept if kept else self.asked.path("retriever")

    @property
    def answers(self) -> Path:
        """The file of the system's test answers."""
        return self.made_in.path("predictions", f"{self.system}.test.jsonl")

    @cached_property
    def contracts(self) -> list[dict[str, Any]]:
        """The records of the run's contracts."""
        from cuadft.data.rows import contract_records

        return contract_records(self.asked.run, self.asked.number)

    @cached_property
    def texts(self) -> dict[str, str]:
        """The text of each contract of the run."""
        return {record["title"]: record["text"] for record in self.contracts}


def read_source(made: System, iteration: runs.Iteration) -> Source:
    """Return what a run has recorded about a system of an iteration."""
    parameters: dict[str, Any] = {}
    for number in range(1, iteration.number + 1):
        parameters |= recorded_parameters(runs.Iteration(iteration.run, number))
    record = made.record
    folder = (runs.calibration_file(record) or iteration.dir.name).partition("/")[0]
    made_in = runs.Iteration(iteration.run, int(folder.removeprefix("iter-")))
    settings = {name: _public(parameters[name]) for name in ("model", "embedder")}
    settings |= {"max_new_tokens": made.lm.kwargs["max_tokens"], "k": made.program.k}
    settings |= {"threshold": made.program.threshold}
    return Source(iteration.run.name, record, made_in, iteration, parameters, settings)


def card(source: Source, folder: Path, notes: Sequence[str]) -> str:
    """Return the model card: the hub's settings, then the text of card.md with the run's figures."""
    held = [name for name in FILES if (folder / name).exists() or name == "export.json"]
    values = {
        "title": source.title,
        "base": source.base,
        "label": source.label,
        "files": "\n".join(f"| `{name}` | {FILES[name].format(base=source.base)} |" for name in held),
        "notes": "\n".join(f"- {note}" for note in notes) or "- Nothing was left out.",
        "use": _use(source, folder),
        "data": _data(source),
        "training": _training(source),
        "figures": _figures(source),
        "licence": _licence(source),
    }
    return f"---\n{_settings(source)}\n---\n\n{Template(TEMPLATE.read_text('utf-8')).substitute(values)}"


def _public(name: str) -> str:
    """Return a model's id, or the name of a model's folder without its path."""
    return Path(name).name if os.path.isdir(os.path.expanduser(name)) or name.startswith((".", "/", "~")) else name


def _settings(source: Source) -> str:
    """Return the hub's settings as YAML."""
    from huggingface_hub import EvalResult, ModelCardData

    found = {row["metric"]: row for row in _scores(source, source.system) if row["metric"] in MEASURES}
    results = [
        EvalResult("question-answering", _data_name(source), _data_name(source), name, round(float(row["value"]), 4))
        for name, row in found.items()
        if row["value"]
    ]
    named = (
        {"model_name": source.title.replace(": ", "-").replace(" ", "-"), "eval_results": results} if results else {}
    )
    data = ModelCardData(
        language="en",
        license=_known_licence(source.base) or "other",
        library_name="transformers",
        pipeline_tag="text-generation",
        base_model=source.base if "/" in source.base else None,
        datasets=["theatticusproject/cuad"] if _data_name(source) == "CUAD v1" else None,
        tags=["legal", "contracts", "dspy", "rag", "cuadft"],
        **named,
    )
    return data.to_yaml()


def _known_licence(model: str) -> str:
    return next((licence for start, licence in LICENCES.items() if model.startswith(start)), "")


def _data_name(source: Source) -> str:
    cuad = str(source.parameters.get("cuad", ""))
    if cuad == "sample":
        return "cuadft's sample contracts"
    return "CUAD v1" if cuad in ("", "auto") or "cuad_v1" in cuad.lower() else Path(cuad).name


def _use(source: Source, folder: Path) -> str:
    """Return the part of the card on how to ask, as far as the parts are there."""
    if not (folder / "model").is_dir():
        return "The language model is an API model: `program.json` holds the prompt that it was asked with."
    shown = (TEMPLATE.with_name("card_use.md")).read_text("utf-8")
    values = {"embedder": source.settings["embedder"], "max_tokens": source.settings["max_new_tokens"]}
    ollama = f"ollama create {source.system} -f Modelfile && ollama run {source.system}"
    values["ollama"] = f"    cd gguf && {ollama}" if (folder / "gguf" / "Modelfile").is_file() else "(no Modelfile)"
    return Template(shown).substitute(values)


def _data(source: Source) -> str:
    counts = Counter(record["split"] for record in source.contracts)
    asked = {}
    for name in ("train", "dev", "test", "synthetic"):
        path = source.made_in.path("data", f"{name}.jsonl")
        asked[name] = len(files.read_jsonl(path)) if path.is_file() else 0
    split = (
        "CUAD's own, which has related contracts on both sides"
        if source.parameters.get("split") == "official"
        else ("by group: contracts that share a filer or half of their wording are on one side")
    )
    lines = [
        f"{_data_name(source)}; the split is {split}.",
        "",
        "| split | contracts | questions |",
        "| --- | --- | --- |",
    ]
    lines += [f"| {name} | {counts[name]} | {asked[name]} |" for name in ("train", "dev", "test")]
    return "\n".join([*lines, "", f"{asked['synthetic']} further questions on training contracts were generated."])


def _training(source: Source) -> str:
    if not source.record["weights"]:
        return f"The weights are those of {source.base} as they are; prompt, search and confidence were fitted."
    lines = []
    for name in dict.fromkeys(("sft", source.system)):
        path = source.made_in.path("adapters", name, "training.json")
        if path.is_file():
            lines.append(f"- `{name}`: trained on {len(files.read_json(path).get('rows', []))} rows")
    return "\n".join(lines) or f"The weights are in {source.record['weights']}; how they were trained is not recorded."


def _scores(source: Source, system: str) -> list[dict[str, str]]:
    path = source.made_in.path("scoreboard.csv")
    rows = [row.values for row in files.read_table(path)] if path.is_file() else []
    return [row for row in rows if row["system"] == system and row["split"] == "test"]


def _figures(source: Source) -> str:
    """Return the test scores, each with its interval and number of questions, beside systems without a model."""
    boards = {name: {row["metric"]: row for row in _scores(source, name)} for name in (source.system, *BESIDE)}
    own = boards[source.system]
    if not own:
        return "This system has not been evaluated: the run has no scoreboard with its test answers."
    shown = [name for name in boards if boards[name]]
    lines = [f"| measure | {' | '.join(shown)} | questions | contracts |", f"| --- |{' --- |' * (len(shown) + 2)}"]
    for metric, meaning in MEASURES.items():
        if metric in own:
            cells = [_cell(boards[name].get(metric)) for name in shown]
            lines.append(f"| {meaning} | {' | '.join(cells)} | {own[metric]['n']} | {own[metric]['n_contracts']} |")
    failed = max(int(row["failed"] or 0) for row in own.values())
    return "\n".join([*lines, "", f"- {failed} answers failed.", *_calibration(source), f"- {_reason(source)}"])


def _cell(row: Mapping[str, str] | None) -> str:
    if not row or not row["value"]:
        return "none"
    interval = f" [{float(row['low']):.2f}, {float(row['high']):.2f}]" if row["low"] else ""
    return f"{float(row['value']):.2f}{interval}"


def _calibration(source: Source) -> list[str]:
    path = source.made_in.path("metrics", "confidence.csv")
    rows = [row.values for row in files.read_table(path)] if path.is_file() else []
    named = {"exists": "whether there is a clause", "best_quote": "whether the answer's words are right"}
    return [
        f"- Expected calibration error, {named[row['of']]}: {float(row['ece']):.3f} "
        f"[{float(row['ece_low']):.3f}, {float(row['ece_high']):.3f}] (n = {row['n']})."
        for row in rows
        if row["system"] == source.system and row["of"] in named and row["ece"] and row["ece_low"]
    ]


def _reason(source: Source) -> str:
    """Return why the system is the champion, or that it is none."""
    path = source.asked.path(runs.DECISION)
    if not path.is_file() or not runs.same_champion(runs.outgoing_champion(source.asked), source.record):
        return "It is not the champion of its run."
    decision = files.read_json(path)
    if not runs.same_champion(decision["promoted"], source.record):
        return "A person made it the champion of its run, over the gate's choice."
    return f"It is the champion of its run. The gate's reason: {decision['reason']}"


def _licence(source: Source) -> str:
    known = {"apache-2.0": "Apache-2.0"}.get(_known_licence(source.base), "see the card of that model")
    lines = [f"- Base model {source.base}: {known}."]
    if _known_licence(source.settings["embedder"]):
        lines.append(f"- Embedder {source.settings['embedder']}: Apache-2.0.")
    if _data_name(source) == "CUAD v1":
        lines.append("- CUAD v1 by The Atticus Project: CC BY 4.0 (Hendrycks, Burns, Chen and Ball, 2021).")
    elif source.parameters.get("cuad") == "sample":
        lines.append("- The sample contracts are invented, Apache-2.0.")
    else:
        lines.append("- The contracts are the user's own: who may see their words is for their owner to say.")
    return "\n".join(lines)
