"""The executed copy of a notebook: every state of it is written whole, and none holds a secret of the environment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cuadft.errors import redact
from cuadft.files import write_text


def watch(target: Path) -> None:
    """Let papermill write this file in one step each time, and without secrets (a traceback may repeat a key)."""
    from papermill.iorw import LocalHandler, papermill_io

    class Copy(LocalHandler):
        def write(self, buf: str, path: str) -> None:
            write_text(path, cleaned(buf))

    papermill_io.register(str(target), Copy())


def cleaned(notebook: str) -> str:
    """Return a notebook's JSON without secrets in any of its texts; unchanged to the byte if there are none."""
    content = json.loads(notebook)
    found = _cleaned(content)
    if found == content:
        return notebook
    return json.dumps(found, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        whole = all(isinstance(line, str) and (line.endswith("\n") or line is value[-1]) for line in value)
        if value and whole:  # lines of one text: a secret may hold a line's end
            joined = "".join(value)
            return value if redact(joined) == joined else redact(joined).splitlines(keepends=True)
        return [_cleaned(item) for item in value]
    return {key: _cleaned(item) for key, item in value.items()} if isinstance(value, dict) else value
