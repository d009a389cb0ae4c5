"""Run one notebook with papermill in a kernel of its own, which holds the run folder as long as it lives."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cuadft import executed_copy, progress
from cuadft.declarations import cells

HEARTBEAT = 5.0  # seconds that a kernel's heartbeat may take to end

if TYPE_CHECKING:
    from jupyter_client import AsyncKernelManager


def execute_notebook(
    source: Path, target: Path, parameters: dict[str, object], root: Path, log: Callable[[str], None] = print,
    *, hold: int | None = None,
) -> None:  # fmt: skip
    """Run one notebook with papermill in the project root; `target` is kept up to date, also on failure.

    hold: the descriptor of the run folder's lock (see `holder.lock`), which the kernel inherits.
    """
    import papermill

    target.parent.mkdir(parents=True, exist_ok=True)
    # papermill fills {names} in paths
    paths = [str(path).replace("{", "{{").replace("}", "}}") for path in (source, target)]
    # the kernel's own log would mix with the loop's lines; errors of cells are kept in the executed copy
    quiet = {"progress_bar": False, "extra_arguments": ["--IPKernelApp.log_level=50"]}
    options = {"kernel_name": "python3", "cwd": str(root), "start_timeout": 180, **quiet}
    options["kernel_manager_class"] = _manager(hold)
    executed_copy.watch(target)
    os.environ["CUADFT_PLAIN"] = "1"  # kernels inherit it: whole lines instead of bars, here and in the executed copy
    papermill.execute_notebook(*paths, parameters=parameters, stdout_file=_Relay(log), **options)


def stopped_early(target: Path) -> str | None:
    """Return what stopped a notebook early without an error: `sys.exit(0)` in a cell looks like success."""
    for number, cell in enumerate(cells(target), 1):
        code = cell["cell_type"] == "code" and "".join(cell["source"]).strip()
        if code and cell["execution_count"] is None:
            return f"The notebook stopped early: cell {number} was not executed (sys.exit in a cell above?)"
    return None


def _manager(descriptor: int | None) -> type[AsyncKernelManager]:
    """Return a kernel manager whose kernels inherit a descriptor, and whose clients always come to an end."""
    from jupyter_client import AsyncKernelClient, AsyncKernelManager
    from jupyter_client.channels import HBChannel

    class Heartbeat(HBChannel):
        def stop(self) -> None:
            # Jupyter's own waits without limit for a thread that may wait for a kernel that is gone, and hangs the loop
            self._running = False
            self._exit.set()
            self.join(timeout=HEARTBEAT)
            self.close()

    class Manager(AsyncKernelManager):
        async def start_kernel(self, **settings: object) -> None:
            held = {} if descriptor is None else {"pass_fds": (descriptor,)}
            await super().start_kernel(**settings, **held)

        def client(self, **settings: object) -> AsyncKernelClient:
            made = super().client(**settings)
            made.hb_channel_class = Heartbeat
            return made

    return Manager


class _Relay:
    """A file for papermill that passes a notebook's progress lines on and drops its other output."""

    def __init__(self, log: Callable[[str], None]):
        self.log = log

    def write(self, text: str) -> None:
        for line in text.splitlines():
            if line.startswith(progress.MARK):
                self.log(f"    {line}")

    def flush(self) -> None:
        """Do nothing: each line is passed on at once."""
