"""Judge answers against the reference with `LMJudge`, which asks any language model that DSPy can call.

Every judge takes prediction rows and returns one verdict a row, in the same columns (`VERDICT_COLUMNS`), so that
one judge can stand in for another:

    verdicts = LMJudge(remote("openai/...", replies="judge_replies.jsonl"), votes=3).rate(predictions)
    frame = score_predictions(predictions).join(verdicts)

The words that this room uses: a *vote* is what one prompt variant says of an answer, the *verdict* is what the judge
says in the end (correct, partly, incorrect or failed), and the *score* is the verdict as a number from 0 to 1.

A failed generation is not judged: its verdict is "failed" and its score 0. A failed judgement has no verdict, a NaN
score and the text of its error: it is unknown, and does not count as an incorrect answer.

The prompts and what is read from replies stand at the end of the file. A judge at temperature 0 answers the same prompt
in the same way, so that asking twice tells nothing. Its votes therefore come from variants of one prompt: other words
for the same task (`WORDINGS`), and the fields in another order (`ORDERS`). What is graded stands between <<< and >>>,
and a reply counts only where it holds one of three words: `read_reply("Verdict: partly")` gives "partly".

The replies are kept on disk by the language model itself (`models.api.remote`, its `replies`), so that none is paid for
twice and a kill loses only the calls in flight. `flip_rate` measures how often a judge's verdict changes though the
answer does not. `offline_judge.OfflineJudge` is a judge without a language model.
"""

from __future__ import annotations

import math
import re
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
from dspy.utils.exceptions import AdapterParseError, DSPyError

from cuadft.core import files
from cuadft.core.errors import InputError, brief
from cuadft.core.progress import bar
from cuadft.core.text import quote_safely
from cuadft.data.schema import Schema, packaged_schema
from cuadft.evaluation.bootstrap import cluster_bootstrap
from cuadft.evaluation.calibration import cluster_column
from cuadft.evaluation.verdicts import VERDICT_SCORES, Rows, has_failed, reference_text, verdict_row, verdict_table

VOTES = (1, 3, 5, 7, 9)
Prompt = tuple[Any, str, str, str]  # a `Variant`, then question, reference and answer; equal ones are sent once


class JudgeVote(NamedTuple):
    """Hold what one reply of the LM says: a verdict with its reason, or None and why it holds no verdict."""

    verdict: str | None
    reason: str = ""
    error: str | None = None


class LMJudge:
    """Judge with a language model: a verdict (correct 1, partly 0.5, incorrect 0) and one sentence that says why."""

    def __init__(self, lm: Any, *, votes: int = 1, num_threads: int = 8, schema: Schema | None = None) -> None:
        """Take any dspy.LM; DSPy's own cache is not used, so that a failed call is sent again and a failure is seen.

        votes: how many prompt variants are asked, an odd number; the majority counts (see `VARIANTS`). num_threads:
        calls that are open at once. schema: whose words the prompts take; None is CUAD's. The temperature is 0, and the
        LM's own where a model refuses one (OpenAI's reasoning models). Raises InputError on another number of votes.
        """
        if votes not in VOTES:
            raise InputError(f"Invalid votes {votes!r}: choose one of {', '.join(map(str, VOTES))}.")
        self.lm, self.name, self.num_threads, self.variants = lm, lm.model, num_threads, VARIANTS[:votes]
        self.naming = (schema or packaged_schema()).naming
        # max_completion_tokens is how DSPy marks the models that refuse any temperature but 1
        config = {"cache": False, "temperature": None if "max_completion_tokens" in lm.kwargs else 0.0}
        self.programs = {v: dspy.Predict(judge_signature(v, self.naming), **config) for v in VARIANTS}

    def rate(self, rows: Rows) -> pd.DataFrame:
        """Return one verdict per row in the four `VERDICT_COLUMNS`.

        rows: keys question, answers, answer, error. The majority of the readable votes is the verdict, a tie is
        "partly", and the reason is that of a vote for the verdict. If no vote can be read (LM error, or replies without
        a verdict) the verdict is None, the score NaN, and judge_error says why.
        """
        votes = iter(self.vote([row for row in rows if not has_failed(row)], self.variants))
        found = [verdict_row(0.0, "failed") if has_failed(row) else majority_verdict(next(votes)) for row in rows]
        return verdict_table(found)

    def vote(self, rows: Rows, variants: Sequence[Variant]) -> list[list[JudgeVote]]:
        """Return the votes on each row, none of which may have failed, one a variant."""
        texts = [(row["question"], reference_text(row, self.naming["refusal"]), row["answer"]) for row in rows]
        wanted = [[(v, *given) for v in variants] for given in texts]
        prompts, votes = list(dict.fromkeys(prompt for own in wanted for prompt in own)), {}
        # a copied context carries the caller's dspy.context(...) into the thread
        calls = [partial(copy_context().run, self._ask, prompt) for prompt in prompts]
        with ThreadPoolExecutor(self.num_threads) as pool, closing(bar(len(prompts), f"judge {self.name}")) as shown:
            # after a bug, or the user's Ctrl-C, `map` cancels the calls that are not in flight
            for prompt, vote in zip(prompts, pool.map(lambda call: call(), calls), strict=True):
                votes[prompt] = vote
                shown.update()
        return [[votes[prompt] for prompt in own] for own in wanted]

    def _ask(self, prompt: Prompt) -> JudgeVote:
        variant, *texts = prompt
        try:
            with dspy.context(lm=self.lm, adapter=VerdictAdapter()):
                reply = self.programs[variant](**fenced(dict(zip(FIELD_DESCRIPTIONS, texts, strict=True))))
        except DSPyError as error:
            return JudgeVote(None, error=brief(error, self.lm.kwargs))
        if "verdict" not in reply:
            return JudgeVote(None, error="The endpoint sent a response without any reply in it.")
        return JudgeVote(reply.verdict, reply.reason)


def majority_verdict(votes: Sequence[JudgeVote]) -> dict[str, Any]:
    """Return the verdict that most readable votes give, as a row of `verdict_table`.

    A tie is "partly"; without any readable vote the judgement has failed.
    """
    counts = Counter(v.verdict for v in votes if v.verdict).most_common()
    if not counts:
        return verdict_row(math.nan, None, error=votes[0].error)
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
    groups = cluster_column(pd.DataFrame(asked, columns=["contract", "question"])) if asked else []
    votes = [dict(zip(either, given, strict=True)) for given in judge.vote(asked, either)]
    lines = []
    for varied, variants in {"order": orders, "wording": wordings, "either": either}.items():
        verdicts = [[given[variant].verdict for variant in variants] for given in votes]
        changed = [math.nan if None in found else float(len(set(found)) > 1) for found in verdicts]
        share = cluster_bootstrap(changed, groups, n_resamples=n_resamples, seed=seed, confidence=confidence)
        failed = {"failed": sum(map(math.isnan, changed)), "failed_generations": len(rows) - len(asked)}
        lines.append({"varied": varied} | asdict(share) | failed)
    return pd.DataFrame(lines)


# The prompts, and what is read from replies

LONGEST_REASON = 500  # characters

# wording -> its lines, with places for the words of a schema
PROMPTS = files.read_json(Path(__file__).with_name("judge_prompts.json"))
WORDINGS = {name: "\n".join(lines) for name, lines in PROMPTS.items()}
ORDERS = {
    "reference first": ("question", "reference", "answer"),
    "answer first": ("question", "answer", "reference"),
    "question last": ("reference", "answer", "question"),
}
FIELD_DESCRIPTIONS = {
    "question": "${{question}}",  # DSPy's mark of a field that its name describes
    "reference": "the {clauses} {an_expert} marked, or the sentence that there is none",
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


def judge_signature(variant: Variant, naming: Mapping[str, str]) -> type[dspy.Signature]:
    """Return the DSPy signature of one variant: the input fields in its order, then verdict and reason.

    naming: the words of the schema (`Schema.naming`).
    """
    fields: dict[str, Any] = {
        name: (str, dspy.InputField(desc=FIELD_DESCRIPTIONS[name].format(**naming))) for name in ORDERS[variant.order]
    }
    fields["verdict"] = (VerdictWord, dspy.OutputField())
    fields["reason"] = (str, dspy.OutputField(desc="one sentence"))
    return dspy.Signature(fields, WORDINGS[variant.wording].format(**naming))


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
