"""Score answer files: what `cuadft score` does, from reading the files to writing the folder of results.

    done = scoring.score(["sft.csv", "dpo.csv"], out="scores")
    done.scoreboard, done.deltas, done.frame

Everything is read and computed before the first result is written, and each file is replaced in one step: bad input
leaves the results of an earlier call as they are. Only an LLM judge's verdicts are kept as they come.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft import answers, files, metrics, pooled, score_report, stats, usage
from cuadft.errors import InputError
from cuadft.pooled import counted

if TYPE_CHECKING:
    import pandas as pd

    from cuadft.published import Published, Results

OFFLINE = "offline"
SCORES = {OFFLINE: "reference_score"}  # judge -> its metric; any other judge is an LLM's, "judge_score"
TOLD = ("question", "reference", "answer", "system", "contract")  # columns named in the output
PUBLISHED = ("judge_score", "judge_bool")  # verdict columns of a published folder, the better one first
ALL_PAIRS = 12  # systems up to which every pair is tested; beyond, each against the first


@dataclass(frozen=True)
class Scored:
    """Hold what one call of `score` found; frame, scoreboard and deltas come from the modules of these names."""

    pool: pooled.Pool
    judge: str  # as asked for: "offline" or an id
    settings: dict[str, Any]
    files: list[answers.AnswerFile] = field(repr=False)
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


def score(paths: Sequence[str | Path] = (), *, published: str | Path = "", judge: str = OFFLINE,
          out: str | Path = "scores", columns: Mapping[str, str] | None = None, verdict: str = "", votes: int = 1,
          embedder: str = "", n_resamples: int = 2000, confidence: float = 0.95, seed: int = 7,
          log: Callable[[str], object] = print) -> Scored:  # fmt: skip
    """Score answer files, write the results into `out` and return them.

    published: a folder for `published.read`, whose systems join those of `paths`. judge: "offline", or a LiteLLM id;
    the offline judge rates in any case. columns: role -> column, see `answers.read`; verdict: a column of others'
    verdicts in `paths`, for the calibration report (a published folder has its own). embedder: the offline judge's,
    "" for none. Raises InputError for unreadable answers, settings out of range, a folder that can't be written, and
    a judge that rates nothing.
    """
    settings = {"n_resamples": n_resamples, "seed": seed, "confidence": confidence}
    _check(settings, paths, published, judge, votes)
    found, seen = _read(paths, published, columns or {}, verdict)
    pool = pooled.join(found)
    folder = _writable(Path(out).expanduser())
    for line in _remarks(found, pool):
        log(line)
    frame = _rated(pool, judge, folder, votes, embedder, log)
    done = _summed(pool, frame, judge, settings, found, seen, folder)
    score_report.write(done)
    return done


def _check(settings: Mapping[str, Any], paths: Sequence[str | Path], published: str | Path, judge: str,
           votes: int) -> None:  # fmt: skip
    if not paths and not str(published):
        raise InputError("Nothing to score: name files of answers, or a folder with --published.")
    if not judge.strip():
        raise InputError("Invalid judge '': give offline, or a LiteLLM id such as openai/gpt-4o.")
    if judge == OFFLINE and votes != 1:
        raise InputError(f"Invalid votes {votes!r}: the offline judge has one verdict. Leave --votes out, or name an "
                         "LLM with --judge.")  # fmt: skip
    stats.check(settings["n_resamples"], settings["confidence"])
    if settings["seed"] < 0:
        raise InputError(f"Invalid seed {settings['seed']!r}: give a whole number from 0.")


def _read(paths: Sequence[str | Path], published: str | Path, columns: Mapping[str, str],
          verdict: str) -> tuple[list[answers.AnswerFile], Published | None]:  # fmt: skip
    from cuadft import published as source

    asked = {role: name for role, name in columns.items() if name}
    found = answers.read(paths, verdicts=[verdict] if verdict else [], **asked)
    if verdict and not any(row["verdicts"] for file in found for row in file.rows):
        where = ", ".join(map(str, paths)) or "PREDICTIONS"
        raise InputError(f"No verdict column {verdict!r}: name a column of {where}.")
    seen = source.read(published) if str(published) else None
    return [*found, *(seen.files if seen else [])], seen


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(folder / ".writable", "")
        (folder / ".writable").unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"Can't write to {folder} ({error.strerror}): choose another folder with --out.") from error
    return folder


def _remarks(found: Sequence[answers.AnswerFile], pool: pooled.Pool) -> list[str]:
    return [*columns_taken(found), *pool.notes, pooled.basis(pool)]


def columns_taken(found: Sequence[answers.AnswerFile]) -> list[str]:
    """Return which columns were taken for what, one line for all files that are alike in this."""
    alike: dict[str, list[answers.AnswerFile]] = {}
    for file in found:
        taken = ", ".join(f"{role} from {file.columns[role]!r}" for role in TOLD if role in file.columns)
        alike.setdefault(taken, []).append(file)
    return [f"{', '.join(f.path.name for f in files)} ({counted(sum(len(f.rows) for f in files), 'row')}): {taken}."
            for taken, files in alike.items()]  # fmt: skip


def _rated(pool: pooled.Pool, judge: str, folder: Path, votes: int, embedder: str, log: Callable) -> pd.DataFrame:
    """Return the scored rows in the order of the input, the judges' scores and the chosen one's name and verdicts."""
    raters = {OFFLINE: _offline(embedder)}  # both, before any of them begins
    raters |= {} if judge == OFFLINE else {judge: _language_model(judge, votes, folder)}
    frame = metrics.score(pool.predictions)
    for name, rater in raters.items():
        ratings = rater.rate(pool.predictions)
        errors = ratings["judge_error"].dropna().map(lambda text: " ".join(text.split()))
        if len(errors) and not ratings["judge_verdict"].isin(["correct", "partly", "incorrect"]).any():
            raise InputError(f"Judge {name!r} rated none of {len(errors)} answers (first error: {errors.iloc[0]}): "
                             "check the id and the keys in the environment, or take --judge offline.")
        if len(errors):
            log(f"Judge {name!r}: {len(errors)} of {len(ratings)} judgements failed (first error: {errors.iloc[0]}).")
        for row in usage.table({name: getattr(rater, "lm", None)}).to_dict("records"):
            log(usage.line(row))
        frame[SCORES.get(name, "judge_score")] = ratings["judge_score"]
    return frame.assign(judge=rater.name).join(ratings.drop(columns="judge_score"))


def _offline(embedder: str) -> Any:
    from cuadft import models
    from cuadft.embedder import Embedder
    from cuadft.offline import OfflineJudge

    try:
        return OfflineJudge(Embedder(models.find(embedder), cache_dir=models.cache_dir()) if embedder else None)
    except InputError as error:
        raise InputError(f"{error} Or leave --embedder out: the offline judge needs none.") from error


def _language_model(name: str, votes: int, folder: Path) -> Any:
    from cuadft.judges import LMJudge
    from cuadft.systems import remote

    return LMJudge(remote(name), votes=votes, cache=folder / "verdicts.jsonl")


def _summed(pool: pooled.Pool, frame: pd.DataFrame, judge: str, settings: dict[str, Any],
            found: list[answers.AnswerFile], seen: Published | None, folder: Path) -> Scored:
    """Return the scoreboard, the paired tests, the calibration and the published comparison of the scored rows."""
    from cuadft import published as source
    from cuadft.compare import paired_deltas
    from cuadft.scoreboard import scoreboard

    judged = ["f1", *dict.fromkeys((SCORES[OFFLINE], SCORES.get(judge, "judge_score")))]
    board = scoreboard(frame, **settings)
    pairs = _pairs(pool.systems)
    tests = paired_deltas(frame, pairs, metrics=judged, split=pool.split, allow_partial=True, **settings)
    frame = source.with_verdicts(frame, pool.predictions)
    results = source.compare(seen, frame, **settings) if seen else None
    agreed = _calibration(pool, frame, judge, settings)
    return Scored(pool, judge, settings, found, frame, board, tests, agreed, results, folder)


def _pairs(systems: Sequence[str]) -> list[tuple[str, str]]:
    if len(systems) <= ALL_PAIRS:
        return list(itertools.combinations(systems, 2))
    return [(systems[0], system) for system in systems[1:]]


def _calibration(pool: pooled.Pool, frame: pd.DataFrame, judge: str,
                 settings: dict[str, Any]) -> dict[str, Any] | None:  # fmt: skip
    """Return the chosen judge's agreement with the verdicts in the files, None without verdicts."""
    import pandas as pd

    from cuadft import agreement

    given = [_given(p["verdicts"]) for p in pool.predictions]
    names = sorted({name for name, _ in given if name})
    if not names:
        return None
    score, verdict = frame["judge"].iloc[0], f"verdicts ({', '.join(names)})"
    rows = frame[["system", "question", "answer", "failed", "judge_verdict"]].assign(
        **{score: frame[SCORES.get(judge, "judge_score")], verdict: pd.Series([v for _, v in given], dtype=float)}
    )
    rows = rows.assign(contract=frame["contract"]) if pool.unit == "contract" else rows
    return agreement.report(rows[[bool(name) for name, _ in given]], score=score, verdict=verdict, **settings)


def _given(verdicts: Mapping[str, float]) -> tuple[str, float]:
    """Return a row's one verdict and its column: the one asked for, else the published score from 0 to 1."""
    order = [*(name for name in verdicts if name not in PUBLISHED), *PUBLISHED]
    return next(((n, verdicts[n]) for n in order if not math.isnan(verdicts.get(n, math.nan))), ("", math.nan))
