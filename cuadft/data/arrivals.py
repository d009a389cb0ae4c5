"""Take the annotated contracts that were dropped into a folder since the iteration before; once taken, they are frozen.

Which contracts that arrive are new to a run and may be learned from, and with which contracts each belongs together.
"""

from __future__ import annotations

import time
from collections import Counter
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

KINDS = (".json", ".zip")
RECENT = 60.0  # seconds since its last change in which a broken file may be one that is still being copied
WAIT = 2.0  # seconds in which it then has to change
_ArrivalRecord = dict[str, Any]


def take_arrivals(iteration: runs.Iteration, folder: str | Path, *, max_characters: int = 0) -> list[Contract]:
    """Return the contracts that arrive in this iteration, and freeze them in its arrived.jsonl.

    Read are the .json and .zip files of `folder`, as by `contracts.read`. Left out, with the reason (see `table`), are
    contracts whose title or text the run has, that share text or filer with a held-out contract (dev, test, slice), that
    have no questions or are longer than `max_characters` (0: any), and files that change while they are read. A second call
    returns the same contracts, whatever the folder holds by then; only those that repeat a held-out contract of splits that
    were drawn anew are dropped. Raises InputError if a file is broken, or if two of one title differ, with nothing taken;
    from iteration 2 on also if there is nothing new.
    """
    known = [r for r in rows.contract_records(iteration.run) if r.get("arrived") != iteration.number]
    if rows.arrived_path(iteration).is_file():
        before = [Arrival(each["file"], rows.arrived_contract(each)) for each in rows.taken_contracts(iteration)]
        found, left = admit(before, known)
        if found or not iteration.previous:
            return _freeze(iteration, found, rows.left_out_arrivals(iteration) + left, known)
    found, unread = _read(folder)
    found, left = admit(found, known, max_characters=max_characters)
    if not found and iteration.previous:
        raise InputError(
            f"Nothing new in {folder} for iteration {iteration.number} ({_counted(left + unread)}): drop a file "
            "with new contracts there, in the layout of CUAD_v1.json, then run the same command again."
        )
    return _freeze(iteration, found, left + unread, known)


def _freeze(
    iteration: runs.Iteration, found: Sequence[Arrival], left: Iterable[_ArrivalRecord], known: Sequence[_ArrivalRecord]
) -> list[Contract]:
    """Write what is taken, each contract in its group; what was held out stays so while nothing like it is known."""
    before = {each["title"]: each for each in rows.taken_contracts(iteration)}
    known = [r for r in known if r.get("arrived", 0) < iteration.number]
    learned = _learned(iteration) | {title for title, each in before.items() if each["group"] == -1}
    groups = groups_of_new([each.contract for each in found], known, learned=learned)
    # the first iteration draws all that it holds out at once: without the rest of that draw, these are drawn anew
    drawn = iteration.previous is not None or any(r["split"] == "slice" for r in known)
    lines = []
    for file, contract in found:
        line = rows.arrived_line(contract, iteration=iteration.number, file=file, group=groups[contract.title])
        held = before.get(contract.title, {}) if drawn and line["group"] >= first_free(known) else {}
        lines.append(line | {key: held[key] for key in ("split", "slice") if key in held})
    rows.write_arrived(iteration, lines, left)
    return [contract for _, contract in found]


def _learned(iteration: runs.Iteration) -> set[str]:
    """Return the titles that earlier iterations wrote training questions on: annotated only now, perhaps."""
    paths = [runs.Iteration(iteration.run, n).path("data", "synthetic.jsonl") for n in range(1, iteration.number)]
    return {row["contract"] for path in paths if path.is_file() for row in files.read_jsonl(path)}


def _counted(left: Sequence[_ArrivalRecord]) -> str:
    counts = Counter(each["reason"] for each in left)
    return "; ".join(f"{count} x {reason}" for reason, count in counts.items()) or "it is empty"


def arrivals_table(iteration: runs.Iteration) -> list[_ArrivalRecord]:
    """Return how many contracts the iteration took and left out, by reason: {"contracts", "what", "for example"}."""
    lines = [each | {"reason": "taken", "detail": each["file"]} for each in rows.taken_contracts(iteration)]
    lines += rows.left_out_arrivals(iteration)
    examples = {
        each["reason"]: f"{each['title']} ({each['detail']})" if each["detail"] else each["title"] or each["file"]
        for each in reversed(lines)
    }
    return [
        {"contracts": count, "what": reason, "for example": examples[reason]}
        for reason, count in Counter(each["reason"] for each in lines).items()
    ]


def _read(folder: str | Path) -> tuple[list[Arrival], list[_ArrivalRecord]]:
    """Return the contracts of a folder's files and the names of those not read; InputError names every broken file."""
    folder = runs.resolve_path(folder)
    try:
        names = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name != TYPES_NAME)
    except OSError as error:
        raise InputError(
            f"Can't read arrivals_folder {str(folder)!r} ({error.strerror}): make that folder, and drop files in "
            "the layout of CUAD_v1.json (.json or .zip) there."
        ) from error
    files = [path for path in names if path.suffix.lower() in KINDS and not path.is_dir()]
    left = [_unread(path, "not a .json or .zip file") for path in names if path not in files]
    found, broken = [], {}
    for path in files:
        state = _state(path)
        try:
            read = [Arrival(path.name, _named_rows(contract)) for contract in contracts.read_contracts(path)]
        except InputError as error:
            broken[path] = (state, str(error))
            continue
        if _state(path) == state:
            found += read
        else:
            left.append(_unread(path, "still being written, so left for the next iteration"))
    growing = _growing({path: state for path, (state, _) in broken.items()})
    left += [_unread(path, "still being written, so left for the next iteration") for path in growing]
    contracts.raise_problems(str(folder), [message for path, (_, message) in broken.items() if path not in growing])
    return found, left


def _unread(path: Path, reason: str) -> _ArrivalRecord:
    return {"title": "", "file": path.name, "reason": reason, "detail": ""}


def _state(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_size, stat.st_mtime_ns


def _growing(states: dict[Path, tuple[int, int] | None]) -> set[Path]:
    """Return the files that have changed since, or change soon, or are gone; looks on only if one changed lately."""
    end = time.monotonic() + WAIT
    while True:
        changed = {path for path, state in states.items() if state is None or _state(path) != state}
        waiting = any(time.time() - state[1] / 1e9 < RECENT for path, state in states.items() if path not in changed)
        if not waiting or time.monotonic() > end:
            return changed
        time.sleep(0.1)


def _named_rows(contract: Contract) -> Contract:
    """Return the contract with row ids that begin with its title: other files may use the same short ids."""
    start = f"{contract.title}__"
    if all(row["id"].startswith(start) for row in contract.rows):
        return contract
    return replace(contract, rows=tuple(row | {"id": start + row["id"]} for row in contract.rows))


TWICE = "stands more than once in the folder"
RENAMED = "has the title of a contract of the run, but another text: rename it if it is another contract"
_Record = dict[str, Any]


class Arrival(NamedTuple):
    """A contract and the name of the file that it came in."""

    file: str
    contract: Contract

    def left(self, reason: str, detail: str = "") -> _Record:
        """Return the line that says why the contract was left out."""
        return {"title": self.contract.title, "file": self.file, "reason": reason, "detail": detail}


def admit(
    found: Sequence[Arrival], known: Iterable[_Record], *, max_characters: int = 0
) -> tuple[list[Arrival], list[_Record]]:
    """Return the contracts that may be learned from, and why each other one is left out.

    known: the records of all other contracts of the run. Contracts without annotations do not count among them: an
    annotated one of the same title takes their place. Titles are compared whatever their case and white space. Raises
    InputError if two new contracts of one title differ.
    """
    annotated = [r for r in known if r["split"] != PLAIN]
    titles = {fold(r["title"]): r for r in annotated}
    texts = {r["text"]: r["title"] for r in annotated if r["split"] not in HELD_OUT}
    kept: dict[str, Arrival] = {}
    left, clashes = [], []
    for each in found:
        contract, name = each.contract, fold(each.contract.title)
        if name in titles:
            left.append(each.left(_known_as(contract, titles[name])))
        elif name in kept:
            left.append(each.left(TWICE, f"also in {kept[name].file}"))
            if contract != kept[name].contract:
                clashes.append(
                    f"contract {contract.title!r} stands in {kept[name].file} and {each.file}, with other "
                    "text or questions: keep one, or rename one"
                )
        elif not contract.rows:
            left.append(each.left("has no questions"))
        elif max_characters and len(contract.text) > max_characters:
            left.append(each.left("is longer than max_characters"))
        elif contract.text in texts:
            left.append(each.left("has the text of another contract", texts[contract.text]))
        else:
            kept[name], texts[contract.text] = each, contract.title
    contracts.raise_problems("arrivals_folder", clashes)
    return _unlike_held_out(list(kept.values()), annotated, left)


def _known_as(contract: Contract, record: _Record) -> str:
    if record["text"] != contract.text:
        return RENAMED
    return f"was taken in iteration {record['arrived']}" if "arrived" in record else "is in the run's contracts already"


def _unlike_held_out(
    found: list[Arrival], annotated: Iterable[_Record], left: list[_Record]
) -> tuple[list[Arrival], list[_Record]]:
    apart = [Contract.from_record(r) for r in annotated if r["split"] in HELD_OUT]
    groups = splits.contract_groups([*(each.contract for each in found), *apart]) if found else {}
    taken = {groups[c.title]: c.title for c in apart if groups}
    kept = [each for each in found if groups[each.contract.title] not in taken]
    return kept, left + [
        each.left("repeats a held-out contract (text or filer)", taken[groups[each.contract.title]])
        for each in found
        if groups[each.contract.title] in taken
    ]


def groups_of_new(new: Sequence[Contract], known: Iterable[_Record], *, learned: Iterable[str] = ()) -> dict[str, int]:
    """Return the group of each new contract: that of the known contracts it belongs to, else a number not in use.

    It is -1, the group of contracts without annotations, for one that repeats such a contract or stands in `learned`
    (titles that training questions were written on before): those are never held out.
    """
    known = [r for r in known if r["split"] != PLAIN or r["title"] not in {c.title for c in new}]
    learned = set(learned)
    numbers = splits.contract_groups([*new, *map(Contract.from_record, known)])
    of: dict[int, set[int]] = {}
    for record in known:
        of.setdefault(numbers[record["title"]], set()).add(record["group"])
    for contract in new:
        if contract.title in learned:
            of.setdefault(numbers[contract.title], set()).add(-1)
    free = first_free(known)
    for number in sorted({numbers[c.title] for c in new} - set(of)):
        of[number], free = {free}, free + 1
    return {c.title: min(of[numbers[c.title]]) for c in new}


def first_free(known: Iterable[_Record]) -> int:
    """Return the smallest group number that is above all in use."""
    return max((r["group"] for r in known), default=-1) + 1
