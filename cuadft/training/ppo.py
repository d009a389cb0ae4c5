"""Proximal policy optimisation (PPO) of a language model's LoRA adapter, small enough to read in one sitting.

One step samples answers and has them rewarded. It works out for every token how much better than expected it was (its
advantage). Then it makes good tokens likelier, in small clipped moves that stay near the SFT model. Every answer weighs
the same, however long it is. Sources: PPO,
Schulman et al. 2017; GAE, Schulman et al. 2016; "The N Implementation Details of RLHF with PPO", Huang et al. 2024.
Tensors have shape (answers, tokens); a mask is 1 on an answer's tokens and its end mark, and 0 behind them.

    common = common_settings(folder, tuning)
    trainer = PPOTrainer(model, tokenizer, rows, reward, common, Sampling(), rollout=16, minibatch=4)
    trainer.train()  # logs reward, KL divergence and losses, one entry a step

transformers' Trainer is the loop under it: it logs, saves, and goes on after a kill.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Trainer, TrainingArguments

from cuadft.core.errors import InputError
from cuadft.training.constrained import ConstrainedQuotes
from cuadft.training.online import CUT, Sampling

CLIP = 0.2  # how far a token's probability ratio, and its value, may move in a step
VALUE_COEF = 0.1  # weight of the values' loss
GAMMA, LAMBDA = 1.0, 0.95  # discount and lambda of `gae`
TRUSTED = 0.5  # share of the returns' variance that the critic explains, from which LAMBDA is used in place of 1
VALUE_HEAD = "value_head.safetensors"  # in a checkpoint


class PPOTrainer(Trainer):
    """Train the adapter "default" of a PeftModel on a reward; the reference is a frozen copy of that adapter.

    rows: {"prompt": chat messages, ...columns}; with the column "passage" an answer can only quote from it, see
    `constrained`. reward: called as TRL calls a reward function, reward(prompts=,
    completions=, **columns) with lists; it returns a number for each answer, or None for an answer that it cannot
    reward. An answer without a reward is left out of the update and counted as "unrewarded". common: as
    `sft.common_settings` returns them, with a number of steps. A step samples `rollout` answers, and learns from each
    `epochs` times in minibatches. The random numbers of a step depend on the seed and the step's number alone.
    """

    def __init__(
        self,
        model: PeftModel,
        tokenizer: Any,
        rows: Sequence[Mapping[str, Any]],
        reward: Callable[..., Sequence],
        common: Mapping[str, Any],
        sampling: Sampling,
        *,
        rollout: int,
        minibatch: int,
        epochs: int = 1,
    ) -> None:
        # without autocast: base and adapter keep the precision that they were loaded in
        sizes = {"per_device_train_batch_size": rollout, "gradient_accumulation_steps": 1, "bf16": False}
        order = {"train_sampling_strategy": "sequential", "remove_unused_columns": False}
        args = TrainingArguments(**{**common, **sizes, **order})
        self.tokenizer, self.reward, self.sampling = tokenizer, reward, sampling
        self.quotes = ConstrainedQuotes(tokenizer, rows) if all("passage" in row for row in rows) else None
        self.minibatch, self.epochs, self.step_logs = minibatch, epochs, {}
        own = freeze_reference(model)
        self.value_head = torch.nn.Linear(model.get_base_model().config.get_text_config().hidden_size, 1)
        for parameter in self.value_head.to(args.device).parameters():
            torch.nn.init.zeros_(parameter)
        self.trained = [*own, *self.value_head.parameters()]
        optimizer = torch.optim.Adam(self.trained, lr=args.learning_rate, eps=1e-5)  # Huang et al. 2024 on eps
        falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda number: 1 - number / args.max_steps)
        drawn = draw_rows(rows, rollout * args.max_steps, args.seed)
        super().__init__(model, args, list, drawn, optimizers=(optimizer, falling))

    def training_step(self, model: Any, inputs: Sequence[Mapping[str, Any]], num_items_in_batch: Any = None) -> Tensor:
        """Sample an answer to each row, have them rewarded, assess their tokens and learn; return the loss."""
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.args.seed * 1_000_003 + self.state.global_step)
            batch, texts = self._sample(inputs)
            ended = batch.pop("ended").tolist()
            scores = self._rewards(inputs, texts, ended)
            kept = [i for i, score in enumerate(scores) if score is not None]
            length = batch["mask"].sum(1).mean().item()
            logs = {"completion_length": length, "unrewarded": len(inputs) - len(kept)}
            logs["cut"] = 1 - sum(ended) / len(ended)
            if kept:
                batch, raw = _pick(batch, torch.tensor(kept)), torch.tensor([scores[i] for i in kept])
                logs |= {"reward": raw.mean().item()} | self._assess(batch, raw.to(self.model.device))
                logs |= self._update(batch)
        self.step_logs = logs
        return torch.tensor(logs.get("loss", 0.0), device=self.args.device)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log a step's own numbers in place of those that the Trainer sees."""
        own, self.step_logs = self.step_logs, {}
        super().log({"learning_rate": logs["learning_rate"]} | own if own else logs, start_time)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        super()._save(output_dir, state_dict)
        save_file(self.value_head.state_dict(), Path(output_dir or self.args.output_dir) / VALUE_HEAD)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.value_head.load_state_dict(load_file(Path(resume_from_checkpoint) / VALUE_HEAD))

    @torch.no_grad()
    def _sample(self, rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Tensor], list[str]]:
        """Return left-padded tokens of prompts and sampled answers with their masks, and the answers' texts."""
        tokenizer, device = self.tokenizer, self.model.device
        template = partial(tokenizer.apply_chat_template, add_generation_prompt=True, return_dict=False)
        prompts = [template(row["prompt"]) for row in rows]
        width, end, pad = max(map(len, prompts)), tokenizer.eos_token_id, tokenizer.pad_token_id
        pad = end if pad is None else pad
        seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        own_ends = self.model.generation_config.eos_token_id
        ends = list({end, *(own_ends if isinstance(own_ends, list) else [own_ends])} - {None})
        given = torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=device)
        temperature, most = self.sampling.temperature, self.sampling.max_tokens
        if self.quotes:
            ends = [end]
            made = self.quotes.sample(self.model, prompts, max_tokens=most, temperature=temperature)
            longest = max(map(len, made))
            padded = [answer + [end] * (longest - len(answer)) for answer in made]
            tokens = torch.cat([given, torch.tensor(padded, device=device)], 1)
        else:
            tokens = self.model.eval().generate(
                input_ids=given,
                attention_mask=seen,
                do_sample=True,
                temperature=temperature,
                top_k=0,
                top_p=1.0,
                repetition_penalty=1.0,
                max_new_tokens=most,
                pad_token_id=pad,
                eos_token_id=ends,
            )
        is_end = torch.isin(tokens[:, width:], torch.tensor(ends, device=device))
        # true up to the first end mark; what follows may be end marks as well, where those serve as padding
        mask = is_end.cumsum(1) - is_end.long() == 0
        answers = [row[kept] for row, kept in zip(tokens[:, width:], mask & ~is_end, strict=True)]
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        seen = torch.cat([seen, mask.long()], 1)
        return {"tokens": tokens, "seen": seen, "mask": mask.float(), "ended": (is_end & mask).any(1)}, texts

    def _rewards(
        self, rows: Sequence[Mapping[str, Any]], texts: Sequence[str], ended: Sequence[bool]
    ) -> list[float | None]:
        columns = {key: [row[key] for row in rows] for key in rows[0] if key not in ("prompt", "completion")}
        prompts, said = [row["prompt"] for row in rows], [[{"role": "assistant", "content": text}] for text in texts]
        scores = self.reward(prompts=prompts, completions=said, **columns)
        known = [score is not None and math.isfinite(score) for score in scores]
        return [
            float(score) - CUT * (not whole) if is_known else None
            for score, is_known, whole in zip(scores, known, ended, strict=True)
        ]

    def _forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return log-probability and value of each answer token, as predicted from the tokens before it."""
        width = batch["mask"].shape[1]
        start = int(batch["seen"].any(0).int().argmax())  # the columns before it are padding in every row
        tokens, seen = batch["tokens"][:, start:], batch["seen"][:, start:]
        out = self.model(
            tokens,
            attention_mask=seen,
            position_ids=(seen.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=width + 1,  # the prompt's tokens carry no loss
            output_hidden_states=True,
        )
        logits = out.logits[:, :-1].float() / self.sampling.temperature
        values = self.value_head(out.hidden_states[-1][:, -width - 1 : -1].float())[..., 0]
        if self.quotes:
            return self.quotes.log_probabilities(logits, tokens, seen)[0], values
        return logits.log_softmax(-1).gather(-1, tokens[:, -width:, None])[..., 0], values

    @torch.no_grad()
    def _assess(self, batch: dict[str, Tensor], scores: Tensor) -> dict[str, float]:
        """Put log-probabilities, values, advantages and returns into the batch, as they are before the update.

        Return the KL divergence from the reference, and how much of the returns' variance the critic explains. Until
        that is TRUSTED, lambda is 1: a critic that knows nothing would set a long right quote against its own start.
        """
        found, mask = {}, batch["mask"]
        for adapter in ("ref", "default"):
            self.model.set_adapter(adapter)
            parts = [self._forward(_pick(batch, rows)) for rows in torch.arange(len(scores)).split(self.minibatch)]
            found[adapter] = [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
        (ref_logp, _), (logp, values) = found["ref"], found["default"]
        rewards = token_rewards(scores, logp, ref_logp, mask, self.sampling.kl)
        explained = explained_variance(values, gae(rewards, values, mask, lam=1.0)[1], mask)
        advantages, returns = gae(rewards, values, mask, lam=LAMBDA if explained >= TRUSTED else 1.0)
        batch |= {"logp": logp, "values": values, "returns": returns, "advantages": whiten(advantages, mask)}
        return {"kl": kl_estimate(logp, ref_logp, mask).item(), "explained_variance": explained}

    def _update(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Learn from a batch; return the mean losses, share of clipped tokens and norm of the gradient."""
        logs = []
        # checkpointing needs training mode, in which dropout would change the ratios
        self.model.train(self.args.gradient_checkpointing)
        for _ in range(self.epochs):
            for rows in torch.randperm(len(batch["mask"])).split(self.minibatch):
                part = _pick(batch, rows)
                logp, values = self._forward(part)
                policy, clipped = policy_loss(logp, part["logp"], part["advantages"], part["mask"])
                value = value_loss(values, part["values"], part["returns"], part["mask"])
                loss = policy + VALUE_COEF * value
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(self.trained, self.args.max_grad_norm)
                if not torch.isfinite(norm):
                    raise InputError(f"PPO's gradient is {norm.item()}: start again with a lower learning rate.")
                self.optimizer.step()
                self.optimizer.zero_grad()  # without a gradient, the Trainer's own step that follows changes nothing
                logs.append(torch.stack([loss, policy, value, clipped, norm]).detach())
        names = ("loss", "policy_loss", "value_loss", "clip_fraction", "grad_norm")
        return dict(zip(names, torch.stack(logs).mean(0).tolist(), strict=True))


def freeze_reference(model: PeftModel) -> list[Tensor]:
    """Copy the adapter "default" to a frozen "ref", and return the parameters of "default"."""
    model.add_adapter("ref", model.peft_config["default"])
    model.set_adapter("default")
    own = {name: p for name, p in model.named_parameters() if p.requires_grad}
    for name, parameter in own.items():
        model.get_parameter(name.replace(".default", ".ref")).data.copy_(parameter.data)
    return list(own.values())


def _pick(batch: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Return the given rows of every tensor of a batch."""
    return {name: part[rows.to(part.device)] for name, part in batch.items()}


def draw_rows(rows: Sequence[Any], size: int, seed: int) -> list[Any]:
    """Return `size` rows: all rows are shuffled, used up, and shuffled again."""
    passes = range(math.ceil(size / len(rows)))
    return [row for n in passes for row in random.Random(f"{seed} {n}").sample(list(rows), len(rows))][:size]


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the mask's tokens (a scalar), 0 if the mask is empty."""
    return (x * mask).sum() / mask.sum().clamp(min=1)


def answer_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the answers of the mean over an answer's tokens (a scalar): a long one weighs no more."""
    return ((x * mask).sum(1) / mask.sum(1).clamp(min=1)).mean()


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """Return x with mean 0 and variance 1 by `answer_mean`, and 0 outside the mask."""
    mean = answer_mean(x, mask)
    return (x - mean) * torch.rsqrt(answer_mean((x - mean) ** 2, mask) + 1e-8) * mask


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> float:
    """Return the share of the returns' variance that the values explain: 1 at best, 0 for a constant, else negative.

    Returns that are all the same have nothing to explain, which counts as 0.
    """
    left, whole = (answer_mean((x - answer_mean(x, mask)) ** 2, mask).item() for x in (returns - values, returns))
    return 1.0 - left / whole if whole > 1e-8 else 0.0


def kl_estimate(logp: Tensor, ref_logp: Tensor, mask: Tensor) -> Tensor:
    """Return the mean KL divergence from the reference, in nats per token, by Schulman's (2020) estimate r - 1 - log r.

    r is the reference's probability of a token over the policy's.
    """
    log_ratio = ref_logp - logp
    return masked_mean(log_ratio.exp() - 1 - log_ratio, mask)


def token_rewards(scores: Tensor, logp: Tensor, ref_logp: Tensor, mask: Tensor, kl_coef: float) -> Tensor:
    """Return each token's reward: the KL penalty everywhere, and the answer's score (answers,) on its last token."""
    last = mask.sum(1).long() - 1
    rewards = -kl_coef * (logp - ref_logp) * mask
    rewards[torch.arange(len(last), device=last.device), last] += scores
    return rewards


def gae(
    rewards: Tensor, values: Tensor, mask: Tensor, gamma: float = GAMMA, lam: float = LAMBDA
) -> tuple[Tensor, Tensor]:
    """Return the advantages by generalised advantage estimation, and the returns that the values should have foretold.

    delta_t = r_t + gamma V_t+1 - V_t, and A_t = delta_t + gamma lam A_t+1; behind an answer's end both are 0.
    """
    values, advantages = values * mask, torch.zeros_like(rewards)
    next_value, next_advantage = 0.0, 0.0
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        next_advantage = (delta + gamma * lam * next_advantage) * mask[:, t]
        advantages[:, t], next_value = next_advantage, values[:, t]
    return advantages, advantages + values


def policy_loss(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor, clip: float = CLIP
) -> tuple[Tensor, Tensor]:
    """Return the clipped surrogate loss, and the share of tokens where clipping holds (PPO paper, equation 7).

    The pessimistic maximum takes away any gain from moving a probability by more than `clip` in the wanted direction,
    and keeps the loss from moving it in the other.
    """
    ratio = (logp - old_logp).exp()
    free, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return answer_mean(torch.maximum(free, clipped), mask), masked_mean((clipped > free).float(), mask)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float = CLIP) -> Tensor:
    """Return half the squared error of the values, clipped to move by at most `clip` (Huang et al. 2024)."""
    near = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * masked_mean(torch.maximum((values - returns) ** 2, (near - returns) ** 2), mask)
