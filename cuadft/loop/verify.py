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
from cuadft.core.recorded import run_iterations
from cuadft.data.rows import CORRECTED
from cuadft.evaluation.answer_files import count_of
from cuadft.loop import lineage
from cuadft.loop.kernel import is_locked
from cuadft.loop.lineage import Lineage, StageRecord
from cuadft.loop.manifest import may_rewrite
from cuadft.loop.stages import SHARED, STAGE_NAMES

FINDING_KINDS = ("damaged", "changed", "missing", "stale", "unfinished", "unaccounted")
KNOWN_FILES = (  # patterns, from the run folder, of files that no stage records
    r"run\.json|report\.html|\.lock|\.hashes\.json|history\.jsonl|feedback\.sqlite(-wal|-shm|-journal)?|corrections\.jsonl",
    r"(trackers|evaluations|reviews)/.+",
    r"iter-\d+/(manifest|by_hand|\.note)\.json",  # .note: on calls of an endpoint, for the loop
    rf"iter-\d+/executed/({'|'.join(STAGE_NAMES)})\.ipynb",
    r"iter-\d+/(.+/)?\.[^/]+-(work|new)/.+",  # checkpoints of unfinished training
    r"iter-\d+/preferences/candidates\.\d+\.jsonl",  # answers that pairs were chosen from
)
HASH_DIGITS = 12  # digits of a hash that are shown
SHOWN_FINDINGS = 20  # findings of one kind
SHOWN_NAMES = 3  # reasons or files that are named one by one
ADVICE = """The same `cuadft run` command makes again what is changed, missing, stale or unfinished.
An unaccounted file is never read: delete it, or move it elsewhere.
A damaged manifest.json: restore it, or delete it and let `cuadft run` make the iteration again."""


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be; `kind` is one of FINDING_KINDS, `name` a file or stage."""

    kind: str
    name: str
    detail: str


@dataclass(frozen=True)
class Verification:
    """What `verify_run` found.

    names: the files whose chain was checked, empty for the whole run. n_files, n_bytes: what was read again.
    """

    run: Path
    lineage: Lineage
    names: list[str]
    findings: list[Finding]
    n_files: int
    n_bytes: int


def verify_run(run_dir: str | Path, artefact: str = "") -> Verification:
    """Compute the hash of every recorded file again, without the cache, and compare all that lies in a run folder.

    artefact: a recorded file or folder; only its chain back to the contracts is checked. Raises InputError if there is
    no run or no such artefact. A damaged manifest is a finding.
    """
    run = runs.resolve_path(run_dir)
    iterations = run_iterations(run)
    known, findings = _read_records(iterations)
    names = lineage.resolve_artefact(run, artefact, known.writers) if artefact else []
    chain = known.ancestors(names) if artefact else known.records
    sizes = {path.relative_to(run).as_posix(): path.stat().st_size for path in run.rglob("*") if path.is_file()}
    wanted = {*(names if artefact else known.writers), *(name for record in chain for name in record.inputs)}
    hashes = {name: _hash(run / name) for name in sorted(wanted & set(sizes))}
    findings += _changed_outputs(known, sorted(wanted & set(known.writers)), hashes)
    for record in chain:
        findings += _stale(record, known, hashes) if _is_done(record) else [_unfinished(record, run)]
    if not artefact:
        findings += _unrecorded_files(known.records, set(sizes) - set(known.writers))
        findings += [finding for iteration in iterations for finding in _stages_to_come(iteration, known.records)]
    findings.sort(key=lambda found: (FINDING_KINDS.index(found.kind), found.name))
    return Verification(run, known, names, findings, len(hashes), sum(sizes[name] for name in hashes))


def verification_text(verdict: Verification) -> str:
    """Return the findings as text, after the chain if an artefact was asked for."""
    lines = [*_chain_lines(verdict), ""] if verdict.names else []
    lines.append(f"{verdict.run}: {verdict.n_files} files read again ({verdict.n_bytes / 1e6:,.1f} MB)")
    counts = Counter(finding.kind for finding in verdict.findings)
    for kind in counts:
        found = [f"{each.name}: {each.detail}" for each in verdict.findings if each.kind == kind]
        lines += [f"{kind:<12}{line}" for line in _first(found, SHOWN_FINDINGS)]
    if not counts:
        return "\n".join([*lines, "All is well."])
    return "\n".join([*lines, f"Not well: {', '.join(f'{count} {kind}' for kind, count in counts.items())}.", ADVICE])


def _first(found: Sequence[str], shown: int = SHOWN_NAMES) -> list[str]:
    """Return the first of some texts, and how many more there are."""
    return [*found[:shown], *([f"and {len(found) - shown} more"] if len(found) > shown else [])]


def _chain_lines(verdict: Verification) -> Iterator[str]:
    """Yield lines from artefacts back to the contracts: each stage once, the latest first, with what it read."""
    writers = verdict.lineage.writers
    faults = {finding.name: f" ({finding.kind})" for finding in verdict.findings}
    made = [f"{name}  sha256 {writers[name][-1].outputs[name][:HASH_DIGITS]}" for name in verdict.names]
    yield from _first([line + faults.get(name, "") for line, name in zip(made, verdict.names, strict=True)])
    for record in verdict.lineage.ancestors(verdict.names):
        yield f"\n{record.label}: {_making(record.entry)}{faults.get(record.label, '')}"
        hashed = (record.entry.get("weights") or {}) | (record.entry.get("contracts") or {})
        yield from (f"    {name}  sha256 {found[:HASH_DIGITS]}" for name, found in hashed.items())
        yield from _feedback_lines(verdict.run, record)
        sources: dict[str, list[str]] = {}
        for name in sorted(record.inputs, key=lambda name: name not in faults):  # one with a fault is always named
            source = f"from {writers[name][-1].label}" if name in writers else "made by no stage of the run"
            sources.setdefault(source, []).append(name + faults.get(name, ""))
        yield from (f"    {source}: {', '.join(_first(sources[source]))}" for source in sorted(sources, reverse=True))


def _feedback_lines(run: Path, record: StageRecord) -> Iterator[str]:
    """Yield a line on the corrected questions that a stage took from people, if it took any."""
    for name in record.outputs:
        if name == f"{record.iteration.dir.name}/{CORRECTED}" and (run / name).is_file():
            lines = files.read_jsonl(run / name)
            asked = [row["id"] for line in lines for row in line["rows"]]
            told = f"{count_of(len(asked), 'question')} on {count_of(len(lines), 'contract')}"
            shown = ", ".join(_first(asked))
            yield f"    human feedback ({name}): {told}: {shown}"


def _making(entry: Mapping[str, Any]) -> str:
    """Return when and by what a stage was made; what an older version did not record is left out."""
    code = entry.get("code") or {}
    known = {"": f"{entry.get('status')}, {entry.get('started')}", "seconds": entry.get("seconds")}
    known |= {"peak memory in MB": entry.get("peak_memory_mb"), "attempts before": len(entry.get("earlier", []))}
    known |= {name: (code.get(name) or "")[:HASH_DIGITS] for name in ("commit", "package")}
    known |= {"dirty": code.get("dirty"), "environment": entry.get("environment")} | (entry.get("seeds") or {})
    return ", ".join(f"{name} {value}".strip() for name, value in known.items() if value not in (None, 0, ""))


# What is checked.


def _read_records(iterations: Sequence[runs.Iteration]) -> tuple[Lineage, list[Finding]]:
    """Return the records of all iterations, and a finding for each manifest that can't be read."""
    records, findings = [], []
    for iteration in iterations:
        try:
            records += lineage.stage_records(iteration)
        except InputError as error:
            findings.append(Finding("damaged", f"{iteration.dir.name}/manifest.json", str(error)))
    return Lineage(records), findings


def _is_done(record: StageRecord) -> bool:
    return record.entry.get("status") == "done"


def _hash(path: Path) -> str:
    """Return the SHA-256 of a file or folder; "" if it is gone or can't be read."""
    try:
        return files.file_hash(path)
    except OSError:
        return ""


def _changed_outputs(known: Lineage, names: Iterable[str], hashes: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a finding for each output that is not as the last of its stages left it."""
    unfinished = [record for record in known.records if not _is_done(record)]
    for name in names:
        stages, now = known.writers[name], hashes.get(name)
        recorded, last = [stage.outputs[name] for stage in stages], stages[-1]
        if now == recorded[-1] or any(_may_be_writing(record, last, name) for record in unfinished):
            continue
        if now is None:
            yield Finding("missing", name, f"{last.label} made it")
        elif now in recorded:
            yield Finding("stale", name, f"{stages[recorded.index(now)].label} wrote it again, after {last.label}")
        else:
            seen = f"it has {now[:HASH_DIGITS]}" if now else "it can't be read"
            then = recorded[-1][:HASH_DIGITS]
            yield Finding("changed", name, f"{last.label} wrote it with sha256 {then}, now {seen}")


def _may_be_writing(later: StageRecord, wrote: StageRecord, name: str) -> bool:
    """Tell whether an unfinished stage may have begun to write the file again."""
    after = later.iteration == wrote.iteration and later.order > wrote.order
    return after and may_rewrite(later.stage, later.entry, wrote.stage, name)


def _stale(record: StageRecord, of_run: Lineage, hashes: Mapping[str, str]) -> list[Finding]:
    """Return a finding if the stage read other inputs than lie there now, or if an input has come since."""
    reasons = []
    for name, known in record.inputs.items():
        if name in of_run.writers:
            last = of_run.writers[name][-1]
            reasons += [f"{last.label} has made {name} again"] if last.outputs[name] != known else []
        elif name.partition(" ")[0] in record.entry.get("parameters", {}):
            continue  # a file of the user's outside the run folder, named by its parameter; the loop compares it
        elif hashes.get(name) != known:
            reasons.append(f"{name} has changed" if name in hashes else f"{name} is gone")
    come = [name for name in record.files(record.stage.reads) if name not in record.inputs]
    reasons += [f"{name} has come since" for name in come if name in of_run.writers or name.endswith("by_hand.json")]
    return [Finding("stale", record.label, f"made from other inputs: {'; '.join(_first(reasons))}")] if reasons else []


def _unfinished(record: StageRecord, run: Path) -> Finding:
    status, reason = str(record.entry.get("status")), str(record.entry.get("error") or "").split("\n")[0]
    if status == "running":
        status = "running now" if is_locked(run) else "interrupted"
    return Finding("unfinished", record.label, f"{status}: {reason}" if reason else status)


def _stages_to_come(iteration: runs.Iteration, records: Iterable[StageRecord]) -> list[Finding]:
    """Return a finding on the stages that are still to come; those left out while later ones ran are no fault."""
    recorded = {record.stage.name for record in records if record.iteration == iteration}
    last = max((place for place, name in enumerate(STAGE_NAMES) if name in recorded), default=-1)
    detail = f"not run yet: {', '.join(STAGE_NAMES[last + 1 :])}"
    return [Finding("unfinished", f"iteration {iteration.number}", detail)] if last + 1 < len(STAGE_NAMES) else []


def _unrecorded_files(records: Sequence[StageRecord], names: Iterable[str]) -> Iterator[Finding]:
    """Yield a finding on each file that no stage has recorded or begun, and that is of no known kind."""
    unfinished = [record for record in records if not _is_done(record)]
    begun = {name for record in unfinished for name in record.files((*record.stage.writes, *SHARED))}
    for name in names:
        if name not in begun and not any(re.fullmatch(pattern, name) for pattern in KNOWN_FILES):
            yield Finding("unaccounted", name, "no stage has recorded it")
