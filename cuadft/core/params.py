"""Parameters of the notebooks: declared in them, set by presets, checked before anything runs.

A notebook declares its parameters in the cell tagged `parameters`, each on one line with its type, default and help:

    dev_rows: int = 20  # dev questions, spread over the contracts, 0 takes all [0..]

The limits at the end are words to choose from `[a|b|c]`, or an inclusive range `[1..64]`, `[1..]`, `[..5]`; `[0..inf]`
also takes inf. For a list they hold for each item. The next cell checks the values, because papermill only warns about
a misspelt name:

    core.check_parameters(globals())

A preset is a YAML file of `name: value` lines in params/. The loop reads it once for all notebooks:

    load_preset("quickstart", ["dev_rows=24"], "notebooks")   # {"dev_rows": 24, ...}: what differs from the defaults
"""

from __future__ import annotations

import ast
import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from cuadft.core import runs
from cuadft.core.errors import InputError

TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list}
SET_BY_LOOP = ("iteration", "systems", "evaluated", "decide")
# Parameters that may hold a path, and the values of theirs that are words and not paths.
PATH_PARAMETERS = ("cuad", "schema", "contracts_folder", "arrivals_folder", "model", "embedder", "published")
PATH_PARAMETERS += ("own_questions", "seed_runs", "review_file")
NOT_PATHS = ("", "sample", "auto", "rows")

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_INFINITE = re.compile(r"\+?\.?inf(?:inity)?", re.IGNORECASE)
_LIMITS = re.compile(rf"\[([^\[\]|]+\|[^\[\]]+|(?:{_NUMBER})?\.\.(?:{_NUMBER}|inf)?)\]$")


def check_parameters(namespace: Mapping[str, object]) -> None:
    """Check a notebook's parameters right after they are set, by `core.check_parameters(globals())`.

    Raises InputError that lists every value of a wrong type or outside its limits, and every name that papermill
    injected although no notebook declares it.
    """
    parameters = declared_parameters(runs.project_root() / "notebooks")
    names = _names_to_check(namespace, parameters)
    _raise_problems([_problem(name, namespace[name], parameters) for name in names], "this notebook")


def load_preset(preset: str | Path, overrides: Sequence[str], notebooks_dir: str | Path) -> dict[str, object]:
    """Return the values of a preset, then of `name=value` overrides, that differ from the notebooks' defaults.

    A preset's path that begins with ./ or ../ counts from the preset's folder. Raises InputError that lists every
    misspelt name, wrong type and impossible value at once.
    """
    parameters = declared_parameters(notebooks_dir)
    file, problems = preset_file(preset), []
    values = {name: _seen_from(file.parent, name, value) for name, value in _read_preset(file).items()}
    for override in overrides:
        name, found, text = override.partition("=")
        if found:
            values[name.strip()] = _override_value(text, parameters.get(name.strip()))
        else:
            problems.append(f"--set {override}: write --set name=value")
    values = {name: parameters[name].accept(value) if name in parameters else value for name, value in values.items()}
    for name, value in values.items():
        by_loop = f"{name}: not for presets or --set, the loop sets it" if name in SET_BY_LOOP else None
        problems.append(by_loop or _problem(name, value, parameters))
    _raise_problems(problems, f"preset {preset}")
    return {name: value for name, value in values.items() if value != parameters[name].default}


def _seen_from(folder: Path, name: str, value: Any) -> Any:
    """Return a preset's value, a path that is written as seen from the preset's folder as an absolute one."""
    is_path = name in PATH_PARAMETERS and isinstance(value, str) and runs.counts_from_here(value)
    return str((folder / value).resolve()) if is_path else value


def preset_file(preset: str | Path) -> Path:
    """Return a preset's path, from a path or from the bare name of a file in params/."""
    folder = runs.project_root() / "params"
    for path in (runs.resolve_path(preset), folder / f"{preset}.yaml"):
        if path.is_file():
            return path
    known = sorted(path.name for path in folder.glob("*.yaml"))
    raise InputError(f"No preset {preset}: choose one of {', '.join(known) or 'none yet'} in {folder}.")


def absolute_paths(values: Mapping[str, object]) -> dict[str, object]:
    """Return the values with each path that exists here, or is written from here, made absolute.

    Notebooks run in the project root, where a relative path would be another one.
    """

    def absolute(value: Any) -> Any:
        if isinstance(value, list):
            return [absolute(item) for item in value]
        is_here = value not in NOT_PATHS and (Path(value).expanduser().exists() or runs.counts_from_here(value))
        return str(runs.resolve_path(value)) if is_here else value

    return {name: absolute(value) if name in PATH_PARAMETERS else value for name, value in values.items()}


def did_you_mean(name: str, names: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" with the known name most like `name`, or "" if no known name is like it."""
    close = difflib.get_close_matches(str(name).lower(), list(names), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


@dataclass(frozen=True)
class Parameter:
    """One declared parameter; `limits` ("[a|b]", "[1..]" or "") are those of its value, or of the items of a list."""

    name: str
    type: str
    default: object
    help: str = ""
    limits: str = ""
    notebooks: tuple[str, ...] = ()

    def accept(self, value: object) -> object:
        """Return the value; where a float is wanted, as a float if it is a whole number or text that spells a number.

        YAML 1.1 reads 1e-4 as text, only 1.0e-4 as a number. "none" or nothing where a list is wanted is an empty list.
        """
        if self.type == "list" and value in (None, "none"):
            return []
        spells_number = isinstance(value, (int, str)) and not isinstance(value, bool) and self.type == "float"
        if spells_number and _INFINITE.fullmatch(str(value)):
            return math.inf
        return float(value) if spells_number and re.fullmatch(_NUMBER, str(value)) else value

    def problem(self, value: object) -> str | None:
        """Return what is wrong with a value, None if the value is right."""
        types = (int, float) if self.type == "float" else (TYPES[self.type],)
        items = value if isinstance(value, list) else [value]
        if type(value) in types and all(type(item) in (str, int, float, bool) for item in items):
            if all(map(self._within_limits, items)):
                return None
        return f"{self.name}: got {value!r} ({type(value).__name__}), expected {self.type} {self.limits}".rstrip()

    def _within_limits(self, item: object) -> bool:
        if "|" in self.limits:
            return item in self.limits[1:-1].split("|")
        low, _, high = self.limits[1:-1].partition("..")
        if isinstance(item, float) and not math.isfinite(item) and (high, item) != ("inf", math.inf):
            return False
        is_number = isinstance(item, (int, float)) and not isinstance(item, bool)
        return not self.limits or (is_number and float(low or -math.inf) <= item <= float(high or math.inf))


def declared_parameters(notebooks_dir: str | Path) -> dict[str, Parameter]:
    """Return every parameter that a folder's notebooks declare, by name; raises InputError if two of them disagree."""
    found: dict[str, Parameter] = {}
    paths = sorted(Path(notebooks_dir).glob("*.ipynb"))
    if not paths:
        raise InputError(f"No notebooks in {notebooks_dir}: run from inside the project folder.")
    for path in paths:
        for parameter in notebook_parameters(path):
            known = found.setdefault(parameter.name, parameter)
            if replace(parameter, help=known.help, notebooks=known.notebooks) != known:
                places = f"{known.notebooks[0]} and {path.name}"
                raise InputError(
                    f"Parameter {known.name} differs between {places}: give it one type, default and limits."
                )
            if known is not parameter:
                found[known.name] = replace(known, notebooks=(*known.notebooks, path.name))
    return found


def notebook_parameters(path: str | Path) -> list[Parameter]:
    """Return the parameters that one notebook declares; raises InputError on a line that declares nothing.

    The list is empty if no cell is tagged `parameters`.
    """
    cells = [cell for cell in notebook_cells(path) if "parameters" in cell.get("metadata", {}).get("tags", [])]
    source, found = "\n".join("".join(cell["source"]) for cell in cells), []
    try:
        statements = ast.parse(source).body
    except SyntaxError as error:
        where = f"{Path(path).name}: the parameters cell is not plain Python (line {error.lineno})"
        raise InputError(f"{where}: {error.msg}.") from None
    for node in statements:
        if not isinstance(node, ast.Expr):  # an expression such as a docstring declares nothing
            comment = source.splitlines()[node.end_lineno - 1].partition("  # ")[2]
            found.append(_parse_declaration(node, comment.strip(), Path(path).name))
    return found


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
            wanted |= {ast.unparse(target) for node in nodes if isinstance(node, ast.Assign) for target in node.targets}
        wanted |= {ast.unparse(node.target) for node in nodes if isinstance(node, ast.AnnAssign)} & set(parameters)
    return [name for name in namespace if name in wanted]


def _read_preset(path: Path) -> dict:
    try:
        values = yaml.safe_load(path.read_text("utf-8")) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"Preset {path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if not isinstance(values, dict):
        raise InputError(f"Preset {path} holds a {type(values).__name__}: write lines `name: value`.")
    return values


def _override_value(text: str, parameter: Parameter | None) -> object:
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        value = text
    # A shell removes the quotes of "12", so that text looks like a number here.
    return text if parameter and parameter.type == "str" and not isinstance(value, str) else value


def _problem(name: object, value: object, parameters: Mapping[str, Parameter]) -> str | None:
    """Return what is wrong with a name and its value, None if both are right."""
    if name in parameters:
        return parameters[name].problem(value)
    return f"{name}: no notebook declares it{did_you_mean(str(name), parameters) or ', see `cuadft params`'}"


def _raise_problems(found: Iterable[str | None], where: str) -> None:
    if problems := [problem for problem in found if problem]:
        raise InputError("\n  ".join([f"{len(problems)} invalid parameters in {where}:", *problems]))


def _parse_declaration(node: ast.stmt, comment: str, notebook: str) -> Parameter:
    where = f"{notebook}, parameters cell, line {node.lineno}"
    try:
        name, kind, default = node.target.id, node.annotation.id, ast.literal_eval(node.value)
        TYPES[kind]
    except (AttributeError, KeyError, ValueError):
        known = ", ".join(TYPES)
        told = f"write `name: type = default  # help`, type one of {known}, and a plain value as the default"
        raise InputError(f"{where}: {told}.") from None
    match = _LIMITS.search(comment)
    words, limits = (comment[: match.start()].strip(), match[0]) if match else (comment, "")
    parameter = Parameter(name, kind, default, words, limits, (notebook,))
    parameter = replace(parameter, default=parameter.accept(default))
    if problem := parameter.problem(parameter.default):
        raise InputError(f"{where}: the default breaks its own declaration: {problem}.")
    return parameter
