"""A GGUF file holds the numbers, the words and the template of the model that it was written from."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cuadft.review import export_gguf

TEXT = "The fee is $12,345.67 — “net”  of taxes,\n\nSection 4.2(b)\t<|im_end|> naïve 合同 \U0001d4d0"


@pytest.fixture(scope="module", params=["f16", "q8_0"])
def written(request, tiny, tmp_path_factory):
    """Return the folder of a GGUF file, its name, and how far a number may be from that of the model."""
    folder = tmp_path_factory.mktemp("gguf")
    export_gguf.write_gguf(tiny, folder / "tiny.gguf", request.param, name="a name")
    return folder, "tiny.gguf", {"f16": 1e-3, "q8_0": 1e-2}[request.param]


def test_transformers_reads_the_numbers_back(written, tiny):
    from transformers import AutoModelForCausalLM, GgufConfig

    folder, name, near = written
    unpacked = {"gguf_file": name, "quantization_config": GgufConfig(dequantize=True), "dtype": "float32"}
    read = AutoModelForCausalLM.from_pretrained(folder, **unpacked)
    own = AutoModelForCausalLM.from_pretrained(tiny, dtype="float32")
    assert read.state_dict().keys() == own.state_dict().keys()
    for key, values in own.state_dict().items():
        assert np.allclose(read.state_dict()[key], values, atol=near), key
    settings = ("num_attention_heads", "num_key_value_heads", "max_position_embeddings", "head_dim")
    assert [getattr(read.config, name) for name in settings] == [getattr(own.config, name) for name in settings]


def test_transformers_reads_the_words_and_the_template_back(written, tiny):
    from transformers import AutoTokenizer

    read, own = AutoTokenizer.from_pretrained(written[0], gguf_file=written[1]), AutoTokenizer.from_pretrained(tiny)
    assert read(TEXT)["input_ids"] == own(TEXT)["input_ids"] and read.chat_template == own.chat_template
    assert (read.eos_token, read.bos_token) == (own.eos_token, own.bos_token)


@pytest.mark.parametrize("form", ["f16", "q8_0"])
def test_llama_cpp_gives_the_same_next_words(tiny, tmp_path, form):
    llama_cpp = pytest.importorskip("llama_cpp")
    from cuadft.models.local import LocalEngine

    export_gguf.write_gguf(tiny, tmp_path / "tiny.gguf", form, name="a name")
    engine = LocalEngine(tiny, dtype="float32")
    tokens = engine.tokenizer(TEXT)["input_ids"]
    llama = llama_cpp.Llama(str(tmp_path / "tiny.gguf"), n_ctx=256, verbose=False)
    assert llama.tokenize(TEXT.encode(), add_bos=False, special=True) == tokens
    (made,) = engine.generator.generate([tokens], max_tokens=16)
    written = [token for token, _ in zip(llama.generate(tokens, temp=0.0, repeat_penalty=1.0), range(16))]
    assert written[: len(made.tokens)] == made.tokens


@given(heads=st.integers(1, 8), half=st.integers(1, 8), columns=st.integers(1, 5))
def test_each_half_of_a_head_meets_its_other_half(heads, half, columns):
    rows = heads * 2 * half
    values = np.arange(rows * columns, dtype=np.float32).reshape(rows, columns)
    turned = export_gguf._interleaved(values, heads)
    for head in range(heads):
        own, new = (part[head * 2 * half : (head + 1) * 2 * half] for part in (values, turned))
        assert np.array_equal(new[0::2], own[:half]) and np.array_equal(new[1::2], own[half:])


CHANGES = [
    ({"model_type": "gpt2"}, {}, "gpt2"),
    ({"attention_bias": True}, {}, "biases"),
    ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5}}, {}, "llama3"),
    ({}, {"normalizer": {"type": "NFC"}}, "no name in llama.cpp"),
    ({}, {"pre_tokenizer": {"type": "Whitespace"}}, "no name in llama.cpp"),
    ({}, {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True, "use_regex": True}}, "no name in llama.cpp"),
]


@pytest.mark.parametrize(("config", "tokenizer", "why"), CHANGES)
def test_what_llama_cpp_would_read_otherwise_is_refused(tiny, tmp_path, config, tokenizer, why):
    folder = shutil.copytree(tiny, tmp_path / "model")
    assert export_gguf.unsupported(folder) == ""
    for name, changes in (("config.json", config), ("tokenizer.json", tokenizer)):
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    assert why in export_gguf.unsupported(folder)


def test_the_modelfile_asks_greedily_with_the_instructions_and_examples_of_the_program():
    messages = [("system", "Quote."), ("user", 'Passage: """A"""'), ("assistant", "A")]
    made = [{"role": role, "content": text} for role, text in messages]
    text = export_gguf.modelfile("x-q8_0.gguf", made, max_tokens=64, context=8192)
    assert text.startswith("FROM ./x-q8_0.gguf\n") and 'SYSTEM """Quote."""' in text
    assert "MESSAGE user \"\"\"Passage: '''A'''\"\"\"" in text and 'MESSAGE assistant """A"""' in text
    for line in ("temperature 0", "repeat_penalty 1.0", "num_predict 64", "num_ctx 8192", 'stop "<|im_end|>"'):
        assert f"PARAMETER {line}" in text


def test_only_a_chatml_template_gets_a_modelfile(tiny):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    assert export_gguf.is_chatml(tokenizer)
    tokenizer.chat_template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
    assert not export_gguf.is_chatml(tokenizer)
