"""The language model in this process, behind dspy.LM: DSPy's concurrent calls become batches on one base model.

LoRA adapters of the same base are held beside it, so that one engine answers for several systems. For example:

    folder = models.find_weights("HuggingFaceTB/SmolLM2-135M-Instruct")
    engine = LocalEngine(folder, adapters={"sft": Path("adapters/sft")})
    dspy.configure(lm=engine.lm("sft"))     # engine.lm() is the base model
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.core.errors import InputError
from cuadft.core.text import without_marks
from cuadft.models import weights
from cuadft.models.generator import Continuation, Generator, by_prefix
from cuadft.models.verbatim import QuoteSource, cut_to_words, read_quote_format

if TYPE_CHECKING:
    import dspy
    from dspy.lm15 import TokenLogprob


IDLE_SECONDS = 0.05  # without a new call; then a batch starts
STRAGGLER_SECONDS = 10.0  # without a new call although one is announced (see `LocalEngine.expect`); then a batch starts
UNSUPPORTED = ("stop", "top_p", "top_k", "frequency_penalty", "presence_penalty", "logprobs")  # of other engines


@dataclass
class _Call:
    """One waiting request; calls of equal settings (adapter, max_tokens, temperature, seed) may share a batch."""

    settings: dict[str, Any]
    tokens: list[int]
    source: QuoteSource | None
    logprobs: bool
    done: Future = field(default_factory=Future)

    @property
    def kind(self) -> tuple:
        return tuple(self.settings.values())


class LocalEngine:
    """An engine for dspy.LM: one base model and any number of LoRA adapters in memory.

    Calls that arrive together are sorted by length and answered in batches (see `Generator`). `calls`, `batches` and
    `truncated` (answers cut at max_tokens) count the work. A call with `verbatim.quote_format` as its response_format
    is answered with quotes alone, and a call with logprobs=True carries the log-probability of each token, the last of
    them that of the end mark, as the token "".
    """

    def __init__(
        self, path: Path | str, *, adapters: dict[str, Path] | None = None, batch_size: int = 16, dtype: str = "auto"
    ) -> None:
        self.path, self.batch_size, self.dtype = Path(path), batch_size, dtype
        self._hash = weights.weights_hash(self.path)
        self._names = {"": f"local/{self.path.name}@{self._hash[:12]}"}  # of the base and of each adapter
        self.generator = Generator(self.path, dtype=dtype)
        self.tokenizer = self.generator.tokenizer
        self.adapters = self.generator.adapters  # their folders by name
        self._queue: list[_Call] = []
        self._expected = 0
        self._arrived = threading.Condition()
        self._worker: threading.Thread | None = None
        self.batches = self.calls = self.truncated = 0
        # Without DSPy's warning of each cut answer: they are common here, and `truncated` counts them.
        logging.getLogger("dspy.clients.lm").addFilter(_is_no_truncation)
        for name, folder in (adapters or {}).items():
            self.add_adapter(name, folder)

    def add_adapter(self, name: str, folder: Path) -> None:
        """Register a LoRA adapter folder; raises InputError if it is missing, damaged or of another base."""
        folder = Path(folder)
        if not (folder / "adapter_config.json").is_file():
            raise InputError(f"Adapter '{name}' is missing in {folder}: run 04_fine_tune or 06_align first.")
        own = weights.base_hash(folder)
        if own != self._hash:  # an adapter of another base with equal shapes loads without an error and answers badly
            raise InputError(
                f"Adapter '{name}' in {folder} was trained on other base weights ({own}, see base.json) than those of "
                f"{self.path.name} ({self._hash}): train it again or restore the model."
            )
        weights.check_readable(folder)
        self._names[name] = f"{self._names['']}+{name}-{weights.weights_hash(folder)[:12]}"
        self.generator.add_adapter(name, folder)

    def model_name(self, adapter: str = "") -> str:
        """Return the LM name of the base ("") or an adapter; it carries a hash of the weights."""
        if adapter not in self._names:
            raise InputError(f"Unknown adapter '{adapter}': choose one of {sorted(self._names)}.")
        return self._names[adapter]

    def lm(self, adapter: str = "", *, max_tokens: int = 64, temperature: float = 0.0, **settings: Any) -> dspy.LM:
        """Return a dspy.LM for the base ("") or an adapter; DSPy does not cache it, since a run keeps its answers."""
        import dspy

        settings = {"cache": False, "max_tokens": max_tokens, "temperature": temperature} | settings
        return dspy.LM(self.model_name(adapter), engine=self, **settings)

    @contextmanager
    def expect(self, calls: int) -> Iterator[None]:
        """Hold the next `calls` calls until all have arrived, so that batches do not depend on the timing of calls."""
        with self._arrived:
            self._expected = calls
        try:
            yield
        finally:
            with self._arrived:
                self._expected = 0
                self._arrived.notify_all()

    def complete(self, request: Any) -> Any:
        """Answer one DSPy request; blocks until its batch is done."""
        from dspy.lm15 import Message, Response, Usage

        call = self._as_call(request)
        with self._arrived:
            if self._worker is None or not self._worker.is_alive():
                self._worker = threading.Thread(target=self._answer_calls, daemon=True, name="local-lm")
                self._worker.start()
            self._queue.append(call)
            self._arrived.notify_all()
        text, made = call.done.result()
        return Response(
            id=None,
            model=request.model,
            message=Message.assistant(text),
            finish_reason="stop" if made.ended else "length",
            usage=Usage(input_tokens=len(call.tokens), output_tokens=len(made.tokens)),
            logprobs=self._token_logprobs(made) if call.logprobs else None,
        )

    def tokenize(self, messages: list[dict[str, str]]) -> list[int]:
        """Return the prompt tokens of chat messages, up to and with the assistant's header.

        A special token that is written out in a message stays ordinary text (see `without_marks`).
        """
        plain = [message | {"content": without_marks(message["content"], self._special_tokens)} for message in messages]
        return self.tokenizer.apply_chat_template(plain, add_generation_prompt=True, return_dict=False)

    @cached_property
    def _special_tokens(self) -> list[str]:
        """The tokenizer's special tokens, the longest first."""
        added = [token.content for token in self.tokenizer.added_tokens_decoder.values() if token.special]
        tokens = {token for token in (*added, *self.tokenizer.all_special_tokens) if len(token) > 2}
        return sorted(tokens, key=len, reverse=True)

    def _as_call(self, request: Any) -> _Call:
        """Return a DSPy request as a call of the queue; raises InputError for a model or setting that is not here."""
        adapters = {full: name for name, full in self._names.items()}
        if request.model not in adapters:
            raise InputError(f"Model '{request.model}' is not loaded: this engine holds {sorted(adapters)}.")
        messages = [{"role": "system", "content": request.system}] if request.system else []
        messages += [{"role": m.role, "content": m.text} for m in request.messages]
        config = request.config
        if given := [name for name in UNSUPPORTED if getattr(config, name)]:
            allowed = "max_tokens, temperature, seed and logprobs=True"
            raise InputError(f"The local model takes no {', '.join(given)}: set only {allowed}.")
        settings = {
            "adapter": adapters[request.model],
            "max_tokens": config.max_tokens or 64,
            "temperature": config.temperature or 0.0,
            "seed": config.seed or 0,
        }
        source = read_quote_format(config.response_format) if config.response_format else None
        return _Call(settings, self.tokenize(messages), source, config.logprobs is not None)

    def _answer_calls(self) -> None:
        """Answer calls for ever, batch by batch: the work of the engine's one thread."""
        while True:
            calls = sorted(self._gather_calls(), key=lambda c: (c.kind, c.tokens, repr(c.source)))
            for _, same in groupby(calls, key=lambda c: c.kind):
                group = _in_order(list(same))
                for i in range(0, len(group), self.batch_size):
                    self._answer_batch(group[i : i + self.batch_size])

    def _gather_calls(self) -> list[_Call]:
        """Wait for calls and return those that have arrived when no further one is to be waited for."""
        with self._arrived:
            self._arrived.wait_for(lambda: self._queue)
            while len(self._queue) < (self._expected or self.batch_size):
                before = len(self._queue)
                self._arrived.wait(STRAGGLER_SECONDS if self._expected else IDLE_SECONDS)
                if len(self._queue) == before:
                    break
            calls, self._queue = self._queue, []
            self._expected = max(0, self._expected - len(calls))
            return calls

    def _answer_batch(self, batch: list[_Call]) -> None:
        prompts, sources = [c.tokens for c in batch], [c.source for c in batch]
        asked = batch[0].settings | {"logprobs": any(c.logprobs for c in batch)}
        try:
            made = self.generator.generate(prompts, sources=sources, **asked)
            self.batches += 1
            for call, continuation in zip(batch, made, strict=True):
                self._finish(call, continuation)
        except Exception as error:  # the callers raise it; a dead thread would leave them waiting
            for call in batch:
                if not call.done.done():
                    call.done.set_exception(error)

    def _finish(self, call: _Call, made: Continuation) -> None:
        if call.source is None:
            text = self.tokenizer.decode(made.tokens, skip_special_tokens=True).strip()
        else:
            text = self.generator.vocabulary.spell(made.tokens)
            text = text if made.ended else cut_to_words(text, call.source)
        self.calls, self.truncated = self.calls + 1, self.truncated + (not made.ended)
        call.done.set_result((text, made))

    def _token_logprobs(self, made: Continuation) -> tuple[TokenLogprob, ...]:
        from dspy.lm15 import TokenLogprob

        vocabulary, kept = self.generator.vocabulary, []
        for token, logprob in zip(made.tokens, made.logprobs[: len(made.tokens)], strict=True):
            spelled = vocabulary.spelled[token] or b""
            kept.append(TokenLogprob(spelled.decode("utf-8", "replace"), logprob, tuple(spelled), token))
        if made.ended:
            kept.append(TokenLogprob("", made.logprobs[-1]))
        return tuple(kept)


def _in_order(calls: list[_Call]) -> list[_Call]:
    """Return calls with those about one passage together, and otherwise by their length."""
    groups = by_prefix([call.tokens for call in calls])
    groups.sort(key=lambda places: max(len(calls[i].tokens) for i in places))
    return [calls[i] for places in groups for i in places]


def _is_no_truncation(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith("LM response was truncated")


def token_counter(folder: Path) -> Callable[[str], int]:
    """Return a function that counts the tokens of a text by a model's tokenizer, without the special ones."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])
