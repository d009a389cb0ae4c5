"""The store of human feedback: one SQLite file that many notebooks and processes add verdicts to at once.

    store = Store(run / "feedback.sqlite")
    uid = store.add({"annotator": "anna", "id": ..., "verdict": "a", ...})   # on disk when this returns
    rows = store.judgements()

Rows are only ever added; triggers refuse any change. What a row holds: see `records`.

An SQLite file whose rows are only ever added, by several processes at once; what `feedback` stores verdicts in.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuadft.core.errors import InputError
from cuadft.feedback.records import FIELDS, checked_judgement, current_judgements, one_line, pair_key

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
                rows.append(checked_judgement(judgement))
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


_current = current_judgements  # `judgements` has a parameter of that name


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
    reason = (
        "is not in the store"
        if not found
        else f"is {found[0]}'s"
        if found[0] != row["annotator"]
        else "is an undo itself"
        if found[1]
        else "was undone before"
        if again
        else ""
    )
    if reason:
        raise InputError(f"{row['annotator']} can't undo judgement {row['revokes']}: it {reason}. Nothing was stored.")


PATIENCE = 60.0  # seconds that a writer waits for the others


@dataclass(frozen=True)
class Ledger:
    """Open one file of a kind: `application` (32 bits) and `version` are kept in it, `schema` is the SQL that makes it.

    The file must lie on a local disk: the write-ahead log needs memory that all processes share, which network file
    systems do not give. A connection lasts for one step, so that threads and forked processes never share one.
    """

    path: Path
    application: int
    version: int
    schema: str

    def made(self) -> bool:
        """Tell whether the file is there; raises InputError if that can't be seen."""
        try:
            return self.path.stat().st_size > 0
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise self._error("read", error) from error

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection to read from; raises InputError on another kind or version of file, and on a broken one."""
        try:
            with closing(self._connect(self.path, "mode=rw" if self._writable() else self._at_rest())) as db:
                self._check(db)
                yield db
        except (sqlite3.Error, OSError) as error:
            raise self._error("read", error) from error

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection inside one transaction, which an error undoes; makes the file first if it is not there.

        When the block is left the rows are on disk. Raises InputError as `reading`, and if the folder, the rights or a
        full disk forbid writing.
        """
        try:
            if not self.made():
                self._make()
            with closing(self._connect(self.path, "mode=rw")) as db:
                self._check(db)
                db.execute("PRAGMA synchronous = FULL")  # a commit waits until the log is on disk
                with _transaction(db):
                    yield db
        except (sqlite3.Error, OSError) as error:
            raise self._error("write", error) from error

    def _make(self) -> None:
        """Make the file in one step: others see none or a whole one. One process at a time holds the folder's lock."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        part = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex[:8]}.tmp")
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if not self.made():
                self._check_alone()
                self._fill(part)
                os.replace(part, self.path)
                os.fsync(folder)
        finally:
            os.close(folder)
            part.unlink(missing_ok=True)

    def _check_alone(self) -> None:
        """Raise InputError beside the log of a store that was deleted: SQLite would mix its rows into the new one."""
        log = self._log()
        if log.exists() and log.stat().st_size:
            raise InputError(
                f"{log} holds rows of a feedback store that is gone: put {self.path.name} back beside it, or, to "
                "begin a new one, move the log away."
            )

    def _log(self) -> Path:
        return self.path.with_name(f"{self.path.name}-wal")

    def _fill(self, part: Path) -> None:
        with closing(self._connect(part, "mode=rwc")) as db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(self.schema)
            db.execute(f"PRAGMA application_id = {self.application}")
            db.execute(f"PRAGMA user_version = {self.version}")

    def _connect(self, path: Path, mode: str) -> sqlite3.Connection:
        return sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=PATIENCE, isolation_level=None)

    def _writable(self) -> bool:
        return os.access(self.path, os.W_OK) and os.access(self.path.parent, os.W_OK)

    def _at_rest(self) -> str:
        """Return how to open a file in a folder that can't be written, where SQLite can keep no lock."""
        log = self._log()
        if log.exists() and log.stat().st_size:
            raise InputError(
                f"{self.path} has rows in {log.name} that can't be read in a read-only folder: copy both "
                "files to a folder that you may write."
            )
        return "mode=ro&immutable=1"

    def _check(self, db: sqlite3.Connection) -> None:
        kind, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if kind != self.application:
            raise InputError(f"{self.path} is no feedback store: name another file, or move this one away.")
        if version != self.version:
            raise InputError(
                f"{self.path} has version {version} of the feedback store; this cuadft reads version "
                f"{self.version}: install the cuadft that wrote it."
            )

    def _error(self, what: str, error: Exception) -> InputError:
        return InputError(
            f"Can't {what} the feedback store {self.path} ({error}): check that it is a store, that its folder "
            "can be written and that the disk has room, then repeat the step. What was stored is kept."
        )


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    """Commit what the block did, or none of it; takes the write lock first, so that what it reads stays true."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # a full disk has rolled it back already
            db.execute("ROLLBACK")
        raise
