"""Judge answers against the reference with `LMJudge`, which asks any language model that DSPy can call.

Every judge takes prediction rows and returns one verdict a row, in the same columns (`VERDICT_COLUMNS`), so that
one judge can stand in for another:

    verdicts = LMJudge(dspy.LM("openai/..."), votes=3, cache="verdicts.jsonl").rate(predictions)
    frame = score_predictions(predictions).join(verdicts)

The words that this room uses: a *vote* is what one prompt variant says of an answer, the *verdict* is what the judge
says in the end (correct, partly, incorrect or failed), and the *score* is the verdict as a number from 0 to 1.

A failed generation is not judged: its verdict is "failed" and its score 0. A failed judgement has no verdict, a NaN
score and the text of its error: it is unknown, and does not count as an incorrect answer.

The prompts and what is read from replies stand at the end of the file. A judge at temperature 0 answers the same prompt
in the same way, so that asking twice tells nothing. Its votes therefore come from variants of one prompt: other words
for the same task (`WORDINGS`), and the fields in another order (`ORDERS`). What is graded stands between <<< and >>>,
and a reply counts only where it holds one of three words: `read_reply("Verdict: partly")` gives "partly".

`VerdictCache` keeps the votes on disk (JSON lines), so that no vote is paid for twice and a kill loses only the calls
in flight. `flip_rate` measures how often a judge's verdict changes though the answer does not.
`offline_judge.OfflineJudge` is a judge without a language model.
"""

from __future__ import annotations

import math
import re
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import copy_context
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import dspy
import pandas as pd
from dspy.utils.exceptions import (
    AdapterParseError,
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
from cuadft.core.text import quote_safely
from cuadft.evaluation.bootstrap import cluster_bootstrap
from cuadft.evaluation.calibration import cluster_column
from cuadft.evaluation.verdicts import VERDICT_SCORES, Rows, has_failed, reference_text, verdict_row, verdict_table

VOTES = (1, 3, 5, 7, 9)
LONGEST_PROMPT = 200_000  # characters of all fields together; a longer row is a failed judgement
GIVE_UP = 20  # calls in a row that the endpoint failed, each after the LM's own retries; then no more is sent
HOPELESS = (LMAuthError, LMBillingError, LMConfigurationError, LMUnsupportedModelError)  # every row would fail so
STORED_FIELDS = ("key", "judge", "variant", "verdict", "reason")  # of one line of the cache
CONNECTION_SETTINGS = re.compile(f"{SECRET.pattern}|header|timeout")  # settings that change no verdict


class JudgeVote(NamedTuple):
    """Hold what one reply of the LM says: a verdict with its reason, or None and why it holds no verdict."""

    verdict: str | None
    reason: str = ""
    error: str | None = None


class LMJudge:
    """Judge with a language model: a verdict (correct 1, partly 0.5, incorrect 0) and one sentence that says why."""

    def __init__(self, lm: Any, *, votes: int = 1, cache: str | Path | None = None, num_threads: int = 8) -> None:
        """Take any dspy.LM; DSPy's own cache is not used, so that a failed call is sent again and a failure is seen.

        votes: how many prompt variants are asked, an odd number; the majority counts (see `VARIANTS`). cache: a
        JSON-lines file; what it holds is not asked again (see `VerdictCache`). num_threads: calls that are open at
        once. The temperature is 0, and the LM's own where a model refuses one (OpenAI's reasoning models). Raises
        InputError on settings out of range and on a cache that can't be written.
        """
        if votes not in VOTES:
            raise InputError(f"Invalid votes {votes!r}: choose one of {', '.join(map(str, VOTES))}.")
        if num_threads < 1:
            raise InputError(f"Invalid num_threads {num_threads!r}: give a whole number from 1.")
        self.lm, self.name, self.num_threads, self.variants = lm, lm.model, num_threads, VARIANTS[:votes]
        self.store = None if cache is None else VerdictCache(cache)
        # max_completion_tokens is how DSPy marks the models that refuse any temperature but 1
        self.config = {"cache": False, "temperature": None if "max_completion_tokens" in lm.kwargs else 0.0}
        self.programs = {variant: dspy.Predict(judge_signature(variant), **self.config) for variant in VARIANTS}
        self._failed_in_a_row = 0

    def rate(self, rows: Rows) -> pd.DataFrame:
        """Return one verdict per row: the four `VERDICT_COLUMNS`, and two columns on the votes.

        rows: keys question, answers, answer, error. judge_votes: number of readable votes; judge_agreement: the share
        of them that equal the row's verdict (NaN without a readable vote). The majority of the readable votes is the
        verdict, a tie is "partly", and the reason is that of a vote for the verdict. If no vote can be read (LM error,
        or replies without a verdict) the verdict is None, the score NaN, and judge_error says why.
        """
        votes = self.vote(rows, self.variants)
        verdicts, agreement = [], []
        for row, given in zip(rows, votes, strict=True):
            verdict = verdict_row(0.0, "failed") if has_failed(row) else majority_verdict(given)
            readable = [vote.verdict for vote in given if vote.verdict]
            verdicts.append(verdict)
            agreement.append(readable.count(verdict["judge_verdict"]) / len(readable) if readable else math.nan)
        counts = [sum(vote.verdict is not None for vote in given) for given in votes]
        return verdict_table(verdicts).assign(judge_votes=counts, judge_agreement=pd.Series(agreement, dtype=float))

    def vote(self, rows: Rows, variants: Sequence[Variant]) -> list[list[JudgeVote]]:
        """Return the votes on each row, one a variant; equal prompts are sent once.

        A failed generation gets an empty list.
        """
        adapter, jobs, wanted = VerdictAdapter(), {}, []
        for row in rows:
            keys: list[str] = []
            if not has_failed(row):
                asked = {"question": row["question"], "reference": reference_text(row), "answer": row["answer"]}
                fields = fenced(asked)
                for variant in variants:
                    messages = adapter.format(self.programs[variant].signature, [], fields)
                    keys.append(verdict_key(self.name, self.lm, messages, self.config))
                    jobs[keys[-1]] = (variant, fields)
            wanted.append(keys)
        votes = self._collect(jobs)
        return [[votes[key] for key in keys] for keys in wanted]

    def _collect(self, jobs: Mapping[str, tuple[Variant, dict[str, str]]]) -> dict[str, JudgeVote]:
        stored = self.store.lines if self.store is not None else {}
        votes = {key: JudgeVote(stored[key]["verdict"], stored[key]["reason"]) for key in jobs if key in stored}
        todo = [key for key in jobs if key not in votes]
        if not todo:
            return votes
        self._failed_in_a_row, shown = 0, bar(len(todo), f"judge {self.name}", "verdict")
        # a copied context carries the caller's dspy.context(...) into the thread
        calls = [partial(copy_context().run, self._ask, key, *jobs[key]) for key in todo]
        with ThreadPoolExecutor(self.num_threads) as pool, closing(shown):
            # after a bug, or the user's Ctrl-C, `map` cancels the calls that are not in flight
            for key, vote in zip(todo, pool.map(lambda call: call(), calls), strict=True):
                votes[key] = vote
                shown.update()
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
            endpoint = is_retryable_lm_error(error) or isinstance(error, HOPELESS)
            self._failed_in_a_row = self._failed_in_a_row + 1 if endpoint else 0
            return JudgeVote(None, error=brief(error, self.lm.kwargs))
        self._failed_in_a_row = 0
        if "verdict" not in reply:
            return JudgeVote(None, error="The endpoint sent a response without any reply in it.")
        if self.store is not None:
            self.store.add(key, self.name, ", ".join(variant), reply.verdict, reply.reason)
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


def flip_rate(
    judge: LMJudge, rows: Rows, *, n_resamples: int = 2000, seed: int = 0, confidence: float = 0.95
) -> pd.DataFrame:
    """Return the share of rows on which the votes differ between orders, between wordings, and between either.

    The judge is asked with its first wording in every order, and in its first order with every wording: five calls a
    row, whatever its number of votes; its cache serves them too. Columns: varied ("order", "wording", "either"),
    value, low, high, n (rows with all votes), n_clusters (contracts, or questions if there is one contract),
    failed (rows that lack a vote: they are in no share) and failed_generations (rows that no judge sees).
    """
    first = VARIANTS[0]
    orders = [Variant(first.wording, order) for order in ORDERS]
    wordings = [Variant(wording, first.order) for wording in WORDINGS]
    either = list(dict.fromkeys(orders + wordings))
    asked = [row for row in rows if not has_failed(row)]
    groups = cluster_column(pd.DataFrame(asked, columns=["contract", "question"]))[1] if asked else []
    votes = [dict(zip(either, given, strict=True)) for given in judge.vote(asked, either)]
    lines = []
    for varied, variants in {"order": orders, "wording": wordings, "either": either}.items():
        verdicts = [[given[variant].verdict for variant in variants] for given in votes]
        changed = [math.nan if None in found else float(len(set(found)) > 1) for found in verdicts]
        share = cluster_bootstrap(changed, groups, n_resamples=n_resamples, seed=seed, confidence=confidence)
        failed = {"failed": sum(map(math.isnan, changed)), "failed_generations": len(rows) - len(asked)}
        lines.append({"varied": varied} | asdict(share) | failed)
    return pd.DataFrame(lines)


class VerdictCache:
    """Hold readable votes in an append-only file, to which several threads and several processes may add.

    A line holds `STORED_FIELDS`. The key is a hash, see `verdict_key`; no prompt and no setting of the connection is
    stored. Of two lines with one key the later counts.
    """

    def __init__(self, path: str | Path) -> None:
        """Read what an earlier run left; raises InputError if the file can't be read or written."""
        self.path, self._lock = Path(path), threading.Lock()
        try:
            rows = files.read_jsonl(path, torn_ok=True) if self.path.exists() else []
            if not all(row.keys() >= set(STORED_FIELDS) for row in rows):
                raise InputError(f"{path} holds a line without 'key' and verdict: name a file of a judge's alone.")
            files.append_jsonl(path, [])  # before the first call is paid for, not after it
        except OSError as error:
            raise InputError(f"Can't write verdicts to {path} ({error.strerror}): choose another file.") from error
        self.lines = {row["key"]: row for row in rows}

    def add(self, *values: str) -> None:
        """Write one vote, the values of `STORED_FIELDS`; it is on disk when this returns."""
        row = dict(zip(STORED_FIELDS, values, strict=True))
        with self._lock:
            files.append_jsonl(self.path, [row])
            self.lines[row["key"]] = row


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


# The prompts, and what is read from replies

LONGEST_REASON = 500  # characters

PROMPTS = files.read_json(Path(__file__).with_name("judge_prompts.json"))  # wording -> its lines
WORDINGS = {name: "\n".join(lines) for name, lines in PROMPTS.items()}
ORDERS = {
    "reference first": ("question", "reference", "answer"),
    "answer first": ("question", "answer", "reference"),
    "question last": ("reference", "answer", "question"),
}
FIELD_DESCRIPTIONS = {
    "question": "${question}",  # DSPy's mark of a field that its name describes
    "reference": "the clauses a lawyer marked, or the sentence that there is none",
    "answer": "the answer to grade",
}
VerdictWord = Literal["correct", "partly", "incorrect"]


class Variant(NamedTuple):
    """One prompt of the judge: the names of its wording and of its order of fields."""

    wording: str
    order: str


# A Latin square: the first three variants differ in wording and in order, all nine are every combination.
VARIANTS = [
    Variant(wording, list(ORDERS)[(i + shift) % len(ORDERS)])
    for shift in range(len(ORDERS))
    for i, wording in enumerate(WORDINGS)
]


def judge_signature(variant: Variant) -> type[dspy.Signature]:
    """Return the DSPy signature of one variant: the input fields in its order, then verdict and reason."""
    fields: dict[str, Any] = {
        name: (str, dspy.InputField(desc=FIELD_DESCRIPTIONS[name])) for name in ORDERS[variant.order]
    }
    fields["verdict"] = (VerdictWord, dspy.OutputField())
    fields["reason"] = (str, dspy.OutputField(desc="one sentence"))
    return dspy.Signature(fields, WORDINGS[variant.wording])


def fenced(fields: Mapping[str, str]) -> dict[str, str]:
    """Return the fields between <<< and >>>.

    No text can close its fence, end a chat turn or forge a field header of DSPy.
    """
    return {name: f"<<<\n{quote_safely(text)}\n>>>" for name, text in fields.items()}


class VerdictAdapter(dspy.ChatAdapter):
    """Use DSPy's chat format, but read replies with `read_reply` and send no second call in another format."""

    def __init__(self) -> None:
        super().__init__(use_json_adapter_fallback=False)

    def parse(self, signature: type[dspy.Signature], completion: str) -> dict[str, Any]:
        """Return {"verdict", "reason"}; raises AdapterParseError if the reply holds no verdict."""
        verdict, reason = read_reply(completion)
        if verdict is None:
            message = "The reply holds no verdict, or two different ones."
            raise AdapterParseError(type(self).__name__, signature, completion, message=message)
        return {"verdict": verdict, "reason": reason}


DECORATION = r"[\s*_`\"'“”‘’#<>()\[\]{}.,:;=–—-]"
ONE_WORD = rf"((?a:correct|partly|incorrect)){DECORATION}*"  # ASCII only: "ı" would count as an "I"
VERDICT_LINE = re.compile(rf"{DECORATION}*(?:(?:verdict|literal){DECORATION}+)?{ONE_WORD}", re.IGNORECASE)
LABELLED_LINE = re.compile(rf"{DECORATION}*verdict{DECORATION}+{ONE_WORD}(?:reason{DECORATION}.*)?", re.IGNORECASE)
REASON_LINE = re.compile(r"\breason[*_`\"' ]*[:=]\s*(.+)", re.IGNORECASE)
HAS_WORDS = re.compile(r"[a-z]{5}", re.IGNORECASE)  # a line of text, not a brace nor the "```json" above it
FIELD_HEADER = re.compile(r"\[\[ ?## ?(\w+) ?## ?\]\]")


def read_reply(text: str) -> tuple[str | None, str]:
    """Return the verdict and the reason in a reply; the verdict is None if the reply holds none, or two different ones.

    A verdict is one of the three words alone on its line, in any case, with or without quotes, markdown and the
    label "Verdict:". It stands under DSPy's header. Without that header the line must carry the label and be the first
    or the last of the reply, or the word must be the whole reply. A word inside a sentence, or quoted amid other lines,
    is never taken for a verdict.
    """
    before, *rest = FIELD_HEADER.split(text)
    sections = list(zip(rest[::2], rest[1::2], strict=True))
    under = [part for name, part in sections if name == "verdict"]
    if under:
        found = _verdict_words(VERDICT_LINE, "\n".join(under))
    else:
        lines = [line for line in before.splitlines() if HAS_WORDS.search(line)]
        labelled = _verdict_words(LABELLED_LINE, "\n".join(lines[:1] + lines[-1:]))
        found = labelled or _verdict_words(VERDICT_LINE, " ".join(before.split()))
    reason = next((part.strip() for name, part in sections if name == "reason"), "")
    if not reason and (line := REASON_LINE.search(text)):
        reason = line[1].strip()
    return (found.pop() if len(found) == 1 else None), reason[:LONGEST_REASON]


def _verdict_words(pattern: re.Pattern[str], text: str) -> set[str]:
    return {match[1].lower() for line in text.splitlines() if (match := pattern.fullmatch(line))}
