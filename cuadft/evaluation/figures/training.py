"""Draw how alignment went, from the trainers' logs: margin, accuracy, reward, KL, and chosen beside rejected answers.

    histories = {"dpo": dpo_log, "orpo": orpo_log}
    alignment_figure(histories, beta=0.1)
    likelihood_changes(dpo_log, beta=0.1)["collapsed"]    # True: the chosen answers have become improbable

A log is TRL's `log_history`, or that of our PPO trainer, which uses the same names. In the logs of DPO and KTO the
log-probability of an answer is the sum over its tokens, in the logs of ORPO it is their mean. A reward of DPO and KTO
is beta times the change of the log-probability against the SFT model, a reward of ORPO is beta times the
log-probability itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from cuadft.core.errors import InputError
from cuadft.evaluation.excerpts import shorten
from cuadft.evaluation.figures import style

History = Sequence[Mapping[str, Any]]  # a log: one mapping per logged step
COMPARED_SERIES: dict[str, tuple[str, str, float | None]] = {  # key -> (title, axis, where nothing has been learned)
    "rewards/margins": ("Reward margin", "Chosen − rejected", 0.0),
    "rewards/accuracies": ("Accuracy", "Pairs ranked right (share)", 0.5),
    "reward": ("Reward", "Mean of sampled answers", None),
    "kl": ("KL to the SFT model", "Nats per answer", 0.0),
    "shift": ("Chosen answers against SFT", "Change, nats per answer", 0.0),
}
SIDES = {"logps/chosen": "-", "logps/rejected": ":"}  # key -> line style
SHOWN_KEYS = (*COMPARED_SERIES, *SIDES)
NAME_LENGTH = 14  # most characters of a method's name in a label
SMOOTHED_FROM = 20  # steps from which on a line is a moving mean
COLLAPSED_BELOW = {"answer": 5.0, "token": 0.5}  # nats lost; exp(-5): an answer less than 1% as probable as before
LENGTH_KEYS = ("completions/mean_length", "completion_length")  # tokens, as TRL and as our PPO trainer name them


def alignment_figure(histories: Mapping[str, History], *, beta: float | None = None) -> style.Figure:
    """Return small multiples of training: a panel per quantity, in it one line per method that logs it.

    histories: log history by method. After the shared panels, chosen and rejected log-probabilities have one panel per
    method, because their units differ. KL that is logged per token is multiplied by the mean length and drawn per
    answer. beta: of DPO and KTO; if it is given, what the chosen answers have lost or won against the SFT model is
    drawn too. From 20 steps on the line is a moving mean over a tenth of the steps, and the steps are pale. Values that
    are not numbers are left out and counted. Raises InputError as `alignment_series`.
    """
    logs = {method: alignment_series(history, beta=beta, method=method) for method, history in histories.items()}
    compared = [key for key in COMPARED_SERIES if any(log.get(key) for log in logs.values())]
    sided = [method for method, log in logs.items() if any(log.get(key) for key in SIDES)]
    if not compared + sided:
        return style.empty_figure(style.Figure())
    panels = len(compared) + len(sided)
    columns = panels if panels < 4 else 2 if panels == 4 else 3
    figure = style.Figure(max(5, 3.3 * columns), 0.9 + 2.3 * math.ceil(panels / columns))
    grid = list(figure.subplots(math.ceil(panels / columns), columns, squeeze=False).flat)
    look = style.system_styles(list(logs))
    for axes, key in zip(grid, compared):
        _draw_quantity(axes, key, logs, look)
    for axes, method in zip(grid[len(compared) :], sided):
        _draw_sides(axes, method, logs[method], look[method]["color"], _summed_over(histories[method]))
    for axes in grid[panels:]:
        axes.remove()
    _add_legend(figure, logs)
    _add_notes(figure, histories, logs)
    return figure


def alignment_series(
    history: History, *, beta: float | None = None, method: str = "this method"
) -> dict[str, list[tuple[int, float]]]:
    """Return the (step, value) points of each quantity that a log holds, in the order of the steps.

    "kl" is in nats per answer. With beta, a method that has a reference model also gets the key "shift": the mean
    change of the chosen answers' log-probability against the SFT model. Raises InputError if the log is not a list of
    mappings, or on a negative beta.
    """
    if isinstance(history, (str, Mapping)) or not all(isinstance(entry, Mapping) for entry in history):
        raise InputError(f"Invalid log of {method}: expected a trainer's log_history, a list with one mapping a step.")
    if beta is not None and not beta >= 0:
        raise InputError(f"Invalid beta {beta!r}: give the beta of training, 0 or more, or leave it out.")
    found: dict[str, dict[int, float]] = {key: {} for key in ("rewards/chosen", *SHOWN_KEYS)}
    length = math.nan
    for entry in (e for e in history if _is_number(e.get("step"))):
        length = next((float(entry[key]) for key in LENGTH_KEYS if _is_number(entry.get(key))), length)
        for key in found:
            if _is_number(entry.get(key)):  # a step logged twice, as after a resumption, counts once
                per_token = key == "kl" and not math.isnan(length)
                found[key][int(entry["step"])] = float(entry[key]) * (length if per_token else 1.0)
    if beta and _summed_over(history) == "answer":  # of a beta of 0 all rewards are 0 and tell nothing
        found["shift"] = {step: value / beta for step, value in found["rewards/chosen"].items()}
    return {key: sorted(points.items()) for key, points in found.items() if points}


def likelihood_changes(history: History, *, beta: float | None = None) -> dict[str, Any]:
    """Tell whether training made the chosen answers improbable, as DPO can while its margin grows.

    Returned: unit ("answer" or "token": what the nats are counted over), steps, chosen_first, chosen_last,
    rejected_first and rejected_last (mean log-probability over the first and the last quarter of the steps),
    chosen_change (nats), measured (on which answers), error, threshold and collapsed.

    With the `beta` of a method that has a reference, the change is that of the same answers against the SFT model.
    Otherwise it is the change from the first to the last quarter, on different answers, and `error` is its standard
    error. collapsed: the change is below -threshold (see COLLAPSED_BELOW) by more than 2 errors; None if there are too
    few steps to tell. Source: Pal et al. (2024), "Smaug", section 3; Razin et al. (2024), "Unintentional Unalignment".
    """
    log, unit = alignment_series(history, beta=beta), _summed_over(history)
    threshold = COLLAPSED_BELOW[unit]
    (chosen_first, chosen_last), (rejected_first, rejected_last) = (_quarters(log.get(key, [])) for key in SIDES)
    measured, error = "same answers, against SFT", 0.0
    if "shift" in log:
        change = _quarters(log["shift"])[1].mean()
    else:
        measured = "other answers, first against last steps"
        change = chosen_last.mean() - chosen_first.mean()
        error = math.sqrt(chosen_first.sem() ** 2 + chosen_last.sem() ** 2)
    known = not math.isnan(change) and not math.isnan(error)
    return {
        "unit": unit,
        "steps": len(log.get("logps/chosen", [])),
        "chosen_first": float(chosen_first.mean()),
        "chosen_last": float(chosen_last.mean()),
        "rejected_first": float(rejected_first.mean()),
        "rejected_last": float(rejected_last.mean()),
        "chosen_change": float(change),
        "measured": measured,
        "error": error,
        "threshold": threshold,
        "collapsed": bool(change < -threshold - 2 * error) if known else None,
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _summed_over(history: History) -> str:
    """Return what a log-probability belongs to: an "answer", or a "token" in logs of ORPO, which alone logs odds."""
    return "token" if any("log_odds_ratio" in entry for entry in history) else "answer"


def _quarters(points: Sequence[tuple[int, float]]) -> tuple[pd.Series, pd.Series]:
    """Return the values of the first and the last quarter of the points, at least two each if there are four points."""
    values = [value for _, value in points]
    size = max(min(2, len(values) // 2), len(values) // 4, min(1, len(values)))
    return pd.Series(values[:size], dtype=float), pd.Series(values[len(values) - size :], dtype=float)


def _draw_points(axes: Axes, points: Sequence[tuple[int, float]], **look: Any) -> None:
    steps, values = zip(*points, strict=True)
    window = 2 * (len(values) // SMOOTHED_FROM) + 1
    if window > 1:
        axes.plot(steps, values, color=look["color"], marker=".", markersize=3, linestyle="none", alpha=0.3)
        values = pd.Series(values).rolling(window, center=True, min_periods=1).mean()
    dot = {"marker": "."} if len(values) < SMOOTHED_FROM else {}
    axes.plot(steps, values, linewidth=1.4, **dot | look)


def _draw_quantity(
    axes: Axes, key: str, logs: Mapping[str, Mapping[str, Any]], looks: Mapping[str, Mapping[str, str]]
) -> None:
    title, label, untrained = COMPARED_SERIES[key]
    for method, log in logs.items():
        if log.get(key):
            _draw_points(axes, log[key], color=looks[method]["color"], linestyle=looks[method]["linestyle"])
    if untrained is not None:
        axes.axhline(untrained, color=style.GREY, linewidth=1, zorder=0)
    if key == "rewards/accuracies":
        axes.set_ylim(-0.05, 1.05)
    _label_panel(axes, title, label)


def _draw_sides(axes: Axes, method: str, log: Mapping[str, Any], color: str, unit: str) -> None:
    for key, line in SIDES.items():
        if log.get(key):
            _draw_points(axes, log[key], color=color, linestyle=line)
    _label_panel(axes, f"Log-probability, {shorten(method, NAME_LENGTH)}", f"Nats per {unit}")


def _label_panel(axes: Axes, title: str, label: str) -> None:
    axes.set_title(title, fontsize=9)
    axes.set(xlabel="Training step", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    style.plain_axes(axes)


def _add_legend(figure: style.Figure, logs: Mapping[str, Mapping[str, Any]]) -> None:
    """Add the legend of the methods, and of chosen and rejected answers where a log holds them."""
    lines = [
        Line2D([], [], label=shorten(name, NAME_LENGTH), color=look["color"], linestyle=look["linestyle"])
        for name, look in style.system_styles(list(_drawn_logs(logs))).items()
    ]
    if any(log.get(key) for log in logs.values() for key in SIDES):
        lines += [Line2D([], [], color="0.3", linestyle=line, label=key.split("/")[1]) for key, line in SIDES.items()]
    width = 0.6 + 0.08 * max(len(line.get_label()) for line in lines)  # inches of one entry
    rows = math.ceil(len(lines) * width / figure.get_size_inches()[0])
    columns = math.ceil(len(lines) / rows)
    figure.legend(handles=lines, loc="outside upper center", ncols=columns, frameon=False, fontsize=8)


def _add_notes(figure: style.Figure, histories: Mapping[str, History], logs: Mapping[str, Mapping[str, Any]]) -> None:
    """Say under the figure how lines were smoothed, which heights cannot be compared, and what was left out."""
    drawn = _drawn_logs(logs)
    smoothed = any(len(log.get(key, [])) >= SMOOTHED_FROM for log in logs.values() for key in SHOWN_KEYS)
    units = {_summed_over(histories[method]) for method, log in drawn.items() if log.get("rewards/margins")}
    logged = [entry[key] for log in histories.values() for entry in log for key in SHOWN_KEYS if key in entry]
    odd = sum(not _is_number(value) for value in logged)
    notes = {
        "Pale: single steps; line: moving mean over a tenth of the steps.": smoothed,
        "ORPO's rewards are per token and have no reference: compare directions, not heights.": len(units) > 1,
        "KL: rloo logs the plain log ratio, which can be negative.": "kl" in drawn.get("rloo", {}),
        f"Left out: {odd} logged value{' that is' if odd == 1 else 's that are'} no number.": odd > 0,
        f"Nothing logged: {', '.join(method for method in logs if method not in drawn)}.": len(drawn) < len(logs),
    }
    if any(notes.values()):
        style.foot_note(figure, " ".join(note for note, holds in notes.items() if holds))


def _drawn_logs(logs: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the logs that hold any quantity to draw."""
    return {method: log for method, log in logs.items() if any(log.get(key) for key in SHOWN_KEYS)}
