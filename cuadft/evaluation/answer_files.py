"""Read answers from any table, as predictions that `score_predictions` and every judge can take.

A file holds one row per answer: a question, its reference and what a system answered. `read_answer_files` finds the
columns and turns each file into prediction rows. `join_files` puts the files together: it numbers the questions across
systems, takes repeated files once, and says what intervals resample (contracts or questions).

    files = read_answer_files(["sft.csv", "dpo.csv"], answer="response", verdicts=["human"])
    pool = join_files(files)
    pool.systems, pool.unit, pool.predictions[0]["verdicts"]      # ["sft", "dpo"], "question", {"human": 1.0}

The *verdicts* here are what others say of the answers, for example a human in a column of the table, as numbers from
0 to 1.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.text import fold_name
from cuadft.evaluation.excerpts import clean_text, shorten
from cuadft.evaluation.text_scores import is_refusal, normalise_answer

ANSWER_ALIASES = {  # role of a column -> names by which it is found, best first
    "question": "question query question_text",
    "reference": "reference ref_answer reference_answer answers gold gold_answer ground_truth groundtruth expected "
    "expected_answer expected_output target",
    "answer": "answer response prediction predicted_answer model_answer generated_answer output completion",
    "system": "system system_name",
    "contract": "contract contract_name contract_id contract_title",
} | {name: name for name in ("contract_type", "category", "split", "seed", "error", "seconds", "is_impossible")}
REQUIRED = ("question", "reference", "answer")
NOT_TEXT = ("reference", "seconds")  # columns that may hold lists or numbers
NO_ANSWER = "no answer"
BLANKS = ("", "nan", "null", "<na>")  # how tables write a missing value
VERDICT_NUMBERS = {"true": 1.0, "yes": 1.0, "correct": 1.0, "partly": 0.5, "false": 0.0, "no": 0.0, "incorrect": 0.0}
COLUMNS_LISTED = 20  # in an error message
LONGEST_NAME = 100  # characters of a system's name, which stands in tables and figures
LARGEST_SEED = 2**32 - 1
MOST_SYSTEMS = 100  # more make no table or figure that can be read, and usually come from a wrong column


@dataclass(frozen=True)
class AnswerFile:
    """Hold a file's prediction rows, which have no ids yet, and which column plays which role."""

    path: Path
    columns: dict[str, str]
    rows: list[dict[str, Any]] = field(repr=False)


@dataclass(frozen=True)
class Pool:
    """Hold the predictions of all files in order, what intervals resample ("question" or "contract"), and remarks."""

    predictions: list[dict[str, Any]] = field(repr=False)
    unit: str
    notes: list[str]

    @property
    def systems(self) -> list[str]:
        return list(dict.fromkeys(p["system"] for p in self.predictions))

    @property
    def split(self) -> str:
        return self.predictions[0]["split"]


def read_answer_files(paths: Sequence[str | Path], *, verdicts: Sequence[str] = (), **columns: str) -> list[AnswerFile]:
    """Return each file's rows; `columns` names columns (answer="response"), others are found by `ANSWER_ALIASES`.

    verdicts: columns with others' verdicts (0 to 1, true/false or correct/partly/incorrect), kept as numbers in
    row["verdicts"] where a file has them. A reference may be a list of gold spans in JSON; the refusal sentence means
    that there is no such clause, and so does an empty list. A row without an answer is a failed generation: answer
    None, error "no answer". Raises InputError for an unreadable file, columns not found, and a row without question or
    reference.
    """
    unknown = set(columns) - set(ANSWER_ALIASES)
    if unknown:
        raise InputError(f"Invalid column {min(unknown)!r}: choose from {', '.join(ANSWER_ALIASES)}.")
    return [_read_one(Path(path), verdicts, columns) for path in paths]


def join_files(files: Sequence[AnswerFile]) -> Pool:
    """Return the files' rows as predictions whose `id` is the number of their question and `contract` their cluster.

    Two systems' rows belong to the same question if contract, question and reference agree; a question that one
    system answers several times keeps distinct ids ("3", "3.2"). The same rows in two files count once (verdicts of
    both are kept). Without a contract column, or with one contract, every question is a cluster of its own. Raises
    InputError on no rows, too many systems, several splits, and one system with different answers in two files.
    """
    if not files:
        raise InputError("No answers: name at least one file with question, reference and answer.")
    numbers: dict[tuple, int] = {}
    taken: dict[str, list[tuple[AnswerFile, dict]]] = defaultdict(list)
    rows: list[dict] = []
    notes: list[str] = []
    for file in files:
        numbered, systems = _numbered(file.rows, numbers), defaultdict(dict)
        for row in numbered:
            systems[row["system"]][row["seed"], row["id"]] = row
        new = [system for system, own in systems.items() if not _is_repeat(taken[system], file, system, own, notes)]
        rows += [row for row in numbered if row["system"] in new]
    if len(taken) > MOST_SYSTEMS:
        raise InputError(
            f"{len(taken):,} systems, the first of them {', '.join(list(taken)[:3])}; at most {MOST_SYSTEMS} can be "
            "compared: name the column that tells systems apart with --system COLUMN, or score fewer at a time."
        )
    contracts, split = {row["contract"] for row in rows}, _one_split(rows)
    unit = "contract" if len(contracts) > 1 and "" not in contracts else "question"
    for row in rows:
        cluster = row["contract"] if unit == "contract" else f"question {row['number']}"
        row |= {"split": split, "contract_name": row["contract"], "contract": cluster}
    return Pool(rows, unit, [*notes, *_repeats(numbers, rows)])


def pool_basis(pool: Pool) -> str:
    """Return in one or two sentences what the intervals over these rows hold for."""
    n, names = len({p["contract"] for p in pool.predictions}), {p["contract_name"] for p in pool.predictions}
    if n == 1:
        return "There is one question only, so there are no intervals and no tests."
    if pool.unit == "contract":
        return f"Intervals come from resampling the {n} contracts: they hold for other contracts of this kind."
    why = "The files name no contract" if names == {""} else "The rows come from one contract"
    return (
        f"{why if len(names) == 1 else 'Not all rows name a contract'}, so each of the {n} questions counts as one "
        "draw: the intervals hold for such questions on the same contracts, and say nothing about other contracts."
    )


def count_of(n: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless the number is 1, such as "1,200 answers"."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _read_one(path: Path, verdicts: Sequence[str], asked: Mapping[str, str]) -> AnswerFile:
    records = files.read_table(path)
    present = list(dict.fromkeys(name for record in records for name in record.values))
    columns = {role: name for role in ANSWER_ALIASES if (name := _column(role, asked.get(role, ""), present, path))}
    for role in REQUIRED:
        same = [other for other in columns if columns[other] == columns[role] and other != role]
        if same:
            raise InputError(f"{path}: column {columns[role]!r} can't be both {role} and {same[0]}: name two.")
    kept = [name for name in verdicts if name in present]
    return AnswerFile(path, columns, [_prediction_row(record, columns, kept, path) for record in records])


def _column(role: str, asked: str, present: Sequence[str], path: Path) -> str | None:
    """Return the column that plays a role, None if the file lacks an optional one."""
    folded = {fold_name(name): name for name in reversed(present)}
    listed = ", ".join(repr(shorten(name, 40)) for name in present[:COLUMNS_LISTED])
    listed += " …" * (len(present) > COLUMNS_LISTED)
    names = ANSWER_ALIASES[role].split()
    wanted = [fold_name(asked)] if asked else names
    found = asked if asked in present else next((folded[name] for name in wanted if name in folded), None)
    if asked and found is None:
        near = get_close_matches(asked, present, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise InputError(f"{path} has no column {asked!r} ({role}): {hint}Its columns: {listed}.")
    if found is None and role in REQUIRED:
        raise InputError(
            f"{path} has no column for the {role} (looked for {', '.join(names)}). Its columns: {listed}. Name one "
            f"with --{role} COLUMN."
        )
    return found


def _prediction_row(
    record: files.TableRow, columns: Mapping[str, str], verdicts: Sequence[str], path: Path
) -> dict[str, Any]:
    where, given = record.where, {role: record.values.get(columns.get(role)) for role in ANSWER_ALIASES}
    text = {role: _as_text(value, where, role) for role, value in given.items() if role not in NOT_TEXT}
    for role in ("question", "system", "contract"):
        if role in columns and text[role] is None:
            raise InputError(f"{where}: the {role} ({columns[role]!r}) is empty: fill it in, or drop the row.")
    impossible = (text["is_impossible"] or "").strip().casefold() in ("true", "1", "1.0", "yes")
    golds, seconds = _gold_spans(given["reference"], impossible, where, columns["reference"]), given["seconds"]
    row = {
        "question": text["question"],
        "answers": golds,
        "is_impossible": not golds,
        "answer": text["answer"],
        "error": (text["error"] or NO_ANSWER) if text["answer"] is None else None,
        "system": clean_text(text["system"] or path.stem),
        "seed": _as_seed(text["seed"], where),
        **{role: text[role] or "" for role in ("split", "contract", "contract_type", "category")},
        "source": "file",
        "seconds": seconds if isinstance(seconds, float | int) else math.nan,
        "where": where,
        "verdicts": {name: _verdict_number(record.values.get(name), where, name) for name in verdicts},
    }
    if not 0 < len(row["system"]) <= LONGEST_NAME:
        raise InputError(
            f"{where}: {row['system'][:40]!r} is no system's name, it has {len(row['system']):,} characters: give 1 to "
            f"{LONGEST_NAME}, or name the column that tells systems apart with --system COLUMN."
        )
    if isinstance(given["reference"], list) and all(isinstance(gold, dict) for gold in given["reference"]):
        # this package's predictions also hold passages sent and spans found, as offsets in the contract
        for name, ends in (("passages", ("start", "end")), ("spans", (0, 1))):
            row |= {name: record.values[name]} if _offsets(record.values.get(name), *ends) else {}
    return row


def _offsets(places: object, start: object, end: object) -> bool:
    try:
        return isinstance(places, list) and all(isinstance(place[k], int) for place in places for k in (start, end))
    except (TypeError, LookupError):
        return False


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


def _gold_spans(value: object, impossible: bool, where: str, column: str) -> list[dict[str, Any]]:
    """Return the gold spans: texts with offsets (their places in the list where the file gives none)."""
    if isinstance(value, dict):  # {"text": [...], "answer_start": [...]}, as Hugging Face's SQuAD has it
        value = value.get("text")
    items = value if isinstance(value, list) else [value]
    found = [item if isinstance(item, dict) else {"text": item} for item in items]
    texts = [_as_text(item.get("text"), where, "reference") for item in found]
    if (impossible and not any(texts)) or (isinstance(value, list) and not value):
        return []
    if None in texts:
        raise InputError(
            f"{where}: the reference ({column!r}) is empty: give the right answer, the sentence 'There "
            "is no such clause.' where there is none, or drop the row."
        )
    refusals = sum(bool(normalise_answer(text)) and is_refusal(text) for text in texts)
    if refusals not in (0, len(texts)) or impossible and not refusals:
        raise InputError(f"{where}: the reference both names a clause and says that there is none: correct it.")
    starts = [item["start"] if isinstance(item.get("start"), int) else n for n, item in enumerate(found)]
    return [] if refusals else [{"text": t, "start": s} for t, s in zip(texts, starts, strict=True)]


def _as_seed(text: str | None, where: str) -> int:
    try:
        number = float(text or 0)
    except ValueError:
        number = math.nan
    if not number.is_integer() or abs(number) > LARGEST_SEED:
        raise InputError(f"{where}: seed {text[:40]!r} is no whole number of at most 32 bits: correct it.")
    return int(number)


def _verdict_number(value: object, where: str, column: str) -> float:
    text = (_as_text(value, where, column) or "nan").strip().casefold()
    try:
        number = VERDICT_NUMBERS[text] if text in VERDICT_NUMBERS else float(text)
    except ValueError:
        number = -1.0
    if not (0 <= number <= 1 or math.isnan(number)):
        raise InputError(
            f"{where}: verdict {str(value)[:40]!r} in column {column!r}: give a number from 0 to 1, "
            "true/false or correct/partly/incorrect."
        )
    return number


def _numbered(rows: Sequence[dict], numbers: dict[tuple, int]) -> list[dict]:
    """Return a file's rows with the number of their question and their id, and add new questions to `numbers`."""
    seen: Counter = Counter()
    made = []
    for row in rows:
        gold = " ".join(" ".join(a["text"] for a in row["answers"]).split())
        number = numbers.setdefault((row["contract"], " ".join(row["question"].split()), gold), len(numbers) + 1)
        seen[key := (row["system"], row["seed"], number)] += 1
        name = str(number) if seen[key] == 1 else f"{number}.{seen[key]}"
        made.append(row | {"id": name, "number": number, "verdicts": dict(row["verdicts"])})
    return made


def _is_repeat(taken: list, file: AnswerFile, system: str, rows: dict[tuple, dict], notes: list[str]) -> bool:
    """Tell whether an earlier file holds a system's rows, to which their verdicts are added; else remember them."""
    for other, before in taken:
        if {key: row["answer"] for key, row in before.items()} == {key: row["answer"] for key, row in rows.items()}:
            for key, row in rows.items():
                before[key]["verdicts"] |= row["verdicts"]
            notes.append(f"{file.path} holds the same answers of {system} as {other.path}: taken once.")
            return True
        if not ("system" in file.columns and "system" in other.columns) or not before.keys().isdisjoint(rows):
            raise InputError(
                f"Both {other.path} and {file.path} hold a system {system!r}, with different answers: "
                "rename one file, or name the column that tells systems apart with --system COLUMN."
            )
    taken.append((file, rows))
    return False


def _one_split(rows: Iterable[dict]) -> str:
    """Return the one split that the rows name, "all" if no row names one."""
    splits = sorted({row["split"] for row in rows} - {""})
    if len(splits) > 1:
        raise InputError(
            f"The rows come from several splits ({', '.join(splits)}): score one split at a time, for "
            f"example only the files named *.{splits[-1]}.jsonl."
        )
    return splits[0] if splits else "all"


def _repeats(numbers: dict[tuple, int], predictions: Sequence[dict]) -> list[str]:
    """Return remarks on a question with several references, and on a question that a system answers several times."""
    references = Counter((contract, question) for contract, question, _ in numbers)
    several = [question for (_, question), count in references.items() if count > 1]
    twice = [p["where"] for p in predictions if "." in p["id"]]
    notes = []
    if several:
        notes.append(
            f"Questions with several references: {len(several):,} (first: {several[0][:80]!r}). Systems are compared "
            "only under the same reference. If these are of different contracts, name their column with --contract "
            "COLUMN."
        )
    if twice:
        notes.append(
            f"Rows that repeat a question and its reference within one system: {len(twice):,} (first: {twice[0]}). "
            "Each counts, and systems are compared in the order of the repeats."
        )
    return notes
