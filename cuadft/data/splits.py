"""Split contracts into train, dev and test without leaks: contracts that resemble one another stay together.

Two contracts belong to one group if one holds half of the other's wording or if one company filed both. A split holds
whole groups only. CUAD's own split does not: `split_official` takes it as it is, and `relatives_in_training` shows what
it leaks. For example:

    groups = contract_groups(contracts)                                     # {"ACME SUPPLY AGREEMENT": 0, ...}
    split_groups(contracts, groups, dev=10, test=20, seed=7)                # {"ACME SUPPLY AGREEMENT": "train", ...}
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.lib.stride_tricks import sliding_window_view
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cuadft.core.errors import InputError
from cuadft.core.text import fold_words, is_unspaced, spaced
from cuadft.data.contracts import Contract
from cuadft.data.cuad import official_test_titles

SPLIT_SEED = 7  # of a run's splits, dev and test rows: runs with other seeds are compared on the same contracts
SHINGLE = 8  # words of a sequence by which texts are compared
CONTAINMENT = 0.5  # share of the shorter text's sequences from which two contracts are relatives


def contract_groups(contracts: Sequence[Contract]) -> dict[str, int]:
    """Return each contract's group number, from 0 in the order of titles, which are distinct.

    Two contracts share a group if they are `near_duplicates`, if they have the same filer, or if both share a group
    with a third contract. The order of `contracts` does not matter.
    """
    ordered = sorted(contracts, key=lambda contract: contract.title)
    titles = [contract.title for contract in ordered]
    first_of: dict[str, int] = {}  # filer -> its first contract
    pairs = [(first_of.setdefault(each.filer, n), n) for n, each in enumerate(ordered) if each.filer]
    pairs += near_duplicates([contract.text for contract in ordered])
    if not pairs:
        return {title: number for number, title in enumerate(titles)}
    graph = coo_array((np.ones(len(pairs)), np.transpose(pairs)), shape=(len(titles), len(titles)))
    _, numbers = connected_components(graph, directed=False)
    return {title: int(number) for title, number in zip(titles, numbers, strict=True)}


def split_groups(
    contracts: Sequence[Contract], groups: dict[str, int], *, dev: int, test: int, seed: int
) -> dict[str, str]:
    """Return "train", "dev" or "test" for each title, the same for all contracts of a group.

    `dev` and `test` are numbers of contracts. They are met exactly if some choice of whole groups does so, else as
    nearly as possible. Contract types are spread over the splits as evenly as groups permit. The order of `contracts`
    does not matter. Raises InputError if a split would be empty.
    """
    types = {contract.title: contract.contract_type for contract in contracts}
    members: dict[int, list[str]] = defaultdict(list)
    for title in sorted(types):
        members[groups[title]].append(title)
    pool = sorted(members.values(), key=lambda titles: seeded_order(seed, titles[0]))
    counts = _possible_sizes([len(titles) for titles in pool], dev, test)
    shares = Counter(types.values())
    result = dict.fromkeys(sorted(types), "train")
    for name, wanted, later in (("test", counts[0], counts[1]), ("dev", counts[1], 0)):
        targets = {kind: wanted * count / len(types) for kind, count in shares.items()}
        chosen, pool = _choose_groups(pool, wanted, later, types, targets)
        result.update((title, name) for titles in chosen for title in titles)
    return result


def split_official(contracts: Sequence[Contract], groups: dict[str, int], *, dev: int, seed: int) -> dict[str, str]:
    """Return "train", "dev" or "test" for each title; test holds the test contracts of CUAD's own split.

    The other contracts are train and dev. `dev` of them are drawn by `split_groups`, so that no group is cut between
    train and dev. A group may have members in test and in train, because CUAD's split was not drawn by groups. Titles
    are compared without blanks at their ends. Raises InputError if no contract is in the official test, or if train or
    dev would be empty.
    """
    official = official_test_titles()
    test = {contract.title for contract in contracts if contract.title.strip() in official}
    if not test:
        raise InputError(
            f"split official: none of the {len(official)} test contracts of CUAD's own split is among the "
            f"{len(contracts)} contracts. Read CUAD itself (cuad=auto, without only_contracts), or take split group."
        )
    others = [contract for contract in contracts if contract.title not in test]
    return dict.fromkeys(sorted(test), "test") | split_groups(others, groups, dev=dev, test=0, seed=seed)


def relatives_in_training(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Return each dev and test contract that has relatives in training: columns title, split and relatives, by title.

    records: of contracts.jsonl, with title, split and group. Relatives are the titles of the training contracts of its
    group, in the order of titles.
    """
    known = pd.DataFrame(records, columns=["title", "split", "group"]).sort_values("title")
    taught = known[known["split"] == "train"].groupby("group")["title"].agg(list).rename("relatives")
    held_out = known[known["split"].isin(["dev", "test"])]
    return held_out.join(taught, on="group", how="inner")[["title", "split", "relatives"]]


def seeded_order(seed: int | str, title: str) -> str:
    """Return a sorting key that shuffles titles by seed; a title keeps its place when others come or go."""
    return hashlib.sha256(f"{seed}:{title}".encode()).hexdigest()


def _possible_sizes(sizes: list[int], dev: int, test: int) -> tuple[int, int]:
    """Return the numbers (test, dev) of contracts nearest to the wanted ones that whole groups of these sizes give."""
    total = sum(sizes)
    most_test = min(test + max(sizes, default=0), total) if test else 0
    most_dev = min(dev + max(sizes, default=0), total) if dev else 0
    sums = [(int(a), int(b)) for a, b in np.argwhere(_reachable_sums(sizes, most_test, most_dev))]
    # A split that is wanted must not be empty, and one contract at least is left for train.
    options = [(a, b) for a, b in sums if a >= min(test, 1) and b >= min(dev, 1) and a + b < total]
    if dev + test >= total or not options:
        told = f"{total} contracts in {len(sizes)} groups into {dev} dev and {test} test plus train"
        raise InputError(f"Cannot split {told}: ask for fewer dev and test contracts, or add contracts")
    return min(options, key=lambda sizes: (abs(sizes[0] - test) + abs(sizes[1] - dev), sizes))


def _reachable_sums(sizes: Iterable[int], most_first: int, most_second: int) -> np.ndarray:
    """Return a table of booleans: whether two disjoint choices among the sizes can sum to a and to b, at [a, b].

    a runs from 0 to most_first and b from 0 to most_second. This is the subset-sum problem for two sets at once.
    """
    reachable = np.zeros((most_first + 1, most_second + 1), dtype=bool)
    reachable[0, 0] = True
    for size in sizes:  # each size may be added to the first choice, to the second choice, or to neither
        before = reachable.copy()
        reachable[size:, :] |= before[: max(most_first + 1 - size, 0), :]
        reachable[:, size:] |= before[:, : max(most_second + 1 - size, 0)]
    return reachable


def _choose_groups(
    pool: list[list[str]], wanted: int, later: int, types: dict[str, str], targets: dict[str, float]
) -> tuple[list[list[str]], list[list[str]]]:
    """Return (chosen, left) groups: the chosen ones hold `wanted` contracts, types near their targets.

    From those that are left, `later` more contracts can still be chosen. At first, every group that exceeds no target
    (rounded down) is taken in the pool's order; then the groups whose types are missing most.
    """
    chosen: list[list[str]] = []
    left = list(pool)
    have: Counter[str] = Counter()

    def fits(titles: list[str]) -> bool:
        """Tell whether both numbers can still be met exactly if this group is taken."""
        missing = wanted - have.total() - len(titles)
        others = [len(other) for other in left if other is not titles]
        return missing >= 0 and bool(_reachable_sums(others, missing, later)[missing, later])

    def gain(titles: list[str]) -> float:
        """Return how much nearer to the targets this group brings the types (squared distance), per contract."""
        return sum(n * (2 * (targets[kind] - have[kind]) - n) for kind, n in kinds(titles).items()) / len(titles)

    def kinds(titles: list[str]) -> Counter[str]:
        return Counter(types[title] for title in titles)

    def take(titles: list[str]) -> None:
        left.remove(titles)
        chosen.append(titles)
        have.update(kinds(titles))

    for titles in pool:
        if all(have[kind] + n <= int(targets[kind]) for kind, n in kinds(titles).items()) and fits(titles):
            take(titles)
    while have.total() < wanted:
        take(next(filter(fits, sorted(left, key=gain, reverse=True))))
    return chosen, left


def near_duplicates(texts: Sequence[str]) -> list[tuple[int, int]]:
    """Return the pairs (i, j), i < j, of texts with |A & B| / min(|A|, |B|) >= `CONTAINMENT`.

    A and B are the sets of `SHINGLE`-word sequences of the two texts, without regard to case and punctuation (Broder
    1997, "On the resemblance and containment of documents"); in a text without blanks each letter is a word.
    Containment is used and not resemblance, so that a short contract inside a long one counts. The counts are exact
    unless two different sequences have the same 64-bit hash.
    """
    shared, smaller = _shared_shingles(texts)
    enough = np.triu((shared > 0) & (shared >= CONTAINMENT * smaller), 1)
    return [(int(one), int(other)) for one, other in np.argwhere(enough)]


class KnownTexts:
    """Texts among which a further one is looked for; as `near_duplicates`, but each text is read only once."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Read the texts: `sets` holds the hashes of each one's word sequences, in ascending order."""
        dice = random.Random(0)
        self._codes: dict[str, int] = defaultdict(lambda: dice.getrandbits(64))  # word -> 64 bits
        self.sets = [self._shingles_of(text) for text in texts]

    def nearest(self, text: str) -> int | None:
        """Return which text is equal to this one or its nearest near-duplicate, None if there is no such text."""
        own = self._shingles_of(text)
        shares = [
            len(np.intersect1d(own, other, assume_unique=True)) / max(1, min(len(own), len(other)))
            for other in self.sets
        ]
        best = int(np.argmax(shares)) if shares else 0
        return best if shares and shares[best] >= CONTAINMENT else None

    def _shingles_of(self, text: str) -> np.ndarray:
        words = fold_words(spaced(text) if is_unspaced(text) else text)
        return _shingles(np.array([self._codes[word] for word in words], dtype=np.uint64))


def largest_overlap(records: Iterable[Mapping[str, Any]]) -> tuple[float, str, str]:
    """Return the largest containment (0 to 1) of a held-out and a training contract, and the titles of both.

    records: of contracts.jsonl, with title, text and split; containment as in `near_duplicates`. Returns 0 and two
    empty titles if there is no held-out or no training contract.
    """
    known = list(records)
    training = np.array([record["split"] == "train" for record in known], dtype=bool)
    held_out = np.array([record["split"] in ("dev", "test", "slice") for record in known], dtype=bool)
    if not training.any() or not held_out.any():
        return 0.0, "", ""
    shared, smaller = _shared_shingles([record["text"] for record in known])
    shares = np.where(np.outer(held_out, training), shared / np.maximum(smaller, 1), -1.0)
    one, other = np.unravel_index(int(shares.argmax()), shares.shape)
    return float(shares[one, other]), known[one]["title"], known[other]["title"]


def _shared_shingles(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return two n x n counts: the word sequences shared by each two texts, and those of the smaller text."""
    sets = KnownTexts(texts).sets
    sizes = np.array([len(each) for each in sets], dtype=np.int64)
    _, columns = np.unique(np.concatenate([np.zeros(0, np.uint64), *sets]), return_inverse=True)
    owners = np.repeat(np.arange(len(texts)), sizes)
    shape = (len(texts), int(columns.max(initial=0)) + 1)
    holds = coo_array((np.ones(len(columns), np.int64), (owners, columns)), shape).tocsr()  # texts x sequences
    return (holds @ holds.T).toarray(), np.minimum.outer(sizes, sizes)


def _shingles(words: np.ndarray) -> np.ndarray:
    """Return the distinct 64-bit hashes of all word sequences of a text; a shorter text is one sequence."""
    if not len(words):
        return words
    length = min(SHINGLE, len(words))
    powers = np.uint64(0x9E3779B97F4A7C15) ** np.arange(length, dtype=np.uint64)
    return np.unique(sliding_window_view(words, length) @ powers)
