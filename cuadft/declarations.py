"""The parameters that notebooks declare: each line of a cell tagged `parameters`, its type and its limits.

A line reads `name: type = default  # help text [limits]`; limits are choices `[a|b|c]` or an inclusive range
`[1..64]`, `[1..]`, `[..5]`. For a list they hold for each item.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
from dataclasses import dataclass, replace
from pathlib import Path

from cuadft.errors import InputError

TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list}
_LIMITS = re.compile(r"\[([^\[\]]*)\]\s*$")
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})?\s*\.\.\s*({_NUMBER})?\s*")


@dataclass(frozen=True)
class Parameter:
    """One declared parameter; `choices` and `low`/`high` (inclusive) limit its value or its items."""

    name: str
    type: str
    default: object
    help: str = ""
    choices: tuple | None = None
    low: float | None = None
    high: float | None = None
    notebooks: tuple[str, ...] = ()

    @property
    def limits(self) -> str:
        """Return the limits as they are written in a notebook, "" if there are none."""
        if self.choices is not None:
            texts = [f"{choice:g}" if isinstance(choice, float) else choice for choice in self.choices]
            return f"[{'|'.join(texts)}]"
        ends = ["" if end is None else f"{end:g}" for end in (self.low, self.high)]
        return f"[{ends[0]}..{ends[1]}]" if any(ends) else ""

    def accept(self, value: object) -> object:
        """Return the value as this parameter's type (a whole number becomes a float where one is wanted)."""
        if self.type != "float" or isinstance(value, bool):
            return value
        # YAML 1.1 reads 1e-4 as text, only 1.0e-4 as a number
        as_number = isinstance(value, int) or (isinstance(value, str) and re.fullmatch(_NUMBER, value))
        return float(value) if as_number else value

    def problem(self, value: object) -> str | None:
        """Return what is wrong with a value, None if nothing is."""
        expected = f"expected {self.type} {self.limits}".rstrip()
        if not self._right_type(value):
            return f"{self.name}: got {value!r} ({type(value).__name__}), {expected}{_hint(value, self.type)}"
        for item in value if self.type == "list" else [value]:
            if isinstance(item, (list, tuple, dict)) or item is None:
                return f"{self.name}: got the item {item!r}, expected text, numbers or true/false in the list"
            if not self._allowed(item):
                return f"{self.name}: got {item!r}, {expected}"
        return None

    def _right_type(self, value: object) -> bool:
        if self.type in ("int", "float") and isinstance(value, bool):
            return False
        return isinstance(value, (int, float) if self.type == "float" else TYPES[self.type])

    def _allowed(self, item: object) -> bool:
        if isinstance(item, float) and not math.isfinite(item):
            return False
        if self.choices is not None:
            return item in self.choices
        if self.low is None and self.high is None:
            return True
        low, high = -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high
        return isinstance(item, (int, float)) and not isinstance(item, bool) and low <= item <= high


def declared(notebooks_dir: str | Path) -> dict[str, Parameter]:
    """Return every parameter that a folder's notebooks declare, by name; InputError if two disagree."""
    found: dict[str, Parameter] = {}
    paths = sorted(Path(notebooks_dir).glob("*.ipynb"))
    if not paths:
        raise InputError(f"No notebooks in {notebooks_dir}: run from inside the project folder.")
    for path in paths:
        for parameter in in_notebook(path):
            known = found.setdefault(parameter.name, parameter)
            if known is not parameter:
                found[parameter.name] = _merge(known, parameter)
    return found


def in_notebook(path: str | Path) -> list[Parameter]:
    """Return the parameters that one notebook declares (none if no cell is tagged `parameters`)."""
    found: dict[str, Parameter] = {}
    for cell in cells(path):
        if cell.get("cell_type") == "code" and "parameters" in cell.get("metadata", {}).get("tags", []):
            for parameter in _in_cell("".join(cell["source"]), Path(path).name):
                if parameter.name in found:
                    raise InputError(f"{path}: parameter {parameter.name} is declared twice: keep one line.")
                found[parameter.name] = parameter
    return list(found.values())


def cells(path: str | Path) -> list[dict]:
    """Return a notebook's cells as they are stored; raises InputError if the file is no notebook."""
    try:
        return json.loads(Path(path).read_text("utf-8"))["cells"]
    except FileNotFoundError:
        raise InputError(f"No notebook {path}: run from inside the project folder.") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is not a Jupyter notebook (version 4): restore it.") from None


def _in_cell(source: str, notebook: str) -> list[Parameter]:
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        message = f"{notebook}: the parameters cell is not plain Python (line {error.lineno}): {error.msg}."
        raise InputError(message) from None
    comments = _comments(source)
    # an expression such as a docstring declares nothing
    lines = [node for node in statements if not isinstance(node, ast.Expr)]
    return [_parameter(node, comments.get(node.end_lineno, ""), notebook) for node in lines]


def _comments(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("#").strip() for t in tokens if t.type == tokenize.COMMENT}


def _parameter(node: ast.stmt, comment: str, notebook: str) -> Parameter:
    where = f"{notebook}, parameters cell, line {node.lineno}"
    names = [getattr(getattr(node, part, None), "id", None) for part in ("target", "annotation")]
    if None in names or names[1] not in TYPES or node.value is None:
        raise InputError(f"{where}: write `name: type = default  # help`, type one of {', '.join(TYPES)}.")
    try:
        default = ast.literal_eval(node.value)
    except ValueError:
        raise InputError(f"{where}: the default of {names[0]} must be a plain value.") from None
    parameter = Parameter(*names, default, notebooks=(notebook,))
    parameter = _with_limits(parameter, comment, where)
    parameter = replace(parameter, default=parameter.accept(default))
    if problem := parameter.problem(parameter.default):
        raise InputError(f"{where}: the default breaks its own declaration: {problem}.")
    return parameter


def _with_limits(parameter: Parameter, comment: str, where: str) -> Parameter:
    match = _LIMITS.search(comment)
    limits = match[1] if match else ""
    if "|" not in limits and not _RANGE.fullmatch(limits):
        return replace(parameter, help=comment)
    parameter = replace(parameter, help=comment[: match.start()].strip())
    if ends := _RANGE.fullmatch(limits):
        if parameter.type in ("str", "bool"):
            raise InputError(f"{where}: a range [{limits}] suits int, float or list, not {parameter.type}.")
        low, high = (None if end is None else float(end) for end in ends.groups())
        return replace(parameter, low=low, high=high)
    choices = [choice.strip() for choice in limits.split("|")]
    numbers = all(re.fullmatch(_NUMBER, choice) for choice in choices)
    if parameter.type in ("int", "float") and not numbers:
        raise InputError(f"{where}: the choices [{limits}] of {parameter.name} must be numbers.")
    if parameter.type != "str" and numbers:
        choices = [float(choice) for choice in choices]
    return replace(parameter, choices=tuple(choices))


def _merge(one: Parameter, two: Parameter) -> Parameter:
    both = replace(one, notebooks=one.notebooks + two.notebooks)
    if replace(two, notebooks=both.notebooks, help=one.help) != both:
        first, second = (f"{p.notebooks[0]} ({p.type} = {p.default!r} {p.limits})" for p in (one, two))
        raise InputError(f"Parameter {one.name} differs between {first} and {second}: make them the same.")
    return both


def _hint(value: object, wanted: str) -> str:
    if wanted == "str":
        return " (put it in quotes)"
    if wanted == "bool":
        return " (write true or false, without quotes)"
    if wanted == "list":
        return f" (write [{value}])" if isinstance(value, (str, int, float)) else " (write [a, b])"
    if isinstance(value, str) and re.fullmatch(_NUMBER, value):
        return " (without quotes; YAML reads 1e-4 as text, 1.0e-4 as a number)"
    return " (write a number)" if isinstance(value, str) else ""
