"""The rule of the gate: what a candidate must show before it replaces the champion, fixed before the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from cuadft.errors import InputError
from cuadft.metrics import METRICS
from cuadft.params import nearest

LIMITS = {"gain": 1.0, "slice_margin": 1.0, "category_margin": 1.0, "false_answers": 1.0, "failures": 1.0}  # greatest values
CLAUSES = ("improvement", "slices", "categories", "false_answers", "failures", "prompt_tokens", "seconds")


@dataclass(frozen=True)
class Rule:
    """Hold the clauses' limits; raises InputError on an unknown metric, one where less is better, or a limit out of range.

    metric: what must improve, and may not get worse; gain: by how much, on dev; slice_margin: a loss on an earlier slice
    that would still be tolerated, and which must be ruled out; category_margin: the same per category, where a greater loss
    must not be shown; false_answers, failures: greatest shares; prompt_tokens, seconds: greatest means per question (0: any).
    """

    metric: str = "f1"
    gain: float = 0.0
    slice_margin: float = 0.1
    category_margin: float = 0.1
    false_answers: float = 1.0
    failures: float = 0.05
    prompt_tokens: float = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        good = [name for name, (_, more_is_better) in METRICS.items() if more_is_better]
        if self.metric not in good:
            raise InputError(f"Invalid gate_metric {self.metric!r}{nearest(self.metric, good)}: choose one of "
                             f"{', '.join(good)}.")  # fmt: skip
        for field in fields(self)[1:]:
            value, most = getattr(self, field.name), LIMITS.get(field.name, float("inf"))
            if not 0 <= value <= most:
                allowed = f"a number from 0 to {most:g}" if most < float("inf") else "a number from 0"
                raise InputError(f"Invalid gate_{field.name} {value!r}: give {allowed}.")

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Rule:
        """Return the rule of a notebook's parameters: those whose names start with gate_.

        Raises InputError also if it is to go by an LLM judge and `judge_lm` names none.
        """
        if parameters.get("gate_metric") == "judge_score" and parameters.get("judge_lm") == "":
            raise InputError("gate_metric judge_score needs a judge: set judge_lm, or take reference_score, the offline one.")
        names = {f"gate_{field.name}": field.name for field in fields(cls)}
        return cls(**{names[key]: value for key, value in parameters.items() if key in names})
