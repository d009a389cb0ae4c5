"""Measure a saved retriever on the contracts of any file in CUAD's layout: what `cuadft retrieval` does and prints.

    done = measure_saved("runs/cuad_cpu/iter-01/retriever", cuad="CUAD_v1.zip")
    print(measured_text(done))
    write_measured(done, "retrieval.csv")

`measure` compares retrievers inside an iteration; here one retriever meets other contracts, without those that it
learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.data import contracts
from cuadft.data.contracts import Contract
from cuadft.evaluation import bootstrap
from cuadft.evaluation.results import as_csv, with_intervals
from cuadft.models import weights
from cuadft.models.local import token_counter
from cuadft.retrieval import saved
from cuadft.retrieval.measure import RETRIEVAL_MEASURES, evaluate_retriever, retrieval_intervals
from cuadft.retrieval.retriever import render_passages

EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # whose tokens the prompt is counted in
KS = (1, 3)
TITLES_SHOWN = 5  # left-out contracts that are named on the screen
SEED = 7  # of the bootstrap


@dataclass(frozen=True)
class MeasuredRetriever:
    """Hold what was measured: the table of `retrieval_intervals` and the rows of `evaluate_retriever` behind it."""

    settings: str
    table: pd.DataFrame = field(repr=False)
    rows: pd.DataFrame = field(repr=False)
    left_out: dict[str, str] = field(repr=False)  # title -> why


def measure_saved(
    folder: str | Path,
    *,
    cuad: str,
    include_trained: bool = False,
    embedder: str = "",
    model: str = "",
    n_resamples: int = 2000,
    confidence: float = 0.95,
    log: Callable[[str], object] = print,
) -> MeasuredRetriever:
    """Search for every answerable question in its own contract, and measure the best 1 and the best 3 passages.

    cuad: a file or folder, as `data.contracts.locate_contracts` takes it. Contracts that the retriever lacks are added
    to it in memory, cut as its own were; the folder stays as it is. embedder: the model of a retriever without one of
    its own, as `models.weights.find_weights` takes it. model: its tokenizer counts the tokens of a prompt's passages.
    Contracts that the retriever was trained or tuned on, and contracts that share half their wording with one of them,
    are left out and named, unless `include_trained`. Raises InputError for unreadable input, and if nothing is left.
    """
    bootstrap.check_resampling(n_resamples, confidence)
    folder = runs.resolve_path(folder)
    retriever = saved.load_retriever_folder(folder, embedder or EMBEDDER)
    wanted = contracts.read_contracts(contracts.locate_contracts(cuad, runs.project_root() / "data"))
    left_out: dict[str, str] = {}
    if include_trained:
        log(f"{len(wanted)} contracts, also those that the retriever was trained or tuned on, which flatters it.")
    else:
        learned, held = saved.learned_from(folder, retriever), saved.held_texts(retriever)
        left_out = saved.known_contracts(wanted, learned, {title: held[title] for title in learned if title in held})
        log("\n".join(left_out_lines(wanted, left_out)))
    measured = [contract for contract in wanted if contract.title not in left_out]
    if not measured:
        raise InputError(
            f"All {len(wanted)} contracts were left out: name others, or measure them as well with --include-trained."
        )
    retriever = saved.with_texts(retriever, measured)
    asked, count = [row for c in measured for row in c.rows], token_counter(weights.find_weights(model or MODEL))
    found = evaluate_retriever(retriever, asked, KS, prompt_tokens=lambda hits: count(render_passages(hits)))
    table = retrieval_intervals(
        found.assign(retriever=folder.name),
        measures=[*RETRIEVAL_MEASURES, "prompt_tokens"],
        n_resamples=n_resamples,
        seed=SEED,
        confidence=confidence,
    )
    settings = ", ".join(f"{name} {value}" for name, value in retriever.settings.items() if value)
    return MeasuredRetriever(settings, table, found, left_out)


def measured_text(done: MeasuredRetriever) -> str:
    """Return the table as text: a row for the best 1 and one for the best 3 passages."""
    table = with_intervals(done.table.drop(columns="retriever")).to_string(index=False)
    return f"Search in each question's contract ({done.settings}); intervals over contracts.\n{table}"


def write_measured(done: MeasuredRetriever, out: str | Path) -> list[Path]:
    """Write the table to a CSV file, beside it the rows behind it and the contracts left out; return the paths."""
    path = Path(out).expanduser()
    left_out = pd.DataFrame(done.left_out.items(), columns=["contract", "why"])
    tables = {"": done.table.assign(settings=done.settings), "_rows": done.rows, "_left_out": left_out}
    paths = {end: path.with_name(f"{path.stem}{end}{path.suffix or '.csv'}") for end in tables}
    for end, table in tables.items():
        files.write_text(paths[end], as_csv(table))
    return list(paths.values())


def left_out_lines(wanted: Sequence[Contract], left_out: Mapping[str, str], *, shown: int = TITLES_SHOWN) -> list[str]:
    """Return lines on the contracts that are left out and why; `shown` of them are named."""
    head = f"{len(wanted)} contracts, {len(left_out)} of them left out"
    return [f"{head}:", *named_lines(left_out, shown)] if left_out else [f"{head}."]


def named_lines(reasons: Mapping[str, str], shown: int) -> list[str]:
    """Return a line for each title with its reason; after `shown` lines the rest is counted."""
    named = [f"  {title}: {why}" for title, why in list(reasons.items())[:shown]]
    return named + ([f"  and {len(reasons) - shown} more"] if len(reasons) > shown else [])
