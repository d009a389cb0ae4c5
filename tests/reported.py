"""A run folder of two iterations as the notebooks leave it, whose answers no model has given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import small

from cuadft.core import files, runs
from cuadft.core.runs import Iteration
from cuadft.data.schema import packaged_schema

SPLITS = {"train": range(4), "dev": range(4, 8), "test": range(8, 12), "slices": range(12, 16)}
SETTINGS = {"n_resamples": 100, "seed": 7}
HOSTILE = "</bdi><script>document.title='hacked'</script><img src=http://evil.example/x.png>"
PARAMETERS = {"seed": 7, "n_resamples": 100, "model": "tiny", "beta": 0.1, "align_methods": ["dpo"], "report_to": []}
USED = {"model": "openai/judge", "calls": 3, "answered": 3, "retries": 0, "failed": 0, "not_asked": 0, "bad_replies": 0}
USED |= {"prompt_tokens": 1234, "completion_tokens": 56, "cost_usd": 0.0421}
DPO_LOG = [
    {"step": n, "rewards/margins": 0.1 * n, "rewards/chosen": -0.1 * n, "logps/chosen": -n, "logps/rejected": -2 * n}
    for n in range(1, 9)
]


def prepare(run: Path, number: int, **parameters: object) -> Iteration:
    """Write what 01_data_prep leaves, with a finished and a missing rest of the stages."""
    iteration = Iteration(run, number)
    rows = {split: small.clause_corpus(numbers)[0] for split, numbers in SPLITS.items()}
    slice_of = {f"Contract {12 + place}": 1 + place // 2 for place in range(4)}
    rows["slices"] = [row | {"slice": slice_of[row["contract"]]} for row in rows["slices"]]
    rows["slices"] = [row for row in rows["slices"] if row["slice"] <= number]
    for split, own in (rows | {"synthetic": []}).items():
        files.write_jsonl(iteration.path("data", f"{split}.jsonl"), own)
    if number == 1:
        files.write_jsonl(run / "contracts.jsonl", [record for split in SPLITS for record in contracts(split)])
        environment = {"python": "3.12.1", "machine": {"cores": 2, "memory_gb": 7.5, "system": "Linux x86_64"}}
        about = {"name": run.name, "created": "2026-01-01T00:00:00+00:00", "preset": "params/tiny.yaml"}
        files.write_json(run / "run.json", about | {"environments": {"key": environment}})
    else:
        drift = {"n_incoming": 2, "n_reference": 4, "mmd2": 0.0123, "p": 0.4321, "limit": 0.05, "passages": 60}
        files.write_json(iteration.path("data", "drift.json"), drift | {"least_like": "Contract 3"})
    files.write_json(iteration.path("data", "schema.json"), packaged_schema().record())
    entry = {"status": "done", "started": "2026-01-01T00:00:00+00:00", "seconds": 61.0, "peak_memory_mb": 1500}
    entry |= {"parameters": PARAMETERS | parameters, "code": {"commit": "0123456789abcdef", "dirty": False}}
    entry |= {
        "inputs": {},
        "outputs": {f"{iteration.dir.name}/data/train.jsonl": "1"},
        "contracts": {"x.json": "ab" * 32},
    }
    files.write_json(iteration.path("manifest.json"), {"stages": {"data_prep": entry}})
    return iteration


def contracts(split: str) -> list[dict[str, Any]]:
    texts: dict[str, str] = {}
    for passage in small.clause_corpus(SPLITS[split])[1]:
        texts[passage.contract] = texts.get(passage.contract, "") + passage.text
    about = {"contract_type": "Supply", "filer": "", "group": 0, "split": split}
    return [about | {"title": title, "text": text} for title, text in texts.items()]


def answer(iteration: Iteration, system: str, right: Sequence[str]) -> list[dict[str, Any]]:
    """Write and return a system's answers: right in these categories, else a refusal; one is hostile."""
    found = []
    for split in ("dev", "test", "slices"):
        rows = files.read_jsonl(iteration.path("data", f"{split}.jsonl"))
        own = []
        for place, row in enumerate(rows):
            text = row["answers"][0]["text"] if row["answers"] and row["category"] in right else None
            text = HOSTILE if split == "test" and place == 0 and system == "sft" else text
            quotes = [{"text": text, "p": 0.81, "start": None, "end": None}] if text else []
            made = {"system": system, "split": split, "answer": text or "There is no such clause.", "error": None}
            made |= {"quotes": quotes, "p_exists": 0.93 if text else 0.07, "spans": [], "seconds": 0.25}
            own.append(row | made | {"passages": [{"start": 0, "end": 30}], "prompt_tokens": 321})
        files.write_jsonl(iteration.path("predictions", f"{system}.{split}.jsonl"), own)
        found += own
    return found


def evaluate(iteration: Iteration, systems: dict[str, Sequence[str]], *, promote: str | None = None) -> None:
    """Train nothing, answer with the systems, and write what 05_evaluate leaves of the answers.

    promote: the system that the decision names, whatever the gate says.
    """
    from cuadft import evaluation as ev
    from cuadft.loop import decide_champion

    predictions = [row for system, right in systems.items() for row in answer(iteration, system, right)]
    texts = {record["title"]: record["text"] for record in files.read_jsonl(iteration.run / "contracts.jsonl")}
    frame = ev.score_predictions(ev.constant_answers(predictions, texts) + predictions)
    board = ev.make_scoreboard(frame, **SETTINGS)
    timing = board["metric"] == "seconds"
    files.write_text(iteration.path("scoreboard.csv"), board[~timing].to_csv(index=False))
    ev.save(iteration, "seconds", board[timing])
    ev.save(iteration, "rows", frame)
    ev.save(iteration, "benchmark", ev.panels_figure(board, ["quote_f1"]))
    decision = decide_champion(frame, iteration, **SETTINGS)
    if promote:
        decision |= {"action": "promoted", "promoted": runs.system_record(iteration, promote)}
    files.write_json(iteration.path("decision.json"), decision)
    runs.record_decision(iteration, decision)
    history = ev.collect_stream_scores(frame, iteration, decision, metric="quote_f1")
    ev.save(iteration, "stream", history)
    ev.save(iteration, "iterations", ev.iterations_figure(history, **SETTINGS))
    ev.save(iteration, "slices_champion", ev.slices_figure(history))


def train(iteration: Iteration) -> None:
    """Write the adapters of an iteration with their logs, and the stages that made and evaluated them."""
    from cuadft import evaluation as ev

    log = [{"step": 8, "num_tokens": 4567, "train_runtime": 75.0}]
    for name, own in (("sft", []), ("dpo", DPO_LOG)):
        folder = iteration.path("adapters", name)
        files.write_text(folder / "adapter_model.safetensors", name)
        files.write_json(folder / "training.json", {"rows": ["a", "b", "c"], "log_history": [*own, *log]})
    ev.save(iteration, "alignment", ev.alignment_figure({"dpo": DPO_LOG}, beta=0.1))
    here, path = iteration.dir.name, iteration.path("manifest.json")
    stages = files.read_json(path)["stages"]
    entry = stages["data_prep"] | {"contracts": {}, "weights": {"tiny": "cd" * 32}, "seconds": 125.0}
    entry |= {"inputs": {f"{here}/data/train.jsonl": "1"}, "peak_memory_mb": 2300, "endpoints": {"judge": USED}}
    entry |= {"earlier": [{"seconds": 10.0, "status": "failed"}]}
    files.write_json(path, {"stages": stages | {"fine_tune": entry | {"outputs": {f"{here}/adapters/sft/w": "1"}}}})


def make(run: Path) -> Path:
    """Write two iterations: the first promotes sft, the second keeps it."""
    first = prepare(run, 1)
    train(first)
    evaluate(first, {"rag": ["Law"], "sft": ["Law", "Audit", "Cap"]}, promote="sft")
    second = prepare(run, 2, slice_contracts=2)
    evaluate(second, {"rag": [], "incumbent": ["Law", "Audit", "Cap"], "sft": ["Law"]})
    return run
