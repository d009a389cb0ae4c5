"""The stream: every contract arrives once, types and years follow one another, held-out and replayed ones never mix."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.data import contracts, rows, splits, stream
from cuadft.data.rows import assert_no_leak

KINDS = ["License", "Supply", "Agency", "Hosting"]
STREAMS = ["random", "by_type", "by_date"]


def records(n: int = 24, *, kinds: list[str] = KINDS, group=lambda k: k) -> list[dict]:
    return [
        {
            "title": f"ACME{k}_01_02_{1998 + k % 5}-EX-10-X",
            "contract_type": kinds[k % len(kinds)],
            "filer": f"acme{k}",
            "group": group(k),
            "split": "train",
            "text": "x",
        }
        for k in range(n)
    ]


made = st.builds(
    lambda n, m, g: records(n, kinds=KINDS[:m], group=lambda k: k // g),
    st.integers(1, 40),
    st.integers(1, 4),
    st.integers(1, 3),
)


@given(made, st.sampled_from(STREAMS), st.integers(0, 12), st.integers(0, 99))
def test_every_contract_arrives_exactly_once_whatever_the_order_of_the_records(pool, kind, size, seed) -> None:
    parts = stream.cut_slices(pool, stream=kind, size=size, seed=seed)
    assert Counter(t for part in parts for t in part) == Counter(r["title"] for r in pool)
    assert all(part and (not size or len(part) <= size) for part in parts)
    assert parts == stream.cut_slices(pool[::-1], stream=kind, size=size, seed=seed)


@given(made, st.integers(0, 30), st.integers(0, 9))
def test_a_type_arrives_in_one_slice_unless_it_is_larger_than_a_slice(pool, size, seed) -> None:
    kind_of = {r["title"]: r["contract_type"] for r in pool}
    sizes = Counter(kind_of.values())
    where: dict[str, set[int]] = {}
    for number, part in enumerate(stream.cut_slices(pool, stream="by_type", size=size, seed=seed)):
        for title in part:
            where.setdefault(kind_of[title], set()).add(number)
    for kind, slices in where.items():
        assert len(slices) == (-(-sizes[kind] // size) if size else 1)


def test_by_date_follows_the_filing_years_and_undated_titles_come_last() -> None:
    pool = records(10) + [{**records(1)[0], "title": "Acme Corp. - SUPPLY AGREEMENT", "group": 99}]
    order = [t for part in stream.cut_slices(pool, stream="by_date", size=4, seed=1) for t in part]
    years = [stream.filing_year(t) for t in order]
    assert years == sorted(years) and years[-1] == "undated" and years.count("undated") == 1
    assert [stream.filing_year(p[0]) for p in stream.cut_slices(pool, stream="by_date", size=0, seed=1)] == sorted(
        set(years)
    )


@pytest.mark.parametrize(
    "title, year",
    [
        ("LIMEENERGYCO_09_09_1999-EX-10-DISTRIBUTOR AGREEMENT", "1999"),
        ("WhiteSmokeInc_20111110_S-1A_EX-10.26_7276582_EX-10.26_Promotion Agreement", "2011"),
        ("ACME_20200230_8-K_EX-1", "2020"),  # no such day, but a year all the same
        ("ACME_20201350_8-K_EX-1", "undated"),
        ("ACME_12345678_EX-1", "undated"),
        ("Acme 1999 - SUPPLY AGREEMENT", "undated"),
    ],
)
def test_the_filing_year_is_that_of_the_title(title: str, year: str) -> None:
    assert stream.filing_year(title) == year


@given(made, st.sampled_from(STREAMS), st.integers(2, 12), st.sampled_from([0, 2, 3, 4]), st.integers(0, 9))
def test_held_out_contracts_share_no_group_with_training_and_leave_half_of_a_slice(
    pool, kind, size, held, seed
) -> None:
    parts = stream.cut_slices(pool, stream=kind, size=size, seed=seed)
    marked = stream.hold_out_of_slices(pool, parts, iteration=1, contracts=held, seed=seed)
    out = {r["title"]: r for r in marked if r["split"] == "slice"}
    assert not {r["group"] for r in out.values()} & {r["group"] for r in marked if r["split"] == "train"}
    for number, part in enumerate(parts, 1):
        mine = [t for t in part if t in out]
        assert (
            len(mine) != 1 and len(mine) <= min(held, len(part) // 2) and all(out[t]["slice"] == number for t in mine)
        )
    assert stream.cut_slices(marked, stream=kind, size=size, seed=seed) == parts  # later iterations see the same slices
    # a second draw is like the first one, and later iterations move nothing that the run began with
    for iteration in (1, 2):
        assert stream.hold_out_of_slices(marked, parts, iteration=iteration, contracts=held, seed=seed) == marked
    none = stream.hold_out_of_slices(marked, parts, iteration=1, contracts=0, seed=seed)
    assert all(r["split"] == "train" and "slice" not in r for r in none)


def test_a_later_iteration_holds_out_of_what_arrived_in_it_alone() -> None:
    pool = records(12) + [
        r | {"title": f"new {r['title']}", "arrived": 2, "group": 50 + k} for k, r in enumerate(records(6))
    ]
    parts = stream.cut_slices(pool, stream="arrivals", size=0, seed=1)
    marked = stream.hold_out_of_slices(pool, parts, iteration=2, contracts=2, seed=1)
    held = [r for r in marked if r["split"] == "slice"]
    assert len(held) == 2 and all(r["arrived"] == r["slice"] == 2 for r in held)
    assert stream.hold_out_of_slices(marked, parts, iteration=3, contracts=4, seed=1) == marked


def test_an_iteration_without_arrivals_has_the_first_slice_and_later_ones_keep_their_place() -> None:
    pool = records(4) + [r | {"title": f"new {r['title']}", "arrived": 3, "group": 50} for r in records(2)]
    first, again, third = stream.cut_slices(pool, stream="arrivals", size=0, seed=1)
    assert first == again and sorted(first) == sorted(r["title"] for r in records(4))
    assert sorted(third) == sorted(r["title"] for r in pool if r.get("arrived") == 3)
    assert stream.slice_portion([first, again, third], set(), iteration=3, replay=0, seed=1)[:2] == (3, third)
    assert stream.cut_slices(pool[:4], stream="arrivals", size=0, seed=1) == [first]


def test_what_training_questions_were_written_on_before_is_never_held_out() -> None:
    pool = [r | {"group": -1, "arrived": 2} for r in records(6)]
    parts = stream.cut_slices(pool, stream="random", size=0, seed=1)
    assert stream.hold_out_of_slices(pool, parts, iteration=2, contracts=2, seed=1) == pool


@given(made, st.integers(1, 12), st.floats(0, 1), st.integers(0, 9))
def test_replay_brings_back_only_what_was_learned_before_and_nothing_held_out(pool, size, replay, seed) -> None:
    parts = stream.cut_slices(pool, stream="by_type", size=size, seed=seed)
    marked = stream.hold_out_of_slices(pool, parts, iteration=1, contracts=2, seed=seed)
    held = {r["title"] for r in marked if r["split"] == "slice"}
    seen: set[str] = set()
    for iteration in range(1, 2 * len(parts) + 1):
        number, new, replayed = stream.slice_portion(parts, held, iteration=iteration, replay=replay, seed=seed)
        assert set(replayed) <= seen - set(new) and not {*new, *replayed} & held
        assert new == [t for t in parts[number - 1] if t not in held]
        assert len(replayed) <= int(replay * len(new) + 0.5)
        seen |= set(new)
    assert seen == {t for part in parts for t in part} - held


def test_no_replay_forgets_and_a_full_share_repeats_as_many_as_are_new() -> None:
    parts = [[f"{part}{k}" for k in range(8)] for part in "abc"]
    assert stream.slice_portion(parts, (), iteration=3, replay=0, seed=1) == (3, parts[2], [])
    assert len(stream.slice_portion(parts, (), iteration=3, replay=1, seed=1)[2]) == 8


def test_replay_is_a_fair_sample_of_all_earlier_contracts() -> None:
    parts = [[f"{part}{k}" for k in range(10)] for part in range(4)]
    counts: Counter[str] = Counter()
    for seed in range(400):
        replayed = stream.slice_portion(parts, (), iteration=4, replay=0.5, seed=seed)[2]
        assert len(replayed) == len(set(replayed)) == 5
        counts.update(title[0] for title in replayed)
    # slices 0, 1 and 2 were seen: a third of 2,000 each, standard deviation about 21
    assert all(abs(counts[str(part)] - 2000 / 3) < 100 for part in range(3)), counts


def test_what_arrived_later_is_a_slice_of_its_own() -> None:
    pool = records(6) + [{**r, "title": f"new {r['title']}", "arrived": 2} for r in records(2)]
    parts = stream.cut_slices(pool, stream="arrivals", size=0, seed=1)
    assert [len(part) for part in parts] == [6, 2] and all(t.startswith("new") for t in parts[1])


@pytest.mark.parametrize(
    "call",
    [
        lambda: stream.hold_out_of_slices([], [], iteration=1, contracts=1, seed=1),
        lambda: stream.hold_out_of_slices([], [], iteration=1, contracts=-2, seed=1),
    ],
)
def test_impossible_settings_are_refused(call) -> None:
    with pytest.raises(InputError, match="Invalid"):
        call()


def test_slice_rows_come_from_held_out_contracts_of_the_slices_so_far(tmp_path) -> None:
    found = contracts.read_contracts(contracts.sample_path())
    groups = splits.contract_groups(found)
    drawn = splits.split_groups(found, groups, dev=3, test=4, seed=7)
    pool = [c.record(group=groups[c.title], split=drawn[c.title]) for c in found]
    files.write_jsonl(tmp_path / "contracts.jsonl", pool)
    parts = stream.cut_slices(pool, stream="by_type", size=8, seed=7)
    held_out = stream.hold_out_of_slices(pool, parts, iteration=1, contracts=2, seed=7)
    marked = stream.keep_slices(runs.Iteration(tmp_path, 1), held_out)
    assert files.read_jsonl(tmp_path / "contracts.jsonl") == marked
    asked = stream.slice_questions(found, marked, upto=2, size=4, seed=7)
    held = {r["title"]: r["slice"] for r in marked if r["split"] == "slice"}
    assert asked and all(held[r["contract"]] == r["slice"] <= 2 for r in asked)
    assert Counter(r["slice"] for r in asked) == {1: 4, 2: 4}
    with pytest.raises(InputError, match="held out"):
        assert_no_leak(asked, marked)
    table = stream.slices_table(marked, parts)
    assert sum(line["contracts"] for line in table) == sum(r["split"] in ("train", "slice") for r in marked)
    # a later iteration may not change what the first one froze
    stream.keep_slices(runs.Iteration(tmp_path, 2), pool)
    assert files.read_jsonl(tmp_path / "contracts.jsonl") == marked


def test_an_iteration_takes_its_slice_and_asks_the_same_dev_and_test_questions_as_the_others(tmp_path) -> None:
    found = contracts.read_contracts(contracts.sample_path())
    sizes = {"dev_rows": 6, "test_rows": 8, "slice_rows": 4}
    settings = {"size": 8, "hold_out": 2, "replay": 0.25, "seed": 7}
    parts, sets = [], []
    for number in (1, 2):
        iteration = runs.Iteration(tmp_path, number)
        iteration.dir.mkdir()
        frozen = rows.freeze_splits(tmp_path, found, dev=3, test=4, seed=7, split="group")
        parts.append(stream.next_slice(iteration, found, frozen, stream="by_type", **settings))
        sets.append(stream.question_sets(parts[-1], iteration, seed=7, **sizes))
    assert [part.number for part in parts] == [1, 2] and not parts[0].replayed and not parts[0].earlier
    assert set(parts[1].earlier) == set(parts[0].new) and set(parts[1].replayed) <= set(parts[0].new)
    assert parts[1].train == parts[1].new + parts[1].replayed
    same = ("dev", "test", "dev_questions", "test_clauses")
    assert [sets[0][name] for name in same] == [sets[1][name] for name in same]
    assert {row["contract"] for row in sets[1]["train"]} == set(parts[1].train)
    assert (len(sets[0]["dev"]), len(sets[0]["test"])) == (6, 8)
    assert Counter(row["slice"] for row in sets[1]["slices"]) == {1: 4, 2: 4}
    assert (
        sum(row["weight"] for row in sets[0]["dev"]) == pytest.approx(3 * 41)
        and len(sets[0]["dev_questions"]) == 3 * 41
    )
    held = rows.rows_of_contracts(found, rows.split_titles(frozen, "test"))
    assert sets[0]["test_clauses"] == [row for row in held if row["answers"]]
    assert not any(
        "weight" in row for name in ("train", "slices", "dev_questions", "test_clauses") for row in sets[0][name]
    )
    leaked = replace(parts[0], new=[r["title"] for r in parts[0].records if r["split"] == "test"])
    with pytest.raises(InputError, match="held out"):
        stream.question_sets(leaked, runs.Iteration(tmp_path, 1), seed=7, **sizes)
