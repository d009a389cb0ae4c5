"""A finished run of one iteration with a real retriever, program, adapter and answers, made in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import small

from cuadft.core import files
from cuadft.core.runs import Iteration

SPLITS = ("train", "train", "dev", "test")  # of the contracts of `small`, in their order
SCORES = {"quote_f1": (0.625, 0.5, 0.75), "detection_f1": (0.7, 0.6, 0.8), "false_answer": (0.05, 0.0, 0.1)}
PARAMETERS = {"model": "tiny", "embedder": "", "tuned_program": "rag", "batch_size": 4, "max_new_tokens": 16}


def make(run: Path, model: Path, *, champion: str = "sft", **parameters: object) -> Path:
    """Write a run on the contracts of `small`; model: the folder of the base. Return the run's folder."""
    from cuadft.rag import inference, systems
    from cuadft.rag.program import ContractQA, save_program
    from cuadft.retrieval.retriever import Retriever

    it, known = Iteration(run, 1), PARAMETERS | {"model": str(model), "cuad": "sample"} | parameters
    split_of = dict(zip(small.TEXTS, SPLITS, strict=True))
    about = {"contract_type": "", "filer": "", "group": 0}
    records = [{"title": title, "split": split_of[title], "text": text} | about for title, text in small.TEXTS.items()]
    files.write_jsonl(run / "contracts.jsonl", records)
    for split in SPLITS:
        files.write_jsonl(
            it.path("data", f"{split}.jsonl"), [r for r in small.ROWS if split_of[r["contract"]] == split]
        )
    Retriever(small.retriever().passages, None, mode="bm25", cutting=(120, 0.0)).save(it.path("retriever"))
    save_program(ContractQA(None, 2), it.path("program", "rag.json"))
    write_adapter(model, it.path("adapters", "sft"))
    files.write_json(it.path("manifest.json"), {"stages": {"all": {"parameters": known, "outputs": {}}}})
    weights = None if champion == "rag" else f"iter-01/adapters/{champion}"
    record = {"system": champion, "program": "iter-01/program/rag.json", "weights": weights}
    decision = {"promoted": record | {"retriever": "iter-01/retriever"}, "reason": "promoted: a gain of 0.125"}
    files.write_json(it.path("decision.json"), decision)
    board = ["system,split,metric,value,low,high,n,n_contracts,failed"]
    board += [f"{champion},test,{name},{','.join(map(str, of))},4,1,0" for name, of in SCORES.items()]
    files.write_text(it.path("scoreboard.csv"), "\n".join(board))
    files.write_json(run / "run.json", {"name": run.name})
    (system,) = systems.build_systems(it, [champion], **known_of(known))
    path = it.path("predictions", f"{champion}.test.jsonl")
    rows = files.read_jsonl(it.path("data", "test.jsonl"))
    inference.answer_rows(system.program, system.lm, rows, path, system=champion, split="test", batch_size=4)
    return run


def known_of(parameters: dict) -> dict:
    named = {name: parameters[name] for name in ("model", "embedder", "tuned_program", "batch_size")}
    return named | {"max_tokens": parameters["max_new_tokens"]}


def write_adapter(model: Path, folder: Path) -> None:
    """Write a random adapter that changes what the model says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from cuadft.models import weights

    torch.manual_seed(1)
    config = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(AutoModelForCausalLM.from_pretrained(model), config).save_pretrained(folder)
    (folder / "base.json").write_text(json.dumps({"model": str(model), "sha256": weights.weights_hash(model)}))
    files.write_json(folder / "training.json", {"key": "", "rows": ["a", "b", "c"], "log_history": []})
