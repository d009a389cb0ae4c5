"""Keep an LM judge's verdicts on disk (JSON lines): none is paid for twice, and a kill loses only the open calls."""

from __future__ import annotations

import re
import threading
from pathlib import Path
from typing import Any

from cuadft import files
from cuadft.errors import SECRET, InputError

CONNECTION = re.compile(f"{SECRET.pattern}|header|timeout")  # settings that decide no verdict
KEPT = ("judge", "model", "variant", "verdict", "reason")


class Verdicts:
    """An append-only store of readable verdicts; several threads, and several processes, may add to it.

    A line: {"key", "judge", "model", "variant", "verdict", "reason"}. The key is a hash, see `key_of`; no prompt and
    no setting of the connection is stored. Of two lines with one key the later counts.
    """

    def __init__(self, path: str | Path) -> None:
        """Read what an earlier run left; raises InputError if the file can't be read or written."""
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.open("ab").close()  # before the first call is paid for, not after it
        except OSError as error:
            raise InputError(f"Can't write verdicts to {path} ({error.strerror}): choose another file.") from error
        self._found = {}
        for number, row in enumerate(files.read_jsonl(self.path, torn_ok=True), 1):
            if not row.keys() >= {"key", *KEPT}:
                raise InputError(f"{path}, line {number}: expected a verdict with its 'key', got {str(row)[:60]}: "
                                 "name a file that only a judge writes.")  # fmt: skip
            self._found[row["key"]] = row

    def __len__(self) -> int:
        """Return the number of stored verdicts."""
        return len(self._found)

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the stored line of a key, None if there is none."""
        return self._found.get(key)

    def add(self, key: str, **line: Any) -> None:
        """Write one verdict, on disk when this returns; `line` holds the fields of `KEPT`."""
        row = {"key": key} | {name: line[name] for name in KEPT}
        with self._lock:
            files.append_jsonl(self.path, [row])
            self._found[key] = row


def key_of(judge: str, lm: Any, messages: list[dict[str, Any]], config: dict[str, Any]) -> str:
    """Return the SHA-256 of all that decides a verdict: judge, model, its settings and the whole prompt.

    lm: a dspy.LM; its keys, headers and timeouts don't count. config: the settings of this call, which replace the
    LM's own.
    """
    settings = {name: value if isinstance(value, (str, int, float, list, dict)) else repr(value)
                for name, value in (lm.kwargs | config).items()
                if name != "cache" and not CONNECTION.search(name)}  # fmt: skip
    return files.value_hash([judge, lm.model, getattr(lm, "model_type", ""), settings, messages])
