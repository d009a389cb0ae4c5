"""Progress: lines in a plain log that the loop can tell from other output."""

from __future__ import annotations

import warnings

import datasets

from cuadft.core import progress
from cuadft.core.progress import LINE_START, bar


def test_a_plain_log_gets_whole_lines_with_count_and_rate(monkeypatch, capsys):
    monkeypatch.setenv("CUADFT_PLAIN", "1")
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    shown = bar(3, "sft on test")
    for _ in range(3):
        shown.update(1)
    shown.close()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(line.startswith(LINE_START + "sft on test: ") for line in lines)
    assert "3/3 rows" in lines[-1] and "rows/s" in lines[-1] and "left" not in lines[-1]


def test_a_plain_log_is_not_flooded(monkeypatch, capsys):
    monkeypatch.setenv("CUADFT_PLAIN", "1")
    shown = bar(1000, "fast")
    for _ in range(1000):
        shown.update(1)
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_an_unfinished_bar_says_where_it_stopped(monkeypatch, capsys):
    monkeypatch.setenv("CUADFT_PLAIN", "1")
    shown = bar(10, "cut")
    shown.update(4)
    shown.close()
    assert "4/10 rows" in capsys.readouterr().out


def test_quiet_hides_future_warnings_and_restores_what_was(recwarn):
    datasets.enable_progress_bars()
    with progress.quiet():
        warnings.warn("will change", FutureWarning, stacklevel=1)
        warnings.warn("look here", UserWarning, stacklevel=1)
        assert datasets.are_progress_bars_disabled()
    assert [w.category for w in recwarn] == [UserWarning]
    assert not datasets.are_progress_bars_disabled()
