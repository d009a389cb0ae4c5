"""The stages of one iteration: their notebooks, what they read and write, and the fingerprint of all that.

File patterns are globs in the iteration's folder. A prefix puts them elsewhere: `run:` in the run folder,
`first:` the same in iteration 1 only, `later:` the same from iteration 2, `prev:` in the iteration before, `before:` in all
before, `past:` in those and in this one, `champion:` is what the iteration before left as champion. `{system}` stands for each
of the stage's systems.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cuadft.core.errors import InputError
from cuadft.core.files import file_hash, is_leftover
from cuadft.core.params import KEYWORDS, Parameter, notebook_cells, notebook_parameters
from cuadft.core.runs import Iteration, incoming_champion

# several notebooks put files here, so no stage owns the whole folder
SHARED_FOLDERS = ("metrics", "figures")
SHARED = tuple(f"{folder}/**/*" for folder in SHARED_FOLDERS)
VERDICTS = ("metrics/verdicts.jsonl",)  # paid for: not lost when a stage is cleared
DECIDED = ("prev:decision.json", "prev:by_hand.json")
INCUMBENT = (*DECIDED, "champion:")
FROM_2 = ("incumbent", "retriever")  # systems that the first iteration does not have
CONTRACTS = ("run:contracts.jsonl", "past:arrived.jsonl")
TRAINED_ON = (*CONTRACTS, "data/train.jsonl")
ANSWERED = (*CONTRACTS, "data/dev.jsonl", "data/test.jsonl", "data/slices.jsonl", "retriever/**/*", "program/*")


@dataclass(frozen=True)
class Stage:
    """One run of one notebook.

    `systems` may hold "align_methods" (stands for that parameter's items), and "incumbent" and "retriever" (from
    iteration 2); the notebook gets them in the parameter that `pass_systems` names. `external` names the parameters that
    hold the user's own files; `keeps` what the stage writes once and no later attempt may delete.
    """

    name: str
    notebook: str
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    systems: tuple[str, ...] = ()
    pass_systems: str = ""
    decide: bool | None = None
    external: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        return f"{self.notebook[:2]} {self.name}"

    def systems_of(self, iteration: Iteration, values: Mapping) -> list[str]:
        """Return the systems that the stage works on in this iteration."""
        names = []
        for name in self.systems:
            if name == "align_methods":
                names += values.get("align_methods", [])
            elif name not in FROM_2 or iteration.previous:
                names.append(name)
        return names

    def set_by_loop(self, iteration: Iteration, values: Mapping, run_dir: str) -> dict[str, object]:
        """Return the parameters that the loop sets, not the preset."""
        given: dict[str, object] = {"run_dir": run_dir, "iteration": iteration.number}
        if self.pass_systems:
            given[self.pass_systems] = self.systems_of(iteration, values)
        return given if self.decide is None else given | {"decide": self.decide}

    def files(self, patterns: tuple[str, ...], iteration: Iteration, values: Mapping) -> list[str]:
        """Return the existing files that the patterns name, as sorted paths relative to the run folder."""
        found: set[Path] = set()
        for pattern in patterns:
            systems = self.systems_of(iteration, values) if "{system}" in pattern else [""]
            for system in systems:
                for place in _places(pattern.replace("{system}", system), iteration):
                    found |= set(iteration.run.glob(place))
        kept = [path for path in found if path.is_file() and not is_leftover(path)]
        return sorted(path.relative_to(iteration.run).as_posix() for path in kept)


STAGES = (
    Stage(
        "data_prep",
        "01_data_prep.ipynb",
        ("later:contracts.jsonl", "prev:data/train.jsonl", "prev:data/synthetic.jsonl", "before:arrived.jsonl"),
        ("first:contracts.jsonl", "data/*"),
        external=("cuad", "contracts_folder", "own_questions"),
        keeps=("arrived.jsonl", "replies.jsonl"),
    ),
    Stage(
        "rag_compile",
        "02_rag_compile.ipynb",
        (*CONTRACTS, "data/*.jsonl", "prev:retriever/rows.jsonl", *INCUMBENT),
        ("retriever/**/*", "program/*"),
    ),
    Stage(
        "inference_rag",
        "03_batch_inference.ipynb",
        (*ANSWERED, *INCUMBENT),
        ("predictions/{system}.*",),
        systems=("rag", "rag_compiled", *FROM_2),
        pass_systems="systems",
    ),
    Stage(
        "fine_tune",
        "04_fine_tune.ipynb",
        (*TRAINED_ON, "data/synthetic.jsonl", "program/*", "retriever/**/*", *INCUMBENT),
        ("adapters/sft/**/*",),
    ),
    Stage(
        "inference_sft",
        "03_batch_inference.ipynb",
        (*ANSWERED, "adapters/{system}/**/*"),
        ("predictions/{system}.*",),
        systems=("sft",),
        pass_systems="systems",
    ),
    Stage(
        "evaluate_sft",
        "05_evaluate.ipynb",
        ("predictions/{system}.*",),
        systems=("rag", "rag_compiled", *FROM_2, "sft"),
        pass_systems="evaluated",
        decide=False,
        external=("published",),
        keeps=VERDICTS,
    ),
    Stage(
        "align",
        "06_align.ipynb",
        (*TRAINED_ON, "program/*", "retriever/**/*", "adapters/sft/**/*"),
        ("preferences.jsonl", "preferences/*", "adapters/{system}/**/*"),
        systems=("align_methods",),
        keeps=VERDICTS,
    ),
    Stage(
        "inference_aligned",
        "03_batch_inference.ipynb",
        (*ANSWERED, "adapters/{system}/**/*"),
        ("predictions/{system}.*",),
        systems=("align_methods",),
        pass_systems="systems",
    ),
    Stage(
        "evaluate",
        "05_evaluate.ipynb",
        ("predictions/*", *DECIDED, "prev:metrics/stream.csv"),
        ("scoreboard.csv", "decision.json"),
        decide=True,
        external=("published",),
        keeps=VERDICTS,
    ),
)


def stage_parameters(notebooks_dir: Path, stages: tuple[Stage, ...]) -> dict[str, dict[str, Parameter]]:
    """Return each notebook's parameters; raises InputError if one lacks a parameter that the loop sets."""
    found = {}
    for stage in stages:
        found[stage.notebook] = {p.name: p for p in notebook_parameters(notebooks_dir / stage.notebook)}
        wanted = {"run_dir", "iteration"} | ({stage.pass_systems} if stage.pass_systems else set())
        wanted |= set() if stage.decide is None else {"decide"}
        missing = sorted(wanted - set(found[stage.notebook]))
        if missing:
            where = notebooks_dir / stage.notebook
            raise InputError(f"{where} doesn't declare {', '.join(missing)}: restore its parameters cell.")
    return found


def input_hashes(
    stage: Stage, iteration: Iteration, values: Mapping, *, hasher: Callable[[Path], str], root: Path
) -> dict[str, str]:
    """Return the hash of every file that the stage reads; the user's own ones by parameter name."""
    hashes = {name: hasher(iteration.run / name) for name in stage.files(stage.reads, iteration, values)}
    for name in stage.external:
        path = root / values.get(name, "")
        if values.get(name, "") not in KEYWORDS and path.exists():
            hashes[name] = file_hash(path, of_file=hasher)
    for run in values.get("seed_runs", []) if stage.decide is not None else []:
        path = root / run / iteration.dir.name / "predictions"
        hashes |= {f"seed_runs {run}": file_hash(path, of_file=hasher)} if path.exists() else {}
    return hashes


def stage_fingerprint(notebook: Path, values: Mapping[str, object], inputs: Mapping[str, str]) -> str:
    """Return the SHA-256 of a notebook's code cells, parameter values (without folders) and input hashes."""
    sources = ["".join(cell["source"]) for cell in notebook_cells(notebook) if cell.get("cell_type") == "code"]
    # what arrived is frozen in the run, so that the folder it came from may move
    values = {name: value for name, value in values.items() if name not in ("run_dir", "arrivals_folder")}
    # external inputs count by content: the same contracts under another path change nothing
    values = {name: value for name, value in values.items() if name not in inputs}
    content = json.dumps([sources, values, dict(inputs)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _places(pattern: str, iteration: Iteration) -> list[str]:
    """Return the globs, relative to the run folder, that a pattern stands for in an iteration."""
    prefix, _, rest = pattern.rpartition(":")
    before = [f"iter-{number:02d}" for number in range(1, iteration.number)]
    if prefix == "champion":
        return _champion(iteration) if before else []
    if prefix in ("run", "first", "later"):
        return [] if (prefix == "first" and before) or (prefix == "later" and not before) else [rest]
    folders = {"prev": before[-1:], "before": before, "past": [*before, iteration.dir.name], "": [iteration.dir.name]}
    return [f"{folder}/{rest}" for folder in folders[prefix]]


def _champion(iteration: Iteration) -> list[str]:
    """Return the globs of what the iteration before left as champion; none as long as it has not decided."""
    if not iteration.previous.path("decision.json").is_file():
        return []
    place = incoming_champion(iteration)
    folders = [f"{place[part]}/**/*" for part in ("weights", "retriever") if place.get(part)]
    return [*folders, place["program"]] if place.get("program") else folders
