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
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from cuadft.evaluation.answer_files import count_of
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
    are not numbers are left out and counted.
    """
    logs = {method: alignment_series(history, beta=beta) for method, history in histories.items()}
    compared = [key for key in COMPARED_SERIES if any(key in log for log in logs.values())]
    sided = [method for method, log in logs.items() if any(key in log for key in SIDES)]
    if not compared + sided:
        return style.empty_figure(style.Figure())
    panels = len(compared) + len(sided)
    columns = min(panels, 3)
    figure = style.Figure(max(5, 3.3 * columns), 1.2 + 2.3 * math.ceil(panels / columns))
    grid = list(figure.subplots(math.ceil(panels / columns), columns, squeeze=False).flat)
    looks = style.system_styles(list(logs))
    for axes, key in zip(grid, compared):
        for method in [method for method in logs if key in logs[method]]:
            _draw_line(axes, logs[method][key], label=shorten(method, NAME_LENGTH), look=looks[method])
        title, label, untrained = COMPARED_SERIES[key]
        if untrained is not None:
            axes.axhline(untrained, color=style.GREY, linewidth=1, zorder=0)
        axes.set(title=title, ylabel=label)
    for axes, method in zip(grid[len(compared) :], sided):
        for key in [key for key in SIDES if key in logs[method]]:
            look = {"color": looks[method]["color"], "linestyle": SIDES[key]}
            _draw_line(axes, logs[method][key], label=key.split("/")[1], look=look)
        axes.set(title=f"Log-probability, {shorten(method, NAME_LENGTH)}")
        axes.set(ylabel=f"Nats per {_summed_over(histories[method])}")
    _finish(figure, grid, panels)
    style.foot_note(figure, _notes(histories, logs))
    return figure


def alignment_series(history: History, *, beta: float | None = None) -> dict[str, pd.Series]:
    """Return the values of each quantity that a log holds, by step; values that are not finite numbers are left out.

    "kl" is in nats per answer. With beta, a method that has a reference model also gets the key "shift": the mean
    change of the chosen answers' log-probability against the SFT model. A step that was logged twice, as after a
    resumption, counts once.
    """
    names = ["step", "rewards/chosen", *SHOWN_KEYS, *LENGTH_KEYS]
    table = pd.DataFrame(list(history)).reindex(columns=names).apply(pd.to_numeric, errors="coerce").astype(float)
    table = table.replace([math.inf, -math.inf], math.nan)
    length = table[LENGTH_KEYS[0]].fillna(table[LENGTH_KEYS[1]]).ffill()
    table["kl"] *= length.fillna(1.0)  # TRL logs KL per token with the length of the answers, KTO per answer without it
    if beta and _summed_over(history) == "answer":  # of a beta of 0 all rewards are 0 and tell nothing
        table["shift"] = table["rewards/chosen"] / beta
    table = table.groupby("step").last()
    return {key: table[key].dropna() for key in ("rewards/chosen", *SHOWN_KEYS) if table[key].notna().any()}


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
    chosen, rejected = (log.get(key, pd.Series(dtype=float)) for key in SIDES)
    (first, last), (rejected_first, rejected_last) = _quarters(chosen), _quarters(rejected)
    if "shift" in log:
        measured, change, error = "same answers, against SFT", _quarters(log["shift"])[1].mean(), 0.0
    else:
        measured, change = "other answers, first against last steps", last.mean() - first.mean()
        error = math.sqrt(first.sem() ** 2 + last.sem() ** 2)
    known = not math.isnan(change) and not math.isnan(error)
    return {
        "unit": unit,
        "steps": len(chosen),
        "chosen_first": float(first.mean()),
        "chosen_last": float(last.mean()),
        "rejected_first": float(rejected_first.mean()),
        "rejected_last": float(rejected_last.mean()),
        "chosen_change": float(change),
        "measured": measured,
        "error": error,
        "threshold": COLLAPSED_BELOW[unit],
        "collapsed": bool(change < -COLLAPSED_BELOW[unit] - 2 * error) if known else None,
    }


def _summed_over(history: History) -> str:
    """Return what a log-probability belongs to: an "answer", or a "token" in logs of ORPO, which alone logs odds."""
    return "token" if any("log_odds_ratio" in entry for entry in history) else "answer"


def _quarters(values: pd.Series) -> tuple[pd.Series, pd.Series]:
    """Return the first and the last quarter of the values, at least two each if there are four values."""
    size = max(min(2, len(values) // 2), len(values) // 4, min(1, len(values)))
    return values.head(size), values.tail(size)


def _draw_line(axes: Axes, values: pd.Series, *, label: str, look: Mapping[str, str]) -> None:
    """Draw a quantity over the steps: every step if there are few, else their moving mean over pale steps."""
    window = 2 * (len(values) // SMOOTHED_FROM) + 1
    dot = {"marker": "."} if window == 1 else {}
    if window > 1:
        axes.plot(values, ".", color=look["color"], markersize=3, alpha=0.3)
    smooth = values.rolling(window, center=True, min_periods=1).mean()
    axes.plot(smooth, color=look["color"], linestyle=look["linestyle"], linewidth=1.4, label=label, **dot)


def _finish(figure: style.Figure, grid: Sequence[Axes], panels: int) -> None:
    """Remove the places without a panel, label the others and put one legend above them."""
    for axes in grid[panels:]:
        axes.remove()
    for axes in grid[:panels]:
        axes.title.set_size(9)
        axes.set_xlabel("Training step")
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
        style.plain_axes(axes)
    style.legend_above(figure, *grid[:panels], columns=min(panels + 1, 5))


def _notes(histories: Mapping[str, History], logs: Mapping[str, Mapping[str, pd.Series]]) -> str:
    """Say how lines were smoothed, which heights cannot be compared, and what was left out."""
    logged = [entry[key] for log in histories.values() for entry in log for key in SHOWN_KEYS if key in entry]
    odd = int((~np.isfinite(pd.to_numeric(pd.Series(logged, dtype=object), errors="coerce").astype(float))).sum())
    silent = [method for method, log in logs.items() if not any(key in log for key in SHOWN_KEYS)]
    notes = ["Pale: single steps; line: moving mean over a tenth of the steps, from 20 steps on."]
    if len({_summed_over(histories[method]) for method, log in logs.items() if "rewards/margins" in log}) > 1:
        notes.append("ORPO's rewards are per token and have no reference: compare directions, not heights.")
    notes += [f"Left out: {count_of(odd, 'logged value')} without a number."] if odd else []
    notes += [f"Nothing logged: {', '.join(silent)}."] if silent else []
    return " ".join(notes)
