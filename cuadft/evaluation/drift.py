"""Measure drift: whether newly arrived contracts read like those of the past, by a two-sample test on embeddings.

    found = measure_drift(embedder.encode, incoming_passages, reference_passages, seed=7)
    print(drift_sentence(found))    # "MMD² = 0.0012 (95% of random splits below 0.0150), p = 0.410, from 960 ..."

The unit of the test is the contract: the passages of one contract resemble each other, whatever the stream does.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from cuadft.data.passages import Passage

PER_CONTRACT = 16  # most passages of one contract
PASSAGE_BUDGET = 960  # passages embedded in all: about half a minute on two CPU cores
FEWEST_PASSAGES = 4  # of a contract; before fewer are taken, contracts are left out
DRIFT_BELOW = 0.05  # below this p the sentence speaks of drift
ROUNDING = 1e-12  # two splits with the same sum may differ by this

_Contracts = dict[str, list[Passage]]  # title -> passages


def measure_drift(
    encode: Callable[[list[str]], np.ndarray],
    incoming: Sequence[Passage],
    reference: Sequence[Passage],
    *,
    permutations: int = 999,
    seed: int,
) -> dict[str, Any]:
    """Test whether incoming and earlier contracts were drawn from the same source, by the MMD of their passages.

    MMD^2 is the unbiased estimate of Gretton et al. (2012), "A Kernel Two-Sample Test", J. Mach. Learn. Res. 13, eq.
    3, with the RBF kernel exp(-d^2 / (2 s^2)), s the median distance of all passages (their section 8). A contract's
    kernel with another one is the mean over their passages, so every contract weighs the same and no passage is
    compared with its own contract. p = (1 + splits at least as far apart) / (1 + permutations) over random splits of
    the whole contracts.

    At most `PER_CONTRACT` passages of one contract take part, drawn by `seed`. If that makes more than `PASSAGE_BUDGET`
    in all, every contract gives fewer; rather than fewer than four of each, only some contracts are drawn. An incoming
    contract that is among the earlier ones is not new and left out.

    Returned: n_incoming and n_reference (contracts compared), mmd2 (may be negative), p, limit (95 % of the random
    splits lie below), passages, and least_like, the title of the new contract that is least like the past. With fewer
    than two contracts on a side all but the first two are None.
    """
    old = _by_contract(reference)
    new = {title: own for title, own in _by_contract(incoming).items() if title not in old}
    if min(len(new), len(old)) < 2:
        tested = dict.fromkeys(["mmd2", "p", "limit", "passages", "least_like"])
    else:
        new, old = _within_budget(new, old, PER_CONTRACT, PASSAGE_BUDGET, seed)
        contracts = [*new.values(), *old.values()]
        kernel = _contract_kernel(encode, contracts)
        likeness = kernel[: len(new), len(new) :].mean(1)
        tested = _permutation_test(kernel, len(new), permutations, seed)
        tested |= {"passages": sum(map(len, contracts)), "least_like": list(new)[int(likeness.argmin())]}
    return {"n_incoming": len(new), "n_reference": len(old)} | tested


def drift_sentence(found: dict[str, Any], documents: str = "contracts") -> str:
    """Return what a measurement says, in one or two sentences; documents: what the documents are called."""
    contracts = f"{found['n_incoming']} new and {found['n_reference']} earlier {documents}"
    if found["p"] is None:
        return f"Drift was not tested: needs two {documents} on either side, got {contracts}."
    differ = f"the new {documents} differ from the earlier ones by more than chance"
    return (
        f"MMD² = {found['mmd2']:.4f} (95% of random splits below {found['limit']:.4f}), p = {found['p']:.3f}, from "
        f"{found['passages']:,} passages of {contracts}: "
        f"{differ if found['p'] < DRIFT_BELOW else 'no difference beyond chance'}. Least like the past: "
        f"{found['least_like']}."
    )


def _by_contract(passages: Iterable[Passage]) -> _Contracts:
    """Return the passages that hold any text by the titles of their contracts, in the order of the titles."""
    own: _Contracts = {}
    for passage in passages:
        if passage.text.strip():
            own.setdefault(passage.contract, []).append(passage)
    return dict(sorted(own.items()))


def _within_budget(
    new: _Contracts, old: _Contracts, per_contract: int, budget: int, seed: int
) -> tuple[_Contracts, _Contracts]:
    """Return the contracts and passages to embed.

    A contract's draw depends on its title and the seed alone: the next iteration finds its passages in the cache.
    """
    most = max(4, budget // min(FEWEST_PASSAGES, per_contract))  # contracts
    if len(new) + len(old) > most:
        most_new = min(len(new), max(most // 2, most - len(old)))
        new, old = _draw_contracts(new, most_new, seed), _draw_contracts(old, most - most_new, seed)
    each = max(1, min(per_contract, budget // (len(new) + len(old))))
    return tuple({title: _draw_passages(own, each, seed) for title, own in side.items()} for side in (new, old))


def _draw_contracts(side: _Contracts, wanted: int, seed: int) -> _Contracts:
    order = sorted(side, key=lambda title: random.Random(f"{seed} contract {title}").random())
    return {title: side[title] for title in sorted(order[:wanted])}


def _draw_passages(own: list[Passage], wanted: int, seed: int) -> list[Passage]:
    own = sorted(own, key=lambda passage: (passage.start, passage.end))
    random.Random(f"{seed} {own[0].contract}").shuffle(own)
    return own[:wanted]


def _contract_kernel(encode: Callable[[list[str]], np.ndarray], contracts: Sequence[Sequence[Passage]]) -> np.ndarray:
    """Return the mean RBF kernel between the passages of every two contracts, (contracts, contracts)."""
    vectors = encode([passage.text for own in contracts for passage in own]).astype(float)
    squares = (vectors**2).sum(1)
    distances = np.maximum(squares[:, None] + squares - 2 * vectors @ vectors.T, 0)
    width = np.median(distances[np.triu_indices(len(vectors), 1)])
    passages = np.exp(-distances / (2 * width)) if width > 0 else (distances <= ROUNDING).astype(float)
    starts = np.cumsum([0, *map(len, contracts)])[:-1]
    sums = np.add.reduceat(np.add.reduceat(passages, starts, axis=0), starts, axis=1)
    sizes = np.array([len(own) for own in contracts], float)
    return sums / np.outer(sizes, sizes)


def _permutation_test(kernel: np.ndarray, n_new: int, permutations: int, seed: int) -> dict[str, float]:
    """Return mmd2, its p-value and its 95 % limit over random splits that keep the number of contracts on each side."""
    rng, first = np.random.default_rng(seed), np.arange(len(kernel)) < n_new
    splits = np.stack([first, *(rng.permutation(first) for _ in range(permutations))]).astype(float)
    values = _mmd2(kernel, splits)
    observed, others = values[0], values[1:]
    p = (1 + int((others >= observed - ROUNDING).sum())) / (1 + permutations)
    return {"mmd2": float(observed), "p": p, "limit": float(np.quantile(others, 0.95))}


def _mmd2(kernel: np.ndarray, splits: np.ndarray) -> np.ndarray:
    """Return the unbiased MMD^2 of each split (rows of 1: new, 0: old) from the kernel between contracts."""
    apart = kernel - np.diag(np.diag(kernel))  # a contract is not compared with itself
    m = splits[0].sum()
    n = len(kernel) - m
    within = ((splits @ apart) * splits).sum(1)
    touching = splits @ apart.sum(1)  # pairs with the new side: those within it, and those across
    across = touching - within
    return within / (m * (m - 1)) + (apart.sum() - touching - across) / (n * (n - 1)) - 2 * across / (m * n)
