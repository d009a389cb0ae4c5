"""Plain sentences about published results, computed from the rows: what exceeds the noise, what can't be told."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cuadft import verdict_checks
from cuadft.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from cuadft.published import Published

PAIRS = (  # (baseline, system) from which the AWS sample's own text draws conclusions
    ("rag_haiku_compiled", "dpo_llama3_8b"),
    ("dpo_llama3_8b", "orpo_llama3_8b"),
    ("sft_llama3_8b", "dpo_llama3_8b"),
    ("sft_llama3_8b", "orpo_llama3_8b"),
)
NAMES = {
    "published_score": "the published 0-to-1 verdicts", "published_bool": "the published true/false verdicts",
    "judge_score": "our LLM judge", "reference_score": "our offline judge", "f1": "answer F1",
}  # fmt: skip
LISTED = 6  # pairs named one by one
LARGER, ALONE, NOT = "larger than the noise", "larger than the noise only if it were the one comparison made", \
    "not larger than the noise"  # fmt: skip


def sentences(seen: Published, frame: pd.DataFrame, table: pd.DataFrame, deltas: pd.DataFrame, *,
              pairs: Sequence[tuple[str, str]] | None = None, confidence: float = 0.95) -> list[str]:
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
    return [_size(seen, frame), *verdict_checks.sentences(frame, seen.means), *told, *families(shown, confidence),
            *_judges(table)]  # fmt: skip


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
        many = f"{clear.sum()} of {len(rows)} pairs of systems differ" if len(rows) > 1 else \
            f"the one pair of systems {'differs' if clear.any() else 'does not differ'}"  # fmt: skip
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
    return (f"{len(seen.systems)} systems, {part['id'].nunique()} questions. Row-by-row verdicts (0 to 1) are there "
            f"for {', '.join(rated) or 'no system'}{without}.")


def _against_best(seen: Published, frame: pd.DataFrame) -> list[tuple[str, str]]:
    part = frame[frame["system"].isin(seen.systems)]
    measure = next(m for m in NAMES if m in part and m != "published_bool" and part[m].notna().any())
    best = part.groupby("system")[measure].mean().idxmax()
    return [(system, best) for system in seen.systems if system != best]


def _pair(seen: Published, frame: pd.DataFrame, deltas: pd.DataFrame, baseline: str, system: str,
          level: float) -> str:  # fmt: skip
    """Return a headline from the published verdicts (or what bounds them), then the evidence."""
    rows = {m: row for m in NAMES if (row := _delta(deltas, baseline, system, m)) is not None}
    published = [m for m in rows if m.startswith("published")]
    ours = next((m for m in ("judge_score", "reference_score", "f1") if m in rows), None)
    headline, evidence = noise(rows[published[0]], level) if published else "", []
    if not published:
        headline, evidence = _from_means(seen, frame, baseline, system, level)
    evidence += [_test(m, rows[m], deltas, level, headline) for m in (*published, *([ours] if ours else []))]
    limits = [f"{rows[m]['detectable']:.2f} by {NAMES[m]}" for m in (*published[:1], *([ours] if ours else []))
              if rows[m]["detectable"] > 0]  # fmt: skip
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
    return (f"By {NAMES[measure]} {row['value']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}] on {int(row['n'])} "
            f"questions, p {row['p']:.2g}{holm}" + (f": {told}" if told != headline else ""))


def _from_means(seen: Published, frame: pd.DataFrame, baseline: str, system: str,
                level: float) -> tuple[str, list[str]]:  # fmt: skip
    """Return headline and evidence on a pair without row verdicts: printed means, identical answers, bounds on p."""
    first = frame.drop_duplicates(["system", "id"]).set_index("id")
    a, b = (first.loc[first["system"] == name, "answer"] for name in (baseline, system))
    both = a.index.intersection(b.index)
    same, n = int((a[both] == b[both]).sum()), len(both)
    missing = [s for s in (baseline, system) if not frame.loc[frame["system"] == s, "published_score"].notna().any()]
    found = [f"There are no row verdicts of {' and '.join(missing)}, so no paired test of the published verdicts; "
             f"{same} of {n} answers are the same text"]  # fmt: skip
    means = seen.means[seen.means["run"] == 1].set_index(["system", "verdict"])["value"]
    kinds = [k for k in verdict_checks.KINDS if (baseline, k) in means.index and (system, k) in means.index]
    if kinds:
        found.append("The printed means differ by " + " and ".join(
            f"{means[system, k] - means[baseline, k]:+.3f} ({verdict_checks.KINDS[k]})" for k in kinds))  # fmt: skip
    faulty = verdict_checks.faulty_systems(frame)
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
    return told, (f"In true/false that is {net} of {n} questions net: McNemar's exact p is {between} however the "
                  "rows fell, if the same text got the same verdict")  # fmt: skip


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
            lines.append(f"The means of {NAMES[measure]} are off the published 0-to-1 means by {gaps.mean():.3f} on "
                         f"average over {len(gaps)} systems (largest {gaps.max():.3f}); {alike} of {len(pairs)} "
                         "pairs of systems have the same order.")  # fmt: skip
    return [*lines, *_fitted(wide, target)]


def _fitted(wide: pd.DataFrame, target: pd.Series) -> list[str]:
    """Return how the offline judge does on the systems whose verdicts it was not fitted to."""
    from cuadft import calibration

    fitted = [s for s in calibration.shipped()["systems"] if s in wide.index]
    if not fitted or "reference_score" not in wide:
        return []
    gaps = (wide["reference_score"] - target).abs().drop(fitted).dropna()
    rest = (f"; on the others ({', '.join(gaps.index)}) its means are off by {gaps.mean():.3f} on average (largest "
            f"{gaps.max():.3f})") if len(gaps) else ""  # fmt: skip
    return [f"Our offline judge was fitted to verdicts on systems of these names: {', '.join(fitted)}. Its agreement "
            f"with those is no test of it{rest}."]  # fmt: skip
