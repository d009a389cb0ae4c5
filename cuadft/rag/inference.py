"""Ask a system (a program and its language model) the questions of many rows, in batches, and keep the answers on disk.

Each batch is appended to a JSON-lines file as soon as it is answered. A run that was killed therefore goes on where it
stopped, and computes the very batches that an unbroken run would have computed. For example:

    (sft,) = build_systems(iteration, ["sft"], model="tiny", embedder="sentence-transformers/all-MiniLM-L6-v2")
    path = iteration.path("predictions", "sft.dev.jsonl")
    predictions = answer_rows(sft.program, sft.lm, dev_rows, path, system="sft", split="dev")

A prediction is its row plus `answer`, `spans`, `passages`, `error`, `seconds`, `prompt_tokens`, `system`, `split` and
`fingerprint` (of what gave the answer, see `answers_fingerprint`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import dspy

from cuadft.core import files
from cuadft.core.errors import InputError, brief
from cuadft.core.files import value_hash
from cuadft.core.progress import bar
from cuadft.evaluation.results import is_reusable, read_predictions
from cuadft.evaluation.text_scores import NO_CLAUSE
from cuadft.models.local import LocalEngine
from cuadft.rag.program import ContractQA, PlainAdapter
from cuadft.rag.systems import System
from cuadft.retrieval.retriever import Hit


def answer_rows(
    program: ContractQA,
    lm: dspy.LM,
    rows: Sequence[dict[str, Any]],
    path: Path,
    *,
    system: str,
    split: str,
    batch_size: int = 16,
) -> list[dict[str, Any]]:
    """Answer every row and return the predictions, in the order of the rows.

    `path` (JSON lines) is appended to after each batch. A prediction that it already holds is kept if it comes from
    the same program and weights; it is dropped if its weights or its row have changed, and a failed one is tried again.
    A greedy answer of the same program and weights in another system's file beside it (*.{split}.jsonl) is copied.
    The rows are cut into batches by their place in `rows`, never by what is left to do, so that a resumed run computes
    the very batches of an unbroken one.
    """
    fingerprint = answers_fingerprint(program, lm)
    earlier = {p["id"]: p for p in read_predictions(path) if p.get("fingerprint") == fingerprint}
    kept = [earlier[r["id"]] for r in rows if r["id"] in earlier and is_reusable(earlier[r["id"]], r)]
    if path.exists():
        files.write_jsonl(path, kept)
    done, named = {p["id"]: p for p in kept}, {"system": system, "split": split, "fingerprint": fingerprint}
    lacking = [r for r in rows if r["id"] not in done]
    if _is_greedy(lm) and (copied := [p | named for p in _answers_beside(path, split, fingerprint, lacking)]):
        files.append_jsonl(path, copied)
        done |= {p["id"]: p for p in copied}
    progress = bar(len(rows), f"{system} on {split}")
    progress.update(len(done))
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        todo = [r for r in batch if r["id"] not in done]
        if todo:
            made = [prediction | named for prediction in _answer_batch(program, lm, todo, batch_size)]
            files.append_jsonl(path, made)
            done |= {p["id"]: p for p in made}
            progress.update(len(made))
    progress.close()
    return [done[r["id"]] for r in rows]


def _is_greedy(lm: dspy.LM) -> bool:
    """Tell whether the LM gives one answer to a prompt, however often it is asked."""
    return lm.kwargs.get("temperature") == 0


def _answers_beside(
    path: Path, split: str, fingerprint: str, lacking: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the answers to the lacking rows that the files of other systems beside `path` hold.

    A file that cannot be read is passed over: the system that it belongs to reports it.
    """
    wanted, found = {row["id"]: row for row in lacking}, {}
    for other in sorted(path.parent.glob("*.jsonl")) if wanted else []:
        if other != path and other.name.endswith(f".{split}.jsonl"):
            with suppress(InputError, KeyError):
                same = [p for p in read_predictions(other) if p.get("fingerprint") == fingerprint and p["id"] in wanted]
                found |= {p["id"]: p for p in same if is_reusable(p, wanted[p["id"]])}
    return [found[id_] for id_ in wanted if id_ in found]


def compare_answers(systems: Sequence[System], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one record a row, for reading: question, gold, and each system's answer or error; nothing goes to disk."""
    if not rows:
        return []
    answers = {system.name: _answer_batch(system.program, system.lm, rows, len(rows)) for system in systems}
    return [
        {"question": row["question"], "gold": row["answers"][0]["text"] if row["answers"] else NO_CLAUSE}
        | {name: made[index]["answer"] or made[index]["error"] for name, made in answers.items()}
        for index, row in enumerate(rows)
    ]


def answers_fingerprint(program: ContractQA, lm: dspy.LM) -> str:
    """Return a hash of all that an answer depends on, 16 characters long.

    It covers the LM (whose name holds the hash of its weights), the generation settings, the passages, the search and
    the prompt.
    """
    settings = {k: lm.kwargs.get(k) for k in ("max_tokens", "temperature", "seed")}
    prompt = [program.k, program.predict.signature.instructions, [dict(d) for d in program.predict.demos]]
    return value_hash([lm.model, settings, program.retriever.key, prompt])[:16]


def _answer_batch(
    program: ContractQA, lm: dspy.LM, rows: Sequence[dict[str, Any]], threads: int
) -> list[dict[str, Any]]:
    """Run the program over one batch; a failed row carries the error instead of an answer."""
    if program.retriever.embedder:
        program.retriever.embedder.encode([r["question"] for r in rows])  # one batch instead of one call a thread
    items = [
        dspy.Example(question=r["question"], contract=r["contract"]).with_inputs("question", "contract") for r in rows
    ]
    engine = getattr(lm, "engine", None)
    hold = engine.expect(len(rows)) if isinstance(engine, LocalEngine) else nullcontext()
    failures: dict[int, Exception] = {}
    started = time.perf_counter()

    def ask(index: int) -> dspy.Prediction | None:
        try:
            return program(**items[index].inputs())
        except Exception as error:  # kept in the row: one bad reply must not end the batch
            failures[index] = error
            return None

    # timeout=0: DSPy would otherwise send a slow batch's last rows a second time
    pool = dspy.Parallel(num_threads=threads, max_errors=len(rows) + 1, disable_progress_bar=True, timeout=0)
    with dspy.context(lm=lm, adapter=PlainAdapter(), track_usage=True), hold:
        results = pool([(ask, (i,)) for i in range(len(rows))])
    seconds = (time.perf_counter() - started) / len(rows)
    return [
        _prediction(row, result, failures.get(i), seconds)
        for i, (row, result) in enumerate(zip(rows, results, strict=True))
    ]


def _prediction(
    row: dict[str, Any], result: dspy.Prediction | None, error: Exception | None, seconds: float
) -> dict[str, Any]:
    """Return a row with its answer and the passages behind it; `result` is None if the call failed."""
    return row | {
        "answer": None if result is None else result.answer,
        "spans": [] if result is None else result.spans,
        "passages": [] if result is None else [passage_record(hit) for hit in result.hits],
        "error": None if error is None else brief(error),
        "seconds": round(seconds, 4),
        "prompt_tokens": _prompt_tokens(result),
    }


def passage_record(hit: Hit) -> dict[str, Any]:
    """Return what a prediction keeps of a passage: its place in the contract, and its score."""
    found = hit.passage
    return {"index": found.index, "start": found.start, "end": found.end, "score": round(float(hit.score), 6)}


def _prompt_tokens(result: dspy.Prediction | None) -> int | None:
    """Return the number of tokens in the prompts behind an answer, as the LM counts them; None if it did not say."""
    used = (result.get_lm_usage() or {}).values() if result is not None else ()
    counts = [usage["prompt_tokens"] for usage in used if usage.get("prompt_tokens")]
    return sum(counts) if counts else None
