"""Answer files put together: questions numbered across systems, repeated files taken once, and what is resampled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cuadft.answers import AnswerFile
from cuadft.errors import InputError

MOST_SYSTEMS = 100  # more make no table or figure that can be read, and usually come from a wrong column


@dataclass(frozen=True)
class Pool:
    """Hold predictions in the order of the files, what intervals resample ("question" or "contract"), and remarks."""

    predictions: list[dict[str, Any]] = field(repr=False)
    unit: str
    notes: list[str]

    @property
    def systems(self) -> list[str]:
        return list(dict.fromkeys(p["system"] for p in self.predictions))

    @property
    def split(self) -> str:
        return self.predictions[0]["split"]


def join(files: Sequence[AnswerFile]) -> Pool:
    """Return the files' rows as predictions whose `id` is the number of their question and `contract` their cluster.

    Two systems' rows belong to the same question if contract, question and reference agree; a question that one
    system answers several times keeps distinct ids ("3", "3.2"). The same rows in two files count once (verdicts of
    both are kept). Without a contract column, or with one contract, every question is a cluster of its own. Raises
    InputError on no rows, too many systems, several splits, and one system with different answers in two files.
    """
    if not files:
        raise InputError("No answers: name at least one file with question, reference and answer.")
    numbers: dict[tuple, int] = {}
    taken: dict[str, list[tuple[AnswerFile, dict]]] = {}
    notes: list[str] = []
    for n, file in enumerate(files):
        for system, rows in _numbered(file, n, numbers).items():
            _add(taken.setdefault(system, []), file, system, rows, notes)
    if len(taken) > MOST_SYSTEMS:
        raise InputError(f"{len(taken):,} systems, the first of them {', '.join(list(taken)[:3])}; at most "
                         f"{MOST_SYSTEMS} can be compared: name the column that tells systems apart with --system "
                         "COLUMN, or score fewer at a time.")  # fmt: skip
    rows = [row for parts in taken.values() for _, rows in parts for row in rows.values()]
    rows.sort(key=lambda row: row["order"])
    predictions, unit = _clustered(rows, _split(rows))
    return Pool(predictions, unit, [*notes, *_repeats(numbers, predictions)])


def _numbered(file: AnswerFile, place: int, numbers: dict[tuple, int]) -> dict[str, dict[tuple, dict]]:
    """Return the rows of a file (the `place`-th) by system and then by (seed, id)."""
    systems: dict[str, dict[tuple, dict]] = {}
    seen: Counter = Counter()
    for n, row in enumerate(file.rows):
        gold = " ".join(" ".join(a["text"] for a in row["answers"]).split())
        number = numbers.setdefault((row["contract"], " ".join(row["question"].split()), gold), len(numbers) + 1)
        seen[key := (row["system"], row["seed"], number)] += 1
        name = str(number) if seen[key] == 1 else f"{number}.{seen[key]}"
        systems.setdefault(row["system"], {})[row["seed"], name] = row | {
            "id": name, "number": number, "order": (place, n), "verdicts": dict(row["verdicts"]),
        }  # fmt: skip
    return systems


def _add(parts: list, file: AnswerFile, system: str, rows: dict[tuple, dict], notes: list[str]) -> None:
    """Add one file's rows of a system to those of the files before it."""
    for other, before in parts:
        if {key: row["answer"] for key, row in before.items()} == {key: row["answer"] for key, row in rows.items()}:
            for key, row in rows.items():
                before[key]["verdicts"] |= row["verdicts"]
            notes.append(f"{file.path} holds the same answers of {system} as {other.path}: taken once.")
            return
        if not ("system" in file.columns and "system" in other.columns) or not before.keys().isdisjoint(rows):
            raise InputError(f"Both {other.path} and {file.path} hold a system {system!r}, with different answers: "
                             "rename one file, or name the column that tells systems apart with --system COLUMN.")
    parts.append((file, rows))


def _split(rows: Iterable[dict]) -> str:
    """Return the one split that the rows name, "all" if none does."""
    splits = sorted({row["split"] for row in rows} - {""})
    if len(splits) > 1:
        raise InputError(f"The rows come from several splits ({', '.join(splits)}): score one split at a time, for "
                         f"example only the files named *.{splits[-1]}.jsonl.")
    return splits[0] if splits else "all"


def _clustered(rows: list[dict], split: str) -> tuple[list[dict], str]:
    """Return the rows with their cluster as `contract` (its own name as `contract_name`), and what a cluster is."""
    contracts = {row["contract"] for row in rows}
    by_contract = len(contracts) > 1 and "" not in contracts
    return [
        row | {"split": split, "contract_name": row["contract"],
               "contract": row["contract"] if by_contract else f"question {row['number']}"}
        for row in rows
    ], "contract" if by_contract else "question"  # fmt: skip


def _repeats(numbers: dict[tuple, int], predictions: Sequence[dict]) -> list[str]:
    """Return remarks on a question with several references, and on a question that a system answers several times."""
    references = Counter((contract, question) for contract, question, _ in numbers)
    several = [question for (_, question), count in references.items() if count > 1]
    twice = [p for p in predictions if "." in p["id"]]
    notes = []
    if several:
        notes.append(f"Questions with several references: {len(several):,} (first: {several[0][:80]!r}). Answers are "
                     "compared between systems only under the same reference. If they are about different "
                     "contracts, name their column with --contract COLUMN.")
    if twice:
        notes.append(f"Rows that repeat a question and its reference within one system: {len(twice):,} (first: "
                     f"{twice[0]['where']}). Each counts, and systems are compared in the order of the repeats.")
    return notes


def counted(n: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is one."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def basis(pool: Pool) -> str:
    """Return in one or two sentences what an interval over these rows speaks about."""
    n = len({p["contract"] for p in pool.predictions})
    if n == 1:
        return "There is one question only, so there are no intervals and no tests."
    if pool.unit == "contract":
        return f"Intervals come from resampling the {n} contracts: they hold for other contracts of this kind."
    names = {p["contract_name"] for p in pool.predictions}
    why = "The rows come from one contract" if names != {""} else "The files name no contract"
    why = "Not all rows name a contract" if len(names) > 1 else why
    return (f"{why}, so each of the {n} questions counts as one draw: the intervals hold for questions of this kind "
            "on the same contract or contracts, and say nothing about other contracts.")
