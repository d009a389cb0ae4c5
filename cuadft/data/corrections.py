"""The contracts that people reviewed and corrected: what they said becomes training rows of the next iteration.

An import adds the corrected questions to the run's corrections.jsonl, one line a contract: its record with its text and
`rows`, whose source is "feedback". Data preparation of an iteration freezes what is there in its corrected.jsonl; what
comes later waits for the iteration after. For example:

    iteration = runs.Iteration(Path("runs/quickstart"), 2)
    [line["title"] for line in take_corrections(iteration)]   # ["supply"]
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cuadft.core import files, runs
from cuadft.data import rows
from cuadft.data.arrivals import groups_of_new
from cuadft.data.contracts import Contract

CORRECTIONS = "corrections.jsonl"  # in the run folder
_Line = dict[str, Any]


def corrections_of(run: Path) -> list[_Line]:
    """Return one line for each corrected contract of a run; of two rows with one question the later one counts."""
    path = run / CORRECTIONS
    merged: dict[str, _Line] = {}
    for line in files.read_jsonl(path, torn_ok=True) if path.is_file() else ():
        known = merged.setdefault(line["text"], line | {"rows": []})
        asked = {row["question"]: row for row in [*known["rows"], *line["rows"]]}
        known["rows"] = list(asked.values())
    return list(merged.values())


def corrected_anew(iteration: runs.Iteration) -> bool:
    """Tell whether there are corrections that the iteration before did not learn from."""
    before = [row for line in rows.corrected_lines(iteration.run, iteration.number - 1) for row in line["rows"]]
    return any(row not in before for line in corrections_of(iteration.run) for row in line["rows"])


def take_corrections(iteration: runs.Iteration) -> list[_Line]:
    """Return the corrected contracts that an iteration learns from, and freeze them in its corrected.jsonl.

    All corrections so far count, in every iteration but the first. Left out are contracts that the run has got with
    annotations since, and those that share text or filer with a held-out contract. A second call returns the same.
    """
    path = iteration.path(rows.CORRECTED)
    if path.is_file():
        return files.read_jsonl(path)
    lines = corrections_of(iteration.run) if iteration.previous else []
    if not lines:
        return []
    known = [r for r in rows.contract_records(iteration.run, iteration.number) if "corrected" not in r]
    annotated = {key for r in known if r["split"] != rows.PLAIN for key in (r["title"], r["text"])}
    lines = [line for line in lines if annotated.isdisjoint((line["title"], line["text"]))]
    contracts = [Contract.from_record(line) for line in lines]
    relatives = rows.held_out_relatives(contracts, known)
    kept = [line for line in lines if line["title"] not in relatives]
    groups = groups_of_new([c for c in contracts if c.title not in relatives], known, learned=())
    made = [line | {"group": groups[line["title"]], "split": "train", "corrected": iteration.number} for line in kept]
    files.write_jsonl(path, made)
    return made


def records_of(lines: Iterable[_Line]) -> list[_Line]:
    """Return the records of corrected contracts, without their rows."""
    return [{name: value for name, value in line.items() if name != "rows"} for line in lines]
