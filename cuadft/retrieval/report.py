"""Measure a saved retriever on the contracts of any file in CUAD's layout: what `cuadft retrieval` does and prints.

    done = measure_saved("runs/cuad_cpu/iter-01/retriever", cuad="CUAD_v1.zip")
    print(measured_text(done))
    write_measured(done, "retrieval.csv")

`measure` compares retrievers inside an iteration; here one retriever meets other contracts, without those that it
learned from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.data import contracts
from cuadft.evaluation import bootstrap
from cuadft.evaluation.results import as_csv, with_intervals
from cuadft.models import weights
from cuadft.models.local import token_counter
from cuadft.retrieval import saved
from cuadft.retrieval.measure import RETRIEVAL_MEASURES, evaluate_retriever, passage_cost, retrieval_intervals

EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # whose tokens the prompt is counted in
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
    learned = {} if include_trained else saved.learned_from(folder, retriever)
    texts = {title: text for title, text in saved.held_texts(retriever).items() if title in learned}
    left_out = saved.known_contracts(wanted, learned, texts)
    note = ", also those that it was trained or tuned on, which flatters it" if include_trained else ""
    log(saved.listed(f"{len(wanted)} contracts{note}, {len(left_out)} of them left out", left_out))
    measured = [contract for contract in wanted if contract.title not in left_out]
    if not measured:
        raise InputError(f"All {len(wanted)} contracts were left out: name others, or add --include-trained.")
    retriever = saved.with_texts(retriever, measured)
    cost = passage_cost(token_counter(weights.find_weights(model or MODEL)))
    found = evaluate_retriever(retriever, [row for contract in measured for row in contract.rows], (1, 3), cost=cost)
    measures = [*RETRIEVAL_MEASURES, "prompt_tokens"]
    resampling = {"n_resamples": n_resamples, "seed": SEED, "confidence": confidence}
    table = retrieval_intervals(found.assign(retriever=folder.name), measures=measures, **resampling)
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
    named = {"": done.table.assign(settings=done.settings), "_rows": done.rows, "_left_out": left_out}
    tables = {path.with_name(f"{path.stem}{end}{path.suffix or '.csv'}"): table for end, table in named.items()}
    for written, table in tables.items():
        files.write_text(written, as_csv(table))
    return list(tables)
