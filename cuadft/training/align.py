"""Alignment of the SFT adapter with TRL's own trainers: from preference pairs, from thumbs, or online from a reward."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.models.weights import weights_hash
from cuadft.training import online
from cuadft.training.online import Reward
from cuadft.training.run import run_training
from cuadft.training.sft import Tuning, common_settings, load_trainable, lora_config, tokenizer

PAIRED = ("dpo", "orpo", "orpo_base")
METHODS = (*PAIRED, "kto", *online.ONLINE_METHODS)
LOSSES = (
    "sigmoid",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
    "sigmoid_norm",
)
TRL = "1.16.0"  # the release whose experimental trainers are known to work here


@dataclass(frozen=True)
class AlignSettings:
    """Say how a method learns; each reads the part that concerns it.

    beta: weight of the preference term, against the reference in DPO and KTO, against the likelihood in ORPO. dpo_loss:
    TRL's loss types, added up. nll_weight: weight of the chosen answer's likelihood in DPO (RPO, Pang et al. 2024).
    online: how answers are sampled for RLOO, GRPO and PPO.
    """

    beta: float = 0.1
    dpo_loss: tuple[str, ...] = ("sigmoid",)
    nll_weight: float = 0.0
    online: online.Sampling = online.Sampling()


def align_model(
    method: str,
    base: Path,
    base_id: str,
    data: Sequence[dict[str, Any]],
    out: Path,
    *,
    tuning: Tuning,
    sft: Path,
    settings: AlignSettings | None = None,
    reward: Reward | None = None,
) -> list[dict[str, Any]]:
    """Align the SFT adapter by a method and write the new adapter to `out`; returns the trainer's log history.

    data: what the method learns from. "dpo" (Rafailov et al. 2023, the SFT model as reference), "orpo" (Hong et al. 2024,
    without a reference) and "orpo_base" (the same from the base model, without SFT): preference pairs. "kto" (Ethayarajh
    et al. 2024): unpaired answers with a label. "rloo" (Ahmadian et al. 2024), "grpo" (Shao et al. 2024) and "ppo" (see
    `ppo`): prompts with what `reward` needs (see `rewards.prompts`). Resumes as train_sft does.
    """
    if method not in METHODS:
        raise InputError(f"Unknown align method '{method}': choose among {', '.join(METHODS)}.")
    if not data:
        raise InputError(
            f"There is nothing for {method} to learn from: sample more rows (preference_rows), lower "
            "preference_margin or raise length_tolerance."
        )
    if not sft.is_dir():
        raise InputError(f"The SFT adapter is missing: {sft} does not exist. Run 04_fine_tune of this iteration first.")
    settings = settings or AlignSettings()
    start = None if method == "orpo_base" else sft
    if method in online.ONLINE_METHODS and reward is None:
        raise InputError(f"{method} needs a reward: pass rewards.function(judge) as `reward`.")

    def build(work: Path) -> Any:
        model, common = load_trainable(base, start, tuning), common_settings(work, tuning)
        if method in online.ONLINE_METHODS:
            return online.online_trainer(method, model, tokenizer(base), data, reward, common, settings.online)
        return BUILDERS[method](model, tokenizer(base), data, common, settings, tuning)

    identity = [
        method,
        list(data),
        repr(tuning),
        repr(settings),
        reward.__name__ if method in online.ONLINE_METHODS else "",
        weights_hash(sft) if start else "",
    ]
    lacked = getattr(reward, "unknown", 0)
    history = run_training(build, out, base=base, base_id=base_id, identity=identity, ids=[row["id"] for row in data])
    if (
        getattr(reward, "unknown", 0) > lacked
    ):  # the judge was away for some answers: a stage that runs again learns anew
        files.write_json(out / "training.json", files.read_json(out / "training.json") | {"key": ""})
    return history


def keep_sft(sft: Path, outs: Sequence[Path]) -> None:
    """Put a copy of the SFT weights in each folder of `outs`: what alignment yields when there is nothing to learn from."""
    for out in outs:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(sft, out.with_name(f".{out.name}-new"), dirs_exist_ok=True)
        os.replace(out.with_name(f".{out.name}-new"), out)


def learns_from(method: str) -> str:
    """Return what a method learns from: "pairs", "answers" (unpaired, with a label) or "prompts" (online)."""
    return "pairs" if method in PAIRED else "answers" if method == "kto" else "prompts"


def check_alignment(methods: Sequence[str], tuning: Tuning, sampling: online.Sampling) -> None:
    """Raise InputError for what some method will refuse, before the first of them trains."""
    for method in methods:
        if method not in METHODS:
            raise InputError(f"Unknown align method '{method}': choose among {', '.join(METHODS)}.")
        if method == "ppo" and tuning.mode == "full":
            raise InputError(
                "ppo trains a LoRA adapter: use finetune_mode lora or qlora, or leave ppo out of align_methods."
            )
        if method in ("rloo", "grpo"):
            online.whole_groups(method, 2 * tuning.batch_size, sampling)


def can_teach(method: str, data: Sequence[dict[str, Any]]) -> bool:
    """Say whether a method can learn from the data: there is some, and for KTO good as well as bad answers."""
    return bool(data) and (method != "kto" or len({row["label"] for row in data}) == 2)


def with_steps(tuning: Tuning, rows: int, steps: int) -> Tuning:
    """Return the tuning with an equal number of optimiser steps for every method; 0: what its epochs give for `rows`."""
    a_step = tuning.batch_size * tuning.accumulation
    return replace(tuning, steps=steps or max(1, round(tuning.epochs * rows / a_step)))


def _dpo(model: Any, words: Any, pairs: Sequence[dict], common: dict, settings: AlignSettings, tuning: Tuning) -> Any:
    from trl import DPOConfig, DPOTrainer

    if unknown := [name for name in settings.dpo_loss if name not in LOSSES]:
        raise InputError(f"Unknown dpo_loss '{unknown[0]}': choose among {', '.join(LOSSES)}.")
    pairs = _seen(pairs, tuning.batch_size, tuning)
    losses = [*settings.dpo_loss, *["sft"] * (settings.nll_weight > 0)]
    shares = [1.0] * len(settings.dpo_loss) + [settings.nll_weight] * (settings.nll_weight > 0)
    # No reference model is given: TRL then freezes a copy of the adapter as it is now, which is the SFT model.
    # EXO's target gives the rejected answer 1e-3 (Ji et al. 2024); without any its loss is infinite
    config = DPOConfig(
        **common,
        beta=settings.beta,
        max_length=None,
        precompute_ref_log_probs=True,
        loss_type=losses,
        loss_weights=shares,
        label_smoothing=1e-3 if "exo_pair" in losses else 0.0,
    )
    trainer = DPOTrainer(
        model=model, args=config, train_dataset=_dataset(pairs, "chosen", "rejected"), processing_class=words
    )
    _all_kept(trainer, pairs)
    return trainer


def _kto(model: Any, words: Any, rows: Sequence[dict], common: dict, settings: AlignSettings, tuning: Tuning) -> Any:
    from trl import KTOConfig, KTOTrainer

    if not can_teach("kto", rows):
        raise InputError(
            f"kto needs good and bad answers: {sum(row['label'] for row in rows)} of {len(rows)} are good. Sample "
            "more rows (preference_rows)."
        )
    given, rows = rows, _seen(rows, 2 * tuning.batch_size, tuning)  # mixed: TRL takes them in their order
    if not can_teach("kto", rows):  # the few that are seen are all of one kind
        rows[-1] = next(row for row in given if row["label"] != rows[0]["label"])
    desirable, undesirable = thumb_weights(rows)
    # an answer is one sequence, a pair two: a step sees as many answers as one of the paired methods
    config = KTOConfig(
        **common | {"per_device_train_batch_size": 2 * tuning.batch_size},
        beta=settings.beta,
        max_length=None,
        precompute_ref_log_probs=True,
        desirable_weight=desirable,
        undesirable_weight=undesirable,
    )
    trainer = KTOTrainer(
        model=model, args=config, train_dataset=_dataset(rows, "completion", "label"), processing_class=words
    )
    _all_kept(trainer, rows)
    return trainer


def _orpo(model: Any, words: Any, pairs: Sequence[dict], common: dict, settings: AlignSettings, tuning: Tuning) -> Any:
    config_of, trainer_of = experimental_orpo()
    longest = max(
        len(words.apply_chat_template(p["prompt"] + p[side], return_dict=False))
        for p in pairs
        for side in ("chosen", "rejected")
    )
    config = config_of(**common, beta=settings.beta, max_length=longest + 8, remove_unused_columns=False)
    return trainer_of(
        model=model, args=config, train_dataset=_dataset(pairs, "chosen", "rejected"), processing_class=words
    )


def _orpo_base(
    model: Any, words: Any, pairs: Sequence[dict], common: dict, settings: AlignSettings, tuning: Tuning
) -> Any:
    if tuning.mode != "full":
        from peft import get_peft_model
        from transformers import set_seed

        set_seed(tuning.seed)  # the trainer does so only later, and the new adapter begins at random
        model = get_peft_model(model, lora_config(tuning, model.config))
    return _orpo(model, words, pairs, common, settings, tuning)


BUILDERS: dict[str, Callable[..., Any]] = {"dpo": _dpo, "orpo": _orpo, "orpo_base": _orpo_base, "kto": _kto}


def experimental_orpo() -> tuple[type, type]:
    """Return TRL's ORPOConfig and ORPOTrainer; raises InputError that names the release if they have moved."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    try:
        from trl.experimental.orpo import ORPOConfig, ORPOTrainer
    except ImportError as error:
        import trl

        raise InputError(
            f"ORPO is experimental in TRL, and TRL {trl.__version__} has no trl.experimental.orpo ({error}): "
            f"pip install trl=={TRL}, or leave orpo out of align_methods."
        ) from error
    return ORPOConfig, ORPOTrainer


def _seen(rows: Sequence[dict], a_step: int, tuning: Tuning) -> list[dict]:
    """Return the rows in random order, no more than the steps will see: the reference is run on each beforehand."""
    size = min(len(rows), a_step * tuning.accumulation * tuning.steps or len(rows))
    return random.Random(tuning.seed).sample(list(rows), size)


def _dataset(rows: Sequence[dict], *columns: str) -> Any:
    from datasets import Dataset

    return Dataset.from_list([{name: row[name] for name in ("prompt", *columns)} for row in rows])


def _all_kept(trainer: Any, rows: Sequence[dict]) -> None:
    if len(trainer.train_dataset) != len(rows):  # TRL drops what it finds too long without a word
        raise InputError(f"TRL kept {len(trainer.train_dataset)} of {len(rows)} rows: their prompts are too long.")


def thumb_weights(records: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return KTO's desirable and undesirable weight with which thumbs up and down count alike (1.0 for the more frequent).

    Equal totals are the lower end of the range 1 to 4/3 that Ethayarajh et al. (2024), section 4.1, advise. Without any
    thumb up, or any down, both are 1.
    """
    up = sum(bool(record["label"]) for record in records)
    down = len(records) - up
    return (max(1.0, down / up), max(1.0, up / down)) if up and down else (1.0, 1.0)
