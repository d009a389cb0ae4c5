"""Group contracts that leak into one another, and split whole groups.

Two contracts belong together when one holds half of the other's wording, or when one company filed both.

Find contracts that repeat one another's wording, by the word sequences they share.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np

from cuadft.core.errors import InputError
from cuadft.data.contracts import Contract


def contract_groups(contracts: Sequence[Contract], *, shingle: int = 8, containment: float = 0.5) -> dict[str, int]:
    """Return each contract's group number, from 0 in the order of titles, whatever the order given.

    Two contracts share a group if one contains `containment` of the other's sequences of `shingle` words (see
    `duplicates`), if they have the same filer, or through a third. Raises InputError on repeated titles.
    """
    if shingle < 1 or not 0 < containment <= 1:
        raise InputError(
            f"Invalid shingle {shingle} or containment {containment}: give shingle >= 1, 0 < containment <= 1"
        )
    ordered = sorted(contracts, key=lambda contract: contract.title)
    titles = [contract.title for contract in ordered]
    if repeated := [title for title, times in Counter(titles).items() if times > 1]:
        raise InputError(f"Contract title {repeated[0]!r} stands more than once; every title must be unique")
    parents = list(range(len(ordered)))
    first_of: dict[str, int] = {}
    for number, contract in enumerate(ordered):
        if contract.filer:
            _join(parents, first_of.setdefault(contract.filer, number), number)
    for one, other in near_duplicates([contract.text for contract in ordered], shingle, containment):
        _join(parents, one, other)
    roots = [_root(parents, number) for number in range(len(ordered))]
    numbers = {root: number for number, root in enumerate(dict.fromkeys(roots))}
    return {title: numbers[root] for title, root in zip(titles, roots, strict=True)}


def _root(parents: list[int], number: int) -> int:
    while parents[number] != number:
        parents[number] = parents[parents[number]]
        number = parents[number]
    return number


def _join(parents: list[int], one: int, other: int) -> None:
    first, second = sorted((_root(parents, one), _root(parents, other)))
    parents[second] = first


def split_groups(
    contracts: Sequence[Contract], groups: dict[str, int], *, dev: int, test: int, seed: int
) -> dict[str, str]:
    """Return "train", "dev" or "test" for each title: whole groups, contract types spread as these permit.

    `dev` and `test` are numbers of contracts, met exactly wherever some choice of groups does, else as nearly
    as any does; the order of `contracts` doesn't matter. Raises InputError if a split would be empty.
    """
    types = {contract.title: contract.contract_type for contract in contracts}
    members: dict[int, list[str]] = defaultdict(list)
    for title in sorted(types):
        if title not in groups:
            raise InputError(f"Contract {title!r} is in no group; pass the result of groups() for these contracts")
        members[groups[title]].append(title)
    pool = sorted(members.values(), key=lambda titles: seeded_order(seed, titles[0]))
    counts = _possible([len(titles) for titles in pool], dev, test)
    shares = Counter(types.values())
    result = dict.fromkeys(sorted(types), "train")
    for name, wanted, later in (("test", counts[0], counts[1]), ("dev", counts[1], 0)):
        targets = {kind: wanted * count / len(types) for kind, count in shares.items()}
        chosen, pool = _choose(pool, wanted, later, types, targets)
        result.update((title, name) for titles in chosen for title in titles)
    return result


def seeded_order(seed: int | str, title: str) -> str:
    """Return a sorting key that shuffles titles by seed; a title keeps its place when others come or go."""
    return hashlib.sha256(f"{seed}:{title}".encode()).hexdigest()


def _possible(sizes: list[int], dev: int, test: int) -> tuple[int, int]:
    """Return the (test, dev) numbers of contracts nearest to those wanted that whole groups can give."""
    total, needed = sum(sizes), 1 + (dev > 0) + (test > 0)
    advice = "ask for fewer dev and test contracts, or add contracts"
    if dev < 0 or test < 0 or dev + test >= total:
        raise InputError(f"Cannot split {total} contracts into {dev} dev and {test} test plus train; {advice}")
    if len(sizes) < needed:
        raise InputError(
            f"{total} contracts form only {len(sizes)} groups, but {needed} splits need one each; {advice}"
        )
    most = (min(test + max(sizes), total) if test else 0, min(dev + max(sizes), total) if dev else 0)
    reach, width = _reach(sizes, *most), 2 * most[0] + 1
    options = [
        (a, b)
        for a in range(min(test, 1), most[0] + 1)
        for b in range(min(dev, 1), most[1] + 1)
        if a + b < total and reach >> (a + b * width) & 1
    ]
    return min(options, key=lambda ab: (abs(ab[0] - test) + abs(ab[1] - dev), ab))


def _reach(sizes: Iterable[int], first: int, second: int) -> int:
    """Return the sums (a <= first, b <= second) of two disjoint choices: bit a + b * (2 * first + 1)."""
    width = 2 * first + 1
    row = (1 << (first + 1)) - 1
    mask = sum(row << (b * width) for b in range(second + 1))
    reach = 1
    for size in sizes:
        to_first = reach << size if size <= first else 0
        reach |= (to_first | reach << size * width) & mask
    return reach


def _choose(
    pool: list[list[str]], wanted: int, later: int, types: dict[str, str], targets: dict[str, float]
) -> tuple[list[list[str]], list[list[str]]]:
    """Return (chosen, left) groups: `wanted` contracts near the types' targets, `later` more still to be had.

    First whatever fits under the targets rounded down, in the pool's order; then what the types lack most.
    """
    chosen: list[list[str]] = []
    left = list(pool)
    have: Counter[str] = Counter()

    def fits(titles: list[str]) -> bool:
        need = wanted - len(titles)
        others = (len(other) for other in left if other is not titles)
        return need >= 0 and bool(_reach(others, need, later) >> (need + later * (2 * need + 1)) & 1)

    def gain(titles: list[str]) -> float:
        kinds = Counter(types[title] for title in titles)
        return sum(n * (2 * (targets[k] - have[k]) - n) for k, n in kinds.items()) / len(titles)

    def take(titles: list[str]) -> None:
        nonlocal wanted
        left.remove(titles)
        chosen.append(titles)
        wanted -= len(titles)
        have.update(types[title] for title in titles)

    for titles in pool:
        kinds = Counter(types[title] for title in titles)
        if all(have[k] + n <= int(targets[k]) for k, n in kinds.items()) and fits(titles):
            take(titles)
    while wanted:
        take(next(filter(fits, sorted(left, key=gain, reverse=True))))
    return chosen, left


def near_duplicates(texts: Sequence[str], shingle: int, containment: float) -> list[tuple[int, int]]:
    """Return the pairs (i, j), i < j, of texts with |A & B| / min(|A|, |B|) >= `containment`.

    A and B are their sets of `shingle`-word sequences, whatever case and punctuation (Broder 1997, "On the
    resemblance and containment of documents"). Containment, not resemblance: a short contract inside a
    long one counts. Every pair is counted in full; only two sequences with one 64-bit hash could mislead.
    """
    codes: dict[str, int] = {}
    dice = random.Random(0)
    sets = []
    for text in texts:
        words = re.findall(r"\w+", text.casefold())
        coded = [codes[w] if w in codes else codes.setdefault(w, dice.getrandbits(64)) for w in words]
        sets.append(_shingles(np.array(coded, dtype=np.uint64), shingle))
    sizes = np.array([len(each) for each in sets])
    shared = _shared(sets)
    smaller = np.minimum(sizes[:, None], sizes[None, :])
    enough = np.triu((shared > 0) & (shared >= containment * smaller), 1)
    return [(int(one), int(other)) for one, other in np.argwhere(enough)]


def _shingles(words: np.ndarray, shingle: int) -> np.ndarray:
    """Return the distinct 64-bit hashes of all `shingle`-word sequences (of a shorter text whole)."""
    count = max(len(words) - shingle + 1, min(len(words), 1))
    hashes = np.zeros(count, dtype=np.uint64)
    for step in range(min(shingle, len(words))):
        hashes = hashes * np.uint64(0x9E3779B97F4A7C15) + words[step : step + count]
    return np.unique(hashes)


def _shared(sets: list[np.ndarray]) -> np.ndarray:
    """Return the n x n counts of hashes shared by each two sets (upper triangle)."""
    number = len(sets)
    shared = np.zeros(number * number, dtype=np.int64)
    if not number:
        return shared.reshape(0, 0)
    owners = np.repeat(np.arange(number), [len(each) for each in sets])
    hashes = np.concatenate(sets)
    order = np.argsort(hashes, kind="stable")
    hashes, owners = hashes[order], owners[order]
    # Equal hashes now stand side by side, owners ascending: pair each with its 1st, 2nd, ... equal neighbour.
    at, lag = np.arange(len(hashes)), 1
    while len(at):
        at = at[at + lag < len(hashes)]
        at = at[hashes[at] == hashes[at + lag]]
        shared += np.bincount(owners[at] * number + owners[at + lag], minlength=number * number)
        lag += 1
    return shared.reshape(number, number)
