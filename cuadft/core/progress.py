"""Progress of long work: a live bar in Jupyter, or one line from time to time in a plain log (CUADFT_PLAIN=1)."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

MARK = "· "  # how the loop tells these lines from a notebook's other output
EVERY = 20.0  # seconds between two lines of a plain log


@contextmanager
def quiet() -> Iterator[None]:
    """Hide what transformers, TRL and datasets say on every training about their own future, and their tiny bars."""
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
    """Return a tqdm bar with rate and remaining time; under CUADFT_PLAIN it prints whole lines."""
    from tqdm.auto import tqdm

    return _Lines(total, label, unit) if os.environ.get("CUADFT_PLAIN") else tqdm(total=total, desc=label, unit=unit)


class _Lines:
    """The part of tqdm that is used here, for a log: a line at the start of the work, every EVERY seconds and at its end."""

    def __init__(self, total: int, label: str, unit: str) -> None:
        self.total, self.label, self.unit = total, label, unit
        self.done, self.skipped, self.started, self.shown = 0, 0, time.monotonic(), time.monotonic()

    def update(self, n: int = 1) -> None:
        self.done += n
        if time.monotonic() - self.started < 0.01:  # what an earlier run had done says nothing about the rate
            self.skipped += n
        if self.done >= self.total or time.monotonic() - self.shown > EVERY:
            self.show()

    def show(self, note: str = "") -> None:
        self.shown = time.monotonic()
        seconds = self.shown - self.started
        rate = (self.done - self.skipped) / seconds if seconds > 0 else 0.0
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate and self.done < self.total else ""
        state = f"{self.done}/{self.total} {self.unit}s, {seconds:.0f} s, {rate:.2f} {self.unit}s/s"
        print(f"{MARK}{self.label}: {state}{left}{note}", flush=True)

    def close(self) -> None:
        if self.done < self.total:
            self.show()


def watch_trainer(trainer: Any, label: str) -> None:
    """Let a Trainer print progress lines under CUADFT_PLAIN; in Jupyter it shows its own table."""
    if not os.environ.get("CUADFT_PLAIN"):
        return
    from transformers import PrinterCallback, TrainerCallback

    class Progress(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.lines = _Lines(state.max_steps, label, "step")
            self.lines.update(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.lines.update()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if logs and "loss" in logs and time.monotonic() - self.lines.shown > EVERY:
                self.lines.show(f", loss {float(logs['loss']):.3f}")

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Progress())
