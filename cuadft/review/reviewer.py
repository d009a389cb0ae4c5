"""Ask a system of a run its questions about contracts of one's own.

The system is loaded once and answers all questions about a contract in one batch, as it does in the run. A finding says
of one question whether the contract holds such a clause, and quotes it. For example:

    reviewer = Reviewer.load("runs/quickstart")
    (document,) = read_documents("supply.pdf")
    review = reviewer.review(document)
    review.findings[0].state, review.findings[0].quotes[0].text

The states follow from the run's calibrated threshold t, the probability of the clause from which an answer pays:
"absent" below t / 2; "sure" from 1 - t / 2 on, if the quote is right more likely than not; "unsure" between, and for a
question that the run has no calibration for.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from cuadft.core import runs
from cuadft.core.errors import InputError
from cuadft.core.files import value_hash
from cuadft.data import rows, splits
from cuadft.data.documents import Document
from cuadft.data.passages import cut_passages
from cuadft.data.schema import Schema, naming, run_schema
from cuadft.feedback.corrections import LIKELY
from cuadft.rag.systems import System
from cuadft.retrieval import saved

STATES = ("sure", "unsure", "absent", "failed")
MOST_QUESTIONS, LONGEST_QUESTION = 500, 1000  # of a file; characters
BACKGROUND = 3000  # passages of the run's own contracts beside the reviewed one, among which words are weighed


@dataclass(frozen=True)
class Question:
    """What is asked: its text, and the name under which its answer is shown (a clause category)."""

    category: str
    text: str


@dataclass(frozen=True)
class Quoted:
    """Words of the contract, at [start, end) of its text; p: the probability that they answer the question.

    answer: whether the system answers with them; else they are the likeliest place only, to be looked at. start, end
    and page are None where the words stand nowhere in the contract, page also where there are no pages.
    """

    text: str
    start: int | None
    end: int | None
    page: int | None
    p: float | None
    answer: bool


@dataclass(frozen=True)
class Finding:
    """What is found about one question: `state` is one of STATES, p_clause how likely there is such a clause.

    p_clause is None where nothing is calibrated; "no such clause" has the probability 1 - p_clause.
    """

    category: str
    question: str
    state: str
    p_clause: float | None
    quotes: tuple[Quoted, ...]
    error: str = ""


@dataclass(frozen=True)
class Review:
    """One contract with its findings, in the order of the questions.

    key: of contract, questions and system. known: how the run knows this contract from training, "" if it does not.
    document_name, clause_name: the schema's words, in which the review is shown.
    """

    key: str
    document: Document
    run: str
    system: str
    known: str
    threshold: float
    seconds: float
    findings: tuple[Finding, ...]
    document_name: str = "contract"
    clause_name: str = "clause"

    @property
    def naming(self) -> dict[str, str]:
        """The words in which the review is shown, see `data.schema.naming`."""
        return naming(self.document_name, self.clause_name)

    def record(self) -> dict[str, Any]:
        """Return the review as JSON-able values."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Review:
        """Return the review of a record; raises InputError if it is none."""
        try:
            given = record["document"]
            parts = {name: tuple(given[name]) for name in ("page_starts", "unread")}
            findings = [
                Finding(**each | {"quotes": tuple(Quoted(**quote) for quote in each["quotes"])})
                for each in record["findings"]
            ]
            return cls(**record | {"document": Document(**given | parts), "findings": tuple(findings)})
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"A line of the reviews is not one ({error!r}): delete it, and review again.") from error

    def counts(self) -> dict[str, int]:
        """Return how many findings are in each state."""
        return {state: sum(each.state == state for each in self.findings) for state in STATES}


def standard_questions(schema: Schema) -> list[Question]:
    """Return the questions of a schema, in its order and wording."""
    return [Question(each.name, each.question) for each in schema.categories.values()]


def read_questions(path: str | Path) -> list[Question]:
    """Return the questions of a file: a text with one a line, or a table with the columns question and category.

    Raises InputError on an unreadable file, and on too many or too long questions.
    """
    from cuadft.selfinstruct.own import read_own_questions

    path = runs.resolve_path(path)
    if path.suffix.lower() == ".txt" and path.is_file():
        found = [("", " ".join(line.split())) for line in path.read_text("utf-8-sig", "replace").splitlines()]
    else:
        found = [(row.values["category"], row.values["question"]) for row in read_own_questions(path)]
    made = {text: Question(category or text, text) for category, text in found if text}
    if not 0 < len(made) <= MOST_QUESTIONS or max(map(len, made)) > LONGEST_QUESTION:
        allowed = f"1 to {MOST_QUESTIONS} of at most {LONGEST_QUESTION} characters each"
        raise InputError(f"{path} holds {len(made)} questions, the longest of them may be too long: give {allowed}.")
    return list(made.values())


class Reviewer:
    """A system of a run, loaded once; not for several threads at once."""

    def __init__(self, iteration: runs.Iteration, name: str, system: System) -> None:
        """Take a system that `rag.systems.recorded_system` has built."""
        self.iteration, self.name, self.system = iteration, name, system
        self.run, self.label = iteration.run, runs.champion_label(system.record)
        self._retriever = system.program.retriever
        if self._retriever.cutting is None:
            raise InputError(
                f"{self.run}: the search does not say how its passages were cut: run 02_rag_compile again."
            )
        self.schema = run_schema(iteration)
        self._background = self._retriever.passages[:BACKGROUND]
        self._records = {each["title"]: each for each in rows.contract_records(self.run, iteration.number)}
        self._titles = {each["text"]: title for title, each in self._records.items()}

    @classmethod
    def load(cls, run: str | Path, *, system: str = "", iteration: int | None = None) -> Reviewer:
        """Load a system of a run: "" for its champion, else a system of an iteration (None: the newest one).

        Raises InputError if there is no such run, iteration or system, or if a part of it is missing.
        """
        from cuadft.rag import systems

        found, name = systems.asked_system(runs.resolve_path(run), system, iteration)
        return cls(found, name, systems.recorded_system(found, name))

    def key(self, document: Document, questions: Sequence[Question] = ()) -> str:
        """Return the key of a review, 16 hexadecimal digits: of the contract, the questions and the system."""
        from cuadft.rag.calibration import parts_as_json
        from cuadft.rag.inference import answers_fingerprint

        program = self.system.program
        program.retriever = self._retriever
        system = [answers_fingerprint(program, self.system.lm), program.system and parts_as_json(program.system)]
        return value_hash(
            [document.text, [asdict(each) for each in questions or standard_questions(self.schema)], system]
        )[:16]

    def review(self, document: Document, questions: Sequence[Question] = ()) -> Review:
        """Ask all questions (by default the schema's) about a document in one batch; a failed one carries its error."""
        from cuadft.rag.inference import answer_batch

        started, key = time.perf_counter(), self.key(document, questions)
        title = self._titles.get(document.text, f"review {document.key}")  # the run's own: each has its fold
        size, overlap = self._retriever.cutting
        own = cut_passages(document.text, contract=title, size=size, overlap=overlap)
        others = [passage for passage in self._background if passage.contract != title]
        self.system.program.retriever = self._retriever.holding([*others, *own])
        asked = questions or standard_questions(self.schema)
        named = {"contract": title, "answers": []}
        wanted = [{"id": f"{n}", "question": each.text} | named for n, each in enumerate(asked)]
        made = answer_batch(self.system.program, self.system.lm, wanted, self.system.batch_size)
        findings = [self._finding(each, prediction, document) for each, prediction in zip(asked, made, strict=True)]
        threshold, seconds = self.system.program.threshold, round(time.perf_counter() - started, 2)
        known = self._known_from(document.text)
        names = self.schema.document, self.schema.clause
        return Review(key, document, self.run.name, self.label, known, threshold, seconds, tuple(findings), *names)

    def _known_from(self, text: str) -> str:
        """Return how the run has learned from a text or from one like it, by its words and not by its name."""
        titles, known = self._learned
        near = known.nearest(text)
        if near is None:
            return ""
        title, how = titles[near]
        alike = "is" if self._titles.get(text) == title else "shares half its wording with"
        return f"{alike} '{title}', {how} in this run"

    @cached_property
    def _learned(self) -> tuple[list[tuple[str, str]], splits.KnownTexts]:
        learned = saved.learned_by_run(self.iteration, self._records.values())
        titles = [(title, how) for title, how in learned.items() if title in self._records]
        return titles, splits.KnownTexts([self._records[title]["text"] for title, _ in titles])

    def _finding(self, asked: Question, prediction: Mapping[str, Any], document: Document) -> Finding:
        if prediction["error"] is not None:
            return Finding(asked.category, asked.text, "failed", None, (), prediction["error"])
        quotes = [_quoted(quote, document) for quote in prediction["quotes"]]
        p = prediction["p_exists"]
        state = _state(p if prediction["calibrated"] else None, quotes, self.system.program.threshold)
        shown = [quote for quote in quotes if quote.answer]
        possible = quotes[:1] if state == "unsure" else []
        return Finding(asked.category, asked.text, state, p, tuple(shown or possible))


def _quoted(quote: Mapping[str, Any], document: Document) -> Quoted:
    """Return a quote of a prediction with its words as they stand in the document."""
    start, end = quote["span"] or (None, None)
    page = None if start is None else document.page_of(start)
    return Quoted(quote["text"], start, end, page, quote["p"], quote["quoted"])


def _state(p: float | None, quotes: Sequence[Quoted], threshold: float) -> str:
    from cuadft.rag.confidence import ABSENT_SHARE

    doubt = ABSENT_SHARE * threshold
    if p is not None and p < doubt:
        return "absent"
    answers = [quote for quote in quotes if quote.answer]
    return "sure" if p is not None and p >= 1 - doubt and answers and answers[0].p >= LIKELY else "unsure"


def renamed(review: Review, document: Document) -> Review:
    """Return a finished review of the same text as that of this document, which may have another name and file."""
    return replace(review, document=document)
