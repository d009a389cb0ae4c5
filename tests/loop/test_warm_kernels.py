"""Kernels forked from a process that has the libraries in memory behave as ordinary ones do."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from nbclient.exceptions import DeadKernelError

from cuadft.loop import kernel
from cuadft.loop.warm import WarmKernels

LIBRARIES = ("IPython", "ipykernel.kernelapp", "colorsys", "a_module_that_is_not_there")


def execute(folder: Path, *cells: str, kernels: WarmKernels | None) -> list[str]:
    """Run cells in a kernel; return what each printed."""
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbformat.write(made, folder / "in.ipynb")
    kernel.execute_notebook(folder / "in.ipynb", folder / "out.ipynb", {}, folder, kernels=kernels)
    done = nbformat.read(folder / "out.ipynb", 4)
    return ["".join(output.get("text", "") for output in cell.outputs).strip() for cell in done.cells[-len(cells) :]]


def is_at_work(pid: int) -> bool:
    """Tell whether a process is there and is no zombie, which waits to be collected."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def ends(pid: int) -> bool:
    """Wait until a process is no longer at work; False if it still is after 20 seconds."""
    until = time.monotonic() + 20
    while is_at_work(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not is_at_work(pid)


def test_a_kernel_has_the_libraries_when_it_starts_and_shares_nothing_else_with_the_one_before(tmp_path):
    with WarmKernels(libraries=LIBRARIES) as warm:
        first = execute(
            tmp_path, "import sys, os; print('colorsys' in sys.modules, os.getpid()); mine = 1", kernels=warm
        )
        second = execute(tmp_path, "import os; print('mine' in globals(), os.getpid(), os.getppid())", kernels=warm)
    (loaded, one), (kept, two, parent) = first[0].split(), second[0].split()
    assert (loaded, kept) == ("True", "False") and len({one, two, parent, str(os.getpid())}) == 4
    assert ends(int(two)) and ends(int(parent))


def test_a_kernel_works_as_an_ordinary_one(tmp_path, monkeypatch):
    monkeypatch.setenv("CUADFT_OF_THE_CALLER", "seen")
    cells = (
        "import os, sys; print(os.getcwd(), os.environ['CUADFT_OF_THE_CALLER'], __name__, sys.argv[0][-11:])",
        "import signal; print(signal.getsignal(signal.SIGINT).__name__, signal.getsignal(signal.SIGCHLD).name)",
        "import subprocess; print(subprocess.run(['false']).returncode)",
        "import matplotlib; print(matplotlib.get_backend())",
        "import random; print(random.random() != 0.5, sys.path[0])",
    )
    with WarmKernels(libraries=LIBRARIES) as warm:
        found = execute(tmp_path, *cells, kernels=warm)
    assert found == execute(tmp_path, *cells, kernels=None)
    assert found[0].startswith(f"{tmp_path} seen __main__") and found[2] == "1" and "inline" in found[3]


def test_each_kernel_draws_random_numbers_of_its_own(tmp_path):
    with WarmKernels(libraries=("random", "ipykernel.kernelapp")) as warm:
        drawn = [execute(tmp_path, "import random; print(random.random())", kernels=warm)[0] for _ in range(2)]
    assert drawn[0] != drawn[1]


def test_a_kernel_that_dies_is_reported_and_the_next_one_starts(tmp_path):
    with WarmKernels(libraries=LIBRARIES) as warm:
        with pytest.raises(DeadKernelError):
            execute(tmp_path, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", kernels=warm)
        assert execute(tmp_path, "print(1)", kernels=warm) == ["1"]
        psutil.Process(warm.server).kill()
        assert execute(tmp_path, "print(2)", kernels=warm) == ["2"]


def test_an_error_keeps_the_executed_copy(tmp_path):
    from papermill.exceptions import PapermillExecutionError

    with WarmKernels(libraries=LIBRARIES) as warm, pytest.raises(PapermillExecutionError):
        execute(tmp_path, "print('before')", "1 / 0", kernels=warm)
    assert "ZeroDivisionError" in (tmp_path / "out.ipynb").read_text()


@pytest.mark.parametrize("at_once", [True, False])
def test_a_killed_loop_takes_its_kernels_along_and_the_lock_is_free(tmp_path, at_once):
    script = f"""
import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
import test_warm_kernels as here
with here.kernel.lock(Path("run")) as held, here.WarmKernels(held, libraries=here.LIBRARIES) as warm:
    note = "import os; open('pid', 'w').write(str(os.getpid()))"
    here.execute(Path.cwd(), note, "import time; time.sleep(60)", kernels=warm)
"""
    loop = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path)
    until = time.monotonic() + 60
    while not (tmp_path / "pid").is_file() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < until and loop.poll() is None
        time.sleep(0.05)
    pid = int((tmp_path / "pid").read_text())
    assert is_at_work(pid)
    loop.send_signal(signal.SIGKILL)
    loop.wait()
    assert at_once or ends(pid)  # it ends by itself within a second or so
    with kernel.lock(tmp_path / "run"):
        assert not is_at_work(pid)


def test_what_kernels_share_counts_for_no_stage(tmp_path):
    with WarmKernels(libraries=("numpy", "pandas", *LIBRARIES)) as warm:
        with kernel.watch_memory(warm, interval=0.02) as peak:
            execute(tmp_path, "1", kernels=warm)
            server = psutil.Process(warm.server).memory_info().rss / 1e6
    assert 20 < peak.mb < server + 60  # both together would be more


def test_nothing_is_imported_for_a_loop_of_one_stage(tmp_path):
    with WarmKernels(libraries=LIBRARIES) as warm:
        parents = []
        for warm.last in (True, False, True):
            parents += execute(tmp_path, "import os; print(os.getppid())", kernels=warm)
        assert parents == [str(os.getpid()), str(warm.server), str(warm.server)]
