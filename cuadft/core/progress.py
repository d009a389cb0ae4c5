"""Progress of long work: a live bar in Jupyter, or a line from time to time in a plain log (CUADFT_PLAIN=1).

For example, a bar over 200 judged answers:

    progress = bar(200, "judging", unit="answer")
    progress.update()
    progress.close()
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LINE_START = "· "  # by it the loop tells a line of progress from a notebook's other output
SECONDS_BETWEEN_LINES = 20.0  # of a plain log


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


def bar(total: int, label: str, unit: str = "row") -> Any:
    """Return a tqdm bar with rate and remaining time; with CUADFT_PLAIN set it prints whole lines instead."""
    from tqdm.auto import tqdm

    return _LogLines(total, label, unit) if os.environ.get("CUADFT_PLAIN") else tqdm(total=total, desc=label, unit=unit)


class _LogLines:
    """Stand in for a tqdm bar in a plain log: print a line every `SECONDS_BETWEEN_LINES` and one at the end."""

    def __init__(self, total: int, label: str, unit: str) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.done, self.skipped, self.started, self.shown = 0, 0, time.monotonic(), time.monotonic()

    def update(self, n: int = 1) -> None:
        self.done += n
        # Work of an earlier run is counted at once at the start; it says nothing about the rate of this run.
        if time.monotonic() - self.started < 0.01:
            self.skipped += n
        if self.done >= self.total or time.monotonic() - self.shown > SECONDS_BETWEEN_LINES:
            self.show()

    def show(self, note: str = "") -> None:
        self.shown = time.monotonic()
        seconds = self.shown - self.started
        rate = (self.done - self.skipped) / seconds if seconds > 0 else 0.0
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate and self.done < self.total else ""
        state = f"{self.done}/{self.total} {self.unit}s, {seconds:.0f} s, {rate:.2f} {self.unit}s/s"
        print(f"{LINE_START}{self.label}: {state}{left}{note}", flush=True)

    def close(self) -> None:
        if self.done < self.total:
            self.show()


def watch_trainer(trainer: Any, label: str) -> None:
    """Let a Trainer print lines of progress where CUADFT_PLAIN is set; in Jupyter it shows its own table."""
    if not os.environ.get("CUADFT_PLAIN"):
        return
    from transformers import PrinterCallback, TrainerCallback

    class PrintProgress(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.lines = _LogLines(state.max_steps, label, "step")
            self.lines.update(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.lines.update()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs and time.monotonic() - self.lines.shown > SECONDS_BETWEEN_LINES:
                self.lines.show(f", loss {float(logs['loss']):.3f}")

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(PrintProgress())
