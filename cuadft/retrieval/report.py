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
from typing import TYPE_CHECKING, Any

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.data import contracts, rows
from cuadft.data.contracts import Contract
from cuadft.data.passages import cut_passages, join_passages
from cuadft.evaluation import bootstrap
from cuadft.evaluation.answer_files import count_of
from cuadft.models import weights
from cuadft.retrieval import saved

if TYPE_CHECKING:
    import pandas as pd

    from cuadft.retrieval.retriever import Retriever


EMBEDDER = "sentence-transformers/all-MiniLM-L6-v2"
MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"  # whose tokens the prompt is counted in
K = 3
TOKENS = f"prompt_tokens@{K}"
REPORTED_METRICS = ("hit@1", f"hit@{K}", f"char_recall@{K}", f"char_precision@{K}", TOKENS)
TITLES_SHOWN = 5  # left-out contracts that are named on the screen
SEED = 7  # of the bootstrap
LABELS = {
    "hit@1": "Hit at 1",
    f"hit@{K}": f"Hit at {K}",
    f"char_recall@{K}": f"Character recall at {K}",
    f"char_precision@{K}": f"Character precision at {K}",
    TOKENS: f"Prompt tokens at {K}",
}


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
    reranker: str = "",
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
    folder stays as it is. embedder, reranker: models, as `models.weights.find_weights` takes them; by default those
    that the folder holds or names. model: its tokenizer counts the tokens of a prompt's passages.
    Contracts that the retriever was trained or tuned on, and contracts that share half their wording with one of them,
    are left out and named, unless `include_trained`.
    Raises InputError for unreadable input, unknown titles, another text under a held title, and if nothing is left.
    """
    bootstrap.check_resampling(n_resamples, confidence)
    folder = runs.resolve_path(folder)
    wanted = _read_contracts(cuad, only)
    retriever = _load_retriever(folder, embedder, reranker)
    left_out = {} if include_trained else _left_out(folder, retriever, wanted)
    flattered = "those that the retriever was trained or tuned on are among them, which flatters it"
    for line in [f"{len(wanted)} contracts; {flattered}."] if include_trained else left_out_lines(wanted, left_out):
        log(line)
    measured = _not_left_out(wanted, left_out)
    started = time.monotonic()
    log(_add_contracts(retriever, measured, size, overlap))
    rows = [row for contract in measured for row in contract.rows if row["answers"]]
    _embed_passages(retriever, rows)
    indexed = time.monotonic()
    frame = _search_rows(retriever, rows)
    seconds = {"indexing": indexed - started, "searching": time.monotonic() - indexed}
    frame[TOKENS] = _prompt_tokens(retriever, rows, model)
    table = _table_of(frame, n_resamples, confidence)
    return MeasuredRetriever(_settings_text(retriever), table, frame, left_out, seconds, confidence)


def measured_text(done: MeasuredRetriever) -> str:
    """Return the table as text, and how long it took."""
    lines = [f"Retriever: {done.retriever}. Search in each question's contract."]
    for row in done.table.itertuples():
        digits = ".1f" if row.metric == TOKENS else ".3f"
        bounds = "" if math.isnan(row.low) else f" [{row.low:{digits}}, {row.high:{digits}}]"
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


def _not_left_out(wanted: Sequence[Contract], left_out: dict[str, str]) -> list[Contract]:
    if measured := [c for c in wanted if c.title not in left_out]:
        return measured
    raise InputError(
        f"All {len(wanted)} contracts were left out: name others, or measure them as well with --include-trained."
    )


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


def _load_retriever(folder: Path, embedder: str, reranker: str) -> Retriever:
    """Load a retriever from any folder with the models it was saved with; without an embedder if it needs none."""
    from cuadft.retrieval.embedder import Embedder
    from cuadft.retrieval.retriever import Retriever
    from cuadft.retrieval.saved import MODELS_FILE, load_reranker

    if not (folder / "settings.json").is_file():
        raise InputError(f"No retriever in {folder} (no settings.json): give a folder that 02_rag_compile saved.")
    used = files.read_json(folder / MODELS_FILE) if (folder / MODELS_FILE).is_file() else {}
    own, embed = folder / "embedder", None
    tuned = (own / "modules.json").is_file()
    if embedder or tuned or _needs_embedder(files.read_json(folder / "settings.json")):
        path = own if tuned and not embedder else weights.find_weights(embedder or EMBEDDER)
        embed = Embedder(path, cache_dir=weights.cache_dir(), dtype=used.get("dtype", "float32"))
    return Retriever.load(folder, embed, reranker=load_reranker(reranker or used.get("reranker", "")))


def _needs_embedder(settings: dict[str, Any]) -> bool:
    return settings.get("mode") != "bm25" or any(settings.get(name) for name in ("feedback", "classifier"))


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
    held = rows.passages_by_contract(retriever.passages)
    for contract in measured:
        if contract.title in held and join_passages(held[contract.title])[0] != contract.text:
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


def _embed_passages(retriever: Retriever, rows: Sequence[dict[str, Any]]) -> None:
    """Make the retriever embed its new passages now: it does so at its first search."""
    for row in rows[:1]:
        retriever.search(row["question"], contract=row["contract"], k=1)


def _search_rows(retriever: Retriever, rows: Sequence[dict[str, Any]]) -> pd.DataFrame:
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
    prompts = [render_passages(hits) for hits in found]
    return [len(ids) for ids in tokenizer(prompts, add_special_tokens=False)["input_ids"]]


def _table_of(frame: pd.DataFrame, n_resamples: int, confidence: float) -> pd.DataFrame:
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
        for metric in REPORTED_METRICS
    }
    return pd.DataFrame([{"metric": metric} | bootstrap.as_columns(each) for metric, each in found.items()])


def _settings_text(retriever: Retriever) -> str:
    weights = {name: value for name, value in retriever.settings.items() if name != "mode" and value}
    if retriever.mode != "fusion":
        weights.pop("dense_weight", None)  # has no part in the search
    return ", ".join([retriever.mode, *(f"{name} {value:g}" for name, value in weights.items())])
