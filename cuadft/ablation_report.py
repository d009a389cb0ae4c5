"""What one parameter changed in two runs that differ in nothing else: paired differences, in a table and in words."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft import corpus, files, replicates, runs
from cuadft.errors import InputError
from cuadft.runs import Iteration

if TYPE_CHECKING:
    import pandas as pd

FILES = ("ablation.csv", "ablation.md")
RETRIEVAL = "metrics/retrieval.csv"  # notebook 02's records on the test split
RECORD = ("id", "contract", "k", "retriever", "hit", "char_recall")
KS = (1, 3)  # besides the k of the program
ANSWERS = ("f1", "f1_answerable", "f1_no_clause")
HEADLINE = {"retrieval": "chosen", "answers": "sft"}  # the systems that a run ends with
TRAINED = ("retriever", "adapters")  # folders of what a run trains
SEED = 7  # of the bootstrap


@dataclass(frozen=True)
class Arm:
    """One value of the parameter, as given, and the iteration that ran with it."""

    value: str
    iteration: Iteration


def write(folder: Path, name: str, a: Arm, b: Arm, *, preset: str, overrides: Sequence[str] = (),
          n_resamples: int = 2000, confidence: float = 0.95) -> tuple[pd.DataFrame, str]:  # fmt: skip
    """Write ablation.csv and ablation.md into a folder; return the differences and the report.

    Raises InputError as `deltas`.
    """
    from cuadft.ablation_text import markdown
    from cuadft.score_report import as_csv

    table, notes = deltas(a.iteration, b.iteration, n_resamples=n_resamples, confidence=confidence)
    text = markdown(name, a, b, table, notes, preset=preset, overrides=overrides, confidence=confidence)
    files.write_text(folder / "ablation.csv", as_csv(table.assign(parameter=name, value_a=a.value, value_b=b.value)))
    files.write_text(folder / "ablation.md", text)
    return table, text


def deltas(a: Iteration, b: Iteration, *, n_resamples: int = 2000,
           confidence: float = 0.95) -> tuple[pd.DataFrame, list[str]]:  # fmt: skip
    """Return one row per part, system and metric, b minus a on the test split, and what could not be compared.

    Columns: part (retrieval or answers), system (a retriever of metrics/retrieval.csv, or what predicted), metric
    (hit@k, char_recall@k; `ANSWERS`), a, b (means), value, low, high, n, n_contracts, p, detectable (as
    `compare.paired_deltas`), identical (each question has the same score in both), p_holm (corrected over all rows
    that are not identical). Raises InputError if neither part can be compared, and as `compare.paired_delta`.
    """
    import pandas as pd

    from cuadft.compare import holm

    rows, notes = [], []
    for part, frames in (("retrieval", _retrieval), ("answers", _answers)):
        (one, left_a), (two, left_b) = frames(a), frames(b)
        notes += dict.fromkeys([*left_a, *left_b])
        for system in [s for s in one if s in two]:
            metrics = [m for m in one[system].columns[2:] if m in two[system] and one[system][m].notna().any()]
            rows += _paired(part, system, one[system], two[system], metrics, n_resamples, confidence)
    if not rows:
        raise InputError(f"Nothing to compare in {a.dir} and {b.dir}: {' '.join(notes) or 'no system is in both.'}")
    table = pd.DataFrame(rows)
    table["p_holm"] = table["p"]
    table.loc[~table["identical"], "p_holm"] = holm(table.loc[~table["identical"], "p"])
    return table, notes


def _paired(part: str, system: str, a: pd.DataFrame, b: pd.DataFrame, metrics: Sequence[str], n_resamples: int,
            confidence: float) -> Iterator[dict[str, Any]]:  # fmt: skip
    from cuadft.compare import detectable, paired_delta
    from cuadft.stats import as_columns

    for metric in metrics:
        delta = paired_delta(a, b, metric=metric, n_resamples=n_resamples, seed=SEED, confidence=confidence)
        one, other = (frame.set_index("id")[metric].dropna() for frame in (a, b))
        columns = {key: value for key, value in as_columns(delta).items() if key not in ("std_error", "critical")}
        least = detectable(delta.std_error, delta.n_clusters, critical=delta.critical)
        yield {
            "part": part, "system": system, "metric": metric, "a": one.mean(), "b": other.mean(), **columns,
            "detectable": least, "identical": one.equals(other.reindex(one.index)),
        }  # fmt: skip


def _retrieval(iteration: Iteration) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return per retriever one row per test question with its hit@k and char_recall@k, and what is missing."""
    import pandas as pd

    path = iteration.path(RETRIEVAL)
    if not path.is_file():
        return {}, ["Retrieval is not compared: a run has no metrics/retrieval.csv (notebook 02 writes it)."]
    records = _read_records(path)
    if "split" in records:
        records = records[records["split"] == "test"]
    held_out = corpus.titles(corpus.records(iteration.run, iteration.number), "test")
    records = records[records["contract"].isin(held_out)]
    if records.empty:
        return {}, [f"Retrieval is not compared: {path} holds no record on a test contract."]
    ks = [k for k in sorted({*KS, *_sent(iteration)}) if (records["k"] == k).any()]
    found = {}
    for retriever, own in records.groupby("retriever", sort=False):
        if own.duplicated(["id", "k"]).any():
            twice = own["id"][own.duplicated(["id", "k"])].iloc[0]
            raise InputError(f"{path} measures {retriever} twice on row {twice!r}: run 02_rag_compile again.")
        by_k = {k: own[own["k"] == k].set_index(["id", "contract"])[["hit", "char_recall"]] for k in ks}
        found[retriever] = pd.concat([part.add_suffix(f"@{k}") for k, part in by_k.items()], axis=1).reset_index()
    return found, []


def _read_records(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        records = pd.read_csv(path, dtype={"id": str, "contract": str, "retriever": str}, keep_default_na=False)
        missing = [name for name in RECORD if name not in records]
        numbers = records.astype({"k": int, "hit": float, "char_recall": float}) if not missing else records
    except (ValueError, pd.errors.ParserError) as error:
        told = " ".join(str(error).split())
        raise InputError(f"{path} can't be read ({told}): run 02_rag_compile again.") from None
    if missing:
        raise InputError(f"{path} has no column {missing[0]!r} ({', '.join(RECORD)}): run 02_rag_compile again.")
    return numbers


def _sent(iteration: Iteration) -> list[int]:
    """Return how many passages the program sends, or nothing if there is no program."""
    path = iteration.path("program", "rag.json")
    return [int(runs.read_json(path).get("k", 1))] if path.is_file() else []


def _answers(iteration: Iteration) -> tuple[dict[str, pd.DataFrame], list[str]]:
    """Return per system the scored rows of its test predictions, and which systems are incomplete."""
    from cuadft.metrics import score

    predictions, left_out = replicates.read(iteration, seed=0)
    test = [row for row in predictions if row["split"] == "test"]
    if not test:
        return {}, [*left_out, "Answers are not compared: a run has no complete test predictions."]
    frame = score(test)
    by_system = frame[["system", "id", "contract", *ANSWERS]].groupby("system", sort=False)
    return {system: own.drop(columns="system") for system, own in by_system}, left_out


def steps(iteration: Iteration) -> dict[str, int]:
    """Return the training steps that each training.json of an iteration records, by its folder."""
    found = {}
    for path in sorted(p for name in TRAINED for p in iteration.path(name).rglob("training.json")):
        record = runs.read_json(path)
        logged = [int(entry["step"]) for entry in record.get("log_history", []) if "step" in entry]
        if "steps" in record or logged:
            found[path.parent.relative_to(iteration.dir).as_posix()] = int(record.get("steps") or max(logged))
    return found


def seconds(iteration: Iteration) -> float:
    """Return how long the iteration's finished stages took."""
    stages = runs.read_json(iteration.path("manifest.json"))["stages"]
    return math.fsum(stage["seconds"] or 0 for stage in stages.values())


def sources(iteration: Iteration) -> Counter[str]:
    """Return how many rows of each source data/synthetic.jsonl holds."""
    path = iteration.path("data", "synthetic.jsonl")
    return Counter(row.get("source", "unknown") for row in runs.read_jsonl(path)) if path.is_file() else Counter()
