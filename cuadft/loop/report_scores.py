"""The parts of a run's page that are about scores: results, decisions, the stream, training, examples.

    results_part(iterations)["rows"][0]  # {"system": "rag", "champion": False, "cells": ["0.400 [0.250, 0.500] n=12"]}

Each function takes the iterations of a run and returns what the page shows, None if nothing has been made yet. Figures
are those that the notebooks saved, tables are read from their files; what they only displayed is computed in their way.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cuadft.core import files, runs
from cuadft.core.recorded import recorded_parameters
from cuadft.core.runs import CONSTANTS, DECISION, Iteration, incoming_champion, outgoing_champion, same_champion
from cuadft.data.schema import newest_schema
from cuadft.evaluation import forgetting
from cuadft.evaluation.confidence import all_quotes, stated_p
from cuadft.evaluation.drift import drift_sentence
from cuadft.evaluation.examples import pick_best, pick_worst
from cuadft.evaluation.figures.scores import PANELS
from cuadft.evaluation.figures.style import metric_label
from cuadft.evaluation.figures.training import likelihood_changes
from cuadft.evaluation.metrics import JUDGED, score_predictions
from cuadft.evaluation.official import shown_quotes
from cuadft.evaluation.results import DPI, read_with_seeds
from cuadft.loop.gate import decision_table
from cuadft.loop.status import duration_text, score_text
from cuadft.loop.trackers import clean_text
from cuadft.review.page import language_of

SYSTEMS = {
    "always_refuses": "needs no model: says to every question that there is none",
    "top_passage": "needs no model: quotes the best passage whole",
    "rag": "the base model with the search",
    "rag_compiled": "the base model with the search and a compiled prompt",
    "incumbent": "the champion before this iteration",
    "retriever": "the champion before this iteration, with the new search",
    "sft": "fine-tuned on examples",
    "orpo_base": "the base model aligned by ORPO",
}
CSS_DPI = 96  # pixels of a browser to an inch
LARGE = 100  # a number that is shown without decimals, such as tokens
EXAMPLES = 3  # of either kind
NO_CEILING = "no ceiling"  # the detail of a criterion that nobody asked for
VERDICTS = {True: "passed", False: "failed", None: "not tested"}


def results_part(iterations: Sequence[Iteration]) -> dict[str, Any] | None:
    """Return the newest scoreboard on test: a row a system, its scores with interval and n as the file has them."""
    found = _newest(iterations, "scoreboard.csv") or _newest(iterations, "metrics/scoreboard_so_far.csv")
    if not found:
        return None
    iteration, so_far = found, not found.path("scoreboard.csv").is_file()
    path = iteration.path("metrics", "scoreboard_so_far.csv") if so_far else iteration.path("scoreboard.csv")
    board = _on_test(pd.read_csv(path))
    known = list(board["metric"].unique())
    metrics = [name for name in (*PANELS, *JUDGED) if name in known] or known
    scores = {(row["system"], row["metric"]): row for row in board.to_dict("records")}
    champion, rows = _champion_name(iteration), []
    for name in board["system"].unique():
        cells = [score_text(scores[name, metric]) if (name, metric) in scores else "" for metric in metrics]
        about = SYSTEMS.get(name, f"sft, aligned by {name.upper()}")
        rows.append({"system": name, "about": about, "champion": name == champion, "cells": cells})
    return {
        "iteration": iteration.number,
        "so_far": so_far,
        "heads": [metric_label(metric) for metric in metrics],
        "rows": rows,
        "headline": metric_label(metrics[0]).partition(" (")[0] if metrics else "",
        "best": next((row for row in rows if row["champion"]), None),
        "beside": [row for row in rows if row["system"] in CONSTANTS],
        "figure": figure(iteration, "benchmark"),
    }


def decisions_part(iterations: Sequence[Iteration]) -> dict[str, Any] | None:
    """Return the gate's decision of each iteration: its reason, its criteria and what became of every candidate."""
    decided = [iteration for iteration in iterations if iteration.path(DECISION).is_file()]
    return {"iterations": [_decision(iteration) for iteration in decided]} if decided else None


def _decision(iteration: Iteration) -> dict[str, Any]:
    decision = files.read_json(iteration.path(DECISION))
    table = decision_table({"candidates": [], **decision}).astype(object)
    table = table.where(table.notna(), None)
    lost = table[table["passed"].eq(False)].groupby("system")["criterion"].apply(list).to_dict()
    tested = table[table["system"] == decision.get("candidate")]
    return {
        "number": iteration.number,
        "reason": clean_text(decision.get("reason", "")),
        "by_hand": clean_text(runs.overruled_by_hand(iteration)),
        "candidate": decision.get("candidate"),
        "confidence": f"{decision.get('confidence', 0.95):.0%}",
        "candidates": [
            (one["system"], _number(one["score"]), ", ".join(lost.get(one["system"], [])).replace("_", " ") or "none")
            for one in decision.get("candidates", ())
        ],
        "criteria": [_criterion(row) for row in tested.to_dict("records")],
    }


def _criterion(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the cells of a criterion: name, verdict, measured, limit, p, n and what else there is to say."""
    measured = _with_interval(row) if row["n"] else ""
    limit = "" if row["limit"] is None else f"{row['limit']:g}"
    size = f"{row['n']} / {row['n_contracts']}" if row["n"] else ""
    p = "" if row["p"] is None else "< 0.001" if row["p"] < 0.001 else f"{row['p']:.3f}"
    name, detail = row["criterion"].replace("_", " "), clean_text(row["detail"] or "")
    verdict = detail if detail == NO_CEILING else VERDICTS[row["passed"]]
    return name, verdict, measured, limit, p, size, "" if verdict == detail else detail


def stream_part(iterations: Sequence[Iteration]) -> dict[str, Any] | None:
    """Return drift and forgetting over several iterations: sentences, saved figures and tables with intervals."""
    if len(iterations) < 2:
        return None
    documents, drift = newest_schema(iterations[0].run).naming["documents"], []
    for iteration in iterations[1:]:
        if (path := iteration.path("data", "drift.json")).is_file():
            drift.append((iteration.number, drift_sentence(files.read_json(path), documents)))
    shown = {"drift": drift, "figures": [], "transfer": [], "learned": [], "iteration": None}
    if not (newest := _newest(iterations, "metrics/stream.csv")) or newest is iterations[0]:
        return shown
    history = forgetting.read_stream_scores(newest.path("metrics", "stream.csv"))
    known = recorded_parameters(newest)
    settings = {name: known[name] for name in ("n_resamples", "seed") if name in known}
    names = ("iterations", "slices_champion", "slices_sft")
    shown |= {"iteration": newest.number, "figures": [figure(newest, name) for name in names]}
    if (history["split"] == "slices").any():
        transfer = forgetting.slice_transfer(history, forgetting.CHAMPION, **settings).to_dict("records")
        shown["transfer"] = [(row["measure"], _with_interval(row), _size(row), row["slices"]) for row in transfer]
        if "sft" in set(history["system"]):
            learned = forgetting.slice_before_after(history, "sft", **settings).to_dict("records")
            shown["learned"] = [
                (row["iteration"], _number(row["before"]), _number(row["after"]), _with_interval(row), _size(row))
                for row in learned
            ]
    return shown


def training_part(iterations: Sequence[Iteration]) -> dict[str, Any] | None:
    """Return what each adapter was trained on and how that went, and the curves of the newest iteration."""
    rows = [
        _training(iteration, path.parent.name, files.read_json(path))
        for iteration in iterations
        for path in sorted(
            iteration.path("adapters").glob("[!.]*/training.json"), key=lambda path: runs.simplicity(path.parent.name)
        )
    ]
    if not rows:
        return None
    figures = [
        {"iteration": newest.number, **figure(newest, name)}
        for name in ("sft_loss", "alignment")
        if (newest := _newest(iterations, f"figures/{name}.png"))
    ]
    return {"rows": rows, "figures": figures, "collapsed": [row[:2] for row in rows if row[-1] == "yes"]}


def _training(iteration: Iteration, name: str, record: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return an adapter's iteration, name, rows, steps, time, tokens, change of chosen answers, and its collapse."""
    log = record.get("log_history", [])
    seconds = [entry["train_runtime"] for entry in log if "train_runtime" in entry]
    steps = max((entry.get("step", 0) for entry in log), default=0)
    tokens = max((entry.get("num_tokens", 0) for entry in log), default=0)
    change = likelihood_changes(log, beta=recorded_parameters(iteration).get("beta"))
    told = f"{change['chosen_change']:+.2f} per {change['unit']}" if math.isfinite(change["chosen_change"]) else ""
    collapsed = {True: "yes", False: "no", None: ""}[change["collapsed"]] if told else ""
    took = duration_text(seconds[-1]) if seconds else ""
    rows = f"{len(record.get('rows', [])):,}"
    return iteration.number, name, rows, f"{steps:,}", took, f"{int(tokens):,}" if tokens else "", told, collapsed


def examples_part(iterations: Sequence[Iteration]) -> dict[str, Any] | None:
    """Return some of the champion's best and worst answers on test, with the probabilities that it states."""
    decided = [iteration for iteration in iterations if iteration.path(DECISION).is_file()]
    if not decided or not (name := _champion_name(decided[-1])):
        return None
    seed = recorded_parameters(decided[-1]).get("seed", 0)
    predictions, _ = read_with_seeds(decided[-1], seed=seed, systems=[name])
    test = [row for row in predictions if row["split"] == "test"]
    if not test:
        return None
    frame = score_predictions(test)
    made = {(row["contract"], row["question"]): row for row in test}
    best = pick_best(frame, test, system=name, n=EXAMPLES).to_dict("records")
    worst = pick_worst(frame, test, {}, system=name, n=EXAMPLES).to_dict("records")
    groups = [("The best", best), ("The worst", worst)]
    return {
        "system": name,
        "iteration": decided[-1].number,
        "n": len(test),
        "groups": [
            (title, [_example(row, made[row["contract"], row["question"]]) for row in rows]) for title, rows in groups
        ],
    }


def _example(row: Mapping[str, Any], p: Mapping[str, Any]) -> dict[str, Any]:
    """Return an answer to read; p_exists: that there is a clause, p_quote: that its best quote is right."""
    best = next(iter(shown_quotes(p) or all_quotes(p)), None)
    told = {name: row[name] for name in ("category", "contract", "question", "gold", "answer")}
    told |= {"fault": row.get("fault", ""), "score": f"{row['score']:.3f}"}
    told |= {"language": language_of(f"{row['gold']} {row['answer']}")}
    return told | {"p_exists": p.get("p_exists"), "p_quote": None if best is None else stated_p(best, p)}


def cost_per_answer(iterations: Sequence[Iteration]) -> dict[str, Any] | None:
    """Return the seconds and the prompt's tokens that an answer took on test, by system, in the newest evaluation."""
    newest = _newest(iterations, "metrics/seconds.csv")
    if not newest:
        return None
    seconds = _on_test(pd.read_csv(newest.path("metrics", "seconds.csv")))
    path, tokens = newest.path("metrics", "rows.csv"), pd.Series(dtype=float)
    if path.is_file():
        rows = _on_test(pd.read_csv(path, usecols=["system", "split", "prompt_tokens"]))
        tokens = rows.groupby("system")["prompt_tokens"].mean().dropna()
    rows = [
        (row["system"], score_text(row), f"{tokens[row['system']]:,.0f}" if row["system"] in tokens else "")
        for row in seconds[seconds["n"] > 0].to_dict("records")
    ]
    return {"iteration": newest.number, "rows": rows}


def figure(iteration: Iteration, name: str) -> dict[str, Any] | None:
    """Return a saved figure as text for a page, with its width in a browser's pixels; None if it was not drawn."""
    path = iteration.path("figures", f"{name}.png")
    if not path.is_file():
        return None
    content = path.read_bytes()
    width = int.from_bytes(content[16:20], "big") * CSS_DPI // DPI  # where a PNG holds its width
    return {"name": name, "data": base64.b64encode(content).decode(), "width": width}


def _on_test(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["split"] == "test"]


def _newest(iterations: Sequence[Iteration], name: str) -> Iteration | None:
    """Return the newest iteration that has a file of this name."""
    return next((iteration for iteration in reversed(iterations) if iteration.path(name).is_file()), None)


def _champion_name(iteration: Iteration) -> str:
    """Return the name under which the files of an iteration hold the champion that it leaves, "" if they don't."""
    if not iteration.path(DECISION).is_file():
        return ""
    champion = outgoing_champion(iteration)
    name = forgetting.champion_system(iteration, {"promoted": champion})
    of_before = name == forgetting.INCUMBENT and not same_champion(champion, incoming_champion(iteration))
    return "" if of_before else name  # a person may have gone back to an older one


def _number(value: float | None) -> str:
    if value is None or math.isnan(value):
        return ""
    return f"{value:,.0f}" if abs(value) >= LARGE else f"{value:.3f}"


def _with_interval(row: Mapping[str, Any]) -> str:
    """Return a value with its interval, if it has one."""
    value, low, high = (_number(row[name]) for name in ("value", "low", "high"))
    return f"{value} [{low}, {high}]" if low else value or "not defined yet"


def _size(row: Mapping[str, Any]) -> str:
    return f"{row['n']} / {row['n_contracts']}"
