"""Score answer files: what `cuadft score` does, from reading the files to writing the folder of results.

    done = score_files(["sft.csv", "dpo.csv"], out="scores")
    done.scoreboard, done.deltas, done.frame
    print(score_summary(done))

The folder holds rows, scoreboard, differences, figures and a report in plain words (`write_scored`). Everything is read
and computed before the first result is written, and each file is replaced in one step, so bad input leaves the results
of an earlier call as they are. Only an LLM judge's votes are kept as they come, in `verdicts.jsonl`.

The *verdict* column of an answer file holds what others say of the answers; the calibration report says how far the
chosen judge agrees with it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.evaluation import answer_files, bootstrap, calibration, metrics
from cuadft.evaluation.answer_files import count_of
from cuadft.evaluation.compare import paired_deltas, pairs_that_differ
from cuadft.evaluation.constants import ALWAYS_REFUSES, constant_answers
from cuadft.evaluation.offline_judge import Encode, OfflineJudge, shipped_fit
from cuadft.evaluation.published import (
    FRAME_COLUMNS,
    MEASURE_NAMES,
    PublishedAnswers,
    PublishedComparison,
    compare_published,
    faulty_systems,
    read_published,
    with_verdicts,
)
from cuadft.evaluation.results import as_csv, save_figure
from cuadft.evaluation.scoreboard import make_scoreboard
from cuadft.evaluation.verdicts import VERDICT_SCORES, reference_text
from cuadft.models import usage

OFFLINE = "offline"
METRIC_OF_JUDGE = {OFFLINE: "reference_score"}  # any other judge is an LLM, whose metric is "judge_score"
ALL_PAIRS = 12  # systems up to which every pair is tested; of more systems, each is tested against the first
ROLES_NAMED = ("question", "reference", "answer", "system", "contract")  # roles whose columns the output names
PUBLISHED_VERDICTS = ("judge_score", "judge_bool")  # verdict columns of a published folder, the better one first
CALIBRATION_FILES = ("calibration.json", "calibration.md", "calibration.png")
PUBLISHED_FILES = ("published.csv", "published_deltas.csv", "published.png")
SUMMARY_METRICS = (
    *("quote_f1", "detection_f1", "f1", "f1_answerable", "reference_score", "judge_score"),
    *("false_answer", "false_refusal"),
)
REPORT_METRICS = (
    *("quote_f1", "detection_f1", "f1", "f1_answerable", "em", "rouge_l", "span_f1", "reference_score", "judge_score"),
    *("abstention_precision", "abstention_recall", "false_answer", "false_refusal"),
)
PART_METRICS = ("f1_answerable", "f1_no_clause", "em_answerable")  # over a part of the questions
NO_VERDICTS = (
    "No verdicts of others are in the files, so there is no calibration report: name their column with "
    "--verdict COLUMN."
)


@dataclass(frozen=True)
class ScoredFiles:
    """Hold what one call of `score_files` found: scored rows, scoreboard, paired differences, and their sources."""

    pool: answer_files.Pool
    judge: str  # "offline" or an LLM's id, as asked for
    settings: dict[str, Any]
    files: list[answer_files.AnswerFile] = field(repr=False)
    frame: pd.DataFrame = field(repr=False)
    scoreboard: pd.DataFrame = field(repr=False)
    deltas: pd.DataFrame = field(repr=False)
    calibration: dict[str, Any] | None = field(repr=False)
    published: PublishedComparison | None = field(repr=False)
    out: Path

    @property
    def judge_metric(self) -> str:
        """The metric that the chosen judge gave."""
        return METRIC_OF_JUDGE.get(self.judge, "judge_score")


def score_files(
    paths: Sequence[str | Path] = (),
    *,
    published: str | Path = "",
    judge: str = OFFLINE,
    out: str | Path = "scores",
    columns: Mapping[str, str] | None = None,
    verdict: str = "",
    votes: int = 1,
    encode: Encode | None = None,
    n_resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 7,
    log: Callable[[str], object] = print,
) -> ScoredFiles:
    """Score answer files, write the results into `out` and return them.

    published: a folder for `read_published`, whose systems join those of `paths`. judge: "offline", or a LiteLLM id;
    the offline judge scores the answers in any case. columns: role -> column, see `read_answer_files`; verdict: a
    column of others' verdicts in `paths`, for the calibration report (a published folder has its own). votes: of an
    LLM judge. encode: texts to unit vectors, one a row: one more feature for the offline judge. log: gets each remark
    as a line. Raises InputError for unreadable answers, settings out of range, a folder that can't be written, and a
    judge that gives no verdict at all.
    """
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    _check(settings, paths, published, judge, votes)
    found, seen = _read_all(paths, published, columns or {}, verdict)
    pool = answer_files.join_files(found)
    folder = _writable(Path(out).expanduser())
    for line in _remarks(found, pool):
        log(line)
    frame = _judge_rows(pool, judge, folder, votes, encode, log)
    done = _compute(pool, frame, judge, settings, found, seen, folder)
    write_scored(done)
    return done


def _check(
    settings: Mapping[str, Any], paths: Sequence[str | Path], published: str | Path, judge: str, votes: int
) -> None:
    if not paths and not str(published):
        raise InputError("Nothing to score: name files of answers, or a folder with --published.")
    if not judge.strip():
        raise InputError("Invalid judge '': give offline, or a LiteLLM id such as openai/gpt-4o.")
    if judge == OFFLINE and votes != 1:
        raise InputError(
            f"Invalid votes {votes!r}: the offline judge has one vote. Leave --votes out, or name an LLM with --judge."
        )
    bootstrap.check_resampling(settings["n_resamples"], settings["confidence"])
    if settings["seed"] < 0:
        raise InputError(f"Invalid seed {settings['seed']!r}: give a whole number from 0.")


def _read_all(
    paths: Sequence[str | Path], published: str | Path, columns: Mapping[str, str], verdict: str
) -> tuple[list[answer_files.AnswerFile], PublishedAnswers | None]:
    asked = {role: name for role, name in columns.items() if name}
    found = answer_files.read_answer_files(paths, verdicts=[verdict] if verdict else [], **asked)
    if verdict and not any(row["verdicts"] for file in found for row in file.rows):
        where = ", ".join(map(str, paths)) or "PREDICTIONS"
        raise InputError(f"No verdict column {verdict!r}: name a column of {where}.")
    seen = read_published(published) if str(published) else None
    return [*found, *(seen.files if seen else [])], seen


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / ".writable", "")
        (folder / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"Can't write to {folder} ({error.strerror}): choose another folder with --out.") from error
    return folder


def _remarks(found: Sequence[answer_files.AnswerFile], pool: answer_files.Pool) -> list[str]:
    return [*columns_taken(found), *pool.notes, answer_files.pool_basis(pool)]


def columns_taken(found: Sequence[answer_files.AnswerFile]) -> list[str]:
    """Return which columns were taken for what, one line for all files that are alike in this."""
    alike: dict[str, list[answer_files.AnswerFile]] = {}
    for file in found:
        taken = ", ".join(f"{role} from {file.columns[role]!r}" for role in ROLES_NAMED if role in file.columns)
        alike.setdefault(taken, []).append(file)
    return [
        f"{', '.join(f.path.name for f in files)} ({count_of(sum(len(f.rows) for f in files), 'row')}): {taken}."
        for taken, files in alike.items()
    ]


def _judge_rows(
    pool: answer_files.Pool, judge: str, folder: Path, votes: int, encode: Encode | None, log: Callable
) -> pd.DataFrame:
    """Return the scored rows in the order of the input, with all judges' scores and the chosen judge's verdicts."""
    judges: dict[str, Any] = {OFFLINE: OfflineJudge(encode)}
    if judge != OFFLINE:
        judges[judge] = _language_model(judge, votes, folder)  # made, and its settings checked, before one begins
    frame = metrics.score_predictions(pool.predictions)
    for name, one in judges.items():
        verdicts = one.rate(pool.predictions)
        errors = verdicts["judge_error"].dropna().map(lambda text: " ".join(text.split()))
        if len(errors) and not verdicts["judge_verdict"].isin(list(VERDICT_SCORES)).any():
            raise InputError(
                f"Judge {name!r} rated none of {len(errors)} answers (first error: {errors.iloc[0]}): "
                "check the id and the keys in the environment, or take --judge offline."
            )
        if len(errors):
            log(f"Judge {name!r}: {len(errors)} of {len(verdicts)} judgements failed (first error: {errors.iloc[0]}).")
        for row in usage.usage_table({name: getattr(one, "lm", None)}).to_dict("records"):
            log(usage.usage_line(row))
        frame[METRIC_OF_JUDGE.get(name, "judge_score")] = verdicts["judge_score"]
    return frame.assign(judge=one.name).join(verdicts.drop(columns="judge_score"))


def _language_model(name: str, votes: int, folder: Path) -> Any:
    from cuadft.evaluation.judge import LMJudge  # with DSPy, which takes seconds to import
    from cuadft.models.api import remote

    return LMJudge(remote(name), votes=votes, cache=folder / "verdicts.jsonl")


def _compute(
    pool: answer_files.Pool,
    frame: pd.DataFrame,
    judge: str,
    settings: dict[str, Any],
    found: list[answer_files.AnswerFile],
    seen: PublishedAnswers | None,
    folder: Path,
) -> ScoredFiles:
    """Return the scoreboard, the paired tests, the calibration and the published comparison of the scored rows."""
    judged = ["quote_f1", *dict.fromkeys((METRIC_OF_JUDGE[OFFLINE], METRIC_OF_JUDGE.get(judge, "judge_score")))]
    board = pd.concat([_refuser_board(pool, settings), make_scoreboard(frame, **settings)], ignore_index=True)
    pairs = _pairs(pool.systems)
    tests = paired_deltas(frame, pairs, metrics=judged, split=pool.split, allow_partial=True, **settings)
    frame = with_verdicts(frame, pool.predictions)
    results = compare_published(seen, frame, **settings) if seen else None
    agreed = _calibration_report(pool, frame, judge, settings)
    return ScoredFiles(pool, judge, settings, found, frame, board, tests, agreed, results, folder)


def _refuser_board(pool: answer_files.Pool, settings: dict[str, Any]) -> pd.DataFrame | None:
    """Return the scoreboard of always refusing the same questions; None if a system of the files has that name."""
    if ALWAYS_REFUSES in pool.systems:
        return None
    rows = [p for p in constant_answers(pool.predictions, {}) if p["system"] == ALWAYS_REFUSES]
    frame = metrics.score_predictions(rows)
    frame[METRIC_OF_JUDGE[OFFLINE]] = OfflineJudge().rate(rows)["judge_score"].to_numpy()
    return make_scoreboard(frame, **settings)


def _pairs(systems: Sequence[str]) -> list[tuple[str, str]]:
    if len(systems) <= ALL_PAIRS:
        return list(itertools.combinations(systems, 2))
    return [(systems[0], system) for system in systems[1:]]


def _calibration_report(
    pool: answer_files.Pool, frame: pd.DataFrame, judge: str, settings: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the chosen judge's agreement with the verdicts in the files, None without verdicts."""
    given = [_verdict_given(p["verdicts"]) for p in pool.predictions]
    names = sorted({name for name, _ in given if name})
    if not names:
        return None
    score, verdict = frame["judge"].iloc[0], f"verdicts ({', '.join(names)})"
    rows = frame[["system", "question", "answer", "failed", "judge_verdict"]].assign(
        **{
            score: frame[METRIC_OF_JUDGE.get(judge, "judge_score")],
            verdict: pd.Series([v for _, v in given], dtype=float),
        }
    )
    rows = rows.assign(contract=frame["contract"]) if pool.unit == "contract" else rows
    return calibration.calibration_report(
        rows[[bool(name) for name, _ in given]], score=score, verdict=verdict, **settings
    )


def _verdict_given(verdicts: Mapping[str, float]) -> tuple[str, float]:
    """Return a row's verdict and its column: the column asked for, else the published score from 0 to 1."""
    order = [*(name for name in verdicts if name not in PUBLISHED_VERDICTS), *PUBLISHED_VERDICTS]
    return next(((n, verdicts[n]) for n in order if not math.isnan(verdicts.get(n, math.nan))), ("", math.nan))


def write_scored(done: ScoredFiles) -> None:
    """Write the results into `done.out`, each file in one step; remove reports of an earlier call that don't apply."""
    from cuadft.evaluation.figures import scores

    unit, confidence = done.pool.unit, done.settings["confidence"]
    least = done.deltas if len(done.deltas) else None
    tables = {
        "rows.csv": scored_rows(done),
        "scoreboard.csv": _by_cluster(done, done.scoreboard),
        "deltas.csv": _by_cluster(done, done.deltas),
    }
    shown = [m for m in ("quote_f1", done.judge_metric) if m in set(done.scoreboard["metric"])]
    drawn_as = {"confidence": confidence, "unit": unit, "detectable": least}
    drawn = {"benchmark.png": scores.panels_figure(done.scoreboard, shown, done.pool.split, **drawn_as)}
    texts, values = {"report.md": score_markdown(done)}, {}
    _add_published(done, tables, drawn)
    _add_calibration(done, texts, values, drawn)
    for name, table in tables.items():
        files.write_text(done.out / name, as_csv(table))
    for name, value in values.items():
        files.write_json(done.out / name, value)
    for name, figure in drawn.items():
        save_figure(figure, done.out / name)
    for name, text in texts.items():
        files.write_text(done.out / name, text)
    for name in {*CALIBRATION_FILES, *PUBLISHED_FILES} - {*tables, *drawn, *texts, *values}:
        (done.out / name).unlink(missing_ok=True)  # of an earlier call: it would be read as one of this call


def _add_published(done: ScoredFiles, tables: dict, drawn: dict) -> None:
    from cuadft.evaluation.figures import judges

    if done.published:
        table, deltas = done.published.table, done.published.deltas
        tables |= {"published.csv": table, "published_deltas.csv": _by_cluster(done, deltas)}
        faulty, confidence = faulty_systems(done.published.frame), done.settings["confidence"]
        figure = judges.published_figure(table, faulty=faulty, confidence=confidence, unit=done.pool.unit)
        drawn["published.png"] = figure


def _add_calibration(done: ScoredFiles, texts: dict, values: dict, drawn: dict) -> None:
    from cuadft.evaluation.figures import judges

    if done.calibration:
        values["calibration.json"] = done.calibration
        texts["calibration.md"] = calibration.calibration_markdown(done.calibration)
        drawn["calibration.png"] = judges.agreement_figure(done.calibration)


def scored_rows(done: ScoredFiles) -> pd.DataFrame:
    """Return one row per answer, in the order of the input: asked, answered and judged, then every metric."""
    given, frame = done.pool.predictions, done.frame
    texts = {
        "question": [p["question"] for p in given],
        "reference": [reference_text(p) for p in given],
        "answer": [p["answer"] for p in given],
    }
    judged = {"judge": frame["judge"], "judge_score": frame[done.judge_metric], "judge_verdict": frame["judge_verdict"]}
    measured = {m: frame[m] for m in metrics.METRICS if m in frame and m != "judge_score"}
    names = {"contract": "contract_name", "contract_type": "contract_type", "category": "category", "seed": "seed"}
    named = {c: [p[key] for p in given] for c, key in names.items() if any(p[key] for p in given)}
    judging = ("judge_votes", "judge_agreement", "judge_reason", "judge_error")
    rest = ("failed", *judging, *FRAME_COLUMNS.values())
    kept = {c: frame[c] for c in rest if c in frame and frame[c].notna().any()}
    return frame[["system"]].assign(**texts, **judged, **measured, **named, **kept, error=[p["error"] for p in given])


def _by_cluster(done: ScoredFiles, table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its column of contracts named after what was resampled, contracts or questions."""
    return table.rename(columns={"n_contracts": f"n_{done.pool.unit}s"})


def score_summary(done: ScoredFiles, shown: tuple[str, ...] = SUMMARY_METRICS, *, markdown: bool = False) -> str:
    """Return the scoreboard as a table to read: one line per system, value and interval of each metric shown.

    A metric that applies to no row is left out, and so is a metric over a part of the questions if this part is all.
    """
    board = done.scoreboard[done.scoreboard["n"] > 0]
    n = board.groupby("metric")["n"].sum()
    columns = [m for m in shown if m in n and not (m in PART_METRICS and n[m] == n["f1"])]
    lines = [["system", "answers", "failed", *(metrics.METRICS[m][0] for m in columns)]]
    for system in dict.fromkeys([ALWAYS_REFUSES, *done.pool.systems]):
        part, mine = board[board["system"] == system].set_index("metric"), done.frame[done.frame["system"] == system]
        cells = [_value_and_interval(part.loc[m]) if m in part.index else "-" for m in columns]
        counts = [f"{len(mine):,}", f"{int(mine['failed'].sum()):,}"] if len(mine) else ["-", "-"]  # nobody gave them
        lines.append([system, *counts, *cells])
    if markdown:
        return calibration.markdown_table(lines[0], lines[1:])
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _value_and_interval(row: pd.Series) -> str:
    interval = "" if row["low"] != row["low"] else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['value']:.3f}{interval}"


def score_markdown(done: ScoredFiles) -> str:
    """Return the report in plain words (Markdown)."""
    parts = [
        "# Scores",
        _counts_text(done),
        answer_files.pool_basis(done.pool),
        _bullets(done.pool.notes),
        "## Systems",
        score_summary(done, REPORT_METRICS, markdown=True),
        _intervals_text(done),
        "![Scores](benchmark.png)",
        "## Differences",
        _differences_text(done),
        "## The judge against others' verdicts",
        _calibration_text(done) if done.calibration else NO_VERDICTS,
    ]
    if done.published:
        parts += [
            "## Published results",
            "![Published beside recomputed](published.png)",
            "Computed from the rows and the printed means:",
            _bullets(done.published.findings),
        ]
        notes = done.published.notes
        parts += ["Known of the source, not computed:", _bullets(notes)] if notes else []
    return "\n\n".join(part for part in parts if part) + "\n"


def _calibration_text(done: ScoredFiles) -> str:
    shipped = shipped_fit()
    left_out = shipped["without_the_system"]["all"]
    fitted = (
        f"The offline judge was fitted to {shipped['n']} verdicts ({shipped['fitted_to']}). Where your verdicts are "
        "among them, the report flatters it: on a system left out of the fit, Spearman's correlation was "
        f"{left_out['spearman']:.2f} and Cohen's kappa {left_out['kappa']:.2f} over all rows."
    )
    warned = f"\n\n{fitted}" if done.judge == OFFLINE else ""
    return f"See [calibration.md](calibration.md).{warned}\n\n![Judge and verdicts](calibration.png)"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {calibration.escaped(line)}" for line in lines)


def _counts_text(done: ScoredFiles) -> str:
    failed, errors = int(done.frame["failed"].sum()), done.frame["judge_error"].notna().sum()
    offline = "the offline judge (features of the texts, no language model)"
    judge = offline if done.judge == OFFLINE else f"`{done.judge}`; beside it {offline}"
    counts = (
        f"{count_of(len(done.frame), 'answer')} of {count_of(len(done.pool.systems), 'system')} to "
        f"{count_of(done.frame['id'].nunique(), 'question')}. Failed generations (no answer): {failed:,}; they "
        f"score 0. Judge: {judge}. Judgements that failed: {errors:,}; they count nowhere. Columns:"
    )
    return f"{counts}\n\n{_bullets(columns_taken(done.files))}"


def _intervals_text(done: ScoredFiles) -> str:
    level, draws = f"{100 * done.settings['confidence']:g} %", done.settings["n_resamples"]
    return (
        f"In brackets: {level} intervals from {draws:,} bootstrap resamples of {done.pool.unit}s. All metrics "
        "are in `scoreboard.csv`, every answer is in `rows.csv`. `always_refuses` needs no model: a claim begins above "
        "what it scores. (Quoting the best passage, the other trivial system, needs passages, which answer files lack.)"
    )


def _differences_text(done: ScoredFiles) -> str:
    """Return which pairs of systems differ by more than the noise."""
    if not len(done.deltas):
        return "One system: nothing to compare."
    told = pairs_that_differ(done.deltas, done.settings["confidence"], MEASURE_NAMES)
    return f"{_bullets(told)}\n\nAll differences, paired by question, are in `deltas.csv`."
