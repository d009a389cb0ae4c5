"""Score one system as CUAD is scored by others, and set it beside published results on the official test split.

    from cuadft.evaluation.official import cuad_scores, official_table, setup_differences

    board = cuad_scores(predictions)                   # one row per measure of `MEASURES`, with its interval
    table = official_table({"sft": board})             # our systems above the published ones
    print("\\n".join(setup_differences(table)))         # what such a comparison cannot show

Three rules come from others. CUAD's own `evaluate.py` (Hendrycks et al., 2021, github.com/TheAtticusProject/cuad) gives
the area under the precision-recall curve and the precision at 80 % and 90 % recall. ContractEval (Liu et al., 2025,
arXiv:2508.03080) gives coverage and laziness. Detection asks whether anything is quoted and whether a clause exists.
A system may quote several times: coverage and quote precision take all that it shows, AUPR all that it found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.data.passages import merge_spans
from cuadft.evaluation import bootstrap
from cuadft.evaluation.bootstrap import BLOCK, INTERVAL_COLUMNS
from cuadft.evaluation.constants import settle
from cuadft.evaluation.metrics import PARTIES, SPAN_MATCH_FROM, check_prediction, is_missing, span_jaccard, stands_for
from cuadft.evaluation.text_scores import AnswerComparison, shared_characters
from cuadft.evaluation.verdicts import has_failed

Predictions = Sequence[Mapping[str, Any]]
MEASURES: dict[str, tuple[str, bool]] = {  # name -> (label, higher is better), in the order of the rows
    "detection_f1": ("Detection F1", True),
    "detection_precision": ("Detection precision", True),
    "detection_recall": ("Detection recall", True),
    "quote_f1": ("Quote F1", True),
    "coverage_f1": ("Coverage F1 (ContractEval)", True),
    "coverage_precision": ("Coverage precision (ContractEval)", True),
    "coverage_recall": ("Coverage recall (ContractEval)", True),
    "laziness": ("Laziness (ContractEval)", False),
    "quote_precision": ("Quote precision (characters)", True),
    "verbatim": ("Answers that are verbatim", True),
    "token_f1_both": ("Token F1 where quoted and present", True),
    "aupr": ("AUPR (CUAD)", True),
    "precision_at_80_recall": ("Precision at 80 % recall (CUAD)", True),
    "precision_at_90_recall": ("Precision at 90 % recall (CUAD)", True),
    "failed": ("Failed generations", False),
}
CURVE_MEASURES = ("aupr", "precision_at_80_recall", "precision_at_90_recall")  # read off the precision-recall curve
RATIOS = tuple(name for name in MEASURES if name not in CURVE_MEASURES)
THRESHOLDS = np.append(np.arange(0.99, 0, -0.01), [0.001, 0.0])  # of a quote's probability, as in CUAD's script
OFFICIAL_CONTRACTS = 102  # contracts of CUAD's official test split
PUBLISHED = Path(__file__).with_name("published_official.csv")
TABLE_COLUMNS = [
    *("system", "hardware", "detection_f1", "detection_f1_low", "detection_f1_high"),
    *("coverage_f1", "coverage_f1_low", "coverage_f1_high", "token_f1_both", "verbatim"),
    *("aupr", "aupr_low", "aupr_high", "precision_at_80_recall", "n", "n_contracts", "ours", "source"),
]


# --- one system's scores


def cuad_scores(predictions: Predictions, **resampling: Any) -> pd.DataFrame:
    """Return CUAD's scoreboard of one system: columns measure, value, low, high, n and n_contracts.

    predictions: one row per question as in `predictions/*.jsonl`, with `metrics.REQUIRED_KEYS`. Also read where
    present: spans (where the answer's words stand, [] if nowhere), weight (for how many questions a row stands), and
    quotes, the n-best list: {"text", "span" or None, "p" from 0 to 1, "quoted"}, without the refusal. The quotes that
    an answered row shows are all but those with quoted false, which are candidates only (`shown_quotes`). Without
    quotes the n-best list is the answer, as one text, with probability 1, and empty for a refusal. A failed row has no
    output at all. A row of weight w counts as w rows; n is the number of questions that a measure's rows stand for,
    rounded.

    detection_*: a question is answered (neither failed nor refused); a gold span exists. quote_f1: twice the token F1
    of rows answered and with a clause, over rows answered plus rows with a clause. token_f1_both: mean token F1 of rows
    answered and with a clause (SQuAD 2.0, best over the gold spans). verbatim: share of answered rows whose words stand
    in the contract (all shown quotes, where there are any). failed: share of rows that failed.
    coverage_*, laziness: see `_coverage`; the output is the answer and the shown quotes, a line each. quote_precision:
    see `_quoted_characters`. A row with neither recorded spans nor shown quotes has no quote_precision and no verbatim.
    aupr, precision_at_*_recall: see `curve_measures`; they rest on every quote with its probability, also on those not
    shown and those of refused questions. As in CUAD's script they are 0, never NaN, where undefined.

    Intervals resample contracts. Ratios: `bootstrap.ratio_intervals`; the curve's measures: percentiles of the draws,
    widened to the value where that lies outside. NaN with one contract. Raises InputError on no predictions, several
    systems, an id twice, a malformed row, and as `bootstrap.check_resampling`.
    """
    settings = bootstrap.check_resampling(**resampling)
    systems = sorted({str(p.get("system", "")) for p in checked_rows(predictions)})
    if len(systems) != 1:
        said = f"are of {', '.join(systems)}" if systems else "are no predictions"
        raise InputError(f"The rows to score {said}: give the rows of one system.")
    contracts = [p["contract"] for p in predictions]
    weights = np.array([stands_for(p) for p in predictions])
    parts = np.array([list(_row_parts(p).values()) for p in predictions], float)
    with np.errstate(divide="ignore", invalid="ignore"):
        columns = [(top / bottom, bottom * weights, True) for top, bottom in parts.transpose(1, 2, 0)]
    ratios = bootstrap.interval_table(columns, contracts, sizes=weights, **resampling).assign(metric=RATIOS)
    curve = _curve_intervals(*curve_counts(predictions, weights, *bootstrap.cluster_codes(contracts)), *settings)
    table = pd.concat([ratios, curve.assign(n=round(weights.sum()))]).set_index("metric").loc[list(MEASURES)]
    table = settle(table.reset_index().assign(system=systems[0]))
    return table.rename(columns={"metric": "measure"})[["measure", *INTERVAL_COLUMNS]]


def _row_parts(p: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Return a row's numerator and denominator of each of `RATIOS`; a denominator of 0: it does not apply."""
    golds, failed = [a["text"] for a in p["answers"]], has_failed(p)
    compared = AnswerComparison(None if failed else p["answer"], golds)
    refused, clause = compared.abstained, compared.has_clause
    answered = not failed and not refused
    both, either = answered and clause, answered + clause
    f1 = compared.f1() if both else 0.0
    shown = shown_quotes(p) if answered else []
    verbatim = _verbatim(p, shown) if answered else None
    return {
        "detection_f1": (2 * both, either),
        "detection_precision": (both, answered),
        "detection_recall": (both, clause),
        "quote_f1": (2 * f1, either),
        **_coverage([p["answer"], *(quote["text"] for quote in shown)] if answered else None, golds if clause else ()),
        "laziness": (refused and clause, clause),
        "quote_precision": _quoted_characters(p, shown) if answered else (0, 0),
        "verbatim": (bool(verbatim), verbatim is not None),
        "token_f1_both": (f1, both),
        "failed": (failed, 1),
    }


def shown_quotes(p: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the quotes that a row shows, best first: those with a text whose "quoted" is true or absent.

    Whether the row is answered at all is not asked here. Without the key quotes there are none.
    """
    quotes = () if is_missing(p.get("quotes")) else p["quotes"]
    return [quote for quote in quotes if quote["text"] and (is_missing(quote.get("quoted")) or quote["quoted"])]


def _coverage(output: Sequence[str] | None, golds: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Return the parts of ContractEval's precision, recall and F1.

    output: all texts that the row shows, one after the other, equal ones once; None if there is none or it refuses.

    A question with a clause is a true positive if the output contains every gold span, white space and case folded,
    and a false negative otherwise. An output where there is no clause is a false positive, so a wrong output on a
    question with a clause lowers recall alone. Laziness there is the number of "no related clause" on questions with a
    clause over the number of these questions. Source: `Evaluation.py` (false_no_related_clause_rate) and the inclusion
    check in `proprietary_model.py` of github.com/olivialiu121/ContractEval. Three things differ: that check folds
    neither white space inside a text nor case; any reply that holds "no related clause" refuses; and a reply that is
    missing where there is no clause is a false positive, where a failed row here is no output.
    """
    folded = None if output is None else _fold("\n".join(dict.fromkeys(output)))
    tp = folded is not None and bool(golds) and all(_fold(gold) in folded for gold in golds)
    fp, fn = folded is not None and not golds, bool(golds) and not tp
    return {
        "coverage_f1": (2 * tp, 2 * tp + fp + fn),
        "coverage_precision": (tp, tp + fp),
        "coverage_recall": (tp, tp + fn),
    }


def _fold(text: str) -> str:
    """Return the text with runs of white space as one blank, none at its ends, and case folded."""
    return " ".join(text.split()).casefold()


def _quoted_characters(p: Mapping[str, Any], shown: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Return how many characters of an answered row's output lie inside gold spans, and how many it quotes, by offsets.

    The output is the union of the shown quotes' spans, each character once, and the answer where it is none of these
    quotes. Of the places where the answer's words stand, the one that shares most characters counts, the first of
    equals. A text that stands nowhere quotes its own length and shares nothing, and so does all output where there is
    no clause: quote precision is the share of all quoted characters that a lawyer had marked.
    """
    gold = merge_spans((a["start"], a["start"] + len(a["text"])) for a in p["answers"])
    placed = [tuple(quote["span"]) for quote in shown if not is_missing(quote.get("span"))]
    nowhere = {quote["text"] for quote in shown if is_missing(quote.get("span"))}
    if not is_missing(p.get("spans")) and p["answer"] not in [quote["text"] for quote in shown]:
        places = sorted(
            ((start, end) for start, end in p["spans"]), key=lambda place: -shared_characters([place], gold)
        )
        placed += places[:1]
        nowhere |= set() if places else {p["answer"]}
    placed = merge_spans(placed)
    return shared_characters(placed, gold), sum(end - start for start, end in placed) + sum(map(len, nowhere))


def _verbatim(p: Mapping[str, Any], shown: Sequence[Mapping[str, Any]]) -> bool | None:
    """Say whether an answered row's words stand in the contract; None if neither shown quotes nor spans tell."""
    if shown:
        return all(not is_missing(quote.get("span")) for quote in shown)
    return None if is_missing(p.get("spans")) else len(p["spans"]) > 0


# --- CUAD's precision-recall curve


def curve_counts(
    predictions: Predictions, weights: np.ndarray, codes: np.ndarray, n_contracts: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return found gold spans and false positives by contract and threshold, both (C, 101), and gold spans (C,).

    A gold span is found at a threshold if a quote that matches it has a higher probability; a quote that matches no
    gold span is a false positive. A quote matches if `span_jaccard` is 0.5 or more. For the category Parties, or an id
    that names it (as CUAD's script asks), it also matches if it contains the gold span's text.
    """
    gold = np.bincount(codes, weights * [len(p["answers"]) for p in predictions], n_contracts)
    found, wrong = [], []  # (contract, probability, weight)
    for p, weight, code in zip(predictions, weights, codes, strict=True):
        for events, probabilities in zip((found, wrong), _matched(p), strict=True):
            events += [(code, probability, weight) for probability in probabilities]
    return _counts_above(found, n_contracts), _counts_above(wrong, n_contracts), gold


def _matched(p: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """Return the probability up to which each gold span is found, and that of each quote without a gold span."""
    quotes, golds = _n_best(p), [a["text"] for a in p["answers"]]
    inside = p["category"] == PARTIES or PARTIES in str(p["id"])

    def matches(text: str, gold: str) -> bool:
        return span_jaccard(text, gold) >= SPAN_MATCH_FROM or (inside and gold in text)

    hits = {text: [n for n, gold in enumerate(golds) if matches(text, gold)] for text in quotes}
    best: dict[int, float] = {}
    for text, found in hits.items():
        best |= {n: max(quotes[text], best.get(n, 0.0)) for n in found}
    return list(best.values()), [quotes[text] for text, found in hits.items() if not found]


def _n_best(p: Mapping[str, Any]) -> dict[str, float]:
    """Return each quoted text with its probability; of equal texts the last one counts, as in CUAD's script."""
    if has_failed(p):
        return {}
    if not is_missing(p.get("quotes")):
        return {quote["text"]: float(quote["p"]) for quote in p["quotes"] if quote["text"]}
    return {} if AnswerComparison(p["answer"], ()).abstained else {p["answer"]: 1.0}


def _counts_above(events: Sequence[tuple[int, float, float]], n_contracts: int) -> np.ndarray:
    """Return the weight of the events whose probability exceeds each threshold, by contract (C, 101)."""
    size = len(THRESHOLDS)
    if not events:
        return np.zeros((n_contracts, size))
    codes, probabilities, weights = (np.array(column) for column in zip(*events, strict=True))
    first = size - np.searchsorted(THRESHOLDS[::-1], probabilities, side="left")  # the first threshold below it
    sums = np.bincount(codes * (size + 1) + first, weights, n_contracts * (size + 1))
    return sums.reshape(n_contracts, size + 1)[:, :size].cumsum(1)


def curve_measures(tp: np.ndarray, fp: np.ndarray, gold: np.ndarray) -> dict[str, np.ndarray]:
    """Return CUAD's area under the curve and its precision at 80 % and 90 % recall, each (D,).

    tp, fp: (D, 101), counts at `THRESHOLDS`; gold: (D,), number of gold spans. The curve starts at recall 0 with
    precision 1; each precision is raised to the best at any higher recall; the area is that of the trapezoids. A
    precision without quotes is left out; an area that is not defined is 0. Precision at a recall is that of the first
    point to reach it, 0 if none does; the point of threshold 0 is not looked at. Source: `get_aupr`,
    `get_prec_at_recall` and `process_precisions` of CUAD's `evaluate.py`.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = tp / (tp + fp), tp / gold[:, None]
    start = np.ones((len(tp), 1))
    precision, recall = np.hstack([start, precision]), np.hstack([0 * start, recall])
    best = np.fmax.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    area = (np.diff(recall) * (best[:, 1:] + best[:, :-1])).sum(1) / 2
    measures = {"aupr": np.nan_to_num(area)}
    for percent in (80, 90):
        reached = recall[:, :-1] >= percent / 100
        at = best[np.arange(len(tp)), reached.argmax(1)]
        measures[f"precision_at_{percent}_recall"] = np.where(reached.any(1), at, 0.0)
    return measures


def _curve_intervals(
    tp: np.ndarray, fp: np.ndarray, gold: np.ndarray, n_resamples: int, seed: int, confidence: float
) -> pd.DataFrame:
    """Return the curve's measures with percentile intervals over draws of contracts, block by block of draws."""
    n, ends = len(gold), [(1 - confidence) / 2, (1 + confidence) / 2]
    rng, step, drawn = np.random.default_rng(seed), max(1, BLOCK // max(n, len(THRESHOLDS))), []
    for start in range(0, n_resamples, step):
        draws = rng.multinomial(n, np.full(n, 1 / n), min(step, n_resamples - start)).astype(float)
        drawn.append(pd.DataFrame(curve_measures(draws @ tp, draws @ fp, draws @ gold)))
    value = pd.DataFrame(curve_measures(tp.sum(0)[None], fp.sum(0)[None], gold.sum(0)[None])).iloc[0]
    low, high = (pd.concat(drawn).quantile(end) for end in ends)
    bounds = {"low": np.minimum(low, value), "high": np.maximum(high, value)}
    table = pd.DataFrame({"value": value, **bounds, "n_contracts": n}).rename_axis("metric").reset_index()
    return table if n > 1 else table.assign(low=math.nan, high=math.nan)


def checked_rows(predictions: Predictions) -> Predictions:
    """Return the predictions; InputError on a malformed row, and on a question that a system answers twice."""
    seen = set()
    for p in predictions:
        check_prediction(p)
        key = (str(p.get("system", "")), p["id"])
        if key in seen:
            raise InputError(f"Row {key[1]!r} of {key[0]!r} is there twice: give the rows of one split and one seed.")
        seen.add(key)
    return predictions


# --- beside published results


def official_table(boards: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return our systems, in the order given, above those that others report, with the columns `TABLE_COLUMNS`.

    boards: system -> its table from `cuad_scores`, on the official test split. Of others' systems NaN is not reported,
    as are n and n_contracts: not every source says what it left out. The column `source` names each row's source; the
    file is `published_official.csv` beside this module. Where systems were not scored alike: `setup_differences`.
    """
    rows = []
    for system, board in boards.items():
        found = board.set_index("measure")
        row = {"system": system, "hardware": "", "ours": True, "source": "this project (cuad_scores)"}
        rows.append(row | bootstrap.side_by_side(found) | found.loc["failed", ["n", "n_contracts"]].to_dict())
    published = pd.read_csv(PUBLISHED).assign(ours=False).reindex(columns=TABLE_COLUMNS)
    return pd.concat([pd.DataFrame(rows, columns=TABLE_COLUMNS), published], ignore_index=True) if rows else published


def setup_differences(table: pd.DataFrame) -> list[str]:
    """Return one sentence on each thing that keeps our rows and the published ones from being compared strictly.

    table: from `official_table`; the number of contracts is read from its rows.
    """
    counts = sorted({int(count) for count in table[table["ours"]]["n_contracts"]})
    scored = " to ".join(dict.fromkeys(map(str, counts[:1] + counts[-1:]))) or "none"
    sentences = files.read_json(PUBLISHED.with_name("setup_differences.json"))
    return [sentence.format(scored=scored, official=OFFICIAL_CONTRACTS) for sentence in sentences]
