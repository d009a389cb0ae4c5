"""The stages of one iteration: each is one run of a notebook, with the files that it reads and writes.

    by_name = {stage.name: stage for stage in STAGES}
    tune = by_name["fine_tune"]
    tune.files(tune.writes, iteration, values)  # ["iter-01/adapters/sft/adapter_config.json", ...]

`STAGES` lists the stages in the order in which they run. A file pattern is a glob in the iteration's own folder, such
as "data/*.jsonl", or a `Place` elsewhere, such as `of_previous("decision.json")`. In a glob of the own folder,
"{system}" stands for each of the stage's systems.
The fingerprint of a stage is a hash of its code, its parameters and the files that it reads. A stage whose fingerprint
has not changed need not run again.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cuadft.core.errors import InputError
from cuadft.core.files import file_hash, is_leftover
from cuadft.core.params import NOT_PATHS, did_you_mean, notebook_cells
from cuadft.core.runs import Iteration, calibration_file, incoming_champion

Place = Callable[[Iteration], list[str]]  # returns globs, relative to the run folder, for an iteration
Pattern = str | Place


def in_run(glob: str, *, from_iteration: int = 1, to_iteration: int | None = None) -> Place:
    """Return a place in the run folder itself, which only the iterations from the first to the last named use."""
    return lambda iteration: [glob] if from_iteration <= iteration.number <= (to_iteration or iteration.number) else []


def of_previous(glob: str) -> Place:
    """Return a place in the folder of the iteration before; iteration 1 has no file there."""
    return lambda iteration: [f"{iteration.previous.dir.name}/{glob}"] if iteration.previous else []


def so_far(glob: str, *, own: bool = True) -> Place:
    """Return a place in the folders of all iterations up to this one, its own included or not."""
    return lambda iteration: [f"iter-{n + 1:02d}/{glob}" for n in range(iteration.number - (not own))]


def of_champion(iteration: Iteration) -> list[str]:
    """Return the place of the champion's program, weights, retriever and calibration, as the last iteration left them.

    There is no file as long as that iteration has not decided.
    """
    if iteration.previous is None or not iteration.previous.path("decision.json").is_file():
        return []
    champion = incoming_champion(iteration)
    folders = [f"{champion[part]}/**/*" for part in ("weights", "retriever") if champion.get(part)]
    return [*folders, *filter(None, (champion.get("program"), calibration_file(champion)))]


SHARED_FOLDERS = ("metrics", "figures")  # several notebooks put files here, so no stage owns the whole folder
SHARED = tuple(f"{folder}/**/*" for folder in SHARED_FOLDERS)
JUDGE_VERDICTS = ("metrics/judge_replies.jsonl",)  # they were paid for: they stay when a stage is cleared
LATER_SYSTEMS = ("incumbent", "retriever")  # systems that the first iteration does not have
LAST_DECISION = (of_previous("decision.json"), of_previous("by_hand.json"))
LAST_CHAMPION = (*LAST_DECISION, of_champion)
CONTRACTS_MADE = in_run("contracts.jsonl", to_iteration=1)
CONTRACTS = (in_run("contracts.jsonl"), so_far("arrived.jsonl"), so_far("corrected.jsonl"))
CONTRACTS_BEFORE = (
    in_run("contracts.jsonl", from_iteration=2),
    so_far("arrived.jsonl", own=False),
    so_far("corrected.jsonl", own=False),
)
ROWS_BEFORE = (of_previous("data/train.jsonl"), of_previous("data/synthetic.jsonl"))
RETRIEVAL = ("retriever/**/*", "program/*")
TRAINED_ON = (*CONTRACTS, "data/train.jsonl", *RETRIEVAL)
ANSWERED = (*CONTRACTS, "data/dev.jsonl", "data/test.jsonl", "data/slices.jsonl", *RETRIEVAL)
ADAPTERS = ("adapters/{system}/**/*",)
SFT = ("adapters/sft/**/*",)
PREDICTIONS = ("predictions/{system}.*",)
UNTRAINED = ("rag", "rag_compiled", *LATER_SYSTEMS)


@dataclass(frozen=True)
class Stage:
    """One run of one notebook.

    systems: what the stage works on; "align_methods" stands for the items of that parameter, and "incumbent" and
    "retriever" exist from iteration 2 on. pass_systems: the parameter in which the notebook gets the systems.
    decide: the value of the parameter `decide`, None if the notebook has no such parameter.
    external: the parameters that name the user's own files.
    keeps: what the stage writes once, and no later attempt may delete.
    """

    name: str
    notebook: str
    reads: tuple[Pattern, ...] = ()
    writes: tuple[Pattern, ...] = ()
    systems: tuple[str, ...] = ()
    pass_systems: str = ""
    decide: bool | None = None
    external: tuple[str, ...] = ()
    keeps: tuple[Pattern, ...] = ()

    @property
    def label(self) -> str:
        """Return the notebook's number and the stage's name, for example "04 fine_tune"."""
        return f"{self.notebook[:2]} {self.name}"

    def systems_of(self, iteration: Iteration, values: Mapping) -> list[str]:
        """Return the systems that the stage works on in this iteration."""
        names = []
        for name in self.systems:
            if name == "align_methods":
                names += values.get("align_methods", [])
            elif name not in LATER_SYSTEMS or iteration.previous:
                names.append(name)
        return names

    def set_by_loop(self, iteration: Iteration, values: Mapping, run_dir: str) -> dict[str, object]:
        """Return the parameters that the loop sets, not the preset."""
        given: dict[str, object] = {"run_dir": run_dir, "iteration": iteration.number}
        if self.pass_systems:
            given[self.pass_systems] = self.systems_of(iteration, values)
        return given if self.decide is None else given | {"decide": self.decide}

    def files(self, patterns: tuple[Pattern, ...], iteration: Iteration, values: Mapping) -> list[str]:
        """Return the existing files that the patterns name, as sorted paths relative to the run folder."""
        globs = [glob for pattern in patterns for glob in self._globs(pattern, iteration, values)]
        found = {path for glob in globs for path in iteration.run.glob(glob)}
        kept = [path for path in found if path.is_file() and not is_leftover(path)]
        return sorted(path.relative_to(iteration.run).as_posix() for path in kept)

    def _globs(self, pattern: Pattern, iteration: Iteration, values: Mapping) -> list[str]:
        """Return the globs, relative to the run folder, that a pattern stands for in an iteration."""
        if callable(pattern):
            return pattern(iteration)
        systems = self.systems_of(iteration, values) if "{system}" in pattern else [""]
        return [f"{iteration.dir.name}/{pattern.replace('{system}', system)}" for system in systems]


def _answer(name: str, systems: tuple[str, ...], reads: tuple[Pattern, ...]) -> Stage:
    """Return a stage of notebook 03."""
    reads = (*ANSWERED, *reads)
    return Stage(name, "03_batch_inference.ipynb", reads, PREDICTIONS, systems, pass_systems="systems")


_DATA = {
    "external": ("cuad", "schema", "contracts_folder", "own_questions"),
    "keeps": ("arrived.jsonl", "corrected.jsonl", "replies.jsonl"),
}
_COMPILED_FROM = (*CONTRACTS, "data/*.jsonl", "data/schema.json", of_previous("retriever/rows.jsonl"), *LAST_CHAMPION)
_ALIGNED = ("preferences.jsonl", "preferences/*", "headroom/**/*", "adapters/rates/**/*", *ADAPTERS)
_EVALUATION = {"notebook": "05_evaluate.ipynb", "external": ("published", "review_file"), "keeps": JUDGE_VERDICTS}
_ALL_EVALUATED = ("predictions/*", *LAST_DECISION, of_previous("metrics/stream.csv"))
_UNALIGNED = {"systems": (*UNTRAINED, "sft"), "pass_systems": "evaluated"}
_METHODS = ("align_methods",)
STAGES = (
    Stage("data_prep", "01_data_prep.ipynb", (*CONTRACTS_BEFORE, *ROWS_BEFORE), (CONTRACTS_MADE, "data/*"), **_DATA),
    Stage("rag_compile", "02_rag_compile.ipynb", _COMPILED_FROM, RETRIEVAL),
    _answer("inference_rag", UNTRAINED, LAST_CHAMPION),
    Stage("fine_tune", "04_fine_tune.ipynb", (*TRAINED_ON, "data/synthetic.jsonl", *LAST_CHAMPION), SFT),
    _answer("inference_sft", ("sft",), ADAPTERS),
    Stage("evaluate_sft", reads=PREDICTIONS, decide=False, **_UNALIGNED, **_EVALUATION),
    Stage("align", "06_align.ipynb", (*TRAINED_ON, *SFT, "data/dev.jsonl"), _ALIGNED, _METHODS, keeps=JUDGE_VERDICTS),
    _answer("inference_aligned", _METHODS, ADAPTERS),
    Stage("evaluate", reads=_ALL_EVALUATED, writes=("scoreboard.csv", "decision.json"), decide=True, **_EVALUATION),
)
STAGE_NAMES = tuple(stage.name for stage in STAGES)


def stage_named(text: str) -> str:
    """Return the name of the stage that a text spells as people see it: align, 06, 6, 06_align or 06_align.ipynb.

    Raises InputError if that is no stage, or a notebook that several stages run.
    """
    asked = re.sub(r"[\s-]+", "_", Path(text.strip()).name.casefold()).removesuffix(".ipynb").lstrip("0")
    own = [s.name for s in STAGES if asked in (s.name, s.label.lstrip("0").replace(" ", "_"))]
    own = own or [s.name for s in STAGES if asked in (s.notebook[1:2], s.notebook[1:-6], s.notebook[3:-6])]
    if len(own) == 1:
        return own[0]
    hint = f" is a notebook that {len(own)} stages run" if own else did_you_mean(text, STAGE_NAMES)
    raise InputError(f"Invalid stage {text!r}{hint}: choose one of {', '.join(own or STAGE_NAMES)}.")


def input_hashes(
    stage: Stage, iteration: Iteration, values: Mapping, *, hasher: Callable[[Path], str], root: Path
) -> dict[str, str]:
    """Return the hash of every file that the stage reads.

    The key is the path from the run folder. For the user's own files, which lie outside it, the key is the name of
    their parameter. `hasher` hashes one file, `root` is the project's folder.
    """
    hashes = {name: hasher(iteration.run / name) for name in stage.files(stage.reads, iteration, values)}
    for name in stage.external:
        path = root / values.get(name, "")
        if values.get(name, "") not in NOT_PATHS and path.exists():
            hashes[name] = file_hash(path, of_file=hasher)
    for run in values.get("seed_runs", []) if stage.decide is not None else []:
        path = root / run / iteration.dir.name / "predictions"
        if path.exists():
            hashes[f"seed_runs {run}"] = file_hash(path, of_file=hasher)
    return hashes


def stage_fingerprint(notebook: Path, values: Mapping[str, object], inputs: Mapping[str, str]) -> str:
    """Return the SHA-256 of a notebook's code cells, its parameter values (folders excepted) and its input hashes."""
    # what arrived is frozen in the run, so that the folder it came from may move
    values = {name: value for name, value in values.items() if name not in ("run_dir", "arrivals_folder")}
    # external inputs count by content: the same contracts under another path change nothing
    values = {name: value for name, value in values.items() if name not in inputs}
    content = json.dumps([code_cells(notebook), values, dict(inputs)], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def code_cells(notebook: Path) -> list[str]:
    """Return the source of each code cell of a notebook."""
    return ["".join(cell["source"]) for cell in notebook_cells(notebook) if cell.get("cell_type") == "code"]
