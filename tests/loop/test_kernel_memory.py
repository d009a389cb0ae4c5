"""Peak memory of the processes that a stage starts."""

from __future__ import annotations

import subprocess
import sys
import time

import psutil
import pytest

from cuadft.loop import kernel

HOLD = "import sys, time; held = bytearray({}); print('held', flush=True); {}; time.sleep(30)"


def holding(megabytes: int, then: str = "pass") -> subprocess.Popen:
    """Start a process that holds memory (written to, so that it is really there); return once it does."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(megabytes * 10**6, then)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    return process


def end(process: subprocess.Popen) -> None:
    process.kill()
    process.communicate()


def test_the_peak_of_a_process_is_kept_after_it_has_given_memory_back() -> None:
    with kernel.watch_memory(interval=0.02) as peak:
        process = holding(80, "time.sleep(0.3); del held")
        time.sleep(0.6)
        end(process)
    assert 80 <= peak.mb < 140


def test_processes_that_were_there_before_do_not_count() -> None:
    process = holding(200)
    with kernel.watch_memory(interval=0.05) as peak:
        other = holding(20)
        time.sleep(0.2)
        end(other)
    end(process)
    assert 20 <= peak.mb < 140


def test_processes_at_the_same_time_add_up_and_their_children_count() -> None:
    start = f"import subprocess; subprocess.run([sys.executable, '-c', {HOLD.format(60 * 10**6, 'pass')!r}])"
    with kernel.watch_memory(interval=0.05) as peak:
        first, second = (
            holding(60),
            subprocess.Popen([sys.executable, "-c", f"import sys; {start}"], stdout=subprocess.PIPE),
        )
        assert second.stdout.readline() == b"held\n"
        time.sleep(0.3)
        grandchildren = psutil.Process(second.pid).children()
        for process in grandchildren:
            process.kill()
        for process in (first, second):
            end(process)
    assert len(grandchildren) == 1 and 120 <= peak.mb < 260


def test_nothing_seen_is_none_not_zero() -> None:
    with kernel.watch_memory(interval=0.01) as peak:
        pass
    assert peak.mb is None


def test_an_error_under_watch_passes_through() -> None:
    with pytest.raises(ZeroDivisionError), kernel.watch_memory():
        raise ZeroDivisionError


def test_the_copy_of_this_process_that_is_about_to_start_another_program_does_not_count() -> None:
    held = b"x" * 300_000_000
    with kernel.watch_memory(interval=0.02) as peak:
        subprocess.run([sys.executable, "-c", "import time; time.sleep(0.3)"], preexec_fn=lambda: time.sleep(0.3))
    assert len(held) == 300_000_000 and 0 < peak.mb < 200
