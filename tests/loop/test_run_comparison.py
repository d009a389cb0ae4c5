"""The comparison of two runs that differ in one parameter: paired on the same test questions."""

import math

import pytest
from tiny_project import OPEN, RUN_DIR, SEED, make_project, run_in_process, write_notebook

from cuadft import cli
from cuadft.core import files
from cuadft.core.errors import InputError
from cuadft.loop import runner
from cuadft.loop.run_comparison import compare_runs

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
        write_notebook(tmp_path / "notebooks" / f"{name}.ipynb", RUN_DIR + parameters, OPEN, body)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runner, "execute_notebook", run_in_process)
    return tmp_path


def run_both(name="use_synthetic", values=("false", "true"), until="inference_sft", overrides=()):
    for folder, value in zip(("runs/a", "runs/b"), values, strict=True):
        settings = {"until": until, "overrides": [*overrides, f"{name}={value}"], "log": lambda line: None}
        runner.run("tiny", run_dir=folder, **settings)


def compared(one="runs/a", other="runs/b"):
    return compare_runs(one, other, n_resamples=200)


def found(table, system, metric):
    row = table.set_index(["system", "metric"]).loc[(system, metric)]
    return tuple(round(row[c], 6) for c in ("a", "b", "value", "n", "n_contracts"))


def test_the_table_holds_the_paired_differences_of_the_two_runs(project):
    run_both()
    table = compared()
    # 10 of 20 without, 17 of 20 with synthetic rows; the record of a dev contract counts nowhere
    assert found(table, "chosen", "hit@1") == found(table, "sft", "quote_f1") == (0.5, 0.85, 0.35, 20, 10)
    assert found(table, "chosen", "char_recall@3") == (0.75, 0.75, 0, 20, 10)
    better = table.set_index(["system", "metric"]).loc[("sft", "quote_f1")]
    assert 0 < better["low"] < 0.35 < better["high"] and better["p"] < better["p_holm"] < 0.05
    assert found(compared("runs/b", "runs/a"), "sft", "quote_f1")[2] == -0.35


def test_no_difference_is_called_the_same(project):
    run_both("steps", ("10", "20"))
    table = compared()
    assert (table[["value", "low", "high"]] == 0).all(axis=None) and (table["p_holm"] == 1).all()


def test_a_difference_within_the_noise_has_an_interval_around_zero(project):
    # one more question right with synthetic rows than without, of 20
    late = project / "notebooks/02_rag_compile.ipynb"
    late.write_text(late.read_text().replace('< \\"c7\\"', '< \\"c1\\"'))
    run_both(until="rag_compile")
    table = compared()
    row = table.set_index(["system", "metric"]).loc[("chosen", "hit@1")]
    assert row["value"] == pytest.approx(0.05) and row["low"] < 0 < row["high"] and row["detectable"] > 0.05
    assert row["p_holm"] > 0.05
    assert set(table["system"]) == {"bm25", "chosen"}  # retrieval alone can be compared


def test_runs_that_were_not_asked_the_same_questions_are_refused(project):
    run_both("test_rows", ("1", "2"))
    with pytest.raises(InputError, match="different rows"):
        compared()
    with pytest.raises(InputError, match="retrieval.csv is missing"):
        compared("runs/a", "runs/none")


def test_one_test_contract_allows_no_test(project):
    run_both()
    for name in ("a", "b"):
        path = project / "runs" / name / "contracts.jsonl"
        files.write_jsonl(path, [r for r in files.read_jsonl(path) if r["title"] == "c0"])
    row = compared().set_index(["system", "metric"]).loc[("chosen", "hit@1")]
    assert math.isnan(row["p"]) and (row["n"], row["n_contracts"]) == (2, 1)


def test_the_command_prints_the_table(project, capsys):
    run_both(until="rag_compile")
    assert cli.main(["compare", "runs/a", "runs/b", "--n-resamples", "50"]) == 0
    assert "chosen" in capsys.readouterr().out
    assert cli.main(["compare", "runs/a", "runs/b", "--confidence", "95"]) == 2
    assert "Invalid confidence" in capsys.readouterr().err
