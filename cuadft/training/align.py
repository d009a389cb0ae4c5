"""Align the SFT adapter: from preference pairs, from thumbs up and down, or online from a reward.

DPO, ORPO and KTO run in TRL's own trainers here; the online methods are in `online` and `ppo`.

- Preference pairs are for "dpo" (Rafailov et al. 2023, the SFT model as reference), "orpo" (Hong et al. 2024, without a
  reference) and "orpo_base" (the same from the base model, without SFT).
- Unpaired answers with a label are for "kto" (Ethayarajh et al. 2024).
- Prompts are for "rloo" (Ahmadian et al. 2024), "grpo" (Shao et al. 2024) and "ppo" (see `ppo`).

Two controls tell what is not worth more than the same data, or than the same model asked oftener: "sft_more" goes on
with SFT on the chosen answers of the pairs, and "best_of_5" is the SFT model, whose confidence chooses among samples.

For example:

    settings = AlignSettings(beta=0.1, dpo_loss=("sigmoid",))
    align_model("dpo", base, base_id, pairs, adapters / "dpo", tuning=Tuning(), sft=adapters / "sft", settings=settings)

trains a new adapter from the SFT adapter on preference pairs, each {"id", "prompt", "chosen", "rejected"}.
"""

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
from cuadft.core.runs import BEST_OF, SFT_MORE
from cuadft.models.generator import load_tokenizer
from cuadft.models.weights import weights_hash
from cuadft.training import online
from cuadft.training.online import Reward
from cuadft.training.resume import RECORD, train_language_model
from cuadft.training.sft import Tuning, build_trainer, common_settings, load_trainable, lora_config

PPO_UPDATES = 4  # of one rollout, at most
PAIRED = ("dpo", "orpo", "orpo_base")
METHODS = (SFT_MORE, *PAIRED, "kto", *online.ONLINE_METHODS, BEST_OF)


@dataclass(frozen=True)
class AlignSettings:
    """Say how a method learns; each method reads the part that concerns it.

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
    settings: AlignSettings,
    reward: Reward | None = None,
) -> list[dict[str, Any]]:
    """Align the SFT adapter by a method, write the new adapter to `out`, and return the trainer's log history.

    data: what the method learns from (see `learns_from`): preference pairs, unpaired answers with a label, or prompts
    with the columns that `reward` needs. Resumes as train_sft does. Raises InputError for settings that the method
    refuses (see `check_alignment`).
    """
    check_alignment([method], tuning, settings.online)
    start = None if method == "orpo_base" else sft

    def build(work: Path) -> Any:
        model, common = load_trainable(base, start, tuning), common_settings(work, tuning)
        if method == "ppo":
            from cuadft.training.ppo import PPOTrainer

            return PPOTrainer(model, load_tokenizer(base), data, reward, sampling=settings.online, **ppo_sizes(common))
        if method in online.ONLINE_METHODS:
            return online.online_trainer(method, model, load_tokenizer(base), data, reward, common, settings.online)
        return BUILDERS[method](model, load_tokenizer(base), data, common, settings, tuning)

    goal = reward.__name__ if method in online.ONLINE_METHODS else ""
    identity = [method, list(data), repr(tuning), repr(settings), goal, weights_hash(sft) if start else ""]
    unknown, ids = getattr(reward, "unknown", 0), [row["id"] for row in data]
    history = train_language_model(build, out, base=base, base_id=base_id, identity=identity, ids=ids)
    if getattr(reward, "unknown", 0) > unknown:  # the judge failed on some answers: another call shall train again
        files.write_json(out / RECORD, files.read_json(out / RECORD) | {"key": ""})
    return history


def ppo_sizes(common: Mapping[str, Any]) -> dict[str, Any]:
    """Return PPO's common settings, rollout and minibatch, with as many updates as other methods take steps.

    A minibatch has the answers of a step of the other methods, and a rollout is one of up to PPO_UPDATES minibatches,
    which all but the first need PPO's clipping.
    """
    steps, minibatch = common["max_steps"], online.answers_a_step(common)
    updates = next(count for count in range(min(PPO_UPDATES, steps), 0, -1) if steps % count == 0)
    fewer = {"max_steps": steps // updates, "save_steps": max(1, common["save_steps"] // updates)}
    return {"common": {**common, **fewer}, "rollout": updates * minibatch, "minibatch": minibatch}


def copy_weights(source: Path, out: Path) -> None:
    """Put a copy of a folder of weights in the folder `out`: those of SFT for a method that has nothing to learn."""
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(source, out.with_name(f".{out.name}-new"), dirs_exist_ok=True)
    os.replace(out.with_name(f".{out.name}-new"), out)


def learns_from(method: str) -> str:
    """Return what a method learns from: "pairs", "answers" (unpaired, with a label), "prompts" (online) or ""."""
    given = dict.fromkeys((SFT_MORE, *PAIRED), "pairs") | {"kto": "answers", BEST_OF: ""}
    return given.get(method, "prompts")


def check_alignment(methods: Sequence[str], tuning: Tuning, sampling: online.Sampling) -> None:
    """Raise InputError for settings that one of the methods would refuse, before the first method trains."""
    for method in methods:
        if method not in METHODS:
            raise InputError(f"Unknown align method '{method}': choose among {', '.join(METHODS)}.")
        if method == "ppo" and tuning.mode == "full":
            raise InputError("ppo trains a LoRA adapter: use finetune_mode lora or qlora, or leave ppo out.")
        answers, group = 2 * tuning.batch_size, sampling.generations
        if method in ("rloo", "grpo") and (group < 2 or answers % group):
            raise InputError(
                f"{method} compares {group} answers to a question (online_generations), but a step has {answers} "
                "(2 x align_batch_size), which are no whole groups: choose a number from 2 that divides them."
            )


def can_teach(method: str, data: Sequence[dict[str, Any]]) -> bool:
    """Tell whether a method can learn from the data: it needs rows, and KTO needs good as well as bad answers."""
    return bool(data) and (method != "kto" or len({row["label"] for row in data}) == 2)


def with_steps(tuning: Tuning, rows: int, steps: int) -> Tuning:
    """Return the tuning with that many optimiser steps, so that every method takes equally many.

    steps: 0 takes the number that the tuning's epochs over `rows` rows need.
    """
    rows_a_step = tuning.batch_size * tuning.accumulation
    return replace(tuning, steps=steps or max(1, round(tuning.epochs * rows / rows_a_step)))


def _dpo(model: Any, tokenizer: Any, pairs: list[dict], common: dict, settings: AlignSettings, tuning: Tuning) -> Any:
    from trl import DPOConfig, DPOTrainer

    losses, shares = list(settings.dpo_loss), [1.0] * len(settings.dpo_loss)
    if settings.nll_weight > 0:
        losses, shares = [*losses, "sft"], [*shares, settings.nll_weight]
    # No reference model is given: TRL then freezes a copy of the adapter as it is now, which is the SFT model.
    # EXO's target gives the rejected answer a probability of 1e-3 (Ji et al. 2024): with 0 its loss is infinite.
    config = DPOConfig(
        **common,
        beta=settings.beta,
        max_length=None,
        precompute_ref_log_probs=True,
        loss_type=losses,
        loss_weights=shares,
        label_smoothing=1e-3 if "exo_pair" in losses else 0.0,
    )
    pairs = _drawn(pairs, tuning.batch_size, tuning)
    return build_trainer(DPOTrainer, model, tokenizer, config, pairs, "prompt", "chosen", "rejected")


def _sft_more(
    model: Any, tokenizer: Any, pairs: list[dict], common: dict, settings: AlignSettings, tuning: Tuning
) -> Any:
    from trl import SFTConfig, SFTTrainer

    rows = [pair | {"completion": pair["chosen"]} for pair in _drawn(pairs, tuning.batch_size, tuning)]
    config = SFTConfig(**common, max_length=None)
    return build_trainer(SFTTrainer, model, tokenizer, config, rows, "prompt", "completion")


def _kto(model: Any, tokenizer: Any, rows: list[dict], common: dict, settings: AlignSettings, tuning: Tuning) -> Any:
    from trl import KTOConfig, KTOTrainer

    given, rows = rows, _drawn(rows, 2 * tuning.batch_size, tuning)  # shuffled: TRL takes them in their order
    if not can_teach("kto", rows):  # the rows drawn are all good or all bad: put in one of the other kind
        rows[-1] = next(row for row in given if row["label"] != rows[0]["label"])
    desirable, undesirable = thumb_weights(rows)
    # A pair holds two answers: with twice the batch size, a step sees as many answers as in the paired methods.
    config = KTOConfig(
        **common | {"per_device_train_batch_size": 2 * tuning.batch_size},
        beta=settings.beta,
        max_length=None,
        precompute_ref_log_probs=True,
        desirable_weight=desirable,
        undesirable_weight=undesirable,
    )
    return build_trainer(KTOTrainer, model, tokenizer, config, rows, "prompt", "completion", "label")


def _orpo(model: Any, tokenizer: Any, pairs: list[dict], common: dict, settings: AlignSettings, tuning: Tuning) -> Any:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    if not hasattr(model, "peft_config") and tuning.mode != "full":  # from the base model: a new adapter
        from peft import get_peft_model
        from transformers import set_seed

        set_seed(tuning.seed)  # the trainer sets its seed later than the new adapter draws its random weights
        model = get_peft_model(model, lora_config(tuning, model.config))

    class CompletionORPO(ORPOTrainer):
        """Take the likelihood over the chosen answer, as the paper does; TRL's is over the prompt as well."""

        def concatenated_forward(self, model: Any, batch: dict[str, Any]) -> tuple:
            chosen, *others = super().concatenated_forward(model, batch)
            tokens = (batch["chosen_labels"][:, 1:] != -100).sum(1)
            others[3] = -(chosen * tokens).sum() / tokens.sum()
            return chosen, *others

    texts = [pair["prompt"] + pair[side] for pair in pairs for side in ("chosen", "rejected")]
    longest = max(len(tokenizer.apply_chat_template(text, return_dict=False)) for text in texts)
    config = ORPOConfig(**common, beta=settings.beta, max_length=longest + 8, remove_unused_columns=False)
    return build_trainer(CompletionORPO, model, tokenizer, config, pairs, "prompt", "chosen", "rejected")


BUILDERS: dict[str, Callable[..., Any]] = {"dpo": _dpo, "orpo": _orpo, "orpo_base": _orpo, "kto": _kto}
BUILDERS[SFT_MORE] = _sft_more


def _drawn(rows: Sequence[dict], batch_size: int, tuning: Tuning) -> list[dict]:
    """Return the rows in random order, no more than the steps need: TRL runs the reference on each beforehand."""
    size = min(len(rows), batch_size * tuning.accumulation * tuning.steps or len(rows))
    return random.Random(tuning.seed).sample(list(rows), size)


def thumb_weights(records: Sequence[Mapping[str, Any]]) -> tuple[float, float]:
    """Return KTO's desirable and undesirable weight, with which thumbs up and thumbs down count alike in sum.

    The more frequent kind weighs 1.0. Equal sums are the lower end of the range 1 to 4/3 that Ethayarajh et al. (2024),
    section 4.1, advise. Without any thumb up, or without any thumb down, both weights are 1.
    """
    up = sum(bool(record["label"]) for record in records)
    down = len(records) - up
    return (max(1.0, down / up), max(1.0, up / down)) if up and down else (1.0, 1.0)


def align_at_rates(
    rates: Sequence[float],
    methods: Sequence[str],
    base: Path,
    base_id: str,
    data: Mapping[str, Sequence[dict[str, Any]]],
    adapters: Path,
    *,
    tuning: Tuning,
    sft: Path,
    settings: AlignSettings,
    reward: Reward | None,
) -> dict[float, dict[str, list[dict[str, Any]]]]:
    """Align by every method with every learning rate; return what `align_all`, which takes the rest, does for each.

    With one rate the adapters lie in adapters/METHOD, with several in adapters/rates/RATE/METHOD. Raises InputError
    without a rate.
    """
    if not rates:
        raise InputError("There is no learning rate in align_rates: give one, such as 3.0e-5, or several.")
    shared, histories = {"sft": sft, "settings": settings, "reward": reward}, {}
    for rate in rates:
        folder = adapters / "rates" / f"{rate:g}" if len(rates) > 1 else adapters
        own = replace(tuning, learning_rate=rate)
        histories[rate] = align_all(methods, base, base_id, data, folder, tuning=own, **shared)
    return histories


def align_all(
    methods: Sequence[str],
    base: Path,
    base_id: str,
    data: Mapping[str, Sequence[dict[str, Any]]],
    adapters: Path,
    *,
    tuning: Tuning,
    sft: Path,
    settings: AlignSettings,
    reward: Reward | None,
) -> dict[str, list[dict[str, Any]]]:
    """Align the SFT adapter by every method into `adapters`/METHOD; return the log history of each that could learn.

    data: "pairs", "answers" and "prompts", of which each method takes what it learns from. A method without anything to
    learn from gets a copy of the SFT weights and has no history. Raises InputError before the first method trains, if
    one of them would refuse its settings.
    """
    check_alignment(methods, tuning, settings.online)
    histories = {}
    for method in methods:
        made, out = data.get(learns_from(method), ()), adapters / method
        if can_teach(method, made):
            histories[method] = align_model(
                method, base, base_id, made, out, tuning=tuning, sft=sft, settings=settings, reward=reward
            )
        else:
            copy_weights(sft, out)
    return histories
