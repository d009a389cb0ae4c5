"""Properties of the heat map: every cell says its value and number of questions, legibly, and weak cells look weak."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from cuadft.core.errors import InputError
from cuadft.data.schema import packaged_schema
from cuadft.evaluation.figures import scores, style

SYSTEMS = [
    "rag",
    "rag_compiled",
    "incumbent",
    "sft",
    "dpo",
    "orpo",
    "other",
    "a_system_with_a_name_that_is_far_too_long",
]


def table(
    groups=("Parties", "Insurance"),
    systems=("rag", "sft"),
    *,
    by="category",
    metric="f1",
    value=0.25,
    n=12,
    n_contracts=6,
):
    rows = [
        {
            "split": "test",
            by: g,
            "system": s,
            "metric": metric,
            "value": value,
            "low": 0.1,
            "high": 0.4,
            "n": n,
            "n_contracts": n_contracts,
        }
        for g in groups
        for s in systems
    ]
    columns = ["split", by, "system", "metric", "value", "low", "high", "n", "n_contracts"]
    return pd.DataFrame(rows, columns=columns)


def texts(figure):
    figure.draw_without_rendering()
    return [t.get_text() for t in figure.findobj(lambda artist: hasattr(artist, "get_text")) if t.get_text()]


def opacities(figure):
    """Return the opacity of each cell that has a value."""
    image = figure.axes[0].images[0]
    return set(image.get_alpha()[~np.isnan(np.ma.filled(image.get_array(), np.nan))])


def luminance(colour):
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_every_cell_has_its_value_and_its_number_of_questions():
    shown = texts(scores.heatmap_figure(table()))
    assert shown.count("0.25") == 4 and shown.count("12") == 4


def test_row_label_has_questions_and_contracts():
    uneven = table()
    uneven.loc[0, "n"] = 10
    shown = texts(scores.heatmap_figure(uneven))
    assert "Insurance   12 / 6" in shown and "Parties   10 to 12 / 6" in shown


@given(st.floats(0, 1))
def test_text_can_be_read_on_every_colour(value):
    for metric in ("f1", "false_answer"):
        colour = style.value_colours(pd.Series([value]), metric).to_rgba(value)
        dark, light = sorted([luminance(colour), luminance(style.text_colour(colour))])
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2.1, level AA


def test_lightness_orders_the_values():
    colours = style.value_colours(pd.Series([1.0]), "f1")
    steps = [luminance(colours.to_rgba(v)) for v in np.linspace(0, 1, 21)]
    assert steps == sorted(steps)


def test_bright_is_better_whatever_the_metric():
    good, bad = (style.value_colours(pd.Series([1.0]), "false_answer").to_rgba(v) for v in (0.0, 1.0))
    assert luminance(good) > luminance(bad)


@pytest.mark.parametrize("size", [{"n": 4}, {"n_contracts": 1}])
def test_cells_of_few_questions_or_one_contract_are_weak(size):
    strong, weak = scores.heatmap_figure(table()), scores.heatmap_figure(table(**size))
    assert opacities(strong) == {1.0} and max(opacities(weak)) < 0.25
    assert any("fewer than 5 questions" in t for t in texts(weak)) and not any("fewer" in t for t in texts(strong))


def test_cell_to_which_the_metric_does_not_apply_has_a_dash():
    part = table()
    part.loc[0, ["value", "n", "n_contracts"]] = np.nan, 0, 0
    assert texts(scores.heatmap_figure(part)).count("–") == 1 and texts(scores.heatmap_figure(part)).count("0.25") == 3
    assert texts(scores.heatmap_figure(part.iloc[1:])).count("–") == 1  # the row is missing altogether


def test_group_without_any_value_is_left_out():
    part = table()
    part.loc[part["category"] == "Parties", ["value", "n"]] = np.nan, 0
    assert not any("Parties" in t for t in texts(scores.heatmap_figure(part)))


def test_contract_types_are_drawn_and_the_unknown_type_comes_last():
    figure = scores.heatmap_figure(table(["", "Supply", "Agency"], by="contract_type"))
    labels = [t.get_text().split("  ")[0] for t in figure.axes[0].get_yticklabels()]
    assert labels == ["Agency", "Supply", "(unknown)"]


@pytest.mark.parametrize(
    "groups, systems",
    [
        (list(packaged_schema().categories), SYSTEMS),
        ([f"Type {i}" for i in range(26)], SYSTEMS),
        (["Parties"], ["rag"]),
        (["P" * 200], ["s" * 200]),
    ],
)
def test_nothing_runs_out_of_the_figure_or_over_its_neighbour(groups, systems):
    figure = scores.heatmap_figure(table(groups, systems, n=1234, metric="char_precision"))
    figure.draw_without_rendering()
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
    boxes = [t.get_window_extent() for t in figure.axes[0].texts[: 2 * len(systems)]]  # of the first row
    assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))
    lines = figure.axes[0].transData.transform([(0, 0), (0, 1)])[:, 1]
    assert boxes[0].height < abs(lines[0] - lines[1])


def test_no_rows_are_said():
    assert "Nothing to show: no rows" in texts(scores.heatmap_figure(table([])))


def test_a_table_without_rows_of_the_split_is_refused():
    with pytest.raises(InputError, match="no 'f1' on split 'test'"):
        scores.heatmap_figure(table().assign(split="dev"))
