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

from collections.abc import Mapping, Sequence
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
AROUND = 160  # characters of evidence kept on each side of a marked span
PASSAGES_SHOWN = 3  # of an answer, first those with a marked span
UNSENT_SHOWN = 3  # gold spans that no passage touches
ROW_KEY = ["split", "seed", "id"]
PAIRED_BY = [*ROW_KEY, "contract", "category", "question", "golds"]
CHANGE_KINDS = ("unchanged", "better", "worse", "same_score", "unscored", "unpaired")
CHANGE_COLUMNS = ["method", "baseline", "metric", *PAIRED_BY, "answer_before", "answer_after"]
CHANGE_COLUMNS += ["failed_before", "failed_after", "before", "after", "gain", "kind"]


def pick_worst(
    frame: pd.DataFrame, predictions: Predictions, *, system: str, split: str = "test", metric: str = "f1", n: int = 4
) -> list[dict[str, Any]]:
    """Return up to `n` wrong answers of one system: kinds in turn, the commonest first, new categories before others.

    frame: from `score_predictions`, with the judge's columns if there are any; predictions: what the frame was made of;
    metric: as in `scoreboard.classify_faults`. An answer is its prediction with its scored row, `fault` (a key of
    `scoreboard.FAULTS`) and the name of the metric. Within a kind and category the lowest value comes first. The order
    of the rows makes no difference. Raises InputError on an unknown system or split.
    """
    rows = frame[(frame["system"] == system) & (frame["split"] == split)]
    if not len(rows):
        known = ", ".join(" on ".join(pair) for pair in sorted(set(zip(frame["system"], frame["split"])))) or "none"
        raise InputError(f"No rows of system {system!r} on split {split!r}: choose from {known}.")
    rows = rows.assign(fault=classify_faults(rows, metric), metric=metric, draw=rows["id"].map(_draw))
    rows = rows[rows["fault"].isin(list(FAULTS))].sort_values([metric, "draw", "id", "seed"]).drop_duplicates("id")
    for name in ("contract", "category"):  # of each kind, contracts and categories that are new come first
        rows = rows.iloc[np.argsort(rows.groupby(["fault", name]).cumcount(), kind="stable")]
    commonest = rows["fault"].map(rows["fault"].value_counts())
    rows = rows.assign(turn=rows.groupby("fault").cumcount(), last=-commonest).sort_values(["turn", "last", "fault"])
    by_key = {_row_key(p): p for p in predictions if p["system"] == system}
    return [row | by_key[_row_key(row)] for row in rows.head(n).to_dict("records")]


def worst_texts(run: Path, examples: Predictions) -> dict[str, str]:
    """Return the texts of the examples' contracts, title -> text, from the run folder."""
    wanted = {example["contract"] for example in examples}
    records = contract_records(Path(run)) if wanted else []
    return {r["title"]: r["text"] for r in records if r["title"] in wanted}


def show_worst(examples: Predictions, texts: Mapping[str, str]) -> ExcerptPage:
    """Return the examples with question, gold spans, answer, judge's verdict and the evidence, spans marked in it.

    texts: contract texts by title, from `worst_texts`; an example whose text is missing is shown without evidence.
    """
    cards = []
    for number, example in enumerate(examples, 1):
        name, cause = describe_fault(example["fault"], recall=example["char_recall"])
        evidence = _passage_lines(example, texts.get(example["contract"]))
        heading = f"{number} of {len(examples)}. {name} ({example['category']})"
        cards.append((heading, [("Fault", [Piece(cause)]), *_answer_lines(example), *evidence]))
    return ExcerptPage(cards)


def changed_answers(
    before: Predictions, after: Mapping[str, Predictions], *, scores: pd.DataFrame | None = None, metric: str = "f1"
) -> pd.DataFrame:
    """Return one row per method and question: both answers, both scores, and what the change was worth.

    before: predictions of the SFT model; after: predictions of each method. A row is paired with the one of the same
    split, seed, id, question and gold spans. scores: a frame of `score_predictions` with the judges' columns; without
    it the predictions are scored here. gain: after − before, with its sign turned where lower is better. kind:
    "unchanged" (the same words), "better", "worse", "same_score" (other words), "unscored" (no score, for example after
    a failed judgement) or "unpaired" (only one of the two has this question). Raises InputError on an unknown
    metric.
    """
    if metric not in METRICS:
        raise InputError(f"Unknown metric {metric!r}: choose from {', '.join(METRICS)}.")
    old, parts = _scored_answers(before, scores, metric), []
    for method, predictions in after.items():
        new = _scored_answers(predictions, scores, metric)
        both = old.merge(new, on=PAIRED_BY, how="outer", suffixes=("_before", "_after"), indicator="side")
        parts.append(_changes(both, metric).assign(method=method))
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    baseline = before[0]["system"] if before else "before"
    return table.assign(baseline=baseline, metric=metric).reindex(columns=CHANGE_COLUMNS)


def change_counts(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per method: what was compared, how many changes of each kind, failures, mean scores and mean gain.

    Means are over the questions that both have and that are scored.
    """
    methods = table.groupby("method", sort=False)
    kinds = pd.crosstab(table["method"], table["kind"]).reindex(columns=CHANGE_KINDS, fill_value=0)
    paired = table[table["kind"] != "unpaired"].groupby("method")
    means = table.dropna(subset="gain").groupby("method")[["before", "after", "gain"]].mean()
    parts = [paired["contract"].agg(questions="size", contracts="nunique"), kinds]
    parts += [methods[["failed_before", "failed_after"]].sum(), means]
    return pd.concat(parts, axis=1).reindex(methods.size().index).rename_axis("method").reset_index()


def pick_changes(table: pd.DataFrame, n: int = 2) -> pd.DataFrame:
    """Return each method's largest changes: up to `n` for the better, and as many for the worse.

    If a method has changes of one kind only, up to n of that kind are returned. Among equal gains contracts that are
    not chosen yet come first, then a checksum of the id decides; the order of the rows makes no difference.
    """
    changed = table[table["kind"].isin(["better", "worse"])]
    changed = changed.assign(size=-changed["gain"].abs().round(9), draw=changed["id"].map(_draw))
    changed = changed.sort_values(["method", "kind", "size", "draw", *ROW_KEY])
    changed["again"] = changed.groupby(["method", "kind", "size", "contract"]).cumcount()
    changed = changed.sort_values(["method", "kind", "size", "again"], kind="stable")
    fewest = changed.groupby("method")["kind"].transform(lambda kinds: kinds.value_counts().min())
    return changed[changed.groupby(["method", "kind"]).cumcount() < fewest.clip(upper=n)]


def show_changes(table: pd.DataFrame, *, n: int = 2) -> ExcerptPage:
    """Return the largest changes of each method: question, gold spans, the answer before and after.

    A card before them says how many answers changed; words of an answer that stand in a gold span are marked.
    """
    chosen, cards = pick_changes(table, n), []
    for line in change_counts(table).to_dict("records"):
        first = table[table["method"] == line["method"]].iloc[0]
        counts = [f"{line[name]:.0f} {name.replace('_', ' ')}" for name in list(line)[1:-3] if line[name] > 0]
        mean = f"{line['before']:.3f} before, {line['after']:.3f} after"
        told = [("Compared", [Piece(", ".join(counts))]), (f"Mean {METRICS[first['metric']][0]}", [Piece(mean)])]
        rows = chosen[chosen["method"] == line["method"]].to_dict("records")
        cards.append((f"{line['method']} against {first['baseline']}", told))
        cards += [(f"{row['method']}: {row['kind']}", _change_lines(row)) for row in rows]
    return ExcerptPage(cards, [Piece("words of a gold span", gold=True)], "Nothing to compare.")


def _row_key(row: Mapping[str, Any]) -> tuple[str, int, str]:
    return row["split"], int(row.get("seed") or 0), row["id"]


def _draw(name: str) -> int:
    """Return a checksum by which equal rows are drawn evenly; by id the first contract would always win."""
    return crc32(name.encode())


def _answer_lines(example: Mapping[str, Any]) -> list[LabelledLine]:
    """Return the lines on question, gold spans, answer and verdict."""
    label, value = METRICS[example["metric"]][0], example[example["metric"]]
    lines = {
        "Answer": (example["answer"].strip() or "(blank)") if isinstance(example["answer"], str) else "(none)",
        "Error": example["error"],
        "Score": f"{label} {value:.2f} ({example['system']} on {example['split']})",
        "Verdict": example.get("judge_verdict"),
        "Reason": example.get("judge_reason"),
        "Judgement failed": example.get("judge_error"),
    }
    asked = f"{example['contract']} ({example['contract_type'] or 'type unknown'})"
    told = [(name, [Piece(shorten(text, LONGEST_ANSWER))]) for name, text in lines.items() if isinstance(text, str)]
    golds = gold_lines(gold_texts(example), LONGEST_ANSWER)
    return [("Contract", [Piece(asked)]), ("Question", [Piece(example["question"])]), *golds, *told]


def _passage_lines(p: Mapping[str, Any], text: str | None) -> list[LabelledLine]:
    """Return one line per passage shown, best first, and one per gold span that no passage touches."""
    sent = p.get("passages")
    if sent is None or text is None:
        return [("Passages", [Piece("not recorded" if sent is None else "the contract's text is not at hand")])]
    gold = [(a["start"], a["start"] + len(a["text"])) for a in p["answers"]]
    cited = [tuple(span) for span in p.get("spans") or ()]
    lines = []
    for rank, passage in enumerate(sent, 1):
        pieces = excerpt(text, passage["start"], passage["end"], gold=gold, cited=cited, around=AROUND)
        label = f"Passage {rank} of {len(sent)}, characters {passage['start']:,}–{passage['end']:,}"
        lines.append((label + ("" if passage.get("read", True) else ", not read"), pieces))
    marked_first = sorted(lines, key=lambda line: not any(piece.gold or piece.cited for piece in line[1]))
    shown = [line for line in lines if line in marked_first[:PASSAGES_SHOWN]]
    if len(shown) < len(lines):
        shown.append(("Passages", [Piece(f"{len(lines) - len(shown)} more, not shown")]))
    unsent = [(a, b) for a, b in gold if not any(s["start"] < b and a < s["end"] for s in sent)]
    return shown + [
        (f"Not sent, characters {a:,}–{b:,}", excerpt(text, 0, len(text), gold=[(a, b)], around=AROUND))
        for a, b in unsent[:UNSENT_SHOWN]
    ]


def _scored_answers(predictions: Predictions, scores: pd.DataFrame | None, metric: str) -> pd.DataFrame:
    """Return one row per prediction: what it is paired by, its answer (None if it failed) and its score."""
    scores = metrics.score_predictions(predictions) if scores is None else scores
    known = scores.set_index(["system", *ROW_KEY])[metric].to_dict()
    rows = [
        dict(zip(ROW_KEY, _row_key(p), strict=True))
        | {name: p.get(name, "") for name in ("contract", "category", "question")}
        | {"golds": tuple(gold_texts(p)), "answer": None if has_failed(p) else p["answer"]}
        | {"score": known.get((p["system"], *_row_key(p)))}
        for p in predictions
    ]
    return pd.DataFrame(rows, columns=[*PAIRED_BY, "answer", "score"], dtype=object)


def _changes(both: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return what changed in pairs of `_scored_answers`, with the columns of `changed_answers`."""
    old, new = both["side"] != "right_only", both["side"] != "left_only"
    before, after = both["score_before"].astype(float), both["score_after"].astype(float)
    gain = (after - before) * (1 if METRICS[metric][1] else -1)
    words = [both[f"answer_{side}"].fillna("\0").str.split().map(tuple) for side in ("before", "after")]
    kind = np.select(
        [~(old & new), words[0] == words[1], gain.isna(), gain > 0, gain < 0],
        ["unpaired", "unchanged", "unscored", "better", "worse"],
        "same_score",
    )
    failed = {"failed_before": old & both["answer_before"].isna(), "failed_after": new & both["answer_after"].isna()}
    return both.assign(**failed, before=before, after=after, gain=gain, kind=kind)


def _change_lines(row: Mapping[str, Any]) -> list[LabelledLine]:
    """Return question, gold spans and both answers of one change."""
    answers = {f"Before ({row['baseline']})": row["answer_before"], f"After ({row['method']})": row["answer_after"]}
    # The nearest spans first: an answer has the score of its best span.
    spans = sorted(row["golds"], key=lambda gold: -max(token_f1(answer, [gold]) for answer in answers.values()))
    asked = f"{shorten(row['question'] or row['category'], LONGEST_CHANGED)} ({row['contract']})"
    lines = [("Question", [Piece(asked)]), *gold_lines(spans, LONGEST_CHANGED)]
    for (name, answer), score in zip(answers.items(), (row["before"], row["after"]), strict=True):
        text = "(failed)" if answer is None else shorten(answer.strip() or "(blank)", LONGEST_CHANGED)
        label = f"{name}, {METRICS[row['metric']][0]} {score:.2f}"
        lines.append((label, mark_shared(text, row["golds"] if answer else ())))
    return lines
