"""QLoRA: the base in 4 bits, an adapter in full precision, on a CPU as well."""

from __future__ import annotations

from pathlib import Path

import pytest
import small

from cuadft.models.local import LocalEngine
from cuadft.rag.training_rows import prompt_completions
from cuadft.training import sft

pytest.importorskip("bitsandbytes", reason="an extra: pip install -e '.[gpu]'")
pytestmark = pytest.mark.slow


def test_a_base_in_four_bits_is_trained_on_and_its_adapter_answers(tmp_path: Path, tiny: Path) -> None:
    tuning = sft.Tuning(mode="qlora", lora_r=2, lora_alpha=4, batch_size=4, epochs=2, learning_rate=2e-2)
    model = sft.load_trainable(tiny, None, tuning)
    assert {type(model.get_submodule(f"model.layers.0.self_attn.{n}_proj")).__name__ for n in "qkvo"} == {"Linear4bit"}
    rows = prompt_completions(small.program(), small.ROWS, size=0, impossible_share=0.25, seed=1)[0]
    losses = [e["loss"] for e in sft.train_sft(tiny, "tiny", rows, tmp_path / "sft", tuning=tuning) if "loss" in e]
    assert len(losses) == 8 and losses[-1] < losses[0]
    engine = LocalEngine(tiny, adapters={"sft": tmp_path / "sft"})
    prompt = rows[0]["prompt"]
    given, tuned = (
        engine.generator.generate([engine.tokenize(prompt)], adapter=name, max_tokens=8, logprobs=True)[0]
        for name in ("", "sft")
    )
    assert given.logprobs != tuned.logprobs
