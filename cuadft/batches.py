"""Batches for a loss that takes the other examples of a batch as negatives, so that none of them is a false one."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cuadft.errors import InputError


def batches(triples: Sequence[Mapping[str, Any]], *, size: int, seed: int) -> list[list[int]]:
    """Return one pass over the triples, as indexes: at most `size` a batch, each category spread evenly over it.

    A batch holds a category once, and no passage that answers another example's category (`answers`, as
    `cuadft.triples.triples` gives them): CUAD asks 41 questions over and over, so that a random batch would teach
    that right answers are wrong. Batches of less than three quarters of the largest are left out: they would be
    of categories whose answers stand together, such as the parties and the date. Raises InputError if size < 2.
    """
    if size < 2:
        raise InputError(f"Invalid batch size {size!r}: give 2 or more, as each example needs others as negatives")
    waiting = _evenly(triples, random.Random(seed))
    made: list[list[int]] = []
    while waiting:
        batch: list[int] = []
        asked: set[str] = set()
        answered: set[str] = set()
        for index in waiting:
            own, answers = triples[index]["category"], triples[index]["answers"]
            if own not in answered and asked.isdisjoint(answers):
                batch.append(index)
                asked.add(own)
                answered.update(answers, [own])
                if len(batch) == size:
                    break
        taken = set(batch)
        waiting = [index for index in waiting if index not in taken]
        made.append(batch)
    most = max(map(len, made), default=0)
    return [batch for batch in made if 4 * len(batch) >= 3 * most]


def schedule(triples: Sequence[Mapping[str, Any]], *, size: int, steps: int, seed: int) -> list[list[int]]:
    """Return exactly `steps` batches, in as many passes over the triples as that takes, each drawn anew.

    Raises InputError if there are no triples, or size or steps is too small.
    """
    if not triples:
        raise InputError("There are no triples to train on: give rows that have gold spans to cuadft.triples.triples")
    if steps < 1:
        raise InputError(f"Invalid number of training steps {steps!r}: give 1 or more, such as 250")
    planned: list[list[int]] = []
    passes = 0
    while len(planned) < steps:
        planned += batches(triples, size=size, seed=seed * 1000 + passes)
        passes += 1
    return planned[:steps]


class Planned:
    """A batch sampler for torch's DataLoader that gives planned batches; every pass over it is the same."""

    drop_last = False

    def __init__(self, plan: Sequence[Sequence[int]], dataset: Any = None, *, batch_size: int, **_: Any) -> None:
        """Take what sentence-transformers' trainer hands to `batch_sampler`, after the plan itself."""
        self._plan, self.batch_size = plan, batch_size

    def __iter__(self) -> Iterator[list[int]]:
        return (list(batch) for batch in self._plan)

    def __len__(self) -> int:
        return len(self._plan)

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the plan holds all passes."""


def _evenly(triples: Sequence[Mapping[str, Any]], rng: random.Random) -> list[int]:
    """Return all indexes in an order in which each category's come at even distances, shuffled within it."""
    by_category: defaultdict[str, list[int]] = defaultdict(list)
    for index, triple in enumerate(triples):
        by_category[triple["category"]].append(index)
    times = {}
    for _, own in sorted(by_category.items()):
        for n, index in enumerate(rng.sample(own, len(own))):
            times[index] = (n + rng.random()) / len(own)
    return sorted(times, key=times.__getitem__)
