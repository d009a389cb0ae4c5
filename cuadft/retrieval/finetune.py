"""Fine-tune the embedder by contrast: a question moves towards a passage that answers it, away from the others.

`finetune_embedder` trains with sentence-transformers' trainer, on planned batches, and keeps the weights of the step
that did best on dev. `DevHits` measures that: whether dev questions find their passages. For example:

    own = passages_by_contract(passages)  # of training and dev contracts
    examples = make_triples(train_rows, own, negatives_from=[retriever])
    record = finetune_embedder(start, examples, folder, evaluate=DevHits(dev_rows, own))
    record["before"]["dev_hit@1"], record["best"]["dev_hit@1"]
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cuadft.core import progress
from cuadft.core.errors import InputError
from cuadft.core.files import read_json, value_hash, write_json
from cuadft.data.passages import Passage
from cuadft.data.rows import passages_by_contract
from cuadft.models import weights
from cuadft.models.generator import best_dtype
from cuadft.retrieval.embedder import Embedder
from cuadft.retrieval.measure import evaluate_retriever
from cuadft.retrieval.triples import PlannedBatches, batch_schedule
from cuadft.training.resume import STATE, last_checkpoint, run_training

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer

    from cuadft.data.contracts import Row

    Evaluate = Callable[[SentenceTransformer], dict[str, float]]


WATCHED_METRIC = "dev_hit@1"  # the weights of the step with its largest value are kept
EVALUATIONS = 4  # looks at dev, and checkpoints, in a training
START_METRICS = "before.json"  # in the work folder: what `evaluate` says of the start
TRAINER_TIMES = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")  # logged beside the metrics
DEV_PASSAGES = 800  # embedded at each evaluation; more passages cost training time and add little certainty
# BERT and its relatives name the dropout on attention weights so; attention.output.dropout is another dropout.
ATTENTION_DROPOUT = re.compile(r"attention(\.(self|attn))?\.dropout$")


def finetune_embedder(
    start: Path | str,
    triples: Sequence[Mapping[str, Any]],
    out: Path | str,
    *,
    evaluate: Evaluate,
    steps: int,
    batch_size: int,
    eval_steps: int,
    learning_rate: float = 1e-4,
    max_length: int = 224,
    patience: int = 3,
    seed: int = 7,
) -> dict[str, Any]:
    """Train the model in `start` on examples of `make_triples`, write the best to `out`, and return its record.

    `out` becomes a plain sentence-transformers folder, with the record in training.json: steps (done), best_step,
    examples, dtype, seconds, passages_per_second and evaluation_seconds (of the call that trained), before and best
    (what `evaluate` returns for the start and at best_step), history (the trainer's log: loss, learning rate and
    eval_<metric> by step) and settings.

    evaluate: called before training, after every `eval_steps` and at the end; a `DevHits`. Training ends when
    dev_hit@1 has not risen `patience` times in a row, and the weights of its best step are exported. The start does not
    compete: compare `before` with `best`. max_length: tokens of a text in training; the exported model keeps its own
    limit. A call that was killed goes on from its last whole checkpoint, to an equal result, if it is repeated with the
    same arguments. A finished training is not repeated.

    The loss is cross-entropy over 20 * cosine of a question with its passage against all other passages of the
    batch: Henderson et al. (2017), "Efficient Natural Language Response Suggestion for Smart Reply", section 4, with
    mined negatives. Raises InputError if `start` is no such folder, and on fewer than 1 step or 2 examples a batch.
    """
    start, out = Path(start), Path(out)
    if not (start / "modules.json").is_file():
        raise InputError(f"No embedding model in '{start}': give the folder of a sentence-transformers model")
    settings = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "max_length": max_length,
        "metric": WATCHED_METRIC,
        "eval_steps": eval_steps,
        "patience": patience,
        "seed": seed,
    }
    plan = batch_schedule(triples, size=batch_size, steps=steps, seed=seed)

    def train(work: Path, new: Path) -> dict[str, Any]:
        with _silent():
            if not (work / START_METRICS).is_file():
                write_json(work / START_METRICS, evaluate(load_embedding_model(start).eval()))
            speed = {} if _finished(work, steps) else _train(start, triples, plan, work, settings, evaluate)
            record = _record(work, plan, speed, settings)
            _export(work / f"checkpoint-{record['best_step']}", new)
        return record

    identity = [[dict(triple) for triple in triples], settings, getattr(evaluate, "key", None)]
    return run_training(train, out, identity=[identity, weights.weights_hash(start)])


class DevHits:
    """Measure a model while it is trained: call it to search, by cosine, for each dev question in its contract.

    Returns dev_hit@k and dev_char_recall@k for each k, means over the answerable rows (see
    `measure.evaluate_retriever`). `key` is the hash of the rows, passages and ks.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        passages_by_contract: Mapping[str, Sequence[Passage]],
        *,
        ks: Sequence[int] = (1, 3),
        most: int = DEV_PASSAGES,
        seed: int = 7,
    ):
        """Draw contracts by the seed until they have `most` passages; long contracts come last.

        A contract longer than the median costs many passages a question. Raises InputError if no row is answerable.
        """
        rows = [row for row in rows if row["answers"]]
        titles = sorted({row["contract"] for row in rows})
        if not titles:
            raise InputError("No answerable dev row to measure the embedder on: give dev rows that have gold spans")
        if missing := [title for title in titles if not passages_by_contract.get(title)]:
            raise InputError(f"Dev contract {missing[0]!r} has no passages: cut it first")
        self.passages: list[Passage] = []
        sizes = {title: len(passages_by_contract[title]) for title in titles}
        middle = median(sizes.values())
        drawn = random.Random(seed).sample(titles, len(titles))
        for title in sorted(drawn, key=lambda title: sizes[title] > middle):  # stable: drawn order within each half
            if not self.passages or len(self.passages) + sizes[title] <= most:
                self.passages += passages_by_contract[title]
        used = {passage.contract for passage in self.passages}
        self.rows, self.ks = [row for row in rows if row["contract"] in used], tuple(ks)
        self.key = value_hash([self.rows, [astuple(passage) for passage in self.passages], self.ks])

    def __call__(self, model: SentenceTransformer) -> dict[str, float]:
        from cuadft.retrieval.retriever import Retriever

        retriever = Retriever(self.passages, _ModelAsEmbedder(model), mode="dense")
        means = pd.DataFrame(evaluate_retriever(retriever, self.rows, self.ks)).groupby("k").mean(numeric_only=True)
        return {f"dev_{name}@{k}": float(means.at[k, name]) for name in ("hit", "char_recall") for k in self.ks}


class _ModelAsEmbedder:
    """Stand in for `Embedder`, whose cache is named by the weights: here they change with every step."""

    key = ""

    def __init__(self, model: SentenceTransformer) -> None:
        self._model = model

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        """Return unit vectors, float32 of shape (len(texts), d), computed in the precision of the training."""
        import torch

        reduced = best_dtype() != torch.float32
        with torch.autocast(self._model.device.type, dtype=torch.bfloat16, enabled=reduced):
            vectors = self._model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
        return np.asarray(vectors, np.float32)


def load_embedding_model(folder: Path) -> SentenceTransformer:
    """Load a sentence-transformers folder, never from the hub."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), local_files_only=True, trust_remote_code=False)


def make_trainer(
    start: Path,
    triples: Sequence[Mapping[str, Any]],
    plan: Sequence[Sequence[int]],
    work: Path,
    settings: Mapping[str, Any],
    evaluate: Evaluate,
) -> SentenceTransformerTrainer:
    """Return the trainer of the model in `start`; `plan` holds the batches, as indexes of triples."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer
    from sentence_transformers.base.evaluation import BaseEvaluator
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from transformers import EarlyStoppingCallback

    class Trainer(SentenceTransformerTrainer):
        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """Add no such callback: it embeds examples for a card that is not exported."""

    class Evaluator(BaseEvaluator):
        def __call__(self, model: SentenceTransformer, *_: Any, **__: Any) -> dict[str, float]:
            return evaluate(model.eval())

    model = load_embedding_model(start)
    without_attention_dropout(model)
    model.model_card_data.generate_widget_examples = False  # for the checkpoints' cards
    columns = {"anchor": "query", "positive": "positive", "negative": "negative"}
    trainer = Trainer(
        model=model,
        args=_arguments(work, plan, settings),
        loss=MultipleNegativesRankingLoss(model),
        train_dataset=Dataset.from_dict({column: [t[name] for t in triples] for column, name in columns.items()}),
        evaluator=Evaluator(),
        callbacks=[EarlyStoppingCallback(settings["patience"])],
    )
    trainer.data_collator.max_length = settings["max_length"]  # in training only: the model keeps its own limit
    return trainer


def without_attention_dropout(model: SentenceTransformer) -> int:
    """Turn off the dropout on attention weights, and return in how many layers; all other dropout stays.

    PyTorch's fused attention on CPU has no dropout. With it attention falls back to the plain formula and draws a
    random number per head and pair of tokens, which takes as long as all the rest of a training step. The saved
    configuration keeps it.
    """
    from torch.nn import Dropout

    modules = [module for name, module in model.named_modules() if ATTENTION_DROPOUT.search(name)]
    found = [module for module in modules if isinstance(module, Dropout)]
    for module in found:
        module.p = 0.0
    return len(found)


def _arguments(work: Path, plan: Sequence[Sequence[int]], settings: Mapping[str, Any]) -> Any:
    import torch
    from sentence_transformers import SentenceTransformerTrainingArguments

    return SentenceTransformerTrainingArguments(
        output_dir=str(work),
        max_steps=len(plan),
        per_device_train_batch_size=settings["batch_size"],
        batch_sampler=partial(PlannedBatches, plan),
        learning_rate=settings["learning_rate"],
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        seed=settings["seed"],
        bf16=best_dtype() == torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="steps",
        eval_steps=settings["eval_steps"],
        load_best_model_at_end=True,
        metric_for_best_model=WATCHED_METRIC,
        greater_is_better=True,
        save_strategy="steps",
        save_steps=settings["eval_steps"],
        save_total_limit=2,
        logging_steps=max(1, len(plan) // 50),
        restore_callback_states_from_checkpoint=True,
        report_to="none",
        disable_tqdm=bool(os.environ.get("CUADFT_PLAIN")),
    )


def _finished(work: Path, steps: int) -> bool:
    """Tell whether the last whole checkpoint is the last step's, or that of the evaluation that ended the training."""
    if (last := last_checkpoint(work)) is None:
        return False
    state = read_json(Path(last) / STATE)
    stopped = state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]
    return stopped or state["global_step"] >= steps


def _train(
    start: Path,
    triples: Sequence[Mapping[str, Any]],
    plan: Sequence[Sequence[int]],
    work: Path,
    settings: Mapping[str, Any],
    evaluate: Evaluate,
) -> dict[str, Any]:
    """Run the trainer to its end; return the seconds of this call, without evaluations, and passages per second."""
    last = last_checkpoint(work)
    done = int(last.rsplit("-", 1)[1]) if last else 0
    trainer = make_trainer(start, triples, plan, work, settings, evaluate)
    progress.watch_trainer(trainer, "retriever")
    whole = trainer.train(resume_from_checkpoint=last).metrics["train_runtime"]
    log = trainer.state.log_history
    evaluations = sum(entry.get("eval_runtime", 0.0) for entry in log if entry["step"] > done)
    passages = 2 * sum(map(len, plan[done : trainer.state.global_step]))
    return {
        "seconds": round(whole - evaluations, 1),
        "passages_per_second": round(passages / (whole - evaluations), 1),
        "evaluation_seconds": round(evaluations, 1),
    }


def _record(
    work: Path, plan: Sequence[Sequence[int]], speed: Mapping[str, Any], settings: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what the last checkpoint says of the training."""
    state = read_json(Path(last_checkpoint(work)) / STATE)
    done, best, history = state["global_step"], state["best_global_step"], state["log_history"]
    logged = {name: value for entry in history if entry["step"] == best for name, value in entry.items()}
    return {
        "steps": done,
        "best_step": best,
        "examples": sum(map(len, plan[:done])),
        "dtype": str(best_dtype()).split(".")[1],
        **speed,
        "before": read_json(work / START_METRICS),
        "best": {
            name.removeprefix("eval_"): value
            for name, value in logged.items()
            if name.startswith("eval_") and name not in TRAINER_TIMES
        },
        "history": history,
        "settings": dict(settings),
    }


def _export(checkpoint: Path, folder: Path) -> None:
    load_embedding_model(checkpoint).save_pretrained(str(folder), create_model_card=False)


@contextmanager
def _silent() -> Iterator[None]:
    """Hide the bars for every file that is read or written, besides what `progress.quiet` hides."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        with progress.quiet():
            yield
    finally:
        if shown:
            logging.enable_progress_bar()


def train_embedder(
    embed: Embedder,
    examples: Sequence[Mapping[str, Any]],
    out: Path,
    *,
    rows: Sequence[Row],
    passages: Sequence[Passage],
    steps: int,
    batch_size: int,
    seed: int,
    dtype: str,
) -> tuple[Embedder, dict[str, Any]]:
    """Fine-tune an embedder into the folder `out`; return the embedder to search with, and the record of the training.

    rows, passages: dev questions and the passages of their contracts, by which the best step is chosen. The given
    embedder is returned if no step found more dev clauses at rank 1 than it finds itself.
    """
    evaluate, eval_steps = DevHits(rows, passages_by_contract(passages)), max(1, steps // EVALUATIONS)
    record = finetune_embedder(
        embed.path,
        examples,
        out,
        evaluate=evaluate,
        steps=steps,
        batch_size=batch_size,
        eval_steps=eval_steps,
        seed=seed,
    )
    if record["best"][WATCHED_METRIC] > record["before"][WATCHED_METRIC]:
        embed = Embedder(out, cache_dir=weights.cache_dir(), dtype=dtype)
    return embed, record
