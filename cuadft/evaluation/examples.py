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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd

from cuadft.core.errors import InputError
from cuadft.data.rows import contract_records
from cuadft.evaluation import metrics
from cuadft.evaluation.excerpts import ExcerptPage, LabelledLine, Piece, excerpt, gold_lines, mark_shared, shorten
from cuadft.evaluation.metrics import METRICS
from cuadft.evaluation.scoreboard import FAULTS, classify_faults, describe_fault
from cuadft.evaluation.text_scores import token_f1
from cuadft.evaluation.verdicts import gold_texts, has_failed

Predictions = Sequence[Mapping[str, Any]]

LONGEST_ANSWER = 500  # characters shown of an answer, a gold span, an error or a judge's reason
LONGEST_CHANGED = 400  # characters shown of an answer or a gold span in a comparison
UNSENT_SHOWN = 3  # gold spans that no passage touches
CHANGE_KINDS = ("unchanged", "better", "worse", "same_score", "unscored", "unpaired")
COUNTED = {  # what is counted of a method's changes -> in words
    "unchanged": "as before",
    "better": "better",
    "worse": "worse",
    "same_score": "in other words with the same score",
    "unscored": "changed without a score",
    "unpaired": "in one of the two only",
    "failed_before": "failed before",
    "failed_after": "failed after",
}
PAIRED_BY = ["split", "seed", "id"]
OF_THE_QUESTION = ["contract", "category", "question", "answers"]
SAME_IN_BOTH = ("contract", "question", "answers")  # what must not differ between two predictions of one row
CHANGE_COLUMNS = (
    "method baseline metric split seed id contract category question golds answer_before answer_after failed_before "
    "failed_after before after gain kind"
).split()


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
) -> list[Example]:
    """Return up to `n` wrong answers of one system: kinds in turn, the commonest first, new categories before others.

    frame: from `score_predictions`, with the judge's columns if there are any; predictions: what the frame was made of;
    metric: as in `scoreboard.classify_faults`. Within a kind and category the lowest value comes first. The order of
    the rows makes no difference. Raises InputError on an unknown system or split, and on a row without its prediction.
    """
    known = [f"{s} on {d}" for s, d in frame[["system", "split"]].drop_duplicates().itertuples(index=False)]
    rows = frame[(frame["system"] == system) & (frame["split"] == split)]
    if not len(rows):
        names = ", ".join(known) or "none"
        raise InputError(f"No rows of system {system!r} on split {split!r}: choose from {names}.")
    rows = rows.assign(fault=classify_faults(rows, metric))
    turns = sorted(FAULTS, key=lambda kind: -int((rows["fault"] == kind).sum()))

    def rank(row: Mapping[str, Any], seen: Counter[tuple[str, str]]) -> tuple:
        kind, value = row["fault"], -1.0 if math.isnan(row[metric]) else row[metric]
        where = seen["category", row["category"]], seen["contract", row["contract"]]
        return seen["fault", kind], turns.index(kind), *where, value

    by_key = {_row_key(p): p for p in predictions}
    chosen = _spread(rows[rows["fault"].isin(list(FAULTS))].to_dict("records"), n, rank, once=True)
    missing = [row["id"] for row in chosen if _row_key(row) not in by_key]
    if missing:
        raise InputError(f"Row {missing[0]!r} of {system!r} has no prediction: pass those that made the frame.")
    return [Example(by_key[_row_key(row)], row["fault"], metric, row) for row in chosen]


def worst_texts(run: Path, examples: Sequence[Example]) -> dict[str, str]:
    """Return the texts of the examples' contracts, title -> text, from the run folder."""
    wanted = {e.prediction["contract"] for e in examples}
    records = contract_records(Path(run)) if wanted else []
    return {r["title"]: r["text"] for r in records if r["title"] in wanted}


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
        recall = example.row.get("char_recall")
        name, cause = describe_fault(example.fault, recall=math.nan if recall is None else float(recall))
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
    old, parts = _scored_answers(before, baseline, scores, metric), []
    for method, predictions in after.items():
        new = _scored_answers(predictions, method, scores, metric)
        both = old.merge(new, on=PAIRED_BY, how="outer", suffixes=("_before", "_after"), indicator="side")
        parts.append(_changes(both, metric).assign(method=method))
    table = pd.concat(parts) if parts else pd.DataFrame(columns=CHANGE_COLUMNS)
    return table.assign(baseline=baseline, metric=metric).reset_index(drop=True)[CHANGE_COLUMNS]


def change_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per method: what was compared, how many changes of each kind, failures, mean scores and mean gain.

    Means are over the questions that both have and that are scored.
    """
    lines = []
    for method, rows in table.groupby("method", sort=False):
        paired = rows[rows["kind"] != "unpaired"]
        lines.append(
            {"method": method, "questions": len(paired), "contracts": paired["contract"].nunique()}
            | rows["kind"].value_counts().reindex(CHANGE_KINDS, fill_value=0).to_dict()
            | paired[["failed_before", "failed_after"]].sum().astype(int).to_dict()
            | paired.dropna(subset="gain")[["before", "after", "gain"]].mean().to_dict()
        )
    return pd.DataFrame(lines)


def pick_changes(table: pd.DataFrame, n: int = 2) -> pd.DataFrame:
    """Return each method's largest changes: up to `n` for the better, and as many for the worse.

    If a method has changes of one kind only, up to n of that kind are returned. Among equal gains contracts and
    categories that are not chosen yet come first, then a checksum of the id decides; the order of the rows makes no
    difference.
    """
    if n < 1:
        raise InputError(f"Invalid number {n} of examples: give a whole number from 1.")
    parts = [table.iloc[:0]]

    def rank(row: Mapping[str, Any], seen: Counter[tuple[str, str]]) -> tuple:
        where = seen["contract", row["contract"]], seen["category", row["category"]]
        return -round(abs(row["gain"]), 9), *where

    for _, rows in table.groupby("method", sort=False):
        sides = [rows[rows["kind"] == kind] for kind in ("better", "worse")]
        size = min(n, min(map(len, sides)) or max(map(len, sides)))
        parts += [pd.DataFrame(_spread(side.to_dict("records"), size, rank), columns=table.columns) for side in sides]
    return pd.concat(parts)


def show_changes(table: pd.DataFrame, *, n: int = 2) -> ExcerptPage:
    """Return the largest changes of each method: question, gold spans, the answer before and after.

    A card before them says how many answers changed; words of an answer that stand in a gold span are marked.
    """
    chosen, cards = pick_changes(table, n), []
    for line in change_counts(table).to_dict("records"):
        rows = chosen[chosen["method"] == line["method"]].to_dict("records")
        baseline, metric = table.loc[table["method"] == line["method"], ["baseline", "metric"]].iloc[0]
        cards.append((f"{line['method']} against {baseline}", _count_lines(line, rows, METRICS[metric][0])))
        cards += [(f"{row['method']}: {row['kind']}", _change_lines(row)) for row in rows]
    return ExcerptPage(cards, [Piece("words of a gold span", gold=True)], "Nothing to compare.")


def _row_key(row: Mapping[str, Any]) -> tuple[str, str, int, str]:
    return row["system"], row["split"], int(row.get("seed") or 0), row["id"]


def _spread(
    rows: list[dict[str, Any]], n: int, rank: Callable[[Mapping[str, Any], Counter], tuple], *, once: bool = False
) -> list[dict[str, Any]]:
    """Choose n rows, one after the other: always the one of lowest rank, given what was chosen so far.

    rank: of a row, and how often each fault, contract and category was chosen. once: an id is chosen once.
    """
    left, chosen, seen = rows, [], Counter()

    def place(row: Mapping[str, Any]) -> tuple:
        # The checksum draws evenly among equal rows; by id the first contract of the alphabet would always win.
        return *rank(row, seen), crc32(row["id"].encode()), row["id"], row["split"], int(row.get("seed") or 0)

    while left and len(chosen) < n:
        best = min(left, key=place)
        chosen.append(best)
        seen.update((name, best.get(name)) for name in ("fault", "contract", "category"))
        left = [row for row in left if row is not best and not (once and row["id"] == best["id"])]
    return chosen


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
    return told[:2] + gold_lines([a["text"] for a in p["answers"]], LONGEST_ANSWER) + told[2:]


def _passage_lines(p: Mapping[str, Any], text: str | None, around: int, limit: int) -> list[LabelledLine]:
    """Return one line per passage shown, best first, and one per gold span that no passage touches."""
    sent = p.get("passages")
    if sent is None or text is None:
        return [("Passages", [Piece("not recorded" if sent is None else "the contract's text is not at hand")])]
    gold = [(a["start"], a["start"] + len(a["text"])) for a in p["answers"]]
    cited = [tuple(span) for span in p.get("spans") or ()]
    lines = []
    for rank, passage in enumerate(sent, 1):
        pieces = excerpt(text, passage["start"], passage["end"], gold=gold, cited=cited, around=around)
        label = f"Passage {rank} of {len(sent)}, characters {passage['start']:,}–{passage['end']:,}"
        lines.append((label + ("" if passage.get("read", True) else ", not read"), pieces))
    marked_first = sorted(lines, key=lambda line: not any(piece.gold or piece.cited for piece in line[1]))
    shown = [line for line in lines if line in marked_first[:limit]]
    if len(shown) < len(lines):
        shown.append(("Passages", [Piece(f"{len(lines) - len(shown)} more, not shown")]))
    unsent = [(a, b) for a, b in gold if not any(s["start"] < b and a < s["end"] for s in sent)]
    return shown + [
        (f"Not sent, characters {a:,}–{b:,}", excerpt(text, 0, len(text), gold=[(a, b)], around=around))
        for a, b in unsent[:UNSENT_SHOWN]
    ]


def _scored_answers(predictions: Predictions, name: str, scores: pd.DataFrame | None, metric: str) -> pd.DataFrame:
    """Return one row per prediction: what it is paired by, its question, its answer (None if it failed) and score."""
    missing = [field for p in predictions for field in metrics.REQUIRED_KEYS if field not in p]
    if missing:
        raise InputError(f"A prediction of {name} has no {missing[0]!r}: pass rows as `answer_rows` returns them.")
    keys = [(str(p["split"]), int(p.get("seed") or 0), p["id"]) for p in predictions]
    if twice := [key for key, number in Counter(keys).items() if number > 1]:
        raise InputError(f"{name} answers row {twice[0]} twice: pass one prediction of each split, seed and id.")
    frame = metrics.score_predictions(predictions) if scores is None else scores
    missing = [column for column in ("system", *PAIRED_BY, metric) if column not in frame]
    if missing:
        raise InputError(
            f"The scores have no column {missing[0]!r}: pass the frame of `score_predictions` and the judges."
        )
    known = {(s, str(d), int(seed), i): v for s, d, seed, i, v in frame[["system", *PAIRED_BY, metric]].to_numpy()}
    absent = [p for p, key in zip(predictions, keys, strict=True) if (p["system"], *key) not in known]
    if absent:
        raise InputError(
            f"The scores have no row of {absent[0]['system']!r} for {absent[0]['id']!r}: score all predictions."
        )
    rows = [
        dict(zip(PAIRED_BY, key, strict=True))
        | {column: p.get(column, "") for column in OF_THE_QUESTION}
        | {"answer": None if has_failed(p) else p["answer"], "score": float(known[p["system"], *key])}
        for p, key in zip(predictions, keys, strict=True)
    ]
    return pd.DataFrame(rows, columns=[*PAIRED_BY, *OF_THE_QUESTION, "answer", "score"], dtype=object)


def _changes(both: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return what changed in pairs of `_scored_answers`, with the columns of `changed_answers`."""
    old, new = both["side"] != "right_only", both["side"] != "left_only"
    for name in SAME_IN_BOTH:
        if (other := old & new & (both[f"{name}_before"] != both[f"{name}_after"])).any():
            found = both["id"][other].iloc[0]
            raise InputError(f"Row {found!r} has another {name} before than after: predict both on the same rows.")
    asked = {name: both[f"{name}_before"].where(old, both[f"{name}_after"]) for name in OF_THE_QUESTION}
    before, after = both["score_before"].astype(float), both["score_after"].astype(float)
    gain = (after - before) * (1 if METRICS[metric][1] else -1)
    words = [
        both[f"answer_{side}"].map(lambda text: text.split() if isinstance(text, str) else [])
        for side in ("before", "after")
    ]
    failed = {"failed_before": old & both["answer_before"].isna(), "failed_after": new & both["answer_after"].isna()}
    same = (words[0] == words[1]) & (failed["failed_before"] == failed["failed_after"])
    kind = np.select(
        [~(old & new), same, gain.isna(), gain > 0, gain < 0],
        ["unpaired", "unchanged", "unscored", "better", "worse"],
        "same_score",
    )
    golds = [tuple(gold_texts({"answers": answers})) for answers in asked.pop("answers")]
    return both.assign(**asked, **failed, golds=golds, before=before, after=after, gain=gain, kind=kind)


def _count_lines(line: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], label: str) -> list[LabelledLine]:
    """Return what a method changed, and which of its changes are shown."""
    counts = ", ".join(f"{line[name]} {words}" for name, words in COUNTED.items() if line[name])
    shown = [f"{sum(row['kind'] == kind for row in rows)} of {line[kind]} {kind}" for kind in ("better", "worse")]
    lines = {
        "Compared": f"{line['questions']} answers on {line['contracts']} contracts: {counts}",
        f"Mean {label}": f"{line['before']:.3f} before, {line['after']:.3f} after",
        "Shown": f"the largest changes, {', '.join(shown)}" if rows else "No answer changed its score.",
    }
    return [(name, [Piece(text)]) for name, text in lines.items()]


def _change_lines(row: Mapping[str, Any]) -> list[LabelledLine]:
    """Return question, gold spans and both answers of one change."""
    answers, label = [row["answer_before"], row["answer_after"]], METRICS[row["metric"]][0]
    # The nearest spans first: an answer has the score of its best span.
    spans = sorted(row["golds"], key=lambda gold: -max(token_f1(answer, [gold]) for answer in answers))
    asked = shorten(row["question"] or row["category"], LONGEST_CHANGED)
    lines = [("Question", [Piece(f"{asked} ({row['contract']})")]), *gold_lines(spans, LONGEST_CHANGED)]
    for name, answer, score in zip(
        (f"Before ({row['baseline']})", f"After ({row['method']})"), answers, (row["before"], row["after"]), strict=True
    ):
        text = "(failed)" if answer is None else shorten(answer.strip() or "(blank)", LONGEST_CHANGED)
        lines.append((f"{name}, {label} {score:.2f}", mark_shared(text, row["golds"] if answer else ())))
    return lines
