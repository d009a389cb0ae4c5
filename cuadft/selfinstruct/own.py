"""A user's own seed questions from a file, placed in the training contracts so that they pass the same filters.

Columns question, contract, category, answer; all but the first may be empty. The contract may also be named by its
full title in the question. With an answer, its words are found in the contract (named, or the only one that holds
them) or it is the refusal sentence. Without: a category takes its annotated clauses, those of the contract named
or of a few drawn; a question that names neither is taken for the category whose question is nearest, if one is near;
else its answer has to be quoted from the passage most like it.
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
from cuadft.data import cuad
from cuadft.data.contracts import Row
from cuadft.data.passages import Passage, locate_words
from cuadft.evaluation.text_scores import is_refusal, rouge_tokens
from cuadft.retrieval.classifier import Matcher
from cuadft.selfinstruct.sources import MADE, NEAREST, Candidate, Finder, from_passage, from_row, seed_stretch

if TYPE_CHECKING:
    from cuadft.retrieval.embedder import Embedder


COLUMNS = ("question", "contract", "category", "answer")
QUESTION_ALIASES = {"contracttitle": "contract", "contractname": "contract", "title": "contract"}
PER_QUESTION = 3  # contracts that a question of a category alone is asked of
SAME_CATEGORY = 0.4  # cosine with an official question from which a question is taken for one of that category


class _Unplaced(Exception):
    """The question can't be placed; the text says why."""


def read_own_questions(path: str | Path) -> list[TableRow]:
    """Return the rows of a CSV, JSON-lines or JSON file, each with the text of all COLUMNS ("" where there is none).

    Case and punctuation of the columns' names don't matter; of two columns for the same thing, the first that is not
    empty counts. Other columns are left out with a warning. Raises InputError if the file can't be read or has no
    column 'question'.
    """
    records, seen = [], {}
    for record in files.read_table(path):
        values = dict.fromkeys(COLUMNS, "")
        for name, value in record.values.items():
            column = _column(str(name))
            seen[str(name)] = column
            if column in values and not values[column]:
                values[column] = _text(value)
        records.append(TableRow(record.where, values))
    if "question" not in seen.values():
        raise InputError(
            f"{path} has no column 'question': name its columns {', '.join(COLUMNS)}; all but the first "
            "may be left out."
        )
    if others := [name for name, column in seen.items() if column not in COLUMNS]:
        told = f"columns left out: {', '.join(others)} (those read: {', '.join(COLUMNS)})"
        warnings.warn(f"{path}: {told}", stacklevel=2)
    return records


def _column(name: str) -> str:
    return QUESTION_ALIASES.get(cuad.category_key(name), cuad.category_key(name))


def _text(value: Any) -> str:
    return "" if value is None else " ".join(str(value).split())


class OwnQuestions:
    """Turn records of `read` into candidates; one that can't be placed has its reason in `fault`."""

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
        """Take rows and passages of train contracts; held_out: titles of held-out contracts.

        embedder: to recognise the category of a question that names neither category nor contract; None: it is only
        looked for by its words. Raises InputError if a row or passage comes from a held-out contract.
        """
        if leaked := sorted({*passages, *(row["contract"] for row in train_rows)} & set(held_out)):
            raise InputError(f"Rows or passages of held-out contract {leaked[0]!r}: give train contracts only.")
        self._rows = [row for row in train_rows if row["source"] not in MADE]
        self._passages = {title: own for title, own in passages.items() if own}
        self._held_out = {cuad.category_key(title) for title in held_out}
        self._titles = {cuad.category_key(title): title for title in self._passages}
        self._worded = {_worded(title): title for title in (*self._passages, *held_out) if len(rouge_tokens(title)) > 1}
        self._texts: dict[str, str] = {}
        self._types = {row["contract"]: row["contract_type"] for row in train_rows}
        known = {row["question"]: row["category"] for row in self._rows}
        self._matcher = Matcher(known, embedder, least=SAME_CATEGORY) if known else None
        self._finder, self._per_question, self._seed = Finder(self._passages), per_question, seed

    def candidates(self, records: Sequence[TableRow]) -> list[Candidate]:
        """Return one candidate a question, several for one that is asked of several contracts."""
        made = []
        for number, record in enumerate(records, 1):
            try:
                found = self._place(record.values)
            except _Unplaced as fault:
                found = [self._unplaced(record.values) | {"fault": str(fault)}]
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
        contract = self._contract(given["contract"] or self._titled(given["question"]))
        category = self._category(given["category"])
        if not given["question"]:
            return [self._unplaced(given)]  # the step "format" says that it is empty
        if is_refusal(given["answer"]):
            return [self._refused(given["question"], contract, category)]
        if given["answer"]:
            return [self._answered(given["answer"], contract, category)]
        guess = None if category or contract or self._matcher is None else self._matcher.match([given["question"]])[0]
        if rows := self._annotated(contract, category or guess):
            return [
                from_row(row, self._passages[row["contract"]])
                | self._shown(row, given["question"])
                | ({} if guess else {"expect": ""})
                for row in self._drawn(rows, given["question"])
            ]
        if not (best := self._finder.best(given["question"], contract or None, 1)):
            raise _Unplaced("there is no text of a training contract to find an answer in")
        return [self._of_passage(best[0], category)]

    def _of_passage(self, passage: Passage, category: str | None) -> Candidate:
        own = from_passage(passage, self._types.get(passage.contract, ""))
        if category is None:
            return own
        return own | {"category": category, "seed_question": f"{category}: {cuad.CATEGORIES[category]}"}

    def _titled(self, question: str) -> str:
        """Return the title that a question names in full, held-out ones first; "" if it names none or several."""
        found = [title for words, title in self._worded.items() if words in _worded(question)]
        held_out = [title for title in found if cuad.category_key(title) in self._held_out]
        return (held_out or found)[0] if held_out or len(found) == 1 else ""

    def _contract(self, title: str) -> str:
        if not title or title in self._passages:
            return title
        if found := self._titles.get(cuad.category_key(title)):
            return found
        if cuad.category_key(title) in self._held_out:
            raise _Unplaced(
                f"contract {title!r} is held out (dev, test or slice): no training question may come from it"
            )
        near = difflib.get_close_matches(title, list(self._passages), 1, 0.4)
        hint = f" (nearest: {near[0]!r})" if near else ""
        count = f"{len(self._passages)} training contracts of this iteration"
        raise _Unplaced(f"no contract {title!r} among the {count}{hint}")

    def _category(self, name: str) -> str | None:
        if not name or (found := cuad.match_category(name)):
            return found if name else None
        near = ", ".join(cuad.nearest_categories(name))
        hint = f" (nearest: {near})" if near else ""
        raise _Unplaced(f"{name!r} is no CUAD category{hint}; leave it empty if none fits")

    def _annotated(self, contract: str, category: str | None) -> list[Row]:
        return [row for row in self._rows if row["category"] == category and contract in ("", row["contract"])]

    def _drawn(self, rows: Sequence[Row], question: str) -> list[Row]:
        """Return the rows to ask of, answerable ones but one where there are enough."""
        rng = random.Random(f"{self._seed} {question}")
        rows = rng.sample(list(rows), len(rows))
        answered, lacking = [r for r in rows if r["answers"]], [r for r in rows if not r["answers"]]
        return [
            *answered[: max(self._per_question - 1, 1)],
            *lacking[:1],
            *answered[self._per_question - 1 :],
            *lacking[1:],
        ][: self._per_question]

    def _shown(self, row: Row, question: str) -> Candidate:
        if row["answers"]:
            return {}
        best = self._finder.best(question, row["contract"], NEAREST)
        return {"passage": "\n".join(passage.text for passage in best)}

    def _refused(self, question: str, contract: str, category: str | None) -> Candidate:
        if not contract:
            raise _Unplaced("an answer that says there is no such clause needs its contract: name it")
        gold = self._annotated(contract, category)
        if gold and gold[0]["answers"]:
            words = gold[0]["answers"][0]["text"][:100]
            raise _Unplaced(f"the answer says there is no such clause, but {category} is annotated: {words}")
        own = self._of_passage(self._finder.best(question, contract, 1)[0], category)
        return own | {"clause": "", "expect": ""}

    def _answered(self, answer: str, contract: str, category: str | None) -> Candidate:
        found = []
        for title in [contract] if contract else self._holding(answer):
            text, shift = seed_stretch(self._passages[title])
            if place := locate_words(answer, text):
                found.append((title, place[0] + shift, text[slice(*place)]))
        if len(found) != 1:
            where = (
                f"stands in {len(found)} training contracts: name one"
                if found
                else (f"does not stand in {contract!r}" if contract else "stands in no training contract")
            )
            raise _Unplaced(f"the answer {answer[:100]!r} {where}")
        title, start, words = found[0]
        holding = [p for p in self._passages[title] if p.start < start + len(words) and start < p.end]
        text, begin = seed_stretch(holding)
        return self._of_passage(holding[0], category) | {
            "clause": words,
            "passage": text,
            "start": begin,
            "expect": "",
            "answers": [{"text": words, "start": start}],
        }

    def _holding(self, answer: str) -> list[str]:
        """Return the contracts with the answer's letters in a row, blanks and case aside: a fast first look."""
        if not self._texts:
            self._texts = {title: _squeezed(seed_stretch(own)[0]) for title, own in self._passages.items()}
        return [title for title, text in self._texts.items() if _squeezed(answer) in text]

    def _unplaced(self, given: Mapping[str, str]) -> Candidate:
        own = {name: given[name] for name in ("contract", "category")}
        blank = dict.fromkeys(("contract_type", "seed_question", "clause", "passage", "expect"), "")
        return own | blank | {"answers": [], "start": 0}


def _worded(text: str) -> str:
    """Return the words of a text between blanks, so that one text's words are looked for in another's."""
    return f" {' '.join(rouge_tokens(text))} "


def _squeezed(text: str) -> str:
    return "".join(text.split()).casefold()
