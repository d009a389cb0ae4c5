"""Trackio's view of a run: a project of its name, a Trackio run for each iteration, in a folder of the run folder.

Trackio reads its settings when it is imported and can send to a server: a process of its own writes the view, with a folder
of its own and without any such setting. Run as `python -m cuadft.trackio_view FOLDER`, it reads what to write from stdin.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cuadft import champion
from cuadft.errors import redact
from cuadft.snapshot import Snapshot
from cuadft.trackers import store

PART = ".trackio.tmp"
PATIENCE = 120  # seconds


def send(run: Path, snapshots: Sequence[Snapshot]) -> str:
    """Write the view anew, since Trackio only appends; return its folder. Raises RuntimeError if Trackio fails."""
    folder = store(run, "trackio")
    part = folder.with_name(PART)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    own = {"TRACKIO_DIR": str(part), "TRACKIO_STORAGE_MODE": "sqlite", "HF_HUB_OFFLINE": "1"}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TRACKIO_")} | own
    done = subprocess.run([sys.executable, "-m", "cuadft.trackio_view", run.name], env=environment, text=True,
                          input=json.dumps([_content(one) for one in snapshots]), capture_output=True, timeout=PATIENCE)
    if done.returncode:
        raise RuntimeError(f"trackio: {redact(done.stderr.strip())[-300:]}")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(part, folder)
    return str(folder)


def exists(run: Path) -> bool:
    """Tell whether the run has this view."""
    return store(run, "trackio").is_dir()


def _content(one: Snapshot) -> dict[str, Any]:
    """Return an iteration as JSON-able values: parameters, scores such as "test/f1/sft", figures and the decision."""
    scores = {f"{split}/{metric}/{system}" + ("" if part == "value" else f".{part}"): value
              for (split, metric, system), known in one.scores().items() for part, value in known.items()}
    chosen = champion.label(one.champion) if one.champion else "none"
    config = dict(one.parameters) | {"champion": chosen, "decision": str(one.decision.get("reason", ""))}
    return {"name": one.iteration.dir.name, "step": one.iteration.number, "config": config, "scores": scores,
            "figures": {path.stem: str(path) for path in one.figures}}


def main(project: str, contents: Sequence[dict[str, Any]]) -> None:
    """Write iterations into Trackio's folder, TRACKIO_DIR."""
    import trackio

    for one in contents:
        trackio.init(project=project, name=one["name"], config=one["config"], embed=False, auto_log_gpu=False,
                     auto_log_cpu=False)
        trackio.log(one["scores"] | {f"figures/{name}": trackio.Image(path) for name, path in one["figures"].items()},
                    step=one["step"])
        trackio.finish()


if __name__ == "__main__":
    main(sys.argv[1], json.load(sys.stdin))
