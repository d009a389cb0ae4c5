"""Run folders, and the champion of a run: the system that the next iteration starts from.

A run folder holds one folder an iteration (iter-01, iter-02, ...). For example:

    iteration = Iteration(Path("runs/quickstart"), 2)
    iteration.path("metrics")           # runs/quickstart/iter-02/metrics
    incoming_champion(iteration)        # what iteration 1 decided

A champion is one record, {"system", "program", "weights", "retriever"}. Its paths are relative to the run folder: the
file of a program, a folder of weights (None: the base model) and the folder of a retriever. Three files keep the
champion:

- decision.json of an iteration holds the choice of its gate; it is never edited.
- by_hand.json beside it holds a person's choice, and counts instead of the gate's.
- history.jsonl of the run is the log of every choice.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cuadft.core import files
from cuadft.core.errors import InputError

ITERATION_FOLDERS = ("data", "retriever", "program", "predictions", "adapters", "metrics", "figures", "executed")

# Systems without any model, beside which every score stands: one always refuses, one quotes the best passage whole.
CONSTANTS = ("always_refuses", "top_passage")
# Simple systems first: of two systems that are equally good, the simpler one is preferred.
PROGRAMS = ("rag", "rag_compiled")
NOT_TRAINED = (*CONSTANTS, *PROGRAMS, "incumbent", "retriever")  # systems without weights of their own iteration
# What preferences must beat: SFT for longer on the chosen answers, and SFT's likeliest of `DRAWS` sampled answers.
SFT_MORE, BEST_OF = CONTROLS = ("sft_more", "best_of_5")
DRAWS = 5  # sampled answers about a passage that BEST_OF chooses from
SYSTEM_ORDER = (*NOT_TRAINED, "sft", SFT_MORE, "dpo", "orpo", "orpo_base", "kto", "rloo", "grpo", "ppo", BEST_OF)

DECISION, BY_HAND, HISTORY = "decision.json", "by_hand.json", "history.jsonl"
CHAMPION_PARTS = ("system", "program", "weights", "retriever")
ChampionRecord = dict[str, Any]
GATE_ACTIONS = ("promoted", "kept")  # in the history; a person's action is "promote"


@dataclass(frozen=True)
class Iteration:
    """One round of the loop in a run folder; `number` counts from 1."""

    run: Path
    number: int

    @property
    def dir(self) -> Path:
        """The iteration's folder."""
        return self.run / f"iter-{self.number:02d}"

    @property
    def previous(self) -> Iteration | None:
        """The iteration before, None for the first one."""
        return Iteration(self.run, self.number - 1) if self.number > 1 else None

    def path(self, *parts: str) -> Path:
        """Return a path inside the iteration's folder."""
        return self.dir.joinpath(*parts)


def project_root() -> Path:
    """Return the nearest folder from here upwards that holds notebooks/ and params/, else the present folder."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    return here


def resolve_path(path: str | Path) -> Path:
    """Return an absolute path: a relative path counts from here if it exists here, else from the project root.

    A path with "..", or with "./" before it, always counts from here, as in a shell.
    """
    here = Path.cwd() / Path(path).expanduser()
    if counts_from_here(path):
        return here.resolve()
    return here if here.exists() else project_root() / Path(path).expanduser()


def counts_from_here(path: str | Path) -> bool:
    """Tell whether a path is written as seen from the current folder: "../x", "./x", "x/../y"."""
    return ".." in Path(path).parts or str(path).startswith("./")


def unwritable(folder: Path, error: OSError) -> InputError:
    """Return the error that says why a run folder cannot be written to, and what to do."""
    reason = f"{error.filename or folder}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "make room on its disk; the same command then goes on where this one stopped"
    else:
        advice = "choose another run folder, or make this one writable; the same command then goes on"
    return InputError(f"Can't write to run folder {folder} ({reason}): {advice}.")


def incoming_champion(iteration: Iteration) -> ChampionRecord:
    """Return the champion that an iteration starts from; the first iteration starts from plain rag, without paths.

    A retriever of None means the iteration's own retriever. Raises InputError if the iteration before has not decided.
    """
    before = iteration.previous
    return outgoing_champion(before) if before else dict.fromkeys(CHAMPION_PARTS) | {"system": "rag"}


def outgoing_champion(iteration: Iteration) -> ChampionRecord:
    """Return the champion that an iteration leaves: a person's choice, else the choice of its gate.

    Raises InputError if the iteration has not decided.
    """
    path = iteration.path(DECISION)
    if not path.is_file():
        raise InputError(f"{path} is missing: finish iteration {iteration.number} (05_evaluate) first.")
    by_hand = iteration.path(BY_HAND)
    return _promoted_record(by_hand if by_hand.is_file() else path)


def system_record(iteration: Iteration, system: str, tuned_program: str = "rag") -> ChampionRecord:
    """Return the record of one of this iteration's systems; tuned_program is the program that trained systems use."""
    here = iteration.dir.name
    if system == "incumbent":
        return incoming_champion(iteration) if iteration.previous else system_record(iteration, "rag")
    own = {"system": system, "retriever": f"{here}/retriever"}
    if system == "retriever":
        return incoming_champion(iteration) | own
    used = system if system in PROGRAMS else tuned_program
    weights = None if system in PROGRAMS else f"{here}/adapters/{system}"
    return own | {"program": f"{here}/program/{used}.json", "weights": weights}


def same_champion(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two records name the same champion."""
    return all(one.get(key) == other.get(key) for key in CHAMPION_PARTS)


def champion_label(record: Mapping[str, Any]) -> str:
    """Return a champion's name with the iteration that made it, such as "sft of iteration 2"."""
    made = _made_in(record).removeprefix("iter-")
    return f"{record['system']} of iteration {int(made)}" if made.isdigit() else str(record["system"])


def calibration_file(record: Mapping[str, Any]) -> str | None:
    """Return the file, relative to the run folder, with what was calibrated on the dev answers of a record's system.

    None for a record that names no iteration's files.
    """
    made = _made_in(record)
    return f"{made}/predictions/{record['system']}.confidence.json" if made else None


def _made_in(record: Mapping[str, Any]) -> str:
    """Return the name of the folder of the iteration that made a record's system, "" if the record names no file."""
    key = "retriever" if record["system"] == "retriever" else "weights"
    return str(record.get(key) or record.get("program") or "").partition("/")[0]


def simplicity(system: str) -> tuple[int, str]:
    """Return a sort key that puts simple systems first (see `SYSTEM_ORDER`) and unknown systems last."""
    return (SYSTEM_ORDER.index(system) if system in SYSTEM_ORDER else len(SYSTEM_ORDER), system)


def has_weights(folder: Path) -> bool:
    """Tell whether a folder holds an adapter or a model together with its weights (safetensors)."""
    if (folder / "adapter_config.json").is_file():
        return (folder / "adapter_model.safetensors").is_file()
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def record_decision(iteration: Iteration, decision: Mapping[str, Any]) -> bool:
    """Add the gate's decision to the history; return False if the last line of this iteration says the same already."""
    before, after = system_record(iteration, "incumbent"), decision["promoted"]
    action = "kept" if same_champion(before, after) else "promoted"
    line = {"iteration": iteration.number, "action": action, "from": before, "to": after, "reason": decision["reason"]}
    of_gate = [each for each in champion_history(iteration.run) if each["action"] in GATE_ACTIONS]
    known = [each for each in of_gate if each["iteration"] == iteration.number]
    if known and {key: known[-1][key] for key in line} == line:
        return False
    files.append_jsonl(iteration.run / HISTORY, [{"time": history_time()} | line])
    return True


def history_time() -> str:
    """Return the time as the history notes it: ISO 8601, UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def champion_history(run: Path) -> list[ChampionRecord]:
    """Return the lines of history.jsonl, oldest first: {"time", "iteration", "action", "from", "to", "reason"}."""
    path = run / HISTORY
    return files.read_jsonl(path, torn_ok=True) if path.is_file() else []


def decided_iterations(run: Path) -> list[int]:
    """Return the numbers of the iterations that have decided: 1, 2, ... up to the first that has not."""
    count = 0
    while Iteration(run, count + 1).path(DECISION).is_file():
        count += 1
    return list(range(1, count + 1))


def overruled_by_hand(iteration: Iteration) -> str:
    """Return a sentence on the choice by hand that overrules this iteration's gate, "" if nobody overruled it."""
    path = iteration.path(BY_HAND)
    if not path.is_file():
        return ""
    chosen, name = files.read_json(path), champion_label(_promoted_record(path))
    return (
        f"Overruled by hand ({chosen.get('action')}, {chosen.get('time')}): the next iteration starts from {name}, "
        f"because: {chosen.get('reason')}. `cuadft promote` changes that."
    )


def _promoted_record(path: Path) -> ChampionRecord:
    """Return the champion that a decision.json or by_hand.json names."""
    content = files.read_json(path)
    chosen = content.get("promoted") if isinstance(content, dict) else None
    if not isinstance(chosen, dict) or "system" not in chosen:
        raise InputError(f"{path} names no promoted system: run 05_evaluate of that iteration again.")
    return dict.fromkeys(CHAMPION_PARTS) | chosen
