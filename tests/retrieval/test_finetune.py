"""Properties of the embedder's fine-tuning: it learns, keeps the best step, survives kills, leaves a plain model."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import small
import tiny_embedder
import torch

from cuadft.data.passages import cut_passages
from cuadft.retrieval import finetune, triples
from cuadft.retrieval.finetune import DevHits, Tuning, finetune_embedder
from cuadft.retrieval.triples import make_triples
from cuadft.training.resume import RECORD, last_checkpoint

PASSAGES = {title: cut_passages(text, contract=title, size=100) for title, text in small.TEXTS.items()}
EXAMPLES = make_triples(small.ROWS, PASSAGES, negatives_from=[small.retriever(100)], per_category=8, seed=1)
SHORT = {"steps": 4, "batch_size": 4, "eval_steps": 2, "learning_rate": 1e-3, "seed": 1}
TEXTS = [*small.TEXTS.values(), *small.QUESTIONS.values()]


@pytest.fixture(scope="module")
def start(tmp_path_factory) -> Path:
    return tiny_embedder.make(tmp_path_factory.mktemp("tiny") / "bert", TEXTS)


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    """Train in float32, so that equal means equal on any machine."""
    monkeypatch.setattr(finetune, "best_dtype", lambda: torch.float32)
    monkeypatch.setenv("CUADFT_PLAIN", "1")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "model.safetensors")


def equal(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.allclose(ours[n], theirs[n], atol=1e-6) for n in ours)


def losses(record: dict) -> list[tuple[int, float]]:
    return [(entry["step"], entry["loss"]) for entry in record["history"] if "loss" in entry]


class Falling:
    """An `evaluate` whose metric is best at its third call, the second in training."""

    key = "falling"

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, model, *_) -> dict[str, float]:
        assert not model.training
        self.calls += 1
        return {"dev_hit@1": [0.1, 0.4, 0.6, 0.6, 0.5, 0.3, 0.2, 0.1][self.calls - 1], "other": 1.0}


def kill_at(monkeypatch, step: int) -> None:
    """Let the training end without a word in that step."""
    from sentence_transformers import SentenceTransformerTrainer

    run, done = SentenceTransformerTrainer.training_step, []

    def killed(self, *args, **kwargs):
        done.append(1)
        if len(done) == step:
            raise KeyboardInterrupt
        return run(self, *args, **kwargs)

    monkeypatch.setattr(SentenceTransformerTrainer, "training_step", killed)


def test_training_lowers_the_loss_and_finds_more_passages(start, tmp_path):
    measure = DevHits(small.ROWS, PASSAGES)
    record = finetune_embedder(
        start, EXAMPLES, tmp_path / "out", evaluate=measure, **SHORT | {"steps": 24, "eval_steps": 12}
    )
    found = losses(record)
    assert np.mean([loss for _, loss in found[-3:]]) < 0.7 * np.mean([loss for _, loss in found[:3]])
    assert record["best"]["dev_hit@1"] > record["before"]["dev_hit@1"] + 0.1
    assert record["examples"] <= 24 * 4


def test_the_export_is_a_plain_model_with_its_record_and_nothing_else_stays(start, tmp_path):
    from sentence_transformers import SentenceTransformer

    measure = DevHits(small.ROWS, PASSAGES)
    record = finetune_embedder(start, EXAMPLES, tmp_path / "out", evaluate=measure, max_length=16, **SHORT)
    assert json.loads((tmp_path / "out" / RECORD).read_text()) == record
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    model, before = SentenceTransformer(str(tmp_path / "out")), SentenceTransformer(str(start))
    assert model.max_seq_length == before.max_seq_length == 64
    assert (tmp_path / "out" / "config.json").read_text() == (start / "config.json").read_text()  # dropout too
    assert not np.allclose(model.encode(TEXTS[:1]), before.encode(TEXTS[:1]), atol=1e-3)
    assert measure(model) == pytest.approx(record["best"])
    written = "".join(path.read_text() for path in (tmp_path / "out").rglob("*.json"))
    assert str(tmp_path) not in written and str(start) not in written
    assert not list((tmp_path / "out").rglob("*.bin")) + list((tmp_path / "out").rglob("*.pt"))


def test_the_best_step_is_exported(start, tmp_path):
    watch = Falling()
    record = finetune_embedder(start, EXAMPLES, tmp_path / "out", evaluate=watch, **SHORT | {"steps": 14})
    assert (record["steps"], record["best_step"], watch.calls) == (14, 4, 8)
    assert record["before"]["dev_hit@1"] == 0.1 and record["best"] == {"dev_hit@1": 0.6, "other": 1.0}
    again = finetune_embedder(start, EXAMPLES, tmp_path / "again", evaluate=Falling(), **SHORT | {"steps": 14})
    assert again["best_step"] == 4 and equal(tmp_path / "out", tmp_path / "again")


def test_a_kill_changes_nothing_in_weights_and_losses(start, tmp_path, monkeypatch):
    settings = SHORT | {"steps": 14}
    whole = finetune_embedder(start, EXAMPLES, tmp_path / "whole", evaluate=Falling(), **settings)
    watch = Falling()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        kill_at(patch, 8)
        finetune_embedder(start, EXAMPLES, tmp_path / "out", evaluate=watch, **settings)
    work = tmp_path / ".out-work"
    assert not (tmp_path / "out").exists() and last_checkpoint(work) == str(work / "checkpoint-6")
    shutil.copytree(work / "checkpoint-6", work / "checkpoint-8")
    (work / "checkpoint-8" / "trainer_state.json").unlink()  # as if the kill had come while this one was written
    resumed = finetune_embedder(start, EXAMPLES, tmp_path / "out", evaluate=watch, **settings)
    assert (resumed["steps"], resumed["best_step"]) == (whole["steps"], whole["best_step"]) == (14, 4)
    assert losses(resumed) == [(step, pytest.approx(loss, rel=1e-5)) for step, loss in losses(whole)]
    assert equal(tmp_path / "out", tmp_path / "whole") and resumed["before"] == whole["before"]


def test_a_kill_between_training_and_export_repeats_no_step(start, tmp_path, monkeypatch):
    from sentence_transformers import SentenceTransformerTrainer

    settings = SHORT | {"steps": 9}
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(finetune, "_export", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        finetune_embedder(start, EXAMPLES, tmp_path / "out", evaluate=Falling(), **settings)
    monkeypatch.setattr(SentenceTransformerTrainer, "training_step", None)
    record = finetune_embedder(start, EXAMPLES, tmp_path / "out", evaluate=Falling(), **settings)
    assert (record["steps"], record["best_step"]) == (9, 4)


def test_a_finished_training_is_not_repeated_and_other_examples_start_anew(start, tmp_path, monkeypatch):
    record = finetune_embedder(start, EXAMPLES, tmp_path / "out", evaluate=Falling(), **SHORT)
    assert record["best_step"] == 4 and record["before"]["dev_hit@1"] == 0.1
    with monkeypatch.context() as patch:
        patch.setattr(finetune, "make_trainer", None)
        assert finetune_embedder(start, EXAMPLES, tmp_path / "out", evaluate=Falling(), **SHORT) == record
        for changed in ({"learning_rate": 2e-3}, {"triples": EXAMPLES[1:]}):
            given = {"start": start, "triples": EXAMPLES, "out": tmp_path / "out", "evaluate": Falling()}
            with pytest.raises(TypeError, match="NoneType"):
                finetune_embedder(**given | SHORT | changed)
    again = finetune_embedder(start, EXAMPLES, tmp_path / "again", evaluate=Falling(), **SHORT)
    assert losses(again) == losses(record) and equal(tmp_path / "out", tmp_path / "again")


def test_batches_are_the_planned_ones_and_attention_has_no_dropout(start, tmp_path):
    plan = triples.batch_schedule(EXAMPLES, size=4, steps=3, seed=1)
    settings = Tuning(**SHORT | {"steps": 3, "max_length": 8})
    trainer = finetune.make_trainer(start, EXAMPLES, plan, tmp_path, settings, Falling())
    words = trainer.model.tokenizer
    for batch, indexes in zip(trainer.get_train_dataloader(), plan, strict=True):
        for column in ("query", "positive", "negative"):
            texts = [EXAMPLES[n][column] for n in indexes]
            tokens = words(texts, truncation=True, max_length=8, padding=True)["input_ids"]
            assert batch[f"{column}_input_ids"].tolist() == tokens
    dropouts = {name: m.p for name, m in trainer.model.named_modules() if isinstance(m, torch.nn.Dropout)}
    off = {name for name, p in dropouts.items() if p == 0}
    assert len(off) == 2 and all("attention.self" in name for name in off) and len(dropouts) > 4


def test_bfloat16_is_used_where_the_processor_has_it(start, tmp_path, monkeypatch):
    monkeypatch.setattr(finetune, "best_dtype", lambda: torch.bfloat16)
    seen = []
    made = finetune.make_trainer(
        start,
        EXAMPLES,
        triples.batch_schedule(EXAMPLES, size=4, steps=1, seed=1),
        tmp_path,
        Tuning(**SHORT | {"steps": 1, "max_length": 64}),
        Falling(),
    )
    layer = next(m for n, m in made.model.named_modules() if n.endswith("layer.0.intermediate.dense"))
    layer.register_forward_hook(lambda module, given, result: seen.append((result.dtype, module.weight.dtype)))
    made.train()
    assert set(seen) == {(torch.bfloat16, torch.float32)}  # computed in one, kept in the other
