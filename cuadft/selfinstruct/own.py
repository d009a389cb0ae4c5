"""Read a user's own questions from a file and place them in the training contracts, as candidates for the filters.

The file (CSV, JSON lines or JSON) has the columns question, contract, category and answer; all but the first may be
empty. What a question is asked of depends on what its row gives:

- An answer: its words are looked for in the named contract, or in all, where exactly one must hold them. An answer that
  is the refusal sentence needs a named contract.
- A category, without an answer: the category's annotated clauses are the answers, in the named contract or in a few
  drawn ones.
- Neither: a question like an official one is taken for its category, and a language model must confirm the answers.
- Nothing that fits: the passage most like the question is taken, and a language model must quote the answer from it.

A contract may also be named by its full title inside the question. A question that can't be placed becomes a candidate
whose `fault` says why, and the filter rejects it with this reason. For example:

    records = read_own_questions("own_questions.csv")
    own = OwnQuestions(train_rows, passages_by_contract, held_out=dev_titles, embedder=embedder)
    accepted, rejected = filter_questions(own.candidates(records), train_rows, embedder=embedder)
"""

from __future__ import annotations

import difflib
import random
import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.files import TableRow
from cuadft.core.text import fold_letters, fold_words
from cuadft.data import cuad
from cuadft.data.contracts import Row
from cuadft.data.passages import Passage, join_passages, locate_words
from cuadft.evaluation.text_scores import is_refusal
from cuadft.retrieval.classifier import QuestionMatcher
from cuadft.selfinstruct.sources import MADE_SOURCES, Candidate, PassageFinder, seed_from_passage, seed_from_row

if TYPE_CHECKING:
    from cuadft.retrieval.embedder import Embedder

QUESTION_COLUMNS = ("question", "contract", "category", "answer")
COLUMN_ALIASES = {"contracttitle": "contract", "contractname": "contract", "title": "contract"}
PER_QUESTION = 3  # contracts of which a question is asked that names a category and no contract
SAME_CATEGORY = 0.4  # least cosine with an official question for a question to be taken for one of its category


class _NotPlaced(Exception):
    """The question can't be placed in a training contract; the text says why."""


def read_own_questions(path: str | Path) -> list[TableRow]:
    """Return the rows of a CSV, JSON-lines or JSON file, each with the text of all QUESTION_COLUMNS ("" if missing).

    Case and punctuation of the columns' names don't matter. If two columns mean the same thing, the first that is not
    empty counts. Other columns are left out with a warning. Raises InputError if the file can't be read or has no
    column 'question'.
    """
    records, meant = [], {}
    for record in files.read_table(path):
        values = dict.fromkeys(QUESTION_COLUMNS, "")
        for name, value in record.values.items():
            column = meant[name] = COLUMN_ALIASES.get(fold_letters(name), fold_letters(name))
            if column in values and value is not None:
                values[column] = values[column] or " ".join(str(value).split())
        records.append(TableRow(record.where, values))
    wanted = ", ".join(QUESTION_COLUMNS)
    if "question" not in meant.values():
        raise InputError(
            f"{path} has no column 'question': name its columns {wanted}; all but the first may be absent."
        )
    if others := [name for name, column in meant.items() if column not in QUESTION_COLUMNS]:
        warnings.warn(f"{path}: columns left out: {', '.join(others)} (those read: {wanted})", stacklevel=2)
    return records


class OwnQuestions:
    """Turn records of `read_own_questions` into candidates; one that can't be placed has its reason in `fault`."""

    def __init__(
        self,
        train_rows: Sequence[Row],
        passages: Mapping[str, Sequence[Passage]],
        *,
        held_out: Collection[str] = (),
        embedder: Embedder | None = None,
        seed: int = 7,
    ):
        """Take rows and passages of train contracts, and the titles of held-out contracts (`held_out`).

        embedder: recognises the category of a question that names neither category nor contract (None: the question's
        words alone are compared). seed: of the random draw of the contracts of which a question is asked that names
        none. Raises InputError if a row or passage comes from a held-out contract.
        """
        if leaked := sorted({*passages, *(row["contract"] for row in train_rows)} & set(held_out)):
            raise InputError(f"Rows or passages of held-out contract {leaked[0]!r}: give train contracts only.")
        self._rows = [row for row in train_rows if row["source"] not in MADE_SOURCES]
        self._passages = {title: own for title, own in passages.items() if own}
        self._texts = {title: join_passages(own) for title, own in self._passages.items()}  # text, offset of its start
        self._titles = {fold_letters(title): title for title in self._passages}
        self._held_out = {fold_letters(title): title for title in held_out}
        self._types = {row["contract"]: row["contract_type"] for row in train_rows}
        known = {row["question"]: row["category"] for row in self._rows}
        self._matcher = QuestionMatcher(known, embedder, least=SAME_CATEGORY) if known else None
        self._finder, self._seed = PassageFinder(self._passages), seed

    def candidates(self, records: Sequence[TableRow]) -> list[Candidate]:
        """Return one candidate a question, several for a question that is asked of several contracts."""
        made = []
        for number, record in enumerate(records, 1):
            question = record.values["question"]
            blank = dict.fromkeys(("contract_type", "seed_question", "clause", "passage", "expect"), "")
            blank |= {name: record.values[name] for name in ("contract", "category")} | {"answers": [], "start": 0}
            try:
                found = self._place(**record.values) or [blank]
            except _NotPlaced as fault:
                found = [blank | {"fault": str(fault)}]
            asked = {"question": question, "raw": question, "kind": "own", "style": "any", "error": None}
            for n, candidate in enumerate(found, 1):
                seed = f"{candidate['contract']}__own {number}"
                made.append(candidate | asked | {"id": f"{seed}~o{n}", "seed": seed, "where": record.where})
        return made

    def _place(self, question: str, contract: str, category: str, answer: str) -> list[Candidate]:
        """Return what a question is asked of, one candidate a contract; [] if there is no question."""
        contract = self._find_contract(contract or self._title_in(question))
        category = self._find_category(category)
        if not question:
            return []
        if answer and is_refusal(answer):
            return [self._with_refusal(question, contract, category)]
        if answer:
            return [self._with_answer(answer, contract, category)]
        guess = "" if category or contract or self._matcher is None else self._matcher.match([question])[0]
        if rows := self._rows_about(contract, category or guess):
            return [self._about_row(row, question, certain=not guess) for row in self._draw(rows, question)]
        if not (best := self._finder.best(question, contract or None, 1)):
            raise _NotPlaced("there is no text of a training contract to find an answer in")
        return [self._from_passage(best[0], category)]

    def _title_in(self, question: str) -> str:
        """Return the title that a question names in full, held-out ones first; "" if it names none or several."""
        found = [t for t in self._passages if len(fold_words(t)) > 1 and _worded(t) in _worded(question)]
        held_out = [t for t in self._held_out.values() if len(fold_words(t)) > 1 and _worded(t) in _worded(question)]
        return (held_out or found)[0] if held_out or len(found) == 1 else ""

    def _find_contract(self, title: str) -> str:
        """Return the title of the training contract that a row names; raises _NotPlaced for any other name."""
        if not title or title in self._passages:
            return title
        if found := self._titles.get(fold_letters(title)):
            return found
        if fold_letters(title) in self._held_out:
            told = "is held out (dev, test or slice): no training question may come from it"
            raise _NotPlaced(f"contract {title!r} {told}")
        near = difflib.get_close_matches(title, list(self._passages), 1, 0.4)
        hint = f" (nearest: {near[0]!r})" if near else ""
        raise _NotPlaced(f"no contract {title!r} among the {len(self._passages)} training contracts{hint}")

    def _find_category(self, name: str) -> str:
        """Return the CUAD category that a row names ("" stays ""); raises _NotPlaced for an unknown name."""
        if name and not cuad.match_category(name):
            near = ", ".join(cuad.nearest_categories(name)) or "none"
            raise _NotPlaced(f"{name!r} is no CUAD category (nearest: {near}); leave it empty if none fits")
        return cuad.match_category(name) or ""

    def _rows_about(self, contract: str, category: str | None) -> list[Row]:
        """Return the annotated rows of a category, in one contract or ("") in all."""
        return [row for row in self._rows if row["category"] == category and contract in ("", row["contract"])]

    def _draw(self, rows: Sequence[Row], question: str) -> list[Row]:
        """Draw the rows to ask of: answerable rows and one without the clause, more of either if the other is short."""
        shuffled = random.Random(f"{self._seed} {question}").sample(rows, len(rows))
        answered, lacking = ([row for row in shuffled if bool(row["answers"]) == has] for has in (True, False))
        lacking = lacking[: max(1, PER_QUESTION - len(answered))]
        return [*answered[: PER_QUESTION - len(lacking)], *lacking]

    def _about_row(self, row: Row, question: str, *, certain: bool) -> Candidate:
        """Return a row as a seed; if its clause is absent, with the passages most like the question."""
        own = seed_from_row(row, self._passages[row["contract"]])
        if not row["answers"]:
            own["passage"] = self._finder.nearest_text(question, row["contract"])
        return own | {"expect": ""} if certain else own

    def _from_passage(self, passage: Passage, category: str) -> Candidate:
        """Return a passage as a seed, of the given category if there is one."""
        own = seed_from_passage(passage, self._types.get(passage.contract, ""))
        named = {"category": category, "seed_question": f"{category}: {cuad.CATEGORIES.get(category)}"}
        return own | named if category else own

    def _with_refusal(self, question: str, contract: str, category: str) -> Candidate:
        """Return the candidate of a question to which the user's answer is that there is no such clause."""
        if not contract:
            raise _NotPlaced("an answer that says there is no such clause needs its contract: name it")
        gold = self._rows_about(contract, category)
        if gold and gold[0]["answers"]:
            words = gold[0]["answers"][0]["text"][:100]
            raise _NotPlaced(f"the answer says there is no such clause, but {category} is annotated: {words}")
        own = self._from_passage(self._finder.best(question, contract, 1)[0], category)
        return own | {"clause": "", "expect": ""}

    def _with_answer(self, answer: str, contract: str, category: str) -> Candidate:
        """Return the candidate of a question to which the user gives the answer; one contract must hold its words."""
        found = []
        for title in [contract] if contract else self._texts:
            text, shift = self._texts[title]
            if place := locate_words(answer, text):
                found.append((title, place[0] + shift, text[slice(*place)]))
        if len(found) != 1:
            where = f"does not stand in {contract!r}" if contract else "stands in no training contract"
            where = f"stands in {len(found)} training contracts: name one" if found else where
            raise _NotPlaced(f"the answer {answer[:100]!r} {where}")
        title, start, words = found[0]
        holding = [p for p in self._passages[title] if p.start < start + len(words) and start < p.end]
        text, begin = join_passages(holding)
        placed = {"clause": words, "passage": text, "start": begin, "expect": ""}
        return self._from_passage(holding[0], category) | placed | {"answers": [{"text": words, "start": start}]}


def _worded(text: str) -> str:
    """Return the words of a text with a blank around each, so that whole words of one text are found in another."""
    return f" {' '.join(fold_words(text))} "
