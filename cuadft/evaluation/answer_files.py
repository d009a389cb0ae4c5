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

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.params import did_you_mean
from cuadft.core.text import clean_text, fold_name, shorten
from cuadft.evaluation.text_scores import NO_CLAUSE, is_refusal, normalise_answer
from cuadft.evaluation.verdicts import reference_text

ANSWER_ALIASES = {  # role of a column -> names by which it is found, best first
    "question": "question query question_text",
    "reference": "reference ref_answer reference_answer answers gold gold_answer ground_truth groundtruth expected "
    "expected_answer expected_output target",
    "answer": "answer response prediction predicted_answer model_answer generated_answer output completion",
    "system": "system system_name",
    "contract": "contract contract_name contract_id contract_title",
} | {name: name for name in ("contract_type", "category", "split", "error", "seconds")}
REQUIRED = ("question", "reference", "answer")
ROLES = (*REQUIRED, "system", "contract")  # whose columns the output names
TEXTS = ("question", "answer", "system", "contract", "contract_type", "category", "split", "error")
BLANKS = ("", "nan", "null", "<na>")  # how tables write a missing value
VERDICT_NUMBERS = {"true": 1.0, "yes": 1.0, "correct": 1.0, "partly": 0.5, "false": 0.0, "no": 0.0, "incorrect": 0.0}
LONGEST_LIST = 1000  # characters of a list of columns in a message
LONGEST_NAME = 100  # characters of a system's name, which stands in tables and figures


@dataclass(frozen=True)
class AnswerFile:
    """Hold a file's prediction rows, which have no ids yet, and which column plays which role."""

    path: Path
    columns: dict[str, str]
    rows: list[dict[str, Any]] = field(repr=False)

    def __str__(self) -> str:
        roles = ", ".join(f"{role} from {self.columns[role]!r}" for role in ROLES if role in self.columns)
        return f"{self.path.name} ({count_of(len(self.rows), 'row')}): {roles}."


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
    row["verdicts"] where a file has them. A reference may be a list of gold spans in JSON; the refusal sentence means
    that there is no such clause, and so does an empty list. A row without an answer is a failed generation: answer
    None, error "no answer". Raises InputError for an unreadable file, columns not found, and a row without question or
    reference.
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
    table["gold"] = [" ".join(reference_text(row).split()) for row in rows]
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
    present = list(dict.fromkeys(name for record in records for name in record.values))
    columns = {role: name for role in ANSWER_ALIASES if (name := _column(role, asked.get(role, ""), present, path))}
    kept = [name for name in verdicts if name in present]
    return AnswerFile(path, columns, [_prediction_row(record, columns, kept, path) for record in records])


def _column(role: str, asked: str, present: Sequence[str], path: Path) -> str | None:
    """Return the column that plays a role, None if the file lacks an optional one."""
    names = [asked] if asked else ANSWER_ALIASES[role].split()
    folded = {fold_name(name): name for name in reversed(present)}
    found = asked if asked in present else next((folded[n] for n in map(fold_name, names) if n in folded), None)
    if found is None and (asked or role in REQUIRED):
        listed = shorten(", ".join(map(repr, present)), LONGEST_LIST)
        raise InputError(
            f"{path} has no column for the {role} (looked for {', '.join(names)})"
            f"{did_you_mean(asked, present)}. Its columns: {listed}. Name one with --{role} COLUMN."
        )
    return found


def _prediction_row(
    record: files.TableRow, columns: Mapping[str, str], verdicts: Sequence[str], path: Path
) -> dict[str, Any]:
    where, given = record.where, {role: record.values.get(columns.get(role)) for role in ANSWER_ALIASES}
    text = {role: _as_text(given[role], where, role) for role in TEXTS}
    for role in ("question", "system", "contract"):
        if role in columns and text[role] is None:
            raise InputError(f"{where}: the {role} ({columns[role]!r}) is empty: fill it in, or drop the row.")
    system = clean_text(text["system"] or path.stem)
    if not 0 < len(system) <= LONGEST_NAME:
        raise InputError(
            f"{where}: {system[:40]!r} is no system's name, it has {len(system):,} characters: give 1 to "
            f"{LONGEST_NAME}, or name the column that tells systems apart with --system COLUMN."
        )
    golds, seconds = _gold_spans(given["reference"], where), given["seconds"]
    row = {
        **{role: text[role] or "" for role in ("question", "split", "contract", "contract_type", "category")},
        "answers": golds,
        "is_impossible": not golds,
        "answer": text["answer"],
        "error": (text["error"] or "no answer") if text["answer"] is None else None,
        "system": system,
        "source": "file",
        "seconds": seconds if isinstance(seconds, float | int) else math.nan,
        "where": where,
        "verdicts": {name: _verdict_number(record.values.get(name), where, name) for name in verdicts},
    }
    if golds == given["reference"]:
        # this package's predictions also hold passages sent and spans found, as offsets in the contract
        row |= {name: record.values[name] for name in ("passages", "spans") if name in record.values}
    return row


def _as_text(value: object, where: str, role: str) -> str | None:
    """Return a value as text, None for a missing one; a list of texts becomes lines."""
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        value = "\n".join(value)
    if isinstance(value, list | dict):
        raise InputError(f"{where}: the {role} is {str(value)[:60]!r}: give a text (or a list of texts).")
    if value is None or str(value).strip().casefold() in BLANKS:
        return None
    # CSV files hold no NUL and no half of a surrogate pair
    return str(value).replace("\0", " ").encode("utf-8", "replace").decode()


def _gold_spans(value: object, where: str) -> list[dict[str, Any]]:
    """Return the gold spans: texts with offsets (their places in the list where the file gives none)."""
    if isinstance(value, dict):  # {"text": [...], "answer_start": [...]}, as Hugging Face's SQuAD has it
        value = value.get("text")
    items = [
        item if isinstance(item, dict) else {"text": item} for item in (value if isinstance(value, list) else [value])
    ]
    texts = [_as_text(item.get("text"), where, "reference") for item in items]
    if None in texts:
        raise InputError(
            f"{where}: the reference is empty: give the right answer, the sentence {NO_CLAUSE!r} where there is none, "
            "or drop the row."
        )
    refusals = [bool(normalise_answer(text)) and is_refusal(text) for text in texts]
    if all(refusals):
        return []
    if any(refusals):
        raise InputError(f"{where}: the reference both names a clause and says that there is none: correct it.")
    starts = [item["start"] if isinstance(item.get("start"), int) else n for n, item in enumerate(items)]
    return [{"text": text, "start": start} for text, start in zip(texts, starts, strict=True)]


def _verdict_number(value: object, where: str, column: str) -> float:
    text = (_as_text(value, where, column) or "").strip().casefold()
    number = VERDICT_NUMBERS.get(text, pd.to_numeric(text, errors="coerce"))
    if text and not 0 <= number <= 1:
        raise InputError(
            f"{where}: verdict {str(value)[:40]!r} in column {column!r}: give a number from 0 to 1, "
            "true/false or correct/partly/incorrect."
        )
    return float(number)
