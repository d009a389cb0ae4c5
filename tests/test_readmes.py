"""What READMEs promise is there: links, anchors, files, imports, presets. Printed commands are in test_commands.py."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest
from documents import PAGES, ROOMS, ROOT, read_page

LONGEST_README = 130  # lines: the page that convinces; what is longer belongs to a room
NAMED_FILE = re.compile(r"(?:cuadft|notebooks|params|tests)/[\w./-]*\w\.(?:py|ipynb|yaml|md|csv|json)")
OTHERS_FILES = {"evaluate.py"}  # named, and not ours: CUAD's own script
DATE = r"\d{4}-\d\d-\d\d"


def broken_links(page: Path, root: Path = ROOT) -> list[str]:
    """Return the relative links of a page that lead to no file in `root`, or to no heading of its page."""
    broken = []
    for link in read_page(page.read_text()).links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        inside = target.is_relative_to(root) and target.exists()
        if not inside or (anchor and anchor not in read_page(target.read_text()).anchors):
            broken.append(link)
    return broken


def missing_imports(text: str) -> list[str]:
    """Return what the Python blocks of a page import from the package, and the package does not have."""
    missing = []
    code = "\n".join(code for language, code in read_page(text).blocks if language == "python")
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "cuadft":
            module = importlib.import_module(node.module)
            offered = getattr(module, "__all__", dir(module))  # a room loads what it offers only when it is used
            missing += [f"{node.module}.{name.name}" for name in node.names if name.name not in offered]
    return missing


def missing_files(page: Path, root: Path = ROOT) -> list[str]:
    """Return the files that a page names and that do not exist: from the root, or modules beside the page."""
    text = page.read_text()
    words = [word for word in read_page(text).words if re.fullmatch(r"[\w/]+\.py", word)]
    beside = [word for word in words if not NAMED_FILE.fullmatch(word) and Path(word).name not in OTHERS_FILES]
    named = [name for name in NAMED_FILE.findall(text) if not ((root / name).exists() or (page.parent / name).exists())]
    return named + [word for word in beside if not (page.parent / word).is_file()]


def rows_of(text: str) -> dict[str, str]:
    """Return the rows of a page's tables by the word of code in their first cell."""
    return dict(re.findall(r"^\| `(\w+)` (.*)$", text, re.MULTILINE))


def untrue_presets(table: str, folder: Path) -> list[str]:
    """Return the presets without a row, or with another date of the last success than in their head."""
    untrue, rows = [], rows_of(table)
    for path in folder.glob("*.yaml"):
        head = " ".join(line.strip("# ") for line in path.read_text().splitlines() if line.startswith("#"))
        dates = re.findall(rf"Last success: ({DATE})", head)
        expected = dates or (["not run here"] if "Not run" in head else ["a last success in its head"])
        if not any(word in rows.get(path.stem, "") for word in expected):
            untrue.append(f"{path.stem}: {expected[0]}")
    return untrue + [f"{name}: no such preset" for name in presets_of(table) if not (folder / f"{name}.yaml").is_file()]


def presets_of(table: str) -> list[str]:
    """Return the presets that the first table of a page lists."""
    return list(rows_of(table.split("\n\n|")[1].split("\n\n")[0]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_files_and_imports_of_a_page_are_there(page: Path) -> None:
    assert broken_links(page) == []
    assert missing_files(page) == []
    assert missing_imports(page.read_text()) == []


def first_page_faults(text: str) -> list[str]:
    """Return what a first page lacks: its few lines, the commands to begin with, a link to each room."""
    faults = ["too long"] if len(text.splitlines()) > LONGEST_README else []
    needed = [*("make quickstart", "make check", "make test"), *(f"](cuadft/{room.name}/README.md)" for room in ROOMS)]
    return faults + [each for each in needed if each not in text]


def test_the_first_page_is_short_names_the_commands_to_begin_with_and_links_every_room() -> None:
    assert first_page_faults((ROOT / "README.md").read_text()) == []


@pytest.mark.parametrize("folder", ROOMS, ids=lambda folder: folder.name)
def test_a_room_has_a_page_with_names_to_import(folder: Path) -> None:
    blocks = read_page((folder / "README.md").read_text()).blocks
    assert any(f"from cuadft.{folder.name} import " in code for language, code in blocks if language == "python")


def test_every_preset_has_a_row_with_the_date_of_its_last_success() -> None:
    assert untrue_presets((ROOT / "params" / "README.md").read_text(), ROOT / "params") == []


@pytest.mark.parametrize("place", [".", "notebooks"])
def test_every_notebook_is_in_the_table(place: str) -> None:
    links = read_page((ROOT / place / "README.md").read_text()).links
    names = {path.relative_to(ROOT / place).as_posix() for path in (ROOT / "notebooks").glob("0*.ipynb")}
    assert len(names) == 6 and names <= set(links)


# --- each check can fail


@pytest.mark.parametrize(
    "link, whole",
    [
        ("other.md", True),
        ("other.md#two-words", True),
        ("#the-cuad_cpu-run-60-minutes", True),
        ("#again-1", True),
        ("https://example.org/none", True),
        ("gone.md", False),
        ("Other.md", False),
        ("other.md#two", False),
        ("#again-2", False),
        ("../outside.md", False),
    ],
)
def test_a_link_to_nowhere_is_found(tmp_path: Path, link: str, whole: bool) -> None:
    (tmp_path / "outside.md").write_text("x")
    root = tmp_path / "root"
    root.mkdir()
    (root / "other.md").write_text("## Two words\n")
    page = root / "page.md"
    headings = "# The `cuad_cpu` run: 60 minutes\n\n# Again\n\n# Again\n\n"
    for written in (f"| a |\n| --- |\n| see [it]({link}) |\n", f"![a picture\nof it]({link})\n"):
        page.write_text(headings + written)
        assert broken_links(page, root) == ([] if whole else [link])
    page.write_text(f"```text\n[no link]({link})\n```\nand `[none]({link})`\n")
    assert broken_links(page, root) == []


def test_a_name_that_the_package_lacks_is_found() -> None:
    block = "```python\nfrom cuadft.data import read_contracts, read_leases  # of any layout\n```\n"
    assert missing_imports(block) == ["cuadft.data.read_leases"]
    with pytest.raises(ModuleNotFoundError):
        missing_imports("```python\nfrom cuadft.leases import read\n```\n")


def test_a_file_that_is_gone_is_found(tmp_path: Path) -> None:
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "there.yaml").touch()
    page = tmp_path / "page.md"
    page.write_text(
        "```bash\ncuadft run params/gone.yaml --set a=1\n```\n`params/there.yaml`, `lost.py`, `evaluate.py`.\n"
    )
    assert missing_files(page, tmp_path) == ["params/gone.yaml", "lost.py"]


def test_a_preset_without_a_row_or_with_another_date_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("# A. Last\n# success: 2026-01-02.\nseed: 8\n")
    (tmp_path / "b.yaml").write_text("# B. Not run here.\n")
    table = "# Presets\n\n| preset | success |\n| --- | --- |\n| `a` | 2026-01-02 |\n| `b` | not run here |\n\nEnd."
    assert untrue_presets(table, tmp_path) == []
    assert untrue_presets(table.replace("01-02", "01-03"), tmp_path) == ["a: 2026-01-02"]
    assert untrue_presets(table.replace("| `b` | not run here |\n", ""), tmp_path) == ["b: not run here"]
    (tmp_path / "b.yaml").unlink()
    assert untrue_presets(table, tmp_path) == ["b: no such preset"]


def test_a_first_page_that_is_long_or_leaves_out_a_room_is_found() -> None:
    text = (ROOT / "README.md").read_text()
    assert first_page_faults(text + "\n" * LONGEST_README) == ["too long"]
    assert first_page_faults(text.replace("](cuadft/rag/README.md)", "]")) == ["](cuadft/rag/README.md)"]
    assert first_page_faults(text.replace("make check", "check")) == ["make check"]
