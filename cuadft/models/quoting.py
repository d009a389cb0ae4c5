"""Quotes several tokens a pass: what a model quotes goes on in its source, so that the source itself is the draft.

At each place the next tokens of the source go through the model together with the last token. The model's own choice
decides how many of them hold, and the first one that it prefers to the draft is kept too. The answers are those that
one token a pass would give, greedy or sampled. This is speculative decoding (Leviathan et al., 2023, section 2) with a
draft that costs nothing, as in prompt lookup decoding. Only the tokens that a source allows get a score.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cuadft.models.verbatim import Choices, State

if TYPE_CHECKING:
    import torch


DRAFT = 12  # tokens of a draft
CHARS_A_TOKEN = 8  # of the source that are tokenised for each token of a draft; a longer word ends the draft


@dataclass
class QuotedRow:
    """One answer on its way: its tokens, their log-probabilities, and whether the end mark was chosen."""

    choices: Choices
    state: State
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False
    draft: list[int] = field(default_factory=list)
    paths: list[list[int]] = field(default_factory=list)  # ids that may follow after 0, 1, ... tokens of the draft

    def is_done(self, most: int) -> bool:
        """Tell whether nothing is to be added."""
        return self.ended or len(self.tokens) >= most

    def look_ahead(self, tokenizer: Any, most: int, ends: Collection[int]) -> None:
        """Draft up to `most` tokens with which the source goes on, as far as they are allowed, and set the paths."""
        self.draft, self.paths, state = [], [], self.state
        for token in [*self._next_tokens(tokenizer, most), None]:
            allowed = set(self.choices.allowed(state))
            # Without any token there is nothing to quote and no refusal: the answer ends before it starts.
            may_end = not allowed or self.choices.grammar.may_end(state)
            self.paths.append(sorted({*allowed, *(ends if may_end else ())}))
            if token not in allowed:
                break
            self.draft.append(token)
            state = self.choices.advance(state, token)

    def _next_tokens(self, tokenizer: Any, most: int) -> list[int]:
        rest = self.choices.grammar.rest_of_line(self.state)[: CHARS_A_TOKEN * most]
        if not rest:
            return []
        tokens = tokenizer(rest.decode("utf-8", "ignore"), add_special_tokens=False)["input_ids"]
        return tokens[:most]

    def add(self, token: int, logprob: float, ends: Collection[int]) -> None:
        """Add a chosen token, or the end mark."""
        self.logprobs.append(logprob)
        self.ended = token in ends
        if not self.ended:
            self.tokens.append(token)
            self.state = self.choices.advance(self.state, token)


class Quoting:
    """The rows of a batch that are still written, with their cache.

    scores_of: called with ids of tokens, a number and the model's inputs, returns scores (rows, that number of last
    inputs, ids).
    """

    def __init__(self, rows: Sequence[QuotedRow], tokenizer: Any, ends: Sequence[int], scores_of: Any) -> None:
        self.rows, self.tokenizer, self.ends, self.scores_of = list(rows), tokenizer, sorted(ends), scores_of

    def write(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any, most: int, temperature: float) -> None:
        """Write all rows to their end, of at most `most` tokens.

        ids (rows, tokens): the prompts' tokens that `cache` does not hold, padded on the left. mask (rows, all tokens):
        1 for tokens, 0 for padding.
        """
        import torch

        # A window of attention would count drafted tokens that did not hold.
        draft = 0 if any(getattr(cache, "is_sliding", ())) else DRAFT
        pad, kept = self.tokenizer.pad_token_id, 1
        self._look_ahead(0, most)
        while True:
            places = places_of(mask)[:, -ids.shape[1] :]
            holds = self._choose(
                temperature, kept, input_ids=ids, attention_mask=mask, position_ids=places, past_key_values=cache
            )
            mask[:, mask.shape[1] - kept :] *= holds.to(mask.device)
            going = [place for place, row in enumerate(self.rows) if not row.is_done(most)]
            if not going:
                return
            if len(going) < len(self.rows):
                self.rows, mask = [self.rows[place] for place in going], mask[going]
                cache.batch_select_indices(torch.tensor(going, device=mask.device))
            self._look_ahead(draft, most)
            kept = 1 + max(len(row.draft) for row in self.rows)
            given = [[row.tokens[-1], *row.draft] for row in self.rows]
            ids = mask.new_tensor([tokens + [pad] * (kept - len(tokens)) for tokens in given])
            more = mask.new_tensor([[1] * len(tokens) + [0] * (kept - len(tokens)) for tokens in given])
            mask = torch.cat([mask, more], dim=1)

    def _look_ahead(self, draft: int, most: int) -> None:
        for row in self.rows:
            row.look_ahead(self.tokenizer, min(draft, most - len(row.tokens) - 1), self.ends)

    def _choose(self, temperature: float, kept: int, **given: Any) -> torch.Tensor:
        """Add to each row what holds of its draft and one more token; return (rows, kept), 1 where it holds."""
        import torch

        columns = sorted({token for row in self.rows for allowed in row.paths for token in allowed})
        column_of = {token: place for place, token in enumerate(columns)}
        scores = self.scores_of(columns, kept, **given).cpu()
        holds = torch.ones(len(self.rows), kept, dtype=torch.long)
        for number, row in enumerate(self.rows):
            for place, (allowed, drafted) in enumerate(zip(row.paths, [*row.draft, None], strict=True)):
                of_allowed = scores[number, place, [column_of[token] for token in allowed]] / (temperature or 1.0)
                logprobs = of_allowed.log_softmax(-1)
                best = int(logprobs.exp().multinomial(1) if temperature else logprobs.argmax())
                row.add(allowed[best], float(logprobs[best]), self.ends)
                if row.ended or allowed[best] != drafted:
                    break
            holds[number, place + 1 :] = 0
        return holds


def places_of(mask: torch.Tensor) -> torch.Tensor:
    """Return the place of each token in its row, padding left out of the count; mask: 1 for tokens, 0 for padding."""
    return (mask.cumsum(1) - 1).clamp(min=0)
