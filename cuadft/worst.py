"""Show a system's worst answers beside their evidence, spread over kinds of fault and categories.

    examples = worst.pick(frame, predictions, system="sft")
    worst.show(examples, worst.texts(iteration.run, examples))      # last line of a notebook cell, or print(...)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import pandas as pd

from cuadft import corpus
from cuadft.diagnosis import FAULTS, classify, describe
from cuadft.errors import InputError
from cuadft.excerpts import Line, Page, Piece, excerpt, shorten
from cuadft.metrics import METRICS

LONGEST = 500  # characters of an answer, a gold span, an error or a judge's reason
GOLDS = 3  # gold spans listed


@dataclass(frozen=True)
class Example:
    """One wrong answer: its prediction, its kind of fault (a key of diagnosis.FAULTS) and its scored row."""

    prediction: Mapping[str, Any]
    fault: str
    metric: str
    row: Mapping[str, Any]


def pick(frame: pd.DataFrame, predictions: Sequence[Mapping[str, Any]], *, system: str, split: str = "test",
         metric: str = "f1", n: int = 4, kinds: Sequence[str] = tuple(FAULTS),
         fine_from: float = 0.5) -> list[Example]:
    """Return up to `n` wrong answers of one system: kinds in turn, the commonest first, new categories before others.

    frame: from `metrics.score`, with the judge's columns if there are any; predictions: those that it was made of;
    metric, fine_from: as in `diagnosis.classify`. Within a kind and category the lowest value comes first. The order
    of the rows makes no difference. Raises InputError on an unknown system, split or kind, and on a row without its
    prediction.
    """
    unknown = [kind for kind in kinds if kind not in FAULTS]
    if unknown:
        raise InputError(f"Invalid kind of fault {unknown[0]!r}: choose from {', '.join(FAULTS)}.")
    known = [f"{s} on {d}" for s, d in frame[["system", "split"]].drop_duplicates().itertuples(index=False)]
    rows = frame[(frame["system"] == system) & (frame["split"] == split)]
    if not len(rows):
        known = ", ".join(known) or "none"
        raise InputError(f"No rows of system {system!r} on split {split!r}: choose from {known}.")
    rows = rows.assign(fault=classify(rows, metric, fine_from=fine_from))
    by_key = {_key(p): p for p in predictions}
    chosen = _spread(rows[rows["fault"].isin(list(kinds))].to_dict("records"), metric, n)
    missing = [row["id"] for row in chosen if _key(row) not in by_key]
    if missing:
        raise InputError(f"Row {missing[0]!r} of {system!r} has no prediction: pass those that made the frame.")
    return [Example(by_key[_key(row)], row["fault"], metric, row) for row in chosen]


def _key(row: Mapping[str, Any]) -> tuple[str, str, int, str]:
    return row["system"], row["split"], int(row.get("seed") or 0), row["id"]


def _spread(rows: list[dict[str, Any]], metric: str, n: int) -> list[dict[str, Any]]:
    """Choose n rows of different ids, one kind of fault after the other."""
    left = {kind: [row for row in rows if row["fault"] == kind] for kind in FAULTS}
    turns = sorted(FAULTS, key=lambda kind: -len(left[kind]))
    seen: Counter[tuple[str, str]] = Counter()
    chosen: list[dict[str, Any]] = []
    while len(chosen) < n and any(left.values()):
        for kind in [k for k in turns if left[k]][: n - len(chosen)]:
            best = min(left[kind], key=lambda row: _rank(row, metric, seen), default=None)
            if best is None:
                continue
            chosen.append(best)
            seen.update([("category", best["category"]), ("contract", best["contract"])])
            left = {k: [row for row in part if row["id"] != best["id"]] for k, part in left.items()}
    return chosen


def _rank(row: Mapping[str, Any], metric: str, seen: Counter[tuple[str, str]]) -> tuple:
    value = -1.0 if math.isnan(row[metric]) else row[metric]
    # The checksum draws evenly among equals; by id the first contract of the alphabet would always win.
    tie = (crc32(row["id"].encode()), row["id"], int(row.get("seed") or 0))
    return seen["category", row["category"]], seen["contract", row["contract"]], value, *tie


def texts(run: Path, examples: Sequence[Example]) -> dict[str, str]:
    """Return the texts of the examples' contracts, by title, from the run's contracts."""
    wanted = {e.prediction["contract"] for e in examples}
    if not wanted:
        return {}
    return {r["title"]: r["text"] for r in corpus.records(Path(run)) if r["title"] in wanted}


def show(examples: Sequence[Example], texts: Mapping[str, str], *, around: int = 160,
         passages: int = 3) -> Page:
    """Return the examples with question, gold spans, answer, judge's verdict and the evidence, spans marked in it.

    texts: contract texts by title, as from `texts`; evidence is left out where one is missing. around: characters of
    evidence kept on each side of a span; passages: the most that are shown, those with a span first. Raises
    InputError if a gold span does not stand at its place in the text.
    """
    cards = []
    for number, example in enumerate(examples, 1):
        p = example.prediction
        name, cause = describe(example.fault, recall=_number(example.row.get("char_recall")))
        text = texts.get(p["contract"])
        if text is not None:
            _check(p, text)
        lines = [("Fault", [Piece(cause)]), *_asked(example), *_evidence(p, text, around, passages)]
        where = f" ({p['category']})" if p.get("category") else ""
        cards.append((f"{number} of {len(examples)}. {name}{where}", lines))
    return Page(cards)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _check(p: Mapping[str, Any], text: str) -> None:
    for span in p["answers"]:
        if not text.startswith(span["text"], span["start"]):
            raise InputError(f"The gold span at character {span['start']} of row {p['id']!r} is not in the text of "
                             f"{p['contract']!r}: give the contracts.jsonl of the run that predicted it.")


def _asked(example: Example) -> list[Line]:
    """Return the lines on question, gold spans, answer and verdict."""
    p, row = example.prediction, example.row
    golds = [shorten(a["text"], LONGEST) for a in p["answers"]]
    shown = [("Gold" + f" {n}" * (len(golds) > 1), [Piece(g, gold=True)]) for n, g in enumerate(golds[:GOLDS], 1)]
    shown += [("Gold", [Piece(f"{len(golds) - GOLDS} more spans")])] * (len(golds) > GOLDS)
    label = METRICS[example.metric][0]
    who = f"{p['system']} on {p['split']}" + (f", seed {p['seed']}" if p.get("seed") else "")
    lines = [
        ("Contract", f"{p['contract']} ({p.get('contract_type') or 'type unknown'})"),
        ("Question", p.get("question")),
        ("Answer", (p["answer"].strip() or "(blank)") if isinstance(p["answer"], str) else "(none)"),
        ("Error", p.get("error")),
        ("Score", f"{label} {row[example.metric]:.2f} ({who})"),
        ("Verdict", row.get("judge_verdict")),
        ("Reason", row.get("judge_reason")),
        ("Judgement failed", row.get("judge_error")),
    ]
    told = [(name, [Piece(shorten(text, LONGEST))]) for name, text in lines if isinstance(text, str) and text]
    return told[:2] + (shown or [("Gold", [Piece("none: the contract has no such clause")])]) + told[2:]


def _evidence(p: Mapping[str, Any], text: str | None, around: int, limit: int) -> list[Line]:
    """Return one line per passage shown, best first, and one per gold span that none of the passages touches."""
    sent = p.get("passages")
    if sent is None or text is None:
        return [("Passages", [Piece("not recorded" if sent is None else "the contract's text is not at hand")])]
    gold = [(a["start"], a["start"] + len(a["text"])) for a in p["answers"]]
    cited = [tuple(span) for span in p.get("spans") or ()]
    lines: list[tuple[int, Line]] = []
    for rank, passage in enumerate(sent):
        pieces = excerpt(text, passage["start"], passage["end"], gold=gold, cited=cited, around=around)
        label = f"Passage {rank + 1} of {len(sent)}, characters {passage['start']:,}–{passage['end']:,}"
        lines.append((not any(piece.gold or piece.cited for piece in pieces), (label, pieces)))
    kept = sorted(sorted(range(len(lines)), key=lambda i: (lines[i][0], i))[:limit])
    shown = [lines[i][1] for i in kept]
    if len(kept) < len(lines):
        shown.append(("Passages", [Piece(f"{len(lines) - len(kept)} more, not shown")]))
    unsent = [(a, b) for a, b in gold if not any(s["start"] < b and a < s["end"] for s in sent)]
    return shown + [(f"Not sent, characters {a:,}–{b:,}", excerpt(text, 0, len(text), gold=[(a, b)], around=around))
                    for a, b in unsent[:GOLDS]]
