"""Fine-tune the embedder by contrast: a question moves towards a passage that answers it, away from the others.

`finetune_embedder` trains with sentence-transformers' trainer, on planned batches, and keeps the weights of the step
that did best on dev. `DevHits` measures that: whether dev questions find their passages. For example:

    own = passages_by_contract(passages)  # of training and dev contracts
    examples = make_triples(train_rows, own, negatives_from=[retriever])
    settings = {"steps": 240, "batch_size": 20, "eval_steps": 60}
    record = finetune_embedder(start, examples, folder, evaluate=DevHits(dev_rows, own), **settings)
    record["before"]["dev_hit@1"], record["best"]["dev_hit@1"]
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

from cuadft.core import progress
from cuadft.core.files import read_json, value_hash, write_json
from cuadft.data.passages import Passage
from cuadft.data.rows import passages_by_contract
from cuadft.models import weights
from cuadft.models.generator import best_dtype
from cuadft.retrieval.embedder import Embedder
from cuadft.retrieval.measure import evaluate_retriever
from cuadft.retrieval.retriever import Retriever
from cuadft.retrieval.triples import batch_schedule
from cuadft.training.resume import STATE, last_checkpoint, run_training

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer

    from cuadft.data.contracts import Row


WATCHED_METRIC = "dev_hit@1"  # the weights of the step with its largest value are kept
EVALUATIONS = 4  # looks at dev, and checkpoints, in a training
START_METRICS = "before.json"  # in the work folder: what `evaluate` says of the start
DEV_PASSAGES = 800  # embedded at each evaluation; more passages cost training time and add little certainty
TEXTS = ("query", "positive", "negative")  # of an example, in the order in which the loss takes them
# BERT and its relatives name the dropout on attention weights so; attention.output.dropout is another dropout.
ATTENTION_DROPOUT = re.compile(r"attention(\.(self|attn))?\.dropout$")


@dataclass(frozen=True)
class Tuning:
    """Settings of a training: dev is looked at after every `eval_steps`, `max_length` is in tokens of a text.

    The exported model keeps its own length.
    """

    steps: int
    batch_size: int
    eval_steps: int
    learning_rate: float = 1e-4
    max_length: int = 224
    seed: int = 7


def train_embedder(
    embed: Embedder,
    examples: Sequence[Mapping[str, Any]],
    out: Path,
    *,
    rows: Sequence[Row],
    passages: Sequence[Passage],
    steps: int,
    dtype: str,
    **settings: Any,
) -> tuple[Embedder, dict[str, Any]]:
    """Fine-tune an embedder into the folder `out`; return the embedder to search with, and the record of the training.

    rows, passages: dev questions and the passages of their contracts, by which the best step is chosen. The given
    embedder is returned if no step found more dev clauses at rank 1 than it finds itself. settings: those of `Tuning`.
    """
    settings |= {"steps": steps, "eval_steps": max(1, steps // EVALUATIONS)}
    evaluate = DevHits(rows, passages_by_contract(passages))
    record = finetune_embedder(embed.path, examples, out, evaluate=evaluate, **settings)
    if record["best"][WATCHED_METRIC] > record["before"][WATCHED_METRIC]:
        embed = Embedder(out, cache_dir=weights.cache_dir(), dtype=dtype)
    return embed, record


def finetune_embedder(
    start: Path, triples: Sequence[Mapping[str, Any]], out: Path, *, evaluate: DevHits, **settings: Any
) -> dict[str, Any]:
    """Train the model in `start` on examples of `make_triples`, write the best to `out`, and return its record.

    `out` becomes a plain sentence-transformers folder, with the record in training.json: steps (done), best_step,
    examples, before and best (what `evaluate` returns for the start and at best_step), history (the trainer's log:
    loss, learning rate and eval_<metric> by step) and settings.

    evaluate: called before training, after every `eval_steps` and at the end. The start does not compete: compare
    `before` with `best`. settings: those of `Tuning`. A call that was killed goes on from its last whole checkpoint, to
    an equal result, if it is repeated with the same arguments. A finished training is not repeated.

    The loss is cross-entropy over 20 * cosine of a question with its passage against all other passages of the
    batch: Henderson et al. (2017), "Efficient Natural Language Response Suggestion for Smart Reply", section 4, with
    mined negatives. Raises InputError as `batch_schedule`.
    """
    from transformers.utils import logging

    tuning = Tuning(**settings)
    plan = batch_schedule(triples, size=tuning.batch_size, steps=tuning.steps, seed=tuning.seed)

    def train(work: Path, new: Path) -> dict[str, Any]:
        logging.disable_progress_bar()  # one for every file that is read or written
        with progress.quiet():
            if not (work / START_METRICS).is_file():
                write_json(work / START_METRICS, evaluate(load_embedding_model(start).eval()))
            last = last_checkpoint(work)
            if last is None or not last.endswith(f"-{tuning.steps}"):  # a killed call may have done all steps
                trainer = make_trainer(start, triples, plan, work, tuning, evaluate)
                progress.watch_trainer(trainer, "retriever")
                trainer.train(resume_from_checkpoint=last)
            record = _record(work, plan) | {"settings": asdict(tuning)}
            _export(work / f"checkpoint-{record['best_step']}", new)
        return record

    identity = [[dict(triple) for triple in triples], asdict(tuning), evaluate.key]
    return run_training(train, out, identity=[identity, weights.weights_hash(start)])


class DevHits:
    """Measure a model while it is trained: call it to search, by cosine, for each dev question in its contract.

    Returns dev_hit@k and dev_char_recall@k for each k, means over the answerable rows (see
    `measure.evaluate_retriever`). `key` is the hash of the rows, passages and ks.
    """

    ks = (1, 3)

    def __init__(
        self, rows: Sequence[Row], passages: Mapping[str, Sequence[Passage]], *, most: int = DEV_PASSAGES, seed: int = 7
    ):
        """Draw contracts of answerable rows by the seed until they have `most` passages; long contracts come last.

        passages: those of each contract. A contract longer than the median costs many passages a question.
        """
        titles = sorted({row["contract"] for row in rows if row["answers"]})
        sizes = {title: len(passages[title]) for title in titles}
        middle = median(sizes.values())
        drawn = random.Random(seed).sample(titles, len(titles))
        self.passages: list[Passage] = []
        for title in sorted(drawn, key=lambda title: sizes[title] > middle):  # stable: drawn order within each half
            if not self.passages or len(self.passages) + sizes[title] <= most:
                self.passages += passages[title]
        used = {passage.contract for passage in self.passages}
        self.rows = [row for row in rows if row["answers"] and row["contract"] in used]
        self.key = value_hash([self.rows, [astuple(passage) for passage in self.passages], self.ks])

    def __call__(self, model: SentenceTransformer, *_: Any) -> dict[str, float]:
        import torch

        def encode(texts: Sequence[str]) -> np.ndarray:
            reduced = best_dtype() != torch.float32  # the precision of the training
            with torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=reduced):
                vectors = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False)
            return np.asarray(vectors, np.float32)

        retriever = Retriever(self.passages, SimpleNamespace(encode=encode), mode="dense")
        means = evaluate_retriever(retriever, self.rows, self.ks).groupby("k").mean(numeric_only=True)
        return {f"dev_{name}@{k}": float(means.at[k, name]) for name in ("hit", "char_recall") for k in self.ks}


def load_embedding_model(folder: Path) -> SentenceTransformer:
    """Load a sentence-transformers folder, never from the hub."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), local_files_only=True, trust_remote_code=False)


def make_trainer(
    start: Path,
    triples: Sequence[Mapping[str, Any]],
    plan: Sequence[Sequence[int]],
    work: Path,
    tuning: Tuning,
    evaluate: DevHits,
) -> SentenceTransformerTrainer:
    """Return the trainer of the model in `start`; `plan` holds the batches, as indexes of triples."""
    from datasets import Dataset
    from sentence_transformers import SentenceTransformerTrainer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    class Trainer(SentenceTransformerTrainer):
        def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
            """Add no such callback: it embeds examples for a card that is not exported."""

        def get_batch_sampler(self, *_: Any, **__: Any) -> Sequence[Sequence[int]]:
            return plan

    model = load_embedding_model(start)
    without_attention_dropout(model)
    model.model_card_data.generate_widget_examples = False  # for the checkpoints' cards
    trainer = Trainer(
        model=model,
        args=_arguments(work, tuning),
        loss=MultipleNegativesRankingLoss(model),
        train_dataset=Dataset.from_dict({name: [triple[name] for triple in triples] for name in TEXTS}),
        evaluator=[evaluate],
    )
    trainer.data_collator.max_length = tuning.max_length  # in training only: the model keeps its own limit
    return trainer


def without_attention_dropout(model: SentenceTransformer) -> None:
    """Turn off the dropout on attention weights; all other dropout stays.

    PyTorch's fused attention on CPU has no dropout. With it attention falls back to the plain formula and draws a
    random number per head and pair of tokens, which takes as long as all the rest of a training step. The saved
    configuration keeps it.
    """
    from torch.nn import Dropout

    for name, module in model.named_modules():
        if ATTENTION_DROPOUT.search(name) and isinstance(module, Dropout):
            module.p = 0.0


def _arguments(work: Path, tuning: Tuning) -> Any:
    import torch
    from sentence_transformers import SentenceTransformerTrainingArguments

    return SentenceTransformerTrainingArguments(
        output_dir=str(work),
        max_steps=tuning.steps,
        per_device_train_batch_size=tuning.batch_size,
        learning_rate=tuning.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        seed=tuning.seed,
        bf16=best_dtype() == torch.bfloat16,
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="steps",
        eval_steps=tuning.eval_steps,
        load_best_model_at_end=True,
        metric_for_best_model=WATCHED_METRIC,
        greater_is_better=True,
        save_strategy="steps",
        save_steps=tuning.eval_steps,
        save_total_limit=2,
        logging_steps=max(1, tuning.steps // 50),
        restore_callback_states_from_checkpoint=True,
        report_to="none",
        disable_tqdm=bool(os.environ.get("CUADFT_PLAIN")),
    )


def _record(work: Path, plan: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Return what the last checkpoint says of the training."""
    state, before = read_json(Path(last_checkpoint(work)) / STATE), read_json(work / START_METRICS)
    done, best, history = state["global_step"], state["best_global_step"], state["log_history"]
    logged = next(entry for entry in history if entry["step"] == best and f"eval_{WATCHED_METRIC}" in entry)
    return {
        "steps": done,
        "best_step": best,
        "examples": sum(map(len, plan[:done])),
        "before": before,
        "best": {name: logged[f"eval_{name}"] for name in before},
        "history": history,
    }


def _export(checkpoint: Path, folder: Path) -> None:
    load_embedding_model(checkpoint).save_pretrained(str(folder), create_model_card=False)
