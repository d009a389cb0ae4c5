"""The Hugging Face hub: ask whether it answers, and get a model's files with their weights checked."""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from pathlib import Path
from typing import Any

from cuadft.errors import InputError
from cuadft.files import file_hash

TIMEOUT = 10.0  # seconds that an unreachable hub may cost
RETRY = 900.0  # seconds during which an unreachable hub is not asked again
FILES: dict[str, Any] = {"allow_patterns": ["*.json", "*.safetensors", "*.txt", "*.jinja", "*.model"],
                         "ignore_patterns": ["onnx/*", "openvino/*"]}


def endpoint() -> str:
    """Return the hub's address: HF_ENDPOINT, else huggingface.co."""
    return os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")


def reachable(notes: Path) -> bool:
    """Ask the hub once; an unreachable one is noted in the folder `notes`, so that it costs its time-out once."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    marker = notes / f"unreachable-{hashlib.sha256(endpoint().encode()).hexdigest()[:12]}"
    if marker.is_file() and time.time() - marker.stat().st_mtime < RETRY:
        return False
    if _answers():
        return True
    with contextlib.suppress(OSError):  # without the note, the next call asks again
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
    return False


def _answers() -> bool:
    import requests

    replies: list[int] = []

    def ask() -> None:
        with contextlib.suppress(requests.RequestException):
            reply = requests.head(f"{endpoint()}/api/models", timeout=TIMEOUT / 2, allow_redirects=False)
            replies.append(reply.status_code)

    # in a thread, since the time-out of requests covers neither the look-up of a name nor all of a host's addresses together
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(TIMEOUT)
    return bool(replies) and replies[0] < 500 and replies[0] not in (403, 407)  # those are a proxy's refusals


def download(model: str) -> Path:
    """Return the folder of a model's files, fetched once; raises InputError if they cannot be had or fail their check."""
    import httpx
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = Path(snapshot_download(model, **FILES))
    except (OSError, httpx.HTTPError, HFValidationError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"Model '{model}' cannot be had from {endpoint()}: {reason} Check the id; a gated model needs "
                         "HF_TOKEN in the environment.") from error
    return _checked(folder, model)


def cached(model: str, *, check: bool = True) -> Path | None:
    """Return the folder of a model that the hub's own cache holds whole, None if it does not; asks no network.

    check: read the weights, and raise InputError if they are not those that the hub gave.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(model, local_files_only=True, **FILES))
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    return _checked(folder, model) if check else folder


def _checked(folder: Path, model: str) -> Path:
    for path in sorted(folder.rglob("*.safetensors")):
        blob = path.resolve()
        if len(blob.name) == 64 and (actual := file_hash(blob)) != blob.name:  # large files are named by their SHA-256
            raise InputError(f"{path.name} of '{model}' has SHA-256 {actual}, the hub says {blob.name}: delete {blob} and "
                             "try again.")
    return folder
