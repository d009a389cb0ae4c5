"""Start kernels that have the large libraries in memory: a stage begins at once instead of importing them anew.

    with WarmKernels(hold=descriptor) as warm:
        process = warm.start(command, cwd="notebooks", env=dict(os.environ))   # None: start an ordinary process

A server process imports them and forks itself for each kernel. It knows nothing of this package, so that each stage
reads the package's code as it is then. The server ends with the process that started it, and so do its kernels.
"""

from __future__ import annotations

import gc
import os
import runpy
import signal
import subprocess
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil

# What notebooks import in the end; a module that is missing is left to the notebook that wants it.
LIBRARIES = (
    *("torch", "transformers", "sentence_transformers", "peft", "accelerate", "datasets", "dspy", "faiss", "bm25s"),
    *("sklearn.linear_model", "scipy.stats", "pandas", "matplotlib.pyplot", "IPython", "ipykernel.kernelapp"),
    *("trl.trainer.sft_trainer", "transformers.models.llama.modeling_llama", "transformers.models.bert.modeling_bert"),
)
# Settings that libraries read when they are imported; what the user has set comes first.
SETTINGS = {
    "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else LiteLLM asks the network for prices
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
NEEDS_CUDA = Path("/dev/nvidiactl")  # a process that was forked can't use CUDA if its parent has looked for devices


class WarmKernel(psutil.Process):
    """A kernel's process, with what Jupyter asks of a subprocess.Popen."""

    stdin = stdout = stderr = None

    def poll(self) -> int | None:
        """Return None while the process runs, else 1: its exit code is known to the server alone."""
        return None if self.is_running() and self.status() != psutil.STATUS_ZOMBIE else 1


class WarmKernels:
    """Where kernels come from during a run.

    hold: a descriptor that all of them inherit (None: no descriptor). libraries: the modules that they share. last:
    set before the last kernel starts; if it is the only one, it is an ordinary process, which imports what it needs.
    """

    def __init__(self, hold: int | None = None, *, libraries: Sequence[str] = LIBRARIES) -> None:
        self.hold, self.libraries, self.last = hold, libraries, False
        self._server: subprocess.Popen | None = None
        self._line: Connection | None = None

    def __enter__(self) -> WarmKernels:
        return self

    def __exit__(self, *_: object) -> None:
        if self._server:
            self._line.close()
            self._server.kill()  # it may still be importing
            self._server.wait()

    @property
    def server(self) -> int | None:
        """Return the process id of the server, None where it was not needed so far."""
        return self._server.pid if self._server else None

    def start(self, command: Sequence[str], *, cwd: str, env: dict[str, str]) -> WarmKernel | None:
        """Start a kernel by its command line; return None where only an ordinary process will do.

        So it is for an only kernel, on a system that can't fork safely, and for the kernel of another Python.
        """
        own = len(command) > 2 and os.path.realpath(command[0]) == os.path.realpath(sys.executable)
        if not own or list(command[1:3]) != ["-m", "ipykernel_launcher"]:
            return None
        if sys.platform != "linux" or NEEDS_CUDA.exists() or (self.last and self._server is None):
            return None
        if self._server is None:
            self._start_server()
        try:
            self._line.send((list(command[3:]), cwd, env))
            return WarmKernel(self._line.recv())
        except (EOFError, OSError, psutil.NoSuchProcess):  # the server was killed; the next kernel gets a new one
            self.__exit__()
            self._server = None
            return None

    def _start_server(self) -> None:
        self._line, theirs = Pipe()
        descriptors = [theirs.fileno(), *([] if self.hold is None else [self.hold])]
        self._server = subprocess.Popen(
            [sys.executable, "-P", "-m", "cuadft.loop.warm", str(theirs.fileno()), *self.libraries],
            pass_fds=descriptors,
            env=SETTINGS | os.environ,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # an interruption from the keyboard is for the loop, which ends its kernels
        )
        theirs.close()


def serve(line: Connection, libraries: Sequence[str]) -> None:
    """Import the libraries, then fork a kernel for each request until the line ends."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # kernels that ended leave no zombies
    for name in libraries:
        with suppress(ImportError):
            import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a kernel would write to, and so copy, all memory that it shares with the server
    with suppress(EOFError):
        while True:
            request = line.recv()
            with warnings.catch_warnings(action="ignore"):  # of threads: those of BLAS and Arrow are made for forks
                pid = os.fork()
            if pid == 0:
                line.close()
                become_kernel(*request)
            with suppress(OSError):  # the kernel has done it, or has ended
                os.setpgid(pid, pid)
            line.send(pid)


def become_kernel(arguments: list[str], cwd: str, env: dict[str, Any]) -> None:
    """Turn this process into a kernel of its own process group; it exits when the kernel does."""
    with suppress(OSError):  # the server has done it
        os.setpgid(0, 0)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    # A kernel ends when this parent does. It would read JPY_PARENT_PID when it is imported, which was before.
    sys.argv = ["ipykernel_launcher", *arguments, f"--IPKernelApp.parent_handle={os.getppid()}"]
    runpy.run_module("ipykernel_launcher", run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])), sys.argv[2:])
