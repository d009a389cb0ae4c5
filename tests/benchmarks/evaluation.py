"""Time the evaluation on made-up answers: `python tests/benchmarks/evaluation.py`; prints seconds, writes nothing."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from cuadft.evaluation import metrics, text_scores
from cuadft.evaluation.compare import paired_deltas
from cuadft.evaluation.offline_judge import OfflineJudge
from cuadft.evaluation.scoreboard import make_scoreboard

SYSTEMS, QUESTIONS, CONTRACTS, WORDS = 5, 2000, 100, 60
RESAMPLES = 10_000


def predictions(rng: random.Random) -> list[dict]:
    """Return answers that share some words with their reference; a third of the questions has no clause."""
    words, rows = [f"word{n}" for n in range(5000)], []
    for q in range(QUESTIONS):
        gold = " ".join(rng.choices(words, k=WORDS)) if q % 3 else ""
        for s in range(SYSTEMS):
            said = " ".join(w if rng.random() < 0.5 + s / 10 else rng.choice(words) for w in gold.split())
            rows.append(
                {
                    "id": f"q{q}",
                    "system": f"s{s}",
                    "split": "test",
                    "contract": f"c{q % CONTRACTS}",
                    "source": "cuad",
                    "category": "Parties",
                    "contract_type": "",
                    "question": f"Question {q}?",
                    "error": None,
                    "answers": [{"text": gold, "start": 0}] if gold else [],
                    "is_impossible": not gold,
                    "answer": said or text_scores.NO_CLAUSE,
                    "seconds": 0.1,
                }
            )
    return rows


def timed(label: str, work: Callable[[], object]) -> object:
    """Run, print the seconds, return the result."""
    started = time.perf_counter()
    result = work()
    print(f"{label}: {time.perf_counter() - started:.2f} s", flush=True)
    return result


def main() -> None:
    rows = predictions(random.Random(7))
    frame = timed(f"score, {len(rows):,} answers", lambda: metrics.score_predictions(rows)).reset_index(drop=True)
    ratings = timed(f"offline judge, {len(rows):,} answers", lambda: OfflineJudge().rate(rows))
    frame["reference_score"] = ratings["judge_score"]
    settings = {"n_resamples": RESAMPLES, "seed": 7}
    one = frame[["system", "split", "seed", "id", "contract", "failed", "f1"]]
    size = f"{SYSTEMS} systems x {QUESTIONS:,} rows, {RESAMPLES:,} resamples"
    timed(f"scoreboard of one metric, {size}", lambda: make_scoreboard(one, **settings))
    timed(f"scoreboard of all metrics, {size}", lambda: make_scoreboard(frame, **settings))
    pairs = [("s0", f"s{n}") for n in range(1, SYSTEMS)]
    timed(
        f"{len(pairs)} paired tests, {size}",
        lambda: paired_deltas(frame, pairs, metrics=["f1"], split="test", **settings),
    )


if __name__ == "__main__":
    main()
