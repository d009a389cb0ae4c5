"""Parameter values: read a preset, check names, types and limits against the notebooks, before anything runs.

In a notebook, `params.check(globals())` follows the parameters: papermill only warns about a misspelt name.
"""

from __future__ import annotations

import ast
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from cuadft import runs
from cuadft.declarations import Parameter, declared
from cuadft.errors import InputError

__all__ = ["Parameter", "absolute_paths", "check", "declared", "load", "nearest", "preset_file"]

SET_BY_LOOP = {
    "iteration": "the loop counts it, see --iterations",
    "systems": "the loop sets it for each stage",
    "evaluated": "the loop sets it for each stage",
    "decide": "the loop sets it for each stage",
}
PATHS = ("cuad", "contracts_folder", "data_dir", "model", "embedder", "reranker", "published",
         "own_questions", "arrivals_folder")
KEYWORDS = ("", "sample", "auto")
INTERACTIVE = ("In", "Out", "exit", "quit", "open", "get_ipython")


def load(preset: str | Path, overrides: Sequence[str], notebooks_dir: str | Path) -> dict[str, object]:
    """Return the values that differ from the notebooks' defaults: a preset's, then `name=value` overrides'.

    Raises InputError that lists every misspelt name, wrong type and impossible value at once.
    """
    parameters = declared(notebooks_dir)
    values, problems = _read_preset(preset_file(preset)), []
    for override in overrides:
        name, found, text = override.partition("=")
        if found:
            values[name.strip()] = _value_of(text, parameters.get(name.strip()))
        else:
            problems.append(f"--set {override}: write --set name=value")
    accepted = {}
    for name, value in values.items():
        problem = _refusal(name, parameters)
        if not problem:
            accepted[name] = parameters[name].accept(value)
            problem = parameters[name].problem(accepted[name])
        problems += [problem] if problem else []
    _raise(problems, f"preset {preset}")
    return {name: value for name, value in accepted.items() if value != parameters[name].default}


def check(namespace: Mapping[str, object]) -> None:
    """Check a notebook's parameters, right after they are set: `params.check(globals())`.

    Raises InputError that lists every value of a wrong type or outside its limits, and every injected name
    that no notebook declares.
    """
    parameters = declared(runs.root() / "notebooks")
    problems = []
    for name in _candidates(namespace, parameters):
        if name not in parameters:
            problems.append(_unknown(name, parameters))
        elif problem := parameters[name].problem(namespace[name]):
            problems.append(problem)
    _raise(problems, "this notebook")


def absolute_paths(values: Mapping[str, object]) -> dict[str, object]:
    """Return the values with relative paths that exist here made absolute: notebooks run in the root."""
    absolute = dict(values)
    for name in PATHS:
        value = absolute.get(name)
        if isinstance(value, str) and value not in KEYWORDS and Path(value).expanduser().exists():
            absolute[name] = str(Path(value).expanduser().absolute())
    return absolute


def nearest(name: str, names: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the known name most like `name`, "" if none is."""
    close = difflib.get_close_matches(str(name).lower(), list(names), n=1, cutoff=0.6)
    return f" (did you mean '{close[0]}'?)" if close else ""


def preset_file(preset: str | Path) -> Path:
    """Return a preset's path, from a path or from the bare name of a file in params/."""
    folder = runs.root() / "params"
    for path in (runs.resolve(preset), folder / f"{preset}.yaml"):
        if path.is_file():
            return path
    known = sorted(path.name for path in folder.glob("*.yaml"))
    raise InputError(f"No preset {preset}: choose one of {', '.join(known) or 'none yet'} in {folder}.")


def _read_preset(path: Path) -> dict:
    import yaml

    try:
        # bytes, so that YAML itself reports text that isn't UTF-8
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


def _value_of(text: str, parameter: Parameter | None) -> object:
    import yaml

    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        value = text
    # a shell has eaten the quotes that would tell text from a number
    return text if parameter and parameter.type == "str" and not isinstance(value, str) else value


def _refusal(name: object, parameters: Mapping[str, Parameter]) -> str | None:
    if name in SET_BY_LOOP:
        return f"{name}: not for presets or --set, {SET_BY_LOOP[name]}"
    return None if name in parameters else _unknown(name, parameters)


def _unknown(name: object, parameters: Mapping[str, Parameter]) -> str:
    return f"{name}: no notebook declares it{nearest(str(name), parameters) or ', see `cuadft params`'}"


def _raise(problems: list[str], where: str) -> None:
    if len(problems) == 1:
        raise InputError(f"Invalid parameter in {where}: {problems[0]}.")
    if problems:
        raise InputError("\n  ".join([f"{len(problems)} invalid parameters in {where}:", *problems]))


def _candidates(namespace: Mapping[str, object], parameters: Mapping[str, Parameter]) -> list[str]:
    """Return the names to check: declared ones and injected ones (outside Jupyter, all plain values)."""
    plain = (str, int, float, bool, list, tuple, dict, type(None))
    names = [name for name, value in namespace.items() if isinstance(value, plain)]
    names = [name for name in names if not name.startswith("_") and name not in INTERACTIVE]
    if "In" not in namespace:
        return names
    # a cell's own variables are no parameters, so a notebook that is run again by hand passes too
    cells = [cell for cell in namespace["In"] if cell.startswith("# Parameters\n")]
    injected = {name for cell in cells for name in _assigned(cell)}
    return [name for name in names if name in parameters or name in injected]


def _assigned(source: str) -> set[str]:
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Assign)]
    return {target.id for node in nodes for target in node.targets if isinstance(target, ast.Name)}
