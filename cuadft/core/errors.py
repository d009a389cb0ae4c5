"""Errors: `InputError` says that the input is at fault, not the program; `brief` is what a row keeps of any other.

`redact` takes secrets out of a text: what environment variables with telling names hold, and what addresses carry.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from urllib.parse import quote, quote_plus, unquote

# names of variables, of settings and of the parts of an address that hold secrets
SECRET = re.compile(r"key|secret|token(?!s|izer)|pass(?:w|phrase|$)|credential|_pat$", re.IGNORECASE)
LONGEST = 500  # characters kept of an error, which may quote a whole reply
SHORTEST_SECRET = 8  # characters; shorter values are words
_LINE = 16  # characters from which one line of a secret of several lines (a private key) is a secret too
_USER = re.compile(r"(?<=://)([^\s/@:'\"<>\\]*)(?::([^\s/@'\"<>\\]*))?@")
_QUERY = re.compile(r"([?&]([\w.%-]+)=)([^\s&;#'\"<>\\]+)")
_HEADER = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_SIGNED = re.compile(r"sig$|signature|auth|^code$", re.IGNORECASE)  # further names in the query of an address


class InputError(ValueError):
    """Report bad input: the value received, what is allowed, and what to do next (exit code 2, no traceback)."""


def brief(error: BaseException, settings: Mapping[str, object] | None = None) -> str:
    """Return an error's kind and message, cut to `LONGEST`, without keys of the environment or of an LM's settings.

    Some servers repeat the key that they refuse; without this it would stand in every file that holds the error.
    """
    text = redact(f"{type(error).__name__}: {error}", settings)
    return _HEADER.sub(r"\1 ***", text)[:LONGEST]


def redact(text: str, settings: Mapping[str, object] | None = None) -> str:
    """Return a text with *** for every secret of the environment and of `settings`, and for those in addresses.

    Secrets are the values of variables whose names tell so (see `SECRET`), as they are and as they stand in JSON,
    in an address and in base64, and user names, passwords and keys of any address in the text or the environment.
    """
    for secret in sorted(_secrets(settings or {}), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _USER.sub("***@", text)
    return _QUERY.sub(lambda found: f"{found[1]}***" if _telling(found[2]) else found[0], text)


def _secrets(settings: Mapping[str, object]) -> frozenset[str]:
    """Return all spellings of all secrets that can be known."""
    return _spelt(tuple(os.environ.items())) | _spelt(tuple(_settings(settings)))


@lru_cache(maxsize=4)  # a notebook's thousand texts are searched for the same ones
def _spelt(named: tuple[tuple[str, str], ...]) -> frozenset[str]:
    found = set()
    for name, value in named:
        if SECRET.search(name):
            found |= {value, *(line.strip() for line in value.splitlines() if len(line.strip()) >= _LINE)}
        for user, password in _USER.findall(value):
            found |= {password, unquote(password), _base64(f"{unquote(user)}:{unquote(password)}")}
        found |= {part for _, key, part in _QUERY.findall(value) if _telling(key)}
    spelt = {way(value) for value in found if len(value) >= SHORTEST_SECRET for way in _SPELLINGS}
    return frozenset(value for value in spelt if len(value) >= SHORTEST_SECRET)


def _settings(values: Mapping[str, object], under: str = "") -> Iterator[tuple[str, str]]:
    """Yield names and texts of settings, those of nested ones (headers) under both names."""
    for name, value in values.items():
        if isinstance(value, str):
            yield f"{under} {name}", value
        elif isinstance(value, Mapping):
            yield from _settings(value, f"{under} {name}")


def _telling(name: str) -> bool:
    return bool(SECRET.search(name) or _SIGNED.search(name))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()


def _percent(text: str) -> str:
    return quote(text, safe="", errors="surrogateescape")


_SPELLINGS = (
    str,
    str.strip,
    _base64,
    _percent,
    lambda text: quote_plus(text, errors="surrogateescape"),
    lambda text: json.dumps(text)[1:-1],
    lambda text: repr(text)[1:-1],
)
