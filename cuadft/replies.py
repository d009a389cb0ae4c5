"""Replies of an endpoint, kept line by line, so that a stage that is run again asks only for what it lacks."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cuadft import files


class Replies:
    """A JSON-lines file of replies by the hash of what was asked; many threads may use it.

    Meant for calls whose repetition should give the same answer (temperature 0).
    """

    def __init__(self, path: Path) -> None:
        self.path, self._known, self._lock = Path(path), None, threading.Lock()

    def find(self, asked: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the reply to this very request, as LiteLLM gave it, or None."""
        with self._lock:
            if self._known is None:
                lines = files.read_jsonl(self.path, torn_ok=True) if self.path.is_file() else []
                self._known = {line["key"]: line["reply"] for line in lines}
            return self._known.get(files.value_hash(asked))

    def keep(self, asked: Mapping[str, Any], reply: Mapping[str, Any]) -> None:
        """Append a reply."""
        key = files.value_hash(asked)
        with self._lock:
            files.append_jsonl(self.path, [{"key": key, "reply": dict(reply)}])
            if self._known is not None:
                self._known[key] = dict(reply)
