"""Compare answers before and after alignment: how many changed, for better and for worse, and the largest changes.

    table = before_after.table(sft_predictions, {"dpo": dpo_predictions})
    before_after.counts(table)
    before_after.show(table)                            # last line of a notebook cell, or print(...)
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import pandas as pd

from cuadft import metrics
from cuadft.answer_scores import token_f1
from cuadft.errors import InputError
from cuadft.excerpts import Piece, shorten
from cuadft.metrics import METRICS
from cuadft.ratings import failed, golds
from cuadft.sides import Block, Cell, Sides, marked

Predictions = Sequence[Mapping[str, Any]]
KINDS = ("unchanged", "better", "worse", "same_score", "unscored", "unpaired")
SAME = ("contract", "question", "answers")  # what must not differ between two predictions of one row
COLUMNS = ["method", "baseline", "metric", "split", "seed", "id", "contract", "category", "question", "golds",
           "answer_before", "answer_after", "failed_before", "failed_after", "before", "after", "gain", "kind"]
LONGEST, GOLDS = 400, 3  # characters of an answer or a gold span; gold spans listed


def table(before: Predictions, after: Mapping[str, Predictions], *, scores: pd.DataFrame | None = None,
          metric: str = "f1") -> pd.DataFrame:
    """Return one row per method and question: both answers, both scores, and what the change was worth.

    before: predictions of the SFT model; after: those of each method, paired by split, seed and id. scores: a frame of
    `metrics.score` with whatever judges added; without one the predictions are scored. gain: after − before, turned
    round where lower is better. kind: "unchanged" (the same words), "better", "worse", "same_score" (other words),
    "unscored" (no score, as of a failed judgement) or "unpaired" (only one of the two has this question). Raises
    InputError on an unknown metric, a row counted twice, scores that lack a row, and an id that stands for two questions.
    """
    if metric not in METRICS:
        raise InputError(f"Unknown metric {metric!r}: choose from {', '.join(METRICS)}.")
    baseline = " + ".join(sorted({str(p.get("system", "before")) for p in before})) or "before"
    old, old_scores = _by_key(before, baseline), _scores(before, scores, metric)
    rows: list[dict[str, Any]] = []
    for method, predictions in after.items():
        new, new_scores = _by_key(predictions, method), _scores(predictions, scores, metric)
        for key in [*old, *(k for k in new if k not in old)]:
            row = _row(old.get(key), new.get(key), old_scores.get(key, math.nan), new_scores.get(key, math.nan), metric)
            rows.append({"method": method, "baseline": baseline, "metric": metric} | row)
    return pd.DataFrame(rows, columns=COLUMNS)


def counts(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per method: questions and contracts compared, how many of each kind, failures, mean scores and gain.

    Means are over the questions that both have and that are scored.
    """
    lines = []
    for method, rows in table.groupby("method", sort=False):
        paired = rows[rows["kind"] != "unpaired"]
        kinds = rows["kind"].value_counts()
        scored = paired[paired["gain"].notna()]
        lines.append({"method": method, "questions": len(paired), "contracts": paired["contract"].nunique()}
                     | {kind: int(kinds.get(kind, 0)) for kind in KINDS}
                     | {name: int(paired[name].sum()) for name in ("failed_before", "failed_after")}
                     | {name: scored[name].mean() for name in ("before", "after", "gain")})  # fmt: skip
    names = ["method", "questions", "contracts", *KINDS, "failed_before", "failed_after", "before", "after", "gain"]
    return pd.DataFrame(lines, columns=names)


def pick(table: pd.DataFrame, n: int = 2) -> pd.DataFrame:
    """Return each method's largest changes: up to `n` for better and as many for worse, so that neither is hidden.

    Where a method has changes of one kind alone, up to n of that kind. Among equal gains contracts and categories that
    are not there yet come first, then a checksum of the id decides; the order of the rows makes no difference.
    """
    if n < 1:
        raise InputError(f"Invalid number {n} of examples: give a whole number from 1.")
    parts = [table.iloc[:0]]
    for _, rows in table.groupby("method", sort=False):
        sides = [rows[rows["kind"] == kind] for kind in ("better", "worse")]
        size = min(n, min(map(len, sides)) or max(map(len, sides)))
        parts += [side.loc[_largest(side, size)] for side in sides]
    return pd.concat(parts)


def show(table: pd.DataFrame, *, n: int = 2) -> Sides:
    """Return the largest changes of each method side by side: question, gold spans, the answer before and after.

    Above them stands how many answers changed at all; words of an answer that a gold span has too are marked.
    """
    chosen = pick(table, n)
    blocks = []
    for line in counts(table).to_dict("records"):
        rows = chosen[chosen["method"] == line["method"]].to_dict("records")
        baseline, metric = table.loc[table["method"] == line["method"], ["baseline", "metric"]].iloc[0]
        columns = ["Question", "Gold", f"Before ({baseline})", f"After ({line['method']})"]
        blocks.append(Block(f"{line['method']} against {baseline}", _summary(line, rows, METRICS[metric][0]), columns,
                            [_cells(row) for row in rows]))  # fmt: skip
    return Sides(blocks, "words of a gold span")


def _key(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return str(row["split"]), int(row.get("seed") or 0), row["id"]


def _by_key(predictions: Predictions, name: str) -> dict[tuple[str, int, str], Mapping[str, Any]]:
    missing = [field for p in predictions for field in metrics.REQUIRED if field not in p]
    if missing:
        raise InputError(f"A prediction of {name} has no {missing[0]!r}: pass rows as `inference.predict` returns them.")
    found = {_key(p): p for p in predictions}
    if len(found) < len(predictions):
        twice = next(key for key, number in Counter(map(_key, predictions)).items() if number > 1)
        raise InputError(f"{name} answers row {twice} twice: pass one prediction of each split, seed and id.")
    return found


def _scores(predictions: Predictions, scores: pd.DataFrame | None, metric: str) -> dict[tuple[str, int, str], float]:
    """Return each prediction's score, from the frame or computed."""
    frame = metrics.score(predictions) if scores is None else scores
    wanted = ["system", "split", "seed", "id", metric]
    missing = [column for column in wanted if column not in frame]
    if missing:
        raise InputError(f"The scores have no column {missing[0]!r}: pass the frame of metrics.score and the judges.")
    known = {(row[0], _key(dict(zip(wanted, row, strict=True)))): row[-1] for row in frame[wanted].itertuples(index=False)}
    absent = [p for p in predictions if (p["system"], _key(p)) not in known]
    if absent:
        raise InputError(f"The scores have no row of {absent[0]['system']!r} for {absent[0]['id']!r}: score all predictions.")
    return {_key(p): float(known[p["system"], _key(p)]) for p in predictions}


def _row(old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, before: float, after: float,
         metric: str) -> dict[str, Any]:  # fmt: skip
    row = old or new
    changed = [name for name in SAME if old and new and old[name] != new[name]]
    if changed:
        raise InputError(f"Row {row['id']!r} has another {changed[0]} before than after: predict both on the same rows.")
    answers = [None if p is None or failed(p) else p["answer"] for p in (old, new)]
    gain = (after - before) * (1 if METRICS[metric][1] else -1)
    return {
        **{name: row.get(name, "") for name in ("id", "contract", "category", "question")},
        "split": str(row["split"]), "seed": int(row.get("seed") or 0), "golds": tuple(golds(row)),
        "answer_before": answers[0], "answer_after": answers[1],
        "failed_before": old is not None and answers[0] is None, "failed_after": new is not None and answers[1] is None,
        "before": before, "after": after, "gain": gain,
        "kind": _kind(answers, gain) if old and new else "unpaired",
    }  # fmt: skip


def _kind(answers: Sequence[str | None], gain: float) -> str:
    before, after = (None if answer is None else answer.split() for answer in answers)
    if before == after:
        return "unchanged"
    return "unscored" if math.isnan(gain) else "better" if gain > 0 else "worse" if gain < 0 else "same_score"


def _largest(rows: pd.DataFrame, size: int) -> list[Any]:
    """Return the index of the `size` rows of largest absolute gain."""
    left, chosen = {index: row for index, row in zip(rows.index, rows.to_dict("records"), strict=True)}, []
    seen: Counter[tuple[str, str]] = Counter()

    def rank(index: Any) -> tuple:
        row = left[index]
        where = seen["contract", row["contract"]], seen["category", row["category"]]
        return -round(abs(row["gain"]), 9), *where, crc32(row["id"].encode()), row["id"], row["split"], row["seed"]

    while left and len(chosen) < size:
        chosen.append(min(left, key=rank))
        row = left.pop(chosen[-1])
        seen.update([("contract", row["contract"]), ("category", row["category"])])
    return chosen


def _summary(line: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], label: str) -> str:
    """Return what a method changed, and which of its changes are shown."""
    text = (f"{line['unchanged']} of {line['questions']} answers ({line['contracts']} contracts) as before, {line['better']} "
            f"better, {line['worse']} worse, {line['same_score']} in other words with the same score. ")
    if not math.isnan(line["gain"]):
        text += f"{label}: {line['before']:.3f} before, {line['after']:.3f} after. "
    for number, words in [(line["unscored"], "changed without a score"), (line["unpaired"], "in one of the two only"),
                          (line["failed_before"], "failed before"), (line["failed_after"], "failed after")]:
        text += f"{number} {words}. " * (number > 0)
    shown = [f"{sum(row['kind'] == kind for row in rows)} of {line[kind]} {kind}" for kind in ("better", "worse")]
    return text + (f"Shown, the largest changes first: {', '.join(shown)}." if rows else "No answer changed its score.")


def _cells(row: Mapping[str, Any]) -> list[Cell]:
    """Return question, gold spans and both answers of one change."""
    answers, label = [row["answer_before"], row["answer_after"]], METRICS[row["metric"]][0]
    # the nearest spans first: the score of an answer is that of its best one
    spans = sorted(row["golds"], key=lambda gold: -max(token_f1(answer, [gold]) for answer in answers))
    gold = [[Piece(shorten(span, LONGEST))] for span in spans[:GOLDS]] or [[Piece("none: the contract has no such clause")]]
    cells = [Cell([[Piece(shorten(row["question"] or row["category"], LONGEST))]], row["contract"]),
             Cell(gold, f"{len(spans) - GOLDS} more spans" if len(spans) > GOLDS else "")]  # fmt: skip
    for answer, note in zip(answers, (f"{row['before']:.2f}", f"{row['after']:.2f}, {row['kind']}"), strict=True):
        text = "(failed)" if answer is None else answer.strip() or "(blank)"
        cells.append(Cell([marked(text, row["golds"] if answer else (), LONGEST)], f"{label} {note}"))
    return cells
