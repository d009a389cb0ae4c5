"""Properties of the figures: every kind of input is drawn, and a system looks the same everywhere."""

import io
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cuadft.core.errors import InputError
from cuadft.evaluation.figures import scores, style

SYSTEMS = ["rag", "rag_compiled", "sft", "dpo", "orpo", "a_system_with_a_rather_long_name"]
LOG = [
    {"loss": 2.0, "step": 1},
    {"eval_loss": 1.5, "step": 1},
    {"loss": 1.0, "step": 2},
    {"train_loss": 1.5, "step": 2},
]


def board(systems=SYSTEMS, *, low=0.4, high=0.6, metrics=scores.PANELS, seeds=1, n=820, n_contracts=20):
    spread = (0.45, 0.7) if seeds > 1 else (np.nan, np.nan)
    rows = [
        {
            "system": s,
            "split": "test",
            "metric": m,
            "value": 0.5,
            "low": low,
            "high": high,
            "n": n,
            "n_contracts": n_contracts,
            "failed": 3 * (s == "rag"),
            "seeds": seeds,
            "seed_low": spread[0],
            "seed_high": spread[1],
        }
        for s in systems
        for m in metrics
    ]
    return pd.DataFrame(
        rows,
        columns=[
            "system",
            "split",
            "metric",
            "value",
            "low",
            "high",
            "n",
            "n_contracts",
            "failed",
            "seeds",
            "seed_low",
            "seed_high",
        ],
    )


def delta_table(n=2, p_holm=(0.002, 0.31), detectable=(0.04, 0.11)):
    rows = [
        {
            "split": "test",
            "baseline": "sft",
            "system": s,
            "metric": "quote_f1",
            "value": -0.01,
            "low": -0.1,
            "high": 0.1,
            "n": 160,
            "n_contracts": 20,
            "p": p / 2,
            "p_holm": p,
            "detectable": d,
        }
        for s, p, d in zip(("dpo", "orpo")[:n], p_holm, detectable, strict=False)
    ]
    return pd.DataFrame(
        rows,
        columns=[
            "split",
            "baseline",
            "system",
            "metric",
            "value",
            "low",
            "high",
            "n",
            "n_contracts",
            "p",
            "p_holm",
            "detectable",
        ],
    )


def curve():
    rows = [
        {"retriever": r, "k": k, "hit": 0.2 * k, "char_recall": 0.1 * k} for r in ("BM25", "dense") for k in (1, 3, 5)
    ]
    return pd.DataFrame(rows)


def texts(figure):
    figure.draw_without_rendering()
    return " ".join(" ".join(t.get_text().split()) for t in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def one_panel(table, **options):
    return scores.panels_figure(table, ["quote_f1"], **options)


CASES = {
    "benchmark": lambda: one_panel(board()),
    "one system": lambda: one_panel(board(["sft"])),
    "no mathematics": lambda: one_panel(board(["sft_$x^$", "$\\frac$"])),
    "no bounds": lambda: one_panel(board(low=np.nan, high=np.nan)),
    "panels": lambda: scores.panels_figure(board()),
    "three panels": lambda: scores.panels_figure(board(), metrics=scores.PANELS[:3], detectable=delta_table()),
    "several seeds": lambda: one_panel(board(seeds=3), detectable=delta_table()),
    "panels with seeds": lambda: scores.panels_figure(board(seeds=3), detectable=delta_table()),
    "deltas": lambda: scores.deltas_figure(delta_table()),
    "deltas of one contract": lambda: scores.deltas_figure(delta_table(p_holm=[np.nan] * 2, detectable=[np.nan] * 2)),
    "loss": lambda: scores.loss_figure(LOG),
    "retrieval": lambda: scores.retrieval_figure(curve()),
}
EMPTY = {
    "benchmark": lambda: one_panel(board([])),
    "panels": lambda: scores.panels_figure(board([])),
    "deltas": lambda: scores.deltas_figure(delta_table(0)),
    "loss": lambda: scores.loss_figure([{"train_loss": 1.5, "step": 2}]),
    "retrieval": lambda: scores.retrieval_figure(curve().iloc[:0]),
}


@pytest.mark.parametrize("name", CASES)
def test_figure_draws_and_labels_every_axis(name):
    figure = CASES[name]()
    assert figure._repr_png_().startswith(b"\x89PNG")
    assert all(axes.get_xlabel() or axes.get_ylabel() for axes in figure.axes)


def test_a_picture_of_few_colours_looks_as_matplotlib_draws_it_and_is_much_smaller():
    figure, drawn = scores.panels_figure(board()), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=100)
    packed = np.asarray(Image.open(io.BytesIO(style.as_png(figure))).convert("RGB"), float)
    assert len(style.as_png(figure)) < len(drawn.getvalue()) / 2
    assert abs(packed - np.asarray(Image.open(drawn).convert("RGB"))).mean() < 1  # of 255


@pytest.mark.parametrize("name", EMPTY)
def test_nothing_to_show_is_said_in_the_figure(name):
    assert "Nothing to show" in texts(EMPTY[name]())


@pytest.mark.parametrize("name", CASES)
def test_no_text_runs_out_of_the_figure(name):
    figure = CASES[name]()
    figure.draw_without_rendering()
    width, height = figure.get_size_inches() * figure.dpi
    box = figure.get_tightbbox()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 * figure.dpi <= width and box.y1 * figure.dpi <= height


def test_axis_tells_direction_confidence_and_size():
    shown = texts(scores.panels_figure(board(metrics=["false_answer"]), ["false_answer"], confidence=0.9))
    assert "lower is better" in shown and "90% interval over contracts; 820 questions, 20 contracts" in shown


def test_confidence_is_not_rounded_to_certainty():
    assert "99.9% interval" in texts(one_panel(board(), confidence=0.999))


def test_axis_says_when_only_questions_were_resampled():
    shown = texts(one_panel(board(n=32, n_contracts=32), unit="question", detectable=delta_table()))
    assert "95% interval over questions, not contracts; 32 questions" in shown
    assert "20 contracts" not in shown and "32 contracts" not in shown


def test_smallest_difference_that_counts_is_under_the_figure():
    shown = texts(one_panel(board(n=160), detectable=delta_table(detectable=[0.0612] * 2)))
    assert "160 questions, 20 contracts cannot be told apart: below 0.061" in shown
    assert "Differences that cannot be told apart: at 80% power, paired by question." in shown


def test_smallest_differences_of_a_table_span_its_pairs():
    shown = texts(scores.panels_figure(board(), detectable=delta_table()))  # the table holds quote F1 alone
    assert shown.count("cannot be told apart: below 0.040 to 0.110") == 1


def test_smallest_difference_of_one_contract_is_unknown():
    shown = texts(one_panel(board(), detectable=delta_table(detectable=[np.nan] * 2)))
    assert "cannot be told apart: below an unknown size" in shown


def test_no_smallest_difference_is_named_unless_given():
    assert "told apart" not in texts(one_panel(board()))


def lines_of(figure):
    return [line for axes in figure.axes for line in axes.lines]


def test_spread_over_seeds_is_drawn_beside_the_interval():
    figure = one_panel(board(["sft"], metrics=["quote_f1"], seeds=3))
    drawn = [tuple(line.get_xdata()) for line in lines_of(figure) if len(line.get_xdata()) == 2]
    assert drawn == [(0.4, 0.6), (0.45, 0.7)] and "bracket: lowest to highest of 3 seeds" in texts(figure)
    assert figure.axes[0].get_xlim()[1] > 0.7


def test_one_seed_draws_no_bracket():
    figure = one_panel(board(["sft"], metrics=["quote_f1"]))
    assert len(lines_of(figure)) == 2 and "bracket" not in texts(figure)


def test_systems_of_every_panel_are_shown():
    table = board(["rag", "sft"], metrics=["f1", "em"])
    table = table[(table["metric"] == "em") | (table["system"] == "rag")]
    assert "sft" in texts(scores.panels_figure(table, ["f1", "em"]))


def test_missing_interval_and_failures_are_named():
    shown = texts(one_panel(board(low=np.nan, high=np.nan)))
    assert "no interval" in shown and "(3 failed)" in shown


def test_difference_below_zero_has_its_sign():
    assert "−0.010" in texts(scores.deltas_figure(delta_table()))


def test_only_what_stands_the_correction_is_solid():
    figure = scores.deltas_figure(delta_table())
    faces = [line.get_markerfacecolor() for line in lines_of(figure) if len(line.get_xdata()) == 1]
    assert faces == [style.SYSTEM_STYLE["dpo"]["color"], "white"]
    assert "Solid: p < 0.05 after Holm's correction for 2 comparisons; hollow: not, or not tested." in texts(figure)
    assert "p = 0.002" in texts(figure) and "p = 0.310" in texts(figure)


def test_level_of_the_test_follows_the_confidence():
    assert "p < 0.01 after" in texts(scores.deltas_figure(delta_table(), confidence=0.99))


def test_band_around_zero_is_as_wide_as_the_smallest_difference_that_counts():
    bands = scores.deltas_figure(delta_table()).axes[0].collections
    widths = [band.get_paths()[0].get_extents().width for band in bands]
    assert widths == pytest.approx([2 * 0.04, 2 * 0.11])


def test_without_a_test_nothing_is_solid():
    figure = scores.deltas_figure(delta_table(p_holm=[np.nan] * 2, detectable=[np.nan] * 2))
    assert "correction for 0 comparisons" in texts(figure) and "p =" not in texts(figure)
    assert {line.get_markerfacecolor() for line in lines_of(figure) if len(line.get_xdata()) == 1} == {"white"}


def test_system_keeps_its_style_whatever_else_is_shown():
    alone = style.system_styles(["my_model"])["my_model"]
    assert style.system_styles([*SYSTEMS[:5], "my_model"])["my_model"] == alone
    assert style.system_styles(["rag"])["rag"] == style.SYSTEM_STYLE["rag"]


def test_no_two_known_systems_look_alike():
    looks = [(s["color"], s["marker"]) for s in style.SYSTEM_STYLE.values()]
    assert len(set(looks)) == len(looks)


def test_metric_or_split_without_rows_is_named():
    with pytest.raises(InputError, match="no 'quote_f1' on split 'dev'"):
        one_panel(board(), split="dev")


def test_figures_do_without_pyplot():
    code = "import sys, cuadft.evaluation.figures.scores; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
