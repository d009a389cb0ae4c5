"""Properties of training batches: no false negative in any of them, and nothing left over that would fit."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from cuadft.retrieval.triples import batch_schedule, plan_batches

CATEGORIES = "ABCDEFG"


def triple(category: str, others: str = "") -> dict:
    return {"category": category, "answers": sorted({category, *others})}


examples = st.lists(
    st.builds(triple, st.sampled_from(CATEGORIES), st.text(CATEGORIES, max_size=2)), min_size=1, max_size=60
)


@given(examples, st.integers(2, 8), st.integers(0, 99))
def test_no_passage_of_a_batch_answers_another_example_of_it(made, size, seed):
    for batch in plan_batches(made, size=size, seed=seed):
        asked = [made[n]["category"] for n in batch]
        assert 1 <= len(batch) <= size and len(set(asked)) == len(asked)
        for n in batch:
            assert set(made[n]["answers"]) & set(asked) == {made[n]["category"]}


@given(examples, st.integers(2, 8), st.integers(0, 99))
def test_a_pass_uses_no_example_twice_and_has_no_small_batch(made, size, seed):
    drawn = plan_batches(made, size=size, seed=seed)
    used = Counter(n for batch in drawn for n in batch)
    assert set(used.values()) == {1} and used.keys() <= set(range(len(made)))
    assert 4 * min(map(len, drawn)) >= 3 * max(map(len, drawn))


@given(st.permutations(CATEGORIES), st.integers(2, 8), st.integers(0, 99))
def test_a_pass_leaves_nothing_out_where_all_fit_together(categories, size, seed):
    made = [triple(category) for category in categories[: size * (len(categories) // size)]]
    assert sorted(n for batch in plan_batches(made, size=size, seed=seed) for n in batch) == list(range(len(made)))


def test_each_category_is_spread_over_the_whole_pass():
    made = [triple("A")] * 40 + [triple("B")] * 40 + [triple("C")] * 4
    drawn = plan_batches(made, size=2, seed=3)
    places = [n for n, batch in enumerate(drawn) if any(made[i]["category"] == "C" for i in batch)]
    assert len(places) == 4  # of about 42 batches: one in each quarter, where a random order often has none
    assert [4 * place // len(drawn) for place in places] == [0, 1, 2, 3]


def test_a_batch_is_full_where_categories_allow():
    drawn = plan_batches([triple(category) for category in CATEGORIES for _ in range(10)], size=7, seed=1)
    assert [len(batch) for batch in drawn] == [7] * 10


def test_a_schedule_has_exactly_its_steps_each_pass_drawn_anew_by_the_seed():
    made = [triple(category) for category in CATEGORIES for _ in range(2)]
    plan = batch_schedule(made, size=7, steps=5, seed=1)  # two batches a pass
    assert len(plan) == 5 and sorted(plan[0] + plan[1]) == sorted(plan[2] + plan[3]) == list(range(14))
    assert plan[:2] != plan[2:4]
    assert plan == batch_schedule(made, size=7, steps=5, seed=1) != batch_schedule(made, size=7, steps=5, seed=2)
