"""Sentence-transformers' trainer as `cuadft.contrastive` needs it: planned batches, dev metric, fast on CPU."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.batches import Planned
from cuadft.errors import InputError
from cuadft.generator import best_dtype

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers.base.evaluation import BaseEvaluator

COLUMNS = {"query": "anchor", "positive": "positive", "negative": "negative"}
# The dropout on attention weights, as BERT and its kin name it; attention.output.dropout is another one.
_ATTENTION = re.compile(r"attention(\.(self|attn))?\.dropout$")


class Watched:
    """Call `evaluate`, check what it returns, and add up the seconds that it takes."""

    def __init__(self, evaluate: Callable[[SentenceTransformer], dict[str, float]] | None, metric: str) -> None:
        self.evaluate, self.metric, self.seconds = evaluate, metric, 0.0

    def __call__(self, model: SentenceTransformer) -> dict[str, float]:
        """Return the metrics of a model; raises InputError if the one to watch is missing or no finite number."""
        began, training = time.monotonic(), model.training
        measured = {name: float(value) for name, value in self.evaluate(model.eval()).items()}
        model.train(training)
        self.seconds += time.monotonic() - began
        if self.metric not in measured:
            raise InputError(f"Unknown metric {self.metric!r}: `evaluate` returns {', '.join(measured)}")
        if not math.isfinite(measured[self.metric]):
            raise InputError(f"The metric {self.metric!r} is {measured[self.metric]}: give dev rows with gold spans")
        return measured


def load(folder: Path) -> SentenceTransformer:
    """Load a sentence-transformers folder, never from the hub."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), local_files_only=True, trust_remote_code=False)


def make(start: Path, triples: Sequence[Mapping[str, Any]], plan: Sequence[Sequence[int]], work: Path,
         settings: Mapping[str, Any], watch: Watched) -> SentenceTransformerTrainer:  # fmt: skip
    """Return the trainer of the model in `start`; `plan` are the batches, as indexes of triples."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import EarlyStoppingCallback

    class Trainer(SentenceTransformerTrainer):
        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """Do without: it embeds examples for a card that isn't exported."""

    model = load(start)
    without_attention_dropout(model)
    model.model_card_data.generate_widget_examples = False  # for the checkpoints' cards
    evaluated = watch.evaluate is not None
    trainer = Trainer(
        model=model, args=_arguments(work, plan, settings, evaluated), loss=MultipleNegativesRankingLoss(model),
        train_dataset=Dataset.from_dict({column: [t[name] for t in triples] for name, column in COLUMNS.items()}),
        evaluator=_evaluator(watch) if evaluated else None,
        callbacks=[EarlyStoppingCallback(settings["patience"])] if evaluated else [],
    )  # fmt: skip
    trainer.data_collator.max_length = settings["max_length"]  # in training only: the model keeps its own
    return trainer


def _arguments(work: Path, plan: Sequence[Sequence[int]], settings: Mapping[str, Any], evaluated: bool) -> Any:
    import torch
    from sentence_transformers import SentenceTransformerTrainingArguments

    dev = {"eval_strategy": "steps", "eval_steps": settings["eval_steps"], "load_best_model_at_end": True,
           "metric_for_best_model": settings["metric"], "greater_is_better": True}  # fmt: skip
    return SentenceTransformerTrainingArguments(
        output_dir=str(work), max_steps=len(plan), per_device_train_batch_size=settings["batch_size"],
        batch_sampler=partial(Planned, plan), learning_rate=settings["learning_rate"], lr_scheduler_type="cosine",
        warmup_steps=0.1, seed=settings["seed"], bf16=best_dtype() == torch.bfloat16,
        use_cpu=not torch.cuda.is_available(), save_strategy="steps", save_steps=settings["eval_steps"],
        save_total_limit=2, logging_steps=max(1, len(plan) // 50), restore_callback_states_from_checkpoint=True,
        report_to="none", disable_tqdm=bool(os.environ.get("CUADFT_PLAIN")), **(dev if evaluated else {}),
    )  # fmt: skip


def without_attention_dropout(model: SentenceTransformer) -> int:
    """Turn off the dropout on attention weights, and return in how many layers; all other dropout stays.

    PyTorch's fused attention on CPU has no dropout. With it attention falls back to the plain formula and draws a
    random number per head and pair of tokens, which takes as long as all the rest of a training step. The saved
    configuration keeps it.
    """
    from torch.nn import Dropout

    modules = [module for name, module in model.named_modules() if _ATTENTION.search(name)]
    found = [module for module in modules if isinstance(module, Dropout)]
    for module in found:
        module.p = 0.0
    return len(found)


def _evaluator(watch: Watched) -> BaseEvaluator:
    from sentence_transformers.base.evaluation import BaseEvaluator

    class Evaluator(BaseEvaluator):
        def __call__(self, model: SentenceTransformer, *_: Any, **__: Any) -> dict[str, float]:
            return watch(model)

    return Evaluator()
