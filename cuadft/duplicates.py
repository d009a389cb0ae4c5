"""Find contracts that repeat one another's wording, by the word sequences they share."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

import numpy as np


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
