"""Take the annotated contracts that were dropped into a folder since the iteration before, and freeze them.

A contract that arrives is taken if it is new to the run and unlike every held-out contract. What is left out is kept
with its reason. A second call for the same iteration returns the same contracts, whatever the folder holds by then. For
example:

    iteration = runs.Iteration(Path("runs/stream"), 2)
    take_arrivals(iteration, "arrivals")
    arrivals_table(iteration)    # contracts 3, what "taken", for example "SUPPLY AGREEMENT (new.json)"

`cuadft.data.rows` reads what was taken (`arrived_contracts`), and `cuadft.data.stream` cuts it into slices.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.text import fold
from cuadft.data import contracts, rows, splits
from cuadft.data.contracts import Contract
from cuadft.data.cuad import TYPES_NAME
from cuadft.data.layouts import SUFFIXES
from cuadft.data.rows import HELD_OUT, PLAIN
from cuadft.data.schema import Schema

READ = (*SUFFIXES, ".zip")
NOT_READ = f"not a file that is read ({', '.join(READ)})"
REPEATED = "is known already"
RENAMED = "has the title of a known contract, but another text: rename it if it is another contract"
LIKE_HELD_OUT = "repeats a held-out contract (text or filer)"

Arrival = tuple[str, Contract]  # the name of the file that a contract came in, and the contract
_Line = dict[str, Any]  # of contracts.jsonl or of arrived.jsonl


def take_arrivals(
    iteration: runs.Iteration,
    folder: str | Path,
    *,
    max_characters: int = 0,
    schema: Schema | None = None,
    needed: bool = True,
) -> list[Contract]:
    """Return the contracts that arrive in this iteration, and freeze them in its arrived.jsonl.

    The files of `folder` (see `READ`) are read as by `read_contracts`. A contract is left out, with the reason (see
    `arrivals_table`), if the run has its title or text, if it shares text or filer with a held-out contract (dev, test,
    slice), if it has no questions, or if it is longer than `max_characters` (0: any length). A second call returns the
    same contracts, but for those that now repeat a held-out contract because the splits were drawn anew.

    Raises InputError that names the broken files of the folder; nothing is taken then. From iteration 2 on it is also
    raised if there is nothing new, unless that is not `needed`.
    """
    known = rows.contract_records(iteration.run, iteration.number - 1)
    before = rows.arrived_lines(iteration)
    if iteration.path(rows.ARRIVED).is_file():
        found = [(line["file"], Contract.from_record(line)) for line in before if "reason" not in line]
        left = [line for line in before if "reason" in line]
    else:
        found, left = _read_folder(folder, schema)
    taken, refused = admit_arrivals(found, known, max_characters=max_characters)
    left += refused
    if not taken and iteration.previous and needed:
        raise _nothing_new(folder, iteration, left)
    groups = groups_of_new([contract for _, contract in taken], known, learned=_learned_from(iteration))
    held_out = {line["title"]: line["slice"] for line in before if "slice" in line}
    lines = []
    for file, contract in taken:
        line = contract.record(group=groups[contract.title], split="train")
        line |= {"arrived": iteration.number, "file": file, "rows": list(contract.rows)}
        lines.append(rows.in_slice(line, held_out.get(contract.title)))
    files.write_jsonl(iteration.path(rows.ARRIVED), lines + left)
    return [contract for _, contract in taken]


def _nothing_new(folder: str | Path, iteration: runs.Iteration, left: Sequence[_Line]) -> InputError:
    counts = pd.Series([line["reason"] for line in left]).value_counts()
    reasons = "; ".join(f"{count} x {reason}" for reason, count in counts.items()) or "it is empty"
    return InputError(
        f"Nothing new in {folder} for iteration {iteration.number} ({reasons}): drop a file with new contracts there, "
        "in the layout of CUAD_v1.json, or import the corrections of a review, then run the same command again."
    )


def arrivals_table(iteration: runs.Iteration) -> pd.DataFrame:
    """Return how many contracts were taken, and left out for each reason: contracts, what, for example."""
    lines = pd.DataFrame(rows.arrived_lines(iteration), columns=["title", "file", "reason", "detail"])
    lines = lines.fillna({"reason": "taken", "detail": ""})
    where = lines["detail"].where(lines["detail"] != "", lines["file"])
    lines["shown"] = lines["title"] + " (" + where + ")"
    table = lines.groupby("reason", sort=False).agg({"title": "size", "shown": "first"})
    return table.reset_index().set_axis(["what", "contracts", "for example"], axis=1)


def admit_arrivals(
    found: Sequence[Arrival], known: Sequence[_Line], *, max_characters: int = 0
) -> tuple[list[Arrival], list[_Line]]:
    """Return the contracts that may be learned from, and a line with the reason for each one that is left out.

    known: the records of all other contracts of the run. Contracts without annotations are ignored, because an
    annotated contract of the same title takes their place. Titles are compared without regard to case and white space.
    """
    known = [r for r in known if r["split"] != PLAIN]
    titles = {fold(r["title"]): r["text"] for r in known}
    texts = {r["text"]: r["title"] for r in known if r["split"] not in HELD_OUT}
    kept, left = [], []
    for file, contract in found:
        title, reason, detail = fold(contract.title), "", ""
        if title in titles:
            reason = REPEATED if contract.text == titles[title] else RENAMED
        elif not contract.rows:
            reason = "has no questions"
        elif max_characters and len(contract.text) > max_characters:
            reason = "is longer than max_characters"
        elif contract.text in texts:
            reason, detail = "has the text of another contract", texts[contract.text]
        if reason:
            left.append(_left_out(file, reason, contract.title, detail))
            continue
        kept.append((file, contract))
        titles[title], texts[contract.text] = contract.text, contract.title
    relatives = rows.held_out_relatives([contract for _, contract in kept], known)
    left += [_left_out(file, LIKE_HELD_OUT, c.title, relatives[c.title]) for file, c in kept if c.title in relatives]
    return [(file, contract) for file, contract in kept if contract.title not in relatives], left


def _left_out(file: str, reason: str, title: str, detail: str = "") -> _Line:
    """Return the line that says why a contract or a file was left out."""
    return {"title": title, "file": file, "reason": reason, "detail": detail}


def groups_of_new(new: Sequence[Contract], known: Iterable[_Line], *, learned: Iterable[str]) -> dict[str, int]:
    """Return the group of each new contract: that of the known contracts that it belongs to, else an unused number.

    A contract gets group -1, that of contracts without annotations, if it repeats such a contract or if its title is in
    `learned` (training questions were written on it before). A contract of group -1 is never held out.
    """
    titles = {contract.title for contract in new}
    others = [r for r in known if r["title"] not in titles]
    numbers = splits.contract_groups([*new, *map(Contract.from_record, others)])
    groups = {numbers[title]: -1 for title in titles.intersection(learned)}
    for record in others:
        number = numbers[record["title"]]
        groups[number] = min(groups.get(number, record["group"]), record["group"])
    unused = itertools.count(max((record["group"] for record in others), default=-1) + 1)
    return {contract.title: groups.setdefault(numbers[contract.title], next(unused)) for contract in new}


def _learned_from(iteration: runs.Iteration) -> set[str]:
    """Return the titles of contracts on which earlier iterations wrote training questions.

    Such a contract may arrive with annotations later, and must not be held out then.
    """
    paths = [runs.Iteration(iteration.run, n).path("data", "synthetic.jsonl") for n in range(1, iteration.number)]
    return {row["contract"] for path in paths if path.is_file() for row in files.read_jsonl(path)}


def _read_folder(folder: str | Path, schema: Schema | None) -> tuple[list[Arrival], list[_Line]]:
    """Return the contracts of a folder's files, and a line for each file of another kind.

    Raises InputError that names every broken file, such as one that is still being copied.
    """
    folder = runs.resolve_path(folder)
    if not folder.is_dir():
        raise InputError(
            f"No folder at arrivals_folder {str(folder)!r}: make that folder, and drop files in the layout of "
            f"CUAD_v1.json ({', '.join(READ)}) there."
        )
    found, left, broken = [], [], []
    for path in sorted(folder.glob("[!.]*")):
        if path.is_dir() or path.suffix.lower() not in READ:
            left += [_left_out(path.name, NOT_READ, path.name)] if path.name != TYPES_NAME else []
            continue
        try:
            found += [(path.name, _named_rows(contract)) for contract in contracts.read_contracts(path, schema)]
        except InputError as error:
            broken.append(str(error))
    contracts.raise_problems(str(folder), broken)
    return found, left


def _named_rows(contract: Contract) -> Contract:
    """Return the contract with row ids that begin with its title, since other files may use the same short ids."""
    start = f"{contract.title}__"
    if all(row["id"].startswith(start) for row in contract.rows):
        return contract
    return replace(contract, rows=tuple(row | {"id": start + row["id"]} for row in contract.rows))
