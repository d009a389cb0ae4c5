"""Online reinforcement learning from the SFT adapter, on answers that the model samples as it learns.

RLOO and GRPO run in TRL's trainers, PPO in `ppo`. The reward of a sampled answer says how near it is to the gold spans,
or is a judge's score, given as TRL asks for it:

    reward = reward_function()
    reward(prompts=..., completions=[[{"role": "assistant", "content": "..."}]], question=[...], answers=[...])
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cuadft.core.errors import InputError
from cuadft.evaluation.confidence import is_right
from cuadft.evaluation.text_scores import AnswerComparison
from cuadft.evaluation.verdicts import Judge, gold_texts

ONLINE_METHODS = ("rloo", "grpo", "ppo")
CUT = 0.5  # reward that an answer loses if it reaches the limit of tokens before its end
RIGHT_QUOTE = 0.5  # reward of quotes that share half of their words with a gold span, beside that of their F1
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
    """Return the reward function: the judge's score of an answer, 0 to 1, or without a judge that of `gold_reward`.

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
            return list(map(gold_reward, rows))
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


def gold_reward(row: Mapping[str, Any]) -> float:
    """Return the F1 of an answer with the nearest gold span, or with all together, and a bonus for quotes that count.

    The bonus is RIGHT_QUOTE times the share of the answer's lines that CUAD's script takes for a gold span (a Jaccard
    index of at least one half). Without a clause a refusal has 1.
    """
    compared, lines = AnswerComparison(row["answer"], gold_texts(row)), (row["answer"] or "").splitlines()
    found = sum(is_right(line, row) for line in lines) / max(1, len(lines))
    return max(compared.f1(), compared.f1_all()) + RIGHT_QUOTE * found


def online_trainer(
    method: str,
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, Any]],
    reward: Reward,
    common: dict[str, Any],
    sampling: Sampling,
) -> Any:
    """Return the trainer of RLOO or GRPO, which samples quotes alone; PPO's is `ppo.PPOTrainer`.

    rows: {"prompt", "passage"} and the columns that `reward` needs.
    common: TrainingArguments, as `sft.common_settings` returns them, with a number of steps.
    """
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

    from cuadft.training.constrained import ConstrainedQuotes, OnlyQuotes

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
    kind = type(trainer_of.__name__, (OnlyQuotes, trainer_of), {"quotes": ConstrainedQuotes(tokenizer, rows)})
    rewards = less_for_cut(reward, tokenizer.eos_token_id)
    return kind(model=model, args=config, train_dataset=data, processing_class=tokenizer, reward_funcs=rewards)


def less_for_cut(reward: Reward, end: int) -> Reward:
    """Return the reward function that takes CUT off for an answer without its end mark, which the limit has cut."""

    def less(prompts: Sequence[Any], completions: Sequence[Any], completion_ids: Any, **columns: Any) -> list:
        scores = reward(prompts=prompts, completions=completions, **columns)
        cut = [CUT * (end not in tokens) for tokens in completion_ids]
        return [None if score is None else score - own for score, own in zip(scores, cut, strict=True)]

    less.__name__ = reward.__name__  # TRL logs the reward under this name
    return less


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
