"""The search figure: every setting drawn, the chosen one and the budget marked, and nothing to show said so."""

import pytest

from cuadft.evaluation.figures import scores


def row(tokens, recall, *, mode="bm25", classifier=0.0):
    return {
        "prompt_tokens": tokens,
        "char_recall": recall,
        "hit": recall,
        "mode": mode,
        "classifier_weight": classifier,
    }


TABLE = [row(120, 0.8, classifier=0.5), row(60, 0.5), row(100, 0.4, mode="dense"), row(300, 0.9, mode="fusion")]


def test_every_setting_is_drawn_by_its_kind_and_the_first_is_ringed():
    figure = scores.search_figure(TABLE, budget=200)
    for axes in figure.axes:
        drawn = {
            line.get_label(): list(line.get_xdata()) for line in axes.lines if not line.get_label().startswith("_")
        }
        assert drawn == {"words": [60], "embeddings": [100, 300], "classifier": [120], "chosen": [120]}
        assert 200 in [line.get_xdata()[0] for line in axes.lines] and axes.get_xlim()[1] > 300
    assert figure._repr_png_().startswith(b"\x89PNG")


def test_no_setting_is_said_in_the_figure():
    assert "Nothing to show" in scores.search_figure([], budget=200).texts[0].get_text()


@pytest.mark.parametrize("budget", [1, 10_000])
def test_a_budget_beyond_the_data_stays_in_sight(budget):
    low, high = scores.search_figure(TABLE, budget=budget).axes[0].get_xlim()
    assert low <= budget <= high
