"""The six notebooks as readers and papermill find them, and two smoke iterations through the command line."""

from __future__ import annotations

import ast
import csv
import json
import time
from dataclasses import fields
from pathlib import Path

import pytest
from commands import ROOT, cuadft

from cuadft.core import files, params, runs
from cuadft.core.params import declared_parameters
from cuadft.evaluation.text_scores import rouge_tokens, shingles
from cuadft.loop.criteria import GateRule
from cuadft.selfinstruct.filters import SHINGLE
from cuadft.training.align import METHODS

NOTEBOOKS = sorted((ROOT / "notebooks").glob("0*.ipynb"))
SYSTEMS = ("rag", "rag_compiled", "sft", "sft_more", "dpo", "orpo", "kto", "rloo", "ppo", "best_of_5")


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_runs_that_differ_in_seed_ask_the_same_dev_and_test_questions(smoke: Path, tmp_path: Path) -> None:
    done = cuadft(
        "run", "params/smoke.yaml", "--set", "seed=8", "--until", "data_prep", "--run-dir", tmp_path / "other"
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("dev", "test"):
        place = f"iter-01/data/{name}.jsonl"
        assert rows_of(smoke / place) == rows_of(tmp_path / "other" / place)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_sources_are_stored_clean_with_one_parameters_cell(path: Path) -> None:
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    assert sum("parameters" in cell["metadata"].get("tags", []) for cell in cells) == 1
    assert "sys.path" not in path.read_text() and "pip install" not in path.read_text()


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks" / "executed").glob("*.ipynb")), ids=lambda p: p.stem)
def test_executed_copies_show_the_current_sources(path: Path) -> None:
    def code(file: Path) -> list[str]:
        cells = json.loads(file.read_text())["cells"]
        return [
            "".join(c["source"])
            for c in cells
            if c["cell_type"] == "code"
            and not {"parameters", "injected-parameters"} & set(c["metadata"].get("tags", []))
        ]

    assert code(path) == code(ROOT / "notebooks" / path.name)
    assert not any(word in path.read_text() for word in (str(Path.home()), str(ROOT.parent) + "/", "site-packages"))
    assert path.stat().st_size < 500_000, "pages of GitHub show a larger notebook late or not at all"


@pytest.mark.parametrize("path", sorted((ROOT / "params").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_preset_fits_the_notebooks(path: Path) -> None:
    values = params.load_preset(path, [], ROOT / "notebooks")
    assert values.get("run_dir", "runs/quickstart") == f"runs/{path.stem}"  # so that papermill alone finds the run, too


def test_parameters_mean_the_same_in_every_notebook() -> None:
    assert len(declared_parameters(ROOT / "notebooks")) > 40  # raises if two notebooks disagree


def test_two_iterations_score_all_systems_on_all_test_questions(smoke: Path) -> None:
    for number in (1, 2):
        with (smoke / f"iter-{number:02d}" / "scoreboard.csv").open() as file:
            board = [row for row in csv.DictReader(file) if row["split"] == "test" and row["metric"] == "f1"]
        later = ["incumbent", "retriever"] if number == 2 else []
        assert {row["system"] for row in board} == {*runs.CONSTANTS, *SYSTEMS, *later}
        # smoke.yaml: 16 test questions on 4 contracts; none fails with the tiny model
        assert {(row["n"], row["n_contracts"], row["failed"]) for row in board} == {("16", "4", "0")}
        assert all(0 <= float(row["low"]) <= float(row["value"]) <= float(row["high"]) <= 1 for row in board)
        assert (smoke / f"iter-{number:02d}" / "figures" / "benchmark.png").stat().st_size > 5_000


def test_cuads_own_measures_stand_for_every_system_with_their_intervals(smoke: Path) -> None:
    with (smoke / "iter-01" / "metrics" / "cuad.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert {row["system"] for row in rows} == {*runs.CONSTANTS, *SYSTEMS}
    best = {(row["system"], row["measure"]): row for row in rows}
    assert float(best["always_refuses", "quote_f1"]["value"]) == 0 == float(best["always_refuses", "aupr"]["value"])
    assert float(best["top_passage", "detection_recall"]["value"]) == 1
    assert 0 < float(best["top_passage", "aupr"]["low"]) <= float(best["top_passage", "aupr"]["high"]) < 1


def test_quote_measures_rest_on_every_clause_or_say_for_how_many_a_question_stands(smoke: Path) -> None:
    asked, every = (rows_of(smoke / "iter-01" / "data" / f"{name}.jsonl") for name in ("dev", "dev_questions"))
    for clause in (True, False):
        stands_for = sum(row["weight"] for row in asked if bool(row["answers"]) == clause)
        assert round(stands_for, 6) == sum(bool(row["answers"]) == clause for row in every)


def test_splits_are_drawn_once_and_share_no_group(smoke: Path) -> None:
    frozen = rows_of(smoke / "contracts.jsonl")
    assert len(frozen) == 40
    for one in frozen:
        assert all(other["split"] == one["split"] for other in frozen if other["group"] == one["group"])
    for split in ("dev", "test"):
        first, second = ((smoke / f"iter-{n:02d}" / "data" / f"{split}.jsonl").read_text() for n in (1, 2))
        assert first == second
    trained = [{r["contract"] for r in rows_of(smoke / f"iter-{n:02d}" / "data" / "train.jsonl")} for n in (1, 2)]
    # slices of 8 and 7 contracts, two of each held out; in the second iteration round(0.25 * 5) = 1 replayed one
    assert len(trained[0]) == 6 and len(trained[1]) == 6 and len(trained[0] & trained[1]) == 1


def test_contract_types_arrive_one_after_another_and_each_slice_is_asked_from_then_on(smoke: Path) -> None:
    frozen = {c["title"]: c for c in rows_of(smoke / "contracts.jsonl")}
    new = [{r["contract"] for r in rows_of(smoke / f"iter-{n:02d}" / "data" / "train.jsonl")} for n in (1, 2)]
    first, second = ({frozen[title]["contract_type"] for title in titles} for titles in (new[0], new[1] - new[0]))
    assert not first & second
    for number, kinds in ((1, first), (2, second)):
        rows = rows_of(smoke / f"iter-{number:02d}" / "data" / "slices.jsonl")
        assert {row["slice"] for row in rows} == set(range(1, number + 1))
        assert all(frozen[row["contract"]]["slice"] == row["slice"] for row in rows)
        assert {frozen[row["contract"]]["contract_type"] for row in rows if row["slice"] == number} <= kinds
        for system in ("rag", "sft"):
            answered = rows_of(smoke / f"iter-{number:02d}" / "predictions" / f"{system}.slices.jsonl")
            assert [row["id"] for row in answered] == [row["id"] for row in rows]


def test_the_report_on_the_stream_covers_every_iteration_and_its_figures_are_drawn(smoke: Path) -> None:
    with (smoke / "iter-02" / "metrics" / "stream.csv").open() as file:
        cells = {(row["iteration"], row["slice"]) for row in csv.DictReader(file) if row["system"] == "sft"}
    assert cells == {("1", "0"), ("1", "1"), ("2", "0"), ("2", "1"), ("2", "2")}  # slice 0 is the test set
    for name in ("iterations", "slices_champion", "slices_sft"):
        assert (smoke / "iter-02" / "figures" / f"{name}.png").stat().st_size > 5_000
    drift = [files.read_json(smoke / f"iter-{n:02d}" / "data" / "drift.json") for n in (1, 2)]
    assert (
        drift[0]["p"] is None and 0 < drift[1]["p"] <= 1 and (drift[1]["n_incoming"], drift[1]["n_reference"]) == (5, 6)
    )


def test_the_gate_names_the_clause_that_decided_and_the_history_keeps_every_decision(smoke: Path) -> None:
    for number in (1, 2):
        decision = json.loads((smoke / f"iter-{number:02d}" / "decision.json").read_text())
        clauses = {clause["clause"] for candidate in decision["candidates"] for clause in candidate["clauses"]}
        assert decision["decided_by"] in clauses and decision["rule"]["metric"] == "quote_f1"
        named = {candidate["system"] for candidate in decision["candidates"]} | {decision["promoted"]["system"]}
        assert named.isdisjoint(runs.CONSTANTS)
    lines = rows_of(smoke / "history.jsonl")
    assert [line["iteration"] for line in lines] == [1, 2] and all(line["reason"] for line in lines)


def test_the_next_iteration_goes_on_from_the_champions_retriever_and_forgets_no_contract(smoke: Path) -> None:
    first, second = (smoke / f"iter-{n:02d}" / "retriever" for n in (1, 2))
    learned = [{row["contract"] for row in rows_of(folder / "rows.jsonl")} for folder in (first, second)]
    assert learned[0] < learned[1] and len(learned[1]) == 11  # 6 and 5 new contracts
    decision = json.loads((smoke / "iter-02" / "metrics" / "retriever_decision.json").read_text())
    assert decision["promoted"] == (decision["delta"]["low"] > 0)
    weights = [file.read_bytes() for folder in (first, second) for file in folder.glob("embedder/model.safetensors")]
    assert decision["promoted"] or weights in ([], weights[:1] * 2)  # what is kept is copied
    with (smoke / "iter-02" / "metrics" / "retrieval.csv").open() as file:
        measured = {row["retriever"] for row in csv.DictReader(file)}
    assert {"BM25", "chosen", "BM25, other words", "chosen, other words"} <= measured


def test_nothing_from_held_out_contracts_reaches_training(smoke: Path) -> None:
    frozen = rows_of(smoke / "contracts.jsonl")
    held_out = {c["title"]: c["text"] for c in frozen if c["split"] != "train"}
    known = set().union(*(shingles(rouge_tokens(c["text"]), SHINGLE) for c in frozen if c["split"] == "train"))
    only_held_out = set().union(*(shingles(rouge_tokens(text), SHINGLE) for text in held_out.values())) - known
    for iteration in (smoke / "iter-01", smoke / "iter-02"):
        used = [
            *rows_of(iteration / "data" / "train.jsonl"),
            *rows_of(iteration / "data" / "synthetic.jsonl"),
            *rows_of(iteration / "preferences.jsonl"),
            *rows_of(iteration / "retriever" / "feedback.jsonl"),
            *rows_of(iteration / "retriever" / "rows.jsonl"),
        ]
        folds = json.loads((iteration / "retriever" / "classifier" / "classifier.json").read_text())["fold_of"]
        assert folds and not set(folds) & set(held_out)
        assert used and not {row["contract"] for row in used} & set(held_out)
        compiled = json.loads((iteration / "program" / "rag_compiled.json").read_text())["state"]["predict"]["demos"]
        texts = [demo["passage"] + demo["answer"] for demo in compiled]
        pairs = rows_of(iteration / "preferences.jsonl")
        texts += [row["prompt"][-1]["content"] + row["chosen"][0]["content"] for row in pairs]
        questions = {r["question"] for r in rows_of(iteration / "data" / "train.jsonl")}
        asked = set().union(*(shingles(rouge_tokens(q), SHINGLE) for q in questions))
        assert texts and not any((shingles(rouge_tokens(text), SHINGLE) - asked) & only_held_out for text in texts)


def test_the_second_iteration_starts_from_the_decision_of_the_first(smoke: Path) -> None:
    decision = json.loads((smoke / "iter-01" / "decision.json").read_text())
    assert decision["incumbent"] == "rag" and decision["promoted"]["system"] in SYSTEMS
    incumbents = rows_of(smoke / "iter-02" / "predictions" / "incumbent.test.jsonl")
    assert len(incumbents) == 16
    assert json.loads((smoke / "iter-02" / "decision.json").read_text())["incumbent"] == "incumbent"


def test_a_second_call_skips_everything_and_changes_nothing(smoke: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in smoke.rglob("*") if p.is_file() and "iter-" in str(p)}
    started = time.monotonic()
    done = cuadft("run", "params/smoke.yaml", "--iterations", 2, "--run-dir", smoke)
    assert done.returncode == 0 and done.stdout.count("skipped") == 18, done.stdout + done.stderr
    assert time.monotonic() - started < 30
    assert before == {p: p.stat().st_mtime_ns for p in smoke.rglob("*") if p.is_file() and "iter-" in str(p)}


def test_status_lists_stages_and_scores(smoke: Path) -> None:
    shown = cuadft("status", smoke).stdout
    assert all(name in shown for name in ("data_prep", "inference_aligned", "iteration 2", *SYSTEMS))


def test_every_notebook_runs_alone_with_a_preset_file(smoke: Path, tmp_path: Path) -> None:
    import papermill

    values = params.load_preset(ROOT / "params" / "smoke.yaml", [], ROOT / "notebooks") | {
        "run_dir": str(smoke),
        "iteration": 1,
    }
    papermill.execute_notebook(
        str(ROOT / "notebooks" / "04_fine_tune.ipynb"),
        str(tmp_path / "out.ipynb"),
        parameters=values,
        cwd=str(ROOT / "notebooks"),
        kernel_name="python3",
        progress_bar=False,
    )
    assert files.read_json(smoke / "iter-01" / "adapters" / "sft" / "base.json")["model"] == "tiny"


@pytest.mark.slow
def test_a_misspelt_parameter_stops_a_notebook_before_it_works(tmp_path: Path) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    with pytest.raises(PapermillExecutionError, match=r"train_contract.*did you mean 'train_contracts'"):
        papermill.execute_notebook(
            str(ROOT / "notebooks" / "01_data_prep.ipynb"),
            str(tmp_path / "out.ipynb"),
            cwd=str(ROOT),
            parameters={"run_dir": str(tmp_path / "run"), "train_contract": 3},
            kernel_name="python3",
            progress_bar=False,
        )
    assert not (tmp_path / "run").exists()


def test_a_missing_adapter_is_named_with_the_notebook_that_makes_it(smoke: Path, tmp_path: Path) -> None:
    import papermill
    from papermill.exceptions import PapermillExecutionError

    values = params.load_preset(ROOT / "params" / "smoke.yaml", [], ROOT / "notebooks") | {
        "run_dir": str(smoke),
        "systems": ["grpo"],
    }
    with pytest.raises(PapermillExecutionError, match=r"System 'grpo' has no weights in .*06_align"):
        papermill.execute_notebook(
            str(ROOT / "notebooks" / "03_batch_inference.ipynb"),
            str(tmp_path / "out.ipynb"),
            parameters=values,
            cwd=str(ROOT),
            kernel_name="python3",
            progress_bar=False,
        )


def test_every_parameter_that_a_notebook_declares_is_used_in_it() -> None:
    rule = {f"gate_{field.name}" for field in fields(GateRule)}  # read by GateRule.of(globals())
    for path in NOTEBOOKS:
        names = {parameter.name for parameter in params.notebook_parameters(path)}
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        code = "\n".join("".join(c["source"]) for c in cells if "parameters" not in c["metadata"].get("tags", []))
        used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
        assert names - used - (rule if "GateRule" in code else set()) == set(), (
            f"{path.name} declares what it never uses"
        )


def test_every_alignment_method_can_be_chosen_in_notebook_06() -> None:
    chosen = declared_parameters(ROOT / "notebooks")["align_methods"].limits.strip("[]").split("|")
    assert set(chosen) == set(METHODS), (
        "align_methods in notebook 06 and training.align.METHODS must name the same methods"
    )
