"""Learn from quotes as they are sampled in inference: only the tokens that may follow are drawn, and only they count.

A quote consists of words of its passage, so that of a whole vocabulary a few tokens may follow at each place. A policy
that is sampled under that rule has its probabilities among those tokens. To learn from it with the probabilities of the
free model would put a wrong ratio on every token. For example, for rows {"prompt": chat messages, "passage": text}:

    quotes = ConstrainedQuotes(tokenizer, rows)
    answers = quotes.sample(model, prompts, max_tokens=48, temperature=1.0)    # tokens, each to its end mark
    quotes.log_probabilities(logits, tokens, seen)    # of the answers' tokens among those that may follow

`OnlyQuotes` brings both to TRL's online trainers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from trl import RLOOTrainer

from cuadft.models.quoting import QuotedRow, Quoting, places_of
from cuadft.models.verbatim import Choices, QuoteSource, Vocabulary

CHOICES_HELD = 64  # passages of which the tokens that may follow are kept


class ConstrainedQuotes:
    """The quotes that a model may write to each of the prompts; refusals are not among them."""

    def __init__(self, tokenizer: Any, rows: Sequence[Mapping[str, Any]]) -> None:
        self.tokenizer, self.end = tokenizer, tokenizer.eos_token_id
        self.pad = tokenizer.pad_token_id
        self._vocabulary, self._passages = Vocabulary.of(tokenizer), {}
        for row in rows:
            prompt = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=False)
            self._passages[tuple(prompt)] = row["passage"]
        self._choices = lru_cache(CHOICES_HELD)(lambda text: Choices(QuoteSource(text), self._vocabulary))

    @torch.no_grad()
    def sample(
        self, model: Any, prompts: Sequence[Sequence[int]], *, max_tokens: int, temperature: float
    ) -> list[list[int]]:
        """Return the tokens of an answer to each prompt, the last of them the end mark unless the answer was cut.

        A prompt that is there several times runs through the model once.
        """
        unique = list(dict.fromkeys(map(tuple, prompts)))
        width, device = max(map(len, unique)), model.device
        ids = torch.tensor([[self.pad] * (width - len(p)) + list(p) for p in unique], device=device)
        mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in unique], device=device)
        place = {prompt: number for number, prompt in enumerate(unique)}
        row_of = torch.tensor([place[tuple(prompt)] for prompt in prompts], device=device)
        rows = [self._new_row(prompt) for prompt in prompts]

        def scores_of(columns: list[int], kept: int, **given: Any) -> Tensor:
            return model(**given, use_cache=True, logits_to_keep=kept).logits[..., columns].float()

        training = model.training
        model.eval()  # gradient checkpointing, which training mode turns on, keeps no cache
        cache = DynamicCache(config=model.config)
        first = {"attention_mask": mask[:, :-1], "position_ids": places_of(mask)[:, :-1]}
        model(ids[:, :-1], **first, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache.batch_select_indices(row_of)
        quoting = Quoting(rows, self.tokenizer, [self.end], scores_of)
        quoting.write(ids[row_of][:, -1:], mask[row_of], cache, max_tokens, temperature)
        model.train(training)
        return [row.tokens + [self.end] * row.ended for row in rows]

    def _new_row(self, prompt: Sequence[int]) -> QuotedRow:
        choices = self._choices(self._passages[tuple(prompt)])
        return QuotedRow(choices, choices.grammar.start)

    def log_probabilities(self, logits: Tensor, tokens: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Return log-probability and entropy of each token of the answers among the tokens that may follow.

        logits: (rows, answer tokens, vocabulary). tokens, seen: (rows, all tokens), prompts padded on the left and
        answers on the right; seen is 0 on padding. Behind an answer's end, where nothing counts, all tokens may follow.
        """
        width = logits.shape[1]
        barred = torch.zeros_like(logits, dtype=torch.bool)
        for number, (row, own) in enumerate(zip(tokens.tolist(), seen.bool().tolist(), strict=True)):
            prompt = [token for token, on in zip(row[:-width], own[:-width]) if on]
            answer = [token for token, on in zip(row[-width:], own[-width:]) if on]
            for place, allowed in enumerate(self._followers(prompt, answer)):
                barred[number, place] = True
                barred[number, place, allowed] = False
        every = logits.masked_fill(barred, -torch.inf).log_softmax(-1)
        entropy = -(every.exp() * every.masked_fill(barred, 0.0)).sum(-1)
        return every.gather(-1, tokens[:, -width:, None])[..., 0], entropy

    def _followers(self, prompt: Sequence[int], answer: Sequence[int]) -> list[list[int]]:
        """Return the tokens that may stand at each place of an answer."""
        row, found = self._new_row(prompt), []
        for token in answer:
            row.look_ahead(self.tokenizer, 0, [self.end])
            found.append(row.paths[0])
            row.add(token, 0.0, [self.end])
        return found


class OnlyQuotes:
    """What RLOO's and GRPO's trainers of TRL do differently with `quotes`, to be put before them in a class."""

    quotes: ConstrainedQuotes

    def _generate_single_turn(self, prompt_ids: list[list[int]], *_: Any, **__: Any) -> Any:
        model = self.accelerator.unwrap_model(self.model_wrapped)
        settings = {"max_tokens": self.max_completion_length, "temperature": self.temperature}
        made = self.quotes.sample(model, prompt_ids, **settings)
        return made if isinstance(self, RLOOTrainer) else (made, None)  # GRPO's also takes log-probabilities

    def _get_per_token_logps_and_entropies(
        self,
        model: Any,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        compute_entropy: bool = False,
        **_: Any,
    ) -> tuple[Tensor, Tensor | None, None]:
        found, size = [], batch_size or len(input_ids)
        for ids, seen in zip(input_ids.split(size), attention_mask.split(size), strict=True):
            out = model(ids, attention_mask=seen, use_cache=False, logits_to_keep=logits_to_keep + 1)
            logits = out.logits[:, :-1].float() / self.temperature
            found.append(self.quotes.log_probabilities(logits, ids, seen))
        logps, entropies = (torch.cat(parts) for parts in zip(*found, strict=True))
        return logps, entropies if compute_entropy else None, None
