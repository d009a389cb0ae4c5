"""One base model with LoRA adapters in memory: greedy or sampled continuations of token prompts, batch by batch.

`cuadft.models.local` puts it behind dspy.LM. Alone it works on tokens:

    generator = Generator(find_weights("HuggingFaceTB/SmolLM2-135M-Instruct"))
    (made,) = generator.generate([generator.tokenizer("The term is")["input_ids"]], max_tokens=8)
    generator.tokenizer.decode(made.tokens)
"""

from __future__ import annotations

import copy
import hashlib
import threading
import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


MIN_PREFIX = 32  # tokens; a shorter shared prefix is not worth a cache of its own
PREFIXES_HELD = 4  # caches of shared prefixes in memory


@dataclass(frozen=True)
class Continuation:
    """Generated tokens without the end mark; `ended` tells whether the model wrote that mark."""

    tokens: list[int]
    ended: bool


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
        self.path, self.dtype = Path(path), dtype
        self.adapters: dict[str, Path] = {}
        self._model = self._tokenizer = None
        self._prefixes: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._loading = threading.RLock()

    def add_adapter(self, name: str, folder: Path) -> None:
        """Register an adapter folder under a name; the model is loaded anew on its next use."""
        self.adapters[name] = folder
        self._model = None

    @property
    def tokenizer(self) -> Any:
        """The base model's tokenizer, loaded on first use."""
        with self._loading:  # many threads ask at once, and a half-done import in one fails in the others
            if self._tokenizer is None:
                from transformers import AutoTokenizer

                self._tokenizer = AutoTokenizer.from_pretrained(self.path, trust_remote_code=False)
            return self._tokenizer

    @property
    def model(self) -> Any:
        """The base model with all adapters, loaded on first use and held in memory."""
        with self._loading:
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
    ) -> list[Continuation]:
        """Continue each prompt by at most `max_tokens` tokens with the base ("") or an adapter.

        temperature: 0 is greedy; above 0, tokens are drawn from the whole distribution. The same batch with the same
        seed gives the same tokens.
        """
        import torch

        model, pad = self.use(adapter), self.tokenizer.pad_token_id
        shared = _shared_prefix(prompts)
        width = max(len(p) for p in prompts)
        ids = [p[:shared] + [pad] * (width - len(p)) + p[shared:] for p in prompts]
        mask = [[1] * shared + [0] * (width - len(p)) + [1] * (len(p) - shared) for p in prompts]
        settings: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if temperature > 0:
            settings = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
        with torch.inference_mode(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            if shared:
                settings["past_key_values"] = self._prefix_cache(model, adapter, prompts[0][:shared], len(prompts))
            out = model.generate(
                input_ids=torch.tensor(ids, device=model.device),
                attention_mask=torch.tensor(mask, device=model.device),
                max_new_tokens=max_tokens,
                pad_token_id=pad,
                **settings,
            )
        return [self._until_end(tokens) for tokens in out[:, width:].tolist()]

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
            for i, (name, folder) in enumerate(self.adapters.items()):
                if i == 0:
                    model = PeftModel.from_pretrained(model, folder, adapter_name=name, autocast_adapter_dtype=False)
                else:
                    model.load_adapter(folder, adapter_name=name, autocast_adapter_dtype=False)
        return model.to(dtype).eval()

    def _until_end(self, tokens: list[int]) -> Continuation:
        """Return the tokens before the first end mark."""
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends]) | {self.tokenizer.eos_token_id}
        stop = next((i for i, token in enumerate(tokens) if token in ends), None)
        return Continuation(tokens[:stop], ended=stop is not None)

    def _prefix_cache(self, model: Any, adapter: str, tokens: list[int], rows: int) -> Any:
        """Return a copy of the cache of a shared prefix, repeated for each of `rows` prompts."""
        import torch
        from transformers import DynamicCache

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


def _shared_prefix(prompts: Sequence[list[int]]) -> int:
    """Return how many first tokens all prompts share; 0 if they are fewer than `MIN_PREFIX`, or for a single prompt."""
    if len(prompts) < 2:
        return 0
    # In sorted order, the first and the last prompt share no more than all prompts do.
    low, high = min(prompts), max(prompts)
    shared = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    shared = min(shared, min(len(p) for p in prompts) - 1)
    return shared if shared >= MIN_PREFIX else 0
