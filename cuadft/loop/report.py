"""Show a whole run on one web page, for people who did not watch it: what was asked, what came of it, and the cost.

    write_report("runs/quickstart")  # what `cuadft report` does; returns runs/quickstart/report.html

The page holds all that it needs. Every number is the run's own: it stands in a file of the run folder, or is computed
from one as a notebook computes it. A part that is None has not been made yet, and the page says so; a part that can't
be read says why, and the others are shown. What the page shows of scores is in `report_scores`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cuadft.core import files, params, runs
from cuadft.core.errors import InputError, brief, redact
from cuadft.core.pages import page_template
from cuadft.core.recorded import recorded_parameters, run_iterations
from cuadft.core.runs import CHAMPION_PARTS, GATE_ACTIONS, Iteration, champion_label
from cuadft.data.rows import contract_records, corrected_lines, questions_table, read_rows
from cuadft.data.schema import newest_schema
from cuadft.evaluation.answer_files import count_of
from cuadft.loop import report_scores
from cuadft.loop.kernel import is_locked
from cuadft.loop.lineage import Lineage, StageRecord, stage_records
from cuadft.loop.manifest import Manifest
from cuadft.loop.stages import STAGES
from cuadft.loop.status import REPORT, api_use, duration_text
from cuadft.loop.trackers import NOT_SHOWN, clean_text, value_text

Part = Mapping[str, Any] | None
SETS_OF_ALL, SETS_OF_EACH = ("dev", "test"), ("train", "synthetic", "slices")  # of all iterations, and of each
SPLIT_WORDS = {"train": "for training", "slice": "held out of the slices", "dev": "for dev", "test": "for test"}
SPLIT_WORDS |= {"all": "in every split", "plain": "without annotations"}
FIRST_FACTS = ("model", "embedder", "generator_lm", "judge_lm", "align_methods", "seed", "split", "stream")
HASH_DIGITS = 12  # digits of a hash that are shown


def write_report(run_dir: str | Path, out: str | Path = "", *, log: Callable[[str], object] = print) -> Path:
    """Write the page of a run, by default to report.html in its folder, and return its path.

    A part that can't be shown is logged. Raises InputError if there is no run in the folder, or if `out` is no HTML
    file.
    """
    run = runs.resolve_path(run_dir)
    iterations = run_iterations(run)
    path = Path(out).expanduser() if str(out) else run / REPORT
    if path.suffix.lower() not in (".html", ".htm") or path.is_dir():
        raise InputError(f"Invalid --out {str(out)!r}: name a file that ends in .html.")
    parts = {name: _part(make, iterations) for name, make in PARTS.items()}
    for name, part in parts.items():
        if part and "problem" in part:
            log(f"Not shown: {name}: {part['problem']}")
    shown = _without_secrets({"words": newest_schema(run).naming, **parts})
    page = page_template("cuadft.loop", "report.html").render(images=True, **shown)
    files.write_text(path, page)
    return path


def _part(make: Callable[[Sequence[Iteration]], Part], iterations: Sequence[Iteration]) -> Part:
    """Return a part of the page; why it can't be shown, if a file of the run is damaged or of another version."""
    try:
        return make(iterations)
    except (ValueError, KeyError, OSError) as error:
        return {"problem": clean_text(error if isinstance(error, InputError) else brief(error))}


def _without_secrets(value: Any) -> Any:
    """Return what a page shows without secrets: parameters hold none by design, but an answer or an error might."""
    if isinstance(value, Mapping):
        return {key: _without_secrets(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_secrets(item) for item in value]
    return redact(value) if isinstance(value, str) else value


# What was asked.


def _run_part(iterations: Sequence[Iteration]) -> Part:
    """Return name, times, preset and machine of the run, and how far it has come."""
    run = iterations[0].run
    record = files.read_json(run / "run.json") if (run / "run.json").is_file() else {}
    machines = [one for one in record.get("environments", {}).values() if "machine" in one]
    facts = [
        "{cores} cores, {memory_gb} GB, {system}".format(**one["machine"]) + f", Python {one['python']}"
        for one in machines
    ]
    decided = len(runs.decided_iterations(run))
    return {
        "name": record.get("name", run.name),
        "created": record.get("created", ""),
        "made": runs.history_time(),
        "preset": clean_text(record.get("preset") or ""),
        "machines": list(dict.fromkeys(facts)),
        "iterations": len(iterations),
        "decided": decided,
        "at_work": is_locked(run),
        "undecided": [iteration.number for iteration in iterations[decided:]],
    }


def _asked_part(iterations: Sequence[Iteration]) -> Part:
    """Return the main parameters, the schema, and contracts and questions of each set of the iterations."""
    run = iterations[0].run
    prepared = [iteration for iteration in iterations if iteration.path("data", "train.jsonl").is_file()]
    if not prepared or not (run / "contracts.jsonl").is_file():
        return None
    known, schema = recorded_parameters(prepared[-1]), newest_schema(run)
    wanted = [(prepared[-1], "all", SETS_OF_ALL), *((each, each.number, SETS_OF_EACH) for each in prepared)]
    sets = [
        {"iteration": told} | questions_table({name: read_rows(iteration, name)}, ())[0]
        for iteration, told, names in wanted
        for name in names
        if iteration.path("data", f"{name}.jsonl").is_file()
    ]
    records = contract_records(run)
    splits = Counter(SPLIT_WORDS.get(record["split"], record["split"]) for record in records)
    order = [*SPLIT_WORDS.values(), *splits]
    return {
        "facts": [(name, value_text(known[name])) for name in FIRST_FACTS if known.get(name) not in (None, "", [])],
        "schema": schema.name,
        "questions": len(schema.categories),
        "contracts": len(records),
        "splits": [f"{splits[name]} {name}" for name in dict.fromkeys(order) if splits[name]],
        "sets": sets,
        "held_out": known.get("split") != "none",
    }


def _parameters_part(iterations: Sequence[Iteration]) -> Part:
    """Return the parameters that differ from the notebooks' defaults in any iteration, with value, default and help."""
    declared, rows = params.declared_parameters(runs.project_root() / "notebooks"), []
    recorded = {iteration.number: recorded_parameters(iteration) for iteration in iterations}
    for name in sorted(set(declared) - set(NOT_SHOWN)):
        one = declared[name]
        values = {number: one.accept(known[name]) for number, known in recorded.items() if name in known}
        if all(value == one.default for value in values.values()):
            continue
        texts = {number: value_text(value) for number, value in values.items()}
        same = len(set(texts.values())) == 1
        told = [f"{text}" if same else f"{text} in iteration {number}" for number, text in texts.items()]
        rows.append((name, "; ".join(dict.fromkeys(told)), value_text(one.default), one.help))
    return {"rows": rows} if any(recorded.values()) else None


# What came of it.


def _history_part(iterations: Sequence[Iteration]) -> Part:
    """Return who became champion when, by whom and why, and who is champion now."""
    run = iterations[0].run
    if not (numbers := runs.decided_iterations(run)):
        return None
    lines = [
        {name: line[name] for name in ("time", "iteration", "action")}
        | (
            {"who": "gate", "reason": ""}
            if line["action"] in GATE_ACTIONS
            else {"who": "a person", "reason": line["reason"]}
        )
        | {"before": champion_label(line["from"]), "after": champion_label(line["to"])}
        for line in runs.champion_history(run)
    ]
    last = Iteration(run, numbers[-1])
    by_hand = last.path(runs.BY_HAND).is_file()
    return {"champion": champion_label(runs.outgoing_champion(last)), "by_hand": by_hand, "lines": lines}


# What it cost, and where the champion comes from.


def _cost_part(iterations: Sequence[Iteration]) -> Part:
    """Return time and peak memory of each stage by iteration, their sums, and what API models were asked and cost."""
    recorded = [Manifest(iteration).stages for iteration in iterations]
    if not any(recorded):
        return None
    rows = [(stage.label, [_stage_cost([known.get(stage.name, {})]) for known in recorded]) for stage in STAGES]
    rows.append(("all stages", [_stage_cost(known.values()) for known in recorded]))
    return {
        "iterations": [iteration.number for iteration in iterations],
        "rows": rows,
        "total": _stage_cost(entry for known in recorded for entry in known.values()),
        "apis": api_use(entry for known in recorded for entry in known.values()),
        "per_answer": report_scores.cost_per_answer(iterations),
    }


def _stage_cost(entries: Any) -> str:
    """Return the time that stages took, early ended attempts included, and the highest peak of their memory."""
    attempts = [attempt for entry in entries for attempt in (entry, *entry.get("earlier", []))]
    seconds = [attempt["seconds"] for attempt in attempts if attempt.get("seconds") is not None]
    peaks = [attempt["peak_memory_mb"] for attempt in attempts if attempt.get("peak_memory_mb")]
    ended = [attempt.get("status") for attempt in attempts if attempt.get("status") not in (None, "done")]
    told = [duration_text(sum(seconds))] if seconds else []
    told += [f"{max(peaks) / 1000:.1f} GB"] if peaks else []
    return ", ".join([*told, *dict.fromkeys(ended)])


def _lineage_part(iterations: Sequence[Iteration]) -> Part:
    """Return the parts of the champion, the files and weights that it comes from, and the stages behind it."""
    run = iterations[0].run
    if not (numbers := runs.decided_iterations(run)):
        return None
    champion = runs.outgoing_champion(Iteration(run, numbers[-1]))
    known = Lineage(record for iteration in iterations for record in stage_records(iteration))
    places = {part: champion[part] for part in CHAMPION_PARTS[1:] if champion[part]}
    names = [name for name in known.writers if any(f"{name}/".startswith(f"{place}/") for place in places.values())]
    chain = known.ancestors(names)[::-1]
    made = [record.entry.get(kind) or {} for kind in ("contracts", "weights") for record in chain]
    sources = {clean_text(name): found[:HASH_DIGITS] for each in made for name, found in each.items()}
    corrected = corrected_lines(run, numbers[-1])
    asked = sum(len(line["rows"]) for line in corrected)
    return {
        "champion": champion_label(champion),
        "places": [
            (part, champion[part] or ("the base model" if part == "weights" else "")) for part in CHAMPION_PARTS[1:]
        ],
        "sources": list(sources.items()),
        "feedback": f"{count_of(asked, 'question')} on {len(corrected)}" if corrected else "",
        "chain": [_link(record) for record in chain],
    }


def _link(record: StageRecord) -> dict[str, str]:
    """Return a stage of the chain: what it is, when it began, by which code, and the folders and files that it read."""
    code, parts = record.entry.get("code") or {}, [Path(name).parts for name in record.inputs]
    read = ["/".join(names[: 3 if names[1:2] == ("adapters",) else 2]) for names in parts]
    commit = (code.get("commit") or "no commit")[:HASH_DIGITS]
    return {
        "stage": record.label,
        "started": str(record.entry.get("started") or ""),
        "code": commit + (", with changes" if code.get("dirty") else ""),
        "read": ", ".join(dict.fromkeys(read)),
    }


PARTS: dict[str, Callable[[Sequence[Iteration]], Part]] = {
    "run": _run_part,
    "asked": _asked_part,
    "history": _history_part,
    "results": report_scores.results_part,
    "decisions": report_scores.decisions_part,
    "stream": report_scores.stream_part,
    "training": report_scores.training_part,
    "examples": report_scores.examples_part,
    "cost": _cost_part,
    "lineage": _lineage_part,
    "parameters": _parameters_part,
}
