"""Where the stages find their files: in the run folder, in this iteration, in earlier ones, and at the champion's."""

from __future__ import annotations

from pathlib import Path

import pytest

from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.core.runs import Iteration, system_record
from cuadft.loop import gate
from cuadft.loop.stages import STAGES, Stage, in_run, of_champion, of_previous, so_far, stage_named


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Return a run folder of three iterations that hold a file a.txt each, and one a.txt beside them."""
    for folder in (".", "iter-01", "iter-02", "iter-03"):
        files.write_text(tmp_path / folder / "a.txt", "")
    return tmp_path


def found(run: Path, pattern, number: int, **more) -> list[str]:
    return Stage("any", "01_any.ipynb", **more).files((pattern,), Iteration(run, number), {"align_methods": ["dpo"]})


@pytest.mark.parametrize(
    ("text", "name"),
    [
        *(
            (spelling, "data_prep")
            for spelling in ("01", "1", "01_data_prep", "data_prep", "01 data_prep", "Data-Prep")
        ),
        ("notebooks/04_fine_tune.ipynb", "fine_tune"),
        ("02 RAG compile", "rag_compile"),
        ("05_evaluate", "evaluate"),
        ("03_inference_sft", "inference_sft"),
        *((label, name) for stage in STAGES for label, name in ((stage.label, stage.name), (stage.name, stage.name))),
    ],
)
def test_stages_are_named_as_people_see_them(text: str, name: str) -> None:
    assert stage_named(text) == name


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("03", "3 stages run: choose one of inference_rag, inference_sft, inference_aligned."),
        ("03_batch_inference", "3 stages run"),
        ("05", "2 stages run: choose one of evaluate_sft, evaluate."),
        ("finetune", r"did you mean 'fine_tune'\?"),
        ("7", "choose one of data_prep, rag_compile"),
        ("", "choose one of"),
    ],
)
def test_what_names_no_stage_or_several_is_told(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        stage_named(text)


def test_a_plain_glob_lies_in_the_iterations_own_folder(run: Path) -> None:
    assert found(run, "*.txt", 2) == ["iter-02/a.txt"]


def test_places_elsewhere(run: Path) -> None:
    assert found(run, in_run("a.txt"), 1) == found(run, in_run("a.txt"), 3) == ["a.txt"]
    assert [found(run, in_run("a.txt", to_iteration=1), n) for n in (1, 2)] == [["a.txt"], []]
    assert [found(run, in_run("a.txt", from_iteration=2), n) for n in (1, 2)] == [[], ["a.txt"]]
    assert [found(run, of_previous("a.txt"), n) for n in (1, 3)] == [[], ["iter-02/a.txt"]]
    assert [found(run, so_far("a.txt", own=False), n) for n in (1, 3)] == [[], ["iter-01/a.txt", "iter-02/a.txt"]]
    assert [found(run, so_far("a.txt"), n) for n in (1, 2)] == [["iter-01/a.txt"], ["iter-01/a.txt", "iter-02/a.txt"]]


def test_the_champions_files_are_those_that_the_iteration_before_left(run: Path) -> None:
    program, weights = "iter-01/program/rag.json", "iter-01/adapters/sft/w.txt"
    calibration = "iter-01/predictions/sft.confidence.json"
    others = ("iter-01/adapters/dpo/w.txt", "iter-01/predictions/dpo.confidence.json")
    for name in (program, weights, calibration, *others):
        files.write_text(run / name, "{}")
    assert found(run, of_champion, 1) == found(run, of_champion, 2) == []  # nothing is decided yet
    promoted = {"system": "sft", "program": program, "weights": "iter-01/adapters/sft", "retriever": None}
    files.write_json(run / "iter-01/decision.json", {"promoted": promoted})
    assert found(run, of_champion, 2) == [weights, calibration, program]


def test_a_new_retriever_brings_its_confidence_and_the_calibration_of_the_system_that_has_it(run: Path) -> None:
    program, weights = "iter-01/program/rag.json", "iter-01/adapters/sft/w.txt"
    old, new = "iter-01/predictions/sft.confidence.json", "iter-02/predictions/retriever.confidence.json"
    certainty = "iter-02/retriever/confidence.json"
    for name in (program, weights, old, new, certainty, "iter-01/retriever/confidence.json"):
        files.write_text(run / name, "{}")
    kept = {"program": program, "weights": "iter-01/adapters/sft", "retriever": "iter-02/retriever"}
    files.write_json(run / "iter-02/decision.json", {"promoted": {"system": "retriever"} | kept})
    assert found(run, of_champion, 3) == [weights, program, new, certainty]


def test_a_choice_by_hand_brings_the_calibration_along(run: Path) -> None:
    files.write_json(run / "run.json", {})
    calibrations = {}
    for number, winner in ((1, "sft"), (2, "dpo")):
        iteration = Iteration(run, number)
        for name in ("program/rag.json", "retriever/settings.json"):
            files.write_json(iteration.path(name), {})
        for system in ("sft", "dpo"):
            for name in ("adapter_config.json", "adapter_model.safetensors"):
                files.write_text(iteration.path("adapters", system, name), "{}")
            files.write_json(iteration.path("predictions", f"{system}.confidence.json"), {})
            calibrations[number, system] = f"iter-{number:02d}/predictions/{system}.confidence.json"
        files.write_json(iteration.path("decision.json"), {"promoted": system_record(iteration, winner)})

    def calibration() -> list[str]:
        return [name for name in found(run, of_champion, 3) if "/predictions/" in name]

    assert calibration() == [calibrations[2, "dpo"]]
    gate.promote(run, "sft", reason="reads better")
    assert calibration() == [calibrations[2, "sft"]]
    gate.promote(run, "dpo", reason="it does not")
    assert calibration() == [calibrations[2, "dpo"]]
    gate.promote(run, "sft", reason="nor does this", iteration=1)
    assert calibration() == [calibrations[1, "sft"]]


def test_a_glob_of_systems_names_those_of_the_stage_only(run: Path) -> None:
    for system in ("rag", "incumbent", "dpo", "orpo"):
        files.write_text(run / f"iter-01/predictions/{system}.dev.jsonl", "")
    names = found(run, "predictions/{system}.*", 1, systems=("rag", "incumbent", "align_methods"))
    assert names == ["iter-01/predictions/dpo.dev.jsonl", "iter-01/predictions/rag.dev.jsonl"]


def test_only_the_first_iteration_writes_the_frozen_contracts(run: Path) -> None:
    files.write_text(run / "contracts.jsonl", "")
    prepare = STAGES[0]
    assert prepare.files(prepare.writes, Iteration(run, 1), {}) == ["contracts.jsonl"]
    assert prepare.files(prepare.writes, Iteration(run, 2), {}) == []
    assert prepare.files(prepare.reads, Iteration(run, 2), {}) == ["contracts.jsonl"]
