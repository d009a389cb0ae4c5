"""Draw how alignment went, from the trainers' logs: margin, accuracy, reward, KL, and chosen beside rejected answers.

A log is TRL's `log_history`, or that of `ppo`, which uses the same names. In the logs of DPO and KTO the log-probability
of an answer is a sum over its tokens, in those of ORPO their mean; a reward of DPO and KTO is beta times what the
log-probability has changed against the SFT model, one of ORPO is beta times the log-probability itself.
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
from cuadft.evaluation.figures.style import GREY, Figure, empty_figure, foot_note, plain_axes, system_styles

History = Sequence[Mapping[str, Any]]
COMPARED: dict[str, tuple[str, str, float | None]] = {  # key -> (title, axis, where nothing has been learned)
    "rewards/margins": ("Reward margin", "Chosen − rejected", 0.0),
    "rewards/accuracies": ("Accuracy", "Pairs ranked right (share)", 0.5),
    "reward": ("Reward", "Mean of sampled answers", None),
    "kl": ("KL to the SFT model", "Nats per answer", 0.0),
    "shift": ("Chosen answers against SFT", "Change, nats per answer", 0.0),
}
SIDES = {"logps/chosen": "-", "logps/rejected": ":"}
SHOWN = (*COMPARED, *SIDES)
LONGEST = 14  # characters of a method's name
SMOOTHED = 20  # steps from which on a line is a moving mean
THRESHOLDS = {"answer": 5.0, "token": 0.5}  # nats; exp(-5): an answer less than 1% as probable as before
LENGTHS = ("completions/mean_length", "completion_length")  # tokens, as TRL and as `ppo` name them


def alignment_figure(histories: Mapping[str, History], *, beta: float | None = None) -> Figure:
    """Return small multiples of training: a panel per quantity, in it one line per method that logs it.

    histories: log history by method. Chosen and rejected log-probabilities follow, one panel per method, for their
    units differ. KL that is logged per token is drawn per answer, times the mean length. beta: that of DPO and KTO;
    given, what the chosen answers have lost or won against the SFT model is drawn too. From 20 steps on the line is a
    moving mean over a tenth of them and the steps are pale. Values that are no numbers are left out and counted.
    """
    logs = {method: alignment_series(history, beta=beta, method=method) for method, history in histories.items()}
    compared = [key for key in COMPARED if any(log.get(key) for log in logs.values())]
    sided = [method for method, log in logs.items() if any(log.get(key) for key in SIDES)]
    if not compared + sided:
        return empty_figure(Figure())
    panels = len(compared) + len(sided)
    columns = panels if panels < 4 else 2 if panels == 4 else 3
    figure = Figure(max(5, 3.3 * columns), 0.9 + 2.3 * math.ceil(panels / columns))
    grid = list(figure.subplots(math.ceil(panels / columns), columns, squeeze=False).flat)
    look = system_styles(list(logs))
    for axes, key in zip(grid, compared):
        _compare(axes, key, logs, look)
    for axes, method in zip(grid[len(compared) :], sided):
        _sides(axes, method, logs[method], look[method]["color"], _unit(histories[method]))
    for axes in grid[panels:]:
        axes.remove()
    _explain(figure, histories, logs)
    return figure


def alignment_series(
    history: History, *, beta: float | None = None, method: str = "this method"
) -> dict[str, list[tuple[int, float]]]:
    """Return the (step, value) points of each quantity that a log holds, in the order of the steps.

    Added to TRL's keys: "shift", the mean change of the chosen answers' log-probability against the SFT model (with
    beta, where there is a reference); "kl" is in nats per answer. Raises InputError if the log is no list of mappings.
    """
    if isinstance(history, (str, Mapping)) or not all(isinstance(entry, Mapping) for entry in history):
        raise InputError(f"Invalid log of {method}: expected a trainer's log_history, a list with one mapping a step.")
    if beta is not None and not beta >= 0:
        raise InputError(f"Invalid beta {beta!r}: give the beta of training, from 0, or none.")
    found: dict[str, dict[int, float]] = {key: {} for key in ("rewards/chosen", *SHOWN)}
    length = math.nan
    for entry in (e for e in history if _number(e.get("step"))):
        length = next((float(entry[key]) for key in LENGTHS if _number(entry.get(key))), length)
        for key in found:
            if _number(entry.get(key)):  # a step logged twice, as after a resumption, counts once
                per_token = key == "kl" and not math.isnan(length)
                found[key][int(entry["step"])] = float(entry[key]) * (length if per_token else 1.0)
    if beta and _unit(history) == "answer":  # of a beta of 0 all rewards are 0 and tell nothing
        found["shift"] = {step: value / beta for step, value in found["rewards/chosen"].items()}
    return {key: sorted(points.items()) for key, points in found.items() if points}


def likelihood_changes(
    history: History, *, beta: float | None = None, threshold: float | None = None
) -> dict[str, Any]:
    """Tell whether training made the chosen answers improbable, as DPO can while its margin grows.

    Source: Pal et al. (2024), "Smaug", section 3; Razin et al. (2024), "Unintentional Unalignment". Returned: unit
    ("answer" or "token": what the nats are counted over), steps, chosen_first, chosen_last, rejected_first and
    rejected_last (mean log-probability over the first and the last quarter of the steps), chosen_change (nats),
    measured, error, threshold and collapsed.

    With the `beta` of a method that has a reference the change is that of the same answers against the SFT model;
    without, it is from the first to the last quarter, on different answers, and `error` is its standard error.
    collapsed: the change is below -threshold (see THRESHOLDS) by more than 2 errors; None if too few steps tell.
    """
    log = alignment_series(history, beta=beta)
    unit = _unit(history)
    threshold = THRESHOLDS[unit] if threshold is None else threshold
    ends = {key: _quarters([value for _, value in log.get(key, [])]) for key in SIDES}
    first, last = ends["logps/chosen"]
    if "shift" in log:
        change, error = _quarters([value for _, value in log["shift"]])[1].mean(), 0.0
        measured = "same answers, against SFT"
    else:
        change, error = last.mean() - first.mean(), math.sqrt(first.sem() ** 2 + last.sem() ** 2)
        measured = "other answers, first against last steps"
    known = not math.isnan(change) and not math.isnan(error)
    means = {
        f"{key.split('/')[1]}_{end}": float(part.mean())
        for key, parts in ends.items()
        for end, part in zip(("first", "last"), parts, strict=True)
    }
    return (
        {"unit": unit, "steps": len(log.get("logps/chosen", []))}
        | means
        | {
            "chosen_change": float(change),
            "measured": measured,
            "error": error,
            "threshold": threshold,
            "collapsed": bool(change < -threshold - 2 * error) if known else None,
        }
    )


def _number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _unit(history: History) -> str:
    """Return what log-probabilities are summed over: ORPO's, which alone logs odds, are means over tokens."""
    return "token" if any("log_odds_ratio" in entry for entry in history) else "answer"


def _quarters(values: Sequence[float]) -> tuple[pd.Series, pd.Series]:
    """Return the first and the last quarter of the values, two of them at least if there are as many as four."""
    size = max(min(2, len(values) // 2), len(values) // 4, min(1, len(values)))
    return pd.Series(values[:size], dtype=float), pd.Series(values[len(values) - size :], dtype=float)


def _draw(axes: Axes, points: Sequence[tuple[int, float]], **style: Any) -> None:
    steps, values = zip(*points, strict=True)
    window = 2 * (len(values) // SMOOTHED) + 1
    if window > 1:
        axes.plot(steps, values, color=style["color"], marker=".", markersize=3, linestyle="none", alpha=0.3)
        values = pd.Series(values).rolling(window, center=True, min_periods=1).mean()
    dot = {"marker": "."} if len(values) < SMOOTHED else {}
    axes.plot(steps, values, linewidth=1.4, **dot | style)


def _compare(
    axes: Axes, key: str, logs: Mapping[str, Mapping[str, Any]], look: Mapping[str, Mapping[str, str]]
) -> None:
    title, label, rest = COMPARED[key]
    axes.set_title(title, fontsize=9)
    for method, log in logs.items():
        if log.get(key):
            _draw(axes, log[key], color=look[method]["color"], linestyle=look[method]["linestyle"])
    if rest is not None:
        axes.axhline(rest, color=GREY, linewidth=1, zorder=0)
    axes.set(xlabel="Training step", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if key == "rewards/accuracies":
        axes.set_ylim(-0.05, 1.05)
    plain_axes(axes)


def _sides(axes: Axes, method: str, log: Mapping[str, Any], color: str, unit: str) -> None:
    for key, line in SIDES.items():
        if log.get(key):
            _draw(axes, log[key], color=color, linestyle=line)
    axes.set_title(f"Log-probability, {shorten(method, LONGEST)}", fontsize=9)
    axes.set(xlabel="Training step", ylabel=f"Nats per {unit}")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    plain_axes(axes)


def _explain(figure: Figure, histories: Mapping[str, History], logs: Mapping[str, Mapping[str, Any]]) -> None:
    """Add the legend of the methods, and what the lines leave out."""
    drawn = {method: log for method, log in logs.items() if any(log.get(key) for key in SHOWN)}
    lines = [
        Line2D([], [], label=shorten(name, LONGEST), color=look["color"], linestyle=look["linestyle"])
        for name, look in system_styles(list(drawn)).items()
    ]
    if any(log.get(key) for log in logs.values() for key in SIDES):
        lines += [Line2D([], [], color="0.3", linestyle=line, label=key.split("/")[1]) for key, line in SIDES.items()]
    width = 0.6 + 0.08 * max(len(line.get_label()) for line in lines)  # inches of one entry
    rows = math.ceil(len(lines) * width / figure.get_size_inches()[0])
    figure.legend(
        handles=lines, loc="outside upper center", ncols=math.ceil(len(lines) / rows), frameon=False, fontsize=8
    )
    with_margins = {_unit(histories[method]) for method, log in drawn.items() if log.get("rewards/margins")}
    odd = sum(key in entry and not _number(entry[key]) for h in histories.values() for entry in h for key in SHOWN)
    notes = [
        "Pale: single steps; line: moving mean over a tenth of the steps."
        * any(len(log.get(key, [])) >= SMOOTHED for log in logs.values() for key in SHOWN),
        "ORPO's rewards are per token and have no reference: compare directions, not heights."
        * (len(with_margins) > 1),
        "KL: rloo logs the plain log ratio, which can be negative." * ("kl" in drawn.get("rloo", {})),
        f"Left out: {odd} logged value{'s' * (odd != 1)} that {'is' if odd == 1 else 'are'} no number." * (odd > 0),
        f"Nothing logged: {', '.join(m for m in logs if m not in drawn)}." * (len(drawn) < len(logs)),
    ]
    if any(notes):
        foot_note(figure, " ".join(note for note in notes if note))
