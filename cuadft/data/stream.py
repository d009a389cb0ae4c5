"""The stream of training contracts: the slices in which they arrive, what is held out of each, and what is replayed.

Every iteration trains on one slice. Some contracts of each slice are held out, so that forgetting can be measured
later, and some contracts of earlier slices are replayed. For example, with slices of 100 contracts in the order of
filing years:

    slices = cut_slices(records, stream="by_date", size=100, seed=7)
    records = hold_out_of_slices(records, slices, contracts=10, seed=7)

`next_slice` does all steps for one iteration, and `question_sets` gives the questions of the iteration.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.data import rows
from cuadft.data.arrivals import take_arrivals
from cuadft.data.contracts import Contract, Row
from cuadft.data.corrections import corrected_anew, records_of, take_corrections
from cuadft.data.schema import Schema
from cuadft.data.splits import SPLIT_SEED, seeded_order

UNDATED = "undated"
SLICE_SPLIT = "slice"  # the split of contracts that are held out of a slice
# The filing date in a title: "ACME_03_04_2010-EX-10.1" or "ACME_20100304-10K".
_FILED = re.compile(
    r"_(?:\d{1,2}_\d{1,2}_((?:19|20)\d\d)|((?:19|20)\d\d)(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))(?=[_-]|$)"
)
_Record = dict[str, Any]


def filing_year(title: str) -> str:
    """Return the year in which a contract was filed, from its title, or "undated"."""
    found = _FILED.search(title)
    return (found[1] or found[2]) if found else UNDATED


def cut_slices(records: Iterable[_Record], *, stream: str, size: int, seed: int) -> list[list[str]]:
    """Return the titles of each slice, held-out contracts included, in the order in which the slices arrive.

    random: in seeded order, cut after `size` contracts. by_type: one contract type after another in seeded order, as
    many whole types as fit into `size`. by_date: by filing year, undated contracts last, cut after `size`. With size 0
    a slice is everything, one type or one year. arrivals: first `size` contracts (0: all) that the run began with and
    those that arrived in iteration 1, then what each iteration found new, or the first slice again.
    """
    usable = [r for r in records if r["split"] in ("train", SLICE_SPLIT, "all")]
    pool = sorted(usable, key=lambda r: seeded_order(seed, r["title"]))
    if stream == "arrivals":
        first = [r["title"] for r in pool if "arrived" not in r][: size or None]
        first += [r["title"] for r in pool if r.get("arrived") == 1]
        later = {n: [r["title"] for r in pool if r.get("arrived") == n] for n in {r.get("arrived", 1) for r in pool}}
        # nothing may have arrived in an iteration that learned from corrections: it had the first slice again
        return [first, *(later.get(n) or first for n in range(2, max(later, default=1) + 1))]
    keys: dict[str, Callable[[_Record], Any]] = {
        "random": lambda r: "",
        "by_type": lambda r: (seeded_order(seed, r["contract_type"]), r["contract_type"]),
        "by_date": lambda r: filing_year(r["title"]),  # "undated" sorts after every year
    }
    parts = _titles_by(pool, keys[stream])
    if not size:
        return parts
    slices: list[list[str]] = []
    for titles in parts if stream == "by_type" else [list(itertools.chain(*parts))]:
        if slices and len(slices[-1]) + len(titles) <= size:
            slices[-1] += titles
        else:
            slices += [titles[start : start + size] for start in range(0, len(titles), size)]
    return slices


def _titles_by(pool: Iterable[_Record], key: Callable[[_Record], Any]) -> list[list[str]]:
    """Return the titles of the records, one list for each value of `key`, in the order of these values."""
    return [[r["title"] for r in own] for _, own in itertools.groupby(sorted(pool, key=key), key=key)]


def hold_out_of_slices(
    records: Sequence[_Record], parts: Sequence[Sequence[str]], *, iteration: int, contracts: int, seed: int
) -> list[_Record]:
    """Return the records with `contracts` of each slice moved to the split "slice" and marked with the slice's number.

    Only contracts that came in this iteration are moved: in iteration 1 those that the run began with, later those that
    arrived. What earlier iterations held out stays held out, and a second draw is like the first one. Only whole groups
    are held out, so that no training contract resembles a held-out one. At most half of a slice is held out, and at
    least two contracts or none, since one contract has no interval. Raises InputError on 1 or fewer than 0 `contracts`.
    """
    if contracts == 1 or contracts < 0:
        raise InputError(f"Invalid slice_contracts {contracts}: give 0, or 2 or more; one contract has no interval.")
    usable = [r for r in records if r["split"] in ("train", SLICE_SPLIT)]
    came_now = {r["title"] for r in usable if r.get("arrived", 1) == iteration}
    held = {r["title"]: r["slice"] for r in usable if r["split"] == SLICE_SPLIT and r["title"] not in came_now}
    group_of = {r["title"]: r["group"] for r in records}
    members: dict[int, list[str]] = defaultdict(list)
    for title, group in group_of.items():
        members[group].append(title)
    for number, part in enumerate(parts, 1):
        drawn: list[str] = []
        ordered = sorted(part, key=lambda title: seeded_order(f"{seed}:{SLICE_SPLIT}", title))
        for group in dict.fromkeys(group_of[title] for title in ordered):
            # A group with members in other slices, or trained on before, cannot be held out as a whole.
            whole = group >= 0 and came_now.intersection(part).issuperset(members[group])
            if whole and len(drawn) + len(members[group]) <= min(contracts, len(part) // 2):
                drawn += members[group]
        if len(drawn) > 1:
            held |= dict.fromkeys(drawn, number)
    return [rows.in_slice(r, held.get(r["title"])) if r["title"] in came_now else r for r in records]


def slice_portion(
    parts: Sequence[Sequence[str]], held: Collection[str], *, iteration: int, replay: float, seed: int
) -> tuple[int, list[str], list[str]]:
    """Return one iteration's slice (its number from 1), its training contracts, and round(replay * their number) more.

    held: titles of held-out contracts. The further, replayed contracts are drawn from all earlier slices. When the
    slices are used up, they start over.
    """
    place = (iteration - 1) % len(parts)
    new = [title for title in parts[place] if title not in held]
    seen = {title for part in parts[: iteration - 1] for title in part} - set(held) - set(new)
    older = sorted(seen, key=lambda title: seeded_order(f"{seed}:{iteration}", title))
    return place + 1, new, older[: int(replay * len(new) + 0.5)]


def slice_questions(
    contracts: Sequence[Contract], records: Iterable[_Record], *, upto: int, size: int, seed: int
) -> list[Row]:
    """Return `size` (0: all) questions on the held-out contracts of each slice up to `upto`, each with its "slice"."""
    held = [r for r in records if r["split"] == SLICE_SPLIT]
    found = []
    for number in range(1, upto + 1):
        own = rows.rows_of_contracts(contracts, [r["title"] for r in held if r["slice"] == number])
        found += [row | {"slice": number} for row in rows.spread_rows(own, size, seed=seed)]
    return found


def slices_table(records: Iterable[_Record], parts: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Return a row for each slice: numbers of contracts and held-out contracts, commonest types, filing years."""
    by_title = {r["title"]: r for r in records}
    table = []
    for number, part in enumerate(parts, 1):
        kinds = Counter(by_title[title]["contract_type"] or "unknown" for title in part)
        years = sorted(set(map(filing_year, part)) - {UNDATED})
        held_out = sum(by_title[title]["split"] == SLICE_SPLIT for title in part)
        types = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common(4))
        filed = f"{years[0]} to {years[-1]}" if years else UNDATED
        row = {"contracts": len(part), "held out": held_out, "commonest types": types, "filed": filed}
        table.append({"slice": number} | row)
    return table


def keep_slices(iteration: runs.Iteration, records: Sequence[_Record]) -> list[_Record]:
    """Write the splits that `records` give to this iteration's contracts, and return the records.

    The splits of contracts that arrived in this iteration go to its arrived.jsonl. Those of all other contracts are
    drawn in the first iteration, go to contracts.jsonl and never change again.
    """
    slices = {record["title"]: record.get("slice") for record in records}
    lines = rows.arrived_lines(iteration)
    marked = [line if "reason" in line else rows.in_slice(line, slices[line["title"]]) for line in lines]
    # arrived.jsonl first: after a kill between both writes, both are drawn anew, and alike.
    if marked != lines:
        files.write_jsonl(iteration.path(rows.ARRIVED), marked)
    path = iteration.run / "contracts.jsonl"
    first = [record for record in records if "arrived" not in record]
    if iteration.previous is None and first != files.read_jsonl(path):
        files.write_jsonl(path, first)
    return list(records)


@dataclass(frozen=True)
class NextSlice:
    """What the stream brings to one iteration, by titles; `records` and `contracts` hold all that the run knows."""

    number: int  # of the slice, from 1
    slices: list[list[str]]  # all slices of the stream, in the order in which they arrive
    new: list[str]  # training contracts of this slice
    replayed: list[str]  # training contracts of earlier slices that are trained on again
    earlier: list[str]  # all training contracts of earlier slices
    records: list[_Record]
    contracts: list[Contract]
    corrected: list[str] = field(default_factory=list)  # reviewed contracts that people corrected: all so far

    @property
    def train(self) -> list[str]:
        """The titles that this iteration learns from."""
        return self.new + self.replayed + self.corrected


def next_slice(
    iteration: runs.Iteration,
    contracts: Sequence[Contract],
    records: Sequence[_Record],
    *,
    stream: str,
    size: int,
    hold_out: int,
    replay: float,
    seed: int,
    arrivals_folder: str | Path = "arrivals",
    max_characters: int = 0,
    schema: Schema | None = None,
) -> NextSlice:
    """Take an iteration's slice of the stream, hold `hold_out` contracts of it out, and add replayed earlier ones.

    contracts, records: as read and as frozen by `freeze_splits`; with the stream "arrivals", contracts of up to
    max_characters that lie in arrivals_folder are taken in first, with the categories of `schema`. The splits are kept
    on disk. Raises InputError on settings out of range, and if contracts arrived in a run whose stream is another one.
    Contracts that people reviewed and corrected come on top (see `data.corrections`).
    """
    if stream == "arrivals":
        others = corrected_anew(iteration)
        take_arrivals(iteration, arrivals_folder, max_characters=max_characters, schema=schema, needed=not others)
        contracts = [*contracts, *rows.arrived_contracts(iteration.run, iteration.number)]
        records = [r for r in rows.contract_records(iteration.run, iteration.number) if "corrected" not in r]
    elif arrived := rows.taken_lines(iteration.run, iteration.number):
        raise InputError(
            f"{len(arrived)} contracts arrived in this run (iter-*/{rows.ARRIVED}): keep stream arrivals, or take a "
            "new run folder for another stream."
        )
    slices, number = cut_slices(records, stream=stream, size=size, seed=SPLIT_SEED), iteration.number
    marked = hold_out_of_slices(records, slices, iteration=number, contracts=hold_out, seed=SPLIT_SEED)
    records = keep_slices(iteration, marked)
    held = set(rows.split_titles(records, SLICE_SPLIT))
    place, new, replayed = slice_portion(slices, held, iteration=number, replay=replay, seed=seed)
    earlier = sorted({title for part in slices[: number - 1] for title in part} - held)
    lines = take_corrections(iteration)
    records, contracts = [*records, *records_of(lines)], [*contracts, *map(Contract.from_record, lines)]
    return NextSlice(place, slices, new, replayed, earlier, records, contracts, [line["title"] for line in lines])


def question_sets(
    part: NextSlice, iteration: runs.Iteration, *, dev_rows: int, test_rows: int, slice_rows: int, seed: int
) -> dict[str, list[Row]]:
    """Return an iteration's questions by the name of their file: train, dev, test, slices, dev_questions, test_clauses.

    dev and test: dev_rows and test_rows questions of the split as by `rows.choose_questions`, each with its weight, the
    same in every iteration (`seed`); slices: slice_rows on the held-out contracts of each slice so far; dev_questions:
    all questions of dev; test_clauses: every question of test that has a clause. Raises InputError if a training
    question is on a held-out contract.
    """
    dev, test = (
        rows.rows_of_contracts(part.contracts, rows.split_titles(part.records, name)) for name in ("dev", "test")
    )
    sets = {
        "train": rows.rows_of_contracts(part.contracts, part.train),
        "dev": rows.choose_questions(dev, dev_rows, seed=seed),
        "test": rows.choose_questions(test, test_rows, seed=seed),
        "slices": slice_questions(part.contracts, part.records, upto=iteration.number, size=slice_rows, seed=seed),
        "dev_questions": dev,
        "test_clauses": [row for row in test if row["answers"]],
    }
    rows.assert_no_leak(sets["train"], part.records)
    return sets
