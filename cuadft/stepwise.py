"""A training loop of our own: steps that are logged, told to callbacks, saved, and gone on from after a kill.

    class Mine(Stepwise):
        def step(self, number): ...  # change the weights, return what to log
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.errors import InputError
from cuadft.files import file_hash, read_json, value_hash, write_bytes, write_json

if TYPE_CHECKING:
    from torch import Tensor

KEPT = 2  # states: the second is for a disk that loses the first


def draw(rows: Sequence[Any], size: int, number: int, seed: int) -> list[Any]:
    """Return the rows of step `number`: all rows are shuffled, used up `size` a step, and shuffled again."""
    places = [divmod(i, len(rows)) for i in range(number * size, (number + 1) * size)]
    orders = {n: random.Random(f"{seed} {n}").sample(range(len(rows)), len(rows)) for n, _ in places}
    return [rows[orders[n][i]] for n, i in places]


class Stepwise:
    """Run `steps` steps on the tensors `trained` (by name) with their optimiser, saving each `save_steps` (0: at the end).

    identity: what the training depends on, besides the start weights; states of another one are refused. A step's
    randomness must come from its number, so that an interrupted training ends equal to an unbroken one. `state` is as
    transformers' trainers have it.
    """

    def __init__(self, trained: dict[str, Tensor], optimizer: Any, *, steps: int, output_dir: str | Path, save_steps: int,
                 identity: list[Any]) -> None:
        from transformers import TrainerState

        self.trained, self.optimizer, self.save_steps = trained, optimizer, save_steps
        self.key = value_hash([identity, steps, [p.detach().double().sum().item() for p in trained.values()]])
        self.folder, self.state, self.callbacks = Path(output_dir), TrainerState(max_steps=steps), []

    def step(self, number: int) -> dict[str, float]:
        """Do step `number` (from 0) and return what to log."""
        raise NotImplementedError

    def train(self, resume_from_checkpoint: str | Path | None = None) -> list[dict[str, Any]]:
        """Train to the last step, from the newest whole state in output_dir on; returns the log, one entry a step.

        resume_from_checkpoint: another folder of states. Raises InputError if they are of other settings or data.
        """
        from tqdm.auto import tqdm

        self._resume(Path(resume_from_checkpoint or self.folder))
        done, steps = self.state.global_step, self.state.max_steps
        self._tell("on_train_begin")
        for number in tqdm(range(done, steps), initial=done, total=steps, disable=bool(os.environ.get("CUADFT_PLAIN"))):
            logs = self.step(number)
            self.state.global_step = number + 1
            self.state.log_history.append(logs | {"step": number + 1})
            if number + 1 == steps or self.save_steps and (number + 1) % self.save_steps == 0:
                self._save()
            self._tell("on_step_end")
            self._tell("on_log", logs=logs)
        self._tell("on_train_end")
        return self.state.log_history

    def add_callback(self, callback: Any) -> None:
        """Have a transformers TrainerCallback told when training begins and ends, when a step ends, and what it logs.

        It gets the state, and None for the arguments and the control that only transformers' trainers have.
        """
        self.callbacks.append(callback)

    def remove_callback(self, kind: type) -> None:
        """Drop the callbacks of a class."""
        self.callbacks = [callback for callback in self.callbacks if not isinstance(callback, kind)]

    def _tell(self, event: str, **given: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(None, self.state, None, **given)

    def _save(self) -> None:
        """Write tensors, the optimiser's moments and the log in one step: a kill leaves the states before as they are."""
        from safetensors.torch import save

        tensors = {f"weight {name}": p.detach().contiguous() for name, p in self.trained.items()}
        for name, parameter in self.trained.items():
            tensors |= {f"{key} {name}": t.contiguous() for key, t in self.optimizer.state[parameter].items()}
        scratch, final = self.folder / ".state-new", self.folder / f"state-{self.state.global_step:08d}"
        for stale in (scratch, final):
            shutil.rmtree(stale, ignore_errors=True)
        write_bytes(scratch / "tensors.safetensors", save(tensors))
        record = {"key": self.key, "log_history": self.state.log_history}
        write_json(scratch / "state.json", record | {"sha256": file_hash(scratch / "tensors.safetensors")})
        os.replace(scratch, final)
        for old in _states(self.folder)[KEPT:]:
            shutil.rmtree(old)

    def _resume(self, folder: Path) -> None:
        from safetensors.torch import load_file

        whole = next(((state, record) for state in _states(folder) if (record := _record(state))), None)
        if whole is None:
            return
        state, record = whole
        if record["key"] != self.key:
            raise InputError(f"{state} is of other settings, data or start weights: remove it, or choose another output_dir.")
        tensors = load_file(state / "tensors.safetensors")
        for name, parameter in self.trained.items():
            parameter.data.copy_(tensors[f"weight {name}"])
            moments = {key: tensors[f"{key} {name}"] for key in ("step", "exp_avg", "exp_avg_sq") if f"{key} {name}" in tensors}
            if moments:  # none before the first update
                self.optimizer.state[parameter] = {k: t if k == "step" else t.to(parameter.device) for k, t in moments.items()}
        self.state.log_history, self.state.global_step = record["log_history"], len(record["log_history"])


def _states(folder: Path) -> list[Path]:
    return sorted(folder.glob("state-*"), reverse=True)


def _record(state: Path) -> dict[str, Any] | None:
    """Return a state's record, None if any part of the state is missing or damaged."""
    tensors = state / "tensors.safetensors"
    try:
        record = read_json(state / "state.json")
    except InputError:
        return None
    return record if tensors.is_file() and record.get("sha256") == file_hash(tensors) else None
