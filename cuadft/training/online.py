"""Online reinforcement learning from the SFT adapter, on answers that the model samples as it learns.

RLOO and GRPO run in TRL's trainers, PPO in `ppo`. The reward of a sampled answer is a judge's score or the token F1
against the gold spans, given as TRL asks for it:

    reward = reward_function(OfflineJudge())
    reward(prompts=..., completions=[[{"role": "assistant", "content": "..."}]], question=[...], answers=[...])
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cuadft.core.errors import InputError
from cuadft.evaluation.text_scores import token_f1
from cuadft.evaluation.verdicts import Judge, gold_texts

ONLINE_METHODS = ("rloo", "grpo", "ppo")
Reward = Callable[..., list[float | None]]  # called as TRL calls a reward function; None: no reward is known


@dataclass(frozen=True)
class Sampling:
    """Say how answers are sampled: `generations` a prompt in RLOO and GRPO (PPO needs one), of `max_tokens` at most.

    kl: reward lost per nat of leaving the SFT model. Every step learns from two answers for each pair that an offline
    method would see, so that equal steps mean equal numbers of answers.
    """

    generations: int = 4
    temperature: float = 1.0
    max_tokens: int = 48
    kl: float = 0.05


def reward_function(judge: Judge | None = None) -> Reward:
    """Return the reward function: the judge's score of an answer or, without a judge, its token F1 (0 to 1).

    An empty answer scores 0, as it does in inference. An answer whose judgement failed gets None, and is left out of
    the update. The function counts those answers in its attribute `unknown`. It raises InputError if the judge fails on
    all answers of a call.
    """

    def reward(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        rows = [
            {"question": question, "answers": spans, "answer": said[-1]["content"].strip() or None, "error": None}
            for said, question, spans in zip(completions, columns["question"], columns["answers"], strict=True)
        ]
        if judge is None:
            return [token_f1(row["answer"], gold_texts(row)) for row in rows]
        rated = judge.rate(rows)
        scores = [None if math.isnan(score) else float(score) for score in rated["judge_score"]]
        reward.unknown += scores.count(None)
        if rows and all(score is None for score in scores):
            why = f"The judge failed on all {len(rows)} answers of a step ({rated['judge_error'].iloc[0]})"
            raise InputError(f"{why}: run again when it is back, and training goes on from its checkpoint.")
        return scores

    reward.unknown = 0  # answers without a reward so far
    # TRL logs the reward under this name, and `align.align_model` tells rewards apart by it.
    # The offline judge is called "judge" alone.
    reward.__name__ = "gold" if judge is None else f"judge {judge.name}".removesuffix(" offline")
    return reward


def online_trainer(
    method: str,
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    reward: Reward,
    common: dict[str, Any],
    sampling: Sampling,
) -> Any:
    """Return the trainer of RLOO or GRPO; PPO's is `ppo.PPOTrainer`.

    common: TrainingArguments, as `sft.common_settings` returns them, with a number of steps.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    answers = 2 * common["per_device_train_batch_size"]
    config_of, trainer_of = (RLOOConfig, RLOOTrainer) if method == "rloo" else (GRPOConfig, GRPOTrainer)
    config = config_of(
        **common | {"per_device_train_batch_size": answers},
        num_generations=sampling.generations,
        temperature=sampling.temperature,
        max_completion_length=sampling.max_tokens,
        beta=sampling.kl,
        top_k=0,
        shuffle_dataset=False,
    )
    prompts = answers_a_step(common) // sampling.generations * common["max_steps"]
    data = Dataset.from_list(online_passes(rows, prompts, seed=common["seed"]))
    return trainer_of(model=model, args=config, train_dataset=data, processing_class=tokenizer, reward_funcs=reward)


def answers_a_step(common: dict[str, Any]) -> int:
    """Return how many answers a step learns from."""
    return 2 * common["per_device_train_batch_size"] * common["gradient_accumulation_steps"]


def online_passes(rows: Sequence[dict[str, Any]], size: int, *, seed: int) -> list[dict[str, Any]]:
    """Return `size` rows: all given rows shuffled, then all shuffled again, and so on.

    The trainer makes one long pass over them instead of several: after a resume, TRL's sampler would begin a later pass
    in another order.
    """
    draw, made = random.Random(seed), []
    while len(made) < size:
        made += draw.sample(list(rows), len(rows))
    return made[:size]
