"""Parameters of the notebooks: declared in them, set by presets, checked before anything runs.

A notebook declares its parameters in the cell tagged `parameters`, each on one line with its type, default and help:

    dev_rows: int = 20  # dev questions, spread over the contracts, 0 takes all [0..]

The limits at the end are choices `[a|b|c]` or an inclusive range `[1..64]`, `[1..]`, `[..5]`. For a list they hold for
each item. The next cell checks the values, because papermill only warns about a misspelt name:

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

from cuadft.core import runs
from cuadft.core.errors import InputError

TYPES = {"str": str, "int": int, "float": float, "bool": bool, "list": list}
SET_BY_LOOP = {
    "iteration": "the loop counts it, see --iterations",
    "systems": "the loop sets it for each stage",
    "evaluated": "the loop sets it for each stage",
    "decide": "the loop sets it for each stage",
}
# Parameters that may hold a path, and the values of theirs that are words and not paths.
PATH_PARAMETERS = (
    "cuad",
    "contracts_folder",
    "data_dir",
    "model",
    "embedder",
    "reranker",
    "published",
    "own_questions",
    "arrivals_folder",
)
NOT_PATHS = ("", "sample", "auto")
JUPYTER_NAMES = ("In", "Out", "exit", "quit", "open", "get_ipython")  # IPython puts them into every notebook

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})?\s*\.\.\s*({_NUMBER})?\s*")
_LIMITS = re.compile(r"\[([^\[\]]*)\]\s*$")


def check_parameters(namespace: Mapping[str, object]) -> None:
    """Check a notebook's parameters right after they are set, by `core.check_parameters(globals())`.

    Raises InputError that lists every value of a wrong type or outside its limits, and every name that papermill
    injected although no notebook declares it.
    """
    parameters = declared_parameters(runs.project_root() / "notebooks")
    problems = []
    for name in _names_to_check(namespace, parameters):
        if name not in parameters:
            problems.append(_unknown_name(name, parameters))
        elif problem := parameters[name].problem(namespace[name]):
            problems.append(problem)
    _raise_problems(problems, "this notebook")


def load_preset(preset: str | Path, overrides: Sequence[str], notebooks_dir: str | Path) -> dict[str, object]:
    """Return the values of a preset, then of `name=value` overrides, that differ from the notebooks' defaults.

    Raises InputError that lists every misspelt name, wrong type and impossible value at once.
    """
    parameters = declared_parameters(notebooks_dir)
    values, problems = _read_preset(preset_file(preset)), []
    for override in overrides:
        name, found, text = override.partition("=")
        if found:
            values[name.strip()] = _override_value(text, parameters.get(name.strip()))
        else:
            problems.append(f"--set {override}: write --set name=value")
    accepted = {}
    for name, value in values.items():
        problem = _why_refused(name, parameters)
        if not problem:
            accepted[name] = parameters[name].accept(value)
            problem = parameters[name].problem(accepted[name])
        problems += [problem] if problem else []
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
    absolute = dict(values)
    for name in PATH_PARAMETERS:
        value = absolute.get(name)
        if isinstance(value, str) and value not in NOT_PATHS and Path(value).expanduser().exists():
            absolute[name] = str(Path(value).expanduser().absolute())
    return absolute


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
    choices: tuple | None = None
    low: float | None = None
    high: float | None = None
    notebooks: tuple[str, ...] = ()

    @property
    def limits(self) -> str:
        """Return the limits as a notebook writes them, "" if the parameter has no limits."""
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
        if self.low is None and self.high is None:
            return True
        low, high = -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high
        return isinstance(item, (int, float)) and not isinstance(item, bool) and low <= item <= high


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
    """Return the names to check: those declared here or injected; outside Jupyter every name with a plain value."""
    plain = (str, int, float, bool, list, tuple, dict, type(None))
    names = [name for name, value in namespace.items() if isinstance(value, plain)]
    names = [name for name in names if not name.startswith("_") and name not in JUPYTER_NAMES]
    if "In" not in namespace:
        return names
    # A variable that a cell set is no parameter, even if another notebook has a parameter of that name. Without this, a
    # notebook that is run again by hand would fail.
    cells = [cell for cell in namespace["In"] if cell.startswith("# Parameters\n")]
    wanted = {name for cell in cells for name in _assigned_names(cell)}
    wanted |= {name for cell in namespace["In"] for name in _annotated_names(cell) if name in parameters}
    return [name for name in names if name in wanted]


def _assigned_names(source: str) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)]
    return {target.id for node in nodes for target in node.targets if isinstance(target, ast.Name)}


def _annotated_names(source: str) -> set[str]:
    """Return the names that a cell declares with a type; a cell with magic commands declares none."""
    try:
        statements = ast.parse(source).body
    except SyntaxError:
        return set()
    nodes = [node for node in statements if isinstance(node, ast.AnnAssign)]
    return {node.target.id for node in nodes if isinstance(node.target, ast.Name)}


def _read_preset(path: Path) -> dict:
    import yaml

    try:
        # bytes: YAML itself then reports text that is not UTF-8
        content = path.read_bytes()
        _refuse_duplicates(yaml.compose(content, Loader=yaml.SafeLoader), path)
        values = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"Preset {path} is not valid YAML: {' '.join(str(error).split())}.") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"Preset {path} holds a {type(values).__name__}: write lines `name: value`.")
    return values


def _refuse_duplicates(node: object, path: Path) -> None:
    pairs = node.value if getattr(node, "id", "") == "mapping" else []
    seen = set()
    for key, _ in pairs:
        if str(key.value) in seen:
            line = key.start_mark.line + 1
            raise InputError(f"Preset {path}, line {line}: {key.value} stands there twice: keep one.")
        seen.add(str(key.value))


def _override_value(text: str, parameter: Parameter | None) -> object:
    import yaml

    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        value = text
    # A shell removes the quotes of "12", so that text looks like a number here.
    return text if parameter and parameter.type == "str" and not isinstance(value, str) else value


def _why_refused(name: object, parameters: Mapping[str, Parameter]) -> str | None:
    if name in SET_BY_LOOP:
        return f"{name}: not for presets or --set, {SET_BY_LOOP[name]}"
    return None if name in parameters else _unknown_name(name, parameters)


def _unknown_name(name: object, parameters: Mapping[str, Parameter]) -> str:
    return f"{name}: no notebook declares it{did_you_mean(str(name), parameters) or ', see `cuadft params`'}"


def _raise_problems(problems: list[str], where: str) -> None:
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
    parameter = Parameter(*names, default, notebooks=(notebook,))
    parameter = _with_limits(parameter, comment, where)
    parameter = replace(parameter, default=parameter.accept(default))
    if problem := parameter.problem(parameter.default):
        raise InputError(f"{where}: the default breaks its own declaration: {problem}.")
    return parameter


def _with_limits(parameter: Parameter, comment: str, where: str) -> Parameter:
    """Return the parameter with the help and the limits that its comment holds."""
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


def _merge_declarations(one: Parameter, two: Parameter) -> Parameter:
    """Return one parameter for the declarations of two notebooks; raises InputError if they differ."""
    both = replace(one, notebooks=one.notebooks + two.notebooks)
    if replace(two, notebooks=both.notebooks, help=one.help) != both:
        first, second = (f"{p.notebooks[0]} ({p.type} = {p.default!r} {p.limits})" for p in (one, two))
        raise InputError(f"Parameter {one.name} differs between {first} and {second}: make them the same.")
    return both


def _how_to_write(value: object, wanted: str) -> str:
    """Return a hint on how a preset writes a value of the wanted type, "" if there is no hint."""
    if wanted == "str":
        return " (put it in quotes)"
    if wanted == "bool":
        return " (write true or false, without quotes)"
    if wanted == "list":
        return f" (write [{value}])" if isinstance(value, (str, int, float)) else " (write [a, b])"
    if isinstance(value, str) and re.fullmatch(_NUMBER, value):
        return " (without quotes; YAML reads 1e-4 as text, 1.0e-4 as a number)"
    return " (write a number)" if isinstance(value, str) else ""
