"""The systems that a run compares: which program with which language model stands behind a name such as "sft"."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy

from cuadft import corpus, models, origin, program, runs
from cuadft.embedder import Embedder
from cuadft.errors import InputError
from cuadft.local_lm import LocalEngine
from cuadft.program import ContractQA
from cuadft.retriever import Retriever
from cuadft.saved_retriever import SETTINGS

PROGRAMS = ("rag", "rag_compiled")
MODELS = "models.json"  # in a retriever's folder: how its embedder computes, and its reranker
TIMEOUT = 120  # seconds that an API may take for one answer; LiteLLM's own limit is 100 minutes


@dataclass(frozen=True)
class System:
    """A program and the language model that runs it."""

    name: str
    program: ContractQA
    lm: dspy.LM


def own_embedder(iteration: runs.Iteration) -> Path | None:
    """Return the folder of the embedder that this iteration's retriever searches with, if it is a fine-tuned one."""
    folder = iteration.path("retriever", "embedder")
    return folder if (folder / "modules.json").is_file() else None


def load_retriever(iteration: runs.Iteration, embedder: str) -> Retriever:
    """Return the retriever that 02_rag_compile saved, with the fine-tuned embedder and the reranker that it has.

    Raises InputError if 02_rag_compile has not run.
    """
    folder = iteration.path("retriever")
    if not (folder / "settings.json").is_file():
        raise InputError(f"The retriever is missing in {folder}: run 02_rag_compile of this iteration first.")
    used = runs.read_json(folder / MODELS) if (folder / MODELS).is_file() else {}
    path = own_embedder(iteration) or models.find(embedder)
    embed = Embedder(path, cache_dir=models.cache_dir(), dtype=used.get("dtype", "float32"))
    return Retriever.load(folder, embed, reranker=load_reranker(used.get("reranker", "")))


def load_reranker(name: str) -> Any:
    """Return sentence-transformers' CrossEncoder of a model folder or hub id, None for ""."""
    if not name:
        return None
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(models.find(name)))


def reranker_of(iteration: runs.Iteration) -> str:
    """Return the name of the reranker that an iteration's retriever was saved with, "" for none."""
    named = iteration.path("retriever", MODELS)
    return runs.read_json(named)["reranker"] if named.is_file() else ""


def save_retriever(retriever: Retriever, iteration: runs.Iteration, *, reranker: str = "", trained: Iterable[str] = (),
                   tuned: Iterable[str] = ()) -> None:
    """Write the retriever into the iteration, with its embedder unless that is a model's own folder, and its reranker.

    trained, tuned: titles of the contracts that it learned from and that its settings were chosen on.
    """
    folder, own = iteration.path("retriever"), iteration.path("retriever", "embedder")
    before = own_embedder(iteration.previous) if iteration.previous else None
    (folder / SETTINGS).unlink(missing_ok=True)  # a kill from here on leaves nothing that could be loaded
    if retriever.embedder.path == before:
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(before, own)
    elif retriever.embedder.path != own:
        shutil.rmtree(own, ignore_errors=True)
    used = {"dtype": retriever.embedder.dtype, "reranker": reranker if retriever.rerank else ""}
    runs.write_json(folder / MODELS, used)
    origin.write(folder, trained=trained, tuned=tuned)
    retriever.save(folder)


def take_in(retriever: Retriever, run: Path, wanted: Iterable[str]) -> None:
    """Add those of the wanted contracts of a run that the retriever does not hold, cut as its own were.

    Raises InputError if it doesn't say how they were cut.
    """
    new = set(wanted) - {passage.contract for passage in retriever.passages}
    if new and retriever.cutting is None:
        raise InputError(f"The retriever lacks {min(new)!r} and does not say how its passages were cut: run 02_rag_compile "
                         "of the iteration before again")
    if new:
        retriever.add(corpus.passages(run, new, *retriever.cutting))


def build(iteration: runs.Iteration, names: Sequence[str], *, model: str, embedder: str, rag_lm: str = "",
          tuned_program: str = "rag", max_tokens: int = 64, batch_size: int = 16) -> list[System]:
    """Return the named systems of an iteration, all local ones on one base model in memory.

    "rag" and "rag_compiled" run on `rag_lm` (a LiteLLM id; "" for the local model); "incumbent" is what the
    iteration before promoted; any other name is a folder in adapters/. Raises InputError for what is missing.
    """
    retriever = load_retriever(iteration, embedder)
    found = {name: _parts(iteration, name, tuned_program) for name in names}
    for name, (_, weights) in found.items():
        if weights is not None and not _whole(weights):
            raise InputError(f"System '{name}' has no weights in {weights}: run 04_fine_tune (for sft) or 06_align (for "
                             "aligned ones) of this iteration first, or leave it out of `systems`.")
    adapters = {n: w for n, (_, w) in found.items() if w is not None and (w / "adapter_config.json").is_file()}
    engine = None
    if any(w is None or n in adapters for n, (_, w) in found.items()) and not (rag_lm and not adapters):
        engine = LocalEngine(models.find(model), adapters=adapters, batch_size=batch_size)
    built = []
    for name, (path, weights) in found.items():
        if name in adapters:
            lm = engine.lm(name, max_tokens=max_tokens)
        elif weights is not None:  # a fully fine-tuned model
            lm = LocalEngine(weights, batch_size=batch_size).lm(max_tokens=max_tokens)
        elif rag_lm:
            lm = remote(rag_lm, max_tokens=max_tokens)
        else:
            lm = engine.lm(max_tokens=max_tokens)
        built.append(System(name, program.load(path, retriever), lm))
    return built


def remote(lm: str, **settings: object) -> dspy.LM:
    """Return a dspy.LM for a LiteLLM id ("bedrock/...", "openai/..."); keys come from the environment only."""
    # drop_params: some models (OpenAI's reasoning models) refuse a temperature; LiteLLM then leaves it out
    return dspy.LM(lm, **({"temperature": 0.0, "drop_params": True, "timeout": TIMEOUT} | settings))


def promoted(iteration: runs.Iteration) -> dict[str, str | None]:
    """Return what the iteration before promoted: {"system", "program", "weights"}, paths relative to the run folder."""
    before = iteration.previous
    if before is None:
        return {"system": "rag", "program": None, "weights": None}
    if not before.path("decision.json").is_file():
        raise InputError(f"{before.path('decision.json')} is missing: finish iteration {before.number} (05_evaluate) first.")
    return runs.read_json(before.path("decision.json"))["promoted"]


def start_weights(iteration: runs.Iteration) -> Path | None:
    """Return the weights from which this iteration's fine-tuning starts (None: the base model)."""
    weights = promoted(iteration)["weights"]
    return iteration.run / weights if weights else None


def _parts(iteration: runs.Iteration, name: str, tuned_program: str) -> tuple[Path, Path | None]:
    """Return a system's program file and weights folder (None: base model)."""
    if name in PROGRAMS:
        return iteration.path("program", f"{name}.json"), None
    if name == "incumbent":
        best = promoted(iteration)
        saved = iteration.run / best["program"] if best["program"] else iteration.path("program", "rag.json")
        return saved, iteration.run / best["weights"] if best["weights"] else None
    return iteration.path("program", f"{tuned_program}.json"), iteration.path("adapters", name)


def _whole(weights: Path) -> bool:
    return (weights / "adapter_config.json").is_file() or (weights / "config.json").is_file()
