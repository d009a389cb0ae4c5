"""An SQLite file whose rows are only ever added, by several processes at once; what `feedback` stores verdicts in."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cuadft.errors import InputError

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
            raise InputError(f"{log} holds rows of a feedback store that is gone: put {self.path.name} back beside it, or, to "
                             "begin a new one, move the log away.")

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
            raise InputError(f"{self.path} has rows in {log.name} that can't be read in a read-only folder: copy both "
                             "files to a folder that you may write.")  # fmt: skip
        return "mode=ro&immutable=1"

    def _check(self, db: sqlite3.Connection) -> None:
        kind, version = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version"))
        if kind != self.application:
            raise InputError(f"{self.path} is no feedback store: name another file, or move this one away.")
        if version != self.version:
            raise InputError(f"{self.path} has version {version} of the feedback store; this cuadft reads version "
                             f"{self.version}: install the cuadft that wrote it.")  # fmt: skip

    def _error(self, what: str, error: Exception) -> InputError:
        return InputError(f"Can't {what} the feedback store {self.path} ({error}): check that it is a store, that its folder "
                          "can be written and that the disk has room, then repeat the step. What was stored is kept.")


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
