"""Ask a system (a program and its language model) the questions of many rows, in batches, and keep the answers on disk.

Each batch is appended to a JSON-lines file as soon as it is answered. A run that was killed therefore goes on where it
stopped, and computes the very batches that an unbroken run would have computed. For example:

    (sft,) = build_systems(iteration, ["sft"], model="tiny", embedder="sentence-transformers/all-MiniLM-L6-v2")
    path = iteration.path("predictions", "sft.dev.jsonl")
    predictions = answer_rows(sft.program, sft.lm, dev_rows, path, system="sft", split="dev")

A prediction is its row plus `answer`, `spans`, `quotes`, `p_exists`, `passages`, `error`, `seconds`, `prompt_tokens`,
`system`, `split` and `fingerprint` (of what gave the answer, see `answers_fingerprint`). It also keeps what the
probabilities were made of (`p_search`, `calibrated`, and the evidence of each quote), so that other costs and
calibrations need no language model again (see `rag.settle`).
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
from cuadft.rag.confidence import Look
from cuadft.rag.program import ContractQA, PlainAdapter
from cuadft.rag.quotes import Quote
from cuadft.rag.settle import SystemConfidence, quotes_right, settle, settle_left_out
from cuadft.rag.systems import System

READ_TOGETHER = 4  # batches of rows whose passages are read in one go, so that prompts of like length share a batch


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
    The rows are cut into steps by their place in `rows`, never by what is left to do, so that a resumed run computes
    the very batches of an unbroken one.
    """
    fingerprint = answers_fingerprint(program, lm)
    done, named = _earlier(path, rows, fingerprint), {"system": system, "split": split, "fingerprint": fingerprint}
    if lm.kwargs.get("temperature") == 0:  # one answer to a prompt, however often it is asked
        beside: dict[str, dict[str, Any]] = {}
        for other in sorted(path.parent.glob(f"*.{split}.jsonl")):
            with suppress(InputError, KeyError):  # the system that a broken file belongs to reports it
                beside |= _earlier(other, rows, fingerprint)
        done |= {id_: p | named for id_, p in beside.items() if id_ not in done}
    if done or path.exists():
        files.write_jsonl(path, list(done.values()))
    progress = bar(len(rows), f"{system} on {split}", done=len(done))
    step = READ_TOGETHER * batch_size
    for start in range(0, len(rows), step):
        todo = [r for r in rows[start : start + step] if r["id"] not in done]
        if todo:
            made = [prediction | named for prediction in answer_batch(program, lm, todo, batch_size)]
            files.append_jsonl(path, made)
            done |= {p["id"]: p for p in made}
            progress.update(len(made))
    progress.close()
    return settle_file(path, [done[r["id"]] for r in rows], program)


def settle_file(path: Path, predictions: Sequence[dict[str, Any]], program: ContractQA) -> list[dict[str, Any]]:
    """Return the predictions settled as the program now decides, and write them to `path` if that changed one."""
    settled = [settle(p, program.threshold, program.system, program.refusal) for p in predictions]
    return _keep(path, predictions, settled)


def _keep(path: Path, before: Sequence[dict[str, Any]], settled: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the settled predictions, and write them to `path` if settling changed one."""
    if settled != list(before):
        files.write_jsonl(path, settled)
    return settled


def calibrate(system: System, predictions: Sequence[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Calibrate a system on its dev answers, and return these settled, each by a calibration without its contract.

    The calibration is written to `system.calibration` and used by the system from now on; the settled answers go to
    `path`. A system of an earlier iteration, such as the incumbent, keeps the calibration that it came with for other
    contracts; its dev answers are settled like those of the systems that it is compared with.
    """
    right = [quotes_right(p) for p in predictions]
    if system.own and system.calibration is not None:
        system.program.system = SystemConfidence.fit(predictions, right)
        system.program.system.save(system.calibration)
    settled = settle_left_out(predictions, right, system.program.threshold, system.program.refusal)
    return _keep(path, predictions, settled)


def _earlier(path: Path, rows: Sequence[dict[str, Any]], fingerprint: str) -> dict[str, dict[str, Any]]:
    """Return by id the whole answers in a file that the same program and model gave to the rows as they are."""
    held = {p["id"]: p for p in read_predictions(path) if p.get("fingerprint") == fingerprint}
    return {r["id"]: held[r["id"]] for r in rows if r["id"] in held and is_reusable(held[r["id"]], r)}


def compare_answers(systems: Sequence[System], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return one record a row, for reading: question, gold, and each system's answer or error; nothing goes to disk."""
    if not rows:
        return []
    none = systems[0].program.refusal if systems else NO_CLAUSE
    answers = {system.name: answer_batch(system.program, system.lm, rows, len(rows)) for system in systems}
    return [
        {"question": row["question"], "gold": row["answers"][0]["text"] if row["answers"] else none}
        | {name: made[index]["answer"] or made[index]["error"] for name, made in answers.items()}
        for index, row in enumerate(rows)
    ]


def answer_batch(
    program: ContractQA, lm: dspy.LM, rows: Sequence[dict[str, Any]], batch_size: int
) -> list[dict[str, Any]]:
    """Run the program over some rows, all passages at once; a failed row carries the error instead of an answer."""
    started = time.perf_counter()
    looks = program.look([(row["question"], row["contract"]) for row in rows])
    calls = [(i, n, draw) for i, look in enumerate(looks) for n in look.read for draw in range(program.draws or 1)]
    engine = getattr(lm, "engine", None)
    local = isinstance(engine, LocalEngine)

    def ask(i: int, n: int, draw: int) -> tuple[list[Quote], int, Exception | None]:
        try:
            with dspy.track_usage() as usage:
                found = program.read(rows[i]["question"], looks[i], n)
            tokens = sum(used.get("prompt_tokens") or 0 for used in usage.get_total_tokens().values())
            return found, tokens, None
        except Exception as error:  # kept in the row: one bad reply must not end the batch
            return [], 0, error

    # timeout=0: DSPy would otherwise send a slow batch's last rows a second time
    threads = max(1, len(calls) if local else batch_size)  # the local engine makes its own batches of what waits
    pool = dspy.Parallel(num_threads=threads, max_errors=len(calls) + 1, disable_progress_bar=True, timeout=0)
    with dspy.context(lm=lm, adapter=PlainAdapter()), engine.expect(len(calls)) if local else nullcontext():
        replies = dict(zip(calls, pool([(ask, call) for call in calls]) if calls else [], strict=True))
    seconds = (time.perf_counter() - started) / len(rows)
    made = []
    for i, row in enumerate(rows):
        own = [replies[i, n, draw] for n in looks[i].read for draw in range(program.draws or 1)]
        error = next((error for _, _, error in own if error), None)
        prediction = _prediction(row, program, looks[i], [quotes for quotes, _, _ in own], error)
        tokens = sum(n for _, n, _ in own) or (None if own else 0)
        made.append(prediction | {"seconds": round(seconds, 4), "prompt_tokens": tokens})
    return made


def answers_fingerprint(program: ContractQA, lm: dspy.LM) -> str:
    """Return a hash of all that an answer depends on, 16 characters long.

    It covers the LM (whose name holds the hash of its weights), the generation settings, the passages, the search and
    the prompt.
    """
    settings = {k: lm.kwargs.get(k) for k in ("max_tokens", "temperature", "seed")}
    prompt = [program.k, program.predict.signature.instructions, [dict(d) for d in program.predict.demos]]
    confidence = program.confidence.key if program.confidence else None
    how = [program.draws, program.insists] if program.draws or program.insists else []
    return value_hash([lm.model, settings, program.retriever.key, prompt, confidence, *how])[:16]


def _prediction(
    row: dict[str, Any], program: ContractQA, look: Look, replies: list[list[Quote]], error: Exception | None
) -> dict[str, Any]:
    """Return a row with its answer and the passages behind it; with an `error` it has no answer."""
    passages = [
        {"index": hit.passage.index, "start": hit.passage.start, "end": hit.passage.end}
        | {"score": round(float(hit.score), 6), "read": n in look.read}
        for n, hit in enumerate(look.hits)
    ]
    for record, p in zip(passages, look.passage_p or (), strict=False):
        record["p"] = round(p, 5)
    kept = {"answer": None, "spans": [], "quotes": [], "p_exists": None}
    kept |= {"p_search": look.p_exists, "calibrated": look.calibrated}
    if error is None:
        made = program.conclude(look, replies)
        kept = {name: made[name] for name in kept}
    return row | kept | {"passages": passages, "error": None if error is None else brief(error)}
