"""Filter candidate questions: what passes every step becomes a row to train on, the rest gets a reason.

The steps go from the cheapest to the dearest (see STEPS). All but the last need no language model: the reply can be
read, the question is well-formed, it still asks for its clause, it copies no held-out contract, and it repeats no
question of the data set. The last step, the round trip, has a language model answer the question and compares its
answer with what it should be. For example:

    with dspy.context(lm=lm, adapter=rag.PlainAdapter()):
        accepted, rejected = filter_questions(candidates, train_rows, embedder=embedder, held_out_rows=dev_rows)
    rejected[0]["step"], rejected[0]["reason"]  # "format", "format"
    rejected[0]["detail"]  # "2 words, 4 to 50 wanted"

CUAD asks its 41 official questions of every contract, so equal words alone make no duplicate: a question repeats
another only if it is also about the same contract or about a near-identical clause (see `AskedQuestions`).
"""

from __future__ import annotations

import itertools
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from cuadft.core.text import is_unspaced, quotable, split_words
from cuadft.data.contracts import Row
from cuadft.data.passages import locate_words
from cuadft.data.schema import NO_CATEGORY, Schema, packaged_schema
from cuadft.evaluation.text_scores import KnownTexts, is_refusal, rouge_tokens, shingles, token_f1
from cuadft.selfinstruct.prompts import ROUND_TRIP, call_generator
from cuadft.selfinstruct.sources import Candidate, refuse_held_out

if TYPE_CHECKING:
    from cuadft.retrieval.embedder import Embedder

MAX_ROUGE = 0.7  # Self-Instruct's limit (Wang et al., 2023, section 2.2)
SAME_CLAUSE = 0.8  # Jaccard similarity of word sequences from which two clauses count as one
CLAUSE_SHINGLE = 3  # words in a row; a single changed name in a sentence of twenty words leaves two clauses
SHINGLE = 8  # words in a row that two texts don't share by chance
QUESTION_WORDS = (4, 50)  # fewest and most words of a question
KEYWORDS = (1, 12)  # fewest and most words of a query in keywords
NAMED_KEYWORDS = 25  # most words of a query by a template or a user, which may name its contract
MIN_SIMILARITY = 0.3  # least cosine of a question with what it comes from
MIN_F1 = 0.5  # least token F1 between the gold and the answer to a question
QUOTED_WORDS = 3  # fewest words of a quotation that counts as an answer
# What each step demands, in the order of the steps: what costs least comes first. A question that a step before
# "duplicate" rejects does not count as asked, so that a later one may repeat it; one that only the round trip rejects
# does count.
STEPS = {
    "reply": "the language model's reply can be read",
    "reference": "own questions: contract, category and answer are found in the training data",
    "format": f"{QUESTION_WORDS[0]} to {QUESTION_WORDS[1]} words and a question mark, "
    f"or {KEYWORDS[0]} to {KEYWORDS[1]} keywords (to {NAMED_KEYWORDS} in templates and own questions); "
    f"no placeholder or role mark, no {SHINGLE} words in a row of the clause",
    "drift": f"cosine of at least {MIN_SIMILARITY} with the seed's question or clause (without one: with the passage)",
    "overlap": f"no {SHINGLE} words in a row of a held-out contract, ROUGE-L under {MAX_ROUGE} with its questions "
    "but for those that training contracts are asked, too",
    "duplicate": f"ROUGE-L under {MAX_ROUGE} with every question on the same contract or on a near-identical clause "
    "(of the same category, if the label is certain)",
    "round trip": f"asked it, the LM gives the gold (token F1 of at least {MIN_F1}) or quotes {QUOTED_WORDS} words; "
    "templates and own questions don't need it",
}
REASONS = ("generation_failed", "reference", "format", "drift", "overlap", "duplicate", "unanswerable")
KIND_LABELS = {  # kind of candidate -> its name in a table
    "rephrase": "synthetic, rephrased",
    "ask": "synthetic, new question",
    "template": "template",
    "own": "own",
}
Rejection = tuple[str, str] | None  # reason and detail, None if the candidate passes
_PLACEHOLDER = re.compile(r"\[[^\]]*\]|\{[^}]*\}|<[^>]*>|_{3,}|\*{3,}|\bX{3,}\b|#{2,}")
_ROLE = re.compile(
    r"<\||\|>|\b(user|assistant|system|human|question|answer|category|clause|passage|style|keywords)\s*:", re.IGNORECASE
)
# A small model that is asked for keywords often answers the question instead.
_SENTENCE = re.compile(
    r"\A(yes|no|the|this|it|there|we|you|i)\b|\b(is|are|was|were|has|have|does|do|shall|will|must|can|cannot)\b",
    re.IGNORECASE,
)
_QUOTATION_MARKS = " .。\"'“”„‘’«»「」『』"  # what a language model puts around a quotation


def filter_questions(
    candidates: Sequence[Candidate],
    train_rows: Sequence[Row],
    *,
    embedder: Embedder,
    held_out_rows: Sequence[Row] = (),
    held_out_texts: Mapping[str, str] | None = None,
    earlier: Sequence[Row] = (),
    threads: int = 1,
    schema: Schema | None = None,
) -> tuple[list[Row], list[Candidate]]:
    """Return (rows to train on, rejected candidates with `step`, `reason`, `detail`): every candidate is in one.

    The candidates take the STEPS in order, and the rejected ones are in that order, too; of two near-duplicates the
    first is kept. held_out_texts: title -> text of held-out contracts. earlier: rows accepted in earlier iterations; if
    one has the id of a candidate, the accepted row takes the next free number. schema: whose words the round trip asks
    in; None is CUAD's. Call it inside dspy.context(lm=..., adapter=...) if an LM must confirm a candidate. Raises
    InputError if a row or candidate is of a held-out contract.
    """
    texts = dict(held_out_texts or {})
    used = [*train_rows, *earlier, *(c for c in candidates if not c.get("fault"))]
    refuse_held_out([row["contract"] for row in used], {row["contract"] for row in held_out_rows} | set(texts))
    asked = AskedQuestions([*train_rows, *earlier])
    trained = {row["question"] for row in train_rows}  # asked of training contracts in the same words: not foreign
    foreign = KnownTexts(row["question"] for row in held_out_rows if row["question"] not in trained)
    steps = {
        "reply": lambda some: [("generation_failed", c["error"]) if c["error"] is not None else None for c in some],
        "reference": lambda some: [("reference", c["fault"]) if c.get("fault") else None for c in some],
        "format": lambda some: [("format", fault) if (fault := _format_fault(c)) else None for c in some],
        "drift": lambda some: _drifted(some, embedder),
        "overlap": lambda some: _overlapping(some, foreign, texts.values()),
        "duplicate": lambda some: [_repeated(c, asked) for c in some],
        "round trip": lambda some: _round_trips(some, schema or packaged_schema(), threads),
    }
    left, rejected = [dict(candidate) for candidate in candidates], []
    for name, step in steps.items():
        found = list(zip(left, step(left)))
        rejected += [c | {"step": name, "reason": fault[0], "detail": fault[1]} for c, fault in found if fault]
        left = [candidate for candidate, fault in found if not fault]
    return _numbered_rows(left, {row["id"] for row in [*train_rows, *earlier]}), rejected


def _numbered_rows(candidates: Iterable[Candidate], used: set[str]) -> list[Row]:
    """Return the rows of accepted candidates; an id that an earlier draw of the seed has used gets a free number."""
    rows = []
    for candidate in candidates:
        name = candidate["id"]
        stem, number = re.fullmatch(r"(.*?)(\d*)", name, re.DOTALL).groups()
        later = itertools.count(int(number or 1))
        while name in used:
            name = f"{stem}{next(later)}"
        used.add(name)
        own = {key: candidate[key] for key in ("contract", "contract_type", "category", "question", "answers")}
        source = candidate["kind"] if candidate["kind"] in ("template", "own") else "synthetic"
        rows.append(Row(id=name, is_impossible=not own["answers"], source=source, **own))
    return rows


# --- the steps


def _format_fault(candidate: Candidate) -> str:
    """Return what is wrong with the form of a question, "" if it is well-formed."""
    question, style = candidate["question"], candidate.get("style", "")
    words, scale = rouge_tokens(question), _letters_a_word(question)
    # judged as keywords if they were asked for or allowed, and if it ends without a mark
    in_keywords = style in ("keyword", "any") and bool(question) and question[-1] not in "?.!:;,？؟。！：；，"
    if in_keywords:
        least, most = KEYWORDS[0], KEYWORDS[1] if style == "keyword" else NAMED_KEYWORDS
        if not least <= len(words) <= most * scale:
            return f"{len(words)} keywords, {least} to {most} wanted, or a question mark"
        if style == "keyword" and _SENTENCE.search(question):
            return "a sentence, keywords wanted"
    elif not question.endswith(("?", "？", "؟")):
        return "does not end with a question mark" if question else "empty"
    elif not QUESTION_WORDS[0] <= len(words) <= QUESTION_WORDS[1] * scale:
        return f"{len(words)} words, {QUESTION_WORDS[0]} to {QUESTION_WORDS[1]} wanted"
    if mark := _PLACEHOLDER.search(question) or _ROLE.search(question):
        return f"holds a placeholder or a role mark: {mark.group()}"
    run = SHINGLE * scale if in_keywords else min(SHINGLE * scale, len(words))
    copies = shingles(words, run) & shingles(rouge_tokens(candidate["clause"]), run)
    return f"copies {run} words in a row of the clause" if copies else ""


def _letters_a_word(text: str) -> int:
    """Return how many of the tokens of ROUGE are as much as a word: Chinese has two letters a word."""
    return 2 if is_unspaced(text) else 1


def _drifted(candidates: Sequence[Candidate], embedder: Embedder) -> list[Rejection]:
    pairs = [(c["question"], c["seed_question"] or c["passage"] or c["clause"]) for c in candidates]
    best = _cosines(pairs, embedder)
    # Clauses are long, so a clause is embedded only if the candidate is not close enough to its seed's question.
    low = [n for n, cosine in enumerate(best) if cosine < MIN_SIMILARITY and candidates[n]["clause"]]
    pairs = [(candidates[n]["question"], candidates[n]["clause"]) for n in low]
    for n, cosine in zip(low, _cosines(pairs, embedder)):
        best[n] = max(best[n], cosine)
    wanted = f"at least {MIN_SIMILARITY} wanted"
    return [None if found >= MIN_SIMILARITY else ("drift", f"cosine {found:.2f}, {wanted}") for found in best]


def _cosines(pairs: Sequence[tuple[str, str]], embedder: Embedder) -> list[float]:
    texts = list(dict.fromkeys(text for pair in pairs for text in pair))
    place = {text: n for n, text in enumerate(texts)}
    vectors = embedder.encode(texts) if texts else []
    return [float(vectors[place[one]] @ vectors[place[other]]) for one, other in pairs]


def _overlapping(candidates: Sequence[Candidate], foreign: KnownTexts, texts: Collection[str]) -> list[Rejection]:
    """Reject questions that are near a question of a held-out contract or copy words of its text."""
    sizes = {c["question"]: SHINGLE * _letters_a_word(c["question"]) for c in candidates}
    runs = {question: shingles(rouge_tokens(question), size) for question, size in sizes.items()}
    wanted = set().union(*runs.values())
    copied = {
        run
        for text in texts
        if wanted
        for size in set(sizes.values())
        for run in shingles(rouge_tokens(text), size) & wanted
    }
    rejections: list[Rejection] = []
    for question in (c["question"] for c in candidates):
        if near := foreign.find(question, MAX_ROUGE):
            rejections.append(("overlap", f"ROUGE-L {near[1]:.2f} with a held-out question: {near[0]}"))
        else:
            run = min(runs[question] & copied, default=None)
            rejections.append(("overlap", f"words of a held-out contract: {' '.join(run)}") if run else None)
    return rejections


def _repeated(candidate: Candidate, asked: AskedQuestions) -> Rejection:
    if evidence := asked.find(candidate):
        return ("duplicate", evidence)
    asked.add(candidate)
    return None


def _round_trips(candidates: Sequence[Candidate], schema: Schema, threads: int) -> list[Rejection]:
    """Ask a language model the new questions, in dspy.context(lm=..., adapter=...), and check what it answers.

    What it must answer depends on the candidate's `expect`. "gold": token F1 of at least MIN_F1 with the gold spans.
    "quotation": three words of the passage in a row, which become the candidate's answer. "": it is not asked and
    passes.
    """
    asked = [c for c in candidates if c["expect"]]
    inputs = [{"passage": quotable(c["passage"]), "question": quotable(c["question"])} for c in asked]
    replies = iter(call_generator(ROUND_TRIP, inputs, schema, threads))
    return [_answer_fault(c, *next(replies)) if c["expect"] else None for c in candidates]


def _answer_fault(candidate: Candidate, answer: str, error: str | None) -> Rejection:
    if error is not None:
        return ("generation_failed", f"round trip: {error}")
    if is_refusal(answer):
        return ("unanswerable", "the LM found no answer in the passage")
    if candidate["expect"] == "gold":
        f1 = token_f1(answer, [span["text"] for span in candidate["answers"]])
        return None if f1 >= MIN_F1 else ("unanswerable", f"token F1 {f1:.2f} with the gold: {answer[:200]}")
    passage = candidate["passage"]
    span = locate_words(answer, passage) or locate_words(answer.strip(_QUOTATION_MARKS), passage)
    if not span or len(split_words(passage[slice(*span)])) < QUOTED_WORDS:
        return ("unanswerable", f"not a quotation of {QUOTED_WORDS} words or more: {answer[:200]}")
    candidate["answers"] = [{"text": passage[slice(*span)], "start": candidate["start"] + span[0]}]
    return None


# --- what a data set asks already


class AskedQuestions:
    """Questions that a data set holds, with their contracts and clauses; `find` says whether a new one repeats one."""

    def __init__(self, rows: Iterable[Mapping[str, Any]] = ()):
        """Take the rows of the data set so far; `add` takes more."""
        self._known, self._clauses = KnownTexts(), ClauseNumbers()
        self._near: dict[str, list[tuple[str, float]]] = {}  # a text -> all texts seen that are near it
        self._asked: dict[str, list[tuple[str, int | None, str]]] = defaultdict(list)  # contract, clause, category
        for row in rows:
            self.add(row)

    def add(self, row: Mapping[str, Any]) -> None:
        """Remember the question of a row or candidate."""
        self._see(row["question"])
        self._asked[row["question"]].append((row["contract"], self._clauses.number(row), row["category"]))

    def find(self, row: Mapping[str, Any]) -> str | None:
        """Return the evidence that a row repeats an earlier one, or None.

        A row repeats an earlier one if its question has ROUGE-L F >= 0.7 with one on the same contract, or with one on
        another contract whose clause is near-identical (Jaccard similarity >= 0.8 of three-word sequences). If the
        candidate's label is certain (an empty `expect`), the earlier question must also be of the same category or in
        the same words: "Is there a cap on liability?" and "Is there no cap on liability?" are two questions.
        """
        number = self._clauses.number(row)
        for text, score in self._see(row["question"]):
            any_category = score == 1 or row.get("expect", "") != ""
            for contract, clause, category in self._asked.get(text, ()):
                if not any_category and category != row["category"]:
                    continue
                if contract == row["contract"]:
                    return f"ROUGE-L {score:.2f} with: {text}"
                if clause is not None and clause == number:
                    return f"ROUGE-L {score:.2f} with a question on the same clause of {contract}: {text}"
        return None

    def _see(self, text: str) -> list[tuple[str, float]]:
        """Return the near texts with their scores, the text itself first; each distinct text is compared only once."""
        if text not in self._near:
            near = list(self._known.near(text, MAX_ROUGE))
            for other, score in near:
                self._near[other].append((text, score))
            self._near[text] = [(text, 1.0), *near]
            self._known.add(text)
        return self._near[text]


class ClauseNumbers:
    """Give clauses numbers so that near-identical clauses share one."""

    def __init__(self) -> None:
        """Start without a clause."""
        self._numbers: dict[tuple[str, ...], int] = {}
        self._sets: list[set[tuple[str, ...]]] = []
        self._holders: dict[tuple[str, ...], list[int]] = defaultdict(list)

    def number(self, row: Mapping[str, Any]) -> int | None:
        """Return the number of the first clause seen that a row's clause nearly equals, or a new number.

        The clause of a row or candidate is its gold spans, else its "clause". None: the row has no clause.
        """
        clause = " ".join(span["text"] for span in row["answers"]) or row.get("clause", "")
        found = tuple(rouge_tokens(clause)) or (clause,)
        if clause and found not in self._numbers:
            self._numbers[found] = self._place(found)
        return self._numbers.get(found)

    def _place(self, found: tuple[str, ...]) -> int:
        own = shingles(found, min(CLAUSE_SHINGLE, len(found)))
        # Sets with Jaccard similarity s leave at most 1 - s of either's members unshared: one more finds the other.
        unshared = int((1 - SAME_CLAUSE) * len(own) + 1e-9)
        rarest = sorted(own, key=lambda run: (len(self._holders[run]), run))[: unshared + 1]
        for n in sorted({n for run in rarest for n in self._holders[run]}):
            if len(own & self._sets[n]) >= SAME_CLAUSE * len(own | self._sets[n]):
                return n
        self._sets.append(own)
        for run in own:
            self._holders[run].append(len(self._sets) - 1)
        return len(self._sets) - 1


# --- tables of what the filters let through: by step, and by source and reason


def steps_table(accepted: Sequence[Row], rejected: Sequence[Candidate]) -> pd.DataFrame:
    """Return a row for each step, in order: step, threshold, in, rejected, out, share.

    share: the rejected ones among the candidates that came in (0 if no candidate came in). A round trip whose call
    failed counts as rejected by that step.
    """
    lost = pd.Series([c["step"] for c in rejected], dtype=object).value_counts().reindex(list(STEPS), fill_value=0)
    left = len(accepted) + len(rejected) - lost.cumsum()
    table = pd.DataFrame({"threshold": STEPS, "in": left + lost, "rejected": lost, "out": left})
    return table.assign(share=lost / (left + lost).clip(lower=1)).rename_axis("step").reset_index()


def outcomes(accepted: Sequence[Row], rejected: Sequence[Candidate]) -> pd.DataFrame:
    """Return how many candidates of each source (rows) were accepted, or rejected for each reason (columns)."""
    found = [(_kind_of(row), "accepted") for row in accepted] + [(c["kind"], c["reason"]) for c in rejected]
    frame = pd.DataFrame(found, columns=["source", "outcome"])
    counts = pd.crosstab(frame["source"], frame["outcome"])
    counts = counts.reindex(index=list(KIND_LABELS), columns=["accepted", *REASONS], fill_value=0)
    return counts.astype(int).rename(KIND_LABELS)


def _kind_of(row: Row) -> str:
    """Return the kind of candidate that an accepted row was."""
    written = "ask" if row["category"] == NO_CATEGORY else "rephrase"
    return written if row["source"] == "synthetic" else row["source"]
