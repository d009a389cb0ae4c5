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
from itertools import pairwise
from os.path import commonprefix
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.models.quoting import QuotedRow, Quoting, places_of
from cuadft.models.verbatim import Choices, QuoteSource, Vocabulary

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


MIN_PREFIX = 32  # tokens; a shorter shared prefix is not worth a cache of its own
PREFIXES_HELD = 4  # caches of shared prefixes in memory
NO_THINKING = "{%- set enable_thinking = false -%}"  # put before a chat template, so that every caller gets it
MODELS_HELD = 2  # merged models in memory: two systems are often asked in turn


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


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Return a model's tokenizer, which has a token for padding and a chat template that lets no model think first.

    Llama 3's has no token for padding; the end mark takes its place, as in TRL. Qwen3's template asks for thoughts by
    default, but writes an empty thought before the answers to train on. With the same mark in the prompt, training and
    inference send the same prompt, and an answer begins with a quote.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    template = tokenizer.chat_template
    if isinstance(template, str) and "enable_thinking" in template and not template.startswith(NO_THINKING):
        tokenizer.chat_template = NO_THINKING + template
    return tokenizer


class Generator:
    """Continue prompts with a base model, or with it and an adapter merged into its weights; loaded on first use.

    A batch is padded on the left. The tokens that all its prompts share at their start (instructions, demos) run
    through the model once; their cache is used for the whole batch and for later batches.
    """

    def __init__(self, path: Path, *, dtype: str = "auto") -> None:
        self.path, self.dtype = Path(path), dtype
        self.tokenizer = load_tokenizer(self.path)
        self.adapters: dict[str, Path] = {}
        self._models: OrderedDict[str, Any] = OrderedDict()
        self._prefixes: OrderedDict[tuple[str, str], Any] = OrderedDict()
        self._has_plain_head = False  # found out when a model is loaded

    def add_adapter(self, name: str, folder: Path) -> None:
        """Register an adapter folder under a name; it is loaded (anew) on its next use."""
        self.adapters[name] = folder
        self._models.pop(name, None)
        self._prefixes.clear()

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the tokens spell; raises InputError if the tokenizer does not tell."""
        return Vocabulary.of(self.tokenizer)

    def use(self, adapter: str = "") -> Any:
        """Return the base model (""), or that with one adapter; the models used last stay in memory."""
        if adapter not in self._models:
            self._models[adapter] = self._load(adapter)
            while len(self._models) > MODELS_HELD:
                self._models.popitem(last=False)
        self._models.move_to_end(adapter)
        return self._models[adapter]

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

        sources = sources or [None] * len(prompts)
        free = [i for i, source in enumerate(sources) if source is None]
        bound = [i for i, source in enumerate(sources) if source is not None]
        made: dict[int, Continuation] = {}
        with torch.inference_mode(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            torch.manual_seed(seed)
            if free:
                found = self._write([prompts[i] for i in free], adapter, max_tokens, temperature, logprobs)
                made |= zip(free, found, strict=True)
            if bound:
                choices = {source: Choices(source, self.vocabulary) for source in set(sources) - {None}}
                rows = [QuotedRow(choices[sources[i]], choices[sources[i]].grammar.start) for i in bound]
                self._quote([prompts[i] for i in bound], rows, adapter, max_tokens, temperature)
                for i, row in zip(bound, rows, strict=True):
                    made[i] = Continuation(row.tokens, row.ended, row.logprobs if logprobs else [])
        return [made[i] for i in range(len(prompts))]

    def _write(
        self, prompts: Sequence[list[int]], adapter: str, max_tokens: int, temperature: float, logprobs: bool
    ) -> list[Continuation]:
        """Continue prompts freely."""
        model, pad = self.use(adapter), self.tokenizer.pad_token_id
        ids, mask, cache = self._padded(model, adapter, prompts)
        search = {"do_sample": temperature > 0, "temperature": temperature or None}
        search |= {"top_k": 0, "top_p": 1.0} if temperature else {"top_k": None, "top_p": None}
        asked = search | {"max_new_tokens": max_tokens, "output_scores": logprobs, "pad_token_id": pad}
        out = model.generate(
            input_ids=ids, attention_mask=mask, past_key_values=cache, return_dict_in_generate=True, **asked
        )
        made = out.sequences[:, ids.shape[1] :]
        steps = zip(out.scores or (), made.T, strict=logprobs)
        sure = [scores.log_softmax(-1).gather(1, chosen[:, None])[:, 0].tolist() for scores, chosen in steps]
        ends, by_row = (
            _end_marks(model, self.tokenizer),
            list(map(list, zip(*sure, strict=True))) or [[]] * len(prompts),
        )
        return [_until_end(*row, ends) for row in zip(made.tolist(), by_row, strict=True)]

    def _quote(
        self, prompts: Sequence[list[int]], rows: Sequence[QuotedRow], adapter: str, max_tokens: int, temperature: float
    ) -> None:
        """Continue prompts with quotes alone, into `rows`."""
        model = self.use(adapter)
        ids, mask, cache = self._padded(model, adapter, prompts)

        def scores_of(columns: list[int], kept: int, **given: Any) -> torch.Tensor:
            if self._has_plain_head:
                return (model.base_model(**given).last_hidden_state[:, -kept:] @ head[columns].T).float()
            return model(**given, logits_to_keep=kept).logits[..., columns].float()

        head = model.get_output_embeddings().weight
        quoting = Quoting(rows, self.tokenizer, _end_marks(model, self.tokenizer), scores_of)
        quoting.write(ids[:, cache.get_seq_length() :], mask, cache, max_tokens, temperature)

    def _padded(self, model: Any, adapter: str, prompts: Sequence[list[int]]) -> tuple[Any, Any, Any]:
        """Return ids and mask (rows, tokens) of prompts, and a cache that holds their first columns.

        The columns hold what all prompts share, then what those of a group share besides (a passage), then the rest.
        Each part is padded on its left.
        """
        import torch

        shared, groups = _shared_prefix(prompts), by_prefix(prompts)
        if len(groups) == len(prompts):
            groups, stems = [[i] for i in range(len(prompts))], [shared] * len(prompts)
        else:
            stems = _stems(prompts, groups, shared)
        group_of = {i: number for number, group in enumerate(groups) for i in group}
        row_of = torch.tensor([group_of[i] for i in range(len(prompts))], device=model.device)
        ids, mask = self._left_padded([prompts[group[0]][shared:stem] for group, stem in zip(groups, stems)])
        first = torch.tensor([prompts[0][:shared]] * len(groups), dtype=torch.long)
        ids, mask = torch.cat([first, ids], 1).to(model.device), torch.cat([first * 0 + 1, mask], 1).to(model.device)
        cache = self._prefix_cache(model, adapter, prompts[0][:shared], len(groups))
        if ids.shape[1] > shared:
            given = {"input_ids": ids[:, shared:], "attention_mask": mask, "position_ids": places_of(mask)[:, shared:]}
            model.base_model(**given, past_key_values=cache)
            cache.batch_select_indices(row_of)
        rest, of_rest = self._left_padded([p[stems[group_of[i]] :] for i, p in enumerate(prompts)])
        ids, mask = torch.cat([ids[row_of], rest.to(ids)], 1), torch.cat([mask[row_of], of_rest.to(mask)], 1)
        return ids, mask, cache

    def _left_padded(self, rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        width, pad = max(map(len, rows)), self.tokenizer.pad_token_id
        ids = [[pad] * (width - len(row)) + row for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        return torch.tensor(ids, dtype=torch.long), torch.tensor(mask, dtype=torch.long)

    def _load(self, adapter: str) -> Any:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        dtype = best_dtype() if self.dtype == "auto" else getattr(torch, self.dtype)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        loaded = torch.float32 if adapter else dtype  # a small change is lost if it is added in bfloat16
        model = AutoModelForCausalLM.from_pretrained(self.path, dtype=loaded, trust_remote_code=False)
        if adapter:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # PEFT reads a name that transformers will drop
                model = PeftModel.from_pretrained(model, self.adapters[adapter]).merge_and_unload()
        model = model.to(device, dtype).eval()
        self._has_plain_head = _has_plain_head(model)
        return model

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


def _end_marks(model: Any, tokenizer: Any) -> set[int]:
    """Return the ids of the tokens that end a continuation."""
    ends = model.generation_config.eos_token_id
    return (set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}) - {None}


def _until_end(tokens: list[int], logprobs: list[float], ends: set[int]) -> Continuation:
    """Return the tokens before the first end mark, and the log-probabilities up to it."""
    stop = next((i for i, token in enumerate(tokens) if token in ends), None)
    return Continuation(tokens[:stop], stop is not None, logprobs[: None if stop is None else stop + 1])


def _has_plain_head(model: Any) -> bool:
    """Tell whether a model's scores are the product of one matrix and the last hidden state: some scale or cap it.

    The head over a whole vocabulary is a third of a small model's work. Where it is plain, the rows of the tokens that
    may follow are enough.
    """
    import torch

    given = torch.tensor([[0, 1]], device=model.device)
    with torch.inference_mode():
        product = model.base_model(given).last_hidden_state @ model.get_output_embeddings().weight.T
        return torch.allclose(product, model(given).logits, rtol=0.01, atol=0.01)


def _shared_prefix(prompts: Sequence[list[int]]) -> int:
    """Return how many first tokens all prompts share; 0 if they are fewer than `MIN_PREFIX`, or for a single prompt."""
    if len(prompts) < 2:
        return 0
    shared = min(len(commonprefix(prompts)), min(map(len, prompts)) - 1)
    return shared if shared >= MIN_PREFIX else 0


def by_prefix(prompts: Sequence[list[int]]) -> list[list[int]]:
    """Return the places of prompts in groups: those of a group share `MIN_PREFIX` first tokens more than all do."""
    order = sorted(range(len(prompts)), key=prompts.__getitem__)
    least, groups = len(commonprefix(prompts)) + MIN_PREFIX, [order[:1]]
    for before, place in pairwise(order):
        if len(commonprefix([prompts[before], prompts[place]])) >= least:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def _stems(prompts: Sequence[list[int]], groups: Sequence[Sequence[int]], shared: int) -> list[int]:
    """Return how many first tokens of each group run through the model once; a rest of one token at least is left."""
    found = [
        min(len(commonprefix([prompts[i] for i in group])), min(len(prompts[i]) for i in group) - 1) for group in groups
    ]
    # a prompt without neighbours leaves as much as others do, so that no row of the rest is much longer
    rest = min(len(prompts[i]) - stem for group, stem in zip(groups, found) for i in group if len(group) > 1)
    return [stem if len(group) > 1 else max(shared, stem + 1 - rest) for group, stem in zip(groups, found)]
