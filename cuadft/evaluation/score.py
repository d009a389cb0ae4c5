"""Score answer files: what `cuadft score` does, from reading the files to writing the folder of results.

    done = score_files(["sft.csv", "dpo.csv"], out="scores")
    done.scoreboard, done.deltas, done.frame
    print(done.summary)

The folder holds rows, scoreboard, differences, a figure and a report. Everything is read and computed before the first
result is written, and each file is replaced in one step, so bad input leaves the results of an earlier call as they
are. Only an LLM judge's replies are kept as they come, in `judge_replies.jsonl`.

The *verdict* column of an answer file holds what others say of the answers; `agreement.csv` says how far the chosen
judge agrees with it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import ne
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.evaluation import answer_cells, answer_files, bootstrap, metrics
from cuadft.evaluation import published as others
from cuadft.evaluation.calibration import judge_agreement
from cuadft.evaluation.compare import paired_deltas
from cuadft.evaluation.constants import ALWAYS_REFUSES, constant_answers
from cuadft.evaluation.offline_judge import OfflineJudge, shipped_fit
from cuadft.evaluation.results import as_csv, save_figure, with_intervals
from cuadft.evaluation.scoreboard import make_scoreboard
from cuadft.evaluation.text_scores import NO_CLAUSE, READINGS, WHOLE
from cuadft.evaluation.verdicts import VERDICT_SCORES, judge_answers
from cuadft.models import usage

OFFLINE = "offline"
ALL_PAIRS = 12  # systems up to which every pair is tested; of more systems, each is tested against the first
OPTIONAL_FILES = {"agreement.csv", "published.csv", "published_deltas.csv", "published.png"}
SHOWN_METRICS = ["quote_f1", "detection_f1", "f1", "em", "reference_score", "judge_score"]  # in the summary
FIRST_COLUMNS = ["system", "question", "reference", "answer", "reference_score", "judge_score", "judge_verdict"]


@dataclass(frozen=True)
class ScoredFiles:
    """Hold what one call of `score_files` found: scored rows, scoreboard, paired differences, and what is told of them.

    unit: what intervals resampled, "contract" or "question". judge_metric: the metric of the chosen judge.
    """

    unit: str
    judge_metric: str
    frame: pd.DataFrame
    scoreboard: pd.DataFrame
    deltas: pd.DataFrame
    agreement: pd.DataFrame | None
    published: others.PublishedComparison | None
    summary: str


def score_files(
    paths: Sequence[str | Path] = (),
    *,
    published: str | Path = "",
    judge: str = OFFLINE,
    out: str | Path = "scores",
    columns: Mapping[str, str] | None = None,
    verdict: str = "",
    votes: int = 1,
    refusals: str = WHOLE,
    log: Callable[[str], object] = print,
    **resampling: Any,
) -> ScoredFiles:
    """Score answer files, write the results into `out` and return them; log gets each remark as a line.

    published: a folder for `read_published`, whose systems join those of `paths`. judge: "offline" (it scores in any
    case), or a LiteLLM id with an odd number of votes. columns: role -> column, see `read_answer_files`. verdict: a
    column of others' verdicts in `paths`, to hold the judge against. refusals: one of `text_scores.READINGS`.
    resampling: n_resamples, seed and confidence. Raises InputError for unreadable answers, settings out of range, a
    folder that can't be written, and a judge that gives no verdict at all.
    """
    _, _, confidence = bootstrap.check_resampling(**resampling)
    _check_settings([*paths, *filter(None, [str(published)])], judge, votes, refusals)
    found = _read_files(paths, columns or {}, verdict)
    theirs, means = others.read_published(published) if str(published) else ([], None)
    pool, folder = answer_files.join_files([*found, *theirs]), _made(Path(out).expanduser())
    remarks = [*map(str, [*found, *theirs]), answer_files.pool_basis(pool)]
    log("\n".join(remarks))
    own, everybody, judge_metric = _judged(pool, judge, votes, refusals, folder, log)
    log(said := _refusals_read(own, refusals))
    board = make_scoreboard(everybody, **resampling)
    split, compared = own["split"].iloc[0], list(dict.fromkeys(["quote_f1", "reference_score", judge_metric]))
    shared = {"metrics": compared, "split": split, "allow_partial": True}
    deltas = paired_deltas(own, _pairs(pool.systems), **shared, **resampling)
    agreement = _agreement(own, pool, judge_metric, resampling)
    beside = None if means is None else others.compare_published(means, own, **resampling)
    summary = _summary(everybody, board, deltas, agreement, beside)
    done = ScoredFiles(pool.unit, judge_metric, own, board, deltas, agreement, beside, summary)
    _write(done, folder, "\n".join([*remarks, said, "", summary, ""]), split=split, confidence=confidence)
    return done


def _check_settings(given: Sequence[str | Path], judge: str, votes: int, refusals: str) -> None:
    if not given:
        raise InputError("Nothing to score: name files of answers, or a folder with --published.")
    if not judge.strip():
        raise InputError(f"Invalid judge {judge!r}: give offline, or a LiteLLM id such as openai/gpt-4o.")
    if judge == OFFLINE and votes != 1:
        raise InputError(f"Invalid votes {votes!r}: the offline judge has one vote; name an LLM with --judge.")
    if refusals not in READINGS:
        raise InputError(f"Unknown reading of refusals {refusals!r}: choose one of {', '.join(READINGS)}.")


def _read_files(paths: Sequence[str | Path], columns: Mapping[str, str], verdict: str) -> list[answer_files.AnswerFile]:
    """Read the answer files; raises InputError if no file has the column of verdicts that is asked for."""
    asked = {role: name for role, name in columns.items() if name}
    found = answer_files.read_answer_files(paths, verdicts=[verdict] if verdict else [], **asked) if paths else []
    if verdict and not any(row["verdicts"] for file in found for row in file.rows):
        raise InputError(f"No verdict column {verdict!r}: name a column of {', '.join(map(str, paths))}.")
    return found


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"Can't write to {folder} ({error.strerror}): choose another folder with --out.") from error
    return folder


def _judged(
    pool: answer_files.Pool, judge: str, votes: int, reading: str, folder: Path, log: Callable
) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    """Return the scored and judged rows, the same after those of always refusing, and the chosen judge's metric."""
    judges: dict[str, Any] = {"reference_score": OfflineJudge(reading=reading)}
    if judge != OFFLINE:
        judges["judge_score"] = _language_model(judge, votes, folder)
    constant = [p for p in constant_answers(pool.predictions, {}) if ALWAYS_REFUSES not in pool.systems]
    rows = [*constant, *pool.predictions]
    frame = judge_answers(metrics.score_predictions(rows, reading=reading), rows, judges, log=log)
    if frame["judge_error"].notna().any() and not frame["judge_verdict"].isin(list(VERDICT_SCORES)).any():
        raise InputError(
            f"Judge {judge!r} rated no answer ({frame['judge_error'].dropna().iloc[0]}): check the id and the keys in "
            "the environment, or take --judge offline."
        )
    for row in usage.usage_table({name: getattr(one, "lm", None) for name, one in judges.items()}).to_dict("records"):
        log(usage.usage_line(row))
    named = {name: [p[name] for p in rows] for name in ("contract_name", "error")}
    for name in ("passages", "spans"):  # as JSON, so that a later call finds them
        if any(name in p for p in pool.predictions):
            named[name] = [json.dumps(p[name]) if name in p else None for p in rows]
    frame = frame.assign(reference=list(map(answer_cells.reference_cell, rows)), **named)
    return others.with_verdicts(frame.iloc[len(constant) :], pool.predictions), frame, list(judges)[-1]


def _refusals_read(own: pd.DataFrame, reading: str) -> str:
    """Return how many answers refuse by the chosen reading, and on how many rows each other reading differs."""
    answers = own.loc[~own["failed"], "answer"]
    read = {name: [refuses(answer) for answer in answers] for name, refuses in READINGS.items()}
    differ = {name: sum(map(ne, found, read[reading])) for name, found in read.items() if name != reading}
    others = ", ".join(f"{sum(read[name])} by {name} (other on {rows})" for name, rows in differ.items())
    return (
        f"Refusals: {sum(read[reading])} of {answer_files.count_of(len(answers), 'answer')}, by the reading {reading} "
        f"in every metric (--refusals); {others}. whole: the answer says that there is no such clause, in any words, "
        f"and no more, or has no word; sentence: only {NO_CLAUSE!r}, or no word; judge: also one that begins with a "
        "denial and goes on."
    )


def _language_model(name: str, votes: int, folder: Path) -> Any:
    from cuadft.evaluation.judge import LMJudge  # with DSPy, which takes seconds to import
    from cuadft.models.api import remote

    return LMJudge(remote(name, replies=folder / "judge_replies.jsonl"), votes=votes)


def _pairs(systems: Sequence[str]) -> list[tuple[str, str]]:
    pairs = itertools.combinations(systems, 2)
    return [pair for pair in pairs if len(systems) <= ALL_PAIRS or pair[0] == systems[0]]


def _agreement(
    own: pd.DataFrame, pool: answer_files.Pool, judge_metric: str, resampling: dict[str, Any]
) -> pd.DataFrame | None:
    """Return the chosen judge's agreement with the verdicts in the files, None without verdicts.

    A row's verdict is that of the column asked for, else the published one from 0 to 1, else the published true/false.
    """
    given = pd.DataFrame([p["verdicts"] for p in pool.predictions], index=own.index, dtype=float)
    given = given[sorted(given, key=lambda name: (name in others.FRAME_COLUMNS, name != "judge_score"))]
    rows = own.assign(verdict=given.bfill(axis=1).iloc[:, 0] if len(given.columns) else None)
    rows = rows.dropna(subset="verdict")
    return judge_agreement(rows, score=judge_metric, verdict="verdict", **resampling) if len(rows) else None


def _summary(
    frame: pd.DataFrame,
    board: pd.DataFrame,
    deltas: pd.DataFrame,
    agreement: pd.DataFrame | None,
    compared: others.PublishedComparison | None,
) -> str:
    """Return scoreboard, differences and agreement as tables to read; all other metrics are in scoreboard.csv."""
    ends = {"low": "value_low", "high": "value_high"}
    shown = with_intervals(board[(board["n"] > 0) & board["metric"].isin(SHOWN_METRICS)].rename(columns=ends))
    cells = shown.pivot(index="system", columns="metric", values="value")
    cells = cells[[metric for metric in SHOWN_METRICS if metric in cells]]
    counts = frame.groupby("system", sort=False)["failed"].agg(answers="size", failed="sum")
    parts = [counts.join(cells).fillna("-").rename(columns={m: label for m, (label, _) in metrics.METRICS.items()})]
    parts += ["always_refuses needs no model: a claim begins above what it scores."]
    if len(deltas):
        tested = with_intervals(deltas.rename(columns=ends)).round(3)
        parts += [tested[["baseline", "system", "metric", "value", "n", "p_holm"]].set_index(["baseline", "system"])]
    if agreement is not None:
        fitted = f"The offline judge was fitted to {shipped_fit()['fitted_to']}: agreement with these is no test."
        parts += [with_intervals(agreement).set_index("system"), fitted]
    if compared and compared.faulty:
        parts += [f"True/false verdicts left out, a fault of their parser: {', '.join(compared.faulty)}."]
    return "\n\n".join(part if isinstance(part, str) else part.to_string() for part in parts)


def _write(done: ScoredFiles, folder: Path, report: str, *, split: str, confidence: float) -> None:
    """Write the results, each file in one step; remove those of an earlier call that don't apply."""
    from cuadft.evaluation.figures import published, scores

    settings = {"confidence": confidence, "unit": done.unit}
    shown = [m for m in ("quote_f1", done.judge_metric) if m in set(done.scoreboard["metric"])]
    more = {**settings, "detectable": done.deltas if len(done.deltas) else None}
    first = [name for name in FIRST_COLUMNS if name in done.frame]
    rows = done.frame.assign(contract=done.frame["contract_name"]).drop(columns="contract_name")
    rows = rows.assign(answer=rows["answer"].map(answer_cells.answer_cell, na_action="ignore"))
    found: dict[str, Any] = {
        "rows.csv": rows[[*first, *rows.columns.difference(first, sort=False)]],
        "scoreboard.csv": done.scoreboard,
        "deltas.csv": done.deltas,
        "benchmark.png": scores.panels_figure(done.scoreboard, shown, split, **more),
        "report.txt": report,
    }
    if done.published:
        found["published.csv"], found["published_deltas.csv"] = done.published.table, done.published.deltas
        faulty = done.published.faulty
        found["published.png"] = published.published_figure(done.published.table, faulty=faulty, **settings)
    if done.agreement is not None:
        found["agreement.csv"] = done.agreement
    for name, content in found.items():
        if isinstance(content, pd.DataFrame):  # n_contracts is named after what was resampled
            content = as_csv(content.rename(columns={"n_contracts": f"n_{done.unit}s"}))
        write = save_figure if name.endswith(".png") else files.write_text
        write(folder / name, content)
    for name in OPTIONAL_FILES - found.keys():
        (folder / name).unlink(missing_ok=True)  # of an earlier call: it would be read as one of this call
