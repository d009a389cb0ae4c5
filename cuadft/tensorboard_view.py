"""TensorBoard's view of a run: each system a line over the iterations, the figures, parameters and decisions beside them."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from cuadft import champion
from cuadft.snapshot import Snapshot
from cuadft.trackers import store

LOOP = "loop"  # the folder of what belongs to no system
PART = {"prefix": ".tensorboard.", "suffix": ".tmp"}


def send(run: Path, snapshots: Sequence[Snapshot]) -> str:
    """Write the view anew, since event files are only ever appended to; return its folder."""
    folder = store(run, "tensorboard")
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f"{PART['prefix']}*{PART['suffix']}"):  # of a write that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=folder.parent, **PART) as part:
        _write(Path(part, "new"), snapshots)
        if folder.exists():
            os.replace(folder, Path(part, "old"))
        os.replace(Path(part, "new"), folder)
    return str(folder)


def exists(run: Path) -> bool:
    """Tell whether the run has this view."""
    return store(run, "tensorboard").is_dir()


def _write(folder: Path, snapshots: Sequence[Snapshot]) -> None:
    from torch.utils.tensorboard import SummaryWriter

    writers: dict[str, SummaryWriter] = {}
    try:
        writers[LOOP] = SummaryWriter(str(folder / LOOP))
        for one in snapshots:
            step = one.iteration.number
            for (split, metric, system), known in one.scores().items():
                if system not in writers:
                    writers[system] = SummaryWriter(str(folder / system))
                for part, value in known.items():
                    tag = f"{split}/{metric}" + ("" if part == "value" else f".{part}")
                    writers[system].add_scalar(tag, value, step)
            _write_loop(writers[LOOP], one)
    finally:
        for writer in writers.values():
            writer.close()


def _write_loop(writer, one: Snapshot) -> None:
    import numpy as np
    from PIL import Image

    step, chosen = one.iteration.number, champion.label(one.champion) if one.champion else "none"
    for path in one.figures:
        with Image.open(path) as image:
            writer.add_image(f"figures/{path.stem}", np.asarray(image.convert("RGB")), step, dataformats="HWC")
    rows = "\n".join(f"| {name} | {value.replace('|', '/')} |" for name, value in one.parameters.items())
    writer.add_text("parameters", f"| parameter | value |\n| --- | --- |\n{rows}", step)
    writer.add_text("decision", f"Champion: **{chosen}**\n\n{one.decision.get('reason', '')}", step)
