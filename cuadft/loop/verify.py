"""Verify a run folder: compute every hash again, and name what is changed, missing, stale or unaccounted for.

    verdict = verify_run("runs/quickstart")
    print(verification_text(verdict))  # what `cuadft verify` prints
    verdict = verify_run("runs/quickstart", "iter-02/adapters/sft")  # only this artefact and what it was made from

With an artefact, the text begins with its chain: the stages back to the contracts, and what each of them read.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.loop import lineage
from cuadft.loop.kernel import is_locked
from cuadft.loop.lineage import StageRecord
from cuadft.loop.manifest import may_rewrite
from cuadft.loop.stages import SHARED, STAGE_NAMES
from cuadft.loop.status import duration_text

FINDING_KINDS = ("damaged", "changed", "missing", "stale", "unfinished", "leftover", "unaccounted")
KNOWN_FILES = {  # files that no stage records: pattern of the path from the run folder -> what they are
    r"run\.json": "what made the run",
    r"\.lock": "lock of the run folder",
    r"\.hashes\.json": "cache of hashes",
    r"feedback\.sqlite(-wal|-shm|-journal)?": "people's verdicts",
    r"history\.jsonl": "history of the champion",
    r"trackers/.+": "files of trackers",
    r"evaluations/.+": "evaluations of other files",
    r"iter-\d+/manifest\.json": "records of stages",
    r"iter-\d+/by_hand\.json": "champion chosen by hand",
    r"iter-\d+/\.note\.json": "note on calls of an endpoint, for the loop",
    rf"iter-\d+/executed/({'|'.join(STAGE_NAMES)})\.ipynb": "executed notebooks",
    r"iter-\d+/(.+/)?\.[^/]+-(work|new)/.+": "checkpoints of unfinished training",
    r"iter-\d+/preferences/candidates\.\d+\.jsonl": "candidate answers that pairs were chosen from",
}
HASH_DIGITS = 12  # digits of a hash that are shown
SHOWN_REASONS = 3  # reasons why a stage is stale
SHOWN_FINDINGS = 20  # findings of one kind
SHOWN_FILES = 3  # files of one maker that are named one by one
UNHASHED = {"align": "feedback.sqlite"}  # the stage reads it too; it grows, so that no hash of it could hold
ADVICE = {
    "damaged": "A damaged manifest.json: restore it, or delete it and let `cuadft run` make the iteration again.",
    "again": "The same `cuadft run` command makes again what is changed, missing, stale or unfinished.",
    "beside": "Leftovers and files that no stage recorded are never read; delete them, or move them elsewhere.",
}
REMEDIES = {"damaged": "damaged", "leftover": "beside", "unaccounted": "beside"}  # the other kinds: "again"
Written = Mapping[str, list[StageRecord]]  # output -> the stages that wrote it, the last of them latest


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be; `kind` is one of FINDING_KINDS, `name` a file or stage."""

    kind: str
    name: str
    detail: str


@dataclass(frozen=True)
class Verification:
    """What `verify_run` found.

    records: the recorded stages. names: the files whose chain was checked, empty for the whole run. n_files, n_bytes:
    what was read again. others: how many known files lie beside the recorded ones, by what they are.
    """

    run: Path
    records: tuple[StageRecord, ...]
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
    iterations, working = lineage.run_iterations(run), is_locked(run)
    records, findings = _read_records(iterations)
    made_by, written_by = lineage.artefacts(records), lineage.writers(records)
    names = lineage.resolve_artefact(run, artefact, made_by) if artefact else []
    chain = lineage.artefact_ancestors([made_by[name] for name in names], records) if artefact else records
    sizes = {path.relative_to(run).as_posix(): path.stat().st_size for path in run.rglob("*") if path.is_file()}
    wanted = {*(names if artefact else written_by), *(name for record in chain for name in record.inputs)}
    hashes = {name: _hash(run / name) for name in sorted(wanted & set(sizes))}
    findings += _changed_outputs({name: written_by[name] for name in sorted(wanted & set(written_by))}, hashes, records)
    for record in chain:
        findings += _stale(record, written_by, hashes) if record.done else [_unfinished(record, working)]
    notes, others = ["`cuadft run` works there now: this is a snapshot"] if working else [], Counter[str]()
    if not artefact:
        unrecorded, others = _unrecorded_files(run, records, set(sizes) - set(written_by))
        findings += unrecorded
        for iteration in iterations:
            to_come, left_out = _stages_not_run(iteration, records)
            findings, notes = findings + to_come, notes + left_out
    findings.sort(key=lambda found: (FINDING_KINDS.index(found.kind), found.name))
    read = (len(hashes), sum(sizes[name] for name in hashes))
    return Verification(run, tuple(records), tuple(names), tuple(findings), *read, others, tuple(notes))


def verification_text(verdict: Verification) -> str:
    """Return the findings as text, after the chain if an artefact was asked for."""
    lines = [*_chain_lines(verdict), ""] if verdict.names else []
    what = "the chain" if verdict.names else f"{len(verdict.records)} stages"
    lines.append(f"{verdict.run}: {verdict.n_files} files of {what} read again ({verdict.n_bytes / 1e6:,.1f} MB)")
    beside = [f"{count} {what}" for what, count in sorted(verdict.others.items())]
    lines += [f"  beside them: {', '.join(beside)}"] if beside else []
    lines += [f"  {note}" for note in verdict.notes]
    counts = Counter(finding.kind for finding in verdict.findings)
    for kind, count in counts.items():
        found = [finding for finding in verdict.findings if finding.kind == kind]
        lines += [f"{kind:<12}{finding.name}: {finding.detail}" for finding in found[:SHOWN_FINDINGS]]
        lines += [f"{'':<12}and {count - SHOWN_FINDINGS} more"] if count > SHOWN_FINDINGS else []
    if not counts:
        return "\n".join([*lines, "All is well."])
    lines.append(f"Not well: {', '.join(f'{count} {kind}' for kind, count in counts.items())}.")
    return "\n".join([*lines, *dict.fromkeys(ADVICE[REMEDIES.get(kind, "again")] for kind in counts)])


def _chain_lines(verdict: Verification) -> Iterator[str]:
    """Yield lines from artefacts back to the contracts: each stage once, the latest first, with what it read."""
    records, names = verdict.records, verdict.names
    made_by, written_by, before = lineage.artefacts(records), lineage.writers(records), ""
    faults = {finding.name: f" ({finding.kind})" for finding in verdict.findings}
    for name in names[:SHOWN_FILES]:
        yield f"{name}  sha256 {made_by[name].outputs.get(name, 'not kept')[:HASH_DIGITS]}{faults.get(name, '')}"
    if len(names) > SHOWN_FILES:
        yield f"and {len(names) - SHOWN_FILES} more files there"
    for record in lineage.artefact_ancestors([made_by[name] for name in names], records):
        code = _code_and_versions(record.entry)
        details = [code if code != before else "same code and versions", *_sources(record)]
        yield f"\n{record.label}: {_when(record.entry)}{faults.get(record.label, '')}"
        yield from (f"    {line}" for line in [*details, *_inputs(record, written_by, faults)])
        before = code
    for path in (verdict.run / "contracts.jsonl", *sorted(verdict.run.glob("iter-*/arrived.jsonl"))):
        yield f"\n{path.relative_to(verdict.run).as_posix()}: {_contracts(path)}"


# What is checked.


def _read_records(iterations: Sequence[runs.Iteration]) -> tuple[list[StageRecord], list[Finding]]:
    """Return the records of all iterations, and a finding for each manifest or record that can't be read."""
    records, findings = [], []
    for iteration in iterations:
        name, path = f"{iteration.dir.name}/manifest.json", iteration.path("manifest.json")
        try:
            here = lineage.stage_records(iteration)
            read = {record.stage.name for record in here}
            lost = set(files.read_json(path)["stages"]) - read if path.is_file() else set()
        except InputError as error:
            here, lost = [], set()
            findings.append(Finding("damaged", name, str(error)))
        records += here
        findings += [Finding("damaged", name, f"the record of {stage} can't be read") for stage in sorted(lost)]
    return records, findings


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file or folder; "" if it is gone or can't be read."""
    try:
        return files.file_hash(path)
    except OSError:
        return ""


def _changed_outputs(
    written_by: Written, hashes: Mapping[str, str], records: Iterable[StageRecord]
) -> Iterator[Finding]:
    """Yield a finding for each output that is not as the last of its stages left it."""
    unfinished = [record for record in records if not record.done]
    for name, stages in written_by.items():
        known, last, now = [stage.outputs[name] for stage in stages], stages[-1], hashes.get(name)
        if now == known[-1] or any(_may_be_writing(record, last, name) for record in unfinished):
            continue
        if now is None:
            yield Finding("missing", name, f"{last.label} made it")
        elif now in known:
            yield Finding("stale", name, f"{stages[known.index(now)].label} wrote it again, after {last.label}")
        else:
            seen = f"it has {now[:HASH_DIGITS]}" if now else "it can't be read"
            yield Finding("changed", name, f"{last.label} wrote it with sha256 {known[-1][:HASH_DIGITS]}, now {seen}")


def _may_be_writing(later: StageRecord, wrote: StageRecord, name: str) -> bool:
    """Tell whether an unfinished stage may have begun to write the file again."""
    after = later.iteration == wrote.iteration and later.order > wrote.order
    return after and may_rewrite(later.stage, later.entry, wrote.stage, name)


def _stale(record: StageRecord, written_by: Written, hashes: Mapping[str, str]) -> list[Finding]:
    """Return a finding if the stage read other inputs than lie there now, or if an input has come since."""
    reasons = []
    for name, known in record.inputs.items():
        if name in written_by:
            last = written_by[name][-1]
            reasons += [f"{last.label} has made {name} again"] if last.outputs[name] != known else []
        elif record.from_outside(name):
            changed = _hash_outside(record, name) not in ("", known)
            reasons += [f"{name} (not in the run folder) has changed"] if changed else []
        elif hashes.get(name) != known:
            reasons.append(f"{name} has changed" if name in hashes else f"{name} is gone")
    come = [name for name in record.files(record.stage.reads) if name not in record.inputs]
    reasons += [f"{name} has come since" for name in come if name in written_by or name.endswith("by_hand.json")]
    more = [f"{len(reasons) - SHOWN_REASONS} more such"] if len(reasons) > SHOWN_REASONS else []
    text = f"made from other inputs: {'; '.join(reasons[:SHOWN_REASONS] + more)}"
    return [Finding("stale", record.label, text)] if reasons else []


def _hash_outside(record: StageRecord, name: str) -> str:
    """Return the hash of the file or folder that a parameter names, "" if it is not here now."""
    parameter, _, folder = name.partition(" ")  # "cuad", or "seed_runs FOLDER"
    value = f"{folder}/{record.iteration.dir.name}/predictions" if folder else record.entry["parameters"][parameter]
    path = runs.project_root() / str(value)
    return _hash(path) if value and path.exists() else ""


def _unfinished(record: StageRecord, working: bool) -> Finding:
    status = str(record.entry.get("status"))
    if status == "running":
        return Finding("unfinished", record.label, "running now" if working else "interrupted")
    reason = str(record.entry.get("error") or record.entry.get("reason") or "").split("\n")[0]
    return Finding("unfinished", record.label, f"{status}: {reason}" if reason else status)


def _stages_not_run(iteration: runs.Iteration, records: Iterable[StageRecord]) -> tuple[list[Finding], list[str]]:
    """Return a finding on the stages that are still to come, and a note on those left out while later ones ran."""
    recorded = {record.stage.name for record in records if record.iteration == iteration}
    label = f"iteration {iteration.number}"
    last = max((place for place, name in enumerate(STAGE_NAMES) if name in recorded), default=-1)
    to_come = STAGE_NAMES[last + 1 :]
    left_out = [name for name in STAGE_NAMES[: max(last, 0)] if name not in recorded]
    findings = [Finding("unfinished", label, f"not run yet: {', '.join(to_come)}")] if to_come else []
    return findings, [f"{label} has left out {', '.join(left_out)}"] if left_out else []


def _unrecorded_files(
    run: Path, records: Sequence[StageRecord], names: Iterable[str]
) -> tuple[list[Finding], Counter[str]]:
    """Return findings on files that no stage has recorded, and how many of each known kind there are."""
    findings, others = [], Counter[str]()
    unfinished = [record for record in records if not record.done]
    begun = {name: record for record in unfinished for name in record.files((*record.stage.writes, *SHARED))}
    for name in sorted(names):
        kind = next((what for pattern, what in KNOWN_FILES.items() if re.fullmatch(pattern, name)), "")
        if files.is_leftover(run / name.removesuffix("-journal")):
            detail = "the temporary part of a write that was killed; it may be deleted"
            findings.append(Finding("leftover", name, detail))
        elif kind or name in begun:
            others[kind or f"files of {begun[name].label}, which has not finished"] += 1
        else:
            findings.append(Finding("unaccounted", name, "no stage has recorded it"))
    return findings, others


# How the chain is shown.


def _when(entry: Mapping[str, Any]) -> str:
    parts = [entry.get("status", "unknown"), entry.get("started")]
    parts += [duration_text(entry["seconds"])] if entry.get("seconds") is not None else []
    parts += [f"peak memory {entry['peak_memory_mb']:,.0f} MB"] if entry.get("peak_memory_mb") else []
    parts += [f"takes up {len(entry['earlier'])} that ended early"] if entry.get("earlier") else []
    return ", ".join(part for part in parts if part)


def _code_and_versions(entry: Mapping[str, Any]) -> str:
    """Return code and versions in one line, which is not repeated while it stays the same."""
    code = entry.get("code")
    if not code:
        return "code and versions were not recorded"
    dirty = ", changed since (dirty)" if code.get("dirty") else ""
    known = {"commit": code.get("commit"), "package sha256": code.get("package")}
    shown = ", ".join(f"{name} {str(value)[:HASH_DIGITS]}" for name, value in known.items())
    return f"code: {shown}{dirty}; {_listed(entry.get('versions'))}"


def _listed(known: Mapping[str, Any] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (known or {}).items() if value is not None)


def _sources(record: StageRecord) -> list[str]:
    """Return the lines on notebook, seeds, weights and contracts."""
    entry, unhashed = record.entry, UNHASHED.get(record.stage.name, "")
    lines = [f"notebook {entry.get('notebook', record.stage.notebook)}; seeds: {_listed(entry.get('seeds'))}"]
    for what, key in (("weights", "weights"), ("contracts of", "contracts")):
        known = (entry.get(key) or {}).items()
        lines += [f"{what} {name}  sha256 {found[:HASH_DIGITS]}" for name, found in known]
    if unhashed and (record.iteration.run / unhashed).is_file():
        lines.append(f"and {unhashed}, which grows: no hash is kept")
    return lines


def _inputs(
    record: StageRecord, written_by: Mapping[str, list[StageRecord]], faults: Mapping[str, str]
) -> Iterator[str]:
    """Yield a line for each stage that made what this stage read; a file with a fault is always named."""
    groups: dict[str, list[str]] = {}
    for name, known in record.inputs.items():
        source, shown = "made by no stage", name + faults.get(name, "")
        if name in written_by:
            last = written_by[name][-1]
            source = f"from {last.label}"
            shown = f"{name} (in another version)" if last.outputs[name] != known else shown
        elif record.from_outside(name):
            value = Path(str(record.entry["parameters"].get(name, ""))).name
            source, shown = "from outside", f"{' '.join([name, *value.split()])}  sha256 {known[:HASH_DIGITS]}"
        groups.setdefault(source, []).append(shown)
    for source, names in sorted(groups.items(), reverse=True):
        short = [name for place, name in enumerate(names) if place < SHOWN_FILES or name.endswith(")")]
        rest = [f"{len(names) - len(short)} more"] if len(names) > len(short) else []
        yield f"{source}: {', '.join(short + rest)}"


def _contracts(path: Path) -> str:
    """Return how many contracts of each split a file holds: the ones that everything comes from."""
    try:
        records = [record for record in files.read_jsonl(path) if "reason" not in record]  # a reason: it was left out
    except InputError as error:
        return str(error)
    splits = Counter(str(record.get("split", "unknown")) for record in records)
    return f"{len(records)} contracts ({', '.join(f'{count} {split}' for split, count in splits.items())})"
