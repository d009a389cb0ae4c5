"""Properties of the drift measure: its p-value is one, contracts are its unit, and its cost is bounded."""

import json
import random

import numpy as np
import pytest
from bag_of_words import make_embedder
from hypothesis import given
from hypothesis import strategies as st
from small import passages_of

from cuadft.data.passages import Passage
from cuadft.evaluation import drift


class Vectors:
    """Stand in for an embedder: a text is a vector written out."""

    def __init__(self):
        self.asked = []

    def encode(self, texts):
        self.asked += texts
        return np.array([json.loads(text) for text in texts], np.float32)


def contracts(name, n, *, rng, shift=0.0, per=6, spread=0.7):
    """Return the passages of n contracts whose own mean differs from that of others by `spread`."""
    made = []
    for c in range(n):
        mean = rng.normal(size=12) * spread + shift
        for i in range(per):
            vector = mean + rng.normal(size=12)
            made.append(Passage(f"{name}{c}", i, 10 * i, 10 * i + 10, json.dumps([*np.round(vector, 5)])))
    return made


def by_hand(kernel, new):
    """Return the unbiased MMD^2 from its definition, a double sum over contracts."""
    old = [i for i in range(len(kernel)) if i not in new]
    within = [
        sum(kernel[i][j] for i in side for j in side if i != j) / (len(side) * (len(side) - 1)) for side in (new, old)
    ]
    return sum(within) - 2 * sum(kernel[i][j] for i in new for j in old) / (len(new) * len(old))


def test_estimate_is_the_definition_for_every_split():
    rng = np.random.default_rng(1)
    points = rng.normal(size=(9, 3))
    kernel = np.exp(-((points[:, None] - points) ** 2).sum(2))
    splits = np.array([rng.permutation([1.0] * 4 + [0.0] * 5) for _ in range(20)])
    for split, value in zip(splits, drift._mmd2(kernel, splits), strict=True):
        assert value == pytest.approx(by_hand(kernel.tolist(), list(np.flatnonzero(split))), abs=1e-12)


def test_kernel_of_two_contracts_is_the_mean_over_their_passages():
    own = [[Passage("a", 0, 0, 1, "[0, 0]"), Passage("a", 1, 1, 2, "[1, 0]")], [Passage("b", 0, 0, 1, "[0, 2]")]]
    # Squared distances: 1 within a, 4 and 5 across; their median is 4, so k(d) = exp(-d / 8).
    found = drift._contract_kernel(Vectors().encode, own)
    assert found[0, 1] == pytest.approx((np.exp(-4 / 8) + np.exp(-5 / 8)) / 2)
    assert found[0, 0] == pytest.approx((2 + 2 * np.exp(-1 / 8)) / 4) and found[1, 1] == 1


def p_values(draws, *, shift=0.0, new=8, old=16):
    found = []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        sides = contracts("new", new, rng=rng, shift=shift), contracts("old", old, rng=rng)
        found.append(drift.measure_drift(Vectors().encode, *sides, permutations=99, seed=seed)["p"])
    return np.array(found)


def test_without_drift_the_p_value_is_uniform():
    p = p_values(200)
    # Binomial, 200 draws: 5 % is 10, standard deviation 3.1; 50 % is 100, standard deviation 7.1; bounds at 3 of them.
    assert (p <= 0.05).sum() <= 19 and 79 <= (p <= 0.5).sum() <= 121


def test_passages_as_the_unit_would_see_drift_everywhere():
    """The same contracts, each passage taken for a contract of its own: what the permutation of contracts prevents."""
    seen = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        sides = [
            [Passage(f"{p.contract}/{p.index}", 0, 0, 9, p.text) for p in contracts(name, n, rng=rng)]
            for name, n in (("new", 8), ("old", 16))
        ]
        seen += drift.measure_drift(Vectors().encode, *sides, permutations=99, seed=seed)["p"] <= 0.05
    assert seen >= 15


def test_drift_is_found_and_its_estimate_is_positive():
    assert (p_values(20, shift=0.8) <= 0.05).mean() >= 0.9
    rng = np.random.default_rng(0)
    found = drift.measure_drift(
        Vectors().encode, contracts("new", 8, rng=rng, shift=0.8), contracts("old", 16, rng=rng), seed=7
    )
    assert found["mmd2"] > found["limit"] and found["p"] == 0.001
    assert "differ from the earlier ones by more than chance" in drift.drift_sentence(found)


def test_order_of_passages_does_not_matter_and_the_seed_does():
    rng = np.random.default_rng(3)
    new, old = contracts("new", 5, rng=rng, per=20), contracts("old", 9, rng=rng, per=20)
    shuffled = random.Random(0).sample(new, len(new)), random.Random(1).sample(old, len(old))
    first = drift.measure_drift(Vectors().encode, new, old, seed=7)
    assert drift.measure_drift(Vectors().encode, *shuffled, seed=7) == first
    assert drift.measure_drift(Vectors().encode, new, old, seed=8)["mmd2"] != first["mmd2"]


@given(st.integers(2, 40), st.integers(2, 90), st.integers(1, 20), st.integers(1, 16), st.integers(16, 200))
def test_passages_stay_within_the_budget(n_new, n_old, per, per_contract, budget):
    sides = [
        drift._by_contract(passages_of({f"{name}{c}": [f"{c} {i}" for i in range(per)] for c in range(n)}))
        for name, n in (("new", n_new), ("old", n_old))
    ]
    new, old = drift._within_budget(*sides, per_contract, budget, 7)
    sizes = list(map(len, [*new.values(), *old.values()]))
    assert len(new) >= 2 and len(old) >= 2 and max(sizes) <= per_contract and sum(sizes) <= budget
    assert set(new) <= set(sides[0]) and set(old) <= set(sides[1])


def test_contract_is_drawn_alike_in_every_iteration():
    own = {f"c{n}": [f"text {n} {i}" for i in range(30)] for n in range(40)}
    parts = list(own)[:2], list(own)[2:4], list(own)[4:]
    sides = [drift._by_contract(passages_of({title: own[title] for title in part})) for part in parts]
    first = drift._within_budget(sides[0], sides[1], 16, 960, 7)[0]
    later = drift._within_budget(sides[2], sides[0], 8, 960, 7)[1]
    for title in first:  # later fewer passages are taken, and their vectors are in the cache
        assert later[title] == first[title][:8]


def test_the_contract_that_is_least_like_the_past_is_named(tmp_path):
    old = passages_of({f"old{n}": ["rent lease tenant landlord premises", "rent lease"] for n in range(4)})
    new = passages_of(
        {
            "lease": ["rent lease tenant premises"],
            "mixed": ["rent lease vaccine trial"],
            "pharma": ["vaccine trial dose patient"],
        }
    )
    found = drift.measure_drift(make_embedder(tmp_path).encode, new, old, permutations=19, seed=7)
    assert found["least_like"] == "pharma" and "Least like the past: pharma." in drift.drift_sentence(found)
    assert (found["n_incoming"], found["n_reference"], found["passages"]) == (3, 4, 11)
    assert json.loads(json.dumps(found)) == found


@pytest.mark.parametrize(
    "new, old, counts",
    [
        ({"a": ["x"]}, {"b": ["x"], "c": ["y"]}, "1 new and 2 earlier"),
        ({"a": ["x"], "b": ["y"]}, {}, "2 new and 0 earlier"),
        ({"a": ["x"], "b": ["  "]}, {"c": ["x"], "d": ["y"]}, "1 new and 2 earlier"),
        ({"a": ["x"], "b": ["y"]}, {"a": ["x"], "b": ["y"]}, "0 new and 2 earlier"),
    ],
)
def test_too_few_new_contracts_are_said(new, old, counts):
    vectors = Vectors()
    found = drift.measure_drift(vectors.encode, passages_of(new), passages_of(old), seed=7)
    assert found["p"] is None and found["mmd2"] is None and not vectors.asked
    said = drift.drift_sentence(found)
    assert "not tested: needs two contracts" in said and counts in said


def test_equal_texts_show_no_drift(tmp_path):
    new, old = (passages_of({f"{name}{n}": ["the same text"] for n in range(3)}) for name in ("new", "old"))
    found = drift.measure_drift(make_embedder(tmp_path).encode, new, old, permutations=19, seed=7)
    assert found["p"] == 1 and found["mmd2"] == 0
