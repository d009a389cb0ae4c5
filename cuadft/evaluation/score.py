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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.evaluation import answer_files, bootstrap, calibration, metrics
from cuadft.evaluation import published as others
from cuadft.evaluation.answer_files import count_of
from cuadft.evaluation.compare import paired_deltas, pairs_that_differ
from cuadft.evaluation.constants import ALWAYS_REFUSES, constant_answers
from cuadft.evaluation.offline_judge import Encode, OfflineJudge, shipped_fit
from cuadft.evaluation.results import as_csv, save_figure
from cuadft.evaluation.scoreboard import make_scoreboard
from cuadft.evaluation.verdicts import VERDICT_SCORES, reference_text
from cuadft.models import usage

OFFLINE = "offline"
METRIC_OF_JUDGE = {OFFLINE: "reference_score"}  # any other judge is an LLM, whose metric is "judge_score"
ALL_PAIRS = 12  # systems up to which every pair is tested; of more systems, each is tested against the first
ROLES_NAMED = ("question", "reference", "answer", "system", "contract")  # roles whose columns the output names
PUBLISHED_VERDICTS = ("judge_score", "judge_bool")  # verdict columns of a published folder, the better one first
OPTIONAL_FILES = {"calibration.json", "calibration.md", "published.csv", "published_deltas.csv", "published.png"}
SHOWN_METRICS = (  # in the summary and the report; all others are in scoreboard.csv
    *("quote_f1", "detection_f1", "f1", "f1_answerable", "em", "reference_score", "judge_score"),
    *("false_answer", "false_refusal"),
)


@dataclass(frozen=True)
class ScoredFiles:
    """Hold what one call of `score_files` found: scored rows, scoreboard, paired differences, and their sources."""

    pool: answer_files.Pool
    judge: str  # "offline" or an LLM's id, as asked for
    settings: dict[str, Any]
    columns: list[str]  # which columns of which file were taken for what
    frame: pd.DataFrame = field(repr=False)
    scoreboard: pd.DataFrame = field(repr=False)
    deltas: pd.DataFrame = field(repr=False)
    calibration: dict[str, Any] | None = field(repr=False)
    published: others.PublishedComparison | None = field(repr=False)
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
    bootstrap.check_resampling(**settings)
    if judge == OFFLINE and votes != 1:
        raise InputError(f"Invalid votes {votes!r}: the offline judge has one vote; name an LLM with --judge.")
    found, seen = _read_all(paths, published, columns or {}, verdict)
    pool, taken = answer_files.join_files(found), [_columns_taken(file) for file in found]
    folder = _writable(Path(out).expanduser())
    for line in (*taken, *pool.notes, answer_files.pool_basis(pool)):
        log(line)
    frame = others.with_verdicts(_judge_rows(pool, judge, folder, votes, encode, log), pool.predictions)
    metric = METRIC_OF_JUDGE.get(judge, "judge_score")
    compared = {"metrics": list(dict.fromkeys(["quote_f1", "reference_score", metric])), "split": pool.split}
    done = ScoredFiles(
        pool=pool,
        judge=judge,
        settings=settings,
        columns=taken,
        frame=frame,
        scoreboard=pd.concat([_refuser_board(pool, settings), make_scoreboard(frame, **settings)], ignore_index=True),
        deltas=paired_deltas(frame, _pairs(pool.systems), allow_partial=True, **compared, **settings),
        calibration=_calibration_report(pool, frame, metric, settings),
        published=others.compare_published(seen, frame, **settings) if seen else None,
        out=folder,
    )
    write_scored(done)
    return done


def _read_all(
    paths: Sequence[str | Path], published: str | Path, columns: Mapping[str, str], verdict: str
) -> tuple[list[answer_files.AnswerFile], others.PublishedAnswers | None]:
    if not paths and not str(published):
        raise InputError("Nothing to score: name files of answers, or a folder with --published.")
    asked = {role: name for role, name in columns.items() if name}
    found = answer_files.read_answer_files(paths, verdicts=[verdict] if verdict else [], **asked)
    if verdict and not any(row["verdicts"] for file in found for row in file.rows):
        raise InputError(f"No verdict column {verdict!r}: name a column of {', '.join(map(str, paths))}.")
    seen = others.read_published(published) if str(published) else None
    return [*found, *(seen.files if seen else [])], seen


def _columns_taken(file: answer_files.AnswerFile) -> str:
    roles = ", ".join(f"{role} from {file.columns[role]!r}" for role in ROLES_NAMED if role in file.columns)
    return f"{file.path.name} ({count_of(len(file.rows), 'row')}): {roles}."


def _writable(folder: Path) -> Path:
    try:
        files.write_text(folder / ".writable", "")
        (folder / ".writable").unlink()
    except OSError as error:
        raise InputError(f"Can't write to {folder} ({error.strerror}): choose another folder with --out.") from error
    return folder


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
        first = f"(first error: {errors.iloc[0]})" if len(errors) else ""
        if first and not verdicts["judge_verdict"].isin(list(VERDICT_SCORES)).any():
            raise InputError(
                f"Judge {name!r} rated none of {len(errors)} answers {first}: check the id and the keys in the "
                "environment, or take --judge offline."
            )
        if first:
            log(f"Judge {name!r}: {len(errors)} of {len(verdicts)} judgements failed {first}.")
        for row in usage.usage_table({name: getattr(one, "lm", None)}).to_dict("records"):
            log(usage.usage_line(row))
        frame[METRIC_OF_JUDGE.get(name, "judge_score")] = verdicts["judge_score"]
    return frame.assign(judge=one.name).join(verdicts.drop(columns="judge_score"))


def _language_model(name: str, votes: int, folder: Path) -> Any:
    from cuadft.evaluation.judge import LMJudge  # with DSPy, which takes seconds to import
    from cuadft.models.api import remote

    if not name.strip():
        raise InputError(f"Invalid judge {name!r}: give offline, or a LiteLLM id such as openai/gpt-4o.")
    return LMJudge(remote(name), votes=votes, cache=folder / "verdicts.jsonl")


def _refuser_board(pool: answer_files.Pool, settings: dict[str, Any]) -> pd.DataFrame | None:
    """Return the scoreboard of always refusing the same questions; None if a system of the files has that name."""
    if ALWAYS_REFUSES in pool.systems:
        return None
    rows = [p for p in constant_answers(pool.predictions, {}) if p["system"] == ALWAYS_REFUSES]
    frame = metrics.score_predictions(rows)
    frame[METRIC_OF_JUDGE[OFFLINE]] = OfflineJudge().rate(rows)["judge_score"].to_numpy()
    return make_scoreboard(frame, **settings)


def _pairs(systems: Sequence[str]) -> list[tuple[str, str]]:
    pairs = itertools.combinations(systems, 2)
    return [pair for pair in pairs if len(systems) <= ALL_PAIRS or pair[0] == systems[0]]


def _calibration_report(
    pool: answer_files.Pool, frame: pd.DataFrame, metric: str, settings: dict[str, Any]
) -> dict[str, Any] | None:
    """Return the chosen judge's agreement with the verdicts in the files, None without verdicts.

    A row's verdict is that of the column asked for, else the published one from 0 to 1, else the published true/false.
    """
    given = pd.DataFrame([p["verdicts"] for p in pool.predictions], index=frame.index, dtype=float)
    order = [*given.columns.difference(PUBLISHED_VERDICTS), *(name for name in PUBLISHED_VERDICTS if name in given)]
    given = given[order].dropna(how="all")
    if given.empty:
        return None
    score, verdict = frame["judge"].iloc[0], f"verdicts ({', '.join(sorted(set(given.notna().idxmax(axis=1))))})"
    by = ["contract"] if pool.unit == "contract" else []
    rows = frame.loc[given.index, ["system", "question", "answer", "failed", "judge_verdict", *by]]
    rows = rows.assign(**{score: frame[metric], verdict: given.bfill(axis=1).iloc[:, 0]})
    return calibration.calibration_report(rows, score=score, verdict=verdict, **settings)


def write_scored(done: ScoredFiles) -> None:
    """Write the results into `done.out`, each file in one step; remove reports of an earlier call that don't apply."""
    from cuadft.evaluation.figures import judges, scores

    settings = {"confidence": done.settings["confidence"], "unit": done.pool.unit}
    shown = [m for m in ("quote_f1", done.judge_metric) if m in set(done.scoreboard["metric"])]
    more = {**settings, "detectable": done.deltas if len(done.deltas) else None}
    found: dict[str, Any] = {
        "rows.csv": scored_rows(done),
        "scoreboard.csv": _by_cluster(done, done.scoreboard),
        "deltas.csv": _by_cluster(done, done.deltas),
        "benchmark.png": scores.panels_figure(done.scoreboard, shown, done.pool.split, **more),
        "report.md": score_markdown(done),
    }
    if done.published:
        faulty = others.faulty_systems(done.published.frame)
        found["published.csv"] = done.published.table
        found["published_deltas.csv"] = _by_cluster(done, done.published.deltas)
        found["published.png"] = judges.published_figure(done.published.table, faulty=faulty, **settings)
    if done.calibration:
        found["calibration.json"] = done.calibration
        found["calibration.md"] = calibration.calibration_markdown(done.calibration)
    writers = {".json": files.write_json, ".md": files.write_text, ".png": lambda path, it: save_figure(it, path)}
    writers[".csv"] = lambda path, table: files.write_text(path, as_csv(table))
    for name, content in found.items():
        writers[Path(name).suffix](done.out / name, content)
    for name in OPTIONAL_FILES - found.keys():
        (done.out / name).unlink(missing_ok=True)  # of an earlier call: it would be read as one of this call


def scored_rows(done: ScoredFiles) -> pd.DataFrame:
    """Return one row per answer, in the order of the input: asked, answered and judged, then every metric."""
    given, frame = pd.DataFrame(done.pool.predictions, index=done.frame.index), done.frame
    measured = [m for m in metrics.METRICS if m in frame and m != "judge_score"]
    named = given[["contract_name", "contract_type", "category", "seed"]].rename(columns={"contract_name": "contract"})
    rest = ("failed", "judge_votes", "judge_agreement", "judge_reason", "judge_error", *others.FRAME_COLUMNS.values())
    return frame[["system"]].assign(
        question=given["question"],
        reference=[reference_text(p) for p in done.pool.predictions],
        answer=given["answer"],
        judge=frame["judge"],
        judge_score=frame[done.judge_metric],
        judge_verdict=frame["judge_verdict"],
        **frame[measured],
        **named.loc[:, named.astype(bool).any()],
        **{name: frame[name] for name in rest if name in frame and frame[name].notna().any()},
        error=given["error"],
    )


def _by_cluster(done: ScoredFiles, table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with its column of contracts named after what was resampled, contracts or questions."""
    return table.rename(columns={"n_contracts": f"n_{done.pool.unit}s"})


def score_summary(done: ScoredFiles, *, markdown: bool = False) -> str:
    """Return the scoreboard as a table to read: one line per system, value and interval of each of `SHOWN_METRICS`.

    A metric that applies to no row is left out, and so is that of the questions with a clause if these are all.
    """
    board = done.scoreboard[done.scoreboard["n"] > 0]
    n = board.groupby("metric")["n"].sum()
    columns = [m for m in SHOWN_METRICS if m in n and not (m == "f1_answerable" and n[m] == n["f1"])]
    texts = [f"{row.value:.3f} [{row.low:.2f}, {row.high:.2f}]" for row in board.itertuples()]
    texts = [text.replace(" [nan, nan]", "") for text in texts]
    cells = board.assign(text=texts).pivot(index="system", columns="metric", values="text")[columns]
    counts = done.frame.groupby("system")["failed"].agg(answers="size", failed="sum").map("{:,}".format)
    systems = list(dict.fromkeys([ALWAYS_REFUSES, *done.pool.systems]))
    table = counts.join(cells, how="outer").reindex(systems).fillna("-").reset_index(names="system")
    table = table.rename(columns={m: metrics.METRICS[m][0] for m in columns})
    if markdown:
        return calibration.markdown_table(list(table), table.to_numpy().tolist())
    return table.to_string(index=False)


def score_markdown(done: ScoredFiles) -> str:
    """Return the report in plain words (Markdown)."""
    failed, errors = int(done.frame["failed"].sum()), done.frame["judge_error"].notna().sum()
    told = pairs_that_differ(done.deltas, done.settings["confidence"], others.MEASURE_NAMES)
    parts = [
        "# Scores",
        f"{count_of(len(done.frame), 'answer')} of {count_of(len(done.pool.systems), 'system')} to "
        f"{count_of(done.frame['id'].nunique(), 'question')}. Failed generations (no answer): {failed:,}; they "
        f"score 0. Judge: `{done.judge}`; `reference_score` is the offline judge's in any case. Judgements that "
        f"failed: {errors:,}; they count nowhere. Columns:",
        _bullets(done.columns),
        answer_files.pool_basis(done.pool),
        _bullets(done.pool.notes),
        "## Systems",
        score_summary(done, markdown=True),
        f"In brackets: {100 * done.settings['confidence']:g} % intervals from {done.settings['n_resamples']:,} "
        f"resamples of {done.pool.unit}s. All metrics are in `scoreboard.csv`, every answer is in `rows.csv`. "
        "`always_refuses` needs no model: a claim begins above what it scores.",
        "![Scores](benchmark.png)",
        "## Differences",
        _bullets(told) or "One system: nothing to compare.",
        "All differences, paired by question, are in `deltas.csv`.",
        "## The judge against others' verdicts",
        _calibration_text(done),
    ]
    if done.published:
        parts += ["## Published results", "![Published beside recomputed](published.png)"]
        parts += ["Computed from the rows and the printed means:", _bullets(done.published.findings)]
        if done.published.notes:
            parts += ["Known of the source, not computed:", _bullets(done.published.notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _calibration_text(done: ScoredFiles) -> str:
    if not done.calibration:
        return "There are no verdicts of others, so no calibration report: name their column with --verdict COLUMN."
    fitted = f"The offline judge was fitted to {shipped_fit()['fitted_to']}: agreement with these verdicts is no test."
    return f"See [calibration.md](calibration.md). {fitted}"


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {calibration.escaped(line)}" for line in lines)
