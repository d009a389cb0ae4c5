"""Judge answers against the reference with `LMJudge`, which asks any language model that DSPy can call.

Every judge takes prediction rows and returns the same columns (see `ratings`), so that one can stand in for another:

    ratings = LMJudge(dspy.LM("openai/..."), votes=3, cache=Path("verdicts.jsonl")).rate(predictions)
    frame = metrics.score(predictions).join(ratings)

A failed generation is not judged: score 0, verdict "failed". A failed judgement has no verdict, a NaN score
and its error's text: it is unknown, and not an incorrect answer. `offline.OfflineJudge` is a judge without an LM.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextvars import copy_context
from pathlib import Path
from typing import Any, NamedTuple

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

from cuadft.errors import InputError, brief
from cuadft.judge_prompts import VARIANTS, Variant, VerdictAdapter, fenced, signature
from cuadft.progress import bar
from cuadft.ratings import Rows, failed, rating, reference, table
from cuadft.verdicts import Verdicts, key_of

SCORES = {"correct": 1.0, "partly": 0.5, "incorrect": 0.0}
VOTES = (1, 3, 5, 7, 9)
LONGEST_PROMPT = 200_000  # characters of all fields together; a longer row is a failed judgement
GIVE_UP = 20  # calls in a row that the endpoint failed, each after the LM's own retries; then no more is sent
HOPELESS = (LMAuthError, LMBillingError, LMConfigurationError, LMUnsupportedModelError)  # every row would meet them


class Vote(NamedTuple):
    """One reply of the LM: a verdict with its reason, or None and why there is none."""

    verdict: str | None
    reason: str = ""
    error: str | None = None


class LMJudge:
    """Judge with a language model: a verdict (correct 1, partly 0.5, incorrect 0) and one sentence why."""

    def __init__(self, lm: Any, *, name: str | None = None, see_passage: bool = False, votes: int = 1,
                 temperature: float | None = 0.0, cache: str | Path | None = None,
                 num_threads: int = 8) -> None:  # fmt: skip
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
        self.store = None if cache is None else Verdicts(cache)
        self.config: dict[str, Any] = {"cache": False}
        if "max_completion_tokens" in lm.kwargs:  # how DSPy marks the models that refuse any temperature but 1
            self.config["temperature"] = None
        elif temperature is not None:
            self.config["temperature"] = temperature
        self.programs = {v: dspy.Predict(signature(v, see_passage=see_passage), **self.config) for v in VARIANTS}
        self._down = 0

    def rate(self, rows: Rows) -> pd.DataFrame:
        """Return the four judge columns and two on the votes, one row per input row.

        rows: keys question, answers, answer, error. judge_votes: votes with a readable verdict; judge_agreement: the
        share of them that are the row's verdict (NaN without one). The majority of the readable votes counts, a tie
        is "partly", and the reason is that of a vote for the verdict. Without any readable vote (LM error, or a reply
        without a verdict) the verdict is None, the score NaN, and judge_error says why.
        """
        votes = self.vote(rows, self.variants)
        rated = [rating(0.0, "failed") if failed(row) else majority(v) for row, v in zip(rows, votes, strict=True)]
        readable = [[v.verdict for v in given if v.verdict] for given in votes]
        agreement = [given.count(r["judge_verdict"]) / len(given) if given else math.nan
                     for given, r in zip(readable, rated, strict=True)]  # fmt: skip
        return table(rated).assign(judge_votes=[len(given) for given in readable],
                                   judge_agreement=pd.Series(agreement, dtype=float))  # fmt: skip

    def vote(self, rows: Rows, variants: Sequence[Variant]) -> list[list[Vote]]:
        """Return the vote of every variant on every row, none on a failed generation; equal prompts are sent once."""
        adapter, jobs, wanted = VerdictAdapter(), {}, []
        for row in rows:
            keys: list[str] = []
            if not failed(row):
                fields = self._fields(row)
                for variant in variants:
                    messages = adapter.format(self.programs[variant].signature, [], fields)
                    keys.append(key_of(self.name, self.lm, messages, self.config))
                    jobs[keys[-1]] = (variant, fields)
            wanted.append(keys)
        votes = self._collect(jobs)
        return [[votes[key] for key in keys] for keys in wanted]

    def _fields(self, row: Mapping[str, Any]) -> dict[str, str]:
        fields = {"question": row["question"], "reference": reference(row), "answer": row["answer"]}
        if self.see_passage:
            if not isinstance(row.get("passage"), str):
                raise InputError(
                    f"Row {row.get('id')!r} has no 'passage' text: add it, or set see_passage=False."
                )
            fields["passage"] = row["passage"]
        return fenced(fields)

    def _collect(self, jobs: Mapping[str, tuple[Variant, dict[str, str]]]) -> dict[str, Vote]:
        stored = {key: self.store.get(key) for key in jobs} if self.store is not None else {}
        votes = {key: Vote(line["verdict"], line["reason"]) for key, line in stored.items() if line}
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

    def _ask(self, key: str, variant: Variant, fields: Mapping[str, str]) -> Vote:
        if (size := sum(map(len, fields.values()))) > LONGEST_PROMPT:
            return Vote(None, error=f"Not asked: {size:,} characters, more than the {LONGEST_PROMPT:,} allowed.")
        if self._down >= GIVE_UP:
            return Vote(None, error=f"Not asked: the endpoint failed {GIVE_UP} times in a row.")
        try:
            with dspy.context(lm=self.lm, adapter=VerdictAdapter()):
                reply = self.programs[variant](**fields)
        except DSPyError as error:
            self._down = self._down + 1 if is_retryable_lm_error(error) or isinstance(error, HOPELESS) else 0
            return Vote(None, error=brief(error, self.lm.kwargs))
        self._down = 0
        if "verdict" not in reply:
            return Vote(None, error="The endpoint sent a response without any reply in it.")
        if self.store is not None:
            self.store.add(key, judge=self.name, model=self.lm.model, variant=", ".join(variant),
                           verdict=reply.verdict, reason=reply.reason)  # fmt: skip
        return Vote(reply.verdict, reply.reason)


def majority(votes: Sequence[Vote]) -> dict[str, Any]:
    """Return the rating that most readable votes give; a tie is "partly", no readable vote a failed judgement."""
    counts = Counter(v.verdict for v in votes if v.verdict).most_common()
    if not counts:
        return rating(math.nan, None, error=next((v.error for v in votes if v.error), "No vote was asked for."))
    tied = len(counts) > 1 and counts[0][1] == counts[1][1]
    verdict = "partly" if tied else counts[0][0]
    split = "The votes differ: " + ", ".join(f"{n} {word}" for word, n in sorted(counts)) + "."
    return rating(SCORES[verdict], verdict, next((v.reason for v in votes if v.verdict == verdict), split))

