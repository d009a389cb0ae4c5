"""The in-process language model behind dspy.LM: batches DSPy's concurrent calls on one base model with LoRA adapters.

    engine = LocalEngine(models.find("HuggingFaceTB/SmolLM2-135M-Instruct"), adapters={"sft": Path("adapters/sft")})
    dspy.configure(lm=engine.lm("sft"))
"""

from __future__ import annotations

import copy
import hashlib
import logging
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft import models
from cuadft.errors import InputError

if TYPE_CHECKING:
    import dspy
    import torch

IDLE = 0.05  # seconds without a new call after which a batch starts
STRAGGLER = 10.0  # the same, while an announced call is still missing
MIN_PREFIX = 32  # tokens; a shorter shared prefix is not worth a cache of its own


@dataclass
class _Call:
    adapter: str
    tokens: list[int]
    max_tokens: int
    temperature: float
    seed: int
    done: Future = field(default_factory=Future)

    @property
    def kind(self) -> tuple:
        return self.adapter, self.max_tokens, self.temperature, self.seed


def best_dtype() -> torch.dtype:
    """Return bfloat16 where the hardware computes in it, float32 elsewhere."""
    import torch

    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    able = torch.cpu.get_capabilities()
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


class LocalEngine:
    """Generate with one base model and any number of LoRA adapters held in memory; an engine for dspy.LM.

    Calls that arrive together are answered as one left-padded batch, sorted by length; the tokens that all prompts
    of a batch share at their start (instructions, demos) are run through the model once and their cache reused.
    """

    def __init__(self, path: Path | str, *, adapters: dict[str, Path] | None = None, batch_size: int = 16,
                 dtype: str = "auto") -> None:
        self.path, self.batch_size, self.dtype = Path(path), batch_size, dtype
        self.adapters: dict[str, Path] = {}
        self._names: dict[str, str] = {}
        self._model = self._tokenizer = None
        self._base = f"local/{self.path.name}@{models.weights_hash(self.path)[:12]}"
        self._names[self._base] = ""
        self._prefixes: OrderedDict[tuple, Any] = OrderedDict()
        self._queue: list[_Call] = []
        self._expected = 0
        self._arrived = threading.Condition()
        self._worker: threading.Thread | None = None
        self._loading = threading.RLock()
        self.batches = self.calls = self.truncated = 0
        logging.getLogger("dspy.clients.lm").addFilter(_not_truncation)
        for name, folder in (adapters or {}).items():
            self.add_adapter(name, folder)

    def add_adapter(self, name: str, folder: Path) -> None:
        """Register a LoRA adapter folder under a name; raises InputError if it is missing or of another base."""
        folder = Path(folder)
        if not (folder / "adapter_config.json").is_file():
            raise InputError(f"Adapter '{name}' is missing: {folder} holds no adapter_config.json. Run 04_fine_tune (or "
                             "06_align) of this iteration first.")
        self.adapters[name] = folder
        self._names[f"{self._base}+{name}-{models.weights_hash(folder)[:12]}"] = name
        own = models.base_hash(folder)
        if own and own != models.weights_hash(self.path):
            raise InputError(f"Adapter '{name}' in {folder} was trained on other base weights ({own[:12]}) than those of "
                             f"{self.path.name} ({models.weights_hash(self.path)[:12]}): train it again or restore the model.")
        self._model = None

    def model_name(self, adapter: str = "") -> str:
        """Return the LM name of the base ("") or an adapter; it carries a hash of the weights."""
        for full, name in self._names.items():
            if name == adapter:
                return full
        raise InputError(f"Unknown adapter '{adapter}': choose one of {sorted(self.adapters)} or '' for the base model.")

    def lm(self, adapter: str = "", *, max_tokens: int = 64, temperature: float = 0.0, **settings: Any) -> dspy.LM:
        """Return a dspy.LM for the base ("") or an adapter; not cached by DSPy, since predictions are kept on disk."""
        import dspy

        settings.setdefault("cache", False)
        return dspy.LM(self.model_name(adapter), engine=self, max_tokens=max_tokens, temperature=temperature, **settings)

    @contextmanager
    def expect(self, calls: int) -> Iterator[None]:
        """Hold the next calls until all have arrived, so that a batch never depends on thread timing."""
        with self._arrived:
            self._expected = calls
        try:
            yield
        finally:
            with self._arrived:
                self._expected = 0
                self._arrived.notify_all()

    def dump_state(self) -> dict[str, Any]:
        """Return what load_state needs (DSPy saves programs that hold an LM)."""
        return {"path": str(self.path), "adapters": {k: str(v) for k, v in self.adapters.items()},
                "batch_size": self.batch_size, "dtype": self.dtype}

    @classmethod
    def load_state(cls, state: dict[str, Any]) -> LocalEngine:
        """Rebuild an engine from dump_state."""
        return cls(**state)

    def complete(self, request: Any) -> Any:
        """Answer one DSPy request; blocks until its batch is done."""
        from dspy.lm15 import Message, Response, Usage

        if request.model not in self._names:
            raise InputError(f"Model '{request.model}' is not loaded: this engine holds {sorted(self._names)}.")
        call = self._call(request)
        with self._arrived:
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._work, daemon=True, name="local-lm")
                self._worker.start()
            self._queue.append(call)
            self._arrived.notify_all()
        text, used, finish = call.done.result()
        return Response(id=None, model=request.model, message=Message.assistant(text), finish_reason=finish,
                        usage=Usage(input_tokens=len(call.tokens), output_tokens=used))

    def tokenize(self, messages: list[dict[str, str]]) -> list[int]:
        """Return the prompt tokens of chat messages, up to and with the assistant's header."""
        return self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)

    @property
    def tokenizer(self) -> Any:
        """The base model's tokenizer, loaded on first use."""
        with self._loading:  # many threads ask for it at once, and a half-done import fails in the others
            if self._tokenizer is None:
                from transformers import AutoTokenizer

                self._tokenizer = AutoTokenizer.from_pretrained(self.path)
            return self._tokenizer

    @property
    def model(self) -> Any:
        """The base model with all adapters, loaded on first use and held in memory."""
        with self._loading:
            if self._model is None:
                self._model = self._load()
                self._prefixes.clear()
            return self._model

    def _load(self) -> Any:
        import torch
        from peft import PeftModel
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        dtype = best_dtype() if self.dtype == "auto" else getattr(torch, self.dtype)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model = AutoModelForCausalLM.from_pretrained(self.path, dtype=dtype).to(device)
        for i, (name, folder) in enumerate(self.adapters.items()):
            if i == 0:
                model = PeftModel.from_pretrained(model, folder, adapter_name=name, autocast_adapter_dtype=False)
            else:
                model.load_adapter(folder, adapter_name=name, autocast_adapter_dtype=False)
        return model.to(dtype).eval()

    def _call(self, request: Any) -> _Call:
        messages = [{"role": "system", "content": request.system}] if request.system else []
        messages += [{"role": m.role, "content": m.text} for m in request.messages]
        config = request.config
        return _Call(self._names[request.model], self.tokenize(messages), config.max_tokens or 64,
                     config.temperature or 0.0, config.seed or 0)

    def _work(self) -> None:
        while True:
            calls = self._gather()
            for kind in sorted({c.kind for c in calls}):
                group = sorted((c for c in calls if c.kind == kind), key=lambda c: (len(c.tokens), c.tokens))
                for i in range(0, len(group), self.batch_size):
                    batch = group[i:i + self.batch_size]
                    try:
                        self._answer(batch)
                    except Exception as error:  # handed to the callers: a dead worker would leave them waiting
                        for call in batch:
                            call.done.set_exception(error)

    def _gather(self) -> list[_Call]:
        with self._arrived:
            self._arrived.wait_for(lambda: self._queue)
            while len(self._queue) < (self._expected or self.batch_size):
                before = len(self._queue)
                self._arrived.wait(STRAGGLER if self._expected else IDLE)
                if len(self._queue) == before:
                    break
            calls, self._queue = self._queue, []
            self._expected = max(0, self._expected - len(calls))
            return calls

    def _use(self, adapter: str) -> Any:
        model = self.model
        if not self.adapters:
            return model
        # Without this the "base" would go on answering with the adapter used last.
        if not adapter:
            model.base_model.disable_adapter_layers()
        else:
            model.base_model.enable_adapter_layers()
            model.set_adapter(adapter)
        return model

    def _answer(self, batch: list[_Call]) -> None:
        import torch

        first = batch[0]
        model = self._use(first.adapter)
        with torch.inference_mode():
            prompts = [c.tokens for c in batch]
            shared = _shared_prefix(prompts)
            width = max(len(p) for p in prompts)
            pad = self.tokenizer.pad_token_id
            ids = [p[:shared] + [pad] * (width - len(p)) + p[shared:] for p in prompts]
            mask = [[1] * shared + [0] * (width - len(p)) + [1] * (len(p) - shared) for p in prompts]
            settings: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
            if first.temperature > 0:
                torch.manual_seed(first.seed)
                settings = {"do_sample": True, "temperature": first.temperature, "top_k": 0, "top_p": 1.0}
            if shared:
                settings["past_key_values"] = self._prefix(model, first.adapter, prompts[0][:shared], len(batch))
            out = model.generate(input_ids=torch.tensor(ids, device=model.device),
                                 attention_mask=torch.tensor(mask, device=model.device),
                                 max_new_tokens=first.max_tokens, pad_token_id=pad, **settings)
        self.batches += 1
        for call, tokens in zip(batch, out[:, width:].tolist(), strict=True):
            self._finish(call, tokens)

    def _finish(self, call: _Call, tokens: list[int]) -> None:
        ends = self.model.generation_config.eos_token_id
        ends = set(ends if isinstance(ends, list) else [ends]) | {self.tokenizer.eos_token_id}
        stop = next((i for i, t in enumerate(tokens) if t in ends), None)
        kept = tokens if stop is None else tokens[:stop]
        text = self.tokenizer.decode(kept, skip_special_tokens=True).strip()
        self.calls, self.truncated = self.calls + 1, self.truncated + (stop is None)
        call.done.set_result((text, len(kept), "length" if stop is None else "stop"))

    def _prefix(self, model: Any, adapter: str, tokens: list[int], rows: int) -> Any:
        import torch
        from transformers import DynamicCache

        key = (adapter, hashlib.sha256(repr(tokens).encode()).hexdigest())
        if key not in self._prefixes:
            cache = DynamicCache(config=model.config)
            model(torch.tensor([tokens], device=model.device), past_key_values=cache, use_cache=True, logits_to_keep=1)
            self._prefixes[key] = cache
            while len(self._prefixes) > 4:
                self._prefixes.popitem(last=False)
        self._prefixes.move_to_end(key)
        cache = copy.deepcopy(self._prefixes[key])
        cache.batch_repeat_interleave(rows)
        return cache


def _not_truncation(record: logging.LogRecord) -> bool:
    """Drop DSPy's warning for each cut answer: with a small token budget they are common, and `truncated` counts them."""
    return not str(record.msg).startswith("LM response was truncated")


def _shared_prefix(prompts: list[list[int]]) -> int:
    """Return how many first tokens all prompts share (0 if too few to matter, or for a single prompt)."""
    if len(prompts) < 2:
        return 0
    low, high = min(prompts), max(prompts)
    shared = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    shared = min(shared, min(len(p) for p in prompts) - 1)
    return shared if shared >= MIN_PREFIX else 0
