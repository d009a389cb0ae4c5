"""Measure cuadft against what one would take instead, in one go on one machine: `make bench`.

    python tests/benchmarks/bench.py [CUAD.zip] [--out notebooks/results/bench.json]

Answers: the same prompts with SmolLM2-135M through transformers one by one, in padded batches, OpenVINO GenAI (if it is
installed), and cuadft's engine in free text and held to quotes. Training: LoRA by TRL's defaults, and as cuadft trains.
Embedding: sentence-transformers' `encode` and cuadft's. Without CUAD the contracts are the invented sample. A rate
beside other work says little, so the table names the load of the minute before.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cuadft.core import files
from cuadft.data.contracts import read_contracts
from cuadft.data.passages import cut_passages
from cuadft.models.local import LocalEngine
from cuadft.models.verbatim import QuoteSource, quote_format
from cuadft.models.weights import find_weights

SAMPLE = Path(__file__).parents[2] / "cuadft" / "sample" / "contracts.json"
MODEL, EMBEDDER = "HuggingFaceTB/SmolLM2-135M-Instruct", "sentence-transformers/all-MiniLM-L6-v2"
PROMPTS, ONE_BY_ONE, BATCH, NEW_TOKENS, SIZE = 96, 16, 16, 48, 1000
STEPS, TRAINED_LAYERS, PASSAGES = 6, 16, 256


def examples(path: Path, count: int) -> list[dict[str, Any]]:
    """Return questions that have a clause, spread over the contracts, each with the passage that holds the clause."""
    found = []
    for contract in read_contracts(path):
        passages = cut_passages(contract.text, size=SIZE)
        for row in contract.rows:
            for passage in passages if row["answers"] else ():
                if passage.start <= (start := row["answers"][0]["start"]) < passage.end:
                    words = passage.text[start - passage.start :][: len(row["answers"][0]["text"])]
                    found.append({"question": row["question"], "passage": passage.text, "words": words})
    return found[:: max(1, len(found) // count)][:count]


def messages(example: dict[str, Any]) -> list[dict[str, str]]:
    """Return the prompt of one example."""
    told = "Answer with exact quotes from the passage, one a line."
    asked = f"Passage:\n{example['passage']}\n\nQuestion: {example['question']}"
    return [{"role": "system", "content": told}, {"role": "user", "content": asked}]


def timed(call: Callable[[], object]) -> float:
    """Return the seconds that a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def answers(some: Sequence[dict[str, Any]], folder: Path) -> Iterator[tuple[str, float]]:
    """Yield each way to answer the prompts with its rows a second."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    texts = [tokenizer.apply_chat_template(messages(e), tokenize=False, add_generation_prompt=True) for e in some]
    yield from transformers_answers(texts, folder, tokenizer)
    yield from openvino_answers(texts, folder)
    yield from engine_answers(some, folder)


def transformers_answers(texts: Sequence[str], folder: Path, tokenizer: Any) -> Iterator[tuple[str, float]]:
    """Yield the rows a second of transformers' `generate`, one prompt at a time and in padded batches."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.pad_token_id = tokenizer.eos_token_id

    def generate(batch: Sequence[str]) -> None:
        given = tokenizer(batch, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            model.generate(**given, max_new_tokens=NEW_TOKENS, do_sample=False)

    generate(texts[:2])
    few = texts[:: max(1, len(texts) // ONE_BY_ONE)][:ONE_BY_ONE]
    yield "transformers, one by one", len(few) / timed(lambda: [generate([text]) for text in few])
    batches = [texts[n : n + BATCH] for n in range(0, len(texts), BATCH)]
    yield f"transformers, batches of {BATCH}", len(texts) / timed(lambda: [generate(batch) for batch in batches])


def engine_answers(some: Sequence[dict[str, Any]], folder: Path) -> Iterator[tuple[str, float]]:
    """Yield the rows a second of cuadft's engine, in free text and held to quotes."""
    engine = LocalEngine(folder, batch_size=BATCH)
    lm = engine.lm(max_tokens=NEW_TOKENS)

    def ask(example: dict[str, Any], held: bool) -> object:
        given = {"response_format": quote_format(QuoteSource(example["passage"]))} if held else {}
        return lm(messages=messages(example), **given)

    def ask_all(asked: Sequence[dict[str, Any]], held: bool) -> list[object]:
        with ThreadPoolExecutor(len(asked)) as pool, engine.expect(len(asked)):
            return list(pool.map(ask, asked, [held] * len(asked)))

    for name, held in (("cuadft, free text", False), ("cuadft, held to quotes", True)):
        ask_all(some[:2], held)
        yield name, len(some) / timed(partial(ask_all, some, held))


def openvino_answers(texts: Sequence[str], folder: Path) -> Iterator[tuple[str, float]]:
    """Yield the rows a second of OpenVINO GenAI on the same weights, if it is installed."""
    try:
        import openvino_genai
    except ImportError:
        return
    from cuadft.review.export_gguf import write_gguf

    with tempfile.TemporaryDirectory() as work:
        write_gguf(folder, Path(work) / "model.gguf", "f16", name="model")
        pipe = openvino_genai.LLMPipeline(str(Path(work) / "model.gguf"), "CPU")
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens, config.do_sample, config.apply_chat_template = NEW_TOKENS, False, False
        pipe.generate(list(texts[:2]), config)
        yield "OpenVINO GenAI, F16", len(texts) / timed(lambda: pipe.generate(list(texts), config))


def trainings(some: Sequence[dict[str, Any]], folder: Path) -> Iterator[tuple[str, float]]:
    """Yield each way to train on the examples with its tokens a second, padding not counted."""
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    from cuadft.training import sft
    from cuadft.training.resume import completions_only

    rows = [{"prompt": messages(e), "completion": [{"role": "assistant", "content": e["words"]}]} for e in some]
    tuning = sft.Tuning(lora_layers=TRAINED_LAYERS, steps=STEPS, save_steps=10 * STEPS)
    with tempfile.TemporaryDirectory() as work:
        plain = {"use_cpu": True, "bf16": False, "max_steps": STEPS, "report_to": "none", "disable_tqdm": True}
        defaults = SFTConfig(work, **plain, per_device_train_batch_size=tuning.batch_size, max_length=None)
        ours = SFTConfig(**sft.common_settings(Path(work), tuning), train_sampling_strategy="group_by_length")
        for name, settings, made_faster in (("TRL's defaults, LoRA", defaults, False), ("cuadft", ours, True)):
            model = sft.load_trainable(folder, None, tuning)
            every = LoraConfig(task_type="CAUSAL_LM", target_modules=list(sft.LINEAR_LAYERS))
            peft = sft.lora_config(tuning, model.config) if made_faster else every
            given = model, sft.load_tokenizer(folder), settings, rows, "prompt", "completion"
            trainer = sft.build_trainer(SFTTrainer, *given, peft_config=peft)
            with completions_only() if made_faster else nullcontext():
                seconds = timed(trainer.train)
            yield name, max(entry.get("num_tokens", 0) for entry in trainer.state.log_history) / seconds


def embeddings(path: Path, folder: Path) -> Iterator[tuple[str, float]]:
    """Yield each way to embed passages with its passages a second."""
    from sentence_transformers import SentenceTransformer

    from cuadft.retrieval.embedder import Embedder

    texts = [p.text for contract in read_contracts(path) for p in cut_passages(contract.text, size=SIZE)][:PASSAGES]
    model = SentenceTransformer(str(folder), device="cpu")
    model.encode(texts[:4])
    yield "sentence-transformers", len(texts) / timed(lambda: model.encode(texts, normalize_embeddings=True))
    with tempfile.TemporaryDirectory() as work:
        embedder = Embedder(folder, cache_dir=Path(work))
        embedder.encode(texts[:4])
        yield "cuadft, nothing cached", (len(texts) - 4) / timed(lambda: embedder.encode(texts))
        yield "cuadft, all cached", len(texts) / timed(lambda: embedder.encode(texts))


def measure(path: Path) -> pd.DataFrame:
    """Return a table: task, way, rate, unit, and the rate as a multiple of the last way's, which is cuadft's."""
    some, rows = examples(path, PROMPTS), []
    tasks = {
        ("answers", "rows a second"): lambda: answers(some, find_weights(MODEL)),
        ("SFT", "tokens a second"): lambda: trainings(some, find_weights(MODEL)),
        ("embedding", "passages a second"): lambda: embeddings(path, find_weights(EMBEDDER)),
    }
    for (task, unit), run in tasks.items():
        for way, rate in run():
            print(f"{task}: {way}: {rate:.2f} {unit}", flush=True)
            rows.append({"task": task, "way": way, "rate": rate, "unit": unit})
    return pd.DataFrame(rows)


def main() -> None:
    """Measure, print the table, and keep it with the machine and its load."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cuad", nargs="?", type=Path, default=SAMPLE)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    load, processor = os.getloadavg()[0], re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    table = measure(given.cuad)
    base = table[table["way"].str.startswith("cuadft")].groupby("task", sort=False)["rate"].first()
    table["against cuadft"] = table["rate"] / table["task"].map(base)
    print(table.round(2).to_string(index=False))
    about = {
        "date": datetime.date.today().isoformat(),
        "processor": processor[1].strip() if processor else "unknown",
        "threads": os.cpu_count(),
        "load before": load,
        "contracts": "sample" if given.cuad == SAMPLE else given.cuad.name,
    }
    print(json.dumps(about))
    if given.out:
        files.write_json(given.out, about | {"rates": table.to_dict("records")})


if __name__ == "__main__":
    main()
