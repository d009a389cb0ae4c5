"""Score answer files: what `cuadft score` does, from reading the files to writing the folder of results.

    done = scoring.score(["sft.csv", "dpo.csv"], out="scores")
    done.scoreboard, done.deltas, done.frame

Everything is read and computed before the first result is written, and each file is replaced in one step: bad input
leaves the results of an earlier call as they are. Only an LLM judge's verdicts are kept as they come.

What `cuadft score` writes and prints: rows, scoreboard, differences, figures, a report in plain words.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.evaluation import agreement, answer_files, bootstrap, metrics
from cuadft.evaluation.answer_files import count_of
from cuadft.evaluation.judge import reference_text
from cuadft.evaluation.results import as_csv, save_figure
from cuadft.models import usage

if TYPE_CHECKING:
    import pandas as pd

    from cuadft.evaluation.offline_judge import Encode
    from cuadft.evaluation.published import Published, Results


OFFLINE = "offline"
SCORES = {OFFLINE: "reference_score"}  # judge -> its metric; any other judge is an LLM's, "judge_score"
TOLD = ("question", "reference", "answer", "system", "contract")  # columns named in the output
PUBLISHED = ("judge_score", "judge_bool")  # verdict columns of a published folder, the better one first
ALL_PAIRS = 12  # systems up to which every pair is tested; beyond, each against the first


@dataclass(frozen=True)
class ScoredFiles:
    """Hold what one call of `score` found; frame, scoreboard and deltas come from the modules of these names."""

    pool: answer_files.Pool
    judge: str  # as asked for: "offline" or an id
    settings: dict[str, Any]
    files: list[answer_files.AnswerFile] = field(repr=False)
    frame: pd.DataFrame = field(repr=False)
    scoreboard: pd.DataFrame = field(repr=False)
    deltas: pd.DataFrame = field(repr=False)
    calibration: dict[str, Any] | None = field(repr=False)
    published: Results | None = field(repr=False)
    out: Path

    @property
    def judged(self) -> str:
        """The metric that the chosen judge gave."""
        return SCORES.get(self.judge, "judge_score")


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

    published: a folder for `published.read`, whose systems join those of `paths`. judge: "offline", or a LiteLLM id;
    the offline judge rates in any case. columns: role -> column, see `answers.read`; verdict: a column of others'
    verdicts in `paths`, for the calibration report (a published folder has its own). encode: texts to unit
    vectors, one more feature for the offline judge. Raises InputError for unreadable answers, settings out of range, a folder that can't be written, and
    a judge that rates nothing.
    """
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    _check(settings, paths, published, judge, votes)
    found, seen = _read(paths, published, columns or {}, verdict)
    pool = answer_files.join_files(found)
    folder = _writable(Path(out).expanduser())
    for line in _remarks(found, pool):
        log(line)
    frame = _rated(pool, judge, folder, votes, encode, log)
    done = _summed(pool, frame, judge, settings, found, seen, folder)
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
            f"Invalid votes {votes!r}: the offline judge has one verdict. Leave --votes out, or name an "
            "LLM with --judge."
        )
    bootstrap.check_resampling(settings["n_resamples"], settings["confidence"])
    if settings["seed"] < 0:
        raise InputError(f"Invalid seed {settings['seed']!r}: give a whole number from 0.")


def _read(
    paths: Sequence[str | Path], published: str | Path, columns: Mapping[str, str], verdict: str
) -> tuple[list[answer_files.AnswerFile], Published | None]:
    from cuadft.evaluation.published import read_published

    asked = {role: name for role, name in columns.items() if name}
    found = answer_files.read_answer_file(paths, verdicts=[verdict] if verdict else [], **asked)
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
        taken = ", ".join(f"{role} from {file.columns[role]!r}" for role in TOLD if role in file.columns)
        alike.setdefault(taken, []).append(file)
    return [
        f"{', '.join(f.path.name for f in files)} ({count_of(sum(len(f.rows) for f in files), 'row')}): {taken}."
        for taken, files in alike.items()
    ]


def _rated(
    pool: answer_files.Pool, judge: str, folder: Path, votes: int, encode: Encode | None, log: Callable
) -> pd.DataFrame:
    """Return the scored rows in the order of the input, the judges' scores and the chosen one's name and verdicts."""
    from cuadft.evaluation.offline_judge import OfflineJudge

    raters: dict[str, Any] = {OFFLINE: OfflineJudge(encode)}  # both, before any of them begins
    raters |= {} if judge == OFFLINE else {judge: _language_model(judge, votes, folder)}
    frame = metrics.score_predictions(pool.predictions)
    for name, rater in raters.items():
        ratings = rater.rate(pool.predictions)
        errors = ratings["judge_error"].dropna().map(lambda text: " ".join(text.split()))
        if len(errors) and not ratings["judge_verdict"].isin(["correct", "partly", "incorrect"]).any():
            raise InputError(
                f"Judge {name!r} rated none of {len(errors)} answers (first error: {errors.iloc[0]}): "
                "check the id and the keys in the environment, or take --judge offline."
            )
        if len(errors):
            log(f"Judge {name!r}: {len(errors)} of {len(ratings)} judgements failed (first error: {errors.iloc[0]}).")
        for row in usage.usage_table({name: getattr(rater, "lm", None)}).to_dict("records"):
            log(usage.usage_line(row))
        frame[SCORES.get(name, "judge_score")] = ratings["judge_score"]
    return frame.assign(judge=rater.name).join(ratings.drop(columns="judge_score"))


def _language_model(name: str, votes: int, folder: Path) -> Any:
    from cuadft.evaluation.judge import LMJudge
    from cuadft.models.api import remote

    return LMJudge(remote(name), votes=votes, cache=folder / "verdicts.jsonl")


def _summed(
    pool: answer_files.Pool,
    frame: pd.DataFrame,
    judge: str,
    settings: dict[str, Any],
    found: list[answer_files.AnswerFile],
    seen: Published | None,
    folder: Path,
) -> ScoredFiles:
    """Return the scoreboard, the paired tests, the calibration and the published comparison of the scored rows."""
    from cuadft.evaluation.compare import paired_deltas
    from cuadft.evaluation.published import compare_published, with_verdicts
    from cuadft.evaluation.scoreboard import make_scoreboard

    judged = ["f1", *dict.fromkeys((SCORES[OFFLINE], SCORES.get(judge, "judge_score")))]
    board = make_scoreboard(frame, **settings)
    pairs = _pairs(pool.systems)
    tests = paired_deltas(frame, pairs, metrics=judged, split=pool.split, allow_partial=True, **settings)
    frame = with_verdicts(frame, pool.predictions)
    results = compare_published(seen, frame, **settings) if seen else None
    agreed = _calibration(pool, frame, judge, settings)
    return ScoredFiles(pool, judge, settings, found, frame, board, tests, agreed, results, folder)


def _pairs(systems: Sequence[str]) -> list[tuple[str, str]]:
    if len(systems) <= ALL_PAIRS:
        return list(itertools.combinations(systems, 2))
    return [(systems[0], system) for system in systems[1:]]


def _calibration(
    pool: answer_files.Pool, frame: pd.DataFrame, judge: str, settings: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the chosen judge's agreement with the verdicts in the files, None without verdicts."""
    import pandas as pd

    from cuadft.evaluation import agreement

    given = [_given(p["verdicts"]) for p in pool.predictions]
    names = sorted({name for name, _ in given if name})
    if not names:
        return None
    score, verdict = frame["judge"].iloc[0], f"verdicts ({', '.join(names)})"
    rows = frame[["system", "question", "answer", "failed", "judge_verdict"]].assign(
        **{score: frame[SCORES.get(judge, "judge_score")], verdict: pd.Series([v for _, v in given], dtype=float)}
    )
    rows = rows.assign(contract=frame["contract"]) if pool.unit == "contract" else rows
    return agreement.calibration_report(
        rows[[bool(name) for name, _ in given]], score=score, verdict=verdict, **settings
    )


def _given(verdicts: Mapping[str, float]) -> tuple[str, float]:
    """Return a row's one verdict and its column: the one asked for, else the published score from 0 to 1."""
    order = [*(name for name in verdicts if name not in PUBLISHED), *PUBLISHED]
    return next(((n, verdicts[n]) for n in order if not math.isnan(verdicts.get(n, math.nan))), ("", math.nan))


CALIBRATION = ("calibration.json", "calibration.md", "calibration.png")
PUBLISHED_FILES = ("published.csv", "published_deltas.csv", "published.png")
SHORT = ("f1", "f1_answerable", "reference_score", "judge_score", "false_answer", "false_refusal")
SHOWN = (
    "f1",
    "f1_answerable",
    "em",
    "rouge_l",
    "span_f1",
    "reference_score",
    "judge_score",
    "abstention_precision",
    "abstention_recall",
    "false_answer",
    "false_refusal",
)
PARTS = ("f1_answerable", "f1_no_clause", "em_answerable")  # of a part of the questions
NO_VERDICTS = (
    "No verdicts of others are in the files, so there is no calibration report: name their column with "
    "--verdict COLUMN."
)


def write_scored(done: ScoredFiles) -> None:
    """Write the results into `done.out`, each file in one step; reports of an earlier call that don't apply go."""
    from cuadft.evaluation.figures import scores

    unit, confidence = done.pool.unit, done.settings["confidence"]
    least = done.deltas if len(done.deltas) else None
    tables = {
        "rows.csv": scored_rows(done),
        "scoreboard.csv": _by_cluster(done, done.scoreboard),
        "deltas.csv": _by_cluster(done, done.deltas),
    }
    shown = [m for m in ("f1", done.judged) if m in set(done.scoreboard["metric"])]
    drawn = {
        "benchmark.png": scores.panels_figure(
            done.scoreboard, shown, done.pool.split, confidence=confidence, unit=unit, detectable=least
        )
    }
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
    for name in {*CALIBRATION, *PUBLISHED_FILES} - {*tables, *drawn, *texts, *values}:
        (done.out / name).unlink(missing_ok=True)  # of an earlier call: would be read as one of this


def _add_published(done: ScoredFiles, tables: dict, drawn: dict) -> None:
    from cuadft.evaluation.figures import judges
    from cuadft.evaluation.published import faulty_systems

    if done.published:
        table, deltas = done.published.table, done.published.deltas
        tables |= {"published.csv": table, "published_deltas.csv": _by_cluster(done, deltas)}
        faulty, confidence = faulty_systems(done.published.frame), done.settings["confidence"]
        figure = judges.published_figure(table, faulty=faulty, confidence=confidence, unit=done.pool.unit)
        drawn["published.png"] = figure


def _add_calibration(done: ScoredFiles, texts: dict, values: dict, drawn: dict) -> None:
    from cuadft.evaluation import agreement
    from cuadft.evaluation.figures import judges

    if done.calibration:
        values["calibration.json"] = done.calibration
        texts["calibration.md"] = agreement.calibration_markdown(done.calibration)
        drawn["calibration.png"] = judges.agreement_figure(done.calibration)


def scored_rows(done: ScoredFiles) -> pd.DataFrame:
    """Return one row per answer, in the order of the input: asked, answered and judged, then every metric."""
    given, frame = done.pool.predictions, done.frame
    texts = {
        "question": [p["question"] for p in given],
        "reference": [reference_text(p) for p in given],
        "answer": [p["answer"] for p in given],
    }
    judged = {"judge": frame["judge"], "judge_score": frame[done.judged], "judge_verdict": frame["judge_verdict"]}
    measured = {m: frame[m] for m in metrics.METRICS if m in frame and m != "judge_score"}
    names = {"contract": "contract_name", "contract_type": "contract_type", "category": "category", "seed": "seed"}
    named = {c: [p[key] for p in given] for c, key in names.items() if any(p[key] for p in given)}
    rest = (
        "failed",
        "judge_votes",
        "judge_agreement",
        "judge_reason",
        "judge_error",
        "published_bool",
        "published_score",
    )
    kept = {c: frame[c] for c in rest if c in frame and frame[c].notna().any()}
    return frame[["system"]].assign(**texts, **judged, **measured, **named, **kept, error=[p["error"] for p in given])


def _by_cluster(done: ScoredFiles, table: pd.DataFrame) -> pd.DataFrame:
    """Return a table whose column of contracts says what was resampled: contracts, or questions."""
    return table.rename(columns={"n_contracts": f"n_{done.pool.unit}s"})


def score_summary(done: ScoredFiles, shown: tuple[str, ...] = SHORT, *, markdown: bool = False) -> str:
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
        return agreement.markdown_table(lines[0], lines[1:])
    widths = [max(map(len, column)) for column in zip(*lines)]
    return "\n".join("  ".join(map(str.ljust, line, widths)).rstrip() for line in lines)


def _cell(row: pd.Series) -> str:
    interval = "" if row["low"] != row["low"] else f" [{row['low']:.2f}, {row['high']:.2f}]"
    return f"{row['value']:.3f}{interval}"


def score_markdown(done: ScoredFiles) -> str:
    """Return the report in plain words (Markdown)."""
    parts = [
        "# Scores",
        _counts(done),
        answer_files.pool_basis(done.pool),
        _bullets(done.pool.notes),
        "## Systems",
        score_summary(done, SHOWN, markdown=True),
        _reading(done),
        "![Scores](benchmark.png)",
        "## Differences",
        _differences(done),
        "## The judge against others' verdicts",
        _calibrated(done) if done.calibration else NO_VERDICTS,
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


def _calibrated(done: ScoredFiles) -> str:
    from cuadft.evaluation import offline_judge

    shipped = offline_judge.shipped_weights()
    left_out = shipped["without_the_system"]["all"]
    fitted = (
        f"The offline judge was fitted to {shipped['n']} verdicts ({shipped['fitted_to']}). Where these are among them, "
        f"the report flatters it: on a system left out of the fit, Spearman's correlation was {left_out['spearman']:.2f} "
        f"and Cohen's kappa {left_out['kappa']:.2f} over all rows."
    )
    warned = f"\n\n{fitted}" if done.judge == "offline" else ""
    return f"See [calibration.md](calibration.md).{warned}\n\n![Judge and verdicts](calibration.png)"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {agreement.escaped(line)}" for line in lines)


def _counts(done: ScoredFiles) -> str:
    failed, errors = int(done.frame["failed"].sum()), done.frame["judge_error"].notna().sum()
    offline = "the offline judge (features of the texts, no language model)"
    judge = offline if done.judge == "offline" else f"`{done.judge}`; beside it {offline}"
    counts = (
        f"{count_of(len(done.frame), 'answer')} of {count_of(len(done.pool.systems), 'system')} to "
        f"{count_of(done.frame['id'].nunique(), 'question')}. Failed generations (no answer): {failed:,}; they "
        f"score 0. Judge: {judge}. Judgements that failed: {errors:,}; they count nowhere. Columns:"
    )
    return f"{counts}\n\n{_bullets(columns_taken(done.files))}"


def _reading(done: ScoredFiles) -> str:
    level, draws = f"{100 * done.settings['confidence']:g} %", done.settings["n_resamples"]
    return (
        f"In brackets: {level} intervals from {draws:,} bootstrap resamples of {done.pool.unit}s. All metrics "
        "are in `scoreboard.csv`, every answer is in `rows.csv`."
    )


def _differences(done: ScoredFiles) -> str:
    """Return which pairs of systems differ by more than the noise."""
    from cuadft.evaluation.published import families

    if not len(done.deltas):
        return "One system: nothing to compare."
    told = families(done.deltas, done.settings["confidence"])
    return f"{_bullets(told)}\n\nAll differences, paired by question, are in `deltas.csv`."
