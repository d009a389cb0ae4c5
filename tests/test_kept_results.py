"""Figures in the pages are those of the runs that are kept in notebooks/results/, to the digit shown."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import pandas as pd
import pytest
from benchmarks.parts import parts_table
from documents import PAGES, ROOT
from refresh_results import RESULTS, decision_of, draw, keep, run_of

from cuadft.core.runs import Iteration
from cuadft.evaluation.metrics import METRICS
from cuadft.evaluation.official import MEASURES, official_table

MARK = re.compile(r"<!-- results: (\S+(?: \S+)*) -->\n((?:\|.*\n)+)")  # a table that follows this mark is checked
CELL = re.compile(r"(-?\d+\.\d+)(?: \[(-?\d+\.\d+), (-?\d+\.\d+)\])?")
NAMED = {label.lower(): name for name, (label, _) in (METRICS | MEASURES).items()}
LABELS = {label.partition(" (")[0]: name for label, name in NAMED.items()} | NAMED


def untrue_cells(page: str, results: Path) -> tuple[list[str], int]:
    """Return the cells of marked tables that differ from the kept results, and the number of cells compared.

    A table's first column names systems in words of code, its header the metrics by their labels.
    """
    wrong, compared = [], 0
    for named, table in MARK.findall(page):
        rows = [row for file in named.split() for row in csv.DictReader((results / file).open())]
        known = {
            (r["system"], r.get("metric") or r.get("measure")): r for r in rows if r.get("split", "test") == "test"
        }
        lines = [line.strip().removeprefix("|").removesuffix("|") for line in table.splitlines()]
        header, _, *body = [[cell.strip(" *") for cell in line.split("|")] for line in lines]
        for system, *cells in body:
            for label, cell in zip(header[1:], cells, strict=True):
                if not (name := re.match(r"`(\w+)`", system)) or not (shown := CELL.fullmatch(cell)):
                    continue
                row, compared = known[name[1], LABELS[label.lower()]], compared + 1
                for text, value in zip(shown.groups(), (row["value"], row["low"], row["high"])):
                    if text and f"{float(value):.{len(text.partition('.')[2])}f}" != text:
                        wrong.append(f"{system} {label}: {text}, kept {value}")
    return wrong, compared


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_figures_of_a_page_are_those_of_the_kept_results(page: Path) -> None:
    text = page.read_text()
    wrong, compared = untrue_cells(text, RESULTS)
    assert wrong == [] and (compared > 0) == bool(MARK.search(text))


def test_every_kept_result_is_shown_on_a_page() -> None:
    shown = {file for page in PAGES for named, _ in MARK.findall(page.read_text()) for file in named.split()}
    assert {path.parent.name for path in RESULTS.glob("*/scoreboard.csv")} == {file.split("/")[0] for file in shown}


PAGE = """<!-- results: some/scoreboard.csv some/parts.csv -->
| system | quote F1 |
| --- | --- |
| `sft` | {} |
| `sentences` | 0.50 |
| others (published) | |
"""


@pytest.mark.parametrize(
    ("cell", "fine"),
    [("0.69 [0.56, 0.79]", True), ("0.7", True), ("0.70", False), ("0.69 [0.57, 0.79]", False)],
)
def test_a_figure_that_is_not_the_kept_one_is_found(tmp_path: Path, cell: str, fine: bool) -> None:
    (tmp_path / "some").mkdir()
    rows = "system,split,metric,value,low,high\nsft,dev,quote_f1,0.1,0,1\nsft,test,quote_f1,0.6881,0.5612,0.794\n"
    (tmp_path / "some" / "scoreboard.csv").write_text(rows)
    (tmp_path / "some" / "parts.csv").write_text("measure,value,low,high,system\nquote_f1,0.5,0.4,0.6,sentences\n")
    wrong, compared = untrue_cells(PAGE.format(cell), tmp_path)
    assert (wrong == []) == fine and compared == 2


def test_a_run_on_the_official_split_has_a_figure_beside_published_results(tmp_path: Path) -> None:
    folder = tmp_path / "official"
    folder.mkdir()
    rows = "system,split,metric,value,low,high,n,n_contracts\nsft,test,quote_f1,0.6,0.5,0.7,9,3\n"
    (folder / "scoreboard.csv").write_text(rows + "sft,test,detection_f1,0.8,0.7,0.9,9,3\n")
    assert [path.name for path in draw(folder)] == ["official.png"]
    official_table({}).to_csv(folder / "official.csv", index=False)
    assert [path.name for path in draw(folder)] == ["official.png", "official_published.png"]
    assert all((tmp_path / name).stat().st_size > 10_000 for name in ("official.png", "official_published.png"))


def test_both_parts_together_are_the_system_that_the_run_scored(smoke: Path) -> None:
    iteration = Iteration(smoke, 2)
    parts = parts_table(iteration, "sft", n_resamples=100).set_index(["system", "measure"])["value"]
    kept = pd.read_csv(iteration.path("metrics", "cuad.csv"))
    for row in kept[kept["system"] == "sft"].itertuples():
        assert parts["both", row.measure] == pytest.approx(row.value, abs=1e-4, nan_ok=True)


def test_kept_results_hold_no_text_of_a_contract(smoke: Path, tmp_path: Path) -> None:
    folder = keep(smoke, tmp_path)
    kept = " ".join(path.read_text() for path in folder.iterdir())
    titles = [json.loads(line)["title"] for line in (smoke / "contracts.jsonl").read_text().splitlines()]
    assert titles and not any(title in kept for title in titles) and str(smoke) not in kept
    assert run_of(smoke, smoke / "iter-02")["iteration"] == 2
    decision = json.loads((smoke / "iter-02" / "decision.json").read_text())
    assert decision_of(decision)["promoted"] == decision["promoted"]["system"]
    assert sum(path.stat().st_size for path in folder.iterdir()) < 200_000
