"""The rule of verbatim quotes as a logits processor of transformers: one token a step, over the whole vocabulary.

The package writes quotes another way (`cuadft.models.quoting`); this one is plain enough to measure it by.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from cuadft.models.verbatim import Choices, QuoteSource, Vocabulary


class VerbatimLogits:
    """A logits processor that lets each row write only what its source allows; a row without a source writes freely.

    width: tokens of a prompt; what follows them in `input_ids` is the answer. end_marks: ids that end an answer. For
    greedy search or sampling, which never change the order of rows; one object serves one call of `generate`.
    """

    def __init__(
        self, sources: Sequence[QuoteSource | None], vocabulary: Vocabulary, end_marks: Collection[int], width: int
    ) -> None:
        made = {source: Choices(source, vocabulary) for source in set(sources) if source is not None}
        self._open = {i: made[source] for i, source in enumerate(sources) if source is not None}  # rows to constrain
        self._states = {i: choices.grammar.start for i, choices in self._open.items()}
        self.end_marks, self.width = sorted(end_marks), width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores (rows, ids) with -inf for every token that is not allowed."""
        if input_ids.shape[1] > self.width:
            self._advance(input_ids[:, -1].tolist())
        allowed = {i: self.allowed(i) for i in self._open}
        rows = [i for i, tokens in allowed.items() for _ in tokens]
        rows, columns = torch.tensor(
            [rows, [token for tokens in allowed.values() for token in tokens]], dtype=torch.long, device=scores.device
        )
        masked = scores.clone()
        masked[list(allowed)] = float("-inf")
        masked[rows, columns] = scores[rows, columns]
        return masked

    def allowed(self, row: int) -> list[int]:
        """Return the ids that may follow in a row with a source, some perhaps twice."""
        choices, state = self._open[row], self._states[row]
        tokens = choices.allowed(state)
        # Without any token there is nothing to quote and no refusal: the answer ends before it starts.
        return tokens + self.end_marks if not tokens or choices.grammar.may_end(state) else tokens

    def _advance(self, tokens: list[int]) -> None:
        for i, choices in list(self._open.items()):
            if tokens[i] in self.end_marks:
                del self._open[i]  # what follows is padding
                continue
            self._states[i] = choices.advance(self._states[i], tokens[i])
            if not self._states[i].places:
                raise RuntimeError(f"Row {i} went on with token {tokens[i]}, which its source does not allow.")
