"""Find the training question that a vote is about; refuse questions of held-out contracts.

For example, a vote that names contract and question loosely finds its row:

    questions = TrainingQuestions(run)
    row = questions.find({"id": "", "contract": "acme supply", "question": "Governing Law", ...})

A question of a dev, test or slice contract raises `RowRefused`.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.params import did_you_mean
from cuadft.core.text import fold, fold_letters
from cuadft.data import rows

MIN_QUOTE_LENGTH = 60  # characters; a shorter quote may stand in several contracts by chance
HELD_OUT = "its contract is held out (dev, test or slice)"
_QUESTION_LABEL = re.compile(r"(?:\A|\n)\s*question:\s*", re.IGNORECASE)
_ANSWER_TURN = re.compile(r"\s*(?:answer|assistant)\s*:\s*\Z", re.IGNORECASE)
_PASSAGE_EDGE = re.compile(r"\n|</?passage>|(?:\A|\n)\s*\w+:", re.IGNORECASE)  # between the passages of a prompt


class RowRefused(Exception):
    """Say why a row of a file can't be imported; `held_out` is True where its contract is held out from training."""

    def __init__(self, reason: str, *, held_out: bool = False) -> None:
        super().__init__(reason)
        self.held_out = held_out


class TrainingQuestions:
    """Hold the training rows of all iterations of a run; of two rows with one id the newer iteration's counts."""

    def __init__(self, run: Path) -> None:
        """Read the run's contracts and each iteration's data/; raises InputError if the run has no training rows."""
        if not (run / "contracts.jsonl").is_file():
            raise InputError(f"No run in {run} (no contracts.jsonl): name a run folder, as --run runs/quickstart.")
        records = rows.contract_records(run)
        self.texts = {record["title"]: _as_prompted(record["text"]) for record in records}
        self.held_out = rows.held_out_titles(records)
        self._titles = {fold(title): title for title in self.texts}
        held = _rows_of_files(run, "dev", "test", "slices")
        self._held_ids = {row["id"] for row in held if row["contract"] in self.held_out}
        training = [row for row in _rows_of_files(run, "train") if row["contract"] in self.texts.keys() - self.held_out]
        self.by_id = {row["id"]: row for row in training}
        self._asked: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for row in self.by_id.values():
            for wording in _question_keys(row):
                self._asked[row["contract"], wording].append(row)
        if not self.by_id:
            raise InputError(f"{run} has no training questions: run 01_data_prep first (`cuadft run`).")

    def find(self, vote: Mapping[str, Any], default_contract: str = "") -> dict[str, Any]:
        """Return the training row that a vote is about: by its id, else by its contract and question.

        default_contract: of a vote that names none. Raises RowRefused for a held-out contract, if no row or several
        rows fit, if id, contract and question belong to different rows, and if the vote quotes a held-out contract.
        """
        given_id = vote.get("id") or ""
        contract = vote.get("contract") or ("" if given_id in self.by_id else default_contract)
        title = self._titles.get(fold(contract)) if contract else None
        of_id = self._titles.get(fold(given_id.partition("__")[0]))  # CUAD's ids are "title__category"
        if given_id in self._held_ids or {title, of_id} & self.held_out:
            raise RowRefused(HELD_OUT, held_out=True)
        if row := self.by_id.get(given_id):
            question = vote.get("question")
            if (contract and title != row["contract"]) or (
                question and _question_key(question) not in _question_keys(row)
            ):
                raise RowRefused("its id, contract and question belong to different rows")
        elif not contract:
            raise RowRefused("neither a known id nor a contract is given (see --contract)")
        elif not title:
            raise RowRefused(f"the run has no contract {contract!r}{did_you_mean(fold(contract), self._titles)}")
        else:
            row = self._by_question(vote, title)
        self._check_words(vote, row["contract"])
        return row

    def _by_question(self, vote: Mapping[str, Any], title: str) -> dict[str, Any]:
        question = vote.get("question") or vote.get("prompt_question") or ""
        found = self._asked.get((title, _question_key(question)), [])
        found = [row for row in found if fold(row["question"]) == fold(question)] or found
        if len(found) != 1:
            fits = f"fits {len(found)} training questions on the contract" if found else "is no training question"
            raise RowRefused(f"its question {question[:60]!r} {fits}")
        return found[0]

    def _check_words(self, vote: Mapping[str, Any], contract: str) -> None:
        """Raise RowRefused if an answer or a part of the prompt is a long quote that only a held-out contract holds."""
        answers = [str(vote.get(name) or "") for name in ("answer_a", "answer_b", "edited")]
        prompt = vote["prompt"] if isinstance(vote.get("prompt"), list) else []
        prompts = [str(message.get("content", "")) for message in prompt if isinstance(message, dict)]
        quotes = answers + [line for answer in answers for line in answer.splitlines()]
        asked = [*prompts, vote.get("prompt_question") or ""]
        quotes += [part for text in asked for part in _PASSAGE_EDGE.split(text)]
        for text in set(map(_as_prompted, quotes)):
            if len(text) < MIN_QUOTE_LENGTH or text in self.texts[contract]:
                continue
            if any(text in self.texts[title] for title in self.held_out):
                raise RowRefused("it quotes a held-out contract (dev, test or slice)", held_out=True)


def question_of_prompt(prompt: str) -> str:
    """Return the question at the end of a prompt: what follows the last "Question:", or else the whole prompt."""
    return _QUESTION_LABEL.split(_ANSWER_TURN.sub("", prompt))[-1].strip()


def shows_passages(prompt: str, row: Mapping[str, Any]) -> bool:
    """Tell whether a prompt holds more than a row's question, with or without a label "Question:" and "Answer:"."""
    return _question_key(_QUESTION_LABEL.sub("", _ANSWER_TURN.sub("", prompt))) not in _question_keys(row)


def _question_keys(row: Mapping[str, Any]) -> set[str]:
    """Return the folded wordings by which a row's question is found, such as with and without its category."""
    question, category = row["question"], row.get("category") or ""
    bare = question.removeprefix(f"{category}: ")
    found = {question, bare} | ({category} if rows.is_original(row) else set())
    return set(map(fold_letters, found))


def _question_key(question: str) -> str:
    """Return a question folded; of CUAD's own 'Highlight the parts ... Details: ...' what stands after "Details:"."""
    return fold_letters(re.sub(r".*?\bDetails:\s*(?=\S)", "", question, count=1, flags=re.DOTALL))


def _rows_of_files(run: Path, *names: str) -> list[dict[str, Any]]:
    """Return the rows of each iteration's files with these names, the newest iteration's last."""
    paths = [folder / f"{name}.jsonl" for folder in sorted(run.glob("iter-*/data")) for name in names]
    return [row for path in paths if path.is_file() for row in files.read_jsonl(path)]


def _as_prompted(text: str) -> str:
    """Return a text folded as prompts show it, with "<" set apart."""
    return fold(text.replace("<", " < "))
