"""Rows to train on: the very prompts that the program sends, and the answer to teach about each passage.

    rows, counts = prompt_completions(program, train_rows, size=0, impossible_share=0.3, seed=7)

`target_answer` says what is taught. SFT, the demos of a compiled prompt and the online methods all take it from here.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cuadft.core.text import is_unspaced, quotable, quotable_places
from cuadft.data.passages import merge_spans
from cuadft.data.rows import FEEDBACK
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.models.verbatim import belong_together
from cuadft.rag.confidence import HELD_FROM
from cuadft.rag.program import ContractQA
from cuadft.retrieval.retriever import Hit

REWARD_COLUMNS = ("id", "contract", "question", "answers", "is_impossible")  # of a row; TRL hands them to the reward
TEMPLATE_SHARE = 0.2  # of the rows to train on that have a clause


def target_answer(row: Mapping[str, Any], hit: Hit, refusal: str = NO_CLAUSE) -> str | None:
    """Return the answer to teach for a row and a passage: the refusal, or the passage's gold spans, one a line.

    A span that the passage's edge cuts counts as far as it lies inside, if that is HELD_FROM of it. Returns None if the
    clause exists but not in this passage: to teach its words would be to teach inventing, to teach the refusal would be
    to teach overlooking.
    """
    if row["is_impossible"]:
        return refusal
    passage = hit.passage
    held = []
    for span in row["answers"]:
        start, end = max(span["start"], passage.start), min(span["start"] + len(span["text"]), passage.end)
        if end - start >= HELD_FROM * min(len(span["text"]), passage.end - passage.start) and end > start:
            held.append((start - passage.start, end - passage.start))
    return "\n".join(_quotable_parts(passage.text, held)) or None


def whole_words(text: str, start: int, end: int) -> str:
    """Return text[start:end] as a model may quote it from the text: `quotable`, and widened to whole words."""
    return "".join(_quotable_parts(text, [(start, end)]))


def _quotable_parts(text: str, spans: Sequence[tuple[int, int]]) -> list[str]:
    """Return stretches of a text as a model may quote them, in order: whole words, and as one where they touch."""
    clean, places = quotable_places(text)
    found, apart = [], is_unspaced(clean)
    for start, end in spans:
        start, end = bisect_left(places, start), bisect_left(places, end)
        while start < end and clean[start] == " ":
            start += 1
        while start < end and clean[end - 1] == " ":
            end -= 1
        while 0 < start < end and belong_together(clean[start - 1], clean[start], apart):
            start -= 1
        while start < end < len(clean) and belong_together(clean[end - 1], clean[end], apart):
            end += 1
        found += [(start, end)] * (start < end)
    return [clean[start:end] for start, end in merge_spans(found)]


def taught_examples(row: Mapping[str, Any], hits: Sequence[Hit], refusal: str) -> list[tuple[Hit, str]]:
    """Return the passages that have an answer to teach, the best first, each with that answer."""
    answers = ((hit, target_answer(row, hit, refusal)) for hit in hits)
    return [(hit, answer) for hit, answer in answers if answer is not None]


def prompt_completions(
    program: ContractQA, rows: Sequence[dict[str, Any]], *, size: int, impossible_share: float, seed: int
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Return up to `size` (0: all) rows {"id", "prompt", "completion"} of chat messages, and counts of all rows.

    `impossible_share` of the rows are questions whose clause does not exist (fewer if there are fewer); with a
    confidence they are drawn near the decision, the nearest first. At most TEMPLATE_SHARE of the others are paraphrases
    from a grammar (source "template"), for they repeat clauses of other rows. Of either kind, rows that a person
    corrected (source "feedback") are taken first. If there are fewer than `size`, further passages of the questions
    that have a clause are taught as well. The counts say how many rows were taken of either kind, and how many
    were left out for which reason.
    """
    shuffled = random.Random(seed).sample(list(rows), len(rows))
    looks = program.look([(r["question"], r["contract"]) for r in shuffled])
    absent, human, own, templates = [], [], [], []  # examples of questions without a clause, and of those with one
    further = []  # examples of other passages
    for row, look in zip(shuffled, looks, strict=True):
        examples = []
        for found in taught_examples(row, look.hits, program.refusal):
            *prompt, completion = program.messages(row["question"], *found)
            examples.append({"id": row["id"], "prompt": prompt, "completion": [completion]})
        if examples:
            example, *others = examples
            further += [] if row["is_impossible"] else others
            if row["is_impossible"]:
                distance = abs(look.p_exists - look.threshold) if look.calibrated else 1.0
                absent.append((-1.0 if row["source"] == FEEDBACK else distance, example))
            else:
                {FEEDBACK: human, "template": templates}.get(row["source"], own).append(example)
    absent = [example for _, example in sorted(absent, key=lambda pair: pair[0])]
    present = human + _with_templates(own, templates, max(0, (size or len(rows)) - len(human)), seed)
    present += further[: max(0, size - len(present) - round(size * impossible_share))]
    n_absent, n_present = _sizes(len(absent), len(present), size, impossible_share)
    chosen = absent[:n_absent] + present[:n_present]
    random.Random(seed).shuffle(chosen)
    usable = len(absent) + len(human) + len(own) + len(templates)
    counts = {"unanswerable": n_absent, "answerable": n_present, "not drawn": max(0, usable - len(chosen))}
    counts["gold span not in the passages"] = len(rows) - usable
    return chosen, +Counter(counts)


def _with_templates(own: list[Any], templates: list[Any], most: int, seed: int) -> list[Any]:
    """Return up to `most` examples, mixed, of which TEMPLATE_SHARE at most are templates."""
    count = round(TEMPLATE_SHARE * min(most, len(own) / (1 - TEMPLATE_SHARE)))
    mixed = own[: most - min(count, len(templates))] + templates[:count]
    random.Random(seed).shuffle(mixed)
    return mixed


def _sizes(absent: int, present: int, size: int, impossible_share: float) -> tuple[int, int]:
    """Return how many examples to take of the `absent` and of the `present` ones; size 0: as many as there are."""
    total = min(size or absent + present, absent + present)
    n_absent = min(absent, round(total * impossible_share))
    n_present = min(present, total - n_absent)
    if n_present < total - n_absent and impossible_share < 1:  # too few answerable rows must not raise the share
        n_absent = min(n_absent, round(n_present * impossible_share / (1 - impossible_share)))
    return n_absent, n_present


def online_prompts(program: ContractQA, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return {"prompt", "passage"} and REWARD_COLUMNS of the rows that the best passage has an answer to teach for.

    A row whose clause lies outside the passage is left out: its reward would teach the model to invent the clause.
    """
    found = program.retriever.search_many([(row["question"], row["contract"]) for row in rows], k=1)
    made = []
    for row, hits in zip(rows, found, strict=True):
        if hits and target_answer(row, hits[0]) is not None:
            *prompt, _ = program.messages(row["question"], hits[0], "")
            about = {"prompt": prompt, "passage": quotable(hits[0].passage.text)}
            made.append(about | {name: row[name] for name in REWARD_COLUMNS})
    return made


def telling_rows(
    rows: Sequence[dict[str, Any]], scores: Mapping[str, Sequence[float]], *, others: float = 0.5
) -> list[dict[str, Any]]:
    """Return the rows whose sampled answers differ in score, and `others` times as many rows whose answers do not.

    scores: row id -> scores of its sampled answers. Where all answers score alike, no method learns anything (DAPO, Yu
    et al. 2025, section 3.2); some of these rows stay, so that training also keeps what the model does well. If no
    row's answers differ, all rows are returned. A failed judgement (NaN) does not count; a row that has only failed
    judgements is left out.
    """
    distinct = {id_: {score for score in given if not math.isnan(score)} for id_, given in scores.items()}
    differ = [row for row in rows if len(distinct[row["id"]]) > 1]
    alike = [row for row in rows if len(distinct[row["id"]]) == 1]
    return differ + alike[: round(others * len(differ))] if differ else alike
