"""The stream of training contracts: the slices in which they arrive, what is held out of each, and what is replayed."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, NamedTuple

from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.data import rows
from cuadft.data.contracts import Contract, Row
from cuadft.data.splits import seeded_order

STREAMS = ("random", "by_type", "by_date", "arrivals")
UNDATED = "undated"
HELD = "slice"  # split of the contracts that a slice is measured on
_FILED = re.compile(
    r"_(?:\d{1,2}_\d{1,2}_((?:19|20)\d\d)|((?:19|20)\d\d)(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))(?=[_-]|$)"
)
_Record = dict[str, Any]


class Portion(NamedTuple):
    """The training contracts of one iteration: the slice's number (from 1), its own contracts, replayed older ones."""

    number: int
    new: list[str]
    replayed: list[str]


def filing_year(title: str) -> str:
    """Return the year in which a contract was filed, from its title, or "undated"."""
    found = _FILED.search(title)
    return (found[1] or found[2]) if found else UNDATED


def cut_slices(records: Iterable[_Record], *, stream: str, size: int, seed: int) -> list[list[str]]:
    """Return the titles of each slice, in the order in which slices arrive; held-out contracts of a slice are among them.

    random: seeded order, cut after `size`. by_type: one contract type after another in seeded order, as many whole types
    as fit into `size`. by_date: by filing year, cut after `size`; undated ones last. With size 0 a slice is everything, one
    type, or one year. arrivals: `size` contracts (0: all) of those that the run began with and what the folder held then;
    after that what each iteration found new.
    """
    if stream not in STREAMS or size < 0:
        raise InputError(
            f"Invalid stream {stream!r} or size {size}: choose {', '.join(STREAMS)} and a size from 0 (no limit)."
        )
    pool = sorted(
        (r for r in records if r["split"] in ("train", HELD, "all")), key=lambda r: seeded_order(seed, r["title"])
    )
    if stream == "by_type":
        return _by_type(pool, size, seed)
    if stream == "by_date":
        return _cut(pool, size, lambda r: filing_year(r["title"]))
    if stream == "arrivals":
        first = [r["title"] for r in pool if "arrived" not in r][: size or None]
        first += [r["title"] for r in pool if r.get("arrived") == 1]
        later = _parts([r for r in pool if r.get("arrived", 1) > 1], lambda r: r["arrived"])
        return [first, *later]
    return _cut(pool, size, lambda r: "")


def _parts(pool: Iterable[_Record], key: Callable[[_Record], Any]) -> list[list[str]]:
    parts: dict[Any, list[str]] = defaultdict(list)
    for record in pool:
        parts[key(record)].append(record["title"])
    return [parts[name] for name in sorted(parts)]  # "undated" sorts after every year


def _cut(pool: Sequence[_Record], size: int, key: Callable[[_Record], str]) -> list[list[str]]:
    parts = _parts(pool, key)
    if not size:
        return parts
    titles = [title for part in parts for title in part]
    return [titles[start : start + size] for start in range(0, len(titles), size)]


def _by_type(pool: Sequence[_Record], size: int, seed: int) -> list[list[str]]:
    kinds: dict[str, list[str]] = defaultdict(list)
    for record in pool:
        kinds[record["contract_type"]].append(record["title"])
    found: list[list[str]] = []
    for kind in sorted(kinds, key=lambda kind: seeded_order(seed, kind)):
        titles = kinds[kind]
        if size and found and len(found[-1]) + len(titles) <= size:
            found[-1] += titles
        else:  # a type that is larger than a slice is cut
            found += [
                titles[start : start + (size or len(titles))] for start in range(0, len(titles), size or len(titles))
            ]
    return found


def hold_out(
    records: Sequence[_Record], parts: Sequence[Sequence[str]], *, contracts: int, seed: int, anew: bool = False
) -> list[_Record]:
    """Return the records with `contracts` of each slice moved to the split "slice" and marked with their slice's number.

    Whole groups only, so that no training contract resembles one of them; at most half of a slice, and two at least or
    none, since one contract has no interval. Those that are marked already stay as they are, and so do slices that have
    some; `anew` draws all of those afresh that did not arrive later. Raises InputError on fewer than two `contracts`.
    """
    if contracts == 1 or contracts < 0:
        raise InputError(f"Invalid slice_contracts {contracts}: give 0, or 2 or more; one contract has no interval.")
    if anew:
        records = [_undone(record) for record in records]
    group_of = {r["title"]: r["group"] for r in records}
    members: dict[int, list[str]] = defaultdict(list)
    for record in records:
        members[record["group"]].append(record["title"])
    number = {title: n for n, part in enumerate(parts, 1) for title in part}
    held = {r["title"]: r["slice"] for r in records if r["split"] == HELD}
    free = {r["title"] for r in records if r["split"] == "train"}
    for part in parts:
        wanted, drawn = 0 if any(t in held for t in part) else min(contracts, len(part) // 2), []
        for group in dict.fromkeys(group_of[t] for t in sorted(part, key=lambda t: seeded_order(f"{seed}:{HELD}", t))):
            whole = members[group]
            # a group with members elsewhere (in other slices, or trained on before) would take those away, too
            if group >= 0 and wanted >= len(whole) and all(t in free and t in part for t in whole):
                drawn += whole
                wanted -= len(whole)
        if len(drawn) > 1:
            held |= {t: number[t] for t in drawn}
            free -= set(drawn)
    return [r | {"split": HELD, "slice": held[r["title"]]} if r["title"] in held else r for r in records]


def _undone(record: _Record) -> _Record:
    if record["split"] != HELD or "arrived" in record:
        return record
    return {key: value for key, value in record.items() if key != "slice"} | {"split": "train"}


def slice_portion(
    parts: Sequence[Sequence[str]],
    held: Collection[str],
    *,
    iteration: int,
    replay: float,
    reservoir: int = 0,
    seed: int,
) -> Portion:
    """Return one iteration's training contracts: the next slice, then round(replay * its size) contracts of earlier ones.

    Replayed are contracts of a reservoir, a uniform sample of `reservoir` (0: all) of those seen so far, in which an older
    contract, once dropped, never returns (bottom-k by hash; the sample is that of Vitter's reservoir, 1985). Slices start
    over when used up. Raises InputError.
    """
    if iteration < 1 or reservoir < 0 or not 0 <= replay <= 1:
        raise InputError(
            f"Invalid iteration {iteration}, reservoir {reservoir} or replay {replay}: give iteration >= 1, "
            "reservoir >= 0 (0 keeps all), replay from 0 to 1."
        )
    place = (iteration - 1) % len(parts)
    new = [title for title in parts[place] if title not in held]
    seen = {title for part in parts[: iteration - 1] for title in part} - set(held)
    kept = sorted(seen, key=lambda title: seeded_order(f"{seed}:reservoir", title))[: reservoir or None]
    older = sorted(set(kept) - set(new), key=lambda title: seeded_order(f"{seed}:{iteration}", title))
    return Portion(place + 1, new, older[: int(replay * len(new) + 0.5)])


def slice_rows(
    contracts: Iterable[Contract], records: Iterable[_Record], *, upto: int, size: int, seed: int
) -> list[Row]:
    """Return `size` (0: all) questions on the held-out contracts of each slice up to `upto`, each row with its "slice"."""
    held: dict[int, list[str]] = defaultdict(list)
    for record in records:
        if record["split"] == HELD and record["slice"] <= upto:
            held[record["slice"]].append(record["title"])
    contracts = list(contracts)
    return [
        row | {"slice": number}
        for number in sorted(held)
        for row in rows.spread_rows(rows.rows_of_contracts(contracts, held[number]), size, seed=seed)
    ]


def slices_table(records: Iterable[_Record], parts: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Return for each slice its contracts, those held out, its commonest contract types and its filing years."""
    by_title = {r["title"]: r for r in records}
    rows = []
    for number, part in enumerate(parts, 1):
        kinds = Counter(by_title[title]["contract_type"] or "unknown" for title in part)
        years = sorted({year for title in part if (year := filing_year(title)) != UNDATED})
        common = [f"{kind} ({count})" for kind, count in kinds.most_common(4)]
        rows.append(
            {
                "slice": number,
                "contracts": len(part),
                "held out": sum(by_title[t]["split"] == HELD for t in part),
                "types": ", ".join(common) + (f" and {len(kinds) - 4} more" if len(kinds) > 4 else ""),
                "filed": f"{years[0]} to {years[-1]}" if years else UNDATED,
            }
        )
    return rows


def keep_slices(iteration: runs.Iteration, records: Sequence[_Record]) -> list[_Record]:
    """Write the splits of this iteration's slice where its contracts are kept; those of earlier ones stay as they are.

    That is contracts.jsonl for all but what arrived later: drawn in the first iteration and never changed again.
    """
    path = iteration.run / "contracts.jsonl"
    first = [record for record in records if "arrived" not in record]
    rows.keep_arrived(
        iteration, records
    )  # first: after a kill, `arrivals.take` draws anew what contracts.jsonl does not confirm
    if iteration.previous is None and first != files.read_jsonl(path):
        files.write_jsonl(path, first)
    return list(records)
