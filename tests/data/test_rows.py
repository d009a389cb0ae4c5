"""Properties of a run's contracts: drawn once, never leaking, and asked evenly."""

import random
from collections import Counter
from operator import itemgetter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.data.contracts import Contract
from cuadft.data.cuad import official_test_titles
from cuadft.data.rows import (
    PLAIN,
    SPLITS,
    add_plain_contracts,
    assert_no_leak,
    contract_passages,
    draw_evenly,
    freeze_splits,
    held_out_titles,
    passages_by_contract,
    read_rows,
    remember_rows,
    rows_of_contracts,
    select_contracts,
    split_titles,
    spread_rows,
    take_turns,
    unannotated_contracts,
)


def words(name, count=60):
    """Return a text that shares no sequence of words with that of another name."""
    return " ".join(f"{name}{i}" for i in range(count))


def contract(title, text=None, filer="", questions=2):
    rows = tuple(
        {"id": f"{title}__{i}", "contract": title, "question": f"Q{i}?", "answers": []} for i in range(questions)
    )
    return Contract(title, words(title) if text is None else text, "License", filer, rows)


CONTRACTS = [contract(f"c{i}") for i in range(8)]


def freeze(run, contracts=CONTRACTS, **changed):
    return freeze_splits(run, contracts, **({"dev": 2, "test": 2, "seed": 7, "split": "group"} | changed))


def sizes(records):
    return dict(Counter(r["split"] for r in records))


# --- freeze


def test_splits_are_drawn_once(tmp_path):
    first = freeze(tmp_path)
    assert sizes(first) == {"train": 4, "dev": 2, "test": 2}
    written = (tmp_path / "contracts.jsonl").read_bytes()
    assert freeze(tmp_path, list(reversed(CONTRACTS)), seed=8, dev=1) == first
    assert (tmp_path / "contracts.jsonl").read_bytes() == written


def test_the_draw_follows_its_seed(tmp_path):
    drawn = {seed: freeze(tmp_path / f"{seed}-{turn}", seed=seed) for turn in "ab" for seed in range(4)}
    assert freeze(tmp_path / "again", seed=2) == drawn[2]
    assert len({tuple(split_titles(r, "test")) for r in drawn.values()}) > 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (CONTRACTS[1:], "'c0' .* gone from"),
        ([contract("c0", "Another text."), *CONTRACTS[1:]], "'c0' .* another text in"),
    ],
)
def test_a_source_that_changed_under_a_run_is_noticed(tmp_path, change, message):
    freeze(tmp_path)
    with pytest.raises(InputError, match=message):
        freeze(tmp_path, change)


def test_contracts_that_came_later_do_not_move_the_splits(tmp_path):
    first = freeze(tmp_path)
    assert freeze(tmp_path, [*CONTRACTS, contract("later")]) == first


def test_related_contracts_stand_in_one_split(tmp_path):
    related = [
        contract("copy", CONTRACTS[0].text + " Amended."),
        contract("f1", filer="Acme"),
        contract("f2", filer="Acme"),
    ]
    for seed in range(5):
        split = {r["title"]: r["split"] for r in freeze(tmp_path / str(seed), [*CONTRACTS, *related], seed=seed)}
        assert split["copy"] == split["c0"] and split["f1"] == split["f2"]


def test_without_a_split_every_contract_is_in_every_split(tmp_path):
    records = freeze(tmp_path, split="none")
    for split in SPLITS:
        assert split_titles(records, split) == [c.title for c in CONTRACTS]
    assert_no_leak(rows_of_contracts(CONTRACTS, ["c0"]), records)  # nothing is held out: nothing can leak


def test_an_unknown_split_is_refused(tmp_path):
    with pytest.raises(InputError, match="split 'contract': choose group, official or none"):
        freeze(tmp_path, split="contract")
    assert not (tmp_path / "contracts.jsonl").exists()


def test_the_official_split_is_drawn_once_from_cuads_own_test_contracts(tmp_path):
    official = sorted(official_test_titles())[:3]
    contracts = [*CONTRACTS, *map(contract, official)]
    first = freeze(tmp_path, contracts, split="official", test=1)
    assert sorted(split_titles(first, "test")) == official and sizes(first) == {"train": 6, "dev": 2, "test": 3}
    assert freeze(tmp_path, contracts, split="official", seed=8, dev=1) == first
    assert freeze(tmp_path / "again", contracts[::-1], split="official", test=5)[::-1] == first
    with pytest.raises(InputError, match=f"'{official[0]}' is held out"):
        assert_no_leak(rows_of_contracts(contracts, official), first)
    with pytest.raises(InputError, match="none of the 102 test contracts .* among the 8 contracts"):
        freeze(tmp_path / "none", split="official")
    assert not (tmp_path / "none" / "contracts.jsonl").exists()


# --- contracts without annotations


def test_plain_contracts_are_kept_apart_and_replaced(tmp_path):
    records = freeze(tmp_path)
    assert add_plain_contracts(tmp_path, [contract("mine")])[-1]["split"] == PLAIN
    assert freeze(tmp_path) == records  # they are no part of the frozen draw
    assert all("mine" not in split_titles(files.read_jsonl(tmp_path / "contracts.jsonl"), s) for s in SPLITS)
    add_plain_contracts(tmp_path, [contract("other")])
    assert [r["title"] for r in files.read_jsonl(tmp_path / "contracts.jsonl")][8:] == ["other"]
    add_plain_contracts(tmp_path, [])
    assert files.read_jsonl(tmp_path / "contracts.jsonl") == records


@pytest.mark.parametrize("split", ["dev", "test"])
@pytest.mark.parametrize("kind", ["same title", "same words", "same filer", "through another"])
def test_a_plain_contract_related_to_a_held_out_one_is_refused(tmp_path, split, kind):
    contracts = [contract(c.title, filer=f"Filer of {c.title}") for c in CONTRACTS]
    records = freeze(tmp_path, contracts)
    held_out = next(c for c in contracts if c.title == split_titles(records, split)[0])
    before = (tmp_path / "contracts.jsonl").read_bytes()
    plain = {
        "same title": [contract(held_out.title, words("x"))],
        "same words": [contract("mine", held_out.text + " End.")],
        "same filer": [contract("mine", filer=held_out.filer)],
        "through another": [contract("mine", filer="Me"), contract("also", held_out.text, filer="Me")],
    }[kind]
    with pytest.raises(InputError, match=f"of contracts_folder repeats '{held_out.title}'"):
        add_plain_contracts(tmp_path, plain)
    assert (tmp_path / "contracts.jsonl").read_bytes() == before


def test_a_plain_contract_like_a_train_contract_is_welcome(tmp_path):
    train = split_titles(freeze(tmp_path), "train")[0]
    copy = next(c for c in CONTRACTS if c.title == train).text
    assert add_plain_contracts(tmp_path, [contract("mine", copy)])[-1]["title"] == "mine"


def test_a_folder_may_hold_annotated_documents_and_relatives_of_held_out_ones(tmp_path):
    records, folder = freeze(tmp_path / "run"), tmp_path / "in"
    held_out = next(r for r in records if r["split"] == "test")
    folder.mkdir()
    for name, text in (
        (records[0]["title"], words("was")),
        ("near", held_out["text"] + " End."),
        ("new", words("new")),
    ):
        (folder / f"{name}.txt").write_text(text)
    with pytest.warns(UserWarning, match=f"near repeats {held_out['title']}, which is held out"):
        found = unannotated_contracts(runs.Iteration(tmp_path / "run", 1), str(folder), records)
    assert [each.title for each in found] == ["new"]
    assert [r["title"] for r in files.read_jsonl(tmp_path / "run" / "contracts.jsonl")][len(records) :] == ["new"]


# --- leaks


@pytest.mark.parametrize("split", ["dev", "test"])
def test_rows_of_a_held_out_contract_are_caught(tmp_path, split):
    records = freeze(tmp_path)
    fine = rows_of_contracts(CONTRACTS, split_titles(records, "train"))
    assert_no_leak(fine, records)
    title = split_titles(records, split)[0]
    with pytest.raises(InputError, match=f"'{title}' is held out"):
        assert_no_leak([*fine, rows_of_contracts(CONTRACTS, [title])[0]], records)


def test_slice_contracts_are_held_out_like_dev_and_test(tmp_path):
    records = [r | {"split": "slice", "slice": 1} if r["title"] == "c0" else r for r in freeze(tmp_path)]
    files.write_jsonl(tmp_path / "contracts.jsonl", records)
    assert held_out_titles(records) == {r["title"] for r in records if r["split"] != "train"}
    assert split_titles(records, "slice") == ["c0"] and "c0" not in split_titles(records, "train")
    with pytest.raises(InputError, match="'c0' is held out"):
        assert_no_leak(CONTRACTS[0].rows, records)
    assert freeze(tmp_path) == records  # the mark stays in later iterations
    with pytest.raises(InputError, match="of contracts_folder repeats 'c0'"):
        add_plain_contracts(tmp_path, [contract("mine", CONTRACTS[0].text + " End.")])


def test_without_a_split_no_contract_is_in_a_slice_of_its_own(tmp_path):
    assert split_titles(freeze(tmp_path, split="none"), "slice") == []


# --- select


def test_selection_by_title_and_length_keeps_the_order():
    contracts = [contract("a", "x" * 10), contract("b", "x" * 20), contract("c", "x" * 30)]
    assert select_contracts(contracts) == contracts
    assert select_contracts(contracts, only=["c", "a"]) == [contracts[0], contracts[2]]
    assert select_contracts(contracts, max_characters=20) == contracts[:2]
    assert select_contracts(contracts, only=["b", "c"], max_characters=20) == [contracts[1]]


def test_selecting_what_is_not_there_says_what_is():
    with pytest.raises(InputError, match="'c10', which is not among the 8 contracts .did you mean 'c[01]'"):
        select_contracts(CONTRACTS, only=["c10"])
    with pytest.raises(InputError, match="No contract is left: 8 were read, max_characters is 5"):
        select_contracts(CONTRACTS, max_characters=5)
    with pytest.raises(InputError, match="No contract"):
        select_contracts([])


# --- spread


def make_rows(counts):
    return [{"id": f"c{c}-{i}", "contract": f"c{c}"} for c, n in enumerate(counts) for i in range(n)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=7), st.integers(0, 40), st.integers(0, 5))
def test_a_draw_is_even_over_contracts_seeded_and_without_repeats(counts, size, seed):
    rows = make_rows(counts)
    drawn = spread_rows(rows, size, seed=seed)
    ids = [r["id"] for r in drawn]
    assert len(ids) == len(set(ids)) == (min(size, len(rows)) if size else len(rows))
    assert [r["id"] for r in spread_rows(rows, size, seed=seed)] == ids
    taken = Counter(r["contract"] for r in drawn)
    most = max(taken.values(), default=0)
    # a contract with fewer than the most, less one, has no row left
    assert all(taken[f"c{c}"] >= min(n, most - 1) for c, n in enumerate(counts))


def test_another_seed_draws_other_rows():
    rows = make_rows([9] * 5)
    assert len({tuple(r["id"] for r in spread_rows(rows, 10, seed=seed)) for seed in range(5)}) > 1


COUNTS = st.lists(st.integers(0, 9), min_size=1, max_size=7)


@settings(max_examples=60, deadline=None)
@given(COUNTS, st.integers(0, 40), st.integers(0, 5))
def test_groups_take_turns_and_nothing_is_drawn_twice(counts, size, seed):
    rows = make_rows(counts)
    drawn = draw_evenly(rows, size, group=itemgetter("contract"), rng=random.Random(seed))
    assert drawn == draw_evenly(rows, size, group=itemgetter("contract"), rng=random.Random(seed))
    assert len({row["id"] for row in drawn}) == len(drawn) == min(size, len(rows))
    for end in range(len(drawn) + 1):  # any number of them from the front is as even as the groups allow
        taken = Counter(row["contract"] for row in drawn[:end])
        most = max(taken.values(), default=0)
        assert all(taken[f"c{c}"] >= min(n, most - 1) for c, n in enumerate(counts))


@given(st.integers(1, 6), st.integers(1, 9), st.integers(0, 5))
def test_large_groups_are_drawn_from_equally_often_or_once_more(groups, rounds, seed):
    size = groups * rounds - seed % groups
    drawn = draw_evenly(make_rows([rounds] * groups), size, group=itemgetter("contract"), rng=random.Random(seed))
    taken = Counter(row["contract"] for row in drawn)
    assert len(drawn) == size and max(taken.values()) - min(taken[f"c{c}"] for c in range(groups)) <= 1


@given(COUNTS, st.integers(0, 40), st.none() | st.integers(0, 5))
def test_turns_keep_the_order_within_a_group(counts, size, seed):
    groups = [[(c, i) for i in range(n)] for c, n in enumerate(counts)]
    taken = take_turns(map(iter, groups), size, rng=None if seed is None else random.Random(seed))
    assert len(taken) == min(size, sum(counts)) and [i for _, i in taken] == sorted(i for _, i in taken)
    if seed is None:
        assert taken == sorted(taken, key=lambda one: one[::-1])
    for c, own in enumerate(groups):
        assert [one for one in taken if one[0] == c] == own[: sum(one[0] == c for one in taken)]


def test_every_group_of_equal_size_is_as_likely_to_give_the_odd_row():
    extra = Counter()
    for seed in range(600):
        drawn = draw_evenly(make_rows([4, 4, 4]), 4, group=itemgetter("contract"), rng=random.Random(seed))
        extra.update(Counter(row["contract"] for row in drawn).most_common(1)[0][:1])
    assert all(140 < n < 260 for n in extra.values()), "200 each, standard deviation 11.5"


def test_a_spread_draw_is_the_one_that_run_folders_hold():
    # A run keeps its dev and test rows, and a new iteration has to draw the very same ones.
    drawn = [row["id"] for row in spread_rows(make_rows([9, 2, 0, 5, 7]), 11, seed=7)]
    assert " ".join(drawn) == "c0-5 c0-6 c0-7 c1-0 c1-1 c3-2 c3-3 c3-4 c4-2 c4-5 c4-6"


# --- rows and passages


def test_rows_come_in_the_order_of_the_titles_wanted():
    assert [r["id"] for r in rows_of_contracts(CONTRACTS, ["c2", "c0"])] == ["c2__0", "c2__1", "c0__0", "c0__1"]


def test_passages_are_cut_from_the_wanted_contracts_only(tmp_path):
    freeze(tmp_path)
    found = passages_by_contract(contract_passages(tmp_path, ["c1", "c4"], 100))
    assert sorted(found) == ["c1", "c4"]
    assert "".join(p.text for p in found["c1"]) == CONTRACTS[1].text


def test_rows_are_read_from_all_names_or_the_notebook_is_named(tmp_path):
    iteration = runs.Iteration(tmp_path, 1)
    files.write_jsonl(iteration.path("data", "train.jsonl"), [{"id": "a"}])
    files.write_jsonl(iteration.path("data", "synthetic.jsonl"), [{"id": "b"}])
    assert read_rows(iteration, "train", "synthetic") == [{"id": "a"}, {"id": "b"}]
    with pytest.raises(InputError, match="No file .*data/dev.jsonl: run the stage that writes it"):
        read_rows(iteration, "train", "dev")


def test_what_earlier_iterations_learned_from_is_remembered_once(tmp_path):
    first, second = runs.Iteration(tmp_path, 1), runs.Iteration(tmp_path, 2)
    files.write_jsonl(tmp_path / "contracts.jsonl", [{"title": "t"}, {"title": "u"}])
    a, old, b, new, c = (
        {"id": i, "question": q, "contract": t, "x": x}
        for i, q, t, x in (
            ("a", "A?", "t", 1),
            ("b~s1", "old?", "t", 1),
            ("b", "B?", "u", 1),
            ("b~s1", "new?", "t", 1),
            ("c", "C?", "t", 1),
        )
    )
    assert remember_rows(first, [a, old, b]) == [a, old, b]
    both = [a | {"x": 2}, old, b, new, c]  # a replayed row comes once, as it is now; other words are another question
    assert remember_rows(second, [a | {"x": 2}, new, c]) == both
    assert remember_rows(second, [a | {"x": 2}, new, c]) == both  # running it again adds nothing
    files.write_jsonl(tmp_path / "contracts.jsonl", [{"title": "t"}])  # "u" was a plain contract, taken away
    assert remember_rows(second, [c]) == [a, old, c]


def test_a_row_whose_answer_is_no_longer_in_the_text_is_forgotten(tmp_path):
    first, second = runs.Iteration(tmp_path, 1), runs.Iteration(tmp_path, 2)
    row = {"id": "a~1", "question": "A?", "contract": "t", "answers": [{"text": "law", "start": 4}]}
    files.write_jsonl(tmp_path / "contracts.jsonl", [{"title": "t", "text": "The law."}])
    assert remember_rows(first, [row]) == [row]
    files.write_jsonl(tmp_path / "contracts.jsonl", [{"title": "t", "text": "Any law."}])
    assert remember_rows(second, []) == [row]
    files.write_jsonl(tmp_path / "contracts.jsonl", [{"title": "t", "text": "Its law is: law."}])
    assert remember_rows(second, []) == [row]
    files.write_jsonl(tmp_path / "contracts.jsonl", [{"title": "t", "text": "This law."}])
    assert remember_rows(second, []) == []


def test_overlapping_passages_cover_a_contract_more_than_once(tmp_path):
    text = "One sentence ends here. " * 40
    files.write_jsonl(tmp_path / "contracts.jsonl", [{"title": "a", "text": text}])
    plain, twice = (contract_passages(tmp_path, ["a"], 200, overlap) for overlap in (0.0, 0.5))
    assert sum(len(p.text) for p in plain) == len(text) < 1.5 * len(text) < sum(len(p.text) for p in twice)
