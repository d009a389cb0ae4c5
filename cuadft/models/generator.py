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
from dataclasses import dataclass, field
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
        self.path, self.dtype = Path(path), dtype
        self.adapters: dict[str, Path] = {}
        self._model = self._tokenizer = self._vocabulary = None
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
    def vocabulary(self) -> Vocabulary:
        """What the tokens spell, worked out on first use; raises InputError if the tokenizer does not tell."""
        with self._loading:
            if self._vocabulary is None:
                self._vocabulary = Vocabulary.of(self.tokenizer)
            return self._vocabulary

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

        model, pad = self.use(adapter), self.tokenizer.pad_token_id
        shared = _shared_prefix(prompts)
        width = max(len(p) for p in prompts)
        ids = [p[:shared] + [pad] * (width - len(p)) + p[shared:] for p in prompts]
        mask = [[1] * shared + [0] * (width - len(p)) + [1] * (len(p) - shared) for p in prompts]
        batch = _Batch(torch.tensor(ids, device=model.device), torch.tensor(mask, device=model.device))
        limits = self._limits(sources or [], width)
        chosen = [_ChosenLogprobs(len(prompts), temperature or 1.0)] if logprobs else []
        settings = _search_settings(temperature) | {"logits_processor": limits + chosen, "pad_token_id": pad}
        with torch.inference_mode(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            batch.cache = self._prefix_cache(model, adapter, prompts[0][:shared], len(prompts))
            for start in range(0, max_tokens, STRETCH):
                made = batch.go_on(model, min(STRETCH, max_tokens - start), settings)
                for processor in chosen:
                    processor.keep_last(made[:, -1])
                going = batch.without_ended(self._end_marks())
                if not batch.rows:
                    break
                for processor in [*limits, *chosen]:
                    processor.keep_rows(going)
        rows = chosen[0].by_row if chosen else [[]] * len(prompts)
        return [self._until_end(*row) for row in zip(batch.tokens, rows, strict=True)]

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

    def _limits(self, sources: Sequence[QuoteSource | None], width: int) -> list[VerbatimLogits]:
        """Return the logits processor for these sources, if there are any."""
        if all(source is None for source in sources):
            return []
        return [VerbatimLogits(sources, self.vocabulary, self._end_marks(), width)]

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
    """The rows of a batch that still go on: their tokens so far, and the cache of these.

    An answer of 150 tokens would make every row of its batch pay for 150 steps. So the batch is generated stretch by
    stretch, and rows that have ended leave it in between.
    """

    def __init__(self, ids: torch.Tensor, mask: torch.Tensor) -> None:
        self.ids, self.mask, self.cache = ids, mask, None
        self.rows = list(range(len(ids)))
        self.tokens: list[list[int]] = [[] for _ in self.rows]

    def go_on(self, model: Any, most: int, settings: dict[str, Any]) -> torch.Tensor:
        """Generate up to `most` more tokens for each row, and return them, of shape (rows, tokens)."""
        import torch

        before = self.ids.shape[1]
        self.ids = model.generate(
            input_ids=self.ids,
            attention_mask=self.mask,
            past_key_values=self.cache,
            max_new_tokens=most,
            **settings,
        )
        made = self.ids[:, before:]
        self.mask = torch.cat([self.mask, torch.ones_like(made)], dim=1)
        for row, tokens in zip(self.rows, made.tolist(), strict=True):
            self.tokens[row] += tokens
        return made

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


class _ChosenLogprobs:
    """A logits processor that changes nothing and keeps the log-probability of every token that was chosen.

    A choice is seen at the next step. So only one step's distribution is held: all of them would take 3 MB a step for a
    batch of 16.
    """

    def __init__(self, rows: int, temperature: float) -> None:
        self.temperature = temperature
        self.by_row: list[list[float]] = [[] for _ in range(rows)]
        self._rows = list(range(rows))
        self._last: torch.Tensor | None = None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.keep_last(input_ids[:, -1])
        self._last = (scores / self.temperature).log_softmax(-1)
        return scores

    def keep_last(self, chosen: torch.Tensor) -> None:
        """Keep the log-probabilities of the tokens (rows,) that were chosen at the last step."""
        if self._last is not None:
            for row, value in zip(self._rows, self._last.gather(1, chosen[:, None])[:, 0].tolist(), strict=True):
                self.by_row[row].append(value)
            self._last = None

    def keep_rows(self, places: list[int]) -> None:
        """Go on with the rows at these places of the batch alone."""
        self._rows = [self._rows[place] for place in places]


def _search_settings(temperature: float) -> dict[str, Any]:
    """Return the settings of transformers for greedy search (0) or for draws from the whole distribution."""
    if temperature > 0:
        return {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    return {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}


def _shared_prefix(prompts: Sequence[list[int]]) -> int:
    """Return how many first tokens all prompts share; 0 if they are fewer than `MIN_PREFIX`, or for a single prompt."""
    if len(prompts) < 2:
        return 0
    # In sorted order, the first and the last prompt share no more than all prompts do.
    low, high = min(prompts), max(prompts)
    shared = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    shared = min(shared, min(len(p) for p in prompts) - 1)
    return shared if shared >= MIN_PREFIX else 0
