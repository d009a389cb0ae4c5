"""Measure a saved retriever on the contracts of any file in CUAD's layout: what `cuadft retrieval` does.

    done = retrieval_report.measure("runs/cuad_cpu/iter-01/retriever", cuad="CUAD_v1.zip")
    print(retrieval_text.text(done))

What `cuadft retrieval` prints and writes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.data import contracts, rows
from cuadft.data.contracts import Contract
from cuadft.evaluation import bootstrap
from cuadft.evaluation.answer_files import count_of
from cuadft.models import weights
from cuadft.retrieval import store

if TYPE_CHECKING:
    import pandas as pd

    from cuadft.retrieval.retriever import Retriever


EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # whose tokens the prompt is counted in
K = 3
TOKENS = f"prompt_tokens@{K}"
METRICS = ("hit@1", f"hit@{K}", f"char_recall@{K}", f"char_precision@{K}", TOKENS)
LISTED = 5  # titles named on the screen
SEED = 7  # of the bootstrap


@dataclass(frozen=True)
class MeasuredRetriever:
    """Hold the table (metric, value, low, high, n, n_contracts), a row per question, and how they came about."""

    retriever: str
    table: pd.DataFrame = field(repr=False)
    rows: pd.DataFrame = field(repr=False)
    left_out: dict[str, str] = field(repr=False)  # title -> why
    seconds: dict[str, float]
    confidence: float


def measure_saved(
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
) -> MeasuredRetriever:
    """Search every answerable question of the contracts in its own contract, with the best 1 and 3 passages.

    cuad: a file or folder for `contracts.locate`. only: titles, or files with one title a line. Contracts that the
    retriever does not hold are cut with its own size and overlap, unless given, and added to it in memory; the folder
    stays as it is. embedder, reranker: for `models.find`; without them, those that the folder holds or names. model:
    whose tokens the passages of a prompt are counted in. Left out, and named, are those that it was trained or tuned
    on and those that share half their wording with one, unless `include_trained`.
    Raises InputError for unreadable input, unknown titles, another text under a held title, and if nothing is left.
    """
    bootstrap.check_resampling(n_resamples, confidence)
    folder = runs.resolve_path(folder)
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
    return MeasuredRetriever(_name(retriever), table, frame, left_out, seconds, confidence)


def _measured(wanted: Sequence[Contract], left_out: dict[str, str]) -> list[Contract]:
    if measured := [c for c in wanted if c.title not in left_out]:
        return measured
    raise InputError(
        f"All {len(wanted)} contracts were left out: name others, or measure them as well with --include-trained."
    )


def _contracts(cuad: str, only: Sequence[str]) -> list[Contract]:
    found = contracts.read_contracts(contracts.locate_contracts(cuad, runs.project_root() / "data"))
    titles = {c.title.strip(): c.title for c in found}  # some of CUAD's own end in a blank
    named = [line for name in only for line in (_lines(name) if os.path.isfile(name) else [name])]
    return rows.select_contracts(found, only=[titles.get(name.strip(), name) for name in named])


def _lines(path: str) -> list[str]:
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: give a text file with one title a line.") from None
    return [line for line in lines if line.strip()]


def _load(folder: Path, embedder: str, reranker: str) -> Retriever:
    """Load a retriever from any folder, with what it was saved with, and without an embedder if it needs none."""
    from cuadft.retrieval.embedder import Embedder
    from cuadft.retrieval.retriever import Retriever
    from cuadft.retrieval.store import MODELS, load_reranker

    if not (folder / "settings.json").is_file():
        raise InputError(f"No retriever in {folder} (no settings.json): give a folder that 02_rag_compile saved.")
    used = files.read_json(folder / MODELS) if (folder / MODELS).is_file() else {}
    own, embed = folder / "embedder", None
    tuned = (own / "modules.json").is_file()
    if embedder or tuned or _embeds(files.read_json(folder / "settings.json")):
        path = own if tuned and not embedder else weights.find_weights(embedder or EMBEDDER)
        embed = Embedder(path, cache_dir=weights.cache_dir(), dtype=used.get("dtype", "float32"))
    return Retriever.load(folder, embed, reranker=load_reranker(reranker or used.get("reranker", "")))


def _embeds(settings: dict[str, Any]) -> bool:
    return settings.get("mode") != "bm25" or any(settings.get(name) for name in ("feedback", "classifier"))


def _left_out(folder: Path, retriever: Retriever, wanted: Iterable[Contract]) -> dict[str, str]:
    learned = store.learned_from(folder, retriever)
    rest = {c.title: c.text for c in wanted if c.title not in learned}
    held = rows.passages_by_contract(p for p in retriever.passages if p.contract in learned)
    copied = store.copies(rest, {title: store.text_of(own) for title, own in held.items()})
    why = {title: f"shares half its wording with '{other}', {learned[other]}" for title, other in copied.items()}
    return {c.title: learned.get(c.title) or why[c.title] for c in wanted if c.title in learned or c.title in why}


def _told(wanted: Sequence[Contract], left_out: dict[str, str], include_trained: bool) -> list[str]:
    if include_trained:
        return [
            f"{len(wanted)} contracts; those that the retriever was trained or tuned on are among them, which "
            "flatters it."
        ]
    named = [f"  {title}: {why}" for title, why in list(left_out.items())[:LISTED]]
    more = [f"  and {len(left_out) - LISTED} more"] if len(left_out) > LISTED else []
    return [f"{len(wanted)} contracts, {len(left_out)} of them left out" + (":" if named else "."), *named, *more]


def _add(retriever: Retriever, measured: Sequence[Contract], size: int | None, overlap: float | None) -> str:
    """Add the contracts that the retriever lacks; return what was added."""
    from cuadft.data.passages import cut_passages

    held = rows.passages_by_contract(retriever.passages)
    for contract in measured:
        if contract.title in held and store.text_of(held[contract.title]) != contract.text:
            raise InputError(
                f"Contract '{contract.title}' has another text in the retriever than in the file: give "
                "the file that the run was made from, or another title."
            )
    new = [c for c in measured if c.title not in held]
    if not new:
        return "All of them are in the retriever."
    known = retriever.cutting or (None, None)
    size, overlap = known[0] if size is None else size, known[1] if overlap is None else overlap
    if size is None or overlap is None:
        raise InputError(
            f"'{new[0].title}' is not in the retriever, which does not say how its passages were cut: "
            "give --passage-chars and --overlap."
        )
    made = [p for c in new for p in cut_passages(c.text, contract=c.title, size=size, overlap=overlap)]
    retriever.add(made)
    return f"{len(new)} contracts added: {len(made):,} passages of {size} characters, overlap {overlap:.2f}."


def _index(retriever: Retriever, rows: Sequence[dict[str, Any]]) -> None:
    """Make the retriever embed what it lacks, which it does at its first search."""
    for row in rows[:1]:
        retriever.search(row["question"], contract=row["contract"], k=1)


def _searched(retriever: Retriever, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row per question: id, contract, category, hit@k and so on."""
    import pandas as pd

    from cuadft.retrieval.measure import evaluate_retriever

    records = pd.DataFrame(evaluate_retriever(retriever, rows, (1, K)))
    names, metrics = ["id", "contract", "category"], ["hit", "char_recall", "char_precision"]
    wide = records.pivot(index=names, columns="k", values=metrics)
    wide.columns = [f"{metric}@{k}" for metric, k in wide.columns]
    return wide.reindex([tuple(row[name] for name in names) for row in rows]).reset_index()


def _prompt_tokens(retriever: Retriever, rows: Sequence[dict[str, Any]], model: str) -> list[int]:
    """Return how many tokens the passages of each row take in the prompt."""
    from transformers import AutoTokenizer

    from cuadft.retrieval.retriever import render_passages

    tokenizer = AutoTokenizer.from_pretrained(weights.find_weights(model or MODEL), trust_remote_code=False)
    found = retriever.search_many([(row["question"], row["contract"]) for row in rows], k=K)
    return [
        len(ids) for ids in tokenizer([render_passages(hits) for hits in found], add_special_tokens=False)["input_ids"]
    ]


def _table(frame: pd.DataFrame, n_resamples: int, confidence: float) -> pd.DataFrame:
    import pandas as pd

    found = {
        metric: bootstrap.cluster_bootstrap(
            frame[metric],
            frame["contract"],
            share=metric != TOKENS,
            seed=SEED,
            n_resamples=n_resamples,
            confidence=confidence,
        )
        for metric in METRICS
    }
    return pd.DataFrame([{"metric": metric} | bootstrap.as_columns(each) for metric, each in found.items()])


def _name(retriever: Retriever) -> str:
    weights = {name: value for name, value in retriever.settings.items() if name != "mode" and value}
    if retriever.mode != "fusion":
        weights.pop("dense_weight", None)  # has no part in the search
    return ", ".join([retriever.mode, *(f"{name} {value:g}" for name, value in weights.items())])


LABELS = {
    "hit@1": "Hit at 1",
    f"hit@{K}": f"Hit at {K}",
    f"char_recall@{K}": f"Character recall at {K}",
    f"char_precision@{K}": f"Character precision at {K}",
    TOKENS: f"Prompt tokens at {K}",
}


def measured_text(done: MeasuredRetriever) -> str:
    """Return the table for people, and how long it took."""
    lines = [f"Retriever: {done.retriever}. Search in each question's contract."]
    for row in done.table.itertuples():
        digits = ".1f" if row.metric == TOKENS else ".3f"
        bounds = "" if row.low != row.low else f" [{row.low:{digits}}, {row.high:{digits}}]"
        lines.append(f"{LABELS[row.metric]:<28}{row.value:{digits}}{bounds}")
    n = f"{count_of(len(done.rows), 'question')} of {count_of(done.rows['contract'].nunique(), 'contract')}"
    lines += [
        f"{n}; {done.confidence:.0%} intervals over contracts. The longest prompt has {done.rows[TOKENS].max():,} "
        "tokens of passages.",
        f"Indexing {done.seconds['indexing']:.1f} s, searching {done.seconds['searching']:.1f} s.",
    ]
    return "\n".join(lines)


def write_measured(done: MeasuredRetriever, out: str | Path) -> list[Path]:
    """Write the table to a CSV file, beside it a row per question and the contracts left out; return the paths."""
    import pandas as pd

    from cuadft.evaluation.results import as_csv

    path = Path(out).expanduser()
    seconds = {f"{name}_seconds": round(value, 2) for name, value in done.seconds.items()}
    left_out = pd.DataFrame(done.left_out.items(), columns=["contract", "why"])
    tables = {"": done.table.assign(retriever=done.retriever, **seconds), "_rows": done.rows, "_left_out": left_out}
    paths = {end: path.with_name(f"{path.stem}{end}{path.suffix or '.csv'}") for end in tables}
    for end, table in tables.items():
        files.write_text(paths[end], as_csv(table))
    return list(paths.values())
