"""The systems that a run compares: which program with which language model stands behind a name such as "sft"."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dspy

from cuadft import champion, corpus, models, origin, program, runs
from cuadft.champion import PROGRAMS, promoted
from cuadft.embedder import Embedder
from cuadft.endpoint import remote
from cuadft.errors import InputError
from cuadft.local_lm import LocalEngine
from cuadft.program import ContractQA
from cuadft.retriever import Retriever
from cuadft.saved_retriever import SETTINGS

__all__ = ["PROGRAMS", "System", "build", "champion_folder", "champion_retriever", "load_reranker", "load_retriever",
           "own_embedder", "promoted", "remote", "reranker_of", "save_retriever", "start_weights", "take_in"]  # fmt: skip

DATA = ("train", "dev", "test", "slices")  # files whose rows a system may be asked
MODELS = "models.json"  # in a retriever's folder: how its embedder computes, and its reranker
_Parts = tuple[Path, Path | None, Path]


@dataclass(frozen=True)
class System:
    """A program and the language model that runs it."""

    name: str
    program: ContractQA
    lm: dspy.LM


def own_embedder(folder: Path) -> Path | None:
    """Return the folder of the embedder that a retriever's folder holds, if it searches with a fine-tuned one."""
    return folder / "embedder" if (folder / "embedder" / "modules.json").is_file() else None


def load_retriever(iteration: runs.Iteration, embedder: str) -> Retriever:
    """Return the retriever that 02_rag_compile saved, with the fine-tuned embedder and the reranker that it has.

    Raises InputError if 02_rag_compile has not run.
    """
    return _load(iteration.path("retriever"), embedder)


def champion_folder(iteration: runs.Iteration) -> Path | None:
    """Return the folder of the retriever that the champion of a later iteration searches with, None in the first."""
    if iteration.previous is None:
        return None
    kept = promoted(iteration)["retriever"]
    return iteration.run / kept if kept else iteration.previous.path("retriever")


def champion_retriever(iteration: runs.Iteration, embedder: str) -> Retriever | None:
    """Return the champion's retriever, from which 02_rag_compile of a later iteration starts; None in the first.

    It holds the contracts of its own iteration: `take_in` adds others. Raises InputError if it is gone.
    """
    folder = champion_folder(iteration)
    return _load(folder, embedder) if folder else None


def _load(folder: Path, embedder: str) -> Retriever:
    if not (folder / SETTINGS).is_file():
        raise InputError(f"The retriever is missing in {folder}: run 02_rag_compile of that iteration first.")
    used = runs.read_json(folder / MODELS) if (folder / MODELS).is_file() else {}
    path = own_embedder(folder) or models.find(embedder)
    embed = Embedder(path, cache_dir=models.cache_dir(), dtype=used.get("dtype", "float32"))
    return Retriever.load(folder, embed, reranker=load_reranker(used.get("reranker", "")))


def load_reranker(name: str) -> Any:
    """Return sentence-transformers' CrossEncoder of a model folder or hub id, None for ""."""
    if not name:
        return None
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(models.find(name)), trust_remote_code=False)


def reranker_of(folder: Path) -> str:
    """Return the name of the reranker that a retriever's folder was saved with, "" for none."""
    return runs.read_json(folder / MODELS)["reranker"] if (folder / MODELS).is_file() else ""


def save_retriever(retriever: Retriever, iteration: runs.Iteration, *, reranker: str = "", trained: Iterable[str] = (),
                   tuned: Iterable[str] = ()) -> None:
    """Write the retriever into the iteration, with its embedder unless that is a model's own folder, and its reranker.

    trained, tuned: titles of the contracts that it learned from and that its settings were chosen on.
    """
    folder, own, used = iteration.path("retriever"), iteration.path("retriever", "embedder"), retriever.embedder.path
    (folder / SETTINGS).unlink(missing_ok=True)  # a kill from here on leaves nothing that could be loaded
    if used != own:
        shutil.rmtree(own, ignore_errors=True)
        if used.parent.parent.parent == iteration.run:  # an earlier iteration's: each keeps what it needs
            shutil.copytree(used, own)
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
          tuned_program: str = "rag", max_tokens: int = 64, batch_size: int = 16,
          asked: Iterable[str] | None = None) -> list[System]:
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
            advice = (by_hand if name in ("incumbent", "retriever") else
                      "run 04_fine_tune (for sft) or 06_align (for aligned ones) of this iteration first, or leave it out of "
                      "`systems`")
            raise InputError(f"System '{name}' has no weights in {weights}: {advice}.")
    retrievers = {folder: _load(folder, embedder) for folder in dict.fromkeys(place for _, _, place in found.values())}
    for folder, retriever in retrievers.items():
        if folder != iteration.path("retriever"):
            take_in(retriever, iteration.run, _titles(iteration) if asked is None else asked)
    lms = _models(found, model=model, rag_lm=rag_lm, max_tokens=max_tokens, batch_size=batch_size)
    return [System(name, program.load(path, retrievers[folder]), lms[name]) for name, (path, _, folder) in found.items()]


def _models(found: Mapping[str, _Parts], *, model: str, rag_lm: str, max_tokens: int, batch_size: int) -> dict[str, dspy.LM]:
    """Return each system's LM: an adapter on the one base in memory, a whole model of its own, `rag_lm` or the base."""
    adapters = {n: w for n, (_, w, _) in found.items() if w is not None and (w / "adapter_config.json").is_file()}
    engine, lms = None, {}
    if any(w is None or n in adapters for n, (_, w, _) in found.items()) and not (rag_lm and not adapters):
        engine = LocalEngine(models.find(model), adapters=adapters, batch_size=batch_size)
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
    return {row["contract"] for path in paths if path.is_file() for row in runs.read_jsonl(path)}


def start_weights(iteration: runs.Iteration) -> Path | None:
    """Return the weights from which this iteration's fine-tuning starts (None: the base model)."""
    weights = promoted(iteration)["weights"]
    return iteration.run / weights if weights else None


def _parts(iteration: runs.Iteration, name: str, tuned_program: str) -> _Parts:
    """Return a system's program file, weights folder (None: base model) and retriever folder."""
    found = champion.place(iteration, name, tuned_program)
    saved, weights, folder = ((iteration.run / found[part] if found[part] else None) for part in champion.PARTS[1:])
    return saved or iteration.path("program", "rag.json"), weights, folder or iteration.path("retriever")


def _whole(weights: Path) -> bool:
    return (weights / "adapter_config.json").is_file() or (weights / "config.json").is_file()
