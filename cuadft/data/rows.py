"""The contracts of a run, their splits, and the rows (questions) that an iteration asks.

A run keeps its contracts in contracts.jsonl: one record a contract, with its split and its group, drawn once. For
example:

    records = freeze_splits(run, contracts, dev=10, test=20, seed=7, split="group")
    train = rows_of_contracts(contracts, split_titles(records, "train"))
    assert_no_leak(train, records)

Measures of quotes rest on every question that has a clause. Measures of detection, whether there is a clause, also need
the questions without one, of which there are twice as many: `choose_questions` takes them from as many whole contracts
as fit, and tells how many questions of the split each one stands for (its "weight").

Contracts that arrive later are kept in arrived.jsonl of the iteration that took them. One line is the record of a
contract with its rows, the iteration ("arrived") and the file that it came in; a line for a contract that was left out
has its title, file, reason and detail. `cuadft.data.arrivals` writes these lines.
"""

from __future__ import annotations

import random
import re
import warnings
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any, TypeVar

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.core.params import did_you_mean
from cuadft.data import splits
from cuadft.data.contracts import Contract, Row
from cuadft.data.documents import read_plain_folder
from cuadft.data.passages import Passage, cut_passages
from cuadft.data.schema import NO_CATEGORY, PACKAGED, Schema

Item = TypeVar("Item")
SPLITS = ("train", "dev", "test")
HELD_OUT = ("dev", "test", "slice")  # nothing is learned from these; "slice" is held out of a slice of the stream
PLAIN = "plain"  # the split of contracts without annotations
FEEDBACK = "feedback"  # source of a row that a person made by correcting a review
ARRIVED = "arrived.jsonl"  # not in data/, which is cleared when a parameter changes
CORRECTED = "corrected.jsonl"  # as ARRIVED: the reviewed contracts that people corrected, see `data.corrections`
_REWORDED = re.compile(r"(?:~[ctso]\d+)+\Z")
WHOLE_FROM = 5  # whole contracts are asked from this number on: an interval over fewer says nothing


def freeze_splits(
    run: Path, contracts: Sequence[Contract], *, dev: int, test: int, seed: int, split: str
) -> list[dict[str, Any]]:
    """Draw the run's splits and write them to contracts.jsonl, or return what an earlier iteration wrote.

    split "group" keeps near-duplicates and the contracts of one filer together. "official" tests on the test contracts
    of CUAD's own split and ignores `test`; their relatives may be train contracts (see `splits.split_official`). "none"
    puts every contract in all splits, as the published sample did, so that its scores tell nothing about unseen
    contracts. Raises InputError on another split, or if the frozen contracts are no longer among `contracts`.
    """
    if split not in ("group", "official", "none"):
        raise InputError(f"Unknown split '{split}': choose group, official or none.")
    path = run / "contracts.jsonl"
    if path.is_file():
        return _frozen_records(path, {c.title: c for c in contracts})
    if split == "none":
        groups = {c.title: number for number, c in enumerate(contracts)}
        drawn = dict.fromkeys(groups, "all")
    else:
        groups = splits.contract_groups(contracts)
        if split == "official":
            drawn = splits.split_official(contracts, groups, dev=dev, seed=seed)
        else:
            drawn = splits.split_groups(contracts, groups, dev=dev, test=test, seed=seed)
    records = [c.record(group=groups[c.title], split=drawn[c.title]) for c in contracts]
    files.write_jsonl(path, records)
    return records


def contract_records(run: Path, upto: int | None = None) -> list[dict[str, Any]]:
    """Return the records of contracts.jsonl, then those that arrived in iterations 1 to `upto` (None: in any).

    A record of an arrived contract has "arrived", the number of its iteration; one of a contract that was reviewed and
    corrected has "corrected". Both take the place of a contract without annotations that has the same title.
    """
    later = [{k: v for k, v in line.items() if k not in ("rows", "file")} for line in taken_lines(run, upto)]
    later += [{k: v for k, v in line.items() if k != "rows"} for line in corrected_lines(run, upto)]
    annotated = {r["title"] for r in later}
    return [r for r in files.read_jsonl(run / "contracts.jsonl") if r["title"] not in annotated] + later


def add_plain_contracts(run: Path, contracts: Sequence[Contract]) -> list[dict[str, Any]]:
    """Add contracts without annotations, which serve self-instruct only, to contracts.jsonl; return all its records.

    Raises InputError if one has the title of an annotated contract, or shares text or filer with a held-out contract.
    """
    path = run / "contracts.jsonl"
    before, later = files.read_jsonl(path), taken_lines(run)
    records = [r for r in before if r["split"] != PLAIN]
    replaced = {r["title"] for r in later}  # an annotated contract takes the place of the plain one
    new = [c for c in contracts if c.title not in replaced]
    known = {r["title"] for r in records}
    repeated = {c.title: c.title for c in new if c.title in known}
    repeated |= held_out_relatives([c for c in new if c.title not in known], records + later)
    for title, other in repeated.items():
        raise InputError(
            f"Contract '{title}' of contracts_folder repeats '{other}', which is annotated or held out: remove it."
        )
    added = [c.record(group=-1, split=PLAIN) for c in contracts]
    if added or len(records) != len(before):
        files.write_jsonl(path, records + added)
    return records + added


def held_out_relatives(contracts: Sequence[Contract], records: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return, for each contract that shares text or filer with a held-out one of the records, the title of that one."""
    held_out = [Contract.from_record(r) for r in records if r["split"] in HELD_OUT] if contracts else []
    groups = splits.contract_groups([*contracts, *held_out])
    held_out_in = {groups[c.title]: c.title for c in held_out}
    return {c.title: held_out_in[groups[c.title]] for c in contracts if groups[c.title] in held_out_in}


def unannotated_contracts(
    iteration: runs.Iteration, folder: str, records: Iterable[dict[str, Any]], schema: Schema | None = None
) -> list[Contract]:
    """Return the contracts without annotations in a folder ("": no folder), which serve self-instruct only.

    They are kept in contracts.jsonl. One whose title is among the records is left out, since it has annotations; one
    that shares text or filer with a held-out contract is left out with a warning.
    """
    annotated = {record["title"]: record for record in records}
    first = {title for title, record in annotated.items() if not {"arrived", "corrected"} & record.keys()}
    plain = read_plain_folder(runs.resolve_path(folder), schema) if folder else []
    plain = [contract for contract in plain if contract.title not in first]
    near = held_out_relatives([c for c in plain if c.title not in annotated], annotated.values())
    for title, other in near.items():
        warnings.warn(f"contracts_folder: {title} repeats {other}, which is held out, and is left out", stacklevel=2)
    plain = [contract for contract in plain if contract.title not in near]
    add_plain_contracts(iteration.run, plain)
    return [contract for contract in plain if contract.title not in annotated]


def _frozen_records(path: Path, contracts: dict[str, Contract]) -> list[dict[str, Any]]:
    """Return the annotated records of contracts.jsonl; raises InputError if a contract has changed or is gone."""
    records = [r for r in files.read_jsonl(path) if r["split"] != PLAIN]
    for record in records:
        now = contracts.get(record["title"])
        if now is None or now.text != record["text"]:
            change = "gone from" if now is None else "another text in"
            raise InputError(
                f"Contract '{record['title']}' of {path} is {change} the source. Splits are drawn once for a run: "
                "restore the source or take a new run folder."
            )
    return records


def select_contracts(
    contracts: Sequence[Contract], *, only: Sequence[str] = (), max_characters: int = 0
) -> list[Contract]:
    """Return the contracts named in `only` (empty: all contracts) that have at most `max_characters` (0: any length).

    Raises InputError if a name is unknown or if no contract is left.
    """
    titles = [c.title for c in contracts]
    if unknown := sorted(set(only) - set(titles)):
        hint = did_you_mean(unknown[0], titles)
        raise InputError(f"only_contracts names '{unknown[0]}', which is not among the {len(titles)} contracts{hint}.")
    named = [c for c in contracts if not only or c.title in only]
    kept = [c for c in named if not max_characters or len(c.text) <= max_characters]
    if not kept:
        told = f"{len(contracts)} were read, max_characters is {max_characters}"
        raise InputError(f"No contract is left: {told}. Raise it.")
    return kept


def split_titles(records: Iterable[dict[str, Any]], split: str) -> list[str]:
    """Return the titles of the contracts in a split: train, dev, test or slice."""
    return [r["title"] for r in records if r["split"] == split or (r["split"] == "all" and split in SPLITS)]


def rows_of_contracts(contracts: Iterable[Contract], wanted: Sequence[str]) -> list[Row]:
    """Return all rows of the contracts with the wanted titles, in the order of the titles."""
    by_title = {c.title: c for c in contracts}
    return [row for title in wanted for row in by_title[title].rows]


def spread_rows(rows: Sequence[Row], size: int, *, seed: int) -> list[Row]:
    """Draw `size` rows (0: all), as evenly as possible over their contracts; those left out depend on `seed`."""
    if size == 0 or size >= len(rows):
        return list(rows)
    drawn = draw_evenly(rows, size, group=itemgetter("contract"), rng=random.Random(seed))
    return sorted(drawn, key=lambda row: row["id"])


def draw_evenly(items: Sequence[Item], size: int, *, group: Callable[[Item], str], rng: random.Random) -> list[Item]:
    """Draw up to `size` items at random, one of each group before a second one of any."""
    own: dict[str, list[Item]] = defaultdict(list)
    for item in rng.sample(list(items), len(items)):
        own[group(item)].append(item)
    # Reversed, so that the last one comes first: run folders hold draws that were made in this order.
    return take_turns([own[name][::-1] for name in sorted(own)], size, rng=rng)


def take_turns(groups: Iterable[Iterable[Item]], size: int, *, rng: random.Random | None = None) -> list[Item]:
    """Take up to `size` items, the first one of each group before the second one of any.

    Within a group the order stays. The groups' order within a round is drawn by `rng`, or stays if that is None.
    """
    left = [deque(own) for own in groups]
    taken: list[Item] = []
    while len(taken) < size and (left := [own for own in left if own]):
        count = min(len(left), size - len(taken))
        taken += [own.popleft() for own in (rng.sample(left, count) if rng else left[:count])]
    return taken


def contract_passages(run: Path, wanted: Iterable[str], size: int, overlap: float = 0.0) -> list[Passage]:
    """Cut the run's contracts with the wanted titles into passages of about `size` characters."""
    keep = set(wanted)
    found = [record for record in contract_records(run) if record["title"] in keep]
    return [p for r in found for p in cut_passages(r["text"], contract=r["title"], size=size, overlap=overlap)]


def remember_rows(iteration: runs.Iteration, rows: Sequence[Row]) -> list[Row]:
    """Return `rows` and those that earlier iterations learned from; keep both in retriever/rows.jsonl for later ones.

    Relevance feedback and the clause classifier are cheap to fit anew. Fitted to these rows, they forget nothing of the
    stream.
    """
    before = iteration.previous.path("retriever", "rows.jsonl") if iteration.previous else None
    known = files.read_jsonl(before) if before and before.is_file() else []
    texts = {record["title"]: record.get("text", "") for record in contract_records(iteration.run, iteration.number)}
    # The id of a generated question may return with other words. A contract without annotations may have been taken
    # away, or have come back with annotations and a text that was read differently.
    kept = {
        (row["id"], row["question"]): row
        for row in [*known, *rows]
        if row["contract"] in texts
        and all(texts[row["contract"]].startswith(a["text"], a["start"]) for a in row.get("answers", ()))
    }
    files.write_jsonl(iteration.path("retriever", "rows.jsonl"), kept.values())
    return list(kept.values())


def passages_by_contract(passages: Iterable[Passage]) -> dict[str, list[Passage]]:
    """Return the passages of each contract, by title."""
    found: dict[str, list[Passage]] = defaultdict(list)
    for passage in passages:
        found[passage.contract].append(passage)
    return dict(found)


def read_rows(iteration: runs.Iteration, *names: str) -> list[Row]:
    """Return the rows of data/<name>.jsonl, one name after the other; InputError if 01_data_prep has not run."""
    return [row for name in names for row in files.read_jsonl(iteration.path("data", f"{name}.jsonl"))]


def held_out_titles(records: Iterable[dict[str, Any]]) -> set[str]:
    """Return the titles of the dev, test and slice contracts; there are none if every contract is in every split."""
    return {r["title"] for r in records if r["split"] in HELD_OUT}


def assert_no_leak(rows: Iterable[Row], records: Iterable[dict[str, Any]]) -> None:
    """Raise InputError if a row meant for compile, training or preferences comes from a held-out contract."""
    leaked = sorted({row["contract"] for row in rows} & held_out_titles(records))
    if leaked:
        raise InputError(
            f"Contract '{leaked[0]}' is held out, but its rows are among the training data "
            f"({len(leaked)} such contracts): delete data/ of this iteration and run 01_data_prep again."
        )


def arrived_lines(iteration: runs.Iteration) -> list[dict[str, Any]]:
    """Return the lines of what arrived in an iteration; those of contracts that were left out have a "reason"."""
    path = iteration.path(ARRIVED)
    return files.read_jsonl(path) if path.is_file() else []


def taken_lines(run: Path, upto: int | None = None) -> list[dict[str, Any]]:
    """Return the lines of contracts that arrived in iterations 1 to `upto` (None: in any iteration), oldest first."""
    numbers = sorted(int(file.parent.name.removeprefix("iter-")) for file in run.glob(f"iter-[0-9]*/{ARRIVED}"))
    iterations = [runs.Iteration(run, number) for number in numbers if upto is None or number <= upto]
    return [line for iteration in iterations for line in arrived_lines(iteration) if "reason" not in line]


def corrected_lines(run: Path, upto: int | None = None) -> list[dict[str, Any]]:
    """Return the lines of the corrected contracts that the newest iteration up to `upto` (None: any) learns from."""
    numbers = sorted(int(file.parent.name.removeprefix("iter-")) for file in run.glob(f"iter-[0-9]*/{CORRECTED}"))
    newest = [number for number in numbers if upto is None or number <= upto][-1:]
    return [line for n in newest for line in files.read_jsonl(runs.Iteration(run, n).path(CORRECTED))]


def is_annotated(row: Mapping[str, Any]) -> bool:
    """Tell whether a person marked the row's answers, all that there are, as those of a category of the schema."""
    return is_original(row) or (row["source"] == FEEDBACK and row["category"] != NO_CATEGORY)


def seed_question(row_id: str) -> str:
    """Return the id of the question that a row was made from by rewording, its own id if it was not.

    Rows of `selfinstruct` have the id of their question with "~t1", "~c1", "~s2" or "~o1" behind it, also repeatedly.
    """
    return _REWORDED.sub("", row_id)


def is_original(row: Mapping[str, Any]) -> bool:
    """Tell whether a row came with its contract, annotated."""
    return row.get("source", PACKAGED) in (PACKAGED, "annotated")


def arrived_contracts(run: Path, upto: int | None = None) -> list[Contract]:
    """Return the contracts, with their questions, that arrived in iterations 1 to `upto` (None: in any iteration)."""
    return [Contract.from_record(line) for line in taken_lines(run, upto)]


def in_slice(record: dict[str, Any], number: int | None) -> dict[str, Any]:
    """Return a record as that of a contract held out of slice `number`, or of a training contract (None)."""
    kept = {key: value for key, value in record.items() if key != "slice"}
    return kept | ({"split": "train"} if number is None else {"split": "slice", "slice": number})


# Which questions systems are measured on.


def choose_questions(rows: Sequence[Row], size: int, *, seed: int) -> list[Row]:
    """Return up to `size` (0: all) questions of a split, copies with their "weight", in the order of their ids.

    Every question that has a clause is taken, then questions without a clause as by `_absent_questions`. If that leaves
    less than a sixth of `size` to those, five sixths of `size` go to questions with a clause, drawn evenly over the
    contracts; that serves tests of the plumbing. All questions, if they fit, stay in the order of `rows`.

    The weight is the number of questions of the split that a row stands for: of those with (or without) a clause, all
    by those taken.
    """
    if size == 0 or size >= len(rows):
        return _weighted(rows, len(rows))
    clauses = [row for row in rows if row["answers"]]
    absent = [row for row in rows if not row["answers"]]
    most = max(1, 5 * size // 6, size - len(absent))
    present = draw_evenly(clauses, min(len(clauses), most), group=itemgetter("contract"), rng=random.Random(seed))
    others = _absent_questions(absent, size - len(present), seed)
    chosen = _weighted(present, len(clauses)) + _weighted(others, len(absent))
    return sorted(chosen, key=itemgetter("id"))


def questions_table(sets: Mapping[str, Sequence[Row]], contracts: Iterable[Contract]) -> list[dict[str, Any]]:
    """Return a row for each set: numbers of questions with and without a clause, and of how many contracts.

    "whole contracts" tells whether the set has all questions without a clause of these contracts ("" if it has none).
    """
    all_absent = Counter(row["contract"] for contract in contracts for row in contract.rows if not row["answers"])
    table = []
    for name, asked in sets.items():
        absent = Counter(row["contract"] for row in asked if not row["answers"])
        whole = "yes" if all(absent[title] == all_absent[title] for title in absent) else "no"
        counts = {"contracts": len({row["contract"] for row in asked}), "questions": len(asked)}
        counts |= {"with a clause": len(asked) - absent.total(), "without a clause": absent.total()}
        counts |= {"of contracts": len(absent), "whole contracts": whole if absent else ""}
        table.append({"set": name} | counts)
    return table


def _absent_questions(rows: Sequence[Row], size: int, seed: int) -> list[Row]:
    """Return up to `size` questions without a clause: all of as many contracts, in seeded order, as fit whole.

    If fewer than WHOLE_FROM contracts fit, `size` questions are spread evenly over all contracts instead. The draw ends
    at the first contract that does not fit. Passing over it would prefer contracts with few absent clauses.
    """
    own: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        own[row["contract"]].append(row)
    whole: list[Row] = []
    for count, title in enumerate(sorted(own, key=lambda title: splits.seeded_order(f"{seed}:whole", title))):
        if len(whole) + len(own[title]) > size:
            if count >= WHOLE_FROM:
                return whole
            return draw_evenly(rows, size, group=itemgetter("contract"), rng=random.Random(seed))
        whole += own[title]
    return whole


def _weighted(rows: Sequence[Row], total: int) -> list[Row]:
    """Return copies of the rows, each standing for an equal part of `total` questions."""
    return [row | {"weight": total / len(rows)} for row in rows]
