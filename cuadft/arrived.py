"""What arrived in each iteration: contracts with their questions, frozen in its arrived.jsonl once they are taken.

A line is a contract's record with its rows, the iteration ("arrived"), the file that it came in and a hash of its content;
or the title, file, reason and detail of a contract that was left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cuadft import runs
from cuadft.contracts import Contract
from cuadft.errors import InputError
from cuadft.files import value_hash

NAME = "arrived.jsonl"
_CONTENT = ("title", "contract_type", "filer", "text", "rows")  # what the hash covers: never changes once taken


def path(iteration: runs.Iteration) -> Path:
    """Return where an iteration keeps what arrived in it."""
    return iteration.path(NAME)  # not in data/, which is cleared when a parameter changes


def line(contract: Contract, *, iteration: int, file: str, group: int) -> dict[str, Any]:
    """Return the line of a contract that is taken for training."""
    made = contract.record(group=group, split="train") | {"arrived": iteration, "file": file, "rows": list(contract.rows)}
    return made | {"sha256": _hash(made)}


def lines(run: Path, upto: int | None = None) -> list[dict[str, Any]]:
    """Return the lines of contracts that arrived in iterations 1 to `upto` (None: in any), oldest first.

    Raises InputError if one is not as it was taken.
    """
    return [each for number in _numbers(run, upto) for each in taken(runs.Iteration(run, number))]


def taken(iteration: runs.Iteration) -> list[dict[str, Any]]:
    """Return the lines of the contracts that arrived in this iteration; InputError if one is not as it was taken."""
    found = [each for each in _read(iteration) if "reason" not in each]
    for each in found:
        if not isinstance(each.get("rows"), list) or each.get("sha256") != _hash(each):
            raise InputError(f"{path(iteration)}: contract {each.get('title')!r} is not as it was taken. Restore the file, or "
                             "delete it, put the contract into arrivals_folder again and run the same command.")
    return found


def refuse(iteration: runs.Iteration) -> None:
    """Raise InputError if contracts have arrived so far: only the stream "arrivals" knows what to do with them."""
    if found := lines(iteration.run, iteration.number):
        first = path(runs.Iteration(iteration.run, found[0]["arrived"]))
        raise InputError(f"{len(found)} contracts arrived in this run ({first}): keep stream arrivals, or take a new run "
                         "folder for another stream.")


def left_out(iteration: runs.Iteration) -> list[dict[str, Any]]:
    """Return title, file, reason and detail of what was left out in this iteration."""
    return [each for each in _read(iteration) if "reason" in each]


def write(iteration: runs.Iteration, found: Iterable[dict[str, Any]], left: Iterable[dict[str, Any]]) -> None:
    """Freeze what was taken and what was left out, in one step."""
    runs.write_jsonl(path(iteration), [*found, *left])


def records(run: Path, upto: int | None = None) -> list[dict[str, Any]]:
    """Return the records, as in contracts.jsonl, of what arrived in iterations 1 to `upto`, each with "arrived"."""
    dropped = ("rows", "file", "sha256")
    return [{key: value for key, value in each.items() if key not in dropped} for each in lines(run, upto)]


def contracts(run: Path, upto: int | None = None) -> list[Contract]:
    """Return the contracts, with their questions, that arrived in iterations 1 to `upto` (None: in any)."""
    return [contract(each) for each in lines(run, upto)]


def contract(line: dict[str, Any]) -> Contract:
    """Return the contract of a line."""
    return Contract(line["title"], line["text"], line["contract_type"], line["filer"], tuple(line["rows"]))


def keep(iteration: runs.Iteration, records: Sequence[dict[str, Any]]) -> None:
    """Write the splits (and slice numbers) that `records` give to what arrived in this iteration."""
    given = {r["title"]: r for r in records}
    found = taken(iteration)
    changed = [_marked(each, given[each["title"]]) for each in found]
    if changed != found:
        write(iteration, changed, left_out(iteration))


def _marked(line: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in line.items() if key != "slice"}
    return kept | {key: record[key] for key in ("split", "slice") if key in record}


def _numbers(run: Path, upto: int | None) -> list[int]:
    named = [file.parent.name.removeprefix("iter-") for file in run.glob(f"iter-*/{NAME}")]
    return sorted(int(n) for n in named if n.isdecimal() and (upto is None or int(n) <= upto))


def _read(iteration: runs.Iteration) -> list[dict[str, Any]]:
    return runs.read_jsonl(path(iteration)) if path(iteration).is_file() else []


def _hash(line: dict[str, Any]) -> str:
    return value_hash({key: line.get(key) for key in _CONTENT})
