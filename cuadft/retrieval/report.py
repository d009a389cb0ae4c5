"""Measure a saved retriever on the contracts of any file in CUAD's layout: what `cuadft retrieval` does and prints.

    done = measure_saved("runs/cuad_cpu/iter-01/retriever", cuad="CUAD_v1.zip")
    print(measured_text(done))
    write_measured(done, "retrieval.csv")

`measure` compares retrievers inside an iteration; here one retriever meets other contracts, without those that it
learned from.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.data import contracts, rows
from cuadft.data.contracts import Contract
from cuadft.data.passages import join_passages
from cuadft.evaluation import bootstrap
from cuadft.evaluation.answer_files import count_of
from cuadft.evaluation.results import as_csv
from cuadft.models import weights
from cuadft.models.local import token_counter
from cuadft.retrieval import saved
from cuadft.retrieval.measure import evaluate_retriever
from cuadft.retrieval.retriever import SETTINGS_FILE, Retriever, render_passages

EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # whose tokens the prompt is counted in
K = 3
TOKENS = f"prompt_tokens@{K}"
REPORTED_METRICS = ("hit@1", f"hit@{K}", f"char_recall@{K}", f"char_precision@{K}", TOKENS)
TITLES_SHOWN = 5  # left-out contracts that are named on the screen
SEED = 7  # of the bootstrap


@dataclass(frozen=True)
class MeasuredRetriever:
    """Hold what was measured: the table (metric, value, low, high, n, n_contracts) and a row per question."""

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
    model: str = "",
    size: int | None = None,
    overlap: float | None = None,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    log: Callable[[str], object] = print,
) -> MeasuredRetriever:
    """Search for every answerable question in its own contract, and measure the best 1 and the best 3 passages.

    cuad: a file or folder, as `data.contracts.locate_contracts` takes it. only: titles, or files with one title a line.
    Contracts that the retriever lacks are added to it in memory, cut with `size` and `overlap`, by default its own; the
    folder stays as it is. embedder: a model, as `models.weights.find_weights` takes it; by default the one that the
    folder holds. model: its tokenizer counts the tokens of a prompt's passages.
    Contracts that the retriever was trained or tuned on, and contracts that share half their wording with one of them,
    are left out and named, unless `include_trained`.
    Raises InputError for unreadable input, unknown titles, another text under a held title, and if nothing is left.
    """
    bootstrap.check_resampling(n_resamples, confidence)
    folder = runs.resolve_path(folder)
    wanted = _read_contracts(cuad, only)
    retriever = _load_retriever(folder, embedder)
    left_out = {} if include_trained else _left_out(folder, retriever, wanted)
    flattered = "those that the retriever was trained or tuned on are among them, which flatters it"
    for line in [f"{len(wanted)} contracts; {flattered}."] if include_trained else left_out_lines(wanted, left_out):
        log(line)
    measured = [contract for contract in wanted if contract.title not in left_out]
    if not measured:
        raise InputError(
            f"All {len(wanted)} contracts were left out: name others, or measure them as well with --include-trained."
        )
    started = time.monotonic()
    log(_add_contracts(retriever, measured, size, overlap))
    asked = [row for contract in measured for row in contract.rows if row["answers"]]
    queries = [(row["question"], row["contract"]) for row in asked]
    retriever.search_many(queries[:1])  # the first search embeds the new passages
    indexed = time.monotonic()
    frame = _search_rows(retriever, asked)
    seconds = {"indexing": indexed - started, "searching": time.monotonic() - indexed}
    count = token_counter(weights.find_weights(model or MODEL))
    frame[TOKENS] = [count(render_passages(hits)) for hits in retriever.search_many(queries, k=K)]
    table = _table_of(frame, n_resamples, confidence)
    return MeasuredRetriever(_settings_text(retriever), table, frame, left_out, seconds, confidence)


def measured_text(done: MeasuredRetriever) -> str:
    """Return the table as text, and how long it took."""
    lines = [f"Retriever: {done.retriever}. Search in each question's contract."]
    for row in done.table.itertuples():
        digits = ".1f" if row.metric == TOKENS else ".3f"
        bounds = "" if math.isnan(row.low) else f" [{row.low:{digits}}, {row.high:{digits}}]"
        label = row.metric.replace("char_", "character ").replace("_", " ").replace("@", " at ").capitalize()
        lines.append(f"{label:<28}{row.value:{digits}}{bounds}")
    n = f"{count_of(len(done.rows), 'question')} of {count_of(done.rows['contract'].nunique(), 'contract')}"
    lines += [
        f"{n}; {done.confidence:.0%} intervals over contracts. The longest prompt has {done.rows[TOKENS].max():,} "
        "tokens of passages.",
        f"Indexing {done.seconds['indexing']:.1f} s, searching {done.seconds['searching']:.1f} s.",
    ]
    return "\n".join(lines)


def write_measured(done: MeasuredRetriever, out: str | Path) -> list[Path]:
    """Write the table to a CSV file, beside it a row per question and the contracts left out; return the paths."""
    path = Path(out).expanduser()
    seconds = {f"{name}_seconds": round(value, 2) for name, value in done.seconds.items()}
    left_out = pd.DataFrame(done.left_out.items(), columns=["contract", "why"])
    tables = {"": done.table.assign(retriever=done.retriever, **seconds), "_rows": done.rows, "_left_out": left_out}
    paths = {end: path.with_name(f"{path.stem}{end}{path.suffix or '.csv'}") for end in tables}
    for end, table in tables.items():
        files.write_text(paths[end], as_csv(table))
    return list(paths.values())


def _read_contracts(cuad: str, only: Sequence[str]) -> list[Contract]:
    found = contracts.read_contracts(contracts.locate_contracts(cuad, runs.project_root() / "data"))
    titles = {c.title.strip(): c.title for c in found}  # some of CUAD's own end in a blank
    named = [line for name in only for line in (_title_lines(name) if os.path.isfile(name) else [name])]
    return rows.select_contracts(found, only=[titles.get(name.strip(), name) for name in named])


def _title_lines(path: str) -> list[str]:
    try:
        lines = Path(path).read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: give a text file with one title a line.") from None
    return [line for line in lines if line.strip()]


def _load_retriever(folder: Path, embedder: str) -> Retriever:
    """Load a retriever with the given embedder, its own or MiniLM; with none if it only compares words."""
    path = folder / SETTINGS_FILE
    settings = files.read_json(path) if path.is_file() else {}
    needed = settings.get("mode") != "bm25" or settings.get("feedback") or settings.get("classifier")
    return saved.load_retriever_folder(folder, embedder or (EMBEDDER if needed else ""), prefer_own=not embedder)


def _left_out(folder: Path, retriever: Retriever, wanted: Iterable[Contract]) -> dict[str, str]:
    learned = saved.learned_from(folder, retriever)
    held = rows.passages_by_contract(p for p in retriever.passages if p.contract in learned)
    return saved.known_contracts(wanted, learned, {title: join_passages(own)[0] for title, own in held.items()})


def left_out_lines(wanted: Sequence[Contract], left_out: Mapping[str, str], *, shown: int = TITLES_SHOWN) -> list[str]:
    """Return lines on the contracts that are left out and why; `shown` of them are named."""
    head = f"{len(wanted)} contracts, {len(left_out)} of them left out"
    return [f"{head}:", *named_lines(left_out, shown)] if left_out else [f"{head}."]


def named_lines(reasons: Mapping[str, str], shown: int) -> list[str]:
    """Return a line for each title with its reason; after `shown` lines the rest is counted."""
    named = [f"  {title}: {why}" for title, why in list(reasons.items())[:shown]]
    return named + ([f"  and {len(reasons) - shown} more"] if len(reasons) > shown else [])


def _add_contracts(retriever: Retriever, measured: Sequence[Contract], size: int | None, overlap: float | None) -> str:
    """Add the contracts that the retriever lacks; return what was added."""
    held = {title: join_passages(own)[0] for title, own in rows.passages_by_contract(retriever.passages).items()}
    for contract in measured:
        if held.get(contract.title, contract.text) != contract.text:
            raise InputError(
                f"Contract '{contract.title}' has another text in the retriever than in the file: give "
                "the file that the run was made from, or another title."
            )
    new, before = [c for c in measured if c.title not in held], len(retriever.passages)
    if not new:
        return "All of them are in the retriever."
    known = retriever.cutting or (None, None)
    retriever.cutting = tuple(kept if given is None else given for given, kept in zip((size, overlap), known))
    if None in retriever.cutting:
        raise InputError(
            f"'{new[0].title}' is not in the retriever, which does not say how its passages were cut: "
            "give --passage-chars and --overlap."
        )
    saved.with_texts(retriever, new)
    size, overlap = retriever.cutting
    added = len(retriever.passages) - before
    return f"{len(new)} contracts added: {added:,} passages of {size} characters, overlap {overlap:.2f}."


def _search_rows(retriever: Retriever, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return one row per question: id, contract, category, hit@k and so on."""
    records = pd.DataFrame(evaluate_retriever(retriever, rows, (1, K)))
    names, metrics = ["id", "contract", "category"], ["hit", "char_recall", "char_precision"]
    wide = records.pivot(index=names, columns="k", values=metrics)
    wide.columns = [f"{metric}@{k}" for metric, k in wide.columns]
    return wide.reindex([tuple(row[name] for name in names) for row in rows]).reset_index()


def _table_of(frame: pd.DataFrame, n_resamples: int, confidence: float) -> pd.DataFrame:
    settings = {"seed": SEED, "n_resamples": n_resamples, "confidence": confidence}
    found = {
        name: bootstrap.cluster_bootstrap(frame[name], frame["contract"], share=name != TOKENS, **settings)
        for name in REPORTED_METRICS
    }
    return pd.DataFrame([{"metric": name} | bootstrap.as_columns(each) for name, each in found.items()])


def _settings_text(retriever: Retriever) -> str:
    mode, *weights = retriever.settings.items()
    used = [(name, w) for name, w in weights if w and (name != "dense_weight" or mode[1] == "fusion")]
    return ", ".join([mode[1], *(f"{name} {weight:g}" for name, weight in used)])
