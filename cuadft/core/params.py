"""Parameters of the notebooks: declared in them, set by presets, checked before anything runs.

A notebook declares its parameters in the cell tagged `parameters`, each on one line with its type, default and help:

    dev_rows: int = 20  # dev questions, spread over the contracts, 0 takes all [0..]

The limits at the end are words to choose from `[a|b|c]`, or an inclusive range `[1..64]`, `[1..]`, `[..5]`. For a list
they hold for each item. The next cell checks the values, because papermill only warns about a misspelt name:

    core.check_parameters(globals())

A preset is a YAML file of `name: value` lines in params/. The loop reads it once for all notebooks:

    load_preset("quickstart", ["dev_rows=24"], "notebooks")   # {"dev_rows": 24, ...}: what differs from the defaults
"""

from __future__ import annotations

import ast
import difflib
import io
import json
import math
import re
import tokenize
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cuadft.core import runs
from cuadft.core.errors import InputError

TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list}
SET_BY_LOOP = {
    "iteration": "the loop counts it, see --iterations",
    **dict.fromkeys(("systems", "evaluated", "decide"), "the loop sets it for each stage"),
}
# Parameters that may hold a path, and the values of theirs that are words and not paths.
PATH_PARAMETERS = ("cuad", "contracts_folder", "model", "embedder", "published", "own_questions")
NOT_PATHS = ("", "sample", "auto")

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})?\s*\.\.\s*({_NUMBER})?\s*")
_LIMITS = re.compile(r"\[([^\[\]]*)\]\s*$")


def check_parameters(namespace: Mapping[str, object]) -> None:
    """Check a notebook's parameters right after they are set, by `core.check_parameters(globals())`.

    Raises InputError that lists every value of a wrong type or outside its limits, and every name that papermill
    injected although no notebook declares it.
    """
    parameters = declared_parameters(runs.project_root() / "notebooks")
    problems = [
        parameters[name].problem(namespace[name]) if name in parameters else _unknown_name(name, parameters)
        for name in _names_to_check(namespace, parameters)
    ]
    _raise_problems(problems, "this notebook")


def load_preset(preset: str | Path, overrides: Sequence[str], notebooks_dir: str | Path) -> dict[str, object]:
    """Return the values of a preset, then of `name=value` overrides, that differ from the notebooks' defaults.

    Raises InputError that lists every misspelt name, wrong type and impossible value at once.
    """
    parameters = declared_parameters(notebooks_dir)
    values, accepted, problems = _read_preset(preset_file(preset)), {}, []
    for override in overrides:
        name, found, text = override.partition("=")
        if found:
            values[name.strip()] = _override_value(text, parameters.get(name.strip()))
        else:
            problems.append(f"--set {override}: write --set name=value")
    for name, value in values.items():
        if name in SET_BY_LOOP:
            problems.append(f"{name}: not for presets or --set, {SET_BY_LOOP[name]}")
        elif name not in parameters:
            problems.append(_unknown_name(name, parameters))
        else:
            accepted[name] = parameters[name].accept(value)
            problems.append(parameters[name].problem(accepted[name]))
    _raise_problems(problems, f"preset {preset}")
    return {name: value for name, value in accepted.items() if value != parameters[name].default}


def preset_file(preset: str | Path) -> Path:
    """Return a preset's path, from a path or from the bare name of a file in params/."""
    folder = runs.project_root() / "params"
    for path in (runs.resolve_path(preset), folder / f"{preset}.yaml"):
        if path.is_file():
            return path
    known = sorted(path.name for path in folder.glob("*.yaml"))
    raise InputError(f"No preset {preset}: choose one of {', '.join(known) or 'none yet'} in {folder}.")


def absolute_paths(values: Mapping[str, object]) -> dict[str, object]:
    """Return the values with each relative path that exists here made absolute, since notebooks run in the root."""
    found = {name: Path(values[name]).expanduser() for name in PATH_PARAMETERS if values.get(name, "") not in NOT_PATHS}
    return {**values, **{name: str(path.absolute()) for name, path in found.items() if path.exists()}}


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" with the known name most like `name`, or "" if no known name is like it."""
    close = difflib.get_close_matches(str(name).lower(), list(names), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


@dataclass(frozen=True)
class Parameter:
    """One declared parameter; `choices`, or `low` and `high` (inclusive), limit its value or the items of a list."""

    name: str
    type: str
    default: object
    help: str = ""
    choices: tuple[str, ...] | None = None
    low: float = -math.inf
    high: float = math.inf
    notebooks: tuple[str, ...] = ()

    @property
    def limits(self) -> str:
        """Return the limits as a notebook writes them, "" if the parameter has no limits."""
        if self.choices is not None:
            return f"[{'|'.join(self.choices)}]"
        ends = [f"{end:g}" if math.isfinite(end) else "" for end in (self.low, self.high)]
        return f"[{ends[0]}..{ends[1]}]" if any(ends) else ""

    def accept(self, value: object) -> object:
        """Return the value as this parameter's type (a whole number becomes a float where one is wanted)."""
        if self.type != "float" or isinstance(value, bool):
            return value
        # YAML 1.1 reads 1e-4 as text, only 1.0e-4 as a number
        as_number = isinstance(value, int) or (isinstance(value, str) and re.fullmatch(_NUMBER, value))
        return float(value) if as_number else value

    def problem(self, value: object) -> str | None:
        """Return what is wrong with a value, None if the value is right."""
        expected = f"expected {self.type} {self.limits}".rstrip()
        if not self._has_type(value):
            return f"{self.name}: got {value!r} ({type(value).__name__}), {expected}{_how_to_write(value, self.type)}"
        for item in value if self.type == "list" else [value]:
            if isinstance(item, (list, tuple, dict)) or item is None:
                return f"{self.name}: got the item {item!r}, expected text, numbers or true/false in the list"
            if not self._within_limits(item):
                return f"{self.name}: got {item!r}, {expected}"
        return None

    def _has_type(self, value: object) -> bool:
        if self.type in ("int", "float") and isinstance(value, bool):
            return False
        return isinstance(value, (int, float) if self.type == "float" else TYPES[self.type])

    def _within_limits(self, item: object) -> bool:
        if isinstance(item, float) and not math.isfinite(item):
            return False
        if self.choices is not None:
            return item in self.choices
        is_number = isinstance(item, (int, float)) and not isinstance(item, bool)
        return not self.limits or (is_number and self.low <= item <= self.high)


def declared_parameters(notebooks_dir: str | Path) -> dict[str, Parameter]:
    """Return every parameter that a folder's notebooks declare, by name; raises InputError if two of them disagree."""
    found: dict[str, Parameter] = {}
    paths = sorted(Path(notebooks_dir).glob("*.ipynb"))
    if not paths:
        raise InputError(f"No notebooks in {notebooks_dir}: run from inside the project folder.")
    for path in paths:
        for parameter in notebook_parameters(path):
            known = found.setdefault(parameter.name, parameter)
            if known is not parameter:
                found[parameter.name] = _merge_declarations(known, parameter)
    return found


def notebook_parameters(path: str | Path) -> list[Parameter]:
    """Return the parameters that one notebook declares; the list is empty if no cell is tagged `parameters`."""
    found: dict[str, Parameter] = {}
    for cell in notebook_cells(path):
        if cell.get("cell_type") == "code" and "parameters" in cell.get("metadata", {}).get("tags", []):
            for parameter in _declared_in_cell("".join(cell["source"]), Path(path).name):
                if parameter.name in found:
                    raise InputError(f"{path}: parameter {parameter.name} is declared twice: keep one line.")
                found[parameter.name] = parameter
    return list(found.values())


def notebook_cells(path: str | Path) -> list[dict]:
    """Return a notebook's cells as they are stored; raises InputError if the file is no notebook."""
    try:
        return json.loads(Path(path).read_text("utf-8"))["cells"]
    except FileNotFoundError:
        raise InputError(f"No notebook {path}: run from inside the project folder.") from None
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path} is not a Jupyter notebook (version 4): restore it.") from None


def _names_to_check(namespace: Mapping[str, object], parameters: Mapping[str, Parameter]) -> list[str]:
    """Return the names that a notebook's cells declare or that papermill injected; outside Jupyter all declared ones.

    A variable that a cell sets is no parameter, even if another notebook has a parameter of that name. Else a notebook
    that is run again by hand would fail.
    """
    wanted = set() if "In" in namespace else set(parameters)
    for cell in namespace.get("In", ()):
        try:
            nodes = ast.parse(cell).body
        except SyntaxError:  # a cell with magic commands declares nothing
            continue
        if cell.startswith("# Parameters\n"):  # papermill's
            assigned = [node for node in nodes if isinstance(node, ast.Assign)]
            wanted |= {ast.unparse(target) for node in assigned for target in node.targets}
        wanted |= {ast.unparse(node.target) for node in nodes if isinstance(node, ast.AnnAssign)} & set(parameters)
    return [name for name in namespace if name in wanted]


def _read_preset(path: Path) -> dict:
    import yaml

    try:
        content = path.read_bytes()  # YAML itself then reports text that is not UTF-8
        root, values = yaml.compose(content, Loader=yaml.SafeLoader), yaml.safe_load(content)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"Preset {path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values or {}, dict):
        raise InputError(f"Preset {path} holds a {type(values).__name__}: write lines `name: value`.")
    keys = [key for key, _ in root.value] if values else []
    for number, key in enumerate(keys):
        if key.value in [before.value for before in keys[:number]]:
            line = key.start_mark.line + 1
            raise InputError(f"Preset {path}, line {line}: {key.value} stands there twice: keep one.")
    return values or {}


def _override_value(text: str, parameter: Parameter | None) -> object:
    import yaml

    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        value = text
    # A shell removes the quotes of "12", so that text looks like a number here.
    return text if parameter and parameter.type == "str" and not isinstance(value, str) else value


def _unknown_name(name: object, parameters: Mapping[str, Parameter]) -> str:
    return f"{name}: no notebook declares it{did_you_mean(str(name), parameters) or ', see `cuadft params`'}"


def _raise_problems(found: Iterable[str | None], where: str) -> None:
    problems = [problem for problem in found if problem]
    if len(problems) == 1:
        raise InputError(f"Invalid parameter in {where}: {problems[0]}.")
    if problems:
        raise InputError("\n  ".join([f"{len(problems)} invalid parameters in {where}:", *problems]))


def _declared_in_cell(source: str, notebook: str) -> list[Parameter]:
    """Return the parameters of one cell; raises InputError on a line that declares nothing."""
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        message = f"{notebook}: the parameters cell is not plain Python (line {error.lineno}): {error.msg}."
        raise InputError(message) from None
    comments = _comment_by_line(source)
    # An expression such as a docstring declares nothing.
    lines = [node for node in statements if not isinstance(node, ast.Expr)]
    return [_parse_declaration(node, comments.get(node.end_lineno, ""), notebook) for node in lines]


def _comment_by_line(source: str) -> dict[int, str]:
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("#").strip() for t in tokens if t.type == tokenize.COMMENT}


def _parse_declaration(node: ast.stmt, comment: str, notebook: str) -> Parameter:
    where = f"{notebook}, parameters cell, line {node.lineno}"
    names = [getattr(getattr(node, part, None), "id", None) for part in ("target", "annotation")]
    if None in names or names[1] not in TYPES or node.value is None:
        raise InputError(f"{where}: write `name: type = default  # help`, type one of {', '.join(TYPES)}.")
    try:
        default = ast.literal_eval(node.value)
    except ValueError:
        raise InputError(f"{where}: the default of {names[0]} must be a plain value.") from None
    parameter = Parameter(*names, default, notebooks=(notebook,), **_limits(comment))
    if parameter.type in ("str", "bool") and parameter.limits and not parameter.choices:
        raise InputError(f"{where}: a range {parameter.limits} suits int, float or list, not {parameter.type}.")
    parameter = replace(parameter, default=parameter.accept(default))
    if problem := parameter.problem(parameter.default):
        raise InputError(f"{where}: the default breaks its own declaration: {problem}.")
    return parameter


def _limits(comment: str) -> dict[str, Any]:
    """Return the help that a comment holds, and the limits at its end."""
    match = _LIMITS.search(comment)
    limits = match[1] if match else ""
    ends = _RANGE.fullmatch(limits)
    if not ends and "|" not in limits:
        return {"help": comment}
    before = {"help": comment[: match.start()].strip()}
    if not ends:
        return before | {"choices": tuple(choice.strip() for choice in limits.split("|"))}
    return before | {name: float(end) for name, end in zip(("low", "high"), ends.groups()) if end}


def _merge_declarations(one: Parameter, two: Parameter) -> Parameter:
    """Return one parameter for the declarations of two notebooks; raises InputError if they differ."""
    both = replace(one, notebooks=one.notebooks + two.notebooks)
    if replace(two, notebooks=both.notebooks, help=one.help) != both:
        first, second = (f"{p.notebooks[0]} ({p.type} = {p.default!r} {p.limits})" for p in (one, two))
        raise InputError(f"Parameter {one.name} differs between {first} and {second}: make them the same.")
    return both


def _how_to_write(value: object, wanted: str) -> str:
    """Return a hint on how a preset writes a value of the wanted type, "" if there is no hint."""
    if wanted in ("str", "bool"):
        return " (put it in quotes)" if wanted == "str" else " (write true or false, without quotes)"
    if wanted == "list":
        return f" (write [{value}])" if isinstance(value, (str, int, float)) else " (write [a, b])"
    if isinstance(value, str) and re.fullmatch(_NUMBER, value):
        return " (without quotes; YAML reads 1e-4 as text, 1.0e-4 as a number)"
    return " (write a number)" if isinstance(value, str) else ""
