"""Properties of the alignment figure: each logged value is drawn once, in one unit; a collapse is told from noise."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cuadft.core import runs
from cuadft.evaluation.figures import training
from cuadft.evaluation.figures.style import SYSTEM_STYLE

BETA = 0.1


def dpo(steps=8, *, fall=0.0, noise=0.0):
    """Return a log whose chosen answers lose `fall` nats against the SFT model until the last step."""
    draw = random.Random(1)
    log = []
    for n in range(steps):
        lost = fall * (n + 1) / steps
        log.append(
            {
                "loss": 0.7,
                "rewards/chosen": -BETA * lost,
                "rewards/margins": 0.1 * n,
                "rewards/accuracies": 0.5,
                "logps/chosen": -8 - lost + noise * draw.uniform(-1, 1),
                "logps/rejected": -20 - 2 * lost,
                "step": n + 1,
            }
        )
    return [*log, {"train_runtime": 3.0, "train_loss": 0.7, "step": steps}]


def orpo(steps=8):
    return [
        {
            "rewards/chosen": -0.02,
            "rewards/margins": 0.05,
            "rewards/accuracies": 0.75,
            "logps/chosen": -0.2,
            "logps/rejected": -0.5,
            "log_odds_ratio": -0.4,
            "nll_loss": 3.0,
            "step": n + 1,
        }
        for n in range(steps)
    ]


def kto(steps=8):
    return [{k: v for k, v in entry.items() if k != "rewards/accuracies"} | {"kl": 1.5} for entry in dpo(steps)]


def online(steps=8, length="completions/mean_length"):
    return [{"reward": 0.5, "kl": 0.02, length: 20.0, "step": n + 1} for n in range(steps)]


ALL = {
    "sft": [{"loss": 1.0, "step": 1}],
    "dpo": dpo(40),
    "orpo": orpo(),
    "orpo_base": orpo(),
    "kto": kto(),
    "rloo": online(),
    "grpo": online(),
    "ppo": online(length="completion_length"),
}
CASES = {
    "all": ALL,
    "dpo alone": {"dpo": dpo()},
    "online alone": {"grpo": online(), "ppo": online()},
    "one step": {"dpo": dpo(1)},
    "mathematics": {"$x^$" * 9: orpo()},
    "long names": {f"{n}_run_of_{'m' * 40}": orpo() for n in range(4)},
}


def titles(figure):
    return [axes.get_title() for axes in figure.axes]


def texts(figure):
    figure.draw_without_rendering()
    return " ".join(" ".join(t.get_text().split()) for t in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def panel(figure, title):
    return figure.axes[titles(figure).index(title)]


@pytest.mark.parametrize("name", CASES)
def test_every_panel_is_labelled_and_no_text_runs_out_of_the_figure(name):
    figure = training.alignment_figure(CASES[name], beta=BETA)
    figure.draw_without_rendering()
    assert all(axes.get_xlabel() and axes.get_ylabel() and axes.get_title() for axes in figure.axes)
    box, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height


def test_a_quantity_has_a_panel_where_a_method_logs_it_and_no_other():
    assert titles(training.alignment_figure({"dpo": dpo()})) == ["Reward margin", "Accuracy"]
    assert titles(training.alignment_figure({"grpo": online()})) == ["Reward", "KL to the SFT model"]
    assert titles(training.alignment_figure(ALL, beta=BETA)) == [
        "Reward margin",
        "Accuracy",
        "Reward",
        "KL to the SFT model",
        "Chosen answers against SFT",
    ]


def test_a_method_keeps_the_colour_that_it_has_in_other_figures():
    margins = panel(training.alignment_figure({"orpo": orpo(), "dpo": dpo()}), "Reward margin")
    drawn = [line.get_color() for line in margins.lines if len(line.get_xdata()) == 8]
    assert drawn == [SYSTEM_STYLE[name]["color"] for name in ("orpo", "orpo", "dpo", "dpo")]  # steps, then their line


def test_every_system_that_has_a_place_has_a_look_of_its_own():
    assert set(runs.SYSTEM_ORDER) == set(SYSTEM_STYLE)
    assert len({style["color"] for style in SYSTEM_STYLE.values()}) == len(SYSTEM_STYLE)


def test_kl_is_per_answer_whether_it_is_logged_per_token_or_not():
    # 0.02 nats a token times 20 tokens an answer are 0.4 nats an answer; KTO logs sums over answers
    kl = panel(
        training.alignment_figure({"grpo": online(), "ppo": online(length="completion_length"), "kto": kto()}),
        "KL to the SFT model",
    )
    assert [line.get_ydata()[0] for line in kl.lines if line.get_marker() == "."] == pytest.approx([0.4, 0.4, 1.5])


def test_length_of_the_last_generation_serves_the_steps_that_learn_from_it():
    log = online(3)
    del log[1]["completions/mean_length"]
    assert list(training.alignment_series(log)["kl"]) == pytest.approx([0.4] * 3)


def test_rewards_that_are_per_token_are_named():
    figure = training.alignment_figure({"dpo": dpo(), "orpo": orpo()})
    assert "compare directions, not heights" in texts(figure)
    assert "compare directions" not in texts(training.alignment_figure({"dpo": dpo(), "kto": kto()}))


def test_change_against_sft_is_the_reward_without_its_beta():
    # the reward is beta times the change of the log-probability, so -0.1 x 3 / 0.1 = -3 at the last step
    assert training.alignment_series(dpo(fall=3.0), beta=BETA)["shift"][8] == pytest.approx(-3.0)
    assert "shift" not in training.alignment_series(orpo(), beta=BETA)  # it has no reference
    assert "shift" not in training.alignment_series(dpo())


@pytest.mark.parametrize("odd", [None, math.nan, math.inf])
def test_values_that_are_no_numbers_are_left_out_and_counted(odd):
    log = dpo()
    log[2]["rewards/margins"] = odd
    assert list(training.alignment_series(log)["rewards/margins"].index) == [1, 2, 4, 5, 6, 7, 8]
    assert "Left out: 1 logged value without a number." in texts(training.alignment_figure({"dpo": log}))


def test_short_lines_pass_through_every_step_and_long_ones_are_smoothed_over_pale_steps():
    short = panel(training.alignment_figure({"dpo": dpo(8)}), "Reward margin").lines
    assert list(short[0].get_ydata()) == pytest.approx([0.1 * n for n in range(8)])
    log = dpo(40)
    for entry in log[:40]:
        entry["rewards/margins"] = float(entry["step"] % 5 == 0)  # mean over any 5 steps: 0.2
    pale, smooth = panel(training.alignment_figure({"dpo": log}), "Reward margin").lines[:2]
    assert pale.get_alpha() < 0.5 and set(pale.get_ydata()) == {0.0, 1.0}
    assert list(smooth.get_ydata()[2:-2]) == pytest.approx([0.2] * 36)
    assert "moving mean" in texts(training.alignment_figure({"dpo": log}))


def test_step_that_was_logged_again_after_a_resumption_counts_once():
    again = dpo(8)[:5] + dpo(8)[3:]
    found, expected = (training.alignment_series(log) for log in (again, dpo(8)))
    assert {key: dict(values) for key, values in found.items()} == {key: dict(v) for key, v in expected.items()}


@pytest.mark.parametrize("histories", [{}, {"dpo": []}, {"sft": ALL["sft"]}, {"dpo": [{"rewards/margins": 0.1}]}])
def test_nothing_to_show_is_said_in_the_figure(histories):
    assert "Nothing to show" in texts(training.alignment_figure(histories))


def test_a_beta_of_0_which_training_allows_is_drawn_without_the_change_against_sft():
    assert "Chosen answers against SFT" not in titles(training.alignment_figure({"dpo": dpo()}, beta=0.0))
    assert training.likelihood_changes(dpo(fall=8.0), beta=0.0)["error"] > 0  # other answers, at first and at last


def test_collapse_is_measured_on_the_same_answers_where_there_is_a_reference():
    # of 8 steps the last quarter are steps 7 and 8, which have lost 20 x 7/8 and 20 x 8/8: 18.75 nats on average
    found = training.likelihood_changes(dpo(fall=20.0), beta=BETA)
    assert found["chosen_change"] == pytest.approx(-18.75) and found["collapsed"] is True
    assert found["error"] == 0 and found["unit"] == "answer"
    assert training.likelihood_changes(dpo(fall=4.0), beta=BETA)["collapsed"] is False


def test_collapse_ends_are_means_of_the_first_and_last_quarter():
    # chosen starts at -8 and loses 1 nat a step: -9 and -10 at first, -15 and -16 at last
    # rejected loses 2 nats a step: -22 ... -36
    found = training.likelihood_changes(dpo(fall=8.0))
    assert (found["chosen_first"], found["chosen_last"]) == pytest.approx((-9.5, -15.5))
    assert (found["rejected_first"], found["rejected_last"]) == pytest.approx((-23.0, -35.0))
    # each quarter's standard error is that of two values 1 apart: 0.5; together the root of 0.5
    assert found["chosen_change"] == pytest.approx(-6.0) and found["error"] == pytest.approx(math.sqrt(0.5))
    assert found["collapsed"] is False  # -6 is not below -5 by two errors
    assert training.likelihood_changes(dpo(fall=10.0))["collapsed"] is True  # -7.5, with an error of 0.88


def test_difference_between_batches_alone_is_no_collapse():
    assert not any(training.likelihood_changes(dpo(steps, noise=7.0))["collapsed"] for steps in range(4, 30))


def test_fall_per_token_is_held_against_a_threshold_per_token():
    log = orpo()
    for entry in log[4:]:
        entry["logps/chosen"] = -1.0  # 0.8 nats a token below the first steps
    found = training.likelihood_changes(log)
    assert found["collapsed"] is True and found["unit"] == "token"
    assert training.likelihood_changes(orpo())["collapsed"] is False


@pytest.mark.parametrize("history", [[], online(), dpo(1), dpo(3)])
def test_too_little_to_tell_a_collapse_is_not_called_none(history):
    assert training.likelihood_changes(history)["collapsed"] is None


VALUES = st.one_of(st.floats(), st.integers(-5, 5), st.none())
ENTRIES = st.dictionaries(
    st.sampled_from(
        [
            "step",
            "rewards/margins",
            "rewards/chosen",
            "logps/chosen",
            "kl",
            "reward",
            "completions/mean_length",
            "log_odds_ratio",
        ]
    ),
    VALUES,
)


@settings(deadline=None)
@given(st.lists(ENTRIES, max_size=12))
def test_any_log_gives_points_in_the_order_of_the_steps(history):
    for points in training.alignment_series(history, beta=BETA).values():
        steps = list(points.index)
        assert steps == sorted(set(steps)) and points.map(math.isfinite).all()
    assert training.likelihood_changes(history, beta=BETA)["collapsed"] in (True, False, None)
