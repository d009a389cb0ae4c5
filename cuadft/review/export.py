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
from typing import TYPE_CHECKING

from cuadft.core import files, runs
from cuadft.core.errors import InputError, brief
from cuadft.review import export_card, export_check, export_gguf

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from cuadft.rag.systems import System

NOTE = "export.json"  # in the folder, written last
LAYOUT = 1  # of the folder; another number makes an earlier export out of date
TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")  # environment variables that may hold the hub's token
NOT_NEEDED = shutil.ignore_patterns("rows.jsonl", "training.json", ".*.tmp")  # of the retriever's folder
MODEL_FILES = ("*.json", "*.safetensors", "*.txt", "*.jinja", "*.model")
BYTES_A_NUMBER = {"adapter": 4 + 2 + 34 / 32, "": 2 + 34 / 32}  # merged weights in 32 bits, GGUF in 16 and in 8


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
    made, folder = systems.recorded_system(found, name), Path(to).expanduser().absolute()
    source, key = export_card.read_source(made, found), _key(made, found)
    if _is_there(folder, key, replace):
        return Exported(folder, source.label, tuple(files.read_json(folder / NOTE)["notes"]), new=False)
    with _scratch(folder) as scratch:
        notes = _write_parts(made, source, scratch, log)
        if (scratch / "model").is_dir() and check:
            log(f"Compare answers to {check} test prompts ...")
            notes += export_check.agreement(made, source, scratch, check)
        (scratch / "README.md").write_text(export_card.card(source, scratch, notes), encoding="utf-8")
        about = {"layout": LAYOUT, "key": key, "run": found.run.name, "system": source.label, "notes": notes}
        about |= {"settings": source.settings, "files": _hashes(scratch)}
        files.write_json(scratch / NOTE, about)
    return Exported(folder, source.label, tuple(notes))


def hub(repo: str) -> HfApi:
    """Return the hub's interface for a push; raises InputError on a malformed name, offline and without a token."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    from cuadft.models.weights import hub_endpoint

    token = next(filter(None, map(os.environ.get, TOKENS)), None)
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise InputError(f"Invalid --push {repo!r}: give owner/name ({error}).") from None
    if "/" not in repo:
        raise InputError(f"Invalid --push {repo!r}: give owner/name, such as acme/{repo}.")
    if constants.HF_HUB_OFFLINE:
        raise InputError("--push needs the hub, and HF_HUB_OFFLINE forbids it: unset it.")
    if not token:
        raise InputError("--push needs a token that may write: set HF_TOKEN in the environment.")
    return HfApi(endpoint=hub_endpoint(), token=token)


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
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
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
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    if not folder.is_dir():
        raise InputError(f"{folder} is a file: give a folder.")
    note = files.read_json(folder / NOTE) if (folder / NOTE).is_file() else {}
    known = note.get("files", {}) if isinstance(note, dict) else {}
    held = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - {NOTE}
    if not known or held - set(known):
        stray = f"it holds {min(held - set(known))}, which is" if known else "what it holds is"
        raise InputError(f"{folder} isn't empty, and {stray} no part of an export: choose another folder.")
    if note.get("key") == key and _hashes(folder) == known:
        return not replace
    if not replace:
        raise InputError(f"{folder} holds another export, or a damaged one: choose another folder, or --replace it.")
    return False


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
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        os.close(lock)


def _hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of an export but its note, by its path."""
    held = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / NOTE)
    return {path.relative_to(folder).as_posix(): files.file_hash(path) for path in held}


# --- its parts


def _write_parts(made: System, source: export_card.Source, folder: Path, log: Callable[[str], object]) -> list[str]:
    """Write prompt, search, confidence and weights; return what there is to say about them."""
    from cuadft.models.local import LocalEngine
    from cuadft.rag.program import save_program

    save_program(made.program, folder / "program.json")
    shutil.copytree(source.retriever, folder / "retriever", ignore=NOT_NEEDED)
    if made.calibration and made.calibration.is_file():
        shutil.copyfile(made.calibration, folder / "confidence.json")
    engine = getattr(made.lm, "engine", None)
    if not isinstance(engine, LocalEngine):
        return [f"{source.label} is answered by {made.lm.model}, an API model: there are no weights to export."]
    adapter = engine.adapters.get(made.name)
    _check_room(engine.path, adapter, folder)
    log(f"Write the weights of {source.label} ...")
    _write_model(engine.path, adapter, source.base, folder)
    log("Write GGUF ...")
    return _write_gguf(made, source, folder)


def _check_room(base: Path, adapter: Path | None, folder: Path) -> None:
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    needed = size + size / 2 * BYTES_A_NUMBER["adapter" if adapter else ""]  # a base has 2 bytes a number at least
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise InputError(
            f"{folder.parent} has {free / 1e9:.1f} GB free, the export needs {needed / 1e9:.1f}: make room."
        )


def _write_model(base: Path, adapter: Path | None, base_id: str, folder: Path) -> None:
    """Write model/ and adapter/; merged weights have 32 bits, since a small change is lost in 16."""
    if adapter is None:
        (folder / "model").mkdir()
        for path in sorted({path for pattern in MODEL_FILES for path in base.glob(pattern)} - {base / "source.json"}):
            shutil.copyfile(path, folder / "model" / path.name)
        return
    from cuadft.models.generator import Generator

    generator = Generator(base, dtype="float32")
    generator.add_adapter("own", adapter)
    generator.use("own").save_pretrained(folder / "model")
    generator.tokenizer.save_pretrained(folder / "model")
    for name in ("adapter_config.json", "base.json"):
        if (adapter / name).is_file():
            key = {"adapter_config.json": "base_model_name_or_path", "base.json": "model"}[name]
            files.write_json(folder / "adapter" / name, files.read_json(adapter / name) | {key: base_id})
    shutil.copyfile(adapter / "adapter_model.safetensors", folder / "adapter" / "adapter_model.safetensors")


def _write_gguf(made: System, source: export_card.Source, folder: Path) -> list[str]:
    """Write gguf/; return why it, or the Modelfile, is not there."""
    if reason := export_gguf.unsupported(folder / "model"):
        return [f"No GGUF was written: {reason}."]
    (folder / "gguf").mkdir()
    for form in export_gguf.FORMATS:
        path = folder / "gguf" / f"{source.system}-{form}.gguf"
        export_gguf.write_gguf(folder / "model", path, form, name=source.title)
    tokenizer = made.lm.engine.tokenizer
    if not export_gguf.is_chatml(tokenizer):
        return ["No Modelfile was written: the model's chat template is not ChatML, the one that it is written for."]
    context = files.read_json(folder / "model" / "config.json")["max_position_embeddings"]
    text = export_gguf.modelfile(
        f"{source.system}-q8_0.gguf",
        export_check.prompt(made, "", "")[:-1],
        max_tokens=made.lm.kwargs["max_tokens"],
        context=context,
    )
    (folder / "gguf" / "Modelfile").write_text(text, encoding="utf-8")
    return []
