"""Verify a run folder: every hash computed again, and what is changed, missing, stale or unaccounted for is named.

What `cuadft verify` prints: findings by kind, what to do about them, and an artefact's chain back to the contracts.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.loop import lineage
from cuadft.loop.kernel import is_locked
from cuadft.loop.lineage import Made
from cuadft.loop.manifest import may_rewrite
from cuadft.loop.stages import SHARED, STAGES
from cuadft.loop.status import duration_text

DIGITS = 12  # of a hash, where it is shown
SHOWN_FILES = 3  # reasons why a stage is stale
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
class Verification:
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


def verify_run(run_dir: str | Path, artefact: str = "") -> Verification:
    """Compute the hash of every recorded file again, without the cache, and compare all that lies in a run folder.

    artefact: a recorded file or folder; only its chain back to the contracts is checked. Raises InputError if there is
    no run or no such artefact. A damaged manifest is a finding.
    """
    run = runs.resolve_path(run_dir)
    made, findings = _read(lineage.run_iterations(run))
    names = lineage.resolve_artefact(run, artefact, lineage.artefacts(made)) if artefact else []
    chain = lineage.artefact_ancestors([lineage.artefacts(made)[name] for name in names], made) if artefact else made
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
        for iteration in lineage.run_iterations(run):
            absent, left_out = _absent(iteration, made)
            findings, notes = findings + absent, notes + left_out
    findings.sort(key=lambda found: (KINDS.index(found.kind), found.name))
    return Verification(
        run,
        tuple(made),
        tuple(names),
        tuple(findings),
        len(hashes),
        sum(sizes[name] for name in hashes),
        others,
        tuple(notes),
    )


def _read(iterations: Sequence[runs.Iteration]) -> tuple[list[Made], list[Finding]]:
    made, findings = [], []
    for iteration in iterations:
        name, path = f"{iteration.dir.name}/manifest.json", iteration.path("manifest.json")
        try:
            here = lineage.stage_records(iteration)
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
    text = "; ".join(reasons[:SHOWN_FILES]) + (
        f"; {len(reasons) - SHOWN_FILES} more such" if len(reasons) > SHOWN_FILES else ""
    )
    return [Finding("stale", one.label, f"made from other inputs: {text}")] if reasons else []


def _outside(one: Made, name: str) -> str:
    """Return the hash of the file or folder that a parameter names, "" if it is not here now."""
    kind, _, folder = name.partition(" ")
    value = f"{folder}/{one.iteration.dir.name}/predictions" if folder else one.entry["parameters"][kind]
    path = runs.project_root() / str(value)
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
            findings.append(
                Finding("leftover", name, "the temporary part of a write that was killed; it may be deleted")
            )
        elif kind or name in begun:
            others[kind or f"files of {begun[name].label}, which has not finished"] += 1
        else:
            findings.append(Finding("unaccounted", name, "no stage has recorded it"))
    return findings, others


MOST = 20  # findings of one kind that are shown
SHOWN_DIGITS = 3  # files of one folder that are named one by one
UNHASHED = {"align": "feedback.sqlite"}  # read as well; it grows, so that no hash of it could hold
AGAIN = "The same `cuadft run` command makes again what is changed, missing, stale or unfinished"
ADVICE = {
    "damaged": "A damaged manifest.json: restore it, or delete it and let `cuadft run` make the iteration again.",
    "changed": f"{AGAIN}.",
    "missing": f"{AGAIN}.",
    "stale": f"{AGAIN}.",
    "unfinished": f"{AGAIN}.",
    "leftover": "Leftovers and files that no stage recorded are never read; delete them, or move them elsewhere.",
    "unaccounted": "Leftovers and files that no stage recorded are never read; delete them, or move them elsewhere.",
}
Note = Callable[[str], str]


def verification_text(verdict: Verification) -> str:
    """Return the findings as text, after the chain if an artefact was asked for."""
    lines = [*lineage_text(verdict), ""] if verdict.names else []
    what = "the chain" if verdict.names else f"{len(verdict.made)} stages"
    lines.append(f"{verdict.run}: {verdict.n_files} files of {what} read again ({verdict.n_bytes / 1e6:,.1f} MB)")
    beside = [f"{count} {what}" if count > 1 else what for what, count in sorted(verdict.others.items())]
    lines += [f"  beside them: {', '.join(beside)}"] if beside else []
    lines += [f"  {note}" for note in verdict.notes]
    for kind in KINDS:
        found = [finding for finding in verdict.findings if finding.kind == kind]
        lines += [f"{kind:<12}{finding.name}: {finding.detail}" for finding in found[:MOST]]
        lines += [f"{'':<12}and {len(found) - MOST} more"] if len(found) > MOST else []
    if not verdict.findings:
        return "\n".join([*lines, "All is well."])
    counts = Counter(finding.kind for finding in verdict.findings)
    advice = dict.fromkeys(ADVICE[kind] for kind in KINDS if kind in counts)
    return "\n".join(
        [*lines, f"Not well: {', '.join(f'{counts[kind]} {kind}' for kind in KINDS if kind in counts)}.", *advice]
    )


def lineage_text(verdict: Verification) -> list[str]:
    """Return the lines from artefacts back to the contracts: each stage once, the latest first, with what it read."""
    made, names = verdict.made, verdict.names
    source, owner, lines, before = lineage.artefacts(made), lineage.makers(made), [], ""
    faults = {finding.name: f" ({finding.kind})" for finding in verdict.findings}

    def note(name: str) -> str:
        return faults.get(name, "")

    for name in names[:SHOWN_DIGITS]:
        known = source[name].outputs.get(name, "")
        lines.append(f"{name}{f'  sha256 {known[:DIGITS]}' if known else ''}{note(name)}")
    lines += [f"and {len(names) - SHOWN_DIGITS} more files there"] if len(names) > SHOWN_DIGITS else []
    for one in lineage.artefact_ancestors([source[name] for name in names], made):
        setting = _setting(one.entry)
        lines += ["", f"{one.label}: {_when(one.entry)}{note(one.label)}"]
        details = [
            setting if setting != before else "same code and versions",
            *_origin(one),
            *_inputs(one, owner, note),
        ]
        lines += [f"    {line}" for line in details]
        before = setting
    return [*lines, "", *_contracts(verdict.run)]


def _when(entry: Mapping[str, Any]) -> str:
    parts = [
        entry.get("status", "unknown"),
        str(entry.get("started") or "").replace("T", " ").replace("+00:00", " UTC"),
    ]
    parts += [duration_text(entry["seconds"])] if entry.get("seconds") is not None else []
    parts += [f"peak memory {entry['peak_memory_mb']:,.0f} MB"] if entry.get("peak_memory_mb") else []
    parts += [f"takes up {len(entry['earlier'])} that ended early"] if entry.get("earlier") else []
    return ", ".join(part for part in parts if part)


def _setting(entry: Mapping[str, Any]) -> str:
    """Return code and versions in one line, which is not repeated while it stays the same."""
    code, versions = entry.get("code"), entry.get("versions") or {}
    if not code:
        return "code and versions were not recorded"
    commit = f"commit {code['commit'][:DIGITS]}" if code.get("commit") else "no commit known"
    changed = ", changed since (dirty)" if code.get("dirty") else ""
    listed = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    return f"code: {commit}{changed}, package sha256 {str(code.get('package'))[:DIGITS]}; {listed}"


def _origin(one: Made) -> list[str]:
    entry, store = one.entry, UNHASHED.get(one.stage.name, "")
    seeds = ", ".join(f"{name} {value}" for name, value in (entry.get("seeds") or {}).items())
    lines = [f"notebook {entry.get('notebook', one.stage.notebook)}{f'; seeds: {seeds}' if seeds else ''}"]
    lines += [f"weights {name}  sha256 {found[:DIGITS]}" for name, found in (entry.get("weights") or {}).items()]
    lines += [f"contracts of {name}  sha256 {found[:DIGITS]}" for name, found in (entry.get("contracts") or {}).items()]
    return lines + (
        [f"and {store}, which grows: no hash is kept"] if store and (one.iteration.run / store).is_file() else []
    )


def _inputs(one: Made, owner: Mapping[str, list[Made]], note: Note) -> list[str]:
    """Return the lines that say what a stage read, by the stage that made it."""
    groups: dict[str, list[str]] = {}
    for name, known in one.inputs.items():
        if name in owner:
            maker = owner[name][-1]
            other = " (in another version)" if maker.outputs[name] != known else note(name)
            groups.setdefault(f"from {maker.label}", []).append(name + other)
        elif one.from_outside(name):
            value = Path(str(one.entry["parameters"].get(name, ""))).name
            groups.setdefault("from outside", []).append(f"{' '.join([name, *value.split()])}  sha256 {known[:DIGITS]}")
        else:
            groups.setdefault("made by no stage", []).append(name + note(name))
    return [f"{source}: {', '.join(_short(names))}" for source, names in sorted(groups.items(), reverse=True)]


def _short(names: Sequence[str]) -> list[str]:
    """Return names, with the files of a large folder as one, unless something is to be said of a file."""
    folders: dict[str, list[str]] = {}
    for name in names:
        parts = name.split("/")
        top = "/".join(parts[: 3 if parts[1:2] == ["adapters"] else 2])
        folders.setdefault(name if len(parts) < 3 or name.endswith(")") else top, []).append(name)
    short = [
        inside if len(inside) <= SHOWN_DIGITS else [f"{top}/ ({len(inside)} files)"] for top, inside in folders.items()
    ]
    return [item for items in short for item in items]


def _contracts(run: Path) -> list[str]:
    """Return a line on each file of the contracts that everything comes from."""
    return [_counted(run, path) for path in (run / "contracts.jsonl", *sorted(run.glob("iter-*/arrived.jsonl")))]


def _counted(run: Path, path: Path) -> str:
    try:
        records = [record for record in files.read_jsonl(path) if "reason" not in record]  # those were left out
    except InputError as error:
        return str(error)
    splits = Counter(str(record.get("split", "unknown")) for record in records)
    listed = ", ".join(f"{count} {split}" for split, count in splits.items())
    return f"{path.relative_to(run).as_posix()}: {len(records)} contracts ({listed})"
