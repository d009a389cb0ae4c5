"""The stream of training contracts: the slices in which they arrive, what is held out of each, and what is replayed.

Every iteration trains on one slice. Some contracts of each slice are held out, so that forgetting can be measured
later, and some contracts of earlier slices are replayed. For example, with slices of 100 contracts in the order of
filing years:

    slices = cut_slices(records, stream="by_date", size=100, seed=7)
    records = hold_out_of_slices(records, slices, contracts=10, seed=7)

`next_slice` does all steps for one iteration, and `question_sets` gives the questions of the iteration.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.data import rows
from cuadft.data.arrivals import ARRIVALS_FOLDER, take_arrivals
from cuadft.data.contracts import Contract, Row
from cuadft.data.questions import choose_questions
from cuadft.data.splits import SPLIT_SEED, seeded_order

STREAMS = ("random", "by_type", "by_date", "arrivals")
UNDATED = "undated"
SLICE_SPLIT = "slice"  # the split of contracts that are held out of a slice
# The filing date in a title: "ACME_03_04_2010-EX-10.1" or "ACME_20100304-10K".
_FILED = re.compile(
    r"_(?:\d{1,2}_\d{1,2}_((?:19|20)\d\d)|((?:19|20)\d\d)(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))(?=[_-]|$)"
)
_Record = dict[str, Any]


class Portion(NamedTuple):
    """The training contracts of one iteration: the number of its slice (from 1), new ones, replayed earlier ones."""

    number: int
    new: list[str]
    replayed: list[str]


def filing_year(title: str) -> str:
    """Return the year in which a contract was filed, from its title, or "undated"."""
    found = _FILED.search(title)
    return (found[1] or found[2]) if found else UNDATED


def cut_slices(records: Iterable[_Record], *, stream: str, size: int, seed: int) -> list[list[str]]:
    """Return the titles of each slice, held-out contracts included, in the order in which the slices arrive.

    random: in seeded order, cut after `size` contracts. by_type: one contract type after another in seeded order, as
    many whole types as fit into `size`. by_date: by filing year, undated contracts last, cut after `size`. With size 0
    a slice is everything, one type or one year. arrivals: first `size` contracts (0: all) that the run began with and
    those that arrived in iteration 1, then what each iteration found new. Raises InputError on another stream or a
    negative size.
    """
    if stream not in STREAMS or size < 0:
        raise InputError(
            f"Invalid stream {stream!r} or size {size}: choose {', '.join(STREAMS)} and a size from 0 (no limit)."
        )
    usable = [r for r in records if r["split"] in ("train", SLICE_SPLIT, "all")]
    pool = sorted(usable, key=lambda r: seeded_order(seed, r["title"]))
    if stream == "by_type":
        kinds = _titles_by(pool, lambda r: (seeded_order(seed, r["contract_type"]), r["contract_type"]))
        return _whole_lists(kinds, size)
    if stream == "arrivals":
        first = [r["title"] for r in pool if "arrived" not in r][: size or None]
        first += [r["title"] for r in pool if r.get("arrived") == 1]
        return [first, *_titles_by([r for r in pool if r.get("arrived", 1) > 1], lambda r: r["arrived"])]
    parts = _titles_by(pool, (lambda r: filing_year(r["title"])) if stream == "by_date" else lambda r: "")
    return _pieces([title for part in parts for title in part], size) if size else parts


def _titles_by(pool: Iterable[_Record], key: Callable[[_Record], Any]) -> list[list[str]]:
    """Return the titles of the records, one list for each value of `key`, in the order of these values."""
    parts: dict[Any, list[str]] = defaultdict(list)
    for record in pool:
        parts[key(record)].append(record["title"])
    return [parts[name] for name in sorted(parts)]  # "undated" sorts after every year


def _pieces(titles: Sequence[str], size: int) -> list[list[str]]:
    """Return the titles in lists of `size` (0: in one)."""
    step = size or len(titles)
    return [list(titles[start : start + step]) for start in range(0, len(titles), step)]


def _whole_lists(lists: Iterable[list[str]], size: int) -> list[list[str]]:
    """Return slices of whole lists, as many in each as fit into `size` (0: one); only a larger list is cut."""
    found: list[list[str]] = []
    for titles in lists:
        if size and found and len(found[-1]) + len(titles) <= size:
            found[-1] += titles
        else:
            found += _pieces(titles, size)
    return found


def hold_out_of_slices(
    records: Sequence[_Record], parts: Sequence[Sequence[str]], *, contracts: int, seed: int, anew: bool = False
) -> list[_Record]:
    """Return the records with `contracts` of each slice moved to the split "slice" and marked with the slice's number.

    Only whole groups are held out, so that no training contract resembles a held-out one. At most half of a slice is
    held out, and at least two contracts or none, since one contract has no interval. A slice that has held-out
    contracts keeps them. With `anew` they are drawn afresh, except those that arrived later. Raises InputError on 1 or
    fewer than 0 `contracts`.
    """
    if contracts == 1 or contracts < 0:
        raise InputError(f"Invalid slice_contracts {contracts}: give 0, or 2 or more; one contract has no interval.")
    if anew:
        records = [_put_back(record) for record in records]
    group_of = {r["title"]: r["group"] for r in records}
    members: dict[int, list[str]] = defaultdict(list)
    for title, group in group_of.items():
        members[group].append(title)
    held = {r["title"]: r["slice"] for r in records if r["split"] == SLICE_SPLIT}
    free = {r["title"] for r in records if r["split"] == "train"}
    for number, part in enumerate(parts, 1):
        wanted = 0 if any(title in held for title in part) else min(contracts, len(part) // 2)
        drawn: list[str] = []
        ordered = sorted(part, key=lambda title: seeded_order(f"{seed}:{SLICE_SPLIT}", title))
        for group in dict.fromkeys(group_of[title] for title in ordered):
            whole = members[group]
            # A group with members in other slices, or trained on before, cannot be held out as a whole.
            if group >= 0 and len(drawn) + len(whole) <= wanted and free.intersection(part).issuperset(whole):
                drawn += whole
        if len(drawn) > 1:
            held |= dict.fromkeys(drawn, number)
            free -= set(drawn)
    return [r | {"split": SLICE_SPLIT, "slice": held[r["title"]]} if r["title"] in held else r for r in records]


def _put_back(record: _Record) -> _Record:
    """Return a held-out record as a training record again; a contract that arrived later stays held out."""
    if record["split"] != SLICE_SPLIT or "arrived" in record:
        return record
    return {key: value for key, value in record.items() if key != "slice"} | {"split": "train"}


def slice_portion(
    parts: Sequence[Sequence[str]], held: Collection[str], *, iteration: int, replay: float, seed: int
) -> Portion:
    """Return one iteration's training contracts: its slice, and round(replay * size of the slice) earlier contracts.

    held: titles of held-out contracts. Replayed contracts are drawn from all those seen so far. When the slices are
    used up, they start over. Raises InputError on values out of range.
    """
    if iteration < 1 or not 0 <= replay <= 1:
        raise InputError(f"Invalid iteration {iteration} or replay {replay}: give iteration >= 1, replay from 0 to 1.")
    place = (iteration - 1) % len(parts)
    new = [title for title in parts[place] if title not in held]
    seen = {title for part in parts[: iteration - 1] for title in part} - set(held) - set(new)
    older = sorted(seen, key=lambda title: seeded_order(f"{seed}:{iteration}", title))
    return Portion(place + 1, new, older[: int(replay * len(new) + 0.5)])


def slice_questions(
    contracts: Sequence[Contract], records: Iterable[_Record], *, upto: int, size: int, seed: int
) -> list[Row]:
    """Return `size` (0: all) questions on the held-out contracts of each slice up to `upto`, each with its "slice"."""
    held = [r for r in records if r["split"] == SLICE_SPLIT]
    return [
        row | {"slice": number}
        for number in range(1, upto + 1)
        for row in rows.spread_rows(
            rows.rows_of_contracts(contracts, [r["title"] for r in held if r["slice"] == number]), size, seed=seed
        )
    ]


def slices_table(records: Iterable[_Record], parts: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Return a row for each slice: numbers of contracts and held-out contracts, commonest types, filing years."""
    by_title = {r["title"]: r for r in records}
    table = []
    for number, part in enumerate(parts, 1):
        kinds = Counter(by_title[title]["contract_type"] or "unknown" for title in part)
        years = sorted(set(map(filing_year, part)) - {UNDATED})
        held_out = sum(by_title[title]["split"] == SLICE_SPLIT for title in part)
        types = ", ".join(f"{kind} ({count})" for kind, count in kinds.most_common(4))
        types += f" and {len(kinds) - 4} more" if len(kinds) > 4 else ""
        filed = f"{years[0]} to {years[-1]}" if years else UNDATED
        table.append({"slice": number, "contracts": len(part), "held out": held_out, "types": types, "filed": filed})
    return table


def keep_slices(iteration: runs.Iteration, records: Sequence[_Record]) -> list[_Record]:
    """Write the splits that `records` give to this iteration's contracts, and return the records.

    The splits of contracts that arrived in this iteration go to its arrived.jsonl. Those of all other contracts are
    drawn in the first iteration, go to contracts.jsonl and never change again.
    """
    path = iteration.run / "contracts.jsonl"
    first = [record for record in records if "arrived" not in record]
    # arrived.jsonl first: after a kill between both writes, `take_arrivals` draws anew what contracts.jsonl does not
    # confirm.
    rows.keep_arrived(iteration, records)
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

    @property
    def train(self) -> list[str]:
        """The titles that this iteration learns from."""
        return self.new + self.replayed


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
    max_characters: int = 0,
) -> NextSlice:
    """Take an iteration's slice of the stream, hold `hold_out` contracts of it out, and add replayed earlier ones.

    contracts, records: as read and as frozen by `freeze_splits`; with the stream "arrivals", contracts of up to
    max_characters that lie in `ARRIVALS_FOLDER` are taken in first. The splits are kept on disk. Raises InputError on
    settings out of range, and if contracts arrived in a run whose stream is another one.
    """
    if stream == "arrivals":
        take_arrivals(iteration, runs.resolve_path(ARRIVALS_FOLDER), max_characters=max_characters)
        contracts = [*contracts, *rows.arrived_contracts(iteration.run, iteration.number)]
        records = rows.contract_records(iteration.run, iteration.number)
    else:
        rows.refuse_arrivals(iteration)
    slices = cut_slices(records, stream=stream, size=size, seed=SPLIT_SEED)
    marked = hold_out_of_slices(records, slices, contracts=hold_out, seed=SPLIT_SEED, anew=iteration.previous is None)
    records = keep_slices(iteration, marked)
    held = {record["title"] for record in records if record["split"] == SLICE_SPLIT}
    taken = slice_portion(slices, held, iteration=iteration.number, replay=replay, seed=seed)
    earlier = sorted({title for part in slices[: iteration.number - 1] for title in part} - held)
    return NextSlice(taken.number, slices, taken.new, taken.replayed, earlier, records, list(contracts))


def question_sets(
    part: NextSlice, iteration: runs.Iteration, *, dev_rows: int, test_rows: int, slice_rows: int, seed: int
) -> dict[str, list[Row]]:
    """Return an iteration's questions by the name of their file: train, dev, test, slices, dev_questions, test_clauses.

    dev and test: dev_rows and test_rows questions of the split as by `choose_questions`, each with its weight, the same
    in every iteration (`seed`); slices: slice_rows on the held-out contracts of each slice so far; dev_questions: all
    questions of dev; test_clauses: every question of test that has a clause. Raises InputError if a training question
    is on a held-out contract.
    """
    dev, test = (
        rows.rows_of_contracts(part.contracts, rows.split_titles(part.records, name)) for name in ("dev", "test")
    )
    sets = {
        "train": rows.rows_of_contracts(part.contracts, part.train),
        "dev": choose_questions(dev, dev_rows, seed=seed),
        "test": choose_questions(test, test_rows, seed=seed),
        "slices": slice_questions(part.contracts, part.records, upto=iteration.number, size=slice_rows, seed=seed),
        "dev_questions": dev,
        "test_clauses": [row for row in test if row["answers"]],
    }
    rows.assert_no_leak(sets["train"], part.records)
    return sets
