"""The systems that a run compares: which program with which language model stands behind a name such as "sft".

"rag" and "rag_compiled" are the untuned model with the plain and with the compiled prompt. "incumbent" is the champion
that the iteration started from, "retriever" is that champion with this iteration's retriever, and "champion" is the
one that the iteration leaves. Any other name, such as "sft" or "dpo", is a folder in the iteration's adapters/. For
example:

    embedder = "sentence-transformers/all-MiniLM-L6-v2"
    untuned, sft = build_systems(iteration, ["rag", "sft"], model="tiny", embedder=embedder)
    path = iteration.path("predictions", "sft.dev.jsonl")
    answer_rows(sft.program, sft.lm, dev_rows, path, system="sft", split="dev")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dspy

from cuadft.core import runs
from cuadft.core.errors import InputError
from cuadft.core.runs import incoming_champion
from cuadft.models.api import remote
from cuadft.models.local import LocalEngine
from cuadft.models.weights import find_weights
from cuadft.rag.confidence import load_confidence
from cuadft.rag.program import ContractQA, load_program
from cuadft.rag.settle import SystemConfidence
from cuadft.retrieval.saved import load_retriever_folder, with_run_contracts

CHAMPION = "champion"  # the system that the iteration leaves, by its gate or by hand


@dataclass(frozen=True)
class System:
    """A program and the language model that runs it.

    calibration: the file with what is calibrated on the system's dev answers; own: this iteration calibrates it.
    """

    name: str
    program: ContractQA
    lm: dspy.LM
    calibration: Path | None = None
    own: bool = True


def build_systems(
    iteration: runs.Iteration,
    names: Sequence[str],
    *,
    model: str,
    embedder: str,
    rag_lm: str = "",
    tuned_program: str = "rag",
    max_tokens: int = 64,
    batch_size: int = 16,
    asked: Iterable[str] = (),
) -> list[System]:
    """Return the named systems of an iteration, with one base model in memory for all local ones.

    rag_lm: the LM of "rag" and "rag_compiled", a LiteLLM id ("": the local model). tuned_program: the program that
    systems with weights of this iteration run. asked: titles of the contracts that will be asked, which the champion's
    retriever takes in. Raises InputError if a part of a system is missing.
    """
    parts = {name: _find_parts(iteration, name, tuned_program) for name in names}
    searches = {}  # a folder that two systems use is loaded once
    for folder in dict.fromkeys(found["retriever"] for found in parts.values()):
        retriever = load_retriever_folder(folder, embedder)
        if folder != iteration.path("retriever"):
            retriever = with_run_contracts(retriever, iteration.run, asked)
        searches[folder] = retriever, load_confidence(folder)
    weights = {name: found["weights"] for name, found in parts.items()}
    lms = _models(weights, model=model, rag_lm=rag_lm, max_tokens=max_tokens, batch_size=batch_size)
    made = []
    for name, found in parts.items():
        calibration = found["calibration"]
        system = SystemConfidence.load(calibration) if calibration else None
        program = load_program(found["program"], *searches[found["retriever"]], system)
        own = calibration is None or iteration.dir in calibration.parents
        made.append(System(name, program, lms[name], calibration, own))
    return made


def start_weights(iteration: runs.Iteration) -> Path | None:
    """Return the weights from which this iteration's fine-tuning starts (None: the base model)."""
    weights = incoming_champion(iteration)["weights"]
    return iteration.run / weights if weights else None


def find_record(iteration: runs.Iteration, name: str, tuned_program: str = "rag") -> runs.ChampionRecord:
    """Return the record of a system by the name that `build_systems` takes."""
    if name == CHAMPION:
        return runs.outgoing_champion(iteration)
    return runs.system_record(iteration, name, tuned_program)


def _find_parts(iteration: runs.Iteration, name: str, tuned_program: str) -> dict[str, Path | None]:
    """Return where a system's program, weights (None: the base model), retriever and calibration are saved.

    Raises InputError if the weights that its record in the run names are not there.
    """
    record = find_record(iteration, name, tuned_program)
    named = record | {"calibration": runs.calibration_file(record)}
    parts = ("program", "weights", "retriever", "calibration")
    paths = {part: iteration.run / named[part] if named[part] else None for part in parts}
    paths["program"] = paths["program"] or iteration.path("program", "rag.json")
    paths["retriever"] = paths["retriever"] or iteration.path("retriever")
    weights = paths["weights"]
    if weights is None or _is_adapter(weights) or (weights / "config.json").is_file():
        return paths
    if name in ("incumbent", "retriever", CHAMPION):
        advice = "choose another champion with `cuadft promote`"
    else:
        advice = "run 04_fine_tune (for sft) or 06_align (for aligned ones) first, or leave it out of `systems`"
    raise InputError(f"System '{name}' has no weights in {weights}: {advice}.")


def _is_adapter(weights: Path) -> bool:
    return (weights / "adapter_config.json").is_file()


def _models(
    weights: Mapping[str, Path | None], *, model: str, rag_lm: str, max_tokens: int, batch_size: int
) -> dict[str, dspy.LM]:
    """Return each system's LM: an adapter on the one base in memory, a whole model of its own, `rag_lm` or the base."""
    adapters = {name: folder for name, folder in weights.items() if folder is not None and _is_adapter(folder)}
    engine, lms = None, {}
    if adapters or (None in weights.values() and not rag_lm):  # a system runs on the base model
        engine = LocalEngine(find_weights(model), adapters=adapters, batch_size=batch_size)
    for name, folder in weights.items():
        if folder is None and rag_lm:
            lms[name] = remote(rag_lm, max_tokens=max_tokens)
        elif folder is None or name in adapters:
            lms[name] = engine.lm(name if folder else "", max_tokens=max_tokens)
        else:  # a fully fine-tuned model
            lms[name] = LocalEngine(folder, batch_size=batch_size).lm(max_tokens=max_tokens)
    return lms
