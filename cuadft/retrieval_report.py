"""Measure a saved retriever on the contracts of any file in CUAD's layout: what `cuadft retrieval` does.

    done = retrieval_report.measure("runs/cuad_cpu/iter-01/retriever", cuad="CUAD_v1.zip")
    print(retrieval_text.text(done))
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft import contracts, corpus, files, models, origin, runs, stats
from cuadft.contracts import Contract
from cuadft.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from cuadft.retriever import Retriever

EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # whose tokens the prompt is counted in
K = 3
TOKENS = f"prompt_tokens@{K}"
METRICS = ("hit@1", f"hit@{K}", f"char_recall@{K}", f"char_precision@{K}", TOKENS)
LISTED = 5  # titles named on the screen
SEED = 7  # of the bootstrap


@dataclass(frozen=True)
class Measured:
    """Hold the table (metric, value, low, high, n, n_contracts), a row per question, and how they came about."""

    retriever: str
    table: pd.DataFrame = field(repr=False)
    rows: pd.DataFrame = field(repr=False)
    left_out: dict[str, str] = field(repr=False)  # title -> why
    seconds: dict[str, float]
    confidence: float


def measure(
    folder: str | Path,
    *,
    cuad: str,
    only: Sequence[str] = (),
    include_trained: bool = False,
    embedder: str = "",
    reranker: str = "",
    model: str = "",
    size: int | None = None,
    overlap: float | None = None,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    log: Callable[[str], object] = print,
) -> Measured:
    """Search every answerable question of the contracts in its own contract, with the best 1 and 3 passages.

    cuad: a file or folder for `contracts.locate`. only: titles, or files with one title a line. Contracts that the
    retriever does not hold are cut with its own size and overlap, unless given, and added to it in memory; the folder
    stays as it is. embedder, reranker: for `models.find`; without them, those that the folder holds or names. model:
    whose tokens the passages of a prompt are counted in. Left out, and named, are those that it was trained or tuned
    on and those that share half their wording with one, unless `include_trained`.
    Raises InputError for unreadable input, unknown titles, another text under a held title, and if nothing is left.
    """
    stats.check(n_resamples, confidence)
    folder = runs.resolve(folder)
    wanted = _contracts(cuad, only)
    retriever = _load(folder, embedder, reranker)
    left_out = {} if include_trained else _left_out(folder, retriever, wanted)
    for line in _told(wanted, left_out, include_trained):
        log(line)
    measured = _measured(wanted, left_out)
    started = time.monotonic()
    log(_add(retriever, measured, size, overlap))
    rows = [row for contract in measured for row in contract.rows if row["answers"]]
    _index(retriever, rows)
    indexed = time.monotonic()
    frame = _searched(retriever, rows)
    seconds = {"indexing": indexed - started, "searching": time.monotonic() - indexed}
    frame[TOKENS] = _prompt_tokens(retriever, rows, model)
    table = _table(frame, n_resamples, confidence)
    return Measured(_name(retriever), table, frame, left_out, seconds, confidence)


def _measured(wanted: Sequence[Contract], left_out: dict[str, str]) -> list[Contract]:
    if measured := [c for c in wanted if c.title not in left_out]:
        return measured
    raise InputError(f"All {len(wanted)} contracts were left out: name others, or measure them as well with "
                     "--include-trained.")  # fmt: skip


def _contracts(cuad: str, only: Sequence[str]) -> list[Contract]:
    found = contracts.read(contracts.locate(cuad, runs.root() / "data"))
    titles = {c.title.strip(): c.title for c in found}  # some of CUAD's own end in a blank
    named = [line for name in only for line in (_lines(name) if os.path.isfile(name) else [name])]
    return corpus.select(found, only=[titles.get(name.strip(), name) for name in named])


def _lines(path: str) -> list[str]:
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: give a text file with one title a line.") from None
    return [line for line in lines if line.strip()]


def _load(folder: Path, embedder: str, reranker: str) -> Retriever:
    """Load a retriever from any folder, with what it was saved with, and without an embedder if it needs none."""
    from cuadft.embedder import Embedder
    from cuadft.retriever import Retriever
    from cuadft.systems import MODELS, load_reranker

    if not (folder / "settings.json").is_file():
        raise InputError(f"No retriever in {folder} (no settings.json): give a folder that 02_rag_compile saved.")
    used = files.read_json(folder / MODELS) if (folder / MODELS).is_file() else {}
    own, embed = folder / "embedder", None
    tuned = (own / "modules.json").is_file()
    if embedder or tuned or _embeds(files.read_json(folder / "settings.json")):
        path = own if tuned and not embedder else models.find(embedder or EMBEDDER)
        embed = Embedder(path, cache_dir=models.cache_dir(), dtype=used.get("dtype", "float32"))
    return Retriever.load(folder, embed, reranker=load_reranker(reranker or used.get("reranker", "")))


def _embeds(settings: dict[str, Any]) -> bool:
    return settings.get("mode") != "bm25" or any(settings.get(name) for name in ("feedback", "classifier"))


def _left_out(folder: Path, retriever: Retriever, wanted: Iterable[Contract]) -> dict[str, str]:
    learned = origin.learned_from(folder, retriever)
    rest = {c.title: c.text for c in wanted if c.title not in learned}
    held = corpus.by_contract(p for p in retriever.passages if p.contract in learned)
    copied = origin.copies(rest, {title: origin.text_of(own) for title, own in held.items()})
    why = {title: f"shares half its wording with '{other}', {learned[other]}" for title, other in copied.items()}
    return {c.title: learned.get(c.title) or why[c.title] for c in wanted if c.title in learned or c.title in why}


def _told(wanted: Sequence[Contract], left_out: dict[str, str], include_trained: bool) -> list[str]:
    if include_trained:
        return [f"{len(wanted)} contracts; those that the retriever was trained or tuned on are among them, which "
                "flatters it."]  # fmt: skip
    named = [f"  {title}: {why}" for title, why in list(left_out.items())[:LISTED]]
    more = [f"  and {len(left_out) - LISTED} more"] if len(left_out) > LISTED else []
    return [f"{len(wanted)} contracts, {len(left_out)} of them left out" + (":" if named else "."), *named, *more]


def _add(retriever: Retriever, measured: Sequence[Contract], size: int | None, overlap: float | None) -> str:
    """Add the contracts that the retriever lacks; return what was added."""
    from cuadft.passages import cut

    held = corpus.by_contract(retriever.passages)
    for contract in measured:
        if contract.title in held and origin.text_of(held[contract.title]) != contract.text:
            raise InputError(f"Contract '{contract.title}' has another text in the retriever than in the file: give "
                             "the file that the run was made from, or another title.")  # fmt: skip
    new = [c for c in measured if c.title not in held]
    if not new:
        return "All of them are in the retriever."
    known = retriever.cutting or (None, None)
    size, overlap = known[0] if size is None else size, known[1] if overlap is None else overlap
    if size is None or overlap is None:
        raise InputError(f"'{new[0].title}' is not in the retriever, which does not say how its passages were cut: "
                         "give --passage-chars and --overlap.")  # fmt: skip
    made = [p for c in new for p in cut(c.text, contract=c.title, size=size, overlap=overlap)]
    retriever.add(made)
    return f"{len(new)} contracts added: {len(made):,} passages of {size} characters, overlap {overlap:.2f}."


def _index(retriever: Retriever, rows: Sequence[dict[str, Any]]) -> None:
    """Make the retriever embed what it lacks, which it does at its first search."""
    for row in rows[:1]:
        retriever.search(row["question"], contract=row["contract"], k=1)


def _searched(retriever: Retriever, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row per question: id, contract, category, hit@k and so on."""
    import pandas as pd

    from cuadft.retrieval import evaluate

    records = pd.DataFrame(evaluate(retriever, rows, (1, K)))
    names, metrics = ["id", "contract", "category"], ["hit", "char_recall", "char_precision"]
    wide = records.pivot(index=names, columns="k", values=metrics)
    wide.columns = [f"{metric}@{k}" for metric, k in wide.columns]
    return wide.reindex([tuple(row[name] for name in names) for row in rows]).reset_index()


def _prompt_tokens(retriever: Retriever, rows: Sequence[dict[str, Any]], model: str) -> list[int]:
    """Return how many tokens the passages of each row take in the prompt."""
    from transformers import AutoTokenizer

    from cuadft.program import render

    tokenizer = AutoTokenizer.from_pretrained(models.find(model or MODEL), trust_remote_code=False)
    found = retriever.search_many([(row["question"], row["contract"]) for row in rows], k=K)
    return [len(ids) for ids in tokenizer([render(hits) for hits in found], add_special_tokens=False)["input_ids"]]


def _table(frame: pd.DataFrame, n_resamples: int, confidence: float) -> pd.DataFrame:
    import pandas as pd

    found = {
        metric: stats.cluster_bootstrap(frame[metric], frame["contract"], share=metric != TOKENS, seed=SEED,
                                        n_resamples=n_resamples, confidence=confidence)
        for metric in METRICS
    }  # fmt: skip
    return pd.DataFrame([{"metric": metric} | stats.as_columns(each) for metric, each in found.items()])


def _name(retriever: Retriever) -> str:
    weights = {name: value for name, value in retriever.settings.items() if name != "mode" and value}
    if retriever.mode != "fusion":
        weights.pop("dense_weight", None)  # has no part in the search
    return ", ".join([retriever.mode, *(f"{name} {value:g}" for name, value in weights.items())])
