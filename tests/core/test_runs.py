import json
import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.loop import lineage


def test_root_is_the_nearest_project_upwards(tmp_path, monkeypatch):
    for name in ("notebooks", "params"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    assert runs.project_root() == tmp_path
    assert runs.resolve_path("runs/a") == tmp_path / "runs/a"
    (tmp_path / "notebooks" / "here.txt").touch()
    assert runs.resolve_path("here.txt") == tmp_path / "notebooks" / "here.txt"
    # what is written as seen from here is from here, whether it exists or not
    assert runs.resolve_path("../runs/x") == runs.resolve_path("y/../../runs/x") == tmp_path / "runs/x"
    assert runs.resolve_path("./x") == tmp_path / "notebooks" / "x" and runs.resolve_path("..") == tmp_path


def test_iteration_folders_are_numbered_and_linked(tmp_path):
    first = lineage.open_iteration(tmp_path / "run", 1)
    second = lineage.open_iteration(tmp_path / "run", 2)
    assert first.dir.name == "iter-01" and first.previous is None
    assert second.previous == first
    assert first.path("data", "train.jsonl") == tmp_path / "run/iter-01/data/train.jsonl"
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert record["name"] == "run" and list(record["environments"].values())[0]["packages"]["papermill"]
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("number", [0, -1, True, "1", 1.0])
def test_invalid_iteration_numbers_are_refused(tmp_path, number):
    with pytest.raises(InputError, match="whole number from 1"):
        lineage.open_iteration(tmp_path, number)


def test_an_iteration_needs_the_one_before(tmp_path):
    with pytest.raises(InputError, match="run iteration 1 first"):
        lineage.open_iteration(tmp_path / "run", 2)


def test_a_file_in_the_way_of_the_run_folder_is_bad_input(tmp_path):
    (tmp_path / "run").write_text("not a folder")
    with pytest.raises(InputError, match="Can't write to run folder"):
        lineage.open_iteration(tmp_path / "run", 1)


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs a folder that nobody can write to")
def test_a_folder_that_cannot_be_written_is_bad_input():
    with pytest.raises(InputError, match="choose another run folder"):
        lineage.open_iteration("/proc/run", 1)


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        files.write_json(path, {"new": 2})
    assert files.read_json(path) == {"old": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


ROWS = st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=20) | st.integers() | st.booleans()), max_size=5)


@settings(max_examples=50, deadline=None)
@given(rows=ROWS)
def test_rows_of_any_text_survive_the_file(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    files.write_jsonl(path, rows)
    assert files.read_jsonl(path) == rows
    files.append_jsonl(path, rows)
    assert files.read_jsonl(path) == rows + rows


def test_line_separators_and_lone_surrogates_survive(tmp_path):
    rows = [{"a": "x\u2028y\x85z"}, {"a": "\ud800"}]
    files.write_jsonl(tmp_path / "r.jsonl", rows)
    assert files.read_jsonl(tmp_path / "r.jsonl") == rows


def test_json_stays_standard_json(tmp_path):
    numpy = pytest.importorskip("numpy")
    files.write_json(tmp_path / "a.json", {"nan": float("nan"), "f": numpy.float32(0.5), "p": tmp_path, 1: (1, 2)})
    assert files.read_json(tmp_path / "a.json") == {"nan": None, "f": 0.5, "p": str(tmp_path), "1": [1, 2]}


@settings(max_examples=40, deadline=None)
@given(cut=st.integers(1, 60))
def test_a_torn_last_line_is_dropped_then_overwritten(tmp_path_factory, cut):
    path = tmp_path_factory.mktemp("torn") / "p.jsonl"
    files.write_jsonl(path, [{"id": 1}, {"id": 2, "text": "é" * 20}])
    # keep line 1 (10 bytes with its newline) and a part of line 2, possibly half a character
    content = path.read_bytes()
    path.write_bytes(content[: min(10 + cut, len(content) - 2)])
    assert files.read_jsonl(path, torn_ok=True) == [{"id": 1}]
    with pytest.raises(InputError):
        files.read_jsonl(path)
    files.append_jsonl(path, [{"id": 3}])
    assert files.read_jsonl(path) == [{"id": 1}, {"id": 3}]


def test_a_whole_last_line_without_newline_is_kept(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"id": 1}\n{"id": 2}')
    files.append_jsonl(path, [{"id": 3}])
    assert [row["id"] for row in files.read_jsonl(path)] == [1, 2, 3]


@pytest.mark.parametrize("content, message", [("{}\n{bad\n", "line 2"), ("[1]\n", "expected a JSON object")])
def test_a_bad_line_is_named(tmp_path, content, message):
    (tmp_path / "r.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        files.read_jsonl(tmp_path / "r.jsonl")


def test_missing_and_binary_files_are_bad_input(tmp_path):
    with pytest.raises(InputError, match="No file"):
        files.read_json(tmp_path / "none.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="UTF-8"):
        files.read_json(tmp_path / "b.json")


def test_a_folder_hash_follows_names_and_content(tmp_path):
    files.write_text(tmp_path / "f" / "a", "1")
    before = files.file_hash(tmp_path / "f")
    files.write_text(tmp_path / "f" / ".a.0.tmp", "left by a kill")
    assert files.file_hash(tmp_path / "f") == before
    (tmp_path / "f" / "a").rename(tmp_path / "f" / "b")
    renamed = files.file_hash(tmp_path / "f")
    files.write_text(tmp_path / "f" / "b", "2")
    assert len({before, renamed, files.file_hash(tmp_path / "f")}) == 3
