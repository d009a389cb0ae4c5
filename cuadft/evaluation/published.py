"""Recompute published results: a folder of answer files, others' verdicts on them where they are there, printed means.

    results = recompute_published("published", {"reference_score": OfflineJudge()}, seed=7)
    results.table, results.deltas, results.findings, results.notes

The *published verdicts* are what another judge said of the answers, row by row. They stand in the columns `judge_bool`
(0 or 1) and `judge_score` (0 to 1) of the files. The means that the source printed stand in a table of the folder's
README.md with the columns `system | judge_bool | judge_score`; "a / b" are the means of two passes of that judge.

The findings are plain sentences that are computed from the rows: which differences exceed the noise, what the published
figures cannot tell, and where the published verdicts contradict themselves (a parser that failed, two kinds of verdict
that disagree, passes that differ). The notes are known of the source and are not computed.
"""

from __future__ import annotations

import itertools
import re
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
PRINTED_MEASURES = {"judge_bool": "printed_bool", "judge_score": "printed_score"}  # README's column -> measure
VERDICT_KINDS = {"judge_bool": "true/false", "judge_score": "0 to 1"}
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
        "The compiled prompts were compiled on those questions, the tuned models trained on them, and all were "
        "scored on them: the scores say how well each fits these questions, nothing of other ones or contracts.",
        "Compiled and tuned systems had this advantage, plain RAG had not: their distance does not measure a method.",
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
UNKNOWN = "the published figures alone can't tell"
HIGH_SCORE = 0.8  # 0-to-1 verdict from which a row should have been judged true
CHANCE = 0.05  # a column of zeros less likely than this is a fault of the parser
ROUNDING = 0.0006  # farthest that a mean printed to three digits lies from the rows' mean


@dataclass(frozen=True)
class PublishedAnswers:
    """Hold a folder's answer files and its printed means (columns system, verdict, run, value)."""

    folder: Path
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
    if not folder.is_dir():
        raise InputError(f"No folder {folder}: give the folder that holds one answer file per system.")
    paths = [p for p in sorted(folder.glob("[!.]*")) if p.suffix.lower() in ANSWER_SUFFIXES and p.is_file()]
    if not paths:
        raise InputError(f"No answer files in {folder}: put one CSV or JSON-lines file per system there.")
    readme = folder / "README.md"
    text = readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""
    means = _printed_means(text, readme)
    notes = tuple(note for source, lines in NOTES.items() if source in text for note in lines)
    printed = list(means["system"])
    paths.sort(key=lambda p: printed.index(p.stem) if p.stem in printed else len(printed))
    return PublishedAnswers(folder, answer_files.read_answer_files(paths, verdicts=tuple(FRAME_COLUMNS)), means, notes)


def _printed_means(text: str, path: Path) -> pd.DataFrame:
    """Return the means of the first table with a `system` and a verdict column, one row for each pass of a cell."""
    header, rows = ["system"], {}
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip(" `*") for cell in line.strip().strip("|").split("|")] if "|" in line else []
        if len(header) > 1 and not cells:
            break
        if len(header) == 1:
            names = [cell.lower() for cell in cells]
            header = names if "system" in names and not FRAME_COLUMNS.keys().isdisjoint(names) else header
        elif not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            rows[number] = dict.fromkeys(header, "") | dict(zip(header, cells))
    table = pd.DataFrame(rows.values(), index=list(rows), columns=header)
    if table["system"].duplicated().any():
        n = table.index[table["system"].duplicated()][0]
        raise InputError(
            f"{path}, line {n}: {table['system'][n]!r} is there twice: write one row for each system, with '/' between "
            "the means of several passes."
        )
    return _means_of_passes(table, path)


def _means_of_passes(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return the columns system, verdict, run and value of a README's table, whose index holds line numbers."""
    verdicts = [verdict for verdict in FRAME_COLUMNS if verdict in table]
    means = table.melt("system", verdicts, "verdict", "cell", ignore_index=False).sort_index(kind="stable")
    means = means[~means["cell"].isin(["", "-", "–", "—"])].reset_index(names="line")
    means = means.assign(value=[cell.split("/") for cell in means["cell"]]).explode("value", ignore_index=True)
    means["value"] = pd.to_numeric(means["value"], errors="coerce")
    wrong = means[~means["value"].between(0, 1)]
    if len(wrong):
        raise InputError(
            f"{path}, line {wrong['line'].iloc[0]}: {wrong['cell'].iloc[0]!r} is no mean: write a number from 0 to 1 "
            "for each pass, '/' between them, '-' for none."
        )
    means["run"] = means.groupby(["line", "verdict"]).cumcount() + 1
    return means[["system", "verdict", "run", "value"]]


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
    tests = []
    for measure in measures:
        have = frame[frame[measure].notna()]
        systems = [s for s in have["system"].unique() if not (measure == "published_bool" and s in faulty)]
        if pairs := list(itertools.combinations(systems, 2)):
            shared = {"metrics": [measure], "split": have["split"].iloc[0], "allow_partial": True}
            tests.append(compare.paired_deltas(have, pairs, **shared, **settings))
    deltas = pd.concat(tests, ignore_index=True) if tests else pd.DataFrame(columns=compare.DELTA_COLUMNS)
    pairs = [pair for pair in CLAIMED_PAIRS if set(frame["system"]).issuperset(pair)]
    fitted = [system for system in shipped_fit()["systems"] if system in set(frame["system"])]
    findings = [
        *_checks(seen, frame),
        *(pair_finding(seen, frame, deltas, a, b, confidence) for a, b in pairs),
        *compare.pairs_that_differ(
            deltas[deltas["metric"].isin(MEASURE_NAMES.keys() - {"f1"})], confidence, MEASURE_NAMES
        ),
    ]
    if fitted and "reference_score" in measures:
        findings.append(f"Our offline judge was fitted to verdicts on {', '.join(fitted)}: agreement there is no test.")
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


def pair_finding(
    seen: PublishedAnswers, frame: pd.DataFrame, deltas: pd.DataFrame, baseline: str, system: str, level: float
) -> str:
    """Return whether two systems differ by the published verdicts (or by what bounds them), with the paired tests.

    deltas: from `compare_published`, with either system as the baseline. A difference is larger than the noise if its
    Holm-adjusted p is below 1 - level.
    """
    names = {"baseline": "system", "system": "baseline"}
    turned = deltas.rename(columns=names).assign(value=-deltas["value"], low=-deltas["high"], high=-deltas["low"])
    both = pd.concat([deltas, turned[deltas.columns]])
    both = both[(both["baseline"] == baseline) & (both["system"] == system)].set_index("metric")
    published = [m for m in MEASURE_NAMES if m in both.index and m.startswith("published")]
    ours = [m for m in ("judge_score", "reference_score", "f1") if m in both.index][:1]
    if published:
        headline, evidence = compare.noise_phrase(both.loc[published[0]], level), []
    else:
        headline, evidence = _from_means(seen, frame, baseline, system, 1 - level)
    for m in published + ours:
        row = both.loc[m]
        least = f"; below {row['detectable']:.2f} missed more than one time in five" if row["detectable"] > 0 else ""
        evidence.append(
            f"By {MEASURE_NAMES[m]} {row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] on {row['n']:.0f} "
            f"questions, p {row['p']:.2g}, {row['p_holm']:.2g} after Holm ({compare.noise_phrase(row, level)}{least})"
        )
    return f"{system} against {baseline}: {headline}. " + ". ".join(evidence) + "."


def _from_means(
    seen: PublishedAnswers, frame: pd.DataFrame, baseline: str, system: str, alpha: float
) -> tuple[str, list[str]]:
    """Return headline and evidence on a pair without row verdicts: printed means, identical answers, bounds on p.

    The bounds are those of McNemar's exact test over all ways in which the true/false verdicts can fall on rows whose
    answers differ.
    """
    answers = frame.drop_duplicates(["system", "id"]).pivot(index="id", columns="system", values="answer")
    answers = answers[frame.groupby("id")["system"].agg(set) >= {baseline, system}]
    same, n = int((answers[baseline] == answers[system]).sum()), len(answers)
    found = [f"Not both have row verdicts, so no paired test of these; {same} of {n} answers are the same text"]
    means = seen.means[seen.means["run"] == 1].pivot(index="verdict", columns="system", values="value")
    means = means.reindex(index=list(VERDICT_KINDS), columns=[baseline, system]).dropna()
    if len(means):
        gaps = [f"{row[system] - row[baseline]:+.3f} ({VERDICT_KINDS[kind]})" for kind, row in means.iterrows()]
        found.append(f"The printed means differ by {' and '.join(gaps)}")
    if "judge_bool" not in means.index or not n or {baseline, system} & set(faulty_systems(frame)):
        return UNKNOWN, found
    right = [round(share * n) for share in means.loc["judge_bool"]]
    net, most = abs(right[1] - right[0]), min(n - same, sum(right), 2 * n - sum(right))
    possible = [mcnemar((d + net) // 2, (d - net) // 2) for d in range(net, max(net, most) + 1, 2)]
    low, high = min(possible), max(possible)
    between = f"between {low:.2g} and {high:.2g}" if f"{low:.2g}" != f"{high:.2g}" else f"{low:.2g}"
    found.append(
        f"In true/false that is {net} of {n} questions net: McNemar's exact p is {between} however the rows fell, if "
        "the same text got the same verdict"
    )
    return UNKNOWN if low < alpha <= high else compare.LARGER if high < alpha else compare.NOT_LARGER, found


def mcnemar(more: int, fewer: int) -> float:
    """Return the exact two-sided p of McNemar's test for `more` and `fewer` discordant pairs (McNemar, 1947)."""
    from scipy.stats import binomtest

    return float(binomtest(more, more + fewer).pvalue) if more + fewer else 1.0


# --- where the published verdicts contradict themselves


def _checks(seen: PublishedAnswers, frame: pd.DataFrame) -> list[str]:
    """Return the size of the published data, faulty verdicts, and verdicts and passes that disagree."""
    part = frame[frame["system"].isin(seen.systems)]
    have = set(part.loc[part["published_score"].notna(), "system"])
    rated, rest = ([s for s in seen.systems if (s in have) == wanted] for wanted in (True, False))
    size = f"{len(seen.systems)} systems, {part['id'].nunique()} questions. Row-by-row verdicts (0 to 1) are there for "
    size += (", ".join(rated) or "no system") + (f", not for {', '.join(rest)}" if rest else "")
    faulty, high = faulty_systems(frame), _high(frame)
    faults = [
        f"{system}: true/false is 0 on all {f['n']} rows, although the 0-to-1 verdict of {f['high']} of them is "
        f"{HIGH_SCORE} or more; in the other systems, {f['true']} of {f['of']} such rows were judged true. This points "
        "to a fault of the parser: the 0 is no measurement, and is left out of the true/false comparisons."
        for system, f in faulty.items()
    ]
    false = (high.loc[~high["system"].isin(list(faulty)), "published_bool"] < 0.5).groupby(high["system"], sort=False)
    counts = false.agg(["sum", "size", "mean"]).sort_values("mean", ascending=False, kind="stable")
    listed = ", ".join(f"{row.sum:.0f} of {row.size:.0f} of {row.Index}" for row in counts.itertuples())
    if counts["sum"].any():
        faults.append(f"Of the rows with a 0-to-1 verdict of {HIGH_SCORE} or more, true/false calls false: {listed}.")
    return [f"{size}.", *faults, *_passes(frame, seen.means[seen.means["system"].isin(frame["system"])])]


def faulty_systems(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the systems judged false on all rows although the 0-to-1 verdicts call some right, with counts.

    With h rows at `HIGH_SCORE` or more in the system, and k of m such rows judged true in the others, h zeros in a row
    have probability (1 - (k + 1) / (m + 2)) ** h; a system counts as faulty if that is below `CHANCE`.
    """
    high, found = _high(frame), {}
    for system, part in frame[frame["published_bool"].notna()].groupby("system", sort=False):
        mine, others = high[high["system"] == system], high[high["system"] != system]
        true, of = int(others["published_bool"].sum()), len(others)
        chance = (1 - (true + 1) / (of + 2)) ** len(mine)
        if not part["published_bool"].any() and chance < CHANCE:
            found[str(system)] = {"n": len(part), "high": len(mine), "true": true, "of": of, "chance": chance}
    return found


def _high(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame["published_bool"].notna() & (frame["published_score"] >= HIGH_SCORE)]


def _passes(frame: pd.DataFrame, means: pd.DataFrame) -> list[str]:
    """Return how far the printed passes over the same answers differ, and to which the row-by-row verdicts belong."""
    lines = []
    for verdict, part in means.groupby("verdict", sort=False):
        runs = part.pivot_table(index="system", columns="run", values="value", sort=False)
        gaps = (runs.max(axis=1) - runs.min(axis=1)).round(6)
        if gaps.max() > 0:
            worst = gaps.idxmax()
            n = frame.loc[frame["system"] == worst, "id"].nunique()
            unit = f" ({round(gaps.max() * n)} of {n} questions)" if verdict == "judge_bool" else ""
            lines.append(
                f"The judge's printed passes ({VERDICT_KINDS[verdict]}) over the same answers differ for "
                f"{(gaps > 0).sum()} of {len(gaps)} systems, most for {worst}: "
                f"{' and '.join(f'{value:.3f}' for value in runs.loc[worst].dropna())}{unit}."
            )
    rows = frame.dropna(subset=["published_score"]).groupby("system")["published_score"].mean()
    printed = means[means["verdict"] == "judge_score"].pivot_table(index="system", columns="run", values="value")
    gaps = printed.sub(rows, axis=0).dropna(how="all").abs()
    runs = [run for run in gaps if gaps[run].max() <= ROUNDING]
    if len(gaps) and not runs:
        off = gaps.min(axis=1).max()
        lines.append(f"The row-by-row verdicts have other means than those printed (by up to {off:.3f}).")
    elif len(runs) < len(gaps.columns):
        lines.append(f"The row-by-row verdicts are those of pass {runs[0]}.")
    return lines
