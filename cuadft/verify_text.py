"""What `cuadft verify` prints: findings by kind, what to do about them, and an artefact's chain back to the contracts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuadft import files, lineage
from cuadft.errors import InputError
from cuadft.lineage import Made
from cuadft.overview import duration
from cuadft.verify import DIGITS, KINDS, Verdict

MOST = 20  # findings of one kind that are shown
SHOWN = 3  # files of one folder that are named one by one
UNHASHED = {"align": "feedback.sqlite"}  # read as well; it grows, so that no hash of it could hold
AGAIN = "The same `cuadft run` command makes again what is changed, missing, stale or unfinished"
ADVICE = {
    "damaged": "A damaged manifest.json: restore it, or delete it and let `cuadft run` make the iteration again.",
    "changed": f"{AGAIN}.", "missing": f"{AGAIN}.", "stale": f"{AGAIN}.", "unfinished": f"{AGAIN}.",
    "leftover": "Leftovers and files that no stage recorded are never read; delete them, or move them elsewhere.",
    "unaccounted": "Leftovers and files that no stage recorded are never read; delete them, or move them elsewhere.",
}  # fmt: skip
Note = Callable[[str], str]


def text(verdict: Verdict) -> str:
    """Return the findings as text, after the chain if an artefact was asked for."""
    lines = [*chain(verdict), ""] if verdict.names else []
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
    return "\n".join([*lines, f"Not well: {', '.join(f'{counts[kind]} {kind}' for kind in KINDS if kind in counts)}.", *advice])


def chain(verdict: Verdict) -> list[str]:
    """Return the lines from artefacts back to the contracts: each stage once, the latest first, with what it read."""
    made, names = verdict.made, verdict.names
    source, owner, lines, before = lineage.artefacts(made), lineage.makers(made), [], ""
    faults = {finding.name: f" ({finding.kind})" for finding in verdict.findings}

    def note(name: str) -> str:
        return faults.get(name, "")

    for name in names[:SHOWN]:
        known = source[name].outputs.get(name, "")
        lines.append(f"{name}{f'  sha256 {known[:DIGITS]}' if known else ''}{note(name)}")
    lines += [f"and {len(names) - SHOWN} more files there"] if len(names) > SHOWN else []
    for one in lineage.ancestors([source[name] for name in names], made):
        setting = _setting(one.entry)
        lines += ["", f"{one.label}: {_when(one.entry)}{note(one.label)}"]
        details = [setting if setting != before else "same code and versions", *_origin(one), *_inputs(one, owner, note)]
        lines += [f"    {line}" for line in details]
        before = setting
    return [*lines, "", *_contracts(verdict.run)]


def _when(entry: Mapping[str, Any]) -> str:
    parts = [entry.get("status", "unknown"), str(entry.get("started") or "").replace("T", " ").replace("+00:00", " UTC")]
    parts += [duration(entry["seconds"])] if entry.get("seconds") is not None else []
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
    return lines + ([f"and {store}, which grows: no hash is kept"] if store and (one.iteration.run / store).is_file() else [])


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
    short = [inside if len(inside) <= SHOWN else [f"{top}/ ({len(inside)} files)"] for top, inside in folders.items()]
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
