"""Score predictions row by row: answers (SQuAD 2.0, ROUGE-L), refusals, citations and passages.

    frame = score_predictions(predictions)    # one row per prediction, one column per metric of `METRICS`
    board = make_scoreboard(frame, seed=7)    # their means, in `scoreboard`

A failed generation scores 0 and is counted. A metric that does not apply to a row is NaN there, never 0.

Whether a quoted span is right is CUAD's own question (`span_jaccard`): it finds a gold span if the two share at least
half of all their different words. A rule that only asks whether the gold words are contained rewards quoting half the
contract. Here every further word lowers the overlap. Source: Hendrycks et al. (2021), "CUAD: An Expert-Annotated NLP
Dataset for Legal Contract Review", and `evaluate.py` of its repository.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cuadft.core.errors import InputError
from cuadft.core.text import spaced
from cuadft.evaluation.text_scores import WHOLE, AnswerComparison, is_plain_refusal, retrieved_share
from cuadft.evaluation.verdicts import has_failed

METRICS: dict[str, tuple[str, bool]] = {  # name -> (label, higher is better), in the order in which tables show them
    "quote_f1": ("Quote F1", True),
    "detection_f1": ("Detection F1", True),
    "detection_precision": ("Detection precision", True),
    "detection_recall": ("Detection recall", True),
    "f1_answerable": ("F1 where the clause exists", True),
    "false_answer": ("False answers", False),
    "false_refusal": ("False refusals", False),
    "f1": ("F1 over all questions", True),
    "f1_all": ("Answer F1, all spans together", True),
    "em": ("Exact match", True),
    "f1_no_clause": ("F1 where there is no clause", True),
    "em_answerable": ("Exact match where the clause exists", True),
    "rouge_l": ("ROUGE-L", True),
    "hit@1": ("Retrieval hit at 1", True),
    "hit": ("Retrieval hit", True),
    "char_recall": ("Retrieval recall (characters)", True),
    "char_precision": ("Retrieval precision (characters)", True),
    "cited": ("Answers found in the contract", True),
    "reference_score": ("Offline judge score", True),
    "judge_score": ("LLM judge score", True),
    "seconds": ("Seconds per question", False),
}
JUDGED = ("reference_score", "judge_score")  # added by the judges, not by `score_predictions`
WEIGHT_COLUMNS: dict[str, tuple[str, ...]] = {  # metrics of counts -> the columns whose sum weighs a row in their mean
    "quote_f1": ("answered", "has_clause"),
    "detection_f1": ("answered", "has_clause"),
    "detection_precision": ("answered",),
}
HEADLINE = ("quote_f1", "detection_f1")  # what stands first: neither can be won by refusing always or never
KEY_COLUMNS = ("system", "split", "id", "contract", "contract_type", "category", "source", "question", "is_impossible")
FLAGS = ("failed", "refused", "reworded_refusal", "answered", "has_clause")
NUMBERS = ("weight", "prompt_tokens", "slice")
MEASURED = tuple(metric for metric in METRICS if metric not in JUDGED)
SCORED_COLUMNS = [*KEY_COLUMNS, "answer", "seed", *FLAGS, *NUMBERS, *MEASURED]
REQUIRED_KEYS = ("id", "contract", "category", "is_impossible", "answers", "answer", "error")
SPAN_MATCH_FROM = 0.5  # lowest share of common words (Jaccard) at which a predicted span finds a gold span
PARTIES = "Parties"  # the category whose names CUAD's script also finds inside a longer span


def score_predictions(predictions: Sequence[Mapping[str, Any]], *, reading: str = WHOLE) -> pd.DataFrame:
    """Return one scored row per prediction (see `METRICS`); metrics that do not apply to a row are NaN.

    reading: what counts as a refusal, one of `text_scores.READINGS`, for every metric.

    Columns: the prediction's own `KEY_COLUMNS`, answer and seed (0 unless given); failed and refused (bool, by
    the reading); reworded_refusal (bool: it refuses in words of its own, which a reading by the sentence
    alone would count as an answer); answered (bool: neither failed nor refused) and has_clause (bool); weight (for how
    many questions the row stands, 1 unless the prediction says more); prompt_tokens; slice (the number of the slice of
    the stream); every metric of `METRICS` but the judges'. prompt_tokens and slice are floats, NaN where the prediction
    does not name them.

    quote_f1: twice the F1 of the rows that are answered and have a clause, over the number of rows answered plus that
    of rows with a clause. detection_precision, detection_recall, detection_f1: whether anything is quoted against
    whether any clause exists. The four are ratios of counts (see `metric_weights`). A system that refuses always has
    none of them above 0, however many questions have no clause; to answer always costs precision.
    f1, em, rouge_l: SQuAD 2.0's and ROUGE-L, best over the gold spans. f1_all: against all gold spans as one bag of
    words. On a row without clause they are 1 for a refusal and 0 otherwise.
    false_answer: answered although there is no such clause. false_refusal: refused although there is one. Both are NaN
    on a failed row, where f1, f1_all, em and rouge_l are 0.
    hit: a retrieved passage shares a character with a gold span. hit@1: the first one does. char_recall and
    char_precision: `text_scores.retrieved_share`.

    Raises InputError as `check_prediction`, and on a row counted twice (same system, split, seed and id).
    """
    for prediction in predictions:
        check_prediction(prediction)
    frame = pd.DataFrame([_score_one(p, reading) for p in predictions], columns=SCORED_COLUMNS)
    key = ["system", "split", "seed", "id"]
    if len(twice := frame.loc[frame.duplicated(key), key]):
        raise InputError(f"Prediction {tuple(twice.iloc[0])} is there twice: score each row once per seed.")
    types = {bool: ("is_impossible", *FLAGS), int: ("seed",), float: (*NUMBERS, *MEASURED)}
    return frame.astype({name: kind for kind, names in types.items() for name in names})


def metric_weights(frame: pd.DataFrame, metric: str) -> np.ndarray:
    """Return each row's weight in the mean of a metric, sum(weight * value) / sum(weight): 0 where it does not apply.

    A metric of `WEIGHT_COLUMNS` weighs a row by the sum of its columns there. So the mean of detection_precision is all
    answered rows with a clause over all answered rows. Any other metric weighs every row to which it applies by 1.
    Both are multiplied by the row's own `weight`, the number of questions that it stands for: the mean is then that
    of all questions of the split, also if fewer of one kind were asked. Raises InputError if a column is missing.
    """
    questions = frame["weight"].to_numpy(float) if "weight" in frame else 1.0
    if metric not in WEIGHT_COLUMNS:
        return frame[metric].notna().to_numpy(float) * questions
    absent = set(WEIGHT_COLUMNS[metric]) - set(frame)
    if absent:
        raise InputError(f"No column {min(absent)!r} to weigh {metric} by: give the frame of score_predictions.")
    return sum(frame[name].to_numpy(float) for name in WEIGHT_COLUMNS[metric]) * questions


def _score_one(p: Mapping[str, Any], reading: str) -> dict[str, Any]:
    gold = sorted(p["answers"], key=lambda a: a["start"])
    failed = has_failed(p)
    answer = None if failed else p["answer"]
    compared = AnswerComparison(answer, [a["text"] for a in gold], reading)
    clause, refused, f1, em = compared.has_clause, compared.abstained, compared.f1(), compared.exact_match()
    answered = not failed and not refused
    return {
        **{key: p.get(key, "") for key in KEY_COLUMNS},
        "answer": answer,
        "seed": 0 if is_missing(p.get("seed")) else p["seed"],
        "failed": failed,
        "refused": refused,
        "reworded_refusal": refused and not is_plain_refusal(answer),
        "answered": answered,
        "has_clause": clause,
        "weight": stands_for(p),
        "prompt_tokens": p.get("prompt_tokens"),
        "slice": p.get("slice"),
        "quote_f1": _where(answered or clause, f1 * (answered and clause)),
        "detection_f1": _where(answered or clause, answered and clause),
        "detection_precision": _where(answered, clause),
        "detection_recall": _where(clause, answered),
        "f1": f1,
        "f1_all": compared.f1_all(),
        "em": em,
        "f1_answerable": _where(clause, f1),
        "f1_no_clause": _where(not clause, f1),
        "em_answerable": _where(clause, em),
        "rouge_l": compared.rouge_l(),
        "false_answer": _where(not clause and not failed, answered),
        "false_refusal": _where(clause and not failed, refused),
        **_retrieval_scores(p.get("passages"), gold if clause else ()),
        "cited": _where(answered and p.get("spans") is not None, bool(p.get("spans"))),
        "seconds": p.get("seconds"),
    }


def _where(applies: bool, value: float) -> float:
    """Return the value as a number, NaN where it does not apply."""
    return float(value) if applies else math.nan


def _retrieval_scores(passages: Sequence[Mapping] | None, gold: Sequence[Mapping]) -> dict[str, float]:
    first = recall = precision = math.nan
    if gold and not is_missing(passages):
        wanted = [(a["start"], a["start"] + len(a["text"])) for a in gold]
        found = [(p["start"], p["end"]) for p in passages]
        first, _ = retrieved_share(wanted, found[:1])
        recall, precision = retrieved_share(wanted, found)
    hits = {name: _where(not math.isnan(share), share > 0) for name, share in (("hit@1", first), ("hit", recall))}
    return hits | {"char_recall": recall, "char_precision": precision}


def is_missing(value: Any) -> bool:
    """Tell whether a prediction lacks a value: None, or NaN, into which a data frame turns None."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def stands_for(p: Mapping[str, Any]) -> float:
    """Return for how many questions a prediction stands: its weight, 1 if it has none."""
    return 1.0 if is_missing(p.get("weight")) else float(p["weight"])


def check_prediction(p: Mapping[str, Any]) -> None:
    """Raise InputError on a missing key, an answer that is no text, and gold spans that contradict is_impossible."""
    if absent := [key for key in REQUIRED_KEYS if key not in p]:
        raise InputError(f"Prediction {p.get('id', '?')!r} has no {absent[0]!r}: it needs {', '.join(REQUIRED_KEYS)}.")
    if not is_missing(p["answer"]) and not isinstance(p["answer"], str):
        raise InputError(f"Row {p['id']!r} has the answer {p['answer']!r}: give text, or None if it failed.")
    if bool(p["is_impossible"]) == bool(p["answers"]) or not all(gold["text"] for gold in p["answers"]):
        raise InputError(
            f"Row {p['id']!r} has is_impossible={p['is_impossible']} and {len(p['answers'])} gold spans with text: "
            "correct one of them."
        )


_MARKS = str.maketrans({".": None, ",": None, ";": None, ":": None, "/": " "} | dict.fromkeys("。，、；："))


def span_words(text: str) -> frozenset[str]:
    """Return the different words of a text in lower case, without full stops, commas, colons and semicolons.

    This is the folding of CUAD's `evaluate.py`; `core.text.fold_words` would cut "non-compete" into two words. In
    scripts without blanks each letter is a word.
    """
    return frozenset(spaced(text.translate(_MARKS)).lower().split())


def span_jaccard(a: str, b: str) -> float:
    """Return the share of the two texts' different words that both have, 0 to 1; 0 if neither has a word."""
    ours, theirs = span_words(a), span_words(b)
    return len(ours & theirs) / len(ours | theirs) if ours or theirs else 0.0
