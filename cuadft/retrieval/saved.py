"""Save and load the retrievers of a run, and note which contracts each of them has learned from.

`Retriever.save` writes the search itself. Here its folder also gets the fine-tuned embedder, how that computes
(models.json) and the titles of the contracts that it was trained or tuned on (origin.json), so that nobody measures it
on contracts that it knows. For example:

    save_retriever(retriever, iteration, trained=train_titles, tuned=dev_titles)
    retriever = load_retriever(iteration, "sentence-transformers/all-MiniLM-L6-v2")
    learned_from(iteration.path("retriever"), retriever)  # {title: "trained on" or "settings chosen on"}
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.runs import incoming_champion
from cuadft.data import rows
from cuadft.data.contracts import Contract, Row
from cuadft.data.passages import cut_passages, join_passages
from cuadft.data.splits import near_duplicates
from cuadft.models import weights
from cuadft.retrieval.embedder import Embedder
from cuadft.retrieval.measure import decide_retriever
from cuadft.retrieval.retriever import SETTINGS_FILE, Retriever

MODELS_FILE = "models.json"  # in a retriever's folder: how its embedder computes
LEARNED_FILE = "origin.json"  # in a retriever's folder: the contracts that it learned from
TRAINED, TUNED = "trained on", "settings chosen on"
# an iteration's data files of rows, and what the retriever did with their contracts
LEARNED_ROWS = {"dev": TUNED, "dev_questions": TUNED, "synthetic": TRAINED, "train": TRAINED}


def own_embedder(folder: Path) -> Path | None:
    """Return the folder of the fine-tuned embedder in a retriever's folder, None if it has no embedder of its own."""
    return folder / "embedder" if (folder / "embedder" / "modules.json").is_file() else None


def load_retriever(iteration: runs.Iteration, embedder: str) -> Retriever:
    """Return the retriever that 02_rag_compile saved in an iteration, with its own embedder.

    embedder: the model that it searches with if it has no embedder of its own. Raises InputError if 02_rag_compile has
    not run.
    """
    return load_retriever_folder(iteration.path("retriever"), embedder)


def champion_folder(iteration: runs.Iteration) -> Path | None:
    """Return the folder of the retriever that the incoming champion searches with; None in the first iteration."""
    if iteration.previous is None:
        return None
    kept = incoming_champion(iteration)["retriever"]
    return iteration.run / kept if kept else iteration.previous.path("retriever")


def champion_retriever(iteration: runs.Iteration, embedder: str) -> Retriever | None:
    """Return the champion's retriever, from which 02_rag_compile of a later iteration starts; None in the first.

    It holds the contracts of its own iteration: `add_missing_contracts` adds others. Raises InputError if it is gone.
    """
    folder = champion_folder(iteration)
    return load_retriever_folder(folder, embedder) if folder else None


def load_retriever_folder(folder: Path, embedder: str) -> Retriever:
    """Return the retriever that was saved in a folder; as `load_retriever`, for any iteration's folder.

    embedder: "" for none, which is enough for a retriever that only compares words.
    """
    if not (folder / SETTINGS_FILE).is_file():
        raise InputError(
            f"The retriever is missing in {folder} (no {SETTINGS_FILE}): run 02_rag_compile of that iteration first."
        )
    dtype = files.read_json(folder / MODELS_FILE)["dtype"] if (folder / MODELS_FILE).is_file() else "float32"
    path = own_embedder(folder) or (weights.find_weights(embedder) if embedder else None)
    return Retriever.load(folder, path and Embedder(path, cache_dir=weights.cache_dir(), dtype=dtype))


def save_retriever(
    retriever: Retriever, iteration: runs.Iteration, *, trained: Iterable[str] = (), tuned: Iterable[str] = ()
) -> None:
    """Write the retriever into the iteration, with its embedder if that is the run's own.

    trained, tuned: titles of the contracts that it learned from and that its settings were chosen on.
    """
    folder, own, used = iteration.path("retriever"), iteration.path("retriever", "embedder"), retriever.embedder.path
    (folder / SETTINGS_FILE).unlink(missing_ok=True)  # a kill from here on leaves nothing that could be loaded
    if used != own:
        shutil.rmtree(own, ignore_errors=True)
        if used in iteration.run.glob("iter-*/retriever/embedder"):  # an earlier iteration's: keep a copy of it
            shutil.copytree(used, own)
    files.write_json(folder / MODELS_FILE, {"dtype": retriever.embedder.dtype})
    note_learned(folder, trained=trained, tuned=tuned)
    retriever.save(folder)


def add_missing_contracts(retriever: Retriever, run: Path, wanted: Iterable[str]) -> None:
    """Add to the retriever the wanted contracts of a run that it lacks; raises InputError as `with_texts`."""
    new = set(wanted) - {passage.contract for passage in retriever.passages}
    if new:
        records = rows.contract_records(run)
        with_texts(retriever, [Contract(r["title"], r["text"]) for r in records if r["title"] in new])


def with_texts(retriever: Retriever, contracts: Sequence[Contract]) -> Retriever:
    """Return the retriever with exactly these texts of the contracts, cut into passages as its own were.

    It takes in the contracts that it lacks. If it holds another text under one of the titles, another retriever is
    returned, in which the given text stands instead; vectors that are cached are not computed again. Raises InputError
    if the retriever doesn't say how its passages were cut.
    """
    held = held_texts(retriever)
    new = [contract for contract in contracts if held.get(contract.title) != contract.text]
    if not new:
        return retriever
    titles = {contract.title for contract in new}
    if retriever.cutting is None:
        raise InputError(
            f"The retriever lacks {min(titles)!r} and does not say how its passages were cut: run 02_rag_compile of "
            "the iteration before again"
        )
    size, overlap = retriever.cutting
    made = [p for c in new for p in cut_passages(c.text, contract=c.title, size=size, overlap=overlap)]
    if titles.isdisjoint(held):
        retriever.add(made)
        return retriever
    parts = {"feedback": retriever.feedback, "classifier": retriever.classifier, "cutting": retriever.cutting}
    kept = [passage for passage in retriever.passages if passage.contract not in titles]
    return Retriever([*kept, *made], retriever.embedder, **parts, **retriever.settings)


def held_texts(retriever: Retriever) -> dict[str, str]:
    """Return the text of each contract whose passages a retriever holds."""
    return {title: join_passages(own)[0] for title, own in rows.passages_by_contract(retriever.passages).items()}


def note_learned(folder: Path, *, trained: Iterable[str], tuned: Iterable[str]) -> None:
    """Note in a retriever's folder the titles of the contracts that it was trained and tuned on."""
    files.write_json(folder / LEARNED_FILE, {"trained": sorted(set(trained)), "tuned": sorted(set(tuned))})


def learned_from(folder: Path, retriever: Retriever) -> dict[str, str]:
    """Return the titles of the contracts that a saved retriever learned from, each with TRAINED or TUNED.

    They come from its note, its feedback and its classifier, and from the data of its run up to its iteration. A folder
    that was moved away from its run still has the first three.
    """
    note = files.read_json(folder / LEARNED_FILE) if (folder / LEARNED_FILE).is_file() else {}
    found = dict.fromkeys(note.get("tuned", []), TUNED) | learned_in_data(folder.resolve().parent)
    spans = retriever.feedback.spans if retriever.feedback else []
    folds = retriever.classifier.fold_of if retriever.classifier else {}
    return found | dict.fromkeys([*note.get("trained", []), *(span["contract"] for span in spans), *folds], TRAINED)


def learned_in_data(iteration: Path) -> dict[str, str]:
    """Return the titles of the contracts in the data of an iteration's folder and the earlier ones, each with how."""
    if not re.fullmatch(r"iter-\d+", iteration.name):
        return {}
    found = {name: sorted(iteration.parent.glob(f"iter-*/data/{name}.jsonl")) for name in LEARNED_ROWS}
    return {
        row["contract"]: LEARNED_ROWS[name]
        for name, paths in found.items()
        for path in paths
        if path.parents[1].name <= iteration.name
        for row in files.read_jsonl(path)
    }


def known_contracts(wanted: Iterable[Contract], learned: Mapping[str, str], texts: Mapping[str, str]) -> dict[str, str]:
    """Return the titles of the wanted contracts that were learned from, in their order, each with the reason.

    learned: titles, each with how (TRAINED or TUNED). texts: the texts of these contracts as far as they are known; a
    contract that shares half its wording with one of them counts as learned from, too.
    """
    contracts = list(wanted)
    rest = {c.title: c.text for c in contracts if c.title not in learned}
    titles = [*rest, *texts]
    pairs = near_duplicates([*rest.values(), *texts.values()])
    copied = {titles[i]: titles[j] for i, j in reversed(pairs) if i < len(rest) <= j}
    why = {title: f"shares half its wording with '{other}', {learned[other]}" for title, other in copied.items()}
    return {c.title: learned.get(c.title) or why[c.title] for c in contracts if c.title in learned or c.title in why}


def promote_or_keep(
    iteration: runs.Iteration,
    champion: tuple[Retriever, int] | None,
    candidate: tuple[Retriever, int],
    rows: Sequence[Row],
    *,
    contracts: Iterable[str],
    **settings: Any,
) -> tuple[Retriever, int, str]:
    """Return the retriever to use, its number of passages k, and the reason: the candidate only if it finds more.

    champion, candidate: each a retriever and its k. Without a champion, in the first iteration, the candidate is used.
    The champion takes in the `contracts` that it lacks; both are compared on dev rows (see `decide_retriever`), and the
    decision is kept in metrics/retriever_decision.json. settings: those of `decide_retriever`.
    """
    if champion is None:
        return *candidate, "The first retriever of the run is used as it was chosen."
    add_missing_contracts(champion[0], iteration.run, contracts)
    decision = decide_retriever(champion, candidate, rows, **settings)
    files.write_json(iteration.path("metrics", "retriever_decision.json"), decision)
    return *(candidate if decision["promoted"] else champion), decision["reason"]
