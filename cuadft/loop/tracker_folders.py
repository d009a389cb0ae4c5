"""Views of a run in TensorBoard and Trackio: local folders that are written anew each time, since both only append.

    send_tensorboard(run, contents)  # returns the folder; contents: `trackers.content_of` each iteration

TensorBoard draws each system as a line over iterations. Trackio has a run for each iteration.
Trackio reads its settings from the environment when it is imported, and they can make it send data to a server. So a
separate process writes its view, with a folder of its own and without these settings. That process is `python -m
cuadft.loop.tracker_folders PROJECT`, which reads from stdin what to write.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from cuadft.core.errors import redact

NO_SYSTEM = "loop"  # TensorBoard's folder for what belongs to no system: figures, parameters and decisions
TRACKIO_TIMEOUT = 120  # seconds


@contextmanager
def _anew(folder: Path) -> Iterator[Path]:
    """Lend an empty folder that replaces `folder` once it is filled."""
    part = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    yield part
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)


def _texts(content: dict[str, Any]) -> dict[str, str]:
    return {"decision": content["decision"], "champion": content["champion"]} | content["parameters"]


def send_tensorboard(run: Path, contents: Sequence[dict[str, Any]]) -> str:
    """Write the view; return its folder."""
    folder = run / "trackers" / "tensorboard"
    with _anew(folder) as part:
        _write_events(part, contents)
    return str(folder)


def _write_events(folder: Path, contents: Sequence[dict[str, Any]]) -> None:
    from matplotlib.image import imread
    from torch.utils.tensorboard import SummaryWriter

    with ExitStack() as stack:
        writer_of = cache(lambda system: stack.enter_context(SummaryWriter(str(folder / system))))
        for one in contents:
            for name, value in one["scores"].items():
                metric, _, last = name.rpartition("/")
                system, *part = last.split(".")
                writer_of(system).add_scalar(".".join([metric, *part]), value, one["number"])
            for path in one["figures"]:
                writer_of(NO_SYSTEM).add_image(f"figures/{path.stem}", imread(path), one["number"], dataformats="HWC")
            for name, text in _texts(one).items():
                writer_of(NO_SYSTEM).add_text(name, text, one["number"])


def send_trackio(run: Path, contents: Sequence[dict[str, Any]]) -> str:
    """Write the view; return its folder. Raises RuntimeError if Trackio fails."""
    folder = run / "trackers" / "trackio"
    told = [one | {"figures": list(map(str, one["figures"]))} for one in contents]
    with _anew(folder) as part:
        own = {"TRACKIO_DIR": str(part), "TRACKIO_STORAGE_MODE": "sqlite", "HF_HUB_OFFLINE": "1"}
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TRACKIO_")} | own
        command = [sys.executable, "-m", "cuadft.loop.tracker_folders", run.name]
        given = {"input": json.dumps(told), "text": True, "capture_output": True, "timeout": TRACKIO_TIMEOUT}
        done = subprocess.run(command, env=environment, **given)
        if done.returncode:
            raise RuntimeError(f"trackio: {redact(done.stderr.strip())[-300:]}")
    return str(folder)


def _write_trackio(project: str, contents: Sequence[dict[str, Any]]) -> None:
    """Write iterations into Trackio's folder, which the environment variable TRACKIO_DIR names."""
    import trackio

    quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
    for one in contents:
        trackio.init(project=project, name=f"iter-{one['number']:02d}", config=_texts(one), **quiet)
        figures = {f"figures/{Path(path).stem}": trackio.Image(path) for path in one["figures"]}
        trackio.log(one["scores"] | figures, step=one["number"])
        trackio.finish()


if __name__ == "__main__":
    _write_trackio(sys.argv[1], json.load(sys.stdin))
