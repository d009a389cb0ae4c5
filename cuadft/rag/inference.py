"""Run a system (program and LM) over rows: batched, appended to disk batch by batch, resumable after a kill."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import dspy

from cuadft.core import files
from cuadft.core.errors import brief
from cuadft.core.files import value_hash
from cuadft.core.progress import bar
from cuadft.evaluation.results import read_predictions, stands
from cuadft.models.local import LocalEngine
from cuadft.rag.program import ContractQA, PlainAdapter


def answers_fingerprint(program: ContractQA, lm: dspy.LM) -> str:
    """Return the name of what answers: LM (with its weights' hash), generation settings, passages, search and prompt."""
    settings = {k: lm.kwargs.get(k) for k in ("max_tokens", "temperature", "seed")}
    prompt = [program.k, program.predict.signature.instructions, [dict(d) for d in program.predict.demos]]
    return value_hash([lm.model, settings, program.retriever.key, prompt])[:16]


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

    `path` (JSON lines) is appended to after each batch. Rows that it already holds, from the same program and weights,
    are kept; failed ones are tried again; those of other weights or of a changed row are dropped. The rows are cut into
    batches by their place in `rows`, never by what is left to do, so that a resumed run computes the very batches of an
    unbroken one.
    """
    mark = answers_fingerprint(program, lm)
    done = {p["id"]: p for p in read_predictions(path) if p.get("fingerprint") == mark}
    kept = [done[r["id"]] for r in rows if r["id"] in done and stands(done[r["id"]], r)]
    if path.exists():
        files.write_jsonl(path, kept)
    done = {p["id"]: p for p in kept}
    shown = bar(len(rows), f"{system} on {split}")
    shown.update(len(kept))
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        todo = [r for r in batch if r["id"] not in done]
        if todo:
            made = [
                p | {"system": system, "split": split, "fingerprint": mark}
                for p in _answer(program, lm, todo, batch_size)
            ]
            files.append_jsonl(path, made)
            done |= {p["id"]: p for p in made}
            shown.update(len(made))
    shown.close()
    return [done[r["id"]] for r in rows]


def _answer(program: ContractQA, lm: dspy.LM, rows: Sequence[dict[str, Any]], threads: int) -> list[dict[str, Any]]:
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


def _prediction(row: dict[str, Any], result: Any, error: Exception | None, seconds: float) -> dict[str, Any]:
    passages = (
        []
        if result is None
        else [
            {
                "index": h.passage.index,
                "start": h.passage.start,
                "end": h.passage.end,
                "score": round(float(h.score), 6),
            }
            for h in result.hits
        ]
    )
    return row | {
        "answer": None if result is None else result.answer,
        "spans": [] if result is None else result.spans,
        "passages": passages,
        "error": None if error is None else brief(error),
        "seconds": round(seconds, 4),
        "prompt_tokens": _prompt_tokens(result),
    }


def _prompt_tokens(result: Any) -> int | None:
    """Return the tokens of the prompts behind an answer, as the LM counts them; None if it didn't say."""
    used = (result.get_lm_usage() or {}).values() if result is not None else ()
    counts = [usage["prompt_tokens"] for usage in used if usage.get("prompt_tokens")]
    return sum(counts) if counts else None
