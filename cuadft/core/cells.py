"""Read the values that other tools put into the cells of a table: lists and mappings as text, and numbers.

A CSV cell is text, so that pandas, `datasets` and spreadsheets write a list as JSON, as a Python literal or as numpy
prints it. For example, each of these is the list ["a", "b"]:

    ["a", "b"]      ['a', 'b']      ['a' 'b']      array(['a', 'b'], dtype=object)
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from contextlib import suppress
from typing import Any

from cuadft.core.errors import InputError
from cuadft.core.text import shorten

_TOKEN = re.compile(r"[uU]?'(?:[^'\\]|\\.)*'|[uU]?\"(?:[^\"\\]|\\.)*\"|[\w.+-]+|\S", re.DOTALL)
_NO_VALUE_BEFORE, _NO_VALUE_AFTER = frozenset(("", *",:([{=")), frozenset(",:)]}=(")
_NAMES = {"None": None, "null": None, "nan": math.nan, "NaN": math.nan, "true": True, "false": False}
_WRAPPERS = re.compile(r"(?:(?:np|numpy)\.)?(?:array|(?:str|int|float|bool)\d*_?)|list|tuple|set")
_STRUCTURE = re.compile(
    r"\s*(?:array\(|[\[{(]\s*(?:[\[{(\])}'\"\d.-]|[uU]['\"]|array|list|np\.|None|nan|NaN|null|true|false|True|False))",
    re.ASCII,
)
# A list whose first text ends like one, or never ends; a text such as ["Fee" means the fee] goes on with a word.
_BEGUN = re.compile(
    r"\s*(?:array\(|\{\s*(['\"])\w+\1\s*:|\[\s*(?:array\(|[\[{]\s*['\"]|u?(['\"])"
    r"(?:(?:(?!\2).)*(?:\2\s*(?:,\s*(?:[\[{'\"\d.]|u['\"]|None|array|$)|\]?\s*$|['\".])|$)|.*\2\s*\]\s*$)))",
    re.DOTALL,
)
LONGEST_SHOWN = 80  # characters of a cell in a message


def spelled_value(value: Any, *, strict: str = "") -> Any:
    """Return the list or mapping that a text spells, and any other value as it is.

    strict: the place of the cell, for the error where a text begins as a list or mapping and can't be read as one.
    Without it such a text stays a text. Raises InputError.
    """
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{", "(", "a"):
        return value
    whole = _STRUCTURE.match(value) and value.rstrip()[-1] in "])}"
    for read in (_from_json, _from_python) if whole else ():
        try:
            found = read(value)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(found, list | dict):
            return found
    if strict and _BEGUN.match(value):
        told = f"begins as a list or mapping and can't be read as one: {shorten(value, LONGEST_SHOWN)!r}"
        advice = 'Write it as JSON, such as ["first span", "second span"]; a long cell may have been cut short.'
        raise InputError(f"{strict} {told}. {advice}")
    return value


def number_of(value: Any, where: str) -> float:
    """Return a cell as a number from 0 on, NaN for a blank one: 1.5, "1.5", "1,5", "1.5 s", "0:00:01.5" are alike.

    A time is given in seconds. Raises InputError that shows any other cell; `where` names its place.
    """
    text = "" if value is None else str(value).strip()
    if text.casefold() in ("", "-", "nan", "none", "null", "<na>", "n/a"):
        return math.nan
    if re.fullmatch(r"[+-]?\d+,\d+", text) and not re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", text):
        text = text.replace(",", ".")  # with three digits it may be a thousand
    number = math.nan
    with suppress(ValueError, OverflowError):
        number = _seconds(text) if re.search(r"\d\s*[a-z:]", text) else float(text)
    if not 0 <= number < math.inf:
        shown = shorten(str(value), LONGEST_SHOWN)
        raise InputError(f"{where} is {shown!r}: give a number from 0 on, such as 1.5, or leave the cell blank.")
    return number


def _seconds(text: str) -> float:
    import pandas as pd  # which takes a third of a second

    return float(text) if re.fullmatch(r"[\d.+-]+e[\d+-]+", text) else pd.to_timedelta(text).total_seconds()


def _from_json(text: str) -> Any:
    return json.loads(text, strict=False)


def _from_python(text: str) -> Any:
    """Return a Python literal's value; numpy puts no commas between the items of a list."""
    parts, before = [], ""
    for token in _TOKEN.findall(text):
        apart = before not in _NO_VALUE_BEFORE and token not in _NO_VALUE_AFTER
        parts.append(("," if apart else "") + token.replace("\n", "\\n").replace("\r", "\\r"))
        before = token
    with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
        return _plain(ast.parse(" ".join(parts), mode="eval").body)


def _plain(node: ast.expr | None) -> Any:
    match node:
        case ast.Constant(value) if isinstance(value, str | int | float | None):
            return value
        case ast.Name(name) if name in _NAMES:
            return _NAMES[name]
        case ast.List(items) | ast.Tuple(items) | ast.Set(items):
            return [_plain(item) for item in items]
        case ast.Dict(keys, items):
            return {str(_plain(key)): _plain(item) for key, item in zip(keys, items)}
        case ast.UnaryOp(ast.USub(), ast.Constant(int() | float() as value)):
            return -value
        case ast.Call(called, [first, *_]) if _WRAPPERS.fullmatch(ast.unparse(called)):
            return _plain(first)
    raise ValueError("no literal")
