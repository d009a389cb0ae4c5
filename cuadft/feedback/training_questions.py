"""Find the training question that a vote is about; refuse questions of held-out contracts.

For example, a vote that names contract and question loosely finds its row:

    questions = TrainingQuestions(run)
    row = questions.find({"id": "", "contract": "acme supply", "question": "Governing Law", ...})

A question of a dev, test or slice contract raises `RowRefused`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.text import fold, fold_letters
from cuadft.data import rows
from cuadft.data.cuad import CATEGORIES
from cuadft.feedback.records import RowRefused

MIN_QUOTE_LENGTH = 60  # characters; a shorter quote may stand in several contracts by chance
_CUAD_DETAILS = re.compile(r"\bDetails:\s*(.+)\Z", re.DOTALL)  # CUAD asks 'Highlight the parts ... Details: ...'
_QUESTION_LABEL = re.compile(r"(?:\A|\n)\s*question:\s*(.+)\Z", re.DOTALL | re.IGNORECASE)
_ANSWER_TURN = re.compile(r"\s*(?:answer|assistant)\s*:\s*\Z", re.IGNORECASE)
_PASSAGE_EDGE = re.compile(r"\n|</?passage>|(?:\A|\n)\s*\w+:", re.IGNORECASE)  # between the passages of a prompt


class TrainingQuestions:
    """Hold the training rows of all iterations of a run; of two rows with one id the newer iteration's counts."""

    def __init__(self, run: Path) -> None:
        """Read the run's contracts and each iteration's data/; raises InputError if the run has no training rows."""
        if not (run / "contracts.jsonl").is_file():
            raise InputError(
                f"No run in {run} (it has no contracts.jsonl): name a run folder, as --run runs/quickstart."
            )
        records = rows.contract_records(run)
        self.texts = {record["title"]: _as_prompted(record["text"]) for record in records}
        self.held_out = rows.held_out_titles(records)
        self._titles = {fold(record["title"]): record["title"] for record in records}
        folders = sorted(run.glob("iter-*/data"), reverse=True)
        self.by_id = _first_by_id(
            row
            for row in _rows_of_files(folders, "train")
            if row["contract"] in self.texts and row["contract"] not in self.held_out
        )
        self._held_ids = {
            row["id"] for row in _rows_of_files(folders, "dev", "test", "slices") if row["contract"] in self.held_out
        }
        self._asked: dict[tuple[str, str], dict[str, dict[str, Any]]] = defaultdict(dict)
        for row in self.by_id.values():
            for wording in _question_keys(row):
                self._asked[row["contract"], wording][row["id"]] = row
        if not self.by_id:
            raise InputError(f"{run} has no training questions: run 01_data_prep first (`cuadft run`).")

    def title(self, contract: str) -> str | None:
        """Return the run's title of a contract, whatever its white space and case; None if the run lacks it."""
        return self._titles.get(fold(contract))

    def known_title(self, contract: str) -> str:
        """Return the run's title of a contract; raises InputError, with the nearest titles, if the run lacks it."""
        if title := self.title(contract):
            return title
        near = [self._titles[name] for name in get_close_matches(fold(contract), self._titles, n=3, cutoff=0.4)]
        hint = f" (nearest: {near})" if near else ""
        raise InputError(f"The run has no contract {contract!r}: give the title as in contracts.jsonl{hint}.")

    def find(self, vote: Mapping[str, Any], default_contract: str = "") -> dict[str, Any]:
        """Return the training row that a vote is about: by its id, else by its contract and question.

        default_contract: the title for a vote that names no contract. Raises RowRefused for a held-out contract, if no
        row or several rows fit, if id, contract and question belong to different rows, and if the vote quotes a
        held-out contract.
        """
        given_id, contract = vote.get("id") or "", vote.get("contract") or ""
        title = self.title(contract) if contract else None
        of_id = self.title(given_id.partition("__")[0])  # CUAD's ids are "title__category"
        if given_id in self._held_ids or {title, of_id} & self.held_out:
            raise RowRefused("its contract is held out (dev, test or slice)", held_out=True)
        row = self.by_id.get(given_id)
        if row is None:
            row = self._by_question(vote, contract, title or (None if contract else default_contract))
        elif contract and title != row["contract"]:
            raise RowRefused("its id and its contract belong to different questions")
        elif vote.get("question") and fold_letters(_without_instruction(vote["question"])) not in _question_keys(row):
            raise RowRefused("its id and its question belong to different rows")
        self._check_words(vote, row["contract"])
        return row

    def _by_question(self, vote: Mapping[str, Any], contract: str, title: str | None) -> dict[str, Any]:
        question = vote.get("question") or vote.get("prompt_question") or ""
        if not title:
            raise RowRefused(
                f"the run has no contract {contract!r}"
                if contract
                else "neither a known id nor a contract is given (see --contract)"
            )
        if title in self.held_out:
            raise RowRefused("its contract is held out (dev, test or slice)", held_out=True)
        found = list(self._asked.get((title, fold_letters(_without_instruction(question))), {}).values())
        exact = [row for row in found if fold(row["question"]) == fold(question)]
        if len(found) > 1 and len(exact) != 1:
            raise RowRefused(f"its question fits {len(found)} training questions on the contract")
        if not found:
            raise RowRefused(
                "no training question on its contract has these words" if question else "it has no question"
            )
        return (exact or found)[0]

    def _check_words(self, vote: Mapping[str, Any], contract: str) -> None:
        """Raise RowRefused if an answer or a part of the prompt is a long quote that only a held-out contract holds."""
        quotes = [vote.get(name) or "" for name in ("answer_a", "answer_b", "edited")]
        quotes += [line for quote in quotes if isinstance(quote, str) for line in quote.splitlines()]
        for message in vote["prompt"] if isinstance(vote.get("prompt"), list) else []:
            quotes += _PASSAGE_EDGE.split(str(message.get("content", "")) if isinstance(message, dict) else "")
        quotes += _PASSAGE_EDGE.split(vote.get("prompt_text") or "")
        for text in {_as_prompted(quote) for quote in quotes if isinstance(quote, str)}:
            if len(text) < MIN_QUOTE_LENGTH or text in self.texts[contract]:
                continue
            if any(text in self.texts[title] for title in self.held_out):
                raise RowRefused("it quotes a held-out contract (dev, test or slice)", held_out=True)


def question_of_prompt(prompt: str) -> str:
    """Return the question at the end of a prompt: what follows the last "Question:", or else the whole prompt."""
    text = _ANSWER_TURN.sub("", prompt)
    marked = _QUESTION_LABEL.search(text)
    while marked and (later := _QUESTION_LABEL.search(marked[1])):
        marked = later
    return (marked[1] if marked else text).strip()


def _question_keys(row: Mapping[str, Any]) -> set[str]:
    """Return the folded wordings by which a row's question is found, such as with and without its category."""
    question, category = row["question"], row.get("category") or ""
    bare = question.removeprefix(f"{category}: ")
    found = {question, bare, f"What is {bare}"}
    if bare == CATEGORIES.get(category):
        found.add(category)
    return {fold_letters(text) for text in found}


def _without_instruction(question: str) -> str:
    """Return what stands after "Details:" in CUAD's own wording of a question, or else the question as it is."""
    details = _CUAD_DETAILS.search(question)
    return details[1] if details else question


def _rows_of_files(folders: Iterable[Path], *names: str) -> Iterable[dict[str, Any]]:
    paths = [folder / f"{name}.jsonl" for folder in folders for name in names]
    return (row for path in paths if path.is_file() for row in files.read_jsonl(path))


def _first_by_id(rows: Iterable[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for row in rows:
        found.setdefault(row["id"], row)
    return found


def _as_prompted(text: str) -> str:
    """Return a text folded as prompts show it, with "<" set apart."""
    return fold(text.replace("<", " < "))
