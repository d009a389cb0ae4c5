"""Progress: lines in a plain log that the loop can tell from other output."""

from __future__ import annotations

import warnings

import datasets

from cuadft.core import progress
from cuadft.core.progress import LINE_START, bar


def lines_of(capsys):
    return [line for line in capsys.readouterr().out.splitlines() if line.strip()]


def test_a_plain_log_gets_whole_lines_with_count_and_rate(monkeypatch, capsys):
    monkeypatch.setenv("CUADFT_PLAIN", "1")
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", 0.0)
    shown = bar(3, "sft on test")
    for _ in range(3):
        shown.update(1)
    shown.close()
    lines = lines_of(capsys)
    assert len(lines) >= 4 and all(line.startswith(LINE_START + "sft on test: ") for line in lines)
    assert "0/3 rows" in lines[0] and "3/3 rows" in lines[-1] and "row/s" in lines[-1]


def test_a_plain_log_is_not_flooded(monkeypatch, capsys):
    monkeypatch.setenv("CUADFT_PLAIN", "1")
    shown = bar(1000, "fast")
    for _ in range(1000):
        shown.update(1)
    shown.close()
    assert len(lines_of(capsys)) == 2  # the beginning and the end


def test_an_unfinished_bar_says_where_it_stopped(monkeypatch, capsys):
    monkeypatch.setenv("CUADFT_PLAIN", "1")
    shown = bar(10, "cut", done=1)
    shown.update(3)
    shown.close()
    assert "4/10 rows" in lines_of(capsys)[-1]


def test_quiet_hides_future_warnings_and_restores_what_was(recwarn):
    datasets.enable_progress_bars()
    with progress.quiet():
        warnings.warn("will change", FutureWarning, stacklevel=1)
        warnings.warn("look here", UserWarning, stacklevel=1)
        assert datasets.are_progress_bars_disabled()
    assert [w.category for w in recwarn] == [UserWarning]
    assert not datasets.are_progress_bars_disabled()
