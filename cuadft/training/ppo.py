"""Proximal policy optimisation (PPO) of a language model's LoRA adapter, small enough to read in one sitting.

One step samples answers and has them rewarded. It works out for every token how much better than expected it was (its
advantage). Then it makes good tokens likelier, in small clipped moves that stay near the SFT model. Sources: PPO,
Schulman et al. 2017; GAE, Schulman et al. 2016; "The N Implementation Details of RLHF with PPO", Huang et al. 2024.
Tensors have shape (answers, tokens); a mask is 1 on an answer's tokens and its end mark, and 0 behind them.

    trainer = PPOTrainer(model, tokenizer, rows, reward, PPOSettings(steps=50), folder, learning_rate=1e-4)
    log = trainer.train()  # reward, KL divergence and losses, one entry a step

`Stepwise` is the loop under it: it logs, tells callbacks, saves, and goes on after a kill. A subclass defines
`step(number)`, which changes the weights and returns what to log.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from peft import PeftModel
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm.auto import tqdm
from transformers import TrainerState

from cuadft.core.errors import InputError
from cuadft.core.files import file_hash, value_hash, write_bytes

STATES_KEPT = 2  # saved states: the older is for a disk that loses the newer
CLIP = 0.2  # how far a token's probability ratio, and its value, may move in a step
VALUE_COEF = 0.1  # weight of the values' loss
GAMMA, LAMBDA = 1.0, 0.95  # discount and lambda of `gae`
MAX_GRAD_NORM = 1.0
WHOLE_NUMBERS = ("steps", "rollout", "minibatch", "epochs", "max_new_tokens")


@dataclass(frozen=True)
class PPOSettings:
    """Say how PPO learns: `steps` of `rollout` sampled answers, each learned from `epochs` times in minibatches.

    kl_coef: reward lost per nat of leaving the SFT model. checkpointing: compute activations twice, to hold fewer in
    memory. Raises InputError for a value out of range.
    """

    steps: int = 50
    rollout: int = 16
    minibatch: int = 4
    epochs: int = 2
    max_new_tokens: int = 64
    temperature: float = 1.0
    kl_coef: float = 0.05
    checkpointing: bool = False

    def __post_init__(self) -> None:
        for name in WHOLE_NUMBERS:
            if not isinstance(value := getattr(self, name), int) or value < 1:
                raise InputError(f"Invalid PPO {name}={value!r}: give a whole number from 1 on.")
        if not 0 < self.temperature < math.inf:
            raise InputError(f"Invalid PPO temperature={self.temperature!r}: give a number above 0.")
        if not 0 <= self.kl_coef < math.inf:
            raise InputError(f"Invalid PPO kl_coef={self.kl_coef!r}: give a number from 0 on.")


class Stepwise:
    """Run `steps` steps on the tensors `trained` (by name) with their optimiser.

    save_steps: after how many steps the state is saved each time; 0 saves it at the end only.
    identity: what the training depends on, besides the start weights; saved states of another identity are refused. A
    step must draw its random numbers from its own number, so that an interrupted training ends equal to an unbroken
    one. `state` is a TrainerState, as in transformers' trainers.
    """

    def __init__(
        self, trained: dict[str, Tensor], optimizer: Any, *, steps: int, folder: Path, save_steps: int, identity: list
    ) -> None:
        self.trained, self.optimizer, self.save_steps = trained, optimizer, save_steps
        self.key = value_hash([identity, steps, [p.detach().double().sum().item() for p in trained.values()]])
        self.folder, self.state, self.callbacks = folder, TrainerState(max_steps=steps), []

    def step(self, number: int) -> dict[str, float]:
        """Do step `number` (from 0) and return what to log."""
        raise NotImplementedError

    def train(self, resume_from_checkpoint: None = None) -> list[dict[str, Any]]:
        """Train to the last step, from the newest whole state in the folder on; return the log, one entry a step.

        resume_from_checkpoint: for transformers' trainers alone. Raises InputError if the states are of other settings
        or data.
        """
        self._resume()
        done, steps = self.state.global_step, self.state.max_steps
        self._tell("on_train_begin")
        for number in tqdm(range(done, steps), initial=done, total=steps, disable=bool(os.environ.get("CUADFT_PLAIN"))):
            logs = self.step(number)
            self.state.global_step = number + 1
            self.state.log_history.append(logs | {"step": number + 1})
            if number + 1 == steps or self.save_steps and (number + 1) % self.save_steps == 0:
                self._save()
            self._tell("on_step_end")
            self._tell("on_log", logs=logs)
        self._tell("on_train_end")
        return self.state.log_history

    def add_callback(self, callback: Any) -> None:
        """Tell a transformers TrainerCallback when training begins and ends, when a step ends, and what it logs.

        It gets the state, and None for the arguments and the control, which only transformers' trainers have.
        """
        self.callbacks.append(callback)

    def remove_callback(self, kind: type) -> None:
        """Drop the callbacks of a class."""
        self.callbacks = [callback for callback in self.callbacks if not isinstance(callback, kind)]

    def _tell(self, event: str, **given: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(None, self.state, None, **given)

    def _save(self) -> None:
        """Write weights, the optimiser's moments and the log in one step: a kill leaves the older states whole."""
        tensors = {f"weight {name}": parameter.detach().contiguous() for name, parameter in self.trained.items()}
        for number, moments in self.optimizer.state_dict()["state"].items():
            tensors |= {f"{kind} {number}": tensor.contiguous() for kind, tensor in moments.items()}
        content = save(tensors, {"key": self.key, "log_history": json.dumps(self.state.log_history)})
        step, digest = f"{self.state.global_step:08d}", hashlib.sha256(content).hexdigest()
        write_bytes(self.folder / f"state-{step}-{digest}.safetensors", content)
        for old in self._states()[STATES_KEPT:]:
            old.unlink()

    def _resume(self) -> None:
        """Take weights, moments and log from the newest whole state, if there is one."""
        for damaged in [path for path in self._states() if not path.stem.endswith(file_hash(path))]:
            damaged.unlink()
        if not self._states():
            return
        path = self._states()[0]
        with safe_open(path, "pt") as state:
            tensors, noted = {name: state.get_tensor(name) for name in state.keys()}, state.metadata()  # noqa: SIM118
        if noted["key"] != self.key:
            raise InputError(
                f"{path} is of other settings, data or start weights: remove it, or choose another folder."
            )
        for name, parameter in self.trained.items():
            parameter.data.copy_(tensors.pop(f"weight {name}"))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            kind, number = name.split()
            moments.setdefault(int(number), {})[kind] = tensor
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": moments})
        self.state.log_history = json.loads(noted["log_history"])
        self.state.global_step = len(self.state.log_history)

    def _states(self) -> list[Path]:
        """Return the saved states, the newest first; the name of each ends with the SHA-256 of its content."""
        return sorted(self.folder.glob("state-*.safetensors"), reverse=True)


class PPOTrainer(Stepwise):
    """Train the adapter "default" of a PeftModel on a reward; the reference is a frozen copy of that adapter.

    rows: {"prompt": chat messages, ...columns}. reward: called as TRL calls a reward function, reward(prompts=,
    completions=, **columns) with lists; it returns a number for each answer, or None for an answer that it cannot
    reward. An answer without a reward is left out of the update and counted as "unrewarded". The random numbers of a
    step depend on the seed and the step's number alone.
    """

    def __init__(
        self,
        model: PeftModel,
        tokenizer: Any,
        rows: Sequence[Mapping[str, Any]],
        reward: Callable[..., Sequence],
        settings: PPOSettings,
        output_dir: str | Path,
        *,
        learning_rate: float = 1e-4,
        seed: int = 7,
        save_steps: int = 10,
    ) -> None:
        if not isinstance(model, PeftModel):
            raise InputError("PPO trains a LoRA adapter, and the model has none: use finetune_mode lora or qlora.")
        if not rows:
            raise InputError("There are no prompts to sample answers to: draw more rows (preference_rows).")
        self.accelerator = Accelerator()
        if model.device.type != self.accelerator.device.type:  # a model in 4 bits is there, and must not be moved
            model.to(self.accelerator.device)
        self.model, self.tokenizer, self.rows, self.reward = model, tokenizer, list(rows), reward
        self.settings, self.learning_rate, self.seed = settings, learning_rate, seed
        width = model.get_base_model().config.get_text_config().hidden_size
        self.value_head = torch.nn.Linear(width, 1).to(model.device)
        own = self._adapters() | {f"value_head.{name}": p for name, p in self.value_head.named_parameters()}
        optimizer = torch.optim.Adam(own.values(), lr=learning_rate, eps=1e-5)  # Huang et al. 2024 on eps
        identity = [repr(settings), learning_rate, seed, repr(self.rows)]
        run = {"steps": settings.steps, "folder": Path(output_dir), "save_steps": save_steps, "identity": identity}
        super().__init__(own, optimizer, **run)

    def _adapters(self) -> dict[str, Tensor]:
        """Copy the adapter to the frozen "ref", set the values to 0, and return the adapter's tensors by name."""
        self.model.add_adapter("ref", self.model.peft_config["default"])
        self.model.set_adapter("default")
        own = {name: p for name, p in self.model.named_parameters() if p.requires_grad}
        for name, parameter in own.items():
            self.model.get_parameter(name.replace(".default", ".ref")).data.copy_(parameter.data)
        for parameter in self.value_head.parameters():
            torch.nn.init.zeros_(parameter)
        if self.settings.checkpointing:
            self.model.gradient_checkpointing_enable({"use_reentrant": False})
        return own

    def step(self, number: int) -> dict[str, float]:
        """Sample answers, have them rewarded, assess their tokens and learn; return what to log."""
        rate = self.learning_rate * (1 - number / self.settings.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(self.seed * 1_000_003 + number)
            rows = draw_step(self.rows, self.settings.rollout, number, self.seed)
            batch, texts = self._sample(rows)
            scores = self._rewards(rows, texts)
            kept = [i for i, score in enumerate(scores) if score is not None]
            logs = {
                "learning_rate": rate,
                "completion_length": batch["mask"].sum(1).mean().item(),
                "unfinished": 1 - batch["ended"].float().mean().item(),
                "unrewarded": len(rows) - len(kept),
            }
            if not kept:
                return logs
            batch, raw = _pick(batch, torch.tensor(kept)), torch.tensor([scores[i] for i in kept])
            logs |= {"reward": raw.mean().item(), "reward_std": raw.std(correction=0).item()}
            return logs | self._assess(batch, raw.to(self.model.device)) | self._update(batch)

    @torch.no_grad()
    def _sample(self, rows: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Tensor], list[str]]:
        """Return left-padded tokens of prompts and sampled answers with their masks, and the answers' texts."""
        tokenizer, device, own = self.tokenizer, self.model.device, self.settings
        template = partial(tokenizer.apply_chat_template, add_generation_prompt=True, return_dict=False)
        prompts = [template(row["prompt"]) for row in rows]
        width, end, pad = max(map(len, prompts)), tokenizer.eos_token_id, tokenizer.pad_token_id
        pad = end if pad is None else pad
        seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
        own_ends = self.model.generation_config.eos_token_id
        ends = list({end, *(own_ends if isinstance(own_ends, list) else [own_ends])} - {None})
        tokens = self.model.eval().generate(
            input_ids=torch.tensor([[pad] * (width - len(p)) + p for p in prompts], device=device),
            attention_mask=seen,
            do_sample=True,
            temperature=own.temperature,
            top_k=0,
            top_p=1.0,
            repetition_penalty=1.0,
            max_new_tokens=own.max_new_tokens,
            pad_token_id=pad,
            eos_token_id=ends,
        )
        is_end = torch.isin(tokens[:, width:], torch.tensor(ends, device=device))
        # true up to the first end mark; what follows may be end marks as well, where those serve as padding
        mask = is_end.cumsum(1) - is_end.long() == 0
        answers = [row[kept] for row, kept in zip(tokens[:, width:], mask & ~is_end, strict=True)]
        texts = tokenizer.batch_decode(answers, skip_special_tokens=True)
        seen = torch.cat([seen, mask.long()], 1)
        return {"tokens": tokens, "seen": seen, "mask": mask.float(), "ended": is_end.any(1)}, texts

    def _rewards(self, rows: Sequence[Mapping[str, Any]], texts: Sequence[str]) -> list[float | None]:
        columns = {key: [row.get(key) for row in rows] for key in self.rows[0] if key not in ("prompt", "completion")}
        scores = self.reward(
            prompts=[row["prompt"] for row in rows],
            completions=[[{"role": "assistant", "content": text}] for text in texts],
            **columns,
        )
        if len(scores) != len(rows):
            given = f"The reward returned {len(scores)} scores for {len(rows)} answers"
            raise InputError(f"{given}: return one score for each, or None.")
        return [float(score) if score is not None and math.isfinite(score) else None for score in scores]

    def _forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return log-probability, value and entropy of each answer token, as predicted from the tokens before it."""
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
        every = (out.logits[:, :-1].float() / self.settings.temperature).log_softmax(-1)
        values = self.value_head(out.hidden_states[-1][:, -width - 1 : -1].float())[..., 0]
        return every.gather(-1, tokens[:, -width:, None])[..., 0], values, -(every.exp() * every).detach().sum(-1)

    @torch.no_grad()
    def _assess(self, batch: dict[str, Tensor], scores: Tensor) -> dict[str, float]:
        """Put log-probabilities, values, advantages and returns into the batch, as they are before the update.

        Return KL divergence, entropy and the share of the returns' variance that the values explain.
        """
        found, mask, own = {}, batch["mask"], self.settings
        for adapter in ("ref", "default"):
            self.model.set_adapter(adapter)
            parts = [self._forward(_pick(batch, rows)) for rows in torch.arange(len(scores)).split(own.minibatch)]
            found[adapter] = [torch.cat(tensors) for tensors in zip(*parts, strict=True)]
        (ref_logp, *_), (logp, values, entropy) = found["ref"], found["default"]
        rewards = token_rewards(scores, logp, ref_logp, mask, own.kl_coef)
        advantages, returns = gae(rewards, values, mask, GAMMA, LAMBDA)
        batch |= {"logp": logp, "values": values, "returns": returns, "advantages": whiten(advantages, mask)}
        logs = {"kl": kl_estimate(logp, ref_logp, mask).item(), "entropy": masked_mean(entropy, mask).item()}
        # an advantage is the return less the value, so that its variance is what the values leave unexplained
        unexplained, spread = (x[mask > 0].var(correction=0).item() for x in (advantages, returns))
        return logs | ({"explained_variance": 1 - unexplained / spread} if spread else {})

    def _update(self, batch: dict[str, Tensor]) -> dict[str, float]:
        """Learn from a batch; return the mean losses, share of clipped tokens and norm of the gradient."""
        own, logs = self.settings, []
        self.model.train(own.checkpointing)  # checkpointing needs training mode; dropout would change the ratios
        for _ in range(own.epochs):
            for rows in torch.randperm(len(batch["mask"])).split(own.minibatch):
                part = _pick(batch, rows)
                logp, values, _ = self._forward(part)
                policy, clipped = policy_loss(logp, part["logp"], part["advantages"], part["mask"], CLIP)
                value = value_loss(values, part["values"], part["returns"], part["mask"], CLIP)
                loss = policy + VALUE_COEF * value
                self.optimizer.zero_grad()
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(self.trained.values(), MAX_GRAD_NORM)
                if not torch.isfinite(norm):
                    raise InputError(f"PPO's gradient is {norm.item()}: start again with a lower learning rate.")
                self.optimizer.step()
                logs.append(torch.stack([loss, policy, value, clipped, norm]).detach())
        names = ("loss", "policy_loss", "value_loss", "clip_fraction", "grad_norm")
        return dict(zip(names, torch.stack(logs).mean(0).tolist(), strict=True))


def _pick(batch: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    """Return the given rows of every tensor of a batch."""
    return {name: part[rows.to(part.device)] for name, part in batch.items()}


def draw_step(rows: Sequence[Any], size: int, number: int, seed: int) -> list[Any]:
    """Return the rows of step `number`: all rows are shuffled, used up `size` a step, and shuffled again."""
    places = [divmod(i, len(rows)) for i in range(number * size, (number + 1) * size)]  # (pass, place in the pass)
    orders = {n: random.Random(f"{seed} {n}").sample(range(len(rows)), len(rows)) for n, _ in places}
    return [rows[orders[n][place]] for n, place in places]


def masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Return the mean over the mask's tokens (a scalar), 0 if the mask is empty."""
    return (x * mask).sum() / mask.sum().clamp(min=1)


def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """Return x with mean 0 and variance 1 over the mask's tokens, and 0 outside."""
    mean = masked_mean(x, mask)
    return (x - mean) * torch.rsqrt(masked_mean((x - mean) ** 2, mask) + 1e-8) * mask


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


def gae(rewards: Tensor, values: Tensor, mask: Tensor, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
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


def policy_loss(logp: Tensor, old_logp: Tensor, advantages: Tensor, mask: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Return the clipped surrogate loss, and the share of tokens where clipping holds (PPO paper, equation 7).

    The pessimistic maximum takes away any gain from moving a probability by more than `clip` in the wanted direction,
    and keeps the loss from moving it in the other.
    """
    ratio = (logp - old_logp).exp()
    free, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - clip, 1 + clip)
    return masked_mean(torch.maximum(free, clipped), mask), masked_mean((clipped > free).float(), mask)


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Return half the squared error of the values, clipped to move by at most `clip` (Huang et al. 2024)."""
    near = old_values + (values - old_values).clamp(-clip, clip)
    return 0.5 * masked_mean(torch.maximum((values - returns) ** 2, (near - returns) ** 2), mask)
