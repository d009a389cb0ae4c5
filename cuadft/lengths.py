"""Keep preferences from being preferences for length: choose and drop pairs until chosen and rejected are as long."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from statistics import fmean, median
from typing import Any, TypeVar

T = TypeVar("T")
SWEEPS = 10  # passes over all questions; each can only bring the lengths nearer
ROUNDING = 1e-9


def log_ratio(chosen: str, rejected: str) -> float:
    """Return log(length of chosen / length of rejected), in characters; an empty text counts as one."""
    return math.log(max(len(chosen), 1) / max(len(rejected), 1))


def length_report(pairs: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return how the lengths of a pair's sides compare: NaN where there are no pairs.

    pairs: their number; chosen_longer: share of pairs whose chosen answer is the longer one; mean_log_ratio: mean of
    log(chosen / rejected); chosen_characters, rejected_characters: medians.
    """
    sides = [(pair["chosen"][0]["content"], pair["rejected"][0]["content"]) for pair in pairs]
    if not sides:
        keys = ("chosen_longer", "mean_log_ratio", "chosen_characters", "rejected_characters")
        return {"pairs": 0} | dict.fromkeys(keys, math.nan)
    return {"pairs": len(sides),
            "chosen_longer": fmean(len(chosen) > len(rejected) for chosen, rejected in sides),
            "mean_log_ratio": fmean(log_ratio(*both) for both in sides),
            "chosen_characters": median(len(chosen) for chosen, _ in sides),
            "rejected_characters": median(len(rejected) for _, rejected in sides)}  # fmt: skip


def match(groups: Sequence[Sequence[T]], ratio: Callable[[T], float], tolerance: float) -> tuple[list[T], list[T]]:
    """Choose one of each group's items so that the mean ratio of all is within +-`tolerance`; return kept and dropped.

    The first item of a group is the one to choose but for its length. If choosing cannot bring the mean into
    tolerance, few extreme items are dropped until it is there. An infinite tolerance takes all first items.
    """
    taken = [group[0] for group in groups]
    total = sum(map(ratio, taken))
    for _ in range(SWEEPS):
        before = total
        for place, group in enumerate(groups):
            if abs(total) <= tolerance * len(taken) + ROUNDING:
                return taken, []
            rest = total - ratio(taken[place])
            best = min(group, key=lambda item: abs(rest + ratio(item)))
            if abs(rest + ratio(best)) < abs(total):
                taken[place], total = best, rest + ratio(best)
        if total == before:
            break
    return _drop(taken, ratio, tolerance)


def _drop(items: Sequence[T], ratio: Callable[[T], float], tolerance: float) -> tuple[list[T], list[T]]:
    """Drop few extreme items so that the mean of the others is within tolerance; return what is left and what is dropped."""
    ratios = [ratio(item) for item in items]
    sign = math.copysign(1, math.fsum(ratios))
    order = sorted(range(len(items)), key=lambda i: sign * ratios[i])
    values = [sign * ratios[i] for i in order]
    trims = (_trim(values, count, tolerance) for count in range(len(items) + 1))
    gone = {order[place] for place in next(trim for trim in trims if trim is not None)}
    return [item for i, item in enumerate(items) if i not in gone], [items[i] for i in sorted(gone)]


def _trim(values: Sequence[float], count: int, tolerance: float) -> set[int] | None:
    """Return the places of `count` values without which the mean is within tolerance, or None if none are found.

    values: in ascending order, with a sum from 0. All but one of the places are at the two ends, at the upper one first;
    the one is where it is needed to meet the tolerance.
    """
    size, sums = len(values), [0.0, *accumulate(values)]
    if count == size or (not count and sums[-1] <= tolerance * size + ROUNDING):
        return set(range(count))
    room = tolerance * (size - count) + ROUNDING
    for low in range(count):
        end = size - (count - 1 - low)
        need = sums[end] - sums[low]  # the one value that would leave a sum of 0
        place = bisect_right(values, need + room, low, end) - 1
        if place >= low and values[place] >= need - room:
            return {*range(low), place, *range(end, size)}
    return None
