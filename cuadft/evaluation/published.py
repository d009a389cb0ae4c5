"""Recompute published results: a folder of answer files, others' verdicts on them where they are there, printed means.

    results = recompute_published("published", {"reference_score": OfflineJudge()}, seed=7)
    results.table, results.deltas, results.faulty

The *published verdicts* are what another judge said of the answers, row by row. They stand in the columns `judge_bool`
(0 or 1) and `judge_score` (0 to 1) of the files. The means that the source printed stand in a table of the folder's
README.md with the columns `system | judge_bool | judge_score`; "a / b" are the means of two passes of that judge.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core.errors import InputError
from cuadft.evaluation import answer_files, compare, metrics
from cuadft.evaluation.bootstrap import as_columns, cluster_bootstrap
from cuadft.evaluation.verdicts import judge_answers

FRAME_COLUMNS = {"judge_bool": "published_bool", "judge_score": "published_score"}  # a file's column -> the frame's
PRINTED_MEASURES = {"judge_bool": "printed_bool", "judge_score": "printed_score"}  # a column of README -> a measure
OUR_MEASURES = ("reference_score", "judge_score", "f1", "rouge_l")
ANSWER_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json", ".parquet")
TABLE_COLUMNS = ["system", "measure", "run", "value", "low", "high", "n"]
HIGH_SCORE = 0.8  # 0-to-1 verdict from which a row should have been judged true
CHANCE = 0.05  # a column of zeros less likely than this is a fault of the parser


@dataclass(frozen=True)
class PublishedComparison:
    """Hold what `compare_published` makes of published answers: both tables, and the systems with faulty verdicts."""

    table: pd.DataFrame
    deltas: pd.DataFrame
    faulty: list[str]


def recompute_published(folder: str | Path, judges: Mapping[str, Any], **resampling: Any) -> PublishedComparison:
    """Return `compare_published` on a folder alone.

    judges: metric -> judge, such as {"reference_score": OfflineJudge(), "judge_score": LMJudge(lm)}.
    """
    found, means = read_published(folder)
    pool = answer_files.join_files(found)
    frame = judge_answers(metrics.score_predictions(pool.predictions), pool.predictions, judges)
    return compare_published(means, with_verdicts(frame, pool.predictions), **resampling)


def read_published(folder: str | Path) -> tuple[list[answer_files.AnswerFile], pd.DataFrame]:
    """Return a folder's answer files, in the order of the README's table, and its printed means.

    The means have the columns system, verdict, run (pass) and value. Raises InputError if the folder holds no answer
    file, or one that can't be read.
    """
    folder = Path(folder).expanduser()
    paths = [p for p in sorted(folder.glob("[!.]*")) if p.suffix.lower() in ANSWER_SUFFIXES and p.is_file()]
    if not paths:
        missing = "answer files in" if folder.is_dir() else "folder"
        raise InputError(f"No {missing} {folder}: give a folder with one CSV or JSON-lines file per system.")
    means = _printed_means(folder / "README.md")
    printed = list(means["system"])
    paths.sort(key=lambda p: printed.index(p.stem) if p.stem in printed else len(printed))
    return answer_files.read_answer_files(paths, verdicts=tuple(FRAME_COLUMNS)), means


def _printed_means(path: Path) -> pd.DataFrame:
    """Return the means of the first table with a `system` and a verdict column, one row for each pass of a cell."""
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    lines = [[cell.strip(" `*") for cell in line.strip().strip("|").split("|")] for line in text.splitlines()]
    heads = [[name.lower() for name in line] for line in lines]
    start = next((n for n, head in enumerate(heads) if "system" in head and FRAME_COLUMNS.keys() & {*head}), None)
    if start is None:
        return pd.DataFrame(columns=["system", "verdict", "run", "value"])
    rows = list(itertools.takewhile(lambda line: len(line) == len(lines[start]), lines[start + 1 :]))
    table = pd.DataFrame(rows, columns=heads[start])
    verdicts = [name for name in FRAME_COLUMNS if name in table]
    means = table.melt("system", verdicts, "verdict", ignore_index=False).sort_index(kind="stable")
    means = means.assign(value=means["value"].str.split("/")).explode("value", ignore_index=True)
    means = means[means["value"].str.strip(" :-–—") != ""]  # a dash stands for no mean
    values = pd.to_numeric(means["value"], errors="coerce")
    if len(wrong := means["value"][~values.between(0, 1)]):
        raise InputError(
            f"{path}: {wrong.iloc[0]!r} is no mean: write a number from 0 to 1 for each pass, '/' between them, "
            "'-' for none."
        )
    return means.assign(value=values.astype(float), run=means.groupby(["system", "verdict"]).cumcount() + 1)


def with_verdicts(frame: pd.DataFrame, predictions: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the scored rows with the published verdicts on the same rows beside them (NaN where there is none)."""
    given = {ours: [p["verdicts"].get(theirs) for p in predictions] for theirs, ours in FRAME_COLUMNS.items()}
    return frame.assign(**given).astype(dict.fromkeys(given, float))


def compare_published(means: pd.DataFrame, frame: pd.DataFrame, **resampling: Any) -> PublishedComparison:
    """Return published figures beside recomputed ones, and paired tests of all pairs of systems.

    means: from `read_published`. frame: from `score_predictions` with the judges' columns and `with_verdicts`; it may
    hold other systems too. The table has the columns system, measure, run (pass of a printed mean, else 0), value, low,
    high, n; its measures are the values of `PRINTED_MEASURES` and `FRAME_COLUMNS`, and `OUR_MEASURES`. Deltas are those
    of `compare.paired_deltas`, with one Holm family per measure; faulty true/false verdicts are left out.
    """
    order, faulty = list(frame["system"].unique()), faulty_systems(frame)
    printed = means[means["system"].isin(order)]
    rows = printed.assign(measure=printed["verdict"].map(PRINTED_MEASURES)).to_dict("records")
    tests = [pd.DataFrame(columns=compare.DELTA_COLUMNS)]
    for measure in [*FRAME_COLUMNS.values(), *(m for m in OUR_MEASURES if m in frame)]:
        have = frame[frame[measure].notna()]
        for system, part in have.groupby("system", sort=False):
            found = cluster_bootstrap(part[measure], part["contract"], **resampling)
            rows.append({"system": system, "measure": measure, "run": 0} | as_columns(found))
        tested = [s for s in have["system"].unique() if not (measure == "published_bool" and s in faulty)]
        if pairs := list(itertools.combinations(tested, 2)):
            shared = {"metrics": [measure], "split": have["split"].iloc[0], "allow_partial": True}
            tests.append(compare.paired_deltas(have, pairs, **shared, **resampling))
    table = pd.DataFrame(rows, columns=TABLE_COLUMNS)
    table = table.sort_values("system", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)
    return PublishedComparison(table, pd.concat(tests[1:] or tests, ignore_index=True), faulty)


def faulty_systems(frame: pd.DataFrame) -> list[str]:
    """Return the systems judged false on all rows although the 0-to-1 verdicts call some of them right.

    With h rows at `HIGH_SCORE` or more in the system, and k of m such rows judged true in the others, h zeros in a row
    have probability (1 - (k + 1) / (m + 2)) ** h; a system counts as faulty if that is below `CHANCE`.
    """
    judged = frame[frame["published_bool"].notna()]
    high = judged[judged["published_score"] >= HIGH_SCORE].groupby("system")["published_bool"].agg(["sum", "size"])
    others = high.sum() - high
    chance = (1 - (others["sum"] + 1) / (others["size"] + 2)) ** high["size"]
    never = judged.groupby("system", sort=False)["published_bool"].max() == 0
    return [str(system) for system in never[never].index if chance.get(system, 1) < CHANCE]
