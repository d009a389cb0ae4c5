"""Saved results: a table and a figure reach the iteration's folder whole, and come back to be shown."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from matplotlib.figure import Figure

from cuadft.core.runs import Iteration
from cuadft.evaluation.results import save


def test_a_table_goes_to_metrics_and_a_figure_to_figures_under_its_name(tmp_path: Path) -> None:
    iteration = Iteration(tmp_path, 1)
    table, figure = pd.DataFrame({"answer": ["a\rb", 'c "d"'], "f1": [0.5, 1.0]}), Figure()
    for folder in ("metrics", "figures"):
        iteration.path(folder).mkdir(parents=True)
    assert save(iteration, "board", table) is table and save(iteration, "board", figure) is figure
    assert pd.read_csv(iteration.path("metrics", "board.csv")).equals(table)
    assert iteration.path("figures", "board.png").read_bytes().startswith(b"\x89PNG")
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 2


def test_a_failed_write_leaves_the_earlier_table(tmp_path: Path, monkeypatch) -> None:
    iteration = Iteration(tmp_path, 1)
    iteration.path("metrics").mkdir(parents=True)
    save(iteration, "board", pd.DataFrame({"f1": [1.0]}))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cuadft.core.files.os.replace", full)
    with pytest.raises(OSError, match="No space"):
        save(iteration, "board", pd.DataFrame({"f1": [0.0]}))
    assert pd.read_csv(iteration.path("metrics", "board.csv"))["f1"].tolist() == [1.0]
