"""Errors: `InputError` says that the input is at fault, not the program; `brief` is what a row keeps of any other."""

import os
import re
from collections.abc import Mapping

SECRET = re.compile(r"key|secret|token(?!s)|password|credential", re.IGNORECASE)  # names of variables and settings
LONGEST = 500  # characters kept of an error, which may quote a whole reply
SHORTEST_SECRET = 8  # characters; shorter values are words


class InputError(ValueError):
    """Report bad input: the value received, what is allowed, and what to do next (exit code 2, no traceback)."""


def brief(error: BaseException, settings: Mapping[str, object] | None = None) -> str:
    """Return an error's kind and message, cut to `LONGEST`, without keys of the environment or of an LM's settings.

    Some servers repeat the key that they refuse; without this it would stand in every file that holds the error.
    """
    text = f"{type(error).__name__}: {error}"
    for name, value in [*os.environ.items(), *(settings or {}).items()]:
        if isinstance(value, str) and len(value) >= SHORTEST_SECRET and SECRET.search(name):
            text = text.replace(value, "***")
    return text[:LONGEST]
