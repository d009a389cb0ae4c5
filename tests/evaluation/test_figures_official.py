"""The figure of our systems beside published ones."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from cuadft.evaluation.figures import published, style
from cuadft.evaluation.official import MEASURES, official_table


def board(value, *, reach=0.03):
    rows = [{"measure": m, "value": value, "low": value - reach, "high": value + reach} for m in MEASURES]
    return pd.DataFrame(rows).assign(n=3608, n_contracts=88)


def panels(table, **more):
    figure = published.official_figure(table, **more)
    FigureCanvasAgg(figure).draw()
    return figure, dict(zip(published.OFFICIAL_PANELS, figure.axes, strict=True))


def names(axes):
    return [label.get_text() for label in axes.get_yticklabels()]


@pytest.fixture
def table():
    return official_table({"sft": board(0.7), "mine": board(0.45)})


def test_each_panel_is_sorted_by_value_and_holds_who_reports_it(table):
    figure, found = panels(table)
    assert names(found["aupr"]) == ["sft", "RoBERTa-large", "DeBERTa-xlarge", "mine", "RoBERTa-base", "BERT-base"]
    assert len(names(found["coverage_f1"])) == 13 and len(names(found["detection_f1"])) == 5
    assert "on 88 of the 102 contracts" in figure.get_supxlabel().replace("\n", " ")


def test_ours_keep_their_style_and_published_ones_are_grey(table):
    _, found = panels(table)
    colours = [line.get_color() for line in found["aupr"].lines if line.get_marker() != "None"]
    sft, mine = (style.system_styles([name])[name]["color"] for name in ("sft", "mine"))
    assert colours == [sft, style.GREY, style.GREY, mine, style.GREY, style.GREY]


def test_a_value_without_interval_has_no_line(table):
    _, found = panels(table)
    lines = [line.get_xdata() for line in found["aupr"].lines if line.get_marker() == "None"]
    assert [bool(np.isfinite(x).all()) for x in lines] == [True, False, False, True, False, False]


def test_no_texts_overlap(table):
    figure, found = panels(table)
    for axes in found.values():
        boxes = [label.get_window_extent() for label in axes.get_yticklabels()]
        assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[n + 1 :])
        assert all(box.x0 >= 0 for box in boxes)
    for left, right in (("detection_f1", "coverage_f1"), ("coverage_f1", "aupr")):
        numbers = [text.get_window_extent() for text in found[left].texts]
        labels = [label.get_window_extent() for label in found[right].get_yticklabels()]
        assert not any(a.overlaps(b) for a in numbers for b in labels)


def test_published_ones_alone_and_nothing_are_drawn():
    assert "on none of" in panels(official_table({}))[0].get_supxlabel()
    assert not published.official_figure(official_table({}).iloc[:0]).axes
