"""Published results: a folder of answer files, others' verdicts row by row where they are there, and printed means.

    results = published.recompute("published", {"reference_score": OfflineJudge()}, seed=7)
    results.table, results.deltas, results.findings, results.notes

Verdicts of others stand in the columns `judge_bool` (0 or 1) and `judge_score` (0 to 1); the means that the source
printed stand in a table of the folder's README.md headed `system | judge_bool | judge_score`, "a / b" for two passes.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft import answers, metrics, pooled
from cuadft.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

VERDICTS = {"judge_bool": "published_bool", "judge_score": "published_score"}  # file's column -> frame's column
PRINTED = {"judge_bool": "printed_bool", "judge_score": "printed_score"}  # README's column -> measure in the table
OURS = ("reference_score", "judge_score", "f1", "rouge_l")
FILES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
SAMPLE = "amlc-2024-tutorial-continuous-fine-tuning-compound-ai"
NOTES = {  # a source named in the README -> what is known of how its figures came about; nothing here is computed
    SAMPLE: (
        "All seven systems answer the same 32 questions on one contract (an ENERGOUS strategic alliance agreement).",
        "The compiled prompts were compiled on those questions, the tuned models trained on them, and all were "
        "scored on them: the scores say how well each fits these questions, nothing of other ones or contracts.",
        "Compiled and tuned systems had this advantage, plain RAG had not: their distance does not measure a method.",
        "The judge, Claude 3 Sonnet, saw reference and answer but not the question; rag_sonnet and "
        "rag_sonnet_compiled run, by their names, on the judge's own model.",
        "The chart in the sample's README shows other values for rag_haiku and rag_haiku_compiled than its notebook.",
    )
}


@dataclass(frozen=True)
class Published:
    """Hold a folder's answer files and its printed means (columns system, verdict, run, value)."""

    folder: Path
    files: list[answers.AnswerFile]
    means: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def systems(self) -> list[str]:
        """The systems that have answers, in the order of the files."""
        return list(dict.fromkeys(row["system"] for file in self.files for row in file.rows))


@dataclass(frozen=True)
class Results:
    """Hold what `compare` makes of published answers: table, paired tests and sentences."""

    table: pd.DataFrame
    deltas: pd.DataFrame
    findings: list[str]
    notes: tuple[str, ...]
    frame: pd.DataFrame = field(repr=False)


def read(folder: str | Path) -> Published:
    """Return the answers, verdicts and printed means of a folder, its files in the order of the README's table.

    Raises InputError if the folder holds no answer file, or one that can't be read.
    """
    import pandas as pd

    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise InputError(f"No folder {folder}: give the folder that holds one answer file per system.")
    paths = [p for p in sorted(folder.glob("[!.]*")) if p.suffix.lower() in FILES and p.is_file()]
    if not paths:
        raise InputError(f"No answer files in {folder}: put one CSV or JSON-lines file per system there.")
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    means = pd.DataFrame(_means(text, readme), columns=["system", "verdict", "run", "value"])
    notes = tuple(note for source, lines in NOTES.items() if source in text for note in lines)
    printed = list(means["system"])
    paths.sort(key=lambda p: printed.index(p.stem) if p.stem in printed else len(printed))
    return Published(folder, answers.read(paths, verdicts=tuple(VERDICTS)), means, notes)


def _means(text: str, path: Path) -> list[dict[str, Any]]:
    """Return the means of the first table with a `system` and a verdict column; a cell may hold one per pass."""
    rows, header = [], []
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip(" `*") for cell in line.strip().strip("|").split("|")] if "|" in line else []
        if header and not cells:
            break
        if not header:
            folded = [cell.lower() for cell in cells]
            header = folded if "system" in folded and not set(VERDICTS).isdisjoint(folded) else []
        elif not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            row = dict.fromkeys(header, "") | dict(zip(header, cells))
            if row["system"] in [before["system"] for before in rows]:
                raise InputError(f"{path}, line {number}: {row['system']!r} is there twice: write one row for each "
                                 "system, with '/' between the means of several passes.")  # fmt: skip
            for verdict in (v for v in VERDICTS if v in row):
                values = _numbers(row[verdict], f"{path}, line {number}")
                rows += [{"system": row["system"], "verdict": verdict, "run": n, "value": v} for n, v in values]
    return rows


def _numbers(cell: str, where: str) -> list[tuple[int, float]]:
    parts = [part.strip() for part in cell.split("/")] if cell not in ("", "-", "–", "—") else []
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = [-1.0]
    if not all(0 <= number <= 1 for number in numbers):
        raise InputError(f"{where}: {cell!r} is no mean: write a number from 0 to 1 for each pass, '/' between them, "
                         "'-' for none.")  # fmt: skip
    return list(enumerate(numbers, 1))


def with_verdicts(frame: pd.DataFrame, predictions: list[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the scored rows with the published verdicts of the same rows beside them (NaN where there is none)."""
    given = {ours: [p["verdicts"].get(theirs) for p in predictions] for theirs, ours in VERDICTS.items()}
    return frame.assign(**given).astype(dict.fromkeys(given, float))


def recompute(folder: str | Path, judges: Mapping[str, Any], *, n_resamples: int = 2000, seed: int = 7,
              confidence: float = 0.95) -> Results:
    """Return `compare` on a folder alone; judges: {"reference_score": OfflineJudge(), "judge_score": an LMJudge}."""
    seen = read(folder)
    pool = pooled.join(seen.files)
    frame = metrics.score(pool.predictions)
    for name, judge in judges.items():
        frame[name] = judge.rate(pool.predictions)["judge_score"]
    frame = with_verdicts(frame, pool.predictions)
    return compare(seen, frame, n_resamples=n_resamples, seed=seed, confidence=confidence)


def compare(seen: Published, frame: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 7,
            confidence: float = 0.95) -> Results:
    """Return published figures beside recomputed ones, paired tests of all pairs of systems, and findings.

    frame: from `metrics.score` with the judges' columns and `with_verdicts`, published systems and others. The table
    has columns system, measure, run (pass of a printed mean, else 0), value, low, high, n; measures are `PRINTED`,
    `VERDICTS` and `OURS`. Deltas are those of `compare.paired_deltas`, one Holm family per measure.
    """
    from cuadft import findings, verdict_checks

    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    table = _table(seen, frame, settings)
    faulty = verdict_checks.faulty_systems(frame)
    deltas = _deltas(frame, [*VERDICTS.values(), *(m for m in OURS if m in frame)], faulty, settings)
    sentences = findings.sentences(seen, frame, table, deltas, confidence=confidence)
    return Results(table, deltas, sentences, seen.notes, frame)


def _table(seen: Published, frame: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    from cuadft.stats import cluster_bootstrap

    nan, order = float("nan"), [*seen.systems, *(s for s in frame["system"].unique() if s not in seen.systems)]
    rows = [{"system": mean.system, "measure": PRINTED[mean.verdict], "run": mean.run, "value": mean.value,
             "low": nan, "high": nan, "n": nan}
            for mean in seen.means.itertuples() if mean.system in order]  # fmt: skip
    for system, measure in itertools.product(order, [*VERDICTS.values(), *(m for m in OURS if m in frame)]):
        part = frame[(frame["system"] == system) & frame[measure].notna()]
        if len(part):
            found = cluster_bootstrap(part[measure], part["contract"], **settings)
            rows.append({"system": system, "measure": measure, "run": 0, "value": found.value, "low": found.low,
                         "high": found.high, "n": found.n})  # fmt: skip
    table = pd.DataFrame(rows, columns=["system", "measure", "run", "value", "low", "high", "n"])
    return table.sort_values("system", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def _deltas(frame: pd.DataFrame, measures: list[str], faulty: Mapping[str, Any],
            settings: Mapping[str, Any]) -> pd.DataFrame:  # fmt: skip
    """Return the paired tests of all pairs of systems that have the measure; a faulty true/false column has none."""
    import pandas as pd

    from cuadft.compare import paired_deltas

    parts = []
    for measure in measures:
        have = frame[frame[measure].notna()]
        systems = [s for s in have["system"].unique() if not (measure == "published_bool" and s in faulty)]
        pairs = list(itertools.combinations(systems, 2))
        if pairs:
            split = have["split"].iloc[0]
            parts.append(paired_deltas(have, pairs, metrics=[measure], split=split, allow_partial=True, **settings))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["baseline", "system", "metric"])
