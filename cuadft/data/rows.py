"""The contracts of a run and their splits (contracts.jsonl, and what arrived later), and the rows that each iteration asks.

What arrived in each iteration: contracts with their questions, frozen in its arrived.jsonl once they are taken.

A line is a contract's record with its rows, the iteration ("arrived"), the file that it came in and a hash of its content;
or the title, file, reason and detail of a contract that was left out.
"""

from __future__ import annotations

import difflib
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.files import value_hash
from cuadft.data import splits
from cuadft.data.contracts import Contract, Row
from cuadft.data.passages import Passage, cut_passages

SPLITS = ("train", "dev", "test")
HELD_OUT = ("dev", "test", "slice")  # nothing is learned from these; "slice" is held out of a slice of the stream
PLAIN = "plain"  # contracts without annotations


def freeze_splits(
    run: Path, contracts: Sequence[Contract], *, dev: int, test: int, seed: int, split_unit: str
) -> list[dict[str, Any]]:
    """Draw the run's splits and write them to contracts.jsonl, or return what an earlier iteration wrote.

    split_unit "group" keeps near-duplicates and filers together; "none" puts every contract in all splits (as the
    published sample did), so that its scores say nothing about unseen contracts. Raises InputError on another
    split_unit, or if the frozen contracts are no longer among `contracts`.
    """
    if split_unit not in ("group", "none"):
        raise InputError(f"Unknown split_unit '{split_unit}': choose group or none.")
    path = run / "contracts.jsonl"
    if path.is_file():
        return _frozen(path, {c.title: c for c in contracts})
    if split_unit == "none":
        records = [c.record(group=i, split="all") for i, c in enumerate(contracts)]
    else:
        groups = splits.contract_groups(contracts)
        drawn = splits.split_groups(contracts, groups, dev=dev, test=test, seed=seed)
        records = [c.record(group=groups[c.title], split=drawn[c.title]) for c in contracts]
    files.write_jsonl(path, records)
    return records


def contract_records(run: Path, upto: int | None = None) -> list[dict[str, Any]]:
    """Return the records of contracts.jsonl, then those that arrived in iterations 1 to `upto` (None: in any).

    A record that arrived has "arrived", the number of its iteration; it takes the place of an unannotated contract of
    its title.
    """
    later = arrived_records(run, upto)
    annotated = {r["title"] for r in later}
    first = files.read_jsonl(run / "contracts.jsonl")
    return [r for r in first if r["title"] not in annotated] + later


def add_plain_contracts(run: Path, contracts: Sequence[Contract]) -> list[dict[str, Any]]:
    """Add contracts without annotations (for self-instruct only) to contracts.jsonl; return all its records.

    Raises InputError if one has the title of an annotated contract, or shares text or filer with a held-out one.
    """
    path = run / "contracts.jsonl"
    records = [r for r in files.read_jsonl(path) if r["split"] != PLAIN]
    later = {r["title"] for r in arrived_records(run)}  # an annotated contract takes the place of the plain one
    annotated = records + arrived_records(run)
    apart = [r for r in annotated if r["split"] in HELD_OUT]
    known = {r["title"] for r in annotated}
    checked = [c for c in contracts if c.title not in later]
    new = [c for c in contracts if c.title not in known]
    groups = splits.contract_groups([*new, *(Contract.from_record(r) for r in apart)]) if new else {}
    taken = {groups[r["title"]]: r["title"] for r in apart if groups}
    for contract in checked:
        if contract.title in known or groups[contract.title] in taken:
            other = taken.get(groups.get(contract.title), contract.title)
            raise InputError(
                f"Contract '{contract.title}' of contracts_folder repeats '{other}', which is annotated or held "
                "out: remove it."
            )
    added = [c.record(group=-1, split=PLAIN) for c in contracts]
    if added or len(records) != len(files.read_jsonl(path)):
        files.write_jsonl(path, records + added)
    return records + added


def _frozen(path: Path, contracts: dict[str, Contract]) -> list[dict[str, Any]]:
    records = [r for r in files.read_jsonl(path) if r["split"] != PLAIN]
    for record in records:
        now = contracts.get(record["title"])
        if now is None or now.text != record["text"]:
            raise InputError(
                f"Contract '{record['title']}' of {path} is {'gone from' if now is None else 'another text in'} "
                "the source. Splits are drawn once for a run: restore the source or take a new run folder."
            )
    return records


def select_contracts(
    contracts: Sequence[Contract], *, only: Sequence[str] = (), max_characters: int = 0
) -> list[Contract]:
    """Return the contracts to use: those named in `only` (all if empty), none longer than `max_characters` (0: any)."""
    unknown = sorted(set(only) - {c.title for c in contracts})
    if unknown:
        near = difflib.get_close_matches(unknown[0], [c.title for c in contracts], n=1, cutoff=0.3)
        raise InputError(
            f"only_contracts names '{unknown[0]}', which is not among the {len(contracts)} contracts"
            f"{f' (nearest: {near[0]!r})' if near else ''}."
        )
    kept = [
        c for c in contracts if (not only or c.title in only) and (not max_characters or len(c.text) <= max_characters)
    ]
    if not kept:
        raise InputError(
            f"No contract is left: {len(contracts)} were read, max_characters is {max_characters}. Raise it."
        )
    return kept


def split_titles(records: Iterable[dict[str, Any]], split: str) -> list[str]:
    """Return the titles of the contracts in a split: train, dev, test or slice."""
    if split not in (*SPLITS, *HELD_OUT):
        raise InputError(f"Invalid split '{split}': choose {', '.join(dict.fromkeys((*SPLITS, *HELD_OUT)))}.")
    return [r["title"] for r in records if r["split"] == split or (r["split"] == "all" and split in SPLITS)]


def rows_of_contracts(contracts: Iterable[Contract], wanted: Sequence[str]) -> list[Row]:
    """Return all rows of the contracts with the wanted titles, in that order."""
    by_title = {c.title: c for c in contracts}
    return [row for title in wanted for row in by_title[title].rows]


def spread_rows(rows: Sequence[Row], size: int, *, seed: int) -> list[Row]:
    """Draw `size` rows (0: all), as evenly as possible over their contracts; those left out depend on `seed`."""
    if size == 0 or size >= len(rows):
        return list(rows)
    shuffle = random.Random(seed)
    by_contract: dict[str, list[Row]] = defaultdict(list)
    for row in shuffle.sample(list(rows), len(rows)):
        by_contract[row["contract"]].append(row)
    pools = [by_contract[title] for title in sorted(by_contract)]
    drawn: list[Row] = []
    while len(drawn) < size:
        pools = [pool for pool in pools if pool]
        drawn += [pool.pop() for pool in shuffle.sample(pools, min(len(pools), size - len(drawn)))]
    return sorted(drawn, key=lambda row: row["id"])


def contract_passages(run: Path, wanted: Iterable[str], size: int, overlap: float = 0.0) -> list[Passage]:
    """Cut the run's contracts with the wanted titles into passages of about `size` characters, as `passages.cut`."""
    keep = set(wanted)
    return [
        p
        for r in contract_records(run)
        if r["title"] in keep
        for p in cut_passages(r["text"], contract=r["title"], size=size, overlap=overlap)
    ]


def remember_rows(iteration: runs.Iteration, rows: Sequence[Row]) -> list[Row]:
    """Return rows with those that earlier iterations learned from, and keep them in retriever/rows.jsonl for later ones.

    What is cheap to fit anew (relevance feedback, clause classifier) then forgets nothing of the stream.
    """
    before = iteration.previous.path("retriever", "rows.jsonl") if iteration.previous else None
    known = files.read_jsonl(before) if before and before.is_file() else []
    texts = {record["title"]: record.get("text", "") for record in contract_records(iteration.run, iteration.number)}
    # an id of a generated question returns with other words; a plain contract may have been taken away, or have come
    # back with annotations and a text that was read otherwise
    kept = {
        (row["id"], row["question"]): row
        for row in [*known, *rows]
        if row["contract"] in texts
        and all(texts[row["contract"]].startswith(a["text"], a["start"]) for a in row.get("answers", ()))
    }
    files.write_jsonl(iteration.path("retriever", "rows.jsonl"), kept.values())
    return list(kept.values())


def with_passages(run: Path, predictions: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return predictions with the text of the passages that were sent, as `passage`, from the run's contracts."""
    texts = {record["title"]: record["text"] for record in contract_records(run)}
    return [
        p | {"passage": "\n\n".join(texts[p["contract"]][s["start"] : s["end"]] for s in p.get("passages") or [])}
        for p in predictions
    ]


def passages_by_contract(passages: Iterable[Passage]) -> dict[str, list[Passage]]:
    """Return the passages of each contract, by title."""
    found: dict[str, list[Passage]] = defaultdict(list)
    for passage in passages:
        found[passage.contract].append(passage)
    return dict(found)


def read_rows(iteration: runs.Iteration, *names: str) -> list[Row]:
    """Return the rows of data/<name>.jsonl, one name after the other; InputError if 01_data_prep has not run."""
    rows: list[Row] = []
    for name in names:
        path = iteration.path("data", f"{name}.jsonl")
        if not path.is_file():
            raise InputError(f"{path} is missing: run 01_data_prep of this iteration first.")
        rows += files.read_jsonl(path)
    return rows


def held_out_titles(records: Iterable[dict[str, Any]]) -> set[str]:
    """Return the titles of the dev, test and slice contracts; none where every contract is in every split."""
    return {r["title"] for r in records if r["split"] in HELD_OUT}


def assert_no_leak(rows: Iterable[Row], records: Iterable[dict[str, Any]]) -> None:
    """Raise InputError if a row meant for compile, training or preferences comes from a held-out contract."""
    leaked = sorted({row["contract"] for row in rows} & held_out_titles(records))
    if leaked:
        raise InputError(
            f"Contract '{leaked[0]}' is held out, but its rows are among the training data "
            f"({len(leaked)} such contracts): delete data/ of this iteration and run 01_data_prep again."
        )


ARRIVED = "arrived.jsonl"
_CONTENT = ("title", "contract_type", "filer", "text", "rows")  # what the hash covers: never changes once taken


def arrived_path(iteration: runs.Iteration) -> Path:
    """Return where an iteration keeps what arrived in it."""
    return iteration.path(ARRIVED)  # not in data/, which is cleared when a parameter changes


def arrived_line(contract: Contract, *, iteration: int, file: str, group: int) -> dict[str, Any]:
    """Return the line of a contract that is taken for training."""
    made = contract.record(group=group, split="train") | {
        "arrived": iteration,
        "file": file,
        "rows": list(contract.rows),
    }
    return made | {"sha256": _hash(made)}


def arrived_lines(run: Path, upto: int | None = None) -> list[dict[str, Any]]:
    """Return the lines of contracts that arrived in iterations 1 to `upto` (None: in any), oldest first.

    Raises InputError if one is not as it was taken.
    """
    return [each for number in _numbers(run, upto) for each in taken_contracts(runs.Iteration(run, number))]


def taken_contracts(iteration: runs.Iteration) -> list[dict[str, Any]]:
    """Return the lines of the contracts that arrived in this iteration; InputError if one is not as it was taken."""
    found = [each for each in _read(iteration) if "reason" not in each]
    for each in found:
        if not isinstance(each.get("rows"), list) or each.get("sha256") != _hash(each):
            raise InputError(
                f"{arrived_path(iteration)}: contract {each.get('title')!r} is not as it was taken. Restore the file, or "
                "delete it, put the contract into arrivals_folder again and run the same command."
            )
    return found


def refuse_arrivals(iteration: runs.Iteration) -> None:
    """Raise InputError if contracts have arrived so far: only the stream "arrivals" knows what to do with them."""
    if found := arrived_lines(iteration.run, iteration.number):
        first = arrived_path(runs.Iteration(iteration.run, found[0]["arrived"]))
        raise InputError(
            f"{len(found)} contracts arrived in this run ({first}): keep stream arrivals, or take a new run "
            "folder for another stream."
        )


def left_out_arrivals(iteration: runs.Iteration) -> list[dict[str, Any]]:
    """Return title, file, reason and detail of what was left out in this iteration."""
    return [each for each in _read(iteration) if "reason" in each]


def write_arrived(iteration: runs.Iteration, found: Iterable[dict[str, Any]], left: Iterable[dict[str, Any]]) -> None:
    """Freeze what was taken and what was left out, in one step."""
    files.write_jsonl(arrived_path(iteration), [*found, *left])


def arrived_records(run: Path, upto: int | None = None) -> list[dict[str, Any]]:
    """Return the records, as in contracts.jsonl, of what arrived in iterations 1 to `upto`, each with "arrived"."""
    dropped = ("rows", "file", "sha256")
    return [{key: value for key, value in each.items() if key not in dropped} for each in arrived_lines(run, upto)]


def arrived_contracts(run: Path, upto: int | None = None) -> list[Contract]:
    """Return the contracts, with their questions, that arrived in iterations 1 to `upto` (None: in any)."""
    return [arrived_contract(each) for each in arrived_lines(run, upto)]


def arrived_contract(line: dict[str, Any]) -> Contract:
    """Return the contract of a line."""
    return Contract(line["title"], line["text"], line["contract_type"], line["filer"], tuple(line["rows"]))


def keep_arrived(iteration: runs.Iteration, records: Sequence[dict[str, Any]]) -> None:
    """Write the splits (and slice numbers) that `records` give to what arrived in this iteration."""
    given = {r["title"]: r for r in records}
    found = taken_contracts(iteration)
    changed = [_marked(each, given[each["title"]]) for each in found]
    if changed != found:
        write_arrived(iteration, changed, left_out_arrivals(iteration))


def _marked(line: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in line.items() if key != "slice"}
    return kept | {key: record[key] for key in ("split", "slice") if key in record}


def _numbers(run: Path, upto: int | None) -> list[int]:
    named = [file.parent.name.removeprefix("iter-") for file in run.glob(f"iter-*/{ARRIVED}")]
    return sorted(int(n) for n in named if n.isdecimal() and (upto is None or int(n) <= upto))


def _read(iteration: runs.Iteration) -> list[dict[str, Any]]:
    return files.read_jsonl(arrived_path(iteration)) if arrived_path(iteration).is_file() else []


def _hash(line: dict[str, Any]) -> str:
    return value_hash({key: line.get(key) for key in _CONTENT})
