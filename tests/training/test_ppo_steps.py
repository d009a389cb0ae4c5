"""Properties of the training loop: an interrupted training ends as an unbroken one would, whatever was lost."""

import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cuadft.core.errors import InputError
from cuadft.training.ppo import Stepwise, draw_step


class Descent(Stepwise):
    """Fit a weight to numbers drawn by the step's number; `dies` is the step in which it is interrupted."""

    def __init__(self, folder, *, steps=6, save_steps=2, dies=None, identity="a"):
        self.weight, self.dies, self.done = torch.nn.Parameter(torch.zeros(3)), dies, []
        super().__init__(
            {"weight": self.weight},
            torch.optim.Adam([self.weight], lr=0.1),
            steps=steps,
            folder=folder,
            save_steps=save_steps,
            identity=[identity],
        )

    def step(self, number):
        if number == self.dies:
            raise KeyboardInterrupt
        loss = ((self.weight - torch.randn(3, generator=torch.Generator().manual_seed(number))) ** 2).sum()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.done.append(number)
        return {"loss": loss.item()}


def names(folder):
    """Return the names of the files in a folder; a saved state's without the hash of its content."""
    return sorted(re.sub("-[0-9a-f]{64}", "", path.name) for path in folder.iterdir())


def state(folder, number):
    """Return a saved state's file."""
    (found,) = folder.glob(f"state-{number:08d}-*")
    return found


def flipped(content):
    """Return bytes with one bit changed in the middle."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def test_an_interrupted_training_ends_equal_to_an_unbroken_one(tmp_path):
    whole = Descent(tmp_path / "whole")
    log = whole.train()
    with pytest.raises(KeyboardInterrupt):
        Descent(tmp_path / "killed", dies=5).train()
    again = Descent(tmp_path / "killed")
    assert again.train() == log and again.done == [4, 5]
    assert torch.equal(again.weight, whole.weight)
    assert [entry["step"] for entry in log] == [1, 2, 3, 4, 5, 6] and again.state.global_step == 6


def test_a_finished_training_is_not_repeated_and_two_states_are_kept(tmp_path):
    log = Descent(tmp_path).train()
    again = Descent(tmp_path)
    assert again.train() == log and again.done == []
    assert names(tmp_path) == ["state-00000004.safetensors", "state-00000006.safetensors"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: state.write_bytes(state.read_bytes()[:-5]),
        lambda state: state.write_bytes(state.read_bytes()[:100]),
        lambda state: state.write_bytes(b""),
        lambda state: state.write_text("{}"),
        lambda state: state.write_bytes(state.read_bytes().replace(b"loss", b"lost")),
        lambda state: state.write_bytes(flipped(state.read_bytes())),
        lambda state: state.unlink(),
    ],
)
def test_a_damaged_state_is_passed_over(damage, tmp_path):
    log = Descent(tmp_path).train()
    damage(state(tmp_path, 6))
    again = Descent(tmp_path)
    assert again.train() == log and again.done == [4, 5]
    assert names(tmp_path) == ["state-00000004.safetensors", "state-00000006.safetensors"]


def test_a_kill_while_writing_leaves_the_states_before(tmp_path, monkeypatch):
    log = Descent(tmp_path / "whole").train()
    from cuadft.training import ppo

    def killed(path, content):
        raise KeyboardInterrupt

    Descent(tmp_path / "cut").train()
    state(tmp_path / "cut", 6).unlink()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ppo, "write_bytes", killed)
        Descent(tmp_path / "cut").train()
    assert names(tmp_path / "cut") == ["state-00000004.safetensors"]
    assert Descent(tmp_path / "cut").train() == log
    assert names(tmp_path / "cut") == ["state-00000004.safetensors", "state-00000006.safetensors"]


@pytest.mark.parametrize("other", [{"identity": "b"}, {"steps": 7}])
def test_states_of_another_training_are_refused(other, tmp_path):
    Descent(tmp_path).train()
    with pytest.raises(InputError, match="other settings"):
        Descent(tmp_path, **other).train()
    changed = Descent(tmp_path / "new")
    changed.weight.data += 1
    assert changed.key == Descent(tmp_path).key  # taken at the start, before any training


def test_other_start_weights_are_another_training(tmp_path):
    class Elsewhere(Descent):
        def __init__(self, folder):
            super().__init__(folder)
            self.weight.data += 1
            Stepwise.__init__(self, self.trained, self.optimizer, steps=6, folder=folder, save_steps=2, identity=["a"])

    Descent(tmp_path).train()
    with pytest.raises(InputError, match="start weights"):
        Elsewhere(tmp_path).train()


def test_callbacks_are_told_as_transformers_tells_them(tmp_path):
    from transformers import TrainerCallback

    told = []

    class Told(TrainerCallback):
        def on_train_begin(self, args, state, control, **_):
            told.append(("begin", state.global_step, state.max_steps))

        def on_step_end(self, args, state, control, **_):
            told.append(("step", state.global_step))

        def on_log(self, args, state, control, logs=None, **_):
            told.append(("log", logs["loss"]))

        def on_train_end(self, args, state, control, **_):
            told.append(("end", state.global_step))

    trainer = Descent(tmp_path, steps=2)
    trainer.add_callback(Told())
    trainer.add_callback(TrainerCallback())
    log = trainer.train()
    assert told == [
        ("begin", 0, 2),
        ("step", 1),
        ("log", log[0]["loss"]),
        ("step", 2),
        ("log", log[1]["loss"]),
        ("end", 2),
    ]
    trainer.remove_callback(Told)
    assert [type(c) for c in trainer.callbacks] == [TrainerCallback]


@given(count=st.integers(1, 9), size=st.integers(1, 12), seed=st.integers(0, 99))
def test_every_row_is_drawn_before_any_is_drawn_again(count, size, seed):
    rows = list(range(count))
    drawn = [row for number in range(6) for row in draw_step(rows, size, number, seed)]
    assert len(drawn) == 6 * size
    for start in range(0, len(drawn), count):
        assert len(set(drawn[start : start + count])) == len(drawn[start : start + count])
    assert draw_step(rows, size, 3, seed) == draw_step(rows, size, 3, seed)
