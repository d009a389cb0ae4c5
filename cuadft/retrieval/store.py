"""Which contracts a saved retriever has learned from, and which others only repeat those under another title."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.runs import incoming_champion
from cuadft.data import rows
from cuadft.data.passages import Passage
from cuadft.data.splits import near_duplicates
from cuadft.models import weights
from cuadft.retrieval.embedder import Embedder
from cuadft.retrieval.retriever import SETTINGS, Retriever

NOTE = "origin.json"
TRAINED, TUNED = "trained on", "settings chosen on"
DATA = {"dev": TUNED, "dev_clauses": TUNED, "synthetic": TRAINED, "train": TRAINED}  # an iteration's files of rows
SHINGLE, CONTAINMENT = 8, 0.5  # as those of the splits


def write_origin(folder: Path, *, trained: Iterable[str], tuned: Iterable[str]) -> None:
    """Note in a retriever's folder the titles of the contracts that it was trained and tuned on."""
    files.write_json(folder / NOTE, {"trained": sorted(set(trained)), "tuned": sorted(set(tuned))})


def learned_from(folder: Path, retriever: Retriever) -> dict[str, str]:
    """Return the titles that a saved retriever was trained or tuned on, each with which of the two.

    They come from its note, its feedback and its classifier, and from the data of its run up to its iteration, as far
    as these are there: a folder that was moved away from its run still knows the first three.
    """
    note = files.read_json(folder / NOTE) if (folder / NOTE).is_file() else {}
    found = dict.fromkeys(note.get("tuned", []), TUNED)
    for name, how in DATA.items():
        for path in _up_to(folder.resolve().parent, name):
            found |= {row["contract"]: how for row in files.read_jsonl(path)}
    spans = retriever.feedback.spans if retriever.feedback else []
    folds = retriever.classifier.fold_of if retriever.classifier else {}
    return found | dict.fromkeys([*note.get("trained", []), *(span["contract"] for span in spans), *folds], TRAINED)


def _up_to(iteration: Path, name: str) -> list[Path]:
    """Return a file of rows in this iteration's folder and in those before; none if it is no iteration's folder."""
    if not re.fullmatch(r"iter-\d+", iteration.name):
        return []
    found = sorted(iteration.parent.glob(f"iter-*/data/{name}.jsonl"))
    return [path for path in found if path.parents[1].name <= iteration.name]


def copies(texts: Mapping[str, str], learned: Mapping[str, str]) -> dict[str, str]:
    """Return which of the texts share half their wording (see `duplicates`) with a learned one, and with which."""
    titles = [*texts, *learned]
    pairs = near_duplicates([*texts.values(), *learned.values()], SHINGLE, CONTAINMENT)
    return {titles[i]: titles[j] for i, j in reversed(pairs) if i < len(texts) <= j}


def text_of(passages: Iterable[Passage]) -> str:
    """Return the contract's text from its passages, which together are the whole of it and may overlap."""
    text = ""
    for passage in sorted(passages, key=lambda passage: passage.start):
        text += passage.text[len(text) - passage.start :]
    return text


MODELS = "models.json"  # in a retriever's folder: how its embedder computes, and its reranker


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
    kept = incoming_champion(iteration)["retriever"]
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
    used = files.read_json(folder / MODELS) if (folder / MODELS).is_file() else {}
    path = own_embedder(folder) or weights.find_weights(embedder)
    embed = Embedder(path, cache_dir=weights.cache_dir(), dtype=used.get("dtype", "float32"))
    return Retriever.load(folder, embed, reranker=load_reranker(used.get("reranker", "")))


def load_reranker(name: str) -> Any:
    """Return sentence-transformers' CrossEncoder of a model folder or hub id, None for ""."""
    if not name:
        return None
    from sentence_transformers import CrossEncoder

    return CrossEncoder(str(weights.find_weights(name)), trust_remote_code=False)


def reranker_of(folder: Path) -> str:
    """Return the name of the reranker that a retriever's folder was saved with, "" for none."""
    return files.read_json(folder / MODELS)["reranker"] if (folder / MODELS).is_file() else ""


def save_retriever(
    retriever: Retriever,
    iteration: runs.Iteration,
    *,
    reranker: str = "",
    trained: Iterable[str] = (),
    tuned: Iterable[str] = (),
) -> None:
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
    files.write_json(folder / MODELS, used)
    write_origin(folder, trained=trained, tuned=tuned)
    retriever.save(folder)


def take_in(retriever: Retriever, run: Path, wanted: Iterable[str]) -> None:
    """Add those of the wanted contracts of a run that the retriever does not hold, cut as its own were.

    Raises InputError if it doesn't say how they were cut.
    """
    new = set(wanted) - {passage.contract for passage in retriever.passages}
    if new and retriever.cutting is None:
        raise InputError(
            f"The retriever lacks {min(new)!r} and does not say how its passages were cut: run 02_rag_compile "
            "of the iteration before again"
        )
    if new:
        retriever.add(rows.contract_passages(run, new, *retriever.cutting))
