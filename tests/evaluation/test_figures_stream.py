"""Properties of the stream's figures: every cell says value and size, the diagonal and the promotions can be seen."""

import itertools

import numpy as np
import pandas as pd
import pytest

from cuadft.core.errors import InputError
from cuadft.evaluation import forgetting
from cuadft.evaluation.figures import stream, style

LONG = "a_system_with_a_name_that_is_far_too_long"


def history(iterations, *, promoted=("sft",), contracts=3, questions=4, metric="f1", slices=True):
    """Return a history in which iteration i promotes promoted[i - 1], or keeps its champion ("incumbent") beyond."""
    names = dict(enumerate(promoted, 1))
    rows = []
    for i in range(1, iterations + 1):
        left = names.get(i, "rag" if i == 1 else "incumbent")
        for system in {"rag": 0, "sft": 0} | ({"incumbent": 0} if i > 1 else {}) | {left: 0}:
            for j, c, q in itertools.product(range(i + 1 if slices else 1), range(contracts), range(questions)):
                value = {"rag": 0.2, "incumbent": 0.5}.get(system, 0.7) + 0.01 * (i - j) + 0.01 * c
                rows.append(
                    {
                        "iteration": i,
                        "split": "slices" if j else "test",
                        "slice": j,
                        "system": system,
                        "champion": system == left,
                        "contract": f"{j}-{c}",
                        "id": f"{j}-{c}-{q}",
                        "is_impossible": False,
                        "value": min(value, 1),
                        "weight": 1.0,
                        "metric": metric,
                    }
                )
    return pd.DataFrame(rows)


def line(table, **options):
    return stream.iterations_figure(table, n_resamples=100, **options)


def texts(figure):
    figure.draw_without_rendering()
    return [" ".join(t.get_text().split()) for t in figure.findobj(lambda a: hasattr(a, "get_text")) if t.get_text()]


def opacities(figure):
    """Return the opacity of each cell that has a value."""
    image = figure.axes[0].images[0]
    return list(image.get_alpha()[~np.isnan(np.ma.filled(image.get_array(), np.nan))])


@pytest.mark.parametrize("iterations, cells", [(1, 2), (3, 9), (12, 90)])  # T (T + 1) / 2 after, T before
def test_every_cell_has_its_value_and_the_diagonal_is_framed(iterations, cells):
    figure = stream.slices_figure(history(iterations))
    assert len(opacities(figure)) == cells and texts(figure).count("12") == cells
    frames = [(round(p.get_x() + 0.46), round(p.get_y() + 0.44)) for p in figure.axes[0].patches]
    assert sorted(frames) == [(j, j + 1) for j in range(iterations)]  # row 0 is the base model


def test_scores_before_training_stand_in_italics_above_the_diagonal():
    figure = stream.slices_figure(history(3))
    italic = [t for t in figure.axes[0].texts if t.get_style() == "italic" and "." in t.get_text()]
    assert sorted((*t.xy, t.get_text()) for t in italic) == [(0, 0, "0.21"), (1, 1, "0.51"), (2, 2, "0.51")]


def test_rows_name_what_was_promoted_and_what_was_kept():
    figure = stream.slices_figure(history(3, promoted=("rag", "dpo")))
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == ["none (rag)", "1 (kept)", "2 (dpo)", "3 (kept)"]
    assert [t.get_text() for t in stream.slices_figure(history(2), "sft").axes[0].get_yticklabels()] == [
        "none (rag)",
        "1",
        "2",
    ]


@pytest.mark.parametrize("size", [{"contracts": 1}, {"questions": 1}])
def test_cells_of_few_questions_or_one_contract_are_weak(size):
    weak = stream.slices_figure(history(2, **size))
    assert max(opacities(weak)) < 0.25 and any("fewer than 5" in t for t in texts(weak))
    assert not any("fewer" in t for t in texts(stream.slices_figure(history(2))))


def test_colours_reach_over_what_occurs_and_bright_is_better_whatever_the_metric():
    for metric, better in (("f1", 0.7), ("false_answer", 0.2)):
        colours = style.value_colours(pd.Series([0.2, 0.7]), metric, whole=False)
        assert colours.get_clim() == (0.2, 0.7)
        assert sum(colours.to_rgba(better)) > sum(colours.to_rgba(0.9 - better))


def test_what_each_iteration_promoted_stands_above_it():
    figure = line(history(4, promoted=("sft", "incumbent", "dpo", "incumbent")))
    above = [t.get_text() for t in figure.axes[0].texts]
    assert above == ["sft", "kept", "dpo", "kept"]


def test_line_shows_champion_trained_and_base_with_their_intervals():
    figure = line(history(3))
    assert [t.get_text() for t in figure.legends[0].get_texts()] == ["champion", "sft", "rag"]
    assert len(figure.axes[0].collections) == 3 and any(
        "12 questions, 3 contracts, test set" in t for t in texts(figure)
    )
    assert [t.get_text() for t in line(history(2), systems=["rag"]).legends[0].get_texts()] == ["rag"]


def test_stream_without_champion_or_without_slices_is_drawn():
    undecided = history(2).assign(champion=False)
    assert [t.get_text() for t in line(undecided).legends[0].get_texts()] == ["sft", "rag"]
    assert "Nothing to show: no rows" in texts(stream.slices_figure(history(2, slices=False)))
    assert "Nothing to show: no rows" in texts(
        line(history(0).reindex(columns=history(1).columns).astype({"champion": bool}))
    )


@pytest.mark.parametrize("iterations", [1, 3, 12])
def test_nothing_runs_out_of_the_figure(iterations):
    table = history(iterations, promoted=(LONG, "sft"), contracts=2, questions=2)
    for figure in (stream.slices_figure(table), line(table, systems=["champion", LONG, "rag"])):
        figure.draw_without_rendering()
        box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def test_numbers_of_neighbouring_cells_do_not_touch(monkeypatch):
    table = history(12, contracts=1, questions=1)
    many = forgetting.slice_matrix(table).assign(n=1200, n_contracts=30)
    monkeypatch.setattr(forgetting, "slice_matrix", lambda *_: many)
    figure = stream.slices_figure(table)
    figure.draw_without_rendering()
    rows = {}
    for text in figure.axes[0].texts:
        rows.setdefault(text.xy[1], []).append(text.get_window_extent())
    for boxes in rows.values():
        boxes = sorted(boxes, key=lambda box: box.x0)
        assert all(a.x1 < b.x0 for a, b in zip(boxes, boxes[1:], strict=False))


@pytest.mark.parametrize("draw", [stream.slices_figure, lambda table, who: line(table, systems=[who])])
def test_misspelt_system_is_told_the_others(draw):
    with pytest.raises(InputError, match="choose from champion, incumbent, rag, sft"):
        draw(history(2), "stf")
