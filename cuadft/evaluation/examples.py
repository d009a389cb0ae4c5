"""Show answers to read, as tables: a system's worst ones, what alignment changed, and some with their probabilities.

    show_answers(pick_worst(frame, predictions, texts, system="sft"))      # last line of a notebook cell
    pick_best(frame, predictions, system="sft")
    changed = changed_answers(frame, predictions, metric="f1")             # of "sft" and of what was made of it
    change_counts(changed)
    show_answers(pick_changes(changed))
    show_answers(answers_with_probabilities(predictions, n=10, seed=7))

The worst answers are spread over kinds of fault and categories, so that one frequent fault does not hide the others.
The answers with probabilities are drawn in turn from the outcomes, so that a reader sees right answers and each kind of
wrong one. Neither is a sample from which to estimate shares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zlib import crc32

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from cuadft.core.text import shorten
from cuadft.evaluation.confidence import all_quotes, is_answered, is_right, stated_p
from cuadft.evaluation.excerpts import LEGEND, Piece, excerpt, marked_html
from cuadft.evaluation.metrics import METRICS
from cuadft.evaluation.official import Predictions, checked_rows, shown_quotes
from cuadft.evaluation.scoreboard import FAULTS, classify_faults, describe_fault
from cuadft.evaluation.verdicts import gold_texts, has_failed

LONGEST_TEXT = 300  # characters shown of an answer or a gold span
PASSAGES_SHOWN = 3  # of a worst answer, first those with a marked span
UNSENT_SHOWN = 2  # gold spans that no passage touches
WORST_COLUMNS = "fault category contract question gold answer score verdict reason error passages evidence".split()
BEST_COLUMNS = "category contract question gold answer score".split()
CHANGE_COLUMNS = "system category contract question gold before after score_before score_after gain kind".split()
PROBABLE_COLUMNS = "system outcome category contract gold answer candidate p_exists p_quote draw id".split()
CHANGE_KINDS = ("unchanged", "better", "worse", "same_score", "unscored")
OUTCOMES = (
    "right",  # there is a clause, and the quote is right
    "wrong",  # there is a clause, but the quote is another text or too long or too short
    "overlooked",  # there is a clause, but the answer is that there is none
    "invented",  # there is no clause, but one is quoted
    "refused rightly",  # there is no clause, and the answer says so
)
WRAPPED = {"text-align": "left", "vertical-align": "top", "white-space": "pre-wrap", "overflow-wrap": "anywhere"}
NO_MATHEMATICS = 'class="tex2jax_ignore mathjax_ignore"'  # a notebook takes two dollar signs in a text for mathematics


def show_answers(table: pd.DataFrame) -> Styler:
    """Return a table of answers to read in a notebook: each text wrapped, and none taken for markup.

    In the column evidence, of `pick_worst`, gold spans and the words of the answer are marked.
    """
    marked = {"evidence": marked_html} if "evidence" in table else {}
    shown = table.style.hide().format(marked, precision=2, na_rep="–", escape="html").set_properties(**WRAPPED)
    shown = shown.set_caption(f"Marked in the evidence: {marked_html([LEGEND])}") if marked else shown
    return shown.set_table_attributes(NO_MATHEMATICS)


def pick_worst(
    frame: pd.DataFrame, predictions: Predictions, texts: Mapping[str, str], *, system: str, n: int = 4
) -> pd.DataFrame:
    """Return up to `n` wrong answers of one system on test questions, spread over kinds of fault and categories.

    frame: from `score_predictions`, with the judge's columns if there are any; predictions: what the frame was made of;
    texts: title -> text of the contracts. Kinds take turns, the commonest first, new categories come before others, and
    within a kind and category the lowest F1 comes first; the order of the rows makes no difference. Columns:
    `WORST_COLUMNS`; passages is what happened to the evidence, and evidence the passages sent, cut around gold spans
    and the words of the answer, and gold spans that were not sent: for each a list of `excerpts.Piece`.
    """
    rows = frame[(frame["system"] == system) & (frame["split"] == "test")]
    rows = rows.assign(fault=classify_faults(rows, "f1"), score=rows["f1"], draw=rows["id"].map(_draw))
    rows = rows[rows["fault"].isin(list(FAULTS))].sort_values(["score", "draw", "id", "seed"]).drop_duplicates("id")
    for name in ("contract", "category"):  # of each kind, contracts and categories that are new come first
        rows = rows.iloc[np.argsort(rows.groupby(["fault", name]).cumcount(), kind="stable")]
    commonest = rows["fault"].map(rows["fault"].value_counts())
    rows = rows.assign(turn=rows.groupby("fault").cumcount(), last=-commonest).sort_values(["turn", "last", "fault"])
    by_key, chosen = _by_key(predictions, system), rows.head(n).to_dict("records")
    records = [row | _evidence(row, by_key[row["id"], row["seed"]], texts) for row in chosen]
    judged = {"judge_verdict": "verdict", "judge_reason": "reason"}
    return pd.DataFrame(records).rename(columns=judged).reindex(columns=WORST_COLUMNS)


def pick_best(frame: pd.DataFrame, predictions: Predictions, *, system: str, n: int = 4) -> pd.DataFrame:
    """Return up to `n` right answers of one system on test questions, spread over categories and contracts.

    frame, predictions: as for `pick_worst`. Quotes come before refusals, new categories and contracts before others,
    and then the highest F1. Columns: `BEST_COLUMNS`.
    """
    rows = frame[(frame["system"] == system) & (frame["split"] == "test")]
    rows = rows.assign(score=rows["f1"], lack=-rows["f1"], draw=rows["id"].map(_draw))
    rows = rows[classify_faults(rows, "f1") == "fine"].sort_values(["lack", "draw", "id", "seed"]).drop_duplicates("id")
    for name in ("contract", "category"):
        rows = rows.iloc[np.argsort(rows.groupby(name).cumcount(), kind="stable")]
    rows = rows.sort_values("is_impossible", kind="stable").head(n)
    by_key = _by_key(predictions, system)
    found = [by_key[key] for key in zip(rows["id"], rows["seed"], strict=True)]
    texts = {"gold": list(map(_gold, found)), "answer": [shorten(p["answer"], LONGEST_TEXT) for p in found]}
    return rows.assign(**texts)[BEST_COLUMNS].reset_index(drop=True)


def _by_key(predictions: Predictions, system: str) -> dict[tuple[str, int], Mapping[str, Any]]:
    """Return the predictions of a system on test by id and seed."""
    return {(p["id"], p.get("seed") or 0): p for p in predictions if (p["system"], p["split"]) == (system, "test")}


def _evidence(row: Mapping[str, Any], p: Mapping[str, Any], texts: Mapping[str, str]) -> dict[str, Any]:
    """Return what a worst answer's prediction adds to its scored row."""
    fault, passages = describe_fault(row["fault"], recall=row["char_recall"])
    return {
        "fault": fault,
        "gold": _gold(p),
        "answer": "(none)" if has_failed(p) else shorten(p["answer"], LONGEST_TEXT),
        "error": p["error"],
        "passages": passages,
        "evidence": _excerpts(p, texts[p["contract"]]) if p["contract"] in texts else [],
    }


def _excerpts(p: Mapping[str, Any], text: str) -> list[list[Piece]]:
    """Return a line per passage shown, best first, and one per gold span that no passage touches."""
    sent = [(passage["start"], passage["end"]) for passage in p.get("passages") or ()]
    gold = [(a["start"], a["start"] + len(a["text"])) for a in p["answers"]]
    cited = [(span[0], span[1]) for span in p.get("spans") or ()]
    lines = {n: excerpt(text, *span, gold=gold, cited=cited) for n, span in enumerate(sent, 1)}
    marked_first = sorted(lines, key=lambda n: not any(piece.gold or piece.cited for piece in lines[n]))
    unsent = [(a, b) for a, b in gold if not any(start < b and a < end for start, end in sent)][:UNSENT_SHOWN]
    return [[Piece(f"Passage {n} of {len(sent)}: "), *lines[n]] for n in sorted(marked_first[:PASSAGES_SHOWN])] + [
        [Piece("Not sent: "), *excerpt(text, 0, len(text), gold=[span])] for span in unsent
    ]


def changed_answers(
    frame: pd.DataFrame, predictions: Predictions, *, baseline: str = "sft", metric: str = "f1"
) -> pd.DataFrame:
    """Return one row per question and system other than `baseline`: both answers, and what the change was worth.

    frame: scored rows of these systems, with the judges' columns if `metric` is one; predictions: what it was made of.
    A row is paired with the one of the same split, seed and id. Columns: system, category, contract, question, gold,
    before and after (the answers, None where the generation failed), score_before, score_after, gain (after less
    before, its sign turned where lower is better) and kind: "unchanged" (the same words), "better", "worse",
    "same_score" (other words) or "unscored" (no score, for example after a failed judgement).
    """
    golds, key = {p["id"]: _gold(p) for p in predictions}, ["split", "seed", "id"]
    rows = frame.assign(score=frame[metric], gold=frame["id"].map(golds)).rename(columns={"answer": "after"})
    old = rows.loc[rows["system"] == baseline, [*key, "after", "score"]].rename(columns={"after": "before"})
    both = rows[rows["system"] != baseline].merge(old, on=key, suffixes=("_after", "_before"))
    gain = (both["score_after"] - both["score_before"]) * (1 if METRICS[metric][1] else -1)
    before, after = (both[name].fillna("\0").str.split().map(tuple) for name in ("before", "after"))
    cases = {"unchanged": before == after, "unscored": gain.isna(), "better": gain > 0, "worse": gain < 0}
    kind = np.select(list(cases.values()), list(cases), "same_score")
    return both.assign(gain=gain, kind=kind)[CHANGE_COLUMNS]


def change_counts(changed: pd.DataFrame) -> pd.DataFrame:
    """Return one row per system: questions, changes of each kind, failures, and means over the scored questions."""
    kinds = pd.crosstab(changed["system"], changed["kind"]).reindex(columns=CHANGE_KINDS, fill_value=0)
    failed = changed[["before", "after"]].isna().add_prefix("failed_").groupby(changed["system"]).sum()
    means = changed.dropna(subset="gain").groupby("system")[["score_before", "score_after", "gain"]].mean()
    sizes = changed.groupby("system")["contract"].agg(questions="size", contracts="nunique")
    return pd.concat([sizes, kinds, failed, means], axis=1)


def pick_changes(changed: pd.DataFrame, n: int = 2) -> pd.DataFrame:
    """Return each system's largest changes: up to `n` for the better, and as many for the worse.

    If a system has changes of one kind only, up to n of that kind are returned. Among equal gains a checksum decides;
    the order of the rows makes no difference. Texts are cut to `LONGEST_TEXT` characters.
    """
    found = changed[changed["kind"].isin(["better", "worse"])]
    found = found.assign(size=-found["gain"].abs().round(9), draw=(found["contract"] + found["question"]).map(_draw))
    found = found.sort_values(["system", "kind", "size", "draw"])
    fewest = found.groupby("system")["kind"].transform(lambda kinds: kinds.value_counts().min())
    found = found[found.groupby(["system", "kind"]).cumcount() < fewest.clip(upper=n)][CHANGE_COLUMNS]
    texts = found[["before", "after"]].fillna("(failed)").map(lambda text: shorten(text, LONGEST_TEXT))
    return found.assign(before=texts["before"], after=texts["after"])


def answers_with_probabilities(predictions: Predictions, *, n: int = 10, seed: int = 7) -> pd.DataFrame:
    """Return n answers with their probabilities, drawn in turn from each of `OUTCOMES`, so that wrong ones show too.

    Columns: system, outcome, category, contract, gold and answer (cut to `LONGEST_TEXT` characters; gold is "" if there
    is no clause), candidate (the best quote where it was found but not shown, else ""), p_exists and p_quote (that of
    the best quote, shown or not; NaN if there is none). Rows that failed or have neither probability are left out. The
    draw depends on the seed, not on the order of the rows. Raises InputError on a malformed row.
    """
    rows = [_with_probabilities(p, seed) for p in checked_rows(predictions) if not has_failed(p)]
    table = pd.DataFrame(rows, columns=PROBABLE_COLUMNS).astype({"p_exists": float, "p_quote": float})
    table = table.dropna(subset=["p_exists", "p_quote"], how="all").sort_values(["draw", "id"])
    table = table.assign(turn=table.groupby("outcome").cumcount(), place=table["outcome"].map(OUTCOMES.index))
    drawn = table.sort_values(["turn", "place"]).head(n).sort_values(["place", "turn"])
    return drawn[PROBABLE_COLUMNS[:-2]].reset_index(drop=True)


def _with_probabilities(p: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return what is shown of a prediction that did not fail, and its place in the draw."""
    answered, shown = is_answered(p), shown_quotes(p)
    best = next(iter(shown if answered else all_quotes(p)), None)
    if p["answers"]:
        right = answered and is_right(shown[0]["text"] if shown else p["answer"], p)
        outcome = "right" if right else "wrong" if answered else "overlooked"
    else:
        outcome = "invented" if answered else "refused rightly"
    return {name: p.get(name, "") for name in ("system", "category", "contract", "id")} | {
        "outcome": outcome,
        "gold": _gold(p),
        "answer": shorten(p["answer"], LONGEST_TEXT),
        "candidate": "" if answered or best is None else shorten(best["text"], LONGEST_TEXT),
        "p_exists": p.get("p_exists"),
        "p_quote": None if best is None else stated_p(best, p),
        "draw": _draw(f"{seed} {p.get('system', '')} {p['id']}"),
    }


def _gold(p: Mapping[str, Any]) -> str:
    return shorten("\n".join(gold_texts(p)), LONGEST_TEXT)


def _draw(name: str) -> int:
    """Return a checksum by which equal rows are drawn evenly; by id the first contract would always win."""
    return crc32(name.encode())
