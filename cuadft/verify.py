"""Verify a run folder: every hash computed again, and what is changed, missing, stale or unaccounted for is named."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cuadft import files, lineage, runs
from cuadft.errors import InputError
from cuadft.holder import is_locked
from cuadft.lineage import Made
from cuadft.manifest import may_rewrite
from cuadft.stages import SHARED, STAGES

DIGITS = 12  # of a hash, where it is shown
SHOWN = 3  # reasons why a stage is stale
KINDS = ("damaged", "changed", "missing", "stale", "unfinished", "leftover", "unaccounted")
KNOWN = {  # files that no stage records: pattern of the path from the run folder -> what they are
    r"run\.json": "what made the run",
    r"\.lock": "lock of the run folder",
    r"\.hashes\.json": "cache of hashes",
    r"feedback\.sqlite(-wal|-shm|-journal)?": "people's verdicts",
    r"history\.jsonl": "history of the champion",
    r"trackers/.+": "files of trackers",
    r"iter-\d+/manifest\.json": "records of stages",
    r"iter-\d+/by_hand\.json": "champion chosen by hand",
    r"iter-\d+/\.note\.json": "note on calls of an endpoint, for the loop",
    rf"iter-\d+/executed/({'|'.join(stage.name for stage in STAGES)})\.ipynb": "executed notebooks",
    r"iter-\d+/(.+/)?\.[^/]+-(work|new)/.+": "checkpoints of unfinished training",
    r"iter-\d+/preferences/candidates\.\d+\.jsonl": "candidate answers that pairs were chosen from",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be; `kind` is one of KINDS, `name` a file or stage."""

    kind: str
    name: str
    detail: str


@dataclass(frozen=True)
class Verdict:
    """What a check found. `made` are the recorded stages, `others` known files beside them by what they are.

    names: the files whose chain was checked, empty for the whole run.
    """

    run: Path
    made: tuple[Made, ...]
    names: tuple[str, ...]
    findings: tuple[Finding, ...]
    n_files: int
    n_bytes: int
    others: Mapping[str, int]
    notes: tuple[str, ...]


def check(run_dir: str | Path, artefact: str = "") -> Verdict:
    """Compute the hash of every recorded file again, without the cache, and compare all that lies in a run folder.

    artefact: a recorded file or folder; only its chain back to the contracts is checked. Raises InputError if there is
    no run or no such artefact. A damaged manifest is a finding.
    """
    run = runs.resolve(run_dir)
    made, findings = _read(lineage.iterations(run))
    names = lineage.resolve(run, artefact, lineage.artefacts(made)) if artefact else []
    chain = lineage.ancestors([lineage.artefacts(made)[name] for name in names], made) if artefact else made
    owners, working = lineage.makers(made), is_locked(run)
    sizes = {path.relative_to(run).as_posix(): path.stat().st_size for path in _walk(run)}
    read = {name for one in chain for name in one.inputs}
    wanted = ({*names, *read} if artefact else {*owners, *read}) & {*owners, *sizes}
    hashes = _hashes(run, sorted(wanted & set(sizes)))
    findings += _outputs({name: owners[name] for name in sorted(wanted & set(owners))}, hashes, made)
    for one in chain:
        findings += _stale(one, owners, set(sizes), hashes) if one.done else [_unfinished(one, working)]
    notes, others = ["`cuadft run` works there now: this is a snapshot"] if working else [], Counter[str]()
    if not artefact:
        more, others = _beside(run, made, set(sizes) - set(owners))
        findings += more
        for iteration in lineage.iterations(run):
            absent, left_out = _absent(iteration, made)
            findings, notes = findings + absent, notes + left_out
    findings.sort(key=lambda found: (KINDS.index(found.kind), found.name))
    return Verdict(run, tuple(made), tuple(names), tuple(findings), len(hashes), sum(sizes[name] for name in hashes), others,
                   tuple(notes))  # fmt: skip


def _read(iterations: Sequence[runs.Iteration]) -> tuple[list[Made], list[Finding]]:
    made, findings = [], []
    for iteration in iterations:
        name, path = f"{iteration.dir.name}/manifest.json", iteration.path("manifest.json")
        try:
            here = lineage.records(iteration)
            lost = set(files.read_json(path)["stages"]) - {one.stage.name for one in here} if path.is_file() else set()
        except InputError as error:
            here, lost = [], set()
            findings.append(Finding("damaged", name, str(error)))
        made += here
        findings += [Finding("damaged", name, f"the record of {stage} can't be read") for stage in sorted(lost)]
    return made, findings


def _walk(run: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(run):
        yield from (Path(folder, name) for name in names if Path(folder, name).is_file())


def _hashes(run: Path, names: Sequence[str]) -> dict[str, str]:
    """Return the SHA-256 of files, several of them read at a time; "" for one that can't be read."""

    def read(name: str) -> str:
        try:
            return files.file_hash(run / name)
        except OSError:
            return ""

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        return dict(zip(names, pool.map(read, names)))


def _outputs(owners: Mapping[str, list[Made]], hashes: Mapping[str, str], made: Iterable[Made]) -> list[Finding]:
    found, unfinished = [], [one for one in made if not one.done]
    for name, makers in owners.items():
        known, label, now = [one.outputs[name] for one in makers], makers[-1].label, hashes.get(name)
        if now == known[-1] or any(_begun(one, makers[-1], name) for one in unfinished):
            continue
        if now is None:
            found.append(Finding("missing", name, f"{label} made it"))
        elif now in known:
            found.append(Finding("stale", name, f"{makers[known.index(now)].label} wrote it again, after {label}"))
        else:
            now = f"it has {now[:DIGITS]}" if now else "it can't be read"
            found.append(Finding("changed", name, f"{label} wrote it with sha256 {known[-1][:DIGITS]}, now {now}"))
    return found


def _begun(later: Made, maker: Made, name: str) -> bool:
    """Tell whether an unfinished stage may have begun to write the file again."""
    after = later.iteration == maker.iteration and later.order > maker.order
    return after and may_rewrite(later.stage, later.entry, maker.stage, name)


def _stale(one: Made, owners: Mapping[str, list[Made]], present: Set[str], hashes: Mapping[str, str]) -> list[Finding]:
    """Return what the stage read in another version than lies there now, and what has come since."""
    reasons = []
    for name, known in one.inputs.items():
        if name in owners:
            maker = owners[name][-1]
            reasons += [f"{maker.label} has made {name} again"] if maker.outputs[name] != known else []
        elif one.from_outside(name):
            reasons += [f"{name} (not in the run folder) has changed"] if _outside(one, name) not in ("", known) else []
        elif hashes.get(name) != known:
            reasons.append(f"{name} has changed" if name in present else f"{name} is gone")
    come = [name for name in one.files(one.stage.reads) if name not in one.inputs]
    reasons += [f"{name} has come since" for name in come if name in owners or name.endswith("by_hand.json")]
    text = "; ".join(reasons[:SHOWN]) + (f"; {len(reasons) - SHOWN} more such" if len(reasons) > SHOWN else "")
    return [Finding("stale", one.label, f"made from other inputs: {text}")] if reasons else []


def _outside(one: Made, name: str) -> str:
    """Return the hash of the file or folder that a parameter names, "" if it is not here now."""
    kind, _, folder = name.partition(" ")
    value = f"{folder}/{one.iteration.dir.name}/predictions" if folder else one.entry["parameters"][kind]
    path = runs.root() / str(value)
    return files.file_hash(path) if value and path.exists() else ""


def _unfinished(one: Made, working: bool) -> Finding:
    status = str(one.entry.get("status"))
    if status == "running":
        return Finding("unfinished", one.label, "running now" if working else "interrupted")
    reason = str(one.entry.get("error") or one.entry.get("reason") or "").split("\n")[0]
    return Finding("unfinished", one.label, f"{status}: {reason}" if reason else status)


def _absent(iteration: runs.Iteration, made: Iterable[Made]) -> tuple[list[Finding], list[str]]:
    """Return the stages that are still to come, and those that were left out while later ones ran."""
    recorded, label = {one.stage.name for one in made if one.iteration == iteration}, f"iteration {iteration.number}"
    last = max((place for place, stage in enumerate(STAGES) if stage.name in recorded), default=-1)
    to_come = [stage.name for stage in STAGES[last + 1 :]]
    left_out = [stage.name for stage in STAGES[: max(last, 0)] if stage.name not in recorded]
    findings = [Finding("unfinished", label, f"not run yet: {', '.join(to_come)}")] if to_come else []
    return findings, [f"{label} has left out {', '.join(left_out)}"] if left_out else []


def _beside(run: Path, made: Sequence[Made], names: Iterable[str]) -> tuple[list[Finding], Counter[str]]:
    """Return findings on files that no stage has recorded, and how many of each known kind there are."""
    findings, others = [], Counter[str]()
    begun = {name: one for one in made if not one.done for name in one.files((*one.stage.writes, *SHARED))}
    for name in sorted(names):
        kind = next((what for pattern, what in KNOWN.items() if re.fullmatch(pattern, name)), "")
        if files.is_leftover(run / name.removesuffix("-journal")):
            findings.append(Finding("leftover", name, "the temporary part of a write that was killed; it may be deleted"))
        elif kind or name in begun:
            others[kind or f"files of {begun[name].label}, which has not finished"] += 1
        else:
            findings.append(Finding("unaccounted", name, "no stage has recorded it"))
    return findings, others
