"""The systems that a run compares: which program with which language model stands behind a name such as "sft".

"rag" and "rag_compiled" are the untuned model with the plain and with the compiled prompt. "incumbent" is the champion
that the iteration started from, "retriever" is that champion with this iteration's retriever, and "champion" is the
one that the iteration leaves. Any other name, such as "sft" or "dpo", is a folder in the iteration's adapters/.
"best_of_5" samples its answers, and its confidence chooses. For example:

    embedder = "sentence-transformers/all-MiniLM-L6-v2"
    untuned, sft = build_systems(iteration, ["rag", "sft"], model="tiny", embedder=embedder)
    path = iteration.path("predictions", "sft.dev.jsonl")
    answer_rows(sft.program, sft.lm, dev_rows, path, system="sft", split="dev")
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy

from cuadft.core import runs
from cuadft.core.errors import InputError
from cuadft.core.recorded import check_system, recorded_parameters, run_iterations
from cuadft.core.runs import incoming_champion
from cuadft.models.api import remote
from cuadft.models.local import LocalEngine
from cuadft.models.weights import find_weights
from cuadft.rag.confidence import load_confidence
from cuadft.rag.program import ContractQA, load_program
from cuadft.rag.settle import SystemConfidence
from cuadft.retrieval.saved import load_retriever_folder, with_run_contracts

CHAMPION = "champion"  # the system that the iteration leaves, by its gate or by hand
NEEDED = ("model", "embedder", "tuned_program", "batch_size", "max_new_tokens")  # parameters that build a system


@dataclass(frozen=True)
class System:
    """A program and the language model that runs it.

    calibration: the file with what is calibrated on the system's dev answers; own: this iteration calibrates it;
    record: where its parts lie in the run; batch_size: prompts that its run asks at once.
    """

    name: str
    program: ContractQA
    lm: dspy.LM
    calibration: Path | None = None
    own: bool = True
    record: runs.ChampionRecord | None = None
    batch_size: int = 16


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
        program.draws = runs.DRAWS if weights[name] and weights[name].name == runs.BEST_OF else 0
        own = calibration is None or iteration.dir in calibration.parents
        record = find_record(iteration, name, tuned_program)
        made.append(System(name, program, lms[name], calibration, own, record, batch_size))
    return made


def asked_system(run: Path, system: str = "", number: int | None = None) -> tuple[runs.Iteration, str]:
    """Return the iteration and the name of the system that is asked for.

    system: "" for the champion. number: of the iteration; by default the newest that has decided, for a champion, else
    the newest. Raises InputError if there is no such iteration or system, or no champion yet.
    """
    found = {iteration.number: iteration for iteration in run_iterations(run)}
    decided, name = runs.decided_iterations(run), system or CHAMPION
    if name == CHAMPION and not decided:
        raise InputError(f"{run} has not decided on a champion yet: name a system with --system, such as rag or sft.")
    iteration = found.get((decided[-1] if name == CHAMPION else max(found)) if number is None else number)
    if iteration is None:
        raise InputError(f"No iteration {number} in {run}: choose one of {', '.join(map(str, found))}.")
    check_system(iteration, name, [CHAMPION] if iteration.number in decided else [])
    return iteration, name


def recorded_system(iteration: runs.Iteration, name: str) -> System:
    """Return a system of an iteration, built with the parameters that its run has recorded.

    Raises InputError if a parameter or a part of the system is missing.
    """
    known: dict[str, Any] = {}  # an iteration that has not come as far has the parameters of the earlier ones
    for number in range(1, iteration.number + 1):
        known |= recorded_parameters(runs.Iteration(iteration.run, number))
    if missing := [parameter for parameter in NEEDED if parameter not in known]:
        raise InputError(
            f"{iteration.path('manifest.json')} records no {missing[0]}, so that {name} can't be built as it was: "
            "finish that iteration with `cuadft run`."
        )
    settings = {parameter: known[parameter] for parameter in NEEDED[:-1]} | {"rag_lm": known.get("rag_lm", "")}
    (system,) = build_systems(iteration, [name], max_tokens=known[NEEDED[-1]], **settings)
    return system


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
