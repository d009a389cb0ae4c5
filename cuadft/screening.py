"""Screen generated questions by the tests that need no LM; a rejected one gets a reason and evidence."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from cuadft.contracts import Row
from cuadft.rouge import Known, shingles, tokens
from cuadft.seeds import Candidate

if TYPE_CHECKING:
    from cuadft.embedder import Embedder

REASONS = ("generation_failed", "format", "duplicate", "drift", "overlap", "unanswerable")
MAX_ROUGE = 0.7  # Self-Instruct's limit (Wang et al., 2023, section 2.2)
SHINGLE = 8  # words in a row that two texts don't share by chance
WORDS = (4, 50)  # of a question
_PLACEHOLDER = re.compile(r"\[[^\]]*\]|\{[^}]*\}|<[^>]*>|_{3,}|\*{3,}|\bX{3,}\b|#{2,}")
_ROLE = re.compile(
    r"<\||\|>|\b(user|assistant|system|human|question|answer|category|clause|passage)\s*:", re.IGNORECASE
)
Verdict = tuple[str, str]  # reason, detail


def screen(
    candidates: Sequence[Candidate],
    train_rows: Sequence[Row],
    embedder: Embedder,
    foreign_questions: Iterable[str],
    foreign_texts: Collection[str],
    min_similarity: float,
) -> list[Verdict | None]:
    """Return (reason, detail) for each candidate, None for one that passes every test.

    generation_failed: the LM or the parser failed. format: no proper question, or it copies the clause.
    duplicate: ROUGE-L F >= 0.7 with a train question on the same contract or one that came through before.
    drift: cosine with the seed question (kind "ask": with the passage) under `min_similarity`.
    overlap: ROUGE-L F >= 0.7 with a foreign (dev or test) question, or 8 words in a row of a foreign text.
    """
    verdicts = [_malformed(candidate) for candidate in candidates]
    fine = [n for n, verdict in enumerate(verdicts) if verdict is None]
    similarity = dict(zip(fine, _similarities([candidates[n] for n in fine], embedder)))
    copied = _shared_shingles([candidates[n]["question"] for n in fine], foreign_texts)
    foreign = Known(foreign_questions)
    own: dict[str, Known] = {}
    for row in train_rows:
        own.setdefault(row["contract"], Known()).add(row["question"])
    for n in fine:
        question, known = candidates[n]["question"], own.setdefault(candidates[n]["contract"], Known())
        if near := known.find(question, MAX_ROUGE):
            verdicts[n] = ("duplicate", f"ROUGE-L {near[1]:.2f} with: {near[0]}")
        elif similarity[n] < min_similarity:
            verdicts[n] = ("drift", f"cosine {similarity[n]:.2f}, at least {min_similarity} wanted")
        elif near := foreign.find(question, MAX_ROUGE):
            verdicts[n] = ("overlap", f"ROUGE-L {near[1]:.2f} with a dev or test question: {near[0]}")
        elif run := next((run for run in sorted(shingles(tokens(question), SHINGLE)) if run in copied), None):
            verdicts[n] = ("overlap", f"words of a dev or test contract: {' '.join(run)}")
        else:
            known.add(question)
    return verdicts


def _malformed(candidate: Candidate) -> Verdict | None:
    if candidate["error"] is not None:
        return ("generation_failed", candidate["error"])
    question, found = candidate["question"], tokens(candidate["question"])
    if not question.endswith("?"):
        return ("format", "empty" if not question else "does not end with a question mark")
    if not WORDS[0] <= len(found) <= WORDS[1]:
        return ("format", f"{len(found)} words, {WORDS[0]} to {WORDS[1]} wanted")
    if mark := _PLACEHOLDER.search(question) or _ROLE.search(question):
        return ("format", f"holds a placeholder or a role mark: {mark.group()}")
    clause = tokens(candidate["clause"])
    if shingles(found, min(SHINGLE, len(found))) & shingles(clause, min(SHINGLE, len(found))):
        return ("format", f"copies {min(SHINGLE, len(found))} words in a row of the clause")
    return None


def _similarities(candidates: Sequence[Candidate], embedder: Embedder) -> list[float]:
    if not candidates:
        return []
    questions = embedder.encode([candidate["question"] for candidate in candidates])
    sources = embedder.encode([candidate["seed_question"] or candidate["clause"] for candidate in candidates])
    return (questions * sources).sum(axis=1).tolist()


def _shared_shingles(questions: Sequence[str], texts: Collection[str]) -> set[tuple[str, ...]]:
    """Return the runs of 8 words that a question shares with a text."""
    wanted = {run for question in questions for run in shingles(tokens(question), SHINGLE)}
    if not wanted:
        return set()
    return {run for text in texts for run in shingles(tokens(text), SHINGLE) & wanted}
