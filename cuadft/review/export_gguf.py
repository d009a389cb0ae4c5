"""Write a Llama model as GGUF, for llama.cpp and Ollama, and the Modelfile that makes Ollama ask as a run does.

    reason = unsupported(folder)                             # "" where a GGUF of this model can be written
    write_gguf(folder, Path("sft-q8_0.gguf"), "q8_0", name="sft")

The weights are read from safetensors one tensor at a time. The tokenizer's words, merges, marks and chat template go
into the same file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.core import files

if TYPE_CHECKING:
    import numpy as np
    from gguf import GGUFWriter

FORMATS = {"f16": "MOSTLY_F16", "q8_0": "MOSTLY_Q8_0"}  # with gguf's names of the file types
# How llama.cpp calls the ways in which a byte-level tokenizer cuts a text before it looks for words.
USUAL = {"ByteLevel": {"add_prefix_space": False, "use_regex": True}, "Digits": {"individual_digits": True}}
CUTS = {("ByteLevel",): "gpt-2", ("Digits", "ByteLevel"): "smollm"}
CHATML = (
    "{{ if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}"
    "{{ if .Prompt }}<|im_start|>user\n{{ .Prompt }}<|im_end|>\n{{ end }}"
    "<|im_start|>assistant\n{{ .Response }}<|im_end|>\n"
)


def unsupported(folder: Path) -> str:
    """Return why no GGUF of the model in a folder can be written, "" if one can.

    Supported is the Llama architecture (SmolLM2) without biases and with plain rotary positions, with a byte-level BPE
    tokenizer: what is tested against llama.cpp.
    """
    config = files.read_json(folder / "config.json")
    rotary = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if config.get("model_type") != "llama":
        return f"the architecture {config.get('model_type')!r} is not supported, only llama is"
    if config.get("attention_bias") or config.get("mlp_bias"):
        return "its layers have biases"
    if rotary.get("rope_type", "default") != "default":
        return f"its rotary positions are scaled ({rotary['rope_type']})"
    if not (folder / "tokenizer.json").is_file():
        return "it has no tokenizer.json"
    tokenizer = files.read_json(folder / "tokenizer.json")
    if tokenizer["model"]["type"] != "BPE" or tokenizer.get("normalizer") or _cut(tokenizer) not in CUTS:
        return "its tokenizer cuts a text in a way that has no name in llama.cpp"
    return ""


def write_gguf(folder: Path, path: Path, form: str, *, name: str) -> None:
    """Write the model and tokenizer of a folder as one GGUF file; form: "f16" or "q8_0" (see `FORMATS`).

    Norms stay in 32 bits. A matrix whose rows are no multiple of 32 numbers stays in 16 bits in q8_0.
    """
    import gguf

    config = files.read_json(folder / "config.json")
    with closing(gguf.GGUFWriter(path, "llama")) as writer, ExitStack() as opened:
        writer.add_name(name)
        writer.add_file_type(getattr(gguf.LlamaFileType, FORMATS[form]))
        _add_sizes(writer, config)
        _add_tokenizer(writer, folder, config["vocab_size"])
        tensors = [(*found, _kind(found[1], form)) for found in _tensors(folder, config, opened)]
        for named, shape, _, kind in tensors:
            _announce(writer, named, shape, kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, _, read, kind in tensors:
            writer.write_tensor_data(gguf.quants.quantize(read(), kind))


def modelfile(gguf: str, messages: Sequence[Mapping[str, str]], *, max_tokens: int, context: int) -> str:
    """Return an Ollama Modelfile for a ChatML model that answers greedily, as a run does.

    gguf: the file's name beside it. messages: the program's instructions, then its examples. max_tokens: of an answer.
    context: of prompt and answer, in tokens.
    """
    settings = {"temperature": 0, "seed": 0, "repeat_penalty": 1.0, "num_predict": max_tokens, "num_ctx": context}
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{CHATML}"""']
    for message in messages:
        word = "SYSTEM" if message["role"] == "system" else f"MESSAGE {message['role']}"
        lines.append(f'{word} """{message["content"].replace(chr(34) * 3, chr(39) * 3)}"""')
    lines += [f"PARAMETER {key} {value}" for key, value in settings.items()]
    return "\n".join([*lines, 'PARAMETER stop "<|im_end|>"', ""])


def is_chatml(tokenizer: Any) -> bool:
    """Tell whether a tokenizer's chat template writes a conversation as `CHATML` does."""
    turns = [("system", "A"), ("user", "B"), ("assistant", "C"), ("user", "D")]
    written = "".join(f"<|im_start|>{role}\n{text}<|im_end|>\n" for role, text in turns) + "<|im_start|>assistant\n"
    messages = [{"role": role, "content": text} for role, text in turns]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False) == written


def _cut(tokenizer: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the steps by which a tokenizer.json cuts a text; one with other settings than usual is marked."""
    step = tokenizer.get("pre_tokenizer") or {"type": "none"}
    steps = step.get("pretokenizers", [step])
    return tuple(each["type"] + "*" * (not USUAL.get(each["type"], {}).items() <= each.items()) for each in steps)


def _add_sizes(writer: GGUFWriter, config: Mapping[str, Any]) -> None:
    heads = config["num_attention_heads"]
    width = config.get("head_dim") or config["hidden_size"] // heads
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(config.get("num_key_value_heads") or heads)
    for add in (writer.add_key_length, writer.add_value_length, writer.add_rope_dimension_count):
        add(width)
    writer.add_rope_freq_base((config.get("rope_parameters") or config).get("rope_theta", 10000.0))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])


def _add_tokenizer(writer: GGUFWriter, folder: Path, size: int) -> None:
    """Add words, merges, marks and the chat template; a vocabulary smaller than the model's is filled up."""
    import gguf

    tokenizer = files.read_json(folder / "tokenizer.json")
    words, kinds = [f"[PAD{number}]" for number in range(size)], [gguf.TokenType.UNUSED] * size
    for word, number in tokenizer["model"]["vocab"].items():
        words[number], kinds[number] = word, gguf.TokenType.NORMAL
    for token in tokenizer["added_tokens"]:
        kind = gguf.TokenType.CONTROL if token["special"] else gguf.TokenType.USER_DEFINED
        words[token["id"]], kinds[token["id"]] = token["content"], kind
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(CUTS[_cut(tokenizer)])
    writer.add_token_list(words)
    writer.add_token_types(kinds)
    special = gguf.SpecialVocab(folder, load_merges=True, n_vocab=size)
    special.add_special_token = {"bos": False}  # the chat template writes every mark
    special.add_to_gguf(writer, quiet=True)


def _tensors(folder: Path, config: Mapping[str, Any], opened: ExitStack) -> list[tuple[str, tuple[int, ...], Any]]:
    """Return name in GGUF, shape, and a function that reads the tensor as float32, for each tensor of a model."""
    import gguf
    from safetensors import safe_open

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = config["num_attention_heads"]
    turned = {"q_proj": heads, "k_proj": config.get("num_key_value_heads") or heads}

    def reader(weights: Any, name: str) -> Any:
        parts = turned.get(name.split(".")[-2])
        return lambda: _interleaved(weights.get_tensor(name).float().numpy(), parts)

    files_ = [opened.enter_context(safe_open(path, "pt")) for path in sorted(folder.glob("*.safetensors"))]
    held = [(weights, name) for weights in files_ for name in weights.keys()]  # noqa: SIM118 (no dict)
    return [
        (
            names.get_name(name, try_suffixes=(".weight",)),
            tuple(weights.get_slice(name).get_shape()),
            reader(weights, name),
        )
        for weights, name in held
        if not (name == "lm_head.weight" and config.get("tie_word_embeddings"))
    ]


def _interleaved(values: np.ndarray, heads: int | None) -> np.ndarray:
    """Return the rows of a query or key matrix in llama.cpp's order: it turns neighbours, transformers turns halves."""
    if not heads:
        return values
    rows, columns = values.shape
    return values.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _kind(shape: tuple[int, ...], form: str) -> Any:
    from gguf import GGMLQuantizationType as Kind

    if len(shape) == 1:
        return Kind.F32
    return Kind.Q8_0 if form == "q8_0" and shape[-1] % 32 == 0 else Kind.F16


def _announce(writer: GGUFWriter, name: str, shape: tuple[int, ...], kind: Any) -> None:
    """Add the name, shape and format of a tensor, whose numbers follow later."""
    import gguf
    import numpy as np

    dtype = np.dtype({"F32": np.float32, "F16": np.float16}.get(kind.name, np.uint8))
    held = gguf.quant_shape_to_byte_shape(shape, kind) if dtype == np.uint8 else shape
    writer.add_tensor_info(name, held, dtype, int(np.prod(held)) * dtype.itemsize, raw_dtype=kind)
