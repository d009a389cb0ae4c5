"""Which contracts that arrive are new to a run and may be learned from, and with which contracts each belongs together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from cuadft import splits, squad
from cuadft.contracts import Contract
from cuadft.corpus import HELD_OUT, PLAIN
from cuadft.rulings import fold

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


def admit(found: Sequence[Arrival], known: Iterable[_Record], *,
          max_characters: int = 0) -> tuple[list[Arrival], list[_Record]]:  # fmt: skip
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
                clashes.append(f"contract {contract.title!r} stands in {kept[name].file} and {each.file}, with other "
                               "text or questions: keep one, or rename one")
        elif not contract.rows:
            left.append(each.left("has no questions"))
        elif max_characters and len(contract.text) > max_characters:
            left.append(each.left("is longer than max_characters"))
        elif contract.text in texts:
            left.append(each.left("has the text of another contract", texts[contract.text]))
        else:
            kept[name], texts[contract.text] = each, contract.title
    squad.raise_problems("arrivals_folder", clashes)
    return _unlike_held_out(list(kept.values()), annotated, left)


def _known_as(contract: Contract, record: _Record) -> str:
    if record["text"] != contract.text:
        return RENAMED
    return f"was taken in iteration {record['arrived']}" if "arrived" in record else "is in the run's contracts already"


def _unlike_held_out(found: list[Arrival], annotated: Iterable[_Record],
                     left: list[_Record]) -> tuple[list[Arrival], list[_Record]]:  # fmt: skip
    apart = [Contract.from_record(r) for r in annotated if r["split"] in HELD_OUT]
    groups = splits.groups([*(each.contract for each in found), *apart]) if found else {}
    taken = {groups[c.title]: c.title for c in apart if groups}
    kept = [each for each in found if groups[each.contract.title] not in taken]
    return kept, left + [each.left("repeats a held-out contract (text or filer)", taken[groups[each.contract.title]])
                         for each in found if groups[each.contract.title] in taken]


def groups(new: Sequence[Contract], known: Iterable[_Record], *, learned: Iterable[str] = ()) -> dict[str, int]:
    """Return the group of each new contract: that of the known contracts it belongs to, else a number not in use.

    It is -1, the group of contracts without annotations, for one that repeats such a contract or stands in `learned`
    (titles that training questions were written on before): those are never held out.
    """
    known = [r for r in known if r["split"] != PLAIN or r["title"] not in {c.title for c in new}]
    learned = set(learned)
    numbers = splits.groups([*new, *map(Contract.from_record, known)])
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
