"""Recompute published results: a folder of answer files, others' verdicts on them where they are there, printed means.

    results = recompute_published("published", {"reference_score": OfflineJudge()}, seed=7)
    results.table, results.deltas, results.findings, results.notes

The *published verdicts* are what another judge said of the answers, row by row. They stand in the columns `judge_bool`
(0 or 1) and `judge_score` (0 to 1) of the files. The means that the source printed stand in a table of the folder's
README.md with the columns `system | judge_bool | judge_score`; "a / b" are the means of two passes of that judge.

The findings are sentences that are computed from the rows: which differences exceed the noise, and which true/false
verdicts come from a parser that failed. The notes are known of the source and are not computed.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core.errors import InputError
from cuadft.evaluation import answer_files, compare, metrics
from cuadft.evaluation.bootstrap import as_columns, cluster_bootstrap
from cuadft.evaluation.offline_judge import shipped_fit

FRAME_COLUMNS = {"judge_bool": "published_bool", "judge_score": "published_score"}  # a file's column -> the frame's
PRINTED_MEASURES = {"judge_bool": "printed_bool", "judge_score": "printed_score"}  # a column of README -> a measure
OUR_MEASURES = ("reference_score", "judge_score", "f1", "rouge_l")
MEASURE_NAMES = {
    "published_score": "the published 0-to-1 verdicts",
    "published_bool": "the published true/false verdicts",
    "judge_score": "our LLM judge",
    "reference_score": "our offline judge",
    "quote_f1": "quote F1",
    "f1": "answer F1",
}
ANSWER_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
NOTES = {  # a source named in the README -> what is known of how its figures came about
    "amlc-2024-tutorial-continuous-fine-tuning-compound-ai": (
        "All seven systems answer the same 32 questions on one contract (an ENERGOUS strategic alliance agreement).",
        "Prompts were compiled, models tuned and all systems scored on them: the scores say how well each fits these "
        "questions, nothing of other ones or contracts. Plain RAG had not this advantage.",
        "The judge, Claude 3 Sonnet, saw reference and answer but not the question; rag_sonnet and "
        "rag_sonnet_compiled run, by their names, on the judge's own model.",
        "The chart in the sample's README shows other values for rag_haiku and rag_haiku_compiled than its notebook.",
    )
}
CLAIMED_PAIRS = (  # (baseline, system) from which the AWS sample's own text draws conclusions
    ("rag_haiku_compiled", "dpo_llama3_8b"),
    ("dpo_llama3_8b", "orpo_llama3_8b"),
    ("sft_llama3_8b", "dpo_llama3_8b"),
    ("sft_llama3_8b", "orpo_llama3_8b"),
)
TABLE_COLUMNS = ["system", "measure", "run", "value", "low", "high", "n"]
HIGH_SCORE = 0.8  # 0-to-1 verdict from which a row should have been judged true
CHANCE = 0.05  # a column of zeros less likely than this is a fault of the parser


@dataclass(frozen=True)
class PublishedAnswers:
    """Hold a folder's answer files and its printed means (columns system, verdict, run, value)."""

    files: list[answer_files.AnswerFile]
    means: pd.DataFrame
    notes: tuple[str, ...] = ()

    @property
    def systems(self) -> list[str]:
        """The systems that have answers, in the order of the files."""
        return list(dict.fromkeys(row["system"] for file in self.files for row in file.rows))


@dataclass(frozen=True)
class PublishedComparison:
    """Hold what `compare_published` makes of published answers: table, paired tests and sentences."""

    table: pd.DataFrame
    deltas: pd.DataFrame
    findings: list[str]
    notes: tuple[str, ...]
    frame: pd.DataFrame = field(repr=False)


def recompute_published(
    folder: str | Path, judges: Mapping[str, Any], *, n_resamples: int = 2000, seed: int = 7, confidence: float = 0.95
) -> PublishedComparison:
    """Return `compare_published` on a folder alone.

    judges: metric -> judge, such as {"reference_score": OfflineJudge(), "judge_score": LMJudge(lm)}.
    """
    seen = read_published(folder)
    pool = answer_files.join_files(seen.files)
    frame = metrics.score_predictions(pool.predictions)
    for name, judge in judges.items():
        frame[name] = judge.rate(pool.predictions)["judge_score"]
    frame = with_verdicts(frame, pool.predictions)
    return compare_published(seen, frame, n_resamples=n_resamples, seed=seed, confidence=confidence)


def read_published(folder: str | Path) -> PublishedAnswers:
    """Return the answers, verdicts and printed means of a folder, its files in the order of the README's table.

    Raises InputError if the folder holds no answer file, or one that can't be read.
    """
    folder = Path(folder).expanduser()
    paths = [p for p in sorted(folder.glob("[!.]*")) if p.suffix.lower() in ANSWER_SUFFIXES and p.is_file()]
    if not folder.is_dir():
        raise InputError(f"No folder {folder}: give the folder that holds one answer file per system.")
    if not paths:
        raise InputError(f"No answer files in {folder}: put one CSV or JSON-lines file per system there.")
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    means = _printed_means(text, readme)
    notes = tuple(note for source, lines in NOTES.items() if source in text for note in lines)
    printed = list(means["system"])
    paths.sort(key=lambda p: printed.index(p.stem) if p.stem in printed else len(printed))
    return PublishedAnswers(answer_files.read_answer_files(paths, verdicts=tuple(FRAME_COLUMNS)), means, notes)


def _printed_means(text: str, path: Path) -> pd.DataFrame:
    """Return the means of the first table with a `system` and a verdict column, one row for each pass of a cell."""
    blocks = [list(block) for bar, block in itertools.groupby(text.splitlines(), lambda line: "|" in line) if bar]
    tables = [[[cell.strip(" `*") for cell in line.strip().strip("|").split("|")] for line in b] for b in blocks]
    means = pd.DataFrame(columns=["system", "verdict", "value"])
    for head, *rows in tables:
        names = [name.lower() for name in head]
        verdicts = [name for name in FRAME_COLUMNS if name in names and "system" in names]
        if verdicts:
            table = pd.DataFrame([dict(zip(names, cells)) for cells in rows], columns=names).dropna(subset="system")
            means = table.melt("system", verdicts, "verdict", ignore_index=False).sort_index(kind="stable")
            break
    means = means.assign(value=means["value"].str.split("/")).explode("value", ignore_index=True)
    means = means[means["value"].fillna("").str.strip(" :-–—") != ""]  # a dash stands for no mean
    values = pd.to_numeric(means["value"], errors="coerce")
    if len(wrong := means["value"][~values.between(0, 1)]):
        raise InputError(
            f"{path}: {wrong.iloc[0]!r} is no mean: write a number from 0 to 1 for each pass, '/' between them, "
            "'-' for none."
        )
    return means.assign(value=values.astype(float), run=means.groupby(["system", "verdict"]).cumcount() + 1)


def with_verdicts(frame: pd.DataFrame, predictions: list[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the scored rows with the published verdicts on the same rows beside them (NaN where there is none)."""
    given = {ours: [p["verdicts"].get(theirs) for p in predictions] for theirs, ours in FRAME_COLUMNS.items()}
    return frame.assign(**given).astype(dict.fromkeys(given, float))


def compare_published(
    seen: PublishedAnswers, frame: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 7, confidence: float = 0.95
) -> PublishedComparison:
    """Return published figures beside recomputed ones, paired tests of all pairs of systems, and findings.

    frame: from `score_predictions` with the judges' columns and `with_verdicts`; it may hold other systems too. The
    table has the columns system, measure, run (pass of a printed mean, else 0), value, low, high, n; its measures are
    the values of `PRINTED_MEASURES` and `FRAME_COLUMNS`, and `OUR_MEASURES`. Deltas are those of
    `compare.paired_deltas`, with one Holm family per measure; faulty true/false verdicts are left out.
    """
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    measures, faulty = [*FRAME_COLUMNS.values(), *(m for m in OUR_MEASURES if m in frame)], faulty_systems(frame)
    tests = [pd.DataFrame(columns=compare.DELTA_COLUMNS)]
    for measure in measures:
        have = frame[frame[measure].notna()]
        systems = [s for s in have["system"].unique() if not (measure == "published_bool" and s in faulty)]
        if pairs := list(itertools.combinations(systems, 2)):
            shared = {"metrics": [measure], "split": have["split"].iloc[0], "allow_partial": True}
            tests.append(compare.paired_deltas(have, pairs, **shared, **settings))
    deltas = pd.concat(tests[1:] or tests, ignore_index=True)
    findings = _findings(seen, frame, deltas, confidence)
    return PublishedComparison(_table(seen, frame, measures, settings), deltas, findings, seen.notes, frame)


def _table(
    seen: PublishedAnswers, frame: pd.DataFrame, measures: list[str], settings: Mapping[str, Any]
) -> pd.DataFrame:
    order = list(dict.fromkeys([*seen.systems, *frame["system"]]))
    printed = seen.means[seen.means["system"].isin(order)]
    rows = printed.assign(measure=printed["verdict"].map(PRINTED_MEASURES)).to_dict("records")
    for system, measure in itertools.product(order, measures):
        part = frame[(frame["system"] == system) & frame[measure].notna()]
        if len(part):
            found = cluster_bootstrap(part[measure], part["contract"], **settings)
            rows.append({"system": system, "measure": measure, "run": 0} | as_columns(found))
    table = pd.DataFrame(rows, columns=TABLE_COLUMNS)
    return table.sort_values("system", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def _findings(seen: PublishedAnswers, frame: pd.DataFrame, deltas: pd.DataFrame, level: float) -> list[str]:
    """Return what the data hold: their size, faulty verdicts, the source's own claims, and pairs that differ."""
    systems = set(frame["system"])
    rated = [s for s in seen.systems if frame.loc[frame["system"] == s, "published_score"].notna().any()]
    questions = frame.loc[frame["system"].isin(seen.systems), "id"].nunique()
    size = f"{len(seen.systems)} systems, {questions} questions. Row-by-row verdicts (0 to 1) are there for "
    faults = [
        f"{system}: true/false is 0 on all {f['n']} rows, although the 0-to-1 verdict of {f['high']} of them is "
        f"{HIGH_SCORE} or more; in the other systems, {f['true']} of {f['of']} such rows were judged true. This points "
        "to a fault of the parser: the 0 is no measurement, and is left out of the true/false comparisons."
        for system, f in faulty_systems(frame).items()
    ]
    told = deltas[deltas["metric"].isin(MEASURE_NAMES.keys() - {"f1"})]
    found = [f"{size}{', '.join(rated) or 'no system'}.", *faults, *_claims(frame, deltas, level)]
    found += compare.pairs_that_differ(told, level, MEASURE_NAMES)
    fitted = [system for system in shipped_fit()["systems"] if system in systems]
    if fitted and "reference_score" in frame:
        found.append(f"Our offline judge was fitted to verdicts on {', '.join(fitted)}: agreement there is no test.")
    return found


def _claims(frame: pd.DataFrame, deltas: pd.DataFrame, level: float) -> list[str]:
    """Return whether `CLAIMED_PAIRS` differ by the published 0-to-1 verdicts, and how many answers are the same."""
    order = list(frame["system"].unique())  # in which `compare_published` makes its pairs
    tests = deltas[deltas["metric"] == "published_score"].set_index(["baseline", "system"])
    answers = frame.drop_duplicates(["system", "id"]).pivot(index="id", columns="system", values="answer")
    lines = []
    for pair in CLAIMED_PAIRS:
        if not set(order).issuperset(pair):
            continue
        a, b = sorted(pair, key=order.index)
        both, told = answers[[a, b]].dropna(), "not both have row-by-row verdicts, so no test"
        if (a, b) in tests.index:
            row = tests.loc[(a, b)]
            interval = f"{row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}], p {row['p_holm']:.2g} after Holm"
            told = f"{compare.noise_phrase(row, level)} (published 0-to-1 verdicts {interval})"
        same = (both[a] == both[b]).sum()
        lines.append(f"{b} against {a}: {told}; {same} of {len(both)} answers are the same text.")
    return lines


def faulty_systems(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the systems judged false on all rows although the 0-to-1 verdicts call some right, with counts.

    With h rows at `HIGH_SCORE` or more in the system, and k of m such rows judged true in the others, h zeros in a row
    have probability (1 - (k + 1) / (m + 2)) ** h; a system counts as faulty if that is below `CHANCE`.
    """
    high, found = frame[frame["published_bool"].notna() & (frame["published_score"] >= HIGH_SCORE)], {}
    for system, part in frame[frame["published_bool"].notna()].groupby("system", sort=False):
        mine, others = high[high["system"] == system], high[high["system"] != system]
        true, of = int(others["published_bool"].sum()), len(others)
        chance = (1 - (true + 1) / (of + 2)) ** len(mine)
        if not part["published_bool"].any() and chance < CHANCE:
            found[str(system)] = {"n": len(part), "high": len(mine), "true": true, "of": of, "chance": chance}
    return found
