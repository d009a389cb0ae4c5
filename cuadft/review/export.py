"""Take a system out of a run: its weights in three forms, its prompt, search and confidence, and a model card.

    done = export_system("runs/quickstart", "out")      # the champion; or system="sft"
    push(done.folder, "owner/name")                     # to the hub, with the token of the environment

The folder holds README.md (the card, which says what each file is for), model/ (merged weights), adapter/, gguf/,
program.json, confidence.json, retriever/ and export.json (what was exported, with the SHA-256 of each file). It is
built beside its place and moved there whole.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cuadft.core import files, runs
from cuadft.core.errors import InputError, brief
from cuadft.review import export_card, export_check, export_gguf

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from cuadft.rag.systems import System

NOTE = "export.json"  # in the folder, written last
LAYOUT = 1  # of the folder; another number makes an earlier export out of date
NOT_NEEDED = shutil.ignore_patterns("rows.jsonl", "training.json", ".*.tmp")  # of the retriever's folder
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model")
NOTES_OF_RUN = ("source.json", "base.json", "training.json")  # beside a model's files; they mean nothing elsewhere
GROWTH = 4  # an export takes at most so many times the bytes of the base model: in 32 bits, in 16 and in 8


@dataclass(frozen=True)
class Exported:
    """A finished export: its folder, the system's label, what there is to say about it, and whether it is new."""

    folder: Path
    system: str
    notes: tuple[str, ...]
    new: bool = True


def export_system(
    run_dir: str | Path,
    to: str | Path,
    *,
    system: str = "",
    iteration: int | None = None,
    replace: bool = False,
    check: int = 20,
    log: Callable[[str], object] = print,
) -> Exported:
    """Write a system of a run to a folder of its own.

    system: "" for the champion. iteration: whose system, by default the newest. check: how many prompts of the run's
    test questions the exported weights answer beside those of the run; 0 for none. A folder that holds this very export
    already is left as it is. Raises InputError if the folder holds anything else, unless `replace` is given and all in
    it belongs to an earlier export.
    """
    from cuadft.rag import systems

    if check < 0:
        raise InputError(f"Invalid check {check}: give the number of prompts to compare, 0 for none.")
    found, name = systems.asked_system(runs.resolve_path(run_dir), system, iteration)
    made, folder = systems.recorded_system(found, name), Path(to).expanduser().resolve()
    source, key = export_card.read_source(made, found), _key(made, found)
    if _is_there(folder, key, replace):
        return Exported(folder, source.label, tuple(files.read_json(folder / NOTE)["notes"]), new=False)
    with _scratch(folder) as scratch:
        log(f"Write {source.label} ...")
        notes = _write_parts(made, source, scratch)
        if check and (scratch / "model").is_dir():
            log(f"Compare answers to {check} test prompts ...")
            notes += export_check.agreement(made, source, scratch, check)
        files.write_text(scratch / "README.md", export_card.card(source, notes))
        about = {"layout": LAYOUT, "key": key, "run": found.run.name, "system": source.label, "notes": notes}
        files.write_json(scratch / NOTE, about | {"files": _hashes(scratch)})
    return Exported(folder, source.label, tuple(notes))


def hub(repo: str) -> HfApi:
    """Return the hub's interface for a push; raises InputError on a malformed name, offline and without a token."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    from cuadft.models.weights import hub_endpoint

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"Invalid --push {repo!r} ({error}): give owner/name.") from None
    if "/" not in repo:
        raise InputError(f"Invalid --push {repo!r}: give owner/name, such as acme/{repo}.")
    if constants.HF_HUB_OFFLINE:
        raise InputError("--push needs the hub, and HF_HUB_OFFLINE forbids it: unset it.")
    if not os.environ.get("HF_TOKEN"):
        raise InputError("--push needs a token that may write: set HF_TOKEN in the environment.")
    return HfApi(endpoint=hub_endpoint(), token=os.environ["HF_TOKEN"])


def push(folder: Path, repo: str) -> str:
    """Upload an exported folder to a repository of the hub, which is made private if it is new; return its address.

    Raises InputError as `hub` does, and if the hub refuses or fails; the same call then goes on.
    """
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    api = hub(repo)
    try:
        api.create_repo(repo, private=True, exist_ok=True)
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message="Export of cuadft")
    except (HfHubHTTPError, httpx.HTTPError, OSError, RuntimeError, ValueError) as error:
        raise InputError(
            f"{repo} did not take the export ({brief(error).splitlines()[0]}): check the name and the token's rights. "
            f"{folder} is complete; the same command goes on from there."
        ) from error
    return f"{api.endpoint}/{repo}"


# --- the folder


def _key(made: System, iteration: runs.Iteration) -> str:
    """Return a hash of all that an export is made of: the system's parts and what the card tells of them."""
    parts = [iteration.run / made.record[name] for name in ("program", "weights", "retriever") if made.record[name]]
    parts += [made.calibration] if made.calibration else []
    parts += [iteration.path(name) for name in ("scoreboard.csv", runs.DECISION, runs.BY_HAND)]
    hashes = [files.file_hash(path) if path.exists() else None for path in parts]
    return files.value_hash([LAYOUT, made.record, made.lm.model.partition("+")[0], hashes])


def _is_there(folder: Path, key: str, replace: bool) -> bool:
    """Tell whether a folder holds this export whole; raises InputError if it may not be written to."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder.")
    if not folder.exists() or not any(folder.iterdir()):
        return False
    note = files.read_json(folder / NOTE) if (folder / NOTE).is_file() else {}
    known = note.get("files", {}) if isinstance(note, dict) else {}
    stray = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - {NOTE, *known}
    if not known or stray:
        named = f" (such as {min(stray)})" if stray else ""
        raise InputError(f"{folder} holds files that are no part of an export{named}: choose another folder.")
    if replace:
        return False
    if note.get("key") != key or _hashes(folder) != known:
        raise InputError(f"{folder} holds another export, or a damaged one: choose another folder, or --replace it.")
    return True


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside a folder, which takes its place at the end; an error leaves everything as it was."""
    scratch, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("exporting", "replaced"))
    scratch.mkdir(parents=True, exist_ok=True)
    lock = os.open(scratch, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise InputError(f"Another export is writing {folder}: wait for it, or choose another folder.") from None
    try:
        for left in scratch.iterdir():  # of an export that was killed
            shutil.rmtree(left) if left.is_dir() else left.unlink()
        yield scratch
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            os.replace(folder, old)
        os.replace(scratch, folder)
    finally:
        for left in (scratch, old):
            shutil.rmtree(left, ignore_errors=True)
        os.close(lock)


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of an export but its note, by its path."""
    held = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / NOTE)
    return {path.relative_to(folder).as_posix(): files.file_hash(path) for path in held}


# --- its parts


def _write_parts(made: System, source: export_card.Source, folder: Path) -> list[str]:
    """Write prompt, search, confidence and weights; return what there is to say about them."""
    from cuadft.models.local import LocalEngine
    from cuadft.rag.program import save_program

    searched = source.record["retriever"]
    retriever = source.asked.run / searched if searched else source.asked.path("retriever")
    engine: Any = getattr(made.lm, "engine", None)
    base = sorted(engine.path.glob("*.safetensors")) if isinstance(engine, LocalEngine) else []
    needed = sum(p.stat().st_size for p in [*retriever.rglob("*"), *base * GROWTH])
    if (free := shutil.disk_usage(folder).free) < needed:
        told = f"{folder.parent} has {free / 1e6:.0f} MB free, and the export may need {needed / 1e6:.0f} MB"
        raise InputError(f"{told}: make room, or choose a folder on another disk.")
    save_program(made.program, folder / "program.json")
    shutil.copytree(retriever, folder / "retriever", ignore=NOT_NEEDED)
    if made.calibration and made.calibration.is_file():
        shutil.copyfile(made.calibration, folder / "confidence.json")
    if not base:
        return [f"{source.label} is answered by {made.lm.model}, an API model: there are no weights to export."]
    _write_model(engine.path, engine.adapters.get(made.name), source.base, folder)
    return _write_gguf(made, source, folder)


def _write_model(base: Path, adapter: Path | None, base_id: str, folder: Path) -> None:
    """Write model/ and adapter/; merged weights have 32 bits, since a small change is lost in 16."""
    from cuadft.models.generator import Generator

    if adapter is None:
        (folder / "model").mkdir()
        for path in {path for pattern in MODEL_FILES for path in base.glob(pattern) if path.name not in NOTES_OF_RUN}:
            shutil.copyfile(path, folder / "model" / path.name)
        return
    generator = Generator(base, dtype="float32")
    generator.add_adapter("own", adapter)
    generator.use("own").save_pretrained(folder / "model")
    generator.tokenizer.save_pretrained(folder / "model")
    for name, key in (("adapter_config.json", "base_model_name_or_path"), ("base.json", "model")):
        if (adapter / name).is_file():  # the base's folder means nothing elsewhere
            files.write_json(folder / "adapter" / name, files.read_json(adapter / name) | {key: base_id})
    shutil.copyfile(adapter / "adapter_model.safetensors", folder / "adapter" / "adapter_model.safetensors")


def _write_gguf(made: System, source: export_card.Source, folder: Path) -> list[str]:
    """Write gguf/; return why it, or the Modelfile, is not there."""
    if reason := export_gguf.unsupported(folder / "model"):
        return [f"No GGUF was written: {reason}."]
    (folder / "gguf").mkdir()
    for form in export_gguf.FORMATS:
        path = folder / "gguf" / f"{source.system}-{form}.gguf"
        export_gguf.write_gguf(folder / "model", path, form, name=f"{source.asked.run.name}: {source.label}")
    if not export_gguf.is_chatml(made.lm.engine.tokenizer):
        return ["No Modelfile was written: the model's chat template is not ChatML."]
    sizes = {"max_tokens": source.max_tokens}
    sizes["context"] = files.read_json(folder / "model" / "config.json")["max_position_embeddings"]
    instructions = export_check.prompt(made, "", "")[:-1]
    text = export_gguf.modelfile(f"{source.system}-q8_0.gguf", instructions, **sizes)
    files.write_text(folder / "gguf" / "Modelfile", text)
    return []
