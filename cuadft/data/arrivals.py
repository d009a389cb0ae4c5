"""Take the annotated contracts that were dropped into a folder since the iteration before, and freeze them.

A contract that arrives is taken if it is new to the run and unlike every held-out contract. What is left out is kept
with its reason. A second call for the same iteration returns the same contracts, whatever the folder holds by then. For
example:

    iteration = runs.Iteration(Path("runs/stream"), 2)
    take_arrivals(iteration, "arrivals")
    arrivals_table(iteration)    # [{"contracts": 3, "what": "taken", "for example": "SUPPLY AGREEMENT (new.json)"}]

`cuadft.data.rows` reads what was taken (`arrived_contracts`), and `cuadft.data.stream` cuts it into slices.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.text import fold
from cuadft.data import contracts, rows, splits
from cuadft.data.contracts import Contract
from cuadft.data.cuad import TYPES_NAME
from cuadft.data.rows import HELD_OUT, PLAIN

ARRIVALS_FOLDER = "arrivals"  # in the project; where new annotated files are dropped
FILE_ENDINGS = (".json", ".zip")
STILL_WRITTEN = "still being written, so left for the next iteration"
REPEATED = "stands more than once in the folder"
RENAMED = "has the title of a contract of the run, but another text: rename it if it is another contract"

# A broken file that changed this recently may be one that is still being copied; it then has some time to change again.
RECENT_SECONDS = 60.0
WAIT_SECONDS = 2.0

_ArrivalRecord = dict[str, Any]  # a line of contracts.jsonl or of arrived.jsonl


def take_arrivals(iteration: runs.Iteration, folder: str | Path, *, max_characters: int = 0) -> list[Contract]:
    """Return the contracts that arrive in this iteration, and freeze them in its arrived.jsonl.

    The .json and .zip files of `folder` are read as by `read_contracts`. A contract is left out, with the reason (see
    `arrivals_table`), if the run has its title or text, if it shares text or filer with a held-out contract (dev, test,
    slice), if it has no questions, or if it is longer than `max_characters` (0: any length). A file that changes while
    it is read is left for the next iteration.

    A second call returns the same contracts, whatever the folder holds by then. One exception: if the splits were drawn
    anew, contracts that now repeat a held-out contract are dropped.

    Raises InputError if a file is broken or if two contracts of one title differ; nothing is taken then. From iteration
    2 on it is also raised if there is nothing new.
    """
    known = [r for r in rows.contract_records(iteration.run) if r.get("arrived") != iteration.number]
    if rows.arrived_path(iteration).is_file():
        before = [Arrival(each["file"], rows.arrived_contract(each)) for each in rows.taken_contracts(iteration)]
        found, left = admit_arrivals(before, known)
        if found or not iteration.previous:
            return _freeze(iteration, found, rows.left_out_arrivals(iteration) + left, known)
    found, unread = _read_folder(folder)
    found, left = admit_arrivals(found, known, max_characters=max_characters)
    if not found and iteration.previous:
        counts = Counter(each["reason"] for each in left + unread)
        reasons = "; ".join(f"{count} x {reason}" for reason, count in counts.items()) or "it is empty"
        raise InputError(
            f"Nothing new in {folder} for iteration {iteration.number} ({reasons}): drop a file with new contracts "
            "there, in the layout of CUAD_v1.json, then run the same command again."
        )
    return _freeze(iteration, found, left + unread, known)


def arrivals_table(iteration: runs.Iteration) -> list[_ArrivalRecord]:
    """Return how many contracts were taken, and left out for each reason: {"contracts", "what", "for example"}."""
    lines = [each | {"reason": "taken", "detail": each["file"]} for each in rows.taken_contracts(iteration)]
    examples: dict[str, list[str]] = defaultdict(list)
    for each in lines + rows.left_out_arrivals(iteration):
        detail = f" ({each['detail']})" if each["detail"] else ""
        examples[each["reason"]].append(f"{each['title']}{detail}" if detail else each["title"] or each["file"])
    return [{"contracts": len(own), "what": reason, "for example": own[0]} for reason, own in examples.items()]


class Arrival(NamedTuple):
    """A contract, and the name of the file that it came in."""

    file: str
    contract: Contract

    def left_out(self, reason: str, detail: str = "") -> _ArrivalRecord:
        """Return the line that says why the contract was left out."""
        return {"title": self.contract.title, "file": self.file, "reason": reason, "detail": detail}


def admit_arrivals(
    found: Sequence[Arrival], known: Iterable[_ArrivalRecord], *, max_characters: int = 0
) -> tuple[list[Arrival], list[_ArrivalRecord]]:
    """Return the contracts that may be learned from, and a record with the reason for each one that is left out.

    known: the records of all other contracts of the run. Contracts without annotations are ignored, because an
    annotated contract of the same title takes their place. Titles are compared without regard to case and white space.
    Raises InputError if two new contracts of one title differ.
    """
    annotated = [r for r in known if r["split"] != PLAIN]
    titles = {fold(r["title"]): r for r in annotated}
    texts = {r["text"]: r["title"] for r in annotated if r["split"] not in HELD_OUT}
    kept: dict[str, Arrival] = {}
    left, clashes = [], []
    for each in found:
        contract, name = each.contract, fold(each.contract.title)
        if name in titles:
            left.append(each.left_out(_why_known(contract, titles[name])))
        elif name in kept:
            left.append(each.left_out(REPEATED, f"also in {kept[name].file}"))
            if contract != kept[name].contract:
                stands = f"contract {contract.title!r} stands in {kept[name].file} and {each.file}"
                clashes.append(f"{stands}, with other text or questions: keep one, or rename one")
        elif not contract.rows:
            left.append(each.left_out("has no questions"))
        elif max_characters and len(contract.text) > max_characters:
            left.append(each.left_out("is longer than max_characters"))
        elif contract.text in texts:
            left.append(each.left_out("has the text of another contract", texts[contract.text]))
        else:
            kept[name], texts[contract.text] = each, contract.title
    contracts.raise_problems(ARRIVALS_FOLDER, clashes)
    held_out = [Contract.from_record(record) for record in annotated if record["split"] in HELD_OUT]
    groups = splits.contract_groups([*(each.contract for each in kept.values()), *held_out]) if kept else {}
    repeated = {groups[contract.title]: contract.title for contract in held_out if groups}
    taken = [each for each in kept.values() if groups[each.contract.title] not in repeated]
    for each in kept.values():
        if other := repeated.get(groups[each.contract.title]):
            left.append(each.left_out("repeats a held-out contract (text or filer)", other))
    return taken, left


def groups_of_new(
    new: Sequence[Contract], known: Iterable[_ArrivalRecord], *, learned: Iterable[str] = ()
) -> dict[str, int]:
    """Return the group of each new contract: that of the known contracts that it belongs to, else an unused number.

    A contract gets group -1, that of contracts without annotations, if it repeats such a contract or if its title is in
    `learned` (training questions were written on it before). A contract of group -1 is never held out.
    """
    known = [r for r in known if r["split"] != PLAIN or r["title"] not in {c.title for c in new}]
    numbers = splits.contract_groups([*new, *map(Contract.from_record, known)])
    candidates: dict[int, set[int]] = defaultdict(set)  # group numbers of known contracts, by the joint grouping's
    for record in known:
        candidates[numbers[record["title"]]].add(record["group"])
    for title in {c.title for c in new} & set(learned):
        candidates[numbers[title]].add(-1)
    unused = itertools.count(first_free_group(known))
    for number in sorted({numbers[c.title] for c in new} - set(candidates)):
        candidates[number].add(next(unused))
    return {c.title: min(candidates[numbers[c.title]]) for c in new}


def first_free_group(known: Iterable[_ArrivalRecord]) -> int:
    """Return the group number after the largest one in use."""
    return max((r["group"] for r in known), default=-1) + 1


def _freeze(
    iteration: runs.Iteration, found: Sequence[Arrival], left: Iterable[_ArrivalRecord], known: Sequence[_ArrivalRecord]
) -> list[Contract]:
    """Write what is taken, each contract with its group.

    A contract that was held out before stays held out as long as no other contract of the run belongs to its group.
    """
    before = {each["title"]: each for each in rows.taken_contracts(iteration)}
    known = [r for r in known if r.get("arrived", 0) < iteration.number]
    learned = _learned_from(iteration) | {title for title, each in before.items() if each["group"] == -1}
    groups = groups_of_new([each.contract for each in found], known, learned=learned)
    # The first iteration draws all its held-out contracts at once. Without the others of that draw, it draws anew.
    drawn = iteration.previous is not None or any(r["split"] == "slice" for r in known)
    lines = []
    for file, contract in found:
        line = rows.arrived_line(contract, iteration=iteration.number, file=file, group=groups[contract.title])
        stays = drawn and contract.title in before and line["group"] >= first_free_group(known)
        lines.append(rows.with_split(line, before[contract.title]) if stays else line)
    files.write_jsonl(rows.arrived_path(iteration), [*lines, *left])
    return [contract for _, contract in found]


def _learned_from(iteration: runs.Iteration) -> set[str]:
    """Return the titles of contracts on which earlier iterations wrote training questions.

    Such a contract may arrive with annotations later, and must not be held out then.
    """
    paths = [runs.Iteration(iteration.run, n).path("data", "synthetic.jsonl") for n in range(1, iteration.number)]
    return {row["contract"] for path in paths if path.is_file() for row in files.read_jsonl(path)}


def _read_folder(folder: str | Path) -> tuple[list[Arrival], list[_ArrivalRecord]]:
    """Return the contracts of a folder's files, and a record of each file that was not read.

    Raises InputError that names every broken file. A file that changes while it is read, or in the `WAIT_SECONDS` after
    it was found to be broken, is not read.
    """
    folder = runs.resolve_path(folder)
    try:
        paths = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name != TYPES_NAME)
    except OSError as error:
        raise InputError(
            f"Can't read arrivals_folder {str(folder)!r} ({error.strerror}): make that folder, and drop files in "
            "the layout of CUAD_v1.json (.json or .zip) there."
        ) from error
    found, left, broken = [], [], {}
    for path in paths:
        if path.suffix.lower() not in FILE_ENDINGS or path.is_dir():
            left.append(_unread_file(path, "not a .json or .zip file"))
            continue
        state = _size_and_time(path)
        try:
            read = [Arrival(path.name, _named_rows(contract)) for contract in contracts.read_contracts(path)]
        except InputError as error:
            broken[path] = (state, str(error))
            continue
        if _size_and_time(path) == state:
            found += read
        else:
            left.append(_unread_file(path, STILL_WRITTEN))
    if any(state and time.time() - state[1] / 1e9 < RECENT_SECONDS for state, _ in broken.values()):
        time.sleep(WAIT_SECONDS)
    growing = {path for path, (state, _) in broken.items() if state is None or _size_and_time(path) != state}
    left += [_unread_file(path, STILL_WRITTEN) for path in growing]
    contracts.raise_problems(str(folder), [message for path, (_, message) in broken.items() if path not in growing])
    return found, left


def _unread_file(path: Path, reason: str) -> _ArrivalRecord:
    return {"title": "", "file": path.name, "reason": reason, "detail": ""}


def _size_and_time(path: Path) -> tuple[int, int] | None:
    """Return a file's size in bytes and the time of its last change in ns, None if it is gone."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _named_rows(contract: Contract) -> Contract:
    """Return the contract with row ids that begin with its title, since other files may use the same short ids."""
    start = f"{contract.title}__"
    if all(row["id"].startswith(start) for row in contract.rows):
        return contract
    return replace(contract, rows=tuple(row | {"id": start + row["id"]} for row in contract.rows))


def _why_known(contract: Contract, record: _ArrivalRecord) -> str:
    if record["text"] != contract.text:
        return RENAMED
    return f"was taken in iteration {record['arrived']}" if "arrived" in record else "is in the run's contracts already"
