"""Values of others' files: text, durations and times as they stand in a CSV cell or a JSON field."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any

from cuadft.judgements import AHEAD


class Refused(Exception):
    """Say why a row of a file can't be taken; `held_out` marks those of held-out contracts."""

    def __init__(self, reason: str, *, held_out: bool = False) -> None:
        super().__init__(reason)
        self.held_out = held_out


def column(name: str) -> str:
    """Return a column's name as it is looked up, whatever its case and punctuation: "Answer A" is "answer_a"."""
    return re.sub(r"[\W_]+", "_", name.casefold()).strip("_")


def text(value: Any, name: str = "value") -> str:
    """Return a value as text, "" for None; raises Refused for lists, mappings and truth values."""
    if isinstance(value, (list, dict, bool)):
        raise Refused(f"its {name} is no text: {str(value)[:40]}")
    return "" if value is None else str(value)


def seconds(value: Any) -> float | None:
    """Return a time spent, None for what is no number from 0."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return found if 0 <= found < math.inf else None


def moment(value: Any) -> str | None:
    """Return an ISO 8601 time (UTC where it names no zone), None for what is none or lies in the future."""
    try:
        found = datetime.fromisoformat(value)
        found = (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        return None
    return found.isoformat() if found <= datetime.now(UTC) + AHEAD else None
