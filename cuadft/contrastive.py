"""Fine-tune the embedder on (question, passage that answers, passage that doesn't) by contrast, with resume."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft import models, progress
from cuadft.batches import schedule
from cuadft.errors import InputError
from cuadft.files import read_json, value_hash, write_json, write_text
from cuadft.generator import best_dtype
from cuadft.training import last_checkpoint
from cuadft.triple_trainer import Watched, load, make

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

RECORD, STATE = "training.json", "trainer_state.json"
METRIC = "dev_hit@1"
TIMES = ("eval_runtime", "eval_samples_per_second", "eval_steps_per_second")  # the trainer's own, no metrics


def finetune(
    start: Path | str, triples: Sequence[Mapping[str, Any]], out: Path | str, *, steps: int = 250,
    batch_size: int = 20, learning_rate: float = 1e-4, max_length: int = 224,
    evaluate: Callable[[SentenceTransformer], dict[str, float]] | None = None, metric: str = METRIC,
    eval_steps: int = 50, patience: int = 3, seed: int = 7, resume: bool = True,
) -> dict[str, Any]:  # fmt: skip
    """Train the model in `start` on examples of `cuadft.triples`, write the best to `out`, and return its record.

    `out` is a plain sentence-transformers folder, put there in one step, with the record in training.json: steps
    (done), best_step, examples, dtype, seconds, passages_per_second and evaluation_seconds (of the call that
    trained), before and best (what `evaluate` returns for the start and at best_step), history (the trainer's log:
    loss, learning rate and eval_<metric> by step) and settings.

    evaluate: called before training, after every `eval_steps` and at the end, such as `cuadft.dev_hits.DevHits`.
    Training ends when `metric` hasn't risen `patience` times in a row, and the weights of its best step are exported;
    the last ones without `evaluate`. The start doesn't compete: compare `before` with `best`. max_length: tokens of a
    text in training; the exported model keeps its own. A killed call goes on from its last whole checkpoint, to an
    equal result, if called again with the same arguments; a finished one isn't repeated unless resume is False.

    The loss is cross-entropy over 20 * cosine of a question with its passage against all other passages of the
    batch: Henderson et al. (2017), "Efficient Natural Language Response Suggestion for Smart Reply", section 4, with
    mined negatives. Raises InputError on arguments out of range, and on a metric that `evaluate` doesn't return.
    """
    start, out = Path(start), Path(out)
    settings = {"steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "max_length": max_length,
                "metric": metric if evaluate else None, "eval_steps": eval_steps, "patience": patience,
                "seed": seed}  # fmt: skip
    _check(start, settings)
    plan = schedule(triples, size=batch_size, steps=steps, seed=seed)
    identity = [[dict(triple) for triple in triples], settings, getattr(evaluate, "key", None)]
    key = value_hash([identity, models.weights_hash(start)])
    if resume and (out / RECORD).is_file() and read_json(out / RECORD)["key"] == key:
        shutil.rmtree(out.with_name(f".{out.name}-work"), ignore_errors=True)  # a kill at the very end leaves it
        return read_json(out / RECORD)
    work = _work_folder(out, key, keep=resume)
    with _silent():
        watch = Watched(evaluate, metric)
        if not (work / "before.json").is_file():
            write_json(work / "before.json", watch(load(start)) if evaluate else {})
        rate = {} if _finished(work, steps) else _train(start, triples, plan, work, settings, watch)
        record = {"key": key} | _record(work, plan, rate, settings)
        _export(work / f"checkpoint-{record['best_step']}", out, record)
    shutil.rmtree(work)
    return record


def _check(start: Path, settings: Mapping[str, Any]) -> None:
    if not (start / "modules.json").is_file():
        raise InputError(f"No embedding model in '{start}': give the folder of a sentence-transformers model")
    for name in ("learning_rate", "max_length", "eval_steps", "patience"):
        if settings[name] <= 0:
            raise InputError(f"Invalid {name} {settings[name]!r}: give a number above 0")


def _work_folder(out: Path, key: str, *, keep: bool) -> Path:
    """Return the folder of the checkpoints, emptied if they are of other arguments or not wanted."""
    work = out.with_name(f".{out.name}-work")
    if work.exists() and not (keep and (work / "key").is_file() and (work / "key").read_text() == key):
        shutil.rmtree(work)
    write_text(work / "key", key)
    return work


def _finished(work: Path, steps: int) -> bool:
    """Tell whether the last whole checkpoint is the last step's, or of the evaluation that ended the training."""
    if (last := last_checkpoint(work)) is None:
        return False
    state = read_json(Path(last) / STATE)
    stopped = state["stateful_callbacks"]["TrainerControl"]["args"]["should_training_stop"]
    return stopped or state["global_step"] >= steps


def _train(start: Path, triples: Sequence[Mapping[str, Any]], plan: Sequence[Sequence[int]], work: Path,
           settings: Mapping[str, Any], watch: Watched) -> dict[str, Any]:  # fmt: skip
    """Run the trainer to its end; return the seconds of this call, evaluations apart, and passages per second."""
    last = last_checkpoint(work)
    done = int(last.rsplit("-", 1)[1]) if last else 0
    trainer = make(start, triples, plan, work, settings, watch)
    progress.watch(trainer, "retriever")
    watch.seconds, began = 0.0, time.monotonic()
    trainer.train(resume_from_checkpoint=last)
    seconds = time.monotonic() - began - watch.seconds
    passages = 2 * sum(map(len, plan[done : trainer.state.global_step]))
    return {"seconds": round(seconds, 1), "passages_per_second": round(passages / seconds, 1),
            "evaluation_seconds": round(watch.seconds, 1)}  # fmt: skip


def _record(work: Path, plan: Sequence[Sequence[int]], rate: Mapping[str, Any],
            settings: Mapping[str, Any]) -> dict[str, Any]:  # fmt: skip
    """Return what the last checkpoint says of the training."""
    state = read_json(Path(last_checkpoint(work)) / STATE)
    done = state["global_step"]
    best = state["best_global_step"] if settings["metric"] else done
    return {"steps": done, "best_step": best, "examples": sum(map(len, plan[:done])),
            "dtype": str(best_dtype()).split(".")[1], **rate, "before": read_json(work / "before.json"),
            "best": _metrics(state["log_history"], best), "history": state["log_history"],
            "settings": dict(settings)}  # fmt: skip


def _metrics(history: Iterable[Mapping[str, Any]], step: int) -> dict[str, float]:
    """Return what `evaluate` said at a step; {} if it wasn't called then."""
    return {name.removeprefix("eval_"): value for entry in history if entry["step"] == step
            for name, value in entry.items() if name.startswith("eval_") and name not in TIMES}  # fmt: skip


def _export(checkpoint: Path, out: Path, record: Mapping[str, Any]) -> None:
    scratch = out.with_name(f".{out.name}-new")
    shutil.rmtree(scratch, ignore_errors=True)
    load(checkpoint).save_pretrained(str(scratch), create_model_card=False)
    write_json(scratch / RECORD, record)
    shutil.rmtree(out, ignore_errors=True)
    os.replace(scratch, out)


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
