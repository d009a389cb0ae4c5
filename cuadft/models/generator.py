"""One base model with LoRA adapters in memory: greedy or sampled continuations of token prompts, batch by batch.

`cuadft.models.local` puts it behind dspy.LM. Alone it works on tokens:

    generator = Generator(find_weights("HuggingFaceTB/SmolLM2-135M-Instruct"))
    (made,) = generator.generate([generator.tokenizer("The term is")["input_ids"]], max_tokens=8)
    generator.tokenizer.decode(made.tokens)
"""

from __future__ import annotations

import copy
import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.models.verbatim import QuoteSource, VerbatimLogits, Vocabulary

if TYPE_CHECKING:
    import torch


MIN_PREFIX = 32  # tokens; a shorter shared prefix is not worth a cache of its own
PREFIXES_HELD = 4  # caches of shared prefixes in memory
STRETCH = 24  # tokens after which rows that have ended leave the batch


@dataclass(frozen=True)
class Continuation:
    """Generated tokens without the end mark; `ended` tells whether the model wrote that mark.

    logprobs: if asked for, the log-probability of each token and, if `ended`, of the end mark behind them.
    """

    tokens: list[int]
    ended: bool
    logprobs: list[float] = field(default_factory=list)


def best_dtype() -> torch.dtype:
    """Return bfloat16 where the hardware computes in it, float32 elsewhere."""
    import torch

    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


class Generator:
    """Continue prompts with a base model or one of its adapters; the model is loaded on first use.

    A batch is padded on the left. The tokens that all its prompts share at their start (instructions, demos) run
    through the model once; their cache is used for the whole batch and for later batches.
    """

    def __init__(self, path: Path, *, dtype: str = "auto") -> None:
        from transformers import AutoTokenizer

        self.path, self.dtype = Path(path), dtype
        self.tokenizer = AutoTokenizer.from_pretrained(self.path, trust_remote_code=False)
        self.adapters: dict[str, Path] = {}
        self._model = None
        self._prefixes: OrderedDict[tuple[str, str], Any] = OrderedDict()

    def add_adapter(self, name: str, folder: Path) -> None:
        """Register an adapter folder under a name; the model is loaded anew on its next use."""
        self.adapters[name] = folder
        self._model = None

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the tokens spell; raises InputError if the tokenizer does not tell."""
        return Vocabulary.of(self.tokenizer)

    @property
    def model(self) -> Any:
        """The base model with all adapters, loaded on first use and held in memory."""
        if self._model is None:
            self._model = self._load()
            self._prefixes.clear()
        return self._model

    def use(self, adapter: str = "") -> Any:
        """Return the model with one adapter switched on; "" switches all adapters off."""
        model = self.model
        if not self.adapters:
            return model
        # Without this, the "base" would answer with the adapter that was used last.
        if not adapter:
            model.base_model.disable_adapter_layers()
        else:
            model.base_model.enable_adapter_layers()
            model.set_adapter(adapter)
        return model

    def generate(
        self,
        prompts: Sequence[list[int]],
        *,
        adapter: str = "",
        max_tokens: int,
        temperature: float = 0.0,
        seed: int = 0,
        sources: Sequence[QuoteSource | None] | None = None,
        logprobs: bool = False,
    ) -> list[Continuation]:
        """Continue each prompt by at most `max_tokens` tokens with the base ("") or an adapter.

        temperature: 0 is greedy; above 0, tokens are drawn from the whole distribution. The same batch with the same
        seed gives the same tokens. sources: one for each prompt, what its continuation may quote, None for no limit
        (see `verbatim`). logprobs: keep the log-probability of each token among those allowed, at this temperature (at
        0: at 1).
        """
        import torch

        model, pad, ends = self.use(adapter), self.tokenizer.pad_token_id, self._end_marks()
        shared, width = _shared_prefix(prompts), max(map(len, prompts))
        ids = [p[:shared] + [pad] * (width - len(p)) + p[shared:] for p in prompts]
        mask = [[1] * shared + [0] * (width - len(p)) + [1] * (len(p) - shared) for p in prompts]
        batch = _Batch(torch.tensor(ids, device=model.device), torch.tensor(mask, device=model.device))
        limits = [VerbatimLogits(sources, self.vocabulary, ends, width)] if any(sources or ()) else []
        search = {"do_sample": temperature > 0, "temperature": temperature or None}
        search |= {"top_k": 0, "top_p": 1.0} if temperature else {"top_k": None, "top_p": None}
        settings = search | {"logits_processor": limits, "output_scores": logprobs, "pad_token_id": pad}
        with torch.inference_mode(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            batch.cache = self._prefix_cache(model, adapter, prompts[0][:shared], len(prompts))
            for start in range(0, max_tokens, STRETCH):
                batch.go_on(model, min(STRETCH, max_tokens - start), settings)
                going = batch.without_ended(ends)
                if not going:
                    break
                for limit in limits:
                    limit.keep_rows(going)
        return [self._until_end(*row) for row in zip(batch.tokens, batch.logprobs, strict=True)]

    def _load(self) -> Any:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        dtype = best_dtype() if self.dtype == "auto" else getattr(torch, self.dtype)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForCausalLM.from_pretrained(self.path, dtype=dtype, trust_remote_code=False).to(device)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # PEFT reads a name that transformers will drop
            for name, folder in self.adapters.items():
                if isinstance(model, PeftModel):
                    model.load_adapter(folder, adapter_name=name, autocast_adapter_dtype=False)
                else:
                    model = PeftModel.from_pretrained(model, folder, adapter_name=name, autocast_adapter_dtype=False)
        return model.to(dtype).eval()

    def _end_marks(self) -> set[int]:
        """Return the ids of the tokens that end a continuation."""
        ends = self.model.generation_config.eos_token_id
        return (set(ends if isinstance(ends, list) else [ends]) | {self.tokenizer.eos_token_id}) - {None}

    def _until_end(self, tokens: list[int], logprobs: list[float]) -> Continuation:
        """Return the tokens before the first end mark, and the log-probabilities up to it."""
        ends = self._end_marks()
        stop = next((i for i, token in enumerate(tokens) if token in ends), None)
        return Continuation(tokens[:stop], stop is not None, logprobs[: None if stop is None else stop + 1])

    def _prefix_cache(self, model: Any, adapter: str, tokens: list[int], rows: int) -> Any:
        """Return a copy of the cache of a shared prefix, repeated for each of `rows` prompts; empty without tokens."""
        import torch
        from transformers import DynamicCache

        if not tokens:
            return DynamicCache(config=model.config)
        key = (adapter, hashlib.sha256(repr(tokens).encode()).hexdigest())
        if key not in self._prefixes:
            cache = DynamicCache(config=model.config)
            model(torch.tensor([tokens], device=model.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
            self._prefixes[key] = cache
            while len(self._prefixes) > PREFIXES_HELD:
                self._prefixes.popitem(last=False)
        self._prefixes.move_to_end(key)
        cache = copy.deepcopy(self._prefixes[key])
        cache.batch_repeat_interleave(rows)
        return cache


class _Batch:
    """The rows of a batch that still go on: their tokens so far with the log-probabilities, and their cache.

    An answer of 150 tokens would make every row of its batch pay for 150 steps. So the batch is generated stretch by
    stretch, and rows that have ended leave it in between.
    """

    def __init__(self, ids: torch.Tensor, mask: torch.Tensor) -> None:
        self.ids, self.mask, self.cache = ids, mask, None
        self.rows = list(range(len(ids)))
        self.tokens: list[list[int]] = [[] for _ in self.rows]
        self.logprobs: list[list[float]] = [[] for _ in self.rows]

    def go_on(self, model: Any, most: int, settings: dict[str, Any]) -> None:
        """Generate up to `most` more tokens for each row; with output_scores, keep their log-probabilities too."""
        import torch

        given = {"input_ids": self.ids, "attention_mask": self.mask, "past_key_values": self.cache}
        out = model.generate(**given, max_new_tokens=most, return_dict_in_generate=True, **settings)
        made = out.sequences[:, self.ids.shape[1] :]
        self.ids, self.mask = out.sequences, torch.cat([self.mask, torch.ones_like(made)], dim=1)
        for row, tokens in zip(self.rows, made.tolist(), strict=True):
            self.tokens[row] += tokens
        for scores, chosen in zip(out.scores or (), made.T, strict=bool(out.scores)):
            step = scores.log_softmax(-1).gather(1, chosen[:, None])[:, 0]
            for row, value in zip(self.rows, step.tolist(), strict=True):
                self.logprobs[row].append(value)

    def without_ended(self, ends: set[int]) -> list[int]:
        """Leave out the rows that have ended, and return the places that the others had in the batch."""
        import torch

        going = [place for place, row in enumerate(self.rows) if ends.isdisjoint(self.tokens[row])]
        if going and len(going) < len(self.rows):
            places = torch.tensor(going, device=self.ids.device)
            self.ids, self.mask = self.ids[places], self.mask[places]
            self.cache.batch_select_indices(places)
        self.rows = [self.rows[place] for place in going]
        return going


def _shared_prefix(prompts: Sequence[list[int]]) -> int:
    """Return how many first tokens all prompts share; 0 if they are fewer than `MIN_PREFIX`, or for a single prompt."""
    if len(prompts) < 2:
        return 0
    columns, shortest = enumerate(zip(*prompts, strict=False)), min(map(len, prompts))
    shared = min(next((i for i, column in columns if len(set(column)) > 1), shortest), shortest - 1)
    return shared if shared >= MIN_PREFIX else 0
