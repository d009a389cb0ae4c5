"""Draw how alignment went, from the trainers' logs: margin, accuracy, reward, KL, and chosen answers against SFT.

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

from cuadft.core.text import shorten
from cuadft.evaluation.answer_files import count_of
from cuadft.evaluation.figures import style

History = Sequence[Mapping[str, Any]]  # a log: one mapping per logged step
PANELS: dict[str, tuple[str, str, float | None]] = {  # key -> (title, axis, where nothing has been learned)
    "rewards/margins": ("Reward margin", "Chosen − rejected", 0.0),
    "rewards/accuracies": ("Accuracy", "Pairs ranked right (share)", 0.5),
    "reward": ("Reward", "Mean of sampled answers", None),
    "kl": ("KL to the SFT model", "Nats per answer", 0.0),
    "shift": ("Chosen answers against SFT", "Change, nats per answer", 0.0),
}
LOGGED_KEYS = (*PANELS, "rewards/chosen", "logps/chosen", "logps/rejected")
SMOOTHED_FROM = 20  # steps from which on a line is a moving mean
COLLAPSED_BELOW = {"answer": 5.0, "token": 0.5}  # nats lost; exp(-5): an answer less than 1% as probable as before
LENGTH_KEYS = ("completions/mean_length", "completion_length")  # tokens, as TRL and as our PPO trainer name them


def alignment_figure(histories: Mapping[str, History], *, beta: float | None = None) -> style.Figure:
    """Return small multiples of training: a panel per quantity, in it one line per method that logs it.

    histories: log history by method. KL that is logged per token is multiplied by the mean length and drawn per answer.
    beta: of DPO and KTO; if it is given, what the chosen answers have lost or won against the SFT model is drawn too.
    From 20 steps on the line is a moving mean over a tenth of the steps, and the steps are pale. Values that are not
    numbers are left out and counted.
    """
    logs = {method: alignment_series(history, beta=beta) for method, history in histories.items()}
    shown = [key for key in PANELS if any(key in log for log in logs.values())]
    if not shown:
        return style.empty_figure(style.Figure())
    n_rows, n_columns = math.ceil(len(shown) / 3), min(len(shown), 3)
    figure = style.Figure(max(5, 3.3 * n_columns), 1.2 + 2.3 * n_rows)
    grid, looks = figure.subplots(n_rows, n_columns, squeeze=False).ravel(), style.system_styles(list(logs))
    for axes, key in zip(grid, shown, strict=False):
        for method in [method for method in logs if key in logs[method]]:
            _draw_line(axes, logs[method][key], label=shorten(method, 14), look=looks[method])
        title, label, untrained = PANELS[key]
        if untrained is not None:
            axes.axhline(untrained, color=style.GREY, linewidth=1, zorder=0)
        axes.set_title(title, fontsize=9)
        axes.set(xlabel="Training step", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    for axes in grid[len(shown) :]:
        axes.remove()
    style.plain_axes(*grid[: len(shown)])
    style.legend_above(figure, *grid[: len(shown)], columns=n_columns + 1)
    style.foot_note(figure, _notes(histories))
    return figure


def alignment_series(history: History, *, beta: float | None = None) -> dict[str, pd.Series]:
    """Return the values of each quantity that a log holds, by step; values that are not finite numbers are left out.

    "kl" is in nats per answer. With beta, a method that has a reference model also gets the key "shift": the mean
    change of the chosen answers' log-probability against the SFT model. A step that was logged twice, as after a
    resumption, counts once.
    """
    table = pd.DataFrame(list(history)).reindex(columns=["step", *LOGGED_KEYS, *LENGTH_KEYS])
    table = table.apply(pd.to_numeric, errors="coerce").astype(float)
    length = table[LENGTH_KEYS[0]].fillna(table[LENGTH_KEYS[1]]).ffill()
    table["kl"] *= length.fillna(1.0)  # TRL logs KL per token with the length of the answers, KTO per answer without it
    if beta and _summed_over(history) == "answer":  # of a beta of 0 all rewards are 0 and tell nothing
        table["shift"] = table["rewards/chosen"] / beta
    table = table.replace([math.inf, -math.inf], math.nan).groupby("step").last()
    return {key: table[key].dropna() for key in LOGGED_KEYS if table[key].notna().any()}


def likelihood_changes(history: History, *, beta: float | None = None) -> dict[str, Any]:
    """Tell whether training made the chosen answers improbable, as DPO can while its margin grows.

    Returned: unit ("answer" or "token": what the nats are counted over), chosen_first, chosen_last, rejected_first and
    rejected_last (mean log-probability over the first and the last quarter of the steps), chosen_change (nats), error
    and collapsed.

    With the `beta` of a method that has a reference, the change is that of the same answers against the SFT model, and
    its error 0. Otherwise it is the change from the first to the last quarter, on different answers, with its standard
    error. collapsed: the change is below COLLAPSED_BELOW by more than 2 errors; None if there are too few steps to
    tell. Source: Pal et al. (2024), "Smaug", section 3; Razin et al. (2024), "Unintentional Unalignment".
    """
    log, unit, none = alignment_series(history, beta=beta), _summed_over(history), pd.Series(dtype=float)
    first, last = _quarters(log.get("logps/chosen", none))
    rejected_first, rejected_last = _quarters(log.get("logps/rejected", none))
    change, error = last.mean() - first.mean(), math.hypot(first.sem(), last.sem())
    if "shift" in log:
        change, error = _quarters(log["shift"])[1].mean(), 0.0
    means = {"chosen_first": first, "chosen_last": last, "rejected_first": rejected_first}
    means = {name: float(part.mean()) for name, part in (means | {"rejected_last": rejected_last}).items()}
    collapsed = bool(change < -COLLAPSED_BELOW[unit] - 2 * error) if math.isfinite(change + error) else None
    return {"unit": unit} | means | {"chosen_change": float(change), "error": error, "collapsed": collapsed}


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
    axes.plot(values, ".", color=look["color"], markersize=3, alpha=0.3)
    smooth = values.rolling(window, center=True, min_periods=1).mean()
    axes.plot(smooth, color=look["color"], linestyle=look["linestyle"], linewidth=1.4, label=label)


def _notes(histories: Mapping[str, History]) -> str:
    """Say how lines were smoothed, which heights cannot be compared, and what was left out."""
    logged = [entry[key] for log in histories.values() for entry in log for key in LOGGED_KEYS if key in entry]
    odd = int((~np.isfinite(pd.to_numeric(pd.Series(logged, dtype=object), errors="coerce").astype(float))).sum())
    notes = ["Pale: single steps; line: moving mean over a tenth of the steps, from 20 steps on."]
    if any(_summed_over(log) == "token" for log in histories.values()):
        notes.append("ORPO's rewards are per token and have no reference: compare directions, not heights.")
    if odd:
        notes.append(f"Left out: {count_of(odd, 'logged value')} without a number.")
    return " ".join(notes)
