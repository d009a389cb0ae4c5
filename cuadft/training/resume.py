"""Run a training to its end, once: go on after a kill, and put the weights in place in one step.

`run_training` knows nothing of the model that is trained. It keeps a work folder for the checkpoints, and ends with a
folder that holds the weights and a training.json. `train_language_model` runs TRL's trainers and `ppo` through it,
`retrieval.finetune` the embedder. For example, the adapter in `out` is trained by

    history = train_language_model(
        build, out, base=base, base_id="owner/model", identity=[rows, repr(tuning)], ids=[row["id"] for row in rows]
    )

where `build(work)` returns the trainer, with `work` as its output_dir. Called again with the same arguments, this
returns the same history without training; after a kill it goes on from the last whole checkpoint.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cuadft.core import files, progress
from cuadft.core.files import value_hash
from cuadft.models import weights

RECORD = "training.json"  # beside the weights: the key of what they were trained from, and what the training says
STATE = "trainer_state.json"  # in a checkpoint; the trainer writes it last
CHECKPOINT_FILES = (STATE, "optimizer.pt", "scheduler.pt", "rng_state.pth")


def run_training(train: Callable[[Path, Path], dict[str, Any]], out: Path, *, identity: list[Any]) -> dict[str, Any]:
    """Train unless `out` holds the result already, put the weights in `out` in one step, and return training.json.

    identity: all that the training depends on, start weights included. Checkpoints and results of another identity are
    discarded.
    train(work, new): trains with its checkpoints in the folder `work`, going on from those that are there; writes the
    weights into the folder `new`; returns what training.json shall hold.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    key = value_hash(identity)
    work, new = out.with_name(f".{out.name}-work"), out.with_name(f".{out.name}-new")
    if (out / RECORD).is_file() and files.read_json(out / RECORD)["key"] == key:
        shutil.rmtree(work, ignore_errors=True)  # a kill at the very end leaves it
        return files.read_json(out / RECORD)
    if not (work / "key").is_file() or (work / "key").read_text() != key:
        shutil.rmtree(work, ignore_errors=True)
    files.write_text(work / "key", key)
    shutil.rmtree(new, ignore_errors=True)
    record = {"key": key} | train(work, new)
    files.write_json(new / RECORD, record)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(new, out)
    shutil.rmtree(work)
    return record


def train_language_model(
    build: Callable[[Path], Any], out: Path, *, base: Path, base_id: str, identity: list[Any], ids: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Run the trainer that `build(work)` returns to its end, write its weights to `out`, and return its log history.

    The trainer is one of TRL's or `ppo.PPOTrainer`. base.json beside the weights names the base model by `base_id` and
    hash. `ids` of the rows learned from are kept in training.json, so that alignment can ask what was not among them.
    """
    base_hash = weights.weights_hash(base)

    def train(work: Path, new: Path) -> dict[str, Any]:
        with progress.quiet(), completions_only():
            trainer = build(work)
            progress.watch_trainer(trainer, out.name)
            memory = progress.watch_memory(trainer)
            trainer.train(resume_from_checkpoint=last_checkpoint(work))
        _save_weights(trainer, new, base_id)
        files.write_json(new / "base.json", {"model": base_id, "sha256": base_hash})
        history = list(trainer.state.log_history)
        history[-1] |= {"memory_gb": round(max(memory, default=0.0), 2)}  # beside the seconds
        return {"rows": list(ids), "log_history": history}

    return run_training(train, out, identity=[identity, base_hash])["log_history"]


def trained_rows(out: Path) -> list[str]:
    """Return the ids of the rows that the weights in `out` were trained on; [] if training.json does not name them."""
    return files.read_json(out / RECORD).get("rows", []) if (out / RECORD).is_file() else []


def last_checkpoint(work: Path) -> str | None:
    """Return the newest checkpoint that was written whole, None without one; a kill can leave a part of another."""
    whole = [
        folder
        for folder in work.glob("checkpoint-*")
        if all((folder / name).exists() for name in CHECKPOINT_FILES)
        and any(folder.glob("*model.safetensors"))
        and (folder / STATE).read_text().endswith("}\n")
    ]
    return str(max(whole, key=lambda folder: int(folder.name.split("-")[1]))) if whole else None


@contextmanager
def completions_only() -> Iterator[None]:
    """Let TRL project only the completions' positions through the LM head, on CPU as it does on GPU.

    Without Triton, TRL's fused head also scores the positions of the prompt, which takes half of a step's time on CPU.
    A test compares the losses: they are equal.
    """
    from trl.trainer import utils

    before = utils._use_triton  # this module reads it only to decide which positions are scored
    utils._use_triton = lambda device: True
    try:
        yield
    finally:
        utils._use_triton = before


def _save_weights(trainer: Any, folder: Path, base_id: str) -> None:
    from peft import PeftModel

    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PeftModel):
        model.peft_config["default"].base_model_name_or_path = base_id  # the base's folder differs between machines
        model.save_pretrained(folder, selected_adapters=["default"], save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)
    else:
        model.config.use_cache = True  # gradient checkpointing turned it off
        trainer.save_model(str(folder))
        (folder / "training_args.bin").unlink(missing_ok=True)  # it holds folders of this machine
