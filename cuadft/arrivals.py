"""Take the annotated contracts that were dropped into a folder since the iteration before; once taken, they are frozen."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from cuadft import admission, arrived, contracts, corpus, runs, squad
from cuadft.admission import Arrival
from cuadft.archive import TYPES_NAME
from cuadft.contracts import Contract
from cuadft.errors import InputError

KINDS = (".json", ".zip")
RECENT = 60.0  # seconds since its last change in which a broken file may be one that is still being copied
WAIT = 2.0  # seconds in which it then has to change
_Record = dict[str, Any]


def take(iteration: runs.Iteration, folder: str | Path, *, max_characters: int = 0) -> list[Contract]:
    """Return the contracts that arrive in this iteration, and freeze them in its arrived.jsonl.

    Read are the .json and .zip files of `folder`, as by `contracts.read`. Left out, with the reason (see `table`), are
    contracts whose title or text the run has, that share text or filer with a held-out contract (dev, test, slice), that
    have no questions or are longer than `max_characters` (0: any), and files that change while they are read. A second call
    returns the same contracts, whatever the folder holds by then; only those that repeat a held-out contract of splits that
    were drawn anew are dropped. Raises InputError if a file is broken, or if two of one title differ, with nothing taken;
    from iteration 2 on also if there is nothing new.
    """
    known = [r for r in corpus.records(iteration.run) if r.get("arrived") != iteration.number]
    if arrived.path(iteration).is_file():
        before = [Arrival(each["file"], arrived.contract(each)) for each in arrived.taken(iteration)]
        found, left = admission.admit(before, known)
        if found or not iteration.previous:
            return _freeze(iteration, found, arrived.left_out(iteration) + left, known)
    found, unread = _read(folder)
    found, left = admission.admit(found, known, max_characters=max_characters)
    if not found and iteration.previous:
        raise InputError(f"Nothing new in {folder} for iteration {iteration.number} ({_counted(left + unread)}): drop a file "
                         "with new contracts there, in the layout of CUAD_v1.json, then run the same command again.")
    return _freeze(iteration, found, left + unread, known)


def _freeze(iteration: runs.Iteration, found: Sequence[Arrival], left: Iterable[_Record],
            known: Sequence[_Record]) -> list[Contract]:  # fmt: skip
    """Write what is taken, each contract in its group; what was held out stays so while nothing like it is known."""
    before = {each["title"]: each for each in arrived.taken(iteration)}
    known = [r for r in known if r.get("arrived", 0) < iteration.number]
    learned = _learned(iteration) | {title for title, each in before.items() if each["group"] == -1}
    groups = admission.groups([each.contract for each in found], known, learned=learned)
    # the first iteration draws all that it holds out at once: without the rest of that draw, these are drawn anew
    drawn = iteration.previous is not None or any(r["split"] == "slice" for r in known)
    lines = []
    for file, contract in found:
        line = arrived.line(contract, iteration=iteration.number, file=file, group=groups[contract.title])
        held = before.get(contract.title, {}) if drawn and line["group"] >= admission.first_free(known) else {}
        lines.append(line | {key: held[key] for key in ("split", "slice") if key in held})
    arrived.write(iteration, lines, left)
    return [contract for _, contract in found]


def _learned(iteration: runs.Iteration) -> set[str]:
    """Return the titles that earlier iterations wrote training questions on: annotated only now, perhaps."""
    paths = [runs.Iteration(iteration.run, n).path("data", "synthetic.jsonl") for n in range(1, iteration.number)]
    return {row["contract"] for path in paths if path.is_file() for row in runs.read_jsonl(path)}


def _counted(left: Sequence[_Record]) -> str:
    counts = Counter(each["reason"] for each in left)
    return "; ".join(f"{count} x {reason}" for reason, count in counts.items()) or "it is empty"


def table(iteration: runs.Iteration) -> list[_Record]:
    """Return how many contracts the iteration took and left out, by reason: {"contracts", "what", "for example"}."""
    lines = [each | {"reason": "taken", "detail": each["file"]} for each in arrived.taken(iteration)]
    lines += arrived.left_out(iteration)
    examples = {each["reason"]: f"{each['title']} ({each['detail']})" if each["detail"] else each["title"] or each["file"]
                for each in reversed(lines)}
    return [{"contracts": count, "what": reason, "for example": examples[reason]}
            for reason, count in Counter(each["reason"] for each in lines).items()]


def _read(folder: str | Path) -> tuple[list[Arrival], list[_Record]]:
    """Return the contracts of a folder's files and the names of those not read; InputError names every broken file."""
    folder = runs.resolve(folder)
    try:
        names = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and path.name != TYPES_NAME)
    except OSError as error:
        raise InputError(f"Can't read arrivals_folder {str(folder)!r} ({error.strerror}): make that folder, and drop files in "
                         "the layout of CUAD_v1.json (.json or .zip) there.") from error
    files = [path for path in names if path.suffix.lower() in KINDS and not path.is_dir()]
    left = [_unread(path, "not a .json or .zip file") for path in names if path not in files]
    found, broken = [], {}
    for path in files:
        state = _state(path)
        try:
            read = [Arrival(path.name, _named_rows(contract)) for contract in contracts.read(path)]
        except InputError as error:
            broken[path] = (state, str(error))
            continue
        if _state(path) == state:
            found += read
        else:
            left.append(_unread(path, "still being written, so left for the next iteration"))
    growing = _growing({path: state for path, (state, _) in broken.items()})
    left += [_unread(path, "still being written, so left for the next iteration") for path in growing]
    squad.raise_problems(str(folder), [message for path, (_, message) in broken.items() if path not in growing])
    return found, left


def _unread(path: Path, reason: str) -> _Record:
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
