"""Properties of the flip rate: how often a judge's verdict changes with the order of the fields and the wording."""

import pytest
from test_judge import Engine, lm_of, reply, row

from cuadft.evaluation.judge import LMJudge, flip_rate


def rows(n, **other):
    return [row(f"answer {i}.", contract=f"c{i % 4}", **other) for i in range(n)]


def rates(choose, given, **settings):
    engine = Engine(choose)
    found = flip_rate(LMJudge(lm_of(engine), **settings), given, n_resamples=200)
    return found.set_index("varied"), engine.calls


def test_a_steady_judge_never_flips():
    found, calls = rates(lambda prompt: reply("correct"), rows(8))
    assert list(found.value) == [0, 0, 0] and list(found.n) == [8] * 3 and list(found.n_clusters) == [4] * 3
    assert calls == 8 * 5  # three orders and three wordings share one prompt


def test_a_judge_that_follows_the_order_flips_with_order_and_not_with_wording():
    def order(prompt):
        fields = prompt.split("[[ ## completed ## ]]")[1]  # what is graded stands after the description of the format
        first = fields.index("## reference ##") < fields.index("## answer ##")
        return reply("correct" if first or "answer 0." not in prompt else "incorrect")

    found, _ = rates(order, rows(8))
    assert found.value["order"] == 1 / 8 and found.value["wording"] == 0 and found.value["either"] == 1 / 8
    assert 0 <= found.low["order"] <= 1 / 8 <= found.high["order"] <= 1


def test_a_judge_that_follows_the_wording_flips_with_wording_and_not_with_order():
    found, _ = rates(lambda prompt: reply("partly" if "Compare what" in prompt else "correct"), rows(4))
    assert list(found.value[["order", "wording", "either"]]) == [0, 1, 1]


def test_rows_without_all_verdicts_are_counted_apart_and_flip_nothing():
    def choose(prompt):
        return "no idea" if "Compare what" in prompt and "answer 1." in prompt else reply("correct")

    found, _ = rates(choose, [*rows(4), row(None, error="x", contract="c9")])
    assert list(found.n[["order", "wording", "either"]]) == [4, 3, 3]
    assert list(found.failed[["order", "wording", "either"]]) == [0, 1, 1]
    assert list(found.value) == [0, 0, 0] and list(found.failed_generations) == [1, 1, 1]


@pytest.mark.parametrize("given", [[], [row(None, error="x")]])
def test_nothing_to_judge_gives_no_rate(given):
    found, calls = rates(lambda prompt: reply("correct"), given)
    assert found.value.isna().all() and list(found.n) == [0] * 3 and calls == 0
