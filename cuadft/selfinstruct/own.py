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
from typing import TYPE_CHECKING, Any

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.files import TableRow
from cuadft.core.text import fold_letters, fold_words
from cuadft.data import cuad
from cuadft.data.contracts import Row
from cuadft.data.passages import Passage, join_passages, locate_words
from cuadft.evaluation.text_scores import is_refusal
from cuadft.retrieval.classifier import QuestionMatcher
from cuadft.selfinstruct.sources import (
    MADE_SOURCES,
    NEAREST,
    Candidate,
    PassageFinder,
    seed_from_passage,
    seed_from_row,
)

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
    records, seen = [], {}
    for record in files.read_table(path):
        values = dict.fromkeys(QUESTION_COLUMNS, "")
        for name, value in record.values.items():
            column = _column_meant(str(name))
            seen[str(name)] = column
            if column in values and not values[column]:
                values[column] = _cell_text(value)
        records.append(TableRow(record.where, values))
    if "question" not in seen.values():
        raise InputError(
            f"{path} has no column 'question': name its columns {', '.join(QUESTION_COLUMNS)}; all but the first "
            "may be left out."
        )
    if others := [name for name, column in seen.items() if column not in QUESTION_COLUMNS]:
        told = f"columns left out: {', '.join(others)} (those read: {', '.join(QUESTION_COLUMNS)})"
        warnings.warn(f"{path}: {told}", stacklevel=2)
    return records


def _column_meant(name: str) -> str:
    return COLUMN_ALIASES.get(fold_letters(name), fold_letters(name))


def _cell_text(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())


class OwnQuestions:
    """Turn records of `read_own_questions` into candidates; one that can't be placed has its reason in `fault`."""

    def __init__(
        self,
        train_rows: Sequence[Row],
        passages: Mapping[str, Sequence[Passage]],
        *,
        held_out: Collection[str] = (),
        embedder: Embedder | None = None,
        per_question: int = PER_QUESTION,
        seed: int = 7,
    ):
        """Take rows and passages of train contracts, and the titles of held-out contracts (`held_out`).

        embedder: recognises the category of a question that names neither category nor contract (None: the question's
        words alone are compared). per_question: of how many contracts a question is asked that names none. seed: of
        the random draw of these contracts. Raises InputError if a row or passage comes from a held-out contract.
        """
        if leaked := sorted({*passages, *(row["contract"] for row in train_rows)} & set(held_out)):
            raise InputError(f"Rows or passages of held-out contract {leaked[0]!r}: give train contracts only.")
        self._rows = [row for row in train_rows if row["source"] not in MADE_SOURCES]
        self._passages = {title: own for title, own in passages.items() if own}
        self._held_out = {fold_letters(title) for title in held_out}
        self._titles = {fold_letters(title): title for title in self._passages}
        self._worded = {_worded(title): title for title in (*self._passages, *held_out) if len(fold_words(title)) > 1}
        self._texts: dict[str, str] = {}
        self._types = {row["contract"]: row["contract_type"] for row in train_rows}
        known = {row["question"]: row["category"] for row in self._rows}
        self._matcher = QuestionMatcher(known, embedder, least=SAME_CATEGORY) if known else None
        self._finder, self._per_question, self._seed = PassageFinder(self._passages), per_question, seed

    def candidates(self, records: Sequence[TableRow]) -> list[Candidate]:
        """Return one candidate a question, several for a question that is asked of several contracts."""
        made = []
        for number, record in enumerate(records, 1):
            try:
                found = self._place(record.values)
            except _NotPlaced as fault:
                found = [self._blank(record.values) | {"fault": str(fault)}]
            question = record.values["question"]
            for n, candidate in enumerate(found, 1):
                seed = f"{candidate['contract']}__own {number}"
                made.append(
                    candidate
                    | {
                        "id": f"{seed}~o{n}",
                        "seed": seed,
                        "kind": "own",
                        "question": question,
                        "raw": question,
                        "error": None,
                        "style": "any",
                        "where": record.where,
                    }
                )
        return made

    def _place(self, given: Mapping[str, str]) -> list[Candidate]:
        """Return what a row's question is asked of, one candidate a contract, still without the question."""
        contract = self._find_contract(given["contract"] or self._title_in(given["question"]))
        category = self._find_category(given["category"])
        if not given["question"]:
            return [self._blank(given)]  # the step "format" says that it is empty
        if given["answer"] and is_refusal(given["answer"]):
            return [self._with_refusal(given["question"], contract, category)]
        if given["answer"]:
            return [self._with_answer(given["answer"], contract, category)]
        guess = None if category or contract or self._matcher is None else self._matcher.match([given["question"]])[0]
        if rows := self._rows_about(contract, category or guess):
            return [
                seed_from_row(row, self._passages[row["contract"]])
                | self._nearest_text(row, given["question"])
                | ({} if guess else {"expect": ""})
                for row in self._draw(rows, given["question"])
            ]
        if not (best := self._finder.best(given["question"], contract or None, 1)):
            raise _NotPlaced("there is no text of a training contract to find an answer in")
        return [self._from_passage(best[0], category)]

    def _from_passage(self, passage: Passage, category: str | None) -> Candidate:
        """Return a passage as a seed, of the given category if there is one."""
        own = seed_from_passage(passage, self._types.get(passage.contract, ""))
        if category is None:
            return own
        return own | {"category": category, "seed_question": f"{category}: {cuad.CATEGORIES[category]}"}

    def _title_in(self, question: str) -> str:
        """Return the title that a question names in full, held-out ones first; "" if it names none or several."""
        found = [title for words, title in self._worded.items() if words in _worded(question)]
        held_out = [title for title in found if fold_letters(title) in self._held_out]
        return (held_out or found)[0] if held_out or len(found) == 1 else ""

    def _find_contract(self, title: str) -> str:
        """Return the title of the training contract that a row names; raises _NotPlaced for any other name."""
        if not title or title in self._passages:
            return title
        if found := self._titles.get(fold_letters(title)):
            return found
        if fold_letters(title) in self._held_out:
            raise _NotPlaced(
                f"contract {title!r} is held out (dev, test or slice): no training question may come from it"
            )
        near = difflib.get_close_matches(title, list(self._passages), 1, 0.4)
        hint = f" (nearest: {near[0]!r})" if near else ""
        count = f"{len(self._passages)} training contracts of this iteration"
        raise _NotPlaced(f"no contract {title!r} among the {count}{hint}")

    def _find_category(self, name: str) -> str | None:
        """Return the CUAD category that a row names, None if it names none; raises _NotPlaced for an unknown name."""
        if not name:
            return None
        if found := cuad.match_category(name):
            return found
        near = ", ".join(cuad.nearest_categories(name))
        hint = f" (nearest: {near})" if near else ""
        raise _NotPlaced(f"{name!r} is no CUAD category{hint}; leave it empty if none fits")

    def _rows_about(self, contract: str, category: str | None) -> list[Row]:
        """Return the annotated rows of a category, in one contract or ("") in all."""
        return [row for row in self._rows if row["category"] == category and contract in ("", row["contract"])]

    def _draw(self, rows: Sequence[Row], question: str) -> list[Row]:
        """Draw the rows to ask of: answerable rows and one without the clause, more of either if the other is short."""
        shuffled = random.Random(f"{self._seed} {question}").sample(list(rows), len(rows))
        answered = [row for row in shuffled if row["answers"]]
        lacking = [row for row in shuffled if not row["answers"]]
        wanted_lacking = 1 if self._per_question > 1 else 0
        too_few_answered = self._per_question - len(answered)
        lacking = lacking[: max(wanted_lacking, too_few_answered)]
        return [*answered[: self._per_question - len(lacking)], *lacking]

    def _nearest_text(self, row: Row, question: str) -> Candidate:
        """Return the passages most like the question for a row whose clause is absent, nothing for any other row."""
        if row["answers"]:
            return {}
        best = self._finder.best(question, row["contract"], NEAREST)
        return {"passage": "\n".join(passage.text for passage in best)}

    def _with_refusal(self, question: str, contract: str, category: str | None) -> Candidate:
        """Return the candidate of a question to which the user's answer is that there is no such clause."""
        if not contract:
            raise _NotPlaced("an answer that says there is no such clause needs its contract: name it")
        gold = self._rows_about(contract, category)
        if gold and gold[0]["answers"]:
            words = gold[0]["answers"][0]["text"][:100]
            raise _NotPlaced(f"the answer says there is no such clause, but {category} is annotated: {words}")
        own = self._from_passage(self._finder.best(question, contract, 1)[0], category)
        return own | {"clause": "", "expect": ""}

    def _with_answer(self, answer: str, contract: str, category: str | None) -> Candidate:
        """Return the candidate of a question to which the user gives the answer; one contract must hold its words."""
        found = []
        for title in [contract] if contract else self._contracts_with(answer):
            text, shift = join_passages(self._passages[title])
            if place := locate_words(answer, text):
                found.append((title, place[0] + shift, text[slice(*place)]))
        if len(found) != 1:
            if found:
                where = f"stands in {len(found)} training contracts: name one"
            elif contract:
                where = f"does not stand in {contract!r}"
            else:
                where = "stands in no training contract"
            raise _NotPlaced(f"the answer {answer[:100]!r} {where}")
        title, start, words = found[0]
        holding = [p for p in self._passages[title] if p.start < start + len(words) and start < p.end]
        text, begin = join_passages(holding)
        return self._from_passage(holding[0], category) | {
            "clause": words,
            "passage": text,
            "start": begin,
            "expect": "",
            "answers": [{"text": words, "start": start}],
        }

    def _contracts_with(self, answer: str) -> list[str]:
        """Return the contracts with the answer's letters and digits in a row: a fast look before `locate_words`."""
        if not self._texts:
            self._texts = {title: fold_letters(join_passages(own)[0]) for title, own in self._passages.items()}
        return [title for title, text in self._texts.items() if fold_letters(answer) in text]

    def _blank(self, given: Mapping[str, str]) -> Candidate:
        """Return a candidate that holds nothing but the contract and the category that its row names."""
        own = {name: given[name] for name in ("contract", "category")}
        blank = dict.fromkeys(("contract_type", "seed_question", "clause", "passage", "expect"), "")
        return own | blank | {"answers": [], "start": 0}


def _worded(text: str) -> str:
    """Return the words of a text with a blank around each, so that whole words of one text are found in another."""
    return f" {' '.join(fold_words(text))} "
