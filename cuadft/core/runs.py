"""Run folders: where a run and its iterations keep their files, and what made them (run.json).

The champion of a run: what was promoted, by the gate or by hand, where it lies, and the history of every change.

A record is {"system", "program", "weights", "retriever"}, with paths relative to the run folder: a program's file, a
folder of weights (None: the base model) and a retriever's folder. decision.json holds the gate's choice and is never
edited; by_hand.json beside it, where there is one, comes before it. history.jsonl is the log of both.
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

FOLDERS = ("data", "retriever", "program", "predictions", "adapters", "metrics", "figures", "executed")


def project_root() -> Path:
    """Return the project root: the nearest folder upwards with notebooks/ and params/, else this one."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "notebooks").is_dir() and (folder / "params").is_dir():
            return folder
    return here


def resolve_path(path: str | Path) -> Path:
    """Return an absolute path: a relative one from here if it exists here, else from the project root."""
    path = Path(path).expanduser()
    here = Path.cwd() / path
    return here if path.is_absolute() or here.exists() else project_root() / path


@dataclass(frozen=True)
class Iteration:
    """One round of the loop in a run folder; `number` counts from 1."""

    run: Path
    number: int

    @property
    def dir(self) -> Path:
        return self.run / f"iter-{self.number:02d}"

    @property
    def previous(self) -> Iteration | None:
        return Iteration(self.run, self.number - 1) if self.number > 1 else None

    def path(self, *parts: str) -> Path:
        """Return a path inside the iteration's folder."""
        return self.dir.joinpath(*parts)


def unwritable(folder: Path, error: OSError) -> InputError:
    """Return the error that says why a run folder can't be used."""
    reason = f"{error.filename or folder}: {error.strerror}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "make room on its disk; the same command then goes on where this one stopped"
    else:
        advice = "choose another run folder, or make this one writable; the same command then goes on"
    return InputError(f"Can't write to run folder {folder} ({reason}): {advice}.")


ORDER = (
    "rag",
    "rag_compiled",
    "incumbent",
    "retriever",
    "sft",
    "dpo",
    "orpo",
    "orpo_base",
    "kto",
    "rloo",
    "grpo",
    "ppo",
)
PROGRAMS = ("rag", "rag_compiled")
NOT_TRAINED = (*PROGRAMS, "incumbent", "retriever")  # systems without weights of their own iteration
DECISION, BY_HAND, HISTORY = "decision.json", "by_hand.json", "history.jsonl"
CHAMPION_PARTS = ("system", "program", "weights", "retriever")
GATE = ("promoted", "kept")  # the gate's actions in the history; those by hand are "promote" and "rollback"
ChampionRecord = dict[str, Any]


def incoming_champion(iteration: Iteration) -> ChampionRecord:
    """Return the champion that an iteration starts from; in the first one plain rag, with no paths.

    A retriever of None means the iteration's own. Raises InputError if the iteration before has not decided.
    """
    before = iteration.previous
    return decided_champion(before) if before else dict.fromkeys(CHAMPION_PARTS) | {"system": "rag"}


def decided_champion(iteration: Iteration) -> ChampionRecord:
    """Return the champion that an iteration leaves: chosen by hand, else by its gate; InputError if it has not decided."""
    path = iteration.path(DECISION)
    if not path.is_file():
        raise InputError(f"{path} is missing: finish iteration {iteration.number} (05_evaluate) first.")
    by_hand = iteration.path(BY_HAND)
    return _record(by_hand if by_hand.is_file() else path)


def system_record(iteration: Iteration, system: str, tuned_program: str = "rag") -> ChampionRecord:
    """Return the record of a system of this iteration: its program, weights and retriever."""
    here = iteration.dir.name
    if system == "incumbent":
        return incoming_champion(iteration) if iteration.previous else system_record(iteration, "rag")
    own = {"system": system, "retriever": f"{here}/retriever"}
    if system == "retriever":
        return incoming_champion(iteration) | own
    used = system if system in PROGRAMS else tuned_program
    weights = None if system in PROGRAMS else f"{here}/adapters/{system}"
    return own | {"program": f"{here}/program/{used}.json", "weights": weights}


def simplicity(system: str) -> tuple[int, str]:
    """Return a sort key that puts simple systems first, unknown ones last."""
    return (ORDER.index(system) if system in ORDER else len(ORDER), system)


def champion_label(record: Mapping[str, Any]) -> str:
    """Return a champion's name with the iteration that made it: "sft of iteration 2"."""
    key = "retriever" if record["system"] == "retriever" else "weights"
    folder = str(record.get(key) or record.get("program") or "").partition("/")[0]
    made = folder.removeprefix("iter-")
    return f"{record['system']} of iteration {int(made)}" if made.isdigit() else str(record["system"])


def record_decision(iteration: Iteration, decision: Mapping[str, Any]) -> bool:
    """Note the gate's decision in the history; return False if the last note of this iteration says the same."""
    before, after = system_record(iteration, "incumbent"), decision["promoted"]
    line = {
        "iteration": iteration.number,
        "action": "kept" if same_champion(before, after) else "promoted",
        "from": before,
        "to": after,
        "reason": decision["reason"],
    }
    known = [h for h in champion_history(iteration.run) if h["iteration"] == iteration.number and h["action"] in GATE]
    if known and {key: known[-1][key] for key in line} == line:
        return False
    files.append_jsonl(iteration.run / HISTORY, [{"time": history_time()} | line])
    return True


def in_force(iteration: Iteration) -> str:
    """Return a sentence on the choice by hand that overrules this iteration's gate, "" if there is none."""
    path = iteration.path(BY_HAND)
    if not path.is_file():
        return ""
    chosen, name = files.read_json(path), champion_label(_record(path))
    return (
        f"Overruled by hand ({chosen.get('action')}, {chosen.get('time')}): the next iteration starts from {name}, "
        f"because: {chosen.get('reason')}. `cuadft promote` or `cuadft rollback` changes that."
    )


def champion_history(run: Path) -> list[ChampionRecord]:
    """Return the lines of history.jsonl, oldest first: {"time", "iteration", "action", "from", "to", "reason"}."""
    path = run / HISTORY
    return files.read_jsonl(path, torn_ok=True) if path.is_file() else []


def champion_line(run: Path) -> list[ChampionRecord]:
    """Return the line of champions that led to the present one, which is the last.

    A promotion adds to the line and a rollback takes its last one off. What the gates chose is read from the
    iterations' own decisions, so that an evaluation that was run again counts once.
    """
    found: list[ChampionRecord] = []
    lines = champion_history(run)
    for number in decided_iterations(run):
        iteration = Iteration(run, number)
        found = found or [system_record(iteration, "incumbent")]
        _follow(found, _record(iteration.path(DECISION)))
        if iteration.path(BY_HAND).is_file():
            for line in lines:
                if line["iteration"] == number and line["action"] not in GATE:
                    _follow(found, line["to"], back=line["action"] == "rollback")
            back = files.read_json(iteration.path(BY_HAND)).get("action") == "rollback"
            _follow(found, _record(iteration.path(BY_HAND)), back=back)
    return found


def decided_iterations(run: Path) -> list[int]:
    """Return the numbers of the iterations from the first on that have decided, up to the first that has not."""
    count = 0
    while Iteration(run, count + 1).path(DECISION).is_file():
        count += 1
    return list(range(1, count + 1))


def has_weights(folder: Path) -> bool:
    """Tell whether a folder holds an adapter or a model with its weights (safetensors)."""
    if (folder / "adapter_config.json").is_file():
        return (folder / "adapter_model.safetensors").is_file()
    return (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))


def _follow(found: list[ChampionRecord], chosen: ChampionRecord, *, back: bool = False) -> None:
    if back and any(same_champion(one, chosen) for one in found):
        while not same_champion(found[-1], chosen):
            found.pop()
    elif not same_champion(found[-1], chosen):
        found.append(chosen)


def _record(path: Path) -> ChampionRecord:
    content = files.read_json(path)
    chosen = content.get("promoted") if isinstance(content, dict) else None
    if not isinstance(chosen, dict) or "system" not in chosen:
        raise InputError(f"{path} names no promoted system: run 05_evaluate of that iteration again.")
    return dict.fromkeys(CHAMPION_PARTS) | chosen


def same_champion(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Tell whether two records name the same champion."""
    known = [
        key for key in CHAMPION_PARTS if key != "retriever" or (one.get(key) and other.get(key))
    ]  # older records name none
    return all(one.get(key) == other.get(key) for key in known)


def history_time() -> str:
    """Return the time as the history notes it: ISO 8601, UTC, in seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")
