"""Properties of the figures: every kind of input is drawn, and a system looks the same everywhere."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from cuadft import figures
from cuadft.errors import InputError

SYSTEMS = ["rag", "rag_compiled", "sft", "dpo", "orpo", "a_system_with_a_rather_long_name"]
LOG = [
    {"loss": 2.0, "step": 1},
    {"eval_loss": 1.5, "step": 1},
    {"loss": 1.0, "step": 2},
    {"train_loss": 1.5, "step": 2},
]


def board(systems=SYSTEMS, *, low=0.4, high=0.6, metrics=figures.PANELS):
    rows = [
        {"system": s, "split": "test", "metric": m, "value": 0.5, "low": low, "high": high, "n": 820,
         "n_contracts": 20, "failed": 3 * (s == "rag")}
        for s in systems for m in metrics
    ]  # fmt: skip
    return pd.DataFrame(
        rows, columns=["system", "split", "metric", "value", "low", "high", "n", "n_contracts", "failed"]
    )


def delta_table(n=2):
    rows = [{"split": "test", "baseline": "sft", "system": s, "metric": "f1", "value": -0.01, "low": -0.1,
             "high": 0.1, "n": 1, "n_contracts": 1} for s in ("dpo", "orpo")[:n]]  # fmt: skip
    return pd.DataFrame(
        rows, columns=["split", "baseline", "system", "metric", "value", "low", "high", "n", "n_contracts"]
    )


def categories(n=41):
    rows = [{"split": "test", "category": f"Category {c}", "system": s, "metric": "f1", "value": c / 41,
             "n": 5 * (c != 3)}
            for c in range(n) for s in SYSTEMS if (c, s) != (1, "rag")]  # fmt: skip
    return pd.DataFrame(rows, columns=["split", "category", "system", "metric", "value", "n"])


def curve():
    rows = [
        {"retriever": r, "k": k, "hit": 0.2 * k, "char_recall": 0.1 * k}
        for r in ("BM25", "dense")
        for k in (1, 3, 5)
    ]
    return pd.DataFrame(rows)


def margins():
    return [{"rewards/margins": 0.1 * i, "rewards/accuracies": 0.5, "step": i} for i in range(4)]


def texts(figure):
    figure.draw_without_rendering()
    return " ".join(t.get_text() for t in figure.findobj(lambda artist: hasattr(artist, "get_text")))


CASES = {
    "benchmark": lambda: figures.benchmark(board()),
    "one system": lambda: figures.benchmark(board(["sft"])),
    "no bounds": lambda: figures.benchmark(board(low=np.nan, high=np.nan)),
    "panels": lambda: figures.panels(board()),
    "three panels": lambda: figures.panels(board(), metrics=figures.PANELS[:3]),
    "deltas": lambda: figures.deltas(delta_table()),
    "categories": lambda: figures.category_table(categories()),
    "loss": lambda: figures.loss_curve(LOG),
    "margins": lambda: figures.reward_margins(margins()),
    "retrieval": lambda: figures.retrieval(curve()),
}
EMPTY = {
    "benchmark": lambda: figures.benchmark(board([])),
    "panels": lambda: figures.panels(board([])),
    "deltas": lambda: figures.deltas(delta_table(0)),
    "categories": lambda: figures.category_table(categories(0)),
    "loss": lambda: figures.loss_curve([{"train_loss": 1.5, "step": 2}]),
    "margins": lambda: figures.reward_margins([]),
    "retrieval": lambda: figures.retrieval(curve().iloc[:0]),
}


@pytest.mark.parametrize("name", CASES)
def test_figure_draws_and_labels_every_axis(name):
    figure = CASES[name]()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert all(
        axes.get_xlabel() or axes.get_ylabel() for axes in figure.axes if axes.get_label() != "<colorbar>"
    )


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_show_is_said_in_the_figure(name):
    assert "Nothing to show" in texts(EMPTY[name]())


@pytest.mark.parametrize("name", ["benchmark", "panels", "deltas", "retrieval"])
def test_no_text_runs_out_of_the_figure(name):
    figure = CASES[name]()
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    box = figure.get_tightbbox()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 * figure.dpi <= width and box.y1 * figure.dpi <= height


def test_axis_tells_direction_confidence_and_size():
    shown = texts(figures.benchmark(board(metrics=["false_answer"]), "false_answer", confidence=0.9))
    assert "lower is better" in shown and "90% interval; 820 questions, 20 contracts" in shown


def test_missing_interval_and_failures_are_named():
    shown = texts(figures.benchmark(board(low=np.nan, high=np.nan)))
    assert "no interval" in shown and "(3 failed)" in shown


def test_difference_below_zero_has_its_sign():
    assert "−0.010" in texts(figures.deltas(delta_table()))


def test_system_keeps_its_style_whatever_else_is_shown():
    alone = figures.styles(["my_model"])["my_model"]
    assert figures.styles([*SYSTEMS[:5], "my_model"])["my_model"] == alone
    assert figures.styles(["rag"])["rag"] == figures.SYSTEM_STYLE["rag"]


def test_no_two_systems_look_alike():
    names = [*SYSTEMS[:5], "incumbent", *(f"other{i}" for i in range(12))]
    looks = [(s["color"], s["marker"]) for s in figures.styles(names).values()]
    assert len(set(looks)) == len(names)


def test_metric_or_split_without_rows_is_named():
    with pytest.raises(InputError, match="no 'f1' on split 'dev'"):
        figures.benchmark(board(), split="dev")


def test_figures_do_without_pyplot():
    code = "import sys, cuadft.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
