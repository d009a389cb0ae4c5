"""Properties of arriving contracts: taken once and for good, never like a held-out one, and never half a file."""

import json
import os
import shutil
import zipfile
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_rows import contract, freeze, words

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.data import arrivals, rows, stream
from cuadft.data.contracts import Contract
from cuadft.feedback import tasks
from cuadft.feedback.training_questions import RowRefused, TrainingQuestions

QUESTION = "Governing Law: Which state's law governs the contract?"


def entry(title, text=None, ids=None, found=True):
    """Return a contract in CUAD's layout whose one clause is the first word of its text."""
    text = words(title.replace(" ", "")) if text is None else text
    answers = [{"text": text.split()[0], "answer_start": 0}] if found else []
    qas = [
        {"id": i, "question": QUESTION + "!" * n, "answers": answers, "is_impossible": not answers}
        for n, i in enumerate(ids or [f"{title}__Governing Law"])
    ]
    return {"title": title, "paragraphs": [{"context": text, "qas": qas}]}


def drop(folder, name, *entries):
    folder.mkdir(exist_ok=True)
    content = json.dumps({"data": entries})
    if name.endswith(".zip"):
        with zipfile.ZipFile(folder / name, "w") as file:
            file.writestr("CUAD_v1.json", content)
    else:
        (folder / name).write_text(content)
    return folder / name


@pytest.fixture
def place(tmp_path):
    """Return the run, of eight contracts with a filer each, and the folder of arrivals, empty so far."""
    (tmp_path / "in").mkdir()
    freeze(tmp_path / "run", [contract(f"c{i}", filer=f"filer{i}") for i in range(8)])
    return tmp_path / "run", tmp_path / "in"


def take(place, number, **options):
    return arrivals.take_arrivals(runs.Iteration(place[0], number), place[1], **options)


def titles(found):
    return [c.title for c in found]


def left_out(place, number):
    return [line for line in rows.arrived_lines(runs.Iteration(place[0], number)) if "reason" in line]


def reasons(place, number):
    return {line["title"]: line["reason"] for line in left_out(place, number)}


# --- taken once


def test_each_contract_arrives_in_one_iteration_only(place):
    drop(place[1], "a.json", entry("one"), entry("two"))
    assert titles(take(place, 1)) == ["one", "two"]
    drop(place[1], "b.zip", entry("three"))
    assert titles(take(place, 2)) == ["three"]
    assert reasons(place, 2) == dict.fromkeys(["one", "two"], arrivals.REPEATED)
    assert [(r["title"], r["arrived"]) for r in rows.contract_records(place[0])[8:]] == [
        ("one", 1),
        ("two", 1),
        ("three", 2),
    ]
    assert len(rows.contract_records(place[0], 1)) == 10 and len(rows.contract_records(place[0], 0)) == 8


def test_what_was_taken_stays_whatever_the_folder_holds_later(place):
    drop(place[1], "a.json", entry("one"), entry("two"))
    first = take(place, 2)
    drop(place[1], "a.json", entry("one", "Quite another text."), entry("four"))
    drop(place[1], "b.json", entry("three"))
    before = runs.Iteration(place[0], 2).path(rows.ARRIVED).read_bytes()
    assert take(place, 2) == first
    shutil.rmtree(place[1])
    assert take(place, 2) == first == rows.arrived_contracts(place[0])
    assert runs.Iteration(place[0], 2).path(rows.ARRIVED).read_bytes() == before


def test_arrivals_leave_the_frozen_contracts_alone(place):
    before = (place[0] / "contracts.jsonl").read_bytes()
    drop(place[1], "a.json", entry("one"))
    take(place, 1)
    assert (place[0] / "contracts.jsonl").read_bytes() == before
    assert rows.passages_by_contract(rows.contract_passages(place[0], ["one", "c0"], 100)).keys() == {"one", "c0"}


def test_an_empty_first_iteration_stays_empty(place):
    assert take(place, 1) == []
    drop(place[1], "a.json", entry("one"))
    assert take(place, 1) == []
    assert titles(take(place, 2)) == ["one"]


def test_questions_and_gold_spans_survive_the_freezing(place):
    drop(place[1], "a.json", entry("one", "Ohio  law\u2028 governs.\r\n" + words("x")), entry("two", found=False))
    one, two = take(place, 1)
    assert rows.arrived_contracts(place[0]) == [one, two]
    assert one.rows[0]["answers"] == [{"text": "Ohio", "start": 0}] and two.rows[0]["is_impossible"]
    assert one.text.startswith("Ohio  law\u2028 governs.\r\n")


def test_files_of_rows_arrive_as_well(place):
    (one,) = entry("one")["paragraphs"]
    row = {"title": "one", "context": one["context"]} | one["qas"][0]
    rows_of_spans = [json.dumps(row), json.dumps(row | {"id": "one__Governing Law_1"})]
    drop(place[1], "a.jsonl").write_text("\n".join(rows_of_spans))
    (taken,) = take(place, 1)
    assert [row["id"] for row in taken.rows] == ["one__Governing Law"]


def test_short_ids_of_several_files_do_not_meet(place):
    drop(place[1], "a.json", entry("one", ids=["1__Governing Law", "2__Governing Law"]))
    drop(place[1], "b.json", entry("two", ids=["1__Governing Law"]), entry("three"))
    assert [row["id"] for c in take(place, 1) for row in c.rows] == [
        "one__1__Governing Law",
        "one__2__Governing Law",
        "two__1__Governing Law",
        "three__Governing Law",
    ]


# --- nothing new


def test_nothing_new_is_said_with_what_to_do(place):
    with pytest.raises(
        InputError, match=r"Nothing new in .* for iteration 2 \(it is empty\): drop a file .* same command"
    ):
        take(place, 2)
    drop(place[1], "a.json", entry("one"))
    take(place, 1)
    with pytest.raises(InputError, match="1 x is known already"):
        take(place, 2)
    assert not runs.Iteration(place[0], 2).path(rows.ARRIVED).exists()
    drop(place[1], "b.json", entry("two"))
    assert titles(take(place, 2)) == ["two"]


def test_a_missing_folder_is_named(place):
    place[1].rmdir()
    with pytest.raises(InputError, match="arrivals_folder '.*/in'.*make that folder"):
        take(place, 1)


# --- broken and unfinished files


@pytest.mark.parametrize("fault", ["cut", "zip", "layout", "span", "empty"])
def test_a_broken_file_is_named_and_nothing_is_taken(place, fault):
    drop(place[1], "good.json", entry("one"))
    bad = drop(place[1], "bad.zip" if fault == "zip" else "bad.json", entry("two"))
    content = {
        "cut": bad.read_bytes()[:-9],
        "zip": bad.read_bytes()[:-30],
        "layout": b'{"rows": []}',
        "empty": b"",
        "span": bad.read_bytes().replace(b'"answer_start": 0', b'"answer_start": 7'),
    }[fault]
    bad.write_bytes(content)
    os.utime(bad, (1e9, 1e9))
    with pytest.raises(InputError, match=rf"bad\.{bad.suffix[1:]}") as error:
        take(place, 1)
    assert "good.json" not in str(error.value)
    assert not runs.Iteration(place[0], 1).path(rows.ARRIVED).exists()
    bad.unlink()
    assert titles(take(place, 1)) == ["one"]


def test_a_file_that_is_still_being_copied_is_named_and_the_same_call_goes_on_when_it_is_whole(place):
    drop(place[1], "a.json", entry("one"))
    whole = drop(place[1], "b.json", entry("two")).read_bytes()
    (place[1] / "b.json").write_bytes(whole[:50])
    with pytest.raises(InputError, match=r"b\.json is not whole UTF-8 JSON"):
        take(place, 1)
    (place[1] / "b.json").write_bytes(whole)
    assert titles(take(place, 1)) == ["one", "two"]


def test_other_files_are_named_and_hidden_ones_passed_over(place):
    drop(place[1], "a.json", entry("one"))
    (place[1] / ".b.json.part").write_text("{")
    (place[1] / "contract_types.csv").write_text("title,contract_type\none,License\n")
    (place[1] / "notes.txt").write_text("?")
    (place[1] / "old.json").mkdir()
    assert [c.contract_type for c in take(place, 1)] == ["License"]
    assert reasons(place, 1) == dict.fromkeys(["notes.txt", "old.json"], arrivals.NOT_READ)


# --- the same contract twice


def test_the_same_file_under_another_name_counts_once(place):
    drop(place[1], "a.json", entry("one"), entry("two"))
    shutil.copy(place[1] / "a.json", place[1] / "b.json")
    assert titles(take(place, 1)) == ["one", "two"]
    assert set(reasons(place, 1).values()) == {arrivals.REPEATED}
    assert arrivals.arrivals_table(runs.Iteration(place[0], 1)).to_dict("records") == [
        {"contracts": 2, "what": "taken", "for example": "one (a.json)"},
        {"contracts": 2, "what": arrivals.REPEATED, "for example": "one (b.json)"},
    ]


def test_of_one_title_with_two_texts_the_first_is_taken_and_the_other_named(place):
    drop(place[1], "a.json", entry("one"))
    drop(place[1], "b.json", entry("One ", words("y")))
    assert titles(take(place, 1)) == ["one"]
    assert [(line["title"], line["reason"], line["file"]) for line in left_out(place, 1)] == [
        ("One ", arrivals.RENAMED, "b.json")
    ]


def test_a_known_title_is_left_out_whatever_its_text(place):
    drop(place[1], "a.json", entry("one"))
    take(place, 1)
    drop(place[1], "a.json", entry("One", words("other")), entry("c0"), entry("c1", words("other1")), entry("new"))
    assert titles(take(place, 2)) == ["new"]
    assert reasons(place, 2) == {
        "One": arrivals.RENAMED,
        "c1": arrivals.RENAMED,
        "c0": arrivals.REPEATED,
    }


def test_a_known_text_under_another_title_is_left_out(place):
    train = rows.split_titles(rows.contract_records(place[0]), "train")[0]
    drop(place[1], "a.json", entry("one", words(train)), entry("two"), entry("three", words("two")))
    assert titles(take(place, 1)) == ["two"]
    assert set(reasons(place, 1).values()) == {"has the text of another contract"}


def test_contracts_without_questions_or_too_long_are_left_out(place):
    drop(
        place[1],
        "a.json",
        entry("one"),
        {"title": "bare", "paragraphs": [{"context": words("b"), "qas": []}]},
        entry("long", words("l", 200)),
    )
    assert titles(take(place, 1, max_characters=500)) == ["one"]
    assert reasons(place, 1) == {"bare": "has no questions", "long": "is longer than max_characters"}


# --- leaks


@pytest.mark.parametrize("split", ["dev", "test", "slice"])
@pytest.mark.parametrize("like", ["text", "most of the text", "filer", "through another"])
def test_nothing_like_a_held_out_contract_is_taken(place, split, like):
    records = files.read_jsonl(place[0] / "contracts.jsonl")
    if split == "slice":
        first = next(r for r in records if r["split"] == "train")
        records = [r | {"split": "slice", "slice": 1} if r is first else r for r in records]
        files.write_jsonl(place[0] / "contracts.jsonl", records)
    held = next(r for r in records if r["split"] == split)
    # the filer is what stands before a date in CUAD's titles
    near = {
        "text": [entry("x", held["text"])],
        "most of the text": [entry("x", held["text"] + " The end.")],
        "filer": [entry(f"{held['filer']}_20200101_8-K_License", words("x"))],
        "through another": [entry("x", held["text"] + " The end. " + words("y", 200)), entry("z", words("y", 150))],
    }[like]
    drop(place[1], "a.json", entry("fine"), *near)
    assert titles(take(place, 1)) == ["fine"]
    assert [(e["title"], e["reason"], e["detail"]) for e in left_out(place, 1)] == [
        (e["title"], arrivals.LIKE_HELD_OUT, held["title"]) for e in near
    ]


def test_what_repeats_an_arrival_that_was_held_out_is_not_taken_later(place):
    drop(place[1], "a.json", entry("one"), entry("two"))
    take(place, 1)
    hold(place, 1, "one")
    drop(place[1], "b.json", entry("copy", words("one") + " Amended."), entry("three"))
    assert titles(take(place, 2)) == ["three"]
    with pytest.raises(InputError, match="of contracts_folder repeats 'one'"):
        rows.add_plain_contracts(place[0], [Contract("mine", words("one") + " End.")])


def hold(place, number, title):
    """Hold one arrival out of its slice."""
    records = rows.contract_records(place[0], number)
    marked = [r | ({"split": "slice", "slice": number} if r["title"] == title else {}) for r in records]
    stream.keep_slices(runs.Iteration(place[0], number), marked)


def test_marks_of_held_out_arrivals_are_kept_and_count(place):
    drop(place[1], "a.json", entry("one"), entry("two"))
    found = take(place, 2)
    hold(place, 2, "two")
    assert take(place, 2) == found == rows.arrived_contracts(place[0])
    records = rows.contract_records(place[0])
    assert {r["title"]: r["split"] for r in records[8:]} == {"one": "train", "two": "slice"} and records[9][
        "slice"
    ] == 2
    assert "two" in rows.held_out_titles(records) and rows.split_titles(records, "slice") == ["two"]
    with pytest.raises(InputError, match="'two' is held out"):
        rows.assert_no_leak(found[1].rows, records)


@pytest.mark.parametrize("killed", [None, "contracts.jsonl", "arrived.jsonl", "after"])
def test_a_first_iteration_holds_out_the_same_after_a_kill_or_a_new_draw(place, killed, monkeypatch):
    drop(place[1], "a.json", *(entry(f"n{i}") for i in range(9)))
    iteration, write = runs.Iteration(place[0], 1), files.write_jsonl

    def draw():
        take(place, 1)
        records = rows.contract_records(place[0], 1)
        parts = stream.cut_slices(records, stream="arrivals", size=0, seed=7)
        marked = stream.hold_out_of_slices(records, parts, iteration=1, contracts=5, seed=7)
        stream.keep_slices(iteration, marked)
        return {r["title"]: r["split"] for r in rows.contract_records(place[0])}

    before = {name: (place[0] / name).read_bytes() for name in ("contracts.jsonl",)}
    whole = draw()
    assert len({title[0] for title, split in whole.items() if split == "slice"}) == 2  # of either kind
    if killed is None:  # the stage is cleared, as after a changed parameter: what arrived stays, the draw is repeated
        (place[0] / "contracts.jsonl").write_bytes(before["contracts.jsonl"])
    elif killed != "after":
        (place[0] / "contracts.jsonl").write_bytes(before["contracts.jsonl"])
        iteration.path(rows.ARRIVED).unlink()

        def stop(path, rows):
            rows = list(rows)
            if path.name == killed and any(row.get("split") == "slice" for row in rows):
                raise KeyboardInterrupt
            write(path, rows)

        monkeypatch.setattr(files, "write_jsonl", stop)
        with pytest.raises(KeyboardInterrupt):
            draw()
        monkeypatch.undo()
    assert draw() == whole


def test_splits_drawn_anew_drop_what_now_repeats_a_held_out_contract(place):
    train, test = (rows.split_titles(rows.contract_records(place[0]), split)[0] for split in ("train", "test"))
    drop(place[1], "a.json", entry("like", words(train) + " Amended."), entry("other"))
    assert titles(take(place, 1)) == ["like", "other"]
    records = files.read_jsonl(place[0] / "contracts.jsonl")
    other = {train: "test", test: "train"}
    files.write_jsonl(place[0] / "contracts.jsonl", [r | {"split": other.get(r["title"], r["split"])} for r in records])
    assert titles(take(place, 1)) == ["other"] == titles(rows.arrived_contracts(place[0]))
    assert reasons(place, 1) == {"like": arrivals.LIKE_HELD_OUT}


def test_only_contracts_unlike_all_others_can_be_held_out(place):
    rows.add_plain_contracts(place[0], [Contract("plain", words("p"))])
    train = rows.split_titles(rows.contract_records(place[0]), "train")[0]
    files.write_jsonl(runs.Iteration(place[0], 1).path("data", "synthetic.jsonl"), [{"contract": "asked"}])
    near = [
        entry("like train", words(train) + " Amended."),
        entry("like plain", words("p") + " Amended."),
        entry("asked"),
    ]
    drop(place[1], "a.json", *near, *(entry(f"n{i}") for i in range(4)))
    drop(place[1], "b.json", entry("n3 again", words("n3") + " Amended."))
    take(place, 2)
    records = rows.contract_records(place[0])
    group = {r["title"]: r["group"] for r in records}
    assert group["like train"] == group[train] and group["like plain"] == group["asked"] == -1
    assert group["n3"] == group["n3 again"] > 7 and len({group[f"n{i}"] for i in range(4)}) == 4
    parts = [[r["title"] for r in records[:8]], [r["title"] for r in records if r.get("arrived")]]
    marked = stream.hold_out_of_slices(records, parts, iteration=2, contracts=4, seed=7)
    held = {r["title"] for r in marked if r.get("slice") == 2}
    assert held and held <= {"n0", "n1", "n2", "n3", "n3 again"} and ("n3" in held) == ("n3 again" in held)


def test_a_plain_contract_gives_way_to_its_annotated_form(place):
    rows.add_plain_contracts(place[0], [Contract("mine", words("m"))])
    drop(place[1], "a.json", entry("mine", words("m") + " Cleaned."))
    assert titles(take(place, 1)) == ["mine"]
    (mine,) = (r for r in rows.contract_records(place[0]) if r["title"] == "mine")
    assert mine["text"].endswith("Cleaned.") and mine["split"] == "train"
    before = (place[0] / "contracts.jsonl").read_bytes()
    rows.add_plain_contracts(place[0], [Contract("mine", words("m"))])  # it may stay in contracts_folder
    assert (place[0] / "contracts.jsonl").read_bytes() == before
    assert [r["split"] for r in rows.contract_records(place[0]) if r["title"] == "mine"] == ["train"]
    assert len(rows.add_plain_contracts(place[0], [])) == 8


def test_a_run_that_took_arrivals_refuses_another_stream(place):
    drop(place[1], "a.json", entry("one"))
    take(place, 1)
    settings = {"size": 0, "hold_out": 0, "replay": 0.0, "seed": 7}
    records = rows.contract_records(place[0], 0)
    with pytest.raises(InputError, match="1 contracts arrived.*keep stream arrivals"):
        stream.next_slice(runs.Iteration(place[0], 2), [], records, stream="random", **settings)
    drop(place[1], "b.json", entry("two"))
    part = stream.next_slice(
        runs.Iteration(place[0], 2), [], records, stream="arrivals", arrivals_folder=place[1], **settings
    )
    assert part.new == ["two"]


def test_feedback_is_taken_on_arrivals_but_not_on_those_held_out(place):
    drop(place[1], "a.json", entry("one"), entry("two"))
    found = take(place, 1)
    hold(place, 1, "two")
    data = runs.Iteration(place[0], 1).path("data")
    for name, contract_ in zip(("train", "slices"), found, strict=True):
        files.write_jsonl(data / f"{name}.jsonl", [*contract_.rows, contract_.rows[0] | {"id": f"{name} 1"}])
    rows = TrainingQuestions(place[0])
    assert rows.find({"id": "one__Governing Law"}) == found[0].rows[0]
    quoted = words("two")
    for vote in (
        {"id": "two__Governing Law"},
        {"contract": "TWO", "question": QUESTION},
        {"id": "one__Governing Law", "answer_a": quoted},
        {"id": "two__other"},
        {"id": "slices 1"},
    ):
        with pytest.raises(RowRefused) as error:
            rows.find(vote)
        assert error.value.held_out


@pytest.mark.parametrize("split", ["slice", "slices"])
def test_predictions_on_a_slice_make_no_task(split):
    row = {"id": "a", "contract": "one", "split": split, "answer": "x"}
    with pytest.raises(InputError, match="of training questions only"):
        tasks.choose_tasks([row], scores={}, texts={"one": "x"}, size=1, seed=7)


# --- kills


def test_a_killed_write_leaves_nothing_or_everything(place, monkeypatch):
    drop(place[1], "a.json", entry("one"))

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        take(place, 1)
    monkeypatch.undo()
    assert not runs.Iteration(place[0], 1).path(rows.ARRIVED).exists() and titles(take(place, 1)) == ["one"]


# --- any sequence of drops


@settings(max_examples=12, deadline=None)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True), min_size=1, max_size=4))
def test_every_contract_dropped_is_taken_once_and_in_the_first_iteration_that_saw_it(tmp_path_factory, drops):
    place = (tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("in"))
    freeze(place[0], [contract(f"c{i}") for i in range(6)], dev=1, test=1)
    seen, number = {}, 1
    for turn, names in enumerate(drops):
        drop(place[1], f"{turn}.json", *(entry(f"t{n}") for n in names))
        new = [n for n in names if n not in seen]
        if new or number == 1:
            assert titles(take(place, number)) == [f"t{n}" for n in new]
            seen |= dict.fromkeys(new, number)
            number += 1
        else:
            with pytest.raises(InputError, match="Nothing new"):
                take(place, number)
    assert Counter(r["title"] for r in rows.taken_lines(place[0])) == Counter(f"t{n}" for n in seen)
    assert {r["title"]: r["arrived"] for r in rows.taken_lines(place[0])} == {f"t{n}": i for n, i in seen.items()}
