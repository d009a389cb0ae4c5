"""Properties of the length matching: the mean log ratio comes within tolerance, by choosing first and dropping last."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.feedback.preferences import length_log_ratio, length_report, match_lengths

RATIOS = st.floats(-4, 4).map(lambda x: round(x, 2))
GROUPS = st.lists(st.lists(RATIOS, min_size=1, max_size=4), max_size=12)


def itself(item: float) -> float:
    return item


@given(GROUPS, st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_the_mean_ratio_of_what_is_kept_is_within_tolerance(groups, tolerance):
    kept, dropped = match_lengths(groups, itself, tolerance)
    assert len(kept) + len(dropped) == len(groups)
    assert not kept or abs(math.fsum(kept)) <= tolerance * len(kept) + 1e-6
    assert match_lengths(groups, itself, tolerance) == (kept, dropped)


@given(GROUPS)
def test_an_infinite_tolerance_takes_the_first_of_each(groups):
    assert match_lengths(groups, itself, math.inf) == ([group[0] for group in groups], [])


@pytest.mark.parametrize("tolerance", [0.05, 0.2, 0.5])
@pytest.mark.parametrize("mean", [-2, -0.7, 0, 0.4, 1.3])
@pytest.mark.parametrize("seed", range(4))
def test_no_fewer_could_be_dropped(seed, mean, tolerance):
    # To bring a mean of 1 down, nothing does more than dropping the largest: how many that takes is the least.
    random = Random(seed)
    size = random.randint(30, 80)
    ratios = [random.gauss(mean, 1) for _ in range(size)]
    ordered = sorted(ratios, reverse=math.fsum(ratios) < 0)
    least = next(
        n
        for n in range(size + 1)
        if n == size
        or abs(math.fsum(ordered[: size - n])) <= tolerance * (size - n)
        or math.fsum(ordered[: size - n]) * math.fsum(ratios) < 0
    )
    kept, dropped = match_lengths([[ratio] for ratio in ratios], itself, tolerance)
    assert len(dropped) == least and abs(math.fsum(kept)) <= tolerance * len(kept) + 1e-6


@pytest.mark.parametrize(
    "groups, tolerance, kept, dropped",
    [
        ([[2.0], [-1.0], [-1.0]], 0.0, [2.0, -1.0, -1.0], []),
        ([[2.0, 0.5], [-0.5]], 0.0, [0.5, -0.5], []),  # another choice for the first question, so that none is lost
        ([[2.0, 0.5], [-2.0]], 0.0, [2.0, -2.0], []),  # within tolerance: the first, clearest choices stand
        ([[3.0], [0.1], [-0.1]], 0.1, [0.1, -0.1], [3.0]),  # the extreme pair goes, not the many small ones
        ([[-3.0], [0.1], [-0.1]], 0.1, [0.1, -0.1], [-3.0]),
        ([[5.0], [3.0], [-4.0], [-1.0]], 0.0, [5.0, -4.0, -1.0], [3.0]),  # dropping the 5 would overshoot
        ([[0.0], [0.0], [2.0], [-1.0]], 0.1, [0.0, 0.0], [2.0, -1.0]),
        ([[1.0], [1.0]], 0.5, [], [1.0, 1.0]),  # nothing to weigh them against
        ([], 0.1, [], []),
    ],
)
def test_choices_are_changed_before_pairs_are_dropped(groups, tolerance, kept, dropped):
    assert match_lengths(groups, itself, tolerance) == (kept, dropped)


def test_the_ratio_is_of_characters_and_empty_texts_have_one():
    assert length_log_ratio("abcd", "ab") == pytest.approx(math.log(2)) == -length_log_ratio("ab", "abcd")
    assert length_log_ratio("", "") == 0 and length_log_ratio("ab", "") == pytest.approx(math.log(2))


def test_the_report_says_how_often_and_how_far_the_chosen_is_longer():
    texts = [("aaaa", "aa"), ("a", "aa"), ("aaaa", "a")]  # log ratios: ln 2, -ln 2, ln 4; mean ln(4) / 3
    pairs = [{"chosen": [{"content": c}], "rejected": [{"content": r}]} for c, r in texts]
    assert length_report(pairs) == pytest.approx(
        {
            "pairs": 3,
            "chosen_longer": 2 / 3,
            "mean_log_ratio": math.log(4) / 3,
        }
    )
    nothing = length_report([])
    assert nothing.pop("pairs") == 0 and all(math.isnan(value) for value in nothing.values())
