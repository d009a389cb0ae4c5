"""Show examples of answers: a system's worst ones beside their evidence, and what alignment changed.

The worst answers are spread over kinds of fault and categories, so that one frequent fault does not hide the others:

    worst = pick_worst(frame, predictions, system="sft")
    show_worst(worst, worst_texts(iteration.run, worst))      # last line of a notebook cell, or print(...)

The changes say how many answers became better and worse, and show the largest of both kinds:

    table = changed_answers(sft_predictions, {"dpo": dpo_predictions})
    change_counts(table)
    show_changes(table)                                       # last line of a notebook cell, or print(...)
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

from cuadft.core.errors import InputError
from cuadft.data.rows import contract_records
from cuadft.evaluation import metrics
from cuadft.evaluation.excerpts import (
    ExcerptPage,
    LabelledLine,
    Piece,
    SideBlock,
    SideBySide,
    SideCell,
    excerpt,
    mark_shared,
    shorten,
)
from cuadft.evaluation.metrics import METRICS
from cuadft.evaluation.scoreboard import FAULTS, classify_faults, describe_fault
from cuadft.evaluation.text_scores import token_f1
from cuadft.evaluation.verdicts import gold_texts, has_failed

Predictions = Sequence[Mapping[str, Any]]

LONGEST_ANSWER = 500  # characters shown of an answer, a gold span, an error or a judge's reason
GOLDS_SHOWN = 3
CHANGE_KINDS = ("unchanged", "better", "worse", "same_score", "unscored", "unpaired")
SAME_IN_BOTH = ("contract", "question", "answers")  # what must not differ between two predictions of one row
CHANGE_COLUMNS = (
    "method baseline metric split seed id contract category question golds answer_before answer_after failed_before "
    "failed_after before after gain kind"
).split()
LONGEST_CELL = 400  # characters of an answer or a gold span in a comparison


@dataclass(frozen=True)
class Example:
    """Hold one wrong answer: its prediction, its kind of fault (a key of `scoreboard.FAULTS`) and its scored row."""

    prediction: Mapping[str, Any]
    fault: str
    metric: str
    row: Mapping[str, Any]


def pick_worst(
    frame: pd.DataFrame,
    predictions: Sequence[Mapping[str, Any]],
    *,
    system: str,
    split: str = "test",
    metric: str = "f1",
    n: int = 4,
    kinds: Sequence[str] = tuple(FAULTS),
    fine_from: float = 0.5,
) -> list[Example]:
    """Return up to `n` wrong answers of one system: kinds in turn, the commonest first, new categories before others.

    frame: from `score_predictions`, with the judge's columns if there are any; predictions: what the frame was made of;
    metric, fine_from: as in `scoreboard.classify_faults`. Within a kind and category the lowest value comes first. The
    order of the rows makes no difference. Raises InputError on an unknown system, split or kind, and on a row without
    its prediction.
    """
    unknown = [kind for kind in kinds if kind not in FAULTS]
    if unknown:
        raise InputError(f"Invalid kind of fault {unknown[0]!r}: choose from {', '.join(FAULTS)}.")
    known = [f"{s} on {d}" for s, d in frame[["system", "split"]].drop_duplicates().itertuples(index=False)]
    rows = frame[(frame["system"] == system) & (frame["split"] == split)]
    if not len(rows):
        known = ", ".join(known) or "none"
        raise InputError(f"No rows of system {system!r} on split {split!r}: choose from {known}.")
    rows = rows.assign(fault=classify_faults(rows, metric, fine_from=fine_from))
    by_key = {_row_key(p): p for p in predictions}
    chosen = _spread_over_faults(rows[rows["fault"].isin(list(kinds))].to_dict("records"), metric, n)
    missing = [row["id"] for row in chosen if _row_key(row) not in by_key]
    if missing:
        raise InputError(f"Row {missing[0]!r} of {system!r} has no prediction: pass those that made the frame.")
    return [Example(by_key[_row_key(row)], row["fault"], metric, row) for row in chosen]


def worst_texts(run: Path, examples: Sequence[Example]) -> dict[str, str]:
    """Return the texts of the examples' contracts, title -> text, from the run folder."""
    wanted = {e.prediction["contract"] for e in examples}
    if not wanted:
        return {}
    return {r["title"]: r["text"] for r in contract_records(Path(run)) if r["title"] in wanted}


def show_worst(
    examples: Sequence[Example], texts: Mapping[str, str], *, around: int = 160, passages: int = 3
) -> ExcerptPage:
    """Return the examples with question, gold spans, answer, judge's verdict and the evidence, spans marked in it.

    texts: contract texts by title, from `worst_texts`; an example whose text is missing is shown without evidence.
    around: characters of evidence kept on each side of a span; passages: how many are shown at most, first those with a
    span. Raises InputError if a gold span does not stand at its place in the text.
    """
    cards = []
    for number, example in enumerate(examples, 1):
        p = example.prediction
        name, cause = describe_fault(example.fault, recall=_number(example.row.get("char_recall")))
        text = texts.get(p["contract"])
        if text is not None:
            _check_gold_spans(p, text)
        lines = [("Fault", [Piece(cause)]), *_answer_lines(example), *_passage_lines(p, text, around, passages)]
        where = f" ({p['category']})" if p.get("category") else ""
        cards.append((f"{number} of {len(examples)}. {name}{where}", lines))
    return ExcerptPage(cards)


def changed_answers(
    before: Predictions, after: Mapping[str, Predictions], *, scores: pd.DataFrame | None = None, metric: str = "f1"
) -> pd.DataFrame:
    """Return one row per method and question: both answers, both scores, and what the change was worth.

    before: predictions of the SFT model; after: predictions of each method, paired by split, seed and id. scores: a
    frame of `score_predictions` with the judges' columns; without it the predictions are scored here. gain: after −
    before, with its sign turned where lower is better. kind: "unchanged" (the same words), "better", "worse",
    "same_score" (other words), "unscored" (no score, for example after a failed judgement) or "unpaired" (only one of
    the two has this question). Raises InputError on an unknown metric, a row counted twice, scores that lack a row, and
    an id that stands for two questions.
    """
    if metric not in METRICS:
        raise InputError(f"Unknown metric {metric!r}: choose from {', '.join(METRICS)}.")
    baseline = " + ".join(sorted({str(p.get("system", "before")) for p in before})) or "before"
    old, old_scores = _predictions_by_key(before, baseline), _scores_by_key(before, scores, metric)
    rows: list[dict[str, Any]] = []
    for method, predictions in after.items():
        new, new_scores = _predictions_by_key(predictions, method), _scores_by_key(predictions, scores, metric)
        for key in [*old, *(k for k in new if k not in old)]:
            scores_of_both = old_scores.get(key, math.nan), new_scores.get(key, math.nan)
            row = _changed_row(old.get(key), new.get(key), *scores_of_both, metric)
            rows.append({"method": method, "baseline": baseline, "metric": metric} | row)
    return pd.DataFrame(rows, columns=CHANGE_COLUMNS)


def change_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per method: what was compared, how many changes of each kind, failures, mean scores and mean gain.

    Means are over the questions that both have and that are scored.
    """
    lines = []
    for method, rows in table.groupby("method", sort=False):
        paired = rows[rows["kind"] != "unpaired"]
        kinds = rows["kind"].value_counts()
        scored = paired[paired["gain"].notna()]
        lines.append(
            {"method": method, "questions": len(paired), "contracts": paired["contract"].nunique()}
            | {kind: int(kinds.get(kind, 0)) for kind in CHANGE_KINDS}
            | {name: int(paired[name].sum()) for name in ("failed_before", "failed_after")}
            | {name: scored[name].mean() for name in ("before", "after", "gain")}
        )
    names = [
        "method",
        "questions",
        "contracts",
        *CHANGE_KINDS,
        "failed_before",
        "failed_after",
        "before",
        "after",
        "gain",
    ]
    return pd.DataFrame(lines, columns=names)


def pick_changes(table: pd.DataFrame, n: int = 2) -> pd.DataFrame:
    """Return each method's largest changes: up to `n` for the better, and as many for the worse.

    If a method has changes of one kind only, up to n of that kind are returned. Among equal gains contracts and
    categories that are not chosen yet come first, then a checksum of the id decides; the order of the rows makes no
    difference.
    """
    if n < 1:
        raise InputError(f"Invalid number {n} of examples: give a whole number from 1.")
    parts = [table.iloc[:0]]
    for _, rows in table.groupby("method", sort=False):
        sides = [rows[rows["kind"] == kind] for kind in ("better", "worse")]
        size = min(n, min(map(len, sides)) or max(map(len, sides)))
        parts += [side.loc[_largest_gains(side, size)] for side in sides]
    return pd.concat(parts)


def show_changes(table: pd.DataFrame, *, n: int = 2) -> SideBySide:
    """Return the largest changes of each method side by side: question, gold spans, the answer before and after.

    A sentence above them says how many answers changed; words of an answer that stand in a gold span are marked.
    """
    chosen = pick_changes(table, n)
    blocks = []
    for line in change_counts(table).to_dict("records"):
        rows = chosen[chosen["method"] == line["method"]].to_dict("records")
        baseline, metric = table.loc[table["method"] == line["method"], ["baseline", "metric"]].iloc[0]
        columns = ["Question", "Gold", f"Before ({baseline})", f"After ({line['method']})"]
        heading, text = f"{line['method']} against {baseline}", _changes_text(line, rows, METRICS[metric][0])
        blocks.append(SideBlock(heading, text, columns, [_change_cells(row) for row in rows]))
    return SideBySide(blocks, "words of a gold span")


def _row_key(row: Mapping[str, Any]) -> tuple[str, str, int, str]:
    return row["system"], row["split"], int(row.get("seed") or 0), row["id"]


def _spread_over_faults(rows: list[dict[str, Any]], metric: str, n: int) -> list[dict[str, Any]]:
    """Choose n rows of different ids, one kind of fault after the other."""
    left = {kind: [row for row in rows if row["fault"] == kind] for kind in FAULTS}
    turns = sorted(FAULTS, key=lambda kind: -len(left[kind]))
    seen: Counter[tuple[str, str]] = Counter()
    chosen: list[dict[str, Any]] = []
    while len(chosen) < n and any(left.values()):
        for kind in [k for k in turns if left[k]][: n - len(chosen)]:
            best = min(left[kind], key=lambda row: _spread_rank(row, metric, seen), default=None)
            if best is None:
                continue
            chosen.append(best)
            seen.update([("category", best["category"]), ("contract", best["contract"])])
            left = {k: [row for row in part if row["id"] != best["id"]] for k, part in left.items()}
    return chosen


def _spread_rank(row: Mapping[str, Any], metric: str, seen: Counter[tuple[str, str]]) -> tuple:
    value = -1.0 if math.isnan(row[metric]) else row[metric]
    # The checksum draws evenly among equal rows; by id the first contract of the alphabet would always win.
    tie = (crc32(row["id"].encode()), row["id"], int(row.get("seed") or 0))
    return seen["category", row["category"]], seen["contract", row["contract"]], value, *tie


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _check_gold_spans(p: Mapping[str, Any], text: str) -> None:
    for span in p["answers"]:
        if not text.startswith(span["text"], span["start"]):
            raise InputError(
                f"The gold span at character {span['start']} of row {p['id']!r} is not in the text of "
                f"{p['contract']!r}: give the contracts.jsonl of the run that predicted it."
            )


def _answer_lines(example: Example) -> list[LabelledLine]:
    """Return the lines on question, gold spans, answer and verdict."""
    p, row = example.prediction, example.row
    golds = [shorten(a["text"], LONGEST_ANSWER) for a in p["answers"]]
    labels = ["Gold"] if len(golds) == 1 else [f"Gold {n}" for n in range(1, GOLDS_SHOWN + 1)]
    shown = [(label, [Piece(gold, gold=True)]) for label, gold in zip(labels, golds)]
    if len(golds) > GOLDS_SHOWN:
        shown.append(("Gold", [Piece(f"{len(golds) - GOLDS_SHOWN} more spans")]))
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
    told = [(name, [Piece(shorten(text, LONGEST_ANSWER))]) for name, text in lines if isinstance(text, str) and text]
    return told[:2] + (shown or [("Gold", [Piece("none: the contract has no such clause")])]) + told[2:]


def _passage_lines(p: Mapping[str, Any], text: str | None, around: int, limit: int) -> list[LabelledLine]:
    """Return one line per passage shown, best first, and one per gold span that no passage touches."""
    sent = p.get("passages")
    if sent is None or text is None:
        return [("Passages", [Piece("not recorded" if sent is None else "the contract's text is not at hand")])]
    gold = [(a["start"], a["start"] + len(a["text"])) for a in p["answers"]]
    cited = [tuple(span) for span in p.get("spans") or ()]
    lines: list[tuple[int, LabelledLine]] = []
    for rank, passage in enumerate(sent):
        pieces = excerpt(text, passage["start"], passage["end"], gold=gold, cited=cited, around=around)
        label = f"Passage {rank + 1} of {len(sent)}, characters {passage['start']:,}–{passage['end']:,}"
        label += "" if passage.get("read", True) else ", not read"
        lines.append((not any(piece.gold or piece.cited for piece in pieces), (label, pieces)))
    kept = sorted(sorted(range(len(lines)), key=lambda i: (lines[i][0], i))[:limit])
    shown = [lines[i][1] for i in kept]
    if len(kept) < len(lines):
        shown.append(("Passages", [Piece(f"{len(lines) - len(kept)} more, not shown")]))
    unsent = [(a, b) for a, b in gold if not any(s["start"] < b and a < s["end"] for s in sent)]
    return shown + [
        (f"Not sent, characters {a:,}–{b:,}", excerpt(text, 0, len(text), gold=[(a, b)], around=around))
        for a, b in unsent[:GOLDS_SHOWN]
    ]


def _prediction_key(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return str(row["split"]), int(row.get("seed") or 0), row["id"]


def _predictions_by_key(predictions: Predictions, name: str) -> dict[tuple[str, int, str], Mapping[str, Any]]:
    missing = [field for p in predictions for field in metrics.REQUIRED_KEYS if field not in p]
    if missing:
        raise InputError(f"A prediction of {name} has no {missing[0]!r}: pass rows as `answer_rows` returns them.")
    found = {_prediction_key(p): p for p in predictions}
    if len(found) < len(predictions):
        twice = next(key for key, number in Counter(map(_prediction_key, predictions)).items() if number > 1)
        raise InputError(f"{name} answers row {twice} twice: pass one prediction of each split, seed and id.")
    return found


def _scores_by_key(
    predictions: Predictions, scores: pd.DataFrame | None, metric: str
) -> dict[tuple[str, int, str], float]:
    """Return each prediction's score, from the frame or computed."""
    frame = metrics.score_predictions(predictions) if scores is None else scores
    wanted = ["system", "split", "seed", "id", metric]
    missing = [column for column in wanted if column not in frame]
    if missing:
        raise InputError(
            f"The scores have no column {missing[0]!r}: pass the frame of `score_predictions` and the judges."
        )
    lines = [dict(zip(wanted, row, strict=True)) for row in frame[wanted].itertuples(index=False)]
    known = {(line["system"], _prediction_key(line)): line[metric] for line in lines}
    absent = [p for p in predictions if (p["system"], _prediction_key(p)) not in known]
    if absent:
        raise InputError(
            f"The scores have no row of {absent[0]['system']!r} for {absent[0]['id']!r}: score all predictions."
        )
    return {_prediction_key(p): float(known[p["system"], _prediction_key(p)]) for p in predictions}


def _changed_row(
    old: Mapping[str, Any] | None, new: Mapping[str, Any] | None, before: float, after: float, metric: str
) -> dict[str, Any]:
    row = old or new
    changed = [name for name in SAME_IN_BOTH if old and new and old[name] != new[name]]
    if changed:
        raise InputError(
            f"Row {row['id']!r} has another {changed[0]} before than after: predict both on the same rows."
        )
    answers = [None if p is None or has_failed(p) else p["answer"] for p in (old, new)]
    gain = (after - before) * (1 if METRICS[metric][1] else -1)
    return {
        **{name: row.get(name, "") for name in ("id", "contract", "category", "question")},
        "split": str(row["split"]),
        "seed": int(row.get("seed") or 0),
        "golds": tuple(gold_texts(row)),
        "answer_before": answers[0],
        "answer_after": answers[1],
        "failed_before": old is not None and answers[0] is None,
        "failed_after": new is not None and answers[1] is None,
        "before": before,
        "after": after,
        "gain": gain,
        "kind": _change_kind(answers, gain) if old and new else "unpaired",
    }


def _change_kind(answers: Sequence[str | None], gain: float) -> str:
    before, after = (None if answer is None else answer.split() for answer in answers)
    if before == after:
        return "unchanged"
    return "unscored" if math.isnan(gain) else "better" if gain > 0 else "worse" if gain < 0 else "same_score"


def _largest_gains(rows: pd.DataFrame, size: int) -> list[Any]:
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


def _changes_text(line: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], label: str) -> str:
    """Return what a method changed, and which of its changes are shown."""
    compared = f"{line['questions']} answers ({line['contracts']} contracts)"
    text = (
        f"{line['unchanged']} of {compared} as before, {line['better']} better, {line['worse']} worse, "
        f"{line['same_score']} in other words with the same score. "
    )
    if not math.isnan(line["gain"]):
        text += f"{label}: {line['before']:.3f} before, {line['after']:.3f} after. "
    for number, words in [
        (line["unscored"], "changed without a score"),
        (line["unpaired"], "in one of the two only"),
        (line["failed_before"], "failed before"),
        (line["failed_after"], "failed after"),
    ]:
        if number:
            text += f"{number} {words}. "
    shown = [f"{sum(row['kind'] == kind for row in rows)} of {line[kind]} {kind}" for kind in ("better", "worse")]
    return text + (f"Shown, the largest changes first: {', '.join(shown)}." if rows else "No answer changed its score.")


def _change_cells(row: Mapping[str, Any]) -> list[SideCell]:
    """Return question, gold spans and both answers of one change."""
    answers, label = [row["answer_before"], row["answer_after"]], METRICS[row["metric"]][0]
    # The nearest spans first: an answer has the score of its best span.
    spans = sorted(row["golds"], key=lambda gold: -max(token_f1(answer, [gold]) for answer in answers))
    gold = [[Piece(shorten(span, LONGEST_CELL))] for span in spans[:GOLDS_SHOWN]] or [
        [Piece("none: the contract has no such clause")]
    ]
    cells = [
        SideCell([[Piece(shorten(row["question"] or row["category"], LONGEST_CELL))]], row["contract"]),
        SideCell(gold, f"{len(spans) - GOLDS_SHOWN} more spans" if len(spans) > GOLDS_SHOWN else ""),
    ]
    for answer, note in zip(answers, (f"{row['before']:.2f}", f"{row['after']:.2f}, {row['kind']}"), strict=True):
        text = "(failed)" if answer is None else answer.strip() or "(blank)"
        cells.append(SideCell([mark_shared(text, row["golds"] if answer else (), LONGEST_CELL)], f"{label} {note}"))
    return cells
