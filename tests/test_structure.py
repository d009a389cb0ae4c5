"""The rooms of the package: imports run in one direction, never in a circle, and a room costs nothing to open."""

from __future__ import annotations

import ast
import graphlib
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from slow import SLOW_FILES

ROOT = Path(__file__).parents[1]
ORDER = (
    "core",
    "data",
    "models",
    "evaluation",
    "training",
    "retrieval",
    "rag",
    "selfinstruct",
    "feedback",
    "review",
    "loop",
    "cli",
)
HEAVY = ("torch", "transformers", "trl", "dspy", "sentence_transformers", "pandas", "matplotlib")


def modules(root: Path) -> dict[str, Path]:
    """Return every module of the package in `root` by its dotted name; rooms stand for their __init__."""
    found = {}
    for path in sorted((root / "cuadft").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(root: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (importing module, imported module, place) for each import inside the package, also those in functions."""
    known = modules(root)
    for name, path in known.items():
        for node in ast.walk(ast.parse(path.read_text())):
            targets = []
            if isinstance(node, ast.ImportFrom):
                package = name if path.name == "__init__.py" else name.rpartition(".")[0]
                above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
                source = ".".join([*above, *([node.module] if node.module else [])])
                targets = [f"{source}.{a.name}" if f"{source}.{a.name}" in known else source for a in node.names]
            elif isinstance(node, ast.Import):
                targets = [alias.name for alias in node.names]
            for target in targets:
                if target in known and target != name:
                    yield name, target, f"{path.relative_to(root)}:{node.lineno}"


def room(module: str) -> str:
    """Return the room of a module, "" for the package itself."""
    return (module.split(".") + [""])[1]


def against_the_order(root: Path) -> list[str]:
    """Return every import from a room to a later one, with its place."""
    return [
        f"{place}: {room(name)} uses {room(target)}"
        for name, target, place in imports(root)
        if room(name) in ORDER and room(target) in ORDER and ORDER.index(room(name)) < ORDER.index(room(target))
    ]


def circle(root: Path) -> list[str]:
    """Return the modules of one circle of imports, none if there is no circle."""
    graph: dict[str, set[str]] = {}
    for name, target, _ in imports(root):
        graph.setdefault(name, set()).add(target)
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def plant(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / "cuadft" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_every_file_of_slow_tests_is_there():
    assert [name for name in SLOW_FILES if not (ROOT / "tests" / name).is_file()] == []


def test_every_module_stands_in_a_room():
    assert {room(name) for name in modules(ROOT)} - {"", "sample"} == set(ORDER)


def test_no_import_runs_against_the_order_of_the_rooms():
    assert against_the_order(ROOT) == []


def test_no_modules_import_each_other_in_a_circle():
    assert circle(ROOT) == []


@pytest.mark.parametrize(
    "line",
    [
        "from cuadft.rag import program",
        "from cuadft.rag.program import ask",
        "import cuadft.rag.program",
        "from ..rag.program import ask",
        "def late():\n    from cuadft.rag.program import ask",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from cuadft.rag.program import ask",
    ],
)
def test_a_planted_import_against_the_order_is_found(tmp_path, line):
    plant(tmp_path, {"core/text.py": line, "rag/program.py": "def ask(): ..."})
    (found,) = against_the_order(tmp_path)
    assert found.startswith("cuadft/core/text.py:") and found.endswith("core uses rag")


def test_a_planted_circle_is_found_also_if_one_import_is_lazy(tmp_path):
    files = {
        "data/a.py": "from cuadft.data import b",
        "data/b.py": "from cuadft.data.c import x",
        "data/c.py": "def x():\n    from cuadft.data import a\n    return a",
    }
    plant(tmp_path, files)
    assert set(circle(tmp_path)) == {"cuadft.data.a", "cuadft.data.b", "cuadft.data.c"}
    plant(tmp_path, {"data/c.py": "x = 1"})
    assert circle(tmp_path) == []


@pytest.mark.parametrize("name", ORDER[:-1])
def test_a_room_says_what_it_is_for_and_offers_only_what_it_has(name):
    opened = importlib.import_module(f"cuadft.{name}")
    assert len(opened.__doc__.strip()) > 100 and ">>>" not in opened.__doc__
    assert opened.__all__, "notebooks use something of every room"
    for offered in opened.__all__:
        assert getattr(opened, offered) is not None
        assert not (ROOT / "cuadft" / name / f"{offered}.py").exists(), (
            f"{offered} is a file and a name: call one otherwise"
        )


def test_opening_the_package_and_every_room_loads_no_heavy_library():
    code = f"import sys, cuadft\nfrom cuadft import {', '.join(ORDER[:-1])}\n"
    code += f"print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_a_notebook_imports_rooms_and_not_files(path):
    cells = json.loads(path.read_text())["cells"]
    source = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    used = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Import | ast.ImportFrom)]
    lines = [node for node in used if "cuadft" in ast.unparse(node)]
    assert 1 <= len(lines) <= 4
    for node in lines:
        assert isinstance(node, ast.ImportFrom) and node.module.split(".")[0] == "cuadft"
        assert node.module == "cuadft" or node.module.removeprefix("cuadft.") in ORDER, ast.unparse(node)
