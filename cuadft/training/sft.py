"""Supervised fine-tuning (SFT) with TRL and PEFT, on the prompts that the program sends.

    tuning = Tuning(mode="lora", learning_rate=1e-3, epochs=1)
    history = train_sft(base, "owner/model", rows, adapters / "sft", tuning=tuning)

A row is {"id", "prompt", "completion"}, the last two as chat messages; `rag.training_rows` makes rows. The other
functions set up what SFT and alignment have in common: model, adapter, tokenizer and TrainingArguments.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.core.errors import InputError
from cuadft.models import weights
from cuadft.models.generator import best_dtype, load_tokenizer
from cuadft.training.resume import train_language_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


LINEAR_LAYERS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Tuning:
    """Say how to tune: `mode` (lora, qlora, full), LoRA shape, and the schedule shared by SFT and alignment.

    lora_layers: tune only this many last layers, which spares the backward pass through the others; 0 tunes all.
    steps: number of optimiser steps; 0 leaves it to `epochs`.
    """

    mode: str = "lora"
    lora_r: int = 16
    lora_alpha: int = 32
    lora_layers: int = 0
    learning_rate: float = 1e-3
    epochs: float = 1.0
    batch_size: int = 8
    accumulation: int = 1
    save_steps: int = 10
    seed: int = 7
    steps: int = 0


def train_sft(
    base: Path, base_id: str, rows: Sequence[dict[str, Any]], out: Path, *, tuning: Tuning, start: Path | None = None
) -> list[dict[str, Any]]:
    """Fine-tune the base model, or the weights in `start`, on prompt/completion rows; return TRL's log history.

    The loss counts completions only. The adapter (or full model) is written to `out` with the hash of its base. A call
    that was killed goes on from its last whole checkpoint if it is repeated with the same arguments; a finished
    training is not repeated. Raises InputError without rows, or if TRL would drop some.
    """

    def build(work: Path) -> Any:
        from trl import SFTConfig, SFTTrainer

        model = load_trainable(base, start, tuning)
        config = SFTConfig(**common_settings(work, tuning), max_length=None, train_sampling_strategy="group_by_length")
        new = None if start or tuning.mode == "full" else lora_config(tuning, model.config)
        columns = ("prompt", "completion")
        return build_trainer(SFTTrainer, model, load_tokenizer(base), config, rows, *columns, peft_config=new)

    if not rows:
        raise InputError("There are no rows to train on: take more training contracts (train_contracts).")
    identity = [list(rows), repr(tuning), weights.weights_hash(start) if start else None]
    ids = [row["id"] for row in rows]
    return train_language_model(build, out, base=base, base_id=base_id, identity=identity, ids=ids)


def build_trainer(
    kind: Any, model: Any, tokenizer: Any, config: Any, rows: Sequence[dict], *columns: str, **given: Any
) -> Any:
    """Return a trainer of TRL's on these columns of the rows; raises InputError if it dropped rows."""
    from datasets import Dataset

    data = Dataset.from_list([{name: row[name] for name in columns} for row in rows])
    trainer = kind(model=model, args=config, train_dataset=data, processing_class=tokenizer, **given)
    if (kept := len(trainer.train_dataset)) != len(rows):  # TRL drops rows that it finds too long silently
        raise InputError(f"TRL kept {kept} of {len(rows)} training rows: their prompts are too long.")
    return trainer


def common_settings(work: Path, tuning: Tuning) -> dict[str, Any]:
    """Return the TrainingArguments that SFT and alignment share (the device decides on precision)."""
    import torch

    cuda = torch.cuda.is_available()
    # the first warm-up step has a learning rate of 0: a training of few steps must not consist of it alone
    warmup = min(2, tuning.steps // 4) if tuning.steps else 2
    return {
        "output_dir": str(work),
        "use_cpu": not cuda,
        "bf16": cuda and torch.cuda.is_bf16_supported(),
        "gradient_checkpointing": cuda,
        "per_device_train_batch_size": tuning.batch_size,
        "gradient_accumulation_steps": tuning.accumulation,
        "learning_rate": tuning.learning_rate,
        "num_train_epochs": tuning.epochs,
        "max_steps": tuning.steps or -1,
        "lr_scheduler_type": "cosine",
        "warmup_steps": warmup,
        "seed": tuning.seed,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": tuning.save_steps,
        "save_total_limit": 2,
        "report_to": "none",
        "disable_tqdm": bool(os.environ.get("CUADFT_PLAIN")),
    }


def lora_config(tuning: Tuning, config: Any) -> Any:
    """Return PEFT's LoraConfig on all linear layers but the head (QLoRA paper, Dettmers et al. 2023, section 4)."""
    from peft import LoraConfig

    depth = config.get_text_config().num_hidden_layers
    layers = list(range(depth - tuning.lora_layers, depth)) if 0 < tuning.lora_layers < depth else None
    return LoraConfig(
        r=tuning.lora_r,
        lora_alpha=tuning.lora_alpha,
        lora_dropout=0.0,
        target_modules=list(LINEAR_LAYERS),
        task_type="CAUSAL_LM",
        layers_to_transform=layers,
    )


def load_trainable(base: Path, start: Path | None, tuning: Tuning) -> PreTrainedModel:
    """Load the base model, with the adapter `start` ready to be trained on; QLoRA loads it in 4 bits.

    Raises InputError if `start` is of another kind than `tuning.mode`, or if QLoRA lacks bitsandbytes.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if start and (tuning.mode == "full") == (start / "adapter_config.json").is_file():
        raise InputError(
            f"finetune_mode '{tuning.mode}' cannot go on from {start}, which is of the other kind (adapter or full "
            "model): keep the mode of the iteration before, or take a new run folder."
        )
    settings: dict[str, Any] = {"dtype": torch.float32 if tuning.mode == "full" else best_dtype()}
    if tuning.mode == "qlora":
        if find_spec("bitsandbytes") is None:
            raise InputError(
                "finetune_mode 'qlora' needs bitsandbytes, which is not installed: run `pip install '.[gpu]'`, or "
                "choose lora."
            )
        settings["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=best_dtype(),
        )
    source = start if start and tuning.mode == "full" else base
    model = AutoModelForCausalLM.from_pretrained(source, trust_remote_code=False, **settings)
    if not start or tuning.mode == "full":
        return model
    model = PeftModel.from_pretrained(model, start, is_trainable=True)
    model.peft_config["default"].base_model_name_or_path = str(base)  # PEFT would look up an id at every checkpoint
    return model
