"""Published results: a folder of answer files, others' verdicts row by row where they are there, and printed means.

    results = published.recompute("published", {"reference_score": OfflineJudge()}, seed=7)
    results.table, results.deltas, results.findings, results.notes

Verdicts of others stand in the columns `judge_bool` (0 or 1) and `judge_score` (0 to 1); the means that the source
printed stand in a table of the folder's README.md headed `system | judge_bool | judge_score`, "a / b" for two passes.

Plain sentences about published results, computed from the rows: what exceeds the noise, what can't be told.

Check published verdicts against themselves: a parser that failed, two kinds that disagree, passes that differ.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.core.errors import InputError
from cuadft.evaluation import answer_files, metrics

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
    files: list[answer_files.AnswerFile]
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


def read_published(folder: str | Path) -> Published:
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
    return Published(folder, answer_files.read_answer_file(paths, verdicts=tuple(VERDICTS)), means, notes)


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
                raise InputError(
                    f"{path}, line {number}: {row['system']!r} is there twice: write one row for each "
                    "system, with '/' between the means of several passes."
                )
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
        raise InputError(
            f"{where}: {cell!r} is no mean: write a number from 0 to 1 for each pass, '/' between them, '-' for none."
        )
    return list(enumerate(numbers, 1))


def with_verdicts(frame: pd.DataFrame, predictions: list[Mapping[str, Any]]) -> pd.DataFrame:
    """Return the scored rows with the published verdicts of the same rows beside them (NaN where there is none)."""
    given = {ours: [p["verdicts"].get(theirs) for p in predictions] for theirs, ours in VERDICTS.items()}
    return frame.assign(**given).astype(dict.fromkeys(given, float))


def recompute_published(
    folder: str | Path, judges: Mapping[str, Any], *, n_resamples: int = 2000, seed: int = 7, confidence: float = 0.95
) -> Results:
    """Return `compare` on a folder alone; judges: {"reference_score": OfflineJudge(), "judge_score": an LMJudge}."""
    seen = read_published(folder)
    pool = answer_files.join_files(seen.files)
    frame = metrics.score_predictions(pool.predictions)
    for name, judge in judges.items():
        frame[name] = judge.rate(pool.predictions)["judge_score"]
    frame = with_verdicts(frame, pool.predictions)
    return compare_published(seen, frame, n_resamples=n_resamples, seed=seed, confidence=confidence)


def compare_published(
    seen: Published, frame: pd.DataFrame, *, n_resamples: int = 2000, seed: int = 7, confidence: float = 0.95
) -> Results:
    """Return published figures beside recomputed ones, paired tests of all pairs of systems, and findings.

    frame: from `metrics.score` with the judges' columns and `with_verdicts`, published systems and others. The table
    has columns system, measure, run (pass of a printed mean, else 0), value, low, high, n; measures are `PRINTED`,
    `VERDICTS` and `OURS`. Deltas are those of `compare.paired_deltas`, one Holm family per measure.
    """
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    table = _table(seen, frame, settings)
    faulty = faulty_systems(frame)
    deltas = _deltas(frame, [*VERDICTS.values(), *(m for m in OURS if m in frame)], faulty, settings)
    sentences = published_findings(seen, frame, table, deltas, confidence=confidence)
    return Results(table, deltas, sentences, seen.notes, frame)


def _table(seen: Published, frame: pd.DataFrame, settings: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    from cuadft.evaluation.bootstrap import cluster_bootstrap

    nan, order = float("nan"), [*seen.systems, *(s for s in frame["system"].unique() if s not in seen.systems)]
    rows = [
        {
            "system": mean.system,
            "measure": PRINTED[mean.verdict],
            "run": mean.run,
            "value": mean.value,
            "low": nan,
            "high": nan,
            "n": nan,
        }
        for mean in seen.means.itertuples()
        if mean.system in order
    ]
    for system, measure in itertools.product(order, [*VERDICTS.values(), *(m for m in OURS if m in frame)]):
        part = frame[(frame["system"] == system) & frame[measure].notna()]
        if len(part):
            found = cluster_bootstrap(part[measure], part["contract"], **settings)
            rows.append(
                {
                    "system": system,
                    "measure": measure,
                    "run": 0,
                    "value": found.value,
                    "low": found.low,
                    "high": found.high,
                    "n": found.n,
                }
            )
    table = pd.DataFrame(rows, columns=["system", "measure", "run", "value", "low", "high", "n"])
    return table.sort_values("system", key=lambda names: names.map(order.index), kind="stable", ignore_index=True)


def _deltas(
    frame: pd.DataFrame, measures: list[str], faulty: Mapping[str, Any], settings: Mapping[str, Any]
) -> pd.DataFrame:
    """Return the paired tests of all pairs of systems that have the measure; a faulty true/false column has none."""
    import pandas as pd

    from cuadft.evaluation.compare import paired_deltas

    parts = []
    for measure in measures:
        have = frame[frame[measure].notna()]
        systems = [s for s in have["system"].unique() if not (measure == "published_bool" and s in faulty)]
        pairs = list(itertools.combinations(systems, 2))
        if pairs:
            split = have["split"].iloc[0]
            parts.append(paired_deltas(have, pairs, metrics=[measure], split=split, allow_partial=True, **settings))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["baseline", "system", "metric"])


PAIRS = (  # (baseline, system) from which the AWS sample's own text draws conclusions
    ("rag_haiku_compiled", "dpo_llama3_8b"),
    ("dpo_llama3_8b", "orpo_llama3_8b"),
    ("sft_llama3_8b", "dpo_llama3_8b"),
    ("sft_llama3_8b", "orpo_llama3_8b"),
)
NAMES = {
    "published_score": "the published 0-to-1 verdicts",
    "published_bool": "the published true/false verdicts",
    "judge_score": "our LLM judge",
    "reference_score": "our offline judge",
    "f1": "answer F1",
}
LISTED = 6  # pairs named one by one
LARGER, ALONE, NOT = (
    "larger than the noise",
    "larger than the noise only if it were the one comparison made",
    "not larger than the noise",
)


def published_findings(
    seen: Published,
    frame: pd.DataFrame,
    table: pd.DataFrame,
    deltas: pd.DataFrame,
    *,
    pairs: Sequence[tuple[str, str]] | None = None,
    confidence: float = 0.95,
) -> list[str]:
    """Return the findings on the published systems; arguments as made by `published.compare`.

    pairs: (baseline, system) to speak about, by default those of `PAIRS` that are there, else every system against
    the one with the highest mean. A difference is larger than the noise if its Holm-adjusted p is below
    1 - confidence. Raises InputError on a pair of unknown systems.
    """
    known = set(frame["system"])
    unknown = [name for pair in pairs or () for name in pair if name not in known]
    if unknown:
        raise InputError(f"No system {unknown[0]!r}: choose from {', '.join(sorted(known))}.")
    if pairs is None:
        pairs = [pair for pair in PAIRS if known.issuperset(pair)] or _against_best(seen, frame)
    told = [_pair(seen, frame, deltas, baseline, system, confidence) for baseline, system in pairs]
    shown = deltas[deltas["metric"].isin([m for m in NAMES if m != "f1"])]
    return [
        _size(seen, frame),
        *verdict_findings(frame, seen.means),
        *told,
        *families(shown, confidence),
        *_judges(table),
    ]


def mcnemar(more: int, fewer: int) -> float:
    """Return the exact two-sided p of McNemar's test for `more` and `fewer` discordant pairs (McNemar, 1947)."""
    n = more + fewer
    return min(1.0, 2 * sum(math.comb(n, i) for i in range(min(more, fewer) + 1)) / 2**n)


def noise(row: Mapping[str, Any], level: float) -> str:
    """Return whether a paired difference exceeds the noise: by its Holm-adjusted p, and by its interval alone."""
    if math.isnan(row["p"]):
        return "no test possible"
    if row["p_holm"] < 1 - level:
        return LARGER
    return ALONE if row["low"] > 0 or row["high"] < 0 else NOT


def families(deltas: pd.DataFrame, level: float) -> list[str]:
    """Return for each measure how many of its pairs differ by more than the noise, and which."""
    lines = []
    for measure, rows in deltas.groupby("metric", sort=False):
        clear = rows["p_holm"] < 1 - level
        few, rest = (clear, "") if clear.sum() <= max(LISTED, (~clear).sum()) else (~clear, "all but ")
        named = sorted(rows[few].itertuples(), key=lambda r: -abs(r.value))
        listed = "; ".join(_higher(r) for r in named)
        told = f": {rest}{listed}" if listed and clear.any() else ""
        many = (
            f"{clear.sum()} of {len(rows)} pairs of systems differ"
            if len(rows) > 1
            else f"the one pair of systems {'differs' if clear.any() else 'does not differ'}"
        )
        corrected = f" (Holm over {len(rows)}, {100 * level:g} %)" if len(rows) > 1 else ""
        lines.append(f"By {NAMES.get(measure, measure)}, {many} by more than the noise{corrected}{told}.")
    return lines


def _higher(row: Any) -> str:
    up = row.value >= 0
    first, second = (row.system, row.baseline) if up else (row.baseline, row.system)
    return f"{first} over {second} by {abs(row.value):.2f}"


def _size(seen: Published, frame: pd.DataFrame) -> str:
    part = frame[frame["system"].isin(seen.systems)]
    rated = [s for s in seen.systems if part.loc[part["system"] == s, "published_score"].notna().any()]
    rest = [s for s in seen.systems if s not in rated]
    without = f", not for {', '.join(rest)}" if rest else ""
    return (
        f"{len(seen.systems)} systems, {part['id'].nunique()} questions. Row-by-row verdicts (0 to 1) are there "
        f"for {', '.join(rated) or 'no system'}{without}."
    )


def _against_best(seen: Published, frame: pd.DataFrame) -> list[tuple[str, str]]:
    part = frame[frame["system"].isin(seen.systems)]
    measure = next(m for m in NAMES if m in part and m != "published_bool" and part[m].notna().any())
    best = part.groupby("system")[measure].mean().idxmax()
    return [(system, best) for system in seen.systems if system != best]


def _pair(seen: Published, frame: pd.DataFrame, deltas: pd.DataFrame, baseline: str, system: str, level: float) -> str:
    """Return a headline from the published verdicts (or what bounds them), then the evidence."""
    rows = {m: row for m in NAMES if (row := _delta(deltas, baseline, system, m)) is not None}
    published = [m for m in rows if m.startswith("published")]
    ours = next((m for m in ("judge_score", "reference_score", "f1") if m in rows), None)
    headline, evidence = noise(rows[published[0]], level) if published else "", []
    if not published:
        headline, evidence = _from_means(seen, frame, baseline, system, level)
    evidence += [_test(m, rows[m], deltas, level, headline) for m in (*published, *([ours] if ours else []))]
    limits = [
        f"{rows[m]['detectable']:.2f} by {NAMES[m]}"
        for m in (*published[:1], *([ours] if ours else []))
        if rows[m]["detectable"] > 0
    ]
    if limits:
        evidence.append(f"A true difference below {' and '.join(limits)} would be missed more than one time in five")
    return f"{system} against {baseline}: {headline}. " + ". ".join(evidence) + "."


def _delta(deltas: pd.DataFrame, baseline: str, system: str, measure: str) -> dict[str, Any] | None:
    """Return the row of system - baseline, turned round where the table holds baseline - system."""
    rows = deltas[deltas["metric"] == measure]
    for a, b, sign in ((baseline, system, 1), (system, baseline, -1)):
        found = rows[(rows["baseline"] == a) & (rows["system"] == b)]
        if len(found):
            row = found.iloc[0].to_dict()
            low, high = sorted((sign * row["low"], sign * row["high"]))
            return row | {"value": sign * row["value"], "low": low, "high": high}
    return None


def _test(measure: str, row: Mapping[str, Any], deltas: pd.DataFrame, level: float, headline: str) -> str:
    """Return one measure's difference and test; whether it exceeds the noise only where the headline differs."""
    told = noise(row, level)
    family = int((deltas["metric"] == measure).sum())
    holm = f" ({row['p_holm']:.2g} after Holm over {family} comparisons)" if family > 1 else ""
    return (
        f"By {NAMES[measure]} {row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] on {int(row['n'])} "
        f"questions, p {row['p']:.2g}{holm}" + (f": {told}" if told != headline else "")
    )


def _from_means(
    seen: Published, frame: pd.DataFrame, baseline: str, system: str, level: float
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
    kinds = [k for k in KINDS if (baseline, k) in means.index and (system, k) in means.index]
    if kinds:
        found.append(
            "The printed means differ by "
            + " and ".join(f"{means[system, k] - means[baseline, k]:+.3f} ({KINDS[k]})" for k in kinds)
        )
    faulty = faulty_systems(frame)
    if "judge_bool" not in kinds or not n or {baseline, system} & set(faulty):
        return "the published figures alone can't tell", found
    counts = [round(means[name, "judge_bool"] * n) for name in (baseline, system)]
    headline, bounds = _bounds(counts[1] - counts[0], min(n - same, sum(counts), 2 * n - sum(counts)), n, 1 - level)
    return headline, [*found, bounds]


def _bounds(net: int, most: int, n: int, alpha: float) -> tuple[str, str]:
    """Return what McNemar's test can say of a net difference with at most `most` discordant rows."""
    net = abs(net)
    possible = [mcnemar((d + net) // 2, (d - net) // 2) for d in range(net, max(net, most) + 1, 2)]
    low, high = min(possible), max(possible)
    told = "the published figures alone can't tell" if low < alpha <= high else LARGER if high < alpha else NOT
    between = f"between {low:.2g} and {high:.2g}" if f"{low:.2g}" != f"{high:.2g}" else f"{low:.2g}"
    return told, (
        f"In true/false that is {net} of {n} questions net: McNemar's exact p is {between} however the "
        "rows fell, if the same text got the same verdict"
    )


def _judges(table: pd.DataFrame) -> list[str]:
    """Return how near our judges' means come to the published ones, and how many pairs they order alike."""
    wide = table.groupby(["system", "measure"])["value"].mean().unstack()
    targets = [wide[m] for m in ("published_score", "printed_score") if m in wide]
    if not targets:
        return []
    target, lines = targets[0].fillna(targets[-1]), []
    for measure in (m for m in ("reference_score", "judge_score") if m in wide):
        both = wide.assign(target=target)[[measure, "target"]].dropna().to_numpy()
        pairs = [(x, y) for i, x in enumerate(both) for y in both[:i]]
        alike = sum(((x - y) > 0).all() or ((x - y) < 0).all() for x, y in pairs)
        if pairs:
            gaps = abs(both[:, 0] - both[:, 1])
            lines.append(
                f"The means of {NAMES[measure]} are off the published 0-to-1 means by {gaps.mean():.3f} on "
                f"average over {len(gaps)} systems (largest {gaps.max():.3f}); {alike} of {len(pairs)} "
                "pairs of systems have the same order."
            )
    return [*lines, *_fitted(wide, target)]


def _fitted(wide: pd.DataFrame, target: pd.Series) -> list[str]:
    """Return how the offline judge does on the systems whose verdicts it was not fitted to."""
    from cuadft.evaluation import offline_judge

    fitted = [s for s in offline_judge.shipped_weights()["systems"] if s in wide.index]
    if not fitted or "reference_score" not in wide:
        return []
    gaps = (wide["reference_score"] - target).abs().drop(fitted).dropna()
    rest = (
        (
            f"; on the others ({', '.join(gaps.index)}) its means are off by {gaps.mean():.3f} on average (largest "
            f"{gaps.max():.3f})"
        )
        if len(gaps)
        else ""
    )
    return [
        f"Our offline judge was fitted to verdicts on systems of these names: {', '.join(fitted)}. Its agreement "
        f"with those is no test of it{rest}."
    ]


KINDS = {"judge_bool": "true/false", "judge_score": "0 to 1"}
HIGH = 0.8  # 0-to-1 score from which a row should have been judged true
CHANCE = 0.05
ROUNDED = 0.0006  # farthest that a mean printed to three digits lies from the rows' mean


def verdict_findings(frame: pd.DataFrame, means: pd.DataFrame) -> list[str]:
    """Return what the checks find, as plain sentences; frame and means as in `published.compare`."""
    means = means[means["system"].isin(frame["system"])]
    return [*_faults(frame), *_contradictions(frame), *_passes(frame, means), *_run_of_rows(frame, means)]


def faulty_systems(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the systems judged false on all rows although the 0-to-1 verdicts call some right, with counts.

    With h rows at `HIGH` or more in the system, and k of m such rows judged true in the others, h zeros in a row
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
    return frame[frame["published_bool"].notna() & (frame["published_score"] >= HIGH)]


def _faults(frame: pd.DataFrame) -> list[str]:
    return [
        f"{system}: true/false is 0 on all {f['n']} rows, although the 0-to-1 verdict of {f['high']} of them is "
        f"{HIGH} or more; in the other systems, {f['true']} of {f['of']} such rows were judged true. This points to "
        "a fault of the true/false parser: the 0 is no measurement, and is left out of the true/false comparisons."
        for system, f in faulty_systems(frame).items()
    ]


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
        f"Of the rows with a 0-to-1 verdict of {HIGH} or more, true/false calls false: {listed}. So the two "
        "kinds of verdict need not order systems alike."
    ]


def _passes(frame: pd.DataFrame, means: pd.DataFrame) -> list[str]:
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
            f"The judge's printed passes ({KINDS[verdict]}) over the same answers differ for {differing} "
            f"of {len(gaps)} systems, most for {worst}: {printed}{unit}. So much can come from the "
            "judge alone."
        )
    return lines


def _run_of_rows(frame: pd.DataFrame, means: pd.DataFrame) -> list[str]:
    """Return which printed pass the row-by-row verdicts belong to, or that they match none."""
    rows = frame.dropna(subset=["published_score"]).groupby("system")["published_score"].mean()
    score = means[means["verdict"] == "judge_score"]
    printed = score.pivot_table(index="system", columns="run", values="value")
    both = [system for system in rows.index if system in printed.index]
    if not both:
        return []
    gaps = printed.loc[both].sub(rows[both], axis=0).abs()  # NaN: not printed
    runs = [run for run in gaps if gaps[run].max() <= ROUNDED]
    if not runs:
        off = gaps.min(axis=1).max()
        return [f"The row-by-row verdicts have other means than those printed (by up to {off:.3f})."]
    return [f"The row-by-row verdicts are those of pass {runs[0]}."] if len(printed.columns) > len(runs) else []
