"""The store of human feedback: one SQLite file to which many notebooks and processes add judgements at once.

    store = Store(run / "feedback.sqlite")
    uid = store.add({"annotator": "anna", "id": ..., "verdict": "a", ...})   # on disk when this returns
    rows = store.judgements()

`records` says what a judgement holds. Rows are only ever added: triggers in the file refuse every change, and an undo
is one more row. The file must lie on a local disk: SQLite's write-ahead log needs memory that all processes share, and
network file systems do not give that.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from cuadft.core.errors import InputError
from cuadft.feedback.records import FIELDS, checked_judgement, current_judgements

SCHEMA_VERSION = 1
LOCK_TIMEOUT = 60.0  # seconds for which a writer waits for the others
_APPLICATION_ID = 0x43554644  # "CUFD": tells a store from other SQLite files
_JSON_FIELDS = ("span", "prompt")
_SCHEMA = f"""
PRAGMA journal_mode = WAL; PRAGMA application_id = {_APPLICATION_ID}; PRAGMA user_version = {SCHEMA_VERSION};
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
# finds a judgement that its annotator can undo
_STANDING = """SELECT 1 FROM judgement AS own WHERE uid = ? AND annotator = ? AND revokes IS NULL
    AND NOT EXISTS (SELECT 1 FROM judgement WHERE revokes = own.uid)"""


class Store:
    """Add judgements to one file and read them; safe to use from several threads and processes at once.

    A connection lasts for one step, so that threads and forked processes never share one.
    """

    def __init__(self, path: str | Path) -> None:
        """Name the file, which the first judgement makes; raises InputError if it is no store of this version."""
        self.path = Path(path)
        if self._exists():
            with self._reading():
                pass

    def add(self, judgement: Mapping[str, Any]) -> str:
        """Store one judgement and return its uid; the judgement is on disk by then. Raises InputError as `add_many`."""
        return self.add_many([judgement])[0]

    def add_many(self, judgements: Iterable[Mapping[str, Any]]) -> list[str]:
        """Store all judgements and return their uids; on any error nothing is stored.

        Raises InputError on an invalid judgement (see `records.checked_judgement`), on a uid that is stored already, on
        an undo of a judgement that is not stored, is another annotator's or was undone before, and on a file that can't
        be written (folder, rights, full disk).
        """
        try:
            rows = [checked_judgement(judgement) for judgement in judgements]
        except InputError as error:
            raise InputError(f"{error} Nothing was stored.") from None
        if rows:
            with self._writing() as db:
                for row in rows:
                    _insert(db, row)
        return [row["uid"] for row in rows]

    def undo(self, uid: str, annotator: str) -> str:
        """Take back an annotator's own judgement by adding a row that revokes it; return that row's uid.

        An earlier judgement of the annotator on the same pair counts again. Raises InputError as `add_many`.
        """
        found = [row for row in self.judgements(current=False) if row["uid"] == uid]
        if not found:
            raise InputError(f"There is no judgement {uid!r} to undo in {self.path}: give the uid that add returned.")
        return self.add(found[0] | {"uid": None, "time": None, "annotator": annotator, "revokes": uid})

    def judgements(self, *, current: bool = True) -> list[dict[str, Any]]:
        """Return the judgements that count now (see `records.current_judgements`); [] if there is no file yet.

        With current=False return every row ever stored, oldest first, undone judgements and undos among them.
        """
        if not self._exists():
            return []
        with self._reading() as db:
            rows = db.execute(f"SELECT {', '.join(FIELDS)} FROM judgement ORDER BY number").fetchall()
        found = [dict(zip(FIELDS, row, strict=True)) for row in rows]
        for row in found:
            row |= {key: None if row[key] is None else json.loads(row[key]) for key in _JSON_FIELDS}
        return current_judgements(found) if current else found

    def _exists(self) -> bool:
        """Tell whether the file is there and not empty; raises InputError if the folder can't be read."""
        with self._explained("read"), suppress(FileNotFoundError, NotADirectoryError):
            return self.path.stat().st_size > 0
        return False

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection to read from; raises InputError on a broken file and on one of another kind or version."""
        with self._explained("read"), closing(self._connect(self.path, "rw")) as db:
            self._check(db)
            yield db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection to write with, in one transaction that an error undoes; make the file if there is none.

        The rows are on disk when the `with` block has ended. Raises InputError as `_reading` does, and if the folder,
        the rights or a full disk forbid writing.
        """
        with self._explained("write"):
            if not self._exists():
                self._make()
            with closing(self._connect(self.path, "rw")) as db:
                self._check(db)
                db.execute("PRAGMA synchronous = FULL")  # a commit waits until the log is on disk
                db.execute("BEGIN IMMEDIATE")  # what the block reads can't change before it writes
                yield db
                db.execute("COMMIT")  # after an error the connection is closed without it, which undoes all

    def _make(self) -> None:
        """Make the file under the folder's lock and in one step: no process ever sees half a file."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}.tmp")
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if self._exists():
                return
            log = self.path.with_name(f"{self.path.name}-wal")
            if log.exists() and log.stat().st_size:  # of a deleted store; SQLite would mix its rows into the new one
                raise InputError(
                    f"{log} holds rows of a feedback store that is gone: put that back, or move the log away."
                )
            with closing(self._connect(part, "rwc")) as db:
                db.executescript(_SCHEMA)
            os.replace(part, self.path)
            os.fsync(folder)
        finally:
            os.close(folder)
            part.unlink(missing_ok=True)

    def _connect(self, path: Path, mode: str) -> sqlite3.Connection:
        address = f"{path.absolute().as_uri()}?mode={mode}"
        return sqlite3.connect(address, uri=True, timeout=LOCK_TIMEOUT, isolation_level=None)

    def _check(self, db: sqlite3.Connection) -> None:
        kind, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if (kind, version) != (_APPLICATION_ID, SCHEMA_VERSION):
            raise InputError(
                f"{self.path} is no feedback store of version {SCHEMA_VERSION} (it has version {version}): "
                "name another file, or install the cuadft that wrote it."
            )

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Raise InputError that names the file in place of an error of SQLite or of the file system."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise InputError(
                f"Can't {what} the feedback store {self.path} ({error}): check that it is a store, that its folder "
                "can be written and that the disk has room, then repeat the step. What was stored is kept."
            ) from error


def _insert(db: sqlite3.Connection, row: Mapping[str, Any]) -> None:
    if db.execute("SELECT 1 FROM judgement WHERE uid = ?", [row["uid"]]).fetchone():
        raise InputError(f"Judgement {row['uid']} is in the store already: leave it out. Nothing was stored.")
    if row["revokes"] and not db.execute(_STANDING, [row["revokes"], row["annotator"]]).fetchone():
        raise InputError(
            f"{row['annotator']} can't undo judgement {row['revokes']}: give one of the annotator's own judgements "
            "that is stored and not undone. Nothing was stored."
        )
    values = [json.dumps(row[key]) if key in _JSON_FIELDS and row[key] is not None else row[key] for key in FIELDS]
    db.execute(f"INSERT INTO judgement ({', '.join(FIELDS)}) VALUES ({', '.join('?' * len(FIELDS))})", values)
