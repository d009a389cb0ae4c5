"""What `cuadft score` writes and prints: rows, scoreboard, differences, figures, a report in plain words."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cuadft import agreement_text, files, metrics, pooled
from cuadft.pooled import counted
from cuadft.ratings import reference

if TYPE_CHECKING:
    import pandas as pd

    from cuadft.drawing import Figure
    from cuadft.scoring import Scored

CALIBRATION = ("calibration.json", "calibration.md", "calibration.png")
PUBLISHED = ("published.csv", "published_deltas.csv", "published.png")
SHORT = ("f1", "f1_answerable", "reference_score", "judge_score", "false_answer", "false_refusal")
SHOWN = ("f1", "f1_answerable", "em", "rouge_l", "span_f1", "reference_score", "judge_score",
         "abstention_precision", "abstention_recall", "false_answer", "false_refusal")  # fmt: skip
PARTS = ("f1_answerable", "f1_no_clause", "em_answerable")  # of a part of the questions
NO_VERDICTS = ("No verdicts of others are in the files, so there is no calibration report: name their column with "
               "--verdict COLUMN.")  # fmt: skip


def write(done: Scored) -> None:
    """Write the results into `done.out`, each file in one step; reports of an earlier call that don't apply go."""
    from cuadft import figures

    unit, confidence = done.pool.unit, done.settings["confidence"]
    least = done.deltas if len(done.deltas) else None
    tables = {"rows.csv": rows(done), "scoreboard.csv": _by_cluster(done, done.scoreboard),
              "deltas.csv": _by_cluster(done, done.deltas)}  # fmt: skip
    shown = [m for m in ("f1", done.judged) if m in set(done.scoreboard["metric"])]
    drawn = {"benchmark.png": figures.panels(done.scoreboard, shown, done.pool.split, confidence=confidence,
                                             unit=unit, detectable=least)}  # fmt: skip
    texts, values = {"report.md": report(done)}, {}
    _add_published(done, tables, drawn)
    _add_calibration(done, texts, values, drawn)
    for name, table in tables.items():
        files.write_text(done.out / name, as_csv(table))
    for name, value in values.items():
        files.write_json(done.out / name, value)
    for name, figure in drawn.items():
        save(figure, done.out / name)
    for name, text in texts.items():
        files.write_text(done.out / name, text)
    for name in {*CALIBRATION, *PUBLISHED} - {*tables, *drawn, *texts, *values}:
        (done.out / name).unlink(missing_ok=True)  # of an earlier call: would be read as one of this


def _add_published(done: Scored, tables: dict, drawn: dict) -> None:
    from cuadft import published_figure, verdict_checks

    if done.published:
        table, deltas = done.published.table, done.published.deltas
        tables |= {"published.csv": table, "published_deltas.csv": _by_cluster(done, deltas)}
        faulty, confidence = verdict_checks.faulty_systems(done.published.frame), done.settings["confidence"]
        figure = published_figure.beside(table, faulty=faulty, confidence=confidence, unit=done.pool.unit)
        drawn["published.png"] = figure


def _add_calibration(done: Scored, texts: dict, values: dict, drawn: dict) -> None:
    from cuadft import agreement, agreement_figure

    if done.calibration:
        values["calibration.json"] = done.calibration
        texts["calibration.md"] = agreement.markdown(done.calibration)
        drawn["calibration.png"] = agreement_figure.agreement(done.calibration)


def rows(done: Scored) -> pd.DataFrame:
    """Return one row per answer, in the order of the input: asked, answered and judged, then every metric."""
    given, frame = done.pool.predictions, done.frame
    texts = {"question": [p["question"] for p in given], "reference": [reference(p) for p in given],
             "answer": [p["answer"] for p in given]}  # fmt: skip
    judged = {"judge": frame["judge"], "judge_score": frame[done.judged], "judge_verdict": frame["judge_verdict"]}
    measured = {m: frame[m] for m in metrics.METRICS if m in frame and m != "judge_score"}
    names = {"contract": "contract_name", "contract_type": "contract_type", "category": "category", "seed": "seed"}
    named = {c: [p[key] for p in given] for c, key in names.items() if any(p[key] for p in given)}
    rest = ("failed", "judge_votes", "judge_agreement", "judge_reason", "judge_error", "published_bool",
            "published_score")  # fmt: skip
    kept = {c: frame[c] for c in rest if c in frame and frame[c].notna().any()}
    return frame[["system"]].assign(**texts, **judged, **measured, **named, **kept, error=[p["error"] for p in given])


def _by_cluster(done: Scored, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose column of contracts says what was resampled: contracts, or questions."""
    return table.rename(columns={"n_contracts": f"n_{done.pool.unit}s"})


def as_csv(table: pd.DataFrame) -> str:
    """Return a table as CSV with every text quoted: pandas leaves a lone carriage return bare, which ends a row."""
    return table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG in one step."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    files.write_bytes(path, buffer.getvalue())


def summary(done: Scored, shown: tuple[str, ...] = SHORT, *, markdown: bool = False) -> str:
    """Return the scoreboard as a table for people: one line per system, value and interval of the metrics shown.

    A metric that applies to no row is left out, and so is one of a part of the questions that are all of them.
    """
    board = done.scoreboard[done.scoreboard["n"] > 0]
    n = board.groupby("metric")["n"].sum()
    columns = [m for m in shown if m in n and not (m in PARTS and n[m] == n["f1"])]
    lines = [["system", "answers", "failed", *(metrics.METRICS[m][0] for m in columns)]]
    for system in done.pool.systems:
        part, mine = board[board["system"] == system].set_index("metric"), done.frame[done.frame["system"] == system]
        cells = [_cell(part.loc[m]) if m in part.index else "-" for m in columns]
        lines.append([system, f"{len(mine):,}", f"{int(mine['failed'].sum()):,}", *cells])
    if markdown:
        return agreement_text.table(lines[0], lines[1:])
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _cell(row: pd.Series) -> str:
    interval = "" if row["low"] != row["low"] else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['value']:.3f}{interval}"


def report(done: Scored) -> str:
    """Return the report in plain words (Markdown)."""
    parts = ["# Scores", _counts(done), pooled.basis(done.pool), _bullets(done.pool.notes),
             "## Systems", summary(done, SHOWN, markdown=True), _reading(done), "![Scores](benchmark.png)",
             "## Differences", _differences(done), "## The judge against others' verdicts",
             _calibrated(done) if done.calibration else NO_VERDICTS]  # fmt: skip
    if done.published:
        parts += ["## Published results", "![Published beside recomputed](published.png)",
                  "Computed from the rows and the printed means:", _bullets(done.published.findings)]  # fmt: skip
        notes = done.published.notes
        parts += ["Known of the source, not computed:", _bullets(notes)] if notes else []
    return "\n\n".join(part for part in parts if part) + "\n"


def _calibrated(done: Scored) -> str:
    from cuadft import calibration

    shipped = calibration.shipped()
    left_out = shipped["without_the_system"]["all"]
    fitted = (f"The offline judge was fitted to {shipped['n']} verdicts ({shipped['fitted_to']}). Where these are among them, "
              f"the report flatters it: on a system left out of the fit, Spearman's correlation was {left_out['spearman']:.2f} "
              f"and Cohen's kappa {left_out['kappa']:.2f} over all rows.")
    warned = f"\n\n{fitted}" if done.judge == "offline" else ""
    return f"See [calibration.md](calibration.md).{warned}\n\n![Judge and verdicts](calibration.png)"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {agreement_text.escaped(line)}" for line in lines)


def _counts(done: Scored) -> str:
    from cuadft.scoring import columns_taken

    failed, errors = int(done.frame["failed"].sum()), done.frame["judge_error"].notna().sum()
    offline = "the offline judge (features of the texts, no language model)"
    judge = offline if done.judge == "offline" else f"`{done.judge}`; beside it {offline}"
    counts = (f"{counted(len(done.frame), 'answer')} of {counted(len(done.pool.systems), 'system')} to "
              f"{counted(done.frame['id'].nunique(), 'question')}. Failed generations (no answer): {failed:,}; they "
              f"score 0. Judge: {judge}. Judgements that failed: {errors:,}; they count nowhere. Columns:")
    return f"{counts}\n\n{_bullets(columns_taken(done.files))}"


def _reading(done: Scored) -> str:
    level, draws = f"{100 * done.settings['confidence']:g} %", done.settings["n_resamples"]
    return (f"In brackets: {level} intervals from {draws:,} bootstrap resamples of {done.pool.unit}s. All metrics "
            "are in `scoreboard.csv`, every answer is in `rows.csv`.")  # fmt: skip


def _differences(done: Scored) -> str:
    """Return which pairs of systems differ by more than the noise."""
    from cuadft.findings import families

    if not len(done.deltas):
        return "One system: nothing to compare."
    told = families(done.deltas, done.settings["confidence"])
    return f"{_bullets(told)}\n\nAll differences, paired by question, are in `deltas.csv`."
