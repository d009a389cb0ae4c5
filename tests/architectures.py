"""Random models of the presets' architectures, with small sizes: Qwen3 that may think, Llama 3 with headers of its own.

Both have the byte-level tokenizer of the tiny model, with the special tokens and the chat template of their family.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen3Config, Qwen3ForCausalLM

from cuadft.models.weights import find_weights

SIZES = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "max_position_embeddings": 8192}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2}
# As Qwen3's: the last answer gets a thought, an empty one if it brings none, and a prompt only with thinking off.
QWEN3_TEMPLATE = """{%- for message in messages -%}
{{- '<|im_start|>' + message.role + '\\n' -}}
{%- if message.role == 'assistant' and loop.last -%}
{{- '<think>\\n' + message.get('reasoning_content', '') + '\\n</think>\\n\\n' -}}
{%- endif -%}
{{- message.content + '<|im_end|>\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' -}}
{%- if enable_thinking is defined and enable_thinking is false -%}{{- '<think>\\n\\n</think>\\n\\n' -}}{%- endif -%}
{%- endif -%}"""
LLAMA3_TEMPLATE = """{{- bos_token -}}
{%- for message in messages -%}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}{%- endif -%}"""


def make_qwen3(folder: Path) -> Path:
    """Write a random Qwen3 of two layers, whose end mark is <|im_end|> and whose padding is <|endoftext|>."""
    tokenizer = _tokenizer(QWEN3_TEMPLATE, bos_token=None)
    config = Qwen3Config(vocab_size=len(tokenizer), head_dim=16, tie_word_embeddings=True, **SIZES, **HEADS)
    return _save(Qwen3ForCausalLM, config, tokenizer, folder)


def make_llama3(folder: Path) -> Path:
    """Write a random Llama of two layers with Llama 3's marks, which has no token for padding."""
    names = ["<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]
    tokenizer = _tokenizer(LLAMA3_TEMPLATE, names, bos_token=names[0], eos_token=names[3], pad_token=None)
    config = LlamaConfig(vocab_size=len(tokenizer), rope_theta=500_000.0, **SIZES, **HEADS)
    return _save(LlamaForCausalLM, config, tokenizer, folder)


def _tokenizer(template: str, added: list[str] | None = None, **marks: str | None) -> Any:
    tokenizer = AutoTokenizer.from_pretrained(find_weights("tiny"))
    tokenizer.add_special_tokens({"additional_special_tokens": added or []})
    for name, value in marks.items():
        setattr(tokenizer, name, value)
    tokenizer.chat_template = template
    return tokenizer


def _save(kind: Any, config: Any, tokenizer: Any, folder: Path) -> Path:
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        kind(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
