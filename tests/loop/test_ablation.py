"""An ablation: two runs that differ in one parameter, what they share, and what is said of the difference."""

import csv
import math

import pytest
from tiny_project import OPEN, RUN_DIR, SEED, make_project, run_in_process, write_notebook

from cuadft import cli
from cuadft.core import files, runs
from cuadft.core.errors import InputError
from cuadft.loop import ablation, runner

# 10 test contracts with 2 answerable questions each; 02 finds the clause at rank 1 for the first question of every
# contract, and with synthetic rows for the second one of the contracts 0 to 6; 04 teaches the answers to the same.
DATA = """
titles = [f"c{n}" for n in range(10)]
known = {"text": "Ohio law.", "contract_type": "", "filer": "", "group": 0}
splits = dict.fromkeys(titles, "test") | {"dev": "dev"}
files.write_jsonl(it.run / "contracts.jsonl", [known | {"title": t, "split": split} for t, split in splits.items()])
gold = {"answers": [{"text": "Ohio", "start": 0}], "is_impossible": False, "source": "cuad"}
gold |= {"contract_type": "", "category": "Governing Law"}
rows = [gold | {"id": f"{t}-{q}", "contract": t, "question": f"Q{q}?"} for t in titles for q in range(test_rows)]
for name, n in (("train", 4), ("dev", 2), ("synthetic", 3 * bool(seed))):
    files.write_jsonl(it.path("data", name + ".jsonl"), [{"id": name, "source": "template"}] * n)
files.write_jsonl(it.path("data", "test.jsonl"), rows)
"""
COMPILE = """
lines = ["id,contract,category,k,retriever,hit,char_recall"]
test = files.read_jsonl(it.path("data", "test.jsonl"))
for row in [*test, test[0] | {"contract": "dev", "id": "dev-0"}]:
    known = row["id"].endswith("-0") or use_synthetic and row["contract"] < "c7"
    for k in (1, 2, 3):
        lines += [f"{row['id']},{row['contract']},Governing Law,{k},bm25,{float(k > 1)},{k / 4}",
                  f"{row['id']},{row['contract']},Governing Law,{k},chosen,{float(known or k > 2)},{k / 4}"]
files.write_text(it.path("metrics", "retrieval.csv"), "\\n".join(lines) + "\\n")
files.write_json(it.path("program", "rag.json"), {"k": 2})
files.write_json(it.path("retriever", "embedder", "training.json"), {"steps": steps + extra * use_synthetic})
"""
ANSWER = """
taught = files.read_json(it.path("adapters", "sft", "training.json")) if "sft" in systems else {}
for system in systems:
    rows = files.read_jsonl(it.path("data", "test.jsonl"))
    known = [row["id"].endswith("-0") or taught.get("synthetic") and row["contract"] < "c7" for row in rows]
    files.write_jsonl(it.path("predictions", f"{system}.test.jsonl"), [
        row | {"system": system, "split": "test", "answer": "Ohio" if right else "Texas", "error": None, "spans": [],
               "passages": [], "seconds": 0.1} for row, right in zip(rows, known)])
"""
TUNE = """
history = [{"loss": 1.0, "step": 1}, {"train_runtime": 1.0, "step": 6}]
files.write_json(it.path("adapters", "sft", "training.json"), {"log_history": history, "synthetic": use_synthetic})
"""
USE = "use_synthetic: bool = True  # train on generated rows\n"
NOTEBOOKS = {
    "01_data_prep": (SEED + "test_rows: int = 2  # questions per contract [1..]\n", DATA),
    "02_rag_compile": (USE + "steps: int = 10  # steps [1..]\nextra: int = 0  # more of them [0..]\n", COMPILE),
    "03_batch_inference": ('systems: list = ["rag"]  # systems\n', ANSWER),
    "04_fine_tune": (USE, TUNE),
}


@pytest.fixture
def project(tmp_path, monkeypatch):
    make_project(tmp_path, "seed: 7\n")
    for name, (parameters, body) in NOTEBOOKS.items():
        trap = f"from pathlib import Path\nif Path('trap_{name[:2]}').exists():\n    1 / 0"
        write_notebook(tmp_path / "notebooks" / f"{name}.ipynb", RUN_DIR + parameters, OPEN, trap, body)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "execute_notebook", run_in_process)
    return tmp_path


def ablate(*arguments, **options):
    lines = []
    name, values = arguments or ("use_synthetic", ("false", "true"))
    done = ablation.ablate("tiny", name, values, log=lines.append, n_resamples=200, **options)
    return done, lines


def found(done, system, metric):
    row = done.deltas.set_index(["system", "metric"]).loc[(system, metric)]
    return tuple(round(row[c], 6) for c in ("a", "b", "value", "n", "n_contracts"))


def test_the_report_holds_the_paired_differences_of_the_two_runs(project):
    done, _ = ablate()
    # 10 of 20 without, 17 of 20 with synthetic rows; the record of a dev contract counts nowhere
    assert found(done, "chosen", "hit@1") == found(done, "sft", "quote_f1") == (0.5, 0.85, 0.35, 20, 10)
    assert found(done, "chosen", "char_recall@3") == (0.75, 0.75, 0, 20, 10)
    better = done.deltas.set_index(["system", "metric"]).loc[("sft", "quote_f1")]
    assert 0 < better["low"] < 0.35 < better["high"] and better["p"] < better["p_holm"] < 0.05
    assert done.notes == ()
    with open(done.folder / "ablation.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(done.deltas) and {r["value_b"] for r in rows} == {"true"}


def test_exchanged_values_give_the_opposite_difference(project):
    one, other = ablate()[0], ablate("use_synthetic", ("true", "false"))[0]
    assert found(other, "sft", "quote_f1")[2] == -found(one, "sft", "quote_f1")[2] == -0.35


def test_stages_before_the_parameter_run_once_and_finished_ones_never_again(project):
    done, lines = ablate()
    assert "use_synthetic=true [iter 1] 01 data_prep ... skipped (unchanged)" in lines
    assert not any("align" in line or "evaluate" in line for line in lines)
    one, other = (runs.Iteration(folder, 1) for folder in done.runs)
    assert [folder.name for folder in done.runs] == ["use_synthetic=false", "use_synthetic=true"]
    assert other.path("executed", "data_prep.ipynb").is_file()
    for name in ("train", "synthetic", "dev", "test"):
        assert one.path("data", f"{name}.jsonl").read_bytes() == other.path("data", f"{name}.jsonl").read_bytes()
    again, lines = ablate()
    assert again.deltas.equals(done.deltas) and not any("done in" in line for line in lines)
    # other data: what rests on it is run again
    changed, lines = ablate(overrides=["test_rows=1"])
    assert found(changed, "sft", "quote_f1") == (1, 1, 0, 10, 10)
    assert [line.split()[0] for line in lines if "rag_compile ... done" in line] == [
        "use_synthetic=false",
        "use_synthetic=true",
    ]


def test_everything_before_a_late_parameter_is_shared(project):
    for number in ("05_evaluate", "06_align"):
        assert (project / "notebooks" / f"{number}.ipynb").is_file()
    _, lines = ablate("align_methods", ("[dpo]", "[orpo]"))
    shared = ("data_prep", "rag_compile", "fine_tune", "inference_sft")  # nothing needs the answers of inference_rag
    skipped = [line.split()[4] for line in lines if line.startswith("align_methods=[orpo]") and "unchanged" in line]
    assert set(skipped) == set(shared)


def test_a_killed_copy_is_not_taken_for_a_whole_one(project, monkeypatch):
    copy = ablation.shutil.copytree

    def killed(source, target, **options):
        monkeypatch.setattr(ablation.shutil, "copytree", copy)
        copy(source, target, **options)
        (target / "iter-01/data/train.jsonl").unlink()
        raise KeyboardInterrupt

    monkeypatch.setattr(ablation.shutil, "copytree", killed)
    with pytest.raises(KeyboardInterrupt):
        ablate()
    assert not (project / "runs/tiny/use_synthetic=true").exists()
    assert found(ablate()[0], "sft", "quote_f1") == (0.5, 0.85, 0.35, 20, 10)


def test_a_failed_stage_leaves_no_report_of_an_earlier_call(project):
    done, _ = ablate()
    (project / "trap_02").touch()
    with pytest.raises(runner.StageFailed, match="division by zero"):
        ablate(overrides=["steps=11"])
    assert not (done.folder / ablation.REPORT_FILE).exists()
    (project / "trap_02").unlink()
    assert found(ablate(overrides=["steps=11"])[0], "sft", "quote_f1")[2] == 0.35


def test_no_difference_is_called_the_same(project):
    done, _ = ablate("steps", ("10", "20"))
    assert (done.deltas[["value", "low", "high"]] == 0).all(axis=None) and (done.deltas["p_holm"] == 1).all()


def test_a_difference_within_the_noise_has_an_interval_around_zero(project):
    # one more question right with synthetic rows than without, of 20
    late = project / "notebooks/02_rag_compile.ipynb"
    late.write_text(late.read_text().replace('< \\"c7\\"', '< \\"c1\\"'))
    done, _ = ablate(until="rag_compile")
    row = done.deltas.set_index(["system", "metric"]).loc[("chosen", "hit@1")]
    assert row["value"] == pytest.approx(0.05) and row["low"] < 0 < row["high"] and row["detectable"] > 0.05
    assert row["p_holm"] > 0.05


def test_unequal_steps_are_named(project):
    done, _ = ablate(overrides=["extra=5"])
    assert "Not at equal training steps" in done.notes[0]
    assert "'retriever/embedder': 10" in done.notes[0] and "'retriever/embedder': 15" in done.notes[0]


def test_retrieval_alone_can_be_compared(project):
    done, lines = ablate(until="rag_compile")
    assert set(done.deltas["system"]) == {"bm25", "chosen"}
    assert not any("fine_tune" in line for line in lines)


def test_a_parameter_that_changes_the_test_questions_is_refused_before_the_long_stages(project):
    lines = []
    with pytest.raises(InputError, match="test_rows changes the test questions"):
        ablation.ablate("tiny", "test_rows", ("1", "2"), log=lines.append)
    assert len(lines) == 4 and not any("rag_compile" in line for line in lines)


@pytest.mark.parametrize(
    "name, values, options, message",
    [
        ("use_synthetic", ("true", "True"), {}, "the same value"),
        ("use_synthetic", ("true", "maybe"), {}, "expected bool"),
        ("use_synthetics", ("true", "false"), {}, "did you mean 'use_synthetic'"),
        ("use_synthetic", ("true", "false"), {"overrides": ["use_synthetic=true"]}, "use_synthetic can't be varied"),
        ("use_synthetic", ("true", "false"), {"until": "data_prep"}, "Nothing is measured"),
        ("use_synthetic", ("true", "false"), {"until": "never"}, "Invalid stage"),
        ("use_synthetic", ("true", "false"), {"confidence": 95}, "Invalid confidence"),
        ("iteration", ("1", "2"), {}, "the loop counts it"),
        ("run_dir", ("a", "b"), {}, "run_dir can't be varied"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(project, name, values, options, message):
    lines = []
    with pytest.raises(InputError, match=message):
        ablation.ablate("tiny", name, values, log=lines.append, **options)
    assert lines == []


def test_records_that_cannot_be_paired_are_refused(project):
    done, _ = ablate()
    one, other = (runs.Iteration(folder, 1) for folder in done.runs)
    path = other.path("metrics", "retrieval.csv")
    path.write_text(path.read_text()[: path.read_text().index("c3-0")])
    with pytest.raises(InputError, match="different rows"):
        ablation.ablation_deltas(one, other, n_resamples=50)


def test_one_test_contract_allows_no_test(project):
    done, _ = ablate()
    one, other = (runs.Iteration(folder, 1) for folder in done.runs)
    for iteration in (one, other):
        keep = [r for r in files.read_jsonl(iteration.run / "contracts.jsonl") if r["title"] == "c0"]
        files.write_jsonl(iteration.run / "contracts.jsonl", keep)
    table = ablation.ablation_deltas(one, other, n_resamples=50)
    row = table.set_index(["system", "metric"]).loc[("chosen", "hit@1")]
    assert math.isnan(row["p"]) and (row["n"], row["n_contracts"]) == (2, 1)


def test_folders_are_named_after_the_values_and_never_shared(project):
    names = ablation._folder_names("model", ("org/a b", "org/a:b"))
    assert names[0] != names[1] and names == ["model=org_a_b-0", "model=org_a_b-1"]
    assert ablation._folder_names("k", ("1", "1.5")) == ["k=1", "k=1.5"]
    assert "/" not in ablation._folder_names("model", ("../x", "y"))[0]


def test_the_command_prints_the_report(project, capsys):
    options = ["--set", "steps=12", "--run-dir", "runs/x", "--n-resamples", "50"]
    assert cli.main(["ablate", "tiny", "use_synthetic", "false", "true", *options]) == 0
    out = capsys.readouterr().out
    assert "use_synthetic: true (b) less false (a)" in out and "runs/x/ablation.csv" in out and "chosen" in out
    assert cli.main(["ablate", "tiny", "use_synthetic", "true", "true"]) == 2
    assert capsys.readouterr().err.startswith("error: true and true are the same value")
