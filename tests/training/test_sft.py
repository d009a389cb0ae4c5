"""Properties of supervised fine-tuning: what is trained, on what, and that a kill changes nothing."""

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import small
import torch

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.models import weights
from cuadft.models.local import LocalEngine
from cuadft.rag.training_rows import prompt_completions
from cuadft.training import resume, sft
from cuadft.training.resume import completions_only, last_checkpoint
from cuadft.training.sft import Tuning, train_sft

SHORT = Tuning(lora_r=2, lora_alpha=4, batch_size=8, epochs=1, save_steps=100)  # 2 steps
LONG = replace(SHORT, batch_size=4, epochs=2, save_steps=2, learning_rate=2e-2)  # 8 steps
KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {folders!r}
import test_sft as t
from trl import SFTTrainer
step, steps = SFTTrainer.training_step, []
def killed(self, *args, **kwargs):
    steps.append(1)
    if len(steps) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *args, **kwargs)
SFTTrainer.training_step = killed
t.sft.best_dtype = lambda: t.torch.float32
t.train(Path({out!r}), t.LONG)
"""


def rows(answerable: int, impossible: int) -> list[dict]:
    """Return that many rows of the small contracts, under ids of their own."""
    gold, none = ([r for r in small.ROWS if r["is_impossible"] == flag] for flag in (False, True))
    kinds = ((gold, "a", answerable), (none, "i", impossible))
    return [kind[n % len(kind)] | {"id": f"{label}{n}"} for kind, label, size in kinds for n in range(size)]


def data() -> list[dict]:
    return prompt_completions(small.program(), small.ROWS, size=0, impossible_share=0.25, seed=1)[0]


def train(out: Path, tuning: Tuning, **settings) -> list[dict]:
    base = weights.find_weights("tiny")
    return train_sft(base, "owner/tiny", settings.pop("rows", None) or data(), out, tuning=tuning, **settings)


def trainer(monkeypatch, work: Path, tuning: Tuning = SHORT, **settings):
    """Return the trainer that train_sft would run."""
    with monkeypatch.context() as patch:
        patch.setattr(sft, "train_language_model", lambda build, out, **_: build(work))
        return train(work, tuning, **settings)


def losses(history: list[dict]) -> list[float]:
    return [entry["loss"] for entry in history if "loss" in entry]


def adapter(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


@pytest.fixture(autouse=True)
def float32(monkeypatch):
    """Train in float32, so that equal means equal on any machine."""
    monkeypatch.setattr(sft, "best_dtype", lambda: torch.float32)


@pytest.fixture(scope="module", autouse=True)
def killed(tmp_path_factory, tiny):
    """Start a training in another process, which kills itself in its sixth step of eight; other tests run meanwhile."""
    out = tmp_path_factory.mktemp("killed") / "sft"
    folders = [str(folder) for folder in Path(__file__).parents[:2]]  # of this file, and of the helpers it imports
    code = KILLED.format(folders=folders, out=str(out))
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"TOKENIZERS_PARALLELISM": "false"},
    )
    yield process, out
    process.kill()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return the folder and history of an unbroken run."""
    out = tmp_path_factory.mktemp("whole") / "sft"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sft, "best_dtype", lambda: torch.float32)
        return out, train(out, LONG)


# --- the rows


@pytest.mark.parametrize(
    "answerable, impossible, size, share, expected",
    [
        (100, 100, 20, 0.4, (12, 8)),
        (100, 100, 16, 0.35, (10, 6)),  # 16 * 0.35 = 5.6
        (100, 100, 20, 0.33, (13, 7)),
        (100, 100, 20, 0.0, (20, 0)),
        (100, 100, 20, 1.0, (0, 20)),
        (100, 100, 0, 0.5, (100, 100)),
        (70, 100, 0, 0.3, (70, 30)),  # every answerable row, and as many others as the share allows: 70 * 0.3 / 0.7
        (100, 2, 20, 0.4, (18, 2)),  # too few unanswerable ones: fewer
        (6, 100, 20, 0.4, (6, 4)),  # too few answerable ones: 6 * 0.4 / 0.6
        (0, 10, 4, 0.5, (0, 0)),
        (10, 0, 4, 0.5, (4, 0)),
        (3, 3, 1, 0.4, (1, 0)),
    ],
)
def test_the_share_of_unanswerable_rows_is_respected(answerable, impossible, size, share, expected):
    given = rows(answerable, impossible)
    chosen, counts = prompt_completions(small.program(), given, size=size, impossible_share=share, seed=3)
    refusals = [c for c in chosen if c["completion"][0]["content"] == NO_CLAUSE]
    assert (len(chosen) - len(refusals), len(refusals)) == expected == (counts["answerable"], counts["unanswerable"])
    assert counts.total() == len(given) and len({c["id"] for c in chosen}) == len(chosen)
    assert all(c["id"].startswith("i") == (c in refusals) for c in chosen)


def test_rows_whose_gold_span_was_not_retrieved_are_counted_and_left_out():
    lost = small.ROWS[1] | {"id": "lost", "answers": [{"text": "nowhere", "start": 10**6}]}
    chosen, counts = prompt_completions(small.program(), [*small.ROWS, lost], size=0, impossible_share=0.25, seed=1)
    assert counts == {"answerable": 12, "unanswerable": 4, "gold span not in the passages": 1}
    assert "lost" not in {c["id"] for c in chosen}


def test_the_draw_depends_on_the_seed_alone():
    draws = [
        prompt_completions(small.program(), rows(50, 50), size=20, impossible_share=0.5, seed=s)[0] for s in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]


# --- what is trained


def test_the_completion_and_its_end_are_trained_and_nothing_of_the_prompt(monkeypatch, tmp_path, tiny):
    engine, given = LocalEngine(tiny), data()
    made = trainer(monkeypatch, tmp_path)
    assert len(made.train_dataset) == len(given) == 16
    for row, example in zip(made.train_dataset, given):
        batch = made.data_collator([row])
        prompt = engine.tokenize(example["prompt"])
        whole = engine.tokenizer.apply_chat_template(example["prompt"] + example["completion"], return_dict=False)
        assert batch["input_ids"][0].tolist() == whole and whole[: len(prompt)] == prompt
        assert batch["labels"][0].tolist() == [-100] * len(prompt) + whole[len(prompt) :]
        trained = engine.tokenizer.decode(whole[len(prompt) :])
        assert trained == example["completion"][0]["content"] + "<|im_end|>\n"


def test_scoring_completions_only_leaves_loss_and_gradients_as_they_are(monkeypatch, tmp_path):
    made = trainer(monkeypatch, tmp_path)
    batch = made.data_collator([made.train_dataset[n] for n in range(3)])
    found = []
    for context in (completions_only, lambda: torch.enable_grad()):
        made.model.zero_grad()
        with context():
            loss = made.compute_loss(made.model, batch)
        loss.backward()
        found.append(
            (loss.item(), torch.cat([p.grad.flatten() for p in made.model.parameters() if p.grad is not None]))
        )
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-4, atol=1e-8) and found[0][1].abs().max() > 0


def test_lora_layers_tunes_only_the_last_layers_and_never_the_base(monkeypatch, tmp_path):
    for layers, expected in ((1, {"1"}), (0, {"0", "1"}), (5, {"0", "1"})):  # the tiny model has two layers
        made = trainer(monkeypatch, tmp_path, replace(SHORT, lora_layers=layers))
        trained = [name for name, p in made.model.named_parameters() if p.requires_grad]
        assert all("lora_" in name for name in trained)
        assert {name.split(".layers.")[1].split(".")[0] for name in trained} == expected


def test_the_saved_adapter_names_its_base_but_no_folder(finished, tiny):
    out, _ = finished
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "owner/tiny"
    assert not [v for v in config.values() if isinstance(v, str) and v.startswith("/")]
    assert json.loads((out / "base.json").read_text()) == {"model": "owner/tiny", "sha256": weights.weights_hash(tiny)}
    assert str(tiny) not in "".join(p.read_text() for p in out.glob("*.json"))


def test_training_lowers_the_loss_and_changes_the_answers_of_the_adapter_only(finished, tiny):
    out, history = finished
    assert len(losses(history)) == 8 and losses(history)[-1] < losses(history)[0]
    engine = LocalEngine(tiny, adapters={"sft": out}, dtype="float32")
    tokens = torch.tensor([engine.tokenize(data()[0]["prompt"])])
    with torch.inference_mode():
        tuned, base = (engine.generator.use(name)(tokens).logits for name in ("sft", ""))
        plain = LocalEngine(tiny, dtype="float32").generator.use()(tokens).logits
    assert torch.equal(base, plain) and not torch.allclose(tuned, base, atol=1e-4)


def test_going_on_from_an_adapter_changes_it_and_keeps_the_base(finished, monkeypatch, tmp_path, tiny):
    before = adapter(finished[0])
    made = trainer(monkeypatch, tmp_path, start=finished[0])
    frozen = {n: p for n, p in made.model.named_parameters() if "lora_" not in n}
    assert frozen and not any(p.requires_grad for p in frozen.values())
    loaded = {n.replace(".default", ""): p for n, p in made.model.named_parameters() if "lora_" in n}
    assert loaded.keys() == before.keys() and all(torch.equal(loaded[n], before[n]) for n in before)
    history = train(tmp_path / "sft", replace(SHORT, learning_rate=1e-2), start=finished[0])
    after = adapter(tmp_path / "sft")
    assert after.keys() == before.keys() and any(not torch.equal(after[n], before[n]) for n in before)
    assert len(losses(history)) == 2
    assert json.loads((tmp_path / "sft" / "adapter_config.json").read_text())["base_model_name_or_path"] == "owner/tiny"
    assert str(tiny) not in "".join(p.read_text() for p in (tmp_path / "sft").glob("*.json"))


def test_full_mode_saves_a_model_that_stands_alone(tmp_path, tiny):
    train(tmp_path / "sft", replace(SHORT, mode="full"))
    assert weights.find_weights(str(tmp_path / "sft")) == tmp_path / "sft"
    assert weights.weights_hash(tmp_path / "sft") != weights.weights_hash(tiny)
    assert not list((tmp_path / "sft").glob("*.bin"))
    engine = LocalEngine(tmp_path / "sft", dtype="float32")
    assert engine.generator.use().config.use_cache
    assert engine.tokenize(data()[0]["prompt"]) == LocalEngine(tiny).tokenize(data()[0]["prompt"])
    again = train(tmp_path / "next", replace(SHORT, mode="full"), start=tmp_path / "sft")
    assert losses(again)[0] < losses(files.read_json(tmp_path / "sft" / "training.json")["log_history"])[0]


# --- kills and repetitions


def test_a_finished_training_is_not_repeated(finished, monkeypatch):
    out, history = finished
    written = {p: p.stat().st_mtime_ns for p in out.iterdir()}
    monkeypatch.setattr(sft, "load_trainable", None)
    assert train(out, LONG) == history and {p: p.stat().st_mtime_ns for p in out.iterdir()} == written


def test_other_arguments_discard_old_checkpoints_and_results(finished, tmp_path):
    out = tmp_path / "sft"
    shutil.copytree(finished[0], out)
    files.write_text(tmp_path / ".sft-work" / "key", "of other arguments")
    whole_checkpoint(tmp_path / ".sft-work" / "checkpoint-1")
    history = train(out, SHORT)
    assert len(losses(history)) == 2 and files.read_json(out / "training.json")["log_history"] == history
    assert [p.name for p in tmp_path.iterdir()] == ["sft"]


def whole_checkpoint(folder: Path) -> Path:
    for name in (*resume.CHECKPOINT_FILES, "adapter_model.safetensors"):
        files.write_text(folder / name, "{}\n")
    return folder


def test_a_checkpoint_that_was_not_written_whole_is_passed_over(tmp_path):
    assert last_checkpoint(tmp_path) is None
    good = [whole_checkpoint(tmp_path / f"checkpoint-{n}") for n in (2, 10)]
    for number, name in enumerate((*resume.CHECKPOINT_FILES, "adapter_model.safetensors")):
        (whole_checkpoint(tmp_path / f"checkpoint-{20 + number}") / name).unlink()
    (whole_checkpoint(tmp_path / "checkpoint-40") / "trainer_state.json").write_text('{"global_st')
    (tmp_path / "checkpoint-50").mkdir()
    assert last_checkpoint(tmp_path) == str(good[1])


def test_a_kill_between_training_and_saving_repeats_no_step(finished, monkeypatch, tmp_path):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(resume, "_save_weights", killed)
        train(tmp_path / "sft", replace(SHORT, save_steps=2))
    assert not (tmp_path / "sft").exists()
    from trl import SFTTrainer

    monkeypatch.setattr(SFTTrainer, "training_step", None)
    assert len(losses(train(tmp_path / "sft", replace(SHORT, save_steps=2)))) == 2


def test_qlora_without_its_library_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(sft, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="needs bitsandbytes, which is not installed"):
        train(tmp_path / "sft", replace(SHORT, mode="qlora"))


def test_no_rows_are_refused(tmp_path, tiny):
    with pytest.raises(InputError, match="no rows"):
        train_sft(tiny, "tiny", [], tmp_path / "sft", tuning=SHORT)


def test_a_killed_training_goes_on_to_equal_losses_and_weights(killed, finished):
    process, out = killed
    log = process.communicate(timeout=120)[0]
    assert process.returncode == -signal.SIGKILL and not out.exists(), log
    work = out.with_name(".sft-work")
    assert last_checkpoint(work) == str(work / "checkpoint-4")  # of the steps 1 to 5, 2 and 4 were kept
    shutil.copytree(work / "checkpoint-4", work / "checkpoint-6")
    (work / "checkpoint-6" / "trainer_state.json").unlink()  # as if the kill had come while this one was written
    history = train(out, LONG)
    assert [e["step"] for e in history if "loss" in e] == list(range(1, 9))
    assert losses(history) == pytest.approx(losses(finished[1]), rel=1e-5)
    whole, resumed = adapter(finished[0]), adapter(out)
    assert all(torch.allclose(whole[n], resumed[n], atol=1e-6) for n in whole) and not work.exists()


@pytest.mark.parametrize(("mode", "kept"), [("lora", "config.json"), ("full", "adapter_config.json")])
def test_weights_of_the_other_kind_are_refused_as_a_start(tiny, tmp_path, mode, kept):
    (tmp_path / kept).write_text("{}")
    with pytest.raises(InputError, match="of the other kind"):
        sft.load_trainable(tiny, tmp_path, Tuning(mode=mode))
