"""Save and load the retrievers of a run, and find the contracts that a run has learned from.

`Retriever.save` writes the search itself. Here its folder also gets the fine-tuned embedder, how that computes
(models.json) and the titles of the contracts that it was trained or tuned on (origin.json), so that nobody measures it
on contracts that it knows. For example:

    save_retriever(retriever, iteration)
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
from cuadft.evaluation import bootstrap, compare
from cuadft.models import weights
from cuadft.retrieval.embedder import Embedder
from cuadft.retrieval.measure import evaluate_retriever
from cuadft.retrieval.retriever import SETTINGS_FILE, Retriever

MODELS_FILE = "models.json"  # in a retriever's folder: how its embedder computes
LEARNED_FILE = "origin.json"  # in a retriever's folder: the contracts that it learned from
TRAINED, TUNED = "trained on", "settings chosen on"
NOTED = {"trained": TRAINED, "tuned": TUNED}  # the keys of LEARNED_FILE
# an iteration's data files of rows, and what the retriever did with their contracts
LEARNED_ROWS = {"dev": TUNED, "dev_questions": TUNED, "synthetic": TRAINED, "train": TRAINED}
LEARNED_SPLITS = {"dev": TUNED, "train": TRAINED, "all": TRAINED, rows.PLAIN: TRAINED}
TITLES_SHOWN = 20  # left-out contracts that are named on the screen


def own_embedder(folder: Path) -> Path | None:
    """Return the folder of the fine-tuned embedder in a retriever's folder, None if it has no embedder of its own."""
    return folder / "embedder" if (folder / "embedder" / "modules.json").is_file() else None


def load_retriever(iteration: runs.Iteration, embedder: str) -> Retriever:
    """Return the retriever that 02_rag_compile saved in an iteration, with its own embedder.

    embedder: the model that it searches with if it has no embedder of its own. Raises InputError if 02_rag_compile has
    not run.
    """
    return load_retriever_folder(iteration.path("retriever"), embedder)


def champion_retriever(iteration: runs.Iteration, embedder: str) -> Retriever | None:
    """Return the champion's retriever, from which 02_rag_compile of a later iteration starts; None in the first.

    It holds the contracts of its own iteration: `with_run_contracts` adds others. Raises InputError if it is gone.
    """
    if iteration.previous is None:
        return None
    kept = incoming_champion(iteration)["retriever"]
    return load_retriever_folder(iteration.run / kept if kept else iteration.previous.path("retriever"), embedder)


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


def save_retriever(retriever: Retriever, iteration: runs.Iteration) -> None:
    """Write the retriever into the iteration, with its embedder if that is the run's own."""
    folder, own, used = iteration.path("retriever"), iteration.path("retriever", "embedder"), retriever.embedder.path
    (folder / SETTINGS_FILE).unlink(missing_ok=True)  # a kill from here on leaves nothing that could be loaded
    if used != own:
        shutil.rmtree(own, ignore_errors=True)
        if used in iteration.run.glob("iter-*/retriever/embedder"):  # an earlier iteration's: keep a copy of it
            shutil.copytree(used, own)
    files.write_json(folder / MODELS_FILE, {"dtype": retriever.embedder.dtype})
    learned = learned_in_data(iteration.dir)
    note = {name: [title for title in learned if learned[title] == how] for name, how in NOTED.items()}
    files.write_json(folder / LEARNED_FILE, note)
    retriever.save(folder)


def with_run_contracts(retriever: Retriever, run: Path, wanted: Iterable[str]) -> Retriever:
    """Return the retriever with the wanted contracts of a run that it lacks; raises InputError as `with_texts`."""
    if not (new := set(wanted) - {passage.contract for passage in retriever.passages}):
        return retriever
    records = rows.contract_records(run)
    return with_texts(retriever, [Contract(r["title"], r["text"]) for r in records if r["title"] in new])


def with_texts(retriever: Retriever, contracts: Sequence[Contract]) -> Retriever:
    """Return the retriever, or another one like it, that holds exactly these texts of the contracts beside the others.

    They are cut into passages as its own were; vectors that are cached are not computed again. Raises InputError if the
    retriever doesn't say how its passages were cut.
    """
    held = held_texts(retriever)
    new = {contract.title: contract.text for contract in contracts if held.get(contract.title) != contract.text}
    if not new:
        return retriever
    if retriever.cutting is None:
        raise InputError(
            f"The retriever lacks {min(new)!r} and does not say how its passages were cut: run 02_rag_compile of "
            "the iteration before again"
        )
    size, overlap = retriever.cutting
    kept = [passage for passage in retriever.passages if passage.contract not in new]
    made = [p for title, text in new.items() for p in cut_passages(text, contract=title, size=size, overlap=overlap)]
    return retriever.holding([*kept, *made])


def held_texts(retriever: Retriever) -> dict[str, str]:
    """Return the text of each contract whose passages a retriever holds."""
    return {title: join_passages(own)[0] for title, own in rows.passages_by_contract(retriever.passages).items()}


def learned_from(folder: Path, retriever: Retriever) -> dict[str, str]:
    """Return the titles of the contracts that a saved retriever learned from, each with TRAINED or TUNED.

    They come from its note, its feedback and its classifier, and from the data of its run up to its iteration. A folder
    that was moved away from its run still has the first three.
    """
    note = files.read_json(folder / LEARNED_FILE) if (folder / LEARNED_FILE).is_file() else {}
    spans = retriever.feedback.spans if retriever.feedback else []
    folds = retriever.classifier.fold_of if retriever.classifier else {}
    trained = [*note.get("trained", []), *(span["contract"] for span in spans), *folds]
    found = dict.fromkeys(note.get("tuned", []), TUNED) | learned_in_data(folder.resolve().parent)
    return found | dict.fromkeys(trained, TRAINED)


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


def learned_by_run(iteration: runs.Iteration, records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return the titles of the contracts that a run has learned from up to an iteration, each with how.

    records: of `data.rows.contract_records`, for the contracts that count by their split.
    """
    by_split = {each["title"]: LEARNED_SPLITS[each["split"]] for each in records if each["split"] in LEARNED_SPLITS}
    return learned_in_data(iteration.dir) | by_split


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


def listed(head: str, reasons: Mapping[str, str]) -> str:
    """Return the head and a line for each title with its reason; after TITLES_SHOWN lines the rest is counted."""
    lines = [f"  {title}: {why}" for title, why in reasons.items()]
    more = [f"  and {len(lines) - TITLES_SHOWN} more"] if len(lines) > TITLES_SHOWN else []
    return "\n".join([head + (":" if lines else "."), *lines[:TITLES_SHOWN], *more])


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
    The champion takes in the `contracts` that it lacks. The rule is that of the gate's criterion of improvement: on dev
    rows the paired interval of the difference in char_recall must lie above zero. The decision is kept in
    metrics/retriever_decision.json. settings: n_resamples, seed and confidence of `evaluation.compare.paired_delta`.
    Raises InputError if no row is answerable.
    """
    if champion is None:
        return *candidate, "The first retriever of the run is used as it was chosen."
    champion = with_run_contracts(champion[0], iteration.run, contracts), champion[1]
    found = [evaluate_retriever(retriever, rows, [k]) for retriever, k in (champion, candidate)]
    delta = bootstrap.as_columns(compare.paired_delta(*found, metric="char_recall", **settings))
    better = bool(delta["low"] > 0)
    lead = "{value:.3f} [{low:.3f}, {high:.3f}] (n={n}, {n_contracts} contracts)".format(**delta)
    outcome = "promoted" if better else "kept"
    reason = f"{outcome}: the new retriever less the promoted one in char_recall on dev: {lead}"
    decision = {"promoted": better, "delta": delta, "reason": reason}
    files.write_json(iteration.path("metrics", "retriever_decision.json"), decision)
    return *(candidate if better else champion), reason
