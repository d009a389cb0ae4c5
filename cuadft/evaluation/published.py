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
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core.errors import InputError
from cuadft.evaluation import answer_files, metrics
from cuadft.evaluation.bootstrap import cluster_bootstrap
from cuadft.evaluation.compare import LARGER, NOT_LARGER, noise_phrase, paired_deltas, pairs_that_differ

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
    means = pd.DataFrame(_printed_means(text, readme), columns=["system", "verdict", "run", "value"])
    notes = tuple(note for source, lines in NOTES.items() if source in text for note in lines)
    printed = list(means["system"])
    paths.sort(key=lambda p: printed.index(p.stem) if p.stem in printed else len(printed))
    return PublishedAnswers(folder, answer_files.read_answer_files(paths, verdicts=tuple(FRAME_COLUMNS)), means, notes)


def _printed_means(text: str, path: Path) -> list[dict[str, Any]]:
    """Return the means of the first table with a `system` and a verdict column; a cell may hold one per pass."""
    rows, header = [], []
    for number, line in enumerate(text.splitlines(), 1):
        cells = [cell.strip(" `*") for cell in line.strip().strip("|").split("|")] if "|" in line else []
        if header and not cells:
            break
        if not header:
            folded = [cell.lower() for cell in cells]
            header = folded if "system" in folded and not set(FRAME_COLUMNS).isdisjoint(folded) else []
        elif not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            row = dict.fromkeys(header, "") | dict(zip(header, cells))
            if row["system"] in [before["system"] for before in rows]:
                raise InputError(
                    f"{path}, line {number}: {row['system']!r} is there twice: write one row for each "
                    "system, with '/' between the means of several passes."
                )
            for verdict in (v for v in FRAME_COLUMNS if v in row):
                values = _means_of_passes(row[verdict], f"{path}, line {number}")
                rows += [{"system": row["system"], "verdict": verdict, "run": n, "value": v} for n, v in values]
    return rows


def _means_of_passes(cell: str, where: str) -> list[tuple[int, float]]:
    parts = [part.strip() for part in cell.split("/")] if cell not in ("", "-", "–", "—") else []
    try:
        numbers = [float(part) for part in parts]
    except ValueError:
        numbers = [-1.0]
    if not all(0 <= number <= 1 for number in numbers):
        raise InputError(
            f"{where}: {cell!r} is no mean: write a number from 0 to 1 for each pass, '/' between them, '-' for none."
        )
    return list(enumerate(numbers, 1))


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
    `compare.paired_deltas`, with one Holm family per measure.
    """
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    measures = [*FRAME_COLUMNS.values(), *(m for m in OUR_MEASURES if m in frame)]
    table = _table(seen, frame, measures, settings)
    deltas = _deltas(frame, measures, faulty_systems(frame), settings)
    sentences = published_findings(seen, frame, table, deltas, confidence=confidence)
    return PublishedComparison(table, deltas, sentences, seen.notes, frame)


def _table(
    seen: PublishedAnswers, frame: pd.DataFrame, measures: list[str], settings: Mapping[str, Any]
) -> pd.DataFrame:
    order = [*seen.systems, *(s for s in frame["system"].unique() if s not in seen.systems)]
    rows: list[tuple] = [
        (mean.system, PRINTED_MEASURES[mean.verdict], mean.run, mean.value, math.nan, math.nan, math.nan)
        for mean in seen.means.itertuples()
        if mean.system in order
    ]
    for system, measure in itertools.product(order, measures):
        part = frame[(frame["system"] == system) & frame[measure].notna()]
        if len(part):
            found = cluster_bootstrap(part[measure], part["contract"], **settings)
            rows.append((system, measure, 0, found.value, found.low, found.high, found.n))
    table = pd.DataFrame(rows, columns=["system", "measure", "run", "value", "low", "high", "n"])
    return table.sort_values("system", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def _deltas(
    frame: pd.DataFrame, measures: list[str], faulty: Mapping[str, Any], settings: Mapping[str, Any]
) -> pd.DataFrame:
    """Return the paired tests of all pairs of systems that have the measure, without faulty true/false verdicts."""
    parts = []
    for measure in measures:
        have = frame[frame[measure].notna()]
        systems = [s for s in have["system"].unique() if not (measure == "published_bool" and s in faulty)]
        pairs = list(itertools.combinations(systems, 2))
        if pairs:
            split = have["split"].iloc[0]
            parts.append(paired_deltas(have, pairs, metrics=[measure], split=split, allow_partial=True, **settings))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["baseline", "system", "metric"])


def published_findings(
    seen: PublishedAnswers,
    frame: pd.DataFrame,
    table: pd.DataFrame,
    deltas: pd.DataFrame,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    confidence: float = 0.95,
) -> list[str]:
    """Return the findings on the published systems; the arguments are as `compare_published` makes them.

    pairs: (baseline, system) to speak about. By default these are the `CLAIMED_PAIRS` that are there, else every system
    against the one with the highest mean. A difference is larger than the noise if its Holm-adjusted p is below
    1 - confidence. Raises InputError on a pair of unknown systems.
    """
    known = set(frame["system"])
    unknown = [name for pair in pairs or () for name in pair if name not in known]
    if unknown:
        raise InputError(f"No system {unknown[0]!r}: choose from {', '.join(sorted(known))}.")
    if pairs is None:
        pairs = [pair for pair in CLAIMED_PAIRS if known.issuperset(pair)] or _against_best(seen, frame)
    told = [_pair_finding(seen, frame, deltas, baseline, system, confidence) for baseline, system in pairs]
    shown = deltas[deltas["metric"].isin([m for m in MEASURE_NAMES if m != "f1"])]
    differing = pairs_that_differ(shown, confidence, MEASURE_NAMES)
    checks = verdict_findings(frame, seen.means)
    return [_size(seen, frame), *checks, *told, *differing, *_fitted_systems(table)]


def _size(seen: PublishedAnswers, frame: pd.DataFrame) -> str:
    part = frame[frame["system"].isin(seen.systems)]
    rated = [s for s in seen.systems if part.loc[part["system"] == s, "published_score"].notna().any()]
    rest = [s for s in seen.systems if s not in rated]
    without = f", not for {', '.join(rest)}" if rest else ""
    return (
        f"{len(seen.systems)} systems, {part['id'].nunique()} questions. Row-by-row verdicts (0 to 1) are there "
        f"for {', '.join(rated) or 'no system'}{without}."
    )


def _against_best(seen: PublishedAnswers, frame: pd.DataFrame) -> list[tuple[str, str]]:
    part = frame[frame["system"].isin(seen.systems)]
    measure = next(m for m in MEASURE_NAMES if m in part and m != "published_bool" and part[m].notna().any())
    best = part.groupby("system")[measure].mean().idxmax()
    return [(system, best) for system in seen.systems if system != best]


def _pair_finding(
    seen: PublishedAnswers, frame: pd.DataFrame, deltas: pd.DataFrame, baseline: str, system: str, level: float
) -> str:
    """Return a headline from the published verdicts (or from what bounds them), then the evidence."""
    rows = {m: row for m in MEASURE_NAMES if (row := _delta(deltas, baseline, system, m)) is not None}
    published = [m for m in rows if m.startswith("published")]
    ours = [m for m in ("judge_score", "reference_score", "f1") if m in rows][:1]
    if published:
        headline, evidence = noise_phrase(rows[published[0]], level), []
    else:
        headline, evidence = _from_means(seen, frame, baseline, system, level)
    evidence += [_test_sentence(m, rows[m], deltas, level, headline) for m in published + ours]
    missed = [(m, rows[m]["detectable"]) for m in published[:1] + ours if rows[m]["detectable"] > 0]
    if missed:
        limits = " and ".join(f"{size:.2f} by {MEASURE_NAMES[m]}" for m, size in missed)
        evidence.append(f"A true difference below {limits} would be missed more than one time in five")
    return f"{system} against {baseline}: {headline}. " + ". ".join(evidence) + "."


def _delta(deltas: pd.DataFrame, baseline: str, system: str, measure: str) -> dict[str, Any] | None:
    """Return the row of system - baseline, with its signs turned where the table holds baseline - system."""
    rows = deltas[deltas["metric"] == measure]
    for a, b, sign in ((baseline, system, 1), (system, baseline, -1)):
        found = rows[(rows["baseline"] == a) & (rows["system"] == b)]
        if len(found):
            row = found.iloc[0].to_dict()
            low, high = sorted((sign * row["low"], sign * row["high"]))
            return row | {"value": sign * row["value"], "low": low, "high": high}
    return None


def _test_sentence(measure: str, row: Mapping[str, Any], deltas: pd.DataFrame, level: float, headline: str) -> str:
    """Return one measure's difference and test; whether it exceeds the noise only where the headline differs."""
    told = noise_phrase(row, level)
    family = int((deltas["metric"] == measure).sum())
    holm = f" ({row['p_holm']:.2g} after Holm over {family} comparisons)" if family > 1 else ""
    return (
        f"By {MEASURE_NAMES[measure]} {row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] on {int(row['n'])} "
        f"questions, p {row['p']:.2g}{holm}" + (f": {told}" if told != headline else "")
    )


def _from_means(
    seen: PublishedAnswers, frame: pd.DataFrame, baseline: str, system: str, level: float
) -> tuple[str, list[str]]:
    """Return headline and evidence on a pair without row verdicts: printed means, identical answers, bounds on p."""
    first = frame.drop_duplicates(["system", "id"]).set_index("id")
    a, b = (first.loc[first["system"] == name, "answer"] for name in (baseline, system))
    both = a.index.intersection(b.index)
    same, n = int((a[both] == b[both]).sum()), len(both)
    missing = [s for s in (baseline, system) if not frame.loc[frame["system"] == s, "published_score"].notna().any()]
    found = [
        f"There are no row verdicts of {' and '.join(missing)}, so no paired test of the published verdicts; "
        f"{same} of {n} answers are the same text"
    ]
    means = seen.means[seen.means["run"] == 1].set_index(["system", "verdict"])["value"]
    kinds = [k for k in VERDICT_KINDS if (baseline, k) in means.index and (system, k) in means.index]
    if kinds:
        gaps = [f"{means[system, k] - means[baseline, k]:+.3f} ({VERDICT_KINDS[k]})" for k in kinds]
        found.append(f"The printed means differ by {' and '.join(gaps)}")
    if "judge_bool" not in kinds or not n or {baseline, system} & set(faulty_systems(frame)):
        return UNKNOWN, found
    counts = [round(means[name, "judge_bool"] * n) for name in (baseline, system)]
    headline, bounds = _bounds(counts[1] - counts[0], min(n - same, sum(counts), 2 * n - sum(counts)), n, 1 - level)
    return headline, [*found, bounds]


def _bounds(net: int, most: int, n: int, alpha: float) -> tuple[str, str]:
    """Return what McNemar's test can say of a net difference with at most `most` discordant rows."""
    net = abs(net)
    possible = [mcnemar((d + net) // 2, (d - net) // 2) for d in range(net, max(net, most) + 1, 2)]
    low, high = min(possible), max(possible)
    told = UNKNOWN if low < alpha <= high else LARGER if high < alpha else NOT_LARGER
    between = f"between {low:.2g} and {high:.2g}" if f"{low:.2g}" != f"{high:.2g}" else f"{low:.2g}"
    return told, (
        f"In true/false that is {net} of {n} questions net: McNemar's exact p is {between} however the "
        "rows fell, if the same text got the same verdict"
    )


def mcnemar(more: int, fewer: int) -> float:
    """Return the exact two-sided p of McNemar's test for `more` and `fewer` discordant pairs (McNemar, 1947)."""
    from scipy.stats import binomtest

    return float(binomtest(more, more + fewer).pvalue) if more + fewer else 1.0


def _fitted_systems(table: pd.DataFrame) -> list[str]:
    """Return a warning if the offline judge was fitted to verdicts on some of the systems."""
    from cuadft.evaluation.offline_judge import shipped_fit

    rated = set(table.loc[table["measure"] == "reference_score", "system"])
    fitted = [system for system in shipped_fit()["systems"] if system in rated]
    if not fitted:
        return []
    return [
        f"Our offline judge was fitted to verdicts on systems of these names: {', '.join(fitted)}. Its agreement with "
        "those is no test of it."
    ]


def verdict_findings(frame: pd.DataFrame, means: pd.DataFrame) -> list[str]:
    """Return where the published verdicts contradict themselves; frame and means as in `compare_published`."""
    means = means[means["system"].isin(frame["system"])]
    faults = [
        f"{system}: true/false is 0 on all {f['n']} rows, although the 0-to-1 verdict of {f['high']} of them is "
        f"{HIGH_SCORE} or more; in the other systems, {f['true']} of {f['of']} such rows were judged true. This points "
        "to a fault of the true/false parser: the 0 is no measurement, and is left out of the true/false comparisons."
        for system, f in faulty_systems(frame).items()
    ]
    return [*faults, *_contradictions(frame), *_passes_that_differ(frame, means), *_pass_of_rows(frame, means)]


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


def _contradictions(frame: pd.DataFrame) -> list[str]:
    """Return how many rows of the other systems were called nearly right on one scale and false on the other."""
    high = _high(frame)
    high = high[~high["system"].isin(list(faulty_systems(frame)))]
    parts = {system: part["published_bool"] < 0.5 for system, part in high.groupby("system", sort=False)}
    if not any(false.any() for false in parts.values()):
        return []
    most_first = sorted(parts.items(), key=lambda item: -item[1].mean())
    listed = ", ".join(f"{false.sum()} of {len(false)} of {system}" for system, false in most_first)
    return [
        f"Of the rows with a 0-to-1 verdict of {HIGH_SCORE} or more, true/false calls false: {listed}. So the two "
        "kinds of verdict need not order systems alike."
    ]


def _passes_that_differ(frame: pd.DataFrame, means: pd.DataFrame) -> list[str]:
    """Return how far the printed passes of the same judge over the same answers differ."""
    lines = []
    for verdict, part in means.groupby("verdict", sort=False):
        runs = part.pivot_table(index="system", columns="run", values="value", sort=False)
        gaps = (runs.max(axis=1) - runs.min(axis=1)).round(6)
        if runs.shape[1] < 2 or not gaps.max() > 0:
            continue
        worst, differing = gaps.idxmax(), int((gaps > 0).sum())
        n = frame.loc[frame["system"] == worst, "id"].nunique()
        unit = f" ({round(gaps.max() * n)} of {n} questions)" if verdict == "judge_bool" and n else ""
        printed = " and ".join(f"{value:.3f}" for value in runs.loc[worst].dropna())
        lines.append(
            f"The judge's printed passes ({VERDICT_KINDS[verdict]}) over the same answers differ for {differing} of "
            f"{len(gaps)} systems, most for {worst}: {printed}{unit}. So much can come from the judge alone."
        )
    return lines


def _pass_of_rows(frame: pd.DataFrame, means: pd.DataFrame) -> list[str]:
    """Return which printed pass the row-by-row verdicts belong to, or that they match none of the passes."""
    rows = frame.dropna(subset=["published_score"]).groupby("system")["published_score"].mean()
    score = means[means["verdict"] == "judge_score"]
    printed = score.pivot_table(index="system", columns="run", values="value")
    both = [system for system in rows.index if system in printed.index]
    if not both:
        return []
    gaps = printed.loc[both].sub(rows[both], axis=0).abs()  # NaN: not printed
    runs = [run for run in gaps if gaps[run].max() <= ROUNDING]
    if not runs:
        off = gaps.min(axis=1).max()
        return [f"The row-by-row verdicts have other means than those printed (by up to {off:.3f})."]
    return [f"The row-by-row verdicts are those of pass {runs[0]}."] if len(printed.columns) > len(runs) else []
