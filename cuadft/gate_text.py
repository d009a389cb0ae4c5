"""A decision of the gate in words and as a table: which clause decided, with its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from cuadft.metrics import METRICS

COLUMNS = ["system", "score", "clause", "passed", "value", "limit", "low", "high", "n", "n_contracts", "p", "detail"]
NAMES = {
    "improvement": "improvement on dev", "slices": "earlier slices", "categories": "categories",
    "false_answers": "false answers", "failures": "failures", "prompt_tokens": "prompt tokens",
    "seconds": "seconds per answer", "candidates": "no candidate",
}  # fmt: skip


def reason(decision: Mapping[str, Any]) -> str:
    """Return the decision in one line, as logs and the history show it."""
    metric, best = decision["rule"]["metric"], decision["candidate"]
    if best is None:
        return f"kept: there is no other system with {metric} on dev"
    won = decision["action"] == "promoted"
    delta, decided = decision["delta"], decision["decided_by"]
    said = f"{'promoted' if won else 'kept'}: {best} against {decision['incumbent']} on dev: "
    said += f"{delta['value']:+.3f} {metric}, {_interval(delta, decision)}" if delta and delta["n"] else "not comparable"
    if won:
        return said
    found = _clause(decision, best, decided)
    return f"{said}; decided by {NAMES[decided]}{': ' + found['detail'] if found['detail'] else ''}"


def paragraph(decision: Mapping[str, Any]) -> str:
    """Return two to five sentences of Markdown: what was decided, by which clause, and what the others failed by."""
    best, decided = decision["candidate"], decision["decided_by"]
    if best is None:
        return (f"**Kept: {decision['incumbent']}.** No candidate has a {decision['rule']['metric']} on dev, so that there was "
                "nothing to test. The next iteration starts from the champion.")  # fmt: skip
    won = decision["action"] == "promoted"
    first = (f"**Promoted: {best}**; every clause of the rule is met, and the clause *{NAMES[decided]}* decided." if won else
             f"**Kept: {decision['incumbent']}.** The clause *{NAMES[decided]}* decided against {best}, "
             f"the candidate that came closest.")  # fmt: skip
    sentences = [first, _improved(decision, best)]
    if won:
        sentences.append(_untested(decision, best))
    elif decided != "improvement":
        sentences.append(_failed(_clause(decision, best, decided)))
    sentences += [_others(decision, best), "" if won else "The next iteration starts from the champion."]
    return " ".join(text for text in sentences if text)


def table(decision: Mapping[str, Any]) -> pd.DataFrame:
    """Return one row per candidate and clause; p is Holm's for improvement and categories, one-sided for the slices."""
    rows = [{"system": one["system"], "score": one["score"]} | found
            for one in decision["candidates"] for found in one["clauses"]]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def _improved(decision: Mapping[str, Any], system: str) -> str:
    found, metric = _clause(decision, system, "improvement"), decision["rule"]["metric"]
    if found["value"] is None:
        return f"It could not be compared: {found['detail']}."
    scores = {one["system"]: one["score"] for one in decision["candidates"]}
    said = (f"On {found['n']} dev questions of {found['n_contracts']} contracts it scores {scores[system]:.3f} in "
            f"{METRICS.get(metric, (metric,))[0]} against {decision['incumbent_score']:.3f}: {found['value']:+.3f}, "
            f"{_interval(found, decision)}, where more than {found['limit']:+.3f} is asked for")  # fmt: skip
    notes = [found["detail"]] if found["p"] is None else [_p(found["p"]), found["detail"]]
    return f"{said} ({'; '.join(note for note in notes if note)})."


def _failed(found: Mapping[str, Any]) -> str:
    if found["clause"] in ("slices", "categories"):
        asked = "a loss must be ruled out beyond" if found["clause"] == "slices" else "no loss may be shown beyond"
        return f"On {NAMES[found['clause']]} {asked} {-found['limit']:.3f}: {found['detail']}."
    if found["value"] is None:
        return f"Its {NAMES[found['clause']]} are limited to {found['limit']:g}, but were not measured."
    return f"Its {NAMES[found['clause']]} are {found['value']:.3g}, above the ceiling of {found['limit']:g}."


def _untested(decision: Mapping[str, Any], system: str) -> str:
    """Return what the promotion does not rest on."""
    found = [_clause(decision, system, name) for name in ("slices", "categories")]
    notes = [f"{NAMES[one['clause']]} ({one['detail']})" for one in found if one["passed"] is None and "too_few" not in one]
    few, tested = (len(found[1].get(key, ())) for key in ("too_few", "parts"))
    if few:
        notes.append(f"{few} of {few + tested} categories (too few contracts)")
    return f"Not tested: {' and '.join(notes)}." if notes else ""


def _others(decision: Mapping[str, Any], best: str) -> str:
    failed = {one["system"]: [NAMES[c["clause"]] for c in one["clauses"] if c["passed"] is False]
              for one in decision["candidates"] if one["system"] != best}  # fmt: skip
    said = [f"{system} ({names[0] if names else 'lower mean'})" for system, names in failed.items()]
    return f"Not chosen, with the first clause that each failed: {', '.join(said)}." if said else ""


def _clause(decision: Mapping[str, Any], system: str, name: str) -> Mapping[str, Any]:
    found = next(one["clauses"] for one in decision["candidates"] if one["system"] == system)
    return next(clause for clause in found if clause["clause"] == name)


def _interval(found: Mapping[str, Any], decision: Mapping[str, Any]) -> str:
    if found["low"] is None:
        return "no interval"
    return f"{decision['confidence']:.0%} interval [{found['low']:+.3f}, {found['high']:+.3f}]"


def _p(value: float) -> str:
    return f"p = {value:.3f}" if value >= 0.001 else "p < 0.001"
