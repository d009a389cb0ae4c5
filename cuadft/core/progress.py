"""Progress of long work: a live bar in Jupyter, or a line from time to time in a plain log (CUADFT_PLAIN=1).

For example, a bar over 200 judged answers:

    progress = bar(200, "judging", unit="answer")
    progress.update()
    progress.close()
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LINE_START = "· "  # by it the loop tells a line of progress from a notebook's other output
SECONDS_BETWEEN_LINES = 20.0  # of a plain log


def escape_unprintable() -> None:
    """Let stdout write a character that its encoding lacks as an escape, such as \\xb7, instead of raising an error."""
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's stdout takes every character
        sys.stdout.reconfigure(errors="backslashreplace")


@contextmanager
def quiet() -> Iterator[None]:
    """Hide FutureWarnings and the progress bars of `datasets`, which every training would repeat."""
    import datasets

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()


def bar(total: int, label: str, unit: str = "row", done: int = 0) -> Any:
    """Return a tqdm bar with rate and remaining time; with CUADFT_PLAIN set it prints whole lines instead.

    done: what an earlier run has done already, which says nothing about the rate.
    """
    import tqdm
    from tqdm.auto import tqdm as live_bar

    shown = {"total": total, "desc": label, "unit": unit, "initial": done}
    if not os.environ.get("CUADFT_PLAIN"):
        return live_bar(**shown)
    form = LINE_START + "{desc}: {n_fmt}/{total_fmt} " + unit + "s, {elapsed}<{remaining}, {rate_fmt}{postfix}\n"
    shown |= dict.fromkeys(("mininterval", "maxinterval"), SECONDS_BETWEEN_LINES)
    return tqdm.tqdm(**shown, file=sys.stdout, bar_format=form)


def watch_memory(trainer: Any) -> list[float]:
    """Return a list to which a Trainer adds the memory that is held after each step, in GB: a GPU's if there is one.

    Without a GPU it is what the process holds, models of earlier work included.
    """
    import psutil
    import torch
    from transformers import TrainerCallback

    held: list[float] = []

    class Watch(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.reset_peak_memory_stats()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            cuda = torch.cuda.is_available()
            held.append((torch.cuda.max_memory_allocated() if cuda else psutil.Process().memory_info().rss) / 1e9)

    trainer.add_callback(Watch())
    return held


def watch_trainer(trainer: Any, label: str) -> None:
    """Let a Trainer print lines of progress where CUADFT_PLAIN is set; in Jupyter it shows its own table."""
    if not os.environ.get("CUADFT_PLAIN"):
        return
    from transformers import PrinterCallback, TrainerCallback

    class PrintProgress(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.lines = bar(state.max_steps, label, "step", state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.lines.update()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs:
                self.lines.set_postfix(loss=float(logs["loss"]), refresh=False)

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.lines.close()

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(PrintProgress())
