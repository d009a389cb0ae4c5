"""The error for bad input, and texts of errors that are safe to keep.

`InputError` says that the input is at fault, not the program: the command line prints its message alone and ends with
exit code 2. `brief` makes one short line of any error, for a row of results. `redact` takes secrets out of a text. For
example, with OPENAI_API_KEY=sk-secret-123 in the environment:

    redact("refused key sk-secret-123")   # "refused key ***"
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from urllib.parse import quote, quote_plus, unquote

# Names of variables, of settings and of the parts of an address that hold secrets.
SECRET = re.compile(r"key|secret|token(?!s|izer)|pass(?:w|phrase|$)|credential|_pat$", re.IGNORECASE)
LONGEST_ERROR = 500  # characters kept of an error, which may quote a whole reply
SHORTEST_SECRET = 8  # characters; a shorter value is taken for an ordinary word
_SHORTEST_SECRET_LINE = 16  # characters; from this length on, each line of a private key is a secret of its own
# Parts of an address or a header that carry secrets: user and password, a value of the query, an authorization.
_USER = re.compile(r"(?<=://)([^\s/@:'\"<>\\]*)(?::([^\s/@'\"<>\\]*))?@")
_QUERY = re.compile(r"([?&]([\w.%-]+)=)([^\s&;#'\"<>\\]+)")
_HEADER = re.compile(r"\b(Bearer|Basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_SIGNED = re.compile(r"sig$|signature|auth|^code$", re.IGNORECASE)  # more names that hold a secret in a query


class InputError(ValueError):
    """Report bad input: its message gives the value received, what is allowed and what to do next."""


class StageFailed(RuntimeError):
    """Report that a stage's notebook failed for another reason than bad input (exit code 1 of the command line)."""


def brief(error: BaseException, settings: Mapping[str, object] | None = None) -> str:
    """Return an error's kind and message, at most `LONGEST_ERROR` characters, without secrets (see `redact`).

    Some servers repeat the key that they refuse, so that an uncleaned message would put it into every file of results.
    """
    text = redact(f"{type(error).__name__}: {error}", settings)
    return _HEADER.sub(r"\1 ***", text)[:LONGEST_ERROR]


def redact(text: str, settings: Mapping[str, object] | None = None) -> str:
    """Return a text with *** in place of every secret.

    Secrets are the values of environment variables and of `settings` whose names match `SECRET`, in each spelling that
    a text may hold (plain, JSON, percent-encoded, base64). Secrets are also the user names, passwords and keys of every
    address in the text, in the environment or in `settings`.
    """
    for secret in sorted(_secrets(settings or {}), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = _USER.sub("***@", text)
    return _QUERY.sub(lambda found: f"{found[1]}***" if _holds_secret(found[2]) else found[0], text)


def _secrets(settings: Mapping[str, object]) -> frozenset[str]:
    """Return every spelling of every secret in the environment and in the settings."""
    return _spelled(tuple(os.environ.items())) | _spelled(tuple(_named_texts(settings)))


@lru_cache(maxsize=4)  # a notebook cleans thousands of texts of the same secrets
def _spelled(named: tuple[tuple[str, str], ...]) -> frozenset[str]:
    """Return every spelling of the secrets among (name, value) pairs."""
    found = set()
    for name, value in named:
        if SECRET.search(name):
            lines = [line.strip() for line in value.splitlines()]
            found |= {value, *(line for line in lines if len(line) >= _SHORTEST_SECRET_LINE)}
        for user, password in _USER.findall(value):
            found |= {password, unquote(password), _base64(f"{unquote(user)}:{unquote(password)}")}
        found |= {part for _, key, part in _QUERY.findall(value) if _holds_secret(key)}
    spellings = {spelling for value in found if len(value) >= SHORTEST_SECRET for spelling in _spellings(value)}
    return frozenset(spelling for spelling in spellings if len(spelling) >= SHORTEST_SECRET)


def _named_texts(values: Mapping[str, object], under: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name and text of each setting; a nested setting (a header) has the outer name before its own."""
    for name, value in values.items():
        if isinstance(value, str):
            yield f"{under} {name}", value
        elif isinstance(value, Mapping):
            yield from _named_texts(value, f"{under} {name}")


def _holds_secret(name: str) -> bool:
    """Tell whether a part of an address's query, by its name, holds a secret."""
    return bool(SECRET.search(name) or _SIGNED.search(name))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode("utf-8", "surrogateescape")).decode()


def _spellings(text: str) -> list[str]:
    """Return a secret as it is, and as it stands in an address, a header, JSON or Python."""
    in_address = [quoted(text, safe="", errors="surrogateescape") for quoted in (quote, quote_plus)]
    return [text, text.strip(), *in_address, _base64(text), json.dumps(text)[1:-1], repr(text)[1:-1]]
