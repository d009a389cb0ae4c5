"""Model folders from elsewhere: only safetensors, settings and vocabularies are used, never code or pickled weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cuadft.errors import InputError

PICKLED = ("pytorch_model*.bin", "adapter_model*.bin")  # not the trainer's own .bin files, which nobody loads
OWN_MODULES = "sentence_transformers."  # the package whose classes modules.json may name


def checked(folder: Path) -> Path:
    """Return a model or adapter folder that can be loaded without running anything in it.

    Raises InputError if weights are there only as a pickle (.bin), if its settings need code of their own (a class in
    modules.json that is none of sentence-transformers', or an "auto_map" for a model that transformers doesn't know),
    or if they are damaged.
    """
    folder = Path(folder)
    modules = [module for module in _json(folder / "modules.json", []) if isinstance(module, dict)]
    for place in {folder, *(folder / str(module.get("path", "")) for module in modules)}:
        refuse_pickles(place)
    for kind in (str(module.get("type", "")) for module in modules):
        if not kind.startswith(OWN_MODULES):
            raise _own_code(folder, f"modules.json names the class {kind!r}")
    config = _json(folder / "config.json", {})
    if isinstance(config, dict) and config.get("auto_map") and not _known(config.get("model_type")):
        raise _own_code(folder, f"config.json names model code ({str(config['auto_map'])[:80]})")
    return folder


def refuse_pickles(folder: Path) -> None:
    """Raise InputError if a folder holds weights as a pickle (.bin) and none as safetensors."""
    pickled = [path for pattern in PICKLED for path in folder.glob(pattern)]
    if pickled and not any(folder.glob("*.safetensors")):
        raise InputError(f"{folder} holds its weights only as {pickled[0].name}, a pickle, which can run code when it is "
                         "loaded: save the model again as safetensors (save_pretrained does), or choose another one.")


def _known(model_type: object) -> bool:
    from transformers import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING


def _json(path: Path, missing: Any) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else missing
    except ValueError as error:
        raise InputError(f"{path} is not valid JSON ({error}): save or fetch the model again.") from error


def _own_code(folder: Path, reason: str) -> InputError:
    return InputError(f"The model in {folder} needs code of its own, which is never run: {reason}. Choose a model that "
                      "transformers or sentence-transformers holds itself.")
