"""Models of other families: what is sent in inference is what was trained on, thoughts are off, padding is found."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from architectures import make_llama3, make_qwen3
from transformers import AutoTokenizer

from cuadft.models.generator import load_tokenizer
from cuadft.models.local import LocalEngine
from cuadft.models.verbatim import QuoteSource
from cuadft.training import sft

pytestmark = pytest.mark.slow
PASSAGE = "This Agreement is governed by the laws of Ohio. Neither party may assign it."
PROMPT = [{"role": "system", "content": "Quote."}, {"role": "user", "content": PASSAGE}]
ROWS = [
    {"id": str(n), "prompt": PROMPT, "completion": [{"role": "assistant", "content": words}]}
    for n, words in enumerate(("the laws of Ohio", "Neither party may assign it"))
]
EMPTY_THOUGHT = "<think>\n\n</think>\n\n"


@pytest.fixture(scope="module", params=[make_qwen3, make_llama3])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return request.param(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(autouse=True)
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sft, "best_dtype", lambda: torch.float32)


def trainer(folder: Path, work: Path):
    from trl import SFTConfig, SFTTrainer

    tuning = sft.Tuning(lora_r=2, lora_alpha=4, batch_size=2, steps=1)
    config = SFTConfig(**sft.common_settings(work, tuning), max_length=None)
    model = sft.load_trainable(folder, None, tuning)
    given = model, load_tokenizer(folder), config, ROWS, "prompt", "completion"
    return sft.build_trainer(SFTTrainer, *given, peft_config=sft.lora_config(tuning, model.config))


def test_training_and_inference_send_the_same_prompt_and_learn_the_words_alone(family: Path, tmp_path: Path) -> None:
    engine = LocalEngine(family, dtype="float32")
    sent = engine.tokenize(PROMPT)
    for row, made in zip(ROWS, trainer(family, tmp_path).train_dataset, strict=True):
        learned = [token for token, label in zip(made["input_ids"], made["labels"], strict=True) if label != -100]
        assert made["input_ids"][: len(sent)] == sent and made["input_ids"][len(sent) :] == learned
        words = engine.tokenizer.decode(learned)
        assert words.rstrip() == row["completion"][0]["content"] + engine.tokenizer.eos_token


def test_every_linear_layer_is_trained_and_the_tuned_model_answers(family: Path, tmp_path: Path) -> None:
    made = trainer(family, tmp_path / "work")
    tuned = [name.split(".lora_")[0] for name, values in made.model.named_parameters() if values.requires_grad]
    assert {name.rsplit(".", 1)[1] for name in tuned} == set(sft.LINEAR_LAYERS)
    made.train()
    made.model.save_pretrained(tmp_path / "sft")
    engine = LocalEngine(family, dtype="float32")
    engine.generator.add_adapter("sft", tmp_path / "sft")
    prompts = [engine.tokenize(PROMPT), engine.tokenize([PROMPT[0] | {"content": "Quote one."}, PROMPT[1]])]
    source = QuoteSource(PASSAGE)
    for answer in engine.generator.generate(prompts, adapter="sft", max_tokens=40, sources=[source] * 2):
        lines = engine.generator.vocabulary.spell(answer.tokens).splitlines()
        assert lines and all(line in PASSAGE for line in lines[:-1])


def test_thoughts_are_off_where_a_template_has_the_switch_and_other_templates_stay(tmp_path: Path, tiny: Path) -> None:
    folder = make_qwen3(tmp_path / "qwen3")
    quiet, plain = load_tokenizer(folder), AutoTokenizer.from_pretrained(folder)
    options = {"tokenize": False, "add_generation_prompt": True}
    told = plain.apply_chat_template(PROMPT, enable_thinking=False, **options)
    assert quiet.apply_chat_template(PROMPT, **options) == told and told.endswith(EMPTY_THOUGHT)
    assert not plain.apply_chat_template(PROMPT, **options).endswith(EMPTY_THOUGHT)
    quiet.save_pretrained(tmp_path / "saved")  # as an export does
    assert load_tokenizer(tmp_path / "saved").chat_template == quiet.chat_template
    assert load_tokenizer(tiny).chat_template == AutoTokenizer.from_pretrained(tiny).chat_template
