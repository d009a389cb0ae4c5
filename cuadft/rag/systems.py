"""The systems that a run compares: which program with which language model stands behind a name such as "sft"."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dspy

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.runs import incoming_champion
from cuadft.models.api import remote
from cuadft.models.local import LocalEngine
from cuadft.models.weights import find_weights
from cuadft.rag import program
from cuadft.rag.program import ContractQA
from cuadft.retrieval.store import _load, take_in

DATA = ("train", "dev", "test", "slices")  # files whose rows a system may be asked
_Parts = tuple[Path, Path | None, Path]


@dataclass(frozen=True)
class System:
    """A program and the language model that runs it."""

    name: str
    program: ContractQA
    lm: dspy.LM


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
    asked: Iterable[str] | None = None,
) -> list[System]:
    """Return the named systems of an iteration, all local ones on one base model in memory.

    "rag" and "rag_compiled" run on `rag_lm` (a LiteLLM id; "" for the local model); "incumbent" is the champion, with
    its own program, weights and retriever; "retriever" is the champion with this iteration's retriever; any other name
    is a folder in adapters/. asked: titles of the contracts that will be asked (None: those of all data rows), which the
    champion's retriever takes in. Raises InputError for what is missing.
    """
    found = {name: _parts(iteration, name, tuned_program) for name in names}
    for name, (_, weights, _) in found.items():
        if weights is not None and not _whole(weights):
            by_hand = "choose another champion with `cuadft promote` or `cuadft rollback`"
            advice = (
                by_hand
                if name in ("incumbent", "retriever")
                else "run 04_fine_tune (for sft) or 06_align (for aligned ones) of this iteration first, or leave it out of "
                "`systems`"
            )
            raise InputError(f"System '{name}' has no weights in {weights}: {advice}.")
    retrievers = {folder: _load(folder, embedder) for folder in dict.fromkeys(place for _, _, place in found.values())}
    for folder, retriever in retrievers.items():
        if folder != iteration.path("retriever"):
            take_in(retriever, iteration.run, _titles(iteration) if asked is None else asked)
    lms = _models(found, model=model, rag_lm=rag_lm, max_tokens=max_tokens, batch_size=batch_size)
    return [
        System(name, program.load_program(path, retrievers[folder]), lms[name])
        for name, (path, _, folder) in found.items()
    ]


def _models(
    found: Mapping[str, _Parts], *, model: str, rag_lm: str, max_tokens: int, batch_size: int
) -> dict[str, dspy.LM]:
    """Return each system's LM: an adapter on the one base in memory, a whole model of its own, `rag_lm` or the base."""
    adapters = {n: w for n, (_, w, _) in found.items() if w is not None and (w / "adapter_config.json").is_file()}
    engine, lms = None, {}
    if any(w is None or n in adapters for n, (_, w, _) in found.items()) and not (rag_lm and not adapters):
        engine = LocalEngine(find_weights(model), adapters=adapters, batch_size=batch_size)
    for name, (_, weights, _) in found.items():
        if name in adapters:
            lms[name] = engine.lm(name, max_tokens=max_tokens)
        elif weights is not None:  # a fully fine-tuned model
            lms[name] = LocalEngine(weights, batch_size=batch_size).lm(max_tokens=max_tokens)
        elif rag_lm:
            lms[name] = remote(rag_lm, max_tokens=max_tokens)
        else:
            lms[name] = engine.lm(max_tokens=max_tokens)
    return lms


def _titles(iteration: runs.Iteration) -> set[str]:
    """Return the contracts of the iteration's data rows."""
    paths = [iteration.path("data", f"{name}.jsonl") for name in DATA]
    return {row["contract"] for path in paths if path.is_file() for row in files.read_jsonl(path)}


def start_weights(iteration: runs.Iteration) -> Path | None:
    """Return the weights from which this iteration's fine-tuning starts (None: the base model)."""
    weights = incoming_champion(iteration)["weights"]
    return iteration.run / weights if weights else None


def _parts(iteration: runs.Iteration, name: str, tuned_program: str) -> _Parts:
    """Return a system's program file, weights folder (None: base model) and retriever folder."""
    found = runs.system_record(iteration, name, tuned_program)
    saved, weights, folder = (
        (iteration.run / found[part] if found[part] else None) for part in runs.CHAMPION_PARTS[1:]
    )
    return saved or iteration.path("program", "rag.json"), weights, folder or iteration.path("retriever")


def _whole(weights: Path) -> bool:
    return (weights / "adapter_config.json").is_file() or (weights / "config.json").is_file()
