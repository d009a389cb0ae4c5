"""The store of human feedback: one SQLite file that many notebooks and processes add verdicts to at once.

    store = Store(run / "feedback.sqlite")
    uid = store.add({"annotator": "anna", "id": ..., "verdict": "a", ...})   # on disk when this returns
    rows = store.judgements()

Rows are only ever added; triggers refuse any change. What a row holds: see `cuadft.judgements`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuadft.errors import InputError
from cuadft.judgements import FIELDS, OPINIONS, VERDICTS, checked, current, one_line, pair_key, swapped
from cuadft.ledger import Ledger

__all__ = ["OPINIONS", "VERDICTS", "VERSION", "Store", "current", "pair_key", "swapped"]

VERSION = 1  # of the schema
_APPLICATION = 0x43554644  # "CUFD": tells a store from other SQLite files
_JSON = ("span", "prompt")
_SCHEMA = """
CREATE TABLE judgement (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    uid TEXT NOT NULL UNIQUE, time TEXT NOT NULL, annotator TEXT NOT NULL,
    id TEXT NOT NULL, contract TEXT NOT NULL, question TEXT NOT NULL,
    answer_a TEXT NOT NULL, answer_b TEXT NOT NULL, system_a TEXT NOT NULL, system_b TEXT NOT NULL,
    shown_first TEXT CHECK (shown_first IN ('a', 'b')),
    verdict TEXT NOT NULL CHECK (verdict IN ('a', 'b', 'tie', 'both_wrong', 'skip')),
    edited TEXT, span TEXT, comment TEXT NOT NULL, seconds REAL, prompt TEXT, source TEXT NOT NULL,
    revokes TEXT UNIQUE REFERENCES judgement (uid)
);
CREATE TRIGGER no_update BEFORE UPDATE ON judgement BEGIN SELECT RAISE(ABORT, 'rows are only added'); END;
CREATE TRIGGER no_delete BEFORE DELETE ON judgement BEGIN SELECT RAISE(ABORT, 'rows are only added'); END;
CREATE TRIGGER no_replace BEFORE INSERT ON judgement
    WHEN EXISTS (SELECT 1 FROM judgement
                 WHERE uid = NEW.uid OR number = NEW.number OR (revokes NOT NULL AND revokes = NEW.revokes))
    BEGIN SELECT RAISE(ABORT, 'such a row is there already'); END;
"""


class Store:
    """Add judgements to one file and read them; safe to use from several threads and processes at once."""

    def __init__(self, path: str | Path) -> None:
        """Name the file, which the first verdict makes; raises InputError if it is there but no store of this version."""
        self.path = Path(path)
        self._file = Ledger(self.path, _APPLICATION, VERSION, _SCHEMA)
        if self._file.made():
            with self._file.reading():
                pass

    def add(self, judgement: Mapping[str, Any]) -> str:
        """Store one judgement and return its uid; it is on disk by then. Raises InputError as `add_many`."""
        return self.add_many([judgement])[0]

    def add_many(self, judgements: Iterable[Mapping[str, Any]]) -> list[str]:
        """Store all judgements or, on any error, none, and return their uids.

        Raises InputError on an invalid one (see `judgements.checked`), a uid that is there already, an undo of what is
        not there, of another annotator or done before, and if the file can't be written (folder, rights, full disk).
        """
        rows = []
        for number, judgement in enumerate(judgements, 1):
            try:
                rows.append(checked(judgement))
            except InputError as error:
                raise InputError(f"Judgement {number}: {error} Nothing was stored.") from None
        if rows:
            with self._file.writing() as db:
                for row in rows:
                    _insert(db, row)
        return [row["uid"] for row in rows]

    def undo(self, uid: str, annotator: str) -> str:
        """Take back an annotator's own judgement by a row that revokes it; returns that row's uid.

        What the annotator had said on the pair before, if anything, holds again. Raises InputError as `add_many`.
        """
        found = [row for row in self.judgements(current=False) if row["uid"] == uid]
        if not found:
            raise InputError(f"There is no judgement {uid!r} to undo in {self.path}: give the uid that add returned.")
        return self.add(found[0] | {"uid": None, "time": None, "annotator": annotator, "revokes": uid})

    def judgements(self, *, current: bool = True) -> list[dict[str, Any]]:
        """Return what holds now (see `judgements.current`), or every row ever stored, oldest first; [] without a file."""
        if not self._file.made():
            return []
        with self._file.reading() as db:
            rows = db.execute(f"SELECT {', '.join(FIELDS)} FROM judgement ORDER BY number").fetchall()
        found = [dict(zip(FIELDS, row, strict=True)) for row in rows]
        for row in found:
            row |= {key: None if row[key] is None else json.loads(row[key]) for key in _JSON}
        return _current(found) if current else found

    def done(self, annotator: str) -> set[str]:
        """Return the keys of the pairs that an annotator has judged or skipped."""
        name = one_line(annotator)
        return {pair_key(row) for row in self.judgements() if row["annotator"] == name}

    def progress(self, tasks: Sequence[Mapping[str, Any]], annotator: str) -> dict[str, int]:
        """Return how many of the tasks an annotator has done and has left: {"tasks", "done", "skipped", "left"}.

        Skipped ones are among those done.
        """
        name, wanted = one_line(annotator), {pair_key(task) for task in tasks}
        verdicts = {pair_key(row): row["verdict"] for row in self.judgements() if row["annotator"] == name}
        said = [verdicts[key] for key in wanted if key in verdicts]
        return {"tasks": len(wanted), "done": len(said), "skipped": said.count("skip"), "left": len(wanted) - len(said)}


_current = current  # `judgements` has a parameter of that name


def _insert(db: sqlite3.Connection, row: Mapping[str, Any]) -> None:
    if db.execute("SELECT 1 FROM judgement WHERE uid = ?", [row["uid"]]).fetchone():
        raise InputError(f"Judgement {row['uid']} is in the store already: leave it out. Nothing was stored.")
    if row["revokes"]:
        _check_undo(db, row)
    values = [json.dumps(row[key]) if key in _JSON and row[key] is not None else row[key] for key in FIELDS]
    db.execute(f"INSERT INTO judgement ({', '.join(FIELDS)}) VALUES ({', '.join('?' * len(FIELDS))})", values)


def _check_undo(db: sqlite3.Connection, row: Mapping[str, Any]) -> None:
    found = db.execute("SELECT annotator, revokes FROM judgement WHERE uid = ?", [row["revokes"]]).fetchone()
    again = db.execute("SELECT 1 FROM judgement WHERE revokes = ?", [row["revokes"]]).fetchone()
    reason = ("is not in the store" if not found else f"is {found[0]}'s" if found[0] != row["annotator"]
              else "is an undo itself" if found[1] else "was undone before" if again else "")  # fmt: skip
    if reason:
        raise InputError(f"{row['annotator']} can't undo judgement {row['revokes']}: it {reason}. Nothing was stored.")
