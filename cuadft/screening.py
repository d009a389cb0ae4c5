"""The filter's steps that need no language model: a candidate that one rejects gets a reason and evidence."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

from cuadft.asked import MAX_ROUGE, Asked
from cuadft.contracts import Row
from cuadft.rouge import Known, shingles, tokens
from cuadft.seeds import Candidate

if TYPE_CHECKING:
    from cuadft.embedder import Embedder

SHINGLE = 8  # words in a row that two texts don't share by chance
WORDS = (4, 50)  # of a question
KEYWORDS = (1, 12)  # of a query in keywords
NAMED = 25  # keywords of a template or an own question, which may name its contract
QUOTE = 3  # words from which a quotation is an answer

# In this order: what costs least first. A question that a step before "duplicate" rejects blocks no later one; one
# that only the round trip rejects does.
STEPS = {
    "reply": "the language model's reply can be read",
    "reference": "own questions: contract, category and answer are found in the training data",
    "format": f"{WORDS[0]} to {WORDS[1]} words and a question mark, or {KEYWORDS[0]} to {KEYWORDS[1]} keywords "
              f"(to {NAMED} in templates and own questions); no placeholder or role mark, no {SHINGLE} words in a "
              "row of the clause",
    "drift": "cosine of at least {min_similarity} with the seed's question or clause (without one: with the passage)",
    "overlap": f"no {SHINGLE} words in a row of a held-out contract, ROUGE-L under {MAX_ROUGE} with its questions "
               "but for those that training contracts are asked, too",
    "duplicate": f"ROUGE-L under {MAX_ROUGE} with every question on the same contract or on a near-identical clause "
                 "(of the same category, if the label is certain)",
    "round trip": f"asked it, the LM gives the gold (token F1 of at least {{min_f1}}), quotes {QUOTE} words "
                  "or, where the clause is absent, refuses; templates and own questions with a label don't need it",
}  # fmt: skip
REASONS = ("generation_failed", "reference", "format", "drift", "overlap", "duplicate", "unanswerable", "answerable")
_PLACEHOLDER = re.compile(r"\[[^\]]*\]|\{[^}]*\}|<[^>]*>|_{3,}|\*{3,}|\bX{3,}\b|#{2,}")
_ROLE = re.compile(
    r"<\||\|>|\b(user|assistant|system|human|question|answer|category|clause|passage|style|keywords)\s*:",
    re.IGNORECASE,
)
# A small model asked for keywords often answers the question instead.
_SENTENCE = re.compile(
    r"\A(yes|no|the|this|it|there|we|you|i)\b|\b(is|are|was|were|has|have|does|do|shall|will|must|can|cannot)\b",
    re.IGNORECASE,
)
Verdict = tuple[str, str]  # reason, detail
Judge = Callable[[Sequence[Candidate]], list[Verdict | None]]


def judges(
    train_rows: Sequence[Row],
    *,
    embedder: Embedder,
    foreign_questions: Iterable[str],
    foreign_texts: Collection[str],
    earlier: Iterable[Row],
    min_similarity: float,
) -> dict[str, Judge]:
    """Return the steps before the round trip: name -> function from candidates to (reason, detail) or None each.

    foreign_questions, foreign_texts: of held-out contracts; a question that train rows ask in the same words is
    not foreign. earlier: rows accepted in earlier iterations, which a new question must not repeat either.
    """
    asked = Asked([*train_rows, *earlier])
    trained = {row["question"] for row in train_rows}
    foreign = Known(question for question in foreign_questions if question not in trained)
    return {
        "reply": lambda candidates: [_unread(c) for c in candidates],
        "reference": lambda candidates: [("reference", c["fault"]) if c.get("fault") else None for c in candidates],
        "format": lambda candidates: [_malformed(c) for c in candidates],
        "drift": lambda candidates: _drifting(candidates, embedder, min_similarity),
        "overlap": lambda candidates: _foreign(candidates, foreign, foreign_texts),
        "duplicate": lambda candidates: [_repeated(c, asked) for c in candidates],
    }


def _unread(candidate: Candidate) -> Verdict | None:
    return None if candidate["error"] is None else ("generation_failed", candidate["error"])


def _malformed(candidate: Candidate) -> Verdict | None:
    question, found = candidate["question"], tokens(candidate["question"])
    style = candidate.get("style", "")
    if fault := _keyword_fault(question, style) if _in_keywords(question, style) else _question_fault(question):
        return ("format", fault)
    if mark := _PLACEHOLDER.search(question) or _ROLE.search(question):
        return ("format", f"holds a placeholder or a role mark: {mark.group()}")
    run = SHINGLE if _in_keywords(question, style) else min(SHINGLE, len(found))
    if shingles(found, run) & shingles(tokens(candidate["clause"]), run):
        return ("format", f"copies {run} words in a row of the clause")
    return None


def _in_keywords(question: str, style: str) -> bool:
    """Tell whether to judge it as a query in keywords: asked for or allowed ("any"), and without sentence marks."""
    return style in ("keyword", "any") and bool(question) and question[-1] not in "?.!:;,"


def _question_fault(question: str) -> str | None:
    count = len(tokens(question))
    if not question.endswith("?"):
        return "does not end with a question mark" if question else "empty"
    return None if WORDS[0] <= count <= WORDS[1] else f"{count} words, {WORDS[0]} to {WORDS[1]} wanted"


def _keyword_fault(question: str, style: str) -> str | None:
    count, most = len(tokens(question)), KEYWORDS[1] if style == "keyword" else NAMED
    if not KEYWORDS[0] <= count <= most:
        return f"{count} keywords, {KEYWORDS[0]} to {most} wanted, or a question mark"
    return "a sentence, keywords wanted" if style == "keyword" and _SENTENCE.search(question) else None


def _drifting(candidates: Sequence[Candidate], embedder: Embedder, least: float) -> list[Verdict | None]:
    pairs = [(c["question"], c["seed_question"] or c["passage"] or c["clause"]) for c in candidates]
    best = _cosines(pairs, embedder)
    # Clauses are long, so only those are embedded on which the verdict hangs.
    low = [n for n, cosine in enumerate(best) if cosine < least and candidates[n]["clause"]]
    pairs = [(candidates[n]["question"], candidates[n]["clause"]) for n in low]
    for n, cosine in zip(low, _cosines(pairs, embedder)):
        best[n] = max(best[n], cosine)
    return [None if found >= least else ("drift", f"cosine {found:.2f}, at least {least} wanted") for found in best]


def _cosines(pairs: Sequence[tuple[str, str]], embedder: Embedder) -> list[float]:
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    place = {text: n for n, text in enumerate(texts)}
    vectors = embedder.encode(texts) if texts else []
    return [float(vectors[place[one]] @ vectors[place[other]]) for one, other in pairs]


def _foreign(candidates: Sequence[Candidate], foreign: Known, texts: Collection[str]) -> list[Verdict | None]:
    copied = _shared_shingles({c["question"] for c in candidates}, texts)
    verdicts: list[Verdict | None] = []
    for question in (c["question"] for c in candidates):
        run = min((run for run in shingles(tokens(question), SHINGLE) if run in copied), default=None)
        if near := foreign.find(question, MAX_ROUGE):
            verdicts.append(("overlap", f"ROUGE-L {near[1]:.2f} with a held-out question: {near[0]}"))
        else:
            verdicts.append(("overlap", f"words of a held-out contract: {' '.join(run)}") if run else None)
    return verdicts


def _repeated(candidate: Candidate, asked: Asked) -> Verdict | None:
    if evidence := asked.find(candidate):
        return ("duplicate", evidence)
    asked.add(candidate)
    return None


def _shared_shingles(questions: Collection[str], texts: Collection[str]) -> set[tuple[str, ...]]:
    """Return the runs of 8 words that a question shares with a text."""
    wanted = {run for question in questions for run in shingles(tokens(question), SHINGLE)}
    if not wanted:
        return set()
    return {run for text in texts for run in shingles(tokens(text), SHINGLE) & wanted}
