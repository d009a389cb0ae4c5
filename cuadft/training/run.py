"""Run a TRL trainer to its end: go on after a kill, put the weights in place in one step, score completions only."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cuadft.core import files, progress
from cuadft.core.files import value_hash
from cuadft.models import weights

CHECKPOINT = ("trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth")  # the first is written last


def run_training(
    build: Callable[[Path], Any], out: Path, *, base: Path, base_id: str, identity: list[Any], ids: Sequence[str] = ()
) -> list[dict]:
    """Run a TRL trainer to its end with resume, then put its weights in `out` in one step; returns the log history.

    `identity` is what the training depends on: checkpoints and results of another identity are discarded. `ids` of the
    rows learned from are kept with the weights, so that alignment can ask what was not among them.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    base_hash = weights.weights_hash(base)
    key = value_hash([identity, base_hash])
    work = out.with_name(f".{out.name}-work")
    if (out / "training.json").is_file() and files.read_json(out / "training.json")["key"] == key:
        shutil.rmtree(work, ignore_errors=True)  # a kill at the very end leaves it
        return files.read_json(out / "training.json")["log_history"]
    if work.exists() and (not (work / "key").is_file() or (work / "key").read_text() != key):
        shutil.rmtree(work)
    files.write_text(work / "key", key)
    started = time.monotonic()
    with progress.quiet(), completions_only():
        trainer = build(work)
        progress.watch_trainer(trainer, out.name)
        trainer.train(resume_from_checkpoint=last_checkpoint(work))
    history = list(trainer.state.log_history)
    if not any("train_runtime" in entry for entry in history):  # TRL's trainers say it themselves
        history.append({"step": trainer.state.global_step, "train_runtime": round(time.monotonic() - started, 1)})
    scratch = out.with_name(f".{out.name}-new")
    shutil.rmtree(scratch, ignore_errors=True)
    _save(trainer, scratch, base_id)
    files.write_json(scratch / "base.json", {"model": base_id, "sha256": base_hash})
    files.write_json(scratch / "training.json", {"key": key, "rows": list(ids), "log_history": history})
    shutil.rmtree(out, ignore_errors=True)
    os.replace(scratch, out)
    shutil.rmtree(work)
    return history


def trained_rows(out: Path) -> list[str]:
    """Return the ids of the rows that the weights in `out` were trained on, none if that is not written there."""
    return files.read_json(out / "training.json").get("rows", []) if (out / "training.json").is_file() else []


@contextmanager
def completions_only() -> Iterator[None]:
    """Let TRL project only the completions' positions through the LM head, on CPU as it does on GPU.

    TRL's fused head scores every position where Triton is missing, prompts included: half of a step's time here. A test
    compares the losses.
    """
    from trl.trainer import utils

    before = utils._use_triton  # decides in this module on nothing but which positions are scored
    utils._use_triton = lambda device: True
    try:
        yield
    finally:
        utils._use_triton = before


def last_checkpoint(work: Path) -> str | None:
    """Return the newest checkpoint that was written whole; a kill can leave a part of one."""
    whole = [
        p
        for p in work.glob("checkpoint-*")
        if all((p / name).exists() for name in CHECKPOINT)
        and any(p.glob("*model.safetensors"))
        and (p / CHECKPOINT[0]).read_text().endswith("}\n")
    ]
    return str(max(whole, key=lambda p: int(p.name.split("-")[1]))) if whole else None


def _save(trainer: Any, folder: Path, base_id: str) -> None:
    from peft import PeftModel

    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        model.peft_config["default"].base_model_name_or_path = base_id  # not its folder, another one on every machine
        model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
    else:
        model.config.use_cache = True  # gradient checkpointing turns it off
        trainer.save_model(str(folder))
        (folder / "training_args.bin").unlink(missing_ok=True)  # holds folders of this machine
