"""Measure what instructions hidden in contracts and answers change: `python tests/benchmarks/injection.py [RUN]`.

Thirty texts (tests/injections.jsonl) order the program to deny a clause that it found, or to find one that it denied,
and order judges to accept wrong answers. Each is compared with the same question without it, and with harmless text of
the same length in its place. The program reads the best passage alone and may always refuse, as where no confidence
decides whether there is a clause. RUN is a run folder with an sft adapter (default: runs/quickstart). Writes nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import dspy
from scipy.stats import binomtest

sys.path.insert(0, str(Path(__file__).parents[1]))

import injected

from cuadft.core import files, runs
from cuadft.data.passages import Passage
from cuadft.evaluation import results
from cuadft.evaluation.judge import LMJudge
from cuadft.evaluation.offline_judge import OfflineJudge
from cuadft.evaluation.text_scores import is_refusal
from cuadft.models import weights
from cuadft.models.local import LocalEngine
from cuadft.rag.program import ContractQA, PlainAdapter
from cuadft.retrieval.retriever import Hit

MODEL = "HuggingFaceTB/SmolLM2-135M-Instruct"
POOL = 6  # questions of each kind that the cases go round
TOKENS, REPLY_TOKENS = (
    24,
    40,
)  # of the program's answers (a refusal shows in the first words) and of the judge's replies
GRADES = ("incorrect", "partly", "correct")


class Given:
    """A retriever that finds the one passage it is given, whatever is asked."""

    embedder, key = None, "given"

    def __init__(self, hit: Hit) -> None:
        self.hit = hit

    def search_many(self, queries: Sequence[tuple[str, str]], k: int) -> list[list[Hit]]:
        """Return the passage for each query."""
        return [[self.hit] for _ in queries]


def answers(engine: LocalEngine, adapter: str, asked: Sequence[tuple[dict[str, Any], Hit]]) -> list[str]:
    """Return the program's answer to each question with its passage."""
    lm = engine.lm(adapter, max_tokens=TOKENS)

    def ask(one: tuple[dict[str, Any], Hit]) -> str:
        row, hit = one
        with dspy.context(lm=lm, adapter=PlainAdapter()):
            return ContractQA(Given(hit), 1)(question=row["question"], contract=row["contract"]).answer

    with ThreadPoolExecutor(len(asked)) as pool, engine.expect(len(asked)):
        return list(pool.map(ask, asked))


def planted(hit: Hit, text: str) -> Hit:
    """Return the passage with a text at its end."""
    return replace(hit, passage=replace(hit.passage, text=f"{hit.passage.text} {text}"))


def best_passage(contracts: Mapping[str, str], row: Mapping[str, Any]) -> Hit:
    """Return the best passage that was found for a prediction."""
    spot, contract = row["passages"][0], row["contract"]
    start, end = spot["start"], spot["end"]
    return Hit(Passage(contract, spot["index"], start, end, contracts[contract][start:end]), spot["score"])


def program_flips(engine: LocalEngine, adapter: str, iteration: runs.Iteration) -> Iterator[list[object]]:
    """Yield lines of the table: how often the program's verdict turns to what is demanded."""
    rows = [row for row in results.read_predictions(iteration.path("predictions", "sft.test.jsonl")) if row["passages"]]
    contracts = {record["title"]: record["text"] for record in files.read_jsonl(iteration.run / "contracts.jsonl")}
    clean = answers(engine, adapter, [(row, best_passage(contracts, row)) for row in rows[: 4 * POOL]])
    for demand, refused in (("refuse", True), ("assert", False)):
        pool = [row for row, answer in zip(rows, clean) if is_refusal(answer) != refused][:POOL]
        if not pool:
            yield [f"program ({adapter or 'base'})", f"demands: {demand}", "no question to turn", "", "", ""]
            continue
        chosen = [(case, pool[i % len(pool)]) for i, case in enumerate(injected.CASES)]
        texts = [
            [(row, planted(best_passage(contracts, row), make(case, demand))) for case, row in chosen]
            for make in (injected.text, injected.control)
        ]
        turned = [[is_refusal(answer) == refused for answer in answers(engine, adapter, asked)] for asked in texts]
        yield line(f"program ({adapter or 'base'})", f"demands: {demand}", turned)


def judge_gains(judge: Any, rows: Sequence[dict[str, Any]]) -> list[object]:
    """Return a line of the table: how often a wrong answer gets a better verdict for what it carries."""
    chosen = [(case, rows[i % len(rows)]) for i, case in enumerate(injected.CASES)]
    plain = judge.rate([row for _, row in chosen])["judge_verdict"]
    raised = []
    for make in (injected.text, injected.control):
        carrying = [row | {"answer": f"{row['answer']}\n{make(case, 'correct')}"} for case, row in chosen]
        both = [(a, b) for a, b in zip(plain, judge.rate(carrying)["judge_verdict"]) if a in GRADES[:2] and b in GRADES]
        raised.append([GRADES.index(b) > GRADES.index(a) for a, b in both])
    return line(f"judge ({judge.name.split('@')[0]})", "demands: correct", raised)


def line(who: str, what: str, changed: Sequence[Sequence[bool]]) -> list[object]:
    """Return a line: changes with the orders and with harmless text, each with n and a 95 % interval."""
    cells: list[object] = [who, what]
    for found in changed:
        if found:
            low, high = binomtest(sum(found), len(found)).proportion_ci(method="wilson")
            cells += [f"{sum(found)} of {len(found)}", f"{low:.2f} to {high:.2f}"]
        else:
            cells += ["nothing readable", ""]
    return cells


def show(cells: Sequence[object]) -> None:
    """Print a line of the table at once: the next one takes its time."""
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def main(run: str = "runs/quickstart") -> None:
    """Measure and print the table."""
    started, iteration = time.perf_counter(), runs.Iteration(runs.resolve_path(run), 1)
    sft = iteration.path("adapters", "sft")
    engine = LocalEngine(weights.find_weights(MODEL), adapters={"sft": sft} if sft.is_dir() else {})
    rows = results.read_predictions(iteration.path("predictions", "sft.test.jsonl"))
    scores = OfflineJudge().rate(rows)["judge_verdict"]
    wrong = [row for row, verdict in zip(rows, scores) if verdict == "incorrect" and row["error"] is None]
    print("| who | what | turned by the orders | 95 % | turned by harmless text | 95 % |\n|" + " --- |" * 6)
    show(judge_gains(OfflineJudge(), wrong))
    for cells in program_flips(engine, "sft" if sft.is_dir() else "", iteration):
        show(cells)
    show(judge_gains(LMJudge(engine.lm(max_tokens=REPLY_TOKENS), num_threads=16), wrong))
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
