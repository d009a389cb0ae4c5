"""Properties of the store: no acknowledged judgement is lost, no row changes, a bad file is refused in one message."""

import multiprocessing
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.core.text import without_surrogates
from cuadft.feedback import store as store_
from cuadft.feedback.records import FIELDS, checked_judgement, pair_key
from cuadft.feedback.store import Store, _insert

GOOD = {
    "annotator": "anna",
    "contract": "C",
    "question": "Which law?",
    "answer_a": "Ohio",
    "answer_b": "Texas",
    "system_a": "sft",
    "system_b": "rag",
    "shown_first": "b",
    "verdict": "a",
}
ADDING = """
import sys
from cuadft.feedback import Store
store = Store(sys.argv[1])
number = 0
while True:
    rows = [{good!r} | {{"id": f"q{{number}}-{{n}}", "comment": "x" * 20000}} for n in range(3)]
    print(*store.add_many(rows), flush=True)
    number += 1
"""
text = st.text(st.characters() | st.sampled_from("\0\ud83d\t"), max_size=30)  # with what no file can hold


def record(number: int = 0, **fields) -> dict:
    return GOOD | {"id": f"q{number}"} | fields


def write(path: Path, annotator: str, n: int) -> None:
    """Add n verdicts in a process of its own."""
    store = Store(path)
    for number in range(n):
        store.add(record(number, annotator=annotator))


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "run" / "feedback.sqlite")


def test_a_verdict_comes_back_as_it_was_given(store):
    given_row = record(
        edited="Ohio law",
        span=(3, 9),
        comment="naïve 🙂",
        seconds=4.5,
        source="import:a.csv",
        prompt=[{"role": "user", "content": "Which?"}],
    )
    uid = store.add(given_row)
    (row,) = Store(store.path).judgements()
    assert row == given_row | {"span": [3, 9], "uid": uid, "time": row["time"], "revokes": None}


@settings(max_examples=15, deadline=None)
@given(answer=text, edited=text, comment=text, name=text)
def test_any_text_can_be_stored(answer, edited, comment, name):
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder) / "a?b#c %41.sqlite")
        made = record(answer_a="x" + answer, edited=edited, comment=comment, annotator="n" + name)
        store.add(made)
        (row,) = store.judgements()
        assert pair_key(row) == pair_key(made) and row["annotator"] == " ".join(without_surrogates("n" + name).split())
        assert row["comment"] == without_surrogates(comment)


def test_nothing_is_made_before_the_first_verdict(store):
    assert store.judgements() == []
    assert not store.path.parent.exists()


def test_rows_can_only_be_added(store):
    uid, columns = store.add(record()), ", ".join(FIELDS)  # without the row's number
    db = sqlite3.connect(store.path, isolation_level=None)
    for statement in (
        "UPDATE judgement SET verdict = 'b'",
        "DELETE FROM judgement",
        "INSERT OR REPLACE INTO judgement SELECT * FROM judgement",
        f"INSERT OR REPLACE INTO judgement ({columns}) SELECT {columns} FROM judgement",
    ):
        with pytest.raises(sqlite3.IntegrityError):
            db.execute(statement)
    db.close()
    assert [(row["uid"], row["verdict"]) for row in store.judgements()] == [(uid, "a")]


def test_many_are_stored_together_or_not_at_all(store):
    kept = store.add(record(0))
    for bad in (record(2, verdict="c"), record(2, uid=kept), record(2, revokes="0" * 32)):
        with pytest.raises(InputError, match="Nothing was stored"):
            store.add_many([record(1), bad])
    assert [row["uid"] for row in store.judgements(current=False)] == [kept]
    assert store.add_many([]) == []


def test_an_undo_takes_back_one_verdict_and_keeps_the_row(store):
    uid = store.add(record())
    store.undo(uid, "anna")
    assert store.judgements() == []
    assert [row["revokes"] for row in store.judgements(current=False)] == [None, uid]
    again = store.add(record(verdict="tie"))
    assert [row["uid"] for row in store.judgements()] == [again]


def test_only_ones_own_standing_verdict_can_be_undone(store):
    uid = store.add(record())
    with pytest.raises(InputError, match="ben can't undo"):
        store.undo(uid, "ben")
    with pytest.raises(InputError, match="no judgement 'f"):
        store.undo("f" * 32, "anna")
    undo = store.undo(uid, "anna")
    with pytest.raises(InputError, match="anna can't undo"):
        store.undo(uid, "anna")
    with pytest.raises(InputError, match="anna can't undo"):
        store.undo(undo, "anna")


def test_processes_that_start_at_once_lose_no_row(tmp_path):
    path, n, spawn = tmp_path / "feedback.sqlite", 10, multiprocessing.get_context("spawn")
    writers = [spawn.Process(target=write, args=(path, f"annotator {w}", n)) for w in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * 4
    rows = Store(path).judgements(current=False)
    assert sorted((r["annotator"], r["id"]) for r in rows) == sorted(
        (f"annotator {w}", f"q{k}") for w in range(4) for k in range(n)
    )
    assert [p.name for p in tmp_path.iterdir()] == ["feedback.sqlite"]  # no part of a file is left


def test_threads_share_one_store(store):
    threads = [threading.Thread(target=store.add, args=(record(n),)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.judgements()) == 12


def test_a_kill_while_writing_keeps_every_acknowledged_row(tmp_path):
    path, acknowledged = tmp_path / "feedback.sqlite", []
    for turn in range(3):
        command = [sys.executable, "-c", ADDING.format(good=GOOD), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            acknowledged += writer.stdout.readline().split()
            time.sleep(random.Random(turn).uniform(0.0, 0.15))
            os.kill(writer.pid, signal.SIGKILL)
            lines = writer.stdout.read().split("\n")
            acknowledged += [uid for line in lines[:-1] for uid in line.split()]
        rows = Store(path).judgements(current=False)
        assert set(acknowledged) <= {row["uid"] for row in rows}
        assert len(rows) % 3 == 0  # a transaction of three is there whole or not at all
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
    Store(path).add(record())


def test_an_uncommitted_batch_does_not_appear(store):
    store.add(record(0))
    with pytest.raises(KeyboardInterrupt), store._writing() as db:
        _insert(db, checked_judgement(record(1)))
        assert len(store.judgements()) == 1  # readers do not wait, and see what was committed
        raise KeyboardInterrupt
    assert len(store.judgements()) == 1


@pytest.mark.parametrize("content", [b"answer,verdict\nOhio,a\n" * 50, b"SQLite format 3\0" + b"\xff" * 5000, b"x"])
def test_a_file_that_is_no_store_is_refused_and_kept(tmp_path, content):
    path = tmp_path / "feedback.sqlite"
    path.write_bytes(content)
    with pytest.raises(InputError, match="feedback.sqlite"):
        Store(path)
    assert path.read_bytes() == content


def test_another_programs_database_is_refused_and_kept(tmp_path):
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE judgement (uid TEXT)")
    with pytest.raises(InputError, match="no feedback store"):
        Store(path)


def test_a_store_of_a_newer_version_is_refused(store):
    store.add(record())
    with sqlite3.connect(store.path) as db:
        db.execute("PRAGMA user_version = 2")
    for use in (lambda: Store(store.path), store.judgements, lambda: store.add(record(1))):
        with pytest.raises(InputError, match="version 2"):
            use()


def test_an_empty_file_becomes_a_store(store):
    store.path.parent.mkdir()
    store.path.touch()
    Store(store.path).add(record())
    assert len(store.judgements()) == 1


def test_the_log_of_a_deleted_store_does_not_get_into_a_new_one(store):
    store.add(record(0))
    reader = sqlite3.connect(store.path)  # a connection that a killed process left open: the log stays
    reader.execute("SELECT * FROM judgement").fetchall()
    store.add(record(1))
    store.path.unlink()
    with pytest.raises(InputError, match="-wal holds rows of a feedback store that is gone"):
        store.add(record(2))
    assert not store.path.exists()
    reader.close()
    store.path.with_name(f"{store.path.name}-wal").unlink(missing_ok=True)
    store.add(record(2))
    assert [row["id"] for row in store.judgements()] == ["q2"]


def test_a_damaged_store_says_so(store):
    store.add_many([record(n, comment="x" * 500) for n in range(200)])
    content = bytearray(store.path.read_bytes())
    content[4096 * 2 : 4096 * 12] = b"\x7f" * (4096 * 10)
    store.path.write_bytes(content)
    with pytest.raises(InputError, match="Can't read the feedback store"):
        Store(store.path).judgements()


def test_a_full_disk_stores_nothing_of_the_batch_and_keeps_the_rest(store, monkeypatch):
    store.add(record(0))
    connect = Store._connect

    def small(self, path, mode):
        db = connect(self, path, mode)
        db.execute("PRAGMA max_page_count = 12")  # SQLite then answers as on a full disk
        return db

    with monkeypatch.context() as patch:
        patch.setattr(Store, "_connect", small)
        with pytest.raises(InputError, match="Can't write the feedback store .*full"):
            store.add_many([record(n, comment="x" * 3000) for n in range(1, 40)])
    assert [row["id"] for row in store.judgements()] == ["q0"]
    store.add(record(1))


def test_a_writer_that_can_not_get_the_lock_says_so(store, monkeypatch):
    store.add(record(0))
    monkeypatch.setattr(store_, "LOCK_TIMEOUT", 0.1)
    with sqlite3.connect(store.path, isolation_level=None) as db:
        db.execute("BEGIN IMMEDIATE")
        with pytest.raises(InputError, match="locked"):
            store.add(record(1))
        assert len(store.judgements()) == 1


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "run").touch()
    store = Store(tmp_path / "run" / "feedback.sqlite")
    with pytest.raises(InputError, match="Can't write the feedback store"):
        store.add(record())


def test_a_read_only_folder_is_named():
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Store(folder / "old.sqlite").add(record())
        for path, mode in ((folder / "old.sqlite", 0o444), (folder, 0o555)):
            path.chmod(mode)
        process = multiprocessing.get_context("fork").Process(target=_as_nobody, args=(folder,))
        process.start()
        process.join()
        folder.chmod(0o755)
        assert process.exitcode == 0
        assert sorted(p.name for p in folder.iterdir()) == ["old.sqlite"]


def _as_nobody(folder: Path) -> None:
    if os.getuid() == 0:  # rights do not bind root
        os.setuid(65534)
    with pytest.raises(InputError, match="Can't read the feedback store .* its folder can be written"):
        Store(folder / "old.sqlite")
    with pytest.raises(InputError, match="Can't write the feedback store"):
        Store(folder / "new.sqlite").add(record(1))
