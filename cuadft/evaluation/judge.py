"""Judge answers against the reference with `LMJudge`, which asks any language model that DSPy can call.

Every judge takes prediction rows and returns the same columns (see `ratings`), so that one can stand in for another:

    ratings = LMJudge(dspy.LM("openai/..."), votes=3, cache=Path("verdicts.jsonl")).rate(predictions)
    frame = metrics.score(predictions).join(ratings)

A failed generation is not judged: score 0, verdict "failed". A failed judgement has no verdict, a NaN score
and its error's text: it is unknown, and not an incorrect answer. `offline.OfflineJudge` is a judge without an LM.

Keep an LM judge's verdicts on disk (JSON lines): none is paid for twice, and a kill loses only the open calls.

The rows and tables that every judge takes and gives; light, so that a judge without an LM loads none.

How steady an LM judge is: how often its verdict changes though the answer does not.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
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
from cuadft.evaluation.agreement import clusters
from cuadft.evaluation.bootstrap import cluster_bootstrap
from cuadft.evaluation.judge_prompts import ORDERS, VARIANTS, WORDINGS, Variant, VerdictAdapter, fenced, judge_signature
from cuadft.evaluation.text_scores import NO_CLAUSE

SCORES = {"correct": 1.0, "partly": 0.5, "incorrect": 0.0}
VOTES = (1, 3, 5, 7, 9)
LONGEST_PROMPT = 200_000  # characters of all fields together; a longer row is a failed judgement
GIVE_UP = 20  # calls in a row that the endpoint failed, each after the LM's own retries; then no more is sent
HOPELESS = (LMAuthError, LMBillingError, LMConfigurationError, LMUnsupportedModelError)  # every row would meet them


class JudgeVote(NamedTuple):
    """One reply of the LM: a verdict with its reason, or None and why there is none."""

    verdict: str | None
    reason: str = ""
    error: str | None = None


class LMJudge:
    """Judge with a language model: a verdict (correct 1, partly 0.5, incorrect 0) and one sentence why."""

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
        """Take any dspy.LM; DSPy's own cache is not used, so that a failure is asked again and seen.

        name: in the verdicts and in reports (default: the model's). see_passage: also show the row's `passage` (str),
        which the caller adds. votes: an odd number of prompt variants, see `judge_prompts`; the majority counts.
        temperature: None leaves the LM's; models that take none (OpenAI's reasoning models) are asked without.
        cache: a JSON-lines file of verdicts; what it holds is not asked again (see `verdicts`). Raises InputError on
        settings out of range and on a cache that can't be written.
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
        self._down = 0

    def rate(self, rows: Rows) -> pd.DataFrame:
        """Return the four judge columns and two on the votes, one row per input row.

        rows: keys question, answers, answer, error. judge_votes: votes with a readable verdict; judge_agreement: the
        share of them that are the row's verdict (NaN without one). The majority of the readable votes counts, a tie
        is "partly", and the reason is that of a vote for the verdict. Without any readable vote (LM error, or a reply
        without a verdict) the verdict is None, the score NaN, and judge_error says why.
        """
        votes = self.vote(rows, self.variants)
        rated = [
            one_rating(0.0, "failed") if has_failed(row) else majority(v) for row, v in zip(rows, votes, strict=True)
        ]
        readable = [[v.verdict for v in given if v.verdict] for given in votes]
        agreement = [
            given.count(r["judge_verdict"]) / len(given) if given else math.nan
            for given, r in zip(readable, rated, strict=True)
        ]
        return ratings_table(rated).assign(
            judge_votes=[len(given) for given in readable], judge_agreement=pd.Series(agreement, dtype=float)
        )

    def vote(self, rows: Rows, variants: Sequence[Variant]) -> list[list[JudgeVote]]:
        """Return the vote of every variant on every row, none on a failed generation; equal prompts are sent once."""
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
        self._down, shown = 0, bar(len(todo), f"judge {self.name}", "verdict")
        with ThreadPoolExecutor(self.num_threads) as pool:
            # a copied context carries the caller's dspy.context(...) into the thread
            asked = {pool.submit(copy_context().run, self._ask, key, *jobs[key]): key for key in todo}
            try:
                for future in as_completed(asked):
                    votes[asked[future]] = future.result()
                    shown.update()
            except BaseException:  # a bug, or the user's Ctrl-C: only the calls in flight are waited for
                pool.shutdown(cancel_futures=True)
                raise
            finally:
                shown.close()
        return votes

    def _ask(self, key: str, variant: Variant, fields: Mapping[str, str]) -> JudgeVote:
        if (size := sum(map(len, fields.values()))) > LONGEST_PROMPT:
            return JudgeVote(None, error=f"Not asked: {size:,} characters, more than the {LONGEST_PROMPT:,} allowed.")
        if self._down >= GIVE_UP:
            return JudgeVote(None, error=f"Not asked: the endpoint failed {GIVE_UP} times in a row.")
        try:
            with dspy.context(lm=self.lm, adapter=VerdictAdapter()):
                reply = self.programs[variant](**fields)
        except DSPyError as error:
            self._down = self._down + 1 if is_retryable_lm_error(error) or isinstance(error, HOPELESS) else 0
            return JudgeVote(None, error=brief(error, self.lm.kwargs))
        self._down = 0
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


def majority(votes: Sequence[JudgeVote]) -> dict[str, Any]:
    """Return the rating that most readable votes give; a tie is "partly", no readable vote a failed judgement."""
    counts = Counter(v.verdict for v in votes if v.verdict).most_common()
    if not counts:
        return one_rating(math.nan, None, error=next((v.error for v in votes if v.error), "No vote was asked for."))
    tied = len(counts) > 1 and counts[0][1] == counts[1][1]
    verdict = "partly" if tied else counts[0][0]
    split = "The votes differ: " + ", ".join(f"{n} {word}" for word, n in sorted(counts)) + "."
    return one_rating(SCORES[verdict], verdict, next((v.reason for v in votes if v.verdict == verdict), split))


CONNECTION = re.compile(f"{SECRET.pattern}|header|timeout")  # settings that decide no verdict
KEPT = ("judge", "model", "variant", "verdict", "reason")


class VerdictCache:
    """An append-only store of readable verdicts; several threads, and several processes, may add to it.

    A line: {"key", "judge", "model", "variant", "verdict", "reason"}. The key is a hash, see `key_of`; no prompt and
    no setting of the connection is stored. Of two lines with one key the later counts.
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
            if not row.keys() >= {"key", *KEPT}:
                raise InputError(
                    f"{path}, line {number}: expected a verdict with its 'key', got {str(row)[:60]}: "
                    "name a file that only a judge writes."
                )
            self._found[row["key"]] = row

    def __len__(self) -> int:
        """Return the number of stored verdicts."""
        return len(self._found)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the stored line of a key, None if there is none."""
        return self._found.get(key)

    def add(self, key: str, **line: Any) -> None:
        """Write one verdict, on disk when this returns; `line` holds the fields of `KEPT`."""
        row = {"key": key} | {name: line[name] for name in KEPT}
        with self._lock:
            files.append_jsonl(self.path, [row])
            self._found[key] = row


def verdict_key(judge: str, lm: Any, messages: list[dict[str, Any]], config: dict[str, Any]) -> str:
    """Return the SHA-256 of all that decides a verdict: judge, model, its settings and the whole prompt.

    lm: a dspy.LM; its keys, headers and timeouts don't count. config: the settings of this call, which replace the
    LM's own.
    """
    settings = {
        name: value if isinstance(value, (str, int, float, list, dict)) else repr(value)
        for name, value in (lm.kwargs | config).items()
        if name != "cache" and not CONNECTION.search(name)
    }
    return files.value_hash([judge, lm.model, getattr(lm, "model_type", ""), settings, messages])


Rows = Sequence[Mapping[str, Any]]
COLUMNS = ["judge_score", "judge_verdict", "judge_reason", "judge_error"]


class Judge(Protocol):
    """What every judge offers."""

    name: str

    def rate(self, rows: Rows) -> pd.DataFrame:
        """Return judge_score (0 to 1), judge_verdict, judge_reason and judge_error, one row per input row."""
        ...


def ratings_table(ratings: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Return ratings as a frame with the four judge columns, in their order."""
    import pandas as pd

    return pd.DataFrame(ratings, columns=COLUMNS, dtype=object).astype({"judge_score": float})


def one_rating(score: float, verdict: str | None, reason: str = "", error: str | None = None) -> dict[str, Any]:
    """Return one row of `table`."""
    return dict(zip(COLUMNS, (score, verdict, reason, error), strict=True))


def has_failed(row: Mapping[str, Any]) -> bool:
    """Say whether a row's generation failed: it carries an error, or no answer."""
    return isinstance(row.get("error"), str) or not isinstance(row.get("answer"), str)


def gold_texts(row: Mapping[str, Any]) -> list[str]:
    """Return the gold spans' texts in the order in which they stand in the contract."""
    return [a["text"] for a in sorted(row["answers"], key=lambda a: a.get("start", 0))]


def reference_text(row: Mapping[str, Any]) -> str:
    """Return the gold spans' texts, a line each, or the refusal sentence if there is none."""
    return "\n".join(gold_texts(row)) or NO_CLAUSE


def flip_rate(
    judge: LMJudge, rows: Rows, *, n_resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> pd.DataFrame:
    """Return the share of rows whose verdict is not the same in all orders, in all wordings, and in either.

    The judge is asked with its first wording in every order, and in its first order with every wording: five calls a
    row, whatever its number of votes; its cache serves them too. Columns: varied ("order", "wording", "either"),
    value, low, high, n (rows with all verdicts), n_clusters (contracts, or questions if there is one contract),
    failed (rows without all verdicts: they are in no share) and failed_generations (rows that no judge sees).
    """
    first = Variant(next(iter(WORDINGS)), next(iter(ORDERS)))
    orders = [Variant(first.wording, order) for order in ORDERS]
    wordings = [Variant(wording, first.order) for wording in WORDINGS]
    asked = [row for row in rows if not has_failed(row)]
    groups = clusters(pd.DataFrame(asked, columns=["contract", "question"]))[1] if asked else []
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
