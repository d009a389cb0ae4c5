"""Run a notebook in a Jupyter kernel: its executed copy, the lock on the run folder, and the kernel's peak memory.

    with lock(run) as held, WarmKernels(held) as kernels, watch_memory() as peak:
        execute_notebook(source, target, parameters, root, kernels=kernels)
    peak.mb  # megabytes

One loop at a time works in a run folder. The loop locks the folder's file `.lock` and hands the lock down to the
kernels that it starts. A kernel can outlive a killed loop; then the system keeps the lock until the kernel has ended
too. The next loop ends such a kernel before it begins; it finds the kernel by a variable of its environment.
The executed copy is always written whole, and it holds no secret of the environment.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import psutil

from cuadft.core import files, progress
from cuadft.core.errors import InputError, redact
from cuadft.core.files import write_text
from cuadft.core.params import notebook_cells
from cuadft.core.runs import unwritable
from cuadft.loop.warm import WarmKernels

if TYPE_CHECKING:
    from jupyter_client import AsyncKernelManager

HEARTBEAT = 5.0  # seconds that a kernel's heartbeat may take to end
LOCK_FILE = ".lock"
MARK = "CUADFT_LOOP"  # the variable by which the next loop finds the kernels of a killed one
PATIENCE = 20.0  # seconds in which the kernels of a killed loop have to end
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
PASSED_ON = re.compile(rf"{progress.LINE_START}|.*\b(?:cuadft|ipykernel_\d+)/.+:\d+: UserWarning: ")
MEMORY_INTERVAL = 0.5  # seconds between two looks at the memory


# Run a notebook.


def execute_notebook(
    source: Path,
    target: Path,
    parameters: dict[str, object],
    root: Path,
    log: Callable[[str], None] = print,
    *,
    kernels: WarmKernels | None = None,
) -> None:
    """Run one notebook with papermill in the project root; `target` is kept up to date, also on failure.

    kernels: where the kernel comes from, with the lock of the run folder. log: gets the lines of progress that the
    notebook prints.
    """
    import papermill
    from jupyter_core.utils import ensure_event_loop

    ensure_event_loop().set_exception_handler(_pass_over_dead_kernels)
    target.parent.mkdir(parents=True, exist_ok=True)
    # papermill fills {names} in paths
    paths = [str(path).replace("{", "{{").replace("}", "}}") for path in (source, target)]
    # the kernel's own log would mix with the loop's lines; errors of cells are kept in the executed copy
    quiet = {"progress_bar": False, "extra_arguments": ["--IPKernelApp.log_level=50"]}
    options = {"kernel_name": "python3", "cwd": str(root), "start_timeout": 180, **quiet}
    options["kernel_manager_class"] = _kernel_manager(kernels)
    register_copy(target)
    os.environ["CUADFT_PLAIN"] = "1"  # kernels inherit it: whole lines instead of bars, here and in the executed copy
    options |= {"stdout_file": _Relay(log), "stderr_file": _Relay(log)}
    papermill.execute_notebook(*paths, parameters=parameters, **options)


def _pass_over_dead_kernels(loop: Any, context: dict[str, Any]) -> None:
    """Leave out the error of a cell that an interruption abandoned; the loop reports the interruption itself.

    Nobody waits for that cell any more. When its kernel dies, asyncio would print the error with a traceback.
    """
    from nbclient.exceptions import DeadKernelError

    if not isinstance(context.get("exception"), DeadKernelError):
        loop.default_exception_handler(context)


def stopped_early(target: Path) -> str | None:
    """Return what stopped a notebook early without an error: `sys.exit(0)` in a cell looks like success."""
    for number, cell in enumerate(notebook_cells(target), 1):
        code = cell["cell_type"] == "code" and "".join(cell["source"]).strip()
        if code and cell["execution_count"] is None:
            return f"The notebook stopped early: cell {number} was not executed (sys.exit in a cell above?)"
    return None


def _kernel_manager(kernels: WarmKernels | None) -> type[AsyncKernelManager]:
    """Return a class of managers that start warm kernels if they can, and whose clients always come to an end."""
    from jupyter_client import AsyncKernelClient, AsyncKernelManager
    from jupyter_client.channels import HBChannel

    class Heartbeat(HBChannel):
        def stop(self) -> None:
            # Jupyter's own method waits without limit for this thread, which may itself wait for a kernel that is
            # gone; the loop would hang
            self._running = False
            self._exit.set()
            self.join(timeout=HEARTBEAT)
            self.close()

    class Manager(AsyncKernelManager):
        async def _async_launch_kernel(self, kernel_cmd: list[str], **settings: Any) -> None:
            place = {"cwd": settings.get("cwd") or os.getcwd(), "env": settings.get("env") or dict(os.environ)}
            started = kernels.start(kernel_cmd, **place) if kernels else None
            if started is None:
                held = {"pass_fds": (kernels.hold,)} if kernels and kernels.hold is not None else {}
                await super()._async_launch_kernel(kernel_cmd, **settings, **held)
                return
            given = self.provisioner
            given.process, given.pid, given.pgid, given.cwd = started, started.pid, started.pid, place["cwd"]
            self._reconcile_connection_info(given.connection_info)

        def client(self, **settings: object) -> AsyncKernelClient:
            made = super().client(**settings)
            made.hb_channel_class = Heartbeat
            return made

    return Manager


class _Relay:
    """A file for papermill that passes a notebook's progress lines and our warnings on and drops its other output."""

    def __init__(self, log: Callable[[str], None]):
        self.log = log

    def write(self, text: str) -> None:
        for line in text.splitlines():
            if begin := PASSED_ON.match(line):
                self.log(f"    {progress.LINE_START}{line[begin.end() :]}")

    def flush(self) -> None:
        """Do nothing: each line is passed on at once."""


# The executed copy of a notebook.


def register_copy(target: Path) -> None:
    """Let papermill write this file in one step each time, and without secrets (a traceback may repeat a key)."""
    from papermill.iorw import LocalHandler, papermill_io

    class Copy(LocalHandler):
        def write(self, buf: str, path: str) -> None:
            write_text(path, without_secrets(buf))

    papermill_io.register(str(target), Copy())


def without_secrets(notebook: str) -> str:
    """Return a notebook's JSON without secrets in any of its texts; unchanged to the byte if it holds no secret.

    An infinite parameter, which papermill notes as Infinity, becomes a text: JupyterLab opens no such file.
    """
    infinite: list[str] = []
    content = json.loads(notebook, parse_constant=lambda name: infinite.append(name) or name)
    found = _redacted(content)
    return (
        notebook
        if found == content and not infinite
        else json.dumps(found, ensure_ascii=False, indent=1, sort_keys=True) + "\n"
    )


def _redacted(value: Any) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list):
        lines_of_one_text = all(isinstance(line, str) and (line.endswith("\n") or line is value[-1]) for line in value)
        if value and lines_of_one_text:  # joined first, since a secret may run over the end of a line
            joined = "".join(value)
            return value if redact(joined) == joined else redact(joined).splitlines(keepends=True)
        return [_redacted(item) for item in value]
    return {key: _redacted(item) for key, item in value.items()} if isinstance(value, dict) else value


# The lock on a run folder.


@contextmanager
def lock(run: Path) -> Iterator[int]:
    """Hold a run folder for one process and its kernels, until all of them have ended in whatever way.

    Yields the lock's descriptor: a process that inherits it holds the folder too.
    Ends the kernels of a loop that was killed, and deletes the files that it left half-written. Raises InputError if
    another loop works there, with its process id, and if the folder can't be written, now or later.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        file = open(run / LOCK_FILE, "a+", encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise unwritable(run, error) from error
    with file:
        _take_lock(run, file)
        try:
            file.truncate(0)
            file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n")
            file.flush()
            os.environ[MARK] = _mark(run, os.getpid())  # kernels inherit it
            files.remove_leftovers(run)
            yield file.fileno()
        except OSError as error:
            place = Path(os.fsdecode(error.filename)).absolute() if error.filename else run.absolute()
            elsewhere = error.errno in (errno.EACCES, errno.EPERM) and not place.is_relative_to(run.absolute())
            if error.errno not in UNWRITABLE or elsewhere:
                raise
            raise unwritable(run, error) from error
        finally:
            os.environ.pop(MARK, None)


def is_locked(run: Path) -> bool:
    """Tell whether a loop works in the run folder now; a kernel that a killed loop left behind does not count."""
    if not (run / LOCK_FILE).is_file():
        return False
    with open(run / LOCK_FILE, encoding="utf-8") as file:
        return not _try_lock(file, fcntl.LOCK_SH) and not _is_gone(_noted_holder(run))


def _take_lock(run: Path, file: TextIO) -> None:
    """Lock the file; raises InputError that says who has it."""
    patience = time.monotonic() + PATIENCE
    while not _try_lock(file, fcntl.LOCK_EX):
        holder = _noted_holder(run)
        who = f"process {holder.get('pid', 'unknown')} on {holder.get('host', 'an unknown computer')}"
        if not _is_gone(holder):
            raise InputError(f"Another `cuadft run` ({who}) works in {run}: wait for it, or choose another --run-dir.")
        if time.monotonic() > patience:
            raise InputError(
                f"A run in {run} was killed ({who}), but what it started still works there and can't be ended "
                "from here: end its kernel (cuadft.loop.warm or ipykernel_launcher), then repeat the command."
            )
        for process in psutil.process_iter():
            with suppress(psutil.Error):  # it has just ended, or is another user's
                if process.environ().get(MARK) == _mark(run, holder["pid"]):
                    process.kill()
        time.sleep(0.05)


def _try_lock(file: TextIO, how: int) -> bool:
    """Lock the file, shared or exclusive; return False if somebody else has locked it."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _mark(run: Path, loop: int) -> str:
    """Return what the environment of all kernels of a loop in a run folder holds."""
    return f"{loop} {run.resolve()}"


def _noted_holder(run: Path) -> Mapping:
    """Return who locked the folder last, as {"pid", "host"}; {} if that is not written there (yet)."""
    try:
        found = files.read_json(run / LOCK_FILE)
    except InputError:
        return {}
    return found if isinstance(found, dict) and isinstance(found.get("pid"), int) else {}


def _is_gone(holder: Mapping) -> bool:
    """Tell whether the process that locked the folder has surely ended.

    A process on another computer can't be seen from here and is taken to be at work.
    """
    if holder.get("host") != socket.gethostname():
        return False
    try:
        return psutil.Process(holder["pid"]).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


# Peak memory.


class Peak:
    """The most memory seen so far, in bytes; 0 where none could be seen."""

    bytes = 0

    @property
    def mb(self) -> float | None:
        """Return megabytes (10^6 bytes), None if no memory could be seen."""
        return round(self.bytes / 1e6, 1) if self.bytes else None


@contextmanager
def watch_memory(kernels: WarmKernels | None = None, *, interval: float = MEMORY_INTERVAL) -> Iterator[Peak]:
    """Watch from a thread the memory of the processes started meanwhile, such as a notebook's kernel.

    Every `interval` seconds the sum of what all processes hold is read (shared pages count for each process); a rise
    between two looks is missed. Memory of a GPU is not included, nor the server of `kernels`, which no stage owns.
    """
    peak, done, before = Peak(), threading.Event(), set(psutil.Process().children(recursive=True))
    # a process that is about to start another program shows the memory, and the command, of the one that it copied
    own = psutil.Process().cmdline()

    def keep_looking() -> None:
        ended = False
        while not ended:
            ended, held = done.wait(interval), 0
            server = kernels.server if kernels else None
            for process in set(psutil.Process().children(recursive=True)) - before:
                with suppress(psutil.Error):  # it has just ended
                    counts = process.pid != server and process.cmdline() != own
                    held += process.memory_info().rss if counts else 0
            peak.bytes = max(peak.bytes, held)

    thread = threading.Thread(target=keep_looking, name="memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()
