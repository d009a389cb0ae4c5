"""Read answers from any table, as predictions that `score_predictions` and every judge can take.

A file holds one row per answer: a question, its reference and what a system answered. `read_answer_files` finds the
columns and turns each file into prediction rows. `join_files` puts the files together: it numbers the questions across
systems, and says what intervals resample (contracts or questions).

    files = read_answer_files(["sft.csv", "dpo.csv"], answer="response", verdicts=["human"])
    pool = join_files(files)
    pool.systems, pool.unit, pool.predictions[0]["verdicts"]      # ["sft", "dpo"], "question", {"human": 1.0}

The *verdicts* here are what others say of the answers, for example a human in a column of the table, as numbers from
0 to 1.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cuadft.core import files
from cuadft.core.cells import number_of, spelled_value
from cuadft.core.errors import InputError
from cuadft.core.params import did_you_mean
from cuadft.core.text import clean_text, fold_name, shorten
from cuadft.evaluation import answer_cells
from cuadft.evaluation.answer_cells import says_nothing
from cuadft.evaluation.text_scores import NO_CLAUSE

NUMBERS = ("seconds", "weight")
ANSWER_ALIASES = {  # role of a column -> names by which it is found, best first
    "question": "question query question_text user_input input",
    "reference": "reference ref_answer reference_answer answers gold gold_answer gt_answer ground_truth groundtruth "
    "ground_truths expected expected_answer expected_output example_answer target",
    "answer": "answer response prediction pred pred_answer predicted_answer prediction_text model_answer "
    "generated_answer actual_output output completion",
    "system": "system system_name",
    "contract": "contract contract_name contract_id contract_title title",
} | {name: name for name in ("contract_type", "category", "split", "error", *NUMBERS)}
REQUIRED = ("question", "reference", "answer")
ROLES = (*REQUIRED, "system", "contract")  # whose columns can be named by an option
TEXTS = ("question", "answer", "system", "contract", "contract_type", "category", "split", "error")
SHOWN_ROLES = (*ROLES, "weight")  # whose columns the output names
NO_ERROR = ("none", "false", "0", "no")  # what a column of errors says of a row without one
LONGEST_LIST = 1000  # characters of a list of columns in a message
LONGEST_NAME = 100  # characters of a system's name, which stands in tables and figures


@dataclass(frozen=True)
class AnswerFile:
    """Hold a file's prediction rows, which have no ids yet, which column plays which role, and what was guessed."""

    path: Path
    columns: dict[str, str]
    rows: list[dict[str, Any]] = field(repr=False)
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        roles = ", ".join(f"{self.columns[role]} taken as the {role}" for role in SHOWN_ROLES if role in self.columns)
        return " ".join([f"{self.path.name} ({count_of(len(self.rows), 'row')}): column {roles}.", *self.notes])


@dataclass(frozen=True)
class Pool:
    """Hold the predictions of all files in order, and what intervals resample ("question" or "contract")."""

    predictions: list[dict[str, Any]] = field(repr=False)
    unit: str

    @property
    def systems(self) -> list[str]:
        return list(dict.fromkeys(p["system"] for p in self.predictions))


def read_answer_files(paths: Sequence[str | Path], *, verdicts: Sequence[str] = (), **columns: str) -> list[AnswerFile]:
    """Return each file's rows; `columns` names columns (answer="response"), others are found by `ANSWER_ALIASES`.

    verdicts: columns with others' verdicts (0 to 1, true/false or correct/partly/incorrect), kept as numbers in
    row["verdicts"] where a file has them. How references and answers are read: see `answer_cells`. Rows of one contract
    and question with different gold spans are one question with all these spans (see `_with_all_spans`). An empty
    answer is a refusal, as SQuAD 2.0 writes it; a missing one (null, or empty in a row with an error) is a failed
    generation: answer None, error "no answer". Raises InputError for an unreadable file, columns not found, a row
    without question, a column without any reference, and a cell that can't be read.
    """
    return [_read_one(Path(path), verdicts, columns) for path in paths]


def join_files(files: Sequence[AnswerFile]) -> Pool:
    """Return the files' rows as predictions whose `id` is the number of their question and `contract` their cluster.

    Two systems' rows belong to the same question if contract, question and reference agree; a question that one
    system answers several times keeps distinct ids ("3", "3.2"). Without a contract column, or with one contract, every
    question is a cluster of its own. Raises InputError on no rows, several splits, and one system that answers a
    question in two files.
    """
    rows = [row | {"file": number} for number, file in enumerate(files) for row in file.rows]
    if not rows:
        raise InputError("No answers: name at least one file with question, reference and answer.")
    table = pd.DataFrame(rows, columns=["system", "contract", "where", "file"])
    table["question"] = [" ".join(row["question"].split()) for row in rows]
    table["gold"] = ["\n".join(sorted({" ".join(span["text"].split()) for span in row["answers"]})) for row in rows]
    table["number"] = table.groupby(["contract", "question", "gold"], sort=False).ngroup() + 1
    table["again"] = table.groupby(["file", "system", "number"]).cumcount() + 1
    for row in table[table.duplicated(["system", "number", "again"])].head(1).itertuples():
        raise InputError(
            f"{row.where}: another file holds an answer of {row.system!r} to this question: rename one file, or name "
            "the column that tells systems apart with --system COLUMN."
        )
    contracts, split = set(table["contract"]), _one_split(rows)
    unit = "contract" if len(contracts) > 1 and "" not in contracts else "question"
    predictions = []
    for row, number, again in zip(rows, table["number"], table["again"], strict=True):
        name = f"{number}.{again}" if again > 1 else str(number)
        cluster = row["contract"] if unit == "contract" else f"question {number}"
        predictions.append(row | {"id": name, "split": split, "contract_name": row["contract"], "contract": cluster})
    return Pool(predictions, unit)


def _one_split(rows: Sequence[dict]) -> str:
    """Return the one split that the rows name, "all" if no row names one."""
    splits = sorted({row["split"] for row in rows} - {""})
    if len(splits) > 1:
        raise InputError(f"The rows come from several splits ({', '.join(splits)}): score one split at a time.")
    return splits[0] if splits else "all"


def pool_basis(pool: Pool) -> str:
    """Return in one sentence what the intervals over these rows hold for."""
    n = len({p["contract"] for p in pool.predictions})
    if pool.unit == "contract":
        return f"Intervals come from resampling the {n} contracts: they hold for other contracts of this kind."
    return (
        f"Not several contracts are named (--contract COLUMN), so each of the {n} questions counts as one draw: the "
        "intervals hold for such questions on the same contracts, and say nothing about other contracts."
    )


def count_of(n: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1, such as "1,200 answers"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _read_one(path: Path, verdicts: Sequence[str], asked: Mapping[str, str]) -> AnswerFile:
    records = files.read_table(path)
    columns, notes = _columns(records, asked, path)
    kept = [name for name in verdicts if any(name in record.values for record in records)]
    read = [_prediction_row(record, columns, kept, path) for record in records]
    if blank := sum(says_nothing(record.values.get(columns["reference"])) for record in records):
        notes.append(f"Blank or a dash as the reference: {count_of(blank, 'row')}, read as no such clause.")
    if empty := sum(row["answer"] == "" for row in read):
        told = "read as refusals. If the generation failed, say so in a column named error."
        notes.append(f"Empty answers: {count_of(empty, 'row')}, {told}")
    rows = _with_all_spans(read)
    if joined := len(read) - len(rows):
        notes.append(f"Joined: {count_of(joined, 'row')} with one more gold span of a question asked before.")
    return AnswerFile(path, columns, rows, tuple(notes))


def _columns(
    records: Sequence[files.TableRow], asked: Mapping[str, str], path: Path
) -> tuple[dict[str, str], list[str]]:
    """Return the column of each role that has one, and what to say about other columns that might have been taken.

    A column that is found by its name is taken only if it has a value; of a required role it may be empty.
    """
    present = list(dict.fromkeys(name for record in records for name in record.values))
    filled = [name for name in present if not all(says_nothing(r.values.get(name)) for r in records)]
    named = {role: _named(role, asked.get(role, ""), present, filled) for role in ANSWER_ALIASES}
    first, *others = named["answer"] or [""]
    if not named["reference"] and fold_name(first) == "answer" and others:
        named["reference"], named["answer"] = [first], others  # such as answer beside prediction, as in many data sets
    columns, notes = {role: names[0] for role, names in named.items() if names}, []
    titles = [record.values.get(columns.get("contract")) for record in records]
    if (
        not asked.get("contract")
        and fold_name(columns.get("contract", "")) == "title"
        and any(map(says_nothing, titles))
    ):
        del columns["contract"]  # not every row has one, so that it may be something else
    for role in named:
        if role not in columns and (asked.get(role) or role in REQUIRED):
            single = len(records) == 1 and columns.keys().isdisjoint(REQUIRED)
            raise InputError(_no_column(role, asked.get(role, ""), present, path, single))
        if more := [name for name in named[role][1:] if name in filled and name not in columns.values()]:
            notes.append(f"Also there: {', '.join(more)} (--{role} COLUMN takes it as the {role}).")
    if all(record.values.get(columns["reference"]) in (None, "") for record in records):
        raise InputError(
            f"{path}: no row has a reference (column {columns['reference']!r}): fill it in, with the sentence "
            f"{NO_CLAUSE!r} where there is none, or name another column with --reference COLUMN."
        )
    return columns, notes


def _named(role: str, asked: str, present: Sequence[str], filled: Sequence[str]) -> list[str]:
    """Return the columns that may play a role, best first: the one asked for, else those with one of its names."""
    names = [asked] if asked else ANSWER_ALIASES[role].split()
    folded = {fold_name(name): name for name in reversed(present)}
    found = [asked] if asked in present else [folded[name] for name in map(fold_name, names) if name in folded]
    optional = not asked and role not in REQUIRED
    return [n for n in found if n in filled] or ([] if optional else found)


def _no_column(role: str, asked: str, present: Sequence[str], path: Path, single: bool) -> str:
    """Return the message that a role has no column; a file of one JSON object may hold something else than rows."""
    listed, names = (
        shorten(", ".join(map(repr, present)), LONGEST_LIST),
        asked or ", ".join(ANSWER_ALIASES[role].split()),
    )
    if single and path.suffix.lower() in files.JSON_SUFFIXES:
        told = "holds one JSON object, which is no table of answers: give an array of objects, or one object a line"
        return f"{path} {told}, each with question, reference and answer. Its keys: {listed}."
    told = f"has no column for the {role} (looked for {names}){did_you_mean(asked, present)}"
    return f"{path} {told}. Its columns: {listed}. Name one with --{role} COLUMN."


def _prediction_row(
    record: files.TableRow, columns: Mapping[str, str], verdicts: Sequence[str], path: Path
) -> dict[str, Any]:
    where, given = record.where, {role: record.values.get(columns.get(role)) for role in ANSWER_ALIASES}
    text = {role: answer_cells.text_of(given[role], where, role) for role in TEXTS}
    for role in ("question", "system", "contract"):
        if role in columns and not text[role]:
            raise InputError(f"{where}: the {role} ({columns[role]!r}) is empty: fill it in, or drop the row.")
    system = clean_text(text["system"] or path.stem)
    if not 0 < len(system) <= LONGEST_NAME:
        raise InputError(
            f"{where}: {system[:40]!r} is no system's name, it has {len(system):,} characters: give 1 to "
            f"{LONGEST_NAME}, or name the column that tells systems apart with --system COLUMN."
        )
    golds = answer_cells.gold_spans(given["reference"], where)
    error = None if (text["error"] or "").casefold() in NO_ERROR else text["error"]
    failed = text["answer"] is None or bool(error and not text["answer"])
    row = {
        **{role: text[role] or "" for role in ("question", "split", "contract", "contract_type", "category")},
        "answers": golds,
        "is_impossible": not golds,
        "answer": None if failed else text["answer"],
        "error": (error or "no answer") if failed else None,
        "system": system,
        "source": "file",
        **{name: number_of(given[name], f"{where}: the column {name!r}") for name in NUMBERS},
        "where": where,
        "verdicts": {name: answer_cells.verdict_number(record.values.get(name), where, name) for name in verdicts},
    }
    if all("start" in gold for gold in golds):
        # this package's predictions also hold passages sent and spans found, as offsets in the contract
        passages, spans = (spelled_value(record.values.get(name)) for name in ("passages", "spans"))
        if isinstance(passages, list) and all(
            isinstance(one, dict) and {"start", "end"} <= one.keys() for one in passages
        ):
            row |= {"passages": passages} | ({"spans": spans} if isinstance(spans, list) else {})
    return row


def _with_all_spans(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with all gold spans of their question, which may stand one a row: each answer to it once.

    So Hugging Face and CUAD's `train_separate_questions.json` hold them. A question is known by contract, category and
    wording. Rows without a contract, and rows that say that there is no clause, are left as they are.
    """
    asked: dict[tuple, dict[tuple, dict]] = defaultdict(dict)  # question -> its gold spans
    keys = [(row["contract"], row["category"], " ".join(row["question"].split())) for row in rows]
    for key, row in zip(keys, rows):
        asked[key] |= {(" ".join(span["text"].split()), span.get("start")): span for span in row["answers"]}
    kept: dict[Any, dict[str, Any]] = {}
    split = {key for key, row in zip(keys, rows) if 0 < len(row["answers"]) < len(asked[key]) and row["contract"]}
    for place, (key, row) in enumerate(zip(keys, rows)):
        joined = key in split and row["answers"]
        if joined:
            row = row | {"answers": list(asked[key].values())}
        first = kept.setdefault((row["system"], key, row["answer"]) if joined else place, row)
        for name, number in row["verdicts"].items():  # of the span that fits the answer best
            first["verdicts"][name] = float(np.fmax(number, first["verdicts"][name]))
    for row in kept.values():
        row["answers"] = [{"start": place} | span for place, span in enumerate(row["answers"])]
    return list(kept.values())
