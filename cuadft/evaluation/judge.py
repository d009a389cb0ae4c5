"""Judge answers against the reference with `LMJudge`, which asks any language model that DSPy can call.

Every judge takes prediction rows and returns one verdict a row, in the same columns (`VERDICT_COLUMNS`), so that
one judge can stand in for another:

    verdicts = LMJudge(dspy.LM("openai/..."), votes=3, cache="verdicts.jsonl").rate(predictions)
    frame = score_predictions(predictions).join(verdicts)

The words that this room uses: a *vote* is what one prompt variant says of an answer, the *verdict* is what the judge
says in the end (correct, partly, incorrect or failed), and the *score* is the verdict as a number from 0 to 1.

A failed generation is not judged: its verdict is "failed" and its score 0. A failed judgement has no verdict, a NaN
score and the text of its error: it is unknown, and does not count as an incorrect answer.

`VerdictCache` keeps the votes on disk (JSON lines), so that no vote is paid for twice and a kill loses only the calls
in flight. `flip_rate` measures how often a judge's verdict changes though the answer does not.
`offline_judge.OfflineJudge` is a judge without a language model.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import copy_context
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import dspy
import pandas as pd
from dspy.utils.exceptions import (
    DSPyError,
    LMAuthError,
    LMBillingError,
    LMConfigurationError,
    LMUnsupportedModelError,
    is_retryable_lm_error,
)

from cuadft.core import files
from cuadft.core.errors import SECRET, InputError, brief
from cuadft.core.progress import bar
from cuadft.evaluation.agreement import cluster_column
from cuadft.evaluation.bootstrap import cluster_bootstrap
from cuadft.evaluation.judge_prompts import ORDERS, VARIANTS, WORDINGS, Variant, VerdictAdapter, fenced, judge_signature
from cuadft.evaluation.text_scores import NO_CLAUSE

Rows = Sequence[Mapping[str, Any]]  # predictions: question, answers, answer, error
VERDICT_SCORES = {"correct": 1.0, "partly": 0.5, "incorrect": 0.0}
VERDICT_COLUMNS = ["judge_score", "judge_verdict", "judge_reason", "judge_error"]
VOTES = (1, 3, 5, 7, 9)
LONGEST_PROMPT = 200_000  # characters of all fields together; a longer row is a failed judgement
GIVE_UP = 20  # calls in a row that the endpoint failed, each after the LM's own retries; then no more is sent
HOPELESS = (LMAuthError, LMBillingError, LMConfigurationError, LMUnsupportedModelError)  # every row would fail so
STORED_FIELDS = ("judge", "model", "variant", "verdict", "reason")  # of one line of the cache
CONNECTION_SETTINGS = re.compile(f"{SECRET.pattern}|header|timeout")  # settings that change no verdict


class Judge(Protocol):
    """What every judge offers."""

    name: str

    def rate(self, rows: Rows) -> pd.DataFrame:
        """Return one verdict per row: judge_score (0 to 1), judge_verdict, judge_reason and judge_error."""
        ...


class JudgeVote(NamedTuple):
    """Hold what one reply of the LM says: a verdict with its reason, or None and why it holds no verdict."""

    verdict: str | None
    reason: str = ""
    error: str | None = None


class LMJudge:
    """Judge with a language model: a verdict (correct 1, partly 0.5, incorrect 0) and one sentence that says why."""

    def __init__(
        self,
        lm: Any,
        *,
        name: str | None = None,
        see_passage: bool = False,
        votes: int = 1,
        temperature: float | None = 0.0,
        cache: str | Path | None = None,
        num_threads: int = 8,
    ) -> None:
        """Take any dspy.LM; DSPy's own cache is not used, so that a failed call is sent again and a failure is seen.

        name: stands in the cache and in reports (default: the model's name). see_passage: also show the row's `passage`
        (str), which the caller adds. votes: how many prompt variants are asked, an odd number; the majority counts (see
        `judge_prompts`). temperature: None leaves the LM's own; models that refuse one (OpenAI's reasoning models) are
        asked without it. cache: a JSON-lines file; what it holds is not asked again (see `VerdictCache`). num_threads:
        calls that are open at once. Raises InputError on settings out of range and on a cache that can't be written.
        """
        if votes not in VOTES:
            raise InputError(f"Invalid votes {votes!r}: choose one of {', '.join(map(str, VOTES))}.")
        if num_threads < 1:
            raise InputError(f"Invalid num_threads {num_threads!r}: give a whole number from 1.")
        self.lm, self.name, self.see_passage, self.num_threads = lm, name or lm.model, see_passage, num_threads
        self.variants = VARIANTS[:votes]
        self.store = None if cache is None else VerdictCache(cache)
        self.config: dict[str, Any] = {"cache": False}
        if "max_completion_tokens" in lm.kwargs:  # how DSPy marks the models that refuse any temperature but 1
            self.config["temperature"] = None
        elif temperature is not None:
            self.config["temperature"] = temperature
        self.programs = {v: dspy.Predict(judge_signature(v, see_passage=see_passage), **self.config) for v in VARIANTS}
        self._failed_in_a_row = 0

    def rate(self, rows: Rows) -> pd.DataFrame:
        """Return one verdict per row: the four `VERDICT_COLUMNS`, and two columns on the votes.

        rows: keys question, answers, answer, error. judge_votes: number of readable votes; judge_agreement: the share
        of them that equal the row's verdict (NaN without a readable vote). The majority of the readable votes is the
        verdict, a tie is "partly", and the reason is that of a vote for the verdict. If no vote can be read (LM error,
        or replies without a verdict) the verdict is None, the score NaN, and judge_error says why.
        """
        votes = self.vote(rows, self.variants)
        verdicts = [
            verdict_row(0.0, "failed") if has_failed(row) else majority_verdict(v)
            for row, v in zip(rows, votes, strict=True)
        ]
        readable = [[v.verdict for v in given if v.verdict] for given in votes]
        agreement = [
            words.count(verdict["judge_verdict"]) / len(words) if words else math.nan
            for words, verdict in zip(readable, verdicts, strict=True)
        ]
        return verdict_table(verdicts).assign(
            judge_votes=[len(words) for words in readable], judge_agreement=pd.Series(agreement, dtype=float)
        )

    def vote(self, rows: Rows, variants: Sequence[Variant]) -> list[list[JudgeVote]]:
        """Return the votes on each row, one a variant; equal prompts are sent once.

        A failed generation gets an empty list.
        """
        adapter, jobs, wanted = VerdictAdapter(), {}, []
        for row in rows:
            keys: list[str] = []
            if not has_failed(row):
                fields = self._fields(row)
                for variant in variants:
                    messages = adapter.format(self.programs[variant].signature, [], fields)
                    keys.append(verdict_key(self.name, self.lm, messages, self.config))
                    jobs[keys[-1]] = (variant, fields)
            wanted.append(keys)
        votes = self._collect(jobs)
        return [[votes[key] for key in keys] for keys in wanted]

    def _fields(self, row: Mapping[str, Any]) -> dict[str, str]:
        fields = {"question": row["question"], "reference": reference_text(row), "answer": row["answer"]}
        if self.see_passage:
            if not isinstance(row.get("passage"), str):
                raise InputError(f"Row {row.get('id')!r} has no 'passage' text: add it, or set see_passage=False.")
            fields["passage"] = row["passage"]
        return fenced(fields)

    def _collect(self, jobs: Mapping[str, tuple[Variant, dict[str, str]]]) -> dict[str, JudgeVote]:
        stored = {key: self.store.get(key) for key in jobs} if self.store is not None else {}
        votes = {key: JudgeVote(line["verdict"], line["reason"]) for key, line in stored.items() if line}
        todo = [key for key in jobs if key not in votes]
        if not todo:
            return votes
        self._failed_in_a_row, shown = 0, bar(len(todo), f"judge {self.name}", "verdict")
        with ThreadPoolExecutor(self.num_threads) as pool:
            # a copied context carries the caller's dspy.context(...) into the thread
            asked = {pool.submit(copy_context().run, self._ask, key, *jobs[key]): key for key in todo}
            try:
                for future in as_completed(asked):
                    votes[asked[future]] = future.result()
                    shown.update()
            except BaseException:  # a bug, or the user's Ctrl-C: wait for the calls in flight and send no more
                pool.shutdown(cancel_futures=True)
                raise
            finally:
                shown.close()
        return votes

    def _ask(self, key: str, variant: Variant, fields: Mapping[str, str]) -> JudgeVote:
        if (size := sum(map(len, fields.values()))) > LONGEST_PROMPT:
            return JudgeVote(None, error=f"Not asked: {size:,} characters, more than the {LONGEST_PROMPT:,} allowed.")
        if self._failed_in_a_row >= GIVE_UP:
            return JudgeVote(None, error=f"Not asked: the endpoint failed {GIVE_UP} times in a row.")
        try:
            with dspy.context(lm=self.lm, adapter=VerdictAdapter()):
                reply = self.programs[variant](**fields)
        except DSPyError as error:
            self._failed_in_a_row = (
                self._failed_in_a_row + 1 if is_retryable_lm_error(error) or isinstance(error, HOPELESS) else 0
            )
            return JudgeVote(None, error=brief(error, self.lm.kwargs))
        self._failed_in_a_row = 0
        if "verdict" not in reply:
            return JudgeVote(None, error="The endpoint sent a response without any reply in it.")
        if self.store is not None:
            self.store.add(
                key,
                judge=self.name,
                model=self.lm.model,
                variant=", ".join(variant),
                verdict=reply.verdict,
                reason=reply.reason,
            )
        return JudgeVote(reply.verdict, reply.reason)


def majority_verdict(votes: Sequence[JudgeVote]) -> dict[str, Any]:
    """Return the verdict that most readable votes give, as a row of `verdict_table`.

    A tie is "partly"; without any readable vote the judgement has failed.
    """
    counts = Counter(v.verdict for v in votes if v.verdict).most_common()
    if not counts:
        return verdict_row(math.nan, None, error=next((v.error for v in votes if v.error), "No vote was asked for."))
    tied = len(counts) > 1 and counts[0][1] == counts[1][1]
    verdict = "partly" if tied else counts[0][0]
    split = "The votes differ: " + ", ".join(f"{n} {word}" for word, n in sorted(counts)) + "."
    return verdict_row(VERDICT_SCORES[verdict], verdict, next((v.reason for v in votes if v.verdict == verdict), split))


def judge_answers(
    frame: pd.DataFrame, rows: Rows, judges: Mapping[str, Judge], *, log: Callable[[str], object] = print
) -> pd.DataFrame:
    """Return scored rows with one column of scores for each judge, and the last judge's verdict, reason and error.

    frame: one scored row for each of `rows`, in their order. judges: metric -> judge, such as {"reference_score":
    OfflineJudge()}. A failed judgement is NaN. log: gets one line for each judge with the number of its failed
    judgements.
    """
    frame = frame.copy()
    for metric, judge in judges.items():
        verdicts = judge.rate(rows).set_axis(frame.index)
        frame[metric] = verdicts["judge_score"]
        for name in ("judge_verdict", "judge_reason", "judge_error"):
            frame[name] = verdicts[name]
        log(f"{judge.name}: {verdicts['judge_error'].notna().sum()} of {len(verdicts)} judgements failed")
    return frame


def flip_rate(
    judge: LMJudge, rows: Rows, *, n_resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> pd.DataFrame:
    """Return the share of rows on which the votes differ between orders, between wordings, and between either.

    The judge is asked with its first wording in every order, and in its first order with every wording: five calls a
    row, whatever its number of votes; its cache serves them too. Columns: varied ("order", "wording", "either"),
    value, low, high, n (rows with all votes), n_clusters (contracts, or questions if there is one contract),
    failed (rows that lack a vote: they are in no share) and failed_generations (rows that no judge sees).
    """
    first = Variant(next(iter(WORDINGS)), next(iter(ORDERS)))
    orders = [Variant(first.wording, order) for order in ORDERS]
    wordings = [Variant(wording, first.order) for wording in WORDINGS]
    asked = [row for row in rows if not has_failed(row)]
    groups = cluster_column(pd.DataFrame(asked, columns=["contract", "question"]))[1] if asked else []
    variants = list(dict.fromkeys(orders + wordings))
    votes = [dict(zip(variants, given, strict=True)) for given in judge.vote(asked, variants)]
    lines = []
    for varied, names in {"order": orders, "wording": wordings, "either": variants}.items():
        verdicts = [[given[v].verdict for v in names] for given in votes]
        changed = [math.nan if None in found else float(len(set(found)) > 1) for found in verdicts]
        share = cluster_bootstrap(changed, groups, n_resamples=n_resamples, seed=seed, confidence=confidence)
        lines.append(
            {
                "varied": varied,
                "value": share.value,
                "low": share.low,
                "high": share.high,
                "n": share.n,
                "n_clusters": share.n_clusters,
                "failed": sum(map(math.isnan, changed)),
                "failed_generations": len(rows) - len(asked),
            }
        )
    return pd.DataFrame(lines)


def verdict_table(verdicts: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return verdicts, made by `verdict_row`, as a frame with the four `VERDICT_COLUMNS`."""
    return pd.DataFrame(verdicts, columns=VERDICT_COLUMNS, dtype=object).astype({"judge_score": float})


def verdict_row(score: float, verdict: str | None, reason: str = "", error: str | None = None) -> dict[str, Any]:
    """Return one verdict as a row of `verdict_table`; verdict None and score NaN stand for a failed judgement."""
    return dict(zip(VERDICT_COLUMNS, (score, verdict, reason, error), strict=True))


def has_failed(row: Mapping[str, Any]) -> bool:
    """Say whether a row's generation failed: it carries an error, or no answer."""
    return isinstance(row.get("error"), str) or not isinstance(row.get("answer"), str)


def gold_texts(row: Mapping[str, Any]) -> list[str]:
    """Return the gold spans' texts in the order in which they stand in the contract."""
    return [a["text"] for a in sorted(row["answers"], key=lambda a: a.get("start", 0))]


def reference_text(row: Mapping[str, Any]) -> str:
    """Return the gold spans' texts, a line each; the refusal sentence if the row has no gold span."""
    return "\n".join(gold_texts(row)) or NO_CLAUSE


class VerdictCache:
    """Hold readable votes in an append-only file, to which several threads and several processes may add.

    A line: {"key", "judge", "model", "variant", "verdict", "reason"}. The key is a hash, see `verdict_key`; no prompt
    and no setting of the connection is stored. Of two lines with one key the later counts.
    """

    def __init__(self, path: str | Path) -> None:
        """Read what an earlier run left; raises InputError if the file can't be read or written."""
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()  # before the first call is paid for, not after it
        except OSError as error:
            raise InputError(f"Can't write verdicts to {path} ({error.strerror}): choose another file.") from error
        self._found = {}
        for number, row in enumerate(files.read_jsonl(self.path, torn_ok=True), 1):
            if not row.keys() >= {"key", *STORED_FIELDS}:
                raise InputError(
                    f"{path}, line {number}: expected a verdict with its 'key', got {str(row)[:60]}: "
                    "name a file that only a judge writes."
                )
            self._found[row["key"]] = row

    def __len__(self) -> int:
        """Return the number of stored verdicts."""
        return len(self._found)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the stored line of a key, None if the key is not stored."""
        return self._found.get(key)

    def add(self, key: str, **line: Any) -> None:
        """Write one vote, on disk when this returns; `line` holds the `STORED_FIELDS`."""
        row = {"key": key} | {name: line[name] for name in STORED_FIELDS}
        with self._lock:
            files.append_jsonl(self.path, [row])
            self._found[key] = row


def verdict_key(judge: str, lm: Any, messages: list[dict[str, Any]], config: dict[str, Any]) -> str:
    """Return the SHA-256 of all that decides a vote: judge, model, its settings and the whole prompt.

    lm: a dspy.LM; its keys, headers and timeouts don't count. config: settings of this call that replace the LM's own.
    """
    settings = {
        name: value if isinstance(value, (str, int, float, list, dict)) else repr(value)
        for name, value in (lm.kwargs | config).items()
        if name != "cache" and not CONNECTION_SETTINGS.search(name)
    }
    return files.value_hash([judge, lm.model, getattr(lm, "model_type", ""), settings, messages])
